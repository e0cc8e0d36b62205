//! One lookup: tries the names that the question may mean in order. For each name it makes one
//! query per address family, and for each query it asks the servers, round after round.
//!
//! A [`Lookup`] decides which query comes next and evaluates the answers so far. It never opens a
//! socket, parses a message or reads the cache. `dns` does that, passes the results to the `on_*`
//! functions, and then calls [`Search::conclude`].
//!
//! Invariants: a query has a running attempt exactly while it is [`LookupStage::Running`]; every
//! deadline is part of the stage that waits for it, so no deadline outlives its reason.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use crate::dns::LookupRequest;
use crate::dns::failure::LookupFailure;
use crate::dns::files::ResolvConf;
use crate::dns::wire::{Finding, Question, RecordKind, WireName};
use crate::event::Transport;
use crate::host::Family;
use crate::limits;
use crate::slots::Key;

/// A running lookup, shared by all callers with the same question.
#[derive(Debug)]
pub(super) struct Lookup {
    pub(super) request: LookupRequest,
    /// The callers. There is at least one; a lookup without callers is ended.
    pub(super) waiters: Vec<Key>,
    /// The time at which the lookup ends with the results found by then.
    pub(super) deadline: Instant,
    /// `None` until resolv.conf and the hosts file are fresh.
    pub(super) search: Option<Search>,
}

impl Lookup {
    /// The time at which the next action is due.
    pub(super) fn due(&self) -> Instant {
        let queries = self.search.iter().flat_map(|search| &search.queries);
        let stages = queries.filter_map(|query| match query.stage {
            LookupStage::Running { until, .. } | LookupStage::Backoff { until, .. } => Some(until),
            LookupStage::Queued { .. } | LookupStage::Done(_) => None,
        });
        let grace = self.search.as_ref().and_then(|search| search.grace);
        stages.chain(grace).fold(self.deadline, Instant::min)
    }

    /// Whether the deadline has passed.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        let grace = self.search.as_ref().and_then(|search| search.grace);
        self.deadline <= now || grace.is_some_and(|until| until <= now)
    }

    /// The result at the deadline: the addresses found by then, if there are any.
    pub(super) fn give_up(&self) -> Result<Vec<IpAddr>, LookupFailure> {
        let Some(search) = &self.search else { return Err(LookupFailure::TimedOut) };
        let addresses = search.addresses();
        if !addresses.is_empty() {
            return Ok(addresses);
        }
        let failures = search.queries.iter().map(|query| match &query.stage {
            LookupStage::Queued { .. } | LookupStage::Backoff { .. } => {
                query.failure.unwrap_or(LookupFailure::Overloaded)
            }
            LookupStage::Running { .. } | LookupStage::Done(_) => LookupFailure::TimedOut,
        });
        Err(failures.max().unwrap_or(LookupFailure::TimedOut))
    }
}

/// The plan that resolv.conf gives for the question, and the progress in it. Servers and options
/// are copied, so that a change of the file applies to the next lookup only.
#[derive(Debug)]
pub(super) struct Search {
    /// The names that were not tried yet.
    candidates: std::vec::IntoIter<WireName>,
    kinds: Vec<RecordKind>,
    servers: Vec<SocketAddr>,
    /// The position in `servers` where a new query begins. It is the server that answered last, so
    /// that a dead server costs its timeout once and not once for every name of the search list.
    server_first: usize,
    tries_max: u32,
    timeout: Duration,
    transport: Transport,
    /// The version of resolv.conf on which the search is based. A finding of an older version is
    /// not cached.
    pub(super) version: u64,
    /// The most severe failure about a candidate. If the answer about one candidate is missing, it
    /// is unknown whether the name exists.
    failure: Option<LookupFailure>,
    /// The failure to report if no candidate has an address and no query failed.
    absence: LookupFailure,
    /// The end of the time for the slower family, once the other family has its addresses.
    grace: Option<Instant>,
    /// One query for each kind of record of the current candidate; empty before the first
    /// candidate.
    queries: Vec<PendingQuery>,
}

/// The query for one kind of record of the current candidate.
#[derive(Debug)]
struct PendingQuery {
    question: Question,
    /// The server of the first try; the others follow in the order of the list.
    server_first: usize,
    /// The number of tries that failed.
    tries: u32,
    /// The most severe failure so far.
    failure: Option<LookupFailure>,
    /// The length of the backoff after the next shortage.
    backoff: Duration,
    stage: LookupStage,
}

/// The stage of a query.
#[derive(Debug)]
enum LookupStage {
    /// The query waits for a socket, with no deadline but that of the lookup. `on_started` ends
    /// this stage.
    Queued { transport: Transport },
    /// The query is not tried before `until`, because all servers failed, or after a shortage.
    /// `on_due` ends this stage.
    Backoff { until: Instant, transport: Transport },
    /// An attempt is running. An answer, a failure or the time `until` ends this stage.
    Running { attempt: Key, transport: Transport, until: Instant },
    /// The query is complete.
    Done(Result<Finding, LookupFailure>),
}

