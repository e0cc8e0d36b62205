//! The scan of one address: it selects the next port to probe and records the state of each port.
//!
//! [`Scan`] is a state machine without I/O. The scheduler requests probes with
//! [`Scan::poll_launch`], within the allowance of the scan, and reports their outcomes. It gives up
//! the probes that [`Scan::poll_expired`], [`Scan::poll_surplus`], [`Scan::poll_postponed`] and
//! [`Scan::poll_abandoned`] return.
//!
//! A scan runs in passes. The first pass probes all requested ports, beginning with those that are
//! often open. A further pass probes silent ports again, if the plan requests it or if the measured
//! loss suggests that responding ports were missed ([`loss`]). [`congestion`] determines when the
//! next probe may be sent, and [`pings`] probe a responding port again while others are silent. All
//! probes of a pass share one timeout, so the oldest probe in flight always expires first.
//!
//! Invariants (`check_invariants`): each requested port is in exactly one of `untested`, `open`,
//! `closed`, `filtered`, `unreachable`; a port is in flight or waiting at most once; after the end
//! the only probes in flight are those that `poll_abandoned` has yet to return. A local shortage
//! never becomes the state of a port.

pub mod congestion;
pub mod end;
pub mod exchanges;
pub mod ledger;
pub mod loss;
mod measure;
pub mod options;
mod order;
mod passes;
mod pinging;
pub mod pings;
pub mod plan;
pub mod probes;
pub mod request;
pub mod rtt;
mod share;
mod silent_pace;
pub mod stored;
pub mod summary;
pub mod sweep;
mod timing;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::event::{CompletionCheck, Outcome, Shortage};
use crate::pacer::RateLimit;
use crate::port_set::PortSet;
use crate::slots::Key;
use crate::technique::Technique;
use congestion::Controller;
use end::ScanEnd;
use ledger::{Counts, Ledger, PortState};
use loss::{AnsweredExchange, LossMeter};
use order::Order;
use passes::{Pass, SilentStart};
use pings::{Pings, ResponderKind};
use plan::Plan;
use probes::{Probe, ProbeId, Probes};
use rtt::Rtt;
use sweep::Sweep;
use timing::PING_DELAY_MAX;

/// A probe that starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Launch {
    /// The id of the probe for [`Scan::handle_outcome`].
    pub probe: ProbeId,
    /// The address and port to connect to.
    pub to: SocketAddr,
    /// When to check for the outcome: at once if it is expected during the call of `connect`.
    pub check: CompletionCheck,
}

/// The result of an outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeResult {
    /// The port has a state.
    Port {
        /// The port.
        port: u16,
        /// Its state.
        state: PortState,
        /// The time from the start of the probe to its outcome.
        rtt: Duration,
    },
    /// There was a local shortage: the port waits and is probed again. A ping is not repeated.
    Postponed,
    /// The probe was a ping, so the states of the ports are unchanged.
    Ping,
}

#[derive(Debug)]
enum ScanState {
    /// Ports are being probed. The deadlines of the oldest probe, the pings and the scan are armed,
    /// and the next launch. The state ends with the last pass, or at the deadline of the scan.
    Pass(Pass),
    /// Every port has its final state, and no deadline is armed. This state is final.
    Ended(ScanEnd),
}

/// One scan. See the module's documentation.
#[derive(Debug)]
pub struct Scan {
    plan: Plan,
    started_at: Instant,
    state: ScanState,
    probes: Probes,
    pings: Pings,
    /// Ports whose probe was given up (a shortage, a smaller allowance). They are probed next.
    waiting: Vec<u16>,
    ledger: Ledger,
    rtt: Rtt,
    loss: LossMeter,
    sweep: Sweep,
    /// The congestion control; `None` for few ports, whose SYNs any path carries at any rate.
    controller: Option<Box<Controller>>,
    /// The number of probes that the scheduler permits in flight.
    allowance: usize,
    /// The number of ports probed in further passes, summed over these passes.
    retried: u32,
    /// The number of consecutive passes without any answer, and the start of the first of them.
    unanswered_passes: Option<(u32, Instant)>,
    /// The time of the last answer that gave an RTT sample.
    answered_at: Option<Instant>,
    /// The ports that stayed silent before the first answer.
    silent_start: SilentStart,
    /// The number of exchanges that each silent port had in the previous pass.
    exchanges_of_last_pass: u32,
    /// The number of probes of ports started in all passes, without pings.
    launched: u32,
    /// The number of consecutive checks right after `connect` that found no outcome.
    checks_missed: u32,
    /// The number of ports that are probed before a ping that is due. It varies, because SYNs are
    /// sent in bursts, and the first ones of a burst meet a shorter queue than the others.
    ports_before_ping: u32,
    /// The earliest time of the next ping, from the start of the scan.
    next_ping_at: Duration,
    /// The requested rate.
    rate_limit: Option<RateLimit>,
}

