//! The command line, and the messages of a service that cannot start.

use std::net::TcpListener;

use crate::network::has_ipv6;
use crate::process::{FinishedProcess, Folder, Service, run};

/// Checks that stderr has one line with these words and that stdout is empty.
pub(crate) fn check(ended: &FinishedProcess, code: i32, words: &[&str]) {
    let FinishedProcess { command, stderr, .. } = ended;
    assert_eq!((ended.code, &*ended.stdout), (Some(code), ""), "{command}: {stderr}");
    assert_eq!(stderr.lines().count(), 1, "{command}: {stderr}");
    assert!(stderr.starts_with("openports: "), "{command}: {stderr}");
    assert!(words.iter().all(|word| stderr.contains(word)), "{command}: {words:?}: {stderr}");
}

#[test]
fn a_wrong_command_line_ends_with_64_and_names_the_mistake() {
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
fn a_port_in_use_ends_with_71_and_no_listener_remains() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().map(|address| (address.to_string(), taken)).unwrap();
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let ended = run(None, &["--listen", &free, "--listen", &taken.0]);
    check(&ended, 71, &["--listen", &taken.0]);
    TcpListener::bind(&free).expect("the first listener was closed with the process");
    check(&run(None, &["--listen", "192.0.2.1:0"]), 71, &["--listen", "192.0.2.1:0"]);
}

#[test]
fn an_unreadable_resolv_conf_or_hosts_file_ends_with_71() {
    let folder = Folder::new("startup");
    let here = folder.write("hosts", "127.0.0.1 here\n");
    let missing = format!("{here}.gone");
    let listen = ["--listen", "127.0.0.1:0"];
    for flag in ["--resolv-conf", "--hosts"] {
        let ended = run(None, &[&listen[..], &[flag, &missing]].concat());
        check(&ended, 71, &[flag, &missing]);
        // A directory can be opened, but it cannot be read.
        let ended = run(None, &[&listen[..], &[flag, "/proc"]].concat());
        check(&ended, 71, &[flag, "/proc"]);
    }
}

#[test]
fn a_file_that_is_read_several_times_must_be_a_regular_file() {
    let folder = Folder::new("regular");
    let fifo = folder.fifo("fifo");
    let listen = ["--listen", "127.0.0.1:0"];
    for flag in ["--resolv-conf", "--hosts", "--token-file"] {
        for path in [&*fifo, "/dev/zero", "/proc"] {
            let ended = run(None, &[&listen[..], &[flag, path]].concat());
            check(&ended, 71, &[flag, path, "must be a regular file"]);
        }
    }
    // Files that Kubernetes mounts are symbolic links.
    let hosts = folder.write("hosts", "127.0.0.1 known\n");
    std::os::unix::fs::symlink(hosts, folder.path("link")).expect("the link can be created");
    let link = folder.path("link");
    let service = Service::start(&["--resolv-conf", "/dev/null", "--hosts", &link]);
    service.scan(&format!("domain=known&ports={}", service.address.port()));
}

#[test]
fn the_help_names_every_flag_and_version_prints_the_version() {
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
        std::net::TcpStream::connect(at).expect("the logged address accepts connections");
    }
    let limits = service.log_line(&["msg=limits"]);
    for word in ["descriptors=", "in_flight=", "connections=1024", "timeout_ms=2000.000"] {
        assert!(limits.contains(word), "{word} is not in {limits}");
    }
}

#[test]
fn an_ipv6_wildcard_listener_accepts_both_families() {
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

#[test]
fn an_empty_variable_is_ignored_and_an_unknown_one_is_reported() {
    let variables = [
        ("OPENPORTS_LISTEN", "127.0.0.1:0"),
        ("OPENPORTS_DENY", ""),
        ("OPENPORTS_TIMEOUT", ""),
        ("OPENPORTS_TOKEN_FILE", ""),
        ("OPENPORTS_DENNY", "10.0.0.0/8"),
        ("OPENPORTS_TOKENFILE", "/run/token"),
        ("OPENPORTS_SERVICE_HOST", "10.0.0.1"),
        ("OPENPORTS_PORT_8080_TCP_ADDR", "10.0.0.1"),
    ];
    let service = Service::start_with(&variables, &[]);
    let check_warning = |name: &str, suggestion: &str| {
        let words = ["level=warn", &format!("name={name} "), &format!("did_you_mean={suggestion}")];
        service.log_line(&words);
    };
    check_warning("OPENPORTS_DENNY", "OPENPORTS_DENY");
    check_warning("OPENPORTS_TOKENFILE", "OPENPORTS_TOKEN_FILE");
    let lines = service.log_lines();
    let warnings = lines.iter().filter(|line| line.contains("unknown variable")).count();
    assert_eq!(warnings, 2, "{lines:#?}");
    service.log_line(&["msg=limits", "timeout_ms=2000.000"]);
}

/// The target of the example request in the log, and the token file that it names.
fn example_request(service: &Service) -> (String, Option<String>) {
    let line = service.log_line(&["msg=try ", "command="]);
    let (_, command) = line.split_once("command=").expect("the record has a command");
    let mut quoted: Vec<&str> = command.split('\'').skip(1).step_by(2).collect();
    let url = quoted.pop().expect("the command has a URL");
    assert_eq!(command.contains("--oauth2-bearer $(cat '"), !quoted.is_empty(), "{command}");
    let path = url.splitn(4, '/').nth(3).expect("the URL has a path");
    // A scan of all ports would take too long.
    let target = format!("/{}", path.replace("toPort=65535", "toPort=9"));
    (target, quoted.pop().map(str::to_owned))
}

#[test]
fn the_logged_example_request_works_as_printed() {
    let folder = Folder::new("try");
    let token = folder.write("token file", "sesame\n");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(&token, mode).expect("the test owns the file");
    for (args, has_token) in [
        (&["--listen", "127.0.0.1:0"][..], false),
        (&["--listen", "127.0.0.1:0", "--deny", "127.0.0.0/8"], false),
        (&["--listen", "127.0.0.1:0", "--deny", "0.0.0.0/0,::/0"], false),
        (&["--listen", "0.0.0.0:0"], false),
        (&["--listen", "127.0.0.1:0", "--token-file", &token], true),
        (&["--listen", "0.0.0.0:0", "--token-file", &token], true),
    ] {
        let mut service = Service::start_exactly(args);
        service.address.set_ip([127, 0, 0, 1].into());
        let (target, file) = example_request(&service);
        let is_scan = target.starts_with("/open-ports?");
        assert_eq!(file, (is_scan && has_token).then(|| token.clone()), "{args:?}");
        let fields = if has_token { "Authorization: Bearer sesame\r\n" } else { "" };
        service.request("GET", &target, fields).check_status(200);
        let help = service.get("/");
        let shows_path = help.body.contains(&format!("TOKEN=$(cat '{token}')"));
        assert_eq!(shows_path, has_token && args[1] == "127.0.0.1:0", "{}", help.body);
        for line in help.body.lines().filter(|line| line.contains("/open-ports?")) {
            assert_eq!(line.contains("--oauth2-bearer \"$TOKEN\" "), has_token, "{line}");
            if let Some((_, parameters)) = target.split_once("domain=").filter(|_| is_scan) {
                let domain = parameters.split('&').next().unwrap_or_default();
                assert!(line.contains(&format!("domain={domain}&")), "{line}");
            }
        }
    }
}
