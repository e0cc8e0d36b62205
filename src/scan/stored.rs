//! A scan as the scheduler stores it: in a small form while it only waits.
//!
//! A sweep has tens of thousands of targets with a few ports in flight, most of which never answer.
//! While all ports of such a scan wait for their first answer, its state follows from its plan and
//! from the probes in flight: [`WaitingScan`] has only these. The part of the plan that is the same
//! for all targets is shared (`CommonPlan`). Before any other change the scan is restored, by
//! launching the same probes again at the same times with the same keys.
//!
//! Invariant: a restored scan has the probes, with the ids, that the stored one had.

#![expect(
    clippy::disallowed_types,
    reason = "a common plan never changes, and the last scan frees it"
)]

use std::net::SocketAddr;
use std::rc::Rc;
use std::slice;
use std::time::{Duration, Instant};

use super::ledger::{Counts, PortState};
use super::options::ScanOptions;
use super::plan::{Plan, RateShare};
use super::probes::Probe;
use super::{Launch, Scan};
use crate::port_set::PortSet;
use crate::slots::Key;

/// The maximum number of ports of a scan that is stored in the small form.
const PORTS_MAX: usize = 8;

/// See the module's documentation.
#[derive(Debug)]
pub enum StoredScan {
    /// All ports wait for their first answer.
    Waiting(WaitingScan),
    /// Any other state.
    Full(Box<Scan>),
}

/// A scan that has launched one probe for each port and received no outcome.
#[derive(Debug)]
pub struct WaitingScan {
    plan: Rc<CommonPlan>,
    target: SocketAddr,
    ends_at: Instant,
    started_at: Instant,
    probes: WaitingProbes,
    allowance: u32,
}

/// The part of a plan that many targets have in common, and what follows from it.
#[derive(Debug)]
struct CommonPlan {
    is_routed: bool,
    ports: PortSet,
    options: ScanOptions,
    share: RateShare,
    /// See [`Scan::need`].
    need: usize,
    timeout: Duration,
}

/// The common plan of the scan that was stored last: the next one usually has the same.
#[derive(Debug, Default)]
pub struct LastPlan(Option<Rc<CommonPlan>>);

/// The probes in the order of their ports.
#[derive(Debug)]
enum WaitingProbes {
    One(WaitingProbe),
    Several(Box<[WaitingProbe]>),
}

/// A probe in flight.
#[derive(Clone, Copy, Debug)]
struct WaitingProbe {
    key: Key,
    /// The microseconds from the start of the scan to the start of the probe.
    started_micros: u32,
}

static NO_PORTS: PortSet = PortSet::new();

impl StoredScan {
    /// See [`Scan::new`].
    pub fn new(now: Instant, plan: Plan) -> Self {
        Self::Full(Box::new(Scan::new(now, plan)))
    }

    /// The scan for changes other than those below.
    pub fn restore(&mut self) -> &mut Scan {
        if let Self::Waiting(waiting) = self {
            *self = Self::Full(Box::new(waiting.restore()));
        }
        match self {
            Self::Full(scan) => scan,
            Self::Waiting(_) => unreachable!("the scan was restored above"),
        }
    }

    /// The scan without its storage.
    pub fn into_scan(mut self) -> Scan {
        self.restore();
        match self {
            Self::Full(scan) => *scan,
            Self::Waiting(_) => unreachable!("the scan was restored above"),
        }
    }

    /// See [`Scan::poll_launch`]. `last` is that of all scans that are stored together.
    pub fn poll_launch(&mut self, now: Instant, key: Key, last: &mut LastPlan) -> Option<Launch> {
        let scan = self.restore();
        let launch = scan.poll_launch(now, key);
        if launch.is_some()
            && let Some(waiting) = WaitingScan::of(scan, now, last)
        {
            *self = Self::Waiting(waiting);
        }
        launch
    }

    /// See [`Scan::poll_postponed`].
    pub fn poll_postponed(&mut self, since: Instant) -> Option<Key> {
        match self {
            Self::Waiting(waiting) if !waiting.has_started(since) => None,
            Self::Waiting(_) | Self::Full(_) => self.restore().poll_postponed(since),
        }
    }

    /// See [`Scan::set_allowance`].
    pub fn set_allowance(&mut self, probes: usize) {
        match self {
            Self::Waiting(waiting) => waiting.allowance = probes as u32,
            Self::Full(scan) => scan.set_allowance(probes),
        }
    }

    /// See [`Scan::need`].
    pub fn need(&self) -> usize {
        match self {
            Self::Waiting(waiting) => waiting.plan.need,
            Self::Full(scan) => scan.need(),
        }
    }

