//! All running scans of one technique, and the budget of probes in flight that they share.
//!
//! Scans take turns to launch a few probes each, and divide the budget by need: a scan that needs
//! little gets it at once, taken from the scan that has most. There may be as many scans as probes
//! in flight (a list of targets), so no tick examines every scan: scans that may launch are in a
//! queue, and the others have a timer. The scheduler knows neither names nor clients; its scans
//! belong to jobs that it knows only by their keys. `jobs` and `schedulers` drive it.
//!
//! Invariants (`check_invariants`): `running` is the number of running scans; `in_flight` is the
//! sum over all scans, including abandoned ones; `demand` is the sum of the needs of running scans.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use super::launch_queues::{LaunchQueue, LaunchQueues};
use super::running::{
    Change, Postponed, ProbeLaunch, ProbeRef, Running, ScanRef, SchedulerOutput, running_mut,
};
use crate::budget::{self, Budget};
use crate::event::local_drops::LocalDrops;
use crate::event::{Backlog, Outcome};
use crate::limits;
use crate::scan::plan::Plan;
use crate::scan::stored::{LastPlan, StoredScan};
use crate::scan::{ProbeResult, Scan};
use crate::slots::{Key, Slots};
use crate::technique::Technique;
use crate::timers::ScanTimers;

/// The scans, their turns, and their budget.
#[derive(Debug)]
pub(super) struct Scheduler {
    technique: Technique,
    scans: Slots<Running>,
    running: usize,
    queues: LaunchQueues,
    /// The ports that wait and were not reported yet.
    postponed: Postponed,
    /// The times for which the timers of scans are set ([`Running::armed`]).
    timers: ScanTimers,
    /// Ended scans with probes still in flight.
    abandoned: Vec<Scan>,
    last_plan: LastPlan,
    budget: Budget,
    in_flight: usize,
    /// The number of probes that all running scans need, and the number that they were granted.
    demand: usize,
    granted: usize,
    launches_left: usize,
    closes_left: usize,
    abandons_left: usize,
    /// Buffers for the division, kept so that no tick allocates.
    keys: Vec<Key>,
    claims: Vec<usize>,
    order: Vec<usize>,
    /// Scans that have more probes in flight than they were granted.
    surplus: Vec<Key>,
    /// Whether any scan was granted less than it needs.
    is_scarce: bool,
    /// Whether a scan ended while the budget was scarce.
    wants_division: bool,
    divided_at: Option<Instant>,
}

impl Scheduler {
    /// No scans, and a budget of `probes` probes of one technique in flight.
    pub(super) fn new(technique: Technique, probes: usize) -> Self {
        Self {
            technique,
            scans: Slots::new(),
            running: 0,
            queues: LaunchQueues::new(probes),
            postponed: Postponed::default(),
            timers: ScanTimers::default(),
            abandoned: Vec::new(),
            last_plan: LastPlan::default(),
            budget: Budget::new(probes),
            in_flight: 0,
            demand: 0,
            granted: 0,
            launches_left: technique.properties().launches_per_tick,
            closes_left: technique.properties().closes_per_tick,
            abandons_left: limits::ABANDONS_PER_TICK,
            keys: Vec::new(),
            claims: Vec::new(),
            order: Vec::new(),
            surplus: Vec::new(),
            is_scarce: false,
            wants_division: false,
            divided_at: None,
        }
    }

    /// Limits the new probes of all scans together, per second.
    pub(super) fn set_rate(&mut self, rate: NonZeroU32) {
        self.budget.set_rate(rate);
    }

    /// Begins a scan for a job.
    pub(super) fn begin(&mut self, now: Instant, plan: Plan, job: Key) -> Key {
        let mut scan = StoredScan::new(now, plan);
        let need = scan.need();
        let is_enough = !self.is_scarce && self.granted + need <= self.budget.capacity();
        let part = (self.budget.capacity() / (self.running + 1)).max(1); // until the next division
        let allowance = if is_enough { need } else { need.min(part) };
        scan.set_allowance(allowance);
        self.queues.handle_begin(now, scan.target().ip());
        let key = self.scans.insert(Running::new(scan, job, need as u32, allowance as u32));
        self.running += 1;
        self.demand += need;
        self.granted += allowance;
        self.wants_division |= !is_enough;
        self.wake(now, key);
        self.check_invariants();
        key
    }

