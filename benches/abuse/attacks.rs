//! The attacks: what the attackers send, how many they are, and the flags of the service.

use std::time::Duration;

use openports::limits::{SYN_SOURCE_PORTS_MAX, Settings};

use crate::attackers::{CloseMode, Reading, Script, Size};
use crate::service::Log;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Attack {
    /// The name on the command line.
    pub(crate) name: &'static str,
    /// The description in the report.
    pub(crate) about: &'static str,
    /// `None` is the baseline without attackers.
    pub(crate) script: Option<Script>,
    pub(crate) size: Size,
    /// Further flags of the service.
    pub(crate) flags: &'static [&'static str],
    /// The service's limit of descriptors, if the attack needs a low one.
    pub(crate) descriptors: Option<u32>,
    /// The number of descriptors that the service may keep after the attack: SYN scans keep their
    /// raw socket and their source ports.
    pub(crate) kept: usize,
    pub(crate) log: Log,
    /// The attackers may use all permitted scans, so a small scan may get 429 or 503.
    pub(crate) may_refuse_scans: bool,
    /// The maximum number of connections is so small that a new connection may be evicted before
    /// its request arrives. Then one request in fifty may be lost.
    pub(crate) is_tight: bool,
    /// The attack is part of the short form.
    pub(crate) is_short: bool,
}

impl Attack {
    /// Returns whether the attackers exceed the maximum number of connections, so that a client may
    /// still wait in the backlog when the service ends.
    pub(crate) fn exceeds_connections_max(&self) -> bool {
        self.descriptors.is_some() || self.size.connections > Settings::default().connections_max
    }
}

const BASELINE: Attack = Attack {
    name: "none",
    about: "no attack: the baseline",
    script: None,
    size: Size { connections: 0, sources: 1 },
    flags: &[],
    descriptors: None,
    kept: 0,
    log: Log::Read,
    may_refuse_scans: false,
    is_tight: false,
    is_short: true,
};

const fn size(connections: usize) -> Size {
    Size { connections, sources: 1 }
}

/// Returns a script that sends an opening, and then only reads.
const fn send_once(opening: fn(u64) -> Vec<u8>) -> Script {
    Script { opening, repeated: None, reading: Reading::All, close_after: None }
}

const MS: Duration = Duration::from_millis(1);
const SILENT_SCAN: &str = "/open-ports?domain=10.99.1.3&toPort=65535";
const OPEN_SCAN: &str = "/open-ports?domain=10.99.1.7&toPort=65535";

/// Returns all attacks in the order of the table.
pub(crate) fn attacks() -> Vec<Attack> {
    [slow(), many_connections(), pipelines(), scans(), shortages()].concat()
}

/// Attacks by clients that send or read slowly.
fn slow() -> Vec<Attack> {
    vec![
        BASELINE,
        Attack {
            name: "slow-heads",
            about: "1,200 endless heads, one field every 100 ms",
            script: Some(Script {
                opening: |_| b"GET / HTTP/1.1\r\nHost: a\r\n".to_vec(),
                repeated: Some((|n| format!("X-{n}: a\r\n").into_bytes(), MS * 100)),
                ..send_once(nothing)
            }),
            size: size(1200),
            ..BASELINE
        },
        Attack {
            name: "heads-by-bytes",
            about: "500 heads of 16 KB, one byte every 5 ms",
            script: Some(Script {
                opening: |_| b"GET / HTTP/1.1\r\nHost: a\r\nX: ".to_vec(),
                repeated: Some((|_| b"a".to_vec(), MS * 5)),
                ..send_once(nothing)
            }),
            size: size(500),
            is_short: false,
            ..BASELINE
        },
        Attack {
            name: "slow-bodies",
            about: "1,200 bodies of 60,000 bytes, one byte every 100 ms",
            script: Some(Script {
                opening: |_| request("POST", "/", "Content-Length: 60000\r\n"),
                repeated: Some((|_| b"x".to_vec(), MS * 100)),
                ..send_once(nothing)
            }),
            size: size(1200),
            ..BASELINE
        },
        Attack {
            name: "tiny-chunks",
            about: "200 bodies in chunks of one byte, 2,000 at a time",
            script: Some(Script {
                opening: |_| request("POST", "/", "Transfer-Encoding: chunked\r\n"),
                repeated: Some((|_| b"1\r\nx\r\n".repeat(2000), Duration::ZERO)),
                ..send_once(nothing)
            }),
            size: size(200),
            is_short: false,
            ..BASELINE
        },
        Attack {
            name: "slow-readers",
            about: "1,200 readers of 20 pages each, 64 bytes every 500 ms",
            script: Some(Script {
                opening: |_| request("GET", "/openapi.json", "").repeat(20),
                reading: Reading::Slow(64, MS * 500),
                ..send_once(nothing)
            }),
            size: size(1200),
            ..BASELINE
        },
    ]
}

