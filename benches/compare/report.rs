//! The report of the comparison: JSON with every run, a Markdown table per case, and charts.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::cases::Case;
use crate::loads::{self, FIGURES};
use crate::tools::{Measured, Tool};

/// The delay of the lab's answers above which the table has a note.
const LATE_MS: f64 = 20.0;

#[derive(Clone, Debug)]
pub(crate) struct Run {
    pub(crate) case: Case,
    pub(crate) tool: Tool,
    /// Counted from 1.
    pub(crate) round: u64,
    /// The measured values, or the failure.
    pub(crate) result: Result<Measured, String>,
}

#[derive(Clone, Debug)]
pub(crate) struct LoadRun {
    pub(crate) load: &'static str,
    /// Counted from 1.
    pub(crate) round: u64,
    /// The figures by name, or the failure.
    pub(crate) result: Result<Value, String>,
}

/// A summary of all runs of one tool on one case. Failed runs are not in the figures.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) tool: &'static str,
    /// `None` if all runs failed.
    pub(crate) figures: Option<Figures>,
    /// The different failures.
    pub(crate) failures: Vec<String>,
}

#[derive(Clone, Debug)]
pub(crate) struct Figures {
    /// The number of successful runs.
    pub(crate) runs: usize,
    pub(crate) seconds: Spread,
    /// Open ports that were found.
    pub(crate) found: Spread,
    /// Ports that were reported as open, but are not.
    pub(crate) wrong: Spread,
    pub(crate) peak_mb: Spread,
    pub(crate) cpu_seconds: Spread,
    pub(crate) packets: Spread,
    pub(crate) lab_late_ms: Spread,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Spread {
    pub(crate) least: f64,
    pub(crate) median: f64,
    pub(crate) most: f64,
}

impl Spread {
    fn of(mut numbers: Vec<f64>) -> Self {
        assert!(!numbers.is_empty(), "there are no numbers");
        numbers.sort_by(f64::total_cmp);
        let middle = numbers.len() / 2;
        let median = match numbers.len() % 2 {
            1 => numbers[middle],
            _ => f64::midpoint(numbers[middle - 1], numbers[middle]),
        };
        Self { least: numbers[0], median, most: numbers[numbers.len() - 1] }
    }
}

impl Row {
    /// Returns the row of `tool` in the table of `case`, or `None` without runs.
    pub(crate) fn of(case: &Case, tool: &Tool, runs: &[Run]) -> Option<Self> {
        let belongs = |run: &&Run| run.case.name == case.name && run.tool.name == tool.name;
        let runs: Vec<&Run> = runs.iter().filter(belongs).collect();
        if runs.is_empty() {
            return None;
        }
        let measured: Vec<&Measured> =
            runs.iter().filter_map(|run| run.result.as_ref().ok()).collect();
        let mut failures: Vec<String> =
            runs.iter().filter_map(|run| run.result.clone().err()).collect();
        failures.sort();
        failures.dedup();
        let spread = |number: &dyn Fn(&Measured) -> f64| {
            Spread::of(measured.iter().map(|measured| number(measured)).collect())
        };
        let truth = case.truth();
        let figures = (!measured.is_empty()).then(|| Figures {
            runs: measured.len(),
            seconds: spread(&|measured| measured.outcome.seconds),
            found: spread(&|measured| found(measured, &truth) as f64),
            wrong: spread(&|measured| {
                (measured.outcome.open.len() - found(measured, &truth)) as f64
            }),
            peak_mb: spread(&|measured| measured.outcome.peak_kb as f64 / 1024.0),
            cpu_seconds: spread(&|measured| measured.used.cpu_seconds),
            packets: spread(&|measured| measured.used.packets as f64),
            lab_late_ms: spread(&|measured| measured.lab_late_ms),
        });
        Some(Self { tool: tool.name, figures, failures })
    }
}

/// Returns the number of open ports that were found.
fn found(measured: &Measured, truth: &BTreeSet<SocketAddr>) -> usize {
    measured.outcome.open.iter().filter(|address| truth.contains(address)).count()
}

pub(crate) fn json(runs: &[Run], load_runs: &[LoadRun]) -> Value {
    let load_runs = load_runs.iter().map(|load_run| {
        let mut value = json!({"load": load_run.load, "round": load_run.round});
        match &load_run.result {
            Ok(figures) => value["figures"] = figures.clone(),
            Err(failure) => value["failure"] = json!(failure),
        }
        value
    });
    runs.iter()
        .map(|run| {
            let mut value = json!({
                "case": run.case.name,
                "tool": run.tool.name,
                "round": run.round,
            });
            match &run.result {
                Ok(measured) => {
                    value["seconds"] = json!(measured.outcome.seconds);
                    value["open"] = json!(measured.outcome.open);
                    value["found"] = json!(found(measured, &run.case.truth()));
                    value["peak_kb"] = json!(measured.outcome.peak_kb);
                    value["cpu_seconds"] = json!(measured.used.cpu_seconds);
                    value["packets"] = json!(measured.used.packets);
                    value["lab_late_ms"] = json!(measured.lab_late_ms);
                }
                Err(failure) => value["failure"] = json!(failure),
            }
            value
        })
        .chain(load_runs)
        .collect()
}

/// Returns a table per case as Markdown.
pub(crate) fn markdown(cases: &[Case], tools: &[Tool], runs: &[Run]) -> String {
    let mut text = "# Comparison\n\n".to_owned();
    text += &machine();
    text += "Times are medians, with minimum and maximum in brackets; found and wrong are the \
             worst of all runs. Packets are sent packets, CPU time is that of the tool alone.\n";
    for case in cases {
        let rows: Vec<Row> = tools.iter().filter_map(|tool| Row::of(case, tool, runs)).collect();
        text += &format!("\n## {}\n\n", case.about);
        text += &format!("| tool | runs | seconds | found of {} | wrong ", case.truth().len());
        text += "| peak memory | CPU seconds | packets | CPU per packet | |\n";
        text += "|---|---|---|---|---|---|---|---|---|---|\n";
        for row in &rows {
            text += &markdown_row(row);
        }
    }
    text += "\n## How each was run\n\n| tool | version | flags |\n|---|---|---|\n";
    for tool in tools {
        let version = tool.version().unwrap_or_default();
        text += &format!("| {} | {} | `{}` |\n", tool.name, version, tool.arguments);
    }
    text
}

fn markdown_row(row: &Row) -> String {
    let mut text = format!("| {} ", row.tool);
    match &row.figures {
        None => text += "| 0 | | | | | | | ",
        Some(figures) => {
            let Spread { least, median, most } = figures.seconds;
            let (cpu, packets) = (figures.cpu_seconds.median, figures.packets.median);
            text += &format!(
                "| {} | {median:.2} ({least:.2}–{most:.2}) | {:.0} | {:.0} | {:.1} MB | {cpu:.2} ",
                figures.runs, figures.found.least, figures.wrong.most, figures.peak_mb.median,
            );
            text += &match packets {
                0.0 => "| | ".to_owned(),
                _ => format!("| {packets:.0} | {:.1} µs ", cpu / packets * 1e6),
            };
        }
    }
    let mut notes = row.failures.clone();
    if let Some(figures) = row.figures.as_ref().filter(|it| it.lab_late_ms.most > LATE_MS) {
        notes.push(format!("answers up to {:.0} ms late", figures.lab_late_ms.most));
    }
    text + &format!("| {} |\n", notes.join("; ").replace('|', "/"))
}

/// Returns a table of the load results as Markdown.
pub(crate) fn markdown_load_runs(load_runs: &[LoadRun]) -> String {
    if load_runs.is_empty() {
        return String::new();
    }
    let mut text = "\n## Under load\n\n| figure | median (min–max) | unit | target |\n".to_owned();
    text += "|---|---|---|---|\n";
    for (name, about, unit, aim) in FIGURES {
        let figures = load_runs.iter().filter_map(|load_run| load_run.result.as_ref().ok());
        let numbers: Vec<f64> = figures.filter_map(|figures| figures[name].as_f64()).collect();
        if numbers.is_empty() {
            continue;
        }
        let Spread { least, median, most } = Spread::of(numbers);
        let [median, least, most] = [median, least, most].map(in_three_digits);
        text += &format!("| {about} | {median} ({least}–{most}) | {unit} | {aim} |\n");
    }
    let failures = load_runs.iter().filter_map(|load_run| {
        let failure = load_run.result.as_ref().err()?.replace('|', "/");
        Some(format!("\n{}, round {}: {failure}\n", load_run.load, load_run.round))
    });
    text.extend(failures);
    let versions = ["nginx", "wrk"].into_iter().filter_map(loads::version);
    text + "\n" + &versions.collect::<Vec<_>>().join("; ") + "\n"
}

/// Formats a number with about three significant digits.
fn in_three_digits(number: f64) -> String {
    let digits = match number.abs() {
        100.0.. => 0,
        10.0.. => 1,
        _ => 2,
    };
    format!("{number:.digits$}")
}

/// Describes the machine, on which the figures depend.
fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let kernel = read("/proc/sys/kernel/osrelease");
    let limits = read("/proc/self/limits");
    let descriptors = limits.lines().find(|line| line.starts_with("Max open files"));
    let descriptors = descriptors.and_then(|line| line.split_whitespace().nth(4));
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    format!(
        "{cores} cores, Linux {}, at most {} descriptors.\n\n",
        kernel.trim(),
        descriptors.unwrap_or("?")
    )
}

