//! The simulated kernel: the result of each system call of the event loop.
//!
//! The calls act on the `world`, in virtual time and with the faults of the seed. A socket is a
//! number, and dropping it does not close it, so a socket that the loop forgets to close is found
//! at the end of the run.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant, SystemTime};

use openports::event::local_drops::{LocalDrops, NeighbourTable};
use openports::event::{
    Outcome, PrintFailure, ProcessFiles, RouteResult, Shortage, Signal, Transport,
};
use openports::kernel::{
    Accepted, EventSource, IoStep, Kernel, NameFileTexts, Past, ProbeStep, RawOptions, RawPacket,
    RawQueue, RawReceiveStep, RawSendStep, Readiness, Received, Token,
};
use openports::limits;
use openports::packet::IpVersion;
use openports::technique::Technique;

use crate::client::{Leave, Stage};
use crate::network::SynTimes;
use crate::rng::Rng;
use crate::world::{Attempt, Edge, Entry, Peer, World, WorldEvent};

/// The number of a socket in `World::table`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Socket(u64);

#[derive(Debug)]
pub(crate) struct RawSocket;

#[derive(Debug)]
pub(crate) struct Listener;

/// This bit is set in the tokens of the connect engine's sockets, which are not keys of the core.
pub(crate) const ENGINE_TOKEN: usize = 1 << 31;

impl Kernel for World {
    type Listener = Listener;
    type RawSocket = RawSocket;
    type Socket = Socket;

    fn now(&self) -> Instant {
        self.now
    }

    /// The wall clock may change every half second: to the epoch, to the last hour that Linux
    /// permits, or to a day ago. Only records and `Date` may depend on it.
    fn wall(&self) -> SystemTime {
        let passed = self.now - self.origin;
        let began = self.wall;
        let began = match Rng::new(passed.as_millis() as u64 / 500).below(4) {
            0 => SystemTime::UNIX_EPOCH,
            1 => SystemTime::UNIX_EPOCH + Duration::from_secs(9_223_368_000),
            2 => began - Duration::from_secs(86_400),
            _ => began,
        };
        began + passed
    }

    /// Sleeps until the timeout or the next event. An error other than `Interrupted` stops the run,
    /// because no event is left or the test pauses it.
    fn poll(&mut self, timeout: Option<Duration>, ready: &mut Vec<Readiness>) -> io::Result<()> {
        assert!(ready.is_empty(), "the loop has not handled the previous events");
        self.is_at_once = timeout == Some(Duration::ZERO);
        if self.is_at_once {
            self.now += self.rng.time(self.faults.lateness);
            self.deliver();
        } else if !self.sleep(timeout.map(|timeout| self.now + self.rounded(timeout))) {
            self.is_over = true;
        }
        if self.is_over || self.is_paused {
            return Err(io::Error::other("the run stops or pauses"));
        }
        if self.rng.chance(self.faults.interrupts) {
            self.seen.interrupted += 1;
            return Err(io::ErrorKind::Interrupted.into());
        }
        if self.is_verbose {
            eprintln!("{:>12?} awake, {} sockets are ready", self.elapsed(), self.unreported.len());
        }
        if std::mem::take(&mut self.signal_edge) {
            ready.extend(self.signal_token.map(|token| readiness(token, READABLE)));
        }
        if std::mem::take(&mut self.listener_edge) && self.is_listening {
            ready.extend(self.listener_token.map(|token| readiness(token, READABLE)));
        }
        if std::mem::take(&mut self.stdout_edge) {
            ready.extend(self.stdout_token.map(|token| readiness(token, WRITABLE)));
        }
        let raw = &mut self.raw;
        if let (Some(token), true) = (raw.token, raw.has_edge()) {
            ready.push(Readiness {
                token,
                is_readable: std::mem::take(&mut raw.is_readable),
                is_writable: std::mem::take(&mut raw.is_writable),
                is_read_closed: false,
                is_error: std::mem::take(&mut raw.is_error),
            });
        }
        self.add_false_events(ready);
        while ready.len() < limits::EVENTS_PER_TICK {
            let Some(socket) = self.unreported.pop_front() else { break };
            let Some(entry) = self.table.get_mut(&socket) else { continue };
            if let (Some(edge), Some(token)) = (entry.edge.take(), entry.token) {
                ready.push(readiness(token, edge));
            }
        }
        self.calls += ready.len();
        Ok(())
    }

