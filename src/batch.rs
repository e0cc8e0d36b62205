//! One use from the shell: a list of targets, scanned by the service's own jobs.
//!
//! A pure state machine. The service asks [`Batch::poll_target`] for targets as far as its budget
//! goes, tells what came of each, and passes on what [`Batch::poll_action`] says to stderr and
//! what [`Batch::printout`] holds for stdout. It renders, counts and decides the exit code; it
//! never scans, resolves, or knows of other work than its own.
//!
//! What is printed of a target is printed at once and whole; while a slow reader leaves too much
//! of it, no further target is begun. Rooms below: [`options`], [`targets`] (the list), [`shard`]
//! (which part of it), [`mod@table`] and [`progress`] (what people read).
//!
//! Invariants (`check_invariants`): a target runs once; `resolving` counts those whose name is
//! being looked up; no more ports are done than there are; a progress line that stands is wiped
//! before anything else is said.

pub mod options;
pub mod progress;
pub mod shard;
pub mod table;
pub mod targets;

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use crate::api::accept::Form;
use crate::api::answer::{ScanEvent, write_event};
use crate::api::ending::write_end;
use crate::api::problem::Problem;
use crate::api::query::{Addresses, Include, ScanRequest};
use crate::api::summary::Summary;
use crate::api::sweep::{Stream, SweepEvent, write_failure, write_sweep_event};
use crate::event::{Action, PrintFailure};
use crate::limits;
use crate::target::PortSet;
use options::{Format, Options, ProgressLine};
use progress::Progress;
use shard::{Permutation, Shard};
use table::table;

/// How far the targets under way are, all together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UnderWay {
    /// Ports that have their state.
    pub done: u64,
    /// Ports found open.
    pub open: u64,
}

/// How a target's scan begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Beginning<'a> {
    /// The address to be scanned, the first of several.
    pub address: IpAddr,
    /// Ports to be scanned, of all its addresses together.
    pub total: u32,
    /// The ports of each address.
    pub ports: &'a PortSet,
}

/// An open port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenPort {
    /// Where.
    pub address: IpAddr,
    /// The port.
    pub port: u16,
    /// From connect to answer.
    pub rtt: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nothing was begun. Nothing armed; the first target leaves it.
    Ready,
    /// Targets are begun as there is room. Armed: `progress_at`. An interrupt leaves it, or
    /// a stdout that takes nothing more.
    Running { began_at: Instant, progress_at: Instant },
    /// No further target is begun; those under way end as they stand, and are printed.
    Interrupted,
    /// Stdout takes nothing more: what ends now is not printed.
    Silenced,
}

/// A target that was begun, with the ports it counts for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Running {
    /// Its name is being looked up.
    Resolving { ports: u64 },
    /// It is being scanned.
    Scanning { ports: u64 },
}

impl Running {
    const fn ports(self) -> u64 {
        match self {
            Self::Resolving { ports } | Self::Scanning { ports } => ports,
        }
    }
}

/// The progress line on the terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    /// Nobody looks.
    Off,
    /// It is wanted and does not stand.
    Wiped,
    /// It stands: whatever else is said must wipe it first.
    Standing,
}

/// One use from the shell. See the module's documentation.
#[derive(Debug)]
pub struct Batch {
    options: Options,
    space: Permutation,
    /// The next target's place in the list.
    next: usize,
    running: BTreeMap<usize, Running>,
    resolving: usize,
    state: State,
    line: Line,
    /// Of what has ended.
    progress: Progress,
    /// Targets that were not scanned because of an interrupt.
    dropped: usize,
    /// True exactly when something asked for was not scanned whole.
    has_failed: bool,
    printout: Vec<u8>,
    actions: VecDeque<Action>,
}

/// Between two tellings of progress: at most five a second.
const PROGRESS_EVERY: Duration = Duration::from_millis(200);
/// Targets looked at in one call: most of them may have no port in a small shard.
const TARGETS_PER_CALL: usize = 256;

