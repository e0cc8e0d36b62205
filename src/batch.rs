//! One command-line run: a list of targets, which the jobs of the core scan.
//!
//! A [`Batch`] is a pure state machine, driven by `core`. The core takes targets from
//! [`Batch::poll_target`] as far as its budget permits, reports the result of each, performs the
//! actions of [`Batch::poll_action`] for stderr, and writes the bytes of [`Batch::stdout`]. The
//! batch counts results and decides the exit code; it never scans or resolves.
//!
//! The results of a target are printed at once. While a slow reader leaves too many bytes unread,
//! no further target begins. Submodules: [`options`]; [`list`], [`segments`], [`port_lists`] and
//! [`targets`] (the targets and their ports); [`shard`] (the part of them that this machine scans);
//! [`resume`] (the targets that an earlier run has finished); [`printer`], [`mod@table`], [`xml`],
//! [`greppable`], [`progress`] and `stderr` (the output).
//!
//! A target is identified by its [`TargetId`]. The core knows which targets run, and reports each
//! result with the id of the target.
//!
//! Invariants (`check_invariants`): no more ports and targets end than there are; a name that is
//! being looked up belongs to a running target; a progress line is cleared before anything else is
//! written.

pub mod greppable;
pub mod list;
pub mod options;
pub mod port_lists;
pub mod printer;
pub mod progress;
pub mod resume;
pub mod segments;
pub mod shard;
mod state;
mod stderr;
pub mod table;
pub mod targets;
pub mod xml;

use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::api::problem::Problem;
use crate::event::{Action, PrintFailure};
use crate::limits;
use crate::port_set::PortSet;
use crate::scan::options::{Addresses, ScanOptions};
use crate::scan::request::ScanRequest;
use crate::scan::summary::Summary;
use options::{BatchOptions, Destination};
use port_lists::TargetPorts;
use printer::{Outcomes, Printer, Start};
use progress::{BatchProgress, Pace, UnderWay};
use shard::{Permutation, Shard};
use state::{BatchState, FailedMembers};
use stderr::Stderr;
use targets::{Cursor, Target, TargetId};

/// The parameters with which the scan of a target begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Beginning<'a> {
    /// The address to be scanned; the first one if there are several.
    pub address: IpAddr,
    /// The number of ports to be scanned, summed over all addresses of the target.
    pub total: u32,
    /// The ports of each address.
    pub ports: &'a PortSet,
}

/// An open port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenPort<'a> {
    /// The address.
    pub address: IpAddr,
    /// The port.
    pub port: u16,
    /// The time from connect to answer.
    pub rtt: Duration,
    /// The name of the service that usually listens on the port; empty if it is unknown.
    pub service: &'a str,
}

/// One command-line run. See the module's documentation.
#[derive(Debug)]
pub struct Batch {
    options: BatchOptions,
    space: Permutation,
    cursor: Cursor,
    /// The number of running targets.
    running: usize,
    /// The number of those whose name is being looked up.
    resolving: usize,
    /// The number of ports of the running targets.
    ports_running: u64,
    state: BatchState,
    stderr: Stderr,
    /// The sum over the targets that have ended.
    progress: BatchProgress,
    pace: Pace,
    /// The number of targets by result.
    outcomes: Outcomes,
    failed_members: FailedMembers,
    /// The number of targets that were not scanned because of an interrupt.
    dropped: u64,
    /// Whether any target was not scanned completely.
    has_failed: bool,
    /// Whether writing to stdout, or to the file that replaces it, failed.
    is_unprinted: bool,
    /// The time at which the first target was begun.
    began_at: Option<Instant>,
    /// Whether the conclusion was printed.
    is_concluded: bool,
    printer: Printer,
}

/// The exit code if stdout, or the file that replaces it, could not be written (sysexits.h:
/// EX_IOERR). `main` exits with 1 instead after a scan, and reports the error of a file.
pub const EXIT_UNPRINTED: u8 = 74;
/// The interval between two reports of progress: at most five per second.
const PROGRESS_EVERY: Duration = Duration::from_millis(200);
/// The number of targets that one call examines. In a small shard most targets may have no port.
const TARGETS_PER_CALL: usize = 256;

