//! Tests of the SYN engine with a kernel whose send buffer is full at chosen packets.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::channel::BLOCKED_MAX;
use super::*;
use crate::event::local_drops::LocalDrops;
use crate::event::{CompletionCheck, ProcessFiles, Signal, Transport};
use crate::kernel::{Accepted, IoStep, NameFileTexts, Past, ProbeStep, RawPacket, RawSendStep};
use crate::technique::Technique;

/// A kernel that records the packets of raw sockets.
struct SendingKernel {
    now: Instant,
    /// The number of packets for which the send buffer has space.
    space: usize,
    /// The number of calls that found no space.
    blocked: usize,
    sent: Vec<SocketAddr>,
}

impl Kernel for SendingKernel {
    type Listener = ();
    type RawSocket = ();
    type Socket = ();

    fn secret(&mut self) -> Result<[u64; 2], Shortage> {
        Ok([1, 2])
    }

    fn reserve_port(&mut self, port: u16) -> Result<u16, Shortage> {
        Ok(port.max(40_000))
    }

    fn open_raw(&mut self, _: RawOptions) -> Result<(), Outcome> {
        Ok(())
    }

    fn send_raw(&mut self, (): &(), packets: &[RawPacket]) -> RawSendStep {
        let count = packets.len().min(self.space);
        if count == 0 {
            self.blocked += 1;
            return RawSendStep::WouldBlock;
        }
        self.space -= count;
        for packet in &packets[..count] {
            let segment = &packet.bytes[packet.len - 40..packet.len];
            let port = u16::from_be_bytes([segment[2], segment[3]]);
            assert!(segment[13] == 2 && packet.to.port() == port, "a SYN to this port");
            self.sent.push(packet.to);
        }
        RawSendStep::Sent(count)
    }

    fn route(&mut self, to: SocketAddr) -> RouteResult {
        RouteResult::From(match to {
            SocketAddr::V4(_) => Ipv4Addr::new(192, 0, 2, 1).into(),
            SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        })
    }

    fn register(&mut self, _: EventSource<'_, Self>, _: Token) -> std::io::Result<()> {
        Ok(())
    }

    fn now(&self) -> Instant {
        self.now
    }

