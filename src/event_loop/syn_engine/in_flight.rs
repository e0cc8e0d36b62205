//! The SYNs that wait for an answer: the probe of each four-tuple, and the time of its next repeat.
//!
//! An entry has the index of its probe's key, so that a probe is given up without a search. The
//! entry for an answer is found by the acknowledged sequence number. This number is already a keyed
//! hash of the four-tuple, so the hash table (Robin Hood hashing) uses it as its hash. A slot of
//! the table also has the distance from the home slot of its entry, so that a search seldom reads
//! an entry of another probe from memory. A SYN is repeated at the times at which Linux repeats one
//! (`syn_at`). There is one list for each number of SYNs sent, in the order of the starts, so that
//! only the first entry of each list is compared with the clock. An entry takes 28 bytes for IPv4,
//! and a slot of the table 4 bytes. This module has no side effects and reads no clock.
//!
//! Invariants (`check_invariants`): each entry is in the table exactly once, and in exactly one
//! list, that of its number of SYNs sent; each list is in the order of the starts.

use std::net::Ipv6Addr;
use std::time::Duration;

use crate::scan::rtt::syn_at;
use crate::slots::Key;

/// The index that stands for no entry.
const NONE: u32 = u32::MAX;
/// The maximum number of SYNs of one probe: Linux sends the sixth after 31 s, and the seventh after
/// 63 s, which is longer than the longest timeout (60 s).
const SYNS_MAX: usize = 6;
/// The number of bits of a slot that contain the index of an entry plus one.
const INDEX_BITS: u32 = 20;
/// The maximum distance that a slot can contain. No keyed hash has so many collisions.
const DISTANCE_MAX: u32 = (1 << (32 - INDEX_BITS)) - 1;
/// The number of slots of the smallest table.
const TABLE_LEN_MIN: usize = 64;

/// The target of a probe and its source port, which together identify the probe on the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Remote<A> {
    pub(super) address: A,
    pub(super) port: u16,
    /// The offset of the source port in the block of source ports.
    pub(super) offset: u8,
}

/// The address of an IPv6 target. The scope is not compared, because an answer does not contain it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Address6 {
    pub(super) address: Ipv6Addr,
    pub(super) scope: u32,
}

impl PartialEq for Address6 {
    fn eq(&self, other: &Self) -> bool {
        self.address == other.address
    }
}

#[derive(Clone, Copy, Debug)]
struct InFlightSyn<A> {
    /// The fields of [`Remote`]. As a nested struct they would need padding.
    address: A,
    port: u16,
    offset: u8,
    /// The number of SYNs sent; 0 for a vacant entry.
    sent: u8,
    sequence: u32,
    generation: u32,
    /// The time of the first SYN, in milliseconds of the engine's clock.
    started_ms: u32,
    /// The indices of the neighbours in the list, or [`NONE`].
    previous: u32,
    next: u32,
}

const _: () =
    assert!(size_of::<InFlightSyn<[u8; 4]>>() <= 28, "an entry for IPv4 takes at most 28 bytes");

impl<A: Copy> InFlightSyn<A> {
    const fn remote(&self) -> Remote<A> {
        Remote { address: self.address, port: self.port, offset: self.offset }
    }
}

/// A doubly linked list of entries; both indices are [`NONE`] if it is empty.
#[derive(Clone, Copy, Debug)]
struct List {
    first: u32,
    last: u32,
}

/// A slot of the hash table: 0 if it is vacant, otherwise the index of an entry plus one, and above
/// it the distance from the home slot of the entry to this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct TableSlot(u32);

impl TableSlot {
    const VACANT: Self = Self(0);

    /// The home slot of an entry.
    fn home(index: u32) -> Self {
        assert!(index < (1 << INDEX_BITS) - 1, "the index of a key has fewer than 20 bits");
        Self(index + 1)
    }

    /// The index of the entry; `None` if the slot is vacant.
    const fn index(self) -> Option<u32> {
        (self.0 & ((1 << INDEX_BITS) - 1)).checked_sub(1)
    }

    const fn distance(self) -> u32 {
        self.0 >> INDEX_BITS
    }

    /// The same entry in the next slot.
    fn next(self) -> Self {
        assert!(self.distance() < DISTANCE_MAX, "the distance from the home slot is short");
        Self(self.0 + (1 << INDEX_BITS))
    }

    /// The same entry in the previous slot.
    const fn previous(self) -> Self {
        Self(self.0 - (1 << INDEX_BITS))
    }
}

