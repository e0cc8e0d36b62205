//! The congestion control of one scan: it determines the send rate and paces the SYNs.
//!
//! All SYNs count: probes, pings, and the retransmissions that the kernel sends for silent ports. A
//! token bucket paces them. The rate depends on the answers:
//!
//! - **Silent**: before the first answer, `silent_pace` determines the rate.
//! - **Startup**: while the queueing delay is short, the rate is multiplied by `STARTUP_GAIN` in
//!   each round, as in BBR.
//! - **Cruise**: the rate grows slowly while the queueing delay is short, and is reduced while it
//!   is long. The queueing delay is the shortest round-trip time of a round minus the shortest one
//!   of the last seconds.
//! - **Loss** alone does not reduce the rate, because radio links lose packets at any rate. If more
//!   pings are lost than before, the rate is halved as an experiment. If the loss then falls, the
//!   scan had exceeded a limit, and the lower rate stays. Otherwise the loss is random, and the
//!   previous rate is restored. In a scan of many ports, a smaller share of answered SYNs leads to
//!   a similar experiment (`overload`).
//!
//! A round lasts a little longer than one round-trip time, and only the answers to probes that were
//! sent in it count in it. This module knows neither ports nor sockets. `scan` drives it.
//!
//! Invariants (`check_invariants`): the rate stays between `RATE_MIN` and `RATE_MAX`; the number of
//! tokens never exceeds one burst.

mod overload;

use std::time::{Duration, Instant};

use super::exchanges::LOSS_USUAL;
use super::measure::{
    AnswerRate, BURST_MIN, Evidence, GROUP_MIN, GroupVerdict, MODERATE_ANSWERED, ModerateQueue,
    PINGS_PER_ROUND, PingWindow, QueueLength, RatePeak, Reduction, ReductionVerdict, Round,
    RttStats, STARTUP_GAIN, Ticks, Trial, ping_gap, round_len,
};
use super::order;
use super::pings::{PingResult, PingWeight};
use super::share::ShareMeter;
use super::silent_pace;
use crate::pacer::{START_RATE, TokenBucket};
use overload::LossLimit;

/// The minimum rate in SYNs per second, whatever was measured: 100 SYNs per second are 6 kB/s.
const RATE_MIN: f64 = 100.0;
/// The minimum rate in SYNs per second unless answers have shown that the path is slower: loss, and
/// a queueing delay that only pings show, have other causes too.
const USUAL_RATE_MIN: f64 = 500.0;
/// The ratio of answers to SYNs from which on the answers show how slow a path is.
const DELIVERED_MIN: f64 = 0.03;
/// The rate in SYNs per second from which on SYNs are not paced: one thread starts fewer connects.
const RATE_MAX: f64 = 1_000_000.0;
/// The part of the rate before the first answer that is kept after it.
const SILENT_RATE_KEPT: f64 = 0.9;
/// The same factor if only pings are answered: with few RTT samples a queue is detected late.
const STARTUP_GAIN_PINGS: f64 = 1.5;
/// The growth of the rate in a round of cruise near the last limit.
const GROWTH: f64 = 0.04;
/// The growth well below the last limit, where no limit is expected.
const GROWTH_BELOW: f64 = 0.2;
/// The factor by which the growth rises per round beyond the last limit, as in CUBIC (RFC 9438).
const GROWTH_ACCELERATION: f64 = 1.25;
/// The maximum growth in a round of cruise.
const GROWTH_MAX: f64 = 0.5;
/// A rate below this part of the last limit is well below it; one above the inverse is beyond it.
const NEAR_LIMIT: f64 = 0.85;
/// The factor that reduces the rate if the queueing delay is long and is not falling.
const REDUCTION: f64 = 0.8;
/// The factor that reduces the rate if the queueing delay is moderate: a short queue may be full.
const CORRECTION: f64 = 0.97;
/// The rate is kept while the queueing delay falls below this part of its previous value per round.
const DRAINING_RATIO: f64 = 0.8;
/// The number of consecutive reductions without effect on the delay that show a changed path.
const UNCHANGED_QUEUE_ROUNDS_MAX: u32 = 3;
/// The number of RTT samples that a round needs before its queueing delay is judged.
const SAMPLES_MIN: u32 = 4;
/// The number of RTT samples that show a queue as reliably as if every SYN were answered.
const SAMPLES_MANY: u32 = 32;
/// The time without an answer after which a host is paced like one that has never answered.
const SILENCE_MAX: Duration = Duration::from_secs(2);
/// The maximum ratio of the rate to the used rate, if less was sent than the rate permits.
const USED_FACTOR: f64 = 2.0;
/// The number of pings after which an experiment with half the rate is judged.
const TRIAL_PINGS_MIN: u32 = 16;

