//! Tests of whole scans through simulated networks, in virtual time.
//!
//! The kernel is simulated too: it retransmits unanswered SYNs, and its poller waits for whole
//! milliseconds. Each launch takes CPU time, so that no scan is infinitely fast.

#![expect(clippy::print_stdout, reason = "the table and the distribution are printed")]

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};
use std::num::{NonZeroU16, NonZeroU32};

use super::super::*;
use crate::port_set::PortSet;
use crate::scan::options::{ScanOptions, Timeout};
use crate::scan::plan::RateShare;
use crate::technique::Technique;

/// A pseudo-random number generator (SplitMix64).
pub(in crate::scan) struct Random(pub(in crate::scan) u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    pub(in crate::scan) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }
}

/// The reaction of a port to a SYN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Behaviour {
    Open,
    Closed,
    Silent,
    Rejected,
}

/// A network, and the host that is scanned through it.
#[derive(Clone, Debug)]
pub(super) struct Network {
    pub(super) rtt: Duration,
    pub(super) jitter: Duration,
    /// The share of packets that are lost in each direction, 0 to 1.
    pub(super) loss: f64,
    /// Times of high loss: their mean length, their share of the time, and their loss.
    pub(super) bursts: Option<(Duration, f64, f64)>,
    /// The capacity of the path in SYNs per second, and the length of its queue in SYNs.
    pub(super) bottleneck: Option<(f64, u32)>,
    /// The maximum number of RSTs per second.
    pub(super) resets: Option<u32>,
    pub(super) open: BTreeSet<u16>,
    /// The number of silent ports out of 1,000 that are not open.
    pub(super) silent: u64,
    /// The number of rejected ports out of 1,000 that are not open.
    pub(super) rejected: u64,
    /// The maximum number of probes in flight.
    pub(super) capacity: usize,
    /// A change of the host, and its time.
    pub(super) change: Option<(Duration, Change)>,
    /// Delays of the loop: the mean time between them, and their maximum length.
    pub(super) stalls: Option<(Duration, Duration)>,
    /// The number of SYNs per second above which the host bans a source, and the length of the ban.
    pub(super) ban: Option<(u32, Duration)>,
    /// A middlebox: the maximum number of half-open connections, and how long it keeps each.
    pub(super) table: Option<(usize, Duration)>,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Change {
    /// The round-trip time changes.
    Rtt(Duration),
    /// The host no longer answers.
    Disappears,
    /// The host begins to answer.
    Appears,
}

impl Default for Network {
    fn default() -> Self {
        Self {
            rtt: Duration::from_millis(50),
            jitter: Duration::ZERO,
            loss: 0.0,
            bursts: None,
            bottleneck: None,
            resets: None,
            open: BTreeSet::new(),
            silent: 0,
            rejected: 0,
            capacity: 18_836,
            change: None,
            stalls: None,
            ban: None,
            table: None,
        }
    }
}

impl Network {
    pub(super) fn behaviour(&self, port: u16) -> Behaviour {
        if self.open.contains(&port) {
            return Behaviour::Open;
        }
        // The hash distributes the states evenly, and is the same in each run.
        let hash = u64::from(port).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
        match hash % 1000 {
            hash if hash < self.silent => Behaviour::Silent,
            hash if hash < self.silent + self.rejected => Behaviour::Rejected,
            _ => Behaviour::Closed,
        }
    }
}

struct Flight {
    launch: Launch,
    key: Key,
    started: Instant,
}

/// The result of a simulated scan.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) elapsed: Duration,
    pub(super) syns: u64,
    pub(super) dropped: u64,
    pub(super) passes: u32,
    pub(super) counts: Counts,
    pub(super) open_found: usize,
    pub(super) wrong: usize,
    pub(super) loss: Option<f64>,
    pub(super) is_complete: bool,
    pub(super) in_flight_max: usize,
}

pub(super) struct Simulation {
    network: Network,
    random: Random,
    start: Instant,
    now: Instant,
    /// The retransmissions by the kernel, which do not wake the loop.
    retransmissions: BinaryHeap<Reverse<(Instant, u32, u8)>>,
    answers: BinaryHeap<Reverse<(Instant, u64, u32)>>,
    flights: Vec<Option<Flight>>,
    answers_len: u64,
    queue_free_at: Instant,
    resets: (u64, u32),
    burst: (Instant, bool),
    stall_at: Instant,
    second: (u64, u32),
    banned_until: Instant,
    table: std::collections::VecDeque<Instant>,
    syns: u64,
    dropped: u64,
    pub(super) verbose: bool,
}

impl Simulation {
    pub(super) fn new(network: Network, seed: u64) -> Self {
        let start = Instant::now();
        Self {
            network,
            random: Random(seed),
            start,
            now: start,
            retransmissions: BinaryHeap::new(),
            answers: BinaryHeap::new(),
            flights: Vec::new(),
            answers_len: 0,
            queue_free_at: start,
            resets: (0, 0),
            burst: (start, false),
            stall_at: start,
            second: (0, 0),
            banned_until: start,
            table: std::collections::VecDeque::new(),
            syns: 0,
            dropped: 0,
            verbose: false,
        }
    }

