//! The targets of one command-line run: read as a whole, counted, and generated one by one.
//!
//! Networks and ranges are not expanded: `10.0.0.0/8` takes no more memory than one address. A
//! target that is listed twice, or is in several networks, is scanned once, for the union of the
//! requested ports.
//!
//! [`super::list::TargetList`] collects targets, exclusions and the targets that an earlier run has
//! finished, and its `finish` makes [`Targets`] of them. [`Targets::next`] iterates over them:
//! names in the order of the list, then addresses in ascending order. The order is the same on all
//! machines with the same lists, as [`crate::batch::shard`] requires.
//!
//! Invariants: every target has a port, no two targets are the same, and all targets together have
//! fewer than 2^62 ports.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::list::NameList;
use super::port_lists::{PortLists, TargetPorts};
use super::segments::{AddressSegment, contains};
use crate::host::Host;
use crate::policy::readings;
use crate::port_set::PortSet;

/// Targets without duplicates and exclusions.
#[derive(Clone, Debug)]
pub struct Targets {
    pub(super) names: NameList,
    pub(super) v4: Vec<AddressSegment<u32>>,
    pub(super) v6: Vec<AddressSegment<u128>>,
    pub(super) ports: PortLists,
    pub(super) finished: Finished,
    pub(super) excluded_v4: Vec<AddressSegment<u32>>,
    pub(super) excluded_v6: Vec<AddressSegment<u128>>,
    pub(super) len: u64,
    pub(super) ports_len: u64,
    pub(super) faults: Vec<String>,
    /// A note for the user that is printed once: a network was written with host bits.
    pub(super) note: Option<String>,
    /// The addresses that were written in another form than the usual one, and this form.
    pub(super) spellings: BTreeMap<Box<str>, Box<str>>,
}

/// The targets that an earlier run has finished. The iteration includes them, and they are not
/// scanned again.
#[derive(Clone, Debug, Default)]
pub struct Finished {
    pub(super) names: HashSet<Box<str>>,
    pub(super) v4: Vec<AddressSegment<u32>>,
    pub(super) v6: Vec<AddressSegment<u128>>,
}

/// The host of a target, in a few bytes. No two targets have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TargetId {
    /// The name at this position in the list of names.
    Name(u32),
    /// An address that is listed itself.
    Address(IpAddr),
    /// An address of a network or a range.
    Member(IpAddr),
}

impl TargetId {
    /// Whether the target must be looked up.
    pub const fn is_name(self) -> bool {
        matches!(self, Self::Name(_))
    }
}

/// A target, and the position of its ports in the space of all ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// The host of the target.
    pub id: TargetId,
    /// The index of its lowest port, see [`crate::batch::shard`].
    pub first: u64,
    /// Whether an earlier run has finished it.
    pub is_finished: bool,
    ports: u32,
}

/// The position of [`Targets::next`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Cursor {
    names: usize,
    v4: Walk,
    v6: Walk,
    /// The number of targets passed.
    targets: u64,
    /// The number of their ports.
    index: u64,
}

/// A position in a list of segments.
#[derive(Clone, Copy, Debug, Default)]
struct Walk {
    segment: usize,
    offset: u128,
}

/// The constructor [`TargetId::Address`] or [`TargetId::Member`].
type Kind = fn(IpAddr) -> TargetId;

impl Walk {
    /// The next address as a number, the constructor of its target, and its ports.
    fn next<A: Copy + Into<u128>>(
        &mut self,
        segments: &[AddressSegment<A>],
    ) -> Option<(u128, Kind, u32)> {
        let segment = segments.get(self.segment)?;
        let address = segment.first.into() + self.offset;
        let len = segment.len();
        self.offset += 1;
        if self.offset == len {
            *self = Self { segment: self.segment + 1, offset: 0 };
        }
        let kind: Kind = if len > 1 { TargetId::Member } else { TargetId::Address };
        Some((address, kind, segment.ports))
    }
}

impl Cursor {
    /// The number of targets passed.
    pub const fn targets(&self) -> u64 {
        self.targets
    }
}

impl Targets {
    /// The next target; `None` after the last one.
    pub fn next(&self, cursor: &mut Cursor) -> Option<Target> {
        let (id, ports, is_finished) = if let Some(ports) = self.names.ports(cursor.names) {
            cursor.names += 1;
            let place = cursor.names - 1;
            let name = self.names.text(place).to_ascii_lowercase();
            (TargetId::Name(place as u32), ports, self.finished.names.contains(&*name))
        } else if let Some((bits, kind, ports)) = cursor.v4.next(&self.v4) {
            // The bits of an IPv4 address fit into 32 bits.
            let bits = bits as u32;
            let is_finished = contains(&self.finished.v4, bits);
            (kind(Ipv4Addr::from_bits(bits).into()), ports, is_finished)
        } else {
            let (bits, kind, ports) = cursor.v6.next(&self.v6)?;
            let is_finished = contains(&self.finished.v6, bits);
            (kind(Ipv6Addr::from_bits(bits).into()), ports, is_finished)
        };
        let target = Target { id, first: cursor.index, is_finished, ports };
        cursor.targets += 1;
        cursor.index += u64::from(self.ports.len(ports));
        assert!(cursor.index <= self.ports_len, "no target is beyond the last");
        Some(target)
    }

    /// The ports to scan for a target.
    pub fn target_ports(&self, target: &Target) -> TargetPorts<'_> {
        self.ports.target_ports(target.ports)
    }

    /// The text of a target as written, without its port.
    pub fn domain(&self, id: TargetId) -> Cow<'_, str> {
        let usual = match id {
            TargetId::Name(place) => Cow::Borrowed(self.names.text(place as usize)),
            TargetId::Address(address) | TargetId::Member(address) => {
                Cow::Owned(address.to_string())
            }
        };
        self.spellings.get(&*usual).map_or(usual, |written| Cow::Borrowed(written))
    }

    /// The parsed form of a target.
    pub fn host(&self, id: TargetId) -> Option<Host> {
        match id {
            // This text was parsed before.
            TargetId::Name(place) => Host::parse(self.names.text(place as usize)).ok(),
            TargetId::Address(address) | TargetId::Member(address) => {
                Some(Host::Address(address, 0))
            }
        }
    }

    /// The number of targets.
    pub const fn len(&self) -> u64 {
        self.len
    }

    /// The number of targets that are names, which must be looked up.
    pub const fn names_len(&self) -> usize {
        self.names.len()
    }

    /// Whether there are no targets.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The number of ports of all targets together.
    pub const fn ports_len(&self) -> u64 {
        self.ports_len
    }

    /// The ports that are scanned for at least one target.
    pub fn all_ports(&self) -> PortSet {
        let v4 = self.v4.iter().map(|it| it.ports);
        let v6 = self.v6.iter().map(|it| it.ports);
        self.ports.all(self.names.kinds().chain(v4).chain(v6))
    }

    /// Whether `--exclude-targets` excludes an address, in one of the readings of the policy.
    pub fn excludes(&self, address: IpAddr) -> bool {
        readings(address).into_iter().any(|reading| match reading {
            IpAddr::V4(v4) => contains(&self.excluded_v4, v4.to_bits()),
            IpAddr::V6(v6) => contains(&self.excluded_v6, v6.to_bits()),
        })
    }

    /// The messages about faulty targets, or about the lack of targets.
    pub fn faults(&self) -> &[String] {
        &self.faults
    }

    /// One sentence that is to be printed once, if there is one.
    pub fn note(&self) -> Option<&str> {
        self.note.as_deref()
    }
}
