//! The core: all decisions of the service, with one event type and one action type.
//!
//! [`Core::handle`] takes an event, and [`Core::poll_action`] returns the next action; the last
//! action of a flush is [`Action::Yield`], [`Action::Wait`] or [`Action::Exit`]. [`Core`] only
//! routes: each component below owns its state and returns outputs, which the core passes to the
//! other components. These do not call each other, except that some count and log in the
//! `Telemetry` that the core passes in. The core touches no descriptor and no clock.
//!
//! The modules from top to bottom; each imports only modules after it, which a test checks:
//! `batch_run`, `responder`, `shutdown`, `clients`, `client`, `streams`, `eviction`,
//! `announcement`, `telemetry`, `pending_request`, `jobs`, `sockets`, `accept`, `job_outcome`,
//! `job`, `schedulers`, `scheduler`, `stale`, `launch_queues`, `shared_pace`, `start_pace`,
//! `running`, `drop_monitor`, `admission`, `options`.
//!
//! Invariants (`check_invariants`): the number of taken shares of the quota equals the number of
//! scans for clients; everything in flight has a key; after a flush no deadline is due.

mod accept;
mod admission;
pub mod announcement;
mod batch_run;
mod client;
mod clients;
mod drop_monitor;
mod eviction;
mod job;
mod job_outcome;
mod jobs;
mod launch_queues;
pub mod options;
mod pending_request;
mod responder;
mod running;
mod scheduler;
mod schedulers;
mod shared_pace;
mod shutdown;
mod sockets;
mod stale;
mod start_pace;
mod streams;
mod telemetry;

use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};

use crate::batch::Batch;
use crate::budget::Shares;
use crate::conn::reason::CloseReason;
use crate::dns::failure::LookupFailure;
use crate::dns::files::NameFiles;
use crate::dns::{self, Resolver};
use crate::event::{Action, Backlog, Event, Outcome, Signal};
use crate::limits::{self, Sources};
use crate::listen_address::Listen;
use crate::report::Gauges;
use crate::report::log::{Level, Record};
use crate::scan::stored::StoredScan;
use crate::service_names::Names;
use crate::slots::Key;
use crate::technique::Technique;
use admission::{Admission, Load};
use announcement::{Announcement, Example, StartWarning};
use batch_run::{BatchRun, NextTarget};
use clients::Clients;
use job::Owner;
use jobs::{JobEvent, Jobs, RouteQuery};
use options::Options;
use responder::Responder;
use running::SchedulerOutput;
use schedulers::Schedulers;
use shutdown::{Shutdown, ShutdownStep, Use};
use sockets::{Sockets, StreamEvent, StreamOwner};
use stale::{Effect, StaleEvent};
use telemetry::{Context, LogOptions, Telemetry};

/// The whole service. See the module's documentation.
#[derive(Debug)]
pub struct Core {
    shares: Shares,
    sources: Sources,
    names: Names,
    sockets: Sockets,
    responder: Responder,
    batch: BatchRun,
    jobs: Jobs,
    shutdown: Shutdown,
    telemetry: Telemetry,
}

impl Core {
    /// A core without clients, started at `wall`.
    pub fn new(options: Options, wall: SystemTime) -> Self {
        let (admission, seed) = (Admission::new(&options), options.seed);
        let Options { settings, shares, policy, names, log_level, log_format, .. } = options;
        let resolver = Resolver::new(seed, shares.lookups);
        let clients = Clients::new(shares.connections, wall);
        let announcement = Announcement::new(policy.clone(), shares);
        Self {
            shares,
            sources: settings.sources,
            names,
            sockets: Sockets::new(shares.total()),
            batch: BatchRun::new(settings.targets_max),
            jobs: Jobs::new(resolver, Schedulers::new(&shares), policy, settings.sources),
            shutdown: Shutdown::new(settings.drain_delay, settings.drain_timeout),
            responder: Responder::new(clients, admission, announcement, settings),
            telemetry: Telemetry::new(LogOptions { level: log_level, format: log_format }, wall),
        }
    }