impl Batch {
    /// A use that has begun nothing; what is wrong with the list is told at once.
    pub fn new(options: Options) -> Self {
        let size = options.targets.ports_len();
        let line = match options.progress {
            ProgressLine::Shown => Line::Wiped,
            ProgressLine::Hidden => Line::Off,
        };
        let progress = Progress {
            total: options.shard.items(size),
            targets: options.targets.len(),
            ..Progress::default()
        };
        let mut batch = Self {
            space: Permutation::new(size),
            next: 0,
            running: BTreeMap::new(),
            resolving: 0,
            state: State::Ready,
            line,
            progress,
            dropped: 0,
            has_failed: false,
            printout: Vec::new(),
            actions: VecDeque::new(),
            options,
        };
        batch.tell_bad_lines();
        batch
    }

    fn tell_bad_lines(&mut self) {
        let (lines, more) = self.options.targets.bad_lines();
        let mut said: Vec<String> = lines
            .iter()
            .map(|line| format!("--targets, line {}: {}", line.number, line.reason))
            .collect();
        if more > 0 {
            said.push(format!("--targets: {more} more lines are no targets"));
        }
        if self.options.targets.is_empty() {
            said.push("--targets: there is no target".to_owned());
        }
        self.has_failed = !said.is_empty();
        for text in said {
            self.say(&text);
        }
    }

    /// The next target to be scanned, if [`Batch::wants_target`]; its place names it from here
    /// on. `None` too where none of many targets had a port in the shard: ask again.
    pub fn poll_target(&mut self, now: Instant) -> Option<(usize, ScanRequest)> {
        for _ in 0..TARGETS_PER_CALL {
            if !self.wants_target() {
                return None;
            }
            if self.state == State::Ready {
                self.state = State::Running { began_at: now, progress_at: now + PROGRESS_EVERY };
            }
            let place = self.next;
            self.next += 1;
            match self.request(place) {
                Some(request) => {
                    let ports = request.ports.len() as u64;
                    let was = self.running.insert(place, Running::Resolving { ports });
                    assert!(was.is_none(), "a target is begun once");
                    self.resolving += 1;
                    self.check_invariants();
                    return Some((place, request));
                }
                None => self.progress.targets_done += 1,
            }
        }
        None
    }

    /// What is asked about a target; `None` where this shard has none of its ports.
    fn request(&self, place: usize) -> Option<ScanRequest> {
        let Options { targets, manner, shard, .. } = &self.options;
        let target = targets.get(place)?;
        let asked = targets.asked(target)?;
        let ports = shard.select(self.space, target.first, &asked.ports);
        if ports.is_empty() {
            return None;
        }
        Some(ScanRequest {
            host: target.host.clone(),
            domain: target.domain.clone(),
            ports,
            from_port: asked.from_port,
            to_port: asked.to_port,
            timeout: manner.timeout,
            deadline: manner.deadline,
            retries: manner.retries,
            concurrency: manner.concurrency,
            rate: None,
            family: manner.family,
            addresses: manner.addresses,
            include: Include {
                services: self.options.format == Format::Table,
                ..Include::default()
            },
            form: match self.options.format {
                Format::Table | Format::Json => Form::Json,
                Format::Ndjson => Form::Ndjson,
            },
        })
    }

    /// A target has its address, and its first probe is about to leave.
    pub fn handle_began(&mut self, place: usize, beginning: Beginning) {
        let Some(running) = self.running.get_mut(&place) else { return };
        let Running::Resolving { ports } = *running else { return };
        let Beginning { address, total, ports: asked } = beginning;
        *running = Running::Scanning { ports: u64::from(total) };
        self.resolving -= 1;
        // Each address of a name has every port asked for.
        self.progress.total += u64::from(total) - ports;
        let Some(target) = self.options.targets.get(place) else { return };
        if self.options.format == Format::Ndjson && self.state != State::Silenced {
            let domain = &target.domain;
            let ports = (self.options.shard == Shard::WHOLE).then_some(asked);
            let start = ScanEvent::Start { domain, address, total, ports };
            write_event(&mut self.printout, Form::Ndjson, &start);
        }
        self.check_invariants();
    }

    /// A port of a target is open.
    pub fn handle_open(&mut self, place: usize, OpenPort { address, port, rtt }: OpenPort) {
        if self.options.format != Format::Ndjson || self.state == State::Silenced {
            return;
        }
        let (several, rtt) = (self.options.targets.len() > 1, Some(rtt));
        let is_for_all = self.options.manner.addresses == Addresses::All;
        let address = is_for_all.then_some(address);
        match self.options.targets.get(place) {
            Some(target) if several => {
                let event = SweepEvent::Open { port, rtt, domain: &target.domain, address };
                write_sweep_event(&mut self.printout, &event);
            }
            Some(_) | None => {
                let event = ScanEvent::Open { port, rtt, address };
                write_event(&mut self.printout, Form::Ndjson, &event);
            }
        }
    }

