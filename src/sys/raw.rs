//! Raw sockets of the SYN engine: one for each IP version, and the source ports of its SYNs.
//!
//! A packet is sent whole, with its IP header (IP_HDRINCL, IPV6_HDRINCL). What is received is a
//! copy of each TCP segment that the filter lets pass, behind its IP header for IPv4 and without
//! one for IPv6 (raw(7), RFC 3542 section 3). ICMP errors come through the error queue of the
//! socket. The kernel also keeps the last of them as an error of the socket, which the next call
//! returns instead of doing its work: such a call is made again.
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
use super::check;
use super::errno::outcome_of;
use crate::event::{Outcome, RouteResult, Shortage};
use crate::kernel::{
    RAW_BATCH, RawOptions, RawPacket, RawQueue, RawReceiveStep, RawSendStep, Received,
};
use crate::limits;
use crate::packet::IpVersion;
use crate::packet::filter::{self, Instruction, Layer};
use crate::packet::quote::IcmpError;

/// Bytes of a received packet that are kept: both headers with all options, and some data.
const PACKET_BYTES: usize = 512;
/// Bytes of ancillary data: an address, or an error and the address of the router that sent it.
const CONTROL_BYTES: usize = 128;
/// How often a call is made again that returned an error of the socket.
const TRIES: usize = 4;
/// The receive buffer is full only if it held so many packets: the smallest that the kernel gives
/// holds more.
const OVERFLOW_PACKETS_MIN: usize = 64;
/// `SK_MEMINFO_DROPS`, and the length of what SO_MEMINFO returns, in words.
const MEMINFO_DROPS: usize = 8;
const MEMINFO_LEN: usize = 9;

/// A raw socket.
#[derive(Debug)]
pub struct RawSocket {
    socket: Socket,
    /// Packets read since the buffer was empty.
    read_len: usize,
    /// What the kernel had dropped when it was asked last.
    dropped: u32,
}

/// Whether this process may open a raw socket.
///
/// # Errors
/// socket(2): EPERM without CAP_NET_RAW.
pub fn check_permitted() -> io::Result<()> {
    create(IpVersion::V4).map(drop)
}

/// Whether an error of [`check_permitted`] is the lack of CAP_NET_RAW.
pub fn is_denied(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EPERM | libc::EACCES))
}

fn create(version: IpVersion) -> io::Result<Socket> {
    let domain = match version {
        IpVersion::V4 => Domain::IPV4,
        IpVersion::V6 => Domain::IPV6,
    };
    let kind = Type::RAW.nonblocking().cloexec();
    capability::with_net_raw(|| Socket::new_raw(domain, kind, Some(Protocol::TCP)))
}