/// The phase that determines the rate.
#[derive(Clone, Copy, Debug, PartialEq)]
enum RatePhase {
    /// There is no answer yet, or none for [`SILENCE_MAX`]. The phase ends with an answer. Its
    /// first SYN was sent at `since`.
    Silent { since: Option<Instant> },
    /// Answers come without queueing delay. The phase ends at the first sign of a limit.
    Startup,
    /// A limit was reached.
    Cruise {
        /// The rate at which a limit was reached last.
        limit: f64,
        /// The growth of the last round beyond the limit.
        growth: f64,
    },
}

/// The congestion control of one scan. See the module's documentation.
#[derive(Debug)]
pub struct Controller {
    phase: RatePhase,
    /// The maximum rate in the silent phase, which spreads the SYNs of all ports over a second.
    spread_rate: f64,
    /// The value of `spread_rate` if the number of probes in flight does not limit it.
    ports_rate: f64,
    /// The time of the last answer.
    answered_at: Instant,
    ticks: Ticks,
    /// The rate in SYNs per second.
    rate: f64,
    bucket: TokenBucket,
    rtt_stats: RttStats,
    used_rate: RatePeak,
    answer_rate: AnswerRate,
    round: Round,
    pings: PingWindow,
    /// The time of the last ping, and the number of SYNs sent since.
    pinged_at: Instant,
    sent_since_ping: u32,
    loss_usual: f64,
    trial: Option<Trial>,
    /// The last reduction, while it may turn out to be wrong, and the phase before it.
    reduction: Option<(Reduction, RatePhase)>,
    /// The queueing delay of the previous round.
    queue_before: Duration,
    /// The number of consecutive rounds in which the queueing delay stayed long and did not change.
    unchanged_queue_rounds: u32,
    moderate: ModerateQueue,
    /// `None` if the ports are too few to be probed in scattered order.
    share: Option<Box<ShareMeter>>,
    loss_limit: LossLimit,
}

impl Controller {
    /// The congestion control of a scan of `ports` ports, whose path is unknown.
    pub fn new(now: Instant, ports: usize) -> Self {
        let spread_rate = silent_pace::spread_rate(ports).min(RATE_MAX);
        Self {
            phase: RatePhase::Silent { since: None },
            spread_rate,
            ports_rate: spread_rate,
            answered_at: now,
            ticks: Ticks::new(now),
            rate: spread_rate.min(START_RATE),
            bucket: TokenBucket::new(now, BURST_MIN),
            rtt_stats: RttStats::new(now),
            answer_rate: AnswerRate { since: now, current: 0, last: 0 },
            used_rate: RatePeak { since: now, current: 0.0, previous: 0.0 },
            round: Round::new(now, Duration::ZERO, GROUP_MIN),
            pings: PingWindow::new(now),
            pinged_at: now,
            sent_since_ping: 0,
            loss_usual: LOSS_USUAL,
            trial: None,
            reduction: None,
            queue_before: Duration::ZERO,
            unchanged_queue_rounds: 0,
            moderate: ModerateQueue::default(),
            share: order::scatters(ports).then(|| Box::new(ShareMeter::new(now))),
            loss_limit: LossLimit::default(),
        }
    }

    /// Limits the rate in the silent phase: with `in_flight_max` probes in flight, each silent for
    /// `timeout`, a rate above that at which they expire would gain nothing.
    pub fn set_in_flight_max(&mut self, in_flight_max: usize, timeout: Duration) {
        let expiry_rate = (in_flight_max as f64 / timeout.as_secs_f64()).max(USUAL_RATE_MIN);
        self.spread_rate = self.ports_rate.min(expiry_rate);
    }

