//! Targets: the targets of the command line and of lists, each of which is scanned exactly once.

use super::*;

/// A directory that belongs to a test and is removed with its handle.
pub(crate) struct Scratch(pub(crate) std::path::PathBuf);

impl Scratch {
    pub(crate) fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("openports-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("the directory is available");
        Self(folder)
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }

    pub(crate) fn file(&self, name: &str, text: impl AsRef<[u8]>) -> String {
        let path = self.path(name);
        std::fs::write(&path, text).expect("the file can be written");
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The domains in the output of a scan with `--json`, sorted.
fn domains(args: &[&str]) -> Vec<String> {
    let run = run(&[&["scan", "--json"], args].concat());
    assert_eq!(run.code, Some(0), "{args:?}: {}", run.stderr);
    let domain =
        |answer: Value| answer["domain"].as_str().expect("`domain` is a string").to_owned();
    let mut domains: Vec<String> = lines(&run.stdout).into_iter().map(domain).collect();
    domains.sort();
    domains
}

#[test]
fn names_addresses_networks_and_ranges_are_targets() {
    let check = |targets: &[&str], expected: &[&str]| {
        assert_eq!(domains(&[targets, &["9"]].concat()), expected, "{targets:?}");
    };
    check(&["127.0.0.1", "localhost"], &["127.0.0.1", "localhost"]);
    check(&["127.9.0.1-3"], &["127.9.0.1", "127.9.0.2", "127.9.0.3"]);
    check(&["127.9.0.255-127.9.1.0"], &["127.9.0.255", "127.9.1.0"]);
    check(&["127.9.0.0/31"], &["127.9.0.0", "127.9.0.1"]);
    check(&["127.9.0.7-127.9.0.7"], &["127.9.0.7"]);
    check(&["127.9.0.1", "127.9.0.0/31", "127.9.0.1-1"], &["127.9.0.0", "127.9.0.1"]);
    check(&["127.9.0.0/30", "--exclude-targets", "127.9.0.1-2"], &["127.9.0.0", "127.9.0.3"]);
    let excluding = &["127.9.0.0/30", "localhost", "--exclude-targets=127.9.0.0/31,LOCALHOST"];
    check(excluding, &["127.9.0.2", "127.9.0.3"]);
}

#[test]
fn the_domain_is_the_target_as_written_without_its_port() {
    let check = |targets: &[&str], expected: &[&str]| {
        assert_eq!(domains(&[targets, &["9"]].concat()), expected, "{targets:?}");
    };
    for target in ["LocalHost", "localhost.", "::ffff:127.0.0.1", "[::ffff:7f00:1]"] {
        check(&[target], &[target]);
    }
    check(&["LocalHost:9"], &["LocalHost"]);
    check(&["[::FFFF:127.0.0.1]:9"], &["[::FFFF:127.0.0.1]"]);
    check(&["127.0.0.0/31", "::ffff:127.0.0.1"], &["127.0.0.0", "::ffff:127.0.0.1"]);
    check(&["::ffff:127.0.0.1/128"], &["127.0.0.1"]);
    if TcpListener::bind("[::1]:0").is_err() {
        return skip("this test needs IPv6 on loopback");
    }
    for target in ["::1", "[::1]", "0:0::1", "::1%lo", "[::1%1]"] {
        check(&[target], &[target]);
    }
    check(&["[::1]:9", "[0::1]"], &["[::1]"]);
    let scratch = Scratch::new("written");
    let earlier =
        scratch.file("earlier", run(&["scan", "--ndjson", "[::1]", "::1%lo", "9"]).stdout);
    let again = run(&["scan", "::1", "[::1%1]", "9", "--resume", &earlier]);
    assert!(again.stderr.contains("nothing is left to scan"), "{}", again.stderr);
    for format in ["greppable", "xml"] {
        let printed = run(&["scan", "--format", format, "[::1]", "9"]).stdout;
        let (_, result) = printed.split_once("scan").expect("a line has the command");
        assert!(!result.contains("(["), "an address is no name: {printed}");
        assert!(!result.contains("<hostname "), "an address is no name: {printed}");
    }
    let table = run(&["scan", "[::1]", "9"]).stdout;
    assert!(table.starts_with("[::1]: 0 open of 1 port"), "{table}");
}

#[test]
fn a_zone_is_the_name_of_an_interface() {
    let Ok(listener) = TcpListener::bind("[::1]:0") else {
        return skip("this test needs IPv6 on loopback");
    };
    let port = listener.local_addr().expect("the listener has an address").port().to_string();
    let scratch = Scratch::new("zone");
    let list = scratch.file("list", format!("::1%lo {port}\n"));
    for args in
        [vec!["::1%lo", &*port], vec![&*format!("[::1%lo]:{port}")], vec!["--targets", &list]]
    {
        let run = run(&[&["scan", "--format", "host-port"], &*args].concat());
        assert_eq!((run.code, &*run.stdout), (Some(0), &*format!("[::1%lo]:{port}\n")), "{args:?}");
    }
}

#[test]
fn each_port_of_a_target_is_probed_once_however_often_it_is_listed() {
    let (one, port) = listener([127, 0, 5, 1]);
    one.set_nonblocking(true).expect("the listener is open");
    let scratch = Scratch::new("once");
    let list = format!("127.0.5.1\n127.0.5.0/30\n127.0.5.1:{port}\n127.0.5.1 1,{port}\n");
    let list = scratch.file("list", list);
    let targets = ["127.0.5.1", "127.0.5.1-2", "--targets", &list, "-p", &port.to_string()];
    assert_eq!(domains(&targets), ["127.0.5.0", "127.0.5.1", "127.0.5.2", "127.0.5.3"]);
    assert_eq!(std::iter::from_fn(|| one.accept().ok()).count(), 1);
}

#[test]
fn a_target_with_a_port_is_scanned_on_this_port_only() {
    let (_one, port) = listener([127, 0, 0, 1]);
    for target in [format!("127.0.0.1:{port}"), format!("localhost:{port}")] {
        let run = run(&["scan", "--json", &target]);
        let answer = json(&run.stdout);
        assert_eq!(answer["open_ports"], serde_json::json!([port]), "{target}");
        assert_eq!(answer["counts"]["closed"], 0, "{target}");
    }
}

#[test]
fn a_target_without_a_port_left_is_reported_and_the_others_are_scanned() {
    let (_one, port) = listener([127, 0, 0, 1]);
    let at = |port: &str| format!("127.0.0.1:{port}");
    let port = port.to_string();
    let some = run(&["scan", "--json", &at("22"), &at(&port), "127.0.0.2", "9", "--exclude", "22"]);
    let fault = "openports: TARGET \"127.0.0.1:22\": --exclude leaves no port to scan\n";
    assert_eq!((some.code, &*some.stderr), (Some(1), fault));
    let mut domains: Vec<String> =
        lines(&some.stdout).iter().map(|answer| answer["domain"].to_string()).collect();
    domains.sort();
    assert_eq!(domains, ["\"127.0.0.1\"", "\"127.0.0.2\""]);
    let none = run(&["scan", &at("22"), "--exclude", "22"]);
    assert_eq!((none.code, &*none.stderr, &*none.stdout), (Some(1), fault, ""));
}

#[test]
fn a_malformed_address_is_never_resolved_as_a_name() {
    for target in [
        "10.0.0.1-254-3",
        "10.0.0-3.1",
        "127.1",
        "10.0.0.256",
        "10.0.0/8",
        "10.0.0.1,2",
        "10.0.0.x",
        "10.0.0.*",
        "10.0.0.1a",
        "10.0.0.1_254",
        "10.0.0.0_24",
        "1.2.3.1-4-5",
        "10.9.0.1-10.9.0.x",
        "10.9.0.1-10.9.0.2a",
        "10.9.0.x-5",
        "10.9.0-1.x",
        "10.9.x.y",
        "192.168.x",
        "10.x",
    ] {
        let run = run(&["scan", target, "80"]);
        assert_eq!(run.code, Some(64), "{target}");
        assert!(run.stderr.starts_with("openports: TARGET "), "{target}: {}", run.stderr);
    }
}

#[test]
fn a_name_that_begins_like_an_address_is_looked_up() {
    let scratch = Scratch::new("names");
    let names = ["192.0.2.1-static.isp.net", "10.0.0.1-2.example", "10.0.0.1-host.test", "1.a1"];
    let hosts = scratch.file("hosts", format!("127.0.0.1 {}\n", names.join(" ")));
    assert_eq!(domains(&[&["--hosts", &hosts, "-p", "9"], &names[..]].concat()), {
        let mut sorted = names;
        sorted.sort_unstable();
        sorted
    });
}

#[test]
fn a_network_of_any_size_can_be_excluded() {
    let targets = ["127.0.0.1", "2001:db8::1", "--exclude-targets", "2001:db8::/64", "9"];
    assert_eq!(domains(&targets), ["127.0.0.1"]);
    let all = run(&["scan", "::1", "9", "--exclude-targets", "::/0"]);
    assert_eq!(all.code, Some(1));
    assert_eq!(all.stderr, "openports: --exclude-targets leaves no target\n");
}

#[test]
fn a_denied_address_is_reported_with_the_block_that_denies_it_and_no_flag_that_was_not_given() {
    for (args, expected) in [
        (
            &["localhost", "-4", "--exclude-targets", "127.0.0.1"][..],
            "127.0.0.1 is not scanned: that address is excluded from this run",
        ),
        (
            &["127.0.0.1", "--deny", "127.0.0.0/8"],
            "not scanned: that address is excluded from this run",
        ),
        (&["::2"], "::2 is not scanned: unspecified addresses (0.0.0.0/8, in IPv6 ::/104) are"),
        (&["0.0.3.81"], "0.0.3.81 is not scanned: unspecified addresses (0.0.0.0/8, in IPv6"),
        (&["::1:80"], "If its last part is a port, write the address in brackets: [::1]:80."),
    ] {
        let run = run(&[&["scan", "-p", "80"], args].concat());
        assert_eq!(run.code, Some(1), "{args:?}");
        assert!(run.stderr.contains(expected), "{args:?}: {}", run.stderr);
        let has_hint = run.stderr.contains("in brackets");
        assert_eq!(has_hint, args[0] == "::1:80", "{args:?}: {}", run.stderr);
    }
}

#[test]
fn a_list_may_have_a_byte_order_mark_and_any_bytes_in_comments() {
    let (_one, port) = listener([127, 0, 0, 1]);
    let scratch = Scratch::new("mark");
    let list = scratch.file("list", b"\xef\xbb\xbf127.0.0.1 # caf\xe9\n127.0.0.2 #\xff\xfe\n");
    let run = run(&["scan", "--json", "--targets", &list, &port.to_string()]);
    assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""));
    assert_eq!(lines(&run.stdout).len(), 2);
}

