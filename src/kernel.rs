//! The system calls of the event loop behind one trait: the interface between the loop and the
//! machine.
//!
//! [`Kernel`] has a method for each system call of the loop and its probe engines, and for the two
//! clocks. `sys::linux` implements it with mio, socket2 and libc; the simulation, the fuzz target
//! of the core and the benches implement it with virtual time, and run the same loop. Dispatch is
//! static: the loop is compiled for each kernel. A kernel decides nothing, and never returns an
//! errno: it classifies each errno once.
//!
//! An open socket belongs to the loop until [`Kernel::close`] or [`Kernel::reset`] takes it back.
//! Readiness is edge-triggered (epoll(7), EPOLLET). Only [`Kernel::poll`] blocks.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant, SystemTime};

use crate::event::local_drops::LocalDrops;
use crate::event::{Outcome, ProcessFiles, RouteResult, Shortage, Signal, Transport};
use crate::packet::IpVersion;
use crate::packet::filter::PortBlock;
use crate::packet::quote::IcmpError;
use crate::packet::syn::SYN_BYTES_MAX;

/// See the module's documentation.
pub trait Kernel: Sized {
    /// An open socket: of a client, of a DNS query or of the connect engine.
    type Socket;
    /// A listening socket.
    type Listener;
    /// A raw socket of the SYN engine.
    type RawSocket;

    /// Reads the monotonic clock.
    fn now(&self) -> Instant;

    /// Reads the wall clock, which is used only for log records and `Date`.
    fn wall(&self) -> SystemTime;

    /// Waits until a registered source is ready, at most for `timeout`, and appends at most
    /// [`crate::limits::EVENTS_PER_TICK`] ready sources.
    ///
    /// # Errors
    /// Errors of epoll_wait(2); `Interrupted` is harmless.
    fn poll(&mut self, timeout: Option<Duration>, ready: &mut Vec<Readiness>) -> io::Result<()>;

