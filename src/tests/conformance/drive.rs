//! Sends the cases to the real binary: in one piece, byte by byte, split at every position, and cut
//! off.
//!
//! Many connections are served in parallel, piece by piece: all of them send their first piece,
//! then all of them send their second. Between two pieces, a request on a separate connection is
//! answered. The service handles ready sockets in order, so it has read every piece before it
//! answers, and it never reads two pieces as one.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Mutex;

use crate::case::{After, Case};
use crate::client::{self, Client};
use crate::process::Service;
use crate::reader::{self, Answer};

/// The number of parallel connections.
const BATCH: usize = 128;
/// The maximum number of reported failures; more would add no information.
const FAILURES_MAX: usize = 40;
/// A request whose answer proves that the connection is still open. No case has the same answer.
const FOLLOW_UP: &[u8] =
    b"OPTIONS /metrics HTTP/1.1\r\nHost: follow-up\r\nConnection: close\r\n\r\n";

/// The failures, by the title of the case.
type Failures = Mutex<BTreeMap<String, String>>;

/// The action of the client after the bytes of its case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FinalAction {
    /// The client sends [`FOLLOW_UP`] together with the last piece.
    Pipelined,
    /// The client sends [`FOLLOW_UP`] later.
    FollowUp,
    /// The client shuts down its sending side.
    HalfClose,
}

/// A case on one connection.
struct Run<'a> {
    case: &'a Case,
    /// The end positions of the pieces.
    ends: Vec<usize>,
    final_action: FinalAction,
}

impl<'a> Run<'a> {
    /// The case in one piece, with every permitted action after it.
    fn in_one_piece(case: &'a Case) -> Vec<Self> {
        let run = |final_action| Run { case, ends: vec![case.bytes.len()], final_action };
        match case.expected.after {
            After::Waits(_) => vec![run(FinalAction::HalfClose)],
            After::Open | After::Closed if case.needs_reader || case.is_enumerated => {
                vec![run(FinalAction::Pipelined)]
            }
            After::Open | After::Closed => {
                vec![
                    run(FinalAction::Pipelined),
                    run(FinalAction::HalfClose),
                    run(FinalAction::FollowUp),
                ]
            }
        }
    }

    /// The case byte by byte, and in two pieces for each split position.
    fn split(case: &'a Case) -> Vec<Self> {
        let final_action = match case.expected.after {
            After::Waits(_) => FinalAction::HalfClose,
            After::Open | After::Closed => FinalAction::FollowUp,
        };
        let len = case.bytes.len();
        let is_thorough = std::env::var_os("CONFORMANCE_THOROUGH").is_some();
        let cuts = if is_thorough { (1..len).collect() } else { case.cuts.clone() };
        // Long cases are sent in about sixty pieces instead of byte by byte.
        let step = if len > 2000 { len / 64 } else { 1 };
        let all = (1..len).step_by(step).chain([len]).collect();
        let runs = cuts.into_iter().map(|at| vec![at, len]);
        runs.chain([all]).map(|ends| Run { case, ends, final_action }).collect()
    }

    fn piece(&self, step: usize) -> &'a [u8] {
        let start = if step == 0 { 0 } else { self.ends[step - 1] };
        &self.case.bytes[start..self.ends[step]]
    }

    /// Records a failure; only the first of a case is kept.
    fn record(&self, failures: &Failures, failure: &str) {
        let title = format!("{}: {}", self.case.section, self.case.name);
        let text =
            format!("{title}\n  {}\n  {failure}\n  {}\n", self.describe(), self.case.command());
        failures.lock().unwrap().entry(title).or_insert(text);
    }

    fn describe(&self) -> String {
        let pieces = match self.ends.len() {
            1 => "in one piece".to_owned(),
            2 => format!("split at {}", self.ends[0]),
            count => format!("in {count} pieces"),
        };
        format!("{pieces}, then {:?}", self.final_action)
    }

    /// The expected statuses, each with whether it answers a HEAD.
    fn expected(&self) -> Vec<(u16, bool)> {
        let mut expected = self.case.expected.answers.clone();
        match (self.case.expected.after, self.final_action) {
            (After::Open, FinalAction::Pipelined | FinalAction::FollowUp) => {
                expected.push((200, false))
            }
            (After::Waits(final_answer), _) => expected.extend(final_answer),
            (After::Open | After::Closed, _) => {}
        }
        expected
    }

    /// Judges the received bytes. Returns the answers to the case itself, without the fields that
    /// may differ between two ways of sending it.
    fn judge(&self, received: &[u8]) -> Result<Vec<Answer>, String> {
        let expected = self.expected();
        let is_head = |index: usize| expected.get(index).is_some_and(|(_, is_head)| *is_head);
        let mut answers = reader::read(received, is_head, true)?;
        answers.retain(|answer| !answer.is_interim());
        let got: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
        let wanted: Vec<u16> = expected.iter().map(|(status, _)| *status).collect();
        if got != wanted {
            return Err(format!("expected {wanted:?}, got {got:?}"));
        }
        let own_len = self.case.expected.answers.len();
        let is_last_own = |index: usize| index + 1 == own_len;
        for (index, answer) in answers.iter().take(own_len).enumerate() {
            let ends_here = is_last_own(index) && self.case.expected.after == After::Closed;
            let may_end = is_last_own(index) && self.final_action == FinalAction::HalfClose;
            if answer.has_close() != ends_here && !may_end {
                return Err(format!(
                    "answer {index} has a wrong Connection field: {:?}",
                    answer.fields
                ));
            }
        }
        let follow_up = answers.get(own_len).filter(|_| self.case.expected.after == After::Open);
        if follow_up.is_some_and(|answer| answer.field("Allow").is_none()) {
            return Err("the follow-up has a wrong answer".into());
        }
        let is_comparable = |answer: &Answer| !self.case.is_volatile || answer.status != 200;
        let own_answers =
            answers.into_iter().take(own_len).filter(is_comparable).map(Answer::comparable);
        Ok(own_answers.collect())
    }
}

