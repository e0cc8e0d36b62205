//! The environment of the process under test, its requests, and the oracle that judges the answers.
//!
//! The environment is a network of the lab with one host whose port states are all known, some
//! ports of 127.0.0.1, and a name server that resolves every name to that host. A round uses every
//! feature of the service. Each reported port must have its true state or be counted as untested,
//! whatever failed meanwhile.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpStream};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::lab::{HOST_ADDRESS, Host, Lab, Port, Unreachable};
use crate::nameserver::{NameServer, Reply};
use crate::network::{ClosedPort, listeners};
use crate::process::{EVENT_TIMEOUT, Folder, command, until};
use crate::supervisor::{Plan, Rule, Supervisor};

/// The ports of the remote host: open, closed, and one that a router reports as unreachable.
const REMOTE: &[(u16, State)] = &[
    (22, State::Open),
    (80, State::Open),
    (21, State::Closed),
    (23, State::Closed),
    (9, State::Unreachable),
];
/// A second remote host, with the same ports.
const HOST_ADDRESS_6: Ipv6Addr = Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, 1, 1);
/// This differs from the name server that is used when there is no resolv.conf.
const NAME_SERVER: &str = "127.0.0.53";
const TOKEN: &str = "a-token-of-the-tests";
/// The timeout exceeds both the fault and the delays of a busy machine, so no answer comes too
/// late.
const TIMEOUT: &str = "timeout=8s&deadline=40s&retries=0&include=closed,filtered,unreachable";

/// The state of a port in an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum State {
    Open,
    Closed,
    Filtered,
    Unreachable,
    Untested,
}

/// The environment of one case.
pub(crate) struct World {
    _lab: Lab,
    _names: NameServer,
    _closed: Vec<ClosedPort>,
    pub(crate) folder: Folder,
    local: Vec<(u16, State)>,
    serial: Arc<Mutex<u64>>,
}

impl World {
    /// Moves this process, which must have one thread, to a network namespace of its own.
    pub(crate) fn enter() -> Result<Self, Box<dyn std::error::Error>> {
        let open = |state| {
            let ports = REMOTE.iter().filter(|(_, it)| *it == state).map(|(port, _)| *port);
            ports.collect::<Vec<u16>>()
        };
        let host = |address: IpAddr| {
            Host::new(address)
                .rtt(Duration::from_millis(1))
                .ports(&open(State::Open), Port::Open)
                .ports(&open(State::Unreachable), Port::Unreachable(Unreachable::Host))
        };
        let hosts = vec![host(HOST_ADDRESS.into()), host(HOST_ADDRESS_6.into())];
        let lab = Lab::enter()?.start(hosts)?;
        // For a name that begins with `t`, the answer does not fit into a datagram.
        let names = NameServer::start(NAME_SERVER, |query| {
            if query.name.starts_with("known") {
                return Reply::Code(3);
            }
            let is_long = query.name.starts_with('t') && !query.is_tcp;
            if is_long { Reply::Truncated } else { query.answer(HOST_ADDRESS) }
        });
        let (listeners, ports) = listeners(2);
        for listener in listeners {
            // Connections are accepted, or the queue of the listener would fill and the port would
            // not answer.
            std::thread::spawn(move || listener.incoming().for_each(drop));
        }
        let closed: Vec<ClosedPort> = (0..2).map(|_| ClosedPort::new()).collect();
        let local = ports.iter().map(|port| (*port, State::Open));
        let local = local.chain(closed.iter().map(|closed| (closed.port, State::Closed))).collect();
        let folder = Folder::short("faults");
        let conf = format!("nameserver {NAME_SERVER}\noptions timeout:1 attempts:5\n");
        folder.write("resolv.conf", &conf);
        folder.write("hosts", "10.99.1.1 known.example\n");
        folder.write("token", &format!("{TOKEN}\n"));
        restrict(&folder.path("token"));
        Ok(Self {
            _lab: lab,
            _names: names,
            _closed: closed,
            folder,
            local,
            serial: Arc::default(),
        })
    }

