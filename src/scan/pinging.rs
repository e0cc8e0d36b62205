//! The pings of a scan: when a ping is sent, and how its result is used.
//!
//! [`pings`](super::pings) keeps the pings in flight. Pings are sent between the probes of ports,
//! so that they experience the same queues and losses. The methods here belong to [`Scan`], which
//! owns the state.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use super::pings::{PingEvent, PingResult, PingWeight};
use super::probes::ProbeId;
use super::{Launch, ProbeResult, Scan, ScanState};
use crate::event::{CompletionCheck, Outcome};
use crate::slots::Key;

/// The maximum interval between pings of a scan without congestion control. With a shorter timeout
/// there are some twenty pings within the timeout.
const PING_GAP: Duration = Duration::from_millis(100);

/// The minimum number of permitted probes in flight with which pings are sent while ports are left
/// to probe. With fewer, pings would delay the ports too much.
const PINGED_WINDOW_MIN: usize = 4;

impl Scan {
    /// Starts the ping that is due, with this key.
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
        Some(Launch { probe, to, check: CompletionCheck::RejectionAtOnce })
    }

    /// Handles the outcome of a ping. An answer gives an RTT sample at once; the loss is measured
    /// later ([`Scan::poll_ping_lost`]).
    pub(super) fn handle_ping_outcome(
        &mut self,
        now: Instant,
        number: u32,
        outcome: Outcome,
    ) -> ProbeResult {
        match outcome {
            // A port that has answered itself does not become unreachable: a link or a route on the
            // path is gone.
            Outcome::Unreachable if self.pings.is_of_host(number) => {
                self.pings.handle_loss(number);
                ProbeResult::Ping
            }
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
    /// permits enough probes in flight for pings while ports are probed.
    pub(super) fn measures_loss(&self) -> bool {
        self.pings.shows_path_loss()
            && (!self.is_limited() || self.plan.concurrency() >= PINGED_WINDOW_MIN)
    }

    /// Passes the results of pings to the congestion control and to the loss meter. Returns the key
    /// of a lost ping, which must be given up, if there is one.
    pub(super) fn poll_ping_lost(&mut self, now: Instant) -> Option<Key> {
        let elapsed = now - self.started_at;
        while let Some(event) = self.pings.poll_event(elapsed, &self.rtt) {
            match event {
                PingEvent::Judged { started, weight, result } => {
                    self.judge_ping(now, started, weight, result);
                }
                PingEvent::Counted { started, weight, result } => {
                    self.loss.handle_ping(started, result, weight.syns);
                }
                PingEvent::Lost { key } => return Some(key),
            }
        }
        None
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

    /// The time at which the next ping is due; `None` if no port can be pinged or no more probes
    /// may be in flight.
    pub(super) fn ping_at(&self) -> Option<Instant> {
        self.pings.port()?;
        let elapsed = match &self.controller {
            Some(_) => self.next_ping_at,
            None => {
                // Pings are useful only while a port is silent for longer than an answer takes.
                let silent_since = self.probes.oldest()?.1.started();
                let mut late_after = self.rtt.late_after().unwrap_or(PING_GAP);
                if let Some(rtt) = self.rtt.smoothed()
                    && self.rtt.exchanges_within(self.probe_timeout()) == 1
                {
                    // The deadline may be hardly later, and a ping needs a round trip before it.
                    late_after = late_after.min(rtt * 5 / 4);
                }
                self.next_ping_at.max(silent_since + late_after)
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

    /// The interval from the ping that is sent now to the next one.
    fn ping_gap(&self) -> Duration {
        let rtt = self.rtt.smoothed().unwrap_or(PING_GAP);
        let gap = match &self.controller {
            Some(controller) => controller.ping_gap(rtt),
            None => PING_GAP.min(self.probe_timeout() / 20),
        };
        let gap = if self.pings.has_failed() { 8 * gap } else { gap };
        // The interval varies from half to one and a half times its length, so that pings are not
        // synchronised with periodic events on the path.
        let gap = gap * (128 + (fibonacci_hash(self.pings.sent()) >> 24)) / 256;
        let seconds = 16 * u64::from(self.plan.share.scans);
        let by_rate = |rate: NonZeroU32| Duration::from_secs(seconds) / rate.get();
        self.plan.options.rate.map_or(gap, |rate| gap.max(by_rate(rate)))
    }
}

/// The Fibonacci hash of a number, which is used as a pseudo-random number.
const fn fibonacci_hash(number: u32) -> u32 {
    number.wrapping_mul(0x9e37_79b9)
}
