//! What waits for nothing but time: its call was broken off or found no memory, and the poller,
//! which told of readiness once, will not tell of it again.
//!
//! A client whose socket finds no room on the poller is served all the same, a look now and then.

use std::time::Instant;

use super::Server;
use super::sockets::Queue;
use crate::limits;
use crate::slots::Key;

/// Sockets that rest, all until the same instant.
#[derive(Debug, Default)]
pub(super) struct Resting {
    keys: Vec<Key>,
    ends_at: Option<Instant>,
}

impl Resting {
    /// Begins a rest, unless one is under way.
    pub(super) fn begin(&mut self, now: Instant) {
        self.ends_at.get_or_insert(now + limits::SOCKET_REST);
    }

    fn push(&mut self, key: Key, now: Instant) {
        self.keys.push(key);
        self.begin(now);
    }

    /// When the loop must turn again.
    pub(super) const fn ends_at(&self) -> Option<Instant> {
        self.ends_at
    }

    /// Those whose rest is over.
    fn take_due(&mut self, now: Instant) -> Vec<Key> {
        if self.ends_at.is_none_or(|at| at > now) {
            return Vec::new();
        }
        self.ends_at = None;
        std::mem::take(&mut self.keys)
    }
}

impl Server {
    /// Puts a socket on the list of those that rest; one that is ready has its turn first.
    pub(super) fn rest(&mut self, key: Key, now: Instant) {
        if let Some(entry) = self.sockets.entry(key)
            && entry.queue == Queue::None
        {
            entry.queue = Queue::Resting;
            self.resting.push(key, now);
        }
    }

    /// Puts those whose rest is over on the ready list.
    pub(super) fn wake(&mut self, now: Instant) {
        for key in self.resting.take_due(now) {
            let Some(entry) = self.sockets.entry(key) else { continue };
            entry.queue = Queue::None;
            if !entry.is_watched {
                entry.readable = true;
                entry.writable = true;
            }
            self.list(key);
        }
    }
}
