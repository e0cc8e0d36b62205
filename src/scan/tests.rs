//! Tests of one scan with virtual time and a scripted target.

use std::num::{NonZeroU16, NonZeroU32};

use super::pings::{PingEvent, PingResult, PingWeight};
use super::sweep::SweepLoss;
use super::timing::{CHECK_INTERVAL, CHECKS_MISSED_MAX};
use super::*;
use crate::host::Family;
use crate::limits;
use crate::pacer::RATE_SLACK;
use crate::scan::options::{Addresses, Include, LookupBound, Retries, ScanOptions, Timeout};
use crate::scan::plan::RateShare;

pub(super) mod networks;

const MILLI: Duration = Duration::from_millis(1);
const REFUSED: Option<(u64, Outcome)> = Some((20, Outcome::Refused));
const SILENT: Option<(u64, Outcome)> = None;

/// One connect in flight.
struct Flight {
    launch: Launch,
    key: Key,
    answer: Option<(Instant, Outcome)>,
}

/// A scan, its virtual time, and the probes that it has started.
struct Run {
    scan: Scan,
    start: Instant,
    now: Instant,
    flights: Vec<Flight>,
    /// The time and the port of each probe, without pings. The time counts from `start`.
    launches: Vec<(Duration, u16)>,
    pings: u32,
    /// The number of lost pings out of each ten.
    pings_lost: u32,
    /// The time from the start after which every probe and every ping is rejected at once. Answers
    /// on the way are then lost.
    cut_off_after: Duration,
}

/// The options of one pass with a timeout of one second.
const OPTIONS: ScanOptions = ScanOptions {
    technique: Technique::Connect,
    timeout: Timeout::Fixed(Duration::from_secs(1)),
    deadline: limits::SCAN_TIME_MAX,
    lookup_bound: LookupBound::Deadline,
    retries: Retries::Exactly(0),
    concurrency: None,
    rate: None,
    family: Family::Any,
    addresses: Addresses::First,
    include: Include { closed: false, filtered: false, unreachable: false, services: false },
};

/// A plan for the ports from 1 to `last` with [`OPTIONS`].
fn plan(last: u16) -> Plan {
    Plan {
        target: ([192, 0, 2, 1], 0).into(),
        is_routed: true,
        share: RateShare::WHOLE,
        ports: PortSet::from_range(1, last),
        options: OPTIONS,
        ends_at: Instant::now() + 600_000 * MILLI,
    }
}

impl Run {
    fn new(plan: Plan) -> Self {
        let start = Instant::now();
        let mut scan = Scan::new(start, plan);
        scan.set_allowance(usize::MAX);
        Self {
            scan,
            start,
            now: start,
            flights: Vec::new(),
            launches: Vec::new(),
            pings: 0,
            pings_lost: 0,
            cut_off_after: Duration::MAX,
        }
    }

    /// Starts all probes that may be started. `answer` returns the outcome of the n-th probe of a
    /// port (counted from 0) and its delay in milliseconds; `None` means no answer. A ping is
    /// refused after 20 ms, or lost.
    fn launch(&mut self, answer: impl Fn(u16, usize) -> Option<(u64, Outcome)>) {
        loop {
            let key = Key::from_parts(self.launches.len() as u32 + self.pings, 0);
            let Some(launch) = self.scan.poll_launch(self.now, key) else { return };
            let port = launch.to.port();
            let answer = if launch.probe.as_ping().is_some() {
                self.pings += 1;
                if self.pings % 10 < self.pings_lost { SILENT } else { REFUSED }
            } else {
                let nth = self.launches.iter().filter(|(_, other)| *other == port).count();
                self.launches.push((self.now - self.start, port));
                answer(port, nth)
            };
            let answer =
                answer.map(|(millis, outcome)| (self.now + Duration::from_millis(millis), outcome));
            let answer = match answer {
                _ if self.is_cut_off() => Some((self.now, Outcome::Unreachable)),
                Some((at, _)) if at - self.start >= self.cut_off_after => None,
                answer => answer,
            };
            self.flights.push(Flight { launch, key, answer });
        }
    }

