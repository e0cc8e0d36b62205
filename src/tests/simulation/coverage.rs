//! What the seeds reach of the contract, so that nothing falls out of the simulation unseen.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::client::{Form, Wanted};
use crate::reader::Answer;
use crate::run::Simulation;

/// How many runs came to each situation.
#[derive(Debug, Default)]
pub(crate) struct Coverage(BTreeMap<String, usize>);

/// Situations that the seeds of an ordinary run must come to, each in so many runs at least.
/// Statuses stand as such; of problems their cause too.
const WANTED: &[&str] = &[
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
    "ndjson",
    "server-sent events",
    "probe as expected",
    "probe not as expected",
    "probe of a name without an address",
    "cut short",
    "sent again",
    "loss suspected",
    "every address",
    "address of IPv6",
    "ports by state",
    "services",
    "ports excluded",
    "progress with ranges",
    "asked with the token",
    "asked through a proxy",
    "an address passed over",
    "HTTP/1.0",
    "chunked body",
    "pipelined",
    "in pieces",
    "read slowly",
    "never read",
    "left in a hurry",
    "half-closed",
    "short of something",
    "accept ran short",
    "TCP for a name",
    "a name from the hosts file",
    "drained",
    "a second signal",
    "refused at the door",
    "a call was interrupted",
    "the poller had no room",
    "a socket was not connected again",
    "a stale event",
    "a SYN was answered",
    "a SYN was rejected by ICMP",
    "a foreign answer to a SYN",
    "a full send buffer",
    "a full receive buffer",
    "stderr was full",
];
const RUNS_MIN: usize = 2;

impl Coverage {
    /// Takes in a run that has come to its end.
    pub(crate) fn take_in(&mut self, world: &Simulation) {
        let mut found = Found::default();
        found.of_world(world);
        for client in &world.clients {
            for (ask, answer) in client.asks.iter().zip(&client.answers) {
                found.of_answer(answer);
                let text = String::from_utf8_lossy(&ask.bytes);
                found.note_if(text.contains(" HTTP/1.0\r\n"), "HTTP/1.0");
                let is_chunked = text.contains("Transfer-Encoding: chunked");
                found.note_if(is_chunked && answer.status == 200, "chunked body");
                if let Wanted::Scan(scan, _) = &ask.wanted {
                    let is_scanned = answer.status == 200;
                    found.note_if(is_scanned && scan.has_token(), "asked with the token");
                    found.note_if(is_scanned && scan.has_proxy(), "asked through a proxy");
                    found.note_if(is_scanned && !scan.excluded.is_empty(), "ports excluded");
                    found.note_if(is_scanned && scan.domain == "here.test", HOSTS_FILE);
                    let passed_over = scan.passes_over && is_scanned;
                    found.note_if(passed_over, "an address passed over");
                    match (&scan.expected, is_scanned) {
                        (Some(_), true) => found.of_probe(&answer.body),
                        (None, true) => found.of_scan(scan.form, &answer.body),
                        (_, false) => {}
                    }
                }
            }
        }
        for situation in found.0 {
            *self.0.entry(situation).or_default() += 1;
        }
    }

    /// Fails where a situation was not come to.
    pub(crate) fn check(&self) {
        let runs = |situation: &&&str| self.0.get(**situation).copied().unwrap_or(0);
        let missed: Vec<_> = WANTED.iter().filter(|it| runs(it) < RUNS_MIN).collect();
        assert!(missed.is_empty(), "the seeds came too seldom to {missed:?} of {:#?}", self.0);
    }
}

const HOSTS_FILE: &str = "a name from the hosts file";

#[derive(Default)]
struct Found(std::collections::BTreeSet<String>);

impl Found {
    fn note_if(&mut self, is_so: bool, situation: &str) {
        if is_so {
            self.0.insert(situation.to_owned());
        }
    }

    fn of_world(&mut self, world: &Simulation) {
        self.note_if(world.has_exited(), "drained");
        self.note_if(world.signals_len > 1, "a second signal");
        self.note_if(world.seen.shortages > 0, "short of something");
        self.note_if(world.seen.accepts_failed > 0, "accept ran short");
        self.note_if(world.seen.streams_to_servers > 0, "TCP for a name");
        self.note_if(world.seen.interrupted > 0, "a call was interrupted");
        self.note_if(world.seen.unregistered > 0, "the poller had no room");
        self.note_if(world.seen.reuse_refused > 0, "a socket was not connected again");
        self.note_if(world.seen.stale_events > 0, "a stale event");
        self.note_if(world.raw.answers > 0, "a SYN was answered");
        self.note_if(world.raw.rejections > 0, "a SYN was rejected by ICMP");
        self.note_if(world.raw.foreigners > 0, "a foreign answer to a SYN");
        self.note_if(world.raw.blocked > 0, "a full send buffer");
        self.note_if(world.raw.overflows > 0, "a full receive buffer");
        self.note_if(world.seen.log_blocked > 0, "stderr was full");
        for client in &world.clients {
            let is_answered = !client.answers.is_empty();
            self.note_if(is_answered && client.is_pipelined(), "pipelined");
            self.note_if(is_answered && client.piece < 50, "in pieces");
            self.note_if(is_answered && client.reads_slowly(), "read slowly");
            self.note_if(client.heard() > 0 && client.never_reads(), "never read");
            self.note_if(client.heard() > 0 && client.leaves.is_some(), "left in a hurry");
            self.note_if(is_answered && client.has_half_closed, "half-closed");
            self.note_if(client.is_refused(), "refused at the door");
        }
    }

    fn of_answer(&mut self, answer: &Answer) {
        self.0.insert(answer.status.to_string());
        if answer.status >= 400
            && let Ok(problem) = serde_json::from_slice::<Value>(&answer.body)
        {
            self.0.extend(problem["cause"].as_str().map(str::to_owned));
        }
    }

    fn of_probe(&mut self, page: &[u8]) {
        let page = String::from_utf8_lossy(page);
        let has = |line: &str| page.lines().any(|told| told == line);
        let is_resolved = page.contains("\nprobe_ip_protocol ");
        self.note_if(has("probe_success 1"), "probe as expected");
        self.note_if(is_resolved && has("probe_success 0"), "probe not as expected");
        self.note_if(!is_resolved, "probe of a name without an address");
    }

    fn of_scan(&mut self, form: Form, body: &[u8]) {
        let body = String::from_utf8_lossy(body);
        let (name, last) = match form {
            Form::Text => return self.note_if(true, "text"),
            Form::Csv => return self.note_if(true, "csv"),
            Form::Json => ("json", body.lines().last()),
            Form::Ndjson => ("ndjson", body.lines().last()),
            Form::EventStream => ("server-sent events", body.trim_end().lines().last()),
        };
        self.note_if(true, name);
        let told = body.lines().any(|line| line.contains("progress") && line.contains("_ports"));
        self.note_if(told, "progress with ranges");
        let last = last.unwrap_or_default();
        let text = last.strip_prefix("data: ").unwrap_or(last);
        let Ok(summary) = serde_json::from_str::<Value>(text) else { return };
        self.note_if(summary["complete"] == false, "cut short");
        self.note_if(summary["retried"].as_u64() > Some(0), "sent again");
        self.note_if(summary["loss_suspected"] == true, "loss suspected");
        self.note_if(summary["results"].is_array(), "every address");
        self.note_if(summary["closed_ports"].is_string(), "ports by state");
        self.note_if(summary["services"].is_object(), "services");
        let address = summary["address"].as_str().unwrap_or_default();
        self.note_if(address.contains(':'), "address of IPv6");
    }
}
