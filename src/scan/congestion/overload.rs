//! The reaction of the congestion control to loss: experiments with a lower rate show whether the
//! scan causes it.
//!
//! Lost pings show much loss in any scan. The share of answered SYNs shows also little loss, in the
//! first pass of a scan of many ports (see [`share`](crate::scan::share)).
//!
//! The methods here belong to [`Controller`], which owns the state.

use std::time::{Duration, Instant};

use super::super::exchanges::LOSS_DROP_RATIO;
use super::super::measure::{PingWindow, Trial};
use super::super::share::Verdict;
use super::{Controller, GROWTH, NEAR_LIMIT, RATE_MIN, RatePhase, USUAL_RATE_MIN};
use crate::pacer::START_RATE;

/// The maximum loss that is considered random.
const LOSS_RANDOM_MAX: f64 = 0.6;
/// The ratio of answers to SYNs up to which the delivery rate does not show a limit.
const DELIVERY_RATIO_MIN: f64 = 0.05;
/// The ratio of the send rate to the delivery rate of a host that limits its answers per second.
const LIMIT_FACTOR: f64 = 1.5;
/// The minimum part of the permitted rate at which SYNs must have been sent to test it.
const USED_MIN: f64 = 0.8;
/// The part of the rate at the end of the first pass that the further passes may use at least. The
/// rate then exceeds the capacity by no more than one growth that is not judged yet.
const LAST_RATE_PART: f64 = 0.8;
/// The additional delay of an answer that does not count as jitter.
const DELAY_MAX: Duration = Duration::from_millis(1);

/// A limit of the path that only loss shows.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct LossLimit {
    /// The rate that the path carried when the scan last exceeded its capacity.
    capacity: Option<f64>,
    /// Whether the present rate was tested: the share of answered SYNs was as usual.
    is_tested: bool,
    /// The maximum rate of further passes, in which few ports respond, so that the share shows
    /// nothing.
    pub(super) rate_max: Option<f64>,
}

impl Controller {
    /// The SYN sent last is the first one to a port that counts for the share of answered SYNs.
    pub const fn handle_port_sent(&mut self) {
        if let Some(share) = &mut self.share {
            share.handle_port_sent();
        }
    }

    /// The probe of such a port is given up.
    pub fn handle_port_postponed(&mut self) {
        if let Some(share) = &mut self.share {
            share.handle_port_postponed();
        }
    }

    /// The first pass has ended.
    pub fn handle_first_pass_end(&mut self, now: Instant) {
        self.restart_share(now);
        if let Some(capacity) = self.loss_limit.capacity {
            self.loss_limit.rate_max = Some(capacity.max(LAST_RATE_PART * self.rate));
            self.set_rate(now, self.rate);
        }
    }

    /// Whether the rate may grow. Near the capacity of the path, it may grow only after it was
    /// tested.
    pub(super) fn takes_growth(&mut self) -> bool {
        let is_trial = self.is_share_trial();
        let LossLimit { capacity, is_tested, rate_max } = &mut self.loss_limit;
        let is_near = capacity.is_some_and(|capacity| self.rate >= NEAR_LIMIT * capacity);
        let needs_test = is_near && rate_max.is_none();
        !is_trial && (std::mem::take(is_tested) || !needs_test)
    }

    /// Whether the share of answered SYNs is being compared with that at a lower rate.
    pub(super) fn is_share_trial(&self) -> bool {
        self.share.as_ref().is_some_and(|share| share.is_trial())
    }

    /// Forgets the recent share of answered SYNs, and ends its experiment.
    pub(super) fn restart_share(&mut self, now: Instant) {
        if let Some(share) = &mut self.share {
            share.restart(now);
        }
    }

    /// Judges the share of answered SYNs after the answer to a SYN sent at `sent_at`.
    pub(super) fn judge_share(&mut self, now: Instant, sent_at: Instant) {
        let Some(share) = self.share.as_mut().filter(|_| self.trial.is_none()) else { return };
        let jitter = 2 * self.rtt_stats.deviation() + DELAY_MAX;
        match share.handle_answer(now, sent_at, jitter, self.rate) {
            None => {}
            Some(Verdict::Usual { rate }) => {
                self.loss_limit.is_tested |= rate > USED_MIN * self.rate;
            }
            Some(Verdict::Suspected { rate }) => {
                self.pings = PingWindow::new(now);
                self.bucket.empty();
                self.set_trial_rate(now, rate);
            }
            Some(Verdict::Overload { rate }) => {
                let rate = rate.max(self.rate);
                self.pings = PingWindow::new(now);
                self.phase = RatePhase::Cruise { limit: rate, growth: GROWTH };
                self.loss_limit.capacity = Some(rate);
                self.loss_limit.is_tested = false;
                self.set_rate(now, rate);
            }
            Some(Verdict::Random { rate }) => self.set_rate(now, rate.max(self.rate)),
        }
    }