    /// The longest time from a signal to the exit.
    pub fn shutdown_time_max(&self) -> Duration {
        self.shutdown.time_max()
    }

    /// Logs the listeners, every limit in force, and an example request with these values.
    pub fn announce(&mut self, listeners: &[Listen], descriptors: usize, example: Example) {
        self.responder.set_example(example);
        for record in self.responder.announce(listeners, descriptors) {
            self.telemetry.log(&record);
        }
    }

    /// Logs a warning at the start.
    pub fn warn(&mut self, warning: StartWarning) {
        self.telemetry.log(&warning.record());
    }

    /// Accepts the only batch. Its targets are begun from the first tick on.
    pub fn begin_batch(&mut self, batch: Batch) {
        if let Some(rate) = self.batch.begin(batch) {
            self.jobs.schedulers_mut().set_rate(rate);
        }
    }

    /// Handles one event. [`Core::poll_action`] must be called until it waits before the tick ends.
    pub fn handle(&mut self, event: Event, now: Instant) {
        match event {
            Event::Clock { wall } => {
                self.telemetry.handle_wall(wall);
                self.clients().handle_wall(wall);
            }
            Event::Tick { worked, backlog } => {
                self.telemetry.counters().observe_tick(worked);
                self.on_tick(now, backlog);
            }
            Event::Signal(signal) => self.on_signal(now, signal),
            Event::Probe { probe, outcome } => self.on_probe(now, probe, outcome),
            Event::Connect { socket, outcome } => {
                self.telemetry.count_outcome(outcome);
                self.on_stream(now, socket, StreamEvent::Connect(outcome));
            }
            Event::Received { socket, bytes } => {
                self.on_stream(now, socket, StreamEvent::Received(bytes));
            }
            Event::ReadClosed { socket } => self.on_stream(now, socket, StreamEvent::ReadClosed),
            Event::Hangup { socket } => self.on_stream(now, socket, StreamEvent::Hangup),
            Event::Sent { socket, count } => self.on_stream(now, socket, StreamEvent::Sent(count)),
            Event::Broken { socket } => self.on_stream(now, socket, StreamEvent::Broken),
            Event::AcceptFailed(shortage) => {
                self.telemetry.counters().count_shortage(shortage);
                self.shutdown.delay_closing(self.sockets.handle_accept_failed(now));
            }
            Event::Route { request, to, route } => {
                let effect = self.jobs.handle_route(now, request, to.ip(), route);
                self.telemetry.count_if_stale(effect, StaleEvent::Route);
            }
            Event::SynCounts(counts) => self.telemetry.counters().add_syn_counts(&counts),
            Event::ReuseRefused => self.telemetry.count_reuse_refused(),
            Event::LocalDrops(reading) => {
                let (schedulers, sockets) = (self.jobs.schedulers_mut(), &mut self.sockets);
                let forget = |probe| sockets.forget(probe);
                let postponed = schedulers.handle_local_drops(now, reading, forget);
                self.telemetry.count_postponed(now, postponed, reading);
            }
            Event::TokenFile(it) => self.responder.handle_token_file(now, it, &mut self.telemetry),
            Event::ProcessFiles(files) => {
                self.telemetry.handle_process_files(now, &files);
                self.clients().resume_requests();
            }
            Event::NameFiles { resolv_conf, hosts } => {
                let files = NameFiles { resolv_conf, hosts };
                self.jobs.resolver_mut().handle_name_files(now, files);
            }
            Event::Printed { count } => self.batch.handle_printed(count),
            Event::PrintFailed(failure) => {
                self.batch.handle_print_failed(failure);
                self.jobs.end_all();
                self.route_outputs(now);
                self.batch.conclude(now);
            }
        }
        self.route_outputs(now);
    }

