//! The HTTP side of the service: selects the answer to each request.
//!
//! The responder owns the clients and the admission. A request is answered at once, or a job is
//! started for it ([`ResponderOutput::StartJob`]) whose events end in the answer. The responder
//! knows routes and forms, but neither names nor addresses nor probes: the facts about a job are
//! passed in. `core` drives it, and polls until `None` after every call. Events are recorded in the
//! [`Telemetry`] that each call passes in.
//!
//! Invariant (`check_invariants`): the number of taken shares of the quota equals the number of
//! scans for clients.

use std::net::IpAddr;
use std::time::Instant;

use super::admission::{Admission, Load};
use super::announcement::{Announcement, Bound, Example, TokenUse};
use super::client::ActiveScan;
use super::clients::{self, Clients};
use super::job::{EndedJob, JobFailure};
use super::job_outcome::{self, JobOutcome, JobResult, cancelled_record, failure_problem};
use super::jobs::JobEvent;
use super::pending_request::{AnswerKind, PendingRequest};
use super::streams::ScanAnswer;
use super::telemetry::{Context, Telemetry};
use crate::access::quota::Share;
use crate::api::page::page_response;
use crate::api::probe::{Probed, probe_response};
use crate::api::problem::{Problem, problem_response};
use crate::api::{self, Bearer, Command, Route};
use crate::event::Action;
use crate::http::{Field, Method, Request, Response};
use crate::limits::Settings;
use crate::listen_address::Listen;
use crate::report::Gauges;
use crate::report::log::{Level, Record};
use crate::scan::request::ScanRequest;
use crate::service_names::Names;
use crate::slots::Key;

/// A task for the core.
#[derive(Debug)]
pub(super) enum ResponderOutput {
    /// Start a job. [`Responder::begin_scan`] takes its key and the claim.
    StartJob { client: Key, request: Box<ScanRequest>, claim: Box<Claim> },
    /// The client has disconnected: cancel this job, if there is one, and close the socket.
    Closed { socket: Key, job: Option<Key> },
    /// Write the progress of this job with [`Clients::write_progress`].
    ProgressDue { client: Key, job: Key },
    /// Answer with the current metrics, with [`Responder::respond_metrics`].
    MetricsWanted { client: Key, pending: Box<PendingRequest> },
    /// Perform this action: read a file for [`Responder::handle_token_file`] or for a request that
    /// waits, or attend to a socket.
    Act(Action),
}

/// The resources that an admitted request holds until its scan ends.
#[derive(Debug)]
pub(super) struct Claim {
    pending: PendingRequest,
    share: Share,
}

/// A request and its sender.
#[derive(Debug)]
struct Incoming {
    client: Key,
    peer: IpAddr,
    request: Request,
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Responder {
    clients: Clients,
    admission: Admission,
    announcement: Announcement,
    settings: Settings,
}

impl Responder {
    /// A responder that applies these options.
    pub(super) fn new(
        clients: Clients,
        admission: Admission,
        announcement: Announcement,
        settings: Settings,
    ) -> Self {
        Self { clients, admission, announcement, settings }
    }

    /// Sets the values for the example request.
    pub(super) fn set_example(&mut self, example: Example) {
        self.announcement.set_example(example);
    }

    /// The log records of the start.
    pub(super) fn announce(&mut self, listeners: &[Listen], descriptors: usize) -> Vec<Record> {
        let has_token = self.admission.has_token();
        let token = if has_token { TokenUse::Required } else { TokenUse::NotRequired };
        self.announcement.records(Bound { listeners, descriptors, token }, &self.settings)
    }

    /// Sets the token from its file, and handles the requests again that wait for it.
    pub(super) fn handle_token_file(
        &mut self,
        now: Instant,
        text: Option<&[u8]>,
        telemetry: &mut Telemetry,
    ) {
        if let Err(error) = self.admission.handle_token_file(now, text) {
            let record = Record::new(Level::Warn, "token kept").field("why", error.to_string());
            telemetry.log(&record);
        }
        self.clients.resume_requests();
    }

    /// A job was started for the request.
    pub(super) fn begin_scan(&mut self, client: Key, job: Key, claim: Claim) {
        let Claim { pending, share } = claim;
        let (has_begun, stream, rtts) = (false, None, Vec::new());
        let scan = ActiveScan { job, share, pending, has_begun, stream, rtts };
        self.clients.begin_scan(client, scan);
    }

    /// Handles an event of a client's job.
    pub(super) fn handle_job(&mut self, client: Key, event: JobEvent, context: Context) {
        let now = context.now;
        match event {
            JobEvent::Began { request, scans } => {
                self.clients.begin_stream(now, client, request, &scans);
            }
            JobEvent::Open(found) => {
                self.clients.handle_open(now, client, found);
            }
            JobEvent::Ended(ended) => self.on_job_ended(client, ended, context),
            JobEvent::Failed { failure, .. } => {
                self.on_job_failed(now, client, failure, context.telemetry);
            }
        }
    }