impl RawSocket {
    /// Opens a socket that receives answers to a block of source ports, and sends from `source` if
    /// there is one.
    ///
    /// # Errors
    /// socket(2): EPERM without CAP_NET_RAW, EAFNOSUPPORT without that IP version; setsockopt(2).
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
        // The kernel takes as much as net.core.rmem_max and net.core.wmem_max allow.
        socket.set_recv_buffer_size(limits::RAW_BUFFER_BYTES)?;
        socket.set_send_buffer_size(limits::RAW_BUFFER_BYTES)?;
        if let Some(source) = source {
            socket.bind(&SocketAddr::new(source, 0).into())?;
        }
        let mut raw = Self { socket, read_len: 0, dropped: 0 };
        raw.dropped = raw.drops();
        Ok(raw)
    }

    /// Sends packets of this socket's version of IP, at most [`RAW_BATCH`].
    pub fn send(&self, packets: &[RawPacket]) -> RawSendStep {
        assert!(!packets.is_empty() && packets.len() <= RAW_BATCH, "a batch has a packet");
        for tried in 1.. {
            let error = match self.send_once(packets) {
                Ok(count) => return RawSendStep::Sent(count),
                Err(error) => error,
            };
            match error.raw_os_error() {
                Some(libc::EAGAIN) => return RawSendStep::WouldBlock,
                Some(libc::EPERM) => return RawSendStep::Dropped,
                // An interruption, or an ICMP error that came meanwhile, unless it stays.
                _ if tried >= TRIES => {
                    return RawSendStep::Failed(send_failure(&error, packets[0].to));
                }
                _ => {}
            }
        }
        unreachable!("the last try returns")
    }

    fn send_once(&self, packets: &[RawPacket]) -> io::Result<usize> {
        // SAFETY: an address is a structure of integers, and may be zero.
        let mut names: [libc::sockaddr_in6; RAW_BATCH] = unsafe { zeroed() };
        // SAFETY: a header is a structure of integers and pointers, and may be zero.
        let mut headers: [libc::mmsghdr; RAW_BATCH] = unsafe { zeroed() };
        // SAFETY: as above.
        let mut vectors: [libc::iovec; RAW_BATCH] = unsafe { zeroed() };
        for (place, packet) in packets.iter().enumerate() {
            let name_len = write_name(&mut names[place], &packet.to);
            vectors[place].iov_base = packet.bytes.as_ptr().cast_mut().cast();
            vectors[place].iov_len = packet.len;
            let header = &mut headers[place].msg_hdr;
            header.msg_name = (&raw mut names[place]).cast();
            header.msg_namelen = name_len;
            header.msg_iov = &raw mut vectors[place];
            header.msg_iovlen = 1;
        }
        let count = packets.len() as libc::c_uint;
        // SAFETY: `count` headers point to names and packets that outlive the call; sendmmsg(2)
        // writes to the headers alone.
        let sent = unsafe {
            libc::sendmmsg(self.as_raw_fd(), headers.as_mut_ptr(), count, libc::MSG_NOSIGNAL as _)
        };
        Ok(check(sent)? as usize)
    }

    /// Receives packets or errors, and hands each to `take`.
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
            self.read_len += count;
        }
        (0..count).for_each(|place| take(buffer.packet(place)));
        RawReceiveStep::Received
    }

    /// To be called once the receive buffer is empty: packets that it had no room for since the
    /// last call. The kernel counts segments with a wrong checksum of IPv6 as well, so the count is
    /// used only after the buffer was seen to be filled.
    pub fn take_overflow(&mut self) -> u32 {
        if std::mem::take(&mut self.read_len) < OVERFLOW_PACKETS_MIN {
            return 0;
        }
        let dropped = self.drops();
        dropped.wrapping_sub(std::mem::replace(&mut self.dropped, dropped))
    }

    /// What SO_MEMINFO says of packets dropped; the last number if the kernel does not say.
    fn drops(&self) -> u32 {
        let mut words = [0_u32; MEMINFO_LEN];
        let mut len = size_of_val(&words) as libc::socklen_t;
        let (level, name) = (libc::SOL_SOCKET, libc::SO_MEMINFO);
        // SAFETY: the kernel writes at most `len` bytes to `words`, and both outlive the call.
        let code = unsafe {
            libc::getsockopt(self.as_raw_fd(), level, name, (&raw mut words).cast(), &raw mut len)
        };
        if code == 0 { words[MEMINFO_DROPS] } else { self.dropped }
    }
}

impl AsRawFd for RawSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

/// A source port that is ours, for both IP versions where there are both.
#[derive(Debug)]
pub struct ReservedPort {
    _socket: Socket,
    /// Its number.
    pub number: u16,
}

impl ReservedPort {
    /// Reserves a port, or with 0 one of the kernel's choice (ip(7), ip_local_port_range).
    ///
    /// # Errors
    /// socket(2) and bind(2): EADDRINUSE where another program has the port.
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

/// IPv6 is not there, or has no address at all.
fn is_without_v6(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL))
}

/// Room for what one call receives. It takes memory only where it was written to.
pub struct ReceiveBuffer {
    packets: Box<[[u8; PACKET_BYTES]]>,
    names: Box<[libc::sockaddr_in6]>,
    control: Box<[Control]>,
    vectors: Box<[libc::iovec]>,
    headers: Box<[libc::mmsghdr]>,
}

/// Ancillary data has the alignment of its header.
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
        // SAFETY: addresses, vectors and headers are integers and pointers, and may be zero. Each
        // pointer is written before the kernel reads it.
        let (name, vector, header) = unsafe { (zeroed(), zeroed(), zeroed()) };
        Self {
            packets: vec![[0; PACKET_BYTES]; RAW_BATCH].into(),
            names: vec![name; RAW_BATCH].into(),
            control: vec![Control([0; CONTROL_BYTES]); RAW_BATCH].into(),
            vectors: vec![vector; RAW_BATCH].into(),
            headers: vec![header; RAW_BATCH].into(),
        }
    }
}

