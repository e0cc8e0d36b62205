//! How many packets the path loses, and which silent ports have to be probed again.
//!
//! An exchange is one SYN and its answer. It is lost if either is. Three observations show it: a
//! ping of a port that is known to respond, an answer to the kernel's repeat (the first exchange
//! was lost), and a port that answers in a later pass (its last exchange before was lost). The loss
//! changes while a scan runs, above all where the scan itself overloads a queue, so it is kept for
//! each `BIN` of time.
//!
//! Answers alone would understate the loss, since a port whose exchanges were all lost is missing
//! among them. So an answer to exchange `k` counts exchange `k` as known only if a further one
//! would have followed, and exchange `k - 1` as lost. With a loss of `L`, the answers to the
//! second exchange are `L` times as many as those to the first, so the quotient is `L`.
//!
//! A port that responds stays silent through exchanges at the times `t₁ … tₙ` with probability
//! `L(t₁) × … × L(tₙ)`. Ports that were probed within one bin of time are a *stretch*, for which
//! this product is kept over all passes. With `responding` ports found so far, a stretch that
//! contains a share `s` of the ports is expected to miss `(responding + 1) × s × product` of them.
//! Stretches are probed again, the worst first, until the sum of the rest is below
//! `MISSED_MAX`. The module knows neither the present time nor the state of a port.

use std::time::Duration;

use super::order::Group;
use super::pings::PingResult;

/// The loss is kept for so much time apart, doubled whenever there are [`BINS_MAX`].
const BIN: Duration = Duration::from_millis(250);
/// Bins of time at most: six kilobytes.
const BINS_MAX: usize = 256;
/// A bin is estimated as if so many more pings had met the mean loss of the whole scan.
const SAMPLES_PRIOR: f64 = 8.0;
/// Pings and answers that show how much is lost where so much is sent.
const SIMILAR_SAMPLES_MIN: f64 = 4.0;
/// The least loss to be assumed where more was sent than at any time of which something is known,
/// once a loss was seen.
const LOSS_UNKNOWN: f64 = 0.25;
/// Pings and answers without any loss that make a first pass certain in which each port was asked
/// twice. Fewer may all be answered before the first loss is overdue, or by chance. A further pass
/// without any loss is certain too.
pub const LOSSLESS_SAMPLES_MIN: u32 = 8;
/// The same if each port was asked once.
pub const LOSSLESS_SAMPLES_MIN_SINGLE: u32 = 16;
/// Responding ports that may be missed, as far as can be expected: fewer than one scan in a
/// hundred then misses one.
pub const MISSED_MAX: f64 = 0.01;

/// What was seen of exchanges in one bin of time.
#[derive(Clone, Copy, Debug, Default)]
struct Bin {
    /// Exchanges whose result is known, or that a ping stands for.
    known: u32,
    /// Those lost.
    lost: u32,
    /// Ports that were probed.
    sent: u32,
    /// The squares of what each ping and answer stands for.
    squares: u64,
}

impl Bin {
    fn add(&mut self, known: u32, lost: u32) {
        let squares = u64::from(known).pow(2);
        self.merge(Self { known, lost, sent: 0, squares });
    }

    /// How many observations of equal weight would be as good: a ping that stands for many SYNs
    /// among some that stand for one is nearly the only one (Kish's effective sample size).
    fn samples(self) -> f64 {
        f64::from(self.known).powi(2) / (self.squares as f64).max(1.0)
    }

    fn merge(&mut self, other: Self) {
        self.known = self.known.saturating_add(other.known);
        self.lost = self.lost.saturating_add(other.lost);
        self.sent = self.sent.saturating_add(other.sent);
        self.squares = self.squares.saturating_add(other.squares);
    }

    fn loss(self) -> f64 {
        if self.known == 0 {
            return if self.lost > 0 { 1.0 } else { 0.0 };
        }
        (f64::from(self.lost) / f64::from(self.known)).min(1.0)
    }
}

/// Ports that were probed at about one time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stretch {
    /// The first and the last port; without meaning for the popular ones.
    pub first: u16,
    /// See `first`.
    pub last: u16,
    /// The popular ports are probed before all others.
    pub group: Group,
    /// When its last exchanges began, from the scan's start.
    probed_at: Duration,
    /// Ports probed in the last pass.
    ports: u32,
    /// Its share of all ports of the scan.
    share: f64,
    /// The probability that a responding port stayed silent so far.
    silence_probability: f64,
}

