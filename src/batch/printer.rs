//! Prints the results of a command-line run in one of eight formats.
//!
//! The printer appends to one buffer, which the event loop writes to stdout. It knows the output of
//! each format and its time: `ndjson`, `csv` and `host-port` print an open port when it is found,
//! and the other formats print a target when it ends. It counts nothing and never decides which
//! ports are scanned. `batch` drives it.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::OpenPort;
use super::greppable;
use super::options::{BatchOptions, Format, Shown};
use super::progress::BatchProgress;
use super::shard::Shard;
use super::table::{self, Colour};
use super::targets::TargetId;
use super::xml;
use crate::api::accept::Form;
use crate::api::answer::{ScanEvent, write_event};
use crate::api::batch_events::{BatchEvent, BatchOutput, write_batch_event, write_failure};
use crate::api::end_writer::{csv_field, write_end};
use crate::api::problem::Problem;
use crate::host::unbracketed;
use crate::limits;
use crate::port_set::PortSet;
use crate::scan::ledger::Counts;
use crate::scan::options::Include;
use crate::scan::summary::{AddressResult, Summary};
use crate::technique::Technique;

/// One address of a target with its ports, for formats that list each address.
#[derive(Clone, Copy, Debug)]
pub struct ScannedHost<'a> {
    /// The address.
    pub address: IpAddr,
    /// The number of its ports in each state.
    pub counts: Counts,
    /// Its open ports.
    pub open: &'a PortSet,
    /// Its closed ports, if `--include` requests them.
    pub closed: Option<&'a PortSet>,
    /// Its filtered ports, if `--include` requests them.
    pub filtered: Option<&'a PortSet>,
    /// Its unreachable ports, if `--include` requests them.
    pub unreachable: Option<&'a PortSet>,
}

impl<'a> ScannedHost<'a> {
    /// The addresses of a target that were scanned. The sets of a summary of several addresses are
    /// unions, which belong to none of them.
    pub fn all(summary: &Summary<'a>) -> Vec<Self> {
        let Summary { address, counts, open, closed, filtered, unreachable, .. } = *summary;
        let Some(results) = summary.results else {
            return vec![Self { address, counts, open, closed, filtered, unreachable }];
        };
        let host = |(index, result): (usize, &AddressResult<'a>)| {
            let AddressResult { address, counts, open } = *result;
            let ports = summary.details.by_address.get(index);
            assert!(ports.is_none_or(|it| it.address == address), "the addresses correspond");
            Self {
                address,
                counts,
                open,
                closed: ports.and_then(|it| it.closed),
                filtered: ports.and_then(|it| it.filtered),
                unreachable: ports.and_then(|it| it.unreachable),
            }
        };
        results.iter().enumerate().map(host).collect()
    }
}

/// The number of targets by result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcomes {
    /// Targets with an open port.
    pub with_open: u64,
    /// Targets that were scanned and have no open port.
    pub without_open: u64,
    /// Targets of both kinds whose scan was not completed.
    pub cut_short: u64,
    /// Targets of both kinds with an unreachable port.
    pub unreachable: u64,
    /// Addresses that were scanned. A target has several with `--all-addresses`.
    pub hosts: u64,
    /// Targets of which no port could be scanned.
    pub failed: u64,
    /// Targets that were not scanned because the user has excluded their addresses.
    pub excluded: u64,
    /// Whether any requested port was not scanned, or not scanned completely.
    pub is_incomplete: bool,
}

impl Outcomes {
    /// Counts a target that was scanned.
    pub const fn count_scanned(&mut self, summary: &Summary) {
        self.cut_short += !summary.complete as u64;
        self.unreachable += (summary.counts.unreachable > 0) as u64;
        self.hosts += match summary.results {
            Some(results) => results.len() as u64,
            None => 1,
        };
        if summary.counts.open > 0 {
            self.with_open += 1;
        } else {
            self.without_open += 1;
        }
    }

