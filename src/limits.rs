//! The bounds of the program, each with its reason, and the relations between them that must hold.
//!
//! Constants are the bounds that need no flag; [`Settings`] holds those that the command line sets.
//! No value here is computed at run time. This module has no state.

use std::net::IpAddr;
use std::time::Duration;

use crate::interfaces::Interfaces;
use crate::technique::{RawAccess, Technique};

// --- HTTP: the cost of one connection ---------------------------------------------------------

/// The length of a request's head in bytes, including the request line. This is the limit of Node;
/// nginx permits 32 KB.
pub const HEAD_BYTES_MAX: usize = 16 * 1024;
/// The length of the request target in bytes. RFC 9112 section 3 recommends to support request
/// lines of at least 8,000 bytes; longer targets are answered with 414.
pub const TARGET_BYTES_MAX: usize = 8 * 1024;
/// The number of header fields in one head. This is the limit of hyper.
pub const HEADERS_MAX: usize = 100;
/// The length of a request's body in bytes. No route uses a body: it is read only to keep the
/// connection usable.
pub const BODY_BYTES_MAX: u64 = 64 * 1024;
/// The length in bytes of the line with the size of one chunk, including its extensions.
pub const CHUNK_LINE_BYTES_MAX: usize = 256;
/// The length in bytes of all trailer lines of one body together. No route uses them.
pub const TRAILER_BYTES_MAX: usize = 4 * 1024;
/// The number of empty lines that are skipped before a request line. RFC 9112 section 2.2 requires
/// at least one.
pub const EMPTY_LINES_MAX: usize = 8;
/// The number of bytes that one connection buffers unparsed while a head arrives: the whole head.
/// While a request is answered, it buffers at most [`READ_BYTES_MAX`] of the bytes after it.
pub const INPUT_BYTES_MAX: usize = HEAD_BYTES_MAX;
/// The number of bytes that the event loop reads from a socket in one call. Most requests are
/// shorter. A long request is read and parsed piece by piece.
pub const READ_BYTES_MAX: usize = 4 * 1024;
/// The number of bytes that wait for the slow reader of a scan's answer. Beyond it, the rest of the
/// answer is kept as sets of ports. A buffer doubles when it grows, so it takes less than twice
/// this size plus one event: with five sets of 8 KB the total stays below 64 KB.
pub const STREAM_BYTES_MAX: usize = 12 * 1024;
/// The number of bytes of all answers that may wait for their readers when another answer is added.
/// One answer keeps 512 KB of sets for a name with 64 addresses, and the answer of the `/probe`
/// route has 2 MB if every port is open. Beyond the bound, the clients that have lagged longest are
/// closed.
pub const ANSWER_BYTES_WAITING_MAX: usize = 16 * 1024 * 1024;
/// The number of bytes of waiting answers beyond which the next pipelined request is not parsed
/// yet. It is small, because it determines how much one client is served before the next one has
/// its turn: at a few answers of `/healthz` each, a thousand flooding clients delay the others by
/// some 20 ms.
pub const PIPELINED_BYTES_MAX: usize = 1024;
/// The number of bytes that an empty buffer keeps allocated. The two buffers of an idle connection
/// together with its state stay below 1 KB, and the request and answer of a health check fit.
pub const BUFFER_KEPT_BYTES: usize = 256;
/// The number of unsent bytes that the kernel buffers for a reader whose window is closed
/// (TCP_NOTSENT_LOWAT, tcp(7)). Without it the kernel buffers up to 4 MB (tcp_wmem), and a thousand
/// such readers would cause a shortage for all clients. Bytes that the window of the reader permits
/// are in flight in addition.
pub const UNSENT_BYTES_MAX: u32 = 16 * 1024;
/// The number of requests on one connection before it is closed, so that load can be redistributed.
/// nginx closes after 1,000, which is visible in benchmarks.
pub const REQUESTS_PER_CONNECTION_MAX: u32 = 1_000_000;