    /// The arguments of a service in this environment.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let arguments =
            ["--listen", "127.0.0.1:0", "--allow", "127.0.0.0/8", "--drain-timeout", "5s"];
        let mut arguments: Vec<String> = arguments.map(str::to_owned).into();
        for file in ["resolv-conf", "hosts"] {
            arguments.push(format!("--{file}"));
            arguments.push(self.folder.path(&file.replace('-', ".")));
        }
        arguments
    }

    /// The arguments of a service that also listens on a Unix socket and requires a token.
    pub(crate) fn arguments_for_all(&self) -> Vec<String> {
        let socket = format!("unix:{}", self.folder.path("socket"));
        let more = ["--listen".to_owned(), socket, "--token-file".to_owned()];
        self.arguments().into_iter().chain(more).chain([self.folder.path("token")]).collect()
    }

    /// Starts a supervised service and waits until its log shows its address.
    pub(crate) fn start(
        &self,
        more: &[&str],
    ) -> Result<SupervisedService, Box<dyn std::error::Error>> {
        let mut arguments = self.arguments();
        arguments.extend(more.iter().map(|argument| (*argument).to_owned()));
        let mut command = command(None, &arguments.iter().map(String::as_str).collect::<Vec<_>>());
        command.stderr(Stdio::piped());
        let (child, supervisor) = Supervisor::spawn(&mut command, Plan::default())?;
        Self::await_announcement(child, supervisor)
    }

    /// Waits until the log of a started service shows its address.
    pub(crate) fn await_announcement(
        mut child: Child,
        supervisor: Supervisor,
    ) -> Result<SupervisedService, Box<dyn std::error::Error>> {
        let mut reader = BufReader::new(child.stderr.take().expect("stderr is piped"));
        let log = Arc::new(Mutex::new(Vec::new()));
        let mut address = None;
        loop {
            let mut line = String::new();
            assert!(reader.read_line(&mut line)? > 0, "the service ended early: {:?}", log.lock());
            let is_last = line.contains("curl ");
            if let Some((_, at)) = line.trim_end().split_once("msg=listening address=") {
                address = address.or_else(|| at.parse().ok());
            }
            log.lock().expect("no thread panics while it holds the lock").push(line);
            if is_last {
                break;
            }
        }
        let lines = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in reader.split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line).into_owned();
                lines.lock().expect("no thread panics").push(line);
            }
        });
        let address = address.ok_or("the log shows no address")?;
        let mut service =
            SupervisedService { child, supervisor, address, idle_descriptors: 0, log };
        // The smallest of a few counts leaves out a file that the service reads at this moment.
        let counts = (0..5).map(|_| {
            std::thread::sleep(Duration::from_millis(2));
            service.descriptors()
        });
        let least = counts.min().unwrap_or_default();
        service.idle_descriptors = least - service.supervisor.seen().leaked;
        Ok(service)
    }

    /// All requests of a round.
    pub(crate) fn requests(&self) -> Vec<Request> {
        let mut serial = self.serial.lock().expect("no thread panics while it holds the lock");
        *serial += 1;
        let serial = *serial;
        vec![
            Request { target: "/healthz".to_owned(), truth: BTreeMap::new() },
            scan("127.0.0.1", &self.local),
            scan(&HOST_ADDRESS.to_string(), REMOTE),
            scan(&format!("n{serial}.example"), REMOTE),
            scan(&format!("t{serial}.example"), REMOTE),
            scan("known.example", REMOTE),
        ]
    }

    /// A scan over IPv6.
    pub(crate) fn request_over_ipv6() -> Request {
        scan(&HOST_ADDRESS_6.to_string(), REMOTE)
    }
}

fn scan(domain: &str, ports: &[(u16, State)]) -> Request {
    let list: Vec<String> = ports.iter().map(|(port, _)| port.to_string()).collect();
    let target = format!("/open-ports?domain={domain}&ports={}&{TIMEOUT}", list.join(","));
    Request { target, truth: ports.iter().copied().collect() }
}

