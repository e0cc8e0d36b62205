//! Faults of the SYN engine and of the netlink socket of the drop monitor.
//!
//! Each round scans the same ports with both techniques at once. A port in an answer has its true
//! state or is `untested`. After the end of a fault, a new round must have every true state, so a
//! fault must not leave a raw socket, a source port or the drop monitor unusable. This file has its
//! own list of calls, because the filter of the other cases does not report them.

use std::fmt::Write as _;
use std::io::Read;
use std::process::Stdio;
use std::time::{Duration, Instant};

use socket2::{Domain, Type};

use crate::calls::{self, Call, Errno};
use crate::lab::HOST_ADDRESS;
use crate::process::{command, until};
use crate::seccomp::{Notice, kill};
use crate::supervisor::{Effect, NthFault, Plan, Process, Rule, Supervisor};
use crate::world::{Permit, Request, Response, State, SupervisedService, World};
use crate::{Case, Outcome, stride};

/// The duration of a lasting fault.
const FAULT: Duration = Duration::from_millis(100);
/// A round after a fault ends within this time. An answer that a fault kept in the queue is read
/// when the SYN is repeated, which is after one second.
const ROUND_MAX: Duration = Duration::from_secs(3);
/// A health check after a fault is answered within this time.
const RECOVERY_MAX: Duration = Duration::from_secs(1);
/// A busy machine is slow once, but a service that sleeps too long is slow in every attempt.
const ATTEMPTS: usize = 3;
/// The limits of ticks and of calls during a lasting fault; the retries follow a backoff.
const TICKS_MAX: u64 = 600;
/// See [`TICKS_MAX`].
const CALLS_MAX: u64 = 4000;
/// The limits of scans that cannot succeed.
const LIMITS_SHORT: &str = "timeout=500ms&deadline=500ms";
/// Two raw sockets, and a TCP socket for each source port: scans that probe one port of a host at
/// the same time need a source port each.
const SYN_DESCRIPTORS_MAX: usize = 2 + 5;
/// The counts of a scan without a single SYN.
const UNTESTED: &str = r#""counts":{"open":0,"closed":0,"filtered":0,"unreachable":0,"untested":"#;
/// The counts of the command `scan`.
const RIGHT: &str = r#""counts":{"open":2,"closed":2,"filtered":0,"unreachable":1,"untested":0}"#;
/// The exit code for an error of the operating system (sysexits.h).
const EX_OSERR: i32 = 71;

macro_rules! errnos {
    ($($name:ident)*) => { &[$((stringify!($name), libc::$name)),*] };
}

/// socket(2), and raw(7) and ip(7) about it.
const SOCKET: &[Errno] = errnos![
    EPERM EACCES EAFNOSUPPORT EINVAL EMFILE ENFILE ENOBUFS ENOMEM EPROTONOSUPPORT ESOCKTNOSUPPORT
    ENOPKG
];
const SET_OPTION: &[Errno] =
    errnos![EBADF EFAULT EINVAL ENOPROTOOPT ENOTSOCK ENOMEM ENOBUFS EPERM EACCES EOPNOTSUPP];
/// bind(2) and ip(7).
const BIND: &[Errno] =
    errnos![EACCES EADDRINUSE EBADF EINVAL ENOTSOCK EADDRNOTAVAIL EFAULT EPERM ENOMEM];
const GET_OPTION: &[Errno] = errnos![EBADF EFAULT EINVAL ENOPROTOOPT ENOTSOCK];
/// send(2), raw(7), ip(7), and packet(7) about the interface. After an injected EAGAIN the poller
/// reports no space.
const SEND: &[Errno] = errnos![
    EACCES EAGAIN EALREADY EBADF ECONNRESET EDESTADDRREQ EFAULT EINTR EINVAL EISCONN EMSGSIZE
    ENOBUFS ENOMEM ENOTCONN ENOTSOCK EOPNOTSUPP EPIPE EPERM EPROTO EHOSTUNREACH ENETUNREACH
    ENETDOWN ECONNREFUSED EADDRNOTAVAIL ENODEV ENXIO ENOENT
];
/// recv(2), raw(7) and packet(7).
const RECEIVE: &[Errno] = errnos![
    EAGAIN EBADF ECONNREFUSED EFAULT EINTR EINVAL ENOMEM ENOTCONN ENOTSOCK EPROTO ENETDOWN
    EHOSTUNREACH EMSGSIZE
];
/// netlink(7) adds ENOBUFS for a full receive buffer.
const RECEIVE_NETLINK: &[Errno] =
    errnos![EAGAIN EBADF ECONNREFUSED EFAULT EINTR EINVAL ENOMEM ENOTCONN ENOTSOCK ENOBUFS];
