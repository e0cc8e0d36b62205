//! From a seed to a world: who is out there, who comes and asks, and what goes wrong.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use openports::access::browser::HostGuard;
use openports::access::forwarded::Proxies;
use openports::access::token::BearerToken;
use openports::budget::Shares;
use openports::cidr::Cidr;
use openports::core::options::Options;
use openports::event::{RouteResult, Signal};
use openports::limits::Settings;
use openports::policy::{Exposure, Policy};
use openports::report::log::{Level, LogFormat};
use openports::service_names::Names;
use openports::technique::RawAccess;

use crate::client::{Ask, Client, Form, Leave, Order, Reads, ScanAsk, Wanted};
use crate::errands::{errand, intruder};
use crate::names::Manner;
use crate::network::{Host, Port};
use crate::rng::Rng;
use crate::run::Simulation;
use crate::world::{Faults, Happening, World};

/// Options with these shares, and otherwise the defaults of a service that others can reach.
pub(crate) fn options(shares: Shares) -> Options {
    Options {
        settings: Settings { raw: RawAccess::Permitted, ..Settings::default() },
        shares,
        policy: Policy { allow: Vec::new(), deny: Vec::new(), exposure: Exposure::Outside },
        host_guard: HostGuard { exposure: Exposure::Outside, names: Vec::new() },
        token: None,
        proxies: Default::default(),
        names: Names::default(),
        log_level: Level::Debug,
        log_format: LogFormat::Json,
        seed: 7,
    }
}

/// The world of a seed.
pub(crate) fn world(seed: u64) -> Simulation {
    let mut rng = Rng::new(seed);
    let probes = match rng.below(6) {
        0 => 1 + rng.below(4),
        1 | 2 => 5 + rng.below(60),
        _ => 100 + rng.below(2_000),
    };
    let connections = if rng.chance(20) { 1 + rng.below(3) } else { 8 + rng.below(30) };
    let shares = Shares { connections, lookups: 2 + rng.below(8), probes, syns: 1000 };
    let mut options = options(shares);
    options.settings.scans_per_client_max = 1 + rng.below(16);
    options.settings.scans_max = 1 + rng.below(64);
    options.settings.drain_delay = rng.pick(&[Duration::ZERO, Duration::from_secs(3)]);
    options.settings.drain_timeout = Duration::from_secs(1 + rng.below(20) as u64);
    options.log_level = rng.pick(&Level::ALL);
    let doors = doors(&mut rng, &mut options);
    let mut world = Simulation::new(rng.next_u64(), options);
    (world.is_guarded, world.token, world.denied) = doors;
    world.faults = faults(&mut rng, probes);
    add_hosts(&mut world, &mut rng);
    add_names(&mut world, &mut rng);
    // Where every scan has few connects, many ports at silent hosts would take for ever.
    let is_large = probes >= 500 && rng.chance(10);
    let (ports_max, clients_max) = if is_large { (3_000, 3) } else { (60, 10) };
    for _ in 0..1 + rng.below(clients_max) {
        let client = client(&world, &mut rng, ports_max);
        let after = rng.time(Duration::from_secs(4));
        world.add_client(after, client);
    }
    bound_scans(&mut world);
    if rng.chance(40) {
        let at = rng.time(Duration::from_secs(12));
        world.plan(at, Happening::Signal(Signal::Terminate));
        if rng.chance(25) {
            let after = rng.time(Duration::from_secs(10));
            world.plan(at + after, Happening::Signal(Signal::Interrupt));
        }
    }
    world
}

/// A world in which a list of targets is scanned from the shell: hosts and names, and faults.
pub(crate) fn world_of_shell(seed: u64) -> Simulation {
    let mut rng = Rng::new(seed);
    let probes = 1 + rng.below(100);
    let mut world = Simulation::without_listeners(
        rng.next_u64(),
        options(Shares { connections: 1, lookups: 4, probes, syns: 1000 }),
    );
    world.faults = Faults { descriptors: None, ..faults(&mut rng, probes) };
    add_hosts(&mut world, &mut rng);
    add_names(&mut world, &mut rng);
    world
}

