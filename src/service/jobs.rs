//! Scan requests under way: from the name to the last port.
//!
//! A job is one request to scan: its name is looked up, the addresses are checked against the
//! policy and ordered by route, and one scan runs for each address chosen. All scans share one
//! budget of connects in flight, by need. It knows nothing of HTTP: what happens is told through
//! [`Jobs::poll_news`]. Driven by `service`.
//!
//! Invariants (`check_invariants`): every running scan belongs to a living job and stands in
//! `turns` once; `in_flight` is the sum over running and abandoned scans.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use super::Role;
use super::plans::{plan, scope_of, with_scope};
use crate::address::{self, Candidate};
use crate::api::query::{Addresses, ScanRequest};
use crate::budget::{self, Budget};
use crate::dns::{LookupFailure, Question};
use crate::event::{Action, Outcome, Parting, Route, Transport};
use crate::limits;
use crate::policy::{Denial, Policy};
use crate::scan::probes::ProbeId;
use crate::scan::state::PortState;
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

/// One request to scan.
#[derive(Debug)]
pub struct Job {
    /// What was asked for.
    pub request: ScanRequest,
    /// Who asked.
    pub owner: Key,
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
    pub(super) fn ends_at(&self) -> Instant {
        self.started_at + self.request.deadline
    }
}

#[derive(Debug)]
struct Running {
    scan: Scan,
    job: Key,
}

/// All jobs, their scans, and the budget these share.
#[derive(Debug)]
pub struct Jobs {
    jobs: Slots<Job>,
    scans: Slots<Running>,
    /// Running scans; `turn` is the place of the one that may launch next.
    turns: Vec<Key>,
    turn: usize,
    /// Ended or cancelled scans with sockets still to be closed.
    abandoned: Vec<Scan>,
    budget: Budget,
    in_flight: usize,
    launches_left: usize,
    expiries_left: usize,
    policy: Policy,
    news: VecDeque<(Key, News)>,
    routes_wanted: VecDeque<(Key, SocketAddr)>,
    claims: Vec<usize>,
    order: Vec<usize>,
}

impl Jobs {
    /// No jobs, and a budget of `probes` connects in flight.
    pub fn new(probes: usize, policy: Policy) -> Self {
        Self {
            jobs: Slots::new(),
            scans: Slots::new(),
            turns: Vec::new(),
            turn: 0,
            abandoned: Vec::new(),
            budget: Budget::new(probes),
            in_flight: 0,
            launches_left: limits::LAUNCHES_PER_TURN,
            expiries_left: limits::EXPIRIES_PER_TURN,
            policy,
            news: VecDeque::new(),
            routes_wanted: VecDeque::new(),
            claims: Vec::new(),
            order: Vec::new(),
        }
    }

    /// Takes a request in; what comes of it is told as news.
    pub fn start(&mut self, now: Instant, request: ScanRequest, owner: Key) -> Key {
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
        let mut scans = Vec::with_capacity(share);
        for candidate in chosen {
            let scan = Scan::new(now, plan(job, candidate, share));
            let scan = self.scans.insert(Running { scan, job: key });
            scans.push(scan);
            self.turns.push(scan);
        }
        job.state = State::Scanning { scans };
        self.news.push_back((key, News::Began));
        self.allot();
        self.check_invariants();
    }

    /// Takes in what a probe's connect came to. True exactly when the scan still lives: then the
    /// socket is the caller's to close, else it is closed with the scan's others.
    pub fn handle_outcome(&mut self, now: Instant, at: (Key, ProbeId), outcome: Outcome) -> bool {
        let (key, probe) = at;
        let Some(Running { scan, job }) = self.scans.get_mut(key) else { return false };
        if !scan.is_running() {
            return false;
        }
        self.in_flight -= 1;
        match scan.handle_outcome(now, probe, outcome) {
            Finding::Port { port, state: PortState::Open, rtt } => {
                let address = scan.target().ip();
                self.news.push_back((*job, News::Open { address, port, rtt }));
            }
            Finding::Port { .. } => {}
            Finding::Postponed => self.budget.handle_shortage(now, self.in_flight),
        }
        if !self.scans.get(key).is_some_and(|running| running.scan.is_running()) {
            self.retire(key);
        }
        true
    }

