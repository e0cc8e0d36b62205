//! One running scan, with the data that the scheduler keeps about it.
//!
//! This module decides which probes of the scan a local shortage postpones. It never divides the
//! budget. `scheduler` drives it.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::drop_monitor::{DropMonitor, DropVerdict, LaunchOrder, SentProbe};
use crate::event::CompletionCheck;
use crate::event::local_drops::family_index;
use crate::scan::ProbeResult;
use crate::scan::probes::ProbeId;
use crate::scan::stored::StoredScan;
use crate::slots::{Key, Slots};
use crate::technique::Technique;

/// Identifies a scan by its technique and its key in the scheduler of that technique.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ScanRef {
    pub(super) technique: Technique,
    pub(super) key: Key,
}

/// Identifies a probe by its scan and its number in the scan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ProbeRef {
    pub(super) scan: ScanRef,
    /// The number of the probe in the scan.
    pub(super) probe: ProbeId,
}

/// A probe that starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ProbeLaunch {
    pub(super) key: Key,
    pub(super) probe: ProbeRef,
    /// The address and port.
    pub(super) to: SocketAddr,
    /// The time at which to check for its outcome.
    pub(super) check: CompletionCheck,
}

/// A task of the event loop for scans.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SchedulerOutput {
    /// Start this probe.
    Launch(ProbeLaunch),
    /// Give up the probe of an ended scan. A probe whose outcome has arrived since is no longer
    /// known.
    Forget { probe: Key },
    /// Read the counters of packets that this machine drops.
    ReadLocalDrops,
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) scan: StoredScan,
    pub(super) job: Key,
    /// The number of probes that the scan could use when it was last examined.
    pub(super) need: u32,
    /// The number of probes that the scan was granted.
    pub(super) allowance: u32,
    /// Whether the scan is in a queue.
    pub(super) is_queued: bool,
    /// The time for which its timer is set.
    pub(super) armed: Option<Instant>,
    /// Whether its next probe is the first to its target, or counts as the first.
    pub(super) next_launch: LaunchOrder,
    /// Whether its first probe waited for a free entry in the neighbour table.
    pub(super) was_held: bool,
    /// The number of times that a full queue has postponed probes of this scan.
    pub(super) queue_full: u8,
}

/// The maximum of that number: other programs fill queues too, and a busy uplink drops packets all
/// the time.
const QUEUE_FULL_MAX: u8 = 16;

/// The result of the end of a probe, for the job of the scan.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) job: Key,
    /// The result of the probe.
    pub(super) finding: ProbeResult,
    /// Whether this was the last probe of the scan.
    pub(super) is_last: bool,
}

/// A newly found open port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FoundPort {
    pub(super) address: IpAddr,
    pub(super) port: u16,
    /// The time from connect to answer.
    pub(super) rtt: Duration,
}

/// The number of ports that wait because this machine is short of a resource whose shortage
/// `connect` does not report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Postponed {
    /// Ports that wait because the neighbour table was full, or almost full.
    pub(super) neighbour_table: usize,
    /// Ports that wait because connection tracking was full.
    pub(super) conntrack: usize,
    /// Ports that wait because the queue of an interface was full.
    pub(super) queue: usize,
}

impl Running {
    /// A scan of this job that has launched no probe yet.
    pub(super) const fn new(scan: StoredScan, job: Key, need: u32, allowance: u32) -> Self {
        Self {
            scan,
            job,
            need,
            allowance,
            is_queued: false,
            armed: None,
            next_launch: LaunchOrder::First,
            was_held: false,
            queue_full: 0,
        }
    }

    /// Whether the next probe is the first to the target.
    pub(super) fn is_first(&self) -> bool {
        self.next_launch == LaunchOrder::First
    }

    /// The probe that is sent now.
    pub(super) fn take_sent(&mut self) -> SentProbe {
        SentProbe {
            target: self.scan.target().ip(),
            order: std::mem::replace(&mut self.next_launch, LaunchOrder::Further),
            timeout: self.scan.probe_timeout(),
        }
    }

    /// Gives up the silent probes that may never have left this machine, passes them to `forget`,
    /// and counts them. Their ports wait.
    pub(super) fn postpone(
        &mut self,
        verdict: &DropVerdict,
        monitor: &DropMonitor,
        mut forget: impl FnMut(Key),
    ) -> Postponed {
        let mut postponed = Postponed::default();
        let target = self.scan.target().ip();
        // The entry of a host that has answered exists.
        let is_table_full = verdict.is_table_full[family_index(target)]
            && !self.scan.has_answer()
            && monitor.needs_entry(target);
        // For a host that has answered, the measured loss accounts for such drops.
        let is_queue_full =
            verdict.is_queue_full && !self.scan.has_answer() && self.queue_full < QUEUE_FULL_MAX;
        let count = if is_table_full {
            &mut postponed.neighbour_table
        } else if target.is_loopback() {
            return postponed;
        } else if verdict.is_conntrack_full {
            &mut postponed.conntrack
        } else if is_queue_full {
            &mut postponed.queue
        } else {
            return postponed;
        };
        while let Some(probe) = self.scan.poll_postponed(verdict.since) {
            *count += 1;
            forget(probe);
        }
        self.queue_full += u8::from(postponed.queue > 0);
        if postponed.sum() > 0 {
            self.next_launch = LaunchOrder::First;
        }
        postponed
    }
}

/// The scan with this key, which exists: the caller has found it, or its timer was set.
pub(super) fn running_mut(scans: &mut Slots<Running>, key: Key) -> &mut Running {
    scans.get_mut(key).unwrap_or_else(|| unreachable!("the key of a removed scan is not used"))
}

impl Postponed {
    /// The sum of all three numbers.
    pub(super) const fn sum(&self) -> usize {
        self.neighbour_table + self.conntrack + self.queue
    }

    /// Adds the numbers of `others`.
    pub(super) const fn add(&mut self, others: Self) {
        self.neighbour_table += others.neighbour_table;
        self.conntrack += others.conntrack;
        self.queue += others.queue;
    }
}
