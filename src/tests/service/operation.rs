//! Operation of the service: shutdown, logs, and metrics.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::client::{Client, Scan};
use crate::network::{SilentPort, listeners};
use crate::process::{EVENT_TIMEOUT, Service, until};

/// Waits until the log of the service shows that the shutdown has begun.
fn wait_for_shutdown(service: &Service) {
    service.log_line(&["draining"]);
}

#[test]
fn an_idle_service_ends_immediately_with_0() {
    for signal in ["TERM", "INT", "HUP"] {
        let mut service = Service::start(&[]);
        let mut idle = Client::connect(&service);
        idle.send_request("GET", "/healthz", "");
        idle.receive("GET").check_status(200);
        let began = Instant::now();
        service.signal(signal);
        assert_eq!(service.wait(), Some(0), "{}", service.command);
        assert!(began.elapsed() < Duration::from_secs(3), "took {:?}", began.elapsed());
        idle.check_closed();
        service.log_line(&["msg=draining", &format!("signal=SIG{signal}"), "connections=1"]);
        service.log_line(&["msg=drained"]);
    }
}

#[test]
fn a_running_scan_is_finished_and_answered_before_the_process_ends() {
    ["TERM", "HUP"].into_iter().for_each(check_running_scan_is_answered);
}

fn check_running_scan_is_answered(signal: &str) {
    let silent = SilentPort::new();
    let (_listeners, open) = listeners(1);
    let mut service = Service::start(&[]);
    let query = format!("domain=127.0.0.1&ports={},{}&timeout=1s", silent.port, open[0]);
    let mut client = service.begin_scan(&query, "");
    until("the scan runs", || (service.metric("openports_scans_running") == 1).then_some(()));
    service.signal(signal);
    wait_for_shutdown(&service);
    until("new connections are refused", || std::net::TcpStream::connect(service.address).err());
    let answer = client.receive("GET");
    answer.check("Connection", answer.field("Connection"), Some("close"));
    Scan::of(answer).check_open(&open).check_counts([1, 0, 1, 0, 0]);
    client.check_closed();
    assert_eq!(service.wait(), Some(0));
}

#[test]
fn during_the_drain_delay_the_service_serves_but_is_not_ready() {
    let (_listeners, open) = listeners(1);
    let mut service = Service::start(&["--drain-delay", "1500ms"]);
    service.get("/readyz").check_status(200);
    service.signal("TERM");
    let began = Instant::now();
    wait_for_shutdown(&service);
    let answer = service.get("/readyz");
    answer.check_problem(503, "DRAINING");
    assert!(answer.field("Retry-After").is_some(), "{}", answer.context);
    service.get("/healthz").check_status(200);
    service.scan(&format!("domain=127.0.0.1&ports={}", open[0])).check_open(&open);
    assert_eq!(service.metric("openports_draining"), 1);
    assert_eq!(service.wait(), Some(0));
    let took = began.elapsed().as_millis();
    assert!((1400..6000).contains(&took), "took {took} ms");
}

#[test]
fn at_the_drain_timeout_scans_are_answered_with_partial_results() {
    let silent = SilentPort::new();
    let (_listeners, open) = listeners(1);
    let mut service = Service::start(&["--drain-timeout", "500ms"]);
    let query = format!("domain=127.0.0.1&ports={},{}&timeout=60s", silent.port, open[0]);
    let mut json = service.begin_scan(&query, "");
    let mut stream = service.begin_scan(&query, "Accept: application/x-ndjson\r\n");
    until("two scans run", || (service.metric("openports_scans_running") == 2).then_some(()));
    service.signal("TERM");
    let began = Instant::now();
    Scan::of(json.receive("GET")).check_open(&open).check_counts([1, 0, 0, 0, 1]);
    let answer = stream.receive("GET");
    let end: Value = serde_json::from_str(answer.body.lines().last().unwrap()).unwrap();
    answer.check("the end", (&end["event"], &end["complete"]), (&"end".into(), &false.into()));
    assert_eq!(service.wait(), Some(0));
    let took = began.elapsed().as_millis();
    assert!((450..5000).contains(&took), "took {took} ms");
}

