//! The system calls of the connect engine, which probes many ports with one socket.
//!
//! The behaviour of Linux (inet_stream_connect, tcp_disconnect): a second `connect` on a connecting
//! socket reports the outcome: EALREADY while there is none; the errno of a failure, after which
//! the socket can be used again; 0 or EISCONN once it is connected. `connect` to AF_UNSPEC aborts a
//! connect in progress, or resets a connection, without TIME_WAIT and without SO_LINGER.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;
use std::time::Duration;

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::check;
use super::errno::{connected_outcome, outcome_of, shortage_of};
use crate::event::{Outcome, Shortage};
use crate::kernel::{Past, ProbeStep};

/// Opens a socket for probes of one family (`Domain::IPV4` or `Domain::IPV6`), bound to `source` if
/// there is one.
///
/// # Errors
/// The outcome of a probe that needs the socket: a shortage, or an unsupported family.
pub(super) fn open(domain: Domain, source: Option<IpAddr>) -> Result<Socket, Outcome> {
    let kind = Type::STREAM.nonblocking().cloexec();
    let socket = Socket::new_raw(domain, kind, Some(Protocol::TCP)).map_err(|error| {
        match error.raw_os_error() {
            // A kernel without IPv6 has no route to an IPv6 address.
            Some(libc::EAFNOSUPPORT) => Outcome::Unreachable,
            _ => Outcome::Shortage(shortage_of(&error)),
        }
    })?;
    if let Some(source) = source {
        bind_source(&socket, source).map_err(|error| outcome_of(&error))?;
    }
    Ok(socket)
}

/// Sets the source address of a socket's packets. The port is chosen later by `connect`, which can
/// share a port between destinations (ip(7), IP_BIND_ADDRESS_NO_PORT); a kernel without this option
/// assigns a port now.
fn bind_source(socket: &Socket, source: IpAddr) -> io::Result<()> {
    let on: libc::c_int = 1;
    let len = size_of_val(&on) as libc::socklen_t;
    let (level, name) = (libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT);
    // SAFETY: the option is an integer, which outlives the call; a failure changes nothing.
    unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const on).cast(), len) };
    socket.bind(&SocketAddr::new(source, 0).into())
}

/// Begins to connect a socket.
pub(super) fn start(socket: &Socket, to: &SocketAddr, past: Past) -> ProbeStep {
    let Err(error) = socket.connect(&SockAddr::from(*to)) else { return connected(socket) };
    match error.raw_os_error() {
        Some(libc::EINPROGRESS) => ProbeStep::Pending,
        Some(libc::EALREADY | libc::EISCONN | libc::EINVAL | libc::EOPNOTSUPP)
            if past == Past::Used =>
        {
            ProbeStep::ReuseRefused
        }
        _ => ProbeStep::Over(outcome_of(&error)),
    }
}

/// Checks a connect in progress with a second one.
pub(super) fn check_connect(socket: &Socket, to: &SocketAddr) -> ProbeStep {
    let Err(error) = socket.connect(&SockAddr::from(*to)) else { return connected(socket) };
    match error.raw_os_error() {
        // EINPROGRESS: the first connect was lost without an error, and this call has begun a new
        // one.
        Some(libc::EALREADY | libc::EINPROGRESS) => ProbeStep::Pending,
        Some(libc::EISCONN) => connected(socket),
        _ => ProbeStep::Over(outcome_of(&error)),
    }
}

/// The result for a socket whose connect has succeeded: it may be connected to itself, or may have
/// been reset since.
fn connected(socket: &Socket) -> ProbeStep {
    // ENOTCONN: the connection was reset since, or never existed. Nothing is known, and the port is
    // probed again.
    let outcome = connected_outcome(socket.peer_addr(), || socket.local_addr());
    ProbeStep::Over(outcome.unwrap_or(Outcome::Shortage(Shortage::Unknown)))
}

/// Checks whether an ICMP error has rejected a connect in progress, and aborts it then.
///
/// An error that arrives during a call of `connect`, as on loopback and veth, is only stored
/// (`sk_err_soft` in `tcp_v4_err` of the kernel), while one that arrives later ends the connect.
pub(super) fn check_rejected(socket: &Socket) -> ProbeStep {
    let Some(error) = take_error(socket) else { return ProbeStep::Pending };
    // If this fails, the next connect of the socket does too, and the socket is closed.
    disconnect(socket);
    ProbeStep::Over(outcome_of(&error))
}

/// Clears the errors of earlier connects: the one that `disconnect` leaves, and below it a stored
/// one, which only SO_ERROR clears (an ICMP error, or the failure to repeat the SYN without a
/// route).
pub(super) fn clear_error(socket: &Socket) {
    if take_error(socket).is_some() {
        drop(take_error(socket));
    }
}

fn take_error(socket: &Socket) -> Option<io::Error> {
    socket.take_error().ok().flatten()
}

/// Aborts a connect, or resets a connection, and gives back the addresses of the socket
/// (connect(2), AF_UNSPEC). Returns false if the kernel refuses; the socket can then not be used
/// again.
pub(super) fn disconnect(socket: &Socket) -> bool {
    let unspecified =
        libc::sockaddr { sa_family: libc::AF_UNSPEC as libc::sa_family_t, sa_data: [0; 14] };
    let len = size_of::<libc::sockaddr>() as libc::socklen_t;
    // SAFETY: `unspecified` is `len` bytes long and outlives the call.
    let result = unsafe { libc::connect(socket.as_raw_fd(), &raw const unspecified, len) };
    check(result).is_ok()
}

/// Closes a connected socket with a RST, which avoids TIME_WAIT.
pub(super) fn reset(socket: Socket) {
    // If this fails, the socket is closed in the ordinary way, which is slower but correct.
    let _: io::Result<()> = socket.set_linger(Some(Duration::ZERO));
    drop(socket);
}
