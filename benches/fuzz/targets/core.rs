//! The whole core: the bytes decide what the world does, and the core's assertions judge.
//!
//! `World` keeps the shell's side of the contract: it tells of a socket only what can happen to
//! it, closes what it is told to close, and ticks. Beyond the assertions it judges that a drain
//! ends, that a turn is not asked for without end at the same instant, that no key is closed
//! twice, that a client who is gone leaves no descriptor behind, and that a signal ends it all.
#![no_main]

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant, SystemTime};

use libfuzzer_sys::fuzz_target;
use openports::budget::Shares;
use openports::event::{Action, Event, Outcome, Route, Shortage, Signal, Transport};
use openports::limits::Settings;
use openports::names::Names;
use openports::policy::clients::HostGuard;
use openports::policy::{Policy, Reach};
use openports::report::log::{Format, Level};
use openports::service::{Options, Service};
use openports::slots::Key;
use openports_fuzz::Feed;

fuzz_target!(|bytes: &[u8]| {
    let mut world = World::new(bytes);
    while !world.feed.is_empty() && world.end == End::Running {
        world.act();
        world.turn();
    }
    if world.end == End::Running {
        world.finish();
    }
});

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
    Outcome::MetItself,
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

/// Actions of one drain, and turns at one instant, beyond which nothing will end it.
const ACTIONS_MAX: usize = 10_000;
const TURNS_MAX: usize = 1_000;
/// Scans end within the drain's 20 s, a client who takes nothing is given up after 10 s more.
const EXIT_WITHIN: Duration = Duration::from_secs(60);

/// What the shell knows of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Socket {
    /// A connect under way.
    Connecting(Transport),
    /// A connect that has its outcome, for good or ill.
    Settled(Transport),
    Client,
    /// A client whose FIN came.
    HalfClosed,
    /// Nothing comes of it any more; its close is awaited.
    Broken,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Running,
    Exited,
}

struct World<'a> {
    feed: Feed<'a>,
    service: Service,
    start: Instant,
    now: Instant,
    sockets: BTreeMap<Key, Socket>,
    /// Keys that were closed lately, for events that come too late.
    closed: Vec<Key>,
    is_listening: bool,
    waits_until: Option<Instant>,
    end: End,
}

