//! Fake clients: their requests, how they send, read and leave, and the responses they must get.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::reader::{Reading, Response, read};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Form {
    #[default]
    Json,
    Text,
    Csv,
    Ndjson,
    EventStream,
}

impl Form {
    pub(crate) const ALL: [Self; 5] =
        [Self::Json, Self::Text, Self::Csv, Self::Ndjson, Self::EventStream];

    pub(crate) const fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Text => "text/plain",
            Self::Csv => "text/csv",
            Self::Ndjson => "application/x-ndjson",
            Self::EventStream => "text/event-stream",
        }
    }
}

/// A request for a scan, and its permitted results.
#[derive(Clone, Debug, Default)]
pub(crate) struct ScanRequest {
    pub(crate) domain: String,
    /// The permitted addresses of the name.
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) ports: BTreeSet<u16>,
    pub(crate) form: Form,
    /// The request has `addresses=all`.
    pub(crate) is_for_all: bool,
    /// The request has `include=closed,filtered,unreachable`.
    pub(crate) includes_all: bool,
    /// The request has a deadline that may stop the scan before its end.
    pub(crate) has_deadline: bool,
    /// The maximum of the response's `elapsed_ms`, if it is known.
    pub(crate) elapsed_max: Option<Duration>,
    /// The request has `retries=0` and not `timeout=auto`, which repeats probes of silent ports.
    pub(crate) has_one_pass: bool,
    /// Ports that the request names and excludes. None of them is in `ports`.
    pub(crate) excluded: BTreeSet<u16>,
    /// The request has `include=services`.
    pub(crate) includes_services: bool,
    /// The ports that a request for the `/probe` route expects to be open. If the set is empty, the
    /// probe expects any open port. `None` for other routes.
    pub(crate) expected_ports: Option<BTreeSet<u16>>,
    /// Further field lines, each with its CR LF.
    pub(crate) fields: String,
    /// The name also has an address that the policy denies.
    pub(crate) has_denied_address: bool,
}

impl ScanRequest {
    /// Returns the ports that the request names, including the excluded ones.
    pub(crate) fn named(&self) -> BTreeSet<u16> {
        self.ports.union(&self.excluded).copied().collect()
    }

    pub(crate) fn has_token(&self) -> bool {
        self.fields.contains("Authorization")
    }

    pub(crate) fn has_proxy(&self) -> bool {
        self.fields.contains("orwarded")
    }
}

/// The responses that a request may have.
#[derive(Clone, Debug)]
pub(crate) enum Expected {
    Status(Vec<u16>),
    /// Status 200 with the result of the scan, or one of these statuses.
    Scan(Box<ScanRequest>, Vec<u16>),
}

#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) bytes: Vec<u8>,
    pub(crate) expected: Expected,
}

impl Request {
    /// Returns a GET of `target` with these further field lines, each with its CR LF.
    pub(crate) fn get(target: &str, fields: &str, expected: Expected) -> Self {
        let text = format!("GET {target} HTTP/1.1\r\nHost: sim\r\n{fields}\r\n");
        Self { bytes: text.into_bytes(), expected }
    }

    pub(crate) fn healthz() -> Self {
        Self::get("/healthz", "", Expected::Status(vec![200]))
    }

    pub(crate) fn scan(scan: ScanRequest, parameters: &str, others: Vec<u16>) -> Self {
        let accept = format!("Accept: {}\r\n{}", scan.form.media_type(), scan.fields);
        let list = list(&scan.named());
        if let Some(expected) = &scan.expected_ports {
            let expect = if expected.is_empty() { String::new() } else { self::list(expected) };
            let expect = if expect.is_empty() { expect } else { format!("&expect={expect}") };
            let target = format!("/probe?target={}&ports={list}{expect}{parameters}", scan.domain);
            let fields = scan.fields.clone();
            return Self::get(&target, &fields, Expected::Scan(Box::new(scan), others));
        }
        let first = scan.ports.first().copied().unwrap_or(1);
        let last = scan.ports.last().copied().unwrap_or(1);
        let is_range = scan.ports.len() == usize::from(last - first) + 1;
        let ports = match (is_range, scan.excluded.is_empty()) {
            (true, true) => format!("fromPort={first}&toPort={last}"),
            (false, true) => format!("ports={list}"),
            (_, false) => format!("ports={list}&exclude={}", self::list(&scan.excluded)),
        };
        let target = format!("/open-ports?domain={}&{ports}{parameters}", scan.domain);
        Self::get(&target, &accept, Expected::Scan(Box::new(scan), others))
    }

    fn is_head(&self) -> bool {
        self.bytes.starts_with(b"HEAD ")
    }
}

/// Returns a list such as `1,2,7-3000`. A list of thousands of single ports exceeds the maximum
/// length of a request target.
fn list(ports: &BTreeSet<u16>) -> String {
    let mut runs: Vec<(u16, u16)> = Vec::new();
    for port in ports {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == *port => *last = *port,
            Some(_) | None => runs.push((*port, *port)),
        }
    }
    let text = |(first, last): (u16, u16)| match last - first {
        0 => first.to_string(),
        1 => format!("{first},{last}"),
        _ => format!("{first}-{last}"),
    };
    let texts: Vec<String> = runs.into_iter().map(text).collect();
    texts.join(",")
}

