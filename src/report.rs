//! What the service tells its operators: counters and `/metrics` here, log records in [`log`].
//!
//! Everything is of fixed size and nothing allocates per count: labels are constant words of our
//! own enums, never a peer's text, so no peer can make the page grow. It holds no clock and
//! decides nothing. Driven by `service`, which counts, knows the gauges, and asks for the page.
//!
//! The page is Prometheus' text format 0.0.4. Names begin with `openports_`, but for
//! `process_start_time_seconds`, which every Prometheus client library calls so and dashboards
//! compute the uptime from. Counters end in `_total`; seconds are the only unit of time.
//!
//! Invariants: HELP and TYPE come once per name, before its samples; no two samples share a name
//! and labels; a counter never falls.

pub mod log;

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::event::Shortage;
use crate::limits::{LABELS_MAX, REQUEST_LABELS_MAX};

/// The upper bounds of the histogram's buckets, in nanoseconds and as the page names them.
const TURN_BOUNDS: [(u64, &str); 14] = [
    (50_000, "5e-05"),
    (100_000, "0.0001"),
    (250_000, "0.00025"),
    (500_000, "0.0005"),
    (1_000_000, "0.001"),
    (2_500_000, "0.0025"),
    (5_000_000, "0.005"),
    (10_000_000, "0.01"),
    (25_000_000, "0.025"),
    (50_000_000, "0.05"),
    (100_000_000, "0.1"),
    (250_000_000, "0.25"),
    (500_000_000, "0.5"),
    (1_000_000_000, "1"),
];

/// Ports by the state in which they ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortTally {
    /// The handshake was completed.
    pub open: u64,
    /// Refused or reset.
    pub closed: u64,
    /// Silent until the deadline after every pass.
    pub filtered: u64,
    /// The network or a local policy said so.
    pub unreachable: u64,
    /// The scan ended first.
    pub untested: u64,
}

/// What is true at the moment the page is rendered.
#[derive(Clone, Copy, Debug)]
pub struct Gauges {
    /// When this process started.
    pub started: SystemTime,
    /// Scans under way.
    pub scans_running: usize,
    /// Lookups under way.
    pub lookups_running: usize,
    /// Client connections that are open.
    pub connections_open: usize,
    /// Connects in flight.
    pub connects_in_flight: usize,
    /// Connects in flight at most.
    pub connects_in_flight_max: usize,
    /// Descriptors of the budget that are taken.
    pub descriptors_used: usize,
    /// Descriptors of the budget.
    pub descriptors_max: usize,
    /// True exactly when a termination signal came.
    pub is_draining: bool,
}

/// What happened since the start.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    requests: Tally<(&'static str, u16), REQUEST_LABELS_MAX>,
    scans: Tally<&'static str, LABELS_MAX>,
    ports: PortTally,
    connects: u64,
    /// By the discriminant of [`Shortage`].
    shortages: [u64; Shortage::ALL.len()],
    lookups: Tally<&'static str, LABELS_MAX>,
    connections_accepted: u64,
    connections_closed: Tally<&'static str, LABELS_MAX>,
    turns: TurnTimes,
    log_lines_dropped: u64,
}

impl Counters {
    /// A request was answered; `route` is a constant word, not the target that was asked for.
    pub fn count_request(&mut self, route: &'static str, status: u16) {
        assert!((100..600).contains(&status), "{status} is no status code");
        self.requests.add((route, status));
    }

    /// A scan ended.
    pub fn count_scan(&mut self, result: &'static str) {
        self.scans.add(result);
    }

    /// Ports came to their states.
    pub fn add_ports(&mut self, ports: &PortTally) {
        self.ports.open += ports.open;
        self.ports.closed += ports.closed;
        self.ports.filtered += ports.filtered;
        self.ports.unreachable += ports.unreachable;
        self.ports.untested += ports.untested;
    }

    /// Connects were launched.
    pub fn add_connects(&mut self, count: u64) {
        self.connects += count;
    }

