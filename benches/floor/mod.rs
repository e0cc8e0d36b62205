//! The floor: the minimum cost of a connect scan, as three loops over the system calls. They have
//! no service, no retries and no fairness. Any cost of a scanner above the floor is its own.
//!
//! Include it with `#[path = "…/benches/floor/mod.rs"] mod floor;`.
#![allow(unsafe_code, reason = "the loops call the kernel without a layer between")]

pub(crate) mod reused;

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::ops::RangeInclusive;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use socket2::{Domain, SockAddr, Socket, Type};

/// The result of a loop. The counts add up to the number of ports.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// Ports that completed a handshake, except for self-connects.
    pub(crate) open: Vec<u16>,
    /// Refused connects and self-connects.
    pub(crate) closed: usize,
    /// Connects without an answer until their deadline.
    pub(crate) silent: usize,
    /// Connects with any other error.
    pub(crate) failed: usize,
    /// Failed connects whose end the poller reported although the socket had no error.
    pub(crate) unexplained: usize,
}

impl Found {
    fn count(&mut self, port: u16, result: &io::Result<()>) {
        match result {
            Ok(()) => self.open.push(port),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => self.closed += 1,
            Err(error) if error.kind() == io::ErrorKind::TimedOut => self.silent += 1,
            Err(_) => self.failed += 1,
        }
    }
}

/// Connects to one port after the other.
pub(crate) fn blocking(address: IpAddr, ports: RangeInclusive<u16>) -> Found {
    let mut found = Found::default();
    for port in ports {
        let result = TcpStream::connect(SocketAddr::new(address, port));
        found.count(port, &result.and_then(|stream| reject_self_connect(&stream.into())));
    }
    found
}

struct Probe {
    port: u16,
    deadline: Instant,
    /// `None` after the connect has its result.
    socket: Option<Socket>,
}

/// Non-blocking connects on one epoll, as many at once as descriptors permit. All have the same
/// `deadline`.
pub(crate) fn epoll(
    address: IpAddr,
    ports: RangeInclusive<u16>,
    deadline: Duration,
) -> io::Result<Found> {
    // Some descriptors are reserved for the poller and stdio.
    let in_flight_max = raise_descriptor_limit()?.clamp(64, 65_535 + 32) - 32;
    let poller = Poller::new()?;
    let (mut found, mut in_flight) = (Found::default(), 0);
    // Oldest first, which is the order of the deadlines. The index is the number of the connect
    // minus `first_number`.
    let mut probes: VecDeque<Probe> = VecDeque::new();
    let (mut first_number, mut ports) = (0u64, ports.peekable());
    let mut events = Vec::with_capacity(1024);
    loop {
        for port in ports.by_ref().take((in_flight_max - in_flight).min(256)) {
            let socket = start(SocketAddr::new(address, port))?;
            let socket = match outcome(&socket) {
                Some(result) => {
                    found.count(port, &result);
                    None
                }
                None => {
                    poller.add(socket.as_raw_fd(), first_number + probes.len() as u64)?;
                    in_flight += 1;
                    Some(socket)
                }
            };
            probes.push_back(Probe { port, deadline: Instant::now() + deadline, socket });
        }
        let now = Instant::now();
        while let Some(probe) = probes.front() {
            if probe.socket.is_some() {
                if probe.deadline > now {
                    break;
                }
                found.silent += 1;
                in_flight -= 1;
            }
            first_number += 1;
            probes.pop_front();
        }
        let next = probes.front().map(|probe| probe.deadline.saturating_duration_since(now));
        let has_more = ports.peek().is_some() && in_flight < in_flight_max;
        let Some(timeout) = next.or(has_more.then_some(Duration::ZERO)) else {
            return Ok(found);
        };
        poller.wait(&mut events, if has_more { Duration::ZERO } else { timeout })?;
        for number in &events {
            let place = number.checked_sub(first_number).map(|place| place as usize);
            let Some(probe) = place.and_then(|place| probes.get_mut(place)) else { continue };
            let Some(socket) = probe.socket.take() else { continue };
            let result = outcome(&socket).unwrap_or_else(|| {
                found.unexplained += 1;
                Err(io::ErrorKind::Other.into())
            });
            found.count(probe.port, &result);
            in_flight -= 1;
        }
    }
}

fn start(to: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM.nonblocking(), None)?;
    match socket.connect(&SockAddr::from(to)) {
        // Any other error is fatal, because `outcome` could not read it later. The kernel reports
        // one here only if there is no route.
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
        Ok(()) | Err(_) => Ok(socket),
    }
}

/// Returns the result of a connect, or `None` while it is in progress.
fn outcome(socket: &Socket) -> Option<io::Result<()>> {
    match socket.take_error() {
        Ok(Some(error)) | Err(error) => Some(Err(error)),
        Ok(None) if socket.peer_addr().is_ok() => Some(reject_self_connect(socket)),
        Ok(None) => None,
    }
}

/// Turns a self-connect, which can happen on loopback, into a refused connect.
fn reject_self_connect(socket: &Socket) -> io::Result<()> {
    let is_self_connect = socket.local_addr()?.as_socket() == socket.peer_addr()?.as_socket();
    if is_self_connect { Err(io::ErrorKind::ConnectionRefused.into()) } else { Ok(()) }
}

/// Raises the soft limit of descriptors to the hard limit, which is always permitted, and returns
/// the limit.
pub(crate) fn raise_descriptor_limit() -> io::Result<usize> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the `rlimit` outlives the call.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: as above.
    if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(limit.rlim_max as usize)
}

/// An edge-triggered epoll for the ends of connects.
struct Poller(OwnedFd);

impl Poller {
    fn new() -> io::Result<Self> {
        // SAFETY: the call has no pointers.
        let descriptor = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if descriptor < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was just opened and has no other owner.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(descriptor) }))
    }

    fn add(&self, socket: RawFd, number: u64) -> io::Result<()> {
        let events = (libc::EPOLLOUT | libc::EPOLLET) as u32;
        let mut event = libc::epoll_event { events, u64: number };
        let poller = self.0.as_raw_fd();
        // SAFETY: the `epoll_event` outlives the call.
        match unsafe { libc::epoll_ctl(poller, libc::EPOLL_CTL_ADD, socket, &raw mut event) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Replaces `numbers` by the numbers of connects that ended, at most 1,024 at a time.
    fn wait(&self, numbers: &mut Vec<u64>, timeout: Duration) -> io::Result<()> {
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; 1024];
        let milliseconds = timeout.as_micros().div_ceil(1000).min(60_000) as libc::c_int;
        let count = events.len() as libc::c_int;
        // SAFETY: the array has room for `count` events and outlives the call.
        let count = unsafe {
            libc::epoll_wait(self.0.as_raw_fd(), events.as_mut_ptr(), count, milliseconds)
        };
        numbers.clear();
        let Ok(count) = usize::try_from(count) else {
            let error = io::Error::last_os_error();
            let is_interrupted = error.kind() == io::ErrorKind::Interrupted;
            return if is_interrupted { Ok(()) } else { Err(error) };
        };
        numbers.extend(events[..count].iter().map(|event| event.u64));
        Ok(())
    }
}
