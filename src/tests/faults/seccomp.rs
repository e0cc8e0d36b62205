//! The user notification of seccomp (seccomp_unotify(2)): each system call of a child waits for a
//! decision of this program.
//!
//! This module makes no decisions. It installs the filter between fork and exec, so the tested
//! binary is the one that is shipped, without a debugger. It needs no privileges:
//! PR_SET_NO_NEW_PRIVS only removes privileges from the child.
#![allow(
    unsafe_code,
    reason = "seccomp, pidfds and the passing of descriptors have no safe wrapper"
)]

use std::fs::File;
use std::io;
use std::mem::{offset_of, zeroed};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};

/// A system call that waits for a decision.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Notice {
    id: u64,
    /// The system call number, one of `libc::SYS_*`.
    pub(crate) call: i64,
    pub(crate) args: [u64; 6],
}

impl Notice {
    /// The descriptor that is the first argument of the call.
    pub(crate) const fn descriptor(&self) -> RawFd {
        self.args[0] as RawFd
    }
}

/// The decision about a call that waits.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Decision {
    /// The kernel executes the call.
    Continue,
    /// The kernel does not execute the call, which fails with this errno.
    Fail(i32),
    /// The kernel does not execute the call, which returns this value.
    Return(i64),
}

/// The error where the user notification is not available. Its text is for a person.
#[derive(Debug)]
pub(crate) struct Unavailable(io::Error);

impl std::fmt::Display for Unavailable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "seccomp's user notification is not available here: {}", self.0)
    }
}

impl std::error::Error for Unavailable {}

/// The descriptor that reports the calls of one child.
#[derive(Debug)]
pub(crate) struct Calls(OwnedFd);

/// Starts a command whose calls with these numbers wait for a decision.
///
/// It fails if the kernel or the container does not permit this.
pub(crate) fn spawn(command: &mut Command, numbers: &[i64]) -> Result<(Child, Calls), Unavailable> {
    try_spawn(command, numbers).map_err(Unavailable)
}

fn try_spawn(command: &mut Command, numbers: &[i64]) -> io::Result<(Child, Calls)> {
    let mut filter = filter(numbers);
    let (receiver, sender) = UnixStream::pair()?;
    // SAFETY: only system calls are made between fork and exec, on memory that was allocated
    // before.
    unsafe {
        command.pre_exec(move || {
            let listener = install(&mut filter)?;
            send_descriptor(sender.as_raw_fd(), listener)
        });
    }
    let child = command.spawn()?;
    Ok((child, Calls(receive_descriptor(receiver.as_raw_fd())?)))
}

/// A filter program that reports calls with these numbers and lets all other calls pass.
fn filter(numbers: &[i64]) -> Vec<libc::sock_filter> {
    let load = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    let equal = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    let end = (libc::BPF_RET | libc::BPF_K) as u16;
    let place = offset_of!(libc::seccomp_data, nr) as u32;
    let step = |code, jt, k| libc::sock_filter { code, jt, jf: 0, k };
    let mut filter = vec![step(load, 0, place)];
    for (index, number) in numbers.iter().enumerate() {
        // The jump skips the remaining comparisons and the instruction that lets the call pass.
        let jump =
            u8::try_from(numbers.len() - index).expect("the filter has fewer than 256 calls");
        filter.push(step(equal, jump, *number as u32));
    }
    filter.push(step(end, 0, libc::SECCOMP_RET_ALLOW));
    filter.push(step(end, 0, libc::SECCOMP_RET_USER_NOTIF));
    filter
}

/// Installs the filter for this process; returns the descriptor that reports its calls.
fn install(filter: &mut [libc::sock_filter]) -> io::Result<RawFd> {
    let program =
        libc::sock_fprog { len: filter.len() as libc::c_ushort, filter: filter.as_mut_ptr() };
    // SAFETY: the program and the filter outlive the calls, which read them.
    unsafe {
        check(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0).into())?;
        check(libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_NEW_LISTENER,
            &raw const program,
        ))
        .map(|descriptor| descriptor as RawFd)
    }
}

/// Space for one descriptor in a control message, aligned as the message header requires.
#[repr(C)]
union Control {
    header: libc::cmsghdr,
    bytes: [u8; 64],
}

/// Calls `act` with a message of one byte that has space for one descriptor.
fn with_message<T>(act: impl FnOnce(&mut libc::msghdr) -> T) -> T {
    let mut byte = [0_u8];
    let mut part = libc::iovec { iov_base: byte.as_mut_ptr().cast(), iov_len: 1 };
    let mut control = Control { bytes: [0; 64] };
    // SAFETY: all zeroes is a valid `msghdr`; CMSG_SPACE only computes.
    let (mut message, space) =
        unsafe { (zeroed::<libc::msghdr>(), libc::CMSG_SPACE(size_of::<RawFd>() as u32)) };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = (&raw mut control).cast();
    message.msg_controllen = space as _;
    act(&mut message)
}

