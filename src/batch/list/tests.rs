//! Tests of lists of targets: parsing, duplicates and exclusions.

use super::*;
use crate::batch::port_lists::TargetPorts;
use crate::batch::targets::Cursor;

fn ports(text: &str) -> PortSet {
    if text.is_empty() { PortSet::new() } else { PortSet::parse(text).unwrap() }
}

fn list(text: &str, common: &str, exclude: &str) -> TargetList {
    let mut targets = TargetList::new(ports(common), ports(exclude));
    targets.add_lines(text.as_bytes());
    targets
}

/// Every target as `domain from..to ports at index`.
fn shown(targets: &Targets) -> Vec<String> {
    let mut cursor = Cursor::default();
    let all = std::iter::from_fn(|| targets.next(&mut cursor));
    let show = |target| {
        let TargetPorts { from_port, to_port, ranges } = targets.target_ports(&target);
        let (domain, ports) = (targets.domain(target.id), PortSet::from_ranges(ranges));
        let ports = ports.display_ranges();
        let finished = if target.is_finished { " finished" } else { "" };
        format!("{domain} {from_port}..{to_port} {ports} at {}{finished}", target.first)
    };
    let all: Vec<String> = all.map(show).collect();
    assert_eq!((all.len() as u64, cursor.targets()), (targets.len(), targets.len()));
    all
}

#[test]
fn the_zone_of_a_listed_target_is_the_name_of_an_interface() {
    let table = b"fe80000000000000001122fffe334455 02 40 20 80 eth0\n";
    let mut targets =
        TargetList::new(ports("80"), ports("")).with_interfaces(Interfaces::parse(table));
    targets.add_lines(b"fe80::1%eth0\nfe80::1%2\nfe80::2%eth1 22\n");
    let targets = targets.finish().unwrap();
    assert_eq!(shown(&targets), ["fe80::1%eth0 80..80 80 at 0"], "one target by either name");
    assert_eq!(targets.faults()[0].split(':').next(), Some("--targets, line 3"));
}

fn check(text: &str, expected: &[&str]) {
    let targets = list(text, "80", "").finish().unwrap();
    assert_eq!(targets.faults(), &[] as &[String], "{text:?}");
    let found: Vec<String> = shown(&targets)
        .iter()
        .map(|line| line.split(' ').filter(|word| !word.contains("..")).take(2).collect())
        .map(|words: Vec<&str>| words.join(" "))
        .collect();
    assert_eq!(found, expected, "{text:?}");
}

#[test]
fn a_line_is_a_target_with_the_common_ports_or_its_own() {
    let text = "# machines\n\nexample.com\n  192.0.2.7\t22,80 # door\r\n[::1] 1-3\n\n";
    let targets = list(text, "1-1024", "80").finish().unwrap();
    assert_eq!(targets.faults(), &[] as &[String]);
    let expected = [
        "example.com 1..1024 1-79,81-1024 at 0",
        "192.0.2.7 22..80 22 at 1023",
        "[::1] 1..3 1-3 at 1024",
    ];
    assert_eq!(shown(&targets), expected);
    assert_eq!((targets.len(), targets.ports_len()), (3, 1027));
}

#[test]
fn a_target_that_is_listed_again_is_scanned_once_for_all_its_ports() {
    check("a\nA\na\n", &["a 80"]);
    check("b\na 22\nB 443\n", &["b 80,443", "a 22"]);
    check("a\na.\n", &["a 80", "a. 80"]);
    check("localhost\nlocalhost. 22\nLOCALHOST", &["localhost 22,80"]);
    check(
        "a.Localhost.\na.localhost\nnotlocalhost\nnotlocalhost.",
        &["a.Localhost. 80", "notlocalhost 80", "notlocalhost. 80"],
    );
    check("::1%1\n[::1]:22\n::1", &["::1%1 22,80"]);
    check("10.0.0.1\n10.0.0.1\n", &["10.0.0.1 80"]);
    check("::ffff:10.0.0.1\n10.0.0.1\n[::1]\n::1", &["::ffff:10.0.0.1 80", "[::1] 80"]);
    check(
        "10.0.0.0/30\n10.0.0.2:22\n10.0.0.3-4\n",
        &["10.0.0.0 80", "10.0.0.1 80", "10.0.0.2 22,80", "10.0.0.3 80", "10.0.0.4 80"],
    );
    check("h:22\nh:80\nh 22-23", &["h 22-23,80"]);
    check("fe80::1%3\n[fe80::1%3]\nfe80::1%4", &["[fe80::1%3] 80", "fe80::1%4 80"]);
}

