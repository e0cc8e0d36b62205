//! Ethernet for hosts on our own link: frames, and replies to requests for a neighbour's hardware
//! address (ARP, RFC 826; neighbour discovery, RFC 4861).
//!
//! Pure. It understands the frames of a kernel on a link without VLANs and routers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::wire::Packet;

pub(super) type Mac = [u8; 6];

const HEADER_BYTES: usize = 14;
const ARP_BYTES: usize = 28;
const TYPE_IPV4: u16 = 0x0800;
const TYPE_ARP: u16 = 0x0806;
const TYPE_IPV6: u16 = 0x86dd;
const PROTOCOL_ICMP6: u8 = 58;
const NEIGHBOUR_SOLICITATION: u8 = 135;

/// The content of a frame from our side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Frame<'a> {
    Ip(&'a [u8]),
    NeighbourRequest(NeighbourRequest),
}

/// A request for the hardware address of a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NeighbourRequest {
    pub(super) neighbour: IpAddr,
    sender: IpAddr,
    sender_mac: Mac,
}

impl<'a> Frame<'a> {
    /// Parses a frame, and returns it with its source address. Returns `None` if the frame is
    /// truncated or of another type.
    pub(super) fn parse(frame: &'a [u8]) -> Option<(Mac, Self)> {
        let source: Mac = frame.get(6..12)?.try_into().ok()?;
        let body = frame.get(HEADER_BYTES..)?;
        let content = match u16::from_be_bytes([frame[12], frame[13]]) {
            TYPE_ARP => Self::NeighbourRequest(arp_request(body)?),
            TYPE_IPV6 => {
                neighbour_solicitation(body, source).map_or(Self::Ip(body), Self::NeighbourRequest)
            }
            TYPE_IPV4 => Self::Ip(body),
            _ => return None,
        };
        Some((source, content))
    }
}

impl NeighbourRequest {
    /// Returns the frame with the reply.
    pub(super) fn answer(&self) -> Vec<u8> {
        match (self.neighbour, self.sender) {
            (IpAddr::V4(neighbour), IpAddr::V4(sender)) => self.arp_reply(neighbour, sender),
            (IpAddr::V6(neighbour), IpAddr::V6(sender)) => {
                let mac = mac_of(self.neighbour);
                let packet = Packet::neighbour_advertisement(neighbour, sender, mac);
                frame(self.sender_mac, &packet)
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => {
                unreachable!("both addresses of a request come from one packet")
            }
        }
    }

    fn arp_reply(&self, neighbour: Ipv4Addr, sender: Ipv4Addr) -> Vec<u8> {
        let mut frame = header(self.sender_mac, self.neighbour, TYPE_ARP);
        // Ethernet, IPv4, the lengths of their addresses, and the operation "reply".
        frame.extend([0, 1, 8, 0, 6, 4, 0, 2]);
        frame.extend(mac_of(self.neighbour));
        frame.extend(neighbour.octets());
        frame.extend(self.sender_mac);
        frame.extend(sender.octets());
        assert_eq!(frame.len(), HEADER_BYTES + ARP_BYTES, "RFC 826");
        frame
    }
}

/// Returns a frame with `packet` of one of the hosts.
pub(super) fn frame(to: Mac, packet: &Packet) -> Vec<u8> {
    let source = packet.source();
    let kind = if source.is_ipv4() { TYPE_IPV4 } else { TYPE_IPV6 };
    let mut frame = header(to, source, kind);
    frame.extend(packet.bytes());
    frame
}

fn header(to: Mac, source: IpAddr, kind: u16) -> Vec<u8> {
    let mut frame = Vec::with_capacity(HEADER_BYTES + Packet::BYTES_MAX);
    frame.extend(to);
    frame.extend(mac_of(source));
    frame.extend(kind.to_be_bytes());
    frame
}

/// Returns the hardware address of a host, which is locally administered and unique in the lab.
fn mac_of(address: IpAddr) -> Mac {
    let (family, [a, b, c, d]) = match address {
        IpAddr::V4(address) => (4, address.octets()),
        IpAddr::V6(address) => (6, (u128::from(address) as u32).to_be_bytes()),
    };
    [2, family, a, b, c, d]
}

fn arp_request(body: &[u8]) -> Option<NeighbourRequest> {
    let body: &[u8; ARP_BYTES] = body.get(..ARP_BYTES)?.try_into().ok()?;
    let is_request = body[..8] == [0, 1, 8, 0, 6, 4, 0, 1];
    let address = |at: usize| IpAddr::from([body[at], body[at + 1], body[at + 2], body[at + 3]]);
    let sender_mac = body[8..14].try_into().ok()?;
    is_request.then(|| NeighbourRequest { neighbour: address(24), sender: address(14), sender_mac })
}

fn neighbour_solicitation(packet: &[u8], sender_mac: Mac) -> Option<NeighbourRequest> {
    let is_solicitation =
        packet.len() >= 64 && packet[6] == PROTOCOL_ICMP6 && packet[40] == NEIGHBOUR_SOLICITATION;
    if !is_solicitation {
        return None;
    }
    let address =
        |at: usize| Some(Ipv6Addr::from(<[u8; 16]>::try_from(&packet[at..at + 16]).ok()?));
    let (sender, neighbour) = (address(8)?, address(48)?);
    // The unspecified address means duplicate address detection, which needs no reply.
    let request =
        NeighbourRequest { neighbour: neighbour.into(), sender: sender.into(), sender_mac };
    (!sender.is_unspecified()).then_some(request)
}
