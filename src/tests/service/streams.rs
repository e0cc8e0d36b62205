//! The events of streams during their scan: when ports are reported, and with which address.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::client::ports;
use crate::network::{isolated, list, listeners};
use crate::process::{Folder, PATIENCE, Service, until};

const NDJSON: &str = "Accept: application/x-ndjson\r\n";

fn events(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).expect("a line is JSON")).collect()
}

/// Expands a list of port ranges.
fn ranges(text: &str) -> BTreeSet<u16> {
    let number = |digits: &str| digits.parse::<u16>().expect("a port");
    let ranges = text.split(',').filter(|range| !range.is_empty());
    let ports = ranges.flat_map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        number(first)..=number(last)
    });
    ports.collect()
}

/// The ports reported as closed, by address, and the number of events; no port is reported twice.
fn told_closed(events: &[Value]) -> (BTreeMap<&str, BTreeSet<u16>>, usize) {
    let (mut told, mut tellings) = (BTreeMap::new(), 0);
    for event in events.iter().filter(|event| event["event"] == "progress") {
        let Some(text) = event["closed_ports"].as_str() else { continue };
        assert!(text.len() <= 16 * 1024 + "65535-65535".len(), "{} bytes", text.len());
        let address = event["address"].as_str().unwrap_or_default();
        let of_address: &mut BTreeSet<u16> = told.entry(address).or_default();
        let all_new = ranges(text).into_iter().all(|port| of_address.insert(port));
        assert!(all_new, "a port is reported twice: {event}");
        tellings += 1;
    }
    (told, tellings)
}

#[test]
fn progress_reports_each_closed_port_once_if_requested() {
    let (_listeners, open) = listeners(1);
    let service = Service::start(&[]);
    let asked = format!("1-3000,{}", list(&open));
    let check = |include: &str, is_told: bool| {
        let target = format!("/open-ports?domain=127.0.0.1&ports={asked}&rate=3000{include}");
        let events = events(&service.ask("GET", &target, NDJSON).check_status(200).body);
        let [start, .., end] = &*events else { panic!("too few events: {events:#?}") };
        let first = start["ports"].as_str().expect("the ports asked for");
        let expected: BTreeSet<u16> = (1..=3000).chain(open.iter().copied()).collect();
        assert_eq!(ranges(first), expected);
        let (told, tellings) = told_closed(&events);
        assert_eq!(tellings > 1, is_told, "{include}: {events:#?}");
        let told = told.get("").cloned().unwrap_or_default();
        let closed = end["closed_ports"].as_str().map(ranges).unwrap_or_default();
        assert!(told.is_subset(&closed) && !told.contains(&open[0]), "{events:#?}");
        assert_eq!(told.is_empty(), !is_told);
    };
    check("&include=closed,filtered,unreachable", true);
    check("&include=filtered,unreachable", false);
    check("", false);
}

#[test]
fn with_all_addresses_each_event_names_its_address() {
    isolated(|| {
        let folder = Folder::new("whose");
        let hosts = folder.write("hosts", "127.0.0.1 many\n127.0.0.2 many\n");
        let service = Service::start(&["--hosts", &hosts]);
        let mine = service.address.port();
        let target = format!(
            "/open-ports?domain=many&addresses=all&ports={mine},1-1000&rate=2000&include=closed"
        );
        let events = events(&service.ask("GET", &target, NDJSON).check_status(200).body);
        let (told, _) = told_closed(&events);
        assert_eq!(told.keys().collect::<Vec<_>>(), [&"127.0.0.1", &"127.0.0.2"], "{events:#?}");
        let opens: Vec<_> = events.iter().filter(|event| event["event"] == "open").collect();
        assert_eq!(opens.len(), 1, "{events:#?}");
        assert_eq!((&opens[0]["port"], &opens[0]["address"]), (&mine.into(), &"127.0.0.1".into()));
        let end = &events[events.len() - 1];
        assert_eq!(ports(&end["open_ports"]), [mine]);
    });
}

/// The scan reports half a megabyte of ranges while the client does not read.
#[test]
fn a_slow_reader_receives_each_port_once_and_the_end() {
    isolated(|| {
        let folder = Folder::short("sleepy");
        let (path, addresses) = (folder.path("socket"), 64);
        let many: String = (1..=addresses).map(|last| format!("127.0.0.{last} many\n")).collect();
        let hosts = folder.write("hosts", &many);
        let service = Service::start(&["--hosts", &hosts, "--listen", &format!("unix:{path}")]);
        service.log_line(&["msg=listening", "address=unix:"]);
        let odd: Vec<u16> = (10_001..12_500).step_by(2).collect();
        let target = format!(
            "/open-ports?domain=many&addresses=all&ports={}&rate=20000&include=closed",
            list(&odd)
        );
        let mut sleeper = UnixStream::connect(&path).expect("the service listens");
        sleeper.set_read_timeout(Some(PATIENCE)).expect("a timeout that is not zero");
        let request = format!("GET {target} HTTP/1.0\r\nHost: localhost\r\n{NDJSON}\r\n");
        sleeper.write_all(request.as_bytes()).expect("the service reads the request");
        // The client must sleep less than the stall timeout, however slow the machine is.
        let wakes_at = Instant::now() + Duration::from_secs(5);
        until("the scan ends, or the client has slept long enough", || {
            let has_ended = service.scans_ended("complete") == 1;
            (has_ended || Instant::now() >= wakes_at).then_some(())
        });
        let mut answer = String::new();
        sleeper.read_to_string(&mut answer).expect("the service answers and closes");
        let (_, body) = answer.split_once("\r\n\r\n").expect("a head");
        let events = events(body);
        let (told, tellings) = told_closed(&events);
        assert!(tellings > 1, "the socket buffers hold some events");
        let end = &events[events.len() - 1];
        assert_eq!((&end["event"], &end["complete"]), (&"end".into(), &true.into()));
        let closed = ranges(end["closed_ports"].as_str().expect("closed ports"));
        assert_eq!(closed, odd.iter().copied().collect());
        assert_eq!(end["counts"]["closed"], addresses * odd.len());
        assert!(told.values().all(|ports| ports.is_subset(&closed)));
    });
}
