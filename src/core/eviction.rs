//! Selects the clients that are closed when connections or memory run short.
//!
//! A client with a running scan is never selected. Of the other clients, those that have sent
//! nothing, or that read nothing of what was sent to them, are selected, the longest-waiting first.
//! This module only selects: `clients` drives it and closes them.

use std::time::{Duration, Instant};

use crate::limits::{
    ACCEPTS_PER_TICK, ANSWER_BYTES_WAITING_MAX, DESCRIPTORS_SPARE, SILENCE_GRACE_PER_PLACE,
};
use crate::slots::Key;

/// The number of idle connections that may be closed in one tick while others are accepted in their
/// place. It is half the number of spare descriptors.
const EVICTIONS_PER_TICK: usize = DESCRIPTORS_SPARE / 2;
/// The maximum number of idle connections that are closed in one tick for clients that are accepted
/// in the next one.
const EVICTIONS_AHEAD_MAX: usize = ACCEPTS_PER_TICK;

/// A client that may be closed to make room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Candidate {
    /// The time from which on it may be closed.
    pub(super) evictable_at: Instant,
    pub(super) client: Key,
    /// The number of bytes that are kept for the client to read.
    pub(super) pending_bytes: usize,
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Eviction {
    /// The number of evictions that are still permitted in this tick.
    left: usize,
    /// The number of evictions for the next tick, if clients wait in this one. It doubles from tick
    /// to tick while clients wait, so that a queue that grows is emptied, and a single client
    /// displaces few others.
    ahead: usize,
    /// Whether clients waited in this tick.
    has_accept_backlog: bool,
    /// The time of the tick. It determines which clients are evictable until the next tick.
    ticked_at: Option<Instant>,
    /// How long a client may be silent while connections are at their cap.
    silence_grace: Duration,
}

impl Eviction {
    /// Permits at most `connections_max` connections.
    pub(super) fn new(connections_max: usize) -> Self {
        let places = u32::try_from(connections_max).unwrap_or(u32::MAX);
        let silence_grace = SILENCE_GRACE_PER_PLACE * places;
        Self {
            left: EVICTIONS_PER_TICK,
            ahead: EVICTIONS_PER_TICK,
            has_accept_backlog: false,
            ticked_at: None,
            silence_grace,
        }
    }

    /// A tick begins.
    pub(super) fn handle_tick(&mut self, now: Instant) {
        self.left = EVICTIONS_PER_TICK;
        self.ahead = match std::mem::take(&mut self.has_accept_backlog) {
            true => EVICTIONS_AHEAD_MAX.min(2 * self.ahead),
            false => EVICTIONS_PER_TICK,
        };
        self.ticked_at = Some(now);
    }

    /// A client was closed to make room for another connection.
    pub(super) const fn handle_evicted(&mut self) {
        self.left = self.left.saturating_sub(1);
    }

    /// Clients wait although this tick permits no more evictions. Returns the number of clients to
    /// close for them, so that they are accepted in the next tick.
    pub(super) const fn handle_accept_backlog(&mut self) -> usize {
        self.has_accept_backlog = true;
        self.ahead
    }

    /// Whether this candidate may be closed by now.
    pub(super) fn is_due(&self, candidate: &Candidate) -> bool {
        self.ticked_at.is_some_and(|now| candidate.evictable_at <= now)
    }

    /// The first `count` clients to be closed, of those that may be closed by now.
    pub(super) fn evictable(&self, count: usize, mut candidates: Vec<Candidate>) -> Vec<Key> {
        candidates.sort_unstable();
        let due = candidates.iter().take(count).filter(|it| self.is_due(it));
        due.map(|candidate| candidate.client).collect()
    }

    /// The time at which the first client may be closed, if it is in the future.
    pub(super) fn next_at(
        now: Instant,
        candidates: impl Iterator<Item = Candidate>,
    ) -> Option<Instant> {
        candidates.min().map(|it| it.evictable_at).filter(|at| *at > now)
    }

    /// The clients to be closed so that `waiting` bytes are reduced to
    /// [`ANSWER_BYTES_WAITING_MAX`]: those that have lagged longest.
    pub(super) fn laggards(mut waiting: usize, mut candidates: Vec<Candidate>) -> Vec<Key> {
        candidates.sort_unstable();
        let mut closed = Vec::new();
        for laggard in candidates.iter().filter(|it| it.pending_bytes > 0) {
            if waiting <= ANSWER_BYTES_WAITING_MAX {
                break;
            }
            waiting -= laggard.pending_bytes;
            closed.push(laggard.client);
        }
        closed
    }

    /// Whether this tick permits another eviction.
    pub(super) const fn is_permitted(&self) -> bool {
        self.left > 0
    }

