//! Parses IP headers: returns the addresses of a packet and its TCP segment.
//!
//! IPv4 options (RFC 791 section 3.1) and IPv6 extension headers (RFC 8200 section 4) are skipped.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::{Reject, TCP, be16, checksum};

/// The length of an IPv4 header without options, in bytes.
pub const IPV4_BYTES: usize = 20;
/// The length of an IPv6 header without extension headers, in bytes.
pub const IPV6_BYTES: usize = 40;
/// The maximum number of extension headers of a valid packet: RFC 8200 section 4.1 lists six, one
/// of which may occur twice.
const EXTENSION_HEADERS_MAX: usize = 7;
/// The mask of the flag "more fragments" and of the fragment offset (RFC 791 section 3.1).
const IPV4_FRAGMENT_MASK: u16 = 0x3fff;
/// The mask of the fragment offset and of the flag "more fragments" (RFC 8200 section 4.5).
const IPV6_FRAGMENT_MASK: u16 = 0xfff9;
/// The protocol numbers of the extension headers.
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION_OPTIONS: u8 = 60;

/// A packet that contains a TCP segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IpPacket<'a, A> {
    /// The source address.
    pub source: A,
    /// The destination address.
    pub destination: A,
    /// The TCP segment. It may be truncated if an ICMP message quotes the packet.
    pub segment: &'a [u8],
}

/// Whether a packet must be complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PacketExtent {
    /// The packet was received. Its length and its header checksum must be correct.
    Whole,
    /// An ICMP message quotes the packet. It may be truncated, and a router may have changed its
    /// header without correcting the checksum.
    Quoted,
}

/// Parses the header of an IPv4 packet.
///
/// # Errors
/// The packet contains no TCP segment, is a fragment, or is invalid.
pub fn ipv4(bytes: &[u8], extent: PacketExtent) -> Result<IpPacket<'_, Ipv4Addr>, Reject> {
    let header = bytes.first_chunk::<IPV4_BYTES>().ok_or(Reject::Truncated)?;
    if header[0] >> 4 != 4 {
        return Err(Reject::Version);
    }
    let header_len = usize::from(header[0] & 0x0f) * 4;
    let total_len = usize::from(be16(header, 2)?);
    if header_len < IPV4_BYTES || total_len < header_len {
        return Err(Reject::HeaderLength);
    }
    let header_with_options = bytes.get(..header_len).ok_or(Reject::Truncated)?;
    let end = match extent {
        PacketExtent::Whole if total_len > bytes.len() => return Err(Reject::Truncated),
        PacketExtent::Whole if checksum::of(header_with_options) != 0 => {
            return Err(Reject::HeaderChecksum);
        }
        PacketExtent::Whole | PacketExtent::Quoted => total_len.min(bytes.len()),
    };
    if be16(header, 6)? & IPV4_FRAGMENT_MASK != 0 {
        return Err(Reject::Fragment);
    }
    if header[9] != TCP {
        return Err(Reject::Protocol);
    }
    let [.., a, b, c, d, e, f, g, h] = *header;
    Ok(IpPacket {
        source: Ipv4Addr::new(a, b, c, d),
        destination: Ipv4Addr::new(e, f, g, h),
        segment: &bytes[header_len..end],
    })
}

