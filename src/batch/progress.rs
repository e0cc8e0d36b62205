//! The progress of a run as one line on a terminal. `batch` drives it; it reads no clock.

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::time::Duration;

/// The progress of a command-line run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BatchProgress {
    /// The number of ports that have their state, or will not get one.
    pub done: u64,
    /// The number of requested ports.
    pub total: u64,
    /// The number of ports found open.
    pub open: u64,
    /// The number of targets that have ended.
    pub targets_done: u64,
    /// The number of requested targets.
    pub targets: u64,
}

/// The progress of all running targets together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UnderWay {
    /// The number of ports that have their state.
    pub done: u64,
    /// The number of ports found open.
    pub open: u64,
    /// The number of connects in flight.
    pub in_flight: u64,
}

/// The number of columns of the bar.
const BAR_COLUMNS: u64 = 20;

impl BatchProgress {
    /// The line at this rate in ports per second, for a terminal of the given width. The last
    /// column stays free, so that no terminal wraps the line. On a narrow terminal there is no bar
    /// and less text.
    pub fn line(&self, rate: f64, columns: usize) -> String {
        assert!(self.done <= self.total, "no port is done twice");
        let done = u128::from(self.done);
        let filled = (done * u128::from(BAR_COLUMNS)).checked_div(self.total.into());
        let filled = filled.unwrap_or(BAR_COLUMNS.into()) as u64;
        let percent = (done * 100).checked_div(self.total.into()).unwrap_or(100);
        let bar: String = (0..BAR_COLUMNS).map(|at| if at < filled { '#' } else { '-' }).collect();
        let left = match rate {
            ..=0.0 => "?".to_owned(),
            _ => display_time((self.total - self.done) as f64 / rate),
        };
        let mut words = vec![
            format!("{percent:>3}%"),
            format!("{rate:.0}/s"),
            format!("{left} left"),
            format!("{} open", self.open),
        ];
        if self.targets > 1 {
            words.push(format!("{}/{} targets", self.targets_done, self.targets));
        }
        let room = columns.saturating_sub(1);
        let mut line = format!("[{bar}] {}", words.join("  "));
        // Half a number would be a wrong one.
        while line.len() > room && !words.is_empty() {
            line = words.join("  ").trim_start().to_owned();
            words.pop();
        }
        assert!(line.is_ascii(), "a byte is a column");
        line.truncate(room);
        line
    }
}

/// A duration, rounded to the precision of an estimate.
fn display_time(seconds: f64) -> String {
    match seconds {
        ..100.0 => format!("{:.0} s", seconds.ceil()),
        ..6000.0 => format!("{:.0} min", seconds / 60.0),
        ..360_000.0 => format!("{:.0} h", seconds / 3600.0),
        _ => format!("{:.0} days", seconds / 86_400.0),
    }
}

