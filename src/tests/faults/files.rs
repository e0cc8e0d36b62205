//! Faults of the files that the service reads while it runs: the last good content stays in use.

use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::calls::{Call, Errno, FILES};
use crate::supervisor::{Effect, Rule};
use crate::world::{Permit, World};
use crate::{Case, Outcome};

/// This is longer than `limits::NAME_FILES_AGE_MAX`, after which the service reads the files again.
const AGE: Duration = Duration::from_millis(5100);
/// The service must have read the files again by then.
const READ_WITHIN: Duration = Duration::from_secs(30);

pub(crate) fn cases() -> Vec<Case> {
    vec![("files: while the service runs".to_owned(), Box::new(check))]
}

fn check() -> Outcome {
    let world = World::enter()?;
    let faults = FILES.iter().flat_map(|call| call.errnos.iter().map(move |errno| (call, *errno)));
    // The service treats a missing file as an empty file, so ENOENT is not a fault.
    let faults = faults.filter(|(call, errno)| errno.0 != "ENOENT" || call.name.contains("token"));
    let faults: Vec<(&'static Call, Errno)> = faults.collect();
    let all = 0..faults.len();
    let started: Result<Vec<_>, _> = all
        .step_by(crate::stride().min(3))
        .map(|place| {
            let service = world.start(&["--token-file", &world.folder.path("token")])?;
            round(&world, &service)?;
            Ok::<_, Box<dyn std::error::Error>>((faults[place], service))
        })
        .collect();
    let mut started = started?;
    sleep(AGE);
    let mut wrong = String::new();
    for ((call, errno), service) in &mut started {
        let effect = Effect::Fail(*errno);
        // `std` repeats a call that a signal interrupted. A permanent EINTR would make it loop
        // forever.
        let rule = match errno.0 {
            "EINTR" => Rule::nth(call, 1, effect),
            _ => Rule::always(call, 1, effect),
        };
        service.set_rule(rule);
        let give_up = Instant::now() + READ_WITHIN;
        loop {
            if let Err(what) = round(&world, service) {
                let log = service.log_tail();
                wrong.push_str(&format!("  {} {}: {what}\n{log}", call.name, errno.0));
                break;
            }
            if service.supervisor.seen().faults > 0 {
                break;
            }
            assert!(Instant::now() < give_up, "{} {} was never injected", call.name, errno.0);
        }
        service.supervisor.clear_rules();
        round(&world, service)?;
    }
    if !wrong.is_empty() {
        return Err(wrong.into());
    }
    Ok(format!("{} faults", started.len()))
}

fn round(world: &World, service: &crate::world::SupervisedService) -> Result<(), String> {
    let requests = world.requests();
    let pending = service.send_all(&requests);
    let mut pairs = requests.iter().zip(pending);
    pairs.try_for_each(|(request, pending)| request.judge(&pending.response(), Permit::default()))
}
