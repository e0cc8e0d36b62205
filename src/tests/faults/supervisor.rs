//! The supervisor decides about each call of a supervised process: it lets the call pass, lets it
//! fail, or executes a part of it.
//!
//! Each supervised process has one supervisor thread. Its rules may be replaced at any time, so
//! faults can begin and end while the process runs.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{OwnedFd, RawFd};
use std::os::unix::fs::FileExt;
use std::process::{Child, Command};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use socket2::{Socket, Type};

use crate::calls::{self, Call, Errno};
use crate::seccomp::{self, Calls, Decision, Notice};

/// The effect of a rule on a call.
#[derive(Clone, Debug)]
pub(crate) enum Effect {
    /// The call is not executed and fails with this errno. (A failed close still closes the file:
    /// Linux frees the descriptor whatever close returns.)
    Fail(Errno),
    /// One call in `one_in` fails, with a random errno of its manual pages that is not in `except`.
    Chance { random: Random, one_in: u64, except: &'static [i32] },
    /// The call transfers one byte of the requested bytes, if it is about a stream or a file.
    OneByte,
}

/// An effect, and the calls that it applies to.
#[derive(Clone, Debug)]
pub(crate) struct Rule {
    call: &'static Call,
    effect: Effect,
    /// The first call of this kind that the rule applies to, counted from 1.
    from: u64,
    /// The last call of this kind that the rule applies to.
    to: u64,
    seen: u64,
}

impl Rule {
    /// A rule for the n-th of these calls alone.
    pub(crate) const fn nth(call: &'static Call, n: u64, effect: Effect) -> Self {
        Self { call, effect, from: n, to: n, seen: 0 }
    }

    /// A rule for all of these calls from the n-th on.
    pub(crate) const fn always(call: &'static Call, n: u64, effect: Effect) -> Self {
        Self { call, effect, from: n, to: u64::MAX, seen: 0 }
    }

    /// Whether these calls transfer the bytes of clients.
    pub(crate) fn is_transfer(&self) -> bool {
        matches!(self.call.name, "recvfrom" | "sendto")
    }
}

/// A pseudorandom sequence from a seed (xorshift64*).
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) const fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % bound
    }
}

/// Counts of the calls that the process has made since `main` began.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Seen {
    /// Calls that were reported to the supervisor.
    pub(crate) calls: u64,
    /// Ticks of the event loop.
    pub(crate) ticks: u64,
    /// Calls that failed or were shortened by a rule.
    pub(crate) faults: u64,
    /// Descriptors that stay open because their close was made to fail.
    pub(crate) leaked: usize,
    /// Calls after the last signal.
    pub(crate) calls_after_signal: u64,
}

/// The rules and signals that apply from the beginning of `main` on.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(crate) rules: Vec<Rule>,
    /// The signals, in order, each with the count of calls (see `Seen::calls`) at which it is sent.
    pub(crate) signals: Vec<(u64, i32)>,
}

/// One errno for the n-th call of a kind.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NthFault {
    pub(crate) call: &'static Call,
    pub(crate) n: u64,
    pub(crate) errno: Errno,
}

impl NthFault {
    pub(crate) fn plan(self) -> Plan {
        let rules = vec![Rule::nth(self.call, self.n, Effect::Fail(self.errno))];
        Plan { rules, signals: Vec::new() }
    }
}

#[derive(Debug, Default)]
struct State {
    plan: Plan,
    has_begun: bool,
    is_held: bool,
    seen: Seen,
}

/// A handle of the supervisor of one process.
#[derive(Debug)]
pub(crate) struct Supervisor(Arc<(Mutex<State>, Condvar)>);

/// The memory and the descriptors of a supervised process.
#[derive(Debug)]
pub(crate) struct Process {
    id: u32,
    memory: File,
}

impl Process {
    fn open(id: u32) -> std::io::Result<Self> {
        let memory = File::options().read(true).write(true).open(format!("/proc/{id}/mem"))?;
        Ok(Self { id, memory })
    }