/// The maximum number of ports of a scan without congestion control. Their SYNs are hardly more
/// than the ten segments that TCP itself sends at once (RFC 6928).
const UNPACED_PORTS_MAX: usize = 16;

impl Scan {
    /// A scan that has started no probe. It may start one after [`Scan::set_allowance`].
    pub fn new(now: Instant, plan: Plan) -> Self {
        assert!(!plan.ports.is_empty(), "a scan has at least one port");
        assert!(plan.concurrency() > 0, "a scan may have at least one probe in flight");
        // There is no network between this machine and itself that could be congested.
        let is_here = plan.target.ip().is_loopback();
        let is_paced = plan.ports.len() > UNPACED_PORTS_MAX && !is_here;
        let first = if is_here { Order::unscattered } else { Order::first };
        Self {
            started_at: now,
            state: ScanState::Pass(Pass::new(now, 0, first(&plan.ports), plan.ports.len())),
            probes: Probes::new(plan.ports.len()),
            pings: Pings::new(plan.options.timeout.longest()),
            waiting: Vec::new(),
            ledger: Ledger::new(plan.ports.clone()),
            rtt: Rtt::default(),
            loss: LossMeter::default(),
            sweep: Sweep::default(),
            controller: is_paced.then(|| Box::new(Controller::new(now, plan.ports.len()))),
            allowance: 0,
            retried: 0,
            unanswered_passes: None,
            answered_at: None,
            silent_start: SilentStart::default(),
            exchanges_of_last_pass: 1,
            launched: 0,
            checks_missed: 0,
            ports_before_ping: 0,
            next_ping_at: Duration::ZERO,
            rate_limit: plan.rate_limit(now),
            plan,
        }
    }

    /// Starts the next probe with this key, if [`Scan::wants_launch`].
    pub fn poll_launch(&mut self, now: Instant, key: Key) -> Option<Launch> {
        let elapsed = now - self.started_at;
        self.count_retransmissions(now, elapsed);
        let (port_at, ping_at) = (self.port_at(now), self.ping_at());
        if ping_at.is_some_and(|at| at + PING_DELAY_MAX <= now) {
            return self.launch_ping(now, key);
        }
        if port_at.is_some_and(|at| at > now) {
            return None;
        }
        if ping_at.is_some_and(|at| at <= now) {
            if port_at.is_none() || self.ports_before_ping == 0 {
                return self.launch_ping(now, key);
            }
            self.ports_before_ping -= 1;
        }
        port_at?;
        let ScanState::Pass(pass) = &mut self.state else { return None };
        let port = match self.waiting.pop() {
            Some(port) => port,
            None => {
                let ports = match pass.number {
                    0 => &self.plan.ports,
                    _ => self.ledger.ports(PortState::Filtered),
                };
                let port = pass.order.pop(ports)?;
                let group = pass.order.group(port);
                self.loss.handle_probe(elapsed, pass.order.position(port), group);
                pass.tried += 1;
                self.retried += u32::from(pass.number > 0);
                port
            }
        };
        self.launched = self.launched.wrapping_add(1);
        self.count_port_launch(now, port);
        let probe = self.probes.push(port, key, elapsed);
        Some(Launch { probe, to: self.address_of(port), check: self.check() })
    }

    /// Handles the outcome of a probe, which the engine no longer knows.
    pub fn handle_outcome(
        &mut self,
        now: Instant,
        probe: ProbeId,
        outcome: Outcome,
    ) -> ProbeResult {
        if let Some(number) = probe.as_ping() {
            return self.handle_ping_outcome(now, number, outcome);
        }
        let probe = self.probes.remove(probe);
        let elapsed = (now - self.started_at).saturating_sub(probe.started());
        let Some(state) = self.state_of(outcome) else {
            self.postpone(probe.port);
            return ProbeResult::Postponed;
        };
        let is_answer =
            matches!(outcome, Outcome::Connected | Outcome::Refused | Outcome::Unreachable);
        if is_answer {
            self.handle_answer(now, &probe, elapsed, state);
        }
        if elapsed.as_micros() == 0 {
            self.checks_missed = 0;
        }
        self.classify(&probe, state);
        self.end_finished_pass(now);
        ProbeResult::Port { port: probe.port, state, rtt: elapsed }
    }