    /// Delivers the answers that are due, and handles the deadlines that have passed.
    fn handle_due(&mut self) {
        while let Some(place) = self
            .flights
            .iter()
            .position(|flight| flight.answer.is_some_and(|(at, _)| at <= self.now))
        {
            let flight = self.flights.remove(place);
            let (_, outcome) = flight.answer.expect("the flight has an answer that is due");
            self.scan.handle_outcome(self.now, flight.launch.probe, outcome);
        }
        self.scan.handle_timeout(self.now);
        while let Some(key) = self.scan.poll_expired(self.now) {
            self.flights.retain(|flight| flight.key != key);
        }
    }

    /// The time of the next answer, deadline or launch.
    fn next(&self) -> Option<Instant> {
        let answers = self.flights.iter().filter_map(|flight| flight.answer.map(|(at, _)| at));
        answers.chain(self.scan.deadline()).chain(self.scan.launch_at(self.now)).min()
    }

    /// Runs the scan to its end.
    fn finish(&mut self, answer: impl Fn(u16, usize) -> Option<(u64, Outcome)>) {
        while self.scan.is_running() {
            self.launch(&answer);
            let next = self.next().expect("a scan that runs has a deadline");
            assert!(next > self.now || self.is_cut_off(), "everything that was due is done");
            self.now = next;
            self.handle_due();
        }
    }

    fn elapsed(&self) -> Duration {
        self.now - self.start
    }

    fn is_cut_off(&self) -> bool {
        self.elapsed() >= self.cut_off_after
    }

    /// The numbers of open, closed, filtered, unreachable and untested ports.
    fn counts(&self) -> [u32; 5] {
        let Counts { open, closed, filtered, unreachable, untested } = self.scan.counts();
        [open, closed, filtered, unreachable, untested]
    }
}

