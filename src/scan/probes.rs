//! The probes in flight of one scan, in start order.
//!
//! A slab threaded by a doubly linked list: any probe is taken out in O(1), the oldest (whose
//! deadline is the earliest, since all share one timeout) and the youngest (which has waited
//! least, so it is the one to give back) are at the ends. 24 bytes a probe.
//!
//! Invariants: `len` counts the list from either end; a vacant entry is on the free chain.

use std::time::Duration;

use crate::slots::Key;

/// A probe's place in its scan's table; valid until that probe ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbeId(u32);

/// One connect in flight.
#[derive(Clone, Copy, Debug)]
pub struct Probe {
    /// The port it is for; in flight at most once per scan.
    pub port: u16,
    /// The socket it runs on.
    pub socket: Key,
    /// Microseconds from the scan's start to this connect: 32 bits hold 71 minutes.
    started_micros: u32,
    previous: u32,
    /// The next younger probe; for a vacant entry, the next vacant one.
    next: u32,
}

const NONE: u32 = u32::MAX;
const _: () = assert!(size_of::<Probe>() <= 24, "a probe stays within its memory budget");

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
    vacant: u32,
    oldest: u32,
    youngest: u32,
    len: usize,
}

impl Default for Probes {
    fn default() -> Self {
        Self::new()
    }
}

impl Probes {
    /// An empty table; it grows with the connects in flight.
    pub const fn new() -> Self {
        Self { entries: Vec::new(), vacant: NONE, oldest: NONE, youngest: NONE, len: 0 }
    }

    /// Adds the youngest probe. `started` counts from the scan's start and never goes back.
    pub fn push(&mut self, port: u16, socket: Key, started: Duration) -> ProbeId {
        let started_micros = u32::try_from(started.as_micros()).unwrap_or(u32::MAX);
        let previous = self.youngest;
        let probe = Probe { port, socket, started_micros, previous, next: NONE };
        debug_assert!(self.youngest().is_none_or(|(_, last)| last.started() <= probe.started()));
        let index = if self.vacant == NONE {
            self.entries.push(probe);
            (self.entries.len() - 1) as u32
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
        self.youngest = index;
        self.len += 1;
        ProbeId(index)
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
        self.entries[id.0 as usize].next = self.vacant;
        self.vacant = id.0;
        self.len -= 1;
        debug_assert_eq!(self.len == 0, self.oldest == NONE && self.youngest == NONE);
        probe
    }

    /// The probe that waits longest.
    pub fn oldest(&self) -> Option<(ProbeId, &Probe)> {
        self.entries.get(self.oldest as usize).map(|probe| (ProbeId(self.oldest), probe))
    }

    /// The probe that was started last.
    pub fn youngest(&self) -> Option<(ProbeId, &Probe)> {
        self.entries.get(self.youngest as usize).map(|probe| (ProbeId(self.youngest), probe))
    }

    /// Connects in flight.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// True exactly when nothing is in flight.
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
            let mut probes = Probes::new();
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
    fn an_emptied_table_starts_anew() {
        let mut probes = Probes::new();
        let id = probes.push(80, Key::from_parts(0, 0), Duration::ZERO);
        probes.remove(id);
        assert!(probes.is_empty() && probes.oldest().is_none() && probes.youngest().is_none());
        probes.push(81, Key::from_parts(0, 1), Duration::ZERO);
        assert_eq!(ports(&probes), [81]);
    }
}
