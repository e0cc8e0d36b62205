//! The output of a command-line run to stderr: messages and, on a terminal, the progress line.
//!
//! A visible progress line is cleared before anything else is written. Open ports that were found
//! since the last progress line are written above the next one. `batch` drives this module, which
//! only produces actions and never writes itself.

use std::collections::{BTreeMap, VecDeque};

use super::options::ProgressLine;
use super::printer::Outcomes;
use super::targets::TargetId;
use crate::event::Action;
use crate::scan::summary::Summary;

/// The progress line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    /// No progress line is shown.
    Off,
    /// The progress line is to be shown, and is not visible now.
    Cleared { columns: usize },
    /// The progress line is visible, and must be cleared before anything else is written.
    Visible { columns: usize },
}

/// The queue of actions for stderr. See the module's documentation.
#[derive(Debug)]
pub(super) struct Stderr {
    line: Line,
    /// Lines that will be written above the next progress line, with their targets.
    later: Vec<(TargetId, String)>,
    /// The number of lines beyond those, by their targets.
    later_more: BTreeMap<TargetId, usize>,
    actions: VecDeque<Action>,
}

/// The maximum number of lines above one progress line. A host with every port open would otherwise
/// fill the screen.
const LATER_MAX: usize = 16;

/// Without DECAWM (ECMA-48 private mode 7) a terminal cuts a line instead of wrapping it. The
/// terminal may have become narrower since its width was read.
const WRAP_OFF: &str = "\x1b[?7l";
const WRAP_ON: &str = "\x1b[?7h";

impl Stderr {
    pub(super) fn new(progress: ProgressLine) -> Self {
        let line = match progress {
            ProgressLine::Shown { columns } => Line::Cleared { columns },
            ProgressLine::Hidden => Line::Off,
        };
        Self { line, later: Vec::new(), later_more: BTreeMap::new(), actions: VecDeque::new() }
    }

    /// Writes one sentence.
    pub(super) fn write_line(&mut self, text: &str) {
        self.clear_progress();
        self.actions.push_back(Action::Log(format!("openports: {text}")));
    }

    /// Reports the ports of a target that a list of its open ports does not show, although they may
    /// be open.
    pub(super) fn write_gaps(&mut self, summary: &Summary) {
        let Summary { domain, counts, .. } = summary;
        for (what, ports) in [("not scanned", counts.untested), ("unreachable", counts.unreachable)]
        {
            if ports > 0 {
                let total = counts.total();
                self.write_line(&format!("{domain}: {what}: {ports} of {total} ports"));
            }
        }
    }

    /// Reports the number of targets with such ports, if there are any.
    pub(super) fn write_targets_with_gaps(&mut self, outcomes: &Outcomes) {
        let Outcomes { cut_short, unreachable, .. } = *outcomes;
        let scanned = outcomes.scanned();
        for (count, what) in
            [(cut_short, "were not scanned whole"), (unreachable, "have unreachable ports")]
        {
            if count > 0 {
                self.write_line(&format!("{count} of {scanned} targets {what}"));
            }
        }
    }

    /// Reports that no target was scanned. `ports` is the number of ports in this shard.
    pub(super) fn write_nothing_scanned(&mut self, ports: u64) {
        self.write_line(match ports {
            0 => "this shard has no port to scan: there are more shards than targets and ports",
            _ => "nothing is left to scan: the earlier run has finished every target",
        });
    }

    /// Keeps a line about a target for the terminal until the next progress line.
    pub(super) fn show_later(&mut self, target: TargetId, line: impl FnOnce() -> String) {
        match self.line {
            Line::Off => {}
            Line::Cleared { .. } | Line::Visible { .. } if self.later.len() < LATER_MAX => {
                self.later.push((target, line()));
            }
            Line::Cleared { .. } | Line::Visible { .. } => {
                *self.later_more.entry(target).or_default() += 1;
            }
        }
    }

    /// Drops the lines about a target that are not written yet, because the terminal shows its
    /// results now.
    pub(super) fn drop_later(&mut self, target: TargetId) {
        self.later.retain(|(of, _)| *of != target);
        self.later_more.remove(&target);
    }

    /// Replaces the progress line, if it is shown.
    pub(super) fn show_progress(&mut self, line: impl FnOnce(usize) -> String) {
        let (Line::Cleared { columns } | Line::Visible { columns }) = self.line else { return };
        if !self.later.is_empty() {
            self.clear_progress();
            self.actions.extend(self.later.drain(..).map(|(_, line)| Action::Log(line)));
        }
        let more: usize = self.later_more.values().sum();
        if more > 0 {
            self.clear_progress();
            let text = match more {
                1 => "and one more open port".to_owned(),
                more => format!("and {more} more open ports"),
            };
            self.actions.push_back(Action::Log(text));
            self.later_more.clear();
        }
        self.line = Line::Visible { columns };
        let line = line(columns);
        self.actions.push_back(Action::ShowProgress(format!("{WRAP_OFF}{line}{WRAP_ON}")));
    }

    /// Clears a visible progress line.
    pub(super) fn clear_progress(&mut self) {
        if let Line::Visible { columns } = self.line {
            self.line = Line::Cleared { columns };
            self.actions.push_back(Action::ShowProgress(String::new()));
        }
    }

    /// Whether progress is shown.
    pub(super) fn has_progress(&self) -> bool {
        self.line != Line::Off
    }

    pub(super) fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }
}
