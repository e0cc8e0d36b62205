//! One test for each known bug, of other projects and of ours, in a world with fixed parameters.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use openports::budget::Shares;
use openports::event::{RouteResult, Shortage, Signal};
use openports::limits;
use openports::technique::Technique;

use crate::client::{Client, Expected, Form, Leave, Order, Reads, Request, ScanRequest, Stage};
use crate::names::Behaviour;
use crate::network::{Host, Port};
use crate::run::{End, Simulation};
use crate::scenario;
use crate::world::{Peer, WorldEvent};

const SECOND: Duration = Duration::from_secs(1);
const MILLI: Duration = Duration::from_millis(1);
const TARGET: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(203, 0, 113, 1));
const OPEN: [u16; 3] = [22, 80, 443];

/// Returns a world with one host and a maximum of `probes` connects in flight.
fn world(usual: Port, round_trip: Duration, probes: usize) -> Simulation {
    let shares = Shares { connections: 8, lookups: 4, probes: scenario::probes(probes) };
    let mut world = Simulation::new(1, scenario::options(shares));
    world.hosts.insert(TARGET, Host::new(round_trip, usual, &OPEN));
    world
}

fn scan_request(last_port: u16) -> ScanRequest {
    ScanRequest {
        domain: TARGET.to_string(),
        addresses: vec![TARGET],
        ports: (1..=last_port).collect(),
        ..ScanRequest::default()
    }
}

fn scan(last_port: u16, parameters: &str) -> Request {
    Request::scan(scan_request(last_port), parameters, vec![])
}

fn statuses(world: &Simulation, client: usize) -> Vec<u16> {
    world.clients[client].responses.iter().map(|answer| answer.status).collect()
}

/// firezone #15285, str0m #184, sozu #593: a deadline is still due after it was handled. Our bug:
/// the deadline of a scan's pace stayed due while a shortage paused all scans.
#[test]
fn a_deadline_that_was_handled_is_not_due_again() {
    for (usual, parameters) in [
        (Port::Silent, "&rate=100&timeout=250ms"),
        (Port::Silent, "&rate=100&timeout=auto&retries=2"),
        (Port::Closed, "&rate=5&concurrency=1"),
    ] {
        let mut world = world(usual, 20 * MILLI, 2);
        (world.faults.shortages, world.faults.left) = (30, 40);
        for _ in 0..3 {
            let client = world.add_client(Duration::ZERO, Client::new(vec![scan(30, parameters)]));
            assert_eq!(client + 1, world.clients.len());
        }
        assert_eq!(world.run(), End::Idle, "{parameters}");
        assert_eq!(statuses(&world, 2), [200], "{parameters}");
    }
}

/// firezone #14275: queued output has no deadline. The loop sleeps until its deadline, so it would
/// keep a client that never reads for ever.
#[test]
fn unread_output_has_a_deadline() {
    let mut world = world(Port::Closed, 20 * MILLI, 50);
    let mut client = Client::new(vec![scan(500, "&include=closed")]);
    client.reads = Reads::Never;
    client.window = 40;
    world.add_client(Duration::ZERO, client);
    world.run();
    assert_eq!(world.clients[0].stage, Stage::Closed);
    let took = world.now - world.origin;
    assert!(took < limits::WRITE_STALL_TIMEOUT + SECOND, "{took:?}");
}

/// firezone #6077, smoltcp #848: timers starve sockets, or the reverse. Each tick serves a client
/// that floods the service at most once, and a scan of another client continues.
#[test]
fn a_flooding_client_starves_neither_a_scan_nor_the_timers() {
    let mut world = world(Port::Silent, 20 * MILLI, 50);
    let requests = vec![Request::healthz(); 20_000];
    let len = requests.iter().map(|request| request.bytes.len()).sum::<usize>();
    assert!(len > 40 * limits::READ_BYTES_MAX, "a tick could read all requests");
    let mut flooder = Client::new(requests);
    flooder.order = Order::Pipelined;
    flooder.window = usize::MAX;
    let flooder = world.add_client(Duration::ZERO, flooder);
    let scanner = world.add_client(Duration::ZERO, Client::new(vec![scan(50, "&timeout=500ms")]));
    world.step();
    world.step();
    let answered = world.clients[flooder].responses.len();
    assert!(answered > 0 && answered < 1_000, "one tick answered {answered} requests");
    assert!(world.open().1 > 0, "the scan did not start in the same tick");
    world.run();
    assert_eq!(world.clients[flooder].responses.len(), 20_000);
    assert_eq!(statuses(&world, scanner), [200]);
    assert!(world.now - world.origin < 2 * SECOND);
}

