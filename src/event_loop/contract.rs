//! Assertions about the actions of the core. They are checked in debug builds only.
//!
//! Each key begins once (a client is accepted, or the core requests a connect or a probe) and ends
//! once; between the two, and only then, actions may refer to it. A flush has a bounded number of
//! actions, and the core never waits until a time in the past. The simulation and the fuzz target
//! run the same loop, so they check this too. `event_loop` drives it.

use std::collections::BTreeSet;
use std::time::Instant;

use crate::event::Action;
use crate::slots::Key;

/// The maximum number of actions of one flush: several times the number that the limits of one tick
/// permit.
const ACTIONS_MAX: usize = 20_000;

/// The keys that have begun and not ended. It is always empty in release builds.
#[derive(Debug, Default)]
pub(super) struct Contract {
    begun: BTreeSet<Key>,
    actions_len: usize,
}

impl Contract {
    /// Records the beginning of a key.
    pub(super) fn begin(&mut self, key: Key) {
        if cfg!(debug_assertions) {
            assert!(self.begun.insert(key), "{key:?} is not in use when it begins");
        }
    }

    /// Records the end of a key.
    pub(super) fn end(&mut self, key: Key) {
        if cfg!(debug_assertions) {
            assert!(self.begun.remove(&key), "{key:?} is in use when it ends");
        }
    }

    /// The number of keys that have begun and not ended.
    pub(super) fn len(&self) -> usize {
        self.begun.len()
    }

    /// Begins the flush of a tick.
    pub(super) const fn begin_flush(&mut self) {
        self.actions_len = 0;
    }

    /// Checks an action that the core has requested.
    pub(super) fn check(&mut self, action: &Action, now: Instant) {
        if !cfg!(debug_assertions) {
            return;
        }
        self.actions_len += 1;
        assert!(self.actions_len < ACTIONS_MAX, "a flush has fewer than {ACTIONS_MAX} actions");
        match action {
            Action::Probe { probe: key, .. } | Action::Connect { socket: key, .. } => {
                self.begin(*key);
            }
            Action::Forget { probe: key } | Action::Close { socket: key } => self.end(*key),
            Action::Attend(key) | Action::ShutdownWrite(key) => {
                assert!(self.begun.contains(key), "{key:?} is in use when an action refers to it");
            }
            Action::Wait(deadline) => {
                assert!(deadline.is_none_or(|at| at > now), "a wait ends in the future");
            }
            Action::FindRoute { .. }
            | Action::ReadLocalDrops
            | Action::ReadTokenFile
            | Action::ReadNameFiles
            | Action::ReadProcessFiles
            | Action::CloseListeners
            | Action::Log(_)
            | Action::ShowProgress(_)
            | Action::Exit(_)
            | Action::Yield => {}
        }
    }
}
