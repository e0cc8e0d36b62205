//! Reads the head of a request (RFC 9112 sections 2 to 6).
//!
//! There are three layers. [`HeadScan`] looks at each byte once when it arrives and checks line
//! ends, control bytes, bounds and the version, so a request that can never become valid is refused
//! at its first wrong byte. httparse checks the grammar, once, when the blank line is there.
//! `Fields` refuses what httparse permits in the framing and in the host.
//!
//! This module never repairs a message: where RFC 9112 permits a recipient to be lenient, it is
//! strict. `conn` drives it.
//!
//! Invariants: [`HeadScan::parse`] returns the same result for the same bytes, however they were
//! split; it never returns `Partial` for [`HEAD_BYTES_MAX`] bytes or more, so a full input buffer
//! never waits for more bytes.

use std::borrow::Cow;
use std::mem::MaybeUninit;
use std::net::Ipv6Addr;

use crate::http::{Field, Framing, Head, Method, Parse, Refusal, Request, Version};
use crate::limits::{
    BODY_BYTES_MAX, EMPTY_LINES_MAX, HEAD_BYTES_MAX, HEADERS_MAX, TARGET_BYTES_MAX,
};

/// The longest accepted method. The longest one that IANA registers has 17 letters.
const METHOD_BYTES_MAX: usize = 256;
/// The longest request line: method, target and version, two spaces, CR.
const REQUEST_LINE_BYTES_MAX: usize = METHOD_BYTES_MAX + 1 + TARGET_BYTES_MAX + 1 + 8 + 1;

/// How much of a head that arrives in pieces was scanned. There is one scan per request.
#[derive(Clone, Copy, Debug, Default)]
pub struct HeadScan {
    /// The number of scanned bytes.
    seen: usize,
    /// The position at which the current line begins.
    line: usize,
    /// The number of complete lines: the request line, then one per field. Empty lines before the
    /// request line do not count.
    lines: usize,
    /// The position of the minor version, if it is higher than those that this server knows.
    minor: Option<usize>,
}

impl HeadScan {
    /// Scans the bytes that arrived since the last call. `bytes` must begin with the bytes of that
    /// call. After any result other than [`Parse::Partial`] the scan must not be used again.
    pub fn parse(&mut self, bytes: &[u8]) -> Parse {
        match self.advance(bytes) {
            Ok(None) => Parse::Partial,
            Ok(Some(head_len)) => match parse_head(&self.with_known_version(&bytes[..head_len])) {
                Ok(head) => Parse::Complete(head),
                Err(refusal) => Parse::Invalid(refusal),
            },
            Err(refusal) => Parse::Invalid(refusal),
        }
    }

    /// Whether the bytes scanned so far begin with the method HEAD. Even a refusal of HEAD has no
    /// body, because the client would not read one.
    pub fn is_for_head(&self, bytes: &[u8]) -> bool {
        bytes[..self.seen].trim_ascii_start().starts_with(b"HEAD ")
    }

    /// Scans on and returns the length of the head once its blank line was found.
    fn advance(&mut self, bytes: &[u8]) -> Result<Option<usize>, Refusal> {
        assert!(self.seen <= bytes.len(), "the bytes of an incomplete head are kept");
        assert!(self.line <= self.seen, "the current line begins within the scanned bytes");
        while let Some(&byte) = bytes.get(self.seen) {
            let at = self.seen;
            let follows_cr = at > self.line && bytes[at - 1] == b'\r';
            self.seen += 1;
            match byte {
                b'\n' if follows_cr => {
                    if self.end_line(&bytes[self.line..at - 1])? {
                        return Ok(Some(self.seen));
                    }
                }
                b'\n' => return Err(Refusal::LineEnding),
                _ if follows_cr => return Err(Refusal::LineEnding),
                b'\r' => {}
                _ if self.lines == 0 => self.check_request_line(bytes)?,
                b'\t' | b' '..=b'~' | 0x80..=0xFF => {}
                0..b' ' | 0x7F => return Err(Refusal::FieldValue),
            }
            if self.seen >= HEAD_BYTES_MAX {
                return Err(Refusal::HeadTooLarge);
            }
        }
        Ok(None)
    }