    /// Targets that were scanned.
    pub const fn scanned(&self) -> u64 {
        self.with_open + self.without_open
    }
}

/// The parameters with which a target begins, for a stream of events.
#[derive(Clone, Copy, Debug)]
pub struct Start<'a> {
    /// The target as it was given.
    pub domain: &'a str,
    /// The address to be scanned; the first one if there are several.
    pub address: IpAddr,
    /// The number of ports to be scanned, summed over all addresses of the target.
    pub total: u32,
    /// The ports of each address.
    pub ports: &'a PortSet,
}

/// The start time and the command line, for formats that contain them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunInfo {
    /// The start time by the wall clock, as the time since 1970.
    pub started: Duration,
    /// The command line.
    pub args: String,
    /// The technique of the probes.
    pub technique: Technique,
}

/// The printer. See the module's documentation.
#[derive(Debug)]
pub struct Printer {
    format: Format,
    shown: Shown,
    include: Include,
    colour: Colour,
    is_several: bool,
    /// The shard, as `I/N`; `None` if the run scans everything.
    shard: Option<String>,
    /// The number of ports of all targets in all shards.
    shards_total: u64,
    run: RunInfo,
    out: Vec<u8>,
    /// The number of bytes of `out` that stdout has accepted.
    printed: usize,
    /// The prepared start events of targets that have no open port yet, if only targets with an
    /// open port are printed.
    starts: BTreeMap<TargetId, Vec<u8>>,
}

impl Printer {
    /// A printer whose buffer holds the beginning of the format.
    pub fn new(options: &BatchOptions) -> Self {
        let mut printer = Self {
            format: options.format,
            shown: options.shown,
            include: options.scan.include,
            colour: options.colour,
            is_several: options.targets.len() > 1,
            shard: (options.shard != Shard::WHOLE).then(|| options.shard.to_string()),
            shards_total: options.targets.ports_len(),
            run: options.run.clone(),
            out: Vec::new(),
            printed: 0,
            starts: BTreeMap::new(),
        };
        match printer.format {
            Format::Csv => printer.out.extend_from_slice(CSV_HEAD.as_bytes()),
            Format::Xml => {
                xml::write_head(&mut printer.out, &printer.run, &options.targets.all_ports());
            }
            Format::Greppable => greppable::write_head(&mut printer.out, &printer.run),
            Format::Table | Format::Json | Format::Ndjson | Format::Text | Format::HostPort => {}
        }
        printer
    }

    /// The facts that scans must report in addition to open ports.
    pub const fn include(&self) -> Include {
        let mut include = self.include;
        match self.format {
            Format::Table | Format::Csv | Format::Xml | Format::Greppable => {
                include.services = true;
            }
            Format::Json | Format::Ndjson | Format::Text | Format::HostPort => {}
        }
        include
    }

    /// Whether open ports are also shown on the terminal when they are found.
    pub const fn is_for_people(&self) -> bool {
        matches!(self.format, Format::Table)
    }

    /// Whether the format may show neither ports without a state nor unreachable ones.
    pub const fn hides_gaps(&self) -> bool {
        use Format::{Csv, Greppable, HostPort, Text};
        matches!(self.format, Text | HostPort | Csv | Greppable)
    }

    /// Whether progress is an event of the format.
    pub const fn has_progress(&self) -> bool {
        matches!(self.format, Format::Ndjson)
    }

    /// The first event of a target.
    pub fn print_start(&mut self, target: TargetId, start: Start) {
        if self.format != Format::Ndjson {
            return;
        }
        let Start { domain, address, total, ports } = start;
        let shard = self.shard.as_deref();
        let ports = shard.is_none().then_some(ports);
        let shards_total = shard.map(|_| self.shards_total);
        let event = ScanEvent::Start { domain, address, total, ports, shard, shards_total };
        match self.shown {
            Shown::All => write_event(&mut self.out, Form::Ndjson, &event),
            Shown::Open => {
                let mut text = Vec::new();
                write_event(&mut text, Form::Ndjson, &event);
                self.starts.insert(target, text);
            }
        }
    }

