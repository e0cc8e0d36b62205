//! Fake clients: what each asks, how it sends, reads and leaves, and what it must have been told.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::reader::{Answer, Reading, read};

/// The form of a scan's answer that a client asks for.
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

/// A scan as a client asked for it, and what may come of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct ScanAsk {
    pub(crate) domain: String,
    /// Where the name may lead.
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) ports: BTreeSet<u16>,
    pub(crate) form: Form,
    /// `addresses=all`.
    pub(crate) is_for_all: bool,
    /// `include=closed,filtered,unreachable`.
    pub(crate) includes_all: bool,
    /// The request names a deadline that may cut it short.
    pub(crate) has_deadline: bool,
    /// The answer's `elapsed_ms` at most, where that is known.
    pub(crate) elapsed_max: Option<Duration>,
    /// `retries=0`, and no `timeout=auto`, which owes silent ports a repeat.
    pub(crate) has_one_pass: bool,
    /// Ports that are named and excluded again; none of `ports`.
    pub(crate) excluded: BTreeSet<u16>,
    /// `include=services`.
    pub(crate) includes_services: bool,
    /// It is `/probe` that asks, and these ports should be open; none in particular, if none.
    pub(crate) expected: Option<BTreeSet<u16>>,
    /// Further field lines, each with its CR LF.
    pub(crate) fields: String,
    /// The name leads to an address that the policy denies, too.
    pub(crate) passes_over: bool,
}

impl ScanAsk {
    /// The ports that are named, whether excluded again or not.
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

/// What a request must come to.
#[derive(Clone, Debug)]
pub(crate) enum Wanted {
    /// One of these statuses.
    Status(Vec<u16>),
    /// 200 with the scan's outcome, or one of these statuses.
    Scan(Box<ScanAsk>, Vec<u16>),
}

/// One request.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    pub(crate) bytes: Vec<u8>,
    pub(crate) wanted: Wanted,
}

impl Ask {
    /// A GET of `target` with these further field lines, each with its CR LF.
    pub(crate) fn get(target: &str, fields: &str, wanted: Wanted) -> Self {
        let text = format!("GET {target} HTTP/1.1\r\nHost: sim\r\n{fields}\r\n");
        Self { bytes: text.into_bytes(), wanted }
    }

    pub(crate) fn healthz() -> Self {
        Self::get("/healthz", "", Wanted::Status(vec![200]))
    }

    pub(crate) fn scan(scan: ScanAsk, parameters: &str, others: Vec<u16>) -> Self {
        let accept = format!("Accept: {}\r\n{}", scan.form.media_type(), scan.fields);
        let list = list(&scan.named());
        if let Some(expected) = &scan.expected {
            let expect = if expected.is_empty() { String::new() } else { self::list(expected) };
            let expect = if expect.is_empty() { expect } else { format!("&expect={expect}") };
            let target = format!("/probe?target={}&ports={list}{expect}{parameters}", scan.domain);
            let fields = scan.fields.clone();
            return Self::get(&target, &fields, Wanted::Scan(Box::new(scan), others));
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
        Self::get(&target, &accept, Wanted::Scan(Box::new(scan), others))
    }

    fn is_head(&self) -> bool {
        self.bytes.starts_with(b"HEAD ")
    }
}

/// `1,2,7-3000`: thousands of ports, one by one, make a target that is too long.
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

/// When the next request is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// When the one before was answered.
    OneByOne,
    /// At once.
    Pipelined,
}

/// How answers are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reads {
    /// As they come.
    Fast,
    /// So many bytes each time.
    Slowly { bytes: usize, every: Duration },
    /// Not at all.
    Never,
}

/// How a client goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leave {
    /// It half-closes and reads on.
    HalfClose,
    /// It closes.
    Close,
    /// It resets the connection.
    Reset,
}

/// Where a client stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// It has not come yet.
    Away,
    /// It waits to be accepted.
    Queued,
    /// It is connected through this socket.
    Connected(u64),
    /// It was refused, or reset before it was accepted: nobody was listening any more.
    Refused,
    /// The service closed the connection.
    Closed,
}

