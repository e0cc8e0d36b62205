//! One simulated host: what it does with each segment that our side sends.
//!
//! Pure: `now` comes in, packets go out. The TCP it speaks keeps no state per connection: the
//! sequence number of its SYN-ACK follows from the port, and every later answer from the segment
//! it answers. So it never repeats a lost SYN-ACK by itself: our kernel's repeated SYN asks for a
//! new one. It never sends data and never closes first.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::link::Random;
use super::ports::{Port, Ports};
use super::wire::{Packet, Segment, flag};

/// When a host falls silent for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Death {
    /// So long after the first packet that it saw.
    After(Duration),
    /// After so many packets.
    Packets(u64),
}

/// A change of the route to a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RttChange {
    /// So long after the first packet,
    pub(crate) after: Duration,
    /// the round trip is this one.
    pub(crate) rtt: Duration,
}

/// The rhythm of a host that falls silent and comes back, counted from its first packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Naps {
    /// First it answers for so long,
    pub(crate) awake: Duration,
    /// then it is silent for so long, and so on.
    pub(crate) asleep: Duration,
}

impl Naps {
    fn is_asleep(self, age: Duration) -> bool {
        let round = (self.awake + self.asleep).as_nanos().max(1);
        age.as_nanos() % round >= self.awake.as_nanos()
    }
}

/// A host of the lab, as a test describes it. Starts as one that answers at once, loses nothing
/// and has every port closed.
#[derive(Clone, Debug)]
pub(crate) struct Host {
    /// Inside 10.99.0.0/16 or fd99::/64, and not the lab's own address.
    pub(crate) address: IpAddr,
    /// From a segment's arrival to its answer's departure.
    pub(crate) rtt: Duration,
    /// The share of packets that never reach it, 0 to 1.
    pub(crate) loss_to: f64,
    /// The share of its answers that never reach us, 0 to 1.
    pub(crate) loss_from: f64,
    /// What stands behind each port; hosts that are alike share it.
    pub(crate) ports: Arc<Ports>,
    /// RSTs in any one second; what is above is not sent. Counted as FreeBSD's
    /// `net.inet.icmp.icmplim` does: the first so many of each second.
    pub(crate) rst_per_second: Option<u32>,
    /// SYNs let through in any one second; what is above is dropped, as a firewall's limit does.
    pub(crate) syn_per_second: Option<u32>,
    /// When it falls silent for good.
    pub(crate) dies: Option<Death>,
    /// It begins to answer so long after its first packet.
    pub(crate) wakes_after: Option<Duration>,
    /// When it falls silent and comes back.
    pub(crate) naps: Option<Naps>,
    /// When its round trip changes.
    pub(crate) rtt_change: Option<RttChange>,
    /// Decides which packets are lost; equal seeds and equal packets lose the same ones.
    pub(crate) seed: u64,
}

impl Host {
    /// A host that answers at once, loses nothing and has every port closed.
    pub(crate) fn new(address: impl Into<IpAddr>) -> Self {
        Self {
            address: address.into(),
            rtt: Duration::ZERO,
            loss_to: 0.0,
            loss_from: 0.0,
            ports: Arc::new(Ports::new(Port::Closed)),
            rst_per_second: None,
            syn_per_second: None,
            dies: None,
            wakes_after: None,
            naps: None,
            rtt_change: None,
            seed: 1,
        }
    }

    /// The same, so far away.
    pub(crate) fn rtt(self, rtt: Duration) -> Self {
        Self { rtt, ..self }
    }

    /// The same, with this share of the packets lost, each way.
    pub(crate) fn loss(self, share: f64) -> Self {
        assert!((0.0..=1.0).contains(&share), "a loss is a share, not a percentage");
        Self { loss_to: share, loss_from: share, ..self }
    }

    /// The same, with these ports behaving so.
    pub(crate) fn ports(mut self, numbers: &[u16], port: Port) -> Self {
        Arc::make_mut(&mut self.ports).name(numbers, port);
        self
    }

    /// The same, with every `step`-th port that is not named behaving so.
    pub(crate) fn every(mut self, step: u16, port: Port) -> Self {
        Arc::make_mut(&mut self.ports).every(step, port);
        self
    }

    /// The same, with this share of the ports that are not named, spread at random, behaving so.
    pub(crate) fn share(mut self, share: f64, port: Port) -> Self {
        Arc::make_mut(&mut self.ports).share(share, port);
        self
    }

    /// The same, with all ports that nothing else is said of behaving so.
    pub(crate) fn rest(mut self, rest: Port) -> Self {
        Arc::make_mut(&mut self.ports).rest(rest);
        self
    }
}

