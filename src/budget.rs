//! The budget of descriptors, and the fair division of the probes in flight.
//!
//! [`Shares::split`] reserves descriptors for clients and lookups, so that probes cannot use up all
//! of them, and computes the number of probes in flight of each technique. [`Budget`] limits the
//! number of probes in flight: after a shortage it shrinks to the number in flight and backs off,
//! then it grows again. It also keeps the rate limit, if there is one. [`divide_max_min_fair`]
//! divides the budget between scans. This module owns no descriptor and knows no scan. `core`
//! drives it.
//!
//! Invariants: the sum of the shares is at most the limit; `capacity` is between 1 and
//! `capacity_max`.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use crate::limits::{self, Settings};
use crate::pacer::RateLimit;
use crate::technique::{PerTechnique, Properties, Technique};

/// The number of descriptors for each purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shares {
    /// The number of client connections.
    pub connections: usize,
    /// The number of sockets of lookups.
    pub lookups: usize,
    /// The number of probes in flight of all scans together. Those of some techniques need no
    /// descriptors ([`Properties::has_descriptor`]).
    pub probes: PerTechnique<usize>,
}

/// The number of probes in flight that a memory limit of this many bytes permits. The kernel kills
/// a process that exceeds it, while a shortage of descriptors only delays a scan.
fn probe_capacity(memory_bytes: u64, technique: &Properties) -> usize {
    let Properties { probe_bytes, in_flight_max, .. } = *technique;
    let probes = (memory_for_probes(memory_bytes) / probe_bytes).clamp(1, in_flight_max as u64);
    debug_assert!(probes == 1 || probes * probe_bytes < memory_bytes);
    usize::try_from(probes).unwrap_or(in_flight_max)
}

/// The number of targets of a list that a memory limit of this many bytes permits at once.
pub fn target_capacity(memory_bytes: u64) -> usize {
    let targets = (memory_for_probes(memory_bytes) / limits::TARGET_MEMORY_BYTES)
        .clamp(1, limits::TARGETS_AT_ONCE_MAX as u64);
    usize::try_from(targets).unwrap_or(limits::TARGETS_AT_ONCE_MAX)
}

/// The part of the memory that probes may use. A quarter is left for other uses, because the kernel
/// frees a closed socket only some time later.
const fn memory_for_probes(memory_bytes: u64) -> u64 {
    (memory_bytes - memory_bytes / 4).saturating_sub(limits::MEMORY_SPARE_BYTES)
}

/// The error if the descriptor limit is too low for the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooFew {
    /// The present limit.
    pub limit: usize,
    /// The limit that is needed.
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
    /// Divides `limit` descriptors, of which `open` are already open (listeners, poller, stdio).
    ///
    /// Clients get the number of `--max-connections`, but at most a quarter; lookups get two
    /// sockets for each scan that may run, but at most an eighth; probes get the number of
    /// `--max-in-flight`, or the number that the memory limit permits, but those with descriptors
    /// at most the rest.
    ///
    /// # Errors
    /// [`TooFew`] if the limit does not permit one descriptor for each purpose.
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
        let rest = free - connections - lookups;
        assert!(rest > 0, "the smallest share permits one probe");
        let probes = PerTechnique::new(|technique| {
            let properties = technique.properties();
            let fitting = settings.memory_bytes.map(|bytes| probe_capacity(bytes, properties));
            let wanted = settings.in_flight_max.or(fitting).unwrap_or(properties.in_flight_max);
            let most = rest.min(properties.in_flight_max);
            if properties.has_descriptor { wanted.min(most) } else { wanted }
        });
        let shares = Self { connections, lookups, probes };
        assert!(shares.total() <= free, "the shares sum to at most the limit");
        Ok(shares)
    }

    /// The number of scans at once: `scans_max`, but at most three quarters of the connections. A
    /// client with a scan holds its connection until the end, so a part of the connections is
    /// reserved for clients without a scan; their requests could not be answered otherwise.
    pub fn scans(&self, scans_max: usize) -> usize {
        let kept_free = (self.connections / 4).max(1);
        scans_max.min(self.connections.saturating_sub(kept_free).max(1))
    }

    /// The sum of all shares of descriptors.
    pub fn total(&self) -> usize {
        let with_descriptors =
            Technique::ALL.into_iter().filter(|it| it.properties().has_descriptor);
        let probes: usize = with_descriptors.map(|it| self.probes[it]).sum();
        self.connections + self.lookups + probes
    }
}