    /// Once a turn: renews the turn's budgets, ends what is due, and divides the connects anew.
    /// Sockets that are to be closed go to `close`.
    pub fn handle_tick(&mut self, now: Instant, mut close: impl FnMut(Key)) {
        self.launches_left = limits::LAUNCHES_PER_TURN;
        self.expiries_left = limits::EXPIRIES_PER_TURN;
        self.budget.handle_timeout(now);
        self.end_lookups(now);
        for place in (0..self.turns.len()).rev() {
            let key = self.turns[place];
            let Some(Running { scan, .. }) = self.scans.get_mut(key) else { continue };
            scan.handle_timeout(now);
            while self.expiries_left > 0
                && let Some(socket) = scan.poll_expired(now)
            {
                self.expiries_left -= 1;
                self.in_flight -= 1;
                close(socket);
            }
            if !scan.is_running() {
                self.retire(key);
            }
        }
        self.allot();
        for place in 0..self.turns.len() {
            let Some(Running { scan, .. }) = self.scans.get_mut(self.turns[place]) else {
                continue;
            };
            while self.expiries_left > 0
                && let Some(socket) = scan.poll_surplus()
            {
                self.expiries_left -= 1;
                self.in_flight -= 1;
                close(socket);
            }
        }
        self.check_invariants();
    }

    /// Ends a job's scans as they stand; [`News::Ended`] follows if any ran.
    pub fn end(&mut self, now: Instant, key: Key) {
        let Some(Job { state: State::Scanning { scans }, .. }) = self.jobs.get(key) else { return };
        for scan in scans.clone() {
            if let Some(Running { scan: running, .. }) = self.scans.get_mut(scan) {
                running.handle_end(now);
            }
            self.retire(scan);
        }
    }

    /// Takes a job out with the scans it had, in the order of their addresses. Sockets still open
    /// are closed by [`Jobs::poll_action`].
    pub fn remove(&mut self, key: Key) -> Option<(Job, Vec<Scan>)> {
        let job = self.jobs.remove(key)?;
        let mut ended = Vec::new();
        if let State::Scanning { scans } = &job.state {
            for scan in scans {
                ended.extend(self.scans.remove(*scan).map(|running| running.scan));
            }
        }
        assert!(ended.iter().all(|scan| !scan.is_running()), "a job is removed after its end");
        Some((job, ended))
    }

    /// Hands over scans whose sockets are to be closed.
    pub fn abandon(&mut self, scans: Vec<Scan>) {
        self.abandoned.extend(scans.into_iter().filter(|scan| scan.in_flight() > 0));
        self.check_invariants();
    }

    /// The next thing that happened to a job that still lives.
    pub fn poll_news(&mut self) -> Option<(Key, News)> {
        while let Some((job, news)) = self.news.pop_front() {
            if self.jobs.get(job).is_some() {
                return Some((job, news));
            }
        }
        None
    }

    /// The next thing to be done: routes to ask for, sockets to close, connects to start.
    pub fn poll_action(&mut self, now: Instant, sockets: &mut Slots<Role>) -> Option<Action> {
        if let Some((request, to)) = self.routes_wanted.pop_front() {
            return Some(Action::FindRoute { request, to });
        }
        while let Some(scan) = self.abandoned.last_mut() {
            if let Some(socket) = scan.poll_abandoned() {
                self.in_flight -= 1;
                sockets.remove(socket);
                return Some(Action::Close { socket, parting: Parting::Ordinary });
            }
            self.abandoned.pop();
        }
        self.poll_launch(now, sockets)
    }

