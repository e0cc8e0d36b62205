//! Batches of the command line: lists of targets, in shards, on the same core and loop, and the
//! output that they print.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use openports::batch::list::TargetList;
use openports::batch::options::{BatchOptions, Destination, Format, ProgressLine, Shown};
use openports::batch::printer::RunInfo;
use openports::batch::shard::Shard;
use openports::batch::table::Colour;
use openports::batch::{Batch, EXIT_UNPRINTED};
use openports::event::{PrintFailure, Signal};
use openports::port_set::PortSet;
use openports::scan::options::{Retries, ScanOptions, Timeout};
use serde_json::Value;

use crate::network::Port;
use crate::rng::Rng;
use crate::run::{End, Simulation};
use crate::scenario;
use crate::world::WorldEvent;

/// The output of a batch, and its exit code.
#[derive(Debug, Default)]
pub(crate) struct Printed {
    pub(crate) text: Vec<u8>,
    pub(crate) exit_code: Option<u8>,
    /// The number of bytes after which writes fail, and how.
    pub(crate) fails_after: Option<(usize, PrintFailure)>,
}

/// The parsed output of one shard: the number of reported ports and the open ports of each target.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct ShardOutput {
    totals: BTreeMap<String, u64>,
    open: BTreeMap<String, BTreeSet<u16>>,
    failed: BTreeSet<String>,
}

const TARGETS: [&str; 8] = [
    "203.0.113.1",
    "203.0.113.2",
    "203.0.113.3",
    "203.0.113.4",
    "one.test",
    "here.test",
    "none.test",
    "169.254.169.254",
];

fn targets(rng: &mut Rng) -> BTreeMap<&'static str, BTreeSet<u16>> {
    let some = TARGETS.iter().filter(|target| **target == TARGETS[0] || rng.chance(60)).copied();
    let some: Vec<_> = some.collect();
    some.into_iter().map(|target| (target, (1..=1 + rng.below(60) as u16).collect())).collect()
}

fn list(targets: &BTreeMap<&str, BTreeSet<u16>>) -> String {
    let line = |(target, ports): (&&str, &BTreeSet<u16>)| format!("{target} 1-{}\n", ports.len());
    targets.iter().map(line).collect()
}

/// Returns the world of a seed with a batch for this shard of the list.
fn world(seed: u64, (list, shard): (&str, &str), format: Format) -> Simulation {
    let mut world = scenario::world_of_shell(seed);
    let mut targets = TargetList::new(PortSet::from_range(1, 9), PortSet::new());
    targets.add_lines(list.as_bytes());
    let targets = targets.finish().expect("a list");
    let progress = match seed % 2 {
        0 => ProgressLine::Shown { columns: 80 },
        _ => ProgressLine::Hidden,
    };
    world.core_mut().begin_batch(Batch::new(BatchOptions {
        targets,
        scan: ScanOptions {
            timeout: Timeout::Fixed(Duration::from_millis(400)),
            deadline: Duration::from_secs(3600),
            retries: Retries::Exactly(0),
            ..ScanOptions::default()
        },
        shard: Shard::parse(shard).expect("a shard"),
        format,
        colour: Colour::Plain,
        progress,
        shown: Shown::All,
        output: Destination::Stdout,
        run: RunInfo::default(),
    }));
    world.printed = Some(Printed::default());
    world
}

/// Parses the output, which must consist of whole lines of JSON and report each target once.
fn read(printed: &Printed) -> ShardOutput {
    let text = std::str::from_utf8(&printed.text).expect("text");
    assert!(text.is_empty() || text.ends_with('\n'), "the last line is incomplete");
    let mut output = ShardOutput::default();
    for line in text.lines() {
        let event: Value = serde_json::from_str(line).expect("each line is JSON");
        let domain = event["domain"].as_str().unwrap_or_default().to_owned();
        if event.get("open_ports").is_some() {
            let counts = event["counts"].as_object().expect("counts");
            let total = counts.values().map(|count| count.as_u64().expect("a count")).sum();
            let is_new = output.totals.insert(domain.clone(), total).is_none();
            assert!(is_new, "{domain} is reported twice");
            let ports = serde_json::from_value(event["open_ports"].clone()).expect("ports");
            output.open.insert(domain, ports);
        } else if event.get("cause").is_some() {
            assert!(output.failed.insert(domain), "two failures: {line}");
        } else {
            let kind = event["event"].as_str();
            assert!(matches!(kind, Some("start" | "open" | "progress")), "{line}");
        }
    }
    output
}

