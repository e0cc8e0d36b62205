//! The boundary between the event loop and the core. Everything that crosses it is listed here.
//!
//! | from loop to core | |
//! |---|---|
//! | `Core::handle` | an [`Event`], which borrows its data |
//! | `Core::handle_accepted` | a client was accepted; returns the [`Key`] of its socket |
//! | `Core::handle_accept_backlog` | a client waits, and connections are at their cap |
//! | `Core::handle_log_dropped` | the buffer for stderr was full and log lines were dropped |
//! | `Core::poll_action` | requests the next [`Action`], which owns its data |
//! | `Core::wants_connections`, `Core::keeps_listeners` | whether to accept; keep listeners open |
//! | `Core::bytes_wanted`, `Core::output` | how much to read from a socket; what to write |
//! | `Core::stdout` | the bytes for stdout |
//! | `Core::probes_wanted` | the number of sockets that are useful for probes |
//! | `Core::probes_max`, `Core::sources` | the parameters of the engines, read at the start |
//!
//! The loop (`event_loop`, over a `kernel`) turns readiness and errno into events and performs
//! actions; the core (`core` and the modules below it) decides. Every socket and every probe has a
//! [`Key`] that the core assigns *before* a descriptor exists (for a client right after it); an
//! event with a stale key is ignored. This module contains only types and has no behaviour.

pub mod local_drops;

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant, SystemTime};

use crate::packet::Reject;
use crate::slots::Key;
use crate::technique::Technique;
use local_drops::LocalDrops;

/// An event for the core.
#[derive(Debug)]
pub enum Event<'a> {
    /// The first event of each tick, except of the very first tick, whose time `Core::new` gets.
    Clock {
        /// The wall clock, for `Date` and log records only. No deadline is computed from it.
        wall: SystemTime,
    },
    /// Sent once per tick, after the sockets and before the accepts.
    Tick {
        /// How long the last tick worked, without its wait.
        worked: Duration,
        /// Whether outcomes may still wait in the poller.
        backlog: Backlog,
    },
    /// A termination signal arrived.
    Signal(Signal),
    /// A probe that [`Action::Probe`] started has an outcome. Its key is free again, because the
    /// engine no longer knows it.
    Probe {
        /// The key given in the action.
        probe: Key,
        /// The outcome.
        outcome: Outcome,
    },
    /// The SYN engine has counted packets.
    SynCounts(SynCounts),
    /// The kernel refused to connect a socket a second time. From now on each probe has its own
    /// socket.
    ReuseRefused,
    /// A connect that [`Action::Connect`] started has an outcome.
    Connect {
        /// The socket of the action. It stays open until [`Action::Close`].
        socket: Key,
        /// The outcome.
        outcome: Outcome,
    },
    /// Bytes of a stream, or one whole datagram.
    Received {
        /// The socket of a client, or one opened by [`Action::Connect`].
        socket: Key,
        /// The bytes. They are never empty, and for a stream at most as many as the core's
        /// `bytes_wanted` permitted.
        bytes: &'a [u8],
    },
    /// The peer has closed its side: a half-close or a complete close, which only writing can
    /// distinguish.
    ReadClosed {
        /// The stream.
        socket: Key,
    },
    /// The peer's FIN has arrived, after bytes that the core does not accept yet.
    Hangup {
        /// The stream.
        socket: Key,
    },
    /// The kernel accepted bytes of the core's `output`.
    Sent {
        /// The stream or datagram socket.
        socket: Key,
        /// The number of bytes; never 0. For a datagram socket it is the whole datagram.
        count: usize,
    },
    /// The socket is broken (reset, timed out, refused): it can be neither read nor written. The
    /// core must still close it with [`Action::Close`].
    Broken {
        /// The socket.
        socket: Key,
    },
    /// `accept` failed because this machine is short of a resource. The client is still in the
    /// queue.
    AcceptFailed(Shortage),
    /// The result of [`Action::FindRoute`].
    Route {
        /// The key of the action.
        request: Key,
        /// The destination of the request.
        to: SocketAddr,
        /// The route.
        route: RouteResult,
    },
    /// The result of [`Action::ReadLocalDrops`]; `None` if the kernel does not report them.
    LocalDrops(Option<&'a LocalDrops>),
    /// The result of [`Action::ReadTokenFile`]; `None` if the file cannot be read, or if all users
    /// can read it.
    TokenFile(Option<&'a [u8]>),
    /// The result of [`Action::ReadNameFiles`]. A file that could not be read is `None`.
    NameFiles {
        /// The text of resolv.conf, empty if there is no file.
        resolv_conf: Option<&'a [u8]>,
        /// The text of the hosts file, empty if there is no file.
        hosts: Option<&'a [u8]>,
    },
    /// The result of [`Action::ReadProcessFiles`].
    ProcessFiles(ProcessFiles<'a>),
    /// Stdout accepted bytes of the core's `stdout`.
    Printed {
        /// The number of bytes; never 0.
        count: usize,
    },
    /// Stdout accepts no more bytes.
    PrintFailed(PrintFailure),
}

/// The texts of /proc/self. A text is empty if it could not be read.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProcessFiles<'a> {
    /// /proc/self/stat.
    pub stat: &'a str,
    /// /proc/self/status.
    pub status: &'a str,
    /// /proc/self/limits.
    pub limits: &'a str,
    /// The number of open descriptors; `None` if it is unknown.
    pub descriptors_open: Option<usize>,
}

/// The reason why stdout accepts no more bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PrintFailure {
    /// EPIPE: the reader closed the pipe, as `head` does when it has read enough.
    ReaderGone,
    /// Any other error: a full disk, or a descriptor that was never open.
    Broken,
}

