//! A strict parser of answers: every answer must be well formed and must have the fields that its
//! status requires.
//!
//! The parser must not be lenient, or it would hide a second answer to one request. Therefore no
//! byte may be left over.

use serde_json::Value;

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// The field names, unchanged, and the values.
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// Whether the status is 1xx, which another answer follows.
    pub(crate) fn is_interim(&self) -> bool {
        self.status < 200
    }

    /// The value of a field, whatever the case of its name. No field occurs twice.
    pub(crate) fn field(&self, wanted: &str) -> Option<&str> {
        let mut found = self.fields.iter().filter(|(name, _)| name.eq_ignore_ascii_case(wanted));
        found.next().map(|(_, value)| value.as_str())
    }

    /// Whether the answer announces the end of the connection.
    pub(crate) fn has_close(&self) -> bool {
        self.field("Connection") == Some("close")
    }

    /// The answer without the fields that may differ between two ways of sending a request.
    pub(crate) fn comparable(mut self) -> Self {
        self.fields.retain(|(name, _)| name != "Date" && name != "Connection");
        self
    }
}

/// Parses answers until no bytes are left. `is_head` returns whether the n-th final answer belongs
/// to a HEAD request. `is_ended` is true if the service has closed the connection after the bytes.
pub(crate) fn read(
    bytes: &[u8],
    is_head: impl Fn(usize) -> bool,
    is_ended: bool,
) -> Result<Vec<Answer>, String> {
    let (mut rest, mut answers, mut finals_len) = (bytes, Vec::new(), 0);
    while !rest.is_empty() {
        let mut answer = read_head(&mut rest)?;
        if answer.is_interim() {
            check_interim(&answer)?;
        } else {
            let context = BodyContext { is_head: is_head(finals_len), is_ended };
            read_body(&mut answer, &mut rest, context)?;
            check_final(&answer, is_head(finals_len))?;
            finals_len += 1;
        }
        answers.push(answer);
    }
    match answers.last() {
        Some(last) if last.is_interim() => Err("an interim answer without a final one".into()),
        _ => Ok(answers),
    }
}

fn take_line<'a>(rest: &mut &'a [u8]) -> Result<&'a str, String> {
    let end = rest.windows(2).position(|two| two == b"\r\n").ok_or("a line without an end")?;
    let (line, after) = rest.split_at(end);
    *rest = &after[2..];
    if line.iter().any(|byte| byte.is_ascii_control()) {
        return Err(format!("a control byte in {:?}", line.escape_ascii().to_string()));
    }
    std::str::from_utf8(line).map_err(|error| error.to_string())
}

fn read_head(rest: &mut &[u8]) -> Result<Answer, String> {
    let line = take_line(rest)?;
    let words: Vec<&str> = line.splitn(3, ' ').collect();
    let [version, code, reason] = words[..] else {
        return Err(format!("status line {line:?}"));
    };
    let status = if code.len() == 3 { code.parse().unwrap_or(0) } else { 0 };
    if version != "HTTP/1.1" || !(100..600).contains(&status) || reason.trim() != reason {
        return Err(format!("status line {line:?}"));
    }
    let mut fields: Vec<(String, String)> = Vec::new();
    loop {
        let line = take_line(rest)?;
        if line.is_empty() {
            return Ok(Answer { status, fields, body: Vec::new() });
        }
        let (name, value) = line.split_once(": ").ok_or_else(|| format!("field line {line:?}"))?;
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        if name.is_empty() || !name.bytes().all(is_name) || value.trim() != value {
            return Err(format!("field line {line:?}"));
        }
        if fields.iter().any(|(known, _)| known.eq_ignore_ascii_case(name)) {
            return Err(format!("{name} occurs twice"));
        }
        fields.push((name.to_owned(), value.to_owned()));
    }
}

/// What a client knows about a body besides the answer's head.
#[derive(Clone, Copy)]
struct BodyContext {
    /// Whether the request was a HEAD request.
    is_head: bool,
    /// Whether the service has closed the connection after the bytes.
    is_ended: bool,
}

/// The length of the body by RFC 9112 section 6.3, from the side of the client.
fn read_body(answer: &mut Answer, rest: &mut &[u8], context: BodyContext) -> Result<(), String> {
    let length = answer.field("Content-Length").map(str::to_owned);
    let coding = answer.field("Transfer-Encoding").map(str::to_owned);
    if matches!(answer.status, 204 | 304) && (length.is_some() || coding.is_some()) {
        return Err(format!("{} with a length", answer.status));
    }
    if context.is_head || matches!(answer.status, 204 | 304) {
        return Ok(());
    }
    match (length.as_deref(), coding.as_deref()) {
        (Some(digits), None) => {
            let is_number = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
            let length = digits.parse::<usize>().ok().filter(|_| is_number).ok_or(digits)?;
            answer.body = take(rest, length)?.to_vec();
        }
        (None, Some("chunked")) => read_chunks(answer, rest)?,
        (None, None) if answer.has_close() && context.is_ended => {
            answer.body = std::mem::take(rest).to_vec();
        }
        other => return Err(format!("unknown framing {other:?}")),
    }
    Ok(())
}

fn read_chunks(answer: &mut Answer, rest: &mut &[u8]) -> Result<(), String> {
    loop {
        let line = take_line(rest)?;
        let is_hex = !line.is_empty() && line.bytes().all(|byte| byte.is_ascii_hexdigit());
        let size = usize::from_str_radix(line, 16).ok().filter(|_| is_hex);
        let size = size.ok_or_else(|| format!("chunk size {line:?}"))?;
        answer.body.extend_from_slice(take(rest, size)?);
        if take(rest, 2)? != b"\r\n" {
            return Err("a chunk without its CR LF".into());
        }
        if size == 0 {
            return Ok(());
        }
    }
}

