//! Pings: probes of a port that is known to respond, while other ports stay silent.
//!
//! A silent port does not show loss. A ping does: it is either answered after one round-trip time
//! or lost. A ping is overdue when an answer has become improbable; the congestion control then
//! counts it as lost at once. It is lost at its deadline, and the loss meter waits for that. At
//! most [`PINGS_MAX`] pings are in flight. `pinging` drives this module.

use std::collections::VecDeque;
use std::time::Duration;

use super::rtt::Rtt;
use crate::slots::Key;

/// The maximum number of pings of one scan in flight: one per 4 ms for a quarter of a second.
pub const PINGS_MAX: usize = 64;
/// The maximum number of pings that are kept, including answered ones that wait for the result of
/// an earlier ping: one per 4 ms for a second.
const REMEMBERED_MAX: usize = 256;
/// The maximum time after which a ping counts as lost. It is shorter than the time after which the
/// kernel retransmits its SYN.
const LOST_MAX: Duration = Duration::from_millis(950);
/// The additional delay of an answer that is permitted before a ping is overdue, because a busy
/// machine answers late.
const SLACK: Duration = Duration::from_millis(10);
/// The number of consecutive lost pings after which another port is pinged. The first port may no
/// longer respond to this machine.
const LOST_IN_A_ROW_MAX: u32 = 8;

/// The state of a ping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PingState {
    /// The ping is in flight and not overdue.
    Waiting,
    /// The ping is overdue, but not lost yet.
    Overdue,
    /// The ping was answered in time. This is reported after the results of all earlier pings.
    Answered,
    /// The ping is no longer in flight, and its answer was reported if it came in time.
    Over,
}

impl PingState {
    const fn is_in_flight(self) -> bool {
        matches!(self, Self::Waiting | Self::Overdue)
    }
}

#[derive(Clone, Copy, Debug)]
struct Ping {
    probe: Key,
    /// The time at which it was sent, from the start of the scan.
    started: Duration,
    weight: PingWeight,
    /// Whether the port had answered itself.
    is_of_host: bool,
    state: PingState,
    result: FinalResult,
}

/// The final result of a ping, for the loss meter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FinalResult {
    InFlight,
    /// An answer came before the deadline.
    Answered,
    Lost,
    /// The ping was given up, or its connect failed.
    Unknown,
}

/// The result of a ping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PingResult {
    /// The answer came in time.
    Answered,
    /// No answer came, or it came too late.
    Lost,
}

/// The SYNs that a ping represents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PingWeight {
    /// The number of SYNs sent since the previous ping, including that of this ping.
    pub syns: u32,
    /// Whether they were sent at a large part of the permitted rate, so that a loss is a result of
    /// this rate.
    pub tests_rate: bool,
}

/// The kind of a responding port. Ports of a greater kind are better targets for pings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ResponderKind {
    /// A router rejected the probe. Routers limit such answers to a few per second
    /// (icmp_ratelimit).
    Rejected,
    /// The port is open. A ping completes a handshake, which the service may notice.
    Open,
    /// The port is closed. A RST answers a ping, and no service notices it.
    Closed,
}

/// A change of a ping. Events of one kind come in the order in which the pings were sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PingEvent {
    /// The ping was answered, or is overdue. The congestion control uses this result.
    Judged {
        /// The time at which the ping was sent, from the start of the scan.
        started: Duration,
        /// The SYNs that it represents.
        weight: PingWeight,
        /// The result so far: an overdue ping counts as lost.
        result: PingResult,
    },
    /// The final results of the ping and of all earlier ones are known. The loss meter uses this
    /// result. An answer is known earlier than a loss, so if it were counted at once, the loss of
    /// the last moments would be understated.
    Counted {
        /// The time at which the ping was sent, from the start of the scan.
        started: Duration,
        /// The SYNs that it represents.
        weight: PingWeight,
        /// The final result.
        result: PingResult,
    },
    /// The ping is lost. Its probe must be given up.
    Lost {
        /// The key of its probe.
        key: Key,
    },
}

/// The pings of one scan.
#[derive(Debug)]
pub struct Pings {
    /// The port to ping, and its kind.
    responder: Option<(ResponderKind, u16)>,
    /// The pings in the order in which they were sent. The first one is not counted yet, or not
    /// [`PingState::Over`].
    pings: VecDeque<Ping>,
    /// The number of the first ping in `pings`.
    front: u32,
    /// The number of the first ping that was not judged yet.
    unjudged: u32,
    /// The number of the first ping that was not counted yet.
    uncounted: u32,
    in_flight: usize,
    lost_in_a_row: u32,
    /// The maximum time after which a ping counts as lost.
    lost_max: Duration,
}