/// The next step of a search after a change.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Conclusion {
    /// A query is still running.
    Pending,
    /// The search has a result.
    Done(Result<Vec<IpAddr>, LookupFailure>),
    /// The current candidate has no address, and the next one is to be tried.
    NextCandidate,
}

/// The query that an attempt is to send, and its server.
#[derive(Debug)]
pub(super) struct NextQuery {
    pub(super) question: Question,
    pub(super) server: usize,
    pub(super) to: SocketAddr,
    pub(super) transport: Transport,
}

impl Search {
    /// A search for the question of `request` by the rules of `conf`, before its first candidate.
    pub(super) fn new(
        request: &LookupRequest,
        conf: &ResolvConf,
        server_first: usize,
        version: u64,
    ) -> Self {
        assert!(server_first < conf.servers.len(), "a search begins with a server that exists");
        assert!(conf.rounds > 0, "the servers are gone through at least once");
        let is_asked = |kind: &RecordKind| match kind {
            RecordKind::A => request.family != Family::V6,
            RecordKind::Aaaa => request.family != Family::V4 && conf.family != Family::V4,
        };
        let kinds: Vec<_> =
            [RecordKind::A, RecordKind::Aaaa].into_iter().filter(is_asked).collect();
        // With `no-aaaa`, every AAAA question is answered as if there were no such record.
        let (candidates, absence) = if kinds.is_empty() {
            (Vec::new(), LookupFailure::NoAddress)
        } else {
            (conf.candidates(&request.name), LookupFailure::UnknownHost)
        };
        Self {
            candidates: candidates.into_iter(),
            kinds,
            servers: conf.servers.clone(),
            server_first,
            tries_max: conf.rounds * conf.servers.len() as u32,
            timeout: conf.timeout,
            transport: conf.transport,
            version,
            failure: None,
            absence,
            grace: None,
            queries: Vec::new(),
        }
    }

    /// Begins the next candidate. A query whose finding `find_known` returns is not made.
    pub(super) fn begin_candidate(
        &mut self,
        now: Instant,
        mut find_known: impl FnMut(&Question) -> Option<Finding>,
    ) {
        assert_eq!(self.conclude(), Conclusion::NextCandidate);
        let Some(name) = self.candidates.next() else { return };
        self.queries.clear();
        for kind in self.kinds.clone() {
            let question = Question { name: name.clone(), kind };
            let known = find_known(&question);
            self.queries.push(PendingQuery {
                question,
                server_first: self.server_first,
                tries: 0,
                failure: None,
                backoff: limits::SHORTAGE_BACKOFF_MIN,
                stage: LookupStage::Queued { transport: self.transport },
            });
            if let Some(finding) = known {
                self.on_done(now, kind, Ok(finding));
            }
        }
    }

    /// The next step.
    pub(super) fn conclude(&self) -> Conclusion {
        if self.queries.iter().any(|query| !matches!(query.stage, LookupStage::Done(_))) {
            return Conclusion::Pending;
        }
        let addresses = self.addresses();
        if !addresses.is_empty() {
            return Conclusion::Done(Ok(addresses));
        }
        if self.candidates.len() > 0 {
            return Conclusion::NextCandidate;
        }
        Conclusion::Done(Err(self.failure.unwrap_or(self.absence)))
    }

    /// The addresses of the current candidate, IPv4 first.
    fn addresses(&self) -> Vec<IpAddr> {
        let found = self.queries.iter().filter_map(|query| match &query.stage {
            LookupStage::Done(Ok(Finding::Addresses(addresses))) => Some(addresses),
            LookupStage::Done(Ok(Finding::NoData | Finding::NoName) | Err(_))
            | LookupStage::Queued { .. }
            | LookupStage::Backoff { .. }
            | LookupStage::Running { .. } => None,
        });
        found.flatten().copied().collect()
    }

    /// The first query that waits for a socket.
    pub(super) fn next_query(&self) -> Option<NextQuery> {
        self.queries.iter().find_map(|query| match query.stage {
            LookupStage::Queued { transport } => {
                let server = (query.server_first + query.tries as usize) % self.servers.len();
                let to = self.servers[server];
                Some(NextQuery { question: query.question.clone(), server, to, transport })
            }
            LookupStage::Backoff { .. } | LookupStage::Running { .. } | LookupStage::Done(_) => {
                None
            }
        })
    }

    /// Whether a query waits for a socket.
    pub(super) fn wants_socket(&self) -> bool {
        self.queries.iter().any(|query| matches!(query.stage, LookupStage::Queued { .. }))
    }

    pub(super) fn attempts(&self) -> impl Iterator<Item = Key> {
        self.queries.iter().filter_map(|query| match query.stage {
            LookupStage::Running { attempt, .. } => Some(attempt),
            LookupStage::Queued { .. } | LookupStage::Backoff { .. } | LookupStage::Done(_) => None,
        })
    }

    /// An attempt was begun for the query about `kind`.
    pub(super) fn on_started(&mut self, now: Instant, kind: RecordKind, attempt: Key) {
        let until = now + self.timeout;
        let query = self.query_mut(kind);
        if let LookupStage::Queued { transport } = query.stage {
            query.stage = LookupStage::Running { attempt, transport, until };
        }
    }

