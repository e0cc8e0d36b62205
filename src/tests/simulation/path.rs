//! The way to a host, packet by packet: what delays, loses, copies or blocks a SYN or its answer.
//!
//! A [`Path`] is given every SYN at the instant at which it leaves, whichever technique sends it,
//! and returns the answers that arrive. It is needed where packets depend on one another: in a
//! queue, in a burst of loss, under a limit. A host without a path answers each probe by itself
//! (`network`). The chance of a path is its own, so that a network is the same for each technique.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use openports::event::Outcome;

use crate::network::Port;
use crate::rng::Rng;
use crate::world::{Edge, Happening, World};

/// Loss that comes in bursts: a Gilbert-Elliott channel whose good state loses nothing more.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bursts {
    /// The mean length of a burst.
    pub(crate) length: Duration,
    /// The share of the time that bursts take.
    pub(crate) share: f64,
    /// The share of packets lost in a burst.
    pub(crate) loss: f64,
}

/// The narrowest link on the way to the host.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bottleneck {
    /// SYNs per second.
    pub(crate) rate: f64,
    /// SYNs that may wait; a further one is dropped.
    pub(crate) queue: u32,
}

/// A firewall that drops everything from a source that sent too many SYNs in one second.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ban {
    pub(crate) syns_per_second: u32,
    pub(crate) time: Duration,
}

/// A middlebox that keeps half-open connections; while its table is full it drops SYNs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ConnectionTable {
    pub(crate) entries: usize,
    /// How long an entry stays that nothing answers.
    pub(crate) time: Duration,
}

/// When the host is there, counted from the start of the scan.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Presence {
    #[default]
    Always,
    Until(Duration),
    From(Duration),
}

/// What a path is like.
#[derive(Clone, Debug, Default)]
pub(crate) struct PathOptions {
    pub(crate) round_trip: Duration,
    /// Added to a round trip at most.
    pub(crate) jitter: Duration,
    /// Lost at random each way, 0 to 1.
    pub(crate) loss: f64,
    pub(crate) bursts: Option<Bursts>,
    pub(crate) bottleneck: Option<Bottleneck>,
    pub(crate) resets_per_second: Option<u32>,
    pub(crate) ban: Option<Ban>,
    pub(crate) table: Option<ConnectionTable>,
    pub(crate) presence: Presence,
    /// The share of answers that take half a round trip longer, so that later ones overtake them.
    pub(crate) reordered: f64,
    /// The share of SYNs that arrive twice, and of answers that do.
    pub(crate) duplicated: f64,
}

/// SYNs that were sent within one second, and how many of them the bottleneck dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Traffic {
    pub(crate) syns: u64,
    pub(crate) dropped: u64,
}

/// Whether a direction of the path is in a burst of loss, and until when.
#[derive(Clone, Copy, Debug)]
struct Weather {
    is_bad: bool,
    ends_at: Instant,
}

/// A count that begins anew with each second.
#[derive(Clone, Copy, Debug, Default)]
struct SecondCount {
    second: u64,
    count: u32,
}

impl SecondCount {
    /// Counts one more in this second; how many there were by now.
    const fn add(&mut self, second: u64) -> u32 {
        if self.second != second {
            *self = Self { second, count: 0 };
        }
        self.count += 1;
        self.count
    }
}

/// See the module's documentation.
#[derive(Clone, Debug)]
pub(crate) struct Path {
    options: PathOptions,
    rng: Rng,
    origin: Instant,
    /// There and back.
    weather: [Weather; 2],
    queue_ends_at: Instant,
    resets: SecondCount,
    syns: SecondCount,
    banned_until: Instant,
    /// By port: when the entry of the middlebox ends.
    table: BTreeMap<u16, Instant>,
    /// The same ends in order, also of entries that are gone.
    table_ends: VecDeque<(Instant, u16)>,
    /// By second, from the start on.
    pub(crate) traffic: Vec<Traffic>,
}

impl Path {
    pub(crate) fn new(options: PathOptions, seed: u64, origin: Instant) -> Self {
        Self {
            options,
            rng: Rng::new(seed),
            origin,
            weather: [Weather { is_bad: true, ends_at: origin }; 2],
            queue_ends_at: origin,
            resets: SecondCount::default(),
            syns: SecondCount::default(),
            banned_until: origin,
            table: BTreeMap::new(),
            table_ends: VecDeque::new(),
            traffic: Vec::new(),
        }
    }

    /// A SYN to a port of this kind leaves: the answers, and when each arrives.
    pub(crate) fn send(&mut self, now: Instant, port: u16, kind: Port) -> Vec<(Instant, Outcome)> {
        let second = (now - self.origin).as_secs() as usize;
        if self.traffic.len() <= second {
            self.traffic.resize(second + 1, Traffic::default());
        }
        self.traffic[second].syns += 1;
        if self.is_lost(0, now) {
            return Vec::new();
        }
        let Some(at) = self.pass_bottleneck(now) else {
            self.traffic[second].dropped += 1;
            return Vec::new();
        };
        let copies = 1 + usize::from(self.rng.happens(self.options.duplicated));
        (0..copies).flat_map(|_| self.arrive(at, port, kind)).collect()
    }

