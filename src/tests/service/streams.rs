//! The events of streams during their scan: when ports are reported, and with which address.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::client::ports;
use crate::network::{isolated, list, listeners};
use crate::process::{EVENT_TIMEOUT, Folder, Service, until};

const NDJSON: &str = "Accept: application/x-ndjson\r\n";

fn events(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).expect("a line is JSON")).collect()
}

/// Expands a list of port ranges.
fn ranges(text: &str) -> BTreeSet<u16> {
    let number = |digits: &str| digits.parse::<u16>().expect("the text is a port");
    let ranges = text.split(',').filter(|range| !range.is_empty());
    let ports = ranges.flat_map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        number(first)..=number(last)
    });
    ports.collect()
}

/// The ports that the events report as closed, by address, and the number of these events. It fails
/// if a port is reported twice.
fn reported_closed(events: &[Value]) -> (BTreeMap<&str, BTreeSet<u16>>, usize) {
    let (mut reported, mut events_len) = (BTreeMap::new(), 0);
    for event in events.iter().filter(|event| event["event"] == "progress") {
        let Some(text) = event["closed_ports"].as_str() else { continue };
        assert!(text.len() <= 16 * 1024 + "65535-65535".len(), "{} bytes", text.len());
        let address = event["address"].as_str().unwrap_or_default();
        let of_address: &mut BTreeSet<u16> = reported.entry(address).or_default();
        let all_new = ranges(text).into_iter().all(|port| of_address.insert(port));
        assert!(all_new, "a port is reported twice: {event}");
        events_len += 1;
    }
    (reported, events_len)
}

#[test]
fn progress_reports_each_closed_port_once_if_requested() {
    let (_listeners, open) = listeners(1);
    let service = Service::start(&[]);
    let requested = format!("1-3000,{}", list(&open));
    let check = |include: &str, is_reported: bool| {
        let target = format!("/open-ports?domain=127.0.0.1&ports={requested}&rate=3000{include}");
        let events = events(&service.request("GET", &target, NDJSON).check_status(200).body);
        let [start, .., end] = &*events else { panic!("too few events: {events:#?}") };
        let first = start["ports"].as_str().expect("`ports` is a string");
        let expected: BTreeSet<u16> = (1..=3000).chain(open.iter().copied()).collect();
        assert_eq!(ranges(first), expected);
        let (reported, events_len) = reported_closed(&events);
        assert_eq!(events_len > 1, is_reported, "{include}: {events:#?}");
        let reported = reported.get("").cloned().unwrap_or_default();
        let closed = end["closed_ports"].as_str().map(ranges).unwrap_or_default();
        assert!(reported.is_subset(&closed) && !reported.contains(&open[0]), "{events:#?}");
        assert_eq!(reported.is_empty(), !is_reported);
    };
    check("&include=closed,filtered,unreachable", true);
    check("&include=filtered,unreachable", false);
    check("", false);
}

#[test]
fn with_all_addresses_each_event_names_its_address() {
    isolated(|| {
        let folder = Folder::new("addresses");
        let hosts = folder.write("hosts", "127.0.0.1 many\n127.0.0.2 many\n");
        let service = Service::start(&["--hosts", &hosts]);
        let port = service.address.port();
        let target = format!(
            "/open-ports?domain=many&addresses=all&ports={port},1-1000&rate=2000&include=closed"
        );
        let events = events(&service.request("GET", &target, NDJSON).check_status(200).body);
        let (reported, _) = reported_closed(&events);
        assert_eq!(
            reported.keys().collect::<Vec<_>>(),
            [&"127.0.0.1", &"127.0.0.2"],
            "{events:#?}"
        );
        let opens: Vec<_> = events.iter().filter(|event| event["event"] == "open").collect();
        assert_eq!(opens.len(), 1, "{events:#?}");
        assert_eq!((&opens[0]["port"], &opens[0]["address"]), (&port.into(), &"127.0.0.1".into()));
        let end = &events[events.len() - 1];
        assert_eq!(ports(&end["open_ports"]), [port]);
    });
}

