//! One attempt: one query to one server on a socket of its own.
//!
//! A new socket for each attempt has a new source port that the kernel chooses, so that a forger
//! must guess both the port and the id. A new socket also means that the state of an earlier
//! attempt cannot disturb a later one. An attempt never decides what happens next: `dns` takes
//! bytes from it, passes bytes to it, and reads the reply.

use crate::dns::lookup::NextQuery;
use crate::dns::wire::{self, Question, Reply};
use crate::event::Transport;
use crate::slots::Key;

/// See the header of the module.
#[derive(Debug)]
pub(super) struct Attempt {
    /// The lookup to which the attempt belongs.
    pub(super) lookup: Key,
    pub(super) question: Question,
    /// The position of the server in the lookup's list.
    pub(super) server: usize,
    /// The key of the socket; `None` until the caller has passed it.
    pub(super) socket: Option<Key>,
    transport: Transport,
    id: u16,
    /// The query; over TCP its length precedes it.
    output: Vec<u8>,
    /// The number of bytes of `output` that the kernel has accepted.
    sent: usize,
    /// The bytes received over TCP so far: an incomplete length, or a length and an incomplete
    /// message.
    input: Vec<u8>,
}

impl Attempt {
    /// An attempt for `lookup` to send `next_query`. The id must not be predictable.
    pub(super) fn new(lookup: Key, next_query: NextQuery, id: u16) -> Self {
        let NextQuery { question, server, transport, .. } = next_query;
        let query = wire::query(id, &question);
        let output = match transport {
            Transport::Udp => query,
            // RFC 1035 section 4.2.2: two bytes with the length precede the message.
            Transport::Tcp => [&(query.len() as u16).to_be_bytes(), &query[..]].concat(),
        };
        assert!(output.len() <= 2 + 12 + 255 + 4, "a query has one question");
        let (socket, sent, input) = (None, 0, Vec::new());
        Self { lookup, question, server, socket, transport, id, output, sent, input }
    }

    /// The bytes that are still to be written.
    pub(super) fn output(&self) -> &[u8] {
        &self.output[self.sent..]
    }

    /// The kernel accepted `count` bytes of the output.
    pub(super) fn on_sent(&mut self, count: usize) {
        assert!(count <= self.output().len(), "at most the waiting output is sent");
        self.sent += count;
    }

    /// Processes received bytes: a datagram, or a piece of the stream. `None` means that the reply
    /// is still to come. Over UDP, that includes every datagram that is not a reply to this query,
    /// because any machine may have sent it. Only the server can write into the TCP stream, so a
    /// foreign message in it is a failure.
    pub(super) fn on_received(&mut self, bytes: &[u8]) -> Option<Reply> {
        match self.transport {
            Transport::Udp => wire::reply(self.id, &self.question, bytes).ok(),
            Transport::Tcp => {
                self.input.extend_from_slice(bytes);
                let (length, message) = self.input.split_first_chunk()?;
                let message = message.get(..usize::from(u16::from_be_bytes(*length)))?;
                match wire::reply(self.id, &self.question, message) {
                    Ok(reply @ Reply::Answer { .. }) => Some(reply),
                    Ok(Reply::Truncated | Reply::Failure) | Err(_) => Some(Reply::Failure),
                }
            }
        }
    }
}
