//! The view of an operator on the service: counters and `/metrics` in this file, log records in
//! [`log`].
//!
//! All counters have a fixed size, and counting does not allocate. Labels are constant words of
//! this program's enums, never text from a peer, so no peer can make the page grow. This module has
//! no clock and decides nothing. `core` drives it: it counts, supplies the gauges and requests the
//! page.
//!
//! The page is in the Prometheus text format 0.0.4. Names begin with `openports_`; those of
//! [`process`] begin with `process_` and are the names that every Prometheus client library uses.
//! Counters end in `_total`; seconds are the only unit of time.
//!
//! Invariants: HELP and TYPE are written once per name, before its samples; no two samples have the
//! same name and labels; a counter never decreases.

pub mod histogram;
pub mod log;
pub mod process;
mod syns;
mod tally;

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::event::{Shortage, SynCounts};
use crate::limits::{LABELS_MAX, REQUEST_LABELS_MAX, ROUTES_MAX};
use crate::report::histogram::{Billionths, DURATION_BOUNDS, Histogram, LOSS_BOUNDS, TICK_BOUNDS};
use crate::report::process::ProcessUsage;
use crate::report::tally::Tally;
use crate::technique::Technique;

/// The number of ports by final state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortTally {
    /// The handshake was completed.
    pub open: u64,
    /// The connection was refused or reset.
    pub closed: u64,
    /// The port was silent until the deadline of every pass.
    pub filtered: u64,
    /// The network or a local policy reported the port as unreachable.
    pub unreachable: u64,
    /// The scan ended before the port had a state.
    pub untested: u64,
}

/// The values that are valid at the moment when the page is rendered.
#[derive(Clone, Copy, Debug)]
pub struct Gauges {
    /// The time at which this process started.
    pub started: SystemTime,
    /// The number of running scans.
    pub scans_running: usize,
    /// The number of running lookups.
    pub lookups_running: usize,
    /// The number of open client connections.
    pub connections_open: usize,
    /// The number of connects in flight.
    pub connects_in_flight: usize,
    /// The maximum number of connects in flight.
    pub connects_in_flight_max: usize,
    /// The number of descriptors of the budget that are in use.
    pub descriptors_used: usize,
    /// The number of descriptors in the budget.
    pub descriptors_max: usize,
    /// Whether a termination signal has arrived.
    pub is_draining: bool,
    /// The resources that the process uses.
    pub process: ProcessUsage,
}

/// A scan that probed at least one port and has ended.
#[derive(Clone, Copy, Debug)]
pub struct ScanRecord {
    /// The technique of its probes.
    pub technique: Technique,
    /// The result of the scan: `complete`, `partial` or `cancelled`.
    pub result: &'static str,
    /// The time from the request to the end, including the lookup.
    pub duration: Duration,
    /// The share of lost packets, from 0 to 1; `None` if it was not measured.
    pub loss: Option<f64>,
}