impl<'a> World<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        let mut feed = Feed::new(bytes);
        let shares = Shares { connections: 3, lookups: 2, probes: feed.pick(&[16, 1, 5, 64]) };
        let settings = Settings { scans_max: 3, scans_per_client_max: 2, ..Settings::default() };
        let reach = feed.pick(&[Reach::LoopbackOnly, Reach::Outside]);
        let options = Options {
            settings,
            shares,
            policy: Policy { allow: Vec::new(), deny: Vec::new(), reach },
            host_guard: HostGuard { reach, names: Vec::new() },
            token: None,
            proxies: Default::default(),
            names: Names::default(),
            log_level: Level::Debug,
            log_format: feed.pick(&[Format::Logfmt, Format::Json]),
            seed: 7,
        };
        let now = Instant::now();
        Self {
            feed,
            service: Service::new(options, SystemTime::UNIX_EPOCH),
            start: now,
            now,
            sockets: BTreeMap::new(),
            closed: Vec::new(),
            is_listening: true,
            waits_until: None,
            end: End::Running,
        }
    }

    /// Lets one thing happen.
    fn act(&mut self) {
        match self.feed.byte() % 16 {
            0 => self.accept(),
            1..=3 => {
                let request = self.feed.pick(&REQUESTS);
                self.receive(request.as_bytes());
            }
            4 => {
                let count = self.feed.byte();
                let bytes = self.feed.take(count.into());
                self.receive(bytes);
            }
            5 => self.send(),
            6 => self.part(),
            7..=8 => self.settle_one(),
            9 => self.settle_all(),
            10 => self.reply(),
            11 => self.be_late(),
            12 => self.fail_accept(),
            13 => {
                let micros = [1, 1_000, 50_000, 1_000_000, 10_000_000, 80_000_000];
                self.now += Duration::from_micros(self.feed.pick(&micros));
            }
            14 => self.now = self.waits_until.map_or(self.now, |at| at.max(self.now)),
            _ if self.feed.byte() == 0 => {
                let signal = self.feed.pick(&[Signal::Terminate, Signal::Interrupt]);
                self.handle(Event::Signal(signal));
            }
            _ => {}
        }
    }

    fn handle(&mut self, event: Event) {
        self.service.handle(event, self.now);
    }

    /// One of the sockets in a state; `None` if there is none.
    fn choose(&mut self, wanted: fn(Socket) -> bool) -> Option<Key> {
        let sockets = self.sockets.iter().filter(|(_, socket)| wanted(**socket));
        let keys: Vec<Key> = sockets.map(|(key, _)| *key).collect();
        if keys.is_empty() { None } else { Some(self.feed.pick(&keys)) }
    }

    fn accept(&mut self) {
        if self.is_listening && self.service.wants_connections() {
            let v6: SocketAddr = (Ipv6Addr::LOCALHOST, 7).into();
            let peer = self.feed.pick(&[Some(([192, 0, 2, 1], 7).into()), Some(v6), None]);
            let key = self.service.handle_accepted(peer, self.now);
            assert!(self.sockets.insert(key, Socket::Client).is_none(), "a key is free");
        }
    }

    /// A client says something, in one piece or byte by byte.
    fn receive(&mut self, bytes: &[u8]) {
        let Some(socket) = self.choose(|it| it == Socket::Client) else { return };
        let piece_len = self.feed.pick(&[usize::MAX, 1]);
        for mut piece in bytes.chunks(piece_len) {
            // A client that was closed meanwhile wants nothing.
            while !piece.is_empty() && self.service.bytes_wanted(socket) > 0 {
                let wanted = self.service.bytes_wanted(socket).min(piece.len());
                self.handle(Event::Received { socket, bytes: &piece[..wanted] });
                piece = &piece[wanted..];
            }
        }
    }

    /// The kernel takes output: of a client all or a part, of a datagram all.
    fn send(&mut self) {
        let is_open = |it| !matches!(it, Socket::Connecting(_) | Socket::Broken);
        let Some(socket) = self.choose(is_open) else { return };
        let len = self.service.output(socket).len();
        let is_whole = self.sockets.get(&socket) == Some(&Socket::Settled(Transport::Udp));
        let part = 1 + usize::from(self.feed.byte()) * 16;
        let count = if is_whole { len } else { len.min(part) };
        if count > 0 {
            self.handle(Event::Sent { socket, count });
        }
    }

    /// Somebody closes, or a socket breaks.
    fn part(&mut self) {
        match self.feed.byte() % 3 {
            0 => {
                if let Some(socket) = self.choose(|it| it == Socket::Client) {
                    self.sockets.insert(socket, Socket::HalfClosed);
                    self.handle(Event::ReadClosed { socket });
                }
            }
            1 => {
                if let Some(socket) = self.choose(|it| it == Socket::Client) {
                    self.handle(Event::Hangup { socket });
                }
            }
            _ => {
                let is_open = |it| !matches!(it, Socket::Connecting(_) | Socket::Broken);
                if let Some(socket) = self.choose(is_open) {
                    self.sockets.insert(socket, Socket::Broken);
                    self.handle(Event::Broken { socket });
                }
            }
        }
    }

    fn settle_one(&mut self) {
        let Some(socket) = self.choose(|it| matches!(it, Socket::Connecting(_))) else { return };
        let outcome = self.feed.pick(&OUTCOMES);
        self.settle(socket, outcome);
    }

    /// Every connect under way comes to the same.
    fn settle_all(&mut self) {
        let outcome = self.feed.pick(&OUTCOMES);
        let keys: Vec<Key> = self.sockets.keys().copied().collect();
        for socket in keys {
            if matches!(self.sockets.get(&socket), Some(Socket::Connecting(_))) {
                self.settle(socket, outcome);
            }
        }
    }

    fn settle(&mut self, socket: Key, outcome: Outcome) {
        let Some(Socket::Connecting(transport)) = self.sockets.get(&socket).copied() else {
            return;
        };
        self.sockets.insert(socket, Socket::Settled(transport));
        self.handle(Event::Connect { socket, outcome });
    }

    /// A name server answers: with what the bytes say behind our own question, or with an address.
    fn reply(&mut self) {
        let Some(socket) = self.choose(|it| matches!(it, Socket::Settled(_))) else { return };
        let is_tcp = self.sockets.get(&socket) == Some(&Socket::Settled(Transport::Tcp));
        let query = self.service.output(socket).to_vec();
        let query = query.get(if is_tcp { 2 } else { 0 }..).unwrap_or_default();
        if query.len() < 17 {
            return;
        }
        let mut message = query.to_vec();
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
        if self.service.bytes_wanted(socket) > 0 {
            self.handle(Event::Received { socket, bytes: &message });
        }
    }

    /// Something is told of a socket that is closed already.
    fn be_late(&mut self) {
        if self.closed.is_empty() {
            return;
        }
        let socket = self.feed.pick(&self.closed);
        let outcome = self.feed.pick(&OUTCOMES);
        match self.feed.byte() % 6 {
            0 => self.handle(Event::Connect { socket, outcome }),
            1 => self.handle(Event::Received { socket, bytes: b"GET / HTTP/1.1\r\n" }),
            2 => self.handle(Event::ReadClosed { socket }),
            3 => self.handle(Event::Hangup { socket }),
            4 => self.handle(Event::Sent { socket, count: 1 }),
            _ => self.handle(Event::Broken { socket }),
        }
        assert_eq!(self.service.bytes_wanted(socket), 0, "nobody wants what comes too late");
        assert!(self.service.output(socket).is_empty(), "nobody says anything to who has gone");
    }

    fn fail_accept(&mut self) {
        if self.is_listening && self.service.wants_connections() {
            let shortage = self.feed.pick(&Shortage::ALL);
            self.handle(Event::AcceptFailed(shortage));
            assert!(!self.service.wants_connections(), "the listener is parked");
        }
    }

    /// Ticks and drains until the core waits; the bytes decide what system calls come to.
    fn turn(&mut self) {
        for _ in 0..TURNS_MAX {
            let wall = SystemTime::UNIX_EPOCH + (self.now - self.start);
            self.handle(Event::Tick { wall, worked: Duration::from_micros(10) });
            if self.drain() {
                return;
            }
        }
        panic!("turns are asked for without end at the same instant");
    }

    /// Performs actions; true exactly when the core waits, false where it yields.
    fn drain(&mut self) -> bool {
        for _ in 0..ACTIONS_MAX {
            match self.service.poll_action(self.now) {
                Action::Connect { socket, transport, .. } => self.connect(socket, transport),
                Action::Attend(key) => {
                    assert!(self.sockets.contains_key(&key), "what is attended to is open");
                }
                Action::ShutdownWrite(key) => {
                    assert!(self.sockets.contains_key(&key), "what is shut down is open");
                }
                Action::Close { socket, .. } => {
                    assert!(self.sockets.remove(&socket).is_some(), "nothing is closed twice");
                    self.closed.push(socket);
                }
                Action::FindRoute { request, to } => {
                    let source = IpAddr::from([192, 0, 2, 254]);
                    let routes = [Route::From(source), Route::Nowhere, Route::Unknown];
                    let route = self.feed.pick(&routes);
                    self.handle(Event::Route { request, to, route });
                }
                Action::ReadTokenFile => panic!("no token is needed"),
                Action::ReadNameFiles => {
                    let resolv_conf = self.feed.pick(&RESOLV_CONFS);
                    let hosts = self.feed.pick(&HOSTS);
                    self.handle(Event::NameFiles { resolv_conf, hosts });
                }
                Action::CloseListeners => {
                    assert!(self.is_listening, "listeners are closed once");
                    self.is_listening = self.service.keeps_listeners();
                }
                Action::Log(line) => assert!(!line.contains('\n'), "a record is one line"),
                Action::ShowProgress(line) => panic!("a service shows no progress: {line}"),
                Action::Exit(code) => {
                    assert_eq!(code, 0, "a drained service has done its work");
                    self.end = End::Exited;
                    return true;
                }
                Action::Yield => return false,
                Action::Wait(deadline) => {
                    assert!(deadline.is_none_or(|at| at > self.now), "a deadline is to come");
                    self.waits_until = deadline;
                    return true;
                }
            }
        }
        panic!("a drain comes to its end");
    }

    fn connect(&mut self, socket: Key, transport: Transport) {
        let connecting = Socket::Connecting(transport);
        assert!(self.sockets.insert(socket, connecting).is_none(), "a key is free");
        let is_over = self.feed.byte() % 4 == 3;
        match transport {
            // A datagram socket is connected at once, or there is none.
            Transport::Udp if is_over => {
                let outcome = self.feed.pick(&OUTCOMES[4..]);
                self.settle(socket, outcome);
            }
            Transport::Udp => self.settle(socket, Outcome::Connected),
            Transport::Tcp if is_over => {
                let outcome = self.feed.pick(&OUTCOMES);
                self.settle(socket, outcome);
            }
            Transport::Tcp => {}
        }
    }

    /// The bytes are used up: either every client goes, or a signal comes.
    fn finish(&mut self) {
        let is_client = |it| matches!(it, Socket::Client | Socket::HalfClosed);
        if self.sockets.len().is_multiple_of(2) {
            while let Some(socket) = self.choose(is_client) {
                self.sockets.insert(socket, Socket::Broken);
                self.handle(Event::Broken { socket });
            }
            self.turn();
            let left = &self.sockets;
            assert!(left.is_empty() || self.end == End::Exited, "left behind: {left:?}");
            return;
        }
        self.handle(Event::Signal(Signal::Terminate));
        self.turn();
        let ends_by = self.now + EXIT_WITHIN;
        while self.end == End::Running {
            let Some(at) = self.waits_until else { panic!("it waits for nothing, and stays") };
            assert!(at <= ends_by, "clients and scans were told to end");
            self.now = at;
            self.turn();
        }
    }
}
