//! When the next SYN may be sent: at a requested rate, or at a rate that is being measured.
//!
//! [`RateLimit`] keeps the rate of a flag or a parameter; [`TokenBucket`] spreads SYNs at a rate
//! that its owner adjusts to the path. Neither reads a clock. `budget`, `scan` and `core` drive
//! them.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

/// The maximum time that a rate limit makes up after the loop was late.
pub const RATE_SLACK: Duration = Duration::from_millis(5);
/// The initial rate in SYNs per second before the first answer, of one scan and of all such scans
/// together: 200 SYNs in a round-trip time of 50 ms.
pub const START_RATE: f64 = 4_000.0;

/// A limit of launches per second.
#[derive(Clone, Copy, Debug)]
pub struct RateLimit {
    /// The interval between two launches.
    gap: Duration,
    /// The time before which no launch is permitted; `None` if the first launch is permitted.
    next_at: Option<Instant>,
}

impl RateLimit {
    /// A limit of `rate` launches per second.
    pub fn new(rate: NonZeroU32) -> Self {
        Self::shared(rate, 1, None)
    }

    /// One of `scans` equal parts of a limit of `rate` launches per second. No launch is permitted
    /// before `first_at`.
    pub fn shared(rate: NonZeroU32, scans: u8, first_at: Option<Instant>) -> Self {
        Self { gap: Duration::from_secs(scans.into()) / rate.get(), next_at: first_at }
    }

    /// Records a launch. A late loop makes up part of the missed launches, at most those of
    /// [`RATE_SLACK`].
    pub fn handle_launch(&mut self, now: Instant) {
        let earliest = now.checked_sub(RATE_SLACK).unwrap_or(now);
        self.next_at = Some(self.next_at.map_or(now, |at| at.max(earliest)) + self.gap);
    }

    /// The time before which no launch is permitted; `None` if the first launch is permitted.
    pub const fn next_at(&self) -> Option<Instant> {
        self.next_at
    }
}

/// The time in seconds for which unused tokens are kept, because the loop may be late by that much.
const BURST: f64 = 0.003;
/// The maximum debt that retransmissions of the kernel cause, as the time in seconds in which it is
/// repaid. The kernel sends them at its own time.
const DEBT: f64 = 0.02;

/// The SYNs that may be sent at once, as tokens that are added at a rate.
#[derive(Clone, Copy, Debug)]
pub struct TokenBucket {
    tokens: f64,
    refilled_at: Instant,
    /// The number of tokens that are kept at any rate.
    burst_min: f64,
}

impl TokenBucket {
    /// A bucket with `burst_min` tokens.
    pub const fn new(now: Instant, burst_min: f64) -> Self {
        Self { tokens: burst_min, refilled_at: now, burst_min }
    }

    /// The time of the last refill.
    pub const fn refilled_at(&self) -> Instant {
        self.refilled_at
    }

    /// Whether time has passed since the last refill.
    pub fn needs_refill(&self, now: Instant) -> bool {
        now > self.refilled_at
    }

    /// Adds the tokens for the time since the last refill.
    pub fn refill(&mut self, now: Instant, rate: f64) {
        self.tokens = self.tokens_at(now, rate).min(self.burst(rate));
        self.refilled_at = now;
    }

    /// A SYN is sent.
    pub const fn take(&mut self) {
        self.tokens -= 1.0;
    }

    /// The kernel has retransmitted a SYN at its own time.
    pub const fn owe(&mut self, rate: f64) {
        self.tokens = (self.tokens - 1.0).max(-DEBT * rate);
    }

    /// A SYN was answered, and another one may replace it.
    pub fn give_back(&mut self, rate: f64) {
        self.tokens = (self.tokens + 1.0).min(self.burst(rate));
    }

    /// Removes all tokens, so that no SYN may be sent before time adds new ones.
    pub const fn empty(&mut self) {
        self.tokens = self.tokens.min(0.0);
    }

    /// How long the next SYN must wait.
    pub fn wait(&self, now: Instant, rate: f64) -> Duration {
        self.wait_for_burst(now, rate, 1.0)
    }

    /// How long the next SYN must wait if none is left of a burst: until `burst` tokens were added,
    /// so that these SYNs are sent at once.
    pub fn wait_for_burst(&self, now: Instant, rate: f64, burst: f64) -> Duration {
        debug_assert!(burst <= self.burst(rate), "the bucket is large enough for a burst");
        let tokens = self.tokens_at(now, rate);
        if tokens >= 1.0 {
            Duration::ZERO
        } else {
            Duration::from_secs_f64((burst - tokens) / rate)
        }
    }

    /// Panics in a debug build if there are more tokens than any rate up to `rate_max` permits.
    pub fn check_invariants(&self, rate_max: f64) {
        debug_assert!(self.tokens <= self.burst(rate_max), "2: the number of tokens is limited");
    }

    fn tokens_at(&self, now: Instant, rate: f64) -> f64 {
        if !self.needs_refill(now) {
            return self.tokens;
        }
        let elapsed = now.saturating_duration_since(self.refilled_at).as_secs_f64();
        self.tokens + rate * elapsed
    }

    fn burst(&self, rate: f64) -> f64 {
        (rate * BURST).max(self.burst_min)
    }
}
