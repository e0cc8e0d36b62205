//! Usage: the first commands of new users, and the messages about wrong ones.

use super::*;

#[test]
fn a_flag_of_another_scanner_is_answered_with_the_equivalent_flag() {
    for (args, expected) in [
        (&["scan", "-sS", "-p", "80", "localhost"][..], "-sS: write --technique syn"),
        (&["scan", "-sT", "localhost"], "-sT: leave it out"),
        (&["-sV", "localhost"], "-sV: does not exist here; --include services"),
        (&["scan", "-A", "localhost"], "-A: does not exist here"),
        (&["scan", "-F", "localhost"], "-F: write -p top:100"),
        (&["scan", "--top-ports", "100", "localhost"], "--top-ports: write -p top:N"),
        (&["scan", "-Pn", "localhost"], "-Pn: leave it out"),
        (&["scan", "-n", "localhost"], "-n: leave it out"),
        (&["scan", "-T4", "localhost"], "-T4: leave it out"),
        (&["scan", "-oX", "x.xml", "localhost"], "-oX: write --format xml -o FILE"),
        (&["scan", "-oG", "-", "localhost"], "-oG: write --format greppable -o FILE"),
        (&["scan", "-iL", "hosts", "-p80"], "-iL: write --targets FILE"),
        (&["scan", "-list", "hosts"], "-list: write --targets FILE"),
        (&["scan", "-host", "localhost"], "-host: targets need no flag"),
        (&["scan", "-a", "localhost"], "-a: targets need no flag"),
        (&["scan", "-rate", "100", "localhost"], "-rate: write --rate N"),
        (&["scan", "--max-rate=100", "localhost"], "--max-rate: write --rate N"),
        (&["scan", "-b", "4500", "localhost"], "-b: write --concurrency N"),
        (&["scan", "-b4500", "localhost"], "-b: write --concurrency N"),
        (&["scan", "--ulimit", "5000", "localhost"], "--ulimit: leave it out"),
        (&["scan", "--exclude-ports", "22", "localhost"], "--exclude-ports: write --exclude PORTS"),
        (&["scan", "--exclude-port", "22", "localhost"], "--exclude-port: write --exclude PORTS"),
        (&["scan", "--host-timeout", "5m", "localhost"], "--host-timeout: write --deadline"),
        (&["scan", "-v", "localhost"], "-v: leave it out of a scan"),
        (&["scan", "-json", "localhost"], "-json: write --json"),
        (&["scan", "-health-check"], "-health-check: there is nothing to check before a scan"),
        (&["-hc"], "-hc: there is nothing to check before a scan"),
        (&["-version"], "-version: write --version"),
        (&["scan", "-ps", "80", "localhost"], "-ps: leave it out"),
        (&["scan", "-pts", "80", "localhost"], "-pts: does not exist here"),
        (&["scan", "--host", "localhost", "80"], "--host: targets need no flag"),
        (&["scan", "--range", "1-100", "localhost"], "--range: a range of ports is -p FIRST-LAST"),
        (&["scan", "-g", "localhost"], "-g: RustScan's -g is --format host-port"),
        (&["scan", "-c", "x.toml", "localhost"], "-c: connects at once are --concurrency N"),
        (&["scan", "-PR", "localhost"], "-PR: leave it out"),
        (&["scan", "-sCV", "localhost"], "-sCV: does not exist here"),
        (&["scan", "--versiondb", "x", "localhost"], "--versiondb: does not exist here"),
        (&["scan", "--open-only", "localhost"], "--open-only: leave it out"),
        (&["scan", "--rotate-size", "1", "localhost"], "--rotate-size: does not exist here"),
        (
            &["scan", "-i", "eth0", "localhost"],
            "-i: write --source ADDRESS or --source INTERFACE\n",
        ),
        (&["scan", "-foo", "localhost"], "unknown flag \"-foo\", see openports scan --help"),
        (&["scan", "-help"], "unknown flag \"-help\", did you mean --help?"),
    ] {
        let run = run(args);
        assert_eq!((run.code, run.stdout.as_str()), (Some(64), ""), "{args:?}");
        assert_eq!(run.stderr.lines().count(), 1, "{args:?}: {}", run.stderr);
        let expected = format!("openports: {expected}");
        assert!(run.stderr.starts_with(&expected), "{args:?}: {}", run.stderr);
    }
}

