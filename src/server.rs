//! The shell's loop: waits, translates events, performs actions. It decides nothing.
//!
//! One thread, one poller. Listeners, clients, probes, DNS sockets and signals are all on it. Each
//! turn goes through the phases of the loop's contract (see the crate documentation), each with a
//! budget from `limits`, so that no source starves another. The only room that reads the clock.
//!
//! Readiness is edge-triggered, so it is told once: each socket remembers what it was told until
//! a call says "would block", and a socket that still has work waits on the ready list.
//!
//! Invariants: a socket in the table has the key the core gave it; one on the ready list says so
//! and stands there once; with the ready list not empty the loop does not sleep.

mod doors;
mod log;
mod printout;
mod resting;
mod sockets;

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::num::NonZeroU8;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use mio::event::Event as Readiness;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use socket2::Socket;

use self::log::LogQueue;
use self::printout::{STDOUT, Stdout};
use self::resting::Resting;
use self::sockets::{Entry, Queue, Sockets, Stage};
use crate::event::{Action, Event, Glance, Outcome, Parting, Shortage, Transport};
use crate::limits;
use crate::service::Service;
use crate::slots::Key;
use crate::sys::listeners::Listener;
use crate::sys::{self, IoStep, Signals};

/// The files that are read while the service runs.
#[derive(Clone, Debug)]
pub struct Files {
    /// resolv.conf(5).
    pub resolv_conf: PathBuf,
    /// hosts(5).
    pub hosts: PathBuf,
    /// The bearer token, if one is needed.
    pub token: Option<PathBuf>,
}

/// The tokens of the shell's own sources, above every key the core can have handed out.
const SIGNALS: Token = Token(usize::MAX);
const LISTENERS: usize = usize::MAX - 1024;

/// The loop and everything with a descriptor.
#[derive(Debug)]
pub struct Server {
    poll: Poll,
    events: Events,
    signals: Signals,
    /// True exactly when a signal may wait: its edge was told, and no read has said "none" since.
    may_signal: bool,
    listeners: Vec<Listener>,
    /// True exactly when a listener's queue may hold a client: its edge was told, and no accept
    /// has said "would block" since.
    may_accept: bool,
    sockets: Sockets,
    ready: VecDeque<Key>,
    /// Counts the turns, round and round, never 0. Where an old number comes again a socket
    /// waits a turn longer.
    turn: NonZeroU8,
    resting: Resting,
    service: Service,
    files: Files,
    buffer: Box<[u8]>,
    log: LogQueue,
    stdout: Stdout,
}

enum Pause {
    /// Poll without waiting.
    None,
    Until(Option<Instant>),
    Exit(u8),
}

impl Server {
    /// A server over listeners that are bound already.
    ///
    /// # Errors
    /// epoll_create1(2) and epoll_ctl(2).
    pub fn new(
        listeners: Vec<Listener>,
        signals: Signals,
        service: Service,
        files: Files,
    ) -> io::Result<Self> {
        let poll = Poll::new()?;
        let register = |descriptor: i32, token: Token| {
            poll.registry().register(&mut SourceFd(&descriptor), token, Interest::READABLE)
        };
        register(signals.as_raw_fd(), SIGNALS)?;
        for (index, listener) in listeners.iter().enumerate() {
            register(listener.as_raw_fd(), Token(LISTENERS + index))?;
        }
        Ok(Self {
            poll,
            events: Events::with_capacity(limits::EVENTS_PER_TURN),
            signals,
            may_signal: false,
            may_accept: !listeners.is_empty(),
            listeners,
            sockets: Sockets::with_capacity(service.sockets_max()),
            ready: VecDeque::new(),
            turn: NonZeroU8::MIN,
            resting: Resting::default(),
            service,
            files,
            buffer: vec![0; limits::READ_BYTES_MAX].into_boxed_slice(),
            log: LogQueue::default(),
            stdout: Stdout::Willing,
        })
    }

