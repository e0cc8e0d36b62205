//! The service's routes: requests in, typed commands out; outcomes in, answers out.
//!
//! [`parse`] turns a [`Request`] into a [`Command`] or a [`Problem`]; the other functions make the
//! [`Response`]s. [`query`] reads the parameters, [`accept`] negotiates, [`answer`] writes what a
//! scan tells while it runs, [`ending`] its end, [`sweep`] what several scans have beside it, and
//! [`problem`] what went wrong. The only room that names serde_json: JSON is a matter of this
//! surface, and of nothing below it.
//!
//! It never decides whether a command may be carried out: tokens, policy and caps are the
//! service's. It keeps no state.

use std::borrow::Cow;

use crate::http::head::decode_percent;
use crate::http::{Field, Method, Request, Response};
use crate::limits::Settings;

pub mod accept;
pub mod answer;
pub mod ending;
pub mod page;
pub mod probe;
pub mod problem;
pub mod query;
pub mod summary;
pub mod sweep;

use accept::Form;
use problem::{Cause, Problem};
use query::{ProbeRequest, ScanRequest};

/// The methods of every route.
const ALLOW: &str = "GET, HEAD, OPTIONS";

/// Where a request goes.
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
    /// `*`, the server as a whole (RFC 9110 section 9.3.7).
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

    /// The route of a path. What is the same path in another spelling is the same route, but
    /// nothing is repaired: no dot segment goes, no slash, no case.
    pub fn of(path: &str) -> Self {
        let path = plain(path);
        let known = Self::ALL.into_iter().find(|route| route.label() == path);
        known.unwrap_or(Self::Unknown)
    }

    /// The path, as the metric label; `other` for what a stranger made up.
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

/// A path in its normal form: letters, digits and `-._~` mean the same encoded and as they are,
/// nothing else does (RFC 9110 section 4.2.3, RFC 3986 section 6.2.2.2).
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

/// RFC 3986 section 2.3.
const fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// What a well-formed request wants done. HEAD makes the same command as GET (the connection
/// withholds the body), but for `/open-ports`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Scan, and answer in the request's form.
    Scan(ScanRequest),
    /// HEAD: the scan is well asked for; answer as if, with [`scan_response`], and scan nothing.
    CheckScan(ScanRequest),
    /// Scan, and answer with [`probe::probe_response`]. HEAD as well: what it would tell depends
    /// on the scan.
    Probe(Box<ProbeRequest>),
    /// Answer [`ok`].
    Healthz,
    /// Answer [`ready`], or with the [`Problem`] of what is in the way.
    Readyz,
    /// Answer [`metrics`].
    Metrics,
    /// Answer [`openapi`].
    OpenApi,
    /// Answer [`help`].
    Help,
    /// Answer [`page::page_response`].
    Page,
    /// Answer [`options`].
    Options {
        /// The methods of the route.
        allow: &'static str,
    },
}