/// Our bug: a tick read from every client that had sent something, so a thousand long requests
/// delayed each other client by 160 ms.
#[test]
fn a_tick_reads_few_of_many_floods_and_serves_a_new_client_at_once() {
    let shares = Shares { connections: 64, lookups: 4, probes: scenario::probes(50) };
    let mut world = Simulation::new(1, scenario::options(shares));
    let flooders: Vec<usize> = (0..40)
        .map(|_| {
            let target = format!("/healthz?{}", "a".repeat(7_000));
            let long = Request::get(&target, "", Expected::Status(vec![400]));
            let mut flooder = Client::new(vec![long; 20]);
            flooder.order = Order::Pipelined;
            flooder.leave_when_answered = None;
            world.add_client(Duration::ZERO, flooder)
        })
        .collect();
    let read = |world: &Simulation| -> usize {
        flooders.iter().map(|it| world.clients[*it].delivered).sum()
    };
    // The first read of each client follows its accept.
    (0..5).for_each(|_| assert!(world.step()));
    let newcomer = world.add_client(Duration::ZERO, Client::new(vec![Request::healthz()]));
    for tick in 0..20 {
        let before = read(&world);
        assert!(world.step());
        let count = read(&world) - before;
        assert!(count <= 18 * limits::READ_BYTES_MAX, "one tick read {count} bytes");
        assert!(tick < 3 || statuses(&world, newcomer) == [200], "the new client waits");
    }
    world.run_for(SECOND);
    assert!(flooders.iter().all(|it| world.clients[*it].responses.len() == 20));
}

/// mio #219: a stale event reaches the next owner of a slot.
#[test]
fn a_stale_event_does_not_reach_the_next_owner_of_its_slot() {
    let mut world = world(Port::Closed, 20 * MILLI, 3);
    world.faults.stale_events = 100;
    let requests = vec![scan(60, ""), Request::healthz(), scan(60, "&retries=1")];
    let client = world.add_client(Duration::ZERO, Client::new(requests));
    world.run();
    assert_eq!(statuses(&world, client), [200, 200, 200]);
}

/// mio #1076, sozu #1387: an edge is reported once, so the loop must remember a socket that still
/// has unread bytes at the end of its budget.
#[test]
fn bytes_beyond_the_budget_are_read_without_another_edge() {
    let mut world = world(Port::Closed, 20 * MILLI, 50);
    let clients: Vec<usize> = (0..8)
        .map(|_| {
            let mut client = Client::new(vec![Request::healthz(); 2_000]);
            client.order = Order::Pipelined;
            client.leave_when_answered = None;
            world.add_client(Duration::ZERO, client)
        })
        .collect();
    world.run_for(SECOND);
    for client in clients {
        assert_eq!(world.clients[client].responses.len(), 2_000, "client {client}");
    }
}

/// Our bug: clients that pipelined without end used all connections, and no other was accepted.
#[test]
fn pipelining_clients_at_the_cap_are_evicted_for_a_new_connection() {
    let mut world = world(Port::Closed, 20 * MILLI, 50);
    for _ in 0..8 {
        let mut client = Client::new(vec![Request::healthz(); 50_000]);
        client.order = Order::Pipelined;
        client.leave_when_answered = None;
        world.add_client(Duration::ZERO, client);
    }
    let newcomer = world.add_client(10 * MILLI, Client::new(vec![Request::healthz()]));
    while world.clients[newcomer].responses.is_empty() && world.step() {}
    assert_eq!(statuses(&world, newcomer), [200]);
    let served = (0..8).map(|it| world.clients[it].responses.len());
    assert!(served.max() < Some(50_000), "the new connection waited until the end of the others");
}

/// Our bug: clients that read one byte per second kept all connections for ever.
#[test]
fn slow_readers_at_the_cap_are_evicted_for_a_new_connection() {
    let mut world = world(Port::Closed, 20 * MILLI, 50);
    for _ in 0..8 {
        let mut client = Client::new(vec![Request::healthz(); 1_000]);
        client.order = Order::Pipelined;
        client.reads = Reads::Slowly { bytes: 1, every: SECOND };
        client.leave_when_answered = None;
        world.add_client(Duration::ZERO, client);
    }
    let newcomer = world.add_client(500 * MILLI, Client::new(vec![Request::healthz()]));
    world.run_for(2 * SECOND);
    assert_eq!(statuses(&world, newcomer), [200]);
}