    /// Turns until the core says [`Action::Exit`], and returns its code.
    ///
    /// # Errors
    /// epoll_wait(2), other than for an interruption: the poller itself is broken.
    pub fn run(mut self) -> io::Result<u8> {
        let mut now = Instant::now();
        self.service.handle(Event::Tick { wall: SystemTime::now(), worked: Duration::ZERO }, now);
        let mut pause = self.perform(now);
        let code = loop {
            let worked = now.elapsed();
            let timeout = match pause {
                Pause::None => Some(Duration::ZERO),
                Pause::Until(deadline) => self.wait_limit(deadline),
                Pause::Exit(code) => break code,
            };
            if let Err(error) = self.poll.poll(&mut self.events, timeout)
                && error.kind() != io::ErrorKind::Interrupted
            {
                return Err(error);
            }
            now = Instant::now();
            self.turn = self.turn.checked_add(1).unwrap_or(NonZeroU8::MIN);
            self.dispatch(now);
            self.service.handle(Event::Tick { wall: SystemTime::now(), worked }, now);
            self.accept(now);
            pause = self.perform(now);
            self.service.handle_log_dropped(self.log.flush());
            // Stdout and stderr may be one terminal: the progress line is wiped before what takes
            // its place is printed.
            if self.print(now) && !matches!(pause, Pause::Exit(_)) {
                pause = Pause::None;
            }
        };
        self.log.flush();
        Ok(code)
    }

    /// How long to sleep: not at all while readiness is remembered, and not for long while stdout
    /// or stderr are to take something, or a socket rests.
    fn wait_limit(&self, deadline: Option<Instant>) -> Option<Duration> {
        if !self.ready.is_empty() || self.may_accept && self.service.wants_connections() {
            return Some(Duration::ZERO);
        }
        let until = deadline.into_iter().chain(self.resting.ends_at()).min();
        let until = until.map(|at| at.saturating_duration_since(Instant::now()));
        until.into_iter().chain(self.output_limit()).min()
    }

    /// Phases 3 and 4: signals first, then sockets, then what is left over from earlier turns.
    fn dispatch(&mut self, now: Instant) {
        self.wake(now);
        let leftovers = self.ready.len().min(limits::READY_PER_TURN);
        let events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        self.may_signal |= events.iter().any(|event| event.token() == SIGNALS);
        self.take_signals(now);
        for event in events.iter() {
            match event.token() {
                SIGNALS | STDOUT => {}
                Token(token) if token >= LISTENERS => self.may_accept = true,
                Token(token) => self.handle_readiness(Key::from_token(token), event, now),
            }
        }
        self.events = events;
        for _ in 0..leftovers {
            let Some(key) = self.ready.pop_front() else { break };
            let Some(entry) = self.sockets.entry(key) else { continue };
            entry.queue = Queue::None;
            match entry.stage {
                Stage::Stream | Stage::Datagrams => self.attend(key, now),
                Stage::Connecting => {
                    if let Some(failure) = sys::failure(&entry.socket) {
                        self.finish_connect(key, failure, now);
                    }
                }
            }
        }
    }

    fn take_signals(&mut self, now: Instant) {
        while self.may_signal {
            match self.signals.take() {
                Ok(Some(signal)) => self.service.handle(Event::Signal(signal), now),
                Ok(None) => self.may_signal = false,
                Err(_) => return self.resting.begin(now),
            }
        }
    }

    fn handle_readiness(&mut self, key: Key, event: &Readiness, now: Instant) {
        let Some(entry) = self.sockets.entry(key) else { return };
        if entry.stage == Stage::Connecting {
            let outcome = match event.is_error() {
                true => sys::failure(&entry.socket).or_else(|| sys::success(&entry.socket)),
                false => sys::success(&entry.socket),
            };
            match outcome {
                Some(outcome) => self.finish_connect(key, outcome, now),
                // An ICMP error may be told a moment before SO_ERROR has it: ask again next turn.
                None if event.is_error() => self.list(key),
                None => {}
            }
            return;
        }
        entry.readable |= event.is_readable() || event.is_error();
        entry.writable |= event.is_writable() || event.is_error();
        if event.is_read_closed() {
            entry.readable = true;
            entry.read_closed = true;
        }
        self.attend(key, now);
        if event.is_read_closed() && self.sockets.entry(key).is_some_and(|entry| entry.readable) {
            // Bytes may stand before the FIN that the core does not want yet.
            self.service.handle(Event::Hangup { socket: key }, now);
        }
    }