/// The time from the first byte of a request to the end of its head. It is absolute, so sending
/// single bytes does not extend it.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// The time from the end of the head to the end of the body, also absolute.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// The time for which a connection may have no request. This is the default of nginx.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(75);
/// The time for which a reader may accept no bytes while output waits.
pub const WRITE_STALL_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a client may be silent before it may be evicted, multiplied by the number of permitted
/// connections. It applies if connections are at their cap and another client waits. A request
/// follows immediately after the handshake: with a cap of a thousand connections it has a
/// millisecond to arrive. With a cap of a dozen, a long grace period would let silent clients delay
/// the waiting ones.
pub const SILENCE_GRACE_PER_PLACE: Duration = Duration::from_micros(1);
/// How long a reader may lag before it may be evicted, if connections are at their cap and another
/// client waits. The kernel accepts an answer of usual size as a whole, so only a reader of a large
/// answer ever lags.
pub const LAG_GRACE: Duration = Duration::from_millis(50);
/// How long the server reads on after its last byte and FIN, so that a RST does not destroy an
/// answer that the client has not read yet (RFC 9112 section 9.6).
pub const LINGER_TIMEOUT: Duration = Duration::from_secs(2);

// --- The event loop: the cost of one tick -----------------------------------------------------

/// The number of events taken from the poller in one tick. Most are outcomes, each with a close: 3
/// to 5 µs.
pub const EVENTS_PER_TICK: usize = 256;
/// The number of reads or writes for sockets on the ready list in one tick.
pub const READY_PER_TICK: usize = 256;
/// The number of bytes that are read in one tick from each group of sockets: those that the poller
/// has reported, those on the ready list, and those of accepted clients. Therefore clients with
/// many or long requests wait for each other, and other clients wait for one tick.
pub const READ_BYTES_PER_TICK: usize = 2 * READ_BYTES_MAX;
/// The number of bytes that are read beyond that from each socket that the poller has reported and
/// from each accepted client: a usual request. A client that is not read from would seem silent,
/// and would be closed if connections are at their cap.
pub const READ_BYTES_BEYOND: usize = 1024;
/// The number of connections accepted in one tick.
pub const ACCEPTS_PER_TICK: usize = 64;
/// The number of probes of ended scans that are given up in one tick. At some 0.5 µs each this
/// takes 2 ms, and those of the largest scan are gone after a few ticks.
pub const ABANDONS_PER_TICK: usize = 4096;
/// The number of idle sockets of the engine closed in one tick, at 2 to 4 µs each.
pub const IDLE_CLOSES_PER_TICK: usize = 256;
/// The number of consecutive ticks in which nothing expires, because outcomes may still wait in the
/// poller.
pub const BEHIND_TICKS_MAX: u32 = 64;
/// The number of clients per tick whose next answer is announced as the last one, because other
/// clients wait to connect. It admits a hundred waiting clients within a tenth of a second.
pub const LAST_ANSWERS_PER_TICK: usize = 16;
/// The number of connections that wait in the queue of a listener; the default of
/// net.core.somaxconn.
pub const ACCEPT_QUEUE_MAX: usize = 4096;
/// The length of the backoff after a shortage in `accept`, unless a closed descriptor ends it
/// earlier.
pub const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);
/// The length of the backoff of a socket after an interrupted call, a lack of memory, or a poller
/// without space for it. Such conditions either pass soon or persist. It is short in comparison to
/// [`LAG_GRACE`]: a client whose answer could not be written for this reason is not a slow reader,
/// and must not be evicted as one.
pub const SOCKET_BACKOFF: Duration = Duration::from_millis(5);
/// The number of bytes of log lines that wait while stderr accepts none. Further lines are dropped
/// and counted.
pub const LOG_BYTES_MAX: usize = 64 * 1024;

// --- DNS --------------------------------------------------------------------------------------

