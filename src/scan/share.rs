//! The share of SYNs that are answered, and whether it depends on the rate.
//!
//! A short queue overflows before it delays answers measurably, so only loss shows that a scan
//! exceeds the capacity of the path. If ports are probed in scattered order
//! ([`order`](super::order)), about the same share of them responds at each time, and loss reduces
//! the share of answered SYNs. There are many more SYNs to ports than pings, so the share shows
//! small losses, and shows them soon.
//!
//! The share of the most recent SYNs is compared with a reference: the share at lower rates. If it
//! is significantly smaller, an experiment with a lower rate follows. If the scan had exceeded the
//! capacity, the share becomes larger again, and the capacity is the rate before the experiment
//! times the ratio of the shares. Otherwise the loss is random, and the reference was outdated.
//!
//! A capacity far below a rate that the path has carried is not plausible. A burst of loss was then
//! the cause, or a host that limits its answers per second, and the rate is restored.
//!
//! SYNs are counted in intervals. An interval is complete when a later SYN has been answered:
//! whatever the length of the queue is, no further answers are then expected.
//! [`congestion`](super::congestion) drives this module.

use std::time::{Duration, Instant};

/// The minimum number of SYNs to ports in an interval.
const INTERVAL_SYNS_MIN: u32 = 64;
/// The minimum length of an interval. The loop sends a burst in each millisecond.
const INTERVAL_MIN: Duration = Duration::from_millis(1);
/// The maximum time between two SYNs that are sent at the permitted rate. After a longer time, the
/// scan was waiting for something else, such as the end of probes in flight.
const SYN_GAP_MAX: Duration = Duration::from_millis(20);
/// The number of standard deviations from which on a difference is not caused by chance. It is
/// high, because there are hundreds of comparisons in a scan.
const DEVIATIONS_MIN: f64 = 3.5;
/// The minimum of the variance of one SYN. Chance is not a small number of SYNs without loss.
const VARIANCE_MIN: f64 = 0.04;
/// The minimum relative decrease of the share that leads to an experiment.
const DECREASE_MIN: f64 = 0.04;
/// The number of SYNs that shows a relative decrease of 8 % with three standard deviations, if half
/// of them are answered: 9 / 0.08².
const SYNS_FACTOR: f64 = 1_400.0;
/// The maximum number of SYNs in a comparison.
const SYNS_MAX: f64 = 4_000.0;
/// The number of SYNs up to which the reference includes SYNs at higher rates.
const REFERENCE_SYNS: u32 = 4_000;
/// The maximum ratio of rates that count as equal.
const RATE_RATIO_MAX: f64 = 1.5;
/// The maximum ratio of the rate in an experiment to the rate before.
const TRIAL_RATIO: f64 = 0.6;
/// The part of the measured capacity that is used, so that the queue drains.
const CAPACITY_PART: f64 = 0.9;
/// The part of the highest rate with the usual share below which a capacity is not plausible. A
/// burst of loss, or a host that limits its answers per second, reduces the share at any rate.
const PLAUSIBLE_PART: f64 = 0.7;
/// The factor for that rate after a capacity that was not plausible: the path may have changed.
const CARRIED_DECAY: f64 = 0.7;
/// The minimum ratio of shares from which a capacity is computed.
const SHARE_RATIO_MIN: f64 = 0.1;
/// The number of standard deviations by which the share in an experiment exceeds the one before if
/// the scan had exceeded the capacity.
const LARGER_DEVIATIONS: f64 = 3.0;
/// The number of standard deviations by which it is smaller than expected if the scan had not.
const SMALLER_DEVIATIONS: f64 = 2.0;
/// The number of SYNs after which an experiment is decided anyway.
const TRIAL_SYNS_MAX: u32 = 2_000;

/// A number of SYNs to ports, and the number of answers to them.
#[derive(Clone, Copy, Debug, Default)]
struct PortCount {
    sent: u32,
    answered: u32,
}

impl PortCount {
    fn share(self) -> f64 {
        f64::from(self.answered) / f64::from(self.sent.max(1))
    }

    const fn plus(self, other: Self) -> Self {
        Self { sent: self.sent + other.sent, answered: self.answered + other.answered }
    }

