//! From a request to its scans: the jobs, and the resolver that looks up their names.
//!
//! The pipeline passes messages between jobs and resolver. Outputs for the owner of a job, or for a
//! socket of the resolver, are returned by [`Pipeline::poll_output`]. It knows neither clients nor
//! answers. `core` drives it, and polls until `None` after every call.
//!
//! Invariant: there is no lookup for a removed job.

use std::net::SocketAddr;
use std::time::Instant;

use super::job::{EndedJob, JobFailure, Owner};
use super::jobs::{JobEvent, Jobs};
use super::running::FoundPort;
use super::sockets::StreamEvent;
use super::stale::StaleEvent;
use super::telemetry::Telemetry;
use crate::dns::failure::LookupFailure;
use crate::dns::{self, Resolver};
use crate::event::{Action, Outcome, Transport};
use crate::scan::request::ScanRequest;
use crate::scan::stored::StoredScan;
use crate::slots::Key;

/// A task for the core.
#[derive(Debug)]
pub(super) enum PipelineOutput {
    /// Pass this event to the owner of the job, as a [`Pipeline::report`].
    Job { owner: Owner, update: JobUpdate },
    /// Open a socket and connect it. [`Pipeline::handle_opened`] takes its key at once.
    Connect { attempt: Key, to: SocketAddr, transport: Transport },
    /// Close the socket.
    Close { socket: Key },
    /// Perform this action.
    Act(Action),
}

/// An event of a job. [`Pipeline::handle_reported`] takes it back.
#[derive(Debug)]
pub(super) enum JobUpdate {
    /// The scans of the job, at least one, have begun.
    Began { job: Key },
    /// A port is open.
    Open(FoundPort),
    /// The scans of the job have ended, and the job was removed.
    Ended(Box<EndedJob>),
    /// No port could be scanned, and the job was removed.
    Failed(JobFailure),
}