/// What became of a segment.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fate {
    /// Answered; the packet leaves one round trip after the segment came.
    Answered(Packet),
    /// It asks for no answer, or what it came to gives none.
    Ignored,
    /// The segment was lost on its way.
    LostTo,
    /// The answer was lost on its way.
    LostFrom,
    /// A limit of the host's was reached.
    Limited,
    /// The host is dead, or asleep.
    Dead,
}

/// A host at work.
#[derive(Debug)]
pub(super) struct Player {
    host: Host,
    random: Random,
    syns: Window,
    resets: Window,
    packets: u64,
    first_packet_at: Option<Instant>,
}

impl Player {
    pub(super) fn new(host: Host) -> Self {
        let random = Random::new(host.seed);
        let (syns, resets) = (Window::default(), Window::default());
        Self { host, random, syns, resets, packets: 0, first_packet_at: None }
    }

    pub(super) fn address(&self) -> IpAddr {
        self.host.address
    }

    /// How long the answer to what came `now` travels.
    pub(super) fn rtt(&self, now: Instant) -> Duration {
        let age = self.first_packet_at.map_or(Duration::ZERO, |first| now.duration_since(first));
        match self.host.rtt_change {
            Some(change) if age >= change.after => change.rtt,
            Some(_) | None => self.host.rtt,
        }
    }

    /// A segment for this host has come.
    pub(super) fn handle(&mut self, now: Instant, segment: &Segment<'_>) -> Fate {
        assert_eq!(segment.target.ip(), self.host.address, "the segment is for this host");
        let first_packet_at = *self.first_packet_at.get_or_insert(now);
        let is_dead = match self.host.dies {
            None => false,
            Some(Death::After(age)) => now.duration_since(first_packet_at) >= age,
            Some(Death::Packets(count)) => self.packets >= count,
        };
        self.packets += 1;
        let age = now.duration_since(first_packet_at);
        let is_dead = is_dead || self.host.wakes_after.is_some_and(|after| age < after);
        if is_dead || self.host.naps.is_some_and(|naps| naps.is_asleep(age)) {
            return Fate::Dead;
        }
        if self.random.is_hit(self.host.loss_to) {
            return Fate::LostTo;
        }
        let is_syn = segment.has(flag::SYN) && !segment.has(flag::ACK);
        if is_syn && !self.syns.admits(now, self.host.syn_per_second) {
            return Fate::Limited;
        }
        let fate = self.respond(now, segment);
        let is_lost = matches!(fate, Fate::Answered(_)) && self.random.is_hit(self.host.loss_from);
        if is_lost { Fate::LostFrom } else { fate }
    }

    /// What the port answers. RFC 9293 section 3.10.7 for CLOSED and LISTEN, and as much of the
    /// later states as a connection without data needs.
    fn respond(&mut self, now: Instant, segment: &Segment<'_>) -> Fate {
        if segment.has(flag::RST) {
            return Fate::Ignored;
        }
        let number = segment.target.port();
        match self.host.ports.find(number) {
            Port::Silent => Fate::Ignored,
            Port::Unreachable(why) => Fate::Answered(segment.unreachable(why)),
            Port::Closed if !self.resets.admits(now, self.host.rst_per_second) => Fate::Limited,
            Port::Closed if segment.has(flag::ACK) => {
                Fate::Answered(segment.answer(flag::RST, segment.acknowledgement))
            }
            Port::Closed => Fate::Answered(segment.answer(flag::RST | flag::ACK, 0)),
            Port::Open if segment.has(flag::SYN) => {
                let sequence = u32::from(number).wrapping_mul(0x9e37_79b9);
                Fate::Answered(segment.answer(flag::SYN | flag::ACK, sequence))
            }
            Port::Open if segment.has(flag::FIN) => {
                Fate::Answered(segment.answer(flag::FIN | flag::ACK, segment.acknowledgement))
            }
            Port::Open if segment.length > 0 => {
                Fate::Answered(segment.answer(flag::ACK, segment.acknowledgement))
            }
            Port::Open => Fate::Ignored,
        }
    }
}

/// Counts what happened within the current second.
#[derive(Debug, Default)]
struct Window {
    since: Option<Instant>,
    count: u32,
}

impl Window {
    /// True exactly when one more stays within `limit` a second; counts it then.
    fn admits(&mut self, now: Instant, limit: Option<u32>) -> bool {
        let Some(limit) = limit else { return true };
        let is_over = |since| now.duration_since(since) >= Duration::from_secs(1);
        if self.since.is_none_or(is_over) {
            *self = Self { since: Some(now), count: 0 };
        }
        let is_admitted = self.count < limit;
        self.count += u32::from(is_admitted);
        is_admitted
    }
}
