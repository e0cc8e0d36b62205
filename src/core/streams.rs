//! Answers that are written while their scan runs, or while their reader lags.
//!
//! A stream consists of its start, each open port as it is found, the progress of the scan (at most
//! five times a second) with the ports that came into a state since then, and its end. A reader
//! that does not keep up misses progress events, but never a port. Undelivered data is kept as sets
//! of ports, not as text. An answer costs a buffer for [`STREAM_BYTES_MAX`], at most 24 KB, and for
//! each address four sets of at most 8 KB while the scan runs, and five after it: 64 KB for one
//! address. An answer that is not a stream is delivered in the same way once its scan has ended.
//! `clients` drives this module, which never closes a connection.

mod delivered;

use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::running::FoundPort;
use crate::api;
use crate::api::accept::Form;
use crate::api::answer::{Progress, ScanEvent, write_event};
use crate::api::end_writer::EndWriter;
use crate::conn::Conn;
use crate::limits::STREAM_BYTES_MAX;
use crate::scan::options::Addresses;
use crate::scan::request::ScanRequest;
use crate::scan::stored::StoredScan;
use crate::service_names::Names;
use delivered::Delivered;

/// The interval between two events of progress: at most five per second.
const PROGRESS_EVERY: Duration = Duration::from_millis(200);
/// The free space below which a slow reader gets no more data, because otherwise each port would be
/// sent in a chunk of its own.
const STREAM_ROOM_MIN: usize = STREAM_BYTES_MAX / 2;

/// An answer that is written while its scan runs.
#[derive(Debug)]
pub(super) struct ScanStream {
    form: Form,
    /// The time before which no progress is written.
    progress_at: Instant,
    /// With `addresses=all` ports are written with their address.
    addresses: Addresses,
    /// The data delivered about each address, in the order of the job's scans.
    delivered: Vec<Delivered>,
    /// The index of the address whose ports the next event of progress has, if it has any.
    turn: usize,
}

/// A request whose scans, at least one, have begun, and the form of its answer.
#[derive(Debug)]
pub(super) struct StreamStart<'a> {
    pub(super) form: Form,
    pub(super) request: &'a ScanRequest,
    pub(super) scans: &'a [&'a StoredScan],
}

impl ScanStream {
    /// Begins the answer to a request whose scans, at least one, have begun.
    pub(super) fn begin(now: Instant, conn: &mut Conn, start: StreamStart, date: &str) -> Self {
        let StreamStart { form, request, scans } = start;
        assert!(form.is_streamed() && !scans.is_empty());
        let address = scans[0].target().ip();
        let total = scans.iter().map(|scan| scan.counts().total()).sum();
        let (domain, ports) = (&request.domain, Some(&request.ports));
        let mut text = Vec::new();
        let (shard, shards_total) = (None, None);
        let event = ScanEvent::Start { domain, address, total, ports, shard, shards_total };
        write_event(&mut text, form, &event);
        conn.begin_stream(now, &api::scan_response(form, Vec::new()), None, date);
        conn.push_stream(now, &text);
        let delivered =
            |scan: &&StoredScan| Delivered::new(scan.target().ip(), request.options.include);
        Self {
            form,
            progress_at: now + PROGRESS_EVERY,
            addresses: request.options.addresses,
            delivered: scans.iter().map(delivered).collect(),
            turn: 0,
        }
    }

    /// Writes an open port, or defers it while the reader lags.
    pub(super) fn handle_open(&mut self, now: Instant, conn: &mut Conn, found: FoundPort) {
        let FoundPort { address, port, rtt } = found;
        if conn.output().len() >= STREAM_BYTES_MAX {
            if let Some(delivered) = self.delivered.iter_mut().find(|it| it.address == address) {
                delivered.defer(port);
            }
            return;
        }
        let mut text = Vec::new();
        let address = shown_address(self.addresses, address);
        let event = ScanEvent::Open { port, rtt: Some(rtt), address };
        write_event(&mut text, self.form, &event);
        conn.push_stream(now, &text);
    }

