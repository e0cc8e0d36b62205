//! Turns the result of a job into the summary of the answer, the problem, and the counters.
//!
//! The outcome borrows the sets of the scans. Only a job with several addresses needs unions of its
//! own. This module has no state and counts nothing itself; `responder` and `batch_run` call it.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::admission::{RETRY_AFTER, RETRY_AFTER_SHUTDOWN};
use super::job::{EndedJob, JobFailure, JobScans};
use crate::api::accept::Form;
use crate::api::end_writer::EndWriter;
use crate::api::probe::{ProbeFailure, Probed, probe_response, verdict};
use crate::api::problem::{Cause, Problem, sentence};
use crate::dns::failure::LookupFailure;
use crate::http::Response;
use crate::policy::Denial;
use crate::port_set::PortSet;
use crate::report::log::Record;
use crate::report::{PortTally, ScanRecord};
use crate::scan::Scan;
use crate::scan::end::ScanEnd;
use crate::scan::ledger::{Counts, PortState};
use crate::scan::options::{Addresses, Include, ScanOptions};
use crate::scan::summary::{AddressPorts, AddressResult, Details, OpenRtt, Services, Summary};
use crate::service_names::Names;
use crate::technique::Technique;

/// The result of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum JobResult {
    /// The scans have ended. If one of them is not complete, this is the end of the first such one.
    Scanned(ScanEnd),
    /// The client disconnected first.
    Cancelled,
    /// No port could be scanned. The cause is that of the answer.
    Failed(Cause),
}

impl JobResult {
    /// The metric label. `cancelled` is also the message of the log record.
    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::Scanned(end) => end.label(),
            Self::Cancelled => "cancelled",
            Self::Failed(cause) => cause.label(),
        }
    }
}

/// The outcome of a job whose scans have ended.
pub(super) struct JobOutcome<'a> {
    job: &'a JobScans,
    scans: &'a [Scan],
    options: &'a ScanOptions,
    elapsed: Duration,
}

impl<'a> JobOutcome<'a> {
    /// The outcome of a job whose scans have ended.
    pub(super) fn new(now: Instant, ended: &'a EndedJob) -> Self {
        let EndedJob { started_at, job, scans } = ended;
        assert!(!scans.is_empty(), "a job that was scanned has a scan");
        assert!(scans.iter().all(|scan| scan.end().is_some()), "the scans of the job have ended");
        Self { job, scans, options: scans[0].options(), elapsed: now - *started_at }
    }

    /// The end of the answer in this form. If the answer is not a stream, this is the whole answer.
    pub(super) fn ending(&self, form: Form, names: &Names, rtts: &[OpenRtt]) -> EndWriter<'static> {
        self.summarize(names, |summary| {
            let by_address = if form.has_port_lines() { summary.details.by_address } else { &[] };
            let details = Details { by_address, rtts, ..summary.details };
            EndWriter::new(form, &Summary { details, ..summary }).into_owned()
        })
    }

    /// Calls `to` with the summary, which borrows local values.
    pub(super) fn summarize<T>(&self, names: &Names, to: impl FnOnce(Summary) -> T) -> T {
        let [open, closed, filtered, unreachable] =
            [PortState::Open, PortState::Closed, PortState::Filtered, PortState::Unreachable]
                .map(|state| StatePorts::of(self.scans, state));
        let include = self.options.include;
        let results: Vec<AddressResult> = self.scans.iter().map(address_result).collect();
        let is_all = self.options.addresses == Addresses::All;
        let by_address: Vec<AddressPorts> =
            self.scans.iter().map(|scan| address_ports(scan, include)).collect();
        let other_addresses = self.job.other_addresses();
        to(Summary {
            from_port: self.job.from_port,
            to_port: self.job.to_port,
            domain: self.job.domain(),
            open: open.as_set(),
            address: self.scans[0].target().ip(),
            counts: self.counts(),
            complete: self.is_complete(),
            retried: self.retried(),
            loss_suspected: self.loss_suspected(),
            loss: self.loss(),
            elapsed: self.elapsed,
            closed: include.closed.then(|| closed.as_set()),
            filtered: include.filtered.then(|| filtered.as_set()),
            unreachable: include.unreachable.then(|| unreachable.as_set()),
            services: include.services.then(|| Services { open: open.as_set(), names }),
            results: is_all.then_some(&results),
            details: Details { other_addresses, by_address: &by_address, ..Details::default() },
        })
    }

    /// The answer to a request to `/probe` that expects these ports to be open, or at least one
    /// port.
    pub(super) fn probe_response(&self, expect: Option<&PortSet>) -> Response {
        probe_response(self.probed(), expect, self.elapsed)
    }

    /// The reason why the probe did not succeed; `None` if it did.
    pub(super) fn probe_failure(&self, expect: Option<&PortSet>) -> Option<ProbeFailure> {
        verdict(self.probed(), expect).err()
    }

    fn probed(&self) -> Probed<'_> {
        Probed::Scanned {
            address: self.scans[0].target().ip(),
            open: self.scans[0].ports(PortState::Open),
            counts: self.counts(),
            complete: self.is_complete(),
        }
    }

    /// Adds the scan's figures to an access record.
    pub(super) fn describe(&self, record: Record) -> Record {
        let counts = self.counts();
        record
            .field("address", self.scans[0].target().ip())
            .field("technique", self.options.technique.label())
            .field("ports", counts.total())
            .field("open", counts.open)
            .field("closed", counts.closed)
            .field("filtered", counts.filtered)
            .field("unreachable", counts.unreachable)
            .field("untested", counts.untested)
            .field("retried", self.retried())
    }

    /// The numbers that the scans add to the counters of ports.
    pub(super) fn tally(&self) -> PortTally {
        let counts = self.counts();
        PortTally {
            open: counts.open.into(),
            closed: counts.closed.into(),
            filtered: counts.filtered.into(),
            unreachable: counts.unreachable.into(),
            untested: counts.untested.into(),
        }
    }

    /// The values that the scan adds to the counters of scans.
    pub(super) fn record(&self) -> ScanRecord {
        let technique = self.options.technique;
        let result = JobResult::Scanned(self.end()).label();
        ScanRecord { technique, result, duration: self.elapsed, loss: self.loss() }
    }

    fn end(&self) -> ScanEnd {
        let mut ends = self.scans.iter().filter_map(Scan::end);
        ends.find(|end| *end != ScanEnd::Complete).unwrap_or(ScanEnd::Complete)
    }

    /// Whether every port of every address was probed as planned.
    fn is_complete(&self) -> bool {
        self.end() == ScanEnd::Complete
    }

    fn counts(&self) -> Counts {
        self.scans.iter().map(Scan::counts).fold(Counts::default(), Counts::plus)
    }

    fn retried(&self) -> u32 {
        self.scans.iter().map(Scan::retried).sum()
    }

    fn loss(&self) -> Option<f64> {
        self.scans.iter().filter_map(Scan::loss).max_by(f64::total_cmp)
    }

    fn loss_suspected(&self) -> bool {
        self.scans.iter().any(Scan::loss_suspected)
    }
}

