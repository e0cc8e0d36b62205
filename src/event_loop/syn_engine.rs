//! The SYN engine: probes are SYNs through a raw socket, one for each version of IP.
//!
//! A SYN needs neither a descriptor nor a socket of the kernel's. SYNs are collected while actions
//! are performed and leave in one call at their end. An answer belongs to a probe only if it
//! acknowledges the keyed hash of its own four-tuple. Unanswered SYNs are repeated when Linux would
//! repeat them, so that a scan need not know which engine probes for it. Sockets are opened when
//! the first SYN is to leave, and stay open. The engine decides nothing about ports. Driven by
//! `engines`.
//!
//! Invariants: a probe in flight has a four-tuple of its own; a batch holds at most `RAW_BATCH`
//! packets; an outcome is reported once, and never for a probe that was given up.

mod in_flight;
mod routes;
mod source_ports;

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::time::{Duration, Instant};

use self::in_flight::{InFlight, Remote};
use self::routes::Routes;
use self::source_ports::{SourcePort, SourcePorts};
use super::engines::ProbeRequest;
use crate::event::{Outcome, RouteResult, Shortage, SynCounts};
use crate::kernel::{
    Kernel, RAW_BATCH, RawOptions, RawPacket, RawQueue, RawReceiveStep, RawSendStep, Readiness,
    Received, Source, Token,
};
use crate::limits::{self, Sources};
use crate::packet::answer::{self, Answer};
use crate::packet::quote::{Meaning, Quote};
use crate::packet::sequence::SequenceKey;
use crate::packet::syn::{SYN_BYTES_MAX, Syn};
use crate::packet::{FourTuple, IpVersion, Reject};
use crate::slots::Key;

/// The token of the first raw socket: a slot of the connect engine that does not exist.
const TOKEN: usize = 0xffff_fff0;
/// Calls that receive packets in one tick: as many answers as four batches of SYNs have.
const RECEIVES_PER_TICK: usize = 4;
/// SYNs repeated in one tick: twice as many as are launched, so that repeats that are late catch
/// up.
const REPEATS_PER_TICK: usize = 2 * limits::SYN_LAUNCHES_PER_TICK;

/// One version of IP: its socket, and what waits to be sent.
#[derive(Debug)]
struct Lane<S> {
    socket: S,
    batch: Vec<RawPacket>,
    /// The probes of the batch.
    probes: Vec<Key>,
    may_receive: bool,
    may_receive_errors: bool,
    /// False while the send buffer is full.
    may_send: bool,
}

/// A SYN that is sent again.
struct Repeated {
    probe: Key,
    to: SocketAddr,
    /// The place of its source port.
    place: u8,
}

/// Where an IPv6 probe goes. The scope is used to send, and identifies nothing.
#[derive(Clone, Copy, Debug)]
struct Address6 {
    address: Ipv6Addr,
    scope: u32,
}

fn remote4(to: SocketAddrV4, place: u8) -> Remote<Ipv4Addr> {
    Remote { address: *to.ip(), port: to.port(), place }
}

fn remote6(to: SocketAddrV6, place: u8) -> Remote<Address6> {
    let address = Address6 { address: *to.ip(), scope: to.scope_id() };
    Remote { address, port: to.port(), place }
}

impl PartialEq for Address6 {
    fn eq(&self, other: &Self) -> bool {
        self.address == other.address
    }
}

/// See the module's documentation.
pub(super) struct SynEngine<K: Kernel> {
    /// Secret from the moment a socket is opened.
    key: SequenceKey,
    started_at: Instant,
    /// The last time that was asked for, and its milliseconds: hundreds of SYNs leave in a tick.
    clock: (Instant, u32),
    capacity: usize,
    sources: Sources,
    /// By version of IP.
    lanes: [Option<Lane<K::RawSocket>>; 2],
    ports: SourcePorts,
    v4: InFlight<Ipv4Addr>,
    v6: InFlight<Address6>,
    routes: Routes,
    outcomes: VecDeque<(Key, Outcome)>,
    counts: SynCounts,
}

