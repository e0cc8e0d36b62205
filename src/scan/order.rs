//! The order in which a pass probes its ports: those that are often open, then the others.
//!
//! This order finds a responding port early, so that pings can measure the path from the start. The
//! other ports follow in ascending order, or in a scattered order if they are many. A scattered
//! order spreads a range of silent ports over the whole pass. Therefore about the same share of the
//! SYNs is answered at each time, and a smaller share shows loss ([`share`](super::share)). The
//! order is not visible in the results, which are sorted. `passes` and `scan` drive this module.

use super::loss::Stretch;
use crate::port_set::PortSet;
use crate::top_ports;

/// The number of popular ports: the ones that are open most often, which are probed first.
const POPULAR_LEN: usize = 32;
/// The number of ports up to which a scan probes its ports in ascending order. All of them are sent
/// within a short time anyway.
const ASCENDING_MAX: usize = 64;
/// The number of ports up to which the other ports follow in ascending order. The scattered order
/// tests 65,536 positions, which is too much work for a few ports.
const UNSCATTERED_MAX: usize = 1024;
/// The distance between the ports of successive positions in the scattered order, modulo 65,536.
/// Its ratio to 65,536 is close to the golden ratio, so any number of successive positions is
/// spread evenly over the ports.
const STRIDE: u16 = 40_503;
/// The distance between the positions of successive ports: the inverse of [`STRIDE`].
const STRIDE_INVERSE: u16 = 30_599;

const _: () = assert!(STRIDE.wrapping_mul(STRIDE_INVERSE) == 1, "each port has one position");

/// Whether a scan of this number of ports of another machine probes them in scattered order.
pub(super) const fn scatters(ports: usize) -> bool {
    ports > UNSCATTERED_MAX
}

/// The group of a port in the order of a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// The ports that are often open. They are probed before all others.
    Popular,
    /// The other ports, which follow in ascending or scattered order.
    Other,
}

/// The order of the ports of a scan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sorting {
    /// The popular ports come first, then the others in scattered order.
    PopularThenScattered,
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
    /// The position of the next of the other ports; `None` after the last one.
    next: Option<u16>,
    sorting: Sorting,
    /// The ranges of the positions of the other ports, in ascending order.
    ranges: Vec<(u16, u16)>,
    /// The index of the range that contains `next`.
    range: usize,
}

impl Order {
    /// The order of the first pass, which takes all ports.
    pub(super) fn first(ports: &PortSet) -> Self {
        if scatters(ports.len()) {
            let all = vec![(0, u16::MAX)];
            return Self::new(ports, Sorting::PopularThenScattered, Group::Popular, all);
        }
        Self::unscattered(ports)
    }

    /// The same for a target whose path needs no measurement, such as this machine. Finding each
    /// port in scattered order costs time.
    pub(super) fn unscattered(ports: &PortSet) -> Self {
        let (sorting, start) = if ports.len() > ASCENDING_MAX {
            (Sorting::PopularFirst, Group::Popular)
        } else {
            (Sorting::Ascending, Group::Other)
        };
        Self::new(ports, sorting, start, vec![(0, u16::MAX)])
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
        let position = self.next?;
        self.next = self.other_from(ports, u32::from(position) + 1);
        Some(self.port_at(position))
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
            Sorting::Ascending => Group::Other,
            Sorting::PopularThenScattered | Sorting::PopularFirst if is_popular(port) => {
                Group::Popular
            }
            Sorting::PopularThenScattered | Sorting::PopularFirst => Group::Other,
        }
    }

    /// The position of the port in the order of the other ports.
    pub(super) const fn position(&self, port: u16) -> u16 {
        if self.is_scattered() { port.wrapping_mul(STRIDE_INVERSE) } else { port }
    }

    /// Whether the port is among those that are probed in scattered order.
    pub(super) fn is_scattered_at(&self, port: u16) -> bool {
        self.is_scattered() && self.group(port) == Group::Other
    }

    const fn is_scattered(&self) -> bool {
        matches!(self.sorting, Sorting::PopularThenScattered)
    }

    const fn port_at(&self, position: u16) -> u16 {
        if self.is_scattered() { position.wrapping_mul(STRIDE) } else { position }
    }

    fn skip_absent(&mut self, ports: &PortSet) {
        while popular().get(usize::from(self.popular)).is_some_and(|port| !ports.contains(*port)) {
            self.popular += 1;
        }
    }

    /// The position of the first of the other ports that is not below `from`.
    fn other_from(&mut self, ports: &PortSet, mut from: u32) -> Option<u16> {
        while let Some((first, last)) = self.ranges.get(self.range) {
            let position = self.present_from(ports, from.max(u32::from(*first)))?;
            if position > *last {
                self.range += 1;
            } else if self.group(self.port_at(position)) == Group::Popular {
                from = u32::from(position) + 1;
            } else {
                return Some(position);
            }
        }
        None
    }

    /// The first position from `from` on whose port is in the set.
    fn present_from(&self, ports: &PortSet, from: u32) -> Option<u16> {
        if !self.is_scattered() {
            return ports.next_from(from);
        }
        let from = u16::try_from(from).ok()?;
        (from..=u16::MAX).find(|position| ports.contains(self.port_at(*position)))
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
    fn a_range_of_ports_is_spread_evenly_over_a_scattered_order() {
        let ports = PortSet::from_range(1, 65_535);
        let mut order = Order::first(&ports);
        let taken: Vec<u16> = std::iter::from_fn(|| order.pop(&ports)).collect();
        for range in [1..=8_192, 20_000..=29_999, 60_000..=65_535] {
            let expected = 1_000.0 * range.len() as f64 / 65_536.0;
            for window in taken[POPULAR_LEN..].windows(1_000).step_by(500) {
                let count = window.iter().filter(|port| range.contains(*port)).count() as f64;
                assert!((count - expected).abs() < 6.0, "{range:?}: {count} of {expected}");
            }
        }
        assert!(!order.is_scattered_at(popular()[0]), "popular ports come first");
        assert!(order.is_scattered_at(65_535));
        let few = Order::first(&PortSet::from_range(1, 1_024));
        assert_eq!((few.position(700), few.is_scattered_at(700)), (700, false));
    }

    #[test]
    fn every_port_is_taken_once_and_popular_ports_come_first() {
        for (first, last) in
            [(1, 1), (80, 80), (1, 64), (1, 100), (60, 1024), (60, 1084), (1, 65_535)]
        {
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
                assert!(taken[first..].is_sorted_by_key(|port| order.position(*port)));
            }
            taken.sort_unstable();
            assert_eq!(taken, ports.iter().collect::<Vec<_>>(), "{first}-{last}");
        }
    }
}