/// Who is let in, and where nobody may go: whether the Host is looked at, the token, an address.
type Doors = (bool, Option<String>, Option<IpAddr>);

fn doors(rng: &mut Rng, options: &mut Options) -> Doors {
    let is_guarded = rng.chance(25);
    if is_guarded {
        options.host_guard =
            HostGuard { exposure: Exposure::LoopbackOnly, names: vec!["sim".into()] };
    }
    let token = rng.chance(25).then(|| "sesame".to_owned());
    options.token = token.as_ref().map(|it| BearerToken::parse(it.as_bytes()).expect("a token"));
    let denied: Option<IpAddr> = rng.chance(25).then(|| [203, 0, 113, 2].into());
    let network = |it: IpAddr| it.to_string().parse::<Cidr>().expect("an address");
    options.policy.deny = denied.map(network).into_iter().collect();
    if rng.chance(25) {
        let clients = "198.51.100.0/24".parse().expect("a network");
        options.proxies = Proxies(vec![clients]);
    }
    (is_guarded, token, denied)
}

/// Sets how long the scans may take at most. The bound assumes that all of them run at once, that
/// each port is silent in every pass, that each shortage costs its longest backoff, and that every
/// port is closed on the host that sends the fewest RSTs in a second. A scan that may take longer
/// than the service permits may be cut short.
fn bound_scans(world: &mut World) {
    let asks = world.clients.iter().flat_map(|client| &client.asks);
    let ports = asks.map(|ask| match &ask.wanted {
        Wanted::Scan(scan, _) => scan.ports.len() * scan.addresses.len(),
        Wanted::Status(_) => 0,
    });
    let ports_len: usize = ports.sum();
    let resets = world.hosts.values().filter_map(|host| host.resets_per_second).min();
    let seconds = 60 + 8 * ports_len / world.shares.probes + resets.map_or(0, |it| ports_len / it);
    let bound = Duration::from_secs(seconds as u64);
    let is_bound = bound < world.settings.scan_time_max && world.faults.descriptors.is_none();
    for ask in world.clients.iter_mut().flat_map(|client| &mut client.asks) {
        if let Wanted::Scan(scan, _) = &mut ask.wanted {
            scan.has_deadline |= !is_bound;
            scan.elapsed_max = scan.elapsed_max.filter(|_| is_bound).map(|_| bound);
        }
    }
}

fn faults(rng: &mut Rng, probes: usize) -> Faults {
    if rng.chance(25) {
        return Faults::default();
    }
    Faults {
        shortages: rng.pick(&[0, 0, 5, 50, 100]),
        shortage: None,
        left: rng.below(60),
        accepts: rng.pick(&[0, 0, 30, 100]),
        routes: rng.pick(&[0, 0, 50]),
        stale_events: rng.pick(&[0, 30]),
        spurious_events: rng.pick(&[0, 10]),
        short_writes: rng.pick(&[0, 60]),
        log_blocks: rng.pick(&[0, 50]),
        log_stall: rng.pick(&[Duration::ZERO, Duration::ZERO, Duration::from_secs(20)]),
        stdout_blocks: rng.pick(&[0, 20]),
        stdout_is_file: rng.chance(20),
        interrupts: rng.pick(&[0, 0, 5, 20]),
        unregistered: rng.pick(&[0, 0, 20, 100]),
        refuses_reuse: rng.chance(15),
        descriptors: rng.chance(10).then(|| 8 + rng.below(probes + 8)),
        lateness: rng.pick(&[Duration::ZERO, Duration::from_micros(800)]),
        ..Faults::default()
    }
}