    /// See [`Scan::launch_at`].
    pub fn launch_at(&self, now: Instant) -> Option<Instant> {
        match self {
            Self::Waiting(_) => None,
            Self::Full(scan) => scan.launch_at(now),
        }
    }

    /// See [`Scan::wants_launch`].
    pub fn wants_launch(&self, now: Instant) -> bool {
        self.launch_at(now).is_some_and(|at| at <= now)
    }

    /// See [`Scan::deadline`].
    pub fn deadline(&self) -> Option<Instant> {
        match self {
            Self::Waiting(waiting) => Some(waiting.deadline()),
            Self::Full(scan) => scan.deadline(),
        }
    }

    /// See [`Scan::probe_timeout`].
    pub fn probe_timeout(&self) -> Duration {
        match self {
            Self::Waiting(waiting) => waiting.plan.timeout,
            Self::Full(scan) => scan.probe_timeout(),
        }
    }

    /// See [`Scan::has_surplus`].
    pub const fn has_surplus(&self) -> bool {
        match self {
            Self::Waiting(waiting) => waiting.probes.as_slice().len() > waiting.allowance as usize,
            Self::Full(scan) => scan.has_surplus(),
        }
    }

    /// See [`Scan::is_running`].
    pub const fn is_running(&self) -> bool {
        match self {
            Self::Waiting(_) => true,
            Self::Full(scan) => scan.is_running(),
        }
    }

    /// See [`Scan::has_answer`].
    pub const fn has_answer(&self) -> bool {
        match self {
            Self::Waiting(_) => false,
            Self::Full(scan) => scan.has_answer(),
        }
    }

    /// See [`Scan::in_flight`].
    pub const fn in_flight(&self) -> usize {
        match self {
            Self::Waiting(waiting) => waiting.probes.as_slice().len(),
            Self::Full(scan) => scan.in_flight(),
        }
    }

    /// See [`Scan::target`].
    pub const fn target(&self) -> SocketAddr {
        match self {
            Self::Waiting(waiting) => waiting.target,
            Self::Full(scan) => scan.target(),
        }
    }

    /// See [`Scan::counts`].
    pub const fn counts(&self) -> Counts {
        match self {
            Self::Waiting(waiting) => Counts {
                open: 0,
                closed: 0,
                filtered: 0,
                unreachable: 0,
                untested: waiting.probes.as_slice().len() as u32,
            },
            Self::Full(scan) => scan.counts(),
        }
    }

    /// See [`Scan::ports`].
    pub fn ports(&self, state: PortState) -> &PortSet {
        match (self, state) {
            (Self::Waiting(waiting), PortState::Untested) => &waiting.plan.ports,
            (Self::Waiting(_), _) => &NO_PORTS,
            (Self::Full(scan), _) => scan.ports(state),
        }
    }
}

impl WaitingScan {
    /// The small form of a scan, if it is in the state that this form stands for.
    #[inline(never)]
    fn of(scan: &Scan, now: Instant, last: &mut LastPlan) -> Option<Self> {
        let ports = scan.plan.ports.len();
        let is_waiting = ports <= PORTS_MAX
            && scan.launched as usize == ports
            && scan.probes.len() == ports
            && scan.rate_limit.is_none()
            && scan.launch_at(now).is_none();
        if !is_waiting {
            return None;
        }
        assert!(scan.controller.is_none(), "a scan of a few ports has no congestion control");
        assert!(!scan.has_answer() && scan.pings.in_flight() == 0, "all ports are in flight");
        let probe = |probe: &Probe| WaitingProbe {
            key: probe.key,
            started_micros: probe.started().as_micros() as u32,
        };
        let probes = match scan.probes.oldest() {
            Some((_, only)) if ports == 1 => WaitingProbes::One(probe(only)),
            _ => WaitingProbes::Several(scan.probes.iter().map(probe).collect()),
        };
        Some(Self {
            plan: last.plan_of(scan),
            target: scan.plan.target,
            ends_at: scan.plan.ends_at,
            started_at: scan.started_at,
            probes,
            allowance: scan.allowance as u32,
        })
    }

    /// See [`Scan::deadline`].
    fn deadline(&self) -> Instant {
        let oldest = self.probes.as_slice().iter().map(WaitingProbe::started).min();
        let expiry = self.started_at + oldest.unwrap_or_default() + self.plan.timeout;
        expiry.min(self.ends_at)
    }

