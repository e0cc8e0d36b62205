//! The raw socket of the simulated kernel. It parses the bytes of each SYN, the hosts of the world
//! answer it, and a share of the answers is preceded by a forged packet.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use openports::event::{Outcome, RouteResult};
use openports::kernel::{
    RAW_BATCH, RawPacket, RawQueue, RawReceiveStep, RawSendStep, Received, Token,
};
use openports::packet::checksum;
use openports::packet::header::{self, PacketExtent};
use openports::packet::quote::IcmpError;

use crate::network::SynTimes;
use crate::world::{World, WorldEvent};

/// The percentage of answers before which a forged packet arrives.
const FOREIGN: usize = 20;
/// The percentage of calls for which the send buffer has space for a part of the packets, or none.
const BLOCKED: usize = 5;

/// A packet or an ICMP error on its way to the raw socket.
#[derive(Clone, Debug)]
pub(crate) struct RawArrival {
    bytes: Vec<u8>,
    remote: IpAddr,
    error: Option<IcmpError>,
}

/// The raw socket for IPv4; the simulation has none for IPv6.
#[derive(Debug, Default)]
pub(crate) struct Raw {
    pub(crate) token: Option<Token>,
    packets: VecDeque<RawArrival>,
    errors: VecDeque<RawArrival>,
    pub(crate) is_readable: bool,
    pub(crate) is_writable: bool,
    pub(crate) is_error: bool,
    /// Whether the next call finds the send buffer full.
    is_full: bool,
    /// The number of SYNs that were sent.
    pub(crate) sent: usize,
    /// The number of SYNs that a firewall of this machine dropped.
    pub(crate) denied: usize,
    /// The number of answers. This counter and the following ones are for the coverage.
    pub(crate) answers: usize,
    pub(crate) rejections: usize,
    pub(crate) foreigners: usize,
    pub(crate) blocked: usize,
    pub(crate) overflows: usize,
}

impl Raw {
    /// Returns whether the poller has an event to report.
    pub(crate) const fn has_edge(&self) -> bool {
        self.is_readable || self.is_writable || self.is_error
    }
}

impl World {
    pub(crate) fn send_syns(&mut self, packets: &[RawPacket]) -> RawSendStep {
        self.calls += 1;
        assert!(
            !packets.is_empty() && packets.len() <= RAW_BATCH,
            "{} packets in a batch",
            packets.len()
        );
        let is_short = self.rng.chance(BLOCKED);
        let space = if is_short { self.rng.below(packets.len()) } else { packets.len() };
        if std::mem::take(&mut self.raw.is_full) || space == 0 {
            self.raw.blocked += 1;
            self.schedule(Duration::from_millis(1), WorldEvent::RawWritable);
            return RawSendStep::WouldBlock;
        }
        if let Some(shortage) = self.shortage_of_call(self.faults.shortages) {
            self.seen.shortages += 1;
            return RawSendStep::Failed(Outcome::Shortage(shortage));
        }
        self.raw.is_full = is_short;
        if self.faults.syns_denied > 0 && self.rng.chance(self.faults.syns_denied) {
            self.raw.denied += 1;
            return RawSendStep::Dropped;
        }
        let packets = &packets[..space];
        for (place, packet) in packets.iter().enumerate() {
            let step = self.send_syn(packet);
            match (place, step) {
                (_, RawSendStep::Sent(_)) => {}
                (0, step) => return step,
                (sent, _) => return RawSendStep::Sent(sent),
            }
        }
        RawSendStep::Sent(packets.len())
    }

    fn send_syn(&mut self, packet: &RawPacket) -> RawSendStep {
        self.now += self.faults.syn_time;
        let bytes = &packet.bytes[..packet.len];
        let syn = header::ipv4(bytes, PacketExtent::Whole).expect("the engine sends valid packets");
        let ends = [syn.source.into(), syn.destination.into()];
        assert_eq!(checksum::judge(ends, syn.segment), checksum::ChecksumVerdict::Complete);
        assert_eq!(packet.to.ip(), ends[1], "the socket address differs from the packet's");
        let port = u16::from_be_bytes([syn.segment[2], syn.segment[3]]);
        let times = SynTimes { origin: self.origin, start: self.now };
        let host = self.hosts.get_mut(&ends[1]).expect("a SYN to a host of the world");
        if host.route == RouteResult::Nowhere {
            return RawSendStep::Failed(Outcome::Unreachable);
        }
        for (at, outcome) in host.answer_syn(times, port, &mut self.rng) {
            self.schedule_answer(at, outcome, bytes);
        }
        self.raw.sent += 1;
        RawSendStep::Sent(1)
    }

