//! Numbers of exchanges (a SYN and its answer), and whether more of them are lost than usual.

/// The usual loss that is assumed before the first measurement.
pub const LOSS_USUAL: f64 = 0.05;
/// The minimum excess over the usual loss that starts an experiment with a lower rate.
const LOSS_EXCESS: f64 = 0.15;
/// If the loss falls to this part of its value before an experiment, it depends on the rate.
pub const LOSS_DROP_RATIO: f64 = 0.7;

/// Numbers of exchanges that have ended, each with the weight 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Exchanges {
    /// The number of those whose loss is known.
    pub known: u32,
    /// The number of those that were lost.
    pub lost: u32,
}

impl Exchanges {
    /// Adds other exchanges.
    pub const fn add(&mut self, others: Self) {
        self.known += others.known;
        self.lost += others.lost;
    }

    /// The share of exchanges that were lost, 0 to 1.
    pub fn loss(self) -> f64 {
        (f64::from(self.lost) / f64::from(self.known.max(1))).min(1.0)
    }

    /// Whether the loss exceeds the usual loss by at least 15 percentage points and by three
    /// standard deviations.
    pub fn exceeds(self, usual: f64) -> bool {
        let variance = usual.max(LOSS_USUAL) * (1.0 - usual) / f64::from(self.known.max(1));
        self.loss() - usual > LOSS_EXCESS.max(3.0 * variance.sqrt())
    }

    /// The usual loss after these exchanges, as a moving average.
    pub fn usual_after(self, usual: f64) -> f64 {
        usual * 0.75 + self.loss().min(usual + LOSS_EXCESS / 2.0) * 0.25
    }
}
