//! Local ports in every state, and a network namespace for a test.

use std::any::type_name;
use std::collections::BTreeSet;
use std::io::{ErrorKind, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

/// An address of TEST-NET-2, whose packets are dropped: all of its ports are silent.
pub(crate) const SILENT: &str = "198.51.100.7";
/// An address of TEST-NET-3, which the routing table marks as unreachable.
pub(crate) const UNREACHABLE: &str = "203.0.113.7";

/// The commands that set up the network. The loopback device drops packets to addresses that are
/// not local.
const SETUP: &str = "ip link set lo up \
    && ip route add 198.51.100.0/24 dev lo \
    && ip route add unreachable 203.0.113.0/24 \
    && exec \"$0\" \"$@\"";

/// This variable marks the second run of a test, which is inside its network namespace.
const INSIDE: &str = "OPENPORTS_TEST_INSIDE";

/// Runs the body of a test in its own network namespace, by running the test again under `unshare`.
/// Both runs call this function. The name of the test is the name of the function that contains the
/// closure. If it were wrong, the second run would run no test, which is checked.
pub(crate) fn isolated<F: FnOnce()>(body: F) {
    if std::env::var_os(INSIDE).is_some() {
        return body();
    }
    let path = type_name::<F>().split("::").filter(|part| !part.starts_with("{{"));
    let test = path.skip(1).collect::<Vec<_>>().join("::");
    let executable = std::env::current_exe().expect("the test has an executable");
    let in_namespace = |namespaces: &str, program: &str, args: &[&str]| {
        let mut command = Command::new("unshare");
        command.args([namespaces, "--", "sh", "-c", SETUP, program]).args(args).env(INSIDE, "1");
        command.output()
    };
    let is_permitted = |namespaces: &&str| {
        in_namespace(namespaces, "true", &[]).is_ok_and(|output| output.status.success())
    };
    let Some(namespaces) = ["-Urn", "-n"].into_iter().find(|it| is_permitted(it)) else {
        skip(&format!("{test} needs `unshare -Urn` and `ip`, which are not available here"));
        return;
    };
    let program = executable.to_str().expect("the path is UTF-8");
    let output = in_namespace(namespaces, program, &["--exact", &test, "--nocapture"])
        .expect("unshare starts");
    let text = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && text.contains(" 1 passed"),
        "the test failed inside unshare: {text}"
    );
}

/// Reports that something could not be tested. It writes to stderr directly, because the harness
/// hides the output of a passed test. It fails if `OPENPORTS_REQUIRE_ALL` is set.
pub(crate) fn skip(why: &str) {
    assert!(std::env::var_os("OPENPORTS_REQUIRE_ALL").is_none(), "{why}");
    let _ = writeln!(std::io::stderr(), "SKIPPED: {why}");
}

/// The number of repetitions of a test that depends on timing.
pub(crate) fn rounds(usual: usize, soak: usize) -> usize {
    if std::env::var_os("OPENPORTS_SOAK").is_some() { soak } else { usual }
}

/// Listeners on free ports of 127.0.0.1, and their ports in ascending order.
pub(crate) fn listeners(count: usize) -> (Vec<TcpListener>, Vec<u16>) {
    let listen = |_| TcpListener::bind("127.0.0.1:0").expect("loopback is available");
    let listeners: Vec<TcpListener> = (0..count).map(listen).collect();
    let port = |listener: &TcpListener| listener.local_addr().unwrap().port();
    let mut ports: Vec<u16> = listeners.iter().map(port).collect();
    ports.sort_unstable();
    (listeners, ports)
}

/// A closed port. The socket is bound but does not listen, so no other process can use the port.
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

/// A port that never answers: the queue of its listener is full, so the kernel drops every SYN.
pub(crate) struct SilentPort {
    _listener: Socket,
    _fillers: Vec<TcpStream>,
    pub(crate) port: u16,
}

impl SilentPort {
    pub(crate) fn new() -> Self {
        let (listener, port) = bound();
        listener.listen(0).expect("the socket is bound");
        let at = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut fillers = Vec::new();
        for _ in 0..8 {
            match TcpStream::connect_timeout(&at, Duration::from_millis(100)) {
                Ok(filler) => fillers.push(filler),
                Err(error) => {
                    assert_eq!(
                        error.kind(),
                        ErrorKind::TimedOut,
                        "a connect to a full queue times out"
                    );
                    return Self { _listener: listener, _fillers: fillers, port };
                }
            }
        }
        panic!("the accept queue does not become full");
    }

    pub(crate) fn several(count: usize) -> (Vec<Self>, Vec<u16>) {
        let all: Vec<Self> = (0..count).map(|_| Self::new()).collect();
        let mut ports: Vec<u16> = all.iter().map(|silent| silent.port).collect();
        ports.sort_unstable();
        (all, ports)
    }
}

fn bound() -> (Socket, u16) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))
        .expect("a socket can be created");
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).expect("loopback is available");
    let port =
        socket.local_addr().unwrap().as_socket().expect("the socket has an IP address").port();
    (socket, port)
}

/// The ports of 127.0.0.1 that have listeners according to the kernel.
pub(crate) fn kernel_listeners() -> Vec<u16> {
    let mut ports = BTreeSet::new();
    for (path, wildcards) in [
        ("/proc/net/tcp", ["0100007F", "00000000"]),
        // A listener for both families is listed in the table of IPv6.
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

/// Formats ports as a value of `ports=`.
pub(crate) fn list(ports: &[u16]) -> String {
    ports.iter().map(u16::to_string).collect::<Vec<_>>().join(",")
}

/// Returns whether this machine has `::1`; a missing `::1` is reported.
pub(crate) fn has_ipv6() -> bool {
    let is_available = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok();
    if !is_available {
        skip("this machine has no ::1");
    }
    is_available
}
