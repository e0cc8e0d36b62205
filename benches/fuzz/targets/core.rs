//! Fuzzes the whole core under the real event loop: the bytes decide the results of system calls.
//!
//! The loop runs on [`FuzzKernel`] in virtual time. In addition to the assertions of the core and
//! of the loop (`event_loop::contract`, which includes that no key ends twice), it checks that the
//! loop does not spin, that each socket is closed exactly once, that no descriptor remains when all
//! clients have gone, and that the service exits after a signal.
#![no_main]

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant, SystemTime};

use libfuzzer_sys::fuzz_target;
use openports::access::browser::HostGuard;
use openports::budget::Shares;
use openports::core::Core;
use openports::core::options::Options;
use openports::event::local_drops::{LocalDrops, NeighbourTable};
use openports::event::{Outcome, ProcessFiles, RouteResult, Shortage, Signal, Transport};
use openports::event_loop::EventLoop;
use openports::kernel::{
    Accepted, EventSource, IoStep, Kernel, NameFileTexts, Past, ProbeStep, RawOptions, RawPacket,
    RawQueue, RawReceiveStep, RawSendStep, Readiness, Received, Token,
};
use openports::limits::{EVENTS_PER_TICK, Settings};
use openports::policy::{Exposure, Policy};
use openports::report::log::{Level, LogFormat};
use openports::service_names::Names;
use openports::technique::{PerTechnique, Technique};
use openports_fuzz::Feed;

fuzz_target!(|bytes: &[u8]| {
    let mut feed = Feed::new(bytes);
    let connects = feed.pick(&[16, 1, 5, 64]);
    let probes = PerTechnique::new(|it| if it == Technique::Connect { connects } else { 1 });
    let shares = Shares { connections: 3, lookups: 2, probes };
    let settings = Settings { scans_max: 3, scans_per_client_max: 2, ..Settings::default() };
    let exposure = feed.pick(&[Exposure::LoopbackOnly, Exposure::Outside]);
    let options = Options {
        settings,
        shares,
        policy: Policy { allow: Vec::new(), deny: Vec::new(), exposure },
        host_guard: HostGuard { exposure, names: Vec::new() },
        token: None,
        proxies: Default::default(),
        names: Names::default(),
        log_level: Level::Debug,
        log_format: feed.pick(&[LogFormat::Logfmt, LogFormat::Json]),
        seed: 7,
    };
    let core = Core::new(options, SystemTime::UNIX_EPOCH);
    let mut event_loop = EventLoop::new(FuzzKernel::new(feed), vec![Listener], Box::new(core))
        .expect("the kernel has no faults before the first tick");
    if run(&mut event_loop) {
        return;
    }
    let kernel = event_loop.kernel_mut();
    if kernel.sockets.len().is_multiple_of(2) {
        kernel.end = End::ClientsGone { by: kernel.now + CLOSE_WITHIN };
        kernel.break_clients();
        if !run(&mut event_loop) {
            let left = &event_loop.kernel().sockets;
            assert!(left.is_empty(), "sockets are left open: {left:?}");
            assert_eq!(event_loop.keys_len(), 0, "keys are left in use");
        }
        return;
    }
    kernel.end = End::Signalled { by: kernel.now + EXIT_WITHIN };
    kernel.signal(Signal::Terminate);
    assert!(run(&mut event_loop), "no exit after a signal");
});

/// Runs the loop until it exits, and returns true, or until the kernel stops it.
fn run(event_loop: &mut EventLoop<FuzzKernel<'_>>) -> bool {
    loop {
        match event_loop.tick() {
            Ok(None) => {}
            Ok(Some(code)) => {
                assert_eq!(code, 0, "the exit code after a shutdown");
                return true;
            }
            Err(_) => return false,
        }
    }
}

