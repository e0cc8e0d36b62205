//! The schedulers, one for each technique.
//!
//! Each engine has its own bounds: a connect needs a descriptor, a SYN does not. Therefore each
//! technique has a scheduler with its own budget and start pace. Scans of different techniques
//! compete only for the time of the event loop, in which the schedulers take turns. This module
//! decides nothing about single scans: `jobs` reaches the scheduler of a scan by its technique.
//! `jobs` and `core` drive it.

use std::num::NonZeroU32;
use std::time::Instant;

use super::running::{Postponed, ScanRef, SchedulerOutput};
use super::scheduler::Scheduler;
use crate::budget::Shares;
use crate::event::Backlog;
use crate::event::local_drops::LocalDrops;
use crate::scan::Scan;
use crate::scan::stored::StoredScan;
use crate::slots::Key;
use crate::technique::{PerTechnique, Technique};

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Schedulers {
    schedulers: PerTechnique<Scheduler>,
    /// The technique that has the next turn.
    turn: Technique,
}

impl Schedulers {
    /// No scans, and a budget for each technique.
    pub(super) fn new(shares: &Shares) -> Self {
        let scheduler = |technique| Scheduler::new(technique, shares.probes[technique]);
        Self { schedulers: PerTechnique::new(scheduler), turn: Technique::default() }
    }

    /// Limits the rate of new probes per second, for all scans of one technique together.
    pub(super) fn set_rate(&mut self, rate: NonZeroU32) {
        self.schedulers.iter_mut().for_each(|it| it.set_rate(rate));
    }

    /// See [`Scheduler::handle_tick`].
    pub(super) fn handle_tick(
        &mut self,
        now: Instant,
        backlog: Backlog,
        mut forget: impl FnMut(Key),
    ) -> Vec<Key> {
        let ticks = self.schedulers.iter_mut();
        ticks.flat_map(|it| it.handle_tick(now, backlog, &mut forget)).collect()
    }

    /// See [`Scheduler::handle_local_drops`].
    pub(super) fn handle_local_drops(
        &mut self,
        now: Instant,
        reading: Option<&LocalDrops>,
        mut forget: impl FnMut(Key),
    ) -> Postponed {
        let mut postponed = Postponed::default();
        for scheduler in self.schedulers.iter_mut() {
            postponed.add(scheduler.handle_local_drops(now, reading, &mut forget));
        }
        postponed
    }

    /// Gives up the probes that ended scans have left in flight.
    pub(super) fn abandon(&mut self, scans: Vec<Scan>) {
        for scan in scans {
            self.of_mut(scan.technique()).abandon(scan);
        }
        self.schedulers.iter().for_each(Scheduler::check_invariants);
    }

    /// The next output. A probe that starts uses `next_key`. In the next call, the next technique
    /// has the first turn.
    pub(super) fn poll_output(&mut self, now: Instant, next_key: Key) -> Option<SchedulerOutput> {
        let first = self.turn;
        self.turn = first.next();
        let turns = std::iter::successors(Some(first), |it| Some(it.next()));
        let mut turns = turns.take(Technique::ALL.len());
        turns.find_map(|technique| self.schedulers[technique].poll_output(now, next_key))
    }

    /// Whether there is work that only the budgets of this tick have postponed.
    pub(super) fn has_work(&self, now: Instant) -> bool {
        self.schedulers.iter().any(|it| it.has_work(now))
    }

    /// The time of the next deadline.
    pub(super) fn deadline(&self, now: Instant) -> Option<Instant> {
        self.schedulers.iter().filter_map(|it| it.deadline(now)).min()
    }

    /// The scan with this key, running or ended.
    pub(super) fn scan(&self, scan: ScanRef) -> Option<&StoredScan> {
        self.of(scan.technique).scan(scan.key)
    }

    /// The number of scans, running or ended.
    pub(super) fn len(&self) -> usize {
        self.schedulers.iter().map(Scheduler::len).sum()
    }

    /// The number of probes in flight, of all scans.
    pub(super) fn in_flight(&self) -> usize {
        self.schedulers.iter().map(Scheduler::in_flight).sum()
    }

    /// The number of probes in flight without those that ended scans have left.
    pub(super) fn attended(&self) -> usize {
        self.schedulers.iter().map(|it| it.in_flight() - it.abandoned()).sum()
    }

    /// The scheduler of a technique.
    pub(super) fn of(&self, technique: Technique) -> &Scheduler {
        &self.schedulers[technique]
    }

    /// See [`Schedulers::of`].
    pub(super) fn of_mut(&mut self, technique: Technique) -> &mut Scheduler {
        &mut self.schedulers[technique]
    }
}
