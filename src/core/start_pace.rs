//! The common pace of all scans that have received no answer yet.
//!
//! A scan that received an answer has a pace of its own (`scan::congestion`). A scan without an
//! answer knows nothing about its path, and thousands of such scans may run at once when a list of
//! targets is scanned. Together they start at [`START_RATE`] and double each [`DOUBLING`], up to a
//! rate at which all probes that may be in flight are sent within a second. Each answer returns the
//! token of its SYN, so that hosts that answer at once are scanned at full speed. Late answers mean
//! that packets were lost on the way, and the rate is halved. `launch_queues` drives this module,
//! which sends nothing itself.
//!
//! Invariant: the rate stays between [`RATE_MIN_DROPS`] and the rate that the capacity permits.

use std::time::{Duration, Instant};

use crate::pacer::{START_RATE, TokenBucket};
use crate::scan::Scan;

/// The time in seconds in which the rate doubles.
const DOUBLING: f64 = 0.125;
/// The rate in SYNs per second below which late answers never reduce it.
const RATE_MIN: f64 = 1_000.0;
/// The rate in SYNs per second below which drops in a queue of this machine never reduce it. Such
/// drops are detected at once.
const RATE_MIN_DROPS: f64 = 250.0;
/// The number of tokens that are kept at any rate.
const BURST_MIN: f64 = 16.0;
/// The time without a SYN after which the rate starts again from its initial value.
const IDLE: Duration = Duration::from_secs(1);
/// The number of answers that are judged together. If more than [`LATE_SHARE`] of them are late,
/// the rate is halved.
const ANSWERS_MIN: u32 = 20;
/// The factor by which the maximum rate grows with each judgement that finds no loss.
const RECOVERY: f64 = 1.25;
/// See [`ANSWERS_MIN`].
const LATE_SHARE: f64 = 0.1;

/// The common pace of all scans without an answer.
#[derive(Debug)]
pub(super) struct StartPace {
    rate: f64,
    /// The rate that the capacity permits.
    rate_full: f64,
    /// The maximum rate. Late answers reduce it below `rate_full`.
    rate_max: f64,
    /// `None` before the first SYN.
    bucket: Option<TokenBucket>,
    answers: u32,
    late: u32,
}

/// The time of the first answer of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    /// The answer came in the first pass, perhaps only to a repeated SYN: a scan without another
    /// answer cannot distinguish this from a long round trip.
    InTime,
    /// The answer came only in a further pass, because other targets had lost exchanges.
    Late,
}

impl Arrival {
    /// The arrival of the only answer that a scan has received.
    pub(super) fn of_first_answer(scan: &Scan) -> Self {
        if scan.loss_suspected() { Self::Late } else { Self::InTime }
    }
}

impl StartPace {
    /// A pace for `capacity` probes in flight.
    pub(super) fn new(capacity: usize) -> Self {
        let rate_max = (capacity as f64).max(RATE_MIN);
        Self {
            rate: START_RATE.min(rate_max),
            rate_full: rate_max,
            rate_max,
            bucket: None,
            answers: 0,
            late: 0,
        }
    }

    /// A SYN is sent.
    pub(super) fn handle_sent(&mut self, now: Instant) {
        self.refill(now).take();
    }

    /// A probe was answered.
    pub(super) fn handle_answer(&mut self, arrival: Arrival) {
        self.answers += 1;
        match (arrival, &mut self.bucket) {
            (Arrival::InTime, Some(bucket)) => bucket.give_back(self.rate),
            (Arrival::InTime, None) => {}
            (Arrival::Late, _) => self.late += 1,
        }
        if self.answers < ANSWERS_MIN {
            return;
        }
        if f64::from(self.late) > LATE_SHARE * f64::from(self.answers) {
            self.rate_max = (self.rate_max / 2.0).max(RATE_MIN);
            self.rate = self.rate.min(self.rate_max);
        } else {
            self.rate_max = (self.rate_max * RECOVERY).min(self.rate_full);
        }
        (self.answers, self.late) = (0, 0);
    }

    /// A queue of this machine dropped packets: the rate is halved, and grows again from there.
    pub(super) fn handle_drops(&mut self, now: Instant) {
        self.refill(now).empty();
        self.rate = (self.rate / 2.0).max(RATE_MIN_DROPS);
    }