    /// A minor version above 1 is read as 1, the highest one known (RFC 9110 section 6.2). httparse
    /// accepts no other, so it gets a copy of the head with that digit replaced. The cost of the
    /// copy does not matter, because no known client sends such a version.
    fn with_known_version<'a>(&self, head: &'a [u8]) -> Cow<'a, [u8]> {
        let Some(minor) = self.minor else { return head.into() };
        let mut known = head.to_vec();
        known[minor] = b'1';
        known.into()
    }

    /// Checks the newest byte of the request line, which is already counted.
    fn check_request_line(&self, bytes: &[u8]) -> Result<(), Refusal> {
        let line = &bytes[self.line..self.seen];
        let byte = line[line.len() - 1];
        if line.len() == 1 && !is_token_byte(byte) {
            return Err(Refusal::NotHttp);
        }
        if !matches!(byte, b' '..=b'~') {
            let is_in_target = line.iter().filter(|byte| **byte == b' ').count() == 1;
            let is_encodable = is_in_target && byte >= 0x80;
            let refusal = if is_encodable { Refusal::TargetByte } else { Refusal::RequestLine };
            return Err(refusal);
        }
        if line.len() == METHOD_BYTES_MAX + 1 && !line.contains(&b' ') {
            return Err(Refusal::MethodTooLong);
        }
        if line.len() > REQUEST_LINE_BYTES_MAX {
            // The method and the blank after it have at most METHOD_BYTES_MAX + 1 bytes, and what
            // follows the target and its blank should be the version.
            let mut words = line.split(|byte| *byte == b' ').skip(1);
            let is_complete = words.next().is_some_and(|target| target.len() <= TARGET_BYTES_MAX);
            let is_target_fine = is_complete && words.next().is_some();
            let refusal =
                if is_target_fine { Refusal::RequestLine } else { Refusal::TargetTooLong };
            return Err(refusal);
        }
        Ok(())
    }

    /// Checks a complete line, given without its CR LF, and returns whether it ended the head.
    fn end_line(&mut self, line: &[u8]) -> Result<bool, Refusal> {
        match (self.lines, line) {
            (0, []) if self.seen > 2 * EMPTY_LINES_MAX => return Err(Refusal::RequestLine),
            (0, []) => {}
            (_, []) => return Ok(true),
            (0, line) => {
                if check_version(line)? > b'1' {
                    self.minor = Some(self.line + line.len() - 1);
                }
                self.lines = 1;
            }
            (_, [b' ' | b'\t', ..]) => return Err(Refusal::FoldedField),
            // The request line is one of the lines, so this field is number `lines`.
            (lines, _) if lines > HEADERS_MAX => return Err(Refusal::TooManyFields),
            (lines, _) => self.lines = lines + 1,
        }
        self.line = self.seen;
        Ok(false)
    }
}

/// Checks the last word of a request line and returns the digit of the minor version. The check is
/// made at the end of the line, because an HTTP/0.9 client sends nothing more and would otherwise
/// be answered only at the deadline.
fn check_version(line: &[u8]) -> Result<u8, Refusal> {
    let start = line.iter().rposition(|byte| *byte == b' ').map_or(0, |blank| blank + 1);
    match &line[start..] {
        [b'H', b'T', b'T', b'P', b'/', b'1', b'.', minor @ b'0'..=b'9'] => Ok(*minor),
        [b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9'] => Err(Refusal::Version),
        _ => Err(Refusal::RequestLine),
    }
}

/// Parses a head whose end the scan has found.
fn parse_head(bytes: &[u8]) -> Result<Head, Refusal> {
    assert!(bytes.ends_with(b"\r\n\r\n"), "the scan has found the blank line");
    let mut slots = [const { MaybeUninit::uninit() }; HEADERS_MAX];
    let mut parsed = httparse::Request::new(&mut []);
    match parsed.parse_with_uninit_headers(bytes, &mut slots) {
        Ok(httparse::Status::Complete(len)) => {
            assert!(len == bytes.len(), "httparse and the scan see the same end");
        }
        // The scan found an end and httparse did not: the head is ambiguous, so it is refused.
        Ok(httparse::Status::Partial) => return Err(Refusal::RequestLine),
        Err(error) => return Err(refusal_of(error)),
    }
    let (Some(method), Some(target), Some(minor)) = (parsed.method, parsed.path, parsed.version)
    else {
        return Err(Refusal::RequestLine);
    };
    let version = if minor == 0 { Version::Http10 } else { Version::Http11 };
    let is_connect = method == "CONNECT";
    let method = parse_method(method);
    let RequestTarget { authority, origin, is_https } = match is_connect {
        // CONNECT has an authority in place of the target, and is refused below.
        true => RequestTarget { authority: None, origin: "*".into(), is_https: false },
        false => parse_target(target, method)?,
    };
    let mut fields = Fields::default();
    for header in parsed.headers.iter() {
        fields.take(header, version)?;
    }
    let framing = fields.framing(version)?;
    fields.replace_host(authority, version)?;
    // Unsupported features are refused only in a request that is well framed and has a host: RFC
    // 9112 sections 3.2 and 6.3 require 400 for all others.
    match framing {
        _ if is_connect => return Err(Refusal::Connect),
        _ if target.len() > TARGET_BYTES_MAX => return Err(Refusal::TargetTooLong),
        _ if is_https => return Err(Refusal::Scheme),
        Framing::Length(length) if length > BODY_BYTES_MAX => return Err(Refusal::BodyTooLarge),
        _ if fields.expects_other => return Err(Refusal::Expectation),
        Framing::None | Framing::Length(_) | Framing::Chunked => {}
    }
    let keep_alive = match version {
        Version::Http10 => fields.says_keep_alive && !fields.says_close,
        Version::Http11 => !fields.says_close,
    };
    let expects_continue = fields.expects_continue;
    let request = Request { method, version, target: origin, fields: fields.kept };
    debug_assert!(request.target.starts_with('/') || &*request.target == "*");
    Ok(Head { request, framing, head_len: bytes.len(), keep_alive, expects_continue })
}

fn refusal_of(error: httparse::Error) -> Refusal {
    match error {
        httparse::Error::HeaderName => Refusal::FieldName,
        httparse::Error::HeaderValue => Refusal::FieldValue,
        httparse::Error::NewLine => Refusal::LineEnding,
        httparse::Error::TooManyHeaders => Refusal::TooManyFields,
        // The version was checked as the last word of the line; a third space has displaced it
        // here.
        httparse::Error::Status | httparse::Error::Token | httparse::Error::Version => {
            Refusal::RequestLine
        }
    }
}

/// Methods are case-sensitive (RFC 9110 section 9.1).
fn parse_method(token: &str) -> Method {
    match token {
        "GET" => Method::Get,
        "HEAD" => Method::Head,
        "OPTIONS" => Method::Options,
        _ => Method::Other,
    }
}

/// The parts of a request target.
struct RequestTarget<'a> {
    /// The authority of an absolute-form.
    authority: Option<&'a str>,
    /// Path and query in origin-form, or `*`.
    origin: Box<str>,
    /// Whether it is an https URI, which needs TLS (RFC 9110 section 7.4).
    is_https: bool,
}

