//! The event loop: waits for readiness, passes events to the core, and performs the core's actions.
//!
//! It makes no decisions. One thread waits on one poller, on which all listeners, clients, probes,
//! DNS sockets and signals are registered. Each tick has the phases of the loop's contract (see the
//! crate documentation), each with a bound from `limits`, so that no source starves another. System
//! calls go through a `Kernel`: the real one in the service, a simulated one in the simulation, the
//! fuzz target and the benches.
//!
//! Readiness is edge-triggered, so the poller reports it only once. The loop stores the reported
//! readiness of each socket until a call returns "would block", and keeps a socket with more work
//! on the ready list.
//!
//! Invariants: each socket in the table has the key that the core assigned to it; a socket is on
//! the ready list at most once, and its entry says whether it is; the loop does not wait while the
//! ready list is not empty.

mod accept;
mod backoff;
mod connect_engine;
mod contract;
mod engines;
mod log;
mod probe;
mod socket_io;
mod sockets;
mod stdout;
mod syn_engine;

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::num::NonZeroU8;
use std::time::{Duration, Instant};

use self::backoff::Backoff;
use self::contract::Contract;
use self::engines::Engines;
use self::log::LogQueue;
use self::probe::{ProbeOutcome, ProbeRequest};
use self::sockets::{QueuedIn, SocketStage, SocketTable};
use self::stdout::{STDOUT, Stdout};
use crate::core::Core;
use crate::event::{Action, Backlog, Event, Outcome, Shortage, Transport};
use crate::kernel::{EventSource, Kernel, NameFileTexts, Readiness, Token};
use crate::limits;
use crate::slots::Key;

/// The token of the signals. The tokens of the loop's own sources are greater than that of any key
/// that the core assigns. The tokens of the probe engines have a bit that no key has
/// (`connect_engine`).
const SIGNALS: Token = Token(usize::MAX);
/// The token of the first listener.
const LISTENERS: usize = usize::MAX - 1024;

/// The event loop with its core, its kernel and all sockets.
pub struct EventLoop<K: Kernel> {
    kernel: K,
    /// Boxed, because it has many kilobytes, which are moved on the stack otherwise.
    core: Box<Core>,
    /// The readiness that the poller reported in this tick.
    readiness: Vec<Readiness>,
    /// Whether a signal may wait: the poller has reported one, and no read has found none since.
    may_signal: bool,
    listeners: Vec<K::Listener>,
    /// Whether a client may wait in the queue of a listener: the poller has reported one, and
    /// `accept` has not returned "would block" for every listener since.
    may_accept: bool,
    sockets: SocketTable<K::Socket>,
    engines: Engines<K>,
    /// The number of consecutive ticks in which the poller reported `EVENTS_PER_TICK` events, so
    /// that further events may wait.
    full_ticks: u32,
    ready: VecDeque<Key>,
    /// The number of bytes that may still be read from the present group of sockets in this tick.
    read_left: usize,
    /// The number of this tick, which wraps and is never 0. If a socket was last written in a tick
    /// with the same number, its next write is delayed by one tick, which is harmless.
    tick_number: NonZeroU8,
    /// The time of this tick, read once after the poll.
    now: Instant,
    pause: Pause,
    backoff: Backoff,
    buffer: Box<[u8]>,
    log: LogQueue,
    stdout: Stdout,
    contract: Contract,
}

/// The end of the last tick, which determines how long the next poll waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pause {
    /// There was no tick yet. The first tick does not poll.
    Start,
    /// There is more work: the next poll does not wait.
    None,
    /// There is no work before this time, or before the next event if it is `None`.
    Until(Option<Instant>),
    /// The core has ended with this exit code.
    Exit(u8),
}

impl<K: Kernel> EventLoop<K> {
    /// Creates a loop, and registers the signals and the listeners with the poller.
    ///
    /// # Errors
    /// Errors of epoll_ctl(2).
    pub fn new(mut kernel: K, listeners: Vec<K::Listener>, core: Box<Core>) -> io::Result<Self> {
        kernel.register(EventSource::Signals, SIGNALS)?;
        for (index, listener) in listeners.iter().enumerate() {
            kernel.register(EventSource::Listener(listener), Token(LISTENERS + index))?;
        }
        Ok(Self {
            readiness: Vec::with_capacity(limits::EVENTS_PER_TICK),
            may_signal: false,
            may_accept: !listeners.is_empty(),
            listeners,
            sockets: SocketTable::new(),
            engines: Engines::new(&core, kernel.now()),
            full_ticks: 0,
            ready: VecDeque::new(),
            read_left: 0,
            tick_number: NonZeroU8::MIN,
            now: kernel.now(),
            pause: Pause::Start,
            backoff: Backoff::default(),
            buffer: vec![0; limits::READ_BYTES_MAX].into_boxed_slice(),
            log: LogQueue::default(),
            stdout: Stdout::Unregistered,
            contract: Contract::default(),
            kernel,
            core,
        })
    }

