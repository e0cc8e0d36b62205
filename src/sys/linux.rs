//! The Linux kernel that the service runs on: implements each call of [`Kernel`] with mio, socket2
//! and libc.
//!
//! This module decides nothing. `event_loop` drives it.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, RawFd};
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll};
use socket2::{Domain, Socket};

use super::errno::shortage_of;
use super::listeners::Listener;
use super::raw::{RawSocket, ReceiveBuffer, ReservedPort};
use super::{RouteSocket, STDOUT, Signals, files, neighbours, probe, process};
use crate::event::local_drops::LocalDrops;
use crate::event::{Outcome, ProcessFiles, RouteResult, Shortage, Signal, Transport};
use crate::kernel::{
    Accepted, EventSource, IoStep, Kernel, NameFileTexts, Past, ProbeStep, RawOptions, RawPacket,
    RawQueue, RawReceiveStep, RawSendStep, Readiness, Received, Token,
};
use crate::limits;

/// The files that are read while the service runs.
#[derive(Clone, Debug)]
pub struct FilePaths {
    /// resolv.conf(5).
    pub resolv_conf: PathBuf,
    /// hosts(5).
    pub hosts: PathBuf,
    /// The file of the bearer token, if a token is required.
    pub token: Option<PathBuf>,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Linux {
    poll: Poll,
    events: Events,
    signals: Signals,
    files: FilePaths,
    /// The reserved source ports of SYNs, which are kept until the process ends.
    ports: Vec<ReservedPort>,
    /// The buffer for received packets, which is allocated when a raw socket is opened.
    receive_buffer: Option<ReceiveBuffer>,
    /// The socket of the route lookups of this tick.
    route_socket: RouteSocket,
}

impl Linux {
    /// A kernel with a poller at which nothing is registered yet.
    ///
    /// # Errors
    /// Errors of epoll_create1(2).
    pub fn new(signals: Signals, files: FilePaths) -> io::Result<Self> {
        let events = Events::with_capacity(limits::EVENTS_PER_TICK);
        Ok(Self {
            poll: Poll::new()?,
            events,
            signals,
            files,
            ports: Vec::new(),
            receive_buffer: None,
            route_socket: RouteSocket::default(),
        })
    }
}

impl Kernel for Linux {
    type Listener = Listener;
    type RawSocket = RawSocket;
    type Socket = Socket;

    #[expect(clippy::disallowed_methods, reason = "the only clock of the loop")]
    fn now(&self) -> Instant {
        Instant::now()
    }

    #[expect(clippy::disallowed_methods, reason = "the only clock of the loop")]
    fn wall(&self) -> SystemTime {
        SystemTime::now()
    }

    fn poll(&mut self, timeout: Option<Duration>, ready: &mut Vec<Readiness>) -> io::Result<()> {
        // The descriptor is not kept between ticks.
        self.route_socket = RouteSocket::default();
        self.poll.poll(&mut self.events, timeout)?;
        ready.extend(self.events.iter().map(|event| Readiness {
            token: Token(event.token().0),
            is_readable: event.is_readable(),
            is_writable: event.is_writable(),
            is_read_closed: event.is_read_closed(),
            is_error: event.is_error(),
        }));
        Ok(())
    }

    fn register(&mut self, source: EventSource<'_, Self>, token: Token) -> io::Result<()> {
        let (descriptor, interest): (RawFd, Interest) = match source {
            EventSource::Socket(socket) => {
                (socket.as_raw_fd(), Interest::READABLE | Interest::WRITABLE)
            }
            EventSource::Raw(socket) => {
                (socket.as_raw_fd(), Interest::READABLE | Interest::WRITABLE)
            }
            EventSource::Listener(listener) => (listener.as_raw_fd(), Interest::READABLE),
            EventSource::Signals => (self.signals.as_raw_fd(), Interest::READABLE),
            EventSource::Stdout => (STDOUT, Interest::WRITABLE),
        };
        let token = mio::Token(token.0);
        self.poll.registry().register(&mut SourceFd(&descriptor), token, interest)
    }

    fn take_signal(&mut self) -> io::Result<Option<Signal>> {
        self.signals.take()
    }

    fn notify_manager(&mut self, state: &str) {
        process::notify_manager(state);
    }

    fn accept(&mut self, listener: &Listener) -> Accepted<Socket> {
        super::accept(listener)
    }

    fn has_client(&mut self, listener: &Listener) -> bool {
        super::has_client(listener)
    }

    fn close_listener(&mut self, listener: Listener) {
        drop(listener);
    }