/// An event of a job, with the facts that its owner needs.
#[derive(Debug)]
pub(super) enum JobReport<'a> {
    /// The scans of the job, at least one, have begun.
    Began { request: &'a ScanRequest, scans: Vec<&'a StoredScan> },
    /// A port is open.
    Open(FoundPort),
    /// The scans of the job have ended.
    Ended(&'a EndedJob),
    /// No port could be scanned.
    Failed(&'a JobFailure),
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Pipeline {
    jobs: Jobs,
    resolver: Resolver,
}

impl Pipeline {
    /// A pipeline without running jobs and lookups.
    pub(super) const fn new(jobs: Jobs, resolver: Resolver) -> Self {
        Self { jobs, resolver }
    }

    /// Starts a job for a request.
    pub(super) fn start(&mut self, now: Instant, request: ScanRequest, owner: Owner) -> Key {
        self.jobs.start(now, request, owner)
    }

    /// Removes a job that has no client any more.
    pub(super) fn cancel(&mut self, job: Key) {
        self.resolver.handle_cancel(job);
        self.jobs.cancel(job);
    }

    /// Ends every job with its results so far. Those that have no address yet fail.
    pub(super) fn end_all(&mut self) {
        for job in self.jobs.keys().collect::<Vec<Key>>() {
            self.jobs.end(job);
        }
    }

    /// Handles the due deadlines of lookups.
    pub(super) fn handle_lookup_timeout(&mut self, now: Instant) {
        if self.resolver.deadline().is_some_and(|deadline| deadline <= now) {
            self.resolver.handle_timeout(now);
        }
    }

    /// The socket of an attempt was given this key.
    pub(super) fn handle_opened(&mut self, attempt: Key, socket: Key) {
        self.resolver.handle_opened(attempt, socket);
    }

    /// Handles an event on the socket of an attempt.
    pub(super) fn handle_stream(&mut self, now: Instant, attempt: Key, event: StreamEvent) {
        match event {
            StreamEvent::Connect(Outcome::Connected) => self.resolver.handle_connected(attempt),
            StreamEvent::Connect(Outcome::Shortage(_)) => {
                self.resolver.handle_shortage(now, attempt);
            }
            StreamEvent::Connect(
                Outcome::SelfConnect | Outcome::Refused | Outcome::TimedOut | Outcome::Unreachable,
            )
            | StreamEvent::ReadClosed
            | StreamEvent::Broken => self.resolver.handle_broken(now, attempt),
            StreamEvent::Received(bytes) => self.resolver.handle_received(now, attempt, bytes),
            StreamEvent::Sent(count) => self.resolver.handle_sent(attempt, count),
            // Unread bytes are handled first; the end follows after them.
            StreamEvent::Hangup => {}
        }
    }

    /// The next output; `None` if there is none before the next call.
    pub(super) fn poll_output(
        &mut self,
        now: Instant,
        telemetry: &mut Telemetry,
    ) -> Option<PipelineOutput> {
        loop {
            if let Some((job, owner, event)) = self.jobs.poll_event() {
                let update = match event {
                    JobEvent::Lookup(request) => {
                        self.resolver.handle_lookup(now, request, job);
                        continue;
                    }
                    JobEvent::Began => JobUpdate::Began { job },
                    JobEvent::Open(found) => JobUpdate::Open(found),
                    JobEvent::Ended => JobUpdate::Ended(Box::new(self.jobs.remove(job))),
                    JobEvent::Failed(failure) => {
                        self.resolver.handle_cancel(job);
                        self.jobs.remove_failed(job);
                        JobUpdate::Failed(failure)
                    }
                };
                return Some(PipelineOutput::Job { owner, update });
            }
            match self.resolver.poll_output(now)? {
                dns::Output::Open { attempt, to, transport } => {
                    return Some(PipelineOutput::Connect { attempt, to, transport });
                }
                dns::Output::ReadNameFiles => {
                    return Some(PipelineOutput::Act(Action::ReadNameFiles));
                }
                dns::Output::Attend { socket } => {
                    return Some(PipelineOutput::Act(Action::Attend(socket)));
                }
                dns::Output::Close { socket } => return Some(PipelineOutput::Close { socket }),
                dns::Output::Answer { waiter, result } => {
                    telemetry.counters().count_lookup(LookupFailure::result_label(&result));
                    let effect = self.jobs.handle_addresses(waiter, result);
                    telemetry.count_if_stale(effect, StaleEvent::Lookup);
                }
            }
        }
    }

    /// The owner was informed. The probes that an ended job has left in flight are given up.
    pub(super) fn handle_reported(&mut self, update: JobUpdate) {
        match update {
            JobUpdate::Ended(ended) => self.jobs.abandon(ended.scans),
            JobUpdate::Began { .. } | JobUpdate::Open(_) | JobUpdate::Failed(_) => {}
        }
    }

    /// The facts that the owner of the job needs.
    pub(super) fn report<'a>(&'a self, update: &'a JobUpdate) -> JobReport<'a> {
        match update {
            JobUpdate::Began { job } => JobReport::Began {
                request: self.jobs.request(*job),
                scans: self.jobs.scans(*job).collect(),
            },
            JobUpdate::Open(found) => JobReport::Open(*found),
            JobUpdate::Ended(ended) => JobReport::Ended(ended),
            JobUpdate::Failed(failure) => JobReport::Failed(failure),
        }
    }

    /// The time of the next deadline.
    pub(super) fn deadline(&self, now: Instant) -> Option<Instant> {
        self.jobs.deadline(now).into_iter().chain(self.resolver.deadline()).min()
    }

    pub(super) const fn jobs(&self) -> &Jobs {
        &self.jobs
    }

    /// The jobs, for the outcomes of their probes and for their ticks.
    pub(super) const fn jobs_mut(&mut self) -> &mut Jobs {
        &mut self.jobs
    }

    pub(super) const fn resolver(&self) -> &Resolver {
        &self.resolver
    }

    /// The resolver, to which the contents of its files are passed.
    pub(super) const fn resolver_mut(&mut self) -> &mut Resolver {
        &mut self.resolver
    }
}