impl Stretch {
    /// Whether the stretch contains this port.
    pub fn contains(&self, port: u16, group: Group) -> bool {
        let is_within = group == Group::Popular || (self.first..=self.last).contains(&port);
        self.group == group && is_within
    }
}

/// Which pass of a scan one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PassKind {
    /// The pass over all ports: it missed nothing if no loss was seen in this many pings and
    /// answers. It is 0 if no ping can measure the loss.
    First {
        /// The number of pings and answers.
        samples_min: u32,
    },
    /// A pass over silent ports.
    Further,
}

/// Which stretches a further pass goes over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// All of them.
    Every,
    /// Those that leave a doubt.
    Doubtful,
}

/// What is known of loss. Bounded by `BINS_MAX`, and by one stretch a bin and pass.
#[derive(Debug)]
pub struct LossMeter {
    bins: Vec<Bin>,
    width: Duration,
    has_answer: bool,
    /// The stretches before this pass that are probed in it, in ascending order.
    previous: Vec<Stretch>,
    /// The index in `before` of the port that was probed last.
    cursor: usize,
    /// The stretches of this pass so far, each with its index in `before`.
    current: Vec<(usize, Stretch)>,
    /// The stretches that are not probed again.
    finished: Vec<Stretch>,
}

impl Default for LossMeter {
    fn default() -> Self {
        Self {
            bins: Vec::new(),
            width: BIN,
            has_answer: false,
            previous: Vec::new(),
            cursor: 0,
            current: Vec::new(),
            finished: Vec::new(),
        }
    }
}

impl LossMeter {
    /// A port is probed, in ascending order within a pass but for the popular ones.
    pub fn handle_probe(&mut self, at: Duration, port: u16, group: Group) {
        let width = nanos(self.width);
        self.seek(port, group);
        if let Some((index, last)) = self.current.last_mut()
            && *index == self.cursor
            && last.group == group
            && nanos(last.probed_at) / width == nanos(at) / width
        {
            last.last = port;
            last.ports += 1;
            return;
        }
        let before = self.previous.get(self.cursor);
        let stretch = Stretch {
            first: port,
            last: port,
            group,
            probed_at: at,
            ports: 1,
            share: before.map_or(1.0, |it| it.share),
            silence_probability: before.map_or(1.0, |it| it.silence_probability),
        };
        self.current.push((self.cursor, stretch));
    }

    /// An answer came to exchange `exchange` (1: the first) of `of` that the timeout allows. It
    /// began at `sent`, and the one before at `sent_before`.
    pub fn handle_answer(&mut self, exchange: AnsweredExchange) {
        self.has_answer = true;
        if exchange.number < exchange.exchanges_max {
            self.bin(exchange.sent_at).add(1, 0);
        }
        if let Some(before) = exchange.previous_sent_at {
            self.bin(before).add(0, 1);
        }
    }

    /// A port answered that had been silent in the passes before, in each of which its last
    /// exchange began so long after its probe.
    pub fn handle_answer_after_silence(&mut self, port: u16, group: Group, last: Duration) {
        let before = self.previous.iter().find(|it| it.contains(port, group));
        if let Some(stretch) = before.copied() {
            self.bin(stretch.probed_at + last).add(0, 1);
        }
    }

    /// The host was not there until `until`: so many ports would have responded.
    pub fn handle_outage(&mut self, until: Duration, ports: u32) {
        let last = self.bin_index(until);
        for index in 0..=last {
            let share = (ports / (last as u32 + 1)).max(1);
            let seen = Bin { known: share, lost: share, sent: 0, squares: share.into() };
            self.bin(self.width * index as u32).merge(seen);
        }
    }

    /// A ping sent at `sent` was answered, or is lost. It stands for the SYNs sent since the ping
    /// before: a moment in which many were sent weighs more than a quiet one.
    pub fn handle_ping(&mut self, sent: Duration, result: PingResult, syns: u32) {
        let lost = match result {
            PingResult::Answered => 0,
            PingResult::Lost => syns,
        };
        self.bin(sent).add(syns, lost);
    }

