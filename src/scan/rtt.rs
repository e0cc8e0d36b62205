//! The measured round-trip time of one target, and the deadlines that follow from it.
//!
//! The estimate consists of a smoothed round-trip time and its variation, as in RFC 6298 section 2.
//! By Karn's algorithm, only answers that arrived before the kernel could retransmit the SYN are
//! samples: a later answer may belong to either SYN. If the round-trip time is known to be short,
//! such a late answer shows that a SYN or its answer was lost. `scan` drives this module.

use std::time::Duration;

/// The time after which Linux retransmits an unanswered SYN for the first time (TCP_TIMEOUT_INIT).
pub const SYN_RETRANSMIT: Duration = Duration::from_secs(1);
/// The times of the retransmissions in seconds. Linux 6.5 and later retransmit more often, after 1,
/// 2, 3, 4, 5, 7, 11, 19 and 35 s (net.ipv4.tcp_syn_linear_timeouts). It is safer to assume fewer
/// SYNs than were sent than more.
const SYN_SECONDS: [u64; 5] = [1, 3, 7, 15, 31];
/// The shortest computed deadline; TCP_RTO_MIN of Linux. With a shorter one, an answer that is
/// delayed by a busy process or by the beacon interval of Wi-Fi would count as silence.
pub const DEADLINE_MIN: Duration = Duration::from_millis(200);

/// The divisor of the difference between the longest round-trip time and the smoothed one that is
/// subtracted with each sample. RFC 6298 assumes one sample per round-trip time. With hundreds of
/// samples, its variation would depend on the last few samples only.
const LONGEST_DECAY: u64 = 4096;

/// The round-trip time of one target.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rtt {
    /// `None` before the first sample.
    estimate: Option<Estimate>,
    /// The number of answers after the first retransmission that may be answers to either SYN.
    late_answers: u32,
}

/// The estimate in nanoseconds. It is computed for each answer, so it uses integers.
#[derive(Clone, Copy, Debug)]
struct Estimate {
    /// SRTT of RFC 6298.
    smoothed: u64,
    /// RTTVAR of RFC 6298.
    variation: u64,
    /// The longest recent round-trip time. It decays towards the smoothed one ([`LONGEST_DECAY`]).
    longest: u64,
}

impl Rtt {
    /// Handles an answer that arrived `elapsed` after the start of its connect.
    pub fn handle_answer(&mut self, elapsed: Duration) {
        if elapsed >= SYN_RETRANSMIT {
            self.late_answers = self.late_answers.saturating_add(1);
            return;
        }
        // The time is below one second, so its nanoseconds are all of it.
        let elapsed = u64::from(elapsed.subsec_nanos());
        self.estimate = Some(match self.estimate {
            None => Estimate { smoothed: elapsed, variation: elapsed / 2, longest: elapsed },
            Some(Estimate { smoothed: before, variation, longest }) => {
                let variation = variation * 3 / 4 + before.abs_diff(elapsed) / 4;
                let smoothed = before * 7 / 8 + elapsed / 8;
                let beyond = longest.saturating_sub(smoothed);
                let longest = elapsed.max(longest - beyond / LONGEST_DECAY);
                Estimate { smoothed, variation, longest }
            }
        });
    }

    /// The time after which an answer is improbable: SRTT + 4 × RTTVAR, but at least 1¼ times the
    /// longest recent round-trip time, and at least [`DEADLINE_MIN`]; `None` before the first
    /// sample.
    pub fn deadline(&self) -> Option<Duration> {
        self.improbable_after().map(|after| after.max(DEADLINE_MIN))
    }

    /// The same without [`DEADLINE_MIN`].
    pub fn improbable_after(&self) -> Option<Duration> {
        let Estimate { smoothed, variation, longest } = self.estimate?;
        Some(Duration::from_nanos((smoothed + 4 * variation).max(longest + longest / 4)))
    }

    /// The time after which an answer is late, but not yet lost: SRTT + 4 × RTTVAR, but at least
    /// the longest recent round-trip time; `None` before the first sample.
    pub fn late_after(&self) -> Option<Duration> {
        let Estimate { smoothed, variation, longest } = self.estimate?;
        Some(Duration::from_nanos((smoothed + 4 * variation).max(longest)))
    }

    /// The number of SYNs that the kernel sends within `timeout` early enough for their answers to
    /// arrive in it; at least 1. It retransmits after 1, 3, 7, 15 and 31 s (tcp(7),
    /// tcp_syn_retries).
    pub fn exchanges_within(&self, timeout: Duration) -> u32 {
        let rtt = self.smoothed().unwrap_or_default();
        let repeats = SYN_SECONDS.into_iter().filter(|at| Duration::from_secs(*at) + rtt < timeout);
        1 + repeats.count() as u32
    }

    /// The number of the SYN to which an answer after `elapsed` belongs, counted from 1: the last
    /// SYN that can have been answered by then. It is 1 if the round-trip time is unknown or at
    /// least half a second, because the SYN cannot be determined then.
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

