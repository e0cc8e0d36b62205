//! The lines that a command-line run prints in addition to those of the service.
//!
//! A run with a single target prints the answer that the service would send. With several targets,
//! an open port names its target, progress is the sum over all targets, and a failed target is one
//! line among the others. This module never buffers or frames. `batch` calls it.

use std::net::IpAddr;
use std::time::Duration;

use serde::Serialize;

use super::answer::{serialize_fine_millis, write_json};
use super::problem::{Document, Problem};

/// The events of a scan of several targets.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum BatchEvent<'a> {
    /// A port is open.
    Open {
        /// The port.
        port: u16,
        /// The time from SYN to handshake, written in milliseconds with microsecond precision.
        #[serde(rename = "rtt_ms", serialize_with = "serialize_fine_millis")]
        rtt: Option<Duration>,
        /// The target as the list or the command line spells it.
        domain: &'a str,
        /// The address, if all addresses of a name are scanned.
        #[serde(skip_serializing_if = "Option::is_none")]
        address: Option<IpAddr>,
    },
    /// The progress of all targets together.
    Progress {
        /// The number of ports that have their state, or will not get one.
        done: u64,
        /// The number of requested ports.
        total: u64,
        /// The number of ports found open so far.
        open: u64,
    },
}

/// A target that could not be scanned: the problem document of the service, and the target.
#[derive(Serialize)]
struct Failure<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<&'static str>,
    #[serde(flatten)]
    document: Document<'a>,
    domain: &'a str,
}

/// Appends one line.
pub fn write_batch_event(out: &mut Vec<u8>, event: &BatchEvent) {
    write_json(out, event);
    out.push(b'\n');
}

/// Appends one line for a target that could not be scanned. In a stream it is an event named
/// `failed`.
pub fn write_failure(out: &mut Vec<u8>, output: BatchOutput, domain: &str, problem: &Problem) {
    let event = match output {
        BatchOutput::Events => Some("failed"),
        BatchOutput::Answers => None,
    };
    write_json(out, &Failure { event, document: problem.document(), domain });
    out.push(b'\n');
}

/// An event of an earlier run, reduced to the fields that a later run needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PastEvent {
    /// Every port of a target was tried as planned.
    Finished {
        /// The target as the list or the command line spelled it.
        domain: String,
        /// The addresses that were scanned.
        addresses: Vec<IpAddr>,
        /// Whether all addresses of the name were to be scanned.
        is_all: bool,
    },
    /// A target was begun.
    Started {
        /// Ranges, as in `22,80-90`; `None` in a shard.
        ports: Option<String>,
        /// The shard, as `I/N`; `None` if the run scanned everything.
        shard: Option<String>,
        /// The number of ports of all targets in all shards; `None` without a shard.
        shards_total: Option<u64>,
    },
    /// Any other event.
    Other,
}

/// Reads a line that an earlier run printed as NDJSON; `None` if it is not an event.
pub fn read_past_event(line: &[u8]) -> Option<PastEvent> {
    let event: serde_json::Value = serde_json::from_slice(line).ok()?;
    let text = |key: &str| Some(event.get(key)?.as_str()?.to_owned());
    Some(match event.get("event")?.as_str()? {
        "start" => PastEvent::Started {
            ports: text("ports"),
            shard: text("shard"),
            shards_total: event.get("shards_total").and_then(serde_json::Value::as_u64),
        },
        "end" if event.get("complete")?.as_bool()? => {
            let results = event.get("results").and_then(serde_json::Value::as_array);
            let scanned = results.map_or(std::slice::from_ref(&event), Vec::as_slice);
            let address = |of: &serde_json::Value| of.get("address")?.as_str()?.parse().ok();
            let addresses = scanned.iter().filter_map(address).collect();
            PastEvent::Finished { domain: text("domain")?, addresses, is_all: results.is_some() }
        }
        _ => PastEvent::Other,
    })
}

/// The kind of lines that the output consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchOutput {
    /// Events, printed as they happen.
    Events,
    /// One answer for each target.
    Answers,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::problem::Cause;

    #[test]
    fn events_of_several_targets_are_lines_that_name_the_target() {
        let check = |event: BatchEvent, expected: &str| {
            let mut out = Vec::new();
            write_batch_event(&mut out, &event);
            assert_eq!(String::from_utf8(out).unwrap(), format!("{expected}\n"));
        };
        let rtt = Some(Duration::from_micros(410));
        check(
            BatchEvent::Open { port: 22, rtt, domain: "example.com", address: None },
            r#"{"event":"open","port":22,"rtt_ms":0.41,"domain":"example.com"}"#,
        );
        let address = Some([192, 0, 2, 7].into());
        check(
            BatchEvent::Open { port: 22, rtt: None, domain: "a", address },
            r#"{"event":"open","port":22,"rtt_ms":null,"domain":"a","address":"192.0.2.7"}"#,
        );
        check(
            BatchEvent::Progress { done: 1 << 40, total: 1 << 41, open: 3 },
            r#"{"event":"progress","done":1099511627776,"total":2199023255552,"open":3}"#,
        );
    }

    #[test]
    fn a_failure_is_the_problem_that_the_service_would_answer_and_its_target() {
        let problem = Problem::new(Cause::UnknownHost, "No such name.");
        let document = concat!(
            r#""type":"about:blank","title":"Unprocessable Content","status":422,"#,
            r#""cause":"UNKNOWN_HOST","detail":"No such name.","domain":"a.example""#,
        );
        for (stream, expected) in [
            (BatchOutput::Answers, format!("{{{document}}}\n")),
            (BatchOutput::Events, format!("{{\"event\":\"failed\",{document}}}\n")),
        ] {
            let mut out = Vec::new();
            write_failure(&mut out, stream, "a.example", &problem);
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
    }
}
