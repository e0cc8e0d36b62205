//! Compares this project's service with the floor and with its peers, over the same networks, in
//! one run, interleaved: machines drift, ratios stay.
//!
//! Every single run is in a process of its own (this program again, as `cell`), with a network
//! namespace of its own: no tool sees another's leavings, and one that breaks takes nothing
//! along.
#![expect(clippy::print_stdout, reason = "a command line program reports on stdout")]

mod cases;
#[path = "../floor/mod.rs"]
mod floor;
#[path = "../lab/mod.rs"]
mod lab;
mod report;
mod tools;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use cases::{CASES, Case};
use lab::Lab;
use lexopt::{Arg, ValueExt};
use report::{Row, Run};
use serde_json::{Value, json};
use tools::{Measured, TOOLS, Tool};

const HELP: &str = "\
Compares scanners over the same networks.

    cargo bench --bench compare -- [OPTION…]

    --rounds N     how often each tool scans each network [3]
    --case NAME    only this network; may be repeated [all]
    --tool NAME    only this tool; may be repeated [all]
    --limit S      seconds after which a scan is stopped [60]
    --out FOLDER   for runs.json, comparison.md and a chart per network [target/compare]

Without any argument (and without cargo bench) it prints this.";

/// What was asked for.
struct Plan {
    rounds: u64,
    cases: Vec<Case>,
    tools: Vec<Tool>,
    limit: Duration,
    out: PathBuf,
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let result = match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [] | ["--help" | "-h", ..] => {
            println!("{HELP}");
            Ok(())
        }
        ["cell", case, tool, round, limit] => cell([case, tool, round, limit]),
        ["floor", kind, address, first, last] => scan_floor([kind, address, first, last]),
        _ => parse(words).and_then(|plan| compare(&plan)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("compare: {error}");
            ExitCode::FAILURE
        }
    }
}

fn parse(words: Vec<String>) -> Result<Plan, Box<dyn Error>> {
    let mut plan = Plan {
        rounds: 3,
        cases: Vec::new(),
        tools: Vec::new(),
        limit: Duration::from_secs(60),
        out: PathBuf::from("target/compare"),
    };
    let mut parser = lexopt::Parser::from_args(words);
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Long("rounds") => plan.rounds = parser.value()?.parse()?,
            Arg::Long("limit") => plan.limit = Duration::from_secs(parser.value()?.parse()?),
            Arg::Long("out") => plan.out = parser.value()?.into(),
            Arg::Long("case") => {
                let name = parser.value()?.string()?;
                let case = Case::find(&name).ok_or_else(|| format!("there is no case {name}"))?;
                plan.cases.push(case);
            }
            Arg::Long("tool") => {
                let name = parser.value()?.string()?;
                let tool = Tool::find(&name).ok_or_else(|| format!("there is no tool {name}"))?;
                plan.tools.push(tool);
            }
            // `cargo bench` adds it.
            Arg::Long("bench") => {}
            Arg::Long(_) | Arg::Short(_) | Arg::Value(_) => {
                return Err(argument.unexpected().into());
            }
        }
    }
    if plan.cases.is_empty() {
        plan.cases = CASES.to_vec();
    }
    if plan.tools.is_empty() {
        plan.tools = TOOLS.to_vec();
    }
    Ok(plan)
}

fn compare(plan: &Plan) -> Result<(), Box<dyn Error>> {
    std::fs::create_dir_all(&plan.out)?;
    let mut runs = Vec::new();
    for round in 1..=plan.rounds {
        for case in &plan.cases {
            for tool in plan.tools.iter().filter(|tool| tool.suits(case)) {
                let result = match tool.absence() {
                    Some(why) => Err(why),
                    None => run_cell(case, tool, (round, plan.limit)),
                };
                let run = Run { case: *case, tool: *tool, round, result };
                println!("round {round}/{}: {}", plan.rounds, in_short(&run));
                runs.push(run);
            }
        }
        // After each round: a run that is broken off leaves what it has.
        write_report(plan, &runs)?;
    }
    println!("written to {}", plan.out.display());
    Ok(())
}

