//! What stands on the link and looks into packets: a middlebox with a table of half-open
//! connections, and a firewall that bans a source.
//!
//! Pure. Both stand at the hosts' end, behind the queue, so the times that come in never go back.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::Header;

/// A middlebox (a NAT, a stateful firewall) that keeps an entry for each half-open connection.
///
/// A SYN that finds no room is dropped, as Linux does ("nf_conntrack: table full, dropping
/// packet"). A repeated SYN keeps its entry and renews it. The answer frees it; an answer whose
/// entry has expired is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HalfOpenTable {
    /// How many there are room for.
    pub(crate) entries: usize,
    /// How long an entry is kept without an answer.
    pub(crate) lifetime: Duration,
}

/// A firewall that drops everything from a source for some time, once it sent too many SYNs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ban {
    /// SYNs that one source may send within a second. One more, and the ban begins.
    pub(crate) syns_per_second: u32,
    /// How long it lasts; what is sent meanwhile does not prolong it.
    pub(crate) duration: Duration,
}

type Flow = (SocketAddr, SocketAddr);

/// A [`HalfOpenTable`] at work.
#[derive(Debug)]
pub(super) struct Middlebox {
    table: HalfOpenTable,
    /// When each half-open connection expires.
    entries: HashMap<Flow, Instant>,
    /// In the order of expiry; an entry that was renewed is in here more than once.
    expiries: VecDeque<(Instant, Flow)>,
}

impl Middlebox {
    pub(super) fn new(table: HalfOpenTable) -> Self {
        Self { table, entries: HashMap::new(), expiries: VecDeque::new() }
    }

    /// True exactly when a packet for a host may pass.
    pub(super) fn admits(&mut self, now: Instant, header: &Header) -> bool {
        if !header.is_syn {
            return true;
        }
        self.expire(now);
        let flow = (header.source, header.target);
        if !self.entries.contains_key(&flow) && self.entries.len() >= self.table.entries {
            return false;
        }
        let expires_at = now + self.table.lifetime;
        self.entries.insert(flow, expires_at);
        self.expiries.push_back((expires_at, flow));
        assert!(self.entries.len() <= self.table.entries, "the table has a limit");
        true
    }

    /// True exactly when the answer to a packet with this header may pass.
    pub(super) fn admits_answer(&mut self, now: Instant, header: &Header) -> bool {
        self.expire(now);
        !header.is_syn || self.entries.remove(&(header.source, header.target)).is_some()
    }

    fn expire(&mut self, now: Instant) {
        while let Some((expires_at, flow)) = self.expiries.front().copied()
            && expires_at <= now
        {
            self.expiries.pop_front();
            if self.entries.get(&flow).is_some_and(|renewed_to| *renewed_to <= now) {
                self.entries.remove(&flow);
            }
        }
    }
}

/// A [`Ban`] at work.
#[derive(Debug)]
pub(super) struct Firewall {
    ban: Ban,
    sources: HashMap<IpAddr, Source>,
}

#[derive(Clone, Copy, Debug)]
enum Source {
    /// Sent so many SYNs within the second that began then.
    Counted {
        since: Instant,
        syns: u32,
    },
    Banned {
        until: Instant,
    },
}

impl Firewall {
    pub(super) fn new(ban: Ban) -> Self {
        Self { ban, sources: HashMap::new() }
    }

    /// True exactly when a packet for a host may pass.
    pub(super) fn admits(&mut self, now: Instant, header: &Header) -> bool {
        let fresh = Source::Counted { since: now, syns: 0 };
        let source = self.sources.entry(header.source.ip()).or_insert(fresh);
        let is_over = match *source {
            Source::Counted { since, .. } => now >= since + Duration::from_secs(1),
            Source::Banned { until } => now >= until,
        };
        if is_over {
            *source = fresh;
        }
        match source {
            Source::Banned { .. } => false,
            Source::Counted { syns, .. } => {
                *syns += u32::from(header.is_syn);
                let is_admitted = *syns <= self.ban.syns_per_second;
                if !is_admitted {
                    *source = Source::Banned { until: now + self.ban.duration };
                }
                is_admitted
            }
        }
    }
}
