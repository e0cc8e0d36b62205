//! The simulated world: virtual time, sockets and their peers.
//!
//! It decides when bytes arrive, how many bytes a read or write transfers, and which edges the
//! poller reports. The system calls are in `kernel`. The world does not know the event loop.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant, SystemTime};

use openports::budget::Shares;
use openports::core::options::Options;
use openports::event::{Outcome, Shortage, Signal};
use openports::kernel::{IoStep, Token};
use openports::limits::Settings;
use openports::slots::Key;

use crate::batch::Printed;
use crate::client::{Client, Leave, Order, Reads, Stage};
use crate::names::{Behaviour, Names};
use crate::network::Host;
use crate::raw::{Raw, RawArrival};
use crate::rng::Rng;

/// The faults of our own machine. A plain number is a percentage of calls.
#[derive(Clone, Debug, Default)]
pub(crate) struct Faults {
    /// Calls that fail with a shortage: with `shortage`, or with a random one.
    pub(crate) shortages: usize,
    pub(crate) shortage: Option<Shortage>,
    /// The number of shortages and of failed accepts and registrations that are left.
    pub(crate) left: usize,
    pub(crate) accepts: usize,
    pub(crate) routes: usize,
    pub(crate) stale_events: usize,
    pub(crate) spurious_events: usize,
    pub(crate) short_writes: usize,
    /// Writes to stderr that would block, and the time at the start in which all of them do.
    pub(crate) log_blocks: usize,
    pub(crate) log_stall: Duration,
    /// Writes to stdout after which it is full, and whether it is a file, which cannot be polled.
    pub(crate) stdout_blocks: usize,
    pub(crate) stdout_is_file: bool,
    /// Calls that a signal interrupts (EINTR).
    pub(crate) interrupts: usize,
    /// Registrations that fail with ENOMEM.
    pub(crate) unregistered: usize,
    /// The kernel refuses to connect a socket twice.
    pub(crate) refuses_reuse: bool,
    /// The maximum number of open sockets, independent of the shares.
    pub(crate) descriptors: Option<usize>,
    /// The poller rounds timeouts up to whole milliseconds, like mio.
    pub(crate) whole_millis: bool,
    /// The time of the call that starts a connect.
    pub(crate) connect_time: Duration,
    /// The time to send one SYN through a raw socket.
    pub(crate) syn_time: Duration,
    /// SYNs that a firewall of this machine drops.
    pub(crate) syns_denied: usize,
    /// The maximum delay with which a poll returns.
    pub(crate) lateness: Duration,
}

/// An event that happens at its time, independent of the service. A `usize` at the front is the
/// index of a client, and a `u64` the number of a socket.
#[derive(Clone, Debug)]
pub(crate) enum WorldEvent {
    Arrive(usize),
    Send(usize, Vec<u8>),
    Leave(usize, Leave),
    Read(usize),
    /// The answer to a probe arrives. The `usize` is the number of the socket's connect.
    ProbeAnswer(u64, usize),
    /// The kernel repeats the SYN of a connect. The `u32` is the number of SYNs sent before.
    SynRepeat(u64, usize, u32),
    /// An answer to a SYN of a connect arrives.
    SynAnswer(u64, usize, Outcome),
    /// A stream to a name server is connected.
    Connected(u64),
    Receive(u64, Vec<u8>),
    Break(u64),
    /// A packet or an error arrives at the raw socket.
    RawArrival(RawArrival),
    RawWritable,
    StdoutWritable,
    Signal(Signal),
    /// The run pauses for the test.
    Pause,
}

/// The readiness of a socket that the poller reports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Edge {
    pub(crate) readable: bool,
    pub(crate) writable: bool,
    pub(crate) read_closed: bool,
    pub(crate) error: bool,
}

