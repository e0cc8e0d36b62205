//! Compares this project's service with the floor and with other scanners on the same networks.
//!
//! The runs of all tools are interleaved, because the speed of a machine changes over time, but
//! ratios do not. Each run has its own process (this program with the argument `cell`) and its own
//! network namespace, so that a tool cannot affect the next run.
#![expect(clippy::print_stdout, reason = "a command line program reports on stdout")]

mod cases;
#[path = "../floor/mod.rs"]
mod floor;
mod http;
#[path = "../lab/mod.rs"]
mod lab;
mod loads;
mod network_loads;
mod output;
mod report;
mod run;
mod service;
mod tools;
mod veth;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use cases::{CASES, Case};
use lab::Lab;
use lexopt::{Arg, ValueExt};
use loads::{LOADS, Load};
use report::{LoadRun, Row, Run};
use run::{Outcome, Usage};
use serde_json::{Value, json};
use tools::{Measured, TOOLS, Tool};

const HELP: &str = "\
Compares scanners on the same networks, and the service under load with its target values.

    cargo bench --bench compare -- [OPTION…]

    --rounds N     number of runs of each tool on each network, and of each load [3]
    --case NAME    only this network; may be repeated [all]
    --tool NAME    only this tool; may be repeated [all]
    --load NAME    only this load; may be repeated [all, or none with --case or --tool]
    --limit S      seconds after which a scan is stopped [100]
    --out FOLDER   folder for runs.json, comparison.md and a chart per network [target/compare]

Without options, one short round runs: the service and the floor's loop on three fast networks. A
complete round takes more than half an hour.";

struct Plan {
    rounds: u64,
    cases: Vec<Case>,
    tools: Vec<Tool>,
    loads: Vec<Load>,
    limit: Duration,
    out: PathBuf,
}

/// The networks of a run without options.
const SHORT_CASES: [&str; 3] = ["loopback", "near-closed", "far-closed"];
/// The tools of a run without options.
const SHORT_TOOLS: [&str; 2] = ["openports", "floor-epoll"];

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let result = match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["--help" | "-h", ..] => {
            println!("{HELP}");
            Ok(())
        }
        ["cell", "far-end"] => veth::run_far_end().map_err(Into::into),
        ["cell", "load", name] => load_cell(name),
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
    // `cargo bench` appends the flag.
    let words: Vec<String> = words.into_iter().filter(|word| word != "--bench").collect();
    let is_short = words.is_empty();
    let mut plan = Plan {
        rounds: if is_short { 1 } else { 3 },
        cases: Vec::new(),
        tools: Vec::new(),
        loads: Vec::new(),
        limit: Duration::from_secs(100),
        out: PathBuf::from("target/compare"),
    };
    let mut parser = lexopt::Parser::from_args(words);
    while let Some(argument) = parser.next()? {
        let name = match argument {
            Arg::Long(name) => name.to_owned(),
            Arg::Short(_) | Arg::Value(_) => return Err(argument.unexpected().into()),
        };
        let value = parser.value()?.string()?;
        let unknown = || format!("--{name} {value}: there is no such {name}");
        match name.as_str() {
            "rounds" => plan.rounds = value.parse()?,
            "limit" => plan.limit = Duration::from_secs(value.parse()?),
            "out" => plan.out = value.into(),
            "case" => plan.cases.push(Case::find(&value).ok_or_else(unknown)?),
            "tool" => plan.tools.push(Tool::find(&value).ok_or_else(unknown)?),
            "load" => plan.loads.push(Load::find(&value).ok_or_else(unknown)?),
            _ => return Err(format!("there is no option --{name}").into()),
        }
    }
    if is_short {
        plan.cases = SHORT_CASES.into_iter().filter_map(Case::find).collect();
        plan.tools = SHORT_TOOLS.into_iter().filter_map(Tool::find).collect();
        return Ok(plan);
    }
    let is_of_scans = !plan.cases.is_empty() || !plan.tools.is_empty();
    match (is_of_scans, plan.loads.is_empty()) {
        (false, true) => {
            plan.cases = CASES.to_vec();
            plan.loads = LOADS.to_vec();
        }
        (true, _) if plan.cases.is_empty() => plan.cases = CASES.to_vec(),
        (true, _) | (false, false) => {}
    }
    if plan.tools.is_empty() {
        plan.tools = TOOLS.to_vec();
    }
    Ok(plan)
}

fn compare(plan: &Plan) -> Result<(), Box<dyn Error>> {
    std::fs::create_dir_all(&plan.out)?;
    let (mut runs, mut load_runs) = (Vec::new(), Vec::new());
    // This is determined once, because it builds one of the tools.
    let absences: Vec<Option<String>> = plan.tools.iter().map(Tool::absence).collect();
    for round in 1..=plan.rounds {
        for case in &plan.cases {
            let tools = plan.tools.iter().zip(&absences);
            for (tool, absence) in tools.filter(|(tool, _)| tool.suits(case)) {
                let result = match absence {
                    Some(why) => Err(why.clone()),
                    None => run_cell(case, tool, round, plan.limit),
                };
                let run = Run { case: *case, tool: *tool, round, result };
                println!("round {round}/{}: {}", plan.rounds, in_short(&run));
                runs.push(run);
            }
        }
        for load in &plan.loads {
            let result = run_load(load);
            println!("round {round}/{}: {} {result:?}", plan.rounds, load.name);
            load_runs.push(LoadRun { load: load.name, round, result });
        }
        // The report is written after each round, so that an aborted run leaves one.
        write_report(plan, &runs, &load_runs)?;
    }
    println!("written to {}", plan.out.display());
    Ok(())
}

