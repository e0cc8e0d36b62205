//! The loop: a twin of `server.rs` whose system calls are the `world`'s.
//!
//! Same phases in the same order, same budgets, same memory of readiness. On top of that it holds
//! the core to its contract after every action and every turn; see `on_action` and `end_turn`.

use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};

use openports::event::{Action, Event, Glance, Outcome, Route, Shortage, Transport};
use openports::limits;
use openports::slots::Key;

use crate::client::{Leave, Stage};
use crate::dice::Dice;
use crate::judge::Verdict;
use crate::world::{Edge, Entry, Happening, IoStep, Peer, World};

/// How the run, or the turn, ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Pause {
    /// Poll without waiting.
    #[default]
    None,
    Until(Option<Instant>),
    Exit,
}

/// What the loop remembers, and what it has seen of the core.
#[derive(Debug, Default)]
pub(crate) struct Shell {
    pub(crate) listener_edge: bool,
    may_accept: bool,
    ready: VecDeque<Key>,
    pub(crate) pause: Pause,
    has_begun: bool,
    /// Sockets that the core named and has not closed.
    owed: BTreeSet<Key>,
    /// Sockets that it closed, lately.
    closed: VecDeque<Key>,
    /// Events and actions of this turn.
    progress: usize,
    actions_len: usize,
    /// Turns in a row that were begun at once, and in which nothing happened.
    idle_turns: usize,
    connects_len: usize,
    /// A client was let in at the cap: another gave way.
    was_full: bool,
}

/// Actions of one drain at most: what the budgets of a turn permit, several times over.
const ACTIONS_MAX: usize = 20_000;

impl World {
    /// Runs to the end: the exit, or nothing left to happen in this world.
    pub(crate) fn run(&mut self) -> Pause {
        while self.step() {}
        self.judge_all();
        self.shell.pause
    }

    /// Runs until `at`, or to the end if that comes first.
    pub(crate) fn run_until(&mut self, at: Instant) {
        self.is_looked_at = false;
        self.plan_at(at, Happening::Look);
        while !self.is_looked_at && self.step() {}
        self.is_looked_at = false;
    }

    pub(crate) fn run_for(&mut self, time: Duration) {
        self.run_until(self.now + time);
    }

    /// Sleeps and turns once; false at the end.
    pub(crate) fn step(&mut self) -> bool {
        if !self.shell.has_begun {
            self.shell.has_begun = true;
            self.tick();
            self.shell.pause = self.perform();
            return true;
        }
        let is_at_once = match self.shell.pause {
            Pause::Exit => return false,
            Pause::None => true,
            Pause::Until(_) => {
                !self.shell.ready.is_empty()
                    || self.can_accept()
                    || !self.service.printout().is_empty()
            }
        };
        if is_at_once {
            self.now += self.dice.time(self.faults.lateness);
            self.deliver();
        } else if !self.sleep() {
            return false;
        }
        if self.is_looked_at {
            return true;
        }
        self.steps += 1;
        assert!(self.steps < 1_000_000, "the run has no end");
        self.turn();
        let is_idle = is_at_once && self.shell.progress == 0;
        self.shell.idle_turns = if is_idle { self.shell.idle_turns + 1 } else { 0 };
        assert!(self.shell.idle_turns < 3, "the loop spins");
        true
    }

    fn can_accept(&self) -> bool {
        self.shell.may_accept && self.service.wants_connections()
    }

    /// Waits for the deadline or for news, whichever comes first; false if neither ever does.
    fn sleep(&mut self) -> bool {
        let Pause::Until(deadline) = self.shell.pause else { return false };
        loop {
            let has_news = !self.told.is_empty()
                || self.shell.listener_edge && self.is_listening
                || !self.signals.is_empty();
            if has_news || self.is_looked_at {
                return true;
            }
            let next = self.next_happening();
            let Some(until) = deadline.into_iter().chain(next).min() else { return false };
            self.now = self.now.max(until);
            self.deliver();
            if deadline.is_some_and(|deadline| deadline <= self.now) {
                self.now += self.dice.time(self.faults.lateness);
                self.deliver();
                return true;
            }
        }
    }