    /// Runs one scan to its end.
    pub(super) fn run(&mut self, plan: Plan) -> Report {
        let ports = plan.ports.clone();
        let mut scan = Scan::new(self.now, plan);
        let (mut passes, mut in_flight_max, mut steps) = (0, 0, 0_u64);
        let mut shown = self.now;
        while scan.is_running() {
            steps += 1;
            if steps > 3_000_000 {
                panic!(
                    "the scan does not end: {:?} {:?} {:?} deadline {:?} launch {:?} in flight {} \
                     {:?} pings {:?}",
                    self.now - self.start,
                    scan.counts(),
                    scan.state,
                    scan.deadline().map(|at| at.saturating_duration_since(self.now)),
                    scan.launch_at(self.now).map(|at| at.saturating_duration_since(self.now)),
                    scan.in_flight(),
                    scan.controller,
                    scan.pings,
                );
            }
            scan.set_allowance(self.network.capacity);
            self.stall();
            self.deliver(&mut scan);
            scan.handle_timeout(self.now);
            for _ in 0..Technique::Connect.properties().closes_per_tick {
                let Some(key) = scan.poll_expired(self.now) else { break };
                self.flights[key.index()] = None;
            }
            let mut launches_left = Technique::Connect.properties().launches_per_tick;
            while launches_left > 0 && self.launch(&mut scan) {
                launches_left -= 1;
            }
            in_flight_max = in_flight_max.max(scan.in_flight());
            if let ScanState::Pass(pass) = &scan.state {
                passes = pass.number;
            }
            if self.verbose && self.now - shown > Duration::from_millis(100) {
                shown = self.now;
                let rate = scan.controller.as_ref().map(|it| it.rate(self.now) as u64);
                println!(
                    "{:>7.3} pass {passes} {rate:?} {} fl {} p {} o{} c{} f{} u{} loss {:.3?}",
                    (self.now - self.start).as_secs_f64(),
                    scan.controller.as_ref().map_or(String::new(), |it| it.state_line()),
                    scan.in_flight(),
                    scan.pings.in_flight(),
                    scan.counts().open,
                    scan.counts().closed,
                    scan.counts().filtered,
                    scan.counts().untested,
                    scan.loss()
                );
            }
            if launches_left > 0 && scan.is_running() {
                self.sleep(&scan);
            }
        }
        let wrong = ports.iter().filter(|port| !self.is_correct(&scan, *port)).count();
        let open_found = scan.ports(PortState::Open).len();
        Report {
            elapsed: self.now - self.start,
            syns: self.syns,
            dropped: self.dropped,
            passes,
            counts: scan.counts(),
            open_found,
            wrong,
            loss: scan.loss(),
            is_complete: scan.is_complete(),
            in_flight_max,
        }
    }

    fn is_correct(&self, scan: &Scan, port: u16) -> bool {
        let state = match self.network.behaviour(port) {
            Behaviour::Open => PortState::Open,
            Behaviour::Closed => PortState::Closed,
            Behaviour::Silent => PortState::Filtered,
            Behaviour::Rejected => PortState::Unreachable,
        };
        scan.ports(state).contains(port)
    }

    fn launch(&mut self, scan: &mut Scan) -> bool {
        let key = Key::from_parts(self.flights.len() as u32, 0);
        let Some(launch) = scan.poll_launch(self.now, key) else { return false };
        self.flights.push(Some(Flight { launch, key, started: self.now }));
        let number = self.flights.len() as u32 - 1;
        self.send(self.now, number, 0);
        self.now += Duration::from_nanos(6_000);
        true
    }

    fn stall(&mut self) {
        let Some((every, limit)) = self.network.stalls else { return };
        if self.now >= self.stall_at {
            if self.stall_at > self.start {
                self.now += limit.mul_f64(self.random.unit());
            }
            self.stall_at = self.now + every.mul_f64(2.0 * self.random.unit());
        }
    }

    fn sleep(&mut self, scan: &Scan) {
        let deadline = scan.deadline().expect("a scan that runs has a deadline");
        let wake = scan.launch_at(self.now).map_or(deadline, |at| at.min(deadline));
        let until = wake.saturating_duration_since(self.now);
        // The poller rounds its timeout up to whole milliseconds.
        let until = self.now + Duration::from_millis(until.as_nanos().div_ceil(1_000_000) as u64);
        self.retransmit_until(until);
        let next = self.answers.peek().map(|Reverse((at, ..))| *at);
        self.now = next.map_or(until, |at| at.min(until)).max(self.now);
    }

