//! What the command line says, and what is told when the service cannot start.

use std::net::TcpListener;

use crate::network::has_ipv6;
use crate::process::{Ended, Folder, Service, run};

/// One line on stderr that has these words in it, and nothing on stdout.
pub(crate) fn check(ended: &Ended, code: i32, words: &[&str]) {
    let Ended { command, stderr, .. } = ended;
    assert_eq!((ended.code, &*ended.stdout), (Some(code), ""), "{command}: {stderr}");
    assert_eq!(stderr.lines().count(), 1, "{command}: {stderr}");
    assert!(stderr.starts_with("openports: "), "{command}: {stderr}");
    assert!(words.iter().all(|word| stderr.contains(word)), "{command}: {words:?}: {stderr}");
}

#[test]
fn a_wrong_command_line_ends_with_64_and_names_the_fault() {
    for (args, words) in [
        (&["--max-scan", "1"][..], &["--max-scan", "--max-scans"][..]),
        (&["--timeout", "fast"], &["--timeout", "fast"]),
        (&["--timeout", "61s"], &["--timeout", "61s"]),
        (&["--timeout"], &["--timeout"]),
        (&["--timeout", "1s", "--timeout", "2s"], &["--timeout", "2s"]),
        (&["--listen", "localhost:80"], &["--listen", "localhost:80"]),
        (&["--listen", "127.0.0.1:65536"], &["--listen", "127.0.0.1:65536"]),
        (&["--deny", "10.0.0.0/33"], &["--deny", "10.0.0.0/33"]),
        (&["--deny", "10.0.0.1/8"], &["--deny", "10.0.0.1/8", "the network is 10.0.0.0/8"]),
        (&["--allow", "fd00::1/8"], &["--allow", "fd00::1/8", "the network is fd00::/8"]),
        (&["--trust-proxy", "::1/64"], &["--trust-proxy", "::1/64", "the network is ::/64"]),
        (&["--log-level", "loud"], &["--log-level", "loud"]),
        (&["--max-connections", "0"], &["--max-connections", "0"]),
        (&["serv"], &["serv", "serve"]),
        (&["serve", "now"], &["now"]),
        (&["-x"], &["-x"]),
    ] {
        check(&run(None, args), 64, words);
    }
}

#[test]
fn a_port_that_is_taken_ends_with_71_and_nothing_stays_bound() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().map(|address| (address.to_string(), taken)).unwrap();
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let ended = run(None, &["--listen", &free, "--listen", &taken.0]);
    check(&ended, 71, &["--listen", &taken.0]);
    TcpListener::bind(&free).expect("the first listener is gone with the process");
    check(&run(None, &["--listen", "192.0.2.1:0"]), 71, &["--listen", "192.0.2.1:0"]);
}

#[test]
fn a_file_of_names_that_cannot_be_read_ends_with_71() {
    let folder = Folder::new("startup");
    let here = folder.write("hosts", "127.0.0.1 here\n");
    let gone = format!("{here}.gone");
    let listen = ["--listen", "127.0.0.1:0"];
    for flag in ["--resolv-conf", "--hosts"] {
        let ended = run(None, &[&listen[..], &[flag, &gone]].concat());
        check(&ended, 71, &[flag, &gone]);
        // A directory can be opened, but not read.
        let ended = run(None, &[&listen[..], &[flag, "/proc"]].concat());
        check(&ended, 71, &[flag, "/proc"]);
    }
}

#[test]
fn help_names_every_flag_and_version_the_version() {
    for args in [&["--help"][..], &["-h"], &["serve", "--help"]] {
        let ended = run(None, args);
        assert_eq!((ended.code, &*ended.stderr), (Some(0), ""), "{}", ended.command);
        for flag in ["--listen", "--max-in-flight", "--resolv-conf", "OPENPORTS_DRAIN_TIMEOUT"] {
            assert!(ended.stdout.contains(flag), "{flag} is not in {}", ended.stdout);
        }
        assert!(ended.stdout.lines().all(|line| line.len() <= 80), "{}", ended.stdout);
    }
    for flag in ["--version", "-V"] {
        let ended = run(None, &[flag]);
        let version = concat!("openports ", env!("CARGO_PKG_VERSION"), "\n");
        assert_eq!((ended.code, &*ended.stdout, &*ended.stderr), (Some(0), version, ""));
    }
}

#[test]
fn every_listener_is_bound_and_logged() {
    let service = Service::start_exactly(&[
        "serve",
        "--listen=127.0.0.1:0",
        "--listen=127.0.0.2:0,127.0.0.3:0",
    ]);
    for address in ["127.0.0.1:", "127.0.0.2:", "127.0.0.3:"] {
        let line = service.log_line(&["msg=listening", address]);
        let at = line.rsplit_once("address=").map(|(_, at)| at).unwrap();
        std::net::TcpStream::connect(at).expect("what was logged was bound");
    }
    let limits = service.log_line(&["msg=limits"]);
    for word in ["descriptors=", "in_flight=", "connections=1024", "timeout_ms=2000.000"] {
        assert!(limits.contains(word), "{word} is not in {limits}");
    }
}

#[test]
fn a_wildcard_of_ipv6_takes_both_families() {
    if !has_ipv6() {
        return;
    }
    let mut service = Service::start_exactly(&["--listen", "[::]:0", "--allow", "127.0.0.0/8"]);
    for (host, client) in [("127.0.0.1", "client=127.0.0.1"), ("::1", "client=::1")] {
        service.address.set_ip(host.parse().unwrap());
        service.scan("domain=127.0.0.1&toPort=1");
        service.log_line(&["route=/open-ports", client]);
    }
}
