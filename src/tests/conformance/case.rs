//! A case: a section, a name, the bytes to send, and the expected result.
//!
//! The expected result has a short notation: the statuses of the answers, with `H` before the
//! answer to a HEAD, and the final state of the connection:
//! - `200 404`: two answers, and the connection stays open;
//! - `400!`: one answer, and the service closes the connection;
//! - `200 ?`: one answer, and the service waits for more bytes; after a half-close of the client
//!   the service closes the connection without another answer;
//! - `?400`: no answer, and the service waits for more bytes; after a half-close of the client the
//!   service sends a 400 and closes the connection.

/// A hidden request, as request smuggling appends it to another request.
pub(crate) const HIDDEN: &str = "GET /nowhere HTTP/1.1\r\nHost: h\r\n\r\n";

/// The state of the connection after the answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum After {
    /// The service accepts another request.
    Open,
    /// The service closes the connection.
    Closed,
    /// The service waits for the rest of a request. If it does not come, it sends this answer.
    Waits(Option<(u16, bool)>),
}

/// The expected result of a case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Expected {
    /// The statuses in order, each with whether it answers a HEAD.
    pub(crate) answers: Vec<(u16, bool)>,
    pub(crate) after: After,
}

impl Expected {
    fn parse(text: &str) -> Self {
        let answer = |word: &str| {
            let digits = word.trim_start_matches('H');
            let status = digits.parse::<u16>().unwrap_or_else(|_| panic!("{text:?} is not valid"));
            (status, word.starts_with('H'))
        };
        let (mut answers, mut after) = (Vec::new(), After::Open);
        for word in text.split_whitespace() {
            assert_eq!(after, After::Open, "{text:?}: no word may follow the end");
            if let Some(answer_at_end) = word.strip_prefix('?') {
                after = After::Waits((!answer_at_end.is_empty()).then(|| answer(answer_at_end)));
                continue;
            }
            answers.push(answer(word.trim_end_matches('!')));
            if word.ends_with('!') {
                after = After::Closed;
            }
        }
        Self { answers, after }
    }
}

/// A named case.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) section: &'static str,
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
    pub(crate) expected: Expected,
    /// Whether two answers to this request may differ.
    pub(crate) is_volatile: bool,
    /// Whether a half-close of the client cancels the request, as with a scan.
    pub(crate) needs_reader: bool,
    /// The positions at which the bytes are split.
    pub(crate) cuts: Vec<usize>,
    /// Whether the case is one of many byte values at a position, which need not be sent in every
    /// way.
    pub(crate) is_enumerated: bool,
}

impl Case {
    /// A shell command that sends the case.
    pub(crate) fn command(&self) -> String {
        let mut text = String::new();
        for byte in &self.bytes[..self.bytes.len().min(3000)] {
            match byte {
                b'\r' => text.push_str("\\r"),
                b'\n' => text.push_str("\\n"),
                b'%' => text.push_str("%%"),
                b'\\' | b'\'' | 0..=31 | 127..=255 => text.push_str(&format!("\\{byte:03o}")),
                _ => text.push(*byte as char),
            }
        }
        format!("printf '{text}' | nc -q 1 127.0.0.1 8080")
    }
}

/// A table under construction. Each method adds one case of one kind.
#[derive(Default)]
pub(crate) struct Table {
    section: &'static str,
    pub(crate) cases: Vec<Case>,
}

impl Table {
    /// Sets the section of the following cases.
    pub(crate) fn section(&mut self, section: &'static str) {
        self.section = section;
    }

    /// A case that sends the bytes unchanged.
    pub(crate) fn raw(&mut self, name: &str, bytes: impl AsRef<[u8]>, expected: &str) -> &mut Case {
        let bytes = bytes.as_ref().to_vec();
        // Long cases are split at line ends and at about sixty other positions.
        let stride = (bytes.len() / 64).max(1);
        let is_place = |at: &usize| {
            let is_line_end = bytes[at - 1..].starts_with(b"\n") || bytes[*at..].starts_with(b"\n");
            let is_short = bytes.len() <= 320;
            is_short || at.is_multiple_of(stride) || (is_line_end && bytes.len() < 2000)
        };
        let cuts = (1..bytes.len()).filter(is_place).collect();
        self.cases.push(Case {
            section: self.section,
            name: name.to_owned(),
            bytes,
            expected: Expected::parse(expected),
            is_volatile: false,
            needs_reader: false,
            cuts,
            is_enumerated: false,
        });
        self.cases.last_mut().expect("a case was pushed")
    }

    /// A case with this request line, followed by a Host field and the blank line.
    pub(crate) fn line(&mut self, line: impl AsRef<[u8]>, expected: &str) -> &mut Case {
        let line = line.as_ref();
        let bytes = [line, b"\r\nHost: localhost\r\n\r\n"].concat();
        let case = self.raw(&escape(line), bytes, expected);
        case.cuts.retain(|at| *at <= line.len() + 2);
        case
    }

    /// A GET with this field only.
    pub(crate) fn only_field(&mut self, field: impl AsRef<[u8]>, expected: &str) -> &mut Case {
        let field = field.as_ref();
        let bytes = [field, b"\r\n\r\n"].concat();
        self.after_head(b"GET /healthz HTTP/1.1\r\n", &escape(field), &bytes, expected)
    }

    /// A GET with these fields after Host and without a body.
    pub(crate) fn fields(&mut self, fields: impl AsRef<[u8]>, expected: &str) -> &mut Case {
        self.body(fields, "", expected)
    }

    /// A GET with these fields after Host and with a body.
    pub(crate) fn body(
        &mut self,
        fields: impl AsRef<[u8]>,
        body: impl AsRef<[u8]>,
        expected: &str,
    ) -> &mut Case {
        let (fields, body) = (fields.as_ref(), body.as_ref());
        let head = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n";
        let name = if body.is_empty() {
            escape(fields)
        } else {
            format!("{} with {}", escape(fields), escape(body))
        };
        self.after_head(head, &name, &[fields, b"\r\n\r\n", body].concat(), expected)
    }

    /// A GET with a chunked body.
    pub(crate) fn chunks(&mut self, body: impl AsRef<[u8]>, expected: &str) -> &mut Case {
        let body = body.as_ref();
        let head = b"GET /healthz HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n";
        self.after_head(head, &format!("chunks {}", escape(body)), body, expected)
    }

    /// A case whose head is shared by many cases. The head is split only in other cases.
    fn after_head(&mut self, head: &[u8], name: &str, bytes: &[u8], expected: &str) -> &mut Case {
        let case = self.raw(name, [head, bytes].concat(), expected);
        // The hidden request is also split only in other cases.
        let has_hidden_request = case.bytes.ends_with(HIDDEN.as_bytes());
        let end = case.bytes.len() - if has_hidden_request { HIDDEN.len() - 1 } else { 0 };
        case.cuts.retain(|at| (head.len()..=end).contains(at));
        case
    }
}

/// The bytes as a name: escaped, and shortened if they are long.
fn escape(bytes: &[u8]) -> String {
    let text = bytes.escape_ascii().to_string();
    match text.get(..90) {
        Some(start) if text.len() > 100 => format!("{start}… ({} bytes)", bytes.len()),
        _ => text,
    }
}
