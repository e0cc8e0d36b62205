//! The words between shell and core: what the world tells us, what we tell the world.
//!
//! The shell (`server`, `sys`) turns readiness and errno into [`Event`]s and performs
//! [`Action`]s; the core (`service` and below) decides. Nothing else passes between them, so a
//! simulator that speaks these two enums drives the whole service. Inputs borrow, outputs own.
//!
//! Every socket is named by a [`Key`] that the core hands out *before* the descriptor exists; an
//! event with a stale key is nobody's and is dropped.

pub mod listen;

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant, SystemTime};

use crate::slots::Key;

/// What the world tells the core.
#[derive(Debug)]
pub enum Event<'a> {
    /// Once a turn, after the sockets and before the accepts, with the wall clock of the turn.
    Tick {
        /// For `Date` and log records only; no deadline is ever computed from it.
        wall: SystemTime,
        /// How long the last turn worked, its wait excluded.
        worked: Duration,
    },
    /// A termination signal came.
    Signal(Signal),
    /// A connect asked for by [`Action::Connect`] came to its end.
    Connect {
        /// The socket of the action. It stays the core's until [`Action::Close`].
        socket: Key,
        /// What it came to.
        outcome: Outcome,
    },
    /// Bytes of a stream, or one whole datagram.
    Received {
        /// A client, or a socket opened by [`Action::Connect`].
        socket: Key,
        /// Never empty, and at most what the core's `bytes_wanted` allowed (a datagram: any size).
        bytes: &'a [u8],
    },
    /// The peer sends no more: a half-close, or gone; only writing tells which.
    ReadClosed {
        /// The stream.
        socket: Key,
    },
    /// The peer's FIN is there, behind bytes that the core does not want yet.
    Hangup {
        /// The stream.
        socket: Key,
    },
    /// Bytes of the core's `output` were taken by the kernel.
    Sent {
        /// The stream or datagram socket.
        socket: Key,
        /// How many; never 0. The whole datagram for a datagram socket.
        count: usize,
    },
    /// The socket is broken (reset, timed out, refused): nothing can be read or written any more.
    /// The core still owes the shell an [`Action::Close`].
    Broken {
        /// The socket.
        socket: Key,
    },
    /// `accept` failed for want of something of ours; the listener's queue is still there.
    AcceptFailed(Shortage),
    /// Answers [`Action::FindRoute`].
    Route {
        /// The key of the action.
        request: Key,
        /// The destination asked about.
        to: SocketAddr,
        /// What the kernel said.
        route: Route,
    },
    /// Answers [`Action::ReadTokenFile`]; `None` where it cannot be read, or everybody can.
    TokenFile(Option<&'a [u8]>),
    /// Answers [`Action::ReadNameFiles`]; a file that could not be read is `None`.
    NameFiles {
        /// The text of resolv.conf, empty where there is none.
        resolv_conf: Option<&'a [u8]>,
        /// The text of the hosts file, empty where there is none.
        hosts: Option<&'a [u8]>,
    },
    /// Stdout took bytes of the core's `printout`.
    Printed {
        /// How many; never 0.
        count: usize,
    },
    /// Stdout takes nothing more.
    PrintFailed(PrintFailure),
}

/// Why stdout takes nothing more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PrintFailure {
    /// EPIPE: whoever read has gone, as `head` does when it has enough.
    ReaderGone,
    /// Any other error: a full disk, a descriptor that was never open.
    Broken,
}

/// Whether packets to an address would leave the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// They would, from this source address.
    From(IpAddr),
    /// There is no route, or no address to send from.
    Nowhere,
    /// We ran short while asking.
    Unknown,
}

/// A termination signal, whichever of SIGTERM and SIGINT it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM.
    Terminate,
    /// SIGINT.
    Interrupt,
}

impl Signal {
    /// The signal's name, as signal(7) has it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Terminate => "SIGTERM",
            Self::Interrupt => "SIGINT",
        }
    }
}

