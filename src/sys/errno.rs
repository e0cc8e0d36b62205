//! Every errno, classified once.
//!
//! A part of the room `sys`. Pure. What a call says of the target is told from what it says of us:
//! a port's state never follows from a call of ours that failed.

use std::io;

use super::IoStep;
use crate::event::{Outcome, Shortage};

/// What SO_ERROR told. Where asking for it failed, nothing is known of the target.
pub(super) fn told_failure(told: io::Result<Option<io::Error>>) -> Option<Outcome> {
    match told {
        Ok(None) => None,
        Ok(Some(error)) => Some(outcome_of(&error)),
        Err(error) => Some(Outcome::Shortage(shortage_of(&error))),
    }
}

/// What the addresses of both ends say. ENOTCONN is the one errno that speaks of the connection;
/// any other is ours, and the poller would not tell of this connect again.
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
        Ok(true) => Outcome::MetItself,
        Ok(false) => Outcome::Connected,
        Err(error) => Outcome::Shortage(shortage_of(&error)),
    })
}

/// What an errno of a read or a write says about the connection.
pub(super) fn io_failure(error: &io::Error) -> IoStep {
    match error.raw_os_error() {
        Some(libc::EAGAIN) => IoStep::Blocked,
        Some(libc::EINTR | libc::ENOBUFS | libc::ENOMEM) => IoStep::Short,
        _ => IoStep::Broken,
    }
}

/// What an errno of connect(2), or of SO_ERROR after it, says about the target.
pub(super) fn outcome_of(error: &io::Error) -> Outcome {
    match error.raw_os_error() {
        // ECONNRESET and EPIPE come only once the handshake was completed (tcp_reset() in the
        // kernel): whoever accepts and resets at once is open.
        Some(libc::ECONNRESET | libc::EPIPE) => Outcome::Connected,
        Some(libc::ECONNREFUSED) => Outcome::Refused,
        Some(libc::ETIMEDOUT) => Outcome::TimedOut,
        // ICMP and routes; EPERM and EACCES: a firewall of this machine; EINVAL: a link-local
        // address without a zone, or a broadcast address.
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

/// What we ran short of.
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
    fn an_so_error_that_cannot_be_asked_for_is_no_state_of_the_port() {
        let check = |errno: i32, shortage: Shortage| {
            let told = told_failure(Err(error(errno)));
            assert_eq!(told, Some(Outcome::Shortage(shortage)), "getsockopt: {}", error(errno));
        };
        // The same errnos that SO_ERROR has for a target that cannot be reached.
        for errno in [libc::EINVAL, libc::ENOPROTOOPT, libc::ECONNREFUSED, libc::EBADF] {
            check(errno, Shortage::Unknown);
        }
        check(libc::ENOBUFS, Shortage::Buffers);
        assert_eq!(told_failure(Ok(Some(error(libc::EINVAL)))), Some(Outcome::Unreachable));
        assert_eq!(told_failure(Ok(None)), None);
    }

    #[test]
    fn addresses_that_cannot_be_asked_for_are_no_state_of_the_port() {
        let buffers = || Err(error(libc::ENOBUFS));
        let short = Some(Outcome::Shortage(Shortage::Buffers));
        assert_eq!(told_success::<u8>(buffers(), || Ok(1)), short, "getpeername");
        assert_eq!(told_success::<u8>(Ok(1), buffers), short, "getsockname");
        assert_eq!(told_success::<u8>(Err(error(libc::ENOTCONN)), || Ok(1)), None);
        assert_eq!(told_success(Ok(1), || Ok(1)), Some(Outcome::MetItself));
        assert_eq!(told_success(Ok(1), || Ok(2)), Some(Outcome::Connected));
    }

    #[test]
    fn a_call_that_was_not_made_leaves_no_port_open() {
        let outcome = outcome_of(&error(libc::EISCONN));
        assert_eq!(outcome, Outcome::Shortage(Shortage::Unknown), "nothing was connected yet");
    }

    #[test]
    fn what_the_poller_will_not_tell_again_is_told_apart_from_what_it_will() {
        for errno in [libc::EINTR, libc::ENOBUFS, libc::ENOMEM] {
            assert_eq!(io_failure(&error(errno)), IoStep::Short, "{}", error(errno));
        }
        assert_eq!(io_failure(&error(libc::EAGAIN)), IoStep::Blocked);
        assert_eq!(io_failure(&error(libc::ECONNRESET)), IoStep::Broken);
    }
}
