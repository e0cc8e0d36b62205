//! A signal arrives at any point: at each call of a start, at each call of a round, and twice.

use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;

use crate::calls::{RUNNING, SIGNAL};
use crate::process::{command, until};
use crate::seccomp::kill;
use crate::supervisor::{Effect, Plan, Rule, Supervisor};
use crate::world::{Permit, SupervisedService, World};
use crate::{Case, Outcome, stride};

/// The limit of calls after a second signal until the process ends. It sees the signal within one
/// tick.
const LAST_CALLS_MAX: u64 = 250;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        ("signal: with each call of a start".to_owned(), Box::new(while_starting)),
        ("signal: with each call of a round".to_owned(), Box::new(while_running)),
        ("signal: two".to_owned(), Box::new(twice)),
        ("signal: while no connection can be accepted".to_owned(), Box::new(while_short)),
        ("signal: one whose first read fails".to_owned(), Box::new(unread)),
    ]
}

fn while_starting() -> Outcome {
    let world = World::enter()?;
    let calls = world.start(&[])?.supervisor.seen().calls;
    let mut count = 0;
    for at in (1..=calls).step_by(stride()) {
        let arguments = world.arguments_for_all();
        let mut command = command(None, &arguments.iter().map(String::as_str).collect::<Vec<_>>());
        command.stderr(Stdio::null());
        let plan = Plan { rules: Vec::new(), signals: vec![(at, libc::SIGTERM)] };
        let (mut child, _supervisor) = Supervisor::spawn(&mut command, plan)?;
        let status =
            until("the process ends", || child.try_wait().expect("the child can be waited for"));
        // The first call blocks the signals, so a signal at this call still kills the process.
        let is_early = at == 1 && status.signal() == Some(libc::SIGTERM);
        assert!(is_early || status.code() == Some(0), "with call {at}: {status}");
        let is_left = std::path::Path::new(&world.folder.path("socket")).exists();
        assert!(!is_left, "with call {at} the file of the socket is left behind");
        count += 1;
    }
    Ok(format!("{count} of {calls} calls"))
}

/// Sends a round of requests while the process is held, and sends each signal after its number of
/// calls.
fn round(world: &World, service: &SupervisedService, signals: &[(u64, i32)]) -> Result<(), String> {
    let requests = world.requests();
    service.supervisor.hold();
    let pending = service.send_all(&requests);
    service.supervisor.release(signals);
    // An answer at the end of the shutdown may be incomplete, but every request is answered.
    let permit = Permit { failure: true, broken: signals.len() > 1, state: None };
    for (request, pending) in requests.iter().zip(pending) {
        request.judge(&pending.response(), permit)?;
    }
    Ok(())
}

fn while_running() -> Outcome {
    let world = World::enter()?;
    let before = world.start(&[])?;
    let started = before.supervisor.seen().calls;
    round(&world, &before, &[])?;
    let calls = before.supervisor.seen().calls - started;
    drop(before);
    let mut count = 0;
    for at in (1..=calls).step_by(stride()) {
        let mut service = world.start(&[])?;
        let outcome = round(&world, &service, &[(at, libc::SIGTERM)]);
        outcome.map_err(|what| format!("with call {at}: {what}\n{}", service.log_tail()))?;
        // The round may have had fewer calls this time, so the signal may not have been sent.
        service.supervisor.release(&[]);
        let has_begun = service.log_lines().iter().any(|line| line.contains("draining"));
        if !has_begun && service.is_running() {
            kill(service.child.id(), libc::SIGTERM);
        }
        let status = service.wait();
        assert_eq!(status.code(), Some(0), "with call {at}");
        count += 1;
    }
    Ok(format!("{count} of {calls} calls"))
}

fn twice() -> Outcome {
    let world = World::enter()?;
    let mut count = 0;
    for first in (1..200).step_by(7 * stride()) {
        for distance in [1, 2, 5, 40] {
            let mut service = world.start(&[])?;
            let signals = [(first, libc::SIGTERM), (first + distance, libc::SIGINT)];
            round(&world, &service, &signals)?;
            let (status, seen) = (service.wait(), service.supervisor.seen());
            assert_eq!(status.code(), Some(0), "with calls {first} and {distance} later");
            assert!(
                seen.calls_after_signal < LAST_CALLS_MAX,
                "the process made too many calls after the second signal: {seen:?}"
            );
            count += 1;
        }
    }
    Ok(format!("{count} pairs"))
}

fn while_short() -> Outcome {
    let world = World::enter()?;
    let accept = RUNNING.iter().find(|call| call.name == "accept4").ok_or("no such call")?;
    for errno in ["EMFILE", "ENFILE", "ENOBUFS", "ENOMEM"] {
        let errno = accept.errnos.iter().find(|(name, _)| *name == errno).ok_or("no such errno")?;
        let mut service = world.start(&[])?;
        service.set_rule(Rule::always(accept, 1, Effect::Fail(*errno)));
        let requests = world.requests();
        let pending = service.send_all(&requests);
        kill(service.child.id(), libc::SIGTERM);
        until("the shutdown begins", || {
            service.log_lines().iter().any(|line| line.contains("draining")).then_some(())
        });
        // The service must retry accept a few more times.
        let faults = service.supervisor.seen().faults;
        until("the service retries accept", || {
            (service.supervisor.seen().faults > faults + 2).then_some(())
        });
        service.supervisor.clear_rules();
        for (request, pending) in requests.iter().zip(pending) {
            request.judge(&pending.response(), Permit::default())?;
        }
        assert_eq!(service.wait().code(), Some(0), "{}", errno.0);
    }
    Ok("4 shortages".to_owned())
}

fn unread() -> Outcome {
    let world = World::enter()?;
    for errno in SIGNAL.errnos {
        // After EAGAIN the service waits until the poller reports the next signal, which is
        // correct.
        if errno.0 == "EAGAIN" {
            continue;
        }
        let mut service = world.start(&[])?;
        service.set_rule(Rule::always(&SIGNAL, 1, Effect::Fail(*errno)));
        kill(service.child.id(), libc::SIGTERM);
        until("the read fails", || (service.supervisor.seen().faults > 0).then_some(()));
        service.recovery();
        assert!(service.is_running(), "{}: the service ended without a signal", errno.0);
        service.supervisor.clear_rules();
        assert_eq!(service.wait().code(), Some(0), "{}", errno.0);
    }
    Ok(format!("{} errnos", SIGNAL.errnos.len() - 1))
}
