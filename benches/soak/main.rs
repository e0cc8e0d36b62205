//! Uses a service for a long time, and records its memory, descriptors and latency. It fails only
//! on a wrong response, more descriptors at the end than at the start and for SYN scans, memory
//! that grows, or a failed exit.
//!
//! It runs in its own network namespace. Each round uses one feature and checks the result, while a
//! thread sends health checks. Every pass runs all rounds in a random order. Pauses between rounds
//! limit the CPU time to a share of one core, a quarter by default. The service is measured every
//! ten seconds, between two rounds.
#![expect(clippy::print_stdout, reason = "a command line program reports on stdout")]
#![expect(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "the name server of the tests panics on queries that it does not understand"
)]

mod chart;
#[path = "../lab/mod.rs"]
mod lab;
#[allow(dead_code, reason = "the tests use more of it")]
#[path = "../../src/tests/service/nameserver.rs"]
mod nameserver;
mod rounds;
mod samples;
#[path = "../abuse/service.rs"]
mod service;
#[path = "../abuse/web.rs"]
mod web;

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use lexopt::{Arg, ValueExt};
use openports::limits;

use rounds::{ROUNDS, Rng, World};
use samples::{Sample, Samples};
use service::{Log, Service};

const HELP: &str = "\
Mixed traffic and scans for a long time: memory, descriptors and latency, and no wrong response.

    cargo bench --bench soak -- [OPTION…]

    --seconds N    duration [60]
    --share P      CPU time of the service and this program, in percent of one core [25]
    --seed N       seed of the order of the rounds [1]
    --out FOLDER   folder for samples.csv, soak.md and a chart [target/soak]";

const SAMPLE_EVERY: Duration = Duration::from_secs(10);
const CHECK_EVERY: Duration = Duration::from_millis(100);
/// The growth of the own memory since the end of the first pass that is not a leak. The busiest
/// moment of the first pass may be exceeded later, when the tables of probes double, and the name
/// cache fills to 0.29 MB. In two hours the growth was 2.9 MB, all but 0.1 MB of it in the first
/// quarter of an hour.
const GROWTH_KB_MAX: u64 = 4096;
/// The maximum time of a request or an exit, and until the last connections are closed.
const LIMIT: Duration = Duration::from_secs(60);

struct Plan {
    length: Duration,
    share: f64,
    seed: u64,
    out: PathBuf,
}

fn main() -> ExitCode {
    match parse().and_then(|plan| plan.map_or(Ok(()), |plan| soak(&plan))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("soak: {error}");
            ExitCode::FAILURE
        }
    }
}

fn parse() -> Result<Option<Plan>, Box<dyn Error>> {
    // `cargo bench` appends the flag.
    let words = std::env::args().skip(1).filter(|word| word != "--bench");
    let mut plan = Plan {
        length: Duration::from_secs(60),
        share: 0.25,
        seed: 1,
        out: PathBuf::from("target/soak"),
    };
    let mut parser = lexopt::Parser::from_args(words);
    while let Some(argument) = parser.next()? {
        let name = match argument {
            Arg::Long("help") | Arg::Short('h') => {
                println!("{HELP}");
                return Ok(None);
            }
            Arg::Long(name) => name.to_owned(),
            Arg::Short(_) | Arg::Value(_) => return Err(argument.unexpected().into()),
        };
        let value = parser.value()?.string()?;
        match name.as_str() {
            "seconds" => plan.length = Duration::from_secs(value.parse()?),
            "share" => plan.share = value.parse::<f64>()? / 100.0,
            "seed" => plan.seed = value.parse()?,
            "out" => plan.out = value.into(),
            _ => return Err(format!("there is no option --{name}").into()),
        }
    }
    Ok(Some(plan))
}