    /// One connect of the scan whose turn it is; the turn then passes on.
    fn poll_launch(&mut self, now: Instant, sockets: &mut Slots<Role>) -> Option<Action> {
        let may_launch = self.launches_left > 0
            && self.in_flight < self.budget.capacity()
            && self.budget.may_launch(now);
        if !may_launch {
            return None;
        }
        for _ in 0..self.turns.len() {
            self.turn = (self.turn + 1) % self.turns.len();
            let key = self.turns[self.turn];
            let Some(Running { scan, .. }) = self.scans.get_mut(key) else { continue };
            if !scan.wants_launch(now) {
                continue;
            }
            let socket = sockets.insert(Role::Reserved);
            let launch = scan.poll_launch(now, socket)?;
            if let Some(role) = sockets.get_mut(socket) {
                *role = Role::Probe { scan: key, probe: launch.probe };
            }
            self.launches_left -= 1;
            self.in_flight += 1;
            let (to, glance) = (launch.to, launch.glance);
            return Some(Action::Connect { socket, to, transport: Transport::Tcp, glance });
        }
        None
    }

    /// Divides the budget between the running scans, by need.
    fn allot(&mut self) {
        self.claims.clear();
        for key in &self.turns {
            self.claims.push(self.scans.get(*key).map_or(0, |running| running.scan.need()));
        }
        budget::share_out(self.budget.capacity(), &mut self.claims, &mut self.order);
        for (key, grant) in self.turns.iter().zip(&self.claims) {
            if let Some(Running { scan, .. }) = self.scans.get_mut(*key) {
                scan.set_allowance(*grant);
            }
        }
    }

    /// Takes an ended scan out of the turns; the last of its job ends the job.
    fn retire(&mut self, key: Key) {
        let Some(place) = self.turns.iter().position(|turn| *turn == key) else { return };
        self.turns.remove(place);
        let Some(Running { job, .. }) = self.scans.get(key) else { return };
        let job = *job;
        let Some(Job { state: State::Scanning { scans }, .. }) = self.jobs.get(job) else { return };
        let still_runs = |scan: &Key| self.turns.contains(scan);
        if !scans.iter().any(still_runs) {
            self.news.push_back((job, News::Ended));
        }
    }

    /// Fails the jobs whose time was up before their name was known.
    fn end_lookups(&mut self, now: Instant) {
        for (key, job) in self.jobs.iter() {
            if matches!(job.state, State::Resolving) && job.ends_at() <= now {
                let failure = Failure::Lookup(LookupFailure::TimedOut);
                self.news.push_back((key, News::Failed(failure)));
            }
        }
    }

    fn fail(&mut self, key: Key, failure: Failure) {
        self.news.push_back((key, News::Failed(failure)));
    }

    /// True exactly when something can be done at once that this turn's budgets postponed.
    pub fn has_work(&self, now: Instant) -> bool {
        let can_launch = self.budget.may_launch(now) && self.in_flight < self.budget.capacity();
        self.turns.iter().filter_map(|key| self.scans.get(*key)).any(|Running { scan, .. }| {
            scan.deadline().is_some_and(|deadline| deadline <= now)
                || scan.has_surplus()
                || can_launch && scan.wants_launch(now)
        })
    }

    /// When a scan or the budget has something due; `None` while neither has.
    pub fn deadline(&self, now: Instant) -> Option<Instant> {
        let scans = self.turns.iter().filter_map(|key| self.scans.get(*key)?.scan.deadline());
        let budget = self.budget.deadline(now).filter(|_| !self.turns.is_empty());
        let lookups = self.jobs.iter().map(|(_, job)| job);
        let lookups = lookups.filter(|job| matches!(job.state, State::Resolving));
        scans.chain(budget).chain(lookups.map(Job::ends_at)).min()
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
        scans.iter().filter_map(|scan| self.scans.get(*scan).map(|running| &running.scan))
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
        self.in_flight
    }

    /// Connects that may be in flight just now.
    pub const fn capacity(&self) -> usize {
        self.budget.capacity()
    }

    fn check_invariants(&self) {
        debug_assert_eq!(
            self.in_flight,
            self.scans.iter().map(|(_, running)| running.scan.in_flight()).sum::<usize>()
                + self.abandoned.iter().map(Scan::in_flight).sum::<usize>(),
            "1: the budget counts what is in flight"
        );
        debug_assert!(
            self.turns.iter().all(|key| {
                self.scans.get(*key).is_some_and(|running| self.jobs.get(running.job).is_some())
            }),
            "2: a running scan belongs to a living job"
        );
    }
}
