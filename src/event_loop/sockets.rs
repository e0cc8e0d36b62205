//! The sockets that are open, by the keys that the core gave them.

use std::num::NonZeroU8;

use socket2::Socket;

use crate::slots::Key;

/// A socket, and what is remembered of its readiness.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) socket: Socket,
    generation: u32,
    pub(super) stage: Stage,
    pub(super) readable: bool,
    pub(super) writable: bool,
    /// The peer's FIN was told: reading goes on until it is read.
    pub(super) read_closed: bool,
    /// The turn in which something was written last.
    pub(super) written_in: Option<NonZeroU8>,
    /// True exactly when a call on it came to [`crate::sys::IoStep::Short`] since it was taken.
    pub(super) is_short: bool,
    /// True exactly when the poller tells of it.
    pub(super) is_watched: bool,
    /// Where its key stands.
    pub(super) queue: Queue,
}

/// The list on which a socket's key stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Queue {
    /// None: the poller tells of it.
    None,
    /// That of the sockets that have work left.
    Ready,
    /// That of the sockets that wait for time to pass.
    Resting,
}

const _: () = assert!(size_of::<Option<Entry>>() <= 16, "a probe stays within its memory budget");

/// How far a socket is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// `connect` is on its way; the poller tells of its end.
    Connecting,
    /// Bytes may flow.
    Stream,
    /// Each read takes one datagram.
    Datagrams,
}

/// The table. A stale key finds nothing.
#[derive(Debug)]
pub(super) struct Sockets(Vec<Option<Entry>>);

impl Sockets {
    /// An empty table with room for `sockets` of them.
    pub(super) fn with_capacity(sockets: usize) -> Self {
        Self(Vec::with_capacity(sockets))
    }

    pub(super) fn insert(&mut self, key: Key, socket: Socket, stage: Stage) {
        if self.0.len() <= key.index() {
            self.0.resize_with(key.index() + 1, || None);
        }
        let slot = &mut self.0[key.index()];
        assert!(slot.is_none(), "the core closes a socket before it reuses its slot");
        *slot = Some(Entry {
            socket,
            generation: key.generation(),
            stage,
            readable: false,
            writable: stage != Stage::Connecting,
            read_closed: false,
            written_in: None,
            is_short: false,
            is_watched: true,
            queue: Queue::None,
        });
    }

    pub(super) fn entry(&mut self, key: Key) -> Option<&mut Entry> {
        let entry = self.0.get_mut(key.index())?.as_mut()?;
        (entry.generation == key.generation()).then_some(entry)
    }

    pub(super) fn take(&mut self, key: Key) -> Option<Entry> {
        self.entry(key)?;
        self.0[key.index()].take()
    }

    /// Puts back what [`Sockets::take`] took.
    pub(super) fn put_back(&mut self, key: Key, entry: Entry) {
        self.0[key.index()] = Some(entry);
    }
}
