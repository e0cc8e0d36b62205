//! An hour of everything at once, and whether anything grows, slows down or lies.
//!
//! In a network of its own a service is asked for whatever it can do, round after round, while a
//! health check asks it the whole time. Each round knows what must come out of it. Between rounds
//! it sleeps, so that it takes a quarter of a core. Every ten seconds, at rest, it is measured.
#![expect(clippy::print_stdout, reason = "a command line program reports on stdout")]
#![expect(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "the tests' name server, which it shares, fails where it is not understood"
)]

mod chart;
#[path = "../lab/mod.rs"]
mod lab;
#[allow(dead_code, reason = "the tests use more of it")]
#[path = "../../src/tests/service/nameserver.rs"]
mod nameserver;
mod rounds;
mod samples;
#[path = "../abuse/victim.rs"]
mod victim;
#[path = "../abuse/web.rs"]
mod web;

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use lexopt::{Arg, ValueExt};

use rounds::{Dice, ROUNDS, World};
use samples::{Sample, Samples};
use victim::{Log, Victim};

const HELP: &str = "\
Mixed traffic and scans for a long time: memory, descriptors and latency, and no wrong answer.

    cargo bench --bench soak -- [OPTION…]

    --seconds N    how long [60]
    --share P      percent of one core that the service and this program take together [25]
    --seed N       of the order of the rounds [1]
    --out FOLDER   for samples.csv, soak.md and a chart [target/soak]";

/// Between two measurements.
const SAMPLE_EVERY: Duration = Duration::from_secs(10);
/// Between two health checks.
const CHECK_EVERY: Duration = Duration::from_millis(100);
/// How long anything may take, or it hangs.
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
    // `cargo bench` adds the flag.
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
    let mut service = Victim::start(&flags, None, Log::Read)?;
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
        dice: Dice(plan.seed),
        at_rest: 0,
        counts: vec![0; ROUNDS.len()],
        wrong: Vec::new(),
    };
    let ended = run.turn(plan, &service, (&world, &checks));
    is_over.store(true, Ordering::Relaxed);
    drop(checker.join());
    ended?;
    let own_losses = lab.stats().own_losses();
    service.terminate()?;
    let exit = service.wait(LIMIT).ok_or("it does not end after SIGTERM")?;
    println!("{}", run.report());
    println!("the lab lost {own_losses} packets of its own; the service ended with {}", exit.0);
    std::fs::write(plan.out.join("soak.md"), run.report())?;
    std::fs::write(plan.out.join("soak.svg"), chart::draw(run.samples.all()))?;
    let faults = run.faults(&checks.lock().unwrap_or_else(PoisonError::into_inner));
    match (faults, exit.0.success()) {
        (faults, true) if faults.is_empty() => {
            // In the words by which the steps are counted.
            println!("soak result: {} passed, 0 failed", ROUNDS.len());
            Ok(())
        }
        (faults, _) => Err(format!("{}; exit {}", faults.join("; "), exit.0).into()),
    }
}

/// What the health check has seen since the last measurement.
#[derive(Debug, Default)]
struct Checks {
    millis: Vec<f64>,
    failures: Vec<String>,
}

/// Asks for `/healthz` on one connection, from time to time on a new one, until it is over.
fn check_health(to: std::net::SocketAddr, checks: &Mutex<Checks>, is_over: &AtomicBool) {
    let mut link = None;
    while !is_over.load(Ordering::Relaxed) {
        let begun = Instant::now();
        let asked = match link.take() {
            Some(link) => Ok(link),
            None => web::Link::open(to, None, LIMIT),
        };
        let answered = asked.and_then(|mut open| {
            let answer = open.get("/healthz", "")?;
            Ok((open, answer))
        });
        let mut checks = checks.lock().unwrap_or_else(PoisonError::into_inner);
        match answered {
            Ok((open, answer)) if answer.status == 200 => {
                checks.millis.push(begun.elapsed().as_secs_f64() * 1e3);
                // A hundred on one connection, then anew.
                link = (!checks.millis.len().is_multiple_of(100)).then_some(open);
            }
            Ok((_, answer)) => checks.failures.push(format!("/healthz says {}", answer.status)),
            Err(error) => checks.failures.push(format!("/healthz: {error}")),
        }
        drop(checks);
        std::thread::sleep(CHECK_EVERY);
    }
}

struct Run {
    samples: Samples,
    dice: Dice,
    /// Descriptors of the service before the first round.
    at_rest: usize,
    /// How often each round ran.
    counts: Vec<u64>,
    wrong: Vec<String>,
}

impl Run {
    /// Rounds by chance until time is up, with a pause behind each.
    fn turn(
        &mut self,
        plan: &Plan,
        service: &Victim,
        (world, checks): (&World, &Mutex<Checks>),
    ) -> Result<(), Box<dyn Error>> {
        let begun = Instant::now();
        std::thread::sleep(Duration::from_millis(500));
        self.at_rest = service.descriptors().ok_or("the service is gone")?;
        let mut sampled = begun;
        while begun.elapsed() < plan.length {
            let (cpu, round_began) = (both(service), Instant::now());
            let place = self.dice.below(ROUNDS.len());
            let (name, round) = ROUNDS[place];
            self.counts[place] += 1;
            if let Err(error) = round(world, &mut self.dice) {
                println!("{:.0} s: WRONG: {name}: {error}", begun.elapsed().as_secs_f64());
                self.wrong.push(format!("{name}: {error}"));
            }
            let worked = both(service).saturating_sub(cpu);
            let fair = worked.div_f64(plan.share).saturating_sub(round_began.elapsed());
            std::thread::sleep(fair.max(Duration::from_millis(20)));
            if sampled.elapsed() >= SAMPLE_EVERY || begun.elapsed() >= plan.length {
                sampled = Instant::now();
                self.sample(service, (checks, begun.elapsed()))?;
                std::fs::write(plan.out.join("samples.csv"), self.samples.csv())?;
            }
        }
        Ok(())
    }

    /// Measures, once what the last round left has gone.
    fn sample(
        &mut self,
        service: &Victim,
        (checks, at): (&Mutex<Checks>, Duration),
    ) -> Result<(), Box<dyn Error>> {
        // One more: a health check may be between two connections.
        service.wait_for_descriptors(self.at_rest + 1, Duration::from_secs(5));
        let gone = || "the service is gone";
        let mut checks = checks.lock().unwrap_or_else(PoisonError::into_inner);
        let millis = std::mem::take(&mut checks.millis);
        self.samples.push(Sample {
            at: at.as_secs_f64(),
            resident_kb: service.memory_kb("VmRSS").ok_or_else(gone)?,
            own_kb: service.memory_kb("RssAnon").ok_or_else(gone)?,
            descriptors: service.descriptors().ok_or_else(gone)?,
            cpu: service.cpu().ok_or_else(gone)?.as_secs_f64(),
            health_50: web::share(&millis, 50),
            health_99: web::share(&millis, 99),
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

    /// What must not be: an answer that is wrong, a descriptor that stays.
    fn faults(&self, checks: &Checks) -> Vec<String> {
        let mut faults: Vec<String> = self.wrong.iter().chain(&checks.failures).cloned().collect();
        let left = self.samples.all().last().map_or(0, |sample| sample.descriptors);
        if left > self.at_rest + 1 {
            faults.push(format!("{} descriptors at first, {left} at last", self.at_rest));
        }
        faults
    }
}

/// CPU of the service and of this program.
fn both(service: &Victim) -> Duration {
    service.cpu().unwrap_or_default() + victim::cpu_of("self").unwrap_or_default()
}