#[test]
fn a_second_signal_ends_the_process_immediately() {
    let silent = SilentPort::new();
    let mut service = Service::start(&[]);
    let query = format!("domain=127.0.0.1&ports={}&timeout=60s", silent.port);
    let mut client = service.begin_scan(&query, "");
    until("the scan runs", || (service.metric("openports_scans_running") == 1).then_some(()));
    service.signal("TERM");
    wait_for_shutdown(&service);
    assert!(service.is_running(), "the service waits for the scan");
    let began = Instant::now();
    service.signal("INT");
    service.wait();
    assert!(began.elapsed() < Duration::from_secs(3), "took {:?}", began.elapsed());
    client.check_closed();
}

#[test]
fn requests_that_were_accepted_before_the_signal_are_answered() {
    for _ in 0..10 {
        let mut service = Service::start(&[]);
        let mut clients: Vec<Client> = (0..20).map(|_| Client::connect(&service)).collect();
        clients.iter_mut().for_each(|client| client.send_request("GET", "/healthz", ""));
        service.signal("TERM");
        for client in &mut clients {
            client.receive("GET").check_status(200);
        }
        assert_eq!(service.wait(), Some(0));
    }
}

#[test]
fn requests_in_the_accept_queue_at_the_signal_are_answered() {
    let (_listeners, open) = listeners(1);
    let mut service = Service::start(&[]);
    // A stopped process looks like a busy one to its clients: the connections wait in the queue.
    service.signal("STOP");
    let query = format!("domain=127.0.0.1&ports={}", open[0]);
    let mut clients: Vec<Client> = (0..200).map(|_| service.begin_scan(&query, "")).collect();
    service.signal("TERM");
    service.signal("CONT");
    for client in &mut clients {
        let answer = client.receive("GET");
        // A scan that arrives during the shutdown may be refused, but its request must be answered.
        assert!([200, 429, 503].contains(&answer.status), "{}", answer.context);
    }
    assert_eq!(service.wait(), Some(0));
}

/// Parses the pairs of a logfmt line; panics if the line is not valid.
fn logfmt(line: &str) -> BTreeMap<String, String> {
    let (mut pairs, mut rest) = (BTreeMap::new(), line);
    while !rest.is_empty() {
        let (key, after) =
            rest.split_once('=').unwrap_or_else(|| panic!("a pair has no key: {line}"));
        let is_key = key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
        assert!(is_key && !key.is_empty(), "{key:?} is not a valid key: {line}");
        let mut value = String::new();
        if after.starts_with('"') {
            let mut texts = serde_json::Deserializer::from_str(after).into_iter::<String>();
            value = texts.next().unwrap().unwrap_or_else(|error| panic!("{error}: {line}"));
            rest = &after[texts.byte_offset()..];
        } else {
            let end = after.find(' ').unwrap_or(after.len());
            value.push_str(&after[..end]);
            rest = &after[end..];
            assert!(!value.is_empty() && !value.contains(['"', '=']), "{value:?}: {line}");
        }
        assert!(pairs.insert(key.to_owned(), value).is_none(), "{key} occurs twice: {line}");
        rest = if rest.is_empty() { rest } else { rest.strip_prefix(' ').unwrap() };
    }
    pairs
}