    /// A pass is over, in which a port was asked at these times after its probe.
    pub fn handle_pass_end(&mut self, exchanges: &[Duration], kind: PassKind) {
        for index in 0..self.current.len() {
            let Stretch { probed_at, ports, .. } = self.current[index].1;
            self.bin(probed_at).sent += ports;
        }
        let mut ports_by_previous = vec![0_u32; self.previous.len().max(1)];
        for (index, stretch) in &self.current {
            ports_by_previous[(*index).min(self.previous.len().saturating_sub(1))] += stretch.ports;
        }
        let is_sure = match kind {
            PassKind::First { samples_min } => self.is_lossless(samples_min),
            PassKind::Further => !self.has_lost(),
        };
        for (index, mut stretch) in std::mem::take(&mut self.current) {
            let all = ports_by_previous[index.min(ports_by_previous.len() - 1)];
            stretch.share *= f64::from(stretch.ports) / f64::from(all.max(1));
            stretch.silence_probability *=
                if is_sure { 0.0 } else { self.silence_probability(stretch.probed_at, exchanges) };
            self.finished.push(stretch);
        }
        self.previous.clear();
        self.cursor = 0;
    }

    /// The probability that a port which was probed then and responds stayed silent in a pass.
    fn silence_probability(&self, probed_at: Duration, exchanges: &[Duration]) -> f64 {
        // The kernel's repeats meet each other as the first SYNs did, in bursts that a ping may
        // slip through: what was lost at first may be lost again.
        let first = self.loss_at(probed_at);
        exchanges.iter().map(|after| self.loss_at(probed_at + *after).max(first)).product()
    }

    /// Begins a pass to such an extent, and returns its stretches. To be called after
    /// [`LossMeter::handle_pass_end`].
    pub fn begin_pass(&mut self, responding: u32, extent: Extent) -> &[Stretch] {
        let factor = f64::from(responding) + 1.0;
        self.finished.sort_by(|a, b| {
            (a.share * a.silence_probability).total_cmp(&(b.share * b.silence_probability))
        });
        let mut rest = 0.0;
        let kept = self.finished.iter().take_while(|stretch| {
            rest += factor * stretch.share * stretch.silence_probability;
            rest < MISSED_MAX / 2.0
        });
        let kept = match extent {
            Extent::Every => 0,
            Extent::Doubtful => kept.count(),
        };
        self.previous = self.finished.split_off(kept);
        self.previous.sort_by_key(|stretch| (stretch.group == Group::Other, stretch.first));
        &self.previous
    }

    /// The share of exchanges lost, 0 to 1; `None` while nothing responded.
    pub fn loss(&self) -> Option<f64> {
        self.has_answer.then(|| self.total().loss())
    }

    /// Whether something responded.
    pub const fn has_answer(&self) -> bool {
        self.has_answer
    }

    /// Whether an exchange was lost.
    pub fn has_lost(&self) -> bool {
        self.bins.iter().any(|bin| bin.lost > 0)
    }

    /// How many responding ports the passes so far have missed, as far as can be expected;
    /// `None` while nothing responded.
    pub fn missed(&self, responding: u32) -> Option<f64> {
        let shares =
            self.finished.iter().map(|stretch| stretch.share * stretch.silence_probability);
        self.has_answer.then(|| (f64::from(responding) + 1.0) * shares.sum::<f64>())
    }

    /// Whether nothing was lost, and enough was seen to rely on that.
    fn is_lossless(&self, samples_min: u32) -> bool {
        let total = self.total();
        total.lost == 0 && total.samples() >= f64::from(samples_min)
    }

    fn total(&self) -> Bin {
        let mut total = Bin::default();
        self.bins.iter().for_each(|bin| total.merge(*bin));
        total
    }

    /// The loss at a time, and half a standard deviation more. Half a loss is added to those
    /// seen: few observations without a loss do not exclude it.
    ///
    /// A moment of which little is known is taken for one in which as much was sent, since a scan
    /// that overloads a queue does so in each of them.
    fn loss_at(&self, at: Duration) -> f64 {
        let bin = self.bins.get(self.bin_index(at)).copied().unwrap_or_default();
        let mut similar = Bin::default();
        let is_similar = |other: &&Bin| other.sent >= bin.sent / 2;
        self.bins.iter().filter(is_similar).for_each(|other| similar.merge(*other));
        let is_known = similar.samples() >= SIMILAR_SAMPLES_MIN;
        let total = if is_known { similar } else { self.total() };
        let all = total.samples();
        let mean = (total.loss() * all + 0.5) / (all + 1.0);
        let mean = if is_known || total.lost == 0 { mean } else { mean.max(LOSS_UNKNOWN) };
        let seen = bin.samples();
        let loss = (bin.loss() * seen + mean * SAMPLES_PRIOR) / (seen + SAMPLES_PRIOR);
        (loss + 0.5 * (loss * (1.0 - loss) / (seen + SAMPLES_PRIOR)).sqrt()).min(1.0)
    }

    fn bin_index(&self, at: Duration) -> usize {
        (nanos(at) / nanos(self.width)) as usize
    }

