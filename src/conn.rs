//! One HTTP/1.1 connection: turns received bytes into requests, and answers into bytes to send.
//!
//! This module implements the protocol of a connection (keep-alive, pipelining, bodies, half-close,
//! the closing sequence) and every deadline of a client. It never touches a descriptor or the
//! clock, and knows no route. `core` drives it: after each call that changes anything, it calls
//! [`Conn::poll_step`] until the result is `None`, and then reads [`Conn::output`],
//! [`Conn::bytes_wanted`] and [`Conn::deadline`].
//!
//! One request is handled at a time. Pipelined requests wait unparsed in the input, which is
//! bounded. While a client does not read its answers, no further request is parsed.
//!
//! Invariants:
//! 1. Output is waiting exactly when the stall deadline is armed.
//! 2. After `handle_timeout` no deadline is due.
//! 3. A connection that is about to close holds no input, and a broken one holds no output.
//! 4. No step follows [`Step::Close`].

mod buffer;
pub mod reason;
mod state;

use std::ops::ControlFlow;
use std::time::Instant;

use crate::conn::buffer::Buffer;
use crate::conn::reason::CloseReason;
use crate::conn::state::{Body, ConnState, PendingResponse, ReadMode, Reuse, Stream};
use crate::http::answer::{BodyFraming, CONTINUE, LAST_CHUNK, may_have_body, write_chunk};
use crate::http::chunked::Chunked;
use crate::http::head::HeadScan;
use crate::http::{Framing, Head, Method, Parse, Refusal, Request, Response, Version};
use crate::limits::{
    BODY_TIMEOUT, HEAD_TIMEOUT, IDLE_TIMEOUT, INPUT_BYTES_MAX, LINGER_TIMEOUT, PIPELINED_BYTES_MAX,
    READ_BYTES_MAX, REQUESTS_PER_CONNECTION_MAX, WRITE_STALL_TIMEOUT,
};

/// The next step of the service for a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A request has arrived, and its body was read. The service must give exactly one answer: with
    /// [`Conn::respond`], or with [`Conn::begin_stream`] up to [`Conn::end_stream`].
    Request(Request),
    /// The received bytes are not a request. The service must refuse them with one
    /// [`Conn::respond`]; the connection closes afterwards.
    Refuse(Refusal),
    /// All output is written: shut down the writing half.
    ShutdownWrite,
    /// Close the socket. No step follows.
    Close(CloseReason),
}

/// One connection.
#[derive(Debug)]
pub struct Conn {
    state: ConnState,
    input: Buffer,
    output: Buffer,
    /// The time at which a reader that accepts no bytes is given up; armed exactly while output
    /// waits.
    stall_deadline: Option<Instant>,
    /// The time since which output has been waiting without interruption.
    lagging_since: Option<Instant>,
    /// The number of requests that may still be returned.
    requests_left: u32,
    /// Whether the peer's FIN has arrived.
    is_read_closed: bool,
    /// Whether the service is shutting down.
    is_shutting_down: bool,
}

impl Conn {
    /// A newly accepted connection. It allocates no memory.
    pub fn new(now: Instant) -> Self {
        Self {
            state: ConnState::Idle { deadline: now + IDLE_TIMEOUT },
            input: Buffer::default(),
            output: Buffer::default(),
            stall_deadline: None,
            lagging_since: None,
            requests_left: REQUESTS_PER_CONNECTION_MAX,
            is_read_closed: false,
            is_shutting_down: false,
        }
    }

    /// Handles received bytes: at most [`Conn::bytes_wanted`] of them.
    pub fn handle_received(&mut self, now: Instant, bytes: &[u8]) {
        if self.state.read_mode() == ReadMode::Keep {
            assert!(!self.is_read_closed, "no bytes arrive after a FIN");
            assert!(bytes.len() <= self.bytes_wanted(), "the caller read more than `bytes_wanted`");
            self.input.tail().extend_from_slice(bytes);
        }
        self.check_invariants(now);
    }

    /// The peer's FIN has arrived: a half-close or a complete close.
    pub fn handle_read_closed(&mut self, now: Instant) {
        self.is_read_closed = true;
        self.check_invariants(now);
    }

    /// The kernel accepted `count` bytes of [`Conn::output`].
    pub fn handle_sent(&mut self, now: Instant, count: usize) {
        if self.state.is_over() {
            return;
        }
        self.output.consume(count);
        if !self.output.is_empty() {
            self.stall_deadline = Some(now + WRITE_STALL_TIMEOUT);
        } else {
            self.stall_deadline = None;
            self.lagging_since = None;
            if let ConnState::Idle { deadline } = &mut self.state {
                *deadline = now + IDLE_TIMEOUT;
            }
        }
        self.check_invariants(now);
    }