/// The route of packets to an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteResult {
    /// Packets would be sent from this source address.
    From(IpAddr),
    /// There is no route, or no source address.
    Nowhere,
    /// The question could not be answered, because this machine is short of a resource.
    Unknown,
}

/// A termination signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM.
    Terminate,
    /// SIGINT.
    Interrupt,
    /// SIGHUP: the terminal was closed, or a supervisor stops the process.
    HangUp,
}

impl Signal {
    /// The name of the signal in signal(7).
    pub const fn name(self) -> &'static str {
        match self {
            Self::Terminate => "SIGTERM",
            Self::Interrupt => "SIGINT",
            Self::HangUp => "SIGHUP",
        }
    }
}

/// A request of the core to the event loop. The last action of every flush is [`Action::Yield`],
/// [`Action::Wait`] or [`Action::Exit`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Probe this address and port; [`Event::Probe`] reports the outcome.
    Probe {
        /// The key of the probe.
        probe: Key,
        /// The address and port.
        to: SocketAddr,
        /// The time at which to check for the outcome.
        check: CompletionCheck,
        /// The technique, which selects the engine.
        technique: Technique,
    },
    /// Give this probe up. No event will contain its key. Unknown keys are ignored.
    Forget {
        /// The key of the probe.
        probe: Key,
    },
    /// Open a socket and connect it; [`Event::Connect`] reports the outcome.
    Connect {
        /// The key that the core has assigned to the socket.
        socket: Key,
        /// The destination.
        to: SocketAddr,
        /// TCP, or a connected UDP socket (which is connected at once).
        transport: Transport,
    },
    /// The core's `output` or `bytes_wanted` for this socket has changed. Write what the remembered
    /// readiness permits. Reading follows in the next tick, so that a flush ends.
    Attend(Key),
    /// Shut down the writing half, after everything written so far.
    ShutdownWrite(Key),
    /// Close the socket. Its key is stale from now on. Unknown keys (of a connect that failed
    /// before there was a descriptor) are ignored.
    Close {
        /// The socket.
        socket: Key,
    },
    /// Determine the source address of packets to this address; [`Event::Route`] reports it. No
    /// packet is sent (connect of a UDP socket).
    FindRoute {
        /// The key of the request, which the event repeats.
        request: Key,
        /// The destination.
        to: SocketAddr,
    },
    /// Read the counters of packets that this machine dropped; [`Event::LocalDrops`] reports them.
    ReadLocalDrops,
    /// Read the token file; [`Event::TokenFile`] reports its contents.
    ReadTokenFile,
    /// Read resolv.conf and the hosts file; [`Event::NameFiles`] reports their contents.
    ReadNameFiles,
    /// Read the files in /proc about this process; [`Event::ProcessFiles`] reports their contents.
    ReadProcessFiles,
    /// Accept all connections in the queues of the listeners, then close the listeners, unless the
    /// core `keeps_listeners`.
    CloseListeners,
    /// Write one log line, given without its line end, to stderr, without blocking.
    Log(String),
    /// Show this line on the terminal at stderr in place of the previous one; an empty line clears
    /// it. The line is ASCII and has no line end. The action never blocks, and keeps its order with
    /// [`Action::Log`].
    ShowProgress(String),
    /// The core has ended: leave the loop, and exit with this code.
    Exit(u8),
    /// There is more work: poll without blocking, handle what is ready, tick, and flush again.
    Yield,
    /// There is no work before this instant (or before the next event, if `None`).
    Wait(Option<Instant>),
}

