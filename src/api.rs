//! The routes of the service: they turn requests into typed commands, and outcomes into answers.
//!
//! [`parse`] turns a [`Request`] into a [`Command`] or a [`Problem`]; the other functions make the
//! [`Response`]s. [`query`] reads the parameters, [`accept`] negotiates the form, [`answer`] writes
//! the events of a running scan, [`end_writer`] writes its end, [`batch_events`] writes the
//! additional events of a run with several targets, and [`problem`] renders errors. This is the
//! only module that imports serde_json, because JSON is a format of this interface and of no module
//! below it.
//!
//! This module never decides whether a command may be carried out: the core checks tokens, policy
//! and caps. It keeps no state.

use std::borrow::Cow;
use std::path::Path;

use crate::http::head::decode_percent;
use crate::http::{Field, Method, Request, Response};
use crate::limits::Settings;
use crate::scan::request::ScanRequest;

pub mod accept;
pub mod answer;
pub mod batch_events;
pub mod end_writer;
pub mod page;
pub mod probe;
pub mod problem;
pub mod query;

use accept::Form;
use problem::{Cause, Problem};
use query::ProbeRouteRequest;

/// The methods that every route accepts.
const ALLOW: &str = "GET, HEAD, OPTIONS";

/// The resource that a request addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Route {
    /// `/open-ports`.
    OpenPorts,
    /// `/probe`.
    Probe,
    /// `/healthz`.
    Healthz,
    /// `/readyz`.
    Readyz,
    /// `/metrics`.
    Metrics,
    /// `/openapi.json`.
    OpenApi,
    /// `/`.
    Help,
    /// `*`, which stands for the server as a whole (RFC 9110 section 9.3.7).
    Server,
    /// Any other path.
    Unknown,
}

impl Route {
    /// Every route.
    pub const ALL: [Self; 9] = [
        Self::OpenPorts,
        Self::Probe,
        Self::Healthz,
        Self::Readyz,
        Self::Metrics,
        Self::OpenApi,
        Self::Help,
        Self::Server,
        Self::Unknown,
    ];

    /// The route of a path in any percent-encoding. Dot segments, repeated slashes and letter case
    /// are not normalised.
    pub fn of(path: &str) -> Self {
        let path = plain(path);
        let known = Self::ALL.into_iter().find(|route| route.label() == path);
        known.unwrap_or(Self::Unknown)
    }

    /// The path, as the metric label; `other` for an unknown path.
    pub const fn label(self) -> &'static str {
        match self {
            Self::OpenPorts => "/open-ports",
            Self::Probe => "/probe",
            Self::Healthz => "/healthz",
            Self::Readyz => "/readyz",
            Self::Metrics => "/metrics",
            Self::OpenApi => "/openapi.json",
            Self::Help => "/",
            Self::Server => "*",
            Self::Unknown => "other",
        }
    }
}

/// A path in its normal form: letters, digits and `-._~` mean the same whether they are encoded or
/// not, and no other character does (RFC 9110 section 4.2.3, RFC 3986 section 6.2.2.2).
fn plain(path: &str) -> Cow<'_, str> {
    if !path.contains('%') {
        return path.into();
    }
    let mut pieces = path.split('%');
    let mut plain = pieces.next().map_or(Cow::Borrowed(path), Cow::Borrowed);
    for piece in pieces {
        let unreserved = decode_percent(piece).filter(|byte| is_unreserved(*byte));
        match (unreserved, piece.get(2..)) {
            (Some(byte), Some(rest)) => *plain.to_mut() += &format!("{}{rest}", char::from(byte)),
            (Some(_) | None, _) => *plain.to_mut() += &format!("%{piece}"),
        }
    }
    plain
}

