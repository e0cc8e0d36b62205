//! Records which ports of one address were delivered to the reader of a stream.
//!
//! The state of a port is delivered once. A silent port may get another state in a later pass,
//! which is delivered then; all other states are final. Nothing is queued: the undelivered ports
//! are the difference between the sets of the scan and the sets here, so a slow reader costs 8 KB
//! for each set and loses nothing. `streams` drives this module.

use std::net::IpAddr;

use crate::port_set::PortSet;
use crate::scan::ledger::PortState;
use crate::scan::options::Include;

/// The delivered ports of one address.
#[derive(Debug)]
pub(super) struct Delivered {
    pub(super) address: IpAddr,
    /// Open ports that were found while the reader was slow. They are delivered as soon as it reads
    /// again.
    deferred: PortSet,
    closed: Option<PortSet>,
    /// Ports that were delivered as filtered, even if their state has changed since.
    filtered: Option<PortSet>,
    unreachable: Option<PortSet>,
}

/// Ports that came into a state since the last delivery.
#[derive(Debug)]
pub(super) struct Delta {
    closed: Option<PortSet>,
    filtered: Option<PortSet>,
    unreachable: Option<PortSet>,
}

impl Delivered {
    /// Nothing is delivered yet. Deltas will contain the states that `include` selects.
    pub(super) fn new(address: IpAddr, include: Include) -> Self {
        Self {
            address,
            deferred: PortSet::new(),
            closed: include.closed.then(PortSet::new),
            filtered: include.filtered.then(PortSet::new),
            unreachable: include.unreachable.then(PortSet::new),
        }
    }

    /// Keeps an open port for later.
    pub(super) fn defer(&mut self, port: u16) {
        self.deferred.insert(port);
    }

    /// Takes the deferred open ports in ascending order, as long as `deliver` returns true.
    pub(super) fn take_deferred(&mut self, mut deliver: impl FnMut(u16) -> bool) {
        let (mut from, mut wants_more) = (0, !self.deferred.is_empty());
        while wants_more && let Some(port) = self.deferred.next_from(from) {
            self.deferred.remove(port);
            wants_more = deliver(port);
            from = u32::from(port) + 1;
        }
    }

    /// Drops the record of delivered ports, which is not needed once the scan has ended.
    pub(super) fn forget_delivered(&mut self) {
        (self.closed, self.filtered, self.unreachable) = (None, None, None);
        if self.deferred.is_empty() {
            self.deferred = PortSet::new();
        }
    }

    /// The number of bytes of memory outside the struct itself.
    pub(super) fn kept_bytes(&self) -> usize {
        let states = [&self.closed, &self.filtered, &self.unreachable];
        let delivered: usize = states.into_iter().flatten().map(PortSet::heap_bytes).sum();
        self.deferred.heap_bytes() + delivered
    }

    /// Takes as many undelivered ports as ranges that fit into `room` bytes, exceeding them by at
    /// most one range, and subtracts their bytes from `room`. `ports` returns the ports of the scan
    /// in a state.
    pub(super) fn take_delta<'a>(
        &mut self,
        ports: impl Fn(PortState) -> &'a PortSet,
        room: &mut usize,
    ) -> Delta {
        let mut take = |delivered: &mut Option<PortSet>, state| {
            let delivered = delivered.as_mut().filter(|_| *room > 0)?;
            let mut undelivered = ports(state).clone();
            undelivered.subtract(delivered);
            if undelivered.is_empty() {
                return None;
            }
            *room = room.saturating_sub(undelivered.truncate_ranges(*room));
            delivered.union_with(&undelivered);
            Some(undelivered)
        };
        Delta {
            closed: take(&mut self.closed, PortState::Closed),
            filtered: take(&mut self.filtered, PortState::Filtered),
            unreachable: take(&mut self.unreachable, PortState::Unreachable),
        }
    }
}

impl Delta {
    /// Whether the delta contains no ports.
    pub(super) const fn is_empty(&self) -> bool {
        self.closed.is_none() && self.filtered.is_none() && self.unreachable.is_none()
    }

