//! All system calls. Every errno is classified once, here. This module decides nothing.
//!
//! It is the only module with `unsafe`. `event_loop` drives it through `kernel`, and `main` calls
//! it directly. Sockets are socket2's, always non-blocking and close-on-exec. An errno becomes an
//! [`Outcome`], a [`Shortage`] or an [`IoStep`] here, and no other module sees it.

#![expect(
    unsafe_code,
    reason = "signalfd, rlimits, poll, getrandom and descriptors passed have no safe way"
)]

pub mod capability;
mod errno;
pub mod files;
pub mod interfaces;
pub mod linux;
pub mod listeners;
pub mod lists;
pub mod neighbours;
pub mod output;
pub mod probe;
pub mod process;
pub mod raw;
pub mod terminal;

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, RawFd};
use std::path::{Path, PathBuf};

use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::event::{Outcome, RouteResult, Shortage, Signal, Transport};
use crate::interfaces::Interfaces;
use crate::kernel::{Accepted, IoStep};
use crate::limits;
use crate::packet::IpVersion;
use crate::sys::errno::{connected_outcome, io_failure, outcome_of, shortage_of, so_error_outcome};
use crate::sys::listeners::{Listener, PassedError};

/// Takes over the listeners that the service manager passed to this process (sd_listen_fds(3)),
/// which are the descriptors from 3 on. This must be called once, before this process listens on
/// any socket.
///
/// # Errors
/// A variable that is not a number; a descriptor that is not a listening stream socket.
pub fn passed_listeners(
    env: impl Fn(&str) -> Option<OsString>,
) -> Result<Vec<Listener>, PassedError> {
    let first = libc::STDERR_FILENO + 1;
    let descriptors = (first..).take(listeners::passed_count(std::process::id(), env)?);
    let adopt = |descriptor| {
        let listener = inherit(descriptor).and_then(Listener::adopt);
        listener.map_err(|error| PassedError::Descriptor(descriptor, error))
    };
    descriptors.map(adopt).collect()
}

/// Takes ownership of a descriptor with which the process was started, if it is a listening stream
/// socket.
fn inherit(descriptor: RawFd) -> io::Result<Socket> {
    // SAFETY: a number that is not a descriptor causes EBADF and has no other effect.
    check(unsafe { libc::fcntl(descriptor, libc::F_SETFD, libc::FD_CLOEXEC) })?;
    // SAFETY: the descriptor is open, as fcntl has shown, and nothing closes it while it is
    // borrowed.
    let borrowed = unsafe { BorrowedFd::borrow_raw(descriptor) };
    let socket = SockRef::from(&borrowed);
    let is_stream = socket.r#type().is_ok_and(|kind| kind == Type::STREAM);
    if !is_stream || !socket.is_listener().unwrap_or(false) {
        return Err(io::Error::other("is no listening stream socket"));
    }
    // SAFETY: this process has not opened a listener yet, so this one was inherited and has no
    // other owner.
    Ok(unsafe { Socket::from_raw_fd(descriptor) })
}

/// The address to which a socket is bound, if it is an internet address.
fn local_address(socket: &Socket) -> Option<SocketAddr> {
    socket.local_addr().ok()?.as_socket()
}

/// Takes one client from a listener's queue (accept4(2)).
fn accept(listener: &Listener) -> Accepted<Socket> {
    match listener.socket.accept4(libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC) {
        Ok((socket, peer)) => {
            // Answers are written as a whole, so there is nothing to gain from delaying the last
            // segment. A Unix socket has neither option, and on a connection that was reset
            // meanwhile both calls fail, which does not matter.
            let _ = socket.set_tcp_nodelay(true);
            let _ = socket.set_tcp_notsent_lowat(limits::UNSENT_BYTES_MAX);
            Accepted::Client(socket, peer.as_socket())
        }
        Err(error) => match error.raw_os_error() {
            Some(libc::EAGAIN) => Accepted::WouldBlock,
            // accept(2): network errors that are already pending on the new socket are returned
            // here.
            Some(
                libc::ECONNABORTED
                | libc::EINTR
                | libc::EPROTO
                | libc::ENETDOWN
                | libc::ENOPROTOOPT
                | libc::EHOSTDOWN
                | libc::ENONET
                | libc::EHOSTUNREACH
                | libc::EOPNOTSUPP
                | libc::ENETUNREACH
                | libc::EPERM
                | libc::ETIMEDOUT,
            ) => Accepted::Gone,
            _ => Accepted::Shortage(shortage_of(&error)),
        },
    }
}