/// Our bug: among slow readers a new connection was the only idle one, and was evicted before its
/// request arrived.
#[test]
fn a_new_connection_is_not_evicted_before_its_request() {
    let mut world = world(Port::Closed, 20 * MILLI, 50);
    for _ in 0..8 {
        let mut client = Client::new(vec![Request::healthz(); 1_000]);
        client.order = Order::Pipelined;
        client.reads = Reads::Never;
        client.leave_when_answered = None;
        world.add_client(Duration::ZERO, client);
    }
    let newcomers: Vec<usize> = (0..4)
        .map(|_| {
            let mut client = Client::new(vec![Request::healthz()]);
            // With one byte every 10 µs, the request takes about half a millisecond.
            (client.piece, client.gap) = (1, Duration::from_micros(10));
            client.leave_when_answered = None;
            world.add_client(500 * MILLI, client)
        })
        .collect();
    world.run_for(2 * SECOND);
    for client in newcomers {
        assert_eq!(statuses(&world, client), [200], "client {client}");
    }
}

/// Our bug: a client waited to be read from, because others had sent as much as a tick reads. It
/// seemed silent for so long that it was reset at the cap.
#[test]
fn a_client_is_read_from_as_soon_as_it_is_accepted_after_many_floods() {
    let shares = Shares { connections: 64, lookups: 4, probes: scenario::probes(50) };
    let mut world = Simulation::new(1, scenario::options(shares));
    for _ in 0..40 {
        let mut flooder = Client::new(vec![Request::healthz(); 2_000]);
        flooder.order = Order::Pipelined;
        flooder.leave_when_answered = None;
        world.add_client(Duration::ZERO, flooder);
    }
    let newcomer = world.add_client(Duration::ZERO, Client::new(vec![Request::healthz()]));
    let ticks = (0..100).take_while(|_| statuses(&world, newcomer).is_empty() && world.step());
    assert_eq!(ticks.count(), 2, "ticks until the answer");
    assert_eq!(statuses(&world, newcomer), [200]);
}

/// Our bug: clients with scans of several minutes used all connections, and health checks failed.
#[test]
fn scans_leave_connections_for_other_requests() {
    let mut world = world(Port::Silent, 20 * MILLI, 50);
    let scans: Vec<usize> = (0..8)
        .map(|_| world.add_client(Duration::ZERO, Client::new(vec![scan(500, "&timeout=60s")])))
        .collect();
    let checker = world.add_client(SECOND, Client::new(vec![Request::healthz(); 3]));
    world.run_for(2 * SECOND);
    assert_eq!(statuses(&world, checker), [200, 200, 200]);
    let refused = scans.iter().filter(|scan| statuses(&world, **scan) == [503]).count();
    assert_eq!(refused, 2, "a quarter of eight connections");
}

/// Our bug: a few names with many addresses each filled the memory with scans.
#[test]
fn scans_of_many_addresses_beyond_the_limit_get_503() {
    let shares = Shares { connections: 64, lookups: 4, probes: scenario::probes(100) };
    let mut world = Simulation::new(1, scenario::options(shares));
    let addresses: Vec<IpAddr> = (1..=64).map(|n| IpAddr::from([203, 0, 113, n])).collect();
    let lines = addresses.iter().map(|address| format!("{address} many.test\n"));
    world.hosts_file = Some(lines.collect::<String>().into_bytes());
    for address in &addresses {
        world.hosts.insert(*address, Host::new(20 * MILLI, Port::Silent, &[]));
    }
    let domain = "many.test".to_owned();
    let request = ScanRequest { domain, addresses, is_for_all: true, ..scan_request(9) };
    let request = Request::scan(request, "&addresses=all&timeout=60s", vec![503]);
    let clients: Vec<usize> = (0..10)
        .map(|_| world.add_client(Duration::ZERO, Client::new(vec![request.clone()])))
        .collect();
    world.run_for(2 * SECOND);
    let refused = clients.iter().filter(|client| statuses(&world, **client) == [503]).count();
    assert_eq!(refused, 10 - limits::ADDRESS_SCANS_MAX / 64);
}

