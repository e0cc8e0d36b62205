//! Measures what a stream must reach while other scans run, what readers that stop cost, and what
//! many targets cost beside one.
#![expect(clippy::print_stdout, reason = "a command line program reports on stdout")]

#[path = "../compare/service.rs"]
#[expect(dead_code, reason = "the comparison needs more of it")]
mod service;

use std::error::Error;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use service::Service;

/// What any one step may take.
const LIMIT: Duration = Duration::from_secs(30);
/// Streams that are timed.
const STREAMS: usize = 300;
/// Readers that stop reading.
const READERS: u64 = 50;
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

/// Memory for each reader that stops reading, and health checks meanwhile.
fn stopped_readers(service: &Service) -> Outcome<()> {
    // Open ports are what is told to a reader whatever it does.
    let listeners: Result<Vec<_>, _> = (0..500).map(|_| TcpListener::bind("127.0.0.1:0")).collect();
    let _listeners = listeners?;
    service.ask("/open-ports?domain=127.0.0.1&toPort=65535", LIMIT)?;
    let resident = || service.memory_kb("VmRSS").ok_or("the service is gone");
    let before = resident()?;
    let readers: Outcome<Vec<_>> =
        (0..READERS).map(|_| request(service, "127.0.0.1&toPort=65535")).collect();
    let readers = readers?;
    let mut health = Vec::new();
    let mut most = before;
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(8) {
        health.push(service.ask("/healthz", LIMIT)?.0 * 1e3);
        most = most.max(resident()?);
    }
    drop(readers);
    show("/healthz beside readers that stopped", health);
    let each = most.saturating_sub(before) as f64 / READERS as f64;
    println!("{READERS} readers: {before} kB before, {most} kB at most, {each:.1} kB each");
    Ok(())
}

/// 256 addresses of 1,024 ports beside one address of as many.
fn many_targets() -> Outcome<()> {
    let many: String = (0..256).map(|host| format!("127.0.7.{host} 1-1024\n")).collect();
    let one = "127.0.7.1 1-65535\n".repeat(4);
    let mut spent = [const { (Vec::new(), Vec::new()) }; 2];
    for _ in 0..ROUNDS {
        for (list, (wall, cpu)) in [&many, &one].into_iter().zip(&mut spent) {
            let (seconds, ticks) = sweep(list)?;
            wall.push(seconds * 1e3);
            cpu.push(ticks * 10.0);
        }
    }
    let [(wall, cpu), (wall_one, cpu_one)] = spent;
    let walls = show("256 addresses, wall", wall) / show("one address, wall", wall_one);
    let cpus = show("256 addresses, CPU", cpu) / show("one address, CPU", cpu_one);
    println!("256 addresses / one: wall {walls:.2}, CPU {cpus:.2}");
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
