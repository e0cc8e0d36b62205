//! Bugs that others paid for, and our own: one test each, in a world without chance.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use openports::budget::Shares;
use openports::event::{Shortage, Signal};
use openports::limits;

use crate::client::{Ask, Client, Form, Leave, Order, Reads, ScanAsk, Stage, Wanted};
use crate::names::Manner;
use crate::network::{Host, Port};
use crate::run::{End, Simulation};
use crate::scenario;
use crate::world::{Happening, Peer};

const SECOND: Duration = Duration::from_secs(1);
const MILLI: Duration = Duration::from_millis(1);
const TARGET: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(203, 0, 113, 1));
const OPEN: [u16; 3] = [22, 80, 443];

/// A world with one host; `probes` connects may be in flight.
fn world(usual: Port, round_trip: Duration, probes: usize) -> Simulation {
    let shares = Shares { connections: 8, lookups: 4, probes, syns: 1000 };
    let mut world = Simulation::new(1, scenario::options(shares));
    world.hosts.insert(TARGET, Host::new(round_trip, usual, &OPEN));
    world
}

fn scan_ask(last_port: u16) -> ScanAsk {
    ScanAsk {
        domain: TARGET.to_string(),
        addresses: vec![TARGET],
        ports: (1..=last_port).collect(),
        ..ScanAsk::default()
    }
}

fn scan(last_port: u16, parameters: &str) -> Ask {
    Ask::scan(scan_ask(last_port), parameters, vec![])
}

/// The status of each answer that a client got.
fn statuses(world: &Simulation, client: usize) -> Vec<u16> {
    world.clients[client].answers.iter().map(|answer| answer.status).collect()
}

/// firezone #15285, str0m #184, sozu #593: a deadline that was handled is still due. Our own: the
/// pace of a scan was, while a shortage bade all scans rest.
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

/// firezone #14275: output waits, and no deadline knows of it. The loop sleeps to its deadline
/// only, so a reader that takes nothing would be kept for ever.
#[test]
fn output_that_nobody_takes_has_a_deadline() {
    let mut world = world(Port::Closed, 20 * MILLI, 50);
    let mut client = Client::new(vec![scan(500, "&include=closed")]);
    client.reads = Reads::Never;
    client.room = 40;
    world.add_client(Duration::ZERO, client);
    world.run();
    assert_eq!(world.clients[0].stage, Stage::Closed);
    let took = world.now - world.origin;
    assert!(took < limits::WRITE_STALL_TIMEOUT + SECOND, "{took:?}");
}

/// firezone #6077, smoltcp #848: timers starve sockets, or the reverse. Each turn serves a client
/// that never stops asking once, and the scan beside it goes on.
#[test]
fn a_flooding_client_starves_neither_a_scan_nor_the_timers() {
    let mut world = world(Port::Silent, 20 * MILLI, 50);
    let asks = vec![Ask::healthz(); 20_000];
    let len = asks.iter().map(|ask| ask.bytes.len()).sum::<usize>();
    assert!(len > 40 * limits::READ_BYTES_MAX, "more than any budget of one turn");
    let mut flooder = Client::new(asks);
    flooder.order = Order::Pipelined;
    flooder.room = usize::MAX;
    let flooder = world.add_client(Duration::ZERO, flooder);
    let scanner = world.add_client(Duration::ZERO, Client::new(vec![scan(50, "&timeout=500ms")]));
    world.step();
    world.step();
    let answered = world.clients[flooder].answers.len();
    assert!(answered > 0 && answered < 1_000, "one turn answered {answered} requests");
    assert!(world.open().1 > 0, "the scan was begun in the same turn");
    world.run();
    assert_eq!(world.clients[flooder].answers.len(), 20_000);
    assert_eq!(statuses(&world, scanner), [200]);
    assert!(world.now - world.origin < 2 * SECOND);
}

/// mio #219: an event that comes too late reaches whoever has the slot now.
#[test]
fn a_stale_event_does_not_reach_the_next_owner_of_its_slot() {
    let mut world = world(Port::Closed, 20 * MILLI, 3);
    world.faults.stale_events = 100;
    let asks = vec![scan(60, ""), Ask::healthz(), scan(60, "&retries=1")];
    let client = world.add_client(Duration::ZERO, Client::new(asks));
    world.run();
    assert_eq!(statuses(&world, client), [200, 200, 200]);
}