/// Attacks by a large number of connections.
fn many_connections() -> Vec<Attack> {
    vec![
        Attack {
            name: "idle",
            about: "10,000 idle connections, with a maximum of 1,024",
            script: Some(send_once(nothing)),
            size: size(10_000),
            ..BASELINE
        },
        Attack {
            name: "connect-close",
            about: "500 at a time connect and close with FIN",
            script: Some(Script {
                close_after: Some((Duration::ZERO, CloseMode::Fin)),
                ..send_once(nothing)
            }),
            size: Size { connections: 500, sources: 8 },
            ..BASELINE
        },
        Attack {
            name: "connect-reset",
            about: "500 at a time connect and close with RST",
            script: Some(Script {
                close_after: Some((Duration::ZERO, CloseMode::Reset)),
                ..send_once(nothing)
            }),
            size: Size { connections: 500, sources: 8 },
            ..BASELINE
        },
        Attack {
            name: "one-shot",
            about: "200 at a time request `/healthz`, each on a new connection",
            script: Some(send_once(|_| request("GET", "/healthz", "Connection: close\r\n"))),
            size: Size { connections: 200, sources: 8 },
            is_short: false,
            ..BASELINE
        },
        Attack {
            name: "many-hosts",
            about: "200 at a time, each with another Host and 90 other fields",
            script: Some(send_once(|n| {
                let fields: String = (0..90).map(|field| format!("X-{field}: {n}\r\n")).collect();
                let line = format!("GET /{n} HTTP/1.1\r\nHost: h{n}.example\r\n");
                format!("{line}{fields}Connection: close\r\n\r\n").into_bytes()
            })),
            size: Size { connections: 200, sources: 8 },
            is_short: false,
            ..BASELINE
        },
    ]
}

/// Attacks by pipelined requests.
fn pipelines() -> Vec<Attack> {
    let flood = |piece: fn(u64) -> Vec<u8>| {
        Some(Script { repeated: Some((piece, Duration::ZERO)), ..send_once(nothing) })
    };
    vec![
        Attack {
            name: "pipelines",
            about: "100 connections, 2,000 `/healthz` per write, responses read",
            script: flood(|_| request("GET", "/healthz", "").repeat(2000)),
            size: size(100),
            ..BASELINE
        },
        Attack {
            name: "many-pipelines",
            about: "1,200 connections, 2,000 `/healthz` per write, responses read",
            script: flood(|_| request("GET", "/healthz", "").repeat(2000)),
            size: size(1200),
            is_short: false,
            ..BASELINE
        },
        Attack {
            name: "metrics-pipelines",
            about: "100 connections, 500 `/metrics` per write, responses read",
            script: flood(|_| request("GET", "/metrics", "").repeat(500)),
            size: size(100),
            is_short: false,
            ..BASELINE
        },
        Attack {
            name: "long-queries",
            about: "100 connections, HEAD with a list of 8,000 bytes, responses read",
            script: flood(long_queries),
            size: size(100),
            is_short: false,
            ..BASELINE
        },
        Attack {
            name: "many-long-queries",
            about: "1,200 connections, HEAD with a list of 8,000 bytes, responses read",
            script: flood(long_queries),
            size: size(1200),
            is_short: false,
            ..BASELINE
        },
        Attack {
            name: "unread-pipelines",
            about: "1,200 connections, 2,000 `/healthz` per write, no response read",
            script: flood(|_| request("GET", "/healthz", "").repeat(2000))
                .map(|script| Script { reading: Reading::Never, ..script }),
            size: size(1200),
            ..BASELINE
        },
        Attack {
            name: "unread-pages",
            about: "1,200 connections, 500 `/openapi.json` per write, no response read",
            script: flood(|_| request("GET", "/openapi.json", "").repeat(500))
                .map(|script| Script { reading: Reading::Never, ..script }),
            size: size(1200),
            ..BASELINE
        },
    ]
}

