//! Recent measurements of a path: round-trip times, rates and losses.
//!
//! Each measurement takes a few numbers, in which new samples replace old ones. This module knows
//! neither ports nor sockets. [`congestion`](super::congestion) drives it and decides on the rate.

use std::time::{Duration, Instant};

use super::exchanges::Exchanges;
use super::pings::PingResult;

/// The length of the windows of the shortest round-trip time, which is that of the last one to two
/// windows. BBR uses 10 s.
const WINDOW: Duration = Duration::from_secs(5);
/// The length of the windows of the highest used rate. A rate that was not used was not tested, so
/// it is not kept for longer. The window is longer than the default timeout of probes: a scan that
/// waits for all its probes keeps the rate at which it sent them.
const USED_WINDOW: Duration = Duration::from_secs(3);
/// The age from which on the counted answers say nothing about the present delivery rate. The rate
/// is that of the present second and the previous one.
const ANSWER_RATE_AGE_MAX: Duration = Duration::from_secs(2);
/// The minimum number of RTT samples in a group, the shortest of which shows the queueing delay in
/// spite of jitter. The first group of a round has an eighth of the samples of the last round,
/// within these bounds, and each further group has twice as many as the previous one.
pub(super) const GROUP_MIN: u32 = 4;
/// See [`GROUP_MIN`].
pub(super) const GROUP_MAX: u32 = 64;
/// A queueing delay below this cannot be distinguished from the jitter of a busy machine.
const QUEUE_MIN: Duration = Duration::from_millis(4);
/// The difference between RTT samples that shows nothing about the queueing delay.
const QUEUE_MARGIN: Duration = Duration::from_millis(1);
/// A queueing delay above this plus jitter is too long for any round-trip time.
const QUEUE_MAX: Duration = Duration::from_millis(16);
/// The ratio of the jitter that is permitted without a queue to the mean jitter.
const JITTER_FACTOR: f64 = 1.5;
/// The factor by which a round of startup multiplies the rate: 2 / ln 2, as in BBR.
pub(super) const STARTUP_GAIN: f64 = 2.89;
/// The minimum length of a round, for hosts whose round-trip time is almost zero.
const ROUND_MIN: Duration = Duration::from_millis(1);
/// The number of tokens that are kept at any rate: as many SYNs are sent at once at the start as
/// TCP sends segments (RFC 6928).
pub(super) const BURST_MIN: f64 = 10.0;

/// The shortest RTT sample of a group.
///
/// The answers that the loop reads in one tick have waited for it for different times, the last one
/// for the shortest time. Therefore all of them belong to one group, which can only end with the
/// tick.
#[derive(Clone, Copy, Debug)]
pub(super) struct RttGroup {
    pub(super) len: u32,
    pub(super) count: u32,
    pub(super) current: Duration,
    pub(super) last: Option<Duration>,
    /// Whether the last complete group had a long queueing delay.
    was_long: bool,
}

impl RttGroup {
    pub(super) const fn new(len: u32) -> Self {
        Self { len, count: 0, current: Duration::MAX, last: None, was_long: false }
    }

    pub(super) fn handle_sample(&mut self, rtt: Duration) {
        self.current = self.current.min(rtt);
        self.count += 1;
    }

    /// Handles the end of a tick. Returns whether the group is complete; the next one then begins.
    pub(super) fn handle_tick_end(&mut self) -> bool {
        let is_full = self.count >= self.len;
        if is_full {
            self.last = Some(self.current);
            (self.count, self.current) = (0, Duration::MAX);
            self.len = (2 * self.len).min(GROUP_MAX);
        }
        is_full
    }

    /// Judges the group that is complete now and has this queueing delay. A group at a high rate is
    /// over in milliseconds, and one late tick delays all its answers. Therefore the group before
    /// it must show the same.
    pub(super) fn judge(&mut self, queue: Duration, queue_max: Duration) -> GroupVerdict {
        let was_long = std::mem::replace(&mut self.was_long, queue > queue_max);
        match self.was_long {
            false => GroupVerdict::Short,
            true if was_long || self.len < GROUP_MAX => GroupVerdict::Long,
            true => GroupVerdict::Unconfirmed,
        }
    }

    pub(super) fn shortest(&self) -> Option<Duration> {
        self.last.or((self.count > 0).then_some(self.current))
    }
}

/// The verdict on the queueing delay of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum GroupVerdict {
    Short,
    /// The delay is long, but only in this group so far.
    Unconfirmed,
    Long,
}