/// mio #1076, sozu #1387: an edge is told once, so what a budget leaves unread must be remembered.
#[test]
fn what_a_budget_leaves_unread_is_read_without_another_edge() {
    let mut world = world(Port::Closed, 20 * MILLI, 50);
    let clients: Vec<usize> = (0..8)
        .map(|_| {
            let mut client = Client::new(vec![Ask::healthz(); 2_000]);
            client.order = Order::Pipelined;
            client.parts = None;
            world.add_client(Duration::ZERO, client)
        })
        .collect();
    world.run_for(SECOND);
    for client in clients {
        assert_eq!(world.clients[client].answers.len(), 2_000, "client {client}");
    }
}

/// Our own: clients who pipelined without end held every place, and nobody else was let in.
#[test]
fn floods_of_requests_at_the_cap_give_way_to_who_knocks() {
    let mut world = world(Port::Closed, 20 * MILLI, 50);
    for _ in 0..8 {
        let mut client = Client::new(vec![Ask::healthz(); 50_000]);
        client.order = Order::Pipelined;
        client.parts = None;
        world.add_client(Duration::ZERO, client);
    }
    let newcomer = world.add_client(10 * MILLI, Client::new(vec![Ask::healthz()]));
    while world.clients[newcomer].answers.is_empty() && world.step() {}
    assert_eq!(statuses(&world, newcomer), [200]);
    let served = (0..8).map(|it| world.clients[it].answers.len());
    assert!(served.max() < Some(50_000), "it was let in while they were served");
}

/// Our own: readers who took a byte now and then held every place for ever.
#[test]
fn readers_who_lag_at_the_cap_give_way_to_who_knocks() {
    let mut world = world(Port::Closed, 20 * MILLI, 50);
    for _ in 0..8 {
        let mut client = Client::new(vec![Ask::healthz(); 1_000]);
        client.order = Order::Pipelined;
        client.reads = Reads::Slowly { bytes: 1, every: SECOND };
        client.parts = None;
        world.add_client(Duration::ZERO, client);
    }
    let newcomer = world.add_client(500 * MILLI, Client::new(vec![Ask::healthz()]));
    world.run_for(2 * SECOND);
    assert_eq!(statuses(&world, newcomer), [200]);
}

/// Our own: among readers who lagged a newcomer was the only one that was silent, and gave way
/// before its request had come.
#[test]
fn a_newcomer_does_not_give_way_before_it_has_spoken() {
    let mut world = world(Port::Closed, 20 * MILLI, 50);
    for _ in 0..8 {
        let mut client = Client::new(vec![Ask::healthz(); 1_000]);
        client.order = Order::Pipelined;
        client.reads = Reads::Never;
        client.parts = None;
        world.add_client(Duration::ZERO, client);
    }
    let newcomers: Vec<usize> = (0..4)
        .map(|_| {
            let mut client = Client::new(vec![Ask::healthz()]);
            // A byte each 10 µs: the last comes half a millisecond later.
            (client.piece, client.gap) = (1, Duration::from_micros(10));
            client.parts = None;
            world.add_client(500 * MILLI, client)
        })
        .collect();
    world.run_for(2 * SECOND);
    for client in newcomers {
        assert_eq!(statuses(&world, client), [200], "client {client}");
    }
}

/// Our own: clients whose scans ran for minutes held every place, and no health check got in.
#[test]
fn scans_leave_places_to_those_who_have_none() {
    let mut world = world(Port::Silent, 20 * MILLI, 50);
    let scans: Vec<usize> = (0..8)
        .map(|_| world.add_client(Duration::ZERO, Client::new(vec![scan(500, "&timeout=60s")])))
        .collect();
    let checker = world.add_client(SECOND, Client::new(vec![Ask::healthz(); 3]));
    world.run_for(2 * SECOND);
    assert_eq!(statuses(&world, checker), [200, 200, 200]);
    let refused = scans.iter().filter(|scan| statuses(&world, **scan) == [503]).count();
    assert_eq!(refused, 2, "a quarter of eight places");
}