const REQUESTS: [&str; 10] = [
    "GET /open-ports?domain=192.0.2.1&toPort=40 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "GET /open-ports?domain=db.example&toPort=3&family=4 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "GET /open-ports?domain=web&ports=1-5,9&addresses=all&include=closed,filtered&timeout=auto \
     HTTP/1.1\r\nHost: localhost\r\nAccept: application/x-ndjson\r\n\r\n",
    "GET /open-ports?domain=web.&ports=7&retries=3&timeout=10ms HTTP/1.1\r\nHost: localhost\r\n\
     Accept: text/event-stream\r\n\r\n",
    "GET /open-ports?domain=%5B2001:db8::1%5D&toPort=30&rate=100&concurrency=3 HTTP/1.0\r\n\r\n",
    "GET /open-ports?domain=localhost&toPort=20&deadline=2s HTTP/1.1\r\nHost: localhost\r\n\
     Accept: text/plain\r\n\r\n",
    "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "HEAD /readyz HTTP/1.1\r\nHost: localhost\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n",
    "GET /open-ports HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
];

const OUTCOMES: [Outcome; 12] = [
    Outcome::Refused,
    Outcome::Connected,
    Outcome::SelfConnect,
    Outcome::TimedOut,
    Outcome::Unreachable,
    Outcome::Shortage(Shortage::ProcessDescriptors),
    Outcome::Shortage(Shortage::SystemDescriptors),
    Outcome::Shortage(Shortage::Buffers),
    Outcome::Shortage(Shortage::Memory),
    Outcome::Shortage(Shortage::SourcePorts),
    Outcome::Shortage(Shortage::TryAgain),
    Outcome::Shortage(Shortage::Unknown),
];

const RESOLV_CONFS: [Option<&[u8]>; 4] = [
    None,
    Some(b"nameserver 192.0.2.53\nsearch a.test b.test\noptions ndots:2"),
    Some(b"nameserver 192.0.2.53\nnameserver ::1\noptions attempts:1 timeout:1"),
    Some(b"nameserver 192.0.2.53\noptions use-vc rotate no-aaaa"),
];

const HOSTS: [Option<&[u8]>; 3] =
    [None, Some(b"192.0.2.9 db.example web\n2001:db8::9 web"), Some(b"127.0.0.1 web")];

/// The maximum number of successive polls that neither wait nor return bytes.
const POLLS_MAX: usize = 1_000;
/// The maximum time of a shutdown. Scans end within 20 s, and a client that does not read is
/// dropped after 10 s more.
const EXIT_WITHIN: Duration = Duration::from_secs(60);
/// The maximum time until all descriptors of gone clients are closed. An interrupted call is
/// repeated after [`openports::limits::SOCKET_BACKOFF`].
const CLOSE_WITHIN: Duration = Duration::from_millis(100);

/// This bit is set in the tokens of the connect engine's sockets.
const ENGINE_TOKEN: usize = 1 << 31;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Client,
    Lookup(Transport),
    Probe,
}

#[derive(Debug)]
struct Socket {
    kind: Kind,
    token: Option<Token>,
    /// The connect in progress, and its outcome once it is decided.
    connect: Option<Option<Outcome>>,
    is_used: bool,
    /// The received pieces of a stream, or datagrams.
    inbox: VecDeque<Vec<u8>>,
    /// The bytes of the query that the core has written.
    outbox: Vec<u8>,
    /// The number of bytes that the client still accepts.
    window: usize,
    has_fin: bool,
    is_broken: bool,
}

/// What happens after the last byte of the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Bytes are left.
    Running,
    /// All clients have gone, and only interrupted calls are repeated.
    ClientsGone { by: Instant },
    /// A signal was sent, and time passes only while the loop sleeps.
    Signalled { by: Instant },
}

/// The only listener.
#[derive(Debug)]
struct Listener;

/// The number of an open socket.
#[derive(Debug)]
struct Descriptor(u64);

