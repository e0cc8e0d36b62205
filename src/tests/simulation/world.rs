//! The world around the service: time, sockets, and everybody at their other ends.
//!
//! The kernel's part: what is delivered when, what one read or write takes, which edges the
//! poller tells. It knows nothing of the loop (`shell`), which is what reads the edges here.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant, SystemTime};

use openports::budget::Shares;
use openports::event::{Outcome, Shortage, Signal};
use openports::limits::Settings;
use openports::service::{Options, Service};
use openports::slots::Key;

use crate::client::{Client, Leave, Order, Reads, Stage};
use crate::dice::Dice;
use crate::names::{Manner, Names};
use crate::network::Host;
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
    pub(crate) log_drops: usize,
    /// Descriptors that the kernel gives, whatever the shares say.
    pub(crate) descriptors: Option<usize>,
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
    Outcome(Key, Outcome),
    Receive(Key, Vec<u8>),
    Break(Key),
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

/// Whose socket it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    Client(usize),
    Target(SocketAddr),
    Datagrams(SocketAddr),
    Stream(SocketAddr),
}

/// One open socket: the kernel's part and, in the last five fields, the shell's memory of it.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) key: Key,
    pub(crate) peer: Peer,
    pub(crate) outcome: Option<Outcome>,
    pub(crate) inbox: VecDeque<u8>,
    pub(crate) datagrams: VecDeque<Vec<u8>>,
    pub(crate) outbox: Vec<u8>,
    pub(crate) has_fin: bool,
    pub(crate) is_broken: bool,
    pub(crate) is_blocked: bool,
    pub(crate) edge: Option<Edge>,
    pub(crate) is_connected: bool,
    pub(crate) readable: bool,
    pub(crate) writable: bool,
    pub(crate) read_closed: bool,
    /// The step in which something was written last.
    pub(crate) written_in: Option<u64>,
    pub(crate) is_listed: bool,
}

impl Entry {
    pub(crate) fn new(key: Key, peer: Peer) -> Self {
        Self {
            key,
            peer,
            outcome: None,
            inbox: VecDeque::new(),
            datagrams: VecDeque::new(),
            outbox: Vec::new(),
            has_fin: false,
            is_broken: false,
            is_blocked: false,
            edge: None,
            is_connected: false,
            readable: false,
            writable: false,
            read_closed: false,
            written_in: None,
            is_listed: false,
        }
    }
}

/// What one read or write comes to.
#[derive(Clone, Debug)]
pub(crate) enum IoStep {
    Done(Vec<u8>),
    End,
    Blocked,
    Broken,
}

/// What came to pass, for whoever wants to know what the seeds reach.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) shortages: usize,
    pub(crate) accepts_failed: usize,
    /// Streams that were opened to name servers.
    pub(crate) streams_to_servers: usize,
}

/// Everything.
pub(crate) struct World {
    pub(crate) origin: Instant,
    pub(crate) now: Instant,
    pub(crate) wall: SystemTime,
    pub(crate) dice: Dice,
    pub(crate) service: Service,
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
    pub(crate) steps: u64,
    pub(crate) table: BTreeMap<usize, Entry>,
    /// Sockets with an edge that the poller has not told yet, in the order of their edges.
    pub(crate) told: VecDeque<Key>,
    pub(crate) backlog: VecDeque<usize>,
    pub(crate) is_listening: bool,
    pub(crate) signals: VecDeque<Signal>,
    pub(crate) signalled_at: Option<Instant>,
    pub(crate) signals_len: usize,
    pub(crate) is_looked_at: bool,
    pub(crate) seen: Seen,
    /// What a use from the shell prints; `None` where clients are served.
    pub(crate) printed: Option<Printed>,
    pub(crate) shell: crate::shell::Shell,
    calendar: BTreeMap<(Instant, u64), Happening>,
    happenings_len: u64,
}

