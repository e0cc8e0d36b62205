//! Random networks, and complete scans of them with each technique.
//!
//! A network is a path, the ports of one host and the limits of our own machine. A client requests
//! one scan of it, through the real loop and the simulated kernel. The tests check that no port has
//! a wrong state without a warning, that the scan ends within a bound computed from the network,
//! and that a queue which the scan can measure drops few of its SYNs.
//!
//! `SIM_NETWORKS=n` scans `n` networks, and prints the distribution with `--nocapture`;
//! `SIM_NETWORK=n` scans network `n`, and prints its events.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Duration;

use openports::budget::Shares;
use openports::technique::PerTechnique;

use crate::client::{Client, Request, ScanRequest};
use crate::network::{Host, Port};
use crate::path::{Ban, Bottleneck, Bursts, ConnectionTable, Path, PathOptions, Presence, Traffic};
use crate::report::{Distribution, Report};
use crate::rng::Rng;
use crate::run::Simulation;
use crate::scenario;

/// The number of networks in an ordinary run.
const NETWORKS: u64 = 256;
const TARGET: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(203, 0, 113, 1));
const PORTS_MAX: f64 = 1_200.0;
/// The lowest rate of a scan (`scan::congestion`), in SYNs per second.
const RATE_MIN: f64 = 500.0;
/// A scan cannot see a queue that delays by less, and detects it only by loss. These are the limits
/// of the delay that `scan::measure` counts as part of the round trip.
const QUEUE_SEEN: [Duration; 2] = [Duration::from_millis(4), Duration::from_millis(16)];
/// The minimum number of SYNs for which a share of dropped SYNs is significant.
const SYNS_MIN: u64 = 500;
/// The maximum share of a scan's SYNs that a visible queue may drop.
const DROPPED_MAX: f64 = 0.4;
/// The same share after `LATE` seconds. A larger share shows a rate that oscillates.
const DROPPED_LATE_MAX: f64 = 0.2;
/// The number of seconds after which a scan has measured the path.
const LATE: usize = 2;
/// A scan treats a silent host as gone after 5 s and a pass of 2 s.
const GONE_AFTER: Duration = Duration::from_secs(7);

#[derive(Clone, Debug)]
struct Network {
    seed: u64,
    path: PathOptions,
    ports: BTreeMap<u16, Port>,
    /// The parameter `timeout`, and the maximum time of one probe with it.
    timeout: (&'static str, Duration),
    /// The maximum number of probes in flight, with either technique.
    in_flight_max: usize,
    /// The maximum delay with which the loop wakes.
    lateness: Duration,
}

impl Network {
    fn from_seed(seed: u64) -> Self {
        let mut rng = Rng::new(seed ^ 0x0070_6174_6873);
        let ports_len = rng.log(1.0, PORTS_MAX) as u16;
        let path = random_path(&mut rng);
        let timeout = match rng.below(10) {
            0 => ("auto", Duration::from_secs(2)),
            1 => ("500ms", Duration::from_millis(500)),
            _ => ("2s", Duration::from_secs(2)),
        };
        Self {
            seed,
            path,
            ports: random_ports(&mut rng, ports_len),
            timeout,
            in_flight_max: rng.log(100.0, 20_000.0) as usize,
            lateness: rng.pick(&[
                Duration::ZERO,
                Duration::from_micros(800),
                Duration::from_millis(3),
            ]),
        }
    }

    fn count(&self, kind: Port) -> usize {
        self.ports.values().filter(|it| **it == kind).count()
    }

