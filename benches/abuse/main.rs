//! Attacks a real service while well-behaved clients use it, and measures their waiting time, the
//! memory and the descriptors of the service, and its recovery.
//!
//! Everything runs in its own network namespace, and each attack has a new service. After the
//! attack the attackers close their connections, and the service must release their descriptors.
//! Then they attack again, and SIGTERM ends the service meanwhile.
#![expect(clippy::print_stdout, reason = "a command line program reports on stdout")]

mod attackers;
mod attacks;
mod bounds;
mod clients;
#[path = "../lab/mod.rs"]
mod lab;
mod service;
mod web;

use std::collections::BTreeSet;
use std::error::Error;
use std::io;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use lexopt::{Arg, ValueExt};

use attackers::{Attackers, Tally};
use attacks::{Attack, attacks};
use clients::{Clients, Measured, Report};
use lab::{Host, Lab, Port};
use service::Service;
use web::{Connection, percentile};

const HELP: &str = "\
Attacks the service while well-behaved clients use it, and measures how long they wait.

    cargo bench --bench abuse -- [OPTION…]

    --seconds N      duration of each attack [5]
    --attack NAME    only this attack; may be repeated [all]
    --short          only the attacks of the short form
    --jobs N         attacks at once; with more than 1, the times are not valid [1]
    --list           prints the names of the attacks";

/// A host that does not answer.
const SILENT: Ipv4Addr = Ipv4Addr::new(10, 99, 1, 3);
/// A host with only open ports.
const OPEN: Ipv4Addr = Ipv4Addr::new(10, 99, 1, 7);
/// The address of a name server that never answers.
const SILENT_SERVER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 98);
/// The maximum time until all descriptors are released: the longest deadline of a client.
const RETURN_LIMIT: Duration = Duration::from_secs(30);
/// The maximum time of a shutdown: its timeout, slow readers, and a busy machine.
const EXIT_LIMIT: Duration = Duration::from_secs(30);
const DRAIN: &str = "3s";

struct Plan {
    attacks: Vec<Attack>,
    length: Duration,
    jobs: usize,
    folder: PathBuf,
}

struct Row {
    attack: Attack,
    report: Report,
    tally: Tally,
    peak_kb: u64,
    bound_kb: u64,
    descriptors_max: usize,
    /// The time until the descriptors were released; `None` if they were not.
    recovery: Option<Duration>,
    exit: Option<Duration>,
    faults: Vec<String>,
}

fn main() -> ExitCode {
    match parse().and_then(|plan| plan.map_or(Ok(()), |plan| run(&plan))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("abuse: {error}");
            ExitCode::FAILURE
        }
    }
}

fn parse() -> Result<Option<Plan>, Box<dyn Error>> {
    // `cargo bench` appends the flag.
    let words = std::env::args().skip(1).filter(|word| word != "--bench");
    let (mut names, mut is_short, mut seconds, mut jobs) = (Vec::new(), false, 5.0, 1);
    let mut parser = lexopt::Parser::from_args(words);
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Long("help") | Arg::Short('h') => {
                println!("{HELP}");
                return Ok(None);
            }
            Arg::Long("list") => {
                attacks().iter().for_each(|it| println!("{:18} {}", it.name, it.about));
                return Ok(None);
            }
            Arg::Long("short") => is_short = true,
            Arg::Long("attack") => names.push(parser.value()?.string()?),
            Arg::Long("jobs") => jobs = parser.value()?.string()?.parse()?,
            Arg::Long("seconds") => seconds = parser.value()?.string()?.parse()?,
            Arg::Long(_) | Arg::Short(_) | Arg::Value(_) => {
                return Err(argument.unexpected().into());
            }
        }
    }
    let mut selected = attacks();
    if let Some(name) = names.iter().find(|name| selected.iter().all(|it| it.name != **name)) {
        return Err(format!("there is no attack {name}").into());
    }
    selected.retain(|it| names.is_empty() || names.iter().any(|name| name == it.name));
    selected.retain(|it| !is_short || it.is_short);
    let length = Duration::try_from_secs_f64(seconds)?;
    let folder = std::env::temp_dir().join(format!("openports-abuse-{}", std::process::id()));
    Ok(Some(Plan { attacks: selected, length, jobs, folder }))
}

