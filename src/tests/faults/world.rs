//! What the process under test lives in, and what is asked of it: the oracle.
//!
//! A network of the lab's with one host of which every port is known, ports of 127.0.0.1, and a
//! name server that leads every name to that host. A round asks for everything that the service
//! does; each port it tells of must be in the state that the world gave it, whatever failed
//! meanwhile, or be counted as untested.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::lab::{HOST_ADDRESS, Host, Lab, Port, Unreachable};
use crate::nameserver::{NameServer, Reply};
use crate::network::{ClosedPort, listeners};
use crate::process::{Folder, PATIENCE, command, until};
use crate::supervisor::{Plan, Rule, Supervisor};

/// The far host's ports: open, closed, and one that a router calls unreachable.
const FAR: &[(u16, State)] = &[
    (22, State::Open),
    (80, State::Open),
    (21, State::Closed),
    (23, State::Closed),
    (9, State::Unreachable),
];
/// Not the one that is asked where there is no resolv.conf.
const NAME_SERVER: &str = "127.0.0.53";
const TOKEN: &str = "a-token-of-the-tests";
/// Longer than the fault lasts and a busy machine sleeps: no answer is late.
const TIMEOUT: &str = "timeout=8s&deadline=40s&retries=0&include=closed,filtered,unreachable";

/// A port's state, as an answer tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum State {
    Open,
    Closed,
    Filtered,
    Unreachable,
    Untested,
}

/// The world of one case's process.
pub(crate) struct World {
    _lab: Lab,
    _names: NameServer,
    _closed: Vec<ClosedPort>,
    pub(crate) folder: Folder,
    near: Vec<(u16, State)>,
    serial: Arc<Mutex<u64>>,
}

impl World {
    /// Takes this process, which must have one thread, to a network of its own.
    pub(crate) fn enter() -> Result<Self, Box<dyn std::error::Error>> {
        let open = |state| {
            let ports = FAR.iter().filter(|(_, it)| *it == state).map(|(port, _)| *port);
            ports.collect::<Vec<u16>>()
        };
        let host = Host::new(HOST_ADDRESS)
            .rtt(Duration::from_millis(1))
            .ports(&open(State::Open), Port::Open)
            .ports(&open(State::Unreachable), Port::Unreachable(Unreachable::Host));
        let lab = Lab::enter()?.start(vec![host])?;
        // A name that begins with a t has an answer too long for a datagram.
        let names = NameServer::start(NAME_SERVER, |query| {
            if query.name.starts_with("known") {
                return Reply::Code(3);
            }
            let is_long = query.name.starts_with('t') && !query.is_tcp;
            if is_long { Reply::Truncated } else { query.told(HOST_ADDRESS) }
        });
        let (listeners, ports) = listeners(2);
        for listener in listeners {
            // Or its queue is full one day, and the port silent.
            std::thread::spawn(move || listener.incoming().for_each(drop));
        }
        let closed: Vec<ClosedPort> = (0..2).map(|_| ClosedPort::new()).collect();
        let near = ports.iter().map(|port| (*port, State::Open));
        let near = near.chain(closed.iter().map(|closed| (closed.port, State::Closed))).collect();
        let folder = Folder::short("faults");
        let conf = format!("nameserver {NAME_SERVER}\noptions timeout:1 attempts:5\n");
        folder.write("resolv.conf", &conf);
        folder.write("hosts", "10.99.1.1 known.example\n");
        folder.write("token", &format!("{TOKEN}\n"));
        restrict(&folder.path("token"));
        Ok(Self { _lab: lab, _names: names, _closed: closed, folder, near, serial: Arc::default() })
    }

