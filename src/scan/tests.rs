//! A scan alone, with virtual time and a scripted target.

use std::num::NonZeroU32;

use super::*;

const MILLI: Duration = Duration::from_millis(1);
const REFUSED: Option<(u64, Outcome)> = Some((20, Outcome::Refused));
const SILENT: Option<(u64, Outcome)> = None;

/// One connect in flight.
struct Flight {
    probe: ProbeId,
    socket: Key,
    launch: Launch,
    answer: Option<(Instant, Outcome)>,
}

/// A scan, its time, and what it did.
struct Run {
    scan: Scan,
    start: Instant,
    now: Instant,
    flights: Vec<Flight>,
    /// When each connect was started, after the start, and for which port.
    launches: Vec<(Duration, u16)>,
}

/// A plan for ports 1 to `last`, silent after a second, with one pass.
fn plan(last: u16) -> Plan {
    Plan {
        target: ([192, 0, 2, 1], 0).into(),
        is_routed: true,
        ports: PortSet::from_range(1, last),
        timeout: Timeout::Fixed(1000 * MILLI),
        retries: Retries::Exactly(0),
        concurrency: last.into(),
        rate: None,
        ends_at: Instant::now() + 600_000 * MILLI,
    }
}

impl Run {
    fn new(plan: Plan) -> Self {
        let start = Instant::now();
        let mut scan = Scan::new(start, plan);
        scan.set_allowance(usize::MAX);
        Self { scan, start, now: start, flights: Vec::new(), launches: Vec::new() }
    }

    /// Starts what may be started. `answer` is what the target does with the n-th connect of a
    /// port: after how many milliseconds, what.
    fn launch(&mut self, answer: impl Fn(u16, usize) -> Option<(u64, Outcome)>) {
        loop {
            let socket = Key::from_parts(self.launches.len() as u32, 0);
            let Some(launch) = self.scan.poll_launch(self.now, socket) else { return };
            let port = launch.to.port();
            let nth = self.launches.iter().filter(|(_, other)| *other == port).count();
            let answer = answer(port, nth);
            let answer =
                answer.map(|(millis, outcome)| (self.now + Duration::from_millis(millis), outcome));
            self.launches.push((self.now - self.start, port));
            self.flights.push(Flight { probe: launch.probe, socket, launch, answer });
        }
    }

    /// Tells what has come of connects by now, and ends what is due.
    fn settle(&mut self) {
        while let Some(place) = self
            .flights
            .iter()
            .position(|flight| flight.answer.is_some_and(|(at, _)| at <= self.now))
        {
            let flight = self.flights.remove(place);
            let (_, outcome) = flight.answer.expect("it was found by its answer");
            self.scan.handle_outcome(self.now, flight.probe, outcome);
        }
        self.scan.handle_timeout(self.now);
        while self.scan.poll_expired(self.now).is_some() {
            // All share one timeout: the oldest goes first.
            self.flights.remove(0);
        }
    }

    /// When something happens next.
    fn next(&self) -> Option<Instant> {
        let answers = self.flights.iter().filter_map(|flight| flight.answer.map(|(at, _)| at));
        answers.chain(self.scan.deadline()).chain(self.scan.paced_until()).min()
    }

    /// Runs to the end.
    fn finish(&mut self, answer: impl Fn(u16, usize) -> Option<(u64, Outcome)>) {
        while self.scan.is_running() {
            self.launch(&answer);
            let next = self.next().expect("a scan that runs has a deadline");
            assert!(next > self.now, "what is due was done");
            self.now = next;
            self.settle();
        }
    }

    fn elapsed(&self) -> Duration {
        self.now - self.start
    }

    /// Open, closed, filtered, unreachable and untested ports.
    fn counts(&self) -> [u32; 5] {
        let Counts { open, closed, filtered, unreachable, untested } = self.scan.counts();
        [open, closed, filtered, unreachable, untested]
    }
}

#[test]
fn every_outcome_puts_its_port_into_one_state() {
    let outcomes = [
        (Outcome::Connected, PortState::Open),
        (Outcome::MetItself, PortState::Closed),
        (Outcome::Refused, PortState::Closed),
        (Outcome::TimedOut, PortState::Filtered),
        (Outcome::Unreachable, PortState::Unreachable),
    ];
    for (outcome, state) in outcomes {
        let mut run = Run::new(plan(3));
        run.finish(|port, _| if port == 2 { Some((20, outcome)) } else { REFUSED });
        assert!(run.scan.ports(state).contains(2), "{outcome:?}");
        assert_eq!(run.scan.counts().total(), 3, "{outcome:?}");
        assert!(run.scan.is_complete(), "{outcome:?}");
    }
}

#[test]
fn a_shortage_leaves_the_port_to_be_tried_again_whichever_it_is() {
    for shortage in Shortage::ALL {
        for is_routed in [true, false] {
            let mut run = Run::new(Plan { is_routed, ..plan(3) });
            run.finish(|_, nth| match nth {
                0 => Some((1, Outcome::Shortage(shortage))),
                _ => REFUSED,
            });
            let is_networks_word = shortage == Shortage::SourcePorts && !is_routed;
            let expected = if is_networks_word { [0, 0, 0, 3, 0] } else { [0, 3, 0, 0, 0] };
            assert_eq!(run.counts(), expected, "{shortage:?}, routed: {is_routed}");
            assert_eq!(run.scan.retried(), 0, "a shortage is no retry");
        }
    }
}

