//! Faults while the service runs: one call fails with one errno, once or for some time.

use std::fmt::Write;
use std::time::Duration;

use crate::calls::{Call, EPOLL_WAIT, Errno, RUNNING};
use crate::process::until;
use crate::supervisor::{Effect, Rule};
use crate::world::{Permit, State, SupervisedService, World};
use crate::{Case, Outcome, stride};

/// The duration of a lasting fault.
const FAULT: Duration = Duration::from_millis(100);
/// The first good answer must arrive within this time after the end of a fault.
const RECOVERY_MAX: Duration = Duration::from_secs(1);
/// A round has about fifty ticks and 400 calls. A shortage of 100 ms adds ten retries after a
/// backoff.
const TICKS_MAX: u64 = 300;
/// The limit of calls in a round; see [`TICKS_MAX`].
const CALLS_MAX: u64 = 2000;
/// A busy machine is slow once, but a service that sleeps too long is slow in every attempt.
const ATTEMPTS: usize = 3;

pub(crate) fn cases() -> Vec<Case> {
    let case = |call: &'static Call| -> Case {
        (format!("running: {}", call.name), Box::new(move || check_call(call)))
    };
    let short: Case = ("running: writes of one byte".to_owned(), Box::new(short_writes));
    RUNNING.iter().map(case).chain([short]).collect()
}

/// The calls of a round that fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    /// Only the n-th call of a round fails.
    Nth(u64),
    /// All calls from the n-th on fail, until the fault ends.
    From(u64),
}

/// One errno for some calls of one kind.
#[derive(Clone, Copy, Debug)]
struct Fault {
    call: &'static Call,
    errno: Errno,
    when: When,
}

const TIMES: [When; 5] = [When::Nth(1), When::Nth(2), When::Nth(7), When::From(1), When::From(4)];

fn short_writes() -> Outcome {
    let world = World::enter()?;
    let service = world.start(&[])?;
    let one_byte = |call| Rule::always(call, 1, Effect::OneByte);
    let wanted = |call: &&Call| matches!(call.name, "sendto" | "write of the log");
    service.supervisor.set_rules(RUNNING.iter().filter(wanted).map(one_byte).collect());
    let requests = world.requests();
    let pending = service.send_all(&requests);
    for (request, pending) in requests.iter().zip(pending) {
        request.judge(&pending.response(), Permit::default())?;
    }
    let is_complete = |line: &String| line.contains("msg=request") && line.contains("retried=0");
    until("every log record is complete", || {
        (service.log_lines().iter().filter(|line| is_complete(line)).count() >= 5).then_some(())
    });
    Ok(format!("{} writes of one byte", service.supervisor.seen().faults))
}

fn check_call(call: &'static Call) -> Outcome {
    let world = World::enter()?;
    let mut faults = String::new();
    let (mut done, mut not_injected, mut slowest) = (0, 0, Duration::ZERO);
    let mut service = world.start(&[])?;
    let pairs = call.errnos.iter().flat_map(|errno| TIMES.map(|when| (*errno, when)));
    let pairs = pairs.filter(|(errno, when)| !is_contract_violation(call, *errno, *when));
    for (errno, when) in pairs.step_by(stride()) {
        match repeat_if_slow(&world, &mut service, Fault { call, errno, when }) {
            Ok(Some(recovery)) => {
                done += 1;
                slowest = slowest.max(recovery);
            }
            Ok(None) => not_injected += 1,
            Err(what) => {
                let tail = service.log_tail();
                let _ = writeln!(faults, "  {when:?} {}: {what}\n{tail}", errno.0);
                service = world.start(&[])?;
            }
        }
    }
    if done == 0 {
        return Err("the service made none of these calls".into());
    }
    if !faults.is_empty() {
        return Err(format!("{done} faults were handled, but not these:\n{faults}").into());
    }
    Ok(format!(
        "{done} faults, {not_injected} not injected; recovery {} ms at most",
        slowest.as_millis()
    ))
}

/// Returns whether the fault would violate the contract of the kernel.
///
/// EAGAIN from a read, a write or an accept promises that the poller will report the socket later.
/// Where the call could have made progress, the injected fault would break that promise. It is
/// harmless where another edge follows anyway: at the first read from a client, and for an accept
/// if another client connects after the fault.
///
/// A second `connect` on a socket returns the outcome of the first. If it returns a false outcome,
/// the socket is still connecting while the service treats it as unused, which no kernel does.
fn is_contract_violation(call: &Call, (name, _): Errno, when: When) -> bool {
    let is_first = matches!(when, When::Nth(1) | When::From(1));
    let is_outcome = matches!(name, "ECONNREFUSED" | "ETIMEDOUT" | "EALREADY");
    if call.name == "connect of TCP" && is_outcome && !is_first {
        return true;
    }
    let has_edge = match call.name {
        "accept4" => matches!(when, When::From(_)),
        "recvfrom" => when == When::Nth(1),
        "sendto" => false,
        _ => true,
    };
    name == "EAGAIN" && !has_edge
}