impl Edge {
    /// Returns the edge that reports the outcome of a connect.
    pub(crate) fn of_outcome(outcome: Outcome) -> Self {
        let error = !matches!(outcome, Outcome::Connected | Outcome::SelfConnect);
        Self { writable: true, error, ..Self::default() }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    Client(usize),
    /// The current target of a socket of the connect engine.
    Probe,
    /// A name server over UDP.
    Datagrams(SocketAddr),
    /// A name server over TCP.
    Stream(SocketAddr),
}

/// A connect of a probe in progress, with the time and the outcome of its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Attempt {
    pub(crate) to: SocketAddr,
    pub(crate) answer: Option<(Instant, Outcome)>,
}

#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) peer: Peer,
    /// The token of the socket once it is registered with the poller.
    pub(crate) token: Option<Token>,
    pub(crate) attempt: Option<Attempt>,
    pub(crate) attempts_len: usize,
    pub(crate) inbox: VecDeque<u8>,
    pub(crate) datagrams: VecDeque<Vec<u8>>,
    pub(crate) outbox: Vec<u8>,
    pub(crate) has_fin: bool,
    pub(crate) is_broken: bool,
    pub(crate) is_blocked: bool,
    pub(crate) is_connected: bool,
    /// The edge that the poller has not reported yet.
    pub(crate) edge: Option<Edge>,
}

impl Entry {
    pub(crate) fn new(peer: Peer) -> Self {
        Self {
            peer,
            token: None,
            attempt: None,
            attempts_len: 0,
            inbox: VecDeque::new(),
            datagrams: VecDeque::new(),
            outbox: Vec::new(),
            has_fin: false,
            is_broken: false,
            is_blocked: false,
            is_connected: matches!(peer, Peer::Client(_) | Peer::Datagrams(_)),
            edge: None,
        }
    }

    pub(crate) fn answer(&self, now: Instant) -> Option<Outcome> {
        let (at, outcome) = self.attempt?.answer?;
        (at <= now).then_some(outcome)
    }
}

/// The number of faults that happened, for the coverage.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) shortages: usize,
    pub(crate) accepts_failed: usize,
    pub(crate) streams_to_servers: usize,
    pub(crate) interrupted: usize,
    pub(crate) unregistered: usize,
    pub(crate) reuse_refused: usize,
    pub(crate) stale_events: usize,
    pub(crate) stdout_full: usize,
    pub(crate) log_blocked: usize,
}

/// The number of open sockets. It is updated when a socket is opened or closed, because counting
/// all of them after each call would take most of the time of a run.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SocketCounts {
    pub(crate) clients: usize,
    pub(crate) lookups: usize,
    /// Sockets of the connect engine, including idle ones.
    pub(crate) engine: usize,
    /// Connects of probes in progress.
    pub(crate) probes: usize,
}

impl SocketCounts {
    /// Returns the counter of sockets with this kind of peer.
    pub(crate) const fn of(&mut self, peer: Peer) -> &mut usize {
        match peer {
            Peer::Client(_) => &mut self.clients,
            Peer::Probe => &mut self.engine,
            Peer::Datagrams(_) | Peer::Stream(_) => &mut self.lookups,
        }
    }
}