fn send_descriptor(socket: RawFd, descriptor: RawFd) -> io::Result<()> {
    with_message(|message| {
        // SAFETY: the message's control bytes have space for a header and one descriptor.
        unsafe {
            let header = libc::CMSG_FIRSTHDR(message);
            (*header).cmsg_level = libc::SOL_SOCKET;
            (*header).cmsg_type = libc::SCM_RIGHTS;
            (*header).cmsg_len = libc::CMSG_LEN(size_of::<RawFd>() as u32) as _;
            libc::CMSG_DATA(header).cast::<RawFd>().write_unaligned(descriptor);
            check(libc::sendmsg(socket, message, 0) as i64).map(drop)
        }
    })
}

fn receive_descriptor(socket: RawFd) -> io::Result<OwnedFd> {
    with_message(|message| {
        // SAFETY: as above; the descriptor is new here, and no other owner exists.
        unsafe {
            check(libc::recvmsg(socket, message, libc::MSG_CMSG_CLOEXEC) as i64)?;
            let header = libc::CMSG_FIRSTHDR(message);
            if header.is_null() {
                return Err(io::Error::other("no descriptor came"));
            }
            let descriptor = libc::CMSG_DATA(header).cast::<RawFd>().read_unaligned();
            Ok(OwnedFd::from_raw_fd(descriptor))
        }
    })
}

impl Calls {
    /// Waits for the next call; `None` when the process has ended.
    pub(crate) fn next(&self) -> Option<Notice> {
        loop {
            let mut poll =
                libc::pollfd { fd: self.0.as_raw_fd(), events: libc::POLLIN, revents: 0 };
            // SAFETY: one pollfd, which outlives the call.
            let ready = unsafe { libc::poll(&raw mut poll, 1, -1) };
            if ready > 0 && poll.revents & libc::POLLIN == 0 {
                return None;
            }
            // SAFETY: all zeroes is a valid notification, and the kernel requires zeroes.
            let mut notification = unsafe { zeroed::<libc::seccomp_notif>() };
            // SAFETY: the kernel writes one notification, which outlives the call.
            if unsafe { self.control(libc::SECCOMP_IOCTL_NOTIF_RECV as _, &raw mut notification) }
                >= 0
            {
                let data = notification.data;
                return Some(Notice { id: notification.id, call: data.nr.into(), args: data.args });
            }
        }
    }

    /// Sends the decision about a call. It has no effect if the process has ended.
    pub(crate) fn respond(&self, notice: &Notice, decision: Decision) {
        let mut answer = libc::seccomp_notif_resp { id: notice.id, val: 0, error: 0, flags: 0 };
        match decision {
            Decision::Continue => answer.flags = libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32,
            Decision::Fail(errno) => answer.error = -errno,
            Decision::Return(value) => answer.val = value,
        }
        // SAFETY: the kernel reads one answer, which outlives the call.
        unsafe { self.control(libc::SECCOMP_IOCTL_NOTIF_SEND as _, &raw mut answer) };
    }

    /// Replaces the child's descriptor with another file, which closes the file of the descriptor.
    pub(crate) fn replace(&self, notice: &Notice, file: &File) {
        let mut request = libc::seccomp_notif_addfd {
            id: notice.id,
            flags: libc::SECCOMP_ADDFD_FLAG_SETFD as u32,
            srcfd: file.as_raw_fd() as u32,
            newfd: notice.descriptor() as u32,
            newfd_flags: libc::O_CLOEXEC as u32,
        };
        // SAFETY: the kernel reads one request, which outlives the call.
        unsafe { self.control(libc::SECCOMP_IOCTL_NOTIF_ADDFD as _, &raw mut request) };
    }

    /// # Safety
    /// `what` must be the structure that this request reads and writes.
    unsafe fn control<T>(&self, request: libc::Ioctl, what: *mut T) -> libc::c_int {
        // SAFETY: the caller guarantees it.
        unsafe { libc::ioctl(self.0.as_raw_fd(), request, what) }
    }
}

/// Duplicates a descriptor of another process (pidfd_getfd(2)).
pub(crate) fn borrow_descriptor(process: u32, descriptor: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: no pointers; both descriptors are new and have no other owner.
    unsafe {
        let handle = check(libc::syscall(libc::SYS_pidfd_open, process, 0))?;
        let handle = OwnedFd::from_raw_fd(handle as RawFd);
        let call = libc::SYS_pidfd_getfd;
        let found = check(libc::syscall(call, handle.as_raw_fd(), descriptor, 0))?;
        Ok(OwnedFd::from_raw_fd(found as RawFd))
    }
}

/// Sends a signal to a child of this process.
pub(crate) fn kill(process: u32, signal: i32) {
    // SAFETY: no pointers; the child has not been waited for yet.
    unsafe { libc::kill(process as libc::pid_t, signal) };
}

fn check(result: i64) -> io::Result<i64> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