/// Attacks by scans.
fn scans() -> Vec<Attack> {
    let gone_after = |mode| {
        Some(Script {
            close_after: Some((MS * 200, mode)),
            ..send_once(|_| request("GET", SILENT_SCAN, ""))
        })
    };
    let all_of_loopback: fn(u64) -> Vec<u8> =
        |_| request("GET", "/open-ports?domain=127.0.0.1&toPort=65535", "");
    vec![
        Attack {
            name: "scans-here",
            about: "1,000 clients of one address scan 65,535 ports of loopback",
            script: Some(send_once(all_of_loopback)),
            size: size(1000),
            ..BASELINE
        },
        Attack {
            name: "scans-many-clients",
            about: "1,000 clients of 200 addresses scan 65,535 ports of loopback",
            script: Some(send_once(all_of_loopback)),
            size: Size { connections: 1000, sources: 200 },
            may_refuse_scans: true,
            is_short: false,
            ..BASELINE
        },
        Attack {
            name: "scans-silent",
            about: "1,000 clients of one address scan 65,535 ports of a silent host",
            script: Some(send_once(|_| request("GET", SILENT_SCAN, ""))),
            size: size(1000),
            ..BASELINE
        },
        Attack {
            name: "vanish-fin",
            about: "100 clients scan the silent host and close with FIN after 200 ms",
            script: gone_after(CloseMode::Fin),
            size: Size { connections: 100, sources: 3 },
            ..BASELINE
        },
        Attack {
            name: "vanish-reset",
            about: "100 clients scan the silent host and close with RST after 200 ms",
            script: gone_after(CloseMode::Reset),
            size: Size { connections: 100, sources: 3 },
            is_short: false,
            ..BASELINE
        },
        Attack {
            name: "unread-streams",
            about: "48 streams of 65,535 open ports, not read",
            script: Some(Script {
                reading: Reading::Never,
                ..send_once(|_| request("GET", OPEN_SCAN, "Accept: application/x-ndjson\r\n"))
            }),
            size: Size { connections: 48, sources: 3 },
            ..BASELINE
        },
        Attack {
            name: "unread-answers",
            about: "200 clients scan 10,000 open ports each and do not read",
            script: Some(Script {
                reading: Reading::Never,
                ..send_once(|_| request("GET", "/open-ports?domain=10.99.1.7&toPort=10000", ""))
            }),
            size: Size { connections: 200, sources: 3 },
            is_short: false,
            ..BASELINE
        },
        Attack {
            name: "many-addresses",
            about: "48 clients scan 65,535 ports of each of a name's 64 addresses",
            script: Some(send_once(|_| {
                request("GET", "/open-ports?domain=many.example&addresses=all&toPort=65535", "")
            })),
            size: Size { connections: 48, sources: 3 },
            ..BASELINE
        },
        Attack {
            name: "every-scan",
            about: "100 clients: SYN scans, streams, 64 addresses and `/probe`, of both hosts",
            script: Some(send_once(every_scan)),
            size: Size { connections: 100, sources: 8 },
            kept: 1 + SYN_SOURCE_PORTS_MAX,
            may_refuse_scans: true,
            ..BASELINE
        },
        Attack {
            name: "every-scan-vanish",
            about: "the same, and the clients close with RST after 200 ms",
            script: Some(Script {
                close_after: Some((MS * 200, CloseMode::Reset)),
                ..send_once(every_scan)
            }),
            size: Size { connections: 100, sources: 8 },
            kept: 1 + SYN_SOURCE_PORTS_MAX,
            may_refuse_scans: true,
            is_short: false,
            ..BASELINE
        },
        Attack {
            name: "dead-names",
            about: "1,000 clients scan names that no server answers for, 300 at a time",
            script: Some(send_once(|n| {
                let target = format!("/open-ports?domain=n{n}.example.&toPort=1&deadline=2s");
                request("GET", &target, "Connection: close\r\n")
            })),
            size: size(1000),
            flags: &["--max-scans", "320", "--max-scans-per-client", "300"],
            ..BASELINE
        },
    ]
}

