//! The internet checksum (RFC 1071), and that of TCP with its pseudo header.
//!
//! The pseudo headers are those of RFC 9293 section 3.1 for IPv4 and RFC 8200 section 8.1 for IPv6.

use std::net::IpAddr;

use super::TCP;

/// What the checksum of a received segment says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChecksumVerdict {
    /// It is right.
    Complete,
    /// It covers the pseudo header alone. A segment that never left this machine (loopback, a veth
    /// pair) has it like this: its sender leaves the rest to a network card that it never meets.
    Partial,
    /// It is wrong.
    Wrong,
}

/// The checksum of `bytes`, to be put into a field that was zero; 0 over bytes that hold their own.
pub fn of(bytes: &[u8]) -> u16 {
    !fold(sum(bytes))
}

/// The checksum of a TCP segment between two addresses of one family, which is symmetric in them.
pub fn of_segment(ends: [IpAddr; 2], segment: &[u8]) -> u16 {
    !fold(pseudo_header(ends, segment.len()) + sum(segment))
}

/// Judges the checksum of a received TCP segment of at least 20 bytes.
pub fn judge(ends: [IpAddr; 2], segment: &[u8]) -> ChecksumVerdict {
    assert!(segment.len() >= 20, "a segment has a header");
    let pseudo_header = pseudo_header(ends, segment.len());
    if fold(pseudo_header + sum(segment)) == u16::MAX {
        return ChecksumVerdict::Complete;
    }
    let field = u16::from_be_bytes([segment[16], segment[17]]);
    if field == fold(pseudo_header) { ChecksumVerdict::Partial } else { ChecksumVerdict::Wrong }
}

fn pseudo_header(ends: [IpAddr; 2], len: usize) -> u64 {
    let addresses = ends.map(|end| match end {
        IpAddr::V4(address) => sum(&address.octets()),
        IpAddr::V6(address) => sum(&address.octets()),
    });
    addresses[0] + addresses[1] + u64::from(TCP) + len as u64
}

/// The sum of the 16-bit words; an odd byte at the end is the high half of a word.
fn sum(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<2>();
    let words: u64 = words.iter().map(|word| u64::from(u16::from_be_bytes(*word))).sum();
    words + rest.first().map_or(0, |last| u64::from(*last) << 8)
}

fn fold(mut sum: u64) -> u16 {
    while sum > u64::from(u16::MAX) {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_of_rfc_1071() {
        // Section 3: the words 0001 f203 f4f5 f6f7 sum to ddf2.
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(of(&bytes), !0xddf2);
        assert_eq!(of(&[0x12]), !0x1200, "an odd byte");
        assert_eq!(of(&[]), 0xffff);
    }

    #[test]
    fn the_header_of_a_captured_packet() {
        let mut header = [
            0x45, 0x00, 0x00, 0x73, 0x00, 0x00, 0x40, 0x00, 0x40, 0x11, 0x00, 0x00, 0xc0, 0xa8,
            0x00, 0x01, 0xc0, 0xa8, 0x00, 0xc7,
        ];
        assert_eq!(of(&header), 0xb861);
        header[10..12].copy_from_slice(&0xb861_u16.to_be_bytes());
        assert_eq!(of(&header), 0, "a header that holds its checksum sums to zero");
    }

    #[test]
    fn each_single_bit_that_flips_is_noticed() {
        let ends: [IpAddr; 2] = ["192.0.2.1".parse(), "198.51.100.7".parse()].map(|it| it.unwrap());
        let mut segment: Vec<u8> = (0..29).collect();
        segment[16..18].copy_from_slice(&[0, 0]);
        let sum = of_segment(ends, &segment);
        segment[16..18].copy_from_slice(&sum.to_be_bytes());
        assert_eq!(judge(ends, &segment), ChecksumVerdict::Complete);
        for bit in 0..segment.len() * 8 {
            segment[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(judge(ends, &segment), ChecksumVerdict::Wrong, "bit {bit}");
            segment[bit / 8] ^= 1 << (bit % 8);
        }
        let partial = fold(pseudo_header(ends, segment.len()));
        segment[16..18].copy_from_slice(&partial.to_be_bytes());
        assert_eq!(judge(ends, &segment), ChecksumVerdict::Partial);
    }
}
