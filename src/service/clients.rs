//! What happens on a client's connection: requests in, answers out, one at a time.
//!
//! The second half of the service's implementation: admission, the routes, the answer to a scan
//! as a whole or as a stream, and what a client's leaving means. A request that is answered at
//! once is answered even to a half-closed client; a scan ends with its client.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use super::answers::{Outcome, failure_problem};
use super::jobs::{Failure, Job};
use super::{Phase, Role, Service};
use crate::api::accept::Form;
use crate::api::answer::{ScanEvent, write_event};
use crate::api::problem::{Cause, Problem, problem_response, sentence};
use crate::api::query::ScanRequest;
use crate::api::{self, Command, Route};
use crate::conn::{Conn, Step};
use crate::event::{Action, Parting};
use crate::http::{Field, Method, Request, Response};
use crate::limits;
use crate::policy::clients::{BrowserHeaders, Share};
use crate::report::log::{Level, Record};
use crate::scan::Scan;
use crate::slots::Key;
use crate::target::PortSet;

/// One client's connection.
#[derive(Debug)]
pub struct Client {
    /// The protocol.
    pub(super) conn: Conn,
    peer: Option<SocketAddr>,
    heard_at: Instant,
    activity: Activity,
}

#[derive(Debug)]
enum Activity {
    /// No request is being answered. The connection's own deadlines are armed.
    Waiting,
    /// A scan runs for the request. Its job's deadlines are armed; its end, or the client's,
    /// leaves it.
    Scanning(Box<Scanning>),
}

#[derive(Debug)]
struct Scanning {
    job: Key,
    share: Share,
    exchange: Exchange,
    stream: Option<Stream>,
}

/// A request that is being answered, as far as the access record tells of it.
#[derive(Debug)]
struct Exchange {
    method: Method,
    route: &'static str,
    began_at: Instant,
}

/// An answer that is written while its scan runs.
#[derive(Debug)]
struct Stream {
    form: Form,
    /// No progress is told before.
    progress_at: Instant,
    /// Open ports found while the reader was slow: told as soon as it reads on. They cost 8 KB
    /// however many they are.
    withheld: PortSet,
}

/// Between two tellings of progress: at most five a second.
const PROGRESS_EVERY: Duration = Duration::from_millis(200);
/// When a refused client may come back.
pub(super) const RETRY_AFTER: Duration = Duration::from_secs(1);
/// When a client may find another replica in the place of one that shuts down.
const RETRY_AFTER_DRAIN: Duration = Duration::from_secs(5);
/// Output that waits for a slow reader, beyond which a stream tells no more progress.
const STREAM_BYTES_MAX: usize = limits::OUTPUT_BYTES_MAX / 2;

impl Client {
    /// A client that has said nothing yet; `None` for a peer without an internet address.
    pub(super) fn new(now: Instant, peer: Option<SocketAddr>) -> Self {
        Self { conn: Conn::new(now), peer, heard_at: now, activity: Activity::Waiting }
    }

    /// Bytes came.
    pub(super) fn handle_received(&mut self, now: Instant, bytes: &[u8]) {
        self.heard_at = now;
        self.conn.handle_received(now, bytes);
    }

    /// Who the client is for quotas and records; peers without an address are one client.
    fn address(&self) -> IpAddr {
        self.peer.map_or(Ipv4Addr::UNSPECIFIED.into(), |peer| peer.ip().to_canonical())
    }

    /// When a stream's next progress is told.
    fn progress_at(&self) -> Option<Instant> {
        match &self.activity {
            Activity::Scanning(scanning) => scanning.stream.as_ref().map(|it| it.progress_at),
            Activity::Waiting => None,
        }
    }

    /// Since when the client has said nothing, if nothing is owed to it.
    pub(super) fn quiet_since(&self) -> Option<Instant> {
        (self.is_waiting() && self.conn.output().is_empty()).then_some(self.heard_at)
    }

    const fn is_waiting(&self) -> bool {
        matches!(self.activity, Activity::Waiting)
    }
}

