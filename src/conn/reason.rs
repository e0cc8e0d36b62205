//! The reasons for which a connection ends, for the protocol and the metrics.

/// The reason for which a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// An answer was the last one: the client requested it, or the connection had reached its
    /// number of requests.
    Done,
    /// No request arrived for [`crate::limits::IDLE_TIMEOUT`].
    Idle,
    /// A head was not complete within [`crate::limits::HEAD_TIMEOUT`].
    HeadTimeout,
    /// A body was not complete within [`crate::limits::BODY_TIMEOUT`].
    BodyTimeout,
    /// The client read no byte of its answers for [`crate::limits::WRITE_STALL_TIMEOUT`].
    Stalled,
    /// The service shuts down.
    Shutdown,
    /// A malformed request was refused.
    Refused,
    /// The client closed the connection, and no answer was expected or could be delivered.
    PeerClosed,
    /// The socket was broken.
    Broken,
    /// The client disconnected while its scan ran, which ended the scan.
    Cancelled,
    /// Connections were at their cap, and this one was idle or lagged when another client arrived.
    Evicted,
}

impl CloseReason {
    /// Every reason, in the order of its discriminant.
    pub const ALL: [Self; 11] = [
        Self::Done,
        Self::Idle,
        Self::HeadTimeout,
        Self::BodyTimeout,
        Self::Stalled,
        Self::Shutdown,
        Self::Refused,
        Self::PeerClosed,
        Self::Broken,
        Self::Cancelled,
        Self::Evicted,
    ];

    /// The metric label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Idle => "idle",
            Self::HeadTimeout => "head_timeout",
            Self::BodyTimeout => "body_timeout",
            Self::Stalled => "stalled",
            Self::Shutdown => "drained",
            Self::Refused => "refused",
            Self::PeerClosed => "peer_closed",
            Self::Broken => "broken",
            Self::Cancelled => "cancelled",
            Self::Evicted => "evicted",
        }
    }
}