#[test]
fn networks_are_counted_and_not_expanded() {
    let text = "10.0.0.0/8\n10.0.0.0/9\n2001:db8::/96\n10.1.2.3 22";
    let targets = list(text, "80,443", "443").finish().unwrap();
    assert_eq!(targets.len(), (1 << 24) + (1 << 32));
    assert_eq!(targets.ports_len(), targets.len() + 1);
    let pieces = targets.v4.len() + targets.v6.len();
    assert_eq!(pieces, 4, "three segments of IPv4, because one address has more ports");
}

#[test]
fn excluded_targets_are_left_out() {
    let mut targets = list("a\nB.example\n10.0.0.0/29\n2001:db8::1-2001:db8::3", "80", "");
    for text in ["b.EXAMPLE", "10.0.0.1-10.0.0.6", "2001:db8::2", "elsewhere", "10.9.0.0/16"] {
        targets.exclude(&Spec::parse(text).unwrap());
    }
    let left: Vec<String> = shown(&targets.finish().unwrap())
        .iter()
        .map(|line| line.split(' ').next().unwrap().to_owned())
        .collect();
    assert_eq!(left, ["a", "10.0.0.0", "10.0.0.7", "2001:db8::1", "2001:db8::3"]);
    let mut all = list("10.0.0.0/24", "80", "");
    all.exclude(&Spec::parse("10.0.0.0/8").unwrap());
    assert_eq!(all.finish().unwrap_err(), "--exclude-targets leaves no target");
    for network in ["2001:db8::/64", "::/0"] {
        let mut targets = list("2001:db8::1\n10.0.0.1", "80", "");
        targets.exclude(&Spec::parse_excluded(network, &Interfaces::default()).unwrap());
        assert_eq!(shown(&targets.finish().unwrap()), ["10.0.0.1 80..80 80 at 0"], "{network}");
    }
}

#[test]
fn an_exclusion_applies_to_each_spelling_of_a_target() {
    for (target, excluded) in [
        ("v4.test", "V4.test."),
        ("v4.test.", "v4.test"),
        ("V4.test.:80", "v4.TEST."),
        ("localhost", "localhost."),
        ("localhost.", "localhost"),
        ("::1", "::1%1"),
        ("::1%1", "::1"),
        ("[::1%1]:80", "::1%2"),
        ("[::ffff:10.0.0.1]:80", "10.0.0.1"),
        ("fe80::1%3", "[fe80::1%3]"),
    ] {
        let mut targets = list(&format!("{target}\nother"), "80", "");
        targets.exclude(&Spec::parse(excluded).unwrap());
        let left = shown(&targets.finish().unwrap());
        assert_eq!(left, ["other 80..80 80 at 0"], "{target} without {excluded}");
    }
    let mut targets = list("fe80::1%3", "80", "");
    targets.exclude(&Spec::parse("fe80::1%4").unwrap());
    assert_eq!(targets.finish().unwrap().len(), 1, "each link has its own fe80::1");
}

#[test]
fn finished_targets_keep_their_place_and_are_marked() {
    let mut targets = list("a\nb\n10.0.0.0/31\n::1", "80", "");
    for domain in ["A", "10.0.0.1", "::1", "10.7.7.7"] {
        targets.finish_target(domain);
    }
    let expected = [
        "a 80..80 80 at 0 finished",
        "b 80..80 80 at 1",
        "10.0.0.0 80..80 80 at 2",
        "10.0.0.1 80..80 80 at 3 finished",
        "::1 80..80 80 at 4 finished",
    ];
    assert_eq!(shown(&targets.finish().unwrap()), expected);
}

