//! The time at which a scan may launch the next probe. It depends on the congestion control, the
//! requested rate, and the permitted number of probes in flight, called the window.
//!
//! The methods here belong to [`Scan`], which owns the state.

use std::time::{Duration, Instant};

use super::passes::Pass;
use super::pings::ResponderKind;
use super::probes::Probe;
use super::{Scan, ScanState, rtt};
use crate::event::CompletionCheck;
use crate::limits;
use crate::pacer::RateLimit;
use crate::scan::options::{Retries, Timeout};

/// The maximum time for which a due ping waits for the probe of a port. Retransmissions of the
/// kernel may use up the whole rate, so that no port is probed for a long time.
pub(super) const PING_DELAY_MAX: Duration = Duration::from_millis(20);
/// The divisor of the window that gives the number of probes in flight reserved for pings.
const PING_SHARE: usize = 16;
/// The maximum number of probes in flight that are reserved for pings.
const PING_ROOM_MAX: usize = 8;
/// The number of consecutive checks right after `connect` without an outcome after which the scan
/// relies on the poller.
pub(super) const CHECKS_MISSED_MAX: u32 = 16;
/// The interval, in launches, of the checks that are made nevertheless, because the round-trip time
/// of the target may become shorter.
pub(super) const CHECK_INTERVAL: u32 = 256;

/// The part of its deadline over which a further pass is spread; see [`Scan::spread_at`].
const SPREAD_PART: u32 = 4;

impl Scan {
    /// Sets the number of probes that may be in flight. If more are in flight,
    /// [`Scan::poll_surplus`] gives up the surplus.
    pub fn set_allowance(&mut self, allowance: usize) {
        self.allowance = allowance;
        if let Some(controller) = &mut self.controller {
            let in_flight_max = allowance.min(self.plan.concurrency());
            let is_scarce = in_flight_max < self.plan.ports.len();
            let in_flight_max = if is_scarce { in_flight_max } else { usize::MAX };
            let timeout = self.plan.options.timeout.longest().min(limits::TIMEOUT_AUTO_MAX);
            controller.set_in_flight_max(in_flight_max, timeout);
        }
    }

    /// The number of probes that the scan could have in flight: those in flight now, those left in
    /// this pass, and pings.
    pub fn need(&self) -> usize {
        let ScanState::Pass(pass) = &self.state else { return 0 };
        let left = pass.total - pass.tried + self.waiting.len();
        let pings = if self.controller.is_some() { PING_ROOM_MAX } else { 1 };
        let need = self.plan.concurrency().min(self.probes.len() + left);
        if self.is_limited() { need } else { need + pings }
    }

    /// Whether a probe may be started now.
    pub fn wants_launch(&self, now: Instant) -> bool {
        self.launch_at(now).is_some_and(|at| at <= now)
    }

    /// The time at which the next probe may be started, which may have passed; `None` if none may
    /// be started before another event.
    pub fn launch_at(&self, now: Instant) -> Option<Instant> {
        // A ping waits for the next port, so that it experiences the same queues and losses.
        match (self.port_at(now), self.ping_at()) {
            (Some(port), Some(ping)) => Some(port.min(ping + PING_DELAY_MAX)),
            (port, ping) => port.or(ping),
        }
    }

