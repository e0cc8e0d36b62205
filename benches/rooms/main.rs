//! What the pure rooms cost: instructions first, allocations second, wall time third.
//!
//! Instructions are counted by valgrind, under which this program runs itself, once per case with
//! some rounds and once with twice as many: the difference is the work alone. They and the
//! allocations are the same from run to run, and `recorded.json` holds what they were; `--check`
//! fails where a case has become more than a tenth worse. Wall time differs between machines and
//! is shown, not recorded.
#![expect(clippy::print_stdout, reason = "a command line program reports on stdout")]

mod allocations;
mod cases;
mod kernel;
mod measure;

use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;
use std::process::ExitCode;

use serde::{Deserialize, Serialize};

use cases::{CASES, Case};
use measure::{Cost, measure};

const HELP: &str = "\
What the pure rooms cost, in instructions, allocations and time.

    cargo bench --bench rooms               measures, beside what was recorded
    cargo bench --bench rooms -- --check    fails where a case is more than 10 % worse
    cargo bench --bench rooms -- --record   writes benches/rooms/recorded.json anew

Instructions need valgrind. Without it the rest is measured, and with OPENPORTS_REQUIRE_ALL in
the environment that is a failure.";

/// How much worse than recorded a figure may be.
const WORSE_MAX: f64 = 1.10;
/// Allocations are few, and often none; so little more than none is none.
const ALLOCATIONS_SLACK: f64 = 0.01;

/// The file of what was recorded.
#[derive(Default, Serialize, Deserialize)]
struct Record {
    /// Another compiler makes other code, and another valgrind offers another processor.
    toolchain: String,
    cases: BTreeMap<String, Cost>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Show,
    Check,
    Record,
}

fn main() -> ExitCode {
    // `cargo bench` adds the flag `--bench`, behind whatever was given.
    let arguments: Vec<String> =
        std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let mode = match words.as_slice() {
        [] => Mode::Show,
        ["--check"] => Mode::Check,
        ["--record"] => Mode::Record,
        ["--case", name, rounds] => return run_one(name, rounds),
        _ => {
            println!("{HELP}");
            return ExitCode::from(64);
        }
    };
    match run_all(mode) {
        Ok(faults) if faults.is_empty() => ExitCode::SUCCESS,
        Ok(faults) => {
            println!("\n{}", faults.join("\n"));
            ExitCode::FAILURE
        }
        Err(error) => {
            println!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// The part that runs under valgrind.
fn run_one(name: &str, rounds: &str) -> ExitCode {
    let case = CASES.iter().find(|case| case.name == name);
    let (Some(case), Ok(rounds)) = (case, rounds.parse()) else { return ExitCode::from(64) };
    (case.run)(rounds);
    ExitCode::SUCCESS
}

/// Measures every case, and says what is wrong, a fault a line.
fn run_all(mode: Mode) -> Result<Vec<String>, Box<dyn Error>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/rooms/recorded.json");
    let recorded: Record = match std::fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes)?,
        Err(_) => Record::default(),
    };
    let valgrind = measure::version("valgrind");
    if valgrind.is_none() {
        println!("valgrind is missing: NO INSTRUCTION IS COUNTED, only allocations and time.");
        if mode == Mode::Record || std::env::var_os("OPENPORTS_REQUIRE_ALL").is_some() {
            return Err("install valgrind (Debian: apt-get install valgrind)".into());
        }
    }
    let rustc = measure::version("rustc").unwrap_or_default();
    let toolchain = format!("{rustc}, {}", valgrind.as_deref().unwrap_or("no valgrind"));
    let mut now = Record { toolchain, cases: BTreeMap::new() };
    let mut faults = Vec::new();
    println!("{:27}{:>13}{:>13}{:>13}{:>11}", "", "instructions", "recorded", "allocations", "ns");
    for case in &CASES {
        let (cost, nanos) = measure(case, valgrind.is_some())?;
        let then = recorded.cases.get(case.name);
        print_row(case, (&cost, then), nanos);
        faults.extend(broken_promise(case, &cost, nanos));
        if mode == Mode::Check {
            faults.extend(worse(case, &cost, then));
        }
        now.cases.insert(case.name.to_owned(), cost);
    }
    if mode == Mode::Record {
        std::fs::write(&path, serde_json::to_string_pretty(&now)? + "\n")?;
    } else if !faults.is_empty() && recorded.toolchain != now.toolchain {
        faults.push(format!("recorded with {}, this is {}", recorded.toolchain, now.toolchain));
    }
    Ok(faults)
}

fn print_row(case: &Case, (now, then): (&Cost, Option<&Cost>), nanos: f64) {
    let show = |figure: Option<f64>| figure.map_or_else(|| "-".to_owned(), |it| format!("{it:.0}"));
    println!(
        "{:27}{:>13}{:>13}{:>13.2}{nanos:>11.0} a {}",
        case.name,
        show(now.instructions),
        show(then.and_then(|cost| cost.instructions)),
        now.allocations,
        case.unit
    );
}

/// What became more than a tenth worse.
fn worse(case: &Case, now: &Cost, then: Option<&Cost>) -> Vec<String> {
    let Some(then) = then else { return vec![format!("{}: record it", case.name)] };
    let mut faults = Vec::new();
    if let (Some(now), Some(then)) = (now.instructions, then.instructions)
        && now > then * WORSE_MAX
    {
        let (name, unit) = (case.name, case.unit);
        faults.push(format!("{name}: {now:.0} instructions a {unit}, recorded are {then:.0}"));
    }
    if now.allocations > then.allocations * WORSE_MAX + ALLOCATIONS_SLACK {
        let (name, now, then) = (case.name, now.allocations, then.allocations);
        faults.push(format!("{name}: {now:.2} allocations, recorded are {then:.2}"));
    }
    faults
}

/// What was promised whatever was recorded, and is not kept.
fn broken_promise(case: &Case, now: &Cost, nanos: f64) -> Option<String> {
    let promise = case.promise.as_ref()?;
    let time_max = promise.time_max.as_nanos() as f64;
    (nanos > time_max || now.allocations > promise.allocations_max).then(|| {
        let (name, allocations) = (case.name, now.allocations);
        format!("{name}: {nanos:.0} ns and {allocations} allocations are more than was promised")
    })
}
