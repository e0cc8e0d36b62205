//! A simulated kernel with almost no cost of its own, so that only the loop and the core are
//! measured. It has one client, and every connect is refused at once.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant, SystemTime};

use openports::core::Core;
use openports::event::local_drops::LocalDrops;
use openports::event::{Outcome, ProcessFiles, RouteResult, Shortage, Signal, Transport};
use openports::event_loop::EventLoop;
use openports::kernel::{
    Accepted, EventSource, IoStep, Kernel, NameFileTexts, Past, ProbeStep, RawOptions, RawPacket,
    RawQueue, RawReceiveStep, RawSendStep, Readiness, Received, Token,
};

pub(crate) struct RefusingKernel {
    pub(crate) now: Instant,
    has_arrived: bool,
    client: Option<Token>,
    /// Bytes from the client that the service has not read.
    inbox: Vec<u8>,
    pub(crate) output: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Socket {
    Client,
    Probe,
}

/// A listener with one client in its backlog.
pub(crate) struct Listener;

/// Returns an event loop on this kernel, after its first tick.
pub(crate) fn event_loop(core: Core) -> EventLoop<RefusingKernel> {
    let (client, inbox, output) = (None, Vec::new(), Vec::new());
    let kernel = RefusingKernel { now: Instant::now(), has_arrived: false, client, inbox, output };
    let event_loop = EventLoop::new(kernel, vec![Listener], Box::new(core));
    let mut event_loop = event_loop.unwrap_or_else(|error| unreachable!("{error}"));
    tick(&mut event_loop);
    event_loop
}

/// Runs one tick, which must neither fail nor exit.
pub(crate) fn tick(event_loop: &mut EventLoop<RefusingKernel>) {
    let ticked = event_loop.tick();
    assert!(matches!(ticked, Ok(None)), "{ticked:?}");
}

impl RefusingKernel {
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.inbox.extend_from_slice(bytes);
    }
}

impl Kernel for RefusingKernel {
    type Listener = Listener;
    type RawSocket = ();
    type Socket = Socket;

    fn now(&self) -> Instant {
        self.now
    }

    fn wall(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH
    }

    fn poll(&mut self, _: Option<Duration>, ready: &mut Vec<Readiness>) -> io::Result<()> {
        if let (Some(token), false) = (self.client, self.inbox.is_empty()) {
            ready.push(Readiness {
                token,
                is_readable: true,
                is_writable: true,
                is_read_closed: false,
                is_error: false,
            });
        }
        Ok(())
    }

    fn register(&mut self, source: EventSource<'_, Self>, token: Token) -> io::Result<()> {
        if let EventSource::Socket(Socket::Client) = source {
            self.client = Some(token);
        }
        Ok(())
    }

    fn take_signal(&mut self) -> io::Result<Option<Signal>> {
        Ok(None)
    }

    fn notify_manager(&mut self, _: &str) {}

    fn accept(&mut self, _: &Listener) -> Accepted<Socket> {
        if std::mem::replace(&mut self.has_arrived, true) {
            return Accepted::WouldBlock;
        }
        Accepted::Client(Socket::Client, None)
    }

    fn has_client(&mut self, _: &Listener) -> bool {
        !self.has_arrived
    }

    fn close_listener(&mut self, _: Listener) {}

    fn connect(&mut self, _: SocketAddr, _: Transport) -> Result<Socket, Outcome> {
        Err(Outcome::Unreachable)
    }

    fn connect_outcome(&mut self, _: &Socket) -> Option<Outcome> {
        None
    }

    fn read(&mut self, socket: &Socket, buffer: &mut [u8]) -> IoStep {
        assert!(*socket == Socket::Client, "a read from a probe");
        let count = self.inbox.len().min(buffer.len());
        if count == 0 {
            return IoStep::WouldBlock;
        }
        buffer[..count].copy_from_slice(&self.inbox[..count]);
        self.inbox.drain(..count);
        IoStep::Done(count)
    }

    fn write(&mut self, socket: &Socket, bytes: &[u8]) -> IoStep {
        assert!(*socket == Socket::Client, "a write to a probe");
        self.output.extend_from_slice(bytes);
        IoStep::Done(bytes.len())
    }

    fn shutdown_write(&mut self, _: &Socket) {}

    fn close(&mut self, _: Socket) {}

    fn open_probe(&mut self, _: &SocketAddr, _: Option<IpAddr>) -> Result<Socket, Outcome> {
        Ok(Socket::Probe)
    }

    fn start_probe(&mut self, _: &Socket, _: &SocketAddr, _: Past) -> ProbeStep {
        ProbeStep::Over(Outcome::Refused)
    }

    fn check_rejected(&mut self, _: &Socket) -> ProbeStep {
        ProbeStep::Pending
    }

    fn clear_error(&mut self, _: &Socket) {}

    fn check_probe(&mut self, _: &Socket, _: &SocketAddr) -> ProbeStep {
        ProbeStep::Pending
    }

    fn give_up_probe(&mut self, _: &Socket) -> bool {
        true
    }

    fn reset(&mut self, _: Socket) {}

    fn secret(&mut self) -> Result<[u64; 2], Shortage> {
        unreachable!("no case uses SYN scans")
    }

    fn reserve_port(&mut self, _: u16) -> Result<u16, Shortage> {
        unreachable!("no case uses SYN scans")
    }

    fn open_raw(&mut self, _: RawOptions) -> Result<(), Outcome> {
        unreachable!("no case uses SYN scans")
    }

    fn send_raw(&mut self, (): &(), _: &[RawPacket]) -> RawSendStep {
        unreachable!("no case uses SYN scans")
    }

    fn receive_raw(
        &mut self,
        (): &mut (),
        _: RawQueue,
        _: &mut dyn FnMut(Received<'_>),
    ) -> RawReceiveStep {
        unreachable!("no case uses SYN scans")
    }

    fn raw_overflow(&mut self, (): &mut ()) -> u32 {
        unreachable!("no case uses SYN scans")
    }

    fn route(&mut self, _: SocketAddr) -> RouteResult {
        RouteResult::From(IpAddr::from([192, 0, 2, 254]))
    }

    fn name_files(&mut self) -> NameFileTexts {
        NameFileTexts::default()
    }

    fn token_file(&mut self) -> Option<Vec<u8>> {
        None
    }

    fn process_files(&mut self, take: impl FnOnce(ProcessFiles<'_>)) {
        take(ProcessFiles::default());
    }

    fn local_drops(&mut self) -> Option<LocalDrops> {
        None
    }

    fn write_stdout(&mut self, bytes: &[u8]) -> IoStep {
        IoStep::Done(bytes.len())
    }

    fn write_log(&mut self, bytes: &[u8]) -> IoStep {
        IoStep::Done(bytes.len())
    }
}
