//! Errors as RFC 9457 problem documents.
//!
//! The module that finds an error makes the [`Problem`], and this module renders it, so that every
//! error of the service has the same shape. [`Cause`] is a closed list: one `match` assigns each
//! cause its status, its title and its word for metrics and log. This module never decides whether
//! something is an error. The core and `api` call it.

use std::time::Duration;

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use super::Route;
use super::answer::write_json;
use crate::http::{Refusal, Response};
use crate::limits;
use crate::spelling;
use crate::spelling::quote;

/// The reason why a request is refused or has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cause {
    /// A parameter is missing or malformed, or the request is not HTTP/1.x.
    InvalidRequest,
    /// The token is missing, or is not the configured one.
    Unauthorized,
    /// The policy does not permit the resolved address, or a page of another site sent the request.
    TargetDenied,
    /// The route does not exist.
    NotFound,
    /// The route does not accept this method.
    MethodNotAllowed,
    /// `Accept` rules out every form of the answer.
    NotAcceptable,
    /// The head or the body was not complete in time.
    RequestTimeout,
    /// The body is too large.
    ContentTooLarge,
    /// The request target is too long.
    UriTooLong,
    /// The value of `Expect` is not `100-continue`.
    ExpectationFailed,
    /// A service on loopback was addressed with a name that is not its own.
    ForeignHost,
    /// The name does not exist, or has no address of the family.
    UnknownHost,
    /// This client already runs as many scans as one client may.
    TooManyScans,
    /// The head is too large, or has too many fields.
    HeadersTooLarge,
    /// The resolver failed.
    DnsFailure,
    /// The number of scans or of connections is at its cap.
    Overloaded,
    /// The service is shutting down.
    Draining,
    /// The resolver did not answer.
    DnsTimeout,
}

/// The presentation of a [`Cause`] to clients and operators.
struct StatusInfo {
    status: u16,
    title: &'static str,
    label: &'static str,
}

impl Cause {
    /// Every cause, ordered by status.
    pub const ALL: [Self; 18] = [
        Self::InvalidRequest,
        Self::Unauthorized,
        Self::TargetDenied,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::NotAcceptable,
        Self::RequestTimeout,
        Self::ContentTooLarge,
        Self::UriTooLong,
        Self::ExpectationFailed,
        Self::ForeignHost,
        Self::UnknownHost,
        Self::TooManyScans,
        Self::HeadersTooLarge,
        Self::DnsFailure,
        Self::Overloaded,
        Self::Draining,
        Self::DnsTimeout,
    ];

    /// The status code.
    pub const fn status(self) -> u16 {
        self.status_info().status
    }

    /// The word for the problem document, the metric label and the log.
    pub const fn label(self) -> &'static str {
        self.status_info().label
    }

    /// The only mapping from cause to status. The titles are the status phrases of RFC 9110 section
    /// 15 and RFC 6585, as RFC 9457 section 4.2.1 requires for `about:blank`.
    const fn status_info(self) -> StatusInfo {
        let (status, title, label) = match self {
            Self::InvalidRequest => (400, "Bad Request", "INVALID_REQUEST"),
            Self::Unauthorized => (401, "Unauthorized", "UNAUTHORIZED"),
            Self::TargetDenied => (403, "Forbidden", "TARGET_DENIED"),
            Self::NotFound => (404, "Not Found", "NOT_FOUND"),
            Self::MethodNotAllowed => (405, "Method Not Allowed", "METHOD_NOT_ALLOWED"),
            Self::NotAcceptable => (406, "Not Acceptable", "NOT_ACCEPTABLE"),
            Self::RequestTimeout => (408, "Request Timeout", "REQUEST_TIMEOUT"),
            Self::ContentTooLarge => (413, "Content Too Large", "CONTENT_TOO_LARGE"),
            Self::UriTooLong => (414, "URI Too Long", "URI_TOO_LONG"),
            Self::ExpectationFailed => (417, "Expectation Failed", "EXPECTATION_FAILED"),
            Self::ForeignHost => (421, "Misdirected Request", "FOREIGN_HOST"),
            Self::UnknownHost => (422, "Unprocessable Content", "UNKNOWN_HOST"),
            Self::TooManyScans => (429, "Too Many Requests", "TOO_MANY_SCANS"),
            Self::HeadersTooLarge => (431, "Request Header Fields Too Large", "HEADERS_TOO_LARGE"),
            Self::DnsFailure => (502, "Bad Gateway", "DNS_FAILURE"),
            Self::Overloaded => (503, "Service Unavailable", "OVERLOADED"),
            Self::Draining => (503, "Service Unavailable", "DRAINING"),
            Self::DnsTimeout => (504, "Gateway Timeout", "DNS_TIMEOUT"),
        };
        StatusInfo { status, title, label }
    }
}

