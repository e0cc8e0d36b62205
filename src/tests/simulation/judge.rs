//! Whether what a client was told is true.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use openports::event::RouteResult;
use openports::service_names::Names;
use serde_json::Value;

use crate::client::{Client, Form, Reads, ScanAsk, Wanted};
use crate::network::{Host, Port};
use crate::reader::Answer;

/// What holds for a whole run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Verdict<'a> {
    pub(crate) hosts: &'a BTreeMap<IpAddr, Host>,
    /// Every address of a name is found, and the route to it: nothing stands for anything else.
    pub(crate) is_sure_of_names: bool,
    /// A termination signal came: scans may be answered as they stand.
    pub(crate) was_signalled: bool,
    /// Connections were at their cap: slow readers may have given way.
    pub(crate) was_full: bool,
    /// The service was told to leave at once, or gave up on slow readers: some are not answered.
    pub(crate) left_at_once: bool,
}

impl Verdict<'_> {
    /// Judges everything that a client was told, at the end of its connection or of the run.
    pub(crate) fn judge(&self, client: &Client) {
        let is_slow = client.reads == Reads::Never
            || matches!(client.reads, Reads::Slowly { .. })
                && (self.was_signalled || self.was_full);
        assert!(
            client.is_content() || self.left_at_once || is_slow,
            "{} requests were heard, {} answered",
            client.heard(),
            client.answers.len()
        );
        let is_calm = !self.was_signalled && !self.was_full && !self.left_at_once;
        assert!(
            !is_calm || !client.is_patient() || client.has_all_answers(),
            "{} of {} requests were answered, and the client waited",
            client.answers.len(),
            client.asks.len()
        );
        let is_cut = client.read_len < client.received.len();
        assert!(
            !is_cut || client.is_gone || client.has_half_closed || self.left_at_once || is_slow,
            "an answer ends in its midst"
        );
        assert!(client.answers.len() <= client.asks.len(), "an answer that nobody asked for");
        let heard = client.heard();
        for (index, (ask, answer)) in client.asks.iter().zip(&client.answers).enumerate() {
            // What never came to its end is told so, whatever it would have been.
            if index >= heard && matches!(answer.status, 400 | 408) {
                continue;
            }
            let asked = String::from_utf8_lossy(&ask.bytes);
            match &ask.wanted {
                Wanted::Status(statuses) => {
                    assert!(statuses.contains(&answer.status), "{} of {asked:?}", answer.status);
                }
                Wanted::Scan(scan, _) if answer.status == 200 => self.judge_scan(scan, answer),
                Wanted::Scan(_, others) => {
                    let drained = self.was_signalled && answer.status == 503;
                    let body = String::from_utf8_lossy(&answer.body);
                    assert!(others.contains(&answer.status) || drained, "{asked:?}: {body}");
                }
            }
            judge_problem(answer);
        }
    }

    fn judge_scan(&self, scan: &ScanAsk, answer: &Answer) {
        if let Some(expected) = &scan.expected {
            return self.judge_probe(scan, expected, answer);
        }
        assert!(!scan.addresses.is_empty(), "{} has no address, and was scanned", scan.domain);
        assert_eq!(answer.fields["content-type"], scan.form.media_type_said());
        let body = std::str::from_utf8(&answer.body).expect("an answer is text");
        match scan.form {
            Form::Json => self.judge_summary(scan, &json(body)),
            Form::Text => {
                let open = body.lines().map(|line| line.parse().expect("a port")).collect();
                self.judge_open(scan, &open, &scan.addresses);
            }
            Form::Csv => {
                let mut lines = body.lines();
                assert_eq!(lines.next(), Some("address,port,state,service,rtt_ms"));
                let records = lines.map(|line| line.split(',').collect::<Vec<&str>>());
                let (mut open, mut scanned) = (BTreeSet::new(), BTreeSet::new());
                for record in records {
                    let &[address, port, state, _, _] = &record[..] else {
                        panic!("{record:?} has five columns");
                    };
                    scanned.insert(address.parse::<IpAddr>().expect("an address"));
                    if state == "open" {
                        open.insert(port.parse().expect("a port"));
                    }
                }
                assert!(scanned.iter().all(|address| scan.addresses.contains(address)));
                self.judge_open(scan, &open, &scan.addresses);
            }
            Form::Ndjson => self.judge_events(scan, body.lines().map(json).collect()),
            Form::EventStream => self.judge_events(scan, server_sent(body)),
        }
    }

    /// A probe's metrics: the open ports are truly open, and success is what it should be.
    fn judge_probe(&self, scan: &ScanAsk, expected: &BTreeSet<u16>, answer: &Answer) {
        assert!(answer.fields["content-type"].starts_with("text/plain; version=0.0.4"));
        let page = String::from_utf8_lossy(&answer.body);
        let value = |name: &str| {
            let told = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            told.map(|value| value.parse::<f64>().expect("a number"))
        };
        let is_success = value("probe_success").expect("it always says so") == 1.0;
        let Some(is_complete) = value("probe_complete").map(|value| value == 1.0) else {
            let is_sure = !scan.addresses.is_empty() && self.is_sure_of_names;
            assert!(!is_success && !is_sure, "{} has an address: {page}", scan.domain);
            return;
        };
        assert!(is_complete || scan.has_deadline || self.was_signalled, "cut short: {page}");
        let mut told: BTreeMap<u16, bool> = BTreeMap::new();
        for line in page.lines().filter_map(|line| line.strip_prefix("probe_port_open{port=\"")) {
            let (port, value) = line.split_once("\"} ").expect("a label and a value");
            assert!(told.insert(port.parse().expect("a port"), value == "1").is_none());
        }
        let open = told.iter().filter(|(_, is_open)| **is_open).map(|(port, _)| *port).collect();
        if is_complete {
            self.judge_open(scan, &open, &scan.addresses);
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

    /// A stream's events: start, opens once each, progress now and then, end.
    fn judge_events(&self, scan: &ScanAsk, events: Vec<Value>) {
        let kinds: Vec<&str> = events.iter().map(|it| it["event"].as_str().unwrap()).collect();
        assert_eq!(kinds.first(), Some(&"start"), "{kinds:?}");
        assert_eq!(kinds.last(), Some(&"end"), "{kinds:?}");
        let many = ["start", "end"].map(|kind| kinds.iter().filter(|it| **it == kind).count());
        assert_eq!(many, [1, 1], "{kinds:?}");
        let end = &events[events.len() - 1];
        assert_eq!(ranges_of(&events[0], "ports").as_ref(), Some(&scan.ports));
        let (mut told, mut progress_len) = (Told::default(), 0);
        for event in &events[1..events.len() - 1] {
            match event["event"].as_str() {
                Some("open") => {}
                Some("progress") => {
                    progress_len += 1;
                    assert!(event["done"].as_u64() <= event["total"].as_u64(), "{event}");
                    assert_eq!(event["total"], events[0]["total"]);
                }
                other => panic!("an event {other:?}"),
            }
            told.take_in(scan, event);
        }
        let elapsed = end["elapsed_ms"].as_u64().unwrap();
        let most = if scan.is_for_all { scan.addresses.len() as u64 } else { 1 };
        let tellings_max = (elapsed / 200 + 1) * most;
        assert!(progress_len <= tellings_max, "{progress_len} tellings in {elapsed} ms");
        told.judge(end);
        self.judge_summary(scan, end);
    }

    fn judge_summary(&self, scan: &ScanAsk, summary: &Value) {
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
                assert_eq!(scanned, expected, "every address of the name");
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
            assert!(scan.has_deadline || self.was_signalled, "cut short: {summary}");
            let truth = self.truth(scan, &scanned);
            assert!(open.is_subset(&truth), "{open:?} of {truth:?} is not open");
        }
        let retried = summary["retried"].as_u64().unwrap();
        let untried = counts["untested"].as_u64().unwrap();
        assert!(retried == 0 || !scan.has_one_pass, "a second pass: {scan:?} {summary}");
        assert!(retried <= 40 * (total - untried), "no pass has every port forty times: {summary}");
        let elapsed = Duration::from_millis(summary["elapsed_ms"].as_u64().unwrap());
        if let Some(most) = scan.elapsed_max {
            assert!(elapsed <= most, "it took {elapsed:?}, and should {most:?} at most");
        }
    }

    /// The open ports that have a usual service, by its name, where that was asked for.
    fn judge_services(&self, scan: &ScanAsk, summary: &Value) {
        let names = Names::default();
        let named = ports_of(summary).into_iter().filter(|port| !names.of(*port).is_empty());
        let expected: serde_json::Map<String, Value> =
            named.map(|port| (port.to_string(), names.of(port).into())).collect();
        let told = summary.get("services").map(|it| it.as_object().expect("an object"));
        assert_eq!(told, scan.includes_services.then_some(&expected), "{summary}");
    }

    /// The address is the name's, and no other has a route where this one has none.
    fn judge_address(&self, scan: &ScanAsk, address: IpAddr) {
        assert!(scan.addresses.contains(&address), "{address} is not {}", scan.domain);
        let is_routed = |address: &IpAddr| self.hosts[address].route != RouteResult::Nowhere;
        let has_better = scan.addresses.iter().any(is_routed);
        assert!(
            is_routed(&address) || !has_better || !self.is_sure_of_names,
            "{address} has no route"
        );
    }

    /// The open ports are the truly open ones, unless the network loses packets.
    fn judge_open(&self, scan: &ScanAsk, open: &BTreeSet<u16>, scanned: &[IpAddr]) {
        let truth = self.truth(scan, scanned);
        assert!(open.is_subset(&truth), "{open:?} of {truth:?} is not open");
        let is_lossy = scanned.iter().any(|address| self.hosts[address].is_lossy());
        // A text does not say which address was scanned, nor whether it was cut short.
        let is_bare = matches!(scan.form, Form::Text | Form::Csv);
        let is_vague = (is_bare || scan.expected.is_some())
            && (scanned.len() > 1 || scan.has_deadline || self.was_signalled);
        assert!(is_lossy || is_vague || *open == truth, "found {open:?} of {truth:?}");
    }

    fn judge_counts(&self, scan: &ScanAsk, counts: &Value, scanned: &[IpAddr]) {
        let hosts = scanned.iter().map(|address| &self.hosts[address]);
        if hosts.clone().any(|host| host.is_lossy() || host.resets_per_second.is_some()) {
            return;
        }
        let mut expected: BTreeMap<&str, u64> = BTreeMap::new();
        for host in hosts {
            for port in &scan.ports {
                let state = match host.port(*port) {
                    Port::Open => "open",
                    Port::Closed | Port::Mirror => "closed",
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

    fn truth(&self, scan: &ScanAsk, scanned: &[IpAddr]) -> BTreeSet<u16> {
        let is_open =
            |port: &&u16| scanned.iter().any(|it| self.hosts[it].port(**port) == Port::Open);
        scan.ports.iter().filter(is_open).copied().collect()
    }
}

/// The last word on each port, by the address that was told with it.
#[derive(Default)]
struct Told(BTreeMap<(String, u16), &'static str>);

/// Bytes of ranges in one event at most: the core's bound, and one range.
const RANGES_BYTES_MAX: usize = openports::limits::STREAM_BYTES_MAX + "65535-65535".len();

impl Told {
    /// A port is told once in each state, and none but a filtered one has another later.
    fn take_in(&mut self, scan: &ScanAsk, event: &Value) {
        let address = event["address"].as_str().unwrap_or_default();
        let mut bytes = 0;
        for state in ["closed", "filtered", "unreachable"] {
            let key = format!("{state}_ports");
            let Some(ports) = ranges_of(event, &key) else { continue };
            assert!(scan.includes_all && event["event"] == "progress", "nobody asked: {event}");
            assert!(!ports.is_empty() && ports.is_subset(&scan.ports), "{key} of {event}");
            assert_eq!(address.is_empty(), !scan.is_for_all, "{event}");
            bytes += event[&key].as_str().map_or(0, str::len);
            ports.into_iter().for_each(|port| self.tell(address, port, state));
        }
        assert!(bytes <= RANGES_BYTES_MAX, "{bytes} bytes of ranges in one event");
        if event["event"] == "open" {
            assert_eq!(address.is_empty(), !scan.is_for_all, "{event}");
            let port = event["port"].as_u64().and_then(|port| port.try_into().ok());
            self.tell(address, port.expect("a port"), "open");
        }
    }

    fn tell(&mut self, address: &str, port: u16, state: &'static str) {
        let was = self.0.insert((address.to_owned(), port), state);
        let may_be = was.is_none_or(|was| was == "filtered" && state != "filtered");
        assert!(may_be, "{port} of {address:?} was {was:?}, and is now {state}");
    }

    /// The end says the same, unless a silent port came to something since; each open port was
    /// told.
    fn judge(&self, end: &Value) {
        let of_end = |state: &str| match state {
            "open" => Some(ports_of(end)),
            state => ranges_of(end, &format!("{state}_ports")),
        };
        let states = ["open", "closed", "filtered", "unreachable"];
        let in_end = states.map(|state| (state, of_end(state).unwrap_or_default()));
        for ((address, port), told) in &self.0 {
            let may_be = |state: &str| state == *told || *told == "filtered";
            let is_so = in_end.iter().any(|(it, ports)| may_be(it) && ports.contains(port));
            assert!(is_so, "{port} of {address:?} was told as {told}: {end}");
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
        let told = self.0.iter().filter(|(_, state)| **state == "open").map(|(at, _)| at.clone());
        assert_eq!(told.collect::<BTreeSet<_>>(), open, "each open port is told, and in the end");
    }
}

/// The ports that a text of ranges names; `None` where there is no such text.
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
    const fn media_type_said(self) -> &'static str {
        match self {
            Self::Text => "text/plain; charset=utf-8",
            Self::Csv => "text/csv; charset=utf-8",
            Self::Json | Self::Ndjson | Self::EventStream => self.media_type(),
        }
    }
}

/// An error says what it is in the shape of RFC 9457.
fn judge_problem(answer: &Answer) {
    if answer.status < 400 || answer.body.is_empty() {
        return;
    }
    assert_eq!(answer.fields["content-type"], "application/problem+json");
    let problem = json(std::str::from_utf8(&answer.body).expect("a problem is text"));
    assert_eq!(problem["status"], answer.status);
    assert!(problem["cause"].is_string() && problem["detail"].is_string(), "{problem}");
    let is_busy = matches!(answer.status, 429 | 503);
    assert_eq!(answer.fields.contains_key("retry-after"), is_busy, "{problem}");
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
    assert!(listed.iter().eq(&open), "ascending, none twice: {listed:?}");
    open
}