impl Batch {
    /// A run that has begun no target. Errors in the list are reported at once.
    pub fn new(options: BatchOptions) -> Self {
        let size = options.targets.ports_len();
        let progress = BatchProgress {
            total: options.shard.items(size),
            targets: options.targets.len(),
            ..BatchProgress::default()
        };
        let mut batch = Self {
            space: Permutation::new(size),
            cursor: Cursor::default(),
            running: 0,
            resolving: 0,
            ports_running: 0,
            state: BatchState::Ready,
            stderr: Stderr::new(options.progress),
            progress,
            pace: Pace::default(),
            outcomes: Outcomes::default(),
            failed_members: FailedMembers::default(),
            dropped: 0,
            has_failed: false,
            is_unprinted: false,
            began_at: None,
            is_concluded: false,
            printer: Printer::new(&options),
            options,
        };
        batch.report_list();
        batch
    }

    fn report_list(&mut self) {
        let targets = &self.options.targets;
        self.has_failed = !targets.faults().is_empty();
        for text in targets.faults().iter().map(String::as_str).chain(targets.note()) {
            self.stderr.write_line(text);
        }
    }

    /// The next target to be scanned, if [`Batch::wants_target`]. `None` may also mean that none of
    /// the examined targets had a port in the shard; the caller then asks again.
    pub fn poll_target(&mut self, now: Instant) -> Option<(TargetId, ScanRequest)> {
        for _ in 0..TARGETS_PER_CALL {
            if !self.wants_target() {
                return None;
            }
            if self.state == BatchState::Ready {
                self.state = BatchState::Running { progress_at: now + PROGRESS_EVERY };
                self.began_at = Some(now);
            }
            let target = self.options.targets.next(&mut self.cursor)?;
            let ports = self.ports_of(&target);
            let count = ports.len() as u64;
            if target.is_finished || ports.is_empty() {
                self.progress.targets_done += 1;
                self.progress.done += count;
                continue;
            }
            let Some(request) = self.request(&target, ports) else { continue };
            self.running += 1;
            self.resolving += usize::from(target.id.is_name());
            self.ports_running += count;
            self.check_invariants();
            return Some((target.id, request));
        }
        None
    }

    /// The ports of a target that are in this shard.
    fn ports_of(&self, target: &Target) -> PortSet {
        let ranges = self.options.targets.target_ports(target).ranges;
        self.options.shard.select(self.space, target.first, ranges)
    }

    fn request(&self, target: &Target, ports: PortSet) -> Option<ScanRequest> {
        let BatchOptions { targets, scan, .. } = &self.options;
        let TargetPorts { from_port, to_port, .. } = targets.target_ports(target);
        Some(ScanRequest {
            host: targets.host(target.id)?,
            // The batch knows it.
            domain: Box::default(),
            ports,
            from_port,
            to_port,
            // The batch has one rate for all targets together, see `Batch::scan_options`.
            options: ScanOptions { rate: None, include: self.printer.include(), ..*scan },
        })
    }

    /// The address of a target is known, and its first probe is about to be sent.
    pub fn handle_began(&mut self, target: TargetId, beginning: Beginning) {
        let Beginning { address, total, ports } = beginning;
        self.resolving -= usize::from(target.is_name());
        // Each address of a name is scanned for all requested ports.
        let more = u64::from(total) - ports.len() as u64;
        self.ports_running += more;
        self.progress.total += more;
        if self.state != BatchState::Silenced {
            let domain = self.options.targets.domain(target);
            self.printer.print_start(target, Start { domain: &domain, address, total, ports });
        }
        self.check_invariants();
    }

    /// A port of a target is open.
    pub fn handle_open(&mut self, target: TargetId, open: OpenPort) {
        if self.state == BatchState::Silenced {
            return;
        }
        let domain = self.options.targets.domain(target);
        let shown = match self.options.scan.addresses {
            Addresses::All => Some(open.address),
            Addresses::First => None,
        };
        self.printer.print_open(target, &domain, shown, open);
        if self.printer.is_for_people() {
            self.stderr.show_later(target, || printer::found_line(&domain, &open));
        }
    }

