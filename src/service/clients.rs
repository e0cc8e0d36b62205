//! What happens on a client's connection: requests in, answers out, one at a time.
//!
//! The second half of the service's implementation: admission, the routes, the answer to a scan
//! as a whole or as a stream, and what a client's leaving means. A request that is answered at
//! once is answered even to a half-closed client; a scan ends with its client.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use super::admission::RETRY_AFTER;
use super::answers::Outcome;
use super::jobs::{Failure, Job, Owner};
use super::streams::{Stream, Telling};
use super::{Role, Service};
use crate::api::page::page_response;
use crate::api::probe::{Probed, probe_response};
use crate::api::problem::{Cause, Problem, problem_response, sentence};
use crate::api::query::ScanRequest;
use crate::api::{self, Command, Route};
use crate::conn::{Conn, Step};
use crate::dns::LookupFailure;
use crate::event::{Action, Parting};
use crate::http::{Field, Method, Request, Response};
use crate::limits::LAG_GRACE;
use crate::policy::clients::Share;
use crate::report::log::{Level, Record};
use crate::slots::Key;
use crate::target::PortSet;

/// One client's connection.
#[derive(Debug)]
pub struct Client {
    /// The protocol.
    pub(super) conn: Conn,
    peer: Option<SocketAddr>,
    pub(super) heard_at: Instant,
    pub(super) activity: Activity,
}

#[derive(Debug)]
pub(super) enum Activity {
    /// No request is being answered. The connection's own deadlines are armed.
    Waiting,
    /// A request waits for the token file to be read. Nothing is armed: the answer comes within
    /// the same drain.
    Authorizing(Box<Request>),
    /// A scan runs for the request. Its job's deadlines are armed; its end, or the client's,
    /// leaves it.
    Scanning(Box<Scanning>),
    /// The scan has ended, but the reader of its answer lags. The connection's stall deadline is
    /// armed; the last byte leaves it.
    Telling(Box<Telling>),
}

#[derive(Debug)]
pub(super) struct Scanning {
    pub(super) job: Key,
    share: Share,
    exchange: Exchange,
    pub(super) stream: Option<Stream>,
}

/// A request that is being answered, as far as the access record tells of it.
#[derive(Debug)]
struct Exchange {
    method: Method,
    route: &'static str,
    began_at: Instant,
    /// Who asked; behind a proxy that is trusted, whom it named.
    client: IpAddr,
    /// For a probe: the ports that should be open, if it says so.
    expect: Option<Option<PortSet>>,
}

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
            Activity::Telling(_) | Activity::Authorizing(_) | Activity::Waiting => None,
        }
    }

    /// The request that waits for the token file, if one does.
    pub(super) fn take_authorizing(&mut self) -> Option<Request> {
        match std::mem::replace(&mut self.activity, Activity::Waiting) {
            Activity::Authorizing(request) => Some(*request),
            other @ (Activity::Scanning(_) | Activity::Telling(_) | Activity::Waiting) => {
                self.activity = other;
                None
            }
        }
    }

    /// Bytes that are kept for it to read.
    pub(super) fn waiting_len(&self) -> usize {
        let untold = match &self.activity {
            Activity::Telling(telling) => telling.kept_bytes(),
            Activity::Waiting | Activity::Authorizing(_) | Activity::Scanning(_) => 0,
        };
        self.conn.output().len() + untold
    }

    /// When it gives way to another, where places are short: so long after it spoke, and later
    /// where it lags; `None` while it is being served.
    pub(super) fn gives_way_at(&self, silence_grace: Duration) -> Option<Instant> {
        match (&self.activity, self.conn.lagging_since()) {
            (Activity::Waiting, None) => Some(self.heard_at + silence_grace),
            (Activity::Waiting | Activity::Telling(_), Some(since)) => Some(since + LAG_GRACE),
            (Activity::Telling(_), None) => None,
            (Activity::Authorizing(_) | Activity::Scanning(_), _) => None,
        }
    }

    pub(super) const fn is_waiting(&self) -> bool {
        matches!(self.activity, Activity::Waiting)
    }
}

