//! Writes the end of a scan as text: JSON, NDJSON, server-sent events, plain text, CSV.
//!
//! If every port is open, the text has 400 KB, and 64 times as much for a name with 64 such
//! addresses. A slow reader must not cost that much memory, so an [`EndWriter`] keeps ports as sets
//! of at most 8 KB and formats only as many of them as the output buffer has space for. The core
//! and `batch` drive it.
//!
//! Invariants:
//! 1. The contract defines the keys and their order; a new key is added at the end.
//! 2. The text does not depend on how it is cut into pieces.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::net::IpAddr;

use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};

use super::accept::Form;
use super::answer::write_json;
use crate::port_set::PortSet;
use crate::scan::ledger::{Counts, PortState};
use crate::scan::summary::{AddressResult, OpenRtt, Summary};
use crate::service_names::Names;

/// Appends the end of a scan as a whole.
///
/// Panics if the summary contradicts itself.
pub fn write_end(out: &mut Vec<u8>, form: Form, summary: &Summary) {
    let unnamed = Names::default();
    let names = summary.services.map_or(&unnamed, |services| services.names);
    EndWriter::new(form, summary).write(out, usize::MAX, names);
}

/// The length in bytes of an end without its ports, if one address was scanned.
const TEXT_BYTES_USUAL: usize = 512;

/// The unwritten part of the end of a scan: a text with slots for lists of ports.
#[derive(Debug)]
pub struct EndWriter<'a> {
    /// The whole text except the ports.
    text: Vec<u8>,
    /// The number of bytes of `text` that are written.
    written: usize,
    /// The slots that are not written yet, in order.
    slots: VecDeque<PortListSlot<'a>>,
    /// The round trips of open ports, ascending, for CSV.
    rtts: Vec<OpenRtt>,
    /// Header fields of the answer, for forms whose body cannot contain the same facts.
    fields: Vec<(&'static str, String)>,
}

/// The tables in which a port is looked up while it is written.
#[derive(Clone, Copy)]
struct Lookups<'a> {
    names: &'a Names,
    rtts: &'a [OpenRtt],
}

impl Lookups<'_> {
    /// The round trip of an open port in milliseconds; empty if it is unknown.
    fn rtt(&self, address: IpAddr, port: u16) -> String {
        let key = |it: &OpenRtt| (it.address, it.port);
        match self.rtts.binary_search_by_key(&(address, port), key) {
            Ok(found) => {
                let micros = (self.rtts[found].rtt.as_nanos() + 500) / 1000;
                format!("{}.{:03}", micros / 1000, micros % 1000)
            }
            Err(_) => String::new(),
        }
    }
}

/// A list of ports within the text.
#[derive(Debug)]
struct PortListSlot<'a> {
    /// The number of bytes of the text that precede the list.
    at: usize,
    style: Style,
    ports: Cow<'a, PortSet>,
    /// The lowest port that is not written yet.
    from: u32,
    /// Whether nothing was written into this slot yet.
    is_blank: bool,
}

/// The style in which ports are written.
#[derive(Clone, Copy, Debug)]
enum Style {
    /// `22,80`
    Numbers,
    /// `1-21,23`
    Ranges,
    /// `"22":"ssh","80":"http"`: only the ports that have a name.
    Services,
    /// One port per line.
    Lines,
    /// `192.0.2.7,22,open,ssh,0.410`, one port per line.
    Csv { address: IpAddr, state: PortState },
}

impl<'a> EndWriter<'a> {
    /// Prepares the whole end.
    ///
    /// Panics if the summary contradicts itself.
    pub fn new(form: Form, summary: &Summary<'a>) -> Self {
        summary.check();
        let mut ending = Self {
            text: Vec::with_capacity(TEXT_BYTES_USUAL),
            written: 0,
            slots: VecDeque::new(),
            rtts: Vec::new(),
            fields: Vec::new(),
        };
        let (before, after) = match form {
            Form::Json => ("{", "}\n"),
            Form::Ndjson => ("{\"event\":\"end\",", "}\n"),
            Form::EventStream => (END_EVENT, "}\n\n"),
            Form::Text => {
                ending.push_slot(Style::Lines, summary.open);
                ending.fields = completeness_fields(summary);
                return ending;
            }
            Form::Csv => {
                ending.push_csv(summary);
                ending.fields = completeness_fields(summary);
                return ending;
            }
        };
        ending.push(before);
        ending.push_fields(summary);
        ending.push(after);
        ending
    }

