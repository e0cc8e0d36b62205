//! Answers that are written while their scan runs.
//!
//! A stream tells its start, each open port as it is found, how far the scan is (at most five
//! times a second) with the ports that came into a state since, and its end. A reader that does
//! not keep up misses progress, never a port. What it is not told is kept as sets of ports, not as
//! text: it costs a buffer for [`STREAM_BYTES_MAX`], at most 24 KB, and for each address four sets
//! of 8 KB at most while the scan runs, and five behind it. That is 64 KB where one is scanned.
//! An answer that is no stream is told in the same way, once its scan has ended.

mod told;

use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::clients::{Activity, Client};
use super::jobs::Owner;
use super::{Role, Service};
use crate::api;
use crate::api::accept::Form;
use crate::api::answer::{Progress, ScanEvent, write_event};
use crate::api::ending::Ending;
use crate::api::query::Addresses;
use crate::conn::Conn;
use crate::limits::STREAM_BYTES_MAX;
use crate::names::Names;
use crate::scan::Scan;
use crate::slots::Key;
use told::Told;

/// Between two tellings of progress: at most five a second.
const PROGRESS_EVERY: Duration = Duration::from_millis(200);
/// Room below which a slow reader is told nothing more: it would be a chunk for each port.
const STREAM_ROOM_MIN: usize = STREAM_BYTES_MAX / 2;

/// An answer that is written while its scan runs.
#[derive(Debug)]
pub(super) struct Stream {
    form: Form,
    /// No progress is told before.
    pub(super) progress_at: Instant,
    /// With `addresses=all` ports are told with their address.
    addresses: Addresses,
    /// What the reader knows of each address, in the order of the job's scans.
    told: Vec<Told>,
}

impl Stream {
    /// Open ports that a slow reader has not been told of, as events: as many as `room` bytes
    /// hold, and one more.
    fn take_withheld(&mut self, room: usize) -> Vec<u8> {
        let mut text = Vec::new();
        for told in &mut self.told {
            if text.len() >= room {
                break;
            }
            let address = whose(self.addresses, told.address);
            told.take_withheld(|port| {
                let event = ScanEvent::Open { port, rtt: None, address };
                write_event(&mut text, self.form, &event);
                text.len() < room
            });
        }
        text
    }

    /// Progress, with as many ranges as `room` bytes hold: one event, or one for each address
    /// that has news.
    fn write_progress<'a>(
        &mut self,
        out: &mut Vec<u8>,
        progress: Progress<'_>,
        room: usize,
        scans: impl Iterator<Item = &'a Scan>,
    ) {
        let (len_before, mut room) = (out.len(), room);
        for (told, scan) in self.told.iter_mut().zip(scans) {
            let news = told.take_news(scan, &mut room);
            if !news.is_empty() {
                let [closed, filtered, unreachable] = news.ranges();
                let address = whose(self.addresses, told.address);
                let of_address = Progress { closed, filtered, unreachable, address, ..progress };
                write_event(out, self.form, &ScanEvent::Progress(of_address));
            }
        }
        if out.len() == len_before {
            write_event(out, self.form, &ScanEvent::Progress(progress));
        }
    }
}

/// The address as events tell it: where there is but one, the start has told it.
fn whose(addresses: Addresses, address: IpAddr) -> Option<IpAddr> {
    match addresses {
        Addresses::First => None,
        Addresses::All => Some(address),
    }
}

/// An answer whose scan has ended, and whose reader has yet to be told all of it.
#[derive(Debug)]
pub(super) struct Telling {
    /// What a stream has kept; `None` where the end is all of the answer.
    stream: Option<Stream>,
    /// The last event, or the answer.
    end: Ending<'static>,
}

impl Telling {
    /// What is left of `stream`, and its end; or an answer as a whole.
    pub(super) fn new(mut stream: Option<Stream>, end: Ending<'static>) -> Self {
        let told = stream.iter_mut().flat_map(|stream| &mut stream.told);
        told.for_each(Told::forget_told);
        Self { stream, end }
    }

