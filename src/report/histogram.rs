//! Histograms as Prometheus defines them: the number of observations that do not exceed each bound.
//!
//! They have a fixed size and are exact: values are integers in billionths of the unit (seconds, or
//! 1), so that a sum does not lose its small parts after months, as a float would. `report` drives
//! them.

use std::fmt;
use std::time::Duration;

/// The upper bounds of buckets, in billionths and as the page shows them.
type Bounds = [(u64, &'static str)];

/// Bounds for one tick of the event loop, in seconds.
pub const TICK_BOUNDS: [(u64, &str); 14] = [
    (50_000, "5e-05"),
    (100_000, "0.0001"),
    (250_000, "0.00025"),
    (500_000, "0.0005"),
    (1_000_000, "0.001"),
    (2_500_000, "0.0025"),
    (5_000_000, "0.005"),
    (10_000_000, "0.01"),
    (25_000_000, "0.025"),
    (50_000_000, "0.05"),
    (100_000_000, "0.1"),
    (250_000_000, "0.25"),
    (500_000_000, "0.5"),
    (1_000_000_000, "1"),
];

/// Bounds for requests and scans, in seconds: from an immediate answer to the default
/// `--max-scan-time`.
pub const DURATION_BOUNDS: [(u64, &str); 15] = [
    (1_000_000, "0.001"),
    (5_000_000, "0.005"),
    (10_000_000, "0.01"),
    (25_000_000, "0.025"),
    (100_000_000, "0.1"),
    (250_000_000, "0.25"),
    (500_000_000, "0.5"),
    (1_000_000_000, "1"),
    (2_500_000_000, "2.5"),
    (5_000_000_000, "5"),
    (10_000_000_000, "10"),
    (30_000_000_000, "30"),
    (60_000_000_000, "60"),
    (120_000_000_000, "120"),
    (300_000_000_000, "300"),
];

/// Bounds for the share of lost packets.
pub const LOSS_BOUNDS: [(u64, &str); 10] = [
    (0, "0"),
    (1_000_000, "0.001"),
    (5_000_000, "0.005"),
    (10_000_000, "0.01"),
    (20_000_000, "0.02"),
    (50_000_000, "0.05"),
    (100_000_000, "0.1"),
    (200_000_000, "0.2"),
    (500_000_000, "0.5"),
    (1_000_000_000, "1"),
];

/// The number of buckets for the largest set of bounds above, plus one for values that exceed all
/// bounds.
const BUCKETS_MAX: usize = 16;

/// Observations, counted by the first bound that they do not exceed.
#[derive(Clone, Copy, Debug)]
pub struct Histogram {
    bounds: &'static Bounds,
    buckets: [u64; BUCKETS_MAX],
    sum: u128,
}

impl Histogram {
    /// A histogram without observations.
    pub const fn new(bounds: &'static Bounds) -> Self {
        assert!(bounds.len() < BUCKETS_MAX, "BUCKETS_MAX is too small for these bounds");
        Self { bounds, buckets: [0; BUCKETS_MAX], sum: 0 }
    }

    /// Records a duration.
    pub fn observe_duration(&mut self, duration: Duration) {
        self.observe(duration.as_nanos());
    }

    /// Records a share, which is between 0 and 1.
    pub fn observe_ratio(&mut self, ratio: f64) {
        assert!((0.0..=1.0).contains(&ratio), "{ratio} is no share");
        self.observe(Duration::from_secs_f64(ratio).as_nanos());
    }

    /// Writes the samples of one histogram: buckets, sum and count. `labels` precede the label of
    /// the bucket.
    pub fn write(&self, f: &mut fmt::Formatter<'_>, name: &str, labels: &str) -> fmt::Result {
        let comma = if labels.is_empty() { "" } else { "," };
        let mut count = 0;
        let bounds = self.bounds.iter().map(|(_, bound)| *bound).chain(["+Inf"]);
        for (bound, more) in bounds.zip(self.buckets) {
            count += more;
            writeln!(f, "{name}_bucket{{{labels}{comma}le=\"{bound}\"}} {count}")?;
        }
        let braced = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
        writeln!(f, "{name}_sum{braced} {}\n{name}_count{braced} {count}", Billionths(self.sum))
    }

    fn observe(&mut self, billionths: u128) {
        let bucket = self.bounds.partition_point(|(bound, _)| u128::from(*bound) < billionths);
        self.buckets[bucket] += 1;
        self.sum = self.sum.saturating_add(billionths);
    }
}

/// A number in billionths that is written exactly. A float would be inexact after a few months.
pub struct Billionths(pub u128);

impl fmt::Display for Billionths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const ONE: u128 = 1_000_000_000;
        write!(f, "{}.{:09}", self.0 / ONE, self.0 % ONE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bound_is_written_as_the_number_it_is() {
        let all: [&Bounds; 3] = [&TICK_BOUNDS, &DURATION_BOUNDS, &LOSS_BOUNDS];
        for bounds in all {
            for (billionths, text) in bounds {
                let number: f64 = text.parse().unwrap();
                assert_eq!((number * 1e9).round() as u64, *billionths, "{text}");
            }
            assert!(bounds.is_sorted());
        }
    }

    #[test]
    fn a_bound_includes_its_own_value_and_no_higher_one() {
        let mut histogram = Histogram::new(&LOSS_BOUNDS);
        for ratio in [0.0, 0.001, 0.001_000_001, 1.0] {
            histogram.observe_ratio(ratio);
        }
        assert_eq!(histogram.buckets[..3], [1, 1, 1]);
        assert_eq!(histogram.buckets[9], 1);
        assert_eq!(histogram.sum, 1_002_000_001);
    }

    #[test]
    #[should_panic(expected = "is no share")]
    fn a_nan_is_not_a_share() {
        Histogram::new(&LOSS_BOUNDS).observe_ratio(f64::NAN);
    }
}
