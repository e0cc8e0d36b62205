//! Which state each port of one scan is in.
//!
//! Five sets of ports, one per state: a port that was asked for is in exactly one of them, from
//! the first moment to the last. It knows nothing of probes or time.

use crate::port_set::PortSet;

/// What a port came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortState {
    /// The handshake was completed.
    Open,
    /// A RST answered.
    Closed,
    /// Silent until the deadline, in every pass.
    Filtered,
    /// The network or a local policy said no.
    Unreachable,
    /// The scan ended first.
    Untested,
}

/// How many ports are in each state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Ports in [`PortState::Open`].
    pub open: u32,
    /// Ports in [`PortState::Closed`].
    pub closed: u32,
    /// Ports in [`PortState::Filtered`].
    pub filtered: u32,
    /// Ports in [`PortState::Unreachable`].
    pub unreachable: u32,
    /// Ports in [`PortState::Untested`].
    pub untested: u32,
}

impl Counts {
    /// The sum, state by state.
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

    /// All ports asked for.
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
    /// Every port untested.
    pub fn new(ports: PortSet) -> Self {
        Self {
            untested: ports,
            open: PortSet::new(),
            closed: PortSet::new(),
            filtered: PortSet::new(),
            unreachable: PortSet::new(),
        }
    }

    /// Moves a port that was untested or silent so far to its new state; the state it was in.
    pub fn classify(&mut self, port: u16, state: PortState) -> PortState {
        let was_untested = self.untested.remove(port);
        let was_filtered = self.filtered.remove(port);
        assert!(was_untested != was_filtered, "a port in flight is untested or silent so far");
        let set = match state {
            PortState::Open => &mut self.open,
            PortState::Closed => &mut self.closed,
            PortState::Filtered => &mut self.filtered,
            PortState::Unreachable => &mut self.unreachable,
            PortState::Untested => &mut self.untested,
        };
        let is_new = set.insert(port);
        assert!(is_new, "a port is in one state");
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

    /// How many ports are in each state.
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
