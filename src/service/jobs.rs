//! Scan requests under way: from the name to the last port.
//!
//! A job is one request to scan: its name is looked up, the addresses are checked against the
//! policy and ordered by route, and one scan runs for each address chosen. It knows nothing of
//! HTTP: what happens is told through [`Jobs::poll_news`]. Driven by `service`.
//!
//! Invariant (`check_invariants`): a job that scans has its scans in the fleet until it is
//! removed.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6};
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use super::Role;
use super::fleet::Fleet;
use crate::address::{self, Candidate};
use crate::api::query::{Addresses, ScanRequest};
use crate::dns::{LookupFailure, Question};
use crate::event::{Action, Outcome, Route};
use crate::limits;
use crate::policy::{Denial, Policy};
use crate::scan::ledger::PortState;
use crate::scan::plan::Plan;
use crate::scan::probes::ProbeId;
use crate::scan::{Finding, Scan};
use crate::slots::{Key, Slots};
use crate::target::Host;

/// What a job's owner should hear of.
#[derive(Debug, PartialEq)]
pub enum News {
    /// The name is to be looked up; answer with [`Jobs::handle_addresses`].
    Lookup(Question),
    /// Addresses are chosen and scans run.
    Began,
    /// An open port.
    Open {
        /// Where.
        address: IpAddr,
        /// The port.
        port: u16,
        /// From connect to answer.
        rtt: Duration,
    },
    /// Every scan of the job has ended: [`Jobs::remove`] gives the result.
    Ended,
    /// Nothing could be scanned. The job is gone.
    Failed(Failure),
}

/// Why a job came to nothing.
#[derive(Clone, Debug, PartialEq)]
pub enum Failure {
    /// The name could not be resolved.
    Lookup(LookupFailure),
    /// The policy forbids every address of the target; the first of them.
    Denied(IpAddr, Denial),
}

/// Who wants a job done, and hears of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// A client's connection.
    Client(Key),
    /// The use from the shell: the target in this place of its list.
    Batch(usize),
}

/// One request to scan.
#[derive(Debug)]
pub struct Job {
    /// What was asked for.
    pub request: ScanRequest,
    /// Who asked.
    pub owner: Owner,
    /// When.
    pub started_at: Instant,
    state: State,
}

#[derive(Debug)]
enum State {
    /// The name is being looked up. The resolver's deadline is armed; its answer leaves it.
    Resolving,
    /// The kernel is asked for a route to each address. Nothing is armed: the answers come within
    /// the same drain.
    Routing { candidates: Vec<Candidate>, awaited: usize },
    /// Scans run, or have ended and wait for [`Jobs::remove`].
    Scanning { scans: Vec<Key> },
}

impl Job {
    fn ends_at(&self) -> Instant {
        self.started_at + self.request.deadline
    }
}

/// All jobs.
#[derive(Debug)]
pub struct Jobs {
    jobs: Slots<Job>,
    fleet: Fleet,
    policy: Policy,
    news: VecDeque<(Key, News)>,
    routes_wanted: VecDeque<(Key, SocketAddr)>,
}

impl Jobs {
    /// No jobs, and a budget of `probes` connects in flight.
    pub fn new(probes: usize, policy: Policy) -> Self {
        Self {
            jobs: Slots::new(),
            fleet: Fleet::new(probes),
            policy,
            news: VecDeque::new(),
            routes_wanted: VecDeque::new(),
        }
    }

    /// Takes a request in; what comes of it is told as news.
    pub fn start(&mut self, now: Instant, request: ScanRequest, owner: Owner) -> Key {
        let (host, family) = (request.host.clone(), request.family);
        let job =
            self.jobs.insert(Job { request, owner, started_at: now, state: State::Resolving });
        match host {
            Host::Name(name) => {
                self.news.push_back((job, News::Lookup(Question { name, family })));
            }
            Host::Address(address, _) => self.handle_addresses(job, Ok(vec![address])),
        }
        job
    }

    /// Takes in what the name came to. A stale job is nobody's.
    pub fn handle_addresses(&mut self, key: Key, found: Result<Vec<IpAddr>, LookupFailure>) {
        let Some(job) = self.jobs.get_mut(key) else { return };
        assert!(matches!(job.state, State::Resolving), "a job's name is looked up once");
        let addresses = match found {
            Ok(addresses) => addresses,
            Err(failure) => return self.fail(key, Failure::Lookup(failure)),
        };
        let mut first_denial = None;
        let mut allowed = addresses;
        allowed.truncate(limits::ADDRESSES_PER_NAME_MAX);
        allowed.retain(|address| match self.policy.verdict(*address) {
            Ok(()) => job.request.family.admits(*address),
            Err(denial) => {
                first_denial.get_or_insert((*address, denial));
                false
            }
        });
        if allowed.is_empty() {
            let failure = match first_denial {
                Some((address, denial)) => Failure::Denied(address, denial),
                None => Failure::Lookup(LookupFailure::NoAddress),
            };
            return self.fail(key, failure);
        }
        let scope = scope_of(&job.request.host);
        self.routes_wanted.extend(allowed.iter().map(|address| (key, with_scope(*address, scope))));
        let candidates = Vec::with_capacity(allowed.len());
        job.state = State::Routing { candidates, awaited: allowed.len() };
    }

