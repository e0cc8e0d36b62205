//! Parses the packet that an ICMP error quotes, and says what the error means for its probe.
//!
//! An error quotes the IP header and at least 8 bytes behind it (RFC 792), which hold the ports and
//! the sequence number of a SYN: enough to know that it is one of ours. The kernel delivers errors
//! through the error queue of a raw socket, without the ICMP header (ip(7), IP_RECVERR).

use std::net::SocketAddr;

use super::header::{self, PacketExtent};
use super::sequence::Numbers;
use super::{FourTuple, Reject, be16, be32};

/// Type and code of an ICMP error.
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

/// What an error says about a port. Linux distinguishes the two: a connect ends with ECONNREFUSED
/// where the port is unreachable, and with another error otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// The host, or a firewall in its name, says that nothing listens there.
    PortUnreachable,
    /// The network or a policy says that the host cannot be reached.
    Unreachable,
}

/// The SYN that an error quotes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quote {
    /// Ours is `local`.
    pub tuple: FourTuple,
    /// Its sequence number.
    pub sequence: u32,
}

impl IcmpError {
    /// What it says about the port.
    ///
    /// # Errors
    /// [`Reject::Icmp`]: it ends no connect (a path's MTU, a redirect, a source quench).
    pub const fn meaning(self) -> Result<Meaning, Reject> {
        match self {
            Self::V4 { kind: 3, code: 3 } | Self::V6 { kind: 1, code: 4 } => {
                Ok(Meaning::PortUnreachable)
            }
            Self::V4 { kind: 3, code: 4 } => Err(Reject::Icmp),
            // Destination unreachable, time exceeded, parameter problem.
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
    /// It is no TCP segment, a fragment, or too short.
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

    /// Checks that a SYN with these numbers is quoted.
    ///
    /// # Errors
    /// [`Reject::Acknowledgement`]: it is forged, or quotes something else.
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
    fn eight_bytes_behind_the_header_are_enough() {
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
    fn someone_elses_packet_is_rejected() {
        let error = IcmpError::V4 { kind: 3, code: 1 };
        let (_, packet) = quoted("192.0.2.1:40000", "198.51.100.7:443");
        let check = |place: usize, byte: u8, expected: Reject| {
            let mut packet = packet.clone();
            packet[place] = byte;
            assert_eq!(Quote::parse(error, &packet), Err(expected), "byte {place}: {byte}");
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
    fn every_type_and_code_means_what_it_means_to_a_connect() {
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
