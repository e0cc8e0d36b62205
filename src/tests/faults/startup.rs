//! Faults while the service starts: the service serves, or it ends with one line on stderr and exit
//! code 71, and it leaves no socket file behind.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Stdio;

use crate::calls::{Call, RUNNING, STARTING};
use crate::process::{command, until};
use crate::supervisor::{NthFault, Supervisor};
use crate::world::World;
use crate::{Case, Outcome, stride};

/// The exit code for an error of the operating system (sysexits.h).
const EX_OSERR: i32 = 71;
/// Only the first calls of a kind are tested, up to this number.
const CALLS_MAX: u64 = 16;

pub(crate) fn cases() -> Vec<Case> {
    let case = |call: &'static Call| -> Case {
        (format!("startup: {}", call.name), Box::new(move || check_call(call)))
    };
    let shared = ["socket", "setsockopt", "getsockname", "epoll_ctl"];
    let shared = RUNNING.iter().filter(move |call| shared.contains(&call.name));
    STARTING.iter().chain(shared).map(case).collect()
}

fn check_call(call: &'static Call) -> Outcome {
    let world = World::enter()?;
    let (mut served, mut refused, mut faults) = (0, 0, String::new());
    let mut index = 0;
    for n in 1..=CALLS_MAX {
        let mut is_injected = false;
        for errno in call.errnos {
            index += 1;
            // The first errno is always tested, which shows whether the service makes an n-th call.
            if index % stride() != 0 && *errno != call.errnos[0] {
                continue;
            }
            match check_start(&world, NthFault { call, n, errno: *errno }) {
                Ok(StartOutcome::NotInjected) => continue,
                Ok(StartOutcome::Serving) => served += 1,
                Ok(StartOutcome::Refused) => refused += 1,
                Err(what) => writeln!(faults, "  {n}. {}: {what}", errno.0)?,
            }
            is_injected = true;
        }
        if !is_injected {
            break;
        }
    }
    if !faults.is_empty() {
        return Err(
            format!("{} starts were correct, but not these:\n{faults}", served + refused).into()
        );
    }
    if served + refused == 0 {
        return Err("the service made none of these calls".into());
    }
    Ok(format!("{served} starts succeeded, {refused} starts ended with {EX_OSERR}"))
}

enum StartOutcome {
    /// The service made fewer calls of this kind.
    NotInjected,
    Serving,
    Refused,
}

fn check_start(world: &World, fault: NthFault) -> Result<StartOutcome, String> {
    let path = world.folder.path("socket");
    // The file of a socket without a listener: the service replaces it.
    let _ = std::fs::remove_file(&path);
    drop(UnixListener::bind(&path).map_err(|error| error.to_string())?);
    // The identity includes the time, because a free inode number is soon used for another file.
    let identity = || {
        let file = std::fs::symlink_metadata(&path).ok()?;
        Some((file.ino(), file.mtime(), file.mtime_nsec()))
    };
    let stale = identity();
    let arguments = world.arguments_for_all();
    let mut command = command(None, &arguments.iter().map(String::as_str).collect::<Vec<_>>());
    command.stderr(Stdio::piped());
    let (mut child, supervisor) =
        Supervisor::spawn(&mut command, fault.plan()).map_err(|error| error.to_string())?;
    let status = until("the service serves or ends", || {
        if let Some(status) = child.try_wait().expect("the child can be waited for") {
            return Some(Some(status));
        }
        is_healthy(&path).then_some(None)
    });
    let is_injected = supervisor.seen().faults > 0;
    let Some(status) = status else {
        let _ = child.kill();
        let _ = child.wait();
        return Ok(if is_injected { StartOutcome::Serving } else { StartOutcome::NotInjected });
    };
    let mut stderr = String::new();
    let _ = child.stderr.take().expect("stderr is piped").read_to_string(&mut stderr);
    // The log lines, if there are any, are not counted.
    let lines: Vec<&str> = stderr.lines().filter(|line| !line.starts_with("ts=")).collect();
    let is_one_line = matches!(lines.as_slice(), [line] if line.starts_with("openports: "));
    if status.code() != Some(EX_OSERR) || !is_one_line {
        return Err(format!("{status}, and {stderr:?}"));
    }
    let left = identity();
    if left.is_some() && left != stale {
        return Err(format!("the file of the socket is left behind: {stderr:?}"));
    }
    Ok(StartOutcome::Refused)
}

/// Whether a health check over this socket is answered with 200.
fn is_healthy(path: &str) -> bool {
    let Ok(mut stream) = UnixStream::connect(path) else { return false };
    let sent = stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    let mut answer = String::new();
    sent.is_ok() && stream.read_to_string(&mut answer).is_ok() && answer.contains(" 200 ")
}