#[test]
fn every_request_has_one_log_record_with_the_numbers_of_its_scan() {
    let (_listeners, open) = listeners(2);
    let service = Service::start(&[]);
    service.scan(&format!("domain=127.0.0.1&ports={},{}", open[0], open[1]));
    service.get("/nowhere").check_status(404);
    service.get("/open-ports?domain=%22x%22%0a=y").check_status(400);
    service.get("/healthz").check_status(200);
    service.request("OPTIONS", "/metrics", "").check_status(200);
    service.get("/last").check_status(404);
    until("the last request is logged", || {
        let lines = service.log_lines();
        (lines.iter().filter(|line| line.contains("route=other")).count() == 2).then_some(())
    });
    let records: Vec<_> = service.log_lines().iter().map(|line| logfmt(line)).collect();
    for record in &records {
        assert!(["ts", "level", "msg"].iter().all(|key| record.contains_key(*key)), "{record:?}");
    }
    let requests: Vec<_> = records.iter().filter(|record| record["msg"] == "request").collect();
    let values = |key: &str| requests.iter().map(|it| it[key].as_str()).collect::<Vec<_>>();
    // Health checks and scrapes are logged at the debug level only.
    assert_eq!(values("route"), ["/open-ports", "other", "/open-ports", "other"]);
    assert_eq!(values("status"), ["200", "404", "400", "404"]);
    assert_eq!(values("client"), ["127.0.0.1"; 4]);
    assert!(values("elapsed_ms").iter().all(|elapsed| elapsed.parse::<f64>().is_ok()));
    for (key, value) in [
        ("domain", "127.0.0.1"),
        ("address", "127.0.0.1"),
        ("ports", "2"),
        ("open", "2"),
        ("closed", "0"),
        ("filtered", "0"),
        ("untested", "0"),
    ] {
        assert_eq!(requests[0][key], value, "`{key}` differs in {:?}", requests[0]);
    }
}

#[test]
fn log_records_in_json_are_valid_json() {
    let mut service = Service::start(&["--log-format", "json", "--log-level", "debug"]);
    service.scan("domain=127.0.0.1&toPort=10");
    service.get("/healthz").check_status(200);
    service.signal("TERM");
    assert_eq!(service.wait(), Some(0));
    service.log_line(&["drained"]);
    let lines = service.log_lines();
    let parsed = |line: &String| serde_json::from_str::<Value>(line).expect(line);
    let records: Vec<Value> = lines.iter().map(parsed).collect();
    let words: Vec<&str> = records.iter().filter_map(|record| record["msg"].as_str()).collect();
    let expected = ["listening", "limits", "try", "request", "request", "draining", "drained"];
    assert_eq!(words, expected, "{lines:#?}");
    assert_eq!((&records[3]["ports"], &records[3]["status"]), (&10.into(), &200.into()));
    assert_eq!((&records[4]["level"], &records[4]["route"]), (&"debug".into(), &"/healthz".into()));
}

#[test]
fn a_log_level_suppresses_lower_records() {
    let mut service = Service::start(&["--log-level", "info"]);
    service.get("/healthz").check_status(200);
    service.signal("TERM");
    service.wait();
    service.log_line(&["drained"]);
    assert!(service.log_lines().iter().all(|line| !line.contains("route=/healthz")));
}

#[test]
fn a_full_log_pipe_does_not_block_the_service() {
    let (mut service, unread) = Service::start_unread(&[]);
    let mut client = Client::connect(&service);
    let began = Instant::now();
    // These records need far more space than a pipe and the buffer of the service.
    for _ in 0..3000 {
        client.send_request("GET", "/nowhere", "");
        client.receive("GET").check_status(404);
    }
    assert!(began.elapsed() < EVENT_TIMEOUT, "took {:?}", began.elapsed());
    assert!(service.metric("openports_log_lines_dropped_total") > 0);
    service.signal("TERM");
    assert_eq!(service.wait(), Some(0));
    drop(unread);
}

#[test]
fn a_closed_log_pipe_does_not_end_the_service() {
    let (mut service, reader) = Service::start_unread(&[]);
    drop(reader);
    for _ in 0..10 {
        service.get("/nowhere").check_status(404);
    }
    assert!(service.metric("openports_log_lines_dropped_total") >= 10);
    service.signal("TERM");
    assert_eq!(service.wait(), Some(0));
}

#[test]
fn a_service_without_a_stderr_serves() {
    let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut service = Service::start_without_stderr(unused);
    // A file that now has the descriptor number of stderr must not receive the log.
    for _ in 0..10 {
        service.get("/nowhere").check_problem(404, "NOT_FOUND");
        service
            .scan(&format!("domain=127.0.0.1&ports={}", unused.port()))
            .check_open(&[unused.port()]);
    }
    service.signal("TERM");
    assert_eq!(service.wait(), Some(0));
}

