//! The result of a whole scan, for the modules that report it.
//!
//! `core` makes it. `api` writes it as JSON, text and CSV, and `batch` as a table and in the
//! formats of other scanners.

use std::net::IpAddr;
use std::time::Duration;

use crate::port_set::PortSet;
use crate::scan::ledger::Counts;
use crate::service_names::Names;

/// The result of a whole scan.
#[derive(Clone, Debug)]
pub struct Summary<'a> {
    /// The lowest requested port.
    pub from_port: u16,
    /// The highest requested port.
    pub to_port: u16,
    /// The target as the client wrote it.
    pub domain: &'a str,
    /// The open ports. If several addresses were scanned, a port that is open at any of them.
    pub open: &'a PortSet,
    /// The scanned address; the first one if several were scanned.
    pub address: IpAddr,
    /// The number of ports in each state; the sum over all addresses if several were scanned.
    pub counts: Counts,
    /// Whether all planned passes were finished.
    pub complete: bool,
    /// The number of ports that were probed again because they had stayed silent.
    pub retried: u32,
    /// Whether at least one exchange (a SYN and its answer) was lost.
    pub loss_suspected: bool,
    /// The share of exchanges that were lost, 0 to 1; `None` if it is unknown. The highest one if
    /// several addresses were scanned.
    pub loss: Option<f64>,
    /// The duration of the scan. It is reported in whole milliseconds.
    pub elapsed: Duration,
    /// The closed ports, if `include` requests them.
    pub closed: Option<&'a PortSet>,
    /// The filtered ports, if `include` requests them.
    pub filtered: Option<&'a PortSet>,
    /// The unreachable ports, if `include` requests them.
    pub unreachable: Option<&'a PortSet>,
    /// The usual services of the open ports, if `include` requests them.
    pub services: Option<Services<'a>>,
    /// The result of each address, with `addresses=all`; `None` without it.
    pub results: Option<&'a [AddressResult<'a>]>,
    /// Details that only some forms of the answer contain.
    pub details: Details<'a>,
}

/// Details that only some forms of the answer contain.
#[derive(Clone, Copy, Debug, Default)]
pub struct Details<'a> {
    /// The addresses of the name that were not scanned, in the order of preference.
    pub other_addresses: &'a [IpAddr],
    /// The ports of each address by state, for forms with one line per port; otherwise empty.
    pub by_address: &'a [AddressPorts<'a>],
    /// The known response times of open ports, in ascending order of address and port.
    pub rtts: &'a [OpenRtt],
}

/// The ports of one address by state.
#[derive(Clone, Copy, Debug)]
pub struct AddressPorts<'a> {
    /// The address.
    pub address: IpAddr,
    /// Its open ports.
    pub open: &'a PortSet,
    /// Its closed ports, if `include` requests them.
    pub closed: Option<&'a PortSet>,
    /// Its filtered ports, if `include` requests them.
    pub filtered: Option<&'a PortSet>,
    /// Its unreachable ports, if `include` requests them.
    pub unreachable: Option<&'a PortSet>,
}

/// The response time of an open port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct OpenRtt {
    /// The address.
    pub address: IpAddr,
    /// The port.
    pub port: u16,
    /// The time from the start of the probe to the completed handshake.
    pub rtt: Duration,
}

/// The usual services of open ports. A port without a service name is left out.
#[derive(Clone, Copy, Debug)]
pub struct Services<'a> {
    /// The open ports.
    pub open: &'a PortSet,
    /// The names of services by port.
    pub names: &'a Names,
}

/// The result of one of several addresses.
#[derive(Clone, Debug)]
pub struct AddressResult<'a> {
    /// The address.
    pub address: IpAddr,
    /// Its open ports.
    pub open: &'a PortSet,
    /// The number of its ports in each state.
    pub counts: Counts,
}

impl Summary<'_> {
    /// Panics if the parts of the result contradict each other.
    pub fn check(&self) {
        assert!(self.from_port <= self.to_port, "1: a scan has at least one port");
        assert!(
            !self.complete || self.counts.untested == 0,
            "2: complete means that all ports were tested"
        );
        let is_named = self.services.is_none_or(|services| services.open == self.open);
        assert!(is_named, "7: the services belong to the open ports");
        if self.results.is_none() {
            // With several addresses the sets are unions, while the counts are sums.
            let is_counted = |count: u32, ports: Option<&PortSet>| {
                ports.is_none_or(|ports| ports.len() == count as usize)
            };
            let Counts { open, closed, filtered, unreachable, .. } = self.counts;
            assert!(is_counted(open, Some(self.open)), "3: all open ports are counted");
            assert!(is_counted(closed, self.closed), "4: all closed ports are counted");
            assert!(is_counted(filtered, self.filtered), "5: all filtered ports are counted");
            assert!(is_counted(unreachable, self.unreachable), "6: all unreachable ones are");
        }
    }
}