    /// Sends the retransmissions that are due at `until` or before, up to the next answer.
    fn retransmit_until(&mut self, until: Instant) {
        while let Some(Reverse((at, number, retransmission))) = self.retransmissions.peek().copied()
        {
            let answered = self.answers.peek().map(|Reverse((at, ..))| *at);
            if at > answered.map_or(until, |at| at.min(until)) {
                return;
            }
            self.retransmissions.pop();
            if self.flights[number as usize].is_some() {
                self.send(at, number, retransmission);
            }
        }
    }

    fn deliver(&mut self, scan: &mut Scan) {
        loop {
            self.retransmit_until(self.now);
            match self.answers.peek() {
                Some(Reverse((at, ..))) if *at <= self.now => {}
                Some(_) | None => return,
            }
            let Some(Reverse((_, _, number))) = self.answers.pop() else { return };
            let Some(flight) = self.flights[number as usize].take() else { continue };
            let outcome = match self.network.behaviour(flight.launch.to.port()) {
                Behaviour::Open => Outcome::Connected,
                Behaviour::Closed => Outcome::Refused,
                Behaviour::Rejected => Outcome::Unreachable,
                Behaviour::Silent => unreachable!("a silent port does not answer"),
            };
            assert_eq!(flight.key.index(), number as usize);
            scan.handle_outcome(self.now, flight.launch.probe, outcome);
            self.now += Duration::from_nanos(1_000);
        }
    }

    /// Sends a SYN. Its answer is queued, unless the network or the host drops one of them.
    fn send(&mut self, at: Instant, number: u32, retransmission: u8) {
        let Some(flight) = &self.flights[number as usize] else { return };
        let (port, started) = (flight.launch.to.port(), flight.started);
        let seconds = [1, 3, 7, 15, 31, 63];
        let next = started + Duration::from_secs(seconds[usize::from(retransmission).min(5)]);
        self.retransmissions.push(Reverse((next, number, retransmission + 1)));
        self.syns += 1;
        let mut at = at;
        if self.is_lost(at) {
            return;
        }
        if let Some((rate, queue)) = self.network.bottleneck {
            let free_at = self.queue_free_at.max(at);
            let wait = free_at - at;
            if wait.as_secs_f64() * rate > f64::from(queue) {
                self.dropped += 1;
                return;
            }
            self.queue_free_at = free_at + Duration::from_secs_f64(1.0 / rate);
            at = self.queue_free_at;
        }
        let elapsed = at - self.start;
        let mut rtt = self.network.rtt;
        match self.network.change {
            Some((when, Change::Rtt(later))) if elapsed >= when => rtt = later,
            Some((when, Change::Disappears)) if elapsed >= when => return,
            Some((when, Change::Appears)) if elapsed < when => return,
            Some(_) | None => {}
        }
        if self.is_banned(at) {
            return;
        }
        let behaviour = self.network.behaviour(port);
        if !self.has_entry(at, behaviour) || behaviour == Behaviour::Silent {
            return;
        }
        if behaviour == Behaviour::Closed && !self.may_reset(elapsed.as_secs()) {
            return;
        }
        if self.is_lost(at) {
            return;
        }
        let jitter = self.network.jitter.mul_f64(self.random.unit());
        self.answers_len += 1;
        self.answers.push(Reverse((at + rtt + jitter, self.answers_len, number)));
    }

    fn is_banned(&mut self, at: Instant) -> bool {
        let Some((limit, time)) = self.network.ban else { return false };
        let second = (at - self.start).as_secs();
        if self.second.0 != second {
            self.second = (second, 0);
        }
        self.second.1 += 1;
        if self.second.1 > limit && at >= self.banned_until {
            self.banned_until = at + time;
        }
        at < self.banned_until
    }

    /// Whether the middlebox forwards a SYN. The entry of an answered SYN is removed at once.
    fn has_entry(&mut self, at: Instant, behaviour: Behaviour) -> bool {
        let Some((limit, time)) = self.network.table else { return true };
        while self.table.front().is_some_and(|end| *end <= at) {
            self.table.pop_front();
        }
        if self.table.len() >= limit {
            return false;
        }
        if behaviour == Behaviour::Silent {
            self.table.push_back(at + time);
        }
        true
    }

    fn may_reset(&mut self, second: u64) -> bool {
        let Some(limit) = self.network.resets else { return true };
        if self.resets.0 != second {
            self.resets = (second, 0);
        }
        self.resets.1 += 1;
        self.resets.1 <= limit
    }

    fn is_lost(&mut self, at: Instant) -> bool {
        let mut loss = self.network.loss;
        if let Some((length, share, lost)) = self.network.bursts {
            while self.burst.0 <= at {
                let is_bad = !self.burst.1;
                let mean = if is_bad { length } else { length.mul_f64((1.0 - share) / share) };
                let len = mean.mul_f64(-(1.0 - self.random.unit()).ln());
                self.burst = (self.burst.0 + len, is_bad);
            }
            if self.burst.1 {
                loss = lost;
            }
        }
        self.random.unit() < loss
    }
}