/// Parses three of the four forms of RFC 9112 section 3.2; the fourth belongs to CONNECT.
fn parse_target(target: &str, method: Method) -> Result<RequestTarget<'_>, Refusal> {
    if target.bytes().any(|byte| !matches!(byte, 0x21..=0x7E) || byte == b'#') {
        return Err(Refusal::Target);
    }
    if target.starts_with('/') || (target == "*" && method == Method::Options) {
        check_path(target)?;
        return Ok(RequestTarget { authority: None, origin: target.into(), is_https: false });
    }
    let (scheme, rest) = target.split_once("://").ok_or(Refusal::Target)?;
    let is_https = scheme.eq_ignore_ascii_case("https");
    if !is_https && !scheme.eq_ignore_ascii_case("http") {
        return Err(Refusal::Target);
    }
    let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    if !is_authority(authority) {
        return Err(Refusal::HostInvalid);
    }
    check_path(path)?;
    let slash = if path.starts_with('/') { "" } else { "/" };
    Ok(RequestTarget {
        authority: Some(authority),
        origin: [slash, path].concat().into(),
        is_https,
    })
}

/// A percent sign in a path must begin an encoded byte (RFC 3986 section 2.1) that is not a control
/// byte: no path of this service contains one, and a program that decodes the path later could take
/// it for the end of a line or of a string. In a query, the parser of the form decides: it takes a
/// bare percent sign literally.
fn check_path(target: &str) -> Result<(), Refusal> {
    if !target.contains('%') {
        return Ok(());
    }
    let path = target.split_once('?').map_or(target, |(path, _)| path);
    let mut encoded = path.split('%').skip(1).map(decode_percent);
    let is_fine = encoded.all(|byte| byte.is_some_and(|byte| !byte.is_ascii_control()));
    if is_fine { Ok(()) } else { Err(Refusal::TargetEscape) }
}

/// Decodes the two hexadecimal digits after a percent sign.
pub(crate) fn decode_percent(after: &str) -> Option<u8> {
    let digit = |byte: u8| (byte as char).to_digit(16);
    let &[high, low, ..] = after.as_bytes() else { return None };
    u8::try_from(digit(high)? * 16 + digit(low)?).ok()
}

/// Whether the text is `host` or `host:port` (RFC 9110 section 7.2), where a host is an IPv6
/// address in brackets or a non-empty reg-name. User-info is not accepted. Neither is a comma,
/// which a reg-name may contain but which also separates the members of a list, nor a zone, which
/// has a meaning only on the machine of the client.
fn is_authority(text: &str) -> bool {
    let (is_host, rest) = match text.strip_prefix('[') {
        Some(bracketed) => match bracketed.split_once(']') {
            Some((address, rest)) => (address.parse::<Ipv6Addr>().is_ok(), rest),
            None => (false, ""),
        },
        None => {
            let (name, rest) = text.split_at(text.find(':').unwrap_or(text.len()));
            let is_name = !name.is_empty() && name.bytes().all(is_reg_name_byte);
            let is_encoded =
                |name: &str| name.split('%').skip(1).all(|after| decode_percent(after).is_some());
            let is_name = is_name && (!name.contains('%') || is_encoded(name));
            (is_name, rest)
        }
    };
    let is_port = match rest.strip_prefix(':') {
        // RFC 3986 section 3.2.3 permits an empty port.
        Some("") => true,
        Some(port) => port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok(),
        None => rest.is_empty(),
    };
    is_host && is_port
}

/// The bytes of RFC 3986 section 3.2.2, without the comma.
const fn is_reg_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'%' | b'!' | b'$' | b'&' | b'\'')
        || matches!(byte, b'(' | b')' | b'*' | b'+' | b';' | b'=')
}

