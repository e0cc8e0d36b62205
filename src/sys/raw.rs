//! The raw sockets of the SYN engine, one for each IP version, and the source ports of its SYNs.
//!
//! Packets are sent with their IP header (IP_HDRINCL, IPV6_HDRINCL). The socket receives a copy of
//! each TCP segment that the filter lets pass; for IPv4 with the IP header, for IPv6 without it
//! (raw(7), RFC 3542 section 3). ICMP errors arrive in the error queue of the socket. In addition,
//! the kernel stores the last ICMP error as the pending error of the socket, which the next call
//! returns instead of sending or receiving. Such a call is repeated.
//!
//! A source port is reserved by a TCP socket that is bound and never listens. No other program gets
//! the port, and the kernel answers a SYN-ACK to it with a RST.

use std::io;
use std::mem::zeroed;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsRawFd, RawFd};
use std::ptr;

use socket2::{Domain, Protocol, Socket, Type};

use super::capability;
use super::errno::outcome_of;
use super::{check, local_address};
use crate::event::{Outcome, RouteResult, Shortage};
use crate::kernel::{
    RAW_BATCH, RawOptions, RawPacket, RawQueue, RawReceiveStep, RawSendStep, Received,
};
use crate::limits;
use crate::packet::IpVersion;
use crate::packet::filter::{self, Instruction, Layer};
use crate::packet::quote::IcmpError;

/// The number of bytes of a received packet that are read. The IP header and the TCP header with
/// all options and some data fit. A longer packet is passed on as an empty one.
const PACKET_BYTES_MAX: usize = 512;
/// The size of the buffer for the ancillary data of one packet, in bytes. A destination address
/// fits, and so does an ICMP error with the address of the router that sent it.
const CONTROL_BYTES: usize = 128;
/// The maximum number of calls if a call is interrupted or returns the pending error of the socket.
/// While ICMP errors arrive, each call may return another one.
const CALLS_MAX: usize = 4;
/// The number of received packets below which the receive buffer did not overflow. With the default
/// of net.core.rmem_max, the buffer has space for several hundred packets.
const OVERFLOW_PACKETS_MIN: usize = 64;
/// The index of the number of dropped packets in the result of SO_MEMINFO (`SK_MEMINFO_DROPS`).
const MEMINFO_DROPS: usize = 8;
/// The number of 32-bit words of the result of SO_MEMINFO (`SK_MEMINFO_VARS`).
const MEMINFO_LEN: usize = 9;

/// A raw socket.
#[derive(Debug)]
pub struct RawSocket {
    socket: Socket,
    /// The number of packets received since the receive buffer was last empty.
    received_len: usize,
    /// The kernel's count of dropped packets at the last reading.
    drops_read: u32,
}

/// Checks that this process may open a raw socket.
///
/// # Errors
/// Errors of socket(2): EPERM without CAP_NET_RAW.
pub fn check_permitted() -> io::Result<()> {
    create(IpVersion::V4).map(drop)
}

/// Whether an error of [`check_permitted`] means that the process does not have CAP_NET_RAW.
pub fn is_denied(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EPERM | libc::EACCES))
}

/// Creates a raw socket for TCP, with CAP_NET_RAW raised for this call.
fn create(version: IpVersion) -> io::Result<Socket> {
    let domain = match version {
        IpVersion::V4 => Domain::IPV4,
        IpVersion::V6 => Domain::IPV6,
    };
    let kind = Type::RAW.nonblocking().cloexec();
    capability::with_net_raw(|| Socket::new_raw(domain, kind, Some(Protocol::TCP)))
}

