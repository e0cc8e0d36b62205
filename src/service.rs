//! The core: everything that decides, behind one event and one action type.
//!
//! [`Service::handle`] takes in what the world tells, [`Service::poll_action`] gives out what is
//! to be done, the last action of a drain being [`Action::Yield`] or [`Action::Wait`]. It owns
//! every connection, job and lookup, and the one table of socket keys; it touches no descriptor
//! and no clock. Driven by `server`, and by the simulation with virtual time.
//!
//! Invariants (`check_invariants`): clients counted are clients in the table; each request handed
//! out by a connection is answered once or its client is gone; after a drain no deadline is due.

mod admission;
mod announcement;
mod answers;
mod batches;
mod clients;
mod crowd;
mod drain;
mod fleet;
pub mod jobs;
mod streams;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};

use crate::batch::Batch;
use crate::budget::Shares;
use crate::dns::files::NameFiles;
use crate::dns::{Output, Resolver};
use crate::event::{Action, Event, Glance, Outcome, Parting};
use crate::limits::{self, Settings};
use crate::names::Names;
use crate::policy::Policy;
use crate::policy::clients::{HostGuard, Quota};
use crate::policy::forwarded::Proxies;
use crate::policy::token::Token;
use crate::report::Counters;
use crate::report::log::{Format, Level, Record};
use crate::scan::probes::ProbeId;
use crate::slots::{Key, Slots};
use crate::timers::Timers;
use clients::Client;
use drain::Phase;
use jobs::{Jobs, News, Owner};

/// What a service is made of.
#[derive(Debug)]
pub struct Options {
    /// What the command line turns.
    pub settings: Settings,
    /// How the descriptors are divided.
    pub shares: Shares,
    /// Which targets may be scanned.
    pub policy: Policy,
    /// Under which names the service may be asked.
    pub host_guard: HostGuard,
    /// What clients have to show before they may scan; `None`: nothing.
    pub token: Option<Token>,
    /// Peers that tell for whom they ask.
    pub proxies: Proxies,
    /// What services are called, for answers.
    pub names: Names,
    /// Which records are written.
    pub log_level: Level,
    /// How they are written.
    pub log_format: Format,
    /// 64 bits that nobody can guess.
    pub seed: u64,
}

/// What a socket is for.
#[derive(Debug)]
pub enum Role {
    /// Handed out, its use to be filled in by the same call.
    Reserved,
    /// Given up; the key is free once the shell is told to close it. Events for it are nobody's.
    Closing,
    /// A client's connection.
    Client(Box<Client>),
    /// A connect of a scan.
    Probe {
        /// The scan.
        scan: Key,
        /// Which of its probes.
        probe: ProbeId,
    },
    /// A socket of the resolver.
    Lookup {
        /// Which of its attempts.
        attempt: Key,
    },
}

const _: () = assert!(size_of::<Role>() <= 16, "a probe stays within its memory budget");

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Door {
    /// Clients are taken in while there is room.
    Open,
    /// `accept` ran short: nobody is asked in before this instant, or before a descriptor closes.
    Parked { until: Instant },
}

/// The whole service. See the module's documentation.
#[derive(Debug)]
pub struct Service {
    options: Options,
    sockets: Slots<Role>,
    clients_len: usize,
    /// Clients given up whose sockets the shell is still to close: their descriptors are taken.
    parting_len: usize,
    /// Idle connections that may still be closed in this turn to let others in.
    evictions_left: usize,
    jobs: Jobs,
    /// The use from the shell; `None` in a service, which has clients instead.
    batch: Option<Batch>,
    resolver: Resolver,
    quota: Quota,
    timers: Timers,
    counters: Counters,
    phase: Phase,
    door: Door,
    actions: VecDeque<Action>,
    started: SystemTime,
    wall: SystemTime,
    /// When the last turn was.
    ticked_at: Option<Instant>,
    /// When the token file was read last.
    token_read_at: Option<Instant>,
    /// The Date of this second, and the second.
    date: (u64, String),
}

/// Idle connections closed in one turn to make room: no more than descriptors are kept spare.
const EVICTIONS_PER_TURN: usize = limits::DESCRIPTORS_SPARE / 2;

impl Service {
    /// A service without clients, begun at `wall`.
    pub fn new(options: Options, wall: SystemTime) -> Self {
        let mut service = Self {
            sockets: Slots::with_capacity(options.shares.total()),
            clients_len: 0,
            parting_len: 0,
            evictions_left: EVICTIONS_PER_TURN,
            jobs: Jobs::new(options.shares.probes, options.policy.clone()),
            batch: None,
            resolver: Resolver::new(options.seed, options.shares.lookups),
            quota: Quota::default(),
            timers: Timers::default(),
            counters: Counters::default(),
            phase: Phase::Serving,
            door: Door::Open,
            actions: VecDeque::new(),
            started: wall,
            wall,
            ticked_at: None,
            token_read_at: None,
            date: (u64::MAX, String::new()),
            options,
        };
        service.on_wall(wall);
        service
    }