/// The unreserved characters of RFC 3986 section 2.3.
const fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// The command of a well-formed request. HEAD makes the same command as GET, and the connection
/// leaves the body out, except for `/open-ports`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Scan, and answer in the given form.
    Scan {
        /// The scan to run.
        request: Box<ScanRequest>,
        /// The form of the answer.
        form: Form,
    },
    /// HEAD: answer with [`scan_response`] in the given form, and scan nothing.
    CheckScan {
        /// The scan that GET would run.
        request: Box<ScanRequest>,
        /// The form of the answer.
        form: Form,
    },
    /// The client of a stream reconnects after the end of the stream: answer with [`finished`], so
    /// that the client stops.
    Finished,
    /// Scan, and answer with [`probe::probe_response`]. HEAD scans too, because the header fields
    /// depend on the result.
    Probe(Box<ProbeRouteRequest>),
    /// Answer with [`ok`].
    Healthz,
    /// Answer with [`ready`], or with the [`Problem`] that makes the service not ready.
    Readyz,
    /// Answer with [`metrics`].
    Metrics,
    /// Answer with [`openapi`].
    OpenApi,
    /// Answer with [`help`].
    Help,
    /// Answer with [`page::page_response`].
    Page,
    /// Answer with [`options`].
    Options {
        /// The methods of the route.
        allow: &'static str,
    },
}

/// Parses a request. The errors 404, 405, 406 and 400 are found here and checked in this order.
pub fn parse(request: &Request, defaults: &Settings) -> Result<Command, Problem> {
    match (Route::of(request.path()), request.method) {
        (Route::Unknown, _) => Err(Problem::not_found(request.path())),
        (_, Method::Options) => Ok(Command::Options { allow: ALLOW }),
        (Route::Server, _) => Err(Problem::method_not_allowed("OPTIONS")),
        (_, Method::Other) => Err(Problem::method_not_allowed(ALLOW)),
        (Route::OpenPorts, Method::Get | Method::Head) => parse_scan(request, defaults),
        (Route::Probe, Method::Get | Method::Head) => {
            let scrape_timeout = request.field(Field::ScrapeTimeout);
            let probe = query::parse_probe(request.query(), defaults, scrape_timeout);
            probe.map(|probe| Command::Probe(Box::new(probe))).map_err(Problem::invalid)
        }
        (Route::Healthz, Method::Get | Method::Head) => Ok(Command::Healthz),
        (Route::Readyz, Method::Get | Method::Head) => Ok(Command::Readyz),
        (Route::Metrics, Method::Get | Method::Head) => Ok(Command::Metrics),
        (Route::OpenApi, Method::Get | Method::Head) => Ok(Command::OpenApi),
        (Route::Help, Method::Get | Method::Head) => {
            let is_browser = accept::prefers_page(request.values(Field::Accept));
            Ok(if is_browser { Command::Page } else { Command::Help })
        }
    }
}

fn parse_scan(request: &Request, defaults: &Settings) -> Result<Command, Problem> {
    let Some(form) = accept::negotiate(request.values(Field::Accept)) else {
        let types = Form::ALL.map(Form::content_type).join(", ");
        return Err(Problem::new(Cause::NotAcceptable, format!("Accept one of {types}.")));
    };
    let scan = query::parse(request.query(), defaults).map_err(Problem::invalid)?;
    let scan = Box::new(scan);
    let has_ended = request.field(Field::LastEventId) == Some(end_writer::END_ID);
    Ok(match request.method {
        _ if has_ended && form == Form::EventStream => Command::Finished,
        Method::Head => Command::CheckScan { request: scan, form },
        Method::Get | Method::Options | Method::Other => Command::Scan { request: scan, form },
    })
}

/// 204: an EventSource reconnects after each end of a stream, with the id of the last event that it
/// received, until it gets this status (WHATWG HTML, section 9.2.3).
pub fn finished() -> Response {
    let fields = vec![("Cache-Control", "no-store".to_string())];
    Response { status: 204, content_type: "", fields, body: Vec::new() }
}

