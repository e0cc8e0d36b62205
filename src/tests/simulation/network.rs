//! Simulated hosts: their ports, round trips, routes and packet loss.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use openports::event::{Outcome, RouteResult};

use crate::path::Path;
use crate::rng::Rng;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Port {
    Open,
    Closed,
    Silent,
    /// A router rejects the SYN by ICMP.
    Unreachable,
    /// A port of the loopback interface at which a connect connects to itself.
    SelfConnect,
}

#[derive(Clone, Debug)]
pub(crate) struct Host {
    pub(crate) round_trip: Duration,
    /// The state of all ports that are not in `special`.
    pub(crate) usual: Port,
    pub(crate) special: BTreeMap<u16, Port>,
    /// The percentage of packets that are lost in each direction.
    pub(crate) loss: usize,
    /// The maximum number of RSTs that the host sends in a second.
    pub(crate) resets_per_second: Option<usize>,
    pub(crate) route: RouteResult,
    /// The path to the host, if packets depend on one another. Its loss and limits replace those of
    /// the host.
    pub(crate) path: Option<Path>,
    resets_sent: BTreeMap<u64, usize>,
}

/// When a SYN is sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SynTimes {
    /// The start of the simulation, from which the seconds of rate limits are counted.
    pub(crate) origin: Instant,
    /// The time of the first SYN of the connect.
    pub(crate) start: Instant,
}

/// The times at which Linux sends a SYN (TCP_TIMEOUT_INIT, doubled after each one).
const SYN_SECONDS: [u64; 5] = [0, 1, 3, 7, 15];

impl Host {
    pub(crate) fn new(round_trip: Duration, usual: Port, open: &[u16]) -> Self {
        Self {
            round_trip,
            usual,
            special: open.iter().map(|port| (*port, Port::Open)).collect(),
            loss: 0,
            resets_per_second: None,
            route: RouteResult::From(IpAddr::from([192, 0, 2, 1])),
            path: None,
            resets_sent: BTreeMap::new(),
        }
    }

    pub(crate) fn port(&self, port: u16) -> Port {
        match self.route {
            RouteResult::Nowhere => Port::Unreachable,
            RouteResult::From(_) | RouteResult::Unknown => {
                self.special.get(&port).copied().unwrap_or(self.usual)
            }
        }
    }

    pub(crate) const fn is_lossy(&self) -> bool {
        self.loss > 0 || self.path.is_some()
    }

    /// Returns the outcome of a connect that starts at `start`, and its time. Returns `None` if it
    /// never ends, or if its SYNs are sent one by one along the path.
    pub(crate) fn answer(
        &mut self,
        times: SynTimes,
        port: u16,
        rng: &mut Rng,
    ) -> Option<(Instant, Outcome)> {
        if self.path.is_some() {
            return None;
        }
        let kind = self.port(port);
        if self.route == RouteResult::Nowhere {
            return Some((times.start, Outcome::Unreachable));
        }
        for seconds in SYN_SECONDS {
            let jitter = self.round_trip.mul_f64(rng.below(11) as f64 / 100.0);
            let at = times.start + Duration::from_secs(seconds) + self.round_trip + jitter;
            if rng.chance(self.loss) || rng.chance(self.loss) {
                continue;
            }
            let outcome = match kind {
                Port::Open => Outcome::Connected,
                Port::SelfConnect => Outcome::SelfConnect,
                Port::Unreachable => Outcome::Unreachable,
                Port::Silent => return None,
                Port::Closed if !self.may_reset((at - times.origin).as_secs()) => continue,
                Port::Closed => Outcome::Refused,
            };
            return Some((at, outcome));
        }
        None
    }

    /// Returns the outcomes of a single SYN, and their times.
    pub(crate) fn answer_syn(
        &mut self,
        times: SynTimes,
        port: u16,
        rng: &mut Rng,
    ) -> Vec<(Instant, Outcome)> {
        let kind = self.port(port);
        match &mut self.path {
            Some(path) => path.send(times.start, port, kind),
            None => self.answer_lone_syn(times, port, rng).into_iter().collect(),
        }
    }

    fn answer_lone_syn(
        &mut self,
        times: SynTimes,
        port: u16,
        rng: &mut Rng,
    ) -> Option<(Instant, Outcome)> {
        let jitter = self.round_trip.mul_f64(rng.below(11) as f64 / 100.0);
        let at = times.start + self.round_trip + jitter;
        if rng.chance(self.loss) || rng.chance(self.loss) {
            return None;
        }
        let outcome = match self.port(port) {
            Port::Open => Outcome::Connected,
            Port::SelfConnect => Outcome::SelfConnect,
            Port::Unreachable => Outcome::Unreachable,
            Port::Silent => return None,
            Port::Closed if !self.may_reset((at - times.origin).as_secs()) => return None,
            Port::Closed => Outcome::Refused,
        };
        Some((at, outcome))
    }

    fn may_reset(&mut self, second: u64) -> bool {
        let Some(most) = self.resets_per_second else { return true };
        let sent = self.resets_sent.entry(second).or_default();
        *sent += 1;
        *sent <= most
    }
}
