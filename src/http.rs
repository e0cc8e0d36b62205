//! HTTP/1.1 as this service implements it: the types of a message and the reasons for refusing one.
//!
//! The types in this file are the interface between `conn` and the routes. The submodules do the
//! work: [`head`] reads the head of a request (httparse checks the grammar, and `head` checks what
//! httparse permits), [`chunked`] reads a chunked body, and [`answer`] writes the head of an
//! answer. An ambiguous message is refused and never repaired, because a proxy in front of the
//! server might read it differently.
//!
//! This module never touches a descriptor or the clock, and never renders a body: `api` turns a
//! [`Refusal`] into an answer. `conn` drives it.
//!
//! Invariant: the result does not depend on how the bytes were split in transit.

pub mod answer;
pub mod chunked;
pub mod head;

use crate::limits::{
    BODY_BYTES_MAX, BODY_TIMEOUT, HEAD_BYTES_MAX, HEAD_TIMEOUT, HEADERS_MAX, TARGET_BYTES_MAX,
};

/// The methods that this service distinguishes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// GET.
    Get,
    /// HEAD, which is answered as GET, without the body.
    Head,
    /// OPTIONS.
    Options,
    /// Any other token.
    Other,
}

impl Method {
    /// The word for the log.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Options => "OPTIONS",
            Self::Other => "other",
        }
    }
}

/// The protocol version of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0: the connection closes unless the client asks to keep it, and no body is chunked.
    Http10,
    /// HTTP/1.1 or a later minor version.
    Http11,
}

/// The header fields that a route can read. All others are checked and dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// Accept (RFC 9110 section 12.5.1).
    Accept,
    /// Authorization.
    Authorization,
    /// Forwarded (RFC 7239).
    Forwarded,
    /// Host, or the authority of an absolute-form target, which replaces it.
    Host,
    /// If-None-Match.
    IfNoneMatch,
    /// Last-Event-ID (WHATWG HTML, server-sent events).
    LastEventId,
    /// Origin (RFC 6454).
    Origin,
    /// X-Prometheus-Scrape-Timeout-Seconds.
    ScrapeTimeout,
    /// Sec-Fetch-Site (W3C Fetch Metadata).
    SecFetchSite,
    /// X-Forwarded-For.
    XForwardedFor,
}

/// One complete, well-framed request. Its body, if it has one, was read and dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The method.
    pub method: Method,
    /// The protocol version.
    pub version: Version,
    /// Path and query in origin-form (`/open-ports?domain=…`), or `*`; 0x21–0x7E only, no `#`.
    pub target: Box<str>,
    /// The received fields of [`Field`] in their order, each value trimmed. A list field that was
    /// sent on several lines appears here several times.
    pub fields: Vec<(Field, Box<str>)>,
}

impl Request {
    /// The target up to the `?`.
    pub fn path(&self) -> &str {
        self.target.split_once('?').map_or(&*self.target, |(path, _)| path)
    }

    /// The part of the target after the first `?`; empty if there is none.
    pub fn query(&self) -> &str {
        self.target.split_once('?').map_or("", |(_, query)| query)
    }

    /// All values of a field, in the order of their lines.
    pub fn values(&self, field: Field) -> impl Iterator<Item = &str> {
        self.fields.iter().filter(move |(name, _)| *name == field).map(|(_, value)| &**value)
    }

    /// The first value of a field.
    pub fn field(&self, field: Field) -> Option<&str> {
        self.fields.iter().find(|(name, _)| *name == field).map(|(_, value)| &**value)
    }
}

/// One complete answer, before framing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// The Content-Type. If it is empty, the field is not sent.
    pub content_type: &'static str,
    /// Further header fields, as names and values.
    pub fields: Vec<(&'static str, String)>,
    /// The body. Content-Length is computed from it, also for HEAD, where the body is not sent.
    pub body: Vec<u8>,
}