/// The number of running lookups. Equal questions share one.
pub const LOOKUPS_MAX: usize = 256;
/// The number of sockets of one lookup at a time: A and AAAA use one each.
pub const SOCKETS_PER_LOOKUP: usize = 2;
/// The number of questions in the cache. Beyond it, the entry that expires first is removed.
pub const CACHE_ENTRIES_MAX: usize = 1024;
/// The number of addresses of one name and family that are kept: as many as are read of one answer
/// section beside its aliases and their signatures. Only a malicious reply has more.
pub const ADDRESSES_PER_NAME_MAX: usize = ANSWER_RECORDS_MAX - 2 * CNAME_CHAIN_MAX;
/// The number of addresses of one name of which one is selected, or which are all scanned with
/// `addresses=all`. The others are listed in the answer.
pub const ADDRESSES_SCANNED_MAX: usize = 64;
/// The number of CNAMEs that are followed in one reply.
pub const CNAME_CHAIN_MAX: usize = 16;
/// The number of records of one answer section that are parsed. There is space for the addresses,
/// the aliases before them, and their signatures.
pub const ANSWER_RECORDS_MAX: usize = 256;
/// The length of one DNS message over TCP in bytes.
pub const DNS_MESSAGE_BYTES_MAX: usize = 65_535;
/// The TTL of a positive answer is clamped to this range.
pub const TTL_MIN: Duration = Duration::from_secs(1);
/// See [`TTL_MIN`].
pub const TTL_MAX: Duration = Duration::from_secs(300);
/// The maximum TTL of "no such name".
pub const NEGATIVE_TTL_MAX: Duration = Duration::from_secs(30);
/// The time for a whole lookup, including all names, servers and attempts.
pub const LOOKUP_TIMEOUT: Duration = Duration::from_secs(15);
/// How long A and AAAA wait for each other: a network that drops one kind of query delays a lookup
/// by no more than this. RFC 8305 section 3 waits 50 ms, but the client connects meanwhile.
pub const FAMILY_GRACE: Duration = Duration::from_secs(2);
/// The length of the backoff before the next round through the servers. Without it, servers that
/// refuse at once would be asked again at the same instant.
pub const ROUND_BACKOFF: Duration = Duration::from_millis(100);
/// The number of name servers in resolv.conf that are used; MAXNS of resolv.conf(5).
pub const NAME_SERVERS_MAX: usize = 3;
/// The number of suffixes of the search list that are used. Kubernetes permits 32; glibc since 2.26
/// any number.
pub const SEARCH_SUFFIXES_MAX: usize = 32;
/// The maximum values of `ndots`, `timeout` (in seconds) and `attempts`, to which resolv.conf(5)
/// limits them without an error.
pub const NDOTS_MAX: u32 = 15;
/// See [`NDOTS_MAX`].
pub const SERVER_TIMEOUT_SECS_MAX: u32 = 30;
/// See [`NDOTS_MAX`].
pub const SERVER_ATTEMPTS_MAX: u32 = 5;
/// The age of the contents of resolv.conf and the hosts file from which on a lookup causes them to
/// be read again.
pub const NAME_FILES_AGE_MAX: Duration = Duration::from_secs(5);
/// The same age if one of the files could not be read, for example for lack of descriptors.
pub const NAME_FILES_RETRY: Duration = Duration::from_millis(250);
/// The number of bytes of resolv.conf or of the hosts file that are read, up to the end of a line.
pub const NAME_FILE_BYTES_MAX: usize = 1024 * 1024;

// --- Scans ------------------------------------------------------------------------------------

/// The number of running scans of single addresses beyond which `addresses=all` is refused with
/// Retry-After. Each scan takes 50 KB, up to [`ADDRESSES_SCANNED_MAX`] addresses of a name are
/// scanned, and anyone can register such a name.
pub const ADDRESS_SCANS_MAX: usize = 512;
/// The initial and maximum deadline of `timeout=auto`: the default deadline, which includes one
/// retransmission by the kernel.
pub const TIMEOUT_AUTO_MAX: Duration = TIMEOUT_DEFAULT;

/// The shortest and the longest deadline for a connect that can be requested.
pub const TIMEOUT_MIN: Duration = Duration::from_millis(10);
/// See [`TIMEOUT_MIN`].
pub const TIMEOUT_MAX: Duration = Duration::from_secs(60);
/// The number of further passes over silent ports that can be requested.
pub const RETRIES_MAX: u8 = 10;
/// The rate of new connects per second that can be requested. It is far above what one thread can
/// start.
pub const RATE_MAX: u32 = 10_000_000;
/// The number of items in one list of ports. A longer list would contain a port twice.
pub const PORT_ITEMS_MAX: usize = 65_535;
/// The number of faulty parameters that one answer lists. The rest of a flood of unknown names is
/// dropped.
pub const INVALID_FIELDS_MAX: usize = 32;
/// The shortest backoff after a shortage before a probe is launched again.
pub const SHORTAGE_BACKOFF_MIN: Duration = Duration::from_millis(5);
/// See [`SHORTAGE_BACKOFF_MIN`].
pub const SHORTAGE_BACKOFF_MAX: Duration = Duration::from_millis(500);

/// The minimum interval between two divisions of the probes in flight, multiplied by the number of
/// running scans. Divisions then take a few percent of the loop's time.
pub const DIVISION_INTERVAL: Duration = Duration::from_micros(5);
/// The number of scans above which the invariants that examine each scan are not checked.
pub const CHECKED_SCANS_MAX: usize = 256;

