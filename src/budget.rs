//! The one budget of descriptors, and the fair division of connects in flight.
//!
//! [`Shares::split`] sets aside what listeners, clients and lookups need, so that probes can
//! starve nobody; [`in_flight_bearable`] says how many a memory limit bears. [`Budget`] guards the
//! rest: after a shortage it shrinks to what was in flight and rests, then grows back; where a pace
//! is set, it keeps it. [`share_out`] divides it between scans, max-min fair. It owns no descriptor
//! and knows no scan.
//!
//! Invariants: the shares sum to at most the limit; `capacity` is between 1 and the probes' share.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use crate::limits::{self, Settings};

/// Who may have how many descriptors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shares {
    /// Client connections.
    pub connections: usize,
    /// Sockets of lookups.
    pub lookups: usize,
    /// Connects in flight, of all scans together.
    pub probes: usize,
}

/// How many connects in flight a limit of so many bytes of memory bears: the kernel kills a
/// process that goes beyond it, where a shortage of descriptors only makes a scan wait. A quarter
/// is left to others, since the kernel frees a closed socket some time later.
pub fn in_flight_bearable(memory_bytes: u64) -> usize {
    let ours = (memory_bytes - memory_bytes / 4).saturating_sub(limits::MEMORY_SPARE_BYTES);
    let probes = (ours / limits::PROBE_MEMORY_BYTES).clamp(1, limits::IN_FLIGHT_CEILING as u64);
    debug_assert!(probes == 1 || probes * limits::PROBE_MEMORY_BYTES < memory_bytes);
    usize::try_from(probes).unwrap_or(limits::IN_FLIGHT_CEILING)
}

/// The descriptor limit leaves no room for a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooFew {
    /// The limit in force.
    pub limit: usize,
    /// What would do.
    pub needed: usize,
}

impl std::fmt::Display for TooFew {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { limit, needed } = self;
        write!(f, "the limit of {limit} open descriptors is too low, at least {needed} are needed")
    }
}

impl std::error::Error for TooFew {}

impl Shares {
    /// Divides `limit` descriptors, of which `open` are open already (listeners, poller, stdio).
    ///
    /// Clients get what `--max-connections` says, but at most a quarter; lookups two sockets for
    /// each scan that may run, but at most an eighth; probes get the rest, or what
    /// `--max-in-flight` says where that is less.
    ///
    /// # Errors
    /// [`TooFew`] where not even one of each fits.
    pub fn split(limit: usize, open: usize, settings: &Settings) -> Result<Self, TooFew> {
        let free = limit.saturating_sub(open);
        if free < limits::DESCRIPTORS_MIN {
            return Err(TooFew { limit, needed: open + limits::DESCRIPTORS_MIN });
        }
        let free = free - limits::DESCRIPTORS_SPARE;
        let connections = settings.connections_max.min(free / 4).max(1);
        let lookups_wanted =
            limits::SOCKETS_PER_LOOKUP * settings.scans_max.min(limits::LOOKUPS_MAX);
        let lookups = lookups_wanted.min(free / 8).max(limits::SOCKETS_PER_LOOKUP);
        let rest = (free - connections - lookups).min(limits::IN_FLIGHT_CEILING);
        let probes = settings.in_flight_max.map_or(rest, |most| most.min(rest));
        assert!(probes > 0, "the smallest share has one probe");
        let shares = Self { connections, lookups, probes };
        assert!(shares.total() <= free, "the shares sum to at most the limit");
        Ok(shares)
    }

    /// All shares together.
    pub const fn total(&self) -> usize {
        self.connections + self.lookups + self.probes
    }
}

/// How many connects may be in flight just now.
#[derive(Debug)]
pub struct Budget {
    /// The probes' share.
    full: usize,
    state: State,
    /// `None`: connects start as fast as they can.
    pace: Option<Pace>,
}

/// New connects per second, kept.
#[derive(Debug)]
struct Pace {
    /// From one launch to the next.
    gap: Duration,
    /// No launch before; `None` before the first.
    next_at: Option<Instant>,
}

#[derive(Debug)]
enum State {
    /// Nothing is short. Nothing armed; a shortage leaves it.
    Ample,
    /// Something was short lately. Armed: `rest_until` while it is to come, then `grow_at`.
    /// Left when `capacity` has grown back to the full share.
    Short { capacity: usize, rest: Duration, rest_until: Instant, grow_at: Instant },
}

/// How far a pace catches up after the loop was late: at most so much time's launches.
const PACE_SLACK: Duration = Duration::from_millis(5);
/// Between two steps of growth after a shortage.
const GROW_EVERY: Duration = Duration::from_millis(50);

impl Budget {
    /// A budget of `full` connects; at least 1.
    pub const fn new(full: usize) -> Self {
        assert!(full > 0, "a budget allows one connect");
        Self { full, state: State::Ample, pace: None }
    }

    /// Lets so many connects start in a second, from here on.
    pub fn set_rate(&mut self, rate: NonZeroU32) {
        self.pace = Some(Pace { gap: Duration::from_secs(1) / rate.get(), next_at: None });
    }

