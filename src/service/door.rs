//! Who is let in: the listeners' part of the service's implementation.
//!
//! While there is room the shell accepts; at the cap the listeners are not polled at all, unless
//! some client holds its connection without a word: it gives way. After a shortage the door rests.

use std::net::SocketAddr;
use std::time::Instant;

use super::clients::Client;
use super::{Phase, Role, Service};
use crate::limits;
use crate::slots::Key;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Door {
    /// Clients are taken in while there is room.
    Open,
    /// `accept` ran short: nobody is asked in before this instant, or before a descriptor closes.
    Parked { until: Instant },
}

/// Idle connections closed in one turn to make room: no more than descriptors are kept spare.
pub(super) const EVICTIONS_PER_TURN: usize = limits::DESCRIPTORS_SPARE / 2;

impl Service {
    /// Takes a client in, as [`Service::wants_connections`] allowed, and names its socket.
    pub fn handle_accepted(&mut self, peer: Option<SocketAddr>, now: Instant) -> Key {
        if self.clients_len >= self.options.shares.connections {
            self.evict(now);
        }
        self.clients_len += 1;
        self.counters.count_accepted();
        let key = self.sockets.insert(Role::Client(Box::new(Client::new(now, peer))));
        self.serve(now, key);
        key
    }

    /// True exactly when another client may be taken in.
    pub fn wants_connections(&self) -> bool {
        let is_open = match self.phase {
            // While it drains the shell has listeners only until it has emptied their queues.
            Phase::Serving | Phase::Notice { .. } | Phase::Draining { .. } => true,
            Phase::Ended => false,
        };
        let has_room = self.clients_len < self.options.shares.connections
            || self.evictions_left > 0 && self.evictable().is_some();
        is_open && self.door == Door::Open && has_room
    }

    /// The client that has been silent longest, of those to whom nothing is owed.
    fn evictable(&self) -> Option<Key> {
        let idle = self.sockets.iter().filter_map(|(key, role)| match role {
            Role::Client(client) => client.quiet_since().map(|at| (at, key)),
            Role::Probe { .. } | Role::Lookup { .. } | Role::Reserved | Role::Closing => None,
        });
        idle.min().map(|(_, key)| key)
    }

    /// Makes room for a client: who holds a connection and says nothing gives way.
    fn evict(&mut self, now: Instant) {
        self.evictions_left = self.evictions_left.saturating_sub(1);
        if let Some(key) = self.evictable() {
            self.drop_client(now, key, "evicted");
        }
    }
}
