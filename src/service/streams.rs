//! Answers that are written while their scan runs.
//!
//! A stream tells its start, each open port as it is found, how far the scan is (at most five
//! times a second) with the ports that came into a state since, and its end. A reader that does
//! not keep up misses progress, never a port, and costs no more than [`STREAM_BYTES_MAX`] and four
//! sets of ports for each address while its scan runs. The end is written in one piece, as long as
//! it is, and waits beside them.

mod told;

use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::clients::{Activity, Client};
use super::jobs::Owner;
use super::{Role, Service};
use crate::api;
use crate::api::accept::Form;
use crate::api::answer::{Progress, ScanEvent, write_event};
use crate::api::query::Addresses;
use crate::conn::Conn;
use crate::limits;
use crate::scan::Scan;
use crate::slots::Key;
use told::Told;

/// Between two tellings of progress: at most five a second.
const PROGRESS_EVERY: Duration = Duration::from_millis(200);
/// Output that waits for a slow reader, beyond which a stream tells no more progress. A buffer
/// doubles when it grows: with one event more, and their framing, this fits into half.
const STREAM_BYTES_MAX: usize = limits::OUTPUT_BYTES_MAX * 3 / 8;
/// Bytes of ranges in one telling of progress; what does not fit is told the next time. Every
/// other port closed is 190 KB of text, a millisecond for the loop if it were told at once.
const RANGES_BYTES_MAX: usize = limits::OUTPUT_BYTES_MAX / 4;

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
            while text.len() < room
                && let Some(port) = told.take_withheld()
            {
                let address = whose(self.addresses, told.address);
                let event = ScanEvent::Open { port, rtt: None, address };
                write_event(&mut text, self.form, &event);
            }
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

    fn is_told(&self) -> bool {
        self.told.iter().all(|told| !told.has_withheld())
    }
}

/// The address as events tell it: where there is but one, the start has told it.
fn whose(addresses: Addresses, address: IpAddr) -> Option<IpAddr> {
    match addresses {
        Addresses::First => None,
        Addresses::All => Some(address),
    }
}

/// A stream whose scan has ended, and whose reader has yet to be told all of it.
#[derive(Debug)]
pub(super) struct Telling {
    stream: Stream,
    /// The last event.
    end: Box<[u8]>,
}

impl Telling {
    /// What is left of `stream`, and its end.
    pub(super) fn new(stream: Stream, end: Vec<u8>) -> Self {
        // It may wait for long, and grew by doubling.
        Self { stream, end: end.into() }
    }

    /// Bytes of the last event.
    pub(super) const fn end_len(&self) -> usize {
        self.end.len()
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
        client.conn.begin_stream(now, &api::scan_response(form, Vec::new()), &self.date.1);
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

    /// Tells the rest of a stream whose scan has ended, as far as the reader keeps up.
    pub(super) fn tell_rest(&mut self, now: Instant, key: Key) {
        let Some(Client { conn, activity, .. }) = self.client(key) else { return };
        let Activity::Telling(telling) = activity else { return };
        let room = STREAM_BYTES_MAX.saturating_sub(conn.output().len());
        if room == 0 {
            return;
        }
        conn.push_stream(now, &telling.stream.take_withheld(room));
        if telling.stream.is_told() {
            conn.push_stream(now, &telling.end);
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
        if room == 0 {
            return;
        }
        let mut progress = Progress::default();
        for counts in self.jobs.scans(scanning.job).map(Scan::counts) {
            progress.total += counts.total();
            progress.done += counts.total() - counts.untested;
            progress.open += counts.open;
        }
        let mut text = stream.take_withheld(room);
        let room = room.saturating_sub(text.len()).min(RANGES_BYTES_MAX);
        stream.write_progress(&mut text, progress, room, self.jobs.scans(scanning.job));
        client.conn.push_stream(now, &text);
    }
}