    /// A connect was started.
    pub fn handle_launch(&mut self, now: Instant) {
        debug_assert!(self.may_launch(now), "nothing is started before its time");
        if let Some(Pace { gap, next_at }) = &mut self.pace {
            // Who was late may catch up, but not on all that he missed.
            let earliest = now.checked_sub(PACE_SLACK).unwrap_or(now);
            *next_at = Some(next_at.map_or(now, |at| at.max(earliest)) + *gap);
        }
    }

    /// A connect met a shortage while `in_flight` others went on.
    pub fn handle_shortage(&mut self, now: Instant, in_flight: usize) {
        let rest = match self.state {
            State::Ample => limits::SHORTAGE_REST_MIN,
            // One shortage seldom comes alone: those of the same moment are one.
            State::Short { rest_until, .. } if rest_until > now => return,
            State::Short { rest, .. } => (rest * 2).min(limits::SHORTAGE_REST_MAX),
        };
        let rest_until = now + rest;
        self.state = State::Short {
            capacity: in_flight.clamp(1, self.full),
            rest,
            rest_until,
            grow_at: rest_until + GROW_EVERY,
        };
        assert!(!self.may_launch(now), "after a shortage nothing is asked for at the same now");
    }

    /// Lets the capacity grow by an eighth each step, and the next rest be shorter again.
    pub fn handle_timeout(&mut self, now: Instant) {
        let State::Short { capacity, rest, rest_until, grow_at } = &mut self.state else { return };
        if *grow_at > now {
            return;
        }
        *capacity += (*capacity / 8).max(1);
        *rest = (*rest / 2).max(limits::SHORTAGE_REST_MIN);
        *grow_at = now + GROW_EVERY;
        debug_assert!(*rest_until <= now, "growth comes after the rest");
        if *capacity >= self.full {
            self.state = State::Ample;
        }
    }

    /// When something changes by time alone; after [`Budget::handle_timeout`] later than `now`.
    pub fn deadline(&self, now: Instant) -> Option<Instant> {
        let pace = self.next_launch_at().filter(|at| *at > now);
        let state = match self.state {
            State::Ample => None,
            State::Short { rest_until, grow_at, .. } => {
                Some(if rest_until > now { rest_until } else { grow_at })
            }
        };
        state.into_iter().chain(pace).min()
    }

    /// True exactly when neither a shortage nor the pace bids us rest.
    pub fn may_launch(&self, now: Instant) -> bool {
        let is_rested = match self.state {
            State::Ample => true,
            State::Short { rest_until, .. } => rest_until <= now,
        };
        is_rested && self.next_launch_at().is_none_or(|at| at <= now)
    }

    fn next_launch_at(&self) -> Option<Instant> {
        self.pace.as_ref().and_then(|pace| pace.next_at)
    }

    /// Connects in flight that are allowed now.
    pub const fn capacity(&self) -> usize {
        match self.state {
            State::Ample => self.full,
            State::Short { capacity, .. } => capacity,
        }
    }
}

