//! The techniques for probing ports, and whether this process may use them.
//!
//! [`Technique::properties`] has everything in which the techniques differ outside of their
//! engines. This module has no state.

use std::ops::{Index, IndexMut};

/// The technique with which a port is probed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Technique {
    /// A connect(2), which needs no privilege.
    #[default]
    Connect,
    /// A SYN sent through a raw socket, which needs CAP_NET_RAW.
    Syn,
}

/// The properties of a technique.
#[derive(Debug)]
pub struct Properties {
    /// The word for the technique in parameters, flags, log records and metrics.
    pub label: &'static str,
    /// Whether this process must be permitted to send raw packets.
    pub needs_raw_access: bool,
    /// Whether each probe in flight has a descriptor of its own.
    pub has_descriptor: bool,
    /// The number of probes in flight of one process, regardless of any limit of the system.
    pub in_flight_max: usize,
    /// The memory that one probe in flight takes, in bytes.
    pub probe_bytes: u64,
    /// The number of probes started in one tick.
    pub launches_per_tick: usize,
    /// The number of overdue or surplus probes given up in one tick.
    pub closes_per_tick: usize,
}

const CONNECT: Properties = Properties {
    label: "connect",
    needs_raw_access: false,
    has_descriptor: true,
    // One for each port.
    in_flight_max: 65_536,
    // The kernel charges the socket to the control group, measured as 4,020 bytes on Linux 6.18,
    // and this process takes some 100 bytes itself; the rest is a margin for other kernels.
    probe_bytes: 4608,
    // At 7 to 10 µs each they occupy the loop for a third of a millisecond, which is the longest
    // delay for a health check.
    launches_per_tick: 32,
    closes_per_tick: 128,
};

const SYN: Properties = Properties {
    label: "syn",
    needs_raw_access: true,
    // All SYNs of a scan share one.
    has_descriptor: false,
    // At the default timeout of 2 s, 160,000 per second.
    in_flight_max: 5 * CONNECT.in_flight_max,
    probe_bytes: 128,
    // They are sent in one call, at some 1.5 µs each.
    launches_per_tick: 256,
    // At some 0.3 µs each. It is more than the number launched, because a silent SYN that stays
    // longer than its timeout is repeated once too often.
    closes_per_tick: 1024,
};

impl Technique {
    /// All techniques, in the order of their discriminants.
    pub const ALL: [Self; 2] = [Self::Connect, Self::Syn];

    /// Parses a label.
    ///
    /// # Errors
    /// One sentence that says which values are expected.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let found = Self::ALL.into_iter().find(|technique| technique.label() == text);
        found.ok_or(EXPECTED)
    }

    /// Everything in which the technique differs from others outside of its engine.
    pub const fn properties(self) -> &'static Properties {
        match self {
            Self::Connect => &CONNECT,
            Self::Syn => &SYN,
        }
    }

    /// The technique after this one. The first one follows the last one.
    pub const fn next(self) -> Self {
        Self::ALL[(self as usize + 1) % Self::ALL.len()]
    }

    /// See [`Properties::label`].
    pub const fn label(self) -> &'static str {
        self.properties().label
    }
}

/// The error of [`Technique::parse`].
const EXPECTED: &str = "must be connect or syn";

/// The techniques, as the help explains them.
pub const EXPLANATION: &str = "connect, or syn, which needs CAP_NET_RAW";

/// One value for each technique.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PerTechnique<T>([T; Technique::ALL.len()]);

impl<T> PerTechnique<T> {
    /// The values that `value` returns for each technique.
    pub fn new(value: impl FnMut(Technique) -> T) -> Self {
        Self(Technique::ALL.map(value))
    }

    /// The values, in the order of [`Technique::ALL`].
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter()
    }

    /// See [`PerTechnique::iter`].
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.0.iter_mut()
    }
}

impl<T> Index<Technique> for PerTechnique<T> {
    type Output = T;

    fn index(&self, technique: Technique) -> &T {
        &self.0[technique as usize]
    }
}

impl<T> IndexMut<Technique> for PerTechnique<T> {
    fn index_mut(&mut self, technique: Technique) -> &mut T {
        &mut self.0[technique as usize]
    }
}

/// Whether this process may send raw packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RawAccess {
    /// The process may send raw packets: a raw socket was opened and closed at the start.
    Permitted,
    /// The process may not send raw packets, or the permission was not checked.
    #[default]
    Denied,
}

/// The advice in error messages on how to grant the permission.
pub const RAW_ADVICE: &str = "grant CAP_NET_RAW: docker or podman run --cap-add NET_RAW, \
     capabilities.add [NET_RAW] in Kubernetes, or setcap cap_net_raw=p on the binary";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_technique_is_read_by_its_own_label() {
        for technique in Technique::ALL {
            assert_eq!(Technique::parse(technique.label()), Ok(technique));
        }
        for text in ["", "SYN", "syn ", "tcp"] {
            assert_eq!(Technique::parse(text), Err("must be connect or syn"));
        }
    }

    #[test]
    fn each_technique_has_its_own_value() {
        let mut labels = PerTechnique::new(Technique::label);
        for technique in Technique::ALL {
            assert_eq!(labels[technique], technique.label());
            labels[technique] = "another";
        }
        assert!(labels.iter().all(|label| *label == "another"));
    }
}
