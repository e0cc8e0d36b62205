//! All scans that run, and the connects they share.
//!
//! Scans take turns to launch, one connect each, and divide the budget by need: who needs little
//! gets it at once, taken from who has most. It knows neither names nor clients; its scans belong
//! to jobs it only knows by their keys. Driven by `jobs`.
//!
//! Invariants (`check_invariants`): a scan stands in `turns` exactly while it runs; `in_flight`
//! is the sum over all scans, those abandoned included.

use std::num::NonZeroU32;
use std::time::Instant;

use super::Role;
use crate::budget::{self, Budget};
use crate::event::{Action, Outcome, Parting, Transport};
use crate::limits;
use crate::scan::plan::Plan;
use crate::scan::probes::ProbeId;
use crate::scan::{Finding, Scan};
use crate::slots::{Key, Slots};

#[derive(Debug)]
struct Running {
    scan: Scan,
    job: Key,
}

/// What a probe's end changed, for the scan's job.
#[derive(Debug)]
pub(super) struct Change {
    /// The job of the scan.
    pub(super) job: Key,
    /// What was found.
    pub(super) finding: Finding,
    /// True exactly when that ended the scan.
    pub(super) is_last: bool,
}

/// The scans, their turns, and their budget.
#[derive(Debug)]
pub(super) struct Fleet {
    scans: Slots<Running>,
    /// Running scans; `turn` is the place of the one that launched last.
    turns: Vec<Key>,
    turn: usize,
    /// Ended scans with sockets still to be closed.
    abandoned: Vec<Scan>,
    budget: Budget,
    in_flight: usize,
    launches_left: usize,
    closes_left: usize,
    /// Scratch space of the division, so that no turn allocates.
    claims: Vec<usize>,
    order: Vec<usize>,
    /// True exactly when the last division left some scan with less than it needed.
    is_scarce: bool,
}

impl Fleet {
    /// No scans, and a budget of `probes` connects in flight.
    pub(super) fn new(probes: usize) -> Self {
        Self {
            scans: Slots::new(),
            turns: Vec::new(),
            turn: 0,
            abandoned: Vec::new(),
            budget: Budget::new(probes),
            in_flight: 0,
            launches_left: limits::LAUNCHES_PER_TURN,
            closes_left: limits::CLOSES_PER_TURN,
            claims: Vec::new(),
            order: Vec::new(),
            is_scarce: false,
        }
    }

    /// Holds all scans together to so many new connects per second.
    pub(super) fn set_rate(&mut self, rate: NonZeroU32) {
        self.budget.set_rate(rate);
    }

    /// Begins a scan for a job.
    pub(super) fn begin(&mut self, now: Instant, plan: Plan, job: Key) -> Key {
        let key = self.scans.insert(Running { scan: Scan::new(now, plan), job });
        self.turns.push(key);
        self.allot();
        self.check_invariants();
        key
    }

    /// Takes in what a probe's connect came to. `None` if its scan has ended: the socket is then
    /// closed with the scan's others, else it is the caller's to close.
    pub(super) fn handle_outcome(
        &mut self,
        now: Instant,
        at: (Key, ProbeId),
        outcome: Outcome,
    ) -> Option<Change> {
        let (key, probe) = at;
        let Running { scan, job } = self.scans.get_mut(key)?;
        if !scan.is_running() {
            return None;
        }
        self.in_flight -= 1;
        let (job, finding) = (*job, scan.handle_outcome(now, probe, outcome));
        let is_last = !scan.is_running();
        if finding == Finding::Postponed {
            self.budget.handle_shortage(now, self.in_flight);
        }
        if is_last {
            self.retire(key);
        }
        Some(Change { job, finding, is_last })
    }

