//! The request target: RFC 9112 section 3.2, RFC 3986.

use crate::case::Table;
use crate::drive;

#[test]
fn the_request_target_is_parsed_strictly() {
    let mut table = Table::default();
    origin_forms(&mut table);
    absolute_forms(&mut table);
    other_forms(&mut table);
    percent_encodings(&mut table);
    drive::check(table.cases);
}

fn origin_forms(t: &mut Table) {
    t.section("RFC 9112 3.2.1");
    for (target, expected) in [
        ("/", "200"),
        ("/?", "200"),
        ("/healthz?", "200"),
        ("/healthz??", "200"),
        ("/healthz?a=b", "200"),
        ("/healthz?a=b&c", "200"),
        ("/healthz?/../x", "200"),
        ("/healthz?http://a/", "200"),
        ("/healthz?a?b", "200"),
        ("/healthz?%41", "200"),
        ("/healthz?:@!$&'()*+,;=-._~", "200"),
        ("/healthz?q=%zz", "200"),
        ("/healthz?100%", "200"),
        ("/nowhere", "404"),
        ("/healthz/", "404"),
        ("//healthz", "404"),
        ("/healthz//", "404"),
        ("//", "404"),
        ("/Healthz", "404"),
        ("/HEALTHZ", "404"),
        ("/healthz;a=b", "404"),
        ("/healthz:80", "404"),
        ("/healthz&", "404"),
        ("/healthz\\", "404"),
        ("/\\healthz", "404"),
        ("/healthz,", "404"),
        ("/http://a/", "404"),
        ("/*", "404"),
        ("/healthz=", "404"),
        ("//evil.example/healthz", "404"),
        ("/healthz|", "404"),
        ("/:@!$&'()*+,;=-._~", "404"),
        ("/healthz#", "400!"),
        ("/healthz#a", "400!"),
        ("/#", "400!"),
        ("/healthz?a#b", "400!"),
        ("#", "400!"),
        ("/healthz?#", "400!"),
    ] {
        t.line(format!("GET {target} HTTP/1.1"), expected);
    }
    t.section("RFC 3986 3.3, 5.2.4");
    for target in [
        "/.",
        "/..",
        "/./healthz",
        "/../healthz",
        "/x/../healthz",
        "/healthz/.",
        "/healthz/..",
        "/..//healthz",
        "/.../healthz",
        "/x/..%2Fhealthz",
        "/..;/healthz",
        "/../../etc/passwd",
    ] {
        t.line(format!("GET {target} HTTP/1.1"), "404");
    }
    t.section("RFC 9112 3.2");
    for byte in [b"\x80", b"\xE9", b"\xFF", b"\0", b"\x7F", b"\x1B"] {
        t.line([b"GET /", &byte[..], b" HTTP/1.1"].concat(), "400!");
        t.line([b"GET /healthz?", &byte[..], b" HTTP/1.1"].concat(), "400!");
    }
    t.line("GET /h\u{e9}althz HTTP/1.1", "400!");
    t.line(b"GET /\xC0\xAFhealthz HTTP/1.1", "400!");
}