    /// When a SYN leaves the bottleneck; `None` if its queue is full.
    fn pass_bottleneck(&mut self, now: Instant) -> Option<Instant> {
        let Some(Bottleneck { rate, queue }) = self.options.bottleneck else { return Some(now) };
        let begins_at = self.queue_ends_at.max(now);
        if (begins_at - now).as_secs_f64() * rate > f64::from(queue) {
            return None;
        }
        self.queue_ends_at = begins_at + Duration::from_secs_f64(1.0 / rate);
        Some(self.queue_ends_at)
    }

    /// A SYN arrives at the firewall and the host at its end.
    fn arrive(&mut self, at: Instant, port: u16, kind: Port) -> Vec<(Instant, Outcome)> {
        let elapsed = at - self.origin;
        let is_there = match self.options.presence {
            Presence::Always => true,
            Presence::Until(end) => elapsed < end,
            Presence::From(start) => elapsed >= start,
        };
        if self.is_banned(at) || !self.has_entry(at, port) || !is_there {
            return Vec::new();
        }
        let outcome = match kind {
            Port::Open => Outcome::Connected,
            Port::Mirror => Outcome::SelfConnect,
            Port::Unreachable => Outcome::Unreachable,
            Port::Silent => return Vec::new(),
            Port::Closed => {
                let count = self.resets.add(elapsed.as_secs());
                if self.options.resets_per_second.is_some_and(|most| count > most) {
                    return Vec::new();
                }
                Outcome::Refused
            }
        };
        // What is answered leaves the table of the middlebox at once.
        self.table.remove(&port);
        if self.is_lost(1, at) {
            return Vec::new();
        }
        let copies = 1 + usize::from(self.rng.happens(self.options.duplicated));
        (0..copies).map(|_| (at + self.round_trip(), outcome)).collect()
    }

    fn round_trip(&mut self) -> Duration {
        let PathOptions { round_trip, jitter, reordered, .. } = self.options;
        let late = if self.rng.happens(reordered) { round_trip / 2 } else { Duration::ZERO };
        round_trip + jitter.mul_f64(self.rng.unit()) + late
    }

    /// Whether a packet is lost in a direction: 0 there, 1 back.
    fn is_lost(&mut self, direction: usize, at: Instant) -> bool {
        let mut loss = self.options.loss;
        if let Some(Bursts { length, share, loss: lost }) = self.options.bursts {
            let weather = &mut self.weather[direction];
            while weather.ends_at <= at {
                weather.is_bad = !weather.is_bad;
                let good = length.mul_f64((1.0 - share) / share);
                let mean = if weather.is_bad { length } else { good };
                weather.ends_at += mean.mul_f64(-(1.0 - self.rng.unit()).ln());
            }
            if weather.is_bad {
                loss = loss.max(lost);
            }
        }
        self.rng.happens(loss)
    }

    fn is_banned(&mut self, at: Instant) -> bool {
        let Some(Ban { syns_per_second, time }) = self.options.ban else { return false };
        let count = self.syns.add((at - self.origin).as_secs());
        if count > syns_per_second && at >= self.banned_until {
            self.banned_until = at + time;
        }
        at < self.banned_until
    }

    /// Whether the middlebox has an entry for a SYN to this port, or room for one.
    fn has_entry(&mut self, at: Instant, port: u16) -> bool {
        let Some(ConnectionTable { entries, time }) = self.options.table else { return true };
        while let Some((ends_at, port)) = self.table_ends.pop_front() {
            if ends_at > at {
                self.table_ends.push_front((ends_at, port));
                break;
            }
            if self.table.get(&port) == Some(&ends_at) {
                self.table.remove(&port);
            }
        }
        if self.table.len() >= entries && !self.table.contains_key(&port) {
            return false;
        }
        self.table.insert(port, at + time);
        self.table_ends.push_back((at + time, port));
        true
    }
}

/// The kernel sends a SYN for so long and no longer (tcp_syn_retries).
const SYNS_MAX: u32 = 7;

impl World {
    /// The kernel sends a SYN of a socket's connect, and plans when it repeats it. `sent` SYNs
    /// were sent before. Without effect if the host has no path.
    pub(crate) fn transmit(&mut self, socket: u64, connect: usize, sent: u32) {
        let now = self.now;
        let entry = self.table.get(&socket).filter(|it| it.attempts_len == connect);
        let attempt = entry.and_then(|entry| entry.attempt).filter(|it| it.answer.is_none());
        let Some(to) = attempt.map(|it| it.to) else { return };
        let Some(host) = self.hosts.get_mut(&to.ip()) else { return };
        let kind = host.port(to.port());
        let Some(path) = &mut host.path else { return };
        for (at, outcome) in path.send(now, to.port(), kind) {
            self.plan_at(at, Happening::SynAnswer(socket, connect, outcome));
        }
        if sent + 1 < SYNS_MAX {
            let gap = Duration::from_secs(1 << sent);
            self.plan(gap, Happening::SynRepeat(socket, connect, sent + 1));
        }
    }

    /// An answer arrives to a SYN of a socket's connect. The kernel heeds the first.
    pub(crate) fn on_syn_answer(&mut self, socket: u64, connect: usize, outcome: Outcome) {
        let now = self.now;
        let entry = self.table.get_mut(&socket).filter(|it| it.attempts_len == connect);
        let attempt = entry.and_then(|entry| entry.attempt.as_mut());
        let Some(attempt) = attempt.filter(|it| it.answer.is_none()) else { return };
        attempt.answer = Some((now, outcome));
        self.edge(socket, Edge::of_outcome(outcome));
    }
}
