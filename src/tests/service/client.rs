//! A client that parses answers strictly and shows its requests when a check fails.

use std::fmt::Debug;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use serde_json::Value;

use crate::process::{EVENT_TIMEOUT, Service};

/// One connection to the service.
pub(crate) struct Client {
    stream: TcpStream,
    received: Vec<u8>,
    command: String,
    sent: String,
}

impl Client {
    pub(crate) fn connect(service: &Service) -> Self {
        let stream = TcpStream::connect(service.address).expect(&service.command);
        stream.set_read_timeout(Some(EVENT_TIMEOUT)).expect("the timeout is not zero");
        stream.set_write_timeout(Some(EVENT_TIMEOUT)).expect("the timeout is not zero");
        let command = service.command.clone();
        Self { stream, received: Vec::new(), command, sent: String::new() }
    }

    /// Sends bytes unchanged. An error is ignored, because the service may have closed the
    /// connection.
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let bytes = bytes.as_ref();
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(2000)]);
        self.sent.push_str(&shown);
        let _ = self.stream.write_all(bytes);
    }

    /// Sends a complete request without a body.
    pub(crate) fn send_request(&mut self, method: &str, target: &str, fields: &str) {
        self.send(format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n"));
    }

    /// Shuts down the sending side of the connection.
    pub(crate) fn finish(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Closes the connection with a RST.
    pub(crate) fn reset(self) {
        let socket = socket2::SockRef::from(&self.stream);
        socket.set_linger(Some(Duration::ZERO)).expect("SO_LINGER can be set");
    }

    /// Reads one answer. The answer has no body if the request method was HEAD.
    pub(crate) fn receive(&mut self, method: &str) -> Answer {
        let head = self.head();
        let mut lines = head.trim_end().lines();
        let status_line = lines.next().unwrap_or_default();
        let status = status_line.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3));
        let status = status.and_then(|digits| digits.parse().ok());
        let status = status.unwrap_or_else(|| panic!("{}status line {status_line:?}", self.at()));
        let fields = lines
            .map(|line| line.split_once(": ").expect("a field line has a name and a value"))
            .collect();
        let context = format!("{}answer:\n{head}", self.at());
        let mut answer = Answer::new(status, fields, context);
        if method == "HEAD" || matches!(status, 100 | 204 | 304) {
            return answer;
        }
        let body = match (answer.field("Content-Length"), answer.field("Transfer-Encoding")) {
            (Some(length), None) => self.take(length.parse().expect("Content-Length is a number")),
            (None, Some("chunked")) => self.chunks(),
            (None, None) => self.rest(),
            other => panic!("{}unknown framing {other:?}", answer.context),
        };
        answer.body = match answer.field("Content-Encoding") {
            Some(coding) => format!("{} bytes of {coding}", body.len()),
            None => String::from_utf8(body).expect("every body is text"),
        };
        answer.context.push_str(&answer.body);
        answer
    }

    /// The head of an answer, including its blank line.
    pub(crate) fn head(&mut self) -> String {
        let end = loop {
            if let Some(at) = self.received.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            self.read_more("a head");
        };
        String::from_utf8(self.take(end)).expect("a head is text")
    }

    /// The next chunk of a chunked body; empty at its end.
    pub(crate) fn chunk(&mut self) -> String {
        let end = loop {
            if let Some(at) = self.received.windows(2).position(|two| two == b"\r\n") {
                break at + 2;
            }
            self.read_more("a chunk");
        };
        let line = String::from_utf8(self.take(end)).expect("a size is text");
        let size = usize::from_str_radix(line.trim_end(), 16).expect("a size is hexadecimal");
        let data = self.take(size);
        assert_eq!(self.take(2), b"\r\n", "a chunk ends with CR LF");
        String::from_utf8(data).expect("every body is text")
    }

    /// Fails unless the service closes the connection now and all data has been read.
    pub(crate) fn check_closed(&mut self) {
        let rest = self.stream.read(&mut [0]);
        let is_end = match &rest {
            Ok(count) => *count == 0,
            Err(error) => error.kind() == ErrorKind::ConnectionReset,
        };
        let left = String::from_utf8_lossy(&self.received);
        assert!(
            is_end && left.is_empty(),
            "{}the connection is not closed: {left:?}, {rest:?}",
            self.at()
        );
    }

    /// Reads until the connection is closed or reset, and discards the data.
    pub(crate) fn discard_rest(&mut self) {
        let mut rest = Vec::new();
        if let Err(error) = self.stream.read_to_end(&mut rest) {
            let is_end = error.kind() == ErrorKind::ConnectionReset;
            assert!(is_end, "{}the connection is not closed: {error}", self.at());
        }
    }

    fn chunks(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        loop {
            let chunk = self.chunk();
            if chunk.is_empty() {
                return body;
            }
            body.extend_from_slice(chunk.as_bytes());
        }
    }

    fn rest(&mut self) -> Vec<u8> {
        self.stream.read_to_end(&mut self.received).expect("the service closes the connection");
        std::mem::take(&mut self.received)
    }

    fn take(&mut self, count: usize) -> Vec<u8> {
        while self.received.len() < count {
            self.read_more("the rest");
        }
        self.received.drain(..count).collect()
    }

    fn read_more(&mut self, wanted: &str) {
        let mut bytes = [0; 16 * 1024];
        match self.stream.read(&mut bytes) {
            Ok(count @ 1..) => self.received.extend_from_slice(&bytes[..count]),
            // The kernel does not restart a read with a timeout after a signal (signal(7)).
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            ended => {
                let received = String::from_utf8_lossy(&self.received);
                panic!("{}expected {wanted}, got {ended:?} after {received:?}", self.at())
            }
        }
    }

    fn at(&self) -> String {
        format!("{}\nrequest:\n{}\n", self.command, self.sent)
    }
}