    fn turn(&mut self) {
        self.shell.progress = 0;
        while let Some(signal) = self.signals.pop_front() {
            self.shell.progress += 1;
            self.tell(Event::Signal(signal));
        }
        let leftovers = self.shell.ready.len().min(limits::READY_PER_TURN);
        if std::mem::take(&mut self.shell.listener_edge) {
            self.shell.may_accept = self.is_listening;
        }
        self.misinform();
        for _ in 0..self.told.len().min(limits::EVENTS_PER_TURN) {
            let Some(key) = self.told.pop_front() else { break };
            if let Some(edge) = self.entry(key).and_then(|entry| entry.edge.take()) {
                self.shell.progress += 1;
                self.on_readiness(key, edge);
            }
        }
        for _ in 0..leftovers {
            let Some(key) = self.shell.ready.pop_front() else { break };
            if let Some(entry) = self.entry(key) {
                entry.is_listed = false;
                self.shell.progress += 1;
                self.attend(key);
            }
        }
        self.tick();
        self.accept();
        self.shell.pause = self.perform();
        if self.print() && self.shell.pause != Pause::Exit {
            self.shell.pause = Pause::None;
        }
        self.end_turn();
    }

    /// Writes the printout as far as stdout takes it; true exactly when the core heard of some.
    fn print(&mut self) -> bool {
        let Some(printed) = &mut self.printed else { return false };
        let mut is_told = false;
        while !self.service.printout().is_empty() {
            is_told = true;
            self.shell.progress += 1;
            if let Some((most, failure)) = printed.ends
                && printed.text.len() >= most
            {
                self.service.handle(Event::PrintFailed(failure), self.now);
                continue;
            }
            let count = 1 + self.dice.below(self.service.printout().len());
            printed.text.extend_from_slice(&self.service.printout()[..count]);
            self.service.handle(Event::Printed { count }, self.now);
        }
        is_told
    }

    fn tick(&mut self) {
        let wall = self.wall_now();
        self.tell(Event::Tick { wall, worked: Duration::from_micros(10) });
    }

    /// The wall clock, which somebody sets twice a second: to its beginning, to the last hour that
    /// the kernel lets it be set to, a day back. Nothing but records and `Date` may notice.
    fn wall_now(&self) -> SystemTime {
        let passed = self.now - self.origin;
        let began = self.wall;
        let began = match Dice::new(passed.as_millis() as u64 / 500).below(4) {
            0 => SystemTime::UNIX_EPOCH,
            1 => SystemTime::UNIX_EPOCH + Duration::from_secs(9_223_368_000),
            2 => began - Duration::from_secs(86_400),
            _ => began,
        };
        began + passed
    }

    fn tell(&mut self, event: Event<'_>) {
        if self.is_verbose && !matches!(event, Event::Tick { .. } | Event::Received { .. }) {
            eprintln!("{:>12?} -> {event:?}", self.now - self.origin);
        }
        self.service.handle(event, self.now);
    }

    /// Events that a kernel may tell although they mean nothing: too late, or for no reason.
    fn misinform(&mut self) {
        if self.dice.chance(self.faults.stale_events) && !self.shell.closed.is_empty() {
            let socket = self.shell.closed[self.dice.below(self.shell.closed.len())];
            let outcome = self.dice.pick(&[Outcome::Connected, Outcome::Refused]);
            let bytes = b"GET /stale HTTP/1.1\r\nHost: s\r\n\r\n";
            match self.dice.below(6) {
                0 => self.tell(Event::Connect { socket, outcome }),
                1 => self.tell(Event::Received { socket, bytes }),
                2 => self.tell(Event::ReadClosed { socket }),
                3 => self.tell(Event::Hangup { socket }),
                4 => self.tell(Event::Sent { socket, count: 7 }),
                _ => self.tell(Event::Broken { socket }),
            }
            assert_eq!(
                (self.service.bytes_wanted(socket), self.service.output(socket)),
                (0, &[][..])
            );
        }
        if self.dice.chance(self.faults.spurious_events) && !self.table.is_empty() {
            let place = self.dice.below(self.table.len());
            let key = self.table.values().nth(place).map(|entry| entry.key);
            let edge = Edge { readable: true, writable: true, ..Edge::default() };
            self.edge(key.expect("a place in the table"), edge);
        }
    }

