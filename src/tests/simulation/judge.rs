//! Compares the responses that the clients received with the simulated network.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use openports::event::RouteResult;
use openports::service_names::Names;
use serde_json::Value;

use crate::client::{Client, Expected, Form, Reads, ScanRequest};
use crate::network::{Host, Port};
use crate::reader::Response;

/// The facts about a run that decide which responses are permitted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Verdict<'a> {
    pub(crate) hosts: &'a BTreeMap<IpAddr, Host>,
    /// No fault of the run can hide an address of a name or the route to it.
    pub(crate) is_sure_of_names: bool,
    /// The service received a signal, so scans may be incomplete.
    pub(crate) was_signalled: bool,
    /// The number of connections reached its maximum, so slow readers may have been evicted.
    pub(crate) was_full: bool,
    /// The service received a second signal, so requests may be without a response.
    pub(crate) left_at_once: bool,
}

impl Verdict<'_> {
    /// Checks all responses that a client received until the end of its connection or of the run.
    pub(crate) fn judge(&self, client: &Client) {
        let is_slow = client.reads == Reads::Never
            || matches!(client.reads, Reads::Slowly { .. })
                && (self.was_signalled || self.was_full);
        assert!(
            client.has_due_responses() || self.left_at_once || is_slow,
            "{} requests were read, and {} have a response",
            client.requests_read(),
            client.responses.len()
        );
        let is_calm = !self.was_signalled && !self.was_full && !self.left_at_once;
        assert!(
            !is_calm || !client.is_patient() || client.has_all_responses(),
            "{} of {} requests have a response, although the client did not leave",
            client.responses.len(),
            client.requests.len()
        );
        let is_cut = client.read_len < client.received.len();
        assert!(
            !is_cut || client.is_gone || client.has_half_closed || self.left_at_once || is_slow,
            "a response is incomplete"
        );
        assert!(client.responses.len() <= client.requests.len(), "a response without a request");
        let requests_read = client.requests_read();
        for (index, (request, response)) in
            client.requests.iter().zip(&client.responses).enumerate()
        {
            // An incomplete request gets 400 or 408, whatever its expected response is.
            if index >= requests_read && matches!(response.status, 400 | 408) {
                continue;
            }
            let text = String::from_utf8_lossy(&request.bytes);
            match &request.expected {
                Expected::Status(statuses) => {
                    assert!(statuses.contains(&response.status), "{} of {text:?}", response.status);
                }
                Expected::Scan(scan, _) if response.status == 200 => {
                    self.judge_scan(scan, response)
                }
                Expected::Scan(_, others) => {
                    let is_shutdown = self.was_signalled && response.status == 503;
                    let body = String::from_utf8_lossy(&response.body);
                    assert!(others.contains(&response.status) || is_shutdown, "{text:?}: {body}");
                }
            }
            judge_problem(response);
        }
    }

    fn judge_scan(&self, scan: &ScanRequest, response: &Response) {
        if let Some(expected) = &scan.expected_ports {
            return self.judge_probe(scan, expected, response);
        }
        assert!(!scan.addresses.is_empty(), "{} has no address, but was scanned", scan.domain);
        assert_eq!(response.fields["content-type"], scan.form.content_type());
        let body = std::str::from_utf8(&response.body).expect("a response is UTF-8");
        match scan.form {
            Form::Json => self.judge_summary(scan, &json(body)),
            Form::Text => {
                let open = body.lines().map(|line| line.parse().expect("a port")).collect();
                match (self.is_complete(scan, response), scan.is_for_all) {
                    (true, true) => self.judge_open(scan, &open, &scan.addresses),
                    (true, false) => self.judge_open_of_one(scan, &open),
                    (false, _) => self.judge_incomplete(scan, &open, &scan.addresses),
                }
            }
            Form::Csv => self.judge_csv(scan, response, body),
            Form::Ndjson => self.judge_events(scan, body.lines().map(json).collect()),
            Form::EventStream => self.judge_events(scan, server_sent(body)),
        }
    }

    /// Checks the records of each address.
    fn judge_csv(&self, scan: &ScanRequest, response: &Response, body: &str) {
        let mut lines = body.lines();
        assert_eq!(lines.next(), Some("address,port,state,service,rtt_ms"));
        let addresses = scan.addresses.iter().filter(|_| scan.is_for_all);
        let mut states: BTreeMap<IpAddr, BTreeMap<u16, &str>> =
            addresses.map(|address| (*address, BTreeMap::new())).collect();
        for line in lines {
            let &[address, port, state, _, _] = &line.split(',').collect::<Vec<&str>>()[..] else {
                panic!("{line:?} does not have five columns");
            };
            let of_address = states.entry(address.parse().expect("an address")).or_default();
            let is_new = of_address.insert(port.parse().expect("a port"), state).is_none();
            assert!(is_new, "the second record of a port: {line}");
        }
        let is_complete = self.is_complete(scan, response);
        assert!(scan.is_for_all || states.len() <= 1, "more than one address: {body}");
        if states.is_empty() && is_complete {
            assert!(!scan.includes_all, "no port has a record");
            self.judge_open_of_one(scan, &BTreeSet::new());
        }
        for (address, states) in states {
            assert!(scan.addresses.contains(&address), "{} does not have {address}", scan.domain);
            let open = states.iter().filter(|(_, state)| **state == "open");
            let open = open.map(|(port, _)| *port).collect();
            if is_complete {
                self.judge_open(scan, &open, &[address]);
                let has_every_port = states.keys().eq(&scan.ports);
                assert_eq!(has_every_port, scan.includes_all || open == scan.ports, "{body}");
            } else {
                self.judge_incomplete(scan, &open, &[address]);
            }
        }
    }

    /// Returns whether the head of a response without a summary says that the scan is complete.
    fn is_complete(&self, scan: &ScanRequest, response: &Response) -> bool {
        let is_complete: bool = response.fields["openports-complete"].parse().expect("a boolean");
        assert!(is_complete || scan.has_deadline || self.was_signalled, "incomplete: {scan:?}");
        is_complete
    }

    /// Checks that the metrics of the `/probe` route have the right open ports and `probe_success`.
    fn judge_probe(&self, scan: &ScanRequest, expected: &BTreeSet<u16>, response: &Response) {
        assert!(response.fields["content-type"].starts_with("text/plain; version=0.0.4"));
        let page = String::from_utf8_lossy(&response.body);
        let value = |name: &str| {
            let reported = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            reported.map(|value| value.parse::<f64>().expect("a number"))
        };
        let is_success = value("probe_success").expect("every page has it") == 1.0;
        let Some(is_complete) = value("probe_complete").map(|value| value == 1.0) else {
            let is_sure = !scan.addresses.is_empty() && self.is_sure_of_names;
            assert!(!is_success && !is_sure, "{} has an address: {page}", scan.domain);
            return;
        };
        assert!(is_complete || scan.has_deadline || self.was_signalled, "incomplete: {page}");
        let mut reported: BTreeMap<u16, bool> = BTreeMap::new();
        for line in page.lines().filter_map(|line| line.strip_prefix("probe_port_open{port=\"")) {
            let (port, value) = line.split_once("\"} ").expect("a label and a value");
            assert!(reported.insert(port.parse().expect("a port"), value == "1").is_none());
        }
        let open =
            reported.iter().filter(|(_, is_open)| **is_open).map(|(port, _)| *port).collect();
        if is_complete {
            self.judge_open_of_one(scan, &open);
        }
        let missing = expected.difference(&open).count();
        let unexpected = if expected.is_empty() { 0 } else { open.difference(expected).count() };
        assert_eq!(value("probe_missing_ports"), Some(missing as f64), "{page}");
        assert_eq!(value("probe_unexpected_ports"), Some(unexpected as f64), "{page}");
        let is_as_expected = match expected.is_empty() {
            true => !open.is_empty(),
            false => missing == 0 && unexpected == 0,
        };
        assert_eq!(is_success, is_complete && is_as_expected, "{page}");
        assert_eq!(is_success, !page.contains("\nprobe_failure_info{reason="), "{page}");
        let counted = |state: &str| value(&format!("probe_ports{{state=\"{state}\"}}"));
        let states = ["open", "closed", "filtered", "unreachable", "untested"];
        let total: f64 = states.iter().filter_map(|state| counted(state)).sum();
        assert_eq!(total, scan.ports.len() as f64, "the counts add up: {page}");
        assert_eq!(counted("open"), Some(open.len() as f64), "{page}");
    }

    /// Checks the order and number of a stream's events.
    fn judge_events(&self, scan: &ScanRequest, events: Vec<Value>) {
        let kinds: Vec<&str> = events.iter().map(|it| it["event"].as_str().unwrap()).collect();
        assert_eq!(kinds.first(), Some(&"start"), "{kinds:?}");
        assert_eq!(kinds.last(), Some(&"end"), "{kinds:?}");
        let many = ["start", "end"].map(|kind| kinds.iter().filter(|it| **it == kind).count());
        assert_eq!(many, [1, 1], "{kinds:?}");
        let end = &events[events.len() - 1];
        assert_eq!(ranges_of(&events[0], "ports").as_ref(), Some(&scan.ports));
        let (mut reported, mut progress_len) = (Reported::default(), 0);
        for event in &events[1..events.len() - 1] {
            match event["event"].as_str() {
                Some("open") => {}
                Some("progress") => {
                    progress_len += 1;
                    assert!(event["done"].as_u64() <= event["total"].as_u64(), "{event}");
                    assert_eq!(event["total"], events[0]["total"]);
                }
                other => panic!("unknown event {other:?}"),
            }
            reported.add(scan, event);
        }
        let elapsed = end["elapsed_ms"].as_u64().unwrap();
        let most = if scan.is_for_all { scan.addresses.len() as u64 } else { 1 };
        let progress_max = (elapsed / 200 + 1) * most;
        assert!(progress_len <= progress_max, "{progress_len} progress events in {elapsed} ms");
        reported.judge(end);
        self.judge_summary(scan, end);
    }

    fn judge_summary(&self, scan: &ScanRequest, summary: &Value) {
        let named = scan.named();
        let (first, last) = (named.first().copied(), named.last().copied());
        self.judge_services(scan, summary);
        assert_eq!(summary["domain"], scan.domain.as_str());
        assert_eq!(summary["from_port"].as_u64(), first.map(u64::from));
        assert_eq!(summary["to_port"].as_u64(), last.map(u64::from));
        let address: IpAddr = summary["address"].as_str().unwrap().parse().unwrap();
        self.judge_address(scan, address);
        let scanned = match summary["results"].as_array() {
            Some(results) => {
                let of = |it: &Value| it["address"].as_str().unwrap().parse().unwrap();
                let mut scanned: Vec<IpAddr> = results.iter().map(of).collect();
                scanned.sort_unstable();
                let mut expected = scan.addresses.clone();
                expected.sort_unstable();
                assert_eq!(scanned, expected, "the response must have every address");
                scanned
            }
            None => vec![address],
        };
        let counts = &summary["counts"];
        let total: u64 = ["open", "closed", "filtered", "unreachable", "untested"]
            .iter()
            .map(|state| counts[state].as_u64().unwrap())
            .sum();
        assert_eq!(total, (scan.ports.len() * scanned.len()) as u64, "the counts add up");
        let open = ports_of(summary);
        let is_complete = summary["complete"].as_bool().unwrap();
        if is_complete {
            assert_eq!(counts["untested"], 0);
            self.judge_open(scan, &open, &scanned);
            self.judge_counts(scan, counts, &scanned);
        } else {
            assert!(scan.has_deadline || self.was_signalled, "incomplete: {summary}");
            self.judge_incomplete(scan, &open, &scanned);
        }
        let retried = summary["retried"].as_u64().unwrap();
        let untried = counts["untested"].as_u64().unwrap();
        assert!(retried == 0 || !scan.has_one_pass, "a second pass: {scan:?} {summary}");
        assert!(retried <= 40 * (total - untried), "more than 40 retries per port: {summary}");
        let elapsed = Duration::from_millis(summary["elapsed_ms"].as_u64().unwrap());
        if let Some(most) = scan.elapsed_max {
            assert!(elapsed <= most, "the scan took {elapsed:?} instead of at most {most:?}");
        }
    }

    /// Checks that the response has the service names of open ports if the request includes them.
    fn judge_services(&self, scan: &ScanRequest, summary: &Value) {
        let names = Names::default();
        let named = ports_of(summary).into_iter().filter(|port| !names.of(*port).is_empty());
        let expected: serde_json::Map<String, Value> =
            named.map(|port| (port.to_string(), names.of(port).into())).collect();
        let reported = summary.get("services").map(|it| it.as_object().expect("an object"));
        assert_eq!(reported, scan.includes_services.then_some(&expected), "{summary}");
    }

    /// Checks that the address belongs to the name, and has a route unless no address has one.
    fn judge_address(&self, scan: &ScanRequest, address: IpAddr) {
        assert!(scan.addresses.contains(&address), "{} does not have {address}", scan.domain);
        let is_routed = |address: &IpAddr| self.hosts[address].route != RouteResult::Nowhere;
        let has_better = scan.addresses.iter().any(is_routed);
        assert!(
            is_routed(&address) || !has_better || !self.is_sure_of_names,
            "{address} has no route"
        );
    }

    /// Checks that these ports are the open ones; some may be missing if the network loses packets.
    fn judge_open(&self, scan: &ScanRequest, open: &BTreeSet<u16>, scanned: &[IpAddr]) {
        let truth = self.truth(scan, scanned);
        assert!(self.may_be_open(scan, open, scanned), "found {open:?} of {truth:?}");
    }

    /// The same where the response does not say which address of the name was scanned.
    fn judge_open_of_one(&self, scan: &ScanRequest, open: &BTreeSet<u16>) {
        let may_be = scan.addresses.iter().any(|it| self.may_be_open(scan, open, &[*it]));
        assert!(may_be, "{open:?} are not the open ports of an address of {}", scan.domain);
    }

    fn may_be_open(&self, scan: &ScanRequest, open: &BTreeSet<u16>, scanned: &[IpAddr]) -> bool {
        let truth = self.truth(scan, scanned);
        let is_lossy = scanned.iter().any(|address| self.hosts[address].is_lossy());
        open.is_subset(&truth) && (is_lossy || *open == truth)
    }

    /// Checks that all these ports are open.
    fn judge_incomplete(&self, scan: &ScanRequest, open: &BTreeSet<u16>, scanned: &[IpAddr]) {
        let truth = self.truth(scan, scanned);
        assert!(open.is_subset(&truth), "{open:?} of {truth:?} is not open");
    }

    fn judge_counts(&self, scan: &ScanRequest, counts: &Value, scanned: &[IpAddr]) {
        let hosts = scanned.iter().map(|address| &self.hosts[address]);
        if hosts.clone().any(|host| host.is_lossy() || host.resets_per_second.is_some()) {
            return;
        }
        let mut expected: BTreeMap<&str, u64> = BTreeMap::new();
        for host in hosts {
            for port in &scan.ports {
                let state = match host.port(*port) {
                    Port::Open => "open",
                    Port::Closed | Port::SelfConnect => "closed",
                    Port::Silent => "filtered",
                    Port::Unreachable => "unreachable",
                };
                *expected.entry(state).or_default() += 1;
            }
        }
        for state in ["open", "closed", "filtered", "unreachable"] {
            let expected = expected.get(state).copied().unwrap_or(0);
            assert_eq!(counts[state], expected, "{state} ports of {} in {counts}", scan.domain);
        }
    }

    fn truth(&self, scan: &ScanRequest, scanned: &[IpAddr]) -> BTreeSet<u16> {
        let is_open =
            |port: &&u16| scanned.iter().any(|it| self.hosts[it].port(**port) == Port::Open);
        scan.ports.iter().filter(is_open).copied().collect()
    }
}

