//! Scenarios that need a real kernel, in the lab of `benches/lab`: a network of simulated hosts
//! behind a TUN device.
//!
//! Each case runs in its own process (this program again, with the name of the case), because it
//! moves its process into a network namespace. An argument that is not a flag selects the cases
//! whose names contain it. Where namespaces are not permitted, the program reports this and
//! succeeds, unless `OPENPORTS_REQUIRE_ALL` is set.
//!
//! The first cases and those of `links` verify the lab itself, because the other cases depend on
//! it. The cases of `scans`, `syn_scans` and `local_faults` then test the real binary in such
//! networks.
#![expect(clippy::print_stdout, reason = "a test program without a harness prints its report")]
#![allow(
    dead_code,
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "modules of src/tests/service.rs are used in part, and a panic is a failure"
)]

#[path = "service/client.rs"]
mod client;
#[path = "../../benches/lab/mod.rs"]
mod lab;
#[path = "lab/links.rs"]
mod links;
#[path = "lab/local_faults.rs"]
mod local_faults;
#[path = "service/process.rs"]
mod process;
#[path = "lab/scans.rs"]
mod scans;
#[path = "lab/syn_scans.rs"]
mod syn_scans;

use std::io::{self, ErrorKind, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpStream};
use std::process::{Command, ExitCode};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use lab::{DownAfter, HOST_ADDRESS, Host, Lab, Outages, Port, Unreachable};

/// A case: its name, which is a sentence, and its function, which fails with an error or a panic.
type Case = (&'static str, fn() -> Outcome);
type Outcome = Result<(), Box<dyn std::error::Error>>;

const LAB_CASES: &[Case] = &[
    ("an_open_port_completes_the_handshake_and_answers_a_fin", open_port),
    ("a_closed_port_refuses_the_connection", closed_port),
    ("a_connect_to_a_silent_port_times_out", silent_port),
    ("each_icmp_error_causes_its_errno", icmp_errors),
    ("ipv6_behaves_like_ipv4", ipv6),
    ("an_answer_takes_little_more_than_the_round_trip_time", round_trip),
    ("after_a_lost_packet_the_kernel_repeats_the_syn_after_a_second", loss),
    ("a_rst_limit_allows_a_number_of_answers_per_second", rst_limit),
    ("a_syn_limit_allows_a_number_of_syns_per_second", syn_limit),
    ("a_host_that_goes_down_does_not_answer_any_more", host_that_goes_down),
    ("a_host_with_outages_answers_again_after_each", host_with_outages),
    ("connects_to_all_ports_are_answered_without_loss", all_ports),
    ("no_route_leads_out_of_the_lab", no_route),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Passed,
    Failed,
    Skipped,
}

/// The exit code of a case where no lab is possible (sysexits(3): EX_UNAVAILABLE).
const UNAVAILABLE: u8 = 69;
/// The number of cases that run at once. Most of them wait for timeouts for most of their time.
const CASES_AT_ONCE: usize = 2;
/// A case that takes longer than this hangs.
const CASE_TIMEOUT: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [flag, name] = arguments.as_slice()
        && flag == "--case"
    {
        return run_case(name);
    }
    let filter = arguments.iter().find(|argument| !argument.starts_with('-'));
    let is_wanted = |name: &str| filter.is_none_or(|filter| name.contains(filter.as_str()));
    let wanted = Mutex::new(cases().filter(|(name, _)| is_wanted(name)));
    let run_next = || {
        let next = wanted.lock().expect("no thread panics while it holds the lock").next();
        next.map(|(name, _)| report(name))
    };
    let verdicts: Vec<Verdict> = std::thread::scope(|scope| {
        let run = || std::iter::from_fn(run_next).collect::<Vec<Verdict>>();
        let threads: Vec<_> = (0..CASES_AT_ONCE).map(|_| scope.spawn(run)).collect();
        threads.into_iter().flat_map(|it| it.join().expect("a thread only waits")).collect()
    });
    let count = |verdict| verdicts.iter().filter(|it| **it == verdict).count();
    let [passed, failed, skipped] = [Verdict::Passed, Verdict::Failed, Verdict::Skipped].map(count);
    println!("lab result: {passed} passed, {failed} failed, {skipped} skipped");
    let must_run = std::env::var_os("OPENPORTS_REQUIRE_ALL").is_some();
    if failed > 0 || (must_run && skipped > 0) { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Runs a case, prints its verdict, and returns it.
fn report(name: &str) -> Verdict {
    let (verdict, text) = match run_child(name) {
        Ok(Some(0)) => (Verdict::Passed, "ok"),
        Ok(Some(code)) if code == i32::from(UNAVAILABLE) => {
            (Verdict::Skipped, "SKIPPED: the lab is not available here")
        }
        Ok(Some(_) | None) | Err(_) => (Verdict::Failed, "FAILED"),
    };
    println!("lab {name} ... {text}");
    verdict
}

fn cases() -> impl Iterator<Item = &'static Case> {
    LAB_CASES
        .iter()
        .chain(links::CASES)
        .chain(scans::CASES)
        .chain(syn_scans::CASES)
        .chain(local_faults::CASES)
}

/// Runs one case in its own process. Returns its exit code, or `None` if a signal or the timeout
/// ended it.
fn run_child(name: &str) -> io::Result<Option<i32>> {
    let mut child = Command::new(std::env::current_exe()?).args(["--case", name]).spawn()?;
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status.code());
        }
        if start.elapsed() > CASE_TIMEOUT {
            println!("lab {name} did not end within {CASE_TIMEOUT:?}");
            child.kill()?;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn run_case(name: &str) -> ExitCode {
    let Some((_, run)) = cases().find(|(known, _)| *known == name) else {
        println!("there is no case {name}");
        return ExitCode::FAILURE;
    };
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("{name}: {error}");
            let is_unavailable =
                error.is::<lab::Unavailable>() || error.is::<local_faults::MissingTool>();
            if is_unavailable { ExitCode::from(UNAVAILABLE) } else { ExitCode::FAILURE }
        }
    }
}

