//! The request to an engine to start a probe, and the outcome that the engine returns.
//!
//! `engines` passes requests to the engine of their technique, and collects the outcomes. This
//! module has no state.

use std::net::SocketAddr;

use crate::event::{CompletionCheck, Outcome};
use crate::slots::Key;
use crate::technique::Technique;

/// The parameters of a probe, which come from [`crate::event::Action::Probe`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ProbeRequest {
    pub(super) probe: Key,
    pub(super) to: SocketAddr,
    pub(super) check: CompletionCheck,
    pub(super) technique: Technique,
}

/// The outcome of a probe that has ended. The engine no longer knows its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ProbeOutcome {
    pub(super) probe: Key,
    pub(super) outcome: Outcome,
}
