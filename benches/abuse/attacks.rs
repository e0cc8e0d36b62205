//! The attacks: what is sent, how often, and to what kind of service.

use std::time::Duration;

use openports::limits::Settings;

use crate::swarm::{Parting, Reading, Script, Size};
use crate::victim::Log;

/// One attack.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attack {
    /// One word, for the command line.
    pub(crate) name: &'static str,
    /// What the attackers send, for a reader.
    pub(crate) about: &'static str,
    /// `None`: nobody attacks.
    pub(crate) script: Option<Script>,
    pub(crate) size: Size,
    /// Flags of the service beside the usual ones.
    pub(crate) flags: &'static [&'static str],
    /// The service's limit of descriptors, where it is to be short of them.
    pub(crate) descriptors: Option<u32>,
    pub(crate) log: Log,
    /// True exactly when the attackers may fill every place for scans, so that a small scan may be
    /// told to come again (429 or 503).
    pub(crate) may_refuse_scans: bool,
    /// True exactly when places are so few that attackers may push out a newcomer that has not
    /// spoken yet: then one request in fifty may be lost.
    pub(crate) is_tight: bool,
    /// True exactly when it is part of the short form.
    pub(crate) is_short: bool,
}

impl Attack {
    /// True exactly when the attackers alone are more than there are places, so that a client may
    /// wait in the kernel's queue when the service ends.
    pub(crate) fn fills_every_place(&self) -> bool {
        self.descriptors.is_some() || self.size.connections > Settings::default().connections_max
    }
}

const CALM: Attack = Attack {
    name: "none",
    about: "nothing: the baseline",
    script: None,
    size: Size { connections: 0, sources: 1 },
    flags: &[],
    descriptors: None,
    log: Log::Read,
    may_refuse_scans: false,
    is_tight: false,
    is_short: true,
};

const fn size(connections: usize) -> Size {
    Size { connections, sources: 1 }
}

/// Sends its opening and waits for whatever comes.
const fn asks(opening: fn(u64) -> Vec<u8>) -> Script {
    Script { opening, drip: None, reading: Reading::All, leaving: None }
}

const MS: Duration = Duration::from_millis(1);
const SILENT_SCAN: &str = "/open-ports?domain=10.99.1.3&toPort=65535";

/// Every attack, in the order of the table.
pub(crate) fn attacks() -> Vec<Attack> {
    [slow(), crowds(), pipelines(), scans(), shortages()].concat()
}

/// What comes too slowly.
fn slow() -> Vec<Attack> {
    vec![
        CALM,
        Attack {
            name: "slow-heads",
            about: "1,200 heads that never end, a field each 100 ms",
            script: Some(Script {
                opening: |_| b"GET / HTTP/1.1\r\nHost: a\r\n".to_vec(),
                drip: Some((|n| format!("X-{n}: a\r\n").into_bytes(), MS * 100)),
                ..asks(nothing)
            }),
            size: size(1200),
            ..CALM
        },
        Attack {
            name: "heads-by-bytes",
            about: "500 heads of 16 KB, a byte each 5 ms",
            script: Some(Script {
                opening: |_| b"GET / HTTP/1.1\r\nHost: a\r\nX: ".to_vec(),
                drip: Some((|_| b"a".to_vec(), MS * 5)),
                ..asks(nothing)
            }),
            size: size(500),
            is_short: false,
            ..CALM
        },
        Attack {
            name: "slow-bodies",
            about: "1,200 bodies of 60,000 bytes, one each 100 ms",
            script: Some(Script {
                opening: |_| request("POST", "/", "Content-Length: 60000\r\n"),
                drip: Some((|_| b"x".to_vec(), MS * 100)),
                ..asks(nothing)
            }),
            size: size(1200),
            ..CALM
        },
        Attack {
            name: "tiny-chunks",
            about: "200 bodies in chunks of one byte, 2,000 at a time",
            script: Some(Script {
                opening: |_| request("POST", "/", "Transfer-Encoding: chunked\r\n"),
                drip: Some((|_| b"1\r\nx\r\n".repeat(2000), Duration::ZERO)),
                ..asks(nothing)
            }),
            size: size(200),
            is_short: false,
            ..CALM
        },
        Attack {
            name: "slow-readers",
            about: "1,200 readers of 20 pages each, 64 bytes each 500 ms",
            script: Some(Script {
                opening: |_| request("GET", "/openapi.json", "").repeat(20),
                reading: Reading::Slow(64, MS * 500),
                ..asks(nothing)
            }),
            size: size(1200),
            ..CALM
        },
    ]
}