fn run(plan: &Plan) -> Result<(), Box<dyn Error>> {
    let network = Lab::enter()?;
    let silent = Host::new(SILENT).rest(Port::Silent);
    let _lab = network.start(vec![silent, Host::new(OPEN).rest(Port::Open)])?;
    let _silent_server = UdpSocket::bind((SILENT_SERVER, 53))?;
    std::fs::create_dir_all(&plan.folder)?;
    std::fs::write(plan.folder.join("resolv.conf"), format!("nameserver {SILENT_SERVER}\n"))?;
    let many: String = (1..=64).map(|n| format!("127.0.2.{n} many.example\n")).collect();
    std::fs::write(plan.folder.join("hosts"), many)?;
    println!("{}", bounds::table());
    println!("{HEADING}");
    let next = AtomicUsize::new(0);
    let faults = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..plan.jobs.max(1) {
            scope.spawn(|| {
                while let Some(attack) = plan.attacks.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let found = match run_attack(plan, *attack) {
                        Ok(row) => {
                            println!("{}", row.line());
                            row.faults
                        }
                        Err(error) => vec![error.to_string()],
                    };
                    let mut faults = faults.lock().unwrap_or_else(PoisonError::into_inner);
                    faults.extend(found.into_iter().map(|fault| (attack.name, fault)));
                }
            });
        }
    });
    let faults = faults.into_inner().unwrap_or_else(PoisonError::into_inner);
    // The folder may have been removed by a cleanup of the machine.
    drop(std::fs::remove_dir_all(&plan.folder));
    for (name, fault) in &faults {
        println!("FAULT: {name}: {fault}");
    }
    let failed: BTreeSet<&str> = faults.iter().map(|(name, _)| *name).collect();
    // CI counts steps by lines of this form.
    let passed = plan.attacks.len() - failed.len();
    println!("abuse result: {passed} passed, {} failed", failed.len());
    if faults.is_empty() { Ok(()) } else { Err(format!("{} faults", faults.len()).into()) }
}

fn run_attack(plan: &Plan, attack: Attack) -> Result<Row, Box<dyn Error>> {
    let file = |name: &str| plan.folder.join(name).to_string_lossy().into_owned();
    let (resolv, hosts) = (file("resolv.conf"), file("hosts"));
    let mut flags = vec!["--resolv-conf", &resolv, "--hosts", &hosts, "--drain-timeout", DRAIN];
    flags.extend(attack.flags);
    let mut service = Service::start(&flags, attack.descriptors, attack.log)?;
    let at_rest = service.descriptors().ok_or("the service has exited")?;
    let start_attackers = |attack: &Attack| {
        attack
            .script
            .map(|script| Attackers::start(service.address, script, attack.size))
            .transpose()
    };
    let is_over = AtomicBool::new(false);
    let (report, tally, descriptors_max) = std::thread::scope(|scope| {
        let watch = scope.spawn(|| watch_descriptors(&service, &is_over));
        let attackers = start_attackers(&attack)?;
        let clients = Clients::start(service.address)?;
        std::thread::sleep(plan.length);
        let report = clients.stop();
        let tally = attackers.map_or(Ok(Tally::default()), Attackers::stop);
        is_over.store(true, Ordering::Relaxed);
        let most = watch.join().map_err(|_| "the watcher panicked")?;
        Ok::<_, Box<dyn Error>>((report?, tally?, most))
    })?;
    let peak_kb = service.memory_kb("VmHWM").ok_or("the service has exited")?;
    let recovery = service.wait_for_descriptors(at_rest + attack.kept, RETURN_LIMIT);
    let attackers = start_attackers(&attack)?;
    std::thread::sleep(plan.length / 5);
    let last = terminate_during_a_request(&service, &attack);
    let exit = service.wait(EXIT_LIMIT);
    drop(attackers);
    let mut row = Row {
        attack,
        report,
        tally,
        peak_kb,
        bound_kb: bounds::sum_kb(&attack),
        descriptors_max,
        recovery,
        exit: exit.map(|(_, took)| took),
        faults: Vec::new(),
    };
    row.find_faults(at_rest, &last);
    match exit {
        Some((status, _)) if status.success() => {}
        Some((status, _)) => row.faults.push(format!("after SIGTERM: {status}")),
        None => row.faults.push("SIGTERM does not end the service".into()),
    }
    Ok(row)
}

