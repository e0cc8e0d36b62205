//! One run of the real event loop on the simulated kernel, and its invariants.
//!
//! In debug builds the loop itself checks the core's contract (`event_loop::contract`). The checks
//! of this module compare the loop with the world, after each tick and at the end.

use std::ops::{Deref, DerefMut};
use std::time::{Duration, Instant};

use openports::core::Core;
use openports::core::options::Options;
use openports::event::{Event, Outcome};
use openports::event_loop::EventLoop;
use openports::limits;
use openports::slots::Key;

use crate::judge::Verdict;
use crate::kernel::Listener;
use crate::world::{World, WorldEvent};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The core returned an exit code.
    Exit,
    /// The loop has no deadline, and the world has no event left.
    Idle,
}

/// A run, which dereferences to its world.
pub(crate) struct Simulation {
    event_loop: EventLoop<World>,
    pub(crate) steps: u64,
    /// The number of successive ticks without a wait, a call or an event.
    idle_ticks: usize,
    exit_code: Option<u8>,
}

/// The number of successive idle ticks that proves that the loop spins. The value is arbitrary.
const IDLE_TICKS_MAX: usize = 100;

impl Deref for Simulation {
    type Target = World;

    fn deref(&self) -> &World {
        self.event_loop.kernel()
    }
}

impl DerefMut for Simulation {
    fn deref_mut(&mut self) -> &mut World {
        self.event_loop.kernel_mut()
    }
}

impl Simulation {
    /// Starts a service with one listener.
    pub(crate) fn new(seed: u64, options: Options) -> Self {
        Self::with_listeners(seed, options, vec![Listener])
    }

    /// Starts a process for the command line, which has no listener.
    pub(crate) fn without_listeners(seed: u64, options: Options) -> Self {
        Self::with_listeners(seed, options, Vec::new())
    }

    fn with_listeners(seed: u64, options: Options, listeners: Vec<Listener>) -> Self {
        let mut world = World::new(seed, &options);
        world.is_listening = !listeners.is_empty();
        let core = Core::new(options, world.wall);
        let event_loop = EventLoop::new(world, listeners, Box::new(core))
            .expect("register works without faults");
        Self { event_loop, steps: 0, idle_ticks: 0, exit_code: None }
    }

    pub(crate) fn core(&self) -> &Core {
        self.event_loop.core()
    }

    pub(crate) fn core_mut(&mut self) -> &mut Core {
        self.event_loop.core_mut()
    }

    pub(crate) fn has_exited(&self) -> bool {
        self.exit_code.is_some()
    }

    pub(crate) fn run(&mut self) -> End {
        while self.step() {}
        self.judge_all();
        if self.has_exited() { End::Exit } else { End::Idle }
    }

    /// Runs until `at` or the end, whichever comes first.
    pub(crate) fn run_until(&mut self, at: Instant) {
        self.is_paused = false;
        self.schedule_at(at, WorldEvent::Pause);
        while !self.is_paused && self.step() {}
        self.is_paused = false;
    }

    pub(crate) fn run_for(&mut self, time: Duration) {
        self.run_until(self.now + time);
    }

    /// Runs one tick. Returns false at the end.
    pub(crate) fn step(&mut self) -> bool {
        if self.has_exited() {
            return false;
        }
        let calls = self.calls;
        match self.event_loop.tick() {
            Ok(code) => self.exit_code = code,
            // No event is left, or the test pauses the run.
            Err(_) => return !self.is_over,
        }
        self.steps += 1;
        assert!(self.steps < 1_000_000, "the run does not end");
        let is_idle = self.is_at_once && self.calls == calls;
        self.idle_ticks = if is_idle { self.idle_ticks + 1 } else { 0 };
        assert!(self.idle_ticks < IDLE_TICKS_MAX, "the loop spins");
        if let (Some(code), Some(printed)) = (self.exit_code, &mut self.printed) {
            printed.exit_code = Some(code);
        }
        self.end_tick();
        self.send_stale_event();
        true
    }

    /// Checks the invariants after each tick.
    fn end_tick(&self) {
        if let Some(code) = self.exit_code {
            assert!(self.printed.is_some() || code == 0, "a service exits with code 0");
            return;
        }
        let (clients, probes, lookups) = self.open();
        if clients == 0 && self.printed.is_none() {
            assert_eq!((probes, lookups), (0, 0), "sockets are open without clients");
            assert_eq!(self.event_loop.keys_len(), 0, "keys are in use without clients");
        }
    }

    /// Sends the core an event with a stale key, which the loop would drop.
    fn send_stale_event(&mut self) {
        let percent = self.faults.stale_events;
        if self.has_exited() || !self.rng.chance(percent) {
            return;
        }
        let keys: Vec<Key> = self.closed_keys().collect();
        if keys.is_empty() {
            return;
        }
        let socket = self.rng.pick(&keys);
        let outcome = self.rng.pick(&[Outcome::Connected, Outcome::Refused]);
        let bytes = b"GET /stale HTTP/1.1\r\nHost: s\r\n\r\n";
        let event = match self.rng.below(7) {
            0 => Event::Connect { socket, outcome },
            1 => Event::Received { socket, bytes },
            2 => Event::ReadClosed { socket },
            3 => Event::Hangup { socket },
            4 => Event::Sent { socket, count: 7 },
            5 => Event::Broken { socket },
            _ => Event::Probe { probe: socket, outcome },
        };
        let now = self.now;
        self.core_mut().handle(event, now);
        let core = self.core();
        assert_eq!((core.bytes_wanted(socket), core.output(socket)), (0, &[][..]));
    }

    /// Checks the invariants at the end of a run.
    fn judge_all(&mut self) {
        let left_at_once = self.signals_len > 1;
        if self.printed.is_some() {
            return;
        }
        if self.has_exited() {
            let signalled_at = self.signalled_at.expect("it exits without a signal");
            let settings = &self.settings;
            let most = settings.drain_delay.max(settings.drain_timeout)
                + limits::WRITE_STALL_TIMEOUT
                + Duration::from_secs(1);
            assert!(self.now <= signalled_at + most, "the shutdown takes too long");
        } else {
            assert!(self.signalled_at.is_none(), "it does not exit after a signal");
            assert!(self.table.is_empty(), "sockets are left open");
            assert_eq!(self.event_loop.keys_len(), 0, "keys are left in use");
            assert!(self.backlog.is_empty(), "clients are left in the backlog");
        }
        let verdict = Verdict {
            hosts: &self.hosts,
            is_sure_of_names: self.is_sure_of_names(),
            was_signalled: self.signalled_at.is_some(),
            was_full: self.was_full,
            left_at_once,
        };
        for (index, client) in self.clients.iter().enumerate() {
            if self.is_verbose {
                eprintln!("client {index}: {:?}, {} answers", client.stage, client.responses.len());
            }
            verdict.judge(client);
        }
    }
}
