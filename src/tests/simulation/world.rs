//! The world around the service: time, sockets, and everybody at their other ends.
//!
//! The kernel's part: what is delivered when, what one read or write takes, which edges the
//! poller reports. Its calls are in `kernel`; it knows nothing of the loop that makes them.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant, SystemTime};

use openports::budget::Shares;
use openports::core::options::Options;
use openports::event::{Outcome, Shortage, Signal};
use openports::kernel::{IoStep, Token};
use openports::limits::Settings;
use openports::slots::Key;

use crate::client::{Client, Leave, Order, Reads, Stage};
use crate::names::{Manner, Names};
use crate::network::Host;
use crate::raw::{Raw, RawArrival};
use crate::rng::Rng;
use crate::sweeps::Printed;

/// What goes wrong on our own machine, each as percent of the calls.
#[derive(Clone, Debug, Default)]
pub(crate) struct Faults {
    /// Connects that fail for want of something; any kind, or the one named.
    pub(crate) shortages: usize,
    pub(crate) shortage: Option<Shortage>,
    /// How many shortages and failed accepts there are at most.
    pub(crate) left: usize,
    pub(crate) accepts: usize,
    pub(crate) routes: usize,
    pub(crate) stale_events: usize,
    pub(crate) spurious_events: usize,
    pub(crate) short_writes: usize,
    /// Writes to stderr that find no room, and how long all of them do at the beginning.
    pub(crate) log_blocks: usize,
    pub(crate) log_stall: Duration,
    /// Writes to stdout that find no room; and whether it is a file, which cannot be polled.
    pub(crate) stdout_blocks: usize,
    pub(crate) stdout_is_file: bool,
    /// Calls that a signal interrupts (EINTR).
    pub(crate) interrupts: usize,
    /// Sockets that the poller has no room for (ENOMEM).
    pub(crate) unregistered: usize,
    /// The kernel connects no socket twice.
    pub(crate) refuses_reuse: bool,
    /// Descriptors that the kernel gives, whatever the shares say.
    pub(crate) descriptors: Option<usize>,
    /// The poller counts whole milliseconds, upwards, as mio's does.
    pub(crate) whole_millis: bool,
    /// How long the kernel takes to start a connect, and to send one SYN through a raw socket.
    pub(crate) connect_time: Duration,
    pub(crate) syn_time: Duration,
    /// How late a wait ends, and how long a turn takes, at most.
    pub(crate) lateness: Duration,
}

/// What happens at its time, whatever the service does.
#[derive(Clone, Debug)]
pub(crate) enum Happening {
    Arrive(usize),
    Send(usize, Vec<u8>),
    Leave(usize, Leave),
    Read(usize),
    /// The answer to a probe: of this socket, to its so many-th connect.
    ProbeAnswer(u64, usize),
    /// The kernel repeats the SYN of this socket's so many-th connect; SYNs sent before.
    SynRepeat(u64, usize, u32),
    /// An answer to a SYN of this socket's so many-th connect arrives.
    SynAnswer(u64, usize, Outcome),
    /// A stream to a name server is connected.
    Connected(u64),
    Receive(u64, Vec<u8>),
    Break(u64),
    /// To the raw socket.
    RawArrival(RawArrival),
    /// The send buffer of the raw socket has room again.
    RawRoom,
    /// Stdout has room again.
    StdoutRoom,
    Signal(Signal),
    /// Somebody outside wants to look: the run pauses.
    Look,
}

/// What the poller tells of a socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Edge {
    pub(crate) readable: bool,
    pub(crate) writable: bool,
    pub(crate) read_closed: bool,
    pub(crate) error: bool,
}

impl Edge {
    /// What the poller reports of a connect that ended so.
    pub(crate) fn of_outcome(outcome: Outcome) -> Self {
        let error = !matches!(outcome, Outcome::Connected | Outcome::SelfConnect);
        Self { writable: true, error, ..Self::default() }
    }
}

/// Whose socket it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    Client(usize),
    /// Nobody's for long: the connect engine's.
    Probe,
    Datagrams(SocketAddr),
    Stream(SocketAddr),
}

/// A connect of a probe that is under way: what will be answered, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Attempt {
    pub(crate) to: SocketAddr,
    pub(crate) answer: Option<(Instant, Outcome)>,
}

