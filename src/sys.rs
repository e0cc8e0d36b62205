//! Every system call, and every errno classified once. It decides nothing.
//!
//! The only room with `unsafe`. Driven by `server` and `main`. Sockets are socket2's, always
//! non-blocking and close-on-exec. An errno becomes an [`Outcome`], a [`Shortage`] or an
//! [`IoStep`] here and is never looked at again.

#![expect(
    unsafe_code,
    reason = "signalfd, rlimits, poll, getrandom and descriptors passed have no safe way"
)]

mod errno;
pub mod listeners;

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, RawFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, Type};

use crate::event::{Outcome, Parting, Route, Shortage, Signal, Transport};
use crate::limits;
use crate::sys::errno::{io_failure, outcome_of, shortage_of, told_failure, told_success};
use crate::sys::listeners::{Listener, PassedError};

/// What one read or write came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IoStep {
    /// So many bytes went through; never 0.
    Done(usize),
    /// The peer sends no more.
    End,
    /// Nothing to read, or no room to write: the poller will tell.
    Blocked,
    /// The call was broken off, or the kernel ran short of memory. Nothing was done, and the
    /// poller, which told of readiness once, tells of nothing: to be tried again.
    Short,
    /// The connection is gone.
    Broken,
}

/// What one accept came to.
#[derive(Debug)]
pub enum Accepted {
    /// A client. The address is `None` for a peer without one.
    Client(Socket, Option<SocketAddr>),
    /// Nobody waits.
    Blocked,
    /// This one went before we came; there may be another.
    Gone,
    /// We ran short; the queue is still there.
    Shortage(Shortage),
}

/// Takes over the listeners that the service manager passed to this process (sd_listen_fds(3)),
/// which are the descriptors from 3 on. To be called once, before anything listens.
///
/// # Errors
/// A variable that is no number; a descriptor that is no listening stream socket.
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

/// Owns a descriptor that the process was started with, if it is a listening stream socket.
fn inherit(descriptor: RawFd) -> io::Result<Socket> {
    // SAFETY: a number that is no descriptor is EBADF, and nothing else is touched.
    check(unsafe { libc::fcntl(descriptor, libc::F_SETFD, libc::FD_CLOEXEC) })?;
    // SAFETY: it is open, as fcntl said, and nothing closes it while it is borrowed.
    let borrowed = unsafe { BorrowedFd::borrow_raw(descriptor) };
    let socket = SockRef::from(&borrowed);
    let is_stream = socket.r#type().is_ok_and(|kind| kind == Type::STREAM);
    if !is_stream || !socket.is_listener().unwrap_or(false) {
        return Err(io::Error::other("is no listening stream socket"));
    }
    // SAFETY: nothing of ours listens yet, so that this one came with the process and is nobody's.
    Ok(unsafe { Socket::from_raw_fd(descriptor) })
}

/// The address a socket is bound to, if it is one of the internet's.
fn local_address(socket: &Socket) -> Option<SocketAddr> {
    socket.local_addr().ok()?.as_socket()
}

