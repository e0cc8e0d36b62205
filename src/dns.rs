//! A stub resolver as a state machine (RFC 1034 section 5.3.1, resolv.conf(5)).
//!
//! A lookup consults the hosts file first and then asks the servers, going through the search list.
//! A and AAAA are asked for at the same time, each on a socket of its own. The submodules: `files`
//! (the configuration of the machine), `lookup` (which query comes next), `attempt` (one query on
//! one socket), `wire` (messages), `cache`, `failure` (why no address was found).
//!
//! The resolver never opens a file or a socket and never reads the clock. `core` drives it: it
//! performs each [`Output`] and reports the result through a `handle_*` function. It must call
//! `poll_output` until `None` after every `handle_*`, and must sleep no longer than
//! [`Resolver::deadline`]. It must not report events of a socket after its [`Output::Close`].
//!
//! Invariants, checked after each change in debug builds:
//! 1. every lookup has a waiter, and each waiter waits for exactly one lookup;
//! 2. every attempt belongs to a lookup that knows it, and there are at most `sockets_max`;
//! 3. a lookup is in the queue exactly when one of its queries waits for a socket;
//! 4. after `handle_timeout` the deadline is later than now.
//!
//! Deliberately absent: EDNS, DNSSEC, mDNS, NIS, and numeric spellings of addresses that the target
//! parser does not accept: `0x7f.1` is a name here, and does not exist.

mod attempt;
pub mod cache;
pub mod failure;
pub mod files;
mod lookup;
pub mod wire;

use std::collections::{BTreeMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use crate::dns::attempt::Attempt;
use crate::dns::cache::Cache;
use crate::dns::failure::LookupFailure;
use crate::dns::files::{Files, Freshness, NameFiles, ServerOrder};
use crate::dns::lookup::{Conclusion, Lookup, Search};
use crate::dns::wire::Reply;
use crate::event::Transport;
use crate::host::Family;
use crate::limits;
use crate::slots::{Key, Slots};
use crate::timers::Timers;

/// The question of a caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LookupRequest {
    /// The name in lower case. If it ends in a dot, the search list is not used.
    pub name: Box<str>,
    /// The address families that the caller accepts.
    pub family: Family,
}

/// An action that the resolver requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Read the two files and report them with `handle_name_files`. Not returned again before that.
    ReadNameFiles,
    /// Open a socket and connect it. The caller allocates a key for the socket and passes it to
    /// `handle_opened` at once. It reports the result with `handle_connected`, `handle_broken` or
    /// `handle_shortage`.
    Open {
        /// The key of the attempt, which identifies the socket in every `handle_*`.
        attempt: Key,
        /// The server.
        to: SocketAddr,
        /// TCP, or a connected UDP socket.
        transport: Transport,
    },
    /// Write the bytes that [`Resolver::output`] returns, and read.
    Attend {
        /// The socket of the attempt.
        socket: Key,
    },
    /// Close the socket, which is no longer used. Also returned for one that could not be opened.
    Close {
        /// The socket of the attempt.
        socket: Key,
    },
    /// The end of a lookup for one waiter.
    Answer {
        /// The caller that asked.
        waiter: Key,
        /// At least one address, at most `limits::ADDRESSES_PER_NAME_MAX` per family, without
        /// duplicates, IPv4 first. `address` sorts them.
        result: Result<Vec<IpAddr>, LookupFailure>,
    },
}

/// The resolver; see the header of the module.
#[derive(Debug)]
pub struct Resolver {
    seed: u64,
    /// The number of random ids generated so far.
    drawn: u64,
    /// The number of searches begun so far, by which `rotate` selects the first server.
    begun: usize,
    sockets_max: usize,
    files: Files,
    cache: Cache,
    lookups: Slots<Lookup>,
    attempts: Slots<Attempt>,
    /// The lookup that each waiter waits for.
    waiters: BTreeMap<Key, Key>,
    /// The lookups with a query that waits for a socket. The one that has waited longest comes
    /// first.
    queue: VecDeque<Key>,
    timers: Timers,
    /// The outputs that were not returned yet. Their number is bounded, because an attempt is
    /// opened only when this queue is empty, and a lookup is answered once.
    outputs: VecDeque<Output>,
}

impl Resolver {
    /// A resolver without any configuration, with at most `sockets_max` sockets (1 or more) at a
    /// time. `seed` must be unpredictable, because the ids of messages are derived from it.
    pub fn new(seed: u64, sockets_max: usize) -> Self {
        assert!(sockets_max > 0, "a resolver without a socket resolves nothing");
        Self {
            seed,
            drawn: 0,
            begun: 0,
            sockets_max,
            files: Files::new(),
            cache: Cache::default(),
            lookups: Slots::new(),
            attempts: Slots::new(),
            waiters: BTreeMap::new(),
            queue: VecDeque::new(),
            timers: Timers::default(),
            outputs: VecDeque::new(),
        }
    }

    /// Reports the contents of the two files. If they have changed, they are parsed again and the
    /// cache is emptied, because another server may give other answers. Running lookups keep the
    /// servers with which they began.
    pub fn handle_name_files(&mut self, now: Instant, files: NameFiles<'_>) {
        if self.files.on_read(now, files) {
            self.cache.clear();
        }
        let is_waiting = |(key, lookup): (Key, &Lookup)| lookup.search.is_none().then_some(key);
        let waiting: Vec<Key> = self.lookups.iter().filter_map(is_waiting).collect();
        for key in waiting {
            self.begin(now, key);
        }
        self.check_invariants();
    }

    /// Begins a lookup for `waiter`. The answer comes through `poll_output`, even if it is already
    /// known. A waiter waits for one answer at a time. Equal questions share one lookup and its
    /// deadline; beyond `limits::LOOKUPS_MAX` the answer is [`LookupFailure::Overloaded`].
    pub fn handle_lookup(&mut self, now: Instant, request: LookupRequest, waiter: Key) {
        assert!(!self.waiters.contains_key(&waiter), "a waiter waits for one answer at a time");
        let equal = self.lookups.iter().find(|(_, lookup)| lookup.request == request);
        if let Some(key) = equal.map(|(key, _)| key)
            && let Some(lookup) = self.lookups.get_mut(key)
        {
            lookup.waiters.push(waiter);
            self.waiters.insert(waiter, key);
        } else if self.lookups.len() >= limits::LOOKUPS_MAX {
            let result = Err(LookupFailure::Overloaded);
            self.outputs.push_back(Output::Answer { waiter, result });
        } else {
            let deadline = now + limits::LOOKUP_TIMEOUT;
            let lookup = Lookup { request, waiters: vec![waiter], deadline, search: None };
            let key = self.lookups.insert(lookup);
            self.waiters.insert(waiter, key);
            self.timers.set(key, Some(deadline));
            match self.files.freshness(now) {
                Freshness::Fresh => self.begin(now, key),
                Freshness::Expired => {
                    self.files.on_awaited();
                    self.outputs.push_back(Output::ReadNameFiles);
                }
                Freshness::Awaited => {}
            }
        }
        self.check_invariants();
    }