impl World {
    pub(crate) fn new(seed: u64, options: Options) -> Self {
        let origin = Instant::now();
        let wall = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_442_477);
        let (shares, settings) = (options.shares, options.settings.clone());
        Self {
            origin,
            now: origin,
            wall,
            dice: Dice::new(seed),
            service: Service::new(options, wall),
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
            steps: 0,
            table: BTreeMap::new(),
            told: VecDeque::new(),
            backlog: VecDeque::new(),
            is_listening: true,
            signals: VecDeque::new(),
            signalled_at: None,
            signals_len: 0,
            is_looked_at: false,
            seen: Seen::default(),
            printed: None,
            shell: crate::shell::Shell::default(),
            calendar: BTreeMap::new(),
            happenings_len: 0,
        }
    }

    /// True exactly when nothing can keep an address of a name from being found, nor the route to
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
                Happening::Outcome(key, outcome) => {
                    let error = outcome != Outcome::Connected && outcome != Outcome::MetItself;
                    if let Some(entry) = self.entry(key) {
                        entry.outcome = Some(outcome);
                        self.edge(key, Edge { writable: true, error, ..Edge::default() });
                    }
                }
                Happening::Receive(key, bytes) => self.on_receive(key, bytes),
                Happening::Break(key) => self.break_socket(key),
                Happening::Signal(signal) => {
                    self.signals.push_back(signal);
                    self.signals_len += 1;
                    self.signalled_at.get_or_insert(self.now);
                }
                Happening::Look => self.is_looked_at = true,
            }
        }
    }

    pub(crate) fn entry(&mut self, key: Key) -> Option<&mut Entry> {
        self.table.get_mut(&key.index()).filter(|entry| entry.key == key)
    }

    /// The poller will tell this of a socket; edges not yet told become one.
    pub(crate) fn edge(&mut self, key: Key, edge: Edge) {
        let Some(entry) = self.entry(key) else { return };
        let before = entry.edge.replace(edge);
        if let (Some(before), Some(merged)) = (before, &mut entry.edge) {
            merged.readable |= before.readable;
            merged.writable |= before.writable;
            merged.read_closed |= before.read_closed;
            merged.error |= before.error;
        } else {
            self.told.push_back(key);
        }
    }

    fn on_arrive(&mut self, index: usize) {
        if !self.is_listening {
            self.clients[index].stage = Stage::Refused;
            return;
        }
        self.clients[index].stage = Stage::Queued;
        self.backlog.push_back(index);
        self.shell.listener_edge = true;
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
            let len = if piece == usize::MAX { rest.len() } else { 1 + self.dice.below(piece) };
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
            Stage::Connected(key) => {
                if let Some(entry) = self.entry(key) {
                    entry.inbox.extend(bytes);
                }
                self.edge(key, Edge { readable: true, ..Edge::default() });
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
        let Stage::Connected(key) = client.stage else { return };
        match how {
            Leave::HalfClose | Leave::Close => {
                if let Some(entry) = self.entry(key) {
                    entry.has_fin = true;
                }
                self.edge(key, Edge { readable: true, read_closed: true, ..Edge::default() });
            }
            Leave::Reset => self.break_socket(key),
        }
    }

    pub(crate) fn break_socket(&mut self, key: Key) {
        let Some(entry) = self.entry(key) else { return };
        entry.is_broken = true;
        if let Peer::Client(index) = entry.peer {
            self.clients[index].is_gone = true;
        }
        let edge = Edge { readable: true, writable: true, read_closed: true, error: true };
        self.edge(key, edge);
    }

    /// A client takes in what the kernel keeps for it.
    fn on_read(&mut self, index: usize) {
        let client = &mut self.clients[index];
        let Stage::Connected(key) = client.stage else { return };
        client.room = match client.reads {
            Reads::Fast => 64 * 1024,
            Reads::Slowly { bytes, .. } => bytes,
            Reads::Never => return,
        };
        if self.entry(key).is_some_and(|entry| std::mem::take(&mut entry.is_blocked)) {
            self.edge(key, Edge { writable: true, ..Edge::default() });
        }
    }

    fn on_receive(&mut self, key: Key, bytes: Vec<u8>) {
        let Some(entry) = self.entry(key) else { return };
        match entry.peer {
            Peer::Datagrams(_) => entry.datagrams.push_back(bytes),
            Peer::Stream(_) | Peer::Client(_) | Peer::Target(_) => entry.inbox.extend(bytes),
        }
        self.edge(key, Edge { readable: true, ..Edge::default() });
    }

    /// read(2) of at most `wanted` bytes.
    pub(crate) fn read(&mut self, key: Key, wanted: usize) -> IoStep {
        let entry = self.entry(key).expect("the shell reads an open socket");
        if entry.is_broken {
            return IoStep::Broken;
        }
        if let Peer::Datagrams(_) = entry.peer {
            return entry.datagrams.pop_front().map_or(IoStep::Blocked, IoStep::Done);
        }
        if entry.inbox.is_empty() {
            return if entry.has_fin { IoStep::End } else { IoStep::Blocked };
        }
        let count = wanted.min(entry.inbox.len());
        let bytes: Vec<u8> = entry.inbox.drain(..count).collect();
        if let Peer::Client(index) = entry.peer
            && !self.clients[index].was_told_goodbye
        {
            self.clients[index].delivered += count;
        }
        IoStep::Done(bytes)
    }

    /// write(2) of what the service has for a socket; what was taken.
    pub(crate) fn write(&mut self, key: Key, output: Vec<u8>) -> IoStep {
        let short_writes = self.faults.short_writes;
        let entry = self.entry(key).expect("the shell writes to an open socket");
        if entry.is_broken {
            return IoStep::Broken;
        }
        match entry.peer {
            Peer::Client(index) => {
                let mut count = output.len().min(self.clients[index].room);
                if count > 1 && self.dice.chance(short_writes) {
                    count = 1 + self.dice.below(count);
                }
                self.write_to_client(key, index, &output[..count])
            }
            Peer::Datagrams(to) => {
                self.on_query(key, to, &output);
                IoStep::Done(output)
            }
            Peer::Stream(to) => {
                entry.outbox.extend(&output);
                let query = entry.outbox.clone();
                if let Some(reply) = self.names.on_stream(to, &query) {
                    let at = 1 + self.dice.below(reply.len() - 1);
                    let (front, back) = reply.split_at(at);
                    self.plan(Duration::from_millis(3), Happening::Receive(key, front.to_vec()));
                    self.plan(Duration::from_millis(5), Happening::Receive(key, back.to_vec()));
                }
                IoStep::Done(output)
            }
            Peer::Target(_) => panic!("a probe has nothing to say"),
        }
    }

    fn write_to_client(&mut self, key: Key, index: usize, bytes: &[u8]) -> IoStep {
        if self.clients[index].is_gone {
            // Nobody is there any more: a RST comes back.
            self.plan(Duration::from_millis(1), Happening::Break(key));
            return IoStep::Done(bytes.to_vec());
        }
        if bytes.is_empty() {
            if let Some(entry) = self.entry(key) {
                entry.is_blocked = true;
            }
            return IoStep::Blocked;
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
        IoStep::Done(bytes.to_vec())
    }

    /// A client was answered: it asks on, or goes.
    fn on_answered(&mut self, index: usize) {
        let think = self.dice.time(Duration::from_millis(30));
        let client = &self.clients[index];
        if client.answers.len() == client.asks.len() {
            if let Some(how) = client.parts {
                self.plan(think, Happening::Leave(index, how));
            }
        } else if client.order == Order::OneByOne && client.asked == client.answers.len() {
            self.ask(index, 1);
        }
    }

    fn on_query(&mut self, key: Key, to: SocketAddr, query: &[u8]) {
        if self.names.servers[&to] == Manner::Refusing {
            self.plan(Duration::from_millis(1), Happening::Break(key));
        }
        for (after, bytes) in self.names.on_datagram(to, query, &mut self.dice) {
            self.plan(after, Happening::Receive(key, bytes));
        }
    }

    /// Sockets open to clients, targets and name servers.
    pub(crate) fn open(&self) -> (usize, usize, usize) {
        let mut open = (0, 0, 0);
        for entry in self.table.values() {
            match entry.peer {
                Peer::Client(_) => open.0 += 1,
                Peer::Target(_) => open.1 += 1,
                Peer::Datagrams(_) | Peer::Stream(_) => open.2 += 1,
            }
        }
        open
    }
}