    /// The number of standard deviations by which the share is smaller than that of `other`.
    fn deviations_below(self, other: Self) -> f64 {
        let mean = self.plus(other).share();
        let inverse = |sample: Self| 1.0 / f64::from(sample.sent.max(1));
        let variance = (mean * (1.0 - mean)).max(VARIANCE_MIN);
        (other.share() - self.share()) / (variance * (inverse(self) + inverse(other))).sqrt()
    }
}

/// Such numbers, and the rate at which it was sent.
#[derive(Clone, Copy, Debug, Default)]
struct Measurement {
    ports: PortCount,
    /// The number of all SYNs, including pings and retransmissions.
    syns: u32,
    /// The time in which they were sent.
    time: Duration,
}

impl Measurement {
    fn rate(&self) -> f64 {
        f64::from(self.syns) / self.time.as_secs_f64().max(1e-6)
    }

    /// Whether the rate of a later measurement is about the same.
    fn has_rate_of(&self, next: &Self) -> bool {
        let ratio = next.rate() / self.rate();
        (1.0 / RATE_RATIO_MAX..RATE_RATIO_MAX).contains(&ratio)
    }

    fn add(&mut self, next: &Self) {
        self.ports = self.ports.plus(next.ports);
        self.syns += next.syns;
        self.time += next.time;
    }
}

/// The SYNs that are sent in an interval of time.
#[derive(Clone, Copy, Debug)]
struct Interval {
    since: Instant,
    /// The time of the last SYN.
    until: Instant,
    measured: Measurement,
}

impl Interval {
    fn new(now: Instant) -> Self {
        Self { since: now, until: now, measured: Measurement::default() }
    }

    fn handle_sent(&mut self, now: Instant) {
        let gap = now.saturating_duration_since(self.until);
        self.until = now;
        self.measured.time += gap.min(SYN_GAP_MAX);
        self.measured.syns = self.measured.syns.saturating_add(1);
    }

    /// Counts an answer if its SYN was sent in this interval or later. Returns whether it was.
    fn handle_answer(&mut self, sent_at: Instant) -> bool {
        // The start of a probe is stored in whole microseconds.
        let is_within = sent_at + Duration::from_micros(1) > self.since;
        let ports = &mut self.measured.ports;
        ports.answered += u32::from(is_within && ports.answered < ports.sent);
        is_within
    }
}

/// An experiment with a lower rate.
#[derive(Clone, Copy, Debug)]
struct ShareTrial {
    before: Measurement,
    /// The rate to return to if the loss is random.
    rate_before: f64,
    /// The share before the experiment divided by that of the reference.
    ratio: f64,
    /// The rate that the path carries if the loss is not random.
    capacity: f64,
}

/// The result of a comparison.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Verdict {
    /// The share at this rate is not smaller than at lower rates.
    Usual { rate: f64 },
    /// The share is smaller. An experiment with this rate begins.
    Suspected { rate: f64 },
    /// The experiment has ended: the scan had exceeded the capacity, and may use this rate.
    Overload { rate: f64 },
    /// The experiment has ended: the loss does not depend on the rate. This was the rate before.
    Random { rate: f64 },
}

/// The measurement of the share. See the module's documentation.
#[derive(Clone, Debug)]
pub(super) struct ShareMeter {
    /// The interval in which SYNs are sent now.
    open: Interval,
    /// The interval before, until it is complete.
    pending: Option<Interval>,
    /// The time at which the pending interval is complete, once a later SYN was answered.
    complete_at: Option<Instant>,
    /// The complete intervals since the last verdict.
    recent: Measurement,
    /// The number of SYNs in `recent` at the last comparison.
    compared: u32,
    reference: PortCount,
    /// The highest rate at which SYNs of the reference were sent.
    reference_rate: f64,
    /// The highest rate at which the share was as usual. The path carries it.
    carried: f64,
    trial: Option<ShareTrial>,
}