/// The number of probes that may be in flight, and the rate limit.
#[derive(Debug)]
pub struct Budget {
    /// The number of probes that may be in flight without a shortage.
    capacity_max: usize,
    state: BudgetState,
    /// The rate limit; `None` means that probes start as fast as possible.
    rate_limit: Option<RateLimit>,
}

#[derive(Debug)]
enum BudgetState {
    /// There is no shortage, and no deadline is armed. A shortage ends this state.
    Ample,
    /// There was a shortage recently. The deadline `backoff_until` is armed until it has passed,
    /// and then `grow_at`. The state ends when `capacity` has grown back to `capacity_max`.
    Short { capacity: usize, backoff: Duration, backoff_until: Instant, grow_at: Instant },
}

/// The time between two steps of growth after a shortage.
const GROWTH_INTERVAL: Duration = Duration::from_millis(50);

impl Budget {
    /// A budget of `capacity_max` probes; at least 1.
    pub const fn new(capacity_max: usize) -> Self {
        assert!(capacity_max > 0, "a budget permits at least one probe");
        Self { capacity_max, state: BudgetState::Ample, rate_limit: None }
    }

    /// Limits the number of probes that start per second from now on.
    pub fn set_rate(&mut self, rate: NonZeroU32) {
        self.rate_limit = Some(RateLimit::new(rate));
    }

    /// A probe was started.
    pub fn handle_launch(&mut self, now: Instant) {
        debug_assert!(self.may_launch(now), "no probe starts before its time");
        if let Some(rate_limit) = &mut self.rate_limit {
            rate_limit.handle_launch(now);
        }
    }

    /// A probe failed because of a shortage, while `in_flight` others are in flight.
    pub fn handle_shortage(&mut self, now: Instant, in_flight: usize) {
        let backoff = match self.state {
            BudgetState::Ample => limits::SHORTAGE_BACKOFF_MIN,
            // Usually several probes fail at once. Their failures count as one shortage.
            BudgetState::Short { backoff_until, .. } if backoff_until > now => return,
            BudgetState::Short { backoff, .. } => (backoff * 2).min(limits::SHORTAGE_BACKOFF_MAX),
        };
        let backoff_until = now + backoff;
        self.state = BudgetState::Short {
            capacity: in_flight.clamp(1, self.capacity_max),
            backoff,
            backoff_until,
            grow_at: backoff_until + GROWTH_INTERVAL,
        };
        assert!(!self.may_launch(now), "no probe starts at the time of a shortage");
    }

    /// Increases the capacity by an eighth and halves the next backoff, if a step of growth is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        let BudgetState::Short { capacity, backoff, backoff_until, grow_at } = &mut self.state
        else {
            return;
        };
        if *grow_at > now {
            return;
        }
        *capacity += (*capacity / 8).max(1);
        *backoff = (*backoff / 2).max(limits::SHORTAGE_BACKOFF_MIN);
        *grow_at = now + GROWTH_INTERVAL;
        debug_assert!(*backoff_until <= now, "growth comes after the backoff");
        if *capacity >= self.capacity_max {
            self.state = BudgetState::Ample;
        }
    }

    /// The time of the next change; after [`Budget::handle_timeout`] it is later than `now`.
    pub fn deadline(&self, now: Instant) -> Option<Instant> {
        let pace = self.next_launch_at().filter(|at| *at > now);
        let state = match self.state {
            BudgetState::Ample => None,
            BudgetState::Short { backoff_until, grow_at, .. } => {
                Some(if backoff_until > now { backoff_until } else { grow_at })
            }
        };
        state.into_iter().chain(pace).min()
    }

    /// Whether neither a shortage nor the rate limit prevents a launch.
    pub fn may_launch(&self, now: Instant) -> bool {
        let is_backoff_over = match self.state {
            BudgetState::Ample => true,
            BudgetState::Short { backoff_until, .. } => backoff_until <= now,
        };
        is_backoff_over && self.next_launch_at().is_none_or(|at| at <= now)
    }

    fn next_launch_at(&self) -> Option<Instant> {
        self.rate_limit.as_ref().and_then(RateLimit::next_at)
    }

    /// The number of probes that may be in flight now.
    pub const fn capacity(&self) -> usize {
        match self.state {
            BudgetState::Ample => self.capacity_max,
            BudgetState::Short { capacity, .. } => capacity,
        }
    }
}

