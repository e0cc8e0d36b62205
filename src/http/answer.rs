//! Writes the head of an answer (RFC 9112 section 4, RFC 9110 section 8.6).
//!
//! This happens once per request, so nothing here allocates except for the growth of the output,
//! and no formatter is used. No Server field is sent, because it would help only attackers. `conn`
//! drives this module.
//!
//! Invariant: a written head ends in exactly one blank line and declares exactly one way in which
//! the body ends.

use crate::http::{Method, Response};

/// The interim answer to `Expect: 100-continue` (RFC 9110 section 15.2.1).
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// How the body of an answer is delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyFraming {
    /// Content-Length, with this value.
    Length(u64),
    /// Chunks; on HTTP/1.1 only.
    Chunked,
    /// The end of the connection; used for streams to HTTP/1.0 clients.
    ToClose,
    /// No framing at all: the answer to a HEAD request if the length of the body of GET is unknown.
    Undeclared,
}

impl BodyFraming {
    /// The framing of an answer that is rendered as a whole. If HEAD is answered without rendering
    /// the body of GET, the length of that body is unknown, and no other length may be sent (RFC
    /// 9110 section 8.6).
    pub const fn of_whole(response: &Response, method: Method) -> Self {
        match method {
            Method::Head if response.body.is_empty() => Self::Undeclared,
            Method::Get | Method::Head | Method::Options | Method::Other => {
                Self::Length(response.body.len() as u64)
            }
        }
    }
}

/// The Connection field of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Persistence {
    /// No field: the connection persists, which is the default of HTTP/1.1.
    Implied,
    /// `Connection: keep-alive`: the connection stays open, which HTTP/1.0 does not assume.
    KeepAlive,
    /// `Connection: close`: this is the last answer.
    Close,
}

impl Response {
    /// Appends the status line and all fields to `out`. `date` is the wall clock as an IMF-fixdate
    /// (RFC 9110 section 5.6.7). The caller appends the body.
    pub fn write_head(
        &self,
        out: &mut Vec<u8>,
        framing: BodyFraming,
        persistence: Persistence,
        date: &str,
    ) {
        assert!((200..=599).contains(&self.status), "a final answer's status");
        assert!(framing != BodyFraming::ToClose || persistence == Persistence::Close);
        out.extend_from_slice(b"HTTP/1.1 ");
        push_digits::<10>(out, u64::from(self.status));
        out.push(b' ');
        out.extend_from_slice(reason_phrase(self.status).as_bytes());
        push_field(out, "Date", date);
        if !self.content_type.is_empty() {
            push_field(out, "Content-Type", self.content_type);
        }
        match framing {
            BodyFraming::Length(length) if may_have_body(self.status) => {
                push_field(out, "Content-Length", "");
                push_digits::<10>(out, length);
            }
            BodyFraming::Chunked if may_have_body(self.status) => {
                push_field(out, "Transfer-Encoding", "chunked");
            }
            BodyFraming::Length(_)
            | BodyFraming::Chunked
            | BodyFraming::ToClose
            | BodyFraming::Undeclared => {}
        }
        match persistence {
            Persistence::Implied => {}
            Persistence::KeepAlive => push_field(out, "Connection", "keep-alive"),
            Persistence::Close => push_field(out, "Connection", "close"),
        }
        for (name, value) in &self.fields {
            push_field(out, name, value);
        }
        out.extend_from_slice(b"\r\n\r\n");
    }
}

/// Whether an answer with this status may have a body. 204 and 304 end with their head (RFC 9112
/// section 6.3). They carry no Content-Length either, because for 304 it would be the length of
/// another answer.
pub const fn may_have_body(status: u16) -> bool {
    !matches!(status, 100..=199 | 204 | 304)
}

/// The reason phrase of a status (RFC 9110 section 15, RFC 6585). It is empty, as the grammar
/// permits, for a status that this service does not send.
pub const fn reason_phrase(status: u16) -> &'static str {
    match status {
        200 => "OK",
        204 => "No Content",
        304 => "Not Modified",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        408 => "Request Timeout",
        413 => "Content Too Large",
        414 => "URI Too Long",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        422 => "Unprocessable Content",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => "",
    }
}