/// Takes one client from a listener's queue (accept4(2)).
pub fn accept(listener: &Listener) -> Accepted {
    match listener.socket.accept4(libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC) {
        Ok((socket, peer)) => {
            // Answers are written whole, so delaying the last segment for more gains nothing. A
            // Unix socket has neither option, and a connection reset by now none to set.
            let _ = socket.set_tcp_nodelay(true);
            let _ = socket.set_tcp_notsent_lowat(limits::UNSENT_BYTES_MAX);
            Accepted::Client(socket, peer.as_socket())
        }
        Err(error) => match error.raw_os_error() {
            Some(libc::EAGAIN) => Accepted::Blocked,
            // accept(2): network errors already pending on the new socket are passed on here.
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
/// The outcome, where the kernel knew it at once.
pub fn connect(to: &SockAddr, transport: Transport) -> Result<Socket, Outcome> {
    let (kind, protocol) = match transport {
        Transport::Tcp => (Type::STREAM, Protocol::TCP),
        Transport::Udp => (Type::DGRAM, Protocol::UDP),
    };
    let domain = Domain::from(i32::from(to.family()));
    let socket =
        Socket::new_raw(domain, kind.nonblocking().cloexec(), Some(protocol)).map_err(|error| {
            match error.raw_os_error() {
                // A kernel without IPv6 has no way to an IPv6 address.
                Some(libc::EAFNOSUPPORT) => Outcome::Unreachable,
                _ => Outcome::Shortage(shortage_of(&error)),
            }
        })?;
    match socket.connect(to) {
        Ok(()) => Ok(socket),
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => Ok(socket),
        Err(error) => Err(outcome_of(&error)),
    }
}

/// Looks for a connect's failure without waiting (SO_ERROR).
pub fn failure(socket: &Socket) -> Option<Outcome> {
    told_failure(socket.take_error())
}

/// What a connect came to that the poller calls writable and SO_ERROR does not call failed.
/// `None` if it is still on its way (a spurious event).
pub fn success(socket: &Socket) -> Option<Outcome> {
    told_success(socket.peer_addr(), || socket.local_addr())
}

/// Reads at most `buffer.len()` bytes, or one datagram.
pub fn read(mut socket: &Socket, buffer: &mut [u8]) -> IoStep {
    match socket.read(buffer) {
        Ok(0) => IoStep::End,
        Ok(count) => IoStep::Done(count),
        Err(error) => io_failure(&error),
    }
}

/// Writes as much as the kernel takes (send(2) with MSG_NOSIGNAL).
pub fn write(socket: &Socket, bytes: &[u8]) -> IoStep {
    match socket.send_with_flags(bytes, libc::MSG_NOSIGNAL) {
        Ok(0) => IoStep::Blocked,
        Ok(count) => IoStep::Done(count),
        Err(error) => io_failure(&error),
    }
}

/// Shuts down the writing half; a connection that is gone already needs none.
pub fn shutdown_write(socket: &Socket) {
    let _ = socket.shutdown(std::net::Shutdown::Write);
}

/// Closes a socket. `close` frees the descriptor whatever it returns (close(2), Linux).
pub fn close(socket: Socket, parting: Parting) {
    match parting {
        Parting::Ordinary => {}
        // A failure leaves an ordinary close: slower, not wrong.
        Parting::Reset => drop(socket.set_linger(Some(Duration::ZERO))),
    }
    drop(socket);
}

/// Which source address the kernel would use towards `to`; sends nothing.
pub fn route(to: SocketAddr) -> Route {
    match connect(&to.into(), Transport::Udp) {
        Ok(socket) => match local_address(&socket) {
            Some(local) => Route::From(local.ip()),
            None => Route::Unknown,
        },
        Err(Outcome::Shortage(Shortage::SourcePorts) | Outcome::Unreachable) => Route::Nowhere,
        Err(_) => Route::Unknown,
    }
}

/// Process 1 of a container is spared what ends any other: a signal that it has no handler for
/// never reaches it (pid_namespaces(7)). So SIGTERM and SIGINT get one that ends it as they would
/// have, until [`Signals`] takes them over. And it inherits what others leave behind, a debugging
/// shell's children for example: those must not stay as zombies (wait(2) on ignoring SIGCHLD).
pub fn stand_as_process_1() {
    if std::process::id() != 1 {
        return;
    }
    // SAFETY: the handler calls nothing but `_exit`, which signal-safety(7) allows.
    unsafe {
        let handler = end_by_signal as extern "C" fn(libc::c_int) as libc::sighandler_t;
        for signal in [libc::SIGTERM, libc::SIGINT] {
            // It fails for signals that do not exist.
            libc::signal(signal, handler);
        }
        libc::signal(libc::SIGCHLD, libc::SIG_IGN);
    }
}

/// The exit code is the one that a shell gives to a process that the signal killed.
extern "C" fn end_by_signal(signal: libc::c_int) {
    // SAFETY: `_exit` has no preconditions.
    unsafe { libc::_exit(128 + signal) }
}

/// SIGTERM and SIGINT as a descriptor (signalfd(2)).
#[derive(Debug)]
pub struct Signals(File);

impl Signals {
    /// Blocks both signals for this process, so that from here on only the descriptor tells.
    ///
    /// # Errors
    /// sigprocmask(2) and signalfd(2).
    pub fn new() -> io::Result<Self> {
        // SAFETY: `set` is initialised by sigemptyset before it is read, and outlives the calls.
        unsafe {
            let mut set = std::mem::zeroed::<libc::sigset_t>();
            libc::sigemptyset(&raw mut set);
            libc::sigaddset(&raw mut set, libc::SIGTERM);
            libc::sigaddset(&raw mut set, libc::SIGINT);
            check(libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()))?;
            let flags = libc::SFD_NONBLOCK | libc::SFD_CLOEXEC;
            let descriptor = check(libc::signalfd(-1, &raw const set, flags))?;
            // SAFETY: the descriptor is new and nobody else's.
            Ok(Self(File::from_raw_fd(descriptor)))
        }
    }

    /// One signal that came, if one did.
    ///
    /// # Errors
    /// read(2), other than that none came: the signal, if there is one, is still to be taken.
    pub fn take(&mut self) -> io::Result<Option<Signal>> {
        let mut record = [0; size_of::<libc::signalfd_siginfo>()];
        // A record comes whole or not at all (signalfd(2)).
        match self.0.read(&mut record) {
            Ok(count) if count == record.len() => {}
            Ok(_) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error),
        }
        // ssi_signo is the record's first member, 32 bits (signalfd(2)).
        let number = i32::from_ne_bytes([record[0], record[1], record[2], record[3]]);
        let is_interrupt = number == libc::SIGINT;
        Ok(Some(if is_interrupt { Signal::Interrupt } else { Signal::Terminate }))
    }
}

impl AsRawFd for Signals {
    fn as_raw_fd(&self) -> i32 {
        self.0.as_raw_fd()
    }
}

/// Raises the soft limit of descriptors to the hard one (getrlimit(2)) and returns what is in
/// force. A refusal leaves the soft limit, which is returned then.
///
/// # Errors
/// getrlimit(2), which has no reason to fail.
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

/// How many descriptors this process has open now; a guess of 8 where /proc is not mounted.
pub fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").map_or(8, |entries| entries.count().saturating_sub(1))
}