    /// Bytes of memory that are kept for what is left.
    pub(super) fn kept_bytes(&self) -> usize {
        let told = self.stream.iter().flat_map(|stream| &stream.told);
        told.map(Told::kept_bytes).sum::<usize>() + self.end.kept_bytes()
    }

    /// What comes next, as much as `room` bytes hold, and one event, port or range more at most;
    /// nothing if all is told.
    fn take(&mut self, room: usize, names: &Names) -> Vec<u8> {
        let mut text = self.stream.as_mut().map_or_else(Vec::new, |it| it.take_withheld(room));
        let room = room.saturating_sub(text.len());
        self.end.write(&mut text, room, names);
        text
    }
}

impl Service {
    /// The connection and the stream of a job's owner, if its answer is one.
    fn stream(&mut self, job: Key) -> Option<(Key, &mut Conn, &mut Stream)> {
        let Owner::Client(owner) = self.jobs.job(job)?.owner else { return None };
        let Client { conn, activity, .. } = self.client(owner)?;
        match activity {
            Activity::Scanning(scanning) if scanning.job == job => {
                scanning.stream.as_mut().map(|stream| (owner, conn, stream))
            }
            Activity::Scanning(_)
            | Activity::Telling(_)
            | Activity::Authorizing(_)
            | Activity::Waiting => None,
        }
    }

    /// Scans run: a stream begins.
    pub(super) fn on_began(&mut self, now: Instant, key: Key) {
        let Some(job) = self.jobs.job(key) else { return };
        let Owner::Client(owner) = job.owner else { return };
        let (form, addresses, include) =
            (job.request.form, job.request.addresses, job.request.include);
        let Some(address) = self.jobs.scans(key).next().map(|scan| scan.target().ip()) else {
            return;
        };
        if !form.is_streamed() {
            return;
        }
        let total = self.jobs.scans(key).map(|scan| scan.counts().total()).sum();
        let mut text = Vec::new();
        let ports = Some(&job.request.ports);
        let start = ScanEvent::Start { domain: &job.request.domain, address, total, ports };
        write_event(&mut text, form, &start);
        let told =
            self.jobs.scans(key).map(|scan| Told::new(scan.target().ip(), include)).collect();
        let Some(Role::Client(client)) = self.sockets.get_mut(owner) else { return };
        let Activity::Scanning(scanning) = &mut client.activity else { return };
        let response = api::scan_response(form, Vec::new());
        client.conn.begin_stream(now, &response, None, &self.date.1);
        client.conn.push_stream(now, &text);
        let progress_at = now + PROGRESS_EVERY;
        scanning.stream = Some(Stream { form, progress_at, addresses, told });
        self.serve(now, owner);
    }

    /// An open port: told at once where the answer is a stream and its reader keeps up.
    pub(super) fn on_open(&mut self, now: Instant, job: Key, found: (IpAddr, u16, Duration)) {
        let (address, port, rtt) = found;
        let Some((owner, conn, stream)) = self.stream(job) else { return };
        if conn.output().len() >= STREAM_BYTES_MAX {
            if let Some(told) = stream.told.iter_mut().find(|told| told.address == address) {
                told.withhold(port);
            }
            return;
        }
        let mut text = Vec::new();
        let address = whose(stream.addresses, address);
        let event = ScanEvent::Open { port, rtt: Some(rtt), address };
        write_event(&mut text, stream.form, &event);
        conn.push_stream(now, &text);
        self.serve(now, owner);
    }

    /// Answers with the end of a scan: the last event of a stream, or the answer as a whole. Both
    /// are told as the reader keeps up; [`Service::serve`] begins.
    pub(super) fn tell(
        &mut self,
        now: Instant,
        owner: Key,
        (form, stream): (Form, Option<Stream>),
        end: Ending<'static>,
    ) {
        let (is_whole, len) = (stream.is_none(), end.len(&self.options.names) as u64);
        let telling = Telling::new(stream, end);
        self.make_room(now, telling.kept_bytes());
        let Some(Role::Client(client)) = self.sockets.get_mut(owner) else { return };
        if is_whole {
            let response = api::scan_response(form, Vec::new());
            client.conn.begin_stream(now, &response, Some(len), &self.date.1);
        }
        client.activity = Activity::Telling(Box::new(telling));
    }