    /// Whether a probe was started at `since` or later, or in the microsecond before it.
    fn has_started(&self, since: Instant) -> bool {
        let since = since.saturating_duration_since(self.started_at);
        let youngest = self.probes.as_slice().iter().map(WaitingProbe::started).max();
        youngest.is_some_and(|started| started + Duration::from_micros(1) >= since)
    }

    /// The scan in the state that it had.
    #[inline(never)]
    fn restore(&self) -> Scan {
        let CommonPlan { is_routed, ref ports, options, share, .. } = *self.plan;
        let (target, ends_at, ports) = (self.target, self.ends_at, ports.clone());
        let plan = Plan { target, is_routed, ports, options, share, ends_at };
        let mut scan = Scan::new(self.started_at, plan);
        scan.set_allowance(usize::MAX);
        for probe in self.probes.as_slice() {
            let launch = scan.poll_launch(self.started_at + probe.started(), probe.key);
            assert!(launch.is_some(), "a probe that was launched can be launched again");
        }
        scan.set_allowance(self.allowance as usize);
        scan
    }
}

impl LastPlan {
    /// The common plan of a scan, which becomes the last one.
    fn plan_of(&mut self, scan: &Scan) -> Rc<CommonPlan> {
        let Plan { is_routed, ref ports, options, share, .. } = scan.plan;
        let is_same = |plan: &&Rc<CommonPlan>| {
            plan.is_routed == is_routed
                && plan.ports == *ports
                && plan.options == options
                && plan.share == share
        };
        if let Some(last) = self.0.as_ref().filter(is_same) {
            return Rc::clone(last);
        }
        let (need, timeout) = (scan.need(), scan.probe_timeout());
        let plan = CommonPlan { is_routed, ports: ports.clone(), options, share, need, timeout };
        Rc::clone(self.0.insert(Rc::new(plan)))
    }
}

impl WaitingProbes {
    const fn as_slice(&self) -> &[WaitingProbe] {
        match self {
            Self::One(probe) => slice::from_ref(probe),
            Self::Several(probes) => probes,
        }
    }
}

