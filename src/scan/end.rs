//! The reason why a scan has ended.
//!
//! `scan` stores it at the end of a scan. The owner of the scan reads it for the counters.

use super::options::ScanOptions;
use super::{Scan, ScanState};

/// The reason why a scan has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScanEnd {
    /// Every port was probed as planned.
    Complete,
    /// The deadline of the scan passed first.
    Deadline,
    /// The owner of the scan ended it first: its client disconnected, or the service was shut down
    /// or interrupted.
    Stopped,
}

impl ScanEnd {
    /// The metric label. It only says whether the results are complete.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Deadline | Self::Stopped => "partial",
        }
    }
}

impl Scan {
    /// The options of the scan.
    pub const fn options(&self) -> &ScanOptions {
        &self.plan.options
    }

    /// The reason why the scan has ended; `None` while it runs.
    pub const fn end(&self) -> Option<ScanEnd> {
        match self.state {
            ScanState::Pass(_) => None,
            ScanState::Ended(end) => Some(end),
        }
    }

    /// Whether all planned passes were finished; false while the scan runs.
    pub const fn is_complete(&self) -> bool {
        matches!(self.end(), Some(ScanEnd::Complete))
    }
}
