//! Faults of `openports scan`: it prints the right result, or it reports the failure.

use std::io::Read;
use std::process::Stdio;

use crate::calls::{Call, PRINTING, RENAMING, RUNNING};
use crate::lab::HOST_ADDRESS;
use crate::process::{command, until};
use crate::supervisor::{NthFault, Supervisor};
use crate::world::World;
use crate::{Case, Outcome, stride};

/// The output of a scan without faults, except for the duration.
const EXPECTED: &str =
    r#""counts":{"open":2,"closed":2,"filtered":0,"unreachable":1,"untested":0}"#;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        ("shell: a scan".to_owned(), Box::new(check)),
        ("shell: a file that cannot be replaced".to_owned(), Box::new(check_output)),
    ]
}

fn check() -> Outcome {
    let world = World::enter()?;
    let wanted = ["socket", "getpeername", "getsockname", "epoll_ctl"];
    let calls = RUNNING.iter().filter(|call| wanted.contains(&call.name));
    let (mut right, mut failed) = (0, 0);
    let mut place = 0;
    for call in calls.chain([&PRINTING as &'static Call]) {
        for errno in call.errnos {
            for n in [1, 2, 3] {
                place += 1;
                if place % stride().min(4) != 0 {
                    continue;
                }
                match check_scan(&world, NthFault { call, n, errno: *errno })? {
                    0 => right += 1,
                    _ => failed += 1,
                }
            }
        }
    }
    assert!(right > failed, "most faults must be harmless: {right} results, {failed} failures");
    Ok(format!("{right} scans printed the right result, {failed} reported a failure"))
}

/// Scans the host of the lab; returns the exit code.
fn check_scan(world: &World, fault: NthFault) -> Result<i32, String> {
    let NthFault { call, n, errno } = fault;
    let host = HOST_ADDRESS.to_string();
    let conf = [world.folder.path("resolv.conf"), world.folder.path("hosts")];
    let ports = "22,80,21,23,9";
    let arguments = ["scan", &host, ports, "--json", "--retries", "0", "--timeout", "8s"];
    let arguments =
        arguments.iter().copied().chain(["--resolv-conf", &conf[0], "--hosts", &conf[1]]);
    let mut command = command(None, &arguments.collect::<Vec<_>>());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let (mut child, _supervisor) =
        Supervisor::spawn(&mut command, fault.plan()).map_err(|error| error.to_string())?;
    let status = until("the scan ends", || child.try_wait().expect("the child can be waited for"));
    let (mut stdout, mut stderr) = (String::new(), String::new());
    let _ = child.stdout.take().expect("stdout is piped").read_to_string(&mut stdout);
    let _ = child.stderr.take().expect("stderr is piped").read_to_string(&mut stderr);
    let is_unreachable = call.name == "socket" && errno.0 == "EAFNOSUPPORT";
    let is_right =
        stdout.contains(EXPECTED) || is_unreachable && stdout.contains("\"unreachable\":2");
    match status.code() {
        Some(0) if is_right => Ok(0),
        // A reader that closes the pipe wants no more output, for example `head`, so this is no
        // failure.
        Some(0) if errno.0 == "EPIPE" && call.name == PRINTING.name => Ok(0),
        Some(code) if code > 0 && !stderr.is_empty() => Ok(code),
        _ => Err(format!("{n}. {} {}: {status}, {stdout:?}, {stderr:?}", call.name, errno.0)),
    }
}

/// The results are in the output file, or in the file that the message names.
fn check_output() -> Outcome {
    let world = World::enter()?;
    let (mut replaced, mut kept) = (0, 0);
    for errno in RENAMING.errnos {
        let path = world.folder.write("out", "before");
        let host = HOST_ADDRESS.to_string();
        let mut command = command(None, &["scan", &host, "9", "--json", "-o", &path]);
        command.stderr(Stdio::piped());
        let fault = NthFault { call: &RENAMING, n: 1, errno: *errno };
        let (mut child, supervisor) = Supervisor::spawn(&mut command, fault.plan())?;
        let status =
            until("the scan ends", || child.try_wait().expect("the child can be waited for"));
        let mut stderr = String::new();
        child.stderr.take().expect("stderr is piped").read_to_string(&mut stderr)?;
        let what = format!("{}: {status}, {stderr:?}", errno.0);
        assert_eq!(supervisor.seen().faults, 1, "{what}");
        let output = std::fs::read_to_string(&path)?;
        let results = match status.code() {
            Some(0) => {
                replaced += 1;
                output
            }
            Some(_) | None => {
                assert_eq!(output, "before", "{what}");
                kept += 1;
                let name = stderr.trim_end().strip_suffix('"').and_then(|it| it.rsplit('"').next());
                let name = name.ok_or_else(|| what.clone())?;
                let results = std::fs::read_to_string(name)?;
                std::fs::remove_file(name)?;
                results
            }
        };
        assert!(results.ends_with("}\n") && results.contains("\"unreachable\":1"), "{what}");
    }
    Ok(format!("{replaced} files were written in place, {kept} scans named the kept file"))
}