    /// Every port has its state, or the time of the scan is up. Sends the answer, or the end of the
    /// stream.
    fn on_job_ended(&mut self, client: Key, ended: &EndedJob, context: Context) {
        let Context { now, names, telemetry } = context;
        let outcome = JobOutcome::new(now, ended);
        telemetry.counters().observe_scan(outcome.record());
        telemetry.counters().add_ports(&outcome.tally());
        let mut scan = self.clients.end_scan(client);
        let mut pending = scan.pending;
        if let AnswerKind::Probe { expect } = &pending.kind {
            pending.failure = outcome.probe_failure(expect.as_ref());
        }
        telemetry.log(&outcome.describe(pending.access_record(now, 200)));
        telemetry.count_request(now, &pending, 200);
        match &pending.kind {
            AnswerKind::Probe { expect } => {
                let response = outcome.probe_response(expect.as_ref());
                self.clients.respond_scan(now, client, &response);
            }
            AnswerKind::Scan { form } => {
                scan.rtts.sort_unstable();
                let (form, stream) = (*form, scan.stream);
                let end = outcome.ending(form, names, &scan.rtts);
                self.clients.deliver(now, client, ScanAnswer { form, stream, end }, names);
            }
        }
        self.admission.release(scan.share);
    }

    /// The job failed. Sends the problem.
    fn on_job_failed(
        &mut self,
        now: Instant,
        client: Key,
        failure: &JobFailure,
        telemetry: &mut Telemetry,
    ) {
        let problem = failure_problem(failure);
        let result = JobResult::Failed(problem.cause());
        let ActiveScan { share, mut pending, .. } = self.clients.end_scan(client);
        telemetry.counters().count_failed_scan(pending.technique, result.label());
        self.admission.release(share);
        // For a monitor, a failed target is a result and not an error. Only a refusal is an error.
        let answer = match (&pending.kind, job_outcome::probe_failure(problem.cause())) {
            (AnswerKind::Probe { expect }, Some(failure)) => {
                pending.failure = Some(failure);
                let elapsed = now - pending.began_at;
                Ok(probe_response(Probed::Unresolved(failure), expect.as_ref(), elapsed))
            }
            (AnswerKind::Probe { .. } | AnswerKind::Scan { .. }, _) => Err(problem),
        };
        self.respond(now, client, AnswerContext { pending, answer }, telemetry);
    }

    /// Answers a request for the metrics.
    pub(super) fn respond_metrics(
        &mut self,
        client: Key,
        pending: PendingRequest,
        gauges: &Gauges,
        context: Context,
    ) {
        let Context { now, telemetry, .. } = context;
        let answer = Ok(api::metrics(telemetry.render(gauges)));
        self.respond(now, client, AnswerContext { pending, answer }, telemetry);
    }

    /// The next output; `None` once every client was served.
    pub(super) fn poll_output(
        &mut self,
        now: Instant,
        load: Load,
        names: &Names,
        telemetry: &mut Telemetry,
    ) -> Option<ResponderOutput> {
        while let Some(output) = self.clients.poll_output(now, names) {
            match output {
                clients::ClientsOutput::Request { client, peer, request } => {
                    let incoming = Incoming { client, peer, request };
                    let output = self.on_request(now, incoming, load, telemetry);
                    if output.is_some() {
                        return output;
                    }
                }
                clients::ClientsOutput::Refused { client, peer, refusal } => {
                    let pending = PendingRequest::refused(now, peer, refusal);
                    let answer = Err(Problem::from_refusal(refusal));
                    self.respond(now, client, AnswerContext { pending, answer }, telemetry);
                }
                clients::ClientsOutput::Closed { socket, reason, scan } => {
                    telemetry.counters().count_closed(reason.label());
                    let job = scan.map(|scan| self.cancel(now, *scan, telemetry));
                    return Some(ResponderOutput::Closed { socket, job });
                }
                clients::ClientsOutput::ProgressDue { client, job } => {
                    return Some(ResponderOutput::ProgressDue { client, job });
                }
                clients::ClientsOutput::Act(action) => return Some(ResponderOutput::Act(action)),
            }
        }
        None
    }

    /// The connections.
    pub(super) const fn clients(&self) -> &Clients {
        &self.clients
    }

    /// The connections, for bytes that arrive from them and for their deadlines.
    pub(super) const fn clients_mut(&mut self) -> &mut Clients {
        &mut self.clients
    }

    /// Checks the invariant in the module's documentation.
    pub(super) fn check_invariants(&self) {
        debug_assert_eq!(self.clients.scanning_len(), self.admission.shares_len());
    }

