//! Field lines: RFC 9112 section 5, RFC 9110 sections 5 and 7.2.

use crate::case::Table;
use crate::drive;

#[test]
fn field_lines_are_parsed_strictly() {
    let mut table = Table::default();
    names(&mut table);
    values(&mut table);
    line_folding(&mut table);
    drive::check(table.cases);
}

#[test]
fn the_host_field_is_parsed_strictly() {
    let mut table = Table::default();
    hosts(&mut table);
    drive::check(table.cases);
}

fn names(t: &mut Table) {
    t.section("RFC 9112 5.1");
    for field in [
        "X : y",
        "X\t: y",
        "X  : y",
        "Content-Length : 5",
        "Content-Length\t: 5",
        "Transfer-Encoding : chunked",
        "Connection : close",
        "Host2 : h",
        "X\x0B: y",
        "X\0: y",
        "X\u{a0}: y",
        "X\x0C: y",
        "Expect : 100-continue",
    ] {
        t.fields(field, "400!");
    }
    t.only_field("Host : h", "400!");
    t.only_field("Host\t: h", "400!");
    t.section("RFC 9112 5, RFC 9110 5.1");
    for field in [
        ": y",
        ":y",
        ":",
        "NoColon",
        "X",
        "X Y: z",
        "X,Y: z",
        "X/Y: z",
        "X(Y: z",
        "X)Y: z",
        "X[Y: z",
        "X]Y: z",
        "X{Y: z",
        "X}Y: z",
        "X<Y: z",
        "X>Y: z",
        "X@Y: z",
        "X=Y: z",
        "X?Y: z",
        "X;Y: z",
        "X\\Y: z",
        "\"X\": y",
        "X\"Y: z",
        "\u{e9}: y",
        "X\u{e9}: y",
        "X\0Y: z",
        "\0: y",
        "X\x7FY: z",
        "X\x1BY: z",
        "GET / HTTP/1.1",
        "=: y",
        "Content-Length",
        "=",
        "Bad[Name: value",
    ] {
        t.fields(field, "400!");
    }
    t.fields(b"\xFF: y", "400!");
    t.fields(b"X\x80: y", "400!");
    for field in [
        "X:y",
        "X:",
        "X: ",
        "X:  y",
        "X:\ty",
        "X: \t y \t ",
        "x: y",
        "X-Y_Z.1: z",
        "X::",
        "X: :y",
        "!#$%&'*+-.^_`|~: y",
        "1: y",
        "-: y",
        "X: y\r\nX: z",
        "X: y\r\nx: y",
        "Foo: bar: baz",
        "USER-AGENT: x",
        "user-agent: x",
        "X_Y: z",
        "__proto__: x",
        "Sec-WebSocket-Key: x",
    ] {
        t.fields(field, "200");
    }
    t.section("RFC 9112 6.1, 6.2");
    for field in [
        "Content_Length: 5",
        "content_length: 5",
        "CONTENT_LENGTH: 5",
        "Transfer_Encoding: chunked",
        "TRANSFER_ENCODING: x",
    ] {
        t.fields(field, "400!");
    }
    for field in ["X-Content-Length: 5", "Content-Length-X: 5", "Content-Lengt: 5", "Length: 5"] {
        t.fields(field, "200");
    }
}