fn in_short(run: &Run) -> String {
    let (case, tool) = (run.case.name, run.tool.name);
    match &run.result {
        Err(failure) => format!("{case} {tool}: {failure}"),
        Ok(Measured { seconds, open, peak_kb, cpu_seconds, .. }) => format!(
            "{case} {tool}: {seconds:.3} s, {} open, {peak_kb} kB, {cpu_seconds:.3} s of CPU",
            open.len()
        ),
    }
}

fn write_report(plan: &Plan, runs: &[Run]) -> Result<(), Box<dyn Error>> {
    let write = |name: &str, text: String| std::fs::write(Path::new(&plan.out).join(name), text);
    write("runs.json", serde_json::to_string_pretty(&report::json(runs))?)?;
    write("comparison.md", report::markdown(&plan.cases, &plan.tools, runs))?;
    for case in &plan.cases {
        let rows: Vec<Row> =
            plan.tools.iter().filter_map(|tool| Row::of(case, tool, runs)).collect();
        write(&format!("{}.svg", case.name), report::chart(case, &rows))?;
    }
    Ok(())
}

/// One run in a process of its own; whatever goes wrong in there is this run's failure.
fn run_cell(case: &Case, tool: &Tool, what: (u64, Duration)) -> Result<Measured, String> {
    let (round, limit) = (what.0.to_string(), what.1.as_secs().to_string());
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let output = Command::new(program)
        .args(["cell", case.name, tool.name, &round, &limit])
        .output()
        .map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout);
    let value: Value = serde_json::from_str(&text)
        .map_err(|_| format!("{}: {}", output.status, text.trim().replace('\n', " ")))?;
    if let Some(failure) = value["failure"].as_str() {
        return Err(failure.to_owned());
    }
    let measured = || {
        Some(Measured {
            seconds: value["seconds"].as_f64()?,
            open: serde_json::from_value(value["open"].clone()).ok()?,
            peak_kb: value["peak_kb"].as_u64()?,
            cpu_seconds: value["cpu_seconds"].as_f64()?,
            lab_late_ms: value["lab_late_ms"].as_f64()?,
        })
    };
    measured().ok_or_else(|| format!("the cell's answer lacks something: {value}"))
}

/// The process of one run: enters its namespace, plays the network, runs the tool, prints what
/// it came to.
fn cell([case, tool, round, limit]: [&str; 4]) -> Result<(), Box<dyn Error>> {
    let case = Case::find(case).ok_or("there is no such case")?;
    let tool = Tool::find(tool).ok_or("there is no such tool")?;
    let limit = Duration::from_secs(limit.parse()?);
    // For all alike: who does not raise the limit by itself should not lose by it.
    floor::raise_descriptor_limit()?;
    let scene = case.start(Lab::enter()?, round.parse()?)?;
    let result = tool.run(case.target(), limit);
    let stats = scene.lab.stats();
    let own_losses = stats.own_losses();
    let answer = match result {
        Ok(_) if own_losses > 0 => json!({"failure": format!("the lab lost {own_losses} packets")}),
        Ok(measured) => json!({
            "seconds": measured.seconds,
            "open": measured.open,
            "peak_kb": measured.peak_kb,
            "cpu_seconds": measured.cpu_seconds,
            "lab_late_ms": stats.late_max.as_secs_f64() * 1e3,
        }),
        Err(failure) => json!({"failure": failure}),
    };
    println!("{answer}");
    Ok(())
}

/// The process of a floor's loop.
fn scan_floor([kind, address, first, last]: [&str; 4]) -> Result<(), Box<dyn Error>> {
    let (address, ports) = (address.parse()?, first.parse()?..=last.parse()?);
    let found = match kind {
        "blocking" => floor::blocking(address, ports),
        "epoll" => floor::epoll(address, ports, Duration::from_secs(2))?,
        unknown => return Err(format!("there is no loop {unknown}").into()),
    };
    println!("{}", json!({"open_ports": found.open}));
    Ok(())
}