fn take<'a>(rest: &mut &'a [u8], count: usize) -> Result<&'a [u8], String> {
    let (taken, after) =
        rest.split_at_checked(count).ok_or("the answer is shorter than its length")?;
    *rest = after;
    Ok(taken)
}

/// RFC 9110 section 15.2: an interim answer has no body and no length. The service sends no status
/// except 100.
fn check_interim(answer: &Answer) -> Result<(), String> {
    if answer.status == 100 && answer.fields.is_empty() {
        return Ok(());
    }
    Err(format!("interim {answer:?}"))
}

/// Checks the fields that each status requires and that every answer must have.
fn check_final(answer: &Answer, is_head: bool) -> Result<(), String> {
    let has = |name: &str| answer.field(name).is_some();
    let date = answer.field("Date").ok_or("no Date (RFC 9110 6.6.1)")?;
    let parsed = httpdate::parse_http_date(date).map_err(|error| format!("{date}: {error}"))?;
    if httpdate::fmt_http_date(parsed) != date {
        return Err(format!("Date {date:?} is not an IMF-fixdate (RFC 9110 5.6.7)"));
    }
    if answer.status == 405 && !has("Allow") {
        return Err("405 without Allow (RFC 9110 15.5.6)".into());
    }
    if answer.status == 401 && !has("WWW-Authenticate") {
        return Err("401 without a challenge (RFC 9110 15.5.2)".into());
    }
    if let Some(after) = answer.field("Retry-After")
        && after.parse::<u32>().is_err()
    {
        return Err(format!("Retry-After {after:?} (RFC 9110 10.2.3)"));
    }
    if matches!(answer.status, 429 | 503) && !has("Retry-After") {
        return Err("no Retry-After".into());
    }
    if !answer.body.is_empty() && !has("Content-Type") {
        return Err("a body without its type (RFC 9110 8.3)".into());
    }
    let connection = answer.field("Connection");
    if connection.is_some_and(|option| option != "close" && option != "keep-alive") {
        return Err(format!("Connection {connection:?}"));
    }
    if answer.status >= 400 {
        check_problem(answer, is_head)?;
    }
    Ok(())
}

/// RFC 9457: checks the media type, and that the document agrees with the status.
fn check_problem(answer: &Answer, is_head: bool) -> Result<(), String> {
    if answer.field("Content-Type") != Some("application/problem+json") {
        return Err("an error without problem+json (RFC 9457 3)".into());
    }
    if is_head {
        return Ok(());
    }
    let document: Value = serde_json::from_slice(&answer.body).map_err(|e| e.to_string())?;
    let is_text = |key: &str| document[key].as_str().is_some_and(|text| !text.is_empty());
    let is_complete = ["type", "title", "cause", "detail"].into_iter().all(is_text);
    if document["status"] != answer.status || !is_complete {
        return Err(format!("problem {document} with status {} (RFC 9457 3.1)", answer.status));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATE: &str = "Date: Mon, 23 Nov 2026 14:11:01 GMT\r\n";

    fn read_ok(head: &str, body: &str) -> Result<Vec<Answer>, String> {
        read(format!("{head}\r\n{DATE}{body}").as_bytes(), |_| false, true)
    }

    #[test]
    fn only_well_formed_answers_are_accepted() {
        let text = "Content-Type: text/plain\r\n";
        assert!(read_ok("HTTP/1.1 200 OK", &format!("{text}Content-Length: 2\r\n\r\nok")).is_ok());
        let chunks = format!("{text}Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n");
        assert_eq!(read_ok("HTTP/1.1 200 OK", &chunks).unwrap()[0].body, b"ok");
        let refused = |fields: &str| {
            let body = r#"{"type":"t","title":"t","status":405,"cause":"c","detail":"d"}"#;
            let length = body.len();
            let fields = format!("{fields}Content-Type: application/problem+json\r\n");
            let text = format!("{fields}Content-Length: {length}\r\n\r\n{body}");
            read_ok("HTTP/1.1 405 Method Not Allowed", &text)
        };
        assert!(refused("Allow: GET\r\n").is_ok());
        assert!(refused("").unwrap_err().contains("405 without Allow"));
        for (head, body) in [
            ("HTTP/1.1 200 OK", "Content-Length: 2\r\n\r\nok!"),
            ("HTTP/1.1 200 OK", "Content-Length: 3\r\n\r\nok"),
            ("HTTP/1.1 200 OK", "Content-Length: +2\r\n\r\nok"),
            ("HTTP/1.1 200 OK", "Content-Length: 2\r\nContent-Length: 2\r\n\r\nok"),
            ("HTTP/1.1 200 OK", "Content-Length: 2\r\n\r\nok"),
            ("HTTP/1.1 200 OK", "\r\n"),
            ("HTTP/1.1 204 No Content", "Content-Length: 0\r\n\r\n"),
            ("HTTP/1.1 405 Method Not Allowed", "Content-Length: 0\r\n\r\n"),
            ("HTTP/1.1 404 Not Found", "Content-Length: 0\r\n\r\n"),
            ("HTTP/1.0 200 OK", "Content-Length: 0\r\n\r\n"),
            ("HTTP/1.1 100 Continue", "\r\n"),
        ] {
            assert!(read_ok(head, body).is_err(), "{head}\r\n{body}");
        }
        assert!(read(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", |_| false, true).is_err());
        assert!(read(b"HTTP/1.1 100 Continue\r\n\r\n", |_| false, true).is_err());
        assert_eq!(read(b"", |_| false, true), Ok(Vec::new()));
    }
}