    /// Handles an outcome that came after the end of the scan: the probe is no longer in flight.
    pub fn handle_late(&mut self, probe: ProbeId) {
        assert!(!self.is_running(), "an outcome is late only after the end of the scan");
        match probe.as_ping() {
            Some(number) => self.pings.handle_failure(number),
            None => drop(self.probes.remove(probe)),
        }
    }

    /// Ends a lost ping, or else the oldest probe if its deadline has passed; returns its key.
    pub fn poll_expired(&mut self, now: Instant) -> Option<Key> {
        if !self.is_running() {
            return None;
        }
        let elapsed = now - self.started_at;
        if let Some(key) = self.poll_ping_lost(now) {
            return Some(key);
        }
        let (id, probe) = self.probes.oldest()?;
        let waited = elapsed.saturating_sub(probe.started());
        if waited < self.probe_timeout() {
            return None;
        }
        let probe = self.probes.remove(id);
        self.classify(&probe, PortState::Filtered);
        self.end_finished_pass(now);
        Some(probe.key)
    }

    /// Gives up a ping, or else the youngest probe, while more are in flight than the allowance
    /// permits. The port of the probe waits. The youngest probe is the one that loses least time.
    pub fn poll_surplus(&mut self) -> Option<Key> {
        if !self.has_surplus() {
            return None;
        }
        if let Some(key) = self.pings.poll_given_up() {
            return Some(key);
        }
        let (id, _) = self.probes.youngest()?;
        let probe = self.probes.remove(id);
        self.postpone(probe.port);
        Some(probe.key)
    }

    /// Gives up the youngest probe if it was started at `since` or later, because its SYN may not
    /// have left this machine. Its port waits.
    pub fn poll_postponed(&mut self, since: Instant) -> Option<Key> {
        let since = since.saturating_duration_since(self.started_at);
        let (id, probe) = self.probes.youngest()?;
        // The start of a probe is stored in whole microseconds.
        if !self.is_running() || probe.started() + Duration::from_micros(1) < since {
            return None;
        }
        let probe = self.probes.remove(id);
        self.postpone(probe.port);
        Some(probe.key)
    }

    /// Ends the scan with its results so far, if it runs: ports without a result remain untested.
    pub fn handle_end(&mut self) {
        self.on_end(ScanEnd::Stopped);
    }

