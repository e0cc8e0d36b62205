//! What a port can come to, and how many came to what.

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