fn open_port() -> Outcome {
    let lab = Lab::enter()?.start(vec![Host::new(HOST_ADDRESS).ports(&[22], Port::Open)])?;
    let (stream, _) = connect(HOST_ADDRESS, 22, 1000);
    let mut stream = stream?;
    stream.write_all(b"hello")?;
    stream.shutdown(std::net::Shutdown::Write)?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    assert_eq!(io::Read::read(&mut stream, &mut [0; 1])?, 0, "the FIN is answered with a FIN");
    let stats = lab.stop()?;
    assert_eq!((stats.syns, stats.own_losses()), (1, 0), "{stats}");
    Ok(())
}

fn closed_port() -> Outcome {
    let _lab = Lab::enter()?.start(vec![Host::new(HOST_ADDRESS)])?;
    let (result, elapsed) = connect(HOST_ADDRESS, 23, 1000);
    assert_eq!(result.map_err(|error| error.kind()).err(), Some(ErrorKind::ConnectionRefused));
    assert!(elapsed < Duration::from_millis(500), "the answer took {elapsed:?}");
    Ok(())
}

fn silent_port() -> Outcome {
    let lab = Lab::enter()?.start(vec![Host::new(HOST_ADDRESS).rest(Port::Silent)])?;
    let (result, elapsed) = connect(HOST_ADDRESS, 23, 1500);
    assert_eq!(result.map_err(|error| error.kind()).err(), Some(ErrorKind::TimedOut));
    assert!(elapsed >= Duration::from_millis(1500));
    let stats = lab.stop()?;
    assert_eq!(
        (stats.syns, stats.ignored),
        (2, 2),
        "the kernel sends one SYN and repeats it: {stats}"
    );
    Ok(())
}

fn icmp_errors() -> Outcome {
    let expected = [
        (1, Unreachable::Network, ErrorKind::NetworkUnreachable),
        (2, Unreachable::Host, ErrorKind::HostUnreachable),
        (3, Unreachable::Port, ErrorKind::ConnectionRefused),
        (4, Unreachable::Prohibited, ErrorKind::HostUnreachable),
    ];
    check_icmp_errors(HOST_ADDRESS.into(), expected)
}

fn ipv6() -> Outcome {
    let expected = [
        (1, Unreachable::Network, ErrorKind::NetworkUnreachable),
        (2, Unreachable::Host, ErrorKind::HostUnreachable),
        (3, Unreachable::Port, ErrorKind::ConnectionRefused),
        (4, Unreachable::Prohibited, ErrorKind::PermissionDenied),
    ];
    check_icmp_errors(Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, 1, 1).into(), expected)
}