    fn register(&mut self, source: EventSource<'_, Self>, token: Token) -> io::Result<()> {
        self.calls += 1;
        let socket = match source {
            EventSource::Socket(Socket(socket)) => *socket,
            EventSource::Listener(Listener) => {
                self.listener_token = Some(token);
                return Ok(());
            }
            EventSource::Raw(RawSocket) => {
                self.raw.token = Some(token);
                return Ok(());
            }
            EventSource::Signals => {
                self.signal_token = Some(token);
                return Ok(());
            }
            EventSource::Stdout if self.faults.stdout_is_file => {
                return Err(io::Error::from_raw_os_error(1));
            }
            EventSource::Stdout => {
                self.stdout_token = Some(token);
                return Ok(());
            }
        };
        if self.faults.left > 0 && self.rng.chance(self.faults.unregistered) {
            self.faults.left -= 1;
            self.seen.unregistered += 1;
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        let level = self.level(socket);
        let entry = self.table.get_mut(&socket).expect("only open sockets are registered");
        assert!(entry.token.is_none(), "the socket is already registered");
        entry.token = Some(token);
        if level != Edge::default() {
            self.edge(socket, level);
        }
        Ok(())
    }

    fn take_signal(&mut self) -> io::Result<Option<Signal>> {
        self.calls += 1;
        if !self.signals.is_empty() && self.rng.chance(self.faults.interrupts) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        Ok(self.signals.pop_front())
    }

    fn notify_manager(&mut self, state: &str) {
        assert!(state.starts_with("STOPPING=1\n"), "{state}");
    }

    fn accept(&mut self, Listener: &Listener) -> Accepted<Socket> {
        self.calls += 1;
        assert!(self.is_listening, "accept on a closed listener");
        let Some(index) = self.backlog.front().copied() else { return Accepted::WouldBlock };
        if let Some(shortage) = self.shortage(self.faults.accepts) {
            self.seen.accepts_failed += 1;
            return Accepted::Shortage(shortage);
        }
        if self.rng.chance(self.faults.interrupts) {
            return Accepted::Gone;
        }
        self.backlog.pop_front();
        if self.clients[index].is_gone && self.rng.chance(50) {
            self.clients[index].stage = Stage::Closed;
            return Accepted::Gone;
        }
        self.was_full |= self.open().0 >= self.shares.connections;
        let client = &mut self.clients[index];
        let inbox = std::mem::take(&mut client.wire);
        let (has_fin, peer) = (client.has_half_closed || client.is_gone, client.peer);
        let socket = self.insert(Peer::Client(index));
        self.clients[index].stage = Stage::Connected(socket);
        let entry = self.table.get_mut(&socket).expect("it was just inserted");
        entry.inbox.extend(inbox);
        entry.has_fin = has_fin;
        self.check_open();
        if self.is_verbose {
            eprintln!("{:>12?} accept: client {index} is socket {socket}", self.elapsed());
        }
        Accepted::Client(Socket(socket), peer)
    }

    fn has_client(&mut self, Listener: &Listener) -> bool {
        let is_waiting = !self.backlog.is_empty();
        // The core may now close a client for the one that waits.
        self.was_full |= is_waiting && self.open().0 >= self.shares.connections;
        is_waiting
    }

    fn close_listener(&mut self, Listener: Listener) {
        self.calls += 1;
        assert!(self.is_listening, "the listener is already closed");
        self.is_listening = false;
        for index in std::mem::take(&mut self.backlog) {
            self.clients[index].stage = Stage::Refused;
        }
    }

    fn connect(&mut self, to: SocketAddr, transport: Transport) -> Result<Socket, Outcome> {
        self.calls += 1;
        if let Some(shortage) = self.shortage(self.faults.shortages) {
            self.seen.shortages += 1;
            return Err(Outcome::Shortage(shortage));
        }
        if !self.names.servers.contains_key(&to) {
            return Err(Outcome::Unreachable);
        }
        let socket = match transport {
            Transport::Udp => self.insert(Peer::Datagrams(to)),
            Transport::Tcp => {
                self.seen.streams_to_servers += 1;
                let socket = self.insert(Peer::Stream(to));
                let after = Duration::from_millis(5);
                self.schedule(after, WorldEvent::Connected(socket));
                socket
            }
        };
        self.check_open();
        Ok(Socket(socket))
    }

    fn connect_outcome(&mut self, Socket(socket): &Socket) -> Option<Outcome> {
        self.calls += 1;
        let entry = &self.table[socket];
        match (entry.is_broken, entry.is_connected) {
            (true, _) => Some(Outcome::Refused),
            (false, true) => Some(Outcome::Connected),
            (false, false) => None,
        }
    }

    fn read(&mut self, Socket(socket): &Socket, buffer: &mut [u8]) -> IoStep {
        self.calls += 1;
        if self.rng.chance(self.faults.interrupts) {
            self.seen.interrupted += 1;
            return IoStep::Retry;
        }
        let step = self.read_from(*socket, buffer);
        if self.is_verbose {
            eprintln!("{:>12?} read of socket {socket}: {step:?}", self.elapsed());
        }
        step
    }

    fn write(&mut self, Socket(socket): &Socket, bytes: &[u8]) -> IoStep {
        self.calls += 1;
        assert!(!bytes.is_empty(), "an empty write");
        if self.rng.chance(self.faults.interrupts) {
            self.seen.interrupted += 1;
            return IoStep::Retry;
        }
        let step = self.write_to(*socket, bytes);
        if self.is_verbose {
            eprintln!("{:>12?} write to socket {socket}: {step:?}", self.elapsed());
        }
        step
    }

    /// The service sends a FIN, and most clients reply with their own.
    fn shutdown_write(&mut self, Socket(socket): &Socket) {
        self.calls += 1;
        let Peer::Client(index) = self.table[socket].peer else { return };
        self.clients[index].has_received_fin = true;
        if self.rng.chance(80) {
            self.schedule(Duration::from_millis(1), WorldEvent::Leave(index, Leave::HalfClose));
        }
    }

    fn close(&mut self, Socket(socket): Socket) {
        self.calls += 1;
        let entry = self.table.remove(&socket).expect("only open sockets are closed");
        *self.sockets.of(entry.peer) -= 1;
        self.sockets.probes -= usize::from(entry.attempt.is_some());
        if self.is_verbose {
            eprintln!("{:>12?} close of socket {socket}", self.elapsed());
        }
        if let Peer::Client(index) = entry.peer {
            self.clients[index].stage = Stage::Closed;
        }
        if let Some(token) = entry.token {
            if self.closed.len() == 64 {
                self.closed.pop_front();
            }
            self.closed.push_back(token);
        }
    }

    fn open_probe(&mut self, _: &SocketAddr, _: Option<IpAddr>) -> Result<Socket, Outcome> {
        self.calls += 1;
        if let Some(shortage) = self.shortage(self.faults.shortages) {
            self.seen.shortages += 1;
            return Err(Outcome::Shortage(shortage));
        }
        let socket = self.insert(Peer::Probe);
        self.check_open();
        Ok(Socket(socket))
    }

    fn start_probe(&mut self, Socket(socket): &Socket, to: &SocketAddr, past: Past) -> ProbeStep {
        self.calls += 1;
        self.connects_len += 1;
        self.now += self.faults.connect_time;
        let is_used = self.table[socket].attempts_len > 0;
        assert_eq!(is_used, past == Past::Used, "the engine is wrong about the past of a socket");
        if is_used && self.faults.refuses_reuse {
            self.seen.reuse_refused += 1;
            return ProbeStep::ReuseRefused;
        }
        // A used socket needs no new descriptor, but it needs a source port and memory.
        if let Some(shortage) = self.shortage_of_call(self.faults.shortages) {
            self.seen.shortages += 1;
            return ProbeStep::Over(Outcome::Shortage(shortage));
        }
        let times = SynTimes { origin: self.origin, start: self.now };
        let host = self.hosts.get_mut(&to.ip()).expect("a connect to a host of the world");
        let is_nowhere = host.route == RouteResult::Nowhere;
        let answer = host.answer(times, to.port(), &mut self.rng);
        let entry = self.table.get_mut(socket).expect("only open sockets are connected");
        assert!(entry.attempt.is_none(), "the socket is already connecting");
        entry.attempts_len += 1;
        if is_nowhere {
            return ProbeStep::Over(Outcome::Unreachable);
        }
        entry.attempt = Some(Attempt { to: *to, answer });
        self.sockets.probes += 1;
        let event = WorldEvent::ProbeAnswer(*socket, entry.attempts_len);
        let connect = entry.attempts_len;
        match answer {
            Some((at, _)) => self.schedule_at(at, event),
            None => self.transmit(*socket, connect, 0),
        }
        self.check_open();
        ProbeStep::Pending
    }

    /// The simulated network answers later.
    fn check_rejected(&mut self, _: &Socket) -> ProbeStep {
        ProbeStep::Pending
    }

    fn clear_error(&mut self, _: &Socket) {}

    fn check_probe(&mut self, Socket(socket): &Socket, to: &SocketAddr) -> ProbeStep {
        self.calls += 1;
        let now = self.now;
        let entry = self.table.get_mut(socket).expect("only open sockets are checked");
        let attempt = entry.attempt.expect("only connecting sockets are checked");
        assert_eq!(attempt.to, *to, "the address differs from that of the connect");
        match attempt.answer.filter(|(at, _)| *at <= now) {
            Some((_, outcome)) => {
                entry.attempt = None;
                self.sockets.probes -= 1;
                entry.is_connected = matches!(outcome, Outcome::Connected | Outcome::SelfConnect);
                ProbeStep::Over(outcome)
            }
            None => ProbeStep::Pending,
        }
    }

    fn give_up_probe(&mut self, Socket(socket): &Socket) -> bool {
        self.calls += 1;
        let entry = self.table.get_mut(socket).expect("only open sockets are given up");
        self.sockets.probes -= usize::from(entry.attempt.take().is_some());
        entry.is_connected = false;
        !self.faults.refuses_reuse
    }

    fn reset(&mut self, socket: Socket) {
        self.close(socket);
    }

    fn secret(&mut self) -> Result<[u64; 2], Shortage> {
        Ok([1, 2])
    }

    fn reserve_port(&mut self, port: u16) -> Result<u16, Shortage> {
        self.calls += 1;
        match port {
            0 => Ok(40_000),
            _ if self.rng.chance(20) => Err(Shortage::SourcePorts),
            _ => Ok(port),
        }
    }

    fn open_raw(&mut self, options: RawOptions) -> Result<RawSocket, Outcome> {
        self.calls += 1;
        assert_eq!(options.version, IpVersion::V4, "the simulation has no raw sockets for IPv6");
        match self.shortage_of_call(self.faults.shortages) {
            Some(shortage) => Err(Outcome::Shortage(shortage)),
            None => Ok(RawSocket),
        }
    }

    fn send_raw(&mut self, _: &RawSocket, packets: &[RawPacket]) -> RawSendStep {
        self.send_syns(packets)
    }

    fn receive_raw(
        &mut self,
        _: &mut RawSocket,
        queue: RawQueue,
        take: &mut dyn FnMut(Received<'_>),
    ) -> RawReceiveStep {
        self.receive_packets(queue, take)
    }

    fn raw_overflow(&mut self, _: &mut RawSocket) -> u32 {
        let is_lost = self.faults.left > 0 && self.rng.chance(self.faults.shortages);
        self.faults.left -= usize::from(is_lost);
        self.raw.overflows += usize::from(is_lost);
        u32::from(is_lost)
    }

    fn route(&mut self, to: SocketAddr) -> RouteResult {
        self.calls += 1;
        let known = self.hosts.get(&to.ip()).expect("a route to a host of the world").route;
        if self.rng.chance(self.faults.routes) { RouteResult::Unknown } else { known }
    }

    fn name_files(&mut self) -> NameFileTexts {
        self.calls += 1;
        let (resolv_conf, hosts) = (self.resolv_conf.clone(), self.hosts_file.clone());
        NameFileTexts { resolv_conf, hosts }
    }

    fn token_file(&mut self) -> Option<Vec<u8>> {
        self.calls += 1;
        let token = self.token.clone().expect("the service has a token");
        match self.rng.below(4) {
            0 => None,
            1 => Some(b"no token, but words".to_vec()),
            _ => Some(format!("{token}\n").into_bytes()),
        }
    }

    fn process_files(&mut self, take: impl FnOnce(ProcessFiles<'_>)) {
        self.calls += 1;
        let (stat, status) = if self.rng.chance(self.faults.routes) {
            ("1 (", "VmRSS: none")
        } else {
            ("1 (openports) S 0 0 0 0 0 0 0 0 0 0 7 3", "VmRSS:\t1188 kB")
        };
        take(ProcessFiles { stat, status, ..ProcessFiles::default() });
    }

    /// In worlds with the fault `routes`, some readings fail and some find a full neighbour table.
    fn local_drops(&mut self) -> Option<LocalDrops> {
        self.calls += 1;
        self.readings += 1;
        let is_well = self.faults.routes == 0;
        let number = if is_well { 1 } else { self.readings };
        let used = [0, 0, 600, 896, 1024][number as usize % 5];
        let table = NeighbourTable { entries_max: 1024, used, refused: u64::from(number / 5) };
        let networks = if used > 512 { vec![([192, 0, 2, 254].into(), 24)] } else { Vec::new() };
        let conntrack = u64::from(number / 7 * 100);
        let drops = LocalDrops {
            tables: [Some(table), Some(table)],
            networks,
            conntrack: Some(conntrack),
            queues: conntrack / 3,
        };
        (!number.is_multiple_of(9)).then_some(drops)
    }

    fn write_stdout(&mut self, bytes: &[u8]) -> IoStep {
        self.calls += 1;
        let printed = self.printed.as_mut().expect("only batches write to stdout");
        if let Some((most, failure)) = printed.fails_after
            && printed.text.len() >= most
        {
            return match failure {
                PrintFailure::ReaderGone => IoStep::Eof,
                PrintFailure::Broken => IoStep::Broken,
            };
        }
        if !self.is_stdout_full && self.rng.chance(self.faults.stdout_blocks) {
            self.is_stdout_full = true;
            self.seen.stdout_full += 1;
            self.schedule(Duration::from_millis(30), WorldEvent::StdoutWritable);
        }
        if self.is_stdout_full {
            return IoStep::WouldBlock;
        }
        let count = 1 + self.rng.below(bytes.len());
        if let Some(printed) = &mut self.printed {
            printed.text.extend_from_slice(&bytes[..count]);
        }
        IoStep::Done(count)
    }

    fn write_log(&mut self, bytes: &[u8]) -> IoStep {
        self.calls += 1;
        let is_progress = bytes.contains(&b'\r');
        assert!(!is_progress || self.printed.is_some(), "only batches show progress");
        let is_stalled = self.now < self.origin + self.faults.log_stall;
        if is_stalled || self.rng.chance(self.faults.log_blocks) {
            self.seen.log_blocked += 1;
            return IoStep::WouldBlock;
        }
        IoStep::Done(1 + self.rng.below(bytes.len()))
    }
}

const READABLE: Edge = Edge { readable: true, writable: false, read_closed: false, error: false };
const WRITABLE: Edge = Edge { readable: false, writable: true, read_closed: false, error: false };

const fn readiness(token: Token, edge: Edge) -> Readiness {
    Readiness {
        token,
        is_readable: edge.readable,
        is_writable: edge.writable,
        is_read_closed: edge.read_closed,
        is_error: edge.error,
    }
}

impl World {
    fn rounded(&self, timeout: Duration) -> Duration {
        match self.faults.whole_millis {
            true => Duration::from_millis(timeout.as_nanos().div_ceil(1_000_000) as u64),
            false => timeout,
        }
    }

    /// Waits for the deadline or an edge. Returns false if there is no deadline and no event left.
    fn sleep(&mut self, deadline: Option<Instant>) -> bool {
        loop {
            let has_edges = !self.unreported.is_empty()
                || self.listener_edge && self.is_listening
                || self.signal_edge
                || self.stdout_edge && self.stdout_token.is_some()
                || self.raw.has_edge();
            if has_edges || self.is_paused {
                return true;
            }
            let next = self.next_event();
            let Some(until) = deadline.into_iter().chain(next).min() else { return false };
            self.now = self.now.max(until);
            self.deliver();
            if deadline.is_some_and(|deadline| deadline <= self.now) {
                self.now += self.rng.time(self.faults.lateness);
                self.deliver();
                return true;
            }
        }
    }

    /// Adds events that a poller may report wrongly: of a closed socket, whose token may belong to
    /// another socket now, or of a socket that is not ready.
    fn add_false_events(&mut self, ready: &mut Vec<Readiness>) {
        let everything = Edge { readable: true, writable: true, read_closed: true, error: true };
        if self.rng.chance(self.faults.stale_events) && !self.closed.is_empty() {
            let token = self.closed[self.rng.below(self.closed.len())];
            let edge = if token.0 & ENGINE_TOKEN == 0 { everything } else { WRITABLE };
            ready.push(readiness(token, edge));
            self.seen.stale_events += 1;
        }
        if self.rng.chance(self.faults.spurious_events) && !self.table.is_empty() {
            let place = self.rng.below(self.table.len());
            let entry = self.table.values().nth(place).expect("a place in the table");
            // The poller may report an error before the error can be read.
            let error = matches!(entry.peer, Peer::Probe | Peer::Stream(_)) && !entry.is_connected;
            let edge = Edge { readable: true, writable: true, error, ..Edge::default() };
            ready.extend(entry.token.map(|token| readiness(token, edge)));
        }
    }

    /// Returns the shortage with which this call fails, if it fails.
    fn shortage(&mut self, percent: usize) -> Option<Shortage> {
        if self.faults.descriptors.is_some_and(|most| self.table.len() >= most) {
            return Some(Shortage::ProcessDescriptors);
        }
        self.shortage_of_call(percent)
    }

    /// Like [`World::shortage`], for a call that needs no new descriptor.
    pub(crate) fn shortage_of_call(&mut self, percent: usize) -> Option<Shortage> {
        if self.faults.left == 0 || !self.rng.chance(percent) {
            return None;
        }
        self.faults.left -= 1;
        Some(self.faults.shortage.unwrap_or_else(|| self.rng.pick(&Shortage::ALL)))
    }

    fn insert(&mut self, peer: Peer) -> u64 {
        self.sockets_len += 1;
        let socket = self.sockets_len;
        self.table.insert(socket, Entry::new(peer));
        *self.sockets.of(peer) += 1;
        socket
    }

    /// Returns the readiness that the poller finds when a socket is registered.
    fn level(&self, socket: u64) -> Edge {
        let entry = &self.table[&socket];
        match entry.peer {
            Peer::Client(index) => Edge {
                readable: !entry.inbox.is_empty() || entry.has_fin || entry.is_broken,
                writable: entry.is_broken || self.clients[index].window > 0,
                read_closed: entry.has_fin || entry.is_broken,
                error: entry.is_broken,
            },
            Peer::Datagrams(_) => Edge { readable: !entry.datagrams.is_empty(), ..WRITABLE },
            Peer::Stream(_) if entry.is_connected => WRITABLE,
            Peer::Stream(_) => Edge::default(),
            Peer::Probe => entry.answer(self.now).map(Edge::of_outcome).unwrap_or_default(),
        }
    }

    fn check_open(&self) {
        let (clients, probes, lookups) = self.open();
        let spare = limits::DESCRIPTORS_SPARE / 2;
        assert!(clients <= self.shares.connections + spare, "{clients} clients");
        let probes_max = self.shares.probes[Technique::Connect];
        assert!(probes <= probes_max, "{probes} probes");
        assert!(lookups <= self.shares.lookups, "{lookups} sockets of lookups");
        let engine = self.sockets.engine;
        assert!(engine <= probes_max, "{engine} sockets of the connect engine");
    }
}
