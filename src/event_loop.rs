//! The event loop: waits, translates readiness into events, performs actions. It decides nothing.
//!
//! One thread, one poller. Listeners, clients, probes, DNS sockets and signals are all on it. Each
//! tick goes through the phases of the loop's contract (see the crate documentation), each with a
//! bound from `limits`, so that no source starves another. Its system calls go through a `Kernel`,
//! which is the real one in the service and a simulated one in tests, the fuzz target and benches.
//!
//! Readiness is edge-triggered, so the poller reports it once: each socket remembers what was
//! reported until a call says "would block", and a socket that still has work waits on the ready
//! list.
//!
//! Invariants: a socket in the table has the key the core gave it; one on the ready list says so
//! and is on it once; with the ready list not empty the loop does not sleep.

mod accept;
mod backoff;
mod connect_engine;
mod contract;
mod engines;
mod log;
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
use self::engines::{Engines, ProbeOutcome, ProbeRequest};
use self::log::LogQueue;
use self::sockets::{QueuedIn, SocketStage, SocketTable};
use self::stdout::{STDOUT, Stdout};
use crate::core::Core;
use crate::event::{Action, Backlog, Event, Outcome, Shortage, Transport};
use crate::kernel::{Kernel, NameFileTexts, Readiness, Source, Token};
use crate::limits;
use crate::slots::Key;
use crate::technique::Technique;

/// The tokens of the loop's own sources, above every key the core can have handed out. Those of the
/// probe engines are between the two, see `engines`.
const SIGNALS: Token = Token(usize::MAX);
const LISTENERS: usize = usize::MAX - 1024;

/// The loop and everything with a descriptor.
pub struct EventLoop<K: Kernel> {
    kernel: K,
    core: Core,
    /// What the poller reported in this tick.
    readiness: Vec<Readiness>,
    /// Whether a signal may wait: its edge was reported, and no read has said "none"
    /// since.
    may_signal: bool,
    listeners: Vec<K::Listener>,
    /// Whether a listener's queue may hold a client: its edge was reported, and no accept
    /// has said "would block" since.
    may_accept: bool,
    sockets: SocketTable<K::Socket>,
    engines: Engines<K>,
    /// Ticks in a row that took as many events as a tick may.
    behind_len: u32,
    ready: VecDeque<Key>,
    /// Counts the ticks, round and round, never 0. Where an old number comes again a socket
    /// waits a tick longer.
    tick_number: NonZeroU8,
    /// The clock of this tick.
    now: Instant,
    pause: Pause,
    backoff: Backoff,
    buffer: Box<[u8]>,
    log: LogQueue,
    stdout: Stdout,
    contract: Contract,
}

/// What the last tick ended with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pause {
    /// There was none yet: the first one has nothing to wait for.
    Start,
    /// Poll without waiting.
    None,
    Until(Option<Instant>),
    Exit(u8),
}

impl<K: Kernel> EventLoop<K> {
    /// A loop over listeners that are bound already.
    ///
    /// # Errors
    /// epoll_ctl(2).
    pub fn new(mut kernel: K, listeners: Vec<K::Listener>, core: Core) -> io::Result<Self> {
        kernel.register(Source::Signals, SIGNALS)?;
        for (index, listener) in listeners.iter().enumerate() {
            kernel.register(Source::Listener(listener), Token(LISTENERS + index))?;
        }
        Ok(Self {
            readiness: Vec::with_capacity(limits::EVENTS_PER_TICK),
            may_signal: false,
            may_accept: !listeners.is_empty(),
            listeners,
            sockets: SocketTable::new(),
            engines: Engines::new(&core, kernel.now()),
            behind_len: 0,
            ready: VecDeque::new(),
            tick_number: NonZeroU8::MIN,
            now: kernel.now(),
            pause: Pause::Start,
            backoff: Backoff::default(),
            buffer: vec![0; limits::READ_BYTES_MAX].into_boxed_slice(),
            log: LogQueue::default(),
            stdout: Stdout::Willing,
            contract: Contract::default(),
            kernel,
            core,
        })
    }

    /// Ticks until the core says [`Action::Exit`], and returns its code.
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

