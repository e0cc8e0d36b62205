//! The rounds: requests to the service, and checks of their responses. An `Err` is a fault.

use std::collections::BTreeSet;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::LIMIT;
use crate::lab::{HOST_ADDRESS, Host, Outages, Port, TEN_PORTS, Unreachable};
use crate::nameserver::{A, NameServer, Record, Reply};
use crate::web::{Connection, Response, request_once};

type Outcome = Result<(), String>;

/// The name of a round, and its function.
pub(crate) type Round = (&'static str, fn(&World, &mut Rng) -> Outcome);

/// All rounds. One of them is chosen at random each time.
pub(crate) const ROUNDS: &[Round] = &[
    ("200 requests on one connection", keep_alive),
    ("50 connections, one request each", one_shot),
    ("loopback, every port", loopback_all),
    ("loopback, some ports", loopback_some),
    ("a stream of NDJSON", ndjson),
    ("a stream of server-sent events", events),
    ("16 small scans at once", at_once),
    ("a scan cancelled by FIN or RST", cancelled),
    ("malformed requests", malformed),
    ("names", names),
    ("tokens", tokens),
    ("a host 20 ms away, closed", far),
    ("every port of that host", far_all),
    ("a host that loses 5 % each way", lossy),
    ("a silent host", silent),
    ("a host behind ICMP errors", unreachable),
    ("a host that is silent from time to time", outages),
    ("a host of 500 RST a second", limited),
    ("a host that answers on every second port", mixed),
];

/// The ports of the listeners on loopback.
const LISTENERS: [u16; 5] = [22, 2222, 8081, 20_000, 65_535];
const SECRET: &str = "Authorization: Bearer the-secret-of-the-soak\r\n";

const LOSSY: Ipv4Addr = Ipv4Addr::new(10, 99, 1, 2);
const SILENT: Ipv4Addr = Ipv4Addr::new(10, 99, 1, 3);
const BEHIND: Ipv4Addr = Ipv4Addr::new(10, 99, 1, 4);
const WITH_OUTAGES: Ipv4Addr = Ipv4Addr::new(10, 99, 1, 5);
const LIMITED: Ipv4Addr = Ipv4Addr::new(10, 99, 1, 6);
const MIXED: Ipv4Addr = Ipv4Addr::new(10, 99, 1, 7);

/// Returns the simulated hosts. Each has the same ten open ports.
pub(crate) fn hosts() -> Vec<Host> {
    let host = |address: Ipv4Addr, rtt| {
        let host = Host::new(address).rtt(Duration::from_millis(rtt));
        host.ports(&TEN_PORTS, Port::Open)
    };
    let outages = Outages { up: Duration::from_secs(7), down: Duration::from_secs(5) };
    vec![
        host(HOST_ADDRESS, 20),
        host(LOSSY, 30).loss(0.05),
        host(SILENT, 20).rest(Port::Silent),
        host(BEHIND, 2).rest(Port::Unreachable(Unreachable::Host)),
        Host { outages: Some(outages), ..host(WITH_OUTAGES, 10) },
        Host { rst_per_second: Some(500), ..host(LIMITED, 20) },
        host(MIXED, 20).loss(0.01).every(2, Port::Silent),
    ]
}

/// The environment of the rounds.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) service: SocketAddr,
    /// The number of names that were used, which makes each name new.
    names: AtomicU64,
    /// The number of scans, which use the two techniques in turns.
    scans: AtomicU64,
}