    /// A SYN is sent.
    pub fn handle_sent(&mut self, now: Instant) {
        self.ticks.handle_tick(now);
        self.refill(now);
        match &mut self.phase {
            RatePhase::Silent { since: since @ None } => *since = Some(now),
            RatePhase::Silent { since: Some(_) } => {}
            RatePhase::Startup | RatePhase::Cruise { .. } => {
                if now.saturating_duration_since(self.answered_at) > SILENCE_MAX {
                    self.phase = RatePhase::Silent { since: Some(now) };
                    self.trial = None;
                    self.set_rate(now, self.spread_rate.min(START_RATE));
                }
            }
        }
        self.bucket.take();
        if let Some(share) = &mut self.share {
            share.handle_sent(now, self.rtt_stats.floor().unwrap_or_default());
        }
        self.round.sent = self.round.sent.saturating_add(1);
        self.round.cohort_sent += u32::from(now <= self.round.cohort_ends_at);
        self.sent_since_ping = self.sent_since_ping.saturating_add(1);
    }

    /// The kernel has retransmitted a SYN, which delays the next SYN of the scan. It does not in
    /// the silent phase, whose rate keeps the first SYNs and the retransmissions apart.
    pub fn handle_retransmission(&mut self, now: Instant) {
        self.refill(now);
        if !matches!(self.phase, RatePhase::Silent { .. }) {
            self.bucket.owe(self.rate);
        }
        if let Some(share) = &mut self.share {
            share.handle_sent(now, self.rtt_stats.floor().unwrap_or_default());
        }
        self.round.sent = self.round.sent.saturating_add(1);
        self.sent_since_ping = self.sent_since_ping.saturating_add(1);
    }

    /// A ping is sent. Returns its weight: the number of SYNs that it represents, and whether their
    /// number was large enough to test the rate.
    pub fn handle_ping_sent(&mut self, now: Instant) -> PingWeight {
        let since = now.saturating_duration_since(self.pinged_at).as_secs_f64();
        let sent = std::mem::take(&mut self.sent_since_ping);
        self.pinged_at = now;
        self.handle_sent(now);
        let tests_rate = f64::from(sent) >= 0.5 * self.rate * since;
        PingWeight { syns: sent + 1, tests_rate }
    }

    /// An answer arrived, `rtt` after its SYN was sent at `sent_at`.
    pub fn handle_answer(&mut self, now: Instant, sent_at: Instant, rtt: Duration) {
        self.ticks.handle_tick(now);
        if now > self.answered_at {
            self.on_tick_end(now);
        }
        self.answered_at = now;
        self.rtt_stats.handle_sample(now, rtt);
        if let RatePhase::Silent { .. } = self.phase {
            // The SYNs sent so far may fill a queue, which would hide the true round-trip time.
            let silent_rate = self.rate(now);
            let rate = silent_rate.min(START_RATE.max(SILENT_RATE_KEPT * silent_rate));
            self.phase = RatePhase::Startup;
            self.sent_since_ping = 0;
            self.restart_share(now);
            self.set_rate(now, rate);
        }
        self.review_reduction(now, sent_at, rtt);
        self.judge_share(now, sent_at);
        let is_of_round = self.round.handle_answer(sent_at);
        // A queue that the lower rate of the previous round of startup has caused grows now.
        if is_of_round || self.phase == RatePhase::Startup {
            // The answer may have waited for this tick since the previous one, for example while
            // the loop was delayed. That time is not part of the round-trip time of the path.
            self.round.group.handle_sample(rtt.saturating_sub(self.ticks.gap));
        }
        self.check_invariants();
    }

    /// A port answered. Answers to pings do not count. `counted_sent_at` is the time of its SYN if
    /// it counts for the share of answered SYNs.
    pub fn handle_port_answer(&mut self, now: Instant, counted_sent_at: Option<Instant>) {
        self.answer_rate.handle_answer(now);
        if let (Some(share), Some(sent_at)) = (&mut self.share, counted_sent_at) {
            share.handle_port_answer(sent_at);
        }
    }

