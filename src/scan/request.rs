//! A scan request from a query or a command line.
//!
//! `api` makes it from a query and `batch` from a command line, and `core` carries it out.
//!
//! Invariants: the request has at least one port; `from_port <= to_port`.

use crate::host::Host;
use crate::port_set::PortSet;
use crate::scan::options::ScanOptions;

/// A scan request. All its values are valid, and all defaults are filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScanRequest {
    /// The target.
    pub host: Host,
    /// The target as the client wrote it, for the answer.
    pub domain: Box<str>,
    /// The ports to scan, without the excluded ones; at least one.
    pub ports: PortSet,
    /// The lowest requested port, even if it is excluded.
    pub from_port: u16,
    /// The highest requested port, even if it is excluded.
    pub to_port: u16,
    /// The options of the scan.
    pub options: ScanOptions,
}
