//! The service's own reports: counters, log records, and the figures of the process.
//!
//! Every component may count and log; the lines for stderr are queued here. This module decides
//! nothing and writes nothing itself. `core` drives it.

use std::collections::VecDeque;
use std::time::{Duration, Instant, SystemTime};

use super::admission::Load;
use super::pending_request::PendingRequest;
use super::running::Postponed;
use super::stale::{Effect, StaleEvent};
use crate::dns::failure::LookupFailure;
use crate::event::local_drops::{LocalDrops, NeighbourTable};
use crate::event::{Outcome, ProcessFiles, Shortage, Signal};
use crate::report::log::{Level, LogFormat, Record};
use crate::report::process::ProcessUsage;
use crate::report::{Counters, Gauges};
use crate::service_names::Names;

/// The interval in which the same shortage is logged once.
const SHORTAGE_LOG_GAP: Duration = Duration::from_secs(60);
/// The age from which on the figures of the process are read again. Several scrapes per second, or
/// pipelined ones, read /proc only once.
const PROCESS_AGE_MAX: Duration = Duration::from_secs(1);

/// The context of a call: the time, and the data that every component may read or count in.
#[derive(Debug)]
pub(super) struct Context<'a> {
    pub(super) now: Instant,
    pub(super) names: &'a Names,
    pub(super) telemetry: &'a mut Telemetry,
}

/// The level and the format of log records.
#[derive(Clone, Copy, Debug)]
pub(super) struct LogOptions {
    pub(super) level: Level,
    pub(super) format: LogFormat,
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Telemetry {
    log: LogOptions,
    counters: Counters,
    started: SystemTime,
    wall: SystemTime,
    process: Option<ProcessReading>,
    logged: LoggedShortages,
    /// The lines that are to be written to stderr.
    lines: VecDeque<String>,
}

/// The resources that the process uses, and the time at which they were read.
#[derive(Clone, Copy, Debug)]
struct ProcessReading {
    at: Instant,
    usage: ProcessUsage,
}

/// The time at which each local shortage was last logged.
#[derive(Debug, Default)]
struct LoggedShortages {
    neighbour_table: Option<Instant>,
    conntrack: Option<Instant>,
}

impl Telemetry {
    /// Telemetry without any events, started at `wall`.
    pub(super) fn new(log: LogOptions, wall: SystemTime) -> Self {
        Self {
            log,
            counters: Counters::default(),
            started: wall,
            wall,
            process: None,
            logged: LoggedShortages::default(),
            lines: VecDeque::new(),
        }
    }

    /// The wall clock of this tick, for log records.
    pub(super) const fn handle_wall(&mut self, wall: SystemTime) {
        self.wall = wall;
    }

    /// Handles the contents of the files in /proc about this process.
    pub(super) fn handle_process_files(&mut self, now: Instant, files: &ProcessFiles) {
        self.process = Some(ProcessReading { at: now, usage: ProcessUsage::parse(files) });
    }

    /// Writes a record, if its level is enabled.
    pub(super) fn log(&mut self, record: &Record) {
        if self.log.level.admits(record.level()) {
            self.lines.push_back(record.render(self.log.format, self.wall));
        }
    }

    /// The next line for stderr.
    pub(super) fn poll_line(&mut self) -> Option<String> {
        self.lines.pop_front()
    }

    /// Counts an event that has no effect, because its subject has ended.
    pub(super) fn count_stale(&mut self, event: StaleEvent) {
        self.counters.count_stale_event(event.label());
    }

    /// The kernel refused to connect a socket again.
    pub(super) fn count_reuse_refused(&mut self) {
        self.counters.count_reuse_refused();
        let record = Record::new(Level::Warn, "sockets are not used again")
            .field("effect", "the kernel refused a second connect, each probe costs a socket");
        self.log(&record);
    }

    /// Logs that a signal begins the shutdown.
    pub(super) fn log_shutdown(&mut self, signal: Signal, load: Load) {
        let record = Record::new(Level::Info, "draining")
            .field("signal", signal.name())
            .field("scans", load.scans)
            .field("connections", load.connections);
        self.log(&record);
    }

    /// Counts the shortage of a connect, if its outcome was one.
    pub(super) fn count_outcome(&mut self, outcome: Outcome) {
        if let Outcome::Shortage(shortage) = outcome {
            self.counters.count_shortage(shortage);
        }
    }

    /// Counts lookups that the deadline of their request has ended.
    pub(super) fn count_timed_out_lookups(&mut self, lookups: usize) {
        for _ in 0..lookups {
            self.counters.count_lookup(LookupFailure::TimedOut.label());
        }
    }

    /// Counts an event that had no effect.
    pub(super) fn count_if_stale(&mut self, effect: Effect, event: StaleEvent) {
        if effect == Effect::Stale {
            self.count_stale(event);
        }
    }

    pub(super) fn count_request(&mut self, now: Instant, pending: &PendingRequest, status: u16) {
        self.counters.count_request(pending.route, status);
        // The route of a refused request is the reason of its refusal, and its duration is not
        // measured.
        if pending.is_routed() {
            self.counters.observe_request(pending.route, now - pending.began_at);
        }
    }

