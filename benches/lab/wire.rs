//! Parses TCP segments, and writes TCP segments and ICMP errors, over IPv4 and IPv6.
//!
//! Pure. It parses what a kernel's TCP sends over a point-to-point device: it handles no fragments
//! and no IPv6 extension headers, and does not verify the kernel's checksums. The checksums that it
//! writes are correct, because the kernel drops packets with wrong ones.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Bits of a segment's flags (RFC 9293 section 3.1).
pub(super) mod flag {
    pub(crate) const FIN: u8 = 0x01;
    pub(crate) const SYN: u8 = 0x02;
    pub(crate) const RST: u8 = 0x04;
    pub(crate) const ACK: u8 = 0x10;
}

const TCP_HEADER_BYTES: usize = 20;
const PROTOCOL_ICMP: u8 = 1;
const PROTOCOL_TCP: u8 = 6;
const PROTOCOL_ICMP6: u8 = 58;
/// The value is arbitrary, because the device is one hop.
const HOP_LIMIT: u8 = 64;

/// A TCP segment that our side sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Segment<'a> {
    pub(super) source: SocketAddr,
    pub(super) target: SocketAddr,
    /// The sequence number of its first byte.
    pub(super) sequence: u32,
    /// The sequence number that its sender expects next.
    pub(super) acknowledgement: u32,
    /// Bits of [`flag`].
    pub(super) flags: u8,
    /// The number of its sequence numbers: its bytes, and one each for SYN and FIN.
    pub(super) length: u32,
    /// The IP header and the first eight bytes of TCP, which an ICMP error quotes.
    quote: &'a [u8],
}

