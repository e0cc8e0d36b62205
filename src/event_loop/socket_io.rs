//! Reads from and writes to the sockets of clients and DNS queries.
//!
//! In one tick, a socket is written at most once, and read at most once: for an event, or for its
//! turn on the ready list. `READ_BYTES_PER_TICK` limits what is read for events, and again for
//! turns. Beyond it, a few bytes are still read for each event, so that a client with a usual
//! request does not wait for those with many or long ones. A socket with more work is put on the
//! ready list or into backoff.

use std::time::Instant;

use super::EventLoop;
use super::sockets::{Entry, QueuedIn, SocketStage};
use crate::event::Event;
use crate::kernel::{IoStep, Kernel};
use crate::limits;
use crate::slots::Key;

impl<K: Kernel> EventLoop<K> {
    /// Puts a socket on the ready list, unless it is there or in backoff.
    pub(super) fn push_ready(&mut self, key: Key) {
        if let Some(entry) = self.sockets.entry(key).filter(|entry| entry.queue == QueuedIn::None) {
            entry.queue = QueuedIn::Ready;
            self.ready.push_back(key);
        }
    }

    /// Serves a socket whose readiness was reported, or whose turn on the ready list has come.
    pub(super) fn serve(&mut self, key: Key, now: Instant) {
        self.attend(key, now);
        if self.sockets.entry(key).is_some_and(|entry| entry.read_closed && entry.readable) {
            // Bytes that the core does not accept yet may wait before the FIN, so the FIN is
            // reported by an event of its own.
            self.core.handle(Event::Hangup { socket: key }, now);
        }
    }

    /// Writes the output of the core to a socket, then reads from it, at most once each. This must
    /// not be called for a socket whose connect is in progress.
    pub(super) fn attend(&mut self, key: Key, now: Instant) {
        let Some(mut entry) = self.sockets.take(key) else { return };
        if !entry.is_registered {
            entry.is_registered = self.register(key, &entry.socket);
        }
        self.write_output(key, &mut entry, now);
        if entry.readable && self.core.bytes_wanted(key) > 0 {
            self.read_input(key, &mut entry, now);
        }
        self.restore(key, entry, now);
    }

    /// Writes the output of the core to a socket. Reading is left to the next tick: otherwise the
    /// flush would not end while a client sends as fast as the loop reads.
    pub(super) fn flush(&mut self, key: Key, now: Instant) {
        let Some(mut entry) = self.sockets.take(key) else { return };
        self.write_output(key, &mut entry, now);
        self.restore(key, entry, now);
    }

    /// Puts a socket back into the table, and puts it into backoff or on the ready list if it has
    /// more work.
    fn restore(&mut self, key: Key, mut entry: Entry<K::Socket>, now: Instant) {
        let needs_backoff = std::mem::take(&mut entry.needs_retry) || !entry.is_registered;
        let wants_more = entry.readable && self.core.bytes_wanted(key) > 0
            || entry.writable && !self.core.output(key).is_empty();
        self.sockets.put_back(key, entry);
        if needs_backoff {
            self.back_off(key, now);
        } else if wants_more {
            self.push_ready(key);
        }
    }

    /// Writes once, unless this socket was already written in this tick.
    fn write_output(&mut self, key: Key, entry: &mut Entry<K::Socket>, now: Instant) {
        let output = self.core.output(key);
        if !entry.writable || entry.written_in == Some(self.tick_number) || output.is_empty() {
            return;
        }
        entry.written_in = Some(self.tick_number);
        match self.kernel.write(&entry.socket, output) {
            IoStep::Done(count) => self.core.handle(Event::Sent { socket: key, count }, now),
            IoStep::WouldBlock => entry.writable = false,
            IoStep::Retry => entry.needs_retry = true,
            IoStep::Eof | IoStep::Broken => {
                entry.writable = false;
                entry.readable = false;
                self.core.handle(Event::Broken { socket: key }, now);
            }
        }
    }

    /// Reads once, at most as many bytes as the core accepts.
    fn read_input(&mut self, key: Key, entry: &mut Entry<K::Socket>, now: Instant) {
        // A datagram cannot be read in parts.
        let is_limited = self.read_left == 0 && entry.stage != SocketStage::Datagrams;
        let read_max = if is_limited { limits::READ_BYTES_BEYOND } else { self.buffer.len() };
        let wanted = self.core.bytes_wanted(key).min(read_max);
        match self.kernel.read(&entry.socket, &mut self.buffer[..wanted]) {
            IoStep::Done(count) => {
                self.read_left = self.read_left.saturating_sub(count);
                // A read that returned fewer bytes than requested has emptied the stream
                // (epoll(7)); only a FIN may follow. A read of a datagram socket returns one
                // datagram, and others may wait.
                entry.readable = match entry.stage {
                    SocketStage::Datagrams => true,
                    SocketStage::Stream | SocketStage::Connecting => {
                        count == wanted || entry.read_closed
                    }
                };
                let bytes = &self.buffer[..count];
                self.core.handle(Event::Received { socket: key, bytes }, now);
            }
            // An empty datagram, which any machine may have sent, is not the end.
            IoStep::Eof if entry.stage == SocketStage::Datagrams => {}
            IoStep::Eof => {
                entry.readable = false;
                self.core.handle(Event::ReadClosed { socket: key }, now);
            }
            IoStep::WouldBlock => entry.readable = false,
            IoStep::Retry => entry.needs_retry = true,
            IoStep::Broken => {
                entry.readable = false;
                entry.writable = false;
                self.core.handle(Event::Broken { socket: key }, now);
            }
        }
    }
}