    /// Runs ticks until the core requests [`Action::Exit`], and returns its exit code.
    ///
    /// # Errors
    /// See [`EventLoop::tick`].
    pub fn run(mut self) -> io::Result<u8> {
        loop {
            if let Some(code) = self.tick()? {
                return Ok(code);
            }
        }
    }

    /// Runs one tick: waits for events, and performs the phases of the loop's contract. Returns the
    /// exit code if the core has requested [`Action::Exit`].
    ///
    /// # Errors
    /// Errors of epoll_wait(2) except EINTR: the poller itself does not work. No event was handled,
    /// so the tick may be repeated.
    pub fn tick(&mut self) -> io::Result<Option<u8>> {
        let now = if self.pause == Pause::Start {
            // The first tick neither polls nor accepts. Clients are accepted from the next tick on.
            self.handle_tick(self.now, Duration::ZERO);
            self.now
        } else {
            let worked = self.kernel.now().saturating_duration_since(self.now);
            self.poll()?;
            let now = self.kernel.now();
            self.now = now;
            self.core.handle(Event::Clock { wall: self.kernel.wall() }, now);
            self.tick_number = self.tick_number.checked_add(1).unwrap_or(NonZeroU8::MIN);
            self.dispatch(now);
            self.handle_tick(now, worked);
            self.accept(now);
            now
        };
        self.pause = self.perform(now);
        self.core.handle_log_dropped(self.log.flush(&mut self.kernel));
        // Stdout and stderr may be the same terminal, so stderr is written first: the progress line
        // must be cleared before results are printed in its place.
        let has_idle_sockets = matches!(self.pause, Pause::Until(_))
            && self.engines.trim(&mut self.kernel, &self.core);
        let has_more = self.print(now) || has_idle_sockets;
        match self.pause {
            Pause::Exit(code) => {
                self.log.flush(&mut self.kernel);
                return Ok(Some(code));
            }
            Pause::None | Pause::Until(_) if has_more => self.pause = Pause::None,
            Pause::Start | Pause::None | Pause::Until(_) => {}
        }
        Ok(None)
    }

    /// The number of keys that the core has begun and not ended; 0 in release builds.
    pub fn keys_len(&self) -> usize {
        self.contract.len()
    }

    /// The kernel, which a simulation changes between ticks.
    pub const fn kernel(&self) -> &K {
        &self.kernel
    }

    /// See [`EventLoop::kernel`].
    pub const fn kernel_mut(&mut self) -> &mut K {
        &mut self.kernel
    }

    /// The core, which a simulation inspects between ticks.
    pub const fn core(&self) -> &Core {
        &self.core
    }

    /// See [`EventLoop::core`].
    pub const fn core_mut(&mut self) -> &mut Core {
        &mut self.core
    }

