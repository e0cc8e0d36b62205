//! The resources that this process uses, under the names that every Prometheus client library uses.
//!
//! This module parses the texts of /proc/self (proc(5)). It reads no file itself: the event loop
//! reads them when `/metrics` is requested. A figure that cannot be parsed, for example because
//! /proc is not mounted, is left out of the page, because a missing sample is correct and a zero
//! would be wrong.

use std::fmt;
use std::time::Duration;

use crate::event::ProcessFiles;
use crate::report::histogram::Billionths;

/// The unit of the times in /proc/self/stat. It is 1/100 s on every processor that Rust supports,
/// because the kernel converts its own tick to USER_HZ.
const TICK_MILLIS: u64 = 10;

/// Figures of the process; `None` if the system does not provide one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProcessUsage {
    /// The user and system time.
    pub cpu: Option<Duration>,
    /// The size of the address space.
    pub virtual_bytes: Option<u64>,
    /// The resident memory.
    pub resident_bytes: Option<u64>,
    /// The number of open descriptors.
    pub descriptors_open: Option<usize>,
    /// The soft limit of the number of descriptors.
    pub descriptors_max: Option<u64>,
}

impl ProcessUsage {
    /// Parses the texts.
    pub fn parse(files: &ProcessFiles) -> Self {
        Self {
            cpu: cpu(files.stat),
            virtual_bytes: kilobytes(files.status, "VmSize:"),
            resident_bytes: kilobytes(files.status, "VmRSS:"),
            descriptors_open: files.descriptors_open,
            descriptors_max: descriptors_max(files.limits),
        }
    }

    /// Writes the samples, each after its own HELP and TYPE.
    pub fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cpu = self.cpu.map(|cpu| Billionths(cpu.as_nanos()));
        sample(f, ["process_cpu_seconds_total", "counter", "User and system CPU time."], cpu)?;
        let help = "Size of the address space.";
        sample(f, ["process_virtual_memory_bytes", "gauge", help], self.virtual_bytes)?;
        let help = "Resident memory, without what the kernel keeps for sockets.";
        sample(f, ["process_resident_memory_bytes", "gauge", help], self.resident_bytes)?;
        let help = "Descriptors that are open.";
        sample(f, ["process_open_fds", "gauge", help], self.descriptors_open)?;
        let help = "Descriptors that may be open.";
        sample(f, ["process_max_fds", "gauge", help], self.descriptors_max)
    }
}

fn sample(
    f: &mut fmt::Formatter<'_>,
    [name, kind, help]: [&str; 3],
    value: Option<impl fmt::Display>,
) -> fmt::Result {
    let Some(value) = value else { return Ok(()) };
    writeln!(f, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}")
}

/// Fields 14 and 15 of proc_pid_stat(5), utime and stime. The second field, the name of the
/// program, may contain blanks and parentheses, so the fields are counted from the last parenthesis
/// on.
fn cpu(stat: &str) -> Option<Duration> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut ticks = after_name.split_ascii_whitespace().skip(11).take(2).map(str::parse::<u64>);
    let (user, system) = (ticks.next()?.ok()?, ticks.next()?.ok()?);
    user.checked_add(system)?.checked_mul(TICK_MILLIS).map(Duration::from_millis)
}

fn kilobytes(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    let count: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    count.checked_mul(1024)
}

/// The soft limit; `None` if it is `unlimited`.
fn descriptors_max(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str = "4242 (open) ports) S 1 4242 4242 0 -1 4194560 214 0 0 0 150 50 7 9 20 0 1 \
                        0 55 3407872 297";
    const STATUS: &str = "Name:\topenports\nVmPeak:\t    9999 kB\nVmSize:\t    3328 kB\n\
                          VmRSS:\t    1188 kB\nThreads:\t1\n";
    const LIMITS: &str = "Limit                     Soft Limit           Hard Limit     Units\n\
                          Max processes             96338                96338     processes\n\
                          Max open files            20000                65536         files\n";

    #[test]
    fn the_figures_are_parsed_from_the_texts() {
        let (stat, status, limits) = (STAT, STATUS, LIMITS);
        let files = ProcessFiles { stat, status, limits, descriptors_open: Some(7) };
        let expected = ProcessUsage {
            cpu: Some(Duration::from_secs(2)),
            virtual_bytes: Some(3328 * 1024),
            resident_bytes: Some(1188 * 1024),
            descriptors_open: Some(7),
            descriptors_max: Some(20_000),
        };
        assert_eq!(ProcessUsage::parse(&files), expected);
    }

    #[test]
    fn the_time_of_a_process_that_runs_for_years_is_parsed() {
        let stat = STAT.replace(" 150 50 ", " 4294967296 1 ");
        assert_eq!(cpu(&stat), Some(Duration::from_millis(42_949_672_970)));
        assert_eq!(cpu(&STAT.replace(" 150 50 ", " 18446744073709551615 1 ")), None);
    }

    #[test]
    fn a_missing_or_malformed_figure_is_left_out() {
        for (stat, status, limits) in [
            ("", "", ""),
            ("1 (a", "VmRSS:", "Max open files"),
            ("1 (a) S 1", "VmRSS:\t1188 MB\nVmSize:\tx kB", "Max open files unlimited unlimited"),
            ("1 (a) S 1 1 1 0 -1 4 2 0 0 0 x 50", "VmRSS:\t99999999999999999999 kB", "\n"),
        ] {
            let files = ProcessFiles { stat, status, limits, descriptors_open: None };
            assert_eq!(ProcessUsage::parse(&files), ProcessUsage::default(), "{files:?}");
        }
        let is_empty = |usage: ProcessUsage| {
            struct UsagePage(ProcessUsage);
            impl fmt::Display for UsagePage {
                fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    self.0.write(f)
                }
            }
            UsagePage(usage).to_string().is_empty()
        };
        assert!(is_empty(ProcessUsage::default()));
    }
}
