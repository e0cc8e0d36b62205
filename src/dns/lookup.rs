//! One lookup: the names it may mean, tried in order; for each name one inquiry per address
//! family; for each inquiry the servers, round after round.
//!
//! A [`Lookup`] knows what to ask next and what the answers so far amount to. It never opens a
//! socket, reads a message or looks into the cache: `dns` does, tells it what came of it with the
//! `on_*` functions, and then asks [`Search::conclude`].
//!
//! Invariants: an inquiry has an attempt under way exactly while it is [`Stage::Asked`]; every
//! deadline lies in the stage that waits for it, so none outlives its reason.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use crate::dns::files::ResolvConf;
use crate::dns::wire::{Finding, RecordKind, Subject, WireName};
use crate::dns::{LookupFailure, Question};
use crate::event::Transport;
use crate::limits;
use crate::slots::Key;
use crate::target::Family;

/// A lookup under way, for everybody who asked the same.
#[derive(Debug)]
pub(super) struct Lookup {
    pub(super) question: Question,
    /// At least one: a lookup nobody waits for is ended.
    pub(super) waiters: Vec<Key>,
    /// When it ends, whatever was found by then.
    pub(super) deadline: Instant,
    /// `None` until resolv.conf and the hosts file are known and fresh.
    pub(super) search: Option<Search>,
}

impl Lookup {
    /// When something is due next.
    pub(super) fn due(&self) -> Instant {
        let inquiries = self.search.iter().flat_map(|search| &search.inquiries);
        let stages = inquiries.filter_map(|inquiry| match inquiry.stage {
            Stage::Asked { until, .. } | Stage::Resting { until, .. } => Some(until),
            Stage::Queued { .. } | Stage::Settled(_) => None,
        });
        let grace = self.search.as_ref().and_then(|search| search.grace);
        stages.chain(grace).fold(self.deadline, Instant::min)
    }

    /// True exactly when no more time is to be spent on it.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        let grace = self.search.as_ref().and_then(|search| search.grace);
        self.deadline <= now || grace.is_some_and(|until| until <= now)
    }

    /// What is to be answered when time is up: the addresses that are known by then, if any.
    pub(super) fn give_up(&self) -> Result<Vec<IpAddr>, LookupFailure> {
        let Some(search) = &self.search else { return Err(LookupFailure::TimedOut) };
        let addresses = search.addresses();
        if !addresses.is_empty() {
            return Ok(addresses);
        }
        let failures = search.inquiries.iter().map(|inquiry| match &inquiry.stage {
            Stage::Queued { .. } | Stage::Resting { .. } => {
                inquiry.failure.unwrap_or(LookupFailure::Overloaded)
            }
            Stage::Asked { .. } | Stage::Settled(_) => LookupFailure::TimedOut,
        });
        Err(failures.max().unwrap_or(LookupFailure::TimedOut))
    }
}

/// What resolv.conf made of the question, and how far it was followed. Servers and options are
/// copied: a file that changes meanwhile is for the next lookup.
#[derive(Debug)]
pub(super) struct Search {
    /// The names still to be tried.
    candidates: std::vec::IntoIter<WireName>,
    kinds: Vec<RecordKind>,
    servers: Vec<SocketAddr>,
    /// Where a new inquiry begins in `servers`: with the one that answered last, so that a dead
    /// server costs its timeout once and not once for every name of the search list.
    server_first: usize,
    tries_max: u32,
    timeout: Duration,
    transport: Transport,
    /// Which text of resolv.conf it goes by; a finding of an older text is not cached.
    pub(super) edition: u64,
    /// The gravest failure about a candidate: without an answer about that one, nobody can say
    /// that the name does not exist.
    failure: Option<LookupFailure>,
    /// What to say if no candidate has an address and none failed.
    absence: LookupFailure,
    /// Once one family is found: how long the other is still waited for.
    grace: Option<Instant>,
    /// One for each kind, about the present candidate; none before the first candidate.
    inquiries: Vec<Inquiry>,
}

/// The question for one kind of record of the present candidate.
#[derive(Debug)]
struct Inquiry {
    subject: Subject,
    /// The server of the first try; the others follow in their order.
    server_first: usize,
    /// Tries that failed.
    tries: u32,
    /// The gravest failure so far.
    failure: Option<LookupFailure>,
    /// How long to rest after the next shortage.
    rest: Duration,
    stage: Stage,
}

/// Where an inquiry stands.
#[derive(Debug)]
enum Stage {
    /// It waits for a socket. No deadline but the lookup's. Left by `on_asked`.
    Queued { transport: Transport },
    /// Nothing is tried before `until`: servers that all failed, or a shortage. Left by `on_due`.
    Resting { until: Instant, transport: Transport },
    /// An attempt is under way. Left by an answer, a failure, or at `until`.
    Asked { attempt: Key, transport: Transport, until: Instant },
    /// Nothing more is asked.
    Settled(Result<Finding, LookupFailure>),
}