/// Our own: a few names of many addresses each filled the memory with scans.
#[test]
fn many_names_of_many_addresses_are_told_to_come_again() {
    let shares = Shares { connections: 64, lookups: 4, probes: 100, syns: 1000 };
    let mut world = Simulation::new(1, scenario::options(shares));
    let addresses: Vec<IpAddr> = (1..=64).map(|n| IpAddr::from([203, 0, 113, n])).collect();
    let lines = addresses.iter().map(|address| format!("{address} many.test\n"));
    world.hosts_file = Some(lines.collect::<String>().into_bytes());
    for address in &addresses {
        world.hosts.insert(*address, Host::new(20 * MILLI, Port::Silent, &[]));
    }
    let domain = "many.test".to_owned();
    let ask = ScanAsk { domain, addresses, is_for_all: true, ..scan_ask(9) };
    let ask = Ask::scan(ask, "&addresses=all&timeout=60s", vec![503]);
    let clients: Vec<usize> =
        (0..10).map(|_| world.add_client(Duration::ZERO, Client::new(vec![ask.clone()]))).collect();
    world.run_for(2 * SECOND);
    let refused = clients.iter().filter(|client| statuses(&world, **client) == [503]).count();
    assert_eq!(refused, 10 - limits::ADDRESS_SCANS_MAX / 64);
}

/// libuv #690, nanomsg #152, bun #32705: after EMFILE on accept the loop spins, or hears nobody
/// any more.
#[test]
fn accept_without_descriptors_rests_and_recovers() {
    for by_close in [true, false] {
        let mut world = world(Port::Closed, 20 * MILLI, 50);
        let mut guest = Client::new(vec![Ask::healthz()]);
        guest.parts = None;
        guest.leaves = by_close.then_some((20 * MILLI, Leave::Close));
        world.add_client(Duration::ZERO, guest);
        world.run_for(10 * MILLI);
        world.faults.accepts = 100;
        world.faults.left = if by_close { 1 } else { 5 };
        let late = world.add_client(MILLI, Client::new(vec![Ask::healthz()]));
        let steps = world.steps;
        world.run_for(9 * MILLI);
        assert!(world.steps - steps < 10, "a parked listener is not asked again and again");
        assert_eq!(world.clients[late].stage, Stage::Queued);
        // A close wakes it at once, time alone after a rest for each failure.
        world.run_for(if by_close { 5 * MILLI } else { 6 * limits::ACCEPT_BACKOFF });
        assert_eq!(statuses(&world, late), [200], "by a close: {by_close}");
    }
}

/// Our own: the end of a probe woke no parked listener, although its descriptor was free.
#[test]
fn the_end_of_a_probe_lets_a_parked_listener_try_again() {
    let mut world = world(Port::Silent, 20 * MILLI, 50);
    // Without an open port there are no pings, which end earlier.
    world.hosts.insert(TARGET, Host::new(20 * MILLI, Port::Silent, &[]));
    let asks = vec![scan(100, "&timeout=50ms&retries=0")];
    world.add_client(Duration::ZERO, Client::new(asks));
    world.run_for(48 * MILLI);
    (world.faults.accepts, world.faults.left) = (100, 1);
    let late = world.add_client(Duration::ZERO, Client::new(vec![Ask::healthz()]));
    world.run_for(MILLI);
    assert_eq!(world.clients[late].stage, Stage::Queued);
    world.run_for(2 * MILLI);
    assert_eq!(statuses(&world, late), [200]);
}

/// blackbox_exporter #288: the probes take every descriptor, and nobody can ask how we are.
#[test]
fn probes_do_not_starve_the_listener() {
    let settings = limits::Settings::default();
    let shares = Shares::split(64, 8, &settings).expect("64 descriptors are enough");
    let mut world = Simulation::new(1, scenario::options(shares));
    world.hosts.insert(TARGET, Host::new(20 * MILLI, Port::Silent, &OPEN));
    world.faults.descriptors = Some(64 - 8);
    world.add_client(Duration::ZERO, Client::new(vec![scan(1_000, "")]));
    world.run_for(SECOND);
    // A sixteenth is kept free for pings, which come and go.
    let all = shares.probes - shares.probes / 16..=shares.probes;
    assert!(all.contains(&world.open().1), "the scan has all the probes there are");
    let asking = world.add_client(Duration::ZERO, Client::new(vec![Ask::healthz()]));
    world.run_for(MILLI);
    assert_eq!(statuses(&world, asking), [200]);
    world.run();
}