    /// Once a turn: renews the turn's budgets, ends what is due, and divides the connects anew.
    /// Sockets to be closed go to `close`; the jobs whose scans ended are returned.
    pub(super) fn handle_tick(&mut self, now: Instant, mut close: impl FnMut(Key)) -> Vec<Key> {
        self.launches_left = limits::LAUNCHES_PER_TURN;
        self.closes_left = limits::CLOSES_PER_TURN;
        self.budget.handle_timeout(now);
        let mut ended = Vec::new();
        for place in (0..self.turns.len()).rev() {
            let key = self.turns[place];
            let Some(Running { scan, job }) = self.scans.get_mut(key) else { continue };
            scan.handle_timeout(now);
            while self.closes_left > 0
                && let Some(socket) = scan.poll_expired(now)
            {
                self.closes_left -= 1;
                self.in_flight -= 1;
                close(socket);
            }
            if !scan.is_running() {
                ended.push(*job);
                self.retire(key);
            }
        }
        self.allot();
        for key in &self.turns {
            let Some(Running { scan, .. }) = self.scans.get_mut(*key) else { continue };
            while self.closes_left > 0
                && let Some(socket) = scan.poll_surplus()
            {
                self.closes_left -= 1;
                self.in_flight -= 1;
                close(socket);
            }
        }
        self.check_invariants();
        ended
    }

    /// Ends a scan as it stands.
    pub(super) fn end(&mut self, key: Key) {
        if let Some(Running { scan, .. }) = self.scans.get_mut(key) {
            scan.handle_end();
            self.retire(key);
        }
    }

    /// Takes an ended scan out, with whatever it has found.
    pub(super) fn remove(&mut self, key: Key) -> Option<Scan> {
        let Running { scan, .. } = self.scans.remove(key)?;
        assert!(!scan.is_running(), "a scan is removed after its end");
        Some(scan)
    }

    /// Has the sockets closed that ended scans left behind.
    pub(super) fn abandon(&mut self, scans: Vec<Scan>) {
        self.abandoned.extend(scans.into_iter().filter(|scan| scan.in_flight() > 0));
        self.check_invariants();
    }

    /// The next thing to be done: sockets to close, connects to start.
    pub(super) fn poll_action(
        &mut self,
        now: Instant,
        sockets: &mut Slots<Role>,
    ) -> Option<Action> {
        while let Some(scan) = self.abandoned.last_mut() {
            if let Some(socket) = scan.poll_abandoned() {
                self.in_flight -= 1;
                sockets.remove(socket);
                return Some(Action::Close { socket, parting: Parting::Ordinary });
            }
            self.abandoned.pop();
        }
        self.poll_launch(now, sockets)
    }

    /// One connect of the scan whose turn it is; the turn then passes on.
    fn poll_launch(&mut self, now: Instant, sockets: &mut Slots<Role>) -> Option<Action> {
        if self.launches_left == 0 || !self.may_launch(now) {
            return None;
        }
        for _ in 0..self.turns.len() {
            self.turn = (self.turn + 1) % self.turns.len();
            let key = self.turns[self.turn];
            let Some(Running { scan, .. }) = self.scans.get_mut(key) else { continue };
            if !scan.wants_launch(now) {
                continue;
            }
            let socket = sockets.insert(Role::Reserved);
            let launch = scan.poll_launch(now, socket)?;
            if let Some(role) = sockets.get_mut(socket) {
                *role = Role::Probe { scan: key, probe: launch.probe };
            }
            self.launches_left -= 1;
            self.in_flight += 1;
            self.budget.handle_launch(now);
            let (to, glance) = (launch.to, launch.glance);
            return Some(Action::Connect { socket, to, transport: Transport::Tcp, glance });
        }
        None
    }

    /// True exactly when something can be done at once that this turn's budgets postponed.
    pub(super) fn has_work(&self, now: Instant) -> bool {
        let may_launch = self.may_launch(now);
        self.running().any(|scan| {
            scan.deadline().is_some_and(|deadline| deadline <= now)
                || scan.has_surplus()
                || may_launch && scan.wants_launch(now)
        })
    }

