//! The whole service in a world of our own: virtual time, a fake network, faults at every call.
//!
//! One seed decides a run: the hosts, the name servers, the clients, what fails and when. The
//! event loop is the real one, over a simulated kernel (`kernel`); `world` plays everybody at the
//! other ends, `run` checks what has to hold after each tick, and `judge` checks what the clients
//! were told against what is true. The loop sleeps exactly to the deadline that the core names, so
//! a deadline that is forgotten shows as a run that never ends well, and one that is stale as a
//! loop that spins.
//!
//! `SIM_SEED=n` replays one seed and tells all that happens; `SIM_SEEDS=n` runs so many.

#![expect(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test says what went wrong, and where"
)]

#[path = "simulation/client.rs"]
mod client;
#[path = "simulation/coverage.rs"]
mod coverage;
#[path = "simulation/errands.rs"]
mod errands;
#[path = "simulation/judge.rs"]
mod judge;
#[path = "simulation/kernel.rs"]
mod kernel;
#[path = "simulation/names.rs"]
mod names;
#[path = "simulation/network.rs"]
mod network;
#[path = "simulation/path.rs"]
mod path;
#[path = "simulation/random_networks.rs"]
mod random_networks;
#[path = "simulation/raw.rs"]
mod raw;
#[path = "simulation/reader.rs"]
mod reader;
#[path = "simulation/regressions.rs"]
mod regressions;
#[path = "simulation/report.rs"]
mod report;
#[path = "simulation/rng.rs"]
mod rng;
#[path = "simulation/run.rs"]
mod run;
#[path = "simulation/scenario.rs"]
mod scenario;
#[path = "simulation/sweeps.rs"]
mod sweeps;
#[path = "simulation/world.rs"]
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use coverage::Coverage;

/// Seeds of an ordinary run.
const SEEDS: u64 = 256;

#[test]
fn every_seed_keeps_the_contract() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse().expect(name));
    if let Some(seed) = number("SIM_SEED") {
        let mut world = scenario::world(seed);
        world.is_verbose = true;
        return run(seed, &mut world);
    }
    let (seeds, mut coverage) = (number("SIM_SEEDS").unwrap_or(SEEDS), Coverage::default());
    for seed in 0..seeds {
        let mut world = scenario::world(seed);
        run(seed, &mut world);
        coverage.take_in(&world);
    }
    if seeds >= SEEDS {
        coverage.check();
    }
}

#[test]
fn every_seed_keeps_its_word_to_the_shell() {
    let number = std::env::var("SIM_SEEDS").ok().map(|text| text.parse().expect("SIM_SEEDS"));
    for seed in 0..number.unwrap_or(SEEDS) / 2 {
        sweeps::run(seed);
        sweeps::run_cut_short(seed);
    }
}

/// Runs one world to its end; a failure names its seed and step.
fn run(seed: u64, world: &mut run::Simulation) {
    let run = catch_unwind(AssertUnwindSafe(|| world.run()));
    if let Err(cause) = run {
        let (step, at) = (world.steps, world.now - world.origin);
        eprintln!("seed {seed} failed at step {step}, {at:?} from the start; see SIM_SEED={seed}");
        resume_unwind(cause);
    }
}

#[test]
fn one_seed_makes_one_run() {
    let tell = |seed: u64| {
        let mut world = scenario::world(seed);
        world.run();
        let said: Vec<Vec<u8>> = world.clients.iter().map(|it| it.received.clone()).collect();
        (world.steps, world.connects_len, world.now - world.origin, said)
    };
    for seed in 0..4 {
        assert_eq!(tell(seed), tell(seed), "seed {seed}");
    }
}