// --- Raw SYNs ---------------------------------------------------------------------------------

/// The number of targets of a list that are scanned at once. A SYN needs no descriptor, but each
/// target takes some 800 bytes.
pub const TARGETS_AT_ONCE_MAX: usize = 65_536;
/// The memory that one target of a list takes while it is scanned, in bytes.
pub const TARGET_MEMORY_BYTES: u64 = 1024;
/// The size of each buffer of a raw socket in bytes, as far as the system permits
/// (net.core.rmem_max). The answers to some thousands of SYNs fit, so that a loop that is late by
/// some milliseconds loses none.
pub const RAW_BUFFER_BYTES: usize = 4 * 1024 * 1024;
/// The number of source ports of SYNs, each with a descriptor. One port is enough for any number of
/// scans. Each ping of a port that is in flight needs one of its own, and a scan has at most 64
/// such pings.
pub const SYN_SOURCE_PORTS_MAX: usize = 96;

// --- Metrics ----------------------------------------------------------------------------------

/// The number of pairs of route and status with a counter of their own: there are 8 routes and some
/// 20 statuses, most of which occur on one route only.
pub const REQUEST_LABELS_MAX: usize = 128;
/// The number of routes whose durations are recorded, with one to spare for unknown paths.
pub const ROUTES_MAX: usize = 10;
/// The number of results or reasons of one kind with a counter of their own.
pub const LABELS_MAX: usize = 32;

// --- The command line -------------------------------------------------------------------------

/// The length of the path of a Unix socket in bytes: sun_path has 108 bytes, the last of which is a
/// NUL (unix(7)).
pub const UNIX_PATH_BYTES_MAX: usize = 107;
/// The number of listeners that a service manager may pass. A unit usually has a few.
pub const PASSED_LISTENERS_MAX: usize = 64;

/// The greatest count that a flag accepts. The kernel's own limit of descriptors per process
/// (`fs.nr_open`) is 1,048,576 by default.
pub const COUNT_MAX: usize = 1_000_000;
/// The deadline of a connect if neither the request nor a flag sets one. The kernel repeats a lost
/// SYN after one second, and the answer to it still arrives in time.
pub const TIMEOUT_DEFAULT: Duration = Duration::from_secs(2);
/// The maximum of `--max-scan-time`: probes store microseconds since the start of their scan in 32
/// bits.
pub const SCAN_TIME_MAX: Duration = Duration::from_secs(3600);
/// The maximum of `--drain-delay` and `--drain-timeout`. Longer times are assumed to be mistakes.
pub const DRAIN_TIME_MAX: Duration = Duration::from_secs(3600);

/// How long a health check waits for its connection, and again for the answer.
pub const HEALTHCHECK_STEP_TIMEOUT: Duration = Duration::from_secs(1);
/// The number of names, addresses, networks and ranges of one command-line run, without duplicates.
/// A name takes its text and 8 bytes, an IPv4 address or network 12 bytes.
pub const TARGETS_MAX: usize = 1 << 24;
/// The length of one line in a list of targets in bytes. A list of ports may be long.
pub const TARGET_LINE_BYTES_MAX: usize = 1024 * 1024;
/// The length of the output of an earlier run in bytes, which is read as a whole: some ten million
/// end events.
pub const RESUME_BYTES_MAX: u64 = 4 * 1024 * 1024 * 1024;
/// The number of faulty targets that are reported one by one. The others are only counted, so that
/// the queue of lines for stderr holds all of them.
pub const TARGET_FAULTS_MAX: usize = 100;
/// The number of shards of one scan, with one machine each.
pub const SHARDS_MAX: u64 = 65_536;
/// The number of targets that a command-line run scans at once. Each has at least one connect in
/// flight, so the number is limited to that of the connects in the budget. In addition to its scan,
/// a target with a few ports takes some 100 bytes.
pub const BATCH_JOBS_MAX: usize = Technique::Connect.properties().in_flight_max;
/// The number of bytes of output that wait for a slow reader, beyond which no further target is
/// begun.
pub const PRINTOUT_BYTES_MAX: usize = 64 * 1024;

// --- Descriptors ------------------------------------------------------------------------------