    /// Registers a connection that was accepted as [`Core::wants_connections`] permitted, and
    /// returns the key of its socket.
    pub fn handle_accepted(&mut self, peer: Option<SocketAddr>, now: Instant) -> Key {
        self.telemetry.counters().count_accepted();
        let socket = self.sockets.next_key();
        let client = self.clients().accept(now, peer, socket);
        self.sockets.insert_client(socket, client);
        self.route_outputs(now);
        socket
    }

    /// A connection waits in the queue of a listener, and [`Core::wants_connections`] is false.
    pub fn handle_accept_backlog(&mut self, now: Instant) {
        self.clients().handle_accept_backlog(now);
        self.route_outputs(now);
    }

    /// This number of log lines was dropped because the buffer for stderr was full.
    pub fn handle_log_dropped(&mut self, lines: u64) {
        self.telemetry.counters().add_log_lines_dropped(lines);
    }

    /// The next action. [`Action::Yield`], [`Action::Wait`] and [`Action::Exit`] end the flush.
    pub fn poll_action(&mut self, now: Instant) -> Action {
        if self.telemetry.has_lines() || self.batch.is_active() {
            let actions = self.batch.flush_stderr(&mut self.telemetry);
            actions.into_iter().for_each(|action| self.sockets.push(action));
        }
        if let Some(action) = self.sockets.poll_action() {
            return action;
        }
        self.clients().handle_sockets_closed();
        if self.shutdown.is_ended() {
            return Action::Exit(self.batch.exit_code());
        }
        if let Some(RouteQuery { job, to }) = self.jobs.poll_route() {
            return Action::FindRoute { request: job, to };
        }
        let schedulers = self.jobs.schedulers_mut();
        while let Some(output) = schedulers.poll_output(now, self.sockets.next_key()) {
            match output {
                SchedulerOutput::Launch(launch) => {
                    self.telemetry.counters().add_connects(1);
                    return self.sockets.launch(launch);
                }
                SchedulerOutput::Forget { probe } if self.sockets.take_probe(probe).is_none() => {}
                SchedulerOutput::Forget { probe } => return Action::Forget { probe },
                SchedulerOutput::ReadLocalDrops => return Action::ReadLocalDrops,
            }
        }
        self.check_invariants();
        let wants_target = self.batch.wants_target(self.jobs.demand(self.batch.technique()));
        if self.jobs.schedulers().has_work(now) || wants_target || self.shutdown.has_work() {
            return Action::Yield;
        }
        let deadline = self.deadline(now);
        assert!(deadline.is_none_or(|at| at > now), "a deadline that was handled is not due");
        Action::Wait(deadline)
    }

    /// The maximum number of probes of a technique in flight at once.
    pub fn probes_max(&self, technique: Technique) -> usize {
        self.shares.probes[technique]
    }

    /// The number of probes of a technique that the running scans could have in flight.
    pub fn probes_wanted(&self, technique: Technique) -> usize {
        self.jobs.need(technique)
    }

    /// The source addresses of probes.
    pub const fn sources(&self) -> Sources {
        self.sources
    }

    /// Whether another connection may be accepted.
    pub fn wants_connections(&self) -> bool {
        self.shutdown.is_open() && self.sockets.accepts() && self.responder.clients().has_room()
    }

    /// Whether the listeners must stay open although [`Action::CloseListeners`] had their queues
    /// emptied, because a connection could not be accepted.
    pub const fn keeps_listeners(&self) -> bool {
        self.shutdown.keeps_listeners()
    }

    /// The number of bytes that the owner of a socket accepts now. If it is 0, the socket must not
    /// be read.
    pub fn bytes_wanted(&self, socket: Key) -> usize {
        match self.sockets.stream_owner(socket) {
            Some(StreamOwner::Client(client)) => self.responder.clients().bytes_wanted(client),
            Some(StreamOwner::Lookup(_)) => limits::READ_BYTES_MAX,
            None => 0,
        }
    }

    /// The bytes that are to be written to a socket now.
    pub fn output(&self, socket: Key) -> &[u8] {
        match self.sockets.stream_owner(socket) {
            Some(StreamOwner::Client(client)) => self.responder.clients().output(client),
            Some(StreamOwner::Lookup(attempt)) => self.jobs.resolver().output(attempt),
            None => &[],
        }
    }

