//! The samples of a run, and a table that compares the quarters of its time.

use std::fmt::Write;

use crate::web::percentile;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    /// Seconds since the start.
    pub(crate) at: f64,
    /// VmRSS.
    pub(crate) resident_kb: u64,
    /// RssAnon, which excludes the pages of the binary.
    pub(crate) own_kb: u64,
    pub(crate) descriptors: usize,
    /// CPU seconds since the start.
    pub(crate) cpu: f64,
    /// The median of the health checks since the last sample, in milliseconds.
    pub(crate) health_50: f64,
    /// The 99th percentile of the same.
    pub(crate) health_99: f64,
    pub(crate) rounds: u64,
    pub(crate) wrong: usize,
}

#[derive(Debug, Default)]
pub(crate) struct Samples(Vec<Sample>);

impl Samples {
    pub(crate) fn push(&mut self, sample: Sample) {
        self.0.push(sample);
    }

    pub(crate) fn all(&self) -> &[Sample] {
        &self.0
    }

    pub(crate) fn last_line(&self) -> String {
        self.0.last().map(|it| format!("{it:?}")).unwrap_or_default()
    }

    pub(crate) fn csv(&self) -> String {
        let mut text = String::from(
            "seconds,resident_kb,own_kb,descriptors,cpu_s,health_50_ms,health_99_ms,rounds,wrong\n",
        );
        for it in &self.0 {
            // Writing to a String never fails.
            let _ = writeln!(
                text,
                "{:.1},{},{},{},{:.2},{:.3},{:.3},{},{}",
                it.at,
                it.resident_kb,
                it.own_kb,
                it.descriptors,
                it.cpu,
                it.health_50,
                it.health_99,
                it.rounds,
                it.wrong
            );
        }
        text
    }

    /// Returns a table with a row for each quarter of the time.
    pub(crate) fn quarters(&self) -> String {
        let mut text = String::from(
            "| quarter | RSS, median | own pages, median | most | descriptors at rest | CPU | \
             `/healthz` median | 99 % | rounds | wrong |\n\
             |---|---|---|---|---|---|---|---|---|---|\n",
        );
        let end = self.0.last().map_or(0.0, |it| it.at);
        for quarter in 0..4 {
            let (from, to) = (end * f64::from(quarter) / 4.0, end * f64::from(quarter + 1) / 4.0);
            let part: Vec<Sample> =
                self.0.iter().filter(|it| it.at > from && it.at <= to).copied().collect();
            let (Some(first), Some(last)) = (part.first(), part.last()) else { continue };
            let of = |value: fn(&Sample) -> f64, percent| {
                percentile(&part.iter().map(value).collect::<Vec<f64>>(), percent)
            };
            let own = |it: &Sample| it.own_kb as f64;
            let descriptors = |it: &Sample| it.descriptors as f64;
            let cpu = 100.0 * (last.cpu - first.cpu) / (last.at - first.at).max(1.0);
            let _ = writeln!(
                text,
                "| {} | {:.0} kB | {:.0} kB | {:.0} kB | {:.0}–{:.0} | {cpu:.1} % | {:.2} ms | \
                 {:.2} ms | {} | {} |",
                quarter + 1,
                of(|it| it.resident_kb as f64, 50),
                of(own, 50),
                of(own, 100),
                of(descriptors, 0),
                of(descriptors, 100),
                of(|it| it.health_50, 50),
                of(|it| it.health_99, 50),
                last.rounds - first.rounds,
                last.wrong - first.wrong.min(last.wrong),
            );
        }
        text
    }
}
