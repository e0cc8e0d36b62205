//! Ethernet, for hosts that are on our own link: frames, and the answers to the questions for a
//! neighbour's hardware address (ARP, RFC 826; neighbour discovery, RFC 4861).
//!
//! Pure. Understands what a kernel sends on a link without VLANs, routers and other talkers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::wire::Packet;

/// A hardware address.
pub(super) type Mac = [u8; 6];

const HEADER_BYTES: usize = 14;
const ARP_BYTES: usize = 28;
const TYPE_IPV4: u16 = 0x0800;
const TYPE_ARP: u16 = 0x0806;
const TYPE_IPV6: u16 = 0x86dd;
const PROTOCOL_ICMP6: u8 = 58;
const NEIGHBOUR_SOLICITATION: u8 = 135;

/// What a frame from our side holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Frame<'a> {
    /// An IP packet.
    Ip(&'a [u8]),
    /// A question for the hardware address of a neighbour.
    Question(Question),
}

/// Which hardware address has this neighbour?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Question {
    pub(super) neighbour: IpAddr,
    asker: IpAddr,
    asker_mac: Mac,
}

impl<'a> Frame<'a> {
    /// Reads one frame; returns who sent it too. `None` if it is cut short or of another kind.
    pub(super) fn parse(frame: &'a [u8]) -> Option<(Mac, Self)> {
        let source: Mac = frame.get(6..12)?.try_into().ok()?;
        let body = frame.get(HEADER_BYTES..)?;
        let held = match u16::from_be_bytes([frame[12], frame[13]]) {
            TYPE_ARP => Self::Question(arp_question(body)?),
            TYPE_IPV6 => solicitation(body, source).map_or(Self::Ip(body), Self::Question),
            TYPE_IPV4 => Self::Ip(body),
            _ => return None,
        };
        Some((source, held))
    }
}

impl Question {
    /// The frame that answers it.
    pub(super) fn answer(&self) -> Vec<u8> {
        match (self.neighbour, self.asker) {
            (IpAddr::V4(neighbour), IpAddr::V4(asker)) => self.arp_answer(neighbour, asker),
            (IpAddr::V6(neighbour), IpAddr::V6(asker)) => {
                let mac = mac_of(self.neighbour);
                let packet = Packet::neighbour_advertisement(neighbour, asker, mac);
                frame(self.asker_mac, &packet)
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => {
                unreachable!("a question's two addresses come from one packet")
            }
        }
    }

    fn arp_answer(&self, neighbour: Ipv4Addr, asker: Ipv4Addr) -> Vec<u8> {
        let mut frame = header(self.asker_mac, self.neighbour, TYPE_ARP);
        // Ethernet, IPv4, the lengths of their addresses, and "this is a reply".
        frame.extend([0, 1, 8, 0, 6, 4, 0, 2]);
        frame.extend(mac_of(self.neighbour));
        frame.extend(neighbour.octets());
        frame.extend(self.asker_mac);
        frame.extend(asker.octets());
        assert_eq!(frame.len(), HEADER_BYTES + ARP_BYTES, "RFC 826");
        frame
    }
}

/// A frame with `packet`, which one of the hosts sends.
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

/// The hardware address of a host: locally administered, and its own within the lab's networks.
fn mac_of(address: IpAddr) -> Mac {
    let (family, [a, b, c, d]) = match address {
        IpAddr::V4(address) => (4, address.octets()),
        IpAddr::V6(address) => (6, (u128::from(address) as u32).to_be_bytes()),
    };
    [2, family, a, b, c, d]
}

fn arp_question(body: &[u8]) -> Option<Question> {
    let body: &[u8; ARP_BYTES] = body.get(..ARP_BYTES)?.try_into().ok()?;
    let is_request = body[..8] == [0, 1, 8, 0, 6, 4, 0, 1];
    let address = |at: usize| IpAddr::from([body[at], body[at + 1], body[at + 2], body[at + 3]]);
    let asker_mac = body[8..14].try_into().ok()?;
    is_request.then(|| Question { neighbour: address(24), asker: address(14), asker_mac })
}

fn solicitation(packet: &[u8], asker_mac: Mac) -> Option<Question> {
    let is_solicitation =
        packet.len() >= 64 && packet[6] == PROTOCOL_ICMP6 && packet[40] == NEIGHBOUR_SOLICITATION;
    if !is_solicitation {
        return None;
    }
    let address =
        |at: usize| Some(Ipv6Addr::from(<[u8; 16]>::try_from(&packet[at..at + 16]).ok()?));
    let (asker, neighbour) = (address(8)?, address(48)?);
    // From the unspecified address it is duplicate address detection, which asks for no answer.
    let question = Question { neighbour: neighbour.into(), asker: asker.into(), asker_mac };
    (!asker.is_unspecified()).then_some(question)
}