    /// A ping was answered, or is overdue and counts as lost. This must be called in the order in
    /// which the pings were sent: an answer is known earlier than a loss, so the recent loss would
    /// be understated otherwise.
    pub fn handle_ping(
        &mut self,
        now: Instant,
        sent_at: Instant,
        result: PingResult,
        weight: PingWeight,
    ) {
        self.round.pings += u32::from(sent_at >= self.round.started_at);
        self.judge_round(now);
        if !weight.tests_rate {
            return;
        }
        self.pings.handle_ping(sent_at, result);
        match self.trial {
            Some(trial) if self.pings.counts.known >= TRIAL_PINGS_MIN => {
                self.judge_trial(now, trial)
            }
            Some(_) => {}
            None if self.is_share_trial() => {}
            None => self.judge_loss(now),
        }
        self.check_invariants();
    }

    /// The time at which the next SYN may be sent; `now` if it may be sent at once.
    pub fn next_at(&self, now: Instant) -> Instant {
        if self.rate >= RATE_MAX {
            return now;
        }
        let burst = match self.phase {
            RatePhase::Silent { .. } => silent_pace::BURST,
            RatePhase::Startup | RatePhase::Cruise { .. } => 1.0,
        };
        now + self.bucket.wait_for_burst(now, self.rate(now), burst)
    }

    /// The interval between pings. In startup the rate depends on them most.
    pub fn ping_gap(&self, rtt: Duration) -> Duration {
        let rtt = if self.phase == RatePhase::Startup { rtt / 2 } else { rtt };
        ping_gap(rtt, self.rate)
    }

    /// The number of SYNs sent at once, because the poller waits for whole milliseconds.
    pub fn burst(&self) -> u32 {
        (self.rate * 1e-3) as u32 + 1
    }

    /// Adds the tokens for the time since the last call.
    fn refill(&mut self, now: Instant) {
        if self.bucket.needs_refill(now) {
            self.rate = self.rate(now);
            self.bucket.refill(now, self.rate);
        }
    }

    /// The present rate in SYNs per second. In the silent phase it rises with time.
    pub fn rate(&self, now: Instant) -> f64 {
        match self.phase {
            RatePhase::Silent { since: Some(since) } => {
                silent_pace::rate_after(now.saturating_duration_since(since), self.spread_rate)
            }
            RatePhase::Silent { since: None } | RatePhase::Startup | RatePhase::Cruise { .. } => {
                self.rate
            }
        }
    }

    /// The queueing delay in this round.
    fn queue(&self) -> Duration {
        let shortest = self.round.group.shortest().unwrap_or_default();
        shortest.saturating_sub(self.rtt_stats.floor().unwrap_or(shortest))
    }

    /// Evaluates the answers of the previous ticks, which are complete now.
    fn on_tick_end(&mut self, now: Instant) {
        if self.round.group.handle_tick_end() {
            let (queue, queue_max) = (self.queue(), self.rtt_stats.queue_max());
            match self.round.group.judge(queue, queue_max) {
                GroupVerdict::Long => self.on_queue_long(now),
                GroupVerdict::Unconfirmed => return,
                GroupVerdict::Short => {}
            }
        }
        self.judge_round(now);
    }

    /// Ends the round if there was time for the answers to its probes and enough of them arrived.
    fn judge_round(&mut self, now: Instant) {
        let floor = self.rtt_stats.floor().unwrap_or_default();
        let age = now.saturating_duration_since(self.round.started_at);
        if age < round_len(floor) || self.round.samples < SAMPLES_MIN {
            return;
        }
        self.used_rate.handle_rate(now, f64::from(self.round.sent) / age.as_secs_f64());
        let (queue, queue_max) = (self.queue(), self.rtt_stats.queue_max());
        if queue > queue_max {
            return self.on_queue_long(now);
        }
        let is_answered = self.round.is_answered();
        let is_sampled = is_answered || self.round.samples >= SAMPLES_MANY;
        let is_pinged = self.round.pings >= PINGS_PER_ROUND / 2;
        // In startup the pings are frequent enough to show a queue.
        let is_long = age >= 2 * round_len(floor) || self.phase == RatePhase::Startup;
        if !is_answered && !is_pinged || !is_sampled && !is_long {
            return;
        }
        let was_used = f64::from(self.round.sent) >= 0.5 * self.rate * age.as_secs_f64();
        let length = QueueLength::of(queue, queue_max);
        let evidence = if is_sampled { Evidence::Ample } else { Evidence::Sparse };
        (self.queue_before, self.unchanged_queue_rounds) = (queue, 0);
        let count = match self.phase {
            RatePhase::Cruise { .. } if is_answered => MODERATE_ANSWERED,
            RatePhase::Cruise { .. } => 1,
            RatePhase::Silent { .. } | RatePhase::Startup => 0,
        };
        if self.moderate.handle_round(length, count) {
            return self.on_path_changed(now);
        }
        let may_grow = was_used && self.trial.is_none() && self.takes_growth();
        let rate = self.rate * if may_grow { self.growth(length, evidence) } else { 1.0 };
        let tested = (USED_FACTOR * self.used_rate.peak()).max(START_RATE);
        let rate = if was_used { rate } else { rate.min(tested) };
        self.set_rate(now, rate.max(self.usual_rate_min().min(self.rate)));
    }