#[test]
fn a_bad_exclusion_stops_the_scan() {
    let scratch = Scratch::new("exclusion");
    let bad = scratch.file("bad", "127.0.0.1\n10.0.0.9-1\n");
    let good = scratch.file("good", "# ours\n127.0.0.1 # and\n\n127.0.0.2-9\n");
    let check = |flags: &[&str], code: i32, expected: &str| {
        let run = run(&[&["scan", "127.0.0.0/28", "9"], flags].concat());
        assert_eq!(run.code, Some(code), "{flags:?}: {}", run.stderr);
        assert!(run.stderr.contains(expected), "{flags:?}: {}", run.stderr);
        assert!(run.stderr.lines().count() <= 1, "{}", run.stderr);
    };
    check(&["--exclude-targets-from", &bad], 1, "line 2: \"10.0.0.9-1\": the range runs backwards");
    let with_port = scratch.file("with-port", "127.0.0.1\n[::1]:80\n");
    let expected = "line 2: \"[::1]:80\": targets are excluded here; for ports write --exclude";
    check(&["--exclude-targets-from", &with_port], 1, expected);
    check(&["--exclude-targets-from", "-"], 1, "only --targets reads standard input");
    check(&["--resume", "-"], 1, "only --targets reads standard input");
    check(
        &["--exclude-targets-from", "/no/such/file"],
        1,
        "--exclude-targets-from \"/no/such/file\"",
    );
    check(&["--exclude-targets-from", &good], 0, "");
    check(&["--exclude-targets", "127.0.0.0/8"], 1, "--exclude-targets leaves no target");
    check(&["--exclude-targets", "a:80"], 64, "for ports write --exclude");
    check(&["--exclude-targets", "x/y"], 64, "--exclude-targets \"x/y\": give the host alone");
}

