//! The backoff of sockets whose last call must be repeated after a short time.
//!
//! A call on such a socket was interrupted, or the kernel had no memory for it. The poller has
//! already reported the readiness and does not report it again, so the loop repeats the call after
//! `SOCKET_BACKOFF`. A client whose socket could not be registered with the poller is served in the
//! same way: its socket is tried at intervals.

use std::time::Instant;

use super::EventLoop;
use super::sockets::QueuedIn;
use crate::kernel::Kernel;
use crate::limits;
use crate::slots::Key;

/// The sockets in backoff. All wait until the same time.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    keys: Vec<Key>,
    ends_at: Option<Instant>,
}

impl Backoff {
    /// Begins a backoff, unless one is in progress.
    pub(super) fn begin(&mut self, now: Instant) {
        self.ends_at.get_or_insert(now + limits::SOCKET_BACKOFF);
    }

    fn push(&mut self, key: Key, now: Instant) {
        self.keys.push(key);
        self.begin(now);
    }

    /// The time at which the backoff ends; `None` if there is none.
    pub(super) const fn ends_at(&self) -> Option<Instant> {
        self.ends_at
    }

    /// Removes and returns the sockets whose backoff has ended.
    fn take_due(&mut self, now: Instant) -> Vec<Key> {
        if self.ends_at.is_none_or(|at| at > now) {
            return Vec::new();
        }
        self.ends_at = None;
        std::mem::take(&mut self.keys)
    }
}

impl<K: Kernel> EventLoop<K> {
    /// Puts a socket into backoff, unless it is on the ready list: it is then served first.
    pub(super) fn back_off(&mut self, key: Key, now: Instant) {
        if let Some(entry) = self.sockets.entry(key)
            && entry.queue == QueuedIn::None
        {
            entry.queue = QueuedIn::Backoff;
            self.backoff.push(key, now);
        }
    }

    /// Moves the sockets whose backoff has ended to the ready list. A socket that is not registered
    /// is treated as readable and writable, because the poller does not report it.
    pub(super) fn end_backoff(&mut self, now: Instant) {
        for key in self.backoff.take_due(now) {
            let Some(entry) = self.sockets.entry(key) else { continue };
            entry.queue = QueuedIn::None;
            if !entry.is_registered {
                entry.readable = true;
                entry.writable = true;
            }
            self.push_ready(key);
        }
    }
}
