//! Ports in every state on this machine, and a network of a test's own.

use std::any::type_name;
use std::collections::BTreeSet;
use std::io::{ErrorKind, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

/// A network that is routed to nowhere (TEST-NET-2): every port of it is silent.
pub(crate) const SILENT: &str = "198.51.100.7";
/// A network that the routing table says cannot be reached (TEST-NET-3).
pub(crate) const UNREACHABLE: &str = "203.0.113.7";

/// What a network of one's own is made of. The loopback device drops what is for nobody there.
const SETUP: &str = "ip link set lo up \
    && ip route add 198.51.100.0/24 dev lo \
    && ip route add unreachable 203.0.113.0/24 \
    && exec \"$0\" \"$@\"";

/// Tells the second run of a test that it has its network.
const INSIDE: &str = "OPENPORTS_TEST_INSIDE";

/// Runs a test's body in a network namespace of its own, by running the test again under
/// `unshare`. Both runs come through here; the name of the test is the name of the closure's
/// function, and a wrong one is noticed, since the second run then runs no test.
pub(crate) fn isolated<F: FnOnce()>(body: F) {
    if std::env::var_os(INSIDE).is_some() {
        return body();
    }
    let path = type_name::<F>().split("::").filter(|part| !part.starts_with("{{"));
    let test = path.skip(1).collect::<Vec<_>>().join("::");
    let me = std::env::current_exe().expect("a test is a program");
    let under = |namespaces: &str, program: &str, args: &[&str]| {
        let mut command = Command::new("unshare");
        command.args([namespaces, "--", "sh", "-c", SETUP, program]).args(args).env(INSIDE, "1");
        command.output()
    };
    let is_permitted = |namespaces: &&str| {
        under(namespaces, "true", &[]).is_ok_and(|output| output.status.success())
    };
    let Some(namespaces) = ["-Urn", "-n"].into_iter().find(|it| is_permitted(it)) else {
        skip(&format!("{test} needs `unshare -Urn` and `ip`, which do not work here"));
        return;
    };
    let program = me.to_str().expect("a plain path");
    let output = under(namespaces, program, &["--exact", &test, "--nocapture"]).expect("it ran");
    let text = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains(" 1 passed"), "inside unshare: {text}");
}

/// Says that something could not be tested, past the harness, which keeps the words of a test that
/// passes to itself; fails where everything is required.
fn skip(why: &str) {
    assert!(std::env::var_os("OPENPORTS_REQUIRE_ALL").is_none(), "{why}");
    let _ = writeln!(std::io::stderr(), "SKIPPED: {why}");
}

/// How often to repeat what is a matter of luck.
pub(crate) fn rounds(usual: usize, soak: usize) -> usize {
    if std::env::var_os("OPENPORTS_SOAK").is_some() { soak } else { usual }
}

/// Listeners on free ports of 127.0.0.1, and their ports in order.
pub(crate) fn listeners(count: usize) -> (Vec<TcpListener>, Vec<u16>) {
    let listen = |_| TcpListener::bind("127.0.0.1:0").expect("loopback is there");
    let listeners: Vec<TcpListener> = (0..count).map(listen).collect();
    let port = |listener: &TcpListener| listener.local_addr().unwrap().port();
    let mut ports: Vec<u16> = listeners.iter().map(port).collect();
    ports.sort_unstable();
    (listeners, ports)
}

/// A port on which nobody listens and, while this lives, nobody can.
pub(crate) struct ClosedPort {
    _socket: Socket,
    pub(crate) port: u16,
}

impl ClosedPort {
    pub(crate) fn new() -> Self {
        let (socket, port) = bound();
        Self { _socket: socket, port }
    }
}

/// A port that answers nothing: its listener's queue is full, so the kernel drops every SYN.
pub(crate) struct SilentPort {
    _listener: Socket,
    _fillers: Vec<TcpStream>,
    pub(crate) port: u16,
}

impl SilentPort {
    pub(crate) fn new() -> Self {
        let (listener, port) = bound();
        listener.listen(0).expect("it is bound");
        let at = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut fillers = Vec::new();
        for _ in 0..8 {
            match TcpStream::connect_timeout(&at, Duration::from_millis(100)) {
                Ok(filler) => fillers.push(filler),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::TimedOut, "a full queue is silent");
                    return Self { _listener: listener, _fillers: fillers, port };
                }
            }
        }
        panic!("a queue of no length takes any number");
    }

    pub(crate) fn several(count: usize) -> (Vec<Self>, Vec<u16>) {
        let all: Vec<Self> = (0..count).map(|_| Self::new()).collect();
        let mut ports: Vec<u16> = all.iter().map(|silent| silent.port).collect();
        ports.sort_unstable();
        (all, ports)
    }
}

fn bound() -> (Socket, u16) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).expect("a socket");
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).expect("loopback is there");
    let port = socket.local_addr().unwrap().as_socket().expect("an internet address").port();
    (socket, port)
}

/// The ports that the kernel says somebody listens on at 127.0.0.1.
pub(crate) fn kernel_listeners() -> Vec<u16> {
    let mut ports = BTreeSet::new();
    for (path, wildcards) in [
        ("/proc/net/tcp", ["0100007F", "00000000"]),
        // Where a listener takes both families, it stands in the table of IPv6.
        ("/proc/net/tcp6", ["00000000000000000000000000000000", ""]),
    ] {
        for line in std::fs::read_to_string(path).unwrap_or_default().lines().skip(1) {
            let mut words = line.split_ascii_whitespace().skip(1);
            let (local, state) = (words.next().unwrap(), words.nth(1).unwrap());
            let (address, port) = local.split_once(':').unwrap();
            const LISTEN: &str = "0A";
            if state == LISTEN && wildcards.contains(&address) {
                ports.insert(u16::from_str_radix(port, 16).unwrap());
            }
        }
    }
    ports.into_iter().collect()
}

/// Ports as a value of `ports=`.
pub(crate) fn list(ports: &[u16]) -> String {
    ports.iter().map(u16::to_string).collect::<Vec<_>>().join(",")
}

/// True exactly when this machine has `::1`; if not, it is said.
pub(crate) fn has_ipv6() -> bool {
    let is_there = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok();
    if !is_there {
        skip("this machine has no ::1");
    }
    is_there
}