/// libuv #690, nanomsg #152, bun #32705: after EMFILE on accept the loop spins, or never accepts
/// again.
#[test]
fn accept_without_descriptors_backs_off_and_recovers() {
    for by_close in [true, false] {
        let mut world = world(Port::Closed, 20 * MILLI, 50);
        let mut idle = Client::new(vec![Request::healthz()]);
        idle.leave_when_answered = None;
        idle.leave_after = by_close.then_some((20 * MILLI, Leave::Close));
        world.add_client(Duration::ZERO, idle);
        world.run_for(10 * MILLI);
        world.faults.accepts = 100;
        world.faults.left = if by_close { 1 } else { 5 };
        let late = world.add_client(MILLI, Client::new(vec![Request::healthz()]));
        let steps = world.steps;
        world.run_for(9 * MILLI);
        assert!(world.steps - steps < 10, "accept is retried during its backoff");
        assert_eq!(world.clients[late].stage, Stage::Queued);
        // A close ends the backoff at once. Otherwise each of the five failures costs one backoff.
        world.run_for(if by_close { 5 * MILLI } else { 6 * limits::ACCEPT_BACKOFF });
        assert_eq!(statuses(&world, late), [200], "by a close: {by_close}");
    }
}

/// Our bug: the end of a probe did not end the backoff of accept, although it freed a descriptor.
#[test]
fn the_end_of_a_probe_ends_the_backoff_of_accept() {
    let mut world = world(Port::Silent, 20 * MILLI, 50);
    // Without an open port the scan sends no pings, which would end before the probes.
    world.hosts.insert(TARGET, Host::new(20 * MILLI, Port::Silent, &[]));
    let requests = vec![scan(100, "&timeout=50ms&retries=0")];
    world.add_client(Duration::ZERO, Client::new(requests));
    world.run_for(48 * MILLI);
    (world.faults.accepts, world.faults.left) = (100, 1);
    let late = world.add_client(Duration::ZERO, Client::new(vec![Request::healthz()]));
    world.run_for(MILLI);
    assert_eq!(world.clients[late].stage, Stage::Queued);
    world.run_for(2 * MILLI);
    assert_eq!(statuses(&world, late), [200]);
}

/// blackbox_exporter #288: the probes use all descriptors, and health checks fail.
#[test]
fn probes_do_not_starve_the_listener() {
    let settings = limits::Settings::default();
    let shares = Shares::split(64, 8, &settings).expect("64 descriptors are enough");
    let mut world = Simulation::new(1, scenario::options(shares));
    world.hosts.insert(TARGET, Host::new(20 * MILLI, Port::Silent, &OPEN));
    world.faults.descriptors = Some(64 - 8);
    world.add_client(Duration::ZERO, Client::new(vec![scan(1_000, "")]));
    world.run_for(SECOND);
    // A sixteenth of the probes is reserved for pings, whose number varies.
    let probes = shares.probes[Technique::Connect];
    let all = probes - probes / 16..=probes;
    assert!(all.contains(&world.open().1), "the scan has {} probes", world.open().1);
    let asking = world.add_client(Duration::ZERO, Client::new(vec![Request::healthz()]));
    world.run_for(MILLI);
    assert_eq!(statuses(&world, asking), [200]);
    world.run();
}

/// The Go original, naabu #1685, RustScan #417: a local shortage is reported as a closed port.
#[test]
fn a_shortage_is_never_reported_as_a_closed_port() {
    for shortage in Shortage::ALL {
        for (usual, round_trip) in [(Port::Closed, Duration::ZERO), (Port::Silent, 20 * MILLI)] {
            let mut world = world(usual, round_trip, 50);
            world.faults.shortages = 70;
            world.faults.shortage = Some(shortage);
            world.faults.left = 100;
            let requests = vec![scan(500, "&timeout=400ms&retries=0&include=closed,filtered")];
            let client = world.add_client(Duration::ZERO, Client::new(requests));
            world.run();
            assert_eq!(statuses(&world, client), [200], "{shortage:?}");
            assert_eq!(world.faults.left, 0, "not every shortage happened");
        }
    }
}

/// tokio #3405, RustScan: a self-connect is reported as an open port.
#[test]
fn a_self_connect_is_not_reported_as_an_open_port() {
    let mut world = world(Port::SelfConnect, Duration::ZERO, 50);
    let client = world.add_client(Duration::ZERO, Client::new(vec![scan(500, "")]));
    world.run();
    assert_eq!(statuses(&world, client), [200]);
}

/// netpulse #107, evilscan #93: the scan continues after its client has gone.
#[test]
fn a_scan_whose_client_leaves_frees_its_descriptors_in_one_tick() {
    for how in [Leave::Close, Leave::Reset, Leave::HalfClose] {
        for form in [Form::Json, Form::Ndjson] {
            let mut world = world(Port::Silent, 20 * MILLI, 50);
            let request = Request::scan(ScanRequest { form, ..scan_request(500) }, "", vec![]);
            let client = world.add_client(Duration::ZERO, Client::new(vec![request]));
            world.run_for(SECOND);
            // A sixteenth of the probes is reserved for pings, whose number varies.
            assert!((47..=50).contains(&world.open().1), "{:?}", world.open());
            world.schedule(Duration::ZERO, WorldEvent::Leave(client, how));
            world.step();
            assert_eq!(world.open(), (0, 0, 0), "{how:?}");
            world.run();
        }
    }
}