impl World {
    /// Starts listeners and a name server, and writes the files of the service to `folder`. The
    /// service must be started later.
    pub(crate) fn create(folder: &Path) -> io::Result<Self> {
        let bind = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port));
        for listener in LISTENERS.into_iter().map(bind).collect::<io::Result<Vec<_>>>()? {
            // Accepts the connections of the scans, because a full backlog drops SYNs.
            std::thread::spawn(move || listener.incoming().for_each(drop));
        }
        NameServer::start("127.0.0.53", |query| match query.name.split('.').next() {
            Some(name) if name.starts_with("host") && query.kind == A => query.answer(HOST_ADDRESS),
            Some(name) if name.starts_with("host") => Reply::Records(Vec::new()),
            Some("cut") if query.is_tcp => query.answer(HOST_ADDRESS),
            Some("cut") => Reply::Truncated,
            Some("forged") if query.kind == A => {
                Reply::Forged(vec![Record::address(&query.name, HOST_ADDRESS)])
            }
            Some("forged") => Reply::Records(Vec::new()),
            Some("broken") => Reply::Code(2),
            Some("silent") => Reply::Silence,
            Some(_) | None => Reply::Code(3),
        });
        let options = "nameserver 127.0.0.53\noptions timeout:1 attempts:2\n";
        std::fs::write(folder.join("resolv.conf"), options)?;
        let token = folder.join("token");
        std::fs::write(&token, "the-secret-of-the-soak\n")?;
        std::fs::set_permissions(token, std::fs::Permissions::from_mode(0o600))?;
        let service = SocketAddr::from(([0, 0, 0, 0], 0));
        Ok(Self { service, names: AtomicU64::new(0), scans: AtomicU64::new(0) })
    }

    fn here(&self) -> BTreeSet<u16> {
        LISTENERS.into_iter().chain([self.service.port()]).collect()
    }

    fn get(&self, target: &str, fields: &str) -> Result<Response, String> {
        let result = request_once(self.service, None, target, LIMIT, fields);
        result.map(|(response, _)| response).map_err(|error| format!("{target}: {error}"))
    }

    /// Returns the target of the next scan, which uses the other technique than the previous one.
    fn target(&self, query: &str) -> String {
        let technique = ["connect", "syn"][self.scans.fetch_add(1, Ordering::Relaxed) as usize % 2];
        format!("/open-ports?{query}&technique={technique}")
    }

    /// Requests a scan, which must have a result.
    fn scan(&self, query: &str) -> Result<Value, String> {
        let target = self.target(query);
        let response = self.get(&target, SECRET)?;
        expect(&format!("the status of {target}: {}", response.body), response.status, 200)?;
        serde_json::from_str(&response.body).map_err(|error| format!("{query}: {error}"))
    }
}

/// A random number generator (SplitMix64).
#[derive(Debug)]
pub(crate) struct Rng(pub(crate) u64);

impl Rng {
    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % end as u64) as usize
    }
}

fn expect<T: PartialEq + std::fmt::Debug>(what: &str, found: T, expected: T) -> Outcome {
    if found == expected { Ok(()) } else { Err(format!("{what}: {found:?}, not {expected:?}")) }
}

fn open_ports(summary: &Value) -> BTreeSet<u16> {
    let ports = summary["open_ports"].as_array().into_iter().flatten();
    ports.filter_map(|port| port.as_u64()?.try_into().ok()).collect()
}

fn count(summary: &Value, state: &str) -> u64 {
    summary["counts"][state].as_u64().unwrap_or(u64::MAX / 8)
}

/// Checks that the counts add up to `total`, and that every reported open port is open.
fn check_sum(summary: &Value, total: u64, truth: &BTreeSet<u16>) -> Result<BTreeSet<u16>, String> {
    let states = ["open", "closed", "filtered", "unreachable", "untested"];
    let sum: u64 = states.iter().map(|state| count(summary, state)).sum();
    expect(&format!("the sum of the counts: {summary}"), sum, total)?;
    let open = open_ports(summary);
    expect("open ports and their count", open.len() as u64, count(summary, "open"))?;
    let wrong: Vec<&u16> = open.difference(truth).collect();
    if wrong.is_empty() { Ok(open) } else { Err(format!("reported as open: {wrong:?}")) }
}

/// Checks that exactly these ports are open, and all others closed.
fn check_exact(summary: &Value, total: u64, truth: &BTreeSet<u16>) -> Outcome {
    let open = check_sum(summary, total, truth)?;
    expect("the open ports", &open, truth)?;
    let closed = total - open.len() as u64;
    expect(&format!("closed ports: {summary}"), count(summary, "closed"), closed)
}

