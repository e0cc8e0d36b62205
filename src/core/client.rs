//! One client: its connection, and the state of its current request.
//!
//! One request is answered at a time. An answer is written at once, or piece by piece while its
//! scan runs and while its reader lags. `clients` drives this module. A client never closes itself.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use super::eviction::Candidate;
use super::pending_request::PendingRequest;
use super::streams::{PendingAnswer, ScanStream};
use crate::access::quota::Share;
use crate::conn::Conn;
use crate::http::Request;
use crate::limits::LAG_GRACE;
use crate::scan::summary::OpenRtt;
use crate::service_names::Names;
use crate::slots::Key;

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Client {
    /// The protocol state of the connection.
    pub(super) conn: Conn,
    pub(super) socket: Key,
    pub(super) activity: Activity,
    /// Whether the client is in the queue of clients to be served.
    pub(super) is_queued: bool,
    peer: Option<SocketAddr>,
    received_at: Instant,
}

/// The state of the client's current request.
#[derive(Debug)]
pub(super) enum Activity {
    /// No request is being answered. The connection's own deadlines are armed.
    Waiting,
    /// A request waits until the token file or /proc has been read. No deadline is armed, because
    /// the file is read within the same tick.
    AwaitingFile(Box<Request>),
    /// A scan runs for the request. The deadlines of its job are armed. The end of the job ends
    /// this state, and so does the end of the client, which cancels the job.
    Scanning(Box<ActiveScan>),
    /// The scan has ended, and the reader of its answer lags. The stall deadline of the connection
    /// is armed. The last byte of the answer ends this state.
    Delivering(Box<PendingAnswer>),
}

/// A scan that runs for a client.
#[derive(Debug)]
pub(super) struct ActiveScan {
    pub(super) job: Key,
    /// The share of the quota, which is returned when the scan ends for any reason.
    pub(super) share: Share,
    pub(super) pending: PendingRequest,
    /// Whether the target has an address, and is probed.
    pub(super) has_begun: bool,
    /// `None` if the answer is not a stream, or has not begun.
    pub(super) stream: Option<ScanStream>,
    /// The round trips of open ports, for a form that writes them at the end.
    pub(super) rtts: Vec<OpenRtt>,
}

impl Client {
    /// A newly accepted client. `peer` is `None` if the peer has no internet address.
    pub(super) fn new(now: Instant, socket: Key, peer: Option<SocketAddr>) -> Self {
        let (conn, activity) = (Conn::new(now), Activity::Waiting);
        Self { conn, socket, activity, is_queued: false, peer, received_at: now }
    }

    /// Bytes arrived.
    pub(super) fn handle_received(&mut self, now: Instant, bytes: &[u8]) {
        self.received_at = now;
        self.conn.handle_received(now, bytes);
    }

    /// Takes the request that waits for a file, if there is one.
    pub(super) fn take_awaiting_file(&mut self) -> Option<Request> {
        match std::mem::replace(&mut self.activity, Activity::Waiting) {
            Activity::AwaitingFile(request) => Some(*request),
            other @ (Activity::Scanning(_) | Activity::Delivering(_) | Activity::Waiting) => {
                self.activity = other;
                None
            }
        }
    }

    /// Writes the data kept for the client, as far as it keeps up: open ports of a stream, and the
    /// whole rest once the scan has ended.
    pub(super) fn write_pending(&mut self, now: Instant, names: &Names) {
        let Self { conn, activity, .. } = self;
        let is_written = match activity {
            Activity::Scanning(scan) => match &mut scan.stream {
                Some(stream) => stream.write_deferred(now, conn),
                None => false,
            },
            Activity::Delivering(pending) => pending.write(now, conn, names),
            Activity::AwaitingFile(_) | Activity::Waiting => false,
        };
        if is_written && matches!(activity, Activity::Delivering(_)) {
            conn.end_stream(now);
            *activity = Activity::Waiting;
        }
    }

    /// The address of the peer. All peers without an address count as one client.
    pub(super) fn peer_ip(&self) -> IpAddr {
        self.peer.map_or(Ipv4Addr::UNSPECIFIED.into(), |peer| peer.ip().to_canonical())
    }

    /// The scan that runs for the client.
    pub(super) fn scan(&self) -> Option<&ActiveScan> {
        match &self.activity {
            Activity::Scanning(scan) => Some(scan),
            Activity::AwaitingFile(_) | Activity::Delivering(_) | Activity::Waiting => None,
        }
    }

    /// The time of the next deadline.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let stream = self.scan().and_then(|scan| scan.stream.as_ref());
        self.conn.deadline().into_iter().chain(stream.map(ScanStream::progress_at)).min()
    }

    /// The number of bytes that are kept for the client to read.
    pub(super) fn pending_bytes(&self) -> usize {
        let undelivered = match &self.activity {
            Activity::Delivering(pending) => pending.kept_bytes(),
            Activity::Waiting | Activity::AwaitingFile(_) | Activity::Scanning(_) => 0,
        };
        self.conn.output().len() + undelivered
    }

    /// The client as a candidate for eviction, from the given time after it sent something, or from
    /// the time when it began to lag. `None` while it is being served.
    pub(super) fn candidate(&self, key: Key, silence_grace: Duration) -> Option<Candidate> {
        let evictable_at = match (&self.activity, self.conn.lagging_since()) {
            (Activity::Waiting, None) => self.received_at + silence_grace,
            (Activity::Waiting | Activity::Delivering(_), Some(since)) => since + LAG_GRACE,
            (Activity::Delivering(_), None) => return None,
            (Activity::AwaitingFile(_) | Activity::Scanning(_), _) => return None,
        };
        Some(Candidate { evictable_at, client: key, pending_bytes: self.pending_bytes() })
    }

    /// Whether the client sends requests without waiting for their answers.
    pub(super) fn is_pipelining(&self) -> bool {
        matches!(self.activity, Activity::Waiting) && self.conn.is_pipelining()
    }
}
