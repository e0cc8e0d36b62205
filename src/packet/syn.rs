//! Builds SYNs, the only packets that the engine sends.
//!
//! They look like Linux's own: maximum segment size, SACK permitted, timestamps and window scale in
//! that order (RFC 9293 section 3.2, RFC 2018, RFC 7323). Some hosts and firewalls drop a SYN
//! without options.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use super::header::{IPV4_BYTES, IPV6_BYTES};
use super::sequence::Numbers;
use super::{FourTuple, TCP, checksum};

/// Bytes of the TCP header with its options.
const SEGMENT_BYTES: usize = 40;
/// Bytes of the longest SYN, which is that over IPv6.
pub const SYN_BYTES_MAX: usize = IPV6_BYTES + SEGMENT_BYTES;
/// Time to live, or hop limit: Linux's default.
const HOPS: u8 = 64;
/// The window of Linux's SYNs: 44 segments of Ethernet.
const WINDOW: u16 = 64_240;
/// What Linux's windows are scaled by.
const WINDOW_SCALE: u8 = 7;
/// The longest segment of Ethernet over IPv4, and over IPv6.
const SEGMENT_MAX: [u16; 2] = [1460, 1440];
/// The header is 40 bytes long, and SYN is the only flag (RFC 9293 section 3.1).
const LENGTH_AND_FLAGS: [u8; 2] = [(SEGMENT_BYTES as u8 / 4) << 4, SYN];
const SYN: u8 = 0x02;

/// What one SYN carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Syn {
    /// From where to where.
    pub tuple: FourTuple,
    /// Its sequence number, and where its clock begins.
    pub numbers: Numbers,
    /// Milliseconds of a clock that never goes back.
    pub clock_ms: u32,
}

impl Syn {
    /// Writes the whole packet; its length.
    pub fn write(&self, packet: &mut [u8; SYN_BYTES_MAX]) -> usize {
        let FourTuple { local, remote } = self.tuple;
        let header_len = match (local, remote) {
            (SocketAddr::V4(local), SocketAddr::V4(remote)) => {
                packet[..IPV4_BYTES].copy_from_slice(&ipv4(*local.ip(), *remote.ip()));
                IPV4_BYTES
            }
            (SocketAddr::V6(local), SocketAddr::V6(remote)) => {
                packet[..IPV6_BYTES].copy_from_slice(&ipv6(*local.ip(), *remote.ip()));
                IPV6_BYTES
            }
            (SocketAddr::V4(_) | SocketAddr::V6(_), _) => {
                unreachable!("both ends have the same address family")
            }
        };
        let end = header_len + SEGMENT_BYTES;
        packet[header_len..end].copy_from_slice(&self.segment());
        end
    }

    fn segment(&self) -> [u8; SEGMENT_BYTES] {
        let FourTuple { local, remote } = self.tuple;
        let segment_max = SEGMENT_MAX[usize::from(remote.is_ipv6())].to_be_bytes();
        let timestamp = self.numbers.timestamp_offset.wrapping_add(self.clock_ms);
        let mut segment = [0; SEGMENT_BYTES];
        segment[0..2].copy_from_slice(&local.port().to_be_bytes());
        segment[2..4].copy_from_slice(&remote.port().to_be_bytes());
        segment[4..8].copy_from_slice(&self.numbers.sequence.to_be_bytes());
        segment[12..14].copy_from_slice(&LENGTH_AND_FLAGS);
        segment[14..16].copy_from_slice(&WINDOW.to_be_bytes());
        segment[20..24].copy_from_slice(&[2, 4, segment_max[0], segment_max[1]]);
        segment[24..28].copy_from_slice(&[4, 2, 8, 10]);
        segment[28..32].copy_from_slice(&timestamp.to_be_bytes());
        segment[36..40].copy_from_slice(&[1, 3, 3, WINDOW_SCALE]);
        let sum = checksum::of_segment([local.ip(), remote.ip()], &segment);
        segment[16..18].copy_from_slice(&sum.to_be_bytes());
        segment
    }
}