fn absolute_forms(t: &mut Table) {
    t.section("RFC 9112 3.2.2");
    for (target, expected) in [
        ("http://localhost/healthz", "200"),
        ("http://localhost:8080/healthz", "200"),
        ("http://other.example/healthz", "200"),
        ("HTTP://localhost/healthz", "200"),
        ("hTtP://LOCALHOST/healthz", "200"),
        ("http://localhost", "200"),
        ("http://localhost/", "200"),
        ("http://localhost?a", "200"),
        ("http://127.0.0.1:1/healthz?a=b", "200"),
        ("http://[::1]/healthz", "200"),
        ("http://[::1]:80/healthz", "200"),
        ("http://localhost:/healthz", "200"),
        ("http://localhost/nowhere", "404"),
        ("http://localhost//healthz", "404"),
        ("http://localhost/http://a/healthz", "404"),
        ("http:///healthz", "400!"),
        ("http://:80/healthz", "400!"),
        ("http://", "400!"),
        ("http:/healthz", "400!"),
        ("http:healthz", "400!"),
        ("http://a@localhost/healthz", "400!"),
        ("http://a:b@localhost/healthz", "400!"),
        ("http://@localhost/healthz", "400!"),
        ("http://localhost:x/healthz", "400!"),
        ("http://localhost:65536/healthz", "400!"),
        ("http://localhost:-1/healthz", "400!"),
        ("http://localhost:80:80/healthz", "400!"),
        ("http://[::1/healthz", "400!"),
        ("http://::1/healthz", "400!"),
        ("http://[]/healthz", "400!"),
        ("http://[1.2.3.4]/healthz", "400!"),
        ("http://[fe80::1%25eth0]/healthz", "400!"),
        ("http://a,b/healthz", "400!"),
        ("http://lo%zzcal/healthz", "400!"),
        ("http://localhost/healthz#x", "400!"),
        ("http://localhost#/healthz", "400!"),
        ("http://lo\\cal/healthz", "400!"),
        ("ftp://localhost/healthz", "400!"),
        ("file:///healthz", "400!"),
        ("gopher://localhost/healthz", "400!"),
        ("ws://localhost/healthz", "400!"),
        ("httpx://localhost/healthz", "400!"),
        ("://localhost/healthz", "400!"),
        ("//localhost:80@/healthz", "404"),
        ("javascript:alert(1)", "400!"),
        ("urn:a:b", "400!"),
        ("data:,x", "400!"),
        ("mailto:a@b", "400!"),
    ] {
        t.line(format!("GET {target} HTTP/1.1"), expected);
    }
    t.section("RFC 9110 7.4");
    for target in ["https://localhost/healthz", "HTTPS://localhost", "https://a:443/", "https://a?"]
    {
        t.line(format!("GET {target} HTTP/1.1"), "421!");
        t.line(format!("HEAD {target} HTTP/1.1"), "H421!");
    }
    t.section("RFC 9112 3.2.2");
    precedence(t);
    t.section("RFC 9112 3.2.2");
    let absolute = "GET http://localhost/healthz HTTP/1.1\r\n";
    t.raw("absolute-form needs Host", format!("{absolute}\r\n"), "400!");
    t.raw("absolute-form with two Hosts", format!("{absolute}Host: a\r\nHost: a\r\n\r\n"), "400!");
    t.raw("absolute-form with a bad Host", format!("{absolute}Host: a b\r\n\r\n"), "400!");
    t.raw("absolute-form of 1.0", "GET http://a/healthz HTTP/1.0\r\n\r\n", "200!");
    t.raw("HEAD of an absolute-form", "HEAD http://a/healthz HTTP/1.1\r\nHost: a\r\n\r\n", "H200");
    t.raw(
        "OPTIONS of an absolute-form",
        "OPTIONS http://a/healthz HTTP/1.1\r\nHost: a\r\n\r\n",
        "200",
    );
}

/// A malformed message is refused with 400, even if another error applies to it as well.
fn precedence(t: &mut Table) {
    t.section("RFC 9112 3.2, 6.3");
    let huge = "Content-Length: 99999999";
    let long = format!("/{}", "x".repeat(8192));
    for (method, target, field, otherwise) in [
        ("CONNECT", "a:80", "X: y", "405!"),
        ("GET", "https://a/", "X: y", "421!"),
        ("GET", long.as_str(), "X: y", "414!"),
        ("GET", "/", huge, "413!"),
        ("GET", "/", "Expect: x", "417!"),
        ("GET", "/nowhere", "Expect: x", "417!"),
        ("GET", "/", &format!("Expect: x\r\n{huge}"), "413!"),
    ] {
        let start = format!("{method} {target} HTTP/1.1\r\n{field}\r\n");
        let length = "Content-Length: 5\r\n";
        for (name, rest, expected) in [
            ("unchanged", "Host: h\r\n".to_owned(), otherwise),
            ("without Host", String::new(), "400!"),
            ("with two Hosts", "Host: h\r\nHost: h\r\n".to_owned(), "400!"),
            ("with a bad Host", "Host: a@b\r\n".to_owned(), "400!"),
            ("with two lengths", format!("Host: h\r\n{length}{length}"), "400!"),
            ("with a coding", "Host: h\r\nTransfer-Encoding: gzip\r\n".to_owned(), "400!"),
        ] {
            let shown: String = start.chars().take(40).filter(|c| !c.is_control()).collect();
            t.raw(&format!("{shown} {name}"), format!("{start}{rest}\r\n"), expected);
        }
    }
}

