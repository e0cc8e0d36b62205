//! One job: a request to scan, its state, its targets, and the plan of its scans.
//!
//! A job decides nothing about other jobs. `jobs` owns all jobs and drives them. A list has tens of
//! thousands of targets in flight, so a job whose scans run keeps only what the answer needs of its
//! request.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6};
use std::time::Instant;

use super::running::ScanRef;
use crate::address::{self, RoutedAddress};
use crate::batch::targets::TargetId;
use crate::dns::failure::LookupFailure;
use crate::event::RouteResult;
use crate::host::Host;
use crate::limits;
use crate::policy::{Denial, Policy};
use crate::scan::Scan;
use crate::scan::options::Addresses;
use crate::scan::plan::{Plan, RateShare};
use crate::scan::request::ScanRequest;
use crate::slots::Key;

/// One request to scan.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) owner: Owner,
    /// The time at which the job was started.
    pub(super) started_at: Instant,
    pub(super) state: JobState,
}

const _: () = assert!(size_of::<Job>() <= 64, "a target of a list takes some hundred bytes");

/// The state of a job.
#[derive(Debug)]
pub(super) enum JobState {
    /// The addresses to scan are being determined.
    Preparing(Box<Preparation>),
    /// Scans run, or have ended and wait for the removal of the job.
    Scanning(JobScans),
}

/// A job before its scans.
#[derive(Debug)]
pub(super) struct Preparation {
    pub(super) request: ScanRequest,
    /// Addresses of the name that are not scanned, in the order of preference. Those that exceed
    /// [`limits::ADDRESSES_SCANNED_MAX`] follow in the order of the lookup.
    other_addresses: Vec<IpAddr>,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// The name is being looked up. The deadline of the resolver is armed. The result of the lookup
    /// ends this stage.
    Resolving,
    /// The kernel determines a route to each address. No deadline is armed, because the results
    /// arrive within the same flush.
    Routing { candidates: Vec<RoutedAddress>, awaited: usize },
}

/// The scans of a job, at least one, and what the answer needs of its request.
#[derive(Debug)]
pub(super) struct JobScans {
    first: ScanRef,
    pub(super) from_port: u16,
    pub(super) to_port: u16,
    /// `None` for a target of a list that has only one address.
    details: Option<Box<JobDetails>>,
}

#[derive(Debug)]
struct JobDetails {
    domain: Box<str>,
    /// See [`Preparation`].
    other_addresses: Vec<IpAddr>,
    /// All scans of the job, including the first.
    scans: Vec<ScanRef>,
}

impl Job {
    /// The preparation of a job that has no scans yet.
    pub(super) fn preparation(&mut self) -> &mut Preparation {
        match &mut self.state {
            JobState::Preparing(preparation) => preparation,
            JobState::Scanning(_) => unreachable!("the addresses are determined once"),
        }
    }

    /// The scans of the job, at least one, have begun. Returns its preparation, which has ended.
    pub(super) fn begin_scans(&mut self, scans: Vec<ScanRef>) -> Box<Preparation> {
        let first = scans[0];
        let Preparation { request, other_addresses, .. } = self.preparation();
        let ScanRequest { from_port, to_port, .. } = *request;
        let details = JobDetails {
            domain: request.domain.clone(),
            other_addresses: std::mem::take(other_addresses),
            scans,
        };
        let has_details = !details.domain.is_empty()
            || !details.other_addresses.is_empty()
            || details.scans.len() > 1;
        let details = has_details.then(|| Box::new(details));
        let scanning = JobState::Scanning(JobScans { first, from_port, to_port, details });
        match std::mem::replace(&mut self.state, scanning) {
            JobState::Preparing(preparation) => preparation,
            JobState::Scanning(_) => unreachable!("the scans of a job begin once"),
        }
    }
}

impl JobScans {
    /// The scans in the order of their addresses.
    pub(super) fn as_slice(&self) -> &[ScanRef] {
        self.details.as_ref().map_or(std::slice::from_ref(&self.first), |details| &details.scans)
    }

    /// The target as the client wrote it; empty for a target of a list.
    pub(super) fn domain(&self) -> &str {
        self.details.as_ref().map_or("", |details| &details.domain)
    }

    /// Addresses of the name that are not scanned.
    pub(super) fn other_addresses(&self) -> &[IpAddr] {
        self.details.as_ref().map_or(&[], |details| &details.other_addresses)
    }
}

impl Preparation {
    pub(super) const fn new(request: ScanRequest) -> Self {
        Self { request, other_addresses: Vec::new(), stage: Stage::Resolving }
    }

    /// Whether a result is awaited that ends the stage.
    pub(super) const fn is_awaited(&self) -> bool {
        match &self.stage {
            Stage::Resolving => true,
            Stage::Routing { awaited, .. } => *awaited > 0,
        }
    }