    /// Handles the outcome of a probe. Returns `None` if its scan has ended and the outcome is too
    /// late: its key is free, and the probe counts until [`SchedulerOutput::Forget`].
    pub(super) fn handle_outcome(
        &mut self,
        now: Instant,
        at: ProbeRef,
        outcome: Outcome,
    ) -> Option<Change> {
        let ProbeRef { scan: ScanRef { key, .. }, probe } = at;
        let Running { scan, job, .. } = self.scans.get_mut(key)?;
        let scan = scan.restore();
        self.in_flight -= 1;
        if !scan.is_running() {
            scan.handle_late(probe);
            return None;
        }
        let was_answered = scan.has_answer();
        let (job, finding) = (*job, scan.handle_outcome(now, probe, outcome));
        self.queues.take_exchanges(now, scan, self.running);
        if !was_answered && scan.has_answer() {
            self.queues.handle_answer(scan);
        }
        let is_last = !scan.is_running();
        if finding == ProbeResult::Postponed {
            self.budget.handle_shortage(now, self.in_flight);
        }
        match is_last {
            true => self.retire(key),
            false => self.wake(now, key),
        }
        Some(Change { job, finding, is_last })
    }

    /// Renews the budgets of the tick, handles all due deadlines, and divides the budget anew, once
    /// a tick. Probes to be given up are passed to `forget`, and the jobs of ended scans are
    /// returned. No probe expires while outcomes may still wait in the poller (`backlog`).
    pub(super) fn handle_tick(
        &mut self,
        now: Instant,
        backlog: Backlog,
        mut forget: impl FnMut(Key),
    ) -> Vec<Key> {
        self.launches_left = self.technique.properties().launches_per_tick;
        self.closes_left = self.technique.properties().closes_per_tick;
        self.abandons_left = limits::ABANDONS_PER_TICK;
        self.budget.handle_timeout(now);
        let mut ended = Vec::new();
        while backlog == Backlog::None
            && self.closes_left > 0
            && let Some(key) = self.timers.pop_due(now)
        {
            self.handle_due(now, key, &mut forget, &mut ended);
        }
        let is_old = self.divided_at.is_none_or(|at| {
            now - at >= limits::DIVISION_INTERVAL * u32::try_from(self.running).unwrap_or(u32::MAX)
        });
        if (self.is_scarce || self.wants_division) && is_old {
            self.divide(now);
        }
        self.give_up_surplus(&mut forget);
        self.check_invariants();
        ended
    }

    /// Ends a scan with its results so far.
    pub(super) fn end(&mut self, key: Key) {
        if let Some(Running { scan, .. }) = self.scans.get_mut(key)
            && scan.is_running()
        {
            scan.restore().handle_end();
            self.retire(key);
        }
    }

    /// Removes an ended scan and returns it with its results.
    pub(super) fn remove(&mut self, key: Key) -> Option<Scan> {
        let Running { scan, .. } = self.scans.remove(key)?;
        assert!(!scan.is_running(), "a scan is removed after its end");
        Some(scan.into_scan())
    }

    /// Gives up the probes that an ended scan has left in flight. The invariants hold again once
    /// all scans of its job were passed.
    pub(super) fn abandon(&mut self, scan: Scan) {
        if scan.in_flight() > 0 {
            self.abandoned.push(scan);
        }
    }

    /// The next output. A probe that starts uses `next_key`.
    pub(super) fn poll_output(&mut self, now: Instant, next_key: Key) -> Option<SchedulerOutput> {
        while self.abandons_left > 0
            && let Some(scan) = self.abandoned.last_mut()
        {
            if let Some(probe) = scan.poll_abandoned() {
                self.in_flight -= 1;
                self.abandons_left -= 1;
                return Some(SchedulerOutput::Forget { probe });
            }
            self.abandoned.pop();
        }
        if self.queues.poll_reading(now) {
            return Some(SchedulerOutput::ReadLocalDrops);
        }
        self.poll_launch(now, next_key).or_else(|| {
            // A scan may have been held since the last reading.
            self.queues.poll_reading(now).then_some(SchedulerOutput::ReadLocalDrops)
        })
    }

