//! The passes of a scan: when a pass ends, and whether another one follows.
//!
//! A pass ends when none of its ports waits or is in flight. The plan determines the number of
//! further passes. With `retries=auto` another pass follows while the measured loss suggests that
//! responding ports were missed, unless the host no longer answers. The methods here belong to
//! [`Scan`], which owns the state.

use std::time::{Duration, Instant};

use super::end::ScanEnd;
use super::ledger::PortState;
use super::loss::{
    Extent, LOSSLESS_PINGS_MIN, LOSSLESS_PINGS_PER_PORT, LOSSLESS_PINGS_WHILE_SENDING,
    LOSSLESS_SAMPLES_MIN, MISSED_MAX, SamplesMin,
};
use super::order::Order;
use super::probes::Probe;
use super::{Scan, ScanState, rtt};
use crate::limits;
use crate::scan::options::{Retries, Timeout};

/// The maximum number of further passes with `retries=auto`.
const PASSES_AUTO_MAX: u32 = 40;
/// The number of consecutive passes without any answer after which `retries=auto` considers the
/// host gone.
const UNANSWERED_PASSES_MAX: u32 = 3;
/// The minimum duration of these passes together. Many hosts limit their answers per second
/// (icmplim of FreeBSD, most firewalls): after such a limit, a host is silent for up to a second.
const UNANSWERED_TIME_MIN: Duration = Duration::from_secs(1);
/// The time without an answer after which one pass without any answer is enough to consider the
/// host gone.
const UNANSWERED_TIME_MAX: Duration = Duration::from_secs(5);
/// The number of silent ports before the first answer from which on the host may have been absent
/// at the start of the scan.
const SILENT_START_MIN: u32 = 64;

/// The number of open ports that a further pass may find, as a multiple of those that the loss
/// explains, plus one.
const OPENED_FACTOR: f64 = 3.0;
/// The number of consecutive passes without a new open port that end the search for open ports.
const SEARCHES: u32 = 2;

/// The pass that is running.
#[derive(Debug)]
pub(super) struct Pass {
    /// The number of the pass; 0 for the pass over all ports.
    pub(super) number: u32,
    /// The ports that were not probed in this pass yet.
    pub(super) order: Order,
    /// The number of all ports of this pass.
    pub(super) total: usize,
    /// The number of ports probed so far.
    pub(super) tried: usize,
    /// The number of ports that answered in this pass.
    pub(super) answered: usize,
    /// The number of silent ports that were found open in this pass.
    opened: u32,
    /// The number of passes that look for open ports from this one on, even if they find none.
    searches_left: u32,
    /// Whether a ping was answered in this pass.
    pub(super) has_ping_answer: bool,
    /// The start of the pass.
    pub(super) started_at: Instant,
}

impl Pass {
    /// A pass that has probed no port yet.
    pub(super) const fn new(now: Instant, number: u32, order: Order, total: usize) -> Self {
        Self {
            number,
            order,
            total,
            tried: 0,
            answered: 0,
            opened: 0,
            searches_left: 0,
            has_ping_answer: false,
            started_at: now,
        }
    }
}

/// The silent ports of the first pass that were probed before the port that answered first.
///
/// If the first answer comes after a second or later, they include the ports that are in flight at
/// that time: a host that appears then has missed the SYNs of all these probes, and their
/// retransmissions.
#[derive(Debug, Default)]
pub(super) struct SilentStart {
    /// The time of the first answer and the start of its probe, both from the start of the scan.
    first_answer: Option<(Duration, Duration)>,
    /// The number of these ports.
    ports: u32,
}

impl SilentStart {
    /// The first answer arrived, the time `at` after the start of the scan.
    pub(super) fn handle_first_answer(&mut self, at: Duration, probe: &Probe) {
        self.first_answer = Some((at, probe.started()));
    }

    /// A probe of the first pass was not answered.
    fn handle_silence(&mut self, probe: &Probe) {
        let is_before = |(at, probed)| at >= rtt::SYN_RETRANSMIT && probe.started() < probed;
        self.ports += u32::from(self.first_answer.is_none_or(is_before));
    }
}

