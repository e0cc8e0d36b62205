//! Fake name servers: the behaviour of each, and the zone that the honest servers share.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::rng::Rng;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Behaviour {
    /// It replies with the zone's addresses.
    Honest,
    /// Over UDP it sends truncated replies; over TCP it is honest.
    Truncating,
    Silent,
    /// Its host rejects packets, so that sends fail with ECONNREFUSED.
    Refusing,
    /// It replies with SERVFAIL.
    Failing,
    /// Over UDP it replies to other questions, with other ids, or with invalid messages.
    Forging,
}

impl Behaviour {
    pub(crate) const ALL: [Self; 6] = [
        Self::Honest,
        Self::Truncating,
        Self::Silent,
        Self::Refusing,
        Self::Failing,
        Self::Forging,
    ];

    pub(crate) const fn is_honest(self) -> bool {
        matches!(self, Self::Honest | Self::Truncating)
    }
}

/// The replies to a query, and the delay of each.
pub(crate) type Replies = Vec<(Duration, Vec<u8>)>;

/// The servers, and the zone of the honest ones.
#[derive(Clone, Debug, Default)]
pub(crate) struct Names {
    pub(crate) servers: BTreeMap<SocketAddr, Behaviour>,
    pub(crate) zone: BTreeMap<String, Vec<IpAddr>>,
}

impl Names {
    /// Returns whether at least one server is honest.
    pub(crate) fn is_served(&self) -> bool {
        self.servers.values().any(|behaviour| behaviour.is_honest())
    }

    /// Returns the replies of a server to a query over UDP.
    pub(crate) fn on_datagram(&self, to: SocketAddr, query: &[u8], rng: &mut Rng) -> Replies {
        let after = Duration::from_millis(1) + rng.time(Duration::from_millis(40));
        let replies = match self.servers[&to] {
            Behaviour::Honest => vec![self.honest_reply(query)],
            Behaviour::Truncating => vec![reply(query, 0x0200, &[])],
            Behaviour::Silent | Behaviour::Refusing => vec![],
            Behaviour::Failing => vec![reply(query, 2, &[])],
            Behaviour::Forging => forged_replies(query, rng),
        };
        replies.into_iter().map(|bytes| (after, bytes)).collect()
    }

    /// Returns the reply of a server to a query over TCP, with its length in front.
    pub(crate) fn on_stream(&self, to: SocketAddr, query: &[u8]) -> Option<Vec<u8>> {
        let message = query.get(2..).filter(|message| message.len() >= 12)?;
        assert_eq!(usize::from(u16::from_be_bytes([query[0], query[1]])), message.len());
        let answer = match self.servers[&to] {
            Behaviour::Honest | Behaviour::Truncating => self.honest_reply(message),
            Behaviour::Silent | Behaviour::Refusing => return None,
            Behaviour::Failing | Behaviour::Forging => reply(message, 2, &[]),
        };
        Some([&(answer.len() as u16).to_be_bytes(), &answer[..]].concat())
    }

    fn honest_reply(&self, query: &[u8]) -> Vec<u8> {
        let (name, kind) = question(query);
        match self.zone.get(&name) {
            None => reply(query, 3, &[]),
            Some(addresses) => {
                let has_type = |address: &&IpAddr| address.is_ipv6() == (kind == 28);
                reply(query, 0, &addresses.iter().filter(has_type).copied().collect::<Vec<_>>())
            }
        }
    }
}

/// Returns replies that a resolver accepts if it does not check them.
fn forged_replies(query: &[u8], rng: &mut Rng) -> Vec<Vec<u8>> {
    let mut other_id = reply(query, 0, &[IpAddr::from([203, 0, 113, 66])]);
    other_id[0] ^= 1 + rng.below(255) as u8;
    let mut other_name = reply(query, 0, &[IpAddr::from([203, 0, 113, 66])]);
    other_name[13] ^= 3;
    let echo = query.to_vec();
    let cut = reply(query, 0, &[])[..11].to_vec();
    vec![other_id, other_name, echo, cut]
}

fn question(query: &[u8]) -> (String, u16) {
    let mut labels = Vec::new();
    let mut at = 12;
    while query[at] != 0 {
        let end = at + 1 + usize::from(query[at]);
        labels.push(String::from_utf8_lossy(&query[at + 1..end]).to_ascii_lowercase());
        at = end;
    }
    (labels.join("."), u16::from_be_bytes([query[at + 1], query[at + 2]]))
}

/// Returns a reply to `query` with these addresses, and these flags besides QR, RD and RA.
fn reply(query: &[u8], flags: u16, addresses: &[IpAddr]) -> Vec<u8> {
    let mut bytes = query[..2].to_vec();
    bytes.extend((0x8180 | flags).to_be_bytes());
    bytes.extend([0, 1, 0, addresses.len() as u8, 0, 0, 0, 0]);
    bytes.extend(&query[12..]);
    for address in addresses {
        let (kind, octets) = match address {
            IpAddr::V4(address) => (1, address.octets().to_vec()),
            IpAddr::V6(address) => (28, address.octets().to_vec()),
        };
        bytes.extend([0xc0, 12, 0, kind, 0, 1, 0, 0, 0, 5, 0, octets.len() as u8]);
        bytes.extend(octets);
    }
    bytes
}