    /// The factor for the rate after a round without a long queueing delay.
    fn growth(&mut self, queue: QueueLength, evidence: Evidence) -> f64 {
        let is_short = queue == QueueLength::Short;
        match &mut self.phase {
            RatePhase::Silent { .. } => 1.0,
            RatePhase::Startup if is_short && evidence == Evidence::Ample => STARTUP_GAIN,
            RatePhase::Startup if is_short => (STARTUP_GAIN_PINGS * self.spread_rate / self.rate)
                .clamp(STARTUP_GAIN_PINGS, STARTUP_GAIN),
            RatePhase::Startup => {
                self.phase = RatePhase::Cruise { limit: self.rate, growth: GROWTH };
                1.0
            }
            RatePhase::Cruise { .. } if !is_short => CORRECTION,
            RatePhase::Cruise { limit, .. } if self.rate < *limit * NEAR_LIMIT => {
                1.0 + GROWTH_BELOW
            }
            RatePhase::Cruise { limit, growth } if self.rate > *limit / NEAR_LIMIT => {
                *growth = (*growth * GROWTH_ACCELERATION).min(GROWTH_MAX);
                1.0 + *growth
            }
            RatePhase::Cruise { .. } => 1.0 + GROWTH,
        }
    }

    /// The queueing delay is too long: the rate is reduced so that the queue drains.
    fn on_queue_long(&mut self, now: Instant) {
        let queue = self.queue();
        let is_draining = queue < self.queue_before.mul_f64(DRAINING_RATIO);
        // Pings alone do not show a very slow path: in a few samples, jitter looks like a queue.
        let is_delivered = self.answer_rate.rate(now) >= DELIVERED_MIN * self.rate;
        // A queue whose length does not change because it is full drops packets.
        let is_full = is_delivered && self.pings.counts.exceeds(self.loss_usual);
        let is_unchanged =
            !is_draining && !is_full && self.queue_before > queue.mul_f64(DRAINING_RATIO);
        self.queue_before = queue;
        self.unchanged_queue_rounds =
            if is_unchanged { self.unchanged_queue_rounds + 1 } else { 0 };
        if self.unchanged_queue_rounds >= UNCHANGED_QUEUE_ROUNDS_MAX {
            return self.on_path_changed(now);
        }
        let (rate, limit) = match self.phase {
            RatePhase::Silent { .. } => (self.rate, self.rate),
            RatePhase::Startup => {
                let limit = self.round.startup_limit(now, self.rate);
                (limit.min(self.rate / STARTUP_GAIN), limit)
            }
            RatePhase::Cruise { .. } if is_draining => (self.rate, self.rate),
            RatePhase::Cruise { .. } => (self.rate * REDUCTION, self.rate),
        };
        let rate_min = if is_delivered { RATE_MIN } else { self.usual_rate_min() };
        let rate = rate.max(rate_min).min(self.rate);
        if rate < self.rate {
            let sent_at = self.round.sampled_at;
            let reduction = Reduction { sent_at, queue, rate_before: self.rate };
            self.reduction = Some((reduction, self.phase));
            self.phase = RatePhase::Cruise { limit, growth: GROWTH };
        }
        self.trial = None;
        self.restart_share(now);
        self.set_rate(now, rate);
    }