/// Sends the cases in parallel; returns the received bytes of each.
fn send_batch(address: SocketAddr, runs: &[Run]) -> Vec<Result<Vec<u8>, String>> {
    let (mut control, mut clients) = client::connect(address, runs.len());
    let steps = runs.iter().map(|run| run.ends.len()).max().unwrap_or(0);
    for step in 0..steps {
        for (run, client) in runs.iter().zip(&mut clients).filter(|(run, _)| step < run.ends.len())
        {
            if step + 1 == run.ends.len() && run.final_action == FinalAction::Pipelined {
                client.send(&[run.piece(step), FOLLOW_UP].concat());
            } else {
                client.send(run.piece(step));
            }
        }
        control.barrier();
    }
    runs.iter().zip(clients).map(|(run, client)| finish(run, client)).collect()
}

fn finish(run: &Run, mut client: Client) -> Result<Vec<u8>, String> {
    if let After::Waits(_) = run.case.expected.after {
        let is_head = |index: usize| run.case.expected.answers.get(index).is_some_and(|it| it.1);
        let answers = reader::read(client.read_ready(), is_head, false)?;
        let finals = answers.iter().filter(|answer| !answer.is_interim()).count();
        if finals != run.case.expected.answers.len() {
            return Err(format!("the service did not wait: {answers:?}"));
        }
    }
    match run.final_action {
        FinalAction::Pipelined => {}
        FinalAction::FollowUp => client.send(FOLLOW_UP),
        FinalAction::HalfClose => client.half_close(),
    }
    client.read_to_end()
}

/// Sends the cases in batches from two threads; returns the answers and records the failures.
fn send_in_batches(address: SocketAddr, runs: &[Run], failures: &Failures) -> Vec<Vec<Answer>> {
    let results: Mutex<BTreeMap<usize, Vec<Answer>>> = Mutex::default();
    let batches: Vec<(usize, &[Run])> =
        runs.chunks(BATCH).enumerate().map(|(index, batch)| (index * BATCH, batch)).collect();
    let queue = Mutex::new(batches.into_iter());
    let work = || {
        loop {
            let next = queue.lock().unwrap().next();
            let Some((start, batch)) = next else { return };
            if failures.lock().unwrap().len() >= FAILURES_MAX {
                return;
            }
            for (index, received) in send_batch(address, batch).into_iter().enumerate() {
                let run = &batch[index];
                let shown = received.as_deref().map(<[u8]>::escape_ascii).map(|it| it.to_string());
                match received.clone().and_then(|received| run.judge(&received)) {
                    Ok(answers) => drop(results.lock().unwrap().insert(start + index, answers)),
                    Err(failure) => {
                        let failure = format!("{failure}\n  received {shown:?}");
                        run.record(failures, &failure);
                    }
                }
            }
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(work);
        scope.spawn(work);
    });
    let mut results = results.into_inner().unwrap();
    (0..runs.len()).map(|index| results.remove(&index).unwrap_or_default()).collect()
}

/// Sends every case in every way, and fails with a list of all failures.
pub(crate) fn check(cases: Vec<Case>) {
    let wanted = std::env::var("CONFORMANCE").unwrap_or_default();
    let is_wanted = |case: &Case| format!("{}: {}", case.section, case.name).contains(&wanted);
    let cases: Vec<Case> = cases.into_iter().filter(is_wanted).collect();
    let most = ["--max-scans", "4096", "--max-scans-per-client", "4096"];
    let service = Service::start(&[&["--max-connections", "4096"][..], &most].concat());
    let began = service.descriptors();
    let failures = Failures::default();
    let mut runs: Vec<Run> = cases.iter().flat_map(Run::in_one_piece).collect();
    let mut answers = send_in_batches(service.address, &runs, &failures);
    if failures.lock().unwrap().is_empty() {
        let split: Vec<Run> = cases.iter().flat_map(Run::split).collect();
        answers.extend(send_in_batches(service.address, &split, &failures));
        runs.extend(split);
    }
    if failures.lock().unwrap().is_empty() {
        compare(&runs, &answers, &failures);
    }
    println!("{} cases on {} connections", cases.len(), runs.len());
    let failures = failures.into_inner().unwrap();
    let shown: String = failures.values().take(FAILURES_MAX).map(String::as_str).collect();
    assert!(failures.is_empty(), "{}\n{} failures:\n{shown}", service.command, failures.len());
    crate::process::until("the service has closed the descriptors", || {
        (service.descriptors() <= began).then_some(())
    });
}

/// Checks that the answers to a case are identical, however its bytes were sent.
fn compare(runs: &[Run], answers: &[Vec<Answer>], failures: &Failures) {
    let mut references: BTreeMap<*const Case, &Vec<Answer>> = BTreeMap::new();
    for (run, answers) in runs.iter().zip(answers) {
        let reference = references.entry(run.case).or_insert(answers);
        if *reference != answers {
            run.record(failures, &format!("expected {reference:?}\n  got {answers:?}"));
        }
    }
}
