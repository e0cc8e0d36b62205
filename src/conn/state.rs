//! The states of a connection, and the facts that follow from the state alone. `conn` makes the
//! transitions.

use std::time::Instant;

use crate::conn::buffer::Buffer;
use crate::conn::reason::CloseReason;
use crate::http::answer::{BodyFraming, Persistence};
use crate::http::chunked::Chunked;
use crate::http::head::HeadScan;
use crate::http::{Method, Refusal, Request, Version};

/// The state of a connection. In addition to the deadline of the state, the stall deadline is armed
/// while output waits.
#[derive(Debug)]
pub(super) enum ConnState {
    /// No request has begun. The deadline counts only while no output waits, and starts again when
    /// the last byte was sent. A first byte ends this state once the output has space, and so do a
    /// FIN and a shutdown.
    Idle { deadline: Instant },
    /// Bytes of a head have arrived. The deadline is absolute. The end of the head, a refusal or a
    /// FIN ends this state.
    Head { scan: HeadScan, deadline: Instant },
    /// A head is complete and a body follows, which is dropped as it arrives. The deadline is
    /// absolute. The end of the body or a refusal ends this state; a FIN is refused.
    Body { request: Request, pending: PendingResponse, left: Body, deadline: Instant },
    /// A refusal is ready to be returned by `poll_step`, which ends this state. There is no
    /// deadline.
    Refusing { refusal: Refusal, pending: PendingResponse },
    /// A request or a refusal was returned. There is no deadline, because the service has its own.
    /// `respond` and `begin_stream` end this state.
    Answering(PendingResponse),
    /// The head of an answer is queued, and its body arrives in pieces. There is no deadline, for
    /// the same reason. `end_stream` ends this state.
    Streaming(Stream),
    /// The last answer is queued. Only the stall deadline is armed. The last sent byte ends this
    /// state.
    Flushing { reason: CloseReason },
    /// Our FIN was sent. Further received bytes are dropped, so that no RST overtakes the answer.
    /// The deadline is absolute. The deadline or a FIN ends this state.
    Lingering { reason: CloseReason, deadline: Instant },
    /// The close is ready to be returned by `poll_step`, which ends this state. All data was
    /// dropped. There is no deadline.
    Closing { reason: CloseReason },
    /// The close was returned. This state is final.
    Closed,
}

/// The part of a body that has not arrived yet.
#[derive(Debug)]
pub(super) enum Body {
    /// This number of bytes.
    Length(u64),
    /// The rest of a chunked body.
    Chunked(Chunked),
}

/// The facts about a request that are needed to frame its answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct PendingResponse {
    pub(super) method: Method,
    pub(super) version: Version,
    pub(super) reuse: Reuse,
}

/// The facts that are needed to continue a stream.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stream {
    pub(super) method: Method,
    pub(super) framing: BodyFraming,
    pub(super) reuse: Reuse,
}

/// Whether the connection is used again after an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reuse {
    KeepAlive,
    Close(CloseReason),
}

/// The treatment of received bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReadMode {
    /// They are kept, as far as the input has space.
    Keep,
    /// They are read and dropped.
    Drop,
    /// They are not read.
    Pause,
}

impl ConnState {
    /// The deadline of the state.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match self {
            Self::Idle { deadline }
            | Self::Head { deadline, .. }
            | Self::Body { deadline, .. }
            | Self::Lingering { deadline, .. } => Some(*deadline),
            Self::Refusing { .. }
            | Self::Answering(_)
            | Self::Streaming(_)
            | Self::Flushing { .. }
            | Self::Closing { .. }
            | Self::Closed => None,
        }
    }

    /// The treatment of received bytes. While a request is answered, the next ones are kept, and a
    /// FIN must be detected.
    pub(super) fn read_mode(&self) -> ReadMode {
        match self {
            Self::Idle { .. }
            | Self::Head { .. }
            | Self::Body { .. }
            | Self::Answering(_)
            | Self::Streaming(_) => ReadMode::Keep,
            Self::Lingering { .. } => ReadMode::Drop,
            Self::Refusing { .. } | Self::Flushing { .. } | Self::Closing { .. } | Self::Closed => {
                ReadMode::Pause
            }
        }
    }

    /// Whether no request is being read beyond its head, or answered.
    pub(super) fn is_before_a_request(&self) -> bool {
        matches!(self, Self::Idle { .. } | Self::Head { .. })
    }

    /// Whether the socket is closed, or will be closed at the next poll.
    pub(super) fn is_over(&self) -> bool {
        matches!(self, Self::Closing { .. } | Self::Closed)
    }
}

impl Body {
    /// Removes the bytes of the body from the input. Returns whether the body is complete.
    pub(super) fn drop_from(&mut self, input: &mut Buffer) -> Result<bool, Refusal> {
        match self {
            Self::Length(left) => {
                let taken = (input.len() as u64).min(*left);
                input.consume(taken as usize);
                *left -= taken;
                Ok(*left == 0)
            }
            Self::Chunked(chunked) => {
                let taken = chunked.handle_received(input.pending())?;
                input.consume(taken);
                Ok(chunked.is_complete())
            }
        }
    }
}

impl Reuse {
    /// The Connection field of an answer, in the protocol version of the client.
    pub(super) fn persistence(self, version: Version) -> Persistence {
        match (self, version) {
            (Self::Close(_), Version::Http10 | Version::Http11) => Persistence::Close,
            (Self::KeepAlive, Version::Http10) => Persistence::KeepAlive,
            (Self::KeepAlive, Version::Http11) => Persistence::Implied,
        }
    }
}
