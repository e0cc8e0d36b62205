//! One scan of one address: which port to try next, and what each one came to.
//!
//! A pure state machine: the service asks [`Scan::poll_launch`] for connects as far as the scan's
//! allowance of descriptors goes, tells it their outcomes, and closes what
//! [`Scan::poll_expired`], [`Scan::poll_surplus`] and [`Scan::poll_abandoned`] give back.
//!
//! A scan runs in passes. The first goes over every port asked for. A further one goes over the
//! ports that stayed silent, where the plan demands it or the network was seen to lose packets.
//! All probes of a pass share one timeout, so the oldest in flight is always the first due.
//!
//! Invariants (`check_invariants`): every port asked for is in exactly one of `untested`, `open`,
//! `closed`, `filtered`, `unreachable`; a port is in flight or waiting at most once; nothing is in
//! flight after the end but what `poll_abandoned` still hands out. A shortage of ours never
//! becomes a port's state.

pub mod ledger;
pub mod plan;
pub mod probes;
pub mod rtt;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::event::{Glance, Outcome, Shortage};
use crate::limits;
use crate::slots::Key;
use crate::target::{PortSet, Retries, Timeout};
use ledger::{Counts, Ledger, PortState};
use plan::Plan;
use probes::{Probe, ProbeId, Probes};
use rtt::Rtt;

/// One connect to be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Launch {
    /// Names the probe in [`Scan::handle_outcome`].
    pub probe: ProbeId,
    /// Where to.
    pub to: SocketAddr,
    /// Whether an answer within the call is to be expected.
    pub glance: Glance,
}

/// What an outcome changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// The port has a state; `rtt` is the time from connect to answer.
    Port {
        /// The port.
        port: u16,
        /// Its state.
        state: PortState,
        /// From the connect to its answer.
        rtt: Duration,
    },
    /// We ran short: the port waits and is tried again.
    Postponed,
}

#[derive(Debug)]
enum State {
    /// Ports are being tried. Armed: the oldest probe's deadline, the pace, the scan's end.
    /// Left when nothing is in flight, waiting or to come, or at the scan's end.
    Pass(Pass),
    /// Every port has its last state. Nothing armed, nothing leaves it.
    Ended { complete: bool },
}

#[derive(Debug)]
struct Pass {
    /// 0 for the pass over all ports.
    number: u32,
    /// The next port in ascending order; `None` once all were launched.
    next: Option<u16>,
    /// Ports of this pass, tried or not.
    total: usize,
    /// Ports tried so far.
    tried: usize,
    /// Ports that got an answer in this pass.
    answered: usize,
}

/// One scan. See the module's documentation.
#[derive(Debug)]
pub struct Scan {
    plan: Plan,
    started_at: Instant,
    state: State,
    probes: Probes,
    /// Ports that were begun and given back (a shortage, a smaller allowance): next in turn.
    waiting: Vec<u16>,
    ledger: Ledger,
    rtt: Rtt,
    /// Descriptors that the service grants.
    allowance: usize,
    /// Connects in flight that the target or the way to it bears; halved where a pass shows less.
    pressure_max: usize,
    /// Probes beyond the first for a port.
    retried: u32,
    /// True exactly when a silent probe ended before the kernel had repeated its SYN.
    gave_up_early: bool,
    /// True exactly when a port that had been silent answered in a later pass.
    silence_broken: bool,
    /// When a port was last answered for.
    answered_at: Instant,
    /// Connects started, all told.
    launched: u32,
    /// Glances in a row that saw nothing.
    glances_missed: u32,
    /// The pace: no launch before this.
    next_launch_at: Instant,
}

/// Glances in a row that may see nothing before the poller is trusted to tell.
const GLANCES_MISSED_MAX: u32 = 16;
/// Then one launch in so many still glances, for a target that comes nearer.
const GLANCE_EVERY: u32 = 256;
/// Further passes that `retries=auto` makes at most.
const PASSES_AUTO_MAX: u32 = 10;
/// How long nothing may come before `retries=auto` takes silence for the last word. Limits count
/// by the second (FreeBSD's icmplim, most firewalls'): a shorter pass may have met a spent one.
const BARREN_MIN: Duration = Duration::from_secs(1);
/// The window is never halved below this.
const WINDOW_MIN: usize = 64;
/// How far a pace may catch up after the loop was late: at most so many launches' time.
const PACE_SLACK: Duration = Duration::from_millis(5);

