//! One attempt: one query to one server on a socket of its own.
//!
//! A new socket for each attempt means a new source port of the kernel's choice, so that a forger
//! has to guess port and id; it also means that no attempt suffers from what became of an earlier
//! one. It never decides what follows: `dns` asks it for bytes, gives it bytes, and takes the
//! reply.

use crate::dns::lookup::Errand;
use crate::dns::wire::{self, Reply, Subject};
use crate::event::Transport;
use crate::slots::Key;

/// See the room's header.
#[derive(Debug)]
pub(super) struct Attempt {
    /// The lookup it works for.
    pub(super) lookup: Key,
    pub(super) subject: Subject,
    /// The server's place in the lookup's list.
    pub(super) server: usize,
    /// `None` until the owner of the sockets has told its key.
    pub(super) socket: Option<Key>,
    transport: Transport,
    id: u16,
    /// The query, over TCP after its length.
    output: Vec<u8>,
    /// How many bytes of `output` the kernel has taken.
    sent: usize,
    /// What came over TCP so far: a length and not yet as many bytes.
    input: Vec<u8>,
}

impl Attempt {
    /// An attempt at `errand` for `lookup`; the id must not be guessable.
    pub(super) fn new(lookup: Key, errand: Errand, id: u16) -> Self {
        let Errand { subject, server, transport, .. } = errand;
        let query = wire::query(id, &subject);
        let output = match transport {
            Transport::Udp => query,
            // RFC 1035 section 4.2.2: two bytes of length go before the message.
            Transport::Tcp => [&(query.len() as u16).to_be_bytes(), &query[..]].concat(),
        };
        assert!(output.len() <= 2 + 12 + 255 + 4, "a query is one question");
        let (socket, sent, input) = (None, 0, Vec::new());
        Self { lookup, subject, server, socket, transport, id, output, sent, input }
    }

    /// What is still to be written.
    pub(super) fn output(&self) -> &[u8] {
        &self.output[self.sent..]
    }

    /// The kernel took `count` bytes of the output.
    pub(super) fn on_sent(&mut self, count: usize) {
        assert!(count <= self.output().len(), "no more was sent than there was");
        self.sent += count;
    }

    /// Takes what came: a datagram, or a piece of the stream. `None`: wait for more; over UDP that
    /// goes for every datagram that is no reply to this query, since anyone may have sent it.
    /// Nobody but the server writes into our TCP stream, so there it is a failure.
    pub(super) fn on_received(&mut self, bytes: &[u8]) -> Option<Reply> {
        match self.transport {
            Transport::Udp => wire::reply(self.id, &self.subject, bytes).ok(),
            Transport::Tcp => {
                self.input.extend_from_slice(bytes);
                let (length, message) = self.input.split_first_chunk()?;
                let message = message.get(..usize::from(u16::from_be_bytes(*length)))?;
                match wire::reply(self.id, &self.subject, message) {
                    Ok(reply @ Reply::Told { .. }) => Some(reply),
                    Ok(Reply::Truncated | Reply::Failure) | Err(_) => Some(Reply::Failure),
                }
            }
        }
    }
}