impl RawSocket {
    /// Opens a socket that receives the answers to a block of source ports, and binds it to
    /// `source` if there is one.
    ///
    /// # Errors
    /// Errors of socket(2) (EPERM without CAP_NET_RAW, EAFNOSUPPORT if the kernel does not support
    /// the IP version), setsockopt(2) and bind(2).
    pub fn open(options: RawOptions) -> io::Result<Self> {
        let RawOptions { version, block, source } = options;
        let socket = create(version)?;
        let on = |level, name| set_option(&socket, level, name, &1_i32);
        let layer = match version {
            IpVersion::V4 => {
                on(libc::IPPROTO_IP, libc::IP_HDRINCL)?;
                on(libc::IPPROTO_IP, libc::IP_RECVERR)?;
                Layer::Ipv4
            }
            IpVersion::V6 => {
                on(libc::IPPROTO_IPV6, libc::IPV6_HDRINCL)?;
                on(libc::IPPROTO_IPV6, libc::IPV6_RECVERR)?;
                on(libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO)?;
                Layer::Tcp
            }
        };
        attach(&socket, &filter::program(layer, block))?;
        // The kernel limits the sizes to net.core.rmem_max and net.core.wmem_max.
        socket.set_recv_buffer_size(limits::RAW_BUFFER_BYTES)?;
        socket.set_send_buffer_size(limits::RAW_BUFFER_BYTES)?;
        if let Some(source) = source {
            socket.bind(&SocketAddr::new(source, 0).into())?;
        }
        let mut raw = Self { socket, received_len: 0, drops_read: 0 };
        raw.drops_read = raw.drops();
        Ok(raw)
    }

    /// Sends at least one and at most [`RAW_BATCH`] packets of the socket's IP version.
    pub fn send(&self, packets: &[RawPacket]) -> RawSendStep {
        assert!(
            !packets.is_empty() && packets.len() <= RAW_BATCH,
            "a batch has between 1 and RAW_BATCH packets"
        );
        for calls in 1.. {
            let error = match self.send_once(packets) {
                Ok(count) => return RawSendStep::Sent(count),
                Err(error) => error,
            };
            match error.raw_os_error() {
                Some(libc::EAGAIN) => return RawSendStep::WouldBlock,
                Some(libc::EPERM) => return RawSendStep::Dropped,
                // An interruption, or the pending error of the socket. If the last call still
                // returns an error, the first packet counts as not sent.
                _ if calls >= CALLS_MAX => {
                    return RawSendStep::Failed(send_failure(&error, &self.socket, packets[0].to));
                }
                _ => {}
            }
        }
        unreachable!("the loop returns after at most CALLS_MAX calls")
    }

    /// Makes one call of sendmmsg(2), and returns the number of packets sent.
    fn send_once(&self, packets: &[RawPacket]) -> io::Result<usize> {
        // SAFETY: `sockaddr_in6` consists of integers, so all its bytes may be zero.
        let mut names: [libc::sockaddr_in6; RAW_BATCH] = unsafe { zeroed() };
        // SAFETY: `mmsghdr` consists of integers and raw pointers, so all its bytes may be zero.
        let mut headers: [libc::mmsghdr; RAW_BATCH] = unsafe { zeroed() };
        // SAFETY: `iovec` consists of an integer and a raw pointer, so all its bytes may be zero.
        let mut vectors: [libc::iovec; RAW_BATCH] = unsafe { zeroed() };
        for (index, packet) in packets.iter().enumerate() {
            let name_len = write_name(&mut names[index], &packet.to);
            vectors[index].iov_base = packet.bytes.as_ptr().cast_mut().cast();
            vectors[index].iov_len = packet.len;
            let header = &mut headers[index].msg_hdr;
            header.msg_name = (&raw mut names[index]).cast();
            header.msg_namelen = name_len;
            header.msg_iov = &raw mut vectors[index];
            header.msg_iovlen = 1;
        }
        let (count, flags) = (packets.len() as libc::c_uint, libc::MSG_NOSIGNAL);
        // musl's function of this name makes one call for each packet. Its structure differs from
        // that of the kernel by padding only, which is zero.
        // SAFETY: the first `count` headers point to names and packets that outlive the call, and
        // sendmmsg(2) writes only to the headers.
        let sent = unsafe {
            libc::syscall(libc::SYS_sendmmsg, self.as_raw_fd(), headers.as_mut_ptr(), count, flags)
        };
        Ok(check(sent as libc::c_int)? as usize)
    }

