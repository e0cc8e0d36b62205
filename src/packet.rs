//! The packets of a SYN scan: SYNs are built, answers are parsed, and a filter selects the answers.
//!
//! Layouts follow RFC 9293 (TCP), RFC 791 (IPv4), RFC 8200 (IPv6), RFC 792 (ICMP) and RFC 4443
//! (ICMPv6). Every byte that came from the network is checked before it is used, and what is not an
//! answer is a [`Reject`] with its reason. An answer belongs to a probe only if it acknowledges the
//! sequence number that [`sequence`] computes for its four-tuple, so that nothing has to be stored
//! to recognise a forged one. The module owns no descriptor, knows no time and no probe. Driven by
//! the SYN engine of the event loop.

pub mod answer;
pub mod checksum;
pub mod filter;
pub mod header;
pub mod quote;
pub mod sequence;
pub mod syn;

use std::net::SocketAddr;

/// The two ends of a TCP connection. Both have the same address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FourTuple {
    /// Our address and source port.
    pub local: SocketAddr,
    /// The address and port that is probed.
    pub remote: SocketAddr,
}

/// The IP version of a packet or of a raw socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IpVersion {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl IpVersion {
    /// Both versions, in the order of their discriminants.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// The version of an address.
    pub const fn of(address: &SocketAddr) -> Self {
        if address.is_ipv6() { Self::V6 } else { Self::V4 }
    }
}

/// Why a packet is no answer to a SYN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reject {
    /// A header is longer than the packet.
    Truncated,
    /// The version in the IP header is another one.
    Version,
    /// A length field is smaller than the smallest header.
    HeaderLength,
    /// The checksum of the IPv4 header is wrong.
    HeaderChecksum,
    /// It is a fragment. The kernel reassembles packets, so that a fragment is never an answer.
    Fragment,
    /// It holds no TCP segment.
    Protocol,
    /// More extension headers than any packet needs.
    ExtensionHeaders,
    /// The checksum of the TCP segment is wrong.
    Checksum,
    /// Port 0.
    Port,
    /// Neither SYN and ACK nor RST and ACK.
    Flags,
    /// It acknowledges another sequence number than ours, or quotes another.
    Acknowledgement,
    /// No probe to this address and port is in flight.
    NoProbe,
    /// An ICMP message that ends no connection attempt.
    Icmp,
}

impl Reject {
    /// Every reason, in the order of its discriminant.
    pub const ALL: [Self; 13] = [
        Self::Truncated,
        Self::Version,
        Self::HeaderLength,
        Self::HeaderChecksum,
        Self::Fragment,
        Self::Protocol,
        Self::ExtensionHeaders,
        Self::Checksum,
        Self::Port,
        Self::Flags,
        Self::Acknowledgement,
        Self::NoProbe,
        Self::Icmp,
    ];

    /// The metric label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Truncated => "truncated",
            Self::Version => "version",
            Self::HeaderLength => "header_length",
            Self::HeaderChecksum => "header_checksum",
            Self::Fragment => "fragment",
            Self::Protocol => "protocol",
            Self::ExtensionHeaders => "extension_headers",
            Self::Checksum => "checksum",
            Self::Port => "port",
            Self::Flags => "flags",
            Self::Acknowledgement => "acknowledgement",
            Self::NoProbe => "no_probe",
            Self::Icmp => "icmp",
        }
    }
}

/// The protocol number of TCP (RFC 9293 section 3.1).
const TCP: u8 = 6;

/// The 16-bit field at `offset`, in network byte order.
fn be16(bytes: &[u8], offset: usize) -> Result<u16, Reject> {
    match bytes.get(offset..) {
        Some([high, low, ..]) => Ok(u16::from_be_bytes([*high, *low])),
        Some(_) | None => Err(Reject::Truncated),
    }
}

/// The 32-bit field at `offset`, in network byte order.
fn be32(bytes: &[u8], offset: usize) -> Result<u32, Reject> {
    match bytes.get(offset..) {
        Some([a, b, c, d, ..]) => Ok(u32::from_be_bytes([*a, *b, *c, *d])),
        Some(_) | None => Err(Reject::Truncated),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_label_of_its_own() {
        for (place, reason) in Reject::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, place, "{reason:?}");
            let labels = Reject::ALL.iter().filter(|it| it.label() == reason.label());
            assert_eq!(labels.count(), 1, "{reason:?}");
        }
    }
}