/// The transport of a socket that this process opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// SOCK_STREAM.
    Tcp,
    /// SOCK_DGRAM, connected, on a port that the kernel chooses.
    Udp,
}

/// Whether the poller may hold more events than one tick handles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backlog {
    /// Every event has been reported.
    None,
    /// There may be outcomes that are not reported yet. No probe expires before they are.
    Possible,
}

/// The time at which to check for the outcome of a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompletionCheck {
    /// Immediately after `connect`: on loopback and veth the answer comes within the call, and the
    /// socket need not be registered with the poller.
    AtOnce,
    /// Immediately only for an ICMP error; the target is too far away for another answer within the
    /// call. The poller reports all others.
    RejectionAtOnce,
    /// When the poller reports it. An ICMP error that arrives within the call is not noticed before
    /// the kernel repeats the SYN.
    Later,
}

/// The outcome of a connect. `sys` classifies the errno once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The handshake was completed with the target.
    Connected,
    /// The handshake was completed with the socket itself (a simultaneous open on loopback): no
    /// process listens on the port.
    SelfConnect,
    /// ECONNREFUSED: a RST answered the SYN.
    Refused,
    /// ETIMEDOUT: the kernel gave up before this process did.
    TimedOut,
    /// An ICMP error, the routing table or a local policy reported the target as unreachable
    /// (ENETUNREACH, EHOSTUNREACH, EPERM, …).
    Unreachable,
    /// This machine is short of a resource, which permits no conclusion about the target.
    Shortage(Shortage),
}

/// The counts of the SYN engine since the last report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SynCounts {
    /// The number of SYNs sent, including repeated ones.
    pub sent: u64,
    /// The number of SYNs that were repeated because no answer came.
    pub repeated: u64,
    /// The number of SYNs that a firewall or connection tracking of this machine dropped (EPERM).
    pub denied: u64,
    /// The number of packets for which the receive buffer had no space.
    pub overflowed: u64,
    /// The number of packets that were not answers, by reason.
    pub rejected: [u64; Reject::ALL.len()],
}

impl SynCounts {
    /// Adds further counts.
    pub fn add(&mut self, counts: &Self) {
        self.sent += counts.sent;
        self.repeated += counts.repeated;
        self.denied += counts.denied;
        self.overflowed += counts.overflowed;
        for (sum, count) in self.rejected.iter_mut().zip(counts.rejected) {
            *sum += count;
        }
    }
}

/// The local resource that was exhausted. A shortage is never the state of a port: the port waits
/// and is probed again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Shortage {
    /// EMFILE: this process has no descriptor left.
    ProcessDescriptors,
    /// ENFILE: the system has no descriptor left.
    SystemDescriptors,
    /// ENOBUFS: no buffer space.
    Buffers,
    /// ENOMEM: no kernel memory.
    Memory,
    /// EADDRNOTAVAIL: no free source port towards that address.
    SourcePorts,
    /// EAGAIN: no free source port, or the routing cache is full.
    TryAgain,
    /// The kernel's neighbour table is full: packets to an address that is not in it are dropped.
    NeighbourTable,
    /// Connection tracking of this machine is full: new connections are dropped.
    ConnectionTracking,
    /// The queue of a network interface is full: packets are dropped.
    InterfaceQueue,
    /// The receive buffer of the raw socket was full: answers were dropped.
    ReceiveBuffer,
    /// Any errno that no manual page lists for the call. It counts as an error of this machine,
    /// because to attribute it to the target would be a guess.
    Unknown,
}

impl Shortage {
    /// Every kind, in the order of the discriminants.
    pub const ALL: [Self; 11] = [
        Self::ProcessDescriptors,
        Self::SystemDescriptors,
        Self::Buffers,
        Self::Memory,
        Self::SourcePorts,
        Self::TryAgain,
        Self::NeighbourTable,
        Self::ConnectionTracking,
        Self::InterfaceQueue,
        Self::ReceiveBuffer,
        Self::Unknown,
    ];

    /// The name of the errno, or of the full table: the metric label and the word for the log.
    pub const fn label(self) -> &'static str {
        match self {
            Self::ProcessDescriptors => "EMFILE",
            Self::SystemDescriptors => "ENFILE",
            Self::Buffers => "ENOBUFS",
            Self::Memory => "ENOMEM",
            Self::SourcePorts => "EADDRNOTAVAIL",
            Self::TryAgain => "EAGAIN",
            Self::NeighbourTable => "neighbour_table",
            Self::ConnectionTracking => "conntrack",
            Self::InterfaceQueue => "interface_queue",
            Self::ReceiveBuffer => "receive_buffer",
            Self::Unknown => "other",
        }
    }
}