fn values(t: &mut Table) {
    t.section("RFC 9110 5.5");
    for byte in (0..=8).chain(11..=12).chain(14..=31).chain([127]) {
        t.fields([b"X: a", &[byte][..], b"b"].concat(), "400!");
        t.fields([b"X: ", &[byte][..]].concat(), "400!");
    }
    for field in [
        "X: a\tb",
        "X: \"a b\"",
        "X: a,b,,c",
        "X: \u{e9}",
        "X: \u{1F980}",
        "X: (a)",
        "X: a  b",
        "X: \\",
        "X: \"",
        "X: \"\\\"",
        "X: {\"a\": 1}",
        "X: ${jndi:ldap://a/b}",
        "X: ' or 1=1--",
        "X: <script>",
        "X: () { :;};",
        "X: a;b=c;d=\"e\"",
        "X: %0d%0aY: z",
        "X: \u{10d}\u{10a}",
    ] {
        t.fields(field, "200");
    }
    for field in [&b"X: \xE9"[..], b"X: \x80\xFF", b"User-Agent: \xC0\xAF", b"Cookie: a=\xFF"] {
        t.fields(field, "200");
    }
    for name in [
        "Accept",
        "Accept-Encoding",
        "Authorization",
        "Connection",
        "Forwarded",
        "If-None-Match",
        "Origin",
        "Sec-Fetch-Site",
        "X-Forwarded-For",
        "X-Prometheus-Scrape-Timeout-Seconds",
    ] {
        for value in [&b"\xE9"[..], b"\"\xE9\"", b"a\x80 \xFF", b"\xC3\xA9", b"\xED\xA0\x80"] {
            t.fields([name.as_bytes(), b": ", value].concat(), "200");
        }
    }
    t.fields(b"Expect: \xE9", "417!");
    for name in ["Host", "Content-Length", "Transfer-Encoding"] {
        t.fields([name.as_bytes(), b": \xE9"].concat(), "400!");
    }
    t.section("RFC 9110 5.6.1");
    for field in [
        "Connection: ,",
        "Connection: ,,",
        "Connection:",
        "Connection: , keep-alive ,",
        "Accept:",
        "Accept: ,",
        "Accept: , ,text/plain",
        "TE:",
        "TE: ,",
        "Upgrade:",
        "Via:",
    ] {
        t.fields(field, "200");
    }
    t.fields("Connection: ,,close", "200!");
    t.fields("Connection: , ,\tclose,", "200!");
}

fn line_folding(t: &mut Table) {
    t.section("RFC 9112 5.2");
    for field in [
        "X: y\r\n z",
        "X: y\r\n\tz",
        "X:\r\n y",
        "X: y\r\n  z\r\n  a",
        "X: y\r\n ",
        "X: y\r\n\t",
        "X: y\r\n Host: h",
        "X: y\r\n Transfer-Encoding: chunked",
        "Transfer-Encoding:\r\n chunked",
        "Transfer-Encoding: x\r\n chunked",
        "Content-Length:\r\n 5",
        "Content-Length: 1\r\n 2",
        "X: y\r\n Content-Length: 5",
        "X: y\r\n :",
        "Connection:\r\n close",
    ] {
        t.fields(field, "400!");
    }
    t.only_field("Host:\r\n h", "400!");
    t.only_field("Host: a\r\n b", "400!");
    t.raw("a fold of 1.0", "GET /healthz HTTP/1.0\r\nX: y\r\n z\r\n\r\n", "400!");
}

