//! The send rate of a scan before its first answer, when the capacity of the path is unknown.
//!
//! The rate begins at [`START_RATE`] and doubles repeatedly, up to a rate at which the SYNs of all
//! ports are spread over about a second. `congestion` drives this module, and it determines the
//! rate from the answers after the first one.

use std::time::Duration;

use crate::pacer::START_RATE;

/// The time in seconds over which the SYNs of all ports are spread. The kernel retransmits each SYN
/// after one second, so retransmissions begin when the last port has received its first SYN.
const SPREAD_SECONDS: f64 = 1.0;
/// The minimum of the spread rate in SYNs per second, so that few ports take less than that time. A
/// host in a list of targets then uses its part of the budget hardly longer than one timeout.
const SPREAD_RATE_MIN: f64 = 1_000.0;
/// The time in seconds in which the rate doubles.
const DOUBLING_SECONDS: f64 = 0.15;
/// The number of SYNs that are sent at once, fewer than the ten segments of TCP (RFC 6928). Without
/// bursts, thousands of silent hosts would need a timer for each SYN.
pub(super) const BURST: f64 = 8.0;

/// The maximum rate in SYNs per second for a silent host, which spreads the SYNs of `ports` ports.
pub(super) const fn spread_rate(ports: usize) -> f64 {
    (ports as f64 / SPREAD_SECONDS).max(SPREAD_RATE_MIN)
}

/// The rate in SYNs per second at the time `elapsed` after the first SYN, up to `spread_rate`.
pub(super) fn rate_after(elapsed: Duration, spread_rate: f64) -> f64 {
    if spread_rate <= START_RATE {
        return spread_rate;
    }
    let doublings = (elapsed.as_secs_f64() / DOUBLING_SECONDS).min(16.0);
    (START_RATE * doublings.exp2()).min(spread_rate)
}