    /// Writes open ports that were deferred, as far as the buffer has space. Returns whether none
    /// is left.
    pub(super) fn write_deferred(&mut self, now: Instant, conn: &mut Conn) -> bool {
        loop {
            let room = room(conn);
            if room < STREAM_ROOM_MIN {
                return false;
            }
            let text = self.take_deferred(room);
            if text.is_empty() {
                return true;
            }
            conn.push_stream(now, &text);
        }
    }

    /// Writes the progress of the scans, as far as the buffer has space.
    pub(super) fn write_progress(&mut self, now: Instant, conn: &mut Conn, scans: &[&StoredScan]) {
        self.progress_at = now + PROGRESS_EVERY;
        let room = room(conn);
        if room < STREAM_ROOM_MIN {
            return;
        }
        let mut progress = Progress::default();
        for counts in scans.iter().map(|scan| scan.counts()) {
            progress.total += counts.total();
            progress.done += counts.total() - counts.untested;
            progress.open += counts.open;
        }
        let mut text = self.take_deferred(room);
        let mut room = room.saturating_sub(text.len());
        // The one event has the ports of one address. The addresses that have changed take turns.
        let (earlier, later) = self.delivered.split_at_mut(self.turn);
        let in_turn =
            later.iter_mut().zip(&scans[self.turn..]).chain(earlier.iter_mut().zip(scans));
        let mut deltas = (self.turn + 1..).zip(in_turn).map(|(next, (delivered, scan))| {
            let delta = delivered.take_delta(|state| scan.ports(state), &mut room);
            (next, delivered.address, delta)
        });
        let found = deltas.find(|(_, _, delta)| !delta.is_empty());
        if let Some((next, address, delta)) = &found {
            [progress.closed, progress.filtered, progress.unreachable] = delta.ranges();
            progress.address = shown_address(self.addresses, *address);
            self.turn = next % scans.len();
        }
        write_event(&mut text, self.form, &ScanEvent::Progress(progress));
        conn.push_stream(now, &text);
    }

    /// The time at which progress is due.
    pub(super) const fn progress_at(&self) -> Instant {
        self.progress_at
    }

    /// Open ports that were deferred, as events: as many as fit into `room` bytes, and one more.
    fn take_deferred(&mut self, room: usize) -> Vec<u8> {
        let mut text = Vec::new();
        for delivered in &mut self.delivered {
            if text.len() >= room {
                break;
            }
            let address = shown_address(self.addresses, delivered.address);
            delivered.take_deferred(|port| {
                let event = ScanEvent::Open { port, rtt: None, address };
                write_event(&mut text, self.form, &event);
                text.len() < room
            });
        }
        text
    }
}

/// The number of bytes that may be written to a client now.
fn room(conn: &Conn) -> usize {
    STREAM_BYTES_MAX.saturating_sub(conn.output().len())
}

/// The address as events show it. With only one address, the start event has named it.
fn shown_address(addresses: Addresses, address: IpAddr) -> Option<IpAddr> {
    match addresses {
        Addresses::First => None,
        Addresses::All => Some(address),
    }
}

/// The answer to a scan that has ended.
#[derive(Debug)]
pub(super) struct ScanAnswer {
    pub(super) form: Form,
    /// The part that was written while the scan ran; `None` if the end is the whole answer.
    pub(super) stream: Option<ScanStream>,
    /// The last event, or the whole answer.
    pub(super) end: EndWriter<'static>,
}

/// An answer whose scan has ended, and that is not completely delivered yet.
#[derive(Debug)]
pub(super) struct PendingAnswer {
    answer: ScanAnswer,
}

impl PendingAnswer {
    /// The rest of an answer. The record of what was delivered is dropped, because it is no longer
    /// needed.
    pub(super) fn new(mut answer: ScanAnswer) -> Self {
        let delivered = answer.stream.iter_mut().flat_map(|stream| &mut stream.delivered);
        delivered.for_each(Delivered::forget_delivered);
        Self { answer }
    }

