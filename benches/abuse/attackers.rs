//! The attackers: one thread with one poller and a fixed number of connections. A connection that
//! ends is replaced by a new one.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use socket2::{Domain, Socket, Type};

/// Returns the bytes to send for a number.
pub(crate) type Piece = fn(u64) -> Vec<u8>;

/// The behaviour of each connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Script {
    /// The bytes that are sent first. Their number counts the connections.
    pub(crate) opening: Piece,
    /// The pieces that are sent after the opening, and the time between two. Their number counts
    /// the pieces. With a time of zero, a piece is sent as soon as the kernel accepts it.
    pub(crate) repeated: Option<(Piece, Duration)>,
    pub(crate) reading: Reading,
    /// The time after the opening at which the attacker closes the connection, and how.
    pub(crate) close_after: Option<(Duration, CloseMode)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reading {
    All,
    /// A number of bytes, then a pause; the receive buffer is small.
    Slow(usize, Duration),
    /// Never; the receive buffer is small.
    Never,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CloseMode {
    Fin,
    Reset,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) opened: u64,
    /// Failed connects.
    pub(crate) refused: u64,
    /// Connections that the service closed.
    pub(crate) ended: u64,
    pub(crate) sent: u64,
    pub(crate) received: u64,
    /// The number of responses that were read, by status.
    pub(crate) statuses: BTreeMap<u16, u64>,
}

#[derive(Debug)]
pub(crate) struct Attackers {
    must_stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<io::Result<Tally>>>,
}

/// The number of connections, and of addresses from which they come. Each run uses its own block of
/// addresses, so that sockets in TIME_WAIT do not slow down the next run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    pub(crate) connections: usize,
    pub(crate) sources: u16,
}

impl Attackers {
    pub(crate) fn start(to: SocketAddr, script: Script, size: Size) -> io::Result<Self> {
        static BLOCKS: AtomicU8 = AtomicU8::new(1);
        let block = BLOCKS.fetch_add(1, Ordering::Relaxed).max(1);
        let must_stop = Arc::new(AtomicBool::new(false));
        let mut state = State {
            to,
            block: Ipv4Addr::new(127, block, 0, 0).into(),
            script,
            size,
            poll: Poll::new()?,
            slots: (0..size.connections).map(|_| None).collect(),
            vacant: (0..size.connections).rev().collect(),
            due: BinaryHeap::new(),
            serial: 0,
            backoff_until: Instant::now(),
            tally: Tally::default(),
        };
        let is_over = Arc::clone(&must_stop);
        let thread = std::thread::spawn(move || {
            while !is_over.load(Ordering::Relaxed) {
                state.run_once()?;
            }
            Ok(state.tally)
        });
        Ok(Self { must_stop, thread: Some(thread) })
    }

    /// Stops the attack and closes every connection.
    pub(crate) fn stop(mut self) -> Result<Tally, String> {
        self.must_stop.store(true, Ordering::Relaxed);
        let ended = self.thread.take().map(JoinHandle::join);
        match ended {
            Some(Ok(tally)) => tally.map_err(|error| format!("the attackers failed: {error}")),
            Some(Err(_)) | None => Err("the attackers panicked".into()),
        }
    }
}