impl<K: Kernel> SynEngine<K> {
    pub(super) fn new(capacity: usize, sources: Sources, now: Instant) -> Self {
        Self {
            capacity,
            key: SequenceKey::new([0; 2]),
            started_at: now,
            clock: (now, 0),
            sources,
            lanes: [None, None],
            ports: SourcePorts::default(),
            v4: InFlight::new(),
            v6: InFlight::new(),
            routes: Routes::default(),
            outcomes: VecDeque::new(),
            counts: SynCounts::default(),
        }
    }

    /// Whether a token is one of the engine's.
    pub(super) const fn owns(token: Token) -> bool {
        token.0 >= TOKEN && token.0 - TOKEN < IpVersion::ALL.len()
    }

    /// How many probes may be in flight at once: memory alone bounds them.
    pub(super) const fn capacity(&self) -> usize {
        self.capacity
    }

    /// Starts a probe; its outcome, if it is known at once.
    pub(super) fn start(
        &mut self,
        kernel: &mut K,
        now: Instant,
        request: ProbeRequest,
    ) -> Option<Outcome> {
        self.try_start(kernel, now, request).err()
    }

    fn try_start(
        &mut self,
        kernel: &mut K,
        now: Instant,
        request: ProbeRequest,
    ) -> Result<(), Outcome> {
        let ProbeRequest { probe, to, .. } = request;
        let version = IpVersion::of(&to);
        self.open(kernel, version)?;
        if self.lane_mut(version).is_some_and(|lane| lane.batch.len() >= RAW_BATCH) {
            self.flush_lane(kernel, version);
            if self.lane_mut(version).is_none_or(|lane| lane.batch.len() >= RAW_BATCH) {
                return Err(Outcome::Shortage(Shortage::Buffers));
            }
        }
        let clock = self.clock(now);
        let source = self.source(kernel, to, clock)?;
        let (key, v4, v6) = (&self.key, &self.v4, &self.v6);
        let syn_from = |port: SourcePort| {
            let tuple = FourTuple { local: SocketAddr::new(source, port.number), remote: to };
            let syn = Syn { tuple, numbers: key.numbers(&tuple), clock_ms: clock };
            let sequence = syn.numbers.sequence;
            let is_in_flight = match to {
                SocketAddr::V4(to) => v4.contains(&remote4(to, port.place), sequence),
                SocketAddr::V6(to) => v6.contains(&remote6(to, port.place), sequence),
            };
            (!is_in_flight).then_some((syn, port.place))
        };
        let (syn, place) = self.ports.choose(kernel, syn_from).map_err(Outcome::Shortage)?;
        let sequence = syn.numbers.sequence;
        match to {
            SocketAddr::V4(to) => self.v4.insert(probe, remote4(to, place), sequence, clock),
            SocketAddr::V6(to) => self.v6.insert(probe, remote6(to, place), sequence, clock),
        }
        self.push(probe, syn);
        Ok(())
    }

    /// Gives a probe up.
    /// False if it is not in flight.
    pub(super) fn forget(&mut self, probe: Key) -> bool {
        self.v4.remove(probe) || self.v6.remove(probe)
    }

    /// Sends what was collected. What fails is an outcome.
    pub(super) fn flush(&mut self, kernel: &mut K) {
        IpVersion::ALL.into_iter().for_each(|version| self.flush_lane(kernel, version));
    }

    /// The poller reports a raw socket.
    pub(super) fn handle_readiness(&mut self, ready: &Readiness) {
        let Some(Some(lane)) = self.lanes.get_mut(ready.token.0 - TOKEN) else { return };
        lane.may_receive |= ready.is_readable;
        lane.may_receive_errors |= ready.is_error;
        lane.may_send |= ready.is_writable;
    }