    /// Handles a reading of the packets that this machine drops, and returns the number of ports
    /// that wait because of it since the previous reading. Probes that may never have left are
    /// passed to `forget`, and their ports wait.
    pub(super) fn handle_local_drops(
        &mut self,
        now: Instant,
        reading: Option<&LocalDrops>,
        mut forget: impl FnMut(Key),
    ) -> Postponed {
        let Some(verdict) = self.queues.handle_reading(now, reading) else {
            return std::mem::take(&mut self.postponed);
        };
        let mut postponed = std::mem::take(&mut self.postponed);
        self.keys.clear();
        self.keys.extend(self.scans.iter().map(|(key, _)| key));
        for index in 0..self.keys.len() {
            let key = self.keys[index];
            let running = running_mut(&mut self.scans, key);
            let count = running.postpone(&verdict, self.queues.monitor(), &mut forget);
            if count.sum() > 0 {
                self.in_flight -= count.sum();
                postponed.add(count);
                self.wake(now, key);
            }
        }
        if postponed.conntrack > 0 {
            self.budget.handle_shortage(now, self.in_flight);
        }
        self.check_invariants();
        postponed
    }

    /// Launches one probe of the scan that has the turn.
    fn poll_launch(&mut self, now: Instant, next_key: Key) -> Option<SchedulerOutput> {
        while self.launches_left > 0 && self.may_launch(now) {
            let (key, queue) = self.queues.poll_turn(now)?;
            // A removed scan remains in the queue until its turn.
            let Some(running) = self.scans.get_mut(key) else { continue };
            running.is_queued = false;
            let target = running.scan.target().ip();
            let needs_entry = running.is_first() && running.scan.wants_launch(now);
            if needs_entry && !self.queues.admits_first(now, key, target) {
                running.is_queued = true;
                let is_new = !std::mem::replace(&mut running.was_held, true);
                self.postponed.neighbour_table += usize::from(is_new);
                continue;
            }
            let Some(launch) = running.scan.poll_launch(now, next_key, &mut self.last_plan) else {
                self.wake(now, key);
                continue;
            };
            let probe = running.take_sent();
            self.launches_left -= 1;
            self.in_flight += 1;
            self.budget.handle_launch(now);
            self.queues.handle_launch(now, queue, probe);
            self.wake(now, key);
            let scan = ScanRef { technique: self.technique, key };
            let (key, probe) = (next_key, ProbeRef { scan, probe: launch.probe });
            let launch = ProbeLaunch { key, probe, to: launch.to, check: launch.check };
            return Some(SchedulerOutput::Launch(launch));
        }
        None
    }

    /// Whether there is work that only the budgets of this tick have postponed.
    pub(super) fn has_work(&self, now: Instant) -> bool {
        self.timers.first().is_some_and(|at| at <= now)
            || !(self.abandoned.is_empty() && self.surplus.is_empty())
            || self.may_launch(now) && self.queues.has_turn(now)
    }

    /// The time of the next deadline of a scan or of the budget; `None` if there is none.
    pub(super) fn deadline(&self, now: Instant) -> Option<Instant> {
        if self.running == 0 {
            return None;
        }
        // While the budget is used up, only the end of a probe, or the budget's own deadline, lets
        // a scan continue.
        let start = self.queues.launch_at(now).filter(|_| self.may_launch(now));
        let reading = self.queues.reading_at(now);
        let division = self.wants_division.then(|| self.division_at(now));
        let budget = self.budget.deadline(now);
        let first = self.timers.first().into_iter().chain(start).chain(reading);
        first.chain(division).chain(budget).min()
    }

    /// The number of probes that all scans together could use at once.
    pub(super) const fn need(&self) -> usize {
        self.demand
    }

    /// The scan with this key, running or ended.
    pub(super) fn scan(&self, key: Key) -> Option<&StoredScan> {
        self.scans.get(key).map(|running| &running.scan)
    }

    /// The number of scans without an answer that wait for their turn to launch.
    pub(super) fn starting(&self) -> usize {
        self.queues.starting()
    }