/// A plan with the default options of the service.
pub(super) fn plan(first: u16, last: u16) -> Plan {
    Plan {
        target: ([192, 0, 2, 1], 0).into(),
        is_routed: true,
        share: RateShare::WHOLE,
        ports: PortSet::from_range(first, last),
        options: ScanOptions::default(),
        ends_at: Instant::now() + Duration::from_secs(3000),
    }
}

/// A set of `count` open ports, spread evenly up to `last`.
pub(super) fn open(count: u16, last: u16) -> BTreeSet<u16> {
    (1..=count).map(|n| (u32::from(n) * u32::from(last) / (u32::from(count) + 1)) as u16).collect()
}

/// A random network, and the plan of a scan through it.
pub(super) fn random_network(seed: u64, ports_max: u16) -> (Network, Plan) {
    let mut random = Random(seed.wrapping_mul(0x5851_f42d_4c95_7f2d));
    let log = |random: &mut Random, low: f64, high: f64| low * (high / low).powf(random.unit());
    let ports = log(&mut random, 1.0, f64::from(ports_max) + 0.9) as u16;
    let rtt = Duration::from_secs_f64(log(&mut random, 1e-4, 0.4));
    let chance = |random: &mut Random, share: f64| random.unit() < share;
    let count = 1 + random.below(10);
    let open = (0..count).map(|_| 1 + random.below(u64::from(ports)) as u16).collect();
    let mut network = Network { rtt, open, ..Network::default() };
    network.silent = match random.below(4) {
        0 => 0,
        1 => 1000,
        _ => random.below(1001),
    };
    if chance(&mut random, 0.5) {
        network.loss = 0.25 * random.unit() * random.unit();
    }
    if chance(&mut random, 0.1) {
        let length = Duration::from_secs_f64(log(&mut random, 0.02, 0.5));
        network.bursts = Some((length, 0.03 * random.unit(), 0.5 + 0.5 * random.unit()));
    }
    if chance(&mut random, 0.5) {
        let rate = log(&mut random, 300.0, 100_000.0);
        network.bottleneck = Some((rate, log(&mut random, 10.0, 1000.0) as u32));
    }
    if chance(&mut random, 0.15) {
        network.resets = Some(log(&mut random, 50.0, 5000.0) as u32);
    }
    if chance(&mut random, 0.3) {
        network.jitter = rtt.mul_f64(random.unit());
    }
    if chance(&mut random, 0.1) {
        network.stalls = Some((Duration::from_millis(800), Duration::from_millis(200)));
    }
    network.capacity = log(&mut random, 200.0, 65_536.0) as usize;
    let mut plan = plan(1, ports);
    plan.options.timeout = match random.below(10) {
        0 => Timeout::Auto,
        1 => Timeout::Fixed(Duration::from_millis(500)),
        _ => plan.options.timeout,
    };
    (network, plan)
}

/// The approximate minimum duration of a scan through this network, in seconds.
pub(super) fn seconds_min(network: &Network, plan: &Plan) -> f64 {
    let count = |behaviour| {
        plan.ports.iter().filter(|port| network.behaviour(*port) == behaviour).count() as f64
    };
    let (silent, closed) = (count(Behaviour::Silent), count(Behaviour::Closed));
    let timeout = match plan.options.timeout {
        Timeout::Fixed(timeout) => timeout.as_secs_f64(),
        Timeout::Auto => (3.0 * network.rtt.as_secs_f64()).max(0.2),
    };
    let retransmissions = if timeout > 1.0 { silent } else { 0.0 };
    let rate = network.bottleneck.map_or(100_000.0, |(rate, _)| rate.min(100_000.0));
    let sending = (plan.ports.len() as f64 + retransmissions) / rate;
    let resets = network.resets.map_or(0.0, |limit| closed / f64::from(limit) - 1.0);
    let windows = silent * timeout / network.capacity as f64;
    let is_waiting = silent > 0.0 || network.loss > 0.0 || network.resets.is_some();
    let waiting = if is_waiting { timeout } else { 0.0 };
    sending.max(resets).max(windows) + 2.0 * network.rtt.as_secs_f64() + waiting + 0.1
}

/// Scans one random network. Returns the duration as a multiple of the minimum, and the number of
/// missed open ports.
fn scan_random_network(seed: u64, ports_max: u16) -> (f64, usize, Report, Network, Plan) {
    let (network, plan) = random_network(seed, ports_max);
    let mut simulation = Simulation::new(network.clone(), seed);
    let ends_at = simulation.now + Duration::from_secs(3000);
    let report = simulation.run(Plan { ends_at, ..plan.clone() });
    assert!(report.in_flight_max <= network.capacity, "seed {seed}: {report:?}");
    assert!(report.loss.is_none_or(|loss| (0.0..=1.0).contains(&loss)), "seed {seed}");
    let missed = network.open.len() - report.open_found;
    (report.elapsed.as_secs_f64() / seconds_min(&network, &plan), missed, report, network, plan)
}

