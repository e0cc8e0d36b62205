//! The results of scans of random networks: a report for each, and the distribution of all.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use serde_json::Value;

use crate::judge::ranges_of;
use crate::network::Port;
use crate::path::Traffic;
use crate::reader::Response;

/// One scan in 1,000 may have a wrong state without a warning: `scan::loss` stops when fewer than
/// one scan in a hundred is expected to miss a port.
const SCANS_PER_UNWARNED: usize = 1000;
/// One scan in 500 may overload a visible queue late, because passes that are too short to measure
/// the queue begin at the rate of the first pass.
const SCANS_PER_OVERLOADED: usize = 500;
/// The exceptions permitted in addition, because few networks are not a representative sample.
const UNWARNED_SPARE: usize = 2;
/// The maximum time of the median scan, as a multiple of its floor.
const MEDIAN_MAX: f64 = 1.3;
/// The maximum share of exchanges lost at random, for each row of the table.
const LOSS_CLASSES: [f64; 5] = [0.0, 0.05, 0.1, 0.2, 1.0];

/// The result of a scan, compared with its network.
#[derive(Clone, Debug)]
pub(crate) struct Report {
    pub(crate) elapsed: Duration,
    pub(crate) loss: Option<f64>,
    pub(crate) is_loss_suspected: bool,
    pub(crate) is_complete: bool,
    /// Ports that answer, but are reported as filtered.
    pub(crate) hidden: usize,
    /// Open ports that are reported as filtered.
    pub(crate) missed: usize,
    pub(crate) open: usize,
    /// Ports that are reported with any other wrong state.
    pub(crate) false_states: usize,
    /// The packets on the path in each second.
    pub(crate) traffic: Vec<Traffic>,
}

impl Report {
    /// Reads the response to a scan of these ports. The request includes the ports of every state.
    pub(crate) fn new(
        response: &Response,
        ports: &BTreeMap<u16, Port>,
        traffic: Vec<Traffic>,
    ) -> Self {
        let text = std::str::from_utf8(&response.body).expect("a response is UTF-8");
        assert_eq!(response.status, 200, "{text}");
        let summary: Value = serde_json::from_str(text).expect("a response is JSON");
        let mut report = Self {
            elapsed: Duration::from_millis(summary["elapsed_ms"].as_u64().expect("a time")),
            loss: summary["loss"].as_f64(),
            is_loss_suspected: summary["loss_suspected"] == true,
            is_complete: summary["complete"] == true,
            hidden: 0,
            missed: 0,
            open: ports.values().filter(|kind| **kind == Port::Open).count(),
            false_states: 0,
            traffic,
        };
        let ranges = |key: &str| ranges_of(&summary, key).expect("the request includes them");
        let open = serde_json::from_value(summary["open_ports"].clone()).expect("ports");
        let states = [
            (Port::Open, open),
            (Port::Closed, ranges("closed_ports")),
            (Port::Silent, ranges("filtered_ports")),
            (Port::Unreachable, ranges("unreachable_ports")),
        ];
        for (state, reported) in states {
            for truth in reported.iter().map(|port| ports[port]).filter(|truth| *truth != state) {
                if state == Port::Silent {
                    report.hidden += 1;
                    report.missed += usize::from(truth == Port::Open);
                } else {
                    report.false_states += 1;
                }
            }
        }
        report
    }

    pub(crate) const fn is_wrong(&self) -> bool {
        self.hidden > 0 || self.false_states > 0
    }

    /// Returns whether the response warns that states may be wrong. A loss of `null` means that no
    /// port has responded.
    pub(crate) fn warns(&self) -> bool {
        !self.is_complete || self.is_loss_suspected || self.loss.is_none_or(|loss| loss > 0.0)
    }

    /// Returns the sum of the packets on the path from this second on.
    pub(crate) fn traffic_from(&self, second: usize) -> Traffic {
        self.traffic.iter().skip(second).fold(Traffic::default(), |sum, it| Traffic {
            syns: sum.syns + it.syns,
            dropped: sum.dropped + it.dropped,
        })
    }
}