    /// Every port of a target has its state, or the time of the target is up. The domain of the
    /// summary is not used.
    pub fn handle_ended(&mut self, now: Instant, target: TargetId, summary: Summary) {
        self.clear_progress();
        self.count_done(summary.counts.total().into());
        self.progress.open += u64::from(summary.counts.open);
        if self.state == BatchState::Silenced {
            return;
        }
        let domain = self.options.targets.domain(target);
        let summary = Summary { domain: &domain, ..summary };
        self.has_failed |= !summary.complete;
        self.outcomes.count_scanned(&summary);
        if self.printer.hides_gaps() && self.options.targets.len() == 1 {
            self.stderr.write_gaps(&summary);
        }
        self.printer.print_end(self.elapsed(now), target, &summary);
        if self.options.output == Destination::Terminal {
            self.stderr.drop_later(target);
        }
        self.check_invariants();
    }

    /// None of the `ports` of a target could be scanned, because its address is `denied` or was not
    /// found. An address that the user has excluded is no failure.
    pub fn handle_failed(
        &mut self,
        target: TargetId,
        ports: usize,
        problem: &Problem,
        denied: Option<IpAddr>,
    ) {
        self.resolving -= usize::from(target.is_name());
        self.count_done(ports as u64);
        if self.state == BatchState::Silenced {
            return;
        }
        let domain = self.options.targets.domain(target);
        if denied.is_some_and(|address| self.options.targets.excludes(address)) {
            self.outcomes.excluded += 1;
        } else {
            self.has_failed = true;
            self.outcomes.failed += 1;
            self.printer.print_failure(&domain, problem);
        }
        let text = format!("{domain}: {}", problem.detail());
        match target {
            TargetId::Name(_) | TargetId::Address(_) => self.stderr.write_line(&text),
            // A network may have millions of such targets, all with the same reason.
            TargetId::Member(_) => match self.failed_members.first {
                None => self.failed_members.first = Some(text),
                Some(_) => self.failed_members.more += 1,
            },
        }
        self.check_invariants();
    }

    /// A target with this number of ports, whose scan has not begun, was given up.
    pub fn handle_dropped(&mut self, target: TargetId, ports: usize) {
        self.resolving -= usize::from(target.is_name());
        self.count_done(ports as u64);
        self.dropped += 1;
        self.check_invariants();
    }

    fn count_done(&mut self, ports: u64) {
        self.running -= 1;
        self.ports_running -= ports;
        self.progress.done += ports;
        self.progress.targets_done += 1;
    }

    /// The user interrupts the run: no further target begins, and the core ends the running ones
    /// with the results so far.
    pub fn handle_interrupt(&mut self) {
        match self.state {
            BatchState::Ready | BatchState::Running { .. } => self.state = BatchState::Interrupted,
            BatchState::Interrupted | BatchState::Silenced => return,
        }
        self.has_failed = true;
        let never = self.options.targets.len() - self.cursor.targets() + self.dropped;
        self.stderr.write_line(&match never {
            0 => "interrupted: what is known so far follows".to_owned(),
            // The number of targets that have a port in the shard is not known.
            _ if self.options.shard != Shard::WHOLE => {
                format!("interrupted: not every target of shard {} was begun", self.options.shard)
            }
            _ => {
                format!("interrupted: {never} of {} targets were not begun", self.progress.targets)
            }
        });
    }

    /// Stdout accepted `count` bytes of the output.
    pub fn handle_printed(&mut self, count: usize) {
        self.printer.handle_printed(count);
    }

    /// Stdout accepts no more bytes. It is not an error if the reader has closed the pipe.
    pub fn handle_print_failed(&mut self, failure: PrintFailure) {
        self.printer.discard();
        self.state = BatchState::Silenced;
        match failure {
            PrintFailure::ReaderGone => {}
            PrintFailure::Broken => {
                self.is_unprinted = true;
                if self.options.output != Destination::File {
                    self.stderr.write_line("stdout: cannot be written");
                }
            }
        }
    }

    /// Prints the conclusion once nothing is left to be scanned.
    pub fn conclude(&mut self, now: Instant) {
        if self.is_concluded || !self.is_over() || self.running > 0 {
            return;
        }
        self.is_concluded = true;
        if let Some(text) = self.failed_members.text() {
            self.stderr.write_line(&text);
        }
        if self.state != BatchState::Silenced {
            self.clear_progress();
            if self.printer.hides_gaps() && self.options.targets.len() > 1 {
                self.stderr.write_targets_with_gaps(&self.outcomes);
            }
            if !self.has_failed && self.outcomes.scanned() == 0 {
                match self.outcomes.excluded {
                    0 => self.stderr.write_nothing_scanned(self.progress.total),
                    // As if the exclusions had left no target in the list.
                    excluded => self.has_failed = excluded == self.options.targets.len(),
                }
            }
            let outcomes = Outcomes { is_incomplete: self.has_failed, ..self.outcomes };
            self.printer.print_conclusion(self.elapsed(now), &outcomes);
        }
    }