#[test]
fn a_value_that_looks_like_a_flag_is_a_value() {
    let run = run(&["scan", "localhost", "9", "--targets", "-sS"]);
    assert!(run.stderr.starts_with("openports: --targets \"-sS\": "), "{}", run.stderr);
    let run = super::run(&["scan", "--", "-sS"]);
    assert!(run.stderr.starts_with("openports: TARGET \"-sS\""), "{}", run.stderr);
}

#[test]
fn a_wrong_word_is_answered_with_a_suggestion() {
    for (args, expected) in [
        (&["localhost"][..], "unknown command \"localhost\"; to scan it, write openports scan loc"),
        (
            &["10.0.0.0/24"],
            "unknown command \"10.0.0.0/24\"; to scan it, write openports scan 10.0",
        ),
        (&["scann"], "unknown command \"scann\", did you mean scan?"),
        (&["sacn", "localhost"], "unknown command \"sacn\", did you mean scan?"),
        (&["scan", "--jsno", "a"], "unknown flag \"--jsno\", did you mean --json?"),
        (&["scan", "-p", "T:22", "a"], "--ports \"T:22\": \"T:22\" at offset 1: only TCP ports"),
        (&["a b"], "unknown command \"a b\", see openports --help"),
        (&["scan", "--nope", "a"], "unknown flag \"--nope\", see openports scan --help"),
        (&["healthcheck", "a", "b"], "unexpected argument \"b\""),
        (&["healthcheck", "--port", "80"], "--port: the service to check needs no flag: openports"),
        (&["healthcheck", "-p", "80"], "--ports: the service to check needs no flag: openports"),
        (&["--json"], "--json is a flag of scan and not of serve, see openports scan --help"),
        (&["-p", "80"], "--ports: the port of the service is --listen 127.0.0.1:8080"),
        (&["--port", "80"], "--port: the port of the service is --listen 127.0.0.1:8080"),
        (&["serve", "--port=80"], "--port: the port of the service is --listen 127.0.0.1:8080"),
        (
            &["help", "nope"],
            "help \"nope\": expected one of serve, scan, healthcheck, help, completions, man, \
             licenses\n",
        ),
        (&["version"], "unknown command \"version\", did you mean openports --version?"),
        (&["--versions"], "unknown flag \"--versions\", did you mean --version?"),
        (&["completions"], "completions \"\": expected bash, zsh or fish"),
        (&["completions", "tcsh"], "completions \"tcsh\": expected bash, zsh or fish"),
        (&["man", "x"], "man \"x\": unexpected argument"),
        (&["licenses", "--json"], "unexpected argument \"--json\""),
    ] {
        let run = run(args);
        assert_eq!((run.code, run.stdout.as_str()), (Some(64), ""), "{args:?}");
        let expected = format!("openports: {expected}");
        assert!(run.stderr.starts_with(&expected), "{args:?}: {}", run.stderr);
        assert_eq!(run.stderr.lines().count(), 1, "{args:?}: {}", run.stderr);
    }
}