/// One open socket.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) peer: Peer,
    /// Under which the poller reports it, once it is registered.
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
    /// What the poller has not reported yet.
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

    /// The outcome of a probe, if it is there by now.
    pub(crate) fn answer(&self, now: Instant) -> Option<Outcome> {
        let (at, outcome) = self.attempt?.answer?;
        (at <= now).then_some(outcome)
    }
}

/// What came to pass, for whoever wants to know what the seeds reach.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) shortages: usize,
    pub(crate) accepts_failed: usize,
    /// Streams that were opened to name servers.
    pub(crate) streams_to_servers: usize,
    /// Calls that a signal interrupted.
    pub(crate) interrupted: usize,
    /// Sockets that could not be registered with the poller.
    pub(crate) unregistered: usize,
    pub(crate) reuse_refused: usize,
    pub(crate) stale_events: usize,
    pub(crate) stdout_full: usize,
    pub(crate) log_blocked: usize,
}

/// How many sockets are open, counted as they are opened and closed: a sum over all of them after
/// each call would take most of the time of a run.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SocketCounts {
    pub(crate) clients: usize,
    pub(crate) lookups: usize,
    /// Sockets of the connect engine, in use or not.
    pub(crate) engine: usize,
    /// Connects of probes under way.
    pub(crate) probes: usize,
}

impl SocketCounts {
    /// The sockets of one kind.
    pub(crate) const fn of(&mut self, peer: Peer) -> &mut usize {
        match peer {
            Peer::Client(_) => &mut self.clients,
            Peer::Probe => &mut self.engine,
            Peer::Datagrams(_) | Peer::Stream(_) => &mut self.lookups,
        }
    }
}

