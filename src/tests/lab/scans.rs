//! The real binary against the hosts of the lab: the kinds of networks from issues and documents,
//! each with the expected result.
//!
//! These cases check that no open port is missed. benches/compare measures the duration; these
//! cases only compare times with a lower limit. The tests of the service on loopback are in
//! src/tests/service.

use std::net::Ipv4Addr;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::client::Scan;
use crate::lab::{
    Direction, DownAfter, HOST_ADDRESS, Host, Lab, Link, Port, Stats, TEN_PORTS, Unreachable,
};
use crate::process::{Service, until};
use crate::{Case, Outcome};

pub(crate) const CASES: &[Case] = &[
    ("every_port_of_a_near_host_is_classified_in_one_pass", near),
    ("every_port_of_a_host_50_ms_away_is_classified_in_one_pass", far),
    ("silent_ports_are_filtered_and_probed_once_without_signs_of_loss", silent),
    ("timeout_auto_finds_the_open_ports_among_65535_silent_ones", silent_auto),
    ("five_percent_loss_is_detected_and_compensated_by_default", lossy_closed),
    ("three_retries_find_99_of_100_through_twenty_percent_loss", lossy_silent),
    ("a_rst_limit_hides_no_open_port", rst_limit),
    ("another_pass_follows_when_a_syn_limit_was_exhausted", syn_limit),
    ("icmp_errors_make_ports_unreachable_and_not_filtered", unreachable),
    ("all_ports_of_a_tarpit_are_open", tarpit),
    ("the_remaining_ports_of_a_host_that_goes_down_are_filtered", host_that_goes_down),
    ("a_deadline_ends_the_scan_with_partial_results", deadline),
    ("the_rate_is_kept_from_the_first_connect_on", rate),
    ("a_small_scan_ends_during_a_large_silent_one", simultaneous),
    ("a_list_of_targets_behind_one_bottleneck_misses_none_with_certainty", sweep),
    ("a_silent_target_of_a_large_network_takes_less_than_500_bytes", network_memory),
];

/// A small set of ports, including the ten open ports, that a debug build scans quickly.
pub(crate) const FEW_PORTS: &str = "ports=1-2000,3306,8080,20000,33333,50000,65535";
pub(crate) const FEW_PORTS_LEN: u64 = 2006;

/// Scans one host; returns the answer and the statistics of the lab.
pub(crate) fn scan(host: Host, query: &str) -> Result<(Scan, Stats), Box<dyn std::error::Error>> {
    let target = host.address;
    let lab = Lab::enter()?.start(vec![host])?;
    let service = Service::start(&[]);
    let scan = service.scan(&format!("domain={target}&{query}"));
    drop(service);
    let stats = lab.stop()?;
    assert_eq!(stats.own_losses(), 0, "{stats}");
    Ok((scan, stats))
}

/// A host with the ten open ports.
pub(crate) fn host() -> Host {
    Host::new(HOST_ADDRESS).ports(&TEN_PORTS, Port::Open)
}

fn near() -> Outcome {
    check_closed(host())
}

fn far() -> Outcome {
    check_closed(host().rtt(Duration::from_millis(50)))
}

fn check_closed(host: Host) -> Outcome {
    let (scan, stats) = scan(host, "toPort=65535")?;
    scan.check_open(&TEN_PORTS)
        .check_counts([10, 65_525, 0, 0, 0])
        .check_key("retried", 0)
        .check_key("loss_suspected", false);
    let pings = stats.syns - 65_535;
    assert!(pings <= pings_max(&scan), "only the pinged port may be probed twice: {stats}");
    Ok(())
}

/// There is at most one ping every 4 ms.
fn pings_max(scan: &Scan) -> u64 {
    scan.elapsed_ms() / 4 + 1
}

