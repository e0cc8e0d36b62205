//! The five formats of a result, and the answers to HEAD and to browsers.

use serde_json::Value;

use crate::client::{Answer, ports};
use crate::network::{ClosedPort, SilentPort, list, listeners};
use crate::process::Service;

#[test]
fn ndjson_sends_events_as_they_happen_and_ends_with_the_summary() {
    let (_listeners, open) = listeners(3);
    let silent = SilentPort::new();
    let service = Service::start(&[]);
    let requested = list(&[&open[..], &[silent.port]].concat());
    let query = format!("domain=127.0.0.1&ports={requested}&timeout=700ms");
    let mut client = service.begin_scan(&query, "Accept: application/x-ndjson\r\n");
    let head = client.head();
    assert!(head.contains("\r\nContent-Type: application/x-ndjson\r\n"), "{head}");
    assert!(head.contains("\r\nTransfer-Encoding: chunked\r\n"), "{head}");
    // The events of the open ports arrive while the probe of the silent port is still running.
    let mut text = String::new();
    while text.matches("\"event\":\"open\"").count() < 3 {
        let chunk = client.chunk();
        assert!(!chunk.is_empty(), "the stream ended before all open ports: {text}");
        assert!(
            !chunk.contains("\"event\":\"end\""),
            "the open ports were not reported before the end: {text}{chunk}"
        );
        text += &chunk;
    }
    loop {
        match client.chunk() {
            chunk if chunk.is_empty() => break,
            chunk => text += &chunk,
        }
    }
    let events: Vec<Value> =
        text.lines().map(|line| serde_json::from_str(line).expect("a line is JSON")).collect();
    check_events(&events, &open, 4);
    // The connection stays open.
    client.send_request("GET", "/healthz", "");
    client.receive("GET").check_status(200);
}

#[test]
fn server_sent_events_contain_the_same_events_as_ndjson() {
    let (_listeners, open) = listeners(2);
    let silent = SilentPort::new();
    let service = Service::start(&[]);
    let requested = list(&[&open[..], &[silent.port]].concat());
    let target = format!("/open-ports?domain=127.0.0.1&ports={requested}&timeout=500ms");
    let answer = service.request("GET", &target, "Accept: text/event-stream\r\n");
    answer.check_status(200);
    answer.check("the type", answer.field("Content-Type"), Some("text/event-stream"));
    let mut events = Vec::new();
    for block in answer.body.split_terminator("\n\n") {
        let lines: Vec<&str> = block.lines().collect();
        let &[id, name, data] = &lines[..] else { panic!("{block:?}") };
        let name = name.strip_prefix("event: ").expect(&answer.context);
        let data = data.strip_prefix("data: ").expect(&answer.context);
        answer.check("the id", id.strip_prefix("id: "), Some(name));
        let event: Value = serde_json::from_str(data).expect(&answer.context);
        answer.check("the name", &event["event"], &Value::from(name));
        events.push(event);
    }
    check_events(&events, &open, 3);
}

/// Checks that the events are a start, the open ports and progress, and an end with the summary.
fn check_events(events: &[Value], open: &[u16], total: u64) {
    let [start, between @ .., end] = events else { panic!("too few events: {events:#?}") };
    assert_eq!((&start["event"], &start["total"]), (&"start".into(), &total.into()));
    assert_eq!((&start["domain"], &start["address"]), (&"127.0.0.1".into(), &"127.0.0.1".into()));
    let named = |name: &'static str| between.iter().filter(move |event| event["event"] == name);
    let mut reported: Vec<u64> = named("open").filter_map(|event| event["port"].as_u64()).collect();
    reported.sort_unstable();
    assert_eq!(reported, open.iter().map(|port| u64::from(*port)).collect::<Vec<_>>());
    assert!(named("open").all(|event| event["rtt_ms"].as_f64().is_some_and(|rtt| rtt < 500.0)));
    assert!(
        named("progress").count() > 0,
        "a scan of half a second has progress events: {events:#?}"
    );
    for progress in named("progress") {
        assert_eq!((&progress["total"], &progress["open"]), (&total.into(), &open.len().into()));
        assert_eq!(progress["done"], open.len());
    }
    assert_eq!(named("open").count() + named("progress").count(), between.len());
    assert_eq!((&end["event"], &end["complete"]), (&"end".into(), &true.into()));
    assert_eq!(ports(&end["open_ports"]), open);
    assert_eq!(end["counts"]["filtered"], 1);
}