/// Everything.
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
    /// Scans are for whoever names us by a Host of ours.
    pub(crate) is_guarded: bool,
    /// What the token file holds; the service began with the same.
    pub(crate) token: Option<String>,
    /// An address that the policy denies.
    pub(crate) denied: Option<IpAddr>,
    pub(crate) clients: Vec<Client>,
    pub(crate) is_verbose: bool,
    /// Open sockets by their numbers, which are used once.
    pub(crate) table: BTreeMap<u64, Entry>,
    pub(crate) sockets_len: u64,
    pub(crate) sockets: SocketCounts,
    /// Sockets with an edge that the poller has not reported yet, in the order of their edges.
    pub(crate) told: VecDeque<u64>,
    /// The tokens of sockets that were closed lately.
    pub(crate) closed: VecDeque<Token>,
    pub(crate) listener_edge: bool,
    pub(crate) listener_token: Option<Token>,
    pub(crate) signal_edge: bool,
    pub(crate) signal_token: Option<Token>,
    pub(crate) raw: Raw,
    pub(crate) stdout_edge: bool,
    pub(crate) stdout_token: Option<Token>,
    pub(crate) is_stdout_full: bool,
    /// Calls that the loop made, and events that it was given.
    pub(crate) calls: usize,
    pub(crate) connects_len: usize,
    /// Readings of what the machine dropped.
    pub(crate) readings: u32,
    /// The last poll did not wait.
    pub(crate) is_at_once: bool,
    /// Nothing will ever happen.
    pub(crate) is_over: bool,
    /// A client was let in at the cap: another was evicted.
    pub(crate) was_full: bool,
    pub(crate) backlog: VecDeque<usize>,
    pub(crate) is_listening: bool,
    pub(crate) signals: VecDeque<Signal>,
    pub(crate) signalled_at: Option<Instant>,
    pub(crate) signals_len: usize,
    pub(crate) is_looked_at: bool,
    pub(crate) seen: Seen,
    /// What a use from the shell prints; `None` where clients are served.
    pub(crate) printed: Option<Printed>,
    calendar: BTreeMap<(Instant, u64), Happening>,
    happenings_len: u64,
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
            told: VecDeque::new(),
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
            is_looked_at: false,
            seen: Seen::default(),
            printed: None,
            calendar: BTreeMap::new(),
            happenings_len: 0,
        }
    }

    /// Whether nothing can keep an address of a name from being found, nor the route to
    /// it: where one family is late, the other stands for both.
    pub(crate) fn is_sure_of_names(&self) -> bool {
        let faults = &self.faults;
        let can_ask = faults.shortages == 0 && faults.routes == 0 && faults.descriptors.is_none();
        can_ask
            && self.resolv_conf.is_some()
            && self.names.servers.values().all(|it| it.is_honest())
    }

    /// Has something happen `after` from now.
    pub(crate) fn plan(&mut self, after: Duration, happening: Happening) {
        self.plan_at(self.now + after, happening);
    }

    pub(crate) fn plan_at(&mut self, at: Instant, happening: Happening) {
        self.happenings_len += 1;
        self.calendar.insert((at, self.happenings_len), happening);
    }

    /// Adds a client that comes `after` from now, and tells its number.
    pub(crate) fn add_client(&mut self, after: Duration, client: Client) -> usize {
        self.clients.push(client);
        let index = self.clients.len() - 1;
        self.plan(after, Happening::Arrive(index));
        index
    }

    pub(crate) fn next_happening(&self) -> Option<Instant> {
        self.calendar.first_key_value().map(|((at, _), _)| *at)
    }

    /// Lets everything happen whose time has come.
    pub(crate) fn deliver(&mut self) {
        while let Some(entry) = self.calendar.first_entry() {
            if entry.key().0 > self.now {
                return;
            }
            let happening = entry.remove();
            if self.is_verbose {
                eprintln!("{:>12?} {happening:?}", self.now - self.origin);
            }
            match happening {
                Happening::Arrive(index) => self.on_arrive(index),
                Happening::Send(index, bytes) => self.on_send(index, &bytes),
                Happening::Leave(index, how) => self.on_leave(index, how),
                Happening::Read(index) => self.on_read(index),
                Happening::ProbeAnswer(socket, number) => {
                    let now = self.now;
                    let entry = self.table.get(&socket).filter(|it| it.attempts_len == number);
                    if let Some(outcome) = entry.and_then(|entry| entry.answer(now)) {
                        self.edge(socket, Edge::of_outcome(outcome));
                    }
                }
                Happening::SynRepeat(socket, connect, sent) => {
                    self.transmit(socket, connect, sent);
                }
                Happening::SynAnswer(socket, connect, outcome) => {
                    self.on_syn_answer(socket, connect, outcome);
                }
                Happening::Connected(socket) => {
                    if let Some(entry) = self.table.get_mut(&socket) {
                        entry.is_connected = true;
                        self.edge(socket, Edge { writable: true, ..Edge::default() });
                    }
                }
                Happening::RawArrival(arrival) => self.on_raw_arrival(arrival),
                Happening::RawRoom => self.raw.is_writable = true,
                Happening::StdoutRoom => {
                    self.is_stdout_full = false;
                    self.stdout_edge = true;
                }
                Happening::Receive(socket, bytes) => self.on_receive(socket, bytes),
                Happening::Break(socket) => self.break_socket(socket),
                Happening::Signal(signal) => {
                    self.signals.push_back(signal);
                    self.signal_edge = true;
                    self.signals_len += 1;
                    self.signalled_at.get_or_insert(self.now);
                }
                Happening::Look => self.is_looked_at = true,
            }
        }
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.now - self.origin
    }

    /// The key under which the core knows a socket that is registered.
    pub(crate) fn key_of(&self, socket: u64) -> Option<Key> {
        self.table.get(&socket)?.token.map(|token| Key::from_token(token.0))
    }

    /// Keys of the core whose sockets were closed lately.
    pub(crate) fn closed_keys(&self) -> impl Iterator<Item = Key> {
        let keys = self.closed.iter().filter(|token| token.0 & crate::kernel::ENGINE_TOKEN == 0);
        keys.map(|token| Key::from_token(token.0))
    }

    fn entry(&mut self, socket: u64) -> Option<&mut Entry> {
        self.table.get_mut(&socket)
    }

    /// The poller will report this of a socket, if it is registered; edges not yet reported become
    /// one.
    pub(crate) fn edge(&mut self, socket: u64, edge: Edge) {
        let Some(entry) = self.entry(socket).filter(|entry| entry.token.is_some()) else { return };
        let before = entry.edge.replace(edge);
        if let (Some(before), Some(merged)) = (before, &mut entry.edge) {
            merged.readable |= before.readable;
            merged.writable |= before.writable;
            merged.read_closed |= before.read_closed;
            merged.error |= before.error;
        } else {
            self.told.push_back(socket);
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
        if let Some((after, how)) = self.clients[index].leaves {
            self.plan(after, Happening::Leave(index, how));
        }
        let pipelined = self.clients[index].order == Order::Pipelined;
        let count = if pipelined { self.clients[index].asks.len() } else { 1 };
        self.ask(index, count);
    }

    /// The client sends its next requests, in pieces.
    fn ask(&mut self, index: usize, count: usize) {
        let client = &mut self.clients[index];
        let end = client.asks.len().min(client.asked + count);
        let bytes: Vec<u8> =
            client.asks[client.asked..end].iter().flat_map(|ask| ask.bytes.clone()).collect();
        client.asked = end;
        let (piece, gap) = (client.piece, client.gap);
        let mut after = Duration::ZERO;
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let len = if piece == usize::MAX { rest.len() } else { 1 + self.rng.below(piece) };
            let (sent, left) = rest.split_at(len.min(rest.len()));
            self.plan(after, Happening::Send(index, sent.to_vec()));
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
            Stage::Away | Stage::Refused | Stage::Closed => {}
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

    /// A client takes in what the kernel keeps for it.
    fn on_read(&mut self, index: usize) {
        let client = &mut self.clients[index];
        let Stage::Connected(socket) = client.stage else { return };
        client.room = match client.reads {
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
            && !self.clients[index].was_told_goodbye
        {
            self.clients[index].delivered += count;
        }
        IoStep::Done(count)
    }

    /// send(2) of what the service has for a socket.
    pub(crate) fn write_to(&mut self, socket: u64, output: &[u8]) -> IoStep {
        let short_writes = self.faults.short_writes;
        let entry = self.entry(socket).expect("an open socket is written to");
        if entry.is_broken {
            return IoStep::Broken;
        }
        match entry.peer {
            Peer::Client(index) => {
                let mut count = output.len().min(self.clients[index].room);
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
                    self.plan(Duration::from_millis(3), Happening::Receive(socket, front.to_vec()));
                    self.plan(Duration::from_millis(5), Happening::Receive(socket, back.to_vec()));
                }
            }
            Peer::Probe => panic!("a probe has nothing to say"),
        }
        IoStep::Done(output.len())
    }

    fn write_to_client(&mut self, socket: u64, index: usize, bytes: &[u8]) -> IoStep {
        if self.clients[index].is_gone {
            // Nobody is there any more: a RST comes back.
            self.plan(Duration::from_millis(1), Happening::Break(socket));
            return IoStep::Done(bytes.len());
        }
        if bytes.is_empty() {
            if let Some(entry) = self.entry(socket) {
                entry.is_blocked = true;
            }
            return IoStep::WouldBlock;
        }
        let client = &mut self.clients[index];
        let was_full = client.room;
        client.room -= bytes.len();
        let every = match client.reads {
            Reads::Fast => Some((64 * 1024, Duration::from_millis(2))),
            Reads::Slowly { bytes, every } => Some((bytes, every)),
            Reads::Never => None,
        };
        if let Some((room_max, every)) = every.filter(|(room_max, _)| was_full == *room_max) {
            assert!(room_max > 0, "a reader reads something");
            self.plan(every, Happening::Read(index));
        }
        if self.clients[index].handle_received(bytes) {
            self.on_answered(index);
        }
        IoStep::Done(bytes.len())
    }

    /// A client was answered: it asks on, or goes.
    fn on_answered(&mut self, index: usize) {
        let think = self.rng.time(Duration::from_millis(30));
        let client = &self.clients[index];
        if client.answers.len() == client.asks.len() {
            if let Some(how) = client.parts {
                self.plan(think, Happening::Leave(index, how));
            }
        } else if client.order == Order::OneByOne && client.asked == client.answers.len() {
            self.ask(index, 1);
        }
    }

    fn on_query(&mut self, socket: u64, to: SocketAddr, query: &[u8]) {
        if self.names.servers[&to] == Manner::Refusing {
            self.plan(Duration::from_millis(1), Happening::Break(socket));
        }
        for (after, bytes) in self.names.on_datagram(to, query, &mut self.rng) {
            self.plan(after, Happening::Receive(socket, bytes));
        }
    }

    /// Sockets open to clients, probes under way, and sockets open to name servers.
    pub(crate) const fn open(&self) -> (usize, usize, usize) {
        (self.sockets.clients, self.sockets.probes, self.sockets.lookups)
    }
}
