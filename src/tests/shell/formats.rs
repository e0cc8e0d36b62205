//! The formats: the output of the same scan in each of them.

use super::targets::Scratch;
use super::*;

/// The output of a scan of three addresses, the first of which has an open port.
fn printed(port: u16, flags: &[&str]) -> String {
    let ports = format!("{port},9");
    let run = run(&[&["scan", "127.0.7.1-3", "-p", &ports], flags].concat());
    assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""), "{flags:?}");
    run.stdout
}

#[test]
fn each_format_prints_the_open_ports_in_its_own_way() {
    let (_listener, port) = listener([127, 0, 7, 1]);
    let at = format!("127.0.7.1:{port}\n");
    assert_eq!(printed(port, &["--format", "host-port"]), at);
    assert_eq!(printed(port, &["--format", "text"]), at);
    let csv = printed(port, &["--format", "csv"]);
    let mut csv = csv.lines();
    assert_eq!(csv.next(), Some("address,port,state,service,rtt_ms"));
    let line = csv.next().expect("the output has a line");
    assert!(line.starts_with(&format!("127.0.7.1,{port},open,")), "{line}");
    assert_eq!(csv.next(), None);
    assert_eq!(printed(port, &["--json"]).lines().count(), 3);
    assert_eq!(printed(port, &["--format", "json"]).lines().count(), 3);
    let events = lines(&printed(port, &["--format", "ndjson"]));
    assert_eq!(events.iter().filter(|event| event["event"] == "end").count(), 3);
    let alone = run(&["scan", "127.0.7.1", &port.to_string(), "--format", "text"]);
    assert_eq!(alone.stdout, format!("{port}\n"));
}

#[test]
fn a_table_lists_targets_with_open_ports_and_ends_with_a_summary() {
    let (_listener, port) = listener([127, 0, 7, 1]);
    let table = printed(port, &[]);
    let mut table = table.lines();
    let heading = table.next().expect("the table has a heading");
    assert!(heading.starts_with("127.0.7.1: 1 open of 2 ports, 1 closed, in "), "{heading}");
    assert!(table.next().expect("the table has a row").contains(&port.to_string()));
    let sum = table.next().expect("the table has a summary");
    assert!(sum.starts_with("3 targets in "), "{sum}");
    assert!(sum.ends_with(": 1 with open ports, 2 without"), "{sum}");
    assert_eq!(table.next(), None);
}

#[test]
fn a_format_of_open_ports_alone_reports_on_stderr_that_it_is_incomplete() {
    let cut = ["127.0.7.1", "-p", "1-65535", "--rate", "100", "--deadline", "200ms"];
    for format in ["text", "host-port", "csv"] {
        let run = run(&[&["scan", "--timeout", "100ms", "--format", format], &cut[..]].concat());
        assert_eq!(run.code, Some(1), "{format}");
        let line = run.stderr.trim_end();
        assert!(line.starts_with("openports: 127.0.7.1: not scanned: 65"), "{format}: {line}");
        assert!(line.ends_with(" of 65535 ports"), "{format}: {line}");
    }
    let targets = ["scan", "--timeout", "100ms", "--format", "text", "127.0.7.2"];
    let run = run(&[&targets[..], &cut[..]].concat());
    assert_eq!(run.stderr, "openports: 2 of 2 targets were not scanned whole\n");
}

#[test]
fn open_prints_only_targets_with_an_open_port() {
    let (_listener, port) = listener([127, 0, 7, 1]);
    assert_eq!(printed(port, &["--open", "--json"]).lines().count(), 1);
    let events = lines(&printed(port, &["--open", "--ndjson"]));
    let names: Vec<&Value> =
        events.iter().map(|event| &event["event"]).filter(|name| *name != "progress").collect();
    assert_eq!(names, ["start", "open", "end"]);
    assert_eq!(printed(port, &["--open", "--format", "xml"]).matches("<host ").count(), 1);
    assert_eq!(printed(port, &["--open", "--format", "greppable"]).matches("Ports:").count(), 1);
}