/// The tchar of RFC 9110 section 5.6.2.
pub(super) const fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(byte, b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+')
        || matches!(byte, b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~')
}

/// A field name that this module interprets.
#[derive(Clone, Copy)]
enum Name {
    Kept(Field),
    Connection,
    ContentLength,
    Expect,
    TransferEncoding,
}

const NAMES: [(&str, Name); 14] = [
    ("host", Name::Kept(Field::Host)),
    ("accept", Name::Kept(Field::Accept)),
    ("connection", Name::Connection),
    ("content-length", Name::ContentLength),
    ("transfer-encoding", Name::TransferEncoding),
    ("expect", Name::Expect),
    ("authorization", Name::Kept(Field::Authorization)),
    ("forwarded", Name::Kept(Field::Forwarded)),
    ("if-none-match", Name::Kept(Field::IfNoneMatch)),
    ("last-event-id", Name::Kept(Field::LastEventId)),
    ("origin", Name::Kept(Field::Origin)),
    ("x-prometheus-scrape-timeout-seconds", Name::Kept(Field::ScrapeTimeout)),
    ("sec-fetch-site", Name::Kept(Field::SecFetchSite)),
    ("x-forwarded-for", Name::Kept(Field::XForwardedFor)),
];

/// The facts that the fields of one head declare, collected field by field.
#[derive(Default)]
struct Fields {
    kept: Vec<(Field, Box<str>)>,
    content_length: Option<u64>,
    /// Whether `Transfer-Encoding: chunked` was sent, which is permitted once.
    is_chunked: bool,
    says_close: bool,
    says_keep_alive: bool,
    expects_continue: bool,
    /// Whether an Expect field contained anything other than `100-continue`.
    expects_other: bool,
}

impl Fields {
    fn take(&mut self, header: &httparse::Header, version: Version) -> Result<(), Refusal> {
        let known = NAMES.iter().find(|(name, _)| name.eq_ignore_ascii_case(header.name));
        let Some((_, name)) = known else {
            return if is_disguised(header.name) { Err(Refusal::DisguisedField) } else { Ok(()) };
        };
        match *name {
            Name::Kept(field) => self.keep(field, header.value),
            Name::Connection => {
                self.take_connection(header.value);
                Ok(())
            }
            Name::ContentLength if self.content_length.is_some() => Err(Refusal::ContentLength),
            Name::ContentLength => {
                self.content_length = Some(parse_length(header.value)?);
                Ok(())
            }
            Name::Expect if version == Version::Http10 => Ok(()),
            Name::Expect => {
                self.take_expect(header.value);
                Ok(())
            }
            Name::TransferEncoding => {
                let is_first = !self.is_chunked;
                self.is_chunked = header.value.eq_ignore_ascii_case(b"chunked");
                if is_first && self.is_chunked { Ok(()) } else { Err(Refusal::TransferEncoding) }
            }
        }
    }

    fn keep(&mut self, field: Field, value: &[u8]) -> Result<(), Refusal> {
        let value = decode_value(value);
        if field == Field::Host {
            if self.kept.iter().any(|(name, _)| *name == Field::Host) {
                return Err(Refusal::HostRepeated);
            }
            if !is_authority(&value) {
                return Err(Refusal::HostInvalid);
            }
        }
        self.kept.push((field, value));
        Ok(())
    }

    /// Reads the members of one Expect line. Empty ones do not count (RFC 9110 section 5.6.1.2).
    fn take_expect(&mut self, value: &[u8]) {
        for member in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
            if member.eq_ignore_ascii_case(b"100-continue") {
                self.expects_continue = true;
            } else if !member.is_empty() {
                self.expects_other = true;
            }
        }
    }

    /// Reads the options of one Connection line. Those of several lines are combined (RFC 9110
    /// section 7.6.1).
    fn take_connection(&mut self, value: &[u8]) {
        for option in value.split(|byte| *byte == b',') {
            let option = option.trim_ascii();
            self.says_close |= option.eq_ignore_ascii_case(b"close");
            self.says_keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
        }
    }

    fn framing(&self, version: Version) -> Result<Framing, Refusal> {
        match (self.is_chunked, self.content_length) {
            (true, _) if version == Version::Http10 => Err(Refusal::TransferEncoding),
            (true, Some(_)) => Err(Refusal::AmbiguousLength),
            (true, None) => Ok(Framing::Chunked),
            (false, Some(length)) => Ok(Framing::Length(length)),
            (false, None) => Ok(Framing::None),
        }
    }

    /// The authority of an absolute-form target replaces the Host field, which is required
    /// nevertheless (RFC 9112 section 3.2.2).
    fn replace_host(&mut self, authority: Option<&str>, version: Version) -> Result<(), Refusal> {
        let host = self.kept.iter_mut().find(|(field, _)| *field == Field::Host);
        match (host, authority) {
            (None, _) if version == Version::Http11 => return Err(Refusal::HostMissing),
            (Some((_, host)), Some(authority)) => *host = authority.into(),
            (None, Some(authority)) => self.kept.push((Field::Host, authority.into())),
            (Some(_) | None, None) => {}
        }
        Ok(())
    }
}

/// Decodes a field value as text. Bytes beyond ASCII are opaque (RFC 9110 section 5.5). A value
/// that is not UTF-8 is read as Latin-1, so that no byte is lost and the value equals none that
/// this server compares it with.
fn decode_value(value: &[u8]) -> Box<str> {
    match std::str::from_utf8(value) {
        Ok(text) => text.into(),
        Err(_) => value.iter().map(|byte| char::from(*byte)).collect::<String>().into(),
    }
}

/// Whether the name becomes a framing field if `_` is read as `-`, as CGI does.
fn is_disguised(name: &str) -> bool {
    if !name.contains('_') {
        return false;
    }
    let plain = name.replace('_', "-");
    ["content-length", "transfer-encoding"].iter().any(|name| name.eq_ignore_ascii_case(&plain))
}

