//! The SYN engine: a probe is a SYN that is sent through a raw socket.
//!
//! There is one raw socket for each IP version; a probe needs no descriptor of its own. SYNs are
//! collected in a batch while actions are performed, and are sent in one call after the last
//! action. An answer belongs to a probe only if it acknowledges the keyed hash of its four-tuple.
//! Unanswered SYNs are repeated at the times at which Linux would repeat them, so that a scan is
//! independent of the engine. A raw socket is opened for the first SYN of its IP version, and stays
//! open. The engine does not decide which ports are probed. `engines` drives it.
//!
//! Invariants: no two probes in flight have the same four-tuple; a batch has at most `RAW_BATCH`
//! packets; each probe has at most one outcome, and a probe that was given up has none.

mod channel;
mod in_flight;
mod routes;
mod source_ports;

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::time::{Duration, Instant};

use self::channel::Channel;
use self::in_flight::{Address6, InFlight, Remote};
use self::routes::RouteCache;
use self::source_ports::{SourcePort, SourcePorts};
use super::probe::{ProbeOutcome, ProbeRequest};
use crate::event::{Outcome, RouteResult, Shortage, SynCounts};
use crate::kernel::{
    EventSource, Kernel, RawOptions, RawQueue, RawReceiveStep, Readiness, Received, Token,
};
use crate::limits::Sources;
use crate::packet::answer::{self, Answer};
use crate::packet::quote::{Meaning, Quote};
use crate::packet::sequence::SequenceKey;
use crate::packet::syn::Syn;
use crate::packet::{FourTuple, IpVersion, Reject};
use crate::slots::Key;
use crate::technique::Technique;

/// The token of the raw socket for IPv4; the next one is that for IPv6. Both are in the range of
/// the connect engine's tokens, above its last possible slot.
const TOKEN: usize = 0xffff_fff0;
/// The maximum number of calls per tick that receive segments from one raw socket, and the same for
/// ICMP errors. They receive up to 1024 packets, four times as many as SYNs are launched in a tick.
const RECEIVES_PER_TICK: usize = 4;
/// The maximum number of SYNs repeated in one tick: twice the number of SYNs launched, so that the
/// repeats that a busy loop has delayed are soon all sent.
const REPEATS_PER_TICK: usize = 2 * Technique::Syn.properties().launches_per_tick;

/// A SYN that is to be repeated now.
struct DueRepeat {
    probe: Key,
    to: SocketAddr,
    /// The offset of its source port in the block of source ports.
    offset: u8,
}

/// An answer to a SYN: a segment or an ICMP error that contains the numbers of the SYN.
struct AnswerToSyn {
    tuple: FourTuple,
    /// The sequence number of the SYN.
    sequence: u32,
    outcome: Outcome,
}

fn remote4(to: SocketAddrV4, offset: u8) -> Remote<Ipv4Addr> {
    Remote { address: *to.ip(), port: to.port(), offset }
}

fn remote6(to: SocketAddrV6, offset: u8) -> Remote<Address6> {
    let address = Address6 { address: *to.ip(), scope: to.scope_id() };
    Remote { address, port: to.port(), offset }
}

/// See the module's documentation.
pub(super) struct SynEngine<K: Kernel> {
    /// All zeros until the first raw socket is opened, then random.
    key: SequenceKey,
    started_at: Instant,
    /// The last time and its milliseconds: hundreds of SYNs of one tick have the same time.
    clock: (Instant, u64),
    sources: Sources,
    /// The index is the IP version.
    channels: [Option<Channel<K::RawSocket>>; 2],
    ports: SourcePorts,
    v4: InFlight<Ipv4Addr>,
    v6: InFlight<Address6>,
    routes: RouteCache,
    outcomes: VecDeque<ProbeOutcome>,
    counts: SynCounts,
}

impl<K: Kernel> SynEngine<K> {
    pub(super) fn new(sources: Sources, now: Instant) -> Self {
        Self {
            key: SequenceKey::new([0; 2]),
            started_at: now,
            clock: (now, 0),
            sources,
            channels: [None, None],
            ports: SourcePorts::default(),
            v4: InFlight::new(),
            v6: InFlight::new(),
            routes: RouteCache::default(),
            outcomes: VecDeque::new(),
            counts: SynCounts::default(),
        }
    }

    /// Whether a token belongs to a raw socket of the engine.
    pub(super) const fn owns(token: Token) -> bool {
        token.0 >= TOKEN && token.0 - TOKEN < IpVersion::ALL.len()
    }