/// An answer of the service.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    fields: Vec<(String, String)>,
    pub(crate) body: String,
    /// The command line, the request and the answer, for failure messages.
    pub(crate) context: String,
}

impl Answer {
    fn new(status: u16, fields: Vec<(&str, &str)>, context: String) -> Self {
        let own = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        Self { status, fields: fields.into_iter().map(own).collect(), body: String::new(), context }
    }

    /// The value of a header field, which may occur only once.
    pub(crate) fn field(&self, wanted: &str) -> Option<&str> {
        let mut values = self.fields.iter().filter(|(name, _)| name == wanted);
        let first = values.next().map(|(_, value)| value.as_str());
        assert!(values.next().is_none(), "{}\n{wanted} occurs twice", self.context);
        first
    }

    /// Fails with the context and a diff if the two values differ.
    pub(crate) fn check<T: PartialEq + Debug>(&self, what: &str, actual: T, expected: T) -> &Self {
        if actual != expected {
            let (actual, expected) = (format!("{actual:#?}"), format!("{expected:#?}"));
            panic!("{}\n{what} differs:\n{}", self.context, diff(&expected, &actual));
        }
        self
    }

    pub(crate) fn check_status(&self, expected: u16) -> &Self {
        self.check("the status", self.status, expected)
    }

    /// Checks that the answer is a problem document (RFC 9457) with exactly the keys of the
    /// contract.
    pub(crate) fn check_problem(&self, status: u16, cause: &str) -> Value {
        self.check_status(status);
        self.check("the type", self.field("Content-Type"), Some("application/problem+json"));
        self.check("uncached", self.field("Cache-Control"), Some("no-store"));
        let document = self.json();
        let has_fields = document.get("invalid_fields").is_some();
        let mut keys = vec!["type", "title", "status", "cause", "detail"];
        keys.extend(has_fields.then_some("invalid_fields"));
        self.check("the keys", key_order(&self.body, &keys), keys);
        self.check(
            "the key count",
            document.as_object().unwrap().len(),
            5 + usize::from(has_fields),
        );
        self.check("the type's URI", &document["type"], &Value::from("about:blank"));
        self.check("the status inside", &document["status"], &Value::from(status));
        self.check("the cause", &document["cause"], &Value::from(cause));
        assert!(document["detail"].as_str().is_some_and(|text| text.ends_with('.')));
        document
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{}{error}", self.context))
    }
}

/// The lines in which two texts differ, without their common first and last lines.
fn diff(expected: &str, actual: &str) -> String {
    let (left, right): (Vec<_>, Vec<_>) = (expected.lines().collect(), actual.lines().collect());
    let same = left.iter().zip(&right).take_while(|(left, right)| left == right).count();
    let (left, right) = (&left[same..], &right[same..]);
    let tail = left.iter().rev().zip(right.iter().rev()).take_while(|(l, r)| l == r).count();
    let shown = |sign: char, lines: &[&str]| {
        lines.iter().map(|line| format!("{sign} {line}\n")).collect::<String>()
    };
    let removed = shown('-', &left[..left.len() - tail]);
    format!("(after {same} equal lines)\n{removed}{}", shown('+', &right[..right.len() - tail]))
}