    /// The time at which the next SYN may be sent; not later than `now` if it may be sent at once.
    pub(super) fn next_at(&self, now: Instant) -> Instant {
        match &self.bucket {
            Some(bucket) if !self.is_idle(now) => now + bucket.wait(now, self.rate_at(now)),
            Some(_) | None => now,
        }
    }

    fn refill(&mut self, now: Instant) -> &mut TokenBucket {
        let rate = self.rate_at(now);
        if self.is_idle(now) {
            // The losses that reduced the maximum were those of earlier targets.
            self.rate_max = self.rate_full;
            self.bucket = None;
        }
        self.rate = rate;
        let bucket = self.bucket.get_or_insert_with(|| TokenBucket::new(now, BURST_MIN));
        bucket.refill(now, rate);
        bucket
    }

    /// Whether the last SYN was sent so long ago that the rate starts again.
    fn is_idle(&self, now: Instant) -> bool {
        self.bucket.as_ref().is_some_and(|bucket| {
            bucket.needs_refill(now) && now.saturating_duration_since(bucket.refilled_at()) >= IDLE
        })
    }

    /// The rate at `now`.
    fn rate_at(&self, now: Instant) -> f64 {
        let Some(bucket) = &self.bucket else { return self.rate };
        if !bucket.needs_refill(now) {
            return self.rate;
        }
        if self.is_idle(now) {
            return START_RATE.min(self.rate_max);
        }
        let elapsed = now.saturating_duration_since(bucket.refilled_at()).as_secs_f64();
        (self.rate * (elapsed / DOUBLING).exp2()).min(self.rate_max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The number of SYNs that are sent in the first `millis` milliseconds.
    fn sent(pace: &mut StartPace, start: Instant, millis: u64, answered: bool) -> u32 {
        let mut count = 0;
        for ms in 0..millis {
            let now = start + Duration::from_millis(ms);
            while pace.next_at(now) <= now && count < 1_000_000 {
                pace.handle_sent(now);
                count += 1;
                if answered && count < 100_000 {
                    pace.handle_answer(Arrival::InTime);
                }
            }
        }
        count
    }

    #[test]
    fn syns_to_silent_hosts_start_slowly_and_fill_the_capacity_within_a_second() {
        let start = Instant::now();
        let mut pace = StartPace::new(18_836);
        let first = sent(&mut pace, start, 50, false);
        assert!((150..350).contains(&first), "{first}");
        let all = first + sent(&mut pace, start + Duration::from_millis(50), 1200, false);
        assert!((17_000..21_000).contains(&all), "{all}");
    }

    #[test]
    fn answers_return_the_tokens_of_their_syns() {
        let mut pace = StartPace::new(1000);
        assert!(sent(&mut pace, Instant::now(), 2, true) >= 100_000);
    }

    #[test]
    fn drops_of_this_machine_halve_the_rate_and_it_grows_back() {
        let start = Instant::now();
        let mut pace = StartPace::new(18_836);
        (0..100).for_each(|_| pace.handle_drops(start));
        assert!((pace.rate - RATE_MIN_DROPS).abs() < 1.0);
        assert!(pace.next_at(start) > start, "saved tokens are dropped");
        let rate = pace.rate_at(start + Duration::from_millis(500));
        assert!((rate - 16.0 * RATE_MIN_DROPS).abs() < 10.0, "{rate}");
    }

    #[test]
    fn late_answers_halve_the_rate_and_never_below_its_floor() {
        let mut pace = StartPace::new(18_836);
        for _ in 0..100 {
            (0..ANSWERS_MIN).for_each(|_| pace.handle_answer(Arrival::Late));
        }
        assert!((pace.rate_max - RATE_MIN).abs() < 1.0);
        for _ in 0..100 {
            (0..ANSWERS_MIN).for_each(|_| pace.handle_answer(Arrival::InTime));
        }
        assert!((pace.rate_max - 18_836.0).abs() < 1.0, "answers in time raise the rate again");
    }

    #[test]
    fn the_rate_starts_anew_after_a_pause() {
        let (start, mut pace) = (Instant::now(), StartPace::new(18_836));
        pace.handle_sent(start);
        (0..ANSWERS_MIN).for_each(|_| pace.handle_answer(Arrival::Late));
        assert!(pace.rate_max < 10_000.0);
        pace.handle_sent(start + IDLE);
        assert!((pace.rate_max - 18_836.0).abs() < 1.0);
    }
}