    /// Starts a probe, or returns its outcome if it is already known.
    pub(super) fn start(
        &mut self,
        kernel: &mut K,
        now: Instant,
        request: ProbeRequest,
    ) -> Result<(), Outcome> {
        let ProbeRequest { probe, to, .. } = request;
        let version = IpVersion::of(&to);
        self.open(kernel, version)?;
        if !self.make_space(kernel, version) {
            return Err(Outcome::Shortage(Shortage::Buffers));
        }
        let clock = self.clock_ms(now);
        let source = self.source(kernel, to, clock)?;
        let (key, v4, v6) = (&self.key, &self.v4, &self.v6);
        let syn_from = |port: SourcePort| {
            let tuple = FourTuple { local: SocketAddr::new(source, port.number), remote: to };
            let syn = Syn { tuple, numbers: key.numbers(&tuple), clock_ms: clock };
            let sequence = syn.numbers.sequence;
            let is_in_flight = match to {
                SocketAddr::V4(to) => v4.contains(&remote4(to, port.offset), sequence),
                SocketAddr::V6(to) => v6.contains(&remote6(to, port.offset), sequence),
            };
            (!is_in_flight).then_some((syn, port.offset))
        };
        let (syn, offset) = self.ports.choose(kernel, syn_from).map_err(Outcome::Shortage)?;
        let sequence = syn.numbers.sequence;
        match to {
            SocketAddr::V4(to) => self.v4.insert(probe, remote4(to, offset), sequence, clock),
            SocketAddr::V6(to) => self.v6.insert(probe, remote6(to, offset), sequence, clock),
        }
        self.push(probe, syn);
        Ok(())
    }

    /// Gives up a probe, so that its outcome is not reported. Returns false if it is not in flight.
    pub(super) fn forget(&mut self, probe: Key) -> bool {
        self.v4.remove(probe) || self.v6.remove(probe)
    }

    /// Sends the collected SYNs. The probe of a SYN that cannot be sent gets an outcome.
    pub(super) fn flush(&mut self, kernel: &mut K) {
        IpVersion::ALL.into_iter().for_each(|version| self.flush_channel(kernel, version));
    }

    /// Stores the readiness of a raw socket that the poller has reported.
    pub(super) fn handle_readiness(&mut self, ready: &Readiness) {
        let Some(Some(channel)) = self.channels.get_mut(ready.token.0 - TOKEN) else { return };
        channel.handle_readiness(ready);
    }

    /// Receives segments and ICMP errors, gives up SYNs that cannot be sent, then adds the repeats
    /// that are due to the batches.
    pub(super) fn receive(&mut self, kernel: &mut K, now: Instant) {
        for version in IpVersion::ALL {
            if let Some(mut channel) = self.channels[version as usize].take() {
                self.receive_segments(kernel, &mut channel, version);
                self.receive_errors(kernel, &mut channel);
                self.channels[version as usize] = Some(channel);
            }
        }
        let clock = self.clock_ms(now);
        self.give_up_blocked(clock);
        self.repeat_due(kernel, clock);
    }

    /// The next outcome that was not reported yet.
    pub(super) fn poll_outcome(&mut self) -> Option<ProbeOutcome> {
        self.outcomes.pop_front()
    }

    /// Whether there is work that does not need a new event of the poller.
    pub(super) fn has_work(&self) -> bool {
        !self.outcomes.is_empty() || self.channels.iter().flatten().any(Channel::has_work)
    }

