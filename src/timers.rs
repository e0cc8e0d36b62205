//! Two indexes of deadlines, which find the keys that are due first.
//!
//! [`Timers`] is for clients, jobs and lookups. Each key has at most one deadline; setting another
//! one replaces it. The owner computes a deadline from its state and sets it after each change, so
//! there is never a deadline of a former state. [`ScanTimers`] is for scans, of which there may be
//! tens of thousands: it takes some 24 bytes for each, and its owner knows which deadline of a scan
//! is the current one. (Scans keep the deadlines of their probes themselves, in start order.)
//!
//! Invariants: `order` and `armed` of [`Timers`] contain the same pairs; the first deadline of
//! [`ScanTimers`] is a current one.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::time::Instant;

use crate::slots::Key;

/// An index of deadlines by time and by key; every operation is O(log n).
#[derive(Debug, Default)]
pub struct Timers {
    order: BTreeSet<(Instant, Key)>,
    /// The entries of `order` by the index of the key. This is a map, because the keys of probes
    /// come from the same slots, and a table would be as long as there are probes.
    armed: BTreeMap<usize, (Instant, Key)>,
}

impl Timers {
    /// Sets or replaces the deadline of `key`, or removes it if `deadline` is `None`.
    pub fn set(&mut self, key: Key, deadline: Option<Instant>) {
        let wanted = deadline.map(|at| (at, key));
        let before = match wanted {
            Some(entry) => self.armed.insert(key.index(), entry),
            None => self.armed.remove(&key.index()),
        };
        if before == wanted {
            return;
        }
        if let Some(entry) = before {
            let was_present = self.order.remove(&entry);
            assert!(was_present, "each entry of `armed` is in `order`");
        }
        self.order.extend(wanted);
        debug_assert_eq!(self.order.len(), self.armed.len());
    }

    /// The earliest deadline of all.
    pub fn first(&self) -> Option<Instant> {
        self.order.first().map(|(at, _)| *at)
    }

    /// Removes the earliest deadline if it is not later than `now`, and returns its key.
    pub fn pop_due(&mut self, now: Instant) -> Option<Key> {
        let (at, key) = *self.order.first()?;
        if at > now {
            return None;
        }
        self.set(key, None);
        Some(key)
    }
}

/// The deadlines of scans by time. A deadline that was replaced stays until it would be due, or
/// until `replace`.
#[derive(Debug, Default)]
pub struct ScanTimers {
    heap: BinaryHeap<Reverse<(Instant, Key)>>,
}

/// The number of deadlines up to which replaced ones are not looked for.
const REPLACED_KEPT: usize = 64;

impl ScanTimers {
    /// Adds the deadline of a scan.
    pub fn add(&mut self, key: Key, deadline: Instant) {
        self.heap.push(Reverse((deadline, key)));
    }

    /// Whether there are many replaced deadlines beside the `current` ones.
    pub fn is_crowded(&self, current: usize) -> bool {
        self.heap.len() > current + current / 4 + REPLACED_KEPT
    }

    /// Keeps only these deadlines, which are the current ones.
    pub fn replace(&mut self, current: impl Iterator<Item = (Instant, Key)>) {
        self.heap.clear();
        self.heap.extend(current.map(Reverse));
    }

    /// Forgets replaced deadlines that are first. To be called after each change.
    pub fn prune(&mut self, is_current: impl Fn(Key, Instant) -> bool) {
        while let Some(Reverse((at, key))) = self.heap.peek()
            && !is_current(*key, *at)
        {
            self.heap.pop();
        }
    }

    /// The earliest deadline of all.
    pub fn first(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse((at, _))| *at)
    }

    /// Removes the earliest deadline if it is not later than `now`, and returns its key.
    pub fn pop_due(&mut self, now: Instant) -> Option<Key> {
        self.first().filter(|at| *at <= now)?;
        self.heap.pop().map(|Reverse((_, key))| key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn replaced_deadlines_are_neither_first_nor_kept_in_great_number() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let keys = [Key::from_parts(0, 0), Key::from_parts(1, 0)];
        let mut timers = ScanTimers::default();
        let (mut current, mut most) = ([at(0); 2], 0);
        for ms in (1..10_000).rev() {
            current = [at(ms), at(20_000)];
            timers.add(keys[0], current[0]);
            timers.add(keys[1], current[1]);
            if timers.is_crowded(2) {
                timers.replace(current.into_iter().zip(keys));
                assert_eq!(timers.heap.len(), 2);
            }
            timers.prune(|key, at| current[key.index()] == at);
            assert_eq!(timers.first(), Some(current[0]));
            most = most.max(timers.heap.len());
        }
        assert!(most <= 2 + REPLACED_KEPT, "{most} deadlines of two scans");
        assert_eq!(timers.pop_due(at(0)), None);
        assert_eq!(timers.pop_due(at(1)), Some(keys[0]));
        timers.prune(|key, at| key == keys[1] && current[1] == at);
        assert_eq!(timers.first(), Some(at(20_000)));
    }

    #[test]
    fn deadlines_are_returned_once_in_ascending_order() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let keys: Vec<Key> = (0..4).map(|index| Key::from_parts(index, 0)).collect();
        let mut timers = Timers::default();
        for (key, ms) in keys.iter().zip([30, 10, 20, 10]) {
            timers.set(*key, Some(at(ms)));
        }
        timers.set(keys[0], Some(at(5)));
        timers.set(keys[3], None);
        assert_eq!(timers.first(), Some(at(5)));
        assert_eq!(timers.pop_due(at(4)), None);
        let due: Vec<Key> = std::iter::from_fn(|| timers.pop_due(at(15))).collect();
        assert_eq!(due, [keys[0], keys[1]]);
        assert_eq!(timers.first(), Some(at(20)));
    }

    #[test]
    fn a_reused_slot_replaces_the_deadline_of_its_former_occupant() {
        let start = Instant::now();
        let mut timers = Timers::default();
        timers.set(Key::from_parts(0, 0), Some(start));
        timers.set(Key::from_parts(0, 1), Some(start + Duration::from_secs(1)));
        assert_eq!(timers.pop_due(start), None, "the deadline of the former occupant was replaced");
    }
}
