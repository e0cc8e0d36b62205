//! Detects packets that this machine drops before they leave, and keeps the neighbour table from
//! filling up.
//!
//! A SYN to an on-link address that is not resolved yet needs an entry in the neighbour table, and
//! an address that does not answer keeps its entry for about three seconds. A full table drops SYNs
//! without an error, including those to hosts that are up. Therefore the first probe of a target is
//! held back while the table has no free entries; a reading reports their number, and each first
//! probe takes one. If entries, or packets in connection tracking, were refused since the previous
//! reading, the probes started in between may never have left ([`DropVerdict`]). This module
//! decides neither which scan is held back nor what happens to the probes. `launch_queues` drives
//! it.
//!
//! Invariant: without a reading no probe is held back.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::cidr::Cidr;
use crate::event::local_drops::{LocalDrops, NeighbourTable, family_index};

/// The maximum interval between readings while probes start.
const READ_GAP: Duration = Duration::from_millis(25);
/// The minimum interval, which is shorter than the shortest timeout.
const READ_GAP_MIN: Duration = Duration::from_millis(8);
/// The age from which on a reading no longer describes the table.
const READING_AGE_MAX: Duration = Duration::from_millis(250);
/// The interval between tries if the kernel does not report its counters.
const UNAVAILABLE: Duration = Duration::from_secs(60);
/// A full table may hold entries of other namespaces, which the kernel discards only when it needs
/// space. Therefore one first probe is permitted in this interval.
const TRIAL_GAP: Duration = Duration::from_secs(1);
/// Drops by connection tracking and by queues are significant if their number reaches this fraction
/// of the started probes: both drop single packets for other reasons, or from other programs.
const DROPS_SHARE: u64 = 64;

/// The result of a reading for the probes that were started since the previous one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DropVerdict {
    /// The time of the previous reading.
    pub(super) since: Instant,
    /// Whether entries were refused in the neighbour table of IPv4, and of IPv6.
    pub(super) is_table_full: [bool; 2],
    /// Whether connection tracking dropped packets.
    pub(super) is_conntrack_full: bool,
    /// Whether the queue of an interface dropped packets.
    pub(super) is_queue_full: bool,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct DropMonitor {
    read_at: Option<Instant>,
    reading: LocalDrops,
    on_link: Vec<Cidr>,
    /// The number of first probes for which the tables have free entries.
    room: [u32; 2],
    /// The number of probes started since the reading.
    started: u64,
    /// The shortest timeout of these probes.
    timeout: Option<Duration>,
    /// Whether the next reading is due without waiting for the interval.
    is_wanted: bool,
    is_half_full: bool,
    is_awaited: bool,
    is_unavailable: bool,
    tried_at: Option<Instant>,
}

/// A probe that is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SentProbe {
    pub(super) target: IpAddr,
    pub(super) order: LaunchOrder,
    /// The time after which it expires.
    pub(super) timeout: Duration,
}

/// Whether a probe is the first one in flight to its target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LaunchOrder {
    First,
    Further,
}

impl DropMonitor {
    /// Whether the first probe of a target may start.
    pub(super) fn admits(&mut self, now: Instant, target: IpAddr) -> bool {
        if !self.needs_entry(target) || self.room[family_index(target)] > 0 {
            return true;
        }
        let is_trial = self.tried_at.is_none_or(|at| now - at >= TRIAL_GAP);
        if is_trial {
            self.tried_at = Some(now);
        }
        is_trial
    }

    /// A probe is sent. The first one to its target may need an entry.
    pub(super) fn handle_launch(&mut self, probe: SentProbe) {
        let SentProbe { target, order, timeout } = probe;
        if target.is_loopback() {
            return;
        }
        self.started += 1;
        self.timeout = Some(self.timeout.map_or(timeout, |shortest| shortest.min(timeout)));
        if order == LaunchOrder::First && self.needs_entry(target) {
            let room = &mut self.room[family_index(target)];
            *room = room.saturating_sub(1);
        }
    }

    /// Whether the counters must be read now. `held` targets wait for free entries.
    pub(super) fn poll_reading(&mut self, now: Instant, held: usize) -> bool {
        let is_due = self.reading_at(now, held).is_some_and(|at| at <= now);
        self.is_awaited |= is_due;
        is_due
    }

