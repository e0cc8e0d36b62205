//! The system calls of the lab that no dependency wraps: namespaces, the TUN device, its interface.
//!
//! It has no logic and no state. `Lab::enter` and the thread that simulates the hosts call it.
//! Every error is the unchanged errno of the kernel.
#![allow(unsafe_code, reason = "unshare, ioctl, prctl and ppoll have no safe wrapper here")]

use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

use super::Medium;

/// Moves this process into its own user and network namespaces.
///
/// Fails with `EINVAL` if the process has more than one thread (unshare(2)), and with `EPERM` or
/// `ENOSPC` if the system does not permit user namespaces.
pub(super) fn unshare_user_and_network() -> io::Result<()> {
    // SAFETY: the call has no pointers, and a failure changes nothing.
    check(unsafe { libc::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNET) })
}

/// Returns the user and the group that the new user namespace must map, since it maps none itself.
pub(super) fn ids() -> (u32, u32) {
    // SAFETY: both calls have no arguments and cannot fail (getuid(2)).
    unsafe { (libc::getuid(), libc::getgid()) }
}

/// Creates the TUN or TAP device `name`. Each read or write is one packet or frame without a
/// prefix, and never blocks. The device exists as long as the file is open.
pub(super) fn open_tun(name: &str, medium: Medium) -> io::Result<File> {
    let device = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open("/dev/net/tun")?;
    assert!(name.len() < libc::IFNAMSIZ, "the name is too long");
    // SAFETY: all zeroes is a valid `ifreq`, which has only integers and a union of integers.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    let kind = match medium {
        Medium::PointToPoint => libc::IFF_TUN,
        Medium::Ethernet => libc::IFF_TAP,
    };
    request.ifr_ifru.ifru_flags = (kind | libc::IFF_NO_PI) as libc::c_short;
    // SAFETY: TUNSETIFF reads and writes one `ifreq`, which outlives the call.
    check(unsafe { libc::ioctl(device.as_raw_fd(), libc::TUNSETIFF, &raw mut request) })?;
    Ok(device)
}

/// Brings the interface `name` up, with a queue of `queue_packets` packets.
///
/// It uses netlink, because the older SIOCSIFTXQLEN needs a capability outside the user namespace.
pub(super) fn bring_up(name: &str, queue_packets: u32) -> io::Result<()> {
    let up = libc::IFF_UP as u32;
    let mut body = vec![libc::AF_UNSPEC as u8, 0, 0, 0];
    body.extend(interface_index(name)?.to_ne_bytes());
    body.extend([up.to_ne_bytes(), up.to_ne_bytes()].concat());
    push_attribute(&mut body, (libc::IFLA_TXQLEN, &queue_packets.to_ne_bytes()));
    netlink_request(libc::RTM_NEWLINK, &body)
}

/// Adds an address with a prefix of `prefix_bits` to the interface `name`.
///
/// It disables duplicate address detection, during which the kernel would send from `::1`.
pub(super) fn add_address(name: &str, address: IpAddr, prefix_bits: u8) -> io::Result<()> {
    let (family, octets) = match address {
        IpAddr::V4(address) => (libc::AF_INET, address.octets().to_vec()),
        IpAddr::V6(address) => (libc::AF_INET6, address.octets().to_vec()),
    };
    let mut body =
        vec![family as u8, prefix_bits, libc::IFA_F_NODAD as u8, libc::RT_SCOPE_UNIVERSE];
    body.extend(interface_index(name)?.to_ne_bytes());
    push_attribute(&mut body, (libc::IFA_LOCAL, &octets));
    push_attribute(&mut body, (libc::IFA_ADDRESS, &octets));
    netlink_request(libc::RTM_NEWADDR, &body)
}

/// Sends a request of rtnetlink(7), whose `body` is the message after its header, and returns the
/// kernel's acknowledgement.
fn netlink_request(kind: u16, body: &[u8]) -> io::Result<()> {
    const HEADER_BYTES: usize = 16;
    let flags = libc::NLM_F_REQUEST | libc::NLM_F_ACK | libc::NLM_F_CREATE;
    let mut message = ((HEADER_BYTES + body.len()) as u32).to_ne_bytes().to_vec();
    message.extend(kind.to_ne_bytes());
    message.extend((flags as u16).to_ne_bytes());
    message.extend([0; 8]);
    message.extend(body);
    let protocol = Protocol::from(libc::NETLINK_ROUTE);
    let mut socket = Socket::new(Domain::from(libc::AF_NETLINK), Type::RAW, Some(protocol))?;
    socket.send(&message)?;
    // The answer is a header, a negative errno or 0 for success, and a copy of the request.
    let mut answer = [0; 512];
    let length = socket.read(&mut answer)?;
    let errno = answer[..length].get(HEADER_BYTES..HEADER_BYTES + 4);
    match errno.and_then(|bytes| bytes.try_into().ok()).map(i32::from_ne_bytes) {
        Some(0) => Ok(()),
        Some(errno) => Err(io::Error::from_raw_os_error(-errno)),
        None => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// Appends an attribute: its length including this header, its kind and its value.
fn push_attribute(body: &mut Vec<u8>, (kind, value): (u16, &[u8])) {
    assert!(value.len().is_multiple_of(4), "attributes are aligned to four bytes");
    body.extend((4 + value.len() as u16).to_ne_bytes());
    body.extend(kind.to_ne_bytes());
    body.extend(value);
}

fn interface_index(name: &str) -> io::Result<u32> {
    let name = CString::new(name)?;
    // SAFETY: the string ends with a zero and outlives the call.
    match unsafe { libc::if_nametoindex(name.as_ptr()) } {
        0 => Err(io::Error::last_os_error()),
        index => Ok(index),
    }
}

/// Makes this thread's sleeps precise. By default the kernel may add 50 µs to each.
pub(super) fn sleep_precisely() -> io::Result<()> {
    // SAFETY: the call has no pointers; the number is in nanoseconds (prctl(2)).
    check(unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1 as libc::c_ulong) })
}

/// Sleeps until `source` is readable, for at most `timeout`. A signal also ends the sleep.
pub(super) fn wait_readable(source: BorrowedFd<'_>, timeout: Duration) -> io::Result<()> {
    let mut entry = libc::pollfd { fd: source.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    let timeout = libc::timespec {
        tv_sec: timeout.as_secs() as libc::time_t,
        tv_nsec: timeout.subsec_nanos().into(),
    };
    // SAFETY: the `pollfd` and the `timespec` outlive the call, which gets no signal mask.
    match check(unsafe { libc::ppoll(&raw mut entry, 1, &raw const timeout, std::ptr::null()) }) {
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
        other => other,
    }
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
