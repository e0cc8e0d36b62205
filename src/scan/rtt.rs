//! The measured round trip of one target, and the loss that late answers show.
//!
//! Smoothed with variance as RFC 6298 section 2 does. By Karn's rule only answers that came before
//! the kernel could repeat the SYN count as samples: a later one may answer either SYN. Such a
//! late answer, where the round trip is known to be short, *shows* that a SYN or its answer was
//! lost: a free loss signal.

use std::time::Duration;

/// When Linux repeats an unanswered SYN for the first time (TCP_TIMEOUT_INIT).
pub const SYN_RETRANSMIT: Duration = Duration::from_secs(1);
/// When Linux repeats it. Since Linux 6.5 it does so more often, after 1, 2, 3, 4, 5, 7, 11, 19 and
/// 35 s (net.ipv4.tcp_syn_linear_timeouts). To assume fewer SYNs than were sent is the careful
/// error.
const SYN_SECONDS: [u64; 5] = [1, 3, 7, 15, 31];
/// The shortest deadline that is ever computed: Linux's TCP_RTO_MIN. Below it, a delayed process
/// or a Wi-Fi beacon interval would pass for silence.
pub const DEADLINE_MIN: Duration = Duration::from_millis(200);

/// With each sample, this part of what the longest round trip has beyond the smoothed one is
/// forgotten. RFC 6298 assumes one sample a round trip; hundreds would make its variance that of
/// the last few.
const LONGEST_DECAY: u64 = 4096;

/// Round trip and loss, as far as answers have shown.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rtt {
    estimate: Option<Estimate>,
    late_answers: u32,
}

/// All in nanoseconds: this is computed for each answer, and integers are cheap.
#[derive(Clone, Copy, Debug)]
struct Estimate {
    smoothed: u64,
    variance: u64,
    /// The longest round trip of late: it falls towards the smoothed one by [`LONGEST_DECAY`].
    longest: u64,
}

impl Rtt {
    /// Takes in one answer, `elapsed` after its connect was started.
    pub fn handle_answer(&mut self, elapsed: Duration) {
        if elapsed >= SYN_RETRANSMIT {
            self.late_answers = self.late_answers.saturating_add(1);
            return;
        }
        // Below one second.
        let elapsed = u64::from(elapsed.subsec_nanos());
        self.estimate = Some(match self.estimate {
            None => Estimate { smoothed: elapsed, variance: elapsed / 2, longest: elapsed },
            Some(Estimate { smoothed: before, variance, longest }) => {
                let variance = variance * 3 / 4 + before.abs_diff(elapsed) / 4;
                let smoothed = before * 7 / 8 + elapsed / 8;
                let beyond = longest.saturating_sub(smoothed);
                let longest = elapsed.max(longest - beyond / LONGEST_DECAY);
                Estimate { smoothed, variance, longest }
            }
        });
    }

    /// How long an answer may take before it is improbable: SRTT + 4 × RTTVAR, at least
    /// 1¼ of the longest round trip of late and [`DEADLINE_MIN`]; `None` while nothing was
    /// measured.
    pub fn deadline(&self) -> Option<Duration> {
        let Estimate { smoothed, variance, longest } = self.estimate?;
        let improbable = (smoothed + 4 * variance).max(longest + longest / 4);
        Some(Duration::from_nanos(improbable).max(DEADLINE_MIN))
    }

    /// The same without the floor: an answer is late then, but not yet lost.
    pub fn late_after(&self) -> Option<Duration> {
        let Estimate { smoothed, variance, longest } = self.estimate?;
        Some(Duration::from_nanos((smoothed + 4 * variance).max(longest)))
    }

    /// How many SYNs the kernel sends within `timeout` whose answers can still arrive in it; at
    /// least 1. It repeats after 1, 3, 7, 15 and 31 s (tcp(7), tcp_syn_retries).
    pub fn exchanges_within(&self, timeout: Duration) -> u32 {
        let rtt = self.smoothed().unwrap_or_default();
        let repeats = SYN_SECONDS.into_iter().filter(|at| Duration::from_secs(*at) + rtt < timeout);
        1 + repeats.count() as u32
    }

    /// Which SYN an answer after `elapsed` belongs to, 1 for the first: the last that can have been
    /// answered by then. Round trips of half a second and more leave that open: 1.
    pub fn exchange_of(&self, elapsed: Duration) -> u32 {
        match self.smoothed() {
            Some(_) if elapsed < SYN_RETRANSMIT => 1,
            Some(smoothed) if smoothed < SYN_RETRANSMIT / 2 => {
                let sent = |at: &u64| Duration::from_secs(*at) + smoothed / 2 <= elapsed;
                1 + SYN_SECONDS.into_iter().filter(sent).count() as u32
            }
            Some(_) | None => 1,
        }
    }

    /// The smoothed round trip.
    pub fn smoothed(&self) -> Option<Duration> {
        self.estimate.map(|estimate| Duration::from_nanos(estimate.smoothed))
    }

    /// Whether an answer came after the kernel's first repeat though the round trip is
    /// too short to explain it.
    pub fn shows_loss(&self) -> bool {
        self.late_answers > 0
            && self.smoothed().is_some_and(|smoothed| smoothed < SYN_RETRANSMIT / 2)
    }
}

/// When the kernel sends SYN `number` (1: the first), from the connect on.
pub fn syn_at(number: u32) -> Duration {
    let repeat = (number as usize).checked_sub(2).and_then(|place| SYN_SECONDS.get(place));
    Duration::from_secs(repeat.copied().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn the_first_sample_gives_three_round_trips_as_rfc_6298_says() {
        let mut rtt = Rtt::default();
        assert_eq!(rtt.deadline(), None);
        rtt.handle_answer(ms(100));
        assert_eq!(rtt.deadline(), Some(ms(300)));
    }

    #[test]
    fn each_further_sample_weighs_an_eighth_and_its_distance_a_quarter() {
        let mut rtt = Rtt::default();
        rtt.handle_answer(ms(800));
        rtt.handle_answer(ms(400));
        // 800 x 7/8 + 400 / 8, and 400 x 3/4 + 400 / 4.
        assert_eq!(rtt.smoothed(), Some(ms(750)));
        assert_eq!(rtt.deadline(), Some(ms(750 + 4 * 400)));
    }

    #[test]
    fn steady_answers_bring_the_deadline_down_to_its_floor() {
        let mut rtt = Rtt::default();
        (0..100).for_each(|_| rtt.handle_answer(ms(50)));
        assert_eq!(rtt.deadline(), Some(DEADLINE_MIN));
        assert!(rtt.smoothed().is_some_and(|smoothed| smoothed.abs_diff(ms(50)) < ms(1)));
    }

    #[test]
    fn a_late_answer_shows_loss_only_where_the_round_trip_is_short() {
        for (usual, late, expected) in [(50, 1050, true), (50, 999, false), (700, 1200, false)] {
            let mut rtt = Rtt::default();
            rtt.handle_answer(ms(usual));
            rtt.handle_answer(ms(late));
            assert_eq!(rtt.shows_loss(), expected, "round trip {usual} ms, answer after {late}");
        }
        let mut unknown = Rtt::default();
        unknown.handle_answer(ms(1050));
        assert!(!unknown.shows_loss(), "a round trip of a second is no loss");
    }
}