/// One client.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    pub(crate) peer: Option<SocketAddr>,
    pub(crate) asks: Vec<Ask>,
    pub(crate) order: Order,
    pub(crate) reads: Reads,
    /// Bytes sent in one piece at most.
    pub(crate) piece: usize,
    /// Between two pieces.
    pub(crate) gap: Duration,
    /// When and how it leaves, whatever was answered; counted from its arrival.
    pub(crate) leaves: Option<(Duration, Leave)>,
    /// What it does once all is answered; `None`: it idles.
    pub(crate) parts: Option<Leave>,
    pub(crate) stage: Stage,
    /// Sent before it was accepted.
    pub(crate) wire: Vec<u8>,
    pub(crate) has_half_closed: bool,
    /// It closed or reset: it hears no more.
    pub(crate) is_gone: bool,
    /// Requests given to the wire.
    pub(crate) asked: usize,
    /// Bytes that the service has read before it said goodbye.
    pub(crate) delivered: usize,
    /// The service has shut its side: what is asked now came too late.
    pub(crate) was_told_goodbye: bool,
    /// What the kernel still takes of the service's output.
    pub(crate) room: usize,
    pub(crate) received: Vec<u8>,
    /// Bytes of `received` that belong to `answers`.
    pub(crate) read_len: usize,
    pub(crate) answers: Vec<Answer>,
}

impl Client {
    pub(crate) fn new(asks: Vec<Ask>) -> Self {
        Self {
            peer: Some(SocketAddr::from(([198, 51, 100, 7], 40_000))),
            asks,
            order: Order::OneByOne,
            reads: Reads::Fast,
            piece: usize::MAX,
            gap: Duration::ZERO,
            leaves: None,
            parts: Some(Leave::Close),
            stage: Stage::Away,
            wire: Vec::new(),
            has_half_closed: false,
            is_gone: false,
            asked: 0,
            delivered: 0,
            was_told_goodbye: false,
            room: 64 * 1024,
            received: Vec::new(),
            read_len: 0,
            answers: Vec::new(),
        }
    }

    /// Reads what came; true exactly when another answer is whole.
    pub(crate) fn handle_received(&mut self, bytes: &[u8]) -> bool {
        self.received.extend_from_slice(bytes);
        let answered = self.answers.len();
        loop {
            let is_head = self.asks.get(self.answers.len()).is_some_and(Ask::is_head);
            match read(&self.received[self.read_len..], is_head) {
                Reading::Whole(answer, len) => {
                    assert!(!self.answers.last().is_some_and(Answer::is_last), "after the last");
                    self.read_len += len;
                    self.answers.push(answer);
                }
                Reading::Partial => return self.answers.len() > answered,
            }
        }
    }

    /// Requests that the service has read to their last byte.
    pub(crate) fn heard(&self) -> usize {
        let mut end = 0;
        let ends = self.asks.iter().map(|ask| {
            end += ask.bytes.len();
            end
        });
        ends.take_while(|end| *end <= self.delivered).count()
    }

    pub(crate) fn is_pipelined(&self) -> bool {
        self.order == Order::Pipelined && self.asks.len() > 1
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

    /// Whether a scan was asked for: closing its side ends it.
    pub(crate) fn asks_for_scan(&self) -> bool {
        self.asks.iter().any(|ask| matches!(ask.wanted, Wanted::Scan(..)))
    }

    /// Whether it reads whatever comes, and has not left before the service did.
    pub(crate) fn is_patient(&self) -> bool {
        let has_left = (self.is_gone || self.has_half_closed) && !self.was_told_goodbye;
        self.leaves.is_none()
            && !has_left
            && self.reads == Reads::Fast
            && self.stage != Stage::Refused
    }

    /// Whether each request is answered, or an answer said that nothing follows.
    pub(crate) fn has_all_answers(&self) -> bool {
        self.answers.len() == self.asks.len() || self.answers.last().is_some_and(Answer::is_last)
    }

    /// Whether every request that was heard is answered, or needs no answer: the client
    /// went, or was told that nothing follows.
    pub(crate) fn is_content(&self) -> bool {
        self.is_gone
            || self.has_half_closed && self.asks_for_scan()
            || self.answers.last().is_some_and(Answer::is_last)
            || self.answers.len() >= self.heard()
    }
}
