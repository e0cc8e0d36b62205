//! Attacks on a real service, one after the other, while well-behaved clients ask it the whole
//! time: how long they wait, what memory and descriptors it takes, and whether it recovers.
//!
//! Everything happens in a network namespace of its own. Each attack has a new service. First the
//! attack; then the attackers go, and the descriptors must come back; then they come again, and
//! in their midst SIGTERM ends the service.
#![expect(clippy::print_stdout, reason = "a command line program reports on stdout")]

mod attacks;
mod bounds;
#[path = "../lab/mod.rs"]
mod lab;
mod swarm;
mod victim;
mod web;
mod witness;

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

use attacks::{Attack, attacks};
use lab::{Host, Lab, Port};
use swarm::{Swarm, Tally};
use victim::Victim;
use web::{Link, share};
use witness::{Report, Seen, Witness};

const HELP: &str = "\
Attacks the service while well-behaved clients ask it, and tells how they fare.

    cargo bench --bench abuse -- [OPTION…]

    --seconds N      how long each attack lasts [5]
    --attack NAME    only this one; may be repeated [all]
    --short          the short form, with the attacks that it has
    --jobs N         so many attacks at once; then the times mean nothing [1]
    --list           the names of the attacks";

/// A host that answers nothing.
const SILENT: Ipv4Addr = Ipv4Addr::new(10, 99, 1, 3);
/// A host whose every port is open.
const OPEN: Ipv4Addr = Ipv4Addr::new(10, 99, 1, 7);
/// Where a name server stands that never answers.
const MUTE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 98);
/// How long descriptors may take to come back: as long as the slowest deadline of a client.
const RETURN_LIMIT: Duration = Duration::from_secs(30);
/// How long the service may take to end: its drain, slow readers, and a busy machine.
const EXIT_LIMIT: Duration = Duration::from_secs(30);
const DRAIN: &str = "3s";

struct Plan {
    attacks: Vec<Attack>,
    length: Duration,
    jobs: usize,
    folder: PathBuf,
}

/// What one attack came to.
struct Row {
    attack: Attack,
    report: Report,
    tally: Tally,
    peak_kb: u64,
    bound_kb: u64,
    descriptors_max: usize,
    /// How long until the descriptors were back; `None`: they did not come back.
    back: Option<Duration>,
    exit: Option<Duration>,
    /// What must not be.
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
    // `cargo bench` adds the flag.
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
    let mut wanted = attacks();
    if let Some(name) = names.iter().find(|name| wanted.iter().all(|it| it.name != **name)) {
        return Err(format!("there is no attack {name}").into());
    }
    wanted.retain(|it| names.is_empty() || names.iter().any(|name| name == it.name));
    wanted.retain(|it| !is_short || it.is_short);
    let length = Duration::try_from_secs_f64(seconds)?;
    let folder = std::env::temp_dir().join(format!("openports-abuse-{}", std::process::id()));
    Ok(Some(Plan { attacks: wanted, length, jobs, folder }))
}