fn silent() -> Outcome {
    let host = host().rtt(Duration::from_millis(50)).rest(Port::Silent);
    let (scan, stats) = scan(host, FEW_PORTS)?;
    scan.check_open(&TEN_PORTS)
        .check_counts([10, 0, FEW_PORTS_LEN - 10, 0, 0])
        .check_key("retried", 0)
        .check_key("loss_suspected", false);
    assert!(scan.elapsed_ms() >= 2000, "a silent port should have the full timeout: {scan:?}");
    let syns = 10 + 2 * (FEW_PORTS_LEN - 10);
    assert!(
        stats.syns <= syns + pings_max(&scan),
        "there are more SYNs than those that the kernel repeats: {stats}"
    );
    Ok(())
}

fn silent_auto() -> Outcome {
    let host = host().rtt(Duration::from_millis(50)).rest(Port::Silent);
    let (scan, _) = scan(host, "toPort=65535&timeout=auto")?;
    scan.check_open(&TEN_PORTS)
        .check_counts([10, 0, 65_525, 0, 0])
        .check_key("loss_suspected", false);
    Ok(())
}

fn lossy_closed() -> Outcome {
    let (scan, stats) = scan(host().rtt(Duration::from_millis(50)).loss(0.05), "toPort=65535")?;
    scan.check_open(&TEN_PORTS).check_key("loss_suspected", true).check_key("complete", true);
    assert_eq!(scan.count("open") + scan.count("closed") + scan.count("filtered"), 65_535);
    assert!(stats.lost_to > 0 && stats.lost_from > 0, "{stats}");
    let retried = scan.json["retried"].as_u64();
    assert!(
        retried.is_some_and(|retried| retried > 0),
        "silent ports should be probed again: {scan:?}"
    );
    Ok(())
}

/// A port stays silent through four passes of two SYNs with a probability of 0.36 to the power of
/// 8, which is about 0.0003. Two such ports among a hundred happen about once in two thousand runs.
fn lossy_silent() -> Outcome {
    let address = |number| Ipv4Addr::new(10, 99, 1, number);
    let hosts = (1..=10).map(|number| Host {
        seed: number.into(),
        address: address(number).into(),
        ..host().rtt(Duration::from_millis(50)).loss(0.2).rest(Port::Silent)
    });
    let lab = Lab::enter()?.start(hosts.collect())?;
    let service = Service::start(&[]);
    let scans: Vec<_> = (1..=10)
        .map(|number| {
            let query = format!("domain={}&{FEW_PORTS}&retries=3", address(number));
            service.begin_scan(&query, "")
        })
        .collect();
    let mut found = 0;
    for mut client in scans {
        let scan = Scan::of(client.receive("GET"));
        assert!(scan.open().iter().all(|port| TEN_PORTS.contains(port)), "{scan:?}");
        assert_eq!(scan.count("open") + scan.count("filtered"), FEW_PORTS_LEN, "{scan:?}");
        scan.check_key("loss_suspected", true).check_key("complete", true);
        found += scan.open().len();
    }
    let stats = lab.stop()?;
    assert!(found >= 99, "only {found} of 100 open ports were found: {stats}");
    Ok(())
}

fn rst_limit() -> Outcome {
    let host = Host { rst_per_second: Some(1000), ..host().rtt(Duration::from_millis(20)) };
    check_limit(host)
}

fn syn_limit() -> Outcome {
    let host = Host { syn_per_second: Some(1000), ..host().rtt(Duration::from_millis(20)) };
    check_limit(host)
}

/// The SYNs that the kernel repeats reach about 1,000 more ports; the passes must find the others.
fn check_limit(host: Host) -> Outcome {
    let (scan, stats) = scan(host, "ports=1-3000,3306,8080,20000,33333,50000,65535")?;
    scan.check_open(&TEN_PORTS).check_counts([10, 2996, 0, 0, 0]);
    scan.check_key("loss_suspected", true);
    assert!(stats.limited > 0, "{stats}");
    Ok(())
}