/// The share of answered SYNs from which on a round needs no pings.
const COHORT_ANSWERED_MIN: f64 = 0.9;
/// The number of pings in a round after startup; in startup there are up to twice as many.
pub(super) const PINGS_PER_ROUND: u32 = 8;
/// The minimum number of SYNs that the rate permits for each ping.
const SYNS_PER_PING: f64 = 16.0;
/// The maximum interval between pings, unless the rate is too low for it ([`SYNS_PER_PING`]).
const PING_GAP_MAX: Duration = Duration::from_millis(20);
/// The minimum interval between pings.
const PING_GAP_MIN: Duration = Duration::from_millis(4);
/// The number of pings that a judgement of the loss needs.
const PINGS_MIN: u32 = 8;
/// The number of pings after which a new window of the loss begins.
const PINGS_WINDOW: u32 = 32;

/// The pings in the present window, which ends after [`PINGS_WINDOW`] pings, and when an experiment
/// begins or ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct PingWindow {
    since: Instant,
    /// The pings that were answered or lost.
    pub(super) counts: Exchanges,
}

impl PingWindow {
    /// A window of the pings that are sent at `since` or later, because the rate changes then.
    pub(super) const fn new(since: Instant) -> Self {
        Self { since, counts: Exchanges { known: 0, lost: 0 } }
    }

    /// The next window at the same rate.
    pub(super) const fn next(self) -> Self {
        Self::new(self.since)
    }

    /// A ping that was sent at this time was answered or lost.
    pub(super) fn handle_ping(&mut self, sent_at: Instant, result: PingResult) {
        if sent_at >= self.since {
            self.counts.known += 1;
            self.counts.lost += u32::from(result == PingResult::Lost);
        }
    }

    /// Whether enough pings were answered or lost, and more of them lost than usual.
    pub(super) fn exceeds(self, usual: f64) -> bool {
        self.counts.known >= PINGS_MIN && self.counts.exceeds(usual)
    }

    /// Whether a new window must begin.
    pub(super) const fn is_full(self) -> bool {
        self.counts.known >= PINGS_WINDOW
    }
}

/// The shortest round-trip time of the last one to two windows of length [`WINDOW`].
#[derive(Clone, Copy, Debug)]
pub(super) struct RttFloor {
    since: Instant,
    current: Duration,
    previous: Duration,
}

impl RttFloor {
    const fn new(now: Instant, shortest: Duration) -> Self {
        Self { since: now, current: shortest, previous: Duration::MAX }
    }

    pub(super) fn handle_sample(&mut self, now: Instant, rtt: Duration) {
        if now.saturating_duration_since(self.since) >= WINDOW {
            self.previous = std::mem::replace(&mut self.current, Duration::MAX);
            self.since = now;
        }
        self.current = self.current.min(rtt);
    }

    pub(super) fn floor(&self) -> Option<Duration> {
        let floor = self.current.min(self.previous);
        (floor < Duration::MAX).then_some(floor)
    }
}

/// The highest rate at which SYNs were sent in the last one to two windows of length
/// [`USED_WINDOW`].
#[derive(Clone, Copy, Debug)]
pub(super) struct RatePeak {
    pub(super) since: Instant,
    pub(super) current: f64,
    pub(super) previous: f64,
}

impl RatePeak {
    pub(super) fn handle_rate(&mut self, now: Instant, rate: f64) {
        if now.saturating_duration_since(self.since) >= USED_WINDOW {
            self.previous = std::mem::take(&mut self.current);
            self.since = now;
        }
        self.current = self.current.max(rate);
    }

    pub(super) fn peak(&self) -> f64 {
        self.current.max(self.previous)
    }
}

/// The number of answers of ports in the present second and in the previous one.
#[derive(Clone, Copy, Debug)]
pub(super) struct AnswerRate {
    pub(super) since: Instant,
    pub(super) current: u32,
    pub(super) last: u32,
}

impl AnswerRate {
    pub(super) fn handle_answer(&mut self, now: Instant) {
        let age = now.saturating_duration_since(self.since);
        if age >= Duration::from_secs(1) {
            self.last = if age < ANSWER_RATE_AGE_MAX { self.current } else { 0 };
            self.current = 0;
            self.since = now;
        }
        self.current = self.current.saturating_add(1);
    }

    /// The delivery rate in answers per second: the greater number of the two seconds.
    pub(super) fn rate(&self, now: Instant) -> f64 {
        let is_old = now.saturating_duration_since(self.since) >= ANSWER_RATE_AGE_MAX;
        if is_old { 0.0 } else { f64::from(self.current.max(self.last)) }
    }
}