fn hosts(t: &mut Table) {
    t.section("RFC 9112 3.2, RFC 9110 7.2");
    t.raw("no Host of 1.1", "GET /healthz HTTP/1.1\r\n\r\n", "400!");
    t.raw("no Host of 1.0", "GET /healthz HTTP/1.0\r\n\r\n", "200!");
    t.raw("no Host with HEAD", "HEAD /healthz HTTP/1.1\r\n\r\n", "H400!");
    t.raw("no Host with OPTIONS *", "OPTIONS * HTTP/1.1\r\n\r\n", "400!");
    t.raw("no Host with POST", "POST /healthz HTTP/1.1\r\nContent-Length: 0\r\n\r\n", "400!");
    t.raw("no Host, bad path", "GET /nowhere HTTP/1.1\r\nUser-Agent: x\r\n\r\n", "400!");
    t.raw("two Hosts of 1.0", "GET /healthz HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n", "400!");
    t.raw("bad Host of 1.0", "GET /healthz HTTP/1.0\r\nHost: a b\r\n\r\n", "400!");
    for field in [
        "Host: a\r\nHost: b",
        "Host: a\r\nHost: a",
        "Host: a\r\nhost: b",
        "Host: a\r\nHost:",
        "Host:\r\nHost: a",
        "Host: a\r\nX: y\r\nHOST: a",
        "Host: a\r\nHost : b",
    ] {
        t.only_field(field, "400!");
    }
    for field in ["X-Host: h", "Hosts: h", "Hos: t", "X-Forwarded-Host: h", "Forwarded: host=h"] {
        t.only_field(field, "400!");
    }
    for host in [
        "",
        " ",
        "\t",
        ",",
        "a,b",
        "a, b",
        "a b",
        "a\tb",
        ":",
        ":80",
        "a:b",
        "a:80:80",
        "a:-1",
        "a:+1",
        "a: 80",
        "a :80",
        "a:80 80",
        "a:65536",
        "a:99999999999",
        "a:0x50",
        "a:8 0",
        "user@a",
        "user:pw@a",
        "@a",
        "a@",
        "a@b:80",
        "http://a",
        "http://a/",
        "a/",
        "a/b",
        "/a",
        "a?b",
        "?a",
        "a#b",
        "#",
        "a\\b",
        "a\"b",
        "\"a\"",
        "<a>",
        "a<b",
        "a>b",
        "a|b",
        "a^b",
        "a`b",
        "{a}",
        "a}",
        "[",
        "]",
        "[]",
        "[]:80",
        "[::1",
        "::1",
        "[::1]80",
        "[::1]:",
        "[::1]:x",
        "[::1]a",
        "a[::1]",
        "[::1]]",
        "[[::1]]",
        "[1.2.3.4]",
        "[:::]",
        "[::1%25lo]",
        "[::1%lo]",
        "[g::1]",
        "[1:2:3:4:5:6:7]",
        "[1:2:3:4:5:6:7:8:9]",
        "[v1.a]",
        "a%",
        "a%2",
        "a%zz",
        "%",
        "%zz",
        "\u{e9}",
        "b\u{fc}cher.example",
        "a:\u{661}",
    ] {
        let expected = if host == "[::1]:" { "200" } else { "400!" };
        t.only_field(format!("Host: {host}"), expected);
    }
    for byte in [0, 1, 11, 12, 27, 127, 128, 255] {
        t.only_field([b"Host: a", &[byte][..], b"b"].concat(), "400!");
    }
    for host in [
        "a",
        "localhost",
        "LOCALHOST",
        "localhost:80",
        "localhost:8080",
        "a:",
        "a:0",
        "a:65535",
        "a:00080",
        "127.0.0.1",
        "127.0.0.1:80",
        "1.2.3.4:5",
        "[::1]",
        "[::1]:80",
        "[::]",
        "[2001:db8::1]",
        "[2001:DB8::1]:65535",
        "[::ffff:1.2.3.4]",
        "[1:2:3:4:5:6:7:8]",
        "a.example",
        "a.example.",
        "a.example.:80",
        "a_b",
        "a-b",
        "-a",
        "a..b",
        ".",
        "a%41b",
        "a%20b",
        "xn--bcher-kva.example",
        "a~b",
        "a!b",
        "a$b",
        "a&b",
        "a'b",
        "a(b)",
        "a*b",
        "a+b",
        "a;b",
        "a=b",
        "*",
        "1",
        "0x7f.1",
        "999.999.999.999",
        "evil.example",
    ] {
        t.only_field(format!("Host: {host}"), "200");
    }
    t.only_field(format!("Host: {}", "a".repeat(255)), "200");
    t.only_field(format!("Host: {}", "a".repeat(4000)), "200");
    for field in ["Host:a", "Host:  a  ", "Host:\ta\t", "HOST: a", "hOsT: a", "X: y\r\nHost: a"] {
        t.only_field(field, "200");
    }
    t.section("RFC 9110 7.4");
    let scan = "/open-ports?domain=127.0.0.1&ports=1";
    for (host, expected) in [("localhost", "H200"), ("127.0.0.1:80", "H200"), ("[::1]:80", "H200")]
    {
        t.raw(
            &format!("a scan with the host {host}"),
            format!("HEAD {scan} HTTP/1.1\r\nHost: {host}\r\n\r\n"),
            expected,
        );
    }
    for head in [
        format!("GET {scan} HTTP/1.1\r\nHost: evil.example\r\n\r\n"),
        format!("GET http://evil.example{scan} HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    ] {
        t.raw("a scan with a foreign host", head, "421");
    }
    t.raw(
        "absolute-form takes precedence over Host",
        format!("HEAD http://localhost{scan} HTTP/1.1\r\nHost: evil.example\r\n\r\n"),
        "H200",
    );
}