/// What comes in great number.
fn crowds() -> Vec<Attack> {
    vec![
        Attack {
            name: "idle",
            about: "10,000 connections without a word, at a cap of 1,024",
            script: Some(asks(nothing)),
            size: size(10_000),
            ..CALM
        },
        Attack {
            name: "connect-close",
            about: "500 at a time connect and go, with FIN",
            script: Some(Script { leaving: Some((Duration::ZERO, Parting::Fin)), ..asks(nothing) }),
            size: Size { connections: 500, sources: 8 },
            ..CALM
        },
        Attack {
            name: "connect-reset",
            about: "500 at a time connect and go, with RST",
            script: Some(Script {
                leaving: Some((Duration::ZERO, Parting::Reset)),
                ..asks(nothing)
            }),
            size: Size { connections: 500, sources: 8 },
            ..CALM
        },
        Attack {
            name: "one-shot",
            about: "200 at a time ask for `/healthz`, each on a new connection",
            script: Some(asks(|_| request("GET", "/healthz", "Connection: close\r\n"))),
            size: Size { connections: 200, sources: 8 },
            is_short: false,
            ..CALM
        },
        Attack {
            name: "many-hosts",
            about: "200 at a time, each with another Host and 90 other fields",
            script: Some(asks(|n| {
                let fields: String = (0..90).map(|field| format!("X-{field}: {n}\r\n")).collect();
                let line = format!("GET /{n} HTTP/1.1\r\nHost: h{n}.example\r\n");
                format!("{line}{fields}Connection: close\r\n\r\n").into_bytes()
            })),
            size: Size { connections: 200, sources: 8 },
            is_short: false,
            ..CALM
        },
    ]
}

/// Requests without waiting for answers.
fn pipelines() -> Vec<Attack> {
    let flood = |piece: fn(u64) -> Vec<u8>| {
        Some(Script { drip: Some((piece, Duration::ZERO)), ..asks(nothing) })
    };
    vec![
        Attack {
            name: "pipelines",
            about: "100 connections, 2,000 `/healthz` a write, answers read",
            script: flood(|_| request("GET", "/healthz", "").repeat(2000)),
            size: size(100),
            ..CALM
        },
        Attack {
            name: "many-pipelines",
            about: "1,200 connections, 2,000 `/healthz` a write, answers read",
            script: flood(|_| request("GET", "/healthz", "").repeat(2000)),
            size: size(1200),
            is_short: false,
            ..CALM
        },
        Attack {
            name: "metrics-pipelines",
            about: "100 connections, 500 `/metrics` a write, answers read",
            script: flood(|_| request("GET", "/metrics", "").repeat(500)),
            size: size(100),
            is_short: false,
            ..CALM
        },
        Attack {
            name: "long-queries",
            about: "100 connections, HEAD with a list of 8,000 bytes, answers read",
            script: flood(long_queries),
            size: size(100),
            is_short: false,
            ..CALM
        },
        Attack {
            name: "many-long-queries",
            about: "1,200 connections do the same",
            script: flood(long_queries),
            size: size(1200),
            is_short: false,
            ..CALM
        },
        Attack {
            name: "unread-pipelines",
            about: "1,200 connections, 2,000 `/healthz` a write, no answer read",
            script: flood(|_| request("GET", "/healthz", "").repeat(2000))
                .map(|script| Script { reading: Reading::Never, ..script }),
            size: size(1200),
            ..CALM
        },
        Attack {
            name: "unread-pages",
            about: "1,200 connections, 500 `/openapi.json` a write, no answer read",
            script: flood(|_| request("GET", "/openapi.json", "").repeat(500))
                .map(|script| Script { reading: Reading::Never, ..script }),
            size: size(1200),
            ..CALM
        },
    ]
}