    /// The link of a descriptor in /proc; empty if the descriptor does not exist.
    pub(crate) fn link(&self, descriptor: RawFd) -> String {
        let link = std::fs::read_link(format!("/proc/{}/fd/{descriptor}", self.id));
        link.map_or_else(|_| String::new(), |path| path.to_string_lossy().into_owned())
    }

    /// The text at an address, up to its NUL byte.
    pub(crate) fn text(&self, at: u64) -> String {
        let mut bytes = Vec::new();
        let mut byte = [0];
        while self.memory.read_exact_at(&mut byte, at + bytes.len() as u64).is_ok() && byte[0] != 0
        {
            bytes.push(byte[0]);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Whether the call is about a stream socket.
    pub(crate) fn is_stream(notice: &Notice, process: &Self) -> bool {
        process.kind(notice) == Some(Type::STREAM)
    }

    /// Whether the call is about a datagram socket.
    pub(crate) fn is_datagrams(notice: &Notice, process: &Self) -> bool {
        process.kind(notice) == Some(Type::DGRAM)
    }

    /// A duplicate of a socket; `None` if the descriptor is not a socket.
    pub(crate) fn socket(&self, descriptor: RawFd) -> Option<Socket> {
        let is_socket = self.link(descriptor).starts_with("socket:");
        let borrowed = is_socket.then(|| seccomp::borrow_descriptor(self.id, descriptor));
        Some(Socket::from(borrowed?.ok()?))
    }

    fn kind(&self, notice: &Notice) -> Option<Type> {
        Socket::from(self.borrow(notice)?).r#type().ok()
    }

    fn borrow(&self, notice: &Notice) -> Option<OwnedFd> {
        seccomp::borrow_descriptor(self.id, notice.descriptor()).ok()
    }

    /// Transfers one byte of a read or a write; `None` if the call is about datagrams.
    fn transfer_one_byte(&self, notice: &Notice) -> Option<Decision> {
        let [_, at, len, flags, ..] = notice.args;
        if len == 0 {
            return None;
        }
        let mut byte = [0_u8];
        let done = match notice.call {
            libc::SYS_recvfrom => {
                let socket = stream(self.borrow(notice)?)?;
                (&socket).read(&mut byte)
            }
            libc::SYS_read => File::from(self.borrow(notice)?).read(&mut byte),
            libc::SYS_sendto => {
                let socket = stream(self.borrow(notice)?)?;
                self.memory.read_exact_at(&mut byte, at).ok()?;
                socket.send_with_flags(&byte, flags as i32)
            }
            libc::SYS_write => {
                self.memory.read_exact_at(&mut byte, at).ok()?;
                File::from(self.borrow(notice)?).write(&byte)
            }
            _ => return None,
        };
        let is_read = matches!(notice.call, libc::SYS_recvfrom | libc::SYS_read);
        Some(match done {
            Ok(count) => {
                if is_read && count == 1 {
                    self.memory.write_all_at(&byte, at).ok()?;
                }
                Decision::Return(count as i64)
            }
            Err(error) => Decision::Fail(error.raw_os_error()?),
        })
    }
}

fn stream(descriptor: OwnedFd) -> Option<Socket> {
    let socket = Socket::from(descriptor);
    (socket.r#type().ok()? == Type::STREAM).then_some(socket)
}

impl Supervisor {
    /// Starts a command under supervision.
    pub(crate) fn spawn(
        command: &mut Command,
        plan: Plan,
    ) -> Result<(Child, Self), Box<dyn std::error::Error>> {
        Self::spawn_reporting(command, plan, &calls::numbers())
    }

    /// Like [`Supervisor::spawn`], with the numbers of the calls that the filter reports.
    pub(crate) fn spawn_reporting(
        command: &mut Command,
        plan: Plan,
        numbers: &[i64],
    ) -> Result<(Child, Self), Box<dyn std::error::Error>> {
        let (child, calls) = seccomp::spawn(command, numbers)?;
        let state = State { plan, ..State::default() };
        let shared = Arc::new((Mutex::new(state), Condvar::new()));
        let process = Process::open(child.id())?;
        let thread_state = Arc::clone(&shared);
        std::thread::spawn(move || supervise(&calls, process, &thread_state));
        Ok((child, Self(shared)))
    }

    /// Replaces the rules.
    pub(crate) fn set_rules(&self, rules: Vec<Rule>) {
        self.state().plan.rules = rules;
    }

    /// Removes all rules, which ends every fault.
    pub(crate) fn clear_rules(&self) {
        self.set_rules(Vec::new());
    }

    /// Makes the process wait at its next call.
    pub(crate) fn hold(&self) {
        self.state().is_held = true;
    }

    /// Lets the process continue, and sends each signal after its number of further calls.
    pub(crate) fn release(&self, signals: &[(u64, i32)]) {
        let mut state = self.state();
        let now = state.seen.calls;
        state.plan.signals = signals.iter().map(|(after, signal)| (now + after, *signal)).collect();
        state.is_held = false;
        drop(state);
        self.0.1.notify_all();
    }

    pub(crate) fn seen(&self) -> Seen {
        self.state().seen
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.0.lock().expect("the supervisor thread does not panic")
    }
}

fn supervise(calls: &Calls, mut process: Process, (state, released): &(Mutex<State>, Condvar)) {
    let nothing = File::open("/dev/null").expect("/dev/null exists");
    while let Some(notice) = calls.next() {
        let mut state = state.lock().expect("no thread panics while it holds the lock");
        while state.is_held {
            state = released.wait(state).expect("no thread panics while it holds the lock");
        }
        // The file shows the memory of the program that ran when it was opened. Under nohup(1)
        // that is env(1), which then executes the service.
        if notice.call == calls::MAIN_BEGINS {
            process = Process::open(process.id).expect("the process waits for this call");
        }
        let decision = state.decide(&notice, &process);
        // The call returns an error, but its descriptor no longer refers to the socket.
        if notice.call == libc::SYS_close && matches!(decision, Decision::Fail(_)) {
            calls.replace(&notice, &nothing);
            state.seen.leaked += 1;
        }
        drop(state);
        calls.respond(&notice, decision);
    }
}

impl State {
    fn decide(&mut self, notice: &Notice, process: &Process) -> Decision {
        if !self.has_begun {
            self.has_begun = notice.call == calls::MAIN_BEGINS && notice.args[0] != 0;
            return Decision::Continue;
        }
        self.seen.calls += 1;
        self.seen.ticks += u64::from(notice.call == calls::EPOLL_WAIT);
        self.seen.calls_after_signal += 1;
        while let Some((at, signal)) = self.plan.signals.first().copied()
            && at <= self.seen.calls
        {
            self.plan.signals.remove(0);
            self.seen.calls_after_signal = 0;
            seccomp::kill(process.id, signal);
        }
        for rule in &mut self.plan.rules {
            if rule.call.number == notice.call && (rule.call.applies)(notice, process) {
                rule.seen += 1;
                if (rule.from..=rule.to).contains(&rule.seen)
                    && let Some(decision) = apply(rule, notice, process)
                {
                    self.seen.faults += 1;
                    return decision;
                }
            }
        }
        Decision::Continue
    }
}

fn apply(rule: &mut Rule, notice: &Notice, process: &Process) -> Option<Decision> {
    match &mut rule.effect {
        Effect::Fail((_, errno)) => Some(Decision::Fail(*errno)),
        Effect::OneByte => process.transfer_one_byte(notice),
        Effect::Chance { random, one_in, except } => {
            if random.below(*one_in) != 0 {
                return None;
            }
            let errnos = rule.call.errnos.iter().filter(|(_, errno)| !except.contains(errno));
            let errnos: Vec<i32> = errnos.map(|(_, errno)| *errno).collect();
            let place = random.below(errnos.len() as u64) as usize;
            Some(Decision::Fail(errnos[place]))
        }
    }
}
