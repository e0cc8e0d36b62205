//! Accepts clients, as many as the core permits, and closes the listeners during a shutdown.

use std::net::SocketAddr;
use std::time::Instant;

use super::EventLoop;
use super::sockets::SocketStage;
use crate::event::{Event, Shortage};
use crate::kernel::{Accepted, Kernel};
use crate::limits;

impl<K: Kernel> EventLoop<K> {
    /// Phase 6: accepts clients while the core wants connections, at most `ACCEPTS_PER_TICK`.
    pub(super) fn accept(&mut self, now: Instant) {
        if !self.may_accept {
            return;
        }
        let mut budget = limits::ACCEPTS_PER_TICK;
        self.read_left = limits::READ_BYTES_PER_TICK;
        let (mut all_blocked, mut has_accepted_none) = (true, true);
        for index in 0..self.listeners.len() {
            loop {
                if budget == 0 {
                    // Each call failed for its own connection only. If a local policy refuses all
                    // of them (EPERM), the listeners must pause, or the loop would never wait.
                    if has_accepted_none {
                        self.core.handle(Event::AcceptFailed(Shortage::Unknown), now);
                    }
                    return;
                }
                if !self.core.wants_connections() {
                    // The reported readiness may be out of date, so this checks that a client does
                    // wait, before the core makes room for it.
                    let kernel = &mut self.kernel;
                    if self.listeners.iter().any(|it| kernel.has_client(it)) {
                        self.core.handle_accept_backlog(now);
                    }
                    return;
                }
                budget -= 1;
                match self.kernel.accept(&self.listeners[index]) {
                    Accepted::Client(socket, peer) => {
                        has_accepted_none = false;
                        self.on_client(socket, peer, now);
                    }
                    Accepted::Gone => {}
                    Accepted::WouldBlock => break,
                    // Idle probe sockets were closed to free descriptors: accept again.
                    Accepted::Shortage(_) if self.engines.close_some_idle(&mut self.kernel) => {}
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

    /// Accepts the clients that wait in the queues of the listeners, then closes the listeners, so
    /// that no client whose handshake is complete is reset.
    pub(super) fn close_listeners(&mut self, now: Instant) {
        // The poller may not have reported the last clients yet.
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

    /// Registers an accepted client with the core and the poller, and reads from it.
    fn on_client(&mut self, socket: K::Socket, peer: Option<SocketAddr>, now: Instant) {
        let key = self.core.handle_accepted(peer, now);
        self.contract.begin(key);
        let is_registered = self.register(key, &socket);
        self.sockets.insert(key, socket, SocketStage::Stream);
        if let Some(entry) = self.sockets.entry(key) {
            // Most clients have already sent their request. The poller reports it, but only in the
            // next tick.
            entry.readable = true;
            entry.is_registered = is_registered;
        }
        self.attend(key, now);
    }
}