/// Tests a host whose ports 1 to 4 answer with these errors. Port 22 is open and the others are
/// closed.
fn check_icmp_errors(address: IpAddr, expected: [(u16, Unreachable, ErrorKind); 4]) -> Outcome {
    // If an ICMP error arrives before `connect` returns, the kernel still holds the lock of the
    // socket and drops the error (LockDroppedIcmps). Only the SYN that is repeated after a second
    // causes another error. The round-trip time avoids this.
    let rtt = Duration::from_millis(2);
    let mut host = Host::new(address).rtt(rtt).ports(&[22], Port::Open);
    for (port, why, _) in expected {
        host = host.ports(&[port], Port::Unreachable(why));
    }
    let _lab = Lab::enter()?.start(vec![host])?;
    for (port, why, kind) in expected {
        let (result, elapsed) = connect(address, port, 2000);
        assert_eq!(
            result.as_ref().map_err(io::Error::kind).err(),
            Some(kind),
            "{why:?}: {result:?}"
        );
        assert!(elapsed < Duration::from_millis(500), "{why:?}: the answer took {elapsed:?}");
    }
    connect(address, 22, 1000).0?;
    let refused = connect(address, 23, 1000).0.map_err(|error| error.kind());
    assert_eq!(refused.err(), Some(ErrorKind::ConnectionRefused));
    Ok(())
}

fn round_trip() -> Outcome {
    let rtt = Duration::from_millis(50);
    let host = Host::new(HOST_ADDRESS).rtt(rtt).ports(&[22], Port::Open);
    let lab = Lab::enter()?.start(vec![host])?;
    let times: Vec<Duration> =
        (0..20).map(|n| connect(HOST_ADDRESS, if n % 2 == 0 { 22 } else { 23 }, 2000).1).collect();
    assert!(times.iter().all(|time| *time >= rtt), "{times:?}");
    // The minimum of twenty times is used: a busy machine may delay some of them, but not all.
    let best = times.iter().min().copied().unwrap_or_default();
    assert!(best < rtt + Duration::from_millis(5), "{times:?}");
    assert_eq!(lab.stop()?.own_losses(), 0);
    Ok(())
}

fn loss() -> Outcome {
    let host = Host::new(HOST_ADDRESS).loss(0.3).rest(Port::Open);
    let lab = Lab::enter()?.start(vec![host])?;
    let (first, repeated) = connect_all(100, |times| {
        let second = Duration::from_secs(1);
        let is_repeated = |time: &&Duration| **time >= second - Duration::from_millis(5);
        let repeated = times.iter().filter(is_repeated).count();
        (times.len() - repeated, repeated)
    })?;
    let stats = lab.stop()?;
    assert!(stats.lost_to > 0 && stats.lost_from > 0, "{stats}");
    // On average 49 of 100 get an answer to the first SYN. Fewer than 20 have a probability below
    // 10^-8.
    assert!(first >= 20, "{first} ports answered the first SYN: {stats}");
    assert!(repeated >= 10, "{repeated} ports answered the repeated SYN: {stats}");
    Ok(())
}

fn rst_limit() -> Outcome {
    let host = Host { rst_per_second: Some(100), ..Host::new(HOST_ADDRESS) };
    let lab = Lab::enter()?.start(vec![host])?;
    let answered = connect_all(300, count_within_half_a_second)?;
    assert_eq!(answered, 100);
    assert!(lab.stop()?.limited >= 200);
    Ok(())
}

fn syn_limit() -> Outcome {
    let host = Host { syn_per_second: Some(100), ..Host::new(HOST_ADDRESS).rest(Port::Open) };
    let lab = Lab::enter()?.start(vec![host])?;
    let answered = connect_all(300, count_within_half_a_second)?;
    assert_eq!(answered, 100);
    assert!(lab.stop()?.limited >= 200);
    Ok(())
}

fn host_that_goes_down() -> Outcome {
    let other = std::net::Ipv4Addr::new(10, 99, 1, 2);
    let hosts = vec![
        Host { down_after: Some(DownAfter::Packets(2)), ..Host::new(HOST_ADDRESS) },
        Host { down_after: Some(DownAfter::Time(Duration::from_millis(300))), ..Host::new(other) },
    ];
    let _lab = Lab::enter()?.start(hosts)?;
    for address in [HOST_ADDRESS, other] {
        let kind = |port| connect(address, port, 400).0.map_err(|error| error.kind()).err();
        assert_eq!(kind(1), Some(ErrorKind::ConnectionRefused), "{address} is up");
        assert_eq!(kind(2), Some(ErrorKind::ConnectionRefused), "{address} is up");
        std::thread::sleep(Duration::from_millis(310));
        assert_eq!(kind(3), Some(ErrorKind::TimedOut), "{address} is down");
    }
    Ok(())
}

