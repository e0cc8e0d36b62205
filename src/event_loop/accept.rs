//! The listeners: clients are taken in, as many as the core wants, until the drain closes them.

use std::net::SocketAddr;
use std::time::Instant;

use socket2::Socket;

use super::Server;
use super::sockets::Stage;
use crate::event::{Event, Shortage};
use crate::limits;
use crate::sys::{self, Accepted};

impl Server {
    /// Phase 6: takes clients in, as many as the core wants.
    pub(super) fn accept(&mut self, now: Instant) {
        if !self.may_accept {
            return;
        }
        let mut budget = limits::ACCEPTS_PER_TURN;
        let (mut all_blocked, mut was_vain) = (true, true);
        for index in 0..self.listeners.len() {
            loop {
                if budget == 0 {
                    // Nobody but clients who had gone: a policy that refuses each (EPERM) would
                    // have the loop spin.
                    if was_vain {
                        self.service.handle(Event::AcceptFailed(Shortage::Unknown), now);
                    }
                    return;
                }
                if !self.service.wants_connections() {
                    // The edge may be an old one, and nobody is shown the door for nobody.
                    if self.listeners.iter().any(sys::has_client) {
                        self.service.handle_knock(now);
                    }
                    return;
                }
                budget -= 1;
                match sys::accept(&self.listeners[index]) {
                    Accepted::Client(socket, peer) => {
                        was_vain = false;
                        self.admit(socket, peer, now);
                    }
                    Accepted::Gone => {}
                    Accepted::Blocked => break,
                    Accepted::Shortage(shortage) => {
                        self.service.handle(Event::AcceptFailed(shortage), now);
                        all_blocked = false;
                        break;
                    }
                }
            }
        }
        self.may_accept = !all_blocked;
    }

    /// Takes in whoever the kernel has accepted already, then closes the listeners: nobody who
    /// got through is turned away.
    pub(super) fn close_listeners(&mut self, now: Instant) {
        // The poller may not have told of the last ones yet.
        self.may_accept = true;
        for _ in 0..self.listeners.len() * limits::ACCEPT_QUEUE_MAX / limits::ACCEPTS_PER_TURN {
            if self.may_accept && self.service.wants_connections() {
                self.accept(now);
            }
        }
        if self.service.keeps_listeners() {
            return;
        }
        self.listeners.clear();
        self.may_accept = false;
    }

    fn admit(&mut self, socket: Socket, peer: Option<SocketAddr>, now: Instant) {
        let key = self.service.handle_accepted(peer, now);
        let is_watched = self.watch(key, &socket);
        self.sockets.insert(key, socket, Stage::Stream);
        if let Some(entry) = self.sockets.entry(key) {
            // Most clients have sent their request by now; the edge would tell a turn later.
            entry.readable = true;
            entry.is_watched = is_watched;
        }
        self.attend(key, now);
    }
}