    /// One tick, in the order of the loop's contract: waits, and does what there is to do. Returns
    /// the exit code once the core has said [`Action::Exit`].
    ///
    /// # Errors
    /// epoll_wait(2), other than for an interruption: the poller itself is broken. Nothing has
    /// happened then, and another tick is the same again.
    pub fn tick(&mut self) -> io::Result<Option<u8>> {
        let now = if self.pause == Pause::Start {
            // The core first sees the clock: clients are accepted in the next tick.
            for technique in Technique::ALL {
                let probes = self.engines.capacity(technique);
                self.core.handle(Event::ProbeCapacity { technique, probes }, self.now);
            }
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
        // Stdout and stderr may be one terminal: the progress line is cleared before what takes
        // its place is printed.
        let wanted = self.core.probes_wanted();
        let has_idle =
            matches!(self.pause, Pause::Until(_)) && self.engines.trim(&mut self.kernel, wanted);
        let has_news = self.print(now) || has_idle;
        match self.pause {
            Pause::Exit(code) => {
                self.log.flush(&mut self.kernel);
                return Ok(Some(code));
            }
            Pause::None | Pause::Until(_) if has_news => self.pause = Pause::None,
            Pause::Start | Pause::None | Pause::Until(_) => {}
        }
        Ok(None)
    }

    /// Keys that the core has begun and not ended; counted in debug builds only.
    pub fn keys_len(&self) -> usize {
        self.contract.len()
    }

    /// The kernel, which a simulation steers between ticks.
    pub const fn kernel(&self) -> &K {
        &self.kernel
    }

    /// See [`EventLoop::kernel`].
    pub const fn kernel_mut(&mut self) -> &mut K {
        &mut self.kernel
    }

    /// The core, at which a simulation looks between ticks.
    pub const fn core(&self) -> &Core {
        &self.core
    }

    /// See [`EventLoop::core`].
    pub const fn core_mut(&mut self) -> &mut Core {
        &mut self.core
    }

    /// Phase 1: waits as long as the last tick permits.
    fn poll(&mut self) -> io::Result<()> {
        let timeout = match self.pause {
            Pause::Until(deadline) => self.wait_limit(deadline),
            Pause::Start | Pause::None | Pause::Exit(_) => Some(Duration::ZERO),
        };
        self.readiness.clear();
        match self.kernel.poll(timeout, &mut self.readiness) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            polled => polled,
        }
    }

    /// Phase 5.
    fn handle_tick(&mut self, now: Instant, worked: Duration) {
        let is_full = self.readiness.len() >= limits::EVENTS_PER_TICK;
        self.behind_len = if is_full { self.behind_len + 1 } else { 0 };
        let is_behind = (1..limits::BEHIND_TICKS_MAX).contains(&self.behind_len);
        let backlog = if is_behind { Backlog::Possible } else { Backlog::None };
        if let Some(counts) = self.engines.take_syn_counts() {
            self.core.handle(Event::SynCounts(counts), now);
        }
        self.core.handle(Event::Tick { worked, backlog }, now);
    }

    /// How long to sleep: not at all while readiness is remembered, and not for long while stdout
    /// or stderr are to take something, or a socket backs off.
    fn wait_limit(&self, deadline: Option<Instant>) -> Option<Duration> {
        let has_ready = !self.ready.is_empty() || self.engines.has_work();
        if has_ready || self.may_accept && self.core.wants_connections() {
            return Some(Duration::ZERO);
        }
        let until =
            deadline.into_iter().chain(self.backoff.ends_at()).chain(self.engines.deadline()).min();
        let until = until.map(|at| at.saturating_duration_since(self.kernel.now()));
        until.into_iter().chain(self.output_limit()).min()
    }

    /// Phases 3 and 4: signals first, then sockets, then what is left over from earlier ticks.
    fn dispatch(&mut self, now: Instant) {
        self.wake(now);
        let leftovers = self.ready.len().min(limits::READY_PER_TICK);
        let readiness = std::mem::take(&mut self.readiness);
        self.may_signal |= readiness.iter().any(|it| it.token == SIGNALS);
        self.take_signals(now);
        self.engines.resume(&mut self.kernel);
        self.take_probe_outcomes(now);
        for ready in &readiness {
            match ready.token {
                SIGNALS | STDOUT => {}
                Token(token) if token >= LISTENERS => self.may_accept = true,
                token if Engines::<K>::owns(token) => {
                    self.engines.handle_readiness(&mut self.kernel, ready);
                    self.take_probe_outcomes(now);
                }
                Token(token) => self.handle_readiness(Key::from_token(token), ready, now),
            }
        }
        self.engines.receive(&mut self.kernel, now);
        self.take_probe_outcomes(now);
        self.readiness = readiness;
        for _ in 0..leftovers {
            let Some(key) = self.ready.pop_front() else { break };
            let Some(entry) = self.sockets.entry(key) else { continue };
            entry.queue = QueuedIn::None;
            match entry.stage {
                SocketStage::Stream | SocketStage::Datagrams => self.attend(key, now),
                SocketStage::Connecting => {
                    if let Some(outcome) = self.kernel.connect_outcome(&entry.socket) {
                        self.finish_connect(key, outcome, now);
                    }
                }
            }
        }
    }

