//! The queues of scans that may launch a probe. Scans take turns of up to [`TURN_PROBES`] probes.
//!
//! A scan that received an answer, or whose target is this machine, has a pace of its own. Scans
//! without any answer yet share one pace ([`StartPace`]), and all scans share another one if many
//! of them lose packets ([`SharedPace`]). If the first probe of a scan needs an entry of a full
//! neighbour table, the scan is held until there are free entries ([`DropMonitor`]). This module
//! never examines a scan, except for its exchanges: `scheduler` drives it and knows what the keys
//! stand for.
//!
//! Invariant: a key is in at most one queue.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Instant;

use super::drop_monitor::{DropMonitor, DropVerdict, SentProbe};
use super::shared_pace::SharedPace;
use super::start_pace::{Arrival, StartPace};
use crate::event::local_drops::LocalDrops;
use crate::scan::Scan;
use crate::scan::stored::StoredScan;
use crate::scan::sweep::SweepLoss;
use crate::slots::Key;

/// The maximum number of probes in one turn: as many as a scan without an answer sends at once
/// (`scan::silent_pace`). The probes of one turn expire together, so they need one timer, and the
/// processor reads the data of their scan from memory once.
const TURN_PROBES: usize = 8;

/// The queue to which a scan belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LaunchQueue {
    /// The scan received an answer, or its target is this machine.
    Ready,
    /// The scan has received no answer yet.
    Starting,
}

/// Scans that take turns.
#[derive(Debug, Default)]
struct TurnQueue {
    keys: VecDeque<Key>,
    /// The scan that has the turn, and the number of probes that are left of it.
    turn: Option<(Key, usize)>,
}

impl TurnQueue {
    /// Adds a scan: to the front while it has the turn, otherwise to the end.
    fn push(&mut self, key: Key) {
        match self.turn {
            Some((turn, left)) if turn == key && left > 0 => self.keys.push_front(key),
            Some(_) | None => self.keys.push_back(key),
        }
    }

