//! Creates the world of a seed: its hosts, name servers, clients and faults.

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
use openports::technique::{PerTechnique, RawAccess, Technique};

use crate::client::{Client, Expected, Form, Leave, Order, Reads, Request, ScanRequest};
use crate::names::Behaviour;
use crate::network::{Host, Port};
use crate::requests::{plain_request, unauthorized_scan};
use crate::rng::Rng;
use crate::run::Simulation;
use crate::world::{Faults, World, WorldEvent};

/// Returns shares with this number of connects, and with 1,000 probes of each other technique.
pub(crate) fn probes(connects: usize) -> PerTechnique<usize> {
    PerTechnique::new(|it| if it == Technique::Connect { connects } else { 1000 })
}

/// Returns options with these shares, and otherwise the defaults of a service that is reachable
/// from outside.
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

/// Returns the world of a seed, in which clients use the service.
pub(crate) fn world(seed: u64) -> Simulation {
    let mut rng = Rng::new(seed);
    let probes = match rng.below(6) {
        0 => 1 + rng.below(4),
        1 | 2 => 5 + rng.below(60),
        _ => 100 + rng.below(2_000),
    };
    let connections = if rng.chance(20) { 1 + rng.below(3) } else { 8 + rng.below(30) };
    let shares = Shares { connections, lookups: 2 + rng.below(8), probes: self::probes(probes) };
    let mut options = options(shares);
    options.settings.scans_per_client_max = 1 + rng.below(16);
    options.settings.scans_max = 1 + rng.below(64);
    options.settings.drain_delay = rng.pick(&[Duration::ZERO, Duration::from_secs(3)]);
    options.settings.drain_timeout = Duration::from_secs(1 + rng.below(20) as u64);
    options.log_level = rng.pick(&Level::ALL);
    let access = access(&mut rng, &mut options);
    let mut world = Simulation::new(rng.next_u64(), options);
    (world.is_guarded, world.token, world.denied) = access;
    world.faults = faults(&mut rng, probes);
    add_hosts(&mut world, &mut rng);
    add_names(&mut world, &mut rng);
    // With few probes in flight, a scan of many silent ports would take too long.
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
        world.schedule(at, WorldEvent::Signal(Signal::Terminate));
        if rng.chance(25) {
            let after = rng.time(Duration::from_secs(10));
            world.schedule(at + after, WorldEvent::Signal(Signal::Interrupt));
        }
    }
    world
}

/// Returns a world for a batch of the command line, with hosts, names and faults.
pub(crate) fn world_of_shell(seed: u64) -> Simulation {
    let mut rng = Rng::new(seed);
    let probes = 1 + rng.below(100);
    let mut world = Simulation::without_listeners(
        rng.next_u64(),
        options(Shares { connections: 1, lookups: 4, probes: self::probes(probes) }),
    );
    world.faults = Faults { descriptors: None, ..faults(&mut rng, probes) };
    add_hosts(&mut world, &mut rng);
    add_names(&mut world, &mut rng);
    world
}

/// Whether the Host field is checked, the required token, and a denied address.
type Access = (bool, Option<String>, Option<IpAddr>);

