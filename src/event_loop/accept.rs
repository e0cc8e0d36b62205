//! The listeners: accepts clients, as many as the core wants, until the shutdown closes them.

use std::net::SocketAddr;
use std::time::Instant;

use super::EventLoop;
use super::sockets::SocketStage;
use crate::event::{Event, Shortage};
use crate::kernel::{Accepted, Kernel};
use crate::limits;

impl<K: Kernel> EventLoop<K> {
    /// Phase 6: accepts clients, as many as the core wants.
    pub(super) fn accept(&mut self, now: Instant) {
        if !self.may_accept {
            return;
        }
        let mut budget = limits::ACCEPTS_PER_TICK;
        let (mut all_blocked, mut was_vain) = (true, true);
        for index in 0..self.listeners.len() {
            loop {
                if budget == 0 {
                    // Every accept failed for its own connection: a local policy that refuses each
                    // of them (EPERM) would make the loop spin.
                    if was_vain {
                        self.core.handle(Event::AcceptFailed(Shortage::Unknown), now);
                    }
                    return;
                }
                if !self.core.wants_connections() {
                    // The edge may be an old one: no connection is evicted unless a client waits.
                    let kernel = &mut self.kernel;
                    if self.listeners.iter().any(|it| kernel.has_client(it)) {
                        self.core.handle_accept_backlog(now);
                    }
                    return;
                }
                budget -= 1;
                match self.kernel.accept(&self.listeners[index]) {
                    Accepted::Client(socket, peer) => {
                        was_vain = false;
                        self.admit(socket, peer, now);
                    }
                    Accepted::Gone => {}
                    Accepted::WouldBlock => break,
                    // Idle sockets of the engine take the descriptors: they are closed.
                    Accepted::Shortage(_) if self.engines.give_back(&mut self.kernel) => {}
                    Accepted::Shortage(shortage) => {
                        self.core.handle(Event::AcceptFailed(shortage), now);
                        all_blocked = false;
                        break;
                    }
                }
            }
        }
        self.may_accept = !all_blocked;
    }

    /// Accepts the clients that wait in the listeners' queues, then closes the listeners: no client
    /// whose handshake is complete is refused.
    pub(super) fn close_listeners(&mut self, now: Instant) {
        // The poller may not have reported the last ones yet.
        self.may_accept = true;
        for _ in 0..self.listeners.len() * limits::ACCEPT_QUEUE_MAX / limits::ACCEPTS_PER_TICK {
            if self.may_accept && self.core.wants_connections() {
                self.accept(now);
            }
        }
        if self.core.keeps_listeners() {
            return;
        }
        for listener in self.listeners.drain(..) {
            self.kernel.close_listener(listener);
        }
        self.may_accept = false;
    }

    fn admit(&mut self, socket: K::Socket, peer: Option<SocketAddr>, now: Instant) {
        let key = self.core.handle_accepted(peer, now);
        self.contract.begin(key);
        let is_watched = self.watch(key, &socket);
        self.sockets.insert(key, socket, SocketStage::Stream);
        if let Some(entry) = self.sockets.entry(key) {
            // Most clients have sent their request by now; the edge would come a tick later.
            entry.readable = true;
            entry.is_watched = is_watched;
        }
        self.attend(key, now);
    }
}
