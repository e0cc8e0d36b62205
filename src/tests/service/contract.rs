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
const HERE: &str = "domain=127.0.0.1&ports=1";

/// Every method and route that can start this scan.
const SCANS: [(&str, &str); 3] = [
    ("GET", "/open-ports?domain=127.0.0.1&ports=1"),
    ("HEAD", "/open-ports?domain=127.0.0.1&ports=1"),
    ("GET", "/probe?target=127.0.0.1&ports=1"),
];

/// An error: the path and the method of the request, the status, and the cause.
type Given = (String, String, u16, String);

/// Sends requests and collects the errors.
struct Collector(BTreeSet<Given>);

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

    fn ask(&mut self, service: &Service, request: [&str; 3], expected: (u16, &str)) {
        let [method, target, fields] = request;
        self.add(method, target, &service.ask(method, target, fields), expected);
    }

    /// Requests the scan from both routes, and with HEAD from `/open-ports`.
    fn ask_all(&mut self, service: &Service, target: &str, fields: &str, expected: (u16, &str)) {
        self.ask(service, ["HEAD", &format!("/open-ports?{target}"), fields], expected);
        self.ask_to_scan(service, target, fields, expected);
    }

    fn ask_to_scan(&mut self, service: &Service, target: &str, rest: &str, expected: (u16, &str)) {
        self.ask(service, ["GET", &format!("/open-ports?{target}"), rest], expected);
        let target = target.replacen("domain=", "target=", 1);
        self.ask(service, ["GET", &format!("/probe?{target}"), rest], expected);
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
    for (path, methods) in document["paths"].as_object().expect("paths") {
        for (method, operation) in methods.as_object().expect("methods") {
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
        let mut given = Collector(BTreeSet::new());
        // The service waits ten seconds for these bodies. All other requests are sent meanwhile.
        let slow = SCANS.map(|(method, target)| {
            let mut client = Client::connect(&service);
            client.ask(method, target, "Content-Length: 9\r\n");
            (method, target, client)
        });
        faulty_requests(&mut given, &service);
        strangers(&mut given, &service);
        names(&mut given);
        caps(&mut given);
        for (method, target, mut client) in slow {
            given.add(method, target, &client.receive(method), (408, "REQUEST_TIMEOUT"));
        }
        check_both_ways(&given.0, &service);
    });
}

/// Compares the errors that the service sent with the documented errors.
fn check_both_ways(given: &BTreeSet<Given>, service: &Service) {
    let documented = documented(service);
    let causes: BTreeSet<&str> = given.iter().map(|(.., cause)| cause.as_str()).collect();
    let document = service.get("/openapi.json").json();
    let known = document["components"]["schemas"]["Problem"]["properties"]["cause"]["enum"].clone();
    let known: BTreeSet<&str> =
        known.as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert_eq!(causes, known, "the service sends exactly the documented causes");
    // The document cannot list errors of paths and methods that do not exist.
    let of_operations = given.iter().filter(|(_, _, status, _)| !matches!(status, 404 | 405));
    let given: BTreeSet<(String, String, u16)> = of_operations
        .map(|(path, method, status, _)| (path.clone(), method.clone(), *status))
        .collect();
    let silent: Vec<_> = given.difference(&documented).collect();
    let never: Vec<_> = documented.difference(&given).collect();
    assert!(silent.is_empty(), "errors missing from /openapi.json: {silent:?}");
    assert!(never.is_empty(), "errors only in /openapi.json: {never:?}");
}

/// Requests that are invalid in themselves.
fn faulty_requests(given: &mut Collector, service: &Service) {
    given.ask(service, ["GET", "/ports", ""], (404, "NOT_FOUND"));
    given.ask(service, ["POST", &format!("/open-ports?{HERE}"), ""], (405, "METHOD_NOT_ALLOWED"));
    let faulty = format!("{HERE}&ports=2");
    given.ask(service, ["GET", &format!("/open-ports?{faulty}"), ""], (400, "INVALID_REQUEST"));
    given.ask(service, ["HEAD", &format!("/open-ports?{faulty}"), ""], (400, "INVALID_REQUEST"));
    given.ask(service, ["GET", "/probe?target=a&ports=1&ports=2", ""], (400, "INVALID_REQUEST"));
    let picture = "Accept: image/png\r\n";
    for method in ["GET", "HEAD"] {
        let request = [method, &format!("/open-ports?{HERE}"), picture];
        given.ask(service, request, (406, "NOT_ACCEPTABLE"));
    }
    let long = "a".repeat(9000);
    given.ask_all(service, &format!("{HERE}&x={long}"), "", (414, "URI_TOO_LONG"));
    let wide = format!("X-Long: {}\r\n", "a".repeat(17_000));
    given.ask_all(service, HERE, &wide, (431, "HEADERS_TOO_LARGE"));
    given.ask_all(service, HERE, "Expect: tea\r\n", (417, "EXPECTATION_FAILED"));
    given.ask_all(service, HERE, "Content-Length: 70000\r\n", (413, "CONTENT_TOO_LARGE"));
}

/// Clients without permission, and targets that are denied to every client.
fn strangers(given: &mut Collector, service: &Service) {
    given.ask_all(service, HERE, "Sec-Fetch-Site: cross-site\r\n", (403, "TARGET_DENIED"));
    given.ask_to_scan(service, "domain=169.254.169.254&ports=80", "", (403, "TARGET_DENIED"));
    for (method, target) in SCANS {
        let mut client = Client::connect(service);
        client.send(format!("{method} {target} HTTP/1.1\r\nHost: evil.example\r\n\r\n"));
        given.add(method, target, &client.receive(method), (421, "FOREIGN_HOST"));
    }
    let folder = Folder::new("contract-token");
    let guarded = Service::start(&["--token-file", &write_secret(&folder, "secret")]);
    given.ask_all(&guarded, HERE, "", (401, "UNAUTHORIZED"));
}

/// Names that cannot be resolved.
fn names(given: &mut Collector) {
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
        given.ask(&service, ["GET", &format!("/open-ports?domain={name}&ports=1"), ""], expected);
    }
}

/// Limits that are reached, and a service that shuts down.
fn caps(given: &mut Collector) {
    let silent = format!("domain={SILENT}&ports=1&timeout=60s");
    let runs = |service: &Service| {
        until("one scan runs", || (service.metric("openports_scans_running") == 1).then_some(()));
    };
    let service = Service::start(&["--max-scans-per-client", "1"]);
    let _mine = service.begin_scan(&silent, "");
    runs(&service);
    given.ask_to_scan(&service, &silent, "", (429, "TOO_MANY_SCANS"));

    let flags = ["--max-scans", "1", "--drain-delay", "1m", "--drain-timeout", "1ms"];
    let service = Service::start(&flags);
    let _mine = service.begin_scan(&silent, "");
    runs(&service);
    given.ask_to_scan(&service, &silent, "", (503, "OVERLOADED"));
    given.ask(&service, ["GET", "/readyz", ""], (503, "OVERLOADED"));
    service.signal("TERM");
    until("the shutdown begins", || (service.metric("openports_draining") == 1).then_some(()));
    given.ask(&service, ["GET", "/readyz", ""], (503, "DRAINING"));
}
