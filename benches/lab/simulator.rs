//! Simulates the hosts behind their link, and sends their answers when they are due.
//!
//! One thread drives it. Each round sends due answers and reads packets, up to a limit for each.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::fs::File;
use std::io::{self, Read, Write};
use std::iter;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::ethernet::{self, Frame, Mac};
use super::host::{Fate, Host, HostModel};
use super::link::{Header, Link, LinkModel};
use super::stats::Stats;
use super::wire::{Packet, Segment, flag};
use super::{Medium, OWN_ADDRESS};

/// The maximum number of packets read, and of packets sent, in one round.
const PACKETS_PER_ROUND: usize = 64;
/// The maximum time that the thread sleeps before it checks whether it must stop.
pub(super) const SLEEP_MAX: Duration = Duration::from_millis(20);

#[derive(Debug)]
pub(super) struct Simulator {
    device: Arc<File>,
    medium: Medium,
    /// The hardware address of our side, from its last frame.
    own_mac: Mac,
    link: LinkModel,
    hosts: Vec<HostModel>,
    index: HashMap<IpAddr, usize>,
    deliveries: Deliveries,
    stats: Stats,
}

impl Simulator {
    pub(super) fn new(device: Arc<File>, medium: Medium, hosts: Vec<Host>, link: &Link) -> Self {
        let index: HashMap<IpAddr, usize> =
            hosts.iter().enumerate().map(|(place, host)| (host.address, place)).collect();
        assert_eq!(index.len(), hosts.len(), "two hosts have the same address");
        assert!(!index.contains_key(&IpAddr::V4(OWN_ADDRESS)), "a host has our own address");
        let hosts = hosts.into_iter().map(HostModel::new).collect();
        let (link, deliveries) = (LinkModel::new(link), Deliveries::default());
        let (own_mac, stats) = (Mac::default(), Stats::default());
        Self { device, medium, own_mac, link, hosts, index, deliveries, stats }
    }

    /// Sends due answers and reads packets. Returns the time until the next answer is due, or zero
    /// if packets may be left to read.
    pub(super) fn run_once(&mut self) -> io::Result<Duration> {
        self.send_due();
        let mut buffer = [0; 2048];
        for _ in 0..PACKETS_PER_ROUND {
            match self.device.as_ref().read(&mut buffer) {
                Ok(length) => self.handle_frame(Instant::now(), &buffer[..length]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let now = Instant::now();
                    let first = self.deliveries.next_at();
                    return Ok(first.map_or(SLEEP_MAX, |due| due.saturating_duration_since(now)));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(Duration::ZERO)
    }

    pub(super) fn stats(&self) -> Stats {
        Stats { link: self.link.counts(), ..self.stats }
    }

    fn send_due(&mut self) {
        for _ in 0..PACKETS_PER_ROUND {
            let Some((late, packet)) = self.deliveries.pop_due(Instant::now()) else { break };
            self.stats.late_max = self.stats.late_max.max(late);
            match self.medium {
                Medium::PointToPoint => self.write(packet.bytes()),
                Medium::Ethernet => self.write(&ethernet::frame(self.own_mac, &packet)),
            }
        }
    }

    fn write(&mut self, bytes: &[u8]) {
        self.stats.write_failures += u64::from(self.device.as_ref().write(bytes).is_err());
    }

    /// Handles a packet or frame from our side.
    fn handle_frame(&mut self, now: Instant, bytes: &[u8]) {
        match self.medium {
            Medium::PointToPoint => self.receive(now, bytes),
            Medium::Ethernet => match Frame::parse(bytes) {
                Some((mac, Frame::Ip(packet))) => {
                    self.own_mac = mac;
                    self.receive(now, packet);
                }
                Some((_, Frame::NeighbourRequest(request))) => {
                    self.stats.neighbours_asked += 1;
                    if self.index.contains_key(&request.neighbour) {
                        self.stats.neighbours_answered += 1;
                        self.write(&request.answer());
                    }
                }
                None => self.stats.astray += 1,
            },
        }
    }

    fn receive(&mut self, now: Instant, packet: &[u8]) {
        let found = Segment::parse(packet)
            .and_then(|segment| Some((segment, *self.index.get(&segment.target.ip())?)));
        let Some((segment, place)) = found else {
            self.stats.astray += 1;
            return;
        };
        self.stats.segments += 1;
        let is_syn = segment.has(flag::SYN);
        self.stats.syns += u64::from(is_syn);
        let header = Header { source: segment.source, target: segment.target, is_syn };
        if let Ok(arrived_at) = self.link.forward(now, &header) {
            self.handle_segment(arrived_at, &header, &segment, place);
        }
        assert_eq!(
            self.stats().decided(),
            self.stats.segments,
            "a segment was not counted under exactly one fate"
        );
    }

    /// Handles a segment that has passed the link and reached its host.
    fn handle_segment(
        &mut self,
        now: Instant,
        header: &Header,
        segment: &Segment<'_>,
        place: usize,
    ) {
        let host = &mut self.hosts[place];
        match host.handle(now, segment) {
            Fate::Answered(packet) => {
                self.stats.answered += 1;
                if let Ok(arrival) = self.link.back(now, header) {
                    let rtt = host.rtt(now);
                    for at in iter::once(arrival.at).chain(arrival.copy_at) {
                        self.deliveries.push(at + rtt, packet);
                    }
                }
            }
            Fate::Ignored => self.stats.ignored += 1,
            Fate::LostTo => self.stats.lost_to += 1,
            Fate::LostFrom => self.stats.lost_from += 1,
            Fate::Limited => self.stats.limited += 1,
            Fate::Dead => self.stats.dead += 1,
        }
    }
}

/// Answers on their way to our side, in the order of their due times.
///
/// Most answers are added in this order, so they wait in a queue. An answer that is due before the
/// last one in the queue waits in a heap.
#[derive(Debug, Default)]
struct Deliveries {
    in_order: VecDeque<(Instant, Packet)>,
    out_of_order: BinaryHeap<Reverse<Delivery>>,
    /// The number of answers that were added to the heap, which orders those with equal due times.
    added: u64,
}

#[derive(Debug)]
struct Delivery {
    due: (Instant, u64),
    packet: Packet,
}

impl Deliveries {
    fn push(&mut self, due: Instant, packet: Packet) {
        if self.in_order.back().is_none_or(|(last, _)| *last <= due) {
            self.in_order.push_back((due, packet));
        } else {
            self.added += 1;
            self.out_of_order.push(Reverse(Delivery { due: (due, self.added), packet }));
        }
    }

    fn next_at(&self) -> Option<Instant> {
        let in_order = self.in_order.front().map(|(due, _)| *due);
        let out_of_order = self.out_of_order.peek().map(|Reverse(delivery)| delivery.due.0);
        in_order.into_iter().chain(out_of_order).min()
    }

    /// Returns the next due answer, and how late it is.
    fn pop_due(&mut self, now: Instant) -> Option<(Duration, Packet)> {
        let due = self.next_at()?;
        let late = now.checked_duration_since(due)?;
        let packet = if self.in_order.front().is_some_and(|(first, _)| *first == due) {
            self.in_order.pop_front()?.1
        } else {
            self.out_of_order.pop()?.0.packet
        };
        Some((late, packet))
    }
}

impl PartialEq for Delivery {
    fn eq(&self, other: &Self) -> bool {
        self.due == other.due
    }
}

impl Eq for Delivery {}

impl PartialOrd for Delivery {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Delivery {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.due.cmp(&other.due)
    }
}
