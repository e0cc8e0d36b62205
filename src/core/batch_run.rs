//! The use from the shell: its part of the service's implementation.
//!
//! The batch says which target is next and what is to be said; here it gets its jobs, as far as
//! the budget goes, and hears of them. A signal ends the jobs as they stand; once everything is
//! printed the core is done.

use std::time::Instant;

use super::answers::Outcome;
use super::clients::failure_problem;
use super::jobs::{News, Owner};
use super::{Phase, Service};
use crate::batch::{Batch, Beginning, OpenPort, UnderWay};
use crate::event::PrintFailure;
use crate::scan::Scan;
use crate::slots::Key;

impl Service {
    /// Takes the one batch in; its targets are begun from the first tick on.
    pub fn begin_batch(&mut self, batch: Batch) {
        assert!(self.batch.is_none(), "a process has one use from the shell");
        if let Some(rate) = batch.rate() {
            self.jobs.set_rate(rate);
        }
        self.batch = Some(batch);
        self.say_batch();
    }

    /// What stdout is to have next.
    pub fn printout(&self) -> &[u8] {
        self.batch.as_ref().map_or(&[], Batch::printout)
    }

    pub(super) fn on_printed(&mut self, count: usize) {
        if let Some(batch) = &mut self.batch {
            batch.handle_printed(count);
        }
    }

    /// Nobody reads on: what runs is ended, and not printed.
    pub(super) fn on_print_failed(&mut self, now: Instant, failure: PrintFailure) {
        if let Some(batch) = &mut self.batch {
            batch.handle_print_failed(failure);
        }
        self.end_batch(now);
    }

    /// A job of the batch has news.
    pub(super) fn on_batch_news(&mut self, now: Instant, at: (usize, Key), news: News) {
        let (place, job) = at;
        let Some(batch) = &mut self.batch else { return };
        match news {
            // The resolver's.
            News::Lookup(_) => {}
            News::Began => {
                let Some(ports) = self.jobs.job(job).map(|job| &job.request.ports) else { return };
                let Some(first) = self.jobs.scans(job).next() else { return };
                let (address, scans) = (first.target().ip(), self.jobs.scans(job));
                let total = scans.map(|scan| scan.counts().total()).sum();
                batch.handle_began(place, Beginning { address, total, ports });
            }
            News::Open { address, port, rtt } => {
                batch.handle_open(place, OpenPort { address, port, rtt });
            }
            News::Ended => {
                let Some((job, scans)) = self.jobs.remove(job) else { return };
                let outcome = Outcome::new(now, &job, &scans);
                outcome.tell(&self.options.names, |summary| batch.handle_ended(place, summary));
                self.counters.add_ports(&outcome.tally());
                self.jobs.abandon(scans);
            }
            News::Failed(failure) => {
                self.resolver.handle_cancel(job);
                let gone = self.jobs.remove(job);
                assert!(gone.is_some_and(|(_, scans)| scans.is_empty()), "it scanned nothing");
                batch.handle_failed(place, &failure_problem(&failure));
            }
        }
        self.say_batch();
        // Not at the next tick: with nothing to print or to wait for, none would come.
        self.on_batch_done();
    }

    /// Once a turn: tells progress, and begins as many targets as the budget can use.
    pub(super) fn tick_batch(&mut self, now: Instant) {
        let Some(batch) = &mut self.batch else { return };
        if batch.deadline().is_some_and(|deadline| deadline <= now) {
            let scans = self.jobs.keys().flat_map(|job| self.jobs.scans(job)).map(Scan::counts);
            let under_way = scans.fold(UnderWay::default(), |so_far, counts| UnderWay {
                done: so_far.done + u64::from(counts.total() - counts.untested),
                open: so_far.open + u64::from(counts.open),
            });
            batch.handle_timeout(now, under_way);
        }
        let mut need = if batch.wants_target() { self.jobs.need() } else { 0 };
        while need < self.jobs.capacity()
            && let Some((place, request)) = batch.poll_target(now)
        {
            need += request.ports.len();
            self.jobs.start(now, request, Owner::Batch(place));
        }
        self.say_batch();
        self.pump(now);
    }

    /// True exactly when a target may be begun at once.
    pub(super) fn wants_target(&self) -> bool {
        self.batch.as_ref().is_some_and(Batch::wants_target)
            && self.jobs.need() < self.jobs.capacity()
    }

    /// The user wants what is known so far.
    pub(super) fn interrupt_batch(&mut self, now: Instant) {
        if self.batch.is_none() {
            return;
        }
        self.end_batch(now);
        if let Some(batch) = &mut self.batch {
            batch.handle_interrupt();
        }
        self.say_batch();
    }