fn add_hosts(world: &mut World, rng: &mut Rng) {
    for index in 0..6_u16 {
        let address: IpAddr = match index {
            0..4 => [203, 0, 113, 1 + index as u8].into(),
            _ => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, index).into(),
        };
        let millis = rng.pick(&[0, 0, 1, 20, 90]);
        let usual = rng.pick(&[Port::Closed, Port::Closed, Port::Silent, Port::Unreachable]);
        let open: Vec<u16> = (0..rng.below(12)).map(|_| 1 + rng.below(70) as u16).collect();
        let mut host = Host::new(Duration::from_millis(millis), usual, &open);
        for _ in 0..rng.below(10) {
            let kinds = [Port::Closed, Port::Silent, Port::Unreachable, Port::Mirror];
            host.special.entry(1 + rng.below(70) as u16).or_insert(rng.pick(&kinds));
        }
        host.loss = rng.pick(&[0, 0, 0, 5, 20]);
        host.resets_per_second = rng.pick(&[None, None, None, Some(20)]);
        let our_own = IpAddr::from(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0xff));
        host.route = match address {
            IpAddr::V6(_) if rng.chance(30) => RouteResult::Nowhere,
            IpAddr::V6(_) => RouteResult::From(our_own),
            IpAddr::V4(_) if rng.chance(5) => RouteResult::Nowhere,
            IpAddr::V4(_) => RouteResult::From([192, 0, 2, 1].into()),
        };
        world.hosts.insert(address, host);
    }
}

fn add_names(world: &mut World, rng: &mut Rng) {
    let mut conf = "options timeout:1 attempts:2\n".to_owned();
    for index in 0..1 + rng.below(3) {
        let server = SocketAddr::from(([10, 0, 0, 1 + index as u8], 53));
        let manner = if rng.chance(50) { Manner::Good } else { rng.pick(&Manner::ALL) };
        world.names.servers.insert(server, manner);
        conf.push_str(&format!("nameserver {}\n", server.ip()));
    }
    world.resolv_conf = (!rng.chance(5)).then(|| conf.into_bytes());
    let addresses: Vec<IpAddr> = world.hosts.keys().copied().collect();
    for name in ["one.test", "two.test", "all.test"] {
        let of_name = match name {
            "one.test" => vec![rng.pick(&addresses)],
            "two.test" => vec![addresses[rng.below(4)], addresses[4 + rng.below(2)]],
            _ => addresses.clone(),
        };
        world.names.zone.insert(name.to_owned(), of_name);
    }
    world.hosts_file = rng.chance(90).then(|| format!("{} here.test\n", addresses[0]).into_bytes());
}

fn client(world: &World, rng: &mut Rng, ports_max: usize) -> Client {
    let asks: Vec<Ask> = (0..1 + rng.below(4)).map(|_| ask(world, rng, ports_max)).collect();
    let mut client = Client::new(asks);
    client.order = rng.pick(&[Order::OneByOne, Order::Pipelined]);
    let address: IpAddr = [198, 51, 100, 1 + rng.below(3) as u8].into();
    client.peer = (!rng.chance(10)).then(|| SocketAddr::new(address, 50_000));
    if rng.chance(50) {
        client.piece = 1 + rng.below(200);
        client.gap = rng.time(Duration::from_millis(20));
    }
    client.parts = rng.pick(&[
        None,
        Some(Leave::Close),
        Some(Leave::Close),
        Some(Leave::HalfClose),
        Some(Leave::Reset),
    ]);
    match rng.below(12) {
        0 => client.leaves = Some((rng.time(Duration::from_secs(3)), Leave::Close)),
        1 => client.leaves = Some((rng.time(Duration::from_secs(3)), Leave::Reset)),
        2 => client.leaves = Some((rng.time(Duration::from_secs(1)), Leave::HalfClose)),
        3 => {
            let (bytes, every) = (1 + rng.below(400), rng.time(Duration::from_secs(4)));
            client.reads = Reads::Slowly { bytes, every };
            client.room = bytes;
        }
        4 => {
            client.reads = Reads::Never;
            client.room = rng.below(300);
        }
        5 => return slow_head(rng),
        6 => return babbler(rng),
        _ => {}
    }
    client
}