/// The Go original, naabu #1685, RustScan #417: a shortage of ours is told as a closed port.
#[test]
fn no_shortage_ever_closes_a_port() {
    for shortage in Shortage::ALL {
        for (usual, round_trip) in [(Port::Closed, Duration::ZERO), (Port::Silent, 20 * MILLI)] {
            let mut world = world(usual, round_trip, 50);
            world.faults.shortages = 70;
            world.faults.shortage = Some(shortage);
            world.faults.left = 100;
            let asks = vec![scan(500, "&timeout=400ms&retries=0&include=closed,filtered")];
            let client = world.add_client(Duration::ZERO, Client::new(asks));
            world.run();
            assert_eq!(statuses(&world, client), [200], "{shortage:?}");
            assert_eq!(world.faults.left, 0, "every shortage was met");
        }
    }
}

/// tokio #3405, RustScan: a connect that meets itself is reported as an open port.
#[test]
fn a_connect_that_meets_itself_is_no_open_port() {
    let mut world = world(Port::Mirror, Duration::ZERO, 50);
    let client = world.add_client(Duration::ZERO, Client::new(vec![scan(500, "")]));
    world.run();
    assert_eq!(statuses(&world, client), [200]);
}

/// netpulse #107, evilscan #93: the scan runs on after its client has gone.
#[test]
fn with_its_client_a_scan_gives_its_descriptors_back_in_one_turn() {
    for how in [Leave::Close, Leave::Reset, Leave::HalfClose] {
        for form in [Form::Json, Form::Ndjson] {
            let mut world = world(Port::Silent, 20 * MILLI, 50);
            let ask = Ask::scan(ScanAsk { form, ..scan_ask(500) }, "", vec![]);
            let client = world.add_client(Duration::ZERO, Client::new(vec![ask]));
            world.run_for(SECOND);
            // A sixteenth is kept free for pings, which come and go.
            assert!((47..=50).contains(&world.open().1), "{:?}", world.open());
            world.plan(Duration::ZERO, Happening::Leave(client, how));
            world.step();
            assert_eq!(world.open(), (0, 0, 0), "{how:?}");
            world.run();
        }
    }
}

/// Our own: a client whose FIN stands behind bytes that we do not want yet.
#[test]
fn a_fin_behind_unread_bytes_ends_the_scan() {
    let mut world = world(Port::Silent, 20 * MILLI, 50);
    let mut asks = vec![scan(500, "")];
    asks.extend(vec![Ask::healthz(); 1_000]);
    let mut client = Client::new(asks);
    client.order = Order::Pipelined;
    let client = world.add_client(Duration::ZERO, client);
    world.run_for(SECOND);
    let (clients, probes, _) = world.open();
    // A sixteenth is kept free for pings, which come and go.
    assert!(clients == 1 && (47..=50).contains(&probes), "{:?}", world.open());
    world.plan(Duration::ZERO, Happening::Leave(client, Leave::Close));
    world.step();
    assert_eq!(world.open(), (0, 0, 0));
}

/// Our own: more scans than connects, and a scan that was granted none slept to its very end
/// when the one before it ended within a drain.
#[test]
fn a_scan_that_was_granted_nothing_is_granted_what_another_leaves() {
    let mut world = world(Port::Closed, Duration::ZERO, 1);
    let clients: Vec<usize> = (0..4)
        .map(|_| {
            let mut client = Client::new(vec![scan(20, "")]);
            client.parts = None;
            world.add_client(Duration::ZERO, client)
        })
        .collect();
    world.run_for(SECOND);
    for client in clients {
        assert_eq!(statuses(&world, client), [200], "client {client}");
    }
}

/// Our own: who reads a byte now and then kept the service from leaving.
#[test]
fn a_reader_that_trickles_does_not_keep_the_service_from_leaving() {
    let mut world = world(Port::Closed, 20 * MILLI, 50);
    let mut client = Client::new(vec![scan(2_000, "&include=closed")]);
    client.reads = Reads::Slowly { bytes: 1, every: 5 * SECOND };
    client.room = 1;
    world.add_client(Duration::ZERO, client);
    world.run_for(5 * SECOND);
    world.plan(Duration::ZERO, Happening::Signal(Signal::Terminate));
    assert_eq!(world.run(), End::Exit);
}

