//! Measures what a stream must reach while other scans run, what readers that stop cost, and what
//! many targets cost beside a few.
#![expect(clippy::print_stdout, reason = "a command line program reports on stdout")]

#[path = "../floor/mod.rs"]
#[expect(dead_code, reason = "of the floor loops only the limit of descriptors is wanted")]
mod floor;
#[path = "../compare/service.rs"]
#[expect(dead_code, reason = "the comparison needs more of it")]
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

/// What any one step may take.
const LIMIT: Duration = Duration::from_secs(30);
/// Streams that are timed.
const STREAMS: usize = 300;
/// Readers at once, all of whom stop reading, or none.
const READERS: usize = 32;
/// An address of this machine where these ports are open for them, and where nobody else is.
const OPEN_ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 9, 77);
/// See [`OPEN_ADDRESS`].
const OPEN_PORTS: Range<u16> = 20_000..26_000;
/// Rounds of the shell's scans.
const ROUNDS: usize = 5;

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> Outcome<()> {
    let caps = ["--max-scans", "200", "--max-scans-per-client", "200"];
    latencies(&Service::start(&caps)?)?;
    stopped_readers(&Service::start(&caps)?)?;
    many_targets()
}

/// Times streams while three scans of every port run.
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
                while !is_over.load(Ordering::Relaxed) && service.ask(&target, LIMIT).is_ok() {}
            });
        }
        let timed: Outcome<Vec<_>> =
            (0..STREAMS).map(|_| time_stream(service, port, &handshakes)).collect();
        is_over.store(true, Ordering::Relaxed);
        let (first, open): (Vec<_>, Vec<_>) = timed?.into_iter().unzip();
        show("request's last byte to first event", first);
        show("handshake to open event", open);
        Ok(())
    })
}

/// Milliseconds from the request to the first event, and from the handshake to `open`.
fn time_stream(
    service: &Service,
    port: u16,
    handshakes: &Receiver<(u16, Instant)>,
) -> Outcome<(f64, f64)> {
    let mut stream = request(service, &format!("127.0.0.1&ports={port}"))?;
    let asked = Instant::now();
    let mut text = String::new();
    read_until(&mut stream, &mut text, "\"event\":\"start\"")?;
    let first = asked.elapsed();
    read_until(&mut stream, &mut text, "\"event\":\"open\"")?;
    let told = Instant::now();
    let (_, shaken) = handshakes.recv_timeout(LIMIT)?;
    let open = told.saturating_duration_since(shaken);
    Ok((first.as_secs_f64() * 1e3, open.as_secs_f64() * 1e3))
}

/// A stream that was asked for.
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

/// Reads on until the text holds `word`.
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

/// What readers cost that stop reading, beside as many that read on, and health checks meanwhile.
fn stopped_readers(service: &Service) -> Outcome<()> {
    floor::raise_descriptor_limit()?;
    // An open port is told to every reader, however slow; so many are more than the kernel takes.
    let listeners: Result<Vec<_>, _> =
        OPEN_PORTS.map(|port| TcpListener::bind((OPEN_ADDRESS, port))).collect();
    let _listeners = listeners?;
    let reading = crowd(service, Reader::ReadsOn)?;
    let stopped = crowd(service, Reader::Stops)?;
    let (before, with) = (reading.resident_kb, stopped.resident_kb);
    println!("{READERS} readers that read on: at most {before} kB; that stop: {with} kB");
    let each = with.saturating_sub(before) as f64 / READERS as f64;
    println!("a reader that stops costs {each:.1} kB more, of {} kB told", reading.told_kb);
    show("/healthz beside readers that read on", reading.health);
    show("/healthz beside readers that stopped", stopped.health);
    Ok(())
}

/// What a client does with its stream.
#[derive(Clone, Copy, PartialEq)]
enum Reader {
    ReadsOn,
    Stops,
}