/// The recent rate in ports per second.
#[derive(Clone, Debug, Default)]
pub struct Pace {
    /// All samples except the first are at most [`WINDOW`] old.
    samples: VecDeque<Sample>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Sample {
    elapsed: Duration,
    /// The number of finished ports.
    done: u64,
    /// The number of ports that are finished or in flight.
    begun: u64,
}

/// The period over which the rate is measured. It is long enough for a wave of silent ports, and
/// short enough to notice that the closed ports, which answer at once, are finished.
const WINDOW: Duration = Duration::from_secs(2);

impl Pace {
    /// The current rate. All probes in flight have their state within one timeout, so the rate is
    /// at least one window per timeout. This bound is known before the first silent port is
    /// finished. If ports are begun at half of the permitted rate or more, this rate and not the
    /// window limits the scan, and as many ports will be finished as are begun.
    pub fn rate(
        &mut self,
        elapsed: Duration,
        under_way: UnderWay,
        timeout: Duration,
        permitted: Option<NonZeroU32>,
    ) -> f64 {
        while let [_, second, ..] = self.samples.make_contiguous()
            && second.elapsed + WINDOW <= elapsed
        {
            self.samples.pop_front();
        }
        let UnderWay { done, in_flight, .. } = under_way;
        let sample = Sample { elapsed, done, begun: done + in_flight };
        let first = self.samples.front().copied().unwrap_or_default();
        self.samples.push_back(sample);
        let took = elapsed.saturating_sub(first.elapsed).as_secs_f64();
        let per_second = |count: u64| if took > 0.0 { count as f64 / took } else { 0.0 };
        let begun = per_second(sample.begun.saturating_sub(first.begun));
        let most = permitted.map_or(0.0, |permitted| permitted.get().into());
        let begun = if begun * 2.0 < most { 0.0 } else { begun.min(most) };
        let finished = per_second(done.saturating_sub(first.done));
        finished.max(in_flight as f64 / timeout.as_secs_f64().max(0.001)).max(begun)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(done: u64, total: u64, rate: f64, expected: &str) {
        let progress = BatchProgress { done, total, open: 3, targets_done: 0, targets: 1 };
        assert_eq!(progress.line(rate, 80), expected);
    }

    #[test]
    fn a_line_has_a_bar_the_rate_and_the_time_left() {
        check(0, 1000, 0.0, "[--------------------]   0%  0/s  ? left  3 open");
        check(450, 1000, 500.0, "[#########-----------]  45%  500/s  2 s left  3 open");
        check(1000, 1000, 2000.0, "[####################] 100%  2000/s  0 s left  3 open");
        check(1, 1000, 1.0, "[--------------------]   0%  1/s  17 min left  3 open");
        check(1, 100_000, 1.0, "[--------------------]   0%  1/s  28 h left  3 open");
        check(
            1,
            1 << 61,
            1e4,
            "[--------------------]   0%  10000/s  2668799779 days left  3 open",
        );
    }

    #[test]
    fn several_targets_are_counted_and_no_line_wraps() {
        let mut progress =
            BatchProgress { done: 10, total: 100, open: 3, targets_done: 1, targets: 256 };
        assert!(progress.line(10.0, 80).ends_with("  3 open  1/256 targets"));
        assert_eq!(progress.line(10.0, 40), "10%  10/s  9 s left  3 open");
        assert_eq!(progress.line(10.0, 20), "10%  10/s  9 s left");
        assert_eq!(progress.line(10.0, 19), "10%  10/s");
        assert_eq!(progress.line(10.0, 5), "10%");
        (progress.done, progress.total, progress.open) = (1 << 60, 1 << 61, 1 << 60);
        (progress.targets_done, progress.targets) = (1 << 40, 1 << 40);
        for columns in 0..200 {
            assert!(progress.line(1e9, columns).len() <= columns.saturating_sub(1));
        }
    }

    #[test]
    fn the_rate_is_plausible_before_the_first_silent_port_is_over() {
        let second = Duration::from_secs(1);
        let at = |tenths: u32| second * tenths / 10;
        let rate = |pace: &mut Pace, tenths, done, in_flight| {
            let under_way = UnderWay { done, in_flight, ..UnderWay::default() };
            pace.rate(at(tenths), under_way, 2 * second, None)
        };
        let mut pace = Pace::default();
        assert_eq!(rate(&mut pace, 2, 0, 1000), 500.0);
        assert_eq!(rate(&mut pace, 4, 0, 1000), 500.0);
        // Half of the ports are closed and answer at once; the others are silent.
        let mut pace = Pace::default();
        assert_eq!(rate(&mut pace, 2, 2000, 1000), 10_000.0);
        for tenth in 3..60 {
            rate(&mut pace, tenth, 2000, 1000);
        }
        assert_eq!(rate(&mut pace, 60, 2000, 1000), 500.0);
        assert_eq!(rate(&mut pace, 61, 2000, 0), 0.0);
    }

    #[test]
    fn silent_ports_that_are_begun_at_the_permitted_rate_are_counted_at_once() {
        let second = Duration::from_secs(1);
        let mut pace = Pace::default();
        let mut rate = |tenths: u32, in_flight| {
            let under_way = UnderWay { in_flight, ..UnderWay::default() };
            pace.rate(second * tenths / 10, under_way, 2 * second, NonZeroU32::new(4000))
        };
        assert_eq!(rate(2, 768), 3840.0);
        assert_eq!(rate(4, 1600), 4000.0);
        assert_eq!(rate(6, 2500), 4000.0);
        // The window is full, so the rate is that of the window.
        assert_eq!(rate(20, 2500), 1250.0);
    }
}