/// The SYNs that were sent in one round, and the answers to them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Round {
    pub(super) started_at: Instant,
    pub(super) sent: u32,
    pub(super) samples: u32,
    /// The number of all answers, including those to SYNs of earlier rounds.
    arrived: u32,
    /// Whether nearly all SYNs of the previous round were answered.
    was_answered: bool,
    /// The time at which the SYN of the last sample was sent.
    pub(super) sampled_at: Instant,
    pub(super) group: RttGroup,
    /// The end of the first part of the round. The answers to the SYNs of this part, the cohort,
    /// arrive before the end of the round.
    pub(super) cohort_ends_at: Instant,
    /// The number of SYNs in the cohort.
    pub(super) cohort_sent: u32,
    /// The number of answers to SYNs of the cohort.
    pub(super) cohort_answered: u32,
    /// The number of pings sent in this round that were answered or are overdue.
    pub(super) pings: u32,
}

impl Round {
    /// A round whose cohort is sent in the first eighth of a round-trip time. A round lasts 1¼
    /// round-trip times ([`round_len`]), so answers that take up to an eighth longer still count.
    pub(super) fn new(now: Instant, rtt: Duration, group: u32) -> Self {
        Self {
            started_at: now,
            sent: 0,
            samples: 0,
            arrived: 0,
            was_answered: false,
            sampled_at: now,
            group: RttGroup::new(group),
            cohort_ends_at: now + rtt / 8,
            cohort_sent: 0,
            cohort_answered: 0,
            pings: 0,
        }
    }

    /// The round after this one: see [`Round::new`].
    pub(super) fn next(&self, now: Instant, rtt: Duration) -> Self {
        let was_answered = self.samples > 0 && self.is_answered();
        let group = (self.samples / 8).clamp(GROUP_MIN, GROUP_MAX);
        Self { was_answered, ..Self::new(now, rtt, group) }
    }

    /// An answer arrived. Returns whether its SYN was sent in this round.
    pub(super) fn handle_answer(&mut self, sent_at: Instant) -> bool {
        self.arrived += 1;
        // The start of a probe is stored in whole microseconds.
        let is_of_round = sent_at + Duration::from_micros(1) > self.started_at;
        if is_of_round {
            self.samples += 1;
            self.sampled_at = sent_at;
            self.cohort_answered += u32::from(sent_at <= self.cohort_ends_at);
        }
        is_of_round
    }

    /// The limit that a queue in this round of startup, at this rate, shows: between the last two
    /// rates, or the delivery rate if even the last but one was too high.
    pub(super) fn startup_limit(&self, now: Instant, rate: f64) -> f64 {
        let delivered = self.delivery_rate(now).unwrap_or(f64::INFINITY);
        (rate / STARTUP_GAIN.sqrt()).min(delivered)
    }

    /// The delivery rate in SYNs per second since the start of the round; `None` if answers do not
    /// show it, because the host answers only some SYNs, or because the round is too short.
    fn delivery_rate(&self, now: Instant) -> Option<f64> {
        let age = now.saturating_duration_since(self.started_at);
        let is_shown = self.was_answered && age >= 2 * ROUND_MIN && self.arrived >= GROUP_MAX;
        is_shown.then(|| f64::from(self.arrived) / age.as_secs_f64())
    }

    /// Whether so many SYNs of the cohort were answered that the round needs no pings.
    pub(super) fn is_answered(&self) -> bool {
        f64::from(self.cohort_answered) >= COHORT_ANSWERED_MIN * f64::from(self.cohort_sent)
    }
}

/// The length of a round at this round-trip time.
pub(super) fn round_len(rtt: Duration) -> Duration {
    (rtt + rtt / 4).max(ROUND_MIN)
}

/// The interval between pings at this round-trip time and this rate of SYNs.
pub(super) fn ping_gap(rtt: Duration, rate: f64) -> Duration {
    let by_rate = Duration::from_secs_f64(SYNS_PER_PING / rate);
    (round_len(rtt) / PINGS_PER_ROUND).clamp(PING_GAP_MIN, PING_GAP_MAX).max(by_rate)
}

/// The ticks of the event loop in which a scan sends a SYN or receives an answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ticks {
    /// The start of the present tick.
    at: Instant,
    /// The time between the starts of the previous tick and the present one.
    pub(super) gap: Duration,
}

impl Ticks {
    pub(super) const fn new(now: Instant) -> Self {
        Self { at: now, gap: Duration::ZERO }
    }

    pub(super) fn handle_tick(&mut self, now: Instant) {
        if now > self.at {
            self.gap = now - self.at;
            self.at = now;
        }
    }
}

/// An experiment with half the rate, which shows whether the loss depends on the rate.
#[derive(Clone, Copy, Debug)]
pub(super) struct Trial {
    pub(super) rate_before: f64,
    pub(super) loss_before: f64,
}

/// The shortest round-trip time of a path, and the jitter.
#[derive(Clone, Copy, Debug)]
pub(super) struct RttStats {
    floor: RttFloor,
    /// The mean difference between successive RTT samples.
    jitter: Duration,
    last: Option<Duration>,
}

