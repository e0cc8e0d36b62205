//! Proactive negotiation: selects the form of an answer from the `Accept` field (RFC 9110 12.5.1).
//!
//! Parsing is lenient, as the RFC advises for a field that states a preference: a malformed member
//! is skipped, and a field without a valid member counts as absent. No form is selected only if the
//! field rules out all five. This module has no state; `api` calls it.

/// The form of the answer to a scan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Form {
    /// One JSON object, sent at the end of the scan.
    Json,
    /// The open ports, one per line, sent at the end of the scan.
    Text,
    /// One line for each open port with its address and service, sent at the end of the scan.
    Csv,
    /// One JSON object per line, sent as the events happen.
    Ndjson,
    /// Server-sent events, sent as they happen.
    EventStream,
}

impl Form {
    /// All forms. Among forms of equal weight the first one is preferred: for `text/*` a plain text
    /// is better than a stream of events.
    pub const ALL: [Self; 5] = [Self::Json, Self::Text, Self::Csv, Self::Ndjson, Self::EventStream];

    /// The Content-Type field.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Text => "text/plain; charset=utf-8",
            Self::Csv => "text/csv; charset=utf-8",
            Self::Ndjson => "application/x-ndjson",
            Self::EventStream => "text/event-stream",
        }
    }

    /// Whether the answer is written while the scan runs.
    pub const fn is_streamed(self) -> bool {
        match self {
            Self::Json | Self::Text | Self::Csv => false,
            Self::Ndjson | Self::EventStream => true,
        }
    }

    /// Whether the answer has one line for each port, with its address and round trip.
    pub const fn has_port_lines(self) -> bool {
        match self {
            Self::Csv => true,
            Self::Json | Self::Text | Self::Ndjson | Self::EventStream => false,
        }
    }

    const fn media_type(self) -> MediaType {
        match self {
            Self::Json => MediaType { kind: "application", subtype: "json" },
            Self::Text => MediaType { kind: "text", subtype: "plain" },
            Self::Csv => MediaType { kind: "text", subtype: "csv" },
            Self::Ndjson => MediaType { kind: "application", subtype: "x-ndjson" },
            Self::EventStream => MediaType { kind: "text", subtype: "event-stream" },
        }
    }
}

/// The form that the values of all `Accept` lines prefer; `None` if they rule out all forms.
pub fn negotiate<'a>(lines: impl Iterator<Item = &'a str>) -> Option<Form> {
    let ranges = parse_ranges(lines);
    if ranges.is_empty() {
        return Some(Form::Json);
    }
    let mut best: Option<(Form, Weight)> = None;
    for form in Form::ALL {
        let weight = weight_of(form.media_type(), &ranges);
        if weight > best.map_or(0, |(_, weight)| weight) {
            best = Some((form, weight));
        }
    }
    assert!(best.is_none_or(|(_, weight)| weight > 0), "a form of weight 0 is ruled out");
    best.map(|(form, _)| form)
}

/// Whether the values of all `Accept` lines prefer a page to a plain text, as those of a browser
/// do. A client that accepts every type, such as curl, is not a browser.
pub fn prefers_page<'a>(lines: impl Iterator<Item = &'a str>) -> bool {
    let ranges = parse_ranges(lines);
    let page = MediaType { kind: "text", subtype: "html" };
    weight_of(page, &ranges) > weight_of(Form::Text.media_type(), &ranges)
}

/// A quality value in thousandths, 0 to 1000.
type Weight = u16;

/// A type and a subtype.
#[derive(Clone, Copy, Debug)]
struct MediaType {
    kind: &'static str,
    subtype: &'static str,
}

/// The media ranges of a list. Parameters other than `q` are ignored: no form of this service has a
/// significant parameter, and `application/json;charset=utf-8` means JSON.
fn parse_ranges<'a>(lines: impl Iterator<Item = &'a str>) -> Vec<Range<'a>> {
    let mut ranges = Vec::new();
    for line in lines {
        ranges.extend(split(line, ',').filter_map(Range::parse));
    }
    ranges
}

/// The weight of the most specific range that matches; the highest among equally specific ones.
fn weight_of(media: MediaType, ranges: &[Range]) -> Weight {
    let matching =
        ranges.iter().filter_map(|range| Some((range.specificity(media)?, range.weight)));
    let weight = matching.max().map_or(0, |(_, weight)| weight);
    assert!(weight <= 1000, "`parse_weight` keeps to the range");
    weight
}