impl Scan {
    /// A scan that has launched nothing yet and may not until [`Scan::set_allowance`].
    pub fn new(now: Instant, plan: Plan) -> Self {
        assert!(!plan.ports.is_empty(), "a scan has a port to scan");
        assert!(plan.concurrency > 0, "a scan may have one connect in flight");
        Self {
            started_at: now,
            state: State::Pass(Pass {
                number: 0,
                next: plan.ports.next_from(0),
                total: plan.ports.len(),
                tried: 0,
                answered: 0,
            }),
            probes: Probes::new(),
            waiting: Vec::new(),
            ledger: Ledger::new(plan.ports.clone()),
            rtt: Rtt::default(),
            allowance: 0,
            pressure_max: usize::MAX,
            retried: 0,
            gave_up_early: false,
            silence_broken: false,
            answered_at: now,
            launched: 0,
            glances_missed: 0,
            next_launch_at: now,
            plan,
        }
    }

    /// Grants descriptors; a smaller grant makes a surplus for [`Scan::poll_surplus`].
    pub fn set_allowance(&mut self, allowance: usize) {
        self.allowance = allowance;
    }

    /// Starts the next connect on `socket`, if [`Scan::wants_launch`].
    pub fn poll_launch(&mut self, now: Instant, socket: Key) -> Option<Launch> {
        if !self.wants_launch(now) {
            return None;
        }
        let State::Pass(pass) = &mut self.state else { return None };
        let port = match self.waiting.pop() {
            Some(port) => port,
            None => {
                let port = pass.next?;
                let set = if pass.number == 0 {
                    &self.plan.ports
                } else {
                    self.ledger.ports(PortState::Filtered)
                };
                pass.next = set.next_from(u32::from(port) + 1);
                pass.tried += 1;
                self.retried += u32::from(pass.number > 0);
                port
            }
        };
        if let Some(rate) = self.plan.rate {
            let earliest = now.checked_sub(PACE_SLACK).unwrap_or(now);
            self.next_launch_at =
                self.next_launch_at.max(earliest) + Duration::from_secs(1) / rate.get();
        }
        let probe = self.probes.push(port, socket, now - self.started_at);
        let mut to = self.plan.target;
        to.set_port(port);
        Some(Launch { probe, to, glance: self.glance() })
    }

    /// Takes in what a connect came to; its socket is the caller's to close.
    pub fn handle_outcome(&mut self, now: Instant, probe: ProbeId, outcome: Outcome) -> Finding {
        let probe = self.probes.remove(probe);
        let elapsed = (now - self.started_at).saturating_sub(probe.started());
        let state = match outcome {
            Outcome::Connected => PortState::Open,
            Outcome::MetItself | Outcome::Refused => PortState::Closed,
            Outcome::TimedOut => PortState::Filtered,
            Outcome::Unreachable => PortState::Unreachable,
            Outcome::Shortage(Shortage::SourcePorts) if !self.plan.is_routed => {
                PortState::Unreachable
            }
            Outcome::Shortage(_) => {
                self.waiting.push(probe.port);
                return Finding::Postponed;
            }
        };
        if matches!(state, PortState::Open | PortState::Closed) {
            self.rtt.handle_answer(elapsed);
        }
        if elapsed.as_micros() == 0 {
            self.glances_missed = 0;
        }
        self.classify(now, probe.port, state);
        self.settle(now);
        Finding::Port { port: probe.port, state, rtt: elapsed }
    }