    /// The number of scans, running or ended.
    pub(super) const fn len(&self) -> usize {
        self.scans.len()
    }

    /// The number of probes in flight, of all scans.
    pub(super) const fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// The number of probes that ended scans have left in flight.
    pub(super) fn abandoned(&self) -> usize {
        self.abandoned.iter().map(Scan::in_flight).sum()
    }

    /// The number of probes that may be in flight now.
    pub(super) const fn capacity(&self) -> usize {
        self.budget.capacity()
    }

    fn may_launch(&self, now: Instant) -> bool {
        self.in_flight < self.budget.capacity() && self.budget.may_launch(now)
    }

    fn division_at(&self, now: Instant) -> Instant {
        let interval = limits::DIVISION_INTERVAL * u32::try_from(self.running).unwrap_or(u32::MAX);
        let soonest = now + Duration::from_nanos(1);
        self.divided_at.map_or(soonest, |at| (at + interval).max(soonest))
    }

    /// Handles the due deadlines of one scan, as far as the budget of the tick permits.
    fn handle_due(
        &mut self,
        now: Instant,
        key: Key,
        forget: &mut impl FnMut(Key),
        ended: &mut Vec<Key>,
    ) {
        let running = running_mut(&mut self.scans, key);
        running.armed = None;
        debug_assert!(running.scan.is_running(), "an ended scan has no timer");
        let scan = running.scan.restore();
        scan.set_sweep_loss(self.queues.sweep_loss());
        scan.handle_timeout(now);
        while self.closes_left > 0
            && let Some(probe) = scan.poll_expired(now)
        {
            self.closes_left -= 1;
            self.in_flight -= 1;
            forget(probe);
        }
        self.queues.take_exchanges(now, scan, self.running);
        if scan.is_running() {
            self.wake(now, key);
        } else {
            ended.push(running.job);
            self.retire(key);
        }
    }

    /// Queues a running scan if it may launch, and sets its timer.
    fn wake(&mut self, now: Instant, key: Key) {
        let running = running_mut(&mut self.scans, key);
        let need = running.scan.need();
        self.demand = self.demand + need - running.need as usize;
        running.need = need as u32;
        self.wants_division |= !self.is_scarce && running.need > running.allowance; // a later pass
        // A queued scan sets its timer for the next launch after its turn.
        let launch_at = if running.is_queued { None } else { running.scan.launch_at(now) };
        if launch_at.is_some_and(|at| at <= now) {
            running.is_queued = true;
            let is_ready = running.scan.has_answer() || running.scan.target().ip().is_loopback();
            let queue = if is_ready { LaunchQueue::Ready } else { LaunchQueue::Starting };
            self.queues.push(key, queue);
        }
        let due = running.scan.deadline().into_iter().chain(launch_at.filter(|at| *at > now)).min();
        // A timer that is too early is set again when it fires. This saves work, because most
        // deadlines only move later.
        if running.armed.is_none_or(|armed| due.is_some_and(|due| due < armed)) {
            running.armed = due;
            if let Some(due) = due {
                self.timers.add(key, due);
            }
        }
        self.prune_timers();
    }

    /// Forgets timers that were replaced, after a change.
    fn prune_timers(&mut self) {
        if self.timers.is_crowded(self.scans.len()) {
            let armed = |(key, it): (Key, &Running)| it.armed.map(|at| (at, key));
            self.timers.replace(self.scans.iter().filter_map(armed));
        }
        self.timers.prune(|key, at| self.scans.get(key).is_some_and(|it| it.armed == Some(at)));
    }

    /// Divides the budget among the running scans by need.
    fn divide(&mut self, now: Instant) {
        self.divided_at = Some(now);
        self.wants_division = false;
        self.keys.clear();
        self.claims.clear();
        for (key, running) in self.scans.iter().filter(|(_, it)| it.scan.is_running()) {
            self.keys.push(key);
            self.claims.push(running.scan.need());
        }
        let capacity = self.budget.capacity();
        self.is_scarce = self.claims.iter().sum::<usize>() > capacity;
        budget::divide_max_min_fair(capacity, &mut self.claims, &mut self.order);
        self.granted = self.claims.iter().sum();
        self.surplus.clear();
        for index in 0..self.keys.len() {
            let (key, allowance) = (self.keys[index], self.claims[index]);
            let running = running_mut(&mut self.scans, key);
            if allowance == running.allowance as usize {
                continue;
            }
            running.allowance = allowance as u32;
            running.scan.set_allowance(allowance);
            if running.scan.has_surplus() {
                self.surplus.push(key);
            }
            self.wake(now, key);
        }
    }

