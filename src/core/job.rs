//! One job: a request to scan, its state, its targets, and the plan of its scans.
//!
//! A job decides nothing about other jobs. `jobs` owns all jobs and drives them.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6};
use std::time::Instant;

use super::running::ScanRef;
use crate::address::{self, RoutedAddress};
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
    pub(super) request: ScanRequest,
    pub(super) owner: Owner,
    /// The time at which the job was started.
    pub(super) started_at: Instant,
    /// Addresses of the name that are not scanned, in the order of preference. Those that exceed
    /// [`limits::ADDRESSES_SCANNED_MAX`] follow in the order of the lookup.
    pub(super) other_addresses: Vec<IpAddr>,
    pub(super) state: JobState,
}

/// The state of a job.
#[derive(Debug)]
pub(super) enum JobState {
    /// The name is being looked up. The deadline of the resolver is armed. The result of the lookup
    /// ends this state.
    Resolving,
    /// The kernel determines a route to each address. No deadline is armed, because the results
    /// arrive within the same flush.
    Routing { candidates: Vec<RoutedAddress>, awaited: usize },
    /// Scans run, or have ended and wait for the removal of the job.
    Scanning { scans: Vec<ScanRef> },
}

impl Job {
    /// Selects the addresses of the target that may be scanned, whose routes are then awaited.
    pub(super) fn handle_addresses(
        &mut self,
        mut addresses: Vec<IpAddr>,
        policy: &Policy,
    ) -> Result<Vec<SocketAddr>, JobFailure> {
        assert!(matches!(self.state, JobState::Resolving), "a job's name is looked up once");
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
        self.state = JobState::Routing { candidates, awaited: targets.len() };
        Ok(targets)
    }

    /// Handles the route to one address. The last route returns the addresses to scan, in the order
    /// of preference.
    pub(super) fn handle_route(
        &mut self,
        address: IpAddr,
        route: RouteResult,
    ) -> Option<Vec<RoutedAddress>> {
        let JobState::Routing { candidates, awaited } = &mut self.state else {
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
    pub(super) fn plan(&self, candidate: RoutedAddress, share: RateShare) -> Plan {
        let request = &self.request;
        Plan {
            target: self.socket_address(candidate.address),
            is_routed: candidate.source.is_some(),
            ports: request.ports.clone(),
            options: request.options.divided(share.scans),
            share,
            ends_at: self.started_at + request.options.deadline,
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
    /// A run from the command line: the target in this place of its list.
    Batch(usize),
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

/// A removed job, with its scans in the order of their addresses.
#[derive(Debug)]
pub(super) struct EndedJob {
    pub(super) job: Job,
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
            let job = Job {
                request,
                owner: Owner::Batch(0),
                started_at: start,
                other_addresses: Vec::new(),
                state: JobState::Resolving,
            };
            let candidate = RoutedAddress { address: [192, 0, 2, 1].into(), source: None };
            let share = |index| RateShare { index, scans: addresses };
            let scan = |index| Scan::new(start, job.plan(candidate, share(index)));
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