#[test]
fn included_states_are_listed() {
    let (_listener, port) = listener([127, 0, 7, 1]);
    let include = ["--include", "closed"];
    let check = |format: &str, expected: &str| {
        let flags = [&include[..], &["--format", format]].concat();
        let text = printed(port, &flags);
        assert!(text.contains(expected), "{format}: {text}");
    };
    check("table", "  closed: 9\n");
    check("json", r#""closed_ports":"9""#);
    check("csv", "127.0.7.1,9,closed,discard,\n");
    check("xml", r#"portid="9"><state state="closed" reason="conn-refused""#);
    check("greppable", "9/closed/tcp//discard///");
    let run = run(&["scan", "localhost", "9", "--include", "open"]);
    assert_eq!(run.code, Some(64));
    assert!(run.stderr.contains("--include \"open\""), "{}", run.stderr);
}

#[test]
fn greppable_lines_have_the_format_of_nmap() {
    let (_listener, port) = listener([127, 0, 7, 1]);
    let text = printed(port, &["--format", "greppable"]);
    let line =
        text.lines().find(|line| line.contains("Ports:")).expect("the host has an open port");
    let expected = format!("Host: 127.0.7.1 ()\tPorts: {port}/open/tcp//");
    assert!(line.starts_with(&expected) && line.ends_with("\tIgnored State: closed (1)"), "{line}");
    assert!(text.starts_with("# openports ") && text.ends_with(" seconds\n"), "{text}");
    assert_eq!(text.matches("\tStatus: Up\n").count(), 3);
}

/// The path of nmap's DTD, which .ci/run installs together with xmllint.
const NMAP_DTD: &str = "/usr/share/nmap/nmap.dtd";

#[test]
fn xml_is_valid_against_the_dtd_of_nmap() {
    let (_listener, port) = listener([127, 0, 7, 1]);
    let (_silent, _clients, silent) = silent_port();
    let scratch = Scratch::new("xml");
    let ports = format!("{port},9,{silent}");
    let scans: [&[&str]; 5] = [
        &["127.0.7.1-3", "localhost", "::1"],
        &["127.0.7.1", "--include", "closed,filtered,unreachable,services"],
        &["localhost", "--all-addresses"],
        &["127.0.0.1", "--deadline", "20ms"],
        &["169.254.0.1"],
    ];
    for targets in &scans {
        let file = scratch.path("scan.xml");
        let flags = ["-p", &ports, "--timeout", "50ms", "--format", "xml", "-o", &file];
        run(&[&["scan"], *targets, &flags[..]].concat());
        let text = std::fs::read_to_string(&file).expect("the file is written");
        assert!(text.contains("<nmaprun") && text.ends_with("</nmaprun>\n"), "{text}");
        let args = ["--noout", "--dtdvalid", NMAP_DTD, &file];
        let lint = Command::new("xmllint").args(args).output().ok();
        let Some(lint) = lint.filter(|_| std::path::Path::new(NMAP_DTD).exists()) else {
            return skip("this test needs xmllint and the DTD of nmap");
        };
        let faults = String::from_utf8_lossy(&lint.stderr);
        assert!(lint.status.success(), "{targets:?}: {faults}\n{text}");
    }
}

#[test]
fn xml_states_the_ports_that_are_scanned() {
    let scratch = Scratch::new("scaninfo");
    let list = scratch.file("list", "127.0.7.1 9\n127.0.7.1 11\n127.0.7.2 10-12,20\n");
    let check = |args: &[&str], expected: &str| {
        let text = run(&[&["scan", "--format", "xml"], args].concat()).stdout;
        let (_, after) = text.split_once(" protocol=\"tcp\" ").expect("there is a scaninfo");
        assert_eq!(after.lines().next(), Some(&*format!("{expected}/>")), "{args:?}");
    };
    check(&["127.0.7.1", "8-10"], r#"numservices="3" services="8-10""#);
    check(&["127.0.7.1:9"], r#"numservices="1" services="9""#);
    check(&["127.0.7.1:9", "127.0.7.2", "20"], r#"numservices="2" services="9,20""#);
    check(&["--targets", &list], r#"numservices="5" services="9-12,20""#);
    check(&["--targets", &list, "--exclude", "10"], r#"numservices="4" services="9,11-12,20""#);
    check(
        &["--targets", &list, "--exclude-targets", "127.0.7.2"],
        r#"numservices="2" services="9,11""#,
    );
}

#[test]
fn a_port_belongs_to_its_own_address_when_all_addresses_of_a_name_are_scanned() {
    let (_listener, port) = listener([127, 0, 6, 1]);
    let scratch = Scratch::new("addresses");
    let hosts = scratch.file("hosts", "127.0.6.1 both.test\n127.0.6.2 both.test\n");
    let ports = port.to_string();
    let print = |format: &str| {
        let flags = ["--all-addresses", "--include", "closed", "--format", format];
        let run = run(&[&["scan", "--hosts", &hosts, "both.test", &ports][..], &flags].concat());
        assert_eq!(run.code, Some(0), "{format}: {}", run.stderr);
        run.stdout
    };
    let csv = print("csv");
    let rows: Vec<&str> = csv.lines().skip(1).collect();
    assert_eq!(rows.len(), 2, "{csv}");
    assert!(rows[0].starts_with(&format!("127.0.6.1,{port},open,,0.")), "{csv}");
    assert_eq!(rows[1], format!("127.0.6.2,{port},closed,,"));
    let table = print("table");
    let expected = [
        "both.test (127.0.6.1): 1 open of 1 port, in ".to_owned(),
        format!("  {port:>5}"),
        "both.test (127.0.6.2): 0 open of 1 port, 1 closed, in ".to_owned(),
        format!("  closed: {port}"),
    ];
    assert_eq!(table.lines().count(), expected.len(), "{table}");
    for (line, expected) in table.lines().zip(expected) {
        assert!(line.starts_with(&expected), "{table}");
    }
    let greppable = print("greppable");
    for expected in [
        format!("Host: 127.0.6.1 (both.test)\tPorts: {port}/open/tcp/////\n"),
        format!("Host: 127.0.6.2 (both.test)\tPorts: {port}/closed/tcp/////\n"),
        " -- 2 IP addresses (2 up) scanned in ".to_owned(),
    ] {
        assert!(greppable.contains(&expected), "{expected:?} is not in {greppable}");
    }
    let many: String = (1..=66).map(|last| format!("127.0.6.{last} both.test\n")).collect();
    scratch.file("hosts", &many);
    let table = print("table");
    assert!(
        table.ends_with("  not scanned, of the same name: 127.0.6.65, 127.0.6.66\n"),
        "{table}"
    );
    assert_eq!(table.matches("not scanned").count(), 1, "{table}");
    scratch.file("hosts", "127.0.6.1 both.test\n127.0.6.2 both.test\n");
    let xml = print("xml");
    let (first, second) = xml.split_once("<address addr=\"127.0.6.2\"").expect("two hosts");
    assert!(first.contains("state=\"open\"") && !first.contains("state=\"closed\""), "{xml}");
    assert!(second.contains(&format!("portid=\"{port}\"><state state=\"closed\"")), "{xml}");
    assert!(second.contains("1 target scanned") && second.contains("total=\"2\""), "{xml}");
}