/// The keys in the order of their first occurrence in the text.
fn key_order<'a>(text: &str, keys: &[&'a str]) -> Vec<&'a str> {
    let place = |key: &&str| text.find(&format!("\"{key}\":"));
    let mut found: Vec<&str> = keys.iter().copied().filter(|key| place(key).is_some()).collect();
    found.sort_by_key(place);
    found
}

/// The result of a scan, after the checks that every result must pass.
#[derive(Debug)]
pub(crate) struct Scan {
    pub(crate) answer: Answer,
    pub(crate) json: Value,
}

impl Scan {
    pub(crate) fn of(answer: Answer) -> Self {
        answer.check_status(200);
        answer.check("the type", answer.field("Content-Type"), Some("application/json"));
        let json = answer.json();
        let first = ["from_port", "to_port", "domain", "open_ports"];
        assert!(answer.body.starts_with("{\"from_port\":"), "{}", answer.context);
        answer.check("the first keys", key_order(&answer.body, &first), first.to_vec());
        let scan = Self { answer, json };
        let open = scan.open();
        assert!(open.is_sorted_by(|left, right| left < right), "{}", scan.answer.context);
        scan
    }

    pub(crate) fn open(&self) -> Vec<u16> {
        ports(&self.json["open_ports"])
    }

    pub(crate) fn count(&self, state: &str) -> u64 {
        self.json["counts"][state].as_u64().unwrap_or_else(|| panic!("{}", self.answer.context))
    }

    /// Checks the counts, which are in the order open, closed, filtered, unreachable, untested.
    pub(crate) fn check_counts(&self, expected: [u64; 5]) -> &Self {
        let states = ["open", "closed", "filtered", "unreachable", "untested"];
        self.answer.check("the counts", states.map(|state| self.count(state)), expected);
        let is_complete = expected[4] == 0;
        self.check_key("complete", is_complete)
    }

    pub(crate) fn check_open(&self, expected: &[u16]) -> &Self {
        self.answer.check("the open ports", self.open(), expected.to_vec());
        self
    }

    pub(crate) fn check_key(&self, key: &str, expected: impl Into<Value>) -> &Self {
        self.answer.check(key, &self.json[key], &expected.into());
        self
    }

    pub(crate) fn elapsed_ms(&self) -> u64 {
        self.json["elapsed_ms"].as_u64().unwrap_or_else(|| panic!("{}", self.answer.context))
    }
}

pub(crate) fn ports(value: &Value) -> Vec<u16> {
    let ports = value.as_array().expect("the value is a list").iter();
    ports.map(|port| port.as_u64().and_then(|port| port.try_into().ok()).unwrap()).collect()
}

impl Service {
    /// Sends one request on its own connection.
    pub(crate) fn request(&self, method: &str, target: &str, fields: &str) -> Answer {
        let mut client = Client::connect(self);
        client.send_request(method, target, fields);
        client.receive(method)
    }

    pub(crate) fn get(&self, target: &str) -> Answer {
        self.request("GET", target, "")
    }

    /// Runs a scan that must succeed and be answered as JSON.
    pub(crate) fn scan(&self, query: &str) -> Scan {
        Scan::of(self.get(&format!("/open-ports?{query}")))
    }

    /// Starts a scan and returns the connection from which its answer can be read.
    pub(crate) fn begin_scan(&self, query: &str, fields: &str) -> Client {
        let mut client = Client::connect(self);
        client.send_request("GET", &format!("/open-ports?{query}"), fields);
        client
    }

    /// The number of connect scans that ended with this result.
    pub(crate) fn scans_ended(&self, result: &str) -> u64 {
        let labels = format!("technique=\"connect\",result=\"{result}\"");
        self.metric(&format!("openports_scans_total{{{labels}}}"))
    }

    /// One sample of `/metrics`. The name includes the labels; a missing sample counts as 0.
    pub(crate) fn metric(&self, name: &str) -> u64 {
        let page = self.get("/metrics");
        let sample = page.body.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        sample.map_or(0, |value| value.parse().expect("the sample is an integer"))
    }
}