    /// We ran short of something.
    pub fn count_shortage(&mut self, shortage: Shortage) {
        self.shortages[shortage as usize] += 1;
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

    /// The loop took this long for one turn, without the time it slept.
    pub fn observe_turn(&mut self, elapsed: Duration) {
        self.turns.observe(elapsed);
    }

    /// Log lines were dropped because stderr took none.
    pub fn add_log_lines_dropped(&mut self, count: u64) {
        self.log_lines_dropped += count;
    }

    /// The page, `text/plain; version=0.0.4`.
    pub fn render(&self, gauges: &Gauges) -> String {
        let page = Page { counters: self, gauges }.to_string();
        assert!(page.ends_with('\n'), "the format asks for a line end after the last line");
        page
    }
}

/// Counts by label, in the order in which the labels first came. What finds no room is counted
/// under `overflow`: a sign that a bound of `limits` is too small, not a loss.
#[derive(Clone, Debug)]
struct Tally<L, const N: usize> {
    cells: [Option<(L, u64)>; N],
    overflow: u64,
}

impl<L: Copy, const N: usize> Default for Tally<L, N> {
    fn default() -> Self {
        Self { cells: [None; N], overflow: 0 }
    }
}

impl<L: Copy + PartialEq, const N: usize> Tally<L, N> {
    fn add(&mut self, label: L) {
        for cell in &mut self.cells {
            match cell {
                Some((known, count)) if *known == label => {
                    *count += 1;
                    return;
                }
                Some(_) => {}
                None => {
                    *cell = Some((label, 1));
                    return;
                }
            }
        }
        self.overflow += 1;
    }

    fn iter(&self) -> impl Iterator<Item = (L, u64)> + '_ {
        self.cells.iter().flatten().copied()
    }
}

/// How long turns of the loop took.
#[derive(Clone, Copy, Debug, Default)]
struct TurnTimes {
    /// Turns by the first bound that they do not exceed; the last: those that exceed all.
    buckets: [u64; TURN_BOUNDS.len() + 1],
    sum: Duration,
}

impl TurnTimes {
    fn observe(&mut self, elapsed: Duration) {
        let nanos = elapsed.as_nanos();
        let bucket = TURN_BOUNDS.partition_point(|(bound, _)| u128::from(*bound) < nanos);
        self.buckets[bucket] += 1;
        self.sum = self.sum.saturating_add(elapsed);
    }
}

/// One metric: its name, the format's word for its kind, and what it says.
struct Family {
    name: &'static str,
    kind: &'static str,
    help: &'static str,
}

const BUILD: Family =
    Family { name: "openports_build_info", kind: "gauge", help: "Always 1, by version." };
const REQUESTS: Family = Family {
    name: "openports_requests_total",
    kind: "counter",
    help: "Requests answered, by route and status.",
};
const SCANS: Family =
    Family { name: "openports_scans_total", kind: "counter", help: "Scans ended, by result." };
const PORTS: Family = Family {
    name: "openports_ports_total",
    kind: "counter",
    help: "Ports scanned, by the state in which they ended.",
};
const CONNECTS: Family =
    Family { name: "openports_connects_total", kind: "counter", help: "Connects launched." };
const SHORTAGES: Family = Family {
    name: "openports_shortages_total",
    kind: "counter",
    help: "Calls that failed for want of something of ours, by errno; the work is tried again.",
};
const LOOKUPS: Family = Family {
    name: "openports_lookups_total",
    kind: "counter",
    help: "Lookups of names ended, by result.",
};
const ACCEPTED: Family = Family {
    name: "openports_connections_accepted_total",
    kind: "counter",
    help: "Client connections accepted.",
};
const CLOSED: Family = Family {
    name: "openports_connections_closed_total",
    kind: "counter",
    help: "Client connections closed, by reason.",
};
const TURNS: Family = Family {
    name: "openports_loop_turn_seconds",
    kind: "histogram",
    help: "Time that one turn of the loop took, without its sleep.",
};
const LOG_LINES_DROPPED: Family = Family {
    name: "openports_log_lines_dropped_total",
    kind: "counter",
    help: "Log lines dropped because stderr took none.",
};

impl Family {
    fn head(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, kind, help } = self;
        writeln!(f, "# HELP {name} {help}\n# TYPE {name} {kind}")
    }

    fn alone(&self, f: &mut fmt::Formatter<'_>, value: impl fmt::Display) -> fmt::Result {
        self.head(f)?;
        writeln!(f, "{} {value}", self.name)
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

/// True exactly when a label needs no escape and is not the word that [`Tally`] uses itself.
fn is_label(label: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\');
    !label.is_empty() && label != "overflow" && label.bytes().all(is_plain)
}

/// The page, written once from top to bottom.
struct Page<'a> {
    counters: &'a Counters,
    gauges: &'a Gauges,
}