/// Divides `capacity` between claims. Each claim holds the needed number, which is replaced by the
/// granted one: small claims are granted completely, and large ones get equal parts of the rest
/// (max-min fairness). `order` is a buffer that the caller keeps, so that no tick allocates.
pub fn divide_max_min_fair(capacity: usize, claims: &mut [usize], order: &mut Vec<usize>) {
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
    debug_assert!(
        claims.iter().sum::<usize>() <= capacity,
        "the sum of the grants is at most the capacity"
    );
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
                    let probes = probes[Technique::Connect];
                    assert!(8 + connections + lookups + probes <= limit, "limit {limit}");
                    assert!(connections > 0 && lookups > 0 && probes > 0, "limit {limit}");
                }
                Err(TooFew { needed, .. }) => assert!(limit < needed, "limit {limit}"),
            }
        }
    }

    #[test]
    fn a_limit_of_64_descriptors_is_enough_for_clients_and_probes() {
        let shares = Shares::split(64, 8, &Settings::default()).expect("64 is enough");
        assert!(shares.connections >= 8 && shares.probes[Technique::Connect] >= 16, "{shares:?}");
    }

    #[test]
    fn most_of_20_000_descriptors_go_to_probes() {
        let shares = Shares::split(20_000, 8, &Settings::default()).expect("20,000 is enough");
        assert!(shares.probes[Technique::Connect] > 18_700, "{shares:?}");
        let settings = Settings { in_flight_max: Some(100), ..Settings::default() };
        let shares = Shares::split(20_000, 8, &settings).expect("20,000 is enough");
        assert_eq!(shares.probes[Technique::Connect], 100);
    }

    #[test]
    fn the_division_of_many_descriptors_follows_from_the_settings() {
        let settings = Settings { scans_max: 10, connections_max: 100, ..Settings::default() };
        let shares = Shares::split(20_000, 8, &settings).expect("20,000 is enough");
        let lookups = limits::SOCKETS_PER_LOOKUP * 10;
        let probes = 20_000 - 8 - limits::DESCRIPTORS_SPARE - 100 - lookups;
        assert_eq!((shares.connections, shares.lookups), (100, lookups));
        assert_eq!(shares.probes[Technique::Connect], probes);
    }

    #[test]
    fn a_memory_limit_permits_the_probes_that_fit_into_three_quarters_of_it() {
        assert_eq!(target_capacity(0), 1);
        assert_eq!(target_capacity(32 << 20), 20 << 10);
        assert_eq!(target_capacity(u64::MAX), limits::TARGETS_AT_ONCE_MAX);
        let connects = |bytes| probe_capacity(bytes, Technique::Connect.properties());
        let check = |memory_mib: u64, expected| {
            assert_eq!(connects(memory_mib << 20), expected, "{memory_mib} MiB");
        };
        check(0, 1);
        check(5, 1);
        check(16, 1820);
        check(32, 4551);
        check(64, 10_012);
        check(128, 20_935);
        // cgroup v1 writes this number if there is no limit.
        assert_eq!(connects(0x7fff_ffff_ffff_f000), 65_536);
    }

    #[test]
    fn after_a_shortage_the_budget_shrinks_and_then_grows_back() {
        let mut now = Instant::now();
        let mut budget = Budget::new(1000);
        budget.handle_shortage(now, 100);
        assert_eq!((budget.capacity(), budget.may_launch(now)), (100, false));
        let mut wakes = 0;
        while let Some(deadline) = budget.deadline(now) {
            assert!(deadline > now, "a handled deadline is not due again");
            now = deadline;
            budget.handle_timeout(now);
            assert!(budget.may_launch(now));
            wakes += 1;
            assert!(wakes < 100, "the growth ends");
        }
        assert_eq!(budget.capacity(), 1000);
    }

    #[test]
    fn repeated_shortages_cause_longer_backoffs_and_leave_at_least_one_probe() {
        let mut now = Instant::now();
        let mut budget = Budget::new(10);
        let mut backoffs = Vec::new();
        for _ in 0..10 {
            budget.handle_shortage(now, 0);
            assert_eq!(budget.capacity(), 1);
            let until = budget.deadline(now).expect("a backoff has an end");
            backoffs.push(until - now);
            now = until;
        }
        assert!(backoffs.is_sorted(), "{backoffs:?}");
        assert_eq!(backoffs.last(), Some(&limits::SHORTAGE_BACKOFF_MAX));
    }

    #[test]
    fn each_step_of_growth_halves_the_next_backoff_and_adds_an_eighth_to_the_capacity() {
        let mut now = Instant::now();
        let mut budget = Budget::new(1000);
        let backoff = |budget: &mut Budget, now: &mut Instant| {
            budget.handle_shortage(*now, 400);
            let backoff = budget.deadline(*now).expect("a backoff has an end") - *now;
            *now += backoff;
            backoff
        };
        let backoffs: Vec<Duration> = (0..3).map(|_| backoff(&mut budget, &mut now)).collect();
        assert_eq!(backoffs[2], 4 * backoffs[0], "each backoff is twice the previous one");
        budget.handle_timeout(now);
        assert_eq!(budget.capacity(), 400, "growth begins one interval after the backoff");
        now += GROWTH_INTERVAL;
        budget.handle_timeout(now);
        assert_eq!(budget.capacity(), 450);
        assert_eq!(
            backoff(&mut budget, &mut now),
            backoffs[2],
            "the backoff was halved and doubled"
        );
    }

    #[test]
    fn a_rate_limit_is_kept_and_only_a_few_missed_launches_are_made_up() {
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
    fn small_claims_are_granted_completely_and_large_ones_share_the_rest_equally() {
        let check = |capacity: usize, claims: &[usize], expected: &[usize]| {
            let mut got = claims.to_vec();
            divide_max_min_fair(capacity, &mut got, &mut Vec::new());
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

    #[test]
    fn the_error_of_a_low_limit_names_the_smallest_limit_that_is_enough() {
        let settings = Settings::default();
        let error = Shares::split(9, 7, &settings).expect_err("two descriptors are too few");
        assert!(Shares::split(error.needed, 7, &settings).is_ok());
        assert!(Shares::split(error.needed - 1, 7, &settings).is_err());
        let expected = format!(
            "the limit of 9 open descriptors is too low, at least {} are needed",
            7 + limits::DESCRIPTORS_MIN
        );
        assert_eq!(error.to_string(), expected);
    }

    #[test]
    fn the_memory_limits_the_number_of_syns_in_flight() {
        let technique = Technique::Syn.properties();
        assert_eq!(probe_capacity(0, technique), 1);
        let memory = 4 * (limits::MEMORY_SPARE_BYTES + 1_000 * technique.probe_bytes) / 3;
        let probes = probe_capacity(memory, technique);
        assert!((999..=1_000).contains(&probes), "{probes}");
        assert_eq!(probe_capacity(u64::MAX, technique), technique.in_flight_max);
    }

    #[test]
    fn failures_during_a_backoff_count_as_one_shortage() {
        let (mut budget, start) = (Budget::new(100), Instant::now());
        budget.handle_shortage(start, 50);
        budget.handle_shortage(start + limits::SHORTAGE_BACKOFF_MIN / 2, 10);
        assert!(budget.may_launch(start + limits::SHORTAGE_BACKOFF_MIN), "the backoff is over");
        assert_eq!(budget.capacity(), 50);
    }
}