/// How a request's body is delimited (RFC 9112 section 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// There is no body.
    None,
    /// Content-Length: this number of bytes, at most [`crate::limits::BODY_BYTES_MAX`].
    Length(u64),
    /// `Transfer-Encoding: chunked`.
    Chunked,
}

/// A completely read head, and what it declares about the bytes that follow it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The request. Its body has not been read yet.
    pub request: Request,
    /// How the body is delimited.
    pub framing: Framing,
    /// The length of the head in bytes, including empty lines before it and the blank line after
    /// it.
    pub head_len: usize,
    /// Whether the client permits the connection to persist: on HTTP/1.1 unless it sent `close`, on
    /// HTTP/1.0 only if it sent `keep-alive` and not `close`.
    pub keep_alive: bool,
    /// Whether the client sent `Expect: 100-continue` and may wait for the interim answer before it
    /// sends the body. Never true on HTTP/1.0 (RFC 9110 section 10.1.1).
    pub expects_continue: bool,
}

/// The result of parsing the bytes that a connection received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parse {
    /// The head is incomplete, and valid so far.
    Partial,
    /// The head is complete.
    Complete(Head),
    /// No request can begin with these bytes. The connection ends after the answer, because the
    /// start of the next request is unknown.
    Invalid(Refusal),
}

/// Reads one head from the front of `bytes`. A connection that receives its bytes in pieces keeps a
/// [`head::HeadScan`] instead, which looks at each byte once.
pub fn parse(bytes: &[u8]) -> Parse {
    head::HeadScan::default().parse(bytes)
}

/// Why a request is refused before any route sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The first bytes do not begin a request line: a TLS ClientHello or another protocol.
    NotHttp,
    /// A line ends in LF without CR, or contains a CR (RFC 9112 section 2.2).
    LineEnding,
    /// The line is not `METHOD target HTTP/1.1` with single spaces (RFC 9112 section 3).
    RequestLine,
    /// The method is longer than any known method (RFC 9110 section 9).
    MethodTooLong,
    /// The major version is not 1, as in the preface of HTTP/2.
    Version,
    /// CONNECT, which requests a tunnel (RFC 9110 section 9.3.6).
    Connect,
    /// The target is neither a path, nor an http URI, nor `*` with OPTIONS.
    Target,
    /// The target contains a byte beyond ASCII, which a URI must percent-encode (RFC 3986 section
    /// 2.1).
    TargetByte,
    /// A percent sign in the path does not encode a byte, or encodes a control byte.
    TargetEscape,
    /// The target is an https URI. It needs TLS, which this server does not support (RFC 9110
    /// section 7.4).
    Scheme,
    /// The target is longer than [`crate::limits::TARGET_BYTES_MAX`].
    TargetTooLong,
    /// The head is longer than [`crate::limits::HEAD_BYTES_MAX`].
    HeadTooLarge,
    /// There are more fields than [`crate::limits::HEADERS_MAX`], or the trailers exceed their
    /// bound.
    TooManyFields,
    /// A field line begins with a blank (RFC 9112 section 5.2).
    FoldedField,
    /// A field name contains a byte that a token may not contain, for example a blank before the
    /// colon.
    FieldName,
    /// A field value contains a control byte.
    FieldValue,
    /// A field such as `Content_Length`, which some gateways read as Content-Length.
    DisguisedField,
    /// An HTTP/1.1 request has no Host field (RFC 9112 section 3.2).
    HostMissing,
    /// The Host field was sent more than once.
    HostRepeated,
    /// The Host field, or the authority of an http URI, is not one host with an optional port.
    HostInvalid,
    /// Content-Length is not a decimal number, or was sent more than once.
    ContentLength,
    /// Transfer-Encoding is not exactly one `chunked`, or was sent on HTTP/1.0.
    TransferEncoding,
    /// Both Content-Length and Transfer-Encoding were sent, which is typical of request smuggling.
    AmbiguousLength,
    /// The value of Expect is not `100-continue`.
    Expectation,
    /// The chunked coding is broken (RFC 9112 section 7.1).
    Chunk,
    /// The body is longer than [`crate::limits::BODY_BYTES_MAX`].
    BodyTooLarge,
    /// The client closed its side of the connection before the end of the body.
    BodyCut,
    /// The head was not complete before its deadline.
    HeadTimeout,
    /// The body was not complete before its deadline.
    BodyTimeout,
}

