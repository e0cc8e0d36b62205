//! The plan of one scan: the target, the ports, the options and the deadline.
//!
//! `core` makes the plan, and `scan` carries it out.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::pacer::RateLimit;
use crate::port_set::PortSet;
use crate::scan::options::ScanOptions;

/// The plan of one scan.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The address of the target. Its port is not used.
    pub target: SocketAddr,
    /// Whether the kernel has a route and a source address towards the target. If not,
    /// EADDRNOTAVAIL means that the target is unreachable, and not that source ports are short.
    pub is_routed: bool,
    /// The ports to scan; at least one.
    pub ports: PortSet,
    /// The options of the scan.
    pub options: ScanOptions,
    /// The part of the rate in the options that this scan may use.
    pub share: RateShare,
    /// The deadline at which the scan ends with its results so far.
    pub ends_at: Instant,
}

/// The part of a requested rate that one of several scans may use: they launch in turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateShare {
    /// The number of the scan, counted from 0.
    pub index: u8,
    /// The number of scans that share the rate; at least 1.
    pub scans: u8,
}

impl RateShare {
    /// The whole rate.
    pub const WHOLE: Self = Self { index: 0, scans: 1 };
}

impl Plan {
    /// The rate limit of a scan that begins now, if a rate was requested.
    pub fn rate_limit(&self, now: Instant) -> Option<RateLimit> {
        let RateShare { index, scans } = self.share;
        self.options.rate.map(|rate| {
            let first_at = now + Duration::from_secs(index.into()) / rate.get();
            RateLimit::shared(rate, scans, (index > 0).then_some(first_at))
        })
    }

    /// The maximum number of probes in flight; at least 1.
    pub const fn concurrency(&self) -> usize {
        match self.options.concurrency {
            Some(limit) => limit.get() as usize,
            None => self.ports.len(),
        }
    }
}