#[test]
#[ignore = "prints the distribution over random networks, for tuning"]
fn distribution() {
    let number = |name: &str, usual: u64| {
        std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
    };
    let (first, runs) = (number("FIRST", 1), number("RUNS", 1000));
    let ports_max = number("PORTS", 3000) as u16;
    let mut factors = Vec::new();
    for seed in first..first + runs {
        let (factor, missed, report, network, plan) = scan_random_network(seed, ports_max);
        let total = plan.ports.len();
        let is_clean = network.loss == 0.0
            && network.bursts.is_none()
            && network.resets.is_none()
            && report.dropped == 0;
        if is_clean && report.loss.is_some_and(|loss| loss > 0.0) {
            println!(
                "FALSE LOSS {:.4?} seed {seed} ports {total} {:?} {network:?}",
                report.loss, plan.options.timeout
            );
        }
        if missed > 0 && report.loss.is_some() {
            println!(
                "MISSED {missed} seed {seed} loss {:.4?} complete {} of {total} open {} {:?} \
                 {network:?}",
                report.loss, report.is_complete, report.open_found, plan.options.timeout
            );
        }
        let brief = Network { open: BTreeSet::new(), ..network };
        factors.push((
            factor,
            seed,
            total,
            report.elapsed,
            report.loss,
            report.dropped,
            report.passes,
            plan.options.timeout,
            brief,
        ));
    }
    factors.sort_by(|a, b| a.0.total_cmp(&b.0));
    for share in [0.5, 0.75, 0.9, 0.95, 0.99] {
        println!("{share}: {:.2}", factors[(factors.len() as f64 * share) as usize].0);
    }
    for worst in factors.iter().rev().take(12) {
        println!("{worst:?}");
    }
}

/// Scans random networks. `NETWORKS` is their number, and `FIRST` the first seed.
#[test]
fn scans_of_random_networks_end_in_time_and_report_loss_if_ports_are_missed() {
    let number = |name: &str, usual: u64| {
        std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
    };
    let (first, count) = (number("FIRST", 1), number("NETWORKS", 256));
    let (mut missed_unreported, mut slow) = (Vec::new(), Vec::new());
    for seed in first..first + count {
        let (factor, missed, report, network, plan) = scan_random_network(seed, 1000);
        assert_eq!(report.counts.total() as usize, plan.ports.len(), "seed {seed}");
        assert!(report.is_complete, "seed {seed}");
        let is_reported = report.loss.is_none_or(|loss| loss > 0.02);
        if missed > 0 && !is_reported {
            missed_unreported.push((seed, missed, report.loss));
        }
        // A limit of the host, or a loss that needs many passes, makes a scan slow.
        let is_limited = network.resets.is_some() || network.loss > 0.05;
        let limit = if is_limited { 40.0 } else { 15.0 };
        if factor > limit && report.elapsed > Duration::from_secs(5) {
            slow.push((seed, factor, report.elapsed));
        }
    }
    // Fewer than one scan in a hundred misses a port without reporting loss.
    assert!(missed_unreported.len() as u64 <= count / 100 + 1, "{missed_unreported:?}");
    assert!(slow.is_empty(), "{slow:?}");
}

#[test]
fn a_network_without_loss_is_scanned_in_one_pass_that_reports_no_loss() {
    let ms = Duration::from_millis;
    let silent =
        |rtt| Network { rtt: ms(rtt), silent: 950, open: open(3, 3000), ..Network::default() };
    let stalls = Some((ms(700), ms(300)));
    let networks = [
        silent(1),
        silent(50),
        silent(400),
        Network { jitter: ms(20), ..silent(50) },
        Network { stalls, ..silent(30) },
        Network { silent: 0, stalls, ..silent(30) },
        Network { silent: 0, rejected: 1000, ..silent(30) },
        Network { capacity: 200, ..silent(20) },
    ];
    for network in networks {
        for seed in 0..4 {
            let mut simulation = Simulation::new(network.clone(), seed);
            let report = simulation.run(plan(1, 3000));
            assert_eq!(report.loss, Some(0.0), "{network:?}: {report:?}");
            assert_eq!((report.wrong, report.passes), (0, 0), "{network:?}: {report:?}");
        }
    }
}

#[test]
fn a_scan_reports_loss_if_a_dead_host_a_ban_or_a_full_middlebox_hides_ports() {
    let ms = Duration::from_millis;
    let base = Network { silent: 900, rtt: ms(30), open: open(5, 3000), ..Network::default() };
    let networks = [
        Network { change: Some((ms(100), Change::Disappears)), silent: 500, ..base.clone() },
        Network { ban: Some((1000, ms(3000))), ..base.clone() },
        Network { table: Some((500, ms(5000))), ..base },
    ];
    for network in networks {
        let report = Simulation::new(network.clone(), 1).run(plan(1, 3000));
        assert!(report.loss.is_some_and(|loss| loss > 0.1), "{network:?}: {report:?}");
        assert!(report.elapsed < Duration::from_secs(120), "{network:?}: {report:?}");
    }
}

