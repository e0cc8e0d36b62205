//! HTTP/1.1 as this service speaks it: the words, and why a message is refused.
//!
//! The types here are what `conn` hands to the routes and takes from them. The work is done
//! below: [`head`] reads a request's head (httparse does the grammar, `head` what httparse lets
//! through), [`chunked`] a body in chunks, [`answer`] writes an answer's head. Whatever has two
//! readings is refused, never repaired: a proxy in front might take the other one.
//!
//! Never touches a descriptor or the clock, and never renders a body: `api` turns a [`Refusal`]
//! into an answer. Driven by `conn`.
//!
//! Invariant: how the bytes were split on their way changes no result.

pub mod answer;
pub mod chunked;
pub mod head;

use crate::limits::{
    BODY_BYTES_MAX, BODY_TIMEOUT, HEAD_BYTES_MAX, HEAD_TIMEOUT, HEADERS_MAX, TARGET_BYTES_MAX,
};

/// The methods this service tells apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// GET.
    Get,
    /// HEAD: answered as GET, without the body.
    Head,
    /// OPTIONS.
    Options,
    /// Any other token.
    Other,
}

impl Method {
    /// The log word.
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
    /// HTTP/1.0: closes unless asked otherwise, never chunked.
    Http10,
    /// HTTP/1.1, and whatever minor version follows it.
    Http11,
}

/// The header fields that a route may ask for. All others are checked and forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// Accept (RFC 9110 section 12.5.1).
    Accept,
    /// Accept-Encoding.
    AcceptEncoding,
    /// Authorization.
    Authorization,
    /// Forwarded (RFC 7239).
    Forwarded,
    /// Host, or the authority of an absolute-form target, which replaces it.
    Host,
    /// If-None-Match.
    IfNoneMatch,
    /// Origin (RFC 6454).
    Origin,
    /// X-Prometheus-Scrape-Timeout-Seconds.
    ScrapeTimeout,
    /// Sec-Fetch-Site (W3C Fetch Metadata).
    SecFetchSite,
    /// X-Forwarded-For.
    XForwardedFor,
}

/// One request, complete and well framed; its body, if any, was read and dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The method.
    pub method: Method,
    /// The protocol version.
    pub version: Version,
    /// Path and query in origin-form (`/open-ports?domain=…`), or `*`; 0x21–0x7E only, no `#`.
    pub target: Box<str>,
    /// The fields of [`Field`] that came, in their order, each value trimmed. A list field that
    /// came on several lines stands here several times.
    pub fields: Vec<(Field, Box<str>)>,
}

impl Request {
    /// The target up to the `?`.
    pub fn path(&self) -> &str {
        self.target.split_once('?').map_or(&*self.target, |(path, _)| path)
    }

    /// What stands behind the first `?`; empty if there is none.
    pub fn query(&self) -> &str {
        self.target.split_once('?').map_or("", |(_, query)| query)
    }

    /// Every value of a field, in the order of their lines.
    pub fn values(&self, field: Field) -> impl Iterator<Item = &str> {
        self.fields.iter().filter(move |(name, _)| *name == field).map(|(_, value)| &**value)
    }

    /// The first value of a field.
    pub fn field(&self, field: Field) -> Option<&str> {
        self.fields.iter().find(|(name, _)| *name == field).map(|(_, value)| &**value)
    }
}

/// One whole answer, before framing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// Content-Type; none is sent where it is empty.
    pub content_type: &'static str,
    /// Further header fields, name and value.
    pub fields: Vec<(&'static str, String)>,
    /// The body; Content-Length follows from it, also where HEAD withholds it.
    pub body: Vec<u8>,
}

/// How a request's body is delimited (RFC 9112 section 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// There is no body.
    None,
    /// Content-Length: so many bytes, at most [`crate::limits::BODY_BYTES_MAX`].
    Length(u64),
    /// `Transfer-Encoding: chunked`.
    Chunked,
}

/// A head that was read to its end, and what it says about the bytes behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The request, whose body is still to come.
    pub request: Request,
    /// How the body is delimited.
    pub framing: Framing,
    /// Bytes of the head, empty lines before it and the blank line after it included.
    pub head_len: usize,
    /// True exactly when the client lets the connection live on: on HTTP/1.1 unless it said
    /// `close`, on HTTP/1.0 only if it said `keep-alive` and not `close`.
    pub keep_alive: bool,
    /// True exactly when the client said `Expect: 100-continue` and may wait for the answer
    /// before it sends the body. Never on HTTP/1.0 (RFC 9110 section 10.1.1).
    pub expects_continue: bool,
}

/// What the bytes of a connection come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parse {
    /// The head has not ended; nothing speaks against it so far.
    Partial,
    /// The head has ended.
    Complete(Head),
    /// No request can begin like this. The connection ends after the answer, since nobody can
    /// tell where the next request would begin.
    Invalid(Refusal),
}

