//! The well-behaved clients, which send requests during the whole attack and read all responses.
//!
//! There are three clients, each in its own thread: one opens a new connection for each health
//! check, one keeps its connection, and one scans two ports of loopback.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::web::{Connection, Response, request_once};

/// The pause between two health checks of one client.
const PAUSE: Duration = Duration::from_millis(5);
/// The pause between two scans, so that the client stays below its maximum of 16 scans.
const SCAN_PAUSE: Duration = Duration::from_millis(25);
/// The maximum time of a request. A request that takes longer counts as lost.
const LIMIT: Duration = Duration::from_secs(10);
/// The source address of the clients. The attackers have other addresses.
const SOURCE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

#[derive(Clone, Debug, Default)]
pub(crate) struct Measured {
    /// The milliseconds of each request with a response of status 200.
    pub(crate) millis: Vec<f64>,
    /// The number of responses with another status, by status.
    pub(crate) others: BTreeMap<u16, u64>,
    /// Requests without a response, and wrong responses.
    pub(crate) lost: Vec<String>,
    /// The number of times that the kept connection was closed, and a new one was needed.
    pub(crate) reopened: u64,
}

#[derive(Clone, Debug)]
pub(crate) struct Report {
    pub(crate) fresh: Measured,
    pub(crate) kept: Measured,
    pub(crate) scans: Measured,
}

#[derive(Debug)]
pub(crate) struct Clients {
    must_stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Measured>>,
}

impl Clients {
    pub(crate) fn start(service: SocketAddr) -> io::Result<Self> {
        let must_stop = Arc::new(AtomicBool::new(false));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let clients: [Client; 3] = [fresh, kept, scans];
        let targets = Targets { service, open: listener.local_addr()?.port() };
        let mut threads = Vec::new();
        for client in clients {
            let is_over = Arc::clone(&must_stop);
            threads.push(std::thread::spawn(move || client(targets, &is_over)));
        }
        // Accepts the connections of the scans, because a full backlog drops SYNs.
        std::thread::spawn(move || listener.incoming().for_each(drop));
        Ok(Self { must_stop, threads })
    }

    /// Stops the clients after their current requests.
    pub(crate) fn stop(self) -> Result<Report, String> {
        self.must_stop.store(true, Ordering::Relaxed);
        let mut measured = Vec::new();
        for thread in self.threads {
            measured.push(thread.join().map_err(|_| "a well-behaved client panicked")?);
        }
        let mut measured = measured.into_iter();
        let mut next = || measured.next().ok_or("a client is missing");
        Ok(Report { fresh: next()?, kept: next()?, scans: next()? })
    }
}

/// What the clients connect to and scan.
#[derive(Clone, Copy, Debug)]
struct Targets {
    service: SocketAddr,
    /// An open port of loopback.
    open: u16,
}

type Client = fn(Targets, &AtomicBool) -> Measured;

impl Measured {
    fn add(&mut self, begun: Instant, result: io::Result<Response>) {
        match result {
            Ok(response) if response.status == 200 => {
                self.millis.push(begun.elapsed().as_secs_f64() * 1e3);
            }
            Ok(response) => *self.others.entry(response.status).or_default() += 1,
            Err(error) => {
                let millis = begun.elapsed().as_millis();
                self.lost.push(format!("{error} after {millis} ms"));
            }
        }
    }
}

fn fresh(targets: Targets, is_over: &AtomicBool) -> Measured {
    let mut measured = Measured::default();
    while !is_over.load(Ordering::Relaxed) {
        let begun = Instant::now();
        let result = request_once(targets.service, Some(SOURCE), "/healthz", LIMIT, "");
        measured.add(begun, result.map(|(response, _)| response));
        std::thread::sleep(PAUSE);
    }
    measured
}

fn kept(targets: Targets, is_over: &AtomicBool) -> Measured {
    let mut measured = Measured::default();
    let mut connection: Option<Connection> = None;
    while !is_over.load(Ordering::Relaxed) {
        let begun = Instant::now();
        let mut result = match &mut connection {
            Some(connection) => connection.get("/healthz", ""),
            None => Err(io::ErrorKind::NotConnected.into()),
        };
        if result.is_err() {
            // A client may repeat a request on a new connection if its idle one was closed (RFC
            // 9110 section 9.2.2). The time counts from the first attempt.
            measured.reopened += u64::from(connection.is_some());
            result = Connection::open(targets.service, Some(SOURCE), LIMIT).and_then(|mut open| {
                let response = open.get("/healthz", "");
                connection = Some(open);
                response
            });
        }
        if result.is_err() {
            connection = None;
        }
        measured.add(begun, result);
        std::thread::sleep(PAUSE);
    }
    measured
}

fn scans(targets: Targets, is_over: &AtomicBool) -> Measured {
    let mut measured = Measured::default();
    let open = targets.open;
    let target = format!("/open-ports?domain=127.0.0.1&ports=1,{open}");
    let expected = format!("\"open_ports\":[{open}]");
    while !is_over.load(Ordering::Relaxed) {
        let begun = Instant::now();
        let result = request_once(targets.service, Some(SOURCE), &target, LIMIT, "");
        if let Ok((response, _)) = &result
            && response.status == 200
            && !response.body.contains(&expected)
        {
            measured.lost.push(format!("wrong: {}", response.body));
        }
        measured.add(begun, result.map(|(response, _)| response));
        std::thread::sleep(SCAN_PAUSE);
    }
    measured
}