#[test]
fn every_open_port_is_found_through_loss_queues_and_changes() {
    let ms = Duration::from_millis;
    let base = Network { silent: 900, rtt: ms(30), open: open(5, 3000), ..Network::default() };
    let networks = [
        Network { loss: 0.2, ..base.clone() },
        Network { loss: 0.02, silent: 0, ..base.clone() },
        Network { bottleneck: Some((10_000.0, 100)), silent: 1000, ..base.clone() },
        Network { bottleneck: Some((800.0, 20)), silent: 500, ..base.clone() },
        Network { resets: Some(200), silent: 500, ..base.clone() },
        Network { bursts: Some((ms(200), 0.01, 0.8)), ..base.clone() },
        Network { change: Some((ms(300), Change::Rtt(ms(300)))), silent: 500, ..base.clone() },
        Network { change: Some((ms(1500), Change::Appears)), silent: 500, ..base.clone() },
        Network { rtt: ms(600), loss: 0.02, ..base },
    ];
    for network in networks {
        let mut missed = 0;
        for seed in 0..5 {
            let report = Simulation::new(network.clone(), seed).run(plan(1, 3000));
            missed += network.open.len() - report.open_found;
            assert!(report.elapsed < Duration::from_secs(60), "{network:?}: {report:?}");
        }
        assert!(missed <= 1, "{missed} missed: {network:?}");
    }
}

#[test]
fn a_queue_too_short_to_delay_answers_is_not_flooded() {
    for (silent, bottleneck) in [(500, (20_000.0, 64)), (0, (5_000.0, 13)), (500, (5_000.0, 13))] {
        let network = Network {
            rtt: Duration::from_millis(20),
            silent,
            open: open(5, 65_535),
            bottleneck: Some(bottleneck),
            ..Network::default()
        };
        let report = Simulation::new(network, 1).run(plan(1, 65_535));
        assert_eq!(report.open_found, 5, "{report:?}");
        assert!(report.wrong == 0 && report.dropped * 6 < report.syns, "{report:?}");
    }
}

/// A regression test: a full queue looked like a longer path, and the rate never fell below 500.
/// Pings alone show whether the path carries the rate, so an almost silent host needs as few
/// rounds as possible.
#[test]
fn pings_alone_raise_the_rate_within_a_few_rounds() {
    let open = BTreeSet::from([22, 80, 443]);
    let rtt = Duration::from_millis(50);
    let network = Network { rtt, silent: 1000, capacity: 70_000, open, ..Network::default() };
    let report = Simulation::new(network, 1).run(plan(1, 65_535));
    assert_eq!((report.loss, report.wrong), (Some(0.0), 0), "{report:?}");
    // The last port is silent for two seconds.
    assert!(report.elapsed < Duration::from_millis(2700), "{report:?}");
}

#[test]
fn a_link_slower_than_500_packets_per_second_is_not_flooded() {
    for (rate, queue, silent, rtt) in [(300.0, 30, 500, 40), (400.0, 100, 900, 100)] {
        let network = Network {
            rtt: Duration::from_millis(rtt),
            silent,
            open: open(5, 2000),
            bottleneck: Some((rate, queue)),
            ..Network::default()
        };
        let report = Simulation::new(network, 1).run(plan(1, 2000));
        assert!(report.wrong == 0 && report.dropped * 5 < report.syns, "{report:?}");
    }
}

#[test]
fn a_host_that_appears_while_all_probes_are_in_flight_is_scanned_correctly() {
    let ms = Duration::from_millis;
    let network = Network {
        rtt: Duration::from_micros(500),
        silent: 750,
        open: open(3, 350),
        capacity: 150,
        change: Some((ms(1577), Change::Appears)),
        ..Network::default()
    };
    let report = Simulation::new(network, 1).run(plan(1, 350));
    assert_eq!(report.wrong, 0, "{report:?}");
    assert!(report.loss.is_some_and(|loss| loss > 0.0), "{report:?}");
}

#[test]
fn with_a_short_timeout_a_scan_continues_until_enough_pings_were_answered() {
    let ms = Duration::from_millis;
    let ban = Some((67, ms(44_000)));
    let network = Network { rtt: ms(370), open: open(9, 103), ban, ..Network::default() };
    let options = ScanOptions { timeout: Timeout::Fixed(ms(500)), ..ScanOptions::default() };
    let report = Simulation::new(network, 1).run(Plan { options, ..plan(1, 103) });
    assert!(report.wrong > 0 && report.loss.is_some_and(|loss| loss > 0.1), "{report:?}");
}