    /// The time at which the next port may be probed; `None` if no port is left or no more probes
    /// may be in flight.
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
        Some(self.within_rate(paced.max(self.spread_at(now))))
    }

    /// The earliest time of the next port of a further pass, as long as no loss was seen. Such a
    /// pass is spread over a part of its deadline: the burst in which the first pass may have lost
    /// packets unnoticed is not repeated.
    fn spread_at(&self, now: Instant) -> Instant {
        let ScanState::Pass(pass) = &self.state else { return now };
        let is_exact = self.plan.options.retries != Retries::Auto;
        if pass.number == 0 || is_exact || self.controller.is_none() || self.loss.has_lost() {
            return now;
        }
        let share = pass.tried as f64 / pass.total.max(1) as f64;
        pass.started_at + (self.probe_timeout() / SPREAD_PART).mul_f64(share)
    }

    /// The number of probes and pings in flight that the plan and the scheduler permit.
    pub(super) fn window(&self) -> usize {
        let limit = if self.is_limited() { self.plan.concurrency() } else { usize::MAX };
        limit.min(self.allowance)
    }

    /// Whether the plan permits fewer probes in flight than there are ports. Pings then count as
    /// probes.
    pub(super) const fn is_limited(&self) -> bool {
        self.plan.concurrency() < self.plan.ports.len()
    }

    /// A SYN is sent to a port: the requested rate and the congestion control count it.
    pub(super) fn count_port_launch(&mut self, now: Instant, port: u16) {
        self.count_rate(now);
        let shows_share = self.shows_share(port);
        let Some(controller) = &mut self.controller else { return };
        controller.handle_sent(now);
        if shows_share {
            controller.handle_port_sent();
        }
    }

    /// A port answered this exchange of the probe: the congestion control counts it. Rejections do
    /// not show the loss, because routers limit them.
    pub(super) fn count_port_answer(
        &mut self,
        now: Instant,
        probe: &Probe,
        responder: ResponderKind,
        exchange: u32,
    ) {
        let is_first = exchange == 1 && responder > ResponderKind::Rejected;
        let shows_share = is_first && self.shows_share(probe.port);
        let sent_at = shows_share.then(|| self.started_at + probe.started());
        if let Some(controller) = &mut self.controller {
            controller.handle_port_answer(now, sent_at);
        }
    }

    /// The probe of a port is given up: the port waits.
    pub(super) fn postpone(&mut self, port: u16) {
        self.waiting.push(port);
        if self.shows_share(port)
            && let Some(controller) = &mut self.controller
        {
            controller.handle_port_postponed();
        }
    }

    /// Whether the probe of the port counts for the share of answered SYNs.
    fn shows_share(&self, port: u16) -> bool {
        match &self.state {
            _ if self.controller.is_none() => false,
            ScanState::Pass(Pass { number: 0, order, .. }) => order.is_scattered_at(port),
            ScanState::Pass(_) | ScanState::Ended(_) => false,
        }
    }

    /// A SYN is sent: only the requested rate counts it.
    pub(super) fn count_rate(&mut self, now: Instant) {
        if let Some(rate_limit) = &mut self.rate_limit {
            rate_limit.handle_launch(now);
        }
    }

    /// The time at which the requested rate permits a probe, which is not earlier than `at`.
    pub(super) fn within_rate(&self, at: Instant) -> Instant {
        let limit_at = self.rate_limit.as_ref().and_then(RateLimit::next_at);
        limit_at.map_or(at, |limit_at| at.max(limit_at))
    }

    /// Counts the SYNs that the kernel has retransmitted by now.
    pub(super) fn count_retransmissions(&mut self, now: Instant, elapsed: Duration) {
        let Some(controller) = &mut self.controller else { return };
        let Some(until) = elapsed.checked_sub(rtt::SYN_RETRANSMIT) else { return };
        while self.probes.poll_retransmission(until) {
            controller.handle_retransmission(now);
        }
    }

    /// When to check for the outcome of the next probe: right after `connect` if recent checks at
    /// that time found an outcome.
    pub(super) fn check(&mut self) -> CompletionCheck {
        if self.checks_missed < CHECKS_MISSED_MAX || self.launched.is_multiple_of(CHECK_INTERVAL) {
            self.checks_missed = self.checks_missed.saturating_add(1);
            return CompletionCheck::AtOnce;
        }
        self.later_check()
    }

    /// When to check for the outcome of the probe of a port that needs at least a round trip.
    ///
    /// If the first pass repeats its SYNs, the poller reports every rejection. With `timeout=auto`
    /// a probe may expire before that. The kernel itself ends no connect within
    /// [`limits::TIMEOUT_DEFAULT`] (`tcp_syn_retries` is at least 1), so an error of an earlier
    /// connect of the socket does not become the outcome of this one.
    pub(super) fn later_check(&self) -> CompletionCheck {
        match self.plan.options.timeout {
            Timeout::Fixed(timeout)
                if timeout <= limits::TIMEOUT_DEFAULT && self.rtt.exchanges_within(timeout) > 1 =>
            {
                CompletionCheck::Later
            }
            Timeout::Fixed(_) | Timeout::Auto => CompletionCheck::RejectionAtOnce,
        }
    }
}
