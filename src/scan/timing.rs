//! When a scan may launch: its pace, the rate asked for, and the room in its window.
//!
//! The state is that of [`Scan`].

use std::time::{Duration, Instant};

use super::{Scan, ScanState, rtt};
use crate::event::CompletionCheck;
use crate::limits;
use crate::pacer::RateLimit;
use crate::scan::options::Timeout;

/// A ping waits for the next port for so long at most: the kernel's repeats may take all the pace.
pub(super) const PING_DELAY_MAX: Duration = Duration::from_millis(20);
/// The part of the window that is kept free for pings, and how much at most.
const PING_SHARE: usize = 16;
/// See [`PING_SHARE`].
const PING_ROOM_MAX: usize = 8;
/// Checks in a row that may see nothing before the scan relies on the poller.
pub(super) const CHECKS_MISSED_MAX: u32 = 16;
/// Then one launch in so many still checks, for a target that comes nearer.
pub(super) const CHECK_INTERVAL: u32 = 256;

impl Scan {
    /// Grants probes in flight; a smaller grant makes a surplus for [`Scan::poll_surplus`].
    pub fn set_allowance(&mut self, allowance: usize) {
        self.allowance = allowance;
        if let Some(controller) = &mut self.controller {
            let in_flight_max = allowance.min(self.plan.concurrency());
            let is_scarce = in_flight_max < self.plan.ports.len();
            let in_flight_max = if is_scarce { in_flight_max } else { usize::MAX };
            let timeout = match self.plan.options.timeout {
                Timeout::Fixed(timeout) => timeout.min(limits::TIMEOUT_AUTO_MAX),
                Timeout::Auto => limits::TIMEOUT_AUTO_MAX,
            };
            controller.set_in_flight_max(in_flight_max, timeout);
        }
    }

    /// Probes that the scan could use at once: in flight, and to come in this pass.
    pub fn need(&self) -> usize {
        let ScanState::Pass(pass) = &self.state else { return 0 };
        let to_come = pass.total - pass.tried + self.waiting.len();
        let pings = if self.controller.is_some() { PING_ROOM_MAX } else { 1 };
        let need = self.plan.concurrency().min(self.probes.len() + to_come);
        if self.is_limited() { need } else { need + pings }
    }

    /// Whether a probe may be started now.
    pub fn wants_launch(&self, now: Instant) -> bool {
        self.launch_at(now).is_some_and(|at| at <= now)
    }

    /// When the next probe may be started, past or to come; `None` where no time alone allows one.
    pub fn launch_at(&self, now: Instant) -> Option<Instant> {
        // A ping leaves among the ports, so that it meets what they meet.
        match (self.port_at(now), self.ping_at()) {
            (Some(port), Some(ping)) => Some(port.min(ping + PING_DELAY_MAX)),
            (port, ping) => port.or(ping),
        }
    }

    /// When the next port may be probed; `None` while there is none or no room.
    pub(super) fn port_at(&self, now: Instant) -> Option<Instant> {
        let window = self.window();
        let ping_room = if self.controller.is_some() && self.pings.port().is_some() {
            (window / PING_SHARE).min(PING_ROOM_MAX).saturating_sub(self.pings.in_flight())
        } else {
            0
        };
        if !self.has_launch() || self.in_flight() + ping_room >= window {
            return None;
        }
        let paced = self.controller.as_ref().map_or(now, |controller| controller.next_at(now));
        Some(self.within_rate(paced))
    }

    /// Probes and pings in flight that the plan and the scheduler permit.
    pub(super) fn window(&self) -> usize {
        let limit = if self.is_limited() { self.plan.concurrency() } else { usize::MAX };
        limit.min(self.allowance)
    }

    /// Whether the plan allows fewer probes in flight than there are ports: pings then
    /// count among them.
    pub(super) const fn is_limited(&self) -> bool {
        self.plan.concurrency() < self.plan.ports.len()
    }

    /// A SYN leaves: the rate asked for and the pace count it.
    pub(super) fn count_launch(&mut self, now: Instant) {
        self.count_rate(now);
        if let Some(controller) = &mut self.controller {
            controller.handle_sent(now);
        }
    }

    pub(super) fn count_rate(&mut self, now: Instant) {
        if let Some(rate_limit) = &mut self.rate_limit {
            rate_limit.handle_launch(now);
        }
    }

    /// The time at which the rate asked for permits what could leave at `at`.
    pub(super) fn within_rate(&self, at: Instant) -> Instant {
        let limit_at = self.rate_limit.as_ref().and_then(RateLimit::next_at);
        limit_at.map_or(at, |limit_at| at.max(limit_at))
    }

    /// Counts the SYNs that the kernel has repeated by now.
    pub(super) fn count_retransmissions(&mut self, now: Instant, elapsed: Duration) {
        let Some(controller) = &mut self.controller else { return };
        let Some(until) = elapsed.checked_sub(rtt::SYN_RETRANSMIT) else { return };
        while self.probes.poll_retransmission(until) {
            controller.handle_retransmission(now);
        }
    }

    /// Whether to look for the outcome right after `connect`: as long as it was there lately.
    pub(super) fn check(&mut self) -> CompletionCheck {
        if self.checks_missed < CHECKS_MISSED_MAX || self.launched.is_multiple_of(CHECK_INTERVAL) {
            self.checks_missed = self.checks_missed.saturating_add(1);
            return CompletionCheck::AtOnce;
        }
        CompletionCheck::Later
    }
}