fn restrict(path: &str) {
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(path, mode).expect("this test owns the folder");
}

/// A request, and the true states of its ports.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) target: String,
    truth: BTreeMap<u16, State>,
}

/// The result of a request.
#[derive(Debug)]
pub(crate) enum Response {
    /// The answer is complete.
    Complete(u16, String),
    /// The connection ended before the answer was complete.
    Broken(String),
    /// No answer came within `EVENT_TIMEOUT`.
    Silence,
}

/// The deviations from the truth that an answer may have.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Permit {
    /// Connections of clients may break, because their own calls fail.
    pub(crate) broken: bool,
    /// A port may have this state, because the errno describes the target.
    pub(crate) state: Option<State>,
    /// Lookups may fail, and ports may be untested.
    pub(crate) failure: bool,
}

impl Request {
    /// Judges an answer; the error describes the deviation.
    pub(crate) fn judge(&self, response: &Response, permit: Permit) -> Result<(), String> {
        let (status, body) = match response {
            Response::Complete(status, body) => (*status, body),
            Response::Broken(_) if permit.broken => return Ok(()),
            Response::Broken(how) => {
                return Err(format!("the connection of {} broke: {how}", self.target));
            }
            Response::Silence => return Err(format!("no answer to {}", self.target)),
        };
        let wrong = |what: &str| Err(format!("{what} to {}: {status} {body}", self.target));
        match status {
            200 if self.truth.is_empty() => Ok(()),
            200 => self.judge_scan(body, permit).or_else(|what| wrong(&what)),
            502..=504 if permit.failure && body.contains("\"cause\":") => Ok(()),
            _ => wrong("a wrong answer"),
        }
    }

    fn judge_scan(&self, body: &str, permit: Permit) -> Result<(), String> {
        let json: Value = serde_json::from_str(body).map_err(|error| error.to_string())?;
        let mut reported = BTreeMap::new();
        for port in json["open_ports"].as_array().ok_or("open_ports is not a list")? {
            reported.insert(port.as_u64().ok_or("an open port is not a number")?, State::Open);
        }
        for (key, state) in [
            ("closed_ports", State::Closed),
            ("filtered_ports", State::Filtered),
            ("unreachable_ports", State::Unreachable),
        ] {
            for port in expand(json[key].as_str().ok_or("the ranges are not a string")?) {
                if reported.insert(port, state).is_some() {
                    return Err(format!("port {port} is listed twice"));
                }
            }
        }
        let untested =
            json["counts"]["untested"].as_u64().ok_or("there is no count of untested ports")?;
        if reported.len() as u64 + untested != self.truth.len() as u64 {
            return Err(
                "the number of reported ports is not the number of requested ports".to_owned()
            );
        }
        if json["complete"] != Value::Bool(untested == 0) {
            return Err("`complete` contradicts the count of untested ports".to_owned());
        }
        for (port, truth) in &self.truth {
            let state = reported.get(&u64::from(*port)).copied().unwrap_or(State::Untested);
            let is_permitted = Some(state) == permit.state;
            let is_failure = permit.failure && state == State::Untested;
            if state != *truth && !is_permitted && !is_failure {
                return Err(format!("port {port} is {truth:?}, but reported as {state:?}"));
            }
        }
        Ok(())
    }
}

/// Expands ranges such as `"1-3,7"`.
fn expand(ranges: &str) -> Vec<u64> {
    let parts = ranges.split(',').filter(|part| !part.is_empty());
    let ends = parts.map(|part| part.split_once('-').unwrap_or((part, part)));
    ends.flat_map(|(first, last)| {
        first.parse().expect("the text is a number")
            ..=last.parse::<u64>().expect("the text is a number")
    })
    .collect()
}

/// A request that was sent.
#[derive(Debug)]
pub(crate) struct PendingRequest {
    stream: Result<TcpStream, std::io::Error>,
}

impl PendingRequest {
    pub(crate) fn new(at: SocketAddr, request: &Request) -> Self {
        Self { stream: Self::send(at, request) }
    }