    /// Begins the delivery. A stream has already begun.
    pub(super) fn begin(&self, now: Instant, conn: &mut Conn, names: &Names, date: &str) {
        let ScanAnswer { form, stream, end } = &self.answer;
        if stream.is_none() {
            let mut response = api::scan_response(*form, Vec::new());
            response.fields.extend_from_slice(end.fields());
            conn.begin_stream(now, &response, Some(end.len(names) as u64), date);
        }
    }

    /// Writes as much as the buffer has space for. Returns whether everything is written.
    pub(super) fn write(&mut self, now: Instant, conn: &mut Conn, names: &Names) -> bool {
        loop {
            let room = room(conn);
            if room < STREAM_ROOM_MIN {
                return false;
            }
            let text = self.take(room, names);
            if text.is_empty() {
                return true;
            }
            conn.push_stream(now, &text);
        }
    }

    /// The number of bytes of memory that the rest occupies.
    pub(super) fn kept_bytes(&self) -> usize {
        let delivered = self.answer.stream.iter().flat_map(|stream| &stream.delivered);
        delivered.map(Delivered::kept_bytes).sum::<usize>() + self.answer.end.kept_bytes()
    }

    /// The next bytes: as much as fits into `room` bytes, exceeding them by at most one event, port
    /// or range. Empty if everything is written.
    fn take(&mut self, room: usize, names: &Names) -> Vec<u8> {
        let ScanAnswer { stream, end, .. } = &mut self.answer;
        let mut text = stream.as_mut().map_or_else(Vec::new, |it| it.take_deferred(room));
        let room = room.saturating_sub(text.len());
        end.write(&mut text, room, names);
        text
    }
}

#[cfg(test)]
mod tests {

    use super::*;
    use crate::core::Core;
    use crate::core::fixtures::{core, is_scanning, pending_bytes};
    use crate::event::{Action, Backlog, Event, Outcome, RouteResult};
    use crate::limits::READ_BYTES_MAX;
    use crate::port_set::PortSet;
    use crate::slots::Key;

    const KB: usize = 1024;

    /// Ticks of the loop until the client's scan has ended. The client does not read; odd ports are
    /// open.
    fn scan_all(core: &mut Core, client: Key, mut now: Instant) {
        while is_scanning(core, client) {
            match core.poll_action(now) {
                Action::Probe { probe, to, .. } => {
                    let is_open = to.port() % 2 == 1;
                    let outcome = if is_open { Outcome::Connected } else { Outcome::Refused };
                    core.handle(Event::Probe { probe, outcome }, now);
                }
                Action::FindRoute { request, to } => {
                    let route = RouteResult::From(to.ip());
                    core.handle(Event::Route { request, to, route }, now);
                }
                Action::Attend(_)
                | Action::Forget { .. }
                | Action::Close { .. }
                | Action::Log(_) => {}
                Action::Yield | Action::Wait(_) => {
                    now += Duration::from_millis(1);
                    let worked = Duration::ZERO;
                    core.handle(Event::Tick { worked, backlog: Backlog::None }, now);
                }
                other @ (Action::ShutdownWrite(_)
                | Action::Connect { .. }
                | Action::ReadLocalDrops
                | Action::ReadTokenFile
                | Action::ReadProcessFiles
                | Action::ReadNameFiles
                | Action::CloseListeners
                | Action::ShowProgress(_)
                | Action::Exit(_)) => panic!("unexpected action {other:?}"),
            }
            let waiting = core.output(client).len();
            assert!(waiting < STREAM_BYTES_MAX + KB, "{waiting}");
        }
    }

    /// All bytes that are sent to a reader that takes [`READ_BYTES_MAX`] bytes at a time.
    fn read_all(core: &mut Core, client: Key, now: Instant) -> Vec<u8> {
        let mut delivered = Vec::new();
        while !core.output(client).is_empty() {
            let output = core.output(client);
            let count = output.len().min(READ_BYTES_MAX);
            assert!(output.len() < STREAM_BYTES_MAX + KB, "{}", output.len());
            delivered.extend_from_slice(&output[..count]);
            core.handle(Event::Sent { socket: client, count }, now);
        }
        delivered
    }

