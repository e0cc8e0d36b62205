//! The rate of all scans together, if many of them lose packets.
//!
//! Each scan adapts to the path of its target (`scan::congestion`). The scans of a list of targets
//! can exceed a common link together although each of them is slow, so this module judges the
//! exchanges of all scans. An exchange has no weight here: one lossy path among many says little.
//! If more exchanges are lost than usual, all launches are limited to a part of their rate as an
//! experiment. If the loss falls, the limit stays, and grows while the loss stays low. Otherwise
//! the loss does not depend on the rate, and the limit ends. `launch_queues` drives this module.
//!
//! Invariant: the limit is at least [`RATE_MIN`].

use std::time::{Duration, Instant};

use crate::pacer::TokenBucket;
use crate::scan::exchanges::{Exchanges, LOSS_DROP_RATIO, LOSS_USUAL};
use crate::scan::sweep::SweepLoss;

/// The minimum number of scans that are judged together.
const SCANS_MIN: usize = 8;
/// The minimum number of exchanges that are judged together.
const EXCHANGES_MIN: u32 = 24;
/// The minimum time in which the exchanges that are judged together end.
const WINDOW_MIN: Duration = Duration::from_millis(500);
/// The time after which a window is judged with fewer exchanges. Of a sweep with few targets that
/// respond, the limit would otherwise hardly grow.
const WINDOW_MAX: Duration = Duration::from_secs(2);
/// The minimum time of an experiment: a lost SYN is answered when it is repeated after a second.
const EXPERIMENT_MIN: Duration = Duration::from_millis(1_500);
/// The limit in SYNs per second down to which an experiment continues if the loss does not fall.
const EXPERIMENT_RATE_MIN: f64 = 500.0;
/// The loss up to which an experiment may end before the limit is that low.
const LOSS_MODERATE_MAX: f64 = 0.3;
/// The minimum ratio of the answered exchanges before an experiment to its limit, from which on the
/// limit cannot exceed the link.
const DELIVERED_MARGIN: f64 = 1.5;
/// The part of the highest rate that is kept from one window to the next: losses are known late.
const PEAK_KEPT: f64 = 0.8;
/// The excess over the usual loss up to which the limit grows.
const LOSS_LOW: f64 = 0.05;
/// The part of the rate that the first experiment permits. The scans may send many times what the
/// link carries.
const FIRST_PART: f64 = 0.125;
/// The part of the rate that later experiments permit.
const LATER_PART: f64 = 0.5;
/// The factor by which the limit grows after a judgement without loss.
const GROWTH: f64 = 1.5;
/// The minimum limit in SYNs per second.
const RATE_MIN: f64 = 50.0;
/// The limit in SYNs per second above which there is none.
const RATE_MAX: f64 = 200_000.0;
/// The number of recent exchanges above which they count half. Targets without an answer were
/// probed some seconds ago, and towards the end of a sweep almost only lost exchanges become known,
/// so the loss must not follow the last few exchanges.
const RECENT_MAX: u32 = 8_192;
/// The number of lost exchanges that shows a loss, if there are few exchanges.
const LOST_MIN: u32 = 4;
/// The number of SYNs that may be sent at once at any limit.
const BURST_MIN: f64 = 4.0;

/// The limit, and its tokens.
#[derive(Debug)]
struct Limit {
    /// In SYNs per second.
    rate: f64,
    bucket: TokenBucket,
}

/// An experiment with a lower limit.
#[derive(Clone, Copy, Debug)]
struct Experiment {
    rate_before: Option<f64>,
    loss_before: f64,
    /// The number of answered exchanges per second before.
    delivered: f64,
}

impl Experiment {
    /// Whether a loss at this limit cannot be due to the rate, because the link has carried more.
    fn excludes_overload(&self, limit: f64) -> bool {
        self.loss_before <= LOSS_MODERATE_MAX && self.delivered >= DELIVERED_MARGIN * limit
    }
}

