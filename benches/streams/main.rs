//! Measures the latency of streams during other scans, the cost of readers that stop, and the cost
//! of many targets compared with few.
#![expect(clippy::print_stdout, reason = "a command line program reports on stdout")]

#[path = "../floor/mod.rs"]
#[expect(dead_code, reason = "only the function for the limit of descriptors is used")]
mod floor;
#[path = "../compare/service.rs"]
#[expect(dead_code, reason = "the comparison uses more of it")]
mod service;

use std::error::Error;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::ops::Range;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use service::Service;

/// The maximum time of one step.
const LIMIT: Duration = Duration::from_secs(30);
const STREAMS: usize = 300;
const READERS: usize = 32;
/// A loopback address with [`OPEN_PORTS`], which no other program uses.
const OPEN_ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 9, 77);
const OPEN_PORTS: Range<u16> = 20_000..26_000;
/// The number of scans of each list.
const ROUNDS: usize = 5;

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> Outcome<()> {
    let caps = ["--max-scans", "200", "--max-scans-per-client", "200"];
    latencies(&Service::start(&caps)?)?;
    stopped_readers(&Service::start(&caps)?)?;
    many_targets()
}

/// Measures streams while three scans of all ports run.
fn latencies(service: &Service) -> Outcome<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    let (sender, handshakes) = mpsc::channel();
    std::thread::spawn(move || {
        while let Ok((_stream, from)) = listener.accept() {
            if sender.send((from.port(), Instant::now())).is_err() {
                break;
            }
        }
    });
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for host in 2..5 {
            let is_over = &is_over;
            let target = format!("/open-ports?domain=127.0.0.{host}&toPort=65535");
            scope.spawn(move || {
                while !is_over.load(Ordering::Relaxed) && service.get(&target, LIMIT).is_ok() {}
            });
        }
        let timed: Outcome<Vec<_>> =
            (0..STREAMS).map(|_| time_stream(service, port, &handshakes)).collect();
        is_over.store(true, Ordering::Relaxed);
        let (first, open): (Vec<_>, Vec<_>) = timed?.into_iter().unzip();
        show("end of request to first event", first);
        show("handshake to open event", open);
        Ok(())
    })
}

/// Returns the milliseconds from the request to the first event, and from the handshake to the open
/// event.
fn time_stream(
    service: &Service,
    port: u16,
    handshakes: &Receiver<(u16, Instant)>,
) -> Outcome<(f64, f64)> {
    let mut stream = request(service, &format!("127.0.0.1&ports={port}"))?;
    let requested_at = Instant::now();
    let mut text = String::new();
    read_until(&mut stream, &mut text, "\"event\":\"start\"")?;
    let first = requested_at.elapsed();
    read_until(&mut stream, &mut text, "\"event\":\"open\"")?;
    let opened_at = Instant::now();
    let (_, handshake_at) = handshakes.recv_timeout(LIMIT)?;
    let open = opened_at.saturating_duration_since(handshake_at);
    Ok((first.as_secs_f64() * 1e3, open.as_secs_f64() * 1e3))
}

fn request(service: &Service, query: &str) -> Outcome<TcpStream> {
    let mut stream = TcpStream::connect(service.address)?;
    stream.set_read_timeout(Some(LIMIT))?;
    let head = format!(
        "GET /open-ports?domain={query} HTTP/1.1\r\nHost: {}\r\n\
         Accept: application/x-ndjson\r\n\r\n",
        service.address
    );
    stream.write_all(head.as_bytes())?;
    Ok(stream)
}

/// Reads until the text contains `word`.
fn read_until(stream: &mut TcpStream, text: &mut String, word: &str) -> Outcome<()> {
    let mut bytes = [0; 4096];
    while !text.contains(word) {
        let length = stream.read(&mut bytes)?;
        if length == 0 {
            return Err(format!("the stream ended without {word}: {text}").into());
        }
        text.push_str(&String::from_utf8_lossy(&bytes[..length]));
    }
    Ok(())
}

/// Compares readers that stop reading with readers that continue, and measures health checks
/// meanwhile.
fn stopped_readers(service: &Service) -> Outcome<()> {
    floor::raise_descriptor_limit()?;
    // Open ports are delivered to slow readers too. The events of so many ports exceed the buffers
    // of the kernel.
    let listeners: Result<Vec<_>, _> =
        OPEN_PORTS.map(|port| TcpListener::bind((OPEN_ADDRESS, port))).collect();
    let _listeners = listeners?;
    let reading = run_readers(service, Reader::KeepsReading)?;
    let stopped = run_readers(service, Reader::StopsReading)?;
    let (before, with) = (reading.resident_kb, stopped.resident_kb);
    println!("{READERS} readers that continue: at most {before} kB; that stop: {with} kB");
    let each = with.saturating_sub(before) as f64 / READERS as f64;
    println!("a reader that stops costs {each:.1} kB more; a stream has {} kB", reading.stream_kb);
    show("/healthz during readers that continue", reading.health);
    show("/healthz during readers that stopped", stopped.health);
    Ok(())
}

