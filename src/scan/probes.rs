//! The probes in flight of one scan, in start order.
//!
//! A slab threaded by a doubly linked list: any probe is taken out in O(1), the oldest (whose
//! deadline is the earliest, since all share one timeout) and the youngest (which has waited
//! least, so it is the one to give back) are at the ends. A cursor stands at the oldest probe whose
//! SYN the kernel has not repeated yet. 20 bytes a probe.
//!
//! Invariants: `len` counts the list from either end; a vacant entry is on the free chain; every
//! probe before the cursor was repeated, none from it on.

use std::time::Duration;

use crate::slots::Key;

/// A probe's place in its scan's table, or a ping's number; valid until that probe ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbeId(u32);

/// Set in the id of a ping.
const PING: u32 = 1 << 31;

impl ProbeId {
    /// The id of a ping.
    pub const fn ping(number: u32) -> Self {
        assert!(number < PING, "a scan sends fewer than 2^31 pings");
        Self(number | PING)
    }

    /// The number of a ping; `None` for the probe of a port.
    pub const fn as_ping(self) -> Option<u32> {
        if self.0 & PING == 0 { None } else { Some(self.0 & !PING) }
    }
}

/// One connect in flight.
#[derive(Clone, Copy, Debug)]
pub struct Probe {
    /// The port it is for; in flight at most once per scan.
    pub port: u16,
    /// The name under which the engine knows it.
    pub key: Key,
    /// Microseconds from the scan's start to this connect: 32 bits hold 71 minutes.
    started_micros: u32,
    previous: u16,
    /// The next younger probe; for a vacant entry, the next vacant one.
    next: u16,
}

/// No entry. There are 65,535 ports, so the last place is [`NONE`] less one.
const NONE: u16 = u16::MAX;
/// Entries for which room is made at once, if there are so many ports: a table that grows leaves
/// the pieces that it has outgrown behind.
const ENTRIES_AT_ONCE: usize = 256;
const _: () = assert!(size_of::<Probe>() <= 20, "a probe stays within its memory budget");

impl Probe {
    /// When the connect was started, from the scan's start.
    pub fn started(&self) -> Duration {
        Duration::from_micros(self.started_micros.into())
    }
}

/// The probes in flight, oldest to youngest.
#[derive(Debug)]
pub struct Probes {
    entries: Vec<Probe>,
    vacant: u16,
    oldest: u16,
    youngest: u16,
    /// The oldest probe that was not repeated; `NONE` if all were.
    not_retransmitted: u16,
    len: usize,
}

impl Probes {
    /// An empty table for so many ports; it grows with the probes in flight.
    pub fn new(ports: usize) -> Self {
        Self {
            entries: Vec::with_capacity(ports.min(ENTRIES_AT_ONCE)),
            vacant: NONE,
            oldest: NONE,
            youngest: NONE,
            not_retransmitted: NONE,
            len: 0,
        }
    }

    /// Adds the youngest probe. `started` counts from the scan's start and never goes back.
    pub fn push(&mut self, port: u16, key: Key, started: Duration) -> ProbeId {
        let started_micros = u32::try_from(started.as_micros()).unwrap_or(u32::MAX);
        let previous = self.youngest;
        let probe = Probe { port, key, started_micros, previous, next: NONE };
        debug_assert!(self.youngest().is_none_or(|(_, last)| last.started() <= probe.started()));
        let index = if self.vacant == NONE {
            assert!(self.entries.len() < usize::from(NONE), "a port is in flight once");
            self.entries.push(probe);
            (self.entries.len() - 1) as u16
        } else {
            let index = self.vacant;
            self.vacant = self.entries[index as usize].next;
            self.entries[index as usize] = probe;
            index
        };
        match previous {
            NONE => self.oldest = index,
            _ => self.entries[previous as usize].next = index,
        }
        if self.not_retransmitted == NONE {
            self.not_retransmitted = index;
        }
        self.youngest = index;
        self.len += 1;
        ProbeId(index.into())
    }

