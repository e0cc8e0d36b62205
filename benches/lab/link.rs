//! The link between our side and the hosts: a bottleneck with a queue for each direction, loss at
//! random and in bursts, jitter, a middlebox and a firewall.
//!
//! Pure: it has no descriptor and no clock. The time comes in with each packet, and what comes out
//! is when the packet arrives, or why it does not. The simulation includes this file too, by
//! `#[path]`, so it imports nothing of the lab.
//!
//! All hosts share one link, and it ends where they are: a packet for a host is queued, then
//! handled by the host at the time that [`LinkModel::forward`] returns; its answer enters the
//! other direction at that same time, and only then travels for the round trip. So each direction
//! sees its packets in the order of their times, however different the round trips are. Jitter,
//! reordering and duplication are those of both ways together, and applied to the answer.
//!
//! The queue is virtual: a packet departs at `max(now, departure of the one before) + 1/rate`,
//! and it is dropped if more than the queue's length would wait before it. Nothing is stored.
#![allow(dead_code, reason = "each program that includes the link uses a part of it")]

#[path = "link/gates.rs"]
mod gates;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

#[allow(unused_imports, reason = "each program that includes the link uses a part of it")]
pub(crate) use gates::{Ban, HalfOpenTable};

use gates::{Firewall, Middlebox};

/// A link, as a test describes it. The default has no limits and loses nothing.
#[derive(Clone, Debug, Default)]
pub(crate) struct Link {
    /// From our side to the hosts.
    pub(crate) to: Direction,
    /// From the hosts to our side.
    pub(crate) from: Direction,
    /// Each answer travels longer by a time between zero and this one, evenly spread, so that it
    /// may arrive before an earlier one.
    pub(crate) jitter: Duration,
    /// Some answers are held back.
    pub(crate) reorder: Option<Reorder>,
    /// The share of the answers that arrive twice.
    pub(crate) duplicates: f64,
    /// A middlebox on it.
    pub(crate) half_open: Option<HalfOpenTable>,
    /// A firewall on it.
    pub(crate) ban: Option<Ban>,
    /// Decides what is random; equal seeds and equal packets come to the same.
    pub(crate) seed: u64,
}

/// One direction of a link.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Direction {
    /// The bottleneck's rate; `None` has no bottleneck.
    pub(crate) packets_per_second: Option<u32>,
    /// How many packets may wait behind the one that is being sent.
    pub(crate) queue_packets: u32,
    /// The share of the packets lost at random, 0 to 1, behind the queue.
    pub(crate) loss: f64,
    /// Loss in bursts, beside that at random.
    pub(crate) bursts: Option<Bursts>,
}

/// Loss by the model of Gilbert and Elliott, in continuous time: the direction is in a good state
/// or in a bad one, for times that are exponentially distributed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Bursts {
    /// The share of the time spent in the bad state, above 0 and below 1.
    pub(crate) time: f64,
    /// The share of the packets that is lost in it.
    pub(crate) loss: f64,
    /// How long it lasts on average.
    pub(crate) duration: Duration,
}

/// Answers that arrive behind later ones.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Reorder {
    /// The share of the answers held back.
    pub(crate) share: f64,
    /// For how long.
    pub(crate) delay: Duration,
}

/// What the link knows of a packet for a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) source: SocketAddr,
    pub(crate) target: SocketAddr,
    /// It asks for a connection.
    pub(crate) is_syn: bool,
}

/// When an answer arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Arrival {
    pub(crate) at: Instant,
    /// When its copy does, if there is one.
    pub(crate) copy_at: Option<Instant>,
}

/// Why a packet does not arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dropped {
    /// The queue of the bottleneck was full.
    QueueFull,
    /// It was lost at random.
    Lost,
    /// It was lost in a burst.
    LostInBurst,
    /// The firewall has banned its source.
    Banned,
    /// The middlebox had no room for another half-open connection.
    TableFull,
    /// The middlebox had forgotten the connection that it answers.
    Expired,
}

impl Dropped {
    const ALL: [(Self, &'static str); 6] = [
        (Self::QueueFull, "queue_full"),
        (Self::Lost, "lost"),
        (Self::LostInBurst, "lost_in_burst"),
        (Self::Banned, "banned"),
        (Self::TableFull, "table_full"),
        (Self::Expired, "expired"),
    ];
}

/// What one direction did since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct DirectionCounts {
    /// Packets that came to it.
    pub(crate) packets: u64,
    /// Those that did not arrive, in the order of [`Dropped`].
    drops: [u64; Dropped::ALL.len()],
    /// The longest that one waited in the queue, its own transmission included.
    pub(crate) queue_delay_max: Duration,
}