/// Returns an SVG with a bar per tool for its median time, and a thin line from the minimum to the
/// maximum.
pub(crate) fn chart(case: &Case, rows: &[Row]) -> String {
    const LEFT: f64 = 130.0;
    const WIDTH: f64 = 420.0;
    const LINE: f64 = 26.0;
    let most = rows.iter().filter_map(|row| row.figures.as_ref());
    let most = most.map(|figures| figures.seconds.most).fold(0.01, f64::max);
    let scale = WIDTH / most;
    let truth = case.truth().len() as f64;
    let height = LINE * (rows.len() as f64 + 1.5);
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 760 {height}\" \
         font-family=\"sans-serif\" font-size=\"13\">\n\
         <title>{0}</title>\n<text x=\"8\" y=\"18\" font-weight=\"bold\">{0}</text>\n",
        case.about
    );
    for (place, row) in rows.iter().enumerate() {
        let y = LINE * (place as f64 + 1.2);
        let middle = y + 9.0;
        let base = middle + 4.0;
        let (end, label) = match &row.figures {
            None => (LEFT, row.failures.join("; ")),
            Some(figures) => {
                let Spread { least, median, most } = figures.seconds;
                // The bar is green if every run found exactly the open ports.
                let is_right = figures.found.least == truth && figures.wrong.most == 0.0;
                let colour = if is_right { "#2a7f3f" } else { "#b3541e" };
                text += &format!(
                    "<rect x=\"{LEFT}\" y=\"{y}\" width=\"{:.1}\" height=\"18\" \
                     fill=\"{colour}\"/>\n<line x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{middle}\" \
                     y2=\"{middle}\" stroke=\"#888\" stroke-width=\"2\"/>\n",
                    median * scale,
                    LEFT + least * scale,
                    LEFT + most * scale,
                );
                let wrong = match figures.wrong.most {
                    0.0 => String::new(),
                    wrong => format!(", {wrong:.0} wrong"),
                };
                let found = figures.found.least;
                (LEFT + most * scale, format!("{median:.2} s, {found:.0} of {truth:.0}{wrong}"))
            }
        };
        text += &format!(
            "<text x=\"8\" y=\"{base}\">{}</text>\n<text x=\"{:.1}\" y=\"{base}\">{}</text>\n",
            row.tool,
            end + 6.0,
            escape(&label)
        );
    }
    text + "</svg>\n"
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