/// Rates in a window, per second.
#[derive(Clone, Copy, Debug)]
struct Rates {
    /// SYNs sent.
    launched: f64,
    /// Exchanges that were answered.
    delivered: f64,
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct SharedPace {
    limit: Option<Limit>,
    experiment: Option<Experiment>,
    /// Whether an experiment has shown that the loss depends on the rate.
    is_limited: bool,
    loss_usual: f64,
    /// The number of scans that have begun.
    begun: usize,
    /// The start of the present window; `None` before the first exchange has ended.
    since: Option<Instant>,
    /// The time of the last reduction. Exchanges that began before it do not count.
    reduced_at: Option<Instant>,
    launched: u32,
    /// The highest recent rate of launches.
    rate_peak: f64,
    /// The exchanges that have ended in the present window.
    exchanges: Exchanges,
    /// The exchanges that show the loss of targets without an answer.
    recent: Exchanges,
    /// The number of targets that have answered, and of those that have ended without an answer.
    answered: u32,
    silent: u32,
}

impl SharedPace {
    pub(super) const fn new() -> Self {
        Self {
            limit: None,
            experiment: None,
            is_limited: false,
            loss_usual: LOSS_USUAL,
            begun: 0,
            since: None,
            reduced_at: None,
            launched: 0,
            rate_peak: 0.0,
            exchanges: Exchanges { known: 0, lost: 0 },
            recent: Exchanges { known: 0, lost: 0 },
            answered: 0,
            silent: 0,
        }
    }

    /// A scan begins.
    pub(super) const fn handle_begin(&mut self) {
        self.begun = self.begun.saturating_add(1);
    }

    /// A scan has received its first answer, before which it probably lost this number of SYNs.
    pub(super) const fn handle_first_answer(&mut self, lost: u32) {
        self.answered = self.answered.saturating_add(1);
        self.recent.lost += lost;
    }

    /// A scan has ended without an answer.
    pub(super) const fn handle_silent_end(&mut self) {
        self.silent = self.silent.saturating_add(1);
    }

    /// The loss that a target without an answer must expect.
    pub(super) fn sweep_loss(&self) -> SweepLoss {
        if self.begun < SCANS_MIN {
            return SweepLoss::default();
        }
        let targets = f64::from(self.answered) + f64::from(self.silent);
        let loss = if self.recent.lost >= LOST_MIN { self.recent.loss() } else { 0.0 };
        SweepLoss { loss, responding: f64::from(self.answered) / targets.max(1.0) }
    }

    /// A SYN is sent.
    pub(super) fn handle_launch(&mut self, now: Instant) {
        self.launched = self.launched.saturating_add(1);
        if let Some(limit) = &mut self.limit {
            limit.bucket.refill(now, limit.rate);
            limit.bucket.take();
        }
    }

    /// The time at which the next SYN may be sent; not later than `now` if it may be sent at once.
    pub(super) fn next_at(&self, now: Instant) -> Instant {
        self.limit.as_ref().map_or(now, |limit| now + limit.bucket.wait(now, limit.rate))
    }

    /// The time from which on exchanges count.
    pub(super) const fn counted_from(&self) -> Option<Instant> {
        self.reduced_at
    }

    /// Exchanges of one of `running` scans have ended.
    pub(super) fn handle_exchanges(&mut self, now: Instant, ended: Exchanges, running: usize) {
        self.exchanges.add(ended);
        self.recent.add(ended);
        if self.recent.known + self.recent.lost > RECENT_MAX {
            self.recent = Exchanges { known: self.recent.known / 2, lost: self.recent.lost / 2 };
        }
        let age = now - *self.since.get_or_insert(now);
        let Exchanges { known, lost } = self.exchanges;
        let is_enough = known + lost >= EXCHANGES_MIN;
        if age < WINDOW_MIN || age < WINDOW_MAX && !is_enough {
            return;
        }
        if self.experiment.is_some() && self.reduced_at.is_some_and(|at| now - at < EXPERIMENT_MIN)
        {
            return;
        }
        let rate = f64::from(self.launched) / age.as_secs_f64();
        // A few lost exchanges among few show nothing.
        let shown = if is_enough || lost >= LOST_MIN { lost } else { 0 };
        let shown = Exchanges { known, lost: shown };
        self.rate_peak = rate.max(PEAK_KEPT * self.rate_peak);
        (self.since, self.launched) = (Some(now), 0);
        self.exchanges = Exchanges::default();
        if running >= SCANS_MIN || self.limit.is_some() {
            let delivered = f64::from(known.saturating_sub(lost)) / age.as_secs_f64();
            self.judge(now, shown, Rates { launched: rate, delivered });
        }
    }

