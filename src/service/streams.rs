//! Answers that are written while their scan runs.
//!
//! A stream tells its start, each open port as it is found, how far the scan is (at most five
//! times a second), and its end. A reader that does not keep up misses progress, never an open
//! port, and never costs more than [`STREAM_BYTES_MAX`] and a set of ports.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::clients::{Activity, Client};
use super::jobs::Owner;
use super::{Role, Service};
use crate::api;
use crate::api::accept::Form;
use crate::api::answer::{ScanEvent, write_event};
use crate::conn::Conn;
use crate::limits;
use crate::scan::Scan;
use crate::slots::Key;
use crate::target::PortSet;

/// Between two tellings of progress: at most five a second.
const PROGRESS_EVERY: Duration = Duration::from_millis(200);
/// Output that waits for a slow reader, beyond which a stream tells no more progress.
const STREAM_BYTES_MAX: usize = limits::OUTPUT_BYTES_MAX / 2;

/// An answer that is written while its scan runs.
#[derive(Debug)]
pub(super) struct Stream {
    form: Form,
    /// No progress is told before.
    pub(super) progress_at: Instant,
    /// Open ports found while the reader was slow: told as soon as it reads on. They cost 8 KB
    /// however many they are.
    withheld: PortSet,
}

impl Stream {
    /// Open ports that a slow reader has not been told of, as events: as many as `room` bytes
    /// hold, and one more.
    fn take_withheld(&mut self, room: usize) -> Vec<u8> {
        let mut text = Vec::new();
        while text.len() < room
            && let Some(port) = self.withheld.first()
        {
            self.withheld.remove(port);
            write_event(&mut text, self.form, &ScanEvent::Open { port, rtt: None });
        }
        text
    }
}

/// A stream whose scan has ended, and whose reader has yet to be told all of it.
#[derive(Debug)]
pub(super) struct Telling {
    stream: Stream,
    /// The last event.
    end: Vec<u8>,
}

impl Telling {
    /// What is left of `stream`, and its end.
    pub(super) const fn new(stream: Stream, end: Vec<u8>) -> Self {
        Self { stream, end }
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
        let form = job.request.form;
        let Some(address) = self.jobs.scans(key).next().map(|scan| scan.target().ip()) else {
            return;
        };
        if !form.is_streamed() {
            return;
        }
        let total = self.jobs.scans(key).map(|scan| scan.counts().total()).sum();
        let mut text = Vec::new();
        let start = ScanEvent::Start { domain: &job.request.domain, address, total };
        write_event(&mut text, form, &start);
        let Some(Role::Client(client)) = self.sockets.get_mut(owner) else { return };
        let Activity::Scanning(scanning) = &mut client.activity else { return };
        client.conn.begin_stream(now, &api::scan_response(form, Vec::new()), &self.date.1);
        client.conn.push_stream(now, &text);
        let progress_at = now + PROGRESS_EVERY;
        scanning.stream = Some(Stream { form, progress_at, withheld: PortSet::new() });
        self.serve(now, owner);
    }

    /// An open port: told at once where the answer is a stream and its reader keeps up.
    pub(super) fn on_open(&mut self, now: Instant, job: Key, found: (IpAddr, u16, Duration)) {
        let (_, port, rtt) = found;
        let Some((owner, conn, stream)) = self.stream(job) else { return };
        if conn.output().len() >= STREAM_BYTES_MAX {
            stream.withheld.insert(port);
            return;
        }
        let mut text = Vec::new();
        let event = ScanEvent::Open { port, rtt: Some(rtt) };
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
        if telling.stream.withheld.is_empty() {
            conn.push_stream(now, &telling.end);
            conn.end_stream(now);
            *activity = Activity::Waiting;
        }
    }

    /// Tells what was withheld, and progress, as far as the reader keeps up.
    pub(super) fn on_stream_due(&mut self, now: Instant, key: Key) {
        let Some(Activity::Scanning(scanning)) = self.client(key).map(|it| &it.activity) else {
            return;
        };
        let job = scanning.job;
        let (total, done, open) = self.jobs.scans(job).map(Scan::counts).fold(
            (0, 0, 0),
            |(total, done, open), counts| {
                let all = counts.total();
                (total + all, done + all - counts.untested, open + counts.open)
            },
        );
        let Some((_, conn, stream)) = self.stream(job) else { return };
        if stream.progress_at > now {
            return;
        }
        stream.progress_at = now + PROGRESS_EVERY;
        let room = STREAM_BYTES_MAX.saturating_sub(conn.output().len());
        if room > 0 {
            let mut text = stream.take_withheld(room);
            let progress = ScanEvent::Progress { done, total, open };
            write_event(&mut text, stream.form, &progress);
            conn.push_stream(now, &text);
        }
    }
}