    /// Regression: the end was written in one piece, which cost 400 KB for a reader that had
    /// stopped.
    #[test]
    fn a_reader_that_stops_costs_a_buffer_and_five_sets_and_misses_no_port() {
        let (mut core, now) = (core(1), Instant::now());
        let client = core.handle_accepted(None, now);
        let target = "/open-ports?domain=127.0.0.1&ports=1-&include=closed,filtered,unreachable";
        // The body ends with the connection, so that no chunk boundary is within a line.
        let request = format!("GET {target} HTTP/1.0\r\nAccept: application/x-ndjson\r\n\r\n");
        core.handle(Event::Received { socket: client, bytes: request.as_bytes() }, now);
        scan_all(&mut core, client, now);
        let waiting = pending_bytes(&core, client);
        assert!(waiting > 3 * 8 * KB, "two sets at the end, and one to be delivered: {waiting}");
        assert!(waiting < STREAM_BYTES_MAX + 5 * 8 * KB + 2 * KB, "{waiting}");

        let delivered = String::from_utf8(read_all(&mut core, client, now)).expect("text");
        let (_, body) = delivered.split_once("\r\n\r\n").expect("a head");
        let mut open = PortSet::new();
        let mut lines = body.lines().peekable();
        while let Some(line) = lines.next() {
            let event: serde_json::Value = serde_json::from_str(line).expect("JSON");
            match event["event"].as_str() {
                Some("open") => {
                    let port = event["port"].as_u64().expect("a port");
                    assert!(open.insert(port as u16), "{port} is delivered twice");
                }
                Some("end") => {
                    let ports = event["open_ports"].as_array().expect("a list");
                    assert!(ports.iter().filter_map(|port| port.as_u64()).eq(all(&open)));
                    let closed = event["closed_ports"].as_str().expect("ranges");
                    assert_eq!(PortSet::parse(closed).expect("ranges").len(), 32_767);
                    assert_eq!(lines.peek(), None, "nothing follows the end");
                }
                Some("start" | "progress") => {}
                other => panic!("{other:?} is not an event"),
            }
        }
        assert_eq!(open.len(), 32_768);
    }

    /// Regression: an answer of 400 KB was kept as text.
    #[test]
    fn a_reader_of_a_whole_answer_costs_no_more_and_gets_its_length() {
        for (form, include) in [("application/json", "&include=closed"), ("text/plain", "")] {
            let (mut core, now) = (core(1), Instant::now());
            let client = core.handle_accepted(None, now);
            let target = format!("/open-ports?domain=127.0.0.1&ports=1-{include}");
            let request =
                format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nAccept: {form}\r\n\r\n");
            core.handle(Event::Received { socket: client, bytes: request.as_bytes() }, now);
            scan_all(&mut core, client, now);
            let waiting = pending_bytes(&core, client);
            assert!(waiting < STREAM_BYTES_MAX + 2 * 8 * KB + 2 * KB, "{waiting}");

            let delivered = String::from_utf8(read_all(&mut core, client, now)).expect("text");
            let (head, body) = delivered.split_once("\r\n\r\n").expect("a head");
            assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{head}");
            let ports: Vec<u64> = match form {
                "text/plain" => body.lines().filter_map(|line| line.parse().ok()).collect(),
                _ => {
                    let summary: serde_json::Value = serde_json::from_str(body).expect("JSON");
                    serde_json::from_value(summary["open_ports"].clone()).expect("ports")
                }
            };
            assert!(ports.into_iter().eq((1..=65_535).step_by(2)), "{form}");
            let again = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
            core.handle(Event::Received { socket: client, bytes: again }, now);
            assert!(core.output(client).starts_with(b"HTTP/1.1 200"), "the connection persists");
        }
    }

    fn all(ports: &PortSet) -> impl Iterator<Item = u64> + '_ {
        ports.iter().map(u64::from)
    }
}
