//! Faults of the files that the service reads while it runs: the last good content stays in use.

use crate::calls::{Call, Errno, FILES};
use crate::supervisor::{Effect, Rule};
use crate::world::{Permit, World};
use crate::{Case, Outcome};

/// This is longer than `limits::NAME_FILES_AGE_MAX`, after which the service reads the files again.
const AGE: std::time::Duration = std::time::Duration::from_millis(5100);

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
    std::thread::sleep(AGE);
    let (mut met, mut wrong) = (0, String::new());
    for ((call, errno), service) in &mut started {
        let effect = Effect::Fail(*errno);
        // `std` repeats a call that a signal interrupted. A permanent EINTR would make it loop
        // forever.
        let rule = match errno.0 {
            "EINTR" => Rule::nth(call, 1, effect),
            _ => Rule::always(call, 1, effect),
        };
        service.begin(rule);
        if let Err(what) = round(&world, service) {
            wrong.push_str(&format!("  {} {}: {what}\n{}", call.name, errno.0, service.log_tail()));
        }
        met += usize::from(service.supervisor.seen().faults > 0);
        service.supervisor.end();
        round(&world, service)?;
    }
    if !wrong.is_empty() {
        return Err(wrong.into());
    }
    assert!(met * 10 >= started.len() * 9, "only {met} of {} faults were injected", started.len());
    Ok(format!("{met} faults"))
}

fn round(world: &World, service: &crate::world::Watched) -> Result<(), String> {
    let questions = world.questions();
    let asked = service.ask(&questions);
    let mut told = questions.iter().zip(asked);
    told.try_for_each(|(question, asked)| question.judge(&asked.told(), Permit::default()))
}
