//! From a job and one of its addresses to the plan of a scan.

use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::num::NonZeroU32;

use super::jobs::Job;
use crate::address::Candidate;
use crate::scan::plan::Plan;
use crate::target::Host;

/// The zone of an IPv6 literal; 0 where there is none.
pub(super) const fn scope_of(host: &Host) -> u32 {
    match host {
        Host::Address(_, scope) => *scope,
        Host::Name(_) => 0,
    }
}

pub(super) fn with_scope(address: IpAddr, scope: u32) -> SocketAddr {
    match address {
        IpAddr::V4(_) => SocketAddr::new(address, 0),
        IpAddr::V6(address) => SocketAddrV6::new(address, 0, 0, scope).into(),
    }
}

/// What one of `share` scans of a job is to do: they divide concurrency and rate.
pub(super) fn plan(job: &Job, candidate: Candidate, share: usize) -> Plan {
    let request = &job.request;
    let asked = request.concurrency.map_or(request.ports.len(), |most| most.get().into());
    let share_of_rate = u32::try_from(share).unwrap_or(u32::MAX);
    Plan {
        target: with_scope(candidate.address, scope_of(&request.host)),
        is_routed: candidate.source.is_some(),
        ports: request.ports.clone(),
        timeout: request.timeout,
        retries: request.retries,
        concurrency: (asked / share).max(1),
        rate: request
            .rate
            .map(|rate| NonZeroU32::new(rate.get() / share_of_rate).unwrap_or(NonZeroU32::MIN)),
        ends_at: job.ends_at(),
    }
}
