//! Every bound in one place, each with its reason, and the sums that must hold between them.
//!
//! Constants are the bounds nobody needs to turn; [`Settings`] are those the command line turns.
//! Nothing here computes at run time.

use std::time::Duration;

// --- HTTP: what one connection may cost -------------------------------------------------------

/// Bytes of a request's head, request line included. Node's limit; nginx allows 32 KB.
pub const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Bytes of the request target. Targets of 8,000 bytes are common (RFC 9112 section 3 asks for
/// at least 8,000), longer ones answer 414.
pub const TARGET_BYTES_MAX: usize = 8 * 1024;
/// Header fields of one head; hyper's limit.
pub const HEADERS_MAX: usize = 100;
/// Bytes of a request's body. No route uses one: it is read only to keep the connection.
pub const BODY_BYTES_MAX: u64 = 64 * 1024;
/// Bytes of one chunk-size line with its extensions.
pub const CHUNK_LINE_BYTES_MAX: usize = 256;
/// Bytes of all trailer lines of one body together; no route wants one.
pub const TRAILER_BYTES_MAX: usize = 4 * 1024;
/// Empty lines skipped before a request line; RFC 9112 section 2.2 asks for one at least.
pub const EMPTY_LINES_MAX: usize = 8;
/// Bytes that one connection holds unread while a head comes: all of it. While a request is
/// answered it holds [`READ_BYTES_MAX`] of what comes behind it.
pub const INPUT_BYTES_MAX: usize = HEAD_BYTES_MAX;
/// Bytes that the shell reads from a socket in one call, and so of one client in one turn. Most
/// requests have less; a long one is read and parsed a piece at a time, so that a thousand of them
/// delay everybody else by some 40 ms.
pub const READ_BYTES_MAX: usize = 4 * 1024;
/// Bytes that wait for the slow reader of a scan's answer, beyond which what it has to be told is
/// kept as sets of ports. A buffer doubles when it grows, so it takes less than twice as much and
/// an event: with five sets of 8 KB it stays below 64 KB.
pub const STREAM_BYTES_MAX: usize = 12 * 1024;
/// Bytes of all answers together that wait for their readers when the answer to a scan comes: one
/// keeps 512 KB of sets for a name of 64 addresses, and a probe's page has 2 MB where every port is
/// open. The longest laggards lose theirs.
pub const ANSWER_BYTES_WAITING_MAX: usize = 16 * 1024 * 1024;
/// Bytes of answers waiting beyond which the next pipelined request is not looked at yet. Small,
/// since it is how far one client is served before the next has its turn: at a few answers of
/// `/healthz` each, a thousand floods delay everybody else by some 20 ms.
pub const PIPELINED_BYTES_MAX: usize = 1024;
/// Bytes that an emptied buffer keeps allocated: an idle connection's two together with its state
/// stay below 1 KB, and a health check's request and answer fit.
pub const BUFFER_KEPT_BYTES: usize = 256;
/// Bytes that the kernel holds for a reader whose window is shut (TCP_NOTSENT_LOWAT, tcp(7)): up
/// to 4 MB (tcp_wmem) without it, which a thousand such readers turn into a shortage for everybody.
/// What a reader's window allows is under way beside it.
pub const UNSENT_BYTES_MAX: u32 = 16 * 1024;
/// Requests on one connection before it is closed, so that load can be spread anew. nginx closes
/// after 1,000, which a benchmark notices.
pub const REQUESTS_PER_CONNECTION_MAX: u32 = 1_000_000;

/// From a request's first byte to the end of its head, absolute: a byte now and then buys nothing.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// From the end of the head to the end of the body, absolute.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// A connection without a request. nginx's.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(75);
/// Output waits and the reader takes none of it.
pub const WRITE_STALL_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a client may be silent before it gives way, for each place that there is, where
/// connections are at their cap and another knocks. A request comes right behind the handshake: of
/// a thousand places it has a millisecond to arrive; of a dozen, those who wait would be held up by
/// those who say nothing.
pub const SILENCE_GRACE_PER_PLACE: Duration = Duration::from_micros(1);
/// How long a reader may lag before it gives way, where connections are at their cap and another
/// client knocks. An answer of usual size the kernel takes whole, so only a reader of a large one
/// ever lags.
pub const LAG_GRACE: Duration = Duration::from_millis(50);
/// After our last byte and FIN: how long we read on, so that a RST does not destroy an answer
/// that the client has not read yet (RFC 9112 section 9.6).
pub const LINGER_TIMEOUT: Duration = Duration::from_secs(2);

// --- The loop: what one turn may cost ---------------------------------------------------------

/// Events taken from the poller in one turn. Most are outcomes, each with a close: 3 to 5 µs.
pub const EVENTS_PER_TURN: usize = 256;
/// Reads or writes on the ready list in one turn.
pub const READY_PER_TURN: usize = 256;
/// Connections accepted in one turn.
pub const ACCEPTS_PER_TURN: usize = 64;
/// Connects started in one turn. At 7 to 10 µs each a slice holds the loop for a third of a
/// millisecond, which is what a health check waits at most.
pub const LAUNCHES_PER_TURN: usize = 32;
/// Overdue or surplus probes closed in one turn.
pub const CLOSES_PER_TURN: usize = 128;
/// Clients in one turn who are told that their next answer is the last, since others wait for a
/// place. Enough for a hundred who knock to be let in within a tenth of a second.
pub const PARTINGS_PER_TURN: usize = 16;
/// Connections that wait in a listener's queue; the default of net.core.somaxconn.
pub const ACCEPT_QUEUE_MAX: usize = 4096;
/// How long the listeners rest after `accept` ran short of something, unless a close wakes them.
pub const ACCEPT_PARK: Duration = Duration::from_millis(100);
/// How long a socket rests whose call was broken off or found no memory, or that the poller has no
/// room for. Such things pass soon or stay; a round trip is no shorter.
pub const SOCKET_REST: Duration = Duration::from_millis(20);
/// Bytes of log lines waiting for a stderr that takes none; beyond it lines are dropped, counted.
pub const LOG_BYTES_MAX: usize = 64 * 1024;

// --- Names ------------------------------------------------------------------------------------

/// Lookups under way; equal ones share one.
pub const LOOKUPS_MAX: usize = 256;
/// Sockets of one lookup at a time: A and AAAA, each from its own.
pub const SOCKETS_PER_LOOKUP: usize = 2;
/// Names in the cache; the one that expires first makes room.
pub const CACHE_ENTRIES_MAX: usize = 1024;
/// Addresses of one name that are looked at; a reply holds more only to do harm.
pub const ADDRESSES_PER_NAME_MAX: usize = 64;
/// CNAMEs followed in one reply.
pub const CNAME_CHAIN_MAX: usize = 16;
/// Records of one reply's answer section that are looked at: room for the addresses, the aliases
/// before them, and their signatures.
pub const ANSWER_RECORDS_MAX: usize = 256;
/// Bytes of one DNS message over TCP.
pub const DNS_MESSAGE_BYTES_MAX: usize = 65_535;
/// The TTL of a positive answer is clamped into this range.
pub const TTL_MIN: Duration = Duration::from_secs(1);
/// See [`TTL_MIN`].
pub const TTL_MAX: Duration = Duration::from_secs(300);
/// The TTL of "no such name" at most.
pub const NEGATIVE_TTL_MAX: Duration = Duration::from_secs(30);
/// A whole lookup, all names, servers and attempts together.
pub const LOOKUP_TIMEOUT: Duration = Duration::from_secs(15);
/// How long A and AAAA wait for each other: a network that drops the one kind of question delays
/// a lookup by no more than this. RFC 8305 section 3 waits 50 ms, but it connects meanwhile.
pub const FAMILY_GRACE: Duration = Duration::from_secs(2);
/// The rest before the servers are gone through once more: without it, servers that refuse at
/// once would be asked again at the same instant.
pub const ROUND_REST: Duration = Duration::from_millis(100);
/// Name servers of resolv.conf that are used; MAXNS of resolv.conf(5).
pub const NAME_SERVERS_MAX: usize = 3;
/// Suffixes of the search list that are used. Kubernetes allows 32; glibc since 2.26 any number.
pub const SEARCH_SUFFIXES_MAX: usize = 32;
/// The highest `ndots`, `timeout` (in seconds) and `attempts`, which resolv.conf(5) caps silently.
pub const NDOTS_MAX: u32 = 15;
/// See [`NDOTS_MAX`].
pub const SERVER_TIMEOUT_SECS_MAX: u32 = 30;
/// See [`NDOTS_MAX`].
pub const SERVER_ATTEMPTS_MAX: u32 = 5;
/// How old what we know of resolv.conf and the hosts file may be before a lookup has it read again.
pub const NAME_FILES_AGE_MAX: Duration = Duration::from_secs(5);
/// The same where one of them could not be read, as when descriptors ran out.
pub const NAME_FILES_RETRY: Duration = Duration::from_millis(250);
/// Bytes of resolv.conf or of the hosts file that are read.
pub const NAME_FILE_BYTES_MAX: usize = 1024 * 1024;

// --- Scans ------------------------------------------------------------------------------------

/// Connects in flight of one process, whatever RLIMIT_NOFILE would allow: one per port.
pub const IN_FLIGHT_CEILING: usize = 65_536;
/// Scans of single addresses under way, beyond which `addresses=all` is told to come again. Each
/// takes 50 KB, a name may have [`ADDRESSES_PER_NAME_MAX`] addresses, and anybody may make one.
pub const ADDRESS_SCANS_MAX: usize = 512;
/// What `timeout=auto` starts with and never exceeds: the default deadline, one kernel repeat.
pub const TIMEOUT_AUTO_MAX: Duration = Duration::from_secs(2);

/// The shortest and the longest connect deadline that may be asked for.
pub const TIMEOUT_MIN: Duration = Duration::from_millis(10);
/// See [`TIMEOUT_MIN`].
pub const TIMEOUT_MAX: Duration = Duration::from_secs(60);
/// Passes over silent ports that may be asked for.
pub const RETRIES_MAX: u8 = 10;
/// New connects per second that may be asked for; far above what one thread can start.
pub const RATE_MAX: u32 = 10_000_000;
/// Items of one list of ports: more would name some port twice.
pub const PORT_ITEMS_MAX: usize = 65_535;
/// Parameters that one answer calls faulty; the rest of a flood of unknown names is not told.
pub const INVALID_FIELDS_MAX: usize = 32;
/// The rest after a shortage before anything is launched again, and by how much it grows.
pub const SHORTAGE_REST_MIN: Duration = Duration::from_millis(5);
/// See [`SHORTAGE_REST_MIN`].
pub const SHORTAGE_REST_MAX: Duration = Duration::from_millis(500);

// --- What is counted --------------------------------------------------------------------------

/// Pairs of route and status with a counter of their own: 8 routes, some 20 statuses, of which
/// one route alone knows most.
pub const REQUEST_LABELS_MAX: usize = 128;
/// Results or reasons of one kind with a counter of their own.
pub const LABELS_MAX: usize = 32;

// --- The command line -------------------------------------------------------------------------

/// The longest path of a Unix socket: sun_path has 108 bytes, the last a NUL (unix(7)).
pub const UNIX_PATH_BYTES_MAX: usize = 107;
/// Listeners that a service manager may pass. One unit has a few.
pub const PASSED_LISTENERS_MAX: usize = 64;

/// The greatest count that a flag may name. The kernel's own limit of descriptors per process
/// (`fs.nr_open`) is 1,048,576 unless raised.
pub const COUNT_MAX: usize = 1_000_000;
/// The longest `--max-scan-time`: probes count microseconds from their scan's start in 32 bits.
pub const SCAN_TIME_MAX: Duration = Duration::from_secs(3600);
/// The longest `--drain-delay` and `--drain-timeout`: who wants longer does not want to stop.
pub const DRAIN_TIME_MAX: Duration = Duration::from_secs(3600);

/// A health check waits so long for its connection, and again for its answer.
pub const HEALTHCHECK_STEP_TIMEOUT: Duration = Duration::from_secs(1);
/// Targets of one use from the shell. Each costs about 100 bytes; who has more runs twice.
pub const TARGETS_MAX: usize = 1 << 20;
/// Bytes of a list of targets: room for that many names.
pub const TARGETS_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Bad lines of a list that are told one by one; of the others only the number.
pub const BAD_LINES_MAX: usize = 1000;
/// Shards of one sweep; one machine each.
pub const SHARDS_MAX: u64 = 65_536;
/// Targets scanned at once from the shell, where each has few ports. Each costs 3 KB, and
/// of its sets of ports as much as the highest port asks for, 40 KB at most.
pub const BATCH_JOBS_MAX: usize = 1024;
/// Bytes printed that wait for a slow reader, beyond which no further target is begun.
pub const PRINTOUT_BYTES_MAX: usize = 64 * 1024;

// --- Descriptors ------------------------------------------------------------------------------

/// Kept back for what is open for a moment (resolv.conf, a route's UDP socket, a refused client).
/// Redis keeps 32 back; we open one such at a time.
pub const DESCRIPTORS_SPARE: usize = 4;
/// Memory that one connect in flight costs: the kernel charges its socket to the control group,
/// measured 4,020 bytes on Linux 6.18, and we keep some 70 ourselves; the rest is for other
/// kernels.
pub const PROBE_MEMORY_BYTES: u64 = 4608;
/// Memory set aside for everything but probes: idle we take 1 MiB, and usual clients below 1 KB
/// each. What attackers may have us take beyond is summed up in docs/testing.md.
pub const MEMORY_SPARE_BYTES: u64 = 4 * 1024 * 1024;
/// The smallest share that still is a service: one client, one lookup, one probe.
pub const DESCRIPTORS_MIN: usize = DESCRIPTORS_SPARE + 1 + SOCKETS_PER_LOOKUP + 1;

const _: () = assert!(PIPELINED_BYTES_MAX < STREAM_BYTES_MAX, "a stream may wait longer");
const _: () = assert!(LAG_GRACE.as_millis() < WRITE_STALL_TIMEOUT.as_millis());
const _: () = assert!(TARGET_BYTES_MAX < HEAD_BYTES_MAX, "414 can be told from 431");
const _: () = assert!(INPUT_BYTES_MAX >= HEAD_BYTES_MAX, "a whole head fits the input");
const _: () = assert!(CHUNK_LINE_BYTES_MAX < INPUT_BYTES_MAX, "a chunk line fits the input");
const _: () = assert!(READ_BYTES_MAX >= 512, "one read takes a whole datagram of DNS");
const _: () = assert!(ADDRESSES_PER_NAME_MAX + CNAME_CHAIN_MAX < ANSWER_RECORDS_MAX);
const _: () = assert!(FAMILY_GRACE.as_secs() < LOOKUP_TIMEOUT.as_secs());
const _: () = assert!(LOOKUPS_MAX <= BATCH_JOBS_MAX, "targets whose names are known run on");
const _: () = assert!(DESCRIPTORS_MIN < 64, "a limit of 64 descriptors is enough");
const _: () = assert!(SCAN_TIME_MAX.as_micros() < u32::MAX as u128, "32 bits are enough");
const _: () = assert!(LAUNCHES_PER_TURN <= EVENTS_PER_TURN, "outcomes are reaped as fast as made");

/// What the command line turns; `config` fills it, the core obeys it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// A connect's deadline where the request names none.
    pub timeout: Duration,
    /// The longest a scan may take; what is left then is untested.
    pub scan_time_max: Duration,
    /// Scans at once.
    pub scans_max: usize,
    /// Scans at once for one client address.
    pub scans_per_client_max: usize,
    /// Client connections at once.
    pub connections_max: usize,
    /// Connects in flight at once; `None`: what RLIMIT_NOFILE leaves.
    pub in_flight_max: Option<usize>,
    /// How long the listeners stay open after SIGTERM while `/readyz` says 503.
    pub drain_delay: Duration,
    /// When scans that still run after SIGTERM are answered as they stand.
    pub drain_timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(2),
            scan_time_max: Duration::from_secs(300),
            scans_max: 64,
            scans_per_client_max: 16,
            connections_max: 1024,
            in_flight_max: None,
            drain_delay: Duration::ZERO,
            drain_timeout: Duration::from_secs(20),
        }
    }
}