/// Attacks on a service that lacks a resource.
fn shortages() -> Vec<Attack> {
    let silent = Some(send_once(|_| request("GET", SILENT_SCAN, "")));
    vec![
        Attack {
            name: "64-descriptors",
            about: "10 clients scan 65,535 silent ports, with RLIMIT_NOFILE 64",
            script: silent,
            size: size(10),
            descriptors: Some(64),
            may_refuse_scans: true,
            ..BASELINE
        },
        Attack {
            name: "64-idle",
            about: "1,000 idle connections, with RLIMIT_NOFILE 64",
            script: Some(send_once(nothing)),
            size: size(1000),
            descriptors: Some(64),
            is_short: false,
            is_tight: true,
            ..BASELINE
        },
        Attack {
            name: "256-descriptors",
            about: "1,000 clients scan 65,535 silent ports, with RLIMIT_NOFILE 256",
            script: silent,
            size: size(1000),
            descriptors: Some(256),
            is_short: false,
            is_tight: true,
            ..BASELINE
        },
        Attack {
            name: "unread-log",
            about: "200 at a time request unknown paths, and the log is not read",
            script: Some(send_once(|n| request("GET", &format!("/{n}"), "Connection: close\r\n"))),
            size: Size { connections: 200, sources: 8 },
            flags: &["--log-level", "debug"],
            log: Log::Unread,
            ..BASELINE
        },
    ]
}

/// Returns a request for another kind of scan for each connection.
fn every_scan(n: u64) -> Vec<u8> {
    let ndjson = "Accept: application/x-ndjson\r\n";
    match n % 6 {
        0 => request("GET", &format!("{SILENT_SCAN}&technique=syn"), ""),
        1 => request("GET", &format!("{SILENT_SCAN}&technique=syn"), ndjson),
        2 => request("GET", &format!("{OPEN_SCAN}&technique=syn"), ndjson),
        3 => request("GET", OPEN_SCAN, "Accept: text/event-stream\r\n"),
        4 => request("GET", "/open-ports?domain=many.example&addresses=all&toPort=65535", ""),
        _ => request("GET", "/probe?target=10.99.1.7&ports=1-65535&technique=syn", ""),
    }
}

fn long_queries(_: u64) -> Vec<u8> {
    let ports: Vec<String> = (0..1500).map(|n| (2 * n + 1).to_string()).collect();
    let target = format!("/open-ports?domain=a&ports={}", ports.join(","));
    request("HEAD", &target, "").repeat(20)
}

fn nothing(_: u64) -> Vec<u8> {
    Vec::new()
}

fn request(method: &str, target: &str, fields: &str) -> Vec<u8> {
    format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n").into_bytes()
}
