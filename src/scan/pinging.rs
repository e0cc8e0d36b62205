//! The pings of a scan: when one leaves, and what the scan learns from it.
//!
//! [`pings`](super::pings) keeps those in flight. A ping leaves among the ports, so that it meets
//! what they meet. The state is that of [`Scan`].

use std::time::{Duration, Instant};

use super::pings::{PingEvent, PingResult, PingWeight};
use super::probes::ProbeId;
use super::{Launch, ProbeResult, Scan, ScanState};
use crate::event::{CompletionCheck, Outcome};
use crate::slots::Key;

/// The time between pings of a scan without a pace, at most. There are some twenty pings in a
/// timeout.
const PING_GAP: Duration = Duration::from_millis(100);

/// A scan that may have fewer probes in flight than this has none to spare for pings while ports
/// are still to be probed.
const PINGED_WINDOW_MIN: usize = 4;

impl Scan {
    /// Starts the ping that is due under the name `key`.
    pub(super) fn launch_ping(&mut self, now: Instant, key: Key) -> Option<Launch> {
        let port = self.pings.port()?;
        self.count_rate(now);
        let weight = match &mut self.controller {
            Some(controller) => controller.handle_ping_sent(now),
            None => PingWeight { syns: 1, tests_rate: false },
        };
        let burst = self.controller.as_ref().map_or(1, |controller| controller.burst());
        self.ports_before_ping = (fibonacci_hash(self.launched) >> 8) % (2 * burst);
        let elapsed = now - self.started_at;
        let number = self.pings.push(key, elapsed, weight);
        self.next_ping_at = elapsed + self.ping_gap();
        let (probe, to) = (ProbeId::ping(number), self.address_of(port));
        Some(Launch { probe, to, check: CompletionCheck::Later })
    }

    /// Takes in a ping's outcome: an answer is a round trip, whose loss is counted later.
    pub(super) fn handle_ping_outcome(
        &mut self,
        now: Instant,
        number: u32,
        outcome: Outcome,
    ) -> ProbeResult {
        match outcome {
            Outcome::Connected | Outcome::Refused | Outcome::Unreachable => {
                if let Some(started) = self.pings.handle_answer(number) {
                    let elapsed = (now - self.started_at).saturating_sub(started);
                    if let ScanState::Pass(pass) = &mut self.state {
                        pass.has_ping_answer = true;
                    }
                    self.handle_rtt(now, started, elapsed);
                }
                ProbeResult::Ping
            }
            Outcome::Shortage(_) => {
                self.pings.handle_failure(number);
                ProbeResult::Postponed
            }
            Outcome::SelfConnect | Outcome::TimedOut => {
                self.pings.handle_failure(number);
                ProbeResult::Ping
            }
        }
    }

    /// Whether pings measure the loss: the pinged port shows the loss of the path, and the plan
    /// leaves room for pings while ports are probed.
    pub(super) fn measures_loss(&self) -> bool {
        self.pings.shows_path_loss()
            && (!self.is_limited() || self.plan.concurrency() >= PINGED_WINDOW_MIN)
    }

    /// Counts and judges pings whose result is known by now, up to one that is lost: its name.
    pub(super) fn poll_ping_lost(&mut self, now: Instant) -> Option<Key> {
        let elapsed = now - self.started_at;
        while let Some(event) = self.pings.poll_event(elapsed, &self.rtt) {
            match event {
                PingEvent::Judged { started, weight, result } => {
                    self.judge_ping(now, started, weight, result);
                }
                PingEvent::Counted { started, weight, result } => {
                    self.count_ping(started, result, weight);
                }
                PingEvent::Lost { key } => return Some(key),
            }
        }
        None
    }

    fn count_ping(&mut self, started: Duration, result: PingResult, weight: PingWeight) {
        if !self.pings.shows_path_loss() {
            return;
        }
        self.loss.handle_ping(started, result, weight.syns);
    }

    fn judge_ping(
        &mut self,
        now: Instant,
        started: Duration,
        weight: PingWeight,
        result: PingResult,
    ) {
        if let Some(controller) = &mut self.controller
            && self.pings.shows_path_loss()
            && !self.pings.has_failed()
        {
            controller.handle_ping(now, self.started_at + started, result, weight);
        }
    }

    /// When the next ping is due; `None` while there is nothing to ping or no room.
    pub(super) fn ping_at(&self) -> Option<Instant> {
        self.pings.port()?;
        let elapsed = match &self.controller {
            Some(_) => self.next_ping_at,
            None => {
                let silent_since = self.probes.oldest()?.1.started();
                let is_late_after = self.rtt.late_after().unwrap_or(PING_GAP);
                self.next_ping_at.max(silent_since + is_late_after)
            }
        };
        let has_room = self.in_flight() < self.window() && self.pings.has_room();
        if !self.is_running() || !has_room || self.has_launch() && self.window() < PINGED_WINDOW_MIN
        {
            return None;
        }
        let at = self.started_at + elapsed;
        Some(self.within_rate(at))
    }

    /// The time from the ping that is just sent to the next.
    fn ping_gap(&self) -> Duration {
        let rtt = self.rtt.smoothed().unwrap_or(PING_GAP);
        let gap = match &self.controller {
            Some(controller) => controller.ping_gap(rtt),
            None => PING_GAP.min(self.probe_timeout() / 20),
        };
        let gap = if self.pings.has_failed() { 8 * gap } else { gap };
        // From half to one and a half, so that pings do not leave in step with anything.
        let gap = gap * (128 + (fibonacci_hash(self.pings.sent()) >> 24)) / 256;
        self.plan.options.rate.map_or(gap, |rate| gap.max(Duration::from_secs(16) / rate.get()))
    }
}

/// A number that looks random, without a generator: the golden ratio's multiples.
const fn fibonacci_hash(number: u32) -> u32 {
    number.wrapping_mul(0x9e37_79b9)
}
