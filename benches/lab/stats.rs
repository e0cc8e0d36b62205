//! What the lab counts.

use std::time::Duration;

use super::link::LinkCounts;

/// What the lab saw and did since it was started.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Stats {
    /// TCP segments for its hosts.
    pub(crate) segments: u64,
    /// Those of them that ask for a connection, the kernel's repetitions included.
    pub(crate) syns: u64,
    /// Those that have or will have an answer, as far as the link does not drop it.
    pub(crate) answered: u64,
    /// Those that silence, or nothing to say, left without one.
    pub(crate) ignored: u64,
    /// Those lost on the way to a host.
    pub(crate) lost_to: u64,
    /// Those whose answer was lost on the way back.
    pub(crate) lost_from: u64,
    /// Those that a host's limit left without an answer.
    pub(crate) limited: u64,
    /// Those that came to a host dead or asleep.
    pub(crate) dead: u64,
    /// Questions for the hardware address of a neighbour.
    pub(crate) neighbours_asked: u64,
    /// Those of them that asked for a host of the lab.
    pub(crate) neighbours_answered: u64,
    /// Packets that are no TCP segment, or for no host of the lab.
    pub(crate) astray: u64,
    /// Packets that the device dropped since its queue was full.
    pub(crate) device_drops: u64,
    /// Answers that the kernel did not take.
    pub(crate) write_failures: u64,
    /// What the link between our side and the hosts did.
    pub(crate) link: LinkCounts,
    /// The longest that an answer was sent after its time.
    pub(crate) late_max: Duration,
}

impl Stats {
    /// Segments that one fate or another was counted for.
    pub(super) fn decided(&self) -> u64 {
        let unanswered = self.ignored + self.lost_to + self.lost_from + self.limited + self.dead;
        self.answered + unanswered + self.link.to.dropped()
    }

    /// Answers that the kernel was given, or will be.
    pub(crate) fn delivered(&self) -> u64 {
        self.answered - self.link.from.dropped()
    }

    /// Packets that were lost and should not have been: 0, or what was measured means nothing.
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
