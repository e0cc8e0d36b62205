//! What went wrong, as RFC 9457 problem documents.
//!
//! A [`Problem`] is made by whoever finds it and rendered here, so that every error of the service
//! has the same shape. [`Cause`] is a closed list: each has one status, one title and one word for
//! metrics and log, in one `match`. It never decides that something is wrong.

use std::time::Duration;

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use super::answer::write_json;
use crate::http::{Refusal, Response};
use crate::limits;
use crate::target::quote;

/// Why a request is not answered as its sender hoped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cause {
    /// A parameter is missing or malformed, or the request is not HTTP/1.x.
    InvalidRequest,
    /// No token, or another than the one configured.
    Unauthorized,
    /// The resolved address is outside the policy, or a page of another site asks.
    TargetDenied,
    /// No such route.
    NotFound,
    /// The route has other methods.
    MethodNotAllowed,
    /// `Accept` rules out every form of the answer.
    NotAcceptable,
    /// The head or the body came too slowly.
    RequestTimeout,
    /// The body is too large.
    ContentTooLarge,
    /// The request target is too long.
    UriTooLong,
    /// `Expect` holds something else than `100-continue`.
    ExpectationFailed,
    /// A loopback service is asked under a name that is not its own.
    ForeignHost,
    /// The name does not exist, or has no address of the family.
    UnknownHost,
    /// This client has its share of scans running.
    TooManyScans,
    /// The head is too large, or has too many fields.
    HeadersTooLarge,
    /// The resolver failed.
    DnsFailure,
    /// Scans or connections are at their cap.
    Overloaded,
    /// The service is shutting down.
    Draining,
    /// The resolver did not answer.
    DnsTimeout,
}

/// What a [`Cause`] looks like from outside.
struct Face {
    status: u16,
    title: &'static str,
    label: &'static str,
}

impl Cause {
    /// Every cause, by status.
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
        self.face().status
    }

    /// The word in the problem document: the metric label and the log word too.
    pub const fn label(self) -> &'static str {
        self.face().label
    }

    /// The one `match` from error to status. The titles are the status phrases of RFC 9110
    /// section 15 and RFC 6585, as RFC 9457 section 4.2.1 asks of `about:blank`.
    const fn face(self) -> Face {
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
        Face { status, title, label }
    }
}

/// The faulty parameters of a request, in the order found, each with all its messages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InvalidFields(Vec<(String, Vec<String>)>);

impl InvalidFields {
    /// Adds a message to a field; one that it has already is not repeated, and a field beyond
    /// [`limits::INVALID_FIELDS_MAX`] is dropped.
    pub fn push(&mut self, name: &str, message: &str) {
        let is_full = self.is_full();
        match self.0.iter_mut().find(|(known, _)| known == name) {
            Some((_, messages)) if messages.iter().any(|known| known == message) => {}
            Some((_, messages)) => messages.push(message.to_string()),
            None if is_full => {}
            None => self.0.push((name.to_string(), vec![message.to_string()])),
        }
        assert!(self.0.len() <= limits::INVALID_FIELDS_MAX, "an answer is bounded");
        debug_assert!(self.0.iter().all(|(_, messages)| !messages.is_empty()));
    }

    /// True exactly when something was said against the field.
    pub fn contains(&self, name: &str) -> bool {
        self.0.iter().any(|(known, _)| known == name)
    }

    /// True exactly when a further field would be dropped.
    pub const fn is_full(&self) -> bool {
        self.0.len() == limits::INVALID_FIELDS_MAX
    }

    /// True exactly when no field is faulty.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// `domain, toPort and rate`; what is not a plain word stands in quotes.
    fn names(&self) -> String {
        let mut names = String::new();
        for (index, (name, _)) in self.0.iter().enumerate() {
            let is_last = index + 1 == self.0.len();
            names.push_str(match index {
                0 => "",
                _ if is_last => " and ",
                _ => ", ",
            });
            let is_word = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric());
            names.push_str(&if is_word { name.clone() } else { quote(name) });
        }
        names
    }
}

impl Serialize for InvalidFields {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, messages) in &self.0 {
            map.serialize_entry(name, messages)?;
        }
        map.end()
    }
}

/// An error on its way to the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    cause: Cause,
    detail: String,
    invalid_fields: InvalidFields,
    /// The header field that the status calls for: Allow, Retry-After or WWW-Authenticate.
    field: Option<(&'static str, String)>,
}

impl Problem {
    /// A problem that its cause and one sentence say all about: 403 TARGET_DENIED (by the policy,
    /// or because another site's page asks), 421 FOREIGN_HOST, 422 UNKNOWN_HOST, 502 DNS_FAILURE,
    /// 504 DNS_TIMEOUT and the like. The other constructors add what their status calls for.
    pub fn new(cause: Cause, detail: impl Into<String>) -> Self {
        let detail = detail.into();
        assert!(!detail.is_empty(), "a person can act on the detail");
        Self { cause, detail, invalid_fields: InvalidFields::default(), field: None }
    }