#[test]
fn plain_text_lists_one_open_port_per_line() {
    let (_listeners, open) = listeners(3);
    let service = Service::start(&[]);
    let target = format!("/open-ports?domain=127.0.0.1&ports={}", list(&open));
    let answer = service.request("GET", &target, "Accept: text/plain\r\n");
    let lines: String = open.iter().map(|port| format!("{port}\n")).collect();
    answer.check_status(200).check("the body", &*answer.body, &*lines);
    answer.check("the type", answer.field("Content-Type"), Some("text/plain; charset=utf-8"));
    let answer = service.request("GET", "/open-ports?domain=::1&ports=1", "Accept: text/plain\r\n");
    answer.check_status(200).check("the body", &*answer.body, "");
}

#[test]
fn accept_selects_the_format() {
    let service = Service::start(&[]);
    let check = |accept: &str, expected: Option<&str>| {
        let target = "/open-ports?domain=127.0.0.1&toPort=1";
        let answer = service.request("GET", target, &format!("Accept: {accept}\r\n"));
        match expected {
            Some(kind) => {
                answer.check_status(200).check(
                    "the type",
                    answer.field("Content-Type"),
                    Some(kind),
                );
                answer.check("Vary", answer.field("Vary"), Some("Accept"));
                answer.check("Cache-Control", answer.field("Cache-Control"), Some("no-store"));
            }
            None => {
                answer.check_problem(406, "NOT_ACCEPTABLE");
            }
        }
    };
    check("*/*", Some("application/json"));
    check("application/*", Some("application/json"));
    check("text/*;q=0.5, application/x-ndjson", Some("application/x-ndjson"));
    check("text/event-stream;q=1.0, application/json;q=0.9", Some("text/event-stream"));
    check("nonsense", Some("application/json"));
    check("image/png", None);
    check("application/json;q=0", None);
}

#[test]
fn head_checks_the_request_without_a_scan() {
    let service = Service::start(&[]);
    let head = |target: &str| service.request("HEAD", target, "");
    let answer = head("/open-ports?domain=127.0.0.1&toPort=65535");
    answer.check_status(200).check(
        "the type",
        answer.field("Content-Type"),
        Some("application/json"),
    );
    let answer = head("/open-ports?toPort=0");
    answer.check_status(400);
    answer.check("the type", answer.field("Content-Type"), Some("application/problem+json"));
    for path in ["/", "/healthz", "/readyz", "/metrics", "/openapi.json"] {
        let (head, get) = (head(path), service.get(path));
        head.check_status(200);
        if path != "/metrics" {
            head.check("the length", head.field("Content-Length"), get.field("Content-Length"));
        }
    }
    assert_eq!(service.metric("openports_connects_total"), 0);
    assert_eq!(service.metric("openports_requests_total{route=\"/open-ports\",status=\"200\"}"), 1);
}

#[test]
fn routes_without_a_scan_answer() {
    let service = Service::start(&[]);
    let check = |path: &str, kind: &str| -> Answer {
        let answer = service.get(path);
        answer.check_status(200).check("the type", answer.field("Content-Type"), Some(kind));
        assert!(answer.field("Date").is_some_and(|date| date.ends_with(" GMT")), "{answer:?}");
        answer
    };
    let text = "text/plain; charset=utf-8";
    assert_eq!(check("/healthz", text).body, "ok");
    check("/readyz", text);
    assert_eq!(check("/openapi.json", "application/json").json()["openapi"], "3.1.0");
    let help = check("/", text);
    assert!(help.body.contains("curl 'http://localhost/open-ports?"), "{help:?}");
}

#[test]
fn requests_from_other_sites_and_for_foreign_hosts_are_refused() {
    let service = Service::start(&["--host", "scanner.example"]);
    let check = |fields: &str, expected: Option<(u16, &str)>| {
        let mut client = crate::client::Client::connect(&service);
        let target = "/open-ports?domain=127.0.0.1&toPort=1";
        client.send(format!("GET {target} HTTP/1.1\r\n{fields}\r\n"));
        let answer = client.receive("GET");
        match expected {
            None => {
                answer.check_status(200);
            }
            Some((status, cause)) => {
                answer.check_problem(status, cause);
            }
        }
    };
    check("Host: localhost\r\n", None);
    check("Host: 192.0.2.1:80\r\n", None);
    check("Host: Scanner.Example:8080\r\n", None);
    check("Host: evil.example\r\n", Some((421, "FOREIGN_HOST")));
    let denied = Some((403, "TARGET_DENIED"));
    check("Host: localhost\r\nSec-Fetch-Site: cross-site\r\n", denied);
    check("Host: localhost\r\nSec-Fetch-Site: same-origin\r\n", None);
    check("Host: localhost\r\nOrigin: http://evil.example\r\n", denied);
    check("Host: localhost\r\nOrigin: null\r\n", denied);
    check("Host: localhost\r\nOrigin: http://localhost\r\n", None);
}

