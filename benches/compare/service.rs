//! A service as a child process, which is killed when its handle is dropped.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// The maximum time until the service logs its address.
const START_LIMIT: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(crate) struct Service {
    child: Child,
    /// The address on which it listens, from its log.
    pub(crate) address: SocketAddr,
}

impl Service {
    /// Starts this project's service on a port that the kernel chooses.
    pub(crate) fn start(arguments: &[&str]) -> Result<Self, String> {
        let path = own_path().ok_or("the binary of the service does not exist")?;
        Self::watch(Command::new(path).args(["--listen", "127.0.0.1:0"]).args(arguments))
    }

    /// Starts a program that logs `address=…` once it listens.
    pub(crate) fn watch(command: &mut Command) -> Result<Self, String> {
        let command = command.stdin(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| format!("cannot be started: {error}"))?;
        let log = child.stderr.take();
        let (sender, receiver) = mpsc::channel();
        // The thread reads stderr to its end, because a full pipe would block the service.
        std::thread::spawn(move || {
            let lines = log.map(|log| BufReader::new(log).lines()).into_iter().flatten();
            for line in lines.map_while(Result::ok) {
                let Some((_, rest)) = line.split_once("address=") else { continue };
                let address = rest.trim_start_matches('"').split(['"', ' ']).next();
                // Only the first address has a receiver.
                drop(sender.send(address.unwrap_or_default().to_owned()));
            }
        });
        // From here on, `Drop` ends the process.
        let mut service = Self { child, address: SocketAddr::from(([0, 0, 0, 0], 0)) };
        let logged = receiver.recv_timeout(START_LIMIT);
        let logged = logged.map_err(|_| "the service logs no address")?;
        service.address = logged.parse().map_err(|_| format!("not an address: {logged}"))?;
        Ok(service)
    }

    /// Sends one request, and returns the seconds that it took and the body of the response.
    pub(crate) fn get(&self, target: &str, limit: Duration) -> Result<(f64, String), String> {
        get(self.address, target, limit)
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Returns a line of proc_pid_status(5) in kB, such as `VmHWM`, or `None` after the process has
    /// exited.
    pub(crate) fn memory_kb(&self, line: &str) -> Option<u64> {
        memory_kb(self.child.id(), line)
    }

    /// Kills the process, because the time of a shutdown must not be measured.
    pub(crate) fn end(mut self) -> io::Result<()> {
        self.child.kill()?;
        self.child.wait().map(drop)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // Both calls fail only if the process has already exited.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Sends one request on a new connection, and returns the seconds and the body of the response.
pub(crate) fn get(
    address: SocketAddr,
    target: &str,
    limit: Duration,
) -> Result<(f64, String), String> {
    let request = || -> io::Result<String> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(limit))?;
        let head = format!("GET {target} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(head.as_bytes())?;
        let mut response = String::new();
        stream.read_to_string(&mut response)?;
        Ok(response)
    };
    let start = Instant::now();
    let response = request().map_err(|error| {
        let is_late = error.kind() == io::ErrorKind::WouldBlock;
        let late = format!("stopped after {} s", limit.as_secs());
        if is_late { late } else { format!("the connection failed: {error}") }
    })?;
    let seconds = start.elapsed().as_secs_f64();
    match response.split_once("\r\n\r\n") {
        Some((head, body)) if head.starts_with("HTTP/1.1 200 ") => Ok((seconds, body.to_owned())),
        Some(_) | None => Err(format!("the response is not 200: {response}").replace("\r\n", " ")),
    }
}

/// Returns the path at which cargo has built the service for this program.
pub(crate) fn own_path() -> Option<PathBuf> {
    Some(PathBuf::from(env!("CARGO_BIN_EXE_openports"))).filter(|path| path.is_file())
}

pub(crate) fn go_path() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("go-original")
}

pub(crate) fn build_go() -> Result<(), String> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/peers/main.go");
    let mut go = Command::new("go");
    let built = go.args(["build", "-o"]).arg(go_path()).arg(source).env("GO111MODULE", "off");
    match built.output() {
        Err(_) => Err("Go is not installed".into()),
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => {
            let message = String::from_utf8_lossy(&output.stderr).into_owned();
            Err(format!("the build failed: {}", message.trim().replace('\n', " ")))
        }
    }
}

/// Returns a line of proc_pid_status(5) in kB, or `None` after the process has exited.
pub(crate) fn memory_kb(process: u32, name: &str) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.split_whitespace().next()?.parse().ok()
}
