//! The SYNs that wait for an answer: which probe a four-tuple belongs to, and when it is repeated.
//!
//! An entry stands at the index of its probe's key, so that a probe is forgotten without a search.
//! An answer finds its entry by the sequence number that it acknowledges, which is a keyed hash of
//! the four-tuple already: an open-addressed table with linear probing needs no other. A SYN is
//! repeated when Linux repeats one (`syn_at`), in the order of its start: there is one list for
//! each repeat, and each is sorted by itself. 28 bytes a probe over IPv4, and
//! 4 bytes a place of the table. Pure.
//!
//! Invariants (`check_invariants`): each entry is in the table once; each that will be repeated is
//! in the list of its next repeat; lists are in the order of the start.

use std::time::Duration;

use crate::scan::rtt::syn_at;
use crate::slots::Key;

/// No entry.
const NONE: u32 = u32::MAX;
/// SYNs of one probe: the kernel's sixth leaves after half a minute, and no timeout is longer than
/// a minute.
const SYNS_MAX: usize = 6;
/// The smallest table.
const TABLE_MIN: usize = 64;

/// What identifies a probe on the network, and where it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Remote<A> {
    /// The address.
    pub(super) address: A,
    /// The port.
    pub(super) port: u16,
    /// The place of our source port in its block.
    pub(super) place: u8,
}

#[derive(Clone, Copy, Debug)]
struct InFlightSyn<A> {
    /// The parts of its [`Remote`], which would need padding of its own.
    address: A,
    port: u16,
    place: u8,
    /// SYNs sent; 0 for an entry that is vacant.
    sent: u8,
    sequence: u32,
    generation: u32,
    /// Milliseconds of the engine's clock.
    started: u32,
    previous: u32,
    next: u32,
}

const _: () = assert!(size_of::<InFlightSyn<[u8; 4]>>() <= 28, "a SYN stays within its memory");

impl<A: Copy> InFlightSyn<A> {
    const fn remote(&self) -> Remote<A> {
        Remote { address: self.address, port: self.port, place: self.place }
    }
}

#[derive(Clone, Copy, Debug)]
struct List {
    first: u32,
    last: u32,
}

/// See the module's documentation. `A` is an address.
#[derive(Debug)]
pub(super) struct InFlight<A> {
    entries: Vec<InFlightSyn<A>>,
    /// One more than the index of an entry; 0 for none. A power of two, at most three quarters
    /// full.
    table: Vec<u32>,
    /// By the number of SYNs sent, less one.
    lists: [List; SYNS_MAX],
    len: usize,
}

/// A SYN to be sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Repeat<A> {
    /// Its probe.
    pub(super) probe: Key,
    /// Where it goes.
    pub(super) remote: Remote<A>,
}

impl<A: Copy + PartialEq> InFlight<A> {
    pub(super) const fn new() -> Self {
        let list = List { first: NONE, last: NONE };
        Self { entries: Vec::new(), table: Vec::new(), lists: [list; SYNS_MAX], len: 0 }
    }

    /// Whether a probe with this four-tuple is in flight.
    pub(super) fn contains(&self, remote: &Remote<A>, sequence: u32) -> bool {
        self.find(remote, sequence).is_some()
    }

    /// A SYN is sent. Its key and four-tuple are not in flight, and no start before was later.
    pub(super) fn insert(&mut self, probe: Key, remote: Remote<A>, sequence: u32, started: u32) {
        debug_assert!(!self.contains(&remote, sequence), "a four-tuple has one probe");
        let index = probe.index();
        let (previous, next) = (NONE, NONE);
        let generation = probe.generation();
        let Remote { address, port, place } = remote;
        let sent = 1;
        let entry = InFlightSyn {
            address,
            port,
            place,
            sent,
            sequence,
            generation,
            started,
            previous,
            next,
        };
        if self.entries.len() <= index {
            self.entries.resize(index + 1, InFlightSyn { sent: 0, ..entry });
        }
        assert!(self.entries[index].sent == 0, "a key has one probe");
        self.entries[index] = entry;
        self.len += 1;
        if self.table.len() / 4 * 3 < self.len {
            self.grow();
        } else {
            self.tabulate(index as u32);
        }
        self.append(index as u32);
        self.check_invariants();
    }

    /// Takes out the probe with this four-tuple.
    pub(super) fn take(&mut self, remote: &Remote<A>, sequence: u32) -> Option<Key> {
        let slot = self.find(remote, sequence)?;
        let index = self.table[slot] - 1;
        let generation = self.entries[index as usize].generation;
        self.vacate(index, slot);
        Some(Key::from_parts(index, generation))
    }

    /// Takes out a probe; false if it is not in flight.
    pub(super) fn remove(&mut self, probe: Key) -> bool {
        let Some(entry) = self.entries.get(probe.index()) else { return false };
        if entry.sent == 0 || entry.generation != probe.generation() {
            return false;
        }
        let (remote, sequence) = (entry.remote(), entry.sequence);
        let slot = self.find(&remote, sequence);
        let slot = slot.unwrap_or_else(|| unreachable!("each entry is in the table"));
        self.vacate(probe.index() as u32, slot);
        true
    }

