//! The persistence of connections and the order of answers: RFC 9112 section 9, RFC 9110 sections
//! 7.6.1, 7.8 and 10.1.1.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::case::Table;
use crate::drive;
use crate::process::{EVENT_TIMEOUT, Service};
use crate::reader;

const GET: &str = "GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n";
const HEAD: &str = "HEAD /healthz HTTP/1.1\r\nHost: h\r\n\r\n";
const NOT_FOUND: &str = "GET /nowhere HTTP/1.1\r\nHost: h\r\n\r\n";
const POST: &str = "POST /healthz HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello";
const LAST: &str = "GET /healthz HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
const NO_HOST: &str = "GET /healthz HTTP/1.1\r\n\r\n";
const CHUNKED: &str =
    "PUT /healthz HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n";

#[test]
fn the_connection_options_determine_the_persistence() {
    let mut table = Table::default();
    persistence(&mut table);
    persistence_in_1_0(&mut table);
    drive::check(table.cases);
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let mut table = Table::default();
    pipelines(&mut table);
    scans(&mut table);
    drive::check(table.cases);
}

#[test]
fn expectations_are_checked_and_upgrades_are_ignored() {
    let mut table = Table::default();
    expectations(&mut table);
    upgrades(&mut table);
    drive::check(table.cases);
}