pub(crate) struct World {
    pub(crate) origin: Instant,
    pub(crate) now: Instant,
    pub(crate) wall: SystemTime,
    pub(crate) rng: Rng,
    pub(crate) shares: Shares,
    pub(crate) settings: Settings,
    pub(crate) hosts: BTreeMap<IpAddr, Host>,
    pub(crate) names: Names,
    pub(crate) resolv_conf: Option<Vec<u8>>,
    pub(crate) hosts_file: Option<Vec<u8>>,
    pub(crate) faults: Faults,
    /// The service checks the Host field of requests for scans.
    pub(crate) is_guarded: bool,
    /// The token in the token file, with which the service also started.
    pub(crate) token: Option<String>,
    pub(crate) denied: Option<IpAddr>,
    pub(crate) clients: Vec<Client>,
    pub(crate) is_verbose: bool,
    /// Open sockets by number. Numbers are never used again.
    pub(crate) table: BTreeMap<u64, Entry>,
    pub(crate) sockets_len: u64,
    pub(crate) sockets: SocketCounts,
    /// Sockets with an edge that the poller has not reported yet, in the order of their edges.
    pub(crate) unreported: VecDeque<u64>,
    /// The tokens of the last 64 closed sockets.
    pub(crate) closed: VecDeque<Token>,
    pub(crate) listener_edge: bool,
    pub(crate) listener_token: Option<Token>,
    pub(crate) signal_edge: bool,
    pub(crate) signal_token: Option<Token>,
    pub(crate) raw: Raw,
    pub(crate) stdout_edge: bool,
    pub(crate) stdout_token: Option<Token>,
    pub(crate) is_stdout_full: bool,
    /// The number of calls by the loop and of events that it received.
    pub(crate) calls: usize,
    pub(crate) connects_len: usize,
    /// The number of readings of the local drop counters.
    pub(crate) readings: u32,
    /// The timeout of the last poll was zero.
    pub(crate) is_at_once: bool,
    /// The loop has no deadline and the world has no event.
    pub(crate) is_over: bool,
    /// A connection was accepted at the maximum number, so another may be evicted.
    pub(crate) was_full: bool,
    pub(crate) backlog: VecDeque<usize>,
    pub(crate) is_listening: bool,
    pub(crate) signals: VecDeque<Signal>,
    pub(crate) signalled_at: Option<Instant>,
    pub(crate) signals_len: usize,
    pub(crate) is_paused: bool,
    pub(crate) seen: Seen,
    /// The output of a batch; `None` for a service.
    pub(crate) printed: Option<Printed>,
    events: BTreeMap<(Instant, u64), WorldEvent>,
    events_len: u64,
}

