//! Tests of the command line as a shell sees it: the binary, its output streams and its exit code.
//!
//! The tests use real listeners on loopback, real signals and real pipes. No packet leaves this
//! machine.

#![expect(clippy::expect_used, reason = "a panic is the failure of a test")]

#[path = "shell/formats.rs"]
mod formats;
#[path = "shell/output.rs"]
mod output;
#[path = "shell/targets.rs"]
mod targets;
#[path = "shell/usage.rs"]
mod usage;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::FromRawFd;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use socket2::{Domain, Socket, Type};

/// The binary, without the variables that configure it.
fn openports(args: &[&str]) -> Command {
    let mut command = unconfigured(env!("CARGO_BIN_EXE_openports"));
    command.args(args);
    command
}

/// A shell script that gets the path of the binary as `$0` and this argument as `$1`.
fn sh(script: &str, argument: &str) -> Command {
    let mut command = unconfigured("sh");
    command.args(["-c", script, env!("CARGO_BIN_EXE_openports"), argument]);
    command
}

/// A program without the variables that configure openports.
fn unconfigured(program: &str) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("OPENPORTS_") {
            command.env_remove(name);
        }
    }
    command
}

struct Run {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

fn decode(output: Output) -> Run {
    Run {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).expect("stdout is text"),
        stderr: String::from_utf8(output.stderr).expect("stderr is text"),
    }
}

/// Reports that something could not be tested. It fails if `OPENPORTS_REQUIRE_ALL` is set.
fn skip(why: &str) {
    assert!(std::env::var_os("OPENPORTS_REQUIRE_ALL").is_none(), "{why}");
    let _ = writeln!(std::io::stderr(), "SKIPPED: {why}");
}

fn run(args: &[&str]) -> Run {
    decode(openports(args).stdin(Stdio::null()).output().expect("the binary runs"))
}

/// Runs the binary with this text on stdin.
fn run_with(args: &[&str], input: &str) -> Run {
    let (pipe, mut end) = std::io::pipe().expect("a pipe can be created");
    let command = openports(args).stdin(pipe).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let child = command.expect("the binary runs");
    end.write_all(input.as_bytes()).expect("the list is read");
    drop(end);
    decode(child.wait_with_output().expect("the scan ends"))
}

/// A listener on this address, and its port.
fn listener(address: [u8; 4]) -> (TcpListener, u16) {
    let listener = TcpListener::bind(SocketAddr::from((address, 0))).expect("loopback has a port");
    let port = listener.local_addr().expect("the socket is bound").port();
    (listener, port)
}

/// A local port that drops SYNs, because the queue of its listener is full. It stays silent as long
/// as the returned values live.
fn silent_port() -> (Socket, Vec<TcpStream>, u16) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket can be created");
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).expect("a port is free");
    socket.listen(0).expect("the socket listens");
    let at = socket
        .local_addr()
        .expect("the socket is bound")
        .as_socket()
        .expect("the socket has an IP address");
    let timeout = Duration::from_millis(200);
    let clients = std::iter::from_fn(|| TcpStream::connect_timeout(&at, timeout).ok()).collect();
    (socket, clients, at.port())
}

fn json(line: &str) -> Value {
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line:?}"))
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(json).collect()
}

fn signal(child: &Child, name: &str) {
    let id = child.id().to_string();
    let sent = Command::new("kill").args([name, &id]).status();
    assert!(sent.expect("kill runs").success());
}

#[test]
fn a_scan_prints_a_table_with_every_open_port_and_no_escape_sequence() {
    let (_listener, port) = listener([127, 0, 0, 1]);
    let run = run(&["scan", "localhost", &format!("{port},1-9"), "--exclude", "1-8"]);
    assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""));
    let mut table = run.stdout.lines();
    let heading = table.next().expect("the table has a heading");
    assert!(heading.starts_with("localhost (127.0.0.1): 1 open of 2 ports, 1 closed, in "));
    assert!(table.next().expect("the table has a row").trim_start().starts_with(&port.to_string()));
    assert_eq!(table.next(), None);
    assert!(!run.stdout.contains('\x1b'), "a pipe receives no colours");
}