    /// Answers a request, unless a job or a file is needed first.
    fn on_request(
        &mut self,
        now: Instant,
        incoming: Incoming,
        load: Load,
        telemetry: &mut Telemetry,
    ) -> Option<ResponderOutput> {
        let Incoming { client, peer, request } = incoming;
        let is_metrics = Route::of(request.path()) == Route::Metrics
            && matches!(request.method, Method::Get | Method::Head);
        if self.admission.wants_token_file(now, &request) {
            self.clients.hold_request(client, request);
            return Some(ResponderOutput::Act(Action::ReadTokenFile));
        }
        if is_metrics && telemetry.wants_process_files(now) {
            self.clients.hold_request(client, request);
            return Some(ResponderOutput::Act(Action::ReadProcessFiles));
        }
        let client_ip = self.admission.client_ip(peer, &request);
        let mut pending = PendingRequest::new(now, client_ip, &request);
        let parsed = self.admission.check_token(&request);
        let answer = match parsed.and_then(|()| api::parse(&request, &self.settings)) {
            Ok(Command::Scan { request: scan, form }) => {
                match self.admission.admit(client_ip, &request, load) {
                    Ok(share) => {
                        pending.kind = AnswerKind::Scan { form };
                        return Some(start_job(client, *scan, Claim { pending, share }));
                    }
                    Err(problem) => Err(problem),
                }
            }
            Ok(Command::Probe(probe)) => match self.admission.admit(client_ip, &request, load) {
                Ok(share) => {
                    pending.kind = AnswerKind::Probe { expect: probe.expect };
                    return Some(start_job(client, probe.scan, Claim { pending, share }));
                }
                Err(problem) => Err(problem),
            },
            Ok(Command::CheckScan { form, .. }) => {
                let checked = self.admission.check_site(&request);
                checked.map(|()| api::scan_response(form, Vec::new()))
            }
            Ok(Command::Metrics) => {
                let pending = Box::new(pending);
                return Some(ResponderOutput::MetricsWanted { client, pending });
            }
            Ok(Command::Finished) => self.admission.check_site(&request).map(|()| api::finished()),
            Ok(Command::Healthz) => Ok(api::ok()),
            Ok(Command::Readyz) => self.admission.readiness(load).map(|()| api::ready()),
            Ok(Command::OpenApi) => Ok(api::openapi()),
            Ok(Command::Help) => Ok(self.help(peer, &request)),
            Ok(Command::Page) => Ok(page_response(&request)),
            Ok(Command::Options { allow }) => Ok(api::options(allow)),
            Err(problem) => Err(problem),
        };
        self.respond(now, client, AnswerContext { pending, answer }, telemetry);
        None
    }

    fn help(&self, peer: IpAddr, request: &Request) -> Response {
        let target = self.announcement.example_target();
        let token = match self.admission.has_token() {
            true => Bearer::Needed { file: self.announcement.local_token_file() },
            false => Bearer::NotNeeded,
        };
        let curl = self.announcement.curl_for(peer);
        api::help(curl, request.field(Field::Host), target.as_deref(), token)
    }

    /// Answers the request that the client returned, and records it.
    fn respond(
        &mut self,
        now: Instant,
        client: Key,
        answer: AnswerContext,
        telemetry: &mut Telemetry,
    ) {
        let AnswerContext { pending, answer } = answer;
        let (response, cause) = match answer {
            Ok(response) => (response, None),
            Err(problem) => (problem_response(&problem), Some(problem.cause())),
        };
        let record = pending.access_record(now, response.status);
        telemetry.log(&match cause {
            Some(cause) => record.field("cause", cause.label()),
            None => record,
        });
        telemetry.count_request(now, &pending, response.status);
        self.clients.respond(now, client, &response);
    }

    /// The client disconnected while its scan ran. Its job will be cancelled.
    fn cancel(&mut self, now: Instant, scan: ActiveScan, telemetry: &mut Telemetry) -> Key {
        let ActiveScan { job, share, pending, has_begun, .. } = scan;
        self.admission.release(share);
        let elapsed = now - pending.began_at;
        let record = cancelled_record(pending.technique, elapsed);
        match has_begun {
            true => telemetry.counters().observe_scan(record),
            false => telemetry.counters().count_failed_scan(record.technique, record.result),
        }
        let record = Record::new(Level::Info, JobResult::Cancelled.label())
            .field("client", pending.client_ip)
            .field("elapsed", elapsed);
        telemetry.log(&record);
        job
    }
}

/// The answer to a request, with the facts that are recorded about the request.
#[derive(Debug)]
struct AnswerContext {
    pending: PendingRequest,
    answer: Result<Response, Problem>,
}

fn start_job(client: Key, request: ScanRequest, mut claim: Claim) -> ResponderOutput {
    claim.pending.technique = request.options.technique;
    claim.pending.domain = Some(request.domain.clone());
    ResponderOutput::StartJob { client, request: Box::new(request), claim: Box::new(claim) }
}

#[cfg(test)]
impl Responder {
    /// Forgets the time of the last reading, so that the next request with a token causes the file
    /// to be read.
    pub(super) fn forget_token_reading(&mut self) {
        self.admission.forget_reading();
    }
}