    /// How many sockets there are at most at once.
    pub const fn sockets_max(&self) -> usize {
        self.options.shares.total()
    }

    /// Takes in one event. Follow with [`Service::poll_action`] until it waits, at the latest
    /// after the turn's last event.
    pub fn handle(&mut self, event: Event, now: Instant) {
        match event {
            Event::Tick { wall, worked } => self.on_tick(now, wall, worked),
            Event::Signal(signal) => self.on_signal(now, signal),
            Event::Connect { socket, outcome } => self.on_connect(now, socket, outcome),
            Event::Received { socket, bytes } => match self.sockets.get_mut(socket) {
                Some(Role::Client(client)) => {
                    client.handle_received(now, bytes);
                    self.serve(now, socket);
                }
                Some(Role::Lookup { attempt }) => {
                    self.resolver.handle_received(now, *attempt, bytes);
                }
                Some(Role::Probe { .. } | Role::Reserved | Role::Closing) | None => {}
            },
            Event::ReadClosed { socket } => match self.sockets.get(socket) {
                Some(Role::Client(_)) => self.on_client_read_closed(now, socket),
                Some(Role::Lookup { attempt }) => self.resolver.handle_broken(now, *attempt),
                Some(Role::Probe { .. } | Role::Reserved | Role::Closing) | None => {}
            },
            Event::Hangup { socket } => {
                if self.is_scanning(socket) {
                    self.drop_client(now, socket, "cancelled");
                }
            }
            Event::Sent { socket, count } => match self.sockets.get_mut(socket) {
                Some(Role::Client(client)) => {
                    client.conn.handle_sent(now, count);
                    self.serve(now, socket);
                }
                Some(Role::Lookup { attempt }) => self.resolver.handle_sent(*attempt, count),
                Some(Role::Probe { .. } | Role::Reserved | Role::Closing) | None => {}
            },
            Event::Broken { socket } => match self.sockets.get(socket) {
                Some(Role::Client(_)) => self.on_client_broken(now, socket),
                Some(Role::Lookup { attempt }) => self.resolver.handle_broken(now, *attempt),
                Some(Role::Probe { .. } | Role::Reserved | Role::Closing) | None => {}
            },
            Event::AcceptFailed(shortage) => {
                self.counters.count_shortage(shortage);
                let until = now + limits::ACCEPT_PARK;
                self.door = Door::Parked { until };
                self.delay_closing(until);
            }
            Event::Route { request, to, route } => {
                self.jobs.handle_route(now, request, to.ip(), route);
            }
            Event::TokenFile(text) => self.on_token_file(now, text),
            Event::NameFiles { resolv_conf, hosts } => {
                self.resolver.handle_name_files(now, NameFiles { resolv_conf, hosts });
            }
            Event::Printed { count } => self.on_printed(count),
            Event::PrintFailed(failure) => self.on_print_failed(now, failure),
        }
        self.pump(now);
    }

    /// Takes a client in, as [`Service::wants_connections`] allowed, and names its socket.
    pub fn handle_accepted(&mut self, peer: Option<SocketAddr>, now: Instant) -> Key {
        if self.clients_len >= self.options.shares.connections {
            self.evict(now);
        }
        self.clients_len += 1;
        self.counters.count_accepted();
        let key = self.sockets.insert(Role::Client(Box::new(Client::new(now, peer))));
        self.serve(now, key);
        key
    }

    /// So many log lines found no room.
    pub fn handle_log_dropped(&mut self, lines: u64) {
        self.counters.add_log_lines_dropped(lines);
    }

    /// The next thing to be done; [`Action::Yield`] and [`Action::Wait`] end the drain.
    pub fn poll_action(&mut self, now: Instant) -> Action {
        if let Some(action) = self.actions.pop_front() {
            if let Action::Close { socket, .. } = action {
                self.sockets.remove(socket);
                self.door = Door::Open;
            }
            return action;
        }
        self.parting_len = 0;
        if self.phase == Phase::Ended {
            return Action::Exit(self.batch.as_ref().map_or(0, Batch::exit_code));
        }
        if let Some(action) = self.jobs.poll_action(now, &mut self.sockets) {
            if let Action::Connect { .. } = action {
                self.counters.add_connects(1);
            } else if let Action::Close { .. } = action {
                self.door = Door::Open;
            }
            return action;
        }
        self.check_invariants();
        let is_closing = matches!(self.phase, Phase::Closing { .. });
        if self.jobs.has_work(now) || self.wants_target() || is_closing {
            return Action::Yield;
        }
        let deadline = self.deadline(now);
        assert!(deadline.is_none_or(|at| at > now), "a deadline that was handled is not due");
        Action::Wait(deadline)
    }

