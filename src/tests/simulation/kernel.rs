//! The simulated kernel: what each call of the event loop comes to in the `world`.
//!
//! The loop is the real one; only its system calls are played here, in virtual time and with the
//! faults of the seed. Sockets are numbered and never closed by being dropped, so that a socket
//! that the loop forgets to close is found at the end of the run.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant, SystemTime};

use openports::event::local_drops::{LocalDrops, NeighbourTable};
use openports::event::{
    Outcome, PrintFailure, ProcessFiles, RouteResult, Shortage, Signal, Transport,
};
use openports::kernel::{
    Accepted, IoStep, Kernel, NameFileTexts, Past, ProbeStep, RawOptions, RawPacket, RawQueue,
    RawReceiveStep, RawSendStep, Readiness, Received, Source, Token,
};
use openports::limits;
use openports::packet::IpVersion;

use crate::client::{Leave, Stage};
use crate::rng::Rng;
use crate::world::{Attempt, Edge, Entry, Happening, Peer, World};

/// A socket of the world, by its number.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Socket(u64);

/// A raw socket.
#[derive(Debug)]
pub(crate) struct RawSocket;

/// The listener, of which there is one.
#[derive(Debug)]
pub(crate) struct Listener;

/// Set in the tokens of the connect engine's sockets, which are no keys.
pub(crate) const ENGINE_TOKEN: usize = 1 << 31;

impl Kernel for World {
    type Listener = Listener;
    type RawSocket = RawSocket;
    type Socket = Socket;

    fn now(&self) -> Instant {
        self.now
    }

    /// The wall clock is set twice a second: to its beginning, to the last hour that the kernel
    /// lets it be set to, a day back. Nothing but records and `Date` may notice.
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

