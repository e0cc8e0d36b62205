//! Fake name servers: what each does with a query, and the zone that the honest ones share.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::rng::Rng;

/// What a server does with a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    /// It tells the truth.
    Good,
    /// Over UDP it says that the answer is too long; over TCP it tells the truth.
    Truncating,
    /// It never answers.
    Dead,
    /// Its machine refuses.
    Refusing,
    /// SERVFAIL.
    Failing,
    /// Replies to other questions, with other ids, or no replies at all; never the right one.
    Lying,
}

impl Manner {
    pub(crate) const ALL: [Self; 6] =
        [Self::Good, Self::Truncating, Self::Dead, Self::Refusing, Self::Failing, Self::Lying];

    pub(crate) const fn is_honest(self) -> bool {
        matches!(self, Self::Good | Self::Truncating)
    }
}

/// What comes back, and how long it takes.
pub(crate) type Replies = Vec<(Duration, Vec<u8>)>;

/// The servers, and what the honest ones know.
#[derive(Clone, Debug, Default)]
pub(crate) struct Names {
    pub(crate) servers: BTreeMap<SocketAddr, Manner>,
    pub(crate) zone: BTreeMap<String, Vec<IpAddr>>,
}

impl Names {
    /// Whether some server can be believed.
    pub(crate) fn is_served(&self) -> bool {
        self.servers.values().any(|manner| manner.is_honest())
    }

    /// What one server sends back on a query over UDP.
    pub(crate) fn on_datagram(&self, to: SocketAddr, query: &[u8], rng: &mut Rng) -> Replies {
        let after = Duration::from_millis(1) + rng.time(Duration::from_millis(40));
        let replies = match self.servers[&to] {
            Manner::Good => vec![self.truth(query)],
            Manner::Truncating => vec![reply(query, 0x0200, &[])],
            Manner::Dead | Manner::Refusing => vec![],
            Manner::Failing => vec![reply(query, 2, &[])],
            Manner::Lying => lies(query, rng),
        };
        replies.into_iter().map(|bytes| (after, bytes)).collect()
    }

    /// What one server sends back on a query over TCP, its length in front.
    pub(crate) fn on_stream(&self, to: SocketAddr, query: &[u8]) -> Option<Vec<u8>> {
        let message = query.get(2..).filter(|message| message.len() >= 12)?;
        assert_eq!(usize::from(u16::from_be_bytes([query[0], query[1]])), message.len());
        let answer = match self.servers[&to] {
            Manner::Good | Manner::Truncating => self.truth(message),
            Manner::Dead | Manner::Refusing => return None,
            Manner::Failing | Manner::Lying => reply(message, 2, &[]),
        };
        Some([&(answer.len() as u16).to_be_bytes(), &answer[..]].concat())
    }

    fn truth(&self, query: &[u8]) -> Vec<u8> {
        let (name, kind) = question(query);
        match self.zone.get(&name) {
            None => reply(query, 3, &[]),
            Some(addresses) => {
                let is_asked = |address: &&IpAddr| address.is_ipv6() == (kind == 28);
                reply(query, 0, &addresses.iter().filter(is_asked).copied().collect::<Vec<_>>())
            }
        }
    }
}

/// Replies that a believing resolver would take for the answer.
fn lies(query: &[u8], rng: &mut Rng) -> Vec<Vec<u8>> {
    let mut other_id = reply(query, 0, &[IpAddr::from([203, 0, 113, 66])]);
    other_id[0] ^= 1 + rng.below(255) as u8;
    let mut other_name = reply(query, 0, &[IpAddr::from([203, 0, 113, 66])]);
    other_name[13] ^= 3;
    let echo = query.to_vec();
    let cut = reply(query, 0, &[])[..11].to_vec();
    vec![other_id, other_name, echo, cut]
}

/// The name and the type that a query asks for.
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

/// A reply to `query` with these flags beside QR, RD and RA, holding these addresses.
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
