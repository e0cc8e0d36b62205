//! Builds SYNs, the only packets that the engine sends.
//!
//! They have the same options as those of Linux, in the same order: maximum segment size, SACK
//! permitted, timestamps and window scale (RFC 9293 section 3.2, RFC 2018, RFC 7323). Some hosts
//! and firewalls drop a SYN without options.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use super::header::{IPV4_BYTES, IPV6_BYTES};
use super::sequence::Numbers;
use super::{FourTuple, TCP, checksum};

/// The length of the TCP header with its options, in bytes.
const SEGMENT_BYTES: usize = 40;
/// The length of the longest packet with a SYN, in bytes: one over IPv6.
pub const SYN_BYTES_MAX: usize = IPV6_BYTES + SEGMENT_BYTES;
/// The time to live (IPv4) or hop limit (IPv6): the default of Linux.
const HOP_LIMIT: u8 = 64;
/// The window of a SYN of Linux, in bytes: 44 segments of 1460 bytes, the maximum over Ethernet.
const WINDOW: u16 = 64_240;
/// The window scale of Linux with its default buffer sizes, as a power of two.
const WINDOW_SCALE: u8 = 7;
/// The maximum segment size over Ethernet for IPv4 and for IPv6, in bytes.
const SEGMENT_SIZE_MAX: [u16; 2] = [1460, 1440];
/// The data offset (a header of 40 bytes) and the flags (SYN only) of RFC 9293 section 3.1.
const LENGTH_AND_FLAGS: [u8; 2] = [(SEGMENT_BYTES as u8 / 4) << 4, SYN];
const SYN: u8 = 0x02;

/// The contents of one SYN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Syn {
    /// The source (`local`) and the destination (`remote`).
    pub tuple: FourTuple,
    /// The sequence number, and the offset of the timestamp.
    pub numbers: Numbers,
    /// The time of a monotonic clock in milliseconds, for the timestamp.
    pub clock_ms: u32,
}

impl Syn {
    /// Writes the complete packet, and returns its length in bytes.
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

    /// The TCP segment with its checksum.
    fn segment(&self) -> [u8; SEGMENT_BYTES] {
        let FourTuple { local, remote } = self.tuple;
        let segment_size_max = SEGMENT_SIZE_MAX[usize::from(remote.is_ipv6())].to_be_bytes();
        let timestamp = self.numbers.timestamp_offset.wrapping_add(self.clock_ms);
        let mut segment = [0; SEGMENT_BYTES];
        segment[0..2].copy_from_slice(&local.port().to_be_bytes());
        segment[2..4].copy_from_slice(&remote.port().to_be_bytes());
        segment[4..8].copy_from_slice(&self.numbers.sequence.to_be_bytes());
        segment[12..14].copy_from_slice(&LENGTH_AND_FLAGS);
        segment[14..16].copy_from_slice(&WINDOW.to_be_bytes());
        segment[20..24].copy_from_slice(&[2, 4, segment_size_max[0], segment_size_max[1]]);
        segment[24..28].copy_from_slice(&[4, 2, 8, 10]);
        segment[28..32].copy_from_slice(&timestamp.to_be_bytes());
        segment[36..40].copy_from_slice(&[1, 3, 3, WINDOW_SCALE]);
        let sum = checksum::of_segment([local.ip(), remote.ip()], &segment);
        segment[16..18].copy_from_slice(&sum.to_be_bytes());
        segment
    }
}

/// The IPv4 header of a SYN. It forbids fragmentation, so its identification may have any value
/// (RFC 6864 section 4.1). The field is 0 here, and the kernel replaces it (raw(7)).
fn ipv4(source: Ipv4Addr, destination: Ipv4Addr) -> [u8; IPV4_BYTES] {
    let [length_high, length_low] = ((IPV4_BYTES + SEGMENT_BYTES) as u16).to_be_bytes();
    let mut header = [0; IPV4_BYTES];
    header[..10].copy_from_slice(&[
        0x45,
        0,
        length_high,
        length_low,
        0,
        0,
        0x40,
        0,
        HOP_LIMIT,
        TCP,
    ]);
    header[12..16].copy_from_slice(&source.octets());
    header[16..].copy_from_slice(&destination.octets());
    let sum = checksum::of(&header);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    header
}

/// The IPv6 header of a SYN.
fn ipv6(source: Ipv6Addr, destination: Ipv6Addr) -> [u8; IPV6_BYTES] {
    let mut header = [0; IPV6_BYTES];
    header[..8].copy_from_slice(&[0x60, 0, 0, 0, 0, SEGMENT_BYTES as u8, TCP, HOP_LIMIT]);
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

    /// Checks all fields of a segment except its checksum and its maximum segment size.
    fn check_segment(segment: &[u8]) {
        assert_eq!(segment.len(), 40);
        assert_eq!((be16(segment, 0), be16(segment, 2)), (Ok(40_000), Ok(443)));
        assert_eq!(be32(segment, 4), Ok(0x0102_0304), "the sequence number");
        assert_eq!(be32(segment, 8), Ok(0), "the acknowledgement number is 0");
        assert_eq!(
            segment[12..16],
            [0xa0, 0x02, 0xfa, 0xf0],
            "SYN is the only flag, and the window is 64,240"
        );
        assert_eq!(be16(segment, 18), Ok(0), "the urgent pointer is 0");
        assert_eq!(segment[20..22], [2, 4]);
        assert_eq!(segment[24..28], [4, 2, 8, 10]);
        assert_eq!(be32(segment, 28), Ok(0x0a0b_0c0d), "the timestamp has wrapped");
        assert_eq!(segment[32..40], [0, 0, 0, 0, 1, 3, 3, 7]);
    }

    #[test]
    fn a_syn_over_ipv4_has_the_options_of_linux() {
        let mut packet = [0xff; SYN_BYTES_MAX];
        let len = syn("192.0.2.1:40000", "198.51.100.7:443").write(&mut packet);
        assert_eq!(len, 60);
        let read = header::ipv4(&packet[..len], PacketExtent::Whole).unwrap();
        assert_eq!(read.source, Ipv4Addr::new(192, 0, 2, 1));
        assert_eq!(read.destination, Ipv4Addr::new(198, 51, 100, 7));
        assert_eq!(packet[6..10], [0x40, 0, 64, 6], "do not fragment, a TTL of 64, TCP");
        check_segment(read.segment);
        assert_eq!(be16(read.segment, 22), Ok(1460));
        let ends = [read.source.into(), read.destination.into()];
        assert_eq!(checksum::judge(ends, read.segment), checksum::ChecksumVerdict::Complete);
    }

    #[test]
    fn a_syn_over_ipv6_has_the_options_of_linux() {
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
