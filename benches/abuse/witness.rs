//! The well-behaved clients, who ask the whole time and read what they are told.
//!
//! Three of them, each its own thread: one opens a connection for each health check, one keeps
//! its connection, one has two ports of loopback scanned.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::web::{Answer, Link, ask};

/// Between two requests of one client.
const PAUSE: Duration = Duration::from_millis(5);
/// Between two scans: each holds one of the 16 that a client may have.
const SCAN_PAUSE: Duration = Duration::from_millis(25);
/// A request that takes longer is lost.
const LIMIT: Duration = Duration::from_secs(10);
/// Where they come from; the attackers come from elsewhere, except where the row says so.
const SOURCE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// What one client met.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// Milliseconds of each request that was answered with 200.
    pub(crate) millis: Vec<f64>,
    /// Answers other than 200, by status.
    pub(crate) others: BTreeMap<u16, u64>,
    /// Requests without an answer, and answers that are wrong.
    pub(crate) lost: Vec<String>,
    /// Times that a kept connection was found closed, and the request went over a new one.
    pub(crate) reopened: u64,
}

/// What all of them met.
#[derive(Clone, Debug)]
pub(crate) struct Report {
    pub(crate) fresh: Seen,
    pub(crate) kept: Seen,
    pub(crate) scans: Seen,
}

/// The clients at work.
#[derive(Debug)]
pub(crate) struct Witness {
    must_stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Seen>>,
}

impl Witness {
    /// Begins to ask.
    pub(crate) fn start(to: SocketAddr) -> io::Result<Self> {
        let must_stop = Arc::new(AtomicBool::new(false));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let clients: [Client; 3] = [fresh, kept, scans];
        let open = listener.local_addr()?.port();
        let mut threads = Vec::new();
        for client in clients {
            let is_over = Arc::clone(&must_stop);
            threads.push(std::thread::spawn(move || client((to, open), &is_over)));
        }
        // Each scan leaves a connection in the queue, and a full queue drops SYNs.
        std::thread::spawn(move || listener.incoming().for_each(drop));
        Ok(Self { must_stop, threads })
    }

    /// Has them finish what they have begun.
    pub(crate) fn stop(self) -> Result<Report, String> {
        self.must_stop.store(true, Ordering::Relaxed);
        let mut seen = Vec::new();
        for thread in self.threads {
            seen.push(thread.join().map_err(|_| "a well-behaved client panicked")?);
        }
        let mut seen = seen.into_iter();
        let mut next = || seen.next().ok_or("a client is missing");
        Ok(Report { fresh: next()?, kept: next()?, scans: next()? })
    }
}

/// Where the service is, and a port of loopback that is open.
type Place = (SocketAddr, u16);
type Client = fn(Place, &AtomicBool) -> Seen;

impl Seen {
    fn take(&mut self, begun: Instant, answered: io::Result<Answer>) {
        match answered {
            Ok(answer) if answer.status == 200 => {
                self.millis.push(begun.elapsed().as_secs_f64() * 1e3);
            }
            Ok(answer) => *self.others.entry(answer.status).or_default() += 1,
            Err(error) => {
                let millis = begun.elapsed().as_millis();
                self.lost.push(format!("{error} after {millis} ms"));
            }
        }
    }
}

fn fresh((to, _): Place, is_over: &AtomicBool) -> Seen {
    let mut seen = Seen::default();
    while !is_over.load(Ordering::Relaxed) {
        let begun = Instant::now();
        let answered = ask(to, Some(SOURCE), "/healthz", ("", LIMIT));
        seen.take(begun, answered.map(|(answer, _)| answer));
        std::thread::sleep(PAUSE);
    }
    seen
}

fn kept((to, _): Place, is_over: &AtomicBool) -> Seen {
    let mut seen = Seen::default();
    let mut link: Option<Link> = None;
    while !is_over.load(Ordering::Relaxed) {
        let begun = Instant::now();
        let mut answered = match &mut link {
            Some(link) => link.get("/healthz", ""),
            None => Err(io::ErrorKind::NotConnected.into()),
        };
        if answered.is_err() {
            // A client whose idle connection was closed asks again on a new one (RFC 9110
            // section 9.2.2); the time counts from the first attempt.
            seen.reopened += u64::from(link.is_some());
            answered = Link::open(to, Some(SOURCE), LIMIT).and_then(|mut open| {
                let answer = open.get("/healthz", "");
                link = Some(open);
                answer
            });
        }
        if answered.is_err() {
            link = None;
        }
        seen.take(begun, answered);
        std::thread::sleep(PAUSE);
    }
    seen
}

fn scans((to, open): Place, is_over: &AtomicBool) -> Seen {
    let mut seen = Seen::default();
    let target = format!("/open-ports?domain=127.0.0.1&ports=1,{open}");
    let expected = format!("\"open_ports\":[{open}]");
    while !is_over.load(Ordering::Relaxed) {
        let begun = Instant::now();
        let answered = ask(to, Some(SOURCE), &target, ("", LIMIT));
        if let Ok((answer, _)) = &answered
            && answer.status == 200
            && !answer.body.contains(&expected)
        {
            seen.lost.push(format!("wrong: {}", answer.body));
        }
        seen.take(begun, answered.map(|(answer, _)| answer));
        std::thread::sleep(SCAN_PAUSE);
    }
    seen
}