#[test]
fn passes_are_made_exactly_as_often_as_asked_for() {
    for retries in 0..4 {
        let mut run = Run::new(Plan { retries: Retries::Exactly(retries), ..plan(5) });
        run.finish(|port, _| if port == 3 { REFUSED } else { SILENT });
        assert_eq!(run.launches.len(), 5 + 4 * usize::from(retries));
        assert_eq!(run.counts(), [0, 1, 4, 0, 0]);
        assert_eq!(run.scan.retried(), 4 * u32::from(retries));
        assert_eq!(run.elapsed(), u32::from(retries + 1) * 1000 * MILLI, "full deadlines");
    }
}

#[test]
fn auto_repeats_nothing_where_no_loss_was_seen() {
    let mut run = Run::new(Plan { retries: Retries::Auto, ..plan(50) });
    run.finish(|port, _| if port == 3 { REFUSED } else { SILENT });
    assert_eq!((run.launches.len(), run.scan.loss_suspected()), (50, false));
}

#[test]
fn auto_asks_silent_ports_again_once_an_answer_came_late() {
    let plan = Plan { retries: Retries::Auto, timeout: Timeout::Fixed(2000 * MILLI), ..plan(50) };
    let mut run = Run::new(plan);
    // Port 7's first SYN was lost, port 9's first answer came by neither.
    run.finish(|port, nth| match (port, nth) {
        (7, 0) => Some((1020, Outcome::Connected)),
        (9, 0) => SILENT,
        (20.., _) => SILENT,
        _ => REFUSED,
    });
    assert!(run.scan.loss_suspected());
    assert!(run.scan.ports(PortState::Closed).contains(9), "the second pass found it");
    assert_eq!(run.counts(), [1, 18, 31, 0, 0]);
    assert!(run.scan.is_complete() && run.scan.retried() >= 32);
    let passes = run.launches.iter().filter(|(_, port)| *port == 30).count() as u32;
    assert!(passes <= 1 + PASSES_AUTO_MAX, "{passes} passes");
    let since_answer = run.elapsed() - 2020 * MILLI;
    assert!(since_answer >= BARREN_MIN && since_answer < BARREN_MIN + 300 * MILLI);
}

#[test]
fn an_answer_that_breaks_silence_shows_loss_too() {
    let mut run = Run::new(Plan { retries: Retries::Exactly(1), ..plan(2) });
    run.finish(|_, nth| if nth == 0 { SILENT } else { REFUSED });
    assert!(run.scan.loss_suspected());
    assert_eq!((run.counts(), run.scan.retried()), ([0, 2, 0, 0, 0], 2));
}

#[test]
fn a_computed_deadline_follows_the_round_trip_and_owes_one_repeat() {
    let mut run = Run::new(Plan { timeout: Timeout::Auto, ..plan(40) });
    run.finish(|port, _| if port <= 30 { REFUSED } else { SILENT });
    assert_eq!(run.counts(), [0, 30, 10, 0, 0]);
    assert_eq!(run.scan.retried(), 10, "the kernel had repeated nothing by then");
    assert!(run.elapsed() < 1000 * MILLI, "{:?}", run.elapsed());
    // A target that never answers has no round trip: the longest deadline, and the kernel's repeat.
    let mut run = Run::new(Plan { timeout: Timeout::Auto, ..plan(40) });
    run.finish(|_, _| SILENT);
    assert_eq!((run.launches.len(), run.elapsed()), (40, limits::TIMEOUT_AUTO_MAX));
}

/// The kernel sends its SYN again after a second, whose answer has to come back, too.
#[test]
fn a_deadline_before_the_kernels_own_repeat_could_be_answered_owes_one() {
    let check = |answered_after: u64, launches: usize| {
        let mut run = Run::new(Plan { timeout: Timeout::Auto, ..plan(3) });
        run.finish(|port, _| (port == 1).then_some((answered_after, Outcome::Refused)));
        assert_eq!(run.counts(), [0, 1, 2, 0, 0]);
        assert_eq!(run.launches.len(), launches, "answered after {answered_after} ms");
    };
    // Three round trips are waited for: 60, 900 and 1,200 ms, all below a second and the trip.
    check(20, 5);
    check(300, 5);
    check(400, 5);
    // 1,800 ms, beyond 1,600: the kernel has asked again itself.
    check(600, 3);
}

#[test]
fn a_pace_is_kept_without_bursts() {
    let run_at = |rate: u32| {
        let mut run = Run::new(Plan { rate: NonZeroU32::new(rate), ..plan(200) });
        run.finish(|_, _| REFUSED);
        run.launches.into_iter().map(|(at, _)| at).collect::<Vec<_>>()
    };
    for rate in [10, 100, 1000] {
        let times = run_at(rate);
        let step = Duration::from_secs(1) / rate;
        for (index, at) in times.iter().enumerate() {
            assert_eq!(*at, step * index as u32, "launch {index} at {rate} a second");
        }
    }
}