impl<'a> Segment<'a> {
    /// Parses an IP packet. Returns `None` if it is not a TCP segment or is truncated.
    pub(super) fn parse(packet: &'a [u8]) -> Option<Self> {
        let (source, target, header_bytes) = match packet.first()? >> 4 {
            4 if packet.len() >= 20 && packet[9] == PROTOCOL_TCP => {
                let source: [u8; 4] = packet[12..16].try_into().ok()?;
                let target: [u8; 4] = packet[16..20].try_into().ok()?;
                (IpAddr::from(source), IpAddr::from(target), usize::from(packet[0] & 15) * 4)
            }
            6 if packet.len() >= 40 && packet[6] == PROTOCOL_TCP => {
                let source: [u8; 16] = packet[8..24].try_into().ok()?;
                let target: [u8; 16] = packet[24..40].try_into().ok()?;
                (IpAddr::from(source), IpAddr::from(target), 40)
            }
            _ => return None,
        };
        let tcp = packet.get(header_bytes..)?;
        if tcp.len() < TCP_HEADER_BYTES {
            return None;
        }
        let payload = tcp.len().checked_sub(usize::from(tcp[12] >> 4) * 4)?;
        let flags = tcp[13];
        Some(Self {
            source: SocketAddr::new(source, u16::from_be_bytes([tcp[0], tcp[1]])),
            target: SocketAddr::new(target, u16::from_be_bytes([tcp[2], tcp[3]])),
            sequence: u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]]),
            acknowledgement: u32::from_be_bytes([tcp[8], tcp[9], tcp[10], tcp[11]]),
            flags,
            length: payload as u32
                + u32::from(flags & flag::SYN != 0)
                + u32::from(flags & flag::FIN != 0),
            quote: &packet[..header_bytes + 8],
        })
    }

    /// Returns whether all bits of `flags` are set.
    pub(super) const fn has(&self, flags: u8) -> bool {
        self.flags & flags == flags
    }

    /// Returns the segment that answers this one, with these flags and this sequence number. It
    /// acknowledges the whole segment.
    pub(super) fn answer(&self, flags: u8, sequence: u32) -> Packet {
        let mut tcp = [0; TCP_HEADER_BYTES];
        tcp[0..2].copy_from_slice(&self.target.port().to_be_bytes());
        tcp[2..4].copy_from_slice(&self.source.port().to_be_bytes());
        tcp[4..8].copy_from_slice(&sequence.to_be_bytes());
        if flags & flag::ACK != 0 {
            let next = self.sequence.wrapping_add(self.length);
            tcp[8..12].copy_from_slice(&next.to_be_bytes());
        }
        tcp[12] = (TCP_HEADER_BYTES as u8 / 4) << 4;
        tcp[13] = flags;
        tcp[14..16].copy_from_slice(&u16::MAX.to_be_bytes());
        let header = self.answer_header(PROTOCOL_TCP);
        let sum = header.pseudo_sum(tcp.len());
        let checksum = checksum(sum, &tcp);
        tcp[16..18].copy_from_slice(&checksum.to_be_bytes());
        Packet::new(header, &tcp)
    }

    /// Returns the ICMP error that answers this segment (RFC 792; RFC 4443 section 3.1).
    pub(super) fn unreachable(&self, why: Unreachable) -> Packet {
        let mut icmp = [0; 8 + 48];
        let (protocol, kind, code) = match (self.target.ip(), why) {
            (IpAddr::V4(_), Unreachable::Network) => (PROTOCOL_ICMP, 3, 0),
            (IpAddr::V4(_), Unreachable::Host) => (PROTOCOL_ICMP, 3, 1),
            (IpAddr::V4(_), Unreachable::Port) => (PROTOCOL_ICMP, 3, 3),
            (IpAddr::V4(_), Unreachable::Prohibited) => (PROTOCOL_ICMP, 3, 13),
            (IpAddr::V6(_), Unreachable::Network) => (PROTOCOL_ICMP6, 1, 0),
            (IpAddr::V6(_), Unreachable::Host) => (PROTOCOL_ICMP6, 1, 3),
            (IpAddr::V6(_), Unreachable::Port) => (PROTOCOL_ICMP6, 1, 4),
            (IpAddr::V6(_), Unreachable::Prohibited) => (PROTOCOL_ICMP6, 1, 1),
        };
        // `Packet::BYTES_MAX` has no space for IPv4 options in the quote; the kernel adds none.
        let quote = &self.quote[..self.quote.len().min(48)];
        icmp[0] = kind;
        icmp[1] = code;
        icmp[8..8 + quote.len()].copy_from_slice(quote);
        let icmp = &mut icmp[..8 + quote.len()];
        let header = self.answer_header(protocol);
        let sum = match protocol {
            PROTOCOL_ICMP6 => header.pseudo_sum(icmp.len()),
            _ => 0,
        };
        let checksum = checksum(sum, icmp);
        icmp[2..4].copy_from_slice(&checksum.to_be_bytes());
        Packet::new(header, icmp)
    }

    /// The addresses of a packet that answers this segment.
    const fn answer_header(&self, protocol: u8) -> IpHeader {
        IpHeader { source: self.target.ip(), target: self.source.ip(), protocol }
    }
}

/// The kind of an ICMP error, and the error of connect(2) that it causes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unreachable {
    /// ENETUNREACH.
    Network,
    /// EHOSTUNREACH.
    Host,
    /// ECONNREFUSED, as for a RST.
    Port,
    /// A firewall rejects the packet: EHOSTUNREACH over IPv4, EACCES over IPv6.
    Prohibited,
}

/// An IP packet. It is stored inline, because tens of thousands wait in queues.
#[derive(Clone, Copy, Debug)]
pub(super) struct Packet {
    bytes: [u8; Packet::BYTES_MAX],
    length: u8,
}

impl Packet {
    /// An IPv6 header, an ICMP header, and the quote: an IPv6 header and eight bytes of TCP.
    pub(super) const BYTES_MAX: usize = 40 + 8 + 40 + 8;

