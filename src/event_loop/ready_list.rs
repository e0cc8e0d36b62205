//! The ready list: sockets that have more work than one tick permits.
//!
//! Sockets that have not been served since their readiness was reported (new ones) and those that
//! have more work after they were served (old ones) take turns, as in FQ-CoDel (RFC 8290 section
//! 4.2). Therefore a client that sends a request now and then does not wait for all those that send
//! without pause, and these do not wait for ever.

use std::collections::VecDeque;

use crate::slots::Key;

/// See the module's documentation. The caller adds a key only if it is not on the list.
#[derive(Debug, Default)]
pub(super) struct ReadyList {
    new: VecDeque<Key>,
    old: VecDeque<Key>,
    /// Whether the next turn belongs to an old socket.
    is_turn_of_old: bool,
}

impl ReadyList {
    /// Adds a socket that waits for its first turn since its readiness was reported.
    pub(super) fn push_new(&mut self, key: Key) {
        self.new.push_back(key);
    }

    /// Adds a socket that was served and has more work.
    pub(super) fn push_old(&mut self, key: Key) {
        self.old.push_back(key);
    }

    /// Removes and returns the socket whose turn it is.
    pub(super) fn pop(&mut self) -> Option<Key> {
        self.is_turn_of_old = !self.is_turn_of_old && !self.old.is_empty() || self.new.is_empty();
        let list = if self.is_turn_of_old { &mut self.old } else { &mut self.new };
        list.pop_front()
    }

    pub(super) fn len(&self) -> usize {
        self.new.len() + self.old.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_and_old_sockets_take_turns() {
        let key = |index| Key::from_parts(index, 0);
        let mut list = ReadyList::default();
        (0..4).for_each(|index| list.push_old(key(index)));
        assert_eq!(list.pop(), Some(key(0)));
        (10..13).for_each(|index| list.push_new(key(index)));
        assert_eq!(list.len(), 6);
        let popped: Vec<usize> = std::iter::from_fn(|| list.pop()).map(Key::index).collect();
        assert_eq!(popped, [10, 1, 11, 2, 12, 3]);
        assert!(list.is_empty());
        (20..22).for_each(|index| list.push_new(key(index)));
        let popped: Vec<usize> = std::iter::from_fn(|| list.pop()).map(Key::index).collect();
        assert_eq!(popped, [20, 21]);
        assert_eq!(list.pop(), None);
    }
}