fn soak(plan: &Plan) -> Result<(), Box<dyn Error>> {
    std::fs::create_dir_all(&plan.out)?;
    let network = lab::Lab::enter()?;
    let (mut world, files) = (World::create(&plan.out)?, plan.out.clone());
    let lab = network.start(rounds::hosts())?;
    let file = |name: &str| files.join(name).to_string_lossy().into_owned();
    let (resolv, token) = (file("resolv.conf"), file("token"));
    let flags = ["--resolv-conf", &resolv, "--token-file", &token, "--max-scans-per-client", "32"];
    let mut service = Service::start(&flags, None, Log::Read)?;
    let gone = "the service has exited";
    // SYN scans keep their raw socket and their source ports.
    let at_rest = service.descriptors().ok_or(gone)? + 1 + limits::SYN_SOURCE_PORTS_MAX;
    let address = service.address;
    world.service = address;
    let checks = Arc::new(Mutex::new(Checks::default()));
    let is_over = Arc::new(AtomicBool::new(false));
    let checker = {
        let (checks, is_over) = (Arc::clone(&checks), Arc::clone(&is_over));
        std::thread::spawn(move || check_health(address, &checks, &is_over))
    };
    let mut run = Run {
        samples: Samples::default(),
        rng: Rng(plan.seed),
        at_rest,
        plateau_kb: None,
        counts: vec![0; ROUNDS.len()],
        wrong: Vec::new(),
    };
    let ended = run.run_rounds(plan, &service, &world, &checks);
    is_over.store(true, Ordering::Relaxed);
    drop(checker.join());
    ended?;
    let leaked = match service.wait_for_descriptors(at_rest, LIMIT) {
        Some(_) => None,
        None => Some(service.descriptors().ok_or(gone)?),
    };
    let own_kb = service.memory_kb("RssAnon").ok_or(gone)?;
    let own_losses = lab.stats().own_losses();
    service.terminate()?;
    let exit = service.wait(LIMIT).ok_or("the service does not exit after SIGTERM")?;
    println!("{}", run.report());
    println!("the lab itself lost {own_losses} packets; the service exited with {}", exit.0);
    std::fs::write(plan.out.join("soak.md"), run.report())?;
    std::fs::write(plan.out.join("soak.svg"), chart::draw(run.samples.all()))?;
    let checks = checks.lock().unwrap_or_else(PoisonError::into_inner);
    let faults = run.faults(own_kb, leaked, &checks);
    match (faults, exit.0.success()) {
        (faults, true) if faults.is_empty() => {
            // CI counts steps by lines of this form.
            println!("soak result: {} passed, 0 failed", ROUNDS.len());
            Ok(())
        }
        (faults, _) => Err(format!("{}; exit {}", faults.join("; "), exit.0).into()),
    }
}

/// The results of the health checks since the last measurement.
#[derive(Debug, Default)]
struct Checks {
    millis: Vec<f64>,
    failures: Vec<String>,
}

/// Requests `/healthz` until `is_over`, on one connection that is sometimes replaced.
fn check_health(to: std::net::SocketAddr, checks: &Mutex<Checks>, is_over: &AtomicBool) {
    let mut connection = None;
    while !is_over.load(Ordering::Relaxed) {
        let begun = Instant::now();
        let opened = match connection.take() {
            Some(connection) => Ok(connection),
            None => web::Connection::open(to, None, LIMIT),
        };
        let result = opened.and_then(|mut open| {
            let response = open.get("/healthz", "")?;
            Ok((open, response))
        });
        let mut checks = checks.lock().unwrap_or_else(PoisonError::into_inner);
        match result {
            Ok((open, response)) if response.status == 200 => {
                checks.millis.push(begun.elapsed().as_secs_f64() * 1e3);
                // After a hundred requests, the connection is replaced.
                connection = (!checks.millis.len().is_multiple_of(100)).then_some(open);
            }
            Ok((_, response)) => checks.failures.push(format!("/healthz says {}", response.status)),
            Err(error) => checks.failures.push(format!("/healthz: {error}")),
        }
        drop(checks);
        std::thread::sleep(CHECK_EVERY);
    }
}

struct Run {
    samples: Samples,
    rng: Rng,
    /// The maximum number of descriptors of the service without connections.
    at_rest: usize,
    /// The own memory of the service after the first pass.
    plateau_kb: Option<u64>,
    /// The number of times that each round ran.
    counts: Vec<u64>,
    wrong: Vec<String>,
}