    /// An open port of a target. Its address is printed if all addresses of the name are scanned.
    pub fn print_open(
        &mut self,
        target: TargetId,
        domain: &str,
        address: Option<IpAddr>,
        open: OpenPort,
    ) {
        let OpenPort { port, rtt, .. } = open;
        match self.format {
            Format::Ndjson => {
                self.out.extend(self.starts.remove(&target).unwrap_or_default());
                let rtt = Some(rtt);
                if self.is_several {
                    let event = BatchEvent::Open { port, rtt, domain, address };
                    write_batch_event(&mut self.out, &event);
                } else {
                    let event = ScanEvent::Open { port, rtt, address };
                    write_event(&mut self.out, Form::Ndjson, &event);
                }
            }
            Format::Csv => {
                let (service, rtt) = (csv_field(open.service), RttMillis(rtt));
                self.print(format_args!("{},{port},open,{service},{rtt}\n", open.address));
            }
            Format::HostPort => match address {
                Some(address) => self.print(format_args!("{}\n", SocketAddr::new(address, port))),
                None => self.print_host_port(domain, port),
            },
            Format::Table | Format::Json | Format::Text | Format::Xml | Format::Greppable => {}
        }
    }

    /// Prints `example.com:80` or `[::1]:80`.
    fn print_host_port(&mut self, domain: &str, port: u16) {
        if domain.contains(':') && !domain.starts_with('[') {
            self.print(format_args!("[{domain}]:{port}\n"));
        } else {
            self.print(format_args!("{domain}:{port}\n"));
        }
    }

    /// The end of a target that was scanned. `elapsed` is the time since the first target was
    /// begun.
    pub fn print_end(&mut self, elapsed: Duration, target: TargetId, summary: &Summary) {
        let has_start = self.starts.remove(&target).is_some();
        let is_shown = match self.shown {
            Shown::All => true,
            Shown::Open => summary.counts.open > 0,
        };
        if !is_shown || has_start {
            return;
        }
        match self.format {
            Format::Table => {
                let is_news = summary.counts.open > 0
                    || self.include.closed && summary.counts.closed > 0
                    || self.include.filtered && summary.counts.filtered > 0
                    || self.include.unreachable && summary.counts.unreachable > 0;
                if is_news || !self.is_several {
                    let text = table::table(summary, self.colour);
                    self.out.extend_from_slice(text.as_bytes());
                }
            }
            Format::Json => write_end(&mut self.out, Form::Json, summary),
            Format::Ndjson => write_end(&mut self.out, Form::Ndjson, summary),
            Format::Text => {
                for port in summary.open.iter() {
                    if self.is_several {
                        self.print_host_port(summary.domain, port);
                    } else {
                        self.print(format_args!("{port}\n"));
                    }
                }
            }
            Format::Csv => self.print_included(summary),
            Format::HostPort => {}
            Format::Xml => {
                let ended = self.run.started + elapsed;
                xml::write_hosts(&mut self.out, ended, summary);
            }
            Format::Greppable => greppable::write_hosts(&mut self.out, summary),
        }
    }

    /// Prints the lines of CSV that `--include` adds. A closed port has no round-trip time here.
    fn print_included(&mut self, summary: &Summary) {
        for host in ScannedHost::all(summary) {
            let ScannedHost { address, closed, filtered, unreachable, .. } = host;
            for (state, ports) in
                [("closed", closed), ("filtered", filtered), ("unreachable", unreachable)]
            {
                for port in ports.into_iter().flat_map(PortSet::iter) {
                    let names = summary.services.map(|services| services.names);
                    let name = csv_field(names.map_or("", |names| names.of(port)));
                    self.print(format_args!("{address},{port},{state},{name},\n"));
                }
            }
        }
    }