impl Scan {
    /// Moves the port of a probe to its new state, and updates the data of the pass.
    pub(super) fn classify(&mut self, probe: &Probe, state: PortState) {
        let port = probe.port;
        let previous = self.ledger.classify(port, state);
        let ScanState::Pass(pass) = &mut self.state else { return };
        if pass.number == 0 && state == PortState::Filtered {
            self.silent_start.handle_silence(probe);
        }
        if state != PortState::Filtered {
            pass.answered += 1;
            pass.opened += u32::from(previous == PortState::Filtered && state == PortState::Open);
            // Routers limit their rejections, so a late one shows no loss on the path.
            if previous == PortState::Filtered && state != PortState::Unreachable {
                let group = pass.order.group(port);
                let last = rtt::syn_at(self.exchanges_of_last_pass);
                let position = pass.order.position(port);
                self.loss.handle_answer_after_silence(position, group, last);
            }
        }
    }

    /// Begins the next pass or ends the scan, if no port of this pass is left or in flight.
    pub(super) fn end_finished_pass(&mut self, now: Instant) {
        if !self.probes.is_empty() || self.has_launch() {
            return;
        }
        let exchanges = self.rtt.exchanges_within(self.probe_timeout());
        let ScanState::Pass(pass) = &self.state else { return };
        let number = pass.number;
        // If only routers answered, which limit their answers, late answers show nothing.
        if self.pings.shows_path_loss() {
            if number == 0 {
                self.detect_initial_outage();
                self.detect_cut_answers();
            }
            self.count_late_answers();
        }
        let sent: Vec<Duration> = (1..=exchanges).map(rtt::syn_at).collect();
        self.loss.handle_pass_end(&sent, self.samples_min(number, exchanges));
        self.exchanges_of_last_pass = exchanges;
        if number == 0
            && let Some(controller) = &mut self.controller
        {
            controller.handle_first_pass_end(now);
        }
        if !self.wants_pass(now) {
            self.state = ScanState::Ended(ScanEnd::Complete);
            self.check_invariants();
            return;
        }
        let searches_left = self.searches_left();
        let extent = match self.plan.options.retries {
            Retries::Auto if searches_left == 0 => Extent::Doubtful,
            Retries::Auto | Retries::Exactly(_) => Extent::Every,
        };
        let responding = self.responding();
        let ScanState::Pass(pass) = &self.state else { return };
        let silent = self.ledger.ports(PortState::Filtered);
        let order = pass.order.for_stretches(silent, self.loss.begin_pass(responding, extent));
        let total = order.count(silent);
        let next = Pass::new(now, number + 1, order, total);
        self.state = ScanState::Pass(Pass { searches_left, ..next });
        self.check_invariants();
        if total == 0 {
            self.end_finished_pass(now);
        }
    }

    /// Counts the start of the scan as an outage if many ports were silent before the first answer
    /// and the later answers show that this was not by chance. These ports are then probed again.
    pub(super) fn detect_initial_outage(&mut self) {
        let Some((until, _)) = self.silent_start.first_answer else { return };
        let silent_start = self.silent_start.ports;
        let counts = self.counts();
        let later = counts.total().saturating_sub(silent_start).max(1);
        let share = f64::from(self.responding()) / f64::from(later);
        let chance = (1.0 - share.min(1.0)).powf(f64::from(silent_start));
        if silent_start >= SILENT_START_MIN && chance < 1e-6 {
            self.loss.handle_outage(until, (f64::from(silent_start) * share) as u32);
        }
    }

    /// Counts one exchange as lost if ports stayed silent and the round-trip time came close to the
    /// timeout: a queue may have delayed the answers of these ports beyond it.
    fn detect_cut_answers(&mut self) {
        let improbable_after = self.rtt.improbable_after().unwrap_or_default();
        if !self.silent().is_empty() && improbable_after > self.probe_timeout() {
            self.loss.handle_lost(Duration::ZERO, 1);
        }
    }

    /// Counts the lost first exchanges of the answers that came while the round-trip time was not
    /// known yet, such as all answers of a host that was absent when the scan began.
    fn count_late_answers(&mut self) {
        let Some((_, sent_at)) = self.silent_start.first_answer else { return };
        let lost = self.rtt.take_late_answers();
        if lost > 0 {
            self.loss.handle_lost(sent_at, lost);
        }
    }

