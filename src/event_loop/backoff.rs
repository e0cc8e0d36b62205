//! Sockets that wait for time to pass: their call was interrupted or found no memory, and the
//! poller, which has reported their readiness, will not report it again.
//!
//! A client whose socket could not be registered with the poller is served all the same: its socket
//! is tried at intervals.

use std::time::Instant;

use super::EventLoop;
use super::sockets::QueuedIn;
use crate::kernel::Kernel;
use crate::limits;
use crate::slots::Key;

/// Sockets that back off, all until the same instant.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    keys: Vec<Key>,
    ends_at: Option<Instant>,
}

impl Backoff {
    /// Begins a backoff, unless one is under way.
    pub(super) fn begin(&mut self, now: Instant) {
        self.ends_at.get_or_insert(now + limits::SOCKET_BACKOFF);
    }

    fn push(&mut self, key: Key, now: Instant) {
        self.keys.push(key);
        self.begin(now);
    }

    /// When the loop must run again.
    pub(super) const fn ends_at(&self) -> Option<Instant> {
        self.ends_at
    }

    /// Takes the sockets whose backoff is over.
    fn take_due(&mut self, now: Instant) -> Vec<Key> {
        if self.ends_at.is_none_or(|at| at > now) {
            return Vec::new();
        }
        self.ends_at = None;
        std::mem::take(&mut self.keys)
    }
}

impl<K: Kernel> EventLoop<K> {
    /// Has a socket back off; one that is on the ready list is served first.
    pub(super) fn back_off(&mut self, key: Key, now: Instant) {
        if let Some(entry) = self.sockets.entry(key)
            && entry.queue == QueuedIn::None
        {
            entry.queue = QueuedIn::Backoff;
            self.backoff.push(key, now);
        }
    }

    /// Puts the sockets whose backoff is over on the ready list.
    pub(super) fn wake(&mut self, now: Instant) {
        for key in self.backoff.take_due(now) {
            let Some(entry) = self.sockets.entry(key) else { continue };
            entry.queue = QueuedIn::None;
            if !entry.is_watched {
                entry.readable = true;
                entry.writable = true;
            }
            self.list(key);
        }
    }
}