const SEND_NETLINK: &[Errno] = errnos![
    EACCES EAGAIN EBADF ECONNREFUSED ECONNRESET EDESTADDRREQ EFAULT EINTR EINVAL EISCONN EMSGSIZE
    ENOBUFS ENOMEM ENOTCONN ENOTSOCK EOPNOTSUPP EPERM EPIPE
];
const POLLER: &[Errno] = errnos![EBADF EEXIST EINVAL ELOOP ENOENT ENOMEM ENOSPC EPERM];
const CAPABILITY: &[Errno] = errnos![EPERM EFAULT EINVAL ESRCH];
const OPEN: &[Errno] = errnos![
    EACCES EBUSY EFAULT EINTR EINVAL ELOOP EMFILE ENAMETOOLONG ENFILE ENODEV ENOENT ENOMEM ENOTDIR
    ENXIO EOPNOTSUPP EOVERFLOW EPERM EIO
];
const READ: &[Errno] = errnos![EAGAIN EBADF EFAULT EINTR EINVAL EIO EISDIR];

type Applies = fn(&Notice, &Process) -> bool;

const fn call(name: &'static str, number: i64, applies: Applies, errnos: &'static [Errno]) -> Call {
    Call { name, number, applies, errnos }
}

/// The calls that open the sockets of the engine. A service makes them once, before the first SYN.
const OPENING: &[Call] = &[
    call("socket", libc::SYS_socket, |notice, _| is_new(notice, &IP, libc::SOCK_RAW), SOCKET),
    call("capget", libc::SYS_capget, |_, _| true, CAPABILITY),
    call("capset", libc::SYS_capset, |_, _| true, CAPABILITY),
    call(
        "setsockopt",
        libc::SYS_setsockopt,
        |notice, process| is_raw(notice.descriptor(), process),
        SET_OPTION,
    ),
    call(
        "socket of a source port",
        libc::SYS_socket,
        // The connect engine and the route lookups open sockets that do not block.
        |notice, _| {
            let blocks = notice.args[1] as i32 & libc::SOCK_NONBLOCK == 0;
            blocks && is_new(notice, &IP, libc::SOCK_STREAM)
        },
        SOCKET,
    ),
    call("bind of a source port", libc::SYS_bind, |_, _| true, BIND),
    call(
        "epoll_ctl",
        libc::SYS_epoll_ctl,
        |notice, process| is_raw(notice.args[2] as i32, process),
        POLLER,
    ),
    call(
        "getsockopt",
        libc::SYS_getsockopt,
        |notice, process| is_raw(notice.descriptor(), process),
        GET_OPTION,
    ),
];

/// The calls of each scan.
const SCANNING: &[Call] = &[
    call("sendmmsg", libc::SYS_sendmmsg, |notice, process| !is_over_ipv6(notice, process), SEND),
    call("sendmmsg over IPv6", libc::SYS_sendmmsg, is_over_ipv6, SEND),
    call("recvmmsg of packets", libc::SYS_recvmmsg, |notice, _| !is_error_queue(notice), RECEIVE),
    call("recvmmsg of errors", libc::SYS_recvmmsg, |notice, _| is_error_queue(notice), RECEIVE),
];

/// The calls of the drop monitor.
const MONITORING: &[Call] = &[
    call(
        "netlink socket",
        libc::SYS_socket,
        |notice, _| is_new(notice, &[libc::AF_NETLINK], libc::SOCK_DGRAM),
        SOCKET,
    ),
    call("netlink sendto", libc::SYS_sendto, is_of_monitor, SEND_NETLINK),
    call("netlink recvfrom", libc::SYS_recvfrom, is_of_monitor, RECEIVE_NETLINK),
    call(
        "open of conntrack",
        libc::SYS_openat,
        |notice, process| process.text(notice.args[1]).ends_with("nf_conntrack"),
        OPEN,
    ),
    call(
        "read of conntrack",
        libc::SYS_read,
        |notice, process| process.link(notice.descriptor()).ends_with("nf_conntrack"),
        READ,
    ),
];

