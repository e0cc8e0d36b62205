//! The pace of a scan while nothing has answered, so that nothing shows what the path can carry.
//!
//! It begins at [`START_RATE`] and doubles, up to a rate that spreads the ports over a moment.
//! Driven by `congestion`, which follows the path once something has answered.

use std::time::Duration;

/// SYNs per second before anything is known: 200 in the round trip of 50 ms.
pub(super) const START_RATE: f64 = 4_000.0;
/// All ports are spread over so many seconds, so that the kernel's repeats of the first, which come
/// a second later, do not meet the first SYNs of the last.
const SPREAD_SECONDS: f64 = 1.0;
/// Few ports are spread over less: a host of a sweep then holds its share of the probes in flight
/// hardly longer than their timeout.
const SPREAD_RATE_MIN: f64 = 1_000.0;
/// The rate doubles in so many seconds.
const DOUBLING_SECONDS: f64 = 0.15;
/// So many SYNs leave together, fewer than TCP's ten segments (RFC 6928): thousands of silent hosts
/// at once would otherwise need a timer for each SYN.
pub(super) const BURST: f64 = 8.0;

/// SYNs per second that spread so many ports.
pub(super) const fn spread_rate(ports: usize) -> f64 {
    (ports as f64 / SPREAD_SECONDS).max(SPREAD_RATE_MIN)
}

/// SYNs per second so long after the first, where all ports are spread at the rate `spread`.
pub(super) fn rate_after(elapsed: Duration, spread_rate: f64) -> f64 {
    if spread_rate <= START_RATE {
        return spread_rate;
    }
    let doublings = (elapsed.as_secs_f64() / DOUBLING_SECONDS).min(16.0);
    (START_RATE * doublings.exp2()).min(spread_rate)
}