fn repeat_if_slow(
    world: &World,
    service: &mut SupervisedService,
    fault: Fault,
) -> Result<Option<Duration>, String> {
    let mut slow = Duration::ZERO;
    for _ in 0..ATTEMPTS {
        match check_fault(world, service, fault)? {
            Some(recovery) if recovery > RECOVERY_MAX => slow = recovery,
            outcome => return Ok(outcome),
        }
    }
    Err(format!("{ATTEMPTS} recoveries were too slow, the last took {slow:?}"))
}

/// Injects one fault. Returns the time until the first good answer after its end, or nothing if the
/// service made too few of these calls.
fn check_fault(
    world: &World,
    service: &mut SupervisedService,
    fault: Fault,
) -> Result<Option<Duration>, String> {
    let Fault { call, errno, when } = fault;
    let before = service.supervisor.seen();
    let requests = world.requests();
    let (mut permit, effect) = (permit(call, errno), Effect::Fail(errno));
    let mut pending;
    let recovery = match when {
        When::Nth(n) => {
            service.set_rule(Rule::nth(call, n, effect));
            pending = service.send_all(&requests);
            Duration::ZERO
        }
        When::From(n) => {
            permit.failure = true;
            service.set_rule(Rule::always(call, n, effect));
            pending = service.send_all(&requests);
            let used = service.processor_time();
            std::thread::sleep(FAULT);
            let seen = service.supervisor.seen();
            let (ticks, calls) = (seen.ticks - before.ticks, seen.calls - before.calls);
            let used = service.processor_time().saturating_sub(used);
            let may_spin = call.number != EPOLL_WAIT;
            if may_spin && (ticks > TICKS_MAX || calls > CALLS_MAX || used > FAULT * 3 / 4) {
                return Err(format!(
                    "the service spins: {ticks} ticks, {calls} calls, {used:?} of {FAULT:?}"
                ));
            }
            service.supervisor.clear_rules();
            service.recovery()
        }
    };
    for (request, pending) in requests.iter().zip(pending.drain(..)) {
        request.judge(&pending.response(), permit)?;
    }
    service.supervisor.clear_rules();
    if !service.is_running() {
        return Err("the service has ended".to_owned());
    }
    let after = service.supervisor.seen();
    // Descriptors that a failed close could not free stay open. The harness causes this and counts
    // them.
    let expected = service.idle_descriptors + after.leaked;
    let mut found = 0;
    for _ in 0..2000 {
        found = service.descriptors();
        if found == expected {
            let is_injected = after.faults > before.faults;
            return Ok(is_injected.then_some(recovery));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Err(format!("{found} descriptors are open, expected {expected}"))
}

/// What an answer may report when this call fails with this errno.
fn permit(call: &Call, (name, _): Errno) -> Permit {
    let state = match (call.name, name) {
        ("connect of UDP", "EADDRNOTAVAIL") => Some(State::Unreachable),
        ("connect of TCP", "ECONNREFUSED") => Some(State::Closed),
        ("connect of TCP", "ETIMEDOUT") => Some(State::Filtered),
        // Linux reports a reset with these errnos only after the handshake was completed.
        ("connect of TCP", "ECONNRESET" | "EPIPE") => Some(State::Open),
        (
            "connect of TCP" | "connect of UDP",
            "EACCES" | "EPERM" | "ENETUNREACH" | "EHOSTUNREACH" | "EHOSTDOWN" | "ENETDOWN"
            | "ENONET" | "ENOPROTOOPT" | "EPROTO" | "EOPNOTSUPP" | "ENODEV" | "EINVAL"
            | "EAFNOSUPPORT",
        )
        | ("socket", "EAFNOSUPPORT") => Some(State::Unreachable),
        _ => None,
    };
    let is_transfer = matches!(call.name, "recvfrom" | "sendto");
    let passes = matches!(name, "EAGAIN" | "EINTR" | "ENOBUFS" | "ENOMEM");
    Permit { broken: is_transfer && !passes, state, failure: false }
}