    /// `waiter` no longer needs the answer and gets none. The lookup ends with its last waiter. A
    /// waiter that waits for nothing is ignored.
    pub fn handle_cancel(&mut self, waiter: Key) {
        let Some(key) = self.waiters.remove(&waiter) else {
            self.outputs.retain(|output| match output {
                Output::Answer { waiter: other, .. } => *other != waiter,
                Output::ReadNameFiles
                | Output::Open { .. }
                | Output::Attend { .. }
                | Output::Close { .. } => true,
            });
            return;
        };
        let Some(lookup) = self.lookups.get_mut(key) else {
            unreachable!("the lookup of a waiter exists");
        };
        lookup.waiters.retain(|other| *other != waiter);
        if lookup.waiters.is_empty() {
            self.end(key);
        }
        self.check_invariants();
    }

    /// The caller assigned this key to the socket of `attempt`.
    pub fn handle_opened(&mut self, attempt: Key, socket: Key) {
        let attempt = self.attempt_mut(attempt);
        assert!(attempt.socket.is_none(), "an attempt has one socket");
        attempt.socket = Some(socket);
    }

    /// The socket of `attempt` is connected: the query can be written.
    pub fn handle_connected(&mut self, attempt: Key) {
        let Some(socket) = self.attempt_mut(attempt).socket else {
            unreachable!("a socket has its key before it is connected");
        };
        self.outputs.push_back(Output::Attend { socket });
    }

    /// Bytes arrived from the server: one datagram, or a piece of the stream.
    pub fn handle_received(&mut self, now: Instant, attempt: Key, bytes: &[u8]) {
        // The reply is not complete yet.
        let Some(reply) = self.attempt_mut(attempt).on_received(bytes) else { return };
        let attempt = self.close(attempt);
        let (key, kind) = (attempt.lookup, attempt.question.kind);
        let search = search_mut(&mut self.lookups, key);
        match reply {
            Reply::Answer { finding, ttl } => {
                search.on_answered(attempt.server);
                search.on_done(now, kind, Ok(finding.clone()));
                if search.version == self.files.version() {
                    self.cache.insert(now, attempt.question, &finding, ttl);
                }
            }
            Reply::Truncated => search.on_truncated(kind),
            Reply::Failure => search.on_failed(now, kind, LookupFailure::ServerFailure),
        }
        self.go_on(now, key);
    }

    /// The kernel accepted `count` bytes of [`Resolver::output`].
    pub fn handle_sent(&mut self, attempt: Key, count: usize) {
        self.attempt_mut(attempt).on_sent(count);
    }

    /// The connect failed, the machine of the server refused the datagram, or the server closed the
    /// stream early. The next server is asked at once.
    pub fn handle_broken(&mut self, now: Instant, attempt: Key) {
        let attempt = self.close(attempt);
        let search = search_mut(&mut self.lookups, attempt.lookup);
        search.on_failed(now, attempt.question.kind, LookupFailure::Unreachable);
        self.go_on(now, attempt.lookup);
    }

    /// This machine is too short of a resource to open the socket. The same query is tried again a
    /// little later, until the lookup ends.
    pub fn handle_shortage(&mut self, now: Instant, attempt: Key) {
        let attempt = self.close(attempt);
        search_mut(&mut self.lookups, attempt.lookup).on_shortage(now, attempt.question.kind);
        self.go_on(now, attempt.lookup);
    }