/// Sends SIGTERM during a request, and returns the status of its response, or `None` if its
/// connection was never accepted.
fn terminate_during_a_request(service: &Service, attack: &Attack) -> Result<Option<u16>, String> {
    let source = Some(IpAddr::V4(Ipv4Addr::LOCALHOST));
    let opened = Connection::open(service.address, source, Duration::from_secs(2));
    let sent = opened.and_then(|mut connection| {
        let target = format!("/open-ports?domain={SILENT}&ports=1&timeout=1s");
        connection.send(format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes())?;
        Ok(connection)
    });
    std::thread::sleep(Duration::from_millis(300));
    service.terminate()?;
    match sent {
        Err(_) => Ok(None),
        Ok(mut connection) => {
            let is_reset = |error: &io::Error| error.kind() == io::ErrorKind::ConnectionReset;
            match connection.read_response_within(EXIT_LIMIT) {
                Ok(response) => Ok(Some(response.status)),
                // The connection was still in the backlog.
                Err(error) if is_reset(&error) && attack.exceeds_connections_max() => Ok(None),
                Err(error) => Err(error.to_string()),
            }
        }
    }
}

/// Returns the maximum number of descriptors until the attack is over.
fn watch_descriptors(service: &Service, is_over: &AtomicBool) -> usize {
    let mut most = 0;
    while !is_over.load(Ordering::Relaxed) {
        most = most.max(service.descriptors().unwrap_or_default());
        std::thread::sleep(Duration::from_millis(100));
    }
    most
}

const HEADING: &str = "\
| attack | description | `/healthz` on new connections: median, 99 %, max | on a kept one: 99 % \
| small scan: 99 % | peak RSS, maximum | descriptors, released after | attackers | exit |
|---|---|---|---|---|---|---|---|---|";

impl Row {
    fn find_faults(&mut self, at_rest: usize, last: &Result<Option<u16>, String>) {
        let Report { fresh, kept, scans } = &self.report;
        let mut faults = Vec::new();
        let clients = [("new connections", fresh), ("kept connection", kept), ("scans", scans)];
        for (client, measured) in clients {
            let mut others = measured.others.clone();
            if client == "scans" && self.attack.may_refuse_scans {
                others.retain(|status, _| ![429, 503].contains(status));
            }
            if !others.is_empty() {
                faults.push(format!("{client}: wrong statuses {others:?}"));
            }
            let is_permitted =
                self.attack.is_tight && measured.lost.len() * 50 <= measured.millis.len();
            if let Some(first) = measured.lost.first().filter(|_| !is_permitted) {
                let lost = measured.lost.len();
                faults.push(format!("{client}: {lost} without a response, the first: {first}"));
            }
            if measured.millis.is_empty() && others == measured.others {
                faults.push(format!("{client}: no response"));
            }
        }
        if self.peak_kb > self.bound_kb {
            faults.push(format!("{} kB of memory, more than {}", self.peak_kb, self.bound_kb));
        }
        if self.recovery.is_none() {
            faults.push(format!("the number of descriptors does not return to {at_rest}"));
        }
        match last {
            Ok(None | Some(200 | 429 | 503)) => {}
            Ok(Some(status)) => faults.push(format!("status {status} after SIGTERM")),
            Err(error) => faults.push(format!("no response after SIGTERM: {error}")),
        }
        self.faults = faults;
    }

    fn line(&self) -> String {
        let Report { fresh, kept, scans } = &self.report;
        let of =
            |measured: &Measured, percent| format!("{:.1}", percentile(&measured.millis, percent));
        let refused: u64 = scans.others.values().sum();
        let seconds = |time: Option<Duration>| {
            time.map_or("never".to_owned(), |time| format!("{:.1} s", time.as_secs_f64()))
        };
        let Tally { opened, refused: failed, ended, statuses, .. } = &self.tally;
        let mut got = format!("{opened} connections");
        if *failed > 0 {
            got += &format!(", {failed} failed");
        }
        if *ended > 0 {
            got += &format!(", {ended} closed by the service");
        }
        for (status, count) in statuses {
            got += &format!(", {count} × {status}");
        }
        format!(
            "| {} | {} | {}, {}, {} ms | {} ms{} | {} ms{} | {:.1} of {:.0} MB | {}, {} | {got} \
             | {}{} |",
            self.attack.name,
            self.attack.about,
            of(fresh, 50),
            of(fresh, 99),
            of(fresh, 100),
            of(kept, 99),
            if kept.reopened > 0 {
                format!(", reopened {} times", kept.reopened)
            } else {
                String::new()
            },
            of(scans, 99),
            if refused > 0 { format!(", {refused} refused") } else { String::new() },
            self.peak_kb as f64 / 1024.0,
            self.bound_kb as f64 / 1024.0,
            self.descriptors_max,
            seconds(self.recovery),
            seconds(self.exit),
            if self.faults.is_empty() { "" } else { ", FAULT" },
        )
    }
}
