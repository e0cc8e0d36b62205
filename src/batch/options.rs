//! The options of a command-line run.

use super::printer::RunInfo;
use super::shard::Shard;
use super::table::Colour;
use super::targets::Targets;
use crate::scan::options::ScanOptions;

/// The format of the output. [`Format::ALL`] describes each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// A table for people.
    #[default]
    Table,
    /// The answers of the service.
    Json,
    /// Events as they happen.
    Ndjson,
    /// Port numbers, or `host:port` for several targets.
    Text,
    /// `host:port`.
    HostPort,
    /// Lines with commas. Those of ports that `--include` adds are printed when the target ends.
    Csv,
    /// The XML of nmap.
    Xml,
    /// The greppable output of nmap.
    Greppable,
}

impl Format {
    /// Every format with its name and the description that `--help` and the manual print.
    pub const ALL: [(&'static str, Self, &'static str); 8] = [
        ("table", Self::Table, "a table for people"),
        ("json", Self::Json, "what the service would answer, one line for each target"),
        ("ndjson", Self::Ndjson, "events as they happen, one line for each"),
        ("text", Self::Text, "the open ports, as HOST:PORT if there are several targets"),
        ("host-port", Self::HostPort, "HOST:PORT for each open port, as soon as it is found"),
        ("csv", Self::Csv, "a line for each open port, as soon as it is found"),
        ("xml", Self::Xml, "as nmap -oX"),
        ("greppable", Self::Greppable, "as nmap -oG"),
    ];

    /// Parses the name of a format.
    ///
    /// # Errors
    /// One sentence that lists the valid names.
    pub fn parse(text: &str) -> Result<Self, String> {
        let known = Self::ALL.iter().find(|(name, ..)| *name == text);
        known.map(|(_, format, _)| *format).ok_or_else(|| {
            let names = Self::ALL.map(|(name, ..)| name).join(", ");
            format!("expected one of {names}")
        })
    }
}

/// The targets whose results are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Shown {
    /// All targets for which the format has output.
    #[default]
    All,
    /// Only targets with an open port.
    Open,
}

/// Whether progress is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProgressLine {
    /// Progress is shown on a terminal.
    Shown {
        /// The width of the terminal.
        columns: usize,
    },
    /// No progress is shown.
    Hidden,
}

/// The destination of the results.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Destination {
    /// Stdout, which is not a terminal.
    #[default]
    Stdout,
    /// Stdout, which is a terminal.
    Terminal,
    /// A file that replaces stdout. `main` opens and closes it.
    File,
}

/// The options of a run.
#[derive(Clone, Debug)]
pub struct BatchOptions {
    /// The targets.
    pub targets: Targets,
    /// The options for the scan of each target.
    pub scan: ScanOptions,
    /// The part of the targets and ports that this run scans.
    pub shard: Shard,
    /// The format of the output. [`Format::ALL`] describes each.
    pub format: Format,
    /// The targets whose results are printed.
    pub shown: Shown,
    /// Whether the output has colours.
    pub colour: Colour,
    /// Whether progress is shown.
    pub progress: ProgressLine,
    /// The destination of the results.
    pub output: Destination,
    /// The start time and the command line.
    pub run: RunInfo,
}