    fn connect(&mut self, to: SocketAddr, transport: Transport) -> Result<Socket, Outcome> {
        super::connect(to, transport)
    }

    fn connect_outcome(&mut self, socket: &Socket) -> Option<Outcome> {
        super::connect_failure(socket).or_else(|| super::connect_success(socket))
    }

    fn read(&mut self, socket: &Socket, buffer: &mut [u8]) -> IoStep {
        super::read(socket, buffer)
    }

    fn write(&mut self, socket: &Socket, bytes: &[u8]) -> IoStep {
        super::write(socket, bytes)
    }

    fn shutdown_write(&mut self, socket: &Socket) {
        super::shutdown_write(socket);
    }

    fn close(&mut self, socket: Socket) {
        drop(socket);
    }

    fn open_probe(&mut self, to: &SocketAddr, source: Option<IpAddr>) -> Result<Socket, Outcome> {
        probe::open(Domain::for_address(*to), source)
    }

    fn start_probe(&mut self, socket: &Socket, to: &SocketAddr, past: Past) -> ProbeStep {
        probe::start(socket, to, past)
    }

    fn check_probe(&mut self, socket: &Socket, to: &SocketAddr) -> ProbeStep {
        probe::check_connect(socket, to)
    }

    fn check_rejected(&mut self, socket: &Socket) -> ProbeStep {
        probe::check_rejected(socket)
    }

    fn clear_error(&mut self, socket: &Socket) {
        probe::clear_error(socket);
    }

    fn give_up_probe(&mut self, socket: &Socket) -> bool {
        probe::disconnect(socket)
    }

    fn reset(&mut self, socket: Socket) {
        probe::reset(socket);
    }

    fn secret(&mut self) -> Result<[u64; 2], Shortage> {
        let random = || super::random_seed().map_err(|error| shortage_of(&error));
        Ok([random()?, random()?])
    }

    fn reserve_port(&mut self, port: u16) -> Result<u16, Shortage> {
        let reserved = ReservedPort::bind(port).map_err(|error| match error.raw_os_error() {
            Some(libc::EADDRINUSE | libc::EACCES) => Shortage::SourcePorts,
            _ => shortage_of(&error),
        })?;
        let number = reserved.number;
        self.ports.push(reserved);
        Ok(number)
    }

    fn open_raw(&mut self, options: RawOptions) -> Result<RawSocket, Outcome> {
        let socket = RawSocket::open(options).map_err(|error| match error.raw_os_error() {
            // A kernel without IPv6 has no route to an IPv6 address.
            Some(libc::EAFNOSUPPORT) => Outcome::Unreachable,
            _ => Outcome::Shortage(shortage_of(&error)),
        })?;
        self.receive_buffer.get_or_insert_default();
        Ok(socket)
    }

    fn send_raw(&mut self, socket: &RawSocket, packets: &[RawPacket]) -> RawSendStep {
        socket.send(packets)
    }

    fn receive_raw(
        &mut self,
        socket: &mut RawSocket,
        queue: RawQueue,
        take: &mut dyn FnMut(Received<'_>),
    ) -> RawReceiveStep {
        socket.receive(self.receive_buffer.get_or_insert_default(), queue, take)
    }

    fn raw_overflow(&mut self, socket: &mut RawSocket) -> u32 {
        socket.take_overflow()
    }

    fn route(&mut self, to: SocketAddr) -> RouteResult {
        self.route_socket.route(to)
    }

    fn name_files(&mut self) -> NameFileTexts {
        let bytes_max = limits::NAME_FILE_BYTES_MAX;
        let resolv_conf = files::read_file(&self.files.resolv_conf, bytes_max);
        let hosts = files::read_file(&self.files.hosts, bytes_max);
        let interfaces = super::interfaces();
        let resolv_conf = resolv_conf.map(|text| interfaces.number_zones(&text).into_owned());
        NameFileTexts { resolv_conf, hosts }
    }

    fn token_file(&mut self) -> Option<Vec<u8>> {
        files::read_secret(self.files.token.as_deref()?).ok()
    }

    fn process_files(&mut self, take: impl FnOnce(ProcessFiles<'_>)) {
        process::with_process_files(take);
    }

    fn local_drops(&mut self) -> Option<LocalDrops> {
        neighbours::read_local_drops()
    }

    fn write_stdout(&mut self, bytes: &[u8]) -> IoStep {
        super::write_stdout(bytes)
    }

    fn write_log(&mut self, bytes: &[u8]) -> IoStep {
        super::write_log(bytes)
    }
}
