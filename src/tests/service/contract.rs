//! The error contract: the service causes every error, and each error is compared with
//! `/openapi.json` and `docs/api.md`. Both must document all of these errors and no others.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::access::write_secret;
use crate::client::{Answer, Client};
use crate::nameserver::{NameServer, Reply};
use crate::network::{SILENT, isolated};
use crate::process::{Folder, Service, until};

/// The parameters of a scan of this machine.
const LOOPBACK: &str = "domain=127.0.0.1&ports=1";

/// Every method and route that can start this scan.
const SCANS: [(&str, &str); 3] = [
    ("GET", "/open-ports?domain=127.0.0.1&ports=1"),
    ("HEAD", "/open-ports?domain=127.0.0.1&ports=1"),
    ("GET", "/probe?target=127.0.0.1&ports=1"),
];

/// An error: the path and the method of the request, the status, and the cause.
type ObservedError = (String, String, u16, String);

/// Sends requests and collects the errors.
struct Collector(BTreeSet<ObservedError>);

impl Collector {
    fn add(&mut self, method: &str, target: &str, answer: &Answer, (status, cause): (u16, &str)) {
        if method == "HEAD" {
            answer.check_status(status);
        } else {
            let document = answer.check_problem(status, cause);
            self.check_documented(status, cause, &document);
        }
        let (path, _) = target.split_once('?').unwrap_or((target, ""));
        self.0.insert((path.into(), method.to_lowercase(), status, cause.into()));
    }

    fn check(&mut self, service: &Service, request: [&str; 3], expected: (u16, &str)) {
        let [method, target, fields] = request;
        self.add(method, target, &service.request(method, target, fields), expected);
    }

    /// Requests the scan from both routes, and with HEAD from `/open-ports`.
    fn check_all(&mut self, service: &Service, target: &str, fields: &str, expected: (u16, &str)) {
        self.check(service, ["HEAD", &format!("/open-ports?{target}"), fields], expected);
        self.check_scans(service, target, fields, expected);
    }

    fn check_scans(&mut self, service: &Service, target: &str, rest: &str, expected: (u16, &str)) {
        self.check(service, ["GET", &format!("/open-ports?{target}"), rest], expected);
        let target = target.replacen("domain=", "target=", 1);
        self.check(service, ["GET", &format!("/probe?{target}"), rest], expected);
    }

    /// Checks that docs/api.md shows an answer with this cause and exactly this `detail`.
    fn check_documented(&self, status: u16, cause: &str, document: &Value) {
        let page = include_str!("../../../docs/api.md");
        let detail = document["detail"].to_string();
        let shown = format!("\"status\":{status},\"cause\":\"{cause}\",\"detail\":{detail}");
        assert!(page.contains(&shown), "docs/api.md has no example with {shown}");
    }
}

/// The path, method and status of every error in `/openapi.json`.
fn documented(service: &Service) -> BTreeSet<(String, String, u16)> {
    let document = service.get("/openapi.json").json();
    let mut all = BTreeSet::new();
    for (path, methods) in document["paths"].as_object().expect("`paths` is an object") {
        for (method, operation) in methods.as_object().expect("a path is an object") {
            let Some(responses) = operation["responses"].as_object() else { continue };
            let statuses = responses.keys().filter_map(|status| status.parse().ok());
            all.extend(statuses.map(|status: u16| (path.clone(), method.clone(), status)));
        }
    }
    all.retain(|(_, _, status)| *status >= 400);
    all
}

#[test]
fn every_error_is_documented_and_every_documented_error_occurs() {
    isolated(|| {
        let service = Service::start(&[]);
        let mut collector = Collector(BTreeSet::new());
        // The service waits ten seconds for these bodies. All other requests are sent meanwhile.
        let slow = SCANS.map(|(method, target)| {
            let mut client = Client::connect(&service);
            client.send_request(method, target, "Content-Length: 9\r\n");
            (method, target, client)
        });
        invalid_requests(&mut collector, &service);
        forbidden_requests(&mut collector, &service);
        unresolved_names(&mut collector);
        limits(&mut collector);
        for (method, target, mut client) in slow {
            collector.add(method, target, &client.receive(method), (408, "REQUEST_TIMEOUT"));
        }
        compare(&collector.0, &service);
    });
}

/// Compares the errors that the service sent with the documented errors.
fn compare(observed: &BTreeSet<ObservedError>, service: &Service) {
    let documented = documented(service);
    let causes: BTreeSet<&str> = observed.iter().map(|(.., cause)| cause.as_str()).collect();
    let document = service.get("/openapi.json").json();
    let known = document["components"]["schemas"]["Problem"]["properties"]["cause"]["enum"].clone();
    let known: BTreeSet<&str> =
        known.as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert_eq!(causes, known, "the service sends exactly the documented causes");
    // The document cannot list errors of paths and methods that do not exist.
    let of_operations = observed.iter().filter(|(_, _, status, _)| !matches!(status, 404 | 405));
    let observed: BTreeSet<(String, String, u16)> = of_operations
        .map(|(path, method, status, _)| (path.clone(), method.clone(), *status))
        .collect();
    let undocumented: Vec<_> = observed.difference(&documented).collect();
    let unobserved: Vec<_> = documented.difference(&observed).collect();
    assert!(
        undocumented.is_empty(),
        "these errors are missing from /openapi.json: {undocumented:?}"
    );
    assert!(unobserved.is_empty(), "these errors occur only in /openapi.json: {unobserved:?}");
}

