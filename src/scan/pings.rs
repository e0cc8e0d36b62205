//! Pings: probes of a port that is known to respond, while others stay silent.
//!
//! A silent port gives no sign of loss. A ping does: it is answered after a round trip, or it was
//! lost. It is overdue when an answer has become improbable, which the pace of the scan should
//! follow at once, and lost at its deadline, which the estimate of loss waits for. At most
//! [`PINGS_MAX`] are in flight.

use std::collections::VecDeque;
use std::time::Duration;

use super::rtt::Rtt;
use crate::slots::Key;

/// Pings of one scan in flight at most: one each 4 ms for a quarter of a second.
pub const PINGS_MAX: usize = 64;
/// Pings that are remembered, since an earlier one is in flight: one each 4 ms for a second.
const REMEMBERED_MAX: usize = 256;
/// A ping counts as lost after this time at most: before the kernel repeats its SYN.
const LOST_MAX: Duration = Duration::from_millis(950);
/// An answer may be late by this much before the pace takes notice: a busy machine is.
const SLACK: Duration = Duration::from_millis(10);
/// Lost pings in a row before another port is pinged: this one may have been closed to us.
const LOST_IN_A_ROW_MAX: u32 = 8;

/// How a ping stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PingState {
    Waiting,
    /// Overdue, and not yet lost.
    Overdue,
    /// Answered in time, which is reported once all earlier pings were.
    Answered,
    /// Answered late, lost or given up.
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
    /// From the scan's start.
    started: Duration,
    weight: PingWeight,
    state: PingState,
    result: FinalResult,
}

/// What became of a ping in the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FinalResult {
    InFlight,
    Answered,
    Lost,
    /// It was given up.
    Unknown,
}

/// Whether an answer came to a ping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PingResult {
    /// An answer came in time.
    Answered,
    /// No answer came, or too late.
    Lost,
}

/// What a ping stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PingWeight {
    /// SYNs sent since the ping before, itself included.
    pub syns: u32,
    /// Whether the rate was used since then.
    pub tests_rate: bool,
}

/// How well a port serves as a target of pings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ResponderKind {
    /// A router rejected it. Such answers are limited to a few in a second (icmp_ratelimit).
    Rejected,
    /// Open: a ping completes a handshake, which the service behind the port notices.
    Open,
    /// Closed: a RST answers, and nothing is disturbed.
    Closed,
}

/// What became of a ping, in the order in which they were sent but for [`PingEvent::Lost`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PingEvent {
    /// Its answer came, or has become improbable.
    Judged {
        /// When it was sent, from the scan's start.
        started: Duration,
        /// What it stands for.
        weight: PingWeight,
        /// Lost if no answer came so far.
        result: PingResult,
    },
    /// Its result and that of all before are known. An answer comes sooner than its absence: to
    /// count it at once would understate the loss of a moment that has just passed.
    Counted {
        /// When it was sent, from the scan's start.
        started: Duration,
        /// What it stands for.
        weight: PingWeight,
        /// What became of it in the end.
        result: PingResult,
    },
    /// It is lost; its probe is to be given up.
    Lost {
        /// The name of its probe.
        key: Key,
    },
}

/// The pings of one scan.
#[derive(Debug, Default)]
pub struct Pings {
    /// The port to ping, and how well it serves.
    responder: Option<(ResponderKind, u16)>,
    /// In start order. The front is not [`PingState::Over`].
    pings: VecDeque<Ping>,
    /// The number of the ping at the front.
    front: u32,
    /// The number of the first ping that was not judged.
    unjudged: u32,
    /// The number of the first ping that was not counted.
    uncounted: u32,
    in_flight: usize,
    lost_in_a_row: u32,
}