struct FuzzKernel<'a> {
    feed: Feed<'a>,
    origin: Instant,
    now: Instant,
    end: End,
    sockets: BTreeMap<u64, Socket>,
    sockets_len: u64,
    ready: VecDeque<Readiness>,
    closed: Vec<Token>,
    backlog: VecDeque<Option<SocketAddr>>,
    signals: VecDeque<Signal>,
    is_listening: bool,
    listener: Option<Token>,
    signal_token: Option<Token>,
    accept_fails: Option<Shortage>,
    /// The next read or write is interrupted.
    is_interrupted: bool,
    /// The next registration fails with ENOMEM.
    is_poller_full: bool,
    refuses_reuse: bool,
    polls_at_once: usize,
    readings: u32,
}

impl<'a> FuzzKernel<'a> {
    fn new(feed: Feed<'a>) -> Self {
        let now = Instant::now();
        Self {
            feed,
            origin: now,
            now,
            end: End::Running,
            sockets: BTreeMap::new(),
            sockets_len: 0,
            ready: VecDeque::new(),
            closed: Vec::new(),
            backlog: VecDeque::new(),
            signals: VecDeque::new(),
            is_listening: true,
            listener: None,
            signal_token: None,
            accept_fails: None,
            is_interrupted: false,
            is_poller_full: false,
            refuses_reuse: false,
            polls_at_once: 0,
            readings: 0,
        }
    }

    /// Applies one action of the input. `deadline` is the time until which the loop sleeps.
    fn apply_action(&mut self, deadline: Option<Instant>) {
        match self.feed.byte() % 16 {
            0 => {
                let v6: SocketAddr = (Ipv6Addr::LOCALHOST, 7).into();
                let peer = self.feed.pick(&[Some(([192, 0, 2, 1], 7).into()), Some(v6), None]);
                self.arrive(peer);
            }
            1..=3 => {
                let request = self.feed.pick(&REQUESTS);
                self.send(request.as_bytes());
            }
            4 => {
                let count = self.feed.byte();
                let bytes = self.feed.take(count.into());
                self.send(bytes);
            }
            5 => {
                if let Some(socket) = self.choose(|it| it.kind == Kind::Client) {
                    let window = 1 + usize::from(self.feed.byte()) * 16;
                    self.change(socket, |it| it.window += window);
                }
            }
            6 => self.close_or_break(),
            7..=8 => {
                if let Some(socket) = self.choose(|it| it.connect == Some(None)) {
                    let outcome = self.feed.pick(&OUTCOMES);
                    self.change(socket, |it| it.connect = Some(Some(outcome)));
                }
            }
            9 => {
                let outcome = self.feed.pick(&OUTCOMES);
                let connecting = self.sockets.iter().filter(|(_, it)| it.connect == Some(None));
                for socket in connecting.map(|(socket, _)| *socket).collect::<Vec<u64>>() {
                    self.change(socket, |it| it.connect = Some(Some(outcome)));
                }
            }
            10 => self.reply(),
            11 => {
                if !self.closed.is_empty() {
                    let token = self.feed.pick(&self.closed);
                    let flags = self.feed.byte();
                    self.ready.push_back(readiness(token, flags));
                }
            }
            12 => {
                self.accept_fails = Some(self.feed.pick(&Shortage::ALL));
                self.arrive(None);
            }
            13 => {
                let micros = [1, 1_000, 50_000, 1_000_000, 10_000_000, 80_000_000];
                self.now += Duration::from_micros(self.feed.pick(&micros));
            }
            14 => self.now = deadline.map_or(self.now, |at| at.max(self.now)),
            _ => match self.feed.byte() {
                0 => {
                    let signal = self.feed.pick(&[Signal::Terminate, Signal::Interrupt]);
                    self.signal(signal);
                }
                1 => self.is_interrupted = true,
                2 => self.is_poller_full = true,
                3 => self.refuses_reuse = true,
                _ => {}
            },
        }
    }

