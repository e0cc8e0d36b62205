//! Measures the cost of the pure modules: instructions, allocations and wall time.
//!
//! Valgrind counts the instructions. This program runs itself under valgrind twice for each case,
//! the second time with twice the rounds, and the difference is the work without the setup.
//! Instructions and allocations do not vary between runs, so `recorded.json` has their values, and
//! `--check` fails if a case is more than 10 % worse. Wall time depends on the machine, so it is
//! printed but not recorded.
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
Measures the cost of the pure modules in instructions, allocations and time.

    cargo bench --bench modules             prints the costs and the recorded ones
    cargo bench --bench modules -- --check  fails if a case is more than 10 % worse
    cargo bench --bench modules -- --record writes benches/modules/recorded.json

Instructions need valgrind. Without it only the rest is measured, which is a failure if
OPENPORTS_REQUIRE_ALL is in the environment.";

/// The maximum of a figure as a multiple of its recorded value.
const WORSE_MAX: f64 = 1.10;
/// The permitted difference of allocations, because many cases have none.
const ALLOCATIONS_SLACK: f64 = 0.01;

#[derive(Default, Serialize, Deserialize)]
struct Record {
    /// The versions of the compiler and of valgrind, on which the counts depend.
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
    // `cargo bench` appends the flag `--bench`.
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

/// Measures all cases, and returns the faults, one line each.
fn run_all(mode: Mode) -> Result<Vec<String>, Box<dyn Error>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/modules/recorded.json");
    let recorded: Record = match std::fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes)?,
        Err(_) => Record::default(),
    };
    let valgrind = measure::version("valgrind");
    if valgrind.is_none() {
        println!("valgrind is missing: INSTRUCTIONS ARE NOT COUNTED, only allocations and time.");
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
        faults.extend(exceeded_maximum(case, &cost, nanos));
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
        "{:27}{:>13}{:>13}{:>13.2}{nanos:>11.0} per {}",
        case.name,
        show(now.instructions),
        show(then.and_then(|cost| cost.instructions)),
        now.allocations,
        case.unit
    );
}

/// Returns the figures of a case that are more than 10 % worse.
fn worse(case: &Case, now: &Cost, then: Option<&Cost>) -> Vec<String> {
    let Some(then) = then else { return vec![format!("{}: record it", case.name)] };
    let mut faults = Vec::new();
    if let (Some(now), Some(then)) = (now.instructions, then.instructions)
        && now > then * WORSE_MAX
    {
        let (name, unit) = (case.name, case.unit);
        faults.push(format!("{name}: {now:.0} instructions per {unit}, {then:.0} are recorded"));
    }
    if now.allocations > then.allocations * WORSE_MAX + ALLOCATIONS_SLACK {
        let (name, now, then) = (case.name, now.allocations, then.allocations);
        faults.push(format!("{name}: {now:.2} allocations, {then:.2} are recorded"));
    }
    faults
}

fn exceeded_maximum(case: &Case, now: &Cost, nanos: f64) -> Option<String> {
    let maximum = case.maximum.as_ref()?;
    let time_max = maximum.time_max.as_nanos() as f64;
    (nanos > time_max || now.allocations > maximum.allocations_max).then(|| {
        let (name, allocations) = (case.name, now.allocations);
        format!("{name}: {nanos:.0} ns and {allocations} allocations exceed the maximum")
    })
}
