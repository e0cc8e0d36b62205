//! One simulated host, which responds to each segment that our side sends.
//!
//! Pure: the time is an argument, and packets are return values. Its TCP has no state per
//! connection: the sequence number of a SYN-ACK follows from the port, and every later answer from
//! the segment that it answers. So the host never repeats a lost SYN-ACK; it sends a new one when
//! our kernel repeats the SYN. It never sends data and never closes first.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::link::Random;
use super::ports::{Port, Ports};
use super::wire::{Packet, Segment, flag};

/// When a host stops answering for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DownAfter {
    /// After this time since its first packet.
    Time(Duration),
    /// After this number of packets.
    Packets(u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RttChange {
    /// The time of the change since the first packet.
    pub(crate) after: Duration,
    pub(crate) rtt: Duration,
}

/// The periods of a host that is silent from time to time. They start at its first packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Outages {
    /// The time in which the host answers. Each period begins with it.
    pub(crate) up: Duration,
    /// The time in which the host is silent.
    pub(crate) down: Duration,
}

impl Outages {
    fn is_down(self, age: Duration) -> bool {
        let round = (self.up + self.down).as_nanos().max(1);
        age.as_nanos() % round >= self.up.as_nanos()
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Host {
    /// An address in 10.99.0.0/16 or fd99::/64, but not our own.
    pub(crate) address: IpAddr,
    /// The time from the arrival of a segment at the host to the arrival of its answer at our side.
    pub(crate) rtt: Duration,
    /// The share of packets that are lost before they reach the host, 0 to 1.
    pub(crate) loss_to: f64,
    /// The share of answers that are lost before they reach us, 0 to 1.
    pub(crate) loss_from: f64,
    /// The state of each port. Equal hosts share it.
    pub(crate) ports: Arc<Ports>,
    /// The maximum number of RSTs per second. Like FreeBSD with `net.inet.icmp.icmplim`, the host
    /// sends the first ones of each second.
    pub(crate) rst_per_second: Option<u32>,
    /// The maximum number of SYNs per second. Further ones are dropped, as by a firewall.
    pub(crate) syn_per_second: Option<u32>,
    pub(crate) down_after: Option<DownAfter>,
    /// The time since its first packet after which the host begins to answer.
    pub(crate) up_after: Option<Duration>,
    pub(crate) outages: Option<Outages>,
    pub(crate) rtt_change: Option<RttChange>,
    /// The seed of the random losses. With equal seeds and packets, the same packets are lost.
    pub(crate) seed: u64,
}

impl Host {
    /// Returns a host that answers at once, loses no packet and has only closed ports.
    pub(crate) fn new(address: impl Into<IpAddr>) -> Self {
        Self {
            address: address.into(),
            rtt: Duration::ZERO,
            loss_to: 0.0,
            loss_from: 0.0,
            ports: Arc::new(Ports::new(Port::Closed)),
            rst_per_second: None,
            syn_per_second: None,
            down_after: None,
            up_after: None,
            outages: None,
            rtt_change: None,
            seed: 1,
        }
    }

    pub(crate) fn rtt(self, rtt: Duration) -> Self {
        Self { rtt, ..self }
    }

    /// Sets the share of packets lost in each direction.
    pub(crate) fn loss(self, share: f64) -> Self {
        assert!((0.0..=1.0).contains(&share), "the loss must be from 0 to 1");
        Self { loss_to: share, loss_from: share, ..self }
    }

    pub(crate) fn ports(mut self, numbers: &[u16], port: Port) -> Self {
        Arc::make_mut(&mut self.ports).name(numbers, port);
        self
    }

    /// Sets the state of every `step`-th port that is not named.
    pub(crate) fn every(mut self, step: u16, port: Port) -> Self {
        Arc::make_mut(&mut self.ports).every(step, port);
        self
    }

    /// Sets the state of this share of the ports that are not named, chosen at random.
    pub(crate) fn share(mut self, share: f64, port: Port) -> Self {
        Arc::make_mut(&mut self.ports).share(share, port);
        self
    }

    /// Sets the state of all remaining ports.
    pub(crate) fn rest(mut self, rest: Port) -> Self {
        Arc::make_mut(&mut self.ports).rest(rest);
        self
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Fate {
    /// The host answers with this packet, which arrives one round trip later.
    Answered(Packet),
    /// The segment needs no answer, or its port is silent.
    Ignored,
    LostTo,
    LostFrom,
    /// A limit of the host is reached.
    Limited,
    /// The host does not answer at this time.
    Dead,
}

#[derive(Debug)]
pub(super) struct HostModel {
    host: Host,
    random: Random,
    syns: Window,
    resets: Window,
    packets: u64,
    first_packet_at: Option<Instant>,
}

impl HostModel {
    pub(super) fn new(host: Host) -> Self {
        let random = Random::new(host.seed);
        let (syns, resets) = (Window::default(), Window::default());
        Self { host, random, syns, resets, packets: 0, first_packet_at: None }
    }

    pub(super) fn address(&self) -> IpAddr {
        self.host.address
    }

    /// Returns the round trip of a segment that arrives `now`.
    pub(super) fn rtt(&self, now: Instant) -> Duration {
        let age = self.first_packet_at.map_or(Duration::ZERO, |first| now.duration_since(first));
        match self.host.rtt_change {
            Some(change) if age >= change.after => change.rtt,
            Some(_) | None => self.host.rtt,
        }
    }

    pub(super) fn handle(&mut self, now: Instant, segment: &Segment<'_>) -> Fate {
        assert_eq!(segment.target.ip(), self.host.address, "the segment is for another host");
        let first_packet_at = *self.first_packet_at.get_or_insert(now);
        let is_down = match self.host.down_after {
            None => false,
            Some(DownAfter::Time(age)) => now.duration_since(first_packet_at) >= age,
            Some(DownAfter::Packets(count)) => self.packets >= count,
        };
        self.packets += 1;
        let age = now.duration_since(first_packet_at);
        let is_down = is_down || self.host.up_after.is_some_and(|after| age < after);
        if is_down || self.host.outages.is_some_and(|outages| outages.is_down(age)) {
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

    /// Returns the response of the port. It follows RFC 9293 section 3.10.7 for CLOSED and LISTEN,
    /// and implements the later states only for connections without data.
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

/// A counter of the current second.
#[derive(Debug, Default)]
struct Window {
    since: Option<Instant>,
    count: u32,
}

impl Window {
    /// Counts one more and returns true, unless the count would exceed `limit` per second.
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