impl World {
    pub(crate) fn new(seed: u64, options: &Options) -> Self {
        let origin = Instant::now();
        let wall = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_442_477);
        let (shares, settings) = (options.shares, options.settings.clone());
        Self {
            origin,
            now: origin,
            wall,
            rng: Rng::new(seed),
            shares,
            settings,
            hosts: BTreeMap::new(),
            names: Names::default(),
            resolv_conf: Some(Vec::new()),
            hosts_file: Some(Vec::new()),
            faults: Faults::default(),
            is_guarded: false,
            token: None,
            denied: None,
            clients: Vec::new(),
            is_verbose: false,
            table: BTreeMap::new(),
            sockets_len: 0,
            sockets: SocketCounts::default(),
            unreported: VecDeque::new(),
            closed: VecDeque::new(),
            listener_edge: false,
            listener_token: None,
            signal_edge: false,
            signal_token: None,
            raw: Raw::default(),
            stdout_edge: false,
            stdout_token: None,
            is_stdout_full: false,
            calls: 0,
            connects_len: 0,
            readings: 0,
            is_at_once: false,
            is_over: false,
            was_full: false,
            backlog: VecDeque::new(),
            is_listening: true,
            signals: VecDeque::new(),
            signalled_at: None,
            signals_len: 0,
            is_paused: false,
            seen: Seen::default(),
            printed: None,
            events: BTreeMap::new(),
            events_len: 0,
        }
    }

    /// Returns whether no fault can hide an address of a name or the route to it. If one address
    /// family is late, a scan uses only the other.
    pub(crate) fn is_sure_of_names(&self) -> bool {
        let faults = &self.faults;
        let can_ask = faults.shortages == 0 && faults.routes == 0 && faults.descriptors.is_none();
        can_ask
            && self.resolv_conf.is_some()
            && self.names.servers.values().all(|it| it.is_honest())
    }

    /// Schedules an event for the time `after` from now.
    pub(crate) fn schedule(&mut self, after: Duration, event: WorldEvent) {
        self.schedule_at(self.now + after, event);
    }

    pub(crate) fn schedule_at(&mut self, at: Instant, event: WorldEvent) {
        self.events_len += 1;
        self.events.insert((at, self.events_len), event);
    }

    /// Adds a client that arrives `after` from now, and returns its index.
    pub(crate) fn add_client(&mut self, after: Duration, client: Client) -> usize {
        self.clients.push(client);
        let index = self.clients.len() - 1;
        self.schedule(after, WorldEvent::Arrive(index));
        index
    }

    pub(crate) fn next_event(&self) -> Option<Instant> {
        self.events.first_key_value().map(|((at, _), _)| *at)
    }

    pub(crate) fn deliver(&mut self) {
        while let Some(entry) = self.events.first_entry() {
            if entry.key().0 > self.now {
                return;
            }
            let event = entry.remove();
            if self.is_verbose {
                eprintln!("{:>12?} {event:?}", self.now - self.origin);
            }
            match event {
                WorldEvent::Arrive(index) => self.on_arrive(index),
                WorldEvent::Send(index, bytes) => self.on_send(index, &bytes),
                WorldEvent::Leave(index, how) => self.on_leave(index, how),
                WorldEvent::Read(index) => self.on_read(index),
                WorldEvent::ProbeAnswer(socket, number) => {
                    let now = self.now;
                    let entry = self.table.get(&socket).filter(|it| it.attempts_len == number);
                    if let Some(outcome) = entry.and_then(|entry| entry.answer(now)) {
                        self.edge(socket, Edge::of_outcome(outcome));
                    }
                }
                WorldEvent::SynRepeat(socket, connect, sent) => {
                    self.transmit(socket, connect, sent);
                }
                WorldEvent::SynAnswer(socket, connect, outcome) => {
                    self.on_syn_answer(socket, connect, outcome);
                }
                WorldEvent::Connected(socket) => {
                    if let Some(entry) = self.table.get_mut(&socket) {
                        entry.is_connected = true;
                        self.edge(socket, Edge { writable: true, ..Edge::default() });
                    }
                }
                WorldEvent::RawArrival(arrival) => self.on_raw_arrival(arrival),
                WorldEvent::RawWritable => self.raw.is_writable = true,
                WorldEvent::StdoutWritable => {
                    self.is_stdout_full = false;
                    self.stdout_edge = true;
                }
                WorldEvent::Receive(socket, bytes) => self.on_receive(socket, bytes),
                WorldEvent::Break(socket) => self.break_socket(socket),
                WorldEvent::Signal(signal) => {
                    self.signals.push_back(signal);
                    self.signal_edge = true;
                    self.signals_len += 1;
                    self.signalled_at.get_or_insert(self.now);
                }
                WorldEvent::Pause => self.is_paused = true,
            }
        }
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.now - self.origin
    }

    pub(crate) fn key_of(&self, socket: u64) -> Option<Key> {
        self.table.get(&socket)?.token.map(|token| Key::from_token(token.0))
    }

    /// Returns the keys of recently closed sockets, except for those of the connect engine.
    pub(crate) fn closed_keys(&self) -> impl Iterator<Item = Key> {
        let keys = self.closed.iter().filter(|token| token.0 & crate::kernel::ENGINE_TOKEN == 0);
        keys.map(|token| Key::from_token(token.0))
    }

    fn entry(&mut self, socket: u64) -> Option<&mut Entry> {
        self.table.get_mut(&socket)
    }

    /// Queues an edge of a registered socket for the poller. Edges that are not reported yet are
    /// merged.
    pub(crate) fn edge(&mut self, socket: u64, edge: Edge) {
        let Some(entry) = self.entry(socket).filter(|entry| entry.token.is_some()) else { return };
        let before = entry.edge.replace(edge);
        if let (Some(before), Some(merged)) = (before, &mut entry.edge) {
            merged.readable |= before.readable;
            merged.writable |= before.writable;
            merged.read_closed |= before.read_closed;
            merged.error |= before.error;
        } else {
            self.unreported.push_back(socket);
        }
    }

    fn on_arrive(&mut self, index: usize) {
        if !self.is_listening {
            self.clients[index].stage = Stage::Refused;
            return;
        }
        self.clients[index].stage = Stage::Queued;
        self.backlog.push_back(index);
        self.listener_edge = true;
        if let Some((after, how)) = self.clients[index].leave_after {
            self.schedule(after, WorldEvent::Leave(index, how));
        }
        let pipelined = self.clients[index].order == Order::Pipelined;
        let count = if pipelined { self.clients[index].requests.len() } else { 1 };
        self.send_requests(index, count);
    }

    fn send_requests(&mut self, index: usize, count: usize) {
        let client = &mut self.clients[index];
        let end = client.requests.len().min(client.sent_len + count);
        let bytes: Vec<u8> = client.requests[client.sent_len..end]
            .iter()
            .flat_map(|request| request.bytes.clone())
            .collect();
        client.sent_len = end;
        let (piece, gap) = (client.piece, client.gap);
        let mut after = Duration::ZERO;
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let len = if piece == usize::MAX { rest.len() } else { 1 + self.rng.below(piece) };
            let (sent, left) = rest.split_at(len.min(rest.len()));
            self.schedule(after, WorldEvent::Send(index, sent.to_vec()));
            after += gap;
            rest = left;
        }
    }

    fn on_send(&mut self, index: usize, bytes: &[u8]) {
        let client = &mut self.clients[index];
        if client.is_gone || client.has_half_closed {
            return;
        }
        match client.stage {
            Stage::Connected(socket) => {
                if let Some(entry) = self.entry(socket) {
                    entry.inbox.extend(bytes);
                }
                self.edge(socket, Edge { readable: true, ..Edge::default() });
            }
            Stage::Queued => client.wire.extend(bytes),
            Stage::NotArrived | Stage::Refused | Stage::Closed => {}
        }
    }

    pub(crate) fn on_leave(&mut self, index: usize, how: Leave) {
        let client = &mut self.clients[index];
        match how {
            Leave::HalfClose => client.has_half_closed = true,
            Leave::Close | Leave::Reset => client.is_gone = true,
        }
        let Stage::Connected(socket) = client.stage else { return };
        match how {
            Leave::HalfClose | Leave::Close => {
                if let Some(entry) = self.entry(socket) {
                    entry.has_fin = true;
                }
                self.edge(socket, Edge { readable: true, read_closed: true, ..Edge::default() });
            }
            Leave::Reset => self.break_socket(socket),
        }
    }

    pub(crate) fn break_socket(&mut self, socket: u64) {
        let Some(entry) = self.entry(socket) else { return };
        entry.is_broken = true;
        if let Peer::Client(index) = entry.peer {
            self.clients[index].is_gone = true;
        }
        let edge = Edge { readable: true, writable: true, read_closed: true, error: true };
        self.edge(socket, edge);
    }

    /// A client reads, so that the kernel accepts more output for it.
    fn on_read(&mut self, index: usize) {
        let client = &mut self.clients[index];
        let Stage::Connected(socket) = client.stage else { return };
        client.window = match client.reads {
            Reads::Fast => 64 * 1024,
            Reads::Slowly { bytes, .. } => bytes,
            Reads::Never => return,
        };
        if self.entry(socket).is_some_and(|entry| std::mem::take(&mut entry.is_blocked)) {
            self.edge(socket, Edge { writable: true, ..Edge::default() });
        }
    }

    fn on_receive(&mut self, socket: u64, bytes: Vec<u8>) {
        let Some(entry) = self.entry(socket) else { return };
        match entry.peer {
            Peer::Datagrams(_) => entry.datagrams.push_back(bytes),
            Peer::Stream(_) | Peer::Client(_) | Peer::Probe => entry.inbox.extend(bytes),
        }
        self.edge(socket, Edge { readable: true, ..Edge::default() });
    }

    /// read(2), or recv(2) of one datagram.
    pub(crate) fn read_from(&mut self, socket: u64, buffer: &mut [u8]) -> IoStep {
        let entry = self.entry(socket).expect("an open socket is read");
        if entry.is_broken {
            return IoStep::Broken;
        }
        if let Peer::Datagrams(_) = entry.peer {
            let Some(datagram) = entry.datagrams.pop_front() else { return IoStep::WouldBlock };
            let count = datagram.len().min(buffer.len());
            buffer[..count].copy_from_slice(&datagram[..count]);
            return IoStep::Done(count);
        }
        if entry.inbox.is_empty() {
            return if entry.has_fin { IoStep::Eof } else { IoStep::WouldBlock };
        }
        let count = buffer.len().min(entry.inbox.len());
        for (place, byte) in buffer.iter_mut().zip(entry.inbox.drain(..count)) {
            *place = byte;
        }
        if let Peer::Client(index) = entry.peer
            && !self.clients[index].has_received_fin
        {
            self.clients[index].delivered += count;
        }
        IoStep::Done(count)
    }

    pub(crate) fn write_to(&mut self, socket: u64, output: &[u8]) -> IoStep {
        let short_writes = self.faults.short_writes;
        let entry = self.entry(socket).expect("an open socket is written to");
        if entry.is_broken {
            return IoStep::Broken;
        }
        match entry.peer {
            Peer::Client(index) => {
                let mut count = output.len().min(self.clients[index].window);
                if count > 1 && self.rng.chance(short_writes) {
                    count = 1 + self.rng.below(count);
                }
                return self.write_to_client(socket, index, &output[..count]);
            }
            Peer::Datagrams(to) => self.on_query(socket, to, output),
            Peer::Stream(to) => {
                entry.outbox.extend(output);
                let query = entry.outbox.clone();
                if let Some(reply) = self.names.on_stream(to, &query) {
                    let at = 1 + self.rng.below(reply.len() - 1);
                    let (front, back) = reply.split_at(at);
                    self.schedule(
                        Duration::from_millis(3),
                        WorldEvent::Receive(socket, front.to_vec()),
                    );
                    self.schedule(
                        Duration::from_millis(5),
                        WorldEvent::Receive(socket, back.to_vec()),
                    );
                }
            }
            Peer::Probe => panic!("probes send no data"),
        }
        IoStep::Done(output.len())
    }

    fn write_to_client(&mut self, socket: u64, index: usize, bytes: &[u8]) -> IoStep {
        if self.clients[index].is_gone {
            // The client's host answers with a RST.
            self.schedule(Duration::from_millis(1), WorldEvent::Break(socket));
            return IoStep::Done(bytes.len());
        }
        if bytes.is_empty() {
            if let Some(entry) = self.entry(socket) {
                entry.is_blocked = true;
            }
            return IoStep::WouldBlock;
        }
        let client = &mut self.clients[index];
        let was_full = client.window;
        client.window -= bytes.len();
        let every = match client.reads {
            Reads::Fast => Some((64 * 1024, Duration::from_millis(2))),
            Reads::Slowly { bytes, every } => Some((bytes, every)),
            Reads::Never => None,
        };
        if let Some((window_max, every)) = every.filter(|(window_max, _)| was_full == *window_max) {
            assert!(window_max > 0, "a reader must read at least one byte");
            self.schedule(every, WorldEvent::Read(index));
        }
        if self.clients[index].handle_received(bytes) {
            self.on_answered(index);
        }
        IoStep::Done(bytes.len())
    }

    /// The client received a response, and sends its next request or leaves.
    fn on_answered(&mut self, index: usize) {
        let think = self.rng.time(Duration::from_millis(30));
        let client = &self.clients[index];
        if client.responses.len() == client.requests.len() {
            if let Some(how) = client.leave_when_answered {
                self.schedule(think, WorldEvent::Leave(index, how));
            }
        } else if client.order == Order::OneByOne && client.sent_len == client.responses.len() {
            self.send_requests(index, 1);
        }
    }

    fn on_query(&mut self, socket: u64, to: SocketAddr, query: &[u8]) {
        if self.names.servers[&to] == Behaviour::Refusing {
            self.schedule(Duration::from_millis(1), WorldEvent::Break(socket));
        }
        for (after, bytes) in self.names.on_datagram(to, query, &mut self.rng) {
            self.schedule(after, WorldEvent::Receive(socket, bytes));
        }
    }

    /// Returns the numbers of client connections, of probes in progress and of sockets to name
    /// servers.
    pub(crate) const fn open(&self) -> (usize, usize, usize) {
        (self.sockets.clients, self.sockets.probes, self.sockets.lookups)
    }
}
