//! A request to scan, as a query or a command line has it.
//!
//! Invariant: the request has a port, and `from_port <= to_port`.

use crate::host::Host;
use crate::port_set::PortSet;
use crate::scan::options::ScanOptions;

/// What to scan, and how: every value is valid, every default is filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScanRequest {
    /// The target.
    pub host: Host,
    /// The target as the client wrote it, for the answer.
    pub domain: Box<str>,
    /// The ports to scan, without those excluded; at least one.
    pub ports: PortSet,
    /// The lowest port asked for, excluded or not.
    pub from_port: u16,
    /// The highest port asked for, excluded or not.
    pub to_port: u16,
    /// How they are scanned.
    pub options: ScanOptions,
}