    /// The arguments of a service that lives here.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let words = ["--listen", "127.0.0.1:0", "--allow", "127.0.0.0/8", "--drain-timeout", "5s"];
        let mut words: Vec<String> = words.map(str::to_owned).into();
        for file in ["resolv-conf", "hosts"] {
            words.push(format!("--{file}"));
            words.push(self.folder.path(&file.replace('-', ".")));
        }
        words
    }

    /// The arguments for one that listens on a Unix socket, too, and wants a token.
    pub(crate) fn arguments_for_all(&self) -> Vec<String> {
        let socket = format!("unix:{}", self.folder.path("socket"));
        let more = ["--listen".to_owned(), socket, "--token-file".to_owned()];
        self.arguments().into_iter().chain(more).chain([self.folder.path("token")]).collect()
    }

    /// A service under watch that has told where it listens.
    pub(crate) fn start(&self, more: &[&str]) -> Result<Watched, Box<dyn std::error::Error>> {
        let mut words = self.arguments();
        words.extend(more.iter().map(|word| (*word).to_owned()));
        let mut command = command(None, &words.iter().map(String::as_str).collect::<Vec<_>>());
        command.stderr(Stdio::piped());
        let (child, supervisor) = Supervisor::spawn(&mut command, Plan::default())?;
        Self::await_announcement(child, supervisor)
    }

    /// Waits until a service that was started has told where it listens.
    pub(crate) fn await_announcement(
        mut child: Child,
        supervisor: Supervisor,
    ) -> Result<Watched, Box<dyn std::error::Error>> {
        let mut reader = BufReader::new(child.stderr.take().expect("it is piped"));
        let log = Arc::new(Mutex::new(Vec::new()));
        let mut address = None;
        loop {
            let mut line = String::new();
            assert!(reader.read_line(&mut line)? > 0, "it ended early: {:?}", log.lock());
            let is_last = line.contains("curl ");
            if let Some((_, at)) = line.trim_end().split_once("msg=listening address=") {
                address = address.or_else(|| at.parse().ok());
            }
            log.lock().expect("no panic").push(line);
            if is_last {
                break;
            }
        }
        let lines = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in reader.split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line).into_owned();
                lines.lock().expect("no panic").push(line);
            }
        });
        let address = address.ok_or("it tells no address")?;
        Ok(Watched { child, supervisor, address, log })
    }

    /// Everything that is asked in a round.
    pub(crate) fn questions(&self) -> Vec<Question> {
        let mut serial = self.serial.lock().expect("no panic");
        *serial += 1;
        let serial = *serial;
        let scan = |domain: String, ports: &[(u16, State)]| {
            let list: Vec<String> = ports.iter().map(|(port, _)| port.to_string()).collect();
            let target = format!("/open-ports?domain={domain}&ports={}&{TIMEOUT}", list.join(","));
            Question { target, truth: ports.iter().copied().collect() }
        };
        vec![
            Question { target: "/healthz".to_owned(), truth: BTreeMap::new() },
            scan("127.0.0.1".to_owned(), &self.near),
            scan(HOST_ADDRESS.to_string(), FAR),
            scan(format!("n{serial}.example"), FAR),
            scan(format!("t{serial}.example"), FAR),
            scan("known.example".to_owned(), FAR),
        ]
    }
}

fn restrict(path: &str) {
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(path, mode).expect("the folder is ours");
}

/// A request, and what is true of its ports.
#[derive(Clone, Debug)]
pub(crate) struct Question {
    pub(crate) target: String,
    truth: BTreeMap<u16, State>,
}

/// What a request came to.
#[derive(Debug)]
pub(crate) enum Told {
    /// A whole answer.
    Answer(u16, String),
    /// The connection ended first.
    Broken(String),
    /// Nothing came within our patience.
    Silence,
}

/// What may be told beside the truth.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Permit {
    /// Connections of clients may break: their very calls are told so.
    pub(crate) broken: bool,
    /// A port may be in this state: it is what the errno says of the target.
    pub(crate) state: Option<State>,
    /// Lookups may fail, and ports be untested.
    pub(crate) failure: bool,
}

impl Question {
    /// Judges what was told; the error says what is wrong with it.
    pub(crate) fn judge(&self, told: &Told, permit: Permit) -> Result<(), String> {
        let (status, body) = match told {
            Told::Answer(status, body) => (*status, body),
            Told::Broken(_) if permit.broken => return Ok(()),
            Told::Broken(how) => return Err(format!("lost {}: {how}", self.target)),
            Told::Silence => return Err(format!("no answer to {}", self.target)),
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
        let mut told = BTreeMap::new();
        for port in json["open_ports"].as_array().ok_or("no list")? {
            told.insert(port.as_u64().ok_or("no port")?, State::Open);
        }
        for (key, state) in [
            ("closed_ports", State::Closed),
            ("filtered_ports", State::Filtered),
            ("unreachable_ports", State::Unreachable),
        ] {
            for port in spelled(json[key].as_str().ok_or("no ranges")?) {
                if told.insert(port, state).is_some() {
                    return Err(format!("{port} twice"));
                }
            }
        }
        let untested = json["counts"]["untested"].as_u64().ok_or("no count")?;
        if told.len() as u64 + untested != self.truth.len() as u64 {
            return Err("counts that do not add up".to_owned());
        }
        if json["complete"] != Value::Bool(untested == 0) {
            return Err("complete where it is not, or the reverse".to_owned());
        }
        for (port, truth) in &self.truth {
            let state = told.get(&u64::from(*port)).copied().unwrap_or(State::Untested);
            let is_permitted = Some(state) == permit.state;
            let is_failure = permit.failure && state == State::Untested;
            if state != *truth && !is_permitted && !is_failure {
                return Err(format!("port {port} is {truth:?} and told as {state:?}"));
            }
        }
        Ok(())
    }
}

/// The ports of `"1-3,7"`.
fn spelled(ranges: &str) -> Vec<u64> {
    let parts = ranges.split(',').filter(|part| !part.is_empty());
    let ends = parts.map(|part| part.split_once('-').unwrap_or((part, part)));
    ends.flat_map(|(first, last)| {
        first.parse().expect("a number")..=last.parse::<u64>().expect("a number")
    })
    .collect()
}

/// A request under way.
#[derive(Debug)]
pub(crate) struct Asked {
    stream: Result<TcpStream, std::io::Error>,
}

impl Asked {
    pub(crate) fn new(at: SocketAddr, question: &Question) -> Self {
        Self { stream: Self::send(at, question) }
    }