    fn bin(&mut self, at: Duration) -> &mut Bin {
        while self.bin_index(at) >= BINS_MAX {
            self.width *= 2;
            let merged = self.bins.chunks(2).map(|pair| {
                let mut sum = pair[0];
                pair.get(1).iter().for_each(|other| sum.merge(**other));
                sum
            });
            self.bins = merged.collect();
        }
        let index = self.bin_index(at);
        if self.bins.len() <= index {
            self.bins.resize(index + 1, Bin::default());
        }
        &mut self.bins[index]
    }

    /// Moves the cursor to the stretch before this pass that contains the port.
    fn seek(&mut self, port: u16, group: Group) {
        let is_behind =
            |it: &Stretch| group == Group::Other && (it.group == Group::Popular || it.last < port);
        while self.cursor + 1 < self.previous.len() && is_behind(&self.previous[self.cursor]) {
            self.cursor += 1;
        }
    }
}

/// Whole nanoseconds; a scan lasts less than 500 years.
const fn nanos(duration: Duration) -> u64 {
    duration.as_secs() * 1_000_000_000 + duration.subsec_nanos() as u64
}

/// Which SYN of a probe an answer belongs to.
#[derive(Clone, Copy, Debug)]
pub struct AnsweredExchange {
    /// 1 for the first.
    pub number: u32,
    /// How many the timeout allows.
    pub exchanges_max: u32,
    /// When its SYN left, from the scan's start.
    pub sent_at: Duration,
    /// When the SYN before left.
    pub previous_sent_at: Option<Duration>,
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const BOTH: [Duration; 2] = [Duration::ZERO, SECOND];

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn result(is_lost: bool) -> PingResult {
        if is_lost { PingResult::Lost } else { PingResult::Answered }
    }

    fn answer(number: u32, exchanges_max: u32, at: Duration) -> AnsweredExchange {
        let previous_sent_at = (number > 1).then_some(at);
        AnsweredExchange {
            number,
            exchanges_max,
            sent_at: at + SECOND * (number - 1),
            previous_sent_at,
        }
    }

    /// Probes ports 1 to `last`, one a millisecond.
    fn probe(meter: &mut LossMeter, last: u16) {
        (1..=last).for_each(|port| meter.handle_probe(ms(port.into()), port, Group::Other));
    }

    #[test]
    fn a_path_that_loses_nothing_needs_one_pass() {
        let mut meter = LossMeter::default();
        assert_eq!((meter.loss(), meter.missed(0)), (None, None), "nothing responded");
        probe(&mut meter, 1000);
        (0..LOSSLESS_SAMPLES_MIN).for_each(|_| meter.handle_answer(answer(1, 2, Duration::ZERO)));
        meter.handle_pass_end(&BOTH, PassKind::First { samples_min: LOSSLESS_SAMPLES_MIN });
        assert_eq!((meter.loss(), meter.missed(50)), (Some(0.0), Some(0.0)));
        assert!(!meter.has_lost());
    }

    #[test]
    fn few_observations_without_loss_leave_a_doubt() {
        for (exchanges, samples_min) in
            [(1, LOSSLESS_SAMPLES_MIN_SINGLE), (2, LOSSLESS_SAMPLES_MIN)]
        {
            for (samples, is_sure) in [(samples_min - 1, false), (samples_min, true)] {
                let mut meter = LossMeter::default();
                probe(&mut meter, 100);
                meter.handle_answer(answer(1, 1, Duration::ZERO));
                (0..samples).for_each(|_| meter.handle_ping(ms(10), PingResult::Answered, 1));
                meter.handle_pass_end(&BOTH[..exchanges], PassKind::First { samples_min });
                let missed = meter.missed(5).expect("something responded");
                assert_eq!(missed == 0.0, is_sure, "{exchanges} exchanges, {samples} pings");
                if !is_sure {
                    assert!(!meter.begin_pass(5, Extent::Doubtful).is_empty());
                }
            }
        }
    }

    #[test]
    fn where_no_ping_measures_the_loss_a_pass_without_loss_is_enough() {
        for (is_lost, is_sure) in [(false, true), (true, false)] {
            let mut meter = LossMeter::default();
            probe(&mut meter, 100);
            meter.handle_answer(answer(1 + u32::from(is_lost), 2, Duration::ZERO));
            meter.handle_pass_end(&BOTH, PassKind::First { samples_min: 0 });
            assert_eq!(meter.missed(5) == Some(0.0), is_sure, "lost: {is_lost}");
        }
    }