/// Opens a socket and begins to connect it.
///
/// # Errors
/// The outcome, if the kernel knew it at once.
fn connect(to: SocketAddr, transport: Transport) -> Result<Socket, Outcome> {
    let (kind, protocol) = match transport {
        Transport::Tcp => (Type::STREAM, Protocol::TCP),
        Transport::Udp => (Type::DGRAM, Protocol::UDP),
    };
    let domain = Domain::for_address(to);
    let socket =
        Socket::new_raw(domain, kind.nonblocking().cloexec(), Some(protocol)).map_err(|error| {
            match error.raw_os_error() {
                // A kernel without IPv6 has no route to an IPv6 address.
                Some(libc::EAFNOSUPPORT) => Outcome::Unreachable,
                _ => Outcome::Shortage(shortage_of(&error)),
            }
        })?;
    begin_connect(&socket, to, transport).map(|()| socket)
}

/// Begins to connect a socket.
///
/// # Errors
/// The outcome, if the kernel knew it at once.
fn begin_connect(socket: &Socket, to: SocketAddr, transport: Transport) -> Result<(), Outcome> {
    match socket.connect(&to.into()) {
        Ok(()) => Ok(()),
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => Ok(()),
        Err(error) => Err(match (outcome_of(&error), transport) {
            // The connect of a datagram socket reports a shortage of ports as EAGAIN, so this
            // machine has no address towards the target, as without IPv6.
            (Outcome::Shortage(Shortage::SourcePorts), Transport::Udp) => Outcome::Unreachable,
            (Outcome::Shortage(Shortage::SourcePorts), Transport::Tcp)
                if route(to) == RouteResult::Nowhere =>
            {
                Outcome::Unreachable
            }
            (outcome, _) => outcome,
        }),
    }
}

/// Reads the error of a connect without waiting (SO_ERROR).
fn connect_failure(socket: &Socket) -> Option<Outcome> {
    so_error_outcome(socket.take_error())
}

/// The outcome of a connect whose socket the poller reports as writable and for which SO_ERROR
/// reports no error. `None` if the connect is still in progress (a spurious event).
fn connect_success(socket: &Socket) -> Option<Outcome> {
    connected_outcome(socket.peer_addr(), || socket.local_addr())
}

/// Reads at most `buffer.len()` bytes, or one datagram.
fn read(mut socket: &Socket, buffer: &mut [u8]) -> IoStep {
    match socket.read(buffer) {
        Ok(0) => IoStep::Eof,
        Ok(count) => IoStep::Done(count),
        Err(error) => io_failure(&error),
    }
}

/// Writes as much as the kernel accepts (send(2) with MSG_NOSIGNAL).
fn write(socket: &Socket, bytes: &[u8]) -> IoStep {
    match socket.send_with_flags(bytes, libc::MSG_NOSIGNAL) {
        Ok(0) => IoStep::WouldBlock,
        Ok(count) => IoStep::Done(count),
        Err(error) => io_failure(&error),
    }
}

/// Shuts down the writing half. On a connection that no longer exists this has no effect.
fn shutdown_write(socket: &Socket) {
    let _ = socket.shutdown(std::net::Shutdown::Write);
}

/// The interfaces of this machine; none if /proc is not mounted.
pub fn interfaces() -> Interfaces {
    let table = files::read_file(Path::new("/proc/net/if_inet6"), limits::NAME_FILE_BYTES_MAX);
    Interfaces::parse(&table.unwrap_or_default())
}

/// The source address that the kernel would use towards `to`. No packet is sent.
pub fn route(to: SocketAddr) -> RouteResult {
    RouteSocket::default().route(to)
}

/// The datagram socket of the last route lookup. To connect it again takes half the time of opening
/// another one.
#[derive(Debug, Default)]
struct RouteSocket(Option<(IpVersion, Socket)>);

impl RouteSocket {
    /// A route to a multicast address is for datagrams only; a TCP connect fails with ENETUNREACH.
    fn route(&mut self, to: SocketAddr) -> RouteResult {
        if to.ip().is_multicast() {
            return RouteResult::Nowhere;
        }
        let version = IpVersion::of(&to);
        // A socket that is connected again without this keeps its former source address.
        let is_usable = |it: &(_, Socket)| it.0 == version && probe::disconnect(&it.1);
        let connected = match self.0.take().filter(is_usable) {
            Some((_, socket)) => begin_connect(&socket, to, Transport::Udp).map(|()| socket),
            None => connect(to, Transport::Udp),
        };
        match connected {
            Ok(socket) => match local_address(&self.0.insert((version, socket)).1) {
                Some(local) => RouteResult::From(local.ip()),
                None => RouteResult::Unknown,
            },
            Err(Outcome::Unreachable) => RouteResult::Nowhere,
            Err(_) => RouteResult::Unknown,
        }
    }
}

