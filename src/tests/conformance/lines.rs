//! The lines of a message and the request line (RFC 9112 sections 2 and 3), except for the target.

use crate::case::Table;
use crate::drive;

#[test]
fn lines_and_versions_are_parsed_strictly() {
    let mut table = Table::default();
    line_ends(&mut table);
    begins(&mut table);
    versions(&mut table);
    drive::check(table.cases);
}

#[test]
fn the_request_line_is_parsed_strictly() {
    let mut table = Table::default();
    methods(&mut table);
    request_lines(&mut table);
    lengths(&mut table);
    drive::check(table.cases);
}

fn line_ends(t: &mut Table) {
    t.section("RFC 9112 2.2");
    let lf = "400!";
    t.raw("a request", "GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n", "200");
    t.raw("bare LF after the request line", "GET /healthz HTTP/1.1\nHost: h\r\n\r\n", lf);
    t.raw("bare LF after a field", "GET /healthz HTTP/1.1\r\nHost: h\nX: y\r\n\r\n", lf);
    t.raw("bare LF after the last field", "GET /healthz HTTP/1.1\r\nHost: h\n\r\n", lf);
    t.raw("bare LF as the blank line", "GET /healthz HTTP/1.1\r\nHost: h\r\n\n", lf);
    t.raw("bare LF throughout", "GET /healthz HTTP/1.1\nHost: h\n\n", lf);
    t.raw("bare CR after the request line", "GET /healthz HTTP/1.1\rHost: h\r\n\r\n", lf);
    t.raw("bare CR after a field", "GET /healthz HTTP/1.1\r\nHost: h\rX: y\r\n\r\n", lf);
    t.raw("bare CR as the blank line", "GET /healthz HTTP/1.1\r\nHost: h\r\n\rGET", lf);
    t.raw("bare CR throughout", "GET /healthz HTTP/1.1\rHost: h\r\r", lf);
    t.raw("CR CR LF after the request line", "GET /healthz HTTP/1.1\r\r\nHost: h\r\n\r\n", lf);
    t.raw("CR CR LF after a field", "GET /healthz HTTP/1.1\r\nHost: h\r\r\n\r\n", lf);
    t.raw("CR CR LF as the blank line", "GET /healthz HTTP/1.1\r\nHost: h\r\n\r\r\n", lf);
    t.raw("LF CR after a field", "GET /healthz HTTP/1.1\r\nHost: h\n\rX: y\r\n\r\n", lf);
    t.raw("CR within the method", "G\rET /healthz HTTP/1.1\r\nHost: h\r\n\r\n", lf);
    t.raw("CR within the target", "GET /heal\rthz HTTP/1.1\r\nHost: h\r\n\r\n", lf);
    t.raw("LF within the target", "GET /heal\nthz HTTP/1.1\r\nHost: h\r\n\r\n", lf);
    t.raw("CR within the version", "GET /healthz HTTP/\r1.1\r\nHost: h\r\n\r\n", lf);
    t.raw("CR within a name", "GET /healthz HTTP/1.1\r\nHost: h\r\nX\rY: z\r\n\r\n", lf);
    t.raw("LF within a name", "GET /healthz HTTP/1.1\r\nHost: h\r\nX\nY: z\r\n\r\n", lf);
    t.raw("CR at the start of a value", "GET /healthz HTTP/1.1\r\nHost: h\r\nX:\ry\r\n\r\n", lf);
    t.raw("a blank line of blanks", "GET /healthz HTTP/1.1\r\nHost: h\r\n \r\n\r\n", lf);
    t.raw("a blank line of a tab", "GET /healthz HTTP/1.1\r\nHost: h\r\n\t\r\n\r\n", lf);
    t.raw("a blank before the first field", "GET /healthz HTTP/1.1\r\n Host: h\r\n\r\n", lf);
    t.raw("a tab before the first field", "GET /healthz HTTP/1.1\r\n\tHost: h\r\n\r\n", lf);
    t.raw("a line of blanks first", "GET /healthz HTTP/1.1\r\n \r\nHost: h\r\n\r\n", lf);
    t.raw("a blank and a hidden field", "GET /healthz HTTP/1.1\r\n X: y\r\nHost: h\r\n\r\n", lf);
    t.raw("a byte order mark", b"\xEF\xBB\xBFGET /healthz HTTP/1.1\r\nHost: h\r\n\r\n", lf);
    t.raw("UTF-16", b"G\0E\0T\0 \0/\0", lf);
    t.raw("Unicode line separators", "GET /healthz HTTP/1.1\u{2028}Host: h\r\n\r\n", lf);
    t.raw("NEL for CR LF", b"GET /healthz HTTP/1.1\x85Host: h\r\n\r\n", lf);
}