#[test]
fn a_scan_prints_the_same_json_and_events_as_the_service() {
    let (_listener, port) = listener([127, 0, 0, 1]);
    let ports = format!("{port}-{port}");
    let answer = run(&["scan", "--json", "127.0.0.1", &ports]);
    assert_eq!((answer.code, answer.stderr.as_str()), (Some(0), ""));
    let summary = json(&answer.stdout);
    assert_eq!(summary["open_ports"], serde_json::json!([port]));
    assert_eq!((&summary["domain"], &summary["complete"]), (&"127.0.0.1".into(), &true.into()));
    let stream = run(&["scan", "--ndjson", "127.0.0.1", &ports]);
    let events = lines(&stream.stdout);
    let names: Vec<&Value> = events.iter().map(|event| &event["event"]).collect();
    assert_eq!(names, ["start", "open", "end"], "{}", stream.stdout);
    assert_eq!(events[1]["port"], port);
}

#[test]
fn the_timeout_may_be_above_the_deadline_as_in_the_service() {
    let (_listener, _fillers, port) = silent_port();
    let port = port.to_string();
    let times = ["--timeout", "30s", "--deadline", "200ms"];
    let run = run(&[&["scan", "--json", "127.0.0.1", &port], &times[..]].concat());
    assert_eq!((run.code, run.stderr.as_str()), (Some(1), ""));
    let answer = json(&run.stdout);
    assert_eq!((&answer["counts"]["untested"], &answer["complete"]), (&1.into(), &false.into()));
}

#[test]
fn every_target_of_a_list_is_scanned_with_its_own_ports_or_the_common_ones() {
    let (_one, port) = listener([127, 0, 0, 1]);
    let (_two, own_port) = listener([127, 0, 3, 2]);
    let list = format!("# ours\n127.0.0.1\n\n127.0.3.2 {own_port} # its own\nlocalhost\n");
    let run = run_with(&["scan", "--json", "--targets", "-", &port.to_string()], &list);
    assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""));
    let mut found: Vec<(Value, Value)> = lines(&run.stdout)
        .into_iter()
        .map(|summary| (summary["domain"].clone(), summary["open_ports"][0].clone()))
        .collect();
    found.sort_by_key(|(domain, _)| domain.to_string());
    let expected = [("127.0.0.1", port), ("127.0.3.2", own_port), ("localhost", port)];
    assert_eq!(found, expected.map(|(domain, port)| (domain.into(), port.into())));
}

#[test]
fn a_bad_line_and_an_unknown_name_are_reported_and_the_rest_is_scanned() {
    let (_listener, port) = listener([127, 0, 0, 1]);
    let list = "127.0.0.1\nexa~mple\nnope.localhost.invalid.\n127.0.0.1 0\n";
    // There is no name server, so no query leaves this machine.
    let no_servers = "/dev/null";
    let args = ["scan", "--targets", "-", "--json", "--resolv-conf", no_servers, &port.to_string()];
    let run = run_with(&args, list);
    assert_eq!(run.code, Some(1));
    let expected = ["openports: --targets, line 2: ", "openports: --targets, line 4: "];
    for start in expected {
        assert!(run.stderr.lines().any(|line| line.starts_with(start)), "{}", run.stderr);
    }
    let name = "openports: nope.localhost.invalid.: ";
    assert!(run.stderr.lines().any(|line| line.starts_with(name)), "{}", run.stderr);
    let answers = lines(&run.stdout);
    assert!(answers.iter().any(|answer| answer["open_ports"][0] == port), "{}", run.stdout);
    assert!(answers.iter().any(|answer| answer["cause"].is_string()), "{}", run.stdout);
}

