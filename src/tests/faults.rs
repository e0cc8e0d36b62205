//! Fault injection: system calls of the real binary fail with every errno of their manual pages.
//!
//! The binary runs under the user notification of seccomp: each of its calls waits until this
//! program lets it pass or fail. So faults can begin and end while requests and scans run. The
//! scans run in the lab of `benches/lab`, where the state of every port is known. docs/testing.md
//! describes the injected faults, the properties that must hold meanwhile, and what is not covered.
//!
//! Each case runs in a process of its own (this program again, with the name of the case), several
//! at once. An argument that is not a flag selects the cases whose names contain it. Where
//! namespaces or seccomp are not permitted, the program reports this and succeeds, unless
//! `OPENPORTS_REQUIRE_ALL` is set. `FAULT_SEED` and `FAULT_SEEDS` set the first seed and the number
//! of seeds of the random faults; `FAULT_STRIDE` sets which share of the long lists is tested.
#![expect(
    clippy::print_stdout,
    reason = "a test program without the usual harness prints its report"
)]
#![allow(
    dead_code,
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "modules of src/tests/service.rs are used in part, and a panic is a failure"
)]

#[path = "faults/calls.rs"]
mod calls;
#[path = "faults/chance.rs"]
mod chance;
#[path = "service/client.rs"]
mod client;
#[path = "faults/clock.rs"]
mod clock;
#[path = "faults/files.rs"]
mod files;
#[path = "../../benches/lab/mod.rs"]
mod lab;
#[path = "service/nameserver.rs"]
mod nameserver;
#[path = "service/network.rs"]
mod network;
#[path = "service/process.rs"]
mod process;
#[path = "faults/running.rs"]
mod running;
#[path = "faults/seccomp.rs"]
mod seccomp;
#[path = "faults/shell.rs"]
mod shell;
#[path = "faults/signals.rs"]
mod signals;
#[path = "faults/startup.rs"]
mod startup;
#[path = "faults/supervisor.rs"]
mod supervisor;
#[path = "faults/syn.rs"]
mod syn;
#[path = "faults/world.rs"]
mod world;

use std::io;
use std::process::{Child, Command, ExitCode};
use std::time::{Duration, Instant};

/// The result of a case. It fails with an error or a panic; the text of a success says what was
/// tested.
type Outcome = Result<String, Box<dyn std::error::Error>>;
type Case = (String, Box<dyn Fn() -> Outcome>);

/// The exit code of a case that cannot run here (sysexits(3): EX_UNAVAILABLE).
const UNAVAILABLE: u8 = 69;
/// A case that takes longer than this hangs.
const CASE_TIMEOUT: Duration = Duration::from_secs(300);
/// More cases than cores run at once, because they wait most of the time.
const CASES_AT_ONCE: usize = 6;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [flag, name] = arguments.as_slice()
        && flag == "--case"
    {
        return run_case(name);
    }
    let filter = arguments.iter().find(|argument| !argument.starts_with('-'));
    let mut waiting: Vec<String> = cases().into_iter().map(|(name, _)| name).collect();
    waiting.retain(|name| filter.is_none_or(|filter| name.contains(filter.as_str())));
    waiting.reverse();
    let (mut passed, mut failed, mut skipped) = (0, 0, 0);
    let mut running: Vec<(String, Child, Instant)> = Vec::new();
    while !(waiting.is_empty() && running.is_empty()) {
        while running.len() < CASES_AT_ONCE
            && let Some(name) = waiting.pop()
        {
            let child = begin(&name).expect("this program can be started again");
            running.push((name, child, Instant::now()));
        }
        running.retain_mut(|(name, child, began)| {
            let status = child.try_wait().expect("the child can be waited for");
            if began.elapsed() > CASE_TIMEOUT && status.is_none() {
                println!("faults {name} did not end within {CASE_TIMEOUT:?}");
                let _ = child.kill();
            }
            let Some(status) = status else { return true };
            let verdict = match status.code() {
                Some(0) => {
                    passed += 1;
                    "ok"
                }
                Some(code) if code == i32::from(UNAVAILABLE) => {
                    skipped += 1;
                    "SKIPPED: not permitted here"
                }
                Some(_) | None => {
                    failed += 1;
                    "FAILED"
                }
            };
            println!("faults {name} ... {verdict} in {:.1} s", began.elapsed().as_secs_f64());
            false
        });
        std::thread::sleep(Duration::from_millis(5));
    }
    println!("faults result: {passed} passed, {failed} failed, {skipped} skipped");
    let must_run = std::env::var_os("OPENPORTS_REQUIRE_ALL").is_some();
    if failed > 0 || (must_run && skipped > 0) { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn cases() -> Vec<Case> {
    // The cases that take longest begin first.
    let modules = [chance::cases, files::cases, running::cases, signals::cases, startup::cases];
    let cases = modules.iter().flat_map(|cases| cases());
    cases.chain(shell::cases()).chain(clock::cases()).chain(syn::cases()).collect()
}

fn begin(name: &str) -> io::Result<Child> {
    Command::new(std::env::current_exe()?).args(["--case", name]).spawn()
}

fn run_case(name: &str) -> ExitCode {
    let cases = cases();
    let Some((_, run)) = cases.iter().find(|(known, _)| known == name) else {
        println!("there is no case {name}");
        return ExitCode::FAILURE;
    };
    match run() {
        Ok(what) => {
            println!("{name}: {what}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("{name}: {error}");
            let is_unavailable = error.is::<lab::Unavailable>()
                || error.is::<seccomp::Unavailable>()
                || error.is::<clock::Unavailable>();
            if is_unavailable { ExitCode::from(UNAVAILABLE) } else { ExitCode::FAILURE }
        }
    }
}

/// The divisor of the share that is tested: one of this many elements of a long list.
fn stride() -> usize {
    number("FAULT_STRIDE", 9) as usize
}

/// A number from the environment, or the default.
fn number(variable: &str, usual: u64) -> u64 {
    let value = std::env::var(variable).ok();
    value.map_or(usual, |value| value.parse().expect("the variable is a number"))
}
