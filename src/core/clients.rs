//! The clients: their connections, deadlines and answers.
//!
//! The inputs are bytes and deadlines. The outputs of [`Clients::poll_output`] are requests to be
//! answered, sockets to be attended to, and connections that were closed. This module knows neither
//! routes nor jobs. Only this module closes connections: the output contains the reason and the
//! scan that ran for the client, which the core cancels. `responder` drives it, and polls until
//! `None` after every call, before it does anything else.
//!
//! Invariants: a client is in `queue` exactly when it is marked as queued, unless it was closed
//! since; a client that was served has its next deadline in `timers`.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::{Instant, SystemTime};

use super::client::{ActiveScan, Activity, Client};
use super::eviction::{Candidate, Eviction};
use super::running::FoundPort;
use super::sockets::StreamEvent;
use super::streams::{PendingAnswer, ScanAnswer, ScanStream, StreamStart};
use crate::conn::reason::CloseReason;
use crate::conn::{Conn, Step};
use crate::event::Action;
use crate::http::{Refusal, Request, Response};
use crate::limits::{ANSWER_BYTES_WAITING_MAX, LAST_ANSWERS_PER_TICK};
use crate::scan::request::ScanRequest;
use crate::scan::stored::StoredScan;
use crate::scan::summary::OpenRtt;
use crate::service_names::Names;
use crate::slots::{Key, Slots};
use crate::timers::Timers;

/// The number of round trips that are kept for an answer at the end, 40 bytes each. For further
/// open ports, for example of a host that accepts every connection, the answer has no round trips.
const RTTS_KEPT_MAX: usize = 1024;

/// A task for the core.
#[derive(Debug)]
pub(super) enum ClientsOutput {
    /// Answer this request with [`Clients::respond`] or [`Clients::begin_scan`], or postpone it
    /// with [`Clients::hold_request`].
    Request { client: Key, peer: IpAddr, request: Request },
    /// Answer bytes that are not a request, with [`Clients::respond`].
    Refused { client: Key, peer: IpAddr, refusal: Refusal },
    /// Write the progress of this job with [`Clients::write_progress`].
    ProgressDue { client: Key, job: Key },
    /// Perform this action for the socket of a client.
    Act(Action),
    /// The client was removed: close its socket, and cancel its scan.
    Closed { socket: Key, reason: CloseReason, scan: Option<Box<ActiveScan>> },
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Clients {
    table: Slots<Box<Client>>,
    connections_max: usize,
    /// The number of removed clients whose sockets the event loop has yet to close. Their
    /// descriptors are still in use.
    closing_len: usize,
    eviction: Eviction,
    timers: Timers,
    /// The clients to be served because something has changed.
    queue: VecDeque<Key>,
    outputs: VecDeque<ClientsOutput>,
    date: Date,
}

/// The `Date` field of the current second.
#[derive(Debug)]
struct Date {
    second: u64,
    text: String,
}

impl Date {
    fn new(wall: SystemTime) -> Self {
        Self { second: Self::second_of(wall), text: httpdate::fmt_http_date(wall) }
    }

    fn second_of(wall: SystemTime) -> u64 {
        wall.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
    }
}

impl Clients {
    /// No clients, and a cap of `connections_max` connections.
    pub(super) fn new(connections_max: usize, wall: SystemTime) -> Self {
        Self {
            table: Slots::new(),
            connections_max,
            closing_len: 0,
            eviction: Eviction::new(connections_max),
            timers: Timers::default(),
            queue: VecDeque::new(),
            outputs: VecDeque::new(),
            date: Date::new(wall),
        }
    }

    /// The wall clock, for the field `Date`.
    pub(super) fn handle_wall(&mut self, wall: SystemTime) {
        if self.date.second != Date::second_of(wall) {
            self.date = Date::new(wall);
        }
    }

    /// A tick begins.
    pub(super) fn handle_tick(&mut self, now: Instant) {
        self.eviction.handle_tick(now);
    }