    /// The next bytes for stdout.
    pub fn stdout(&self) -> &[u8] {
        self.batch.stdout()
    }

    fn on_tick(&mut self, now: Instant, backlog: Backlog) {
        self.sockets.handle_tick(now);
        self.jobs.handle_lookup_timeout(now);
        self.clients().handle_tick(now);
        self.route_outputs(now);
        self.clients().handle_timeout(now);
        self.route_outputs(now);
        let timed_out = self.jobs.handle_tick(now, backlog, |probe| self.sockets.forget(probe));
        self.telemetry.count_timed_out_lookups(timed_out);
        self.route_outputs(now);
        self.batch.handle_timeout(now, self.jobs.schedulers().in_flight(), self.jobs.all_scans());
        let demand = self.jobs.demand(self.batch.technique());
        for NextTarget { target, request } in self.batch.poll_targets(now, demand) {
            self.jobs.start(now, request, Owner::Batch(target));
        }
        self.batch.conclude(now);
        self.route_outputs(now);
        self.on_shutdown_tick(now);
    }

    fn on_signal(&mut self, now: Instant, signal: Signal) {
        let usage = if self.batch.is_active() { Use::Batch } else { Use::Service };
        if usage == Use::Service && !self.shutdown.is_shutting_down() {
            self.telemetry.log_shutdown(signal, self.load());
        }
        self.shutdown.handle_signal(now, usage);
    }

    /// The engine no longer knows the probe, so its key is free.
    fn on_probe(&mut self, now: Instant, key: Key, outcome: Outcome) {
        self.telemetry.count_outcome(outcome);
        let effect = match self.sockets.take_probe(key) {
            Some(probe) => self.jobs.handle_outcome(now, probe, outcome),
            None => Effect::Stale,
        };
        self.telemetry.count_if_stale(effect, StaleEvent::Probe);
    }

    fn on_stream(&mut self, now: Instant, socket: Key, event: StreamEvent) {
        match self.sockets.stream_owner(socket) {
            Some(StreamOwner::Client(client)) => self.clients().handle_stream(now, client, event),
            Some(StreamOwner::Lookup(attempt)) => self.jobs.handle_stream(now, attempt, event),
            None => self.telemetry.count_stale(event.stale_kind()),
        }
    }

    /// Passes the outputs of the components to each other until there are no more. Those of the
    /// clients come first, because a job never outlives its client.
    fn route_outputs(&mut self, now: Instant) {
        loop {
            let load = self.load();
            let (names, telemetry) = (&self.names, &mut self.telemetry);
            if let Some(output) = self.responder.poll_output(now, load, names, telemetry) {
                self.on_responder_output(now, output);
                continue;
            }
            let deliver = |owner, event: JobEvent| {
                let context = Context { now, names, telemetry };
                match owner {
                    Owner::Client(client) => self.responder.handle_job(client, event, context),
                    Owner::Batch(target) => self.batch.handle_job(target, event, context),
                }
            };
            if self.jobs.poll_event(now, deliver) {
                continue;
            }
            let Some(output) = self.jobs.resolver_mut().poll_output(now) else { break };
            self.on_resolver_output(output);
        }
        if self.batch.is_done() {
            self.shutdown.end();
        }
    }

    fn on_responder_output(&mut self, now: Instant, output: responder::ResponderOutput) {
        match output {
            responder::ResponderOutput::StartJob { client, request, claim } => {
                let job = self.jobs.start(now, *request, Owner::Client(client));
                self.responder.begin_scan(client, job, *claim);
            }
            responder::ResponderOutput::Closed { socket, job } => {
                self.sockets.close(socket);
                if let Some(job) = job {
                    self.jobs.cancel(job);
                }
            }
            responder::ResponderOutput::ProgressDue { client, job } => {
                let scans: Vec<&StoredScan> = self.jobs.scans(job).collect();
                self.responder.clients_mut().write_progress(now, client, &scans);
            }
            responder::ResponderOutput::MetricsWanted { client, pending } => {
                let (gauges, telemetry) = (self.gauges(), &mut self.telemetry);
                let context = Context { now, names: &self.names, telemetry };
                self.responder.respond_metrics(client, *pending, &gauges, context);
            }
            responder::ResponderOutput::Act(action) => self.sockets.push(action),
        }
    }

