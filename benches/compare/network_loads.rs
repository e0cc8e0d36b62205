//! Loads with a network of their own: a subnet on our own link, and two scans that share a
//! bottleneck.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::lab::{Direction, HOST_ADDRESS, Host, Lab, Link, Medium, Network, Port};
use crate::loads::{Figures, percentile};
use crate::service::{self, Service};

const MINUTE: Duration = Duration::from_secs(60);
const NEIGHBOURS: u32 = 4000;
const NEIGHBOURS_ALIVE: u32 = 61;

/// Scans 4,000 addresses on our own link, of which 61 have a host with port 22 open.
pub(crate) fn neighbours() -> Result<Figures, String> {
    let hosts = (0..NEIGHBOURS_ALIVE)
        .map(|number| address(number * NEIGHBOURS / NEIGHBOURS_ALIVE))
        .map(|address| Host::new(address).ports(&[22], Port::Open));
    let _lab = start(enter(Medium::Ethernet)?, hosts.collect())?;
    let (seconds, open) = scan_all(NEIGHBOURS, "22")?;
    Ok(vec![("neighbours", seconds), ("neighbours_found", open as f64)])
}

/// Measures a small scan alone, and then during a scan of a silent host through one bottleneck.
pub(crate) fn narrow() -> Result<Figures, String> {
    let rtt = Duration::from_millis(20);
    let silent = address(1);
    let hosts =
        vec![Host::new(HOST_ADDRESS).rtt(rtt), Host::new(silent).rtt(rtt).rest(Port::Silent)];
    let direction =
        Direction { packets_per_second: Some(10_000), queue_packets: 200, ..Direction::default() };
    let network = enter(Medium::PointToPoint)?;
    let _lab =
        start(network.link(Link { to: direction, from: direction, ..Link::default() }), hosts)?;
    let service = Service::start(&[])?;
    let small = || {
        let target = format!("/open-ports?domain={HOST_ADDRESS}&toPort=100");
        service.get(&target, MINUTE).map(|(seconds, _)| seconds * 1e3)
    };
    let alone = (0..20).map(|_| small()).collect::<Result<Vec<_>, _>>()?;
    let address = service.address;
    let target = format!("/open-ports?domain={silent}&toPort=65535");
    let big = std::thread::spawn(move || service::get(address, &target, 2 * MINUTE));
    let mut beside = Vec::new();
    while !big.is_finished() {
        beside.push(small()?);
    }
    big.join().map_err(|_| "a client panicked")??;
    let (alone, beside) = (percentile(alone, 50), percentile(beside, 50));
    let ratio = beside / alone;
    Ok(vec![("narrow_alone", alone), ("narrow_beside", beside), ("narrow_ratio", ratio)])
}

fn address(number: u32) -> IpAddr {
    Ipv4Addr::from(u32::from(HOST_ADDRESS) + number).into()
}

fn enter(medium: Medium) -> Result<Network, String> {
    Lab::enter_by(medium).map_err(|error| error.to_string())
}

fn start(network: Network, hosts: Vec<Host>) -> Result<Lab, String> {
    network.start(hosts).map_err(|error| error.to_string())
}

/// Scans the first `count` addresses with the command line, and returns the seconds and the total
/// number of open ports.
fn scan_all(count: u32, ports: &str) -> Result<(f64, u64), String> {
    let path = service::own_path().ok_or("the binary does not exist")?;
    let targets: String = (0..count).map(|number| format!("{}\n", address(number))).collect();
    let begun = Instant::now();
    let mut child = Command::new(path)
        .args(["scan", "--ndjson", "--targets", "-", ports])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| error.to_string())?;
    let mut input = child.stdin.take().ok_or("stdin is not a pipe")?;
    let writer = std::thread::spawn(move || input.write_all(targets.as_bytes()));
    let output = child.wait_with_output().map_err(|error| error.to_string())?;
    let seconds = begun.elapsed().as_secs_f64();
    writer.join().map_err(|_| "the writer panicked")?.map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout);
    let events = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let ends: Vec<Value> = events.filter(|event| event["event"] == "end").collect();
    if ends.len() != count as usize {
        return Err(format!("{} of {count} targets have a result", ends.len()));
    }
    let open = ends.iter().filter_map(|end| end["counts"]["open"].as_u64()).sum();
    Ok((seconds, open))
}
