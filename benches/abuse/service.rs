//! The service as a child process. It listens on a port that the kernel chooses, is observed
//! through proc(5), and is ended by its process id.
#![allow(dead_code, reason = "each program that includes it uses a part of it")]

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// The maximum time until the service logs its address, on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(20);

/// How the log is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Log {
    /// A thread reads and discards it.
    Read,
    /// It stays in the pipe, which is soon full.
    Unread,
}

#[derive(Debug)]
pub(crate) struct Service {
    child: Child,
    /// The unread pipe, which must stay open.
    _log: Option<BufReader<ChildStderr>>,
    /// The address on which it listens, from its log.
    pub(crate) address: SocketAddr,
}

impl Service {
    /// Starts the service with these flags and an optional hard limit of descriptors.
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
        let mut child =
            command.spawn().map_err(|error| format!("the service does not start: {error}"))?;
        let Some(stderr) = child.stderr.take() else {
            return Err("the service has no stderr".into());
        };
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        // From here on, `Drop` ends the process.
        let mut service = Self { child, _log: None, address: nowhere };
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
                    // Only the first address has a receiver.
                    drop(sender.send((address, None)));
                }
                line.clear();
            }
        });
        let logged = receiver.recv_timeout(START_LIMIT);
        (service.address, service._log) = logged.map_err(|_| "the service logs no address")?;
        Ok(service)
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Returns the number of open descriptors, or `None` after the process has exited.
    pub(crate) fn descriptors(&self) -> Option<usize> {
        std::fs::read_dir(format!("/proc/{}/fd", self.id())).ok().map(Iterator::count)
    }

    /// Returns a line of proc_pid_status(5) in kB, such as `VmHWM`, or `None` after the process has
    /// exited.
    pub(crate) fn memory_kb(&self, name: &str) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.split_whitespace().next()?.parse().ok()
    }

    /// Returns the user and system time, or `None` after the process has exited.
    pub(crate) fn cpu(&self) -> Option<Duration> {
        cpu_of(&self.id().to_string())
    }

    /// Waits until the process has at most `most` descriptors, and returns the time that this took,
    /// or `None` after `limit`.
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

    pub(crate) fn terminate(&self) -> Result<(), String> {
        let sent = Command::new("kill").args(["-TERM", &self.id().to_string()]).status();
        match sent {
            Ok(status) if status.success() => Ok(()),
            Ok(_) | Err(_) => Err("SIGTERM cannot be sent".into()),
        }
    }

    /// Waits for the exit of the process. Returns `None` after `limit`.
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

impl Drop for Service {
    fn drop(&mut self) {
        // Both calls fail only if the process has already exited.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Returns the user and system time of a process, or of `self` (proc_pid_stat(5), in ticks of
/// 10 ms).
pub(crate) fn cpu_of(process: &str) -> Option<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The second field is the name, which may contain any character. The times are the fields 14
    // and 15.
    let (_, rest) = stat.rsplit_once(')')?;
    let times = rest.split_whitespace().skip(11).take(2);
    Some(Duration::from_millis(times.flat_map(str::parse::<u64>).sum::<u64>() * 10))
}

fn address_in(line: &str) -> Option<SocketAddr> {
    let (_, rest) = line.split_once("address=")?;
    rest.trim_start_matches('"').split(['"', ' ', '\n']).next()?.parse().ok()
}