#[test]
fn with_all_addresses_there_are_no_more_events_of_progress_and_the_addresses_take_turns() {
    isolated(|| {
        let folder = Folder::new("turns");
        let many: String = (1..=32).map(|last| format!("127.0.2.{last} many\n")).collect();
        let service = Service::start(&["--hosts", &folder.write("hosts", &many)]);
        // The scan takes 1.6 s: the interval of progress ends seven times, and more on a slow
        // machine.
        let target = "/open-ports?domain=many&addresses=all&ports=1-100&rate=2000&include=closed";
        let events = events(&service.request("GET", target, NDJSON).check_status(200).body);
        let (reported, events_len) = reported_closed(&events);
        let elapsed_ms = events[events.len() - 1]["elapsed_ms"].as_u64().expect("a time");
        assert!(events_len > 1 && events_len as u64 <= elapsed_ms / 200, "{events:#?}");
        assert_eq!(reported.len(), events_len.min(32), "each event has another address");
    });
}

#[test]
fn all_addresses_are_scanned_at_once_unless_the_request_limits_the_concurrency() {
    isolated(|| {
        let folder = Folder::new("at-once");
        let many: String = (1..=8).map(|last| format!("198.51.100.{last} many\n")).collect();
        let service = Service::start(&["--hosts", &folder.write("hosts", &many)]);
        let check = |limit: &str, is_complete: bool| {
            let query = "domain=many&ports=1-100&timeout=500ms&retries=0&deadline=2s&addresses=all";
            let scan = service.scan(&format!("{query}{limit}"));
            scan.check_key("complete", is_complete);
        };
        check("", true);
        check("&concurrency=80", false);
    });
}

/// The scan reports half a megabyte of ranges while the client does not read.
#[test]
fn a_slow_reader_receives_each_port_once_and_the_end() {
    isolated(|| {
        let folder = Folder::short("slow-reader");
        let (path, addresses) = (folder.path("socket"), 64);
        let many: String = (1..=addresses).map(|last| format!("127.0.0.{last} many\n")).collect();
        let hosts = folder.write("hosts", &many);
        let service = Service::start(&["--hosts", &hosts, "--listen", &format!("unix:{path}")]);
        service.log_line(&["msg=listening", "address=unix:"]);
        let odd_ports: Vec<u16> = (10_001..12_500).step_by(2).collect();
        let target = format!(
            "/open-ports?domain=many&addresses=all&ports={}&rate=20000&include=closed",
            list(&odd_ports)
        );
        let mut client = UnixStream::connect(&path).expect("the service listens");
        client.set_read_timeout(Some(EVENT_TIMEOUT)).expect("the timeout is not zero");
        let request = format!("GET {target} HTTP/1.0\r\nHost: localhost\r\n{NDJSON}\r\n");
        client.write_all(request.as_bytes()).expect("the service reads the request");
        // The client must wait less than the stall timeout, however slow the machine is.
        let reads_at = Instant::now() + Duration::from_secs(5);
        until("the scan ends, or the client has waited long enough", || {
            let has_ended = service.scans_ended("complete") == 1;
            (has_ended || Instant::now() >= reads_at).then_some(())
        });
        let mut answer = String::new();
        client.read_to_string(&mut answer).expect("the service answers and closes");
        let (_, body) = answer.split_once("\r\n\r\n").expect("the answer has a head");
        let events = events(body);
        let (reported, events_len) = reported_closed(&events);
        assert!(events_len > 1, "the socket buffers hold some events");
        let end = &events[events.len() - 1];
        assert_eq!((&end["event"], &end["complete"]), (&"end".into(), &true.into()));
        let closed = ranges(end["closed_ports"].as_str().expect("`closed_ports` is a string"));
        assert_eq!(closed, odd_ports.iter().copied().collect());
        assert_eq!(end["counts"]["closed"], addresses * odd_ports.len());
        assert!(reported.values().all(|ports| ports.is_subset(&closed)));
    });
}