/// Makes process 1 of a container behave like any other process. The kernel does not deliver
/// signals without a handler to process 1 (pid_namespaces(7)), so SIGTERM and SIGINT get a handler
/// that ends the process, until [`Signals`] takes them over. Process 1 also inherits orphaned
/// processes, for example the children of a debugging shell, which must not remain as zombies
/// (wait(2) on ignoring SIGCHLD).
pub fn set_process_1_signals() {
    if std::process::id() != 1 {
        return;
    }
    // SAFETY: the handler calls nothing but `_exit`, which signal-safety(7) permits.
    unsafe {
        let handler = end_by_signal as extern "C" fn(libc::c_int) as libc::sighandler_t;
        for signal in [libc::SIGTERM, libc::SIGINT] {
            // The call fails for signals that do not exist.
            libc::signal(signal, handler);
        }
        libc::signal(libc::SIGCHLD, libc::SIG_IGN);
    }
}

/// Ends the process with the exit code that a shell reports for a process that the signal killed.
extern "C" fn end_by_signal(signal: libc::c_int) {
    // SAFETY: `_exit` has no preconditions.
    unsafe { libc::_exit(128 + signal) }
}

/// SIGTERM, SIGINT and SIGHUP as a descriptor (signalfd(2)). SIGHUP is left out under nohup(1).
#[derive(Debug)]
pub struct Signals(File);

impl Signals {
    /// Blocks the signals for this process, so that from now on only the descriptor reports them.
    ///
    /// # Errors
    /// Errors of sigprocmask(2) and signalfd(2).
    pub fn new() -> io::Result<Self> {
        // SAFETY: `set` and `hang_up` are initialised before they are read, and outlive the calls.
        unsafe {
            // A write beyond RLIMIT_FSIZE then fails with EFBIG, like one to a full disk.
            libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
            let mut set = std::mem::zeroed::<libc::sigset_t>();
            libc::sigemptyset(&raw mut set);
            libc::sigaddset(&raw mut set, libc::SIGTERM);
            libc::sigaddset(&raw mut set, libc::SIGINT);
            let mut hang_up = std::mem::zeroed::<libc::sigaction>();
            check(libc::sigaction(libc::SIGHUP, std::ptr::null(), &raw mut hang_up))?;
            if hang_up.sa_sigaction != libc::SIG_IGN {
                libc::sigaddset(&raw mut set, libc::SIGHUP);
            }
            check(libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()))?;
            let flags = libc::SFD_NONBLOCK | libc::SFD_CLOEXEC;
            let descriptor = check(libc::signalfd(-1, &raw const set, flags))?;
            // SAFETY: the descriptor is new and has no other owner.
            Ok(Self(File::from_raw_fd(descriptor)))
        }
    }

    /// One signal that has arrived, if there is one.
    ///
    /// # Errors
    /// Errors of read(2), except that no signal is there. A signal that has arrived can still be
    /// read afterwards.
    pub fn take(&mut self) -> io::Result<Option<Signal>> {
        let mut record = [0; size_of::<libc::signalfd_siginfo>()];
        // A record is read as a whole or not at all (signalfd(2)).
        match self.0.read(&mut record) {
            Ok(count) if count == record.len() => {}
            Ok(_) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error),
        }
        // ssi_signo is the first member of the record and has 32 bits (signalfd(2)).
        let number = i32::from_ne_bytes([record[0], record[1], record[2], record[3]]);
        Ok(Some(match number {
            libc::SIGINT => Signal::Interrupt,
            libc::SIGHUP => Signal::HangUp,
            _ => Signal::Terminate,
        }))
    }
}

impl AsRawFd for Signals {
    fn as_raw_fd(&self) -> i32 {
        self.0.as_raw_fd()
    }
}