    /// Selects the addresses of the target that may be scanned, whose routes are then awaited.
    pub(super) fn handle_addresses(
        &mut self,
        mut addresses: Vec<IpAddr>,
        policy: &Policy,
    ) -> Result<Vec<SocketAddr>, JobFailure> {
        assert!(matches!(self.stage, Stage::Resolving), "a job's name is looked up once");
        let mut first_denial = None;
        addresses.retain(|address| match policy.verdict(*address) {
            Ok(()) => self.request.options.family.admits(*address),
            Err(denial) => {
                first_denial.get_or_insert((*address, denial));
                false
            }
        });
        if addresses.is_empty() {
            return Err(match first_denial {
                Some((address, denial)) => JobFailure::Denied(address, denial),
                None => JobFailure::Lookup(LookupFailure::NoAddress),
            });
        }
        let mut targets: Vec<SocketAddr> = Vec::with_capacity(addresses.len());
        for target in addresses.into_iter().map(address::contacted) {
            let target = self.socket_address(target);
            if !targets.contains(&target) {
                targets.push(target);
            }
        }
        let more = targets.split_off(targets.len().min(limits::ADDRESSES_SCANNED_MAX));
        self.other_addresses = more.iter().map(SocketAddr::ip).collect();
        let candidates = Vec::with_capacity(targets.len());
        self.stage = Stage::Routing { candidates, awaited: targets.len() };
        Ok(targets)
    }

    /// Handles the route to one address. The last route returns the addresses to scan, in the order
    /// of preference.
    pub(super) fn handle_route(
        &mut self,
        address: IpAddr,
        route: RouteResult,
    ) -> Option<Vec<RoutedAddress>> {
        let Stage::Routing { candidates, awaited } = &mut self.stage else {
            unreachable!("each route is requested once and reported once");
        };
        let source = match route {
            RouteResult::From(source) => Some(source),
            RouteResult::Nowhere => None,
            // The route could not be determined, which is not a refusal: the probes of the scan
            // will show the result.
            RouteResult::Unknown => Some(Ipv4Addr::UNSPECIFIED.into()),
        };
        candidates.push(RoutedAddress { address, source });
        *awaited -= 1;
        if *awaited > 0 {
            return None;
        }
        let mut chosen = std::mem::take(candidates);
        assert!(!chosen.is_empty(), "a job has at least one address");
        address::sort(&mut chosen);
        match self.request.options.addresses {
            Addresses::First => {
                let others = chosen.split_off(1).into_iter().map(|other| other.address);
                self.other_addresses = others.chain(self.other_addresses.drain(..)).collect();
            }
            Addresses::All => {}
        }
        assert!(chosen.len() <= limits::ADDRESSES_SCANNED_MAX, "a job has no more addresses");
        Some(chosen)
    }

    /// The plan of one of several scans of the job, which divide concurrency and rate among each
    /// other.
    pub(super) fn plan(
        &self,
        started_at: Instant,
        candidate: RoutedAddress,
        share: RateShare,
    ) -> Plan {
        let request = &self.request;
        Plan {
            target: self.socket_address(candidate.address),
            is_routed: candidate.source.is_some(),
            ports: request.ports.clone(),
            options: request.options.divided(share.scans),
            share,
            ends_at: started_at + request.options.deadline,
        }
    }

    /// The socket address of one of the job's addresses, with the zone of an IPv6 literal.
    pub(super) const fn socket_address(&self, address: IpAddr) -> SocketAddr {
        let zone = match self.request.host {
            Host::Address(_, zone) => zone,
            Host::Name(_) => 0,
        };
        match address {
            IpAddr::V4(_) => SocketAddr::new(address, 0),
            IpAddr::V6(address) => SocketAddr::V6(SocketAddrV6::new(address, 0, 0, zone)),
        }
    }
}

/// The owner of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// A client's connection.
    Client(Key),
    /// A run from the command line: this target of its list.
    Batch(TargetId),
}

/// The reason why a job failed before its scans began.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum JobFailure {
    /// The name could not be resolved.
    Lookup(LookupFailure),
    /// The policy denies every address of the target; this is the first one.
    Denied(IpAddr, Denial),
    /// The service shuts down before the name was resolved.
    ShuttingDown,
}

/// A job whose scans have ended, and which was removed.
#[derive(Debug)]
pub(super) struct EndedJob {
    pub(super) started_at: Instant,
    pub(super) job: JobScans,
    /// The scans, at least one, in the order of their addresses.
    pub(super) scans: Vec<Scan>,
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;
    use std::time::Duration;

    use super::*;
    use crate::port_set::PortSet;
    use crate::scan::options::ScanOptions;

    #[test]
    fn the_scans_of_one_job_keep_the_requested_rate_together() {
        let start = Instant::now();
        for (rate, addresses, expected) in [(10, 64, 100), (100, 64, 1000), (10, 3, 100)] {
            let options = ScanOptions { rate: NonZeroU32::new(rate), ..ScanOptions::default() };
            let request = ScanRequest {
                host: Host::Name("localhost".into()),
                domain: "localhost".into(),
                ports: PortSet::from_range(1, 10_000),
                from_port: 1,
                to_port: 10_000,
                options,
            };
            let job = Preparation::new(request);
            let candidate = RoutedAddress { address: [192, 0, 2, 1].into(), source: None };
            let share = |index| RateShare { index, scans: addresses };
            let scan = |index| Scan::new(start, job.plan(start, candidate, share(index)));
            let mut scans: Vec<Scan> = (0..addresses).map(scan).collect();
            scans.iter_mut().for_each(|scan| scan.set_allowance(10_000));
            let mut launches = 0;
            for now in (0..10_000).map(|ms| start + Duration::from_millis(ms)) {
                for scan in &mut scans {
                    while scan.poll_launch(now, Key::from_parts(launches, 0)).is_some() {
                        launches += 1;
                    }
                }
            }
            let range = expected - 1..=expected + 1;
            assert!(range.contains(&launches), "{rate}/s to {addresses}: {launches} in 10 s");
        }
    }
}