    /// Handles all due deadlines of the clients.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        while let Some(key) = self.timers.pop_due(now) {
            let client = self.client_mut(key);
            client.conn.handle_timeout(now);
            let is_due = |stream: &ScanStream| stream.progress_at() <= now;
            let due = client.scan().filter(|scan| scan.stream.as_ref().is_some_and(is_due));
            if let Some(job) = due.map(|scan| scan.job) {
                self.outputs.push_back(ClientsOutput::ProgressDue { client: key, job });
            }
            self.enqueue(key);
        }
    }

    /// Registers a connection. At the cap, another connection is closed to make room.
    pub(super) fn accept(&mut self, now: Instant, peer: Option<SocketAddr>, socket: Key) -> Key {
        if self.is_full() {
            self.eviction.handle_evicted();
            for key in self.evictable(1) {
                self.close(key, CloseReason::Evicted);
            }
        }
        let key = self.table.insert(Box::new(Client::new(now, socket, peer)));
        self.enqueue(key);
        key
    }

    /// A connection waits in the queue of a listener. At the cap, idle and lagging clients are
    /// closed to make room. If there is none, the clients that send requests without waiting for
    /// answers get their last answer, because they could otherwise hold their connections for
    /// ever.
    pub(super) fn handle_accept_backlog(&mut self, now: Instant) {
        if !self.is_full() {
            return;
        }
        let full_len = self.table.len();
        let count = self.eviction.handle_accept_backlog();
        for key in self.evictable(count) {
            self.close(key, CloseReason::Evicted);
        }
        if self.table.len() < full_len {
            return;
        }
        let pipelining = self.table.iter().filter(|(_, client)| client.is_pipelining());
        let keys: Vec<Key> = pipelining.map(|(key, _)| key).take(LAST_ANSWERS_PER_TICK).collect();
        for key in keys {
            self.shut_down(now, key);
        }
    }

    /// Handles an event of the connection. A client that closes its side while its scan runs is
    /// treated as gone, because a half-close cannot be distinguished from a close, and its
    /// connection is closed. (A half-close after a request that is answered at once is still
    /// answered.)
    pub(super) fn handle_stream(&mut self, now: Instant, key: Key, event: StreamEvent) {
        let client = self.client_mut(key);
        match (event, client.scan().is_some()) {
            (StreamEvent::Connect(_), _) => unreachable!("a client's socket was accepted"),
            (StreamEvent::Received(bytes), _) => client.handle_received(now, bytes),
            (StreamEvent::Sent(count), _) => client.conn.handle_sent(now, count),
            (StreamEvent::ReadClosed, false) => client.conn.handle_read_closed(now),
            // Unread bytes are handled first; the end follows after them.
            (StreamEvent::Hangup, false) => return,
            (StreamEvent::Broken, false) => return self.close(key, CloseReason::Broken),
            (StreamEvent::ReadClosed | StreamEvent::Hangup | StreamEvent::Broken, true) => {
                return self.close(key, CloseReason::Cancelled);
            }
        }
        self.enqueue(key);
    }

    /// The event loop has closed all sockets whose closing was requested.
    pub(super) const fn handle_sockets_closed(&mut self) {
        self.closing_len = 0;
    }

    /// The service shuts down: idle connections are closed, the others after their next answer.
    pub(super) fn handle_shutdown(&mut self, now: Instant) {
        for key in self.keys() {
            self.shut_down(now, key);
        }
    }

    /// Closes every connection.
    pub(super) fn close_all(&mut self, reason: CloseReason) {
        for key in self.keys() {
            self.close(key, reason);
        }
    }

    /// Answers the request that was returned last.
    pub(super) fn respond(&mut self, now: Instant, key: Key, response: &Response) {
        let Self { table, date, .. } = self;
        let client = table.get_mut(key);
        assert!(client.is_some(), "a request is answered before its client may be closed");
        if let Some(client) = client {
            client.conn.respond(now, response, &date.text);
        }
        self.enqueue(key);
    }

    /// Postpones the request until [`Clients::resume_requests`].
    pub(super) fn hold_request(&mut self, key: Key, request: Request) {
        self.client_mut(key).activity = Activity::AwaitingFile(Box::new(request));
    }

    /// Returns the requests again that wait for a file.
    pub(super) fn resume_requests(&mut self) {
        for key in self.keys() {
            let client = self.client_mut(key);
            if let Some(request) = client.take_awaiting_file() {
                let peer = client.peer_ip();
                self.outputs.push_back(ClientsOutput::Request { client: key, peer, request });
                self.enqueue(key);
            }
        }
    }

    /// A scan begins for the request that was returned last.
    pub(super) fn begin_scan(&mut self, key: Key, scan: ActiveScan) {
        self.client_mut(key).activity = Activity::Scanning(Box::new(scan));
    }

    /// The scans of the job, at least one, have begun. If the answer is a stream, it begins too.
    pub(super) fn begin_stream(
        &mut self,
        now: Instant,
        key: Key,
        request: &ScanRequest,
        scans: &[&StoredScan],
    ) {
        let Self { table, date, .. } = self;
        let (conn, scan) = scanning_mut(table, key);
        scan.has_begun = true;
        let form = scan.pending.kind.form();
        if !form.is_streamed() {
            return;
        }
        let start = StreamStart { form, request, scans };
        let stream = ScanStream::begin(now, conn, start, &date.text);
        scan.stream = Some(stream);
        self.enqueue(key);
    }

    /// A port is open. If the answer is a stream and its reader keeps up, the port is written at
    /// once. For a form with port lines, its round trip is kept until the end.
    pub(super) fn handle_open(&mut self, now: Instant, key: Key, found: FoundPort) {
        let (conn, scan) = scanning_mut(&mut self.table, key);
        if scan.pending.kind.form().has_port_lines() && scan.rtts.len() < RTTS_KEPT_MAX {
            let FoundPort { address, port, rtt } = found;
            scan.rtts.push(OpenRtt { address, port, rtt });
        }
        if let Some(stream) = &mut scan.stream {
            stream.handle_open(now, conn, found);
            self.enqueue(key);
        }
    }

    /// Writes the progress of the scans to the client's stream.
    pub(super) fn write_progress(&mut self, now: Instant, key: Key, scans: &[&StoredScan]) {
        let (conn, scan) = scanning_mut(&mut self.table, key);
        if let Some(stream) = &mut scan.stream {
            stream.write_progress(now, conn, scans);
        }
    }

    /// Takes the client's scan, which has ended. The caller must answer it with
    /// [`Clients::deliver`], [`Clients::respond`] or [`Clients::respond_scan`].
    pub(super) fn end_scan(&mut self, key: Key) -> ActiveScan {
        let client = self.client_mut(key);
        match std::mem::replace(&mut client.activity, Activity::Waiting) {
            Activity::Scanning(scan) => *scan,
            Activity::AwaitingFile(_) | Activity::Delivering(_) | Activity::Waiting => {
                unreachable!("a job never outlives its client")
            }
        }
    }

    /// Answers the end of a scan with a complete response. If memory must be freed for the
    /// response, even the client itself may be closed, if it lags behind with earlier answers.
    pub(super) fn respond_scan(&mut self, now: Instant, key: Key, response: &Response) {
        self.make_room(response.body.len());
        if self.table.get(key).is_some() {
            self.respond(now, key, response);
        }
    }

    /// Answers the end of a scan piece by piece, as the reader keeps up. As in
    /// [`Clients::respond_scan`], the client may be closed instead.
    pub(super) fn deliver(&mut self, now: Instant, key: Key, answer: ScanAnswer, names: &Names) {
        let pending = PendingAnswer::new(answer);
        self.make_room(pending.kept_bytes());
        let Self { table, date, .. } = self;
        if let Some(client) = table.get_mut(key) {
            pending.begin(now, &mut client.conn, names, &date.text);
            client.activity = Activity::Delivering(Box::new(pending));
            self.enqueue(key);
        }
    }

    /// The next output; `None` once every client was served.
    pub(super) fn poll_output(&mut self, now: Instant, names: &Names) -> Option<ClientsOutput> {
        loop {
            if let Some(output) = self.outputs.pop_front() {
                return Some(output);
            }
            let key = *self.queue.front()?;
            // The client was closed after it was queued, so it is not served.
            let Some(client) = self.table.get_mut(key) else {
                self.queue.pop_front();
                continue;
            };
            client.write_pending(now, names);
            let (socket, peer) = (client.socket, client.peer_ip());
            match client.conn.poll_step(now) {
                Some(Step::Request(request)) => {
                    return Some(ClientsOutput::Request { client: key, peer, request });
                }
                Some(Step::Refuse(refusal)) => {
                    return Some(ClientsOutput::Refused { client: key, peer, refusal });
                }
                Some(Step::ShutdownWrite) => {
                    return Some(ClientsOutput::Act(Action::ShutdownWrite(socket)));
                }
                Some(Step::Close(reason)) => self.close(key, reason),
                None => {
                    self.queue.pop_front();
                    client.is_queued = false;
                    self.timers.set(key, client.deadline());
                    if !client.conn.output().is_empty() || client.conn.bytes_wanted() > 0 {
                        return Some(ClientsOutput::Act(Action::Attend(socket)));
                    }
                }
            }
        }
    }

    /// Whether another connection may be accepted.
    pub(super) fn has_room(&self) -> bool {
        if self.is_full() {
            self.eviction.is_permitted() && self.candidates().any(|it| self.eviction.is_due(&it))
        } else {
            self.table.len() + self.closing_len < self.connections_max
        }
    }

    /// The time of the next deadline.
    pub(super) fn deadline(&self, now: Instant) -> Option<Instant> {
        self.timers.first().into_iter().chain(self.next_evictable_at(now)).min()
    }

    /// The time at which the first client may be closed to make room, if that time is in the future
    /// and connections are at their cap.
    pub(super) fn next_evictable_at(&self, now: Instant) -> Option<Instant> {
        if self.is_full() { Eviction::next_at(now, self.candidates()) } else { None }
    }

    /// The number of bytes that a client may send now.
    pub(super) fn bytes_wanted(&self, key: Key) -> usize {
        self.table.get(key).map_or(0, |client| client.conn.bytes_wanted())
    }

    /// The bytes that are to be written to a client.
    pub(super) fn output(&self, key: Key) -> &[u8] {
        self.table.get(key).map_or(&[], |client| client.conn.output())
    }

    /// The number of connected clients.
    pub(super) const fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether connections are at their cap.
    pub(super) const fn is_full(&self) -> bool {
        self.table.len() >= self.connections_max
    }

    /// The number of clients with a running scan. This examines each client.
    pub(super) fn scanning_len(&self) -> usize {
        self.table.iter().filter(|(_, client)| client.scan().is_some()).count()
    }

    /// The clients that would be closed to make room for `count` other connections, as far as any
    /// may be closed.
    pub(super) fn evictable(&self, count: usize) -> Vec<Key> {
        self.eviction.evictable(count, self.candidates().collect())
    }

    /// Keeps the bytes that wait for readers within their bound before `bytes` more are queued: the
    /// clients that have lagged longest are closed.
    pub(super) fn make_room(&mut self, bytes: usize) {
        let pending = self.table.iter().map(|(_, client)| client.pending_bytes()).sum::<usize>();
        if bytes + pending > ANSWER_BYTES_WAITING_MAX {
            for key in Eviction::laggards(bytes + pending, self.candidates().collect()) {
                self.close(key, CloseReason::Stalled);
            }
        }
    }

    fn candidates(&self) -> impl Iterator<Item = Candidate> {
        let grace = self.eviction.silence_grace();
        self.table.iter().filter_map(move |(key, client)| client.candidate(key, grace))
    }

    fn keys(&self) -> Vec<Key> {
        self.table.iter().map(|(key, _)| key).collect()
    }

    fn client_mut(&mut self, key: Key) -> &mut Client {
        match self.table.get_mut(key) {
            Some(client) => client,
            None => unreachable!("the key of a closed client is not used"),
        }
    }

    fn shut_down(&mut self, now: Instant, key: Key) {
        self.client_mut(key).conn.handle_shutdown(now);
        self.enqueue(key);
    }

    fn enqueue(&mut self, key: Key) {
        let client = self.client_mut(key);
        if !std::mem::replace(&mut client.is_queued, true) {
            self.queue.push_back(key);
        }
    }

    fn close(&mut self, key: Key, reason: CloseReason) {
        let Some(client) = self.table.remove(key) else { unreachable!("a client is closed once") };
        self.closing_len += 1;
        self.timers.set(key, None);
        let scan = match client.activity {
            Activity::Scanning(scan) => Some(scan),
            Activity::AwaitingFile(_) | Activity::Delivering(_) | Activity::Waiting => None,
        };
        self.outputs.push_back(ClientsOutput::Closed { socket: client.socket, reason, scan });
    }
}

/// The connection of a client with a running scan, and that scan.
fn scanning_mut(table: &mut Slots<Box<Client>>, key: Key) -> (&mut Conn, &mut ActiveScan) {
    match table.get_mut(key).map(|client| (&mut client.conn, &mut client.activity)) {
        Some((conn, Activity::Scanning(scan))) => (conn, scan),
        Some((_, Activity::AwaitingFile(_) | Activity::Delivering(_) | Activity::Waiting))
        | None => unreachable!("a job never outlives its client"),
    }
}

#[cfg(test)]
impl Clients {
    pub(super) fn client(&self, key: Key) -> Option<&Client> {
        self.table.get(key).map(|client| &**client)
    }
}
