//! The answer to `/probe`: what a scan came to, as metrics of Prometheus.
//!
//! In blackbox_exporter's manner: 200 whatever the target came to, and `probe_success` says
//! whether all is as expected. Labels are port numbers that the request named.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use crate::http::Response;
use crate::scan::ledger::Counts;
use crate::target::PortSet;

/// What a probe came to.
#[derive(Clone, Copy, Debug)]
pub enum Probed<'a> {
    /// The ports were scanned.
    Scanned {
        /// The address.
        address: IpAddr,
        /// The open ports.
        open: &'a PortSet,
        /// The ports by state.
        counts: Counts,
        /// True exactly when every port was tried as planned.
        complete: bool,
    },
    /// The target's name could not be resolved.
    Unresolved,
}

/// The page of one probe.
pub fn probe_response(probed: Probed, expect: Option<&PortSet>, elapsed: Duration) -> Response {
    let body = Page { probed, expect, elapsed }.to_string();
    super::metrics(body)
}

struct Page<'a> {
    probed: Probed<'a>,
    expect: Option<&'a PortSet>,
    elapsed: Duration,
}

impl fmt::Display for Page<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        gauge(f, "probe_success", "1 if the target was scanned whole and is as expected, else 0.")?;
        writeln!(f, "probe_success {}", u8::from(self.is_success()))?;
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

impl Page<'_> {
    fn is_success(&self) -> bool {
        match self.probed {
            Probed::Scanned { complete, .. } => {
                complete && self.missing().is_empty() && self.unexpected().is_empty()
            }
            Probed::Unresolved => false,
        }
    }

    /// What was expected without what is open.
    fn missing(&self) -> PortSet {
        let mut missing = self.expect.cloned().unwrap_or_default();
        if let Probed::Scanned { open, .. } = self.probed {
            missing.subtract(open);
        }
        missing
    }

    /// What is open without what was expected; nothing where anything may be open.
    fn unexpected(&self) -> PortSet {
        let (Probed::Scanned { open, .. }, Some(expect)) = (self.probed, self.expect) else {
            return PortSet::new();
        };
        let mut unexpected = open.clone();
        unexpected.subtract(expect);
        unexpected
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
    fn success_is_what_was_expected_and_nothing_else() {
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
        check("", None, &["probe_success 1", "probe_ports{state=\"closed\"} 8"]);
    }

    #[test]
    fn what_was_not_scanned_whole_is_no_success() {
        assert!(page("22", None, false).contains("\nprobe_success 0\n"));
        let response = probe_response(Probed::Unresolved, None, Duration::ZERO);
        let text = String::from_utf8(response.body).unwrap();
        assert!(text.contains("\nprobe_success 0\n"), "{text}");
        assert!(!text.contains("probe_ports"), "nothing was scanned");
    }

    #[test]
    fn every_metric_has_its_help_and_type_once_before_its_samples() {
        let text = page("22,80", Some("22,443"), true);
        let mut described = Vec::new();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let name = rest.split(' ').next().unwrap();
                assert!(!described.contains(&name), "{name} is described once");
                described.push(name);
            } else if !line.starts_with('#') {
                let name = line.split(['{', ' ']).next().unwrap();
                assert_eq!(described.last(), Some(&name), "{line}");
            }
        }
    }
}