    /// Ends the probe that is longest overdue, if one is, and gives back its socket.
    pub fn poll_expired(&mut self, now: Instant) -> Option<Key> {
        let (id, probe) = self.probes.oldest()?;
        let waited = (now - self.started_at).saturating_sub(probe.started());
        if waited < self.probe_timeout() || !self.is_running() {
            return None;
        }
        let probe = self.probes.remove(id);
        let repeated = rtt::SYN_REPEAT + self.rtt.smoothed().unwrap_or_default();
        self.gave_up_early |= waited < repeated;
        self.classify(now, probe.port, PortState::Filtered);
        self.settle(now);
        Some(probe.socket)
    }

    /// Gives back the youngest probe's socket while more is in flight than is granted. Its port
    /// waits: it has lost the least time.
    pub fn poll_surplus(&mut self) -> Option<Key> {
        if !self.has_surplus() {
            return None;
        }
        let (id, _) = self.probes.youngest()?;
        let probe = self.probes.remove(id);
        self.waiting.push(probe.port);
        Some(probe.socket)
    }

    /// Ends the scan as it stands, if it still runs: what has no state is untested.
    pub fn handle_end(&mut self) {
        if self.is_running() {
            self.state = State::Ended { complete: false };
            self.waiting.clear();
        }
        self.check_invariants();
    }

    /// Ends the scan if its time is up.
    pub fn handle_timeout(&mut self, now: Instant) {
        if now >= self.plan.ends_at {
            self.handle_end();
        }
    }

    /// After the end: the sockets of the probes that were in flight, one by one.
    pub fn poll_abandoned(&mut self) -> Option<Key> {
        if self.is_running() {
            return None;
        }
        let (id, _) = self.probes.oldest()?;
        Some(self.probes.remove(id).socket)
    }

    /// True exactly when a connect may be started now.
    pub fn wants_launch(&self, now: Instant) -> bool {
        self.has_launch() && self.probes.len() < self.window() && self.next_launch_at <= now
    }

    /// True exactly when more is in flight than is granted.
    pub const fn has_surplus(&self) -> bool {
        self.is_running() && self.probes.len() > self.allowance
    }

    /// Connects that the scan could use at once: in flight, and to come in this pass.
    pub fn need(&self) -> usize {
        let State::Pass(pass) = &self.state else { return 0 };
        let to_come = pass.total - pass.tried + self.waiting.len();
        self.ceiling().min(self.probes.len() + to_come)
    }

    /// When something is due whatever else runs: the oldest probe, the end. `None` after the end.
    pub fn deadline(&self) -> Option<Instant> {
        let expiry = |probe: &Probe| self.started_at + probe.started() + self.probe_timeout();
        let oldest = self.probes.oldest().map(|(_, probe)| expiry(probe));
        let first = oldest.map_or(self.plan.ends_at, |expiry| expiry.min(self.plan.ends_at));
        self.is_running().then_some(first)
    }

    /// When the pace allows the next launch, past or to come; `None` where time alone allows none.
    /// Not a part of [`Scan::deadline`]: while no descriptor is to be had, it passes in vain.
    pub fn paced_until(&self) -> Option<Instant> {
        let is_paced = self.plan.rate.is_some();
        let has_room = self.probes.len() < self.window();
        (is_paced && has_room && self.has_launch()).then_some(self.next_launch_at)
    }

    /// True exactly until every port has its last state.
    pub const fn is_running(&self) -> bool {
        matches!(self.state, State::Pass(_))
    }

    /// True exactly when every port was tried as planned; false while the scan runs.
    pub const fn is_complete(&self) -> bool {
        matches!(self.state, State::Ended { complete: true, .. })
    }

    /// True exactly when the network was seen to lose packets.
    pub fn loss_suspected(&self) -> bool {
        self.rtt.shows_loss() || self.silence_broken
    }

    /// Probes made again for ports that had stayed silent.
    pub const fn retried(&self) -> u32 {
        self.retried
    }

