//! Running scan requests, from the name to the last port.
//!
//! A job is one request to scan: its name is looked up, the addresses are checked against the
//! policy and ordered by route, and one scan runs for each selected address. This module owns the
//! resolver and the schedulers, whose outputs the core polls directly. It knows neither clients nor
//! answers: [`Jobs::poll_event`] passes the events of a job to its owner. `core` drives it, and
//! polls until there is nothing more after every call.
//!
//! Invariants (`check_invariants`): a job that scans has its scans in the scheduler until it is
//! removed; there is no lookup for a removed job.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use super::job::{EndedJob, Job, JobFailure, JobState, Owner, Preparation};
use super::running::{FoundPort, ProbeRef, ScanRef};
use super::schedulers::Schedulers;
use super::sockets::StreamEvent;
use super::stale::Effect;
use crate::address::RoutedAddress;
use crate::dns::failure::LookupFailure;
use crate::dns::{LookupRequest, Resolver};
use crate::event::{Backlog, Outcome, RouteResult};
use crate::host::Host;
use crate::limits::{self, Sources};
use crate::policy::Policy;
use crate::scan::ProbeResult;
use crate::scan::ledger::PortState;
use crate::scan::plan::{Plan, RateShare};
use crate::scan::request::ScanRequest;
use crate::scan::stored::StoredScan;
use crate::slots::{Key, Slots};
use crate::technique::Technique;
use crate::timers::Timers;

/// An event of a job, for its owner.
#[derive(Debug)]
pub(super) enum JobEvent<'a> {
    /// The addresses are selected, and the scans, at least one, run.
    Began { request: &'a ScanRequest, scans: Vec<&'a StoredScan> },
    /// A port is open.
    Open(FoundPort),
    /// Every scan of the job has ended, and the job was removed.
    Ended(&'a EndedJob),
    /// No port could be scanned, and the job was removed.
    Failed { request: &'a ScanRequest, failure: &'a JobFailure },
}

/// An event of a job that waits to be handled.
#[derive(Debug)]
enum QueuedEvent {
    /// The name must be looked up.
    Lookup(LookupRequest),
    /// See [`JobEvent`]. The job had this preparation.
    Began(Box<Preparation>),
    Open(FoundPort),
    Ended,
    Failed(JobFailure),
}

/// An address whose route must be determined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RouteQuery {
    pub(super) job: Key,
    pub(super) to: SocketAddr,
}

/// A job that was removed.
enum RemovedJob {
    /// Its scans have ended.
    Ended(EndedJob),
    /// It had no scan yet. This was its request.
    Prepared(ScanRequest),
}

/// The part of the budget that all jobs can use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Demand {
    /// The number of connects that all jobs could have in flight.
    pub(super) need: usize,
    /// The number of connects that may be in flight.
    pub(super) capacity: usize,
    /// The number of scans without an answer that wait for their turn to launch.
    pub(super) starting: usize,
    /// The number of jobs.
    pub(super) jobs: usize,
}

/// All jobs.
#[derive(Debug)]
pub(super) struct Jobs {
    jobs: Slots<Job>,
    resolver: Resolver,
    schedulers: Schedulers,
    policy: Policy,
    sources: Sources,
    events: VecDeque<(Key, QueuedEvent)>,
    routes_wanted: VecDeque<RouteQuery>,
    /// The deadlines of jobs whose names are being looked up.
    lookups: Timers,
    /// The number of ports of the jobs that have no scan yet.
    ports_to_begin: usize,
}

impl Jobs {
    /// No jobs, whose probes will have these source addresses.
    pub(super) fn new(
        resolver: Resolver,
        schedulers: Schedulers,
        policy: Policy,
        sources: Sources,
    ) -> Self {
        Self {
            jobs: Slots::new(),
            resolver,
            schedulers,
            policy,
            sources,
            events: VecDeque::new(),
            routes_wanted: VecDeque::new(),
            lookups: Timers::default(),
            ports_to_begin: 0,
        }
    }

