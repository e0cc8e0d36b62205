//! Runs a batch from the command line: decides which jobs are started for it, and passes their
//! results to it.
//!
//! The batch decides which target comes next and what is printed. This module gives it jobs as far
//! as the budget permits. In a service there is no batch, and this module does nothing. `core`
//! drives it and performs each action of [`BatchRun::flush_stderr`].

use std::num::NonZeroU32;
use std::time::Instant;

use super::job::JobFailure;
use super::job_outcome::{JobOutcome, failure_problem};
use super::jobs::{Demand, JobEvent};
use super::running::FoundPort;
use super::telemetry::{Context, Telemetry};
use crate::batch::progress::UnderWay;
use crate::batch::targets::TargetId;
use crate::batch::{Batch, Beginning, OpenPort};
use crate::event::{Action, PrintFailure};
use crate::scan::request::ScanRequest;
use crate::scan::stored::StoredScan;
use crate::technique::Technique;

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct BatchRun {
    batch: Option<Batch>,
    /// The maximum number of targets that are scanned at once.
    targets_max: usize,
}

/// A target whose job must be started.
#[derive(Debug)]
pub(super) struct NextTarget {
    pub(super) target: TargetId,
    pub(super) request: ScanRequest,
}

/// The number of targets that may be begun in one tick. If each target has one port, the connects
/// of one tick belong to as many targets; this allows some more to be ready for the next tick.
const TARGETS_PER_TICK: usize = 8 * Technique::Connect.properties().launches_per_tick;
/// The number of scans without an answer that wait for their turn to launch. Further targets would
/// only take memory; this number suffices for the SYNs of a tick.
const STARTING_MAX: usize = Technique::Syn.properties().launches_per_tick;

impl BatchRun {
    /// No batch, which may scan this number of targets at once.
    pub(super) const fn new(targets_max: usize) -> Self {
        Self { batch: None, targets_max }
    }

    /// Accepts the only batch and returns its rate, if it has one.
    pub(super) fn begin(&mut self, batch: Batch) -> Option<NonZeroU32> {
        assert!(self.batch.is_none(), "a process runs at most one batch");
        let rate = batch.scan_options().rate;
        self.batch = Some(batch);
        rate
    }

    /// A job reports an event of its target.
    pub(super) fn handle_job(&mut self, target: TargetId, event: JobEvent, context: Context) {
        let Context { now, names, telemetry } = context;
        let batch = self.running();
        match event {
            JobEvent::Began { request, scans } => {
                let total = scans.iter().map(|scan| scan.counts().total()).sum();
                let (address, ports) = (scans[0].target().ip(), &request.ports);
                batch.handle_began(target, Beginning { address, total, ports });
            }
            JobEvent::Open(FoundPort { address, port, rtt }) => {
                let service = names.of(port);
                batch.handle_open(target, OpenPort { address, port, rtt, service });
            }
            JobEvent::Ended(ended) => {
                let outcome = JobOutcome::new(now, ended);
                outcome.summarize(names, |summary| batch.handle_ended(now, target, summary));
                telemetry.counters().add_ports(&outcome.tally());
            }
            // The name of the target was not resolved before the end.
            JobEvent::Failed { request, failure } => {
                let ports = request.ports.len();
                let denied = match failure {
                    JobFailure::ShuttingDown => return batch.handle_dropped(target, ports),
                    JobFailure::Denied(address, _) => Some(*address),
                    JobFailure::Lookup(_) => None,
                };
                batch.handle_failed(target, ports, &failure_problem(failure), denied);
            }
        }
        batch.conclude(now);
    }

