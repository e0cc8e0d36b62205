//! The link between our side and the hosts: a bottleneck with a queue for each direction, random
//! loss and bursts of loss, jitter, a middlebox and a firewall.
//!
//! Pure: it has no descriptor and no clock. The time of each packet is an argument, and the result
//! is its time of arrival or the reason of its loss. The test `lab_link` includes this file by
//! `#[path]`, so it imports nothing from the lab.
//!
//! All hosts share one link, which ends at the hosts: a packet for a host is queued, and the host
//! handles it at the time that [`LinkModel::forward`] returns. The answer enters the other
//! direction at that same time, and the round trip is added after it. So each direction handles its
//! packets in the order of their times, even if the round trips differ. Jitter, reordering and
//! duplication are those of both directions, and apply to the answer.
//!
//! The queue is virtual: a packet departs at `max(now, departure of the previous one) + 1/rate`,
//! and it is dropped if the queue before it would be too long. No packet is stored.
#![allow(dead_code, reason = "each program that includes the link uses a part of it")]

#[path = "link/middlebox.rs"]
mod middlebox;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

#[allow(unused_imports, reason = "each program that includes the link uses a part of it")]
pub(crate) use middlebox::{Ban, HalfOpenTable};

use middlebox::{Firewall, Middlebox};

/// The description of a link. The default has no limits and no loss.
#[derive(Clone, Debug, Default)]
pub(crate) struct Link {
    /// From our side to the hosts.
    pub(crate) to: Direction,
    /// From the hosts to our side.
    pub(crate) from: Direction,
    /// The maximum of a uniformly distributed delay of each answer, which may so arrive before an
    /// earlier one.
    pub(crate) jitter: Duration,
    pub(crate) reorder: Option<Reorder>,
    /// The share of answers that arrive twice.
    pub(crate) duplicates: f64,
    pub(crate) half_open: Option<HalfOpenTable>,
    pub(crate) ban: Option<Ban>,
    /// The seed of everything random. Equal seeds and packets give equal results.
    pub(crate) seed: u64,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Direction {
    /// The bottleneck's rate; `None` has no bottleneck.
    pub(crate) packets_per_second: Option<u32>,
    /// The maximum number of packets that wait behind the one that is being sent.
    pub(crate) queue_packets: u32,
    /// The share of packets lost at random after the queue, 0 to 1.
    pub(crate) loss: f64,
    /// Bursts of loss, in addition to `loss`.
    pub(crate) bursts: Option<Bursts>,
}

/// The loss model of Gilbert and Elliott in continuous time: the direction is in a good or in a bad
/// state, and the durations of both are exponentially distributed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Bursts {
    /// The share of time in the bad state, above 0 and below 1.
    pub(crate) time: f64,
    /// The share of packets that are lost in the bad state.
    pub(crate) loss: f64,
    /// The mean duration of the bad state.
    pub(crate) duration: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Reorder {
    /// The share of answers that are delayed.
    pub(crate) share: f64,
    pub(crate) delay: Duration,
}

/// The fields of a packet that the link uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) source: SocketAddr,
    pub(crate) target: SocketAddr,
    pub(crate) is_syn: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Arrival {
    pub(crate) at: Instant,
    /// The time at which a duplicate arrives.
    pub(crate) copy_at: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dropped {
    QueueFull,
    Lost,
    LostInBurst,
    /// The firewall has banned its source.
    Banned,
    /// The middlebox's table of half-open connections was full.
    TableFull,
    /// The middlebox's entry for the connection had expired.
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

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct DirectionCounts {
    /// Packets that entered the direction.
    pub(crate) packets: u64,
    /// Dropped packets, in the order of [`Dropped`].
    drops: [u64; Dropped::ALL.len()],
    /// The longest time of a packet in the queue, including its own transmission.
    pub(crate) queue_delay_max: Duration,
}

impl DirectionCounts {
    pub(crate) fn dropped(&self) -> u64 {
        self.drops.iter().sum()
    }

    /// Returns the number of packets that were dropped for this reason.
    pub(crate) fn dropped_by(&self, reason: Dropped) -> u64 {
        self.drops[reason as usize]
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LinkCounts {
    /// The direction to the hosts.
    pub(crate) to: DirectionCounts,
    /// The direction to our side.
    pub(crate) from: DirectionCounts,
    /// Answers that were delayed by [`Reorder`].
    pub(crate) reordered: u64,
    pub(crate) duplicated: u64,
}

impl LinkCounts {
    /// Returns the number of packets of both directions that were dropped for this reason.
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

#[derive(Debug)]
pub(crate) struct LinkModel {
    to: DirectionModel,
    from: DirectionModel,
    firewall: Option<Firewall>,
    middlebox: Option<Middlebox>,
    link: Link,
    /// The random numbers for delays and duplicates.
    random: Random,
    reordered: u64,
    duplicated: u64,
}

impl LinkModel {
    pub(crate) fn new(link: &Link) -> Self {
        let mut seeds = Random::new(link.seed);
        let mut model = |direction| DirectionModel::new(direction, Random::new(seeds.next()));
        Self {
            to: model(link.to),
            from: model(link.from),
            firewall: link.ban.map(Firewall::new),
            middlebox: link.half_open.map(Middlebox::new),
            link: link.clone(),
            random: Random::new(seeds.next()),
            reordered: 0,
            duplicated: 0,
        }
    }

    /// Sends a packet to a host, and returns its time of arrival. `now` must not decrease.
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

    /// Sends the answer to the packet with this header, and returns the time at which it has passed
    /// the link. The caller adds the round trip. `now` must not decrease.
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

    pub(crate) fn counts(&self) -> LinkCounts {
        let (to, from) = (self.to.counts, self.from.counts);
        LinkCounts { to, from, reordered: self.reordered, duplicated: self.duplicated }
    }

    /// Returns the delay of an answer in addition to the round trip.
    fn delay(&mut self) -> Duration {
        let jitter = match self.link.jitter {
            Duration::ZERO => Duration::ZERO,
            jitter => jitter.mul_f64(self.random.share()),
        };
        let Some(reorder) = self.link.reorder else { return jitter };
        let is_delayed = self.random.is_hit(reorder.share);
        self.reordered += u64::from(is_delayed);
        jitter + if is_delayed { reorder.delay } else { Duration::ZERO }
    }
}

#[derive(Debug)]
struct DirectionModel {
    direction: Direction,
    /// The time to send one packet; zero without a bottleneck.
    transmission: Duration,
    /// The departure of the last accepted packet.
    free_at: Option<Instant>,
    burst_state: Option<BurstState>,
    random: Random,
    counts: DirectionCounts,
}

impl DirectionModel {
    fn new(direction: Direction, random: Random) -> Self {
        assert!((0.0..=1.0).contains(&direction.loss), "the loss must be from 0 to 1");
        assert_ne!(direction.packets_per_second, Some(0), "the rate must not be zero");
        Self {
            direction,
            transmission: direction
                .packets_per_second
                .map_or(Duration::ZERO, |rate| Duration::from_secs(1) / rate),
            free_at: None,
            burst_state: direction.bursts.map(BurstState::new),
            random,
            counts: DirectionCounts::default(),
        }
    }

    fn carry(&mut self, now: Instant) -> Result<Instant, Dropped> {
        self.counts.packets += 1;
        let Some(departs_at) = self.enqueue(now) else {
            return self.drop(Dropped::QueueFull);
        };
        assert!(departs_at >= now, "a packet departs before its arrival");
        if self.random.is_hit(self.direction.loss) {
            return self.drop(Dropped::Lost);
        }
        let loss =
            self.burst_state.as_mut().map_or(0.0, |it| it.loss(departs_at, &mut self.random));
        if self.random.is_hit(loss) {
            return self.drop(Dropped::LostInBurst);
        }
        Ok(departs_at)
    }

    fn drop<T>(&mut self, reason: Dropped) -> Result<T, Dropped> {
        self.counts.drops[reason as usize] += 1;
        Err(reason)
    }

    /// Returns the departure of a packet that arrives `now`, or `None` if the queue is full.
    fn enqueue(&mut self, now: Instant) -> Option<Instant> {
        if self.transmission.is_zero() {
            return Some(now);
        }
        let starts_at = self.free_at.map_or(now, |free_at| free_at.max(now));
        // At `starts_at`, all packets in the queue and the one being sent have departed.
        if starts_at - now > self.transmission * self.direction.queue_packets {
            return None;
        }
        let departs_at = starts_at + self.transmission;
        self.free_at = Some(departs_at);
        self.counts.queue_delay_max = self.counts.queue_delay_max.max(departs_at - now);
        Some(departs_at)
    }
}

#[derive(Debug)]
struct BurstState {
    bursts: Bursts,
    is_bad: bool,
    /// The end of the current state; `None` before the first packet.
    changes_at: Option<Instant>,
}

impl BurstState {
    fn new(bursts: Bursts) -> Self {
        assert!(
            bursts.time > 0.0 && bursts.time < 1.0,
            "the share of time must be above 0 and below 1"
        );
        assert!((0.0..=1.0).contains(&bursts.loss), "the loss must be from 0 to 1");
        assert!(!bursts.duration.is_zero(), "the duration must not be zero");
        Self { bursts, is_bad: false, changes_at: None }
    }

    /// Returns the share of packets that are lost at `now`, which must not decrease.
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

    /// Returns the duration of the state that begins now: exponentially distributed, never zero.
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

/// SplitMix64 (Steele, Lea, Flood 2014), which is small and good enough to select packets.
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

    /// Returns a uniformly distributed number from 0 up to, but not including, 1.
    pub(crate) fn share(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Returns true with this probability. A probability of 0 does not advance the generator, so
    /// that the result without loss does not depend on the seed.
    pub(crate) fn is_hit(&mut self, probability: f64) -> bool {
        probability > 0.0 && self.share() < probability
    }
}
