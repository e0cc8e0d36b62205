//! The answer to `/probe`: the result of a scan as Prometheus metrics.
//!
//! As with blackbox_exporter, the status is 200 for every result, and `probe_success` reports
//! whether the result is the expected one. The only label values are port numbers that the request
//! named, and the reasons of [`ProbeFailure`]. This module has no state; the core calls it.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use crate::http::Response;
use crate::port_set::PortSet;
use crate::scan::ledger::Counts;

/// The result of a scan for `/probe`.
#[derive(Clone, Copy, Debug)]
pub enum Probed<'a> {
    /// The ports were scanned.
    Scanned {
        /// The scanned address.
        address: IpAddr,
        /// The open ports.
        open: &'a PortSet,
        /// The number of ports in each state.
        counts: Counts,
        /// Whether every port was probed as planned.
        complete: bool,
    },
    /// The name of the target could not be resolved.
    Unresolved(ProbeFailure),
}

/// The reason why a probe did not succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeFailure {
    /// The name does not exist, or has no address of the family.
    UnknownHost,
    /// The resolver failed.
    DnsFailure,
    /// The resolver did not answer.
    DnsTimeout,
    /// The deadline passed before every port was probed as planned.
    Incomplete,
    /// The target cannot be reached: every port is unreachable.
    Unreachable,
    /// No port is open, and the request named no expected ports.
    NoOpenPort,
    /// An expected port is not open.
    MissingPorts,
    /// An open port was not expected.
    UnexpectedPorts,
}

impl ProbeFailure {
    /// The metric label and the word for the log.
    pub const fn label(self) -> &'static str {
        match self {
            Self::UnknownHost => "unknown_host",
            Self::DnsFailure => "dns_failure",
            Self::DnsTimeout => "dns_timeout",
            Self::Incomplete => "incomplete",
            Self::Unreachable => "unreachable",
            Self::NoOpenPort => "no_open_port",
            Self::MissingPorts => "missing_ports",
            Self::UnexpectedPorts => "unexpected_ports",
        }
    }
}

/// Whether the result is as expected. `None` expects at least one open port; a set expects that
/// exactly its ports are open, and may be empty.
pub fn verdict(probed: Probed, expect: Option<&PortSet>) -> Result<(), ProbeFailure> {
    let Probed::Scanned { open, counts, complete, .. } = probed else {
        let Probed::Unresolved(failure) = probed else { return Ok(()) };
        return Err(failure);
    };
    let is_missing = expect.is_some_and(|expect| !missing(open, expect).is_empty());
    let is_unexpected = expect.is_some_and(|expect| !unexpected(open, expect).is_empty());
    let is_nowhere = counts.total() > 0 && counts.unreachable == counts.total();
    let wants_open = expect.is_none_or(|expect| !expect.is_empty());
    if !complete {
        Err(ProbeFailure::Incomplete)
    } else if is_nowhere && wants_open {
        Err(ProbeFailure::Unreachable)
    } else if expect.is_none() && open.is_empty() {
        Err(ProbeFailure::NoOpenPort)
    } else if is_missing {
        Err(ProbeFailure::MissingPorts)
    } else if is_unexpected {
        Err(ProbeFailure::UnexpectedPorts)
    } else {
        Ok(())
    }
}

/// The expected ports that are not open.
fn missing(open: &PortSet, expect: &PortSet) -> PortSet {
    let mut missing = expect.clone();
    missing.subtract(open);
    missing
}

/// The open ports that were not expected.
fn unexpected(open: &PortSet, expect: &PortSet) -> PortSet {
    let mut unexpected = open.clone();
    unexpected.subtract(expect);
    unexpected
}

/// The metrics of one probe.
pub fn probe_response(probed: Probed, expect: Option<&PortSet>, elapsed: Duration) -> Response {
    let body = ProbePage { probed, expect, elapsed }.to_string();
    super::metrics(body)
}

struct ProbePage<'a> {
    probed: Probed<'a>,
    expect: Option<&'a PortSet>,
    elapsed: Duration,
}

impl fmt::Display for ProbePage<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = verdict(self.probed, self.expect);
        gauge(f, "probe_success", "1 if the target was scanned whole and is as expected, else 0.")?;
        writeln!(f, "probe_success {}", u8::from(verdict.is_ok()))?;
        if let Err(failure) = verdict {
            gauge(f, "probe_failure_info", "Why the probe is no success.")?;
            writeln!(f, "probe_failure_info{{reason=\"{}\"}} 1", failure.label())?;
        }
        gauge(f, "probe_duration_seconds", "How long the probe took.")?;
        writeln!(f, "probe_duration_seconds {}", self.elapsed.as_secs_f64())?;
        let Probed::Scanned { address, open, counts, complete } = self.probed else {
            return Ok(());
        };
        gauge(f, "probe_ip_protocol", "The version of IP that was used, 4 or 6.")?;
        writeln!(f, "probe_ip_protocol {}", if address.is_ipv4() { 4 } else { 6 })?;
        gauge(f, "probe_complete", "1 if every port was tried in time, else 0.")?;
        writeln!(f, "probe_complete {}", u8::from(complete))?;
        gauge(f, "probe_ports", "Ports by the state in which they ended.")?;
        let Counts { open: opened, closed, filtered, unreachable, untested } = counts;
        for (state, count) in [
            ("open", opened),
            ("closed", closed),
            ("filtered", filtered),
            ("unreachable", unreachable),
            ("untested", untested),
        ] {
            writeln!(f, "probe_ports{{state=\"{state}\"}} {count}")?;
        }
        gauge(f, "probe_port_open", "1 for a port that is open, 0 for one that should be.")?;
        for port in open.iter() {
            writeln!(f, "probe_port_open{{port=\"{port}\"}} 1")?;
        }
        for port in self.missing().iter() {
            writeln!(f, "probe_port_open{{port=\"{port}\"}} 0")?;
        }
        gauge(f, "probe_missing_ports", "Ports that should be open and are not.")?;
        writeln!(f, "probe_missing_ports {}", self.missing().len())?;
        gauge(f, "probe_unexpected_ports", "Ports that are open and should not be.")?;
        writeln!(f, "probe_unexpected_ports {}", self.unexpected().len())
    }
}

