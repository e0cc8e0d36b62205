//! What a use from the shell is told to do, and how.

use std::num::{NonZeroU16, NonZeroU32};
use std::time::Duration;

use super::shard::Shard;
use super::table::Colour;
use super::targets::Targets;
use crate::api::query::Addresses;
use crate::target::{Family, Retries, Timeout};

/// How each target is scanned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manner {
    /// Each connect's deadline.
    pub timeout: Timeout,
    /// Each target's deadline, from the moment it is begun.
    pub deadline: Duration,
    /// Further passes over silent ports.
    pub retries: Retries,
    /// Connects in flight to one target at most; `None`: as many as ports.
    pub concurrency: Option<NonZeroU16>,
    /// New connects per second at most, of all targets together.
    pub rate: Option<NonZeroU32>,
    /// The family an address must have.
    pub family: Family,
    /// Which of a name's addresses are scanned.
    pub addresses: Addresses,
}

/// What is printed of each target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// A table, for people.
    #[default]
    Table,
    /// What the service would answer, one line for each target.
    Json,
    /// What happens as it happens, one line for each event.
    Ndjson,
}

/// Whether somebody looks at the progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProgressLine {
    /// A terminal shows it.
    Shown,
    /// There is none.
    Hidden,
}

/// What is to be done.
#[derive(Clone, Debug)]
pub struct Options {
    /// The targets.
    pub targets: Targets,
    /// How each is scanned.
    pub manner: Manner,
    /// Which part of them.
    pub shard: Shard,
    /// What is printed.
    pub format: Format,
    /// With colours or not.
    pub colour: Colour,
    /// With progress or not.
    pub progress: ProgressLine,
}
