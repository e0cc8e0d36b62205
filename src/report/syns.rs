//! The metrics of the SYN engine.

use std::fmt;

use super::{MetricFamily, counter};
use crate::event::SynCounts;
use crate::packet::Reject;

const SYNS_SENT: MetricFamily =
    counter("openports_syns_sent_total", "SYNs sent through raw sockets, repeats included.");
const SYNS_REPEATED: MetricFamily =
    counter("openports_syns_repeated_total", "SYNs sent again since no answer came.");
const SYNS_DENIED: MetricFamily = counter(
    "openports_syns_denied_total",
    "SYNs that a firewall or full connection tracking of this machine dropped.",
);
const ANSWERS_LOST: MetricFamily = counter(
    "openports_raw_answers_lost_total",
    "Packets for which the receive buffer of a raw socket had no room; their ports wait.",
);
const ANSWERS_REJECTED: MetricFamily = counter(
    "openports_raw_packets_rejected_total",
    "Packets received by raw sockets that answer no SYN in flight, by reason.",
);

/// Writes the samples.
pub(super) fn write(f: &mut fmt::Formatter<'_>, syns: &SynCounts) -> fmt::Result {
    SYNS_SENT.alone(f, syns.sent)?;
    SYNS_REPEATED.alone(f, syns.repeated)?;
    SYNS_DENIED.alone(f, syns.denied)?;
    ANSWERS_LOST.alone(f, syns.overflowed)?;
    ANSWERS_REJECTED.head(f)?;
    for (reason, count) in Reject::ALL.iter().zip(syns.rejected) {
        writeln!(f, "{}{{reason=\"{}\"}} {count}", ANSWERS_REJECTED.name, reason.label())?;
    }
    Ok(())
}