    fn on_resolver_output(&mut self, output: dns::Output) {
        match output {
            dns::Output::Open { attempt, to, transport } => {
                let socket = self.sockets.connect(attempt, to, transport);
                self.jobs.resolver_mut().handle_opened(attempt, socket);
            }
            dns::Output::Close { socket } => self.sockets.close(socket),
            dns::Output::Attend { socket } => self.sockets.push(Action::Attend(socket)),
            dns::Output::ReadNameFiles => self.sockets.push(Action::ReadNameFiles),
            dns::Output::Answer { waiter, result } => {
                self.telemetry.counters().count_lookup(LookupFailure::result_label(&result));
                let effect = self.jobs.handle_addresses(waiter, result);
                self.telemetry.count_if_stale(effect, StaleEvent::Lookup);
            }
        }
    }

    /// Takes the next step of the shutdown when it is due.
    fn on_shutdown_tick(&mut self, now: Instant) {
        match self.shutdown.handle_tick(now, self.sockets.deadline()) {
            Some(ShutdownStep::CloseListeners) => self.sockets.push(Action::CloseListeners),
            Some(ShutdownStep::ShutDownClients) => self.clients().handle_shutdown(now),
            Some(ShutdownStep::CloseClients) => {
                self.clients().close_all(CloseReason::Stalled);
                if self.batch.is_active() {
                    self.shutdown.end();
                }
            }
            None => {}
        }
        self.route_outputs(now);
        if self.shutdown.poll_scans_end(now) {
            self.jobs.end_all();
            self.route_outputs(now);
            self.batch.handle_interrupt();
            self.batch.conclude(now);
            self.route_outputs(now);
        }
        let is_served = self.responder.clients().len() == 0 && !self.batch.is_active();
        if !self.shutdown.is_open() && !self.shutdown.is_ended() && is_served {
            self.shutdown.end();
            self.telemetry.log(&Record::new(Level::Info, "drained"));
        }
    }

    const fn clients(&mut self) -> &mut Clients {
        self.responder.clients_mut()
    }

    /// The current load.
    fn load(&self) -> Load {
        let (scans, connections) = (self.jobs.len(), self.responder.clients().len());
        Load { scans, connections, stage: self.shutdown.stage() }
    }

    /// The current values for `/metrics`.
    fn gauges(&self) -> Gauges {
        let connects = self.jobs.schedulers().of(Technique::Connect);
        Gauges {
            started: self.telemetry.started(),
            scans_running: self.jobs.len(),
            lookups_running: self.jobs.resolver().lookups_len(),
            connections_open: self.responder.clients().len(),
            connects_in_flight: connects.in_flight(),
            connects_in_flight_max: connects.capacity(),
            descriptors_used: self.sockets.descriptors(),
            descriptors_max: self.shares.total(),
            is_draining: self.shutdown.is_shutting_down(),
            process: self.telemetry.process_usage(),
        }
    }

    /// The time of the next deadline.
    fn deadline(&self, now: Instant) -> Option<Instant> {
        let deadlines = [
            self.sockets.deadline(),
            self.shutdown.deadline(),
            self.responder.clients().deadline(now),
            self.jobs.deadline(now),
            self.batch.deadline(),
        ];
        deadlines.into_iter().flatten().min()
    }

    fn check_invariants(&self) {
        self.responder.check_invariants();
        let keyed = self.responder.clients().len() + self.jobs.schedulers().attended();
        debug_assert!(self.sockets.len() >= keyed, "everything in flight has a key");
    }
}