    fn on_readiness(&mut self, key: Key, edge: Edge) {
        let Some(entry) = self.entry(key) else { return };
        if !entry.is_connected {
            let Some(outcome) = entry.outcome else { return };
            entry.is_connected = true;
            entry.writable = true;
            self.tell(Event::Connect { socket: key, outcome });
            return;
        }
        entry.readable |= edge.readable || edge.error;
        entry.writable |= edge.writable || edge.error;
        if edge.read_closed {
            entry.readable = true;
            entry.read_closed = true;
        }
        self.attend(key);
        if edge.read_closed && self.entry(key).is_some_and(|entry| entry.readable) {
            self.tell(Event::Hangup { socket: key });
        }
    }

    /// Writes, and reads once.
    fn attend(&mut self, key: Key) {
        if self.entry(key).is_none_or(|entry| !entry.is_connected) {
            return;
        }
        self.write_output(key);
        let is_readable = self.entry(key).is_some_and(|entry| entry.readable);
        if is_readable && self.service.bytes_wanted(key) > 0 {
            self.read_input(key);
        }
        self.list(key);
    }

    /// Writes; what is to be read waits for the next turn.
    fn flush(&mut self, key: Key) {
        if self.entry(key).is_some_and(|entry| entry.is_connected) {
            self.write_output(key);
            self.list(key);
        }
    }

    fn list(&mut self, key: Key) {
        let wants_bytes = self.service.bytes_wanted(key) > 0;
        let has_output = !self.service.output(key).is_empty();
        let Some(entry) = self.entry(key) else { return };
        let has_work = entry.readable && wants_bytes || entry.writable && has_output;
        if has_work && !entry.is_listed {
            entry.is_listed = true;
            self.shell.ready.push_back(key);
        }
    }

    /// Once in a turn.
    fn write_output(&mut self, key: Key) {
        let step = self.steps;
        let Some(entry) = self.entry(key) else { return };
        if !entry.writable || entry.written_in == Some(step) {
            return;
        }
        let output = self.service.output(key).to_vec();
        if output.is_empty() {
            return;
        }
        if let Some(entry) = self.entry(key) {
            entry.written_in = Some(step);
        }
        match self.write(key, output) {
            IoStep::Done(bytes) => self.tell(Event::Sent { socket: key, count: bytes.len() }),
            IoStep::Blocked => self.forget(key, Edge { writable: true, ..Edge::default() }),
            IoStep::End | IoStep::Broken => self.on_broken(key),
        }
    }

    fn read_input(&mut self, key: Key) {
        let wanted = self.service.bytes_wanted(key).min(limits::READ_BYTES_MAX);
        match self.read(key, wanted) {
            IoStep::Done(bytes) => {
                let is_datagram =
                    self.entry(key).is_some_and(|it| matches!(it.peer, Peer::Datagrams(_)));
                if bytes.len() < wanted && !is_datagram {
                    let has_closed = self.entry(key).is_some_and(|entry| entry.read_closed);
                    let readable = !has_closed;
                    self.forget(key, Edge { readable, ..Edge::default() });
                }
                self.tell(Event::Received { socket: key, bytes: &bytes });
            }
            IoStep::End => {
                self.forget(key, Edge { readable: true, ..Edge::default() });
                self.tell(Event::ReadClosed { socket: key });
            }
            IoStep::Blocked => self.forget(key, Edge { readable: true, ..Edge::default() }),
            IoStep::Broken => self.on_broken(key),
        }
    }

