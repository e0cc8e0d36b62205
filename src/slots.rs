//! Generational slots: a table whose keys never identify a later occupant of a slot.
//!
//! A [`Key`] is an index and a generation. Removing an entry increments the generation of its slot,
//! so a key that was kept elsewhere (for example in an event already queued by the kernel) finds no
//! entry instead of the next occupant. It is used by every module whose entries other modules refer
//! to.
//!
//! Invariants: `len` is the number of taken slots; a free slot is on the free list exactly once.

/// Identifies one occupant of one [`Slots`] permanently: a reused slot has another generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    index: u32,
    generation: u32,
}

const _: () = assert!(size_of::<usize>() == 8, "a token of the poller has 64 bits");

impl Key {
    /// A key from the two halves that [`Key::index`] and [`Key::generation`] return.
    pub const fn from_parts(index: u32, generation: u32) -> Self {
        Self { index, generation }
    }

    /// The key as the poller's 64-bit token: generation above, index below.
    pub const fn into_token(self) -> usize {
        (self.generation as usize) << 32 | self.index as usize
    }

    /// The inverse of [`Key::into_token`].
    pub const fn from_token(token: usize) -> Self {
        Self { index: token as u32, generation: (token >> 32) as u32 }
    }

    /// The index of the slot in the table, from 0 up to the capacity.
    pub const fn index(self) -> usize {
        self.index as usize
    }

    /// The number of times that the slot was emptied before this occupant was inserted.
    pub const fn generation(self) -> u32 {
        self.generation
    }
}

#[derive(Debug)]
enum Slot<T> {
    /// An empty slot with the index of the next empty slot, or [`NO_SLOT`].
    Free {
        next: u32,
    },
    Taken(T),
}

const NO_SLOT: u32 = u32::MAX;

/// A table of `T` that reuses its slots, the most recently emptied one first.
#[derive(Debug)]
pub struct Slots<T> {
    slots: Vec<(u32, Slot<T>)>,
    free: u32,
    len: usize,
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Slots<T> {
    /// An empty table; it allocates on the first insertion.
    pub const fn new() -> Self {
        Self { slots: Vec::new(), free: NO_SLOT, len: 0 }
    }

    /// An empty table with space for `capacity` entries. Unused space takes no physical memory,
    /// while a table that grows would leave its former allocations behind.
    pub fn with_capacity(capacity: usize) -> Self {
        Self { slots: Vec::with_capacity(capacity), ..Self::new() }
    }

    /// Inserts `value` into a free slot. The table grows if there is none.
    pub fn insert(&mut self, value: T) -> Key {
        self.len += 1;
        if self.free == NO_SLOT {
            let index = self.slots.len() as u32;
            assert!(index < NO_SLOT, "a slot table holds fewer than 2^32 entries");
            self.slots.push((0, Slot::Taken(value)));
            return Key { index, generation: 0 };
        }
        let index = self.free;
        let (generation, slot) = &mut self.slots[index as usize];
        match slot {
            Slot::Free { next } => self.free = *next,
            Slot::Taken(_) => unreachable!("a slot on the free list is taken"),
        }
        *slot = Slot::Taken(value);
        Key { index, generation: *generation }
    }

    /// The key that [`Slots::insert`] will return next.
    pub const fn next_key(&self) -> Key {
        if self.free == NO_SLOT {
            return Key { index: self.slots.len() as u32, generation: 0 };
        }
        let generation = self.slots.as_slice()[self.free as usize].0;
        Key { index: self.free, generation }
    }

    /// Removes the occupant; `None` if `key` is stale.
    pub fn remove(&mut self, key: Key) -> Option<T> {
        self.get(key)?;
        let (generation, slot) = &mut self.slots[key.index()];
        *generation = generation.wrapping_add(1);
        let freed = std::mem::replace(slot, Slot::Free { next: self.free });
        self.free = key.index;
        self.len -= 1;
        match freed {
            Slot::Taken(value) => Some(value),
            Slot::Free { .. } => unreachable!("`get` found an occupant"),
        }
    }

    /// The occupant, or `None` if `key` is stale.
    pub fn get(&self, key: Key) -> Option<&T> {
        match self.slots.get(key.index()) {
            Some((generation, Slot::Taken(value))) if *generation == key.generation => Some(value),
            Some(_) | None => None,
        }
    }

    /// The occupant for modification; `None` if `key` is stale.
    pub fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        match self.slots.get_mut(key.index()) {
            Some((generation, Slot::Taken(value))) if *generation == key.generation => Some(value),
            Some(_) | None => None,
        }
    }

    /// All occupants with their keys, in the order of the table.
    pub fn iter(&self) -> impl Iterator<Item = (Key, &T)> {
        self.slots.iter().enumerate().filter_map(|(index, (generation, slot))| match slot {
            Slot::Taken(value) => {
                Some((Key { index: index as u32, generation: *generation }, value))
            }
            Slot::Free { .. } => None,
        })
    }

    /// The number of taken slots.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether no slot is taken.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_key_finds_no_entry_after_its_slot_was_reused() {
        let mut slots = Slots::new();
        let first = slots.insert("first");
        assert_eq!(slots.remove(first), Some("first"));
        let second = slots.insert("second");
        assert_eq!(second.index(), first.index(), "the slot is reused");
        assert_eq!((first.generation(), second.generation()), (0, 1), "the slot was emptied once");
        assert_eq!(slots.get(first), None);
        assert_eq!(slots.get_mut(first), None);
        assert_eq!(slots.remove(first), None);
        assert_eq!(slots.get(second), Some(&"second"));
        assert_eq!(slots.len(), 1);
    }

    #[test]
    fn a_key_is_unchanged_by_the_conversion_to_a_token_and_back() {
        for key in
            [Key::from_parts(0, 0), Key::from_parts(7, 3), Key::from_parts(u32::MAX - 1, u32::MAX)]
        {
            assert_eq!(Key::from_token(key.into_token()), key);
        }
    }

    #[test]
    fn slots_are_reused_before_the_table_grows() {
        let mut slots = Slots::new();
        let keys: Vec<Key> = (0..100).map(|n| slots.insert(n)).collect();
        for key in keys.iter().step_by(2) {
            slots.remove(*key);
        }
        for n in 0..50 {
            let expected = slots.next_key();
            let key = slots.insert(n);
            assert_eq!(key, expected, "`next_key` returned another key");
            assert!(key.index() < 100);
        }
        assert_eq!(slots.next_key(), Key::from_parts(100, 0));
        assert_eq!(slots.insert(0).index(), 100);
        assert_eq!(slots.iter().count(), slots.len());
    }
}