    /// True exactly when another client may be taken in.
    pub fn wants_connections(&self) -> bool {
        let connections_max = self.options.shares.connections;
        let has_room = if self.clients_len < connections_max {
            self.clients_len + self.parting_len < connections_max
        } else {
            self.evictions_left > 0 && self.evictable().is_some()
        };
        self.is_open() && self.door == Door::Open && has_room
    }

    /// How many bytes the owner of a socket would take now; 0: do not read.
    pub fn bytes_wanted(&self, socket: Key) -> usize {
        match self.sockets.get(socket) {
            Some(Role::Client(client)) => client.conn.bytes_wanted(),
            Some(Role::Lookup { .. }) => limits::READ_BYTES_MAX,
            Some(Role::Probe { .. } | Role::Reserved | Role::Closing) | None => 0,
        }
    }

    /// What is to be written to a socket now.
    pub fn output(&self, socket: Key) -> &[u8] {
        match self.sockets.get(socket) {
            Some(Role::Client(client)) => client.conn.output(),
            Some(Role::Lookup { attempt }) => self.resolver.output(*attempt),
            Some(Role::Probe { .. } | Role::Reserved | Role::Closing) | None => &[],
        }
    }

    fn on_tick(&mut self, now: Instant, wall: SystemTime, worked: Duration) {
        self.on_wall(wall);
        self.counters.observe_turn(worked);
        self.evictions_left = EVICTIONS_PER_TURN;
        self.ticked_at = Some(now);
        if let Door::Parked { until } = self.door
            && until <= now
        {
            self.door = Door::Open;
        }
        let (sockets, actions) = (&mut self.sockets, &mut self.actions);
        self.jobs.handle_tick(now, |socket| {
            if let Some(role) = sockets.get_mut(socket) {
                *role = Role::Closing;
            }
            actions.push_back(Action::Close { socket, parting: Parting::Ordinary });
        });
        if self.resolver.deadline().is_some_and(|deadline| deadline <= now) {
            self.resolver.handle_timeout(now);
        }
        self.pump(now);
        while let Some(client) = self.timers.pop_due(now) {
            self.on_client_due(now, client);
        }
        self.tick_batch(now);
        self.on_drain(now);
    }

    fn on_wall(&mut self, wall: SystemTime) {
        self.wall = wall;
        let second = wall.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        if self.date.0 != second {
            self.date = (second, httpdate::fmt_http_date(wall));
        }
    }

    fn on_connect(&mut self, now: Instant, socket: Key, outcome: Outcome) {
        if let Outcome::Shortage(shortage) = outcome {
            self.counters.count_shortage(shortage);
        }
        match self.sockets.get(socket) {
            Some(Role::Probe { scan, probe }) => {
                if self.jobs.handle_outcome(now, (*scan, *probe), outcome) {
                    let parting = match outcome {
                        Outcome::Connected | Outcome::MetItself => Parting::Reset,
                        Outcome::Refused
                        | Outcome::TimedOut
                        | Outcome::Unreachable
                        | Outcome::Shortage(_) => Parting::Ordinary,
                    };
                    self.close(socket, parting);
                }
            }
            Some(Role::Lookup { attempt }) => match outcome {
                Outcome::Connected => self.resolver.handle_connected(*attempt),
                Outcome::Shortage(_) => self.resolver.handle_shortage(now, *attempt),
                Outcome::MetItself
                | Outcome::Refused
                | Outcome::TimedOut
                | Outcome::Unreachable => self.resolver.handle_broken(now, *attempt),
            },
            Some(Role::Client(_) | Role::Reserved | Role::Closing) | None => {}
        }
    }

    /// Passes on what jobs and resolver have to say to each other and to clients.
    fn pump(&mut self, now: Instant) {
        loop {
            if let Some((job, owner, news)) = self.jobs.poll_news() {
                match (owner, news) {
                    (_, News::Lookup(question)) => {
                        self.resolver.handle_lookup(now, question, job);
                    }
                    (Owner::Batch(place), news) => self.on_batch_news(now, (place, job), news),
                    (Owner::Client(_), News::Began) => self.on_began(now, job),
                    (Owner::Client(_), News::Open { address, port, rtt }) => {
                        self.on_open(now, job, (address, port, rtt));
                    }
                    (Owner::Client(_), News::Ended) => self.on_ended(now, job),
                    (Owner::Client(_), News::Failed(failure)) => {
                        self.on_failed(now, job, &failure);
                    }
                }
            } else if let Some(output) = self.resolver.poll_output(now) {
                self.on_resolver(output);
            } else {
                return;
            }
        }
    }

