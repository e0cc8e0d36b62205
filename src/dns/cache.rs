//! A cache of the answers of servers, for as long as they are valid.
//!
//! The key is a question (one kind of record of one absolute name) and not a lookup. Lookups of any
//! family and with any search list therefore share the entries, and a failure, which belongs to a
//! lookup, has no entry. `dns` drives the cache, which never reads the clock.
//!
//! Invariant: there are at most `limits::CACHE_ENTRIES_MAX` entries, and an entry that is returned
//! is younger than its clamped TTL.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::dns::wire::{Finding, Question};
use crate::limits;

/// Findings by question; see the header of the module.
#[derive(Debug, Default)]
pub struct Cache {
    /// Each finding with the instant at which it expires.
    entries: BTreeMap<Question, (Instant, Finding)>,
}

impl Cache {
    /// Stores a finding for its clamped TTL: for addresses within `limits::TTL_MIN..=TTL_MAX`, for
    /// an absence at most `limits::NEGATIVE_TTL_MAX` (RFC 2308 section 5). An absence without a
    /// TTL, or with a TTL of 0, is not stored. If the cache is full, the entry that expires first
    /// is removed.
    pub fn insert(
        &mut self,
        now: Instant,
        question: Question,
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
        if self.entries.len() >= limits::CACHE_ENTRIES_MAX && !self.entries.contains_key(&question)
        {
            self.remove_first_to_expire();
        }
        self.entries.insert(question, (now + holds_for, finding.clone()));
        assert!(self.entries.len() <= limits::CACHE_ENTRIES_MAX, "the cache is bounded");
    }

    /// Scans all entries: a scan of 1,024 entries costs less than the query that was just answered.
    fn remove_first_to_expire(&mut self) {
        let first = self.entries.iter().min_by_key(|(_, (expiry, _))| *expiry);
        if let Some(question) = first.map(|(question, _)| question.clone()) {
            self.entries.remove(&question);
        }
    }

    /// The finding for `question`. An expired one is removed.
    pub fn find(&mut self, now: Instant, question: &Question) -> Option<Finding> {
        let (expiry, finding) = self.entries.get(question)?;
        if *expiry <= now {
            self.entries.remove(question);
            return None;
        }
        Some(finding.clone())
    }

    /// Removes all entries.
    pub fn clear(&mut self) {
        self.entries.clear();
    }

    /// The number of stored findings, including those that have expired and were not removed yet.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether the cache is empty.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::wire::{self, RecordKind};

    fn question(name: &str) -> Question {
        Question { name: wire::wire_name(name).unwrap(), kind: RecordKind::A }
    }

    fn addresses() -> Finding {
        Finding::Addresses(vec!["192.0.2.1".parse().unwrap()])
    }

    #[test]
    fn a_finding_is_kept_for_its_clamped_ttl_and_no_longer() {
        let start = Instant::now();
        let check = |finding: Finding, ttl: Option<u64>, kept_secs: u64| {
            let mut cache = Cache::default();
            cache.insert(start, question("a"), &finding, ttl.map(Duration::from_secs));
            let end = start + Duration::from_secs(kept_secs);
            let known =
                cache.find(end.checked_sub(Duration::from_nanos(1)).unwrap(), &question("A"));
            assert_eq!(known, (kept_secs > 0).then_some(finding), "{ttl:?}");
            assert_eq!(cache.find(end, &question("a")), None, "{ttl:?}");
            assert!(cache.is_empty(), "an expired finding is removed");
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
    fn a_full_cache_removes_the_entry_that_expires_first() {
        let now = Instant::now();
        let mut cache = Cache::default();
        let ttl = |n: usize| Some(Duration::from_secs(if n == 500 { 2 } else { 100 }));
        for n in 0..limits::CACHE_ENTRIES_MAX + 1 {
            cache.insert(now, question(&format!("n{n}")), &addresses(), ttl(n));
        }
        assert_eq!(cache.len(), limits::CACHE_ENTRIES_MAX);
        assert_eq!(cache.find(now, &question("n500")), None);
        assert!(cache.find(now, &question("n0")).is_some());
        cache.clear();
        assert!(cache.is_empty());
    }
}