impl Pings {
    /// No pings. An unanswered port is silent after `timeout`, so an unanswered ping is lost then.
    pub fn new(timeout: Duration) -> Self {
        Self {
            responder: None,
            pings: VecDeque::new(),
            front: 0,
            unjudged: 0,
            uncounted: 0,
            in_flight: 0,
            lost_in_a_row: 0,
            lost_max: timeout.min(LOST_MAX),
        }
    }

    /// A port responded. It is pinged from now on if it is a better target than the present one, or
    /// if the present one no longer answers. A rejected port never replaces one that had answered
    /// itself: if the host is cut off and a router or this machine now rejects every probe, the
    /// lost pings show it.
    pub fn handle_responder(&mut self, kind: ResponderKind, port: u16) {
        let has_failed = self.lost_in_a_row >= LOST_IN_A_ROW_MAX;
        let is_wanted = match self.responder {
            None => true,
            Some((known, _)) if has_failed => kind > ResponderKind::Rejected || kind == known,
            Some((known, _)) => kind > known,
        };
        if is_wanted {
            if has_failed {
                self.lost_in_a_row = 0;
            }
            self.responder = Some((kind, port));
        }
    }

    /// The port to ping.
    pub fn port(&self) -> Option<u16> {
        self.responder.map(|(_, port)| port)
    }

    /// Whether lost pings show loss on the path. They do not if a router rejects them, because
    /// routers limit such answers.
    pub fn shows_path_loss(&self) -> bool {
        self.responder.is_some_and(|(kind, _)| kind > ResponderKind::Rejected)
    }

    /// Whether pings are of a closed port, so that they say nothing about SYN-ACKs.
    pub fn is_of_closed_port(&self) -> bool {
        self.responder.is_some_and(|(kind, _)| kind == ResponderKind::Closed)
    }

    /// A ping is sent. Returns its number.
    pub fn push(&mut self, probe: Key, started: Duration, weight: PingWeight) -> u32 {
        assert!(self.has_room(), "the number of pings is limited");
        self.pings.push_back(Ping {
            probe,
            started,
            weight,
            is_of_host: self.shows_path_loss(),
            state: PingState::Waiting,
            result: FinalResult::InFlight,
        });
        self.in_flight += 1;
        self.front.wrapping_add(self.pings.len() as u32 - 1)
    }

    /// A ping was answered. Returns the time at which it was sent, or `None` if it is no longer in
    /// flight.
    pub fn handle_answer(&mut self, number: u32) -> Option<Duration> {
        let index = number.wrapping_sub(self.front) as usize;
        let ping = self.pings.get_mut(index).filter(|ping| ping.state.is_in_flight())?;
        ping.result = FinalResult::Answered;
        ping.state =
            if ping.state == PingState::Waiting { PingState::Answered } else { PingState::Over };
        let started = ping.started;
        self.in_flight -= 1;
        self.lost_in_a_row = 0;
        self.trim();
        Some(started)
    }

    /// Whether this ping is of a port that had answered itself, and not a router for it.
    pub fn is_of_host(&self, number: u32) -> bool {
        let ping = self.pings.get(number.wrapping_sub(self.front) as usize);
        ping.is_some_and(|ping| ping.is_of_host)
    }

    /// A ping did not reach the port.
    pub fn handle_loss(&mut self, number: u32) {
        let index = number.wrapping_sub(self.front) as usize;
        let ping = self.pings.get_mut(index).filter(|ping| ping.state.is_in_flight());
        if let Some(ping) = ping {
            (ping.state, ping.result) = (PingState::Over, FinalResult::Lost);
            self.in_flight -= 1;
            self.lost_in_a_row += 1;
            self.trim();
        }
    }

    /// A ping ended without an answer and before its deadline, so its result is unknown.
    pub fn handle_failure(&mut self, number: u32) {
        let index = number.wrapping_sub(self.front) as usize;
        let ping = self.pings.get_mut(index).filter(|ping| ping.state.is_in_flight());
        if let Some(ping) = ping {
            (ping.state, ping.result) = (PingState::Over, FinalResult::Unknown);
            self.in_flight -= 1;
            self.trim();
        }
    }

