//! Source addresses by destination, as the routing table had them a moment ago.
//!
//! The checksum and the sequence number of a SYN cover its source address, so that it must be known
//! before the kernel routes the packet. An address is looked up again after [`AGE_MAX`], so that a
//! route that changes during a scan is noticed. Pure.

use std::net::IpAddr;

use crate::limits;

/// Milliseconds for which a source address is used.
const AGE_MAX: u32 = 1000;
/// Destinations that are remembered at first; a later one takes the place of an earlier one.
const ENTRIES_MIN: usize = 1024;
/// The table doubles up to this while destinations displace each other: 2.5 MB, and as many as
/// there are targets of a list at once.
const ENTRIES_MAX: usize = limits::BATCH_JOBS_MAX;

const _: () = assert!(ENTRIES_MIN.is_power_of_two() && ENTRIES_MAX.is_power_of_two());

#[derive(Clone, Copy, Debug)]
struct RouteEntry {
    to: IpAddr,
    source: IpAddr,
    looked_up: u32,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Routes {
    entries: Vec<Option<RouteEntry>>,
}

impl Routes {
    /// The source address towards `to`, if it was looked up lately.
    pub(super) fn source(&self, to: IpAddr, now: u32) -> Option<IpAddr> {
        let entry = self.entries.get(self.place(to))?.as_ref()?;
        (entry.to == to && entry.is_young(now)).then_some(entry.source)
    }

    /// The routing table was asked.
    pub(super) fn insert(&mut self, to: IpAddr, source: IpAddr, now: u32) {
        if self.entries.is_empty() {
            self.entries.resize(ENTRIES_MIN, None);
        }
        let displaces = |entry: RouteEntry| entry.to != to && entry.is_young(now);
        while self.entries.len() < ENTRIES_MAX
            && self.entries[self.place(to)].is_some_and(displaces)
        {
            self.grow(now);
        }
        let place = self.place(to);
        self.entries[place] = Some(RouteEntry { to, source, looked_up: now });
    }

    fn grow(&mut self, now: u32) {
        let len = self.entries.len() * 2;
        let before = std::mem::replace(&mut self.entries, vec![None; len]);
        for entry in before.into_iter().flatten().filter(|entry| entry.is_young(now)) {
            let place = self.place(entry.to);
            self.entries[place] = Some(entry);
        }
    }

    /// Neighbouring addresses have different places.
    fn place(&self, to: IpAddr) -> usize {
        let bits = match to {
            IpAddr::V4(to) => to.to_bits(),
            IpAddr::V6(to) => {
                let bits = to.to_bits();
                bits as u32 ^ (bits >> 64) as u32
            }
        };
        (bits ^ bits >> 10 ^ bits >> 20) as usize & self.entries.len().wrapping_sub(1)
    }
}

impl RouteEntry {
    const fn is_young(&self, now: u32) -> bool {
        now.wrapping_sub(self.looked_up) < AGE_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_address_is_used_for_a_second() {
        let mut routes = Routes::default();
        let [to, other, source] =
            ["192.0.2.1", "2001:db8::1", "192.0.2.9"].map(|text| text.parse::<IpAddr>().unwrap());
        assert_eq!(routes.source(to, 0), None);
        routes.insert(to, source, u32::MAX - 10);
        assert_eq!(routes.source(to, u32::MAX), Some(source));
        assert_eq!(routes.source(to, 100), Some(source), "the clock wraps");
        assert_eq!(routes.source(to, 1000), None, "it is too old");
        assert_eq!(routes.source(other, 0), None);
    }

    #[test]
    fn all_targets_of_a_network_are_remembered() {
        let mut routes = Routes::default();
        let source = IpAddr::from([192, 0, 2, 9]);
        let targets =
            |count: u32| (0..count).map(|n| IpAddr::from((0x0a63_0101 + n).to_be_bytes()));
        for to in targets(4096) {
            routes.insert(to, source, 5);
        }
        assert!(targets(4096).all(|to| routes.source(to, 6) == Some(source)));
        for to in targets(200_000) {
            routes.insert(to, source, 7);
        }
        assert_eq!(routes.entries.len(), ENTRIES_MAX, "the table has a bound");
    }
}