    /// Phase 1: waits for events, at most as long as the end of the last tick permits.
    fn poll(&mut self) -> io::Result<()> {
        let timeout = match self.pause {
            Pause::Until(deadline) => self.wait_max(deadline),
            Pause::Start | Pause::None | Pause::Exit(_) => Some(Duration::ZERO),
        };
        self.readiness.clear();
        match self.kernel.poll(timeout, &mut self.readiness) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            polled => polled,
        }
    }

    /// Phase 5: passes the counts of the SYN engine and [`Event::Tick`] to the core.
    fn handle_tick(&mut self, now: Instant, worked: Duration) {
        let is_full = self.readiness.len() >= limits::EVENTS_PER_TICK;
        self.full_ticks = if is_full { self.full_ticks + 1 } else { 0 };
        let is_behind = (1..limits::BEHIND_TICKS_MAX).contains(&self.full_ticks);
        let backlog = if is_behind { Backlog::Possible } else { Backlog::None };
        if let Some(counts) = self.engines.take_syn_counts() {
            self.core.handle(Event::SynCounts(counts), now);
        }
        self.core.handle(Event::Tick { worked, backlog }, now);
    }

    /// The maximum time to wait for events. It is 0 while sockets, engines or listeners have work
    /// left, and is limited by the deadlines of the core and the engines, by the end of a backoff,
    /// and while stdout or stderr have more to write.
    fn wait_max(&self, deadline: Option<Instant>) -> Option<Duration> {
        let has_ready = !self.ready.is_empty() || self.engines.has_work();
        if has_ready || self.may_accept && self.core.wants_connections() {
            return Some(Duration::ZERO);
        }
        let until =
            deadline.into_iter().chain(self.backoff.ends_at()).chain(self.engines.deadline()).min();
        let until = until.map(|at| at.saturating_duration_since(self.kernel.now()));
        until.into_iter().chain(self.output_wait_max()).min()
    }

    /// Phases 3 and 4: handles signals, then the reported sockets, then the sockets that were on
    /// the ready list at the start.
    fn dispatch(&mut self, now: Instant) {
        self.end_backoff(now);
        let leftovers = self.ready.len().min(limits::READY_PER_TICK);
        let readiness = std::mem::take(&mut self.readiness);
        self.may_signal |= readiness.iter().any(|it| it.token == SIGNALS);
        self.handle_signals(now);
        self.engines.recheck(&mut self.kernel);
        self.report_probe_outcomes(now);
        self.read_left = limits::READ_BYTES_PER_TICK;
        for ready in &readiness {
            match ready.token {
                SIGNALS | STDOUT => {}
                Token(token) if token >= LISTENERS => self.may_accept = true,
                token if Engines::<K>::owns(token) => {
                    self.engines.handle_readiness(&mut self.kernel, ready);
                    self.report_probe_outcomes(now);
                }
                Token(token) => self.handle_readiness(Key::from_token(token), ready, now),
            }
        }
        self.engines.receive(&mut self.kernel, now);
        self.report_probe_outcomes(now);
        self.readiness = readiness;
        self.read_left = limits::READ_BYTES_PER_TICK;
        for _ in 0..leftovers {
            if self.read_left == 0 {
                break;
            }
            let Some(key) = self.ready.pop_front() else { break };
            let Some(entry) = self.sockets.entry(key) else { continue };
            entry.queue = QueuedIn::None;
            match entry.stage {
                SocketStage::Stream | SocketStage::Datagrams => self.serve(key, now),
                SocketStage::Connecting => {
                    if let Some(outcome) = self.kernel.connect_outcome(&entry.socket) {
                        self.finish_connect(key, outcome, now);
                    }
                }
            }
        }
    }

    /// Reports the outcomes of the engines to the core. Returns true if there was one.
    fn report_probe_outcomes(&mut self, now: Instant) -> bool {
        let mut has_any = false;
        while let Some(ProbeOutcome { probe, outcome }) = self.engines.poll_outcome() {
            has_any = true;
            self.contract.end(probe);
            self.core.handle(Event::Probe { probe, outcome }, now);
        }
        has_any
    }

    /// Phase 3: passes the signals that have arrived to the core.
    fn handle_signals(&mut self, now: Instant) {
        while self.may_signal {
            match self.kernel.take_signal() {
                Ok(Some(signal)) => {
                    // The manager would otherwise kill the service after its own stop timeout.
                    let time_max = self.core.shutdown_time_max().as_micros();
                    let state = format!("STOPPING=1\nEXTEND_TIMEOUT_USEC={time_max}");
                    self.kernel.notify_manager(&state);
                    self.core.handle(Event::Signal(signal), now);
                }
                Ok(None) => self.may_signal = false,
                Err(_) => return self.backoff.begin(now),
            }
        }
    }

    /// Stores the readiness of a socket that the poller has reported, and serves the socket, unless
    /// it waits for its turn on the ready list. A socket with bytes that were not read before is
    /// only written to, if this group of sockets has been read from as much as a tick permits.
    fn handle_readiness(&mut self, key: Key, ready: &Readiness, now: Instant) {
        let Some(entry) = self.sockets.entry(key) else { return };
        if entry.stage == SocketStage::Connecting {
            match self.kernel.connect_outcome(&entry.socket) {
                Some(outcome) => self.finish_connect(key, outcome, now),
                // The poller may report an ICMP error a moment before SO_ERROR returns it. The
                // socket is then checked again in the next tick.
                None if ready.is_error => self.push_ready(key),
                None => {}
            }
            return;
        }
        let was_readable = entry.readable;
        entry.readable |= ready.is_readable || ready.is_error;
        entry.writable |= ready.is_writable || ready.is_error;
        if ready.is_read_closed {
            entry.readable = true;
            entry.read_closed = true;
        }
        if entry.queue == QueuedIn::Ready {
            return;
        }
        if was_readable && self.read_left == 0 {
            self.flush(key, now);
        } else {
            self.serve(key, now);
        }
    }

    /// Reports the outcome of a connect to the core.
    fn finish_connect(&mut self, key: Key, outcome: Outcome, now: Instant) {
        if let Some(entry) = self.sockets.entry(key) {
            entry.stage = SocketStage::Stream;
            entry.writable = true;
            self.core.handle(Event::Connect { socket: key, outcome }, now);
        }
    }

    /// Phase 7: performs actions until the core returns `Yield`, `Wait` or `Exit`. An action that
    /// fails comes back as an event before the next action is requested.
    fn perform(&mut self, now: Instant) -> Pause {
        self.contract.begin_flush();
        loop {
            let action = self.core.poll_action(now);
            self.contract.check(&action, now);
            let Some(pause) = self.perform_one(action, now) else { continue };
            self.engines.flush(&mut self.kernel);
            if !self.report_probe_outcomes(now) {
                return pause;
            }
        }
    }

    /// Performs one action. Returns the end of the tick if it is the last action of the flush.
    fn perform_one(&mut self, action: Action, now: Instant) -> Option<Pause> {
        match action {
            Action::Probe { probe, to, check, technique } => {
                let request = ProbeRequest { probe, to, check, technique };
                self.engines.start(&mut self.kernel, now, request);
                self.report_probe_outcomes(now);
                if self.engines.take_reuse_refusal() {
                    self.core.handle(Event::ReuseRefused, now);
                }
            }
            Action::Forget { probe } => self.engines.forget(&mut self.kernel, probe),
            Action::Connect { socket, to, transport } => {
                let outcome = self.connect(socket, to, transport);
                if let Some(outcome) = outcome {
                    self.core.handle(Event::Connect { socket, outcome }, now);
                }
            }
            Action::Attend(key) => self.flush(key, now),
            Action::ShutdownWrite(key) => {
                if let Some(entry) = self.sockets.entry(key) {
                    self.kernel.shutdown_write(&entry.socket);
                }
            }
            Action::Close { socket } => {
                if let Some(entry) = self.sockets.take(socket) {
                    self.kernel.close(entry.socket);
                }
            }
            Action::FindRoute { request, to } => {
                let route = self.kernel.route(to);
                self.core.handle(Event::Route { request, to, route }, now);
            }
            Action::ReadNameFiles => {
                let NameFileTexts { resolv_conf, hosts } = self.kernel.name_files();
                let (resolv_conf, hosts) = (resolv_conf.as_deref(), hosts.as_deref());
                self.core.handle(Event::NameFiles { resolv_conf, hosts }, now);
            }
            Action::ReadProcessFiles => {
                let core = &mut self.core;
                self.kernel.process_files(|files| core.handle(Event::ProcessFiles(files), now));
            }
            Action::ReadLocalDrops => {
                let drops = self.kernel.local_drops();
                self.core.handle(Event::LocalDrops(drops.as_ref()), now);
            }
            Action::ReadTokenFile => {
                let token = self.kernel.token_file();
                self.core.handle(Event::TokenFile(token.as_deref()), now);
            }
            Action::CloseListeners => self.close_listeners(now),
            Action::Log(line) => {
                if !self.log.push(&line) {
                    self.core.handle_log_dropped(1);
                }
            }
            Action::ShowProgress(line) => self.log.push_progress(&line),
            Action::Exit(code) => return Some(Pause::Exit(code)),
            Action::Yield => return Some(Pause::None),
            Action::Wait(deadline) => return Some(Pause::Until(deadline)),
        }
        None
    }

    /// Opens a socket and begins to connect it. Returns the outcome if the kernel already knows it.
    fn connect(&mut self, key: Key, to: SocketAddr, transport: Transport) -> Option<Outcome> {
        let socket = match self.kernel.connect(to, transport) {
            Ok(socket) => socket,
            Err(outcome) => {
                self.engines.close_some_idle(&mut self.kernel);
                return Some(outcome);
            }
        };
        let (stage, outcome) = match transport {
            Transport::Udp => (SocketStage::Datagrams, Some(Outcome::Connected)),
            Transport::Tcp => (SocketStage::Connecting, None),
        };
        if self.register(key, &socket) {
            self.sockets.insert(key, socket, stage);
            return outcome;
        }
        self.kernel.close(socket);
        Some(Outcome::Shortage(Shortage::Memory))
    }

    /// Registers a socket with the poller. Returns false if the kernel has no memory for it, or the
    /// limit of registrations is reached (epoll_ctl(2): ENOMEM, ENOSPC).
    fn register(&mut self, key: Key, socket: &K::Socket) -> bool {
        let token = Token(key.into_token());
        assert!(token.0 < LISTENERS, "the token of a key is smaller than the loop's own tokens");
        self.kernel.register(EventSource::Socket(socket), token).is_ok()
    }
}