impl Refusal {
    /// Every reason, in the order of its discriminant.
    pub const ALL: [Self; 29] = [
        Self::NotHttp,
        Self::LineEnding,
        Self::RequestLine,
        Self::MethodTooLong,
        Self::Version,
        Self::Connect,
        Self::Target,
        Self::TargetByte,
        Self::TargetEscape,
        Self::Scheme,
        Self::TargetTooLong,
        Self::HeadTooLarge,
        Self::TooManyFields,
        Self::FoldedField,
        Self::FieldName,
        Self::FieldValue,
        Self::DisguisedField,
        Self::HostMissing,
        Self::HostRepeated,
        Self::HostInvalid,
        Self::ContentLength,
        Self::TransferEncoding,
        Self::AmbiguousLength,
        Self::Expectation,
        Self::Chunk,
        Self::BodyTooLarge,
        Self::BodyCut,
        Self::HeadTimeout,
        Self::BodyTimeout,
    ];

    /// The status of the answer. An unknown Transfer-Encoding is 400 and not 501, because a coding
    /// that the server cannot read is more often an attack than a feature. An unknown major version
    /// is 400 as well, because the bytes of a client never cause a server error. 405 (for CONNECT)
    /// requires an Allow field.
    pub const fn status(self) -> u16 {
        match self {
            Self::NotHttp
            | Self::LineEnding
            | Self::RequestLine
            | Self::MethodTooLong
            | Self::Version
            | Self::Target
            | Self::TargetByte
            | Self::TargetEscape
            | Self::FoldedField
            | Self::FieldName
            | Self::FieldValue
            | Self::DisguisedField
            | Self::HostMissing
            | Self::HostRepeated
            | Self::HostInvalid
            | Self::ContentLength
            | Self::TransferEncoding
            | Self::AmbiguousLength
            | Self::Chunk
            | Self::BodyCut => 400,
            Self::Connect => 405,
            Self::HeadTimeout | Self::BodyTimeout => 408,
            Self::BodyTooLarge => 413,
            Self::TargetTooLong => 414,
            Self::Expectation => 417,
            Self::Scheme => 421,
            Self::HeadTooLarge | Self::TooManyFields => 431,
        }
    }