impl Service {
    /// Does what the connection has to be done: answers requests, says goodbye, closes.
    pub(super) fn serve(&mut self, now: Instant, key: Key) {
        while let Some(step) = self.client(key).and_then(|client| client.conn.poll_step(now)) {
            match step {
                Step::Request(request) => self.on_request(now, key, &request),
                Step::Refuse(refusal) => {
                    let (method, route) = (Method::Other, refusal.label());
                    let exchange = Exchange { method, route, began_at: now };
                    self.respond(now, key, (exchange, Err(Problem::from_refusal(refusal))));
                }
                Step::ShutdownWrite => self.actions.push_back(Action::ShutdownWrite(key)),
                Step::Close(reason) => return self.drop_client(now, key, reason.label()),
            }
        }
        let Some(client) = self.client(key) else { return };
        let (deadline, has_output) = (client.conn.deadline(), !client.conn.output().is_empty());
        let wants_bytes = client.conn.bytes_wanted() > 0;
        let progress = client.progress_at();
        self.timers.set(key, deadline.into_iter().chain(progress).min());
        if has_output || wants_bytes {
            self.actions.push_back(Action::Attend(key));
        }
    }

    fn client(&mut self, key: Key) -> Option<&mut Client> {
        match self.sockets.get_mut(key) {
            Some(Role::Client(client)) => Some(client),
            Some(Role::Probe { .. } | Role::Lookup { .. } | Role::Reserved | Role::Closing)
            | None => None,
        }
    }

    fn client_address(&mut self, key: Key) -> IpAddr {
        self.client(key).map_or(Ipv4Addr::UNSPECIFIED.into(), |client| client.address())
    }

    /// True exactly when a scan runs for this client.
    pub(super) fn is_scanning(&mut self, key: Key) -> bool {
        self.client(key).is_some_and(|client| matches!(client.activity, Activity::Scanning(_)))
    }

    fn on_request(&mut self, now: Instant, key: Key, request: &Request) {
        let exchange = Exchange {
            method: request.method,
            route: Route::of(request.path()).label(),
            began_at: now,
        };
        let answered = match api::parse(request, &self.options.settings) {
            Ok(Command::Scan(scan)) => match self.admit(key, request) {
                Ok(share) => return self.start(now, key, scan, (exchange, share)),
                Err(problem) => Err(problem),
            },
            Ok(Command::CheckScan(scan)) => {
                self.check_site(request).map(|()| api::scan_response(scan.form, Vec::new()))
            }
            Ok(Command::Healthz) => Ok(api::ok()),
            Ok(Command::Readyz) => self.readiness(),
            Ok(Command::Metrics) => Ok(api::metrics(self.counters.render(&self.gauges()))),
            Ok(Command::OpenApi) => Ok(api::openapi()),
            Ok(Command::Help) => Ok(api::help(request.field(Field::Host))),
            Ok(Command::Options { allow }) => Ok(api::options(allow)),
            Err(problem) => Err(problem),
        };
        self.respond(now, key, (exchange, answered));
    }

    /// Refuses pages of other sites and foreign names, before anything is scanned for them.
    fn check_site(&self, request: &Request) -> Result<(), Problem> {
        let browser = BrowserHeaders {
            sec_fetch_site: request.field(Field::SecFetchSite),
            origin: request.field(Field::Origin),
            host: request.field(Field::Host),
        };
        browser.verdict().map_err(|denial| Problem::new(Cause::TargetDenied, sentence(&denial)))?;
        self.options
            .host_guard
            .check(request.field(Field::Host))
            .map_err(|foreign| Problem::new(Cause::ForeignHost, sentence(&foreign)))
    }

    /// Whether there is room for another scan of this client.
    fn admit(&mut self, key: Key, request: &Request) -> Result<Share, Problem> {
        self.check_site(request)?;
        let settings = &self.options.settings;
        let (scans_max, share_max) = (settings.scans_max, settings.scans_per_client_max);
        if matches!(self.phase, Phase::Draining { .. } | Phase::Ended) {
            return Err(Problem::draining(RETRY_AFTER_DRAIN));
        }
        if self.jobs.len() >= scans_max {
            return Err(Problem::overloaded(RETRY_AFTER));
        }
        let client = self.client_address(key);
        self.quota.try_take(client, share_max).ok_or_else(|| Problem::too_many_scans(RETRY_AFTER))
    }

    fn start(
        &mut self,
        now: Instant,
        key: Key,
        request: ScanRequest,
        (exchange, share): (Exchange, Share),
    ) {
        let job = self.jobs.start(now, request, key);
        if let Some(client) = self.client(key) {
            let scanning = Scanning { job, share, exchange, stream: None };
            client.activity = Activity::Scanning(Box::new(scanning));
        }
    }

