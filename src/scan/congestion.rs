//! How fast one scan may send: pacing and congestion control.
//!
//! The unit is the SYN: each probe, each ping, and each repeat that the kernel sends for a port
//! that stays silent. A token bucket spreads them over time. The rate follows what the path shows:
//!
//! - While nothing has answered, the pace is that of `silent_pace`.
//! - **Startup**: while round trips stay short, each round grows the rate by `STARTUP_GAIN`, as
//!   in BBR.
//! - **Cruise**: small growth while the queue is short, reduction while it is long. The length of
//!   the queue is the shortest round trip of a round less the shortest of the last seconds.
//! - **Loss** alone does not slow a scan down, since radio links lose packets at any rate. Where
//!   pings are lost more often than before, the rate is halved as an experiment. If that helps, a
//!   limit was met, and the lower rate stays; if it does not, the loss is random, and the rate is
//!   restored.
//!
//! A round lasts a little longer than a round trip, and only answers to probes of that round count
//! in it. It knows neither ports nor sockets. Driven by `scan`.
//!
//! Invariants (`check_invariants`): the rate stays between `RATE_MIN` and `RATE_MAX`; tokens
//! never exceed one burst.

use std::time::{Duration, Instant};

use super::measure::{
    AnswerRate, BURST_MIN, Evidence, GROUP_MAX, GROUP_MIN, LOSS_USUAL, MODERATE_ANSWERED,
    ModerateQueue, PINGS_PER_ROUND, PingWindow, QueueLength, RatePeak, Reduction, ReductionVerdict,
    Round, RttStats, Ticks, Trial, ping_gap, round_len,
};
use super::pings::{PingResult, PingWeight};
use super::silent_pace::{self, START_RATE};
use crate::pacer::TokenBucket;

/// No measurement makes a scan slower than this: 500 SYNs a second are 30 kB/s.
const RATE_MIN: f64 = 500.0;
/// Beyond this rate nothing is paced: one thread starts fewer connects.
const RATE_MAX: f64 = 1_000_000.0;
/// This part of the rate at which a host was probed while it was silent is kept once it answers.
const SILENT_RATE_KEPT: f64 = 0.9;
/// Growth of the rate in each round of startup: 2 / ln 2, as in BBR.
const STARTUP_GAIN: f64 = 2.89;
/// The same where only pings are answered: few round trips show a queue late.
const STARTUP_GAIN_PINGS: f64 = 1.5;
/// Growth of the rate in a round of cruise near the rate that met a limit last.
const GROWTH: f64 = 0.04;
/// Growth well below that rate: the limit is known to be farther up.
const GROWTH_BELOW: f64 = 0.2;
/// The growth accelerates by this factor with each round beyond that rate, as in CUBIC (RFC 9438).
const GROWTH_ACCELERATION: f64 = 1.25;
/// Growth of one round in cruise at most.
const GROWTH_MAX: f64 = 0.5;
/// A rate below this part of the last limit is well below it; one above its inverse is beyond.
const NEAR_LIMIT: f64 = 0.85;
/// Reduction of the rate in a round that finds the queue long and not shorter than before.
const REDUCTION: f64 = 0.8;
/// Reduction in a round that finds a queue of some length, which may be a short one that is full.
const CORRECTION: f64 = 0.97;
/// A queue that shrinks below this part of what it was is left to drain.
const DRAINING_RATIO: f64 = 0.8;
/// Reductions in a row that leave the queue as it was show that the path has changed.
const UNCHANGED_QUEUE_ROUNDS_MAX: u32 = 3;
/// Round trips that a round needs to be judged.
const SAMPLES_MIN: u32 = 4;
/// Round trips that show a queue as well as if every SYN were answered.
const SAMPLES_MANY: u32 = 32;
/// A group of at least so many that shows a long queue ends a round before its time.
const SAMPLES_EARLY_MIN: u32 = 4;
/// Nothing was heard for so long: the pace is that of a host that has never answered.
const SILENCE_MAX: Duration = Duration::from_secs(2);
/// The rate is at most so many times the one that was used.
const USED_FACTOR: f64 = 2.0;
/// Pings that the second half of an experiment needs.
const TRIAL_PINGS_MIN: u32 = 16;
/// A loss that falls below this part of what it was follows the rate, so a limit was met.
const LOSS_DROP_RATIO: f64 = 0.7;
/// A round that is answered so well needs no pings.
const COHORT_ANSWERED_MIN: f64 = 0.9;
/// No path loses more than this at random.
const LOSS_RANDOM_MAX: f64 = 0.6;
/// Answers of ports, as a part of the SYNs, below which they do not show a limit.
const DELIVERY_RATIO_MIN: f64 = 0.05;
/// Where a limit allows so many answers in a second, so many times as many SYNs are sent.
const LIMIT_FACTOR: f64 = 1.5;

