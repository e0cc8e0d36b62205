//! The plan of one scan: the target, the ports, the options and the deadline.
//!
//! `core` makes the plan, and `scan` carries it out.

use std::net::SocketAddr;
use std::time::Instant;

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
    /// The deadline at which the scan ends with its results so far.
    pub ends_at: Instant,
}

impl Plan {
    /// The maximum number of probes in flight; at least 1.
    pub const fn concurrency(&self) -> usize {
        match self.options.concurrency {
            Some(limit) => limit.get() as usize,
            None => self.ports.len(),
        }
    }
}