    /// Counts and logs ports that wait because this machine drops packets.
    pub(super) fn count_postponed(
        &mut self,
        now: Instant,
        postponed: Postponed,
        reading: Option<&LocalDrops>,
    ) {
        let counters = &mut self.counters;
        counters.add_shortages(Shortage::NeighbourTable, postponed.neighbour_table as u64);
        counters.add_shortages(Shortage::ConnectionTracking, postponed.conntrack as u64);
        counters.add_shortages(Shortage::InterfaceQueue, postponed.queue as u64);
        if postponed.neighbour_table > 0 && is_due(now, &mut self.logged.neighbour_table) {
            let tables = reading.iter().flat_map(|reading| reading.tables).flatten();
            let fullest = tables.min_by_key(|it| it.entries_max.saturating_sub(it.used));
            let NeighbourTable { entries_max, used, .. } = fullest.unwrap_or_default();
            // All network namespaces share the table, so that its entries may be gone again at the
            // reading that shows the refusal. New targets wait from seven eighths on.
            let event = match used >= entries_max - entries_max / 8 {
                true => "the neighbour table is full",
                false => "the neighbour table was full for a moment",
            };
            let record = Record::new(Level::Warn, event)
                .field("used", used)
                .field("entries_max", entries_max)
                .field("effect", "targets on the local network wait for their turn")
                .field("remedy", "raise net.ipv4.neigh.default.gc_thresh3 (or net.ipv6)");
            self.log(&record);
        }
        if postponed.conntrack > 0 && is_due(now, &mut self.logged.conntrack) {
            let record = Record::new(Level::Warn, "connection tracking is full")
                .field("effect", "new connections are dropped, ports wait")
                .field("remedy", "raise net.netfilter.nf_conntrack_max");
            self.log(&record);
        }
    }

    /// The counters, for additions.
    pub(super) const fn counters(&mut self) -> &mut Counters {
        &mut self.counters
    }

    /// The page of `/metrics`.
    pub(super) fn render(&self, gauges: &Gauges) -> String {
        self.counters.render(gauges)
    }

    /// Whether a line is to be written to stderr.
    pub(super) fn has_lines(&self) -> bool {
        !self.lines.is_empty()
    }

    /// The time at which this process started.
    pub(super) const fn started(&self) -> SystemTime {
        self.started
    }

    /// The resources that the process uses, as far as they are known.
    pub(super) fn process_usage(&self) -> ProcessUsage {
        self.process.map(|reading| reading.usage).unwrap_or_default()
    }

    /// Whether the figures of the process are too old for the page.
    pub(super) fn wants_process_files(&self, now: Instant) -> bool {
        self.process.is_none_or(|reading| reading.at + PROCESS_AGE_MAX <= now)
    }
}

fn is_due(now: Instant, logged_at: &mut Option<Instant>) -> bool {
    let is_due = logged_at.is_none_or(|at| now - at >= SHORTAGE_LOG_GAP);
    if is_due {
        *logged_at = Some(now);
    }
    is_due
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shortage_is_counted_each_time_and_logged_once_a_minute() {
        let log = LogOptions { level: Level::Warn, format: LogFormat::Logfmt };
        let (mut telemetry, now) = (Telemetry::new(log, SystemTime::UNIX_EPOCH), Instant::now());
        let postponed = Postponed { conntrack: 3, ..Postponed::default() };
        let mut logged = |after| {
            telemetry.count_postponed(now + after, postponed, None);
            std::iter::from_fn(|| telemetry.poll_line()).count()
        };
        assert_eq!(logged(Duration::ZERO), 1);
        assert_eq!(logged(SHORTAGE_LOG_GAP - Duration::from_nanos(1)), 0);
        assert_eq!(logged(SHORTAGE_LOG_GAP), 1);
    }

    #[test]
    fn a_neighbour_table_with_free_entries_is_not_called_full() {
        let check = |used: u32, expected: &str| {
            let log = LogOptions { level: Level::Warn, format: LogFormat::Logfmt };
            let mut telemetry = Telemetry::new(log, SystemTime::UNIX_EPOCH);
            let postponed = Postponed { neighbour_table: 1, ..Postponed::default() };
            let table = NeighbourTable { entries_max: 1024, used, refused: 7 };
            let reading = LocalDrops { tables: [Some(table), None], ..LocalDrops::default() };
            telemetry.count_postponed(Instant::now(), postponed, Some(&reading));
            let line = telemetry.poll_line().unwrap_or_default();
            let expected = format!("msg=\"the neighbour table {expected}\" used={used} ");
            assert!(line.contains(&expected), "{line}");
        };
        check(1024, "is full");
        check(896, "is full");
        check(895, "was full for a moment");
        check(6, "was full for a moment");
    }

    #[test]
    fn stale_events_shortages_and_refused_sockets_are_counted_and_other_outcomes_are_not() {
        let log = LogOptions { level: Level::Warn, format: LogFormat::Logfmt };
        let mut telemetry = Telemetry::new(log, SystemTime::UNIX_EPOCH);
        telemetry.count_if_stale(Effect::Stale, StaleEvent::Probe);
        telemetry.count_if_stale(Effect::Applied, StaleEvent::Sent);
        telemetry.count_outcome(Outcome::Shortage(Shortage::Memory));
        telemetry.count_outcome(Outcome::Refused);
        telemetry.count_reuse_refused();
        assert!(telemetry.poll_line().is_some_and(|line| line.contains("not used again")));
        let mut expected = Counters::default();
        expected.count_stale_event("probe");
        expected.count_shortage(Shortage::Memory);
        expected.count_reuse_refused();
        assert_eq!(format!("{:?}", telemetry.counters), format!("{expected:?}"));
    }
}