impl fmt::Display for Page<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        BUILD.head(f)?;
        writeln!(f, "{}{{version=\"{}\"}} 1", BUILD.name, env!("CARGO_PKG_VERSION"))?;
        self.write_gauges(f)?;
        self.write_requests(f)?;
        SCANS.tally(f, "result", &self.counters.scans)?;
        self.write_ports(f)?;
        CONNECTS.alone(f, self.counters.connects)?;
        SHORTAGES.head(f)?;
        for (shortage, count) in Shortage::ALL.iter().zip(self.counters.shortages) {
            writeln!(f, "{}{{errno=\"{}\"}} {count}", SHORTAGES.name, shortage.label())?;
        }
        LOOKUPS.tally(f, "result", &self.counters.lookups)?;
        ACCEPTED.alone(f, self.counters.connections_accepted)?;
        CLOSED.tally(f, "reason", &self.counters.connections_closed)?;
        self.write_turns(f)?;
        LOG_LINES_DROPPED.alone(f, self.counters.log_lines_dropped)
    }
}

impl Page<'_> {
    fn write_gauges(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let gauges = self.gauges;
        let started = gauges.started.duration_since(UNIX_EPOCH).unwrap_or_default();
        let gauge = |name, help| Family { name, kind: "gauge", help };
        gauge("process_start_time_seconds", "Start of this process, in seconds since 1970.")
            .alone(f, Seconds(started))?;
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
        Ok(())
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

    fn write_turns(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, turns) = (TURNS.name, &self.counters.turns);
        let bounds = TURN_BOUNDS.iter().map(|(_, bound)| *bound).chain(["+Inf"]);
        let mut count = 0;
        TURNS.head(f)?;
        for (bound, more) in bounds.zip(turns.buckets) {
            count += more;
            writeln!(f, "{name}_bucket{{le=\"{bound}\"}} {count}")?;
        }
        writeln!(f, "{name}_sum {}\n{name}_count {count}", Seconds(turns.sum))
    }
}

/// A duration in seconds, exact to the nanosecond, which a float is not after a few months.
struct Seconds(Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:09}", self.0.as_secs(), self.0.subsec_nanos())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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
    };

    fn counted() -> Counters {
        let mut counters = Counters::default();
        counters.count_request("open-ports", 200);
        counters.count_request("healthz", 200);
        counters.count_request("open-ports", 400);
        counters.count_request("open-ports", 200);
        counters.count_scan("complete");
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
        counters.observe_turn(Duration::from_micros(50));
        counters.observe_turn(Duration::from_nanos(50_001));
        counters.observe_turn(Duration::from_secs(2));
        counters.add_log_lines_dropped(4);
        counters
    }

    fn check(page: &str, line: &str) {
        assert!(page.lines().any(|found| found == line), "{line} is missing in\n{page}");
    }

    #[test]
    fn what_was_counted_stands_on_the_page() {
        let page = counted().render(&GAUGES);
        for line in [
            "openports_requests_total{route=\"open-ports\",status=\"200\"} 2",
            "openports_requests_total{route=\"open-ports\",status=\"400\"} 1",
            "openports_requests_total{route=\"healthz\",status=\"200\"} 1",
            "openports_scans_total{result=\"complete\"} 1",
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
            "openports_log_lines_dropped_total 4",
            "openports_scans_running 3",
            "openports_connects_in_flight_max 900",
            "openports_draining 1",
            "process_start_time_seconds 0.000000000",
        ] {
            check(&page, line);
        }
        assert!(!page.contains("overflow"), "every label found its place in\n{page}");
    }

    /// What `promtool check metrics` asks for, as far as it can be said in a few lines.
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
                    _ => panic!("{line:?} is no line of the format"),
                }
            }
            assert_eq!(families.len(), 20);
        }
    }

    #[test]
    fn every_bound_is_written_as_the_number_it_is() {
        for (nanos, text) in TURN_BOUNDS {
            let seconds: f64 = text.parse().unwrap();
            assert_eq!((seconds * 1e9).round() as u64, nanos, "{text}");
        }
        assert!(TURN_BOUNDS.is_sorted());
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
