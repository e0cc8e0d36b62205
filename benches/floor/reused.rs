//! The floor with reused sockets: after a connect has ended, its socket connects to another port.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use socket2::{Domain, SockAddr, Socket, Type};

use super::{Found, Poller, raise_descriptor_limit, reject_self_connect};

/// A socket, and the port to which it connects.
struct Slot {
    socket: Socket,
    /// `None` while the socket is idle.
    port: Option<u16>,
    is_watched: bool,
}

/// Like [`super::epoll`], but each socket probes many ports and is registered once. A second
/// `connect` returns the outcome.
pub(crate) fn reused(
    address: IpAddr,
    ports: RangeInclusive<u16>,
    deadline: Duration,
) -> io::Result<Found> {
    let in_flight_max = raise_descriptor_limit()?.clamp(64, 65_535 + 32) - 32;
    let poller = Poller::new()?;
    let (mut found, mut in_flight) = (Found::default(), 0);
    let (mut slots, mut idle): (Vec<Slot>, Vec<usize>) = (Vec::new(), Vec::new());
    let mut deadlines: VecDeque<(Instant, usize, u16)> = VecDeque::new();
    let (mut ports, mut events) = (ports.peekable(), Vec::with_capacity(1024));
    loop {
        for port in ports.by_ref().take((in_flight_max - in_flight).min(256)) {
            let index = match idle.pop() {
                Some(index) => index,
                None => {
                    let domain = Domain::for_address(SocketAddr::new(address, port));
                    let kind = Type::STREAM.nonblocking();
                    let socket = Socket::new(domain, kind, None)?;
                    slots.push(Slot { socket, port: None, is_watched: false });
                    slots.len() - 1
                }
            };
            let slot = &mut slots[index];
            slot.port = Some(port);
            in_flight += 1;
            let mut result = check(slot, address)?;
            if result.is_none() && address.is_loopback() {
                result = check(slot, address)?;
            }
            if let Some(result) = result {
                end(&mut found, slot, port, &result)?;
                in_flight -= 1;
                idle.push(index);
                continue;
            }
            if !slot.is_watched {
                poller.add(slot.socket.as_raw_fd(), index as u64)?;
                slot.is_watched = true;
            }
            deadlines.push_back((Instant::now() + deadline, index, port));
        }
        let now = Instant::now();
        while let Some(&(at, index, port)) = deadlines.front() {
            let slot = &mut slots[index];
            if slot.port == Some(port) {
                if at > now {
                    break;
                }
                found.silent += 1;
                give_up(slot)?;
                in_flight -= 1;
                idle.push(index);
            }
            deadlines.pop_front();
        }
        let next = deadlines.front().map(|(at, ..)| at.saturating_duration_since(now));
        let has_more = ports.peek().is_some() && in_flight < in_flight_max;
        let Some(timeout) = next.or(has_more.then_some(Duration::ZERO)) else {
            return Ok(found);
        };
        poller.wait(&mut events, if has_more { Duration::ZERO } else { timeout })?;
        for index in events.iter().map(|number| *number as usize) {
            let slot = &mut slots[index];
            let Some(port) = slot.port else { continue };
            if let Some(result) = check(slot, address)? {
                end(&mut found, slot, port, &result)?;
                in_flight -= 1;
                idle.push(index);
            }
        }
    }
}

fn to(address: IpAddr, port: u16) -> SockAddr {
    SockAddr::from(SocketAddr::new(address, port))
}

/// Starts a connect or checks its result. Returns `None` while it is in progress.
fn check(slot: &Slot, address: IpAddr) -> io::Result<Option<io::Result<()>>> {
    let Some(port) = slot.port else { return Ok(None) };
    let result = slot.socket.connect(&to(address, port));
    Ok(match result.as_ref().err().and_then(io::Error::raw_os_error) {
        Some(libc::EINPROGRESS | libc::EALREADY) => None,
        Some(libc::EISCONN) => Some(reject_self_connect(&slot.socket)),
        Some(_) => Some(result),
        None => Some(reject_self_connect(&slot.socket)),
    })
}

/// Counts a result, and resets the connection if there is one. After a failure the socket can be
/// used again.
fn end(found: &mut Found, slot: &mut Slot, port: u16, result: &io::Result<()>) -> io::Result<()> {
    found.count(port, result);
    match result {
        Ok(()) => give_up(slot),
        Err(_) if slot.socket.peer_addr().is_ok() => give_up(slot),
        Err(_) => {
            slot.port = None;
            Ok(())
        }
    }
}

/// Gives a connect up, or resets a connection, by a `connect` to AF_UNSPEC.
fn give_up(slot: &mut Slot) -> io::Result<()> {
    slot.port = None;
    let unspecified =
        libc::sockaddr { sa_family: libc::AF_UNSPEC as libc::sa_family_t, sa_data: [0; 14] };
    let len = size_of::<libc::sockaddr>() as libc::socklen_t;
    // SAFETY: `unspecified` is `len` bytes long and outlives the call.
    match unsafe { libc::connect(slot.socket.as_raw_fd(), &raw const unspecified, len) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