#[test]
fn csv_lists_open_ports_and_the_included_states() {
    let (_listeners, open) = listeners(2);
    let unused = ClosedPort::new();
    let closed = unused.port;
    let service = Service::start(&[]);
    let requested = list(&[&open[..], &[closed]].concat());
    let target = format!("/open-ports?domain=127.0.0.1&ports={requested}&include=closed");
    let answer = service.request("GET", &target, "Accept: text/csv\r\n");
    answer.check_status(200);
    answer.check("the type", answer.field("Content-Type"), Some("text/csv; charset=utf-8"));
    answer.check("complete", answer.field("Openports-Complete"), Some("true"));
    answer.check("untested", answer.field("Openports-Untested"), Some("0"));
    let mut lines = answer.body.lines();
    answer.check("the head", lines.next(), Some("address,port,state,service,rtt_ms"));
    let mut found = Vec::new();
    for line in lines {
        let columns: Vec<&str> = line.split(',').collect();
        let &[address, port, state, _, rtt] = &columns[..] else { panic!("{line}") };
        assert_eq!(address, "127.0.0.1");
        assert_eq!(rtt.parse::<f64>().is_ok(), state == "open", "{line}");
        found.push((port.parse::<u16>().expect(line), state.to_owned()));
    }
    let mut expected: Vec<(u16, String)> =
        open.iter().map(|port| (*port, "open".to_owned())).collect();
    expected.sort_unstable();
    expected.push((closed, "closed".to_owned()));
    assert_eq!(found, expected);
}

#[test]
fn text_formats_report_completeness_in_header_fields() {
    let silent = SilentPort::new();
    let service = Service::start(&[]);
    let port = silent.port;
    let times = "timeout=400ms&deadline=400ms&retries=9";
    let target = format!("/open-ports?domain=127.0.0.1&ports={port}&{times}");
    for form in ["text/plain", "text/csv"] {
        let answer = service.request("GET", &target, &format!("Accept: {form}\r\n"));
        answer.check_status(200);
        answer.check("complete", answer.field("Openports-Complete"), Some("false"));
        assert!(answer.field("Openports-Untested").is_some(), "{}", answer.context);
        answer.check("unreachable", answer.field("Openports-Unreachable"), Some("0"));
    }
}

#[test]
fn an_event_source_that_reconnects_after_the_end_gets_204() {
    let unused = ClosedPort::new();
    let closed = unused.port;
    let service = Service::start(&[]);
    let target = format!("/open-ports?domain=127.0.0.1&ports={closed}");
    let accept = "Accept: text/event-stream\r\n";
    let answer = service.request("GET", &target, accept);
    answer.check_status(200);
    answer.check("unbuffered", answer.field("X-Accel-Buffering"), Some("no"));
    answer.check("uncached", answer.field("Cache-Control"), Some("no-store"));
    let ids: Vec<&str> = answer.body.lines().filter_map(|it| it.strip_prefix("id: ")).collect();
    let last = ids.last().expect("each event has an id");
    let again = service.request("GET", &target, &format!("{accept}Last-Event-ID: {last}\r\n"));
    again.check_status(204);
    assert_eq!((again.body.as_str(), again.field("Content-Length")), ("", None));
    for other in ["start", "progress", "x", "\u{e9}"] {
        let answer =
            service.request("GET", &target, &format!("{accept}Last-Event-ID: {other}\r\n"));
        answer.check_status(200);
    }
    let json = service.request("GET", &target, &format!("Last-Event-ID: {last}\r\n"));
    json.check_status(200);
    assert!(json.body.ends_with("}\n"), "JSON ends with a line end: {}", json.body);
    let invalid =
        service.request("GET", "/open-ports", &format!("{accept}Last-Event-ID: {last}\r\n"));
    invalid.check_status(400);
}
