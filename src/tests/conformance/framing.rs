//! The end of a body by its length: RFC 9112 section 6, RFC 9110 section 8.6.

use crate::case::{HIDDEN, Table};
use crate::drive;

#[test]
fn content_length_is_parsed_strictly() {
    let mut table = Table::default();
    lengths(&mut table);
    bodies(&mut table);
    drive::check(table.cases);
}

fn lengths(t: &mut Table) {
    t.section("RFC 9112 6.3, RFC 9110 8.6");
    for length in [
        "",
        " ",
        ",",
        "+5",
        "-5",
        "-0",
        "+0",
        "5.0",
        "5.",
        ".5",
        "5e0",
        "0x5",
        "0b101",
        "0o5",
        "5h",
        "five",
        "abc",
        "5 5",
        "5\t5",
        "5_0",
        "1_000",
        "5,5",
        "5, 5",
        "5 ,5",
        "5,",
        ",5",
        "5, 6",
        "5;5",
        "5;a=b",
        "\"5\"",
        "'5'",
        "(5)",
        "5 (a)",
        "5,000",
        "5:5",
        "5/5",
        "5-5",
        "0-5",
        "~5",
        "NaN",
        "Infinity",
        "null",
        "\u{665}",
        "\u{ff15}",
        "\u{b2}",
        "%35",
        "5%",
        "$5",
        "5\u{a0}",
        "18446744073709551616",
        "18446744073709551621",
        "99999999999999999999999999999999999",
        "-18446744073709551611",
        "4294967301x",
        "00x5",
        "5\\r\\n",
        "\u{2212}5",
    ] {
        let name = format!("Content-Length: {length}");
        t.body(name, format!("hello{HIDDEN}"), "400!");
    }
    for byte in [0, 11, 12, 127, 128, 160, 255] {
        let field = [b"Content-Length: 5", &[byte][..]].concat();
        t.body(field, format!("hello{HIDDEN}"), "400!");
        let field = [b"Content-Length: ", &[byte][..], b"5"].concat();
        t.body(field, format!("hello{HIDDEN}"), "400!");
    }
    for fields in [
        "Content-Length: 5\r\nContent-Length: 5",
        "Content-Length: 5\r\nContent-Length: 6",
        "Content-Length: 0\r\nContent-Length: 5",
        "Content-Length: 5\r\ncontent-length: 5",
        "Content-Length: 5\r\nX: y\r\nCONTENT-LENGTH: 5",
        "Content-Length: 5\r\nContent-Length:",
        "Content-Length:\r\nContent-Length: 5",
        "Content-Length: 5\r\nContent-Length: x",
        "Content-Length: 5\r\nContent_Length: 6",
        "Content-Length: 5\r\nContent-Length : 6",
        "Content-Length: 5\r\n Content-Length: 6",
        "Content-Length: 5\nContent-Length: 6",
        "Content-Length: 5\rContent-Length: 6",
        "Content-Length: 5\r\n\0Content-Length: 6",
    ] {
        t.body(fields, format!("hello{HIDDEN}"), "400!");
    }
    for length in ["5", " 5 ", "\t5\t", "005", "00000000000000000000000000000000000000005"] {
        t.body(format!("Content-Length:{length}"), "hello", "200");
    }
    for length in ["0", "00", "000000000000000000000000000000"] {
        t.body(format!("Content-Length: {length}"), "", "200");
    }
    t.body("content-LENGTH: 5", "hello", "200");
    for length in ["65537", "100000", "4294967296", "4294967301", "9223372036854775807"] {
        t.body(format!("Content-Length: {length}"), "", "413!");
    }
    t.body("Content-Length: 18446744073709551615", "", "413!");
    t.body("Content-Length: 65536", "x".repeat(65_536), "200");
    t.raw(
        "a large body of HEAD",
        "HEAD /healthz HTTP/1.1\r\nHost: h\r\nContent-Length: 65537\r\n\r\n",
        "H413!",
    );
}

fn bodies(t: &mut Table) {
    t.section("RFC 9112 6.2, 6.3");
    for (method, expected) in [
        ("GET", "200"),
        ("HEAD", "H200"),
        ("OPTIONS", "200"),
        ("POST", "405"),
        ("PUT", "405"),
        ("DELETE", "405"),
        ("TRACE", "405"),
        ("X", "405"),
    ] {
        let head = format!("{method} /healthz HTTP/1.1\r\nHost: h\r\n");
        t.raw(&format!("{method} without a body"), format!("{head}\r\n"), expected);
        let body = format!("{head}Content-Length: {}\r\n\r\n{HIDDEN}", HIDDEN.len());
        t.raw(&format!("{method} with a request as its body"), body, expected);
        let size = format!("{:x}", HIDDEN.len());
        let chunked = format!("Transfer-Encoding: chunked\r\n\r\n{size}\r\n{HIDDEN}\r\n0\r\n\r\n");
        t.raw(
            &format!("{method} with a request as its chunked body"),
            format!("{head}{chunked}"),
            expected,
        );
        let nothing = format!("{head}Content-Length: 0\r\n\r\n{HIDDEN}");
        t.raw(
            &format!("{method} of length 0 before another request"),
            nothing,
            &format!("{expected} 404"),
        );
        let bare = format!("{head}\r\n{HIDDEN}");
        t.raw(&format!("{method} before another request (CL.0)"), bare, &format!("{expected} 404"));
        let unknown = format!("{method} /nowhere HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\n");
        let not_found = if method == "HEAD" { "H404 404" } else { "404 404" };
        t.raw("a body for an unknown route", format!("{unknown}hello{HIDDEN}"), not_found);
    }
    t.raw("a body of 1.0", "GET /healthz HTTP/1.0\r\nContent-Length: 5\r\n\r\nhello", "200!");
    let kept = "GET /healthz HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\nhello";
    t.raw("a body of 1.0 with keep-alive", kept, "200");
    t.body("Content-Length: 5", "hell", "?400");
    t.body("Content-Length: 5", "", "?400");
    t.body("Content-Length: 65536", "x".repeat(65_535), "?400");
    t.raw(
        "a truncated body of HEAD",
        "HEAD /healthz HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhell",
        "?H400",
    );
    t.body("Content-Length: 5", "hello\r\n", "200 ?");
    t.body("Content-Length: 3", "hello", "200 ?");
    t.body("Content-Length: 3", format!("abc\r\n{HIDDEN}"), "200 404");
    t.body("Content-Length: 5\r\nContent-Type: application/json", "{\"a\":", "200");
    t.body("Content-Length: 5\r\nContent-Encoding: gzip", "hello", "200");
    t.body("Content-Length: 5\r\nContent-Range: bytes 0-4/9", "hello", "200");
    t.body("Content-Length: 5", b"\0\r\n\xFF\n", "200");
}