    /// 400: parameters are missing or malformed.
    ///
    /// Panics if no field is faulty.
    pub fn invalid(fields: InvalidFields) -> Self {
        assert!(!fields.is_empty(), "some field is faulty");
        let (names, plural) = (fields.names(), if fields.0.len() == 1 { "" } else { "s" });
        let detail = format!("Correct the query parameter{plural} {names}, see invalid_fields.");
        Self { invalid_fields: fields, ..Self::new(Cause::InvalidRequest, detail) }
    }

    /// What the framing of HTTP refused.
    pub fn from_refusal(refusal: Refusal) -> Self {
        let cause = match refusal.status() {
            405 => return Self::method_not_allowed(super::ALLOW),
            408 => Cause::RequestTimeout,
            413 => Cause::ContentTooLarge,
            414 => Cause::UriTooLong,
            417 => Cause::ExpectationFailed,
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
    pub fn not_found() -> Self {
        Self::new(Cause::NotFound, "There is no such path here: GET / lists those there are.")
    }

    /// 405, with the methods that the route has.
    pub fn method_not_allowed(allow: &'static str) -> Self {
        Self::new(Cause::MethodNotAllowed, format!("Use one of the methods {allow}."))
            .with_field("Allow", allow.to_string())
    }

    /// 429: ask again after a while.
    pub fn too_many_scans(retry_after: Duration) -> Self {
        let detail = "Wait for one of your running scans to end, or close its connection.";
        Self::new(Cause::TooManyScans, detail).with_retry_after(retry_after)
    }

    /// 503: scans or connections are at their cap.
    pub fn overloaded(retry_after: Duration) -> Self {
        let detail = "The service has all the work it can take: try again later.";
        Self::new(Cause::Overloaded, detail).with_retry_after(retry_after)
    }

    /// 503: the service is shutting down.
    pub fn draining(retry_after: Duration) -> Self {
        let detail = "The service is shutting down: try again, another may take its place.";
        Self::new(Cause::Draining, detail).with_retry_after(retry_after)
    }

    /// What happened: the status, the metric label and the log word hang on it.
    pub const fn cause(&self) -> Cause {
        self.cause
    }

    /// One sentence that a person can act on.
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// The document, to be written as JSON.
    pub(super) const fn document(&self) -> Document<'_> {
        let Face { status, title, label } = self.cause.face();
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
        assert!(self.field.is_none(), "no status calls for two");
        self.field = Some((name, value));
        self
    }

    /// Whole seconds, rounded up, so that nobody comes back too early (RFC 9110 section 10.2.3).
    fn with_retry_after(self, after: Duration) -> Self {
        let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
        self.with_field("Retry-After", seconds.max(1).to_string())
    }
}

/// A small error's text as the sentence of a problem: capital first, full stop last.
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

/// The answer that tells of a problem: `application/problem+json` (RFC 9457).
pub fn problem_response(problem: &Problem) -> Response {
    let mut body = Vec::new();
    let document = problem.document();
    let status = document.status;
    write_json(&mut body, &document);
    Response {
        status,
        content_type: "application/problem+json",
        fields: problem.field.iter().cloned().collect(),
        body,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(problem: &Problem) -> String {
        String::from_utf8(problem_response(problem).body).unwrap()
    }

    #[test]
    fn an_invalid_request_is_told_as_the_contract_shows_it() {
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
                r#"see invalid_fields.","#,
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
            assert_eq!((cause.face().title, phrase.is_empty()), (phrase, false), "{cause:?}");
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
            assert_eq!(fields.collect::<Vec<_>>(), field.into_iter().collect::<Vec<_>>());
            let json: serde_json::Value = serde_json::from_slice(&response.body).unwrap();
            assert_eq!((&json["status"], &json["cause"]), (&status.into(), &label.into()));
            assert_eq!(json["detail"], problem.detail());
        };
        let bearer = Some(("WWW-Authenticate", "Bearer"));
        check(Problem::unauthorized(), 401, "UNAUTHORIZED", bearer);
        check(Problem::new(Cause::TargetDenied, "."), 403, "TARGET_DENIED", None);
        check(Problem::not_found(), 404, "NOT_FOUND", None);
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
    fn causes_stand_by_status_and_no_two_share_a_word() {
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
    }

    #[test]
    fn the_openapi_document_knows_every_cause() {
        let document: serde_json::Value = serde_json::from_str(super::super::OPENAPI).unwrap();
        let causes = &document["components"]["schemas"]["Problem"]["properties"]["cause"]["enum"];
        assert_eq!(*causes, serde_json::json!(Cause::ALL.map(Cause::label)));
    }
}