/// The last state of each port that a stream reported, with the address of the event.
#[derive(Default)]
struct Reported(BTreeMap<(String, u16), &'static str>);

/// The maximum number of bytes of ranges in one event: the core's bound, and one range.
const RANGES_BYTES_MAX: usize = openports::limits::STREAM_BYTES_MAX + "65535-65535".len();

impl Reported {
    /// Adds an event. A port has at most one state, except that a filtered port may change.
    fn add(&mut self, scan: &ScanRequest, event: &Value) {
        let address = event["address"].as_str().unwrap_or_default();
        let mut bytes = 0;
        for state in ["closed", "filtered", "unreachable"] {
            let key = format!("{state}_ports");
            let Some(ports) = ranges_of(event, &key) else { continue };
            assert!(scan.includes_all && event["event"] == "progress", "not requested: {event}");
            assert!(!ports.is_empty() && ports.is_subset(&scan.ports), "{key} of {event}");
            assert_eq!(address.is_empty(), !scan.is_for_all, "{event}");
            bytes += event[&key].as_str().map_or(0, str::len);
            ports.into_iter().for_each(|port| self.record(address, port, state));
        }
        assert!(bytes <= RANGES_BYTES_MAX, "{bytes} bytes of ranges in one event");
        if event["event"] == "open" {
            assert_eq!(address.is_empty(), !scan.is_for_all, "{event}");
            let port = event["port"].as_u64().and_then(|port| port.try_into().ok());
            self.record(address, port.expect("a port"), "open");
        }
    }

    fn record(&mut self, address: &str, port: u16, state: &'static str) {
        let was = self.0.insert((address.to_owned(), port), state);
        let may_be = was.is_none_or(|was| was == "filtered" && state != "filtered");
        assert!(may_be, "{port} of {address:?} was {was:?}, then {state}");
    }

    /// Checks that the end event has the same states, except for filtered ports that changed, and
    /// that each open port was reported before.
    fn judge(&self, end: &Value) {
        let of_end = |state: &str| match state {
            "open" => Some(ports_of(end)),
            state => ranges_of(end, &format!("{state}_ports")),
        };
        let states = ["open", "closed", "filtered", "unreachable"];
        let in_end = states.map(|state| (state, of_end(state).unwrap_or_default()));
        for ((address, port), reported) in &self.0 {
            let may_be = |state: &str| state == *reported || *reported == "filtered";
            let is_so = in_end.iter().any(|(it, ports)| may_be(it) && ports.contains(port));
            assert!(is_so, "{port} of {address:?} was reported as {reported}: {end}");
        }
        let results = match end["results"].as_array() {
            Some(results) => results.clone(),
            None => vec![end.clone()],
        };
        let mut open = BTreeSet::new();
        for result in results {
            let address = end.get("results").and_then(|_| result["address"].as_str());
            let address = address.unwrap_or_default().to_owned();
            open.extend(ports_of(&result).into_iter().map(|port| (address.clone(), port)));
        }
        let reported =
            self.0.iter().filter(|(_, state)| **state == "open").map(|(at, _)| at.clone());
        assert_eq!(
            reported.collect::<BTreeSet<_>>(),
            open,
            "the open events and the end event differ"
        );
    }
}

/// Parses a text of port ranges; `None` if the event has no such key.
pub(crate) fn ranges_of(event: &Value, key: &str) -> Option<BTreeSet<u16>> {
    let text = event.get(key)?.as_str().expect("ranges are text");
    let number = |digits: &str| digits.parse::<u16>().expect("a port");
    let ranges = text.split(',').filter(|range| !range.is_empty());
    let ports = ranges.flat_map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        number(first)..=number(last)
    });
    Some(ports.collect())
}

