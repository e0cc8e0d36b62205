//! The path to a host, which delays, loses, duplicates or blocks each SYN and its answer.
//!
//! A [`Path`] gets every SYN at the instant at which it is sent, by either technique, and returns
//! the answers that arrive. It is needed if packets depend on one another: in a queue, in a burst
//! of loss, or under a limit. A host without a path answers each probe independently (`network`).
//! A path has its own random number generator, so that a network is the same for each technique.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use openports::event::Outcome;

use crate::network::Port;
use crate::rng::Rng;
use crate::world::{Edge, World, WorldEvent};

/// Bursts of loss: a Gilbert-Elliott channel whose good state adds no loss.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bursts {
    /// The mean length of a burst.
    pub(crate) length: Duration,
    /// The share of time in bursts.
    pub(crate) share: f64,
    /// The share of packets lost in a burst.
    pub(crate) loss: f64,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Bottleneck {
    /// SYNs per second.
    pub(crate) rate: f64,
    /// The maximum number of waiting SYNs; the queue drops further ones.
    pub(crate) queue: u32,
}

/// A firewall that drops all packets of a source that sent too many SYNs in one second.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ban {
    pub(crate) syns_per_second: u32,
    pub(crate) time: Duration,
}

/// A middlebox with a table of half-open connections; while the table is full, it drops SYNs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ConnectionTable {
    pub(crate) entries: usize,
    /// The lifetime of an entry without an answer.
    pub(crate) time: Duration,
}

/// When the host is reachable, as a time since the start of the scan.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Presence {
    #[default]
    Always,
    Until(Duration),
    From(Duration),
}

#[derive(Clone, Debug, Default)]
pub(crate) struct PathOptions {
    pub(crate) round_trip: Duration,
    /// The maximum delay that is added to a round trip.
    pub(crate) jitter: Duration,
    /// The share of packets lost at random in each direction.
    pub(crate) loss: f64,
    pub(crate) bursts: Option<Bursts>,
    pub(crate) bottleneck: Option<Bottleneck>,
    pub(crate) resets_per_second: Option<u32>,
    pub(crate) ban: Option<Ban>,
    pub(crate) table: Option<ConnectionTable>,
    pub(crate) presence: Presence,
    /// The share of answers that take half a round trip longer, so that later ones overtake them.
    pub(crate) reordered: f64,
    /// The share of SYNs and of answers that arrive twice.
    pub(crate) duplicated: f64,
}

/// The number of SYNs that were sent in one second, and of those that the bottleneck dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Traffic {
    pub(crate) syns: u64,
    pub(crate) dropped: u64,
}

/// The state of one direction of the path: whether it is in a burst of loss, and until when.
#[derive(Clone, Copy, Debug)]
struct Channel {
    is_bad: bool,
    ends_at: Instant,
}

/// A counter that starts at 0 in each second.
#[derive(Clone, Copy, Debug, Default)]
struct SecondCount {
    second: u64,
    count: u32,
}

impl SecondCount {
    /// Increments the counter of this second, and returns it.
    const fn add(&mut self, second: u64) -> u32 {
        if self.second != second {
            *self = Self { second, count: 0 };
        }
        self.count += 1;
        self.count
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Path {
    options: PathOptions,
    rng: Rng,
    origin: Instant,
    /// The direction to the host, and the direction back.
    channels: [Channel; 2],
    queue_ends_at: Instant,
    resets: SecondCount,
    syns: SecondCount,
    banned_until: Instant,
    /// The time at which the middlebox's entry of each port expires.
    table: BTreeMap<u16, Instant>,
    /// The same times in order, including those of removed entries.
    table_ends: VecDeque<(Instant, u16)>,
    /// The traffic of each second since the start.
    pub(crate) traffic: Vec<Traffic>,
}

impl Path {
    pub(crate) fn new(options: PathOptions, seed: u64, origin: Instant) -> Self {
        Self {
            options,
            rng: Rng::new(seed),
            origin,
            channels: [Channel { is_bad: true, ends_at: origin }; 2],
            queue_ends_at: origin,
            resets: SecondCount::default(),
            syns: SecondCount::default(),
            banned_until: origin,
            table: BTreeMap::new(),
            table_ends: VecDeque::new(),
            traffic: Vec::new(),
        }
    }

    /// Sends a SYN to a port of this kind, and returns its answers and their times.
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

    /// Returns the time at which a SYN leaves the bottleneck, or `None` if its queue is full.
    fn pass_bottleneck(&mut self, now: Instant) -> Option<Instant> {
        let Some(Bottleneck { rate, queue }) = self.options.bottleneck else { return Some(now) };
        let begins_at = self.queue_ends_at.max(now);
        if (begins_at - now).as_secs_f64() * rate > f64::from(queue) {
            return None;
        }
        self.queue_ends_at = begins_at + Duration::from_secs_f64(1.0 / rate);
        Some(self.queue_ends_at)
    }

    /// Handles a SYN that arrives at the firewall, the middlebox and the host.
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
            Port::SelfConnect => Outcome::SelfConnect,
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
        // The middlebox removes an entry when it sees the answer.
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

    /// Returns whether a packet is lost in a direction: 0 is to the host, 1 is back.
    fn is_lost(&mut self, direction: usize, at: Instant) -> bool {
        let mut loss = self.options.loss;
        if let Some(Bursts { length, share, loss: lost }) = self.options.bursts {
            let channel = &mut self.channels[direction];
            while channel.ends_at <= at {
                channel.is_bad = !channel.is_bad;
                let good = length.mul_f64((1.0 - share) / share);
                let mean = if channel.is_bad { length } else { good };
                channel.ends_at += mean.mul_f64(-(1.0 - self.rng.unit()).ln());
            }
            if channel.is_bad {
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

    /// Returns whether the middlebox has an entry for a SYN to this port, or can add one.
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

/// The maximum number of SYNs that the kernel sends for one connect (tcp_syn_retries + 1).
const SYNS_MAX: u32 = 7;

impl World {
    /// Sends a SYN of a socket's connect, and schedules its retransmission. `sent` is the number of
    /// SYNs sent before. Has no effect if the host has no path.
    pub(crate) fn transmit(&mut self, socket: u64, connect: usize, sent: u32) {
        let now = self.now;
        let entry = self.table.get(&socket).filter(|it| it.attempts_len == connect);
        let attempt = entry.and_then(|entry| entry.attempt).filter(|it| it.answer.is_none());
        let Some(to) = attempt.map(|it| it.to) else { return };
        let Some(host) = self.hosts.get_mut(&to.ip()) else { return };
        let kind = host.port(to.port());
        let Some(path) = &mut host.path else { return };
        for (at, outcome) in path.send(now, to.port(), kind) {
            self.schedule_at(at, WorldEvent::SynAnswer(socket, connect, outcome));
        }
        if sent + 1 < SYNS_MAX {
            let gap = Duration::from_secs(1 << sent);
            self.schedule(gap, WorldEvent::SynRepeat(socket, connect, sent + 1));
        }
    }

    /// Handles the answer to a SYN of a socket's connect. The kernel ignores all but the first.
    pub(crate) fn on_syn_answer(&mut self, socket: u64, connect: usize, outcome: Outcome) {
        let now = self.now;
        let entry = self.table.get_mut(&socket).filter(|it| it.attempts_len == connect);
        let attempt = entry.and_then(|entry| entry.attempt.as_mut());
        let Some(attempt) = attempt.filter(|it| it.answer.is_none()) else { return };
        attempt.answer = Some((now, outcome));
        self.edge(socket, Edge::of_outcome(outcome));
    }
}