    /// Takes a probe out, wherever in the order it stands.
    pub fn remove(&mut self, id: ProbeId) -> Probe {
        assert!(self.len > 0, "a probe that ends was in flight");
        let probe = self.entries[id.0 as usize];
        match probe.previous {
            NONE => self.oldest = probe.next,
            previous => self.entries[previous as usize].next = probe.next,
        }
        match probe.next {
            NONE => self.youngest = probe.previous,
            next => self.entries[next as usize].previous = probe.previous,
        }
        let index = id.0 as u16;
        if self.not_retransmitted == index {
            self.not_retransmitted = probe.next;
        }
        self.entries[id.0 as usize].next = self.vacant;
        self.vacant = index;
        self.len -= 1;
        debug_assert_eq!(self.len == 0, self.oldest == NONE && self.youngest == NONE);
        probe
    }

    /// Moves the cursor past one probe that was started at `until` or before; false if there is
    /// none.
    pub fn poll_retransmission(&mut self, until: Duration) -> bool {
        let Some(probe) = self.entries.get(self.not_retransmitted as usize) else { return false };
        if probe.started() > until {
            return false;
        }
        self.not_retransmitted = probe.next;
        true
    }

    /// The probe that waits longest.
    pub fn oldest(&self) -> Option<(ProbeId, &Probe)> {
        self.entries.get(self.oldest as usize).map(|probe| (ProbeId(self.oldest.into()), probe))
    }

    /// The probe that was started last.
    pub fn youngest(&self) -> Option<(ProbeId, &Probe)> {
        self.entries.get(self.youngest as usize).map(|probe| (ProbeId(self.youngest.into()), probe))
    }

    /// Connects in flight.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing is in flight.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ports(probes: &Probes) -> Vec<u16> {
        let mut copy =
            Probes { entries: probes.entries.clone(), ..Probes { entries: Vec::new(), ..*probes } };
        std::iter::from_fn(|| copy.oldest().map(|(id, _)| id).map(|id| copy.remove(id).port))
            .collect()
    }

    #[test]
    fn probes_leave_from_anywhere_and_the_order_holds() {
        let key = Key::from_parts(0, 0);
        for gone in 0..5_u16 {
            let mut probes = Probes::new(5);
            let ids: Vec<ProbeId> =
                (0..5).map(|n| probes.push(n + 1, key, Duration::from_micros(n.into()))).collect();
            assert_eq!(probes.remove(ids[usize::from(gone)]).port, gone + 1);
            let expected: Vec<u16> = (1..=5).filter(|port| *port != gone + 1).collect();
            assert_eq!(ports(&probes), expected);
            probes.push(9, key, Duration::from_micros(9));
            assert_eq!(probes.entries.len(), 5, "the vacant entry is reused");
            assert_eq!(probes.youngest().map(|(_, probe)| probe.port), Some(9));
        }
    }

    #[test]
    fn every_port_of_a_host_may_be_in_flight() {
        let key = Key::from_parts(0, 0);
        let mut probes = Probes::new(65_535);
        let ids: Vec<ProbeId> =
            (1..=65_535).map(|port| probes.push(port, key, Duration::ZERO)).collect();
        assert_eq!(
            (probes.len(), probes.youngest().map(|(_, it)| it.port)),
            (65_535, Some(65_535))
        );
        assert_eq!(probes.remove(ids[65_534]).port, 65_535);
        assert_eq!(probes.youngest().map(|(_, it)| it.port), Some(65_534));
        assert!(ports(&probes).into_iter().eq(1..=65_534), "the order of their start is kept");
    }

    #[test]
    fn an_emptied_table_starts_anew() {
        let mut probes = Probes::new(1);
        let id = probes.push(80, Key::from_parts(0, 0), Duration::ZERO);
        probes.remove(id);
        assert!(probes.is_empty() && probes.oldest().is_none() && probes.youngest().is_none());
        probes.push(81, Key::from_parts(0, 1), Duration::ZERO);
        assert_eq!(ports(&probes), [81]);
    }
}