/// The bytes of memory that this process's control groups leave it; `None` where there are none.
/// What the kernel keeps for its sockets counts as well (cgroups(7), memory.max).
pub fn memory_limit() -> Option<u64> {
    let groups = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let limits = groups.lines().flat_map(memory_limit_files);
    // "max" stands for none.
    limits.filter_map(|file| std::fs::read_to_string(file).ok()?.trim_end().parse().ok()).min()
}

/// The files that limit the memory of a group and of those above it, for a line of
/// /proc/PID/cgroup. A container may see the host's path and yet its own group at the root.
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

/// The first `bytes_max` bytes of a file, none of one that is not there; `None` if it cannot be
/// read, so that nothing is known of it.
pub fn read_file(path: &Path, bytes_max: usize) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    match File::open(path) {
        Ok(file) => drop(file.take(bytes_max as u64).read_to_end(&mut bytes).ok()?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(_) => return None,
    }
    Some(bytes)
}

/// A list of targets, read to its end.
///
/// # Errors
/// read(2), and a list of more than [`limits::TARGETS_BYTES_MAX`] bytes.
pub fn read_list(source: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    source.take(limits::TARGETS_BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > limits::TARGETS_BYTES_MAX {
        return Err(io::Error::other("the list is longer than 64 MB: cut it in two"));
    }
    Ok(bytes)
}

/// The text of a file that is nobody's business.
///
/// # Errors
/// open(2) and read(2); or the file can be read by everybody on the machine.
pub fn read_secret(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = File::open(path)?;
    if file.metadata()?.permissions().mode() & 0o004 != 0 {
        return Err(io::Error::other("everybody can read it: chmod o-r"));
    }
    file.take(SECRET_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Bytes of a secret that are read; more than a token has.
const SECRET_BYTES_MAX: u64 = 4096;

/// Whether a file can be read. One that the system may lack (a container without names) need not
/// be there; one that somebody named must.
///
/// # Errors
/// open(2) and read(2).
pub fn check_readable(path: &Path) -> io::Result<()> {
    let is_systems = [RESOLV_CONF, HOSTS].iter().any(|known| path == Path::new(known));
    match File::open(path).and_then(|mut file| file.read(&mut [0])) {
        Err(error) if is_systems && error.kind() == io::ErrorKind::NotFound => Ok(()),
        opened => opened.map(drop),
    }
}

/// Where resolv.conf(5) is.
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// Where hosts(5) is.
const HOSTS: &str = "/etc/hosts";

/// 64 bits that nobody can guess (getrandom(2)).
///
/// # Errors
/// getrandom(2): a kernel or a filter without the call.
pub fn random_seed() -> io::Result<u64> {
    let mut seed = [0_u8; 8];
    loop {
        // SAFETY: the kernel writes at most `seed.len()` bytes to it.
        let count = unsafe { libc::getrandom(seed.as_mut_ptr().cast(), seed.len(), 0) };
        // So few bytes come whole, if they come (getrandom(2)).
        if count == seed.len() as isize {
            return Ok(u64::from_ne_bytes(seed));
        }
        // A signal may break off the wait for the first entropy of a machine that has just begun.
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// True exactly when a client waits in a listener's queue.
pub fn has_client(listener: &Listener) -> bool {
    is_ready(listener.as_raw_fd(), libc::POLLIN)
}

fn is_ready(descriptor: RawFd, events: i16) -> bool {
    let mut asked = libc::pollfd { fd: descriptor, events, revents: 0 };
    // SAFETY: one pollfd, which outlives the call; no wait.
    unsafe { libc::poll(&raw mut asked, 1, 0) > 0 }
}

/// Bytes that stderr takes in one call without blocking, once poll(2) calls it writable: a pipe
/// then has room for PIPE_BUF.
pub const LOG_WRITE_BYTES_MAX: usize = 4096;

/// Writes to stderr what it takes at once. stderr is shared with other processes, so it cannot be
/// made non-blocking; it is asked before each write instead.
pub fn write_log(bytes: &[u8]) -> IoStep {
    if !is_ready(libc::STDERR_FILENO, libc::POLLOUT) {
        return IoStep::Blocked;
    }
    match io::stderr().write(&bytes[..bytes.len().min(LOG_WRITE_BYTES_MAX)]) {
        Ok(0) => IoStep::Blocked,
        Ok(count) => IoStep::Done(count),
        Err(error) => io_failure(&error),
    }
}

/// The descriptor of stdout.
pub const STDOUT: i32 = libc::STDOUT_FILENO;

/// Writes to stdout what it takes at once, as [`write_log`] does. `End`: nobody reads on (EPIPE;
/// the Rust runtime ignores SIGPIPE).
pub fn write_stdout(bytes: &[u8]) -> IoStep {
    if !is_ready(STDOUT, libc::POLLOUT) {
        return IoStep::Blocked;
    }
    let len = bytes.len().min(LOG_WRITE_BYTES_MAX);
    // SAFETY: `bytes` is `len` bytes long at least. (std's own stdout would keep half lines.)
    let count = unsafe { libc::write(STDOUT, bytes.as_ptr().cast(), len) };
    match usize::try_from(count) {
        Ok(0) => IoStep::Blocked,
        Ok(count) => IoStep::Done(count),
        Err(_) => match io::Error::last_os_error() {
            error if error.raw_os_error() == Some(libc::EPIPE) => IoStep::End,
            error => io_failure(&error),
        },
    }
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_limited_by_its_own_file_and_by_those_above_it() {
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