#[cfg(test)]
#[path = "core/tests/fixtures.rs"]
mod fixtures;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::fixtures::{acts, ask, core, core_with, records, tick};
    use super::*;
    use crate::event::{ProcessFiles, RouteResult};
    use crate::technique::{PerTechnique, RawAccess};

    /// Regression: an assertion took the key of such a probe for lost.
    #[test]
    fn an_outcome_may_come_before_the_probe_of_a_cancelled_scan_is_forgotten() {
        for technique in Technique::ALL {
            check_early_outcomes(technique);
        }
    }

    fn check_early_outcomes(technique: Technique) {
        let now = Instant::now();
        let mut core = core_with(1, |options| {
            options.shares.probes = PerTechnique::new(|_| 20_000);
            options.settings.raw = RawAccess::Permitted;
        });
        let client = core.handle_accepted(None, now);
        let target =
            format!("/open-ports?domain=127.0.0.1&ports=1-&technique={}", technique.label());
        let request = format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        core.handle(Event::Received { socket: client, bytes: request.as_bytes() }, now);
        let mut probes = Vec::new();
        while probes.len() < limits::ABANDONS_PER_TICK + 100 {
            for action in acts(&mut core, now) {
                if let Action::Probe { probe, .. } = action {
                    probes.push(probe);
                } else if let Action::FindRoute { request, to } = action {
                    let route = RouteResult::From(to.ip());
                    core.handle(Event::Route { request, to, route }, now);
                }
            }
            tick(&mut core, now);
        }
        core.handle(Event::Broken { socket: client }, now);
        let forgotten = |core: &mut Core| {
            let is_forget = |action: &Action| matches!(action, Action::Forget { .. });
            acts(core, now).iter().filter(|action| is_forget(action)).count()
        };
        assert_eq!(forgotten(&mut core), limits::ABANDONS_PER_TICK);
        for probe in &probes {
            core.handle(Event::Probe { probe: *probe, outcome: Outcome::Refused }, now);
        }
        assert_eq!(core.gauges().descriptors_used, 0, "all sockets are idle or closed");
        acts(&mut core, now);
        tick(&mut core, now);
        assert_eq!(forgotten(&mut core), 0, "their keys are free");
        assert_eq!(core.jobs.schedulers().in_flight(), 0);
    }

    #[test]
    fn each_request_is_a_record_with_its_method_route_and_status() {
        let (mut core, now) =
            (core_with(8, |options| options.log_level = Level::Debug), Instant::now());
        core.handle(Event::ProcessFiles(ProcessFiles::default()), now);
        for (line, expected) in [
            ("GET /healthz", "method=GET route=/healthz status=200"),
            ("HEAD /metrics", "method=HEAD route=/metrics status=200"),
            ("OPTIONS /open-ports", "method=OPTIONS route=/open-ports status=200"),
            ("BREW /", "method=other route=/ status=405"),
            ("GET /nowhere", "method=GET route=other status=404"),
        ] {
            ask(&mut core, now, &format!("{line} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
            let records = records(&mut core, now);
            assert!(records.iter().any(|record| record.contains(expected)), "{line}: {records:?}");
        }
    }

    #[test]
    fn answers_contain_the_date_of_the_tick() {
        let (mut core, now) = (core(4), Instant::now());
        let mut date_at = |seconds: u64, millis: u64| {
            let wall = SystemTime::UNIX_EPOCH + Duration::from_millis(seconds * 1000 + millis);
            core.handle(Event::Clock { wall }, now);
            let answer = ask(&mut core, now, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n");
            let date = answer.lines().find_map(|line| line.strip_prefix("Date: "));
            date.expect("a date").to_owned()
        };
        assert_eq!(date_at(784_111_777, 0), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(date_at(784_111_777, 999), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(date_at(784_111_778, 0), "Sun, 06 Nov 1994 08:49:38 GMT");
        assert_eq!(
            date_at(784_111_770, 0),
            "Sun, 06 Nov 1994 08:49:30 GMT",
            "the clock was set back"
        );
    }
}
