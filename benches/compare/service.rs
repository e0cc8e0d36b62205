//! A service as a child process: started, asked, measured, ended with its handle.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// How long a service may take to say where it listens.
const START_LIMIT: Duration = Duration::from_secs(5);

/// A running service.
#[derive(Debug)]
pub(crate) struct Service {
    child: Child,
    /// Where it listens, as its log said.
    pub(crate) address: SocketAddr,
}

impl Service {
    /// Starts this project's service on a port of the kernel's choice.
    pub(crate) fn start(arguments: &[&str]) -> Result<Self, String> {
        let path = own_path().ok_or("its binary is not there")?;
        Self::watch(Command::new(path).args(["--listen", "127.0.0.1:0"]).args(arguments))
    }

    /// Starts a program that logs `address=…` once it listens.
    pub(crate) fn watch(command: &mut Command) -> Result<Self, String> {
        let command = command.stdin(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| format!("cannot be started: {error}"))?;
        let log = child.stderr.take();
        let (sender, receiver) = mpsc::channel();
        // Reads on to the end: a full pipe must not hold up the service.
        std::thread::spawn(move || {
            let lines = log.map(|log| BufReader::new(log).lines()).into_iter().flatten();
            for line in lines.map_while(Result::ok) {
                let Some((_, rest)) = line.split_once("address=") else { continue };
                let address = rest.trim_start_matches('"').split(['"', ' ']).next();
                // Only the first is waited for.
                drop(sender.send(address.unwrap_or_default().to_owned()));
            }
        });
        // From here on its handle ends it.
        let mut service = Self { child, address: SocketAddr::from(([0, 0, 0, 0], 0)) };
        let logged = receiver.recv_timeout(START_LIMIT);
        let logged = logged.map_err(|_| "it does not log the address that it is bound to")?;
        service.address = logged.parse().map_err(|_| format!("it logs {logged} for an address"))?;
        Ok(service)
    }

    /// Asks once; the body of the answer, and how many seconds it took.
    pub(crate) fn ask(&self, target: &str, limit: Duration) -> Result<(f64, String), String> {
        ask(self.address, target, limit)
    }

    /// The process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// A line of proc_pid_status(5) in kB, such as `VmHWM`; `None` once the process is gone.
    pub(crate) fn memory_kb(&self, line: &str) -> Option<u64> {
        memory_kb(self.child.id(), line)
    }

    /// Ends it by force: a drain is not what is measured.
    pub(crate) fn end(mut self) -> io::Result<()> {
        self.child.kill()?;
        self.child.wait().map(drop)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // Both fail only where it has ended and was waited for.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// One request on a connection of its own.
pub(crate) fn ask(
    address: SocketAddr,
    target: &str,
    limit: Duration,
) -> Result<(f64, String), String> {
    let exchange = || -> io::Result<String> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(limit))?;
        let head = format!("GET {target} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(head.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    let start = Instant::now();
    let answer = exchange().map_err(|error| {
        let is_late = error.kind() == io::ErrorKind::WouldBlock;
        let late = format!("stopped after {} s", limit.as_secs());
        if is_late { late } else { format!("its connection failed: {error}") }
    })?;
    let seconds = start.elapsed().as_secs_f64();
    match answer.split_once("\r\n\r\n") {
        Some((head, body)) if head.starts_with("HTTP/1.1 200 ") => Ok((seconds, body.to_owned())),
        Some(_) | None => Err(format!("it answered: {answer}").replace("\r\n", " ")),
    }
}

/// Where cargo has built the service for this very program.
pub(crate) fn own_path() -> Option<PathBuf> {
    Some(PathBuf::from(env!("CARGO_BIN_EXE_openports"))).filter(|path| path.is_file())
}

/// Where the Go peer is built.
pub(crate) fn go_path() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("go-original")
}

/// Builds the Go peer, where Go is installed.
pub(crate) fn build_go() -> Result<(), String> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/peers/main.go");
    let mut go = Command::new("go");
    let built = go.args(["build", "-o"]).arg(go_path()).arg(source).env("GO111MODULE", "off");
    match built.output() {
        Err(_) => Err("Go is not installed, which it has to be built with".into()),
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => {
            let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
            Err(format!("does not build: {}", complaint.trim().replace('\n', " ")))
        }
    }
}

/// A line of proc_pid_status(5) in kB; `None` once the process is gone.
pub(crate) fn memory_kb(process: u32, name: &str) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.split_whitespace().next()?.parse().ok()
}