fn unreachable() -> Outcome {
    // The kernel drops an ICMP error that arrives before `connect` returns, so the host has a
    // round-trip time.
    let mut host = host().rtt(Duration::from_millis(5));
    for (first, why) in [
        (101, Unreachable::Network),
        (201, Unreachable::Host),
        (301, Unreachable::Prohibited),
        (501, Unreachable::Port),
    ] {
        let ports: Vec<u16> = (first..first + 100).collect();
        host = host.ports(&ports, Port::Unreachable(why));
    }
    let (scan, _) = scan(host.rest(Port::Closed), "fromPort=101&toPort=600&include=unreachable")?;
    // A "port unreachable" error is a refusal by the port itself, like a RST. Port 443 is open.
    scan.check_open(&[443]).check_counts([1, 199, 0, 300, 0]);
    scan.check_key("unreachable_ports", "101-400").check_key("retried", 0);
    Ok(())
}

fn tarpit() -> Outcome {
    let (scan, _) = scan(Host::new(HOST_ADDRESS).rest(Port::Open), "toPort=65535")?;
    scan.check_counts([65_535, 0, 0, 0, 0]).check_key("retried", 0);
    Ok(())
}

fn host_that_goes_down() -> Outcome {
    let host = Host { down_after: Some(DownAfter::Packets(1000)), ..Host::new(HOST_ADDRESS) };
    let (scan, _) = scan(host, "toPort=2000")?;
    scan.check_open(&[]).check_key("complete", true).check_key("loss_suspected", true);
    let [closed, filtered] = ["closed", "filtered"].map(|state| scan.count(state));
    // Some of the packets were pings.
    assert!((900..=1000).contains(&closed) && closed + filtered == 2000, "{scan:?}");
    Ok(())
}

fn deadline() -> Outcome {
    let host = host().rest(Port::Silent);
    let (scan, _) = scan(host, "toPort=65535&deadline=1s&timeout=1s&concurrency=1000")?;
    scan.check_key("complete", false);
    let [open, untested] = ["open", "untested"].map(|state| scan.count(state));
    assert!(untested > 0 && open < 10, "only a small part of the ports should be probed: {scan:?}");
    assert_eq!(open + scan.count("filtered") + untested, 65_535, "{scan:?}");
    assert!(scan.elapsed_ms() >= 1000, "{scan:?}");
    Ok(())
}

fn rate() -> Outcome {
    let lab = Lab::enter()?.start(vec![host()])?;
    let service = Service::start(&[]);
    let start = Instant::now();
    let mut client = service.begin_scan(&format!("domain={HOST_ADDRESS}&toPort=500&rate=1000"), "");
    // The SYNs are counted before the clock is read. A pause in between can therefore hide a burst,
    // but it cannot make an even rate look like a burst. A late event loop may send the SYNs of up
    // to five milliseconds at once.
    let mut syns = 0;
    while syns < 500 {
        syns = lab.stats().syns;
        let due = start.elapsed().as_secs_f64() * 1000.0 + 10.0;
        assert!(syns as f64 <= due, "there were {syns} connects, but only {due:.0} are due");
        std::thread::sleep(Duration::from_millis(1));
    }
    let scan = Scan::of(client.receive("GET"));
    scan.check_open(&[1, 22, 80, 443]).check_counts([4, 496, 0, 0, 0]);
    assert!(scan.elapsed_ms() >= 400, "{scan:?}");
    Ok(())
}

fn simultaneous() -> Outcome {
    let silent = Ipv4Addr::new(10, 99, 1, 2);
    let hosts = vec![host(), Host::new(silent).rest(Port::Silent)];
    let lab = Lab::enter()?.start(hosts)?;
    let service = Service::start(&[]);
    let _large = service.begin_scan(&format!("domain={silent}&toPort=65535&timeout=20s"), "");
    let capacity = service.metric("openports_connects_in_flight_max");
    until("the large scan uses all connects", || {
        (service.metric("openports_connects_in_flight") == capacity).then_some(())
    });
    let scan = service.scan(&format!("domain={HOST_ADDRESS}&toPort=100"));
    scan.check_open(&[1, 22, 80]).check_counts([3, 97, 0, 0, 0]);
    assert_eq!(service.metric("openports_scans_running"), 1, "the large scan is still running");
    drop(service);
    assert_eq!(lab.stop()?.own_losses(), 0);
    Ok(())
}

/// A list of hosts behind one bottleneck, each with these ports open.
struct Sweep {
    hosts: u32,
    rtt: Duration,
    open: &'static [u16],
    rest: Port,
    bottleneck: Direction,
    requested: &'static str,
}