    fn elapsed(&self, now: Instant) -> Duration {
        self.began_at.map_or(Duration::ZERO, |began_at| now.saturating_duration_since(began_at))
    }

    /// Reports progress, if it is due.
    pub fn handle_timeout(&mut self, now: Instant, under_way: UnderWay) {
        let BatchState::Running { progress_at } = &mut self.state else { return };
        if *progress_at > now {
            return;
        }
        *progress_at = now + PROGRESS_EVERY;
        if self.running == 0 {
            return;
        }
        let mut progress = self.progress;
        progress.done += under_way.done;
        progress.open += under_way.open;
        let (timeout, permitted) = (self.options.scan.timeout.longest(), self.options.scan.rate);
        let under_way = UnderWay { done: progress.done, ..under_way };
        let rate = self.pace.rate(self.elapsed(now), under_way, timeout, permitted);
        self.stderr.show_progress(|columns| progress.line(rate, columns));
        self.printer.print_progress(&progress);
    }

    /// The next action for stderr.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.stderr.poll_action()
    }

    /// Clears a visible progress line, so that something else can be written.
    pub fn clear_progress(&mut self) {
        self.stderr.clear_progress();
    }

    /// The time at which progress is due.
    pub fn deadline(&self) -> Option<Instant> {
        let is_shown = self.stderr.has_progress() || self.printer.has_progress();
        let BatchState::Running { progress_at } = self.state else { return None };
        is_shown.then_some(progress_at)
    }

    /// The options for the scan of each target. The rate is that of all targets together.
    pub const fn scan_options(&self) -> &ScanOptions {
        &self.options.scan
    }

    /// Whether the state of this module permits another target to begin.
    pub fn wants_target(&self) -> bool {
        let may_begin = match self.state {
            BatchState::Ready | BatchState::Running { .. } => true,
            BatchState::Interrupted | BatchState::Silenced => false,
        };
        may_begin
            && self.cursor.targets() < self.options.targets.len()
            && self.running < limits::BATCH_JOBS_MAX
            && self.resolving < limits::LOOKUPS_MAX
            && self.printer.stdout().len() < limits::PRINTOUT_BYTES_MAX
    }

    /// The number of ports of the running targets. The budget needs no more connects than this.
    pub const fn ports_running(&self) -> u64 {
        self.ports_running
    }

    /// Whether no further target will be begun.
    fn is_over(&self) -> bool {
        match self.state {
            BatchState::Ready | BatchState::Running { .. } => {
                self.cursor.targets() == self.options.targets.len()
            }
            BatchState::Interrupted | BatchState::Silenced => true,
        }
    }

    /// Whether nothing is left to be scanned or printed.
    pub fn is_done(&self) -> bool {
        self.is_concluded && self.printer.stdout().is_empty()
    }

    /// 0: everything was scanned. 1: something was not scanned, or the run is not over.
    /// [`EXIT_UNPRINTED`]: the output could not be written.
    pub fn exit_code(&self) -> u8 {
        match self.is_unprinted {
            true => EXIT_UNPRINTED,
            false => u8::from(self.has_failed || !self.is_done()),
        }
    }

    /// The next bytes for stdout.
    pub fn stdout(&self) -> &[u8] {
        self.printer.stdout()
    }

    /// The number of names that may be looked up at once; at least one.
    pub fn lookups_at_once(&self) -> usize {
        self.options.targets.names_len().clamp(1, limits::LOOKUPS_MAX)
    }

    fn check_invariants(&self) {
        assert!(self.progress.done <= self.progress.total, "1: no port ends twice");
        assert!(self.progress.targets_done <= self.progress.targets, "2: no target ends twice");
        assert!(self.resolving <= self.running, "3: only running targets have lookups");
        assert!(self.ports_running >= self.running as u64, "4: each running target has a port");
        assert!(self.running > 0 || self.ports_running == 0, "5: only running targets have ports");
        assert!(self.running <= limits::BATCH_JOBS_MAX, "6: running targets are bounded");
    }
}

#[cfg(test)]
#[path = "batch/tests.rs"]
mod tests;
