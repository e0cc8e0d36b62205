//! How far the whole is, as one line of a terminal.

use std::time::Duration;

/// How far a use from the shell is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Ports that have their state, or will get none.
    pub done: u64,
    /// Ports asked for.
    pub total: u64,
    /// Ports found open.
    pub open: u64,
    /// Targets that came to their end.
    pub targets_done: usize,
    /// Targets asked for.
    pub targets: usize,
}

/// Columns of the line: one less than the narrowest terminal has, so that it never wraps.
const COLUMNS_MAX: usize = 79;
/// Columns within the bar.
const BAR_COLUMNS: u64 = 20;

impl Progress {
    /// The line after this long. Rate and time left are those of the whole so far: a target
    /// that is slow or fast for a moment makes neither jump.
    pub fn line(&self, elapsed: Duration) -> String {
        assert!(self.done <= self.total, "no port is done twice");
        let filled = (self.done * BAR_COLUMNS).checked_div(self.total).unwrap_or(BAR_COLUMNS);
        let percent = (self.done * 100).checked_div(self.total).unwrap_or(100);
        let bar: String = (0..BAR_COLUMNS).map(|at| if at < filled { '#' } else { '-' }).collect();
        let seconds = elapsed.as_secs_f64().max(0.001);
        let rate = self.done as f64 / seconds;
        let left = match self.done {
            0 => "?".to_owned(),
            _ => display_time((self.total - self.done) as f64 / rate),
        };
        let mut line =
            format!("[{bar}] {percent:>3}%  {rate:.0}/s  {left} left  {} open", self.open);
        if self.targets > 1 {
            line.push_str(&format!("  {}/{} targets", self.targets_done, self.targets));
        }
        assert!(line.is_ascii(), "a byte is a column");
        line.truncate(COLUMNS_MAX);
        line
    }
}

/// A time to wait, as exact as it can be guessed.
fn display_time(seconds: f64) -> String {
    match seconds {
        ..100.0 => format!("{seconds:.0} s"),
        ..6000.0 => format!("{:.0} min", seconds / 60.0),
        _ => format!("{:.0} h", seconds / 3600.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(done: u64, total: u64, elapsed_ms: u64, expected: &str) {
        let progress = Progress { done, total, open: 3, targets_done: 0, targets: 1 };
        assert_eq!(progress.line(Duration::from_millis(elapsed_ms)), expected);
    }

    #[test]
    fn a_line_has_bar_rate_and_time_left() {
        check(0, 1000, 0, "[--------------------]   0%  0/s  ? left  3 open");
        check(450, 1000, 900, "[#########-----------]  45%  500/s  1 s left  3 open");
        check(1000, 1000, 500, "[####################] 100%  2000/s  0 s left  3 open");
        check(1, 1000, 1000, "[--------------------]   0%  1/s  17 min left  3 open");
        check(1, 100_000, 1000, "[--------------------]   0%  1/s  28 h left  3 open");
    }

    #[test]
    fn several_targets_are_counted_and_no_line_wraps() {
        let mut progress =
            Progress { done: 10, total: 100, open: 3, targets_done: 1, targets: 256 };
        assert!(progress.line(Duration::from_secs(1)).ends_with("  3 open  1/256 targets"));
        (progress.done, progress.total, progress.open) = (1 << 50, 1 << 51, 1 << 50);
        (progress.targets_done, progress.targets) = (1 << 20, 1 << 20);
        assert!(progress.line(Duration::ZERO).len() <= COLUMNS_MAX);
    }
}