/// The header of a SYN that must not be fragmented. Its identification stays 0, which the kernel
/// replaces (raw(7)); RFC 6864 section 4.1 lets such a packet have any.
fn ipv4(source: Ipv4Addr, destination: Ipv4Addr) -> [u8; IPV4_BYTES] {
    let [length_high, length_low] = ((IPV4_BYTES + SEGMENT_BYTES) as u16).to_be_bytes();
    let mut header = [0; IPV4_BYTES];
    header[..10].copy_from_slice(&[0x45, 0, length_high, length_low, 0, 0, 0x40, 0, HOPS, TCP]);
    header[12..16].copy_from_slice(&source.octets());
    header[16..].copy_from_slice(&destination.octets());
    let sum = checksum::of(&header);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    header
}

fn ipv6(source: Ipv6Addr, destination: Ipv6Addr) -> [u8; IPV6_BYTES] {
    let mut header = [0; IPV6_BYTES];
    header[..8].copy_from_slice(&[0x60, 0, 0, 0, 0, SEGMENT_BYTES as u8, TCP, HOPS]);
    header[8..24].copy_from_slice(&source.octets());
    header[24..].copy_from_slice(&destination.octets());
    header
}

#[cfg(test)]
mod tests {
    use super::super::header::{self, PacketExtent};
    use super::super::{be16, be32};
    use super::*;

    fn syn(local: &str, remote: &str) -> Syn {
        let tuple = FourTuple { local: local.parse().unwrap(), remote: remote.parse().unwrap() };
        let numbers = Numbers { sequence: 0x0102_0304, timestamp_offset: u32::MAX };
        Syn { tuple, numbers, clock_ms: 0x0a0b_0c0e }
    }

    /// Everything in the segment but its checksum and the longest segment.
    fn check_segment(segment: &[u8]) {
        assert_eq!(segment.len(), 40);
        assert_eq!((be16(segment, 0), be16(segment, 2)), (Ok(40_000), Ok(443)));
        assert_eq!(be32(segment, 4), Ok(0x0102_0304), "the sequence number");
        assert_eq!(be32(segment, 8), Ok(0), "nothing is acknowledged");
        assert_eq!(segment[12..16], [0xa0, 0x02, 0xfa, 0xf0], "SYN alone, a window of 64,240");
        assert_eq!(be16(segment, 18), Ok(0), "nothing is urgent");
        assert_eq!(segment[20..22], [2, 4]);
        assert_eq!(segment[24..28], [4, 2, 8, 10]);
        assert_eq!(be32(segment, 28), Ok(0x0a0b_0c0d), "the timestamp wraps");
        assert_eq!(segment[32..40], [0, 0, 0, 0, 1, 3, 3, 7]);
    }

    #[test]
    fn a_syn_over_ipv4() {
        let mut packet = [0xff; SYN_BYTES_MAX];
        let len = syn("192.0.2.1:40000", "198.51.100.7:443").write(&mut packet);
        assert_eq!(len, 60);
        let read = header::ipv4(&packet[..len], PacketExtent::Whole).unwrap();
        assert_eq!(read.source, Ipv4Addr::new(192, 0, 2, 1));
        assert_eq!(read.destination, Ipv4Addr::new(198, 51, 100, 7));
        assert_eq!(packet[6..10], [0x40, 0, 64, 6], "do not fragment, 64 hops, TCP");
        check_segment(read.segment);
        assert_eq!(be16(read.segment, 22), Ok(1460));
        let ends = [read.source.into(), read.destination.into()];
        assert_eq!(checksum::judge(ends, read.segment), checksum::ChecksumVerdict::Complete);
    }

    #[test]
    fn a_syn_over_ipv6() {
        let mut packet = [0xff; SYN_BYTES_MAX];
        let len = syn("[2001:db8::1]:40000", "[2001:db8::2]:443").write(&mut packet);
        assert_eq!(len, 80);
        let read = header::ipv6(&packet[..len], PacketExtent::Whole).unwrap();
        assert_eq!(packet[..8], [0x60, 0, 0, 0, 0, 40, 6, 64]);
        check_segment(read.segment);
        assert_eq!(be16(read.segment, 22), Ok(1440));
        let ends = [read.source.into(), read.destination.into()];
        assert_eq!(checksum::judge(ends, read.segment), checksum::ChecksumVerdict::Complete);
    }
}