    /// Reports to the core what the engines have found; true if there was anything.
    fn take_probe_outcomes(&mut self, now: Instant) -> bool {
        let mut has_any = false;
        while let Some(ProbeOutcome { probe, outcome }) = self.engines.poll_outcome() {
            has_any = true;
            self.contract.end(probe);
            self.core.handle(Event::Probe { probe, outcome }, now);
        }
        has_any
    }

    fn take_signals(&mut self, now: Instant) {
        while self.may_signal {
            match self.kernel.take_signal() {
                Ok(Some(signal)) => {
                    self.kernel.notify_manager("STOPPING=1");
                    self.core.handle(Event::Signal(signal), now);
                }
                Ok(None) => self.may_signal = false,
                Err(_) => return self.backoff.begin(now),
            }
        }
    }

    fn handle_readiness(&mut self, key: Key, ready: &Readiness, now: Instant) {
        let Some(entry) = self.sockets.entry(key) else { return };
        if entry.stage == SocketStage::Connecting {
            match self.kernel.connect_outcome(&entry.socket) {
                Some(outcome) => self.finish_connect(key, outcome, now),
                // An ICMP error may be reported a moment before SO_ERROR has it: ask again next
                // tick.
                None if ready.is_error => self.list(key),
                None => {}
            }
            return;
        }
        entry.readable |= ready.is_readable || ready.is_error;
        entry.writable |= ready.is_writable || ready.is_error;
        if ready.is_read_closed {
            entry.readable = true;
            entry.read_closed = true;
        }
        self.attend(key, now);
        if ready.is_read_closed && self.sockets.entry(key).is_some_and(|entry| entry.readable) {
            // Bytes may stand before the FIN that the core does not want yet.
            self.core.handle(Event::Hangup { socket: key }, now);
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

    /// Phase 7: performs actions until the core waits. A failure is an event in the same flush.
    fn perform(&mut self, now: Instant) -> Pause {
        self.contract.begin_flush();
        loop {
            let action = self.core.poll_action(now);
            self.contract.check(&action, now);
            let Some(pause) = self.perform_one(action, now) else { continue };
            self.engines.flush(&mut self.kernel);
            if !self.take_probe_outcomes(now) {
                return pause;
            }
        }
    }

    /// Performs one action; the pause, if it ends the flush.
    fn perform_one(&mut self, action: Action, now: Instant) -> Option<Pause> {
        match action {
            Action::Probe { probe, to, check, technique } => {
                let request = ProbeRequest { probe, to, check, technique };
                self.engines.start(&mut self.kernel, now, request);
                self.take_probe_outcomes(now);
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

    /// Starts a connect; the outcome, if the kernel had it at once.
    fn connect(&mut self, key: Key, to: SocketAddr, transport: Transport) -> Option<Outcome> {
        let socket = match self.kernel.connect(to, transport) {
            Ok(socket) => socket,
            Err(outcome) => {
                self.engines.give_back(&mut self.kernel);
                return Some(outcome);
            }
        };
        let (stage, outcome) = match transport {
            Transport::Udp => (SocketStage::Datagrams, Some(Outcome::Connected)),
            Transport::Tcp => (SocketStage::Connecting, None),
        };
        if self.watch(key, &socket) {
            self.sockets.insert(key, socket, stage);
            return outcome;
        }
        self.kernel.close(socket);
        Some(Outcome::Shortage(Shortage::Memory))
    }

    /// Registers a socket with the poller; false where the kernel has no room for it (epoll_ctl(2):
    /// ENOMEM, ENOSPC).
    fn watch(&mut self, key: Key, socket: &K::Socket) -> bool {
        let token = Token(key.into_token());
        assert!(token.0 < LISTENERS, "no key reaches the loop's own tokens");
        self.kernel.register(Source::Socket(socket), token).is_ok()
    }
}
