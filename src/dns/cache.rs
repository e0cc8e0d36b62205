//! What servers told us, for as long as it holds.
//!
//! Kept by subject (one kind of record of one absolute name), not by lookup: lookups of either
//! family and every search list then share what is known, and a failure has no entry it could be
//! kept in. Driven by `dns`; it never reads the clock.
//!
//! Invariant: at most `limits::CACHE_ENTRIES_MAX` entries, each younger than its clamped TTL when
//! it is given out.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::dns::wire::{Finding, Subject};
use crate::limits;

/// Findings by subject; see the room's header.
#[derive(Debug, Default)]
pub struct Cache {
    /// With the instant from which on it no longer holds.
    entries: BTreeMap<Subject, (Instant, Finding)>,
}

impl Cache {
    /// Keeps a finding for its TTL, clamped: addresses into `limits::TTL_MIN..=TTL_MAX`, absence
    /// to `limits::NEGATIVE_TTL_MAX` at most (RFC 2308 section 5). An absence without a TTL, or
    /// with one of 0, is not kept. Where the cache is full, what expires first makes room.
    pub fn insert(
        &mut self,
        now: Instant,
        subject: Subject,
        finding: &Finding,
        ttl: Option<Duration>,
    ) {
        let ttl = ttl.unwrap_or_default();
        let holds_for = match finding {
            Finding::Addresses(_) => ttl.clamp(limits::TTL_MIN, limits::TTL_MAX),
            Finding::NoData | Finding::NoName => ttl.min(limits::NEGATIVE_TTL_MAX),
        };
        if holds_for.is_zero() {
            return;
        }
        if self.entries.len() >= limits::CACHE_ENTRIES_MAX && !self.entries.contains_key(&subject) {
            self.remove_first_to_expire();
        }
        self.entries.insert(subject, (now + holds_for, finding.clone()));
        assert!(self.entries.len() <= limits::CACHE_ENTRIES_MAX, "the cache is bounded");
    }

    /// A pass over all entries: 1,024 of them cost less than the query that just was answered.
    fn remove_first_to_expire(&mut self) {
        let first = self.entries.iter().min_by_key(|(_, (expiry, _))| *expiry);
        if let Some(subject) = first.map(|(subject, _)| subject.clone()) {
            self.entries.remove(&subject);
        }
    }

    /// What is known about `subject`; what no longer holds is forgotten.
    pub fn find(&mut self, now: Instant, subject: &Subject) -> Option<Finding> {
        let (expiry, finding) = self.entries.get(subject)?;
        if *expiry <= now {
            self.entries.remove(subject);
            return None;
        }
        Some(finding.clone())
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.entries.clear();
    }

    /// How many findings are kept, those included that no longer hold but were not looked for.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// True exactly when nothing is kept.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::wire::{self, RecordKind};

    fn subject(name: &str) -> Subject {
        Subject { name: wire::wire_name(name).unwrap(), kind: RecordKind::A }
    }

    fn addresses() -> Finding {
        Finding::Addresses(vec!["192.0.2.1".parse().unwrap()])
    }

    #[test]
    fn a_finding_is_kept_for_its_clamped_ttl_and_no_longer() {
        let start = Instant::now();
        let check = |finding: Finding, ttl: Option<u64>, kept_secs: u64| {
            let mut cache = Cache::default();
            cache.insert(start, subject("a"), &finding, ttl.map(Duration::from_secs));
            let end = start + Duration::from_secs(kept_secs);
            let known =
                cache.find(end.checked_sub(Duration::from_nanos(1)).unwrap(), &subject("A"));
            assert_eq!(known, (kept_secs > 0).then_some(finding), "{ttl:?}");
            assert_eq!(cache.find(end, &subject("a")), None, "{ttl:?}");
            assert!(cache.is_empty(), "what no longer holds is forgotten");
        };
        check(addresses(), Some(0), 1);
        check(addresses(), Some(60), 60);
        check(addresses(), Some(86_400), 300);
        check(addresses(), None, 1);
        for absence in [Finding::NoData, Finding::NoName] {
            check(absence.clone(), None, 0);
            check(absence.clone(), Some(0), 0);
            check(absence.clone(), Some(7), 7);
            check(absence, Some(900), 30);
        }
    }

    #[test]
    fn what_expires_first_makes_room() {
        let now = Instant::now();
        let mut cache = Cache::default();
        let ttl = |n: usize| Some(Duration::from_secs(if n == 500 { 2 } else { 100 }));
        for n in 0..limits::CACHE_ENTRIES_MAX + 1 {
            cache.insert(now, subject(&format!("n{n}")), &addresses(), ttl(n));
        }
        assert_eq!(cache.len(), limits::CACHE_ENTRIES_MAX);
        assert_eq!(cache.find(now, &subject("n500")), None);
        assert!(cache.find(now, &subject("n0")).is_some());
        cache.clear();
        assert!(cache.is_empty());
    }
}