    fn send(at: SocketAddr, question: &Question) -> std::io::Result<TcpStream> {
        let mut stream = TcpStream::connect(at)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        write!(
            stream,
            "GET {} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n\
             Connection: close\r\n\r\n",
            question.target
        )?;
        Ok(stream)
    }

    /// Waits for the answer.
    pub(crate) fn told(self) -> Told {
        let mut stream = match self.stream {
            Ok(stream) => stream,
            Err(error) => return Told::Broken(error.to_string()),
        };
        let mut bytes = Vec::new();
        loop {
            if let Some((status, body)) = whole(&bytes) {
                return Told::Answer(status, body);
            }
            let mut more = [0; 4096];
            match stream.read(&mut more) {
                Ok(0) => return Told::Broken(format!("the end after {} bytes", bytes.len())),
                Ok(count) => bytes.extend_from_slice(&more[..count]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Told::Silence,
                Err(error) => return Told::Broken(error.to_string()),
            }
        }
    }
}

/// Status and body, once all of both is there.
fn whole(bytes: &[u8]) -> Option<(u16, String)> {
    let text = std::str::from_utf8(bytes).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "))?;
    (body.len() == length.parse::<usize>().ok()?).then(|| (status, body.to_owned()))
}

/// A service under watch. It is killed with its handle.
pub(crate) struct Watched {
    pub(crate) child: Child,
    pub(crate) supervisor: Supervisor,
    pub(crate) address: SocketAddr,
    log: Arc<Mutex<Vec<String>>>,
}

impl Watched {
    pub(crate) fn descriptors(&self) -> usize {
        let path = format!("/proc/{}/fd", self.child.id());
        std::fs::read_dir(path).map_or(0, Iterator::count)
    }

    /// What it has used of the processor, as far as that is told (proc_pid_stat(5): hundredths of
    /// a second).
    pub(crate) fn processor_time(&self) -> Duration {
        let path = format!("/proc/{}/stat", self.child.id());
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let fields = text.rsplit_once(')').map_or("", |(_, fields)| fields).split_whitespace();
        let ticks = fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok());
        Duration::from_millis(10 * ticks.sum::<u64>())
    }

    pub(crate) fn log_lines(&self) -> Vec<String> {
        self.log.lock().expect("no panic").clone()
    }

    /// The last lines of its log.
    pub(crate) fn log_tail(&self) -> String {
        let log = self.log_lines();
        let tail = log[log.len().saturating_sub(3)..].iter();
        tail.map(|line| format!("    {}\n", line.trim_end())).collect()
    }

    /// Asks everything at once.
    pub(crate) fn ask(&self, questions: &[Question]) -> Vec<Asked> {
        questions.iter().map(|question| Asked::new(self.address, question)).collect()
    }

    /// Waits until it answers a health check, and says how long that took.
    pub(crate) fn recovery(&self) -> Duration {
        let began = Instant::now();
        let question = Question { target: "/healthz".to_owned(), truth: BTreeMap::new() };
        until("a health check is answered", || {
            let told = Asked::new(self.address, &question).told();
            question.judge(&told, Permit::default()).ok()
        });
        began.elapsed()
    }

    /// The code with which it ended, once it has.
    pub(crate) fn wait(&mut self) -> std::process::ExitStatus {
        until("the end of the process", || self.child.try_wait().expect("it is our child"))
    }

    /// True exactly when it has not ended.
    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("it is our child").is_none()
    }

    pub(crate) fn begin(&self, rule: Rule) {
        self.supervisor.begin(vec![rule]);
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.supervisor.release(&[]);
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