/// The events since the start of the process.
#[derive(Clone, Debug)]
pub struct Counters {
    requests: Tally<(&'static str, u16), REQUEST_LABELS_MAX>,
    /// Durations by route. A route has an entry from its first request on.
    request_durations: [Option<(&'static str, Histogram)>; ROUTES_MAX],
    /// The number of scans by technique and result.
    scans: Tally<(Technique, &'static str), LABELS_MAX>,
    scan_durations: Histogram,
    scan_losses: Histogram,
    ports: PortTally,
    connects: u64,
    /// The number of shortages by the discriminant of [`Shortage`].
    shortages: [u64; Shortage::ALL.len()],
    lookups: Tally<&'static str, LABELS_MAX>,
    connections_accepted: u64,
    connections_closed: Tally<&'static str, LABELS_MAX>,
    ticks: Histogram,
    stale_events: Tally<&'static str, LABELS_MAX>,
    log_lines_dropped: u64,
    reuse_refused: u64,
    syns: SynCounts,
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            requests: Tally::default(),
            request_durations: [None; ROUTES_MAX],
            scans: Tally::default(),
            scan_durations: Histogram::new(&DURATION_BOUNDS),
            scan_losses: Histogram::new(&LOSS_BOUNDS),
            ports: PortTally::default(),
            connects: 0,
            shortages: [0; Shortage::ALL.len()],
            lookups: Tally::default(),
            connections_accepted: 0,
            connections_closed: Tally::default(),
            ticks: Histogram::new(&TICK_BOUNDS),
            stale_events: Tally::default(),
            log_lines_dropped: 0,
            reuse_refused: 0,
            syns: SynCounts::default(),
        }
    }
}

impl Counters {
    /// A request was answered. `route` is a constant word, not the target of the request.
    pub fn count_request(&mut self, route: &'static str, status: u16) {
        assert!((100..600).contains(&status), "{status} is no status code");
        self.requests.add((route, status));
    }

    /// Records the time from a request to its answer, or to the end of its stream. A request that
    /// is not HTTP has no route and is not recorded.
    pub fn observe_request(&mut self, route: &'static str, duration: Duration) {
        for cell in &mut self.request_durations {
            let (known, histogram) =
                cell.get_or_insert_with(|| (route, Histogram::new(&DURATION_BOUNDS)));
            if *known == route {
                return histogram.observe_duration(duration);
            }
        }
        debug_assert!(false, "{route} is one route too many for ROUTES_MAX");
    }

    /// A scan that had begun to probe has ended.
    pub fn observe_scan(&mut self, scan: ScanRecord) {
        self.scans.add((scan.technique, scan.result));
        self.scan_durations.observe_duration(scan.duration);
        if let Some(loss) = scan.loss {
            self.scan_losses.observe_ratio(loss);
        }
    }

    /// A scan ended before its first probe. `cause` is the cause of the problem in its answer, or
    /// `cancelled`.
    pub fn count_failed_scan(&mut self, technique: Technique, cause: &'static str) {
        self.scans.add((technique, cause));
    }

    /// Ports have reached their final states.
    pub fn add_ports(&mut self, ports: &PortTally) {
        self.ports.open += ports.open;
        self.ports.closed += ports.closed;
        self.ports.filtered += ports.filtered;
        self.ports.unreachable += ports.unreachable;
        self.ports.untested += ports.untested;
    }

    /// Connects were started.
    pub fn add_connects(&mut self, count: u64) {
        self.connects += count;
    }

    /// A system call failed because a local resource was exhausted.
    pub fn count_shortage(&mut self, shortage: Shortage) {
        self.add_shortages(shortage, 1);
    }

    /// This number of system calls or packets failed because a local resource was exhausted.
    pub fn add_shortages(&mut self, shortage: Shortage, count: u64) {
        self.shortages[shortage as usize] += count;
    }

    /// The SYN engine counted packets.
    pub fn add_syn_counts(&mut self, counts: &SynCounts) {
        self.syns.add(counts);
    }

    /// The kernel refused to connect a socket a second time.
    pub fn count_reuse_refused(&mut self) {
        self.reuse_refused += 1;
    }

    /// A lookup ended.
    pub fn count_lookup(&mut self, result: &'static str) {
        self.lookups.add(result);
    }

    /// A client connection was accepted.
    pub fn count_accepted(&mut self) {
        self.connections_accepted += 1;
    }

    /// A client connection was closed.
    pub fn count_closed(&mut self, reason: &'static str) {
        self.connections_closed.add(reason);
    }

    /// One tick of the event loop took this time, without the time for which it slept.
    pub fn observe_tick(&mut self, elapsed: Duration) {
        self.ticks.observe_duration(elapsed);
    }

    /// An event arrived for a socket, probe or job that had ended. `kind` is a constant word.
    pub fn count_stale_event(&mut self, kind: &'static str) {
        self.stale_events.add(kind);
    }

    /// Log lines were dropped because stderr did not accept them.
    pub fn add_log_lines_dropped(&mut self, count: u64) {
        self.log_lines_dropped += count;
    }

    /// Renders the page, `text/plain; version=0.0.4`.
    pub fn render(&self, gauges: &Gauges) -> String {
        let page = MetricsPage { counters: self, gauges }.to_string();
        assert!(page.ends_with('\n'), "the format asks for a line end after the last line");
        page
    }
}

/// One metric: its name, its type in the words of the format, and its description.
struct MetricFamily {
    name: &'static str,
    kind: &'static str,
    help: &'static str,
}

const fn gauge(name: &'static str, help: &'static str) -> MetricFamily {
    MetricFamily { name, kind: "gauge", help }
}

const fn counter(name: &'static str, help: &'static str) -> MetricFamily {
    MetricFamily { name, kind: "counter", help }
}

const fn histogram(name: &'static str, help: &'static str) -> MetricFamily {
    MetricFamily { name, kind: "histogram", help }
}

const BUILD: MetricFamily = gauge("openports_build_info", "Always 1, by version.");
const REQUESTS: MetricFamily =
    counter("openports_requests_total", "Requests answered, by route and status.");
const REQUEST_DURATIONS: MetricFamily = histogram(
    "openports_request_duration_seconds",
    "Time from a request to the end of its answer, by route.",
);
const SCANS: MetricFamily =
    counter("openports_scans_total", "Scans ended, by technique and result.");
const SCAN_DURATIONS: MetricFamily = histogram(
    "openports_scan_duration_seconds",
    "Time that a scan took, the lookup included; not of scans that never probed.",
);
const SCAN_LOSSES: MetricFamily = histogram(
    "openports_scan_loss_ratio",
    "Share of packets that a scan measured as lost; not of scans that measured none.",
);
const PORTS: MetricFamily =
    counter("openports_ports_total", "Ports scanned, by the state in which they ended.");
const CONNECTS: MetricFamily = counter("openports_connects_total", "Connects launched.");
const SHORTAGES: MetricFamily = counter(
    "openports_shortages_total",
    "Calls that failed for want of something of ours, by errno; the work is tried again.",
);
const LOOKUPS: MetricFamily =
    counter("openports_lookups_total", "Lookups of names ended, by result.");
const ACCEPTED: MetricFamily =
    counter("openports_connections_accepted_total", "Client connections accepted.");
const CLOSED: MetricFamily =
    counter("openports_connections_closed_total", "Client connections closed, by reason.");
const TICKS: MetricFamily = histogram(
    "openports_loop_turn_seconds",
    "Time that one turn of the loop took, without its sleep.",
);
const REUSE_REFUSED: MetricFamily = counter(
    "openports_socket_reuse_refused_total",
    "1 once the kernel has refused to connect a socket again: each probe then costs one.",
);
const STALE_EVENTS: MetricFamily = counter(
    "openports_stale_events_total",
    "Events without effect: their socket, probe or job had just ended, by kind of event.",
);
const LOG_LINES_DROPPED: MetricFamily =
    counter("openports_log_lines_dropped_total", "Log lines dropped because stderr took none.");

impl MetricFamily {
    fn head(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, kind, help } = self;
        writeln!(f, "# HELP {name} {help}\n# TYPE {name} {kind}")
    }

    fn alone(&self, f: &mut fmt::Formatter<'_>, value: impl fmt::Display) -> fmt::Result {
        self.head(f)?;
        writeln!(f, "{} {value}", self.name)
    }

    fn histogram(&self, f: &mut fmt::Formatter<'_>, histogram: &Histogram) -> fmt::Result {
        self.head(f)?;
        histogram.write(f, self.name, "")
    }

    fn tally<const N: usize>(
        &self,
        f: &mut fmt::Formatter<'_>,
        key: &'static str,
        tally: &Tally<&'static str, N>,
    ) -> fmt::Result {
        self.head(f)?;
        for (label, count) in tally.iter() {
            debug_assert!(is_label(label), "{label:?} is a constant word");
            writeln!(f, "{}{{{key}=\"{label}\"}} {count}", self.name)?;
        }
        if tally.overflow > 0 {
            writeln!(f, "{}{{{key}=\"overflow\"}} {}", self.name, tally.overflow)?;
        }
        Ok(())
    }
}

/// Whether a label needs no escaping and is not the word that [`Tally`] itself uses.
fn is_label(label: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\');
    !label.is_empty() && label != "overflow" && label.bytes().all(is_plain)
}

/// The page, which is written once from top to bottom.
struct MetricsPage<'a> {
    counters: &'a Counters,
    gauges: &'a Gauges,
}