    /// Removes the first scan, which launches one probe.
    fn pop(&mut self) -> Option<Key> {
        let key = self.keys.pop_front()?;
        let left = match self.turn {
            Some((turn, left)) if turn == key => left.checked_sub(1),
            Some(_) | None => None,
        };
        self.turn = Some((key, left.unwrap_or(TURN_PROBES - 1)));
        Some(key)
    }
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct LaunchQueues {
    ready: TurnQueue,
    starting: TurnQueue,
    held: VecDeque<Key>,
    /// Whether the last launch came from `ready`.
    was_ready: bool,
    pace: StartPace,
    shared: SharedPace,
    monitor: DropMonitor,
}

impl LaunchQueues {
    /// Empty queues, for `capacity` probes in flight.
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            ready: TurnQueue::default(),
            starting: TurnQueue::default(),
            held: VecDeque::new(),
            was_ready: false,
            pace: StartPace::new(capacity),
            shared: SharedPace::new(),
            monitor: DropMonitor::default(),
        }
    }

    /// A scan of this target begins.
    pub(super) fn handle_begin(&mut self, now: Instant, target: IpAddr) {
        self.shared.handle_begin();
        self.monitor.handle_begin(now, target);
    }

    /// Adds a scan to its queue.
    pub(super) fn push(&mut self, key: Key, queue: LaunchQueue) {
        match queue {
            LaunchQueue::Ready => self.ready.push(key),
            LaunchQueue::Starting => self.starting.push(key),
        }
    }

    /// The scan that has the next turn.
    pub(super) fn poll_turn(&mut self, now: Instant) -> Option<(Key, LaunchQueue)> {
        if self.shared.next_at(now) > now {
            return None;
        }
        let may_start = self.may_start(now);
        let takes_starting = self.ready.keys.is_empty() || self.was_ready && may_start;
        match (takes_starting, may_start) {
            (false, _) => self.ready.pop().map(|key| (key, LaunchQueue::Ready)),
            (true, true) => self.starting.pop().map(|key| (key, LaunchQueue::Starting)),
            (true, false) => None,
        }
    }

    /// Whether the first probe of this target may start now. Otherwise the scan is held.
    pub(super) fn admits_first(&mut self, now: Instant, key: Key, target: IpAddr) -> bool {
        let is_admitted = self.monitor.admits(now, target);
        if !is_admitted {
            self.held.push_back(key);
        }
        is_admitted
    }

    /// A probe is sent by a scan in this queue.
    pub(super) fn handle_launch(&mut self, now: Instant, queue: LaunchQueue, probe: SentProbe) {
        self.was_ready = queue == LaunchQueue::Ready;
        self.shared.handle_launch(now);
        if queue == LaunchQueue::Starting {
            self.pace.handle_sent(now);
        }
        self.monitor.handle_launch(probe);
    }

    /// A scan received its first answer.
    pub(super) fn handle_answer(&mut self, scan: &Scan) {
        self.pace.handle_answer(Arrival::of_first_answer(scan));
        self.shared.handle_first_answer(scan.lost_before_first_answer());
    }

    /// This scan has ended, and `running` are left.
    pub(super) const fn handle_end(&mut self, scan: &StoredScan, running: usize) {
        if running == 0 {
            self.shared = SharedPace::new();
        } else if !scan.has_answer() {
            self.shared.handle_silent_end();
        }
    }

    /// Judges the exchanges of one of `running` scans that have ended.
    pub(super) fn take_exchanges(&mut self, now: Instant, scan: &mut Scan, running: usize) {
        let exchanges = scan.take_exchanges(self.shared.counted_from());
        self.shared.handle_exchanges(now, exchanges, running);
    }

    /// The loss that a scan without an answer must expect.
    pub(super) fn sweep_loss(&self) -> SweepLoss {
        self.shared.sweep_loss()
    }

    /// Whether the counters of local drops are to be read now.
    pub(super) fn poll_reading(&mut self, now: Instant) -> bool {
        self.monitor.poll_reading(now, self.held.len())
    }

    /// Handles a reading of local drops: held scans may start, as far as there are free entries.
    pub(super) fn handle_reading(
        &mut self,
        now: Instant,
        reading: Option<&LocalDrops>,
    ) -> Option<DropVerdict> {
        let verdict = self.monitor.handle_reading(now, reading);
        if verdict.is_some_and(|verdict| verdict.is_queue_full) {
            self.pace.handle_drops(now);
        }
        // At least one scan is released, because a trial may be due.
        let count = self.held.len().min(self.monitor.room().max(1));
        for key in self.held.drain(..count).rev() {
            self.starting.keys.push_front(key);
        }
        verdict
    }

    /// The monitor of packets that this machine drops.
    pub(super) const fn monitor(&self) -> &DropMonitor {
        &self.monitor
    }

    /// The number of scans without an answer that could launch now and wait for their turn.
    pub(super) fn starting(&self) -> usize {
        self.starting.keys.len()
    }

    /// Whether a scan may launch now.
    pub(super) fn has_turn(&self, now: Instant) -> bool {
        self.launch_at(now).is_some_and(|at| at <= now)
    }

    /// The time at which the next scan may launch; `None` if there is none.
    pub(super) fn launch_at(&self, now: Instant) -> Option<Instant> {
        let at = match (self.ready.keys.is_empty(), self.starting.keys.is_empty()) {
            (false, _) => now,
            (true, false) => self.pace.next_at(now),
            (true, true) => return None,
        };
        Some(at.max(self.shared.next_at(now)))
    }

    /// The time at which the counters of local drops must be read; `None` while nothing depends on
    /// them.
    pub(super) fn reading_at(&self, now: Instant) -> Option<Instant> {
        self.monitor.reading_at(now, self.held.len())
    }

    fn may_start(&self, now: Instant) -> bool {
        !self.starting.keys.is_empty() && self.pace.next_at(now) <= now
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::drop_monitor::LaunchOrder;
    use super::*;

    /// The scans that have the first 20 turns, if each of them wants to launch more probes.
    fn turns(scans: u32) -> Vec<usize> {
        let (now, mut queues) = (Instant::now(), LaunchQueues::new(65_536));
        (0..scans).for_each(|index| queues.push(Key::from_parts(index, 1), LaunchQueue::Ready));
        let launch = |_| {
            let (key, queue) = queues.poll_turn(now).unwrap();
            queues.push(key, queue);
            key.index()
        };
        (0..20).map(launch).collect()
    }

    #[test]
    fn a_scan_launches_up_to_eight_probes_in_a_turn() {
        let expected = [[0; 8], [1; 8], [0; 8]].concat();
        assert_eq!(turns(2), expected[..20]);
        assert_eq!(turns(1), [0; 20]);
    }

    #[test]
    fn scans_without_an_answer_do_not_prolong_the_turns_of_the_others() {
        let (mut now, mut queues) = (Instant::now(), LaunchQueues::new(65_536));
        let (target, order) = ([192, 0, 2, 1].into(), LaunchOrder::Further);
        let probe = SentProbe { target, order, timeout: Duration::from_secs(2) };
        for index in 0..4 {
            let queue = if index < 2 { LaunchQueue::Ready } else { LaunchQueue::Starting };
            queues.push(Key::from_parts(index, 1), queue);
        }
        let mut launches = [0; 4];
        for _ in 0..400 {
            now += Duration::from_secs(1); // the pace of scans without an answer permits a launch
            let (key, queue) = queues.poll_turn(now).unwrap();
            queues.handle_launch(now, queue, probe);
            queues.push(key, queue);
            launches[key.index()] += 1;
        }
        assert!(launches.iter().all(|count| (96..=104).contains(count)), "{launches:?}");
    }
}