fn run(plan: &Plan) -> Result<(), Box<dyn Error>> {
    let network = Lab::enter()?;
    let silent = Host::new(SILENT).rest(Port::Silent);
    let _lab = network.start(vec![silent, Host::new(OPEN).rest(Port::Open)])?;
    let _mute = UdpSocket::bind((MUTE, 53))?;
    std::fs::create_dir_all(&plan.folder)?;
    std::fs::write(plan.folder.join("resolv.conf"), format!("nameserver {MUTE}\n"))?;
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
                    let found = match assault(plan, *attack) {
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
    // It may be gone already, if the machine is cleaned up beside us.
    drop(std::fs::remove_dir_all(&plan.folder));
    for (name, fault) in &faults {
        println!("FAULT: {name}: {fault}");
    }
    let failed: BTreeSet<&str> = faults.iter().map(|(name, _)| *name).collect();
    // In the words by which the steps are counted.
    let passed = plan.attacks.len() - failed.len();
    println!("abuse result: {passed} passed, {} failed", failed.len());
    if faults.is_empty() { Ok(()) } else { Err(format!("{} faults", faults.len()).into()) }
}

/// One attack, on a service of its own.
fn assault(plan: &Plan, attack: Attack) -> Result<Row, Box<dyn Error>> {
    let file = |name: &str| plan.folder.join(name).to_string_lossy().into_owned();
    let (resolv, hosts) = (file("resolv.conf"), file("hosts"));
    let mut flags = vec!["--resolv-conf", &resolv, "--hosts", &hosts, "--drain-timeout", DRAIN];
    flags.extend(attack.flags);
    let mut service = Victim::start(&flags, attack.descriptors, attack.log)?;
    let at_rest = service.descriptors().ok_or("the service is gone")?;
    let swarm = |attack: &Attack| {
        attack.script.map(|script| Swarm::start(service.address, script, attack.size)).transpose()
    };
    let is_over = AtomicBool::new(false);
    let (report, tally, descriptors_max) = std::thread::scope(|scope| {
        let watch = scope.spawn(|| watch_descriptors(&service, &is_over));
        let attackers = swarm(&attack)?;
        let witness = Witness::start(service.address)?;
        std::thread::sleep(plan.length);
        let report = witness.stop();
        let tally = attackers.map_or(Ok(Tally::default()), Swarm::stop);
        is_over.store(true, Ordering::Relaxed);
        let most = watch.join().map_err(|_| "the watcher panicked")?;
        Ok::<_, Box<dyn Error>>((report?, tally?, most))
    })?;
    let peak_kb = service.memory_kb("VmHWM").ok_or("the service is gone")?;
    let back = service.wait_for_descriptors(at_rest, RETURN_LIMIT);
    let attackers = swarm(&attack)?;
    std::thread::sleep(plan.length / 5);
    let last = end_in_the_midst(&service, &attack);
    let exit = service.wait(EXIT_LIMIT);
    drop(attackers);
    let mut row = Row {
        attack,
        report,
        tally,
        peak_kb,
        bound_kb: bounds::sum_kb(&attack),
        descriptors_max,
        back,
        exit: exit.map(|(_, took)| took),
        faults: Vec::new(),
    };
    row.find_faults(at_rest, &last);
    match exit {
        Some((status, _)) if status.success() => {}
        Some((status, _)) => row.faults.push(format!("after SIGTERM: {status}")),
        None => row.faults.push("SIGTERM does not end it".into()),
    }
    Ok(row)
}

/// SIGTERM while a request that was accepted is being worked on: what came of it.
fn end_in_the_midst(service: &Victim, attack: &Attack) -> Result<Option<u16>, String> {
    let source = Some(IpAddr::V4(Ipv4Addr::LOCALHOST));
    let asked = Link::open(service.address, source, Duration::from_secs(2)).and_then(|mut link| {
        let target = format!("/open-ports?domain={SILENT}&ports=1&timeout=1s");
        link.send(format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes())?;
        Ok(link)
    });
    std::thread::sleep(Duration::from_millis(300));
    service.terminate()?;
    match asked {
        // Nobody took it in, so nobody owes an answer.
        Err(_) => Ok(None),
        Ok(mut link) => {
            let is_reset = |error: &io::Error| error.kind() == io::ErrorKind::ConnectionReset;
            match link.answer_within(EXIT_LIMIT) {
                Ok(answer) => Ok(Some(answer.status)),
                // It stood in the kernel's queue to the end.
                Err(error) if is_reset(&error) && attack.fills_every_place() => Ok(None),
                Err(error) => Err(error.to_string()),
            }
        }
    }
}

/// The most descriptors that are seen until it is over.
fn watch_descriptors(service: &Victim, is_over: &AtomicBool) -> usize {
    let mut most = 0;
    while !is_over.load(Ordering::Relaxed) {
        most = most.max(service.descriptors().unwrap_or_default());
        std::thread::sleep(Duration::from_millis(100));
    }
    most
}

const HEADING: &str = "\
| attack | what was sent | `/healthz` on new connections: median, 99 %, most | on a kept one: 99 % \
| small scan: 99 % | peak RSS, of at most | descriptors, back after | the attackers got | end |
|---|---|---|---|---|---|---|---|---|";

impl Row {
    fn find_faults(&mut self, at_rest: usize, last: &Result<Option<u16>, String>) {
        let Report { fresh, kept, scans } = &self.report;
        let mut faults = Vec::new();
        for (who, seen) in [("new connections", fresh), ("the kept one", kept), ("scans", scans)] {
            let mut others = seen.others.clone();
            if who == "scans" && self.attack.may_refuse_scans {
                others.retain(|status, _| ![429, 503].contains(status));
            }
            if !others.is_empty() {
                faults.push(format!("{who}: answered {others:?}"));
            }
            let is_bearable = self.attack.is_tight && seen.lost.len() * 50 <= seen.millis.len();
            if let Some(first) = seen.lost.first().filter(|_| !is_bearable) {
                faults.push(format!("{who}: lost {}, the first: {first}", seen.lost.len()));
            }
            if seen.millis.is_empty() && others == seen.others {
                faults.push(format!("{who}: nothing was answered"));
            }
        }
        if self.peak_kb > self.bound_kb {
            faults.push(format!("{} kB, of {} at most", self.peak_kb, self.bound_kb));
        }
        if self.back.is_none() {
            faults.push(format!("the descriptors do not come back to {at_rest}"));
        }
        if let Err(error) = last {
            faults.push(format!("a request was not answered after SIGTERM: {error}"));
        }
        self.faults = faults;
    }

    fn line(&self) -> String {
        let Report { fresh, kept, scans } = &self.report;
        let of = |seen: &Seen, percent| format!("{:.1}", share(&seen.millis, percent));
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
            got += &format!(", {ended} ended by the service");
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
                format!(", {} times anew", kept.reopened)
            } else {
                String::new()
            },
            of(scans, 99),
            if refused > 0 { format!(", {refused} refused") } else { String::new() },
            self.peak_kb as f64 / 1024.0,
            self.bound_kb as f64 / 1024.0,
            self.descriptors_max,
            seconds(self.back),
            seconds(self.exit),
            if self.faults.is_empty() { "" } else { ", FAULT" },
        )
    }
}
