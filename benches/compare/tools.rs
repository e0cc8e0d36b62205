//! The tools compared: how each is run, what its output says, what it cost.
//!
//! Each run is in a process of its own, which runs nothing else: what its children used is what
//! the tool used.
#![allow(unsafe_code, reason = "what the children used has no safe wrapper here")]

use std::io::{self, BufRead, BufReader, Read};
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::cases::Case;
use crate::service::{self, Service};

/// A tool and its flags. `{target}` stands for the address.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tool {
    /// One word, for the command line and the report.
    pub(crate) name: &'static str,
    /// How it is run.
    pub(crate) way: Way,
    /// Its arguments, as the reader shall see them.
    pub(crate) arguments: &'static str,
    /// The only cases that it is for; empty: all that suit its way.
    only: &'static [&'static str],
}

/// How a tool is run.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Way {
    /// This project's service: started first, then asked; the time is the request's. The
    /// arguments are the request's target.
    Service,
    /// A loop of `benches/floor`, by way of this program.
    Floor {
        /// True exactly when it waits for one port after the other.
        is_sequential: bool,
    },
    /// A program of the PATH; the time is the whole process's.
    Command {
        program: &'static str,
        /// The open ports in what it printed; `None` if it cannot be read.
        read: fn(&str) -> Option<Vec<u16>>,
    },
    /// The same, of a program that sends its packets past the kernel's TCP, by way of the lab's
    /// device: it cannot scan loopback.
    Raw { program: &'static str, read: fn(&str) -> Option<Vec<u16>> },
    /// The Go original's design (benches/peers), asked as this project's service is.
    Go,
}

/// Every tool, in the order of the report. Peers have the flags that their documentation or the
/// project's own trials show to be the fastest that still find something.
pub(crate) const TOOLS: [Tool; 11] = [
    Tool {
        name: "openports",
        way: Way::Service,
        arguments: "/open-ports?domain={target}&toPort=65535",
        only: &[],
    },
    Tool {
        name: "openports-auto",
        way: Way::Service,
        arguments: "/open-ports?domain={target}&toPort=65535&timeout=auto",
        only: &["far-silent", "lossy-silent"],
    },
    Tool {
        name: "openports-retries",
        way: Way::Service,
        arguments: "/open-ports?domain={target}&toPort=65535&retries=3",
        only: &["lossy-silent"],
    },
    Tool {
        name: "floor-blocking",
        way: Way::Floor { is_sequential: true },
        arguments: "floor blocking {target} 1 65535",
        only: &[],
    },
    Tool {
        name: "floor-epoll",
        way: Way::Floor { is_sequential: false },
        arguments: "floor epoll {target} 1 65535",
        only: &[],
    },
    Tool {
        name: "nmap",
        way: Way::Command { program: "nmap", read: read_nmap },
        arguments: "-sT -Pn -n -T5 --min-rate 30000 --max-retries 1 -p 1-65535 -oG - {target}",
        only: &[],
    },
    Tool {
        name: "nmap-defaults",
        way: Way::Command { program: "nmap", read: read_nmap },
        arguments: "-sT -Pn -n -T4 -p 1-65535 -oG - {target}",
        only: &[],
    },
    Tool {
        name: "rustscan",
        way: Way::Command { program: "rustscan", read: read_rustscan },
        arguments: "-a {target} -r 1-65535 -b 10000 -t 2000 -g --no-config --no-banner",
        only: &[],
    },
    Tool {
        name: "masscan",
        way: Way::Raw { program: "masscan", read: read_masscan },
        arguments: "{target} -p1-65535 --rate 20000 --wait 2 --interface lab0 -oL -",
        only: &[],
    },
    Tool {
        name: "naabu",
        way: Way::Command { program: "naabu", read: read_naabu },
        arguments: "-host {target} -p - -s c -c 1000 -rate 30000 -silent -duc",
        only: &[],
    },
    Tool {
        name: "go-original",
        way: Way::Go,
        arguments: "/open-ports?domain={target}&fromPort=1&toPort=65535",
        only: &[],
    },
];

/// What one run of a tool came to.
#[derive(Clone, Debug)]
pub(crate) struct Measured {
    pub(crate) seconds: f64,
    /// Ascending, without the tool's own listener.
    pub(crate) open: Vec<u16>,
    /// VmHWM, as last seen: looked at every 20 ms.
    pub(crate) peak_kb: u64,
    /// User and system time together.
    pub(crate) cpu_seconds: f64,
    /// By how much the lab's latest answer was late; zero until the cell sets it. Where it is
    /// not small against the round trip, the machine was too busy to measure on.
    pub(crate) lab_late_ms: f64,
}

impl Tool {
    /// The tool of this name.
    pub(crate) fn find(name: &str) -> Option<Self> {
        TOOLS.into_iter().find(|tool| tool.name == name)
    }

    /// Why it cannot be run here, if so.
    pub(crate) fn absence(&self) -> Option<String> {
        match self.way {
            Way::Service if service::own_path().is_none() => Some("its binary is not there".into()),
            Way::Command { program, .. } | Way::Raw { program, .. }
                if find_program(program).is_none() =>
            {
                Some("not installed".into())
            }
            Way::Go => service::build_go().err(),
            Way::Service | Way::Command { .. } | Way::Raw { .. } | Way::Floor { .. } => None,
        }
    }