impl DirectionCounts {
    /// Packets that did not arrive.
    pub(crate) fn dropped(&self) -> u64 {
        self.drops.iter().sum()
    }

    /// Those of them that did not for this reason.
    pub(crate) fn dropped_by(&self, reason: Dropped) -> u64 {
        self.drops[reason as usize]
    }
}

/// What a link did since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LinkCounts {
    /// On the way to the hosts.
    pub(crate) to: DirectionCounts,
    /// On the way back.
    pub(crate) from: DirectionCounts,
    /// Answers that were held back.
    pub(crate) reordered: u64,
    /// Answers that arrived twice.
    pub(crate) duplicated: u64,
}

impl LinkCounts {
    /// Packets of both directions that did not arrive for this reason.
    pub(crate) fn dropped_by(&self, reason: Dropped) -> u64 {
        self.to.dropped_by(reason) + self.from.dropped_by(reason)
    }
}

impl std::fmt::Display for LinkCounts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (direction, counts) in [("to", &self.to), ("from", &self.from)] {
            write!(f, "link_{direction}={}", counts.packets)?;
            for (reason, name) in Dropped::ALL {
                if counts.dropped_by(reason) > 0 {
                    write!(f, " {name}_{direction}={}", counts.dropped_by(reason))?;
                }
            }
            write!(f, " queue_delay_max_{direction}={:?} ", counts.queue_delay_max)?;
        }
        write!(f, "reordered={} duplicated={}", self.reordered, self.duplicated)
    }
}

/// A link at work.
#[derive(Debug)]
pub(crate) struct LinkModel {
    to: Lane,
    from: Lane,
    firewall: Option<Firewall>,
    middlebox: Option<Middlebox>,
    link: Link,
    /// Of what delays and copies answers.
    random: Random,
    reordered: u64,
    duplicated: u64,
}

impl LinkModel {
    pub(crate) fn new(link: &Link) -> Self {
        let mut seeds = Random::new(link.seed);
        let mut lane = |direction| Lane::new(direction, Random::new(seeds.next()));
        Self {
            to: lane(link.to),
            from: lane(link.from),
            firewall: link.ban.map(Firewall::new),
            middlebox: link.half_open.map(Middlebox::new),
            link: link.clone(),
            random: Random::new(seeds.next()),
            reordered: 0,
            duplicated: 0,
        }
    }

    /// A packet leaves for a host; returns when it is there. `now` never goes back.
    pub(crate) fn forward(&mut self, now: Instant, header: &Header) -> Result<Instant, Dropped> {
        let at = self.to.carry(now)?;
        if self.firewall.as_mut().is_some_and(|firewall| !firewall.admits(at, header)) {
            return self.to.drop(Dropped::Banned);
        }
        if self.middlebox.as_mut().is_some_and(|middlebox| !middlebox.admits(at, header)) {
            return self.to.drop(Dropped::TableFull);
        }
        Ok(at)
    }

    /// A host answers the packet of this header; returns when the answer has passed the link, from
    /// where it travels for the round trip. `now` never goes back.
    pub(crate) fn back(&mut self, now: Instant, header: &Header) -> Result<Arrival, Dropped> {
        let middlebox = &mut self.middlebox;
        if middlebox.as_mut().is_some_and(|middlebox| !middlebox.admits_answer(now, header)) {
            self.from.counts.packets += 1;
            return self.from.drop(Dropped::Expired);
        }
        let departs_at = self.from.carry(now)?;
        let is_copied = self.random.is_hit(self.link.duplicates);
        self.duplicated += u64::from(is_copied);
        let at = departs_at + self.delay();
        Ok(Arrival { at, copy_at: is_copied.then(|| departs_at + self.delay()) })
    }

    /// What was counted up to now.
    pub(crate) fn counts(&self) -> LinkCounts {
        let (to, from) = (self.to.counts, self.from.counts);
        LinkCounts { to, from, reordered: self.reordered, duplicated: self.duplicated }
    }

    /// How much longer than the round trip an answer travels.
    fn delay(&mut self) -> Duration {
        let jitter = match self.link.jitter {
            Duration::ZERO => Duration::ZERO,
            jitter => jitter.mul_f64(self.random.share()),
        };
        let Some(reorder) = self.link.reorder else { return jitter };
        let is_held_back = self.random.is_hit(reorder.share);
        self.reordered += u64::from(is_held_back);
        jitter + if is_held_back { reorder.delay } else { Duration::ZERO }
    }
}