/// 200 with the outcome of a scan, as [`end_writer::write_end`] wrote it. The body is empty for a
/// stream, whose bytes follow later, and for HEAD. A cache must neither store the answer nor serve
/// it to a client that accepts another form.
pub fn scan_response(form: Form, body: Vec<u8>) -> Response {
    let mut fields =
        vec![("Cache-Control", "no-store".to_string()), ("Vary", "Accept".to_string())];
    if form.is_streamed() {
        // Without this field nginx buffers all events until the end of the stream.
        fields.push(("X-Accel-Buffering", "no".to_string()));
    }
    Response { status: 200, content_type: form.content_type(), fields, body }
}

/// `/healthz`: the event loop runs.
pub fn ok() -> Response {
    momentary_response("ok".to_string())
}

/// `/readyz`: the service accepts scans.
pub fn ready() -> Response {
    momentary_response("ready".to_string())
}

/// `/metrics`: the Prometheus text exposition format, version 0.0.4.
pub fn metrics(text: String) -> Response {
    let content_type = "text/plain; version=0.0.4; charset=utf-8";
    Response { content_type, ..momentary_response(text) }
}

/// `/openapi.json`: the contract as an OpenAPI 3.1 document.
pub fn openapi() -> Response {
    Response { content_type: "application/json", ..text_response(OPENAPI.to_string()) }
}

const OPENAPI: &str = include_str!("api/openapi.json");

/// OPTIONS. The status is 200 and not 204, so that the answer can carry Content-Length: 0 (RFC 9110
/// section 9.3.7).
pub fn options(allow: &'static str) -> Response {
    assert!(!allow.is_empty(), "every route has a method");
    let fields = vec![("Allow", allow.to_string())];
    Response { status: 200, content_type: "", fields, body: Vec::new() }
}

/// `/` for programs: one curl line for each function of the service. The lines contain the name
/// under which the client called the service, and work as printed if a target is known. `curl` is
/// the command with the flag for the socket of the service, if it needs one.
pub fn help(curl: &str, host: Option<&str>, target: Option<&str>, token: Bearer) -> Response {
    let authority = host.filter(|host| is_authority(host)).unwrap_or("127.0.0.1:8080");
    let mut first = String::new();
    if target.is_none() {
        first.push_str("\nWrite a host that this service may scan in place of TARGET\n");
    }
    let option = match token {
        Bearer::Needed { file } => {
            first.push_str(&format!("\nThe token first\n  TOKEN={}\n", token_value(file)));
            " --oauth2-bearer \"$TOKEN\""
        }
        Bearer::NotNeeded => "",
    };
    let text = HELP
        .replace("{token}", option)
        .replace("{target}", target.unwrap_or(EXAMPLE_TARGET))
        .replace("{authority}", authority)
        // Paths may contain braces, so they are inserted last.
        .replace("{curl}", curl)
        .replacen("{first}", &first, 1);
    let mut response = text_response(text);
    response.fields.push(("Vary", page::VARY.to_string()));
    response
}

/// What a shell assigns to the variable with the token: the contents of the file, or a placeholder.
fn token_value(file: Option<&Path>) -> String {
    let path = file.and_then(Path::to_str).filter(|path| !path.contains(char::is_control));
    match path {
        Some(path) => format!("$(cat '{}')", path.replace('\'', r"'\''")),
        None => "'put the token here'".to_owned(),
    }
}

/// Whether scans need a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bearer<'a> {
    /// Scans need a token.
    Needed {
        /// The file with the token, if the client can read it.
        file: Option<&'a Path>,
    },
    /// Scans need no token.
    NotNeeded,
}

/// The placeholder in the examples, if no address is known that may be scanned.
const EXAMPLE_TARGET: &str = "TARGET";

const HELP: &str = include_str!("api/help.txt");

/// The maximum length in bytes of a host and a port that the help text repeats: the longest name, a
/// colon and five digits.
const AUTHORITY_BYTES_MAX: usize = 253 + 1 + 5;