#[test]
fn a_bad_line_is_reported_by_number_and_the_others_are_used() {
    let text = "a\nexa~mple\nb 0\nc 80 x\nd 443\ne\nf:1 2\n10.0.0.9-1\n80\n10.0.0/8\n\
                127.0.0.1 127.0.0.2\n127.0.0.1 b c\na 22;80\na 22, 80\na:22,80\na http";
    let targets = list(text, "80", "443").finish().unwrap();
    let lines: Vec<String> = targets.faults().iter().map(|fault| show(fault)).collect();
    let expected = [
        "2: target \"exa~mple\": a name has no '~'",
        "3: ports \"0\" at offset 1: must be from 1 to 65535",
        "4: \"x\" follows target and ports",
        "5: --exclude leaves no port to scan",
        "7: \"f:1\" has a port already",
        "8: target \"10.0.0.9-1\": the range runs backwards, from 10.0.0.9 to 10.0.0.1",
        "9: target \"80\": a list of ports, not a target; ports stand once, behind the targets or \
         in -p",
        "10: target \"10.0.0/8\": expected a network such as 10.0.0.0/24 or 2001:db8::/120",
        "11: \"127.0.0.2\" is no list of ports; each target needs its own line",
        "12: \"b\" is no list of ports; each target needs its own line",
        "13: ports \"22;80\" at offset 1: no port or range; write 22,80,8000-8100 without \
         blanks, or 1-65535 for all",
        "14: ports \"\" at offset 4: a port is missing; write 22,80,8000-8100 without \
         blanks, or 1-65535 for all",
        "15: target \"a:22,80\": write its ports behind a blank: 22,80",
        "16: ports \"http\" at offset 1: the name of a service; write 80",
    ];
    assert_eq!(lines, expected);
    assert_eq!((targets.len(), targets.ports_len()), (2, 2));
}

/// A message about a line of a list without the part that all have in common.
fn show(fault: &str) -> String {
    fault.strip_prefix("--targets, line ").unwrap().to_owned()
}

#[test]
fn a_target_of_the_command_line_without_a_port_left_is_a_fault_of_this_target_only() {
    let mut targets = list("10.0.0.3 22", "80", "22");
    for text in ["10.0.0.1:22", "10.0.0.2", "10.0.0.4:443"] {
        targets.add(text, &Spec::parse(text).unwrap());
    }
    let targets = targets.finish().unwrap();
    let expected = [
        "--targets, line 1: --exclude leaves no port to scan",
        "TARGET \"10.0.0.1:22\": --exclude leaves no port to scan",
    ];
    assert_eq!((targets.faults(), targets.len()), (&expected.map(str::to_owned)[..], 2));
}

#[test]
fn of_very_many_bad_lines_the_first_are_kept_and_the_rest_counted() {
    let targets = list(&"/\n".repeat(limits::TARGET_FAULTS_MAX + 5), "80", "").finish().unwrap();
    let faults = targets.faults();
    assert_eq!(faults.len(), limits::TARGET_FAULTS_MAX + 1);
    assert_eq!(faults.last().map(String::as_str), Some("5 more targets are faulty"));
    assert!(targets.is_empty());
}

#[test]
fn a_byte_order_mark_and_the_bytes_of_comments_do_not_matter() {
    let mut targets = TargetList::new(ports("1"), PortSet::new());
    targets.add_lines(b"\xef\xbb\xbfa # caf\xe9\n\xff\nb#\xff\xfe\n#\xe9\n\xef\xbb\xbfc");
    let targets = targets.finish().unwrap();
    let lines: Vec<String> = targets.faults().iter().map(|fault| show(fault)).collect();
    assert_eq!(lines[0], "2: the line is not UTF-8");
    let inner = "5: target \"\\u{feff}c\": the character U+FEFF is blank or invisible; remove it";
    assert_eq!(lines[1], inner);
    assert_eq!((targets.len(), lines.len()), (2, 2));
    let mut wide = TargetList::new(ports("1"), PortSet::new());
    wide.add_lines(b"\xff\xfea\0\n\0");
    let wide = wide.finish().unwrap();
    assert_eq!(
        wide.faults(),
        ["--targets, line 1: NUL bytes, as in UTF-16: write the list as UTF-8"]
    );
    let encode =
        |bytes: fn(u16) -> [u8; 2]| "10.0.0.1\nb\n".encode_utf16().flat_map(bytes).collect();
    let texts: [Vec<u8>; 2] = [encode(u16::to_le_bytes), encode(u16::to_be_bytes)];
    for text in texts {
        let mut wide = TargetList::new(ports("1"), PortSet::new());
        wide.add_lines(&text);
        let faults = wide.finish().unwrap().faults().to_vec();
        assert!(
            faults.len() == 1 && faults[0].contains("line 1: NUL bytes, as in UTF-16"),
            "{faults:?}"
        );
    }
    let nul = list("127.0.0.1\0\naa\0b", "80", "").finish().unwrap().faults().to_vec();
    assert!(nul.len() == 2 && nul.iter().all(|it| !it.contains("UTF-16")), "{nul:?}");
}