impl Form {
    const fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; charset=utf-8",
            Self::Csv => "text/csv; charset=utf-8",
            Self::Json | Self::Ndjson | Self::EventStream => self.media_type(),
        }
    }
}

/// Checks that the body of an error follows RFC 9457.
fn judge_problem(response: &Response) {
    if response.status < 400 || response.body.is_empty() {
        return;
    }
    assert_eq!(response.fields["content-type"], "application/problem+json");
    let problem = json(std::str::from_utf8(&response.body).expect("a problem is text"));
    assert_eq!(problem["status"], response.status);
    assert!(problem["cause"].is_string() && problem["detail"].is_string(), "{problem}");
    let is_busy = matches!(response.status, 429 | 503);
    assert_eq!(response.fields.contains_key("retry-after"), is_busy, "{problem}");
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text:?}"))
}

fn server_sent(body: &str) -> Vec<Value> {
    let events = body.strip_suffix("\n\n").expect("a blank line ends each event").split("\n\n");
    let parse = |event: &str| {
        let lines: Vec<&str> = event.lines().collect();
        let &[id, name, data] = &lines[..] else { panic!("{event:?}") };
        let data = json(data.strip_prefix("data: ").expect("data"));
        assert_eq!(name.strip_prefix("event: "), data["event"].as_str());
        assert_eq!(id.strip_prefix("id: "), data["event"].as_str());
        data
    };
    events.map(parse).collect()
}

fn ports_of(summary: &Value) -> BTreeSet<u16> {
    let listed: Vec<u16> = serde_json::from_value(summary["open_ports"].clone()).expect("ports");
    let open: BTreeSet<u16> = listed.iter().copied().collect();
    assert!(listed.iter().eq(&open), "not ascending, or a duplicate: {listed:?}");
    open
}