/// Work that a stranger gives.
fn scans() -> Vec<Attack> {
    let gone_after = |parting| {
        Some(Script {
            leaving: Some((MS * 200, parting)),
            ..asks(|_| request("GET", SILENT_SCAN, ""))
        })
    };
    let all_of_loopback: fn(u64) -> Vec<u8> =
        |_| request("GET", "/open-ports?domain=127.0.0.1&toPort=65535", "");
    vec![
        Attack {
            name: "scans-here",
            about: "1,000 clients of one address want 65,535 ports of loopback",
            script: Some(asks(all_of_loopback)),
            size: size(1000),
            ..CALM
        },
        Attack {
            name: "scans-everybody",
            about: "1,000 clients of 200 addresses want 65,535 ports of loopback",
            script: Some(asks(all_of_loopback)),
            size: Size { connections: 1000, sources: 200 },
            may_refuse_scans: true,
            is_short: false,
            ..CALM
        },
        Attack {
            name: "scans-silent",
            about: "1,000 clients of one address want 65,535 ports of a silent host",
            script: Some(asks(|_| request("GET", SILENT_SCAN, ""))),
            size: size(1000),
            ..CALM
        },
        Attack {
            name: "vanish-fin",
            about: "100 clients want them and go after 200 ms, with FIN",
            script: gone_after(Parting::Fin),
            size: Size { connections: 100, sources: 3 },
            ..CALM
        },
        Attack {
            name: "vanish-reset",
            about: "100 clients want them and go after 200 ms, with RST",
            script: gone_after(Parting::Reset),
            size: Size { connections: 100, sources: 3 },
            is_short: false,
            ..CALM
        },
        Attack {
            name: "unread-streams",
            about: "48 streams of 65,535 open ports, unread",
            script: Some(Script {
                reading: Reading::Never,
                ..asks(|_| {
                    let target = "/open-ports?domain=10.99.1.7&toPort=65535";
                    request("GET", target, "Accept: application/x-ndjson\r\n")
                })
            }),
            size: Size { connections: 48, sources: 3 },
            ..CALM
        },
        Attack {
            name: "unread-answers",
            about: "200 clients want 10,000 open ports each and read nothing",
            script: Some(Script {
                reading: Reading::Never,
                ..asks(|_| request("GET", "/open-ports?domain=10.99.1.7&toPort=10000", ""))
            }),
            size: Size { connections: 200, sources: 3 },
            is_short: false,
            ..CALM
        },
        Attack {
            name: "many-addresses",
            about: "48 clients want 65,535 ports of each of a name's 64 addresses",
            script: Some(asks(|_| {
                request("GET", "/open-ports?domain=many.example&addresses=all&toPort=65535", "")
            })),
            size: Size { connections: 48, sources: 3 },
            ..CALM
        },
        Attack {
            name: "dead-names",
            about: "1,000 clients want names that no server answers for, 300 scans at a time",
            script: Some(asks(|n| {
                let target = format!("/open-ports?domain=n{n}.example.&toPort=1&deadline=2s");
                request("GET", &target, "Connection: close\r\n")
            })),
            size: size(1000),
            flags: &["--max-scans", "320", "--max-scans-per-client", "300"],
            ..CALM
        },
    ]
}

/// What is short on the service's side.
fn shortages() -> Vec<Attack> {
    let silent = Some(asks(|_| request("GET", SILENT_SCAN, "")));
    vec![
        Attack {
            name: "64-descriptors",
            about: "10 clients want 65,535 silent ports, at RLIMIT_NOFILE 64",
            script: silent,
            size: size(10),
            descriptors: Some(64),
            may_refuse_scans: true,
            ..CALM
        },
        Attack {
            name: "64-idle",
            about: "1,000 connections without a word, at RLIMIT_NOFILE 64",
            script: Some(asks(nothing)),
            size: size(1000),
            descriptors: Some(64),
            is_short: false,
            is_tight: true,
            ..CALM
        },
        Attack {
            name: "256-descriptors",
            about: "1,000 clients want 65,535 silent ports, at RLIMIT_NOFILE 256",
            script: silent,
            size: size(1000),
            descriptors: Some(256),
            is_short: false,
            is_tight: true,
            ..CALM
        },
        Attack {
            name: "unread-log",
            about: "200 at a time ask for what is not there, and nobody reads the log",
            script: Some(asks(|n| request("GET", &format!("/{n}"), "Connection: close\r\n"))),
            size: Size { connections: 200, sources: 8 },
            flags: &["--log-level", "debug"],
            log: Log::Unread,
            ..CALM
        },
    ]
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