    fn judge(&mut self, now: Instant, ended: Exchanges, rates: Rates) {
        let Rates { launched: rate, delivered } = rates;
        let loss = ended.loss();
        let limit = self.limit.as_ref().map(|limit| limit.rate);
        if let Some(experiment) = self.experiment.take() {
            if loss <= LOSS_DROP_RATIO * experiment.loss_before {
                self.is_limited = true;
            } else if limit.is_some_and(|limit| experiment.excludes_overload(limit)) {
                self.loss_usual = loss.max(experiment.loss_before);
                self.set_limit(now, experiment.rate_before);
            } else if limit.is_some_and(|limit| limit > EXPERIMENT_RATE_MIN) {
                self.begin_experiment(now, experiment);
            } else {
                self.loss_usual = loss;
                self.set_limit(now, experiment.rate_before);
            }
        } else if ended.exceeds(self.loss_usual) {
            let (rate_before, loss_before) = (limit, loss);
            self.begin_experiment(now, Experiment { rate_before, loss_before, delivered });
        } else {
            let is_low = loss <= self.loss_usual + LOSS_LOW;
            // Under a limit, a loss may be caused by the scans themselves.
            if limit.is_none() || loss < self.loss_usual {
                self.loss_usual = ended.usual_after(self.loss_usual);
            }
            if let Some(limit) = limit
                && is_low
                && rate >= 0.5 * limit
            {
                self.set_limit(now, Some(GROWTH * limit));
            }
        }
    }

    fn begin_experiment(&mut self, now: Instant, experiment: Experiment) {
        let part = if self.is_limited { LATER_PART } else { FIRST_PART };
        let rate = self.limit.as_ref().map_or(self.rate_peak, |limit| limit.rate);
        self.experiment = Some(experiment);
        self.reduced_at = Some(now);
        self.set_limit(now, Some(part * rate));
    }