/// Its head comes so slowly that it may be too late.
fn slow_head(rng: &mut Rng) -> Client {
    let ask = Ask::get("/healthz", "", Wanted::Status(vec![200, 408]));
    let mut client = Client::new(vec![ask]);
    client.piece = 1;
    client.gap = rng.time(Duration::from_millis(600));
    client
}

/// What it sends is no request.
fn babbler(rng: &mut Rng) -> Client {
    let len = 1 + rng.below(300);
    let bytes = match rng.below(3) {
        0 => (0..len).map(|_| rng.below(256) as u8).collect(),
        1 => [&[0x16, 3, 1, 2, 0, 1][..], &vec![7; len]].concat(),
        _ => format!("GET /{} HTTP/9.9\r\n\r\n", "x".repeat(len)).into_bytes(),
    };
    let wanted = Wanted::Status(vec![400, 405, 408, 431]);
    let mut client = Client::new(vec![Ask { bytes, wanted }]);
    client.leaves = Some((rng.time(Duration::from_secs(20)), Leave::Close));
    client
}

fn ask(world: &World, rng: &mut Rng, ports_max: usize) -> Ask {
    match rng.below(12) {
        0..4 => errand(rng, world.is_guarded, world.token.as_deref()),
        4 if world.token.is_some() => intruder(rng),
        _ => scan(world, rng, ports_max),
    }
}

/// A scan of some host or name, and what it may come to.
fn scan(world: &World, rng: &mut Rng, ports_max: usize) -> Ask {
    let mut target = target(world, rng);
    let statuses = &mut target.statuses;
    let ports = ports(rng, ports_max);
    let is_small = ports.len() <= 60;
    let rarely = |rng: &mut Rng, choices: &[&str]| match is_small {
        true => rng.pick(choices).to_owned(),
        false => String::new(),
    };
    let timeout = rng.pick(&["", "&timeout=400ms", "&timeout=1s", "&timeout=auto"]);
    let retries = rng.pick(&["", "", "&retries=0", "&retries=2"]);
    let concurrency = rarely(rng, &["", "", "&concurrency=7"]);
    let rate = rarely(rng, &["", "", "&rate=50", "&rate=5000"]);
    let is_plain = concurrency.is_empty() && rate.is_empty();
    let mut parameters = format!("{timeout}{retries}{concurrency}{rate}");
    if target.leads_to.iter().all(IpAddr::is_ipv4) && rng.chance(30) {
        parameters.push_str("&technique=syn");
    }
    let has_deadline = rng.chance(15);
    if has_deadline {
        parameters.push_str(&format!("&deadline={}ms", 2_000 + rng.below(3_000)));
        statuses.push(504);
    }
    let mut scan = ScanAsk {
        domain: target.domain,
        addresses: target.leads_to,
        ports,
        has_deadline,
        has_one_pass: retries == "&retries=0" && timeout != "&timeout=auto",
        elapsed_max: is_plain.then_some(Duration::MAX),
        fields: fields(world, rng),
        passes_over: target.passes_over,
        ..ScanAsk::default()
    };
    if rng.chance(15) {
        scan.expected = Some(expectation(world, rng, &scan));
    } else {
        embellish(world, rng, &mut scan, &mut parameters);
    }
    Ask::scan(scan, &parameters, target.statuses)
}

/// What a host or a name leads to, and which statuses that may have beside 200.
struct Target {
    domain: String,
    leads_to: Vec<IpAddr>,
    statuses: Vec<u16>,
    passes_over: bool,
}