impl Run {
    /// Runs at least two passes until the time is over, with a pause after each round.
    fn run_rounds(
        &mut self,
        plan: &Plan,
        service: &Service,
        world: &World,
        checks: &Mutex<Checks>,
    ) -> Result<(), Box<dyn Error>> {
        let begun = Instant::now();
        let mut sampled = begun;
        let mut order: Vec<usize> = (0..ROUNDS.len()).collect();
        for (number, at) in (1..).zip((0..ROUNDS.len()).cycle()) {
            let (cpu, round_began) = (cpu_of_both(service), Instant::now());
            order.swap(at, at + self.rng.below(ROUNDS.len() - at));
            let place = order[at];
            let (name, round) = ROUNDS[place];
            self.counts[place] += 1;
            if let Err(error) = round(world, &mut self.rng) {
                println!("{:.0} s: WRONG: {name}: {error}", begun.elapsed().as_secs_f64());
                self.wrong.push(format!("{name}: {error}"));
            }
            let worked = cpu_of_both(service).saturating_sub(cpu);
            let pause = worked.div_f64(plan.share).saturating_sub(round_began.elapsed());
            std::thread::sleep(pause.max(Duration::from_millis(20)));
            let is_over = number >= 2 * ROUNDS.len() && begun.elapsed() >= plan.length;
            if sampled.elapsed() >= SAMPLE_EVERY || is_over || number == ROUNDS.len() {
                sampled = Instant::now();
                self.sample(service, checks, begun.elapsed())?;
                std::fs::write(plan.out.join("samples.csv"), self.samples.csv())?;
            }
            if number == ROUNDS.len() {
                self.plateau_kb = self.samples.all().last().map(|it| it.own_kb);
            }
            if is_over {
                break;
            }
        }
        Ok(())
    }

    /// Measures the service after it has closed the connections of the last round.
    fn sample(
        &mut self,
        service: &Service,
        checks: &Mutex<Checks>,
        at: Duration,
    ) -> Result<(), Box<dyn Error>> {
        // The service closes the connections and sockets of the last round meanwhile.
        std::thread::sleep(Duration::from_millis(200));
        let gone = || "the service has exited";
        let mut checks = checks.lock().unwrap_or_else(PoisonError::into_inner);
        let millis = std::mem::take(&mut checks.millis);
        self.samples.push(Sample {
            at: at.as_secs_f64(),
            resident_kb: service.memory_kb("VmRSS").ok_or_else(gone)?,
            own_kb: service.memory_kb("RssAnon").ok_or_else(gone)?,
            descriptors: service.descriptors().ok_or_else(gone)?,
            cpu: service.cpu().ok_or_else(gone)?.as_secs_f64(),
            health_50: web::percentile(&millis, 50),
            health_99: web::percentile(&millis, 99),
            rounds: self.counts.iter().sum(),
            wrong: self.wrong.len() + checks.failures.len(),
        });
        println!("{}", self.samples.last_line());
        Ok(())
    }

    fn report(&self) -> String {
        let mut text = self.samples.quarters();
        text += "\n| round | times |\n|---|---|\n";
        for ((name, _), count) in ROUNDS.iter().zip(&self.counts) {
            text += &format!("| {name} | {count} |\n");
        }
        text
    }

    /// Returns the wrong responses, and faults of the own memory at the end and of the number of
    /// descriptors, if more than at first stayed open.
    fn faults(&self, own_kb: u64, leaked: Option<usize>, checks: &Checks) -> Vec<String> {
        let mut faults: Vec<String> = self.wrong.iter().chain(&checks.failures).cloned().collect();
        if let Some(descriptors) = leaked {
            let most = self.at_rest;
            faults.push(format!("{descriptors} descriptors at the end, at most {most} expected"));
        }
        let plateau_kb = self.plateau_kb.unwrap_or_default();
        if own_kb > plateau_kb + GROWTH_KB_MAX {
            faults.push(format!("{own_kb} kB of own memory, {plateau_kb} kB after the first pass"));
        }
        faults
    }
}

fn cpu_of_both(service: &Service) -> Duration {
    service.cpu().unwrap_or_default() + service::cpu_of("self").unwrap_or_default()
}
