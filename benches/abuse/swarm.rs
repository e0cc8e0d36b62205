//! The attackers: one thread, one poller, as many connections as a script wants, each opened anew
//! whenever it ends.

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

/// Makes what is sent from a number.
pub(crate) type Piece = fn(u64) -> Vec<u8>;

/// What each connection of a swarm does.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Script {
    /// Sent at once; the number counts the connections.
    pub(crate) opening: Piece,
    /// Sent behind it, a piece each time so much time has passed; the number counts the pieces.
    /// With no time between, whenever the kernel has taken the last.
    pub(crate) drip: Option<(Piece, Duration)>,
    pub(crate) reading: Reading,
    /// When it goes by itself, counted from the opening's end.
    pub(crate) leaving: Option<(Duration, Parting)>,
}

/// What becomes of answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reading {
    /// Read as they come.
    All,
    /// So many bytes, then a pause; into a small receive buffer.
    Slow(usize, Duration),
    /// Never read; into a small receive buffer.
    Never,
}

/// How a client goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Parting {
    Fin,
    Reset,
}

/// What the attackers got.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    /// Connections that were established.
    pub(crate) opened: u64,
    /// Connects that failed.
    pub(crate) refused: u64,
    /// Connections that the service ended.
    pub(crate) ended: u64,
    pub(crate) sent: u64,
    pub(crate) received: u64,
    /// Answers that were read, by status.
    pub(crate) statuses: BTreeMap<u16, u64>,
}

/// A swarm at work, until it is stopped or dropped.
#[derive(Debug)]
pub(crate) struct Swarm {
    must_stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<io::Result<Tally>>>,
}

/// How many there are, and from how many addresses they come. Each swarm has a block of its own,
/// so that the TIME_WAITs of one do not slow down the next.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    pub(crate) connections: usize,
    pub(crate) sources: u16,
}

impl Swarm {
    /// Begins the attack.
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
            rest_until: Instant::now(),
            tally: Tally::default(),
        };
        let is_over = Arc::clone(&must_stop);
        let thread = std::thread::spawn(move || {
            while !is_over.load(Ordering::Relaxed) {
                state.turn()?;
            }
            Ok(state.tally)
        });
        Ok(Self { must_stop, thread: Some(thread) })
    }

    /// Ends it: every connection is closed.
    pub(crate) fn stop(mut self) -> Result<Tally, String> {
        self.must_stop.store(true, Ordering::Relaxed);
        let ended = self.thread.take().map(JoinHandle::join);
        match ended {
            Some(Ok(tally)) => tally.map_err(|error| format!("the attackers failed: {error}")),
            Some(Err(_)) | None => Err("the attackers panicked".into()),
        }
    }
}

impl Drop for Swarm {
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
    is_leaving: bool,
    /// The last bytes read: a status line may be cut.
    tail: Vec<u8>,
}

struct State {
    to: SocketAddr,
    /// The address before the first that they come from.
    block: u32,
    script: Script,
    size: Size,
    poll: Poll,
    slots: Vec<Option<Attacker>>,
    vacant: Vec<usize>,
    /// When a connection has something to do by time: its place and its serial number.
    due: BinaryHeap<Reverse<(Instant, usize, u64)>>,
    serial: u64,
    /// After a connect that failed no other is tried before.
    rest_until: Instant,
    tally: Tally,
}

/// Connections opened before events are looked at again.
const OPENINGS_PER_TURN: usize = 64;
/// After the kernel or the service has refused.
const REST: Duration = Duration::from_millis(5);
/// Long enough for nothing to be late, short enough to stop soon.
const PAUSE_MAX: Duration = Duration::from_millis(10);
/// The smallest that the kernel grants is about twice as much.
const SMALL_BUFFER: usize = 2048;

impl State {
    fn turn(&mut self) -> io::Result<()> {
        let mut budget = OPENINGS_PER_TURN;
        while budget > 0 && !self.vacant.is_empty() && self.rest_until <= Instant::now() {
            budget -= 1;
            if self.open().is_err() {
                self.tally.refused += 1;
                self.rest_until = Instant::now() + REST;
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
            is_leaving: false,
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
                self.rest_until = Instant::now() + REST;
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
            match self.script.drip {
                Some((piece, pause)) if pause.is_zero() => {
                    it.pieces += 1;
                    it.out = piece(it.pieces);
                    it.sent = 0;
                }
                Some(_) | None => break,
            }
        }
        if it.pieces == 0 && !it.is_leaving {
            self.on_opened(place);
        }
    }

    /// The opening is sent.
    fn on_opened(&mut self, place: usize) {
        let Some(it) = self.slots[place].as_mut() else { return };
        let now = Instant::now();
        let serial = it.serial;
        if let Some((after, parting)) = self.script.leaving {
            it.is_leaving = true;
            if after.is_zero() {
                return self.leave(place, parting);
            }
            self.due.push(Reverse((now + after, place, serial)));
        } else if let Some((_, pause)) = self.script.drip {
            self.due.push(Reverse((now + pause, place, serial)));
        }
        if let Reading::Slow(_, pause) = self.script.reading {
            self.due.push(Reverse((now + pause, place, serial)));
        }
    }

    fn leave(&mut self, place: usize, parting: Parting) {
        if let (Some(it), Parting::Reset) = (&self.slots[place], parting) {
            // Where it fails the connection is gone already.
            drop(it.stream.set_linger(Some(Duration::ZERO)));
        }
        self.end(place, true);
    }

    fn on_due(&mut self, place: usize) {
        if let Some((_, parting)) = self.script.leaving {
            return self.leave(place, parting);
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
        } else if let Some((piece, pause)) = self.script.drip {
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
            // A FIN without a RST: the service has said goodbye, and we have not read it.
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
        if is_read_closed && self.script.drip.is_none() {
            self.end(place, false);
        }
    }
}

const STATUS_LINE: &[u8] = b"HTTP/1.1 ";

/// Counts the status lines in `bytes` and keeps what may be the begin of another.
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