    /// Tells the core of a connect's end.
    fn finish_connect(&mut self, key: Key, outcome: Outcome, now: Instant) {
        if let Some(entry) = self.sockets.entry(key) {
            entry.stage = Stage::Stream;
            entry.writable = true;
            self.service.handle(Event::Connect { socket: key, outcome }, now);
        }
    }

    /// Puts a socket on the ready list, once.
    fn list(&mut self, key: Key) {
        if let Some(entry) = self.sockets.entry(key)
            && entry.queue == Queue::None
        {
            entry.queue = Queue::Ready;
            self.ready.push_back(key);
        }
    }

    /// Writes what the core wants, then reads, each once. Of a connect under way neither is
    /// permitted.
    fn attend(&mut self, key: Key, now: Instant) {
        let Some(mut entry) = self.sockets.take(key) else { return };
        if !entry.is_watched {
            entry.is_watched = self.watch(key, &entry.socket);
        }
        self.write_output(key, &mut entry, now);
        if entry.readable && self.service.bytes_wanted(key) > 0 {
            self.read_input(key, &mut entry, now);
        }
        self.restore(key, entry, now);
    }

    /// Writes what the core wants. What it would read waits for the next turn, or a client that
    /// sends as fast as we read would never let a drain end.
    fn flush(&mut self, key: Key, now: Instant) {
        let Some(mut entry) = self.sockets.take(key) else { return };
        self.write_output(key, &mut entry, now);
        self.restore(key, entry, now);
    }

    /// Puts a socket back into the table, and on the list that it belongs to.
    fn restore(&mut self, key: Key, mut entry: Entry, now: Instant) {
        let rests = std::mem::take(&mut entry.is_short) || !entry.is_watched;
        let wants_more = entry.readable && self.service.bytes_wanted(key) > 0
            || entry.writable && !self.service.output(key).is_empty();
        self.sockets.put_back(key, entry);
        if rests {
            self.rest(key, now);
        } else if wants_more {
            self.list(key);
        }
    }

    /// Writes once in a turn, so that a client that asks without end is served a piece at a time.
    fn write_output(&mut self, key: Key, entry: &mut Entry, now: Instant) {
        let output = self.service.output(key);
        if !entry.writable || entry.written_in == Some(self.turn) || output.is_empty() {
            return;
        }
        entry.written_in = Some(self.turn);
        match sys::write(&entry.socket, output) {
            IoStep::Done(count) => self.service.handle(Event::Sent { socket: key, count }, now),
            IoStep::Blocked => entry.writable = false,
            IoStep::Short => entry.is_short = true,
            IoStep::End | IoStep::Broken => {
                entry.writable = false;
                entry.readable = false;
                self.service.handle(Event::Broken { socket: key }, now);
            }
        }
    }

    fn read_input(&mut self, key: Key, entry: &mut Entry, now: Instant) {
        let wanted = self.service.bytes_wanted(key).min(self.buffer.len());
        match sys::read(&entry.socket, &mut self.buffer[..wanted]) {
            IoStep::Done(count) => {
                // A short read emptied a stream (epoll(7)); only a FIN may still stand there. Of
                // datagrams each read takes one, and others may wait behind it.
                entry.readable = match entry.stage {
                    Stage::Datagrams => true,
                    Stage::Stream | Stage::Connecting => count == wanted || entry.read_closed,
                };
                let bytes = &self.buffer[..count];
                self.service.handle(Event::Received { socket: key, bytes }, now);
            }
            IoStep::End => {
                entry.readable = false;
                self.service.handle(Event::ReadClosed { socket: key }, now);
            }
            IoStep::Blocked => entry.readable = false,
            IoStep::Short => entry.is_short = true,
            IoStep::Broken => {
                entry.readable = false;
                entry.writable = false;
                self.service.handle(Event::Broken { socket: key }, now);
            }
        }
    }