fn host_with_outages() -> Outcome {
    let outages = Outages { up: Duration::from_secs(2), down: Duration::from_secs(2) };
    let _lab =
        Lab::enter()?.start(vec![Host { outages: Some(outages), ..Host::new(HOST_ADDRESS) }])?;
    let begun = Instant::now();
    let mut seen = Vec::new();
    // Probes the port ten times a second until it has answered, been silent, and answered again.
    while seen.len() < 3 && begun.elapsed() < Duration::from_secs(20) {
        let kind = connect(HOST_ADDRESS, 1, 100).0.map_err(|error| error.kind()).err();
        if seen.last() != Some(&kind) {
            seen.push(kind);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    let (refused, silent) = (Some(ErrorKind::ConnectionRefused), Some(ErrorKind::TimedOut));
    assert_eq!(seen, [refused, silent, refused]);
    Ok(())
}

fn all_ports() -> Outcome {
    let lab = Lab::enter()?.start(vec![Host::new(HOST_ADDRESS)])?;
    for port in 1..=u16::MAX {
        let kind = connect(HOST_ADDRESS, port, 900).0.map_err(|error| error.kind()).err();
        assert_eq!(kind, Some(ErrorKind::ConnectionRefused), "port {port}");
    }
    let stats = lab.stop()?;
    assert_eq!((stats.syns, stats.answered, stats.own_losses()), (65_535, 65_535, 0), "{stats}");
    Ok(())
}

fn no_route() -> Outcome {
    let _lab = Lab::enter()?.start(vec![Host::new(HOST_ADDRESS)])?;
    let address = std::net::Ipv4Addr::new(192, 0, 2, 1);
    let kind = connect(address, 80, 1000).0.map_err(|error| error.kind()).err();
    assert_eq!(kind, Some(ErrorKind::NetworkUnreachable));
    Ok(())
}

/// Connects with a timeout; also returns the elapsed time.
fn connect(
    address: impl Into<IpAddr>,
    port: u16,
    timeout_ms: u64,
) -> (io::Result<TcpStream>, Duration) {
    let start = Instant::now();
    let address = SocketAddr::new(address.into(), port);
    let connect = || TcpStream::connect_timeout(&address, Duration::from_millis(timeout_ms));
    let result = connect().or_else(|error| match (error.raw_os_error(), error.kind()) {
        (Some(_), _) | (None, io::ErrorKind::TimedOut) => Err(error),
        // The standard library found a socket that has failed without an error code (seen once, on
        // a busy machine). The state of the port is unknown, so the call is repeated.
        (None, _) => connect(),
    });
    (result, start.elapsed())
}

/// Connects to the ports from 1 to `ports` at the same time and polls them for 2.5 s, which is
/// enough for one repeated SYN. `view` receives the times of all ports that answered (opened or
/// refused).
fn connect_all<T>(ports: u16, view: impl FnOnce(&[Duration]) -> T) -> io::Result<T> {
    use socket2::{Domain, Socket, Type};
    let start = Instant::now();
    let mut waiting = Vec::new();
    for port in 1..=ports {
        let socket = Socket::new(Domain::IPV4, Type::STREAM.nonblocking(), None)?;
        match socket.connect(&SocketAddr::new(HOST_ADDRESS.into(), port).into()) {
            Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
            other => other?,
        }
        waiting.push(socket);
    }
    let mut times = Vec::new();
    while start.elapsed() < Duration::from_millis(2500) {
        waiting.retain(|socket| {
            let is_refused = !matches!(socket.take_error(), Ok(None));
            let is_answered = is_refused || socket.peer_addr().is_ok();
            times.extend(is_answered.then(|| start.elapsed()));
            !is_answered
        });
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(view(&times))
}

fn count_within_half_a_second(times: &[Duration]) -> usize {
    times.iter().filter(|time| **time < Duration::from_millis(500)).count()
}
