//! The sockets that are open, by the keys that the core gave them.

use std::collections::BTreeMap;
use std::num::NonZeroU8;

use crate::slots::Key;

/// A socket, and what is remembered of its readiness.
#[derive(Debug)]
pub(super) struct Entry<S> {
    pub(super) socket: S,
    generation: u32,
    pub(super) stage: SocketStage,
    pub(super) readable: bool,
    pub(super) writable: bool,
    /// The peer's FIN was reported: reading goes on until it is read.
    pub(super) read_closed: bool,
    /// The tick in which something was written last.
    pub(super) written_in: Option<NonZeroU8>,
    /// Whether a call on it came to [`crate::kernel::IoStep::Retry`] since it was taken.
    pub(super) needs_retry: bool,
    /// Whether it is registered with the poller.
    pub(super) is_watched: bool,
    /// The list on which its key is.
    pub(super) queue: QueuedIn,
}

/// The list on which a socket's key is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum QueuedIn {
    /// None: the poller reports it.
    None,
    /// That of the sockets that have work left.
    Ready,
    /// That of the sockets that wait for time to pass.
    Backoff,
}

/// How far a socket is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SocketStage {
    /// `connect` is under way; the poller reports its end.
    Connecting,
    /// Bytes may flow.
    Stream,
    /// Each read takes one datagram.
    Datagrams,
}

/// The table. A stale key finds nothing.
#[derive(Debug)]
pub(super) struct SocketTable<S>(BTreeMap<usize, Entry<S>>);

impl<S> SocketTable<S> {
    pub(super) const fn new() -> Self {
        Self(BTreeMap::new())
    }

    pub(super) fn insert(&mut self, key: Key, socket: S, stage: SocketStage) {
        let entry = Entry {
            socket,
            generation: key.generation(),
            stage,
            readable: false,
            writable: stage != SocketStage::Connecting,
            read_closed: false,
            written_in: None,
            needs_retry: false,
            is_watched: true,
            queue: QueuedIn::None,
        };
        let before = self.0.insert(key.index(), entry);
        assert!(before.is_none(), "the core closes a socket before it reuses its slot");
    }

    pub(super) fn entry(&mut self, key: Key) -> Option<&mut Entry<S>> {
        let entry = self.0.get_mut(&key.index())?;
        (entry.generation == key.generation()).then_some(entry)
    }

    pub(super) fn take(&mut self, key: Key) -> Option<Entry<S>> {
        self.entry(key)?;
        self.0.remove(&key.index())
    }

    /// Puts back what [`SocketTable::take`] took.
    pub(super) fn put_back(&mut self, key: Key, entry: Entry<S>) {
        self.0.insert(key.index(), entry);
    }
}