    /// Returns about the minimum time of a scan of this network. It follows from the bottleneck,
    /// the limit of RSTs, the table of a middlebox, the probes in flight and the wait for silent
    /// ports.
    fn floor(&self) -> Duration {
        let PathOptions { round_trip, bottleneck, resets_per_second, table, .. } = self.path;
        let silent = self.count(Port::Silent);
        let has_responder = silent < self.ports.len();
        let timeout = match self.timeout {
            ("auto", _) if has_responder => (3 * round_trip).max(Duration::from_millis(200)),
            (_, timeout) => timeout,
        };
        let silent = silent as f64;
        let repeats = if timeout > Duration::from_secs(1) { silent } else { 0.0 };
        let rate = bottleneck.map_or(f64::INFINITY, |it| it.rate);
        let sending = (self.ports.len() as f64 + repeats) / rate;
        let closed = self.count(Port::Closed) as f64;
        let resets = resets_per_second.map_or(0.0, |most| closed / f64::from(most) - 1.0);
        let entries = table.map_or(0.0, |it| silent * it.time.as_secs_f64() / it.entries as f64);
        let windows = silent * timeout.as_secs_f64() / self.in_flight_max as f64;
        let is_waiting = silent > 0.0 || self.path.loss > 0.0 || resets > 0.0;
        let waiting = if is_waiting { timeout } else { Duration::ZERO };
        let absent = match self.path.presence {
            Presence::From(start) => start,
            Presence::Always | Presence::Until(_) => Duration::ZERO,
        };
        let sent = Duration::from_secs_f64(sending.max(resets).max(entries).max(windows));
        sent + 2 * round_trip + waiting + absent + Duration::from_millis(100)
    }

    /// Returns the maximum time of a scan of this network: twice the floor, the passes that its
    /// loss explains, and the wait for a host that has gone.
    fn bound(&self) -> Duration {
        let PathOptions { round_trip, jitter, loss, bursts, bottleneck, .. } = self.path;
        let burst = bursts.map_or(0.0, |it| it.share * it.loss);
        let exchange = 1.0 - ((1.0 - loss) * (1.0 - burst)).powi(2);
        // The scan adds a margin to the measured loss, and may overload a queue at first.
        let assumed = (2.0 * exchange + 0.2).min(0.7);
        let responding = self.ports.len() as f64 + 1.0;
        let passes = ((0.01 / responding).ln() / assumed.ln()).ceil();
        let queue = bottleneck.map_or(0.0, |it| f64::from(it.queue) / it.rate);
        let answered_after = 2 * (round_trip + jitter) + Duration::from_secs_f64(queue);
        let deadline = (2 * answered_after).clamp(Duration::from_millis(200), self.timeout.1);
        let rate = bottleneck.map_or(RATE_MIN, |it| it.rate.min(RATE_MIN));
        let pass = deadline.as_secs_f64() + self.ports.len() as f64 / rate;
        let is_blocked = self.path.ban.is_some() || self.path.table.is_some();
        let may_go = is_blocked || self.path.presence != Presence::Always;
        let gone = if may_go { GONE_AFTER } else { Duration::ZERO };
        2 * self.floor() + Duration::from_secs_f64(passes * pass) + gone
    }

    /// Returns whether a full queue delays so long that the scan must see it, and the lowest rate
    /// of a scan does not fill it.
    fn has_visible_queue(&self) -> bool {
        self.path.bottleneck.is_some_and(|Bottleneck { rate, queue }| {
            let PathOptions { round_trip, jitter, .. } = self.path;
            let delay = Duration::from_secs_f64(f64::from(queue) / rate);
            let seen = (round_trip / 16).clamp(QUEUE_SEEN[0], QUEUE_SEEN[1]) + 2 * jitter;
            self.is_plain() && rate >= 2.0 * RATE_MIN && delay >= 3 * seen
        })
    }

    /// Returns whether a visible queue dropped more than this share of at least `SYNS_MIN` SYNs.
    fn overloads_queue(&self, traffic: Traffic, most: f64) -> bool {
        self.has_visible_queue()
            && traffic.syns >= SYNS_MIN
            && traffic.dropped as f64 > most * traffic.syns as f64
    }

    /// Returns whether the path has no obstacles other than loss and a bottleneck.
    fn is_plain(&self) -> bool {
        let PathOptions { resets_per_second, ban, table, presence, .. } = &self.path;
        let is_limited = resets_per_second.is_some() || ban.is_some() || table.is_some();
        !is_limited && *presence == Presence::Always
    }