    /// Starts a job. Its progress is reported by events.
    pub(super) fn start(&mut self, now: Instant, request: ScanRequest, owner: Owner) -> Key {
        let (host, family) = (request.host.clone(), request.options.family);
        self.ports_to_begin += request.ports.len();
        let lookup_ends_at = now + request.options.lookup_time();
        let state = JobState::Preparing(Box::new(Preparation::new(request)));
        let job = self.jobs.insert(Job { owner, started_at: now, state });
        if let Host::Name(_) = host {
            self.lookups.set(job, Some(lookup_ends_at));
        }
        match host {
            Host::Name(name) => {
                self.events.push_back((job, QueuedEvent::Lookup(LookupRequest { name, family })));
            }
            Host::Address(address, _) => {
                let effect = self.handle_addresses(job, Ok(vec![address]));
                assert_eq!(effect, Effect::Applied, "the job was inserted above");
            }
        }
        job
    }

    /// Handles the result of the lookup of a name.
    pub(super) fn handle_addresses(
        &mut self,
        key: Key,
        found: Result<Vec<IpAddr>, LookupFailure>,
    ) -> Effect {
        let Some(job) = self.jobs.get_mut(key) else { return Effect::Stale };
        let preparation = job.preparation();
        self.lookups.set(key, None);
        let found = found.map_err(JobFailure::Lookup);
        match found.and_then(|addresses| preparation.handle_addresses(addresses, &self.policy)) {
            Ok(targets) => {
                let query = |to| RouteQuery { job: key, to };
                self.routes_wanted.extend(targets.into_iter().map(query));
            }
            Err(JobFailure::Lookup(failure)) => {
                self.fail(key, JobFailure::Lookup(explain_family(failure, self.sources)));
            }
            Err(failure @ (JobFailure::Denied(..) | JobFailure::ShuttingDown)) => {
                self.fail(key, failure);
            }
        }
        Effect::Applied
    }

    /// Handles the route to one address. The last route starts the scans.
    pub(super) fn handle_route(
        &mut self,
        now: Instant,
        key: Key,
        to: IpAddr,
        route: RouteResult,
    ) -> Effect {
        let Some(job) = self.jobs.get_mut(key) else { return Effect::Stale };
        if let Some(chosen) = job.preparation().handle_route(to, route) {
            self.begin_scans(now, key, chosen);
        }
        Effect::Applied
    }

    fn begin_scans(&mut self, now: Instant, key: Key, chosen: Vec<RoutedAddress>) {
        let Some(job) = self.jobs.get_mut(key) else {
            unreachable!("the caller has found the job")
        };
        let share = chosen.len();
        let is_client = matches!(job.owner, Owner::Client(_));
        if is_client && share > 1 && self.schedulers.len() + share > limits::ADDRESS_SCANS_MAX {
            return self.fail(key, JobFailure::Lookup(LookupFailure::Overloaded));
        }
        let share_of = |index| RateShare { index, scans: share as u8 };
        let started_at = job.started_at;
        let preparation = job.preparation();
        let plan = |(index, it)| preparation.plan(started_at, it, share_of(index));
        let plans: Vec<Plan> = (0..).zip(chosen).map(plan).collect();
        let technique = preparation.request.options.technique;
        let scheduler = self.schedulers.of_mut(technique);
        let begin = |plan| ScanRef { technique, key: scheduler.begin(now, plan, key) };
        self.ports_to_begin -= preparation.request.ports.len();
        let preparation = job.begin_scans(plans.into_iter().map(begin).collect());
        self.events.push_back((key, QueuedEvent::Began(preparation)));
    }

    /// Handles the outcome of a probe. It has no effect if the scan has ended.
    pub(super) fn handle_outcome(
        &mut self,
        now: Instant,
        at: ProbeRef,
        outcome: Outcome,
    ) -> Effect {
        let address = self.schedulers.scan(at.scan).map(|scan| scan.target().ip());
        let change = self.schedulers.of_mut(at.scan.technique).handle_outcome(now, at, outcome);
        let (Some(change), Some(address)) = (change, address) else { return Effect::Stale };
        if let ProbeResult::Port { port, state: PortState::Open, rtt } = change.finding {
            let found = FoundPort { address, port, rtt };
            self.events.push_back((change.job, QueuedEvent::Open(found)));
        }
        if change.is_last {
            self.on_scan_ended(change.job);
        }
        Effect::Applied
    }