    /// The next SYN that is to be repeated by now; it counts as sent. Its four-tuple may have
    /// changed since: see [`InFlight::move_to`].
    pub(super) fn poll_repeat(&mut self, now: u32) -> Option<Repeat<A>> {
        let due = |list: &&List| list.first != NONE && self.due_of(list.first) <= now;
        let index = self.lists[..SYNS_MAX - 1].iter().find(due)?.first;
        self.unlink(index);
        let entry = &mut self.entries[index as usize];
        entry.sent += 1;
        let repeat =
            Repeat { probe: Key::from_parts(index, entry.generation), remote: entry.remote() };
        self.append(index);
        self.check_invariants();
        Some(repeat)
    }

    /// The sequence number of a probe has changed, since its source address has. False if the probe
    /// is not in flight.
    pub(super) fn move_to(&mut self, probe: Key, sequence: u32) -> bool {
        let Some(entry) = self.entries.get(probe.index()) else { return false };
        let (remote, before) = (entry.remote(), entry.sequence);
        if entry.sent == 0 || entry.generation != probe.generation() {
            return false;
        }
        if before != sequence {
            let slot = self.find(&remote, before);
            let slot = slot.unwrap_or_else(|| unreachable!("each entry is in the table"));
            self.close_gap(slot);
            self.entries[probe.index()].sequence = sequence;
            self.tabulate(probe.index() as u32);
        }
        self.check_invariants();
        true
    }

    /// When the next SYN is to be repeated.
    pub(super) fn repeat_at(&self) -> Option<u32> {
        let lists = self.lists[..SYNS_MAX - 1].iter().filter(|list| list.first != NONE);
        lists.map(|list| self.due_of(list.first)).min()
    }

    /// Takes out every probe, the oldest key first.
    pub(super) fn drain(&mut self) -> Vec<Key> {
        let entries = self.entries.iter().enumerate().filter(|(_, entry)| entry.sent > 0);
        let keys = entries.map(|(index, entry)| Key::from_parts(index as u32, entry.generation));
        let keys: Vec<Key> = keys.collect();
        for key in &keys {
            self.remove(*key);
        }
        assert_eq!(self.len, 0, "nothing is left");
        keys
    }

    fn due_of(&self, index: u32) -> u32 {
        let entry = &self.entries[index as usize];
        let after: Duration = syn_at(u32::from(entry.sent) + 1);
        entry.started.saturating_add(u32::try_from(after.as_millis()).unwrap_or(u32::MAX))
    }

    fn slot_of(&self, sequence: u32) -> usize {
        sequence as usize & (self.table.len() - 1)
    }

    fn find(&self, remote: &Remote<A>, sequence: u32) -> Option<usize> {
        if self.table.is_empty() {
            return None;
        }
        let mut slot = self.slot_of(sequence);
        loop {
            let index = self.table[slot].checked_sub(1)?;
            let entry = &self.entries[index as usize];
            if entry.sequence == sequence && entry.remote() == *remote {
                return Some(slot);
            }
            slot = (slot + 1) & (self.table.len() - 1);
        }
    }

    fn tabulate(&mut self, index: u32) {
        let mut slot = self.slot_of(self.entries[index as usize].sequence);
        while self.table[slot] != 0 {
            slot = (slot + 1) & (self.table.len() - 1);
        }
        self.table[slot] = index + 1;
    }

    fn grow(&mut self) {
        let len = (self.table.len() * 2).max(TABLE_MIN);
        self.table.clear();
        self.table.resize(len, 0);
        for index in 0..self.entries.len() {
            if self.entries[index].sent > 0 {
                self.tabulate(index as u32);
            }
        }
    }

    /// Empties a slot, and moves up those behind it that were displaced by it.
    fn close_gap(&mut self, mut gap: usize) {
        let mask = self.table.len() - 1;
        let mut slot = gap;
        loop {
            slot = (slot + 1) & mask;
            let Some(index) = self.table[slot].checked_sub(1) else { break };
            let home = self.slot_of(self.entries[index as usize].sequence);
            // It may move unless its own place is behind the gap.
            if slot.wrapping_sub(home) & mask >= slot.wrapping_sub(gap) & mask {
                self.table[gap] = self.table[slot];
                gap = slot;
            }
        }
        self.table[gap] = 0;
    }

    fn vacate(&mut self, index: u32, slot: usize) {
        self.close_gap(slot);
        self.unlink(index);
        self.entries[index as usize].sent = 0;
        self.len -= 1;
        self.check_invariants();
    }

    /// Puts an entry at the end of the list of its next repeat.
    fn append(&mut self, index: u32) {
        let list = &mut self.lists[usize::from(self.entries[index as usize].sent) - 1];
        let last = std::mem::replace(&mut list.last, index);
        match last {
            NONE => list.first = index,
            _ => self.entries[last as usize].next = index,
        }
        let entry = &mut self.entries[index as usize];
        (entry.previous, entry.next) = (last, NONE);
    }

