//! The outcome of a scan as text: JSON, NDJSON, server-sent events, plain text.
//!
//! A scan tells of itself in [`ScanEvent`]s, and [`write_event`] is the only way out: two of the
//! forms write each event as it comes, the other two hold their tongue until the end. So whoever
//! drives a scan need not know which form it has. Nothing here buffers, flushes or frames.
//!
//! Invariant: the keys and their order are the contract's; a key is added at the end or not at all.

use std::net::IpAddr;
use std::time::Duration;

use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};

use super::accept::Form;
use crate::names::Names;
use crate::scan::ledger::Counts;
use crate::target::PortSet;

/// The outcome of a whole scan.
#[derive(Clone, Debug, Serialize)]
pub struct Summary<'a> {
    /// The lowest port asked for.
    pub from_port: u16,
    /// The highest port asked for.
    pub to_port: u16,
    /// The target as the client wrote it.
    pub domain: &'a str,
    /// The open ports; of all addresses together, if several were scanned.
    #[serde(rename = "open_ports", serialize_with = "serialize_ports")]
    pub open: &'a PortSet,
    /// The address scanned; the first, if several were.
    pub address: IpAddr,
    /// The ports by state; the sum over all addresses, if several were scanned.
    #[serde(serialize_with = "serialize_counts")]
    pub counts: Counts,
    /// True exactly when every port was tried as planned, all passes included.
    pub complete: bool,
    /// How many probes were sent again because the first stayed silent.
    pub retried: u32,
    /// True exactly when some answer came so late that a packet must have been lost.
    pub loss_suspected: bool,
    /// How long the scan took; told in whole milliseconds.
    #[serde(rename = "elapsed_ms", serialize_with = "serialize_millis")]
    pub elapsed: Duration,
    /// The closed ports, where `include` asked for them.
    #[serde(rename = "closed_ports")]
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "serialize_ranges")]
    pub closed: Option<&'a PortSet>,
    /// The filtered ports, where `include` asked for them.
    #[serde(rename = "filtered_ports")]
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "serialize_ranges")]
    pub filtered: Option<&'a PortSet>,
    /// The unreachable ports, where `include` asked for them.
    #[serde(rename = "unreachable_ports")]
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "serialize_ranges")]
    pub unreachable: Option<&'a PortSet>,
    /// What is usually behind the open ports, where `include` asked for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub services: Option<Services<'a>>,
    /// What each address came to, with `addresses=all`; `None` without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub results: Option<&'a [AddressResult<'a>]>,
}

/// What is usually behind open ports: an object from port to name, of those ports that have one.
#[derive(Clone, Copy, Debug)]
pub struct Services<'a> {
    /// The open ports.
    pub open: &'a PortSet,
    /// What services are called.
    pub names: &'a Names,
}

impl Serialize for Services<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let named = self.open.iter().map(|port| (port, self.names.of(port)));
        serializer.collect_map(named.filter(|(_, name)| !name.is_empty()))
    }
}

/// What one address of several came to.
#[derive(Clone, Debug, Serialize)]
pub struct AddressResult<'a> {
    /// The address.
    pub address: IpAddr,
    /// Its open ports.
    #[serde(rename = "open_ports", serialize_with = "serialize_ports")]
    pub open: &'a PortSet,
    /// Its ports by state.
    #[serde(serialize_with = "serialize_counts")]
    pub counts: Counts,
}