    /// Phase 7: performs actions until the core waits. A failure is an event in the same drain.
    fn perform(&mut self, now: Instant) -> Pause {
        loop {
            match self.service.poll_action(now) {
                Action::Connect { socket, to, transport, glance } => {
                    let outcome = self.connect(socket, to, transport, glance);
                    if let Some(outcome) = outcome {
                        self.service.handle(Event::Connect { socket, outcome }, now);
                    }
                }
                Action::Attend(key) => self.flush(key, now),
                Action::ShutdownWrite(key) => {
                    if let Some(entry) = self.sockets.entry(key) {
                        sys::shutdown_write(&entry.socket);
                    }
                }
                Action::Close { socket, parting } => self.close(socket, parting),
                Action::FindRoute { request, to } => {
                    let route = sys::route(to);
                    self.service.handle(Event::Route { request, to, route }, now);
                }
                Action::ReadNameFiles => self.read_name_files(now),
                Action::ReadTokenFile => {
                    let token = self.files.token.as_deref().map(sys::read_secret);
                    let token = token.and_then(Result::ok);
                    self.service.handle(Event::TokenFile(token.as_deref()), now);
                }
                Action::CloseListeners => self.close_listeners(now),
                Action::Log(line) => {
                    if !self.log.push(&line) {
                        self.service.handle_log_dropped(1);
                    }
                }
                Action::ShowProgress(line) => self.log.push_progress(&line),
                Action::Exit(code) => return Pause::Exit(code),
                Action::Yield => return Pause::None,
                Action::Wait(deadline) => return Pause::Until(deadline),
            }
        }
    }

    /// Starts a connect; the outcome, if the kernel had it at once.
    fn connect(
        &mut self,
        key: Key,
        to: SocketAddr,
        transport: Transport,
        glance: Glance,
    ) -> Option<Outcome> {
        let socket = match sys::connect(&to.into(), transport) {
            Ok(socket) => socket,
            Err(outcome) => return Some(outcome),
        };
        if glance == Glance::AtOnce {
            // Over before the poller knew of it, and a failure before the table did: dropping
            // the socket closes it.
            if let Some(failure) = sys::failure(&socket) {
                return Some(failure);
            }
            if let Some(success) = sys::success(&socket) {
                self.sockets.insert(key, socket, Stage::Stream);
                return Some(success);
            }
        }
        let (stage, outcome) = match transport {
            Transport::Udp => (Stage::Datagrams, Some(Outcome::Connected)),
            Transport::Tcp => (Stage::Connecting, None),
        };
        if self.watch(key, &socket) {
            self.sockets.insert(key, socket, stage);
            return outcome;
        }
        Some(Outcome::Shortage(Shortage::Memory))
    }

    /// Puts a socket on the poller; false where the kernel has no room for it (epoll_ctl(2):
    /// ENOMEM, ENOSPC).
    fn watch(&self, key: Key, socket: &Socket) -> bool {
        let token = Token(key.into_token());
        assert!(token.0 < LISTENERS, "no key reaches the shell's own tokens");
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(&mut SourceFd(&socket.as_raw_fd()), token, interest).is_ok()
    }

    fn close(&mut self, key: Key, parting: Parting) {
        if let Some(entry) = self.sockets.take(key) {
            sys::close(entry.socket, parting);
        }
    }

    fn read_name_files(&mut self, now: Instant) {
        let bytes_max = limits::NAME_FILE_BYTES_MAX;
        let resolv_conf = sys::read_file(&self.files.resolv_conf, bytes_max);
        let hosts = sys::read_file(&self.files.hosts, bytes_max);
        let event =
            Event::NameFiles { resolv_conf: resolv_conf.as_deref(), hosts: hosts.as_deref() };
        self.service.handle(event, now);
    }
}
