//! How one case is measured: what can be counted, as twice the rounds minus once the rounds.

use std::error::Error;
use std::process::Command;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::allocations;
use crate::cases::Case;

/// What one unit of a case costs, the same from run to run.
#[derive(Serialize, Deserialize)]
pub(crate) struct Cost {
    /// `None` where there was no valgrind.
    pub(crate) instructions: Option<f64>,
    /// Calls of the allocator.
    pub(crate) allocations: f64,
}

/// Timed runs, of which the fastest counts: it was disturbed least.
const TIMED_RUNS: u32 = 9;

/// The cost of one unit, and the nanoseconds that it takes.
pub(crate) fn measure(case: &Case, has_valgrind: bool) -> Result<(Cost, f64), Box<dyn Error>> {
    let units = (case.rounds * case.units) as f64;
    let instructions = if has_valgrind {
        let (once, twice) = (instructions(case, 1)?, instructions(case, 2)?);
        Some(((twice.saturating_sub(once)) as f64 / units).round())
    } else {
        None
    };
    let (once, twice) = (allocations(case, 1), allocations(case, 2));
    // A thousandth is enough to see that there are any.
    let allocations = ((twice.saturating_sub(once)) as f64 / units * 1e3).round() / 1e3;
    // A difference of times would be one of disturbances; what was built before is little.
    let nanos = time(case, 2).as_nanos() as f64 / units / 2.0;
    Ok((Cost { instructions, allocations }, nanos))
}

/// The first line that a tool prints of its version; `None` if there is no such tool.
pub(crate) fn version(tool: &str) -> Option<String> {
    let output = Command::new(tool).arg("--version").output().ok()?;
    String::from_utf8_lossy(&output.stdout).lines().next().map(str::to_owned)
}

/// All instructions of a process that does the rounds so often, its start and end included.
fn instructions(case: &Case, times: u64) -> Result<u64, Box<dyn Error>> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(std::env::current_exe()?)
        .args(["--case", case.name, &(case.rounds * times).to_string()])
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    let collected = said.lines().find_map(|line| line.split_once("Collected : "));
    match collected {
        Some((_, count)) if output.status.success() => Ok(count.trim().parse()?),
        Some(_) | None => Err(format!("{}: valgrind said\n{said}", case.name).into()),
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
