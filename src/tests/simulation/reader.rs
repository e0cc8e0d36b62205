//! A strict parser of responses (RFC 9112), which shares no code with the service.

use std::collections::BTreeMap;

#[derive(Clone, Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    /// Names in lower case.
    pub(crate) fields: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Response {
    /// Returns whether no response follows on this connection.
    pub(crate) fn is_last(&self) -> bool {
        self.fields.get("connection").is_some_and(|value| value == "close")
    }
}

pub(crate) enum Reading {
    /// A response, and its number of bytes.
    Whole(Response, usize),
    Partial,
}

/// Reads the first response. With `is_head` it has no body. Panics if it violates the grammar.
pub(crate) fn read(bytes: &[u8], is_head: bool) -> Reading {
    let Some(head_len) = find(bytes, b"\r\n\r\n") else { return Reading::Partial };
    let head = std::str::from_utf8(&bytes[..head_len]).expect("a head is text");
    let mut lines = head.split("\r\n");
    let status_line = lines.next().expect("there is a first line");
    let rest = status_line.strip_prefix("HTTP/1.1 ").expect("a status line");
    let status: u16 = rest[..3].parse().expect("a status");
    assert!((200..600).contains(&status) && rest.len() > 4, "{status_line:?}");
    let mut fields = BTreeMap::new();
    for line in lines {
        let (name, value) = line.split_once(": ").expect("a field");
        let is_new = fields.insert(name.to_ascii_lowercase(), value.to_owned()).is_none();
        assert!(is_new && !name.contains(' ') && value == value.trim(), "{line:?}");
    }
    assert!(fields.contains_key("date"), "an origin server with a clock sends Date");
    let body_at = head_len + 4;
    let rest = &bytes[body_at..];
    let body = match (fields.get("content-length"), fields.get("transfer-encoding")) {
        _ if is_head || status == 304 => Some((Vec::new(), 0)),
        (Some(length), None) => {
            let length: usize = length.parse().expect("a length");
            rest.get(..length).map(|body| (body.to_vec(), length))
        }
        (None, Some(coding)) => {
            assert_eq!(coding, "chunked");
            read_chunks(rest)
        }
        (None, None) | (Some(_), Some(_)) => {
            panic!("a body needs exactly one kind of framing: {head}")
        }
    };
    match body {
        Some((body, len)) => Reading::Whole(Response { status, fields, body }, body_at + len),
        None => Reading::Partial,
    }
}

/// Reads a chunked body, and returns it with its encoded length; `None` if it is incomplete.
fn read_chunks(bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
    let mut body = Vec::new();
    let mut at = 0;
    loop {
        let line_len = find(&bytes[at..], b"\r\n")?;
        let digits = std::str::from_utf8(&bytes[at..at + line_len]).expect("a size is text");
        let size = usize::from_str_radix(digits, 16).expect("a size in hex");
        at += line_len + 2;
        let chunk = bytes.get(at..at + size + 2)?;
        assert!(chunk.ends_with(b"\r\n"), "a chunk ends in CR LF");
        body.extend_from_slice(&chunk[..size]);
        at += size + 2;
        if size == 0 {
            return Some((body, at));
        }
    }
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}