/// Once 160 of 200 hosts were missed, because the first SYNs to all of them overflowed the queue,
/// and they were reported as silent without a sign of loss. Later this was so for 72 of 1,254 hosts
/// with one requested port, because the repeated SYNs overflowed the queue too.
fn sweep() -> Outcome {
    let direction = |rate, queue_packets| Direction {
        packets_per_second: Some(rate),
        queue_packets,
        ..Direction::default()
    };
    Sweep {
        hosts: 200,
        rtt: Duration::from_millis(20),
        open: &[22, 80],
        rest: Port::Silent,
        bottleneck: direction(500, 50),
        requested: "22,80,443",
    }
    .check()?;
    Sweep {
        hosts: 1254,
        rtt: Duration::from_millis(160),
        open: &[80],
        rest: Port::Closed,
        bottleneck: direction(8081, 38),
        requested: "80",
    }
    .check()
}

/// Once each target took 900 bytes, so that a thousandth of a /8 network took 17 MB.
fn network_memory() -> Outcome {
    let lab = Lab::enter()?.start(Vec::new())?;
    // Nobody answers at these addresses.
    let (few, many) = (peak_kb("10.99.64.0/30")?, peak_kb("10.99.64.0/18")?);
    lab.stop()?;
    let bytes = many.saturating_sub(few) * 1024 / 16_380;
    assert!((100..500).contains(&bytes), "{bytes} bytes for each target: {few} and {many} kB");
    Ok(())
}

/// Scans port 80 of a network and returns the highest amount of physical memory (VmHWM).
fn peak_kb(network: &str) -> Result<u64, Box<dyn std::error::Error>> {
    let mut scan = Command::new(env!("CARGO_BIN_EXE_openports"));
    let mut scan = scan.args(["scan", network, "80"]).stdout(Stdio::null()).spawn()?;
    let mut peak = 0;
    while scan.try_wait()?.is_none() {
        let status = std::fs::read_to_string(format!("/proc/{}/status", scan.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        // A process that has ended but was not waited for has no such line.
        peak = line.map_or(Ok(peak), |kb| kb.trim().trim_end_matches(" kB").parse())?;
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(peak)
}

impl Sweep {
    fn check(&self) -> Outcome {
        let last = Ipv4Addr::from(u32::from(HOST_ADDRESS) + self.hosts - 1);
        let addresses = (u32::from(HOST_ADDRESS)..=u32::from(last)).map(Ipv4Addr::from);
        let host =
            |address| Host::new(address).rtt(self.rtt).ports(self.open, Port::Open).rest(self.rest);
        let link = Link { to: self.bottleneck, from: self.bottleneck, ..Link::default() };
        let lab = Lab::enter()?.link(link).start(addresses.map(host).collect())?;
        let range = format!("{HOST_ADDRESS}-{last}");
        let open: Vec<String> = self.open.iter().map(u16::to_string).collect();
        let open = format!(r#""open_ports":[{}]"#, open.join(","));
        for technique in ["connect", "syn"] {
            let output = Command::new(env!("CARGO_BIN_EXE_openports"))
                .args(["scan", "--ndjson", "--technique", technique, &range, self.requested])
                .output()?;
            let printed = String::from_utf8(output.stdout)?;
            let ends: Vec<&str> =
                printed.lines().filter(|line| line.contains(r#""event":"end""#)).collect();
            let is_found = |line: &&&str| line.contains(&open);
            let (found, hosts) = (ends.iter().filter(is_found).count(), self.hosts as usize);
            assert!(ends.len() == hosts && found >= hosts * 19 / 20, "{technique}: {found}");
            let is_certain = |line: &&&str| line.contains(r#""loss_suspected":false"#);
            let missed = ends.iter().filter(|line| !is_found(line)).filter(is_certain).count();
            assert!(missed <= 4, "{technique}: {missed} hosts are silent without a sign of loss");
        }
        assert_eq!(lab.stop()?.own_losses(), 0);
        Ok(())
    }
}
