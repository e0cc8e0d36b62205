//! What the core owes the loop, checked in debug builds after every action.
//!
//! Each key has a beginning (a client accepted, a connect or a probe asked for) and one end; what
//! is between is attended to, and nothing else. A flush of actions ends, and no wait is for the
//! past. Every simulated run checks this, since it runs the same loop. Driven by `event_loop`.

use std::collections::BTreeSet;
use std::time::Instant;

use crate::event::Action;
use crate::slots::Key;

/// Actions of one flush at most: what the bounds of a tick permit, several times over.
const ACTIONS_MAX: usize = 20_000;

/// The keys that have begun and not ended. Empty in release builds.
#[derive(Debug, Default)]
pub(super) struct Contract {
    begun: BTreeSet<Key>,
    actions_len: usize,
}

impl Contract {
    /// A key begins.
    pub(super) fn begin(&mut self, key: Key) {
        if cfg!(debug_assertions) {
            assert!(self.begun.insert(key), "{key:?} names something else");
        }
    }

    /// A key ends.
    pub(super) fn end(&mut self, key: Key) {
        if cfg!(debug_assertions) {
            assert!(self.begun.remove(&key), "{key:?} ends once");
        }
    }

    /// Keys that have begun and not ended.
    pub(super) fn len(&self) -> usize {
        self.begun.len()
    }

    /// The actions of a tick begin.
    pub(super) const fn begin_flush(&mut self) {
        self.actions_len = 0;
    }

    /// The core asks for this.
    pub(super) fn check(&mut self, action: &Action, now: Instant) {
        if !cfg!(debug_assertions) {
            return;
        }
        self.actions_len += 1;
        assert!(self.actions_len < ACTIONS_MAX, "a flush of actions ends");
        match action {
            Action::Probe { probe: key, .. } | Action::Connect { socket: key, .. } => {
                self.begin(*key);
            }
            Action::Forget { probe: key } | Action::Close { socket: key } => self.end(*key),
            Action::Attend(key) | Action::ShutdownWrite(key) => {
                assert!(self.begun.contains(key), "{key:?} is open");
            }
            Action::Wait(deadline) => {
                assert!(deadline.is_none_or(|at| at > now), "a wait is for the future");
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
