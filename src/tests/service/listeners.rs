//! Listeners other than TCP ports: Unix sockets, and listeners that a service manager passes.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener, UnixStream};
use std::path::Path;

use crate::process::{EVENT_TIMEOUT, Folder, Service, run, run_passing, until};
use crate::startup::check;

/// The answer of the service at this path to a GET request.
fn get(path: &str, target: &str) -> String {
    let mut stream = UnixStream::connect(path).expect(path);
    stream.set_read_timeout(Some(EVENT_TIMEOUT)).expect("the timeout is not zero");
    let request = format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("the service reads the request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("the service answers and closes");
    answer
}

fn check_answer(path: &str, target: &str, status: &str) {
    let answer = get(path, target);
    assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{target}: {answer}");
}

/// Starts a service that listens on this path and on a port.
fn start(path: &str, args: &[&str]) -> Service {
    let listen = format!("unix:{path}");
    let service = Service::start(&[&["--listen", &listen], args].concat());
    service.log_line(&["msg=listening", &format!("address={listen}")]);
    service
}

#[test]
fn a_unix_socket_serves_its_owner_and_group_and_is_removed_at_the_end() {
    let folder = Folder::short("unix");
    let path = folder.path("socket");
    let mut service = start(&path, &[]);
    check_answer(&path, "/healthz", "200");
    check_answer(&path, "/open-ports?domain=127.0.0.1&toPort=1", "200");
    service.log_line(&["route=/open-ports", "client=0.0.0.0"]);
    let example = format!("curl --unix-socket '{path}' 'http://localhost/open-ports?");
    assert!(get(&path, "/").contains(&example));
    let file = std::fs::symlink_metadata(&path).unwrap();
    assert!(file.file_type().is_socket());
    assert_eq!(file.permissions().mode() & 0o777, 0o660);
    let healthy = run(None, &["healthcheck", &format!("unix:{path}")]);
    assert_eq!((healthy.code, &*healthy.stderr), (Some(0), ""));
    service.signal("TERM");
    assert_eq!(service.wait(), Some(0));
    assert!(!Path::new(&path).exists());
    let unhealthy = run(None, &["healthcheck", "--listen", &format!("unix:{path}")]);
    check(&unhealthy, 1, &[&path, "No such file"]);
}

#[test]
fn all_clients_of_a_unix_socket_share_one_quota_of_scans() {
    let folder = Folder::short("share");
    let path = folder.path("socket");
    let service = start(&path, &["--max-scans-per-client", "1"]);
    let mut first = UnixStream::connect(&path).unwrap();
    let slow = "/open-ports?domain=127.0.0.1&toPort=1000&rate=1";
    let request = format!("GET {slow} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    first.write_all(request.as_bytes()).unwrap();
    until("the first scan runs", || (service.metric("openports_scans_running") == 1).then_some(()));
    check_answer(&path, "/open-ports?domain=127.0.0.1&toPort=1", "429");
    // A client with an IP address has a quota of its own.
    service.scan("domain=127.0.0.1&toPort=1");
}

#[test]
fn the_socket_file_is_removed_after_a_second_signal() {
    let folder = Folder::short("second");
    let path = folder.path("socket");
    let mut service = start(&path, &["--drain-delay", "60s"]);
    service.signal("TERM");
    service.log_line(&["msg=draining"]);
    assert!(Path::new(&path).exists(), "the service listens during the delay");
    service.signal("TERM");
    service.wait();
    assert!(!Path::new(&path).exists());
}

#[test]
fn the_socket_file_of_a_killed_service_is_replaced() {
    let folder = Folder::short("stale");
    let path = folder.path("socket");
    let mut killed = start(&path, &[]);
    killed.signal("KILL");
    killed.wait();
    assert!(Path::new(&path).exists(), "a killed process cannot remove its file");
    let _service = start(&path, &[]);
    check_answer(&path, "/healthz", "200");
}

#[test]
fn a_socket_in_use_and_a_regular_file_are_not_replaced() {
    let folder = Folder::short("taken");
    let path = folder.path("socket");
    let listen = format!("unix:{path}");
    let listener = UnixListener::bind(&path).unwrap();
    let ended = run(None, &["--listen", &listen]);
    check(&ended, 71, &["--listen", &listen, "another process listens there"]);
    UnixStream::connect(&path).expect("the socket still accepts");
    drop(listener);
    let file = folder.write("file", "content");
    let ended = run(None, &["--listen", &format!("unix:{file}")]);
    check(&ended, 71, &["--listen", &file, "is no socket"]);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "content");
    let nowhere = format!("unix:{}", folder.path("none/socket"));
    check(&run(None, &["--listen", &nowhere]), 71, &["--listen", &nowhere]);
    let long = format!("unix:/{}", "x".repeat(107));
    check(&run(None, &["--listen", &long]), 64, &["--listen", "108 bytes"]);
}

#[test]
fn a_failed_start_leaves_no_socket_file() {
    let folder = Folder::short("failed");
    let path = folder.path("socket");
    let listen = format!("unix:{path}");
    check(&run(None, &["--listen", &listen, "--listen", "192.0.2.1:0"]), 71, &["192.0.2.1:0"]);
    assert!(!Path::new(&path).exists());
    check(&run(None, &["--listen", &listen, "--listen", &listen]), 71, &["another process"]);
    assert!(!Path::new(&path).exists());
}

#[test]
fn a_socket_file_that_another_process_replaced_is_not_removed() {
    let folder = Folder::short("replaced");
    let path = folder.path("socket");
    let mut service = start(&path, &[]);
    std::fs::remove_file(&path).unwrap();
    let _other = UnixListener::bind(&path).unwrap();
    service.signal("TERM");
    assert_eq!(service.wait(), Some(0));
    UnixStream::connect(&path).expect("the file of the other socket remains");
}

const ONE_DESCRIPTOR: &str = "LISTEN_PID=$$ LISTEN_FDS=1";

fn tcp(at: &str) -> (OwnedFd, String) {
    let listener = TcpListener::bind(at).unwrap();
    let at = listener.local_addr().unwrap().to_string();
    (listener.into(), at)
}

#[test]
fn a_passed_listener_replaces_the_variable_but_not_the_flag() {
    let (listener, at) = tcp("127.0.0.1:0");
    let variables = format!("{ONE_DESCRIPTOR} OPENPORTS_LISTEN=192.0.2.1:1");
    let mut service = Service::start_passing(&variables, listener, &[]);
    assert_eq!(service.address.to_string(), at);
    service.scan("domain=127.0.0.1&toPort=1");
    service.signal("TERM");
    assert_eq!(service.wait(), Some(0));

    let (listener, at) = tcp("127.0.0.1:0");
    let args = ["--listen", "127.0.0.2:0"];
    let service = Service::start_passing(ONE_DESCRIPTOR, listener, &args);
    assert_eq!(service.address.to_string(), at);
    let line = service.log_line(&["msg=listening", "address=127.0.0.2:"]);
    let own = line.rsplit_once("address=").map(|(_, at)| at).unwrap();
    TcpStream::connect(own).expect("the service also listens on the address of the flag");
}

#[test]
fn the_exposure_of_a_service_follows_from_its_passed_listeners() {
    let (listener, _) = tcp("0.0.0.0:0");
    let mut service = Service::start_passing(ONE_DESCRIPTOR, listener, &[]);
    service.address.set_ip([127, 0, 0, 1].into());
    service.get("/open-ports?domain=127.0.0.1&toPort=1").check_status(403);
}

#[test]
fn the_file_of_a_passed_unix_socket_is_not_removed() {
    let folder = Folder::short("passed");
    let path = folder.path("socket");
    let listener = UnixListener::bind(&path).unwrap();
    let args = ["--listen", "127.0.0.1:0"];
    let mut service = Service::start_passing(ONE_DESCRIPTOR, listener.into(), &args);
    service.log_line(&["msg=listening", &format!("address=unix:{path}")]);
    check_answer(&path, "/open-ports?domain=127.0.0.1&toPort=1", "200");
    service.signal("TERM");
    assert_eq!(service.wait(), Some(0));
    assert!(Path::new(&path).exists());
}

#[test]
fn a_passed_descriptor_that_does_not_listen_ends_with_71() {
    let (listener, at) = tcp("127.0.0.1:0");
    let stream = TcpStream::connect(at).unwrap();
    let datagrams = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let file = File::open("/dev/null").unwrap();
    for descriptor in [stream.into(), datagrams.into(), file.into()] {
        let ended = run_passing(ONE_DESCRIPTOR, descriptor, &[]);
        check(&ended, 71, &["LISTEN_FDS", "descriptor 3", "is no listening stream socket"]);
    }
    let two = "LISTEN_PID=$$ LISTEN_FDS=2";
    let ended = run_passing(two, listener.try_clone().unwrap(), &[]);
    check(&ended, 71, &["LISTEN_FDS", "descriptor 4"]);
    let ended = run_passing("LISTEN_PID=$$ LISTEN_FDS=many", listener, &[]);
    check(&ended, 71, &["LISTEN_FDS", "many"]);
}

#[test]
fn the_service_manager_is_notified_of_ready_and_stopping() {
    let folder = Folder::short("notify");
    let path = folder.path("notify");
    let name = format!("openports-{}", std::process::id());
    let manager_at = |address: SocketAddr| UnixDatagram::bind_addr(&address).unwrap();
    for (variable, address) in [
        (path.clone(), SocketAddr::from_pathname(&path).unwrap()),
        (format!("@{name}"), SocketAddr::from_abstract_name(&name).unwrap()),
    ] {
        let manager = manager_at(address);
        manager.set_read_timeout(Some(EVENT_TIMEOUT)).unwrap();
        let receive = || {
            let mut bytes = [0; 64];
            let count = manager.recv(&mut bytes).expect("a message arrives in time");
            String::from_utf8_lossy(&bytes[..count]).into_owned()
        };
        let (listener, _) = tcp("127.0.0.1:0");
        let variables = format!("{ONE_DESCRIPTOR} NOTIFY_SOCKET={variable}");
        let flags = ["--drain-timeout", "60s"];
        let mut service = Service::start_passing(&variables, listener, &flags);
        assert_eq!(receive(), "READY=1");
        service.signal("TERM");
        // The longest shutdown: the drain timeout, 10 s for slow readers, and one second more.
        assert_eq!(receive(), "STOPPING=1\nEXTEND_TIMEOUT_USEC=71000000");
        assert_eq!(service.wait(), Some(0));
    }
}

#[test]
fn a_service_manager_that_does_not_listen_is_ignored() {
    for variable in ["/nowhere/notify", "@openports-nobody", "vsock:1:2"] {
        let (listener, _) = tcp("127.0.0.1:0");
        let variables = format!("{ONE_DESCRIPTOR} NOTIFY_SOCKET={variable}");
        let mut service = Service::start_passing(&variables, listener, &[]);
        service.scan("domain=127.0.0.1&toPort=1");
        service.signal("TERM");
        assert_eq!(service.wait(), Some(0));
    }
}

#[test]
fn a_listener_passed_to_another_process_is_ignored() {
    let (listener, at) = tcp("127.0.0.1:0");
    let variables = "LISTEN_PID=1 LISTEN_FDS=1 OPENPORTS_LISTEN=127.0.0.1:0";
    let service = Service::start_passing(variables, listener, &[]);
    assert_ne!(service.address.to_string(), at);
}
