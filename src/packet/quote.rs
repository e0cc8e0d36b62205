//! Parses the packet that an ICMP error quotes, and determines the meaning of the error.
//!
//! An error quotes the IP header and at least 8 bytes after it (RFC 792), which contain the ports
//! and the sequence number of a SYN. This is enough to recognise a SYN of this process. The kernel
//! delivers errors through the error queue of a raw socket, without the ICMP header (ip(7),
//! IP_RECVERR).

use std::net::SocketAddr;

use super::header::{self, PacketExtent};
use super::sequence::Numbers;
use super::{FourTuple, Reject, be16, be32};

/// The type and code of an ICMP error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IcmpError {
    /// RFC 792 and RFC 1122 section 3.2.2.
    V4 {
        /// The type.
        kind: u8,
        /// The code.
        code: u8,
    },
    /// RFC 4443 section 3.
    V6 {
        /// The type.
        kind: u8,
        /// The code.
        code: u8,
    },
}

/// The meaning of an ICMP error for a probe. Linux distinguishes the two as well: a connect fails
/// with ECONNREFUSED if the port is unreachable, and with another errno otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// The host, or a firewall on its behalf, reports that no process listens on the port.
    PortUnreachable,
    /// A router or a firewall reports that the host cannot be reached.
    Unreachable,
}

/// The SYN that an error quotes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quote {
    /// The four-tuple of the SYN: `local` is the source of the quoted packet.
    pub tuple: FourTuple,
    /// The sequence number of the SYN.
    pub sequence: u32,
}

impl IcmpError {
    /// The meaning of the error for the probe.
    ///
    /// # Errors
    /// [`Reject::Icmp`] if the error does not end a connect: the MTU of a path, a redirect, or a
    /// source quench.
    pub const fn meaning(self) -> Result<Meaning, Reject> {
        match self {
            Self::V4 { kind: 3, code: 3 } | Self::V6 { kind: 1, code: 4 } => {
                Ok(Meaning::PortUnreachable)
            }
            Self::V4 { kind: 3, code: 4 } => Err(Reject::Icmp),
            // The types mean "destination unreachable", "time exceeded" and "parameter problem".
            Self::V4 { kind: 3 | 11 | 12, .. } | Self::V6 { kind: 1 | 3 | 4, .. } => {
                Ok(Meaning::Unreachable)
            }
            Self::V4 { .. } | Self::V6 { .. } => Err(Reject::Icmp),
        }
    }
}

impl Quote {
    /// Parses the packet that an error quotes.
    ///
    /// # Errors
    /// The packet contains no TCP segment, is a fragment, or is too short.
    pub fn parse(error: IcmpError, packet: &[u8]) -> Result<Self, Reject> {
        match error {
            IcmpError::V4 { .. } => {
                let packet = header::ipv4(packet, PacketExtent::Quoted)?;
                Self::new(packet.segment, |ports| FourTuple {
                    local: SocketAddr::new(packet.source.into(), ports[0]),
                    remote: SocketAddr::new(packet.destination.into(), ports[1]),
                })
            }
            IcmpError::V6 { .. } => {
                let packet = header::ipv6(packet, PacketExtent::Quoted)?;
                Self::new(packet.segment, |ports| FourTuple {
                    local: SocketAddr::new(packet.source.into(), ports[0]),
                    remote: SocketAddr::new(packet.destination.into(), ports[1]),
                })
            }
        }
    }

    /// Checks that the quoted packet is a SYN with these numbers.
    ///
    /// # Errors
    /// [`Reject::Acknowledgement`] if the error is forged, or quotes another packet.
    pub fn check(&self, numbers: Numbers) -> Result<(), Reject> {
        match self.sequence == numbers.sequence {
            true => Ok(()),
            false => Err(Reject::Acknowledgement),
        }
    }