    /// Every port of a target has its state, or its time is up.
    pub fn handle_ended(&mut self, place: usize, summary: Summary) {
        self.wipe();
        self.count_done(place);
        self.progress.open += u64::from(summary.counts.open);
        if self.state == State::Silenced {
            return;
        }
        self.has_failed |= !summary.complete;
        match self.options.format {
            Format::Table => {
                let text = table(&summary, self.options.colour);
                self.printout.extend_from_slice(text.as_bytes());
            }
            Format::Json => {
                write_end(&mut self.printout, Form::Json, &summary);
                self.printout.push(b'\n');
            }
            Format::Ndjson => write_end(&mut self.printout, Form::Ndjson, &summary),
        }
        self.check_invariants();
    }

    /// Nothing of a target could be scanned.
    pub fn handle_failed(&mut self, place: usize, problem: &Problem) {
        self.count_done(place);
        if self.state == State::Silenced {
            return;
        }
        self.has_failed = true;
        let Some(target) = self.options.targets.get(place) else { return };
        let domain = target.domain.clone();
        match self.options.format {
            Format::Table => {}
            Format::Json => write_failure(&mut self.printout, Stream::Answers, (&domain, problem)),
            Format::Ndjson => write_failure(&mut self.printout, Stream::Events, (&domain, problem)),
        }
        self.say(&format!("{domain}: {}", problem.detail()));
        self.check_invariants();
    }

    /// A target whose name is not known yet is given up.
    pub fn handle_dropped(&mut self, place: usize) {
        self.count_done(place);
        self.dropped += 1;
        self.check_invariants();
    }

    fn count_done(&mut self, place: usize) {
        let Some(running) = self.running.remove(&place) else { return };
        self.resolving -= usize::from(matches!(running, Running::Resolving { .. }));
        self.progress.done += running.ports();
        self.progress.targets_done += 1;
    }

    /// The user wants what is known so far: nothing more is begun, and whatever runs is ended by
    /// the service.
    pub fn handle_interrupt(&mut self) {
        match self.state {
            State::Ready | State::Running { .. } => self.state = State::Interrupted,
            State::Interrupted | State::Silenced => return,
        }
        self.has_failed = true;
        let never = self.options.targets.len() - self.next + self.dropped;
        self.say(&match never {
            0 => "interrupted: what is known so far follows".to_owned(),
            _ => {
                format!("interrupted: {never} of {} targets were not begun", self.progress.targets)
            }
        });
    }

    /// Stdout took bytes of the printout.
    pub fn handle_printed(&mut self, count: usize) {
        assert!(count <= self.printout.len(), "no more is taken than there is");
        self.printout.drain(..count);
    }

    /// Stdout takes nothing more. A reader that has gone has read enough: that is no failure.
    pub fn handle_print_failed(&mut self, failure: PrintFailure) {
        self.printout = Vec::new();
        self.state = State::Silenced;
        match failure {
            PrintFailure::ReaderGone => {}
            PrintFailure::Broken => {
                self.has_failed = true;
                self.say("stdout: cannot be written");
            }
        }
    }

    /// Tells progress, if it is due.
    pub fn handle_timeout(&mut self, now: Instant, under_way: UnderWay) {
        let State::Running { began_at, progress_at } = &mut self.state else { return };
        if *progress_at > now {
            return;
        }
        let elapsed = now - *began_at;
        *progress_at = now + PROGRESS_EVERY;
        if self.running.is_empty() {
            return;
        }
        let mut progress = self.progress;
        progress.done += under_way.done;
        progress.open += under_way.open;
        let Progress { done, total, open, .. } = progress;
        match self.line {
            Line::Off => {}
            Line::Wiped | Line::Standing => {
                self.line = Line::Standing;
                self.actions.push_back(Action::ShowProgress(progress.line(elapsed)));
            }
        }
        let keeps_up = self.printout.len() < limits::PRINTOUT_BYTES_MAX / 2;
        if self.options.format == Format::Ndjson && keeps_up {
            let event = SweepEvent::Progress { done, total, open };
            write_sweep_event(&mut self.printout, &event);
        }
    }