    /// The number of samples without loss after which pass `number`, in which each silent port had
    /// `exchanges` exchanges, has missed nothing.
    fn samples_min(&self, number: u32, exchanges: u32) -> SamplesMin {
        if self.is_in_lossy_sweep() {
            return SamplesMin::Never;
        }
        let is_first_auto = number == 0 && self.plan.options.timeout == Timeout::Auto;
        if !self.measures_loss() && !is_first_auto {
            return SamplesMin::None;
        }
        // No path to this machine itself loses packets.
        if number > 0 || exchanges > 1 || self.plan.target.ip().is_loopback() {
            return SamplesMin::Any(LOSSLESS_SAMPLES_MIN);
        }
        let is_paced = self.controller.is_some();
        SamplesMin::Pings {
            any: (LOSSLESS_PINGS_PER_PORT * (self.responding() + 1)).max(LOSSLESS_PINGS_MIN),
            while_sending: if is_paced { LOSSLESS_PINGS_WHILE_SENDING } else { 0 },
        }
    }

    /// Whether another pass over the silent ports follows this one.
    pub(super) fn wants_pass(&mut self, now: Instant) -> bool {
        let ScanState::Pass(Pass { number, .. }) = self.state else { return false };
        if self.silent().is_empty() {
            return false;
        }
        let doubts_silence =
            !self.has_answer() && self.doubts_silence(number, self.exchanges_of_last_pass);
        let ScanState::Pass(ended) = &self.state else { return false };
        match self.plan.options.retries {
            Retries::Exactly(passes) => number < u32::from(passes),
            Retries::Auto if !self.has_answer() => doubts_silence,
            Retries::Auto => {
                let is_unanswered = ended.answered == 0 && !ended.has_ping_answer;
                self.unanswered_passes = match self.unanswered_passes {
                    _ if !is_unanswered => None,
                    None => Some((1, ended.started_at)),
                    Some((passes, since)) => Some((passes + 1, since)),
                };
                let unanswered_time = self.answered_at.map_or(Duration::ZERO, |at| now - at);
                let is_gone = self.unanswered_passes.is_some_and(|(passes, since)| {
                    let is_long =
                        passes >= UNANSWERED_PASSES_MAX && now - since >= UNANSWERED_TIME_MIN;
                    is_long || unanswered_time >= UNANSWERED_TIME_MAX
                });
                let missed = self.loss.missed(self.responding());
                let is_missed = missed.is_some_and(|missed| missed >= MISSED_MAX);
                !is_gone && number < PASSES_AUTO_MAX && (is_missed || self.searches_left() > 0)
            }
        }
    }

    /// The number of passes after this one that look for open ports, even if they find none.
    ///
    /// Open ports may miss more exchanges than pings of a closed port show: some hosts limit their
    /// SYN-ACKs, and a busy service drops SYNs. A further pass then finds more open ports than the
    /// loss explains.
    fn searches_left(&self) -> u32 {
        let ScanState::Pass(Pass { number, opened, searches_left, .. }) = self.state else {
            return 0;
        };
        if number == 0 || !self.pings.is_of_closed_port() {
            return 0;
        }
        let usual = f64::from(self.counts().open) * self.loss.loss().unwrap_or_default();
        let is_excess = f64::from(opened) > OPENED_FACTOR * usual + 1.0;
        match opened {
            1.. if is_excess || searches_left > 0 => SEARCHES,
            _ => searches_left.saturating_sub(1),
        }
    }

    /// The time after which an unanswered probe of this pass expires.
    ///
    /// A fixed timeout applies in the first pass, and in all passes if their number was requested.
    /// In a pass that `retries=auto` adds, the round-trip time is known, and its ports did not
    /// answer within the full timeout either. Therefore the timeout is computed: several short
    /// passes send more SYNs to a port in less time than a long one.
    pub fn probe_timeout(&self) -> Duration {
        let ScanState::Pass(pass) = &self.state else { return Duration::ZERO };
        let is_further = pass.number > 0;
        let computed = self.rtt.deadline();
        match (self.plan.options.timeout, self.plan.options.retries) {
            (Timeout::Fixed(timeout), Retries::Auto) if is_further => {
                computed.map_or(timeout, |computed| computed.min(timeout))
            }
            (Timeout::Fixed(timeout), Retries::Auto | Retries::Exactly(_)) => timeout,
            (Timeout::Auto, Retries::Auto | Retries::Exactly(_)) => {
                let longest = limits::TIMEOUT_AUTO_MAX;
                computed.map_or(longest, |computed| computed.min(longest))
            }
        }
    }
}