    /// How long a client may be silent while connections are at their cap.
    pub(super) const fn silence_grace(&self) -> Duration {
        self.silence_grace
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::Core;
    use crate::core::fixtures::{acts, core, is_connected, tick};
    use crate::event::Event;

    /// Regression: a waiting client must not displace clients that have just connected and are
    /// about to send a request.
    #[test]
    fn a_waiting_client_ends_only_the_connections_of_pipelining_clients() {
        let (mut core, now) = (core(2), Instant::now());
        tick(&mut core, now);
        let silent = core.handle_accepted(None, now);
        let flood = core.handle_accepted(None, now);
        let requests = b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n".repeat(100);
        core.handle(Event::Received { socket: flood, bytes: &requests }, now);
        core.handle_accept_backlog(now);
        let answer = String::from_utf8_lossy(core.output(flood)).into_owned();
        assert!(
            !answer.contains("Connection: close"),
            "answers that are already queued do not change"
        );
        let count = core.output(flood).len();
        core.handle(Event::Sent { socket: flood, count }, now);
        let answer = String::from_utf8_lossy(core.output(flood)).into_owned();
        assert!(answer.contains("Connection: close"), "the next answer is the last: {answer}");
        assert!(is_connected(&core, silent), "the client has sent nothing yet");
        let request = b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n";
        core.handle(Event::Received { socket: silent, bytes: request }, now);
        let answer = String::from_utf8_lossy(core.output(silent)).into_owned();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(!answer.contains("Connection: close"), "{answer}");
    }

    /// At the cap, one silent client can be evicted for each waiting connection after the grace
    /// period.
    #[test]
    fn silent_clients_are_evicted_after_their_grace_period_and_not_before() {
        let (mut core, now) = (core(2), Instant::now());
        tick(&mut core, now);
        let first = core.handle_accepted(None, now);
        assert_eq!(
            core.responder.clients().next_evictable_at(now),
            None,
            "connections are below their cap"
        );
        core.handle_accepted(None, now + Duration::from_millis(1));
        let up = now + 2 * SILENCE_GRACE_PER_PLACE;
        assert_eq!(core.responder.clients().next_evictable_at(now), Some(up));
        tick(&mut core, up - Duration::from_nanos(1));
        assert_eq!(core.responder.clients().evictable(1), []);
        tick(&mut core, up);
        assert_eq!(
            core.responder.clients().evictable(1),
            [first],
            "the first client is the one to evict"
        );
        assert!(core.wants_connections());
        core.handle_accepted(None, up);
        assert!(!is_connected(&core, first), "the first client was evicted");
    }

    #[test]
    fn more_silent_clients_are_evicted_from_tick_to_tick_while_others_wait() {
        let (mut core, begun) = (core(200), Instant::now());
        tick(&mut core, begun);
        for _ in 0..200 {
            core.handle_accepted(None, begun);
        }
        let mut now = begun + Duration::from_secs(1);
        let mut evict = |core: &mut Core| {
            now += Duration::from_millis(1);
            tick(core, now);
            let len = core.responder.clients().len();
            core.handle_accept_backlog(now);
            let evicted = len - core.responder.clients().len();
            acts(core, now);
            for _ in 0..evicted {
                core.handle_accepted(None, begun);
            }
            evicted
        };
        let evicted: Vec<usize> = (0..7).map(|_| evict(&mut core)).collect();
        assert_eq!(evicted, [2, 4, 8, 16, 32, 64, 64]);
        tick(&mut core, begun + Duration::from_secs(2));
        assert_eq!(evict(&mut core), 2, "nobody waited in the previous tick");
    }

    #[test]
    fn a_connection_is_accepted_only_after_the_evicted_socket_was_closed() {
        let (mut core, now) = (core(2), Instant::now());
        tick(&mut core, now);
        let first = core.handle_accepted(None, now);
        assert!(core.wants_connections());
        core.handle_accepted(None, now);
        assert!(!core.wants_connections(), "no client is evictable so soon");
        core.handle(Event::Broken { socket: first }, now);
        assert!(!core.wants_connections(), "its descriptor is not closed yet");
        acts(&mut core, now);
        assert!(core.wants_connections());
    }

    /// Regression: answers of 400 KB to readers that read single bytes accumulated without a bound.
    #[test]
    fn only_the_longest_lagging_clients_lose_their_waiting_answers() {
        let mut core = core(8);
        let begun = Instant::now();
        let bytes = b"GET /openapi.json HTTP/1.1\r\nHost: a\r\n\r\n";
        let keys: Vec<Key> = (0..4)
            .map(|n| {
                let now = begun + Duration::from_millis(n);
                let key = core.handle_accepted(None, now);
                core.handle(Event::Received { socket: key, bytes }, now);
                key
            })
            .collect();
        let idle = core.handle_accepted(None, begun);
        let now = begun + Duration::from_secs(1);
        let is_served = |core: &mut Core, key| is_connected(core, key);
        let one = core.output(keys[0]).len();
        assert!(one > 10_000, "{one}");

        make_room(&mut core, now, ANSWER_BYTES_WAITING_MAX - 4 * one);
        assert!(
            keys.iter().all(|key| is_served(&mut core, *key)),
            "all clients fit into the bound"
        );
        make_room(&mut core, now, ANSWER_BYTES_WAITING_MAX - 2 * one - 1);
        let served: Vec<bool> = keys.iter().map(|key| is_served(&mut core, *key)).collect();
        assert_eq!(
            served,
            [false, false, true, true],
            "those that have lagged longest are closed first"
        );
        make_room(&mut core, now, 2 * ANSWER_BYTES_WAITING_MAX);
        assert!(!keys.iter().any(|key| is_served(&mut core, *key)));
        assert!(is_served(&mut core, idle), "no data waits for this client");
    }

    fn make_room(core: &mut Core, now: Instant, bytes: usize) {
        core.clients().make_room(bytes);
        core.route_outputs(now);
    }
}