    /// The next change of a ping, if there is one.
    pub fn poll_event(&mut self, elapsed: Duration, rtt: &Rtt) -> Option<PingEvent> {
        let event = self.poll_judged(elapsed, rtt).or_else(|| self.poll_counted());
        if event.is_some() {
            return event;
        }
        let lost_after = self.lost_after(rtt);
        let ping = self.pings.iter_mut().find(|ping| ping.state.is_in_flight())?;
        if elapsed < ping.started + lost_after {
            return None;
        }
        let key = ping.probe;
        (ping.state, ping.result) = (PingState::Over, FinalResult::Lost);
        self.in_flight -= 1;
        self.lost_in_a_row += 1;
        self.trim();
        Some(PingEvent::Lost { key })
    }

    /// Counts the first ping that was not counted yet, if its final result is known. A ping of a
    /// rejected port is left out, even if a better port is pinged now.
    fn poll_counted(&mut self) -> Option<PingEvent> {
        loop {
            let ping = *self.pings.get(self.uncounted.wrapping_sub(self.front) as usize)?;
            if ping.result == FinalResult::InFlight {
                return None;
            }
            self.uncounted = self.uncounted.wrapping_add(1);
            self.trim();
            if ping.result != FinalResult::Unknown && ping.is_of_host {
                let (started, weight) = (ping.started, ping.weight);
                let is_lost = ping.result == FinalResult::Lost;
                let result = if is_lost { PingResult::Lost } else { PingResult::Answered };
                return Some(PingEvent::Counted { started, weight, result });
            }
        }
    }

    /// Judges the first ping that was not judged yet, if it was answered or is overdue.
    fn poll_judged(&mut self, elapsed: Duration, rtt: &Rtt) -> Option<PingEvent> {
        let overdue_after = self.overdue_after(rtt);
        loop {
            let index = self.unjudged.wrapping_sub(self.front) as usize;
            let ping = self.pings.get_mut(index)?;
            let (result, state) = match ping.state {
                PingState::Waiting if elapsed < ping.started + overdue_after => return None,
                PingState::Waiting => (PingResult::Lost, PingState::Overdue),
                PingState::Answered => (PingResult::Answered, PingState::Over),
                PingState::Overdue | PingState::Over => {
                    self.unjudged = self.unjudged.wrapping_add(1);
                    continue;
                }
            };
            ping.state = state;
            let (started, weight) = (ping.started, ping.weight);
            self.unjudged = self.unjudged.wrapping_add(1);
            self.trim();
            return Some(PingEvent::Judged { started, weight, result });
        }
    }

    /// Gives up the oldest ping in flight, whose result is then unknown.
    pub fn poll_given_up(&mut self) -> Option<Key> {
        let ping = self.pings.iter_mut().find(|ping| ping.state.is_in_flight())?;
        (ping.state, ping.result) = (PingState::Over, FinalResult::Unknown);
        let probe = ping.probe;
        self.in_flight -= 1;
        self.trim();
        Some(probe)
    }

    /// The time at which the next ping is overdue or lost, from the start of the scan.
    pub fn deadline(&self, rtt: &Rtt) -> Option<Duration> {
        let lost = self.pings.iter().find(|ping| ping.state.is_in_flight())?;
        let waiting = self.pings.iter().find(|ping| ping.state == PingState::Waiting);
        let overdue = waiting.map(|ping| ping.started + self.overdue_after(rtt));
        let lost = lost.started + self.lost_after(rtt);
        Some(overdue.map_or(lost, |overdue| overdue.min(lost)))
    }

    /// The number of pings sent so far.
    pub fn sent(&self) -> u32 {
        self.front.wrapping_add(self.pings.len() as u32)
    }

    /// The number of pings in flight.
    pub const fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Whether another ping may be sent.
    pub fn has_room(&self) -> bool {
        self.in_flight < PINGS_MAX && self.pings.len() < REMEMBERED_MAX
    }

    /// Whether the pinged port no longer answers.
    pub const fn has_failed(&self) -> bool {
        self.lost_in_a_row >= LOST_IN_A_ROW_MAX
    }

    /// The time after which a ping counts as lost.
    fn lost_after(&self, rtt: &Rtt) -> Duration {
        rtt.deadline().unwrap_or(LOST_MAX).min(self.lost_max)
    }

    /// The time after which a ping is overdue.
    fn overdue_after(&self, rtt: &Rtt) -> Duration {
        rtt.late_after().map_or(LOST_MAX, |late| late + SLACK).min(self.lost_after(rtt))
    }

    /// Removes the first pings that were counted and are no longer in flight.
    fn trim(&mut self) {
        while self.uncounted != self.front
            && self.pings.front().is_some_and(|ping| ping.state == PingState::Over)
        {
            self.pings.pop_front();
            if self.unjudged == self.front {
                self.unjudged = self.unjudged.wrapping_add(1);
            }
            self.front = self.front.wrapping_add(1);
        }
    }
}
