//! The sockets: the only table of their keys, and the queue of actions for the event loop.
//!
//! A key is assigned before a descriptor exists (for a client right after it), and every event and
//! action contains it. An event may arrive for a key whose closing is already decided, or that is
//! free again: such an event is stale (`stale`), is counted, and has no effect. This module also
//! owns the backoff of `accept`, because each freed descriptor ends it. `core` drives it, and only
//! `core` has keys assigned and freed. It does not know what the components do with their sockets.
//!
//! Invariants: a key is closing from the decision until the event loop gets the action, and is then
//! free; `descriptors` is the number of keys that stand for a descriptor and are not closing.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Instant;

use super::accept::Accept;
use super::running::{ProbeLaunch, ProbeRef};
use super::stale::StaleEvent;
use crate::event::{Action, Outcome, Transport};
use crate::slots::{Key, Slots};

/// The owner or the state of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// The close is queued for the event loop. Passing it on frees the key.
    Closing,
    /// The connection of this client.
    Client(Key),
    /// A probe.
    Probe(ProbeRef),
    /// The socket of this attempt of the resolver.
    Lookup(Key),
}

impl Role {
    /// Whether the key stands for a descriptor.
    fn has_descriptor(self) -> bool {
        match self {
            Self::Client(_) | Self::Lookup(_) => true,
            Self::Probe(probe) => probe.scan.technique.properties().has_descriptor,
            Self::Closing => false,
        }
    }
}

const _: () = assert!(size_of::<Role>() <= 16, "a probe stays within its memory budget");

/// The owner of a socket that carries a stream or datagrams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StreamOwner {
    /// This client.
    Client(Key),
    /// This attempt of the resolver.
    Lookup(Key),
}

/// An event on a socket that carries a stream or datagrams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StreamEvent<'a> {
    /// The outcome of a connect on a socket that this process opened.
    Connect(Outcome),
    /// Bytes arrived.
    Received(&'a [u8]),
    /// The peer has closed its side.
    ReadClosed,
    /// The peer's FIN has arrived, after bytes that are not read yet.
    Hangup,
    /// The kernel accepted this number of bytes.
    Sent(usize),
    /// Nothing can be read or written any more.
    Broken,
}

impl StreamEvent<'_> {
    /// The kind under which the event is counted if its socket has ended.
    pub(super) const fn stale_kind(self) -> StaleEvent {
        match self {
            Self::Connect(_) => StaleEvent::Connect,
            Self::Received(_) => StaleEvent::Received,
            Self::ReadClosed => StaleEvent::ReadClosed,
            Self::Hangup => StaleEvent::Hangup,
            Self::Sent(_) => StaleEvent::Sent,
            Self::Broken => StaleEvent::Broken,
        }
    }
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Sockets {
    roles: Slots<Role>,
    descriptors: usize,
    accept: Accept,
    actions: VecDeque<Action>,
}

impl Sockets {
    /// An empty table with space for `capacity` keys.
    pub(super) fn new(capacity: usize) -> Self {
        let (roles, accept) = (Slots::with_capacity(capacity), Accept::new());
        Self { roles, descriptors: 0, accept, actions: VecDeque::new() }
    }

    /// Queues an action that neither assigns nor frees a key.
    pub(super) fn push(&mut self, action: Action) {
        self.actions.push_back(action);
    }

    /// A connection was accepted. `socket` is the [`Sockets::next_key`].
    pub(super) fn insert_client(&mut self, socket: Key, client: Key) {
        let key = self.insert(Role::Client(client));
        assert_eq!(key, socket, "the key is the result of `next_key`");
    }

    /// Requests a socket for an attempt of the resolver, opened and connected.
    pub(super) fn connect(&mut self, attempt: Key, to: SocketAddr, transport: Transport) -> Key {
        let socket = self.insert(Role::Lookup(attempt));
        self.push(Action::Connect { socket, to, transport });
        socket
    }

    /// Registers a probe that starts. Its key is the [`Sockets::next_key`].
    pub(super) fn launch(&mut self, launch: ProbeLaunch) -> Action {
        let ProbeLaunch { key, probe, to, check } = launch;
        let inserted = self.insert(Role::Probe(probe));
        assert_eq!(inserted, key, "the key is the result of `next_key`");
        Action::Probe { probe: key, to, check, technique: probe.scan.technique }
    }

    /// Requests the closing of a socket. From now on its key is stale. It becomes free when the
    /// event loop gets the action.
    pub(super) fn close(&mut self, socket: Key) {
        self.expire(socket);
        self.push(Action::Close { socket });
    }

    /// Requests that a probe is given up. Its key is handled as in `close`.
    pub(super) fn forget(&mut self, probe: Key) {
        self.expire(probe);
        self.push(Action::Forget { probe });
    }

    /// `accept` failed because of a shortage. Returns the time of the next try.
    pub(super) fn handle_accept_failed(&mut self, now: Instant) -> Instant {
        self.accept.handle_shortage(now)
    }

    /// A tick begins.
    pub(super) fn handle_tick(&mut self, now: Instant) {
        self.accept.handle_tick(now);
    }

    /// The next queued action. If it closes a key, the key is free afterwards.
    pub(super) fn poll_action(&mut self) -> Option<Action> {
        let action = self.actions.pop_front()?;
        if let Action::Close { socket: key } | Action::Forget { probe: key } = action {
            let role = self.roles.remove(key);
            assert_eq!(role, Some(Role::Closing), "a key is freed once, after its close");
        }
        if let Action::Close { .. } = action {
            self.accept.handle_descriptor_freed();
        }
        Some(action)
    }