/// Our bug: the FIN of a client was not noticed behind bytes that were not read yet.
#[test]
fn a_fin_behind_unread_bytes_ends_the_scan() {
    let mut world = world(Port::Silent, 20 * MILLI, 50);
    let mut requests = vec![scan(500, "")];
    requests.extend(vec![Request::healthz(); 1_000]);
    let mut client = Client::new(requests);
    client.order = Order::Pipelined;
    let client = world.add_client(Duration::ZERO, client);
    world.run_for(SECOND);
    let (clients, probes, _) = world.open();
    // A sixteenth of the probes is reserved for pings, whose number varies.
    assert!(clients == 1 && (47..=50).contains(&probes), "{:?}", world.open());
    world.schedule(Duration::ZERO, WorldEvent::Leave(client, Leave::Close));
    world.step();
    assert_eq!(world.open(), (0, 0, 0));
}

/// Our bug: with more scans than probes, a scan without probes slept until its deadline if another
/// scan ended while actions were flushed.
#[test]
fn a_scan_without_probes_gets_those_of_a_scan_that_ends() {
    let mut world = world(Port::Closed, Duration::ZERO, 1);
    let clients: Vec<usize> = (0..4)
        .map(|_| {
            let mut client = Client::new(vec![scan(20, "")]);
            client.leave_when_answered = None;
            world.add_client(Duration::ZERO, client)
        })
        .collect();
    world.run_for(SECOND);
    for client in clients {
        assert_eq!(statuses(&world, client), [200], "client {client}");
    }
}

/// Our bug: a client that read a byte from time to time prevented the shutdown.
#[test]
fn a_slow_reader_does_not_prevent_the_shutdown() {
    let mut world = world(Port::Closed, 20 * MILLI, 50);
    let mut client = Client::new(vec![scan(2_000, "&include=closed")]);
    client.reads = Reads::Slowly { bytes: 1, every: 5 * SECOND };
    client.window = 1;
    world.add_client(Duration::ZERO, client);
    world.run_for(5 * SECOND);
    world.schedule(Duration::ZERO, WorldEvent::Signal(Signal::Terminate));
    assert_eq!(world.run(), End::Exit);
}

/// If closed and unreachable ports alternate, each port is a range of its own, and their text
/// exceeds one progress event. A fast reader gets the rest in the next event; for a slow reader the
/// waiting output is limited.
#[test]
fn alternating_states_are_split_over_events_and_each_reported_once() {
    let readers = [Reads::Fast, Reads::Slowly { bytes: 2_000, every: 400 * MILLI }];
    for (reads, form) in readers.into_iter().zip([Form::Ndjson, Form::EventStream]) {
        let mut world = world(Port::Closed, 20 * MILLI, 4_000);
        let special = &mut world.hosts.get_mut(&TARGET).expect("the one host").special;
        special.extend((40_001..44_000).step_by(2).map(|port| (port, Port::Unreachable)));
        special.insert(44_000, Port::Silent);
        let ports = (40_000..=44_000).collect();
        let request = ScanRequest { form, includes_all: true, ports, ..scan_request(1) };
        let parameters = "&include=closed,filtered,unreachable&timeout=2s";
        let mut client = Client::new(vec![Request::scan(request, parameters, vec![])]);
        client.reads = reads;
        if let Reads::Slowly { bytes, .. } = reads {
            client.window = bytes;
        }
        world.add_client(Duration::ZERO, client);
        let mut waiting_most = 0;
        while world.step() {
            if let (Stage::Connected(socket), true) = (world.clients[0].stage, world.open().1 > 0) {
                let key = world.key_of(socket).expect("it is registered");
                waiting_most = waiting_most.max(world.core().output(key).len());
            }
        }
        world.run();
        let body = String::from_utf8_lossy(&world.clients[0].responses[0].body);
        let (before_end, _) = body.split_once("\"end\"").expect("an end");
        let count = |key: &str| before_end.matches(key).count();
        assert_eq!((count("\"closed_ports\""), count("\"unreachable_ports\"")), (1, 2));
        let is_slow = reads != Reads::Fast;
        assert_eq!(
            waiting_most >= limits::STREAM_BYTES_MAX,
            is_slow,
            "{waiting_most} bytes waited"
        );
        assert!(waiting_most <= 2 * limits::STREAM_BYTES_MAX, "{waiting_most} bytes waited");
    }
}

