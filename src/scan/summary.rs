//! What a scan came to: whatever is told at its end, and to whomever.
//!
//! Borrowed from whoever scanned. [`super::ending`] writes it as JSON and text, `batch::table` as a
//! table.

use std::net::IpAddr;
use std::time::Duration;

use crate::names::Names;
use crate::scan::ledger::Counts;
use crate::target::PortSet;

/// The outcome of a whole scan.
#[derive(Clone, Debug)]
pub struct Summary<'a> {
    /// The lowest port asked for.
    pub from_port: u16,
    /// The highest port asked for.
    pub to_port: u16,
    /// The target as the client wrote it.
    pub domain: &'a str,
    /// The open ports; of all addresses together, if several were scanned.
    pub open: &'a PortSet,
    /// The address scanned; the first, if several were.
    pub address: IpAddr,
    /// The ports by state; the sum over all addresses, if several were scanned.
    pub counts: Counts,
    /// True exactly when every port was tried as planned, all passes included.
    pub complete: bool,
    /// How many probes were sent again because the first stayed silent.
    pub retried: u32,
    /// True exactly when some answer came so late that a packet must have been lost.
    pub loss_suspected: bool,
    /// How long the scan took; told in whole milliseconds.
    pub elapsed: Duration,
    /// The closed ports, where `include` asked for them.
    pub closed: Option<&'a PortSet>,
    /// The filtered ports, where `include` asked for them.
    pub filtered: Option<&'a PortSet>,
    /// The unreachable ports, where `include` asked for them.
    pub unreachable: Option<&'a PortSet>,
    /// What is usually behind the open ports, where `include` asked for it.
    pub services: Option<Services<'a>>,
    /// What each address came to, with `addresses=all`; `None` without it.
    pub results: Option<&'a [AddressResult<'a>]>,
}

/// What is usually behind open ports: of those ports that have a name.
#[derive(Clone, Copy, Debug)]
pub struct Services<'a> {
    /// The open ports.
    pub open: &'a PortSet,
    /// What services are called.
    pub names: &'a Names,
}

/// What one address of several came to.
#[derive(Clone, Debug)]
pub struct AddressResult<'a> {
    /// The address.
    pub address: IpAddr,
    /// Its open ports.
    pub open: &'a PortSet,
    /// Its ports by state.
    pub counts: Counts,
}

impl Summary<'_> {
    /// What must hold whatever was scanned.
    pub(super) fn check(&self) {
        assert!(self.from_port <= self.to_port, "1: a scan has a port");
        assert!(!self.complete || self.counts.untested == 0, "2: complete means all tested");
        let is_named = self.services.is_none_or(|services| services.open == self.open);
        assert!(is_named, "7: services are those of the open ports");
        if self.results.is_none() {
            // With several addresses the sets are unions, and the counts are not.
            let counted = |count: u32, ports: Option<&PortSet>| {
                ports.is_none_or(|ports| ports.len() == count as usize)
            };
            assert!(counted(self.counts.open, Some(self.open)), "3: open ports are counted");
            assert!(counted(self.counts.closed, self.closed), "4: closed ports are counted");
            assert!(counted(self.counts.filtered, self.filtered), "5: filtered ones too");
            assert!(counted(self.counts.unreachable, self.unreachable), "6: unreachable ones too");
        }
    }
}