/// See the module's documentation. `A` is the type of an address.
#[derive(Debug)]
pub(super) struct InFlight<A> {
    entries: Vec<InFlightSyn<A>>,
    /// The hash table. Its length is a power of two, and at most three quarters of the slots are in
    /// use.
    table: Vec<TableSlot>,
    /// The entries by the number of SYNs sent; the first list is for one SYN.
    lists: [List; SYNS_MAX],
    len: usize,
}

/// A SYN that is to be repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Repeat<A> {
    pub(super) probe: Key,
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

    /// Adds the first SYN of a probe. Neither its key nor its four-tuple may be in flight, and
    /// `started_ms` must not be earlier than that of the probe added before.
    pub(super) fn insert(&mut self, probe: Key, remote: Remote<A>, sequence: u32, started_ms: u32) {
        debug_assert!(!self.contains(&remote, sequence), "the four-tuple is not in flight");
        let index = probe.index();
        let (previous, next) = (NONE, NONE);
        let generation = probe.generation();
        let Remote { address, port, offset } = remote;
        let sent = 1;
        let entry = InFlightSyn {
            address,
            port,
            offset,
            sent,
            sequence,
            generation,
            started_ms,
            previous,
            next,
        };
        if self.entries.len() <= index {
            self.entries.resize(index + 1, InFlightSyn { sent: 0, ..entry });
        }
        assert!(self.entries[index].sent == 0, "the key is not in flight");
        self.entries[index] = entry;
        self.len += 1;
        if self.table.len() / 4 * 3 < self.len {
            self.grow();
        } else {
            self.insert_into_table(index as u32);
        }
        self.append(index as u32);
        self.check_invariants();
    }

    /// Removes the probe with this four-tuple, and returns its key.
    pub(super) fn take(&mut self, remote: &Remote<A>, sequence: u32) -> Option<Key> {
        let slot = self.find(remote, sequence)?;
        let index = self.table[slot].index()?;
        let generation = self.entries[index as usize].generation;
        self.vacate(index, slot);
        Some(Key::from_parts(index, generation))
    }

    /// Removes a probe. Returns false if it is not in flight.
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

    /// The next SYN whose repeat is due; from then on the repeat counts as sent. If its source
    /// address has changed since, the caller must call [`InFlight::change_sequence`].
    pub(super) fn poll_repeat(&mut self, now: u32) -> Option<Repeat<A>> {
        let due = |list: &&List| list.first != NONE && self.wait(list.first, now) == 0;
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

    /// Sets the sequence number of a probe, which depends on its source address. Returns false if
    /// the probe is not in flight.
    pub(super) fn change_sequence(&mut self, probe: Key, sequence: u32) -> bool {
        let Some(entry) = self.entries.get(probe.index()) else { return false };
        let (remote, before) = (entry.remote(), entry.sequence);
        if entry.sent == 0 || entry.generation != probe.generation() {
            return false;
        }
        if before != sequence {
            let slot = self.find(&remote, before);
            let slot = slot.unwrap_or_else(|| unreachable!("each entry is in the table"));
            self.remove_from_table(slot);
            self.entries[probe.index()].sequence = sequence;
            self.insert_into_table(probe.index() as u32);
        }
        self.check_invariants();
        true
    }

    /// The number of milliseconds from `now` until the next SYN is to be repeated.
    pub(super) fn repeat_wait(&self, now: u32) -> Option<u32> {
        let lists = self.lists[..SYNS_MAX - 1].iter().filter(|list| list.first != NONE);
        lists.map(|list| self.wait(list.first, now)).min()
    }

    /// Removes all probes, and returns their keys in the order of their indices.
    pub(super) fn take_all(&mut self) -> Vec<Key> {
        let entries = self.entries.iter().enumerate().filter(|(_, entry)| entry.sent > 0);
        let keys = entries.map(|(index, entry)| Key::from_parts(index as u32, entry.generation));
        let keys: Vec<Key> = keys.collect();
        for key in &keys {
            self.remove(*key);
        }
        assert_eq!(self.len, 0, "no probe is left in flight");
        keys
    }

    /// The number of milliseconds from `now` until the next SYN of an entry is due. The clock may
    /// have wrapped since its first SYN.
    fn wait(&self, index: u32, now: u32) -> u32 {
        let entry = &self.entries[index as usize];
        let after: Duration = syn_at(u32::from(entry.sent) + 1);
        let after = u32::try_from(after.as_millis()).unwrap_or(u32::MAX);
        let left = entry.started_ms.wrapping_add(after).wrapping_sub(now);
        left.cast_signed().max(0).cast_unsigned()
    }

    /// The slot of the table at which the search for a sequence number begins.
    fn home_slot(&self, sequence: u32) -> usize {
        sequence as usize & (self.table.len() - 1)
    }

    /// The slot of the table that refers to the entry with this four-tuple.
    fn find(&self, remote: &Remote<A>, sequence: u32) -> Option<usize> {
        if self.table.is_empty() {
            return None;
        }
        let (mask, home) = (self.table.len() - 1, self.home_slot(sequence));
        for distance in 0.. {
            let at = (home + distance as usize) & mask;
            let slot = self.table[at];
            let index = slot.index().filter(|_| slot.distance() >= distance)?;
            if slot.distance() == distance {
                let entry = &self.entries[index as usize];
                if entry.sequence == sequence && entry.remote() == *remote {
                    return Some(at);
                }
            }
        }
        unreachable!("a quarter of the slots is vacant")
    }

    /// Puts the index of an entry into a slot. It takes the slot of an entry that is closer to its
    /// home slot, which then moves on in the same way.
    fn insert_into_table(&mut self, index: u32) {
        let mask = self.table.len() - 1;
        let mut at = self.home_slot(self.entries[index as usize].sequence);
        let mut carried = TableSlot::home(index);
        while self.table[at] != TableSlot::VACANT {
            if self.table[at].distance() < carried.distance() {
                std::mem::swap(&mut self.table[at], &mut carried);
            }
            at = (at + 1) & mask;
            carried = carried.next();
        }
        self.table[at] = carried;
    }

    /// Doubles the table, and inserts all entries again.
    fn grow(&mut self) {
        let len = (self.table.len() * 2).max(TABLE_LEN_MIN);
        self.table.clear();
        self.table.resize(len, TableSlot::VACANT);
        for index in 0..self.entries.len() {
            if self.entries[index].sent > 0 {
                self.insert_into_table(index as u32);
            }
        }
    }

    /// Vacates a slot of the table, and moves the entries after it closer to their home slots.
    fn remove_from_table(&mut self, mut vacant: usize) {
        let mask = self.table.len() - 1;
        loop {
            let next = (vacant + 1) & mask;
            let slot = self.table[next];
            if slot.distance() == 0 {
                break; // It is vacant, or the home slot of its entry.
            }
            self.table[vacant] = slot.previous();
            vacant = next;
        }
        self.table[vacant] = TableSlot::VACANT;
    }

    /// Removes an entry from the table and from its list. `slot` is its slot in the table.
    fn vacate(&mut self, index: u32, slot: usize) {
        self.remove_from_table(slot);
        self.unlink(index);
        self.entries[index as usize].sent = 0;
        self.len -= 1;
        self.check_invariants();
    }

    /// Appends an entry to the list of its number of SYNs sent.
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

    /// Removes an entry from its list.
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
            assert_eq!(taken.clone().count(), self.len, "1: `len` is the number of entries");
            assert_eq!(
                self.table.iter().filter(|it| **it != TableSlot::VACANT).count(),
                self.len,
                "2: the table has one slot for each entry"
            );
            assert!(
                taken.clone().all(|it| self.find(&it.remote(), it.sequence).is_some()),
                "3: each entry is found in the table"
            );
            let mut listed = 0;
            for (index, list) in self.lists.iter().enumerate() {
                let mut at = list.first;
                let mut before = self.entries.get(at as usize).map_or(0, |first| first.started_ms);
                while at != NONE {
                    let entry = &self.entries[at as usize];
                    assert_eq!(
                        usize::from(entry.sent),
                        index + 1,
                        "4: an entry is in the list of its SYNs"
                    );
                    let after = entry.started_ms.wrapping_sub(before);
                    assert!(after <= u32::MAX / 2, "5: a list is in the order of the starts");
                    (at, before, listed) = (entry.next, entry.started_ms, listed + 1);
                }
            }
            assert_eq!(listed, self.len, "6: each entry is in exactly one list");
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
        Remote { address: 9, port, offset: 1 }
    }

    #[test]
    fn an_answer_finds_its_probe_among_equal_sequence_numbers() {
        // The sequence numbers differ in their last bits only, so that the entries of the table
        // displace each other.
        for removed in 0..8_u16 {
            let mut table = InFlight::new();
            let sequence = |port: u16| 0x40_u32 + u32::from(port % 3);
            for port in 0..8 {
                table.insert(key(port.into()), remote(port), sequence(port), 0);
            }
            assert_eq!(table.take(&remote(removed), sequence(removed)), Some(key(removed.into())));
            assert_eq!(
                table.take(&remote(removed), sequence(removed)),
                None,
                "an entry is found once"
            );
            for port in (0..8).filter(|port| *port != removed) {
                assert!(
                    table.contains(&remote(port), sequence(port)),
                    "{port}, after {removed} was removed"
                );
                assert!(!table.contains(&remote(port), sequence(port) + 1));
            }
            assert!(!table.remove(key(removed.into())), "the probe was removed before");
            assert!(!table.remove(Key::from_parts(removed.into(), 6)), "the key is stale");
            assert_eq!(table.take_all().len(), 7);
        }
    }

    #[test]
    fn a_search_that_wraps_around_the_table_finds_every_entry() {
        let mut table = InFlight::new();
        let sequence = |port: u16| u32::MAX - u32::from(port % 2);
        (0..6).for_each(|port| table.insert(key(port.into()), remote(port), sequence(port), 0));
        for port in [1, 0, 3, 5, 2, 4] {
            assert_eq!(table.take(&remote(port), sequence(port)), Some(key(port.into())));
        }
        assert_eq!(table.len, 0);
    }

    #[test]
    fn syns_are_repeated_at_the_times_of_the_kernel() {
        let mut table = InFlight::new();
        table.insert(key(0), remote(1), 5, 100);
        table.insert(key(1), remote(2), 6, 600);
        let mut sent = Vec::new();
        for now in (0..70_000).step_by(100) {
            assert_ne!(table.repeat_wait(u32::saturating_sub(now, 1)), Some(0), "at {now}");
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
        assert_eq!(table.len, 1, "the probe still waits for an answer");
    }

    #[test]
    fn a_probe_is_found_by_its_changed_sequence_number() {
        let mut table = InFlight::new();
        (0..4).for_each(|port| table.insert(key(port.into()), remote(port), 64, 0));
        assert!(table.change_sequence(key(2), 65));
        assert!(!table.change_sequence(Key::from_parts(2, 8), 66), "the key is stale");
        assert!(!table.contains(&remote(2), 64));
        assert_eq!(table.take(&remote(2), 65), Some(key(2)));
        assert_eq!(table.take_all().len(), 3);
    }

    #[test]
    fn the_table_stays_consistent_under_random_inserts_and_removals() {
        let mut table = InFlight::new();
        let (mut random, mut present) = (1_u32, Vec::new());
        for step in 0..50_000_u32 {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let index = (random >> 16) % 5_000;
            if present.contains(&index) {
                let port = index as u16;
                assert!(table.remove(key(index)) || table.contains(&remote(port), random));
                present.retain(|it| *it != index);
            } else if present.len() < 300 {
                table.insert(
                    key(index),
                    remote(index as u16),
                    index.wrapping_mul(random | 1),
                    step,
                );
                present.push(index);
            }
            assert_eq!(table.len, present.len());
        }
        assert_eq!(table.take_all().len(), present.len());
    }

    /// Regression: no SYN was repeated for up to a minute after the clock had wrapped.
    #[test]
    fn syns_are_repeated_while_the_clock_wraps() {
        let start = u32::MAX - 2_000;
        let mut table = InFlight::new();
        table.insert(key(0), remote(1), 5, start);
        table.insert(key(1), remote(2), 6, start.wrapping_add(1_500));
        let mut sent = Vec::new();
        for passed in (0..8_000).step_by(100) {
            while let Some(repeat) = table.poll_repeat(start.wrapping_add(passed)) {
                sent.push((passed, repeat.remote.port));
            }
        }
        assert_eq!(sent, [(1_000, 1), (2_500, 2), (3_000, 1), (4_500, 2), (7_000, 1)]);
    }

    #[test]
    fn an_answer_over_ipv6_finds_its_probe_by_the_address_without_the_scope() {
        let remote = |last: u16, scope: u32| {
            let address = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, last);
            Remote { address: Address6 { address, scope }, port: 80, offset: 1 }
        };
        let mut table = InFlight::new();
        table.insert(key(0), remote(1, 3), 5, 0);
        assert!(!table.contains(&remote(2, 3), 5), "the address is another one");
        assert_eq!(table.take(&remote(1, 0), 5), Some(key(0)));
    }

    #[test]
    fn the_next_repeat_is_that_of_the_probe_which_is_due_first() {
        let mut table = InFlight::new();
        assert_eq!(table.repeat_wait(0), None);
        table.insert(key(0), remote(1), 5, 100);
        table.insert(key(1), remote(2), 6, 600);
        assert_eq!(table.repeat_wait(600), Some(500), "1 s after the first SYN");
        assert_eq!(table.poll_repeat(1_100).map(|repeat| repeat.probe), Some(key(0)));
        assert_eq!(table.repeat_wait(1_100), Some(500));
        assert!(table.remove(key(1)));
        assert_eq!(table.repeat_wait(1_100), Some(2_000), "3 s after the first SYN");
    }
}
