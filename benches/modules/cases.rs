//! The measured cases: one function per case, which does its work a given number of times.
//!
//! Each call of a case does the same setup, so the difference between twice and once the rounds is
//! the work without the setup. Assertions check that a case does the work that it names.

use std::hint::black_box;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant, SystemTime};

use openports::access::browser::HostGuard;
use openports::api::accept::Form;
use openports::api::end_writer::write_end;
use openports::api::problem::{Problem, problem_response};
use openports::api::query;
use openports::budget::Shares;
use openports::conn::{Conn, Step};
use openports::core::Core;
use openports::core::options::Options;
use openports::dns::files::NameFiles;
use openports::dns::wire::{self, Question, RecordKind, Reply};
use openports::dns::{LookupRequest, Output, Resolver};
use openports::event::Outcome;
use openports::host::Family;
use openports::http::{self, Parse, Response};
use openports::limits::Settings;
use openports::policy::{Exposure, Policy};
use openports::port_set::PortSet;
use openports::report::log::{Level, LogFormat};
use openports::scan::Scan;
use openports::scan::ledger::{Counts, PortState};
use openports::scan::options::{Retries, ScanOptions};
use openports::scan::plan::{Plan, RateShare};
use openports::scan::summary::{Details, Summary};
use openports::service_names::Names;
use openports::slots::{Key, Slots};
use openports::technique::PerTechnique;
use openports::timers::Timers;

use crate::kernel::{event_loop, tick};

pub(crate) struct Case {
    /// The name in the table and in the record.
    pub(crate) name: &'static str,
    pub(crate) unit: &'static str,
    /// The number of units in one round.
    pub(crate) units: u64,
    /// The number of rounds that is enough for a measurement.
    pub(crate) rounds: u64,
    /// The maximum cost of a round, independent of the record.
    pub(crate) maximum: Option<Maximum>,
    /// Does this number of rounds.
    pub(crate) run: fn(u64),
}

pub(crate) struct Maximum {
    pub(crate) time_max: Duration,
    pub(crate) allocations_max: f64,
}

const fn case(name: &'static str, unit: &'static str, rounds: u64, run: fn(u64)) -> Case {
    Case { name, unit, units: 1, rounds, maximum: None, run }
}

const fn per_port(name: &'static str, run: fn(u64)) -> Case {
    Case { name, unit: "port", units: 65_535, rounds: 1, maximum: None, run }
}

/// The maximum for a response with every port. Its buffer may grow by doubling, but a port must not
/// have its own allocation.
const RESPONSE: Option<Maximum> =
    Some(Maximum { time_max: Duration::from_millis(5), allocations_max: 32.0 });

/// All cases in the order of the table.
pub(crate) const CASES: [Case; 21] = [
    case("http head, 47 bytes", "head", 1_000, |rounds| parse_head(rounds, SMALL)),
    case("http head, 447 bytes", "head", 1_000, |rounds| parse_head(rounds, BROWSER)),
    case("conn, request to answer", "request", 1_000, handle_request),
    case("query of a scan", "query", 1_000, parse_query),
    case("problem, rendered", "problem", 1_000, render_problem),
    case("ports, parsed", "list", 1_000, parse_ports),
    case("ports, as ranges", "list", 10, display_ranges),
    Case {
        maximum: RESPONSE,
        ..case("answer, all closed", "answer", 100, |rounds| write_response(rounds, |_| false))
    },
    Case {
        maximum: RESPONSE,
        ..case("answer, every other open", "answer", 10, |rounds| {
            write_response(rounds, |p| p % 2 == 0)
        })
    },
    per_port("scan, refused at once", scan_refused),
    per_port("scan, silent", scan_silent),
    case("service, health check", "request", 300, |rounds| request(rounds, HEALTH, "200")),
    case("service, validation error", "request", 300, |rounds| request(rounds, INVALID, "400")),
    per_port("service, refused at once", service_refused),
    per_port("service, refused, streamed", service_streamed),
    case("timers, moved", "timer", 10_000, move_timers),
    case("timers, set and due", "timer", 10_000, pop_timers),
    case("slots, in and out", "slot", 10_000, reuse_slots),
    case("dns, query", "query", 1_000, write_queries),
    case("dns, reply", "reply", 1_000, read_replies),
    case("dns, lookup from the cache", "lookup", 1_000, look_up),
];