    /// Copies the sets, so that the writer can outlive the sets of the scan.
    pub fn into_owned(self) -> EndWriter<'static> {
        let own = |slot: PortListSlot| PortListSlot {
            ports: Cow::Owned(slot.ports.into_owned()),
            ..slot
        };
        let slots = self.slots.into_iter().map(own).collect();
        EndWriter { slots, ..self }
    }

    /// The header fields of the answer for facts that the form cannot contain.
    pub fn fields(&self) -> &[(&'static str, String)] {
        &self.fields
    }

    /// Whether everything is written.
    pub fn is_written(&self) -> bool {
        self.slots.is_empty() && self.written == self.text.len()
    }

    /// The number of bytes of text that [`EndWriter::write`] has yet to write.
    pub fn len(&self, names: &Names) -> usize {
        let lookups = Lookups { names, rtts: &self.rtts };
        let slots: usize = self.slots.iter().map(|slot| slot.len(lookups)).sum();
        self.text.len() - self.written + slots
    }

    /// The number of bytes of memory that the unwritten part occupies.
    pub fn kept_bytes(&self) -> usize {
        let sets: usize = self.slots.iter().map(|slot| slot.ports.heap_bytes()).sum();
        self.text.capacity() + sets + self.rtts.capacity() * size_of::<OpenRtt>()
    }

    /// Appends as much of the rest as fits into `room` bytes, exceeding them by at most one port or
    /// range. `names` has the names of services if the summary includes them.
    pub fn write(&mut self, out: &mut Vec<u8>, room: usize, names: &Names) {
        let full = out.len().saturating_add(room);
        while out.len() < full && !self.is_written() {
            let stop = self.slots.front().map_or(self.text.len(), |slot| slot.at);
            if self.written < stop {
                let end = stop.min(self.written + (full - out.len()));
                out.extend_from_slice(&self.text[self.written..end]);
                self.written = end;
            } else if let Some(slot) = self.slots.front_mut()
                && slot.write(out, full, Lookups { names, rtts: &self.rtts })
            {
                self.slots.pop_front();
            }
        }
    }

    fn push(&mut self, text: &str) {
        self.text.extend_from_slice(text.as_bytes());
    }

    fn push_slot(&mut self, style: Style, ports: &'a PortSet) {
        self.slots.push_back(PortListSlot::new(self.text.len(), style, ports));
    }

    /// Adds a list of ports between two texts.
    fn push_ports(&mut self, before: &str, style: Style, ports: &'a PortSet, after: &str) {
        self.push(before);
        self.push_slot(style, ports);
        self.push(after);
    }

    /// Adds a value after a text.
    fn push_value(&mut self, before: &str, value: &impl Serialize) {
        self.push(before);
        write_json(&mut self.text, value);
    }

    /// Adds everything except the braces.
    fn push_fields(&mut self, summary: &Summary<'a>) {
        self.push_value("\"from_port\":", &summary.from_port);
        self.push_value(",\"to_port\":", &summary.to_port);
        self.push_value(",\"domain\":", &summary.domain);
        self.push_ports(",\"open_ports\":[", Style::Numbers, summary.open, "]");
        self.push_value(",\"address\":", &summary.address);
        self.push_value(",\"counts\":", &States(summary.counts));
        self.push_value(",\"complete\":", &summary.complete);
        self.push_value(",\"retried\":", &summary.retried);
        self.push_value(",\"loss_suspected\":", &summary.loss_suspected);
        self.push_value(",\"loss\":", &summary.loss.map(rounded));
        self.push_value(",\"elapsed_ms\":", &(summary.elapsed.as_millis() as u64));
        let lists = [
            (",\"closed_ports\":\"", summary.closed),
            (",\"filtered_ports\":\"", summary.filtered),
            (",\"unreachable_ports\":\"", summary.unreachable),
        ];
        for (key, ports) in lists {
            if let Some(ports) = ports {
                self.push_ports(key, Style::Ranges, ports, "\"");
            }
        }
        if let Some(services) = summary.services {
            self.push_ports(",\"services\":{", Style::Services, services.open, "}");
        }
        if let Some(results) = summary.results {
            self.push_results(results);
        }
        if !summary.details.other_addresses.is_empty() {
            self.push_value(",\"other_addresses\":", &summary.details.other_addresses);
        }
    }

    /// Adds one line for each port, ordered by address and then by state.
    fn push_csv(&mut self, summary: &Summary<'a>) {
        self.push("address,port,state,service,rtt_ms\n");
        self.rtts = summary.details.rtts.to_vec();
        debug_assert!(self.rtts.is_sorted(), "round trips are found by binary search");
        for ports in summary.details.by_address {
            let sets = [
                (PortState::Open, Some(ports.open)),
                (PortState::Closed, ports.closed),
                (PortState::Filtered, ports.filtered),
                (PortState::Unreachable, ports.unreachable),
            ];
            for (state, set) in sets {
                if let Some(set) = set {
                    self.push_slot(Style::Csv { address: ports.address, state }, set);
                }
            }
        }
    }

    fn push_results(&mut self, results: &[AddressResult<'a>]) {
        self.push(",\"results\":[");
        for (index, result) in results.iter().enumerate() {
            let before = if index > 0 { ",{\"address\":" } else { "{\"address\":" };
            self.push_value(before, &result.address);
            self.push_ports(",\"open_ports\":[", Style::Numbers, result.open, "]");
            self.push_value(",\"counts\":", &States(result.counts));
            self.push("}");
        }
        self.push("]");
    }
}

impl<'a> PortListSlot<'a> {
    const fn new(at: usize, style: Style, ports: &'a PortSet) -> Self {
        Self { at, style, ports: Cow::Borrowed(ports), from: 0, is_blank: true }
    }

    /// Appends ports until `out` has `full` bytes. Returns true when no port is left.
    fn write(&mut self, out: &mut Vec<u8>, full: usize, lookups: Lookups) -> bool {
        while out.len() < full {
            let Some((first, last)) = self.next_item(lookups.names) else { return true };
            self.from = u32::from(last) + 1;
            if !self.is_blank && !matches!(self.style, Style::Lines | Style::Csv { .. }) {
                out.push(b',');
            }
            self.is_blank = false;
            match self.style {
                Style::Numbers => write_json(out, &first),
                Style::Lines => {
                    write_json(out, &first);
                    out.push(b'\n');
                }
                Style::Ranges => {
                    write_json(out, &first);
                    if last > first {
                        out.push(b'-');
                        write_json(out, &last);
                    }
                }
                Style::Services => {
                    out.extend_from_slice(format!("\"{first}\":").as_bytes());
                    write_json(out, &lookups.names.of(first));
                }
                Style::Csv { address, state } => {
                    let line = csv_line(lookups, address, first, state);
                    out.extend_from_slice(line.as_bytes());
                }
            }
        }
        false
    }

    /// The length of the whole list, including a part that is already written.
    fn len(&self, lookups: Lookups) -> usize {
        match self.style {
            Style::Numbers => self.ports.digits_len() + self.ports.len().saturating_sub(1),
            Style::Lines => self.ports.digits_len() + self.ports.len(),
            Style::Ranges => self.ports.ranges_len(),
            Style::Services => {
                let (mut blank, mut out) =
                    (PortListSlot::new(self.at, self.style, &self.ports), Vec::new());
                blank.write(&mut out, usize::MAX, lookups);
                out.len()
            }
            Style::Csv { address, state } => {
                self.ports.iter().map(|port| csv_line(lookups, address, port, state).len()).sum()
            }
        }
    }

    /// The next port or range to be written, and its last port.
    fn next_item(&self, names: &Names) -> Option<(u16, u16)> {
        match self.style {
            Style::Ranges => self.ports.next_range_from(self.from),
            Style::Numbers | Style::Lines | Style::Csv { .. } => {
                self.ports.next_from(self.from).map(|port| (port, port))
            }
            Style::Services => {
                let mut from = self.from;
                loop {
                    let port = self.ports.next_from(from)?;
                    if !names.of(port).is_empty() {
                        return Some((port, port));
                    }
                    from = u32::from(port) + 1;
                }
            }
        }
    }
}

/// The last event of a stream. A client that reconnects with its id does not need another scan.
const END_EVENT: &str = "id: end\nevent: end\ndata: {\"event\":\"end\",";

/// The id of the last event of a stream of server-sent events.
pub const END_ID: &str = "end";

/// Reports the completeness of the scan in header fields, for forms that contain only ports.
fn completeness_fields(summary: &Summary) -> Vec<(&'static str, String)> {
    vec![
        ("Openports-Complete", summary.complete.to_string()),
        ("Openports-Untested", summary.counts.untested.to_string()),
        ("Openports-Unreachable", summary.counts.unreachable.to_string()),
        ("Openports-Other-Addresses", summary.details.other_addresses.len().to_string()),
    ]
}

/// A record of RFC 4180, except that its line ends in LF alone, as in the other lists: with CR LF,
/// a program that reads lines from a pipe would find a CR in the last column.
fn csv_line(lookups: Lookups, address: IpAddr, port: u16, state: PortState) -> String {
    let service = csv_field(lookups.names.of(port));
    let rtt = match state {
        PortState::Open => lookups.rtt(address, port),
        PortState::Closed | PortState::Filtered | PortState::Unreachable | PortState::Untested => {
            String::new()
        }
    };
    format!("{address},{port},{},{service},{rtt}\n", state_label(state))
}

/// A text as a field of CSV (RFC 4180 section 2).
pub fn csv_field(text: &str) -> Cow<'_, str> {
    match text.contains(['"', ',']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")).into(),
        false => text.into(),
    }
}

