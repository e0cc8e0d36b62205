//! An index of deadlines, which finds the keys that are due first.
//!
//! Each key has at most one deadline; setting another one replaces it. The owner computes a
//! deadline from its state and sets it after each change, so there is never a deadline of a former
//! state. Scans keep the deadlines of their probes themselves (in start order, O(1)); this index is
//! for clients, jobs and lookups, of which there are fewer.
//!
//! Invariant: `order` and `armed` contain the same pairs.

use std::collections::{BTreeMap, BTreeSet};
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

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