/// When a client sends its next request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// After the response to the previous one.
    OneByOne,
    Pipelined,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reads {
    Fast,
    /// A limited number of bytes at a time.
    Slowly {
        bytes: usize,
        every: Duration,
    },
    Never,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leave {
    /// It sends a FIN and continues to read.
    HalfClose,
    Close,
    Reset,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    NotArrived,
    /// The connection waits in the backlog of the listener.
    Queued,
    /// The connection is accepted as this socket.
    Connected(u64),
    /// The listener was closed before the connection was accepted.
    Refused,
    /// The service closed the connection.
    Closed,
}

#[derive(Clone, Debug)]
pub(crate) struct Client {
    pub(crate) peer: Option<SocketAddr>,
    pub(crate) requests: Vec<Request>,
    pub(crate) order: Order,
    pub(crate) reads: Reads,
    /// The maximum number of bytes that are sent at once.
    pub(crate) piece: usize,
    /// The time between two pieces.
    pub(crate) gap: Duration,
    /// When and how the client leaves, even without responses. The time starts at its arrival.
    pub(crate) leave_after: Option<(Duration, Leave)>,
    /// How the client leaves after the last response. With `None` it keeps the connection.
    pub(crate) leave_when_answered: Option<Leave>,
    pub(crate) stage: Stage,
    /// Bytes that the client sent before its connection was accepted.
    pub(crate) wire: Vec<u8>,
    pub(crate) has_half_closed: bool,
    /// The client has closed or reset the connection, and receives nothing more.
    pub(crate) is_gone: bool,
    /// The number of requests that were sent.
    pub(crate) sent_len: usize,
    /// The bytes that the service read before it sent its FIN.
    pub(crate) delivered: usize,
    /// The service has sent its FIN, so that later requests get no response.
    pub(crate) has_received_fin: bool,
    /// The number of bytes that the kernel still accepts for this client.
    pub(crate) window: usize,
    pub(crate) received: Vec<u8>,
    /// The number of bytes in `received` that belong to `responses`.
    pub(crate) read_len: usize,
    pub(crate) responses: Vec<Response>,
}

impl Client {
    pub(crate) fn new(requests: Vec<Request>) -> Self {
        Self {
            peer: Some(SocketAddr::from(([198, 51, 100, 7], 40_000))),
            requests,
            order: Order::OneByOne,
            reads: Reads::Fast,
            piece: usize::MAX,
            gap: Duration::ZERO,
            leave_after: None,
            leave_when_answered: Some(Leave::Close),
            stage: Stage::NotArrived,
            wire: Vec::new(),
            has_half_closed: false,
            is_gone: false,
            sent_len: 0,
            delivered: 0,
            has_received_fin: false,
            window: 64 * 1024,
            received: Vec::new(),
            read_len: 0,
            responses: Vec::new(),
        }
    }

    /// Parses these bytes, and returns true if they complete another response.
    pub(crate) fn handle_received(&mut self, bytes: &[u8]) -> bool {
        self.received.extend_from_slice(bytes);
        let answered = self.responses.len();
        loop {
            let is_head = self.requests.get(self.responses.len()).is_some_and(Request::is_head);
            match read(&self.received[self.read_len..], is_head) {
                Reading::Whole(response, len) => {
                    let is_over = self.responses.last().is_some_and(Response::is_last);
                    assert!(!is_over, "a response follows `Connection: close`");
                    self.read_len += len;
                    self.responses.push(response);
                }
                Reading::Partial => return self.responses.len() > answered,
            }
        }
    }

    /// Returns the number of requests that the service has read completely.
    pub(crate) fn requests_read(&self) -> usize {
        let mut end = 0;
        let ends = self.requests.iter().map(|request| {
            end += request.bytes.len();
            end
        });
        ends.take_while(|end| *end <= self.delivered).count()
    }

    pub(crate) fn is_pipelined(&self) -> bool {
        self.order == Order::Pipelined && self.requests.len() > 1
    }

    pub(crate) fn reads_slowly(&self) -> bool {
        matches!(self.reads, Reads::Slowly { .. })
    }

    pub(crate) fn never_reads(&self) -> bool {
        self.reads == Reads::Never
    }

    pub(crate) fn is_refused(&self) -> bool {
        self.stage == Stage::Refused
    }

    /// Returns whether a request is for a scan, which ends when its client sends a FIN.
    pub(crate) fn requests_scan(&self) -> bool {
        self.requests.iter().any(|request| matches!(request.expected, Expected::Scan(..)))
    }

    /// Returns whether the client reads everything, and stays until the service sends its FIN.
    pub(crate) fn is_patient(&self) -> bool {
        let has_left = (self.is_gone || self.has_half_closed) && !self.has_received_fin;
        self.leave_after.is_none()
            && !has_left
            && self.reads == Reads::Fast
            && self.stage != Stage::Refused
    }

    /// Returns whether each request has a response, or a response had `Connection: close`.
    pub(crate) fn has_all_responses(&self) -> bool {
        self.responses.len() == self.requests.len()
            || self.responses.last().is_some_and(Response::is_last)
    }

    /// Returns whether each request that the service has read has a response or needs none, because
    /// the client left or a response had `Connection: close`.
    pub(crate) fn has_due_responses(&self) -> bool {
        self.is_gone
            || self.has_half_closed && self.requests_scan()
            || self.responses.last().is_some_and(Response::is_last)
            || self.responses.len() >= self.requests_read()
    }
}