    /// Handles a due deadline. Has no effect if none is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        let is_due = |deadline: Instant| deadline <= now;
        if self.stall_deadline.is_some_and(is_due) {
            self.abandon(now, CloseReason::Stalled);
        } else if self.deadline().is_some_and(is_due) {
            self.on_timeout(now);
        }
        assert!(self.deadline().is_none_or(|deadline| deadline > now), "a deadline fires once");
        self.check_invariants(now);
    }

    /// The service shuts down: an idle connection closes now, any other one after its next answer,
    /// which announces it.
    pub fn handle_shutdown(&mut self, now: Instant) {
        self.is_shutting_down = true;
        self.check_invariants(now);
    }

    /// The next step. This must be called until it returns `None`.
    pub fn poll_step(&mut self, now: Instant) -> Option<Step> {
        // The loop ends, because each iteration leads to a later state of one request, or to the
        // end of the connection.
        loop {
            if let ControlFlow::Break(step) = self.advance(now) {
                self.check_invariants(now);
                return step;
            }
        }
    }

    /// Answers the request or refusal that was returned last. `date` is an IMF-fixdate.
    pub fn respond(&mut self, now: Instant, response: &Response, date: &str) {
        let Some(pending) = self.pending() else { return };
        let reuse = self.reuse_after(pending.reuse);
        let out = self.queue(now);
        // A usual head is shorter than this. A longer one lets the output grow once more.
        out.reserve(160 + response.body.len());
        let persistence = reuse.persistence(pending.version);
        let framing = BodyFraming::of_whole(response, pending.method);
        response.write_head(out, framing, persistence, date);
        if pending.method != Method::Head && may_have_body(response.status) {
            out.extend_from_slice(&response.body);
        }
        self.end_answer(now, reuse);
        self.check_invariants(now);
    }

    /// Answers the request that was returned last with a head only. The body follows with
    /// [`Conn::push_stream`]; `len` is its length, if it is known. `response.body` is not used.
    pub fn begin_stream(
        &mut self,
        now: Instant,
        response: &Response,
        len: Option<u64>,
        date: &str,
    ) {
        assert!(may_have_body(response.status), "a stream is a body");
        let Some(pending) = self.pending() else { return };
        let (framing, reuse) = match (len, pending.version) {
            (Some(len), _) => (BodyFraming::Length(len), self.reuse_after(pending.reuse)),
            (None, Version::Http11) => (BodyFraming::Chunked, self.reuse_after(pending.reuse)),
            (None, Version::Http10) => (BodyFraming::ToClose, Reuse::Close(CloseReason::Done)),
        };
        let persistence = reuse.persistence(pending.version);
        response.write_head(self.queue(now), framing, persistence, date);
        self.state = ConnState::Streaming(Stream { method: pending.method, framing, reuse });
        self.check_invariants(now);
    }

    /// Queues a piece of a stream's body. The piece is dropped if the request was HEAD.
    pub fn push_stream(&mut self, now: Instant, bytes: &[u8]) {
        let Some(Stream { method, framing, reuse }) = self.stream() else { return };
        if method == Method::Head || bytes.is_empty() {
            return;
        }
        match framing {
            BodyFraming::Chunked => write_chunk(self.queue(now), bytes),
            BodyFraming::ToClose => self.queue(now).extend_from_slice(bytes),
            BodyFraming::Length(left) => {
                assert!(bytes.len() as u64 <= left, "a stream does not exceed its declared length");
                let framing = BodyFraming::Length(left - bytes.len() as u64);
                self.state = ConnState::Streaming(Stream { method, framing, reuse });
                self.queue(now).extend_from_slice(bytes);
            }
            BodyFraming::Undeclared => unreachable!("a stream declares how its body ends"),
        }
        self.check_invariants(now);
    }

    /// Ends a stream.
    pub fn end_stream(&mut self, now: Instant) {
        let Some(Stream { method, framing, reuse }) = self.stream() else { return };
        if framing == BodyFraming::Chunked && method != Method::Head {
            self.queue(now).extend_from_slice(LAST_CHUNK);
        }
        let is_short = matches!(framing, BodyFraming::Length(1..)) && method != Method::Head;
        assert!(!is_short, "a stream reaches its declared length");
        self.end_answer(now, reuse);
        self.check_invariants(now);
    }

    /// Gives the connection up at once, together with all waiting data: the socket is broken, or
    /// the answer can no longer be delivered. No answer is expected any more, and [`Step::Close`]
    /// comes next.
    pub fn abandon(&mut self, now: Instant, reason: CloseReason) {
        if !matches!(self.state, ConnState::Closed) {
            self.input.clear();
            self.output.clear();
            self.stall_deadline = None;
            self.lagging_since = None;
            self.state = ConnState::Closing { reason };
        }
        self.check_invariants(now);
    }

    /// The bytes to send now.
    pub fn output(&self) -> &[u8] {
        self.output.pending()
    }

    /// The number of bytes that may be read now. 0 pauses reading: the input is full, the peer has
    /// closed its side, or the connection is about to close and the last bytes are sent first.
    pub fn bytes_wanted(&self) -> usize {
        if self.is_read_closed {
            return 0;
        }
        match self.state.read_mode() {
            // Only a head may need the whole buffer. Bytes after a request that is being answered
            // can wait in the kernel.
            ReadMode::Keep if self.output.is_empty() && self.state.is_before_a_request() => {
                INPUT_BYTES_MAX - self.input.len()
            }
            ReadMode::Keep => READ_BYTES_MAX.saturating_sub(self.input.len()),
            ReadMode::Drop => INPUT_BYTES_MAX,
            ReadMode::Pause => 0,
        }
    }

    /// The latest time at which [`Conn::handle_timeout`] must be called.
    pub fn deadline(&self) -> Option<Instant> {
        let is_idle = matches!(self.state, ConnState::Idle { .. });
        let own = if is_idle && !self.output.is_empty() { None } else { self.state.deadline() };
        own.into_iter().chain(self.stall_deadline).min()
    }

    /// The time since which the reader has not kept up with the output; `None` while it keeps up.
    pub fn lagging_since(&self) -> Option<Instant> {
        self.lagging_since
    }

    /// Whether requests wait while earlier answers are still to be sent, and the connection
    /// continues after those answers.
    pub fn is_pipelining(&self) -> bool {
        self.state.is_before_a_request()
            && !self.is_shutting_down
            && !self.input.is_empty()
            && !self.output.is_empty()
    }

    /// Whether an answer is expected or a stream is open.
    pub fn is_answering(&self) -> bool {
        matches!(self.state, ConnState::Answering(_) | ConnState::Streaming(_))
    }

    /// Whether the peer's FIN has arrived.
    pub fn is_read_closed(&self) -> bool {
        self.is_read_closed
    }

    /// Makes one transition: the loop continues, or stops with or without a step.
    fn advance(&mut self, now: Instant) -> ControlFlow<Option<Step>> {
        match &mut self.state {
            ConnState::Idle { .. } if !self.input.is_empty() => {
                if self.output.len() >= PIPELINED_BYTES_MAX {
                    return ControlFlow::Break(None);
                }
                let scan = HeadScan::default();
                self.state = ConnState::Head { scan, deadline: now + HEAD_TIMEOUT };
            }
            ConnState::Idle { .. } if self.is_read_closed => self.close(CloseReason::PeerClosed),
            ConnState::Idle { .. } if self.is_shutting_down => self.close(CloseReason::Shutdown),
            ConnState::Head { scan, .. } => match scan.parse(self.input.pending()) {
                Parse::Complete(head) => return self.on_head(now, head),
                Parse::Invalid(refusal) => self.refuse(refusal),
                Parse::Partial if self.is_read_closed => self.close(CloseReason::PeerClosed),
                Parse::Partial => return ControlFlow::Break(None),
            },
            ConnState::Body { left, .. } => match left.drop_from(&mut self.input) {
                Ok(true) => return ControlFlow::Break(Some(self.on_body_end())),
                Ok(false) if self.is_read_closed => self.refuse(Refusal::BodyCut),
                Ok(false) => return ControlFlow::Break(None),
                Err(refusal) => self.refuse(refusal),
            },
            ConnState::Refusing { refusal, pending } => {
                let step = Step::Refuse(*refusal);
                self.state = ConnState::Answering(*pending);
                return ControlFlow::Break(Some(step));
            }
            ConnState::Flushing { .. } if !self.output.is_empty() => {
                return ControlFlow::Break(None);
            }
            ConnState::Flushing { reason } | ConnState::Lingering { reason, .. }
                if self.is_read_closed =>
            {
                self.state = ConnState::Closing { reason: *reason };
            }
            ConnState::Flushing { reason } => {
                let deadline = now + LINGER_TIMEOUT;
                self.state = ConnState::Lingering { reason: *reason, deadline };
                return ControlFlow::Break(Some(Step::ShutdownWrite));
            }
            ConnState::Closing { reason } => {
                let step = Step::Close(*reason);
                self.state = ConnState::Closed;
                return ControlFlow::Break(Some(step));
            }
            ConnState::Idle { .. }
            | ConnState::Answering(_)
            | ConnState::Streaming(_)
            | ConnState::Lingering { .. }
            | ConnState::Closed => return ControlFlow::Break(None),
        }
        ControlFlow::Continue(())
    }

    /// The deadline of the current state is due.
    fn on_timeout(&mut self, now: Instant) {
        match self.state {
            ConnState::Idle { .. } => self.abandon(now, CloseReason::Idle),
            // Empty lines do not begin a request: some clients send one after a body.
            ConnState::Head { .. } if self.input.pending().trim_ascii().is_empty() => {
                self.close(CloseReason::Idle);
            }
            ConnState::Head { .. } => self.refuse(Refusal::HeadTimeout),
            ConnState::Body { .. } => self.refuse(Refusal::BodyTimeout),
            ConnState::Lingering { reason, .. } => self.abandon(now, reason),
            ConnState::Refusing { .. }
            | ConnState::Answering(_)
            | ConnState::Streaming(_)
            | ConnState::Flushing { .. }
            | ConnState::Closing { .. }
            | ConnState::Closed => unreachable!("these states have no deadline"),
        }
    }

    /// A head is complete: returns its request, or waits for the body.
    fn on_head(&mut self, now: Instant, head: Head) -> ControlFlow<Option<Step>> {
        self.input.consume(head.head_len);
        let Head { request, framing, keep_alive, expects_continue, .. } = head;
        let reuse = if keep_alive { Reuse::KeepAlive } else { Reuse::Close(CloseReason::Done) };
        let pending = PendingResponse { method: request.method, version: request.version, reuse };
        let left = match framing {
            Framing::None | Framing::Length(0) => {
                return ControlFlow::Break(Some(self.begin_answer(request, pending)));
            }
            Framing::Length(length) => Body::Length(length),
            Framing::Chunked => Body::Chunked(Chunked::default()),
        };
        // A client that sends its body without waiting does not need the interim answer (RFC 9110
        // section 10.1.1).
        if expects_continue && self.input.is_empty() {
            self.queue(now).extend_from_slice(CONTINUE);
        }
        self.state = ConnState::Body { request, pending, left, deadline: now + BODY_TIMEOUT };
        ControlFlow::Continue(())
    }

    fn on_body_end(&mut self) -> Step {
        let ConnState::Body { request, pending, .. } =
            std::mem::replace(&mut self.state, ConnState::Closed)
        else {
            unreachable!("the state is `Body`");
        };
        self.begin_answer(request, pending)
    }

    fn begin_answer(&mut self, request: Request, pending: PendingResponse) -> Step {
        assert!(self.requests_left > 0, "no request follows the last permitted one");
        self.requests_left -= 1;
        self.state = ConnState::Answering(pending);
        Step::Request(request)
    }

    /// Refuses a request that was not returned yet, and drops all bytes after it.
    fn refuse(&mut self, refusal: Refusal) {
        let is_head = match &self.state {
            ConnState::Body { request, .. } => request.method == Method::Head,
            ConnState::Head { scan, .. } => scan.is_for_head(self.input.pending()),
            ConnState::Idle { .. }
            | ConnState::Refusing { .. }
            | ConnState::Answering(_)
            | ConnState::Streaming(_)
            | ConnState::Flushing { .. }
            | ConnState::Lingering { .. }
            | ConnState::Closing { .. }
            | ConnState::Closed => unreachable!("no request is being received"),
        };
        let method = if is_head { Method::Head } else { Method::Other };
        let reason = if refusal == Refusal::HeadTimeout {
            CloseReason::HeadTimeout
        } else if refusal == Refusal::BodyTimeout {
            CloseReason::BodyTimeout
        } else {
            CloseReason::Refused
        };
        let pending =
            PendingResponse { method, version: Version::Http11, reuse: Reuse::Close(reason) };
        self.input.clear();
        self.state = ConnState::Refusing { refusal, pending };
    }

    /// Closes without a further answer: at once, or after the answers that still wait to be sent.
    fn close(&mut self, reason: CloseReason) {
        self.input.clear();
        let is_flushed = self.output.is_empty();
        self.state =
            if is_flushed { ConnState::Closing { reason } } else { ConnState::Flushing { reason } };
    }

    /// The framing facts of the request that was returned last; `None` if the connection has ended
    /// meanwhile and there is no client to answer.
    fn pending(&self) -> Option<PendingResponse> {
        if let ConnState::Answering(pending) = self.state {
            return Some(pending);
        }
        assert!(self.state.is_over(), "an answer needs a request");
        None
    }

    /// The open stream; `None` under the same condition as in [`Conn::pending`].
    fn stream(&self) -> Option<Stream> {
        if let ConnState::Streaming(stream) = self.state {
            return Some(stream);
        }
        assert!(self.state.is_over(), "a piece needs an open stream");
        None
    }

    /// Whether the connection can be used again, at the time when an answer must declare it.
    fn reuse_after(&self, requested: Reuse) -> Reuse {
        match requested {
            Reuse::Close(reason) => Reuse::Close(reason),
            Reuse::KeepAlive if self.is_shutting_down => Reuse::Close(CloseReason::Shutdown),
            Reuse::KeepAlive if self.requests_left == 0 => Reuse::Close(CloseReason::Done),
            Reuse::KeepAlive if self.is_read_closed && self.input.is_empty() => {
                Reuse::Close(CloseReason::Done)
            }
            Reuse::KeepAlive => Reuse::KeepAlive,
        }
    }

    /// The end of the output. The caller must append at least one byte.
    fn queue(&mut self, now: Instant) -> &mut Vec<u8> {
        self.stall_deadline.get_or_insert(now + WRITE_STALL_TIMEOUT);
        self.lagging_since.get_or_insert(now);
        self.output.tail()
    }

    /// The last byte of an answer is queued.
    fn end_answer(&mut self, now: Instant, reuse: Reuse) {
        match reuse {
            Reuse::KeepAlive => self.state = ConnState::Idle { deadline: now + IDLE_TIMEOUT },
            Reuse::Close(reason) => {
                self.input.clear();
                self.state = ConnState::Flushing { reason };
            }
        }
    }

    /// Checks the invariants of the module's header after each call.
    fn check_invariants(&self, now: Instant) {
        debug_assert_eq!(self.output.is_empty(), self.stall_deadline.is_none(), "1");
        debug_assert_eq!(self.output.is_empty(), self.lagging_since.is_none(), "1");
        debug_assert!(self.deadline().is_none_or(|deadline| deadline <= now + IDLE_TIMEOUT), "2");
        debug_assert!(self.state.read_mode() == ReadMode::Keep || self.input.is_empty(), "3");
        debug_assert!(!self.state.is_over() || self.output.is_empty(), "3");
        debug_assert!(self.input.len() <= INPUT_BYTES_MAX);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::limits::BUFFER_KEPT_BYTES;

    const DATE: &str = "Mon, 23 Nov 2026 14:11:01 GMT";
    const GET: &str = "GET /a HTTP/1.1\r\nHost: h\r\n\r\n";
    const SECOND: Duration = Duration::from_secs(1);

    /// A client, a service that echoes the target, and the socket between them, in virtual time.
    /// Records the steps and the bytes of the connection.
    struct Run {
        now: Instant,
        conn: Conn,
        /// The steps as text.
        log: Vec<String>,
        /// The bytes that the client has read.
        read: Vec<u8>,
    }

    impl Run {
        fn new() -> Self {
            let now = Instant::now();
            Self { now, conn: Conn::new(now), log: Vec::new(), read: Vec::new() }
        }

        /// Polls and answers until no step is left. The client does not read.
        fn serve(&mut self) {
            while let Some(step) = self.poll() {
                match step {
                    Step::Request(request) => self.respond(200, &request.target),
                    Step::Refuse(refusal) => self.respond(refusal.status(), refusal.label()),
                    Step::ShutdownWrite | Step::Close(_) => {}
                }
            }
        }

        fn poll(&mut self) -> Option<Step> {
            let step = self.conn.poll_step(self.now);
            match &step {
                Some(Step::Request(request)) => {
                    self.log.push(format!("request {}", request.target))
                }
                Some(Step::Refuse(refusal)) => self.log.push(format!("refuse {}", refusal.label())),
                Some(Step::ShutdownWrite) => self.log.push("shutdown".to_owned()),
                Some(Step::Close(reason)) => self.log.push(format!("close {}", reason.label())),
                None => {}
            }
            step
        }

        fn respond(&mut self, status: u16, body: &str) {
            self.conn.respond(self.now, &response(status, body), DATE);
        }

        /// The client sends as fast as it is permitted, and reads all output.
        fn send(&mut self, bytes: impl AsRef<[u8]>) {
            let mut rest = bytes.as_ref();
            while !rest.is_empty() && self.conn.bytes_wanted() > 0 {
                let (piece, behind) = rest.split_at(rest.len().min(self.conn.bytes_wanted()));
                self.conn.handle_received(self.now, piece);
                self.take_all();
                rest = behind;
            }
        }

        /// The client reads `count` bytes.
        fn take(&mut self, count: usize) {
            self.read.extend_from_slice(&self.conn.output()[..count]);
            self.conn.handle_sent(self.now, count);
            self.serve();
        }

        /// The client reads all output, and the output that follows when that is read.
        fn take_all(&mut self) {
            self.serve();
            while !self.conn.output().is_empty() {
                self.take(self.conn.output().len());
            }
        }

        fn end(&mut self) {
            self.conn.handle_read_closed(self.now);
            self.take_all();
        }

        /// Advances the time exactly to the deadline, which must be `after` from now.
        fn expire(&mut self, after: Duration) {
            assert_eq!(self.conn.deadline(), Some(self.now + after), "{:?}", self.log);
            self.now += after - Duration::from_nanos(1);
            self.conn.handle_timeout(self.now);
            assert_eq!(self.conn.poll_step(self.now), None, "not due yet");
            self.now += Duration::from_nanos(1);
            self.conn.handle_timeout(self.now);
            self.serve();
        }

        fn log(&self) -> Vec<&str> {
            self.log.iter().map(String::as_str).collect()
        }

        /// The bytes that the client has read, without the fields that are always the same.
        fn text(&self) -> String {
            let text = String::from_utf8(self.read.clone()).unwrap();
            text.replace(&format!("\r\nDate: {DATE}\r\nContent-Type: text/plain"), "")
        }
    }

    fn response(status: u16, body: &str) -> Response {
        let body = body.as_bytes().to_vec();
        Response { status, content_type: "text/plain", fields: Vec::new(), body }
    }

    fn ok(body: &str) -> String {
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
    }

    fn check(input: impl AsRef<[u8]>, log: &[&str], read: &str) {
        let mut run = Run::new();
        run.send(input);
        assert_eq!((run.log(), run.text().as_str()), (log.to_vec(), read));
    }

    #[test]
    fn requests_are_answered_in_order_and_the_connection_persists() {
        check(GET, &["request /a"], &ok("/a"));
        check(
            format!("{GET}{}\r\n{GET}", GET.replace("/a", "/b")),
            &["request /a", "request /b", "request /a"],
            &[ok("/a"), ok("/b"), ok("/a")].concat(),
        );
    }

    #[test]
    fn a_connection_closes_if_the_client_requests_it() {
        for request in
            ["GET /a HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", "GET /a HTTP/1.0\r\n\r\n"]
        {
            check(
                format!("{request}{GET}"),
                &["request /a", "shutdown"],
                "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n/a",
            );
        }
        check(
            "GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET /b HTTP/1.1\r\nHost: h\r\n\r\n",
            &["request /a", "request /b"],
            &(ok("/a").replace("\r\n\r\n", "\r\nConnection: keep-alive\r\n\r\n") + &ok("/b")),
        );
    }

    #[test]
    fn the_closing_sequence_waits_for_fin_or_for_its_deadline() {
        let request = "GET /a HTTP/1.0\r\n\r\n";
        let mut run = Run::new();
        run.send(request);
        assert_eq!(run.conn.bytes_wanted(), INPUT_BYTES_MAX, "further bytes are read and dropped");
        run.send("more");
        run.end();
        assert_eq!(run.log(), ["request /a", "shutdown", "close done"]);

        let mut run = Run::new();
        run.send(request);
        run.now += SECOND;
        run.send("a byte buys no time");
        run.now -= SECOND;
        run.expire(LINGER_TIMEOUT);
        assert_eq!(run.log(), ["request /a", "shutdown", "close done"]);
        assert_eq!((run.conn.deadline(), run.conn.poll_step(run.now)), (None, None));
        assert_eq!(run.conn.bytes_wanted(), 0);
    }

    #[test]
    fn bodies_are_read_and_dropped() {
        let start = "POST /b HTTP/1.1\r\nHost: h\r\n";
        let both = [ok("/b"), ok("/a")].concat();
        for body in [
            "Content-Length: 0\r\n\r\n",
            "Content-Length: 5\r\n\r\nGET /",
            "Transfer-Encoding: chunked\r\n\r\n5;a=b\r\nGET /\r\n0\r\nX: y\r\n\r\n",
        ] {
            check(format!("{start}{body}{GET}"), &["request /b", "request /a"], &both);
        }
        let large = format!("{start}Content-Length: 65536\r\n\r\n{}{GET}", "x".repeat(65_536));
        check(large, &["request /b", "request /a"], &both);
    }

    #[test]
    fn a_refusal_is_answered_and_closes() {
        let check_refusal = |input: &str, label: &str| {
            let mut run = Run::new();
            run.send(format!("{GET}{input}"));
            let refuse = format!("refuse {label}");
            assert_eq!(run.log(), ["request /a", &refuse, "shutdown"], "{input:?}");
            assert!(run.text().contains("\r\nConnection: close\r\n\r\n"), "{}", run.text());
            run.end();
            assert_eq!(run.log().last(), Some(&"close refused"));
        };
        check_refusal("\x16\x03\x01", "not_http");
        check_refusal("GET / HTTP/1.1\r\n\r\n", "host_missing");
        check_refusal("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "version");
        check_refusal(&"x".repeat(INPUT_BYTES_MAX), "method_too_long");
        let endless = format!("GET /{}", "x".repeat(9000));
        check_refusal(&endless, "target_too_long");
        let filler = format!("X: {}\r\n", "x".repeat(1000)).repeat(20);
        check_refusal(&format!("GET / HTTP/1.1\r\n{filler}"), "head_too_large");
    }

    #[test]
    fn all_bytes_of_a_refused_body_are_dropped() {
        let start = "POST / HTTP/1.1\r\nHost: h\r\n";
        check(
            format!("{start}Transfer-Encoding: chunked\r\n\r\n5 \r\nhello\r\n0\r\n\r\n{GET}"),
            &["refuse chunk", "shutdown"],
            "HTTP/1.1 400 Bad Request\r\nContent-Length: 5\r\nConnection: close\r\n\r\nchunk",
        );
        check(
            format!("{start}Content-Length: 65537\r\nExpect: 100-continue\r\n\r\n"),
            &["refuse body_too_large", "shutdown"],
            "HTTP/1.1 413 Content Too Large\r\nContent-Length: 14\r\nConnection: close\r\n\r\n\
             body_too_large",
        );
    }

    #[test]
    fn the_interim_answer_is_sent_only_to_a_client_that_waits_for_it() {
        let head =
            "POST /a HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n";
        let mut run = Run::new();
        run.send(head);
        assert_eq!(run.text(), "HTTP/1.1 100 Continue\r\n\r\n");
        run.send("xy");
        assert_eq!(run.text(), format!("HTTP/1.1 100 Continue\r\n\r\n{}", ok("/a")));
        check(format!("{head}x"), &[], "");
        check(head.replace("Length: 2", "Length: 0"), &["request /a"], &ok("/a"));
        let old = head.replace("HTTP/1.1", "HTTP/1.0");
        check(&old, &[], "");
    }

    #[test]
    fn an_answer_to_head_has_the_length_of_the_body_and_no_body() {
        let head = |answer: String| answer.split_inclusive("\r\n\r\n").next().unwrap().to_owned();
        check(
            format!("{}{GET}", GET.replace("GET", "HEAD")),
            &["request /a", "request /a"],
            &(head(ok("/a")) + &ok("/a")),
        );
        check(
            "\r\nHEAD / HTTP/1.1\r\n\r\n",
            &["refuse host_missing", "shutdown"],
            "HTTP/1.1 400 Bad Request\r\nContent-Length: 12\r\nConnection: close\r\n\r\n",
        );
    }

    #[test]
    fn every_split_of_the_bytes_gives_the_same_result() {
        let requests = [
            format!("\r\n{GET}{}{GET}", GET.replace("GET", "HEAD")),
            format!("POST /b HTTP/1.1\r\nHost: h\r\nContent-Length: 7\r\n\r\n1234567{GET}"),
            format!(
                "POST /c HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n\
                 3\r\nabc\r\n0\r\nT: v\r\n\r\n{GET}"
            ),
            format!("{GET}GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n{GET}"),
            format!("GET /d HTTP/1.0\r\n\r\n{GET}"),
        ];
        for bytes in &requests {
            let mut whole = Run::new();
            whole.send(bytes);
            let mut single = Run::new();
            for byte in bytes.as_bytes() {
                single.send([*byte]);
            }
            assert_eq!((single.log(), single.text()), (whole.log(), whole.text()));
            for first in 0..bytes.len() {
                for second in first..bytes.len() {
                    let mut run = Run::new();
                    for piece in [&bytes[..first], &bytes[first..second], &bytes[second..]] {
                        run.send(piece);
                    }
                    assert_eq!(
                        (run.log(), run.text()),
                        (whole.log(), whole.text()),
                        "{first} {second}"
                    );
                }
            }
        }
    }

    #[test]
    fn every_split_of_any_mixture_of_pieces_gives_the_same_result() {
        let pieces = [
            GET,
            "HEAD /h HTTP/1.1\r\nHost: h\r\n",
            "POST /p HTTP/1.1\r\nHost: h\r\n",
            "\r\n",
            "\r",
            "\n",
            "Content-Length: 5\r\n",
            "Transfer-Encoding: chunked\r\n",
            "Connection: close\r\n",
            "5\r\nhello\r\n",
            "0\r\n\r\n",
            "hello",
            " HTTP/1.0\r\n",
            "GET /",
            "HEAD ",
            ":",
            " ",
            "\0",
        ];
        let mut random = 0x9E37_79B9_7F4A_7C15_u64;
        let mut below = |bound: usize| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            (random % bound as u64) as usize
        };
        let mut answers = 0;
        for seed in 0..5000 {
            let mixture: String = (0..1 + below(8)).map(|_| pieces[below(pieces.len())]).collect();
            let bytes = GET.repeat(below(3)) + pieces[1 + below(2)] + &mixture;
            let mut whole = Run::new();
            whole.send(&bytes);
            let mut split = Run::new();
            let mut rest = bytes.as_bytes();
            while !rest.is_empty() {
                let (piece, behind) = rest.split_at(1 + below(rest.len()));
                split.send(piece);
                rest = behind;
            }
            whole.end();
            split.end();
            assert_eq!(split.log(), whole.log(), "round {seed}: {bytes:?}");
            assert_eq!(split.text(), whole.text(), "round {seed}: {bytes:?}");
            answers += whole.log.iter().filter(|step| step.starts_with("request")).count();
        }
        assert!(answers > 1000, "too few mixtures were answered: {answers}");
    }

    #[test]
    fn while_a_request_is_answered_the_next_wait_up_to_a_bound() {
        let mut run = Run::new();
        run.conn.handle_received(run.now, format!("{GET}{GET}").as_bytes());
        assert!(matches!(run.poll(), Some(Step::Request(_))));
        assert!(run.conn.is_answering());
        assert_eq!(run.poll(), None, "one request is answered at a time");
        assert_eq!(run.conn.deadline(), None, "the service has its own deadlines");
        let filler = GET.repeat(READ_BYTES_MAX / GET.len() + 1);
        let room = run.conn.bytes_wanted();
        assert_eq!(room, READ_BYTES_MAX - GET.len());
        run.conn.handle_received(run.now, &filler.as_bytes()[..room]);
        assert_eq!((run.poll(), run.conn.bytes_wanted()), (None, 0));
        run.now += 60 * SECOND;
        run.respond(200, "/a");
        run.take_all();
        assert_eq!(run.log.len(), READ_BYTES_MAX / GET.len() + 1);
        run.expire(HEAD_TIMEOUT);
        assert_eq!(
            run.log().last(),
            Some(&"refuse head_timeout"),
            "the last request is incomplete"
        );
    }

    #[test]
    fn a_client_that_reads_no_answers_gets_no_more_of_them() {
        let mut run = Run::new();
        let mut requests = 0;
        while run.conn.bytes_wanted() >= GET.len() {
            run.conn.handle_received(run.now, GET.as_bytes());
            run.serve();
            requests += 1;
            assert!(requests < 10_000);
        }
        let answered = run.log.len();
        assert!(run.conn.output().len() < PIPELINED_BYTES_MAX + 1024);
        assert!(answered < requests, "the other requests wait in the input");
        run.now += SECOND;
        run.take(1);
        assert_eq!(run.conn.deadline(), Some(run.now + WRITE_STALL_TIMEOUT), "a byte is progress");
        run.take_all();
        assert_eq!(run.log.len(), requests);
    }

    #[test]
    fn each_deadline_has_its_own_close_reason() {
        let check = |sent: &str, after, log: &[&str]| {
            let mut run = Run::new();
            run.send(sent);
            run.expire(after);
            assert_eq!(run.log(), log, "{sent:?}");
        };
        check("", IDLE_TIMEOUT, &["close idle"]);
        check(GET, IDLE_TIMEOUT, &["request /a", "close idle"]);
        check("\r\n\r", HEAD_TIMEOUT, &["close idle"]);
        check("G", HEAD_TIMEOUT, &["refuse head_timeout"]);
        check(&GET[..GET.len() - 1], HEAD_TIMEOUT, &["refuse head_timeout"]);
        let body = "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nx";
        check(body, BODY_TIMEOUT, &["refuse body_timeout"]);
    }

    #[test]
    fn a_timeout_is_answered_with_408_and_closes() {
        let mut run = Run::new();
        run.send("GET /");
        run.expire(HEAD_TIMEOUT);
        run.take_all();
        run.expire(LINGER_TIMEOUT);
        assert_eq!(run.log(), ["refuse head_timeout", "shutdown", "close head_timeout"]);
        assert!(run.text().starts_with("HTTP/1.1 408 Request Timeout\r\n"));
    }

    #[test]
    fn single_bytes_do_not_extend_a_deadline() {
        for (start, timeout) in [
            ("GET /", HEAD_TIMEOUT),
            ("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 99\r\n\r\n", BODY_TIMEOUT),
        ] {
            let mut run = Run::new();
            run.send(start);
            for second in 1..=5 {
                run.now += SECOND;
                run.send("a");
                assert_eq!(run.conn.deadline(), Some(run.now + timeout - second * SECOND));
            }
        }
    }

    #[test]
    fn a_reader_that_stalls_is_dropped_and_one_that_is_slow_is_not() {
        let mut run = Run::new();
        run.conn.handle_received(run.now, GET.as_bytes());
        run.serve();
        for _ in 0..5 {
            run.now += WRITE_STALL_TIMEOUT - SECOND;
            run.conn.handle_timeout(run.now);
            run.take(1);
        }
        run.expire(WRITE_STALL_TIMEOUT);
        assert_eq!(run.log(), ["request /a", "close stalled"]);
        assert_eq!(run.conn.output(), b"");
        run.conn.handle_sent(run.now, 1);
        run.conn.handle_received(run.now, b"late");
        assert_eq!(run.poll(), None, "nothing follows the close");
    }

    #[test]
    fn the_idle_time_begins_when_the_answer_was_sent() {
        let mut run = Run::new();
        run.conn.handle_received(run.now, GET.as_bytes());
        run.serve();
        run.now += 5 * SECOND;
        run.take_all();
        run.expire(IDLE_TIMEOUT);
        assert_eq!(run.log(), ["request /a", "close idle"]);
    }

    #[test]
    fn a_fin_closes_one_side_only() {
        let check = |sent: &str, log: &[&str]| {
            let mut run = Run::new();
            run.send(sent);
            run.end();
            assert!(run.conn.is_read_closed());
            assert_eq!(run.log(), log, "{sent:?}");
        };
        check("", &["close peer_closed"]);
        check(GET, &["request /a", "close peer_closed"]);
        check("GET /", &["close peer_closed"]);
        check("\r\n", &["close peer_closed"]);
        let body = "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nx";
        check(body, &["refuse body_cut", "close refused"]);
    }

    #[test]
    fn all_requests_before_a_fin_are_answered_and_no_other_fin_is_awaited() {
        let mut run = Run::new();
        run.conn.handle_received(run.now, format!("{GET}{GET}GET").as_bytes());
        run.conn.handle_read_closed(run.now);
        run.take_all();
        assert_eq!(run.log(), ["request /a", "request /a", "close peer_closed"]);
        assert_eq!(run.text(), [ok("/a"), ok("/a")].concat());

        let mut run = Run::new();
        run.conn.handle_received(run.now, GET.as_bytes());
        run.conn.handle_read_closed(run.now);
        run.take_all();
        assert_eq!(run.log(), ["request /a", "close done"]);
        assert!(run.text().contains("Connection: close"), "the last answer announces the close");
    }

    /// Streams "ab", "" and "c" to one request that is followed by a second one.
    fn stream(request: &str) -> Run {
        let mut run = Run::new();
        run.conn.handle_received(run.now, format!("{request}{GET}").as_bytes());
        assert!(matches!(run.poll(), Some(Step::Request(_))));
        run.conn.begin_stream(run.now, &response(200, "not looked at"), None, DATE);
        for piece in [&b"ab"[..], b"", &[b'c'; 17]] {
            run.conn.push_stream(run.now, piece);
            assert_eq!(run.poll(), None);
            assert!(run.conn.is_answering());
        }
        run.take_all();
        assert_eq!(run.conn.deadline(), None, "a silent stream waits for the service");
        run.conn.end_stream(run.now);
        run.take_all();
        run
    }

    #[test]
    fn a_stream_is_chunked_on_1_1_and_lasts_to_the_close_on_1_0() {
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        let run = stream(GET);
        let body = "2\r\nab\r\n11\r\nccccccccccccccccc\r\n0\r\n\r\n";
        assert_eq!(run.text(), format!("{chunked}{body}{}", ok("/a")));
        assert_eq!(run.log(), ["request /a", "request /a"]);

        let run = stream(&GET.replace("GET", "HEAD"));
        assert_eq!(run.text(), format!("{chunked}{}", ok("/a")));

        let run = stream("GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
        let text = "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nabccccccccccccccccc";
        assert_eq!((run.text().as_str(), run.log()), (text, vec!["request /a", "shutdown"]));
    }

    #[test]
    fn a_client_that_sends_requests_while_answers_wait_is_pipelining_until_its_last_answer() {
        let mut run = Run::new();
        assert!(!run.conn.is_pipelining(), "the client has sent no request");
        run.send(GET);
        assert!(!run.conn.is_pipelining(), "the client has read its answer");
        run.conn.handle_received(run.now, GET.repeat(100).as_bytes());
        run.serve();
        assert!(!run.conn.output().is_empty() && run.conn.is_pipelining());
        run.conn.handle_shutdown(run.now);
        assert!(!run.conn.is_pipelining(), "the next answer announces the close");

        let mut run = Run::new();
        run.conn.handle_received(run.now, GET.as_bytes());
        run.serve();
        assert!(
            !run.conn.output().is_empty() && !run.conn.is_pipelining(),
            "no further request waits"
        );
        let mut run = Run::new();
        run.conn.handle_received(run.now, &GET.as_bytes()[..20]);
        run.serve();
        assert!(!run.conn.is_pipelining(), "an incomplete request is not pipelining");
        let mut run = Run::new();
        run.conn.handle_received(run.now, GET.repeat(2).as_bytes());
        assert!(matches!(run.poll(), Some(Step::Request(_))));
        assert!(!run.conn.is_pipelining(), "the first is not answered yet");
    }

    #[test]
    fn a_shutdown_closes_idle_connections_and_lets_answers_finish() {
        let mut run = Run::new();
        run.conn.handle_shutdown(run.now);
        run.serve();
        assert_eq!(run.log(), ["close drained"]);

        let mut run = Run::new();
        run.send("GET /a HTTP/1.1\r\n");
        run.conn.handle_shutdown(run.now);
        run.send(format!("Host: h\r\n\r\n{GET}"));
        run.end();
        assert_eq!(run.log(), ["request /a", "shutdown", "close drained"]);
        assert!(run.text().contains("Connection: close"));

        let mut run = Run::new();
        run.conn.handle_received(run.now, GET.as_bytes());
        run.serve();
        run.conn.handle_shutdown(run.now);
        run.serve();
        assert_eq!(run.log(), ["request /a"], "the answer is sent first");
        run.take_all();
        run.end();
        assert_eq!(run.log(), ["request /a", "shutdown", "close drained"]);
    }

    #[test]
    fn a_connection_ends_with_its_last_request() {
        let mut run = Run::new();
        run.conn.requests_left = 2;
        run.send(GET.repeat(3));
        assert_eq!(run.log(), ["request /a", "request /a", "shutdown"]);
        assert_eq!(run.text().matches("Connection: close").count(), 1);
    }

    #[test]
    fn an_abandoned_connection_expects_no_answer() {
        let mut run = Run::new();
        run.conn.handle_received(run.now, GET.as_bytes());
        assert!(matches!(run.poll(), Some(Step::Request(_))));
        run.conn.abandon(run.now, CloseReason::Broken);
        run.respond(200, "too late");
        run.conn.end_stream(run.now);
        run.serve();
        run.conn.abandon(run.now, CloseReason::PeerClosed);
        assert_eq!(run.poll(), None);
        assert_eq!(run.log(), ["request /a", "close broken"]);
        assert_eq!((run.conn.output(), run.conn.deadline()), (&b""[..], None));
    }

    #[test]
    fn an_idle_connection_costs_less_than_a_kilobyte() {
        assert!(size_of::<Conn>() + 2 * BUFFER_KEPT_BYTES < 1024, "{}", size_of::<Conn>());
    }

    #[test]
    fn every_close_reason_has_its_own_label() {
        let labels: std::collections::BTreeSet<_> =
            CloseReason::ALL.into_iter().map(CloseReason::label).collect();
        assert_eq!(labels.len(), CloseReason::ALL.len());
        for (index, reason) in CloseReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index, "{reason:?} is not at its discriminant");
        }
    }
}