/// Our bug: clients that were dropped in a tick still had their descriptors when others were
/// accepted in the same tick.
#[test]
fn a_tick_that_drops_clients_accepts_no_more_than_the_shares_allow() {
    let mut world = world(Port::Closed, 20 * MILLI, 50);
    let leave_at = 100 * MILLI;
    for _ in 0..8 {
        let mut client = Client::new(vec![Request::healthz()]);
        client.leave_when_answered = None;
        client.leave_after = Some((leave_at, Leave::Reset));
        world.add_client(Duration::ZERO, client);
    }
    let newcomers: Vec<usize> =
        (0..8).map(|_| world.add_client(leave_at, Client::new(vec![Request::healthz()]))).collect();
    world.run();
    for client in newcomers {
        assert_eq!(statuses(&world, client), [200], "client {client}");
    }
}

/// Our bug: after an invalid datagram the loop did not read the reply behind it, which belongs to
/// the same edge.
#[test]
fn an_invalid_datagram_does_not_hide_the_reply_behind_it() {
    let mut world = world(Port::Closed, 20 * MILLI, 50);
    let server = SocketAddr::from(([10, 0, 0, 1], 53));
    world.names.servers.insert(server, Behaviour::Honest);
    world.names.zone.insert("one.test".to_owned(), vec![TARGET]);
    world.resolv_conf = Some(b"nameserver 10.0.0.1\noptions timeout:5".to_vec());
    let request = ScanRequest { domain: "one.test".to_owned(), ..scan_request(9) };
    let client = Client::new(vec![Request::scan(request, "", vec![])]);
    let client = world.add_client(Duration::ZERO, client);
    while world.open().2 < 2 && world.step() {}
    let queries = world.table.iter().filter(|(_, it)| it.peer == Peer::Datagrams(server));
    let sockets: Vec<u64> = queries.map(|(socket, _)| *socket).collect();
    for socket in sockets {
        // One of these datagrams arrives just before the reply, or at the same instant.
        for micros in (1_000..42_000).step_by(1_000) {
            let invalid = WorldEvent::Receive(socket, vec![7; 40]);
            world.schedule(Duration::from_micros(micros), invalid);
        }
    }
    world.run_for(SECOND);
    assert_eq!(statuses(&world, client), [200]);
}

/// mio #1076 again: the poller does not repeat the edge after an interrupted call, and never
/// reports a socket whose registration failed.
#[test]
fn interrupted_calls_and_unregistered_sockets_delay_answers_and_lose_none() {
    for (interrupts, unregistered) in [(40, 0), (0, 100), (40, 50)] {
        let mut world = world(Port::Closed, 20 * MILLI, 50);
        (world.faults.interrupts, world.faults.unregistered) = (interrupts, unregistered);
        world.faults.left = 500;
        let requests = vec![Request::healthz(), scan(100, ""), Request::healthz()];
        let clients: Vec<usize> = (0..4)
            .map(|_| world.add_client(Duration::ZERO, Client::new(requests.clone())))
            .collect();
        world.run_for(10 * SECOND);
        for client in clients {
            assert_eq!(statuses(&world, client), [200, 200, 200], "{interrupts} {unregistered}");
        }
    }
}

/// Some sandboxes and old kernels refuse to connect a socket again. Each probe then gets its own.
#[test]
fn a_kernel_that_refuses_socket_reuse_changes_no_result() {
    let mut world = world(Port::Closed, 20 * MILLI, 50);
    world.faults.refuses_reuse = true;
    let client = world.add_client(Duration::ZERO, Client::new(vec![scan(500, "")]));
    world.run();
    assert_eq!(statuses(&world, client), [200]);
    assert_eq!(world.seen.reuse_refused, 1, "the engine tried again");
}

#[test]
fn after_a_signal_accepted_requests_are_answered_and_the_service_exits() {
    for millis in (0..3_000).step_by(50) {
        let mut world = world(Port::Silent, 20 * MILLI, 50);
        let requests = vec![scan(60, "&timeout=1s&retries=0"), Request::healthz()];
        let mut pipelining = Client::new(requests.clone());
        pipelining.order = Order::Pipelined;
        world.add_client(Duration::ZERO, pipelining);
        world.add_client(500 * MILLI, Client::new(requests));
        let at = Duration::from_millis(millis);
        world.schedule(at, WorldEvent::Signal(Signal::Terminate));
        assert_eq!(world.run(), End::Exit, "a signal after {at:?}");
        let answered: BTreeSet<u16> = (0..2).flat_map(|it| statuses(&world, it)).collect();
        assert!(answered.is_subset(&BTreeSet::from([200, 503])), "{answered:?}");
    }
}