/// The message for a parameter that is missing or blank. It has the wording of the original
/// service.
pub const BLANK: &str = "can't be blank";

/// The faulty parameters and header fields of a request in the order found, each with all its
/// messages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InvalidFields(Vec<InvalidField>);

/// A faulty parameter or header field.
#[derive(Clone, Debug, PartialEq, Eq)]
struct InvalidField {
    name: String,
    place: FieldPlace,
    messages: Vec<String>,
}

/// The part of a request that has a faulty field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FieldPlace {
    /// The query.
    Query,
    /// The header.
    Header,
}

impl InvalidFields {
    /// Adds a message to a parameter. A message that it already has is not repeated, and a field
    /// beyond [`limits::INVALID_FIELDS_MAX`] is dropped.
    pub fn push(&mut self, name: &str, message: &str) {
        self.push_at(FieldPlace::Query, name, message);
    }

    /// Adds a message to a header field, like [`InvalidFields::push`].
    pub fn push_header(&mut self, name: &'static str, message: &str) {
        self.push_at(FieldPlace::Header, name, message);
    }

    fn push_at(&mut self, place: FieldPlace, name: &str, message: &str) {
        let is_full = self.is_full();
        let is_same = |known: &&mut InvalidField| known.name == name && known.place == place;
        match self.0.iter_mut().find(is_same) {
            Some(field) if field.messages.iter().any(|known| known == message) => {}
            Some(field) => field.messages.push(message.to_string()),
            None if is_full => {}
            None => {
                let (name, messages) = (name.to_string(), vec![message.to_string()]);
                self.0.push(InvalidField { name, place, messages });
            }
        }
        assert!(self.0.len() <= limits::INVALID_FIELDS_MAX, "the number of fields is bounded");
        debug_assert!(self.0.iter().all(|field| !field.messages.is_empty()));
    }

    /// Whether the field has a message.
    pub fn contains(&self, name: &str) -> bool {
        self.0.iter().any(|field| field.name == name)
    }

    /// Whether the field has this message.
    fn says(&self, name: &str, message: &str) -> bool {
        let mut fields = self.0.iter();
        fields.any(|field| field.name == name && field.messages.iter().any(|it| it == message))
    }

    /// Whether a further field would be dropped.
    pub const fn is_full(&self) -> bool {
        self.0.len() == limits::INVALID_FIELDS_MAX
    }

    /// Whether no field is faulty.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// `the query parameters domain, toPort and rate and the header field X`.
    fn phrase(&self) -> String {
        let kinds = [(FieldPlace::Query, "query parameter"), (FieldPlace::Header, "header field")];
        let phrases = kinds.into_iter().filter_map(|(place, kind)| {
            let of_kind = self.0.iter().filter(|field| field.place == place);
            let names: Vec<String> = of_kind.map(InvalidField::shown).collect();
            let (last, others) = names.split_last()?;
            Some(match others {
                [] => format!("the {kind} {last}"),
                others => format!("the {kind}s {} and {last}", others.join(", ")),
            })
        });
        phrases.collect::<Vec<String>>().join(" and ")
    }
}

impl InvalidField {
    /// The name, quoted if it is not a plain word. The name of a header field is one of ours.
    fn shown(&self) -> String {
        let is_word =
            !self.name.is_empty() && self.name.bytes().all(|byte| byte.is_ascii_alphanumeric());
        match self.place {
            FieldPlace::Query if !is_word => quote(&self.name),
            FieldPlace::Query | FieldPlace::Header => self.name.clone(),
        }
    }
}

impl Serialize for InvalidFields {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for field in &self.0 {
            map.serialize_entry(&field.name, &field.messages)?;
        }
        map.end()
    }
}

/// An error that will be sent to the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    cause: Cause,
    detail: String,
    invalid_fields: InvalidFields,
    /// The header field that the status requires: Allow, Retry-After or WWW-Authenticate.
    field: Option<(&'static str, String)>,
}

