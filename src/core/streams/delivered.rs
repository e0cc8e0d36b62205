//! What the reader of a stream has been told of the ports of one address.
//!
//! A port's state is told once. A silent port may get another in a further pass, which is told
//! then; all other states are final. Nothing is queued: what is untold is the difference between
//! the scan's sets and those here, so a slow reader costs 8 KB for each set and loses nothing.

use std::net::IpAddr;

use crate::api::query::Include;
use crate::scan::Scan;
use crate::scan::ledger::PortState;
use crate::target::PortSet;

/// What has been told of one address.
#[derive(Debug)]
pub(super) struct Told {
    /// The address.
    pub(super) address: IpAddr,
    /// Open ports found while the reader was slow: told as soon as it reads on.
    withheld: PortSet,
    closed: Option<PortSet>,
    /// Those that were told as silent, whatever they came to since.
    filtered: Option<PortSet>,
    unreachable: Option<PortSet>,
}

/// Ports that came into a state since it was last told.
#[derive(Debug)]
pub(super) struct News {
    closed: Option<PortSet>,
    filtered: Option<PortSet>,
    unreachable: Option<PortSet>,
}

impl Told {
    /// Nothing yet; of the states that `include` asks for there will be news.
    pub(super) fn new(address: IpAddr, include: Include) -> Self {
        Self {
            address,
            withheld: PortSet::new(),
            closed: include.closed.then(PortSet::new),
            filtered: include.filtered.then(PortSet::new),
            unreachable: include.unreachable.then(PortSet::new),
        }
    }

    /// Keeps an open port for later.
    pub(super) fn withhold(&mut self, port: u16) {
        self.withheld.insert(port);
    }

    /// Takes the open ports that were kept back, from the lowest on, for as long as `tell` gives
    /// true.
    pub(super) fn take_withheld(&mut self, mut tell: impl FnMut(u16) -> bool) {
        let (mut from, mut wants_more) = (0, !self.withheld.is_empty());
        while wants_more && let Some(port) = self.withheld.next_from(from) {
            self.withheld.remove(port);
            wants_more = tell(port);
            from = u32::from(port) + 1;
        }
    }

    /// Of what was told nothing needs to be known any more: the scan has ended.
    pub(super) fn forget_told(&mut self) {
        (self.closed, self.filtered, self.unreachable) = (None, None, None);
        if self.withheld.is_empty() {
            self.withheld = PortSet::new();
        }
    }

    /// Bytes of memory beside its own.
    pub(super) fn kept_bytes(&self) -> usize {
        let states = [&self.closed, &self.filtered, &self.unreachable];
        let told: usize = states.into_iter().flatten().map(PortSet::heap_bytes).sum();
        self.withheld.heap_bytes() + told
    }

    /// Takes as many of the untold ports as `room` bytes of ranges hold, and one range more at
    /// most, and takes their bytes off it.
    pub(super) fn take_news(&mut self, scan: &Scan, room: &mut usize) -> News {
        let mut take = |told: &mut Option<PortSet>, state| {
            let told = told.as_mut().filter(|_| *room > 0)?;
            let mut untold = scan.ports(state).clone();
            untold.subtract(told);
            if untold.is_empty() {
                return None;
            }
            *room = room.saturating_sub(untold.truncate_ranges(*room));
            told.union_with(&untold);
            Some(untold)
        };
        News {
            closed: take(&mut self.closed, PortState::Closed),
            filtered: take(&mut self.filtered, PortState::Filtered),
            unreachable: take(&mut self.unreachable, PortState::Unreachable),
        }
    }
}

impl News {
    /// True exactly when there are none.
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
    use crate::scan::plan::Plan;
    use crate::slots::Key;
    use crate::target::{Retries, Timeout};

    const ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
    const ALL: Include =
        Include { closed: true, filtered: true, unreachable: true, services: false };

