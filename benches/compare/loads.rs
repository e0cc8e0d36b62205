//! Loads of the service: several scans at once, health checks during scans, memory, the start, and
//! HTTP without scans.
//!
//! Each load runs in its own process and namespace, and returns a few figures. If a figure compares
//! two values, the same process measures both.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::http;
use crate::lab::{HOST_ADDRESS, Host, Lab, Port};
use crate::network_loads;
use crate::service::{self, Service};

#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    /// The name on the command line.
    pub(crate) name: &'static str,
    /// Runs the load. An error is text for the report.
    pub(crate) run: fn() -> Result<Figures, String>,
}

/// The results of a load, with names of [`FIGURES`].
pub(crate) type Figures = Vec<(&'static str, f64)>;

pub(crate) const LOADS: [Load; 8] = [
    Load { name: "start", run: start },
    Load { name: "memory", run: memory },
    Load { name: "many", run: many },
    Load { name: "health", run: health },
    Load { name: "beside", run: beside },
    Load { name: "narrow", run: network_loads::narrow },
    Load { name: "neighbours", run: network_loads::neighbours },
    Load { name: "http", run: http::throughput },
];

/// A figure: its name, its description, its unit, and its target value.
pub(crate) type Figure = (&'static str, &'static str, &'static str, &'static str);

/// All figures in the order of the report.
pub(crate) const FIGURES: [Figure; 38] = [
    ("start", "start to the first response", "ms", ""),
    ("idle", "anonymous memory, idle", "MB", "≤ 2"),
    ("idle_all", "the same with the pages of the binary and of libc", "MB", ""),
    ("in_flight", "connects in flight to a silent host", "", ""),
    ("peak", "peak memory then, including those pages", "MB", "≤ 8"),
    ("probe", "anonymous memory per connect in flight", "bytes", "≤ 64"),
    ("one", "one scan of 2 × 1–51200", "s", ""),
    ("hundred", "100 scans of 1–1024 at once", "s", ""),
    ("hundred_ratio", "the hundred ÷ the one", "", "≤ 1.2"),
    ("health_idle", "/healthz without scans, 99th percentile", "ms", ""),
    ("health_closed_50", "/healthz during four 1–65535 scans, rest closed, median", "ms", ""),
    ("health_closed_99", "… 99th percentile", "ms", "≤ 3"),
    ("health_closed_max", "… maximum", "ms", ""),
    ("health_silent_50", "/healthz during four 1–65535 scans, rest silent, median", "ms", ""),
    ("health_silent_99", "… 99th percentile", "ms", "≤ 3"),
    ("health_silent_max", "… maximum", "ms", ""),
    ("small_alone", "a 1–100 scan 50 ms away, alone", "ms", ""),
    ("small_beside", "… during a silent 1–65535 scan", "ms", ""),
    ("small_ratio", "during ÷ alone", "", "≤ 1.2"),
    ("near_alone", "a 1–100 scan without delay, alone", "ms", ""),
    ("near_beside", "… during a silent 1–65535 scan", "ms", ""),
    ("narrow_alone", "a 1–100 scan through 10,000 packets/s, alone", "ms", ""),
    ("narrow_beside", "… during a silent 1–65535 scan through the same link", "ms", ""),
    ("narrow_ratio", "during ÷ alone", "", "≤ 1.5"),
    ("neighbours", "4,000 on-link addresses, port 22", "s", "≤ 20"),
    ("neighbours_found", "… open ports found on the 61 hosts", "", "61"),
    ("nginx_1", "nginx `return 200`, 1 connection", "requests/s", ""),
    ("healthz_1", "/healthz, 1 connection", "requests/s", "≥ nginx"),
    ("invalid_1", "a validation error, 1 connection", "requests/s", ""),
    ("nginx_1_cpu", "CPU of nginx per request, 1 connection", "µs", ""),
    ("healthz_1_cpu", "… of /healthz", "µs", ""),
    ("invalid_1_cpu", "… of a validation error", "µs", ""),
    ("nginx_64", "nginx `return 200`, 64 connections", "requests/s", ""),
    ("healthz_64", "/healthz, 64 connections", "requests/s", "≥ nginx"),
    ("invalid_64", "a validation error, 64 connections", "requests/s", ""),
    ("nginx_64_cpu", "CPU of nginx per request, 64 connections", "µs", ""),
    ("healthz_64_cpu", "… of /healthz", "µs", ""),
    ("invalid_64_cpu", "… of a validation error", "µs", ""),
];

const SILENT: Ipv4Addr = Ipv4Addr::new(10, 99, 1, 2);
/// A second host with only closed ports.
const OTHER: Ipv4Addr = Ipv4Addr::new(10, 99, 1, 3);
/// A host with only closed ports, 50 ms away.
const FAR: Ipv4Addr = Ipv4Addr::new(10, 99, 1, 4);
const MINUTE: Duration = Duration::from_secs(60);

impl Load {
    pub(crate) fn find(name: &str) -> Option<Self> {
        LOADS.into_iter().find(|load| load.name == name)
    }
}

fn network() -> Result<Lab, String> {
    let hosts = vec![
        Host::new(HOST_ADDRESS),
        Host::new(SILENT).rest(Port::Silent),
        Host::new(OTHER),
        Host::new(FAR).rtt(Duration::from_millis(50)),
    ];
    let network = Lab::enter().map_err(|error| error.to_string())?;
    network.start(hosts).map_err(|error| error.to_string())
}

fn start() -> Result<Figures, String> {
    let _lab = network()?;
    let mut times = Vec::new();
    for _ in 0..10 {
        let begun = Instant::now();
        let service = Service::start(&[])?;
        service.get("/healthz", MINUTE)?;
        times.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    Ok(vec![("start", percentile(times, 50))])
}

fn memory() -> Result<Figures, String> {
    let _lab = network()?;
    let service = Service::start(&[])?;
    service.get("/healthz", MINUTE)?;
    let read = |line| service.memory_kb(line).map(|kb| kb as f64).ok_or("it has exited");
    let (idle_kb, idle_all_kb) = (read("RssAnon")?, read("VmRSS")?);
    let capacity = metric(&service, "openports_connects_in_flight_max")?;
    let address = service.address;
    let target = format!("/open-ports?domain={SILENT}&toPort=65535&timeout=30s");
    // The thread is not joined, because the service ends before the scan.
    std::thread::spawn(move || drop(service::get(address, &target, MINUTE)));
    let deadline = Instant::now() + MINUTE;
    while metric(&service, "openports_connects_in_flight")? < capacity {
        if Instant::now() > deadline {
            return Err("the scan does not use all permitted connects".into());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let (busy_kb, peak_kb) = (read("RssAnon")?, read("VmHWM")?);
    Ok(vec![
        ("idle", idle_kb / 1024.0),
        ("idle_all", idle_all_kb / 1024.0),
        ("in_flight", capacity),
        ("peak", peak_kb / 1024.0),
        ("probe", (busy_kb - idle_kb) * 1024.0 / capacity),
    ])
}

/// Compares one scan of a name with two addresses with a hundred scans, which together have the
/// same number of connects.
fn many() -> Result<Figures, String> {
    let _lab = network()?;
    let hosts = std::env::temp_dir().join(format!("openports-hosts-{}", std::process::id()));
    std::fs::write(&hosts, format!("{HOST_ADDRESS} both\n{OTHER} both\n"))
        .map_err(|error| error.to_string())?;
    let path = hosts.to_string_lossy().into_owned();
    let most = ["--max-scans", "200", "--max-scans-per-client", "200", "--hosts", &path];
    let service = Service::start(&most)?;
    let (mut one, mut hundred) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        let target = "/open-ports?domain=both&addresses=all&toPort=51200";
        one.push(service.get(target, MINUTE)?.0);
        let begun = Instant::now();
        let scans: Vec<_> = (0..100)
            .map(|number| {
                let (address, host) = (service.address, [HOST_ADDRESS, OTHER][number % 2]);
                let target = format!("/open-ports?domain={host}&toPort=1024");
                std::thread::spawn(move || service::get(address, &target, MINUTE))
            })
            .collect();
        for scan in scans {
            scan.join().map_err(|_| "a client panicked")??;
        }
        hundred.push(begun.elapsed().as_secs_f64());
    }
    // The file may have been removed by a cleanup of the machine.
    drop(std::fs::remove_file(hosts));
    let (one, hundred) = (percentile(one, 50), percentile(hundred, 50));
    Ok(vec![("one", one), ("hundred", hundred), ("hundred_ratio", hundred / one)])
}

fn health() -> Result<Figures, String> {
    let _lab = network()?;
    let service = Service::start(&[])?;
    let idle = latencies(service.address, Duration::from_secs(1))?;
    let mut figures = vec![("health_idle", percentile(idle, 99))];
    for (host, names) in [
        (HOST_ADDRESS, ["health_closed_50", "health_closed_99", "health_closed_max"]),
        (SILENT, ["health_silent_50", "health_silent_99", "health_silent_max"]),
    ] {
        // The deadline ends the scans of a silent host soon after the measurement.
        let target = format!("/open-ports?domain={host}&toPort=65535&deadline=5s");
        let times = beside_four(service.address, &target)?;
        for (name, percent) in names.into_iter().zip([50, 99, 100]) {
            figures.push((name, percentile(times.clone(), percent)));
        }
    }
    Ok(figures)
}

/// Returns the latencies of health checks while four clients request `target` in a loop. A scan
/// that fails is an error, because the health checks are faster without it.
fn beside_four(address: SocketAddr, target: &str) -> Result<Vec<f64>, String> {
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let scan_on = || -> Result<(), String> {
            while !is_over.load(Ordering::Relaxed) {
                service::get(address, target, MINUTE)?;
            }
            Ok(())
        };
        let clients = [(); 4].map(|()| scope.spawn(scan_on));
        std::thread::sleep(Duration::from_millis(100));
        let times = latencies(address, Duration::from_secs(5));
        is_over.store(true, Ordering::Relaxed);
        for client in clients {
            let scanned = client.join().map_err(|_| "a client panicked")?;
            scanned.map_err(|error| format!("a scan beside the health checks failed: {error}"))?;
        }
        times
    })
}

/// Returns the milliseconds of each health check. They run on one connection, with pauses of a
/// millisecond.
fn latencies(address: SocketAddr, duration: Duration) -> Result<Vec<f64>, String> {
    let measure = || -> io::Result<Vec<f64>> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(MINUTE))?;
        let (begun, mut times) = (Instant::now(), Vec::new());
        while begun.elapsed() < duration {
            let start = Instant::now();
            stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
            let mut answer = Vec::new();
            while !answer.ends_with(b"\r\n\r\nok") {
                let mut piece = [0; 512];
                match stream.read(&mut piece)? {
                    0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                    count => answer.extend_from_slice(&piece[..count]),
                }
            }
            times.push(start.elapsed().as_secs_f64() * 1e3);
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(times)
    };
    measure().map_err(|error| format!("a health check failed: {error}"))
}