    /// The next thing to be told on stderr.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    fn say(&mut self, text: &str) {
        self.wipe();
        self.actions.push_back(Action::Log(format!("openports: {text}")));
    }

    /// Wipes a progress line that stands, so that something else can be told.
    pub fn wipe(&mut self) {
        if self.line == Line::Standing {
            self.line = Line::Wiped;
            self.actions.push_back(Action::ShowProgress(String::new()));
        }
    }

    /// When progress is due.
    pub fn deadline(&self) -> Option<Instant> {
        let is_told = self.line != Line::Off || self.options.format == Format::Ndjson;
        match self.state {
            State::Running { progress_at, .. } if is_told => Some(progress_at),
            State::Ready | State::Running { .. } | State::Interrupted | State::Silenced => None,
        }
    }

    /// True exactly when another target may be begun, as far as this room is concerned.
    pub fn wants_target(&self) -> bool {
        let may_begin = match self.state {
            State::Ready | State::Running { .. } => true,
            State::Interrupted | State::Silenced => false,
        };
        may_begin
            && self.next < self.options.targets.len()
            && self.running.len() < limits::BATCH_JOBS_MAX
            && self.resolving < limits::LOOKUPS_MAX
            && self.printout.len() < limits::PRINTOUT_BYTES_MAX
    }

    /// True exactly when nothing is left to be scanned or printed.
    pub fn is_done(&self) -> bool {
        let is_over = match self.state {
            State::Ready | State::Running { .. } => self.next == self.options.targets.len(),
            State::Interrupted | State::Silenced => true,
        };
        is_over && self.running.is_empty() && self.printout.is_empty()
    }

    /// 0: everything was scanned. 1: something was not, or it is not over.
    pub fn exit_code(&self) -> u8 {
        u8::from(self.has_failed || !self.is_done())
    }

    /// What stdout is to have next.
    pub fn printout(&self) -> &[u8] {
        &self.printout
    }

    /// How many targets may be under way at once, one at least.
    pub fn targets_at_once(&self) -> usize {
        self.options.targets.len().clamp(1, limits::BATCH_JOBS_MAX)
    }

    /// New connects per second at most, of all targets together.
    pub const fn rate(&self) -> Option<NonZeroU32> {
        self.options.manner.rate
    }

    fn check_invariants(&self) {
        assert!(self.progress.done <= self.progress.total, "1: no port is done twice");
        assert!(self.progress.targets_done <= self.progress.targets, "2: nor is a target");
        debug_assert_eq!(
            self.resolving,
            self.running.values().filter(|it| matches!(it, Running::Resolving { .. })).count(),
            "3: lookups are counted"
        );
        assert!(self.running.len() <= limits::BATCH_JOBS_MAX, "4: targets at once are bounded");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::LazyLock;

    use crate::api::problem::Cause;
    use crate::scan::ledger::Counts;
    use crate::target::{Family, Retries, Timeout};
    use options::Manner;

    use table::Colour;
    use targets::Targets;

    fn batch(list: &str, options: impl FnOnce(&mut Options)) -> Batch {
        let mut targets = Targets::new(PortSet::from_range(1, 10), PortSet::new());
        targets.add_lines(list.as_bytes());
        let mut chosen = Options {
            targets,
            manner: Manner {
                timeout: Timeout::Auto,
                deadline: Duration::from_secs(60),
                retries: Retries::Auto,
                concurrency: None,
                rate: None,
                family: Family::Any,
                addresses: Addresses::First,
            },
            shard: Shard::WHOLE,
            format: Format::Json,
            colour: Colour::Plain,
            progress: ProgressLine::Hidden,
        };
        options(&mut chosen);
        Batch::new(chosen)
    }

    fn address(place: usize) -> IpAddr {
        [127, 0, 0, place as u8].into()
    }

    /// Ends a target with port 1 open, and the others as these counts have it.
    fn end(batch: &mut Batch, place: usize, counts: Counts) {
        let open = PortSet::from_range(1, counts.open as u16);
        let domain = batch.options.targets.get(place).expect("a target").domain.clone();
        let summary = Summary {
            from_port: 1,
            to_port: 10,
            domain: &domain,
            open: &open,
            address: address(place),
            counts,
            complete: counts.untested == 0,
            retried: 0,
            loss_suspected: false,
            elapsed: Duration::ZERO,
            closed: None,
            filtered: None,
            unreachable: None,
            services: None,
            results: None,
        };
        batch.handle_ended(place, summary);
    }

    const WHOLE: Counts = Counts { open: 1, closed: 9, filtered: 0, unreachable: 0, untested: 0 };
    const CUT: Counts = Counts { open: 1, closed: 4, filtered: 0, unreachable: 0, untested: 5 };

    fn begin(batch: &mut Batch) -> usize {
        let (place, request) = batch.poll_target(Instant::now()).expect("a target is wanted");
        let total = request.ports.len() as u32;
        batch.handle_began(
            place,
            Beginning { address: address(place), total, ports: &request.ports },
        );
        place
    }

    /// Of a target whose ports nobody looks at.
    fn beginning(total: u32) -> Beginning<'static> {
        static PORTS: LazyLock<PortSet> = LazyLock::new(|| PortSet::from_range(1, 10));
        Beginning { address: address(0), total, ports: &PORTS }
    }

    fn printed(batch: &mut Batch) -> String {
        let text = String::from_utf8(batch.printout().to_vec()).expect("text is printed");
        batch.handle_printed(text.len());
        text
    }

    fn said(batch: &mut Batch) -> Vec<String> {
        let text = |action| {
            if let Action::ShowProgress(line) = action {
                return format!("progress {line:?}");
            }
            let Action::Log(line) = action else { panic!("{action:?} is not for a batch to say") };
            line
        };
        std::iter::from_fn(|| batch.poll_action()).map(text).collect()
    }

    #[test]
    fn each_target_is_begun_once_and_printed_when_it_ends() {
        let mut batch = batch("a\nb\n192.0.2.7 22", |_| {});
        let places = [0, 1, 2].map(|_| begin(&mut batch));
        assert_eq!(places, [0, 1, 2]);
        assert!(!batch.wants_target() && batch.poll_target(Instant::now()).is_none());
        end(&mut batch, 1, WHOLE);
        assert!(printed(&mut batch).starts_with(r#"{"from_port":1,"to_port":10,"domain":"b""#));
        end(&mut batch, 2, Counts { open: 1, ..Counts::default() });
        end(&mut batch, 0, WHOLE);
        assert!(!batch.is_done(), "something is to be printed");
        assert_eq!(printed(&mut batch).lines().count(), 2);
        assert_eq!((batch.is_done(), batch.exit_code()), (true, 0));
        assert!(said(&mut batch).is_empty());
    }

    #[test]
    fn the_exit_code_tells_whether_everything_was_scanned() {
        let check = |what: fn(&mut Batch), expected: u8| {
            let mut batch = batch("a\nb", |_| {});
            let places = [begin(&mut batch), begin(&mut batch)];
            what(&mut batch);
            for place in places {
                end(&mut batch, place, WHOLE);
            }
            printed(&mut batch);
            assert_eq!((batch.is_done(), batch.exit_code()), (true, expected));
        };
        let problem = || Problem::new(Cause::UnknownHost, "No.");
        check(|_| {}, 0);
        check(|batch| end(batch, 0, CUT), 1);
        check(Batch::handle_interrupt, 1);
        check(|batch| batch.handle_print_failed(PrintFailure::ReaderGone), 0);
        check(|batch| batch.handle_print_failed(PrintFailure::Broken), 1);
        let mut failed = batch("a", |_| {});
        failed.poll_target(Instant::now());
        failed.handle_failed(0, &problem());
        printed(&mut failed);
        assert_eq!((failed.is_done(), failed.exit_code()), (true, 1));
        let mut bad = batch("a\n~", |_| {});
        begin(&mut bad);
        assert_eq!(bad.exit_code(), 1, "it is not over");
        end(&mut bad, 0, WHOLE);
        printed(&mut bad);
        assert_eq!((bad.is_done(), bad.exit_code()), (true, 1));
        let empty = batch("# nobody", |_| {});
        assert_eq!((empty.is_done(), empty.exit_code()), (true, 1));
    }

    #[test]
    fn a_target_that_comes_to_nothing_is_told_in_every_form() {
        let check = |format: Format, expected: &str| {
            let mut batch = batch("nope.example", |options| options.format = format);
            batch.poll_target(Instant::now());
            batch.handle_failed(0, &Problem::new(Cause::UnknownHost, "No such name."));
            assert_eq!(said(&mut batch), ["openports: nope.example: No such name."]);
            let text = printed(&mut batch);
            assert!(text.starts_with(expected) && text.is_empty() == expected.is_empty(), "{text}");
        };
        check(Format::Table, "");
        check(
            Format::Json,
            r#"{"type":"about:blank","title":"Unprocessable Content","status":422"#,
        );
        check(Format::Ndjson, r#"{"event":"failed","type":"about:blank""#);
    }

    #[test]
    fn one_target_streams_what_the_service_would_and_several_say_whose_it_is() {
        let check_of = |addresses: Addresses, list: &str, expected: &str| {
            let mut batch = batch(list, |options| {
                options.format = Format::Ndjson;
                options.manner.addresses = addresses;
            });
            begin(&mut batch);
            let (address, rtt) = (address(0), Duration::from_micros(410));
            batch.handle_open(0, OpenPort { address, port: 1, rtt });
            end(&mut batch, 0, WHOLE);
            let text = printed(&mut batch);
            let lines: Vec<&str> = text.lines().collect();
            let start =
                r#"{"event":"start","domain":"a","address":"127.0.0.0","total":10,"ports":"1-10"}"#;
            assert_eq!(lines[..2], [start, expected]);
            assert!(lines[2].starts_with(r#"{"event":"end","from_port":1,"#), "{text}");
            assert_eq!(lines.len(), 3);
        };
        let check = |list, expected| check_of(Addresses::First, list, expected);
        check("a", r#"{"event":"open","port":1,"rtt_ms":0.41}"#);
        check("a\nb", r#"{"event":"open","port":1,"rtt_ms":0.41,"domain":"a"}"#);
        let check = |list, expected| check_of(Addresses::All, list, expected);
        check("a", r#"{"event":"open","port":1,"rtt_ms":0.41,"address":"127.0.0.0"}"#);
        check(
            "a\nb",
            r#"{"event":"open","port":1,"rtt_ms":0.41,"domain":"a","address":"127.0.0.0"}"#,
        );
    }

    #[test]
    fn the_scattered_ports_of_a_shard_are_not_told_at_its_start() {
        let mut batch = batch("a", |options| {
            options.format = Format::Ndjson;
            options.shard = Shard::parse("1/3").expect("a shard");
        });
        begin(&mut batch);
        let text = printed(&mut batch);
        assert!(text.starts_with(r#"{"event":"start","#) && !text.contains("ports"), "{text}");
    }

    #[test]
    fn names_of_services_are_for_the_table_alone() {
        for format in [Format::Table, Format::Json, Format::Ndjson] {
            let mut batch = batch("a", |options| options.format = format);
            let (_, request) = batch.poll_target(Instant::now()).expect("a target");
            assert_eq!(request.include.services, format == Format::Table, "{format:?}");
        }
    }

    #[test]
    fn a_slow_reader_keeps_further_targets_from_beginning() {
        let mut batch = batch(&"a\n".repeat(5000), |_| {});
        let mut most = 0;
        for _ in 0..5000 {
            if batch.wants_target() {
                let place = begin(&mut batch);
                end(&mut batch, place, WHOLE);
            } else {
                let waits = batch.printout().len();
                assert!(waits >= limits::PRINTOUT_BYTES_MAX);
                most = most.max(waits);
                batch.handle_printed(waits / 2 + 1);
            }
        }
        assert!((1..2 * limits::PRINTOUT_BYTES_MAX).contains(&most), "{most} bytes waited");
    }

    #[test]
    fn targets_at_once_and_lookups_at_once_are_bounded() {
        let mut batch = batch(&"a\n".repeat(2000), |_| {});
        let now = Instant::now();
        let looked_up = std::iter::from_fn(|| batch.poll_target(now)).count();
        assert_eq!(looked_up, limits::LOOKUPS_MAX);
        for place in 0..looked_up {
            batch.handle_began(place, beginning(10));
        }
        while batch.wants_target() {
            begin(&mut batch);
        }
        assert_eq!(batch.running.len(), limits::BATCH_JOBS_MAX);
    }

    #[test]
    fn an_interrupt_says_how_many_targets_were_not_begun() {
        let mut batch = batch("a\nb\nc", |_| {});
        begin(&mut batch);
        batch.poll_target(Instant::now());
        batch.handle_dropped(1);
        batch.handle_interrupt();
        batch.handle_interrupt();
        end(&mut batch, 0, CUT);
        assert_eq!(said(&mut batch), ["openports: interrupted: 2 of 3 targets were not begun"]);
        assert!(printed(&mut batch).contains(r#""complete":false"#));
        assert!(batch.is_done());
    }

    #[test]
    fn progress_is_told_at_most_five_times_a_second_and_wiped_before_anything_else() {
        let mut batch = batch("a\nb", |options| options.progress = ProgressLine::Shown);
        let start = Instant::now();
        assert_eq!(batch.deadline(), None);
        let (place, _) = batch.poll_target(start).expect("a target");
        batch.handle_began(place, beginning(10));
        let due = batch.deadline().expect("progress is due");
        assert_eq!(due - start, PROGRESS_EVERY);
        batch.handle_timeout(start, UnderWay::default());
        assert!(said(&mut batch).is_empty(), "it is not due yet");
        batch.handle_timeout(due, UnderWay { done: 5, open: 1 });
        let line = "[#####---------------]  25%  25/s  1 s left  1 open  0/2 targets";
        assert_eq!(said(&mut batch), [format!("progress {line:?}")]);
        assert!(batch.deadline() > Some(due), "a deadline that was handled is not due");
        end(&mut batch, 0, WHOLE);
        batch.wipe();
        assert_eq!(said(&mut batch), ["progress \"\""], "it is wiped once");
        begin(&mut batch);
        batch.handle_timeout(due + PROGRESS_EVERY, UnderWay { done: 5, open: 1 });
        let told = said(&mut batch).concat();
        assert!(told.contains("75%") && told.contains("2 open  1/2 targets"), "{told}");
    }

    #[test]
    fn a_reader_that_lags_by_half_of_what_may_wait_is_told_no_progress() {
        let mut batch = batch("a", |options| options.format = Format::Ndjson);
        let place = begin(&mut batch);
        let mut now = Instant::now();
        let mut tell_progress = |batch: &mut Batch| {
            let before = batch.printout().len();
            now += PROGRESS_EVERY;
            batch.handle_timeout(now, UnderWay::default());
            batch.printout().len() > before
        };
        assert!(tell_progress(&mut batch));
        while batch.printout().len() < limits::PRINTOUT_BYTES_MAX / 2 {
            let open = OpenPort { address: address(1), port: 1, rtt: Duration::ZERO };
            batch.handle_open(place, open);
        }
        assert!(!tell_progress(&mut batch));
        batch.handle_printed(1000);
        assert!(tell_progress(&mut batch));
    }

    #[test]
    fn as_many_targets_as_there_are_may_be_under_way_up_to_the_bound() {
        for (targets, expected) in [(0, 1), (1, 1), (3, 3), (5000, limits::BATCH_JOBS_MAX)] {
            assert_eq!(batch(&"a\n".repeat(targets), |_| {}).targets_at_once(), expected);
        }
    }

    #[test]
    fn every_address_of_a_name_counts_in_the_progress() {
        let mut batch = batch("a", |options| options.format = Format::Ndjson);
        let start = Instant::now();
        batch.poll_target(start);
        batch.handle_began(0, beginning(30));
        batch.handle_timeout(start + PROGRESS_EVERY, UnderWay { done: 25, open: 2 });
        let progress = r#"{"event":"progress","done":25,"total":30,"open":2}"#;
        assert_eq!(printed(&mut batch).lines().last(), Some(progress));
    }

    #[test]
    fn targets_without_a_port_in_the_shard_are_passed_over() {
        let mut asked = vec![0; 600];
        for shard in ["1/7", "2/7", "3/7", "4/7", "5/7", "6/7", "7/7"] {
            let list = "a 22\n".repeat(600);
            let mut batch =
                batch(&list, |options| options.shard = Shard::parse(shard).expect("a shard"));
            let now = Instant::now();
            for _ in 0..600 {
                if let Some((place, request)) = batch.poll_target(now) {
                    assert_eq!((request.from_port, request.ports.len()), (22, 1));
                    asked[place] += 1;
                    batch.handle_dropped(place);
                }
            }
            assert!(batch.is_done());
            assert_eq!(batch.progress.targets_done, 600);
            assert_eq!(batch.progress.done, batch.progress.total);
        }
        assert!(asked.iter().all(|times| *times == 1), "each is probed by one shard");
    }
}