#[derive(Clone, Copy, PartialEq)]
enum Reader {
    KeepsReading,
    StopsReading,
}

/// The cost of a group of readers.
struct Cost {
    /// The maximum resident memory of the service while the scans ran.
    resident_kb: u64,
    /// The milliseconds of each health check.
    health: Vec<f64>,
    /// The length of the longest stream that was read.
    stream_kb: usize,
}

/// Runs streams of many open ports at once until their scans have ended.
fn run_readers(service: &Service, reader: Reader) -> Outcome<Cost> {
    let (first, last) = (OPEN_PORTS.start, OPEN_PORTS.end - 1);
    let query = format!("{OPEN_ADDRESS}&fromPort={first}&toPort={last}");
    let streams: Outcome<Vec<_>> = (0..READERS).map(|_| request(service, &query)).collect();
    std::thread::scope(|scope| {
        let mut cost = Cost { resident_kb: 0, health: Vec::new(), stream_kb: 0 };
        let mut readers = Vec::new();
        for mut stream in streams? {
            readers.push(scope.spawn(move || {
                let mut text = String::new();
                if reader == Reader::KeepsReading {
                    // A failure is visible in the length of the stream.
                    drop(read_until(&mut stream, &mut text, "\"event\":\"end\""));
                }
                (stream, text.len())
            }));
        }
        // All health checks use one connection. With so many new connections the kernel drops some
        // SYNs, and a client then waits a second, which is not caused by the service.
        let mut health = TcpStream::connect(service.address)?;
        health.set_read_timeout(Some(LIMIT))?;
        let start = Instant::now();
        loop {
            cost.health.push(check_health(&mut health)?);
            let resident = service.memory_kb("VmRSS").ok_or("the service has exited")?;
            cost.resident_kb = cost.resident_kb.max(resident);
            let (_, figures) = service.get("/metrics", LIMIT)?;
            if figures.contains("openports_scans_running 0\n") || start.elapsed() > LIMIT {
                break;
            }
        }
        for reader in readers {
            let (_stream, len) = reader.join().map_err(|_| "a reader panicked")?;
            cost.stream_kb = cost.stream_kb.max(len / 1024);
        }
        Ok(cost)
    })
}

fn check_health(stream: &mut TcpStream) -> Outcome<f64> {
    let start = Instant::now();
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
    read_until(stream, &mut String::new(), "\r\n\r\nok")?;
    Ok(start.elapsed().as_secs_f64() * 1e3)
}

/// Compares 256 addresses of 1,024 ports with 4 addresses of all ports.
fn many_targets() -> Outcome<()> {
    let many: String = (0..256).map(|host| format!("127.0.7.{host} 1-1024\n")).collect();
    // About the same number of ports. The addresses differ, because duplicates are removed.
    let four: String = (0..4).map(|host| format!("127.0.7.{host} 1-65535\n")).collect();
    let mut spent = [const { (Vec::new(), Vec::new()) }; 2];
    for _ in 0..ROUNDS {
        for (list, (wall, cpu)) in [&many, &four].into_iter().zip(&mut spent) {
            let (seconds, ticks) = scan_list(list)?;
            wall.push(seconds * 1e3);
            cpu.push(ticks * 10.0);
        }
    }
    let [(wall, cpu), (wall_four, cpu_four)] = spent;
    let walls = show("256 addresses, wall", wall) / show("4 addresses, wall", wall_four);
    let cpus = show("256 addresses, CPU", cpu) / show("4 addresses, CPU", cpu_four);
    println!("256 addresses / 4: wall {walls:.2}, CPU {cpus:.2}");
    Ok(())
}

/// Returns the seconds and the clock ticks of a scan of the list.
fn scan_list(list: &str) -> Outcome<(f64, f64)> {
    let path = service::own_path().ok_or("the binary does not exist")?;
    let before = children_ticks()?;
    let start = Instant::now();
    let mut command = Command::new(path);
    let command = command.args(["scan", "--json", "--targets", "-"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn()?;
    child.stdin.take().ok_or("no pipe")?.write_all(list.as_bytes())?;
    let status = child.wait()?;
    if !status.success() {
        return Err(format!("the scan ended with {status}").into());
    }
    Ok((start.elapsed().as_secs_f64(), children_ticks()? - before))
}

/// Returns the clock ticks of children that were waited for (proc_pid_stat(5)).
fn children_ticks() -> Outcome<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let (_, fields) = stat.rsplit_once(')').ok_or("the stat file has no times")?;
    let ticks: Result<Vec<f64>, _> =
        fields.split_whitespace().skip(13).take(2).map(str::parse).collect();
    Ok(ticks?.iter().sum())
}

/// Prints the median, the 99th percentile and the maximum, and returns the median.
fn show(name: &str, mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let at = |percent: usize| values.get(values.len() * percent / 100).copied().unwrap_or_default();
    let most = values.last().copied().unwrap_or_default();
    let count = values.len();
    println!("{name}: median {:.2} ms, 99 % {:.2}, max {most:.2} ({count})", at(50), at(99));
    at(50)
}
