//! HTTP/1.1 framing (RFC 9112) over httparse: to be written around these types.

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

/// The protocol version of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0: closes unless asked otherwise, never chunked.
    Http10,
    /// HTTP/1.1.
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