#[test]
fn host_bits_are_mentioned_once() {
    let note = |text: &str| list(text, "80", "").finish().unwrap().note().map(str::to_owned);
    assert_eq!(note("10.0.0.0/24"), None);
    let first = "10.0.0.1/24 has host bits, the network 10.0.0.0/24 is scanned";
    assert_eq!(note("10.0.0.1/24").as_deref(), Some(first));
    let more = format!("{first}; and 2 more like it");
    assert_eq!(note("10.0.0.1/24\n10.0.0.2/24\n10.0.1.1/24").as_deref(), Some(&*more));
}

#[test]
fn a_long_list_of_the_same_targets_takes_no_more_memory_than_a_short_one() {
    let mut targets = TargetList::new(ports("80"), PortSet::new());
    for round in 0..4 * COMPACT_MIN {
        targets.add_line(format!("10.0.{}.{}", round % 7, round % 250).as_bytes());
    }
    assert!(targets.addresses.len() <= 2 * COMPACT_MIN);
    assert_eq!(targets.finish().unwrap().len(), 7 * 250);
}

#[test]
fn more_targets_and_ports_than_can_be_counted_are_refused() {
    let mut targets = TargetList::new(ports("1-"), PortSet::new());
    for network in 0..20_000 {
        targets.add_line(format!("2001:db8:{network:x}::/96").as_bytes());
    }
    let error = targets.finish().unwrap_err();
    assert_eq!(error, "these are more targets and ports than can be counted");
}

#[test]
fn many_lines_with_one_port_each_of_the_same_host_are_combined() {
    const PORTS: u16 = 1_000;
    for host in ["a.example", "10.0.0.1"] {
        let mut list = TargetList::new(PortSet::from_range(1, 1), PortSet::new());
        for port in 1..=PORTS {
            list.add_line(format!("{host} {}", 2 * port).as_bytes());
        }
        let targets = list.finish().expect("a list");
        assert_eq!((targets.len(), targets.ports_len()), (1, PORTS.into()));
    }
}

#[test]
fn an_address_that_an_earlier_run_finished_in_one_zone_is_scanned_in_the_others() {
    let mut targets = list("fe80::1%2\nfe80::1%3\nfe80::1\n", "80", "");
    targets.finish_target("fe80::1%3");
    let targets = targets.finish().unwrap();
    let shown = shown(&targets);
    let finished: Vec<bool> = shown.iter().map(|line| line.ends_with(" finished")).collect();
    let expected = shown.iter().map(|line| line.starts_with("fe80::1%3 ")).collect::<Vec<_>>();
    assert_eq!((finished, shown.len()), (expected, 3), "{shown:?}");
}

#[test]
fn the_excluded_addresses_are_returned_as_ranges() {
    let mut targets = list("10.0.0.1", "80", "");
    for text in ["10.0.0.0/30", "2001:db8::7", "a.example"] {
        targets.exclude(&Spec::parse_excluded(text, &Interfaces::default()).unwrap());
    }
    let ranges = targets.excluded_ranges().map(|range| [range.first, range.last]);
    let expected = [["10.0.0.0", "10.0.0.3"], ["2001:db8::7", "2001:db8::7"]];
    let expected = expected.map(|ends| ends.map(|end| end.parse::<std::net::IpAddr>().unwrap()));
    assert_eq!(ranges.collect::<Vec<_>>(), expected);
}