/// What the rate follows.
#[derive(Clone, Copy, Debug, PartialEq)]
enum RatePhase {
    /// Nothing has answered. Left at the first answer.
    Silent {
        /// When sending began, once it has.
        since: Option<Instant>,
    },
    /// Answers come without delay. Left at the first sign of a limit.
    Startup,
    /// The limit is near.
    Cruise {
        /// The rate that met a limit last.
        limit: f64,
        /// What the next clean round beyond the limit adds.
        growth: f64,
    },
}

/// The pace of one scan. See the module's documentation.
#[derive(Debug)]
pub struct Controller {
    phase: RatePhase,
    /// SYNs per second that spread all ports while nothing answers.
    spread_rate: f64,
    /// When the last answer came.
    answered_at: Instant,
    ticks: Ticks,
    /// SYNs per second.
    rate: f64,
    bucket: TokenBucket,
    rtt_stats: RttStats,
    used_rate: RatePeak,
    answer_rate: AnswerRate,
    round: Round,
    pings: PingWindow,
    /// When the last ping was sent, and SYNs sent since.
    pinged_at: Instant,
    sent_since_ping: u32,
    loss_usual: f64,
    trial: Option<Trial>,
    /// The last reduction, while it may have been wrong, and the phase before.
    reduction: Option<(Reduction, RatePhase)>,
    /// How long the queue was in the round before.
    queue_before: Duration,
    /// Rounds in a row in which the queue was as long as before, though the rate was reduced.
    unchanged_queue_rounds: u32,
    moderate: ModerateQueue,
}

impl Controller {
    /// A controller for a scan that has so many ports to send at once, of which nothing is known.
    pub fn new(now: Instant, ports: usize) -> Self {
        let spread_rate = silent_pace::spread_rate(ports).min(RATE_MAX);
        let rate = spread_rate.min(START_RATE);
        Self {
            phase: RatePhase::Silent { since: None },
            spread_rate,
            answered_at: now,
            ticks: Ticks::new(now),
            rate,
            bucket: TokenBucket::new(now, BURST_MIN),
            rtt_stats: RttStats::new(now),
            answer_rate: AnswerRate { since: now, current: 0, last: 0 },
            used_rate: RatePeak { since: now, current: 0.0, previous: 0.0 },
            round: Round::new(now, Duration::ZERO, GROUP_MIN),
            pings: PingWindow::default(),
            pinged_at: now,
            sent_since_ping: 0,
            loss_usual: LOSS_USUAL,
            trial: None,
            reduction: None,
            queue_before: Duration::ZERO,
            unchanged_queue_rounds: 0,
            moderate: ModerateQueue::default(),
        }
    }

    /// So many probes may be in flight at most, each for as long as `timeout` if it stays silent:
    /// to send faster than they end gains nothing.
    pub fn set_in_flight_max(&mut self, in_flight_max: usize, timeout: Duration) {
        let ended = (in_flight_max as f64 / timeout.as_secs_f64()).max(RATE_MIN);
        self.spread_rate = self.spread_rate.min(ended);
    }