/// A request of wrk.
const SMALL: &str = "GET /healthz HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n\r\n";

/// A request of a browser.
const BROWSER: &str = "GET / HTTP/1.1\r\nHost: localhost:8080\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n\
    Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/png,*/*;q=0.8\r\n\
    Accept-Language: en-GB,en;q=0.5\r\nAccept-Encoding: gzip, deflate, br, zstd\r\nDNT: 1\r\n\
    Connection: keep-alive\r\nUpgrade-Insecure-Requests: 1\r\nSec-Fetch-Dest: document\r\n\
    Sec-Fetch-Mode: navigate\r\nSec-Fetch-Site: none\r\nSec-Fetch-User: ?1\r\nX: yyyy\r\n\r\n";

const _: () =
    assert!(SMALL.len() == 47 && BROWSER.len() == 447, "the names of the cases have other lengths");

const HEALTH: &str = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
const INVALID: &str = "GET /open-ports?toPort=+1 HTTP/1.1\r\nHost: localhost\r\n\r\n";
const SCAN: &str = "GET /open-ports?domain=127.0.0.1&toPort=65535&include=closed HTTP/1.1\r\n\
    Host: localhost\r\n\r\n";
const QUERY: &str = "domain=example.com&fromPort=1&toPort=65535&timeout=250ms&include=closed";
const DATE: &str = "Mon, 23 Nov 2026 14:11:01 GMT";

fn parse_head(rounds: u64, head: &str) {
    for _ in 0..rounds {
        let parsed = http::parse(black_box(head.as_bytes()));
        assert!(matches!(parsed, Parse::Complete(_)), "{head}");
        black_box(parsed);
    }
}

fn handle_request(rounds: u64) {
    let now = Instant::now();
    let mut conn = Conn::new(now);
    for _ in 0..rounds {
        conn.handle_received(now, black_box(SMALL.as_bytes()));
        let step = conn.poll_step(now);
        assert!(matches!(step, Some(Step::Request(_))), "{step:?}");
        let (fields, body) = (Vec::new(), b"ok".to_vec());
        let response = Response { status: 200, content_type: "text/plain", fields, body };
        conn.respond(now, &response, DATE);
        conn.handle_sent(now, black_box(conn.output()).len());
        assert_eq!(conn.poll_step(now), None);
    }
}

fn parse_query(rounds: u64) {
    let defaults = Settings::default();
    for _ in 0..rounds {
        let parsed = query::parse(black_box(QUERY), &defaults);
        assert!(parsed.is_ok_and(|request| black_box(request).to_port == 65_535));
    }
}

fn render_problem(rounds: u64) {
    let defaults = Settings::default();
    let Err(faults) = query::parse("toPort=+1", &defaults) else { return };
    let problem = Problem::invalid(faults);
    for _ in 0..rounds {
        let response = problem_response(black_box(&problem));
        assert_eq!(black_box(response).status, 400);
    }
}

fn parse_ports(rounds: u64) {
    for _ in 0..rounds {
        let list = black_box("22,80,443,8000-8100,3306,5432,6379,27017,60000-");
        assert!(PortSet::parse(list).is_ok_and(|ports| black_box(ports).len() == 5_644));
    }
}

fn ports(is_in: impl Fn(u16) -> bool) -> PortSet {
    let mut set = PortSet::new();
    for port in (1..=u16::MAX).filter(|port| is_in(*port)) {
        set.insert(port);
    }
    set
}

fn display_ranges(rounds: u64) {
    let scattered = ports(|port| port % 8 == 0);
    for _ in 0..rounds {
        assert!(black_box(&scattered).display_ranges().to_string().ends_with(",65528"));
    }
}

fn write_response(rounds: u64, is_open: fn(u16) -> bool) {
    let (open, closed) = (ports(is_open), ports(|port| !is_open(port)));
    let counts =
        Counts { open: open.len() as u32, closed: closed.len() as u32, ..Counts::default() };
    assert_eq!(counts.total(), 65_535);
    for _ in 0..rounds {
        let summary = Summary {
            from_port: 1,
            to_port: u16::MAX,
            domain: "example.com",
            open: black_box(&open),
            address: Ipv4Addr::LOCALHOST.into(),
            counts,
            complete: true,
            retried: 0,
            loss_suspected: false,
            loss: None,
            elapsed: Duration::from_millis(500),
            closed: Some(black_box(&closed)),
            filtered: None,
            unreachable: None,
            services: None,
            results: None,
            details: Details::default(),
        };
        let mut text = Vec::new();
        write_end(&mut text, Form::Json, &summary);
        assert!(black_box(text).len() > 200);
    }
}

