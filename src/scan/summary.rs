//! The result of a whole scan, for whatever reports it.
//!
//! `api` writes it as JSON, text and CSV, `batch` as a table and in the formats of other scanners.

use std::net::IpAddr;
use std::time::Duration;

use crate::port_set::PortSet;
use crate::scan::ledger::Counts;
use crate::service_names::Names;

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
    /// Whether every port was tried as planned, all passes included.
    pub complete: bool,
    /// How many probes were sent again because the first stayed silent.
    pub retried: u32,
    /// Whether some answer came so late that a packet must have been lost.
    pub loss_suspected: bool,
    /// The share of exchanges (a SYN and its answer) that were lost, 0 to 1; `None` if nothing
    /// ever responded. Of several addresses, the highest.
    pub loss: Option<f64>,
    /// How long the scan took; reported in whole milliseconds.
    pub elapsed: Duration,
    /// The closed ports, where `include` asked for them.
    pub closed: Option<&'a PortSet>,
    /// The filtered ports, where `include` asked for them.
    pub filtered: Option<&'a PortSet>,
    /// The unreachable ports, where `include` asked for them.
    pub unreachable: Option<&'a PortSet>,
    /// What is usually behind the open ports, where `include` asked for it.
    pub services: Option<Services<'a>>,
    /// The result of each address, with `addresses=all`; `None` without it.
    pub results: Option<&'a [AddressResult<'a>]>,
    /// Details that only some forms contain.
    pub details: Details<'a>,
}

/// Details that only some forms contain.
#[derive(Clone, Copy, Debug, Default)]
pub struct Details<'a> {
    /// Addresses of the name that were not scanned, in the order of preference.
    pub other_addresses: &'a [IpAddr],
    /// The ports of each address by state, for CSV; empty for other forms.
    pub by_address: &'a [AddressPorts<'a>],
    /// Round trips of open ports, ascending by address and port, as far as they are known.
    pub rtts: &'a [OpenRtt],
}

/// The ports of one address by state.
#[derive(Clone, Copy, Debug)]
pub struct AddressPorts<'a> {
    /// The address.
    pub address: IpAddr,
    /// Its open ports.
    pub open: &'a PortSet,
    /// Its closed ports, where `include` asked for them.
    pub closed: Option<&'a PortSet>,
    /// Its filtered ports, likewise.
    pub filtered: Option<&'a PortSet>,
    /// Its unreachable ports, likewise.
    pub unreachable: Option<&'a PortSet>,
}

/// How long an open port took to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct OpenRtt {
    /// The address.
    pub address: IpAddr,
    /// The port.
    pub port: u16,
    /// From SYN to handshake.
    pub rtt: Duration,
}

/// What is usually behind open ports: of those ports that have a name.
#[derive(Clone, Copy, Debug)]
pub struct Services<'a> {
    /// The open ports.
    pub open: &'a PortSet,
    /// What services are called.
    pub names: &'a Names,
}

/// The result of one address of several.
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
    pub fn check(&self) {
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