    fn new(segment: &[u8], tuple: impl Fn([u16; 2]) -> FourTuple) -> Result<Self, Reject> {
        let ports = [be16(segment, 0)?, be16(segment, 2)?];
        if ports.contains(&0) {
            return Err(Reject::Port);
        }
        Ok(Self { tuple: tuple(ports), sequence: be32(segment, 4)? })
    }
}

#[cfg(test)]
mod tests {
    use super::super::syn::{SYN_BYTES_MAX, Syn};
    use super::*;

    const NUMBERS: Numbers = Numbers { sequence: 0x0102_0304, timestamp_offset: 0 };

    fn quoted(local: &str, remote: &str) -> (FourTuple, Vec<u8>) {
        let tuple = FourTuple { local: local.parse().unwrap(), remote: remote.parse().unwrap() };
        let mut packet = [0; SYN_BYTES_MAX];
        let len = Syn { tuple, numbers: NUMBERS, clock_ms: 0 }.write(&mut packet);
        (tuple, packet[..len].to_vec())
    }

    #[test]
    fn eight_bytes_after_the_ip_header_are_enough() {
        let errors = [IcmpError::V4 { kind: 3, code: 1 }, IcmpError::V6 { kind: 1, code: 0 }];
        let packets = [
            quoted("192.0.2.1:40000", "198.51.100.7:443"),
            quoted("[2001:db8::1]:40000", "[2001:db8::2]:443"),
        ];
        for (error, ((tuple, packet), header_len)) in
            errors.iter().zip(packets.iter().zip([20, 40]))
        {
            for len in 0..packet.len() {
                let quote = Quote::parse(*error, &packet[..len]);
                if len < header_len + 8 {
                    assert_eq!(quote, Err(Reject::Truncated), "{len} bytes");
                    continue;
                }
                let quote = quote.unwrap();
                assert_eq!(quote, Quote { tuple: *tuple, sequence: NUMBERS.sequence });
                assert_eq!(quote.check(NUMBERS), Ok(()));
                let other = Numbers { sequence: NUMBERS.sequence + 1, ..NUMBERS };
                assert_eq!(quote.check(other), Err(Reject::Acknowledgement));
            }
        }
    }

    #[test]
    fn a_quoted_packet_that_is_not_a_tcp_segment_is_rejected() {
        let error = IcmpError::V4 { kind: 3, code: 1 };
        let (_, packet) = quoted("192.0.2.1:40000", "198.51.100.7:443");
        let check = |index: usize, byte: u8, expected: Reject| {
            let mut packet = packet.clone();
            packet[index] = byte;
            assert_eq!(Quote::parse(error, &packet), Err(expected), "byte {index}: {byte}");
        };
        check(9, 17, Reject::Protocol);
        check(0, 0x65, Reject::Version);
        check(0, 0x41, Reject::HeaderLength);
        check(7, 3, Reject::Fragment);
        let mut portless = packet.clone();
        portless[20..22].fill(0);
        assert_eq!(Quote::parse(error, &portless), Err(Reject::Port));
    }

    #[test]
    fn every_type_and_code_has_the_same_meaning_as_for_a_connect() {
        for kind in 0..=u8::MAX {
            for code in 0..=u8::MAX {
                let expected = match (kind, code) {
                    (3, 3) => Ok(Meaning::PortUnreachable),
                    (3, 4) => Err(Reject::Icmp),
                    (3 | 11 | 12, _) => Ok(Meaning::Unreachable),
                    _ => Err(Reject::Icmp),
                };
                let error = IcmpError::V4 { kind, code };
                assert_eq!(error.meaning(), expected, "{error:?}");
                let expected = match (kind, code) {
                    (1, 4) => Ok(Meaning::PortUnreachable),
                    (1 | 3 | 4, _) => Ok(Meaning::Unreachable),
                    _ => Err(Reject::Icmp),
                };
                let error = IcmpError::V6 { kind, code };
                assert_eq!(error.meaning(), expected, "{error:?}");
            }
        }
    }
}