    /// Schedules the answer to a SYN for `at`, in some cases after a forged one.
    fn schedule_answer(&mut self, at: Instant, outcome: Outcome, bytes: &[u8]) {
        let syn = header::ipv4(bytes, PacketExtent::Whole).expect("the engine sends valid packets");
        let ends = [syn.source.into(), syn.destination.into()];
        let (bytes, error) = match outcome {
            Outcome::Connected => (answer(syn.source, syn.destination, syn.segment, 0x12), None),
            Outcome::Unreachable => {
                (bytes[..28].to_vec(), Some(IcmpError::V4 { kind: 3, code: 1 }))
            }
            Outcome::SelfConnect | Outcome::Refused | Outcome::TimedOut | Outcome::Shortage(_) => {
                (answer(syn.source, syn.destination, syn.segment, 0x14), None)
            }
        };
        let arrival = RawArrival { bytes, remote: ends[1], error };
        if self.rng.chance(FOREIGN) {
            self.raw.foreigners += 1;
            let mut foreign = arrival.clone();
            // Changes the acknowledged or quoted number, which an attacker cannot guess.
            let place = if error.is_some() { 24 } else { 28 };
            foreign.bytes[place + self.rng.below(4)] ^= 1 << self.rng.below(8);
            if error.is_none() {
                let (head, segment) = foreign.bytes.split_at_mut(20);
                // Claims the opposite state: RST instead of SYN, or SYN instead of RST.
                segment[13] ^= 0x06;
                segment[16..18].fill(0);
                let sum = checksum::of_segment(ends, segment);
                segment[16..18].copy_from_slice(&sum.to_be_bytes());
                assert_eq!(head.len(), 20, "the header has options");
            }
            self.schedule_at(at, WorldEvent::RawArrival(foreign));
        }
        self.schedule_at(at, WorldEvent::RawArrival(arrival));
    }

    pub(crate) fn on_raw_arrival(&mut self, arrival: RawArrival) {
        match arrival.error {
            Some(_) => {
                self.raw.rejections += 1;
                self.raw.errors.push_back(arrival);
            }
            None => {
                self.raw.answers += 1;
                self.raw.packets.push_back(arrival);
            }
        }
        self.raw.is_error |= !self.raw.errors.is_empty();
        self.raw.is_readable |= !self.raw.packets.is_empty();
    }

    pub(crate) fn receive_packets(
        &mut self,
        queue: RawQueue,
        take: &mut dyn FnMut(Received<'_>),
    ) -> RawReceiveStep {
        self.calls += 1;
        let arrivals = match queue {
            RawQueue::Packets => &mut self.raw.packets,
            RawQueue::Errors => &mut self.raw.errors,
        };
        if arrivals.is_empty() {
            return RawReceiveStep::WouldBlock;
        }
        for RawArrival { bytes, remote, error } in arrivals.drain(..arrivals.len().min(RAW_BATCH)) {
            let remote = SocketAddr::new(remote, 0);
            take(Received { bytes: &bytes, remote, local: None, error });
        }
        RawReceiveStep::Received
    }
}

/// Returns the packet that answers a SYN, with these flags.
fn answer(local: Ipv4Addr, remote: Ipv4Addr, syn: &[u8], flags: u8) -> Vec<u8> {
    let sequence = u32::from_be_bytes([syn[4], syn[5], syn[6], syn[7]]);
    let mut segment = [&syn[2..4], &syn[..2], &[7; 4]].concat();
    segment.extend(sequence.wrapping_add(1).to_be_bytes());
    segment.extend([0x50, flags, 0, 1, 0, 0, 0, 0]);
    let sum = checksum::of_segment([local.into(), remote.into()], &segment);
    segment[16..18].copy_from_slice(&sum.to_be_bytes());
    let mut packet = vec![0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0];
    packet.extend(remote.octets());
    packet.extend(local.octets());
    let sum = checksum::of(&packet);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet.extend(segment);
    packet
}