    /// Sleeps to the instant that the loop names, or to the next happening. An error of another
    /// kind than `Interrupted` stops the run: nothing will ever happen, or the test looks.
    fn poll(&mut self, timeout: Option<Duration>, ready: &mut Vec<Readiness>) -> io::Result<()> {
        assert!(ready.is_empty(), "what was reported before has been taken");
        self.is_at_once = timeout == Some(Duration::ZERO);
        if self.is_at_once {
            self.now += self.rng.time(self.faults.lateness);
            self.deliver();
        } else if !self.sleep(timeout.map(|timeout| self.now + self.rounded(timeout))) {
            self.is_over = true;
        }
        if self.is_over || self.is_looked_at {
            return Err(io::Error::other("the run stops"));
        }
        if self.rng.chance(self.faults.interrupts) {
            self.seen.interrupted += 1;
            return Err(io::ErrorKind::Interrupted.into());
        }
        if self.is_verbose {
            eprintln!("{:>12?} awake, {} sockets are ready", self.elapsed(), self.told.len());
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
        self.misinform(ready);
        while ready.len() < limits::EVENTS_PER_TICK {
            let Some(socket) = self.told.pop_front() else { break };
            let Some(entry) = self.table.get_mut(&socket) else { continue };
            if let (Some(edge), Some(token)) = (entry.edge.take(), entry.token) {
                ready.push(readiness(token, edge));
            }
        }
        self.calls += ready.len();
        Ok(())
    }

    fn register(&mut self, source: Source<'_, Self>, token: Token) -> io::Result<()> {
        self.calls += 1;
        let socket = match source {
            Source::Socket(Socket(socket)) => *socket,
            Source::Listener(Listener) => {
                self.listener_token = Some(token);
                return Ok(());
            }
            Source::Raw(RawSocket) => {
                self.raw.token = Some(token);
                return Ok(());
            }
            Source::Signals => {
                self.signal_token = Some(token);
                return Ok(());
            }
            Source::Stdout if self.faults.stdout_is_file => {
                return Err(io::Error::from_raw_os_error(1));
            }
            Source::Stdout => {
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
        let entry = self.table.get_mut(&socket).expect("an open socket is registered");
        assert!(entry.token.is_none(), "a socket is registered once");
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
        assert_eq!(state, "STOPPING=1");
    }

    fn accept(&mut self, Listener: &Listener) -> Accepted<Socket> {
        self.calls += 1;
        assert!(self.is_listening, "a closed listener is not asked");
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
        !self.backlog.is_empty()
    }

    fn close_listener(&mut self, Listener: Listener) {
        self.calls += 1;
        assert!(self.is_listening, "listeners are closed once");
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
                self.plan(after, Happening::Connected(socket));
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
        assert!(!bytes.is_empty(), "nothing is written in vain");
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

    /// The service's FIN reaches a client, which mostly answers with its own.
    fn shutdown_write(&mut self, Socket(socket): &Socket) {
        self.calls += 1;
        let Peer::Client(index) = self.table[socket].peer else { return };
        self.clients[index].was_told_goodbye = true;
        if self.rng.chance(80) {
            self.plan(Duration::from_millis(1), Happening::Leave(index, Leave::HalfClose));
        }
    }

    fn close(&mut self, Socket(socket): Socket) {
        self.calls += 1;
        let entry = self.table.remove(&socket).expect("an open socket is closed");
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
        assert_eq!(is_used, past == Past::Used, "the engine knows what a socket was used for");
        if is_used && self.faults.refuses_reuse {
            self.seen.reuse_refused += 1;
            return ProbeStep::ReuseRefused;
        }
        // A used socket needs no descriptor, but a source port and memory.
        if let Some(shortage) = self.shortage_of_call(self.faults.shortages) {
            self.seen.shortages += 1;
            return ProbeStep::Over(Outcome::Shortage(shortage));
        }
        let times = (self.origin, self.now);
        let host = self.hosts.get_mut(&to.ip()).expect("a connect to somebody's address");
        let is_nowhere = host.route == RouteResult::Nowhere;
        let answer = host.answer(times, to.port(), &mut self.rng);
        let entry = self.table.get_mut(socket).expect("an open socket is connected");
        assert!(entry.attempt.is_none(), "one connect at a time");
        entry.attempts_len += 1;
        if is_nowhere {
            return ProbeStep::Over(Outcome::Unreachable);
        }
        entry.attempt = Some(Attempt { to: *to, answer });
        self.sockets.probes += 1;
        let happening = Happening::ProbeAnswer(*socket, entry.attempts_len);
        let connect = entry.attempts_len;
        match answer {
            Some((at, _)) => self.plan_at(at, happening),
            None => self.transmit(*socket, connect, 0),
        }
        self.check_open();
        ProbeStep::Pending
    }

    fn check_probe(&mut self, Socket(socket): &Socket, to: &SocketAddr) -> ProbeStep {
        self.calls += 1;
        let now = self.now;
        let entry = self.table.get_mut(socket).expect("an open socket is checked");
        let attempt = entry.attempt.expect("a connect is under way");
        assert_eq!(attempt.to, *to, "it is checked for the same address");
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
        let entry = self.table.get_mut(socket).expect("an open socket is given up");
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
        assert_eq!(options.version, IpVersion::V4, "SYNs go to IPv4 addresses in this world");
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
        let known = self.hosts.get(&to.ip()).expect("a route to somebody's address").route;
        if self.rng.chance(self.faults.routes) { RouteResult::Unknown } else { known }
    }

    fn name_files(&mut self) -> NameFileTexts {
        self.calls += 1;
        let (resolv_conf, hosts) = (self.resolv_conf.clone(), self.hosts_file.clone());
        NameFileTexts { resolv_conf, hosts }
    }

    fn token_file(&mut self) -> Option<Vec<u8>> {
        self.calls += 1;
        let token = self.token.clone().expect("somebody has a token");
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

    /// Where routes fail now and then, so does this, and the neighbour table is full now and then.
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
            conntrack,
            queues: conntrack / 3,
        };
        (!number.is_multiple_of(9)).then_some(drops)
    }

    fn write_stdout(&mut self, bytes: &[u8]) -> IoStep {
        self.calls += 1;
        let printed = self.printed.as_mut().expect("a service prints nothing");
        if let Some((most, failure)) = printed.ends
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
            self.plan(Duration::from_millis(30), Happening::StdoutRoom);
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
        assert!(!is_progress || self.printed.is_some(), "a service shows no progress");
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
    /// A timeout as the poller counts it.
    fn rounded(&self, timeout: Duration) -> Duration {
        match self.faults.whole_millis {
            true => Duration::from_millis(timeout.as_nanos().div_ceil(1_000_000) as u64),
            false => timeout,
        }
    }

    /// Waits for the deadline or for news, whichever comes first; false if neither ever does.
    fn sleep(&mut self, deadline: Option<Instant>) -> bool {
        loop {
            let has_news = !self.told.is_empty()
                || self.listener_edge && self.is_listening
                || self.signal_edge
                || self.stdout_edge && self.stdout_token.is_some()
                || self.raw.has_edge();
            if has_news || self.is_looked_at {
                return true;
            }
            let next = self.next_happening();
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

    /// What a poller may report although it means nothing: of a socket that was closed in the same
    /// tick, whose token another one may have now, or of one that is not ready.
    fn misinform(&mut self, ready: &mut Vec<Readiness>) {
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
            // An error may be reported a moment before it can be read.
            let error = matches!(entry.peer, Peer::Probe | Peer::Stream(_)) && !entry.is_connected;
            let edge = Edge { readable: true, writable: true, error, ..Edge::default() };
            ready.extend(entry.token.map(|token| readiness(token, edge)));
        }
    }

    /// Whether this call fails, and for want of what.
    fn shortage(&mut self, percent: usize) -> Option<Shortage> {
        if self.faults.descriptors.is_some_and(|most| self.table.len() >= most) {
            return Some(Shortage::ProcessDescriptors);
        }
        self.shortage_of_call(percent)
    }

    /// As [`World::shortage`], for a call that needs no new descriptor.
    pub(crate) fn shortage_of_call(&mut self, percent: usize) -> Option<Shortage> {
        if self.faults.left == 0 || !self.rng.chance(percent) {
            return None;
        }
        self.faults.left -= 1;
        Some(self.faults.shortage.unwrap_or_else(|| self.rng.pick(&Shortage::ALL)))
    }

    /// Opens a socket; its number.
    fn insert(&mut self, peer: Peer) -> u64 {
        self.sockets_len += 1;
        let socket = self.sockets_len;
        self.table.insert(socket, Entry::new(peer));
        *self.sockets.of(peer) += 1;
        socket
    }

    /// What the poller finds of a socket when it is registered.
    fn level(&self, socket: u64) -> Edge {
        let entry = &self.table[&socket];
        match entry.peer {
            Peer::Client(index) => Edge {
                readable: !entry.inbox.is_empty() || entry.has_fin || entry.is_broken,
                writable: entry.is_broken || self.clients[index].room > 0,
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
        assert!(probes <= self.shares.probes, "{probes} probes");
        assert!(lookups <= self.shares.lookups, "{lookups} sockets of lookups");
        let kept = self.sockets.engine;
        assert!(kept <= self.shares.probes, "{kept} sockets for probes");
    }
}