    /// Connects in flight.
    pub const fn in_flight(&self) -> usize {
        self.probes.len()
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

    /// Moves a port to its new state.
    fn classify(&mut self, now: Instant, port: u16, state: PortState) {
        let was = self.ledger.classify(port, state);
        let State::Pass(pass) = &mut self.state else { return };
        if state != PortState::Filtered {
            pass.answered += 1;
            self.answered_at = now;
            self.silence_broken |= was == PortState::Filtered;
        }
    }

    /// Begins the next pass, or ends the scan, once this pass has nothing left.
    fn settle(&mut self, now: Instant) {
        let State::Pass(pass) = &self.state else { return };
        if !self.probes.is_empty() || self.has_launch() {
            return;
        }
        if !self.wants_pass(now, pass) {
            self.state = State::Ended { complete: true };
            self.check_invariants();
            return;
        }
        // A pass that lost answers and yet brought plenty met a limit, not silence: press less.
        if self.loss_suspected() && pass.answered * 100 >= pass.tried {
            self.pressure_max = (self.window() / 2).max(WINDOW_MIN);
        }
        self.state = State::Pass(Pass {
            number: pass.number + 1,
            next: self.silent().next_from(0),
            total: self.silent().len(),
            tried: 0,
            answered: 0,
        });
        self.check_invariants();
    }

    /// True exactly when the silent ports deserve another pass after this one.
    fn wants_pass(&self, now: Instant, ended: &Pass) -> bool {
        if self.silent().is_empty() {
            return false;
        }
        // Our own repeat, where a computed deadline was shorter than the kernel's.
        let is_auto = matches!(self.plan.timeout, Timeout::Auto);
        let owes_repeat = is_auto && self.gave_up_early && ended.number == 0;
        owes_repeat
            || match self.plan.retries {
                Retries::Exactly(passes) => ended.number < u32::from(passes),
                Retries::Auto => {
                    let brought = ended.number == 0 || ended.answered > 0;
                    let is_barren = !brought && now - self.answered_at >= BARREN_MIN;
                    self.loss_suspected() && !is_barren && ended.number < PASSES_AUTO_MAX
                }
            }
    }

    /// Ports that have not answered so far.
    const fn silent(&self) -> &PortSet {
        self.ledger.ports(PortState::Filtered)
    }

    fn has_launch(&self) -> bool {
        match &self.state {
            State::Pass(pass) => pass.next.is_some() || !self.waiting.is_empty(),
            State::Ended { .. } => false,
        }
    }

    /// What the plan and the pressure on the target permit, whatever is granted.
    fn ceiling(&self) -> usize {
        self.plan.concurrency.min(self.pressure_max)
    }

    fn window(&self) -> usize {
        self.ceiling().min(self.allowance)
    }

    /// How long a probe of this pass may stay silent.
    ///
    /// A fixed deadline is kept in the first pass and wherever the number of passes was asked for.
    /// A pass that `retries=auto` adds knows the round trip, and that the port did not answer the
    /// full deadline either: several short passes ask more often, in less time, than one long one.
    /// A computed deadline doubles for its repeat, as in RFC 6298 section 5.5.
    fn probe_timeout(&self) -> Duration {
        let State::Pass(pass) = &self.state else { return Duration::ZERO };
        let is_repeat = pass.number > 0;
        let measured = self.rtt.deadline();
        match (self.plan.timeout, self.plan.retries) {
            (Timeout::Fixed(timeout), Retries::Auto) if is_repeat => {
                measured.map_or(timeout, |measured| measured.min(timeout))
            }
            (Timeout::Fixed(timeout), Retries::Auto | Retries::Exactly(_)) => timeout,
            (Timeout::Auto, Retries::Auto | Retries::Exactly(_)) => {
                let longest = limits::TIMEOUT_AUTO_MAX;
                let backoff = if is_repeat { 2 } else { 1 };
                measured.map_or(longest, |measured| (measured * backoff).min(longest))
            }
        }
    }

    /// Whether to look for the outcome right after `connect`: as long as it was there lately.
    fn glance(&mut self) -> Glance {
        self.launched = self.launched.wrapping_add(1);
        if self.glances_missed < GLANCES_MISSED_MAX || self.launched.is_multiple_of(GLANCE_EVERY) {
            self.glances_missed = self.glances_missed.saturating_add(1);
            return Glance::AtOnce;
        }
        Glance::Later
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
            assert!(
                self.ports(PortState::Untested).is_empty(),
                "4: complete means that every port was tried"
            );
        }
    }
}

#[cfg(test)]
mod tests;