#[test]
fn bad_input_is_reported_in_one_line_that_names_it() {
    for (args, expected) in [
        (
            &["10.0.0.0/33"][..],
            "TARGET \"10.0.0.0/33\": the prefix of a network is a number from 0 to 32",
        ),
        (&["10.0.0.9-1"], "TARGET \"10.0.0.9-1\": the range runs backwards"),
        (&["::/0", "80"], "TARGET \"::/0\": has 2^128 addresses, of which 2^32 can be scanned"),
        (&["[::1", "80"], "TARGET \"[::1\": an opening bracket needs its closing one"),
        (&["[::1]:0"], "TARGET \"[::1]:0\": the port \"0\": must be from 1 to 65535"),
        (&["a:b"], "TARGET \"a:b\": the port \"b\": invalid decimal string"),
        (&["host:99999"], "TARGET \"host:99999\": the port \"99999\": must be from 1 to 65535"),
        (&["a", "80", "b"], "TARGET \"80\": a list of ports, not a target"),
        (&["a", "-p", "0"], "--ports \"0\""),
        (&["a", "22, 80"], "PORTS \"22, 80\": \" 80\" at offset 4: no port or range; write 22,80"),
        (&["a", "22;80"], "PORTS \"22;80\": \"22;80\" at offset 1: no port or range; write 22,80"),
        (&["a", "-p", "22/tcp"], "--ports \"22/tcp\": \"22/tcp\" at offset 1: no port or range;"),
        (&["a", "--retries", "-1"], "--retries \"-1\": must be from 0 to 10, or auto"),
        (&["a", "-p", ""], "--ports \"\": expected ports such as 22,80,8000-8100"),
        (&["a", "-o", ""], "--output \"\": expected the path of a file"),
        (&["a", "--format", "pdf"], "--format \"pdf\": expected one of table, json"),
        (
            &["a", "--json", "--format", "csv"],
            "--json: --format, --json and --ndjson exclude each other",
        ),
        (&["a", "--source", "x/y"], "--source \"x/y\": expected an address of this machine"),
        (
            &["127.0.0.1", "http"],
            "PORTS \"http\": the name of a service; to scan its port write 80, to scan a host of",
        ),
        (&["a", "top:10", "--exclude", "TOP:10"], "--exclude"),
        (&["a", "TOP:0"], "PORTS \"TOP:0\": \"TOP:0\" at offset 1: write top:N, with N from 1 to"),
        (&["a", "top-10"], "PORTS \"top-10\": \"top-10\" at offset 1: write top:N, with N from"),
        (&["a", "Top10"], "PORTS \"Top10\": \"Top10\" at offset 1: write top:N, with N from"),
        (&["top10"], "TARGET \"top10\": a list of ports, not a target"),
        (&["http://a.example/"], "TARGET \"http://a.example/\": give the host alone"),
        (
            &["ssh://root@a.example"],
            "TARGET \"ssh://root@a.example\": give the host alone, without scheme or \
             path: \"a.example\"\n",
        ),
        (&["./hosts", "80"], "TARGET \"./hosts\": a file of targets is read with --targets FILE"),
        (&["--addresses", "all", "a"], "--addresses: targets need no flag: openports scan HOST"),
        (&["-v", "a"], "-v: leave it out of a scan: a terminal shows the progress; the log of a"),
        (&["localhost/24"], "TARGET \"localhost/24\": a network is written with an address"),
        (&["[::1/128]:80"], "TARGET \"[::1/128]:80\": brackets enclose one address"),
        (
            &["127.0.0.1 - 127.0.0.3"],
            "TARGET \"127.0.0.1 - 127.0.0.3\": a network or a range is written without blanks",
        ),
        (&["localhost:22,80"], "TARGET \"localhost:22,80\": one port may follow the colon; give"),
        (&["-"], "TARGET \"-\": targets on stdin are read with --targets -"),
        (&[" ", "80"], "TARGET \" \": can't be blank"),
        (&["10.0.0.x"], "TARGET \"10.0.0.x\": no address, network or range"),
        (&["10.0.0.1–5"], "TARGET \"10.0.0.1–5\": the character U+2013 is no hyphen; write '-'"),
        (&["a", "–p", "80"], "argument \"–p\": the character U+2013 is no hyphen; write '-'"),
        (
            &["bücher.test"],
            "TARGET \"bücher.test\": write an international name in its xn-- form (punycode): \
             xn--bcher-kva.test\n",
        ),
    ] {
        let run = run(&[&["scan"], args].concat());
        assert_eq!((run.code, run.stdout.as_str()), (Some(64), ""), "{args:?}");
        let expected = format!("openports: {expected}");
        assert!(run.stderr.starts_with(&expected), "{args:?}: {}", run.stderr);
        assert_eq!(run.stderr.lines().count(), 1, "{args:?}: {}", run.stderr);
    }
    let masked = run(&["scan", "127.0.0.1/30", "127.0.0.6/30", "9"]);
    assert_eq!(masked.code, Some(0));
    let note = "openports: 127.0.0.1/30 has host bits, the network 127.0.0.0/30 is scanned; and 1 \
                more like it\n";
    assert_eq!(masked.stderr, note);
}