    fn signal(&mut self, signal: Signal) {
        self.signals.push_back(signal);
        self.ready.extend(self.signal_token.map(|token| readiness(token, 1)));
    }

    fn arrive(&mut self, peer: Option<SocketAddr>) {
        if self.is_listening {
            self.backlog.push_back(peer);
            self.ready.extend(self.listener.map(|token| readiness(token, 1)));
        }
    }

    /// Chooses one of the eligible sockets, or returns `None` without any.
    fn choose(&mut self, is_eligible: fn(&Socket) -> bool) -> Option<u64> {
        let sockets = self.sockets.iter().filter(|(_, socket)| is_eligible(socket));
        let numbers: Vec<u64> = sockets.map(|(number, _)| *number).collect();
        if numbers.is_empty() { None } else { Some(self.feed.pick(&numbers)) }
    }

    /// Changes a socket, and queues its event for the poller.
    fn change(&mut self, number: u64, change: impl FnOnce(&mut Socket)) {
        let Some(socket) = self.sockets.get_mut(&number) else { return };
        change(socket);
        let is_failed = socket.connect.flatten().is_some_and(|it| it != Outcome::Connected);
        if let Some(token) = socket.token {
            self.ready.push_back(Readiness {
                token,
                is_readable: true,
                is_writable: true,
                is_read_closed: socket.has_fin || socket.is_broken,
                is_error: socket.is_broken || is_failed,
            });
        }
    }

    /// A client sends bytes, in one piece or byte by byte.
    fn send(&mut self, bytes: &[u8]) {
        let can_send = |it: &Socket| it.kind == Kind::Client && !it.has_fin && !it.is_broken;
        let Some(socket) = self.choose(can_send) else { return };
        let piece_len = self.feed.pick(&[usize::MAX, 1]);
        self.change(socket, |it| it.inbox.extend(bytes.chunks(piece_len).map(<[u8]>::to_vec)));
    }

    /// A client sends a FIN, or a socket breaks.
    fn close_or_break(&mut self) {
        if self.feed.byte() % 3 < 2 {
            if let Some(socket) = self.choose(|it| it.kind == Kind::Client) {
                self.change(socket, |it| it.has_fin = true);
            }
        } else if let Some(socket) = self.choose(|it| it.kind != Kind::Probe) {
            self.change(socket, |it| it.is_broken = true);
        }
    }

    fn break_clients(&mut self) {
        self.backlog.clear();
        let clients = self.sockets.iter().filter(|(_, it)| it.kind == Kind::Client);
        for socket in clients.map(|(socket, _)| *socket).collect::<Vec<u64>>() {
            self.change(socket, |it| it.is_broken = true);
        }
    }

    /// A name server replies to a query with an address, or with records from the input.
    fn reply(&mut self) {
        let can_reply = |it: &Socket| matches!(it.kind, Kind::Lookup(_)) && it.outbox.len() > 18;
        let Some(socket) = self.choose(can_reply) else { return };
        let is_tcp = self.sockets[&socket].kind == Kind::Lookup(Transport::Tcp);
        let query = self.sockets[&socket].outbox[if is_tcp { 2 } else { 0 }..].to_vec();
        let mut message = query.clone();
        message[2] |= 0x80;
        message[3] = self.feed.pick(&[0x80, 0x80, 0x83, 0x82, 0]);
        message[7] = 1;
        let is_v4 = message[message.len() - 3] == 1;
        let (kind, len) = if is_v4 { (1, 4) } else { (28, 16) };
        if !self.feed.byte().is_multiple_of(4) {
            message.extend([0xc0, 12, 0, kind, 0, 1, 0, 0, 0, 60, 0, len]);
            message.extend([0x20, 1, 0x0d, 0xb8, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]);
            message.truncate(query.len() + 12 + usize::from(len));
        } else {
            message[2] |= self.feed.pick(&[0, 2]);
            message.extend_from_slice(self.feed.take(40));
        }
        if is_tcp {
            message.splice(0..0, (message.len() as u16).to_be_bytes());
        }
        self.change(socket, |it| it.inbox.push_back(message));
    }