impl Service {
    /// Does what the connection has to be done: answers requests, says goodbye, closes.
    pub(super) fn serve(&mut self, now: Instant, key: Key) {
        self.tell_untold(now, key);
        while let Some(step) = self.client(key).and_then(|client| client.conn.poll_step(now)) {
            match step {
                Step::Request(request) => self.on_request(now, key, &request),
                Step::Refuse(refusal) => {
                    let (method, route) = (Method::Other, refusal.label());
                    let client = self.client_address(key);
                    let exchange = Exchange { method, route, began_at: now, client, expect: None };
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

    pub(super) fn client(&mut self, key: Key) -> Option<&mut Client> {
        match self.sockets.get_mut(key) {
            Some(Role::Client(client)) => Some(client),
            Some(Role::Probe { .. } | Role::Lookup { .. } | Role::Reserved | Role::Closing)
            | None => None,
        }
    }

    pub(super) fn client_address(&mut self, key: Key) -> IpAddr {
        self.client(key).map_or(Ipv4Addr::UNSPECIFIED.into(), |client| client.address())
    }

    /// True exactly when a scan runs for this client.
    pub(super) fn is_scanning(&mut self, key: Key) -> bool {
        self.client(key).is_some_and(|client| matches!(client.activity, Activity::Scanning(_)))
    }

    pub(super) fn on_request(&mut self, now: Instant, key: Key, request: &Request) {
        if self.wants_token_file(now, request) {
            if let Some(client) = self.client(key) {
                client.activity = Activity::Authorizing(Box::new(request.clone()));
            }
            return self.actions.push_back(Action::ReadTokenFile);
        }
        let client = self.asker(key, request);
        let exchange = Exchange {
            client,
            method: request.method,
            route: Route::of(request.path()).label(),
            began_at: now,
            expect: None,
        };
        let parsed =
            self.check_token(request).and_then(|()| api::parse(request, &self.options.settings));
        let answered = match parsed {
            Ok(Command::Scan(scan)) => match self.admit(client, request) {
                Ok(share) => return self.start(now, key, scan, (exchange, share)),
                Err(problem) => Err(problem),
            },
            Ok(Command::Probe(probe)) => match self.admit(client, request) {
                Ok(share) => {
                    let exchange = Exchange { expect: Some(probe.expect), ..exchange };
                    return self.start(now, key, probe.scan, (exchange, share));
                }
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
            Ok(Command::Page) => Ok(page_response(request)),
            Ok(Command::Options { allow }) => Ok(api::options(allow)),
            Err(problem) => Err(problem),
        };
        self.respond(now, key, (exchange, answered));
    }

    fn start(
        &mut self,
        now: Instant,
        key: Key,
        request: ScanRequest,
        (exchange, share): (Exchange, Share),
    ) {
        let job = self.jobs.start(now, request, Owner::Client(key));
        if let Some(client) = self.client(key) {
            let scanning = Scanning { job, share, exchange, stream: None };
            client.activity = Activity::Scanning(Box::new(scanning));
        }
    }

    /// Answers the request that the connection handed out, and records it.
    fn respond(&mut self, now: Instant, key: Key, answer: (Exchange, Result<Response, Problem>)) {
        let (exchange, answered) = answer;
        let (response, cause) = match answered {
            Ok(response) => (response, None),
            Err(problem) => (problem_response(&problem), Some(problem.cause())),
        };
        let record = Self::access_record(now, (&exchange, response.status));
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
    fn access_record(now: Instant, said: (&Exchange, u16)) -> Record {
        let (exchange, status) = said;
        let is_check = [Route::Healthz, Route::Readyz, Route::Metrics]
            .iter()
            .any(|route| route.label() == exchange.route);
        let level = if is_check { Level::Debug } else { Level::Info };
        Record::new(level, "request")
            .field("client", exchange.client)
            .field("method", exchange.method.label())
            .field("route", exchange.route)
            .field("status", status)
            .field("elapsed", now - exchange.began_at)
    }

    /// Every port has its state, or the scan's time is up: the answer, or the stream's end.
    pub(super) fn on_ended(&mut self, now: Instant, key: Key) {
        let Some((job, scans)) = self.jobs.remove(key) else { return };
        let Owner::Client(owner) = job.owner else { return };
        let outcome = Outcome::new(now, &job, &scans);
        self.counters.count_scan(if outcome.is_complete() { "complete" } else { "partial" });
        self.counters.add_ports(&outcome.tally());
        let Some(scanning) = self.end_activity(owner, key) else { return };
        let (exchange, form) = (scanning.exchange, job.request.form);
        let record = Self::access_record(now, (&exchange, 200));
        self.log(&outcome.describe(record));
        self.counters.count_request(exchange.route, 200);
        if let Some(expect) = &exchange.expect {
            let response = outcome.probe_response(expect.as_ref());
            self.make_room(now, response.body.len());
            if let Some(Role::Client(client)) = self.sockets.get_mut(owner) {
                client.conn.respond(now, &response, &self.date.1);
            }
        } else {
            let end = outcome.ending(form, &self.options.names);
            self.tell(now, owner, (form, scanning.stream), end);
        }
        self.quota.release(scanning.share);
        self.jobs.abandon(scans);
        self.serve(now, owner);
    }

    /// Nothing could be scanned.
    pub(super) fn on_failed(&mut self, now: Instant, key: Key, failure: &Failure) {
        self.fail(now, key, &failure_problem(failure));
    }

    /// Answers a job that came to nothing.
    pub(super) fn fail(&mut self, now: Instant, key: Key, problem: &Problem) {
        self.resolver.handle_cancel(key);
        let Some((Job { owner, .. }, scans)) = self.jobs.remove(key) else { return };
        let Owner::Client(owner) = owner else { return };
        assert!(scans.is_empty(), "a job that failed has scanned nothing");
        self.counters.count_scan(problem.cause().label());
        let Some(scanning) = self.end_activity(owner, key) else { return };
        self.quota.release(scanning.share);
        let exchange = scanning.exchange;
        // A monitor is told that its target is amiss; only what we refuse is an error.
        let is_unresolved =
            [Cause::UnknownHost, Cause::DnsFailure, Cause::DnsTimeout].contains(&problem.cause());
        let answered = match &exchange.expect {
            Some(expect) if is_unresolved => {
                let elapsed = now - exchange.began_at;
                Ok(probe_response(Probed::Unresolved, expect.as_ref(), elapsed))
            }
            Some(_) | None => Err(problem.clone()),
        };
        self.respond(now, owner, (exchange, answered));
        self.serve(now, owner);
    }

    /// The client sends no more. A scan's client that closes is gone for all we can know: the
    /// scan ends. (A half-close after a request that is answered at once is still answered.)
    pub(super) fn on_client_read_closed(&mut self, now: Instant, key: Key) {
        let Some(client) = self.client(key) else { return };
        if matches!(client.activity, Activity::Scanning(_)) {
            return self.drop_client(now, key, "cancelled");
        }
        client.conn.handle_read_closed(now);
        self.serve(now, key);
    }

    /// The connection is gone.
    pub(super) fn on_client_broken(&mut self, now: Instant, key: Key) {
        let is_scanning = self.is_scanning(key);
        self.drop_client(now, key, if is_scanning { "cancelled" } else { "broken" });
    }

    /// A deadline of the connection or of its stream is due.
    pub(super) fn on_client_due(&mut self, now: Instant, key: Key) {
        let Some(client) = self.client(key) else { return };
        client.conn.handle_timeout(now);
        self.on_stream_due(now, key);
        self.serve(now, key);
    }

    /// Closes a client's connection; a scan that ran for it ends.
    pub(super) fn drop_client(&mut self, now: Instant, key: Key, reason: &'static str) {
        let Some(role @ Role::Client(_)) = self.sockets.get_mut(key) else { return };
        let Role::Client(client) = std::mem::replace(role, Role::Closing) else { return };
        self.clients_len -= 1;
        self.parting_len += 1;
        self.counters.count_closed(reason);
        self.timers.set(key, None);
        self.close(key, Parting::Ordinary);
        if let Activity::Scanning(scanning) = client.activity {
            let job = scanning.job;
            self.quota.release(scanning.share);
            self.resolver.handle_cancel(job);
            self.jobs.end(job);
            if let Some((_, scans)) = self.jobs.remove(job) {
                self.counters.count_scan("cancelled");
                self.jobs.abandon(scans);
            }
            let Exchange { client, began_at, .. } = scanning.exchange;
            let record = Record::new(Level::Info, "cancelled").field("client", client);
            self.log(&record.field("elapsed", now - began_at));
        }
    }

    /// Ends the activity of a job's owner, if it still waits for that job.
    fn end_activity(&mut self, owner: Key, job: Key) -> Option<Scanning> {
        let client = self.client(owner)?;
        match std::mem::replace(&mut client.activity, Activity::Waiting) {
            Activity::Scanning(scanning) if scanning.job == job => Some(*scanning),
            other @ (Activity::Scanning(_)
            | Activity::Telling(_)
            | Activity::Authorizing(_)
            | Activity::Waiting) => {
                client.activity = other;
                None
            }
        }
    }
}

/// Why a job came to nothing, as whoever asked is told.
pub(super) fn failure_problem(failure: &Failure) -> Problem {
    match failure {
        Failure::Lookup(failure) => lookup_problem(*failure),
        Failure::Denied(address, denial) => {
            let detail = format!("The address {address} is not scanned: {denial}.");
            Problem::new(Cause::TargetDenied, detail)
        }
    }
}

fn lookup_problem(failure: LookupFailure) -> Problem {
    let cause = match failure {
        LookupFailure::UnknownHost | LookupFailure::NoAddress => Cause::UnknownHost,
        LookupFailure::ServerFailure | LookupFailure::Unreachable => Cause::DnsFailure,
        LookupFailure::TimedOut => Cause::DnsTimeout,
        LookupFailure::Overloaded => return Problem::overloaded(RETRY_AFTER),
    };
    Problem::new(cause, sentence(&failure))
}