/// What the core tells the world. The last action of every drain is [`Action::Yield`] or
/// [`Action::Wait`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Open a socket under this key and connect it; [`Event::Connect`] answers.
    Connect {
        /// The key under which the core will know it.
        socket: Key,
        /// Where to.
        to: SocketAddr,
        /// TCP, or a connected UDP socket (which is connected at once).
        transport: Transport,
        /// When to look for the outcome.
        glance: Glance,
    },
    /// The core's `output` or `bytes_wanted` for this socket changed: write what its remembered
    /// readiness permits; what can be read is read in the next turn, so that a drain ends.
    Attend(Key),
    /// Shut down the writing half, after everything written so far.
    ShutdownWrite(Key),
    /// Close the socket; its key is stale from here on. Unknown keys (a connect that failed
    /// before there was a descriptor) are ignored.
    Close {
        /// The socket.
        socket: Key,
        /// How to part.
        parting: Parting,
    },
    /// Ask which source address a packet to this address would bear; [`Event::Route`] answers.
    /// Sends no packet (connect of a UDP socket).
    FindRoute {
        /// Comes back in the event.
        request: Key,
        /// The destination.
        to: SocketAddr,
    },
    /// Read the token file; [`Event::TokenFile`] answers.
    ReadTokenFile,
    /// Read resolv.conf and the hosts file; [`Event::NameFiles`] answers.
    ReadNameFiles,
    /// Empty the listeners' queues, then close them, unless the core `keeps_listeners`.
    CloseListeners,
    /// Write one log line to stderr, without ever blocking. No line end.
    Log(String),
    /// Show this line on the terminal that stderr is, in place of the one before; an empty one
    /// wipes it. ASCII, without line end. Never blocks, in order with [`Action::Log`].
    ShowProgress(String),
    /// The core is done: leave the loop, and the process with this code.
    Exit(u8),
    /// Work is left: poll without blocking, deliver what is ready, tick, and drain again.
    Yield,
    /// Nothing to do before this instant (or before an event comes, if `None`).
    Wait(Option<Instant>),
}

/// The transport of a socket that we open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// SOCK_STREAM.
    Tcp,
    /// SOCK_DGRAM, connected, on a port of the kernel's choice.
    Udp,
}

/// When to look for a connect's outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Glance {
    /// Ask SO_ERROR right after `connect`: loopback and veth answer within the call, and the
    /// poller is then never told of the socket.
    AtOnce,
    /// Wait for the poller: the target is too far for an answer within the call.
    Later,
}

/// How to part with a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parting {
    /// `close`, in the kernel's ordinary manner.
    Ordinary,
    /// SO_LINGER 0 first: RST, no TIME_WAIT, no long close.
    Reset,
}

/// What a connect came to, as the kernel told it: errno, classified once (in `sys`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The handshake was completed with the target.
    Connected,
    /// The handshake was completed with our own socket (a simultaneous open on loopback):
    /// nobody listens there.
    MetItself,
    /// ECONNREFUSED: a RST answered the SYN.
    Refused,
    /// ETIMEDOUT: the kernel gave up before we did.
    TimedOut,
    /// ICMP, the routing table or a local policy said no (ENETUNREACH, EHOSTUNREACH, EPERM, …).
    Unreachable,
    /// We ran short of something; it says nothing about the target.
    Shortage(Shortage),
}

/// What we ran short of. Never a port's state: the port waits and is tried again.
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
    /// Any errno that no manual page lists for the call: treated as ours, since to blame the
    /// target for it would be a guess.
    Unknown,
}

impl Shortage {
    /// Every kind, in the order of its discriminant.
    pub const ALL: [Self; 7] = [
        Self::ProcessDescriptors,
        Self::SystemDescriptors,
        Self::Buffers,
        Self::Memory,
        Self::SourcePorts,
        Self::TryAgain,
        Self::Unknown,
    ];

    /// The errno's name: the metric label and the log word.
    pub const fn label(self) -> &'static str {
        match self {
            Self::ProcessDescriptors => "EMFILE",
            Self::SystemDescriptors => "ENFILE",
            Self::Buffers => "ENOBUFS",
            Self::Memory => "ENOMEM",
            Self::SourcePorts => "EADDRNOTAVAIL",
            Self::TryAgain => "EAGAIN",
            Self::Unknown => "other",
        }
    }
}
