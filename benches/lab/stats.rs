//! The counters of the lab.

use std::time::Duration;

use super::link::LinkCounts;

/// The packets that the lab handled since its start, and their fates.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Stats {
    /// TCP segments for its hosts.
    pub(crate) segments: u64,
    /// SYNs among these segments, including the kernel's retransmissions.
    pub(crate) syns: u64,
    /// Segments that a host answered, even if the link dropped the answer.
    pub(crate) answered: u64,
    /// Segments without an answer because the port is silent or none is needed.
    pub(crate) ignored: u64,
    /// Segments that were lost before they reached a host.
    pub(crate) lost_to: u64,
    /// Segments whose answer was lost.
    pub(crate) lost_from: u64,
    /// Segments without an answer because of a limit of the host.
    pub(crate) limited: u64,
    /// Segments for a host that did not answer at that time.
    pub(crate) dead: u64,
    /// Requests for the hardware address of a neighbour.
    pub(crate) neighbours_asked: u64,
    /// Requests for the hardware address of a host of the lab.
    pub(crate) neighbours_answered: u64,
    /// Packets that are not TCP segments or not for a host of the lab.
    pub(crate) astray: u64,
    /// Packets that the device dropped because its queue was full.
    pub(crate) device_drops: u64,
    /// Answers that the kernel did not accept.
    pub(crate) write_failures: u64,
    /// The counters of the link between our side and the hosts.
    pub(crate) link: LinkCounts,
    /// The longest delay of an answer beyond its due time.
    pub(crate) late_max: Duration,
}

impl Stats {
    /// Returns the number of segments that were counted under a fate.
    pub(super) fn decided(&self) -> u64 {
        let unanswered = self.ignored + self.lost_to + self.lost_from + self.limited + self.dead;
        self.answered + unanswered + self.link.to.dropped()
    }

    /// Returns the number of answers that the link did not drop.
    pub(crate) fn delivered(&self) -> u64 {
        self.answered - self.link.from.dropped()
    }

    /// Returns the number of packets that the lab itself lost. A measurement is valid only if this
    /// is 0.
    pub(crate) fn own_losses(&self) -> u64 {
        self.device_drops + self.write_failures
    }
}

impl std::fmt::Display for Stats {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "segments={} syns={} answered={} ignored={} lost_to={} lost_from={} limited={} \
             dead={} neighbours_asked={} neighbours_answered={} astray={} {} device_drops={} \
             write_failures={} late_max={:?}",
            self.segments,
            self.syns,
            self.answered,
            self.ignored,
            self.lost_to,
            self.lost_from,
            self.limited,
            self.dead,
            self.neighbours_asked,
            self.neighbours_answered,
            self.astray,
            self.link,
            self.device_drops,
            self.write_failures,
            self.late_max,
        )
    }
}