    /// Takes in the route to one address; the last one starts the scans.
    pub fn handle_route(&mut self, now: Instant, key: Key, to: IpAddr, route: Route) {
        let Some(job) = self.jobs.get_mut(key) else { return };
        let State::Routing { candidates, awaited } = &mut job.state else { return };
        let source = match route {
            Route::From(source) => Some(source),
            Route::Nowhere => None,
            // Not asked is not refused: the scan itself will show.
            Route::Unknown => Some(Ipv4Addr::UNSPECIFIED.into()),
        };
        candidates.push(Candidate { address: to, source });
        *awaited -= 1;
        if *awaited == 0 {
            self.begin_scans(now, key);
        }
    }

    fn begin_scans(&mut self, now: Instant, key: Key) {
        let Some(job) = self.jobs.get_mut(key) else { return };
        let State::Routing { candidates, .. } = &mut job.state else { return };
        let mut chosen = std::mem::take(candidates);
        assert!(!chosen.is_empty(), "a job is routed to one address at least");
        address::sort(&mut chosen);
        match job.request.addresses {
            Addresses::First => chosen.truncate(1),
            Addresses::All => {}
        }
        let share = chosen.len();
        let is_client = matches!(job.owner, Owner::Client(_));
        if is_client && share > 1 && self.fleet.len() + share > limits::ADDRESS_SCANS_MAX {
            return self.fail(key, Failure::Lookup(LookupFailure::Overloaded));
        }
        let plans: Vec<Plan> = chosen.into_iter().map(|it| plan(job, it, share)).collect();
        let scans = plans.into_iter().map(|plan| self.fleet.begin(now, plan, key)).collect();
        job.state = State::Scanning { scans };
        self.news.push_back((key, News::Began));
    }

    /// Takes in what a probe's connect came to. True exactly when the scan still lives: then the
    /// socket is the caller's to close, else it is closed with the scan's others.
    pub fn handle_outcome(&mut self, now: Instant, at: (Key, ProbeId), outcome: Outcome) -> bool {
        let address = self.fleet.scan(at.0).map(|scan| scan.target().ip());
        let Some(change) = self.fleet.handle_outcome(now, at, outcome) else { return false };
        if let Finding::Port { port, state: PortState::Open, rtt } = change.finding
            && let Some(address) = address
        {
            self.news.push_back((change.job, News::Open { address, port, rtt }));
        }
        if change.is_last {
            self.settle(change.job);
        }
        true
    }

    /// Once a turn: ends what is due. Sockets that are to be closed go to `close`.
    pub fn handle_tick(&mut self, now: Instant, close: impl FnMut(Key)) {
        for (key, job) in self.jobs.iter() {
            if matches!(job.state, State::Resolving) && job.ends_at() <= now {
                let failure = Failure::Lookup(LookupFailure::TimedOut);
                self.news.push_back((key, News::Failed(failure)));
            }
        }
        for job in self.fleet.handle_tick(now, close) {
            self.settle(job);
        }
        self.check_invariants();
    }

    /// Ends a job's scans as they stand; [`News::Ended`] follows if any ran.
    pub fn end(&mut self, key: Key) {
        let Some(Job { state: State::Scanning { scans }, .. }) = self.jobs.get(key) else { return };
        for scan in scans {
            self.fleet.end(*scan);
        }
        self.settle(key);
    }

    /// Takes a job out with the scans it had, in the order of their addresses. Sockets still open
    /// are closed once the scans are given to [`Jobs::abandon`].
    pub fn remove(&mut self, key: Key) -> Option<(Job, Vec<Scan>)> {
        let job = self.jobs.remove(key)?;
        let scans = match &job.state {
            State::Scanning { scans } => {
                scans.iter().filter_map(|scan| self.fleet.remove(*scan)).collect()
            }
            State::Resolving | State::Routing { .. } => Vec::new(),
        };
        Some((job, scans))
    }

    /// Has the sockets closed that removed scans left behind.
    pub fn abandon(&mut self, scans: Vec<Scan>) {
        self.fleet.abandon(scans);
    }

    /// The next thing that happened to a job that still lives, and who hears of it.
    pub fn poll_news(&mut self) -> Option<(Key, Owner, News)> {
        while let Some((key, news)) = self.news.pop_front() {
            if let Some(job) = self.jobs.get(key) {
                return Some((key, job.owner, news));
            }
        }
        None
    }

