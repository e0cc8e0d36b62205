//! The events of a running scan as NDJSON and server-sent events.
//!
//! [`write_event`] writes each [`ScanEvent`] in the two streamed forms. It writes nothing in the
//! other three, whose answer is the [`Summary`](crate::scan::summary::Summary) of the scan, so the
//! caller does not distinguish the forms. This module never buffers, flushes or frames. The core
//! and `batch` call it.
//!
//! Invariant: the contract defines the keys and their order; a new key is added at the end.

use std::net::IpAddr;
use std::time::Duration;

use serde::{Serialize, Serializer};

use super::accept::Form;
use crate::port_set::PortSet;

/// The events of a running scan, in this order: one start, then opens and progress. The end is a
/// [`Summary`](crate::scan::summary::Summary).
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum ScanEvent<'a> {
    /// The target has an address, and the first probe is about to be sent.
    Start {
        /// The target as the client wrote it.
        domain: &'a str,
        /// The address to be scanned.
        address: IpAddr,
        /// The number of ports to be scanned, summed over all addresses.
        total: u32,
        /// The ports of each address as ranges. `None`, and not written, for a shard, whose
        /// scattered ports would be hundreds of kilobytes of text.
        #[serde(skip_serializing_if = "Option::is_none", serialize_with = "serialize_ranges")]
        ports: Option<&'a PortSet>,
        /// The shard, as `I/N`; `None`, and not written, without one.
        #[serde(skip_serializing_if = "Option::is_none")]
        shard: Option<&'a str>,
        /// The number of ports of all targets in all shards, which shows whether a later run has
        /// the same list; `None`, and not written, without a shard.
        #[serde(skip_serializing_if = "Option::is_none")]
        shards_total: Option<u64>,
    },
    /// A port is open.
    Open {
        /// The port.
        port: u16,
        /// The time from SYN to handshake, written in milliseconds with microsecond precision.
        /// `None`, and not written, if the client read so slowly that the time was dropped.
        #[serde(rename = "rtt_ms", serialize_with = "serialize_fine_millis")]
        #[serde(skip_serializing_if = "Option::is_none")]
        rtt: Option<Duration>,
        /// The address, with `addresses=all`; `None` without it.
        #[serde(skip_serializing_if = "Option::is_none")]
        address: Option<IpAddr>,
    },
    /// The progress of the scan.
    Progress(Progress<'a>),
}

/// The progress of a scan, and the ports that came into a state that `include` selects since the
/// previous progress event. A port may change from filtered to any other state; it is then written
/// again, and the last state is the valid one. Ports for which the output buffer has no space are
/// written later, at the latest with the end.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Progress<'a> {
    /// The number of ports that have their state.
    pub done: u32,
    /// The number of requested ports.
    pub total: u32,
    /// The number of ports found open so far.
    pub open: u32,
    /// The ports found closed; `None` if there is none, or if `include` does not select them.
    #[serde(rename = "closed_ports")]
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "serialize_ranges")]
    pub closed: Option<&'a PortSet>,
    /// The ports found filtered, under the same conditions.
    #[serde(rename = "filtered_ports")]
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "serialize_ranges")]
    pub filtered: Option<&'a PortSet>,
    /// The ports found unreachable, under the same conditions.
    #[serde(rename = "unreachable_ports")]
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "serialize_ranges")]
    pub unreachable: Option<&'a PortSet>,
    /// The address of the ranges, with `addresses=all`; `None` without it, and without ranges.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
}

impl ScanEvent<'_> {
    /// The name of the event in both streams.
    const fn label(&self) -> &'static str {
        match self {
            Self::Start { .. } => "start",
            Self::Open { .. } => "open",
            Self::Progress(_) => "progress",
        }
    }
}

/// Appends `event` in the given form. For the forms that are not streamed, nothing is appended.
pub fn write_event(out: &mut Vec<u8>, form: Form, event: &ScanEvent) {
    match form {
        Form::Json | Form::Text | Form::Csv => {}
        Form::Ndjson => {
            write_json(out, event);
            out.push(b'\n');
        }
        Form::EventStream => {
            let label = event.label();
            out.extend_from_slice(format!("id: {label}\nevent: {label}\ndata: ").as_bytes());
            write_json(out, event);
            out.extend_from_slice(b"\n\n");
        }
    }
}

