//! Who gives way when places or memory run short.
//!
//! A third part of the service's implementation. Whose scan runs never gives way; whoever holds a
//! place and says nothing, takes nothing, or asks without end does, in this order. Decides only
//! who: the closing is that of every other client.

use std::time::Instant;

use super::clients::Client;
use super::{Role, Service};
use crate::conn::reason::CloseReason;
use crate::limits::{ANSWER_BYTES_WAITING_MAX, PARTINGS_PER_TURN, SILENCE_GRACE_PER_PLACE};
use crate::slots::Key;

impl Service {
    /// Who gives way at the cap of connections: of those who say nothing and those who take nothing
    /// of what they were sent, the one that has done so longest.
    pub(super) fn evictable(&self) -> Option<Key> {
        let now = self.ticked_at?;
        self.places().min().filter(|(at, _)| *at <= now).map(|(_, key)| key)
    }

    /// Somebody knocks, and connections are at their cap. Where nobody is idle or lags, those who
    /// send requests without waiting for answers are told with their next answer that it is the
    /// last: they could hold their places for ever.
    pub fn handle_knock(&mut self, now: Instant) {
        if self.clients_len < self.options.shares.connections || self.evictable().is_some() {
            return;
        }
        let pipelining =
            self.clients().filter(|(_, it)| it.is_waiting() && it.conn.is_pipelining());
        let keys: Vec<Key> = pipelining.map(|(key, _)| key).take(PARTINGS_PER_TURN).collect();
        for key in keys {
            if let Some(client) = self.client(key) {
                client.conn.handle_drain(now);
                self.serve(now, key);
            }
        }
    }

    /// When the first gives way, if that is to come and connections are at their cap.
    pub(super) fn next_place_at(&self, now: Instant) -> Option<Instant> {
        if self.clients_len < self.options.shares.connections {
            return None;
        }
        self.places().min().map(|(at, _)| at).filter(|at| *at > now)
    }

    /// Who may give way, and when.
    fn places(&self) -> impl Iterator<Item = (Instant, Key)> {
        let connections = u32::try_from(self.options.shares.connections).unwrap_or(u32::MAX);
        let grace = SILENCE_GRACE_PER_PLACE * connections;
        self.clients().filter_map(move |(key, it)| Some((it.gives_way_at(grace)?, key)))
    }

    fn clients(&self) -> impl Iterator<Item = (Key, &Client)> {
        self.sockets.iter().filter_map(|(key, role)| match role {
            Role::Client(client) => Some((key, &**client)),
            Role::Probe { .. } | Role::Lookup { .. } | Role::Reserved | Role::Closing => None,
        })
    }

    /// Makes room for a client: who holds a connection and says or takes nothing gives way.
    pub(super) fn evict(&mut self, now: Instant) {
        self.evictions_left = self.evictions_left.saturating_sub(1);
        if let Some(key) = self.evictable() {
            self.drop_client(now, key, "evicted");
        }
    }

