//! The sets of ports of the targets of one command-line run. Targets with equal ports share one.

use std::collections::HashMap;

use crate::port_set::PortSet;

/// The ports of one target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TargetPorts<'a> {
    /// The lowest requested port, excluded or not.
    pub from_port: u16,
    /// The highest requested port, excluded or not.
    pub to_port: u16,
    /// The requested ports without the excluded ones, as ascending ranges.
    pub ranges: &'a [(u16, u16)],
}

/// The number of the set that all targets without ports of their own share.
pub(super) const COMMON: u32 = 0;

/// A set of ports as ascending ranges, which takes fewer bytes than a [`PortSet`].
type PortRanges = Box<[(u16, u16)]>;

/// Distinct sets of ports, each identified by a number.
#[derive(Clone, Debug)]
pub struct PortLists {
    exclude: PortSet,
    lists: Vec<PortList>,
    numbers: HashMap<PortRanges, u32>,
}

/// One set of ports.
#[derive(Clone, Debug)]
struct PortList {
    requested: PortRanges,
    /// The ports that are left after the exclusion; `None` if it removes none.
    left: Option<PortRanges>,
    /// The number of ports that are left.
    len: u32,
}

impl PortList {
    fn left(&self) -> &[(u16, u16)] {
        self.left.as_deref().unwrap_or(&self.requested)
    }
}

impl PortLists {
    pub(super) fn new(common: &PortSet, exclude: PortSet) -> Self {
        let mut lists = Self { exclude, lists: Vec::new(), numbers: HashMap::new() };
        let number = lists.intern(common);
        assert!(number == Some(COMMON), "the common ports come first");
        lists
    }

    /// The number of a set; `None` if the set is empty or no number is left.
    pub(super) fn intern(&mut self, ports: &PortSet) -> Option<u32> {
        let ranges: PortRanges = ports.ranges().collect();
        if let Some(number) = self.numbers.get(&ranges) {
            return Some(*number);
        }
        let mut left = ports.clone();
        left.subtract(&self.exclude);
        let len = left.len() as u32;
        let left = (left.len() < ports.len()).then(|| left.ranges().collect());
        let number = u32::try_from(self.lists.len()).ok()?;
        self.lists.push(PortList { requested: ranges.clone(), left, len });
        self.numbers.insert(ranges, number);
        Some(number)
    }

    /// The number of the union of these sets, of which there is at least one. The unions of only
    /// some of them are not kept: a host may be listed with a thousand ports, one on each line.
    pub(super) fn union(&mut self, numbers: &[u32]) -> u32 {
        let first = numbers[0];
        if numbers.iter().all(|number| *number == first) {
            return first;
        }
        let requested = numbers.iter().flat_map(|number| &self.lists[*number as usize].requested);
        let ports = PortSet::from_ranges(requested);
        self.intern(&ports).unwrap_or(first)
    }

    /// The number of ports in a set after the exclusion.
    pub fn len(&self, number: u32) -> u32 {
        self.lists[number as usize].len
    }

    /// The ports to scan for a target with this set. A sweep calls this for each of its targets.
    pub fn target_ports(&self, number: u32) -> TargetPorts<'_> {
        let list = &self.lists[number as usize];
        let from_port = list.requested.first().map_or(1, |(first, _)| *first);
        let to_port = list.requested.last().map_or(1, |(_, last)| *last);
        TargetPorts { from_port, to_port, ranges: list.left() }
    }

    /// Whether all ports of some set, after the exclusion, are among these. A set without a port
    /// does not count.
    pub(super) fn has_within(&self, ports: &PortSet) -> bool {
        // If each target has a set of its own, this function is called for each of the sets.
        let same = self.numbers.get(&ports.ranges().collect::<PortRanges>());
        if same.is_some_and(|number| self.len(*number) > 0) {
            return true;
        }
        self.lists.iter().filter(|list| list.len > 0).any(|list| {
            let mut left = PortSet::from_ranges(list.left());
            left.subtract(ports);
            left.is_empty()
        })
    }

    /// The ports of the sets with these numbers, after the exclusion. Some sets belong to no
    /// target: the common one if each target has ports of its own, and the parts of a union.
    pub(super) fn all(&self, numbers: impl Iterator<Item = u32>) -> PortSet {
        let mut is_used = vec![false; self.lists.len()];
        numbers.for_each(|number| is_used[number as usize] = true);
        let used = self.lists.iter().zip(is_used).filter(|(_, is_used)| *is_used);
        PortSet::from_ranges(used.flat_map(|(list, _)| list.left()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ports(text: &str) -> PortSet {
        PortSet::parse(text).unwrap()
    }

    #[test]
    fn a_union_adds_one_set_and_no_partial_unions() {
        let mut lists = PortLists::new(&ports("1"), PortSet::new());
        let numbers: Vec<u32> =
            (1..=100).map(|port| lists.intern(&PortSet::from_range(port, port)).unwrap()).collect();
        let before = lists.lists.len();
        let union = lists.union(&numbers);
        assert_eq!(lists.lists.len(), before + 1);
        assert_eq!(lists.target_ports(union).ranges, [(1, 100)]);
        assert_eq!(lists.union(&[union, union]), union, "the same set needs no other one");
        assert_eq!(lists.lists.len(), before + 1);
    }
}