    /// Registers a source with the poller under this token. The registration ends when the source
    /// is closed.
    ///
    /// # Errors
    /// Errors of epoll_ctl(2): there is no space, or the source (a file as stdout) cannot be
    /// polled.
    fn register(&mut self, source: EventSource<'_, Self>, token: Token) -> io::Result<()>;

    /// Returns one signal that has arrived, if there is one.
    ///
    /// # Errors
    /// Errors of read(2). A signal that has arrived can still be read afterwards.
    fn take_signal(&mut self) -> io::Result<Option<Signal>>;

    /// Reports a change of state to the service manager (sd_notify(3)), if there is one.
    fn notify_manager(&mut self, state: &str);

    /// Accepts one client from the queue of a listener (accept4(2)).
    fn accept(&mut self, listener: &Self::Listener) -> Accepted<Self::Socket>;

    /// Whether a client waits in the queue of a listener.
    fn has_client(&mut self, listener: &Self::Listener) -> bool;

    /// Closes a listener. The clients in its queue are reset.
    fn close_listener(&mut self, listener: Self::Listener);

    /// Opens a socket and begins to connect it. A datagram socket is connected at once.
    ///
    /// # Errors
    /// The outcome, if the kernel knew it at once.
    fn connect(&mut self, to: SocketAddr, transport: Transport) -> Result<Self::Socket, Outcome>;

    /// The outcome of a connect that the poller reported; `None` while it is in progress.
    fn connect_outcome(&mut self, socket: &Self::Socket) -> Option<Outcome>;

    /// Reads at most `buffer.len()` bytes, or one datagram.
    fn read(&mut self, socket: &Self::Socket, buffer: &mut [u8]) -> IoStep;

    /// Writes as much as the kernel accepts.
    fn write(&mut self, socket: &Self::Socket, bytes: &[u8]) -> IoStep;

    /// Shuts down the writing half. On a connection that no longer exists this has no effect.
    fn shutdown_write(&mut self, socket: &Self::Socket);

    /// Closes a socket, which ends its registration with the poller.
    fn close(&mut self, socket: Self::Socket);

    /// Opens a socket of the connect engine for the family of this address, bound to `source` if
    /// there is one.
    ///
    /// # Errors
    /// The outcome of a probe that needs the socket: a shortage, or an unsupported family.
    fn open_probe(
        &mut self,
        to: &SocketAddr,
        source: Option<IpAddr>,
    ) -> Result<Self::Socket, Outcome>;

    /// Begins to connect a socket of the connect engine.
    fn start_probe(&mut self, socket: &Self::Socket, to: &SocketAddr, past: Past) -> ProbeStep;

    /// Checks a connect in progress.
    fn check_probe(&mut self, socket: &Self::Socket, to: &SocketAddr) -> ProbeStep;

    /// Checks whether an ICMP error has rejected a connect during the call that began it. The error
    /// may also be one of an earlier connect, unless [`Kernel::clear_error`] was called before.
    fn check_rejected(&mut self, socket: &Self::Socket) -> ProbeStep;

    /// Clears the errors that earlier connects have left in an idle socket.
    fn clear_error(&mut self, socket: &Self::Socket);

    /// Aborts a connect, or resets a connection; the socket can then be used again. Returns false
    /// if the kernel refuses; the socket can then not be used again.
    fn give_up_probe(&mut self, socket: &Self::Socket) -> bool;

    /// Closes a connected socket with a RST, which avoids TIME_WAIT.
    fn reset(&mut self, socket: Self::Socket);

    /// Returns 128 unpredictable bits (getrandom(2)).
    ///
    /// # Errors
    /// The kernel or a filter does not permit the call.
    fn secret(&mut self) -> Result<[u64; 2], Shortage>;

    /// Reserves a source port for SYNs until the process ends; 0 lets the kernel choose one. No
    /// other program gets the port, and the kernel answers a SYN-ACK to it with a RST. Returns the
    /// number of the port.
    ///
    /// # Errors
    /// A shortage; [`Shortage::SourcePorts`] if another program has the port.
    fn reserve_port(&mut self, port: u16) -> Result<u16, Shortage>;

    /// Opens a raw socket that sends complete IP packets and receives the answers to them.
    ///
    /// # Errors
    /// The outcome of a probe that needs the socket: a shortage, or an unsupported IP version.
    fn open_raw(&mut self, options: RawOptions) -> Result<Self::RawSocket, Outcome>;

    /// Sends at most [`RAW_BATCH`] packets.
    fn send_raw(&mut self, socket: &Self::RawSocket, packets: &[RawPacket]) -> RawSendStep;

    /// Receives at most [`RAW_BATCH`] packets or ICMP errors, and passes each to `take`.
    fn receive_raw(
        &mut self,
        socket: &mut Self::RawSocket,
        queue: RawQueue,
        take: &mut dyn FnMut(Received<'_>),
    ) -> RawReceiveStep;

    /// The number of packets since the last call for which the receive buffer had no space. This
    /// must be called when the receive buffer is empty.
    fn raw_overflow(&mut self, socket: &mut Self::RawSocket) -> u32;

    /// The source address that the kernel would use towards `to`. No packet is sent.
    fn route(&mut self, to: SocketAddr) -> RouteResult;

    /// The texts of resolv.conf and of the hosts file.
    fn name_files(&mut self) -> NameFileTexts;

    /// The text of the token file; `None` if it cannot be read, or if all users can read it.
    fn token_file(&mut self) -> Option<Vec<u8>>;

    /// Passes the files in /proc about this process to `take`.
    fn process_files(&mut self, take: impl FnOnce(ProcessFiles<'_>));

    /// The counters of packets that this machine dropped; `None` if they are not reported.
    fn local_drops(&mut self) -> Option<LocalDrops>;

    /// Writes to stdout as much as it accepts at once. `Eof` means that the reader has closed the
    /// pipe.
    fn write_stdout(&mut self, bytes: &[u8]) -> IoStep;

    /// Writes to stderr as much as it accepts at once.
    fn write_log(&mut self, bytes: &[u8]) -> IoStep;
}

/// The number under which the poller reports a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Token(pub usize);

/// A source that the poller can watch.
#[derive(Debug)]
pub enum EventSource<'a, K: Kernel> {
    /// Watched for reading and writing.
    Socket(&'a K::Socket),
    /// Watched for reading and writing.
    Raw(&'a K::RawSocket),
    /// Watched for reading: a client waits.
    Listener(&'a K::Listener),
    /// Watched for reading: a signal waits.
    Signals,
    /// Watched for writing.
    Stdout,
}

/// A report of the poller about a source. It may be late or spurious.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Readiness {
    /// The source.
    pub token: Token,
    /// Reading would not block.
    pub is_readable: bool,
    /// Writing would not block.
    pub is_writable: bool,
    /// The peer's FIN has arrived.
    pub is_read_closed: bool,
    /// The socket has an error to report.
    pub is_error: bool,
}

/// The result of one read or write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IoStep {
    /// This number of bytes was transferred; never 0.
    Done(usize),
    /// The peer has closed its side, or has sent an empty datagram.
    Eof,
    /// There is nothing to read, or no space to write. The poller will report the next readiness.
    WouldBlock,
    /// The call was interrupted, or the kernel had no memory. No byte was transferred, and the
    /// poller does not report the readiness again, so the call must be repeated.
    Retry,
    /// The connection no longer exists.
    Broken,
}

/// The result of one accept.
#[derive(Debug)]
pub enum Accepted<S> {
    /// A client. The address is `None` if the peer has none.
    Client(S, Option<SocketAddr>),
    /// The queue is empty.
    WouldBlock,
    /// This client has already disconnected. There may be another one.
    Gone,
    /// This machine is short of a resource. The client is still in the queue.
    Shortage(Shortage),
}

/// The result of one check of a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeStep {
    /// There is no answer yet.
    Pending,
    /// The probe has ended. After `Refused` and `TimedOut` the socket can be connected again; after
    /// any other outcome it must be reset or closed.
    Over(Outcome),
    /// The kernel does not connect this socket a second time.
    ReuseRefused,
}

/// The previous use of a socket of the connect engine, which determines the meaning of some errnos.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Past {
    /// The socket is new.
    New,
    /// The socket was used for other probes. A kernel that connects no socket a second time refuses
    /// the connect.
    Used,
}

/// The texts of the files for name resolution. A file that could not be read is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NameFileTexts {
    /// resolv.conf(5), with numbers for the zones of link-local servers; empty if there is no file.
    pub resolv_conf: Option<Vec<u8>>,
    /// hosts(5), empty if there is no file.
    pub hosts: Option<Vec<u8>>,
}

/// The maximum number of packets in one call to a raw socket.
pub const RAW_BATCH: usize = 256;

/// The options of a raw socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawOptions {
    /// The IP version.
    pub version: IpVersion,
    /// The ports whose answers the socket receives.
    pub block: PortBlock,
    /// The source address, if the routing table does not select it.
    pub source: Option<IpAddr>,
}