/// Appends a value as one line of JSON without a line end.
pub(super) fn write_json(out: &mut Vec<u8>, value: &impl Serialize) {
    let len_before = out.len();
    #[expect(
        clippy::expect_used,
        reason = "fails on I/O errors and on keys that are no strings; \
        a Vec has no I/O errors, and the keys of our maps are strings and ports"
    )]
    serde_json::to_writer(&mut *out, value).expect("the types of this interface serialize");
    assert!(out.len() > len_before, "no JSON value is empty");
    debug_assert!(!out[len_before..].contains(&b'\n'), "JSON escapes line ends in strings");
}

fn serialize_ranges<S: Serializer>(
    ports: &Option<&PortSet>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match ports {
        Some(ports) => serializer.collect_str(&ports.display_ranges()),
        None => serializer.serialize_none(),
    }
}

/// Writes milliseconds with at most three decimals.
pub(super) fn serialize_fine_millis<S: Serializer>(
    time: &Option<Duration>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let Some(time) = time else { return serializer.serialize_none() };
    let micros = (time.as_nanos() + 500) / 1000;
    // The value is exact up to 2^53 µs, 285 years. The shortest digits that read back as the same
    // value are therefore the three decimals.
    serializer.serialize_f64(micros as f64 / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(form: Form, event: &ScanEvent) -> String {
        let mut out = Vec::new();
        write_event(&mut out, form, event);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn events_are_lines_in_one_stream_and_named_in_the_other() {
        let check = |event: ScanEvent, label: &str, json: &str| {
            assert_eq!(written(Form::Ndjson, &event), format!("{json}\n"));
            assert_eq!(
                written(Form::EventStream, &event),
                format!("id: {label}\nevent: {label}\ndata: {json}\n\n")
            );
            assert_eq!(written(Form::Json, &event), "");
            assert_eq!(written(Form::Text, &event), "");
        };
        check(
            ScanEvent::Start {
                domain: "a\n\"b\"",
                address: [127, 0, 0, 1].into(),
                total: 3,
                ports: Some(&PortSet::parse("80-81,22").unwrap()),
                shard: None,
                shards_total: None,
            },
            "start",
            concat!(
                r#"{"event":"start","domain":"a\n\"b\"","address":"127.0.0.1","total":3,"#,
                r#""ports":"22,80-81"}"#
            ),
        );
        check(
            ScanEvent::Start {
                domain: "a",
                address: [127, 0, 0, 1].into(),
                total: 3,
                ports: None,
                shard: Some("1/2"),
                shards_total: Some(6),
            },
            "start",
            concat!(
                r#"{"event":"start","domain":"a","address":"127.0.0.1","total":3,"#,
                r#""shard":"1/2","shards_total":6}"#
            ),
        );
        check(
            ScanEvent::Progress(Progress { done: 1, total: 3, ..Progress::default() }),
            "progress",
            r#"{"event":"progress","done":1,"total":3,"open":0}"#,
        );
        let rtt = Some(Duration::from_micros(410));
        check(
            ScanEvent::Open { port: 22, rtt, address: None },
            "open",
            r#"{"event":"open","port":22,"rtt_ms":0.41}"#,
        );
        check(
            ScanEvent::Open { port: 22, rtt: None, address: Some([192, 0, 2, 7].into()) },
            "open",
            r#"{"event":"open","port":22,"address":"192.0.2.7"}"#,
        );
    }

    #[test]
    fn progress_has_the_ranges_and_their_address() {
        let (closed, filtered) =
            (PortSet::parse("1-21,23").unwrap(), PortSet::parse("80").unwrap());
        let progress = Progress {
            done: 23,
            total: 30,
            open: 0,
            closed: Some(&closed),
            filtered: Some(&filtered),
            unreachable: None,
            address: Some([192, 0, 2, 7].into()),
        };
        let expected = concat!(
            r#"{"event":"progress","done":23,"total":30,"open":0,"closed_ports":"1-21,23","#,
            r#""filtered_ports":"80","address":"192.0.2.7"}"#,
            "\n"
        );
        assert_eq!(written(Form::Ndjson, &ScanEvent::Progress(progress)), expected);
    }

    #[test]
    fn a_round_trip_has_three_decimals_at_most() {
        let check = |nanos: u64, expected: &str| {
            let event =
                ScanEvent::Open { port: 1, rtt: Some(Duration::from_nanos(nanos)), address: None };
            let text = written(Form::Ndjson, &event);
            assert_eq!(text, format!("{{\"event\":\"open\",\"port\":1,\"rtt_ms\":{expected}}}\n"));
        };
        check(0, "0.0");
        check(499, "0.0");
        check(500, "0.001");
        check(1_234_567, "1.235");
        check(50_000_000, "50.0");
        check(1_999_999_999, "2000.0");
        check(59_999_001_000, "59999.001");
    }
}