    /// A SYN leaves.
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
        self.round.sent = self.round.sent.saturating_add(1);
        self.round.cohort_sent += u32::from(now <= self.round.cohort_ends_at);
        self.sent_since_ping = self.sent_since_ping.saturating_add(1);
    }

    /// The kernel repeated a SYN by itself: the next of ours waits for its share. While nothing
    /// answers, the spread allows for it.
    pub fn handle_retransmission(&mut self, now: Instant) {
        self.refill(now);
        if !matches!(self.phase, RatePhase::Silent { .. }) {
            self.bucket.owe(self.rate);
        }
        self.round.sent = self.round.sent.saturating_add(1);
        self.sent_since_ping = self.sent_since_ping.saturating_add(1);
    }

    /// A ping leaves. What becomes of it stands for so many SYNs; it says something about the rate
    /// only if the rate was used.
    pub fn handle_ping_sent(&mut self, now: Instant) -> PingWeight {
        let since = now.saturating_duration_since(self.pinged_at).as_secs_f64();
        let sent = std::mem::take(&mut self.sent_since_ping);
        self.pinged_at = now;
        self.handle_sent(now);
        let tests_rate = f64::from(sent) >= 0.5 * self.rate * since;
        PingWeight { syns: sent + 1, tests_rate }
    }

    /// An answer came, `rtt` after its SYN left at `sent_at`.
    pub fn handle_answer(&mut self, now: Instant, sent_at: Instant, rtt: Duration) {
        self.ticks.handle_tick(now);
        if now > self.answered_at {
            self.on_tick_end(now);
        }
        self.answered_at = now;
        self.rtt_stats.handle_sample(now, rtt);
        if let RatePhase::Silent { .. } = self.phase {
            // What was sent so far may stand in a queue, which would hide the round trip.
            let used = self.rate(now);
            let rate = used.min(START_RATE.max(SILENT_RATE_KEPT * used));
            self.phase = RatePhase::Startup;
            self.sent_since_ping = 0;
            self.set_rate(now, rate);
        }
        self.review_reduction(now, sent_at, rtt);
        // The time of a probe is kept in whole microseconds.
        if sent_at + Duration::from_micros(1) > self.round.started_at {
            self.round.samples += 1;
            self.round.sampled_at = sent_at;
            self.round.cohort_answered += u32::from(sent_at <= self.round.cohort_ends_at);
            // The answer may have waited for this tick since the one before, as while the loop was
            // held up. The path did not take that time.
            self.round.group.handle_sample(rtt.saturating_sub(self.ticks.gap));
        }
        self.check_invariants();
    }

    /// A port answered, not a ping.
    pub fn handle_port_answer(&mut self, now: Instant) {
        self.answer_rate.handle_answer(now);
    }

    /// A ping was answered, or is overdue and counts as lost. To be called in the order in which
    /// pings were sent: an answer comes sooner than its absence, and would count too much.
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
        self.pings.sent += 1;
        self.pings.lost += u32::from(result == PingResult::Lost);
        match self.trial {
            Some(trial) if self.pings.sent >= TRIAL_PINGS_MIN => self.judge_trial(now, trial),
            Some(_) => {}
            None => self.judge_loss(now),
        }
        self.check_invariants();
    }

    /// When the next SYN may leave; not later than `now` if it may at once.
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

    /// The time between pings.
    pub fn ping_gap(&self, rtt: Duration) -> Duration {
        ping_gap(rtt, self.rate)
    }

    /// SYNs that leave together where the poller wakes the loop by the millisecond.
    pub fn burst(&self) -> u32 {
        (self.rate * 1e-3) as u32 + 1
    }

    /// Puts in what time has brought since the last call.
    fn refill(&mut self, now: Instant) {
        if self.bucket.is_stale(now) {
            self.rate = self.rate(now);
            self.bucket.refill(now, self.rate);
        }
    }

    /// SYNs per second, which rise by time alone while nothing answers.
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

    /// How long the queue was in this round.
    fn queue(&self) -> Duration {
        let shortest = self.round.group.shortest().unwrap_or_default();
        shortest.saturating_sub(self.rtt_stats.floor().unwrap_or(shortest))
    }

    /// Judges the answers of the ticks before, which are complete now.
    fn on_tick_end(&mut self, now: Instant) {
        let may_end_early =
            self.round.group.handle_tick_end() && self.round.samples >= SAMPLES_EARLY_MIN;
        if may_end_early && self.queue() > self.rtt_stats.queue_max() {
            self.on_queue_long(now);
        }
        self.judge_round(now);
    }

    /// Ends the round once its probes had time to be answered and enough of them were.
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
        let is_answered = f64::from(self.round.cohort_answered)
            >= COHORT_ANSWERED_MIN * f64::from(self.round.cohort_sent);
        let is_sampled = is_answered || self.round.samples >= SAMPLES_MANY;
        let is_early = !is_sampled && age < 2 * round_len(floor);
        if is_early || !is_answered && self.round.pings < PINGS_PER_ROUND / 2 {
            return;
        }
        let was_used = f64::from(self.round.sent) >= 0.5 * self.rate * age.as_secs_f64();
        let length =
            if queue <= queue_max / 2 { QueueLength::Short } else { QueueLength::Moderate };
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
        let may_grow = was_used && self.trial.is_none();
        let rate = self.rate * if may_grow { self.growth(length, evidence) } else { 1.0 };
        let tested = (USED_FACTOR * self.used_rate.peak()).max(START_RATE);
        self.set_rate(now, if was_used { rate } else { rate.min(tested) });
    }

    /// The factor by which a clean round raises the rate.
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

    /// The queue is too long: less is sent than it drains.
    fn on_queue_long(&mut self, now: Instant) {
        let queue = self.queue();
        let is_draining = queue < self.queue_before.mul_f64(DRAINING_RATIO);
        let is_unchanged = !is_draining && self.queue_before > queue.mul_f64(DRAINING_RATIO);
        self.queue_before = queue;
        self.unchanged_queue_rounds =
            if is_unchanged { self.unchanged_queue_rounds + 1 } else { 0 };
        if self.unchanged_queue_rounds >= UNCHANGED_QUEUE_ROUNDS_MAX {
            return self.on_path_changed(now);
        }
        let (rate, limit) = match self.phase {
            RatePhase::Silent { .. } => (self.rate, self.rate),
            // The limit lies between the last two rates, and the queue has to drain.
            RatePhase::Startup => (self.rate / STARTUP_GAIN, self.rate / STARTUP_GAIN.sqrt()),
            RatePhase::Cruise { .. } if is_draining => (self.rate, self.rate),
            RatePhase::Cruise { .. } => (self.rate * REDUCTION, self.rate),
        };
        if rate < self.rate {
            let sent_at = self.round.sampled_at;
            let reduction = Reduction { sent_at, queue, rate_before: self.rate };
            self.reduction = Some((reduction, self.phase));
            self.phase = RatePhase::Cruise { limit, growth: GROWTH };
        }
        self.trial = None;
        self.set_rate(now, rate);
    }

    /// Takes a reduction back where the long queue was none of the path. A process that is held up
    /// for a moment, here or there, delays answers as a queue does, but then catches up at once. A
    /// queue that the scan caused drains by the difference of the rates only.
    fn review_reduction(&mut self, now: Instant, sent_at: Instant, rtt: Duration) {
        let Some((reduction, phase_before)) = self.reduction else { return };
        let queue = rtt.saturating_sub(self.rtt_stats.floor().unwrap_or_default());
        let margin = self.rtt_stats.deviation();
        match reduction.judge(sent_at, queue, self.rate, margin) {
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

    /// A queue that stays the same whatever the rate is not of our making: the round trip of the
    /// path has become longer.
    fn on_path_changed(&mut self, now: Instant) {
        let shortest = self.round.group.shortest().unwrap_or(Duration::MAX);
        self.rtt_stats.restart(now, shortest);
        (self.queue_before, self.unchanged_queue_rounds) = (Duration::ZERO, 0);
        self.moderate = ModerateQueue::default();
        self.phase = RatePhase::Startup;
        self.trial = None;
        self.set_rate(now, self.rate);
    }

    /// Looks into a loss that is higher than usual.
    fn judge_loss(&mut self, now: Instant) {
        let loss = self.pings.loss();
        if self.pings.exceeds(self.loss_usual) {
            self.trial = Some(Trial { rate_before: self.rate, loss_before: loss });
            self.pings = PingWindow::default();
            let used = self.used_rate.peak().max(START_RATE);
            self.set_rate(now, 0.5 * self.rate.min(used));
        } else if self.pings.is_full() {
            self.loss_usual = self.pings.usual_after(self.loss_usual);
            self.pings = PingWindow::default();
        }
    }

    /// Whether the loss followed the rate down.
    fn judge_trial(&mut self, now: Instant, trial: Trial) {
        let loss = self.pings.loss();
        self.trial = None;
        self.pings = PingWindow::default();
        let delivery_rate = self.answer_rate.rate(now);
        if loss > LOSS_RANDOM_MAX {
            // A limit by the second may be spent: what is answered in a second is what it allows.
            let is_limit = delivery_rate > DELIVERY_RATIO_MIN * self.rate;
            let rate = if is_limit { LIMIT_FACTOR * delivery_rate } else { self.rate };
            let rate = rate.min(self.rate);
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

    /// Begins a round at this rate.
    fn set_rate(&mut self, now: Instant, rate: f64) {
        self.refill(now);
        self.rate = rate.clamp(RATE_MIN, RATE_MAX);
        let group = (self.round.samples / 8).clamp(GROUP_MIN, GROUP_MAX);
        self.round = Round::new(now, self.rtt_stats.floor().unwrap_or_default(), group);
    }

    fn check_invariants(&self) {
        debug_assert!((RATE_MIN..=RATE_MAX).contains(&self.rate), "1: the rate is bounded");
        self.bucket.check_invariants(RATE_MAX);
        debug_assert!((0.0..=1.0).contains(&self.loss_usual), "3: a loss is a share");
        debug_assert!(self.pings.lost <= self.pings.sent, "4: what is lost was sent");
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
                self.pings.lost,
                self.pings.sent,
                self.loss_usual,
                self.trial.is_some()
            )
        }
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// Sends at the controller's pace for a time; each SYN is answered after `rtt`, whose argument
    /// is the present rate.
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
                controller.handle_port_answer(now);
                controller.handle_answer(now, at, rtt);
            }
        }
        sent
    }

    #[test]
    fn a_silent_host_gets_all_ports_within_about_a_second() {
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
                assert_eq!(sent, 10, "the first SYNs leave at once");
            }
        }
        assert!((9_000..=13_000).contains(&sent), "{sent}");
        controller.set_in_flight_max(200, ms(2000));
        assert!(controller.rate(now + ms(1300)) <= RATE_MIN.max(100.0), "as many as end");
    }

    #[test]
    fn a_near_host_is_unpaced_within_milliseconds() {
        let now = Instant::now();
        let mut controller = Controller::new(now, 65_535);
        drive(&mut controller, now, ms(40), |_| Duration::from_micros(100));
        assert!(controller.rate(now + ms(40)) > 200_000.0, "{controller:?}");
    }

    #[test]
    fn a_queue_that_grows_with_the_rate_is_kept_short() {
        let now = Instant::now();
        let mut controller = Controller::new(now, 65_535);
        let queue = |rate: f64| if rate > 10_000.0 { ms(15) } else { ms(0) };
        drive(&mut controller, now, ms(5000), |rate| ms(20) + queue(rate));
        let rate = controller.rate(now + ms(5000));
        assert!((5_000.0..16_000.0).contains(&rate), "{rate}");
    }

    #[test]
    fn jitter_is_no_queue() {
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
    fn a_round_trip_that_was_measured_too_short_does_not_hold_the_rate_down() {
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
    fn answers_that_wait_for_a_loop_that_was_held_up_show_no_queue() {
        let now = Instant::now();
        let mut controller = Controller::new(now, 65_535);
        drive(&mut controller, now, ms(200), |_| ms(50));
        let held_up_from = now + ms(270);
        for step in 200..=270 {
            controller.handle_sent(now + ms(step));
        }
        let before = controller.rate(held_up_from);
        // The loop stands still for ten milliseconds, at whose start answers have come.
        let at = held_up_from + ms(10);
        for _ in 0..16 {
            controller.handle_answer(at, at - ms(60), ms(60));
        }
        controller.handle_answer(at + ms(50), at, ms(50));
        assert!(controller.rate(at + ms(50)) >= before, "{before}: {controller:?}");
    }

    #[test]
    fn random_loss_leaves_the_rate_as_it_is_and_loss_that_follows_it_does_not() {
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
        assert!(controller.rate(later + ms(1000)) <= RATE_MIN.max(500.0));
    }

    #[test]
    fn repeats_of_the_kernel_delay_what_comes_next() {
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