    fn scan(&self, technique: &str, is_verbose: bool) -> Report {
        let shares = Shares {
            connections: 8,
            lookups: 4,
            probes: PerTechnique::new(|_| self.in_flight_max),
        };
        let mut world = Simulation::new(self.seed, scenario::options(shares));
        world.is_verbose = is_verbose;
        world.faults.lateness = self.lateness;
        world.faults.whole_millis = true;
        world.faults.connect_time = Duration::from_micros(6);
        world.faults.syn_time = Duration::from_micros(1);
        let mut host = Host::new(self.path.round_trip, Port::Closed, &[]);
        host.special = self.ports.clone();
        host.path = Some(Path::new(self.path.clone(), self.seed, world.origin));
        world.hosts.insert(TARGET, host);
        let request = ScanRequest {
            domain: TARGET.to_string(),
            addresses: vec![TARGET],
            ports: self.ports.keys().copied().collect(),
            includes_all: true,
            ..ScanRequest::default()
        };
        let parameters = format!(
            "&technique={technique}&timeout={}&include=closed,filtered,unreachable",
            self.timeout.0
        );
        let client = Client::new(vec![Request::scan(request, &parameters, vec![])]);
        world.add_client(Duration::ZERO, client);
        world.run();
        let [response] = &world.clients[0].responses[..] else {
            panic!("the client must have one response")
        };
        let path = world.hosts[&TARGET].path.as_ref().expect("it was inserted above");
        Report::new(response, &self.ports, path.traffic.clone())
    }

    /// Returns the fault in the result of a scan. A port that is missed without a warning is not a
    /// fault here, because chance alone may cause it; `Distribution::check` limits their number.
    fn judge(&self, report: &Report) -> Option<String> {
        let bound = self.bound();
        if report.false_states > 0 {
            return Some(format!("{} ports have a wrong state", report.false_states));
        }
        if !report.is_complete {
            return Some("the scan is not complete".to_owned());
        }
        if report.elapsed > bound {
            return Some(format!(
                "the scan took {:?} instead of at most {bound:?}",
                report.elapsed
            ));
        }
        let traffic = report.traffic_from(0);
        if self.overloads_queue(traffic, DROPPED_MAX) {
            return Some(format!("the queue dropped {} of {} SYNs", traffic.dropped, traffic.syns));
        }
        None
    }
}

fn random_path(rng: &mut Rng) -> PathOptions {
    let mut path = PathOptions {
        round_trip: Duration::from_secs_f64(rng.log(1e-4, 0.4)),
        ..PathOptions::default()
    };
    if rng.chance(50) {
        path.loss = 0.25 * rng.unit() * rng.unit();
    }
    if rng.chance(10) {
        path.bursts = Some(Bursts {
            length: Duration::from_secs_f64(rng.log(0.02, 0.5)),
            share: 0.001 + 0.03 * rng.unit(),
            loss: 0.5 + 0.5 * rng.unit(),
        });
    }
    if rng.chance(50) {
        let rate = rng.log(300.0, 100_000.0);
        path.bottleneck = Some(Bottleneck { rate, queue: rng.log(10.0, 1_000.0) as u32 });
    }
    if rng.chance(30) {
        path.jitter = path.round_trip.mul_f64(rng.unit());
    }
    if rng.chance(15) {
        path.reordered = 0.1 * rng.unit();
    }
    if rng.chance(15) {
        path.duplicated = 0.1 * rng.unit();
    }
    match rng.below(20) {
        0..3 => path.resets_per_second = Some(rng.log(50.0, 5_000.0) as u32),
        3 => {
            let time = Duration::from_secs_f64(rng.log(1.0, 60.0));
            path.ban = Some(Ban { syns_per_second: rng.log(50.0, 5_000.0) as u32, time });
        }
        4 => {
            let time = Duration::from_secs_f64(rng.log(1.0, 30.0));
            path.table = Some(ConnectionTable { entries: rng.log(30.0, 3_000.0) as usize, time });
        }
        5 => path.presence = Presence::Until(Duration::from_secs_f64(rng.log(0.01, 5.0))),
        6 => path.presence = Presence::From(Duration::from_secs_f64(rng.log(0.01, 5.0))),
        _ => {}
    }
    path
}

/// Returns ports from 1 on: up to ten open ones, a random share of silent ones and a random share
/// that a router rejects.
fn random_ports(rng: &mut Rng, ports_len: u16) -> BTreeMap<u16, Port> {
    let silent = match rng.below(4) {
        0 => 0.0,
        1 => 1.0,
        _ => rng.unit(),
    };
    let rejected = if rng.chance(15) { rng.unit() } else { 0.0 };
    let mut ports: BTreeMap<u16, Port> = (1..=ports_len)
        .map(|port| {
            let rest = if rng.happens(rejected) { Port::Unreachable } else { Port::Closed };
            (port, if rng.happens(silent) { Port::Silent } else { rest })
        })
        .collect();
    for _ in 0..rng.below(11) {
        ports.insert(1 + rng.below(ports_len.into()) as u16, Port::Open);
    }
    ports
}

/// Scans the networks of an ordinary run, or those that the environment variables select.
fn run(technique: &str) {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse().expect(name));
    let only: Option<u64> = number("SIM_NETWORK");
    let seeds = only.map_or(0..number("SIM_NETWORKS").unwrap_or(NETWORKS), |it| it..it + 1);
    let (mut faults, mut distribution) = (Vec::new(), Distribution::default());
    for seed in seeds {
        let network = Network::from_seed(seed);
        let hint = format!(
            "SIM_NETWORK={seed}, {technique}, {:?}, {} ports, {} silent, timeout {}, {} in flight",
            network.path,
            network.ports.len(),
            network.count(Port::Silent),
            network.timeout.0,
            network.in_flight_max
        );
        let run = catch_unwind(AssertUnwindSafe(|| network.scan(technique, only.is_some())));
        let report = run.unwrap_or_else(|cause| {
            eprintln!("a simulation failed: {hint}");
            resume_unwind(cause);
        });
        if only.is_some() {
            eprintln!("{hint}: {report:?}");
        }
        faults.extend(network.judge(&report).map(|fault| format!("{fault}: {hint}")));
        if report.is_wrong() && !report.warns() {
            distribution.unwarned.push(seed);
        }
        if network.overloads_queue(report.traffic_from(LATE), DROPPED_LATE_MAX) {
            distribution.overloaded.push(seed);
        }
        distribution.add(network.floor(), network.is_plain().then_some(network.path.loss), &report);
    }
    eprintln!("{}", distribution.table(technique));
    assert!(faults.is_empty(), "{} networks:\n{}", faults.len(), faults.join("\n"));
    if only.is_none() {
        distribution.check();
    }
}