fn persistence(t: &mut Table) {
    t.section("RFC 9112 9.3, 9.6");
    for option in [
        "close",
        "Close",
        "CLOSE",
        " close ",
        "close,",
        ",close",
        "close, keep-alive",
        "keep-alive, close",
        "x, close",
        "close, x",
        "upgrade, close",
        "close,close",
        "\tclose\t",
        "close\r\nConnection: keep-alive",
        "keep-alive\r\nConnection: close",
        "x\r\nConnection: close",
    ] {
        t.fields(format!("Connection: {option}"), "200!");
        let head = format!("GET /healthz HTTP/1.1\r\nHost: h\r\nConnection: {option}\r\n\r\n");
        t.raw(&format!("no answer after Connection: {option}"), format!("{head}{GET}"), "200!");
    }
    for option in [
        "keep-alive",
        "Keep-Alive",
        "",
        "x",
        "closed",
        "clos",
        "close;x",
        "\"close\"",
        "close x",
        "x close",
        "close=1",
        "upgrade",
        "te",
        "host",
        "no-close",
        "not close",
        "\u{e9}",
        "close.",
    ] {
        t.fields(format!("Connection: {option}"), "200");
    }
    t.fields("Proxy-Connection: close", "200");
    t.fields("Keep-Alive: timeout=0", "200");
    t.fields("Keep-Alive: max=1", "200");
    t.fields("X-Connection: close", "200");
    for (method, path, expected) in [
        ("HEAD", "/healthz", "H200!"),
        ("OPTIONS", "*", "200!"),
        ("GET", "/nowhere", "404!"),
        ("POST", "/healthz", "405!"),
        ("HEAD", "/nowhere", "H404!"),
        ("GET", "/open-ports", "400!"),
    ] {
        let head = format!("{method} {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
        t.raw(&format!("{method} {path} with close"), format!("{head}{GET}"), expected);
    }
    t.body("Connection: close\r\nContent-Length: 5", format!("hello{GET}"), "200!");
    let chunked = "Connection: close\r\nTransfer-Encoding: chunked";
    t.body(chunked, format!("0\r\n\r\n{GET}"), "200!");
    t.raw("an error of a route keeps the connection", NOT_FOUND, "404");
    t.raw(
        "an invalid query keeps the connection",
        NOT_FOUND.replace("nowhere", "open-ports"),
        "400",
    );
    t.raw("a protocol error closes the connection", format!("{NO_HOST}{GET}"), "400!");
}

fn persistence_in_1_0(t: &mut Table) {
    t.section("RFC 9112 9.3, C.2.2");
    for (fields, expected) in [
        ("", "200!"),
        ("Connection: keep-alive\r\n", "200"),
        ("Connection: Keep-Alive\r\n", "200"),
        ("Connection: x, keep-alive\r\n", "200"),
        ("Connection: close\r\n", "200!"),
        ("Connection: keep-alive, close\r\n", "200!"),
        ("Keep-Alive: timeout=5\r\n", "200!"),
        ("Proxy-Connection: keep-alive\r\n", "200!"),
        ("Connection: x\r\n", "200!"),
        ("Connection: keep-alive\r\nConnection: close\r\n", "200!"),
    ] {
        let bytes = format!("GET /healthz HTTP/1.0\r\n{fields}\r\n");
        t.raw(&format!("1.0 with {fields:?}"), &bytes, expected);
        let second = if expected.ends_with('!') { "200!" } else { "200 404" };
        t.raw(
            &format!("a second request after 1.0 with {fields:?}"),
            format!("{bytes}{NOT_FOUND}"),
            second,
        );
    }
    t.raw("1.0, then 1.1", format!("GET /healthz HTTP/1.0\r\n\r\n{GET}"), "200!");
    t.raw("1.1, then 1.0", format!("{GET}GET /healthz HTTP/1.0\r\n\r\n{GET}"), "200 200!");
    t.raw("HEAD of 1.0", "HEAD /healthz HTTP/1.0\r\n\r\n", "H200!");
    t.raw("POST of 1.0", "POST /healthz HTTP/1.0\r\nContent-Length: 2\r\n\r\nok", "405!");
}

fn pipelines(t: &mut Table) {
    t.section("RFC 9112 9.3.2");
    let parts = [
        (GET, "200"),
        (HEAD, "H200"),
        (NOT_FOUND, "404"),
        (POST, "405"),
        (CHUNKED, "405"),
        (LAST, "200!"),
        (NO_HOST, "400!"),
    ];
    for (first, one) in parts {
        for (second, two) in parts {
            let both = format!("{first}{second}");
            let expected = if one.ends_with('!') { one.to_owned() } else { format!("{one} {two}") };
            t.raw(&format!("{one} before {two}: {both:?}"), both, &expected);
        }
    }
    let three = format!("{GET}{HEAD}{NOT_FOUND}{POST}{CHUNKED}{HEAD}{GET}");
    t.raw("seven requests in order", &three, "200 H200 404 405 405 H200 200");
    t.raw(
        "an invalid request in the middle",
        format!("{three}{NO_HOST}{three}"),
        "200 H200 404 405 405 H200 200 400!",
    );
    t.raw(
        "a request with close in the middle",
        format!("{three}{LAST}{three}"),
        "200 H200 404 405 405 H200 200 200!",
    );
    t.raw("thirty requests", GET.repeat(30), &"200 ".repeat(30));
    t.raw("thirty HEADs", HEAD.repeat(30), &"H200 ".repeat(30));
    t.raw(
        "a HEAD and a large answer",
        format!("{HEAD}GET /openapi.json HTTP/1.1\r\nHost: h\r\n\r\n{HEAD}"),
        "H200 200 H200",
    );
    t.raw("a refused HEAD has no body", format!("{GET}HEAD / HTTP/1.1\r\n\r\n"), "200 H400!");
}

fn scans(t: &mut Table) {
    t.section("RFC 9112 9.3.2, 7.1");
    let scan = |version: &str, fields: &str| {
        let target = "/open-ports?domain=127.0.0.1&ports=1";
        format!("GET {target} HTTP/{version}\r\nHost: localhost\r\n{fields}\r\n")
    };
    for accept in ["application/json", "application/x-ndjson", "text/event-stream", "text/plain"] {
        let field = format!("Accept: {accept}\r\n");
        for (name, bytes, expected) in [
            ("a scan", scan("1.1", &field), "200"),
            (
                "a scan between other requests",
                format!("{GET}{}{NOT_FOUND}", scan("1.1", &field)),
                "200 200 404",
            ),
            ("two scans", scan("1.1", &field).repeat(2), "200 200"),
            ("a scan of 1.0", scan("1.0", &field), "200!"),
            ("a scan with close", scan("1.1", &format!("{field}Connection: close\r\n")), "200!"),
        ] {
            let case = t.raw(&format!("{name} as {accept}"), bytes, expected);
            (case.is_volatile, case.needs_reader, case.cuts) = (true, true, vec![40, 90]);
        }
        let head = scan("1.1", &field).replacen("GET", "HEAD", 1);
        t.raw(&format!("HEAD of a scan as {accept}"), format!("{head}{GET}"), "H200 200");
    }
}

fn expectations(t: &mut Table) {
    t.section("RFC 9110 10.1.1");
    for value in [
        "100-continue",
        "100-Continue",
        "100-CONTINUE",
        "100-continue,",
        ", 100-continue",
        "100-continue, 100-continue",
        "100-continue\r\nExpect: 100-continue",
        "",
        ",",
    ] {
        t.body(format!("Expect: {value}\r\nContent-Length: 5"), "hello", "200");
        t.fields(format!("Expect: {value}"), "200");
    }
    let chunked = "Expect: 100-continue\r\nTransfer-Encoding: chunked";
    t.body(chunked, "5\r\nhello\r\n0\r\n\r\n", "200");
    t.body("Expect: 100-continue\r\nContent-Length: 0", "", "200");
    for value in [
        "x",
        "200-ok",
        "100",
        "continue",
        "100-continue;a=b",
        "100-continue=1",
        "100-continue x",
        "\"100-continue\"",
        "100-continue, x",
        "x, 100-continue",
        "100 continue",
        "101-continue",
        "0100-continue",
        "100-continu",
        "100-continues",
        "\u{e9}",
    ] {
        t.body(format!("Expect: {value}\r\nContent-Length: 5"), format!("hello{GET}"), "417!");
    }
    t.raw(
        "an expectation of 1.0 is ignored",
        "GET /healthz HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello",
        "200!",
    );
    t.raw(
        "an unknown expectation of 1.0 is ignored",
        "GET /healthz HTTP/1.0\r\nExpect: x\r\n\r\n",
        "200!",
    );
    t.body("Expect: 100-continue\r\nContent-Length: 70000", "", "413!");
    t.body("Expect: 100-continue\r\nContent-Length: x", "", "400!");
    let smuggled = "Expect: 100-continue\r\nContent-Length: 5\r\nTransfer-Encoding: chunked";
    t.body(smuggled, format!("0\r\n\r\n{GET}"), "400!");
    t.body("Expect: 100-continue\r\nContent-Length: 5", format!("hello{NOT_FOUND}"), "200 404");
    let fields = "Host: h\r\nExpect: 100-continue\r\nContent-Length: 5";
    let head = format!("HEAD /healthz HTTP/1.1\r\n{fields}\r\n\r\nhello");
    t.raw("HEAD with an expectation", head, "H200");
}

fn upgrades(t: &mut Table) {
    t.section("RFC 9110 7.8");
    let socket = "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";
    for fields in [
        format!("Connection: Upgrade\r\nUpgrade: websocket\r\n{socket}"),
        format!("Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n{socket}"),
        format!("Upgrade: websocket\r\n{socket}"),
        "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk"
            .to_owned(),
        "Connection: upgrade\r\nUpgrade: TLS/1.0".to_owned(),
        "Connection: upgrade\r\nUpgrade: HTTP/2.0, x/1".to_owned(),
        "Connection: upgrade\r\nUpgrade: \"".to_owned(),
        "Connection: upgrade".to_owned(),
    ] {
        t.fields(&fields, "200");
        t.body(format!("{fields}\r\nContent-Length: 5"), format!("hello{NOT_FOUND}"), "200 404");
        t.raw(
            &format!("POST with {fields:?}"),
            format!("POST /healthz HTTP/1.1\r\nHost: h\r\n{fields}\r\n\r\n"),
            "405",
        );
    }
    t.body("Connection: Upgrade\r\nUpgrade: h2c", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "200 400!");
}

/// The interim answer depends on whether the body has already arrived: it is sent if and only if
/// the client may be waiting for it.
#[test]
fn the_service_sends_100_continue_only_if_the_client_waits() {
    let service = Service::start(&[]);
    let statuses = |method: &str, fields: &str, body: &str| {
        let mut stream = TcpStream::connect(service.address).unwrap();
        stream.set_read_timeout(Some(EVENT_TIMEOUT)).unwrap();
        let head =
            format!("{method} /healthz HTTP/1.1\r\nHost: h\r\nConnection: close\r\n{fields}");
        stream.write_all(format!("{head}\r\n").as_bytes()).unwrap();
        let mut received = Vec::new();
        if !body.is_empty() {
            let mut interim = [0; 25];
            stream.read_exact(&mut interim).unwrap();
            received.extend_from_slice(&interim);
            stream.write_all(body.as_bytes()).unwrap();
        }
        stream.read_to_end(&mut received).unwrap();
        let answers = reader::read(&received, |_| method == "HEAD", true).unwrap();
        answers.iter().map(|answer| answer.status).collect::<Vec<_>>()
    };
    let expect = "Expect: 100-continue\r\n";
    let length = |n: usize| format!("{expect}Content-Length: {n}\r\n");
    let chunked = format!("{expect}Transfer-Encoding: chunked\r\n");
    assert_eq!(statuses("GET", &length(5), "hello"), [100, 200]);
    assert_eq!(statuses("HEAD", &length(5), "hello"), [100, 200]);
    assert_eq!(statuses("POST", &length(5), "hello"), [100, 405]);
    assert_eq!(statuses("GET", &chunked, "0\r\n\r\n"), [100, 200]);
    assert_eq!(statuses("GET", &chunked, "zz\r\n\r\n"), [100, 400]);
    assert_eq!(statuses("GET", &length(0), ""), [200]);
    assert_eq!(statuses("GET", expect, ""), [200]);
    assert_eq!(statuses("GET", &length(100_000), ""), [413]);
    assert_eq!(statuses("GET", "Expect: x\r\nContent-Length: 5\r\n", ""), [417]);
}