/// A packet to be sent.
#[derive(Clone, Copy, Debug)]
pub struct RawPacket {
    /// The packet with its IP header, in the first `len` bytes.
    pub bytes: [u8; SYN_BYTES_MAX],
    /// Its length.
    pub len: usize,
    /// The destination. Its port is not used.
    pub to: SocketAddr,
}

/// The result of sending the packets of one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RawSendStep {
    /// The first packets were sent. The number of them is never 0.
    Sent(usize),
    /// The send buffer is full. The poller will report when there is space.
    WouldBlock,
    /// A firewall or connection tracking of this machine dropped the first packet (EPERM), as it
    /// would drop the SYN of a connect. No answer will arrive.
    Dropped,
    /// The first packet was not sent. The outcome applies to its target.
    Failed(Outcome),
}

/// The queue of a raw socket that is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RawQueue {
    /// Packets that passed the filter.
    Packets,
    /// ICMP errors (ip(7), MSG_ERRQUEUE).
    Errors,
}

/// The result of one call that receives packets or ICMP errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RawReceiveStep {
    /// At least one packet was received. There may be more.
    Received,
    /// No packet waits. The poller will report the next one.
    WouldBlock,
}

/// A received packet.
#[derive(Clone, Copy, Debug)]
pub struct Received<'a> {
    /// The packet from the IP header on for IPv4, from the TCP header on for IPv6. For an error,
    /// the quoted packet from its IP header on. Empty if the packet is longer than any answer.
    pub bytes: &'a [u8],
    /// The source address.
    pub remote: SocketAddr,
    /// The destination address; `None` for IPv4, where the header contains it.
    pub local: Option<IpAddr>,
    /// The ICMP error that quotes the packet; `None` for a packet that was received.
    pub error: Option<IcmpError>,
}