const fn state_label(state: PortState) -> &'static str {
    match state {
        PortState::Open => "open",
        PortState::Closed => "closed",
        PortState::Filtered => "filtered",
        PortState::Unreachable => "unreachable",
        PortState::Untested => "untested",
    }
}

/// The counts in the form of the contract.
struct States(Counts);

impl Serialize for States {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_struct("Counts", 5)?;
        object.serialize_field("open", &self.0.open)?;
        object.serialize_field("closed", &self.0.closed)?;
        object.serialize_field("filtered", &self.0.filtered)?;
        object.serialize_field("unreachable", &self.0.unreachable)?;
        object.serialize_field("untested", &self.0.untested)?;
        object.end()
    }
}

/// A share rounded to four decimals, which is the precision of a few thousand exchanges.
fn rounded(share: f64) -> f64 {
    (share * 10_000.0).round() / 10_000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::time::Duration;

    use crate::scan::summary::{AddressPorts, AddressResult, Details, Services};

    fn written(form: Form, summary: &Summary) -> String {
        let mut out = Vec::new();
        write_end(&mut out, form, summary);
        let whole = String::from_utf8(out).unwrap();
        let unnamed = Names::default();
        let len =
            EndWriter::new(form, summary).len(summary.services.map_or(&unnamed, |it| it.names));
        assert_eq!(len, whole.len(), "the computed length is the real one");
        let names = summary.services.map_or(&Names::default(), |it| it.names).clone();
        for room in [1, 2, 7, 64, 4096] {
            assert_eq!(in_pieces(EndWriter::new(form, summary), room, &names), whole, "{room}");
        }
        whole
    }

    fn in_pieces(ending: EndWriter, room: usize, names: &Names) -> String {
        let (mut ending, mut text) = (ending.into_owned(), Vec::new());
        while !ending.is_written() {
            let (len_before, kept_before) = (text.len(), ending.kept_bytes());
            ending.write(&mut text, room, names);
            assert!(text.len() - len_before < room + 48, "the output exceeds the room");
            assert!(ending.kept_bytes() <= kept_before, "the kept memory has grown");
        }
        String::from_utf8(text).unwrap()
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
            loss: None,
            elapsed: Duration::from_micros(2_013_999),
            closed: None,
            filtered: None,
            unreachable: None,
            services: None,
            results: None,
            details: Details::default(),
        }
    }

    /// The example of the contract, byte for byte.
    const EXAMPLE: &str = concat!(
        r#"{"from_port":1,"to_port":1024,"domain":"example.com","open_ports":[22,80],"#,
        r#""address":"192.0.2.7","counts":{"open":2,"closed":1000,"filtered":22,"#,
        r#""unreachable":0,"untested":0},"complete":true,"retried":0,"#,
        r#""loss_suspected":false,"loss":null,"elapsed_ms":2013}"#,
    );

    #[test]
    fn a_summary_is_written_as_in_the_contract() {
        let open = PortSet::parse("80,22").unwrap();
        let end = summary(&open);
        let in_stream = EXAMPLE.replacen('{', r#"{"event":"end","#, 1);
        let check = |form, expected: &str| assert_eq!(written(form, &end), expected);
        check(Form::Json, &format!("{EXAMPLE}\n"));
        check(Form::Text, "22\n80\n");
        check(Form::Ndjson, &format!("{in_stream}\n"));
        check(Form::EventStream, &format!("id: end\nevent: end\ndata: {in_stream}\n\n"));
    }

    #[test]
    fn no_open_port_is_an_empty_array_and_an_empty_text() {
        let none = PortSet::new();
        let two = PortSet::parse("1,2").unwrap();
        let counts = Counts { closed: 1024, ..Counts::default() };
        let end = Summary { open: &none, counts, ..summary(&two) };
        assert!(written(Form::Json, &end).contains(r#""open_ports":[],"#));
        assert_eq!(written(Form::Text, &end), "");
    }

    #[test]
    fn the_states_that_include_selects_follow_as_ranges() {
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
        let text = written(Form::Json, &lists);
        let tail = r#""closed_ports":"1-21,23-79","filtered_ports":"","unreachable_ports":""}"#;
        assert!(text.trim_end().ends_with(&format!(r#""elapsed_ms":2013,{tail}"#)), "{text}");
    }

    #[test]
    fn csv_has_a_line_for_each_port_of_each_address() {
        let (open, none) = (PortSet::parse("22,80").unwrap(), PortSet::new());
        let closed = PortSet::parse("81-82").unwrap();
        let names = Names::parse(b"a,b\"c 81/tcp\n");
        let first = [192, 0, 2, 7].into();
        let second = "2001:db8::7".parse().unwrap();
        let ports = AddressPorts {
            address: first,
            open: &open,
            closed: Some(&closed),
            filtered: None,
            unreachable: Some(&none),
        };
        let by_address = [ports, AddressPorts { address: second, closed: None, ..ports }];
        let rtts = [
            OpenRtt { address: first, port: 80, rtt: Duration::from_nanos(410_499) },
            OpenRtt { address: second, port: 22, rtt: Duration::from_millis(1050) },
        ];
        let details = Details { by_address: &by_address, rtts: &rtts, ..Details::default() };
        let services = Some(Services { open: &open, names: &names });
        assert_eq!(
            written(Form::Csv, &Summary { details, services, ..summary(&open) }),
            "address,port,state,service,rtt_ms\n\
            192.0.2.7,22,open,ssh,\n\
            192.0.2.7,80,open,http,0.410\n\
            192.0.2.7,81,closed,\"a,b\"\"c\",\n\
            192.0.2.7,82,closed,,\n\
            2001:db8::7,22,open,ssh,1050.000\n\
            2001:db8::7,80,open,http,\n"
        );
    }

    #[test]
    fn text_and_csv_report_the_completeness_of_the_scan_in_the_head() {
        let open = PortSet::parse("22,80").unwrap();
        let counts = Counts { open: 2, unreachable: 3, untested: 4, ..Counts::default() };
        let others = [[192, 0, 2, 8].into()];
        let details = Details { other_addresses: &others, ..Details::default() };
        let cut = Summary { counts, complete: false, details, ..summary(&open) };
        for form in Form::ALL {
            let fields = EndWriter::new(form, &cut).fields().to_vec();
            let expected = [
                ("Openports-Complete", "false".to_owned()),
                ("Openports-Untested", "4".to_owned()),
                ("Openports-Unreachable", "3".to_owned()),
                ("Openports-Other-Addresses", "1".to_owned()),
            ];
            let is_bare = matches!(form, Form::Text | Form::Csv);
            assert_eq!(fields, if is_bare { expected.to_vec() } else { Vec::new() }, "{form:?}");
        }
    }

    #[test]
    fn addresses_that_were_not_scanned_are_listed_last() {
        let open = PortSet::parse("22,80").unwrap();
        let others = ["2001:db8::7".parse().unwrap(), [192, 0, 2, 8].into()];
        let details = Details { other_addresses: &others, ..Details::default() };
        let text = written(Form::Json, &Summary { details, ..summary(&open) });
        let tail = r#""elapsed_ms":2013,"other_addresses":["2001:db8::7","192.0.2.8"]}"#;
        assert!(text.trim_end().ends_with(tail), "{text}");
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
            let end = named;
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
    fn several_addresses_follow_their_union_one_by_one() {
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
        let text = written(Form::Json, &all);
        let tail = concat!(
            r#""elapsed_ms":2013,"results":[{"address":"192.0.2.7","open_ports":[22],"#,
            r#""counts":{"open":1,"closed":1023,"filtered":0,"unreachable":0,"untested":0}},"#,
            r#"{"address":"2001:db8::7","open_ports":[22,80],"#,
            r#""counts":{"open":1,"closed":1023,"filtered":0,"unreachable":0,"untested":0}}]}"#,
        );
        assert!(text.trim_end().ends_with(tail), "{text}");
    }

    #[test]
    #[should_panic(expected = "2: complete")]
    fn a_summary_that_contradicts_itself_panics() {
        let open = PortSet::parse("1,2").unwrap();
        let mut contradictory = summary(&open);
        contradictory.counts.untested = 1;
        written(Form::Json, &contradictory);
    }

    #[test]
    fn every_form_can_hold_every_port_open() {
        let every = PortSet::from_range(1, 65_535);
        let two = PortSet::parse("1,2").unwrap();
        let counts = Counts { open: 65_535, ..Counts::default() };
        let end = Summary { open: &every, to_port: 65_535, counts, ..summary(&two) };
        assert_eq!(written(Form::Text, &end).lines().count(), 65_535);
        let json: serde_json::Value = serde_json::from_str(&written(Form::Json, &end)).unwrap();
        assert_eq!(json["open_ports"].as_array().unwrap().len(), 65_535);
    }
}
