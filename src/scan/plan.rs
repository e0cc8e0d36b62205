//! What one scan is to do: the target, the ports, the deadlines, the bounds.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::time::Instant;

use crate::target::{PortSet, Retries, Timeout};

/// What is to be scanned, and how.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The address; its port is of no meaning.
    pub target: SocketAddr,
    /// False exactly when the kernel has no route or no source address towards the target: then
    /// EADDRNOTAVAIL is the network's word, not a shortage.
    pub is_routed: bool,
    /// The ports, not empty.
    pub ports: PortSet,
    /// Each connect's deadline.
    pub timeout: Timeout,
    /// Further passes over silent ports.
    pub retries: Retries,
    /// Connects in flight at most; at least 1.
    pub concurrency: usize,
    /// New connects per second at most.
    pub rate: Option<NonZeroU32>,
    /// When the scan ends with what it has.
    pub ends_at: Instant,
}
