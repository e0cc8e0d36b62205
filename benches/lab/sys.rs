//! The syscalls of the lab that no dependency wraps: namespaces, the TUN device, its interface.
//!
//! Decides nothing and keeps no state. Driven by `Lab::enter` and by the thread that plays the
//! hosts. Every failure is the kernel's errno, unchanged.
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

/// Puts this process into user and network namespaces of its own.
///
/// `EINVAL`: the process has more than one thread (unshare(2)). `EPERM` or `ENOSPC`: the system
/// does not permit user namespaces.
pub(super) fn unshare_user_and_network() -> io::Result<()> {
    // SAFETY: no pointers; a failure leaves the process where it was.
    check(unsafe { libc::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNET) })
}

/// The ids that the new user namespace must map, since it maps none by itself.
pub(super) fn ids() -> (u32, u32) {
    // SAFETY: both calls take nothing and cannot fail (getuid(2)).
    unsafe { (libc::getuid(), libc::getgid()) }
}

/// Creates the TUN device `name`: whole IP packets, no prefix, one per read or write, never
/// blocking. It lives as long as the file is open.
pub(super) fn open_tun(name: &str, medium: Medium) -> io::Result<File> {
    let device = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open("/dev/net/tun")?;
    assert!(name.len() < libc::IFNAMSIZ, "the name and its final zero fit");
    // SAFETY: all zeroes is a valid `ifreq`: plain integers and a union of such.
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

/// Brings the interface `name` up, with room for `queue_packets` packets that wait for a reader.
///
/// By netlink: the older SIOCSIFTXQLEN asks for a right that a user namespace cannot give.
pub(super) fn bring_up(name: &str, queue_packets: u32) -> io::Result<()> {
    let up = libc::IFF_UP as u32;
    let mut body = vec![libc::AF_UNSPEC as u8, 0, 0, 0];
    body.extend(interface_index(name)?.to_ne_bytes());
    body.extend([up.to_ne_bytes(), up.to_ne_bytes()].concat());
    push_attribute(&mut body, (libc::IFLA_TXQLEN, &queue_packets.to_ne_bytes()));
    ask_netlink(libc::RTM_NEWLINK, &body)
}

/// Gives the interface `name` an address and the network of `prefix_bits` around it.
///
/// Without duplicate address detection: until that is over, the kernel would send from `::1`.
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
    ask_netlink(libc::RTM_NEWADDR, &body)
}

/// One request of rtnetlink(7): `body` is the message behind its header. Returns what the kernel
/// acknowledges it with.
fn ask_netlink(kind: u16, body: &[u8]) -> io::Result<()> {
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
    // The answer is a header, an errno (negative, 0 for success), and a copy of the request.
    let mut answer = [0; 512];
    let length = socket.read(&mut answer)?;
    let errno = answer[..length].get(HEADER_BYTES..HEADER_BYTES + 4);
    match errno.and_then(|bytes| bytes.try_into().ok()).map(i32::from_ne_bytes) {
        Some(0) => Ok(()),
        Some(errno) => Err(io::Error::from_raw_os_error(-errno)),
        None => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// Appends an attribute: its length with this header, its kind, its value.
fn push_attribute(body: &mut Vec<u8>, (kind, value): (u16, &[u8])) {
    assert!(value.len().is_multiple_of(4), "attributes are aligned to four bytes");
    body.extend((4 + value.len() as u16).to_ne_bytes());
    body.extend(kind.to_ne_bytes());
    body.extend(value);
}

fn interface_index(name: &str) -> io::Result<u32> {
    let name = CString::new(name)?;
    // SAFETY: a string that ends with a zero and outlives the call.
    match unsafe { libc::if_nametoindex(name.as_ptr()) } {
        0 => Err(io::Error::last_os_error()),
        index => Ok(index),
    }
}

/// Lets this thread's sleeps end on time; the kernel may otherwise add 50 µs to each.
pub(super) fn sleep_precisely() -> io::Result<()> {
    // SAFETY: no pointers; the number is nanoseconds (prctl(2)).
    check(unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1 as libc::c_ulong) })
}

/// Sleeps until `source` can be read, or for `timeout`. Being interrupted counts as the end.
pub(super) fn wait_readable(source: BorrowedFd<'_>, timeout: Duration) -> io::Result<()> {
    let mut entry = libc::pollfd { fd: source.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    let timeout = libc::timespec {
        tv_sec: timeout.as_secs() as libc::time_t,
        tv_nsec: timeout.subsec_nanos().into(),
    };
    // SAFETY: one `pollfd` and one `timespec`, both of which outlive the call; no signal mask.
    match check(unsafe { libc::ppoll(&raw mut entry, 1, &raw const timeout, std::ptr::null()) }) {
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
        other => other,
    }
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