fn access(rng: &mut Rng, options: &mut Options) -> Access {
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

/// Sets the maximum time of the scans. The bound assumes that all scans run at once, that each port
/// is silent in every pass, that each shortage costs its longest backoff, and that every port is
/// closed on the host that sends the fewest RSTs in a second. If the bound exceeds the maximum time
/// of the service, the scans may be incomplete.
fn bound_scans(world: &mut World) {
    let requests = world.clients.iter().flat_map(|client| &client.requests);
    let ports = requests.map(|request| match &request.expected {
        Expected::Scan(scan, _) => scan.ports.len() * scan.addresses.len(),
        Expected::Status(_) => 0,
    });
    let ports_len: usize = ports.sum();
    let resets = world.hosts.values().filter_map(|host| host.resets_per_second).min();
    let seconds = 60
        + 8 * ports_len / world.shares.probes[Technique::Connect]
        + resets.map_or(0, |it| ports_len / it);
    let bound = Duration::from_secs(seconds as u64);
    let is_bound = bound < world.settings.scan_time_max && world.faults.descriptors.is_none();
    for request in world.clients.iter_mut().flat_map(|client| &mut client.requests) {
        if let Expected::Scan(scan, _) = &mut request.expected {
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
            let kinds = [Port::Closed, Port::Silent, Port::Unreachable, Port::SelfConnect];
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
        let behaviour = if rng.chance(50) { Behaviour::Honest } else { rng.pick(&Behaviour::ALL) };
        world.names.servers.insert(server, behaviour);
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
    let requests: Vec<Request> =
        (0..1 + rng.below(4)).map(|_| request(world, rng, ports_max)).collect();
    let mut client = Client::new(requests);
    client.order = rng.pick(&[Order::OneByOne, Order::Pipelined]);
    let address: IpAddr = [198, 51, 100, 1 + rng.below(3) as u8].into();
    client.peer = (!rng.chance(10)).then(|| SocketAddr::new(address, 50_000));
    if rng.chance(50) {
        client.piece = 1 + rng.below(200);
        client.gap = rng.time(Duration::from_millis(20));
    }
    client.leave_when_answered = rng.pick(&[
        None,
        Some(Leave::Close),
        Some(Leave::Close),
        Some(Leave::HalfClose),
        Some(Leave::Reset),
    ]);
    match rng.below(12) {
        0 => client.leave_after = Some((rng.time(Duration::from_secs(3)), Leave::Close)),
        1 => client.leave_after = Some((rng.time(Duration::from_secs(3)), Leave::Reset)),
        2 => client.leave_after = Some((rng.time(Duration::from_secs(1)), Leave::HalfClose)),
        3 => {
            let (bytes, every) = (1 + rng.below(400), rng.time(Duration::from_secs(4)));
            client.reads = Reads::Slowly { bytes, every };
            client.window = bytes;
        }
        4 => {
            client.reads = Reads::Never;
            client.window = rng.below(300);
        }
        5 => return slow_head(rng),
        6 => return garbage_sender(rng),
        _ => {}
    }
    client
}

/// Returns a client whose head may exceed the time limit.
fn slow_head(rng: &mut Rng) -> Client {
    let request = Request::get("/healthz", "", Expected::Status(vec![200, 408]));
    let mut client = Client::new(vec![request]);
    client.piece = 1;
    client.gap = rng.time(Duration::from_millis(600));
    client
}

/// Returns a client that sends bytes which are not a request.
fn garbage_sender(rng: &mut Rng) -> Client {
    let len = 1 + rng.below(300);
    let bytes = match rng.below(3) {
        0 => (0..len).map(|_| rng.below(256) as u8).collect(),
        1 => [&[0x16, 3, 1, 2, 0, 1][..], &vec![7; len]].concat(),
        _ => format!("GET /{} HTTP/9.9\r\n\r\n", "x".repeat(len)).into_bytes(),
    };
    let expected = Expected::Status(vec![400, 405, 408, 431]);
    let mut client = Client::new(vec![Request { bytes, expected }]);
    client.leave_after = Some((rng.time(Duration::from_secs(20)), Leave::Close));
    client
}

fn request(world: &World, rng: &mut Rng, ports_max: usize) -> Request {
    match rng.below(12) {
        0..4 => plain_request(rng, world.is_guarded, world.token.as_deref()),
        4 if world.token.is_some() => unauthorized_scan(rng),
        _ => scan(world, rng, ports_max),
    }
}

/// Returns a request for a scan of a host or name.
fn scan(world: &World, rng: &mut Rng, ports_max: usize) -> Request {
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
    if target.addresses.iter().all(IpAddr::is_ipv4) && rng.chance(30) {
        parameters.push_str("&technique=syn");
    }
    let has_deadline = rng.chance(15);
    if has_deadline {
        parameters.push_str(&format!("&deadline={}ms", 2_000 + rng.below(3_000)));
        statuses.push(504);
    }
    let mut scan = ScanRequest {
        domain: target.domain,
        addresses: target.addresses,
        ports,
        has_deadline,
        has_one_pass: retries == "&retries=0" && timeout != "&timeout=auto",
        elapsed_max: is_plain.then_some(Duration::MAX),
        fields: fields(world, rng),
        has_denied_address: target.has_denied_address,
        ..ScanRequest::default()
    };
    if rng.chance(15) {
        scan.expected_ports = Some(expected_ports(world, rng, &scan));
    } else {
        choose_output(world, rng, &mut scan, &mut parameters);
    }
    Request::scan(scan, &parameters, target.statuses)
}

/// A host or name with its permitted addresses, and the permitted statuses besides 200.
struct Target {
    domain: String,
    addresses: Vec<IpAddr>,
    statuses: Vec<u16>,
    has_denied_address: bool,
}

fn target(world: &World, rng: &mut Rng) -> Target {
    let host_addresses: Vec<IpAddr> = world.hosts.keys().copied().collect();
    let domains = ["one.test", "two.test", "all.test", "here.test", "none.test", "", "127.0.0.1"];
    let mut domain = rng.pick(&domains).to_owned();
    let mut statuses = vec![429, 503];
    let is_served = world.names.is_served() && world.resolv_conf.is_some();
    let mut addresses = world.names.zone.get(&domain).cloned().unwrap_or_default();
    if domain.is_empty() {
        addresses = vec![rng.pick(&host_addresses)];
        domain = addresses[0].to_string();
    } else if domain == "127.0.0.1" {
        statuses.push(403);
    } else if domain == "here.test" && world.hosts_file.is_some() {
        addresses = vec![host_addresses[0]];
    } else if addresses.is_empty() && is_served {
        statuses.push(422);
    } else if !is_served {
        statuses.extend([502, 504]);
    }
    let all = addresses.len();
    addresses.retain(|address| Some(*address) != world.denied);
    let has_denied_address = addresses.len() < all;
    if has_denied_address && (addresses.is_empty() || !world.is_sure_of_names()) {
        // If the other address family is late, the denied address may be the only one.
        statuses.push(403);
    }
    Target { domain, addresses, statuses, has_denied_address }
}

/// Returns the token if it is required, and in some cases a proxy's field with the client address.
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
        "X-Forwarded-For: invalid\r\n",
    ]));
    fields
}

/// Returns the ports that a `/probe` request expects: the open ones, the first two, or none.
fn expected_ports(world: &World, rng: &mut Rng, scan: &ScanRequest) -> BTreeSet<u16> {
    let host = scan.addresses.first().and_then(|address| world.hosts.get(address));
    let is_open = |port: &&u16| host.is_some_and(|host| host.port(**port) == Port::Open);
    let open: BTreeSet<u16> = scan.ports.iter().filter(is_open).copied().collect();
    match rng.below(4) {
        0 | 1 => open,
        2 => scan.ports.iter().take(2).copied().collect(),
        _ => BTreeSet::new(),
    }
}

/// Chooses the media type, the included lists, excluded ports and `addresses=all`.
fn choose_output(world: &World, rng: &mut Rng, scan: &mut ScanRequest, parameters: &mut String) {
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
    // Only CSV says which address has which ports, and few names have several addresses.
    let percent = if scan.form == Form::Csv { 100 } else { 30 };
    scan.is_for_all = world.is_sure_of_names() && !scan.addresses.is_empty() && rng.chance(percent);
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