    /// The server answered. The next candidate begins with this server.
    pub(super) fn on_answered(&mut self, server: usize) {
        assert!(server < self.servers.len(), "the server is in the list");
        self.server_first = server;
    }

    /// The query about `kind` is complete.
    pub(super) fn on_done(
        &mut self,
        now: Instant,
        kind: RecordKind,
        result: Result<Finding, LookupFailure>,
    ) {
        match &result {
            Ok(Finding::Addresses(_)) => self.grace = Some(now + limits::FAMILY_GRACE),
            Ok(Finding::NoData) => self.absence = LookupFailure::NoAddress,
            Ok(Finding::NoName) => {}
            Err(failure) => self.failure = self.failure.max(Some(*failure)),
        }
        self.query_mut(kind).stage = LookupStage::Done(result);
    }

    /// The answer about `kind` is too long for a datagram. The same server is asked over TCP.
    pub(super) fn on_truncated(&mut self, kind: RecordKind) {
        self.query_mut(kind).stage = LookupStage::Queued { transport: Transport::Tcp };
    }

    /// A try about `kind` failed. It is followed by the next server, by the next round after a
    /// backoff, or by the end of the query.
    pub(super) fn on_failed(&mut self, now: Instant, kind: RecordKind, failure: LookupFailure) {
        let (tries_max, transport) = (self.tries_max, self.transport);
        let servers = self.servers.len() as u32;
        let query = self.query_mut(kind);
        query.tries += 1;
        query.failure = query.failure.max(Some(failure));
        assert!(query.tries <= tries_max, "a query ends with its last try");
        if query.tries == tries_max {
            let gravest = query.failure.unwrap_or(failure);
            self.on_done(now, kind, Err(gravest));
        } else if query.tries.is_multiple_of(servers) {
            query.stage = LookupStage::Backoff { until: now + limits::ROUND_BACKOFF, transport };
        } else {
            query.stage = LookupStage::Queued { transport };
        }
    }

    /// This machine is short of a resource. The same try is repeated after a backoff that grows
    /// each time.
    pub(super) fn on_shortage(&mut self, now: Instant, kind: RecordKind) {
        let query = self.query_mut(kind);
        if let LookupStage::Running { transport, .. } = query.stage {
            query.stage = LookupStage::Backoff { until: now + query.backoff, transport };
            query.backoff = (query.backoff * 2).min(limits::SHORTAGE_BACKOFF_MAX);
        }
    }

    /// Ends the backoffs and the attempts whose time is up. Returns the keys of these attempts,
    /// which must be closed.
    pub(super) fn on_due(&mut self, now: Instant) -> Vec<Key> {
        let mut timed_out = Vec::new();
        for kind in self.kinds.clone() {
            let query = self.query_mut(kind);
            match query.stage {
                LookupStage::Running { attempt, until, .. } if until <= now => {
                    timed_out.push(attempt);
                    self.on_failed(now, kind, LookupFailure::TimedOut);
                }
                LookupStage::Backoff { until, transport } if until <= now => {
                    query.stage = LookupStage::Queued { transport };
                }
                LookupStage::Running { .. }
                | LookupStage::Backoff { .. }
                | LookupStage::Queued { .. }
                | LookupStage::Done(_) => {}
            }
        }
        timed_out
    }

    fn query_mut(&mut self, kind: RecordKind) -> &mut PendingQuery {
        match self.queries.iter_mut().find(|query| query.question.kind == kind) {
            Some(query) => query,
            None => unreachable!("a candidate has a query for each kind"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The queries of both families lack a socket, one a moment after the other.
    #[test]
    fn each_query_ends_its_backoff_at_its_own_time() {
        let conf = ResolvConf::parse(b"nameserver 10.0.0.1\n");
        let request = LookupRequest { name: "www.a.test.".into(), family: Family::Any };
        let mut search = Search::new(&request, &conf, 0, 1);
        let now = Instant::now();
        search.begin_candidate(now, |_| None);
        let later = now + limits::SHORTAGE_BACKOFF_MIN / 2;
        for (at, kind) in [(now, RecordKind::A), (later, RecordKind::Aaaa)] {
            search.on_started(at, kind, Key::from_parts(0, 0));
            search.on_shortage(at, kind);
        }
        assert!(!search.wants_socket(), "both queries are in backoff");
        assert_eq!(search.on_due(now + limits::SHORTAGE_BACKOFF_MIN), []);
        let next_query = search.next_query().expect("the backoff of the first query is over");
        assert_eq!(next_query.question.kind, RecordKind::A);
        search.on_started(now + limits::SHORTAGE_BACKOFF_MIN, RecordKind::A, Key::from_parts(1, 0));
        assert!(!search.wants_socket(), "the other query is still in backoff");
        search.on_due(later + limits::SHORTAGE_BACKOFF_MIN);
        let next_query = search.next_query().expect("its backoff is over now");
        assert_eq!(next_query.question.kind, RecordKind::Aaaa);
    }
}