#[test]
fn a_host_with_the_name_of_a_service_is_scanned() {
    let (_listener, port) = listener([127, 0, 0, 1]);
    let port = port.to_string();
    let hosts = std::env::temp_dir().join(format!("openports-hosts-{}", std::process::id()));
    std::fs::write(&hosts, "127.0.0.1 redis\n").expect("a file can be written");
    let hosts_file = hosts.to_str().expect("the path is UTF-8");
    let common = ["scan", "--json", "--hosts", hosts_file, "--resolv-conf", "/dev/null"];
    for args in [
        &["redis", &port][..],
        &["redis", "-p", &port],
        &["redis", "127.0.0.1", "-p", &port],
        &["127.0.0.1", "redis", &port],
    ] {
        let run = run(&[&common, args].concat());
        assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""), "{args:?}");
        let mut answers = lines(&run.stdout).into_iter();
        let answer = answers.find(|answer| answer["domain"] == "redis").expect("redis is scanned");
        assert_eq!(answer["open_ports"][0].to_string(), port, "{args:?}");
    }
    let listed = run_with(&[&common, &["--targets", "-", &port][..]].concat(), "redis\n");
    assert_eq!((listed.code, lines(&listed.stdout).len()), (Some(0), 1), "{}", listed.stderr);
    std::fs::remove_file(&hosts).expect("the file can be removed");
}

/// Runs the binary with these variables.
fn run_in(env: &[(&str, &str)], args: &[&str]) -> Run {
    let mut command = openports(args);
    command.envs(env.iter().copied()).stdin(Stdio::null());
    decode(command.output().expect("the binary runs"))
}

#[test]
fn ports_on_the_command_line_override_the_variable() {
    let (_listener, port) = listener([127, 0, 0, 1]);
    let port = port.to_string();
    let env = [("OPENPORTS_PORTS", "1"), ("OPENPORTS_FORMAT", "xml")];
    for args in
        [&["scan", "127.0.0.1", &port, "--json"][..], &["scan", "127.0.0.1", "-p", &port, "--json"]]
    {
        let run = run_in(&env, args);
        assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""), "{args:?}");
        let ports = &json(&run.stdout)["open_ports"];
        assert_eq!(ports[0].to_string(), port, "{args:?}: {}", run.stdout);
    }
}

#[test]
fn a_message_names_the_variable_that_the_value_comes_from() {
    let (_listener, port) = listener([127, 0, 0, 1]);
    let taken = format!("127.0.0.1:{port}");
    let scan = &["scan", "127.0.0.1", "9"][..];
    for (variable, value, args, code, expected) in [
        ("TARGETS", "/no/list", scan, 1, " \"/no/list\": "),
        ("TARGETS", "/dev/null", &["scan", "-p", "9"], 1, ": there is no target"),
        ("EXCLUDE_TARGETS", "127.0.0.0/8", scan, 1, " leaves no target"),
        ("EXCLUDE_TARGETS_FROM", "/no/list", scan, 1, " \"/no/list\": "),
        ("EXCLUDE", "9", scan, 64, " \"9\": leaves no port to scan"),
        ("RESUME", "/no/run", scan, 1, " \"/no/run\": "),
        ("OUTPUT", "/no/such/folder/x", scan, 1, " \"/no/such/folder/x\": "),
        ("SOURCE", "192.0.2.7", scan, 1, " 192.0.2.7: is no address of this machine"),
        ("SOURCE", "127.0.0.1", &["scan", "-6", "::1", "9"], 1, " has no IPv6 address"),
        ("HOSTS", "/no/hosts", scan, 1, " \"/no/hosts\": "),
        ("RESOLV_CONF", "/no/conf", scan, 1, " \"/no/conf\": "),
        ("TOKEN_FILE", "/no/token", &["serve"], 71, " \"/no/token\": "),
        ("LISTEN", &taken, &["serve"], 71, &format!(" {taken}: ")),
        ("DENY", "10.0.0.0/8,", &["serve"], 64, " \"10.0.0.0/8,\": an item of the list is empty"),
    ] {
        let variable = format!("OPENPORTS_{variable}");
        let run = run_in(&[(&variable, value)], args);
        assert_eq!((run.code, run.stdout.as_str()), (Some(code), ""), "{variable}: {}", run.stderr);
        let expected = format!("openports: {variable}{expected}");
        assert!(run.stderr.starts_with(&expected), "{variable}: {}", run.stderr);
        assert_eq!(run.stderr.lines().count(), 1, "{variable}: {}", run.stderr);
    }
    let run = run_in(&[("OPENPORTS_EXCLUDE", "9")], &["scan", "127.0.0.1:9"]);
    let expected = "TARGET \"127.0.0.1:9\": OPENPORTS_EXCLUDE leaves no port to scan";
    assert_eq!((run.code, run.stderr), (Some(1), format!("openports: {expected}\n")));
}

