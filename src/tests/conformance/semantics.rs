//! The meaning of requests: fields that must be ignored (RFC 9110 sections 8, 10, 12 to 14), and
//! fields that answers must have (RFC 9110 sections 6.6, 8, 10.2, 11, 15; RFC 9111; RFC 9457).

use std::fs::Permissions;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;

use crate::case::Table;
use crate::drive;
use crate::process::{EVENT_TIMEOUT, Folder, Service};
use crate::reader::{self, Answer};

#[test]
fn irrelevant_fields_are_ignored_and_accept_is_negotiated() {
    let mut table = Table::default();
    ignored(&mut table);
    negotiated(&mut table);
    drive::check(table.cases);
}

fn ignored(t: &mut Table) {
    t.section("RFC 9110 14.2");
    for range in [
        "bytes=0-0",
        "bytes=0-",
        "bytes=-1",
        "bytes=5-2",
        "bytes=999-",
        "bytes=0-0,1-1",
        "x=1-2",
        "bytes=",
        "bytes",
        "0-0",
        "bytes=a-b",
        "bytes=0-18446744073709551616",
        "",
    ] {
        t.fields(format!("Range: {range}"), "200");
    }
    t.fields(format!("Range: bytes={}", "0-,".repeat(1300)), "200");
    t.fields("Range: bytes=0-0\r\nIf-Range: \"x\"", "200");
    t.section("RFC 9110 13.1, 13.2.1");
    for field in [
        "If-Modified-Since: Mon, 23 Nov 2099 14:11:01 GMT",
        "If-Modified-Since: yesterday",
        "If-Unmodified-Since: Thu, 01 Jan 1970 00:00:00 GMT",
        "If-None-Match: \"x\"",
        "If-None-Match: W/\"x\"",
        "If-None-Match: x",
        "If-Modified-Since:",
    ] {
        // A resource without a date or an entity tag has no condition that could fail.
        t.fields(field, "200");
        let options = format!("OPTIONS /healthz HTTP/1.1\r\nHost: h\r\n{field}\r\n\r\n");
        t.raw(&format!("OPTIONS with {field}"), options, "200");
    }
    t.section("RFC 9110 8, 10, 11, 12");
    for field in [
        "Content-Type: a/b",
        "Content-Type: \"",
        "Content-Encoding: gzip",
        "Content-Language: x",
        "Content-Location: /x",
        "Content-MD5: x",
        "TE: trailers",
        "TE: gzip;q=0.5, x",
        "Trailer: X",
        "Via: 1.1 a",
        "Max-Forwards: 0",
        "Max-Forwards: x",
        "Referer: http://a/",
        "From: a@b",
        "User-Agent: curl/8",
        "User-Agent:",
        "Date: x",
        "Date: Mon, 23 Nov 2026 14:11:01 GMT",
        "Cookie: a=b; c",
        "Cookie:",
        "Cookie: =",
        "Cookie: a=b\r\nCookie: c=d",
        "Cookie2: x",
        "Authorization: Basic YTpi",
        "Authorization: x",
        "Authorization:",
        "Pragma: no-cache",
        "Proxy-Authorization: Basic YTpi",
        "Cache-Control: no-store",
        "Cache-Control: only-if-cached",
        "Accept-Charset: x",
        "Accept-Language: xx;q=0",
        "Accept-Encoding: gzip",
        "DNT: 1",
        "Accept-Encoding: identity;q=0",
        "Accept-Encoding: *;q=0",
        "Age: 1",
        "Warning: x",
        "Link: x",
        "X-HTTP-Method-Override: DELETE",
        "X-HTTP-Method: PUT",
        "X-Original-URL: /nowhere",
        "X-Rewrite-URL: /nowhere",
        "X-Forwarded-For: 1.2.3.4",
        "X-Forwarded-Host: a, b",
        "X-Forwarded-Proto: https",
        "Forwarded: for=1.2.3.4;host=a",
        "Forwarded: \"",
        "Early-Data: 1",
        "Priority: u=1",
        "Sec-Fetch-Site: cross-site",
        "Origin: http://evil.example",
        "Origin: null",
        "Access-Control-Request-Method: GET",
        "Alt-Used: a",
        "HTTP2-Settings: AAMAAABk",
        "MIME: 1",
        "Content-Transfer-Encoding: base64",
        "Status: 500",
        "Location: /",
        "Set-Cookie: a=b",
        "Content-Security-Policy: x",
        "Upgrade-Insecure-Requests: 1",
        "Save-Data: on",
        "Prefer: x",
    ] {
        t.fields(field, "200");
    }
}

fn negotiated(t: &mut Table) {
    t.section("RFC 9110 12.5.1");
    let head = "HEAD /open-ports?domain=127.0.0.1&ports=1 HTTP/1.1\r\nHost: localhost\r\n";
    for (accept, expected) in [
        ("*/*", "H200"),
        ("application/json", "H200"),
        ("text/plain", "H200"),
        ("text/*", "H200"),
        ("application/x-ndjson", "H200"),
        ("text/event-stream", "H200"),
        ("", "H200"),
        (",", "H200"),
        ("TEXT/PLAIN", "H200"),
        ("text/html, */*;q=0.1", "H200"),
        ("*/*;q=0.001", "H200"),
        ("text/html", "H406"),
        ("image/*", "H406"),
        ("*/*;q=0", "H406"),
        ("text/html;q=1", "H406"),
        ("application/json;q=0", "H406"),
        ("application/json;q=0.0, text/plain;q=0", "H406"),
        ("text/plain;q=0, */*", "H200"),
        ("text/plain, x", "H200"),
        ("x", "H200"),
        ("*", "H200"),
        ("application/json;q=2", "H200"),
        ("a/b;c=\"d,e\", text/plain", "H200"),
    ] {
        t.raw(&format!("Accept: {accept}"), format!("{head}Accept: {accept}\r\n\r\n"), expected);
    }
    let twice = format!("{head}Accept: text/html\r\nAccept: text/plain\r\n\r\n");
    t.raw("two Accept lines are one list", twice, "H200");
}