impl ShareMeter {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            open: Interval::new(now),
            pending: None,
            complete_at: None,
            recent: Measurement::default(),
            compared: 0,
            reference: PortCount::default(),
            reference_rate: 0.0,
            carried: 0.0,
            trial: None,
        }
    }

    /// Whether an experiment is running.
    pub(super) const fn is_trial(&self) -> bool {
        self.trial.is_some()
    }

    /// Forgets the SYNs so far, except those of the reference, and ends an experiment.
    pub(super) fn restart(&mut self, now: Instant) {
        self.open = Interval::new(now);
        self.pending = None;
        self.complete_at = None;
        self.trial = None;
        self.clear();
    }

    /// A SYN is sent. An interval ends before the first SYN of a burst, since the SYNs of a burst
    /// have the same time.
    pub(super) fn handle_sent(&mut self, now: Instant, rtt: Duration) {
        let age = now.saturating_duration_since(self.open.since);
        let is_long = age >= (rtt / 8).max(INTERVAL_MIN) && now > self.open.until;
        if self.pending.is_none() && is_long && self.open.measured.ports.sent >= INTERVAL_SYNS_MIN {
            self.pending = Some(std::mem::replace(&mut self.open, Interval::new(now)));
        }
        self.open.handle_sent(now);
    }

    /// The SYN sent last is the first one to a port that counts.
    pub(super) const fn handle_port_sent(&mut self) {
        self.open.measured.ports.sent += 1;
    }

    /// The probe of a port is given up: its SYN may not have left this machine.
    pub(super) fn handle_port_postponed(&mut self) {
        let ports = &mut self.open.measured.ports;
        ports.sent = ports.sent.saturating_sub(1).max(ports.answered);
    }

    /// A port answered the SYN sent at `sent_at`.
    pub(super) fn handle_port_answer(&mut self, sent_at: Instant) {
        if !self.open.handle_answer(sent_at)
            && let Some(pending) = &mut self.pending
        {
            pending.handle_answer(sent_at);
        }
    }

    /// A port or a ping answered the SYN sent at `sent_at`. Answers may overtake each other by
    /// `jitter`. `rate` is the permitted rate.
    pub(super) fn handle_answer(
        &mut self,
        now: Instant,
        sent_at: Instant,
        jitter: Duration,
        rate: f64,
    ) -> Option<Verdict> {
        let pending = self.pending.filter(|it| sent_at > it.until)?;
        if now < *self.complete_at.get_or_insert(now + jitter) {
            return None;
        }
        self.pending = None;
        self.complete_at = None;
        if self.recent.syns > 0 && !self.recent.has_rate_of(&pending.measured) {
            self.handle_rate_change(pending.measured.rate());
        }
        self.recent.add(&pending.measured);
        match self.trial {
            Some(trial) => self.judge_trial(&trial),
            None => self.compare(now, rate),
        }
    }

    /// The rate has changed. The SYNs at a lower rate are part of the reference.
    fn handle_rate_change(&mut self, rate: f64) {
        if self.trial.is_none() && rate > self.recent.rate() {
            let reference_rate = self.reference_rate.max(self.recent.rate());
            self.set_reference(self.reference.plus(self.recent.ports), reference_rate);
        }
        self.clear();
    }

    /// Compares the recent share with the reference. The more SYNs there were in the last
    /// comparison, the later is the next one, so that chance has few opportunities.
    fn compare(&mut self, now: Instant, rate: f64) -> Option<Verdict> {
        let recent = self.recent;
        if recent.ports.sent < INTERVAL_SYNS_MIN.max(self.compared + self.compared / 2) {
            return None;
        }
        self.compared = recent.ports.sent;
        let usual = Verdict::Usual { rate: recent.rate() };
        let deviations = recent.ports.deviations_below(self.reference);
        if self.reference.sent == 0 || deviations < -DEVIATIONS_MIN {
            self.set_reference(recent.ports, recent.rate());
            self.carried = recent.rate();
            self.clear();
            return Some(usual);
        }
        let share = self.reference.share();
        if deviations > DEVIATIONS_MIN && recent.ports.share() < share * (1.0 - DECREASE_MIN) {
            return Some(self.begin_trial(now, rate));
        }
        let enough = SYNS_FACTOR * (1.0 - share) / share.max(1e-3);
        if f64::from(recent.ports.sent) < enough.clamp(INTERVAL_SYNS_MIN.into(), SYNS_MAX) {
            return None;
        }
        if self.reference.sent < REFERENCE_SYNS || recent.rate() <= self.reference_rate {
            let rate = self.reference_rate.max(recent.rate());
            self.set_reference(self.reference.plus(recent.ports), rate);
        }
        self.carried = self.carried.max(recent.rate());
        self.clear();
        Some(usual)
    }

    fn begin_trial(&mut self, now: Instant, rate_before: f64) -> Verdict {
        let before = self.recent;
        let ratio = before.ports.share() / self.reference.share();
        let used = before.rate().min(rate_before);
        let capacity = CAPACITY_PART * used * ratio.max(SHARE_RATIO_MIN);
        self.restart(now);
        self.trial = Some(ShareTrial { before, rate_before, ratio, capacity });
        Verdict::Suspected { rate: capacity.min(TRIAL_RATIO * rate_before) }
    }

    /// Ends the experiment if its share is clearly larger than before, or clearly smaller than
    /// expected of a path that was overloaded.
    fn judge_trial(&mut self, trial: &ShareTrial) -> Option<Verdict> {
        let (before, ports) = (trial.before.ports, self.recent.ports);
        if ports.sent < 2 * INTERVAL_SYNS_MIN {
            return None;
        }
        // An overloaded path delivers the same number of SYNs at any rate above its capacity.
        let gain = (1.0 / trial.ratio.max(1e-3)).min(trial.before.rate() / self.recent.rate());
        let expected_share = (before.share() * gain).min(1.0);
        let expected_answers = (f64::from(before.sent) * expected_share) as u32;
        let expected = PortCount { answered: expected_answers, ..before };
        let is_larger = ports.share() > f64::midpoint(expected_share, before.share());
        let above = before.deviations_below(ports);
        let is_overload = match is_larger {
            true if above > LARGER_DEVIATIONS => true,
            false if ports.deviations_below(expected) > SMALLER_DEVIATIONS => false,
            _ if ports.sent >= TRIAL_SYNS_MAX => is_larger && above > SMALLER_DEVIATIONS,
            _ => return None,
        };
        self.trial = None;
        self.clear();
        if !is_overload {
            self.set_reference(before.plus(ports), trial.rate_before);
            return Some(Verdict::Random { rate: trial.rate_before });
        }
        if trial.capacity < PLAUSIBLE_PART * self.carried {
            self.carried *= CARRIED_DECAY;
            return Some(Verdict::Random { rate: trial.rate_before });
        }
        if ports.share() > self.reference.share() {
            self.set_reference(ports, trial.capacity);
        } else if ports.deviations_below(self.reference) < SMALLER_DEVIATIONS {
            self.set_reference(self.reference.plus(ports), trial.capacity);
        }
        Some(Verdict::Overload { rate: trial.capacity })
    }

    /// Sets the reference. It has a limited number of SYNs, so that new ones count.
    const fn set_reference(&mut self, ports: PortCount, rate: f64) {
        let divisor = if ports.sent > 2 * REFERENCE_SYNS { 2 } else { 1 };
        self.reference =
            PortCount { sent: ports.sent / divisor, answered: ports.answered / divisor };
        self.reference_rate = rate;
    }

    fn clear(&mut self) {
        self.recent = Measurement::default();
        self.compared = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RTT: Duration = Duration::from_millis(20);

    /// Scans at the rate of a controller that obeys the verdicts. Returns them with the last rate.
    fn drive(
        meter: &mut ShareMeter,
        mut rate: f64,
        ports: u32,
        is_answered: impl Fn(u32, f64) -> bool,
    ) -> (Vec<Verdict>, f64) {
        let mut now = Instant::now();
        meter.restart(now);
        let (mut flights, mut verdicts) = (std::collections::VecDeque::new(), Vec::new());
        for port in 0..ports {
            now += Duration::from_secs_f64(1.0 / rate);
            meter.handle_sent(now, RTT);
            meter.handle_port_sent();
            if is_answered(port, rate) {
                flights.push_back(now);
            }
            while let Some(sent_at) = flights.front().copied().filter(|at| *at + RTT <= now) {
                flights.pop_front();
                meter.handle_port_answer(sent_at);
                let verdict = meter.handle_answer(now, sent_at, Duration::ZERO, rate);
                if let Some(
                    Verdict::Suspected { rate: next }
                    | Verdict::Overload { rate: next }
                    | Verdict::Random { rate: next },
                ) = verdict
                {
                    rate = next;
                }
                verdicts.extend(verdict);
            }
        }
        (verdicts, rate)
    }

    /// Whether port number `port` of a host that answers `share` of the SYNs answers.
    fn chance(port: u32, share: f64) -> bool {
        f64::from(port.wrapping_mul(0x9e37_79b9) >> 16) < share * 65_536.0
    }

    #[test]
    fn an_overload_is_detected_and_its_capacity_is_measured() {
        for share in [1.0, 0.5, 0.2] {
            let mut meter = ShareMeter::new(Instant::now());
            let (verdicts, rate) = drive(&mut meter, 5_000.0, 8_000, |port, _| chance(port, share));
            assert!(verdicts.iter().all(|it| matches!(it, Verdict::Usual { .. })), "{verdicts:?}");
            assert_eq!(rate, 5_000.0);
            let deliver = |port, rate: f64| chance(port, share * (10_000.0 / rate).min(1.0));
            let (verdicts, rate) = drive(&mut meter, 15_000.0, 8_000, deliver);
            let is_detected = verdicts.iter().any(|it| matches!(it, Verdict::Overload { .. }));
            assert!(is_detected, "{share}: {verdicts:?} {meter:?}");
            assert!((8_000.0..=10_500.0).contains(&rate), "{share}: {rate} {verdicts:?}");
        }
    }

    #[test]
    fn random_loss_leads_to_one_experiment_which_restores_the_rate() {
        let mut meter = ShareMeter::new(Instant::now());
        drive(&mut meter, 5_000.0, 4_000, |port, _| chance(port, 0.6));
        let (verdicts, rate) = drive(&mut meter, 15_000.0, 20_000, |port, _| chance(port, 0.5));
        let is = |kind: fn(&Verdict) -> bool| verdicts.iter().filter(|it| kind(it)).count();
        assert_eq!(is(|it| matches!(it, Verdict::Suspected { .. })), 1, "{verdicts:?}");
        assert_eq!(is(|it| matches!(it, Verdict::Random { .. })), 1);
        assert_eq!(rate, 15_000.0);
    }

    #[test]
    fn a_burst_of_loss_does_not_reduce_the_rate_that_the_path_has_carried() {
        let mut meter = ShareMeter::new(Instant::now());
        let is_answered = |port, _| !(8_000..10_000).contains(&port) && chance(port, 0.6);
        let (verdicts, rate) = drive(&mut meter, 10_000.0, 16_000, is_answered);
        assert!(verdicts.iter().any(|it| matches!(it, Verdict::Random { .. })), "{verdicts:?}");
        assert_eq!(rate, 10_000.0);
        assert!(meter.carried < 10_500.0, "{meter:?}");
    }

    #[test]
    fn a_larger_share_becomes_the_reference() {
        let mut meter = ShareMeter::new(Instant::now());
        drive(&mut meter, 5_000.0, 2_000, |port, _| chance(port, 0.3));
        drive(&mut meter, 5_000.0, 2_000, |port, _| chance(port, 0.6));
        assert!((meter.reference.share() - 0.6).abs() < 0.1, "{meter:?}");
    }

    #[test]
    fn an_interval_is_complete_when_a_later_syn_was_answered() {
        let start = Instant::now();
        let at = |millis: u64| start + Duration::from_millis(millis);
        let mut meter = ShareMeter::new(start);
        for millis in 1..=80 {
            meter.handle_sent(at(millis), RTT);
            meter.handle_port_sent();
        }
        let jitter = Duration::from_millis(5);
        let mut answer = |now, sent_at| {
            meter.handle_port_answer(at(sent_at));
            meter.handle_answer(at(now), at(sent_at), jitter, 1_000.0)
        };
        // The queue has become long, so the answers are late.
        for sent_at in 1..=64 {
            assert_eq!(answer(500 + sent_at, sent_at), None);
        }
        assert_eq!(answer(566, 65), None, "an earlier answer may be on its way");
        assert!(matches!(answer(571, 66), Some(Verdict::Usual { .. })));
        assert_eq!((meter.reference.sent, meter.reference.answered), (64, 64));
    }

    #[test]
    fn a_probe_that_was_given_up_does_not_count() {
        let now = Instant::now();
        let mut meter = ShareMeter::new(now);
        meter.handle_port_postponed();
        assert_eq!(meter.open.measured.ports.sent, 0);
        meter.handle_sent(now, RTT);
        meter.handle_port_sent();
        meter.handle_port_postponed();
        assert_eq!(meter.open.measured.ports.sent, 0);
    }
}
