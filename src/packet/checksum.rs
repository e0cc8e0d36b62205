//! The internet checksum (RFC 1071), and the checksum of a TCP segment with its pseudo header.
//!
//! The pseudo header is that of RFC 9293 section 3.1 for IPv4, and of RFC 8200 section 8.1 for
//! IPv6.

use std::net::IpAddr;

use super::TCP;

/// The result of checking the checksum of a received segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChecksumVerdict {
    /// The checksum is correct.
    Complete,
    /// The checksum covers only the pseudo header. This is normal for a segment that did not leave
    /// this machine (loopback, a veth pair): the sender leaves the rest of the computation to a
    /// network card (checksum offload), and there is none on the path.
    Partial,
    /// The checksum is wrong.
    Wrong,
}

/// The checksum of `bytes`, whose checksum field must be zero. If the field already contains the
/// correct checksum, the result is 0.
pub fn of(bytes: &[u8]) -> u16 {
    !fold(sum(bytes))
}

/// The checksum of a TCP segment between two addresses of the same family, in any order.
pub fn of_segment(ends: [IpAddr; 2], segment: &[u8]) -> u16 {
    !fold(pseudo_header(ends, segment.len()) + sum(segment))
}

/// Checks the checksum of a received TCP segment of at least 20 bytes.
pub fn judge(ends: [IpAddr; 2], segment: &[u8]) -> ChecksumVerdict {
    assert!(segment.len() >= 20, "a segment has at least a TCP header");
    let pseudo_header = pseudo_header(ends, segment.len());
    if fold(pseudo_header + sum(segment)) == u16::MAX {
        return ChecksumVerdict::Complete;
    }
    let field = u16::from_be_bytes([segment[16], segment[17]]);
    if field == fold(pseudo_header) { ChecksumVerdict::Partial } else { ChecksumVerdict::Wrong }
}

/// The sum of the pseudo header of a segment with `len` bytes.
fn pseudo_header(ends: [IpAddr; 2], len: usize) -> u64 {
    let addresses = ends.map(|end| match end {
        IpAddr::V4(address) => sum(&address.octets()),
        IpAddr::V6(address) => sum(&address.octets()),
    });
    addresses[0] + addresses[1] + u64::from(TCP) + len as u64
}

/// The sum of the 16-bit words. If the number of bytes is odd, the last byte is the high half of a
/// word.
fn sum(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<2>();
    let words: u64 = words.iter().map(|word| u64::from(u16::from_be_bytes(*word))).sum();
    words + rest.first().map_or(0, |last| u64::from(*last) << 8)
}

/// Adds the carries of a sum to its low 16 bits, until no carry is left (one's complement sum).
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
    fn the_example_of_rfc_1071_has_its_checksum() {
        // Section 3: the words 0001 f203 f4f5 f6f7 sum to ddf2.
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(of(&bytes), !0xddf2);
        assert_eq!(of(&[0x12]), !0x1200, "the number of bytes is odd");
        assert_eq!(of(&[]), 0xffff);
    }

    #[test]
    fn the_header_of_a_captured_packet_has_its_checksum() {
        let mut header = [
            0x45, 0x00, 0x00, 0x73, 0x00, 0x00, 0x40, 0x00, 0x40, 0x11, 0x00, 0x00, 0xc0, 0xa8,
            0x00, 0x01, 0xc0, 0xa8, 0x00, 0xc7,
        ];
        assert_eq!(of(&header), 0xb861);
        header[10..12].copy_from_slice(&0xb861_u16.to_be_bytes());
        assert_eq!(of(&header), 0, "the result for a header with its checksum is 0");
    }

    #[test]
    fn every_single_bit_error_is_detected() {
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

    #[test]
    fn a_segment_of_zeros_has_the_checksum_of_its_pseudo_header() {
        let check = |ends: [&str; 2], expected: u16| {
            let ends = ends.map(|end| end.parse().unwrap());
            assert_eq!(of_segment(ends, &[0; 20]), !expected, "{ends:?}");
        };
        // c000 + 0201 + c633 + 6407, the protocol 6 and the length 0014
        check(["192.0.2.1", "198.51.100.7"], 0xec56);
        // 2001 + 0db8 + 0001 + 2001 + 0db8 + 0002, the protocol 6 and the length 0014
        check(["2001:db8::1", "2001:db8::2"], 0x5b8f);
    }
}
