//! The classification of every errno.
//!
//! This file belongs to the module `sys` and contains only pure functions. Errors about the target
//! are distinguished from errors of this machine: the state of a port never follows from a system
//! call that failed because of this machine.

use std::io;

use crate::event::{Outcome, Shortage};
use crate::kernel::IoStep;

/// The result of reading SO_ERROR. If reading it failed, nothing is known about the target.
pub(super) fn told_failure(told: io::Result<Option<io::Error>>) -> Option<Outcome> {
    match told {
        Ok(None) => None,
        Ok(Some(error)) => Some(outcome_of(&error)),
        Err(error) => Some(Outcome::Shortage(shortage_of(&error))),
    }
}

/// The result of comparing the addresses of both ends. ENOTCONN is the only errno that concerns the
/// connection. Any other errno is an error of this machine, and the poller would not report this
/// connect again.
pub(super) fn told_success<A: PartialEq>(
    peer: io::Result<A>,
    local: impl FnOnce() -> io::Result<A>,
) -> Option<Outcome> {
    let met_itself = match peer {
        Ok(peer) => local().map(|local| local == peer),
        Err(error) if error.raw_os_error() == Some(libc::ENOTCONN) => return None,
        Err(error) => Err(error),
    };
    Some(match met_itself {
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
            let told = told_failure(Err(error(errno)));
            assert_eq!(told, Some(Outcome::Shortage(shortage)), "getsockopt: {}", error(errno));
        };
        // SO_ERROR reports the same errnos for a target that cannot be reached.
        for errno in [libc::EINVAL, libc::ENOPROTOOPT, libc::ECONNREFUSED, libc::EBADF] {
            check(errno, Shortage::Unknown);
        }
        check(libc::ENOBUFS, Shortage::Buffers);
        assert_eq!(told_failure(Ok(Some(error(libc::EINVAL)))), Some(Outcome::Unreachable));
        assert_eq!(told_failure(Ok(None)), None);
    }

    #[test]
    fn a_failure_to_read_the_addresses_is_not_a_state_of_the_port() {
        let buffers = || Err(error(libc::ENOBUFS));
        let short = Some(Outcome::Shortage(Shortage::Buffers));
        assert_eq!(told_success::<u8>(buffers(), || Ok(1)), short, "getpeername");
        assert_eq!(told_success::<u8>(Ok(1), buffers), short, "getsockname");
        assert_eq!(told_success::<u8>(Err(error(libc::ENOTCONN)), || Ok(1)), None);
        assert_eq!(told_success(Ok(1), || Ok(1)), Some(Outcome::SelfConnect));
        assert_eq!(told_success(Ok(1), || Ok(2)), Some(Outcome::Connected));
    }

    #[test]
    fn a_connect_that_was_not_made_never_reports_an_open_port() {
        let outcome = outcome_of(&error(libc::EISCONN));
        assert_eq!(outcome, Outcome::Shortage(Shortage::Unknown), "no connect was made");
    }

    #[test]
    fn an_event_that_the_poller_will_not_repeat_is_distinguished_from_one_that_it_will() {
        for errno in [libc::EINTR, libc::ENOBUFS, libc::ENOMEM] {
            assert_eq!(io_failure(&error(errno)), IoStep::Retry, "{}", error(errno));
        }
        assert_eq!(io_failure(&error(libc::EAGAIN)), IoStep::WouldBlock);
        assert_eq!(io_failure(&error(libc::ECONNRESET)), IoStep::Broken);
    }
}