impl WaitingProbe {
    /// The time from the start of the scan to the start of the probe.
    fn started(&self) -> Duration {
        Duration::from_micros(self.started_micros.into())
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::networks::Random;
    use super::*;
    use crate::event::{Outcome, Shortage};
    use crate::scan::options::{Retries, ScanOptions, Timeout};
    use crate::scan::plan::RateShare;
    use crate::scan::probes::ProbeId;

    const _: () = assert!(size_of::<StoredScan>() <= 104, "a target takes some hundred bytes");

    fn plan(now: Instant, ports: u16, options: ScanOptions) -> Plan {
        Plan {
            target: ([192, 0, 2, 1], 0).into(),
            is_routed: true,
            share: RateShare::WHOLE,
            ports: PortSet::from_range(1, ports),
            options,
            ends_at: now + Duration::from_secs(60),
        }
    }

    /// A stored scan and a scan that is never stored. Both get the same events.
    struct Pair {
        stored: StoredScan,
        scan: Scan,
        last: LastPlan,
        now: Instant,
        probes: Vec<ProbeId>,
    }

    impl Pair {
        fn launch(&mut self, key: Key) {
            let launch = self.stored.poll_launch(self.now, key, &mut self.last);
            assert_eq!(launch, self.scan.poll_launch(self.now, key));
            self.probes.extend(launch.map(|launch| launch.probe));
        }

        fn is_waiting(&self) -> bool {
            matches!(self.stored, StoredScan::Waiting(_))
        }

        fn check(&mut self) {
            let (stored, scan) = (&self.stored, &self.scan);
            assert_eq!((stored.need(), stored.in_flight()), (scan.need(), scan.in_flight()));
            assert_eq!(stored.deadline(), scan.deadline());
            assert_eq!(stored.launch_at(self.now), scan.launch_at(self.now));
            assert_eq!(
                (stored.is_running(), stored.has_answer()),
                (scan.is_running(), scan.has_answer())
            );
            assert_eq!((stored.target(), stored.counts()), (scan.target(), scan.counts()));
            assert_eq!(stored.has_surplus(), scan.has_surplus());
            for state in [PortState::Untested, PortState::Filtered, PortState::Open] {
                assert_eq!(stored.ports(state), scan.ports(state));
            }
        }
    }

    #[test]
    fn a_stored_scan_behaves_like_one_that_is_never_stored() {
        let mut random = Random(3);
        let mut number = |below: u64| random.below(below);
        let mut waited = 0;
        for round in 0..3_000_u64 {
            let now = Instant::now();
            let options = ScanOptions {
                timeout: [Timeout::Auto, Timeout::Fixed(Duration::from_secs(1))]
                    [number(2) as usize],
                retries: [Retries::Auto, Retries::Exactly(1)][number(2) as usize],
                ..ScanOptions::default()
            };
            let plan = plan(now, 1 + number(9) as u16, options);
            let (stored, scan) = (StoredScan::new(now, plan.clone()), Scan::new(now, plan));
            let mut pair =
                Pair { stored, scan, last: LastPlan::default(), now, probes: Vec::new() };
            pair.stored.set_allowance(20);
            pair.scan.set_allowance(20);
            for step in 0..30 {
                pair.now += Duration::from_micros(number(200_000));
                let now = pair.now;
                match number(12) {
                    0 if !pair.probes.is_empty() && pair.scan.is_running() => {
                        let probe =
                            pair.probes.swap_remove(number(pair.probes.len() as u64) as usize);
                        let outcome = [
                            Outcome::Refused,
                            Outcome::Connected,
                            Outcome::Unreachable,
                            Outcome::Shortage(Shortage::Memory),
                        ][number(4) as usize];
                        let result = pair.stored.restore().handle_outcome(now, probe, outcome);
                        assert_eq!(result, pair.scan.handle_outcome(now, probe, outcome));
                    }
                    1 => {
                        let probes = 1 + number(20) as usize;
                        pair.stored.set_allowance(probes);
                        pair.scan.set_allowance(probes);
                    }
                    // The ids of the probes that are given up here are not used any more.
                    2 if step > 20 => {
                        pair.probes.clear();
                        for is_expiry in [false, true] {
                            let poll = |scan: &mut Scan| match is_expiry {
                                true => scan.poll_expired(now),
                                false => scan.poll_surplus(),
                            };
                            let mut next = || (poll(pair.stored.restore()), poll(&mut pair.scan));
                            while let (Some(stored), Some(key)) = next() {
                                assert_eq!(stored, key);
                            }
                        }
                    }
                    4 if step > 20 => {
                        let since = now - Duration::from_micros(number(400_000));
                        loop {
                            let key = pair.stored.poll_postponed(since);
                            assert_eq!(key, pair.scan.poll_postponed(since));
                            if key.is_none() {
                                break;
                            }
                            pair.probes.clear();
                        }
                    }
                    3 if step > 25 => {
                        pair.probes.clear();
                        pair.stored.restore().handle_end();
                        pair.scan.handle_end();
                    }
                    _ => pair.launch(Key::from_parts(step, round as u32)),
                }
                waited += u32::from(pair.is_waiting());
                pair.check();
            }
            pair.stored.restore();
            let StoredScan::Full(stored) = &pair.stored else { unreachable!("it was restored") };
            assert_eq!(format!("{stored:?}"), format!("{:?}", pair.scan));
        }
        assert!(waited > 1_000, "{waited} steps with a scan in the small form");
    }

    #[test]
    fn a_search_for_probes_that_never_left_restores_only_scans_that_have_one() {
        let start = Instant::now();
        let mut scan = StoredScan::new(start, plan(start, 1, ScanOptions::default()));
        scan.set_allowance(1);
        let launched_at = start + Duration::from_millis(5);
        let key = Key::from_parts(0, 0);
        assert!(scan.poll_launch(launched_at, key, &mut LastPlan::default()).is_some());
        let micros = |micros| launched_at + Duration::from_micros(micros);
        assert_eq!(scan.poll_postponed(micros(2)), None);
        assert!(matches!(scan, StoredScan::Waiting(_)));
        assert_eq!(scan.poll_postponed(micros(1)), Some(key));
    }

    #[test]
    fn only_a_few_ports_that_all_wait_are_stored_in_the_small_form() {
        let now = Instant::now();
        for (ports, expected) in [(1, true), (8, true), (9, false)] {
            let plan = plan(now, ports, ScanOptions::default());
            let mut scan = StoredScan::new(now, plan);
            scan.set_allowance(100);
            for index in 0..u32::from(ports) {
                assert!(matches!(scan, StoredScan::Full(_)), "not all ports are in flight");
                let key = Key::from_parts(index, 0);
                assert!(scan.poll_launch(now, key, &mut LastPlan::default()).is_some());
            }
            assert_eq!(matches!(scan, StoredScan::Waiting(_)), expected, "{ports} ports");
            assert_eq!(scan.into_scan().in_flight(), usize::from(ports));
        }
    }
}
