//! The state of a command-line run, driven by `batch`.

use std::time::Instant;

/// Whether further targets are begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BatchState {
    /// No target was begun, and no deadline is armed. The first target ends this state.
    Ready,
    /// Targets are begun as the budget permits. The deadline `progress_at` is armed. An interrupt
    /// ends this state, and so does a stdout that accepts no more bytes.
    Running { progress_at: Instant },
    /// No further target is begun. The running ones end with their results so far, which are
    /// printed.
    Interrupted,
    /// Stdout accepts no more bytes. The results of targets that end now are not printed.
    Silenced,
}

/// Addresses of networks and ranges that could not be scanned. They are reported together.
#[derive(Debug, Default)]
pub(super) struct FailedMembers {
    /// The first such address and the reason.
    pub(super) first: Option<String>,
    /// The number of further addresses.
    pub(super) more: u64,
}

impl FailedMembers {
    /// One line that reports all of them, if there are any.
    pub(super) fn text(&self) -> Option<String> {
        let first = self.first.as_ref()?;
        Some(match self.more {
            0 => first.clone(),
            1 => format!("{first} And one more address like it."),
            more => format!("{first} And {more} more addresses like it."),
        })
    }
}
