//! The end of a scan as text: JSON, NDJSON, server-sent events, plain text.
//!
//! Where every port is open it has 400 KB, and 64 times as much for a name of 64 such addresses. A
//! reader of a stream that takes none of it shall not cost that, so an [`Ending`] keeps ports as
//! the sets that they came in, 8 KB each at most, and makes text of as many as there is room for.
//!
//! Invariants:
//! 1. The keys and their order are the contract's; a key is added at the end or not at all.
//! 2. The text is the same however it is cut into pieces.

use std::borrow::Cow;
use std::collections::VecDeque;

use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};

use super::accept::Form;
use super::answer::write_json;
use super::summary::{AddressResult, Summary};
use crate::names::Names;
use crate::scan::ledger::Counts;
use crate::target::PortSet;

/// Appends the end of a scan, whole.
///
/// Panics if the summary contradicts itself.
pub fn write_end(out: &mut Vec<u8>, form: Form, summary: &Summary) {
    let unnamed = Names::default();
    let names = summary.services.map_or(&unnamed, |services| services.names);
    Ending::new(form, summary).write(out, usize::MAX, names);
}

/// Bytes of an end without its ports, where one address was scanned.
const TEXT_BYTES_USUAL: usize = 512;

/// The end of a scan, as far as it is not yet told: a text with holes, into which ports come.
#[derive(Debug)]
pub struct Ending<'a> {
    /// Everything but the ports.
    text: Vec<u8>,
    /// How many bytes of `text` are told.
    told: usize,
    /// The holes that are not told, in order.
    holes: VecDeque<Hole<'a>>,
}

/// Ports that stand within a text.
#[derive(Debug)]
struct Hole<'a> {
    /// How many bytes of the text stand before it.
    at: usize,
    style: Style,
    ports: Cow<'a, PortSet>,
    /// Those below are told.
    from: u32,
    /// True exactly when nothing was written into it.
    is_blank: bool,
}

/// How ports are written.
#[derive(Clone, Copy, Debug)]
enum Style {
    /// `22,80`
    Numbers,
    /// `1-21,23`
    Ranges,
    /// `"22":"ssh","80":"http"`: those that have a name.
    Services,
    /// One a line.
    Lines,
}

impl<'a> Ending<'a> {
    /// All of the end.
    ///
    /// Panics if the summary contradicts itself.
    pub fn new(form: Form, summary: &Summary<'a>) -> Self {
        summary.check();
        let mut ending =
            Self { text: Vec::with_capacity(TEXT_BYTES_USUAL), told: 0, holes: VecDeque::new() };
        let (before, after) = match form {
            Form::Json => ("{", "}"),
            Form::Ndjson => ("{\"event\":\"end\",", "}\n"),
            Form::EventStream => ("event: end\ndata: {\"event\":\"end\",", "}\n\n"),
            Form::Text => {
                ending.push_hole(Style::Lines, summary.open);
                return ending;
            }
        };
        ending.push(before);
        ending.push_fields(summary);
        ending.push(after);
        ending
    }