#[test]
fn a_requested_rate_and_concurrency_are_kept() {
    let network = Network { silent: 500, open: open(3, 2000), ..Network::default() };
    let with_rate = Plan {
        options: ScanOptions { rate: NonZeroU32::new(500), ..ScanOptions::default() },
        ..plan(1, 2000)
    };
    let report = Simulation::new(network.clone(), 1).run(with_rate);
    assert!(report.elapsed >= Duration::from_secs(4), "{report:?}");
    assert_eq!(report.wrong, 0);
    let with_concurrency = Plan {
        options: ScanOptions { concurrency: NonZeroU16::new(50), ..ScanOptions::default() },
        ..plan(1, 2000)
    };
    let report = Simulation::new(network, 1).run(with_concurrency);
    assert!(report.in_flight_max <= 50 && report.wrong == 0, "{report:?}");
}

#[test]
#[ignore = "prints a table, for tuning"]
fn table() {
    let ms = Duration::from_millis;
    let base = |rtt: u64| Network { rtt: ms(rtt), open: open(10, 65_535), ..Network::default() };
    let rows: Vec<(&str, Network, Plan)> = vec![
        ("near closed", Network { rtt: Duration::from_micros(100), ..base(0) }, plan(1, 65_535)),
        ("50 ms closed <=0.75", base(50), plan(1, 65_535)),
        ("50 ms silent <=9.0", Network { silent: 1000, ..base(50) }, plan(1, 65_535)),
        (
            "50 ms silent SYN <=2.6",
            Network { silent: 1000, capacity: 70_000, ..base(50) },
            plan(1, 65_535),
        ),
        (
            "silent 10k q200 SYN <=18",
            Network {
                silent: 1000,
                bottleneck: Some((10_000.0, 200)),
                capacity: 70_000,
                ..base(20)
            },
            plan(1, 65_535),
        ),
        (
            "half 20 ms 1% SYN",
            Network { silent: 500, loss: 0.01, capacity: 70_000, ..base(20) },
            plan(1, 65_535),
        ),
        (
            "50 ms silent auto <=2.6",
            Network { silent: 1000, ..base(50) },
            Plan {
                options: ScanOptions { timeout: Timeout::Auto, ..ScanOptions::default() },
                ..plan(1, 65_535)
            },
        ),
        ("half 20 ms 1% <=6", Network { silent: 500, loss: 0.01, ..base(20) }, plan(1, 65_535)),
        ("half 50 ms .2% <=6", Network { silent: 500, loss: 0.002, ..base(50) }, plan(1, 65_535)),
        (
            "1-1024 2000pps q100 <=3.5",
            Network {
                silent: 1000,
                open: open(3, 1024),
                bottleneck: Some((2000.0, 100)),
                ..base(30)
            },
            plan(1, 1024),
        ),
        (
            "silent 10k q200 <=18",
            Network { silent: 1000, bottleneck: Some((10_000.0, 200)), ..base(20) },
            plan(1, 65_535),
        ),
        (
            "closed 10k q200 <=9",
            Network { bottleneck: Some((10_000.0, 200)), ..base(20) },
            plan(1, 65_535),
        ),
        (
            "1-5000 half 1000 RST/s <=8",
            Network { silent: 500, resets: Some(1000), open: open(4, 5000), ..base(20) },
            plan(1, 5000),
        ),
        ("closed 1000 RST/s", Network { resets: Some(1000), ..base(20) }, plan(1, 65_535)),
        ("50 ms silent 20%", Network { silent: 1000, loss: 0.2, ..base(50) }, plan(1, 65_535)),
        ("50 ms closed 20%", Network { loss: 0.2, ..base(50) }, plan(1, 65_535)),
        ("50 ms closed 5%", Network { loss: 0.05, ..base(50) }, plan(1, 65_535)),
        (
            "silent bursts",
            Network { silent: 1000, bursts: Some((ms(200), 0.01, 0.8)), ..base(50) },
            plan(1, 65_535),
        ),
        (
            "half bursts",
            Network { silent: 500, bursts: Some((ms(200), 0.01, 0.8)), ..base(50) },
            plan(1, 65_535),
        ),
        ("half jitter 20", Network { silent: 500, jitter: ms(20), ..base(50) }, plan(1, 65_535)),
        (
            "half 5000pps q50 5% loss",
            Network { silent: 500, loss: 0.05, bottleneck: Some((5000.0, 50)), ..base(80) },
            plan(1, 20_000),
        ),
        (
            "closed 50kpps q1000",
            Network { bottleneck: Some((50_000.0, 1000)), ..base(50) },
            plan(1, 65_535),
        ),
        (
            "half 800pps q20",
            Network {
                silent: 500,
                bottleneck: Some((800.0, 20)),
                open: open(3, 2000),
                ..base(120)
            },
            plan(1, 2000),
        ),
        (
            "rtt x10",
            Network { silent: 500, change: Some((ms(300), Change::Rtt(ms(500)))), ..base(50) },
            plan(1, 20_000),
        ),
        (
            "disappears",
            Network { silent: 500, change: Some((ms(100), Change::Disappears)), ..base(50) },
            plan(1, 20_000),
        ),
        (
            "appears",
            Network { silent: 500, change: Some((ms(1500), Change::Appears)), ..base(50) },
            plan(1, 20_000),
        ),
        (
            "ban 5000/s 3 s",
            Network { silent: 900, ban: Some((5000, ms(3000))), ..base(30) },
            plan(1, 20_000),
        ),
        (
            "table 500 5 s",
            Network { silent: 900, table: Some((500, ms(5000))), ..base(30) },
            plan(1, 5000),
        ),
        (
            "3000 silent 2000pps q100",
            Network {
                silent: 1000,
                open: open(5, 3000),
                bottleneck: Some((2000.0, 100)),
                ..base(30)
            },
            plan(1, 3000),
        ),
        ("rejected", Network { rejected: 1000, ..base(30) }, plan(1, 20_000)),
        ("half rejected", Network { silent: 500, rejected: 500, ..base(30) }, plan(1, 20_000)),
        ("600 ms silent", Network { silent: 1000, ..base(600) }, plan(1, 20_000)),
        ("600 ms half 3%", Network { silent: 500, loss: 0.03, ..base(600) }, plan(1, 20_000)),
        (
            "half stalls",
            Network { silent: 500, stalls: Some((ms(1000), ms(300))), ..base(30) },
            plan(1, 20_000),
        ),
        (
            "silent stalls auto",
            Network { silent: 1000, stalls: Some((ms(700), ms(300))), ..base(30) },
            Plan {
                options: ScanOptions { timeout: Timeout::Auto, ..ScanOptions::default() },
                ..plan(1, 20_000)
            },
        ),
        ("silent jitter 80", Network { silent: 1000, jitter: ms(80), ..base(30) }, plan(1, 20_000)),
        (
            "timeout 250 ms half",
            Network { silent: 500, ..base(30) },
            Plan {
                options: ScanOptions { timeout: Timeout::Fixed(ms(250)), ..ScanOptions::default() },
                ..plan(1, 20_000)
            },
        ),
        (
            "timeout 250 ms 3 ports",
            Network { silent: 500, open: open(1, 3), ..base(30) },
            Plan {
                options: ScanOptions { timeout: Timeout::Fixed(ms(250)), ..ScanOptions::default() },
                ..plan(1, 3)
            },
        ),
        (
            "timeout 10 s 2% ",
            Network { silent: 900, loss: 0.01, ..base(30) },
            Plan {
                options: ScanOptions {
                    timeout: Timeout::Fixed(ms(10_000)),
                    ..ScanOptions::default()
                },
                ..plan(1, 2000)
            },
        ),
        ("100 ports", Network { silent: 900, open: open(3, 100), ..base(30) }, plan(1, 100)),
        (
            "3 ports 10%",
            Network { silent: 500, loss: 0.1, open: open(1, 3), ..base(30) },
            plan(1, 3),
        ),
        (
            "1 port 20%",
            Network { silent: 500, loss: 0.2, open: open(1, 1), ..base(30) },
            plan(1, 1),
        ),
        (
            "all silent",
            Network { silent: 1000, open: BTreeSet::new(), ..base(50) },
            plan(1, 65_535),
        ),
        (
            "all silent 1-1024",
            Network { silent: 1000, open: BTreeSet::new(), ..base(50) },
            plan(1, 1024),
        ),
    ];
    let only = std::env::var("ROW").unwrap_or_default();
    for (name, network, plan) in rows {
        if !name.contains(&only) {
            continue;
        }
        let runs = std::env::var("RUNS").map_or(5, |text| text.parse().unwrap_or(5));
        let mut times = Vec::new();
        let ports = plan.ports.clone();
        let (mut missed, mut wrong, mut last) = (0, 0, None);
        for seed in 0..runs {
            let mut simulation = Simulation::new(network.clone(), seed);
            simulation.verbose = !only.is_empty() && runs == 1;
            let plan = Plan { ends_at: simulation.now + Duration::from_secs(300), ..plan.clone() };
            let report = simulation.run(plan);
            missed += network.open.iter().filter(|port| ports.contains(**port)).count()
                - report.open_found;
            wrong += report.wrong;
            times.push(report.elapsed.as_secs_f64());
            last = Some(report);
        }
        times.sort_by(f64::total_cmp);
        let last = last.expect("there was at least one run");
        println!(
            "{name:28} {:6.2} ({:.2}-{:.2}) s missed {missed} wrong {wrong} passes {} syns {} \
             dropped {} in flight {} loss {:.4?}",
            times[times.len() / 2],
            times[0],
            times[times.len() - 1],
            last.passes + 1,
            last.syns,
            last.dropped,
            last.in_flight_max,
            last.loss,
        );
    }
}