/// What to do with a search after something changed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Conclusion {
    /// Something is still being asked.
    Pending,
    /// There is a result.
    Done(Result<Vec<IpAddr>, LookupFailure>),
    /// The present candidate came to nothing, and the next one is to be asked about.
    NextCandidate,
}

/// What an attempt is to ask, and where.
#[derive(Debug)]
pub(super) struct Errand {
    pub(super) subject: Subject,
    pub(super) server: usize,
    pub(super) to: SocketAddr,
    pub(super) transport: Transport,
}

impl Search {
    /// A search for `question` by the rules of `conf`, with no candidate asked about yet.
    pub(super) fn new(
        question: &Question,
        conf: &ResolvConf,
        server_first: usize,
        edition: u64,
    ) -> Self {
        assert!(server_first < conf.servers.len(), "a search begins with a server that exists");
        assert!(conf.rounds > 0, "the servers are gone through at least once");
        let is_asked = |kind: &RecordKind| match kind {
            RecordKind::A => question.family != Family::V6,
            RecordKind::Aaaa => question.family != Family::V4 && conf.family != Family::V4,
        };
        let kinds: Vec<_> =
            [RecordKind::A, RecordKind::Aaaa].into_iter().filter(is_asked).collect();
        // `no-aaaa` answers every AAAA question as if there were no such record.
        let (candidates, absence) = if kinds.is_empty() {
            (Vec::new(), LookupFailure::NoAddress)
        } else {
            (conf.candidates(&question.name), LookupFailure::UnknownHost)
        };
        Self {
            candidates: candidates.into_iter(),
            kinds,
            servers: conf.servers.clone(),
            server_first,
            tries_max: conf.rounds * conf.servers.len() as u32,
            timeout: conf.timeout,
            transport: conf.transport,
            edition,
            failure: None,
            absence,
            grace: None,
            inquiries: Vec::new(),
        }
    }

    /// Goes on to the next candidate. What `find_known` knows about it is not asked.
    pub(super) fn begin_candidate(
        &mut self,
        now: Instant,
        mut find_known: impl FnMut(&Subject) -> Option<Finding>,
    ) {
        assert_eq!(self.conclude(), Conclusion::NextCandidate);
        let Some(name) = self.candidates.next() else { return };
        self.inquiries.clear();
        for kind in self.kinds.clone() {
            let subject = Subject { name: name.clone(), kind };
            let known = find_known(&subject);
            self.inquiries.push(Inquiry {
                subject,
                server_first: self.server_first,
                tries: 0,
                failure: None,
                rest: limits::SHORTAGE_REST_MIN,
                stage: Stage::Queued { transport: self.transport },
            });
            if let Some(finding) = known {
                self.on_settled(now, kind, Ok(finding));
            }
        }
    }