impl Drop for Attackers {
    fn drop(&mut self) {
        self.must_stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

struct Attacker {
    stream: Socket,
    serial: u64,
    is_open: bool,
    out: Vec<u8>,
    sent: usize,
    pieces: u64,
    is_closing: bool,
    /// The last bytes read, which may be an incomplete status line.
    tail: Vec<u8>,
}

struct State {
    to: SocketAddr,
    /// The address before the first source address.
    block: u32,
    script: Script,
    size: Size,
    poll: Poll,
    slots: Vec<Option<Attacker>>,
    vacant: Vec<usize>,
    /// The timers: the due time, the index and the serial number of a connection.
    due: BinaryHeap<Reverse<(Instant, usize, u64)>>,
    serial: u64,
    /// The time before which no connect is tried, after one failed.
    backoff_until: Instant,
    tally: Tally,
}

/// The maximum number of connections that are opened between two polls.
const OPENINGS_PER_ROUND: usize = 64;
/// The pause after a failed connect.
const BACKOFF: Duration = Duration::from_millis(5);
/// The maximum timeout of a poll, after which the thread checks whether it must stop.
const PAUSE_MAX: Duration = Duration::from_millis(10);
/// The size of a small receive buffer. The kernel's minimum is about twice as large.
const SMALL_BUFFER: usize = 2048;

impl State {
    fn run_once(&mut self) -> io::Result<()> {
        let mut budget = OPENINGS_PER_ROUND;
        while budget > 0 && !self.vacant.is_empty() && self.backoff_until <= Instant::now() {
            budget -= 1;
            if self.open().is_err() {
                self.tally.refused += 1;
                self.backoff_until = Instant::now() + BACKOFF;
            }
        }
        let now = Instant::now();
        let until = self.due.peek().map(|Reverse((at, ..))| at.saturating_duration_since(now));
        let has_more = budget == 0 && !self.vacant.is_empty();
        let pause =
            if has_more { Duration::ZERO } else { PAUSE_MAX.min(until.unwrap_or(PAUSE_MAX)) };
        let mut events = Events::with_capacity(1024);
        match self.poll.poll(&mut events, Some(pause)) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            other => other?,
        }
        for event in &events {
            let place = event.token().0;
            if event.is_error() || event.is_write_closed() {
                self.end(place, false);
                continue;
            }
            if event.is_writable() {
                self.write(place);
            }
            if event.is_readable() || event.is_read_closed() {
                self.read(place, event.is_read_closed());
            }
        }
        let now = Instant::now();
        while let Some(Reverse((at, place, serial))) = self.due.peek().copied()
            && at <= now
        {
            self.due.pop();
            if self.slots[place].as_ref().is_some_and(|it| it.serial == serial) {
                self.on_due(place);
            }
        }
        Ok(())
    }

    fn open(&mut self) -> io::Result<()> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM.nonblocking(), None)?;
        if self.script.reading != Reading::All {
            socket.set_recv_buffer_size(SMALL_BUFFER)?;
        }
        let source = 1 + (self.serial % u64::from(self.size.sources)) as u32;
        socket.bind(&SocketAddr::from((Ipv4Addr::from(self.block + source), 0)).into())?;
        match socket.connect(&self.to.into()) {
            Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
            other => other?,
        }
        let Some(place) = self.vacant.pop() else { return Ok(()) };
        let interest = Interest::READABLE | Interest::WRITABLE;
        let descriptor = socket.as_raw_fd();
        self.poll.registry().register(&mut SourceFd(&descriptor), Token(place), interest)?;
        self.serial += 1;
        self.slots[place] = Some(Attacker {
            stream: socket,
            serial: self.serial,
            is_open: false,
            out: (self.script.opening)(self.serial),
            sent: 0,
            pieces: 0,
            is_closing: false,
            tail: Vec::new(),
        });
        Ok(())
    }

    fn end(&mut self, place: usize, is_ours: bool) {
        let Some(attacker) = self.slots[place].take() else { return };
        self.vacant.push(place);
        match (attacker.is_open, is_ours) {
            (false, _) => {
                self.tally.refused += 1;
                self.backoff_until = Instant::now() + BACKOFF;
            }
            (true, false) => self.tally.ended += 1,
            (true, true) => {}
        }
    }

    fn write(&mut self, place: usize) {
        let Some(it) = self.slots[place].as_mut() else { return };
        if !it.is_open {
            it.is_open = true;
            self.tally.opened += 1;
        }
        loop {
            while it.sent < it.out.len() {
                match it.stream.write(&it.out[it.sent..]) {
                    Ok(count) => {
                        it.sent += count;
                        self.tally.sent += count as u64;
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                    Err(_) => return self.end(place, false),
                }
            }
            match self.script.repeated {
                Some((piece, pause)) if pause.is_zero() => {
                    it.pieces += 1;
                    it.out = piece(it.pieces);
                    it.sent = 0;
                }
                Some(_) | None => break,
            }
        }
        if it.pieces == 0 && !it.is_closing {
            self.on_opened(place);
        }
    }

    /// Sets the timers of a connection whose opening is sent.
    fn on_opened(&mut self, place: usize) {
        let Some(it) = self.slots[place].as_mut() else { return };
        let now = Instant::now();
        let serial = it.serial;
        if let Some((after, mode)) = self.script.close_after {
            it.is_closing = true;
            if after.is_zero() {
                return self.leave(place, mode);
            }
            self.due.push(Reverse((now + after, place, serial)));
        } else if let Some((_, pause)) = self.script.repeated {
            self.due.push(Reverse((now + pause, place, serial)));
        }
        if let Reading::Slow(_, pause) = self.script.reading {
            self.due.push(Reverse((now + pause, place, serial)));
        }
    }

    fn leave(&mut self, place: usize, mode: CloseMode) {
        if let (Some(it), CloseMode::Reset) = (&self.slots[place], mode) {
            // It fails only if the connection is already closed.
            drop(it.stream.set_linger(Some(Duration::ZERO)));
        }
        self.end(place, true);
    }

    fn on_due(&mut self, place: usize) {
        if let Some((_, mode)) = self.script.close_after {
            return self.leave(place, mode);
        }
        let Some(it) = self.slots[place].as_mut() else { return };
        let (now, serial) = (Instant::now(), it.serial);
        if let Reading::Slow(count, pause) = self.script.reading {
            let mut piece = vec![0; count];
            match it.stream.read(&mut piece) {
                Ok(0) => return self.end(place, false),
                Ok(count) => self.tally.received += count as u64,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => return self.end(place, false),
            }
            self.due.push(Reverse((now + pause, place, serial)));
        } else if let Some((piece, pause)) = self.script.repeated {
            if it.sent == it.out.len() {
                it.pieces += 1;
                it.out = piece(it.pieces);
                it.sent = 0;
            }
            self.due.push(Reverse((now + pause, place, serial)));
            self.write(place);
        }
    }

    fn read(&mut self, place: usize, is_read_closed: bool) {
        if self.script.reading != Reading::All {
            // Without reading, a FIN from the service is not noticed, only a RST.
            return;
        }
        let mut piece = [0; 64 * 1024];
        loop {
            let Some(it) = self.slots[place].as_mut() else { return };
            match it.stream.read(&mut piece) {
                Ok(0) => return self.end(place, false),
                Ok(count) => {
                    self.tally.received += count as u64;
                    it.tail.extend_from_slice(&piece[..count]);
                    count_statuses(&mut it.tail, &mut self.tally.statuses);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => return self.end(place, false),
            }
        }
        if is_read_closed && self.script.repeated.is_none() {
            self.end(place, false);
        }
    }
}

const STATUS_LINE: &[u8] = b"HTTP/1.1 ";

/// Counts the status lines in `bytes`, and keeps the bytes that may begin another one.
fn count_statuses(bytes: &mut Vec<u8>, statuses: &mut BTreeMap<u16, u64>) {
    let whole = STATUS_LINE.len() + 3;
    let mut at = 0;
    while at + whole <= bytes.len() {
        if bytes[at] == b'H' && bytes[at..].starts_with(STATUS_LINE) {
            let digits = &bytes[at + STATUS_LINE.len()..at + whole];
            let status = digits.iter().fold(0, |sum, it| sum * 10 + u16::from(it & 15));
            *statuses.entry(status).or_default() += 1;
            at += whole;
        } else {
            at += 1;
        }
    }
    bytes.drain(..at);
}
