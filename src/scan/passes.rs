//! The passes of a scan: when one is over, and whether another follows.
//!
//! A pass is over once none of its ports waits or is in flight. How many follow is what the plan
//! asks for, or, with `retries=auto`, as many as the measured loss leaves a doubt, unless the host
//! disappeared. The state is that of [`Scan`].

use std::time::{Duration, Instant};

use super::ledger::PortState;
use super::loss::{
    Extent, LOSSLESS_SAMPLES_MIN, LOSSLESS_SAMPLES_MIN_SINGLE, MISSED_MAX, PassKind,
};
use super::order::Order;
use super::probes::Probe;
use super::{Scan, ScanState, rtt};
use crate::limits;
use crate::scan::options::{Retries, Timeout};

/// Further passes that `retries=auto` makes at most.
const PASSES_AUTO_MAX: u32 = 40;
/// Passes in a row without any answer after which `retries=auto` takes the host for gone.
const UNANSWERED_PASSES_MAX: u32 = 3;
/// How long nothing may answer before `retries=auto` takes the host for gone. Limits count by the
/// second (FreeBSD's icmplim, most firewalls'): a shorter pass may have met a spent one.
const UNANSWERED_TIME_MIN: Duration = Duration::from_secs(1);
/// A host that has not answered for so long, and not in a whole pass, is taken for gone.
const UNANSWERED_TIME_MAX: Duration = Duration::from_secs(5);
/// Ports without an answer before the first answer that make the start of a scan doubtful.
const SILENT_START_MIN: u32 = 64;

/// One pass under way.
#[derive(Debug)]
pub(super) struct Pass {
    /// 0 for the pass over all ports.
    pub(super) number: u32,
    /// The ports that were not probed in this pass.
    pub(super) order: Order,
    /// Ports of this pass, probed or not.
    pub(super) total: usize,
    /// Ports probed so far.
    pub(super) tried: usize,
    /// Ports that answered in this pass.
    pub(super) answered: usize,
    /// Whether a ping was answered in this pass.
    pub(super) has_ping_answer: bool,
    /// When it began.
    pub(super) started_at: Instant,
}

impl Pass {
    /// A pass that has probed nothing yet.
    pub(super) const fn new(now: Instant, number: u32, order: Order, total: usize) -> Self {
        Self {
            number,
            order,
            total,
            tried: 0,
            answered: 0,
            has_ping_answer: false,
            started_at: now,
        }
    }
}

/// Ports of the first pass that were probed before the one that answered first, and have stayed
/// silent. Ports that wait for their deadline when a late first answer comes are among them: a
/// host that appears then has missed the SYNs of every probe in flight, and their repeats.
#[derive(Debug, Default)]
pub(super) struct SilentStart {
    /// When the first answer came, and when its port was probed, from the scan's start.
    first_answer: Option<(Duration, Duration)>,
    ports: u32,
}

impl SilentStart {
    /// Something has answered, this long after the scan's start.
    pub(super) fn handle_first_answer(&mut self, at: Duration, probe: &Probe) {
        self.first_answer = Some((at, probe.started()));
    }

    /// A probe of the first pass has stayed silent.
    fn handle_silence(&mut self, probe: &Probe) {
        let is_before = |(at, probed)| at >= rtt::SYN_RETRANSMIT && probe.started() < probed;
        self.ports += u32::from(self.first_answer.is_none_or(is_before));
    }
}

impl Scan {
    /// Moves the port of a probe to its new state.
    pub(super) fn classify(&mut self, probe: &Probe, state: PortState) {
        let port = probe.port;
        let was = self.ledger.classify(port, state);
        let ScanState::Pass(pass) = &mut self.state else { return };
        if pass.number == 0 && state == PortState::Filtered {
            self.silent_start.handle_silence(probe);
        }
        if state != PortState::Filtered {
            pass.answered += 1;
            if was == PortState::Filtered {
                let group = pass.order.group(port);
                let last = rtt::syn_at(self.exchanges_of_last_pass);
                self.loss.handle_answer_after_silence(port, group, last);
            }
        }
    }