    /// Receives packets or ICMP errors in one call, and passes each to `take`.
    pub fn receive(
        &mut self,
        buffer: &mut ReceiveBuffer,
        queue: RawQueue,
        take: &mut dyn FnMut(Received<'_>),
    ) -> RawReceiveStep {
        let flags = match queue {
            RawQueue::Packets => 0,
            RawQueue::Errors => libc::MSG_ERRQUEUE,
        };
        let Some(count) = buffer.fill(self.as_raw_fd(), flags) else {
            return RawReceiveStep::WouldBlock;
        };
        if queue == RawQueue::Packets {
            self.received_len += count;
        }
        (0..count).for_each(|index| take(buffer.packet(index)));
        RawReceiveStep::Received
    }

    /// The number of packets since the last call for which the receive buffer had no space. This
    /// must be called when the receive buffer is empty. The kernel's counter also contains IPv6
    /// segments with a wrong checksum, so it is used only if many packets were received since the
    /// buffer was last empty.
    pub fn take_overflow(&mut self) -> u32 {
        if std::mem::take(&mut self.received_len) < OVERFLOW_PACKETS_MIN {
            return 0;
        }
        let dropped = self.drops();
        dropped.wrapping_sub(std::mem::replace(&mut self.drops_read, dropped))
    }

    /// The kernel's count of packets that this socket dropped (SO_MEMINFO), or the last reading if
    /// the kernel does not report it.
    fn drops(&self) -> u32 {
        let mut words = [0_u32; MEMINFO_LEN];
        let mut len = size_of_val(&words) as libc::socklen_t;
        let (level, name) = (libc::SOL_SOCKET, libc::SO_MEMINFO);
        // SAFETY: the kernel writes at most `len` bytes to `words`, and both outlive the call.
        let code = unsafe {
            libc::getsockopt(self.as_raw_fd(), level, name, (&raw mut words).cast(), &raw mut len)
        };
        if code == 0 { words[MEMINFO_DROPS] } else { self.drops_read }
    }
}

impl AsRawFd for RawSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

/// A reserved source port: a bound TCP socket keeps it from other programs. The socket reserves the
/// port for both IP versions, or only for IPv4 if the machine has no IPv6.
#[derive(Debug)]
pub struct ReservedPort {
    _socket: Socket,
    /// The number of the port.
    pub number: u16,
}

impl ReservedPort {
    /// Reserves a port. With 0, the kernel chooses one (ip(7), ip_local_port_range).
    ///
    /// # Errors
    /// Errors of socket(2) and bind(2): EADDRINUSE if another program has the port.
    pub fn bind(port: u16) -> io::Result<Self> {
        let (kind, protocol) = (Type::STREAM.cloexec(), Some(Protocol::TCP));
        let both = Socket::new_raw(Domain::IPV6, kind, protocol).and_then(|socket| {
            socket.set_only_v6(false)?;
            socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)).into())?;
            Ok(socket)
        });
        let socket = match both {
            Err(error) if is_without_v6(&error) => {
                let socket = Socket::new_raw(Domain::IPV4, kind, protocol)?;
                socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)).into())?;
                socket
            }
            both => both?,
        };
        let local = socket.local_addr()?.as_socket().ok_or(io::ErrorKind::InvalidData)?;
        Ok(Self { _socket: socket, number: local.port() })
    }
}

/// Whether an error means that the kernel does not support IPv6, or that no interface has an IPv6
/// address.
fn is_without_v6(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL))
}

/// The buffers for the packets of one call. Only pages that were written take physical memory.
pub struct ReceiveBuffer {
    packets: Box<[[u8; PACKET_BYTES_MAX]]>,
    names: Box<[libc::sockaddr_in6]>,
    control: Box<[Control]>,
    vectors: Box<[libc::iovec]>,
    headers: Box<[libc::mmsghdr]>,
}

/// The buffer for the ancillary data of one packet, with the alignment of `cmsghdr` (cmsg(3)).
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Control([u8; CONTROL_BYTES]);

impl std::fmt::Debug for ReceiveBuffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReceiveBuffer").finish_non_exhaustive()
    }
}

impl Default for ReceiveBuffer {
    fn default() -> Self {
        // SAFETY: the three structures consist of integers and raw pointers, so all their bytes may
        // be zero. `prepare` sets the pointers before the kernel reads them.
        let (name, vector, header) = unsafe { (zeroed(), zeroed(), zeroed()) };
        Self {
            packets: vec![[0; PACKET_BYTES_MAX]; RAW_BATCH].into(),
            names: vec![name; RAW_BATCH].into(),
            control: vec![Control([0; CONTROL_BYTES]); RAW_BATCH].into(),
            vectors: vec![vector; RAW_BATCH].into(),
            headers: vec![header; RAW_BATCH].into(),
        }
    }
}