/// Parses the header of an IPv6 packet and its extension headers.
///
/// # Errors
/// The packet contains no TCP segment, is a fragment, or is invalid.
pub fn ipv6(bytes: &[u8], extent: PacketExtent) -> Result<IpPacket<'_, Ipv6Addr>, Reject> {
    let header = bytes.first_chunk::<IPV6_BYTES>().ok_or(Reject::Truncated)?;
    if header[0] >> 4 != 6 {
        return Err(Reject::Version);
    }
    let end = IPV6_BYTES + usize::from(be16(header, 4)?);
    if extent == PacketExtent::Whole && end > bytes.len() {
        return Err(Reject::Truncated);
    }
    let bytes = &bytes[..end.min(bytes.len())];
    let (mut next, mut offset) = (header[6], IPV6_BYTES);
    for _ in 0..=EXTENSION_HEADERS_MAX {
        let len = match next {
            TCP => {
                let address = |from: usize| {
                    let octets = header[from..].first_chunk::<16>();
                    octets.map(|octets| Ipv6Addr::from(*octets)).ok_or(Reject::Truncated)
                };
                let segment = bytes.get(offset..).ok_or(Reject::Truncated)?;
                return Ok(IpPacket { source: address(8)?, destination: address(24)?, segment });
            }
            HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS => {
                8 * (1 + usize::from(*bytes.get(offset + 1).ok_or(Reject::Truncated)?))
            }
            FRAGMENT if be16(bytes, offset + 2)? & IPV6_FRAGMENT_MASK != 0 => {
                return Err(Reject::Fragment);
            }
            FRAGMENT => 8,
            _ => return Err(Reject::Protocol),
        };
        next = *bytes.get(offset).ok_or(Reject::Truncated)?;
        offset += len;
    }
    Err(Reject::ExtensionHeaders)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEGMENT: [u8; 20] = [7; 20];

    /// An IPv4 packet with `options`. `change` is applied to the header before the checksum is set.
    fn v4(options: &[u8], change: impl Fn(&mut Vec<u8>)) -> Vec<u8> {
        let header_len = 20 + options.len();
        let total_len = (header_len + SEGMENT.len()) as u16;
        let mut bytes = vec![0x40 | (header_len / 4) as u8, 0];
        bytes.extend(total_len.to_be_bytes());
        bytes.extend([0, 1, 0x40, 0, 64, 6, 0, 0, 192, 0, 2, 1, 198, 51, 100, 7]);
        bytes.extend(options);
        change(&mut bytes);
        let sum = checksum::of(&bytes);
        bytes[10..12].copy_from_slice(&sum.to_be_bytes());
        bytes.extend(SEGMENT);
        bytes
    }

    /// An IPv6 packet with extension headers. `next` is the protocol number of the first one.
    fn v6(next: u8, extensions: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0x60, 0, 0, 0];
        bytes.extend(((extensions.len() + SEGMENT.len()) as u16).to_be_bytes());
        bytes.extend([next, 64]);
        bytes.extend("2001:db8::1".parse::<Ipv6Addr>().unwrap().octets());
        bytes.extend("2001:db8::2".parse::<Ipv6Addr>().unwrap().octets());
        bytes.extend(extensions);
        bytes.extend(SEGMENT);
        bytes
    }

    #[test]
    fn ipv4_options_are_skipped() {
        for len in (0..=40).step_by(4) {
            let bytes = v4(&vec![1; len], |_| {});
            let packet = ipv4(&bytes, PacketExtent::Whole).unwrap();
            assert_eq!(packet.segment, SEGMENT, "{len} bytes of options");
            assert_eq!(packet.source, Ipv4Addr::new(192, 0, 2, 1));
            assert_eq!(packet.destination, Ipv4Addr::new(198, 51, 100, 7));
        }
        let mut padded = v4(&[], |_| {});
        padded.extend([0; 6]);
        let packet = ipv4(&padded, PacketExtent::Whole).unwrap();
        assert_eq!(packet.segment, SEGMENT, "the padding of Ethernet is not part of the packet");
    }

    #[test]
    fn an_invalid_ipv4_header_is_rejected_with_its_fault() {
        let check = |expected: Reject, change: &dyn Fn(&mut Vec<u8>)| {
            let bytes = v4(&[], change);
            assert_eq!(ipv4(&bytes, PacketExtent::Whole), Err(expected));
        };
        check(Reject::Version, &|bytes| bytes[0] = 0x65);
        check(Reject::HeaderLength, &|bytes| bytes[0] = 0x44);
        check(Reject::HeaderLength, &|bytes| bytes[3] = 19);
        check(Reject::Truncated, &|bytes| bytes[3] = 41);
        check(Reject::Fragment, &|bytes| bytes[6] = 0x20);
        check(Reject::Fragment, &|bytes| bytes[7] = 1);
        check(Reject::Protocol, &|bytes| bytes[9] = 17);
        let mut bytes = v4(&[], |_| {});
        bytes[8] -= 1;
        assert_eq!(ipv4(&bytes, PacketExtent::Whole), Err(Reject::HeaderChecksum));
        assert!(ipv4(&bytes, PacketExtent::Quoted).is_ok(), "a router has decremented the TTL");
    }

    #[test]
    fn a_truncated_packet_is_rejected_unless_it_is_quoted() {
        let (four, six) = (v4(&[1; 8], |_| {}), v6(60, &[6, 0, 1, 4, 0, 0, 0, 0]));
        for len in 0..four.len() {
            assert_eq!(ipv4(&four[..len], PacketExtent::Whole), Err(Reject::Truncated), "{len}");
            let quoted =
                ipv4(&four[..len], PacketExtent::Quoted).map(|packet| packet.segment.len());
            assert_eq!(quoted, len.checked_sub(28).ok_or(Reject::Truncated), "{len}");
        }
        for len in 0..six.len() {
            assert_eq!(ipv6(&six[..len], PacketExtent::Whole), Err(Reject::Truncated), "{len}");
            let quoted = ipv6(&six[..len], PacketExtent::Quoted).map(|packet| packet.segment.len());
            assert_eq!(quoted, len.checked_sub(48).ok_or(Reject::Truncated), "{len}");
        }
    }

    #[test]
    fn extension_headers_are_skipped() {
        let check = |next: u8, extensions: &[u8], expected: Result<(), Reject>| {
            let bytes = v6(next, extensions);
            let segment = ipv6(&bytes, PacketExtent::Whole).map(|packet| packet.segment.to_vec());
            assert_eq!(segment, expected.map(|()| SEGMENT.to_vec()), "{next}: {extensions:?}");
        };
        let hop_by_hop = |next: u8| [next, 0, 1, 4, 0, 0, 0, 0];
        let long = |next: u8| [&[next, 1, 1, 12][..], &[0; 12]].concat();
        check(6, &[], Ok(()));
        check(0, &hop_by_hop(6), Ok(()));
        check(0, &[&hop_by_hop(43)[..], &long(60), &hop_by_hop(6)].concat(), Ok(()));
        check(44, &[6, 0, 0, 0, 0, 0, 0, 1], Ok(()));
        check(44, &[6, 0, 0, 1, 0, 0, 0, 1], Err(Reject::Fragment));
        check(44, &[6, 0, 0, 8, 0, 0, 0, 1], Err(Reject::Fragment));
        check(17, &[], Err(Reject::Protocol));
        check(59, &[], Err(Reject::Protocol));
        check(60, &[6, 4, 0, 0, 0, 0, 0, 0], Err(Reject::Truncated));
        let many: Vec<u8> = [60; 9].iter().flat_map(|next| hop_by_hop(*next)).collect();
        check(60, &many, Err(Reject::ExtensionHeaders));
        let mut four = v6(6, &[]);
        four[0] = 0x45;
        assert_eq!(ipv6(&four, PacketExtent::Whole), Err(Reject::Version));
    }

    #[test]
    fn a_packet_may_end_with_its_header() {
        let bytes = v4(&[], |bytes| bytes[3] = 20);
        let packet = ipv4(&bytes, PacketExtent::Whole);
        assert_eq!(packet.map(|packet| packet.segment), Ok(&[][..]));
    }
}
