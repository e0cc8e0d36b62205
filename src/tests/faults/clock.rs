//! Tests a start of the service on a machine whose monotonic clock has run for a long time.
//!
//! Deadlines follow CLOCK_MONOTONIC. It never jumps while a process runs, but its first value can
//! be large. The wall clock is used for log records and `Date` alone; the simulation sets it at
//! random.

use std::process::{Command, Stdio};

use crate::process::command;
use crate::supervisor::{Plan, Supervisor};
use crate::world::{Permit, World};
use crate::{Case, Outcome};

/// The ages of the clock in seconds: zero, one month, ten years, and the maximum that the kernel
/// accepts, 146 years.
const AGES: [&str; 4] = ["0", "2592000", "315360000", "4600000000"];

/// The error where time namespaces are not available.
#[derive(Debug)]
pub(crate) struct Unavailable;

impl std::fmt::Display for Unavailable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("`unshare --time` does not work here")
    }
}

impl std::error::Error for Unavailable {}

pub(crate) fn cases() -> Vec<Case> {
    vec![("clock: a machine that has run for a long time".to_owned(), Box::new(check))]
}

fn check() -> Outcome {
    let world = World::enter()?;
    for age in AGES {
        let mut unshare_args = vec!["--time", "--monotonic", age, "--"];
        let probe =
            Command::new("unshare").args(&unshare_args).arg("true").stderr(Stdio::null()).status();
        if !probe.is_ok_and(|status| status.success()) {
            return Err(Unavailable.into());
        }
        let arguments = world.arguments();
        let service = command(None, &arguments.iter().map(String::as_str).collect::<Vec<_>>());
        let binary = service.get_program().to_str().ok_or("the path is not UTF-8")?.to_owned();
        unshare_args.push(&binary);
        let mut command = Command::new("unshare");
        command.args(&unshare_args).args(service.get_args()).stderr(Stdio::piped());
        let (child, supervisor) = Supervisor::spawn(&mut command, Plan::default())?;
        let service = World::await_announcement(child, supervisor)?;
        let requests = world.requests();
        let pending = service.send_all(&requests);
        for (request, pending) in requests.iter().zip(pending) {
            request.judge(&pending.response(), Permit::default())?;
        }
    }
    Ok(format!("{} ages", AGES.len()))
}