    /// Reverts a reduction if the delay was not caused by a queue of the path: see [`Reduction`].
    fn review_reduction(&mut self, now: Instant, sent_at: Instant, rtt: Duration) {
        let Some((reduction, phase_before)) = self.reduction else { return };
        let queue = rtt.saturating_sub(self.rtt_stats.floor().unwrap_or_default());
        match reduction.judge(sent_at, queue, self.rate, self.rtt_stats.deviation()) {
            ReductionVerdict::Pending => {}
            ReductionVerdict::Kept => self.reduction = None,
            ReductionVerdict::Wrong => {
                self.reduction = None;
                (self.queue_before, self.unchanged_queue_rounds) = (Duration::ZERO, 0);
                self.phase = phase_before;
                self.set_rate(now, reduction.rate_before);
            }
        }
    }

    /// A delay that does not depend on the rate is not caused by a queue of the scan. Therefore the
    /// round-trip time of the path has become longer.
    fn on_path_changed(&mut self, now: Instant) {
        let shortest = self.round.group.shortest().unwrap_or(Duration::MAX);
        self.rtt_stats.restart(now, shortest);
        (self.queue_before, self.unchanged_queue_rounds) = (Duration::ZERO, 0);
        self.moderate = ModerateQueue::default();
        self.phase = RatePhase::Startup;
        (self.trial, self.reduction) = (None, None);
        self.set_rate(now, self.rate);
    }

    /// Sets the rate and begins a round.
    fn set_rate(&mut self, now: Instant, rate: f64) {
        self.refill(now);
        self.rate = rate.min(self.loss_limit.rate_max.unwrap_or(RATE_MAX)).max(RATE_MIN);
        self.round = self.round.next(now, self.rtt_stats.floor().unwrap_or_default());
    }