impl ReceiveBuffer {
    /// How many packets were received; `None` if there were none.
    fn fill(&mut self, descriptor: RawFd, flags: libc::c_int) -> Option<usize> {
        for _ in 0..TRIES {
            self.prepare();
            let (flags, count) = (flags | libc::MSG_DONTWAIT, RAW_BATCH as libc::c_uint);
            // SAFETY: `RAW_BATCH` headers point to packets, names and ancillary data of this
            // buffer, which is borrowed until the call returns; the kernel keeps to the lengths.
            let received = unsafe {
                let headers = self.headers.as_mut_ptr();
                libc::recvmmsg(descriptor, headers, count, flags as _, ptr::null_mut())
            };
            match check(received).map_err(|error| error.raw_os_error()) {
                Ok(count) => return Some(count as usize),
                Err(Some(libc::EAGAIN)) => return None,
                // An interruption, or an ICMP error that is in the error queue as well.
                Err(_) => {}
            }
        }
        None
    }

    fn prepare(&mut self) {
        for place in 0..RAW_BATCH {
            self.vectors[place].iov_base = self.packets[place].as_mut_ptr().cast();
            self.vectors[place].iov_len = PACKET_BYTES;
            let header = &mut self.headers[place].msg_hdr;
            header.msg_name = (&raw mut self.names[place]).cast();
            header.msg_namelen = size_of::<libc::sockaddr_in6>() as libc::socklen_t;
            header.msg_iov = &raw mut self.vectors[place];
            header.msg_iovlen = 1;
            header.msg_control = self.control[place].0.as_mut_ptr().cast();
            header.msg_controllen = CONTROL_BYTES as _;
            header.msg_flags = 0;
        }
    }

    /// A packet of the last call, which is to have received more than `place`.
    fn packet(&self, place: usize) -> Received<'_> {
        let header = &self.headers[place];
        let is_whole = header.msg_hdr.msg_flags & libc::MSG_TRUNC == 0;
        let len = if is_whole { header.msg_len as usize } else { 0 };
        let bytes = &self.packets[place][..len.min(PACKET_BYTES)];
        let remote = read_name(&self.names[place]);
        let mut received = Received { bytes, remote, local: None, error: None };
        // SAFETY: the header and its ancillary data are as the kernel left them in this buffer,
        // which is not moved; a record is read only as far as its length goes.
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

/// `None` for an error that did not come by ICMP (a packet that is too long for its interface).
const fn icmp_error(error: &libc::sock_extended_err) -> Option<IcmpError> {
    let (kind, code) = (error.ee_type, error.ee_code);
    match error.ee_origin {
        libc::SO_EE_ORIGIN_ICMP => Some(IcmpError::V4 { kind, code }),
        libc::SO_EE_ORIGIN_ICMP6 => Some(IcmpError::V6 { kind, code }),
        _ => None,
    }
}

/// Writes an address for a raw socket, whose port must be 0 or the protocol; its length.
fn write_name(name: &mut libc::sockaddr_in6, to: &SocketAddr) -> libc::socklen_t {
    match to {
        SocketAddr::V4(to) => {
            // SAFETY: an address of IPv4 is shorter than one of IPv6, and no stricter aligned.
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

fn read_name(name: &libc::sockaddr_in6) -> SocketAddr {
    if i32::from(name.sin6_family) == libc::AF_INET6 {
        let address = Ipv6Addr::from(name.sin6_addr.s6_addr);
        return SocketAddrV6::new(address, 0, 0, name.sin6_scope_id).into();
    }
    // SAFETY: the kernel wrote an address of IPv4, or none at all, in which case it is zero.
    let name = unsafe { &*ptr::from_ref(name).cast::<libc::sockaddr_in>() };
    SocketAddr::from((Ipv4Addr::from(name.sin_addr.s_addr.to_ne_bytes()), 0))
}

/// The outcome for the target of a packet that was not sent.
///
/// Where many ICMP errors arrive, each try may return the error of another probe. So an error says
/// nothing about this target unless the kernel has no route to it.
fn send_failure(error: &io::Error, to: SocketAddr) -> Outcome {
    match outcome_of(error) {
        Outcome::Shortage(shortage) => Outcome::Shortage(shortage),
        Outcome::Unreachable if super::route(to) == RouteResult::Nowhere => Outcome::Unreachable,
        Outcome::Unreachable
        | Outcome::Connected
        | Outcome::SelfConnect
        | Outcome::Refused
        | Outcome::TimedOut => Outcome::Shortage(Shortage::TryAgain),
    }
}

/// Attaches a filter to a socket (SO_ATTACH_FILTER).
fn attach(socket: &Socket, program: &[Instruction]) -> io::Result<()> {
    const { assert!(size_of::<Instruction>() == size_of::<libc::sock_filter>()) };
    let len = program.len() as libc::c_ushort;
    let filter = program.as_ptr().cast_mut().cast::<libc::sock_filter>();
    // The kernel copies the program and does not write to it.
    let program = libc::sock_fprog { len, filter };
    set_option(socket, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &program)
}

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