#[test]
fn a_name_that_resolves_to_an_excluded_address_is_not_scanned() {
    let (listener, port) = listener([127, 0, 0, 1]);
    listener.set_nonblocking(true).expect("the listener is open");
    let run = run(&["scan", "-4", "localhost", &port.to_string(), "--exclude-targets=127.0.0.0/8"]);
    assert_eq!(run.code, Some(1), "{}", run.stderr);
    assert!(listener.accept().is_err(), "there is no connect to an excluded address");
}

#[test]
fn an_excluded_name_is_reported_and_is_no_failure_unless_it_is_the_only_target() {
    let scratch = Scratch::new("excluded-name");
    let hosts = scratch.file("hosts", "127.0.9.1 one.test\n64:ff9b::7f00:901 two.test\n");
    let check = |args: &[&str], code: i32, names: &[&str], answers: usize| {
        let run = run(&[&["scan", "--json", "--hosts", &hosts, "-p9"], args].concat());
        assert_eq!(run.code, Some(code), "{args:?}: {}", run.stderr);
        let reported: Vec<&str> =
            run.stderr.lines().filter_map(|line| line.split(": ").nth(1)).collect();
        assert_eq!(reported, names, "{}", run.stderr);
        assert!(
            run.stderr.lines().all(|line| line.contains("that address is excluded from this run"))
        );
        assert_eq!(lines(&run.stdout).len(), answers, "{args:?}: {}", run.stdout);
    };
    let exclude = ["--exclude-targets", "127.0.9.0/24"];
    check(&["one.test", "127.0.0.1", exclude[0], exclude[1]], 0, &["one.test"], 1);
    check(&["two.test", "127.0.0.1", exclude[0], exclude[1]], 0, &["two.test"], 1);
    check(&["one.test", exclude[0], exclude[1]], 1, &["one.test"], 0);
    // An address that is denied by the policy is a failure, which JSON contains.
    check(&["one.test", "127.0.0.1", "--deny", "127.0.9.0/24"], 1, &["one.test"], 2);
    let both = ["--deny", "127.0.9.0/24", exclude[0], "127.0.9.9"];
    check(&[&["one.test", "127.0.0.1"], &both[..]].concat(), 1, &["one.test"], 2);
    let earlier = ["scan", "--ndjson", "127.0.0.1", "-p9"];
    let earlier = scratch.file("earlier", run(&earlier).stdout);
    let resumed = ["one.test", "127.0.0.1", "--resume", &earlier, exclude[0], exclude[1]];
    check(&resumed, 0, &["one.test"], 0);
}