const IP: [i32; 2] = [libc::AF_INET, libc::AF_INET6];

/// Whether a socket(2) opens a socket of one of these domains, and of this type.
fn is_new(notice: &Notice, domains: &[i32], kind: i32) -> bool {
    domains.contains(&(notice.args[0] as i32)) && notice.args[1] as i32 & 0xf == kind
}

fn is_raw(descriptor: i32, process: &Process) -> bool {
    let socket = process.socket(descriptor);
    let is_netlink = |domain| domain == Domain::from(libc::AF_NETLINK);
    socket.is_some_and(|socket| {
        socket.r#type().ok() == Some(Type::RAW) && !socket.domain().is_ok_and(is_netlink)
    })
}

fn is_over_ipv6(notice: &Notice, process: &Process) -> bool {
    let socket = process.socket(notice.descriptor());
    socket.is_some_and(|socket| socket.domain().ok() == Some(Domain::IPV6))
}

fn is_of_monitor(notice: &Notice, process: &Process) -> bool {
    let socket = process.socket(notice.descriptor());
    socket.is_some_and(|socket| {
        let is_netlink = socket.domain().ok() == Some(Domain::from(libc::AF_NETLINK));
        is_netlink && socket.r#type().ok() == Some(Type::DGRAM)
    })
}

const fn is_error_queue(notice: &Notice) -> bool {
    notice.args[3] as i32 & libc::MSG_ERRQUEUE != 0
}

/// The calls that the filter reports in these cases.
fn numbers() -> Vec<i64> {
    let own = OPENING.iter().chain(SCANNING).chain(MONITORING).map(|call| call.number);
    let mut numbers: Vec<i64> = calls::numbers().into_iter().chain(own).collect();
    numbers.sort_unstable();
    numbers.dedup();
    numbers
}

pub(crate) fn cases() -> Vec<Case> {
    let case = |kind: Kind, call: &'static Call| -> Case {
        (format!("syn: {}", call.name), Box::new(move || check_call(kind, call)))
    };
    let scanning = SCANNING.iter().map(|call| case(Kind::Scanning, call));
    let opening = OPENING.iter().map(|call| case(Kind::Opening, call));
    let monitoring = MONITORING.iter().map(|call| case(Kind::Monitoring, call));
    let others: [Case; 3] = [
        ("syn: denied for good".to_owned(), Box::new(denied)),
        ("syn: startup".to_owned(), Box::new(startup)),
        ("syn: a signal with each call".to_owned(), Box::new(signals)),
    ];
    scanning.chain(opening).chain(monitoring).chain(others).collect()
}

/// When a service makes a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Before its first SYN, so each fault needs a new service.
    Opening,
    Scanning,
    /// In the first reading, and at intervals. After a fault the monitor waits for a minute, so
    /// each fault needs a new service.
    Monitoring,
}

/// The calls of a round that fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    /// Only the n-th call of a round fails.
    Nth(u64),
    /// All calls fail until the fault ends.
    Lasting,
}

#[derive(Clone, Copy, Debug)]
struct Fault {
    kind: Kind,
    call: &'static Call,
    errno: Errno,
    when: When,
}

impl Fault {
    const fn rule(&self) -> Rule {
        let effect = Effect::Fail(self.errno);
        match self.when {
            When::Nth(n) => Rule::nth(self.call, n, effect),
            When::Lasting => Rule::always(self.call, 1, effect),
        }
    }

    /// Whether std repeats the call for as long as it fails: it repeats an open(2) and a read(2) of
    /// a file that a signal interrupted. No kernel interrupts these calls without a signal.
    fn spins(&self) -> bool {
        self.errno.0 == "EINTR" && self.call.name.ends_with("of conntrack")
    }

    /// What an answer by SYN may report. A port is untested only if the engine lacks a socket.
    fn permit(&self) -> Permit {
        // The kernel has no such version of IP. No other errno says anything about a target.
        let is_without_ip = self.call.name == "socket" && self.errno.0 == "EAFNOSUPPORT";
        let state = is_without_ip.then_some(State::Unreachable);
        let failure = self.when == When::Lasting && self.kind != Kind::Monitoring;
        Permit { state, failure, ..Permit::default() }
    }
}