/// Sends one request on its own connection.
fn request(service: &Service, request: &str) -> Answer {
    let mut stream = TcpStream::connect(service.address).unwrap();
    stream.set_read_timeout(Some(EVENT_TIMEOUT)).unwrap();
    let head = format!("{request} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    let head = head.replace("  HTTP/1.1", " HTTP/1.1");
    stream.write_all(head.as_bytes()).unwrap();
    let mut received = Vec::new();
    stream.read_to_end(&mut received).unwrap();
    let answers = reader::read(&received, |_| request.starts_with("HEAD"), true);
    let mut answers = answers.unwrap_or_else(|fault| panic!("{request}: {fault}"));
    assert_eq!(answers.len(), 1, "{request}: {answers:?}");
    answers.remove(0)
}

const SCAN: &str = "/open-ports?domain=127.0.0.1&ports=1";

/// RFC 9110 section 9.3.2: HEAD has the same fields as GET, and the length is that of the body of
/// GET. Exceptions: HEAD of a scan does not scan and knows no length, and the length of `/metrics`
/// changes with each request.
#[test]
fn head_has_the_same_fields_as_get() {
    let service = Service::start(&[]);
    let faulty = ["/open-ports", "/probe", "/nowhere"];
    for target in
        ["/healthz", "/readyz", "/", "/openapi.json", "/metrics", SCAN].iter().chain(&faulty)
    {
        let (get, head) = (format!("GET {target}"), format!("HEAD {target}"));
        let (get, head) =
            (request(&service, &get).comparable(), request(&service, &head).comparable());
        assert_eq!(get.status, head.status, "{target}");
        let names = |answer: &Answer| {
            let names = answer.fields.iter().map(|(name, _)| name.clone());
            names.filter(|name| name != "Content-Length").collect::<Vec<_>>()
        };
        assert_eq!(names(&get), names(&head), "{target}");
        match *target {
            SCAN => assert_eq!(head.field("Content-Length"), None),
            "/metrics" => {}
            _ => assert_eq!(get.fields, head.fields, "{target}"),
        }
    }
}

#[test]
fn answers_have_the_fields_that_their_status_requires() {
    let service = Service::start(&[]);
    // RFC 9110 section 12.5.5 and RFC 9111 section 4.1: a negotiated answer names the request
    // field.
    let scan = request(&service, &format!("GET {SCAN}"));
    assert_eq!(scan.field("Vary"), Some("Accept"));
    assert_eq!(scan.field("Cache-Control"), Some("no-store"));
    // RFC 9110 section 10.2.1 and 15.5.6.
    for target in ["/healthz", "/open-ports", "/", "/metrics", "/openapi.json", "/readyz", "/probe"]
    {
        let allow = Some("GET, HEAD, OPTIONS");
        assert_eq!(
            request(&service, &format!("OPTIONS {target}")).field("Allow"),
            allow,
            "{target}"
        );
        assert_eq!(
            request(&service, &format!("DELETE {target}")).field("Allow"),
            allow,
            "{target}"
        );
    }
    // RFC 9111 section 5.2.2.5: an answer about the current state must not be stored.
    for target in ["/healthz", "/readyz", "/metrics"] {
        let answer = request(&service, &format!("GET {target}"));
        assert_eq!(answer.field("Cache-Control"), Some("no-store"), "{target}");
    }
    // RFC 9111 section 4.2.2: a cache guesses the lifetime of an answer without Cache-Control.
    for target in ["/", "/openapi.json"] {
        let answer = request(&service, &format!("GET {target}"));
        assert!(answer.field("Cache-Control").is_some(), "{target}");
    }
}

/// RFC 9110 section 11.6.1, with each kind of wrong credentials.
#[test]
fn a_missing_token_is_answered_with_a_challenge() {
    let folder = Folder::new("conformance-token");
    let file = folder.write("token", "a-token-that-is-long-enough-for-anybody\n");
    std::fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
    let service = Service::start(&["--token-file", &file]);
    for (method, wrong) in
        [("GET", ""), ("HEAD", ""), ("GET", "Basic YTpi"), ("GET", "Bearer x"), ("GET", "Bearer")]
    {
        let fields = if wrong.is_empty() { "" } else { &format!("Authorization: {wrong}\r\n") };
        let mut stream = TcpStream::connect(service.address).unwrap();
        stream.set_read_timeout(Some(EVENT_TIMEOUT)).unwrap();
        let head = format!("{method} {SCAN} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n");
        stream.write_all(format!("{head}{fields}\r\n").as_bytes()).unwrap();
        let mut received = Vec::new();
        stream.read_to_end(&mut received).unwrap();
        let answers = reader::read(&received, |_| method == "HEAD", true).unwrap();
        assert_eq!(answers[0].status, 401, "{method} {wrong:?}");
    }
}

/// RFC 9110 section 10.2.3, during a shutdown.
#[test]
fn a_service_that_shuts_down_sends_retry_after() {
    let service = Service::start(&["--drain-delay", "60s"]);
    service.signal("TERM");
    let status = || Some(request(&service, "GET /readyz")).filter(|answer| answer.status == 503);
    let answer = crate::process::until("the service reports the shutdown", status);
    assert!(answer.field("Retry-After").is_some());
}