/// What a scan tells of itself, in this order: one start, opens and progress, one end.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum ScanEvent<'a> {
    /// The target has an address, and the first probe is about to leave.
    Start {
        /// The target as the client wrote it.
        domain: &'a str,
        /// The address to be scanned.
        address: IpAddr,
        /// How many ports are to be scanned, of all addresses together.
        total: u32,
        /// The ports of each address as ranges; `None`, and not told, where they are a shard's:
        /// those lie scattered, and as text are hundreds of kilobytes.
        #[serde(skip_serializing_if = "Option::is_none", serialize_with = "serialize_ranges")]
        ports: Option<&'a PortSet>,
    },
    /// A port is open.
    Open {
        /// The port.
        port: u16,
        /// From SYN to handshake; told in milliseconds, to the microsecond.
        /// `None`, and not told, where the reader was so slow that it was forgotten.
        #[serde(rename = "rtt_ms", serialize_with = "serialize_fine_millis")]
        #[serde(skip_serializing_if = "Option::is_none")]
        rtt: Option<Duration>,
        /// Where, with `addresses=all`; `None` without it.
        #[serde(skip_serializing_if = "Option::is_none")]
        address: Option<IpAddr>,
    },
    /// How far the scan is.
    Progress(Progress<'a>),
    /// The scan is over.
    End(Summary<'a>),
}

/// How far a scan is, and which ports came into a state that `include` asked for since the last
/// time. A port may move on, from filtered to any other: it is then told again, and the last word
/// holds. What the reader has no room for is told later; of what is left then, the end tells.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Progress<'a> {
    /// Ports that have their state.
    pub done: u32,
    /// Ports asked for.
    pub total: u32,
    /// Ports found open so far.
    pub open: u32,
    /// Ports found closed; `None` where none was, or nobody asked.
    #[serde(rename = "closed_ports")]
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "serialize_ranges")]
    pub closed: Option<&'a PortSet>,
    /// Ports found filtered, likewise.
    #[serde(rename = "filtered_ports")]
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "serialize_ranges")]
    pub filtered: Option<&'a PortSet>,
    /// Ports found unreachable, likewise.
    #[serde(rename = "unreachable_ports")]
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "serialize_ranges")]
    pub unreachable: Option<&'a PortSet>,
    /// Whose the ranges are, with `addresses=all`; `None` without it, and without ranges.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
}

impl ScanEvent<'_> {
    /// The event's name in both streams.
    const fn label(&self) -> &'static str {
        match self {
            Self::Start { .. } => "start",
            Self::Open { .. } => "open",
            Self::Progress(_) => "progress",
            Self::End(_) => "end",
        }
    }
}

/// Appends what `form` has to say about `event`: nothing, for the unstreamed forms, but at the end.
///
/// Panics if a summary contradicts itself.
pub fn write_event(out: &mut Vec<u8>, form: Form, event: &ScanEvent) {
    if let ScanEvent::End(summary) = event {
        summary.check();
    }
    match (form, event) {
        (Form::Json, ScanEvent::End(summary)) => write_json(out, summary),
        (Form::Text, ScanEvent::End(summary)) => {
            for port in summary.open.iter() {
                out.extend_from_slice(format!("{port}\n").as_bytes());
            }
        }
        (
            Form::Json | Form::Text,
            ScanEvent::Start { .. } | ScanEvent::Open { .. } | ScanEvent::Progress(_),
        ) => {}
        (Form::Ndjson, _) => {
            write_json(out, event);
            out.push(b'\n');
        }
        (Form::EventStream, _) => {
            out.extend_from_slice(format!("event: {}\ndata: ", event.label()).as_bytes());
            write_json(out, event);
            out.extend_from_slice(b"\n\n");
        }
    }
}

impl Summary<'_> {
    /// What must hold whatever was scanned.
    fn check(&self) {
        assert!(self.from_port <= self.to_port, "1: a scan has a port");
        assert!(!self.complete || self.counts.untested == 0, "2: complete means all tested");
        let is_named = self.services.is_none_or(|services| services.open == self.open);
        assert!(is_named, "7: services are those of the open ports");
        if self.results.is_none() {
            // With several addresses the sets are unions, and the counts are not.
            let counted = |count: u32, ports: Option<&PortSet>| {
                ports.is_none_or(|ports| ports.len() == count as usize)
            };
            assert!(counted(self.counts.open, Some(self.open)), "3: open ports are counted");
            assert!(counted(self.counts.closed, self.closed), "4: closed ports are counted");
            assert!(counted(self.counts.filtered, self.filtered), "5: filtered ones too");
            assert!(counted(self.counts.unreachable, self.unreachable), "6: unreachable ones too");
        }
    }
}