    /// Forgets that a socket is ready in these ways.
    fn forget(&mut self, key: Key, edge: Edge) {
        if let Some(entry) = self.entry(key) {
            entry.readable &= !edge.readable;
            entry.writable &= !edge.writable;
        }
    }

    fn on_broken(&mut self, key: Key) {
        self.forget(key, Edge { readable: true, writable: true, ..Edge::default() });
        self.tell(Event::Broken { socket: key });
    }

    fn accept(&mut self) {
        let mut budget = limits::ACCEPTS_PER_TURN;
        while self.shell.may_accept && budget > 0 && self.service.wants_connections() {
            budget -= 1;
            self.shell.progress += 1;
            if self.backlog.is_empty() {
                self.shell.may_accept = false;
                return;
            }
            if let Some(shortage) = self.shortage(self.faults.accepts) {
                self.seen.accepts_failed += 1;
                self.tell(Event::AcceptFailed(shortage));
                return;
            }
            if let Some(index) = self.backlog.pop_front() {
                self.shell.was_full |= self.open().0 >= self.shares.connections;
                self.admit(index);
            }
        }
        if !self.backlog.is_empty() && !self.service.wants_connections() {
            self.service.handle_knock(self.now);
        }
    }

    /// The service's FIN reaches a client, which mostly answers with its own.
    fn say_goodbye(&mut self, key: Key) {
        let Some(Peer::Client(index)) = self.entry(key).map(|entry| entry.peer) else { return };
        self.clients[index].was_told_goodbye = true;
        if self.dice.chance(80) {
            self.plan(Duration::from_millis(1), Happening::Leave(index, Leave::HalfClose));
        }
    }

    fn close_listeners(&mut self) {
        for _ in 0..limits::ACCEPT_QUEUE_MAX / limits::ACCEPTS_PER_TURN {
            if self.can_accept() {
                self.accept();
            }
        }
        if self.service.keeps_listeners() {
            return;
        }
        self.is_listening = false;
        for index in std::mem::take(&mut self.backlog) {
            self.clients[index].stage = Stage::Refused;
        }
        self.shell.may_accept = false;
    }

    /// Whether this call fails, and for want of what.
    fn shortage(&mut self, percent: usize) -> Option<Shortage> {
        if self.faults.descriptors.is_some_and(|most| self.table.len() >= most) {
            return Some(Shortage::ProcessDescriptors);
        }
        if self.faults.left == 0 || !self.dice.chance(percent) {
            return None;
        }
        self.faults.left -= 1;
        Some(self.faults.shortage.unwrap_or_else(|| self.dice.pick(&Shortage::ALL)))
    }

    fn admit(&mut self, index: usize) {
        let key = self.service.handle_accepted(self.clients[index].peer, self.now);
        assert!(self.shell.owed.insert(key), "a new socket has a new key");
        let client = &mut self.clients[index];
        client.stage = Stage::Connected(key);
        let mut entry = Entry::new(key, Peer::Client(index));
        entry.inbox.extend(client.wire.drain(..));
        entry.has_fin = client.has_half_closed || client.is_gone;
        entry.is_connected = true;
        entry.readable = true;
        entry.writable = true;
        let has_fin = entry.has_fin;
        self.insert(entry);
        if has_fin {
            let edge = Edge { readable: true, read_closed: true, ..Edge::default() };
            self.edge(key, edge);
        }
        self.attend(key);
        self.check_open();
    }

    fn insert(&mut self, entry: Entry) {
        let displaced = self.table.insert(entry.key.index(), entry);
        assert!(displaced.is_none(), "the core closes a socket before it reuses its slot");
    }