#[test]
fn a_scan_of_a_large_network_starts_immediately_and_needs_little_memory() {
    let args = ["scan", "--ndjson", "127.0.0.0/8", "9", "--shard", "1/1000"];
    let mut child = openports(&args)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the binary runs");
    let mut stdout = BufReader::new(child.stdout.take().expect("stdout is piped"));
    let mut line = String::new();
    for _ in 0..20 {
        line.clear();
        stdout.read_line(&mut line).expect("the output is UTF-8");
    }
    let status =
        std::fs::read_to_string(format!("/proc/{}/status", child.id())).expect("the process runs");
    let peak = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .expect("the process has a VmHWM");
    let peak: u64 = peak.trim().trim_end_matches(" kB").parse().expect("the text is a number");
    signal(&child, "-KILL");
    child.wait().expect("the scan ends");
    assert!(
        peak < 24 * 1024,
        "the peak is {peak} kB, although a test build needs only about 10 MB itself"
    );
}

#[test]
fn resume_skips_the_targets_that_an_earlier_run_has_finished() {
    let scratch = Scratch::new("resume");
    let earlier = run(&["scan", "--ndjson", "127.0.6.0/30", "9"]);
    let finished: Vec<&str> =
        earlier.stdout.lines().filter(|line| line.contains(r#""end""#)).collect();
    assert_eq!(finished.len(), 4);
    // The file looks as if the first run had been killed while it wrote its third end event.
    let cut = format!("{}\n{}\n{}", finished[0], finished[1], &finished[2][..30]);
    let cut = scratch.file("cut", cut);
    let later = run(&["scan", "--json", "127.0.6.0/30", "9", "--resume", &cut]);
    assert_eq!((later.code, later.stderr.as_str()), (Some(0), ""));
    let domain = |line: &str| json(line)["domain"].to_string();
    let mut all: Vec<String> = finished[..2].iter().map(|line| domain(line)).collect();
    all.extend(later.stdout.lines().map(domain));
    all.sort();
    let expected = [0, 1, 2, 3].map(|host| format!("\"127.0.6.{host}\""));
    assert_eq!(all, expected);
    // The output of a resumed run may be appended to that of the run that was killed.
    let appended = run(&["scan", "--ndjson", "127.0.6.0/30", "9", "--resume", &cut]).stdout;
    let killed = std::fs::read_to_string(&cut).expect("the file exists");
    let both = scratch.file("both", killed + &appended);
    let third = run(&["scan", "--json", "127.0.6.0/30", "9", "--resume", &both]);
    assert_eq!((third.code, third.stdout.as_str()), (Some(0), ""), "{}", third.stderr);
    for (name, text) in [("list", "127.0.6.1\n127.0.6.2\n"), ("json", "{}\n{}\n"), ("bin", "\0\n")]
    {
        let file = scratch.file(name, text);
        let run = run(&["scan", "127.0.6.0/30", "9", "--resume", &file]);
        assert_eq!((run.code, run.stdout.as_str()), (Some(1), ""), "{name}");
        assert!(run.stderr.contains("line 1 is no event of an earlier scan"), "{}", run.stderr);
    }
}

#[test]
fn a_name_is_scanned_again_if_the_earlier_run_did_not_scan_the_requested_addresses() {
    if TcpListener::bind("[::1]:0").is_err() {
        return skip("this test needs IPv6 on loopback");
    }
    let scratch = Scratch::new("resume-family");
    let hosts = scratch.file("hosts", "127.0.0.1 both.test\n::1 both.test\n");
    let scan = |flags: &[&str]| {
        run(&[&["scan", "both.test", "9", "--ndjson", "--hosts", &hosts], flags].concat())
    };
    let v4 = scratch.file("v4", scan(&["-4"]).stdout);
    let all = scratch.file("all", scan(&["--all-addresses"]).stdout);
    let check = |earlier: &str, flags: &[&str], is_finished: bool| {
        let run = scan(&[&["--resume", earlier], flags].concat());
        assert_eq!(run.code, Some(0), "{flags:?}: {}", run.stderr);
        assert_eq!(run.stdout.is_empty(), is_finished, "{earlier} {flags:?}: {}", run.stdout);
    };
    check(&v4, &["-4"], true);
    check(&v4, &[], true);
    check(&v4, &["-6"], false);
    check(&v4, &["--all-addresses"], false);
    check(&all, &["--all-addresses"], true);
    check(&all, &["-6"], true);
}

#[test]
fn a_shard_of_another_list_is_not_resumed() {
    let scratch = Scratch::new("resume-shard");
    let half = ["9-12", "--shard", "1/2"];
    let first = run(&[&["scan", "--ndjson", "127.0.6.0/30"], &half[..]].concat()).stdout;
    let file = scratch.file("first", first);
    let resume = |target| run(&[&["scan", target, "--resume", &file], &half[..]].concat());
    let same = resume("127.0.6.0/30");
    assert_eq!(same.code, Some(0), "{}", same.stderr);
    let other = resume("127.0.6.0/29");
    assert_eq!((other.code, other.stdout.as_str()), (Some(1), ""));
    let expected = "openports: --resume: the shards of the earlier run had 16 ports in all, and \
        these have 32: give the same targets, ports and exclusions\n";
    assert_eq!(other.stderr, expected);
}

#[test]
fn a_scan_waits_for_the_writer_of_a_fifo_and_reports_this() {
    let scratch = Scratch::new("fifo");
    let path = scratch.path("list");
    let made = Command::new("mkfifo").arg(&path).status().expect("mkfifo runs");
    assert!(made.success());
    let mut child = openports(&["scan", "--json", "--targets", &path, "9"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    let mut stderr = BufReader::new(child.stderr.take().expect("stderr is piped"));
    let mut line = String::new();
    stderr.read_line(&mut line).expect("the output is UTF-8");
    assert!(line.ends_with("is a FIFO, waiting for a writer\n"), "{line}");
    std::fs::write(&path, "127.0.0.1\n127.0.0.2\n").expect("the FIFO has a reader");
    let run = decode(child.wait_with_output().expect("the scan ends"));
    assert_eq!((run.code, lines(&run.stdout).len()), (Some(0), 2));
}

#[test]
fn a_pipe_is_no_file_of_names_because_it_can_be_read_only_once() {
    let script = "exec \"$0\" scan --json known 9 \"$1\" <(echo 127.0.0.1 known)";
    for flag in ["--hosts", "--resolv-conf"] {
        let mut bash = unconfigured("bash");
        bash.args(["-c", script, env!("CARGO_BIN_EXE_openports"), flag]);
        let run = decode(bash.output().expect("bash runs"));
        assert_eq!((run.code, run.stdout.as_str()), (Some(1), ""), "{flag}: {}", run.stderr);
        let expected = ": must be a regular file, because it is read several times\n";
        assert!(run.stderr.ends_with(expected), "{flag}: {}", run.stderr);
    }
}

#[test]
fn a_fifo_with_a_writer_is_read_like_a_file() {
    let list = openports(&["scan"]).get_program().to_owned();
    let script = "exec \"$0\" scan --json 9 --targets <(sleep 0.1; echo 127.0.0.1; echo 127.0.0.2)";
    let mut bash = Command::new("bash");
    bash.args(["-c", script]).arg(list).env_remove("OPENPORTS_REQUIRE_ALL");
    let output = bash.output().expect("bash runs");
    let run = decode(output);
    assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""));
    assert_eq!(lines(&run.stdout).len(), 2);
}

#[test]
fn connects_come_from_the_requested_source() {
    let (listener, port) = listener([127, 0, 0, 1]);
    let port = port.to_string();
    for (source, expected) in
        [("127.0.0.77", "127.0.0.77"), ("::ffff:127.0.0.78", "127.0.0.78"), ("lo", "127.0.0.1")]
    {
        let run = run(&["scan", "127.0.0.1", &port, "--source", source]);
        assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""), "{source}");
        let (_, peer) = listener.accept().expect("the scan connects");
        assert_eq!(peer.ip().to_string(), expected, "{source}");
    }
    for (source, expected) in [
        ("192.0.2.1", "--source 192.0.2.1: is no address of this machine"),
        ("nosuch0", "--source nosuch0: there is no such interface"),
        ("224.0.0.1", "--source 224.0.0.1: is a multicast address, which cannot be a source"),
        ("0.0.0.0", "--source 0.0.0.0: is the unspecified address"),
        ("::", "--source ::: is the unspecified address"),
        ("255.255.255.255", "--source 255.255.255.255: is the broadcast address"),
        ("fe80::1", "--source fe80::1: is a link-local address, which cannot be a source"),
    ] {
        let run = run(&["scan", "127.0.0.1", &port, "--source", source]);
        assert_eq!((run.code, run.stdout.as_str()), (Some(1), ""), "{source}");
        assert!(run.stderr.contains(expected), "{source}: {}", run.stderr);
    }
    for source in ["fe80::1%lo", "[::1%1]"] {
        let run = run(&["scan", "127.0.0.1", &port, "--source", source]);
        let expected = format!("--source {source:?}: expected an address without a zone");
        assert_eq!((run.code, run.stderr.contains(&expected)), (Some(64), true), "{}", run.stderr);
    }
    let other = run(&["scan", "::1", "127.0.0.2", &port, "--source", "127.0.0.1"]);
    assert_eq!(other.code, Some(1));
    let expected =
        "the host has no IPv4 address, and --source gives only the IPv4 address 127.0.0.1";
    assert!(other.stderr.to_lowercase().contains(&expected.to_lowercase()), "{}", other.stderr);
    let other = run(&["scan", "-6", "localhost", &port, "--source", "127.0.0.1"]);
    assert_eq!(other.code, Some(1));
    assert!(other.stderr.contains("--source has no IPv6 address"), "{}", other.stderr);
}