/// Reads one head from the front of `bytes`. A connection whose bytes come in pieces keeps a
/// [`head::HeadScan`] instead, which looks at each byte once.
pub fn parse(bytes: &[u8]) -> Parse {
    head::HeadScan::default().parse(bytes)
}

/// Why a request is refused before any route sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The first bytes are no request line's: a TLS hello, another protocol.
    NotHttp,
    /// A line ends in LF without CR, or has a CR within (RFC 9112 section 2.2).
    LineEnding,
    /// Not `METHOD target HTTP/1.1` with single blanks (RFC 9112 section 3).
    RequestLine,
    /// A major version other than 1, such as the preface of HTTP/2.
    Version,
    /// CONNECT, which asks for a tunnel (RFC 9110 section 9.3.6).
    Connect,
    /// A target that is neither a path, nor an http URI, nor `*` with OPTIONS.
    Target,
    /// A target longer than [`crate::limits::TARGET_BYTES_MAX`].
    TargetTooLong,
    /// A head longer than [`crate::limits::HEAD_BYTES_MAX`].
    HeadTooLarge,
    /// More fields than [`crate::limits::HEADERS_MAX`], or trailers beyond their bound.
    TooManyFields,
    /// A field line that begins with a blank (RFC 9112 section 5.2).
    FoldedField,
    /// A field name with a byte that is no token's, a blank before the colon included.
    FieldName,
    /// A field value with a control byte, or a field that must be text and is not UTF-8.
    FieldValue,
    /// `Content_Length` and the like, which some gateways read as the real thing.
    DisguisedField,
    /// HTTP/1.1 without Host (RFC 9112 section 3.2).
    HostMissing,
    /// Host more than once.
    HostRepeated,
    /// A Host, or the authority of an http URI, that is not one host with an optional port.
    HostInvalid,
    /// Content-Length that is no decimal number, or that came more than once.
    ContentLength,
    /// Any Transfer-Encoding but exactly one `chunked`, or any at all on HTTP/1.0.
    TransferEncoding,
    /// Content-Length beside Transfer-Encoding: the mark of request smuggling.
    AmbiguousLength,
    /// An Expect other than `100-continue`.
    Expectation,
    /// The chunked coding is broken (RFC 9112 section 7.1).
    Chunk,
    /// A body longer than [`crate::limits::BODY_BYTES_MAX`].
    BodyTooLarge,
    /// The client ended its side within the body.
    BodyCut,
    /// The head did not end in time.
    HeadTimeout,
    /// The body did not end in time.
    BodyTimeout,
}

impl Refusal {
    /// Every reason, in the order of its discriminant.
    pub const ALL: [Self; 25] = [
        Self::NotHttp,
        Self::LineEnding,
        Self::RequestLine,
        Self::Version,
        Self::Connect,
        Self::Target,
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

    /// The status of the answer. An unknown Transfer-Encoding is 400 and not 501: a coding we
    /// cannot read is an attack more often than a feature. So is another major version: nothing
    /// that a client sends makes an error of ours. 405 (CONNECT) owes an Allow field.
    pub const fn status(self) -> u16 {
        match self {
            Self::NotHttp
            | Self::LineEnding
            | Self::RequestLine
            | Self::Version
            | Self::Target
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
            Self::HeadTooLarge | Self::TooManyFields => 431,
        }
    }

    /// One sentence that a person can act on.
    pub const fn detail(self) -> &'static str {
        match self {
            Self::NotHttp => "this is not HTTP; if it was TLS, use http:// instead of https://",
            Self::LineEnding => "end every line of the head with CR LF, and use neither alone",
            Self::RequestLine => "the request line must read: METHOD SP target SP HTTP/1.1",
            Self::Version => "only HTTP/1.1 and HTTP/1.0 are spoken here",
            Self::Connect => "this is not a proxy: CONNECT is not supported",
            Self::Target => "the request target must be a path with visible ASCII and no #",
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

    /// The metric label and the log word.
    pub const fn label(self) -> &'static str {
        match self {
            Self::NotHttp => "not_http",
            Self::LineEnding => "line_ending",
            Self::RequestLine => "request_line",
            Self::Version => "version",
            Self::Connect => "connect",
            Self::Target => "target",
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

// The sentences above name these figures.
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
    fn every_refusal_has_a_status_a_reason_phrase_and_its_own_words() {
        let mut labels = BTreeSet::new();
        let mut details = BTreeSet::new();
        for (index, refusal) in Refusal::ALL.into_iter().enumerate() {
            assert_eq!(refusal as usize, index, "{refusal:?} stands at its discriminant");
            assert!((400..=431).contains(&refusal.status()), "{refusal:?}");
            assert_ne!(answer::reason_phrase(refusal.status()), "", "{refusal:?}");
            assert!(labels.insert(refusal.label()), "{refusal:?} shares its label");
            assert!(details.insert(refusal.detail()), "{refusal:?} shares its detail");
        }
    }
}