    /// Reports progress, if it is due. `scans` are the scans of all jobs.
    pub(super) fn handle_timeout<'a>(
        &mut self,
        now: Instant,
        in_flight: usize,
        scans: impl Iterator<Item = &'a StoredScan>,
    ) {
        let Some(batch) = &mut self.batch else { return };
        if batch.deadline().is_none_or(|deadline| deadline > now) {
            return;
        }
        let mut under_way = UnderWay { in_flight: in_flight as u64, ..UnderWay::default() };
        for counts in scans.map(StoredScan::counts) {
            under_way.done += u64::from(counts.total() - counts.untested);
            under_way.open += u64::from(counts.open);
        }
        batch.handle_timeout(now, under_way);
    }

    /// Stdout accepted `count` bytes.
    pub(super) fn handle_printed(&mut self, count: usize) {
        self.running().handle_printed(count);
    }

    /// Stdout accepts no more bytes.
    pub(super) fn handle_print_failed(&mut self, failure: PrintFailure) {
        self.running().handle_print_failed(failure);
    }

    /// The user interrupts the run and wants the results so far.
    pub(super) fn handle_interrupt(&mut self) {
        if let Some(batch) = &mut self.batch {
            batch.handle_interrupt();
        }
    }

    /// Prints the conclusion once nothing is left to be scanned.
    pub(super) fn conclude(&mut self, now: Instant) {
        if let Some(batch) = &mut self.batch {
            batch.conclude(now);
        }
    }

    /// The targets to begin in this tick: as many as can use the connects that the other targets
    /// leave.
    pub(super) fn poll_targets(&mut self, now: Instant, demand: Demand) -> Vec<NextTarget> {
        let mut targets = Vec::new();
        let mut need = self.need(demand);
        while targets.len() < TARGETS_PER_TICK
            && demand.jobs + targets.len() < self.targets_max
            && demand.starting + targets.len() < STARTING_MAX
            && need < demand.capacity
            && let Some(batch) = &mut self.batch
            && let Some((target, request)) = batch.poll_target(now)
        {
            need += request.ports.len();
            targets.push(NextTarget { target, request });
        }
        targets
    }

    /// The actions for stderr, including log lines. A visible progress line is cleared before a log
    /// line.
    pub(super) fn flush_stderr(&mut self, telemetry: &mut Telemetry) -> Vec<Action> {
        let mut actions = Vec::new();
        loop {
            let line = telemetry.poll_line();
            if let Some(batch) = &mut self.batch {
                if line.is_some() {
                    batch.clear_progress();
                }
                actions.extend(std::iter::from_fn(|| batch.poll_action()));
            }
            match line {
                Some(line) => actions.push(Action::Log(line)),
                None => return actions,
            }
        }
    }

    /// The technique with which the targets are scanned.
    pub(super) fn technique(&self) -> Technique {
        self.batch.as_ref().map_or_else(Technique::default, |batch| batch.scan_options().technique)
    }

    /// Whether another target may be begun.
    pub(super) fn wants_target(&self, demand: Demand) -> bool {
        self.batch.as_ref().is_some_and(Batch::wants_target)
            && demand.jobs < self.targets_max
            && demand.starting < STARTING_MAX
            && self.need(demand) < demand.capacity
    }

    /// The number of connects that the running targets can use. Their number of ports is an upper
    /// bound that is known at once. The exact number is computed only if the bound is not below the
    /// capacity.
    fn need(&self, demand: Demand) -> usize {
        let ports = self.batch.as_ref().map_or(0, Batch::ports_running);
        let ports = usize::try_from(ports).unwrap_or(usize::MAX);
        if ports < demand.capacity { ports } else { demand.need }
    }

    /// The time at which progress is due.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.batch.as_ref().and_then(Batch::deadline)
    }

    /// The next bytes for stdout.
    pub(super) fn stdout(&self) -> &[u8] {
        self.batch.as_ref().map_or(&[], Batch::stdout)
    }

    /// Whether the process has a batch instead of clients.
    pub(super) const fn is_active(&self) -> bool {
        self.batch.is_some()
    }

    /// Whether nothing is left to be scanned or printed.
    pub(super) fn is_done(&self) -> bool {
        self.batch.as_ref().is_some_and(Batch::is_done)
    }

    /// The exit code of the process.
    pub(super) fn exit_code(&self) -> u8 {
        self.batch.as_ref().map_or(0, Batch::exit_code)
    }

    fn running(&mut self) -> &mut Batch {
        match &mut self.batch {
            Some(batch) => batch,
            None => unreachable!("only a batch has targets and stdout"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::net::{Ipv4Addr, SocketAddr};
    use std::time::{Duration, SystemTime};

    use crate::access::browser::HostGuard;
    use crate::batch::list::TargetList;
    use crate::batch::options::{BatchOptions, Destination, Format, ProgressLine, Shown};
    use crate::batch::printer::RunInfo;
    use crate::batch::shard::Shard;
    use crate::batch::table::Colour;
    use crate::budget::Shares;
    use crate::core::Core;
    use crate::core::options::Options;
    use crate::event::{Backlog, Event, Outcome, RouteResult, Signal};
    use crate::limits::Settings;
    use crate::policy::{Exposure, Policy};
    use crate::port_set::PortSet;
    use crate::report::log::{Level, LogFormat};
    use crate::scan::options::{Retries, ScanOptions};
    use crate::service_names::Names;
    use crate::technique::PerTechnique;

    /// A service without descriptors and its environment: ports below 10 refuse, port 443 is open,
    /// name servers have no route, and the other ports are silent.
    struct FakeWorld {
        core: Core,
        now: Instant,
        connects: BTreeMap<SocketAddr, usize>,
        in_flight: usize,
        in_flight_most: usize,
        stdout: String,
        stderr: Vec<String>,
    }

    const IN_FLIGHT: usize = 50;

    fn world(list: &str, shard: &str) -> FakeWorld {
        world_that_prints(list, Format::Json, shard)
    }

    fn world_that_prints(list: &str, format: Format, shard: &str) -> FakeWorld {
        let mut targets = TargetList::new(PortSet::from_range(1, 9), PortSet::new());
        targets.add_lines(list.as_bytes());
        let targets = targets.finish().expect("a list");
        let batch = Batch::new(BatchOptions {
            targets,
            scan: ScanOptions {
                deadline: Duration::from_secs(60),
                retries: Retries::Exactly(0),
                ..ScanOptions::default()
            },
            shard: Shard::parse(shard).expect("a shard"),
            format,
            colour: Colour::Plain,
            progress: ProgressLine::Hidden,
            shown: Shown::All,
            output: Destination::Stdout,
            run: RunInfo::default(),
        });
        let exposure = Exposure::LoopbackOnly;
        let options = Options {
            settings: Settings::default(),
            shares: Shares { connections: 1, lookups: 2, probes: PerTechnique::new(|_| IN_FLIGHT) },
            policy: Policy { allow: Vec::new(), deny: Vec::new(), exposure },
            host_guard: HostGuard { exposure, names: Vec::new() },
            token: None,
            proxies: Default::default(),
            names: Names::default(),
            log_level: Level::Warn,
            log_format: LogFormat::Logfmt,
            seed: 1,
        };
        let mut core = Core::new(options, SystemTime::UNIX_EPOCH);
        core.begin_batch(batch);
        FakeWorld {
            core,
            now: Instant::now(),
            connects: BTreeMap::new(),
            in_flight: 0,
            in_flight_most: 0,
            stdout: String::new(),
            stderr: Vec::new(),
        }
    }

    impl FakeWorld {
        /// One tick of the loop. Returns the exit code once there is one.
        fn tick(&mut self) -> Option<u8> {
            let output = self.core.stdout();
            if !output.is_empty() {
                self.stdout.push_str(std::str::from_utf8(output).expect("text"));
                let count = output.len();
                self.core.handle(Event::Printed { count }, self.now);
            }
            let tick = Event::Tick { worked: Duration::ZERO, backlog: Backlog::None };
            self.core.handle(tick, self.now);
            loop {
                match self.core.poll_action(self.now) {
                    Action::Probe { probe, to, .. } => {
                        *self.connects.entry(to).or_default() += 1;
                        self.in_flight += 1;
                        self.in_flight_most = self.in_flight_most.max(self.in_flight);
                        let outcome = match to.port() {
                            ..10 => Some(Outcome::Refused),
                            443 => Some(Outcome::Connected),
                            _ => None,
                        };
                        if let Some(outcome) = outcome {
                            self.in_flight -= 1;
                            self.core.handle(Event::Probe { probe, outcome }, self.now);
                        }
                    }
                    Action::Forget { .. } => self.in_flight -= 1,
                    Action::FindRoute { request, to } => {
                        let route = RouteResult::From(Ipv4Addr::LOCALHOST.into());
                        self.core.handle(Event::Route { request, to, route }, self.now);
                    }
                    Action::ReadNameFiles => {
                        let unread = Event::NameFiles { resolv_conf: None, hosts: None };
                        self.core.handle(unread, self.now);
                    }
                    Action::Log(line) => self.stderr.push(line),
                    Action::Exit(code) => return Some(code),
                    Action::Yield => return None,
                    Action::Wait(until) => {
                        if self.core.stdout().is_empty() {
                            self.now = until.expect("a scan always has a deadline");
                        }
                        return None;
                    }
                    Action::Connect { socket, .. } => {
                        let outcome = Outcome::Unreachable;
                        self.core.handle(Event::Connect { socket, outcome }, self.now);
                    }
                    Action::Close { .. } => {}
                    action @ (Action::Attend(_)
                    | Action::ShutdownWrite(_)
                    | Action::ReadLocalDrops
                    | Action::ReadTokenFile
                    | Action::ReadProcessFiles
                    | Action::CloseListeners
                    | Action::ShowProgress(_)) => panic!("unexpected action {action:?}"),
                }
            }
        }

        /// Runs ticks until the end and returns the exit code.
        fn run(&mut self) -> u8 {
            (0..100_000).find_map(|_| self.tick()).expect("a batch ends")
        }
    }

    fn list(targets: u8, ports: &str) -> String {
        (1..=targets).map(|host| format!("127.0.0.{host} {ports}\n")).collect()
    }

    #[test]
    fn shards_together_probe_each_target_and_port_exactly_once() {
        for shards in [1, 3, 7] {
            let mut probed: BTreeMap<SocketAddr, usize> = BTreeMap::new();
            for shard in 1..=shards {
                let mut world = world(&list(40, "1-9"), &format!("{shard}/{shards}"));
                assert_eq!(world.run(), 0);
                for (at, times) in world.connects {
                    *probed.entry(at).or_default() += times;
                }
            }
            assert_eq!(probed.len(), 40 * 9, "in {shards} shards");
            assert!(probed.values().all(|times| *times == 1), "in {shards} shards");
        }
    }

    #[test]
    fn targets_share_one_budget_and_fill_it() {
        let mut world = world(&list(200, "1000-1006"), "1/1");
        let began_at = world.now;
        assert_eq!(world.run(), 0);
        assert_eq!(world.in_flight_most, IN_FLIGHT);
        assert_eq!(world.stdout.lines().count(), 200);
        // There are 28 windows of silent ports, each of 2 s.
        let took = (world.now - began_at).as_secs();
        assert!((56..=70).contains(&took), "{took} s");
    }

    #[test]
    fn no_more_targets_run_at_once_than_their_memory_permits() {
        let mut world = world(&list(200, "1000"), "1/1");
        world.core.batch.targets_max = 10;
        assert_eq!(world.run(), 0);
        assert_eq!(world.in_flight_most, 10, "each target has one port");
        assert_eq!(world.stdout.lines().count(), 200);
    }

    #[test]
    fn no_more_targets_begin_than_can_launch_soon() {
        let mut run = world(&list(200, "1000"), "1/1").core.batch;
        let free = Demand { need: 0, capacity: 10_000, starting: 0, jobs: 0 };
        let full = Demand { starting: STARTING_MAX, ..free };
        assert!(!run.wants_target(full) && run.poll_targets(Instant::now(), full).is_empty());
        let almost = Demand { starting: STARTING_MAX - 3, ..free };
        assert!(run.wants_target(almost));
        assert_eq!(run.poll_targets(Instant::now(), almost).len(), 3);
        assert_eq!(run.poll_targets(Instant::now(), free).len(), 197, "all others");
    }

    #[test]
    fn progress_counts_the_ports_that_have_their_state() {
        let mut world = world_that_prints(&list(1, "9,443,1000-1097"), Format::Ndjson, "1/1");
        assert_eq!(world.run(), 0);
        let has = |line: &str| world.stdout.lines().any(|printed| printed == line);
        // 50 ports at a time are silent for 2 s; ports 9 and 443 answer at once.
        assert!(has(r#"{"event":"progress","done":2,"total":100,"open":1}"#), "{}", world.stdout);
        assert!(has(r#"{"event":"progress","done":52,"total":100,"open":1}"#), "{}", world.stdout);
    }

    #[test]
    fn an_interrupt_ends_the_running_targets_and_begins_no_others() {
        let mut world = world(&list(200, "9,1000"), "1/1");
        for _ in 0..10 {
            assert_eq!(world.tick(), None);
        }
        let connects = world.connects.len();
        world.core.handle(Event::Signal(Signal::Interrupt), world.now);
        assert_eq!(world.run(), 1);
        assert_eq!(world.connects.len(), connects);
        let answers = world.stdout.lines().count();
        assert!(answers > 0 && answers < 200, "{answers} answers");
        let never =
            format!("openports: interrupted: {} of 200 targets were not begun", 200 - answers);
        assert_eq!(world.stderr, [never]);
    }

    #[test]
    fn a_second_signal_ends_the_run_at_once() {
        let mut world = world(&list(2, "1000"), "1/1");
        world.tick();
        world.core.handle(Event::Signal(Signal::Interrupt), world.now);
        world.core.handle(Event::Signal(Signal::Interrupt), world.now);
        assert_eq!(world.core.poll_action(world.now), Action::Exit(1));
    }

    #[test]
    fn a_reader_that_closes_the_pipe_ends_the_running_targets() {
        let mut world = world(&list(200, "9,1000"), "1/1");
        world.tick();
        let gone = Event::PrintFailed(PrintFailure::ReaderGone);
        world.core.handle(gone, world.now);
        assert_eq!(world.run(), 0);
        assert_eq!((world.stdout.as_str(), world.stderr.len()), ("", 0));
    }

    #[test]
    fn a_name_without_a_reachable_server_ends_a_batch_that_prints_nothing() {
        let mut world = world_that_prints("nope.example 80", Format::Table, "1/1");
        assert_eq!(world.run(), 1);
        assert!(world.stdout.is_empty(), "{}", world.stdout);
        assert!(world.stderr[0].starts_with("openports: nope.example: "), "{:?}", world.stderr);
    }

    #[test]
    fn targets_that_the_policy_denies_are_reported_one_by_one() {
        let mut world = world("169.254.169.254 80\n127.0.0.1 9\n", "1/1");
        assert_eq!(world.run(), 1);
        assert_eq!(world.stdout.lines().count(), 2);
        assert!(world.stderr[0].starts_with("openports: 169.254.169.254: "), "{:?}", world.stderr);
    }
}