fn start(world: &World, more: &[&str]) -> Result<SupervisedService, Box<dyn std::error::Error>> {
    let words = world.arguments();
    let words: Vec<&str> = words.iter().map(String::as_str).chain(more.iter().copied()).collect();
    let mut command = command(None, &words);
    command.stderr(Stdio::piped());
    let (child, supervisor) =
        Supervisor::spawn_reporting(&mut command, Plan::default(), &numbers())?;
    World::await_announcement(child, supervisor)
}

/// The scans of a round by SYN, and the same scans by connect beside a health check.
struct Round {
    by_syn: Vec<Request>,
    by_connect: Vec<Request>,
}

impl Round {
    fn new(world: &World) -> Self {
        let by_connect = world.requests();
        let scans = by_connect.iter().filter(|request| request.target.contains("ports="));
        let by_syn = scans.cloned().chain([World::request_over_ipv6()]).map(|mut request| {
            request.target.push_str("&technique=syn");
            request
        });
        Self { by_syn: by_syn.collect(), by_connect }
    }

    /// Asks everything at once, and judges the answers after `meanwhile`.
    fn ask(
        &self,
        service: &mut SupervisedService,
        permit: Permit,
        meanwhile: impl FnOnce(&mut SupervisedService) -> Result<(), String>,
    ) -> Result<(), String> {
        let by_syn = service.send_all(&self.by_syn);
        let by_connect = service.send_all(&self.by_connect);
        meanwhile(service)?;
        for (request, pending) in self.by_connect.iter().zip(by_connect) {
            request.judge(&pending.response(), Permit::default())?;
        }
        for (request, pending) in self.by_syn.iter().zip(by_syn) {
            request.judge(&pending.response(), permit)?;
        }
        Ok(())
    }
}

fn check_call(kind: Kind, call: &'static Call) -> Outcome {
    let world = World::enter()?;
    let mut service = None;
    let (mut done, mut unmet, mut slowest, mut faults) = (0, 0, Duration::ZERO, String::new());
    let times: &[When] = match kind {
        Kind::Scanning => &[When::Nth(1), When::Nth(2), When::Lasting],
        Kind::Opening => call_times(call),
        Kind::Monitoring => &[When::Nth(1), When::Lasting],
    };
    let pairs = call.errnos.iter().flat_map(|errno| times.iter().map(|when| (*errno, *when)));
    for (errno, when) in pairs.step_by(stride()) {
        let mut running = match service.take().filter(|_| kind == Kind::Scanning) {
            Some(running) => running,
            None => start(&world, &[])?,
        };
        match repeat_if_slow(&world, &mut running, Fault { kind, call, errno, when }) {
            Ok(Some(took)) => {
                done += 1;
                slowest = slowest.max(took);
                service = Some(running);
            }
            Ok(None) => {
                unmet += 1;
                service = Some(running);
            }
            Err(what) => {
                let tail = running.log_tail();
                writeln!(faults, "  {when:?} {}: {what}\n{tail}", errno.0)?;
            }
        }
    }
    if !faults.is_empty() {
        return Err(format!("after {done} faults without a failure:\n{faults}").into());
    }
    if done == 0 {
        return Err("the service made none of these calls".into());
    }
    Ok(format!("{done} faults, {unmet} not met; a round after one {} ms", slowest.as_millis()))
}

/// The calls of an opening that fail: several options are set, capset(2) raises and lowers the
/// capability, and scans at the same time reserve several source ports. Two and four have no common
/// divisor with the usual stride, so that a plain run meets each of them.
fn call_times(call: &Call) -> &'static [When] {
    match call.name {
        "setsockopt" | "capset" | "socket of a source port" | "bind of a source port" => {
            &[When::Nth(1), When::Nth(2), When::Nth(3), When::Lasting]
        }
        _ => &[When::Nth(1), When::Lasting],
    }
}

fn repeat_if_slow(
    world: &World,
    service: &mut SupervisedService,
    fault: Fault,
) -> Result<Option<Duration>, String> {
    let mut slow = Duration::ZERO;
    for _ in 0..ATTEMPTS {
        match check_fault(world, service, fault)? {
            Some(took) if took > ROUND_MAX => slow = took,
            outcome => return Ok(outcome),
        }
    }
    Err(format!("{ATTEMPTS} rounds after the fault were too slow, the last took {slow:?}"))
}