impl fmt::Display for MetricsPage<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        BUILD.head(f)?;
        writeln!(f, "{}{{version=\"{}\"}} 1", BUILD.name, env!("CARGO_PKG_VERSION"))?;
        self.write_gauges(f)?;
        self.gauges.process.write(f)?;
        self.write_requests(f)?;
        self.write_scans(f)?;
        self.write_ports(f)?;
        CONNECTS.alone(f, self.counters.connects)?;
        SHORTAGES.head(f)?;
        for (shortage, count) in Shortage::ALL.iter().zip(self.counters.shortages) {
            writeln!(f, "{}{{errno=\"{}\"}} {count}", SHORTAGES.name, shortage.label())?;
        }
        LOOKUPS.tally(f, "result", &self.counters.lookups)?;
        ACCEPTED.alone(f, self.counters.connections_accepted)?;
        CLOSED.tally(f, "reason", &self.counters.connections_closed)?;
        TICKS.histogram(f, &self.counters.ticks)?;
        REUSE_REFUSED.alone(f, self.counters.reuse_refused)?;
        syns::write(f, &self.counters.syns)?;
        STALE_EVENTS.tally(f, "kind", &self.counters.stale_events)?;
        LOG_LINES_DROPPED.alone(f, self.counters.log_lines_dropped)
    }
}