/// Measures small scans alone, and then during a scan of a silent host.
fn beside() -> Result<Figures, String> {
    let _lab = network()?;
    let service = Service::start(&[])?;
    let small = |host| {
        let target = format!("/open-ports?domain={host}&toPort=100");
        service.get(&target, MINUTE).map(|(seconds, _)| seconds * 1e3)
    };
    let times = |host, count| (0..count).map(|_| small(host)).collect::<Result<Vec<_>, _>>();
    let (far_alone, near_alone) = (times(FAR, 20)?, times(HOST_ADDRESS, 100)?);
    let address = service.address;
    let target = format!("/open-ports?domain={SILENT}&toPort=65535");
    let big = std::thread::spawn(move || service::get(address, &target, MINUTE));
    let (mut far, mut near) = (Vec::new(), Vec::new());
    while !big.is_finished() {
        far.push(small(FAR)?);
        near.extend(times(HOST_ADDRESS, 5)?);
    }
    big.join().map_err(|_| "a client panicked")??;
    let [alone, beside] = [far_alone, far].map(|times| percentile(times, 50));
    Ok(vec![
        ("small_alone", alone),
        ("small_beside", beside),
        ("small_ratio", beside / alone),
        ("near_alone", percentile(near_alone, 50)),
        ("near_beside", percentile(near, 50)),
    ])
}

fn metric(service: &Service, name: &str) -> Result<f64, String> {
    let (_, page) = service.get("/metrics", MINUTE)?;
    let sample = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    sample.and_then(|value| value.parse().ok()).ok_or_else(|| format!("there is no {name}"))
}

/// Returns a percentile of the numbers: 50 is the median, 100 the maximum.
pub(crate) fn percentile(mut numbers: Vec<f64>, percent: usize) -> f64 {
    assert!(!numbers.is_empty() && percent <= 100, "no numbers, or a percentage above 100");
    numbers.sort_by(f64::total_cmp);
    numbers[(numbers.len() - 1) * percent / 100]
}

/// Returns the version of a program that a load needs.
pub(crate) fn version(program: &str) -> Option<String> {
    let output = Command::new(program).arg("-v").output().ok()?;
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    text.lines().find(|line| line.contains(|c: char| c.is_ascii_digit())).map(str::to_owned)
}