    /// The time at which the counters must be read; `None` while nothing depends on them.
    pub(super) fn reading_at(&self, now: Instant, held: usize) -> Option<Instant> {
        if self.is_awaited || self.started == 0 && held == 0 && !self.is_wanted {
            return None;
        }
        if self.is_wanted {
            return Some(now);
        }
        let gap = if self.is_unavailable { UNAVAILABLE } else { self.read_gap() };
        Some(self.read_at.map_or(now, |at| at + gap))
    }

    /// The interval between readings. No probe expires before it is known whether it left, unless
    /// a table is at least half full, when a reading also lists its entries.
    fn read_gap(&self) -> Duration {
        match self.timeout {
            Some(timeout) if !self.is_half_full => (timeout / 2).clamp(READ_GAP_MIN, READ_GAP),
            Some(_) | None => READ_GAP,
        }
    }

    /// A scan begins: counters that were read long ago are read again before its first probe.
    pub(super) fn handle_begin(&mut self, now: Instant, target: IpAddr) {
        if target.is_loopback() || self.started > 0 || self.is_unavailable {
            return;
        }
        if self.read_at.is_none_or(|at| now - at > READING_AGE_MAX) {
            self.read_at = None;
            self.is_wanted = true;
        }
    }

    /// Evaluates a reading. Returns `None` if it shows no drops that affect the probes started
    /// before.
    pub(super) fn handle_reading(
        &mut self,
        now: Instant,
        reading: Option<&LocalDrops>,
    ) -> Option<DropVerdict> {
        self.is_awaited = false;
        self.is_wanted = false;
        let since = self.read_at.replace(now);
        let started = std::mem::take(&mut self.started);
        self.timeout = None;
        self.is_unavailable = reading.is_none();
        let Some(reading) = reading else {
            self.room = [u32::MAX; 2];
            self.is_half_full = false;
            return None;
        };
        let before = std::mem::replace(&mut self.reading, reading.clone());
        // A counter that could not be read now is compared with its last value by the next reading.
        self.reading.conntrack = reading.conntrack.or(before.conntrack);
        self.is_half_full = reading.tables.iter().flatten().any(is_half_full);
        self.on_link = reading
            .networks
            .iter()
            .map(|(address, prefix)| Cidr::around(*address, *prefix))
            .collect();
        self.room = reading.tables.map(|table| table.map_or(u32::MAX, room_of));
        let mut is_table_full = [false; 2];
        for (family, is_full) in is_table_full.iter_mut().enumerate() {
            if let (Some(was), Some(is)) = (before.tables[family], reading.tables[family]) {
                *is_full = is.refused > was.refused;
            }
        }
        let is_many = |is: u64, was: u64| {
            let dropped = is.saturating_sub(was);
            dropped > 0 && dropped.saturating_mul(DROPS_SHARE) >= started
        };
        let conntrack = reading.conntrack.zip(before.conntrack);
        let is_conntrack_full = conntrack.is_some_and(|(is, was)| is_many(is, was));
        let is_queue_full = is_many(reading.queues, before.queues);
        let is_any = is_conntrack_full || is_queue_full || is_table_full.contains(&true);
        since.filter(|_| is_any && started > 0).map(|since| DropVerdict {
            since,
            is_table_full,
            is_conntrack_full,
            is_queue_full,
        })
    }

    /// Whether a packet to this address may need a new entry. While a table is less than half full,
    /// its entries are not listed, so this is true for every address except loopback ones.
    pub(super) fn needs_entry(&self, target: IpAddr) -> bool {
        let is_known = self.read_at.is_some() && !self.is_unavailable;
        let is_on_link = || {
            self.on_link.is_empty() || self.on_link.iter().any(|network| network.contains(target))
        };
        is_known && !target.is_loopback() && is_on_link()
    }

    /// The number of first probes for which there are free entries, in the family that has more.
    pub(super) fn room(&self) -> usize {
        self.room.into_iter().max().unwrap_or(0) as usize
    }
}

const fn is_half_full(table: &NeighbourTable) -> bool {
    table.used >= table.entries_max / 2
}