    /// The outcome of a probe has arrived, and its key is free. Returns `None` for a probe that was
    /// given up.
    pub(super) fn take_probe(&mut self, key: Key) -> Option<ProbeRef> {
        match self.roles.get(key) {
            Some(role @ Role::Probe(probe)) => {
                let (role, probe) = (*role, *probe);
                self.roles.remove(key);
                self.release(role);
                Some(probe)
            }
            Some(Role::Closing) | None => None,
            Some(Role::Client(_) | Role::Lookup(_)) => {
                unreachable!("this is not the key of a probe")
            }
        }
    }

    fn expire(&mut self, key: Key) {
        let role = self.roles.get_mut(key).map(|role| std::mem::replace(role, Role::Closing));
        match role {
            Some(Role::Closing) | None => unreachable!("a close is decided once"),
            Some(role) => self.release(role),
        }
    }

    fn insert(&mut self, role: Role) -> Key {
        self.descriptors += usize::from(role.has_descriptor());
        self.roles.insert(role)
    }

    /// The key has no role any more. The socket of a connect becomes idle, and the event loop
    /// closes idle sockets when `accept` needs their descriptors.
    fn release(&mut self, role: Role) {
        if role.has_descriptor() {
            self.descriptors -= 1;
            self.accept.handle_descriptor_freed();
        }
    }

    /// Whether connections may be accepted.
    pub(super) const fn accepts(&self) -> bool {
        self.accept.is_open()
    }

    /// The time of the next try of `accept`; `None` outside of a backoff.
    pub(super) const fn deadline(&self) -> Option<Instant> {
        self.accept.deadline()
    }

    /// The owner of the socket's stream; `None` once its closing is decided.
    pub(super) fn stream_owner(&self, key: Key) -> Option<StreamOwner> {
        match self.roles.get(key) {
            Some(Role::Client(client)) => Some(StreamOwner::Client(*client)),
            Some(Role::Lookup(attempt)) => Some(StreamOwner::Lookup(*attempt)),
            Some(Role::Closing) | None => None,
            Some(Role::Probe(_)) => unreachable!("a probe carries no bytes"),
        }
    }

    /// The key that is assigned next.
    pub(super) const fn next_key(&self) -> Key {
        self.roles.next_key()
    }

    /// The number of descriptors of clients, lookups and connects.
    pub(super) const fn descriptors(&self) -> usize {
        self.descriptors
    }

    /// The number of keys in use.
    pub(super) const fn len(&self) -> usize {
        self.roles.len()
    }
}

#[cfg(test)]
mod tests {
    use super::super::running::ScanRef;
    use super::*;
    use crate::technique::Technique;

    #[test]
    fn a_key_is_stale_once_its_close_is_decided_and_free_after_the_close() {
        let mut sockets = Sockets::new(2);
        let client = Key::from_parts(7, 0);
        let expected = sockets.next_key();
        let key = expected;
        sockets.insert_client(key, client);
        assert_eq!(sockets.stream_owner(key), Some(StreamOwner::Client(client)));
        sockets.close(key);
        assert_eq!((sockets.stream_owner(key), sockets.len()), (None, 1));
        assert_eq!(sockets.poll_action(), Some(Action::Close { socket: key }));
        assert_eq!((sockets.stream_owner(key), sockets.len()), (None, 0));
        let other = sockets.connect(client, ([127, 0, 0, 1], 53).into(), Transport::Udp);
        assert_eq!(other.index(), key.index(), "the slot is used again");
        assert_eq!(sockets.stream_owner(key), None, "a stale key identifies no later socket");
    }

    #[test]
    fn the_outcome_of_a_probe_is_taken_once_and_not_after_it_was_given_up() {
        let mut sockets = Sockets::new(2);
        let mut slots = Slots::new();
        let mut scan = scan();
        let key = sockets.next_key();
        let launch = scan.poll_launch(std::time::Instant::now(), key).expect("one port");
        let scan_key = slots.insert(());
        for technique in Technique::ALL {
            let scan = ScanRef { technique, key: scan_key };
            let probe = ProbeRef { scan, probe: launch.probe };
            let (to, check) = (launch.to, launch.check);
            let key = sockets.next_key();
            sockets.launch(ProbeLaunch { key, probe, to, check });
            let descriptors = usize::from(technique.properties().has_descriptor);
            assert_eq!(sockets.descriptors(), descriptors, "{technique:?}");
            assert_eq!(sockets.take_probe(key), Some(probe));
            assert_eq!((sockets.take_probe(key), sockets.descriptors()), (None, 0));
            let key = sockets.next_key();
            sockets.launch(ProbeLaunch { key, probe, to, check });
            sockets.forget(key);
            assert_eq!((sockets.take_probe(key), sockets.descriptors()), (None, 0));
            assert_eq!(sockets.poll_action(), Some(Action::Forget { probe: key }));
        }
    }

    #[test]
    fn only_a_freed_descriptor_ends_the_backoff_of_accept() {
        let now = std::time::Instant::now();
        let launch = scan().poll_launch(now, Key::from_parts(0, 0)).expect("one port");
        for technique in Technique::ALL {
            let mut sockets = Sockets::new(2);
            let scan = ScanRef { technique, key: Key::from_parts(0, 0) };
            let probe = ProbeRef { scan, probe: launch.probe };
            let key = sockets.next_key();
            sockets.launch(ProbeLaunch { key, probe, to: launch.to, check: launch.check });
            sockets.handle_accept_failed(now);
            assert_eq!(sockets.take_probe(key), Some(probe));
            let has_descriptor = technique.properties().has_descriptor;
            assert_eq!(sockets.accepts(), has_descriptor, "{technique:?}");
        }
    }

    fn scan() -> crate::scan::Scan {
        crate::core::fixtures::scan_of_one_port()
    }
}