fn in_short(run: &Run) -> String {
    let (case, tool) = (run.case.name, run.tool.name);
    match &run.result {
        Err(failure) => format!("{case} {tool}: {failure}"),
        Ok(Measured { outcome: Outcome { seconds, open, peak_kb }, used, .. }) => format!(
            "{case} {tool}: {seconds:.3} s, {} open, {peak_kb} kB, {:.3} s of CPU, {} packets",
            open.len(),
            used.cpu_seconds,
            used.packets
        ),
    }
}

fn write_report(plan: &Plan, runs: &[Run], load_runs: &[LoadRun]) -> Result<(), Box<dyn Error>> {
    let write = |name: &str, text: String| std::fs::write(Path::new(&plan.out).join(name), text);
    write("runs.json", serde_json::to_string_pretty(&report::json(runs, load_runs))?)?;
    let scans = report::markdown(&plan.cases, &plan.tools, runs);
    write("comparison.md", scans + &report::markdown_load_runs(load_runs))?;
    for case in &plan.cases {
        let rows: Vec<Row> =
            plan.tools.iter().filter_map(|tool| Row::of(case, tool, runs)).collect();
        write(&format!("{}.svg", case.name), report::chart(case, &rows))?;
    }
    Ok(())
}

/// Runs a tool in its own process. An error of the process is the failure of this run.
fn run_cell(case: &Case, tool: &Tool, round: u64, limit: Duration) -> Result<Measured, String> {
    let (round, limit) = (round.to_string(), limit.as_secs().to_string());
    let value = run_child(&[case.name, tool.name, &round, &limit])?;
    let measured = || {
        Some(Measured {
            outcome: Outcome {
                seconds: value["seconds"].as_f64()?,
                open: serde_json::from_value(value["open"].clone()).ok()?,
                peak_kb: value["peak_kb"].as_u64()?,
            },
            used: Usage {
                cpu_seconds: value["cpu_seconds"].as_f64()?,
                packets: value["packets"].as_u64()?,
            },
            lab_late_ms: value["lab_late_ms"].as_f64()?,
        })
    };
    measured().ok_or_else(|| format!("the result of the process is incomplete: {value}"))
}

/// Runs a load in its own process.
fn run_load(load: &Load) -> Result<Value, String> {
    run_child(&["load", load.name])
}

/// Runs this program with the argument `cell`, and returns its output.
fn run_child(words: &[&str]) -> Result<Value, String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let output = Command::new(program)
        .arg("cell")
        .args(words)
        .output()
        .map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout);
    let value: Value = serde_json::from_str(&text)
        .map_err(|_| format!("{}: {}", output.status, text.trim().replace('\n', " ")))?;
    match value["failure"].as_str() {
        Some(failure) => Err(failure.to_owned()),
        None => Ok(value),
    }
}

/// The process of one load, which prints its figures.
fn load_cell(name: &str) -> Result<(), Box<dyn Error>> {
    let load = Load::find(name).ok_or("there is no such load")?;
    floor::raise_descriptor_limit()?;
    let output: Value = match (load.run)() {
        Ok(figures) => figures.into_iter().map(|(name, value)| (name, json!(value))).collect(),
        Err(failure) => json!({"failure": failure}),
    };
    println!("{output}");
    Ok(())
}

/// The process of one run, which enters a namespace, starts the network, runs the tool and prints
/// the result.
fn cell([case, tool, round, limit]: [&str; 4]) -> Result<(), Box<dyn Error>> {
    let case = Case::find(case).ok_or("there is no such case")?;
    let tool = Tool::find(tool).ok_or("there is no such tool")?;
    let limit = Duration::from_secs(limit.parse()?);
    // The limit is raised for all tools, because some do not raise it themselves.
    floor::raise_descriptor_limit()?;
    let network = case.start(Lab::enter_by(tool.medium())?, round.parse()?)?;
    let result = tool.run(&case, limit);
    let stats = network.lab.as_ref().map(Lab::stats).unwrap_or_default();
    let own_losses = stats.own_losses();
    let output = match result {
        Ok(_) if own_losses > 0 => json!({"failure": format!("the lab lost {own_losses} packets")}),
        Ok(Measured { outcome, used, .. }) => json!({
            "seconds": outcome.seconds,
            "open": outcome.open,
            "peak_kb": outcome.peak_kb,
            "cpu_seconds": used.cpu_seconds,
            "packets": used.packets,
            "lab_late_ms": stats.late_max.as_secs_f64() * 1e3,
        }),
        Err(failure) => json!({"failure": failure}),
    };
    println!("{output}");
    Ok(())
}

/// The process of a loop of the floor, which prints the open ports.
fn scan_floor([kind, address, first, last]: [&str; 4]) -> Result<(), Box<dyn Error>> {
    let (address, ports) = (address.parse()?, first.parse()?..=last.parse()?);
    let found = match kind {
        "blocking" => floor::blocking(address, ports),
        "epoll" => floor::epoll(address, ports, Duration::from_secs(2))?,
        "reused" => floor::reused::reused(address, ports, Duration::from_secs(2))?,
        unknown => return Err(format!("there is no loop {unknown}").into()),
    };
    println!("{}", json!({"open_ports": found.open}));
    Ok(())
}
