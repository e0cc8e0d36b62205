//! Every byte value at every position of a request: small domains are enumerated, not sampled.
//!
//! The expected results are derived from the grammars of RFC 9110, RFC 9112 and RFC 3986 alone.

use crate::case::Table;
use crate::drive;

#[test]
fn each_byte_of_the_request_line_is_judged_by_the_grammar() {
    let mut t = Table::default();
    t.section("RFC 9112 3, byte by byte");
    let healthz = |before: &[u8], byte: u8, after: &[u8]| {
        [before, &[byte], after, b" HTTP/1.1\r\nHost: h\r\n\r\n"].concat()
    };
    each(&mut t, "the first byte", 0, |byte| {
        let expected = match byte {
            b'G' => "200",
            _ if is_tchar(byte) => "405",
            _ => "400!",
        };
        (healthz(b"", byte, b"ET /healthz"), expected)
    });
    each(&mut t, "within the method", 1, |byte| {
        let expected = match byte {
            b'E' => "200",
            _ if is_tchar(byte) => "405",
            _ => "400!",
        };
        (healthz(b"G", byte, b"T /healthz"), expected)
    });
    each(&mut t, "after the method", 3, |byte| {
        (healthz(b"GET", byte, b"/healthz"), if byte == b' ' { "200" } else { "400!" })
    });
    each(&mut t, "the first byte of the target", 4, |byte| {
        (healthz(b"GET ", byte, b"healthz"), if byte == b'/' { "200" } else { "400!" })
    });
    each(&mut t, "within the path", 11, |byte| {
        let expected = match byte {
            b'z' => "200",
            b'#' | b'%' => "400!",
            0x21..=0x7E => "404",
            _ => "400!",
        };
        (healthz(b"GET /health", byte, b""), expected)
    });
    each(&mut t, "within the query", 13, |byte| {
        let expected = match byte {
            b'#' => "400!",
            0x21..=0x7E => "200",
            _ => "400!",
        };
        (healthz(b"GET /healthz?", byte, b""), expected)
    });
    drive::check(t.cases);
}

#[test]
fn each_byte_of_the_version_is_judged_by_the_grammar() {
    let mut t = Table::default();
    t.section("RFC 9112 2.3, byte by byte");
    for place in 0..8 {
        each(&mut t, &format!("byte {place} of the version"), 13 + place, |byte| {
            let mut version = *b"HTTP/1.1";
            let is_same = version[place] == byte;
            version[place] = byte;
            let expected = match (place, byte) {
                (7, b'0') => "200!",
                (7, b'1'..=b'9') => "200",
                _ if is_same => "200",
                _ => "400!",
            };
            ([b"GET /healthz ", &version[..], b"\r\nHost: h\r\n\r\n"].concat(), expected)
        });
    }
    drive::check(t.cases);
}

#[test]
fn each_byte_of_a_field_line_is_judged_by_the_grammar() {
    let mut t = Table::default();
    t.section("RFC 9112 5, byte by byte");
    let head = b"GET /healthz HTTP/1.1\r\nHost: h\r\n";
    let field = |before: &[u8], byte: u8, after: &[u8]| {
        [head, before, &[byte], after, b"\r\n\r\n"].concat()
    };
    let tchar = |byte: u8| if is_tchar(byte) { "200" } else { "400!" };
    let start = head.len();
    each(&mut t, "the first byte of a name", start, |byte| {
        (field(b"", byte, b"X: y"), tchar(byte))
    });
    each(&mut t, "within a name", start + 1, |byte| {
        (field(b"X", byte, b"Y: z"), if byte == b':' { "200" } else { tchar(byte) })
    });
    each(&mut t, "before the colon", start + 1, |byte| {
        (field(b"X", byte, b": z"), if byte == b':' { "200" } else { tchar(byte) })
    });
    let text = |byte: u8| if is_text(byte) { "200" } else { "400!" };
    each(&mut t, "the first byte of a value", start + 2, |byte| {
        (field(b"X:", byte, b"y"), text(byte))
    });
    each(&mut t, "within a value", start + 4, |byte| (field(b"X: y", byte, b"z"), text(byte)));
    each(&mut t, "the last byte of a value", start + 4, |byte| {
        // A CR at this position precedes the CR of the line end.
        (field(b"X: y", byte, b""), text(byte))
    });
    each(&mut t, "in the place of CR", start + 4, |byte| {
        let line = [&head[..], b"X: y", &[byte], b"\n\r\n"].concat();
        (line, if byte == b'\r' { "200" } else { "400!" })
    });
    each(&mut t, "in the place of LF", start + 5, |byte| {
        let line = [&head[..], b"X: y\r", &[byte], b"\r\n"].concat();
        (line, if byte == b'\n' { "200" } else { "400!" })
    });
    drive::check(t.cases);
}

