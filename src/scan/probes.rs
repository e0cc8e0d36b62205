//! The probes in flight of one scan, in start order.
//!
//! This is a slab threaded by a doubly linked list, so that any probe can be removed in O(1). The
//! oldest probe is at one end: its deadline is the earliest, because all probes share one timeout.
//! The youngest probe is at the other end: it has waited least, so it is given up first. A cursor
//! is at the oldest probe whose SYN the kernel has not retransmitted yet. A probe takes 20 bytes.
//! `scan` drives this module.
//!
//! Invariants: `len` is the length of the list from either end; each vacant entry is on the list of
//! vacant entries; the SYNs of all probes before the cursor were retransmitted, and none of the
//! probe at the cursor and of those after it.

use std::time::Duration;

use crate::slots::Key;

/// Identifies a probe by its index in the table of its scan, or a ping by its number. It is valid
/// until the probe ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbeId(u32);

/// The bit that is set in the id of a ping.
const PING: u32 = 1 << 31;

impl ProbeId {
    /// The id of the ping with this number.
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
    /// The probed port. It is in flight at most once per scan.
    pub port: u16,
    /// The key of the probe in the engine.
    pub key: Key,
    /// The microseconds from the start of the scan to this connect: 32 bits hold 71 minutes.
    started_micros: u32,
    /// The index of the next older probe, or [`NONE`].
    previous: u16,
    /// The index of the next younger probe, or of the next vacant entry if this one is vacant.
    next: u16,
}

/// The index that means "no entry". There are at most 65,535 ports, so the greatest index of an
/// entry is `NONE - 1`.
const NONE: u16 = u16::MAX;
/// The maximum number of entries that are allocated at the start. Most of thousands of targets have
/// few probes in flight each, although they have hundreds of ports.
const ENTRIES_AT_ONCE: usize = 16;
const _: () = assert!(size_of::<Probe>() <= 20, "a probe takes at most 20 bytes");

impl Probe {
    /// The time at which the connect was started, from the start of the scan.
    pub fn started(&self) -> Duration {
        Duration::from_micros(self.started_micros.into())
    }
}

/// The probes in flight, from the oldest to the youngest.
#[derive(Debug)]
pub struct Probes {
    entries: Vec<Probe>,
    /// The first vacant entry, or [`NONE`].
    vacant: u16,
    oldest: u16,
    youngest: u16,
    /// The oldest probe whose SYN was not retransmitted yet, or [`NONE`].
    not_retransmitted: u16,
    len: usize,
}

impl Probes {
    /// An empty table for a scan of `ports` ports. It grows with the number of probes in flight.
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

    /// Adds the youngest probe. `started` is the time from the start of the scan, and it never
    /// decreases.
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

    /// Removes a probe from any position.
    pub fn remove(&mut self, id: ProbeId) -> Probe {
        assert!(self.len > 0, "a probe that is removed was in flight");
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

    /// Moves the cursor past one probe if it was started at `until` or before. Returns whether
    /// there was one: its SYN counts as retransmitted.
    pub fn poll_retransmission(&mut self, until: Duration) -> bool {
        let Some(probe) = self.entries.get(self.not_retransmitted as usize) else { return false };
        if probe.started() > until {
            return false;
        }
        self.not_retransmitted = probe.next;
        true
    }

    /// The probe that was started first.
    pub fn oldest(&self) -> Option<(ProbeId, &Probe)> {
        self.entries.get(self.oldest as usize).map(|probe| (ProbeId(self.oldest.into()), probe))
    }

    /// The probe that was started last.
    pub fn youngest(&self) -> Option<(ProbeId, &Probe)> {
        self.entries.get(self.youngest as usize).map(|probe| (ProbeId(self.youngest.into()), probe))
    }

    /// The probes in the order of their starts.
    pub fn iter(&self) -> impl Iterator<Item = &Probe> {
        let following = |probe: &&Probe| self.entries.get(probe.next as usize);
        std::iter::successors(self.oldest().map(|(_, probe)| probe), following)
    }

    /// The number of probes in flight.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether no probe is in flight.
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
    fn probes_can_be_removed_from_any_position_without_a_change_of_the_order() {
        let key = Key::from_parts(0, 0);
        for removed in 0..5_u16 {
            let mut probes = Probes::new(5);
            let ids: Vec<ProbeId> =
                (0..5).map(|n| probes.push(n + 1, key, Duration::from_micros(n.into()))).collect();
            assert_eq!(probes.remove(ids[usize::from(removed)]).port, removed + 1);
            let expected: Vec<u16> = (1..=5).filter(|port| *port != removed + 1).collect();
            assert_eq!(ports(&probes), expected);
            probes.push(9, key, Duration::from_micros(9));
            assert_eq!(probes.entries.len(), 5, "the vacant entry is reused");
            assert_eq!(probes.youngest().map(|(_, probe)| probe.port), Some(9));
        }
    }

    #[test]
    fn all_ports_of_a_host_may_be_in_flight() {
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
        assert!(ports(&probes).into_iter().eq(1..=65_534), "the start order is kept");
    }

    #[test]
    fn a_table_is_usable_again_after_its_last_probe_was_removed() {
        let mut probes = Probes::new(1);
        let id = probes.push(80, Key::from_parts(0, 0), Duration::ZERO);
        probes.remove(id);
        assert!(probes.is_empty() && probes.oldest().is_none() && probes.youngest().is_none());
        probes.push(81, Key::from_parts(0, 1), Duration::ZERO);
        assert_eq!(ports(&probes), [81]);
    }

    #[test]
    fn each_probe_counts_as_retransmitted_once_in_the_order_of_the_starts() {
        let key = Key::from_parts(0, 0);
        let mut probes = Probes::new(4);
        let push = |probes: &mut Probes, port: u16| {
            probes.push(port, key, Duration::from_micros(port.into()))
        };
        let count = |probes: &mut Probes, until: u64| {
            let until = Duration::from_micros(until);
            (0..9).filter(|_| probes.poll_retransmission(until)).count()
        };
        let ids = [10, 20, 30].map(|port| push(&mut probes, port));
        assert_eq!(count(&mut probes, 20), 2, "the probes of the ports 10 and 20");
        assert_eq!(count(&mut probes, 29), 0);
        probes.remove(ids[2]);
        push(&mut probes, 40);
        assert_eq!(count(&mut probes, 39), 0);
        assert_eq!(count(&mut probes, 40), 1);
        push(&mut probes, 50);
        assert_eq!(count(&mut probes, 50), 1);
    }
}
