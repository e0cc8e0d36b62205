//! One case: a section, a name, the bytes, and what must come of them.
//!
//! What must come is written in a short notation: the statuses of the answers, `H` before one
//! that answers a HEAD, and how it ends:
//! - `200 404`: two answers, and the connection lives on;
//! - `400!`: one answer, and the service ends the connection by itself;
//! - `200 ?`: one answer, and the service waits for more; our half-close ends it in silence;
//! - `?400`: no answer, and the service waits; our half-close brings a 400, and the end.

/// What a smuggler hides.
pub(crate) const HIDDEN: &str = "GET /nowhere HTTP/1.1\r\nHost: h\r\n\r\n";

/// What the service does behind its answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum After {
    /// It takes another request.
    Open,
    /// It ends the connection.
    Closed,
    /// It waits for the rest of a request, and answers its lack with this.
    Waits(Option<(u16, bool)>),
}

/// What must come of a case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Expected {
    /// The statuses in their order, and whether each answers a HEAD.
    pub(crate) answers: Vec<(u16, bool)>,
    pub(crate) after: After,
}

impl Expected {
    fn parse(text: &str) -> Self {
        let answer = |word: &str| {
            let digits = word.trim_start_matches('H');
            let status = digits.parse::<u16>().unwrap_or_else(|_| panic!("bad {text:?}"));
            (status, word.starts_with('H'))
        };
        let (mut answers, mut after) = (Vec::new(), After::Open);
        for word in text.split_whitespace() {
            assert_eq!(after, After::Open, "{text:?}: nothing follows the end");
            if let Some(lack) = word.strip_prefix('?') {
                after = After::Waits((!lack.is_empty()).then(|| answer(lack)));
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

/// One named case.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) section: &'static str,
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
    pub(crate) expected: Expected,
    /// True exactly when the same request is not answered with the same bytes twice.
    pub(crate) is_volatile: bool,
    /// True exactly when a client that ends its side takes its request back: a scan.
    pub(crate) needs_reader: bool,
    /// Where to split.
    pub(crate) cuts: Vec<usize>,
    /// True exactly when the case is one byte of many in its place, and need not be played in
    /// every way.
    pub(crate) is_enumerated: bool,
}

impl Case {
    /// The case as one may send it by hand.
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

/// A table under construction; each method adds one case of one shape.
#[derive(Default)]
pub(crate) struct Table {
    section: &'static str,
    pub(crate) cases: Vec<Case>,
}

impl Table {
    /// The section that the cases from here on belong to.
    pub(crate) fn section(&mut self, section: &'static str) {
        self.section = section;
    }

    /// Bytes as they are.
    pub(crate) fn raw(&mut self, name: &str, bytes: impl AsRef<[u8]>, expected: &str) -> &mut Case {
        let bytes = bytes.as_ref().to_vec();
        // Long ones are split where lines end and at some sixty other places.
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
        self.cases.last_mut().expect("it was pushed")
    }

    /// A request line; a Host and the blank line follow.
    pub(crate) fn line(&mut self, line: impl AsRef<[u8]>, expected: &str) -> &mut Case {
        let line = line.as_ref();
        let bytes = [line, b"\r\nHost: localhost\r\n\r\n"].concat();
        let case = self.raw(&shown(line), bytes, expected);
        case.cuts.retain(|at| *at <= line.len() + 2);
        case
    }

    /// The only field of a GET.
    pub(crate) fn only_field(&mut self, field: impl AsRef<[u8]>, expected: &str) -> &mut Case {
        let field = field.as_ref();
        let bytes = [field, b"\r\n\r\n"].concat();
        self.behind(b"GET /healthz HTTP/1.1\r\n", &shown(field), (&bytes, expected))
    }

    /// Fields beside Host of a GET without a body.
    pub(crate) fn fields(&mut self, fields: impl AsRef<[u8]>, expected: &str) -> &mut Case {
        self.body(fields, "", expected)
    }

    /// Fields beside Host of a GET, and its body.
    pub(crate) fn body(
        &mut self,
        fields: impl AsRef<[u8]>,
        body: impl AsRef<[u8]>,
        expected: &str,
    ) -> &mut Case {
        let (fields, body) = (fields.as_ref(), body.as_ref());
        let head = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n";
        let name = if body.is_empty() {
            shown(fields)
        } else {
            format!("{} with {}", shown(fields), shown(body))
        };
        self.behind(head, &name, (&[fields, b"\r\n\r\n", body].concat(), expected))
    }

    /// A chunked body of a GET.
    pub(crate) fn chunks(&mut self, body: impl AsRef<[u8]>, expected: &str) -> &mut Case {
        let body = body.as_ref();
        let head = b"GET /healthz HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n";
        self.behind(head, &format!("chunks {}", shown(body)), (body, expected))
    }

    /// Bytes behind a head that many cases share: it is split in others.
    fn behind(&mut self, head: &[u8], name: &str, (bytes, expected): (&[u8], &str)) -> &mut Case {
        let case = self.raw(name, [head, bytes].concat(), expected);
        // So is the request that a smuggler hides behind.
        let is_hiding = case.bytes.ends_with(HIDDEN.as_bytes());
        let end = case.bytes.len() - if is_hiding { HIDDEN.len() - 1 } else { 0 };
        case.cuts.retain(|at| (head.len()..=end).contains(at));
        case
    }
}

/// Bytes as a name: escaped, and cut where they go on and on.
fn shown(bytes: &[u8]) -> String {
    let text = bytes.escape_ascii().to_string();
    match text.get(..90) {
        Some(start) if text.len() > 100 => format!("{start}… ({} bytes)", bytes.len()),
        _ => text,
    }
}