/// Networks that both techniques scanned wrong without a warning.
const REGRESSIONS: [(u64, &str); 10] = [
    (139, "a firewall bans the scan before the first ping is overdue"),
    (301, "the host appears while all probes in flight wait for their deadline"),
    (1159, "a port is probed once, and the few answers and pings show no loss"),
    (1204, "a port is probed once, and one of 440 exchanges is lost"),
    (434, "177 ports respond, one of them loses its only exchange, and no ping is lost"),
    (866, "the host appears before the round-trip time is known"),
    (1440, "two ports are probed twice, and no ping is sent"),
    (1936, "SYNs overflow a short queue in a burst, and no ping is among them"),
    (8988, "a queue delays four of ten answers beyond the timeout"),
    (50481, "a queue delays the answers of 262 ports beyond the timeout"),
];

#[test]
fn networks_of_earlier_faults_are_scanned_correctly_or_with_a_warning() {
    for (seed, cause) in REGRESSIONS {
        for technique in ["connect", "syn"] {
            let report = Network::from_seed(seed).scan(technique, false);
            let is_fair = !report.is_wrong() || report.warns();
            assert!(is_fair, "{cause}: SIM_NETWORK={seed}, {technique}: {report:?}");
        }
    }
}

#[test]
fn connect_scans_of_random_networks_report_correct_states_or_warn() {
    run("connect");
}

#[test]
fn syn_scans_of_random_networks_report_correct_states_or_warn() {
    run("syn");
}