/// Requests that are invalid in themselves.
fn invalid_requests(collector: &mut Collector, service: &Service) {
    collector.check(service, ["GET", "/ports", ""], (404, "NOT_FOUND"));
    collector.check(
        service,
        ["POST", &format!("/open-ports?{LOOPBACK}"), ""],
        (405, "METHOD_NOT_ALLOWED"),
    );
    let faulty = format!("{LOOPBACK}&ports=2");
    collector.check(
        service,
        ["GET", &format!("/open-ports?{faulty}"), ""],
        (400, "INVALID_REQUEST"),
    );
    collector.check(
        service,
        ["HEAD", &format!("/open-ports?{faulty}"), ""],
        (400, "INVALID_REQUEST"),
    );
    collector.check(
        service,
        ["GET", "/probe?target=a&ports=1&ports=2", ""],
        (400, "INVALID_REQUEST"),
    );
    let png_only = "Accept: image/png\r\n";
    for method in ["GET", "HEAD"] {
        let request = [method, &format!("/open-ports?{LOOPBACK}"), png_only];
        collector.check(service, request, (406, "NOT_ACCEPTABLE"));
    }
    let long_value = "a".repeat(9000);
    collector.check_all(service, &format!("{LOOPBACK}&x={long_value}"), "", (414, "URI_TOO_LONG"));
    let long_field = format!("X-Long: {}\r\n", "a".repeat(17_000));
    collector.check_all(service, LOOPBACK, &long_field, (431, "HEADERS_TOO_LARGE"));
    collector.check_all(service, LOOPBACK, "Expect: tea\r\n", (417, "EXPECTATION_FAILED"));
    collector.check_all(service, LOOPBACK, "Content-Length: 70000\r\n", (413, "CONTENT_TOO_LARGE"));
}

/// Clients without permission, and targets that are denied to every client.
fn forbidden_requests(collector: &mut Collector, service: &Service) {
    collector.check_all(
        service,
        LOOPBACK,
        "Sec-Fetch-Site: cross-site\r\n",
        (403, "TARGET_DENIED"),
    );
    collector.check_scans(service, "domain=169.254.169.254&ports=80", "", (403, "TARGET_DENIED"));
    for (method, target) in SCANS {
        let mut client = Client::connect(service);
        client.send(format!("{method} {target} HTTP/1.1\r\nHost: evil.example\r\n\r\n"));
        collector.add(method, target, &client.receive(method), (421, "FOREIGN_HOST"));
    }
    let folder = Folder::new("contract-token");
    let with_token = Service::start(&["--token-file", &write_secret(&folder, "secret")]);
    collector.check_all(&with_token, LOOPBACK, "", (401, "UNAUTHORIZED"));
}

/// Names that cannot be resolved.
fn unresolved_names(collector: &mut Collector) {
    let _server = NameServer::start("127.0.0.53", |query| match &*query.name {
        "fails.example" => Reply::Code(2),
        "silent.example" => Reply::Silence,
        _ => Reply::Code(3),
    });
    let folder = Folder::new("contract-names");
    let text = "nameserver 127.0.0.53\noptions timeout:1 attempts:1\n";
    let service = Service::start(&["--resolv-conf", &folder.write("resolv.conf", text)]);
    for (name, expected) in [
        ("no.example", (422, "UNKNOWN_HOST")),
        ("fails.example", (502, "DNS_FAILURE")),
        ("silent.example", (504, "DNS_TIMEOUT")),
    ] {
        collector.check(
            &service,
            ["GET", &format!("/open-ports?domain={name}&ports=1"), ""],
            expected,
        );
    }
}

/// Limits that are reached, and a service that shuts down.
fn limits(collector: &mut Collector) {
    let silent = format!("domain={SILENT}&ports=1&timeout=60s");
    let runs = |service: &Service| {
        until("one scan runs", || (service.metric("openports_scans_running") == 1).then_some(()));
    };
    let service = Service::start(&["--max-scans-per-client", "1"]);
    let _running = service.begin_scan(&silent, "");
    runs(&service);
    collector.check_scans(&service, &silent, "", (429, "TOO_MANY_SCANS"));

    let flags = ["--max-scans", "1", "--drain-delay", "1m", "--drain-timeout", "1ms"];
    let service = Service::start(&flags);
    let _running = service.begin_scan(&silent, "");
    runs(&service);
    collector.check_scans(&service, &silent, "", (503, "OVERLOADED"));
    collector.check(&service, ["GET", "/readyz", ""], (503, "OVERLOADED"));
    service.signal("TERM");
    until("the shutdown begins", || (service.metric("openports_draining") == 1).then_some(()));
    collector.check(&service, ["GET", "/readyz", ""], (503, "DRAINING"));
}