fn other_forms(t: &mut Table) {
    t.section("RFC 9112 3.2.3");
    for target in
        ["localhost:80", "localhost", "a:b", "127.0.0.1:80", "[::1]:80", "user@a:1", ":80"]
    {
        t.line(format!("GET {target} HTTP/1.1"), "400!");
        t.line(format!("OPTIONS {target} HTTP/1.1"), "400!");
    }
    t.section("RFC 9112 3.2.4");
    t.line("OPTIONS * HTTP/1.1", "200");
    t.line("OPTIONS * HTTP/1.0", "200!");
    t.line("OPTIONS ** HTTP/1.1", "400!");
    t.line("OPTIONS *? HTTP/1.1", "400!");
    t.line("OPTIONS */ HTTP/1.1", "400!");
    t.line("options * HTTP/1.1", "400!");
    t.line("HEAD * HTTP/1.1", "H400!");
    for method in ["GET", "POST", "TRACE", "PUT", "DELETE", "X"] {
        t.line(format!("{method} * HTTP/1.1"), "400!");
    }
    t.section("RFC 9112 3.2");
    for target in ["healthz", "?a", ".", "..", "./healthz", "\\healthz", "a/b", "%2Fhealthz", "~"] {
        t.line(format!("GET {target} HTTP/1.1"), "400!");
    }
}

fn percent_encodings(t: &mut Table) {
    t.section("RFC 3986 6.2.2, RFC 9110 4.2.3");
    let domain = "?domain=127.0.0.1&ports=1";
    for (target, expected) in [
        ("/%68ealthz", "200"),
        ("/healt%68%7a", "200"),
        ("/healt%68%7A", "200"),
        ("/%68%65%61%6c%74%68%7a", "200"),
        ("/openapi%2Ejson", "200"),
        ("/openapi%2ejson", "200"),
        ("/%48ealthz", "404"),
        ("/%2Fhealthz", "404"),
        ("%2Fhealthz", "400!"),
        ("/healthz%2F", "404"),
        ("/healthz%3F", "404"),
        ("/healthz%23", "404"),
        ("/%2568ealthz", "404"),
        ("/%2e/healthz", "404"),
        ("/x/%2e%2e/healthz", "404"),
        ("/healthz%20", "404"),
        ("/%E2%82%AC", "404"),
        ("/%C0%AF", "404"),
        ("/%FF", "404"),
        ("/healthz%5C", "404"),
        ("/healthz%3Ba", "404"),
        ("/healthz%00", "400!"),
        ("/%00", "400!"),
        ("/healthz%0d%0aX:%20y", "400!"),
        ("/healthz%0A", "400!"),
        ("/healthz%7F", "400!"),
        ("/%1b", "400!"),
        ("/healthz%09", "400!"),
        ("/%", "400!"),
        ("/%6", "400!"),
        ("/%zz", "400!"),
        ("/%6g", "400!"),
        ("/healthz%", "400!"),
        ("/%%68", "400!"),
        ("/%u0068", "400!"),
        ("/%+1", "400!"),
        ("/% 1", "400!"),
        ("http://localhost/%68ealthz", "200"),
        ("http://localhost/%zz", "400!"),
    ] {
        t.line(format!("GET {target} HTTP/1.1"), expected);
    }
    t.line(format!("HEAD /open%2Dports{domain} HTTP/1.1"), "H200");
    t.line(format!("HEAD /open%2dports{domain} HTTP/1.1"), "H200");
    t.line(format!("HEAD /open-ports{domain} HTTP/1.1"), "H200");
    t.line("HEAD /open-ports?domain=127%2E0.0.1&ports=%31 HTTP/1.1", "H200");
    t.line("HEAD /open-ports?%64omain=127.0.0.1&ports=1 HTTP/1.1", "H200");
    for query in
        ["?domain=a%00b&ports=1", "?domain=%zz&ports=1", "?domain=a%0d%0ab&ports=1", "", "?"]
    {
        t.line(format!("GET /open-ports{query} HTTP/1.1"), "400");
    }
}