    /// Begins an experiment with half the rate if the loss is higher than usual.
    pub(super) fn judge_loss(&mut self, now: Instant) {
        let loss = self.pings.counts.loss();
        if self.pings.exceeds(self.loss_usual) {
            self.restart_share(now);
            self.trial = Some(Trial { rate_before: self.rate, loss_before: loss });
            self.pings = PingWindow::new(now);
            self.bucket.empty();
            let used_rate = self.used_rate.peak().max(START_RATE);
            self.set_trial_rate(now, 0.5 * self.rate.min(used_rate));
        } else if self.pings.is_full() {
            self.loss_usual = self.pings.counts.usual_after(self.loss_usual);
            self.pings = self.pings.next();
        }
    }

    /// The minimum rate without further answers: see [`USUAL_RATE_MIN`].
    pub(super) fn usual_rate_min(&self) -> f64 {
        if self.rate < USUAL_RATE_MIN { RATE_MIN } else { USUAL_RATE_MIN }
    }

    fn set_trial_rate(&mut self, now: Instant, rate: f64) {
        self.set_rate(now, rate.max(self.usual_rate_min()).min(self.rate));
    }

    /// Ends an experiment: the lower rate stays if the loss has fallen with the rate.
    pub(super) fn judge_trial(&mut self, now: Instant, trial: Trial) {
        let loss = self.pings.counts.loss();
        self.trial = None;
        self.restart_share(now);
        self.pings = PingWindow::new(now);
        let delivery_rate = self.answer_rate.rate(now);
        if loss > LOSS_RANDOM_MAX {
            // The host may limit its answers per second: the delivery rate is then this limit.
            let is_limit = delivery_rate > DELIVERY_RATIO_MIN * self.rate;
            let rate = if is_limit { LIMIT_FACTOR * delivery_rate } else { self.rate };
            let rate = rate.max(self.usual_rate_min()).min(self.rate);
            self.phase = RatePhase::Cruise { limit: rate, growth: GROWTH };
            self.set_rate(now, rate);
        } else if loss > trial.loss_before * LOSS_DROP_RATIO {
            self.loss_usual = f64::midpoint(loss, trial.loss_before);
            self.set_rate(now, trial.rate_before.max(self.rate));
        } else {
            self.phase =
                RatePhase::Cruise { limit: self.rate.midpoint(trial.rate_before), growth: GROWTH };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A controller that has measured this capacity in cruise.
    fn limited(now: Instant, capacity: f64) -> Controller {
        let mut controller = Controller::new(now, 65_535);
        controller.handle_answer(now, now, Duration::from_millis(20));
        controller.phase = RatePhase::Cruise { limit: capacity, growth: GROWTH };
        controller.loss_limit.capacity = Some(capacity);
        controller.set_rate(now, capacity);
        controller
    }

    #[test]
    fn near_the_capacity_the_rate_grows_once_after_each_test() {
        let mut controller = limited(Instant::now(), 10_000.0);
        assert!(!controller.takes_growth());
        controller.loss_limit.is_tested = true;
        assert!(controller.takes_growth());
        assert!(!controller.takes_growth(), "the next rate needs a test of its own");
        controller.rate = 5_000.0;
        assert!(controller.takes_growth(), "the capacity is far away");
    }

    #[test]
    fn further_passes_do_not_exceed_the_capacity() {
        let now = Instant::now();
        let mut controller = limited(now, 10_000.0);
        controller.handle_first_pass_end(now);
        assert!(controller.takes_growth());
        controller.set_rate(now, 20_000.0);
        assert_eq!(controller.rate(now), 10_000.0);
        let mut grown = limited(now, 10_000.0);
        grown.set_rate(now, 50_000.0);
        grown.handle_first_pass_end(now);
        assert_eq!(grown.rate(now), 40_000.0, "the path carries more than it did");
        let mut unlimited = Controller::new(now, 65_535);
        unlimited.handle_first_pass_end(now);
        assert_eq!(unlimited.loss_limit.rate_max, None);
    }
}