    fn perform(&mut self) -> Pause {
        self.shell.actions_len = 0;
        loop {
            let action = self.service.poll_action(self.now);
            if self.is_verbose {
                eprintln!("{:>12?} <- {action:?}", self.now - self.origin);
            }
            if let Some(pause) = self.on_action(action) {
                return pause;
            }
            self.shell.progress += 1;
            self.shell.actions_len += 1;
            assert!(self.shell.actions_len < ACTIONS_MAX, "a drain has no end");
        }
    }

    /// Performs one action; the pause if it ends the drain.
    fn on_action(&mut self, action: Action) -> Option<Pause> {
        match action {
            Action::Exit(code) => {
                match &mut self.printed {
                    Some(printed) => printed.exit_code = Some(code),
                    None => assert_eq!(code, 0, "a drained service has done its work"),
                }
                return Some(Pause::Exit);
            }
            Action::ShowProgress(line) => {
                assert!(self.printed.is_some(), "a service shows no progress: {line}");
                assert!(!line.contains('\n'), "it is one line");
            }
            Action::Yield => return Some(Pause::None),
            Action::Wait(deadline) => {
                assert!(deadline.is_none_or(|at| at > self.now), "a wait for the past");
                return Some(Pause::Until(deadline));
            }
            Action::Connect { socket, to, transport, glance } => {
                assert!(self.shell.owed.insert(socket), "a new socket has a new key");
                self.shell.connects_len += 1;
                if let Some(outcome) = self.connect(socket, (to, transport), glance) {
                    self.tell(Event::Connect { socket, outcome });
                }
                self.check_open();
            }
            Action::Attend(key) => {
                assert!(self.shell.owed.contains(&key), "an open socket is attended to");
                self.flush(key);
            }
            Action::ShutdownWrite(key) => {
                assert!(self.shell.owed.contains(&key), "an open socket is shut down");
                self.say_goodbye(key);
            }
            Action::Close { socket, .. } => {
                assert!(self.shell.owed.remove(&socket), "{socket:?} is closed once");
                self.close(socket);
            }
            Action::FindRoute { request, to } => {
                let host = self.hosts.get(&to.ip()).expect("a route to somebody's address");
                let known = host.route;
                let is_short = self.dice.chance(self.faults.routes);
                let route = if is_short { Route::Unknown } else { known };
                self.tell(Event::Route { request, to, route });
            }
            Action::ReadTokenFile => {
                let token = self.token.clone().expect("somebody has a token");
                let text = match self.dice.below(4) {
                    0 => None,
                    1 => Some("no token, but words".to_owned()),
                    _ => Some(format!("{token}\n")),
                };
                self.tell(Event::TokenFile(text.as_deref().map(str::as_bytes)));
            }
            Action::ReadNameFiles => {
                let (resolv_conf, hosts) = (self.resolv_conf.clone(), self.hosts_file.clone());
                let (resolv_conf, hosts) = (resolv_conf.as_deref(), hosts.as_deref());
                self.tell(Event::NameFiles { resolv_conf, hosts });
            }
            Action::CloseListeners => {
                assert!(self.is_listening, "listeners are closed once");
                self.close_listeners();
            }
            Action::Log(line) => {
                assert!(!line.contains('\n'), "a record is one line");
                if self.dice.chance(self.faults.log_drops) {
                    self.service.handle_log_dropped(1);
                }
            }
        }
        None
    }

