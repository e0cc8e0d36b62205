//! What answers and pings show of a path: round trips, rates and losses of a short time.
//!
//! Each is a few numbers that forget by themselves. None knows ports or sockets, nor decides
//! anything: [`congestion`](super::congestion) does.

use std::time::{Duration, Instant};

/// The shortest round trip is that of the last one to two windows of this length (BBR keeps 10 s).
const WINDOW: Duration = Duration::from_secs(5);
/// A rate that was not used is not kept: it was not tested. Longer than the default deadline, so
/// that a scan whose probes all wait keeps the rate at which it sent them.
const USED_WINDOW: Duration = Duration::from_secs(3);
/// Round trips of a group, whose shortest shows the queue whatever the jitter is: an eighth of
/// those that the last round had, within these bounds, and twice as many in each further group.
pub(super) const GROUP_MIN: u32 = 4;
/// See [`GROUP_MIN`].
pub(super) const GROUP_MAX: u32 = 64;
/// A queue shorter than this cannot be distinguished from the jitter of a busy machine.
const QUEUE_MIN: Duration = Duration::from_millis(4);
/// Round trips differ by so much at any length of the queue.
const QUEUE_MARGIN: Duration = Duration::from_millis(1);
/// A queue longer than this is too long whatever the round trip is.
const QUEUE_MAX: Duration = Duration::from_millis(16);
/// Round trips differ by this many times their usual difference without a queue.
const JITTER_FACTOR: f64 = 1.5;
/// The shortest round: that of a host at no distance.
const ROUND_MIN: Duration = Duration::from_millis(1);
/// Tokens that are kept at any rate: the first SYNs leave at once, as in RFC 6928.
pub(super) const BURST_MIN: f64 = 10.0;

/// The shortest of the last round trips.
///
/// The answers that the loop reads in one tick have waited for it for different times, the last one
/// for the shortest. So all of them belong to one group, which can only end with the tick.
#[derive(Clone, Copy, Debug)]
pub(super) struct RttGroup {
    pub(super) len: u32,
    pub(super) count: u32,
    pub(super) current: Duration,
    pub(super) last: Option<Duration>,
}

impl RttGroup {
    pub(super) const fn new(len: u32) -> Self {
        Self { len, count: 0, current: Duration::MAX, last: None }
    }

    pub(super) fn handle_sample(&mut self, rtt: Duration) {
        self.current = self.current.min(rtt);
        self.count += 1;
    }

    /// The samples of a tick are complete; returns whether the group is so too.
    pub(super) fn handle_tick_end(&mut self) -> bool {
        let is_full = self.count >= self.len;
        if is_full {
            self.last = Some(self.current);
            (self.count, self.current) = (0, Duration::MAX);
            self.len = (2 * self.len).min(GROUP_MAX);
        }
        is_full
    }

    pub(super) fn shortest(&self) -> Option<Duration> {
        self.last.or((self.count > 0).then_some(self.current))
    }
}

/// Pings in a round.
pub(super) const PINGS_PER_ROUND: u32 = 8;
/// SYNs for each ping at least: pings are at most one in so many.
const SYNS_PER_PING: f64 = 16.0;
/// The longest time between pings, at any rate that fills it.
const PING_GAP_MAX: Duration = Duration::from_millis(20);
/// The shortest time between pings.
const PING_GAP_MIN: Duration = Duration::from_millis(4);
/// Pings that a judgement of loss needs.
const PINGS_MIN: u32 = 8;
/// Results of pings before which the window of loss begins anew.
const PINGS_WINDOW: u32 = 32;
/// Loss beyond the usual one that is looked into, at least.
const LOSS_EXCESS: f64 = 0.15;
/// The usual loss before anything was measured.
pub(super) const LOSS_USUAL: f64 = 0.05;

/// Pings since the rate last changed for their sake.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct PingWindow {
    pub(super) sent: u32,
    pub(super) lost: u32,
}

impl PingWindow {
    pub(super) fn loss(self) -> f64 {
        f64::from(self.lost) / f64::from(self.sent.max(1))
    }

    /// Whether the loss is higher than usual, by more than chance explains.
    pub(super) fn exceeds(self, usual: f64) -> bool {
        let variance = usual.max(LOSS_USUAL) * (1.0 - usual) / f64::from(self.sent.max(1));
        self.sent >= PINGS_MIN && self.loss() - usual > LOSS_EXCESS.max(3.0 * variance.sqrt())
    }

    /// Whether the window is to begin anew.
    pub(super) const fn is_full(self) -> bool {
        self.sent >= PINGS_WINDOW
    }

    /// The usual loss after this window.
    pub(super) fn usual_after(self, usual: f64) -> f64 {
        usual * 0.75 + self.loss().min(usual + LOSS_EXCESS / 2.0) * 0.25
    }
}

/// The shortest round trip of the last one to two windows.
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

/// The highest rate of SYNs that were really sent, of the last one to two windows.
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

/// Answers in the present and in the last whole second.
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
            self.last = if age < Duration::from_secs(2) { self.current } else { 0 };
            self.current = 0;
            self.since = now;
        }
        self.current = self.current.saturating_add(1);
    }

    /// Answers per second, of the second that had more.
    pub(super) fn rate(&self, now: Instant) -> f64 {
        let is_old = now.saturating_duration_since(self.since) >= Duration::from_secs(2);
        if is_old { 0.0 } else { f64::from(self.current.max(self.last)) }
    }
}

