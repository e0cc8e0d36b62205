//! The lines that a use from the shell prints beside those of the service.
//!
//! One target prints what the service would answer. Of several at once an open port must say whose
//! it is, progress is that of all together, and a target that came to nothing stands among the
//! others' answers. Nothing here buffers or frames.

use std::net::IpAddr;
use std::time::Duration;

use serde::Serialize;

use super::answer::{serialize_fine_millis, write_json};
use super::problem::{Document, Problem};

/// What happens to several targets at once.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum SweepEvent<'a> {
    /// A port is open.
    Open {
        /// The port.
        port: u16,
        /// From SYN to handshake; told in milliseconds, to the microsecond.
        #[serde(rename = "rtt_ms", serialize_with = "serialize_fine_millis")]
        rtt: Option<Duration>,
        /// The target as it was written.
        domain: &'a str,
        /// Where, if all addresses of a name are scanned.
        #[serde(skip_serializing_if = "Option::is_none")]
        address: Option<IpAddr>,
    },
    /// How far all targets together are.
    Progress {
        /// Ports that have their state, or will get none.
        done: u64,
        /// Ports asked for.
        total: u64,
        /// Ports found open so far.
        open: u64,
    },
}

/// A target that came to nothing: the service's problem document, and whose it is.
#[derive(Serialize)]
struct Failure<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<&'static str>,
    #[serde(flatten)]
    document: Document<'a>,
    domain: &'a str,
}

/// Appends one line.
pub fn write_sweep_event(out: &mut Vec<u8>, event: &SweepEvent) {
    write_json(out, event);
    out.push(b'\n');
}

/// Appends one line for a target that came to nothing: in a stream an event `failed`.
pub fn write_failure(out: &mut Vec<u8>, stream: Stream, (domain, problem): (&str, &Problem)) {
    let event = match stream {
        Stream::Events => Some("failed"),
        Stream::Answers => None,
    };
    write_json(out, &Failure { event, document: problem.document(), domain });
    out.push(b'\n');
}

/// What a line stands among.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Events as they happen.
    Events,
    /// One answer for each target.
    Answers,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::problem::Cause;

    #[test]
    fn events_of_several_targets_are_lines_that_say_whose_they_are() {
        let check = |event: SweepEvent, expected: &str| {
            let mut out = Vec::new();
            write_sweep_event(&mut out, &event);
            assert_eq!(String::from_utf8(out).unwrap(), format!("{expected}\n"));
        };
        let rtt = Some(Duration::from_micros(410));
        check(
            SweepEvent::Open { port: 22, rtt, domain: "example.com", address: None },
            r#"{"event":"open","port":22,"rtt_ms":0.41,"domain":"example.com"}"#,
        );
        let address = Some([192, 0, 2, 7].into());
        check(
            SweepEvent::Open { port: 22, rtt: None, domain: "a", address },
            r#"{"event":"open","port":22,"rtt_ms":null,"domain":"a","address":"192.0.2.7"}"#,
        );
        check(
            SweepEvent::Progress { done: 1 << 40, total: 1 << 41, open: 3 },
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
            (Stream::Answers, format!("{{{document}}}\n")),
            (Stream::Events, format!("{{\"event\":\"failed\",{document}}}\n")),
        ] {
            let mut out = Vec::new();
            write_failure(&mut out, stream, ("a.example", &problem));
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
    }
}