impl Problem {
    /// A problem that consists of a cause and one sentence: 403 TARGET_DENIED (refused by the
    /// policy, or sent by a page of another site), 421 FOREIGN_HOST, 422 UNKNOWN_HOST, 502
    /// DNS_FAILURE, 504 DNS_TIMEOUT and others. The other constructors add the header fields that
    /// their status requires.
    pub fn new(cause: Cause, detail: impl Into<String>) -> Self {
        let detail = detail.into();
        assert!(!detail.is_empty(), "the detail is a sentence");
        Self { cause, detail, invalid_fields: InvalidFields::default(), field: None }
    }

    /// 400: parameters are missing or malformed.
    ///
    /// Panics if no field is faulty.
    pub fn invalid(fields: InvalidFields) -> Self {
        assert!(!fields.is_empty(), "at least one field is faulty");
        let is_range_missing = fields.says("toPort", BLANK);
        let or = if is_range_missing { ", or give ports=22,80-90 instead of toPort" } else { "" };
        let bound = if fields.is_full() { " (at most 32 are listed)" } else { "" };
        let detail = format!("Correct {}, see invalid_fields{bound}{or}.", fields.phrase());
        Self { invalid_fields: fields, ..Self::new(Cause::InvalidRequest, detail) }
    }

    /// A request that the HTTP parser refused.
    pub fn from_refusal(refusal: Refusal) -> Self {
        let cause = match refusal.status() {
            405 => return Self::method_not_allowed(super::ALLOW),
            408 => Cause::RequestTimeout,
            413 => Cause::ContentTooLarge,
            414 => Cause::UriTooLong,
            417 => Cause::ExpectationFailed,
            421 => Cause::ForeignHost,
            431 => Cause::HeadersTooLarge,
            status => {
                assert_eq!(status, 400, "the status of all other bad framing");
                Cause::InvalidRequest
            }
        };
        Self::new(cause, sentence(&refusal.detail()))
    }

    /// 401, with the challenge of RFC 6750 section 3.
    pub fn unauthorized() -> Self {
        Self::new(Cause::Unauthorized, "Send the token as `Authorization: Bearer …`.")
            .with_field("WWW-Authenticate", "Bearer".to_string())
    }

    /// 404.
    pub fn not_found(path: &str) -> Self {
        let known = Route::ALL
            .map(Route::label)
            .into_iter()
            .filter(|label| label.len() > 1 && label.starts_with('/'));
        let detail = match spelling::nearest(path, known) {
            Some((route, _)) => {
                format!("There is no such path, did you mean {route}? GET / lists all.")
            }
            None => "There is no such path: GET / lists the paths.".to_owned(),
        };
        Self::new(Cause::NotFound, detail)
    }

    /// 405, with the methods that the route accepts.
    pub fn method_not_allowed(allow: &'static str) -> Self {
        Self::new(Cause::MethodNotAllowed, format!("Use one of the methods {allow}."))
            .with_field("Allow", allow.to_string())
    }

    /// 429: the client may retry after the given time.
    pub fn too_many_scans(retry_after: Duration) -> Self {
        let detail = "Wait for one of your running scans to end, or close its connection.";
        Self::new(Cause::TooManyScans, detail).with_retry_after(retry_after)
    }

    /// 503: the number of scans or of connections is at its cap.
    pub fn overloaded(retry_after: Duration) -> Self {
        let detail = "The service has all the work it can take: try again later.";
        Self::new(Cause::Overloaded, detail).with_retry_after(retry_after)
    }

    /// 503: the service is shutting down.
    pub fn draining(retry_after: Duration) -> Self {
        let detail = "The service is shutting down: try again, another may take its place.";
        Self::new(Cause::Draining, detail).with_retry_after(retry_after)
    }

    /// The cause, which determines the status, the metric label and the log word.
    pub const fn cause(&self) -> Cause {
        self.cause
    }

    /// One sentence from which a person can see what to change.
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// The document, ready to be written as JSON.
    pub(super) const fn document(&self) -> Document<'_> {
        let StatusInfo { status, title, label } = self.cause.status_info();
        assert!(400 <= status && status < 600, "a problem is an error");
        Document {
            r#type: "about:blank",
            title,
            status,
            cause: label,
            detail: self.detail.as_str(),
            invalid_fields: &self.invalid_fields,
        }
    }

    fn with_field(mut self, name: &'static str, value: String) -> Self {
        assert!(self.field.is_none(), "a status requires at most one field");
        self.field = Some((name, value));
        self
    }

    /// Adds Retry-After in whole seconds, rounded up so that no client retries too early (RFC 9110
    /// section 10.2.3).
    fn with_retry_after(self, after: Duration) -> Self {
        let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
        self.with_field("Retry-After", seconds.max(1).to_string())
    }
}

