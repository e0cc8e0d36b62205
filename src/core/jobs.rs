//! Running scan requests, from the name to the last port.
//!
//! A job is one request to scan: its name is looked up, the addresses are checked against the
//! policy and ordered by route, and one scan runs for each selected address. This module knows
//! nothing of HTTP; [`Jobs::poll_event`] returns the events of the jobs. `pipeline` drives it.
//!
//! Invariant (`check_invariants`): a job that scans has its scans in the scheduler until it is
//! removed.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::time::Instant;

use super::job::{EndedJob, Job, JobFailure, JobState, Owner};
use super::running::{FoundPort, Postponed, ProbeRef, SchedulerOutput};
use super::schedulers::Schedulers;
use super::stale::Effect;
use crate::address::{self, RoutedAddress};
use crate::budget::Shares;
use crate::dns::LookupRequest;
use crate::dns::failure::LookupFailure;
use crate::event::local_drops::LocalDrops;
use crate::event::{Backlog, Outcome, RouteResult};
use crate::host::Host;
use crate::limits::{self, Sources};
use crate::policy::Policy;
use crate::scan::ledger::PortState;
use crate::scan::options::Addresses;
use crate::scan::plan::{Plan, RateShare};
use crate::scan::request::ScanRequest;
use crate::scan::stored::StoredScan;
use crate::scan::{ProbeResult, Scan};
use crate::slots::{Key, Slots};
use crate::technique::Technique;
use crate::timers::Timers;

/// An event of a job, for its owner.
#[derive(Debug, PartialEq)]
pub(super) enum JobEvent {
    /// The name must be looked up; [`Jobs::handle_addresses`] takes the result.
    Lookup(LookupRequest),
    /// The addresses are selected and the scans run.
    Began,
    /// A port is open.
    Open(FoundPort),
    /// Every scan of the job has ended. [`Jobs::remove`] returns the result.
    Ended,
    /// No port could be scanned. The job is removed with [`Jobs::remove_failed`].
    Failed(JobFailure),
}

/// An address whose route must be determined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RouteQuery {
    pub(super) job: Key,
    pub(super) to: SocketAddr,
}

/// The part of the budget that all jobs can use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Demand {
    /// The number of connects that all jobs could have in flight.
    pub(super) need: usize,
    /// The number of connects that may be in flight.
    pub(super) capacity: usize,
    /// The number of jobs.
    pub(super) jobs: usize,
}

/// All jobs.
#[derive(Debug)]
pub(super) struct Jobs {
    jobs: Slots<Job>,
    schedulers: Schedulers,
    policy: Policy,
    sources: Sources,
    events: VecDeque<(Key, JobEvent)>,
    routes_wanted: VecDeque<RouteQuery>,
    /// The deadlines of jobs whose names are being looked up.
    lookups: Timers,
    /// The number of ports of the jobs that have no scan yet.
    ports_to_begin: usize,
}