/// One direction at work.
#[derive(Debug)]
struct Lane {
    direction: Direction,
    /// The time that one packet takes; zero without a bottleneck.
    transmission: Duration,
    /// When the last packet that was accepted departs.
    free_at: Option<Instant>,
    weather: Option<Weather>,
    random: Random,
    counts: DirectionCounts,
}

impl Lane {
    fn new(direction: Direction, random: Random) -> Self {
        assert!((0.0..=1.0).contains(&direction.loss), "a loss is a share, not a percentage");
        assert_ne!(direction.packets_per_second, Some(0), "a bottleneck lets something through");
        Self {
            direction,
            transmission: direction
                .packets_per_second
                .map_or(Duration::ZERO, |rate| Duration::from_secs(1) / rate),
            free_at: None,
            weather: direction.bursts.map(Weather::new),
            random,
            counts: DirectionCounts::default(),
        }
    }

    fn carry(&mut self, now: Instant) -> Result<Instant, Dropped> {
        self.counts.packets += 1;
        let Some(departs_at) = self.enqueue(now) else {
            return self.drop(Dropped::QueueFull);
        };
        assert!(departs_at >= now, "no packet departs before it comes");
        if self.random.is_hit(self.direction.loss) {
            return self.drop(Dropped::Lost);
        }
        let loss = self.weather.as_mut().map_or(0.0, |it| it.loss(departs_at, &mut self.random));
        if self.random.is_hit(loss) {
            return self.drop(Dropped::LostInBurst);
        }
        Ok(departs_at)
    }

    fn drop<T>(&mut self, reason: Dropped) -> Result<T, Dropped> {
        self.counts.drops[reason as usize] += 1;
        Err(reason)
    }

    /// When a packet that comes `now` departs; `None` if the queue is full.
    fn enqueue(&mut self, now: Instant) -> Option<Instant> {
        if self.transmission.is_zero() {
            return Some(now);
        }
        let starts_at = self.free_at.map_or(now, |free_at| free_at.max(now));
        // The packets before this one are sent by `starts_at`: the one being sent, and the queue.
        if starts_at - now > self.transmission * self.direction.queue_packets {
            return None;
        }
        let departs_at = starts_at + self.transmission;
        self.free_at = Some(departs_at);
        self.counts.queue_delay_max = self.counts.queue_delay_max.max(departs_at - now);
        Some(departs_at)
    }
}

/// [`Bursts`] at work.
#[derive(Debug)]
struct Weather {
    bursts: Bursts,
    is_bad: bool,
    /// When the state ends; `None` before the first packet.
    changes_at: Option<Instant>,
}

impl Weather {
    fn new(bursts: Bursts) -> Self {
        assert!(bursts.time > 0.0 && bursts.time < 1.0, "both states take some of the time");
        assert!((0.0..=1.0).contains(&bursts.loss), "a loss is a share, not a percentage");
        assert!(!bursts.duration.is_zero(), "a burst lasts some time");
        Self { bursts, is_bad: false, changes_at: None }
    }

    /// The share of packets that is lost at `now`, which never goes back.
    fn loss(&mut self, now: Instant, random: &mut Random) -> f64 {
        let mut changes_at = match self.changes_at {
            Some(changes_at) => changes_at,
            None => {
                self.is_bad = random.is_hit(self.bursts.time);
                now + self.state_duration(random)
            }
        };
        while changes_at <= now {
            self.is_bad = !self.is_bad;
            changes_at += self.state_duration(random);
        }
        self.changes_at = Some(changes_at);
        if self.is_bad { self.bursts.loss } else { 0.0 }
    }

    /// How long the state that begins now lasts: exponentially distributed, and never zero.
    fn state_duration(&self, random: &mut Random) -> Duration {
        let Bursts { time, duration, .. } = self.bursts;
        let mean = if self.is_bad { duration } else { duration.mul_f64((1.0 - time) / time) };
        mean.mul_f64(-(1.0 - random.share()).ln()).max(Duration::from_nanos(1))
    }
}

impl Default for Direction {
    fn default() -> Self {
        Self { packets_per_second: None, queue_packets: 100, loss: 0.0, bursts: None }
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014): small, and good enough to lose packets by.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Evenly spread from 0 to just below 1.
    pub(crate) fn share(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// True with this probability. Draws no number for 0, so that what loses nothing is the same
    /// whatever its seed.
    pub(crate) fn is_hit(&mut self, probability: f64) -> bool {
        probability > 0.0 && self.share() < probability
    }
}