/// The text of a small error as a sentence of a problem document: with a capital letter first and a
/// full stop last.
pub fn sentence(error: &impl std::fmt::Display) -> String {
    let text = error.to_string();
    let mut letters = text.chars();
    let first = letters.next().map(|letter| letter.to_ascii_uppercase());
    first.into_iter().chain(letters).chain(['.']).collect()
}

/// The keys of a problem document, in their order.
#[derive(Serialize)]
pub(super) struct Document<'a> {
    r#type: &'static str,
    title: &'static str,
    status: u16,
    cause: &'static str,
    detail: &'a str,
    #[serde(skip_serializing_if = "InvalidFields::is_empty")]
    invalid_fields: &'a InvalidFields,
}

/// The answer for a problem: `application/problem+json` (RFC 9457). A cache that stored it would
/// report an error after its end.
pub fn problem_response(problem: &Problem) -> Response {
    let mut body = Vec::new();
    let mut fields = vec![("Cache-Control", "no-store".to_string())];
    fields.extend(problem.field.iter().cloned());
    let document = problem.document();
    let status = document.status;
    write_json(&mut body, &document);
    body.push(b'\n');
    Response { status, content_type: "application/problem+json", fields, body }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(problem: &Problem) -> String {
        let body = String::from_utf8(problem_response(problem).body).unwrap();
        body.strip_suffix('\n').expect("JSON ends with a line end").to_owned()
    }

    #[test]
    fn an_invalid_request_has_the_document_of_the_contract() {
        let mut fields = InvalidFields::default();
        fields.push("domain", "can't be blank");
        fields.push("toPort", "can't be blank");
        fields.push("toPort", "invalid decimal string");
        fields.push("toPort", "can't be blank");
        assert_eq!(
            body(&Problem::invalid(fields)),
            concat!(
                r#"{"type":"about:blank","title":"Bad Request","status":400,"#,
                r#""cause":"INVALID_REQUEST","#,
                r#""detail":"Correct the query parameters domain and toPort, "#,
                r#"see invalid_fields, or give ports=22,80-90 instead of toPort.","#,
                r#""invalid_fields":{"domain":["can't be blank"],"#,
                r#""toPort":["can't be blank","invalid decimal string"]}}"#,
            )
        );
    }

    #[test]
    fn the_sentence_names_one_two_or_more_fields() {
        let check = |names: &[&str], expected: &str| {
            let mut fields = InvalidFields::default();
            names.iter().for_each(|name| fields.push(name, "bad"));
            assert_eq!(Problem::invalid(fields).detail(), expected);
        };
        check(&["rate"], "Correct the query parameter rate, see invalid_fields.");
        check(&["rate", "a"], "Correct the query parameters rate and a, see invalid_fields.");
        check(&[""], "Correct the query parameter \"\", see invalid_fields.");
        check(&["a\nb"], "Correct the query parameter \"a\\nb\", see invalid_fields.");
        check(&["x", "y", "z"], "Correct the query parameters x, y and z, see invalid_fields.");
    }

    #[test]
    fn without_faulty_fields_there_is_no_such_key() {
        assert_eq!(
            body(&Problem::new(Cause::UnknownHost, "No such \"name\".\n")),
            concat!(
                r#"{"type":"about:blank","title":"Unprocessable Content","status":422,"#,
                r#""cause":"UNKNOWN_HOST","detail":"No such \"name\".\n"}"#,
            )
        );
    }

    #[test]
    fn the_title_is_the_phrase_of_the_status_line() {
        for cause in Cause::ALL {
            let phrase = crate::http::answer::reason_phrase(cause.status());
            assert_eq!(
                (cause.status_info().title, phrase.is_empty()),
                (phrase, false),
                "{cause:?}"
            );
        }
        for (status, phrase) in [(200, "OK"), (304, "Not Modified")] {
            assert_eq!(crate::http::answer::reason_phrase(status), phrase);
        }
    }

    #[test]
    fn every_row_of_the_error_table_has_its_status_and_cause() {
        let check = |problem: Problem, status: u16, label: &str, field: Option<(&str, &str)>| {
            let response = problem_response(&problem);
            assert_eq!((response.status, problem.cause().label()), (status, label));
            assert_eq!(problem.cause().status(), status);
            assert_eq!(response.content_type, "application/problem+json");
            let fields = response.fields.iter().map(|(name, value)| (*name, value.as_str()));
            let expected = [("Cache-Control", "no-store")].into_iter().chain(field);
            assert_eq!(fields.collect::<Vec<_>>(), expected.collect::<Vec<_>>());
            let json: serde_json::Value = serde_json::from_slice(&response.body).unwrap();
            assert_eq!((&json["status"], &json["cause"]), (&status.into(), &label.into()));
            assert_eq!(json["detail"], problem.detail());
        };
        let bearer = Some(("WWW-Authenticate", "Bearer"));
        check(Problem::unauthorized(), 401, "UNAUTHORIZED", bearer);
        check(Problem::new(Cause::TargetDenied, "."), 403, "TARGET_DENIED", None);
        check(Problem::not_found("/x"), 404, "NOT_FOUND", None);
        let allow = Some(("Allow", "GET, HEAD"));
        check(Problem::method_not_allowed("GET, HEAD"), 405, "METHOD_NOT_ALLOWED", allow);
        check(Problem::new(Cause::NotAcceptable, "."), 406, "NOT_ACCEPTABLE", None);
        check(Problem::new(Cause::ForeignHost, "."), 421, "FOREIGN_HOST", None);
        check(Problem::new(Cause::UnknownHost, "."), 422, "UNKNOWN_HOST", None);
        let after = |seconds| Some(("Retry-After", seconds));
        let ms = Duration::from_millis;
        check(Problem::too_many_scans(ms(0)), 429, "TOO_MANY_SCANS", after("1"));
        check(Problem::overloaded(ms(1001)), 503, "OVERLOADED", after("2"));
        check(Problem::draining(ms(20_000)), 503, "DRAINING", after("20"));
        check(Problem::new(Cause::DnsFailure, "."), 502, "DNS_FAILURE", None);
        check(Problem::new(Cause::DnsTimeout, "."), 504, "DNS_TIMEOUT", None);
        for refusal in Refusal::ALL {
            let problem = Problem::from_refusal(refusal);
            assert_eq!(problem_response(&problem).status, refusal.status(), "{refusal:?}");
            assert!(problem.detail().ends_with('.'), "{refusal:?}");
        }
    }

    #[test]
    fn an_unknown_path_is_named_with_the_nearest_known_one() {
        for (path, expected) in [
            ("/openports", Some("/open-ports")),
            ("/open-ports/", Some("/open-ports")),
            ("/OPEN-PORTS", Some("/open-ports")),
            ("/open_ports", Some("/open-ports")),
            ("/health", Some("/healthz")),
            ("/metric", Some("/metrics")),
            ("/metrics/", Some("/metrics")),
            ("/openapi.yaml", Some("/openapi.json")),
            ("/favicon.ico", None),
            ("/scan", None),
            ("//", None),
            ("/x", None),
        ] {
            let detail = Problem::not_found(path).detail;
            let named =
                detail.split_once("did you mean ").and_then(|(_, rest)| rest.split('?').next());
            assert_eq!(named, expected, "{path}: {detail}");
        }
    }

    #[test]
    fn causes_are_in_the_order_of_status_and_have_distinct_labels() {
        assert!(Cause::ALL.is_sorted_by_key(|cause| cause.status()));
        let mut labels: Vec<&str> = Cause::ALL.iter().map(|cause| cause.label()).collect();
        labels.sort_unstable();
        labels.dedup();
        assert_eq!(labels.len(), Cause::ALL.len());
    }

    #[test]
    fn a_flood_of_faulty_fields_is_cut() {
        let mut fields = InvalidFields::default();
        (0..10_000).for_each(|n| fields.push(&format!("x{n}"), "unknown"));
        assert_eq!(fields.0.len(), limits::INVALID_FIELDS_MAX);
        assert!(fields.contains("x0") && !fields.contains("x9999"));
        let bound = format!("(at most {} are listed).", limits::INVALID_FIELDS_MAX);
        let detail = Problem::invalid(fields).detail;
        assert!(detail.ends_with(&bound), "{detail}");
    }

    #[test]
    fn the_openapi_document_lists_every_cause() {
        let document: serde_json::Value = serde_json::from_str(super::super::OPENAPI).unwrap();
        let causes = &document["components"]["schemas"]["Problem"]["properties"]["cause"]["enum"];
        assert_eq!(*causes, serde_json::json!(Cause::ALL.map(Cause::label)));
    }
}
