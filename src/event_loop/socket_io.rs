//! Reading and writing: what one socket gets of a tick.
//!
//! Each socket is read once and written once in a tick, so that a client that never stops asking is
//! served a piece at a time; a socket with work left goes on the ready list, or backs off.

use std::time::Instant;

use super::EventLoop;
use super::sockets::{Entry, QueuedIn, SocketStage};
use crate::event::Event;
use crate::kernel::{IoStep, Kernel};
use crate::slots::Key;

impl<K: Kernel> EventLoop<K> {
    /// Puts a socket on the ready list, once.
    pub(super) fn list(&mut self, key: Key) {
        if let Some(entry) = self.sockets.entry(key)
            && entry.queue == QueuedIn::None
        {
            entry.queue = QueuedIn::Ready;
            self.ready.push_back(key);
        }
    }

    /// Writes what the core wants, then reads, each once. Of a connect under way neither is
    /// permitted.
    pub(super) fn attend(&mut self, key: Key, now: Instant) {
        let Some(mut entry) = self.sockets.take(key) else { return };
        if !entry.is_watched {
            entry.is_watched = self.watch(key, &entry.socket);
        }
        self.write_output(key, &mut entry, now);
        if entry.readable && self.core.bytes_wanted(key) > 0 {
            self.read_input(key, &mut entry, now);
        }
        self.restore(key, entry, now);
    }

    /// Writes what the core wants. What it would read waits for the next tick, or a client that
    /// sends as fast as we read would never let a drain end.
    pub(super) fn flush(&mut self, key: Key, now: Instant) {
        let Some(mut entry) = self.sockets.take(key) else { return };
        self.write_output(key, &mut entry, now);
        self.restore(key, entry, now);
    }

    /// Puts a socket back into the table, and on the list that it belongs to.
    fn restore(&mut self, key: Key, mut entry: Entry<K::Socket>, now: Instant) {
        let needs_backoff = std::mem::take(&mut entry.needs_retry) || !entry.is_watched;
        let wants_more = entry.readable && self.core.bytes_wanted(key) > 0
            || entry.writable && !self.core.output(key).is_empty();
        self.sockets.put_back(key, entry);
        if needs_backoff {
            self.back_off(key, now);
        } else if wants_more {
            self.list(key);
        }
    }

    /// Writes once in a tick, so that a client that asks without end is served a piece at a time.
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

    fn read_input(&mut self, key: Key, entry: &mut Entry<K::Socket>, now: Instant) {
        let wanted = self.core.bytes_wanted(key).min(self.buffer.len());
        match self.kernel.read(&entry.socket, &mut self.buffer[..wanted]) {
            IoStep::Done(count) => {
                // A short read emptied a stream (epoll(7)); only a FIN may still stand there. Of
                // datagrams each read takes one, and others may wait behind it.
                entry.readable = match entry.stage {
                    SocketStage::Datagrams => true,
                    SocketStage::Stream | SocketStage::Connecting => {
                        count == wanted || entry.read_closed
                    }
                };
                let bytes = &self.buffer[..count];
                self.core.handle(Event::Received { socket: key, bytes }, now);
            }
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