    /// Repeats SYNs that are due, and takes in what has arrived. Outcomes are then to be polled.
    pub(super) fn resume(&mut self, kernel: &mut K, now: Instant) {
        for version in IpVersion::ALL {
            if let Some(mut lane) = self.lanes[version as usize].take() {
                self.receive(kernel, &mut lane, version);
                self.receive_errors(kernel, &mut lane);
                self.lanes[version as usize] = Some(lane);
            }
        }
        let clock = self.clock(now);
        self.repeat(kernel, clock);
    }

    /// An outcome that was not reported yet.
    pub(super) fn poll_outcome(&mut self) -> Option<(Key, Outcome)> {
        self.outcomes.pop_front()
    }

    /// Whether a tick would find work at once.
    pub(super) fn has_work(&self) -> bool {
        let has_work = |lane: &Lane<K::RawSocket>| {
            lane.may_receive || lane.may_receive_errors || lane.may_send && !lane.batch.is_empty()
        };
        !self.outcomes.is_empty() || self.lanes.iter().flatten().any(has_work)
    }

    /// When the next SYN is to be repeated.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let first = self.v4.repeat_at().into_iter().chain(self.v6.repeat_at()).min()?;
        Some(self.started_at + Duration::from_millis(first.into()))
    }

    /// What was counted since the last call.
    pub(super) fn take_counts(&mut self) -> Option<SynCounts> {
        let counts = std::mem::take(&mut self.counts);
        (counts != SynCounts::default()).then_some(counts)
    }

    const fn lane_mut(&mut self, version: IpVersion) -> Option<&mut Lane<K::RawSocket>> {
        self.lanes[version as usize].as_mut()
    }

    /// Milliseconds since the engine was made: seven weeks fit.
    fn clock(&mut self, now: Instant) -> u32 {
        if now != self.clock.0 {
            let clock = now.saturating_duration_since(self.started_at).as_millis() as u32;
            self.clock = (now, clock);
        }
        self.clock.1
    }

    /// Opens the socket of a version, and reserves the first source port.
    fn open(&mut self, kernel: &mut K, version: IpVersion) -> Result<(), Outcome> {
        if self.lanes[version as usize].is_some() {
            return Ok(());
        }
        if self.lanes.iter().all(Option::is_none) {
            self.key = SequenceKey::new(kernel.secret().map_err(Outcome::Shortage)?);
        }
        let block = self.ports.open(kernel).map_err(Outcome::Shortage)?;
        let source = match version {
            IpVersion::V4 => self.sources.v4,
            IpVersion::V6 => self.sources.v6,
        };
        let socket = kernel.open_raw(RawOptions { version, block, source })?;
        let token = Token(TOKEN + version as usize);
        let registered = kernel.register(Source::Raw(&socket), token);
        registered.map_err(|_| Outcome::Shortage(Shortage::Memory))?;
        self.lanes[version as usize] = Some(Lane {
            socket,
            batch: Vec::with_capacity(RAW_BATCH),
            probes: Vec::with_capacity(RAW_BATCH),
            may_receive: false,
            may_receive_errors: false,
            may_send: true,
        });
        Ok(())
    }

    /// The address that a SYN to `to` has to bear.
    fn source(&mut self, kernel: &mut K, to: SocketAddr, clock: u32) -> Result<IpAddr, Outcome> {
        let fixed = if to.is_ipv4() { self.sources.v4 } else { self.sources.v6 };
        if let Some(source) = fixed.or_else(|| self.routes.source(to.ip(), clock)) {
            return Ok(source);
        }
        match kernel.route(to) {
            RouteResult::From(source) => {
                self.routes.insert(to.ip(), source, clock);
                Ok(source)
            }
            RouteResult::Nowhere => Err(Outcome::Unreachable),
            RouteResult::Unknown => Err(Outcome::Shortage(Shortage::TryAgain)),
        }
    }

    /// Takes out the probe that an answer or a quotation with this sequence number belongs to.
    fn take(&mut self, tuple: &FourTuple, sequence: u32) -> Result<Key, Reject> {
        let place = self.ports.place(tuple.local.port()).ok_or(Reject::NoProbe)?;
        let probe = match tuple.remote {
            SocketAddr::V4(to) => self.v4.take(&remote4(to, place), sequence),
            SocketAddr::V6(to) => self.v6.take(&remote6(to, place), sequence),
        };
        probe.ok_or(Reject::NoProbe)
    }

    /// Puts a SYN into the batch of its version, which has room.
    fn push(&mut self, probe: Key, syn: Syn) {
        let to = syn.tuple.remote;
        let Some(lane) = self.lane_mut(IpVersion::of(&to)) else { return };
        let mut outgoing = RawPacket { bytes: [0; SYN_BYTES_MAX], len: 0, to };
        outgoing.len = syn.write(&mut outgoing.bytes);
        lane.batch.push(outgoing);
        lane.probes.push(probe);
    }

    fn flush_lane(&mut self, kernel: &mut K, version: IpVersion) {
        let Some(lane) = &mut self.lanes[version as usize] else { return };
        if !lane.may_send || lane.batch.is_empty() {
            return;
        }
        let (mut done, mut failed) = (0, Vec::new());
        while done < lane.batch.len() {
            match kernel.send_raw(&lane.socket, &lane.batch[done..]) {
                RawSendStep::Sent(count) => {
                    self.counts.sent += count as u64;
                    done += count;
                }
                RawSendStep::WouldBlock => {
                    lane.may_send = false;
                    break;
                }
                RawSendStep::Dropped => {
                    self.counts.denied += 1;
                    done += 1;
                }
                RawSendStep::Failed(outcome @ Outcome::Shortage(_)) => {
                    // What follows would meet the same shortage.
                    failed.extend(lane.probes[done..].iter().map(|probe| (*probe, outcome)));
                    done = lane.batch.len();
                }
                RawSendStep::Failed(outcome) => {
                    failed.push((lane.probes[done], outcome));
                    done += 1;
                }
            }
        }
        lane.batch.drain(..done);
        lane.probes.drain(..done);
        for (probe, outcome) in failed {
            if self.v4.remove(probe) || self.v6.remove(probe) {
                self.outcomes.push_back((probe, outcome));
            }
        }
    }

    /// Sends SYNs again that were not answered.
    fn repeat(&mut self, kernel: &mut K, clock: u32) {
        for _ in 0..REPEATS_PER_TICK {
            let (probe, to, place) = if let Some(repeat) = self.v4.poll_repeat(clock) {
                let Remote { address, port, place } = repeat.remote;
                (repeat.probe, SocketAddr::from((address, port)), place)
            } else if let Some(repeat) = self.v6.poll_repeat(clock) {
                let Remote { address: Address6 { address, scope }, port, place } = repeat.remote;
                (repeat.probe, SocketAddrV6::new(address, port, 0, scope).into(), place)
            } else {
                return;
            };
            self.repeat_one(kernel, Repeated { probe, to, place }, clock);
        }
    }

    fn repeat_one(&mut self, kernel: &mut K, repeated: Repeated, clock: u32) {
        let Repeated { probe, to, place } = repeated;
        let Some(port) = self.ports.number(place) else { return };
        let version = IpVersion::of(&to);
        if self.lane_mut(version).is_some_and(|lane| lane.batch.len() >= RAW_BATCH) {
            self.flush_lane(kernel, version);
        }
        if self.lane_mut(version).is_none_or(|lane| lane.batch.len() >= RAW_BATCH) {
            // The send buffer is full: the SYN was sent once at least.
            return;
        }
        // The route may have changed since. Without one the first SYN still may be answered.
        let Ok(source) = self.source(kernel, to, clock) else { return };
        let local = SocketAddr::new(source, port);
        let tuple = FourTuple { local, remote: to };
        let numbers = self.key.numbers(&tuple);
        let is_in_flight = match version {
            IpVersion::V4 => self.v4.move_to(probe, numbers.sequence),
            IpVersion::V6 => self.v6.move_to(probe, numbers.sequence),
        };
        assert!(is_in_flight, "what is repeated is in flight");
        self.push(probe, Syn { tuple, numbers, clock_ms: clock });
        self.counts.repeated += 1;
    }

    /// Takes in answers.
    fn receive(&mut self, kernel: &mut K, lane: &mut Lane<K::RawSocket>, version: IpVersion) {
        for _ in 0..RECEIVES_PER_TICK {
            if !lane.may_receive {
                return;
            }
            let take = &mut |received: Received<'_>| {
                let answer = self.check_answer(&received);
                self.on_answer(answer);
            };
            match kernel.receive_raw(&mut lane.socket, RawQueue::Packets, take) {
                RawReceiveStep::Received => {}
                RawReceiveStep::WouldBlock => {
                    lane.may_receive = false;
                    let packets = kernel.raw_overflow(&mut lane.socket);
                    self.on_overflow(version, packets);
                }
            }
        }
    }

    /// Takes in ICMP errors.
    fn receive_errors(&mut self, kernel: &mut K, lane: &mut Lane<K::RawSocket>) {
        for _ in 0..RECEIVES_PER_TICK {
            if !lane.may_receive_errors {
                return;
            }
            let take = &mut |received: Received<'_>| {
                let answer = self.check_error(&received);
                self.on_answer(answer);
            };
            match kernel.receive_raw(&mut lane.socket, RawQueue::Errors, take) {
                RawReceiveStep::Received => {}
                RawReceiveStep::WouldBlock => lane.may_receive_errors = false,
            }
        }
    }

    fn check_answer(&self, received: &Received<'_>) -> Result<(FourTuple, u32, Outcome), Reject> {
        let segment = match received.local {
            Some(local) => answer::parse_segment(local, received.remote.ip(), received.bytes)?,
            None => answer::parse_ipv4(received.bytes)?,
        };
        let numbers = self.key.numbers(&segment.tuple);
        segment.check(numbers)?;
        let outcome = match segment.answer {
            Answer::SynAck => Outcome::Connected,
            Answer::Reset => Outcome::Refused,
        };
        Ok((segment.tuple, numbers.sequence, outcome))
    }

    fn check_error(&self, received: &Received<'_>) -> Result<(FourTuple, u32, Outcome), Reject> {
        let error = received.error.ok_or(Reject::Icmp)?;
        // As a connect that meets the same error.
        let outcome = match error.meaning()? {
            Meaning::PortUnreachable => Outcome::Refused,
            Meaning::Unreachable => Outcome::Unreachable,
        };
        let quote = Quote::parse(error, received.bytes)?;
        let numbers = self.key.numbers(&quote.tuple);
        quote.check(numbers)?;
        Ok((quote.tuple, numbers.sequence, outcome))
    }

    fn on_answer(&mut self, answer: Result<(FourTuple, u32, Outcome), Reject>) {
        let over = answer.and_then(|(tuple, sequence, outcome)| {
            self.take(&tuple, sequence).map(|probe| (probe, outcome))
        });
        match over {
            Ok(over) => self.outcomes.push_back(over),
            Err(reason) => self.counts.rejected[reason as usize] += 1,
        }
    }

    /// Answers were lost for want of room. It is unknown which, so that every probe of the version
    /// may have been answered: a shortage of ours, and each is made again.
    fn on_overflow(&mut self, version: IpVersion, packets: u32) {
        if packets == 0 {
            return;
        }
        self.counts.overflowed += u64::from(packets);
        let probes = match version {
            IpVersion::V4 => self.v4.drain(),
            IpVersion::V6 => self.v6.drain(),
        };
        let outcome = Outcome::Shortage(Shortage::ReceiveBuffer);
        self.outcomes.extend(probes.into_iter().map(|probe| (probe, outcome)));
    }
}