    /// One sentence from which a person can see what to change.
    pub const fn detail(self) -> &'static str {
        match self {
            Self::NotHttp => "this is not HTTP; if it was TLS, use http:// instead of https://",
            Self::LineEnding => "end every line of the head with CR LF, and use neither alone",
            Self::RequestLine => "the request line must read: METHOD SP target SP HTTP/1.1",
            Self::MethodTooLong => "a method has at most 256 letters: use GET, HEAD or OPTIONS",
            Self::Version => "only HTTP/1.1 and HTTP/1.0 are spoken here",
            Self::Connect => "this is not a proxy: CONNECT is not supported",
            Self::Target => {
                "the request target must be a path or an http URL, without # and blanks"
            }
            Self::TargetByte => {
                "percent-encode what is not ASCII in the URL: %C3%A9 instead of \u{e9}"
            }
            Self::TargetEscape => {
                "a % in the path must be followed by two hex digits of no control byte"
            }
            Self::Scheme => "an https URL needs TLS, which is not spoken here: use http://",
            Self::TargetTooLong => "shorten the request target to 8192 bytes",
            Self::HeadTooLarge => "shorten the head of the request to 16384 bytes",
            Self::TooManyFields => "send fewer or shorter header and trailer fields: 100 at most",
            Self::FoldedField => "write each header field on one line, without a blank in front",
            Self::FieldName => "a header name must be a token, with the colon right behind it",
            Self::FieldValue => "a header value must be text without control characters",
            Self::DisguisedField => "write Content-Length and Transfer-Encoding with a hyphen",
            Self::HostMissing => "HTTP/1.1 needs a Host header",
            Self::HostRepeated => "send the Host header once",
            Self::HostInvalid => "the host must be one name or address, with an optional port",
            Self::ContentLength => "Content-Length must come once and be a decimal number",
            Self::TransferEncoding => "the only Transfer-Encoding known is chunked, on HTTP/1.1",
            Self::AmbiguousLength => "send either Content-Length or Transfer-Encoding, not both",
            Self::Expectation => "the only expectation known is 100-continue",
            Self::Chunk => "the chunked body is malformed",
            Self::BodyTooLarge => "no request here needs a body: send at most 65536 bytes",
            Self::BodyCut => "the connection was closed before the body was complete",
            Self::HeadTimeout => "the head of the request did not arrive within 10 seconds",
            Self::BodyTimeout => "the body of the request did not arrive within 10 seconds",
        }
    }

    /// The metric label and the word for the log.
    pub const fn label(self) -> &'static str {
        match self {
            Self::NotHttp => "not_http",
            Self::LineEnding => "line_ending",
            Self::RequestLine => "request_line",
            Self::MethodTooLong => "method_too_long",
            Self::Version => "version",
            Self::Connect => "connect",
            Self::Target => "target",
            Self::TargetByte => "target_byte",
            Self::TargetEscape => "target_escape",
            Self::Scheme => "scheme",
            Self::TargetTooLong => "target_too_long",
            Self::HeadTooLarge => "head_too_large",
            Self::TooManyFields => "too_many_fields",
            Self::FoldedField => "folded_field",
            Self::FieldName => "field_name",
            Self::FieldValue => "field_value",
            Self::DisguisedField => "disguised_field",
            Self::HostMissing => "host_missing",
            Self::HostRepeated => "host_repeated",
            Self::HostInvalid => "host_invalid",
            Self::ContentLength => "content_length",
            Self::TransferEncoding => "transfer_encoding",
            Self::AmbiguousLength => "ambiguous_length",
            Self::Expectation => "expectation",
            Self::Chunk => "chunk",
            Self::BodyTooLarge => "body_too_large",
            Self::BodyCut => "body_cut",
            Self::HeadTimeout => "head_timeout",
            Self::BodyTimeout => "body_timeout",
        }
    }
}

// The sentences above contain these numbers.
const _: () = assert!(
    TARGET_BYTES_MAX == 8192
        && HEAD_BYTES_MAX == 16_384
        && HEADERS_MAX == 100
        && BODY_BYTES_MAX == 65_536
        && HEAD_TIMEOUT.as_secs() == 10
        && BODY_TIMEOUT.as_secs() == 10,
    "the details of the refusals name the bounds"
);

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_refusal_has_a_status_a_reason_phrase_and_its_own_text() {
        let mut labels = BTreeSet::new();
        let mut details = BTreeSet::new();
        for (index, refusal) in Refusal::ALL.into_iter().enumerate() {
            assert_eq!(refusal as usize, index, "{refusal:?} is not at its discriminant");
            assert!((400..=431).contains(&refusal.status()), "{refusal:?}");
            assert_ne!(answer::reason_phrase(refusal.status()), "", "{refusal:?}");
            assert!(labels.insert(refusal.label()), "{refusal:?} shares its label");
            assert!(details.insert(refusal.detail()), "{refusal:?} shares its detail");
            // The first letter becomes a capital, which a scheme must not.
            assert!(!refusal.detail().starts_with("http"), "{refusal:?}");
        }
    }
}