    /// Time has passed. After this call, [`Resolver::deadline`] is `None` or later than `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(key) = self.timers.pop_due(now) {
            let Some(lookup) = self.lookups.get_mut(key) else {
                unreachable!("the end of a lookup clears its deadline");
            };
            if lookup.is_over(now) {
                let result = lookup.give_up();
                self.answer(key, result);
                continue;
            }
            let timed_out = lookup.search.as_mut().map(|search| search.on_due(now));
            for attempt in timed_out.unwrap_or_default() {
                self.close(attempt);
            }
            self.go_on(now, key);
        }
        assert!(self.deadline().is_none_or(|deadline| deadline > now), "a deadline fires once");
    }

    /// The next action, or `None` if there is none before the next `handle_*`.
    pub fn poll_output(&mut self, now: Instant) -> Option<Output> {
        if let Some(output) = self.outputs.pop_front() {
            return Some(output);
        }
        if self.attempts.len() >= self.sockets_max {
            return None;
        }
        let key = *self.queue.front()?;
        let id = self.draw() as u16;
        let search = search_mut(&mut self.lookups, key);
        let Some(next_query) = search.next_query() else {
            unreachable!("a lookup in the queue has a query that waits for a socket");
        };
        let (to, transport, kind) = (next_query.to, next_query.transport, next_query.question.kind);
        let attempt = self.attempts.insert(Attempt::new(key, next_query, id));
        search.on_started(now, kind, attempt);
        self.go_on(now, key);
        Some(Output::Open { attempt, to, transport })
    }

    /// The time at which `handle_timeout` is due; `None` if the resolver waits for no point in
    /// time.
    pub fn deadline(&self) -> Option<Instant> {
        self.timers.first()
    }

    /// The bytes that are still to be written to the socket of `attempt`: a whole datagram, or the
    /// rest of the stream. Empty if there are none, or if the attempt does not exist.
    pub fn output(&self, attempt: Key) -> &[u8] {
        self.attempts.get(attempt).map_or(&[], Attempt::output)
    }

    /// The number of running lookups.
    pub fn lookups_len(&self) -> usize {
        self.lookups.len()
    }

    /// The number of sockets that are open or requested.
    pub fn sockets_len(&self) -> usize {
        self.attempts.len()
    }

    /// The files are known: answers the lookup from them, or begins the search.
    fn begin(&mut self, now: Instant, key: Key) {
        let conf = &self.files.resolv_conf;
        let first = match conf.order {
            ServerOrder::Fixed => 0,
            ServerOrder::Rotating => self.begun % conf.servers.len(),
        };
        let Some(lookup) = self.lookups.get_mut(key) else {
            unreachable!("the callers begin existing lookups");
        };
        let LookupRequest { name, family } = &lookup.request;
        let mut addresses = self.files.hosts.find(name, *family);
        if addresses.is_empty() {
            addresses = files::find_localhost(name, *family);
        }
        if !addresses.is_empty() {
            return self.answer(key, Ok(addresses));
        }
        self.begun = self.begun.wrapping_add(1);
        lookup.search = Some(Search::new(&lookup.request, conf, first, self.files.version()));
        self.go_on(now, key);
    }

    /// Advances a lookup as far as its results so far permit. The loop ends, because each iteration
    /// uses up a candidate.
    fn go_on(&mut self, now: Instant, key: Key) {
        while let Some(lookup) = self.lookups.get_mut(key)
            && let Some(search) = &mut lookup.search
        {
            match search.conclude() {
                Conclusion::Done(result) => self.answer(key, result),
                Conclusion::NextCandidate => {
                    search.begin_candidate(now, |question| self.cache.find(now, question));
                }
                Conclusion::Pending => {
                    let was_queued = self.queue.contains(&key);
                    match (was_queued, search.wants_socket()) {
                        (false, true) => self.queue.push_back(key),
                        (true, false) => self.queue.retain(|other| *other != key),
                        (false, false) | (true, true) => {}
                    }
                    self.timers.set(key, Some(lookup.due()));
                    break;
                }
            }
        }
        self.check_invariants();
    }

    /// Ends a lookup, and informs all callers that wait for it.
    fn answer(&mut self, key: Key, result: Result<Vec<IpAddr>, LookupFailure>) {
        assert!(result.as_ref().is_ok_and(|found| !found.is_empty()) || result.is_err());
        let Some(lookup) = self.end(key) else { unreachable!("a lookup is answered once") };
        for waiter in lookup.waiters {
            self.waiters.remove(&waiter);
            self.outputs.push_back(Output::Answer { waiter, result: result.clone() });
        }
    }

    /// Removes a lookup together with its attempts, its place in the queue and its deadline.
    fn end(&mut self, key: Key) -> Option<Lookup> {
        let lookup = self.lookups.remove(key)?;
        for attempt in lookup.search.iter().flat_map(Search::attempts) {
            self.close(attempt);
        }
        self.queue.retain(|other| *other != key);
        self.timers.set(key, None);
        Some(lookup)
    }

    /// Removes an attempt, and requests that its socket is closed, if one was requested.
    fn close(&mut self, attempt: Key) -> Attempt {
        let Some(attempt) = self.attempts.remove(attempt) else {
            unreachable!("an attempt ends once");
        };
        if let Some(socket) = attempt.socket {
            self.outputs.push_back(Output::Close { socket });
        }
        attempt
    }

    fn attempt_mut(&mut self, attempt: Key) -> &mut Attempt {
        match self.attempts.get_mut(attempt) {
            Some(attempt) => attempt,
            None => unreachable!("the caller reports no event of a closed socket"),
        }
    }

    /// A number that cannot be guessed without the seed: the SipHash of a counter.
    fn draw(&mut self) -> u64 {
        self.drawn += 1;
        let mut hasher = DefaultHasher::new();
        (self.seed, self.drawn).hash(&mut hasher);
        hasher.finish()
    }

    /// Checks the invariants in the header of the module.
    fn check_invariants(&self) {
        if !cfg!(debug_assertions) {
            return;
        }
        // 1. Every lookup has a waiter, and each waiter waits for exactly one lookup.
        let mut waiters_len = 0;
        for (key, lookup) in self.lookups.iter() {
            assert!(!lookup.waiters.is_empty(), "every lookup has a waiter");
            waiters_len += lookup.waiters.len();
            assert!(lookup.waiters.iter().all(|waiter| self.waiters.get(waiter) == Some(&key)));
            // 3. A lookup is in the queue exactly when it needs a socket.
            let wants_socket = lookup.search.as_ref().is_some_and(Search::wants_socket);
            assert_eq!(self.queue.contains(&key), wants_socket, "the queue is complete");
        }
        assert_eq!(self.waiters.len(), waiters_len, "a waiter waits for one lookup");
        // 2. Every attempt belongs to a lookup that knows it; there are at most `sockets_max`.
        assert!(self.attempts.len() <= self.sockets_max, "the number of sockets is bounded");
        let searches = self.lookups.iter().filter_map(|(_, lookup)| lookup.search.as_ref());
        let known: Vec<Key> = searches.flat_map(Search::attempts).collect();
        assert!(known.iter().all(|attempt| self.attempts.get(*attempt).is_some()));
        assert_eq!(known.len(), self.attempts.len(), "an attempt belongs to one lookup");
    }
}

