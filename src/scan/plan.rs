//! What one scan is to do: the target, the ports, the deadlines, the bounds.

use std::net::SocketAddr;
use std::time::Instant;

use crate::port_set::PortSet;
use crate::scan::options::ScanOptions;

/// What is to be scanned, and how.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The address; its port is of no meaning.
    pub target: SocketAddr,
    /// False if the kernel has no route or no source address towards the target: then
    /// EADDRNOTAVAIL comes from the network and is no shortage.
    pub is_routed: bool,
    /// The ports, not empty.
    pub ports: PortSet,
    /// How they are scanned.
    pub options: ScanOptions,
    /// When the scan ends with what it has.
    pub ends_at: Instant,
}

impl Plan {
    /// Connects in flight at most; at least 1.
    pub const fn concurrency(&self) -> usize {
        match self.options.concurrency {
            Some(most) => most.get() as usize,
            None => self.ports.len(),
        }
    }
}