    fn receive_raw(
        &mut self,
        (): &mut (),
        _: RawQueue,
        _: &mut dyn FnMut(Received<'_>),
    ) -> RawReceiveStep {
        RawReceiveStep::WouldBlock
    }

    fn raw_overflow(&mut self, (): &mut ()) -> u32 {
        0
    }

    fn wall(&self) -> std::time::SystemTime {
        unreachable!()
    }

    fn poll(&mut self, _: Option<Duration>, _: &mut Vec<Readiness>) -> std::io::Result<()> {
        unreachable!()
    }

    fn take_signal(&mut self) -> std::io::Result<Option<Signal>> {
        unreachable!()
    }

    fn notify_manager(&mut self, _: &str) {}

    fn accept(&mut self, (): &()) -> Accepted<()> {
        unreachable!()
    }

    fn has_client(&mut self, (): &()) -> bool {
        unreachable!()
    }

    fn close_listener(&mut self, (): ()) {}

    fn connect(&mut self, _: SocketAddr, _: Transport) -> Result<(), Outcome> {
        unreachable!()
    }

    fn connect_outcome(&mut self, (): &()) -> Option<Outcome> {
        unreachable!()
    }

    fn read(&mut self, (): &(), _: &mut [u8]) -> IoStep {
        unreachable!()
    }

    fn write(&mut self, (): &(), _: &[u8]) -> IoStep {
        unreachable!()
    }

    fn shutdown_write(&mut self, (): &()) {}

    fn close(&mut self, (): ()) {}

    fn open_probe(&mut self, _: &SocketAddr, _: Option<IpAddr>) -> Result<(), Outcome> {
        unreachable!()
    }

    fn start_probe(&mut self, (): &(), _: &SocketAddr, _: Past) -> ProbeStep {
        unreachable!()
    }

    fn check_probe(&mut self, (): &(), _: &SocketAddr) -> ProbeStep {
        unreachable!()
    }

    fn check_rejected(&mut self, (): &()) -> ProbeStep {
        unreachable!()
    }

    fn clear_error(&mut self, (): &()) {
        unreachable!()
    }

    fn give_up_probe(&mut self, (): &()) -> bool {
        unreachable!()
    }

    fn reset(&mut self, (): ()) {}

    fn name_files(&mut self) -> NameFileTexts {
        unreachable!()
    }

    fn token_file(&mut self) -> Option<Vec<u8>> {
        unreachable!()
    }

    fn process_files(&mut self, _: impl FnOnce(ProcessFiles<'_>)) {}

    fn local_drops(&mut self) -> Option<LocalDrops> {
        None
    }

    fn write_stdout(&mut self, _: &[u8]) -> IoStep {
        unreachable!()
    }

    fn write_log(&mut self, _: &[u8]) -> IoStep {
        unreachable!()
    }
}

/// The number of probes of a test.
const PROBES: usize = 9;

/// An engine with its kernel.
struct Bench {
    engine: SynEngine<SendingKernel>,
    kernel: SendingKernel,
    version: IpVersion,
}

impl Bench {
    /// An engine that starts [`PROBES`] probes while the send buffer has space for `space` packets.
    fn new(version: IpVersion, space: usize) -> Self {
        let now = Instant::now();
        let kernel = SendingKernel { now, space, blocked: 0, sent: Vec::new() };
        let engine = SynEngine::new(Sources::default(), now);
        let mut bench = Self { engine, kernel, version };
        for index in 0..PROBES {
            let (to, check) = (bench.target(index), CompletionCheck::RejectionAtOnce);
            let probe = Key::from_parts(index as u32, 1);
            let request = ProbeRequest { probe, to, check, technique: Technique::Syn };
            assert_eq!(bench.engine.start(&mut bench.kernel, now, request), Ok(()));
        }
        bench.engine.flush(&mut bench.kernel);
        bench
    }

    fn target(&self, index: usize) -> SocketAddr {
        let address: IpAddr = match self.version {
            IpVersion::V4 => Ipv4Addr::new(198, 51, 100, 7).into(),
            IpVersion::V6 => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 7).into(),
        };
        SocketAddr::new(address, 1000 + index as u16)
    }

    fn targets(&self) -> Vec<SocketAddr> {
        (0..PROBES).map(|index| self.target(index)).collect()
    }

    /// Runs a tick at this time, and returns the probes that end in it.
    fn tick(&mut self, after: Duration) -> Vec<ProbeOutcome> {
        let now = self.kernel.now + after;
        self.engine.receive(&mut self.kernel, now);
        self.engine.flush(&mut self.kernel);
        std::iter::from_fn(|| self.engine.poll_outcome()).collect()
    }

    /// The poller reports that the send buffer has space for this number of packets.
    fn report_space(&mut self, space: usize) {
        self.kernel.space = space;
        self.engine.handle_readiness(&Readiness {
            token: Token(TOKEN + self.version as usize),
            is_readable: false,
            is_writable: true,
            is_read_closed: false,
            is_error: false,
        });
    }
}

#[test]
fn a_full_send_buffer_delays_each_syn_and_repeats_none() {
    for version in IpVersion::ALL {
        for (first, second) in (0..=PROBES).flat_map(|first| (1..=PROBES).map(move |n| (first, n)))
        {
            let mut bench = Bench::new(version, first);
            assert_eq!(bench.kernel.sent.len(), first, "as many as the buffer had space for");
            for (space, at) in [second, PROBES, PROBES].into_iter().zip([9, 19, 29]) {
                assert!(!bench.engine.has_work(), "only the poller ends the wait");
                let blocked = bench.kernel.blocked;
                assert_eq!(bench.tick(Duration::from_millis(at)), []);
                assert_eq!(bench.kernel.blocked, blocked, "no call while the buffer is full");
                bench.report_space(space);
                assert_eq!(bench.tick(Duration::from_millis(at + 1)), []);
            }
            assert_eq!(bench.kernel.sent, bench.targets(), "{version:?} {first} {second}");
            bench.report_space(usize::MAX);
            assert_eq!(bench.tick(Duration::from_millis(999)), []);
            assert_eq!(bench.kernel.sent.len(), PROBES, "no SYN is sent twice at once");
            assert_eq!(bench.tick(Duration::from_millis(1000)), []);
            assert_eq!(bench.kernel.sent, [bench.targets(), bench.targets()].concat());
        }
    }
}

#[test]
fn syns_that_never_left_are_a_shortage_and_not_silence() {
    for version in IpVersion::ALL {
        for space in 0..PROBES {
            let mut bench = Bench::new(version, space);
            let deadline = bench.engine.deadline();
            assert_eq!(deadline, Some(bench.kernel.now + BLOCKED_MAX), "the wait has an end");
            assert_eq!(bench.tick(BLOCKED_MAX.saturating_sub(Duration::from_millis(1))), []);
            let expected: Vec<ProbeOutcome> = (space..PROBES)
                .map(|index| ProbeOutcome {
                    probe: Key::from_parts(index as u32, 1),
                    outcome: Outcome::Shortage(Shortage::Buffers),
                })
                .collect();
            assert_eq!(bench.tick(BLOCKED_MAX), expected);
            assert!(!bench.engine.has_work(), "nothing waits any more");
            bench.report_space(usize::MAX);
            assert_eq!(bench.tick(Duration::from_secs(1)), []);
            let sent: Vec<SocketAddr> = bench.targets()[..space].repeat(2);
            assert_eq!(bench.kernel.sent, sent, "only SYNs that left are repeated");
        }
    }
}
