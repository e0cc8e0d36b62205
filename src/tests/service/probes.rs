//! The `/probe` route: when a result is a success, and the reported reason of a failure.

use crate::network::{ClosedPort, SILENT, SilentPort, UNREACHABLE, isolated, listeners};
use crate::process::Service;

/// The value of a metric in the answer of the `/probe` route.
fn value(page: &str, name: &str) -> Option<f64> {
    page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}

fn check(service: &Service, query: &str, fields: &str, failure: Option<&str>) {
    let answer = service.request("GET", &format!("/probe?{query}"), fields);
    answer.check_status(200);
    let success = if failure.is_none() { 1.0 } else { 0.0 };
    answer.check("success", value(&answer.body, "probe_success"), Some(success));
    let reason = answer
        .body
        .lines()
        .find_map(|line| line.strip_prefix("probe_failure_info{reason=\"")?.strip_suffix("\"} 1"));
    answer.check("the reason", reason, failure);
    if let Some(failure) = failure {
        service.log_line(&["msg=request", "route=/probe", &format!("probe_failure={failure}")]);
    }
}

#[test]
fn a_probe_succeeds_only_if_the_expectation_holds() {
    let (_listeners, open) = listeners(2);
    let [one, other] = open[..] else { panic!("there are two listeners") };
    let (unused, silent) = (ClosedPort::new(), SilentPort::new());
    let (closed, silent) = (unused.port, silent.port);
    let service = Service::start(&[]);
    let host = "target=127.0.0.1&timeout=300ms&retries=0";
    for (ports, failure) in [
        (format!("ports={one}"), None),
        (format!("ports={one},{closed},{silent}"), None),
        (format!("ports={closed}"), Some("no_open_port")),
        (format!("ports={silent}"), Some("no_open_port")),
        (format!("ports={closed},{silent}&expect=none"), None),
        (format!("ports={closed},{one}&expect=none"), Some("unexpected_ports")),
        (format!("ports={one},{other}&expect={one},{other}"), None),
        (format!("ports={one},{other}&expect={one}"), Some("unexpected_ports")),
        (format!("ports={one},{closed}&expect={one},{closed}"), Some("missing_ports")),
    ] {
        check(&service, &format!("{host}&{ports}"), "", failure);
    }
    check(&service, &format!("target=127.0.0.1:{one}"), "", None);
    check(&service, &format!("target=127.0.0.1:{closed}"), "", Some("no_open_port"));
    check(&service, &format!("target=localhost:{one}&family=4"), "", None);
}

#[test]
fn the_shortest_of_timeout_deadline_and_scrape_timeout_applies() {
    let silent = SilentPort::new();
    let (_listeners, open) = listeners(1);
    let service = Service::start(&[]);
    let scrape = "X-Prometheus-Scrape-Timeout-Seconds: 5\r\n";
    let query = format!("target=127.0.0.1&ports={}&timeout=5s", open[0]);
    check(&service, &query, scrape, None);
    check(&service, &format!("{query}&deadline=1s"), "", None);
    let query = format!("target=127.0.0.1&ports={}&timeout=5s&retries=0", silent.port);
    let short = "X-Prometheus-Scrape-Timeout-Seconds: 0.8\r\n";
    let answer = service.request("GET", &format!("/probe?{query}"), short);
    answer.check_status(200);
    answer.check("success", value(&answer.body, "probe_success"), Some(0.0));
}

#[test]
fn a_silent_unreachable_or_unresolved_host_is_not_a_success() {
    isolated(|| {
        let service = Service::start(&["--resolv-conf", "/dev/null"]);
        let silent = format!("target={SILENT}&ports=22&timeout=200ms&retries=0");
        check(&service, &silent, "", Some("no_open_port"));
        check(&service, &format!("{silent}&expect=none"), "", None);
        // A connect ends before the probe, also if the default timeout is longer than the probe.
        let down = format!("target={SILENT}&ports=22&expect=none");
        check(&service, &down, "X-Prometheus-Scrape-Timeout-Seconds: 1\r\n", None);
        check(&service, &format!("{down}&timeout=5s&deadline=400ms"), "", None);
        let nowhere = format!("target={UNREACHABLE}&ports=22-25");
        check(&service, &nowhere, "", Some("unreachable"));
        check(&service, &format!("{nowhere}&expect=none"), "", None);
        check(&service, "target=nowhere.example&ports=22", "", Some("dns_failure"));
        let failed = "target=nowhere.example&ports=22&expect=none";
        check(&service, failed, "", Some("dns_failure"));
        service.log_line(&["probe_failure=dns_failure", "domain=nowhere.example"]);
        service.get("/open-ports?domain=other.example&ports=22").check_status(502);
        service.log_line(&["route=/open-ports", "domain=other.example", "cause=DNS_FAILURE"]);
        let text = format!("/open-ports?domain={UNREACHABLE}&ports=22-25");
        let answer = service.request("GET", &text, "Accept: text/plain\r\n");
        answer.check("unreachable", answer.field("Openports-Unreachable"), Some("4"));
    });
}
