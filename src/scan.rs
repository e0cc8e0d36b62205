//! One scan of one address: which port to probe next, and which state each one has.
//!
//! A pure state machine. The scheduler asks [`Scan::poll_launch`] for probes as far as the scan's
//! allowance goes, reports their outcomes, and gives up what [`Scan::poll_expired`],
//! [`Scan::poll_surplus`], [`Scan::poll_postponed`] and [`Scan::poll_abandoned`] return.
//!
//! A scan runs in passes. The first goes over every port asked for, those that are often open
//! first. A further one goes over the ports that stayed silent, where the plan demands it or the
//! measured loss leaves a doubt ([`loss`]). [`congestion`] says when the next probe may leave, and
//! [`pings`] ask a responding port again while others are silent. All probes of a pass share one
//! timeout, so the oldest in flight is always the first due.
//!
//! Invariants (`check_invariants`): every port asked for is in exactly one of `untested`, `open`,
//! `closed`, `filtered`, `unreachable`; a port is in flight or waiting at most once; nothing is in
//! flight after the end but what `poll_abandoned` still returns. A local shortage never becomes a
//! port's state.

pub mod congestion;
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
mod silent_pace;
pub mod summary;
mod timing;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::event::{CompletionCheck, Outcome, Shortage};
use crate::pacer::RateLimit;
use crate::port_set::PortSet;
use crate::slots::Key;
use crate::technique::Technique;
use congestion::Controller;
use ledger::{Counts, Ledger, PortState};
use loss::{AnsweredExchange, LossMeter};
use order::Order;
use passes::{Pass, SilentStart};
use pings::{Pings, ResponderKind};
use plan::Plan;
use probes::{Probe, ProbeId, Probes};
use rtt::Rtt;
use timing::PING_DELAY_MAX;

/// One probe to be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Launch {
    /// Names the probe in [`Scan::handle_outcome`].
    pub probe: ProbeId,
    /// The address and port to connect to.
    pub to: SocketAddr,
    /// Whether an answer within the call is to be expected.
    pub check: CompletionCheck,
}

/// What an outcome changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeResult {
    /// The port has a state.
    Port {
        /// The port.
        port: u16,
        /// Its state.
        state: PortState,
        /// From the connect to its answer.
        rtt: Duration,
    },
    /// A local shortage: the port waits and is probed again.
    Postponed,
    /// A ping was answered: no port has another state.
    Ping,
}

#[derive(Debug)]
enum ScanState {
    /// Ports are being probed. Armed: the oldest probe's deadline, the pace, the scan's end.
    /// Left when nothing is in flight, waiting or to come, or at the scan's end.
    Pass(Pass),
    /// Every port has its last state. Nothing armed, nothing leaves it.
    Ended { is_complete: bool },
}

/// One scan. See the module's documentation.
#[derive(Debug)]
pub struct Scan {
    plan: Plan,
    started_at: Instant,
    state: ScanState,
    probes: Probes,
    pings: Pings,
    /// Ports that were begun and given back (a shortage, a smaller allowance): next in turn.
    waiting: Vec<u16>,
    ledger: Ledger,
    rtt: Rtt,
    loss: LossMeter,
    /// `None` for a scan of few ports, whose SYNs the path carries at any rate.
    controller: Option<Box<Controller>>,
    /// Probes in flight that the scheduler grants.
    allowance: usize,
    /// Probes beyond the first for a port.
    retried: u32,
    /// Passes in a row in which nothing answered, not even pings, and since when.
    unanswered_passes: Option<(u32, Instant)>,
    /// When the last answer came.
    answered_at: Option<Instant>,
    /// Ports that stayed silent before anything had answered.
    silent_start: SilentStart,
    /// Exchanges of each port of the first pass.
    exchanges_of_last_pass: u32,
    /// Probes of ports started, in all passes.
    launched: u32,
    /// Checks in a row that saw nothing.
    checks_missed: u32,
    /// Ports that are still probed before the next ping that is due. SYNs leave in bursts, of which
    /// the first find the queue shorter: a ping stands anywhere in a burst.
    ports_before_ping: u32,
    /// No ping before this, from the scan's start.
    next_ping_at: Duration,
    /// The rate asked for.
    rate_limit: Option<RateLimit>,
}