    /// A scan of two passes over every port; nothing is launched yet.
    fn scan(now: Instant) -> Scan {
        let mut scan = Scan::new(
            now,
            Plan {
                target: (ADDRESS, 0).into(),
                is_routed: true,
                ports: PortSet::from_range(1, u16::MAX),
                timeout: Timeout::Fixed(Duration::from_secs(2)),
                retries: Retries::Exactly(1),
                concurrency: 65_535,
                rate: None,
                ends_at: now + Duration::from_secs(60),
            },
        );
        scan.set_allowance(65_535);
        scan
    }

    /// Launches all of a pass; what `outcome` says of a port is told, the others are silent.
    fn pass(scan: &mut Scan, now: Instant, outcome: impl Fn(u16) -> Option<Outcome>) {
        while let Some(launch) = scan.poll_launch(now, Key::from_parts(0, 0)) {
            if let Some(outcome) = outcome(launch.to.port()) {
                scan.handle_outcome(now, launch.probe, outcome);
            }
        }
        while scan.poll_expired(now + Duration::from_secs(2)).is_some() {}
    }

    fn take(told: &mut Told, scan: &Scan, room: usize) -> [String; 3] {
        let mut left = room;
        let news = told.take_news(scan, &mut left);
        let texts = news
            .ranges()
            .map(|ports| ports.map_or(String::new(), |ports| ports.display_ranges().to_string()));
        let taken: usize = texts.iter().map(String::len).sum();
        assert_eq!(left, room.saturating_sub(taken));
        assert_eq!(news.is_empty(), taken == 0);
        texts
    }

    #[test]
    fn a_port_is_told_once_in_each_state_that_it_comes_into() {
        let now = Instant::now();
        let (mut scan, mut told) = (scan(now), Told::new(ADDRESS, ALL));
        assert_eq!(take(&mut told, &scan, 1000), ["", "", ""]);
        pass(&mut scan, now, |port| match port {
            ..=9 => Some(Outcome::Refused),
            10 => Some(Outcome::Connected),
            11..=19 => Some(Outcome::Unreachable),
            _ => None,
        });
        assert_eq!(take(&mut told, &scan, 1000), ["1-9", "20-65535", "11-19"]);
        assert_eq!(take(&mut told, &scan, 1000), ["", "", ""]);
        pass(&mut scan, now, |port| match port {
            20 => Some(Outcome::Connected),
            21..=29 => Some(Outcome::Refused),
            _ => None,
        });
        assert_eq!(take(&mut told, &scan, 1000), ["21-29", "", ""]);
    }

    #[test]
    fn only_states_that_were_asked_for_are_told() {
        let now = Instant::now();
        let mut scan = scan(now);
        pass(&mut scan, now, |port| (port < 10).then_some(Outcome::Refused));
        let check = |include: Include, expected: [&str; 3]| {
            assert_eq!(take(&mut Told::new(ADDRESS, include), &scan, 1000), expected);
        };
        check(Include::default(), ["", "", ""]);
        check(Include { closed: true, ..Include::default() }, ["1-9", "", ""]);
        check(Include { filtered: true, ..Include::default() }, ["", "10-65535", ""]);
    }

    #[test]
    fn what_has_no_room_is_told_the_next_time() {
        let now = Instant::now();
        let (mut scan, mut told) = (scan(now), Told::new(ADDRESS, ALL));
        pass(&mut scan, now, |port| (port % 2 == 0).then_some(Outcome::Refused));
        assert_eq!(take(&mut told, &scan, 0), ["", "", ""]);
        let (mut all, mut turns) = ([PortSet::new(), PortSet::new()], 0);
        loop {
            let texts = take(&mut told, &scan, 4096);
            assert!(texts.iter().map(String::len).sum::<usize>() <= 4096 + "65535".len());
            if texts.iter().all(String::is_empty) {
                break;
            }
            for (all, text) in all.iter_mut().zip(texts).filter(|(_, text)| !text.is_empty()) {
                let news = PortSet::parse(&text).unwrap();
                assert!(news.iter().all(|port| all.insert(port)), "told twice");
            }
            turns += 1;
        }
        assert!(turns >= 190_000 * 2 / 4096, "{turns} turns");
        assert_eq!(all[0], *scan.ports(PortState::Closed));
        assert_eq!(all[1], *scan.ports(PortState::Filtered));
    }
}
