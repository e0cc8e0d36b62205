//! Uses from the shell: lists of targets on the same core and loop, in shards, and what they print.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use openports::batch::Batch;
use openports::batch::list::TargetList;
use openports::batch::options::{BatchOptions, Destination, Format, ProgressLine, Shown};
use openports::batch::printer::RunInfo;
use openports::batch::shard::Shard;
use openports::batch::table::Colour;
use openports::event::{PrintFailure, Signal};
use openports::host::Family;
use openports::port_set::PortSet;
use openports::scan::options::{Addresses, Include, Retries, ScanOptions, Timeout};
use openports::technique::Technique;
use serde_json::Value;

use crate::network::Port;
use crate::rng::Rng;
use crate::run::{End, Simulation};
use crate::scenario;
use crate::world::Happening;

/// What a use from the shell has printed, and how it ended.
#[derive(Debug, Default)]
pub(crate) struct Printed {
    pub(crate) text: Vec<u8>,
    pub(crate) exit_code: Option<u8>,
    /// After so many bytes nobody reads on, or the disk is full.
    pub(crate) ends: Option<(usize, PrintFailure)>,
}

/// What one shard of a list came to: how many ports were told of each target, and which are open.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Told {
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

/// The targets of a seed, each with its ports.
fn targets(rng: &mut Rng) -> BTreeMap<&'static str, BTreeSet<u16>> {
    let some = TARGETS.iter().filter(|target| **target == TARGETS[0] || rng.chance(60)).copied();
    let some: Vec<_> = some.collect();
    some.into_iter().map(|target| (target, (1..=1 + rng.below(60) as u16).collect())).collect()
}

fn list(targets: &BTreeMap<&str, BTreeSet<u16>>) -> String {
    let line = |(target, ports): (&&str, &BTreeSet<u16>)| format!("{target} 1-{}\n", ports.len());
    targets.iter().map(line).collect()
}

/// The world of a seed, in which this shard of its list is scanned.
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
            technique: Technique::Connect,
            timeout: Timeout::Fixed(Duration::from_millis(400)),
            deadline: Duration::from_secs(3600),
            retries: Retries::Exactly(0),
            concurrency: None,
            rate: None,
            family: Family::Any,
            addresses: Addresses::First,
            include: Include::default(),
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

/// Reads what was printed: whole lines of JSON, each target told once.
fn read(printed: &Printed) -> Told {
    let text = std::str::from_utf8(&printed.text).expect("text");
    assert!(text.is_empty() || text.ends_with('\n'), "whole lines");
    let mut told = Told::default();
    for line in text.lines() {
        let event: Value = serde_json::from_str(line).expect("each line is JSON");
        let domain = event["domain"].as_str().unwrap_or_default().to_owned();
        if event.get("open_ports").is_some() {
            let counts = event["counts"].as_object().expect("counts");
            let total = counts.values().map(|count| count.as_u64().expect("a count")).sum();
            let is_new = told.totals.insert(domain.clone(), total).is_none();
            assert!(is_new, "{domain} is told twice");
            let ports = serde_json::from_value(event["open_ports"].clone()).expect("ports");
            told.open.insert(domain, ports);
        } else if event.get("cause").is_some() {
            assert!(told.failed.insert(domain), "{line} is told twice");
        } else {
            let kind = event["event"].as_str();
            assert!(matches!(kind, Some("start" | "open" | "progress")), "{line}");
        }
    }
    told
}

/// All shards of a list together tell each port of each target once, and the truth of it.
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
        assert_eq!(world.run(), End::Exit, "seed {seed}: it ends by itself");
        let printed = world.printed.take().expect("it was there");
        let told = read(&printed);
        assert_eq!(printed.exit_code, Some(u8::from(!told.failed.is_empty())), "seed {seed}");
        for (domain, total) in told.totals {
            *totals.entry(domain).or_insert(0) += total;
        }
        for (domain, ports) in told.open {
            open.entry(domain).or_default().extend(ports);
        }
        failed.extend(told.failed);
        hosts = Some(std::mem::take(&mut world.hosts));
    }
    let hosts = hosts.expect("a shard");
    for (target, ports) in &targets {
        let is_denied = *target == "169.254.169.254";
        assert!(!is_denied || failed.contains(*target), "seed {seed}: {target} is scanned");
        let Ok(address) = target.parse::<IpAddr>() else { continue };
        if is_denied {
            continue;
        }
        assert_eq!(totals[*target], ports.len() as u64, "seed {seed}: each port once");
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

/// Whoever interrupts it, stops reading or fills the disk ends it, and what was printed is whole.
pub(crate) fn run_cut_short(seed: u64) {
    let mut rng = Rng::new(seed ^ 0x5eed);
    let list = list(&targets(&mut rng));
    let mut world = world(seed, (&list, "1/1"), Format::Ndjson);
    let at = rng.time(Duration::from_secs(2));
    let how = rng.below(4);
    let printed = world.printed.as_mut().expect("it was just begun");
    match how {
        0 => printed.ends = Some((rng.below(2_000), PrintFailure::ReaderGone)),
        1 => printed.ends = Some((rng.below(2_000), PrintFailure::Broken)),
        _ => world.plan(at, Happening::Signal(Signal::Interrupt)),
    }
    if how == 3 {
        world.plan(at + rng.time(Duration::from_secs(1)), Happening::Signal(Signal::Interrupt));
    }
    assert_eq!(world.run(), End::Exit, "seed {seed}: it ends");
    let printed = world.printed.take().expect("it was there");
    assert!(printed.exit_code.is_some());
    if printed.ends.is_none() && how == 2 {
        read(&printed);
    }
}