    /// When a scan or the budget has something due; `None` while neither has.
    pub(super) fn deadline(&self, now: Instant) -> Option<Instant> {
        let scans = self.running().filter_map(Scan::deadline);
        // Without room it is a connect's end, or the budget's, that lets a paced scan go on.
        let may_launch = self.may_launch(now);
        let pace = self.running().filter_map(Scan::paced_until).filter(|_| may_launch);
        let budget = self.budget.deadline(now).filter(|_| !self.turns.is_empty());
        scans.chain(pace).chain(budget).min()
    }

    /// Connects that all scans together could use at once.
    pub(super) fn need(&self) -> usize {
        self.running().map(Scan::need).sum()
    }

    /// A scan, running or ended.
    pub(super) fn scan(&self, key: Key) -> Option<&Scan> {
        self.scans.get(key).map(|running| &running.scan)
    }

    /// Scans, running or ended.
    pub(super) fn len(&self) -> usize {
        self.scans.len()
    }

    /// Connects in flight, of all scans.
    pub(super) const fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Connects that may be in flight just now.
    pub(super) const fn capacity(&self) -> usize {
        self.budget.capacity()
    }

    fn may_launch(&self, now: Instant) -> bool {
        self.in_flight < self.budget.capacity() && self.budget.may_launch(now)
    }

    fn running(&self) -> impl Iterator<Item = &Scan> {
        self.turns.iter().filter_map(|key| self.scan(*key))
    }

    /// Divides the budget between the running scans, by need.
    fn allot(&mut self) {
        self.claims.clear();
        for key in &self.turns {
            self.claims.push(self.scans.get(*key).map_or(0, |running| running.scan.need()));
        }
        let capacity = self.budget.capacity();
        self.is_scarce = self.claims.iter().sum::<usize>() > capacity;
        budget::share_out(capacity, &mut self.claims, &mut self.order);
        for (key, grant) in self.turns.iter().zip(&self.claims) {
            if let Some(Running { scan, .. }) = self.scans.get_mut(*key) {
                scan.set_allowance(*grant);
            }
        }
    }

    /// Takes an ended scan out of the turns. What it was granted goes to the others at once, if
    /// they lack any: one that was granted nothing has no deadline to wake it but its end.
    fn retire(&mut self, key: Key) {
        if let Some(place) = self.turns.iter().position(|turn| *turn == key) {
            self.turns.remove(place);
            if self.is_scarce {
                self.allot();
            }
        }
    }