    fn check_invariants(&self) {
        debug_assert!((RATE_MIN..=RATE_MAX).contains(&self.rate), "1: the rate is bounded");
        self.bucket.check_invariants(RATE_MAX);
        debug_assert!((0.0..=1.0).contains(&self.loss_usual), "3: a loss is between 0 and 1");
        debug_assert!(
            self.pings.counts.lost <= self.pings.counts.known,
            "4: each lost ping was sent"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Controller {
        pub(in super::super) fn state_line(&self) -> String {
            format!(
                "{} q {:?}/{:?} n {} pings {}/{} usual {:.2} trial {}",
                match self.phase {
                    RatePhase::Silent { .. } => "silent".to_owned(),
                    RatePhase::Startup => "startup".to_owned(),
                    RatePhase::Cruise { limit, growth } => format!("cruise {limit:.0} {growth:.2}"),
                },
                self.queue(),
                self.rtt_stats.queue_max(),
                self.round.samples,
                self.pings.counts.lost,
                self.pings.counts.known,
                self.loss_usual,
                self.trial.is_some()
            )
        }
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// Sends SYNs at the rate of the controller for the time `length`, and returns their number.
    /// Each SYN is answered after `rtt`, which is computed from the present rate.
    fn drive(
        controller: &mut Controller,
        from: Instant,
        length: Duration,
        rtt: impl Fn(f64) -> Duration,
    ) -> u32 {
        let mut answers = std::collections::VecDeque::new();
        let (mut now, mut sent) = (from, 0);
        while now < from + length {
            while controller.next_at(now) <= now && sent < 2_000_000 && answers.len() < 100_000 {
                controller.handle_sent(now);
                sent += 1;
                answers.push_back((now, rtt(controller.rate(now))));
                now += Duration::from_micros(2);
            }
            now += Duration::from_micros(500);
            while let Some((at, rtt)) =
                answers.front().copied().filter(|(at, rtt)| *at + *rtt <= now)
            {
                answers.pop_front();
                controller.handle_port_answer(now, None);
                controller.handle_answer(now, at, rtt);
            }
        }
        sent
    }

    #[test]
    fn the_syns_for_a_silent_host_are_spread_over_about_a_second() {
        let now = Instant::now();
        let mut controller = Controller::new(now, 10_000);
        let mut sent = 0;
        for step in 0..1300 {
            let at = now + ms(step);
            while controller.next_at(at) <= at {
                controller.handle_sent(at);
                sent += 1;
            }
            if step == 0 {
                assert_eq!(sent, 10, "the first SYNs are sent at once");
            }
        }
        assert!((9_000..=13_000).contains(&sent), "{sent}");
        controller.set_in_flight_max(200, ms(2000));
        assert!(controller.rate(now + ms(1300)) <= USUAL_RATE_MIN.max(100.0), "as many as expire");
        controller.set_in_flight_max(20_000, ms(2000));
        assert_eq!(controller.rate(now + ms(1300)), 10_000.0, "the rate grows with the allowance");
    }

    #[test]
    fn a_reduction_is_not_reverted_after_the_path_has_changed() {
        let now = Instant::now();
        let mut controller = Controller::new(now, 65_535);
        controller.handle_answer(now, now, ms(20));
        let cruise = RatePhase::Cruise { limit: 90_000.0, growth: GROWTH };
        let reduction = Reduction { sent_at: now, queue: ms(80), rate_before: 90_000.0 };
        controller.reduction = Some((reduction, cruise));
        controller.on_path_changed(now);
        let rate = controller.rate(now);
        controller.handle_answer(now + ms(25), now + ms(5), ms(20));
        assert_eq!((controller.phase, controller.rate(now)), (RatePhase::Startup, rate));
    }

    #[test]
    fn the_rate_for_a_near_host_is_hardly_limited_after_some_milliseconds() {
        let now = Instant::now();
        let mut controller = Controller::new(now, 65_535);
        drive(&mut controller, now, ms(40), |_| Duration::from_micros(100));
        assert!(controller.rate(now + ms(40)) > 200_000.0, "{controller:?}");
    }

    #[test]
    fn the_rate_stays_near_the_limit_above_which_a_queue_grows() {
        let now = Instant::now();
        let mut controller = Controller::new(now, 65_535);
        let queue = |rate: f64| if rate > 10_000.0 { ms(15) } else { ms(0) };
        drive(&mut controller, now, ms(5000), |rate| ms(20) + queue(rate));
        let rate = controller.rate(now + ms(5000));
        assert!((5_000.0..16_000.0).contains(&rate), "{rate}");
    }

    #[test]
    fn jitter_does_not_reduce_the_rate() {
        let now = Instant::now();
        let mut controller = Controller::new(now, 65_535);
        let count = std::cell::Cell::new(0_u32);
        let jitter = |_| {
            count.set(count.get() + 1);
            ms(50) + Duration::from_micros((u64::from(count.get()) * 7919) % 20_000)
        };
        drive(&mut controller, now, ms(700), jitter);
        assert!(controller.rate(now + ms(700)) > 50_000.0, "{controller:?}");
    }

    #[test]
    fn one_rtt_sample_that_is_too_short_does_not_limit_the_rate() {
        let now = Instant::now();
        let mut controller = Controller::new(now, 65_535);
        let count = std::cell::Cell::new(0_u32);
        let one_is_short = |_| {
            count.set(count.get() + 1);
            if count.get() == 200 { ms(47) } else { ms(50) }
        };
        drive(&mut controller, now, ms(3000), one_is_short);
        assert!(controller.rate(now + ms(3000)) > 100_000.0, "{controller:?}");
    }

    #[test]
    fn answers_that_waited_for_a_delayed_loop_do_not_reduce_the_rate() {
        let now = Instant::now();
        let mut controller = Controller::new(now, 65_535);
        drive(&mut controller, now, ms(200), |_| ms(50));
        let delayed_from = now + ms(270);
        for step in 200..=270 {
            controller.handle_sent(now + ms(step));
        }
        let before = controller.rate(delayed_from);
        // The loop is delayed by ten milliseconds. The answers arrived at the start of the delay.
        let at = delayed_from + ms(10);
        for _ in 0..16 {
            controller.handle_answer(at, at - ms(60), ms(60));
        }
        controller.handle_answer(at + ms(50), at, ms(50));
        assert!(controller.rate(at + ms(50)) >= before, "{before}: {controller:?}");
    }

    #[test]
    fn one_tick_with_many_delayed_answers_does_not_reduce_a_high_rate() {
        let is_reduced = |first: u64, late_ticks| {
            let now = Instant::now();
            let mut controller = Controller::new(now, 65_535);
            drive(&mut controller, now, ms(300), |_| ms(50));
            let rate = controller.rate(now + ms(300));
            let lowest = (1..100).map(|tick| {
                let at = now + ms(300 + tick);
                controller.handle_sent(at);
                let is_late = (first..first + late_ticks).contains(&tick);
                let rtt = ms(if is_late { 62 } else { 50 });
                (0..130).for_each(|_| controller.handle_answer(at, at - rtt, rtt));
                controller.rate(at)
            });
            lowest.fold(rate, f64::min) < rate
        };
        let reduced = |late| (1..90).filter(|first| is_reduced(*first, late)).count();
        assert_eq!(reduced(1), 0);
        assert!(reduced(4) > 0);
    }

    #[test]
    fn startup_ends_with_the_first_answers_that_were_queued() {
        let (capacity, rtt) = (50_000.0, ms(10));
        let now = Instant::now();
        let mut controller = Controller::new(now, 65_535);
        let (mut at, mut free_at, mut longest) = (now, now, Duration::ZERO);
        let mut answers = std::collections::VecDeque::new();
        while at < now + ms(400) {
            at += Duration::from_micros(500);
            while controller.next_at(at) <= at {
                controller.handle_sent(at);
                free_at = free_at.max(at) + Duration::from_secs_f64(1.0 / capacity);
                longest = longest.max(free_at - at);
                answers.push_back((free_at + rtt, at));
            }
            while let Some((due, sent_at)) = answers.front().copied()
                && due <= at
            {
                answers.pop_front();
                controller.handle_port_answer(at, None);
                controller.handle_answer(at, sent_at, at - sent_at);
            }
        }
        assert!((ms(20)..ms(65)).contains(&longest), "{longest:?}");
    }

    #[test]
    fn pings_sent_before_an_experiment_do_not_count_in_it() {
        let now = Instant::now();
        let mut controller = Controller::new(now, 65_535);
        drive(&mut controller, now, ms(150), |_| ms(20));
        let weight = PingWeight { syns: 20, tests_rate: true };
        let at = |millis: u64| now + ms(150 + millis);
        let mut ping = |at, sent_at, result| {
            controller.handle_ping(at, sent_at, result, weight);
            (controller.trial.is_some(), controller.rate(at))
        };
        let begun = (0..8).map(|_| ping(at(10), at(9), PingResult::Lost)).last();
        let (is_trial, rate) = begun.expect("eight pings were lost");
        assert!(is_trial);
        for _ in 0..40 {
            assert_eq!(ping(at(20), at(9), PingResult::Lost), (true, rate), "the former rate");
        }
        for _ in 0..16 {
            ping(at(30), at(10), PingResult::Answered);
        }
        assert_eq!(ping(at(40), at(30), PingResult::Answered), (false, rate), "the rate stays");
    }

    #[test]
    fn loss_reduces_the_rate_only_if_it_depends_on_the_rate() {
        for is_random in [true, false] {
            let now = Instant::now();
            let mut controller = Controller::new(now, 65_535);
            drive(&mut controller, now, ms(150), |_| ms(20));
            let (before, mut at) = (controller.rate(now + ms(150)), now + ms(150));
            for n in 0..400_u32 {
                at += ms(1);
                let loss = if is_random || controller.rate(at) > 0.7 * before { 4 } else { 0 };
                let weight = PingWeight { syns: 20, tests_rate: true };
                let result = if n % 10 < loss { PingResult::Lost } else { PingResult::Answered };
                controller.handle_ping(at, at - ms(1), result, weight);
            }
            let after = controller.rate(at);
            assert_eq!(after >= before, is_random, "{before} to {after}");
        }
    }

    #[test]
    fn a_host_that_falls_silent_is_paced_like_one_that_never_answered() {
        let now = Instant::now();
        let mut controller = Controller::new(now, 65_535);
        controller.set_in_flight_max(1000, ms(2000));
        drive(&mut controller, now, ms(200), |_| ms(10));
        let later = now + ms(2500);
        controller.handle_sent(later);
        assert!(matches!(controller.phase, RatePhase::Silent { .. }));
        assert!(controller.rate(later + ms(1000)) <= USUAL_RATE_MIN.max(500.0));
    }

    #[test]
    fn retransmissions_of_the_kernel_delay_the_next_syn() {
        let now = Instant::now();
        let mut controller = Controller::new(now, 65_535);
        controller.handle_answer(now, now, ms(20));
        for _ in 0..50 {
            controller.handle_retransmission(now);
        }
        let wait = controller.next_at(now) - now;
        assert!((ms(5)..=ms(22)).contains(&wait), "{wait:?}");
    }
}