    /// A target of which no port could be scanned.
    pub fn print_failure(&mut self, domain: &str, problem: &Problem) {
        match self.format {
            Format::Json => write_failure(&mut self.out, BatchOutput::Answers, domain, problem),
            Format::Ndjson => write_failure(&mut self.out, BatchOutput::Events, domain, problem),
            Format::Table
            | Format::Text
            | Format::HostPort
            | Format::Csv
            | Format::Xml
            | Format::Greppable => {}
        }
    }

    /// The progress of all targets, in formats that have an event for it. It is left out while the
    /// reader lags.
    pub fn print_progress(&mut self, progress: &BatchProgress) {
        let keeps_up = self.stdout().len() < limits::PRINTOUT_BYTES_MAX / 2;
        if self.has_progress() && keeps_up {
            let BatchProgress { done, total, open, .. } = *progress;
            write_batch_event(&mut self.out, &BatchEvent::Progress { done, total, open });
        }
    }

    /// The end of the output.
    pub fn print_conclusion(&mut self, elapsed: Duration, outcomes: &Outcomes) {
        let scanned = outcomes.scanned();
        match self.format {
            Format::Table if self.is_several => {
                let Outcomes { with_open, without_open, .. } = *outcomes;
                let time = table::Elapsed(elapsed);
                let plural = if scanned == 1 { "" } else { "s" };
                self.print(format_args!(
                    "{scanned} target{plural} {time}: {with_open} with open ports, \
                     {without_open} without"
                ));
                for (count, text) in [
                    (outcomes.unreachable, "with unreachable ports"),
                    (outcomes.cut_short, "not scanned whole"),
                    (outcomes.failed, "could not be scanned"),
                ] {
                    if count > 0 {
                        self.print(format_args!("; {count} {text}"));
                    }
                }
                self.print(format_args!("\n"));
            }
            Format::Xml => xml::write_tail(&mut self.out, &self.run, elapsed, outcomes),
            Format::Greppable => {
                greppable::write_tail(&mut self.out, &self.run, elapsed, outcomes.hosts);
            }
            Format::Table
            | Format::Json
            | Format::Ndjson
            | Format::Text
            | Format::HostPort
            | Format::Csv => {}
        }
    }

    fn print(&mut self, text: std::fmt::Arguments) {
        let written = std::io::Write::write_fmt(&mut self.out, text);
        assert!(written.is_ok(), "writing to a vector never fails");
    }

    /// The next bytes for stdout.
    pub fn stdout(&self) -> &[u8] {
        &self.out[self.printed..]
    }

    /// Stdout accepted `count` bytes. They are removed once they are at least half of all, so that
    /// each byte is moved once on average.
    pub fn handle_printed(&mut self, count: usize) {
        assert!(count <= self.stdout().len(), "stdout accepts at most the waiting bytes");
        self.printed += count;
        if self.printed >= self.out.len() / 2 {
            self.out.drain(..self.printed);
            self.printed = 0;
        }
    }

    /// Stdout accepts no more bytes.
    pub fn discard(&mut self) {
        (self.out, self.printed) = (Vec::new(), 0);
        self.starts = BTreeMap::new();
    }
}

/// The columns of the contract.
const CSV_HEAD: &str = "address,port,state,service,rtt_ms\n";

/// A round-trip time in milliseconds, rounded to microseconds, as in the CSV of the service.
struct RttMillis(Duration);

impl std::fmt::Display for RttMillis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let micros = (self.0.as_nanos() + 500) / 1000;
        write!(f, "{}.{:03}", micros / 1000, micros % 1000)
    }
}

/// The line that reports an open port above the progress line.
pub fn found_line(domain: &str, open: &OpenPort) -> String {
    let mut line = format!("{:>7}  open", open.port);
    if !open.service.is_empty() {
        let written = write!(line, "  {}", open.service);
        assert!(written.is_ok(), "writing to a string never fails");
    }
    let address = open.address.to_string();
    line.push_str("  ");
    line.push_str(domain);
    if unbracketed(domain) != address {
        let written = write!(line, " ({address})");
        assert!(written.is_ok(), "writing to a string never fails");
    }
    line
}