    fn send(at: SocketAddr, request: &Request) -> std::io::Result<TcpStream> {
        let mut stream = TcpStream::connect(at)?;
        stream.set_read_timeout(Some(EVENT_TIMEOUT))?;
        write!(
            stream,
            "GET {} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n\
             Connection: close\r\n\r\n",
            request.target
        )?;
        Ok(stream)
    }

    /// Waits for the answer.
    pub(crate) fn response(self) -> Response {
        let mut stream = match self.stream {
            Ok(stream) => stream,
            Err(error) => return Response::Broken(error.to_string()),
        };
        let mut bytes = Vec::new();
        loop {
            if let Some((status, body)) = parse_response(&bytes) {
                return Response::Complete(status, body);
            }
            let mut more = [0; 4096];
            match stream.read(&mut more) {
                Ok(0) => {
                    return Response::Broken(format!(
                        "the connection ended after {} bytes",
                        bytes.len()
                    ));
                }
                Ok(count) => bytes.extend_from_slice(&more[..count]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Response::Silence,
                Err(error) => return Response::Broken(error.to_string()),
            }
        }
    }
}

/// The status and the body, once both are complete.
fn parse_response(bytes: &[u8]) -> Option<(u16, String)> {
    let text = std::str::from_utf8(bytes).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "))?;
    (body.len() == length.parse::<usize>().ok()?).then(|| (status, body.to_owned()))
}

/// A supervised service. Dropping the handle kills the process.
pub(crate) struct SupervisedService {
    pub(crate) child: Child,
    pub(crate) supervisor: Supervisor,
    pub(crate) address: SocketAddr,
    /// The number of open descriptors while the service is idle.
    pub(crate) idle_descriptors: usize,
    log: Arc<Mutex<Vec<String>>>,
}

impl SupervisedService {
    pub(crate) fn descriptors(&self) -> usize {
        let path = format!("/proc/{}/fd", self.child.id());
        std::fs::read_dir(path).map_or(0, Iterator::count)
    }

    /// The CPU time that the process has used, in the resolution of proc_pid_stat(5): hundredths of
    /// a second.
    pub(crate) fn processor_time(&self) -> Duration {
        let path = format!("/proc/{}/stat", self.child.id());
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let fields = text.rsplit_once(')').map_or("", |(_, fields)| fields).split_whitespace();
        let ticks = fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok());
        Duration::from_millis(10 * ticks.sum::<u64>())
    }

    pub(crate) fn log_lines(&self) -> Vec<String> {
        self.log.lock().expect("no thread panics while it holds the lock").clone()
    }

    /// The last three lines of the log.
    pub(crate) fn log_tail(&self) -> String {
        let log = self.log_lines();
        let tail = log[log.len().saturating_sub(3)..].iter();
        tail.map(|line| format!("    {}\n", line.trim_end())).collect()
    }

    /// Sends all requests at once.
    pub(crate) fn send_all(&self, requests: &[Request]) -> Vec<PendingRequest> {
        requests.iter().map(|request| PendingRequest::new(self.address, request)).collect()
    }

    /// Waits until a health check is answered, and returns the time until then.
    pub(crate) fn recovery(&self) -> Duration {
        let began = Instant::now();
        let request = Request { target: "/healthz".to_owned(), truth: BTreeMap::new() };
        until("a health check is answered", || {
            let response = PendingRequest::new(self.address, &request).response();
            request.judge(&response, Permit::default()).ok()
        });
        began.elapsed()
    }

    /// Waits for the end of the process and returns its exit status.
    pub(crate) fn wait(&mut self) -> std::process::ExitStatus {
        until("the process ends", || self.child.try_wait().expect("the child can be waited for"))
    }

    /// Whether the process is still running.
    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("the child can be waited for").is_none()
    }

    pub(crate) fn set_rule(&self, rule: Rule) {
        self.supervisor.set_rules(vec![rule]);
    }
}

impl Drop for SupervisedService {
    fn drop(&mut self) {
        self.supervisor.release(&[]);
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