/// `1*DIGIT` (RFC 9110 section 8.6): no sign, no blank, no list, and it fits 64 bits.
fn parse_length(value: &[u8]) -> Result<u64, Refusal> {
    if !value.iter().all(u8::is_ascii_digit) {
        return Err(Refusal::ContentLength);
    }
    // Digits are ASCII, so the remaining errors are an empty value and a number that is too big.
    let text = std::str::from_utf8(value).map_err(|_| Refusal::ContentLength)?;
    text.parse().map_err(|_| Refusal::ContentLength)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::parse;

    /// Parses the bytes as a whole and byte by byte with one scan. Both must give the same result
    /// at the same byte.
    fn parse_both_ways(bytes: &[u8]) -> Parse {
        let whole = parse(bytes);
        let mut scan = HeadScan::default();
        for end in 0..=bytes.len() {
            let parsed = scan.parse(&bytes[..end]);
            if parsed != Parse::Partial {
                assert_eq!(parsed, whole, "{}", bytes.escape_ascii());
                return whole;
            }
        }
        assert_eq!(whole, Parse::Partial, "{}", bytes.escape_ascii());
        whole
    }

    fn head(bytes: &[u8]) -> Head {
        let parsed = parse_both_ways(bytes);
        let Parse::Complete(head) = parsed else {
            panic!("{} was parsed as {parsed:?}", bytes.escape_ascii());
        };
        head
    }

    fn refuse(bytes: impl AsRef<[u8]>, refusal: Refusal) {
        let bytes = bytes.as_ref();
        let parsed = parse_both_ways(bytes);
        assert_eq!(parsed, Parse::Invalid(refusal), "{}", bytes.escape_ascii());
    }

    fn refuse_fields(fields: &str, refusal: Refusal) {
        refuse(format!("GET / HTTP/1.1\r\nHost: h\r\n{fields}\r\n\r\n"), refusal);
    }

    fn accept_fields(fields: &str) -> Head {
        head(format!("POST / HTTP/1.1\r\nHost: h\r\n{fields}\r\n\r\n").as_bytes())
    }

    fn refuse_host(host: &str) {
        refuse(format!("GET / HTTP/1.1\r\nHost:{host}\r\n\r\n"), Refusal::HostInvalid);
        refuse(
            format!("GET http://{host}/ HTTP/1.1\r\nHost: h\r\n\r\n"),
            if host.bytes().any(|b| b <= b' ') {
                Refusal::RequestLine
            } else if host.contains('#') {
                Refusal::Target
            } else {
                Refusal::HostInvalid
            },
        );
    }

    #[test]
    fn a_browsers_request_is_read() {
        let bytes = b"GET /open-ports?domain=a&toPort=9 HTTP/1.1\r\nHost: localhost:8080\r\n\
            User-Agent: x\r\nACCEPT:text/html \t\r\naccept: */*\r\nX-Empty:\r\n\r\nbehind";
        let head = head(bytes);
        assert_eq!(head.head_len, bytes.len() - "behind".len());
        assert_eq!((head.framing, head.keep_alive), (Framing::None, true));
        assert!(!head.expects_continue);
        let request = head.request;
        assert_eq!((request.method, request.version), (Method::Get, Version::Http11));
        assert_eq!((request.path(), request.query()), ("/open-ports", "domain=a&toPort=9"));
        assert_eq!(
            request.fields,
            [
                (Field::Host, "localhost:8080".into()),
                (Field::Accept, "text/html".into()),
                (Field::Accept, "*/*".into()),
            ]
        );
    }

    #[test]
    fn every_field_name_is_known_in_any_case() {
        for (name, kind) in NAMES {
            let Name::Kept(field) = kind else { continue };
            let is_host = field == Field::Host;
            let line = if is_host { "X: y".into() } else { format!("{name}: h").to_uppercase() };
            let value = accept_fields(&line).request.field(field).map(str::to_lowercase);
            assert_eq!(value.as_deref(), Some("h"), "{name}");
        }
    }

    #[test]
    fn empty_lines_before_a_request_are_skipped_up_to_a_bound() {
        let request = "GET / HTTP/1.1\r\nHost: h\r\n\r\n";
        for lines in 0..=EMPTY_LINES_MAX {
            let bytes = format!("{}{request}", "\r\n".repeat(lines));
            assert_eq!(head(bytes.as_bytes()).head_len, bytes.len());
        }
        refuse("\r\n".repeat(EMPTY_LINES_MAX + 1), Refusal::RequestLine);
    }

    #[test]
    fn bytes_that_are_not_http_are_refused_at_the_first_wrong_byte() {
        for byte in 0..=255_u8 {
            let expected = match byte {
                b'\r' => Parse::Partial,
                b'\n' => Parse::Invalid(Refusal::LineEnding),
                _ if is_token_byte(byte) => Parse::Partial,
                _ => Parse::Invalid(Refusal::NotHttp),
            };
            assert_eq!(parse(&[byte]), expected, "{byte:#x}");
        }
        refuse(b"\x16\x03\x01\x02\x00\x01", Refusal::NotHttp);
    }

    #[test]
    fn a_malformed_request_line_is_refused_when_it_ends() {
        for line in [
            "GET",
            "GET /",
            "GET / ",
            "GET / HTTP",
            "GET / HTTP/1",
            "GET / HTTP/1.",
            "GET HTTP/1.1",
            "GET  / HTTP/1.1",
            "GET /  HTTP/1.1",
            "GET / / HTTP/1.1",
            "GET / HTTP/1.1 ",
            "GET / http/1.1",
            "GET / HTTP/11.1",
            "GET / HTTP/1.10",
            "GET / HTTP/1,1",
            "SSH-2.0-OpenSSH_9.2",
            "G\"T / HTTP/1.1",
            "G(T / HTTP/1.1",
        ] {
            refuse(format!("{line}\r\nHost: h\r\n\r\n"), Refusal::RequestLine);
        }
        for byte in ["\0", "\t", "\x0B", "\x7F", "\u{e9}"] {
            let is_encodable = !byte.is_ascii();
            let expected = if is_encodable { Refusal::TargetByte } else { Refusal::RequestLine };
            refuse(format!("GET /{byte} HTTP/1.1"), expected);
            refuse(format!("GET{byte}/"), Refusal::RequestLine);
            refuse(format!("GET / {byte}"), Refusal::RequestLine);
        }
    }

    #[test]
    fn versions_other_than_1_are_refused_when_the_line_ends() {
        refuse("PRI * HTTP/2.0\r\n", Refusal::Version);
        for version in ["0.9", "0.1", "2.0", "2.1", "3.0"] {
            refuse(format!("GET / HTTP/{version}\r\n"), Refusal::Version);
        }
    }

    #[test]
    fn a_higher_minor_version_is_read_as_1_1() {
        for minor in 2..=9 {
            let bytes = format!("\r\nGET /1.{minor} HTTP/1.{minor}\r\nHost: h\r\n\r\n");
            let head = head(bytes.as_bytes());
            assert_eq!((head.request.version, head.keep_alive), (Version::Http11, true));
            assert_eq!(&*head.request.target, format!("/1.{minor}"));
            refuse(format!("GET / HTTP/1.{minor}\r\n\r\n"), Refusal::HostMissing);
            refuse(format!("GET / / HTTP/1.{minor}\r\nHost: h\r\n\r\n"), Refusal::RequestLine);
        }
    }

    #[test]
    fn lines_end_in_cr_lf_and_nothing_else() {
        for bytes in [
            "GET / HTTP/1.1\nHost: h\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: h\n",
            "GET / HTTP/1.1\r\nHost: h\r\n\n",
            "GET / HTTP/1.1\rHost: h\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: h\rX: y\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: h\r\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: h\r\n\rX",
            "\nGET / HTTP/1.1\r\nHost: h\r\n\r\n",
            "\r\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n",
        ] {
            refuse(bytes, Refusal::LineEnding);
        }
    }

    #[test]
    fn targets_are_paths_or_http_uris_or_a_star_with_options() {
        let check = |line: &str, target: &str, host: &str| {
            let head = head(format!("{line} HTTP/1.1\r\nHost: h\r\n\r\n").as_bytes());
            assert_eq!(&*head.request.target, target, "{line}");
            assert_eq!(head.request.field(Field::Host), Some(host), "{line}");
        };
        check("GET /", "/", "h");
        check("GET //a//b?c=\"<>^`{|}\\", "//a//b?c=\"<>^`{|}\\", "h");
        check("OPTIONS *", "*", "h");
        check("GET http://a", "/", "a");
        check("GET HTTP://a:1/b?c", "/b?c", "a:1");
        check("GET http://[::1]:1?b/c", "/?b/c", "[::1]:1");
        check("DELETE http://a/http://b", "/http://b", "a");
        for target in [
            "*", "a", "a:80", "?a", "/#", "/a#b", "ftp://a/", "://a/", "a/b", "**", "#", "mailto:a",
        ] {
            refuse(format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n"), Refusal::Target);
        }
        for target in ["/%", "/%4", "/%4x", "/%%41", "/a%00", "/%0D%0a", "/%7f?x", "http://a/%zz"] {
            refuse(format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n"), Refusal::TargetEscape);
        }
        check("GET /%41%20%FF?%zz%00", "/%41%20%FF?%zz%00", "h");
        refuse("HEAD * HTTP/1.1\r\nHost: h\r\n\r\n", Refusal::Target);
        refuse("CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n", Refusal::Connect);
        for target in ["https://a/", "HTTPS://a:443", "https://[::1]:1?b/c"] {
            refuse(format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n"), Refusal::Scheme);
        }
    }

    #[test]
    fn a_missing_host_and_bad_framing_are_refused_before_unsupported_features() {
        let long = "a".repeat(TARGET_BYTES_MAX);
        let twice = "Content-Length: 1\r\nContent-Length: 1\r\n";
        for (line, fields, otherwise) in [
            ("CONNECT a:80", "", Refusal::Connect),
            ("GET https://a/", "", Refusal::Scheme),
            (&*format!("GET /{long}"), "", Refusal::TargetTooLong),
            ("GET /", "Expect: x\r\n", Refusal::Expectation),
            ("GET /", "Content-Length: 99999999\r\n", Refusal::BodyTooLarge),
            ("GET /", "Content-Length: 99999999\r\nExpect: x\r\n", Refusal::BodyTooLarge),
        ] {
            let bytes =
                |host: &str, more: &str| format!("{line} HTTP/1.1\r\n{host}{fields}{more}\r\n");
            refuse(bytes("Host: h\r\n", ""), otherwise);
            refuse(bytes("", ""), Refusal::HostMissing);
            refuse(bytes("Host: h\r\n", "Host: h\r\n"), Refusal::HostRepeated);
            refuse(bytes("Host: a@b\r\n", ""), Refusal::HostInvalid);
            refuse(bytes("Host: h\r\n", twice), Refusal::ContentLength);
            refuse(bytes("Host: h\r\n", "Transfer-Encoding: x\r\n"), Refusal::TransferEncoding);
        }
    }

    #[test]
    fn bytes_beyond_ascii_in_a_value_are_opaque() {
        for (name, kind) in NAMES {
            let Name::Kept(field) = kind else { continue };
            if field == Field::Host {
                refuse(b"GET / HTTP/1.1\r\nHost: \xE9\r\n\r\n", Refusal::HostInvalid);
                continue;
            }
            let line = [b"GET / HTTP/1.1\r\nHost: h\r\n", name.as_bytes(), b": "].concat();
            for (value, expected) in [
                (&b"a\xE9"[..], "a\u{e9}"),
                (b"\xC3\xA9", "\u{e9}"),
                (b"\xFF \x80", "\u{ff} \u{80}"),
            ] {
                let read = head(&[&line, value, b"\r\n\r\n"].concat()).request;
                assert_eq!(read.field(field), Some(expected), "{name}");
            }
        }
    }

    #[test]
    fn an_absolute_target_needs_a_host_field_too_on_1_1() {
        refuse("GET http://a/ HTTP/1.1\r\n\r\n", Refusal::HostMissing);
        let head = head(b"GET http://a/ HTTP/1.0\r\n\r\n");
        assert_eq!(head.request.field(Field::Host), Some("a"));
    }

    #[test]
    fn a_host_is_one_name_or_address_with_an_optional_port() {
        for host in
            ["h", "h:", "h:0", "h:65535", "1.2.3.4:5", "[::1]", "[::1]:80", "a_b.c", "xn--a.%41~"]
        {
            let head = head(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes());
            assert_eq!(head.request.field(Field::Host), Some(host));
        }
        for host in [
            "",
            ":80",
            "h:65536",
            "h:+1",
            "h:1a",
            "h:1:2",
            "a,b",
            "a@b",
            "a:b@c",
            "a b",
            "::1",
            "[::1",
            "[::1]80",
            "[]",
            "[1.2.3.4]",
            "[fe80::1%251]",
            "a\\b",
            "a%",
            "a%2",
            "a%zz",
            "a#b",
            "\"a\"",
            "<a>",
        ] {
            refuse_host(host);
        }
        // These characters end the authority in a URI, or do not belong in a URI.
        for host in ["a/b", "a?b", "\u{e9}"] {
            let bytes = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
            refuse(bytes, Refusal::HostInvalid);
        }
    }

    #[test]
    fn host_comes_once_on_1_1_and_at_most_once_on_1_0() {
        refuse("GET / HTTP/1.1\r\n\r\n", Refusal::HostMissing);
        refuse("GET / HTTP/1.1\r\nX-Host: h\r\n\r\n", Refusal::HostMissing);
        refuse_fields("Host: h", Refusal::HostRepeated);
        refuse_fields("hOST:", Refusal::HostRepeated);
        refuse("GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n", Refusal::HostRepeated);
        refuse("GET / HTTP/1.0\r\nHost: a@b\r\n\r\n", Refusal::HostInvalid);
        assert_eq!(head(b"GET / HTTP/1.0\r\n\r\n").request.fields, []);
    }

    #[test]
    fn field_lines_are_strict() {
        for name in ["X ", "X\t", "", "X(", "X\"", "X Y", "\u{e9}", "X/"] {
            refuse_fields(&format!("{name}: v"), Refusal::FieldName);
        }
        refuse_fields("no colon", Refusal::FieldName);
        for fold in [" folded", "\tfolded", " ", "X: a\r\n b"] {
            refuse_fields(fold, Refusal::FoldedField);
        }
        refuse("GET / HTTP/1.1\r\n Host: h\r\n\r\n", Refusal::FoldedField);
        for byte in (0..b' ').chain([0x7F]).filter(|b| !matches!(b, b'\t' | b'\r' | b'\n')) {
            refuse_fields(&format!("X: a{}b", byte as char), Refusal::FieldValue);
            refuse_fields(&format!("X{}: a", byte as char), Refusal::FieldValue);
        }
        let latin = b"GET / HTTP/1.1\r\nHost: h\r\nX: \xE9\r\n\r\n";
        assert_eq!(head(latin).request.fields.len(), 1, "a field that no route reads");
        let latin = b"GET / HTTP/1.1\r\nHost: h\r\nAuthorization: \xE9\r\n\r\n";
        let request = head(latin).request;
        assert_eq!(request.field(Field::Authorization), Some("\u{e9}"), "opaque, not refused");
    }

    #[test]
    fn a_content_length_is_one_decimal_number() {
        let check = |length: &str, expected| {
            let framing = accept_fields(&format!("Content-Length: {length}")).framing;
            assert_eq!(framing, Framing::Length(expected), "{length}");
        };
        check("0", 0);
        check("65536", 65_536);
        check("000000000000000000000000007", 7);
        for length in [
            "",
            "+1",
            "-1",
            "1 2",
            "1_0",
            "0x1",
            "1a",
            "1,1",
            "1, 1",
            "1.0",
            "\u{0661}",
            "18446744073709551616",
            "99999999999999999999999",
        ] {
            refuse_fields(&format!("Content-Length: {length}"), Refusal::ContentLength);
        }
        refuse_fields("Content-Length: 1\r\nContent-Length: 1", Refusal::ContentLength);
        refuse_fields("Content-Length: 1\r\ncontent-length: 2", Refusal::ContentLength);
        refuse_fields("Content-Length: 65537", Refusal::BodyTooLarge);
        refuse_fields("Content-Length: 18446744073709551615", Refusal::BodyTooLarge);
    }

    #[test]
    fn the_only_transfer_coding_is_one_chunked_on_1_1() {
        assert_eq!(accept_fields("Transfer-Encoding: chunked").framing, Framing::Chunked);
        assert_eq!(accept_fields("transfer-encoding:CHUNKED ").framing, Framing::Chunked);
        for coding in [
            "",
            "gzip",
            "identity",
            "chunked, chunked",
            "gzip, chunked",
            "chunked, gzip",
            "chunked,",
            ",chunked",
            "\"chunked\"",
            "chunked;a=b",
            "xchunked",
            "chunked x",
        ] {
            refuse_fields(&format!("Transfer-Encoding: {coding}"), Refusal::TransferEncoding);
            refuse_fields(
                &format!("Transfer-Encoding: chunked\r\nTransfer-Encoding: {coding}"),
                Refusal::TransferEncoding,
            );
        }
        refuse_fields(
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            Refusal::TransferEncoding,
        );
        refuse("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", Refusal::TransferEncoding);
        for both in [
            "Content-Length: 1\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: chunked\r\nContent-Length: 0",
        ] {
            refuse_fields(both, Refusal::AmbiguousLength);
        }
    }

    #[test]
    fn a_disguised_framing_field_is_refused() {
        for name in ["Content_Length", "CONTENT_LENGTH", "Transfer_Encoding", "transfer_encodinG"] {
            refuse_fields(&format!("{name}: 1"), Refusal::DisguisedField);
        }
        assert_eq!(accept_fields("X_Content_Length: 1").framing, Framing::None);
    }

    #[test]
    fn connection_options_depend_on_the_version() {
        let check = |version, lines: &[&str], expected| {
            let fields: String = lines.iter().map(|v| format!("Connection: {v}\r\n")).collect();
            let bytes = format!("GET / HTTP/{version}\r\nHost: h\r\n{fields}\r\n");
            assert_eq!(head(bytes.as_bytes()).keep_alive, expected, "{bytes:?}");
        };
        check("1.1", &[], true);
        check("1.1", &["close"], false);
        check("1.1", &["x, CLOSE ,y"], false);
        check("1.1", &["keep-alive", "close"], false);
        check("1.1", &["closed", "upgrade"], true);
        check("1.0", &[], false);
        check("1.0", &["Keep-Alive"], true);
        check("1.0", &["keep-alive, close"], false);
    }

    #[test]
    fn the_only_expectation_is_100_continue_on_1_1() {
        for value in ["100-Continue", ", 100-continue ,", "100-continue, 100-continue"] {
            assert!(accept_fields(&format!("Expect: {value}")).expects_continue, "{value}");
        }
        for value in ["", ","] {
            assert!(!accept_fields(&format!("Expect: {value}")).expects_continue, "{value}");
        }
        for value in ["200-ok", "100-continue, 200-ok", "100-continue;a", "100-continue 1"] {
            refuse_fields(&format!("Expect: {value}"), Refusal::Expectation);
        }
        let head = head(b"POST / HTTP/1.0\r\nExpect: nonsense\r\n\r\n");
        assert!(!head.expects_continue);
    }

    #[test]
    fn a_head_is_bounded_in_every_direction() {
        let target = "a".repeat(TARGET_BYTES_MAX - 1);
        let bytes = format!("OPTIONS /{target} HTTP/1.1\r\nHost: h\r\n\r\n");
        assert_eq!(head(bytes.as_bytes()).request.target.len(), TARGET_BYTES_MAX);
        refuse(format!("GET /{target}a HTTP/1.1\r\nHost: h\r\n\r\n"), Refusal::TargetTooLong);
        let endless = format!("GET /{}", "a".repeat(REQUEST_LINE_BYTES_MAX));
        refuse(&endless[..=REQUEST_LINE_BYTES_MAX], Refusal::TargetTooLong);
        refuse("A".repeat(100_000), Refusal::MethodTooLong);
        refuse(format!("GET / {}", "H".repeat(100_000)), Refusal::RequestLine);
        refuse(format!("GET / HTTP/1.1{}", "1".repeat(100_000)), Refusal::RequestLine);
        refuse(format!("GET /{target}aa HTTP/1.1{}", "1".repeat(999)), Refusal::TargetTooLong);
        assert_eq!((Refusal::MethodTooLong.status(), Refusal::RequestLine.status()), (400, 400));
        refuse("M".repeat(METHOD_BYTES_MAX + 1), Refusal::MethodTooLong);
        let method = "M".repeat(METHOD_BYTES_MAX);
        let bytes = format!("{method} /{target} HTTP/1.1\r\nHost: h\r\n\r\n");
        assert_eq!(
            head(bytes.as_bytes()).request.method,
            Method::Other,
            "the longest method with the longest target"
        );

        let fields = "X: y\r\n".repeat(HEADERS_MAX - 1);
        let start = "GET / HTTP/1.1\r\nHost: h\r\n";
        assert_eq!(head(format!("{start}{fields}\r\n").as_bytes()).framing, Framing::None);
        refuse(format!("{start}{fields}X: y\r\n"), Refusal::TooManyFields);

        let filler = "x".repeat(HEAD_BYTES_MAX - start.len() - "X: \r\n\r\n".len());
        let bytes = format!("{start}X: {filler}\r\n\r\n");
        assert_eq!(head(bytes.as_bytes()).head_len, HEAD_BYTES_MAX);
        refuse(format!("{start}X: {filler}x\r\n\r\n"), Refusal::HeadTooLarge);
        let bytes = format!("{start}X: {filler}xxxx");
        assert_eq!(bytes.len(), HEAD_BYTES_MAX);
        refuse(&bytes, Refusal::HeadTooLarge);
        assert_eq!(
            parse(&bytes.as_bytes()[1..HEAD_BYTES_MAX]),
            parse(b"E"),
            "one byte of space is left"
        );
    }

    #[test]
    fn a_control_byte_is_refused_in_every_place_and_no_byte_panics() {
        let request = b"GET http://a/ HTTP/1.1\r\nHost: a\r\nAccept: x\r\n\r\n";
        for place in 0..request.len() {
            for byte in (0..=255).filter(|byte| *byte != request[place]) {
                let mut bytes = *request;
                bytes[place] = byte;
                let is_complete = matches!(parse_both_ways(&bytes), Parse::Complete(_));
                let is_control = byte.is_ascii_control() && byte != b'\t';
                assert!(!(is_complete && is_control), "{}", bytes.escape_ascii());
            }
        }
    }
}