    /// Whether another scan would be taken in.
    fn readiness(&self) -> Result<Response, Problem> {
        let is_saturated = self.jobs.len() >= self.options.settings.scans_max
            || self.clients_len >= self.options.shares.connections;
        if self.is_draining() {
            Err(Problem::draining(RETRY_AFTER_DRAIN))
        } else if is_saturated {
            Err(Problem::overloaded(RETRY_AFTER))
        } else {
            Ok(api::ready())
        }
    }

    /// Answers the request that the connection handed out, and records it.
    fn respond(&mut self, now: Instant, key: Key, answer: (Exchange, Result<Response, Problem>)) {
        let (exchange, answered) = answer;
        let (response, cause) = match answered {
            Ok(response) => (response, None),
            Err(problem) => (problem_response(&problem), Some(problem.cause())),
        };
        let record = self.access_record(now, key, (&exchange, response.status));
        self.log(&match cause {
            Some(cause) => record.field("cause", cause.label()),
            None => record,
        });
        self.counters.count_request(exchange.route, response.status);
        if let Some(Role::Client(client)) = self.sockets.get_mut(key) {
            client.conn.respond(now, &response, &self.date.1);
        }
    }

    /// One record per request; those that only look after the service are for debugging.
    fn access_record(&mut self, now: Instant, key: Key, said: (&Exchange, u16)) -> Record {
        let (exchange, status) = said;
        let is_check = [Route::Healthz, Route::Readyz, Route::Metrics]
            .iter()
            .any(|route| route.label() == exchange.route);
        let level = if is_check { Level::Debug } else { Level::Info };
        let client = self.client_address(key);
        Record::new(level, "request")
            .field("client", client)
            .field("method", exchange.method.label())
            .field("route", exchange.route)
            .field("status", status)
            .field("elapsed", now - exchange.began_at)
    }

    /// The connection and the stream of a job's owner, if its answer is one.
    fn stream(&mut self, job: Key) -> Option<(Key, &mut Conn, &mut Stream)> {
        let owner = self.jobs.job(job)?.owner;
        let Client { conn, activity, .. } = self.client(owner)?;
        match activity {
            Activity::Scanning(scanning) if scanning.job == job => {
                scanning.stream.as_mut().map(|stream| (owner, conn, stream))
            }
            Activity::Scanning(_) | Activity::Waiting => None,
        }
    }