#[test]
fn a_page_that_cannot_be_written_ends_with_74() {
    for args in [
        &["--help"][..],
        &["scan", "--help"],
        &["--version"],
        &["completions", "bash"],
        &["man"],
        &["licenses"],
    ] {
        let full = File::options().write(true).open("/dev/full").expect("it is a device");
        let read_only = File::open("/dev/null").expect("it is a device");
        for (stdout, expected) in
            [(full, "No space left on device"), (read_only, "Bad file descriptor")]
        {
            let output = openports(args).stdout(stdout).output().expect("the binary runs");
            let run = decode(output);
            assert_eq!((run.code, run.stderr.lines().count()), (Some(74), 1), "{args:?}");
            let expected = format!("openports: stdout: {expected}");
            assert!(run.stderr.starts_with(&expected), "{args:?}: {}", run.stderr);
        }
        let (reader, writer) = std::io::pipe().expect("a pipe can be created");
        drop(reader);
        let run = decode(openports(args).stdout(writer).output().expect("the binary runs"));
        assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""), "{args:?}");
    }
}

#[test]
fn a_path_in_a_message_is_quoted() {
    let path = "no/x\nHost: \x1b[31m\u{9b}";
    let shown = r#""no/x\nHost: \u{1b}[31m\u{9b}""#;
    let serve = ["--resolv-conf", "--hosts", "--token-file"];
    let scan =
        ["-o", "--targets", "--exclude-targets-from", "--resume", "--resolv-conf", "--hosts"];
    let commands = [(&["serve"][..], &serve[..]), (&["scan", "127.0.0.1", "9"], &scan)];
    for (args, flags) in commands {
        for flag in flags {
            let run = run(&[args, &[*flag, path]].concat());
            let expected = format!("openports: {flag} {shown}: ");
            assert!(run.stderr.starts_with(&expected), "{}", run.stderr);
            assert_eq!((run.code == Some(0), run.stderr.lines().count()), (false, 1));
        }
    }
}

#[test]
fn the_reference_pages_and_help_pages_are_printed() {
    for (args, expected) in [
        (&["help"][..], "Usage: openports [serve]"),
        (&["help", "scan"], "Usage: openports scan"),
        (&["help", "man"], "print the manual"),
        (&["man", "--help"], "Usage: openports man\n"),
        (&["licenses", "--help"], "Usage: openports licenses\n"),
        (&["completions", "--help"], "Usage: openports completions bash|zsh|fish\n"),
        (&["help", "--help"], "Usage: openports help [COMMAND]\n"),
        (&["man"], ".TH OPENPORTS 1"),
        (&["completions", "bash"], "complete -F _openports openports"),
        (&["completions", "zsh"], "#compdef openports"),
        (&["completions", "fish"], "complete -c openports"),
        (&["licenses"], "mio "),
        (&["licenses"], "NLnet Labs"),
    ] {
        let run = run(args);
        assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""), "{args:?}");
        assert!(run.stdout.contains(expected), "{args:?}: {}", run.stdout);
    }
}