fn ten() -> BTreeSet<u16> {
    TEN_PORTS.into_iter().collect()
}

/// Returns a list of about a thousand ports, which includes the ten, and their number.
fn some_ports(rng: &mut Rng) -> (String, u64) {
    let first = 10_000 + rng.below(9_000) as u16;
    let ports: BTreeSet<u16> = ten().into_iter().chain(first..first + 990).collect();
    let list: Vec<String> = TEN_PORTS.iter().map(u16::to_string).collect();
    (format!("{},{first}-{}", list.join(","), first + 989), ports.len() as u64)
}

fn keep_alive(world: &World, _: &mut Rng) -> Outcome {
    let failed = |error: io::Error| error.to_string();
    let mut connection = Connection::open(world.service, None, LIMIT).map_err(failed)?;
    for index in 0..200 {
        let (target, status) = [
            ("/healthz", 200),
            ("/readyz", 200),
            ("/metrics", 200),
            ("/openapi.json", 200),
            ("/", 200),
            ("/nothing", 404),
            ("/open-ports", 401),
            ("/healthz?x", 200),
        ][index % 8];
        let response = connection.get(target, "").map_err(failed)?;
        expect(target, response.status, status)?;
    }
    Ok(())
}

fn one_shot(world: &World, _: &mut Rng) -> Outcome {
    for _ in 0..50 {
        expect("/healthz", world.get("/healthz", "")?.status, 200)?;
    }
    Ok(())
}

fn loopback_all(world: &World, _: &mut Rng) -> Outcome {
    check_exact(&world.scan("domain=127.0.0.1&toPort=65535")?, 65_535, &world.here())
}

fn loopback_some(world: &World, rng: &mut Rng) -> Outcome {
    for _ in 0..10 {
        let first = 1 + rng.below(40_000);
        let last = first + rng.below(2000);
        let summary = world.scan(&format!("domain=localhost&fromPort={first}&toPort={last}"))?;
        let ports = first as u16..=last as u16;
        let truth = world.here().into_iter().filter(|port| ports.contains(port)).collect();
        check_exact(&summary, (last - first + 1) as u64, &truth)?;
    }
    Ok(())
}

/// Checks that a stream reports each open port once, and ends with the same list.
fn check_events(events: &[Value], truth: &BTreeSet<u16>) -> Outcome {
    let named = |name: &'static str| events.iter().filter(move |event| event["event"] == name);
    let ports: Vec<u64> = named("open").filter_map(|event| event["port"].as_u64()).collect();
    expect("the number of open events", ports.len(), truth.len())?;
    let ports: BTreeSet<u16> = ports.into_iter().filter_map(|port| port.try_into().ok()).collect();
    expect("the ports of open events", &ports, truth)?;
    expect("the number of end events", named("end").count(), 1)?;
    expect("open ports at the end", events.last().map(open_ports), Some(truth.clone()))
}

fn ndjson(world: &World, _: &mut Rng) -> Outcome {
    let fields = format!("{SECRET}Accept: application/x-ndjson\r\n");
    let response = world.get(&world.target("domain=127.0.0.1&toPort=20000"), &fields)?;
    expect("the status", response.status, 200)?;
    let events: Result<Vec<Value>, _> = response.body.lines().map(serde_json::from_str).collect();
    let truth = world.here().into_iter().filter(|port| *port <= 20_000).collect();
    check_events(&events.map_err(|error| error.to_string())?, &truth)
}

fn events(world: &World, rng: &mut Rng) -> Outcome {
    let fields = format!("{SECRET}Accept: text/event-stream\r\n");
    let (list, _) = some_ports(rng);
    let target = world.target(&format!("domain={HOST_ADDRESS}&ports={list}"));
    let response = world.get(&target, &fields)?;
    expect("the status", response.status, 200)?;
    let data = response.body.lines().filter_map(|line| line.strip_prefix("data: "));
    let events: Result<Vec<Value>, _> = data.map(serde_json::from_str).collect();
    check_events(&events.map_err(|error| error.to_string())?, &ten())
}

