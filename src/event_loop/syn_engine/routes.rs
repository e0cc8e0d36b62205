//! A cache of the source addresses that the routing table selects, by destination.
//!
//! The checksum and the sequence number of a SYN depend on its source address, so the address must
//! be known before the kernel routes the packet. It is looked up again after [`AGE_MAX_MS`], so
//! that a change of the route during a scan is noticed. This module makes no system call and reads
//! no clock.

use std::net::{IpAddr, SocketAddr};

use crate::limits;

/// The number of milliseconds for which a source address is used before it is looked up again.
const AGE_MAX_MS: u32 = 1000;
/// The number of slots of the smallest table.
const ENTRIES_MIN: usize = 1024;
/// The number of slots of the largest table: the number of targets that are scanned at once. Its
/// slots take 2.5 MB. A table of this size does not grow; a new entry then replaces the one in its
/// slot.
const ENTRIES_MAX: usize = limits::BATCH_JOBS_MAX;

const _: () = assert!(ENTRIES_MIN.is_power_of_two() && ENTRIES_MAX.is_power_of_two());

#[derive(Clone, Copy, Debug)]
struct RouteEntry {
    to: IpAddr,
    source: IpAddr,
    looked_up_ms: u32,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct RouteCache {
    entries: Vec<Option<RouteEntry>>,
}

impl RouteCache {
    /// The source address for packets to `to`, if it was looked up less than [`AGE_MAX_MS`] ago.
    pub(super) fn source(&self, to: SocketAddr, now_ms: u32) -> Option<IpAddr> {
        let to = key(to)?;
        let entry = self.entries.get(self.slot(to))?.as_ref()?;
        (entry.to == to && entry.is_fresh(now_ms)).then_some(entry.source)
    }

    /// Stores the source address that the routing table has selected for packets to `to`. The table
    /// doubles while this would replace a fresh entry of another destination. An address with a
    /// zone is not stored.
    pub(super) fn insert(&mut self, to: SocketAddr, source: IpAddr, now_ms: u32) {
        let Some(to) = key(to) else { return };
        if self.entries.is_empty() {
            self.entries.resize(ENTRIES_MIN, None);
        }
        let displaces = |entry: RouteEntry| entry.to != to && entry.is_fresh(now_ms);
        while self.entries.len() < ENTRIES_MAX && self.entries[self.slot(to)].is_some_and(displaces)
        {
            self.grow(now_ms);
        }
        let slot = self.slot(to);
        self.entries[slot] = Some(RouteEntry { to, source, looked_up_ms: now_ms });
    }

    /// Doubles the table, and keeps the fresh entries.
    fn grow(&mut self, now_ms: u32) {
        let len = self.entries.len() * 2;
        let before = std::mem::replace(&mut self.entries, vec![None; len]);
        for entry in before.into_iter().flatten().filter(|entry| entry.is_fresh(now_ms)) {
            let slot = self.slot(entry.to);
            self.entries[slot] = Some(entry);
        }
    }

    /// The slot of a destination. Neighbouring addresses have different slots.
    fn slot(&self, to: IpAddr) -> usize {
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

/// The destination of an entry; `None` for an address with a zone, which may be in several zones
/// with a route in each.
fn key(to: SocketAddr) -> Option<IpAddr> {
    let has_zone = matches!(to, SocketAddr::V6(to) if to.scope_id() != 0);
    (!has_zone).then_some(to.ip())
}

impl RouteEntry {
    const fn is_fresh(&self, now_ms: u32) -> bool {
        now_ms.wrapping_sub(self.looked_up_ms) < AGE_MAX_MS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_address_is_used_for_a_second() {
        let mut cache = RouteCache::default();
        let source = IpAddr::from([192, 0, 2, 9]);
        let [to, other, zoned] = ["192.0.2.1:80", "[2001:db8::1]:80", "[fe80::1%3]:80"]
            .map(|text| text.parse().unwrap());
        assert_eq!(cache.source(to, 0), None);
        cache.insert(to, source, u32::MAX - 10);
        assert_eq!(cache.source(to, u32::MAX), Some(source));
        assert_eq!(cache.source(to, 100), Some(source), "the clock has wrapped");
        assert_eq!(cache.source(to, 1000), None, "the address must be looked up again");
        assert_eq!(cache.source(other, 0), None);
        cache.insert(zoned, source, 0);
        assert_eq!(cache.source(zoned, 0), None, "another zone may have another route");
    }

    #[test]
    fn the_cache_holds_all_addresses_of_a_network_and_has_a_maximum_size() {
        let mut cache = RouteCache::default();
        let source = IpAddr::from([192, 0, 2, 9]);
        let targets = |count: u32| (0..count).map(|n| ((0x0a63_0101 + n).to_be_bytes(), 80).into());
        for to in targets(4096) {
            cache.insert(to, source, 5);
        }
        assert!(targets(4096).all(|to| cache.source(to, 6) == Some(source)));
        for to in targets(200_000) {
            cache.insert(to, source, 7);
        }
        assert_eq!(cache.entries.len(), ENTRIES_MAX, "the table does not grow beyond its maximum");
    }
}