fn target(world: &World, rng: &mut Rng) -> Target {
    let addresses: Vec<IpAddr> = world.hosts.keys().copied().collect();
    let domains = ["one.test", "two.test", "all.test", "here.test", "none.test", "", "127.0.0.1"];
    let mut domain = rng.pick(&domains).to_owned();
    let mut statuses = vec![429, 503];
    let is_served = world.names.is_served() && world.resolv_conf.is_some();
    let mut leads_to = world.names.zone.get(&domain).cloned().unwrap_or_default();
    if domain.is_empty() {
        leads_to = vec![rng.pick(&addresses)];
        domain = leads_to[0].to_string();
    } else if domain == "127.0.0.1" {
        statuses.push(403);
    } else if domain == "here.test" && world.hosts_file.is_some() {
        leads_to = vec![addresses[0]];
    } else if leads_to.is_empty() && is_served {
        statuses.push(422);
    } else if !is_served {
        statuses.extend([502, 504]);
    }
    let all = leads_to.len();
    leads_to.retain(|address| Some(*address) != world.denied);
    let passes_over = leads_to.len() < all;
    if passes_over && (leads_to.is_empty() || !world.is_sure_of_names()) {
        // Where a name's other family is late, the denied address may be all there is.
        statuses.push(403);
    }
    Target { domain, leads_to, statuses, passes_over }
}

/// The token, where one is needed, and what a proxy says of the client.
fn fields(world: &World, rng: &mut Rng) -> String {
    let mut fields = String::new();
    if let Some(token) = &world.token {
        fields.push_str(&format!("Authorization: Bearer {token}\r\n"));
    }
    fields.push_str(rng.pick(&[
        "",
        "",
        "X-Forwarded-For: 192.0.2.44\r\n",
        "X-Forwarded-For: 192.0.2.45, 192.0.2.46\r\n",
        "Forwarded: for=\"[2001:db8::17]:4711\"\r\n",
        "X-Forwarded-For: whoever\r\n",
    ]));
    fields
}

/// What a probe expects to be open: the truth, a part of it, too much, or nothing in particular.
fn expectation(world: &World, rng: &mut Rng, scan: &ScanAsk) -> BTreeSet<u16> {
    let host = scan.addresses.first().and_then(|address| world.hosts.get(address));
    let is_open = |port: &&u16| host.is_some_and(|host| host.port(**port) == Port::Open);
    let open: BTreeSet<u16> = scan.ports.iter().filter(is_open).copied().collect();
    match rng.below(4) {
        0 | 1 => open,
        2 => scan.ports.iter().take(2).copied().collect(),
        _ => BTreeSet::new(),
    }
}

/// What the answer to a scan is to hold, and how.
fn embellish(world: &World, rng: &mut Rng, scan: &mut ScanAsk, parameters: &mut String) {
    scan.form = rng.pick(&Form::ALL);
    let include = rng.pick(&["", "", "closed,filtered,unreachable", "services", ALL_INCLUDED]);
    if !include.is_empty() {
        parameters.push_str(&format!("&include={include}"));
    }
    scan.includes_all = include.contains("closed");
    scan.includes_services = include.contains("services");
    if rng.chance(15) {
        let others = (0..5).map(|_| 1 + rng.below(200) as u16);
        scan.excluded = others.filter(|port| !scan.ports.contains(port)).collect();
    }
    scan.is_for_all = world.is_sure_of_names() && !scan.addresses.is_empty() && rng.chance(30);
    if scan.is_for_all {
        parameters.push_str("&addresses=all");
    }
}

const ALL_INCLUDED: &str = "closed,filtered,unreachable,services";

fn ports(rng: &mut Rng, ports_max: usize) -> BTreeSet<u16> {
    if rng.chance(50) {
        let first = 1 + rng.below(60) as u16;
        let last = usize::from(first) + rng.below(ports_max);
        return (first..=last as u16).collect();
    }
    (0..1 + rng.below(20)).map(|_| 1 + rng.below(80) as u16).collect()
}