#[test]
fn denied_addresses_of_a_network_are_reported_together() {
    let run = run(&["scan", "169.254.0.0/28", "80"]);
    assert_eq!(run.code, Some(1));
    assert_eq!(run.stderr.lines().count(), 1, "{}", run.stderr);
    assert!(run.stderr.contains("And 15 more addresses like it."), "{}", run.stderr);
    let two = self::run(&["scan", "169.254.0.0/31", "80"]);
    assert!(two.stderr.contains("And one more address like it."), "{}", two.stderr);
}

#[test]
fn an_excluded_name_is_not_scanned_with_or_without_its_final_dot() {
    let (listener, port) = listener([127, 0, 0, 1]);
    listener.set_nonblocking(true).expect("the listener is open");
    let scratch = Scratch::new("dots");
    let hosts = scratch.file("hosts", "127.0.0.1 v4.test\n");
    for (target, excluded) in [
        ("v4.test", "v4.test."),
        ("v4.test.", "V4.test"),
        ("localhost.", "localhost"),
        ("localhost", "LOCALHOST."),
        ("::1", "::1%1"),
        ("::1%1", "::1"),
    ] {
        let args = ["scan", target, &port.to_string(), "--exclude-targets", excluded];
        let run = run(&[&args[..], &["--hosts", &hosts, "--resolv-conf", "/dev/null"]].concat());
        assert_eq!(run.code, Some(1), "{target} without {excluded}: {}", run.stdout);
        assert_eq!(run.stderr, "openports: --exclude-targets leaves no target\n");
        assert!(listener.accept().is_err(), "{target} without {excluded}");
    }
    assert_eq!(domains(&["localhost", "localhost.", "LOCALHOST", "-4", "9"]), ["localhost"]);
}
