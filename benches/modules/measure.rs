//! Measures one case. Counts are the difference between twice the rounds and once the rounds.

use std::error::Error;
use std::process::Command;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::allocations;
use crate::cases::Case;

/// The cost of one unit of a case, which does not vary between runs.
#[derive(Serialize, Deserialize)]
pub(crate) struct Cost {
    /// `None` without valgrind.
    pub(crate) instructions: Option<f64>,
    pub(crate) allocations: f64,
}

/// The number of timed runs. The fastest counts, because it has the least disturbance.
const TIMED_RUNS: u32 = 9;

/// Returns the cost of one unit, and its time in nanoseconds.
pub(crate) fn measure(case: &Case, has_valgrind: bool) -> Result<(Cost, f64), Box<dyn Error>> {
    let units = (case.rounds * case.units) as f64;
    let instructions = if has_valgrind {
        let (once, twice) = (instructions(case, 1)?, instructions(case, 2)?);
        Some(((twice.saturating_sub(once)) as f64 / units).round())
    } else {
        None
    };
    let (once, twice) = (allocations(case, 1), allocations(case, 2));
    // Three decimals are enough to detect allocations.
    let allocations = ((twice.saturating_sub(once)) as f64 / units * 1e3).round() / 1e3;
    // Time is not a difference, which would mostly show disturbances. The setup takes little time.
    let nanos = time(case, 2).as_nanos() as f64 / units / 2.0;
    Ok((Cost { instructions, allocations }, nanos))
}

/// Returns the first line of a tool's version, or `None` if the tool does not exist.
pub(crate) fn version(tool: &str) -> Option<String> {
    let output = Command::new(tool).arg("--version").output().ok()?;
    String::from_utf8_lossy(&output.stdout).lines().next().map(str::to_owned)
}

/// Returns the instructions of a process that does the rounds `times` times, with start and exit.
fn instructions(case: &Case, times: u64) -> Result<u64, Box<dyn Error>> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(std::env::current_exe()?)
        .args(["--case", case.name, &(case.rounds * times).to_string()])
        .output()?;
    let text = String::from_utf8_lossy(&output.stderr);
    let collected = text.lines().find_map(|line| line.split_once("Collected : "));
    match collected {
        Some((_, count)) if output.status.success() => Ok(count.trim().parse()?),
        Some(_) | None => Err(format!("{}: valgrind failed:\n{text}", case.name).into()),
    }
}

fn allocations(case: &Case, times: u64) -> u64 {
    let before = allocations::count();
    (case.run)(case.rounds * times);
    allocations::count() - before
}

fn time(case: &Case, times: u64) -> Duration {
    let run = || {
        let start = Instant::now();
        (case.run)(case.rounds * times);
        start.elapsed()
    };
    (0..TIMED_RUNS).map(|_| run()).min().unwrap_or_default()
}