#[test]
fn every_outcome_gives_its_port_one_state() {
    let outcomes = [
        (Outcome::Connected, PortState::Open),
        (Outcome::SelfConnect, PortState::Closed),
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
fn a_port_is_probed_again_after_any_shortage() {
    for shortage in Shortage::ALL {
        for is_routed in [true, false] {
            let mut run = Run::new(Plan { is_routed, ..plan(3) });
            run.finish(|_, nth| match nth {
                0 => Some((1, Outcome::Shortage(shortage))),
                _ => REFUSED,
            });
            let is_final = shortage == Shortage::SourcePorts && !is_routed;
            let expected = if is_final { [0, 0, 0, 3, 0] } else { [0, 3, 0, 0, 0] };
            assert_eq!(run.counts(), expected, "{shortage:?}, routed: {is_routed}");
            assert_eq!(run.scan.retried(), 0, "a probe after a shortage is not a retry");
        }
    }
}

/// Regression: the loss meter overflowed if the first answer came after more than 80 seconds.
#[test]
fn a_host_may_be_silent_for_minutes_before_it_answers() {
    let ports = PortSet::from_range(40_001, 40_400);
    let options = ScanOptions { concurrency: NonZeroU16::new(3), ..OPTIONS };
    let mut run = Run::new(Plan { ports, options, ..plan(1) });
    run.finish(|port, _| if port > 40_300 { REFUSED } else { SILENT });
    assert!(run.elapsed() > Duration::from_secs(100), "{:?}", run.elapsed());
    assert_eq!(run.counts(), [0, 100, 300, 0, 0]);
}

#[test]
fn the_number_of_passes_is_exactly_the_requested_one() {
    for retries in 0..4 {
        let mut run = Run::new(Plan {
            options: ScanOptions { retries: Retries::Exactly(retries), ..OPTIONS },
            ..plan(5)
        });
        run.finish(|port, _| if port == 3 { REFUSED } else { SILENT });
        assert_eq!(run.launches.len(), 5 + 4 * usize::from(retries));
        assert_eq!(run.counts(), [0, 1, 4, 0, 0]);
        assert_eq!(run.scan.retried(), 4 * u32::from(retries));
        assert_eq!(
            run.elapsed(),
            u32::from(retries + 1) * 1000 * MILLI,
            "each pass has the full timeout"
        );
    }
}

#[test]
fn requested_passes_cover_all_silent_ports_of_a_large_scan() {
    let mut run = Run::new(Plan {
        options: ScanOptions { retries: Retries::Exactly(2), ..OPTIONS },
        ..plan(300)
    });
    run.finish(|port, _| if port % 3 == 0 { REFUSED } else { SILENT });
    assert_eq!((run.launches.len(), run.counts()), (300 + 2 * 200, [0, 100, 200, 0, 0]));
}

#[test]
fn auto_makes_no_further_pass_without_loss() {
    let timeout = Timeout::Fixed(2000 * MILLI);
    let mut run = Run::new(Plan {
        options: ScanOptions { retries: Retries::Auto, timeout, ..OPTIONS },
        ..plan(50)
    });
    run.finish(|port, _| if port == 3 { REFUSED } else { SILENT });
    assert_eq!((run.launches.len(), run.scan.loss_suspected()), (50, false));
    assert!(run.pings > 10, "pings measured the loss");
}

#[test]
fn auto_probes_silent_ports_again_once_an_answer_came_late() {
    let plan = Plan {
        options: ScanOptions {
            retries: Retries::Auto,
            timeout: Timeout::Fixed(2000 * MILLI),
            ..OPTIONS
        },
        ..plan(50)
    };
    let mut run = Run::new(plan);
    run.pings_lost = 2;
    // The first SYN to port 7 and both SYNs to port 9 are lost.
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
    assert!((2..=6).contains(&passes), "{passes} passes");
}

#[test]
fn auto_ends_the_scan_of_a_host_that_no_longer_answers() {
    let plan = Plan {
        options: ScanOptions {
            retries: Retries::Auto,
            timeout: Timeout::Fixed(2000 * MILLI),
            ..OPTIONS
        },
        ..plan(100)
    };
    let mut run = Run::new(plan);
    while run.scan.is_running() {
        run.launch(|port, _| if port < 50 { REFUSED } else { SILENT });
        // No answer arrives after 100 ms.
        for flight in &mut run.flights {
            flight.answer = flight.answer.filter(|(at, _)| *at < run.start + 100 * MILLI);
        }
        run.now = run.next().expect("a scan that runs has a deadline");
        run.handle_due();
    }
    assert!(run.elapsed() < 15_000 * MILLI, "{:?}", run.elapsed());
    assert!(run.scan.loss().is_some_and(|loss| loss > 0.3), "{:?}", run.scan.loss());
}

#[test]
fn an_answer_in_a_later_pass_shows_loss() {
    let mut run = Run::new(Plan {
        options: ScanOptions { retries: Retries::Exactly(1), ..OPTIONS },
        ..plan(2)
    });
    run.finish(|_, nth| if nth == 0 { SILENT } else { REFUSED });
    assert!(run.scan.loss_suspected());
    assert_eq!((run.counts(), run.scan.retried()), ([0, 2, 0, 0, 0], 2));
}

#[test]
fn a_computed_timeout_depends_on_the_round_trip_time() {
    let plan = |last| Plan {
        options: ScanOptions { timeout: Timeout::Auto, retries: Retries::Auto, ..OPTIONS },
        ..plan(last)
    };
    let mut run = Run::new(plan(40));
    run.finish(|port, _| if port <= 30 { REFUSED } else { SILENT });
    assert_eq!(run.counts(), [0, 30, 10, 0, 0]);
    assert!(run.scan.retried() >= 10, "there were too few pings to prove that nothing was lost");
    assert!(run.elapsed() < 1500 * MILLI, "{:?}", run.elapsed());
    // Without any answer the round-trip time is unknown, and the longest timeout applies, which
    // includes one retransmission by the kernel.
    let mut run = Run::new(plan(40));
    run.finish(|_, _| SILENT);
    assert_eq!(run.launches.len(), 40);
    assert!(run.elapsed() < limits::TIMEOUT_AUTO_MAX + 1000 * MILLI, "{:?}", run.elapsed());
}

#[test]
fn a_requested_rate_is_kept_without_bursts() {
    for rate in [10, 100, 1000] {
        let mut run = Run::new(Plan {
            options: ScanOptions { rate: NonZeroU32::new(rate), ..OPTIONS },
            ..plan(200)
        });
        run.finish(|_, _| REFUSED);
        let step = Duration::from_secs(1) / rate;
        let times = run.launches.iter().map(|(at, _)| *at);
        let sent = run.launches.len() as u32 + run.pings;
        assert!(sent <= 200 + 200 / 16 + 1, "{sent} at {rate} a second");
        for (index, at) in times.enumerate() {
            assert!(at >= step * index as u32, "launch {index} at {rate} a second");
            // The congestion control may limit 200 ports to 500 per second.
            let is_limited = rate > 500;
            assert!(is_limited || at <= step * (index as u32 + 14), "launch {index} at {rate}");
        }
    }
}

#[test]
fn a_delayed_loop_makes_up_only_a_few_launches_of_a_requested_rate() {
    let rate = NonZeroU32::new(1000);
    let mut run = Run::new(Plan { options: ScanOptions { rate, ..OPTIONS }, ..plan(200) });
    run.launch(|_, _| SILENT);
    assert_eq!(run.launches.len(), 1);
    run.now += 100 * MILLI;
    run.launch(|_, _| SILENT);
    let slack = RATE_SLACK.as_millis() as usize;
    assert_eq!(run.launches.len(), 1 + slack + 1, "most of the hundred missed launches are lost");
    assert_eq!(run.scan.launch_at(run.now), Some(run.now + MILLI));
}

#[test]
fn the_window_is_the_minimum_of_concurrency_allowance_and_ports() {
    // A scan of so few ports has no congestion control.
    for (limit, allowance, expected) in [(9, 100, 9), (100, 7, 7), (100, 100, 16), (3, 0, 0)] {
        let concurrency = NonZeroU16::new(limit);
        let mut run =
            Run::new(Plan { options: ScanOptions { concurrency, ..OPTIONS }, ..plan(16) });
        run.scan.set_allowance(allowance);
        assert!((usize::from(limit).min(16)..=17).contains(&run.scan.need()));
        run.launch(|_, _| SILENT);
        assert_eq!(run.scan.in_flight(), expected, "concurrency {limit}, allowance {allowance}");
    }
}

#[test]
fn after_a_smaller_allowance_the_youngest_probes_are_given_up_and_made_again() {
    let mut run = Run::new(plan(10));
    run.launch(|_, _| SILENT);
    run.scan.set_allowance(4);
    let mut given_back = Vec::new();
    while let Some(key) = run.scan.poll_surplus() {
        let last = run.flights.pop().expect("a probe was in flight");
        assert_eq!(key, last.key, "the youngest probe is given up first");
        given_back.push(last.launch.to.port());
    }
    assert_eq!(given_back, [10, 9, 8, 7, 6, 5]);
    assert_eq!((run.scan.in_flight(), run.scan.has_surplus()), (4, false));
    assert_eq!(run.counts(), [0, 0, 0, 0, 10], "no port has a state yet");
    run.scan.set_allowance(10);
    run.finish(|_, _| REFUSED);
    assert_eq!(run.counts(), [0, 6, 4, 0, 0], "each port was probed to its end");
}

#[test]
fn a_further_pass_finds_ports_that_were_silent_because_of_a_limit_of_the_host() {
    let plan = Plan {
        options: ScanOptions {
            retries: Retries::Auto,
            timeout: Timeout::Fixed(1500 * MILLI),
            ..OPTIONS
        },
        ..plan(1000)
    };
    let mut run = Run::new(plan);
    run.pings_lost = 6;
    run.finish(|port, nth| match (port, nth) {
        (5, 0) => Some((1020, Outcome::Refused)),
        (1..=400, 0) => REFUSED,
        (_, 0) => SILENT,
        _ => REFUSED,
    });
    assert_eq!(run.counts(), [0, 1000, 0, 0, 0]);
    assert!(run.scan.loss().is_some_and(|loss| loss > 0.0));
}

#[test]
fn at_its_deadline_a_scan_gives_up_all_probes_and_keeps_its_results() {
    let mut run = Run::new(plan(10));
    run.scan.plan.ends_at = run.start + 500 * MILLI;
    run.finish(|port, _| if port <= 4 { REFUSED } else { SILENT });
    assert_eq!(run.elapsed(), 500 * MILLI);
    assert_eq!(run.counts(), [0, 4, 0, 0, 6]);
    assert!(!run.scan.is_complete() && !run.scan.is_running());
    assert_eq!((run.scan.deadline(), run.scan.launch_at(run.now)), (None, None));
    assert!(!run.scan.wants_launch(run.now) && run.scan.need() == 0);
    let mut returned: Vec<Key> = std::iter::from_fn(|| run.scan.poll_abandoned()).collect();
    let mut expected: Vec<Key> = run.flights.iter().map(|flight| flight.key).collect();
    returned.sort_by_key(|key| key.index());
    expected.sort_by_key(|key| key.index());
    assert_eq!(returned, expected);
    assert_eq!(run.scan.in_flight(), 0);
}

#[test]
fn the_loss_is_unknown_if_only_routers_answered() {
    let rejected = Some((10, Outcome::Unreachable));
    for (first, expected) in [(rejected, None), (REFUSED, Some(0.0))] {
        let mut run = Run::new(plan(10));
        run.finish(|port, _| match port {
            1 => first,
            2..=4 => rejected,
            _ => SILENT,
        });
        assert_eq!((run.scan.loss(), run.scan.loss_suspected()), (expected, false));
        assert!(run.scan.is_complete() && run.scan.has_answer());
    }
}

#[test]
fn silent_ports_are_filtered_if_the_deadline_is_during_a_later_pass() {
    let mut run = Run::new(Plan {
        options: ScanOptions { retries: Retries::Exactly(3), ..OPTIONS },
        ..plan(10)
    });
    run.scan.plan.ends_at = run.start + 1500 * MILLI;
    run.finish(|port, _| if port <= 4 { REFUSED } else { SILENT });
    assert_eq!((run.counts(), run.scan.is_complete()), ([0, 4, 6, 0, 0], false));
}

#[test]
fn the_outcome_is_checked_at_once_only_if_recent_checks_found_one() {
    let checks = |is_near: bool| {
        let mut run = Run::new(plan(2000));
        run.scan.set_allowance(1);
        let mut at_once = 0;
        while run.scan.is_running() {
            run.launch(|_, _| Some((u64::from(!is_near), Outcome::Refused)));
            let checked = |flight: &&Flight| flight.launch.check == CompletionCheck::AtOnce;
            at_once += run.flights.iter().filter(checked).count() as u32;
            run.now = run.next().expect("an answer is due");
            run.handle_due();
        }
        at_once
    };
    assert!(checks(true) >= 1990);
    let few = checks(false);
    let expected = CHECKS_MISSED_MAX..=CHECKS_MISSED_MAX + 2000 / CHECK_INTERVAL;
    assert!(expected.contains(&few), "{few} checks at a far target");
}

#[test]
fn rejections_are_checked_at_once_unless_a_repeated_syn_shows_them() {
    for (timeout, check) in [
        (Timeout::Fixed(1000 * MILLI), CompletionCheck::RejectionAtOnce),
        (Timeout::Fixed(1001 * MILLI), CompletionCheck::Later),
        (Timeout::Fixed(2000 * MILLI), CompletionCheck::Later),
        (Timeout::Fixed(2001 * MILLI), CompletionCheck::RejectionAtOnce),
        (Timeout::Auto, CompletionCheck::RejectionAtOnce),
    ] {
        let scan = Run::new(Plan { options: ScanOptions { timeout, ..OPTIONS }, ..plan(10) }).scan;
        assert_eq!(scan.later_check(), check, "{timeout}");
    }
}

#[test]
fn another_port_is_pinged_if_the_present_one_no_longer_answers() {
    let mut pings = Pings::new(Duration::from_secs(2));
    pings.handle_responder(ResponderKind::Open, 80);
    pings.handle_responder(ResponderKind::Closed, 81);
    pings.handle_responder(ResponderKind::Open, 82);
    assert_eq!(pings.port(), Some(81), "a closed port is the best target");
    let mut rtt = Rtt::default();
    rtt.handle_answer(20 * MILLI);
    let weight = PingWeight { syns: 1, tests_rate: true };
    for n in 0..8_u32 {
        pings.push(Key::from_parts(n, 0), n * MILLI, weight);
    }
    while pings.poll_event(1000 * MILLI, &rtt).is_some() {}
    assert!(pings.has_failed());
    pings.handle_responder(ResponderKind::Rejected, 84);
    assert_eq!((pings.port(), pings.has_failed()), (Some(81), true));
    pings.handle_responder(ResponderKind::Open, 83);
    assert_eq!((pings.port(), pings.has_failed()), (Some(83), false));
}

#[test]
fn a_ping_is_lost_at_the_timeout_and_if_the_host_became_unreachable() {
    let mut rtt = Rtt::default();
    rtt.handle_answer(20 * MILLI);
    let weight = PingWeight { syns: 1, tests_rate: true };
    let lost = |pings: &mut Pings, elapsed: Duration| {
        let events = std::iter::from_fn(|| pings.poll_event(elapsed, &rtt));
        events
            .filter(|it| matches!(it, PingEvent::Counted { result: PingResult::Lost, .. }))
            .count()
    };
    let mut pings = Pings::new(100 * MILLI);
    pings.handle_responder(ResponderKind::Closed, 80);
    pings.push(Key::from_parts(0, 0), Duration::ZERO, weight);
    assert_eq!((lost(&mut pings, 99 * MILLI), lost(&mut pings, 100 * MILLI)), (0, 1));
    let number = pings.push(Key::from_parts(1, 0), 100 * MILLI, weight);
    assert!(pings.is_of_host(number));
    pings.handle_loss(number);
    assert_eq!((lost(&mut pings, 101 * MILLI), pings.in_flight()), (1, 0));
    let mut pings = Pings::new(100 * MILLI);
    pings.handle_responder(ResponderKind::Rejected, 80);
    let number = pings.push(Key::from_parts(2, 0), Duration::ZERO, weight);
    assert!(!pings.is_of_host(number), "a router answers for the host");
    pings.handle_responder(ResponderKind::Closed, 81);
    assert_eq!(lost(&mut pings, 500 * MILLI), 0, "the router may limit its answers");
    assert_eq!(pings.in_flight(), 0);
}

/// A regression test: pings of a closed port lose nothing, so the scan once ended after two passes.
#[test]
fn open_ports_that_miss_more_syns_than_closed_ports_are_all_found() {
    let options = ScanOptions { retries: Retries::Auto, ..OPTIONS };
    let mut run = Run::new(Plan { options, ..plan(300) });
    run.finish(|port, nth| match port % 10 {
        0 if nth < usize::from(port / 10 % 6) => SILENT,
        0 => Some((20, Outcome::Connected)),
        1..=3 => SILENT,
        _ => REFUSED,
    });
    assert_eq!(run.counts(), [30, 180, 90, 0, 0]);
    assert!(run.scan.loss_suspected());
    let passes = run.launches.iter().filter(|(_, port)| *port == 1).count();
    assert_eq!(passes, 8, "the passes end after two that find no open port");
}

/// A regression test: with a timeout below 200 ms each scan with silent ports showed a loss.
#[test]
fn a_short_timeout_shows_no_loss_if_answers_come_early_enough() {
    for (timeout, suspected) in [(30, false), (150, false), (210, false), (22, true)] {
        let timeout = Timeout::Fixed(timeout * MILLI);
        let options = ScanOptions { timeout, retries: Retries::Auto, ..OPTIONS };
        let mut run = Run::new(Plan { options, ..plan(300) });
        run.finish(|port, _| if port % 2 == 0 { SILENT } else { REFUSED });
        assert_eq!(run.counts(), [0, 150, 150, 0, 0]);
        assert_eq!(run.scan.loss_suspected(), suspected, "{timeout:?} {:?}", run.scan.loss());
    }
}

/// A regression test: many targets behind one link lost all their exchanges, and were reported as
/// certainly silent.
#[test]
fn a_silent_target_is_probed_again_while_other_targets_lose_exchanges() {
    let options = ScanOptions { retries: Retries::Auto, ..OPTIONS };
    for (loss, responding, passes) in
        [(0.0, 1.0, 1), (0.05, 1.0, 2), (0.5, 1.0, 7), (0.5, 0.01, 1), (1.0, 1.0, 9)]
    {
        let mut run = Run::new(Plan { options, ..plan(3) });
        run.scan.set_sweep_loss(SweepLoss { loss, responding });
        run.finish(|_, _| SILENT);
        assert_eq!(run.launches.len(), 3 * passes, "{loss}, {responding}");
        assert_eq!(run.counts(), [0, 0, 3, 0, 0]);
        assert_eq!((run.scan.loss(), run.scan.loss_suspected()), (None, passes > 1));
    }
    // Two exchanges in a pass: the repeated SYN is lost with a probability of at least a half.
    for (loss, passes) in [(0.01, 1), (0.04, 2)] {
        let timeout = Timeout::Fixed(2000 * MILLI);
        let mut run = Run::new(Plan { options: ScanOptions { timeout, ..options }, ..plan(3) });
        run.scan.set_sweep_loss(SweepLoss { loss, responding: 1.0 });
        run.finish(|_, _| SILENT);
        assert_eq!(run.launches.len(), 3 * passes, "{loss}");
    }
    let mut run = Run::new(Plan { options: OPTIONS, ..plan(3) });
    run.scan.set_sweep_loss(SweepLoss { loss: 0.5, responding: 1.0 });
    run.finish(|_, _| SILENT);
    assert_eq!((run.launches.len(), run.scan.loss_suspected()), (3, true), "retries=0");
    let mut run = Run::new(Plan { options, ..plan(3) });
    run.scan.set_sweep_loss(SweepLoss { loss: 0.5, responding: 1.0 });
    run.finish(|port, nth| if port == 2 && nth == 2 { REFUSED } else { SILENT });
    assert_eq!(run.counts(), [0, 1, 2, 0, 0]);
}

/// A regression test: the limit of a router once seemed to be an outage of the host, and each
/// rejection in a later pass led to another pass.
#[test]
fn a_router_that_limits_its_rejections_shows_no_loss() {
    for (retries, timeout, delay) in
        [(Retries::Auto, 2000, 1100), (Retries::Exactly(2), 2000, 1100), (Retries::Auto, 700, 650)]
    {
        let timeout = Timeout::Fixed(timeout * MILLI);
        let options = ScanOptions { timeout, retries, ..OPTIONS };
        let mut run = Run::new(Plan { options, ..plan(600) });
        let rejected = Some((delay, Outcome::Unreachable));
        run.finish(|port, nth| if usize::from(port % 10) == nth { rejected } else { SILENT });
        assert_eq!((run.scan.loss(), run.scan.loss_suspected()), (None, false), "{retries:?}");
        let passes = run.launches.iter().filter(|(_, port)| *port == 9).count();
        assert_eq!(passes, if retries == Retries::Auto { 1 } else { 3 });
    }
}

/// A regression test: the first rejected port was pinged in place of the closed one, and the lost
/// pings were forgotten.
#[test]
fn a_host_that_is_cut_off_during_a_scan_shows_as_loss() {
    let options =
        ScanOptions { timeout: Timeout::Fixed(500 * MILLI), retries: Retries::Auto, ..OPTIONS };
    let mut run = Run::new(Plan { options, ..plan(1500) });
    run.cut_off_after = 80 * MILLI;
    run.finish(|port, _| if port % 3 == 1 { SILENT } else { REFUSED });
    let [_, closed, filtered, unreachable, _] = run.counts();
    assert!(closed > 0 && unreachable > 500, "{:?}", run.counts());
    assert_eq!(filtered, 0, "the silent ports are probed again");
    assert!(run.scan.loss_suspected(), "{:?}", run.scan.loss());
    assert!(run.scan.loss().is_some_and(|loss| loss > 0.5), "{:?}", run.scan.loss());
}

/// A regression test: the loss was 0 although nothing had measured it.
#[test]
fn the_loss_is_unknown_if_ports_stayed_silent_without_a_ping_or_a_second_exchange() {
    let concurrency = NonZeroU16::new(1);
    for (silent, expected) in [(false, Some(0.0)), (true, None)] {
        let mut run = Run::new(Plan { options: ScanOptions { concurrency, ..OPTIONS }, ..plan(3) });
        run.scan.set_allowance(1);
        run.finish(|port, _| if port == 3 && silent { SILENT } else { REFUSED });
        assert_eq!((run.pings, run.scan.loss()), (0, expected));
    }
}

/// A regression test: with one permitted probe in flight, pings once took the place of all ports.
#[test]
fn pings_do_not_starve_the_ports_of_a_scan_with_few_probes_in_flight() {
    for allowance in [1, 2, 3, 4, 16] {
        let mut run = Run::new(plan(40));
        run.scan.set_allowance(allowance);
        run.finish(|_, _| Some((90, Outcome::Refused)));
        assert_eq!(run.scan.counts().closed, 40, "{allowance} in flight");
        assert!(run.now - run.start < 20_000 * MILLI, "{allowance}: {:?}", run.now - run.start);
    }
}

#[test]
fn only_the_probes_that_started_since_a_time_are_postponed() {
    let mut run = Run::new(plan(100));
    run.launch(|_, _| SILENT);
    let earlier = run.launches.len();
    run.now += 200 * MILLI;
    run.launch(|_, _| SILENT);
    let later = run.launches.len() - earlier;
    assert!(earlier > 0 && later > 0, "{earlier} and {later} probes");
    let since = run.start + 100 * MILLI;
    let postponed = std::iter::from_fn(|| run.scan.poll_postponed(since)).count();
    assert_eq!(postponed, later);
    run.scan.handle_end();
    assert_eq!(run.scan.poll_postponed(run.start), None, "the scan has ended");
}