/// What a crowd of readers cost.
struct Cost {
    /// The most that the service held while their scans ran.
    resident_kb: u64,
    /// Milliseconds.
    health: Vec<f64>,
    /// The length of the longest stream that was read.
    told_kb: usize,
}

/// Streams of many open ports at once, until their scans have ended.
fn crowd(service: &Service, reader: Reader) -> Outcome<Cost> {
    let (first, last) = (OPEN_PORTS.start, OPEN_PORTS.end - 1);
    let query = format!("{OPEN_ADDRESS}&fromPort={first}&toPort={last}");
    let streams: Outcome<Vec<_>> = (0..READERS).map(|_| request(service, &query)).collect();
    std::thread::scope(|scope| {
        let mut cost = Cost { resident_kb: 0, health: Vec::new(), told_kb: 0 };
        let mut readers = Vec::new();
        for mut stream in streams? {
            readers.push(scope.spawn(move || {
                let mut text = String::new();
                if reader == Reader::ReadsOn {
                    // One that fails is seen by its length.
                    drop(read_until(&mut stream, &mut text, "\"event\":\"end\""));
                }
                (stream, text.len())
            }));
        }
        // One connection for all: beside so many new ones the kernel loses a SYN now and then, and
        // whoever sent it waits a second for nothing that the service does.
        let mut health = TcpStream::connect(service.address)?;
        health.set_read_timeout(Some(LIMIT))?;
        let start = Instant::now();
        loop {
            cost.health.push(check_health(&mut health)?);
            let resident = service.memory_kb("VmRSS").ok_or("the service is gone")?;
            cost.resident_kb = cost.resident_kb.max(resident);
            let (_, figures) = service.ask("/metrics", LIMIT)?;
            if figures.contains("openports_scans_running 0\n") || start.elapsed() > LIMIT {
                break;
            }
        }
        for reader in readers {
            let (_stream, len) = reader.join().map_err(|_| "a reader panicked")?;
            cost.told_kb = cost.told_kb.max(len / 1024);
        }
        Ok(cost)
    })
}

/// Milliseconds to the answer of a health check.
fn check_health(stream: &mut TcpStream) -> Outcome<f64> {
    let start = Instant::now();
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
    read_until(stream, &mut String::new(), "\r\n\r\nok")?;
    Ok(start.elapsed().as_secs_f64() * 1e3)
}

/// 256 addresses of 1,024 ports beside one address of as many.
fn many_targets() -> Outcome<()> {
    let many: String = (0..256).map(|host| format!("127.0.7.{host} 1-1024\n")).collect();
    // As many ports. Not one address four times: a list is freed of duplicates.
    let four: String = (0..4).map(|host| format!("127.0.7.{host} 1-65535\n")).collect();
    let mut spent = [const { (Vec::new(), Vec::new()) }; 2];
    for _ in 0..ROUNDS {
        for (list, (wall, cpu)) in [&many, &four].into_iter().zip(&mut spent) {
            let (seconds, ticks) = sweep(list)?;
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

/// Seconds and ticks of the processor that a scan of the list takes.
fn sweep(list: &str) -> Outcome<(f64, f64)> {
    let path = service::own_path().ok_or("the binary is not there")?;
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

/// Processor time of the children that were waited for, see proc_pid_stat(5).
fn children_ticks() -> Outcome<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let (_, fields) = stat.rsplit_once(')').ok_or("no such line")?;
    let ticks: Result<Vec<f64>, _> =
        fields.split_whitespace().skip(13).take(2).map(str::parse).collect();
    Ok(ticks?.iter().sum())
}

/// Prints the median, the 99th percentile and the maximum; the median.
fn show(name: &str, mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let at = |percent: usize| values.get(values.len() * percent / 100).copied().unwrap_or_default();
    let most = values.last().copied().unwrap_or_default();
    let count = values.len();
    println!("{name}: median {:.2} ms, 99 % {:.2}, max {most:.2} ({count})", at(50), at(99));
    at(50)
}