    /// The smoothed round-trip time; `None` before the first sample.
    pub fn smoothed(&self) -> Option<Duration> {
        self.estimate.map(|estimate| Duration::from_nanos(estimate.smoothed))
    }

    /// The number of answers after the first retransmission that may be answers to either SYN.
    pub const fn late_answers(&self) -> u32 {
        self.late_answers
    }

    /// Returns the number of late answers if the round-trip time is too short to explain them: each
    /// of them lost its first exchange. They are then forgotten. Returns 0 otherwise.
    pub fn take_late_answers(&mut self) -> u32 {
        match self.smoothed() {
            Some(smoothed) if smoothed < SYN_RETRANSMIT / 2 => {
                std::mem::take(&mut self.late_answers)
            }
            Some(_) | None => 0,
        }
    }
}

/// The time from the start of a connect to its SYN with this number, counted from 1.
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
    fn the_deadline_after_the_first_sample_is_three_round_trip_times_as_in_rfc_6298() {
        let mut rtt = Rtt::default();
        assert_eq!(rtt.deadline(), None);
        rtt.handle_answer(ms(100));
        assert_eq!(rtt.deadline(), Some(ms(300)));
    }

    #[test]
    fn each_further_sample_has_a_weight_of_an_eighth_and_its_deviation_of_a_quarter() {
        let mut rtt = Rtt::default();
        rtt.handle_answer(ms(800));
        rtt.handle_answer(ms(400));
        // 800 x 7/8 + 400 / 8, and 400 x 3/4 + 400 / 4.
        assert_eq!(rtt.smoothed(), Some(ms(750)));
        assert_eq!(rtt.deadline(), Some(ms(750 + 4 * 400)));
    }

    #[test]
    fn constant_round_trip_times_reduce_the_deadline_to_its_minimum() {
        let mut rtt = Rtt::default();
        (0..100).for_each(|_| rtt.handle_answer(ms(50)));
        assert_eq!(rtt.deadline(), Some(DEADLINE_MIN));
        assert!(rtt.smoothed().is_some_and(|smoothed| smoothed.abs_diff(ms(50)) < ms(1)));
    }

    #[test]
    fn a_late_answer_shows_loss_only_if_the_round_trip_time_is_short() {
        for (usual, late, expected) in [(50, 1050, 1), (50, 999, 0), (700, 1200, 0)] {
            let mut rtt = Rtt::default();
            rtt.handle_answer(ms(late));
            let unknown = if late < 1000 { 0 } else { rtt.take_late_answers() };
            assert_eq!(unknown, 0, "a round-trip time of a second does not show loss");
            rtt.handle_answer(ms(usual));
            assert_eq!(rtt.take_late_answers(), expected, "round trip {usual} ms, answer {late}");
            assert_eq!(rtt.take_late_answers(), 0, "each answer shows one loss");
        }
    }

    /// A path with this constant round-trip time in milliseconds; `None` before the first answer.
    fn path(usual: Option<u64>) -> Rtt {
        let mut rtt = Rtt::default();
        usual.into_iter().for_each(|usual| (0..100).for_each(|_| rtt.handle_answer(ms(usual))));
        rtt
    }

    #[test]
    fn an_answer_belongs_to_the_last_syn_that_it_can_answer() {
        let check = |usual: Option<u64>, elapsed: u64, expected: u32| {
            let number = path(usual).exchange_of(ms(elapsed));
            assert_eq!(number, expected, "round trip {usual:?} ms, answer after {elapsed} ms");
        };
        check(None, 5_000, 1);
        for (elapsed, expected) in
            [(999, 1), (1_049, 1), (1_050, 2), (3_049, 2), (3_050, 3), (31_050, 6)]
        {
            check(Some(100), elapsed, expected);
        }
        check(Some(500), 1_500, 1);
    }

    #[test]
    fn a_timeout_includes_the_syns_whose_answers_can_arrive_in_it() {
        let check = |usual: Option<u64>, timeout: u64, expected: u32| {
            let number = path(usual).exchanges_within(ms(timeout));
            assert_eq!(number, expected, "round trip {usual:?} ms, timeout {timeout} ms");
        };
        check(None, 1_000, 1);
        check(None, 1_001, 2);
        check(Some(100), 1_100, 1);
        check(Some(100), 1_101, 2);
        check(Some(100), 60_000, 6);
    }

    #[test]
    fn an_answer_is_late_after_the_deviations_and_after_the_longest_round_trip_time() {
        assert_eq!(path(None).late_after(), None);
        assert_eq!(path(Some(100)).late_after(), Some(ms(100)));
        let mut rtt = Rtt::default();
        rtt.handle_answer(ms(800));
        rtt.handle_answer(ms(400));
        assert_eq!(rtt.late_after(), Some(ms(750 + 4 * 400)));
    }
}
