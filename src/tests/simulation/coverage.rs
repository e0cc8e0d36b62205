//! Counts the situations that the seeds reach, so that the simulation cannot lose one unnoticed.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::client::{Expected, Form};
use crate::reader::Response;
use crate::run::Simulation;

/// The number of runs that reached each situation.
#[derive(Debug, Default)]
pub(crate) struct Coverage(BTreeMap<String, usize>);

/// Situations that at least `RUNS_MIN` runs must reach. A number is the status of a response, and
/// a name in capitals the cause of a problem.
const SITUATIONS: &[&str] = &[
    "200",
    "304",
    "400",
    "401",
    "403",
    "404",
    "405",
    "406",
    "408",
    "413",
    "414",
    "417",
    "421",
    "422",
    "429",
    "431",
    "502",
    "503",
    "504",
    "INVALID_REQUEST",
    "UNAUTHORIZED",
    "TARGET_DENIED",
    "UNKNOWN_HOST",
    "TOO_MANY_SCANS",
    "DNS_FAILURE",
    "DNS_TIMEOUT",
    "OVERLOADED",
    "DRAINING",
    "json",
    "text",
    "csv",
    "csv with the open ports of several addresses",
    "ndjson",
    "server-sent events",
    "probe as expected",
    "probe not as expected",
    "probe of a name without an address",
    "incomplete scan",
    "retried ports",
    "loss suspected",
    "every address",
    "IPv6 address",
    "ports by state",
    "services",
    "ports excluded",
    "progress with ranges",
    "request with the token",
    "request through a proxy",
    "a denied address beside others",
    "HTTP/1.0",
    "chunked body",
    "pipelined",
    "request in pieces",
    "slow reader",
    "client that never reads",
    "client that leaves early",
    "half-closed",
    "resource shortage",
    "shortage in accept",
    "DNS over TCP",
    "a name from the hosts file",
    "shutdown",
    "a second signal",
    "connection refused",
    "a call was interrupted",
    "ENOMEM in register",
    "socket reuse refused",
    "a stale event",
    "a SYN was answered",
    "a SYN was rejected by ICMP",
    "a foreign response to a SYN",
    "a full send buffer",
    "a full receive buffer",
    "stderr was full",
];
const RUNS_MIN: usize = 2;

impl Coverage {
    pub(crate) fn add(&mut self, world: &Simulation) {
        let mut found = Found::default();
        found.of_world(world);
        for client in &world.clients {
            for (request, response) in client.requests.iter().zip(&client.responses) {
                found.of_response(response);
                let text = String::from_utf8_lossy(&request.bytes);
                found.note_if(text.contains(" HTTP/1.0\r\n"), "HTTP/1.0");
                let is_chunked = text.contains("Transfer-Encoding: chunked");
                found.note_if(is_chunked && response.status == 200, "chunked body");
                if let Expected::Scan(scan, _) = &request.expected {
                    let is_scanned = response.status == 200;
                    found.note_if(is_scanned && scan.has_token(), "request with the token");
                    found.note_if(is_scanned && scan.has_proxy(), "request through a proxy");
                    found.note_if(is_scanned && !scan.excluded.is_empty(), "ports excluded");
                    found.note_if(is_scanned && scan.domain == "here.test", HOSTS_FILE);
                    let is_partly_denied = scan.has_denied_address && is_scanned;
                    found.note_if(is_partly_denied, "a denied address beside others");
                    match (&scan.expected_ports, is_scanned) {
                        (Some(_), true) => found.of_probe(&response.body),
                        (None, true) => found.of_scan(scan.form, &response.body),
                        (_, false) => {}
                    }
                }
            }
        }
        for situation in found.0 {
            *self.0.entry(situation).or_default() += 1;
        }
    }

    pub(crate) fn check(&self) {
        let runs = |situation: &&&str| self.0.get(**situation).copied().unwrap_or(0);
        let missed: Vec<_> = SITUATIONS.iter().filter(|it| runs(it) < RUNS_MIN).collect();
        assert!(missed.is_empty(), "too few seeds reach {missed:?} of {:#?}", self.0);
    }
}

const HOSTS_FILE: &str = "a name from the hosts file";

#[derive(Default)]
struct Found(BTreeSet<String>);

