//! The reasons for which a connection ends, by name: for the protocol, the metrics and the log.

/// Why a connection came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// An answer was the last one: the client wished it, or it had its share of requests.
    Done,
    /// No request came for [`crate::limits::IDLE_TIMEOUT`].
    Idle,
    /// A head did not end within [`crate::limits::HEAD_TIMEOUT`].
    HeadTimeout,
    /// A body did not end within [`crate::limits::BODY_TIMEOUT`].
    BodyTimeout,
    /// The client took nothing of its answers for [`crate::limits::WRITE_STALL_TIMEOUT`].
    Stalled,
    /// The service shuts down.
    Drained,
    /// A request was refused for its form.
    Refused,
    /// The client went, and was owed nothing or nobody to take it.
    PeerClosed,
    /// The socket broke.
    Broken,
}

impl CloseReason {
    /// Every reason, in the order of its discriminant.
    pub const ALL: [Self; 9] = [
        Self::Done,
        Self::Idle,
        Self::HeadTimeout,
        Self::BodyTimeout,
        Self::Stalled,
        Self::Drained,
        Self::Refused,
        Self::PeerClosed,
        Self::Broken,
    ];

    /// The metric label and the log word.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Idle => "idle",
            Self::HeadTimeout => "head_timeout",
            Self::BodyTimeout => "body_timeout",
            Self::Stalled => "stalled",
            Self::Drained => "drained",
            Self::Refused => "refused",
            Self::PeerClosed => "peer_closed",
            Self::Broken => "broken",
        }
    }
}