/// Reads a request: 404, 405, 406 and 400 are found here, in this order.
pub fn parse(request: &Request, defaults: &Settings) -> Result<Command, Problem> {
    match (Route::of(request.path()), request.method) {
        (Route::Unknown, _) => Err(Problem::not_found()),
        (_, Method::Options) => Ok(Command::Options { allow: ALLOW }),
        (Route::Server, _) => Err(Problem::method_not_allowed("OPTIONS")),
        (_, Method::Other) => Err(Problem::method_not_allowed(ALLOW)),
        (Route::OpenPorts, Method::Get) => parse_scan(request, defaults).map(Command::Scan),
        (Route::OpenPorts, Method::Head) => parse_scan(request, defaults).map(Command::CheckScan),
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

fn parse_scan(request: &Request, defaults: &Settings) -> Result<ScanRequest, Problem> {
    let Some(form) = accept::negotiate(request.values(Field::Accept)) else {
        let types = Form::ALL.map(Form::content_type).join(", ");
        return Err(Problem::new(Cause::NotAcceptable, format!("Accept one of {types}.")));
    };
    query::parse(request.query(), defaults, form).map_err(Problem::invalid)
}

/// 200 with the outcome of a scan, as [`ending::write_end`] wrote it; empty for a stream, whose
/// bytes follow, and for HEAD. A cache must neither keep it nor give it to who accepts another
/// form.
pub fn scan_response(form: Form, body: Vec<u8>) -> Response {
    let fields = vec![("Cache-Control", "no-store".to_string()), ("Vary", "Accept".to_string())];
    Response { status: 200, content_type: form.content_type(), fields, body }
}

/// `/healthz`: the loop turns.
pub fn ok() -> Response {
    momentary_response("ok".to_string())
}

/// `/readyz`: the service takes scans.
pub fn ready() -> Response {
    momentary_response("ready".to_string())
}

/// `/metrics`: the Prometheus text exposition format, version 0.0.4.
pub fn metrics(text: String) -> Response {
    let content_type = "text/plain; version=0.0.4; charset=utf-8";
    Response { content_type, ..momentary_response(text) }
}

/// `/openapi.json`: the contract as OpenAPI 3.1.
pub fn openapi() -> Response {
    Response { content_type: "application/json", ..text_response(OPENAPI.to_string()) }
}

const OPENAPI: &str = include_str!("api/openapi.json");

/// OPTIONS. Not 204, so that Content-Length: 0 may stand there (RFC 9110 section 9.3.7).
pub fn options(allow: &'static str) -> Response {
    assert!(!allow.is_empty(), "every route has a method");
    let fields = vec![("Allow", allow.to_string())];
    Response { status: 200, content_type: "", fields, body: Vec::new() }
}

/// `/` for programs: a curl line for each thing the service can do, under the name by which it was
/// called.
pub fn help(host: Option<&str>) -> Response {
    let authority = host.filter(|host| is_authority(host)).unwrap_or("127.0.0.1:8080");
    let mut response = text_response(HELP.replace("{authority}", authority));
    response.fields.push(("Vary", page::VARY.to_string()));
    response
}

const HELP: &str = include_str!("api/help.txt");

/// Bytes of a host and a port that a help text repeats: the longest name, a colon, five digits.
const AUTHORITY_BYTES_MAX: usize = 253 + 1 + 5;

/// True exactly when the Host field holds nothing that a shell or a page could stumble over. Not a
/// check of its grammar: brackets stand in single quotes in the text.
fn is_authority(host: &str) -> bool {
    let is_harmless = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte);
    (1..=AUTHORITY_BYTES_MAX).contains(&host.len()) && host.bytes().all(is_harmless)
}

/// A text that is true of this moment alone: a cache that kept it would say that a service is well
/// which is gone.
fn momentary_response(text: String) -> Response {
    cached_response(text, "no-store")
}

/// A text that changes with the release. Without a word a cache would guess how long it holds (RFC
/// 9111 section 4.2.2).
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
    use crate::http::Version;
    use crate::target::Host;

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
    fn a_browser_is_given_the_page_whatever_its_query() {
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
    fn a_path_is_the_same_route_in_every_spelling_of_it() {
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
    fn a_scan_is_asked_for_by_get_and_checked_by_head() {
        let target = "/open-ports?domain=example.com&toPort=80";
        let (Ok(Command::Scan(asked)), Ok(Command::CheckScan(checked))) =
            (parse_one(Method::Get, target), parse_one(Method::Head, target))
        else {
            panic!("two commands that hold a scan");
        };
        assert_eq!(asked, checked);
        assert_eq!(asked.host, Host::Name("example.com".into()));
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
                assert_eq!(parse_one(method, path), Err(Problem::not_found()), "{path}");
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
                Ok(Command::Scan(scan)) => assert_eq!(Some(scan.form), expected),
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
    fn the_help_names_the_service_as_it_was_called_unless_that_is_harmful() {
        let check = |host: Option<&str>, expected: &str| {
            let response = help(host);
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
    fn what_the_help_advises_is_understood() {
        let text = String::from_utf8(help(None).body).unwrap();
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
    fn small_answers_say_what_they_are() {
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
    fn the_openapi_document_knows_every_path_and_no_other() {
        let document: serde_json::Value = serde_json::from_str(OPENAPI).unwrap();
        let paths = document["paths"].as_object().unwrap();
        // The server as a whole is no path, and of others there is nothing to say.
        let is_path = |route: &Route| !matches!(route, Route::Server | Route::Unknown);
        let known = Route::ALL.iter().filter(|route| is_path(route)).map(|route| route.label());
        let listed: std::collections::BTreeSet<&str> = paths.keys().map(String::as_str).collect();
        assert_eq!(listed, known.collect());
        let methods = paths.values().flat_map(|path| path.as_object().unwrap().keys());
        let methods: Vec<&str> = methods.map(String::as_str).collect();
        assert!(methods.iter().all(|method| ["get", "head", "parameters"].contains(method)));
    }
}