/// Scans of plain networks whose loss is in one class.
#[derive(Clone, Copy, Debug, Default)]
struct LossClass {
    scans: usize,
    open: usize,
    missed: usize,
    scans_missing: usize,
    unwarned: usize,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Distribution {
    /// Seeds of networks with a wrong state and no warning.
    pub(crate) unwarned: Vec<u64>,
    /// Seeds of networks whose queue drops many SYNs late in the scan.
    pub(crate) overloaded: Vec<u64>,
    /// Scans with a wrong state.
    wrong: usize,
    /// Scans with a wrong state in which no port responded.
    unanswered: usize,
    /// Time ÷ floor of all scans, and of the scans of plain networks.
    factors: Vec<f64>,
    plain_factors: Vec<f64>,
    /// The share of SYNs that the queue dropped, in each scan with at least 200 SYNs.
    dropped: Vec<f64>,
    classes: [LossClass; LOSS_CLASSES.len()],
}

impl Distribution {
    /// Adds one scan. `plain_loss` is the random loss in each direction if the network has no other
    /// obstacle than loss and a bottleneck.
    pub(crate) fn add(&mut self, floor: Duration, plain_loss: Option<f64>, report: &Report) {
        let factor = report.elapsed.as_secs_f64() / floor.as_secs_f64();
        self.factors.push(factor);
        if report.is_wrong() {
            self.wrong += 1;
            self.unanswered += usize::from(report.loss.is_none());
        }
        let Traffic { syns, dropped } = report.traffic_from(0);
        if syns >= 200 {
            self.dropped.push(dropped as f64 / syns as f64);
        }
        let Some(loss) = plain_loss else { return };
        self.plain_factors.push(factor);
        let exchange = 1.0 - (1.0 - loss).powi(2);
        let place = LOSS_CLASSES.iter().position(|most| exchange <= *most).expect("the last is 1");
        let class = &mut self.classes[place];
        class.scans += 1;
        class.open += report.open;
        class.missed += report.missed;
        class.scans_missing += usize::from(report.missed > 0);
        class.unwarned += usize::from(report.missed > 0 && !report.warns());
    }

    /// Checks the properties that single scans may violate by chance.
    pub(crate) fn check(&self) {
        let scans = self.factors.len();
        let most = scans / SCANS_PER_UNWARNED + UNWARNED_SPARE;
        let unwarned = &self.unwarned;
        assert!(unwarned.len() <= most, "wrong states without a warning: {unwarned:?}");
        let overloaded = &self.overloaded;
        let most = scans / SCANS_PER_OVERLOADED + UNWARNED_SPARE / 2;
        assert!(overloaded.len() <= most, "the rate oscillates: {overloaded:?}");
        let median = quantile(&self.factors, 0.5);
        assert!(median <= MEDIAN_MAX, "the median scan takes {median:.2} times its floor");
    }

    pub(crate) fn table(&self, technique: &str) -> String {
        let mut text = format!("{technique}: {} networks\n", self.factors.len());
        let rows = [
            ("time / floor", &self.factors),
            ("the same, plain networks", &self.plain_factors),
            ("share of SYNs dropped", &self.dropped),
        ];
        for (name, values) in rows {
            let [median, most, nearly_all, worst] =
                [0.5, 0.9, 0.99, 1.0].map(|share| quantile(values, share));
            let quantiles = format!("{median:.2} {most:.2} {nearly_all:.2} {worst:.2}");
            writeln!(text, "{name}: median, 90 %, 99 %, worst: {quantiles}").expect("a text");
        }
        writeln!(text, "queues that are overloaded late: {:?}", self.overloaded).expect("a text");
        let (wrong, unanswered, unwarned) = (self.wrong, self.unanswered, &self.unwarned);
        writeln!(
            text,
            "scans with a wrong state: {wrong}, {unanswered} of them with loss null, {} without a \
             warning: {unwarned:?}",
            unwarned.len()
        )
        .expect("a text");
        for (most, class) in LOSS_CLASSES.iter().zip(&self.classes) {
            let LossClass { scans, open, missed, scans_missing, unwarned } = class;
            writeln!(
                text,
                "exchanges lost up to {most}: {missed} of {open} open ports missed, in \
                 {scans_missing} of {scans} scans, {unwarned} without a warning"
            )
            .expect("a text");
        }
        text
    }
}

/// Returns the quantile of these values for this share, or 0 without values.
fn quantile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let place = ((sorted.len() as f64 * share) as usize).min(sorted.len().saturating_sub(1));
    sorted.get(place).copied().unwrap_or_default()
}