impl MetricsPage<'_> {
    fn write_gauges(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let gauges = self.gauges;
        let started = gauges.started.duration_since(UNIX_EPOCH).unwrap_or_default();
        gauge("process_start_time_seconds", "Start of this process, in seconds since 1970.")
            .alone(f, Billionths(started.as_nanos()))?;
        gauge("openports_draining", "1 from the termination signal on, else 0.")
            .alone(f, u8::from(gauges.is_draining))?;
        gauge("openports_scans_running", "Scans under way.").alone(f, gauges.scans_running)?;
        gauge("openports_lookups_running", "Lookups of names under way.")
            .alone(f, gauges.lookups_running)?;
        gauge("openports_connections_open", "Client connections that are open.")
            .alone(f, gauges.connections_open)?;
        gauge("openports_connects_in_flight", "Connects that wait for an answer.")
            .alone(f, gauges.connects_in_flight)?;
        gauge("openports_connects_in_flight_max", "Connects that may wait at once.")
            .alone(f, gauges.connects_in_flight_max)?;
        gauge("openports_descriptors_used", "Descriptors of the budget that are taken.")
            .alone(f, gauges.descriptors_used)?;
        gauge("openports_descriptors_max", "Descriptors of the budget.")
            .alone(f, gauges.descriptors_max)
    }

    fn write_requests(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, requests) = (REQUESTS.name, &self.counters.requests);
        REQUESTS.head(f)?;
        for ((route, status), count) in requests.iter() {
            debug_assert!(is_label(route), "{route:?} is a constant word");
            writeln!(f, "{name}{{route=\"{route}\",status=\"{status}\"}} {count}")?;
        }
        if requests.overflow > 0 {
            let count = requests.overflow;
            writeln!(f, "{name}{{route=\"overflow\",status=\"overflow\"}} {count}")?;
        }
        REQUEST_DURATIONS.head(f)?;
        for (route, histogram) in self.counters.request_durations.iter().flatten() {
            debug_assert!(is_label(route), "{route:?} is a constant word");
            histogram.write(f, REQUEST_DURATIONS.name, &format!("route=\"{route}\""))?;
        }
        Ok(())
    }

    fn write_scans(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, scans) = (SCANS.name, &self.counters.scans);
        SCANS.head(f)?;
        for ((technique, result), count) in scans.iter() {
            let technique = technique.label();
            debug_assert!(is_label(technique) && is_label(result), "{technique:?} {result:?}");
            writeln!(f, "{name}{{technique=\"{technique}\",result=\"{result}\"}} {count}")?;
        }
        if scans.overflow > 0 {
            let count = scans.overflow;
            writeln!(f, "{name}{{technique=\"overflow\",result=\"overflow\"}} {count}")?;
        }
        SCAN_DURATIONS.histogram(f, &self.counters.scan_durations)?;
        SCAN_LOSSES.histogram(f, &self.counters.scan_losses)
    }

    fn write_ports(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let PortTally { open, closed, filtered, unreachable, untested } = self.counters.ports;
        PORTS.head(f)?;
        for (state, count) in [
            ("open", open),
            ("closed", closed),
            ("filtered", filtered),
            ("unreachable", unreachable),
            ("untested", untested),
        ] {
            writeln!(f, "{}{{state=\"{state}\"}} {count}", PORTS.name)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::Reject;
    use std::collections::BTreeSet;

    const GAUGES: Gauges = Gauges {
        started: UNIX_EPOCH,
        scans_running: 3,
        lookups_running: 1,
        connections_open: 5,
        connects_in_flight: 200,
        connects_in_flight_max: 900,
        descriptors_used: 210,
        descriptors_max: 1024,
        is_draining: true,
        process: ProcessUsage {
            cpu: Some(Duration::from_millis(1_500)),
            virtual_bytes: Some(8_192),
            resident_bytes: Some(4_096),
            descriptors_open: Some(12),
            descriptors_max: Some(1_024),
        },
    };

    fn counted() -> Counters {
        let mut counters = Counters::default();
        counters.count_request("open-ports", 200);
        counters.count_request("healthz", 200);
        counters.count_request("open-ports", 400);
        counters.count_request("open-ports", 200);
        counters.observe_request("open-ports", Duration::from_millis(1));
        counters.observe_request("healthz", Duration::from_secs(400));
        for (result, loss) in [("complete", Some(0.013)), ("complete", None), ("partial", None)] {
            let (technique, duration) = (Technique::Connect, Duration::from_millis(250));
            counters.observe_scan(ScanRecord { technique, result, duration, loss });
        }
        counters.count_failed_scan(Technique::Syn, "UNKNOWN_HOST");
        counters.add_ports(&PortTally {
            open: 2,
            closed: 1000,
            filtered: 22,
            ..Default::default()
        });
        counters.add_ports(&PortTally {
            open: 1,
            unreachable: 7,
            untested: 5,
            ..Default::default()
        });
        counters.add_connects(1024);
        counters.count_shortage(Shortage::ProcessDescriptors);
        counters.count_shortage(Shortage::Unknown);
        counters.count_lookup("found");
        counters.count_accepted();
        counters.count_closed("idle");
        counters.observe_tick(Duration::from_micros(50));
        counters.observe_tick(Duration::from_nanos(50_001));
        counters.observe_tick(Duration::from_secs(2));
        counters.count_stale_event("sent");
        counters.count_stale_event("sent");
        let mut syns =
            SynCounts { sent: 5, repeated: 2, denied: 1, overflowed: 3, ..SynCounts::default() };
        syns.rejected[Reject::Checksum as usize] = 4;
        counters.add_syn_counts(&syns);
        counters.add_log_lines_dropped(4);
        counters
    }

    fn check(page: &str, line: &str) {
        assert!(page.lines().any(|found| found == line), "{line} is missing in\n{page}");
    }

    #[test]
    fn every_count_is_on_the_page() {
        let page = counted().render(&GAUGES);
        for line in [
            "openports_requests_total{route=\"open-ports\",status=\"200\"} 2",
            "openports_requests_total{route=\"open-ports\",status=\"400\"} 1",
            "openports_requests_total{route=\"healthz\",status=\"200\"} 1",
            "openports_request_duration_seconds_bucket{route=\"open-ports\",le=\"0.001\"} 1",
            "openports_request_duration_seconds_bucket{route=\"healthz\",le=\"300\"} 0",
            "openports_request_duration_seconds_bucket{route=\"healthz\",le=\"+Inf\"} 1",
            "openports_request_duration_seconds_sum{route=\"healthz\"} 400.000000000",
            "openports_scans_total{technique=\"connect\",result=\"complete\"} 2",
            "openports_scans_total{technique=\"connect\",result=\"partial\"} 1",
            "openports_scans_total{technique=\"syn\",result=\"UNKNOWN_HOST\"} 1",
            "openports_scan_duration_seconds_bucket{le=\"0.1\"} 0",
            "openports_scan_duration_seconds_bucket{le=\"0.25\"} 3",
            "openports_scan_duration_seconds_count 3",
            "openports_scan_loss_ratio_bucket{le=\"0.01\"} 0",
            "openports_scan_loss_ratio_bucket{le=\"0.02\"} 1",
            "openports_scan_loss_ratio_sum 0.013000000",
            "openports_scan_loss_ratio_count 1",
            "process_cpu_seconds_total 1.500000000",
            "process_virtual_memory_bytes 8192",
            "process_resident_memory_bytes 4096",
            "process_open_fds 12",
            "process_max_fds 1024",
            "openports_ports_total{state=\"open\"} 3",
            "openports_ports_total{state=\"closed\"} 1000",
            "openports_ports_total{state=\"filtered\"} 22",
            "openports_ports_total{state=\"unreachable\"} 7",
            "openports_ports_total{state=\"untested\"} 5",
            "openports_connects_total 1024",
            "openports_shortages_total{errno=\"EMFILE\"} 1",
            "openports_shortages_total{errno=\"ENFILE\"} 0",
            "openports_shortages_total{errno=\"other\"} 1",
            "openports_lookups_total{result=\"found\"} 1",
            "openports_connections_accepted_total 1",
            "openports_connections_closed_total{reason=\"idle\"} 1",
            "openports_loop_turn_seconds_bucket{le=\"5e-05\"} 1",
            "openports_loop_turn_seconds_bucket{le=\"0.0001\"} 2",
            "openports_loop_turn_seconds_bucket{le=\"1\"} 2",
            "openports_loop_turn_seconds_bucket{le=\"+Inf\"} 3",
            "openports_loop_turn_seconds_sum 2.000100001",
            "openports_loop_turn_seconds_count 3",
            "openports_stale_events_total{kind=\"sent\"} 2",
            "openports_syns_sent_total 5",
            "openports_syns_repeated_total 2",
            "openports_syns_denied_total 1",
            "openports_raw_answers_lost_total 3",
            "openports_raw_packets_rejected_total{reason=\"checksum\"} 4",
            "openports_raw_packets_rejected_total{reason=\"port\"} 0",
            "openports_log_lines_dropped_total 4",
            "openports_scans_running 3",
            "openports_connects_in_flight_max 900",
            "openports_draining 1",
            "process_start_time_seconds 0.000000000",
        ] {
            check(&page, line);
        }
        assert!(!page.contains("overflow"), "a label overflowed in\n{page}");
    }

    /// The rules of `promtool check metrics` that can be checked in a few lines.
    #[test]
    fn every_name_is_declared_once_before_its_samples_and_no_sample_comes_twice() {
        for page in [Counters::default().render(&GAUGES), counted().render(&GAUGES)] {
            let (mut families, mut samples) = (BTreeSet::new(), BTreeSet::new());
            let mut family = String::new();
            let mut kind = String::new();
            for line in page.lines() {
                let words: Vec<&str> = line.splitn(4, ' ').collect();
                match words[..] {
                    ["#", "HELP", name, help] => {
                        assert!(families.insert(name.to_owned()), "{name} is declared twice");
                        assert!(help.ends_with('.'), "{line}");
                        family = name.to_owned();
                    }
                    ["#", "TYPE", name, word] => {
                        assert_eq!(name, family, "TYPE follows HELP");
                        assert_eq!(name.ends_with("_total"), word == "counter", "{line}");
                        kind = word.to_owned();
                    }
                    [sample, value] => {
                        assert!(samples.insert(sample.to_owned()), "{sample} comes twice");
                        let name = sample.split('{').next().unwrap();
                        let suffix = name.strip_prefix(family.as_str()).unwrap();
                        let is_histogram = kind == "histogram";
                        let is_part = ["_bucket", "_sum", "_count"].contains(&suffix);
                        assert!(if is_histogram { is_part } else { suffix.is_empty() }, "{line}");
                        assert!(value.parse::<f64>().is_ok(), "{line}");
                    }
                    _ => panic!("{line:?} is not a line of the format"),
                }
            }
            assert_eq!(families.len(), 35);
        }
    }

    #[test]
    fn a_shortage_is_counted_under_its_own_errno() {
        for shortage in Shortage::ALL {
            let mut counters = Counters::default();
            counters.count_shortage(shortage);
            let page = counters.render(&GAUGES);
            let line = format!("openports_shortages_total{{errno=\"{}\"}} 1", shortage.label());
            check(&page, &line);
            assert_eq!(counters.shortages.iter().sum::<u64>(), 1);
        }
    }

    #[test]
    fn labels_beyond_the_bound_are_counted_as_overflow() {
        let mut counters = Counters::default();
        for status in 100..=(100 + REQUEST_LABELS_MAX as u16) {
            counters.count_request("open-ports", status);
        }
        counters.count_request("open-ports", 100);
        let page = counters.render(&GAUGES);
        check(&page, "openports_requests_total{route=\"open-ports\",status=\"100\"} 2");
        check(&page, "openports_requests_total{route=\"overflow\",status=\"overflow\"} 1");
        for label in ["", "overflow", "a\"b", "a\\b", "a b", "ü"] {
            assert!(!is_label(label), "{label:?}");
        }
    }
}
