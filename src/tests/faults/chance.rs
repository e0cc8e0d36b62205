//! Random faults: several calls fail at once, each now and then and with a random errno.

use std::time::{Duration, Instant};

use crate::calls::{Call, RUNNING};
use crate::supervisor::{Effect, Random, Rule};
use crate::world::{Permit, World};
use crate::{Case, Outcome, number};

/// The seeds are divided among this number of cases, which run in parallel.
const PARTS: u64 = 4;
/// The number of rounds with one seed.
const ROUNDS: usize = 3;
/// Errnos that are not injected. They describe the target or the connection of the client, and only
/// the cases that know which call failed can judge them. EAGAIN is a promise of the kernel (see
/// `running`).
const EXCLUDED: &[i32] = &[
    libc::EAGAIN,
    libc::ECONNREFUSED,
    libc::ETIMEDOUT,
    libc::ECONNRESET,
    libc::EPIPE,
    libc::EACCES,
    libc::EPERM,
    libc::ENETUNREACH,
    libc::EHOSTUNREACH,
    libc::EHOSTDOWN,
    libc::ENETDOWN,
    libc::ENONET,
    libc::ENOPROTOOPT,
    libc::EPROTO,
    libc::EOPNOTSUPP,
    libc::ENODEV,
    libc::EINVAL,
    libc::EAFNOSUPPORT,
    libc::EADDRNOTAVAIL,
];

pub(crate) fn cases() -> Vec<Case> {
    let case = |part: u64| -> Case {
        let name = format!("chance: several calls at once, part {part}");
        (name, Box::new(move || check(part)))
    };
    (0..PARTS).map(case).collect()
}

fn check(part: u64) -> Outcome {
    let world = World::enter()?;
    let (first, count) = (number("FAULT_SEED", 1), number("FAULT_SEEDS", PARTS));
    let (mut faults, mut slowest) = (0, Duration::ZERO);
    let mut service = world.start(&[])?;
    for seed in (first..first + count).filter(|seed| seed % PARTS == part) {
        let before = service.supervisor.seen();
        let mut random = Random::new(seed);
        let rules: Vec<Rule> = (0..4).map(|_| rule(&mut random)).collect();
        let is_broken = rules.iter().any(Rule::is_transfer);
        let shown = format!("FAULT_SEED={seed} FAULT_SEEDS=1: {rules:?}");
        service.supervisor.set_rules(rules);
        let permit = Permit { broken: is_broken, failure: true, state: None };
        for round in 0..=ROUNDS {
            let began = Instant::now();
            if round == ROUNDS {
                service.supervisor.clear_rules();
                slowest = slowest.max(service.recovery());
            }
            let permit = if round == ROUNDS { Permit::default() } else { permit };
            let requests = world.requests();
            let pending = service.send_all(&requests);
            for (request, pending) in requests.iter().zip(pending) {
                let judged = request.judge(&pending.response(), permit);
                judged.map_err(|what| {
                    let took = began.elapsed();
                    format!(
                        "{what}\n{took:?} into round {round} of {shown}\n{}",
                        service.log_tail()
                    )
                })?;
            }
        }
        assert!(service.is_running(), "{shown}");
        let seen = service.supervisor.seen();
        faults += seen.faults - before.faults;
        let expected = service.idle_descriptors + seen.leaked;
        crate::process::until(&shown, || (service.descriptors() == expected).then_some(()));
    }
    Ok(format!("{faults} faults; recovery {} ms at most", slowest.as_millis()))
}

fn rule(random: &mut Random) -> Rule {
    // An interrupted wait is harmless, and most faults would be of this kind.
    let calls: Vec<&Call> = RUNNING.iter().filter(|call| call.name != "epoll_wait").collect();
    let call = calls[random.below(calls.len() as u64) as usize];
    let (own, one_in) = (Random::new(random.below(u64::MAX)), 4 + random.below(20));
    Rule::always(call, 1, Effect::Chance { random: own, one_in, except: EXCLUDED })
}
