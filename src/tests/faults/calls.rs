//! The system calls that the service makes, and every errno that the manual page of each call
//! lists.
//!
//! Errnos that ip(7), tcp(7), udp(7), unix(7) and socket(7) add are listed with the calls that
//! return them. `strace -c` over a run that uses every feature shows no other system call that
//! waits for an event or requests something from the kernel.

use crate::seccomp::Notice;
use crate::supervisor::Process;

/// An errno with its name.
pub(crate) type Errno = (&'static str, i32);

macro_rules! errnos {
    ($($name:ident)*) => { &[$((stringify!($name), libc::$name)),*] };
}

/// A system call that is made for one purpose.
#[derive(Debug)]
pub(crate) struct Call {
    /// The name of the call in reports.
    pub(crate) name: &'static str,
    /// The system call number, one of `libc::SYS_*`.
    pub(crate) number: i64,
    /// Returns whether this call is made for this purpose.
    pub(crate) applies: fn(&Notice, &Process) -> bool,
    /// The errnos that its manual pages list.
    pub(crate) errnos: &'static [Errno],
}

const fn call(
    name: &'static str,
    number: i64,
    applies: fn(&Notice, &Process) -> bool,
    errnos: &'static [Errno],
) -> Call {
    Call { name, number, applies, errnos }
}

fn any(_: &Notice, _: &Process) -> bool {
    true
}

/// The numbers differ between architectures: libc calls `ppoll` where the kernel has no `poll`.
#[cfg(target_arch = "x86_64")]
const POLL: i64 = libc::SYS_poll;
#[cfg(not(target_arch = "x86_64"))]
const POLL: i64 = libc::SYS_ppoll;
#[cfg(target_arch = "x86_64")]
pub(crate) const EPOLL_WAIT: i64 = libc::SYS_epoll_wait;
#[cfg(not(target_arch = "x86_64"))]
pub(crate) const EPOLL_WAIT: i64 = libc::SYS_epoll_pwait;
#[cfg(target_arch = "x86_64")]
const UNLINK: i64 = libc::SYS_unlink;
#[cfg(not(target_arch = "x86_64"))]
const UNLINK: i64 = libc::SYS_unlinkat;
#[cfg(target_arch = "x86_64")]
const RENAME: i64 = libc::SYS_rename;
#[cfg(not(target_arch = "x86_64"))]
const RENAME: i64 = libc::SYS_renameat;
#[cfg(target_arch = "x86_64")]
const CHMOD: i64 = libc::SYS_chmod;
#[cfg(not(target_arch = "x86_64"))]
const CHMOD: i64 = libc::SYS_fchmodat;

const ACCEPT: &[Errno] = errnos![
    EAGAIN EBADF ECONNABORTED EFAULT EINTR EINVAL EMFILE ENFILE ENOBUFS ENOMEM ENOTSOCK EOPNOTSUPP
    EPERM EPROTO ENETDOWN ENOPROTOOPT EHOSTDOWN ENONET EHOSTUNREACH ENETUNREACH ENOSR
    ESOCKTNOSUPPORT EPROTONOSUPPORT ETIMEDOUT
];

const CONNECT: &[Errno] = errnos![
    EACCES EPERM EADDRINUSE EADDRNOTAVAIL EAFNOSUPPORT EAGAIN EALREADY EBADF ECONNREFUSED EFAULT
    EINTR EISCONN ENETUNREACH ENOTSOCK EPROTOTYPE ETIMEDOUT EHOSTUNREACH EHOSTDOWN ENETDOWN ENONET
    ENOPROTOOPT EPROTO EOPNOTSUPP ENODEV EINVAL ENOBUFS ENOMEM EMFILE ENFILE ECONNRESET
    ECONNABORTED EPIPE
];

/// The calls of a running service on sockets, on the poller and on the log.
pub(crate) const RUNNING: &[Call] = &[
    call("accept4", libc::SYS_accept4, any, ACCEPT),
    call(
        "socket",
        libc::SYS_socket,
        any,
        errnos![EACCES EAFNOSUPPORT EINVAL EMFILE ENFILE ENOBUFS ENOMEM EPROTONOSUPPORT EPERM],
    ),
    call("connect of TCP", libc::SYS_connect, Process::is_stream, CONNECT),
    // These sockets belong to name servers and to route lookups.
    call("connect of UDP", libc::SYS_connect, Process::is_datagrams, CONNECT),
    call("getpeername", libc::SYS_getpeername, any, errnos![EBADF EFAULT EINVAL ENOBUFS ENOTSOCK]),
    call("getsockname", libc::SYS_getsockname, any, errnos![EBADF EFAULT EINVAL ENOBUFS ENOTSOCK]),
    call(
        "setsockopt",
        libc::SYS_setsockopt,
        any,
        errnos![EBADF EFAULT EINVAL ENOPROTOOPT ENOTSOCK ENOMEM ENOBUFS EPERM],
    ),
    call(
        "recvfrom",
        libc::SYS_recvfrom,
        any,
        errnos![
            EAGAIN EBADF ECONNREFUSED EFAULT EINTR EINVAL ENOMEM ENOTCONN ENOTSOCK ECONNRESET
            ETIMEDOUT ENOBUFS EHOSTUNREACH
        ],
    ),
    call(
        "sendto",
        libc::SYS_sendto,
        any,
        errnos![
            EACCES EAGAIN EALREADY EBADF ECONNRESET EDESTADDRREQ EFAULT EINTR EINVAL EISCONN
            EMSGSIZE ENOBUFS ENOMEM ENOTCONN ENOTSOCK EOPNOTSUPP EPIPE EPERM ENETUNREACH
            EHOSTUNREACH ECONNREFUSED ENETDOWN
        ],
    ),
    call("shutdown", libc::SYS_shutdown, any, errnos![EBADF EINVAL ENOTCONN ENOTSOCK]),
    call(
        "close",
        libc::SYS_close,
        |notice, process| process.link(notice.descriptor()).starts_with("socket:"),
        errnos![EBADF EINTR EIO ENOSPC EDQUOT],
    ),
    call(
        "epoll_ctl",
        libc::SYS_epoll_ctl,
        any,
        errnos![EBADF EEXIST EINVAL ELOOP ENOENT ENOMEM ENOSPC EPERM],
    ),
    call("epoll_wait", EPOLL_WAIT, any, errnos![EINTR]),
    call(
        "write of the log",
        libc::SYS_write,
        |notice, _| notice.descriptor() == libc::STDERR_FILENO,
        WRITE,
    ),
    call("poll of the log", POLL, any, errnos![EFAULT EINTR EINVAL ENOMEM]),
];

/// The calls on files while the service runs.
pub(crate) const FILES: &[Call] = &[
    call(
        "open of resolv.conf",
        libc::SYS_openat,
        |notice, process| process.text(notice.args[1]).ends_with("resolv.conf"),
        OPEN,
    ),
    call(
        "open of hosts",
        libc::SYS_openat,
        |notice, process| process.text(notice.args[1]).ends_with("hosts"),
        OPEN,
    ),
    call(
        "open of the token",
        libc::SYS_openat,
        |notice, process| process.text(notice.args[1]).ends_with("token"),
        OPEN,
    ),
    call(
        "read of resolv.conf",
        libc::SYS_read,
        |notice, process| process.link(notice.descriptor()).ends_with("resolv.conf"),
        READ,
    ),
    call(
        "read of hosts",
        libc::SYS_read,
        |notice, process| process.link(notice.descriptor()).ends_with("hosts"),
        READ,
    ),
    call(
        "read of the token",
        libc::SYS_read,
        |notice, process| process.link(notice.descriptor()).ends_with("token"),
        READ,
    ),
    call("stat of a file", libc::SYS_statx, any, STAT),
];

/// The read of a signal from the signalfd.
pub(crate) const SIGNAL: Call = call(
    "read of a signal",
    libc::SYS_read,
    |notice, process| process.link(notice.descriptor()).contains("signalfd"),
    READ,
);

/// The write of the result of the command `scan`.
pub(crate) const PRINTING: Call = call(
    "write of the output",
    libc::SYS_write,
    |notice, _| notice.descriptor() == libc::STDOUT_FILENO,
    WRITE,
);

/// The call that replaces the file of `-o` with the output of the command `scan`.
pub(crate) const RENAMING: Call = call(
    "rename of the output",
    RENAME,
    any,
    errnos![
        EACCES EBUSY EDQUOT EFAULT EINVAL EISDIR ELOOP EMLINK ENAMETOOLONG ENOENT ENOMEM ENOSPC
        ENOTDIR ENOTEMPTY EPERM EROFS EXDEV
    ],
);

/// The calls that only the start of the service makes, as far as they have one purpose.
pub(crate) const STARTING: &[Call] = &[
    call("rt_sigprocmask", libc::SYS_rt_sigprocmask, any, errnos![EFAULT EINVAL]),
    call("signalfd4", libc::SYS_signalfd4, any, errnos![EBADF EINVAL EMFILE ENFILE ENODEV ENOMEM]),
    call("prlimit64", libc::SYS_prlimit64, any, errnos![EFAULT EINVAL EPERM ESRCH]),
    call(
        "bind",
        libc::SYS_bind,
        any,
        errnos![
            EACCES EADDRINUSE EBADF EINVAL ENOTSOCK EADDRNOTAVAIL EFAULT ELOOP ENAMETOOLONG ENOENT
            ENOMEM ENOTDIR EROFS
        ],
    ),
    call("listen", libc::SYS_listen, any, errnos![EADDRINUSE EBADF ENOTSOCK EOPNOTSUPP]),
    call("getrandom", libc::SYS_getrandom, any, errnos![EAGAIN EFAULT EINTR EINVAL ENOSYS]),
    call("epoll_create1", libc::SYS_epoll_create1, any, errnos![EINVAL EMFILE ENFILE ENOMEM]),
    call("epoll_wait", EPOLL_WAIT, any, errnos![EBADF EFAULT EINTR EINVAL]),
    call("getdents64", libc::SYS_getdents64, any, errnos![EBADF EFAULT EINVAL ENOENT ENOTDIR]),
    call(
        "chmod",
        CHMOD,
        any,
        errnos![EACCES EFAULT EIO ELOOP ENAMETOOLONG ENOENT ENOMEM ENOTDIR EPERM EROFS],
    ),
    call(
        "unlink",
        UNLINK,
        any,
        errnos![
            EACCES EBUSY EFAULT EIO EISDIR ELOOP ENAMETOOLONG ENOENT ENOMEM ENOTDIR EPERM EROFS
        ],
    ),
    call("open", libc::SYS_openat, any, OPEN),
    call("read", libc::SYS_read, any, READ),
    call("statx", libc::SYS_statx, any, STAT),
];

const OPEN: &[Errno] = errnos![
    EACCES EBADF EBUSY EDQUOT EEXIST EFAULT EFBIG EINTR EINVAL EISDIR ELOOP EMFILE ENAMETOOLONG
    ENFILE ENODEV ENOENT ENOMEM ENOSPC ENOTDIR ENXIO EOPNOTSUPP EOVERFLOW EPERM EROFS ETXTBSY
    EWOULDBLOCK EIO
];
const WRITE: &[Errno] =
    errnos![EAGAIN EBADF EDESTADDRREQ EDQUOT EFAULT EFBIG EINTR EINVAL EIO ENOSPC EPERM EPIPE];
const READ: &[Errno] = errnos![EAGAIN EBADF EFAULT EINTR EINVAL EIO EISDIR];
const STAT: &[Errno] = errnos![EACCES EBADF EFAULT EINVAL ELOOP ENAMETOOLONG ENOENT ENOMEM ENOTDIR];

/// The runtime of `std` makes this call for its overflow stack directly before `main` begins.
pub(crate) const MAIN_BEGINS: i64 = libc::SYS_sigaltstack;

/// The numbers of all calls that the filter must report to the supervisor.
pub(crate) fn numbers() -> Vec<i64> {
    let calls = RUNNING.iter().chain(FILES).chain(STARTING).chain([&RENAMING]);
    let mut numbers: Vec<i64> = calls.map(|call| call.number).chain([MAIN_BEGINS]).collect();
    numbers.sort_unstable();
    numbers.dedup();
    numbers
}