    /// Returns the packet that advertises the hardware address of `neighbour` to `receiver` (RFC
    /// 4861 section 4.4).
    pub(super) fn neighbour_advertisement(
        neighbour: Ipv6Addr,
        receiver: Ipv6Addr,
        mac: [u8; 6],
    ) -> Self {
        let mut icmp = [0; 32];
        icmp[0] = 136;
        // The flags "solicited" and "override".
        icmp[4] = 0x60;
        icmp[8..24].copy_from_slice(&neighbour.octets());
        // The option "target link-layer address", with a length in units of eight bytes.
        (icmp[24], icmp[25]) = (2, 1);
        icmp[26..32].copy_from_slice(&mac);
        let (source, target) = (IpAddr::V6(neighbour), IpAddr::V6(receiver));
        let header = IpHeader { source, target, protocol: PROTOCOL_ICMP6 };
        let checksum = checksum(header.pseudo_sum(icmp.len()), &icmp);
        icmp[2..4].copy_from_slice(&checksum.to_be_bytes());
        let mut packet = Self::new(header, &icmp);
        // The kernel ignores advertisements that a router may have forwarded.
        packet.bytes[7] = 255;
        packet
    }

    /// Puts the payload into an IP packet.
    fn new(header: IpHeader, payload: &[u8]) -> Self {
        let IpHeader { source, target, protocol } = header;
        let mut bytes = [0; Packet::BYTES_MAX];
        let header_bytes = match (source, target) {
            (IpAddr::V4(source), IpAddr::V4(target)) => {
                bytes[0] = 0x45;
                bytes[2..4].copy_from_slice(&(20 + payload.len() as u16).to_be_bytes());
                bytes[8] = HOP_LIMIT;
                bytes[9] = protocol;
                bytes[12..16].copy_from_slice(&source.octets());
                bytes[16..20].copy_from_slice(&target.octets());
                let checksum = checksum(0, &bytes[..20]);
                bytes[10..12].copy_from_slice(&checksum.to_be_bytes());
                20
            }
            (IpAddr::V6(source), IpAddr::V6(target)) => {
                bytes[0] = 0x60;
                bytes[4..6].copy_from_slice(&(payload.len() as u16).to_be_bytes());
                bytes[6] = protocol;
                bytes[7] = HOP_LIMIT;
                bytes[8..24].copy_from_slice(&source.octets());
                bytes[24..40].copy_from_slice(&target.octets());
                40
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => {
                unreachable!("a segment's two addresses come from one header")
            }
        };
        let length = header_bytes + payload.len();
        assert!(
            length <= Packet::BYTES_MAX,
            "the packet is longer than an ICMPv6 error with its quote"
        );
        bytes[header_bytes..length].copy_from_slice(payload);
        Self { bytes, length: length as u8 }
    }

    pub(super) fn source(&self) -> IpAddr {
        let octets = |from: usize| &self.bytes[from..];
        match self.bytes[0] >> 4 {
            4 => octets(12).first_chunk::<4>().copied().map(IpAddr::from),
            _ => octets(8).first_chunk::<16>().copied().map(IpAddr::from),
        }
        .unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED))
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}

/// The fields of an IP header that are not the same in all packets. Both addresses are of one
/// family.
#[derive(Clone, Copy, Debug)]
struct IpHeader {
    source: IpAddr,
    target: IpAddr,
    protocol: u8,
}

impl IpHeader {
    /// Returns the sum over the pseudo header of TCP and ICMPv6: both addresses, the protocol and
    /// the length (RFC 9293 section 3.1, RFC 8200 section 8.1).
    fn pseudo_sum(self, length: usize) -> u32 {
        let octets = |address: IpAddr| match address {
            IpAddr::V4(address) => sum(&address.octets()),
            IpAddr::V6(address) => sum(&address.octets()),
        };
        octets(self.source) + octets(self.target) + u32::from(self.protocol) + length as u32
    }
}

/// Returns the Internet checksum (RFC 1071) of `bytes`, whose own checksum field is still zero.
fn checksum(start: u32, bytes: &[u8]) -> u16 {
    let mut total = start + sum(bytes);
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    !(total as u16)
}

/// Returns the sum of the 16-bit words of `bytes`, whose length must be even.
fn sum(bytes: &[u8]) -> u32 {
    debug_assert!(bytes.len().is_multiple_of(2), "the length is odd");
    bytes.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum()
}