impl Found {
    fn note_if(&mut self, is_so: bool, situation: &str) {
        if is_so {
            self.0.insert(situation.to_owned());
        }
    }

    fn of_world(&mut self, world: &Simulation) {
        self.note_if(world.has_exited(), "shutdown");
        self.note_if(world.signals_len > 1, "a second signal");
        self.note_if(world.seen.shortages > 0, "resource shortage");
        self.note_if(world.seen.accepts_failed > 0, "shortage in accept");
        self.note_if(world.seen.streams_to_servers > 0, "DNS over TCP");
        self.note_if(world.seen.interrupted > 0, "a call was interrupted");
        self.note_if(world.seen.unregistered > 0, "ENOMEM in register");
        self.note_if(world.seen.reuse_refused > 0, "socket reuse refused");
        self.note_if(world.seen.stale_events > 0, "a stale event");
        self.note_if(world.raw.answers > 0, "a SYN was answered");
        self.note_if(world.raw.rejections > 0, "a SYN was rejected by ICMP");
        self.note_if(world.raw.foreigners > 0, "a foreign response to a SYN");
        self.note_if(world.raw.blocked > 0, "a full send buffer");
        self.note_if(world.raw.overflows > 0, "a full receive buffer");
        self.note_if(world.seen.log_blocked > 0, "stderr was full");
        for client in &world.clients {
            let is_answered = !client.responses.is_empty();
            self.note_if(is_answered && client.is_pipelined(), "pipelined");
            self.note_if(is_answered && client.piece < 50, "request in pieces");
            self.note_if(is_answered && client.reads_slowly(), "slow reader");
            self.note_if(
                client.requests_read() > 0 && client.never_reads(),
                "client that never reads",
            );
            self.note_if(
                client.requests_read() > 0 && client.leave_after.is_some(),
                "client that leaves early",
            );
            self.note_if(is_answered && client.has_half_closed, "half-closed");
            self.note_if(client.is_refused(), "connection refused");
        }
    }

    fn of_response(&mut self, response: &Response) {
        self.0.insert(response.status.to_string());
        if response.status >= 400
            && let Ok(problem) = serde_json::from_slice::<Value>(&response.body)
        {
            self.0.extend(problem["cause"].as_str().map(str::to_owned));
        }
    }

    fn of_probe(&mut self, page: &[u8]) {
        let page = String::from_utf8_lossy(page);
        let has = |line: &str| page.lines().any(|it| it == line);
        let is_resolved = page.contains("\nprobe_ip_protocol ");
        self.note_if(has("probe_success 1"), "probe as expected");
        self.note_if(is_resolved && has("probe_success 0"), "probe not as expected");
        self.note_if(!is_resolved, "probe of a name without an address");
    }

    fn of_scan(&mut self, form: Form, body: &[u8]) {
        let body = String::from_utf8_lossy(body);
        let (name, last) = match form {
            Form::Text => return self.note_if(true, "text"),
            Form::Csv => {
                let open = body.lines().filter(|line| line.contains(",open,"));
                let addresses: BTreeSet<&str> =
                    open.filter_map(|it| it.split(',').next()).collect();
                let has_several = addresses.len() > 1;
                self.note_if(has_several, "csv with the open ports of several addresses");
                return self.note_if(true, "csv");
            }
            Form::Json => ("json", body.lines().last()),
            Form::Ndjson => ("ndjson", body.lines().last()),
            Form::EventStream => ("server-sent events", body.trim_end().lines().last()),
        };
        self.note_if(true, name);
        let has_ranges =
            body.lines().any(|line| line.contains("progress") && line.contains("_ports"));
        self.note_if(has_ranges, "progress with ranges");
        let last = last.unwrap_or_default();
        let text = last.strip_prefix("data: ").unwrap_or(last);
        let Ok(summary) = serde_json::from_str::<Value>(text) else { return };
        self.note_if(summary["complete"] == false, "incomplete scan");
        self.note_if(summary["retried"].as_u64() > Some(0), "retried ports");
        self.note_if(summary["loss_suspected"] == true, "loss suspected");
        self.note_if(summary["results"].is_array(), "every address");
        self.note_if(summary["closed_ports"].is_string(), "ports by state");
        self.note_if(summary["services"].is_object(), "services");
        let address = summary["address"].as_str().unwrap_or_default();
        self.note_if(address.contains(':'), "IPv6 address");
    }
}