/// The record of a scan whose client has disconnected.
pub(super) fn cancelled_record(technique: Technique, duration: Duration) -> ScanRecord {
    ScanRecord { technique, result: JobResult::Cancelled.label(), duration, loss: None }
}

/// The problem that answers a request whose job failed.
pub(super) fn failure_problem(failure: &JobFailure) -> Problem {
    match failure {
        JobFailure::Lookup(failure) => {
            let cause = match failure {
                LookupFailure::UnknownHost
                | LookupFailure::NoAddress
                | LookupFailure::NoAddressFor { .. } => Cause::UnknownHost,
                LookupFailure::ServerFailure | LookupFailure::Unreachable => Cause::DnsFailure,
                LookupFailure::TimedOut => Cause::DnsTimeout,
                LookupFailure::Overloaded => return Problem::overloaded(RETRY_AFTER),
            };
            Problem::new(cause, sentence(failure))
        }
        JobFailure::Denied(address, denial) => {
            let hint = if has_port_for_a_group(*address, *denial) {
                " If its last part is a port, write the address in brackets: [::1]:80."
            } else {
                ""
            };
            let detail = format!("The address {address} is not scanned: {denial}.{hint}");
            Problem::new(Cause::TargetDenied, detail)
        }
        JobFailure::ShuttingDown => Problem::draining(RETRY_AFTER_SHUTDOWN),
    }
}

/// Whether an unspecified address such as `::1:80` was probably meant as the address `::1` and a
/// port.
fn has_port_for_a_group(address: IpAddr, denial: Denial) -> bool {
    match (address, denial) {
        (IpAddr::V6(v6), Denial::Unspecified) => v6.segments()[6] != 0,
        (IpAddr::V4(_) | IpAddr::V6(_), _) => false,
    }
}

/// The failure to report to a monitor, if the target of the probe has failed. `None` if the request
/// itself is refused, which is an error.
pub(super) fn probe_failure(cause: Cause) -> Option<ProbeFailure> {
    let unresolved = [
        (Cause::UnknownHost, ProbeFailure::UnknownHost),
        (Cause::DnsFailure, ProbeFailure::DnsFailure),
        (Cause::DnsTimeout, ProbeFailure::DnsTimeout),
    ];
    unresolved.into_iter().find(|(other, _)| *other == cause).map(|(_, failure)| failure)
}

fn address_result(scan: &Scan) -> AddressResult<'_> {
    AddressResult {
        address: scan.target().ip(),
        open: scan.ports(PortState::Open),
        counts: scan.counts(),
    }
}

fn address_ports(scan: &Scan, include: Include) -> AddressPorts<'_> {
    AddressPorts {
        address: scan.target().ip(),
        open: scan.ports(PortState::Open),
        closed: include.closed.then(|| scan.ports(PortState::Closed)),
        filtered: include.filtered.then(|| scan.ports(PortState::Filtered)),
        unreachable: include.unreachable.then(|| scan.ports(PortState::Unreachable)),
    }
}

/// The ports in one state: borrowed if there is one scan, the union if there are several.
enum StatePorts<'a> {
    One(&'a PortSet),
    Union(PortSet),
}

impl<'a> StatePorts<'a> {
    #[inline(never)]
    fn of(scans: &'a [Scan], state: PortState) -> Self {
        match scans {
            [one] => Self::One(one.ports(state)),
            several => {
                let mut union = PortSet::new();
                for scan in several {
                    union.union_with(scan.ports(state));
                }
                Self::Union(union)
            }
        }
    }

    const fn as_set(&self) -> &PortSet {
        match self {
            Self::One(set) => set,
            Self::Union(set) => set,
        }
    }
}
