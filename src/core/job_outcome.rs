//! From what a job's scans came to, to the answer's summary and to the counters.
//!
//! It borrows the scans' sets as they are; only several addresses need unions of their own.

use std::time::{Duration, Instant};

use super::jobs::Job;
use crate::api::accept::Form;
use crate::api::ending::Ending;
use crate::api::probe::{Probed, probe_response};
use crate::api::query::Addresses;
use crate::api::summary::{AddressResult, Services, Summary};
use crate::http::Response;
use crate::names::Names;
use crate::report::PortTally;
use crate::report::log::Record;
use crate::scan::Scan;
use crate::scan::ledger::{Counts, PortState};
use crate::target::PortSet;

/// What a job came to, ready to be told.
pub(super) struct Outcome<'a> {
    job: &'a Job,
    scans: &'a [Scan],
    elapsed: Duration,
}

impl<'a> Outcome<'a> {
    /// The outcome of a job that ended with these scans, one at least.
    pub(super) fn new(now: Instant, job: &'a Job, scans: &'a [Scan]) -> Self {
        assert!(!scans.is_empty(), "a job that was scanned has a scan");
        Self { job, scans, elapsed: now - job.started_at }
    }

    /// The end in this form, which is all of it where it is no stream.
    pub(super) fn ending(&self, form: Form, names: &Names) -> Ending<'static> {
        self.tell(names, |summary| Ending::new(form, &summary).into_owned())
    }

    /// Tells the outcome to whoever writes it; the summary borrows what lives no longer.
    pub(super) fn tell<T>(&self, names: &Names, to: impl FnOnce(Summary) -> T) -> T {
        let [open, closed, filtered, unreachable] =
            [PortState::Open, PortState::Closed, PortState::Filtered, PortState::Unreachable]
                .map(|state| Ports::of(self.scans, state));
        let include = self.job.request.include;
        let results: Vec<AddressResult> = self.scans.iter().map(address_result).collect();
        let is_all = self.job.request.addresses == Addresses::All;
        to(Summary {
            from_port: self.job.request.from_port,
            to_port: self.job.request.to_port,
            domain: &self.job.request.domain,
            open: open.as_set(),
            address: self.scans[0].target().ip(),
            counts: self.counts(),
            complete: self.is_complete(),
            retried: self.retried(),
            loss_suspected: self.loss_suspected(),
            elapsed: self.elapsed,
            closed: include.closed.then(|| closed.as_set()),
            filtered: include.filtered.then(|| filtered.as_set()),
            unreachable: include.unreachable.then(|| unreachable.as_set()),
            services: include.services.then(|| Services { open: open.as_set(), names }),
            results: is_all.then_some(&results),
        })
    }

    /// The answer to a probe that expects these ports to be open, or none in particular.
    pub(super) fn probe_response(&self, expect: Option<&PortSet>) -> Response {
        let probed = Probed::Scanned {
            address: self.scans[0].target().ip(),
            open: self.scans[0].ports(PortState::Open),
            counts: self.counts(),
            complete: self.is_complete(),
        };
        probe_response(probed, expect, self.elapsed)
    }

    /// Adds the scan's figures to an access record.
    pub(super) fn describe(&self, record: Record) -> Record {
        let counts = self.counts();
        record
            .field("domain", &*self.job.request.domain)
            .field("address", self.scans[0].target().ip())
            .field("ports", counts.total())
            .field("open", counts.open)
            .field("closed", counts.closed)
            .field("filtered", counts.filtered)
            .field("unreachable", counts.unreachable)
            .field("untested", counts.untested)
            .field("retried", self.retried())
    }

    /// What the scans add to the counters.
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

    /// True exactly when every port of every address was tried as planned.
    pub(super) fn is_complete(&self) -> bool {
        self.scans.iter().all(Scan::is_complete)
    }

    fn counts(&self) -> Counts {
        self.scans.iter().map(Scan::counts).fold(Counts::default(), Counts::plus)
    }

    fn retried(&self) -> u32 {
        self.scans.iter().map(Scan::retried).sum()
    }

    fn loss_suspected(&self) -> bool {
        self.scans.iter().any(Scan::loss_suspected)
    }
}

fn address_result(scan: &Scan) -> AddressResult<'_> {
    AddressResult {
        address: scan.target().ip(),
        open: scan.ports(PortState::Open),
        counts: scan.counts(),
    }
}

/// The ports in one state: of one scan as they stand, of several as their union.
enum Ports<'a> {
    One(&'a PortSet),
    Union(PortSet),
}

impl<'a> Ports<'a> {
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