    fn open(&mut self, kind: Kind) -> u64 {
        self.sockets_len += 1;
        let socket = Socket {
            kind,
            token: None,
            connect: None,
            is_used: false,
            inbox: VecDeque::new(),
            outbox: Vec::new(),
            window: 0,
            has_fin: false,
            is_broken: false,
        };
        self.sockets.insert(self.sockets_len, socket);
        self.sockets_len
    }

    fn socket(&mut self, number: u64) -> &mut Socket {
        self.sockets.get_mut(&number).expect("the socket is open")
    }
}

/// Bits of `flags`: readable, writable, read closed, error.
const fn readiness(token: Token, flags: u8) -> Readiness {
    Readiness {
        token,
        is_readable: flags & 1 != 0,
        is_writable: flags & 2 != 0,
        is_read_closed: flags & 4 != 0,
        is_error: flags & 8 != 0 && token.0 & ENGINE_TOKEN == 0,
    }
}

impl Kernel for FuzzKernel<'_> {
    type Listener = Listener;
    type RawSocket = ();
    type Socket = Descriptor;

    fn now(&self) -> Instant {
        self.now
    }

    fn wall(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + (self.now - self.origin)
    }

    /// If the loop would sleep, the next bytes of the input decide what wakes it. An error stops
    /// the run.
    fn poll(&mut self, timeout: Option<Duration>, ready: &mut Vec<Readiness>) -> io::Result<()> {
        if timeout == Some(Duration::ZERO) || !self.ready.is_empty() {
            self.polls_at_once += 1;
            assert!(self.polls_at_once < POLLS_MAX, "the loop spins");
        } else {
            self.polls_at_once = 0;
            let deadline = timeout.map(|timeout| self.now + timeout);
            match self.end {
                End::Running if self.feed.is_empty() => return Err(io::Error::other("the end")),
                End::Running => self.apply_action(deadline),
                End::ClientsGone { by } => match deadline {
                    Some(at) if at <= by => self.now = at,
                    Some(_) | None => return Err(io::Error::other("the loop sleeps too long")),
                },
                End::Signalled { by } => {
                    let at = deadline.expect("no deadline after a signal");
                    assert!(at <= by, "the shutdown takes too long");
                    self.now = at;
                }
            }
        }
        let count = self.ready.len().min(EVENTS_PER_TICK);
        ready.extend(self.ready.drain(..count));
        Ok(())
    }

    fn register(&mut self, source: EventSource<'_, Self>, token: Token) -> io::Result<()> {
        match source {
            EventSource::Socket(Descriptor(number)) => {
                if std::mem::take(&mut self.is_poller_full) {
                    return Err(io::ErrorKind::OutOfMemory.into());
                }
                let socket = self.socket(*number);
                assert!(socket.token.is_none(), "the socket is already registered");
                socket.token = Some(token);
                if socket.connect != Some(None) {
                    self.change(*number, |_| {});
                }
            }
            EventSource::Listener(Listener) => self.listener = Some(token),
            EventSource::Signals => self.signal_token = Some(token),
            EventSource::Raw(()) => panic!("no request uses SYN scans"),
            EventSource::Stdout => panic!("a service does not write to stdout"),
        }
        Ok(())
    }

    fn take_signal(&mut self) -> io::Result<Option<Signal>> {
        Ok(self.signals.pop_front())
    }

    fn notify_manager(&mut self, _: &str) {}

    fn accept(&mut self, Listener: &Listener) -> Accepted<Descriptor> {
        assert!(self.is_listening, "accept on a closed listener");
        if self.backlog.is_empty() {
            return Accepted::WouldBlock;
        }
        if let Some(shortage) = self.accept_fails.take() {
            return Accepted::Shortage(shortage);
        }
        let peer = self.backlog.pop_front().flatten();
        Accepted::Client(Descriptor(self.open(Kind::Client)), peer)
    }

    fn has_client(&mut self, Listener: &Listener) -> bool {
        !self.backlog.is_empty()
    }

    fn close_listener(&mut self, Listener: Listener) {
        assert!(self.is_listening, "the listener is already closed");
        self.is_listening = false;
        self.backlog.clear();
    }

    fn connect(&mut self, _: SocketAddr, transport: Transport) -> Result<Descriptor, Outcome> {
        if self.feed.byte() % 4 == 3 {
            return Err(self.feed.pick(&OUTCOMES[4..]));
        }
        let number = self.open(Kind::Lookup(transport));
        if transport == Transport::Tcp {
            self.socket(number).connect = Some(None);
        }
        Ok(Descriptor(number))
    }

    fn connect_outcome(&mut self, Descriptor(number): &Descriptor) -> Option<Outcome> {
        let socket = self.socket(*number);
        if socket.is_broken {
            return Some(Outcome::Refused);
        }
        socket.connect.flatten()
    }

    fn read(&mut self, Descriptor(number): &Descriptor, buffer: &mut [u8]) -> IoStep {
        if std::mem::take(&mut self.is_interrupted) {
            return IoStep::Retry;
        }
        let socket = self.socket(*number);
        if socket.is_broken {
            return IoStep::Broken;
        }
        let Some(mut piece) = socket.inbox.pop_front() else {
            return if socket.has_fin { IoStep::Eof } else { IoStep::WouldBlock };
        };
        let count = piece.len().min(buffer.len());
        buffer[..count].copy_from_slice(&piece[..count]);
        if count < piece.len() && socket.kind != Kind::Lookup(Transport::Udp) {
            socket.inbox.push_front(piece.split_off(count));
        } else if !socket.inbox.is_empty() {
            // After a short read the loop waits for another event, so the rest needs one.
            self.change(*number, |_| {});
        }
        // A loop that reads bytes does not spin, because their number is finite.
        self.polls_at_once = 0;
        IoStep::Done(count)
    }

    fn write(&mut self, Descriptor(number): &Descriptor, bytes: &[u8]) -> IoStep {
        if std::mem::take(&mut self.is_interrupted) {
            return IoStep::Retry;
        }
        let socket = self.socket(*number);
        if socket.is_broken {
            return IoStep::Broken;
        }
        let count = match socket.kind {
            Kind::Client => bytes.len().min(socket.window),
            Kind::Lookup(Transport::Udp) => {
                socket.outbox.clear();
                bytes.len()
            }
            Kind::Lookup(Transport::Tcp) => bytes.len(),
            Kind::Probe => panic!("probes send no data"),
        };
        if count == 0 {
            return IoStep::WouldBlock;
        }
        match socket.kind {
            Kind::Client => socket.window -= count,
            Kind::Lookup(_) | Kind::Probe => socket.outbox.extend(bytes),
        }
        IoStep::Done(count)
    }

    fn shutdown_write(&mut self, Descriptor(number): &Descriptor) {
        self.socket(*number);
    }

    fn close(&mut self, Descriptor(number): Descriptor) {
        let socket = self.sockets.remove(&number).expect("only open sockets are closed");
        self.closed.extend(socket.token);
    }

    fn open_probe(&mut self, _: &SocketAddr, _: Option<IpAddr>) -> Result<Descriptor, Outcome> {
        Ok(Descriptor(self.open(Kind::Probe)))
    }

    fn start_probe(
        &mut self,
        Descriptor(number): &Descriptor,
        _: &SocketAddr,
        past: Past,
    ) -> ProbeStep {
        if past == Past::Used && self.refuses_reuse {
            return ProbeStep::ReuseRefused;
        }
        let is_over = self.feed.byte() % 4 == 3;
        let outcome = is_over.then(|| self.feed.pick(&OUTCOMES));
        let socket = self.socket(*number);
        assert_eq!(socket.connect, None, "the socket is already connecting");
        assert_eq!(socket.is_used, past == Past::Used);
        socket.is_used = true;
        match outcome {
            Some(outcome) => ProbeStep::Over(outcome),
            None => {
                socket.connect = Some(None);
                ProbeStep::Pending
            }
        }
    }

    fn check_rejected(&mut self, _: &Descriptor) -> ProbeStep {
        ProbeStep::Pending
    }

    fn clear_error(&mut self, _: &Descriptor) {}

    fn check_probe(&mut self, Descriptor(number): &Descriptor, _: &SocketAddr) -> ProbeStep {
        let socket = self.socket(*number);
        match socket.connect.expect("only connecting sockets are checked") {
            Some(outcome) => {
                socket.connect = None;
                ProbeStep::Over(outcome)
            }
            None => ProbeStep::Pending,
        }
    }

    fn give_up_probe(&mut self, Descriptor(number): &Descriptor) -> bool {
        self.socket(*number).connect = None;
        !self.refuses_reuse
    }

    fn reset(&mut self, socket: Descriptor) {
        self.close(socket);
    }

    fn secret(&mut self) -> Result<[u64; 2], Shortage> {
        unreachable!("no request uses SYN scans")
    }

    fn reserve_port(&mut self, _: u16) -> Result<u16, Shortage> {
        unreachable!("no request uses SYN scans")
    }

    fn open_raw(&mut self, _: RawOptions) -> Result<(), Outcome> {
        unreachable!("no request uses SYN scans")
    }

    fn send_raw(&mut self, (): &(), _: &[RawPacket]) -> RawSendStep {
        unreachable!("no request uses SYN scans")
    }

    fn receive_raw(
        &mut self,
        (): &mut (),
        _: RawQueue,
        _: &mut dyn FnMut(Received<'_>),
    ) -> RawReceiveStep {
        unreachable!("no request uses SYN scans")
    }

    fn raw_overflow(&mut self, (): &mut ()) -> u32 {
        unreachable!("no request uses SYN scans")
    }

    fn route(&mut self, _: SocketAddr) -> RouteResult {
        let source = IpAddr::from([192, 0, 2, 254]);
        self.feed.pick(&[RouteResult::From(source), RouteResult::Nowhere, RouteResult::Unknown])
    }

    fn name_files(&mut self) -> NameFileTexts {
        let resolv_conf = self.feed.pick(&RESOLV_CONFS).map(<[u8]>::to_vec);
        let hosts = self.feed.pick(&HOSTS).map(<[u8]>::to_vec);
        NameFileTexts { resolv_conf, hosts }
    }

    fn token_file(&mut self) -> Option<Vec<u8>> {
        panic!("the service has no token")
    }

    fn process_files(&mut self, take: impl FnOnce(ProcessFiles<'_>)) {
        take(ProcessFiles::default());
    }

    /// The result depends only on the number of the reading, and takes no byte of the input.
    fn local_drops(&mut self) -> Option<LocalDrops> {
        self.readings += 1;
        let number = self.readings;
        let used = [0, 0, 600, 896, 1024][number as usize % 5];
        let refused = u64::from(number / 5);
        let table = NeighbourTable { entries_max: 1024, used, refused };
        let drops = LocalDrops {
            tables: [Some(table), Some(table)],
            networks: vec![([192, 0, 2, 254].into(), 24)],
            conntrack: Some(u64::from(number / 7 * 100)),
            queues: u64::from(number / 11 * 100),
        };
        (!number.is_multiple_of(9)).then_some(drops)
    }

    fn write_stdout(&mut self, _: &[u8]) -> IoStep {
        panic!("a service does not write to stdout")
    }

    fn write_log(&mut self, bytes: &[u8]) -> IoStep {
        assert!(!bytes.contains(&b'\r'), "a service does not show progress");
        IoStep::Done(bytes.len())
    }
}