/// The search of a lookup that has an attempt or is in the queue.
fn search_mut(lookups: &mut Slots<Lookup>, key: Key) -> &mut Search {
    match lookups.get_mut(key).and_then(|lookup| lookup.search.as_mut()) {
        Some(search) => search,
        None => unreachable!("only a lookup that searches has attempts and waits for sockets"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::wire::tests::reply_to;
    use domain::base::Message;
    use domain::base::iana::Rcode;
    use std::time::Duration;

    /// A query that a scripted server receives.
    struct ReceivedQuery<'a> {
        /// The last byte of the server's address; see [`conf`].
        server: u8,
        transport: Transport,
        /// The question, for example `www.a.test A`.
        question: &'a str,
        /// The message, from which a reply is built.
        message: &'a [u8],
        /// A random number, derived from the seed of the world.
        dice: u64,
    }

    /// The reaction of a scripted server.
    enum Act {
        /// The server never answers.
        Silent,
        /// The machine of the server refuses the datagram or the connection.
        Refuse,
        /// This machine has no descriptor for the query.
        Shortage,
        /// The server sends these messages; over TCP, byte by byte.
        Send(Vec<Vec<u8>>),
    }

    type Script = fn(&ReceivedQuery<'_>) -> Act;

    /// A zone of three names. No other name exists below `test`.
    fn answer_well(received: &ReceivedQuery<'_>) -> Act {
        let soa = "test 900 SOA 20";
        let (rcode, record) = match received.question {
            "www.a.test A" => (Rcode::NOERROR, "www.a.test 60 A 192.0.2.1"),
            "www.a.test AAAA" => (Rcode::NOERROR, "www.a.test 30 AAAA 2001:db8::1"),
            "v4.a.test A" => (Rcode::NOERROR, "v4.a.test 60 A 192.0.2.4"),
            "v4.a.test AAAA" | "empty.a.test A" | "empty.a.test AAAA" => (Rcode::NOERROR, soa),
            _ => (Rcode::NXDOMAIN, soa),
        };
        Act::Send(vec![reply_to(received.message, rcode, &[record])])
    }

    fn fail(received: &ReceivedQuery<'_>) -> Act {
        Act::Send(vec![reply_to(received.message, Rcode::SERVFAIL, &[])])
    }

    /// A resolv.conf with this number of servers, from 10.0.0.1 on, and these lines.
    fn conf(servers: u8, lines: &str) -> String {
        let servers = (1..=servers).map(|n| format!("nameserver 10.0.0.{n}\n"));
        servers.collect::<String>() + lines
    }

    /// The environment of a resolver: virtual time, sockets, and servers that follow a script.
    struct World {
        resolver: Resolver,
        start: Instant,
        now: Instant,
        resolv_conf: String,
        hosts: String,
        script: Script,
        /// The state of the random numbers; see [`World::roll`].
        seed: u64,
        /// The open sockets with their attempts and servers.
        sockets: Vec<(Key, Key, SocketAddr, Transport)>,
        sockets_opened: u32,
        sockets_peak: usize,
        files_read: usize,
        /// The last message that a server received.
        query: Vec<u8>,
        /// One line `ms server question` for each query, with `/tcp` after the server if it went
        /// over TCP.
        log: Vec<String>,
        answers: Vec<(Key, Result<Vec<IpAddr>, LookupFailure>)>,
    }

    impl World {
        fn new(resolv_conf: &str, script: Script) -> Self {
            let start = Instant::now();
            Self {
                resolver: Resolver::new(7, 16),
                start,
                now: start,
                resolv_conf: resolv_conf.into(),
                hosts: String::new(),
                script,
                seed: 1,
                sockets: Vec::new(),
                sockets_opened: 0,
                sockets_peak: 0,
                files_read: 0,
                query: Vec::new(),
                log: Vec::new(),
                answers: Vec::new(),
            }
        }

        fn ask(&mut self, name: &str, family: Family, waiter: u32) {
            let request = LookupRequest { name: name.into(), family };
            self.resolver.handle_lookup(self.now, request, Key::from_parts(waiter, 0));
        }

        /// Performs the actions that the resolver requests, until it requests none at this instant.
        fn drain(&mut self) {
            for _ in 0..10_000 {
                let Some(output) = self.resolver.poll_output(self.now) else { return };
                self.perform(output);
            }
            panic!("the resolver never stops requesting actions: {:?}", self.log);
        }

        fn perform(&mut self, output: Output) {
            match output {
                Output::ReadNameFiles => {
                    self.files_read += 1;
                    let files = NameFiles {
                        resolv_conf: Some(self.resolv_conf.as_bytes()),
                        hosts: Some(self.hosts.as_bytes()),
                    };
                    self.resolver.handle_name_files(self.now, files);
                }
                Output::Open { attempt, to, transport } => {
                    let socket = Key::from_parts(1000 + self.sockets_opened, 0);
                    self.sockets_opened += 1;
                    self.sockets.push((socket, attempt, to, transport));
                    self.sockets_peak = self.sockets_peak.max(self.sockets.len());
                    self.resolver.handle_opened(attempt, socket);
                    self.resolver.handle_connected(attempt);
                }
                Output::Attend { socket } => self.serve(socket),
                Output::Close { socket } => {
                    let before = self.sockets.len();
                    self.sockets.retain(|(open, ..)| *open != socket);
                    assert_eq!(self.sockets.len() + 1, before, "an open socket is closed, once");
                }
                Output::Answer { waiter, result } => self.answers.push((waiter, result)),
            }
            assert!(
                self.resolver.sockets_len() <= self.sockets.len(),
                "the resolver knows more sockets than are open"
            );
        }

        /// Takes the query of an attempt, and reacts as the script says.
        fn serve(&mut self, socket: Key) {
            let open = self.sockets.iter().find(|(open, ..)| *open == socket).copied();
            let Some((_, attempt, to, transport)) = open else { return };
            let mut written = self.resolver.output(attempt).to_vec();
            // A stream accepts two bytes first and then the rest.
            let first = if transport == Transport::Tcp { 2 } else { written.len() };
            self.resolver.handle_sent(attempt, first);
            assert_eq!(self.resolver.output(attempt), &written[first..]);
            self.resolver.handle_sent(attempt, written.len() - first);
            if transport == Transport::Tcp {
                let message = written.split_off(2);
                assert_eq!(written, (message.len() as u16).to_be_bytes());
                written = message;
            }
            let request = Message::from_slice(&written).unwrap().sole_question().unwrap();
            let question = format!("{} {}", request.qname(), request.qtype());
            let IpAddr::V4(ip) = to.ip() else { panic!("the script's servers are IPv4") };
            let server = ip.octets()[3];
            let ms = (self.now - self.start).as_millis();
            let suffix = if transport == Transport::Tcp { "/tcp" } else { "" };
            self.log.push(format!("{ms} {server}{suffix} {question}"));
            let dice = self.roll();
            let received =
                ReceivedQuery { server, transport, question: &question, message: &written, dice };
            let act = (self.script)(&received);
            self.query = written;
            match (act, transport) {
                (Act::Silent, _) => {}
                (Act::Refuse, _) => self.resolver.handle_broken(self.now, attempt),
                (Act::Shortage, _) => self.resolver.handle_shortage(self.now, attempt),
                (Act::Send(messages), Transport::Udp) => {
                    for message in messages {
                        self.receive(attempt, &message);
                    }
                }
                (Act::Send(messages), Transport::Tcp) => {
                    for message in messages {
                        let length = (message.len() as u16).to_be_bytes();
                        for byte in [&length[..], &message].concat() {
                            self.receive(attempt, &[byte]);
                        }
                    }
                }
            }
        }

        /// Bytes arrive. As in the service, those that arrive after the end of the attempt are not
        /// passed to the resolver.
        fn receive(&mut self, attempt: Key, bytes: &[u8]) {
            if self.resolver.attempts.get(attempt).is_some() {
                self.resolver.handle_received(self.now, attempt, bytes);
            }
        }

        /// Sleeps exactly to each deadline until no lookup is running.
        fn run(&mut self) {
            self.drain();
            for _ in 0..10_000 {
                let Some(deadline) = self.resolver.deadline() else {
                    assert_eq!(
                        self.resolver.lookups_len(),
                        0,
                        "a lookup without a deadline is left"
                    );
                    assert!(self.sockets.is_empty(), "every socket is closed at the end");
                    return;
                };
                assert!(deadline > self.now, "the deadline is later than now");
                self.now = deadline;
                self.resolver.handle_timeout(self.now);
                self.drain();
            }
            panic!("the resolver never ends: {:?}", self.log);
        }

        /// The next random number (splitmix64).
        fn roll(&mut self) -> u64 {
            self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (self.seed ^ (self.seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            mixed ^ (mixed >> 31)
        }

        /// Runs a lookup to its end and returns the answer as text: the addresses or the label.
        fn look_up(&mut self, name: &str, family: Family) -> String {
            self.ask(name, family, 1);
            self.run();
            let (waiter, result) = self.answers.pop().unwrap();
            assert!(self.answers.is_empty() && waiter == Key::from_parts(1, 0));
            text(&result)
        }

        fn elapsed(&self) -> Duration {
            self.now - self.start
        }
    }

    fn text(result: &Result<Vec<IpAddr>, LookupFailure>) -> String {
        match result {
            Ok(found) => found.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
            Err(failure) => failure.label().into(),
        }
    }

    /// Runs one lookup, and checks its answer and the queries of the servers.
    fn check(mut world: World, name: &str, family: Family, expected: &str, log: &[&str]) {
        assert_eq!(world.look_up(name, family), expected, "{name} {family:?} {:?}", world.log);
        assert_eq!(world.log, log, "{name} {family:?} with {}", world.resolv_conf);
    }

    const BOTH: &str = "192.0.2.1 2001:db8::1";

    #[test]
    fn each_family_is_asked_for_separately() {
        let one = conf(1, "");
        let (a, aaaa) = ("0 1 www.a.test A", "0 1 www.a.test AAAA");
        check(World::new(&one, answer_well), "www.a.test", Family::Any, BOTH, &[a, aaaa]);
        check(World::new(&one, answer_well), "www.a.test.", Family::V4, "192.0.2.1", &[a]);
        check(World::new(&one, answer_well), "www.a.test", Family::V6, "2001:db8::1", &[aaaa]);
        let no_aaaa = conf(1, "options no-aaaa");
        check(World::new(&no_aaaa, answer_well), "www.a.test", Family::Any, "192.0.2.1", &[a]);
        check(World::new(&no_aaaa, answer_well), "www.a.test", Family::V6, "no_address", &[]);
    }

    #[test]
    fn a_name_that_does_not_exist_is_distinguished_from_one_without_an_address() {
        let check = |name: &str, family, expected| {
            let mut world = World::new(&conf(1, ""), answer_well);
            assert_eq!(world.look_up(name, family), expected, "{name}");
            assert_eq!(world.elapsed(), Duration::ZERO);
        };
        check("none.a.test", Family::Any, "unknown_host");
        check("empty.a.test", Family::Any, "no_address");
        check("v4.a.test", Family::V6, "no_address");
        check("v4.a.test", Family::Any, "192.0.2.4");
        check("a..test", Family::Any, "unknown_host");
    }

    #[test]
    fn the_search_list_of_kubernetes_is_gone_through_in_order() {
        let lines = "search b.test svc.test a.test\noptions ndots:5\n";
        check(
            World::new(&conf(1, lines), answer_well),
            "www",
            Family::V4,
            "192.0.2.1",
            &["0 1 www.b.test A", "0 1 www.svc.test A", "0 1 www.a.test A"],
        );
        check(
            World::new(&conf(1, lines), answer_well),
            "www.a.test",
            Family::V4,
            "192.0.2.1",
            &[
                "0 1 www.a.test.b.test A",
                "0 1 www.a.test.svc.test A",
                "0 1 www.a.test.a.test A",
                "0 1 www.a.test A",
            ],
        );
        check(
            World::new(&conf(1, lines), answer_well),
            "www.a.test.",
            Family::V4,
            "192.0.2.1",
            &["0 1 www.a.test A"],
        );
    }

    #[test]
    fn a_name_without_data_is_looked_for_under_the_next_suffix() {
        let script: Script = |received| match received.question {
            "www.b.test A" => Act::Send(vec![reply_to(received.message, Rcode::NOERROR, &[])]),
            _ => answer_well(received),
        };
        let lines = conf(1, "search b.test a.test");
        let log = ["0 1 www.b.test A", "0 1 www.a.test A"];
        check(World::new(&lines, script), "www", Family::V4, "192.0.2.1", &log);
    }

    #[test]
    fn a_server_that_fails_is_followed_by_the_next_one() {
        let script: Script = |received| match received.server {
            1 => fail(received),
            2 => Act::Refuse,
            _ => answer_well(received),
        };
        let log = ["0 1 www.a.test A", "0 2 www.a.test A", "0 3 www.a.test A"];
        check(World::new(&conf(3, ""), script), "www.a.test", Family::V4, "192.0.2.1", &log);
    }

    #[test]
    fn servers_that_all_fail_are_asked_again_after_a_backoff_and_the_failure_is_not_cached() {
        let mut world = World::new(&conf(2, ""), fail);
        assert_eq!(world.look_up("www.a.test", Family::V4), "server_failure");
        let what = "www.a.test A";
        let log = [format!("0 1 {what}"), format!("0 2 {what}")];
        let again = [format!("100 1 {what}"), format!("100 2 {what}")];
        assert_eq!(world.log, [log, again].concat());
        world.script = answer_well;
        assert_eq!(world.look_up("www.a.test", Family::V4), "192.0.2.1");
    }

    #[test]
    fn the_most_severe_failure_is_reported() {
        let check = |script: Script, expected, secs| {
            let mut world = World::new(&conf(2, "options timeout:1 attempts:1"), script);
            assert_eq!(world.look_up("www.a.test", Family::V4), expected);
            assert_eq!(world.elapsed().as_secs(), secs, "{expected}");
        };
        check(|_| Act::Silent, "timed_out", 2);
        check(|_| Act::Refuse, "unreachable", 0);
        check(
            |received| if received.server == 1 { Act::Silent } else { Act::Refuse },
            "timed_out",
            1,
        );
        check(
            |received| if received.server == 2 { Act::Silent } else { fail(received) },
            "server_failure",
            1,
        );
    }

    #[test]
    fn a_failure_about_one_suffix_does_not_end_the_search_list() {
        let script: Script = |received| {
            if received.question.starts_with("www.b") {
                fail(received)
            } else {
                answer_well(received)
            }
        };
        let lines = "search b.test a.test\noptions attempts:1";
        let log = ["0 1 www.b.test A", "0 1 www.a.test A"];
        check(World::new(&conf(1, lines), script), "www", Family::V4, "192.0.2.1", &log);
        let lines = "search b.test\noptions attempts:1";
        let log = ["0 1 www.b.test A", "0 1 www A"];
        check(World::new(&conf(1, lines), script), "www", Family::V4, "server_failure", &log);
    }

    #[test]
    fn a_dead_server_costs_its_timeout_once_for_the_whole_search_list() {
        let script: Script =
            |received| if received.server == 1 { Act::Silent } else { answer_well(received) };
        let lines = conf(2, "search b.test c.test a.test");
        let log = ["0 1 www.b.test A", "5000 2 www.b.test A", "5000 2 www.c.test A"];
        let log = [&log[..], &["5000 2 www.a.test A"]].concat();
        check(World::new(&lines, script), "www", Family::V4, "192.0.2.1", &log);
    }

    #[test]
    fn a_lookup_ends_at_its_deadline_regardless_of_the_servers() {
        let mut world = World::new(&conf(3, "options attempts:5"), |_| Act::Silent);
        assert_eq!(world.look_up("www.a.test", Family::Any), "timed_out");
        assert_eq!(world.elapsed(), limits::LOOKUP_TIMEOUT);
        let mut world = World::new(&conf(1, ""), |_| Act::Shortage);
        assert_eq!(world.look_up("www.a.test", Family::Any), "overloaded");
        assert_eq!(world.elapsed(), limits::LOOKUP_TIMEOUT);
        assert!(world.log.len() < 100, "the backoff grows: {}", world.log.len());
    }

    #[test]
    fn one_family_is_enough_if_the_other_fails_or_is_late() {
        let fails: Script = |received| {
            if received.question.ends_with("AAAA") { fail(received) } else { answer_well(received) }
        };
        let silent: Script = |received| {
            if received.question.ends_with(" A") { Act::Silent } else { answer_well(received) }
        };
        let mut world = World::new(&conf(1, ""), fails);
        assert_eq!(world.look_up("www.a.test", Family::Any), "192.0.2.1");
        let mut world = World::new(&conf(1, ""), silent);
        assert_eq!(world.look_up("www.a.test", Family::Any), "2001:db8::1");
        assert_eq!(world.elapsed(), limits::FAMILY_GRACE);
        world.script = answer_well;
        assert_eq!(
            world.look_up("www.a.test", Family::Any),
            BOTH,
            "an incomplete answer is not cached"
        );
    }

    #[test]
    fn a_truncated_answer_is_asked_for_again_over_tcp_and_read_byte_by_byte() {
        let script: Script = |received| match received.transport {
            Transport::Udp => {
                let mut reply = reply_to(received.message, Rcode::NOERROR, &[]);
                reply[2] |= 2;
                Act::Send(vec![reply])
            }
            Transport::Tcp => answer_well(received),
        };
        let log = ["0 1 www.a.test A", "0 1/tcp www.a.test A"];
        check(World::new(&conf(1, ""), script), "www.a.test", Family::V4, "192.0.2.1", &log);
        let log = ["0 1/tcp www.a.test A"];
        check(
            World::new(&conf(1, "options use-vc"), script),
            "www.a.test",
            Family::V4,
            "192.0.2.1",
            &log,
        );
    }

    #[test]
    fn a_stream_that_is_truncated_foreign_or_closed_is_a_failure() {
        let truncated: Script = |received| {
            let mut reply = reply_to(received.message, Rcode::NOERROR, &[]);
            reply[2] |= 2;
            Act::Send(vec![reply])
        };
        let foreign: Script = |_| Act::Send(vec![b"HTTP/1.1 400 Bad Request\r\n".to_vec()]);
        let empty: Script = |_| Act::Send(vec![Vec::new()]);
        for script in [truncated, foreign, empty] {
            let mut world = World::new(&conf(1, "options use-vc attempts:1"), script);
            assert_eq!(world.look_up("www.a.test", Family::V4), "server_failure");
            assert_eq!(world.log.len(), 1);
        }
    }

    #[test]
    fn datagrams_that_do_not_match_are_ignored_until_the_matching_one_arrives() {
        let script: Script = |received| {
            let lie = ["www.a.test 60 A 203.0.113.66"];
            let good = reply_to(received.message, Rcode::NOERROR, &lie);
            let altered = |place: usize| {
                let mut bytes = good.clone();
                bytes[place] ^= 1;
                bytes
            };
            let (id, name, query) = (altered(1), altered(13), received.message.to_vec());
            let mut messages = vec![id, name, query, Vec::new(), vec![0; 600]];
            if let Act::Send(replies) = answer_well(received) {
                messages.extend(replies);
            }
            messages.push(good);
            Act::Send(messages)
        };
        let log = ["0 1 www.a.test A"];
        check(World::new(&conf(1, ""), script), "www.a.test", Family::V4, "192.0.2.1", &log);
    }

    #[test]
    fn a_loop_of_aliases_is_a_server_failure() {
        let script: Script = |received| match received.server {
            1 => {
                let looped = ["www.a.test 60 CNAME www.a.test"];
                Act::Send(vec![reply_to(received.message, Rcode::NOERROR, &looped)])
            }
            _ => answer_well(received),
        };
        let log = ["0 1 www.a.test A", "0 2 www.a.test A"];
        check(World::new(&conf(2, ""), script), "www.a.test", Family::V4, "192.0.2.1", &log);
    }

    #[test]
    fn a_cached_answer_is_not_asked_for_again_until_it_expires() {
        let mut world = World::new(&conf(1, ""), answer_well);
        let mut check = |secs: u64, name: &str, queries: usize| {
            world.now = world.start + Duration::from_secs(secs);
            world.log.clear();
            let expected = if name == "www.a.test" { BOTH } else { "unknown_host" };
            assert_eq!(world.look_up(name, Family::Any), expected);
            assert_eq!(world.log.len(), queries, "{name} after {secs} s: {:?}", world.log);
        };
        // The zone declares a TTL of 60 s for A, 30 s for AAAA and 20 s for absence.
        check(0, "www.a.test", 2);
        check(29, "www.a.test", 0);
        check(30, "www.a.test", 1);
        check(61, "www.a.test", 2);
        check(100, "none.test", 2);
        check(119, "none.test", 0);
        check(120, "none.test", 2);
    }

    #[test]
    fn equal_questions_share_one_lookup_and_others_do_not() {
        let mut world = World::new(&conf(1, ""), answer_well);
        for waiter in 0..10 {
            world.ask("www.a.test", Family::V4, waiter);
        }
        world.ask("www.a.test", Family::V6, 10);
        assert_eq!(world.resolver.lookups_len(), 2);
        world.run();
        assert_eq!(world.log.len(), 2);
        assert_eq!(world.files_read, 1);
        let answered: Vec<usize> = world.answers.iter().map(|(waiter, _)| waiter.index()).collect();
        assert_eq!(answered, (0..11).collect::<Vec<_>>());
    }

    #[test]
    fn the_last_waiter_that_leaves_closes_the_sockets() {
        let mut world = World::new(&conf(1, ""), |_| Act::Silent);
        world.ask("www.a.test", Family::Any, 1);
        world.ask("www.a.test", Family::Any, 2);
        world.drain();
        assert_eq!((world.sockets.len(), world.resolver.sockets_len()), (2, 2));
        world.resolver.handle_cancel(Key::from_parts(1, 0));
        world.drain();
        assert_eq!(world.sockets.len(), 2, "another waiter is left");
        world.resolver.handle_cancel(Key::from_parts(2, 0));
        world.resolver.handle_cancel(Key::from_parts(2, 0));
        world.drain();
        assert_eq!((world.sockets.len(), world.resolver.lookups_len()), (0, 0));
        assert_eq!(world.resolver.deadline(), None);
        assert_eq!(world.resolver.poll_output(world.now), None);
        assert!(world.answers.is_empty());
    }

    #[test]
    fn a_waiter_that_cancels_before_its_answer_was_polled_gets_none() {
        let mut world = World::new(&conf(1, ""), answer_well);
        world.look_up("www.a.test", Family::Any);
        world.ask("www.a.test", Family::Any, 5);
        world.ask("www.a.test", Family::Any, 6);
        world.resolver.handle_cancel(Key::from_parts(5, 0));
        world.run();
        assert_eq!(
            world.answers,
            [(
                Key::from_parts(6, 0),
                Ok(vec!["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap(),])
            )]
        );
    }

    #[test]
    fn the_hosts_file_and_localhost_take_precedence_over_the_servers() {
        let mut world = World::new(&conf(1, "search a.test"), answer_well);
        world.hosts = "192.0.2.7 www\n127.0.0.9 two.localhost\n192.0.2.8 v4.a.test\n".into();
        for (name, family, expected) in [
            ("www", Family::Any, "192.0.2.7"),
            ("www.", Family::V4, "192.0.2.7"),
            ("localhost", Family::Any, "127.0.0.1 ::1"),
            ("localhost", Family::V6, "::1"),
            ("one.localhost.", Family::V4, "127.0.0.1"),
            ("two.localhost", Family::Any, "127.0.0.9"),
            ("two.localhost", Family::V6, "::1"),
        ] {
            assert_eq!(world.look_up(name, family), expected, "{name}");
        }
        assert!(world.log.is_empty(), "no server got a query");
        assert_eq!(
            world.look_up("www", Family::V6),
            "2001:db8::1",
            "the hosts file has no IPv6 address"
        );
    }

    #[test]
    fn rotate_begins_each_lookup_with_the_next_server() {
        let mut world = World::new(&conf(3, "options rotate"), answer_well);
        for (name, server) in [("n1.test", 1), ("n2.test", 2), ("n3.test", 3), ("n4.test", 1)] {
            world.log.clear();
            world.look_up(name, Family::Any);
            assert_eq!(
                world.log,
                [format!("0 {server} {name} A"), format!("0 {server} {name} AAAA")]
            );
        }
    }

    #[test]
    fn the_files_are_read_again_when_old_and_a_change_empties_the_cache() {
        let mut world = World::new(&conf(1, ""), answer_well);
        let mut check = |secs: u64, change: &str, read: usize, queries: usize| {
            world.now = world.start + Duration::from_secs(secs);
            world.hosts.push_str(change);
            world.log.clear();
            assert_eq!(world.look_up("v4.a.test", Family::V4), "192.0.2.4");
            assert_eq!((world.files_read, world.log.len()), (read, queries), "after {secs} s");
        };
        check(0, "", 1, 1);
        check(4, "# a change that was not read yet", 1, 0);
        check(5, "", 2, 1);
        check(10, "", 3, 0);
        check(14, "", 3, 0);
        check(16, "# another\n192.0.2.4 v4.a.test", 4, 0);
    }

    #[test]
    fn the_answer_of_a_former_server_is_reported_but_not_cached() {
        let mut world = World::new(&conf(1, ""), |_| Act::Silent);
        world.ask("v4.a.test", Family::V4, 1);
        world.drain();
        let attempt = world.sockets[0].1;
        let query = world.query.clone();
        world.now += limits::NAME_FILES_AGE_MAX - Duration::from_millis(1);
        let files = NameFiles { resolv_conf: Some(b"nameserver 10.0.0.9"), hosts: None };
        world.resolver.handle_name_files(world.now, files);
        let reply = reply_to(&query, Rcode::NOERROR, &["v4.a.test 60 A 192.0.2.4"]);
        world.resolver.handle_received(world.now, attempt, &reply);
        world.run();
        assert_eq!(text(&world.answers.pop().unwrap().1), "192.0.2.4");
        assert!(world.resolver.cache.is_empty());
    }

    #[test]
    fn files_that_cannot_be_read_keep_their_contents_and_are_read_again_soon() {
        let mut files = Files::new();
        let now = Instant::now();
        let known = NameFiles {
            resolv_conf: Some(b"nameserver 192.0.2.53"),
            hosts: Some(b"192.0.2.7 known.test"),
        };
        assert!(files.on_read(now, known));
        let (servers, version) = (files.resolv_conf.servers.clone(), files.version());
        assert_eq!(servers, ["192.0.2.53:53".parse().unwrap()]);
        // The files cannot be opened, as with EMFILE.
        let later = now + limits::NAME_FILES_AGE_MAX;
        assert!(!files.on_read(later, NameFiles { resolv_conf: None, ..known }));
        assert!(!files.on_read(later, NameFiles { hosts: None, ..known }));
        assert_eq!((files.resolv_conf.servers.clone(), files.version()), (servers, version));
        let soon = later + limits::NAME_FILES_RETRY;
        assert_eq!(files.freshness(soon - Duration::from_millis(1)), Freshness::Fresh);
        assert_eq!(files.freshness(soon), Freshness::Expired);
        // A file that no longer exists is a different case.
        assert!(files.on_read(soon, NameFiles { resolv_conf: Some(b""), ..known }));
        assert_eq!(files.resolv_conf.servers, ["127.0.0.1:53".parse().unwrap()]);
    }

    #[test]
    fn unreadable_files_mean_their_defaults() {
        let mut world = World::new("", |_| Act::Silent);
        world.ask("www.a.test", Family::V4, 1);
        assert_eq!(world.resolver.poll_output(world.now), Some(Output::ReadNameFiles));
        assert_eq!(world.resolver.poll_output(world.now), None, "the request is returned once");
        world.resolver.handle_name_files(world.now, NameFiles::default());
        let Some(Output::Open { to, .. }) = world.resolver.poll_output(world.now) else {
            panic!("the first output must open a socket");
        };
        assert_eq!(to, "127.0.0.1:53".parse().unwrap());
    }

    #[test]
    fn lookups_beyond_the_bound_are_refused_and_do_not_affect_the_others() {
        let mut world = World::new(&conf(1, ""), |_| Act::Silent);
        for waiter in 0..=limits::LOOKUPS_MAX as u32 {
            world.ask(&format!("n{waiter}.test"), Family::V4, waiter);
        }
        world.drain();
        let last = Key::from_parts(limits::LOOKUPS_MAX as u32, 0);
        assert_eq!(world.answers, [(last, Err(LookupFailure::Overloaded))]);
        assert_eq!(world.resolver.lookups_len(), limits::LOOKUPS_MAX);
        assert_eq!(world.resolver.sockets_len(), 16, "the other lookups are queued");
        world.run();
        assert_eq!(world.answers.len(), limits::LOOKUPS_MAX + 1);
    }

    #[test]
    fn with_one_socket_all_waiters_are_answered_in_turn() {
        let mut world =
            World::new(&conf(2, "search b.test a.test"), |received| match received.server {
                1 => Act::Refuse,
                _ => answer_well(received),
            });
        world.resolver = Resolver::new(7, 1);
        for waiter in 0..20 {
            world.ask(if waiter % 2 == 0 { "www" } else { "v4" }, Family::Any, waiter);
            world.ask(&format!("n{waiter}"), Family::Any, waiter + 100);
        }
        world.run();
        assert_eq!(world.sockets_peak, 1);
        assert_eq!(world.answers.len(), 40);
        for (waiter, result) in &world.answers {
            let expected = match waiter.index() {
                100.. => "unknown_host",
                index if index % 2 == 0 => BOTH,
                _ => "192.0.2.4",
            };
            assert_eq!(text(result), expected);
        }
    }

    #[test]
    fn a_shortage_does_not_count_as_a_failure_of_the_server() {
        let mut world = World::new(&conf(2, "options attempts:1"), |_| Act::Shortage);
        world.ask("www.a.test", Family::V4, 1);
        world.drain();
        assert_eq!(world.resolver.deadline(), Some(world.now + limits::SHORTAGE_BACKOFF_MIN));
        world.script = answer_well;
        world.run();
        assert_eq!(world.log, ["0 1 www.a.test A", "5 1 www.a.test A"], "the same server");
        assert_eq!(text(&world.answers.pop().unwrap().1), "192.0.2.1");
    }

    #[test]
    fn every_waiter_that_does_not_cancel_is_answered_once_despite_all_faults() {
        let script: Script = |received| match received.dice % 9 {
            0 => Act::Silent,
            1 => Act::Refuse,
            2 => Act::Shortage,
            3 => fail(received),
            4 => Act::Send(vec![vec![0; (received.dice >> 8) as usize % 600]]),
            5 => {
                let mut reply = reply_to(received.message, Rcode::NOERROR, &[]);
                reply[2] |= 2;
                Act::Send(vec![reply])
            }
            _ => answer_well(received),
        };
        for seed in 0..256 {
            let lines = "search b.test a.test\noptions timeout:1";
            let mut world = World::new(&conf(1 + (seed % 3) as u8, lines), script);
            world.resolver = Resolver::new(seed, 1 + seed as usize % 5);
            world.seed = seed;
            let mut left = Vec::new();
            for waiter in 0..40 {
                let name = ["www", "v4.a.test", "none", "localhost", "empty"][waiter as usize % 5];
                let family = [Family::Any, Family::V4, Family::V6][world.roll() as usize % 3];
                world.ask(name, family, waiter);
                let key = Key::from_parts(waiter, 0);
                if world.roll().is_multiple_of(4) {
                    world.drain();
                }
                if world.roll().is_multiple_of(4) {
                    world.resolver.handle_cancel(key);
                    left.push(key);
                }
                if let Some(deadline) = world.resolver.deadline()
                    && world.roll().is_multiple_of(4)
                {
                    world.now = deadline;
                    world.resolver.handle_timeout(world.now);
                }
            }
            world.run();
            for waiter in 0..40 {
                let key = Key::from_parts(waiter, 0);
                let answers = world.answers.iter().filter(|(other, _)| *other == key).count();
                // A waiter that cancelled may have been answered before.
                let is_right = answers == 1 || (answers == 0 && left.contains(&key));
                assert!(is_right, "seed {seed}, waiter {waiter}: {answers} answers");
            }
        }
    }

    #[test]
    fn ids_and_seeds_make_queries_differ() {
        let ids = |seed: u64| -> Vec<u64> {
            let mut resolver = Resolver::new(seed, 1);
            (0..1000).map(|_| resolver.draw() & 0xffff).collect()
        };
        let (one, two) = (ids(1), ids(2));
        let equal = one.iter().zip(&two).filter(|(left, right)| left == right).count();
        assert!(equal < 5, "another seed, other ids");
        let distinct: std::collections::BTreeSet<_> = one.iter().collect();
        assert!(distinct.len() > 950, "ids spread over 16 bits: {}", distinct.len());
        assert_eq!(one, ids(1), "a simulation can be replayed");
    }
}