    /// Begins the next pass, or ends the scan, once this pass has nothing left.
    pub(super) fn end_finished_pass(&mut self, now: Instant) {
        if !self.probes.is_empty() || self.has_launch() {
            return;
        }
        let exchanges = self.rtt.exchanges_within(self.probe_timeout());
        let ScanState::Pass(pass) = &self.state else { return };
        let number = pass.number;
        if number == 0 {
            self.detect_initial_outage();
        }
        let sent: Vec<Duration> = (1..=exchanges).map(rtt::syn_at).collect();
        let kind = match (number, self.plan.options.timeout) {
            (0, Timeout::Fixed(_)) if !self.measures_loss() => PassKind::First { samples_min: 0 },
            (0, Timeout::Fixed(_) | Timeout::Auto) => {
                let samples_min =
                    if exchanges > 1 { LOSSLESS_SAMPLES_MIN } else { LOSSLESS_SAMPLES_MIN_SINGLE };
                PassKind::First { samples_min }
            }
            (_, Timeout::Fixed(_) | Timeout::Auto) => PassKind::Further,
        };
        self.loss.handle_pass_end(&sent, kind);
        self.exchanges_of_last_pass = exchanges;
        if !self.wants_pass(now) {
            self.state = ScanState::Ended { is_complete: true };
            self.check_invariants();
            return;
        }
        let extent = match self.plan.options.retries {
            Retries::Exactly(_) => Extent::Every,
            Retries::Auto => Extent::Doubtful,
        };
        let responding = self.responding();
        let ScanState::Pass(pass) = &self.state else { return };
        let silent = self.ledger.ports(PortState::Filtered);
        let order = pass.order.for_stretches(silent, self.loss.begin_pass(responding, extent));
        let total = order.count(silent);
        self.state = ScanState::Pass(Pass::new(now, number + 1, order, total));
        self.check_invariants();
        if total == 0 {
            self.end_finished_pass(now);
        }
    }

    /// A host that answers many ports, but none of the many probed before its first answer, was
    /// not there yet: its silent ports are probed again.
    pub(super) fn detect_initial_outage(&mut self) {
        let Some((until, _)) = self.silent_start.first_answer else { return };
        let silent_start = self.silent_start.ports;
        let counts = self.counts();
        let later = counts.total().saturating_sub(silent_start).max(1);
        let share = f64::from(self.responding()) / f64::from(later);
        let by_chance = (1.0 - share.min(1.0)).powf(f64::from(silent_start));
        if silent_start >= SILENT_START_MIN && by_chance < 1e-6 {
            self.loss.handle_outage(until, (f64::from(silent_start) * share) as u32);
        }
    }

    /// Whether the silent ports deserve another pass after this one.
    pub(super) fn wants_pass(&mut self, now: Instant) -> bool {
        let ScanState::Pass(ended) = &self.state else { return false };
        if self.silent().is_empty() {
            return false;
        }
        match self.plan.options.retries {
            Retries::Exactly(passes) => ended.number < u32::from(passes),
            Retries::Auto => {
                let is_unanswered = ended.answered == 0 && !ended.has_ping_answer;
                self.unanswered_passes = match self.unanswered_passes {
                    _ if !is_unanswered => None,
                    None => Some((1, ended.started_at)),
                    Some((passes, since)) => Some((passes + 1, since)),
                };
                let quiet = self.answered_at.map_or(Duration::ZERO, |at| now - at);
                let is_gone = self.unanswered_passes.is_some_and(|(passes, since)| {
                    let is_long =
                        passes >= UNANSWERED_PASSES_MAX && now - since >= UNANSWERED_TIME_MIN;
                    is_long || quiet >= UNANSWERED_TIME_MAX
                });
                let missed = self.loss.missed(self.responding());
                !is_gone
                    && ended.number < PASSES_AUTO_MAX
                    && missed.is_some_and(|missed| missed >= MISSED_MAX)
            }
        }
    }

    /// How long a probe of this pass may stay silent.
    ///
    /// A fixed deadline is kept in the first pass and wherever the number of passes was asked for.
    /// A pass that `retries=auto` adds knows the round trip, and that the port did not answer the
    /// full deadline either: several short passes ask more often, in less time, than one long one.
    pub(super) fn probe_timeout(&self) -> Duration {
        let ScanState::Pass(pass) = &self.state else { return Duration::ZERO };
        let is_repeat = pass.number > 0;
        let measured = self.rtt.deadline();
        match (self.plan.options.timeout, self.plan.options.retries) {
            (Timeout::Fixed(timeout), Retries::Auto) if is_repeat => {
                measured.map_or(timeout, |measured| measured.min(timeout))
            }
            (Timeout::Fixed(timeout), Retries::Auto | Retries::Exactly(_)) => timeout,
            (Timeout::Auto, Retries::Auto | Retries::Exactly(_)) => {
                let longest = limits::TIMEOUT_AUTO_MAX;
                measured.map_or(longest, |measured| measured.min(longest))
            }
        }
    }
}