/// The number of entries that scans may still take: an eighth of the table is left for the other
/// traffic of the machine.
const fn room_of(table: NeighbourTable) -> u32 {
    (table.entries_max - table.entries_max / 8).saturating_sub(table.used)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ON_LINK: [u8; 4] = [10, 77, 0, 9];
    const FAR: [u8; 4] = [192, 0, 2, 9];

    fn reading(used: u32, refused: u64, conntrack: u64) -> LocalDrops {
        let table = NeighbourTable { entries_max: 1024, used, refused };
        let networks = vec![([10, 77, 15, 254].into(), 20)];
        LocalDrops { tables: [Some(table), None], networks, conntrack: Some(conntrack), queues: 0 }
    }

    fn sent(target: [u8; 4], order: LaunchOrder) -> SentProbe {
        SentProbe { target: target.into(), order, timeout: ms(2000) }
    }

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// A monitor with this reading, and the time of the reading.
    fn monitor(reading: &LocalDrops) -> (DropMonitor, Instant) {
        let (mut monitor, now) = (DropMonitor::default(), Instant::now());
        monitor.handle_begin(now, ON_LINK.into());
        assert!(monitor.poll_reading(now, 0), "a scan begins");
        assert!(!monitor.poll_reading(now, 0), "a reading is requested once");
        assert_eq!(monitor.handle_reading(now, Some(reading)), None);
        // The trial of this second is used up.
        monitor.tried_at = Some(now);
        (monitor, now)
    }

    #[test]
    fn first_probes_are_admitted_until_an_eighth_of_the_table_is_left() {
        let (mut monitor, now) = monitor(&reading(890, 0, 0));
        for _ in 0..6 {
            assert!(monitor.admits(now, ON_LINK.into()));
            monitor.handle_launch(sent(ON_LINK, LaunchOrder::First));
            monitor.handle_launch(sent(ON_LINK, LaunchOrder::Further));
            monitor.handle_launch(sent(FAR, LaunchOrder::First));
        }
        assert!(!monitor.admits(now, ON_LINK.into()), "890 + 6 of 896");
        assert!(monitor.admits(now, FAR.into()), "the address is behind a gateway");
        assert!(monitor.admits(now, [127, 0, 0, 1].into()));
        assert!(
            monitor.admits(now, "fd00::1".parse().expect("it is one")),
            "IPv6 has no table here"
        );
        assert_eq!(monitor.reading_at(now, 1), Some(now + READ_GAP));
        monitor.handle_reading(now + READ_GAP, Some(&reading(895, 0, 0)));
        assert!(monitor.admits(now + READ_GAP, ON_LINK.into()));
    }

    #[test]
    fn a_full_table_lets_one_trial_through_in_a_second() {
        let (mut monitor, now) = monitor(&reading(1024, 0, 0));
        assert!(!monitor.admits(now + ms(999), ON_LINK.into()));
        assert!(monitor.admits(now + ms(1000), ON_LINK.into()));
        assert!(!monitor.admits(now + ms(1001), ON_LINK.into()));
    }

    #[test]
    fn no_probe_is_held_back_without_a_reading() {
        let (mut monitor, now) = (DropMonitor::default(), Instant::now());
        assert!(monitor.admits(now, ON_LINK.into()));
        let (mut monitor, now) = self::monitor(&reading(1024, 0, 0));
        monitor.handle_reading(now + ms(8), None);
        assert!(monitor.admits(now + ms(8), ON_LINK.into()));
        monitor.handle_launch(sent(ON_LINK, LaunchOrder::First));
        assert_eq!(monitor.reading_at(now, 1), Some(now + ms(8) + UNAVAILABLE));
    }

    #[test]
    fn a_reading_is_due_only_while_probes_start_or_wait() {
        let (mut monitor, now) = monitor(&reading(0, 0, 0));
        assert_eq!(monitor.reading_at(now, 0), None);
        monitor.handle_launch(sent([127, 0, 0, 1], LaunchOrder::First));
        assert_eq!(monitor.reading_at(now, 0), None, "loopback needs no entry");
        monitor.handle_launch(sent(FAR, LaunchOrder::Further));
        assert_eq!(monitor.reading_at(now, 0), Some(now + READ_GAP));
        assert!(!monitor.poll_reading(now + READ_GAP - ms(1), 0));
        assert!(monitor.poll_reading(now + READ_GAP, 0));
        assert_eq!(monitor.reading_at(now, 0), None, "a reading was requested");
    }

    #[test]
    fn probes_with_a_short_timeout_are_read_before_they_expire() {
        for (timeout, gap) in [(10, 8), (30, 15), (50, 25), (60_000, 25)] {
            let (mut monitor, now) = monitor(&reading(0, 0, 0));
            for timeout in [2000, timeout, 2000] {
                let timeout = ms(timeout);
                let probe = SentProbe { timeout, ..sent(FAR, LaunchOrder::Further) };
                monitor.handle_launch(probe);
            }
            assert_eq!(monitor.reading_at(now, 0), Some(now + ms(gap)), "{timeout} ms");
        }
    }

    #[test]
    fn a_verdict_reports_the_refusals_since_the_previous_reading() {
        let check = |launches: u64, refused, conntrack, expected: Option<([bool; 2], bool)>| {
            let (mut monitor, now) = monitor(&reading(0, 5, 5));
            (0..launches).for_each(|_| monitor.handle_launch(sent(ON_LINK, LaunchOrder::First)));
            let verdict =
                monitor.handle_reading(now + ms(8), Some(&reading(0, refused, conntrack)));
            let expected = expected.map(|(is_table_full, is_conntrack_full)| DropVerdict {
                since: now,
                is_table_full,
                is_conntrack_full,
                is_queue_full: false,
            });
            assert_eq!(verdict, expected, "{launches} {refused} {conntrack}");
        };
        check(1, 5, 5, None);
        check(1, 6, 5, Some(([true, false], false)));
        check(0, 6, 5, None);
        check(64, 5, 6, Some(([false, false], true)));
        check(65, 5, 6, None);
        check(65, 6, 6, Some(([true, false], false)));
        check(1, 4, 4, None);
    }

    #[test]
    fn a_counter_that_could_not_be_read_once_shows_no_drops() {
        let (mut monitor, now) = monitor(&reading(0, 0, 500));
        let mut read = |after, conntrack| {
            monitor.handle_launch(sent(ON_LINK, LaunchOrder::First));
            let reading = LocalDrops { conntrack, ..reading(0, 0, 0) };
            monitor.handle_reading(now + ms(after), Some(&reading))
        };
        assert_eq!(read(8, None), None);
        assert_eq!(read(16, Some(500)), None, "the counter is as before the failure");
        assert_eq!(read(24, None), None);
        let verdict = read(32, Some(501)).expect("a packet was dropped meanwhile");
        assert!(verdict.is_conntrack_full);
    }

    #[test]
    fn old_counters_are_read_again_before_a_scan_and_give_no_verdict() {
        let (mut monitor, now) = monitor(&reading(0, 0, 0));
        monitor.handle_begin(now + READING_AGE_MAX, ON_LINK.into());
        assert!(!monitor.poll_reading(now + READING_AGE_MAX, 0));
        let later = now + READING_AGE_MAX + ms(1);
        monitor.handle_begin(later, [127, 0, 0, 1].into());
        assert!(!monitor.poll_reading(later, 0));
        monitor.handle_begin(later, ON_LINK.into());
        assert!(monitor.poll_reading(later, 0));
        assert_eq!(monitor.handle_reading(later, Some(&reading(0, 7, 7))), None);
    }

    #[test]
    fn a_scan_that_begins_while_probes_start_requests_no_reading() {
        let (mut monitor, now) = monitor(&reading(0, 0, 0));
        monitor.handle_launch(sent(FAR, LaunchOrder::Further));
        let later = now + READING_AGE_MAX + ms(1);
        monitor.handle_begin(later, ON_LINK.into());
        assert!(monitor.poll_reading(later, 0), "the reading is due");
        let verdict = monitor.handle_reading(later, Some(&reading(0, 7, 0)));
        assert_eq!(verdict.map(|verdict| verdict.since), Some(now), "the probe may be lost");
    }
}