    fn give_up_surplus(&mut self, forget: &mut impl FnMut(Key)) {
        while self.closes_left > 0
            && let Some(key) = self.surplus.last()
        {
            let scan = self.scans.get_mut(*key).map(|running| running.scan.restore());
            match scan.and_then(Scan::poll_surplus) {
                Some(probe) => {
                    self.closes_left -= 1;
                    self.in_flight -= 1;
                    forget(probe);
                }
                None => drop(self.surplus.pop()),
            }
        }
    }

    /// Removes an ended scan from the division. Its part of the budget becomes free for the others.
    fn retire(&mut self, key: Key) {
        let running = running_mut(&mut self.scans, key);
        assert!(!running.scan.is_running(), "a scan retires after its end");
        self.running -= 1;
        self.queues.handle_end(&running.scan, self.running);
        self.demand -= std::mem::take(&mut running.need) as usize;
        self.granted -= std::mem::take(&mut running.allowance) as usize;
        running.armed = None;
        self.prune_timers();
        self.wants_division |= self.is_scarce && self.running > 0;
    }

    /// Checks the invariants in the module's documentation.
    pub(super) fn check_invariants(&self) {
        if self.scans.len() > limits::CHECKED_SCANS_MAX {
            return;
        }
        let listed: usize = self.scans.iter().map(|(_, it)| it.scan.in_flight()).sum();
        debug_assert_eq!(self.in_flight, listed + self.abandoned(), "1: `in_flight` is correct");
        let running = || self.scans.iter().map(|(_, it)| it).filter(|it| it.scan.is_running());
        debug_assert_eq!(running().count(), self.running, "2: `running` is correct");
        let needed: usize = running().map(|it| it.need as usize).sum();
        debug_assert_eq!(needed, self.demand, "3: `demand` is correct");
        let granted: usize = running().map(|it| it.allowance as usize).sum();
        debug_assert_eq!(granted, self.granted, "4: `granted` is correct");
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::net::IpAddr;

    use super::*;
    use crate::event::local_drops::NeighbourTable;
    use crate::port_set::PortSet;
    use crate::scan::ledger::PortState;
    use crate::scan::options::{Retries, ScanOptions};
    use crate::scan::plan::RateShare;

    /// The neighbour table of a kernel: an address that does not answer keeps its entry for three
    /// seconds.
    #[derive(Default)]
    struct Table {
        entries: BTreeMap<IpAddr, Instant>,
        /// The number of entries of another program, and the time at which they expire.
        others: Option<(usize, Instant)>,
        refused: u64,
    }

    const ENTRIES_MAX: usize = 64;
    const RESOLUTION: Duration = Duration::from_secs(3);

    impl Table {
        fn used(&mut self, now: Instant) -> usize {
            self.entries.retain(|_, until| *until > now);
            let others = self.others.filter(|(_, until)| *until > now);
            self.entries.len() + others.map_or(0, |(count, _)| count)
        }

        /// Whether a packet to this address finds an entry.
        fn admits(&mut self, now: Instant, address: IpAddr) -> bool {
            let is_full = self.used(now) >= ENTRIES_MAX;
            if is_full && !self.entries.contains_key(&address) {
                self.refused += 1;
                return false;
            }
            self.entries.entry(address).or_insert(now + RESOLUTION);
            true
        }

        fn reading(&mut self, now: Instant) -> LocalDrops {
            let (used, entries_max) = (self.used(now) as u32, ENTRIES_MAX as u32);
            let table = NeighbourTable { entries_max, used, refused: self.refused };
            let networks = vec![([10, 77, 0, 1].into(), 16)];
            LocalDrops { tables: [Some(table), None], networks, ..LocalDrops::default() }
        }
    }

    fn is_alive(address: IpAddr) -> bool {
        matches!(address, IpAddr::V4(address) if address.octets()[3].is_multiple_of(10))
    }

    /// Regression: the loop spun while a shortage paused all scans and the time of a scan's next
    /// launch passed.
    #[test]
    fn a_launch_that_is_due_while_all_scans_pause_is_neither_work_nor_a_deadline() {
        let start = Instant::now();
        let mut scheduler = Scheduler::new(Technique::Connect, 10);
        let rate = NonZeroU32::new(1000);
        let plan = Plan {
            target: ([127, 0, 0, 1], 0).into(),
            is_routed: true,
            share: RateShare::WHOLE,
            ports: PortSet::from_range(1, 9),
            options: ScanOptions { rate, ..ScanOptions::default() },
            ends_at: start + Duration::from_secs(300),
        };
        let mut keys = Slots::<ProbeRef>::new();
        scheduler.begin(start, plan, Slots::new().insert(()));
        scheduler.handle_tick(start, Backlog::None, |_| {});
        let output = scheduler.poll_output(start, keys.next_key());
        let Some(SchedulerOutput::Launch(launch)) = output else { panic!("{output:?}") };
        keys.insert(launch.probe);
        let shortage = Outcome::Shortage(crate::event::Shortage::Memory);
        scheduler.handle_outcome(start, launch.probe, shortage);
        let pause = limits::SHORTAGE_BACKOFF_MIN;
        assert!(pause > Duration::from_millis(3), "the rate permits a launch before its end");
        for now in (0..=3).map(|passed| start + Duration::from_millis(passed)) {
            scheduler.handle_tick(now, Backlog::None, |_| {});
            assert!(scheduler.poll_output(now, keys.next_key()).is_none(), "all scans pause");
            assert!(!scheduler.has_work(now), "there is no work at {:?}", now - start);
            assert!(scheduler.deadline(now).is_some_and(|at| at > now), "no deadline is due");
        }
        scheduler.handle_tick(start + pause, Backlog::None, |_| {});
        assert!(scheduler.has_work(start + pause), "the pause is over");
    }

    /// Regression: a scan kept what it was granted for its last ports of a pass in the next pass.
    #[test]
    fn a_scan_that_needs_more_in_a_further_pass_is_granted_more() {
        let start = Instant::now();
        let mut scheduler = Scheduler::new(Technique::Connect, 500);
        let plan = |ports, retries| Plan {
            target: ([192, 0, 2, 1], 0).into(),
            is_routed: true,
            share: RateShare::WHOLE,
            ports: PortSet::from_range(1, ports),
            options: ScanOptions { retries, ..ScanOptions::default() },
            ends_at: start + Duration::from_secs(300),
        };
        let job = Slots::new().insert(());
        let mut probes = Slots::<ProbeRef>::new();
        let first = scheduler.begin(start, plan(400, Retries::Exactly(1)), job);
        let (mut now, mut other) = (start, None);
        let mut most = 0;
        while scheduler.scan(first).is_some_and(StoredScan::is_running) {
            assert!(now < start + Duration::from_secs(100), "the scan ends");
            let left = scheduler.scan(first).map_or(0, StoredScan::in_flight);
            let is_late = now > start + Duration::from_secs(1);
            if is_late && left < 100 && other.is_none() {
                other = Some(scheduler.begin(now, plan(400, Retries::Exactly(0)), job));
            }
            if now > start + Duration::from_secs(3) {
                most = most.max(left);
            }
            scheduler.handle_tick(now, Backlog::None, |probe| {
                probes.remove(probe);
            });
            while let Some(output) = scheduler.poll_output(now, probes.next_key()) {
                if let SchedulerOutput::Launch(launch) = output {
                    probes.insert(launch.probe);
                } else if let SchedulerOutput::ReadLocalDrops = output {
                    scheduler.handle_local_drops(now, None, |_| {});
                }
            }
            now += Duration::from_millis(1);
        }
        assert!(other.is_some() && most > 200, "{most} probes in flight");
    }

    /// Scans one port of each address. Returns for each address whether the port is open, and the
    /// number of refused entries.
    fn sweep(
        addresses: &[IpAddr],
        mut table: Table,
        start: Instant,
    ) -> (Vec<PortState>, u64, Postponed) {
        let (mut scheduler, mut probes) =
            (Scheduler::new(Technique::Connect, 1000), Slots::<ProbeRef>::new());
        let job = Slots::new().insert(());
        let mut now = start;
        let begin = |address: &IpAddr| {
            let plan = Plan {
                target: (*address, 22).into(),
                is_routed: true,
                share: RateShare::WHOLE,
                ports: PortSet::from_range(22, 22),
                options: ScanOptions::default(),
                ends_at: now + Duration::from_secs(300),
            };
            scheduler.begin(now, plan, job)
        };
        let keys: Vec<Key> = addresses.iter().map(begin).collect();
        let mut postponed = Postponed::default();
        while keys.iter().any(|key| scheduler.scan(*key).is_some_and(StoredScan::is_running)) {
            assert!(now < start + Duration::from_secs(100), "the scan ends");
            scheduler.handle_tick(now, Backlog::None, |probe| {
                probes.remove(probe);
            });
            while let Some(output) = scheduler.poll_output(now, probes.next_key()) {
                match output {
                    SchedulerOutput::ReadLocalDrops => {
                        let reading = table.reading(now);
                        let forget = |probe| {
                            probes.remove(probe);
                        };
                        postponed.add(scheduler.handle_local_drops(now, Some(&reading), forget));
                    }
                    SchedulerOutput::Launch(ProbeLaunch { key, probe, to, .. }) => {
                        assert_eq!(probes.insert(probe), key);
                        let is_sent = table.admits(now, to.ip());
                        if is_sent && is_alive(to.ip()) {
                            let probe = probes.remove(key).expect("the probe is in flight");
                            scheduler.handle_outcome(now, probe, Outcome::Connected);
                        }
                    }
                    SchedulerOutput::Forget { probe } => {
                        probes.remove(probe);
                    }
                }
            }
            let next = scheduler.deadline(now).unwrap_or(now);
            now = next.max(now + Duration::from_millis(1));
        }
        let state = |key: &Key| {
            let scan = scheduler.scan(*key).expect("the scan exists");
            [PortState::Open, PortState::Filtered, PortState::Untested]
                .into_iter()
                .find(|state| !scan.ports(*state).is_empty())
                .expect("its port has a state")
        };
        (keys.iter().map(state).collect(), table.refused, postponed)
    }

    fn check(count: u16, table: Table, start: Instant) -> (u64, Postponed) {
        let address = |n: u16| IpAddr::from([10, 77, (n / 250) as u8, (n % 250) as u8]);
        let addresses: Vec<IpAddr> = (0..count).map(address).collect();
        let (states, refused, postponed) = sweep(&addresses, table, start);
        for (address, state) in addresses.iter().zip(states) {
            let expected = if is_alive(*address) { PortState::Open } else { PortState::Filtered };
            assert_eq!(state, expected, "{address}");
        }
        (refused, postponed)
    }

    #[test]
    fn addresses_that_do_not_resolve_displace_none_that_do() {
        let (refused, postponed) = check(1000, Table::default(), Instant::now());
        assert_eq!(refused, 0, "the table never fills");
        assert!(postponed.neighbour_table > 500, "most wait: {postponed:?}");
    }

    #[test]
    fn ports_whose_probes_another_program_displaces_are_probed_again() {
        let start = Instant::now();
        let others = Some((ENTRIES_MAX, start + Duration::from_secs(10)));
        let (refused, _) = check(200, Table { others, ..Table::default() }, start);
        assert!(refused > 0, "some trials meet the full table");
    }

    #[test]
    fn a_table_with_free_entries_causes_no_wait() {
        let (refused, postponed) = check(50, Table::default(), Instant::now());
        assert_eq!((refused, postponed), (0, Postponed::default()));
    }

    /// Scans an address without answers, or with one, and returns the numbers of ports that
    /// `readings` postpone, one after the other. The first reading is all zeros.
    fn postponements(target: [u8; 4], has_answer: bool, readings: &[LocalDrops]) -> Vec<Postponed> {
        let start = Instant::now();
        let mut scheduler = Scheduler::new(Technique::Connect, 1000);
        let plan = Plan {
            target: (target, 0).into(),
            is_routed: true,
            share: RateShare::WHOLE,
            ports: PortSet::from_range(1, 50),
            options: ScanOptions { retries: Retries::Exactly(0), ..ScanOptions::default() },
            ends_at: start + Duration::from_secs(300),
        };
        let mut probes = Slots::<ProbeRef>::new();
        scheduler.begin(start, plan, Slots::new().insert(()));
        let first = drops(0, 0, 0);
        let mut readings = std::iter::once(&first).chain(readings);
        let (mut postponed, mut answered) = (Vec::new(), !has_answer);
        for now in (0..1_000).map(|round| start + Duration::from_millis(50) * round) {
            scheduler.handle_tick(now, Backlog::None, |_| {});
            while let Some(output) = scheduler.poll_output(now, probes.next_key()) {
                match output {
                    SchedulerOutput::ReadLocalDrops => {
                        let Some(reading) = readings.next() else { return postponed };
                        let (before, mut forgotten) = (scheduler.in_flight(), 0);
                        let count = scheduler.handle_local_drops(now, Some(reading), |probe| {
                            probes.remove(probe).expect("the probe is in flight");
                            forgotten += 1;
                        });
                        assert_eq!(forgotten, count.sum(), "each forgotten probe is counted");
                        assert_eq!(scheduler.in_flight(), before - forgotten);
                        if reading != &first {
                            postponed.push(count);
                        }
                    }
                    SchedulerOutput::Launch(ProbeLaunch { key, probe, .. }) => {
                        assert_eq!(probes.insert(probe), key);
                        if !std::mem::replace(&mut answered, true) {
                            probes.remove(key);
                            scheduler.handle_outcome(now, probe, Outcome::Refused);
                        }
                    }
                    SchedulerOutput::Forget { probe } => {
                        probes.remove(probe);
                    }
                }
            }
        }
        unreachable!("the counters are read until the readings are used up")
    }

    /// A reading with these numbers of refused entries and of dropped packets.
    fn drops(refused: u64, conntrack: u64, queues: u64) -> LocalDrops {
        let table = NeighbourTable { entries_max: 1024, used: 512, refused };
        let networks = vec![([10, 77, 0, 1].into(), 16)];
        LocalDrops { tables: [Some(table), None], networks, conntrack: Some(conntrack), queues }
    }

    #[test]
    fn the_probes_that_this_machine_may_have_dropped_are_postponed_and_counted() {
        const NEAR: [u8; 4] = [10, 77, 0, 9];
        const FAR: [u8; 4] = [192, 0, 2, 9];
        let check = |target, has_answer, reading, expected: [bool; 3]| {
            let postponed = postponements(target, has_answer, &[reading])[0];
            let Postponed { neighbour_table, conntrack, queue } = postponed;
            let found = [neighbour_table, conntrack, queue].map(|count| count > 1);
            assert_eq!(found, expected, "{target:?} {has_answer} {postponed:?}");
        };
        check(NEAR, false, drops(9, 0, 0), [true, false, false]);
        check(NEAR, true, drops(9, 0, 0), [false; 3]);
        check(FAR, false, drops(9, 0, 0), [false; 3]);
        check(FAR, false, drops(0, 9, 0), [false, true, false]);
        check(FAR, true, drops(0, 9, 0), [false, true, false]);
        check(FAR, false, drops(0, 0, 9), [false, false, true]);
        check(FAR, true, drops(0, 0, 9), [false; 3]);
        check(NEAR, false, drops(9, 9, 9), [true, false, false]);
        check(FAR, false, drops(9, 9, 9), [false, true, false]);
    }

    #[test]
    fn a_full_queue_postpones_the_probes_of_a_scan_sixteen_times() {
        let readings: Vec<LocalDrops> = (1..=20).map(|count| drops(0, 0, 9 * count)).collect();
        let postponed = postponements([192, 0, 2, 9], false, &readings);
        let times = postponed.iter().filter(|count| count.queue > 0).count();
        assert_eq!(times, 16, "{postponed:?}");
    }
}
