//! The packets of a SYN scan: builds SYNs, parses answers, and generates the filter for answers.
//!
//! Layouts follow RFC 9293 (TCP), RFC 791 (IPv4), RFC 8200 (IPv6), RFC 792 (ICMP) and RFC 4443
//! (ICMPv6). All bytes from the network are checked before they are used, and a packet that is not
//! an answer gives a [`Reject`], which is the reason. An answer belongs to a probe only if it
//! acknowledges the sequence number that [`sequence`] computes for its four-tuple, so no state is
//! needed to recognise a forged answer. This module has no descriptors, reads no clock, and does
//! not know the probes. The SYN engine of the event loop drives it.

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
    /// The address and port of the target.
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

/// The reason why a packet is not an answer to a SYN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reject {
    /// The packet is shorter than its headers or than its length field says.
    Truncated,
    /// The IP header has another version than expected.
    Version,
    /// A length field is smaller than the shortest header.
    HeaderLength,
    /// The checksum of the IPv4 header is wrong.
    HeaderChecksum,
    /// The packet is a fragment. The kernel reassembles packets, so a fragment is never an answer.
    Fragment,
    /// The packet contains no TCP segment.
    Protocol,
    /// The packet has more extension headers than a valid packet needs.
    ExtensionHeaders,
    /// The checksum of the TCP segment is wrong.
    Checksum,
    /// A port is 0.
    Port,
    /// The segment is neither a SYN-ACK nor a RST with an acknowledgement.
    Flags,
    /// The segment acknowledges, or the ICMP message quotes, another sequence number than that of
    /// the SYN with its four-tuple.
    Acknowledgement,
    /// No probe with this four-tuple is in flight.
    NoProbe,
    /// The ICMP message does not end a connection attempt.
    Icmp,
}

impl Reject {
    /// Every reason, in the order of the discriminants.
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
        for (index, reason) in Reject::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index, "{reason:?}");
            let labels = Reject::ALL.iter().filter(|it| it.label() == reason.label());
            assert_eq!(labels.count(), 1, "{reason:?}");
        }
    }
}