/// Whether the Host field can be inserted into a shell command safely. The grammar of the field is
/// not checked here. The text puts brackets within single quotes.
fn is_authority(host: &str) -> bool {
    let is_harmless = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte);
    (1..=AUTHORITY_BYTES_MAX).contains(&host.len()) && host.bytes().all(is_harmless)
}

/// A text that is valid only at this moment: a cache that stored it would report a service as ready
/// after the service has ended.
fn momentary_response(text: String) -> Response {
    cached_response(text, "no-store")
}

/// A text that changes only with the release. Without Cache-Control a cache would guess its
/// lifetime (RFC 9111 section 4.2.2).
fn text_response(text: String) -> Response {
    cached_response(text, "max-age=60")
}

fn cached_response(text: String, caching: &str) -> Response {
    let content_type = "text/plain; charset=utf-8";
    let fields = vec![("Cache-Control", caching.to_string())];
    Response { status: 200, content_type, fields, body: text.into_bytes() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Host;
    use crate::http::Version;

    fn request(method: Method, target: &str) -> Request {
        Request { method, version: Version::Http11, target: target.into(), fields: Vec::new() }
    }

    fn parse_one(method: Method, target: &str) -> Result<Command, Problem> {
        parse(&request(method, target), &Settings::default())
    }

    #[test]
    fn every_route_and_method_makes_its_command() {
        let options = Ok(Command::Options { allow: ALLOW });
        let check = |target: &str, command: Command| {
            assert_eq!(parse_one(Method::Get, target), Ok(command.clone()), "{target}");
            assert_eq!(parse_one(Method::Head, target), Ok(command), "{target}");
            assert_eq!(parse_one(Method::Options, target), options, "{target}");
            let refused = Err(Problem::method_not_allowed(ALLOW));
            assert_eq!(parse_one(Method::Other, target), refused, "{target}");
        };
        check("/healthz", Command::Healthz);
        check("/readyz", Command::Readyz);
        check("/metrics", Command::Metrics);
        check("/metrics?name=x", Command::Metrics);
        check("/openapi.json", Command::OpenApi);
        check("/", Command::Help);
        check("/?", Command::Help);
        check("/?domain=localhost&nonsense", Command::Help);
    }

    #[test]
    fn a_browser_gets_the_page_with_any_query() {
        let accept = (Field::Accept, "text/html,*/*;q=0.8".into());
        for method in [Method::Get, Method::Head] {
            for target in ["/", "/?", "/?domain=localhost&ports=1-9", "/?nonsense=%zz&&"] {
                let mut request = request(method, target);
                request.fields.push(accept.clone());
                assert_eq!(parse(&request, &Settings::default()), Ok(Command::Page), "{target}");
            }
        }
    }

    #[test]
    fn every_percent_encoding_of_a_path_is_the_same_route() {
        let check = |path: &str, route| assert_eq!(Route::of(path), route, "{path}");
        check("/open%2Dports", Route::OpenPorts);
        check("/open%2dports", Route::OpenPorts);
        check("/%68%65%61%6C%74%68%7a", Route::Healthz);
        check("/openapi%2Ejson", Route::OpenApi);
        for path in [
            "/%48ealthz",
            "%2Fhealthz",
            "/healthz%2F",
            "/healthz%3F",
            "/%2568ealthz",
            "/./healthz",
            "//healthz",
            "/healthz/",
            "/%6",
            "/%",
            "/%6\u{e9}",
            "/%\u{20ac}",
            "%2A",
            "",
        ] {
            check(path, Route::Unknown);
        }
    }

    #[test]
    fn get_requests_a_scan_and_head_checks_the_request() {
        let target = "/open-ports?domain=example.com&toPort=80";
        let (
            Ok(Command::Scan { request: requested, form: Form::Json }),
            Ok(Command::CheckScan { request: checked, form: Form::Json }),
        ) = (parse_one(Method::Get, target), parse_one(Method::Head, target))
        else {
            panic!("both commands must contain a scan");
        };
        assert_eq!(requested, checked);
        assert_eq!(requested.host, Host::Name("example.com".into()));
        assert_eq!(
            parse_one(Method::Options, "/open-ports"),
            Ok(Command::Options { allow: ALLOW })
        );
        let refused = Err(Problem::method_not_allowed(ALLOW));
        assert_eq!(parse_one(Method::Other, target), refused);
        for method in [Method::Get, Method::Head] {
            let problem = parse_one(method, "/open-ports").unwrap_err();
            assert_eq!(problem.cause(), Cause::InvalidRequest);
        }
    }

    #[test]
    fn an_unknown_path_is_not_found_by_any_method() {
        for path in ["/open-port", "/open-ports/", "/OPEN-PORTS", "//", "/healthz/", "/other"] {
            for method in [Method::Get, Method::Head, Method::Options, Method::Other] {
                assert_eq!(parse_one(method, path), Err(Problem::not_found(path)), "{path}");
            }
        }
    }

    #[test]
    fn the_server_as_a_whole_has_options_only() {
        assert_eq!(parse_one(Method::Options, "*"), Ok(Command::Options { allow: ALLOW }));
        for method in [Method::Get, Method::Head, Method::Other] {
            assert_eq!(parse_one(method, "*"), Err(Problem::method_not_allowed("OPTIONS")));
        }
    }

    #[test]
    fn accept_chooses_the_form_or_rules_all_out() {
        let check = |lines: &[&str], expected: Option<Form>| {
            let mut request = request(Method::Get, "/open-ports?domain=a&toPort=80");
            request.fields.push((Field::Host, "application/x-ndjson".into()));
            request.fields.extend(lines.iter().map(|line| (Field::Accept, (*line).into())));
            match parse(&request, &Settings::default()) {
                Ok(Command::Scan { form, .. }) => assert_eq!(Some(form), expected),
                Err(problem) => {
                    assert_eq!((problem.cause(), None), (Cause::NotAcceptable, expected));
                    assert!(problem.detail().contains("text/event-stream"));
                }
                other => panic!("{other:?}"),
            }
        };
        check(&[], Some(Form::Json));
        check(&["text/plain"], Some(Form::Text));
        check(&["text/plain;q=0.5", "application/x-ndjson"], Some(Form::Ndjson));
        check(&["image/png"], None);
    }

    #[test]
    fn every_route_is_found_by_its_label() {
        for route in Route::ALL {
            assert_eq!(Route::of(route.label()), route);
        }
    }

    #[test]
    fn the_help_repeats_the_host_of_the_request_unless_that_is_harmful() {
        let check = |host: Option<&str>, expected: &str| {
            let response = help("curl", host, Some("localhost"), Bearer::NotNeeded);
            let text = String::from_utf8(response.body).unwrap();
            let curls = text.lines().filter(|line| line.contains("curl "));
            assert!(curls.clone().count() >= 10, "{text}");
            for curl in curls {
                assert!(curl.contains(&format!("'http://{expected}/")), "{curl}");
            }
        };
        check(Some("scanner.example:8080"), "scanner.example:8080");
        check(Some("[::1]:8080"), "[::1]:8080");
        check(None, "127.0.0.1:8080");
        for host in ["", "a'b", "a b", "a\nb", "<script>", "$(id)", "a/b", "b\u{fc}cher"] {
            check(Some(host), "127.0.0.1:8080");
        }
        check(Some(&"a".repeat(260)), "127.0.0.1:8080");
        let longest = format!("{}:65535", "a".repeat(253));
        check(Some(&longest), &longest);
    }

    #[test]
    fn the_token_of_the_help_is_read_from_its_file_or_is_a_placeholder() {
        for (file, expected) in [
            (Some("/run/token"), "  TOKEN=$(cat '/run/token')\n"),
            (Some("/run/a b's {target}"), "  TOKEN=$(cat '/run/a b'\\''s {target}')\n"),
            (Some("/run/a\nb"), "  TOKEN='put the token here'\n"),
            (None, "  TOKEN='put the token here'\n"),
        ] {
            let token = Bearer::Needed { file: file.map(Path::new) };
            let text =
                String::from_utf8(help("curl", None, Some("localhost"), token).body).unwrap();
            assert!(text.contains(expected), "{file:?}: {text}");
        }
    }

    #[test]
    fn every_command_line_of_the_help_is_a_valid_request() {
        let needed = Bearer::Needed { file: None };
        for (target, token, option) in [
            (Some("192.0.2.7"), needed, "curl --oauth2-bearer \"$TOKEN\" 'http"),
            (None, Bearer::NotNeeded, "curl 'http"),
        ] {
            let text = String::from_utf8(help("curl", None, target, token).body).unwrap();
            let target = target.unwrap_or("TARGET");
            assert_eq!(text.contains("in place of TARGET\n"), target == "TARGET");
            for line in text.lines().filter(|line| line.contains("curl ")) {
                let is_scan = line.contains("/open-ports?") || line.contains("/probe?");
                assert_eq!(is_scan, line.contains(&format!("={target}&")), "{line}");
                let has_token = line.contains("--oauth2-bearer \"$TOKEN\" ");
                assert_eq!(is_scan && token == needed, has_token, "{line}");
            }
            assert!(text.contains(option) && !text.contains(['{', '}']), "{text}");
        }
        let text = help("curl", None, Some("localhost"), Bearer::NotNeeded).body;
        let text = String::from_utf8(text).unwrap();
        let urls = text.split('\'').filter_map(|part| part.strip_prefix("http://127.0.0.1:8080"));
        for target in urls {
            let command = parse_one(Method::Get, target);
            assert!(command.is_ok(), "{target}: {command:?}");
            if target.len() > 1 {
                assert_ne!(command, Ok(Command::Help), "{target}");
            }
        }
    }

    #[test]
    fn small_answers_have_their_content_type_and_caching_fields() {
        let check = |response: Response, content_type: &str, body: &str| {
            assert_eq!((response.status, response.content_type), (200, content_type));
            assert_eq!(String::from_utf8(response.body).unwrap(), body);
        };
        check(ok(), "text/plain; charset=utf-8", "ok");
        check(ready(), "text/plain; charset=utf-8", "ready");
        check(metrics("a 1\n".to_string()), "text/plain; version=0.0.4; charset=utf-8", "a 1\n");
        check(options(ALLOW), "", "");
        assert_eq!(options(ALLOW).fields, [("Allow", ALLOW.to_string())]);
        check(openapi(), "application/json", OPENAPI);
        check(scan_response(Form::Ndjson, b"x".to_vec()), "application/x-ndjson", "x");
        let vary = ("Vary", "Accept".to_string());
        assert!(scan_response(Form::Json, Vec::new()).fields.contains(&vary));
    }

    #[test]
    fn the_openapi_document_lists_every_path_and_no_other() {
        let document: serde_json::Value = serde_json::from_str(OPENAPI).unwrap();
        let paths = document["paths"].as_object().unwrap();
        // The document has no entry for the server as a whole, which has no path, nor for unknown
        // paths.
        let is_path = |route: &Route| !matches!(route, Route::Server | Route::Unknown);
        let known = Route::ALL.iter().filter(|route| is_path(route)).map(|route| route.label());
        let listed: std::collections::BTreeSet<&str> = paths.keys().map(String::as_str).collect();
        assert_eq!(listed, known.collect());
        let methods = paths.values().flat_map(|path| path.as_object().unwrap().keys());
        let methods: Vec<&str> = methods.map(String::as_str).collect();
        assert!(methods.iter().all(|method| ["get", "head", "parameters"].contains(method)));
    }
}