/// Where every other port is closed and the rest unreachable, each is a range of its own, more text
/// than one telling holds: a reader who keeps up hears the rest next time, and to one who does not,
/// only what it has room for is told.
#[test]
fn scattered_ports_are_told_bit_by_bit_and_each_once() {
    let readers = [Reads::Fast, Reads::Slowly { bytes: 2_000, every: 400 * MILLI }];
    for (reads, form) in readers.into_iter().zip([Form::Ndjson, Form::EventStream]) {
        let mut world = world(Port::Closed, 20 * MILLI, 4_000);
        let special = &mut world.hosts.get_mut(&TARGET).expect("the one host").special;
        special.extend((40_001..44_000).step_by(2).map(|port| (port, Port::Unreachable)));
        special.insert(44_000, Port::Silent);
        let ports = (40_000..=44_000).collect();
        let ask = ScanAsk { form, includes_all: true, ports, ..scan_ask(1) };
        let parameters = "&include=closed,filtered,unreachable&timeout=2s";
        let mut client = Client::new(vec![Ask::scan(ask, parameters, vec![])]);
        client.reads = reads;
        if let Reads::Slowly { bytes, .. } = reads {
            client.room = bytes;
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
        let body = String::from_utf8_lossy(&world.clients[0].answers[0].body);
        let (before_end, _) = body.split_once("\"end\"").expect("an end");
        let told = |key: &str| before_end.matches(key).count();
        assert_eq!((told("\"closed_ports\""), told("\"unreachable_ports\"")), (1, 2));
        let is_slow = reads != Reads::Fast;
        assert_eq!(
            waiting_most >= limits::STREAM_BYTES_MAX,
            is_slow,
            "{waiting_most} bytes waited"
        );
        assert!(waiting_most <= 2 * limits::STREAM_BYTES_MAX, "{waiting_most} bytes waited");
    }
}

/// Our own: clients that were given up in a turn still had their descriptors when others were
/// taken in for them in the same turn.
#[test]
fn a_turn_that_drops_clients_takes_in_no_more_than_the_shares_allow() {
    let mut world = world(Port::Closed, 20 * MILLI, 50);
    let leave_at = 100 * MILLI;
    for _ in 0..8 {
        let mut client = Client::new(vec![Ask::healthz()]);
        client.parts = None;
        client.leaves = Some((leave_at, Leave::Reset));
        world.add_client(Duration::ZERO, client);
    }
    let newcomers: Vec<usize> =
        (0..8).map(|_| world.add_client(leave_at, Client::new(vec![Ask::healthz()]))).collect();
    world.run();
    for client in newcomers {
        assert_eq!(statuses(&world, client), [200], "client {client}");
    }
}

/// Our own: a datagram that is no reply hid the one behind it, which the same edge had told of.
#[test]
fn a_lie_in_front_of_the_truth_hides_nothing() {
    let mut world = world(Port::Closed, 20 * MILLI, 50);
    let server = SocketAddr::from(([10, 0, 0, 1], 53));
    world.names.servers.insert(server, Manner::Good);
    world.names.zone.insert("one.test".to_owned(), vec![TARGET]);
    world.resolv_conf = Some(b"nameserver 10.0.0.1\noptions timeout:5".to_vec());
    let ask = ScanAsk { domain: "one.test".to_owned(), ..scan_ask(9) };
    let client = Client::new(vec![Ask::scan(ask, "", vec![])]);
    let client = world.add_client(Duration::ZERO, client);
    while world.open().2 < 2 && world.step() {}
    let asked = world.table.iter().filter(|(_, it)| it.peer == Peer::Datagrams(server));
    let sockets: Vec<u64> = asked.map(|(socket, _)| *socket).collect();
    for socket in sockets {
        // At the very instants at which the truth may come, and before it.
        for micros in (1_000..42_000).step_by(1_000) {
            let lie = Happening::Receive(socket, vec![7; 40]);
            world.plan(Duration::from_micros(micros), lie);
        }
    }
    world.run_for(SECOND);
    assert_eq!(statuses(&world, client), [200]);
}

/// mio #1076 once more: the poller does not report again what an interrupted call left undone, and
/// never reports a socket that it had no room for.
#[test]
fn interrupted_calls_and_unregistered_sockets_delay_answers_and_lose_none() {
    for (interrupts, unregistered) in [(40, 0), (0, 100), (40, 50)] {
        let mut world = world(Port::Closed, 20 * MILLI, 50);
        (world.faults.interrupts, world.faults.unregistered) = (interrupts, unregistered);
        world.faults.left = 500;
        let asks = vec![Ask::healthz(), scan(100, ""), Ask::healthz()];
        let clients: Vec<usize> =
            (0..4).map(|_| world.add_client(Duration::ZERO, Client::new(asks.clone()))).collect();
        world.run_for(10 * SECOND);
        for client in clients {
            assert_eq!(statuses(&world, client), [200, 200, 200], "{interrupts} {unregistered}");
        }
    }
}

/// A kernel that connects no socket again (a sandbox, an old one): each probe gets its own.
#[test]
fn a_kernel_that_refuses_reuse_costs_sockets_and_no_port() {
    let mut world = world(Port::Closed, 20 * MILLI, 50);
    world.faults.refuses_reuse = true;
    let client = world.add_client(Duration::ZERO, Client::new(vec![scan(500, "")]));
    world.run();
    assert_eq!(statuses(&world, client), [200]);
    assert_eq!(world.seen.reuse_refused, 1, "it is noticed once");
}

/// Every request that was accepted before the signal is answered, and the service leaves.
#[test]
fn a_signal_at_any_moment_leaves_nobody_unanswered() {
    for millis in (0..3_000).step_by(50) {
        let mut world = world(Port::Silent, 20 * MILLI, 50);
        let asks = vec![scan(60, "&timeout=1s&retries=0"), Ask::healthz()];
        let mut piper = Client::new(asks.clone());
        piper.order = Order::Pipelined;
        world.add_client(Duration::ZERO, piper);
        world.add_client(500 * MILLI, Client::new(asks));
        let at = Duration::from_millis(millis);
        world.plan(at, Happening::Signal(Signal::Terminate));
        assert_eq!(world.run(), End::Exit, "a signal after {at:?}");
        let answered: BTreeSet<u16> = (0..2).flat_map(|it| statuses(&world, it)).collect();
        assert!(answered.is_subset(&BTreeSet::from([200, 503])), "{answered:?}");
    }
}

/// Our own: a signal that came while `accept` ran short closed the listeners on whoever stood in
/// their queues.
#[test]
fn a_drain_that_runs_short_turns_away_nobody_who_stands_in_the_queue() {
    let mut world = world(Port::Closed, 20 * MILLI, 50);
    (world.faults.accepts, world.faults.left) = (100, 3);
    let late = world.add_client(Duration::ZERO, Client::new(vec![Ask::healthz()]));
    world.plan(MILLI, Happening::Signal(Signal::Terminate));
    assert_eq!(world.run(), End::Exit);
    assert_eq!(statuses(&world, late), [200]);
}

/// The second signal does not wait for anybody.
#[test]
fn a_second_signal_ends_it_at_once() {
    let mut world = world(Port::Silent, 20 * MILLI, 50);
    world.add_client(Duration::ZERO, Client::new(vec![scan(500, "")]));
    world.plan(SECOND, Happening::Signal(Signal::Terminate));
    world.plan(2 * SECOND, Happening::Signal(Signal::Interrupt));
    assert_eq!(world.run(), End::Exit);
    assert_eq!(world.now - world.origin, 2 * SECOND);
}

/// A head that comes too slowly is told so, and does not keep its connection.
#[test]
fn a_slow_head_is_told_that_it_was_too_slow() {
    let mut world = world(Port::Closed, 20 * MILLI, 50);
    let ask = Ask::get("/healthz", "", Wanted::Status(vec![408]));
    let mut client = Client::new(vec![ask]);
    (client.piece, client.gap) = (1, 900 * MILLI);
    let client = world.add_client(Duration::ZERO, client);
    world.run();
    assert_eq!(statuses(&world, client), [408]);
}