    /// Keeps what waits for readers within [`ANSWER_BYTES_WAITING_MAX`]: before so many bytes more
    /// are queued, those who lag longest lose what waits for them.
    pub(super) fn make_room(&mut self, now: Instant, bytes: usize) {
        let mut waiting = bytes + self.clients().map(|(_, it)| it.waiting_len()).sum::<usize>();
        if waiting <= ANSWER_BYTES_WAITING_MAX {
            return;
        }
        let len_of = |key| match self.sockets.get(key) {
            Some(Role::Client(client)) => client.waiting_len(),
            Some(Role::Probe { .. } | Role::Lookup { .. } | Role::Reserved | Role::Closing)
            | None => 0,
        };
        let laggards = self.places().map(|(at, key)| (at, key, len_of(key)));
        let mut laggards: Vec<_> = laggards.filter(|(_, _, len)| *len > 0).collect();
        laggards.sort_unstable();
        for (_, key, len) in laggards {
            if waiting <= ANSWER_BYTES_WAITING_MAX {
                return;
            }
            waiting -= len;
            self.drop_client(now, key, CloseReason::Stalled.label());
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::budget::Shares;
    use crate::event::{Action, Event};
    use crate::limits::Settings;
    use crate::names::Names;
    use crate::policy::clients::HostGuard;
    use crate::policy::{Policy, Reach};
    use crate::report::log::{Format, Level};
    use crate::service::Options;

    pub(in crate::service) fn service(connections: usize) -> Service {
        let options = Options {
            settings: Settings::default(),
            shares: Shares { connections, lookups: 2, probes: 10 },
            policy: Policy { allow: Vec::new(), deny: Vec::new(), reach: Reach::LoopbackOnly },
            host_guard: HostGuard { reach: Reach::LoopbackOnly, names: Vec::new() },
            token: None,
            proxies: Default::default(),
            names: Names::default(),
            log_level: Level::Warn,
            log_format: Format::Logfmt,
            seed: 1,
        };
        Service::new(options, SystemTime::UNIX_EPOCH)
    }

    /// What is answered to a new client that asks this, and reads nothing.
    pub(in crate::service) fn ask(service: &mut Service, now: Instant, request: &str) -> String {
        let client = service.handle_accepted(None, now);
        service.handle(Event::Received { socket: client, bytes: request.as_bytes() }, now);
        String::from_utf8_lossy(service.output(client)).into_owned()
    }

    /// All that is to be done now.
    pub(in crate::service) fn acts(service: &mut Service, now: Instant) -> Vec<Action> {
        let mut actions = vec![service.poll_action(now)];
        while !matches!(actions[..], [.., Action::Yield | Action::Wait(_) | Action::Exit(_)]) {
            actions.push(service.poll_action(now));
        }
        actions
    }

    /// The records that are to be written now; what else is to be done is done by nobody.
    pub(in crate::service) fn records(service: &mut Service, now: Instant) -> Vec<String> {
        let record = |action| if let Action::Log(record) = action { Some(record) } else { None };
        acts(service, now).into_iter().filter_map(record).collect()
    }

    /// A turn of the loop begins.
    pub(in crate::service) fn tick(service: &mut Service, now: Instant) {
        let (wall, worked) = (SystemTime::UNIX_EPOCH, Duration::ZERO);
        service.handle(Event::Tick { wall, worked }, now);
    }

    /// Who knocks must not cost those their place who have just come and are about to ask.
    #[test]
    fn a_knock_bids_goodbye_to_those_who_ask_without_end_and_to_nobody_else() {
        let (mut service, now) = (service(2), Instant::now());
        tick(&mut service, now);
        let silent = service.handle_accepted(None, now);
        let flood = service.handle_accepted(None, now);
        let requests = b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n".repeat(100);
        service.handle(Event::Received { socket: flood, bytes: &requests }, now);
        service.handle_knock(now);
        let said = String::from_utf8_lossy(service.output(flood)).into_owned();
        assert!(!said.contains("Connection: close"), "what is answered is answered");
        let count = service.output(flood).len();
        service.handle(Event::Sent { socket: flood, count }, now);
        let said = String::from_utf8_lossy(service.output(flood)).into_owned();
        assert!(said.contains("Connection: close"), "the next answer is the last: {said}");
        assert!(service.client(silent).is_some(), "it has said nothing yet");
        let request = b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n";
        service.handle(Event::Received { socket: silent, bytes: request }, now);
        let said = String::from_utf8_lossy(service.output(silent)).into_owned();
        assert!(said.starts_with("HTTP/1.1 200") && !said.contains("Connection: close"), "{said}");
    }

    /// Places are short: who has come and not spoken gives way after a while for each place.
    #[test]
    fn the_silent_give_way_when_their_time_is_up_and_not_before() {
        let (mut service, now) = (service(2), Instant::now());
        tick(&mut service, now);
        let first = service.handle_accepted(None, now);
        assert_eq!(service.next_place_at(now), None, "there are places");
        service.handle_accepted(None, now + Duration::from_millis(1));
        let up = now + 2 * SILENCE_GRACE_PER_PLACE;
        assert_eq!(service.next_place_at(now), Some(up));
        tick(&mut service, up - Duration::from_nanos(1));
        assert_eq!(service.evictable(), None);
        tick(&mut service, up);
        assert_eq!(service.evictable(), Some(first), "the first to come");
        assert!(service.wants_connections());
        service.handle_accepted(None, up);
        assert!(service.client(first).is_none(), "it gave way");
    }

    #[test]
    fn a_place_is_free_once_its_last_holder_has_really_gone() {
        let (mut service, now) = (service(2), Instant::now());
        tick(&mut service, now);
        let first = service.handle_accepted(None, now);
        assert!(service.wants_connections());
        service.handle_accepted(None, now);
        assert!(!service.wants_connections(), "nobody gives way so soon");
        service.handle(Event::Broken { socket: first }, now);
        assert!(!service.wants_connections(), "its descriptor is not closed yet");
        acts(&mut service, now);
        assert!(service.wants_connections());
    }

    /// Answers of 400 KB to readers that took a byte now and then added up without a bound.
    #[test]
    fn the_longest_laggards_lose_what_waits_for_them_and_nobody_else_does() {
        let mut service = service(8);
        let begun = Instant::now();
        let bytes = b"GET /openapi.json HTTP/1.1\r\nHost: a\r\n\r\n";
        let keys: Vec<Key> = (0..4)
            .map(|n| {
                let now = begun + Duration::from_millis(n);
                let key = service.handle_accepted(None, now);
                service.handle(Event::Received { socket: key, bytes }, now);
                key
            })
            .collect();
        let idle = service.handle_accepted(None, begun);
        let now = begun + Duration::from_secs(1);
        let is_served = |service: &mut Service, key| service.client(key).is_some();
        let one = service.output(keys[0]).len();
        assert!(one > 10_000, "{one}");

        service.make_room(now, ANSWER_BYTES_WAITING_MAX - 4 * one);
        assert!(keys.iter().all(|key| is_served(&mut service, *key)), "there is room for all");
        service.make_room(now, ANSWER_BYTES_WAITING_MAX - 2 * one - 1);
        let served: Vec<bool> = keys.iter().map(|key| is_served(&mut service, *key)).collect();
        assert_eq!(served, [false, false, true, true], "the longest laggards first");
        service.make_room(now, 2 * ANSWER_BYTES_WAITING_MAX);
        assert!(!keys.iter().any(|key| is_served(&mut service, *key)));
        assert!(is_served(&mut service, idle), "nothing waits for it");
    }
}