    /// Tells a client what is kept for it, as far as it keeps up: of a stream open ports, and once
    /// the scan has ended all the rest.
    pub(super) fn tell_untold(&mut self, now: Instant, key: Key) {
        let Some(Role::Client(client)) = self.sockets.get_mut(key) else { return };
        let Client { conn, activity, .. } = client.as_mut();
        loop {
            let room = STREAM_BYTES_MAX.saturating_sub(conn.output().len());
            if room < STREAM_ROOM_MIN {
                return;
            }
            let text = match activity {
                Activity::Scanning(scanning) => match &mut scanning.stream {
                    Some(stream) => stream.take_withheld(room),
                    None => return,
                },
                Activity::Telling(telling) => telling.take(room, &self.options.names),
                Activity::Authorizing(_) | Activity::Waiting => return,
            };
            if text.is_empty() {
                break;
            }
            conn.push_stream(now, &text);
        }
        if matches!(activity, Activity::Telling(_)) {
            conn.end_stream(now);
            *activity = Activity::Waiting;
        }
    }

    /// Tells what was withheld, and progress, as far as the reader keeps up.
    pub(super) fn on_stream_due(&mut self, now: Instant, key: Key) {
        let Some(Role::Client(client)) = self.sockets.get_mut(key) else { return };
        let Activity::Scanning(scanning) = &mut client.activity else { return };
        let Some(stream) = &mut scanning.stream else { return };
        if stream.progress_at > now {
            return;
        }
        stream.progress_at = now + PROGRESS_EVERY;
        let room = STREAM_BYTES_MAX.saturating_sub(client.conn.output().len());
        if room < STREAM_ROOM_MIN {
            return;
        }
        let mut progress = Progress::default();
        for counts in self.jobs.scans(scanning.job).map(Scan::counts) {
            progress.total += counts.total();
            progress.done += counts.total() - counts.untested;
            progress.open += counts.open;
        }
        let mut text = stream.take_withheld(room);
        let room = room.saturating_sub(text.len());
        stream.write_progress(&mut text, progress, room, self.jobs.scans(scanning.job));
        client.conn.push_stream(now, &text);
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::super::crowd::tests::service;
    use super::*;
    use crate::event::{Action, Event, Outcome, Route};
    use crate::limits::READ_BYTES_MAX;
    use crate::target::PortSet;

    const KB: usize = 1024;

    /// Turns of the loop until the client's scan has ended. Nobody reads; odd ports are open.
    fn scan_all(service: &mut Service, client: Key, mut now: Instant) {
        while service.is_scanning(client) {
            match service.poll_action(now) {
                Action::Connect { socket, to, .. } => {
                    let is_open = to.port() % 2 == 1;
                    let outcome = if is_open { Outcome::Connected } else { Outcome::Refused };
                    service.handle(Event::Connect { socket, outcome }, now);
                }
                Action::FindRoute { request, to } => {
                    let route = Route::From(to.ip());
                    service.handle(Event::Route { request, to, route }, now);
                }
                Action::Attend(_) | Action::Close { .. } | Action::Log(_) => {}
                Action::Yield | Action::Wait(_) => {
                    now += Duration::from_millis(1);
                    let (wall, worked) = (SystemTime::UNIX_EPOCH, Duration::ZERO);
                    service.handle(Event::Tick { wall, worked }, now);
                }
                other @ (Action::ShutdownWrite(_)
                | Action::ReadTokenFile
                | Action::ReadNameFiles
                | Action::CloseListeners
                | Action::ShowProgress(_)
                | Action::Exit(_)) => panic!("nobody asked for {other:?}"),
            }
            let waiting = service.output(client).len();
            assert!(waiting < STREAM_BYTES_MAX + KB, "{waiting}");
        }
    }

    /// All that is told to a reader who takes so many bytes at a time.
    fn read_all(service: &mut Service, client: Key, now: Instant) -> Vec<u8> {
        let mut told = Vec::new();
        while !service.output(client).is_empty() {
            let output = service.output(client);
            let count = output.len().min(READ_BYTES_MAX);
            assert!(output.len() < STREAM_BYTES_MAX + KB, "{}", output.len());
            told.extend_from_slice(&output[..count]);
            service.handle(Event::Sent { socket: client, count }, now);
        }
        told
    }

    /// The end was written in one piece, which cost a reader that had stopped 400 KB.
    #[test]
    fn a_reader_that_stops_costs_a_buffer_and_five_sets_and_misses_no_port() {
        let (mut service, now) = (service(1), Instant::now());
        let client = service.handle_accepted(None, now);
        let target = "/open-ports?domain=127.0.0.1&ports=1-&include=closed,filtered,unreachable";
        // To the close, so that no chunk stands within a line.
        let request = format!("GET {target} HTTP/1.0\r\nAccept: application/x-ndjson\r\n\r\n");
        service.handle(Event::Received { socket: client, bytes: request.as_bytes() }, now);
        scan_all(&mut service, client, now);
        let waiting = service.client(client).map_or(0, |client| client.waiting_len());
        assert!(waiting > 3 * 8 * KB, "two sets at the end, and one to be told: {waiting}");
        assert!(waiting < STREAM_BYTES_MAX + 5 * 8 * KB + 2 * KB, "{waiting}");

        let told = String::from_utf8(read_all(&mut service, client, now)).expect("text");
        let (_, body) = told.split_once("\r\n\r\n").expect("a head");
        let mut open = PortSet::new();
        let mut lines = body.lines().peekable();
        while let Some(line) = lines.next() {
            let event: serde_json::Value = serde_json::from_str(line).expect("JSON");
            match event["event"].as_str() {
                Some("open") => {
                    let port = event["port"].as_u64().expect("a port");
                    assert!(open.insert(port as u16), "{port} is told twice");
                }
                Some("end") => {
                    let ports = event["open_ports"].as_array().expect("a list");
                    assert!(ports.iter().filter_map(|port| port.as_u64()).eq(all(&open)));
                    let closed = event["closed_ports"].as_str().expect("ranges");
                    assert_eq!(PortSet::parse(closed).expect("ranges").len(), 32_767);
                    assert_eq!(lines.peek(), None, "nothing follows the end");
                }
                Some("start" | "progress") => {}
                other => panic!("{other:?} is no event"),
            }
        }
        assert_eq!(open.len(), 32_768);
    }

    /// An answer of 400 KB waited as text.
    #[test]
    fn a_reader_of_a_whole_answer_costs_no_more_and_is_told_its_length() {
        for (form, include) in [("application/json", "&include=closed"), ("text/plain", "")] {
            let (mut service, now) = (service(1), Instant::now());
            let client = service.handle_accepted(None, now);
            let target = format!("/open-ports?domain=127.0.0.1&ports=1-{include}");
            let request =
                format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nAccept: {form}\r\n\r\n");
            service.handle(Event::Received { socket: client, bytes: request.as_bytes() }, now);
            scan_all(&mut service, client, now);
            let waiting = service.client(client).map_or(0, |client| client.waiting_len());
            assert!(waiting < STREAM_BYTES_MAX + 2 * 8 * KB + 2 * KB, "{waiting}");

            let told = String::from_utf8(read_all(&mut service, client, now)).expect("text");
            let (head, body) = told.split_once("\r\n\r\n").expect("a head");
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
            service.handle(Event::Received { socket: client, bytes: again }, now);
            assert!(service.output(client).starts_with(b"HTTP/1.1 200"), "it lives on");
        }
    }

    fn all(ports: &PortSet) -> impl Iterator<Item = u64> + '_ {
        ports.iter().map(u64::from)
    }
}