impl RttStats {
    pub(super) const fn new(now: Instant) -> Self {
        Self { floor: RttFloor::new(now, Duration::MAX), jitter: Duration::ZERO, last: None }
    }

    pub(super) fn handle_sample(&mut self, now: Instant, rtt: Duration) {
        self.floor.handle_sample(now, rtt);
        if let Some(last) = self.last.replace(rtt) {
            self.jitter = (self.jitter * 15 + last.abs_diff(rtt)) / 16;
        }
    }

    /// The path has changed: `shortest` is its shortest round-trip time.
    pub(super) const fn restart(&mut self, now: Instant, shortest: Duration) {
        self.floor = RttFloor::new(now, shortest);
    }

    /// The shortest recent round-trip time; `None` before the first sample.
    pub(super) fn floor(&self) -> Option<Duration> {
        self.floor.floor()
    }

    /// The queueing delay above which it is too long.
    pub(super) fn queue_max(&self) -> Duration {
        let floor = self.floor().unwrap_or_default();
        (floor / 16).clamp(QUEUE_MIN, QUEUE_MAX) + self.deviation()
    }

    /// The difference between RTT samples that is expected without a queue.
    pub(super) fn deviation(&self) -> Duration {
        self.jitter.mul_f64(JITTER_FACTOR)
    }
}

/// The queueing delay of a round in which it was not too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum QueueLength {
    /// The delay was at most half of the permitted one.
    Short,
    /// The delay was longer than that, but not too long.
    Moderate,
}

impl QueueLength {
    /// The class of a queueing delay that is at most `most`.
    pub(super) fn of(queue: Duration, most: Duration) -> Self {
        if queue <= most / 2 { Self::Short } else { Self::Moderate }
    }
}

/// The reliability of the queueing delay of a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Evidence {
    /// There were many samples, or almost all SYNs were answered.
    Ample,
    /// There were few samples, for example only the answers to pings.
    Sparse,
}

/// The number of rounds after which a moderate delay is not considered a queue.
const MODERATE_MAX: u32 = 24;
/// The number of rounds as which a round counts in which almost all SYNs were answered: a queue
/// without loss would grow or drain.
pub(super) const MODERATE_ANSWERED: u32 = 4;

/// The number of rounds with a moderate queueing delay since the last round with a short one,
/// although the rate fell in each of them.
///
/// If there are many, the delay is not caused by a queue: the shortest round-trip time was measured
/// too short, for example because the loop was delayed between its clock and its sockets, or the
/// path has become a little longer.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ModerateQueue(u32);

impl ModerateQueue {
    /// Handles the end of a round, which counts as `count` rounds. Returns whether the delay is not
    /// caused by a queue.
    pub(super) fn handle_round(&mut self, queue: QueueLength, count: u32) -> bool {
        self.0 = match queue {
            QueueLength::Moderate => self.0 + count,
            QueueLength::Short => 0,
        };
        self.0 >= MODERATE_MAX
    }
}

/// A reduction of the rate because of a long queueing delay, with the data to review it.
///
/// A process on either host that does not run for a moment delays answers as a queue does, but this
/// delay ends at once. A queue that the scan caused drains only by the difference between the
/// rates. If the delay ends sooner than that, the reduction was wrong.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reduction {
    /// The time at which the last SYN was sent whose answer was delayed.
    pub(super) sent_at: Instant,
    /// The queueing delay that caused the reduction.
    pub(super) queue: Duration,
    pub(super) rate_before: f64,
}

/// The verdict on a reduction after an RTT sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReductionVerdict {
    /// The sample does not decide whether the reduction was right.
    Pending,
    /// The reduction is kept: a queue that the scan caused could have drained by now.
    Kept,
    /// The reduction was wrong: the delay ended too soon for a queue that the scan caused.
    Wrong,
}

impl Reduction {
    /// Reviews the reduction to `rate` after the answer to a SYN sent at `sent_at`, with this
    /// queueing delay. RTT samples differ by `deviation` without a queue.
    pub(super) fn judge(
        &self,
        sent_at: Instant,
        queue: Duration,
        rate: f64,
        deviation: Duration,
    ) -> ReductionVerdict {
        let since = sent_at.saturating_duration_since(self.sent_at);
        let drained = since.mul_f64((1.0 - rate / self.rate_before).max(0.0));
        let queue_min = self.queue.saturating_sub(drained + QUEUE_MARGIN + deviation);
        match queue_min {
            Duration::ZERO => ReductionVerdict::Kept,
            _ if since > Duration::ZERO && queue < queue_min => ReductionVerdict::Wrong,
            _ => ReductionVerdict::Pending,
        }
    }
}