/// One member of the list: a media range and its weight.
#[derive(Debug)]
struct Range<'a> {
    kind: &'a str,
    subtype: &'a str,
    weight: Weight,
}

impl<'a> Range<'a> {
    /// Parses a member. Returns `None` if it is not a media range or has a malformed weight.
    fn parse(member: &'a str) -> Option<Self> {
        let mut parts = split(member, ';');
        let (range, mut weight) = (parts.next()?, 1000);
        for parameter in parts {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            if name.trim_end().eq_ignore_ascii_case("q") {
                weight = parse_weight(value.trim_start())?;
            }
        }
        // URLConnection of Java sends `*` alone.
        let (kind, subtype) = if range == "*" { ("*", "*") } else { range.split_once('/')? };
        let is_sound = is_token(kind) && is_token(subtype) && (kind != "*" || subtype == "*");
        is_sound.then_some(Self { kind, subtype, weight })
    }

    /// How specifically the range names the type; `None` if it does not match.
    fn specificity(&self, media: MediaType) -> Option<u8> {
        let MediaType { kind, subtype } = media;
        let names = |range: &str, word| range.eq_ignore_ascii_case(word);
        match (self.kind, self.subtype) {
            ("*", _) => Some(0),
            (range, "*") => names(range, kind).then_some(1),
            (range, subrange) => (names(range, kind) && names(subrange, subtype)).then_some(2),
        }
    }
}

/// `0`, `1`, or a number between them with at most three decimals. The zero before the point may be
/// missing.
fn parse_weight(text: &str) -> Option<Weight> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    let is_decimal = decimals.len() <= 3 && decimals.bytes().all(|byte| byte.is_ascii_digit());
    let thousands = match whole {
        "0" => 0,
        "" if !decimals.is_empty() => 0,
        "1" => 1000,
        _ => return None,
    };
    if !is_decimal {
        return None;
    }
    let digits = decimals.bytes().chain(std::iter::repeat(b'0')).take(3);
    let weight = digits.fold(0, |value, digit| value * 10 + Weight::from(digit - b'0')) + thousands;
    (weight <= 1000).then_some(weight)
}

/// Whether the text is a token (RFC 9110 section 5.6.2).
fn is_token(text: &str) -> bool {
    let is_token_byte =
        |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(is_token_byte)
}

