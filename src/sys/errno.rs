//! The classification of every errno.
//!
//! This file belongs to the module `sys` and contains only pure functions. Errors about the target
//! are distinguished from errors of this machine: the state of a port never follows from a system
//! call that failed because of this machine.

use std::io;

use crate::event::{Outcome, Shortage};
use crate::kernel::IoStep;

/// The outcome that SO_ERROR reports, for the result of reading it; `None` if there is no error. If
/// reading it failed, nothing is known about the target.
pub(super) fn so_error_outcome(read: io::Result<Option<io::Error>>) -> Option<Outcome> {
    match read {
        Ok(None) => None,
        Ok(Some(error)) => Some(outcome_of(&error)),
        Err(error) => Some(Outcome::Shortage(shortage_of(&error))),
    }
}

/// The outcome of a connect without an error, for the addresses of both ends; `None` if the socket
/// is not connected (ENOTCONN). Any other errno is an error of this machine. It is an outcome too,
/// because the poller would not report this connect again.
pub(super) fn connected_outcome<A: PartialEq>(
    peer: io::Result<A>,
    local: impl FnOnce() -> io::Result<A>,
) -> Option<Outcome> {
    let is_self = match peer {
        Ok(peer) => local().map(|local| local == peer),
        Err(error) if error.raw_os_error() == Some(libc::ENOTCONN) => return None,
        Err(error) => Err(error),
    };
    Some(match is_self {
        Ok(true) => Outcome::SelfConnect,
        Ok(false) => Outcome::Connected,
        Err(error) => Outcome::Shortage(shortage_of(&error)),
    })
}

/// The meaning of an errno of a read or a write for the connection.
pub(super) fn io_failure(error: &io::Error) -> IoStep {
    match error.raw_os_error() {
        Some(libc::EAGAIN) => IoStep::WouldBlock,
        Some(libc::EINTR | libc::ENOBUFS | libc::ENOMEM) => IoStep::Retry,
        _ => IoStep::Broken,
    }
}

/// The meaning of an errno of connect(2), or of SO_ERROR after it, for the target.
pub(super) fn outcome_of(error: &io::Error) -> Outcome {
    match error.raw_os_error() {
        // ECONNRESET and EPIPE occur only after a complete handshake (tcp_reset() in the kernel): a
        // port that accepts and resets at once is open.
        Some(libc::ECONNRESET | libc::EPIPE) => Outcome::Connected,
        Some(libc::ECONNREFUSED) => Outcome::Refused,
        Some(libc::ETIMEDOUT) => Outcome::TimedOut,
        // These are ICMP errors and routes. EACCES: a `prohibit` route; EPERM: a BPF program of the
        // control group. Both are decisions about the target: a firewall rule and full connection
        // tracking drop a SYN without an error (`tcp_connect` in the kernel). EINVAL: a link-local
        // address without a zone, a broadcast address, or a `blackhole` route.
        Some(
            libc::EHOSTUNREACH
            | libc::ENETUNREACH
            | libc::EHOSTDOWN
            | libc::ENETDOWN
            | libc::ENONET
            | libc::ENOPROTOOPT
            | libc::EPROTO
            | libc::EOPNOTSUPP
            | libc::EMSGSIZE
            | libc::EPERM
            | libc::EACCES
            | libc::EINVAL
            | libc::EAFNOSUPPORT
            | libc::ENODEV,
        ) => Outcome::Unreachable,
        _ => Outcome::Shortage(shortage_of(error)),
    }
}

/// The local shortage that an errno reports.
pub(super) fn shortage_of(error: &io::Error) -> Shortage {
    match error.raw_os_error() {
        Some(libc::EMFILE) => Shortage::ProcessDescriptors,
        Some(libc::ENFILE) => Shortage::SystemDescriptors,
        Some(libc::ENOBUFS) => Shortage::Buffers,
        Some(libc::ENOMEM) => Shortage::Memory,
        Some(libc::EADDRNOTAVAIL) => Shortage::SourcePorts,
        Some(libc::EAGAIN) => Shortage::TryAgain,
        _ => Shortage::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(errno: i32) -> io::Error {
        io::Error::from_raw_os_error(errno)
    }

    #[test]
    fn a_failure_to_read_so_error_is_not_a_state_of_the_port() {
        let check = |errno: i32, shortage: Shortage| {
            let outcome = so_error_outcome(Err(error(errno)));
            assert_eq!(outcome, Some(Outcome::Shortage(shortage)), "getsockopt: {}", error(errno));
        };
        // SO_ERROR reports the same errnos for a target that cannot be reached.
        for errno in [libc::EINVAL, libc::ENOPROTOOPT, libc::ECONNREFUSED, libc::EBADF] {
            check(errno, Shortage::Unknown);
        }
        check(libc::ENOBUFS, Shortage::Buffers);
        assert_eq!(so_error_outcome(Ok(Some(error(libc::EINVAL)))), Some(Outcome::Unreachable));
        assert_eq!(so_error_outcome(Ok(None)), None);
    }

    #[test]
    fn a_failure_to_read_the_addresses_is_not_a_state_of_the_port() {
        let buffers = || Err(error(libc::ENOBUFS));
        let short = Some(Outcome::Shortage(Shortage::Buffers));
        assert_eq!(connected_outcome::<u8>(buffers(), || Ok(1)), short, "getpeername");
        assert_eq!(connected_outcome::<u8>(Ok(1), buffers), short, "getsockname");
        assert_eq!(connected_outcome::<u8>(Err(error(libc::ENOTCONN)), || Ok(1)), None);
        assert_eq!(connected_outcome(Ok(1), || Ok(1)), Some(Outcome::SelfConnect));
        assert_eq!(connected_outcome(Ok(1), || Ok(2)), Some(Outcome::Connected));
    }

    #[test]
    fn a_connect_of_a_connected_socket_never_reports_an_open_port() {
        let outcome = outcome_of(&error(libc::EISCONN));
        assert_eq!(
            outcome,
            Outcome::Shortage(Shortage::Unknown),
            "the socket was connected before the call"
        );
    }

    #[test]
    fn an_error_after_which_the_poller_reports_nothing_is_a_retry() {
        for errno in [libc::EINTR, libc::ENOBUFS, libc::ENOMEM] {
            assert_eq!(io_failure(&error(errno)), IoStep::Retry, "{}", error(errno));
        }
        assert_eq!(io_failure(&error(libc::EAGAIN)), IoStep::WouldBlock);
        assert_eq!(io_failure(&error(libc::ECONNRESET)), IoStep::Broken);
    }
}
