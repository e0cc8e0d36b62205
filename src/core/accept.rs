//! Whether connections are accepted, or `accept` is in backoff after a shortage.
//!
//! A failed `accept` (EMFILE and similar errors) leaves the connection in the queue of the
//! listener, and a poller reports it again at once: without a pause the loop would spin. Therefore
//! nothing is accepted for [`ACCEPT_BACKOFF`], or until a descriptor is freed. This module never
//! calls `accept` itself. `sockets` drives it.
//!
//! Invariant: after [`Accept::handle_tick`] the deadline is in the future.

use std::time::Instant;

use crate::limits::ACCEPT_BACKOFF;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AcceptState {
    /// Connections are accepted up to the cap. A shortage ends this state.
    Open,
    /// `accept` failed because of a shortage. The deadline `until` is armed. The deadline ends this
    /// state, and so does a freed descriptor.
    Backoff { until: Instant },
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Accept {
    state: AcceptState,
}

impl Accept {
    /// Accepts connections.
    pub(super) const fn new() -> Self {
        Self { state: AcceptState::Open }
    }

    /// `accept` failed because of a shortage. Returns the time of the next try.
    pub(super) fn handle_shortage(&mut self, now: Instant) -> Instant {
        let until = now + ACCEPT_BACKOFF;
        self.state = AcceptState::Backoff { until };
        until
    }

    /// A descriptor was closed or is no longer needed, so the next `accept` may succeed.
    pub(super) const fn handle_descriptor_freed(&mut self) {
        self.state = AcceptState::Open;
    }

    /// Ends a backoff whose time is up.
    pub(super) fn handle_tick(&mut self, now: Instant) {
        if self.deadline().is_some_and(|until| until <= now) {
            self.state = AcceptState::Open;
        }
    }

    /// The end of the backoff; `None` outside of a backoff.
    pub(super) const fn deadline(&self) -> Option<Instant> {
        match self.state {
            AcceptState::Open => None,
            AcceptState::Backoff { until } => Some(until),
        }
    }

    /// Whether connections may be accepted.
    pub(super) const fn is_open(&self) -> bool {
        matches!(self.state, AcceptState::Open)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_backoff_ends_in_time_or_when_a_descriptor_is_freed() {
        let (mut accept, now) = (Accept::new(), Instant::now());
        assert!(accept.is_open() && accept.deadline().is_none());
        let until = accept.handle_shortage(now);
        assert_eq!((accept.is_open(), accept.deadline()), (false, Some(until)));
        accept.handle_tick(until - Duration::from_nanos(1));
        assert!(!accept.is_open());
        accept.handle_tick(until);
        assert!(accept.is_open());
        accept.handle_shortage(now);
        accept.handle_descriptor_freed();
        assert!(accept.is_open() && accept.deadline().is_none());
    }
}