fn scan(now: Instant) -> Scan {
    let mut scan = Scan::new(
        now,
        Plan {
            target: SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0),
            is_routed: true,
            share: RateShare::WHOLE,
            ports: PortSet::from_range(1, u16::MAX),
            options: ScanOptions { retries: Retries::Exactly(0), ..ScanOptions::default() },
            ends_at: now + Duration::from_secs(60),
        },
    );
    scan.set_allowance(65_535);
    scan
}

fn scan_refused(rounds: u64) {
    let now = Instant::now();
    let key = Key::from_parts(0, 0);
    for _ in 0..rounds {
        let mut scan = scan(now);
        while let Some(launch) = scan.poll_launch(now, key) {
            black_box(scan.handle_outcome(now, launch.probe, black_box(Outcome::Refused)));
        }
        assert_eq!(scan.ports(PortState::Closed).len(), 65_535);
    }
}

fn scan_silent(rounds: u64) {
    let start = Instant::now();
    let key = Key::from_parts(0, 0);
    for _ in 0..rounds {
        let mut scan = scan(start);
        while let Some(launch) = scan.poll_launch(start, key) {
            black_box(launch);
        }
        let late = start + Duration::from_secs(2);
        while let Some(socket) = scan.poll_expired(late) {
            black_box(socket);
        }
        assert_eq!(scan.ports(PortState::Filtered).len(), 65_535);
    }
}

fn core() -> Core {
    let exposure = Exposure::LoopbackOnly;
    let options = Options {
        settings: Settings::default(),
        shares: Shares { connections: 1_024, lookups: 128, probes: PerTechnique::new(|_| 16_384) },
        policy: Policy { allow: Vec::new(), deny: Vec::new(), exposure },
        host_guard: HostGuard { exposure, names: Vec::new() },
        token: None,
        proxies: Default::default(),
        names: Names::default(),
        log_level: Level::Info,
        log_format: LogFormat::Logfmt,
        seed: 7,
    };
    Core::new(options, SystemTime::UNIX_EPOCH)
}

/// Sends requests on one connection. The response to each must be complete after one tick.
fn request(rounds: u64, request: &str, status: &str) {
    let mut event_loop = event_loop(core());
    for _ in 0..rounds {
        event_loop.kernel_mut().send(black_box(request.as_bytes()));
        tick(&mut event_loop);
        let answer = &event_loop.kernel().output;
        assert!(answer.starts_with(b"HTTP/1.1 ") && answer[9..].starts_with(status.as_bytes()));
        event_loop.kernel_mut().output.clear();
    }
}