    fn check_invariants(&self) {
        debug_assert_eq!(
            self.in_flight,
            self.scans.iter().map(|(_, running)| running.scan.in_flight()).sum::<usize>()
                + self.abandoned.iter().map(Scan::in_flight).sum::<usize>(),
            "1: what is in flight is counted"
        );
        let running = self.scans.iter().filter(|(_, running)| running.scan.is_running());
        debug_assert!(
            running.count() == self.turns.len() && self.running().all(Scan::is_running),
            "2: who runs takes turns"
        );
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;
    use std::time::Duration;

    use super::*;
    use crate::event::Shortage;
    use crate::target::{PortSet, Retries, Timeout};

    const MILLI: Duration = Duration::from_millis(1);

    fn plan(now: Instant, last_port: u16, rate: Option<u32>) -> Plan {
        Plan {
            target: ([192, 0, 2, 1], 0).into(),
            is_routed: true,
            ports: PortSet::from_range(1, last_port),
            timeout: Timeout::Fixed(1000 * MILLI),
            retries: Retries::Exactly(0),
            concurrency: last_port.into(),
            rate: rate.and_then(NonZeroU32::new),
            ends_at: now + 60_000 * MILLI,
        }
    }

    /// Launches one connect and tells what came of it; false if none was to be launched.
    fn launch(fleet: &mut Fleet, now: Instant, outcome: Outcome) -> bool {
        let mut sockets = Slots::new();
        let Some(Action::Connect { socket, .. }) = fleet.poll_action(now, &mut sockets) else {
            return false;
        };
        let Some(Role::Probe { scan, probe }) = sockets.remove(socket) else {
            panic!("a connect is a probe's");
        };
        fleet.handle_outcome(now, (scan, probe), outcome).is_some()
    }

    #[test]
    fn a_pace_that_passes_while_all_rest_is_not_due() {
        let start = Instant::now();
        let job = Key::from_parts(0, 0);
        let mut fleet = Fleet::new(10);
        fleet.begin(start, plan(start, 9, Some(1000)), job);
        assert!(launch(&mut fleet, start, Outcome::Shortage(Shortage::Memory)));
        let rested = fleet.deadline(start).expect("a rest ends");
        assert!(rested > start + 2 * MILLI, "the pace would come first");
        for now in [start, start + MILLI, start + 2 * MILLI] {
            fleet.handle_tick(now, |_| {});
            assert!(!fleet.has_work(now), "nothing is to be done while all rest");
            assert_eq!(fleet.deadline(now), Some(rested));
        }
        fleet.handle_tick(rested, |_| {});
        assert!(fleet.has_work(rested), "then the pace has passed long since");
    }

    /// Thousands of sockets that expire at once would keep everybody else waiting.
    #[test]
    fn a_turn_closes_so_many_sockets_and_the_next_goes_on() {
        let start = Instant::now();
        let mut fleet = Fleet::new(1000);
        fleet.begin(start, plan(start, 1000, None), Key::from_parts(0, 0));
        let mut sockets = Slots::new();
        assert_eq!((fleet.in_flight(), fleet.capacity()), (0, 1000));
        while fleet.in_flight < 1000 {
            fleet.handle_tick(start, |_| panic!("nothing is due"));
            let before = fleet.in_flight;
            while fleet.poll_action(start, &mut sockets).is_some() {}
            assert_eq!(fleet.in_flight - before, limits::LAUNCHES_PER_TURN.min(1000 - before));
        }
        assert_eq!(fleet.in_flight(), 1000);
        let due = start + 1000 * MILLI;
        let mut turns = Vec::new();
        while fleet.in_flight > 500 {
            let mut closed = 0;
            fleet.handle_tick(due, |_| closed += 1);
            turns.push(closed);
        }
        assert_eq!(turns, [limits::CLOSES_PER_TURN; 4]);
    }

    /// A shortage makes the budget small at once, and what is too much goes turn by turn.
    #[test]
    fn a_turn_closes_so_many_of_what_is_too_much() {
        let start = Instant::now();
        let mut fleet = Fleet::new(400);
        fleet.begin(start, plan(start, 1000, None), Key::from_parts(0, 0));
        let mut sockets = Slots::new();
        while fleet.in_flight < 400 {
            fleet.handle_tick(start, |_| panic!("nothing is due"));
            while fleet.poll_action(start, &mut sockets).is_some() {}
        }
        fleet.begin(start, plan(start, 1000, None), Key::from_parts(1, 0));
        let mut turns = Vec::new();
        while fleet.in_flight > 200 {
            let mut closed = 0;
            fleet.handle_tick(start, |_| closed += 1);
            turns.push(closed);
        }
        assert_eq!(turns, [limits::CLOSES_PER_TURN, 200 - limits::CLOSES_PER_TURN]);
    }

    #[test]
    fn a_scan_that_was_granted_nothing_gets_what_an_ended_one_leaves_in_the_same_turn() {
        let now = Instant::now();
        let mut fleet = Fleet::new(1);
        for job in 0..3 {
            fleet.begin(now, plan(now, 2, None), Key::from_parts(job, 0));
        }
        fleet.handle_tick(now, |_| {});
        let mut launched = 0;
        while launch(&mut fleet, now, Outcome::Refused) {
            launched += 1;
        }
        assert_eq!(launched, 6, "every port of every scan was tried");
        assert!(!fleet.has_work(now) && fleet.deadline(now).is_none());
    }
}