fn begins(t: &mut Table) {
    t.section("RFC 9112 2.2");
    let get = "GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n";
    t.raw("one empty line first", format!("\r\n{get}"), "200");
    t.raw("two empty lines first", format!("\r\n\r\n{get}"), "200");
    t.raw("eight empty lines first", format!("{}{get}", "\r\n".repeat(8)), "200");
    t.raw("nine empty lines first", format!("{}{get}", "\r\n".repeat(9)), "400!");
    t.raw("a thousand empty lines", "\r\n".repeat(1000), "400!");
    t.raw("an empty line between two requests", format!("{get}\r\n{get}"), "200 200");
    t.raw("a bare LF first", format!("\n{get}"), "400!");
    t.raw("a bare CR first", format!("\r{get}"), "400!");
    t.raw("a blank first", format!(" {get}"), "400!");
    t.raw("a tab first", format!("\t{get}"), "400!");
    t.raw("a line of blanks first", format!("  \r\n{get}"), "400!");
    t.raw("an empty line, then a blank", format!("\r\n {get}"), "400!");
    t.raw("nothing at all", "", "?");
    t.raw("only an empty line", "\r\n", "?");
    t.raw("only a CR", "\r", "?");
    t.raw("a method", "GET", "?");
    t.raw("half a request line", "GET /healthz HT", "?");
    t.raw("a request line without its LF", "GET /healthz HTTP/1.1\r", "?");
    t.raw("a request line alone", "GET /healthz HTTP/1.1\r\n", "?");
    t.raw("half a field", "GET /healthz HTTP/1.1\r\nHos", "?");
    t.raw("a field without its end", "GET /healthz HTTP/1.1\r\nHost: h", "?");
    t.raw("no blank line", "GET /healthz HTTP/1.1\r\nHost: h\r\n", "?");
    t.raw("half a blank line", "GET /healthz HTTP/1.1\r\nHost: h\r\n\r", "?");
    t.raw("a request and a half", format!("{get}GET /heal"), "200 ?");
    t.raw("a request and a bad half", format!("{get}\x01"), "200 400!");
    t.raw("a TLS hello", b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03abcdefgh", "400!");
    t.raw("an SSH greeting", "SSH-2.0-OpenSSH_9.6\r\n", "400!");
    t.raw("SMTP", "EHLO example.com\r\n", "400!");
    t.raw("SIP", "OPTIONS sip:a@b SIP/2.0\r\nHost: h\r\n\r\n", "400!");
    t.raw("RTSP", "OPTIONS * RTSP/1.0\r\nCSeq: 1\r\n\r\n", "400!");
    t.raw("Redis", "*1\r\n$4\r\nPING\r\n", "400!");
    t.raw("PROXY protocol", format!("PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n{get}"), "400!");
    t.raw("PROXY protocol 2", b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0C", "400!");
    t.raw("zeros", [0; 64], "400!");
    t.raw("an answer", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "400!");
    t.raw("JSON", "{\"a\": 1}\r\n\r\n", "400!");
    t.raw("a fold of the request line", "GET /healthz\r\n HTTP/1.1\r\nHost: h\r\n\r\n", "400!");
}

fn versions(t: &mut Table) {
    t.section("RFC 9110 2.5, RFC 9112 2.3");
    t.line("GET /healthz HTTP/1.1", "200");
    t.line("GET /healthz HTTP/1.0", "200!");
    for minor in 2..=9 {
        // RFC 9110 section 6.2: the message is processed as the highest minor version that is
        // supported.
        t.line(format!("GET /healthz HTTP/1.{minor}"), "200");
    }
    t.raw("1.2 needs Host too", "GET /healthz HTTP/1.2\r\n\r\n", "400!");
    let twice = "GET /healthz HTTP/1.5\r\nHost: h\r\nConnection: close\r\n\r\n";
    t.raw("1.5 may have Connection: close", twice, "200!");
    let chunked = "GET /healthz HTTP/1.9\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    t.raw("1.9 may be chunked", chunked, "200");
    t.raw("1.2 after an empty line", "\r\nGET /healthz HTTP/1.2\r\nHost: h\r\n\r\n", "200");
    for version in [
        "HTTP/0.9",
        "HTTP/0.0",
        "HTTP/2.0",
        "HTTP/2.1",
        "HTTP/3.0",
        "HTTP/9.9",
        "HTTP/1",
        "HTTP/2",
        "HTTP/1.",
        "HTTP/.1",
        "HTTP/1.1.",
        "HTTP/1.1.1",
        "HTTP/1.10",
        "HTTP/1.01",
        "HTTP/01.1",
        "HTTP/11.1",
        "HTTP/1.1a",
        "HTTP/1,1",
        "HTTP/1 .1",
        "HTTP/ 1.1",
        "HTTP /1.1",
        "HTTP/+1.1",
        "HTTP/-1.1",
        "HTTP/1.-1",
        "HTTP/1.x",
        "HTTP/x.1",
        "HTTP/0x1.1",
        "HTTP/1.1\t",
        "HTTP/1.1 ",
        "HTTP//1.1",
        "HTTP\\1.1",
        "HTTP1.1",
        "HTTP-1.1",
        "HTTP",
        "HTTP/",
        "http/1.1",
        "Http/1.1",
        "HTTp/1.1",
        "hTTP/1.1",
        "HTTPS/1.1",
        "XHTTP/1.1",
        "HTTQ/1.1",
        "ICY/1.1",
        "SHTTP/1.3",
        "HTTP/1.\u{661}",
        "ＨTTP/1.1",
        "HTTP/1.1;",
        "HTTP/1.1#",
        "HTTP/1.1 HTTP/1.1",
        "1.1",
        "",
    ] {
        t.line(format!("GET /healthz {version}"), "400!");
    }
    t.raw("HTTP/0.9", "GET /healthz\r\n", "400!");
    t.raw("HTTP/0.9 with a bare LF", "GET /healthz\n", "400!");
    t.raw("a version alone", "HTTP/1.1\r\n\r\n", "400!");
    t.section("RFC 9113 3.4");
    t.raw("the preface of HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "400!");
    t.raw("half a preface", "PRI * HTTP/2.0\r\n", "400!");
    t.raw("PRI of HTTP/1.1", "PRI * HTTP/1.1\r\nHost: h\r\n\r\n", "400!");
}

fn methods(t: &mut Table) {
    t.section("RFC 9110 9.1");
    for method in [
        "POST",
        "PUT",
        "DELETE",
        "PATCH",
        "TRACE",
        "PROPFIND",
        "QUERY",
        "LINK",
        "PURGE",
        "BREW",
        "get",
        "Get",
        "gEt",
        "head",
        "options",
        "post",
        "GETT",
        "GE",
        "G",
        "XGET",
        "GET1",
        "1GET",
        "GET-X",
        "GET_",
        "M-SEARCH",
        "VERSION-CONTROL",
        "UPDATEREDIRECTREF",
        "!#$%&'*+-.^_`|~",
        "HTTP",
        "PRI",
        "SOURCE",
        "connect",
    ] {
        t.line(format!("{method} /healthz HTTP/1.1"), "405");
    }
    t.line(format!("{} /healthz HTTP/1.1", "X".repeat(200)), "405");
    t.line("POST /nowhere HTTP/1.1", "404");
    t.line("BREW /nowhere HTTP/1.1", "404");
    t.line("POST /healthz HTTP/1.0", "405!");
    t.section("RFC 9110 5.6.2");
    for method in [
        "G(T", "G)T", "G<T", "G>T", "G@T", "G,T", "G;T", "G:T", "G\\T", "G\"T", "G/T", "G[T",
        "G]T", "G?T", "G=T", "G{T", "G}T", "GET:", "GET,", "\"GET\"", "[GET]", "G\u{e9}T", "GÉT",
        "",
    ] {
        t.line(format!("{method} /healthz HTTP/1.1"), "400!");
    }
    t.section("RFC 9110 9.3.1, 9.3.2, 9.3.7");
    for (path, status) in
        [("/healthz", 200), ("/readyz", 200), ("/", 200), ("/openapi.json", 200), ("/nowhere", 404)]
    {
        t.line(format!("GET {path} HTTP/1.1"), &status.to_string());
        t.line(format!("HEAD {path} HTTP/1.1"), &format!("H{status}"));
        t.line(format!("OPTIONS {path} HTTP/1.1"), &status.to_string());
    }
    for method in ["GET", "HEAD"] {
        let expected = if method == "HEAD" { "H200" } else { "200" };
        t.line(format!("{method} /metrics HTTP/1.1"), expected).is_volatile = true;
    }
    t.section("RFC 9110 9.3.6");
    for target in ["example.com:80", "127.0.0.1:1", "[::1]:80", "example.com", "/", "*", "/healthz"]
    {
        t.line(format!("CONNECT {target} HTTP/1.1"), "405!");
    }
    let tunnelled = "CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n";
    t.raw("CONNECT and what it would tunnel", tunnelled, "405!");
    t.section("RFC 9110 9.3.8");
    t.raw(
        "TRACE is not echoed",
        "TRACE /healthz HTTP/1.1\r\nHost: h\r\nX-Secret: s\r\nMax-Forwards: 0\r\n\r\n",
        "405",
    );
    t.section("RFC 9110 7.6.2");
    for method in ["OPTIONS", "GET"] {
        let bytes = format!("{method} /healthz HTTP/1.1\r\nHost: h\r\nMax-Forwards: 0\r\n\r\n");
        t.raw(&format!("Max-Forwards of {method}"), bytes, "200");
    }
}

fn request_lines(t: &mut Table) {
    t.section("RFC 9112 3");
    for line in [
        "GET  /healthz HTTP/1.1",
        "GET /healthz  HTTP/1.1",
        "GET\t/healthz HTTP/1.1",
        "GET /healthz\tHTTP/1.1",
        "GET /healthz HTTP/1.1 ",
        "GET /healthz HTTP/1.1\t",
        "GET /heal thz HTTP/1.1",
        "GET /healthz x HTTP/1.1",
        "GET HTTP/1.1",
        "GET",
        "GET ",
        "GET  HTTP/1.1",
        "/healthz HTTP/1.1",
        " /healthz HTTP/1.1",
        "GET/healthz HTTP/1.1",
        "GET /healthzHTTP/1.1",
        "GET\x0B/healthz HTTP/1.1",
        "GET\x0C/healthz HTTP/1.1",
        "GET\0/healthz HTTP/1.1",
        "GET\u{a0}/healthz HTTP/1.1",
        "GET /healthz\x0BHTTP/1.1",
        "GET /healthz HTTP/1.1 Host: h",
        "GET /healthz HTTP/1.1, HTTP/1.1",
        "GET /healthz,HTTP/1.1",
        ": /healthz HTTP/1.1",
        "GET: /healthz HTTP/1.1",
        "GET /healthz HTTP/1.1:",
    ] {
        t.line(line, "400!");
    }
}

fn lengths(t: &mut Table) {
    t.section("RFC 9112 3");
    for (count, expected) in [(8000, "404"), (8191, "404"), (8192, "404"), (8193, "414!")] {
        let target = format!("/{}", "x".repeat(count - 1));
        t.line(format!("GET {target} HTTP/1.1"), expected);
        let query = format!("/healthz?{}", "x".repeat(count - 9));
        t.line(format!("GET {query} HTTP/1.1"), &expected.replace("404", "200"));
    }
    t.line(format!("GET /{} HTTP/1.1", "x".repeat(9000)), "414!");
    t.line(format!("HEAD /{} HTTP/1.1", "x".repeat(9000)), "H414!");
    t.raw("an endless target", format!("GET /{}", "x".repeat(20_000)), "414!");
    t.raw("an endless method", "X".repeat(20_000), "400!");
    t.raw("a method of 100 kB", format!("{} / HTTP/1.1\r\n", "X".repeat(100_000)), "400!");
    let target = "x".repeat(8191);
    t.line(format!("{} /{target} HTTP/1.1", "X".repeat(256)), "404");
    t.line(format!("{} / HTTP/1.1", "X".repeat(257)), "400!");
    let absolute = format!("GET http://localhost/{} HTTP/1.1", "x".repeat(7900));
    t.line(absolute, "404");
    t.section("RFC 9110 5.4, RFC 6585 5");
    let head = "GET /healthz HTTP/1.1\r\nHost: h\r\n";
    let fields = |count: usize| format!("{head}{}\r\n", "X: y\r\n".repeat(count - 1));
    t.raw("100 fields", fields(100), "200");
    t.raw("101 fields", fields(101), "431!");
    t.raw("2,000 fields", fields(2000), "431!");
    t.raw("a name of 10 KB", format!("{head}{}: y\r\n\r\n", "x".repeat(10_240)), "200");
    t.raw("a value of 10 KB", format!("{head}X: {}\r\n\r\n", "y".repeat(10_240)), "200");
    t.raw("a name of 20 KB", format!("{head}{}: y\r\n\r\n", "x".repeat(20_480)), "431!");
    t.raw("a value of 100 KB", format!("{head}X: {}\r\n\r\n", "y".repeat(102_400)), "431!");
    t.raw("an endless value", format!("{head}X: {}", "y".repeat(20_000)), "431!");
    let filler = 16_384 - head.len() - "X: \r\n\r\n".len();
    t.raw("a head of 16,384 bytes", format!("{head}X: {}\r\n\r\n", "y".repeat(filler)), "200");
    t.raw("a head of 16,385 bytes", format!("{head}X: {}\r\n\r\n", "y".repeat(filler + 1)), "431!");
    let head = head.replace("GET", "HEAD");
    t.raw("HEAD with 200 fields", format!("{head}{}\r\n", "X: y\r\n".repeat(200)), "H431!");
    t.raw("an Accept of 10 KB", format!("{head}Accept: {}\r\n\r\n", "a/b,".repeat(2560)), "H200");
}