impl ProbePage<'_> {
    /// The expected ports that are not open.
    fn missing(&self) -> PortSet {
        match (self.probed, self.expect) {
            (Probed::Scanned { open, .. }, Some(expect)) => missing(open, expect),
            _ => PortSet::new(),
        }
    }

    /// The open ports that were not expected; empty if any port may be open.
    fn unexpected(&self) -> PortSet {
        match (self.probed, self.expect) {
            (Probed::Scanned { open, .. }, Some(expect)) => unexpected(open, expect),
            _ => PortSet::new(),
        }
    }
}

fn gauge(f: &mut fmt::Formatter<'_>, name: &str, help: &str) -> fmt::Result {
    f.write_str("# HELP ")?;
    writeln!(f, "{name} {help}\n# TYPE {name} gauge")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(open: &str, expect: Option<&str>, complete: bool) -> String {
        let parse = |text: &str| match text {
            "" => PortSet::new(),
            _ => PortSet::parse(text).unwrap(),
        };
        let (open, expect) = (parse(open), expect.map(parse));
        let counts = Counts { open: open.len() as u32, closed: 8, ..Counts::default() };
        let address = [192, 0, 2, 7].into();
        let probed = Probed::Scanned { address, open: &open, counts, complete };
        let response = probe_response(probed, expect.as_ref(), Duration::from_millis(1500));
        assert_eq!(response.status, 200);
        String::from_utf8(response.body).unwrap()
    }

    fn check(open: &str, expect: Option<&str>, lines: &[&str]) {
        let text = page(open, expect, true);
        for line in lines {
            assert!(text.lines().any(|found| found == *line), "{line} is not in {text}");
        }
    }

    #[test]
    fn a_probe_succeeds_only_if_exactly_the_expected_ports_are_open() {
        check("22,80", None, &["probe_success 1", "probe_unexpected_ports 0"]);
        check("22,80", Some("22,80"), &["probe_success 1", "probe_missing_ports 0"]);
        check(
            "22",
            Some("22,80"),
            &[
                "probe_success 0",
                "probe_missing_ports 1",
                "probe_port_open{port=\"22\"} 1",
                "probe_port_open{port=\"80\"} 0",
            ],
        );
        check("22,80", Some("22"), &["probe_success 0", "probe_unexpected_ports 1"]);
        check("", Some(""), &["probe_success 1", "probe_ports{state=\"closed\"} 8"]);
        check("22", Some(""), &["probe_success 0", "probe_unexpected_ports 1"]);
        check("", None, &["probe_success 0", "probe_ports{state=\"closed\"} 8"]);
    }

    #[test]
    fn an_incomplete_scan_is_not_a_success() {
        assert!(page("22", None, false).contains("\nprobe_success 0\n"));
        let unresolved = Probed::Unresolved(ProbeFailure::DnsFailure);
        let response = probe_response(unresolved, Some(&PortSet::new()), Duration::ZERO);
        let text = String::from_utf8(response.body).unwrap();
        assert!(text.contains("\nprobe_failure_info{reason=\"dns_failure\"} 1\n"), "{text}");
        assert!(text.contains("\nprobe_success 0\n"), "{text}");
        assert!(!text.contains("probe_ports"), "there are no ports without a scan");
    }

    #[test]
    fn a_failure_has_its_reason_and_a_success_has_none() {
        let check = |open: &str, unreachable: u32, expect: Option<&str>, expected: &str| {
            let parse = |text: &str| PortSet::parse(text).unwrap_or_default();
            let (open, expect) = (parse(open), expect.map(parse));
            let closed = if unreachable > 0 { 0 } else { 8 };
            let counts =
                Counts { open: open.len() as u32, closed, unreachable, ..Counts::default() };
            let probed = |complete| {
                let address = [192, 0, 2, 7].into();
                Probed::Scanned { address, open: &open, counts, complete }
            };
            let reason = |complete| match verdict(probed(complete), expect.as_ref()) {
                Ok(()) => "",
                Err(failure) => failure.label(),
            };
            assert_eq!(reason(true), expected, "{open:?} {unreachable} {expect:?}");
            assert_eq!(reason(false), "incomplete");
        };
        check("", 0, None, "no_open_port");
        check("22", 0, None, "");
        check("", 3, None, "unreachable");
        check("", 3, Some("22"), "unreachable");
        check("", 3, Some(""), "");
        check("", 0, Some(""), "");
        check("22", 0, Some(""), "unexpected_ports");
        check("22", 0, Some("22,80"), "missing_ports");
        check("23", 0, Some("22"), "missing_ports");
        check("22,23", 0, Some("22"), "unexpected_ports");
        check("22", 0, Some("22"), "");
    }

    #[test]
    fn every_metric_has_its_help_and_type_once_before_its_samples() {
        let text = page("22,80", Some("22,443"), true);
        let mut described = Vec::new();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let name = rest.split(' ').next().unwrap();
                assert!(!described.contains(&name), "{name} is described twice");
                described.push(name);
            } else if !line.starts_with('#') {
                let name = line.split(['{', ' ']).next().unwrap();
                assert_eq!(described.last(), Some(&name), "{line}");
            }
        }
    }
}
