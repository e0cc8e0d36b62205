//! A simulation of the whole service with virtual time, a fake network and faults in every call.
//!
//! One seed decides the hosts, the name servers, the clients and the faults of a run. The event
//! loop is the real one. It runs on a simulated kernel (`kernel`); `world` simulates all peers,
//! `run` checks invariants after each tick, and `judge` compares the responses with the simulated
//! network. The loop sleeps exactly until the deadline that the core returns, so a missing deadline
//! appears as a run that does not end, and a stale deadline as a loop that spins.
//!
//! `SIM_SEED=n` replays one seed and prints each event; `SIM_SEEDS=n` runs `n` seeds.

#![expect(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a panic is the failure of a test, and stderr shows its seed"
)]

#[path = "simulation/batch.rs"]
mod batch;
#[path = "simulation/client.rs"]
mod client;
#[path = "simulation/coverage.rs"]
mod coverage;
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
#[path = "simulation/requests.rs"]
mod requests;
#[path = "simulation/rng.rs"]
mod rng;
#[path = "simulation/run.rs"]
mod run;
#[path = "simulation/scenario.rs"]
mod scenario;
#[path = "simulation/world.rs"]
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use coverage::Coverage;

/// The number of seeds in an ordinary run.
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
        coverage.add(&world);
    }
    if seeds >= SEEDS {
        coverage.check();
    }
}

#[test]
fn every_seed_prints_correct_batches() {
    let number = std::env::var("SIM_SEEDS").ok().map(|text| text.parse().expect("SIM_SEEDS"));
    for seed in 0..number.unwrap_or(SEEDS) / 2 {
        batch::run(seed);
        batch::run_interrupted(seed);
    }
}

/// Runs one world to its end. A failure prints its seed and step.
fn run(seed: u64, world: &mut run::Simulation) {
    let run = catch_unwind(AssertUnwindSafe(|| world.run()));
    if let Err(cause) = run {
        let (step, at) = (world.steps, world.now - world.origin);
        eprintln!("seed {seed} failed at step {step}, after {at:?}; replay it: SIM_SEED={seed}");
        resume_unwind(cause);
    }
}

#[test]
fn a_seed_always_gives_the_same_run() {
    let replay = |seed: u64| {
        let mut world = scenario::world(seed);
        world.run();
        let received: Vec<Vec<u8>> = world.clients.iter().map(|it| it.received.clone()).collect();
        (world.steps, world.connects_len, world.now - world.origin, received)
    };
    for seed in 0..4 {
        assert_eq!(replay(seed), replay(seed), "seed {seed}");
    }
}
