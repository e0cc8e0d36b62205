//! The kernel's counters of packets that this machine dropped before they left.
//!
//! `connect` does not report such a drop (`tcp_connect` in the kernel passes on ECONNREFUSED only),
//! so the core reads the counters. One reading contains both families, IPv4 first.

use std::net::IpAddr;

/// One reading of the counters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LocalDrops {
    /// The neighbour tables of IPv4 and IPv6; `None` if the kernel does not report one.
    pub tables: [Option<NeighbourTable>; 2],
    /// The addresses of this machine's interfaces with the lengths of their prefixes. Empty while
    /// no table is half full.
    pub networks: Vec<(IpAddr, u8)>,
    /// The number of packets that connection tracking has dropped since the start of the machine; 0
    /// if there is no connection tracking, and `None` if the counter could not be read.
    pub conntrack: Option<u64>,
    /// The number of packets that the queueing disciplines of all interfaces have dropped since
    /// they were set up.
    pub queues: u64,
}

/// The table of one family, which all network namespaces share.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NeighbourTable {
    /// The number of entries above which further entries are refused (gc_thresh3).
    pub entries_max: u32,
    /// The number of entries that the kernel would not discard to free space for another one.
    pub used: u32,
    /// The number of entries that were refused since the start of the machine.
    pub refused: u64,
}

/// The index of an address's family in [`LocalDrops::tables`].
pub fn family_index(address: IpAddr) -> usize {
    usize::from(address.is_ipv6())
}