    /// Counts the retransmissions so far, and ends the scan if its deadline has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.count_retransmissions(now, now - self.started_at);
        if now >= self.plan.ends_at {
            self.on_end(ScanEnd::Deadline);
        }
    }

    /// After the end of the scan, gives up the pings and probes still in flight, one per call.
    pub fn poll_abandoned(&mut self) -> Option<Key> {
        if self.is_running() {
            return None;
        }
        if let Some(key) = self.pings.poll_given_up() {
            return Some(key);
        }
        let (id, _) = self.probes.oldest()?;
        Some(self.probes.remove(id).key)
    }

    /// Whether more probes are in flight than the allowance permits.
    pub const fn has_surplus(&self) -> bool {
        self.is_running() && self.in_flight() > self.allowance
    }

    /// The earliest deadline of a probe, a ping and the scan itself; `None` after the end.
    pub fn deadline(&self) -> Option<Instant> {
        let expiry = |probe: &Probe| probe.started() + self.probe_timeout();
        let oldest = self.probes.oldest().map(|(_, probe)| expiry(probe));
        let first = oldest.into_iter().chain(self.pings.deadline(&self.rtt)).min();
        let first = first.map(|elapsed| self.started_at + elapsed);
        let first = first.map_or(self.plan.ends_at, |at| at.min(self.plan.ends_at));
        self.is_running().then_some(first)
    }

    /// Whether the scan has not ended yet.
    pub const fn is_running(&self) -> bool {
        matches!(self.state, ScanState::Pass(_))
    }

    /// The share of exchanges that were lost, 0 to 1; `None` if it is unknown: no port answered
    /// itself, or ports stayed silent and no other exchange shows the loss.
    pub fn loss(&self) -> Option<f64> {
        let is_measured = self.silent().is_empty() || self.loss.has_samples();
        let is_known = self.pings.shows_path_loss() && is_measured;
        if is_known || self.loss.has_lost() { self.loss.loss() } else { None }
    }

    /// Whether at least one port has responded.
    pub const fn has_answer(&self) -> bool {
        self.responding() > 0
    }

    /// The number of ports that were probed again because they had stayed silent.
    pub const fn retried(&self) -> u32 {
        self.retried
    }

    /// The number of probes in flight, including pings.
    pub const fn in_flight(&self) -> usize {
        self.probes.len() + self.pings.in_flight()
    }

    /// The technique of its probes.
    pub const fn technique(&self) -> Technique {
        self.plan.options.technique
    }

    /// The scanned address.
    pub const fn target(&self) -> SocketAddr {
        self.plan.target
    }

    /// The ports in a state. Ports in flight are untested in the first pass, and filtered later.
    pub const fn ports(&self, state: PortState) -> &PortSet {
        self.ledger.ports(state)
    }

    /// The number of ports in each state.
    pub const fn counts(&self) -> Counts {
        self.ledger.counts()
    }

    /// The state that an outcome gives a port; `None` for a local shortage.
    const fn state_of(&self, outcome: Outcome) -> Option<PortState> {
        match outcome {
            Outcome::Connected => Some(PortState::Open),
            Outcome::SelfConnect | Outcome::Refused => Some(PortState::Closed),
            Outcome::TimedOut => Some(PortState::Filtered),
            Outcome::Unreachable => Some(PortState::Unreachable),
            Outcome::Shortage(Shortage::SourcePorts) if !self.plan.is_routed => {
                Some(PortState::Unreachable)
            }
            Outcome::Shortage(_) => None,
        }
    }

    /// Updates the round-trip time, the loss and the rate after the answer of a port.
    fn handle_answer(&mut self, now: Instant, probe: &Probe, elapsed: Duration, state: PortState) {
        if !self.loss.has_answer() {
            self.silent_start.handle_first_answer(now - self.started_at, probe);
        }
        let responder = match state {
            PortState::Open => ResponderKind::Open,
            PortState::Closed => ResponderKind::Closed,
            PortState::Unreachable | PortState::Filtered | PortState::Untested => {
                ResponderKind::Rejected
            }
        };
        self.pings.handle_responder(responder, probe.port);
        let exchange = self.rtt.exchange_of(elapsed);
        let sent_at = |number: u32| probe.started() + rtt::syn_at(number);
        if responder > ResponderKind::Rejected || exchange == 1 {
            self.loss.handle_answer(AnsweredExchange {
                number: exchange,
                exchanges_max: self.rtt.exchanges_within(self.probe_timeout()),
                sent_at: sent_at(exchange),
                previous_sent_at: (exchange > 1).then(|| sent_at(exchange - 1)),
            });
        }
        self.count_port_answer(now, probe, responder, exchange);
        if exchange == 1 {
            self.handle_rtt(now, probe.started(), elapsed);
        }
    }

    fn handle_rtt(&mut self, now: Instant, started: Duration, elapsed: Duration) {
        self.answered_at = Some(now);
        self.rtt.handle_answer(elapsed);
        if let Some(controller) = &mut self.controller {
            controller.handle_answer(now, self.started_at + started, elapsed);
        }
    }

    /// The number of ports that have responded so far.
    const fn responding(&self) -> u32 {
        let counts = self.counts();
        counts.open + counts.closed + counts.unreachable
    }

    /// The ports that were probed and have not answered.
    const fn silent(&self) -> &PortSet {
        self.ledger.ports(PortState::Filtered)
    }

    fn on_end(&mut self, end: ScanEnd) {
        if self.is_running() {
            self.state = ScanState::Ended(end);
            self.waiting.clear();
        }
        self.check_invariants();
    }

    fn has_launch(&self) -> bool {
        match &self.state {
            ScanState::Pass(pass) => !pass.order.is_empty() || !self.waiting.is_empty(),
            ScanState::Ended(_) => false,
        }
    }

    fn address_of(&self, port: u16) -> SocketAddr {
        let mut to = self.plan.target;
        to.set_port(port);
        to
    }

    fn check_invariants(&self) {
        assert_eq!(
            self.counts().total() as usize,
            self.plan.ports.len(),
            "1: each port is in exactly one state"
        );
        if self.is_running() {
            let unresolved = self.ports(PortState::Untested).len() + self.silent().len();
            assert!(
                self.probes.len() + self.waiting.len() <= unresolved,
                "2: a port is in flight once"
            );
        } else {
            assert!(self.waiting.is_empty(), "3: no port waits after the end");
        }
        if self.is_complete() {
            assert!(self.ports(PortState::Untested).is_empty(), "4: all were probed");
        }
    }
}

#[cfg(test)]
mod tests;