    fn set_limit(&mut self, now: Instant, rate: Option<f64>) {
        let rate = rate.map(|rate| rate.max(RATE_MIN)).filter(|rate| *rate < RATE_MAX);
        self.limit = rate.map(|rate| {
            let mut bucket = TokenBucket::new(now, BURST_MIN);
            bucket.empty();
            Limit { rate, bucket }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scans of many targets for 30 s through a link that carries `capacity` SYNs per second and
    /// loses the share `random` of the exchanges. They would send 20,000 SYNs per second. Calls
    /// `examine` after each millisecond, and returns the rate of the last ten seconds.
    fn drive_with(
        capacity: f64,
        random: f64,
        running: usize,
        mut examine: impl FnMut(&SharedPace),
    ) -> (SharedPace, f64) {
        let (start, mut pace) = (Instant::now(), SharedPace::new());
        (0..running).for_each(|_| pace.handle_begin());
        let (mut sent, mut losses) = (0_u32, std::collections::VecDeque::new());
        for ms in 0..30_000_u32 {
            let now = start + Duration::from_millis(ms.into());
            let mut count = 0;
            while count < 20 && pace.next_at(now) <= now {
                pace.handle_launch(now);
                count += 1;
            }
            sent += if ms >= 20_000 { count } else { 0 };
            let carried = (capacity / 1e3 / f64::from(count.max(1))).min(1.0) * (1.0 - random);
            let lost = (f64::from(count) * (1.0 - carried)).round() as u32;
            let known = count - lost;
            pace.handle_exchanges(now, Exchanges { known, lost: 0 }, running);
            // A lost exchange is known when its SYN is repeated.
            losses.push_back((now, lost));
            while let Some((at, lost)) = losses.front().copied()
                && now - at >= Duration::from_secs(1)
            {
                losses.pop_front();
                let counts = pace.counted_from().is_none_or(|from| at >= from);
                let lost = if counts { lost } else { 0 };
                pace.handle_exchanges(now, Exchanges { known: lost, lost }, running);
            }
            examine(&pace);
        }
        (pace, f64::from(sent) / 10.0)
    }

    fn drive(capacity: f64, random: f64, running: usize) -> (SharedPace, f64) {
        drive_with(capacity, random, running, |_| {})
    }

    #[test]
    fn many_scans_together_do_not_exceed_a_link_for_long() {
        for capacity in [1_000.0, 5_000.0] {
            let (pace, rate) = drive(capacity, 0.0, 50);
            assert!((0.4 * capacity..1.5 * capacity).contains(&rate), "{rate}");
            assert!(pace.is_limited, "{pace:?}");
        }
    }

    #[test]
    fn random_loss_and_few_scans_are_not_limited() {
        for (random, running) in [(0.0, 50), (0.5, 50), (0.0, SCANS_MIN - 1)] {
            let capacity = if running < SCANS_MIN { 1_000.0 } else { 1e9 };
            let (pace, rate) = drive(capacity, random, running);
            assert!(rate > 19_000.0, "{random} {running}: {rate} {pace:?}");
        }
    }

    /// Regression: experiments on a lossy path that carries a high rate went down to a few hundred
    /// SYNs per second, where few exchanges end, and sometimes found that the loss had fallen.
    #[test]
    fn an_experiment_ends_at_a_rate_that_the_path_has_carried() {
        let mut limit_min = f64::INFINITY;
        drive_with(1e9, 0.25, 50, |pace| {
            limit_min = pace.limit.as_ref().map_or(limit_min, |limit| limit.rate.min(limit_min));
        });
        assert!((2_000.0..3_000.0).contains(&limit_min), "{limit_min}");
    }

    /// Regression: the usual loss never fell again, so later losses were not noticed.
    #[test]
    fn the_usual_loss_falls_again_when_nothing_is_lost() {
        let (mut pace, _) = drive(1e9, 0.5, 50);
        assert!(pace.loss_usual > 0.4, "{pace:?}");
        let last = pace.since.unwrap();
        for second in 1..=10 {
            let now = last + Duration::from_secs(second);
            pace.handle_exchanges(now, Exchanges { known: 1_000, lost: 0 }, 50);
        }
        assert!(pace.loss_usual < 0.1, "{pace:?}");
    }

    /// Regression: at the end of a list, only lost exchanges became known, and all silent targets
    /// were probed again and again.
    #[test]
    fn the_loss_of_a_sweep_does_not_follow_its_last_exchanges() {
        let (now, mut pace) = (Instant::now(), SharedPace::new());
        (0..SCANS_MIN).for_each(|_| pace.handle_begin());
        pace.handle_exchanges(now, Exchanges { known: 1_000, lost: 20 }, 10);
        for second in 1..=8 {
            let now = now + Duration::from_secs(second);
            pace.handle_exchanges(now, Exchanges { known: 0, lost: 5 }, 10);
        }
        let loss = pace.sweep_loss().loss;
        assert!((0.05..0.07).contains(&loss), "{loss}");
        (0..20).for_each(|_| pace.handle_exchanges(now, Exchanges { known: 8_000, lost: 0 }, 10));
        assert!(pace.sweep_loss().loss < 0.001, "{pace:?}");
    }

    /// Regression: targets with one port that answered the repeated SYN showed no loss.
    #[test]
    fn first_answers_to_repeated_syns_show_a_loss() {
        let (now, mut pace) = (Instant::now(), SharedPace::new());
        (0..SCANS_MIN).for_each(|_| pace.handle_begin());
        (0..96).for_each(|_| pace.handle_first_answer(0));
        (0..4).for_each(|_| pace.handle_first_answer(1));
        pace.handle_exchanges(now, Exchanges { known: 100, lost: 0 }, 10);
        assert_eq!(pace.sweep_loss(), SweepLoss { loss: 0.04, responding: 1.0 });
    }

    #[test]
    fn the_share_of_responding_targets_is_known() {
        let mut pace = SharedPace::new();
        (1..SCANS_MIN).for_each(|_| pace.handle_begin());
        pace.handle_first_answer(0);
        assert_eq!(pace.sweep_loss(), SweepLoss::default(), "a few scans are not judged together");
        let mut pace = SharedPace::new();
        (0..SCANS_MIN).for_each(|_| pace.handle_begin());
        assert_eq!(pace.sweep_loss(), SweepLoss { loss: 0.0, responding: 0.0 });
        (0..3).for_each(|_| pace.handle_first_answer(0));
        pace.handle_silent_end();
        let now = Instant::now();
        pace.handle_exchanges(now, Exchanges { known: 8, lost: LOST_MIN - 1 }, 10);
        assert_eq!(pace.sweep_loss(), SweepLoss { loss: 0.0, responding: 0.75 });
        pace.handle_exchanges(now, Exchanges { known: 0, lost: 1 }, 10);
        assert_eq!(pace.sweep_loss(), SweepLoss { loss: 0.5, responding: 0.75 });
    }
}