/// Checks the Prometheus text format, version 0.0.4, and returns the samples.
fn samples(page: &str) -> BTreeMap<String, f64> {
    let (mut kinds, mut with_help) = (BTreeMap::new(), BTreeSet::new());
    let mut samples = BTreeMap::new();
    assert!(page.ends_with('\n'));
    for line in page.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, text) = help.split_once(' ').expect(line);
            assert!(with_help.insert(name.to_owned()) && !text.is_empty(), "{line}");
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').expect(line);
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert!(kinds.insert(name.to_owned(), kind.to_owned()).is_none(), "{line}");
        } else {
            let (sample, value) = line.rsplit_once(' ').expect(line);
            let name = sample.split('{').next().unwrap();
            let family = ["_bucket", "_sum", "_count"]
                .iter()
                .find_map(|suffix| name.strip_suffix(suffix))
                .filter(|family| kinds.get(*family).is_some_and(|kind| kind == "histogram"));
            let kind = kinds.get(family.unwrap_or(name)).expect(line);
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
            let value = value.parse().expect(line);
            assert!(
                samples.insert(sample.to_owned(), value).is_none(),
                "the sample occurs twice: {line}"
            );
        }
    }
    assert!(kinds.keys().all(|name| with_help.contains(name)), "every metric has a HELP line");
    samples
}

#[test]
fn the_metrics_are_well_formed_and_count() {
    let (_listeners, open) = listeners(1);
    let silent = SilentPort::new();
    let service = Service::start(&[]);
    let page = service.get("/metrics");
    let kind = Some("text/plain; version=0.0.4; charset=utf-8");
    page.check_status(200).check("the type", page.field("Content-Type"), kind);
    let before = samples(&page.body);
    let query = format!("domain=127.0.0.1&ports={},{}&timeout=100ms", open[0], silent.port);
    service.scan(&query);
    service.get("/nowhere").check_status(404);
    let after = samples(&service.get("/metrics").body);
    let value = |page: &BTreeMap<String, f64>, name: &str| page.get(name).copied().unwrap_or(0.0);
    for (name, step) in [
        ("openports_ports_total{state=\"open\"}", 1.0),
        ("openports_ports_total{state=\"filtered\"}", 1.0),
        ("openports_ports_total{state=\"closed\"}", 0.0),
        ("openports_scans_total{technique=\"connect\",result=\"complete\"}", 1.0),
        ("openports_requests_total{route=\"/open-ports\",status=\"200\"}", 1.0),
        ("openports_requests_total{route=\"other\",status=\"404\"}", 1.0),
        ("openports_requests_total{route=\"/metrics\",status=\"200\"}", 1.0),
        ("openports_connections_accepted_total", 3.0),
        ("openports_scans_running", 0.0),
    ] {
        assert_eq!(value(&after, name) - value(&before, name), step, "{name}");
    }
    // There is one connect for each port, and more pings of the open port while the other is
    // silent.
    assert!(value(&after, "openports_connects_total") >= 2.0);
    for (name, was) in &before {
        if name.contains("_total") || name.contains("_bucket") || name.contains("_count") {
            assert!(value(&after, name) >= *was, "{name} decreased");
        }
    }
    for (name, least) in [
        ("process_start_time_seconds", 1.6e9),
        ("process_resident_memory_bytes", 1e5),
        ("process_virtual_memory_bytes", value(&after, "process_resident_memory_bytes")),
        ("process_open_fds", 4.0),
        ("process_max_fds", value(&after, "process_open_fds")),
        ("openports_scan_duration_seconds_sum", 0.1),
        ("openports_request_duration_seconds_sum{route=\"/open-ports\"}", 0.1),
    ] {
        assert!(value(&after, name) >= least, "{name}");
    }
    assert!(value(&after, "openports_loop_turn_seconds_count") > 0.0);
}