/// A scan of so few ports has no pace of its own: TCP itself sends ten segments at once (RFC 6928).
const UNPACED_PORTS_MAX: usize = 16;

impl Scan {
    /// A scan that has launched nothing yet and may not until [`Scan::set_allowance`].
    pub fn new(now: Instant, plan: Plan) -> Self {
        assert!(!plan.ports.is_empty(), "a scan has a port to scan");
        assert!(plan.concurrency() > 0, "a scan may have one connect in flight");
        // Nothing is in the way to this machine itself.
        let is_paced = plan.ports.len() > UNPACED_PORTS_MAX && !plan.target.ip().is_loopback();
        Self {
            started_at: now,
            state: ScanState::Pass(Pass::new(now, 0, Order::first(&plan.ports), plan.ports.len())),
            probes: Probes::new(plan.ports.len()),
            pings: Pings::default(),
            waiting: Vec::new(),
            ledger: Ledger::new(plan.ports.clone()),
            rtt: Rtt::default(),
            loss: LossMeter::default(),
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
            rate_limit: plan.options.rate.map(RateLimit::new),
            plan,
        }
    }

    /// Starts the next probe under the name `key`, if [`Scan::wants_launch`].
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
                self.loss.handle_probe(elapsed, port, group);
                pass.tried += 1;
                self.retried += u32::from(pass.number > 0);
                port
            }
        };
        self.launched = self.launched.wrapping_add(1);
        self.count_launch(now);
        let probe = self.probes.push(port, key, elapsed);
        Some(Launch { probe, to: self.address_of(port), check: self.check() })
    }

    /// Takes in a probe's outcome. The engine has forgotten the probe.
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
            self.waiting.push(probe.port);
            return ProbeResult::Postponed;
        };
        let is_answer = match outcome {
            Outcome::Connected | Outcome::Refused | Outcome::Unreachable => true,
            Outcome::SelfConnect | Outcome::TimedOut | Outcome::Shortage(_) => false,
        };
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

    /// After the end: the engine has forgotten a probe by itself, and its outcome comes too late.
    pub fn handle_late(&mut self, probe: ProbeId) {
        assert!(!self.is_running(), "before the end every outcome counts");
        match probe.as_ping() {
            Some(number) => self.pings.handle_failure(number),
            None => drop(self.probes.remove(probe)),
        }
    }

    /// Ends the probe or ping that is longest overdue, if one is, and returns its name.
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

    /// Gives up the youngest probe while more is in flight than is granted. Its port waits: it has
    /// lost the least time.
    pub fn poll_surplus(&mut self) -> Option<Key> {
        if !self.has_surplus() {
            return None;
        }
        if let Some(key) = self.pings.poll_given_up() {
            return Some(key);
        }
        let (id, _) = self.probes.youngest()?;
        let probe = self.probes.remove(id);
        self.waiting.push(probe.port);
        Some(probe.key)
    }

    /// Gives up the youngest probe if it was started at `since` or later and its SYN may not have
    /// left this machine. Its port waits.
    pub fn poll_postponed(&mut self, since: Instant) -> Option<Key> {
        let since = since.saturating_duration_since(self.started_at);
        let (id, probe) = self.probes.youngest()?;
        // The time of a probe is kept in microseconds.
        if !self.is_running() || probe.started() + Duration::from_micros(1) < since {
            return None;
        }
        let probe = self.probes.remove(id);
        self.waiting.push(probe.port);
        Some(probe.key)
    }

    /// Ends the scan as it stands, if it still runs: what has no state is untested.
    pub fn handle_end(&mut self) {
        if self.is_running() {
            self.state = ScanState::Ended { is_complete: false };
            self.waiting.clear();
        }
        self.check_invariants();
    }

    /// Ends the scan if its time is up.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.count_retransmissions(now, now - self.started_at);
        if now >= self.plan.ends_at {
            self.handle_end();
        }
    }

    /// After the end: the probes that were in flight, one by one.
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

    /// Whether more is in flight than is granted.
    pub const fn has_surplus(&self) -> bool {
        self.is_running() && self.in_flight() > self.allowance
    }

    /// When something is due whatever else runs: the oldest probe, a ping, the end. `None` after
    /// the end.
    pub fn deadline(&self) -> Option<Instant> {
        let expiry = |probe: &Probe| probe.started() + self.probe_timeout();
        let oldest = self.probes.oldest().map(|(_, probe)| expiry(probe));
        let first = oldest.into_iter().chain(self.pings.deadline(&self.rtt)).min();
        let first = first.map(|elapsed| self.started_at + elapsed);
        let first = first.map_or(self.plan.ends_at, |at| at.min(self.plan.ends_at));
        self.is_running().then_some(first)
    }

    /// Whether a port has yet to get its last state.
    pub const fn is_running(&self) -> bool {
        matches!(self.state, ScanState::Pass(_))
    }

    /// Whether every port was probed as planned; false while the scan runs.
    pub const fn is_complete(&self) -> bool {
        matches!(self.state, ScanState::Ended { is_complete: true })
    }

    /// Whether the network was seen to lose packets.
    pub fn loss_suspected(&self) -> bool {
        self.loss.has_lost()
    }

    /// The share of exchanges (a SYN and its answer) that were lost, 0 to 1; `None` while nothing
    /// responded.
    pub fn loss(&self) -> Option<f64> {
        self.loss.loss()
    }

    /// Whether [`Scan::loss`] is known.
    pub const fn has_loss(&self) -> bool {
        self.loss.has_answer()
    }

    /// Whether a port has responded.
    pub const fn has_answer(&self) -> bool {
        self.responding() > 0
    }

    /// Probes made again for ports that had stayed silent.
    pub const fn retried(&self) -> u32 {
        self.retried
    }

    /// Probes in flight, pings included.
    pub const fn in_flight(&self) -> usize {
        self.probes.len() + self.pings.in_flight()
    }

    /// How its ports are probed.
    pub const fn technique(&self) -> Technique {
        self.plan.options.technique
    }

    /// The address.
    pub const fn target(&self) -> SocketAddr {
        self.plan.target
    }

    /// The ports in a state; those untested before the end include the ones in flight.
    pub const fn ports(&self, state: PortState) -> &PortSet {
        self.ledger.ports(state)
    }

    /// How many ports are in each state.
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

    /// A port answered: the round trip, the loss and the pace learn from it.
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
        if let Some(controller) = &mut self.controller {
            controller.handle_port_answer(now);
        }
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

    /// Ports that have responded so far.
    const fn responding(&self) -> u32 {
        let counts = self.counts();
        counts.open + counts.closed + counts.unreachable
    }

    /// Ports that have not answered so far.
    const fn silent(&self) -> &PortSet {
        self.ledger.ports(PortState::Filtered)
    }

    fn has_launch(&self) -> bool {
        match &self.state {
            ScanState::Pass(pass) => !pass.order.is_empty() || !self.waiting.is_empty(),
            ScanState::Ended { .. } => false,
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
            "1: each port is in one state"
        );
        if self.is_running() {
            let unresolved = self.ports(PortState::Untested).len() + self.silent().len();
            assert!(self.probes.len() + self.waiting.len() <= unresolved, "2: in flight once");
        } else {
            assert!(self.waiting.is_empty(), "3: nothing waits after the end");
        }
        if self.is_complete() {
            assert!(self.ports(PortState::Untested).is_empty(), "4: complete: all were probed");
        }
    }
}

#[cfg(test)]
mod tests;