/// Appends one chunk (RFC 9112 section 7.1). The chunk must not be empty, because an empty one ends
/// the body.
pub fn write_chunk(out: &mut Vec<u8>, bytes: &[u8]) {
    assert!(!bytes.is_empty(), "an empty chunk ends the body");
    push_digits::<16>(out, bytes.len() as u64);
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

/// The last chunk, which has no trailers.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// Ends the previous line and writes a field. The next call writes the end of this line.
fn push_field(out: &mut Vec<u8>, name: &str, value: &str) {
    debug_assert!(!name.is_empty() && !name.contains([':', '\r', '\n']));
    debug_assert!(!value.contains(['\r', '\n']), "{name} would end before its value does");
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value.as_bytes());
}

/// Appends a number in base 10 or 16.
fn push_digits<const BASE: u64>(out: &mut Vec<u8>, number: u64) {
    const { assert!(BASE >= 10 && BASE <= 16) };
    // The longest number is u64::MAX in base 10.
    let mut digits = [0; 20];
    let mut start = digits.len();
    let mut rest = number;
    while rest > 0 || start == digits.len() {
        start -= 1;
        digits[start] = b"0123456789abcdef"[(rest % BASE) as usize];
        rest /= BASE;
    }
    out.extend_from_slice(&digits[start..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATE: &str = "Mon, 23 Nov 2026 14:11:01 GMT";

    fn head(response: &Response, framing: BodyFraming, persistence: Persistence) -> String {
        let mut out = Vec::new();
        response.write_head(&mut out, framing, persistence, DATE);
        String::from_utf8(out).unwrap()
    }

    fn response(status: u16) -> Response {
        Response { status, content_type: "text/plain", fields: Vec::new(), body: b"ok\n".to_vec() }
    }

    #[test]
    fn a_head_contains_status_date_type_length_and_connection() {
        let check = |framing, persistence, expected: &str| {
            let expected = format!(
                "HTTP/1.1 200 OK\r\nDate: {DATE}\r\nContent-Type: text/plain\r\n{expected}\r\n\r\n"
            );
            assert_eq!(head(&response(200), framing, persistence), expected);
        };
        check(BodyFraming::Length(3), Persistence::Implied, "Content-Length: 3");
        check(
            BodyFraming::Length(3),
            Persistence::KeepAlive,
            "Content-Length: 3\r\nConnection: keep-alive",
        );
        check(BodyFraming::Length(3), Persistence::Close, "Content-Length: 3\r\nConnection: close");
        check(BodyFraming::Chunked, Persistence::Implied, "Transfer-Encoding: chunked");
        check(BodyFraming::ToClose, Persistence::Close, "Connection: close");
    }

    #[test]
    fn a_head_without_the_body_of_get_has_no_content_length() {
        let mut response = response(200);
        assert_eq!(BodyFraming::of_whole(&response, Method::Head), BodyFraming::Length(3));
        response.body.clear();
        assert_eq!(BodyFraming::of_whole(&response, Method::Head), BodyFraming::Undeclared);
        assert_eq!(BodyFraming::of_whole(&response, Method::Get), BodyFraming::Length(0));
    }

    #[test]
    fn further_fields_follow_in_their_order() {
        let mut response = response(405);
        response.content_type = "";
        response.fields = vec![("Allow", "GET, HEAD".to_owned()), ("Retry-After", "1".to_owned())];
        assert_eq!(
            head(&response, BodyFraming::Length(3), Persistence::Implied),
            format!(
                "HTTP/1.1 405 Method Not Allowed\r\nDate: {DATE}\r\nContent-Length: 3\r\n\
                 Allow: GET, HEAD\r\nRetry-After: 1\r\n\r\n"
            )
        );
    }

    #[test]
    fn an_answer_that_cannot_have_a_body_has_no_content_length() {
        for status in [204, 304] {
            for framing in [BodyFraming::Length(3), BodyFraming::Chunked] {
                let head = head(&response(status), framing, Persistence::Implied);
                assert!(!head.contains("Length") && !head.contains("chunked"), "{head}");
            }
        }
    }

    #[test]
    fn numbers_are_written_as_the_formatter_would() {
        for number in [0, 1, 9, 10, 15, 16, 99, 100, 65_535, 65_536, u64::MAX] {
            let mut out = Vec::new();
            push_digits::<10>(&mut out, number);
            out.push(b' ');
            push_digits::<16>(&mut out, number);
            assert_eq!(String::from_utf8(out).unwrap(), format!("{number} {number:x}"));
        }
    }
}