/// Appends a value as one line of JSON without line end.
pub(super) fn write_json(out: &mut Vec<u8>, value: &impl Serialize) {
    let len_before = out.len();
    #[expect(
        clippy::expect_used,
        reason = "fails on I/O errors and on keys that are no strings; \
        a Vec has no I/O errors, and the keys of our maps are strings and ports"
    )]
    serde_json::to_writer(&mut *out, value).expect("our types serialize");
    assert!(out.len() > len_before, "no JSON value is empty");
    debug_assert!(!out[len_before..].contains(&b'\n'), "JSON escapes line ends in strings");
}

fn serialize_counts<S: Serializer>(counts: &Counts, serializer: S) -> Result<S::Ok, S::Error> {
    let mut object = serializer.serialize_struct("Counts", 5)?;
    object.serialize_field("open", &counts.open)?;
    object.serialize_field("closed", &counts.closed)?;
    object.serialize_field("filtered", &counts.filtered)?;
    object.serialize_field("unreachable", &counts.unreachable)?;
    object.serialize_field("untested", &counts.untested)?;
    object.end()
}

fn serialize_ports<S: Serializer>(ports: &PortSet, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(ports.iter())
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

fn serialize_millis<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(time.as_millis() as u64)
}

/// Milliseconds with three decimals at most.
pub(super) fn serialize_fine_millis<S: Serializer>(
    time: &Option<Duration>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let Some(time) = time else { return serializer.serialize_none() };
    let micros = (time.as_nanos() + 500) / 1000;
    // Exact up to 2^53 µs, 285 years; the shortest digits that read back are then the three.
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

    fn summary(open: &PortSet) -> Summary<'_> {
        let counts = Counts { open: 2, closed: 1000, filtered: 22, unreachable: 0, untested: 0 };
        assert_eq!(open.len(), 2);
        Summary {
            from_port: 1,
            to_port: 1024,
            domain: "example.com",
            open,
            address: [192, 0, 2, 7].into(),
            counts,
            complete: true,
            retried: 0,
            loss_suspected: false,
            elapsed: Duration::from_micros(2_013_999),
            closed: None,
            filtered: None,
            unreachable: None,
            services: None,
            results: None,
        }
    }

    /// The contract's example, letter by letter.
    const EXAMPLE: &str = concat!(
        r#"{"from_port":1,"to_port":1024,"domain":"example.com","open_ports":[22,80],"#,
        r#""address":"192.0.2.7","counts":{"open":2,"closed":1000,"filtered":22,"#,
        r#""unreachable":0,"untested":0},"complete":true,"retried":0,"#,
        r#""loss_suspected":false,"elapsed_ms":2013}"#,
    );

    #[test]
    fn a_summary_reads_as_the_contract_shows_it() {
        let open = PortSet::parse("80,22").unwrap();
        let end = ScanEvent::End(summary(&open));
        let in_stream = EXAMPLE.replacen('{', r#"{"event":"end","#, 1);
        let check = |form, expected: &str| assert_eq!(written(form, &end), expected);
        check(Form::Json, EXAMPLE);
        check(Form::Text, "22\n80\n");
        check(Form::Ndjson, &format!("{in_stream}\n"));
        check(Form::EventStream, &format!("event: end\ndata: {in_stream}\n\n"));
    }

    #[test]
    fn no_open_port_is_an_empty_array_and_an_empty_text() {
        let none = PortSet::new();
        let two = PortSet::parse("1,2").unwrap();
        let counts = Counts { closed: 1024, ..Counts::default() };
        let end = ScanEvent::End(Summary { open: &none, counts, ..summary(&two) });
        assert!(written(Form::Json, &end).contains(r#""open_ports":[],"#));
        assert_eq!(written(Form::Text, &end), "");
    }

    #[test]
    fn what_include_asks_for_follows_as_ranges() {
        let open = PortSet::parse("22,80").unwrap();
        let (closed, none) = (PortSet::parse("1-21,23-79").unwrap(), PortSet::new());
        let counts = Counts { open: 2, closed: 78, ..Counts::default() };
        let lists = Summary {
            counts,
            closed: Some(&closed),
            filtered: Some(&none),
            unreachable: Some(&none),
            ..summary(&open)
        };
        let text = written(Form::Json, &ScanEvent::End(lists));
        let tail = r#""closed_ports":"1-21,23-79","filtered_ports":"","unreachable_ports":""}"#;
        assert!(text.ends_with(&format!(r#""elapsed_ms":2013,{tail}"#)), "{text}");
    }

    #[test]
    fn services_follow_the_lists_and_name_the_open_ports_that_have_a_name() {
        let check = |open: &str, rest: &str| {
            let open = PortSet::parse(open).unwrap();
            let names = Names::parse(b"mine\"s 1/tcp\n");
            let services = Some(Services { open: &open, names: &names });
            let none = PortSet::new();
            let named = Summary { unreachable: Some(&none), services, ..summary(&open) };
            let tail = format!(r#""elapsed_ms":2013,"unreachable_ports":"",{rest}}}"#);
            let end = ScanEvent::End(named);
            for form in [Form::Json, Form::Ndjson, Form::EventStream] {
                let text = written(form, &end);
                assert!(text.trim_end().ends_with(&tail), "{text}");
            }
            assert!(!written(Form::Text, &end).contains("ssh"));
        };
        check("22,80", r#""services":{"22":"ssh","80":"http"}"#);
        check("1,2", r#""services":{"1":"mine\"s"}"#);
        check("2,3", r#""services":{}"#);
    }

    #[test]
    fn several_addresses_are_told_one_by_one_after_their_union() {
        let (open, first, second) = (
            PortSet::parse("22,80").unwrap(),
            PortSet::parse("22").unwrap(),
            PortSet::parse("22,80").unwrap(),
        );
        let counts = Counts { open: 1, closed: 1023, ..Counts::default() };
        let results = [
            AddressResult { address: [192, 0, 2, 7].into(), open: &first, counts },
            AddressResult { address: "2001:db8::7".parse().unwrap(), open: &second, counts },
        ];
        let all = Summary { results: Some(&results), ..summary(&open) };
        let text = written(Form::Json, &ScanEvent::End(all));
        let tail = concat!(
            r#""elapsed_ms":2013,"results":[{"address":"192.0.2.7","open_ports":[22],"#,
            r#""counts":{"open":1,"closed":1023,"filtered":0,"unreachable":0,"untested":0}},"#,
            r#"{"address":"2001:db8::7","open_ports":[22,80],"#,
            r#""counts":{"open":1,"closed":1023,"filtered":0,"unreachable":0,"untested":0}}]}"#,
        );
        assert!(text.ends_with(tail), "{text}");
    }

    #[test]
    fn events_are_lines_in_one_stream_and_named_in_the_other() {
        let check = |event: ScanEvent, label: &str, json: &str| {
            assert_eq!(written(Form::Ndjson, &event), format!("{json}\n"));
            assert_eq!(
                written(Form::EventStream, &event),
                format!("event: {label}\ndata: {json}\n\n")
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
            },
            "start",
            concat!(
                r#"{"event":"start","domain":"a\n\"b\"","address":"127.0.0.1","total":3,"#,
                r#""ports":"22,80-81"}"#
            ),
        );
        check(
            ScanEvent::Start { domain: "a", address: [127, 0, 0, 1].into(), total: 3, ports: None },
            "start",
            r#"{"event":"start","domain":"a","address":"127.0.0.1","total":3}"#,
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
    fn progress_has_the_ranges_that_there_are_and_whose_they_are() {
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

    #[test]
    #[should_panic(expected = "2: complete")]
    fn a_summary_that_contradicts_itself_is_our_bug() {
        let open = PortSet::parse("1,2").unwrap();
        let mut contradictory = summary(&open);
        contradictory.counts.untested = 1;
        written(Form::Json, &ScanEvent::End(contradictory));
    }

    #[test]
    fn every_port_open_is_told_in_every_form() {
        let every = PortSet::from_range(1, 65_535);
        let two = PortSet::parse("1,2").unwrap();
        let counts = Counts { open: 65_535, ..Counts::default() };
        let end =
            ScanEvent::End(Summary { open: &every, to_port: 65_535, counts, ..summary(&two) });
        assert_eq!(written(Form::Text, &end).lines().count(), 65_535);
        let json: serde_json::Value = serde_json::from_str(&written(Form::Json, &end)).unwrap();
        assert_eq!(json["open_ports"].as_array().unwrap().len(), 65_535);
    }
}
