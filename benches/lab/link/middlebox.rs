//! The devices on the link that inspect packets: a middlebox with a table of half-open connections,
//! and a firewall that bans sources.
//!
//! Pure. Both are at the hosts' end of the link, after the queue, so their times never decrease.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::Header;

/// A middlebox (a NAT, a stateful firewall) with an entry for each half-open connection.
///
/// While the table is full, a SYN without an entry is dropped, as Linux does ("nf_conntrack: table
/// full, dropping packet"). A repeated SYN renews its entry. An answer removes the entry, and an
/// answer whose entry has expired is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HalfOpenTable {
    pub(crate) entries: usize,
    /// The lifetime of an entry without an answer.
    pub(crate) lifetime: Duration,
}

/// A firewall that drops all packets of a source for some time after it sent too many SYNs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ban {
    /// The maximum number of SYNs per second and source. The next one starts the ban.
    pub(crate) syns_per_second: u32,
    /// The duration of the ban. Packets in this time do not extend it.
    pub(crate) duration: Duration,
}

type Flow = (SocketAddr, SocketAddr);

#[derive(Debug)]
pub(super) struct Middlebox {
    table: HalfOpenTable,
    /// The expiry of each half-open connection.
    entries: HashMap<Flow, Instant>,
    /// All expiries in order. A renewed entry has several.
    expiries: VecDeque<(Instant, Flow)>,
}

impl Middlebox {
    pub(super) fn new(table: HalfOpenTable) -> Self {
        Self { table, entries: HashMap::new(), expiries: VecDeque::new() }
    }

    /// Returns whether a packet for a host may pass.
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
        assert!(self.entries.len() <= self.table.entries, "the table exceeds its limit");
        true
    }

    /// Returns whether the answer to a packet with this header may pass.
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

#[derive(Debug)]
pub(super) struct Firewall {
    ban: Ban,
    sources: HashMap<IpAddr, Source>,
}

#[derive(Clone, Copy, Debug)]
enum Source {
    /// The source sent this number of SYNs in the second that began at `since`.
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

    /// Returns whether a packet for a host may pass.
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
