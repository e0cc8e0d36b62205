//! The options of a command-line run.

use super::printer::RunInfo;
use super::shard::Shard;
use super::table::Colour;
use super::targets::Targets;
use crate::scan::options::ScanOptions;

/// The format of the output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// A table for people.
    #[default]
    Table,
    /// The answers of the service, one line for each target.
    Json,
    /// Events as they happen, one line for each event.
    Ndjson,
    /// The open ports, one per line; for several targets the same as [`Format::HostPort`].
    Text,
    /// `host:port` for each open port, as soon as it is found.
    HostPort,
    /// A line for each open port, as soon as it is found, and for each port that `--include` adds.
    Csv,
    /// XML as with `-oX` of nmap.
    Xml,
    /// Greppable output as with `-oG` of nmap.
    Greppable,
}

impl Format {
    /// Every format by its name.
    pub const ALL: [(&'static str, Self); 8] = [
        ("table", Self::Table),
        ("json", Self::Json),
        ("ndjson", Self::Ndjson),
        ("text", Self::Text),
        ("host-port", Self::HostPort),
        ("csv", Self::Csv),
        ("xml", Self::Xml),
        ("greppable", Self::Greppable),
    ];

    /// Parses the name of a format.
    ///
    /// # Errors
    /// One sentence that lists the valid names.
    pub fn parse(text: &str) -> Result<Self, String> {
        let known = Self::ALL.iter().find(|(name, _)| *name == text);
        known.map(|(_, format)| *format).ok_or_else(|| {
            let names = Self::ALL.map(|(name, _)| name).join(", ");
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
    /// Stdout.
    #[default]
    Stdout,
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
    /// The format of the output.
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