    /// The next thing to be done: routes to ask for, sockets to close, connects to start.
    pub fn poll_action(&mut self, now: Instant, sockets: &mut Slots<Role>) -> Option<Action> {
        if let Some((request, to)) = self.routes_wanted.pop_front() {
            return Some(Action::FindRoute { request, to });
        }
        self.fleet.poll_action(now, sockets)
    }

    /// Holds all scans together to so many new connects per second.
    pub fn set_rate(&mut self, rate: NonZeroU32) {
        self.fleet.set_rate(rate);
    }

    /// Connects that all jobs together could use at once.
    pub fn need(&self) -> usize {
        let jobs = self.jobs.iter().map(|(_, job)| job);
        let to_begin = jobs.filter(|job| !matches!(job.state, State::Scanning { .. }));
        self.fleet.need() + to_begin.map(|job| job.request.ports.len()).sum::<usize>()
    }

    /// True exactly when something can be done at once that this turn's budgets postponed.
    pub fn has_work(&self, now: Instant) -> bool {
        self.fleet.has_work(now)
    }

    /// When a job has something due by time alone.
    pub fn deadline(&self, now: Instant) -> Option<Instant> {
        let jobs = self.jobs.iter().map(|(_, job)| job);
        let lookups = jobs.filter(|job| matches!(job.state, State::Resolving)).map(Job::ends_at);
        lookups.chain(self.fleet.deadline(now)).min()
    }

    /// One job.
    pub fn job(&self, key: Key) -> Option<&Job> {
        self.jobs.get(key)
    }

    /// A job's scans so far, in the order of their addresses.
    pub fn scans(&self, key: Key) -> impl Iterator<Item = &Scan> {
        let scans = match self.jobs.get(key) {
            Some(Job { state: State::Scanning { scans }, .. }) => scans.as_slice(),
            Some(_) | None => &[],
        };
        scans.iter().filter_map(|scan| self.fleet.scan(*scan))
    }

    /// Every job's key.
    pub fn keys(&self) -> impl Iterator<Item = Key> {
        self.jobs.iter().map(|(key, _)| key)
    }

    /// Jobs under way.
    pub const fn len(&self) -> usize {
        self.jobs.len()
    }

    /// True exactly when no job is under way.
    pub const fn is_empty(&self) -> bool {
        self.jobs.is_empty()
    }

    /// Connects in flight, of all scans.
    pub const fn in_flight(&self) -> usize {
        self.fleet.in_flight()
    }

    /// Connects that may be in flight just now.
    pub const fn capacity(&self) -> usize {
        self.fleet.capacity()
    }

    /// Tells of a job's end once none of its scans runs.
    fn settle(&mut self, key: Key) {
        if self.scans(key).all(|scan| !scan.is_running()) {
            self.news.push_back((key, News::Ended));
        }
    }

    fn fail(&mut self, key: Key, failure: Failure) {
        self.news.push_back((key, News::Failed(failure)));
    }

    fn check_invariants(&self) {
        debug_assert!(
            self.jobs.iter().all(|(_, job)| match &job.state {
                State::Resolving => true,
                State::Routing { awaited, .. } => *awaited > 0,
                State::Scanning { scans } => scans.iter().all(|it| self.fleet.scan(*it).is_some()),
            }),
            "1: a job has what its state says"
        );
    }
}

/// The zone of an IPv6 literal; 0 where there is none.
const fn scope_of(host: &Host) -> u32 {
    match host {
        Host::Address(_, scope) => *scope,
        Host::Name(_) => 0,
    }
}

fn with_scope(address: IpAddr, scope: u32) -> SocketAddr {
    match address {
        IpAddr::V4(_) => SocketAddr::new(address, 0),
        IpAddr::V6(address) => SocketAddrV6::new(address, 0, 0, scope).into(),
    }
}

/// What one of `share` scans of a job is to do: they divide concurrency and rate.
fn plan(job: &Job, candidate: Candidate, share: usize) -> Plan {
    let request = &job.request;
    let asked = request.concurrency.map_or(request.ports.len(), |most| most.get().into());
    let share_of_rate = u32::try_from(share).unwrap_or(u32::MAX);
    Plan {
        target: with_scope(candidate.address, scope_of(&request.host)),
        is_routed: candidate.source.is_some(),
        ports: request.ports.clone(),
        timeout: request.timeout,
        retries: request.retries,
        concurrency: (asked / share).max(1),
        rate: request
            .rate
            .map(|rate| NonZeroU32::new(rate.get() / share_of_rate).unwrap_or(NonZeroU32::MIN)),
        ends_at: job.ends_at(),
    }
}
