//! The states of the ports of one scan.
//!
//! There is one set of ports per state, and each requested port is always in exactly one of the
//! five sets. This module knows neither probes nor time. `scan` drives it.

use crate::port_set::PortSet;

/// The state of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortState {
    /// The handshake was completed.
    Open,
    /// The host answered with a RST.
    Closed,
    /// No answer came until the deadline, in any pass so far.
    Filtered,
    /// The network or a local policy rejected the probe.
    Unreachable,
    /// The port has no result yet, or the scan ended before it had one.
    Untested,
}

/// The number of ports in each state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// The number of ports in [`PortState::Open`].
    pub open: u32,
    /// The number of ports in [`PortState::Closed`].
    pub closed: u32,
    /// The number of ports in [`PortState::Filtered`].
    pub filtered: u32,
    /// The number of ports in [`PortState::Unreachable`].
    pub unreachable: u32,
    /// The number of ports in [`PortState::Untested`].
    pub untested: u32,
}

impl Counts {
    /// The sum for each state.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self {
            open: self.open + other.open,
            closed: self.closed + other.closed,
            filtered: self.filtered + other.filtered,
            unreachable: self.unreachable + other.unreachable,
            untested: self.untested + other.untested,
        }
    }

    /// The number of all requested ports.
    pub const fn total(&self) -> u32 {
        self.open + self.closed + self.filtered + self.unreachable + self.untested
    }
}

/// The states of all ports of one scan.
#[derive(Debug)]
pub struct Ledger {
    untested: PortSet,
    open: PortSet,
    closed: PortSet,
    filtered: PortSet,
    unreachable: PortSet,
}

impl Ledger {
    /// The states before the first probe: all ports are untested.
    pub fn new(ports: PortSet) -> Self {
        Self {
            untested: ports,
            open: PortSet::new(),
            closed: PortSet::new(),
            filtered: PortSet::new(),
            unreachable: PortSet::new(),
        }
    }

    /// Moves an untested or filtered port to its new state. Returns its previous state.
    pub fn classify(&mut self, port: u16, state: PortState) -> PortState {
        let was_untested = self.untested.remove(port);
        let was_filtered = self.filtered.remove(port);
        assert!(was_untested != was_filtered, "a port that is probed was untested or filtered");
        let set = match state {
            PortState::Open => &mut self.open,
            PortState::Closed => &mut self.closed,
            PortState::Filtered => &mut self.filtered,
            PortState::Unreachable => &mut self.unreachable,
            PortState::Untested => &mut self.untested,
        };
        let is_new = set.insert(port);
        assert!(is_new, "a port is in exactly one state");
        if was_untested { PortState::Untested } else { PortState::Filtered }
    }

    /// The ports in a state.
    pub const fn ports(&self, state: PortState) -> &PortSet {
        match state {
            PortState::Open => &self.open,
            PortState::Closed => &self.closed,
            PortState::Filtered => &self.filtered,
            PortState::Unreachable => &self.unreachable,
            PortState::Untested => &self.untested,
        }
    }

    /// The number of ports in each state.
    pub const fn counts(&self) -> Counts {
        Counts {
            open: self.open.len() as u32,
            closed: self.closed.len() as u32,
            filtered: self.filtered.len() as u32,
            unreachable: self.unreachable.len() as u32,
            untested: self.untested.len() as u32,
        }
    }
}