/// Divides `capacity` between claims, each given as what it needs and replaced by what it gets:
/// the small ones get all they need, the large ones an equal part of the rest (max-min fairness).
/// `order` is scratch space, so that no turn allocates.
pub fn share_out(capacity: usize, claims: &mut [usize], order: &mut Vec<usize>) {
    order.clear();
    order.extend(0..claims.len());
    order.sort_unstable_by_key(|index| claims[*index]);
    let mut left = capacity;
    for (done, index) in order.iter().enumerate() {
        let equal = (left / (claims.len() - done)).max(1);
        let grant = claims[*index].min(equal).min(left);
        claims[*index] = grant;
        left -= grant;
    }
    debug_assert!(claims.iter().sum::<usize>() <= capacity, "no more is given than there is");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_sum_to_at_most_the_limit_at_every_limit() {
        let settings = Settings::default();
        for limit in 0..3_000 {
            match Shares::split(limit, 8, &settings) {
                Ok(Shares { connections, lookups, probes }) => {
                    assert!(8 + connections + lookups + probes <= limit, "limit {limit}");
                    assert!(connections > 0 && lookups > 0 && probes > 0, "limit {limit}");
                }
                Err(TooFew { needed, .. }) => assert!(limit < needed, "limit {limit}"),
            }
        }
    }

    #[test]
    fn a_limit_of_64_still_serves_and_scans() {
        let shares = Shares::split(64, 8, &Settings::default()).expect("64 is enough");
        assert!(shares.connections >= 8 && shares.probes >= 16, "{shares:?}");
    }

    #[test]
    fn most_of_20_000_descriptors_go_to_probes() {
        let shares = Shares::split(20_000, 8, &Settings::default()).expect("20,000 is enough");
        assert!(shares.probes > 18_700, "{shares:?}");
        let settings = Settings { in_flight_max: Some(100), ..Settings::default() };
        let shares = Shares::split(20_000, 8, &settings).expect("20,000 is enough");
        assert_eq!(shares.probes, 100);
    }

    #[test]
    fn what_many_descriptors_are_split_into_follows_from_the_settings() {
        let settings = Settings { scans_max: 10, connections_max: 100, ..Settings::default() };
        let shares = Shares::split(20_000, 8, &settings).expect("20,000 is enough");
        let lookups = limits::SOCKETS_PER_LOOKUP * 10;
        let probes = 20_000 - 8 - limits::DESCRIPTORS_SPARE - 100 - lookups;
        assert_eq!((shares.connections, shares.lookups, shares.probes), (100, lookups, probes));
    }

    #[test]
    fn a_memory_limit_bears_what_fits_three_quarters_of_it() {
        let check = |memory_mib: u64, expected| {
            assert_eq!(in_flight_bearable(memory_mib << 20), expected, "{memory_mib} MiB");
        };
        check(0, 1);
        check(5, 1);
        check(16, 1820);
        check(32, 4551);
        check(64, 10_012);
        check(128, 20_935);
        // What cgroup v1 writes for "none".
        assert_eq!(in_flight_bearable(0x7fff_ffff_ffff_f000), limits::IN_FLIGHT_CEILING);
    }

    #[test]
    fn a_shortage_shrinks_the_budget_and_time_brings_it_back() {
        let mut now = Instant::now();
        let mut budget = Budget::new(1000);
        budget.handle_shortage(now, 100);
        assert_eq!((budget.capacity(), budget.may_launch(now)), (100, false));
        let mut wakes = 0;
        while let Some(deadline) = budget.deadline(now) {
            assert!(deadline > now, "a deadline that was handled is not due again");
            now = deadline;
            budget.handle_timeout(now);
            assert!(budget.may_launch(now));
            wakes += 1;
            assert!(wakes < 100, "growth comes to an end");
        }
        assert_eq!(budget.capacity(), 1000);
    }

    #[test]
    fn shortages_in_a_row_rest_longer_and_never_below_one_connect() {
        let mut now = Instant::now();
        let mut budget = Budget::new(10);
        let mut rests = Vec::new();
        for _ in 0..10 {
            budget.handle_shortage(now, 0);
            assert_eq!(budget.capacity(), 1);
            let until = budget.deadline(now).expect("a rest ends");
            rests.push(until - now);
            now = until;
        }
        assert!(rests.is_sorted(), "{rests:?}");
        assert_eq!(rests.last(), Some(&limits::SHORTAGE_REST_MAX));
    }

    #[test]
    fn while_it_grows_the_next_rest_is_half_as_long_and_the_capacity_an_eighth_more() {
        let mut now = Instant::now();
        let mut budget = Budget::new(1000);
        let rest = |budget: &mut Budget, now: &mut Instant| {
            budget.handle_shortage(*now, 400);
            let rest = budget.deadline(*now).expect("a rest ends") - *now;
            *now += rest;
            rest
        };
        let rests: Vec<Duration> = (0..3).map(|_| rest(&mut budget, &mut now)).collect();
        assert_eq!(rests[2], 4 * rests[0], "each twice as long as the one before");
        budget.handle_timeout(now);
        assert_eq!(budget.capacity(), 400, "it rested, and grows a step later");
        now += GROW_EVERY;
        budget.handle_timeout(now);
        assert_eq!(budget.capacity(), 450);
        assert_eq!(rest(&mut budget, &mut now), rests[2], "halved, and doubled");
    }

    #[test]
    fn a_pace_is_kept_and_what_was_missed_is_not_made_up_for() {
        let start = Instant::now();
        let mut budget = Budget::new(10);
        budget.set_rate(NonZeroU32::new(1000).expect("not zero"));
        let mut launches = |from_ms: u64, to_ms: u64| {
            let mut count = 0;
            for ms in from_ms..to_ms {
                let now = start + Duration::from_millis(ms);
                while budget.may_launch(now) {
                    budget.handle_launch(now);
                    count += 1;
                    assert!(budget.deadline(now).is_none_or(|at| at > now));
                }
            }
            count
        };
        assert_eq!(launches(0, 100), 100);
        let late = launches(1000, 1100);
        assert!((100..=106).contains(&late), "{late} launches after a second's delay");
    }

    #[test]
    fn small_claims_are_met_and_large_ones_share_the_rest() {
        let check = |capacity: usize, claims: &[usize], expected: &[usize]| {
            let mut got = claims.to_vec();
            share_out(capacity, &mut got, &mut Vec::new());
            assert_eq!(got, expected, "{capacity} between {claims:?}");
        };
        check(100, &[], &[]);
        check(100, &[40], &[40]);
        check(100, &[1000], &[100]);
        check(100, &[1000, 10, 1000], &[45, 10, 45]);
        check(100, &[30, 30, 30], &[30, 30, 30]);
        check(2, &[5, 5, 5], &[1, 1, 0]);
        check(0, &[5], &[0]);
    }
}