    /// Scans run: a stream begins.
    pub(super) fn on_began(&mut self, now: Instant, key: Key) {
        let Some(job) = self.jobs.job(key) else { return };
        let (form, owner) = (job.request.form, job.owner);
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

    /// Tells what was withheld, and progress, as far as the reader keeps up.
    fn on_stream_due(&mut self, now: Instant, key: Key) {
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
        if conn.output().len() < STREAM_BYTES_MAX {
            let mut text = stream.take_withheld();
            let progress = ScanEvent::Progress { done, total, open };
            write_event(&mut text, stream.form, &progress);
            conn.push_stream(now, &text);
        }
    }

    /// Every port has its state, or the scan's time is up: the answer, or the stream's end.
    pub(super) fn on_ended(&mut self, now: Instant, key: Key) {
        let Some((job, scans)) = self.jobs.remove(key) else { return };
        let outcome = Outcome::new(now, &job, &scans);
        self.counters.count_scan(if outcome.is_complete() { "complete" } else { "partial" });
        self.counters.add_ports(&outcome.tally());
        let Some(mut scanning) = self.end_activity(job.owner, key) else { return };
        let (exchange, form) = (scanning.exchange, job.request.form);
        let record = self.access_record(now, job.owner, (&exchange, 200));
        self.log(&outcome.describe(record));
        self.counters.count_request(exchange.route, 200);
        if let Some(Role::Client(client)) = self.sockets.get_mut(job.owner) {
            if let Some(stream) = &mut scanning.stream {
                let mut text = stream.take_withheld();
                outcome.write_end(&mut text, form);
                client.conn.push_stream(now, &text);
                client.conn.end_stream(now);
            } else {
                let mut body = Vec::new();
                outcome.write_end(&mut body, form);
                let response = api::scan_response(form, body);
                client.conn.respond(now, &response, &self.date.1);
            }
        }
        self.quota.release(scanning.share);
        self.jobs.abandon(scans);
        self.serve(now, job.owner);
    }

    /// Nothing could be scanned.
    pub(super) fn on_failed(&mut self, now: Instant, key: Key, failure: &Failure) {
        self.fail(now, key, &failure_problem(failure));
    }

    /// Answers a job that came to nothing.
    fn fail(&mut self, now: Instant, key: Key, problem: &Problem) {
        self.resolver.handle_cancel(key);
        let Some((Job { owner, .. }, scans)) = self.jobs.remove(key) else { return };
        assert!(scans.is_empty(), "a job that failed has scanned nothing");
        self.counters.count_scan(problem.cause().label());
        let Some(scanning) = self.end_activity(owner, key) else { return };
        self.quota.release(scanning.share);
        self.respond(now, owner, (scanning.exchange, Err(problem.clone())));
        self.serve(now, owner);
    }

    /// The drain's time is up: every job is answered as it stands.
    pub(super) fn end_jobs(&mut self, now: Instant) {
        for job in self.jobs.keys().collect::<Vec<Key>>() {
            if self.jobs.scans(job).next().is_some() {
                self.jobs.end(now, job);
            } else {
                self.fail(now, job, &Problem::draining(RETRY_AFTER_DRAIN));
            }
        }
        self.pump(now);
    }

    /// The client sends no more. A scan's client that closes is gone for all we can know: the
    /// scan ends. (A half-close after a request that is answered at once is still answered.)
    pub(super) fn on_client_read_closed(&mut self, now: Instant, key: Key) {
        let Some(client) = self.client(key) else { return };
        if !client.is_waiting() {
            return self.drop_client(now, key, "cancelled");
        }
        client.conn.handle_read_closed(now);
        self.serve(now, key);
    }

    /// The connection is gone.
    pub(super) fn on_client_broken(&mut self, now: Instant, key: Key) {
        let is_scanning = self.client(key).is_some_and(|client| !client.is_waiting());
        self.drop_client(now, key, if is_scanning { "cancelled" } else { "broken" });
    }

    /// A deadline of the connection or of its stream is due.
    pub(super) fn on_client_due(&mut self, now: Instant, key: Key) {
        let Some(client) = self.client(key) else { return };
        client.conn.handle_timeout(now);
        self.on_stream_due(now, key);
        self.serve(now, key);
    }

    /// The drain has come to this client: idle it is closed, busy it is told with its answer.
    pub(super) fn drain_client(&mut self, now: Instant, key: Key) {
        if let Some(client) = self.client(key) {
            client.conn.handle_drain(now);
            self.serve(now, key);
        }
    }

    /// Closes a client's connection; a scan that ran for it ends.
    pub(super) fn drop_client(&mut self, now: Instant, key: Key, reason: &'static str) {
        let Some(role @ Role::Client(_)) = self.sockets.get_mut(key) else { return };
        let Role::Client(client) = std::mem::replace(role, Role::Closing) else { return };
        self.clients_len -= 1;
        self.counters.count_closed(reason);
        self.timers.set(key, None);
        self.close(key, Parting::Ordinary);
        if let Activity::Scanning(scanning) = client.activity {
            let job = scanning.job;
            self.quota.release(scanning.share);
            self.resolver.handle_cancel(job);
            self.jobs.end(now, job);
            if let Some((_, scans)) = self.jobs.remove(job) {
                self.counters.count_scan("cancelled");
                self.jobs.abandon(scans);
            }
            let peer = client.peer.map_or(Ipv4Addr::UNSPECIFIED.into(), |peer| peer.ip());
            let elapsed = now - scanning.exchange.began_at;
            let record = Record::new(Level::Info, "cancelled").field("client", peer);
            self.log(&record.field("elapsed", elapsed));
        }
    }

    /// Ends the activity of a job's owner, if it still waits for that job.
    fn end_activity(&mut self, owner: Key, job: Key) -> Option<Scanning> {
        let client = self.client(owner)?;
        match std::mem::replace(&mut client.activity, Activity::Waiting) {
            Activity::Scanning(scanning) if scanning.job == job => Some(*scanning),
            other @ (Activity::Scanning(_) | Activity::Waiting) => {
                client.activity = other;
                None
            }
        }
    }
}

impl Stream {
    /// The open ports that a slow reader has not been told of, as events.
    fn take_withheld(&mut self) -> Vec<u8> {
        let mut text = Vec::new();
        for port in std::mem::take(&mut self.withheld).iter() {
            write_event(&mut text, self.form, &ScanEvent::Open { port, rtt: None });
        }
        text
    }
}