/// Our bug: a signal during a shortage in `accept` closed the listeners while connections waited in
/// their backlogs.
#[test]
fn a_shutdown_accepts_the_backlog_despite_a_shortage() {
    let mut world = world(Port::Closed, 20 * MILLI, 50);
    (world.faults.accepts, world.faults.left) = (100, 3);
    let late = world.add_client(Duration::ZERO, Client::new(vec![Request::healthz()]));
    world.schedule(MILLI, WorldEvent::Signal(Signal::Terminate));
    assert_eq!(world.run(), End::Exit);
    assert_eq!(statuses(&world, late), [200]);
}

#[test]
fn a_second_signal_ends_the_service_at_once() {
    let mut world = world(Port::Silent, 20 * MILLI, 50);
    world.add_client(Duration::ZERO, Client::new(vec![scan(500, "")]));
    world.schedule(SECOND, WorldEvent::Signal(Signal::Terminate));
    world.schedule(2 * SECOND, WorldEvent::Signal(Signal::Interrupt));
    assert_eq!(world.run(), End::Exit);
    assert_eq!(world.now - world.origin, 2 * SECOND);
}

#[test]
fn a_slow_head_is_answered_with_408() {
    let mut world = world(Port::Closed, 20 * MILLI, 50);
    let request = Request::get("/healthz", "", Expected::Status(vec![408]));
    let mut client = Client::new(vec![request]);
    (client.piece, client.gap) = (1, 900 * MILLI);
    let client = world.add_client(Duration::ZERO, client);
    world.run();
    assert_eq!(statuses(&world, client), [408]);
}

/// In most containers RLIMIT_NOFILE is a million, so all ports of two scans are in flight.
#[test]
fn a_million_descriptors_hold_all_ports_of_two_scans() {
    const SCANS: usize = 2;
    let mut world = world(Port::Silent, 20 * MILLI, 1_000_000);
    for _ in 0..SCANS {
        world.add_client(Duration::ZERO, Client::new(vec![scan(65_535, "")]));
    }
    let (mut in_flight_max, mut connects_max) = (0, 0);
    loop {
        let before = world.connects_len;
        if !world.step() {
            break;
        }
        connects_max = connects_max.max(world.connects_len - before);
        in_flight_max = in_flight_max.max(world.sockets.probes);
    }
    assert!(
        connects_max <= Technique::Connect.properties().launches_per_tick,
        "{connects_max} connects in one tick"
    );
    assert!(in_flight_max > SCANS * 60_000, "{in_flight_max} connects in flight");
    let took = world.now - world.origin;
    assert!(took < 4 * SECOND, "{took:?}");
    for client in 0..SCANS {
        assert_eq!(statuses(&world, client), [200]);
    }
}

/// Our bug: the deadline of the SYN engine was 49 days ago, so the loop spun during each SYN scan.
#[test]
fn a_syn_scan_ends_while_and_after_the_clock_of_the_engine_wraps() {
    let mut world = world(Port::Silent, 20 * MILLI, 50);
    let wrap = world.origin + Duration::from_millis(1 << 32);
    for at in [wrap - 2 * SECOND, wrap + 60 * SECOND] {
        world.run_until(at);
        let requests = vec![scan(50, "&technique=syn&timeout=5s&retries=0")];
        let client = world.add_client(Duration::ZERO, Client::new(requests));
        world.run_for(7 * SECOND);
        assert_eq!(statuses(&world, client), [200]);
    }
}

/// Our bug: a SYN to a v4-mapped address left as a packet of IPv6, so all ports were filtered.
#[test]
fn a_v4_mapped_target_is_probed_over_ipv4() {
    let IpAddr::V4(target) = TARGET else { panic!("the target has an IPv4 address") };
    let mapped = IpAddr::V6(target.to_ipv6_mapped());
    for technique in ["connect", "syn"] {
        let mut world = world(Port::Closed, 20 * MILLI, 50);
        let (domain, addresses) = (format!("[{mapped}]"), vec![TARGET]);
        let request = ScanRequest { domain, addresses, ..scan_request(100) };
        let request = Request::scan(request, &format!("&technique={technique}"), vec![]);
        let client = world.add_client(Duration::ZERO, Client::new(vec![request]));
        world.run();
        assert_eq!(statuses(&world, client), [200], "{technique}");
    }
}