/// Checks that all shards of a list together report each port of each target once and correctly.
pub(crate) fn run(seed: u64) {
    let mut rng = Rng::new(seed);
    let targets = targets(&mut rng);
    let list = list(&targets);
    let format = rng.pick(&[Format::Json, Format::Ndjson]);
    let shards = rng.pick(&[1, 1, 2, 5]);
    let (mut totals, mut open) = (BTreeMap::new(), BTreeMap::<String, BTreeSet<u16>>::new());
    let (mut failed, mut hosts) = (BTreeSet::new(), None);
    for shard in 1..=shards {
        let mut world = world(seed, (&list, &format!("{shard}/{shards}")), format);
        assert_eq!(world.run(), End::Exit, "seed {seed}: the batch does not end");
        let printed = world.printed.take().expect("a batch has output");
        let output = read(&printed);
        assert_eq!(printed.exit_code, Some(u8::from(!output.failed.is_empty())), "seed {seed}");
        for (domain, total) in output.totals {
            *totals.entry(domain).or_insert(0) += total;
        }
        for (domain, ports) in output.open {
            open.entry(domain).or_default().extend(ports);
        }
        failed.extend(output.failed);
        hosts = Some(std::mem::take(&mut world.hosts));
    }
    let hosts = hosts.expect("a shard");
    for (target, ports) in &targets {
        let is_denied = *target == "169.254.169.254";
        assert!(!is_denied || failed.contains(*target), "seed {seed}: {target} was not denied");
        let Ok(address) = target.parse::<IpAddr>() else { continue };
        if is_denied {
            continue;
        }
        assert_eq!(totals[*target], ports.len() as u64, "seed {seed}: number of ports");
        let is_open = |port: &&u16| hosts[&address].port(**port) == Port::Open;
        let truth: BTreeSet<u16> = ports.iter().filter(is_open).copied().collect();
        let is_lossy = hosts[&address].loss > 0;
        let found = &open[*target];
        let is_right = found.is_subset(&truth) && (is_lossy || *found == truth);
        assert!(
            is_right,
            "seed {seed}: {target}: {found:?}, not {truth:?}, of {:?}",
            hosts[&address]
        );
    }
}

/// An end of a batch before its time.
#[derive(Clone, Copy, Debug)]
enum Cut {
    /// A write fails after this number of bytes.
    Write(usize, PrintFailure),
    Interrupt(Duration),
    /// The second interrupt comes at this time after the first.
    Interrupts(Duration, Duration),
}

/// Checks the exit codes of docs/cli.md after an interrupt, a second one, a closed pipe and a full
/// disk, and that the output is complete after one interrupt, and otherwise a prefix of the output
/// of a run that continues.
pub(crate) fn run_interrupted(seed: u64) {
    let mut rng = Rng::new(seed ^ 0x5eed);
    let list = list(&targets(&mut rng));
    let how = rng.below(4);
    let run = |cut| {
        let mut world = world(seed, (&list, "1/1"), Format::Ndjson);
        if how == 3 {
            // After EINTR, the second signal would end the wait of the loop earlier.
            world.faults.interrupts = 0;
        }
        run_cut(seed, world, cut)
    };
    let (whole, time, _) = run(None);
    let (bytes, at) = (rng.below(whole.text.len().max(1)), rng.time(time));
    let cut = match how {
        0 => Cut::Write(bytes, PrintFailure::ReaderGone),
        1 => Cut::Write(bytes, PrintFailure::Broken),
        2 => Cut::Interrupt(at),
        _ => Cut::Interrupts(at, rng.time(Duration::from_millis(20))),
    };
    let (printed, _, is_interrupted) = run(Some(cut));
    let longer = match cut {
        Cut::Write(..) => &whole,
        Cut::Interrupt(_) => &printed,
        Cut::Interrupts(at, _) => &run(Some(Cut::Interrupt(at))).0,
    };
    read(longer);
    assert!(longer.text.starts_with(&printed.text), "seed {seed}, {cut:?}: not a prefix");
    let has_failed =
        |printed: &Printed| String::from_utf8_lossy(&printed.text).contains(r#""event":"failed""#);
    let whole_code = whole.exit_code.expect("the run exits");
    let codes = match cut {
        Cut::Write(..) if printed.text.len() == whole.text.len() => [whole_code; 2],
        // `main` exits with 1 instead of this code.
        Cut::Write(_, PrintFailure::Broken) => [EXIT_UNPRINTED; 2],
        Cut::Write(_, PrintFailure::ReaderGone) if has_failed(&printed) => [1; 2],
        // A target may have failed before the reader closed the pipe.
        Cut::Write(_, PrintFailure::ReaderGone) => [0, whole_code],
        // The batch may have been complete already.
        Cut::Interrupt(_) | Cut::Interrupts(..) if printed.text == whole.text => [1, whole_code],
        Cut::Interrupt(_) | Cut::Interrupts(..) if is_interrupted => [1; 2],
        Cut::Interrupt(_) | Cut::Interrupts(..) => [whole_code; 2],
    };
    let code = printed.exit_code.expect("the run exits");
    assert!(codes.contains(&code), "seed {seed}, {cut:?}: exit code {code}, not {codes:?}");
}

/// Runs a batch to its end. Returns its output, its time, and whether it received an interrupt.
fn run_cut(seed: u64, mut world: Simulation, cut: Option<Cut>) -> (Printed, Duration, bool) {
    let interrupt = || WorldEvent::Signal(Signal::Interrupt);
    match cut {
        None => {}
        Some(Cut::Write(bytes, failure)) => {
            let printed = world.printed.as_mut().expect("a batch has output");
            printed.fails_after = Some((bytes, failure));
        }
        Some(Cut::Interrupt(at)) => world.schedule(at, interrupt()),
        Some(Cut::Interrupts(at, after)) => {
            world.schedule(at, interrupt());
            world.schedule(at + after, interrupt());
        }
    }
    assert_eq!(world.run(), End::Exit, "seed {seed}, {cut:?}: the batch does not end");
    let is_interrupted = world.signals_len > world.signals.len();
    (world.printed.take().expect("a batch has output"), world.elapsed(), is_interrupted)
}