#[test]
fn each_byte_of_host_and_framing_fields_is_judged_by_the_grammar() {
    let mut t = Table::default();
    t.section("RFC 9110 7.2, byte by byte");
    let head = b"GET /healthz HTTP/1.1\r\n";
    each(&mut t, "within Host", head.len() + 7, |byte| {
        let is_host = byte.is_ascii_alphanumeric() || b"-._~!$&'()*+;=".contains(&byte);
        let bytes = [&head[..], b"Host: a", &[byte][..], b"h\r\n\r\n"].concat();
        (bytes, if is_host { "200" } else { "400!" })
    });
    each(&mut t, "within a port", head.len() + 9, |byte| {
        let bytes = [&head[..], b"Host: a:1", &[byte][..], b"1\r\n\r\n"].concat();
        (bytes, if byte.is_ascii_digit() { "200" } else { "400!" })
    });
    t.section("RFC 9110 8.6, byte by byte");
    let head = b"GET /healthz HTTP/1.1\r\nHost: h\r\n";
    let value = head.len() + "Content-Length: 1".len();
    each(&mut t, "after a Content-Length", value, |byte| {
        let length = if byte.is_ascii_digit() { 10 + usize::from(byte - b'0') } else { 1 };
        let fields = [b"Content-Length: 1", &[byte][..], b"\r\n\r\n"].concat();
        let bytes = [head, &fields[..], &b"x".repeat(length)].concat();
        let is_fine = byte.is_ascii_digit() || matches!(byte, b' ' | b'\t');
        (bytes, if is_fine { "200" } else { "400!" })
    });
    t.section("RFC 9112 6.1, byte by byte");
    let value = head.len() + "Transfer-Encoding: ".len();
    let blank = |byte: u8| if matches!(byte, b' ' | b'\t') { "200" } else { "400!" };
    each(&mut t, "after chunked", value + 7, |byte| {
        let field = [b"Transfer-Encoding: chunked", &[byte][..], b"\r\n\r\n0\r\n\r\n"].concat();
        ([head, &field[..]].concat(), blank(byte))
    });
    each(&mut t, "before chunked", value, |byte| {
        let field = [b"Transfer-Encoding: ", &[byte][..], b"chunked\r\n\r\n0\r\n\r\n"].concat();
        ([head, &field[..]].concat(), blank(byte))
    });
    drive::check(t.cases);
}