/// Runs a scan through the whole loop and core. Each connect is refused within the call.
fn service_refused(rounds: u64) {
    let mut event_loop = event_loop(core());
    for _ in 0..rounds {
        event_loop.kernel_mut().send(SCAN.as_bytes());
        while event_loop.kernel().output.is_empty() {
            tick(&mut event_loop);
        }
        let answer = String::from_utf8_lossy(&event_loop.kernel().output);
        assert!(answer.contains(r#""closed_ports":"1-65535""#), "{answer}");
        event_loop.kernel_mut().output.clear();
    }
}

/// Runs the same scan as a stream, which reports 64 closed ports in every second tick. The
/// difference to [`service_refused`] is the cost of about 1,000 progress events, five per second.
fn service_streamed(rounds: u64) {
    let mut event_loop = event_loop(core());
    let request = SCAN.replace("\r\n\r\n", "\r\nAccept: application/x-ndjson\r\n\r\n");
    for _ in 0..rounds {
        event_loop.kernel_mut().send(request.as_bytes());
        let (mut reports, mut has_ended) = (0, false);
        while !has_ended {
            event_loop.kernel_mut().now += Duration::from_millis(100);
            tick(&mut event_loop);
            let text = String::from_utf8_lossy(&event_loop.kernel().output);
            reports += usize::from(text.contains(r#","closed_ports":""#));
            has_ended = text.contains(r#""event":"end""#);
            event_loop.kernel_mut().output.clear();
        }
        assert!(reports > 1_000, "{reports} reports");
    }
}

/// The number of timers, as for a thousand clients.
const TIMERS: u32 = 1_000;

fn thousand_timers(now: Instant) -> Timers {
    let mut timers = Timers::default();
    for index in 0..TIMERS {
        let at = now + Duration::from_millis(u64::from(index * 7 % TIMERS));
        timers.set(Key::from_parts(index, 0), Some(at));
    }
    timers
}

fn move_timers(rounds: u64) {
    let now = Instant::now();
    let mut timers = thousand_timers(now);
    for round in 0..rounds {
        let key = Key::from_parts((round * 13 % u64::from(TIMERS)) as u32, 0);
        timers.set(black_box(key), Some(now + Duration::from_millis(1_000 + round)));
    }
    assert!(timers.first().is_some());
}

fn pop_timers(rounds: u64) {
    let now = Instant::now();
    let mut timers = thousand_timers(now);
    for round in 0..rounds {
        let due = timers.pop_due(now + Duration::from_secs(1_000_000));
        let Some(key) = black_box(due) else { unreachable!("all timers are set") };
        timers.set(key, Some(now + Duration::from_millis(1_000 + round)));
    }
}

fn reuse_slots(rounds: u64) {
    let mut slots = Slots::new();
    let mut keys: Vec<Key> = (0..1_000).map(|n| slots.insert(n)).collect();
    for round in 0..rounds {
        let place = (round * 13 % 1_000) as usize;
        assert!(slots.remove(black_box(keys[place])).is_some());
        keys[place] = slots.insert(round);
    }
    assert_eq!(slots.len(), 1_000);
}

fn question() -> Option<Question> {
    let name = wire::wire_name("www.example.com")?;
    Some(Question { name, kind: RecordKind::A })
}

fn write_queries(rounds: u64) {
    let Some(question) = question() else { return };
    for _ in 0..rounds {
        assert_eq!(black_box(wire::query(7, black_box(&question))).len(), 33);
    }
}

/// Returns a reply to the query, with an alias and two addresses.
fn reply_to(query: &[u8]) -> Vec<u8> {
    let mut message = query.to_vec();
    // The flags QR, RD and RA, and three records.
    (message[2], message[3], message[7]) = (0x81, 0x80, 3);
    message.extend([0xc0, 12, 0, 5, 0, 1, 0, 0, 0, 60, 0, 4, 1, b'x', 0xc0, 16]);
    let alias = message.len() as u8 - 4;
    for host in [1, 2] {
        message.extend([0xc0, alias, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, host]);
    }
    message
}

fn read_replies(rounds: u64) {
    let Some(question) = question() else { return };
    let message = reply_to(&wire::query(7, &question));
    for _ in 0..rounds {
        let reply = wire::reply(7, &question, black_box(&message));
        assert!(matches!(black_box(reply), Ok(Reply::Answer { ttl: Some(_), .. })));
    }
}

fn look_up(rounds: u64) {
    let now = Instant::now();
    let mut resolver = Resolver::new(7, 2);
    let conf = b"nameserver 192.0.2.53\nsearch example.com\noptions ndots:1";
    resolver.handle_name_files(now, NameFiles { resolv_conf: Some(conf), hosts: None });
    for round in 0..=rounds {
        let question = LookupRequest { name: "www.example.com".into(), family: Family::V4 };
        resolver.handle_lookup(now, question, Key::from_parts(0, 0));
        let addresses = loop {
            match resolver.poll_output(now) {
                Some(Output::Open { attempt, .. }) => {
                    assert_eq!(round, 0, "a later lookup queries a server");
                    resolver.handle_opened(attempt, Key::from_parts(1, 0));
                    let message = reply_to(resolver.output(attempt));
                    resolver.handle_received(now, attempt, &message);
                }
                Some(Output::Answer { result, .. }) => break result,
                Some(Output::ReadNameFiles | Output::Attend { .. } | Output::Close { .. }) => {}
                None => unreachable!("the resolver has no output before the answer"),
            }
        };
        assert!(black_box(addresses).is_ok_and(|found| found.len() == 2));
    }
}