/// Raises the soft limit of descriptors to the hard limit (getrlimit(2)) and returns the limit in
/// force. If the kernel refuses, the soft limit stays as it was and is returned.
///
/// # Errors
/// Errors of getrlimit(2); none is expected.
pub fn raise_descriptor_limit() -> io::Result<usize> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` outlives both calls.
    unsafe {
        check(libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit))?;
        let raised = libc::rlimit { rlim_cur: limit.rlim_max, rlim_max: limit.rlim_max };
        if libc::setrlimit(libc::RLIMIT_NOFILE, &raw const raised) == 0 {
            limit = raised;
        }
    }
    Ok(usize::try_from(limit.rlim_cur).unwrap_or(usize::MAX))
}

/// The number of descriptors that this process has open; an estimate of 8 if /proc is not mounted.
pub fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").map_or(8, |entries| entries.count().saturating_sub(1))
}

/// The memory limit in bytes that the control groups of this process impose; `None` if there is
/// none. The memory that the kernel uses for the sockets of the process counts as well (cgroups(7),
/// memory.max).
pub fn memory_limit() -> Option<u64> {
    let groups = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let limits = groups.lines().flat_map(memory_limit_files);
    // "max" means that there is no limit.
    limits.filter_map(|file| std::fs::read_to_string(file).ok()?.trim_end().parse().ok()).min()
}

/// The files with the memory limits of a group and of the groups above it, for a line of
/// /proc/PID/cgroup. In a container, the path may be that of the host, while the group itself is
/// mounted at the root.
fn memory_limit_files(line: &str) -> Vec<PathBuf> {
    let mut fields = line.splitn(3, ':').skip(1);
    let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { return Vec::new() };
    let (root, file) = match controllers {
        "" => ("/sys/fs/cgroup", "memory.max"),
        "memory" => ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
        _ => return Vec::new(),
    };
    let groups = Path::new(path).ancestors();
    groups.map(|group| Path::new(&format!("{root}{}", group.display())).join(file)).collect()
}

/// 64 unpredictable bits (getrandom(2)).
///
/// # Errors
/// An error of getrandom(2), if the kernel or a filter does not permit the call.
pub fn random_seed() -> io::Result<u64> {
    let mut seed = [0_u8; 8];
    loop {
        // SAFETY: the kernel writes at most `seed.len()` bytes to it.
        let count = unsafe { libc::getrandom(seed.as_mut_ptr().cast(), seed.len(), 0) };
        // So few bytes are always delivered as a whole (getrandom(2)).
        if count == seed.len() as isize {
            return Ok(u64::from_ne_bytes(seed));
        }
        // A signal may interrupt the wait for the first entropy of a machine that has just started.
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// Whether a client waits in the queue of a listener.
fn has_client(listener: &Listener) -> bool {
    is_ready(listener.as_raw_fd(), libc::POLLIN)
}

/// Whether poll(2) reports one of these events for a descriptor now.
fn is_ready(descriptor: RawFd, events: i16) -> bool {
    let mut polled = libc::pollfd { fd: descriptor, events, revents: 0 };
    // SAFETY: there is one pollfd, which outlives the call. The call does not wait.
    unsafe { libc::poll(&raw mut polled, 1, 0) > 0 }
}

/// The number of bytes that stderr accepts in one call without blocking, once poll(2) reports it as
/// writable: a pipe then has space for PIPE_BUF bytes.
pub const LOG_WRITE_BYTES_MAX: usize = 4096;

/// Writes to stderr as much as it accepts at once. Other processes share stderr, so it cannot be
/// made non-blocking; instead, poll(2) checks it before each write.
fn write_log(bytes: &[u8]) -> IoStep {
    if !is_ready(libc::STDERR_FILENO, libc::POLLOUT) {
        return IoStep::WouldBlock;
    }
    match io::stderr().write(&bytes[..bytes.len().min(LOG_WRITE_BYTES_MAX)]) {
        Ok(0) => IoStep::WouldBlock,
        Ok(count) => IoStep::Done(count),
        Err(error) => io_failure(&error),
    }
}

/// The descriptor of stdout.
const STDOUT: i32 = libc::STDOUT_FILENO;

/// Writes to stdout as much as it accepts at once, as [`write_log`] does. `Eof` means that the
/// reader has closed the pipe (EPIPE; the Rust runtime ignores SIGPIPE).
fn write_stdout(bytes: &[u8]) -> IoStep {
    if !is_ready(STDOUT, libc::POLLOUT) {
        return IoStep::WouldBlock;
    }
    let len = bytes.len().min(LOG_WRITE_BYTES_MAX);
    // SAFETY: `bytes` is at least `len` bytes long. (The stdout of std would buffer incomplete
    // lines.)
    let count = unsafe { libc::write(STDOUT, bytes.as_ptr().cast(), len) };
    match usize::try_from(count) {
        Ok(0) => IoStep::WouldBlock,
        Ok(count) => IoStep::Done(count),
        Err(_) => match io::Error::last_os_error() {
            error if error.raw_os_error() == Some(libc::EPIPE) => IoStep::Eof,
            error => io_failure(&error),
        },
    }
}

/// Turns the result of a system call, which is negative if the call failed, into a `Result`.
fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_limited_by_its_own_file_and_by_those_of_its_ancestors() {
        let check = |line: &str, expected: &[&str]| {
            let files = memory_limit_files(line);
            assert_eq!(files, expected.iter().map(PathBuf::from).collect::<Vec<_>>(), "{line}");
        };
        check("0::/", &["/sys/fs/cgroup/memory.max"]);
        check(
            "0::/a/b.slice",
            &[
                "/sys/fs/cgroup/a/b.slice/memory.max",
                "/sys/fs/cgroup/a/memory.max",
                "/sys/fs/cgroup/memory.max",
            ],
        );
        check(
            "9:memory:/pod",
            &[
                "/sys/fs/cgroup/memory/pod/memory.limit_in_bytes",
                "/sys/fs/cgroup/memory/memory.limit_in_bytes",
            ],
        );
        for line in ["4:cpu,cpuacct:/pod", "1:name=systemd:/pod", "0", ""] {
            check(line, &[]);
        }
    }
}