    /// What to do next.
    pub(super) fn conclude(&self) -> Conclusion {
        if self.inquiries.iter().any(|inquiry| !matches!(inquiry.stage, Stage::Settled(_))) {
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

    /// What was found about the present candidate, IPv4 first.
    fn addresses(&self) -> Vec<IpAddr> {
        let found = self.inquiries.iter().filter_map(|inquiry| match &inquiry.stage {
            Stage::Settled(Ok(Finding::Addresses(addresses))) => Some(addresses),
            Stage::Settled(Ok(Finding::NoData | Finding::NoName) | Err(_))
            | Stage::Queued { .. }
            | Stage::Resting { .. }
            | Stage::Asked { .. } => None,
        });
        found.flatten().copied().collect()
    }

    /// The first inquiry that waits for a socket, as an errand.
    pub(super) fn errand(&self) -> Option<Errand> {
        self.inquiries.iter().find_map(|inquiry| match inquiry.stage {
            Stage::Queued { transport } => {
                let server = (inquiry.server_first + inquiry.tries as usize) % self.servers.len();
                let to = self.servers[server];
                Some(Errand { subject: inquiry.subject.clone(), server, to, transport })
            }
            Stage::Resting { .. } | Stage::Asked { .. } | Stage::Settled(_) => None,
        })
    }

    /// True exactly when there is an errand.
    pub(super) fn wants_socket(&self) -> bool {
        self.inquiries.iter().any(|inquiry| matches!(inquiry.stage, Stage::Queued { .. }))
    }

    /// The attempts under way.
    pub(super) fn attempts(&self) -> impl Iterator<Item = Key> {
        self.inquiries.iter().filter_map(|inquiry| match inquiry.stage {
            Stage::Asked { attempt, .. } => Some(attempt),
            Stage::Queued { .. } | Stage::Resting { .. } | Stage::Settled(_) => None,
        })
    }

    /// An attempt was made for the errand about `kind`.
    pub(super) fn on_asked(&mut self, now: Instant, kind: RecordKind, attempt: Key) {
        let until = now + self.timeout;
        if let Some(inquiry) = self.inquiry_mut(kind)
            && let Stage::Queued { transport } = inquiry.stage
        {
            inquiry.stage = Stage::Asked { attempt, transport, until };
        }
    }

    /// The server answered: the next candidate begins with it.
    pub(super) fn on_answered(&mut self, server: usize) {
        assert!(server < self.servers.len(), "an answer comes from a server that was asked");
        self.server_first = server;
    }

    /// Nothing more is to be asked about `kind`.
    pub(super) fn on_settled(
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
        if let Some(inquiry) = self.inquiry_mut(kind) {
            inquiry.stage = Stage::Settled(result);
        }
    }

    /// The answer about `kind` is too long for a datagram: the same server is asked over TCP.
    pub(super) fn on_truncated(&mut self, kind: RecordKind) {
        if let Some(inquiry) = self.inquiry_mut(kind) {
            inquiry.stage = Stage::Queued { transport: Transport::Tcp };
        }
    }

    /// A try about `kind` failed: the next server, after a rest the next round, or the end.
    pub(super) fn on_failed(&mut self, now: Instant, kind: RecordKind, failure: LookupFailure) {
        let (tries_max, transport) = (self.tries_max, self.transport);
        let servers = self.servers.len() as u32;
        let Some(inquiry) = self.inquiry_mut(kind) else { return };
        inquiry.tries += 1;
        inquiry.failure = inquiry.failure.max(Some(failure));
        assert!(inquiry.tries <= tries_max, "an inquiry ends with its last try");
        if inquiry.tries == tries_max {
            let gravest = inquiry.failure.unwrap_or(failure);
            self.on_settled(now, kind, Err(gravest));
        } else if inquiry.tries.is_multiple_of(servers) {
            inquiry.stage = Stage::Resting { until: now + limits::ROUND_REST, transport };
        } else {
            inquiry.stage = Stage::Queued { transport };
        }
    }

    /// We ran short of something: the same try again, after a rest that grows each time.
    pub(super) fn on_shortage(&mut self, now: Instant, kind: RecordKind) {
        let Some(inquiry) = self.inquiry_mut(kind) else { return };
        if let Stage::Asked { transport, .. } = inquiry.stage {
            inquiry.stage = Stage::Resting { until: now + inquiry.rest, transport };
            inquiry.rest = (inquiry.rest * 2).min(limits::SHORTAGE_REST_MAX);
        }
    }

    /// Ends the rests and the attempts whose time is up; the latter's keys come back, to be closed.
    pub(super) fn on_due(&mut self, now: Instant) -> Vec<Key> {
        let mut timed_out = Vec::new();
        for kind in self.kinds.clone() {
            let Some(inquiry) = self.inquiry_mut(kind) else { continue };
            match inquiry.stage {
                Stage::Asked { attempt, until, .. } if until <= now => {
                    timed_out.push(attempt);
                    self.on_failed(now, kind, LookupFailure::TimedOut);
                }
                Stage::Resting { until, transport } if until <= now => {
                    inquiry.stage = Stage::Queued { transport };
                }
                Stage::Asked { .. }
                | Stage::Resting { .. }
                | Stage::Queued { .. }
                | Stage::Settled(_) => {}
            }
        }
        timed_out
    }

    fn inquiry_mut(&mut self, kind: RecordKind) -> Option<&mut Inquiry> {
        self.inquiries.iter_mut().find(|inquiry| inquiry.subject.kind == kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both families ran short of a socket, one a moment after the other.
    #[test]
    fn a_rest_ends_when_its_own_time_is_up() {
        let conf = ResolvConf::parse(b"nameserver 10.0.0.1\n");
        let question = Question { name: "www.a.test.".into(), family: Family::Any };
        let mut search = Search::new(&question, &conf, 0, 1);
        let now = Instant::now();
        search.begin_candidate(now, |_| None);
        let later = now + limits::SHORTAGE_REST_MIN / 2;
        for (at, kind) in [(now, RecordKind::A), (later, RecordKind::Aaaa)] {
            search.on_asked(at, kind, Key::from_parts(0, 0));
            search.on_shortage(at, kind);
        }
        assert!(!search.wants_socket(), "both rest");
        assert_eq!(search.on_due(now + limits::SHORTAGE_REST_MIN), []);
        let errand = search.errand().expect("the first has rested");
        assert_eq!(errand.subject.kind, RecordKind::A);
        search.on_asked(now + limits::SHORTAGE_REST_MIN, RecordKind::A, Key::from_parts(1, 0));
        assert!(!search.wants_socket(), "the other rests on");
        search.on_due(later + limits::SHORTAGE_REST_MIN);
        let errand = search.errand().expect("now it has rested, too");
        assert_eq!(errand.subject.kind, RecordKind::Aaaa);
    }
}