/// The sum of the samples of a metric after a SYN scan.
fn metric(world: &Simulation, name: &str) -> usize {
    let client = world.clients.last().expect("the world has a client");
    let body = &client.responses.last().expect("the metrics were read").body;
    let body = std::str::from_utf8(body).expect("the metrics are text");
    let samples = body.lines().filter(|line| line.starts_with(name));
    samples.filter_map(|line| line.rsplit(' ').next()?.parse::<usize>().ok()).sum()
}

/// Runs a SYN scan of the ports 1 to 100, and reads the metrics afterwards.
fn scan_by_syn(world: &mut Simulation, parameters: &str) {
    let parameters = format!("&technique=syn&{parameters}");
    world.add_client(Duration::ZERO, Client::new(vec![scan(100, &parameters)]));
    let metrics = Request::get("/metrics", "", Expected::Status(vec![200]));
    world.add_client(60 * SECOND, Client::new(vec![metrics]));
}

#[test]
fn the_metrics_count_the_packets_of_a_syn_scan() {
    let mut world = world(Port::Silent, 20 * MILLI, 200);
    scan_by_syn(&mut world, "timeout=5s&retries=0");
    world.run();
    assert_eq!(metric(&world, "openports_syns_sent_total"), world.raw.sent);
    // The open ports are 22 and 80.
    let repeated = metric(&world, "openports_syns_repeated_total");
    assert_eq!(repeated, 2 * 98, "each silent port gets a SYN after 1 s and after 3 s");
    let rejected =
        metric(&world, "openports_raw_packets_rejected_total{reason=\"acknowledgement\"}");
    assert_eq!(rejected, world.raw.foreigners);
    assert_eq!(metric(&world, "openports_syns_denied_total"), 0);
    assert_eq!(metric(&world, "openports_raw_answers_lost_total"), 0);
}

#[test]
fn the_metrics_count_the_packets_of_a_syn_scan_that_this_machine_drops() {
    let mut world = world(Port::Closed, 20 * MILLI, 200);
    world.faults.syns_denied = 20;
    (world.faults.shortages, world.faults.left) = (10, 40);
    scan_by_syn(&mut world, "timeout=2s");
    world.run();
    assert!(world.raw.denied > 0 && world.raw.overflows > 0, "{:?}", world.raw);
    assert_eq!(metric(&world, "openports_syns_sent_total"), world.raw.sent);
    assert_eq!(metric(&world, "openports_syns_denied_total"), world.raw.denied);
    assert_eq!(metric(&world, "openports_raw_answers_lost_total"), world.raw.overflows);
}

#[test]
fn ports_without_a_route_are_unreachable_even_if_there_was_one_before() {
    let mut world = world(Port::Silent, 20 * MILLI, 50);
    scan_by_syn(&mut world, "timeout=5s&retries=0");
    world.run_for(20 * MILLI);
    world.hosts.get_mut(&TARGET).unwrap().route = RouteResult::Nowhere;
    world.run_for(59 * SECOND);
    let body = String::from_utf8_lossy(&world.clients[0].responses[0].body);
    let counts = r#""open":2,"closed":0,"filtered":24,"unreachable":74,"untested":0"#;
    assert!(body.contains(counts), "{body}");
    assert_eq!(world.raw.sent, 26, "the other ports have no route");
}

#[test]
fn a_port_that_answers_only_the_repeated_syn_is_found() {
    let mut world = world(Port::Silent, 20 * MILLI, 50);
    let request = scan(100, "&technique=syn&timeout=5s&retries=0");
    let client = world.add_client(Duration::ZERO, Client::new(vec![request]));
    world.run_for(500 * MILLI);
    world.hosts.get_mut(&TARGET).unwrap().usual = Port::Open;
    world.run_for(10 * SECOND);
    let body = String::from_utf8_lossy(&world.clients[client].responses[0].body);
    assert!(body.contains(r#""counts":{"open":100,"#), "{body}");
}

#[test]
fn a_host_without_any_answer_gets_the_repeated_syns_in_time() {
    let mut world = world(Port::Silent, 20 * MILLI, 50);
    world.hosts.get_mut(&TARGET).unwrap().special.clear();
    let request = scan(100, "&technique=syn&timeout=5s&retries=0");
    world.add_client(Duration::ZERO, Client::new(vec![request]));
    world.run_for(2_900 * MILLI);
    assert_eq!(world.raw.sent, 200, "each port gets a SYN at once and one after 1 s");
    world.run_for(10 * SECOND);
    assert_eq!(world.raw.sent, 300, "and one after 3 s");
}