#[test]
fn shards_together_connect_to_each_target_and_port_exactly_once() {
    for shards in [1, 3, 7] {
        let listeners: Vec<(TcpListener, u16)> =
            (1..=20).map(|host| listener([127, 0, 4, host])).collect();
        let target = |(at, (_, port)): (usize, &(TcpListener, u16))| {
            format!("127.0.4.{} {port},1\n", at + 1)
        };
        let list: String = listeners.iter().enumerate().map(target).collect();
        let (mut connects, mut sizes) = (BTreeMap::new(), Vec::new());
        for shard in 1..=shards {
            let part = format!("{shard}/{shards}");
            let run = run_with(&["scan", "--json", "--targets", "-", "--shard", &part], &list);
            assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""), "shard {part}");
            let mut size = 0;
            for answer in lines(&run.stdout) {
                let counts = &answer["counts"];
                let ports = counts["open"].as_u64().zip(counts["closed"].as_u64());
                let (open, closed) = ports.expect("counts are numbers");
                size += open + closed;
                *connects.entry(answer["domain"].to_string()).or_insert(0) += open + closed;
            }
            sizes.push(size);
        }
        assert!(connects.values().all(|ports| *ports == 2) && connects.len() == 20, "{connects:?}");
        assert!(sizes.iter().max() <= sizes.iter().min().map(|least| least + 1).as_ref());
        for (listener, port) in &listeners {
            listener.set_nonblocking(true).expect("the listener is open");
            let accepted = std::iter::from_fn(|| listener.accept().ok()).count();
            assert_eq!(accepted, 1, "port {port} in {shards} shards");
        }
    }
}

#[test]
fn wrong_usage_prints_one_line_and_ends_with_64() {
    for args in [
        &["scan"][..],
        &["scan", "localhost", "0"],
        &["scan", "localhost", "--shard", "0/4"],
        &["scan", "localhost", "--shard", "5/4"],
        &["scan", "http://localhost"],
        &["scan", "--listen", "127.0.0.1:0", "localhost"],
        &["scan", "localhost", "--json", "--ndjson"],
        &["healthcheck", "localhost"],
    ] {
        let run = run(args);
        assert_eq!((run.code, run.stdout.as_str()), (Some(64), ""), "{args:?}");
        assert!(run.stderr.starts_with("openports: "), "{args:?}: {}", run.stderr);
        assert_eq!(run.stderr.lines().count(), 1, "{args:?}: {}", run.stderr);
    }
}

#[test]
fn a_target_that_cannot_be_scanned_prints_one_line_and_ends_with_1() {
    for args in [
        &["scan", "169.254.169.254", "80"][..],
        &["scan", "127.0.0.1", "80", "--deny", "127.0.0.0/8"],
        &["scan", "--targets", "/nonexistent/list"],
        &["scan", "--targets", "/dev/null"],
    ] {
        let run = run(args);
        assert_eq!((run.code, run.stdout.as_str()), (Some(1), ""), "{args:?}");
        assert!(run.stderr.starts_with("openports: "), "{args:?}: {}", run.stderr);
        assert_eq!(run.stderr.lines().count(), 1, "{args:?}: {}", run.stderr);
    }
}

#[test]
fn each_command_has_its_own_help() {
    for (args, usage) in [
        (&["--help"][..], "Usage: openports [serve] [FLAG]..."),
        (&["serve", "--help"], "Usage: openports [serve] [FLAG]..."),
        (&["scan", "--help"], "Usage: openports scan [FLAG]... TARGET... [PORTS]"),
        (&["healthcheck", "-h"], "Usage: openports healthcheck [FLAG]... [ADDRESS:PORT]"),
    ] {
        let run = run(args);
        assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""), "{args:?}");
        assert!(run.stdout.lines().any(|line| line == usage), "{args:?}: {}", run.stdout);
    }
}