    /// The time at which the next SYN is to be repeated, or is given up because it cannot be sent.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let (_, elapsed) = self.clock;
        let [v4, v6] = [self.v4.repeat_wait(elapsed as u32), self.v6.repeat_wait(elapsed as u32)];
        let channels = self.channels.iter().flatten();
        let blocked = channels.filter_map(|it| it.blocked_wait(elapsed as u32));
        let wait = blocked.chain(v4).chain(v6).min()?;
        Some(self.started_at + Duration::from_millis(elapsed + u64::from(wait)))
    }

    /// The packets counted since the last call; `None` if there were none.
    pub(super) fn take_counts(&mut self) -> Option<SynCounts> {
        let counts = std::mem::take(&mut self.counts);
        (counts != SynCounts::default()).then_some(counts)
    }

    fn channel_mut(&mut self, version: IpVersion) -> &mut Channel<K::RawSocket> {
        match &mut self.channels[version as usize] {
            Some(channel) => channel,
            None => unreachable!("a raw socket is opened for the first SYN, and stays open"),
        }
    }

    /// The number of milliseconds since the engine was created. It wraps after 49 days.
    fn clock_ms(&mut self, now: Instant) -> u32 {
        if now != self.clock.0 {
            self.clock = (now, now.saturating_duration_since(self.started_at).as_millis() as u64);
        }
        self.clock.1 as u32
    }

    /// Opens the raw socket of an IP version, unless it is open. The first call also creates a key.
    fn open(&mut self, kernel: &mut K, version: IpVersion) -> Result<(), Outcome> {
        if self.channels[version as usize].is_some() {
            return Ok(());
        }
        if self.channels.iter().all(Option::is_none) {
            self.key = SequenceKey::new(kernel.secret().map_err(Outcome::Shortage)?);
        }
        let block = self.ports.reserve_first(kernel).map_err(Outcome::Shortage)?;
        let source = match version {
            IpVersion::V4 => self.sources.v4,
            IpVersion::V6 => self.sources.v6,
        };
        let socket = kernel.open_raw(RawOptions { version, block, source })?;
        let token = Token(TOKEN + version as usize);
        let registered = kernel.register(EventSource::Raw(&socket), token);
        registered.map_err(|_| Outcome::Shortage(Shortage::Memory))?;
        self.channels[version as usize] = Some(Channel::new(socket));
        Ok(())
    }

    /// The source address for a SYN to `to`: as configured, or as the routing table selects it.
    fn source(&mut self, kernel: &mut K, to: SocketAddr, clock: u32) -> Result<IpAddr, Outcome> {
        let fixed = if to.is_ipv4() { self.sources.v4 } else { self.sources.v6 };
        if let Some(source) = fixed.or_else(|| self.routes.source(to, clock)) {
            return Ok(source);
        }
        match kernel.route(to) {
            RouteResult::From(source) => {
                self.routes.insert(to, source, clock);
                Ok(source)
            }
            RouteResult::Nowhere => Err(Outcome::Unreachable),
            RouteResult::Unknown => Err(Outcome::Shortage(Shortage::TryAgain)),
        }
    }

    /// Removes and returns the probe whose SYN had this four-tuple and this sequence number.
    fn take(&mut self, tuple: &FourTuple, sequence: u32) -> Result<Key, Reject> {
        let offset = self.ports.offset(tuple.local.port()).ok_or(Reject::NoProbe)?;
        let probe = match tuple.remote {
            SocketAddr::V4(to) => self.v4.take(&remote4(to, offset), sequence),
            SocketAddr::V6(to) => self.v6.take(&remote6(to, offset), sequence),
        };
        probe.ok_or(Reject::NoProbe)
    }

    /// Sends the batch of one IP version if it is full. Returns whether it has space for a SYN.
    fn make_space(&mut self, kernel: &mut K, version: IpVersion) -> bool {
        if self.channel_mut(version).is_full() {
            self.flush_channel(kernel, version);
        }
        !self.channel_mut(version).is_full()
    }

    /// Adds a SYN to the batch of its IP version, which must not be full.
    fn push(&mut self, probe: Key, syn: Syn) {
        self.channel_mut(IpVersion::of(&syn.tuple.remote)).push(probe, syn);
    }

    /// Sends the batch of one IP version, as far as the send buffer has space.
    fn flush_channel(&mut self, kernel: &mut K, version: IpVersion) {
        let Some(channel) = &mut self.channels[version as usize] else { return };
        let mut failed = channel.send(kernel, &mut self.counts, self.clock.1 as u32);
        failed.retain(|it| self.v4.remove(it.probe) || self.v6.remove(it.probe));
        self.outcomes.extend(failed);
    }

    /// Ends the probes of SYNs that have waited for [`BLOCKED_MAX`] with a shortage, so that their
    /// silence is not taken for that of a port.
    fn give_up_blocked(&mut self, clock: u32) {
        for channel in self.channels.iter_mut().flatten() {
            if channel.blocked_wait(clock) == Some(0) {
                let outcome = Outcome::Shortage(Shortage::Buffers);
                let probes = channel.give_up();
                let ended = probes.filter(|it| self.v4.remove(*it) || self.v6.remove(*it));
                self.outcomes.extend(ended.map(|probe| ProbeOutcome { probe, outcome }));
            }
        }
    }

    /// Adds the SYNs that are due to be repeated to the batches.
    fn repeat_due(&mut self, kernel: &mut K, clock: u32) {
        for _ in 0..REPEATS_PER_TICK {
            let (probe, to, offset) = if let Some(repeat) = self.v4.poll_repeat(clock) {
                let Remote { address, port, offset } = repeat.remote;
                (repeat.probe, SocketAddr::from((address, port)), offset)
            } else if let Some(repeat) = self.v6.poll_repeat(clock) {
                let Remote { address: Address6 { address, scope }, port, offset } = repeat.remote;
                (repeat.probe, SocketAddrV6::new(address, port, 0, scope).into(), offset)
            } else {
                return;
            };
            self.repeat_one(kernel, DueRepeat { probe, to, offset }, clock);
        }
    }

    fn repeat_one(&mut self, kernel: &mut K, repeat: DueRepeat, clock: u32) {
        let DueRepeat { probe, to, offset } = repeat;
        let port = self.ports.number(offset);
        let version = IpVersion::of(&to);
        if !self.make_space(kernel, version) {
            // The send buffer is full, so this repeat is left out. The earlier SYN of the probe was
            // sent, or still waits in the batch.
            return;
        }
        // The route may have changed. Without a route, an earlier SYN may still be answered.
        let Ok(source) = self.source(kernel, to, clock) else { return };
        let local = SocketAddr::new(source, port);
        let tuple = FourTuple { local, remote: to };
        let numbers = self.key.numbers(&tuple);
        let is_in_flight = match version {
            IpVersion::V4 => self.v4.change_sequence(probe, numbers.sequence),
            IpVersion::V6 => self.v6.change_sequence(probe, numbers.sequence),
        };
        assert!(is_in_flight, "only a probe in flight is repeated");
        self.push(probe, Syn { tuple, numbers, clock_ms: clock });
        self.counts.repeated += 1;
    }

    /// Receives the segments that wait in the socket, in at most `RECEIVES_PER_TICK` calls.
    fn receive_segments(
        &mut self,
        kernel: &mut K,
        channel: &mut Channel<K::RawSocket>,
        version: IpVersion,
    ) {
        for _ in 0..RECEIVES_PER_TICK {
            if !channel.may_receive {
                return;
            }
            let take = &mut |received: Received<'_>| {
                let answer = self.check_answer(&received);
                self.on_answer(answer);
            };
            match kernel.receive_raw(&mut channel.socket, RawQueue::Packets, take) {
                RawReceiveStep::Received => {}
                RawReceiveStep::WouldBlock => {
                    channel.may_receive = false;
                    let packets = kernel.raw_overflow(&mut channel.socket);
                    self.on_overflow(version, packets);
                }
            }
        }
    }

    /// Receives the ICMP errors that wait in the error queue, in at most `RECEIVES_PER_TICK` calls.
    fn receive_errors(&mut self, kernel: &mut K, channel: &mut Channel<K::RawSocket>) {
        for _ in 0..RECEIVES_PER_TICK {
            if !channel.may_receive_errors {
                return;
            }
            let take = &mut |received: Received<'_>| {
                let answer = self.check_error(&received);
                self.on_answer(answer);
            };
            match kernel.receive_raw(&mut channel.socket, RawQueue::Errors, take) {
                RawReceiveStep::Received => {}
                RawReceiveStep::WouldBlock => channel.may_receive_errors = false,
            }
        }
    }

    fn check_answer(&self, received: &Received<'_>) -> Result<AnswerToSyn, Reject> {
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
        Ok(AnswerToSyn { tuple: segment.tuple, sequence: numbers.sequence, outcome })
    }

    fn check_error(&self, received: &Received<'_>) -> Result<AnswerToSyn, Reject> {
        let error = received.error.ok_or(Reject::Icmp)?;
        // The outcome is the same as that of a connect which the same ICMP error ends.
        let outcome = match error.meaning()? {
            Meaning::PortUnreachable => Outcome::Refused,
            Meaning::Unreachable => Outcome::Unreachable,
        };
        let quote = Quote::parse(error, received.bytes)?;
        let numbers = self.key.numbers(&quote.tuple);
        quote.check(numbers)?;
        Ok(AnswerToSyn { tuple: quote.tuple, sequence: numbers.sequence, outcome })
    }

    /// Ends the probe of an answer, or counts the reason why the packet is not an answer.
    fn on_answer(&mut self, answer: Result<AnswerToSyn, Reject>) {
        let ended = answer.and_then(|AnswerToSyn { tuple, sequence, outcome }| {
            let probe = self.take(&tuple, sequence)?;
            Ok(ProbeOutcome { probe, outcome })
        });
        match ended {
            Ok(ended) => self.outcomes.push_back(ended),
            Err(reason) => self.counts.rejected[reason as usize] += 1,
        }
    }

    /// The receive buffer had no space for this number of segments. It is unknown to which probes
    /// they belong, so every probe of the IP version ends with a shortage, and its scan repeats it.
    fn on_overflow(&mut self, version: IpVersion, packets: u32) {
        if packets == 0 {
            return;
        }
        self.counts.overflowed += u64::from(packets);
        let probes = match version {
            IpVersion::V4 => self.v4.take_all(),
            IpVersion::V6 => self.v6.take_all(),
        };
        let outcome = Outcome::Shortage(Shortage::ReceiveBuffer);
        self.outcomes.extend(probes.into_iter().map(|probe| ProbeOutcome { probe, outcome }));
    }
}

#[cfg(test)]
mod tests;