#[test]
fn a_pace_that_the_loop_could_not_keep_is_caught_up_with_a_little_only() {
    let rate = NonZeroU32::new(1000);
    let mut run = Run::new(Plan { rate, ..plan(200) });
    run.launch(|_, _| SILENT);
    assert_eq!(run.launches.len(), 1);
    run.now += 100 * MILLI;
    run.launch(|_, _| SILENT);
    let slack = PACE_SLACK.as_millis() as usize;
    assert_eq!(run.launches.len(), 1 + slack + 1, "not the hundred that were missed");
    assert_eq!(run.scan.paced_until(), Some(run.now + MILLI));
}

#[test]
fn the_window_is_the_least_of_plan_grant_and_ports() {
    for (concurrency, allowance, expected) in [(9, 100, 9), (100, 7, 7), (100, 100, 50), (3, 0, 0)]
    {
        let mut run = Run::new(Plan { concurrency, ..plan(50) });
        run.scan.set_allowance(allowance);
        assert_eq!(run.scan.need(), concurrency.min(50));
        run.launch(|_, _| SILENT);
        assert_eq!(run.scan.in_flight(), expected, "{concurrency} of {allowance}");
    }
}

#[test]
fn a_smaller_grant_gives_back_the_youngest_and_tries_their_ports_again() {
    let mut run = Run::new(plan(10));
    run.launch(|_, _| SILENT);
    run.scan.set_allowance(4);
    let mut given_back = Vec::new();
    while let Some(socket) = run.scan.poll_surplus() {
        let last = run.flights.pop().expect("a socket was in flight");
        assert_eq!(socket, last.socket, "the youngest first");
        given_back.push(last.launch.to.port());
    }
    assert_eq!(given_back, [10, 9, 8, 7, 6, 5]);
    assert_eq!((run.scan.in_flight(), run.scan.has_surplus()), (4, false));
    assert_eq!(run.counts(), [0, 0, 0, 0, 10], "nothing was decided");
    run.scan.set_allowance(10);
    run.finish(|_, _| REFUSED);
    assert_eq!(run.counts(), [0, 6, 4, 0, 0], "each was tried to its end");
}

#[test]
fn a_pass_that_meets_a_limit_presses_less() {
    let plan = Plan { retries: Retries::Auto, timeout: Timeout::Fixed(1500 * MILLI), ..plan(1000) };
    let mut run = Run::new(plan);
    // Of each second's connects, the target answers some at once and one late.
    run.finish(|port, nth| match (port, nth) {
        (5, 0) => Some((1020, Outcome::Refused)),
        (1..=400, 0) => REFUSED,
        (_, 0) => SILENT,
        _ => REFUSED,
    });
    assert_eq!(run.counts(), [0, 1000, 0, 0, 0]);
    assert_eq!(run.scan.pressure_max, 500, "half of what was in flight at most");
    let second_pass = run.launches[1000].0;
    let at_once = run.launches[1000..].iter().filter(|(at, _)| *at == second_pass).count();
    assert_eq!(at_once, 500);
}

#[test]
fn at_its_end_a_scan_gives_everything_back_and_tells_what_it_knows() {
    let mut run = Run::new(plan(10));
    run.scan.plan.ends_at = run.start + 500 * MILLI;
    run.finish(|port, _| if port <= 4 { REFUSED } else { SILENT });
    assert_eq!(run.elapsed(), 500 * MILLI);
    assert_eq!(run.counts(), [0, 4, 0, 0, 6]);
    assert!(!run.scan.is_complete() && !run.scan.is_running());
    assert_eq!((run.scan.deadline(), run.scan.paced_until()), (None, None));
    assert!(!run.scan.wants_launch(run.now) && run.scan.need() == 0);
    let mut returned = Vec::new();
    while let Some(socket) = run.scan.poll_abandoned() {
        returned.push(socket);
    }
    assert_eq!(returned, run.flights.iter().map(|flight| flight.socket).collect::<Vec<_>>());
    assert_eq!(run.scan.in_flight(), 0);
}

#[test]
fn the_outcome_is_looked_for_at_once_only_as_long_as_it_is_there() {
    let glances = |is_near: bool| {
        let mut run = Run::new(plan(2000));
        run.scan.set_allowance(1);
        let mut at_once = 0;
        while run.scan.is_running() {
            run.launch(|_, _| Some((u64::from(!is_near), Outcome::Refused)));
            at_once += u32::from(run.flights[0].launch.glance == Glance::AtOnce);
            run.now = run.next().expect("an answer comes");
            run.settle();
        }
        at_once
    };
    assert_eq!(glances(true), 2000);
    let few = glances(false);
    let expected = GLANCES_MISSED_MAX..=GLANCES_MISSED_MAX + 2000 / GLANCE_EVERY;
    assert!(expected.contains(&few), "{few} glances at a far target");
}
