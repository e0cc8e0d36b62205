//! The binary as a child process: it is started, observed and signalled, and killed when its handle
//! is dropped.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// Every expected event happens within this time, even on a busy machine.
pub(crate) const EVENT_TIMEOUT: Duration = Duration::from_secs(60);

/// Polls until there is a value; panics with `what` after the timeout.
pub(crate) fn until<T>(what: &str, mut poll: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + EVENT_TIMEOUT;
    loop {
        if let Some(found) = poll() {
            return found;
        }
        assert!(Instant::now() < deadline, "this did not happen within {EVENT_TIMEOUT:?}: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The lines of a log, which grow while the process runs.
#[derive(Clone, Default)]
struct Log(Arc<(Mutex<Vec<String>>, Condvar)>);

impl Log {
    fn push(&self, line: String) {
        let (lines, more) = &*self.0;
        lines.lock().unwrap().push(line);
        more.notify_all();
    }

    fn wait_for(&self, is_wanted: impl Fn(&str) -> bool) -> Option<String> {
        let (lines, more) = &*self.0;
        let find = |lines: &[String]| lines.iter().find(|line| is_wanted(line)).cloned();
        let lines = lines.lock().unwrap();
        let (lines, _) =
            more.wait_timeout_while(lines, EVENT_TIMEOUT, |lines| find(lines).is_none()).unwrap();
        find(&lines)
    }
}

/// A running service.
pub(crate) struct Service {
    child: Child,
    /// The listening address from the log.
    pub(crate) address: SocketAddr,
    /// The command line, which failure messages show.
    pub(crate) command: String,
    log: Log,
}

impl Service {
    /// Starts `openports --listen 127.0.0.1:0 …`.
    pub(crate) fn start(args: &[&str]) -> Self {
        Self::spawn_logged(command(None, &with_listener(args)))
    }

    /// Starts it under `ulimit -n limit`.
    pub(crate) fn start_limited(limit: usize, args: &[&str]) -> Self {
        Self::spawn_logged(command(Some(limit), &with_listener(args)))
    }

    /// Starts it with exactly these arguments, which must contain a listening address.
    pub(crate) fn start_exactly(args: &[&str]) -> Self {
        Self::spawn_logged(command(None, args))
    }

    /// Starts it in the way of a service manager, see [`passing`].
    pub(crate) fn start_passing(variables: &str, listener: OwnedFd, args: &[&str]) -> Self {
        Self::spawn_logged(passing(variables, listener, args))
    }

    /// Starts it and reads its log only until the end of the announcement.
    pub(crate) fn start_unread(args: &[&str]) -> (Self, BufReader<ChildStderr>) {
        let (service, reader, _) = Self::spawn(command(None, &with_listener(args)));
        (service, reader)
    }

    /// Starts it without a stderr. It cannot log its port, so the address must be given.
    pub(crate) fn start_without_stderr(address: SocketAddr) -> Self {
        let mut command = Command::new("sh");
        let script = "exec \"$0\" --listen \"$1\" 2>&-";
        command.args(["-c", script, env!("CARGO_BIN_EXE_openports"), &address.to_string()]);
        let shown = format!("{command:?}");
        let child = command.stdin(Stdio::null()).spawn().expect(&shown);
        let service = Self { child, address, command: shown, log: Log::default() };
        until("the service listens", || std::net::TcpStream::connect(address).ok());
        service
    }

    /// Starts it with these environment variables.
    pub(crate) fn start_with(variables: &[(&str, &str)], args: &[&str]) -> Self {
        let mut command = command(None, args);
        command.envs(variables.iter().copied());
        Self::spawn_logged(command)
    }

    fn spawn_logged(command: Command) -> Self {
        let (service, reader, seen) = Self::spawn(command);
        let log = service.log.clone();
        seen.into_iter().for_each(|line| log.push(line));
        std::thread::spawn(move || {
            reader.lines().map_while(Result::ok).for_each(|line| log.push(line));
        });
        service
    }

    /// Starts the command and reads its log up to the last line of the announcement.
    fn spawn(mut command: Command) -> (Self, BufReader<ChildStderr>, Vec<String>) {
        let shown = format!("{command:?}");
        let mut child = command.stderr(Stdio::piped()).spawn().expect(&shown);
        let mut reader = BufReader::new(child.stderr.take().expect("stderr is piped"));
        let (mut address, mut seen) = (None, Vec::new());
        while !seen.last().is_some_and(|line: &String| line.contains("curl ")) {
            let mut line = String::new();
            let count = reader.read_line(&mut line).expect("a log is text");
            assert!(count > 0, "{shown} ended early: {seen:#?}");
            if line.contains("listening") && !line.contains("unix:") && address.is_none() {
                address = Some(address_of(&line));
            }
            seen.push(line.trim_end().to_owned());
        }
        let address = address.unwrap_or_else(|| panic!("{shown} does not listen: {seen:#?}"));
        (Self { child, address, command: shown, log: Log::default() }, reader, seen)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The number of open descriptors.
    pub(crate) fn descriptors(&self) -> usize {
        let path = format!("/proc/{}/fd", self.pid());
        std::fs::read_dir(path).expect("the process is running").count()
    }

    /// Sends a signal by its name, such as `TERM`.
    pub(crate) fn signal(&self, name: &str) {
        let kill = format!("kill -{name} {}", self.pid());
        let status = Command::new("sh").args(["-c", &kill]).status().expect("sh is available");
        assert!(status.success(), "{kill}: {status}");
    }

    /// Waits for a log line that contains these words, and returns the first one.
    pub(crate) fn log_line(&self, words: &[&str]) -> String {
        let found = self.log.wait_for(|line| words.iter().all(|word| line.contains(word)));
        found.unwrap_or_else(|| {
            panic!("{}: no log line with {words:?} in {:#?}", self.command, self.log_lines())
        })
    }

    /// The log lines so far.
    pub(crate) fn log_lines(&self) -> Vec<String> {
        self.log.0.0.lock().unwrap().clone()
    }

    /// Waits for the end of the process, and returns the exit code.
    pub(crate) fn wait(&mut self) -> Option<i32> {
        until("the process ends", || self.child.try_wait().expect("the child can be waited for"))
            .code()
    }

    /// Whether the process is still running.
    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("the child can be waited for").is_none()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The exit code and the output of a process.
pub(crate) struct FinishedProcess {
    pub(crate) command: String,
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs the binary until it ends, which must be within `EVENT_TIMEOUT`.
pub(crate) fn run(limit: Option<usize>, args: &[&str]) -> FinishedProcess {
    finish(command(limit, args))
}

/// Runs the binary with a passed descriptor, see [`passing`].
pub(crate) fn run_passing(variables: &str, descriptor: OwnedFd, args: &[&str]) -> FinishedProcess {
    finish(passing(variables, descriptor, args))
}

fn finish(mut command: Command) -> FinishedProcess {
    let shown = format!("{command:?}");
    let piped = command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn().expect(&shown);
    let deadline = Instant::now() + EVENT_TIMEOUT;
    let status = loop {
        if let Some(status) = child.try_wait().expect("the child can be waited for") {
            break Some(status);
        }
        if Instant::now() > deadline {
            let _ = child.kill();
            let _ = child.wait();
            break None;
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    let (mut stdout, mut stderr) = (String::new(), String::new());
    child
        .stdout
        .take()
        .expect("stdout is piped")
        .read_to_string(&mut stdout)
        .expect("the output is UTF-8");
    child
        .stderr
        .take()
        .expect("stderr is piped")
        .read_to_string(&mut stderr)
        .expect("the output is UTF-8");
    let status = status.unwrap_or_else(|| panic!("{shown} does not end: {stdout}{stderr}"));
    FinishedProcess { command: shown, code: status.code(), stdout, stderr }
}

/// The command line, without the variables that configure the service.
pub(crate) fn command(limit: Option<usize>, args: &[&str]) -> Command {
    let binary = env!("CARGO_BIN_EXE_openports");
    let mut command = match limit {
        None if ignores_hangup() => {
            let mut env = Command::new("env");
            env.args(["--default-signal=HUP", binary]);
            env
        }
        None => Command::new(binary),
        Some(limit) => {
            let mut shell = Command::new("sh");
            shell.args(["-c", &format!("ulimit -n {limit} && exec \"$0\" \"$@\""), binary]);
            shell
        }
    };
    remove_variables(&mut command);
    command.args(args).stdin(Stdio::null());
    command
}

/// Whether the tests were started by nohup(1) or a similar program: then a service correctly keeps
/// ignoring SIGHUP.
fn ignores_hangup() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    ignored.is_some_and(|mask| mask & 1 == 1)
}

/// The command line with this descriptor as number 3 and these variables; `$$` is the process id.
fn passing(variables: &str, descriptor: OwnedFd, args: &[&str]) -> Command {
    let script = format!("export {variables}; exec \"$0\" \"$@\" 3<&0 </dev/null");
    let mut command = Command::new("sh");
    remove_variables(&mut command);
    command.args(["-c", &script, env!("CARGO_BIN_EXE_openports")]).args(args).stdin(descriptor);
    command
}

fn remove_variables(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("OPENPORTS_") {
            command.env_remove(name);
        }
    }
}

fn with_listener<'a>(args: &[&'a str]) -> Vec<&'a str> {
    ["--listen", "127.0.0.1:0"].into_iter().chain(args.iter().copied()).collect()
}

/// The address in a record of either format: `address=127.0.0.1:1` or `"address":"127.0.0.1:1"`.
fn address_of(line: &str) -> SocketAddr {
    let (_, rest) = line.split_once("address").expect("the record contains the address");
    let rest = rest.trim_start_matches(['"', ':', '=']);
    let end = rest.find([' ', '"', '}', '\n']).unwrap_or(rest.len());
    rest[..end].parse().unwrap_or_else(|error| panic!("{error}: {line}"))
}

/// A directory that belongs to a test and is removed with its handle.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new(name: &str) -> Self {
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("the target directory is writable");
        Self(path)
    }

    /// A folder whose path is short enough for sockets, which allow 107 bytes.
    pub(crate) fn short(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("openports-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("the temporary directory is writable");
        Self(path)
    }

    /// The path of a file in the folder.
    pub(crate) fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().expect("the path is UTF-8").to_owned()
    }

    /// Writes a file atomically and returns its path.
    pub(crate) fn write(&self, name: &str, text: &str) -> String {
        let (path, temporary) = (self.0.join(name), self.0.join(format!("{name}.draft")));
        std::fs::write(&temporary, text).expect("the folder is writable");
        std::fs::rename(&temporary, &path).expect("the folder is writable");
        path.to_str().expect("the path is UTF-8").to_owned()
    }

    /// Creates a FIFO, which atomically replaces a file of this name, and returns its path.
    pub(crate) fn fifo(&self, name: &str) -> String {
        let temporary = self.path(&format!("{name}.draft"));
        let made = Command::new("mkfifo").arg(&temporary).status().expect("mkfifo runs");
        assert!(made.success(), "mkfifo {temporary}: {made}");
        std::fs::rename(temporary, self.path(name)).expect("the folder is writable");
        self.path(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