/// Splits at a delimiter outside quoted strings (RFC 9110 section 5.6.4), and trims the parts.
fn split(text: &str, delimiter: char) -> impl Iterator<Item = &str> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    let is_boundary = move |c: char| {
        if is_escaped {
            is_escaped = false;
        } else if c == '"' {
            is_quoted = !is_quoted;
        } else {
            is_escaped = is_quoted && c == '\\';
        }
        c == delimiter && !is_quoted
    };
    text.split(is_boundary).map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(lines: &[&str], expected: Option<Form>) {
        assert_eq!(negotiate(lines.iter().copied()), expected, "{lines:?}");
    }

    #[test]
    fn without_a_preference_the_answer_is_json() {
        check(&[], Some(Form::Json));
        check(&[""], Some(Form::Json));
        check(&[" , ,"], Some(Form::Json));
        check(&["*/*"], Some(Form::Json));
        check(&["*"], Some(Form::Json));
    }

    #[test]
    fn each_form_is_chosen_by_its_media_type_in_any_case() {
        for form in Form::ALL {
            let MediaType { kind, subtype } = form.media_type();
            check(&[&format!("{kind}/{subtype}")], Some(form));
            check(&[&format!("{kind}/{subtype}").to_uppercase()], Some(form));
            assert!(form.content_type().starts_with(&format!("{kind}/{subtype}")));
            let has_events = ["x-ndjson", "event-stream"].contains(&subtype);
            assert_eq!(form.is_streamed(), has_events, "{subtype}");
        }
    }

    #[test]
    fn the_greatest_weight_wins_and_ties_go_to_json() {
        check(&["text/plain, application/json"], Some(Form::Json));
        check(&["application/json;q=0.5, text/plain"], Some(Form::Text));
        check(&["application/json;q=0.5, text/plain;q=0.501"], Some(Form::Text));
        check(&["application/json;q=0.999, text/plain;q=1"], Some(Form::Text));
        check(&["application/json;q=0.999, text/plain;q=1.000"], Some(Form::Text));
        check(&["application/json;q=0.001, text/plain;q=1.001"], Some(Form::Json));
        check(&["application/json;q=0.5", "text/event-stream"], Some(Form::EventStream));
        check(&["application/x-ndjson, */*;q=0.1"], Some(Form::Ndjson));
        check(&["text/*"], Some(Form::Text));
        check(&["application/*"], Some(Form::Json));
        check(&["application/*;q=0.5, application/x-ndjson"], Some(Form::Ndjson));
    }

    #[test]
    fn the_most_specific_range_decides() {
        check(&["*/*, application/json;q=0"], Some(Form::Text));
        check(&["application/json;q=0, */*"], Some(Form::Text));
        check(&["*/*;q=0.1, text/*;q=0, text/event-stream;q=0.2"], Some(Form::EventStream));
        check(&["text/*, text/plain;q=0"], Some(Form::Csv));
        check(&["text/*, text/plain;q=0, text/csv;q=0"], Some(Form::EventStream));
        check(&["text/*;q=0.9, text/plain;q=0.1, application/json;q=0.5"], Some(Form::Csv));
    }

    #[test]
    fn only_a_client_that_rules_out_all_five_gets_none() {
        check(&["image/png"], None);
        check(&["application/json;q=0"], None);
        check(&["*/*;q=0"], None);
        check(&["*/*;q=0, text/plain;q=0.001"], Some(Form::Text));
        check(&["application/json;q=0.000, text/*;q=0"], None);
        check(&["application/problem+json"], None);
        check(&["text/html"], None);
    }

    #[test]
    fn browsers_and_old_clients_get_json() {
        let firefox = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
        check(&[firefox], Some(Form::Json));
        check(&["text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2"], Some(Form::Json));
        check(&["application/json, text/plain, */*"], Some(Form::Json));
        check(&["text/event-stream"], Some(Form::EventStream));
    }

    #[test]
    fn a_page_is_for_clients_that_prefer_it_to_a_text() {
        let check = |lines: &[&str], expected: bool| {
            assert_eq!(prefers_page(lines.iter().copied()), expected, "{lines:?}");
        };
        check(&["text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"], true);
        check(&["text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2"], true);
        check(&["text/html"], true);
        check(&["*/*;q=0.1", "TEXT/HTML;q=0.2"], true);
        check(&["text/plain;q=0.5, text/html;q=0.6"], true);
        for nothing in ["", "*/*", "text/*", "*", "text/plain", "application/json", "image/png"] {
            check(&[nothing], false);
        }
        check(&[], false);
        check(&["text/html, text/plain"], false);
        check(&["text/html;q=0, */*"], false);
        check(&["text/html;q=0"], false);
        check(&["*/*, text/plain;q=0.1"], true);
    }

    #[test]
    fn a_malformed_member_is_skipped() {
        check(&["json, text/plain"], Some(Form::Text));
        check(&["*/json, text/plain"], Some(Form::Text));
        check(&["application/json;q=2, text/plain;q=0.1"], Some(Form::Text));
        check(&["application/json;q=, text/plain;q=0.1"], Some(Form::Text));
        check(&["application/json;q=0.1234, text/plain;q=0.1"], Some(Form::Text));
        check(&["application/json;q=-1, text/plain;q=0.1"], Some(Form::Text));
        check(&["application/json;q=1.001, text/plain;q=0.1"], Some(Form::Text));
        check(&["application /json, text/plain;q=0.1"], Some(Form::Text));
        check(&["/, //, /json, application/"], Some(Form::Json));
        check(&["\u{e9}/\u{e9}"], Some(Form::Json));
    }

    #[test]
    fn parameters_and_blanks_do_not_hide_the_type() {
        check(&["application/json;charset=utf-8"], Some(Form::Json));
        check(&["text/plain; format=flowed ; Q = 0.5 , image/png"], Some(Form::Text));
        check(&["text/plain;a=\"x,application/json;q=0.1\";q=0.2"], Some(Form::Text));
        check(&["text/plain;a=\"\\\",*/*\""], Some(Form::Text));
    }

    #[test]
    fn no_short_field_makes_the_parser_panic() {
        let mut texts = vec![String::new()];
        for _ in 0..5 {
            let longer =
                |text: &String| "*/;q=0.,\"\\".chars().map(|c| format!("{text}{c}")).collect();
            texts = texts.iter().flat_map(|text| -> Vec<String> { longer(text) }).collect();
            for text in texts.iter().filter(|text| !text.contains(['*', '/'])) {
                check(&[text], Some(Form::Json));
            }
            for text in &texts {
                negotiate([text.as_str()].into_iter());
                prefers_page([text.as_str()].into_iter());
            }
        }
    }
}