impl ReceiveBuffer {
    /// Receives at most [`RAW_BATCH`] packets and returns their number. `None` means that none
    /// waits, or that all `CALLS_MAX` calls returned an error.
    fn fill(&mut self, descriptor: RawFd, flags: libc::c_int) -> Option<usize> {
        for _ in 0..CALLS_MAX {
            self.prepare();
            let (flags, count) = (flags | libc::MSG_DONTWAIT, RAW_BATCH as libc::c_uint);
            // SAFETY: the `RAW_BATCH` headers point to packets, names and ancillary data of this
            // buffer, which is borrowed until the call returns. The kernel writes at most as many
            // bytes as the lengths in the headers permit.
            let received = unsafe {
                let headers = self.headers.as_mut_ptr();
                libc::recvmmsg(descriptor, headers, count, flags as _, ptr::null_mut())
            };
            match check(received).map_err(|error| error.raw_os_error()) {
                Ok(count) => return Some(count as usize),
                Err(Some(libc::EAGAIN)) => return None,
                // An interruption, or the pending error of the socket, which is in the error queue
                // too.
                Err(_) => {}
            }
        }
        None
    }

    /// Sets the pointers and lengths of all headers, because each call changes the lengths.
    fn prepare(&mut self) {
        for index in 0..RAW_BATCH {
            self.vectors[index].iov_base = self.packets[index].as_mut_ptr().cast();
            self.vectors[index].iov_len = PACKET_BYTES_MAX;
            let header = &mut self.headers[index].msg_hdr;
            header.msg_name = (&raw mut self.names[index]).cast();
            header.msg_namelen = size_of::<libc::sockaddr_in6>() as libc::socklen_t;
            header.msg_iov = &raw mut self.vectors[index];
            header.msg_iovlen = 1;
            header.msg_control = self.control[index].0.as_mut_ptr().cast();
            header.msg_controllen = CONTROL_BYTES as _;
            header.msg_flags = 0;
        }
    }

    /// A packet that the last call received. `index` must be smaller than the number of packets
    /// that [`Self::fill`] returned.
    fn packet(&self, index: usize) -> Received<'_> {
        let header = &self.headers[index];
        let is_whole = header.msg_hdr.msg_flags & libc::MSG_TRUNC == 0;
        let len = if is_whole { header.msg_len as usize } else { 0 };
        let bytes = &self.packets[index][..len.min(PACKET_BYTES_MAX)];
        let remote = read_name(&self.names[index]);
        let mut received = Received { bytes, remote, local: None, error: None };
        // SAFETY: the kernel wrote the header and its ancillary data to this buffer, which has not
        // moved since. CMSG_FIRSTHDR and CMSG_NXTHDR return null after the last record, and the
        // kernel writes records of these types with at least the length of the structure read.
        unsafe {
            let mut record = libc::CMSG_FIRSTHDR(&raw const header.msg_hdr);
            while let Some(it) = record.as_ref() {
                let data = libc::CMSG_DATA(record);
                match (it.cmsg_level, it.cmsg_type) {
                    (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                        let info: libc::in6_pktinfo = ptr::read_unaligned(data.cast());
                        received.local = Some(Ipv6Addr::from(info.ipi6_addr.s6_addr).into());
                    }
                    (libc::IPPROTO_IP, libc::IP_RECVERR)
                    | (libc::IPPROTO_IPV6, libc::IPV6_RECVERR) => {
                        received.error = icmp_error(&ptr::read_unaligned(data.cast()));
                    }
                    _ => {}
                }
                record = libc::CMSG_NXTHDR(&raw const header.msg_hdr, record);
            }
        }
        received
    }
}

/// The type and code of an ICMP error; `None` for an error that the kernel itself reports, for
/// example because a packet is too long for its interface.
const fn icmp_error(error: &libc::sock_extended_err) -> Option<IcmpError> {
    let (kind, code) = (error.ee_type, error.ee_code);
    match error.ee_origin {
        libc::SO_EE_ORIGIN_ICMP => Some(IcmpError::V4 { kind, code }),
        libc::SO_EE_ORIGIN_ICMP6 => Some(IcmpError::V6 { kind, code }),
        _ => None,
    }
}