impl Jobs {
    /// No jobs, with the budgets of `shares` and the source addresses of their probes.
    pub(super) fn new(shares: &Shares, policy: Policy, sources: Sources) -> Self {
        Self {
            jobs: Slots::new(),
            schedulers: Schedulers::new(shares),
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
        let ends_at = now + request.options.deadline;
        let job = self.jobs.insert(Job {
            request,
            owner,
            started_at: now,
            other_addresses: Vec::new(),
            state: JobState::Resolving,
        });
        if let Host::Name(_) = host {
            self.lookups.set(job, Some(ends_at));
        }
        match host {
            Host::Name(name) => {
                self.events.push_back((job, JobEvent::Lookup(LookupRequest { name, family })));
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
        assert!(matches!(job.state, JobState::Resolving), "a job's name is looked up once");
        self.lookups.set(key, None);
        let addresses = match found {
            Ok(addresses) => addresses,
            Err(failure) => {
                let failure = explain_family(failure, self.sources);
                self.fail(key, JobFailure::Lookup(failure));
                return Effect::Applied;
            }
        };
        let mut first_denial = None;
        let mut allowed = addresses;
        allowed.truncate(limits::ADDRESSES_PER_NAME_MAX);
        allowed.retain(|address| match self.policy.verdict(*address) {
            Ok(()) => job.request.options.family.admits(*address),
            Err(denial) => {
                first_denial.get_or_insert((*address, denial));
                false
            }
        });
        if allowed.is_empty() {
            let failure = match first_denial {
                Some((address, denial)) => JobFailure::Denied(address, denial),
                None => JobFailure::Lookup(explain_family(LookupFailure::NoAddress, self.sources)),
            };
            self.fail(key, failure);
            return Effect::Applied;
        }
        let mut targets = Vec::with_capacity(allowed.len());
        for target in allowed.into_iter().map(address::contacted) {
            if !targets.contains(&target) {
                targets.push(target);
            }
        }
        let query = |target: &IpAddr| RouteQuery { job: key, to: job.socket_address(*target) };
        self.routes_wanted.extend(targets.iter().map(query));
        let candidates = Vec::with_capacity(targets.len());
        job.state = JobState::Routing { candidates, awaited: targets.len() };
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
        let JobState::Routing { candidates, awaited } = &mut job.state else {
            unreachable!("each route is requested once and reported once");
        };
        let source = match route {
            RouteResult::From(source) => Some(source),
            RouteResult::Nowhere => None,
            // The route could not be determined, which is not a refusal: the probes of the scan
            // will show the result.
            RouteResult::Unknown => Some(Ipv4Addr::UNSPECIFIED.into()),
        };
        candidates.push(RoutedAddress { address: to, source });
        *awaited -= 1;
        if *awaited == 0 {
            let candidates = std::mem::take(candidates);
            self.begin_scans(now, key, candidates);
        }
        Effect::Applied
    }

    fn begin_scans(&mut self, now: Instant, key: Key, mut chosen: Vec<RoutedAddress>) {
        let Some(job) = self.jobs.get_mut(key) else {
            unreachable!("the caller has found the job")
        };
        assert!(!chosen.is_empty(), "a job has at least one address");
        address::sort(&mut chosen);
        match job.request.options.addresses {
            Addresses::First => {
                job.other_addresses = chosen.drain(1..).map(|other| other.address).collect();
            }
            Addresses::All => {}
        }
        let share = chosen.len();
        let is_client = matches!(job.owner, Owner::Client(_));
        if is_client && share > 1 && self.schedulers.len() + share > limits::ADDRESS_SCANS_MAX {
            return self.fail(key, JobFailure::Lookup(LookupFailure::Overloaded));
        }
        assert!(share <= limits::ADDRESSES_PER_NAME_MAX, "a job has no more addresses");
        let share_of = |index| RateShare { index, scans: share as u8 };
        let plan = |(index, it)| job.plan(it, share_of(index));
        let plans: Vec<Plan> = (0..).zip(chosen).map(plan).collect();
        let scans = plans.into_iter().map(|plan| self.schedulers.begin(now, plan, key)).collect();
        self.ports_to_begin -= job.request.ports.len();
        job.state = JobState::Scanning { scans };
        self.events.push_back((key, JobEvent::Began));
    }

    /// Handles the outcome of a probe. It has no effect if the scan has ended.
    pub(super) fn handle_outcome(
        &mut self,
        now: Instant,
        at: ProbeRef,
        outcome: Outcome,
    ) -> Effect {
        let address = self.schedulers.scan(at.scan).map(|scan| scan.target().ip());
        let change = self.schedulers.handle_outcome(now, at, outcome);
        let (Some(change), Some(address)) = (change, address) else { return Effect::Stale };
        if let ProbeResult::Port { port, state: PortState::Open, rtt } = change.finding {
            let found = FoundPort { address, port, rtt };
            self.events.push_back((change.job, JobEvent::Open(found)));
        }
        if change.is_last {
            self.on_scan_ended(change.job);
        }
        Effect::Applied
    }

    /// Handles all due deadlines, once a tick. Probes to be given up are passed to `forget`.
    pub(super) fn handle_tick(&mut self, now: Instant, backlog: Backlog, forget: impl FnMut(Key)) {
        while let Some(key) = self.lookups.pop_due(now) {
            let failure = JobFailure::Lookup(LookupFailure::TimedOut);
            self.events.push_back((key, JobEvent::Failed(failure)));
        }
        for job in self.schedulers.handle_tick(now, backlog, forget) {
            self.on_scan_ended(job);
        }
        self.check_invariants();
    }

    /// Handles a reading of the packets that this machine drops, and returns the number of ports
    /// that wait because of it. Probes to be given up are passed to `forget`.
    pub(super) fn handle_local_drops(
        &mut self,
        now: Instant,
        reading: Option<&LocalDrops>,
        forget: impl FnMut(Key),
    ) -> Postponed {
        self.schedulers.handle_local_drops(now, reading, forget)
    }

    /// Ends the scans of a job with their results so far: [`JobEvent::Ended`] follows. A job that
    /// has no scan yet fails.
    pub(super) fn end(&mut self, key: Key) {
        match self.jobs.get(key).map(|job| &job.state) {
            Some(JobState::Scanning { scans }) => {
                for scan in scans {
                    self.schedulers.end(*scan);
                }
                self.on_scan_ended(key);
            }
            Some(JobState::Resolving | JobState::Routing { .. }) => {
                self.fail(key, JobFailure::ShuttingDown);
            }
            None => unreachable!("the caller ends existing jobs"),
        }
    }

    /// Removes a job that has no client any more. Its probes are given up.
    pub(super) fn cancel(&mut self, key: Key) {
        if let Some(Job { state: JobState::Scanning { scans }, .. }) = self.jobs.get(key) {
            for scan in scans {
                self.schedulers.end(*scan);
            }
        }
        let EndedJob { scans, .. } = self.remove(key);
        self.abandon(scans);
    }

    /// Removes a job that has ended or failed, and returns it with its scans in the order of their
    /// addresses. Probes still in flight are given up once the scans are passed to
    /// [`Jobs::abandon`].
    pub(super) fn remove(&mut self, key: Key) -> EndedJob {
        let Some(job) = self.jobs.remove(key) else { unreachable!("a job is removed once") };
        let scans = match &job.state {
            JobState::Scanning { scans } => {
                scans.iter().filter_map(|scan| self.schedulers.remove(*scan)).collect()
            }
            JobState::Resolving | JobState::Routing { .. } => {
                self.lookups.set(key, None);
                self.ports_to_begin -= job.request.ports.len();
                Vec::new()
            }
        };
        EndedJob { job, scans }
    }

    pub(super) fn remove_failed(&mut self, key: Key) {
        let EndedJob { scans, .. } = self.remove(key);
        assert!(scans.is_empty(), "a job that failed has scanned nothing");
    }

    /// Gives up the probes that removed scans have left in flight.
    pub(super) fn abandon(&mut self, scans: Vec<Scan>) {
        self.schedulers.abandon(scans);
    }

    /// The next event of a job, and the owner of the job. Events of a job from before its removal
    /// are discarded here.
    pub(super) fn poll_event(&mut self) -> Option<(Key, Owner, JobEvent)> {
        while let Some((key, event)) = self.events.pop_front() {
            if let Some(job) = self.jobs.get(key) {
                return Some((key, job.owner, event));
            }
        }
        None
    }

    /// The next route to determine.
    pub(super) fn poll_route(&mut self) -> Option<RouteQuery> {
        self.routes_wanted.pop_front()
    }

    /// The next output of a scan. A probe that starts uses `next_key`.
    pub(super) fn poll_output(&mut self, now: Instant, next_key: Key) -> Option<SchedulerOutput> {
        self.schedulers.poll_output(now, next_key)
    }

    /// Limits the rate of new connects of all scans together, per second.
    pub(super) fn set_rate(&mut self, rate: NonZeroU32) {
        self.schedulers.set_rate(rate);
    }

    /// The number of probes of one technique that all jobs together could use at once. Jobs that
    /// have no scan yet count for each technique.
    pub(super) fn need(&self, technique: Technique) -> usize {
        self.schedulers.of(technique).need() + self.ports_to_begin
    }

    /// The part of the budget of one technique that all jobs can use.
    pub(super) fn demand(&self, technique: Technique) -> Demand {
        let (need, capacity) = (self.need(technique), self.capacity(technique));
        Demand { need, capacity, jobs: self.jobs.len() }
    }

    /// Whether there is work that only the budgets of this tick have postponed.
    pub(super) fn has_work(&self, now: Instant) -> bool {
        self.schedulers.has_work(now)
    }

    /// The time of the next deadline of a job.
    pub(super) fn deadline(&self, now: Instant) -> Option<Instant> {
        self.lookups.first().into_iter().chain(self.schedulers.deadline(now)).min()
    }

    /// The request of a job that has not been removed.
    pub(super) fn request(&self, key: Key) -> &ScanRequest {
        match self.jobs.get(key) {
            Some(job) => &job.request,
            None => unreachable!("the key of a removed job is not used"),
        }
    }

    /// The scans of a job so far, in the order of their addresses.
    pub(super) fn scans(&self, key: Key) -> impl Iterator<Item = &StoredScan> {
        let scans = match self.jobs.get(key) {
            Some(Job { state: JobState::Scanning { scans }, .. }) => scans.as_slice(),
            Some(_) | None => &[],
        };
        scans.iter().filter_map(|scan| self.schedulers.scan(*scan))
    }

    pub(super) fn all_scans(&self) -> impl Iterator<Item = &StoredScan> {
        self.keys().flat_map(|job| self.scans(job))
    }

    /// The keys of all jobs.
    pub(super) fn keys(&self) -> impl Iterator<Item = Key> {
        self.jobs.iter().map(|(key, _)| key)
    }

    /// The number of jobs.
    pub(super) const fn len(&self) -> usize {
        self.jobs.len()
    }

    /// The number of probes in flight, of all scans.
    pub(super) fn in_flight(&self) -> usize {
        self.schedulers.in_flight()
    }

    /// The number of probes in flight without those that ended scans have left.
    pub(super) fn attended(&self) -> usize {
        self.schedulers.attended()
    }

    /// The number of connects in flight.
    pub(super) fn connects_in_flight(&self) -> usize {
        self.schedulers.of(Technique::Connect).in_flight()
    }

    /// The number of probes of one technique that may be in flight now.
    pub(super) fn capacity(&self, technique: Technique) -> usize {
        self.schedulers.of(technique).capacity()
    }

    /// Reports the end of a job once none of its scans runs.
    fn on_scan_ended(&mut self, key: Key) {
        if self.scans(key).all(|scan| !scan.is_running()) {
            self.events.push_back((key, JobEvent::Ended));
        }
    }

    fn fail(&mut self, key: Key, failure: JobFailure) {
        self.events.push_back((key, JobEvent::Failed(failure)));
    }

    fn check_invariants(&self) {
        if self.jobs.len() > CHECKED_JOBS_MAX {
            return;
        }
        debug_assert!(
            self.jobs.iter().all(|(_, job)| match &job.state {
                JobState::Resolving => true,
                JobState::Routing { awaited, .. } => *awaited > 0,
                JobState::Scanning { scans } =>
                    scans.iter().all(|it| self.schedulers.scan(*it).is_some()),
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
