//! Runs of one tool: started, read, measured.
//!
//! Each run is in a process of its own, which runs no other tool: what its children used meanwhile
//! is what the tool used.
#![allow(unsafe_code, reason = "what the children used has no safe wrapper here")]

use std::io::{self, BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::service::{self, Service};

/// What a tool came to by its own account and clock.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    pub(crate) seconds: f64,
    /// Ascending, without the tool's own listener.
    pub(crate) open: Vec<SocketAddr>,
    /// VmHWM, as last seen: looked at every 20 ms.
    pub(crate) peak_kb: u64,
}

/// What was used up to a moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    /// User and system time of all children that ended and were waited for.
    pub(crate) cpu_seconds: f64,
    /// Packets that left by the device `lab0`; none where there is none.
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

/// How often the memory of a running tool is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// Runs a program to its end, within the limit.
pub(crate) fn run_command(
    command: &mut Command,
    read: impl FnOnce(&str) -> Option<Vec<SocketAddr>>,
    limit: Duration,
) -> Result<Outcome, String> {
    let start = Instant::now();
    let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| format!("cannot be started: {error}"))?;
    let complaint = child.stderr.take().map(first_line);
    let (output, peak_kb) = match collect(&mut child, limit) {
        Ok(collected) => collected,
        Err(error) => {
            // Gone already, or about to be: either is what is wanted.
            drop(child.kill());
            return Err(error);
        }
    };
    let status = child.wait().map_err(|error| error.to_string())?;
    let seconds = start.elapsed().as_secs_f64();
    if !status.success() {
        let complaint = complaint.and_then(|thread| thread.join().ok()).unwrap_or_default();
        return Err(format!("failed: {status} {complaint}").trim_end().to_owned());
    }
    let mut open = read(&output).ok_or("its output cannot be read")?;
    open.sort_unstable();
    open.dedup();
    Ok(Outcome { seconds, open, peak_kb })
}

/// Reads all that a child complains of, so that it is never held up; keeps the first line.
fn first_line(stderr: ChildStderr) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let mut lines = BufReader::new(stderr).lines().map_while(Result::ok);
        let first = lines.find(|line| !line.trim().is_empty()).unwrap_or_default();
        lines.for_each(drop);
        first.chars().filter(|c| !c.is_control()).take(80).collect()
    })
}

/// All that the child prints, and its peak memory, once it closes its output.
fn collect(child: &mut Child, limit: Duration) -> Result<(String, u64), String> {
    let mut stdout = child.stdout.take().ok_or("its output is not captured")?;
    let deadline = Instant::now() + limit;
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let result = stdout.read_to_end(&mut bytes).map(|_| bytes);
        // The receiver is gone exactly when the limit was reached.
        drop(sender.send(result));
    });
    let mut peak_kb = 0;
    loop {
        peak_kb = service::memory_kb(child.id(), "VmHWM").unwrap_or(peak_kb);
        match receiver.recv_timeout(LOOK_INTERVAL) {
            Ok(Ok(bytes)) => return Ok((String::from_utf8_lossy(&bytes).into_owned(), peak_kb)),
            Ok(Err(error)) => return Err(error.to_string()),
            Err(RecvTimeoutError::Timeout) if Instant::now() < deadline => {}
            Err(RecvTimeoutError::Timeout) => {
                return Err(format!("stopped after {} s", limit.as_secs()));
            }
            Err(RecvTimeoutError::Disconnected) => return Err("its output broke off".into()),
        }
    }
}

/// Asks a service once, and ends it.
pub(crate) fn ask_once(
    service: Service,
    target: &str,
    read: impl FnOnce(&str) -> Option<Vec<SocketAddr>>,
    limit: Duration,
) -> Result<Outcome, String> {
    let (seconds, body) = service.ask(target, limit)?;
    let own_port = service.address.port();
    let peak_kb = service.memory_kb("VmHWM").ok_or("it died")?;
    service.end().map_err(|error| error.to_string())?;
    let mut open = read(&body).ok_or_else(|| format!("its answer cannot be read: {body}"))?;
    open.retain(|address| address.port() != own_port);
    Ok(Outcome { seconds, open, peak_kb })
}

/// User and system time of all children that ended and were waited for.
fn cpu_seconds_of_children() -> io::Result<f64> {
    // SAFETY: all zeroes is a valid `rusage`: plain integers.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: one `rusage` that outlives the call.
    if unsafe { libc::getrusage(libc::RUSAGE_CHILDREN, &raw mut usage) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    Ok(seconds(usage.ru_utime) + seconds(usage.ru_stime))
}