#[test]
fn each_byte_of_a_chunked_body_is_judged_by_the_grammar() {
    let mut t = Table::default();
    t.section("RFC 9112 7.1, byte by byte");
    let head = b"GET /healthz HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n";
    let body = |before: &[u8], byte: u8, after: &[u8]| [head, before, &[byte], after].concat();
    let start = head.len();
    let fine = |is_fine: bool| if is_fine { "200" } else { "400!" };
    each(&mut t, "a digit of a size", start, |byte| {
        let size = (byte as char).to_digit(16).unwrap_or(1) as usize;
        let data = [b"\r\n", &b"x".repeat(size)[..]].concat();
        let last: &[u8] = if size == 0 { b"\r\n" } else { b"\r\n0\r\n\r\n" };
        let data = if size == 0 { b"\r\n".to_vec() } else { data };
        (body(b"", byte, &[&data[..], last].concat()), fine(byte.is_ascii_hexdigit()))
    });
    each(&mut t, "after a size", start + 1, |byte| {
        let size = (byte as char).to_digit(16).map_or(1, |low| 16 + low as usize);
        let data = [b"\r\n", &b"x".repeat(size)[..], b"\r\n0\r\n\r\n"].concat();
        (body(b"1", byte, &data), fine(byte.is_ascii_hexdigit()))
    });
    let data = b"\r\nx\r\n0\r\n\r\n";
    each(&mut t, "the first byte of an extension", start + 2, |byte| {
        let bytes = body(b"1;", byte, &[b"a", &data[..]].concat());
        (bytes, fine(is_tchar(byte) || matches!(byte, b' ' | b'\t')))
    });
    each(&mut t, "within an extension's name", start + 3, |byte| {
        let bytes = body(b"1;a", byte, &[b"b", &data[..]].concat());
        (bytes, fine(is_tchar(byte) || matches!(byte, b'=' | b';')))
    });
    each(&mut t, "within an extension's value", start + 5, |byte| {
        let bytes = body(b"1;a=b", byte, &[b"c", &data[..]].concat());
        (bytes, fine(is_tchar(byte) || byte == b';'))
    });
    each(&mut t, "within quotes", start + 6, |byte| {
        let bytes = body(b"1;a=\"b", byte, &[b"c\"", &data[..]].concat());
        (bytes, fine(is_text(byte) && byte != b'"'))
    });
    each(&mut t, "after a backslash", start + 6, |byte| {
        let bytes = body(b"1;a=\"\\", byte, &[b"\"", &data[..]].concat());
        (bytes, fine(is_text(byte)))
    });
    each(&mut t, "within data", start + 3, |byte| (body(b"1\r\n", byte, b"\r\n0\r\n\r\n"), "200"));
    each(&mut t, "in the place of CR after data", start + 4, |byte| {
        (body(b"1\r\nx", byte, b"\n0\r\n\r\n"), fine(byte == b'\r'))
    });
    each(&mut t, "in the place of LF after data", start + 5, |byte| {
        (body(b"1\r\nx\r", byte, b"0\r\n\r\n"), fine(byte == b'\n'))
    });
    each(&mut t, "within a trailer's name", start + 4, |byte| {
        (body(b"0\r\nX", byte, b"Y: z\r\n\r\n"), fine(is_tchar(byte) || byte == b':'))
    });
    each(&mut t, "within a trailer's value", start + 7, |byte| {
        (body(b"0\r\nX: y", byte, b"z\r\n\r\n"), fine(is_text(byte)))
    });
    each(&mut t, "in the place of the last LF", start + 4, |byte| {
        (body(b"0\r\n\r", byte, b""), fine(byte == b'\n'))
    });
    drive::check(t.cases);
}

/// Adds one case for each byte value. The bytes are split after this byte.
fn each<'a>(table: &mut Table, place: &str, at: usize, case: impl Fn(u8) -> (Vec<u8>, &'a str)) {
    for byte in 0..=255 {
        let (bytes, expected) = case(byte);
        let case = table.raw(&format!("{place}: {byte:#04x}"), bytes, expected);
        (case.is_enumerated, case.cuts) = (true, vec![at + 1]);
    }
}

/// A `tchar` of RFC 9110 section 5.6.2.
fn is_tchar(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// A byte of a field value: HTAB, SP, VCHAR, obs-text (RFC 9110 section 5.5).
fn is_text(byte: u8) -> bool {
    matches!(byte, b'\t' | 0x20..=0x7E | 0x80..=0xFF)
}