    /// Ends the batch's jobs as they stand; those that have no address yet are given up.
    fn end_batch(&mut self, now: Instant) {
        for job in self.jobs.keys().collect::<Vec<Key>>() {
            if self.jobs.scans(job).next().is_some() {
                self.jobs.end(job);
                continue;
            }
            self.resolver.handle_cancel(job);
            let owner = self.jobs.remove(job).map(|(job, _)| job.owner);
            if let (Some(Owner::Batch(place)), Some(batch)) = (owner, &mut self.batch) {
                batch.handle_dropped(place);
            }
        }
        self.pump(now);
    }

    /// Ends the core once the batch has nothing left to scan or to print.
    pub(super) fn on_batch_done(&mut self) {
        if self.batch.as_ref().is_some_and(Batch::is_done) {
            self.phase = Phase::Ended;
        }
    }

    /// Wipes the progress line, since something else is about to be said.
    pub(super) fn wipe_progress(&mut self) {
        if let Some(batch) = &mut self.batch {
            batch.wipe();
        }
        self.say_batch();
    }

    fn say_batch(&mut self) {
        let Some(batch) = &mut self.batch else { return };
        self.actions.extend(std::iter::from_fn(|| batch.poll_action()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::net::{Ipv4Addr, SocketAddr};
    use std::time::{Duration, SystemTime};

    use crate::api::query::Addresses;
    use crate::batch::options::{Format, Manner, Options as BatchOptions, ProgressLine};
    use crate::batch::shard::Shard;
    use crate::batch::table::Colour;
    use crate::batch::targets::Targets;
    use crate::budget::Shares;
    use crate::event::{Action, Event, Outcome, Route, Signal};
    use crate::limits::Settings;
    use crate::names::Names;
    use crate::policy::clients::HostGuard;
    use crate::policy::{Policy, Reach};
    use crate::report::log::{Format as LogFormat, Level};
    use crate::service::Options;
    use crate::target::{Family, PortSet, Retries, Timeout};

    /// A service without descriptors and the world it talks to: ports below 10 refuse, 443 is
    /// open, name servers have no route, the others are silent.
    struct World {
        service: Service,
        now: Instant,
        connects: BTreeMap<SocketAddr, usize>,
        in_flight: usize,
        in_flight_most: usize,
        stdout: String,
        stderr: Vec<String>,
    }

    const IN_FLIGHT: usize = 50;

    fn world(list: &str, shard: &str) -> World {
        world_that_prints(list, Format::Json, shard)
    }

    fn world_that_prints(list: &str, format: Format, shard: &str) -> World {
        let mut targets = Targets::new(PortSet::from_range(1, 9), PortSet::new());
        targets.add_lines(list.as_bytes());
        let batch = Batch::new(BatchOptions {
            targets,
            manner: Manner {
                timeout: Timeout::Fixed(Duration::from_secs(2)),
                deadline: Duration::from_secs(60),
                retries: Retries::Exactly(0),
                concurrency: None,
                rate: None,
                family: Family::Any,
                addresses: Addresses::First,
            },
            shard: Shard::parse(shard).expect("a shard"),
            format,
            colour: Colour::Plain,
            progress: ProgressLine::Hidden,
        });
        let reach = Reach::LoopbackOnly;
        let options = Options {
            settings: Settings::default(),
            shares: Shares { connections: 1, lookups: 2, probes: IN_FLIGHT },
            policy: Policy { allow: Vec::new(), deny: Vec::new(), reach },
            host_guard: HostGuard { reach, names: Vec::new() },
            token: None,
            proxies: Default::default(),
            names: Names::default(),
            log_level: Level::Warn,
            log_format: LogFormat::Logfmt,
            seed: 1,
        };
        let mut service = Service::new(options, SystemTime::UNIX_EPOCH);
        service.begin_batch(batch);
        World {
            service,
            now: Instant::now(),
            connects: BTreeMap::new(),
            in_flight: 0,
            in_flight_most: 0,
            stdout: String::new(),
            stderr: Vec::new(),
        }
    }

    impl World {
        /// One turn of the loop; the exit code, once there is one.
        fn turn(&mut self) -> Option<u8> {
            let printout = self.service.printout();
            if !printout.is_empty() {
                self.stdout.push_str(std::str::from_utf8(printout).expect("text"));
                let count = printout.len();
                self.service.handle(Event::Printed { count }, self.now);
            }
            let tick = Event::Tick { wall: SystemTime::UNIX_EPOCH, worked: Duration::ZERO };
            self.service.handle(tick, self.now);
            loop {
                match self.service.poll_action(self.now) {
                    Action::Connect { socket, to, .. } => {
                        *self.connects.entry(to).or_default() += 1;
                        self.in_flight += 1;
                        self.in_flight_most = self.in_flight_most.max(self.in_flight);
                        let outcome = match to.port() {
                            ..10 => Some(Outcome::Refused),
                            53 => Some(Outcome::Unreachable),
                            443 => Some(Outcome::Connected),
                            _ => None,
                        };
                        if let Some(outcome) = outcome {
                            self.service.handle(Event::Connect { socket, outcome }, self.now);
                        }
                    }
                    Action::Close { .. } => self.in_flight -= 1,
                    Action::FindRoute { request, to } => {
                        let route = Route::From(Ipv4Addr::LOCALHOST.into());
                        self.service.handle(Event::Route { request, to, route }, self.now);
                    }
                    Action::ReadNameFiles => {
                        let unread = Event::NameFiles { resolv_conf: None, hosts: None };
                        self.service.handle(unread, self.now);
                    }
                    Action::Log(line) => self.stderr.push(line),
                    Action::Exit(code) => return Some(code),
                    Action::Yield => return None,
                    Action::Wait(until) => {
                        if self.service.printout().is_empty() {
                            self.now = until.expect("a scan is never without a deadline");
                        }
                        return None;
                    }
                    action @ (Action::Attend(_)
                    | Action::ShutdownWrite(_)
                    | Action::ReadTokenFile
                    | Action::CloseListeners
                    | Action::ShowProgress(_)) => panic!("nobody asked for {action:?}"),
                }
            }
        }

        /// Turns until the end; the exit code.
        fn run(&mut self) -> u8 {
            (0..100_000).find_map(|_| self.turn()).expect("a batch comes to its end")
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
        // 28 windows of silent ports, each of 2 s.
        let took = (world.now - began_at).as_secs();
        assert!((56..=70).contains(&took), "{took} s");
    }

    #[test]
    fn progress_counts_the_ports_that_have_their_state() {
        let mut world = world_that_prints(&list(1, "9,443,1000-1097"), Format::Ndjson, "1/1");
        assert_eq!(world.run(), 0);
        let told = |line: &str| world.stdout.lines().any(|told| told == line);
        // 50 at a time, for 2 s: ports 9 and 443 answer at once.
        assert!(told(r#"{"event":"progress","done":2,"total":100,"open":1}"#), "{}", world.stdout);
        assert!(told(r#"{"event":"progress","done":52,"total":100,"open":1}"#), "{}", world.stdout);
    }

    #[test]
    fn an_interrupt_ends_what_runs_and_begins_nothing_more() {
        let mut world = world(&list(200, "9,1000"), "1/1");
        for _ in 0..10 {
            assert_eq!(world.turn(), None);
        }
        let connects = world.connects.len();
        world.service.handle(Event::Signal(Signal::Interrupt), world.now);
        assert_eq!(world.run(), 1);
        assert_eq!(world.connects.len(), connects);
        let answers = world.stdout.lines().count();
        assert!(answers > 0 && answers < 200, "{answers} answers");
        let never =
            format!("openports: interrupted: {} of 200 targets were not begun", 200 - answers);
        assert_eq!(world.stderr, [never]);
    }

    #[test]
    fn a_second_signal_ends_it_at_once() {
        let mut world = world(&list(2, "1000"), "1/1");
        world.turn();
        world.service.handle(Event::Signal(Signal::Interrupt), world.now);
        world.service.handle(Event::Signal(Signal::Interrupt), world.now);
        assert_eq!(world.service.poll_action(world.now), Action::Exit(1));
    }

    #[test]
    fn a_reader_that_goes_ends_what_runs() {
        let mut world = world(&list(200, "9,1000"), "1/1");
        world.turn();
        let gone = Event::PrintFailed(PrintFailure::ReaderGone);
        world.service.handle(gone, world.now);
        assert_eq!(world.run(), 0);
        assert_eq!((world.stdout.as_str(), world.stderr.len()), ("", 0));
    }

    #[test]
    fn a_name_that_nobody_can_be_asked_for_ends_a_batch_that_prints_nothing() {
        let mut world = world_that_prints("nope.example 80", Format::Table, "1/1");
        assert_eq!(world.run(), 1);
        assert!(world.stdout.is_empty(), "{}", world.stdout);
        assert!(world.stderr[0].starts_with("openports: nope.example: "), "{:?}", world.stderr);
    }

    #[test]
    fn targets_that_the_policy_denies_are_told_one_by_one() {
        let mut world = world("169.254.169.254 80\n127.0.0.1 9\n", "1/1");
        assert_eq!(world.run(), 1);
        assert_eq!(world.stdout.lines().count(), 2);
        assert!(world.stderr[0].starts_with("openports: 169.254.169.254: "), "{:?}", world.stderr);
    }
}
