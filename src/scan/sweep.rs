//! A scan among those of many targets: what they know of the loss of a common link.
//!
//! A target that has never answered shows no loss. If many other targets that are scanned at the
//! same time lose exchanges, it may have lost all of its own, so its ports are probed again.
//! `core::shared_pace` measures this loss.

use std::time::Instant;

use super::Scan;
use super::exchanges::Exchanges;
use super::loss::MISSED_MAX;

/// The loss of other targets from which on a target may have losses that its samples do not show.
const LOSSY_MIN: f64 = 0.05;
/// The assumed loss of repeated SYNs at least, if first SYNs are lost. The kernel's timers are
/// coarse, so it repeats the SYNs to many targets in bursts, and a short queue drops them again.
const REPEAT_LOSS_MIN: f64 = 0.5;
/// The maximum number of further passes over a target that has never answered.
const PASSES_MAX: u32 = 8;

/// The loss of the other targets.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SweepLoss {
    /// The share of their exchanges that were lost, 0 to 1.
    pub loss: f64,
    /// The share of these targets that respond, 0 to 1.
    pub responding: f64,
}

/// What a scan knows of the others.
#[derive(Debug)]
pub(super) struct Sweep {
    others: SweepLoss,
    /// The probability that a responding target has been silent in all passes.
    silence_probability: f64,
    /// Whether a pass may have missed a responding target, which counts as a suspected loss.
    pub(super) is_doubtful: bool,
}

impl Default for Sweep {
    fn default() -> Self {
        Self { others: SweepLoss::default(), silence_probability: 1.0, is_doubtful: false }
    }
}

impl Scan {
    /// Whether other targets lose so many exchanges that a few samples without loss prove nothing.
    /// For a target without an answer, any loss is enough.
    pub(super) fn is_in_lossy_sweep(&self) -> bool {
        let loss = self.sweep.others.loss;
        loss >= LOSSY_MIN || loss > 0.0 && !self.has_answer()
    }

    /// The loss that the scans of other targets have measured.
    pub fn set_sweep_loss(&mut self, others: SweepLoss) {
        self.sweep.others = others;
    }

    /// Whether at least one exchange (a SYN and its answer) was lost, or a target without an answer
    /// may have lost all of them.
    pub fn loss_suspected(&self) -> bool {
        self.loss.has_lost() || self.sweep.is_doubtful
    }

    /// The exchanges that have ended since the last call. From now on only those count that begin
    /// at `counted_from` or later.
    pub fn take_exchanges(&mut self, counted_from: Option<Instant>) -> Exchanges {
        let from = counted_from.map(|at| at.saturating_duration_since(self.started_at));
        self.loss.take_exchanges(from.unwrap_or_default())
    }

    /// The number of SYNs that were probably lost before the first answer, which has just arrived.
    /// A scan cannot distinguish this from a long round trip, so it matters only for the others.
    pub const fn lost_before_first_answer(&self) -> u32 {
        self.rtt.late_answers()
    }

    /// Whether a target that has never answered may respond and have lost all exchanges of pass
    /// `number` and those before, `exchanges` of each port in this pass. The probability of it is
    /// then at least [`MISSED_MAX`]. Returns whether it suggests another pass.
    pub(super) fn doubts_silence(&mut self, number: u32, exchanges: u32) -> bool {
        let SweepLoss { loss, responding } = self.sweep.others;
        let again = loss.max(REPEAT_LOSS_MIN).powi(exchanges.saturating_sub(1) as i32);
        self.sweep.silence_probability *= loss * again;
        let is_missed = responding * self.sweep.silence_probability >= MISSED_MAX;
        self.sweep.is_doubtful |= is_missed;
        is_missed && number < PASSES_MAX
    }
}