    /// Handles all due deadlines, once a tick. Probes to be given up are passed to `forget`.
    /// Returns the number of lookups that have timed out: the resolver has no answer to them.
    pub(super) fn handle_tick(
        &mut self,
        now: Instant,
        backlog: Backlog,
        forget: impl FnMut(Key),
    ) -> usize {
        let mut timed_out = 0;
        while let Some(key) = self.lookups.pop_due(now) {
            self.fail(key, JobFailure::Lookup(LookupFailure::TimedOut));
            timed_out += 1;
        }
        for job in self.schedulers.handle_tick(now, backlog, forget) {
            self.on_scan_ended(job);
        }
        self.check_invariants();
        timed_out
    }

    /// Ends the scans of a job with their results so far: [`JobEvent::Ended`] follows. A job that
    /// has no scan yet fails.
    pub(super) fn end(&mut self, key: Key) {
        match self.jobs.get(key).map(|job| &job.state) {
            Some(JobState::Scanning(scans)) => {
                for scan in scans.as_slice() {
                    self.schedulers.of_mut(scan.technique).end(scan.key);
                }
                self.on_scan_ended(key);
            }
            Some(JobState::Preparing(_)) => self.fail(key, JobFailure::ShuttingDown),
            None => unreachable!("the caller ends existing jobs"),
        }
    }

    /// Ends every job with its results so far. Those that have no address yet fail.
    pub(super) fn end_all(&mut self) {
        let keys: Vec<Key> = self.jobs.iter().map(|(key, _)| key).collect();
        for key in keys {
            self.end(key);
        }
    }

    /// Removes a job that has no client any more. Its probes are given up.
    pub(super) fn cancel(&mut self, key: Key) {
        self.resolver.handle_cancel(key);
        if let Some(Job { state: JobState::Scanning(scans), .. }) = self.jobs.get(key) {
            for scan in scans.as_slice() {
                self.schedulers.of_mut(scan.technique).end(scan.key);
            }
        }
        if let RemovedJob::Ended(EndedJob { scans, .. }) = self.remove(key) {
            self.schedulers.abandon(scans);
        }
    }

    /// Handles the due deadlines of lookups.
    pub(super) fn handle_lookup_timeout(&mut self, now: Instant) {
        if self.resolver.deadline().is_some_and(|deadline| deadline <= now) {
            self.resolver.handle_timeout(now);
        }
    }

    /// Handles an event on the socket of an attempt of the resolver.
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

    /// Passes the next event of a job to `deliver`, with the owner of the job. Returns false if
    /// there is none. Events of a job from before its removal are discarded.
    pub(super) fn poll_event(
        &mut self,
        now: Instant,
        deliver: impl FnOnce(Owner, JobEvent),
    ) -> bool {
        while let Some((key, event)) = self.events.pop_front() {
            let Some(&Job { owner, .. }) = self.jobs.get(key) else { continue };
            match event {
                QueuedEvent::Lookup(request) => {
                    self.resolver.handle_lookup(now, request, key);
                    continue;
                }
                QueuedEvent::Began(preparation) => {
                    let (request, scans) = (&preparation.request, self.scans(key).collect());
                    deliver(owner, JobEvent::Began { request, scans });
                }
                QueuedEvent::Open(found) => deliver(owner, JobEvent::Open(found)),
                QueuedEvent::Ended => {
                    let RemovedJob::Ended(ended) = self.remove(key) else {
                        unreachable!("a job ends after its scans have begun");
                    };
                    deliver(owner, JobEvent::Ended(&ended));
                    // The probes that the job has left in flight are given up.
                    self.schedulers.abandon(ended.scans);
                }
                QueuedEvent::Failed(failure) => {
                    self.resolver.handle_cancel(key);
                    let RemovedJob::Prepared(request) = self.remove(key) else {
                        unreachable!("a job that failed has scanned nothing");
                    };
                    deliver(owner, JobEvent::Failed { request: &request, failure: &failure });
                }
            }
            return true;
        }
        false
    }

    /// The next route to determine.
    pub(super) fn poll_route(&mut self) -> Option<RouteQuery> {
        self.routes_wanted.pop_front()
    }

    /// The number of probes of one technique that all jobs together could use at once. Jobs that
    /// have no scan yet count for each technique.
    pub(super) fn need(&self, technique: Technique) -> usize {
        self.schedulers.of(technique).need() + self.ports_to_begin
    }