/// Injects one fault. Returns the duration of the first round after it, or nothing if the service
/// made too few of these calls.
fn check_fault(
    world: &World,
    service: &mut SupervisedService,
    fault: Fault,
) -> Result<Option<Duration>, String> {
    let before = service.supervisor.seen();
    service.set_rule(fault.rule());
    Round::new(world).ask(service, fault.permit(), |service| match fault.when {
        When::Nth(_) => Ok(()),
        When::Lasting => check_lasting_fault(service, fault.spins()),
    })?;
    service.supervisor.clear_rules();
    let began = Instant::now();
    Round::new(world).ask(service, Permit::default(), |_| Ok(()))?;
    let took = began.elapsed();
    if !service.is_running() {
        return Err("the service has ended".to_owned());
    }
    let after = service.supervisor.seen();
    let most = service.idle_descriptors + after.leaked + SYN_DESCRIPTORS_MAX;
    let began = Instant::now();
    while service.descriptors() > most {
        if began.elapsed() > ROUND_MAX {
            let found = service.descriptors();
            return Err(format!("{found} descriptors are open, expected at most {most}"));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok((after.faults > before.faults).then_some(took))
}

/// Waits during a lasting fault, then ends it. The service must not spin meanwhile unless it
/// `spins` as std does, and it answers a health check afterwards.
fn check_lasting_fault(service: &mut SupervisedService, spins: bool) -> Result<(), String> {
    let (before, used) = (service.supervisor.seen(), service.processor_time());
    std::thread::sleep(FAULT);
    let seen = service.supervisor.seen();
    let (ticks, calls) = (seen.ticks - before.ticks, seen.calls - before.calls);
    let used = service.processor_time().saturating_sub(used);
    if !spins && (ticks > TICKS_MAX || calls > CALLS_MAX) {
        return Err(format!("it spins: {ticks} ticks, {calls} calls, {used:?} of {FAULT:?}"));
    }
    service.supervisor.clear_rules();
    let recovery = service.recovery();
    if recovery > RECOVERY_MAX {
        return Err(format!("the first health check after the fault took {recovery:?}"));
    }
    Ok(())
}

/// No raw socket can be opened until the deadline of the scans: every port is untested. After the
/// end of the denial the same service scans with SYNs.
fn denied() -> Outcome {
    let world = World::enter()?;
    let denials = [("socket", "EPERM"), ("socket", "EACCES"), ("capset", "EPERM")];
    for (name, errno) in denials {
        let call = OPENING.iter().find(|call| call.name == name).ok_or("no such call")?;
        let errno = call.errnos.iter().find(|(name, _)| *name == errno).ok_or("no such errno")?;
        let mut service = start(&world, &[])?;
        service.set_rule(Rule::always(call, 1, Effect::Fail(*errno)));
        let mut round = Round::new(&world);
        for request in &mut round.by_syn {
            request.target = request.target.replace("timeout=8s&deadline=40s", LIMITS_SHORT);
        }
        let by_syn = service.send_all(&round.by_syn);
        let by_connect = service.send_all(&round.by_connect);
        for (request, pending) in round.by_connect.iter().zip(by_connect) {
            request.judge(&pending.response(), Permit::default())?;
        }
        for (request, pending) in round.by_syn.iter().zip(by_syn) {
            let response = pending.response();
            request.judge(&response, Permit { failure: true, ..Permit::default() })?;
            let Response::Complete(_, body) = &response else {
                return Err(format!("{response:?}").into());
            };
            assert!(body.contains(UNTESTED), "{} {}: {body}", call.name, errno.0);
        }
        service.supervisor.clear_rules();
        Round::new(&world).ask(&mut service, Permit::default(), |_| Ok(()))?;
    }
    Ok(format!("{} denials", denials.len()))
}

/// The command `scan` and the service with the technique `syn`: a start succeeds, or it ends with
/// one line. The line names the capability if that is missing.
fn startup() -> Outcome {
    let world = World::enter()?;
    let host = HOST_ADDRESS.to_string();
    let scan = ["scan", "--technique", "syn", &host, "22,80,21,23,9", "--json"];
    let serve = ["--listen", "127.0.0.1:0", "--technique", "syn"];
    let calls = OPENING.iter().filter(|call| matches!(call.name, "socket" | "capget" | "capset"));
    let (mut place, mut good, mut refused) = (0, 0, 0);
    for call in calls {
        let faults = call.errnos.iter().flat_map(|errno| [1, 2, 3].map(|n| (*errno, n)));
        for (errno, n) in faults {
            for words in [&scan[..], &serve[..]] {
                place += 1;
                // A prime number of places, so that each command and each n is in every share.
                if place % (stride() | 1).min(5) != 0 {
                    continue;
                }
                match check_start(&world, words, NthFault { call, n, errno })? {
                    0 => good += 1,
                    _ => refused += 1,
                }
            }
        }
    }
    assert!(good > 0 && refused > 0, "{good} starts succeeded, {refused} ended");
    Ok(format!("{good} starts succeeded, {refused} ended with {EX_OSERR}"))
}

/// Returns the exit code, which is 0 for a service that serves.
fn check_start(world: &World, words: &[&str], fault: NthFault) -> Result<i32, String> {
    let NthFault { call, n, errno } = fault;
    let files = [world.folder.path("resolv.conf"), world.folder.path("hosts")];
    let files = ["--resolv-conf", &files[0], "--hosts", &files[1]];
    let words: Vec<&str> = words.iter().copied().chain(files).collect();
    let mut command = command(None, &words);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let (mut child, supervisor) =
        Supervisor::spawn_reporting(&mut command, fault.plan(), &numbers())
            .map_err(|error| error.to_string())?;
    let is_scan = words[0] == "scan";
    let status = until("the process serves or ends", || {
        if let Some(status) = child.try_wait().expect("the child can be waited for") {
            return Some(status.code());
        }
        // The service waits for events once it serves.
        let serves = !is_scan && supervisor.seen().ticks > 0;
        serves.then(|| {
            kill(child.id(), libc::SIGTERM);
            child.wait().expect("the child can be waited for").code()
        })
    });
    let (mut stdout, mut stderr) = (String::new(), String::new());
    let _ = child.stdout.take().expect("stdout is piped").read_to_string(&mut stdout);
    let _ = child.stderr.take().expect("stderr is piped").read_to_string(&mut stderr);
    let response: Vec<&str> = stderr.lines().filter(|line| !line.starts_with("ts=")).collect();
    let names = call.name != "socket" || matches!(errno.0, "EPERM" | "EACCES");
    let is_right = match status {
        Some(0) => !is_scan || stdout.contains(RIGHT),
        Some(EX_OSERR) => match response.as_slice() {
            [line] => {
                line.starts_with("openports: --technique syn: ")
                    && line.contains("CAP_NET_RAW") == names
            }
            _ => false,
        },
        _ => false,
    };
    match status.filter(|_| is_right) {
        Some(code) => Ok(code),
        None => Err(format!(
            "{} with {n}. {} {}: {status:?}, {stdout:?}, {stderr:?}",
            words[0], call.name, errno.0
        )),
    }
}

/// SIGTERM at a call of a round: every request is answered, and the service ends with 0.
fn signals() -> Outcome {
    let world = World::enter()?;
    let permit = Permit { failure: true, ..Permit::default() };
    let before = start(&world, &[])?;
    let started = before.supervisor.seen().calls;
    let round = Round::new(&world);
    for (request, pending) in round.by_syn.iter().zip(before.send_all(&round.by_syn)) {
        request.judge(&pending.response(), Permit::default())?;
    }
    let calls = before.supervisor.seen().calls - started;
    drop(before);
    let mut count = 0;
    for at in (1..=calls).step_by(11 * stride()) {
        let mut service = start(&world, &[])?;
        let round = Round::new(&world);
        service.supervisor.hold();
        let pending = service.send_all(&round.by_syn);
        service.supervisor.release(&[(at, libc::SIGTERM)]);
        for (request, pending) in round.by_syn.iter().zip(pending) {
            let response = request.judge(&pending.response(), permit);
            response.map_err(|what| format!("with call {at}: {what}\n{}", service.log_tail()))?;
        }
        // The round may have had fewer calls this time, so the signal may not have been sent.
        service.supervisor.release(&[]);
        let is_logged = service.log_lines().iter().any(|line| line.contains("draining"));
        if !is_logged && service.is_running() {
            kill(service.child.id(), libc::SIGTERM);
        }
        assert_eq!(service.wait().code(), Some(0), "with call {at}");
        count += 1;
    }
    Ok(format!("{count} of {calls} calls"))
}
