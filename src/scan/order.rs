//! The order in which a pass probes its ports: those that are often open, then the others.
//!
//! This order finds a responding port early, so that pings can measure the path from the start. The
//! other ports follow in ascending order. The order is not visible in the results, which are
//! sorted. `passes` and `scan` drive this module.

use super::loss::Stretch;
use crate::port_set::PortSet;
use crate::top_ports;

/// The number of popular ports: the ones that are open most often, which are probed first.
const POPULAR_LEN: usize = 32;
/// The number of ports up to which a scan probes its ports in ascending order. All of them are sent
/// within a short time anyway.
const ASCENDING_MAX: usize = 64;

/// The group of a port in the order of a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// The ports that are often open. They are probed before all others.
    Popular,
    /// The other ports, which follow in ascending order.
    Other,
}

/// The order of the ports of a scan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sorting {
    /// The popular ports come first, then the others in ascending order.
    PopularFirst,
    /// All ports are in ascending order.
    Ascending,
}

/// The ports of a pass that were not taken yet. The caller passes the set of ports to each call.
#[derive(Clone, Debug)]
pub(super) struct Order {
    /// The index of the next port in [`popular`]; the length of the list after the last one.
    popular: u8,
    /// The next of the other ports; `None` after the last one.
    next: Option<u16>,
    sorting: Sorting,
    /// The ranges of the other ports, in ascending order.
    ranges: Vec<(u16, u16)>,
    /// The index of the range that contains `next`.
    range: usize,
}

impl Order {
    /// The order of the first pass, which takes all ports.
    pub(super) fn first(ports: &PortSet) -> Self {
        let all_ports = vec![(0, u16::MAX)];
        if ports.len() > ASCENDING_MAX {
            Self::new(ports, Sorting::PopularFirst, Group::Popular, all_ports)
        } else {
            Self::new(ports, Sorting::Ascending, Group::Other, all_ports)
        }
    }

    /// The order of a further pass of the same scan, which takes the ports of these stretches.
    pub(super) fn for_stretches(&self, ports: &PortSet, stretches: &[Stretch]) -> Self {
        let has_popular = stretches.iter().any(|stretch| stretch.group == Group::Popular);
        let start = if has_popular { Group::Popular } else { Group::Other };
        let ranges = stretches.iter().filter(|stretch| stretch.group == Group::Other);
        let ranges = ranges.map(|stretch| (stretch.first, stretch.last)).collect();
        Self::new(ports, self.sorting, start, ranges)
    }

    fn new(ports: &PortSet, sorting: Sorting, start: Group, ranges: Vec<(u16, u16)>) -> Self {
        let popular = match start {
            Group::Popular => 0,
            Group::Other => POPULAR_LEN as u8,
        };
        let mut order = Self { popular, next: None, sorting, ranges, range: 0 };
        order.skip_absent(ports);
        order.next = order.other_from(ports, 0);
        order
    }

    /// Takes the next port.
    pub(super) fn pop(&mut self, ports: &PortSet) -> Option<u16> {
        if let Some(port) = popular().get(usize::from(self.popular)) {
            self.popular += 1;
            self.skip_absent(ports);
            return Some(*port);
        }
        let port = self.next?;
        self.next = self.other_from(ports, u32::from(port) + 1);
        Some(port)
    }

    /// Whether all ports were taken.
    pub(super) const fn is_empty(&self) -> bool {
        self.popular as usize >= POPULAR_LEN && self.next.is_none()
    }

    /// The number of ports that were not taken yet.
    pub(super) fn count(&self, ports: &PortSet) -> usize {
        let mut order = self.clone();
        std::iter::from_fn(|| order.pop(ports)).count()
    }

    /// The group of the port in this scan.
    pub(super) fn group(&self, port: u16) -> Group {
        match self.sorting {
            Sorting::PopularFirst if is_popular(port) => Group::Popular,
            Sorting::PopularFirst | Sorting::Ascending => Group::Other,
        }
    }

    fn skip_absent(&mut self, ports: &PortSet) {
        while popular().get(usize::from(self.popular)).is_some_and(|port| !ports.contains(*port)) {
            self.popular += 1;
        }
    }

    fn other_from(&mut self, ports: &PortSet, mut from: u32) -> Option<u16> {
        while let Some((first, last)) = self.ranges.get(self.range) {
            let port = ports.next_from(from.max(u32::from(*first)))?;
            if port > *last {
                self.range += 1;
            } else if self.group(port) == Group::Popular {
                from = u32::from(port) + 1;
            } else {
                return Some(port);
            }
        }
        None
    }
}

/// Whether the port is popular. A small table rejects most other ports without a search.
fn is_popular(port: u16) -> bool {
    const TABLE: [u64; 4] = {
        let (mut table, mut index) = ([0; 4], 0);
        while index < POPULAR_LEN {
            let port = top_ports::TOP_PORTS[index];
            table[port as usize / 64 % 4] |= 1 << (port % 64);
            index += 1;
        }
        table
    };
    TABLE[usize::from(port) / 64 % 4] >> (port % 64) & 1 == 1 && popular().contains(&port)
}

/// The popular ports, beginning with the one that is open most often.
fn popular() -> &'static [u16] {
    top_ports::top(POPULAR_LEN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_port_is_taken_once_and_popular_ports_come_first() {
        for (first, last) in [(1, 1), (80, 80), (1, 64), (1, 100), (60, 1024), (1, 65_535)] {
            let ports = PortSet::from_range(first, last);
            let mut order = Order::first(&ports);
            let mut taken = Vec::new();
            while !order.is_empty() {
                taken.push(order.pop(&ports).expect("the order is not empty"));
            }
            assert_eq!(order.pop(&ports), None);
            let first = popular().iter().filter(|port| ports.contains(**port)).count();
            if ports.len() > ASCENDING_MAX {
                assert!(taken[..first].iter().all(|port| popular().contains(port)));
                assert!(taken[first..].is_sorted());
            }
            taken.sort_unstable();
            assert_eq!(taken, ports.iter().collect::<Vec<_>>(), "{first}-{last}");
        }
    }
}