/// The number of descriptors reserved for files and sockets that are open only briefly
/// (resolv.conf, the UDP socket for a route, a refused client). Redis reserves 32; this server
/// opens one such descriptor at a time.
pub const DESCRIPTORS_SPARE: usize = 4;
/// The memory reserved for everything but probes, in bytes: an idle server takes 1 MiB, and a usual
/// client less than 1 KB. The additional memory that attackers can cause is summed up in
/// docs/testing.md.
pub const MEMORY_SPARE_BYTES: u64 = 4 * 1024 * 1024;
/// The smallest number of descriptors with which the service works: one client, one lookup, one
/// probe.
pub const DESCRIPTORS_MIN: usize = DESCRIPTORS_SPARE + 1 + SOCKETS_PER_LOOKUP + 1;

const _: () = assert!(PIPELINED_BYTES_MAX < STREAM_BYTES_MAX, "a stream buffers more");
const _: () = assert!(LAG_GRACE.as_millis() < WRITE_STALL_TIMEOUT.as_millis());
const _: () = assert!(SOCKET_BACKOFF.as_millis() * 8 < LAG_GRACE.as_millis());
const _: () = assert!(TARGET_BYTES_MAX < HEAD_BYTES_MAX, "414 is distinct from 431");
const _: () = assert!(INPUT_BYTES_MAX >= HEAD_BYTES_MAX, "a whole head fits the input");
const _: () = assert!(CHUNK_LINE_BYTES_MAX < INPUT_BYTES_MAX, "a chunk line fits the input");
const _: () = assert!(READ_BYTES_MAX >= 512, "one read takes a whole datagram of DNS");
const _: () = assert!(ADDRESSES_SCANNED_MAX <= u8::MAX as usize, "8 bits are enough");
const _: () = assert!(ADDRESSES_PER_NAME_MAX + CNAME_CHAIN_MAX < ANSWER_RECORDS_MAX);
const _: () = assert!(FAMILY_GRACE.as_secs() < LOOKUP_TIMEOUT.as_secs());
const _: () = assert!(LOOKUPS_MAX <= BATCH_JOBS_MAX, "a batch can use every lookup at once");
const _: () = assert!(DESCRIPTORS_MIN < 64, "a limit of 64 descriptors is enough");
const _: () = assert!(SCAN_TIME_MAX.as_micros() < u32::MAX as u128, "32 bits are enough");
const CONNECTS_PER_TICK: usize = Technique::Connect.properties().launches_per_tick;
const _: () = assert!(CONNECTS_PER_TICK <= EVENTS_PER_TICK, "outcomes do not accumulate");

/// The settings of the command line; `config` sets them, and the core applies them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The deadline of a connect if the request sets none.
    pub timeout: Duration,
    /// The technique if the request selects none.
    pub technique: Technique,
    /// Whether this process may send raw packets.
    pub raw: RawAccess,
    /// The maximum duration of a scan; the ports that are left at its end are untested.
    pub scan_time_max: Duration,
    /// The maximum number of scans at once.
    pub scans_max: usize,
    /// The maximum number of scans at once for one client address.
    pub scans_per_client_max: usize,
    /// The maximum number of client connections at once.
    pub connections_max: usize,
    /// The maximum number of probes in flight of each technique; `None` means as many as the limits
    /// of descriptors and memory permit.
    pub in_flight_max: Option<usize>,
    /// The memory limit of this process in bytes, if there is one.
    pub memory_bytes: Option<u64>,
    /// The maximum number of targets of a list that are scanned at once.
    pub targets_max: usize,
    /// The interfaces of this machine, for zones of link-local targets.
    pub interfaces: Interfaces,
    /// How long the listeners stay open after SIGTERM while `/readyz` says 503.
    pub drain_delay: Duration,
    /// How long after SIGTERM scans may run before they are answered with their results so far.
    pub drain_timeout: Duration,
    /// The source addresses of connects.
    pub sources: Sources,
}

/// The source addresses of connects by family; `None` leaves the choice to the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sources {
    /// The source address towards IPv4 addresses.
    pub v4: Option<IpAddr>,
    /// The source address towards IPv6 addresses.
    pub v6: Option<IpAddr>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            timeout: TIMEOUT_DEFAULT,
            technique: Technique::default(),
            raw: RawAccess::Denied,
            scan_time_max: Duration::from_secs(300),
            scans_max: 64,
            scans_per_client_max: 16,
            connections_max: 1024,
            in_flight_max: None,
            memory_bytes: None,
            targets_max: TARGETS_AT_ONCE_MAX,
            interfaces: Interfaces::default(),
            drain_delay: Duration::ZERO,
            drain_timeout: Duration::from_secs(20),
            sources: Sources::default(),
        }
    }
}
