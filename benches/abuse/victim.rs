//! The service as a child process: started on a port of the kernel's choice, watched through
//! proc(5), ended by its id.
#![allow(dead_code, reason = "each program that includes it uses a part of it")]

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// How long it may take to say where it listens. A busy machine takes its time.
const START_LIMIT: Duration = Duration::from_secs(20);

/// What becomes of what it logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Log {
    /// Read and dropped.
    Read,
    /// Left in the pipe, which is full soon.
    Unread,
}

/// A running service.
#[derive(Debug)]
pub(crate) struct Victim {
    child: Child,
    /// The pipe that nobody reads, kept open.
    _log: Option<BufReader<ChildStderr>>,
    /// Where it listens, as its log said.
    pub(crate) address: SocketAddr,
}

impl Victim {
    /// Starts the service with these flags; `descriptors` is its hard limit, if it is to have one.
    pub(crate) fn start(
        flags: &[&str],
        descriptors: Option<u32>,
        log: Log,
    ) -> Result<Self, String> {
        let path = env!("CARGO_BIN_EXE_openports");
        let mut command = match descriptors {
            None => Command::new(path),
            Some(limit) => {
                let mut shell = Command::new("sh");
                let script = format!("ulimit -n {limit}; exec \"$0\" \"$@\"");
                shell.args(["-c", &script, path]);
                shell
            }
        };
        command.args(["--listen", "127.0.0.1:0"]).args(flags);
        let command = command.stdin(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| format!("it does not start: {error}"))?;
        let Some(stderr) = child.stderr.take() else { return Err("it has no stderr".into()) };
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        // From here on its end is seen to.
        let mut victim = Self { child, _log: None, address: nowhere };
        let (sender, receiver) = mpsc::channel();
        std::thread::spawn(move || {
            let mut reader = BufReader::new(stderr);
            let mut line = String::new();
            while reader.read_line(&mut line).is_ok_and(|count| count > 0) {
                if let Some(address) = address_in(&line) {
                    if log == Log::Unread {
                        drop(sender.send((address, Some(reader))));
                        return;
                    }
                    // Only the first is waited for.
                    drop(sender.send((address, None)));
                }
                line.clear();
            }
        });
        let told = receiver.recv_timeout(START_LIMIT);
        (victim.address, victim._log) = told.map_err(|_| "it does not say where it listens")?;
        Ok(victim)
    }

    /// The process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// True exactly while the process runs.
    pub(crate) fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// How many descriptors it has open; `None` once it is gone.
    pub(crate) fn descriptors(&self) -> Option<usize> {
        std::fs::read_dir(format!("/proc/{}/fd", self.id())).ok().map(Iterator::count)
    }

    /// A line of proc_pid_status(5) in kB, such as `VmHWM`; `None` once it is gone.
    pub(crate) fn memory_kb(&self, name: &str) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.split_whitespace().next()?.parse().ok()
    }

    /// User and system time so far; `None` once it is gone.
    pub(crate) fn cpu(&self) -> Option<Duration> {
        cpu_of(&self.id().to_string())
    }

    /// Waits until it has at most so many descriptors; how long that took, `None` if it did not
    /// come to it within `limit`.
    pub(crate) fn wait_for_descriptors(&self, most: usize, limit: Duration) -> Option<Duration> {
        let begun = Instant::now();
        loop {
            if self.descriptors()? <= most {
                return Some(begun.elapsed());
            }
            if begun.elapsed() > limit {
                return None;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Sends SIGTERM.
    pub(crate) fn terminate(&self) -> Result<(), String> {
        let sent = Command::new("kill").args(["-TERM", &self.id().to_string()]).status();
        match sent {
            Ok(status) if status.success() => Ok(()),
            Ok(_) | Err(_) => Err("SIGTERM cannot be sent".into()),
        }
    }

    /// Waits for its end; `None` if it has not come within `limit`.
    pub(crate) fn wait(&mut self, limit: Duration) -> Option<(ExitStatus, Duration)> {
        let begun = Instant::now();
        while begun.elapsed() < limit {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Some((status, begun.elapsed()));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        None
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        // Both fail only where it has ended and was waited for.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// User and system time of a process, or of `self` (proc_pid_stat(5), in ticks of 10 ms).
pub(crate) fn cpu_of(process: &str) -> Option<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name, second of all, may hold anything; the times are the 14th and the 15th.
    let (_, rest) = stat.rsplit_once(')')?;
    let times = rest.split_whitespace().skip(11).take(2);
    Some(Duration::from_millis(times.flat_map(str::parse::<u64>).sum::<u64>() * 10))
}

fn address_in(line: &str) -> Option<SocketAddr> {
    let (_, rest) = line.split_once("address=")?;
    rest.trim_start_matches('"').split(['"', ' ', '\n']).next()?.parse().ok()
}