/// Writes the address of a target for sendmmsg(2), and returns its length. The port stays 0
/// (raw(7)): a raw socket of IPv6 rejects every other number but that of its protocol.
fn write_name(name: &mut libc::sockaddr_in6, to: &SocketAddr) -> libc::socklen_t {
    match to {
        SocketAddr::V4(to) => {
            // SAFETY: `sockaddr_in` is shorter than `sockaddr_in6` and does not need a stricter
            // alignment. Both consist of integers.
            let name = unsafe { &mut *ptr::from_mut(name).cast::<libc::sockaddr_in>() };
            name.sin_family = libc::AF_INET as libc::sa_family_t;
            name.sin_addr.s_addr = u32::from_ne_bytes(to.ip().octets());
            size_of::<libc::sockaddr_in>() as libc::socklen_t
        }
        SocketAddr::V6(to) => {
            name.sin6_family = libc::AF_INET6 as libc::sa_family_t;
            name.sin6_addr.s6_addr = to.ip().octets();
            name.sin6_scope_id = to.scope_id();
            size_of::<libc::sockaddr_in6>() as libc::socklen_t
        }
    }
}

/// Reads the address that recvmmsg(2) has written, without its port.
fn read_name(name: &libc::sockaddr_in6) -> SocketAddr {
    if i32::from(name.sin6_family) == libc::AF_INET6 {
        let address = Ipv6Addr::from(name.sin6_addr.s6_addr);
        return SocketAddrV6::new(address, 0, 0, name.sin6_scope_id).into();
    }
    // SAFETY: `sockaddr_in` is shorter than `sockaddr_in6` and does not need a stricter alignment.
    // Both consist of integers, so every value is valid.
    let name = unsafe { &*ptr::from_ref(name).cast::<libc::sockaddr_in>() };
    SocketAddr::from((Ipv4Addr::from(name.sin_addr.s_addr.to_ne_bytes()), 0))
}

/// The outcome for the target of a packet that was not sent.
///
/// While many ICMP errors arrive, each call may return the error of another probe. Therefore an
/// error is attributed to this target only if the kernel has no route to it.
fn send_failure(error: &io::Error, raw: &Socket, to: SocketAddr) -> Outcome {
    match outcome_of(error) {
        Outcome::Shortage(shortage) => Outcome::Shortage(shortage),
        Outcome::Unreachable if !has_route(raw, to) => Outcome::Unreachable,
        Outcome::Unreachable
        | Outcome::Connected
        | Outcome::SelfConnect
        | Outcome::Refused
        | Outcome::TimedOut => Outcome::Shortage(Shortage::TryAgain),
    }
}

/// Whether the kernel has a route to `to` from the address to which the raw socket is bound. A
/// route does not permit each source address, such as one of loopback (EINVAL).
fn has_route(raw: &Socket, to: SocketAddr) -> bool {
    let Some(source) = local_address(raw).filter(|source| !source.ip().is_unspecified()) else {
        return super::route(to) != RouteResult::Nowhere;
    };
    let connected = Socket::new(Domain::for_address(to), Type::DGRAM, None).and_then(|socket| {
        socket.bind(&SocketAddr::new(source.ip(), 0).into())?;
        socket.connect(&to.into())
    });
    connected.map_err(|error| outcome_of(&error)) != Err(Outcome::Unreachable)
}

/// Attaches a filter to a socket (SO_ATTACH_FILTER).
fn attach(socket: &Socket, program: &[Instruction]) -> io::Result<()> {
    const { assert!(size_of::<Instruction>() == size_of::<libc::sock_filter>()) };
    let len = program.len() as libc::c_ushort;
    let filter = program.as_ptr().cast_mut().cast::<libc::sock_filter>();
    // The kernel copies the program and does not write to it, so the cast to a mutable pointer is
    // harmless.
    let program = libc::sock_fprog { len, filter };
    set_option(socket, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &program)
}

/// Sets an option of a socket (setsockopt(2)).
fn set_option<T>(
    socket: &Socket,
    level: libc::c_int,
    name: libc::c_int,
    value: &T,
) -> io::Result<()> {
    let len = size_of::<T>() as libc::socklen_t;
    // SAFETY: `value` is `len` bytes long and outlives the call.
    let result = unsafe {
        libc::setsockopt(socket.as_raw_fd(), level, name, ptr::from_ref(value).cast(), len)
    };
    check(result).map(drop)
}