#[test]
fn a_closed_stdout_ends_the_scan_without_a_message() {
    let list = "127.1.0.0/18 1-2\n";
    let (pipe, mut end) = std::io::pipe().expect("a pipe can be created");
    let mut child = openports(&["scan", "--ndjson", "--targets", "-"])
        .stdin(pipe)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    end.write_all(list.as_bytes()).expect("the list is read");
    drop(end);
    let mut stdout = BufReader::new(child.stdout.take().expect("stdout is piped"));
    let mut first = String::new();
    stdout.read_line(&mut first).expect("the output is UTF-8");
    assert_eq!(json(&first)["event"], "start");
    drop(stdout);
    let run = decode(child.wait_with_output().expect("the scan ends"));
    assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""));
}

#[test]
fn a_stdout_that_cannot_be_written_is_reported() {
    let full =
        std::fs::OpenOptions::new().write(true).open("/dev/full").expect("/dev/full can be opened");
    let mut command = openports(&["scan", "127.0.0.1", "1-9"]);
    let output = command.stdout(full).output().expect("the binary runs");
    let run = decode(output);
    assert_eq!(
        (run.code, run.stderr.as_str()),
        (Some(1), "openports: stdout: cannot be written\n")
    );
}

#[test]
fn a_slow_reader_receives_every_line_completely() {
    const TARGETS: usize = 3000;
    let list: String =
        (0..TARGETS).map(|at| format!("127.2.{}.{} 1\n", at / 250, at % 250)).collect();
    let (pipe, mut end) = std::io::pipe().expect("a pipe can be created");
    let mut child = openports(&["scan", "--ndjson", "--targets", "-"])
        .stdin(pipe)
        .stdout(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    end.write_all(list.as_bytes()).expect("the list is read");
    drop(end);
    let mut stdout = child.stdout.take().expect("stdout is piped");
    let (mut text, mut chunk) = (Vec::new(), [0; 30_000]);
    loop {
        match stdout.read(&mut chunk).expect("the output is read") {
            0 => break,
            count => text.extend_from_slice(&chunk[..count]),
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    assert_eq!(child.wait().expect("the scan ends").code(), Some(0));
    let events = lines(std::str::from_utf8(&text).expect("the output is UTF-8"));
    let ends = events.iter().filter(|event| event["event"] == "end").count();
    assert_eq!(ends, TARGETS);
}

#[test]
fn an_interrupt_prints_what_is_known_so_far() {
    let (_silent, _clients, silent) = silent_port();
    let (_listener, port) = listener([127, 0, 0, 1]);
    let ports = format!("{port},{silent}");
    let mut child = openports(&["scan", "--ndjson", "127.0.0.1", &ports, "--timeout", "60s"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    let mut stdout = BufReader::new(child.stdout.take().expect("stdout is piped"));
    let mut line = String::new();
    while !line.contains(r#""open""#) {
        line.clear();
        assert!(
            stdout.read_line(&mut line).expect("the output is UTF-8") > 0,
            "the open port is reported"
        );
    }
    signal(&child, "-INT");
    let interrupted_at = Instant::now();
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).expect("the output is UTF-8");
    let run = decode(child.wait_with_output().expect("the scan ends"));
    assert!(
        interrupted_at.elapsed() < Duration::from_secs(10),
        "the scan does not wait for the silent port"
    );
    let last = json(rest.lines().last().expect("the last line is an event"));
    assert_eq!((&last["event"], &last["complete"]), (&"end".into(), &false.into()));
    assert_eq!(last["open_ports"], serde_json::json!([port]));
    assert_eq!(last["counts"]["untested"], 1);
    assert_eq!(run.code, Some(1));
    assert!(run.stderr.starts_with("openports: interrupted"), "{}", run.stderr);
}

/// A terminal that does not report its width.
fn terminal() -> (File, File) {
    terminal_of(0)
}

/// A pseudoterminal: the first file reads what is written to the second.
#[expect(unsafe_code, reason = "openpty has no safe wrapper")]
fn terminal_of(columns: u16) -> (File, File) {
    let (mut controller, mut terminal) = (-1, -1);
    let null = std::ptr::null_mut();
    let size = libc::winsize { ws_row: 24, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: openpty writes two integers and reads a size; it gets no name and no settings
    // (openpty(3)).
    let result = unsafe {
        libc::openpty(&raw mut controller, &raw mut terminal, null, null.cast(), &raw const size)
    };
    assert_eq!(result, 0, "a terminal can be opened");
    // SAFETY: both descriptors are open and have no other owner.
    unsafe { (File::from_raw_fd(controller), File::from_raw_fd(terminal)) }
}

#[test]
fn a_progress_line_is_erased_before_the_table_is_printed() {
    let (queue, _clients, silent) = silent_port();
    queue.set_nonblocking(true).expect("the socket is open");
    let (mut controller, terminal) = terminal();
    let ports = silent.to_string();
    let mut command = openports(&["scan", "127.0.0.1", &ports, "--timeout", "60s"]);
    command
        .stdout(terminal.try_clone().expect("the terminal can be duplicated"))
        .stderr(terminal)
        .stdin(Stdio::null());
    let child = command.spawn().expect("the binary runs");
    drop(command);
    // Once the queue has space again, the SYN that the kernel repeats is answered. The table is
    // then printed in the same tick in which the poller reports the connect.
    let mut screen = String::new();
    while !screen.contains("open of 1 port") {
        let mut piece = [0; 4096];
        let count = controller.read(&mut piece).expect("the terminal is open");
        screen.push_str(std::str::from_utf8(&piece[..count]).expect("the output is UTF-8"));
        while screen.contains("open\x1b[?7h\x1b[K") && queue.accept().is_ok() {}
    }
    decode(child.wait_with_output().expect("the scan ends"));
    let (before, _) = screen.split_once("127.0.0.1").expect("the table is printed");
    let before = before.trim_end_matches("\x1b[1m");
    assert!(before.ends_with("\r\x1b[K"), "the progress line is still there: {screen:?}");
}

#[test]
fn colours_are_printed_on_terminals_unless_no_color_is_set() {
    let (_listener, port) = listener([127, 0, 0, 1]);
    for (no_color, is_coloured) in [(None, true), (Some("1"), false), (Some(""), true)] {
        let (mut controller, terminal) = terminal();
        let mut command = openports(&["scan", "127.0.0.1", &port.to_string()]);
        command.env_remove("NO_COLOR").envs(no_color.map(|value| ("NO_COLOR", value)));
        let mut child = command.stdout(terminal).spawn().expect("the binary runs");
        drop(command);
        let mut screen = String::new();
        while !screen.contains(&format!("{port}")) || !screen.ends_with('\n') {
            let mut piece = [0; 4096];
            let count = controller.read(&mut piece).expect("the terminal is open");
            screen.push_str(std::str::from_utf8(&piece[..count]).expect("the output is UTF-8"));
        }
        assert_eq!(screen.contains('\x1b'), is_coloured, "NO_COLOR={no_color:?}: {screen:?}");
        assert_eq!(child.wait().expect("the scan ends").code(), Some(0));
    }
}

#[test]
fn a_terminal_shows_the_rate_and_the_remaining_time() {
    let (mut controller, terminal) = terminal();
    let mut command = openports(&["scan", "127.0.0.1", "1-900", "--rate", "300"]);
    let mut child =
        command.stderr(terminal).stdout(Stdio::null()).spawn().expect("the binary runs");
    drop(command);
    let mut screen = String::new();
    while !(screen.contains("/s  ") && screen.contains(" s left")) {
        let mut piece = [0; 4096];
        let count =
            controller.read(&mut piece).unwrap_or_else(|error| panic!("{error}: {screen:?}"));
        screen.push_str(std::str::from_utf8(&piece[..count]).expect("the output is UTF-8"));
    }
    assert!(screen.contains('%'), "{screen:?}");
    signal(&child, "-INT");
    assert_eq!(child.wait().expect("the scan ends").code(), Some(1));
}

#[test]
fn open_ports_are_printed_above_a_progress_line_that_never_wraps() {
    let (_listener, port) = listener([127, 0, 0, 1]);
    let (_queue, _clients, silent) = silent_port();
    for columns in [20, 40, 200] {
        let (mut controller, terminal) = terminal_of(columns);
        let ports = format!("{port},{silent}");
        let mut command = openports(&["scan", "localhost", &ports, "--timeout", "60s"]);
        let child = command.stderr(terminal).stdout(Stdio::null()).spawn();
        let mut child = child.expect("the binary runs");
        drop(command);
        let found = format!("{port:>7}  open");
        let mut screen = String::new();
        while !(screen.contains(&found) && screen.contains("50%")) {
            let mut piece = [0; 4096];
            let count =
                controller.read(&mut piece).unwrap_or_else(|error| panic!("{error}: {screen:?}"));
            screen.push_str(std::str::from_utf8(&piece[..count]).expect("the output is UTF-8"));
        }
        for line in screen.split('\r').filter(|line| line.contains('%')) {
            let line = line.trim_start_matches("\x1b[?7l");
            let shown = line.split('\x1b').next().expect("a split has a first part");
            assert!(shown.len() < usize::from(columns), "{columns} columns: {shown:?}");
        }
        assert!(screen.contains("localhost (127.0.0.1)"), "{screen:?}");
        signal(&child, "-INT");
        assert_eq!(child.wait().expect("the scan ends").code(), Some(1));
    }
}

#[test]
fn a_line_with_a_hundred_thousand_ports_is_refused() {
    let items = vec!["1"; 100_000].join(",");
    let list = format!("127.0.0.1 2\n127.0.0.1 {items}\n127.0.0.2 2\n");
    let run = run_with(&["scan", "--json", "--targets", "-"], &list);
    assert_eq!((run.code, lines(&run.stdout).len()), (Some(1), 2), "{}", run.stderr);
    assert!(run.stderr.starts_with("openports: --targets, line 2: ports "), "{}", run.stderr);
    assert!(run.stderr.len() < 300, "{}", run.stderr);
}

#[test]
fn the_rate_applies_to_all_targets_together() {
    let list = "127.0.0.1 1-20\n127.0.0.2 1-20\n127.0.0.3 1-20\n";
    let began_at = Instant::now();
    let run = run_with(&["scan", "--json", "--targets", "-", "--rate", "100"], list);
    let took = began_at.elapsed();
    assert_eq!((run.code, lines(&run.stdout).len()), (Some(0), 3));
    // There are 60 connects, and the first is made immediately.
    assert!(took >= Duration::from_millis(585), "60 connects took {took:?}");
}

#[test]
fn a_health_check_reports_whether_a_service_answers() {
    let mut service = openports(&["serve", "--listen", "127.0.0.1:0"])
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    let mut log = BufReader::new(service.stderr.take().expect("stderr is piped"));
    let mut line = String::new();
    log.read_line(&mut line).expect("the output is UTF-8");
    let at =
        line.split("address=").nth(1).expect("the record has an address").trim().trim_matches('"');
    let healthy = run(&["healthcheck", at]);
    assert_eq!((healthy.code, healthy.stderr.as_str()), (Some(0), ""), "{at}");
    let by_variable = openports(&["healthcheck"]).env("OPENPORTS_LISTEN", at).output();
    assert_eq!(decode(by_variable.expect("the binary runs")).code, Some(0));
    signal(&service, "-TERM");
    assert_eq!(service.wait().expect("the service ends").code(), Some(0));
    let stopped = run(&["healthcheck", at]);
    assert_eq!(stopped.code, Some(1));
    assert_eq!(stopped.stderr.lines().count(), 1, "{}", stopped.stderr);
}
