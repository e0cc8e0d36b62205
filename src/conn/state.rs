//! Where a connection stands: the states of `conn`, and what can be told from the state alone.
//! The transitions are `conn`'s.

use std::time::Instant;

use crate::conn::buffer::Buffer;
use crate::conn::reason::CloseReason;
use crate::http::answer::{BodyFraming, Persistence};
use crate::http::chunked::Chunked;
use crate::http::head::HeadScan;
use crate::http::{Method, Refusal, Request, Version};

/// Beside the deadline that a state names, the stall deadline is armed while output waits.
#[derive(Debug)]
pub(super) enum State {
    /// No request has begun. Its deadline counts only while no output waits, and starts anew when
    /// the last of it went. Left by a first byte once the output has room, by FIN, by drain.
    Idle { deadline: Instant },
    /// Bytes of a head came. The deadline is absolute. Left by its end, by a refusal, by FIN.
    Head { scan: HeadScan, deadline: Instant },
    /// A head ended and a body follows, which is dropped as it comes. The deadline is absolute.
    /// Left by its end, by a refusal; FIN is one.
    Body { request: Request, owed: Owed, left: Body, deadline: Instant },
    /// A refusal is to be polled, which leaves it. No deadline.
    Refusing { refusal: Refusal, owed: Owed },
    /// A request or a refusal was handed out. No deadline: the service has its own. Left by
    /// `respond` and `begin_stream`.
    Answering(Owed),
    /// An answer's head is queued, and its body comes in pieces. No deadline, as above. Left by
    /// `end_stream`.
    Streaming(Stream),
    /// The last answer is queued. No deadline but the stall's. Left by the last byte sent.
    Flushing { reason: CloseReason },
    /// Our FIN is on its way; what still comes is dropped, so that no RST overtakes the answer.
    /// The deadline is absolute. Left by it and by FIN.
    Lingering { reason: CloseReason, deadline: Instant },
    /// The close is to be polled, which leaves it. Nothing is kept. No deadline.
    Closing { reason: CloseReason },
    /// The close was polled. For ever.
    Closed,
}

/// What is left of a body.
#[derive(Debug)]
pub(super) enum Body {
    /// So many bytes.
    Length(u64),
    /// Whatever the chunks say.
    Chunked(Chunked),
}

/// What must be known of a request to frame its answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Owed {
    pub(super) method: Method,
    pub(super) version: Version,
    pub(super) ending: Ending,
}

/// What must be known of a stream to go on with it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stream {
    pub(super) method: Method,
    pub(super) framing: BodyFraming,
    pub(super) ending: Ending,
}

/// What becomes of the connection after an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    KeepAlive,
    Close(CloseReason),
}

/// What becomes of bytes that come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Intake {
    /// They are kept, as far as the input has room.
    Keep,
    /// They are read and dropped.
    Drop,
    /// They are not read.
    Pause,
}

impl State {
    /// The deadline that the state names.
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

    /// While a request is answered, the next ones are kept, and a FIN must be seen.
    pub(super) fn intake(&self) -> Intake {
        match self {
            Self::Idle { .. }
            | Self::Head { .. }
            | Self::Body { .. }
            | Self::Answering(_)
            | Self::Streaming(_) => Intake::Keep,
            Self::Lingering { .. } => Intake::Drop,
            Self::Refusing { .. } | Self::Flushing { .. } | Self::Closing { .. } | Self::Closed => {
                Intake::Pause
            }
        }
    }

    /// True exactly while no request is being read or answered beyond its head.
    pub(super) fn is_before_a_request(&self) -> bool {
        matches!(self, Self::Idle { .. } | Self::Head { .. })
    }

    /// True exactly when the socket is closed, or will be at the next poll.
    pub(super) fn is_over(&self) -> bool {
        matches!(self, Self::Closing { .. } | Self::Closed)
    }
}

impl Body {
    /// Takes what belongs to the body out of the input. True exactly when it is complete.
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

impl Ending {
    /// What an answer has to say of the connection, in the version of its reader.
    pub(super) fn persistence(self, version: Version) -> Persistence {
        match (self, version) {
            (Self::Close(_), Version::Http10 | Version::Http11) => Persistence::Close,
            (Self::KeepAlive, Version::Http10) => Persistence::KeepAlive,
            (Self::KeepAlive, Version::Http11) => Persistence::Implied,
        }
    }
}