    /// The same, to be kept for longer than the scan's own sets.
    pub fn into_owned(self) -> Ending<'static> {
        let own = |hole: Hole| Hole { ports: Cow::Owned(hole.ports.into_owned()), ..hole };
        let holes = self.holes.into_iter().map(own).collect();
        Ending { text: self.text, told: self.told, holes }
    }

    /// True exactly when nothing is left.
    pub fn is_told(&self) -> bool {
        self.holes.is_empty() && self.told == self.text.len()
    }

    /// Bytes of text that [`Ending::write`] has yet to write.
    pub fn len(&self, names: &Names) -> usize {
        let holes: usize = self.holes.iter().map(|hole| hole.len(names)).sum();
        self.text.len() - self.told + holes
    }

    /// Bytes of memory that are kept for what is left.
    pub fn kept_bytes(&self) -> usize {
        let sets: usize = self.holes.iter().map(|hole| hole.ports.heap_bytes()).sum();
        self.text.capacity() + sets
    }

    /// Appends as much of what is left as `room` bytes hold, and one port or range more at most.
    /// `names` says what services are called, where the summary tells of them.
    pub fn write(&mut self, out: &mut Vec<u8>, room: usize, names: &Names) {
        let full = out.len().saturating_add(room);
        while out.len() < full && !self.is_told() {
            let stop = self.holes.front().map_or(self.text.len(), |hole| hole.at);
            if self.told < stop {
                let end = stop.min(self.told + (full - out.len()));
                out.extend_from_slice(&self.text[self.told..end]);
                self.told = end;
            } else if let Some(hole) = self.holes.front_mut()
                && hole.write(out, full, names)
            {
                self.holes.pop_front();
            }
        }
    }

    fn push(&mut self, text: &str) {
        self.text.extend_from_slice(text.as_bytes());
    }

    fn push_hole(&mut self, style: Style, ports: &'a PortSet) {
        self.holes.push_back(Hole::new(self.text.len(), style, ports));
    }

    /// Ports between two texts.
    fn push_ports(&mut self, before: &str, (style, ports): (Style, &'a PortSet), after: &str) {
        self.push(before);
        self.push_hole(style, ports);
        self.push(after);
    }

    /// A value behind a text.
    fn push_value(&mut self, before: &str, value: &impl Serialize) {
        self.push(before);
        write_json(&mut self.text, value);
    }

    /// All but the braces.
    fn push_fields(&mut self, summary: &Summary<'a>) {
        self.push_value("\"from_port\":", &summary.from_port);
        self.push_value(",\"to_port\":", &summary.to_port);
        self.push_value(",\"domain\":", &summary.domain);
        self.push_ports(",\"open_ports\":[", (Style::Numbers, summary.open), "]");
        self.push_value(",\"address\":", &summary.address);
        self.push_value(",\"counts\":", &States(summary.counts));
        self.push_value(",\"complete\":", &summary.complete);
        self.push_value(",\"retried\":", &summary.retried);
        self.push_value(",\"loss_suspected\":", &summary.loss_suspected);
        self.push_value(",\"elapsed_ms\":", &(summary.elapsed.as_millis() as u64));
        let lists = [
            (",\"closed_ports\":\"", summary.closed),
            (",\"filtered_ports\":\"", summary.filtered),
            (",\"unreachable_ports\":\"", summary.unreachable),
        ];
        for (key, ports) in lists {
            if let Some(ports) = ports {
                self.push_ports(key, (Style::Ranges, ports), "\"");
            }
        }
        if let Some(services) = summary.services {
            self.push_ports(",\"services\":{", (Style::Services, services.open), "}");
        }
        if let Some(results) = summary.results {
            self.push_results(results);
        }
    }

    fn push_results(&mut self, results: &[AddressResult<'a>]) {
        self.push(",\"results\":[");
        for (index, result) in results.iter().enumerate() {
            let before = if index > 0 { ",{\"address\":" } else { "{\"address\":" };
            self.push_value(before, &result.address);
            self.push_ports(",\"open_ports\":[", (Style::Numbers, result.open), "]");
            self.push_value(",\"counts\":", &States(result.counts));
            self.push("}");
        }
        self.push("]");
    }
}

impl<'a> Hole<'a> {
    const fn new(at: usize, style: Style, ports: &'a PortSet) -> Self {
        Self { at, style, ports: Cow::Borrowed(ports), from: 0, is_blank: true }
    }
    /// Appends ports until `out` is `full` bytes long: true when none is left.
    fn write(&mut self, out: &mut Vec<u8>, full: usize, names: &Names) -> bool {
        while out.len() < full {
            let Some((first, last)) = self.next_item(names) else { return true };
            self.from = u32::from(last) + 1;
            if !self.is_blank && !matches!(self.style, Style::Lines) {
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
                    write_json(out, &names.of(first));
                }
            }
        }
        false
    }

    /// Bytes that are written into it, all in all.
    fn len(&self, names: &Names) -> usize {
        match self.style {
            Style::Numbers => self.ports.digits_len() + self.ports.len().saturating_sub(1),
            Style::Lines => self.ports.digits_len() + self.ports.len(),
            Style::Ranges => self.ports.ranges_len(),
            Style::Services => {
                let (mut blank, mut out) =
                    (Hole::new(self.at, self.style, &self.ports), Vec::new());
                blank.write(&mut out, usize::MAX, names);
                out.len()
            }
        }
    }

    /// The next port or range to be written, and its last port.
    fn next_item(&self, names: &Names) -> Option<(u16, u16)> {
        match self.style {
            Style::Ranges => self.ports.next_range_from(self.from),
            Style::Numbers | Style::Lines => {
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

/// Counts, as the contract has them.
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

#[cfg(test)]
mod tests {
    use super::*;

    use std::time::Duration;

    use crate::api::summary::{AddressResult, Services};

    fn written(form: Form, summary: &Summary) -> String {
        let mut out = Vec::new();
        write_end(&mut out, form, summary);
        let whole = String::from_utf8(out).unwrap();
        let unnamed = Names::default();
        let len = Ending::new(form, summary).len(summary.services.map_or(&unnamed, |it| it.names));
        assert_eq!(len, whole.len(), "it is as long as it says");
        let names = summary.services.map_or(&Names::default(), |it| it.names).clone();
        for room in [1, 2, 7, 64, 4096] {
            assert_eq!(in_pieces(Ending::new(form, summary), room, &names), whole, "{room}");
        }
        whole
    }

    fn in_pieces(ending: Ending, room: usize, names: &Names) -> String {
        let (mut ending, mut text) = (ending.into_owned(), Vec::new());
        while !ending.is_told() {
            let (len_before, kept_before) = (text.len(), ending.kept_bytes());
            ending.write(&mut text, room, names);
            assert!(text.len() - len_before < room + 48, "more than there is room for");
            assert!(ending.kept_bytes() <= kept_before, "nothing is kept twice");
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
        let end = summary(&open);
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
        let end = Summary { open: &none, counts, ..summary(&two) };
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
        let text = written(Form::Json, &lists);
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
        let text = written(Form::Json, &all);
        let tail = concat!(
            r#""elapsed_ms":2013,"results":[{"address":"192.0.2.7","open_ports":[22],"#,
            r#""counts":{"open":1,"closed":1023,"filtered":0,"unreachable":0,"untested":0}},"#,
            r#"{"address":"2001:db8::7","open_ports":[22,80],"#,
            r#""counts":{"open":1,"closed":1023,"filtered":0,"unreachable":0,"untested":0}}]}"#,
        );
        assert!(text.ends_with(tail), "{text}");
    }

    #[test]
    #[should_panic(expected = "2: complete")]
    fn a_summary_that_contradicts_itself_is_our_bug() {
        let open = PortSet::parse("1,2").unwrap();
        let mut contradictory = summary(&open);
        contradictory.counts.untested = 1;
        written(Form::Json, &contradictory);
    }

    #[test]
    fn every_port_open_is_told_in_every_form() {
        let every = PortSet::from_range(1, 65_535);
        let two = PortSet::parse("1,2").unwrap();
        let counts = Counts { open: 65_535, ..Counts::default() };
        let end = Summary { open: &every, to_port: 65_535, counts, ..summary(&two) };
        assert_eq!(written(Form::Text, &end).lines().count(), 65_535);
        let json: serde_json::Value = serde_json::from_str(&written(Form::Json, &end)).unwrap();
        assert_eq!(json["open_ports"].as_array().unwrap().len(), 65_535);
    }
}
