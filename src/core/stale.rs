//! Events that are too late to have an effect.
//!
//! Events and decisions of the core cross each other: an outcome may be under way while its scan
//! ends, or bytes while their connection is closed. `core` counts each such event and does nothing
//! else. An event that is impossible violates an assertion, and is never counted here.

/// The kind of an event that is too late, because its socket, probe or job has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StaleEvent {
    /// The outcome of a probe that was given up, or whose scan has ended.
    Probe,
    /// The result of a connect for a lookup that has ended.
    Connect,
    /// Received bytes.
    Received,
    /// The peer's FIN.
    ReadClosed,
    /// The FIN of the peer, after unread bytes.
    Hangup,
    /// Bytes that the kernel accepted.
    Sent,
    /// The end of a connection.
    Broken,
    /// A route for a job that has ended.
    Route,
    /// The result of a lookup for a job that has ended, or whose time was up.
    Lookup,
}

impl StaleEvent {
    /// The metric label.
    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::Probe => "probe",
            Self::Connect => "connect",
            Self::Received => "received",
            Self::ReadClosed => "read_closed",
            Self::Hangup => "hangup",
            Self::Sent => "sent",
            Self::Broken => "broken",
            Self::Route => "route",
            Self::Lookup => "lookup",
        }
    }
}

/// Whether an event had an effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a stale event is counted"]
pub(super) enum Effect {
    Applied,
    /// The event is too late, because its job or scan has ended.
    Stale,
}