    fn on_resolver(&mut self, output: Output) {
        match output {
            Output::Open { attempt, to, transport } => {
                let socket = self.sockets.insert(Role::Lookup { attempt });
                self.resolver.handle_opened(attempt, socket);
                let glance = Glance::Later;
                self.actions.push_back(Action::Connect { socket, to, transport, glance });
            }
            Output::ReadNameFiles => self.actions.push_back(Action::ReadNameFiles),
            Output::Attend { socket } => self.actions.push_back(Action::Attend(socket)),
            Output::Close { socket } => self.close(socket, Parting::Ordinary),
            Output::Answer { waiter, result } => {
                let label = result.as_ref().map_or_else(|failure| failure.label(), |_| "found");
                self.counters.count_lookup(label);
                self.jobs.handle_addresses(waiter, result);
            }
        }
    }

    /// Gives up a socket's key and has the shell close it; a parked listener may then try again.
    fn close(&mut self, socket: Key, parting: Parting) {
        if let Some(role) = self.sockets.get_mut(socket) {
            *role = Role::Closing;
        }
        self.actions.push_back(Action::Close { socket, parting });
    }

    /// When anything is due by time alone.
    fn deadline(&self, now: Instant) -> Option<Instant> {
        let door = match self.door {
            Door::Open => None,
            Door::Parked { until } => Some(until),
        };
        let phase = match self.phase {
            Phase::Serving | Phase::Closing { .. } | Phase::Ended => None,
            Phase::Notice { listeners_close_at, .. } => Some(listeners_close_at),
            Phase::Draining { ends_at } => Some(ends_at),
            Phase::Flushing { gives_up_at } => Some(gives_up_at),
        };
        let batch = self.batch.as_ref().and_then(Batch::deadline);
        let rooms = [
            self.timers.first(),
            self.jobs.deadline(now),
            self.resolver.deadline(),
            self.next_place_at(now),
            batch,
        ];
        [door, phase].into_iter().chain(rooms).flatten().min()
    }

    fn log(&mut self, record: &Record) {
        if self.options.log_level.admits(record.level()) {
            self.wipe_progress();
            let line = record.render(self.options.log_format, self.wall);
            self.actions.push_back(Action::Log(line));
        }
    }

    fn check_invariants(&self) {
        debug_assert_eq!(self.client_keys().len(), self.clients_len, "1: clients are counted");
        debug_assert!(
            self.sockets.iter().all(|(_, role)| !matches!(role, Role::Reserved)),
            "2: a reserved socket is put to use at once"
        );
        debug_assert!(
            self.sockets.len() >= self.clients_len + self.jobs.in_flight(),
            "3: whatever is in flight has a key"
        );
    }

    fn client_keys(&self) -> Vec<Key> {
        let clients = self.sockets.iter().filter(|(_, role)| matches!(role, Role::Client(_)));
        clients.map(|(key, _)| key).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::crowd::tests::{ask, records, service};
    use super::*;

    #[test]
    fn each_request_is_a_record_with_its_method_route_and_status() {
        let (mut service, now) = (service(8), Instant::now());
        service.options.log_level = Level::Debug;
        for (line, expected) in [
            ("GET /healthz", "method=GET route=/healthz status=200"),
            ("HEAD /metrics", "method=HEAD route=/metrics status=200"),
            ("OPTIONS /open-ports", "method=OPTIONS route=/open-ports status=200"),
            ("BREW /", "method=other route=/ status=405"),
            ("GET /nowhere", "method=GET route=other status=404"),
        ] {
            ask(&mut service, now, &format!("{line} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
            let records = records(&mut service, now);
            assert!(records.iter().any(|record| record.contains(expected)), "{line}: {records:?}");
        }
    }

    #[test]
    fn answers_bear_the_date_of_the_turn() {
        let (mut service, now) = (service(4), Instant::now());
        let mut date_at = |seconds: u64, millis: u64| {
            let wall = SystemTime::UNIX_EPOCH + Duration::from_millis(seconds * 1000 + millis);
            service.handle(Event::Tick { wall, worked: Duration::ZERO }, now);
            let answer = ask(&mut service, now, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n");
            let date = answer.lines().find_map(|line| line.strip_prefix("Date: "));
            date.expect("a date").to_owned()
        };
        assert_eq!(date_at(784_111_777, 0), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(date_at(784_111_777, 999), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(date_at(784_111_778, 0), "Sun, 06 Nov 1994 08:49:38 GMT");
        assert_eq!(date_at(784_111_770, 0), "Sun, 06 Nov 1994 08:49:30 GMT", "clocks are set back");
    }
}