    /// The part of the budget of one technique that all jobs can use.
    pub(super) fn demand(&self, technique: Technique) -> Demand {
        let scheduler = self.schedulers.of(technique);
        let (capacity, starting) = (scheduler.capacity(), scheduler.starting());
        Demand { need: self.need(technique), capacity, starting, jobs: self.jobs.len() }
    }

    /// The time of the next deadline of a job.
    pub(super) fn deadline(&self, now: Instant) -> Option<Instant> {
        let deadlines =
            [self.lookups.first(), self.schedulers.deadline(now), self.resolver.deadline()];
        deadlines.into_iter().flatten().min()
    }

    /// The scans of a job so far, in the order of their addresses.
    pub(super) fn scans(&self, key: Key) -> impl Iterator<Item = &StoredScan> {
        let scans = match self.jobs.get(key) {
            Some(Job { state: JobState::Scanning(scans), .. }) => scans.as_slice(),
            Some(_) | None => &[],
        };
        scans.iter().filter_map(|scan| self.schedulers.scan(*scan))
    }

    pub(super) fn all_scans(&self) -> impl Iterator<Item = &StoredScan> {
        self.jobs.iter().flat_map(|(job, _)| self.scans(job))
    }

    /// The number of jobs.
    pub(super) const fn len(&self) -> usize {
        self.jobs.len()
    }

    pub(super) const fn resolver(&self) -> &Resolver {
        &self.resolver
    }

    /// The resolver, for its files and its outputs.
    pub(super) const fn resolver_mut(&mut self) -> &mut Resolver {
        &mut self.resolver
    }

    pub(super) const fn schedulers(&self) -> &Schedulers {
        &self.schedulers
    }

    /// The schedulers, for their outputs and for readings of local drops.
    pub(super) const fn schedulers_mut(&mut self) -> &mut Schedulers {
        &mut self.schedulers
    }

    /// Reports the end of a job once none of its scans runs.
    fn on_scan_ended(&mut self, key: Key) {
        if self.scans(key).all(|scan| !scan.is_running()) {
            self.events.push_back((key, QueuedEvent::Ended));
        }
    }

    /// Removes a job that has ended or failed. The probes of its scans that are in flight count
    /// until the schedulers give them up.
    fn remove(&mut self, key: Key) -> RemovedJob {
        let Some(Job { started_at, state, .. }) = self.jobs.remove(key) else {
            unreachable!("a job is removed once")
        };
        match state {
            JobState::Scanning(job) => {
                let removed =
                    |scan: &ScanRef| self.schedulers.of_mut(scan.technique).remove(scan.key);
                let scans = job.as_slice().iter().filter_map(removed).collect();
                RemovedJob::Ended(EndedJob { started_at, job, scans })
            }
            JobState::Preparing(preparation) => {
                self.lookups.set(key, None);
                self.ports_to_begin -= preparation.request.ports.len();
                RemovedJob::Prepared(preparation.request)
            }
        }
    }

    fn fail(&mut self, key: Key, failure: JobFailure) {
        self.events.push_back((key, QueuedEvent::Failed(failure)));
    }

    fn check_invariants(&self) {
        if self.jobs.len() > CHECKED_JOBS_MAX {
            return;
        }
        debug_assert!(
            self.jobs.iter().all(|(_, job)| match &job.state {
                JobState::Preparing(preparation) => preparation.is_awaited(),
                JobState::Scanning(scans) =>
                    scans.as_slice().iter().all(|it| self.schedulers.scan(*it).is_some()),
            }),
            "1: a job in the state `Scanning` has its scans in the scheduler"
        );
    }
}

/// Names the source address if it is the reason why only one address family can be scanned.
fn explain_family(failure: LookupFailure, sources: Sources) -> LookupFailure {
    match (failure, sources.v4, sources.v6) {
        (LookupFailure::NoAddress, Some(source), None)
        | (LookupFailure::NoAddress, None, Some(source)) => LookupFailure::NoAddressFor { source },
        (failure, _, _) => failure,
    }
}

/// The number of jobs above which the invariants that examine each job are not checked.
const CHECKED_JOBS_MAX: usize = 256;