/// What the answers to the probes of one round showed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Round {
    pub(super) started_at: Instant,
    pub(super) sent: u32,
    pub(super) samples: u32,
    /// When the probe of the last sample was sent.
    pub(super) sampled_at: Instant,
    pub(super) group: RttGroup,
    /// SYNs that were sent in the first part of the round, and how many of them were answered
    /// before it ended.
    pub(super) cohort_ends_at: Instant,
    pub(super) cohort_sent: u32,
    pub(super) cohort_answered: u32,
    /// Pings sent in this round whose fate is known.
    pub(super) pings: u32,
}

impl Round {
    /// The first quarter of a round trip is the part whose answers come before the round ends.
    pub(super) fn new(now: Instant, rtt: Duration, group: u32) -> Self {
        Self {
            started_at: now,
            sent: 0,
            samples: 0,
            sampled_at: now,
            group: RttGroup::new(group),
            cohort_ends_at: now + rtt / 8,
            cohort_sent: 0,
            cohort_answered: 0,
            pings: 0,
        }
    }
}

/// How long a round lasts at a round trip.
pub(super) fn round_len(rtt: Duration) -> Duration {
    (rtt + rtt / 4).max(ROUND_MIN)
}

/// The time between pings at a round trip, and at a rate of SYNs.
pub(super) fn ping_gap(rtt: Duration, rate: f64) -> Duration {
    let by_rate = Duration::from_secs_f64(SYNS_PER_PING / rate);
    (round_len(rtt) / PINGS_PER_ROUND).clamp(PING_GAP_MIN, PING_GAP_MAX).max(by_rate)
}

/// The ticks of the event loop in which a scan sends or hears something.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ticks {
    at: Instant,
    /// How long the present tick began after the one before.
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

/// An experiment: half the rate, to see whether the loss follows it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Trial {
    pub(super) rate_before: f64,
    pub(super) loss_before: f64,
}

/// How the round trips of a path differ.
#[derive(Clone, Copy, Debug)]
pub(super) struct RttStats {
    floor: RttFloor,
    /// The mean difference of successive round trips.
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

    /// The path has changed: this is its shortest round trip.
    pub(super) const fn restart(&mut self, now: Instant, shortest: Duration) {
        self.floor = RttFloor::new(now, shortest);
    }

    /// The shortest of the last round trips.
    pub(super) fn floor(&self) -> Option<Duration> {
        self.floor.floor()
    }

    /// A queue longer than this is too long.
    pub(super) fn queue_max(&self) -> Duration {
        let floor = self.floor().unwrap_or_default();
        (floor / 16).clamp(QUEUE_MIN, QUEUE_MAX) + self.deviation()
    }

    /// Round trips differ by so much without a queue.
    pub(super) fn deviation(&self) -> Duration {
        self.jitter.mul_f64(JITTER_FACTOR)
    }
}

/// How long the queue of a clean round was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum QueueLength {
    /// At most half of the length that is too long.
    Short,
    /// Longer than that, and not too long.
    Moderate,
}

/// How many round trips a clean round had to show a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Evidence {
    Ample,
    Sparse,
}

/// Rounds in which a moderate queue may stand although the rate falls.
const MODERATE_MAX: u32 = 24;
/// A round that is answered counts as so many: a queue that loses nothing grows or drains.
pub(super) const MODERATE_ANSWERED: u32 = 4;

/// For how many rounds a moderate queue has stood although the rate falls.
///
/// If it stands for long the delay is none of a queue: the shortest round trip was measured too
/// short, as by a loop that was held up between its clock and its sockets, or the path has become a
/// little longer.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ModerateQueue(u32);

impl ModerateQueue {
    /// Adds `count` for a round; returns whether the delay is none of a queue.
    pub(super) fn handle_round(&mut self, queue: QueueLength, count: u32) -> bool {
        self.0 = match queue {
            QueueLength::Moderate => self.0 + count,
            QueueLength::Short => 0,
        };
        self.0 >= MODERATE_MAX
    }
}

/// A reduction of the rate because of a long queue, and what shows whether it was wrong.
///
/// A process that is held up for a moment, here or there, delays answers as a queue does, but then
/// catches up at once. A queue that the scan caused drains by the difference of the rates only.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reduction {
    /// When the last of the probes was sent that found a long queue.
    pub(super) sent_at: Instant,
    /// How long it was at least.
    pub(super) queue: Duration,
    pub(super) rate_before: f64,
}

/// What a round trip shows of a reduction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReductionVerdict {
    /// Nothing.
    Pending,
    /// Even a queue that the scan caused may have drained by then.
    Kept,
    /// The queue was gone too soon: the reduction was wrong.
    Wrong,
}

impl Reduction {
    /// A probe sent at `sent_at` found a queue of this length, after the rate became `rate`. Round
    /// trips differ by `deviation` without a queue.
    pub(super) fn judge(
        &self,
        sent_at: Instant,
        queue: Duration,
        rate: f64,
        deviation: Duration,
    ) -> ReductionVerdict {
        let since = sent_at.saturating_duration_since(self.sent_at);
        let drained = since.mul_f64((1.0 - rate / self.rate_before).max(0.0));
        let least = self.queue.saturating_sub(drained + QUEUE_MARGIN + deviation);
        match least {
            Duration::ZERO => ReductionVerdict::Kept,
            _ if since > Duration::ZERO && queue < least => ReductionVerdict::Wrong,
            _ => ReductionVerdict::Pending,
        }
    }
}