fn at_once(world: &World, _: &mut Rng) -> Outcome {
    let truth = BTreeSet::from([22]);
    std::thread::scope(|scope| {
        let scans: Vec<_> = (0..16)
            .map(|_| scope.spawn(|| world.scan("domain=127.0.0.1&fromPort=1&toPort=1000")))
            .collect();
        for scan in scans {
            let summary = scan.join().map_err(|_| "a client panicked")??;
            check_exact(&summary, 1000, &truth)?;
        }
        Ok(())
    })
}

/// Starts scans of the silent host, closes their connections, and expects that the number of
/// connects in flight returns to 0.
fn cancelled(world: &World, rng: &mut Rng) -> Outcome {
    let failed = |error: io::Error| error.to_string();
    let mut connections = Vec::new();
    for _ in 0..4 {
        let mut connection = Connection::open(world.service, None, LIMIT).map_err(failed)?;
        let target = world.target(&format!("domain={SILENT}&toPort=8000&timeout=20s"));
        let head = format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n{SECRET}\r\n");
        connection.send(head.as_bytes()).map_err(failed)?;
        connections.push(connection);
    }
    std::thread::sleep(Duration::from_millis(50 + rng.below(400) as u64));
    for connection in &connections {
        if rng.below(2) == 0 {
            connection.reset_when_dropped().map_err(failed)?;
        }
    }
    drop(connections);
    let begun = Instant::now();
    loop {
        let page = world.get("/metrics", "")?.body;
        let value = |name: &str| {
            let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.unwrap_or("?").to_owned()
        };
        let found = value("openports_connects_in_flight");
        if found == "0" {
            return Ok(());
        }
        if begun.elapsed() > Duration::from_secs(10) {
            return Err(format!("{found} connects continue after their clients have gone"));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn malformed(world: &World, _: &mut Rng) -> Outcome {
    let long = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(9000));
    let wide = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "a".repeat(17_000));
    let cases: [(&str, u16); 12] = [
        ("GET / HTTP/1.1\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        ("GET / HTTP/1.1\nHost: a\n\n", 400),
        ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1\r\n\r\nx", 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 400),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n",
            400,
        ),
        ("\x16\x03\x01\x02\x00\x01\x00", 400),
        ("DELETE /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", 405),
        (&long, 414),
        (&wide, 431),
    ];
    for (request, status) in cases {
        let result = Connection::open(world.service, None, LIMIT).and_then(|mut connection| {
            connection.send(request.as_bytes())?;
            connection.read_response()
        });
        let start = request.get(..40).unwrap_or(request);
        let response = result.map_err(|error| format!("{start:?}: {error}"))?;
        expect(start, response.status, status)?;
    }
    Ok(())
}

fn names(world: &World, _: &mut Rng) -> Outcome {
    let fresh = world.names.fetch_add(1, Ordering::Relaxed);
    for name in [&format!("host{fresh}.soak.example"), "host.soak.example", "cut.soak.example"] {
        let summary = world.scan(&format!("domain={name}&ports=20-25"))?;
        expect("the address", &summary["address"], &HOST_ADDRESS.to_string().into())?;
        check_exact(&summary, 6, &BTreeSet::from([22]))?;
    }
    check_exact(&world.scan("domain=forged.soak.example&ports=22")?, 1, &BTreeSet::from([22]))?;
    for (name, status) in [
        (format!("none{fresh}.soak.example"), 422),
        ("broken.soak.example".to_owned(), 502),
        ("silent.soak.example".to_owned(), 504),
    ] {
        let target = format!("/open-ports?domain={name}&toPort=1&deadline=2s");
        expect(&name, world.get(&target, SECRET)?.status, status)?;
    }
    Ok(())
}

fn tokens(world: &World, _: &mut Rng) -> Outcome {
    let target = "/open-ports?domain=127.0.0.1&ports=22";
    for (fields, status) in [
        ("", 401),
        ("Authorization: Bearer the-secret-of-the-soaks\r\n", 401),
        ("Authorization: Basic the-secret-of-the-soak\r\n", 401),
        (SECRET, 200),
    ] {
        expect(fields, world.get(target, fields)?.status, status)?;
    }
    Ok(())
}

fn far(world: &World, rng: &mut Rng) -> Outcome {
    let (list, total) = some_ports(rng);
    check_exact(&world.scan(&format!("domain={HOST_ADDRESS}&ports={list}"))?, total, &ten())
}

fn far_all(world: &World, _: &mut Rng) -> Outcome {
    check_exact(&world.scan(&format!("domain={HOST_ADDRESS}&toPort=65535"))?, 65_535, &ten())
}

/// With loss, open ports may be missing, but no port may have a wrong state.
fn lossy(world: &World, rng: &mut Rng) -> Outcome {
    let (list, total) = some_ports(rng);
    let summary = world.scan(&format!("domain={LOSSY}&ports={list}&include=closed"))?;
    check_sum(&summary, total, &ten())?;
    check_not_closed(&summary)
}

/// Checks that none of the ten open ports is in the ranges of closed ports.
fn check_not_closed(summary: &Value) -> Outcome {
    let ranges = summary["closed_ports"].as_str().ok_or("there are no closed ports")?;
    for range in ranges.split(',').filter(|range| !range.is_empty()) {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let bound = |text: &str| text.parse::<u16>().map_err(|_| format!("a range {range}"));
        let (first, last) = (bound(first)?, bound(last)?);
        if let Some(port) = TEN_PORTS.iter().find(|port| (first..=last).contains(port)) {
            return Err(format!("{port} is open, but reported as closed"));
        }
    }
    Ok(())
}

fn silent(world: &World, rng: &mut Rng) -> Outcome {
    let (list, total) = some_ports(rng);
    let query = format!("domain={SILENT}&ports={list}&timeout=1500ms");
    let summary = world.scan(&query)?;
    let open = check_sum(&summary, total, &ten())?;
    expect("the open ports", &open, &ten())?;
    expect("filtered ports", count(&summary, "filtered"), total - 10)
}

fn unreachable(world: &World, rng: &mut Rng) -> Outcome {
    let (list, total) = some_ports(rng);
    let summary = world.scan(&format!("domain={BEHIND}&ports={list}&timeout=1500ms"))?;
    let open = check_sum(&summary, total, &ten())?;
    expect("the open ports", &open, &ten())?;
    // For a socket in use, the kernel only records an ICMP error as a soft error, and the next
    // error may arrive after the deadline. So some ports may be filtered, but none closed.
    expect("closed ports", count(&summary, "closed"), 0)
}

fn outages(world: &World, rng: &mut Rng) -> Outcome {
    let (list, total) = some_ports(rng);
    let query =
        format!("domain={WITH_OUTAGES}&ports={list}&timeout=1500ms&include=closed&retries=1");
    let summary = world.scan(&query)?;
    check_sum(&summary, total, &ten())?;
    check_not_closed(&summary)
}

fn limited(world: &World, rng: &mut Rng) -> Outcome {
    let (list, total) = some_ports(rng);
    let query = format!("domain={LIMITED}&ports={list}&deadline=4s");
    let summary = world.scan(&query)?;
    let open = check_sum(&summary, total, &ten())?;
    expect("the open ports", &open, &ten())
}

/// With loss, open ports may be missing, but no port may have a wrong state.
fn mixed(world: &World, rng: &mut Rng) -> Outcome {
    let (list, total) = some_ports(rng);
    let summary = world.scan(&format!("domain={MIXED}&ports={list}&include=closed"))?;
    check_sum(&summary, total, &ten())?;
    check_not_closed(&summary)
}
