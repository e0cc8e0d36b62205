//! Runs one tool, and measures it.
//!
//! Each run has its own process, which runs no other tool, so the CPU time of its child processes
//! is that of the tool.
#![allow(unsafe_code, reason = "getrusage has no safe wrapper here")]

use std::io::{self, BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::service::{self, Service};

#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    pub(crate) seconds: f64,
    /// Ascending, without the tool's own listener.
    pub(crate) open: Vec<SocketAddr>,
    /// VmHWM, which is read every 20 ms.
    pub(crate) peak_kb: u64,
}

/// The resources that were used up to a moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    /// User and system time of all children that ended and were waited for.
    pub(crate) cpu_seconds: f64,
    /// Packets that were sent by the device `lab0`; 0 without this device.
    pub(crate) packets: u64,
}

impl Usage {
    pub(crate) fn now() -> Result<Self, String> {
        let cpu_seconds = cpu_seconds_of_children().map_err(|error| error.to_string())?;
        // The second number of the transmitting half of its line (proc_pid_net(5)).
        let table = std::fs::read_to_string("/proc/thread-self/net/dev").unwrap_or_default();
        let line = table.lines().find_map(|line| line.trim_start().strip_prefix("lab0:"));
        let packets = line.and_then(|line| line.split_whitespace().nth(9)?.parse().ok());
        Ok(Self { cpu_seconds, packets: packets.unwrap_or(0) })
    }
}

/// The interval at which the memory of a running tool is read.
const MEMORY_INTERVAL: Duration = Duration::from_millis(20);

/// Runs a program, and stops it at the limit.
pub(crate) fn run_command(
    command: &mut Command,
    read: impl FnOnce(&str) -> Option<Vec<SocketAddr>>,
    limit: Duration,
) -> Result<Outcome, String> {
    let start = Instant::now();
    let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| format!("cannot be started: {error}"))?;
    let message = child.stderr.take().map(first_line);
    let (output, peak_kb) = match collect(&mut child, limit) {
        Ok(collected) => collected,
        Err(error) => {
            // The program may have exited already.
            drop(child.kill());
            return Err(error);
        }
    };
    let status = child.wait().map_err(|error| error.to_string())?;
    let seconds = start.elapsed().as_secs_f64();
    if !status.success() {
        let message = message.and_then(|thread| thread.join().ok()).unwrap_or_default();
        return Err(format!("failed: {status} {message}").trim_end().to_owned());
    }
    let mut open = read(&output).ok_or("the output cannot be parsed")?;
    open.sort_unstable();
    open.dedup();
    Ok(Outcome { seconds, open, peak_kb })
}

/// Reads the whole stderr of a child, so that the child never blocks, and returns the first line.
fn first_line(stderr: ChildStderr) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let mut lines = BufReader::new(stderr).lines().map_while(Result::ok);
        let first = lines.find(|line| !line.trim().is_empty()).unwrap_or_default();
        lines.for_each(drop);
        first.chars().filter(|c| !c.is_control()).take(80).collect()
    })
}

/// Reads the whole stdout of the child, and returns it with the peak memory.
fn collect(child: &mut Child, limit: Duration) -> Result<(String, u64), String> {
    let mut stdout = child.stdout.take().ok_or("stdout is not captured")?;
    let deadline = Instant::now() + limit;
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let result = stdout.read_to_end(&mut bytes).map(|_| bytes);
        // There is no receiver only if the limit was reached.
        drop(sender.send(result));
    });
    let mut peak_kb = 0;
    loop {
        peak_kb = service::memory_kb(child.id(), "VmHWM").unwrap_or(peak_kb);
        match receiver.recv_timeout(MEMORY_INTERVAL) {
            Ok(Ok(bytes)) => return Ok((String::from_utf8_lossy(&bytes).into_owned(), peak_kb)),
            Ok(Err(error)) => return Err(error.to_string()),
            Err(RecvTimeoutError::Timeout) if Instant::now() < deadline => {}
            Err(RecvTimeoutError::Timeout) => {
                return Err(format!("stopped after {} s", limit.as_secs()));
            }
            Err(RecvTimeoutError::Disconnected) => {
                return Err("the reader of stdout panicked".into());
            }
        }
    }
}

/// Sends one request to a service, and ends the service.
pub(crate) fn request_once(
    service: Service,
    target: &str,
    read: impl FnOnce(&str) -> Option<Vec<SocketAddr>>,
    limit: Duration,
) -> Result<Outcome, String> {
    let (seconds, body) = service.get(target, limit)?;
    let own_port = service.address.port();
    let peak_kb = service.memory_kb("VmHWM").ok_or("the service has exited")?;
    service.end().map_err(|error| error.to_string())?;
    let mut open = read(&body).ok_or_else(|| format!("the response cannot be parsed: {body}"))?;
    open.retain(|address| address.port() != own_port);
    Ok(Outcome { seconds, open, peak_kb })
}

fn cpu_seconds_of_children() -> io::Result<f64> {
    // SAFETY: all zeroes is a valid `rusage`, which has only integers.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: the `rusage` outlives the call.
    if unsafe { libc::getrusage(libc::RUSAGE_CHILDREN, &raw mut usage) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    Ok(seconds(usage.ru_utime) + seconds(usage.ru_stime))
}