    /// The ports by state: closed, filtered, unreachable.
    pub(super) const fn ranges(&self) -> [Option<&PortSet>; 3] {
        [self.closed.as_ref(), self.filtered.as_ref(), self.unreachable.as_ref()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    use crate::event::Outcome;
    use crate::scan::Scan;
    use crate::scan::options::{Retries, ScanOptions};
    use crate::scan::plan::{Plan, RateShare};
    use crate::slots::Key;

    const ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
    const ALL: Include =
        Include { closed: true, filtered: true, unreachable: true, services: false };

    /// A scan of two passes over every port that has launched no probe yet.
    fn scan(now: Instant) -> Scan {
        let mut scan = Scan::new(
            now,
            Plan {
                target: (ADDRESS, 0).into(),
                is_routed: true,
                share: RateShare::WHOLE,
                ports: PortSet::from_range(1, u16::MAX),
                options: ScanOptions { retries: Retries::Exactly(1), ..ScanOptions::default() },
                ends_at: now + Duration::from_secs(60),
            },
        );
        scan.set_allowance(65_535);
        scan
    }

    /// Launches all probes of a pass. The outcomes that `outcome` returns are handled; the other
    /// ports are silent.
    fn pass(scan: &mut Scan, now: Instant, outcome: impl Fn(u16) -> Option<Outcome>) {
        while let Some(launch) = scan.poll_launch(now, Key::from_parts(0, 0)) {
            if let Some(outcome) = outcome(launch.to.port()) {
                scan.handle_outcome(now, launch.probe, outcome);
            }
        }
        while scan.poll_expired(now + Duration::from_secs(2)).is_some() {}
    }

    fn take(delivered: &mut Delivered, scan: &Scan, room: usize) -> [String; 3] {
        let mut left = room;
        let delta = delivered.take_delta(|state| scan.ports(state), &mut left);
        let texts = delta
            .ranges()
            .map(|ports| ports.map_or(String::new(), |ports| ports.display_ranges().to_string()));
        let taken: usize = texts.iter().map(String::len).sum();
        assert_eq!(left, room.saturating_sub(taken));
        assert_eq!(delta.is_empty(), taken == 0);
        texts
    }

    #[test]
    fn a_port_is_delivered_once_in_each_of_its_states() {
        let now = Instant::now();
        let (mut scan, mut delivered) = (scan(now), Delivered::new(ADDRESS, ALL));
        assert_eq!(take(&mut delivered, &scan, 1000), ["", "", ""]);
        pass(&mut scan, now, |port| match port {
            ..=9 => Some(Outcome::Refused),
            10 => Some(Outcome::Connected),
            11..=19 => Some(Outcome::Unreachable),
            _ => None,
        });
        assert_eq!(take(&mut delivered, &scan, 1000), ["1-9", "20-65535", "11-19"]);
        assert_eq!(take(&mut delivered, &scan, 1000), ["", "", ""]);
        pass(&mut scan, now, |port| match port {
            20 => Some(Outcome::Connected),
            21..=29 => Some(Outcome::Refused),
            _ => None,
        });
        assert_eq!(take(&mut delivered, &scan, 1000), ["21-29", "", ""]);
    }

    #[test]
    fn only_selected_states_are_delivered() {
        let now = Instant::now();
        let mut scan = scan(now);
        pass(&mut scan, now, |port| (port < 10).then_some(Outcome::Refused));
        let check = |include: Include, expected: [&str; 3]| {
            assert_eq!(take(&mut Delivered::new(ADDRESS, include), &scan, 1000), expected);
        };
        check(Include::default(), ["", "", ""]);
        check(Include { closed: true, ..Include::default() }, ["1-9", "", ""]);
        check(Include { filtered: true, ..Include::default() }, ["", "10-65535", ""]);
    }

    #[test]
    fn ports_without_space_are_delivered_the_next_time() {
        let now = Instant::now();
        let (mut scan, mut delivered) = (scan(now), Delivered::new(ADDRESS, ALL));
        pass(&mut scan, now, |port| (port % 2 == 0).then_some(Outcome::Refused));
        assert_eq!(take(&mut delivered, &scan, 0), ["", "", ""]);
        let (mut all, mut turns) = ([PortSet::new(), PortSet::new()], 0);
        loop {
            let texts = take(&mut delivered, &scan, 4096);
            assert!(texts.iter().map(String::len).sum::<usize>() <= 4096 + "65535".len());
            if texts.iter().all(String::is_empty) {
                break;
            }
            for (all, text) in all.iter_mut().zip(texts).filter(|(_, text)| !text.is_empty()) {
                let delta = PortSet::parse(&text).unwrap();
                assert!(delta.iter().all(|port| all.insert(port)), "delivered twice");
            }
            turns += 1;
        }
        assert!(turns >= 190_000 * 2 / 4096, "{turns} turns");
        assert_eq!(all[0], *scan.ports(PortState::Closed));
        assert_eq!(all[1], *scan.ports(PortState::Filtered));
    }
}