impl Pings {
    /// A port responded: it may be pinged, if it serves better or the present one has failed.
    pub fn handle_responder(&mut self, kind: ResponderKind, port: u16) {
        let has_failed = self.lost_in_a_row >= LOST_IN_A_ROW_MAX;
        if has_failed || self.responder.is_none_or(|(known, _)| kind > known) {
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

    /// Whether a lost ping says something about the path: a router limits what it says.
    pub fn shows_path_loss(&self) -> bool {
        self.responder.is_some_and(|(kind, _)| kind > ResponderKind::Rejected)
    }

    /// A ping is sent, and gets a number.
    pub fn push(&mut self, probe: Key, started: Duration, weight: PingWeight) -> u32 {
        assert!(self.has_room(), "pings are bounded");
        self.pings.push_back(Ping {
            probe,
            started,
            weight,
            state: PingState::Waiting,
            result: FinalResult::InFlight,
        });
        self.in_flight += 1;
        self.front.wrapping_add(self.pings.len() as u32 - 1)
    }

    /// A ping was answered: when it was sent. `None` if it was lost.
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

    /// A ping's connect came to nothing: its result is unknown.
    pub fn handle_failure(&mut self, number: u32) {
        let index = number.wrapping_sub(self.front) as usize;
        let ping = self.pings.get_mut(index).filter(|ping| ping.state.is_in_flight());
        if let Some(ping) = ping {
            (ping.state, ping.result) = (PingState::Over, FinalResult::Unknown);
            self.in_flight -= 1;
            self.trim();
        }
    }

    /// What became of a ping by now, if there is news.
    pub fn poll_event(&mut self, elapsed: Duration, rtt: &Rtt) -> Option<PingEvent> {
        let event = self.poll_judged(elapsed, rtt).or_else(|| self.poll_counted());
        if event.is_some() {
            return event;
        }
        let lost_after = lost_after(rtt);
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

    /// Counts the first ping that was not counted, if its result is known.
    fn poll_counted(&mut self) -> Option<PingEvent> {
        loop {
            let ping = *self.pings.get(self.uncounted.wrapping_sub(self.front) as usize)?;
            if ping.result == FinalResult::InFlight {
                return None;
            }
            self.uncounted = self.uncounted.wrapping_add(1);
            self.trim();
            if ping.result != FinalResult::Unknown {
                let (started, weight) = (ping.started, ping.weight);
                let is_lost = ping.result == FinalResult::Lost;
                let result = if is_lost { PingResult::Lost } else { PingResult::Answered };
                return Some(PingEvent::Counted { started, weight, result });
            }
        }
    }

    /// Judges the first ping that was not judged, if its result is known.
    fn poll_judged(&mut self, elapsed: Duration, rtt: &Rtt) -> Option<PingEvent> {
        let overdue_after = overdue_after(rtt);
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

    /// Gives back one ping in flight, whose result is then unknown.
    pub fn poll_given_up(&mut self) -> Option<Key> {
        let ping = self.pings.iter_mut().find(|ping| ping.state.is_in_flight())?;
        (ping.state, ping.result) = (PingState::Over, FinalResult::Unknown);
        let probe = ping.probe;
        self.in_flight -= 1;
        self.trim();
        Some(probe)
    }

    /// When a ping is overdue or lost, from the scan's start.
    pub fn deadline(&self, rtt: &Rtt) -> Option<Duration> {
        let lost = self.pings.iter().find(|ping| ping.state.is_in_flight())?;
        let waiting = self.pings.iter().find(|ping| ping.state == PingState::Waiting);
        let overdue = waiting.map(|ping| ping.started + overdue_after(rtt));
        let lost = lost.started + lost_after(rtt);
        Some(overdue.map_or(lost, |overdue| overdue.min(lost)))
    }

    /// Pings sent so far.
    pub fn sent(&self) -> u32 {
        self.front.wrapping_add(self.pings.len() as u32)
    }

    /// Pings in flight.
    pub const fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Whether another may be sent.
    pub fn has_room(&self) -> bool {
        self.in_flight < PINGS_MAX && self.pings.len() < REMEMBERED_MAX
    }

    /// Whether the port that is pinged has answered none for long.
    pub const fn has_failed(&self) -> bool {
        self.lost_in_a_row >= LOST_IN_A_ROW_MAX
    }

    /// Drops what is over from the front.
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

fn lost_after(rtt: &Rtt) -> Duration {
    rtt.deadline().unwrap_or(LOST_MAX).min(LOST_MAX)
}

fn overdue_after(rtt: &Rtt) -> Duration {
    rtt.late_after().map_or(LOST_MAX, |late| late + SLACK).min(lost_after(rtt))
}