    fn connect(
        &mut self,
        key: Key,
        (to, transport): (SocketAddr, Transport),
        glance: Glance,
    ) -> Option<Outcome> {
        let is_server = self.names.servers.contains_key(&to);
        if let Some(shortage) = self.shortage(self.faults.shortages) {
            self.seen.shortages += 1;
            return Some(Outcome::Shortage(shortage));
        }
        if transport == Transport::Udp {
            if !is_server {
                return Some(Outcome::Unreachable);
            }
            let mut entry = Entry::new(key, Peer::Datagrams(to));
            entry.is_connected = true;
            entry.writable = true;
            self.insert(entry);
            return Some(Outcome::Connected);
        }
        if is_server {
            self.seen.streams_to_servers += 1;
            self.insert(Entry::new(key, Peer::Stream(to)));
            let outcome = Happening::Outcome(key, Outcome::Connected);
            self.plan(Duration::from_millis(5), outcome);
            return None;
        }
        let times = (self.origin, self.now);
        let host = self.hosts.get_mut(&to.ip()).expect("a connect to somebody's address");
        let is_nowhere = host.route == Route::Nowhere;
        let answer = host.answer(times, to.port(), &mut self.dice);
        match answer {
            Some((at, outcome)) if at <= self.now && is_nowhere => return Some(outcome),
            Some((at, outcome)) if at <= self.now && glance == Glance::AtOnce => {
                if matches!(outcome, Outcome::Connected | Outcome::MetItself) {
                    let mut entry = Entry::new(key, Peer::Target(to));
                    entry.is_connected = true;
                    self.insert(entry);
                }
                return Some(outcome);
            }
            Some((at, outcome)) => {
                self.insert(Entry::new(key, Peer::Target(to)));
                self.plan_at(at, Happening::Outcome(key, outcome));
            }
            None => self.insert(Entry::new(key, Peer::Target(to))),
        }
        None
    }

    fn close(&mut self, key: Key) {
        if self.shell.closed.len() == 64 {
            self.shell.closed.pop_front();
        }
        self.shell.closed.push_back(key);
        if self.entry(key).is_none() {
            return;
        }
        let Some(entry) = self.table.remove(&key.index()) else { return };
        if let Peer::Client(index) = entry.peer {
            self.clients[index].stage = Stage::Closed;
        }
    }

    fn check_open(&self) {
        let (clients, probes, lookups) = self.open();
        let spare = limits::DESCRIPTORS_SPARE / 2;
        assert!(clients <= self.shares.connections + spare, "{clients} clients");
        assert!(probes <= self.shares.probes, "{probes} probes");
        assert!(lookups <= self.shares.lookups, "{lookups} sockets of lookups");
    }

    /// What holds after each turn.
    fn end_turn(&mut self) {
        if self.shell.pause == Pause::Exit {
            return;
        }
        let open = self.table.values().map(|entry| entry.key);
        assert!(open.into_iter().all(|key| self.shell.owed.contains(&key)));
        let (clients, probes, lookups) = self.open();
        if clients == 0 && self.printed.is_none() {
            assert_eq!((probes, lookups), (0, 0), "with the clients their descriptors go");
            assert!(self.shell.owed.is_empty(), "and every key");
        }
    }

    /// What holds at the end of a run.
    fn judge_all(&mut self) {
        let left_at_once = self.signals_len > 1;
        if self.printed.is_some() {
            return;
        }
        match self.shell.pause {
            Pause::Exit => {
                let signalled_at = self.signalled_at.expect("nobody asked it to leave");
                let settings = &self.settings;
                let most = settings.drain_delay.max(settings.drain_timeout)
                    + limits::WRITE_STALL_TIMEOUT
                    + Duration::from_secs(1);
                assert!(self.now <= signalled_at + most, "it takes long to leave");
            }
            Pause::None | Pause::Until(_) => {
                assert!(self.signalled_at.is_none(), "it does not leave");
                assert!(self.table.is_empty() && self.shell.owed.is_empty(), "sockets are left");
                assert!(self.backlog.is_empty(), "clients wait at the door");
            }
        }
        let was_signalled = self.signalled_at.is_some();
        let is_sure_of_names = self.is_sure_of_names();
        let hosts = &self.hosts;
        let was_full = self.shell.was_full;
        let verdict = Verdict { hosts, is_sure_of_names, was_signalled, was_full, left_at_once };
        for (index, client) in self.clients.iter().enumerate() {
            if self.is_verbose {
                eprintln!("client {index}: {:?}, {} answers", client.stage, client.answers.len());
            }
            verdict.judge(client);
        }
    }

    pub(crate) const fn connects_len(&self) -> usize {
        self.shell.connects_len
    }
}