    fn unlink(&mut self, index: u32) {
        let InFlightSyn { previous, next, sent, .. } = self.entries[index as usize];
        let list = &mut self.lists[usize::from(sent) - 1];
        match previous {
            NONE => list.first = next,
            _ => self.entries[previous as usize].next = next,
        }
        match next {
            NONE => list.last = previous,
            _ => self.entries[next as usize].previous = previous,
        }
    }

    fn check_invariants(&self) {
        if cfg!(debug_assertions) && self.entries.len() <= 16 {
            let taken = self.entries.iter().filter(|entry| entry.sent > 0);
            assert_eq!(taken.clone().count(), self.len, "1: the length");
            assert_eq!(self.table.iter().filter(|it| **it > 0).count(), self.len, "2: the table");
            assert!(
                taken.clone().all(|it| self.find(&it.remote(), it.sequence).is_some()),
                "3: each entry is found"
            );
            let mut listed = 0;
            for (place, list) in self.lists.iter().enumerate() {
                let (mut at, mut before) = (list.first, 0);
                while at != NONE {
                    let entry = &self.entries[at as usize];
                    assert_eq!(usize::from(entry.sent), place + 1, "4: in its list");
                    assert!(entry.started >= before, "5: in the order of the start");
                    (at, before, listed) = (entry.next, entry.started, listed + 1);
                }
            }
            assert_eq!(listed, self.len, "6: each entry is in one list");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(index: u32) -> Key {
        Key::from_parts(index, 7)
    }

    fn remote(port: u16) -> Remote<u32> {
        Remote { address: 9, port, place: 1 }
    }

    #[test]
    fn an_answer_finds_its_probe_among_equal_sequence_numbers() {
        // All but the last bits are equal, so that the entries displace each other.
        for gone in 0..8_u16 {
            let mut table = InFlight::new();
            let sequence = |port: u16| 0x40_u32 + u32::from(port % 3);
            for port in 0..8 {
                table.insert(key(port.into()), remote(port), sequence(port), 0);
            }
            assert_eq!(table.take(&remote(gone), sequence(gone)), Some(key(gone.into())));
            assert_eq!(table.take(&remote(gone), sequence(gone)), None, "once");
            for port in (0..8).filter(|port| *port != gone) {
                assert!(table.contains(&remote(port), sequence(port)), "{gone} gone: {port}");
                assert!(!table.contains(&remote(port), sequence(port) + 1));
            }
            assert!(!table.remove(key(gone.into())), "it is gone");
            assert!(!table.remove(Key::from_parts(gone.into(), 6)), "a stale key");
            assert_eq!(table.drain().len(), 7);
        }
    }

    #[test]
    fn tables_that_wrap_around_keep_every_entry() {
        let mut table = InFlight::new();
        let sequence = |port: u16| u32::MAX - u32::from(port % 2);
        (0..6).for_each(|port| table.insert(key(port.into()), remote(port), sequence(port), 0));
        for port in [1, 0, 3, 5, 2, 4] {
            assert_eq!(table.take(&remote(port), sequence(port)), Some(key(port.into())));
        }
        assert_eq!(table.len, 0);
    }

    #[test]
    fn syns_are_repeated_when_the_kernel_repeats_them() {
        let mut table = InFlight::new();
        table.insert(key(0), remote(1), 5, 100);
        table.insert(key(1), remote(2), 6, 600);
        let mut sent = Vec::new();
        for now in (0..70_000).step_by(100) {
            assert!(table.repeat_at().is_none_or(|at| at >= now), "at {now}");
            while let Some(repeat) = table.poll_repeat(now) {
                sent.push((now, repeat.remote.port));
            }
            if now == 8_000 {
                assert!(table.remove(key(1)));
            }
        }
        let expected = [
            (1_100, 1),
            (1_600, 2),
            (3_100, 1),
            (3_600, 2),
            (7_100, 1),
            (7_600, 2),
            (15_100, 1),
            (31_100, 1),
        ];
        assert_eq!(sent, expected);
        assert_eq!(table.len, 1, "it waits on");
    }

    #[test]
    fn a_new_source_address_gives_a_probe_another_number() {
        let mut table = InFlight::new();
        (0..4).for_each(|port| table.insert(key(port.into()), remote(port), 64, 0));
        assert!(table.move_to(key(2), 65));
        assert!(!table.move_to(Key::from_parts(2, 8), 66), "a stale key");
        assert!(!table.contains(&remote(2), 64));
        assert_eq!(table.take(&remote(2), 65), Some(key(2)));
        assert_eq!(table.drain().len(), 3);
    }

    #[test]
    fn thousands_of_entries_come_and_go() {
        let mut table = InFlight::new();
        let (mut dice, mut present) = (1_u32, Vec::new());
        for step in 0..50_000_u32 {
            dice = dice.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let index = (dice >> 16) % 5_000;
            if present.contains(&index) {
                let port = index as u16;
                assert!(table.remove(key(index)) || table.contains(&remote(port), dice));
                present.retain(|it| *it != index);
            } else if present.len() < 300 {
                table.insert(key(index), remote(index as u16), index.wrapping_mul(dice | 1), step);
                present.push(index);
            }
            assert_eq!(table.len, present.len());
        }
        assert_eq!(table.drain().len(), present.len());
    }
}