    /// True exactly when it can be expected to end and to find something.
    pub(crate) fn suits(&self, case: &Case) -> bool {
        let is_meant = self.only.is_empty() || self.only.contains(&case.name);
        is_meant
            && match self.way {
                Way::Floor { is_sequential } => !is_sequential || case.is_prompt(),
                Way::Raw { .. } => !case.target().is_loopback(),
                Way::Service | Way::Command { .. } | Way::Go => true,
            }
    }

    /// The first line with a digit of what it says of its version.
    pub(crate) fn version(&self) -> Option<String> {
        let (Way::Command { program, .. } | Way::Raw { program, .. }) = self.way else {
            return None;
        };
        let output = Command::new(program).arg("--version").output().ok()?;
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        text.lines().find(|line| line.contains(|c: char| c.is_ascii_digit())).map(str::to_owned)
    }

    /// Scans every port of `target`, for `limit` at most; an error is a sentence for the report.
    pub(crate) fn run(&self, target: IpAddr, limit: Duration) -> Result<Measured, String> {
        let arguments = self.arguments.replace("{target}", &target.to_string());
        match self.way {
            Way::Service => ask_once(Service::start(&[])?, &arguments, limit),
            Way::Go => {
                let service = Service::watch(&mut Command::new(service::go_path()))?;
                ask_once(service, &arguments, limit)
            }
            Way::Floor { .. } => {
                let program = std::env::current_exe().map_err(|error| error.to_string())?;
                run_command(Command::new(program).args(arguments.split(' ')), read_json, limit)
            }
            Way::Command { program, read } | Way::Raw { program, read } => {
                run_command(Command::new(program).args(arguments.split(' ')), read, limit)
            }
        }
    }
}

/// How often the memory of a running tool is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

fn run_command(
    command: &mut Command,
    read: fn(&str) -> Option<Vec<u16>>,
    limit: Duration,
) -> Result<Measured, String> {
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
    let cpu_seconds = cpu_seconds_of_children().map_err(|error| error.to_string())?;
    if !status.success() {
        let complaint = complaint.and_then(|thread| thread.join().ok()).unwrap_or_default();
        return Err(format!("failed: {status} {complaint}").trim_end().to_owned());
    }
    let mut open = read(&output).ok_or("its output cannot be read")?;
    open.sort_unstable();
    open.dedup();
    Ok(Measured { seconds, open, peak_kb, cpu_seconds, lab_late_ms: 0.0 })
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
fn ask_once(service: Service, target: &str, limit: Duration) -> Result<Measured, String> {
    let (seconds, body) = service.ask(target, limit)?;
    let own_port = service.address.port();
    let peak_kb = service.memory_kb("VmHWM").ok_or("it died")?;
    service.end().map_err(|error| error.to_string())?;
    let mut open = read_json(&body).ok_or_else(|| format!("its answer cannot be read: {body}"))?;
    open.retain(|port| *port != own_port);
    let cpu_seconds = cpu_seconds_of_children().map_err(|error| error.to_string())?;
    Ok(Measured { seconds, open, peak_kb, cpu_seconds, lab_late_ms: 0.0 })
}

/// `{"open_ports":[22,80],…}`, as this project's programs print it.
fn read_json(text: &str) -> Option<Vec<u16>> {
    let value: Value = serde_json::from_str(text).ok()?;
    let ports = value.get("open_ports")?.as_array()?;
    ports.iter().map(|port| port.as_u64().and_then(|port| port.try_into().ok())).collect()
}

/// `Host: 10.99.1.1 () Ports: 22/open/tcp//ssh///, 80/open/tcp//http///, Ignored State: …`, and
/// a last line that says it is done; tabs between the parts. Without an open port there is no
/// `Ports`.
fn read_nmap(text: &str) -> Option<Vec<u16>> {
    if !text.contains("# Nmap done") {
        return None;
    }
    let Some((_, list)) = text.split_once("Ports: ") else { return Some(Vec::new()) };
    let list = list.split(['\t', '\n']).next()?;
    let open = list.split(", ").filter(|entry| entry.contains("/open/"));
    open.map(|entry| entry.split('/').next()?.parse().ok()).collect()
}

/// `10.99.1.1 -> [22,80]`, or nothing.
fn read_rustscan(text: &str) -> Option<Vec<u16>> {
    let Some((_, list)) = text.split_once("-> [") else {
        return text.trim().is_empty().then(Vec::new);
    };
    let list = list.split(']').next()?;
    list.split(',').map(|port| port.trim().parse().ok()).collect()
}

/// `open tcp 22 10.99.1.1 1700000000`, between lines that begin with `#`.
fn read_masscan(text: &str) -> Option<Vec<u16>> {
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    lines.map(|line| line.strip_prefix("open tcp ")?.split(' ').next()?.parse().ok()).collect()
}

/// `10.99.1.1:22`.
fn read_naabu(text: &str) -> Option<Vec<u16>> {
    text.lines().map(|line| line.rsplit_once(':')?.1.trim().parse().ok()).collect()
}

pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file())
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