    #[test]
    fn the_quotient_is_the_loss_though_silent_ports_are_not_seen() {
        // Of 10,000 ports that respond, a third of the exchanges is lost.
        let mut meter = LossMeter::default();
        (0..6667).for_each(|_| meter.handle_answer(answer(1, 2, Duration::ZERO)));
        (0..2222).for_each(|_| meter.handle_answer(answer(2, 2, Duration::ZERO)));
        let loss = meter.loss().expect("something responded");
        assert!((loss - 1.0 / 3.0).abs() < 0.001, "{loss}");
    }

    #[test]
    fn passes_are_added_until_few_ports_are_expected_to_be_missed() {
        let mut meter = LossMeter::default();
        meter.handle_answer(answer(1, 1, Duration::ZERO));
        let mut passes = 0;
        let mut at = Duration::ZERO;
        let mut kind = PassKind::First { samples_min: LOSSLESS_SAMPLES_MIN };
        loop {
            for port in 1..=100_u16 {
                meter.handle_probe(at + ms(port.into()), port, Group::Other);
            }
            (0..100).for_each(|n| meter.handle_ping(at + ms(n), result(n % 3 == 0), 1));
            meter.handle_pass_end(&BOTH[..1], kind);
            passes += 1;
            kind = PassKind::Further;
            at += SECOND;
            if meter.missed(10).is_none_or(|missed| missed < MISSED_MAX) {
                break;
            }
            assert_eq!(meter.begin_pass(10, Extent::Doubtful).len(), 1);
        }
        // 11 / 3^7 is below 0.01; the margins take one more.
        assert!((7..=8).contains(&passes), "{passes}");
    }

    #[test]
    fn only_ports_probed_while_much_was_lost_are_probed_again() {
        let mut meter = LossMeter::default();
        // Ports 251 to 500 meet an overload, and so do the kernel's repeats of them.
        probe(&mut meter, 1000);
        meter.handle_answer(answer(1, 1, Duration::ZERO));
        for at in 0..2250 {
            let is_bad = matches!(at, 250..500 | 1250..1500);
            meter.handle_ping(ms(at), result(is_bad && at % 2 == 0), 1);
        }
        meter.handle_pass_end(&BOTH, PassKind::First { samples_min: LOSSLESS_SAMPLES_MIN });
        let again: Vec<(u16, u16)> =
            meter.begin_pass(10, Extent::Doubtful).iter().map(|it| (it.first, it.last)).collect();
        assert_eq!(again, [(250, 499)]);
        // A pass without any loss settles them.
        (250..500)
            .for_each(|port| meter.handle_probe(3 * SECOND + ms(port.into()), port, Group::Other));
        (0..250).for_each(|n| meter.handle_ping(3 * SECOND + ms(250 + n), PingResult::Answered, 1));
        meter.handle_pass_end(&BOTH[..1], PassKind::Further);
        let missed = meter.missed(10).expect("something responded");
        assert!(missed < 0.05, "{missed}");
        assert_eq!(
            meter.begin_pass(10, Extent::Every).len(),
            5,
            "all are probed where that is asked for"
        );
    }

    #[test]
    fn a_port_that_breaks_its_silence_shows_what_was_lost_and_when() {
        let mut meter = LossMeter::default();
        probe(&mut meter, 10);
        meter.handle_answer(answer(1, 2, Duration::ZERO));
        meter.handle_pass_end(&BOTH, PassKind::First { samples_min: LOSSLESS_SAMPLES_MIN });
        meter.begin_pass(1, Extent::Every);
        meter.handle_answer_after_silence(7, Group::Other, SECOND);
        assert_eq!((meter.bins[4].lost, meter.has_lost()), (1, true));
        assert_eq!(meter.loss(), Some(1.0), "one known, one lost");
    }

    #[test]
    fn bins_are_merged_in_a_long_scan() {
        let mut meter = LossMeter::default();
        (0..100_000)
            .for_each(|second| meter.handle_ping(SECOND * second, result(second % 4 == 0), 1));
        meter.handle_answer(answer(1, 1, Duration::ZERO));
        assert!(meter.bins.len() <= BINS_MAX);
        assert_eq!(meter.loss(), Some(0.25));
    }

    #[test]
    fn an_outage_at_the_start_is_a_loss_of_that_time() {
        let mut meter = LossMeter::default();
        probe(&mut meter, 1000);
        meter.handle_answer(answer(1, 2, SECOND));
        meter.handle_outage(ms(400), 300);
        assert!(meter.loss_at(ms(100)) > 0.9 && meter.has_lost());
    }
}
