//! The table of open sockets, by the keys that the core has assigned to them.

use std::collections::BTreeMap;
use std::num::NonZeroU8;

use crate::slots::Key;

/// A socket, and its readiness as the poller reported it.
#[derive(Debug)]
pub(super) struct Entry<S> {
    pub(super) socket: S,
    generation: u32,
    pub(super) stage: SocketStage,
    pub(super) readable: bool,
    pub(super) writable: bool,
    /// Whether the poller has reported the peer's FIN. The socket is then read until its end.
    pub(super) read_closed: bool,
    /// The number of the tick in which the socket was last written.
    pub(super) written_in: Option<NonZeroU8>,
    /// Whether a call has returned [`crate::kernel::IoStep::Retry`] since the entry was taken.
    pub(super) needs_retry: bool,
    /// Whether the socket is registered with the poller.
    pub(super) is_registered: bool,
    /// The list that contains the key of the socket.
    pub(super) queue: QueuedIn,
}

/// The list that contains the key of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum QueuedIn {
    /// No list: the socket waits for an event of the poller.
    None,
    /// The ready list.
    Ready,
    /// The list of the sockets in backoff.
    Backoff,
}

/// The state of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SocketStage {
    /// A connect is in progress. The poller reports its end.
    Connecting,
    /// A connected stream.
    Stream,
    /// A datagram socket: each read returns one datagram.
    Datagrams,
}

/// The table. It has no entry for a stale key.
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
            is_registered: true,
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

    /// Puts back an entry that [`SocketTable::take`] has returned.
    pub(super) fn put_back(&mut self, key: Key, entry: Entry<S>) {
        self.0.insert(key.index(), entry);
    }
}
