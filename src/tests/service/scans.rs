//! Scans of local ports with every parameter: each port is reported in its true state.

use std::net::{IpAddr, Ipv6Addr, TcpListener};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::client::{Client, Scan, ports};
use crate::network::{
    ClosedPort, SILENT, SilentPort, UNREACHABLE, has_ipv6, isolated, kernel_listeners, list,
    listeners, rounds,
};
use crate::process::{EVENT_TIMEOUT, Folder, Service, until};

#[test]
fn ports_with_listeners_are_open_and_others_are_closed() {
    let (_listeners, open) = listeners(3);
    let closed = [ClosedPort::new(), ClosedPort::new()];
    let service = Service::start(&[]);
    let requested = [list(&open), list(&closed.each_ref().map(|closed| closed.port))].join(",");
    service
        .scan(&format!("domain=127.0.0.1&ports={requested}&include=closed,filtered,unreachable"))
        .check_open(&open)
        .check_counts([3, 2, 0, 0, 0])
        .check_key("address", "127.0.0.1")
        .check_key("filtered_ports", "")
        .check_key("unreachable_ports", "")
        .check_key("retried", 0)
        .check_key("loss_suspected", false);
}

#[test]
fn from_port_and_to_port_are_inclusive() {
    let (_listeners, open) = listeners(2);
    let service = Service::start(&[]);
    let (first, last) = (open[0], open[1]);
    let scan = service.scan(&format!("domain=127.0.0.1&fromPort={first}&toPort={last}"));
    assert!(scan.open().contains(&first) && scan.open().contains(&last), "{scan:?}");
    scan.check_key("from_port", first).check_key("to_port", last);
    let requested = u64::from(last - first) + 1;
    assert_eq!(scan.count("open") + scan.count("closed"), requested, "{scan:?}");
    service.scan(&format!("domain=127.0.0.1&fromPort={first}&toPort={first}")).check_open(&[first]);
}

#[test]
fn lists_may_overlap_in_any_order_and_exclude_removes_ports() {
    let (_listeners, open) = listeners(3);
    let service = Service::start(&[]);
    let [first, middle, last] = open[..] else { panic!("there are three listeners") };
    let twice = format!("{last},{first},{middle}-{middle},{last}");
    service
        .scan(&format!("domain=127.0.0.1&ports={twice}&exclude={middle}"))
        .check_open(&[first, last])
        .check_counts([2, 0, 0, 0, 0])
        .check_key("from_port", first)
        .check_key("to_port", last);
}

#[test]
fn closed_ports_are_reported_as_ranges() {
    isolated(|| {
        let service = Service::start(&[]);
        service
            .scan("domain=127.0.0.1&toPort=100&exclude=22-30&include=closed")
            .check_open(&[])
            .check_counts([0, 91, 0, 0, 0])
            .check_key("closed_ports", "1-21,31-100");
    });
}

#[test]
fn the_usual_services_of_open_ports_are_reported_on_request() {
    isolated(|| {
        let _ssh = TcpListener::bind("127.0.0.1:22").expect("port 22 is free in the namespace");
        let service = Service::start(&[]);
        service
            .scan("domain=127.0.0.1&toPort=100&include=services")
            .check_open(&[22])
            .check_key("services", serde_json::json!({"22": "ssh"}));
    });
}

#[test]
fn a_scan_of_all_ports_equals_the_listeners_of_the_kernel() {
    isolated(|| {
        let (_listeners, open) = listeners(10);
        let service = Service::start(&[]);
        let expected = kernel_listeners();
        assert!(open.iter().all(|port| expected.contains(port)) && expected.len() == 11);
        for _ in 0..rounds(3, 20) {
            service
                .scan("domain=127.0.0.1&toPort=65535")
                .check_open(&expected)
                .check_counts([11, 65_524, 0, 0, 0]);
        }
    });
}

#[test]
fn a_self_connect_is_not_reported_as_open() {
    isolated(|| {
        let service = Service::start(&[]);
        // Apart from the service there is no listener in the range of ephemeral source ports.
        for _ in 0..rounds(3, 50) {
            service
                .scan("domain=127.0.0.1&fromPort=32768&toPort=60999")
                .check_open(&[service.address.port()])
                .check_counts([1, 28_231, 0, 0, 0]);
        }
    });
}

#[test]
fn ipv6_is_scanned_with_brackets_and_without() {
    if !has_ipv6() {
        return;
    }
    let listener = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let service = Service::start(&[]);
    for literal in ["::1", "[::1]", "%5B::1%5D", "0:0:0:0:0:0:0:1"] {
        service
            .scan(&format!("domain={literal}&ports={port}"))
            .check_open(&[port])
            .check_key("address", "::1");
    }
}

/// Regression: after a connect to a v4-mapped address, Linux never sends a SYN of the same socket
/// over IPv6 again, so ports of other targets looked filtered.
#[test]
fn the_sockets_of_a_v4_mapped_target_are_used_for_no_ipv6_target() {
    isolated(|| {
        if !has_ipv6() {
            return;
        }
        let folder = Folder::new("mapped");
        let hosts = folder.write("hosts", "::ffff:127.0.0.1 both\n::1 both\n");
        let service = Service::start(&["--hosts", &hosts]);
        service
            .scan("domain=both&addresses=all&toPort=500&timeout=500ms&retries=0")
            .check_counts([0, 1000, 0, 0, 0]);
    });
}

#[test]
fn the_family_selects_the_address_of_a_name() {
    isolated(|| {
        let folder = Folder::new("family");
        let hosts = folder.write("hosts", "127.0.0.1 both only4\n::1 both\n");
        let service = Service::start(&["--hosts", &hosts]);
        let port = service.address.port();
        let check = |query: &str, address: &str, open: &[u16]| {
            let scan = service.scan(&format!("{query}&ports={port}"));
            scan.check_open(open).check_key("address", address);
        };
        check("domain=both&family=4", "127.0.0.1", &[port]);
        check("domain=both&family=6", "::1", &[]);
        check("domain=only4", "127.0.0.1", &[port]);
        for query in ["domain=127.0.0.1&family=6", "domain=::1&family=4"] {
            let answer = service.get(&format!("/open-ports?{query}&ports={port}"));
            answer.check_problem(422, "UNKNOWN_HOST");
        }
    });
}

#[test]
fn all_addresses_of_a_name_are_reported_and_their_union() {
    isolated(|| {
        let folder = Folder::new("all");
        let hosts = folder.write("hosts", "127.0.0.1 many\n127.0.0.2 many\n");
        let service = Service::start(&["--hosts", &hosts]);
        let service_port = service.address.port();
        let (_listener, other_port) = until("a port with a different number is free", || {
            let listener = TcpListener::bind("127.0.0.2:0").unwrap();
            let port = listener.local_addr().unwrap().port();
            (port != service_port).then_some((listener, port))
        });
        let mut union = [service_port, other_port];
        union.sort_unstable();
        let query = format!("domain=many&addresses=all&ports={}", list(&union));
        let scan = service.scan(&query);
        scan.check_open(&union).check_counts([2, 2, 0, 0, 0]);
        let results = scan.json["results"].as_array().expect("`results` is a list").iter();
        let results: Vec<_> =
            results.map(|one| (one["address"].clone(), ports(&one["open_ports"]))).collect();
        let expected = [("127.0.0.1", service_port), ("127.0.0.2", other_port)];
        let expected = expected.map(|(address, port)| (Value::from(address), vec![port]));
        scan.answer.check("the results", results, expected.to_vec());
    });
}

#[test]
fn a_port_with_a_full_queue_is_filtered_after_its_timeout() {
    let (_silent, silent) = SilentPort::several(3);
    let (_listeners, open) = listeners(1);
    let service = Service::start(&[]);
    let requested = list(&[&silent[..], &open].concat());
    let scan = service.scan(&format!("domain=127.0.0.1&ports={requested}&timeout=300ms"));
    scan.check_open(&open).check_counts([1, 0, 3, 0, 0]);
    assert!((300..2000).contains(&scan.elapsed_ms()), "{scan:?}");
}

#[test]
fn the_default_timeout_is_that_of_the_service() {
    let silent = SilentPort::new();
    let service = Service::start(&["--timeout", "400ms"]);
    let scan = service.scan(&format!("domain=127.0.0.1&ports={}&include=filtered", silent.port));
    scan.check_counts([0, 0, 1, 0, 0]).check_key("filtered_ports", silent.port.to_string());
    assert!((400..2000).contains(&scan.elapsed_ms()), "{scan:?}");
}

#[test]
fn requested_retries_apply_to_silent_ports_only() {
    let (_silent, silent) = SilentPort::several(2);
    let (_listeners, open) = listeners(2);
    let service = Service::start(&[]);
    let requested = list(&[&silent[..], &open].concat());
    let scan = service.scan(&format!("domain=127.0.0.1&ports={requested}&timeout=100ms&retries=2"));
    scan.check_open(&open).check_counts([2, 0, 2, 0, 0]).check_key("retried", 4);
    assert!(scan.elapsed_ms() >= 300, "{scan:?}");
}

#[test]
fn a_concurrency_of_one_scans_one_port_at_a_time() {
    let (_silent, silent) = SilentPort::several(4);
    let service = Service::start(&[]);
    let query = format!("domain=127.0.0.1&ports={}&timeout=150ms", list(&silent));
    let scan = service.scan(&format!("{query}&concurrency=1"));
    scan.check_counts([0, 0, 4, 0, 0]);
    assert!(scan.elapsed_ms() >= 4 * 150, "{scan:?}");
    let scan = service.scan(&query);
    scan.check_counts([0, 0, 4, 0, 0]);
    assert!(scan.elapsed_ms() < 4 * 150, "{scan:?}");
}

#[test]
fn the_requested_rate_is_kept() {
    let (_listeners, open) = listeners(21);
    let service = Service::start(&[]);
    let scan = service.scan(&format!("domain=127.0.0.1&ports={}&rate=50", list(&open)));
    scan.check_open(&open);
    // Twenty intervals of 20 ms, minus the small burst that the pacing allows after a delay.
    assert!(scan.elapsed_ms() >= 380, "{scan:?}");
}

#[test]
fn ports_after_the_deadline_are_untested() {
    let (_silent, silent) = SilentPort::several(4);
    let service = Service::start(&[]);
    let scan = service.scan(&format!(
        "domain=127.0.0.1&ports={}&timeout=400ms&concurrency=1&deadline=600ms",
        list(&silent)
    ));
    scan.check_counts([0, 0, 1, 0, 3]).check_key("complete", false);
    assert!((600..2000).contains(&scan.elapsed_ms()), "{scan:?}");
    // A timeout above the deadline is no error: the command line accepts it too.
    let ports = list(&silent);
    let scan = service.scan(&format!("domain=127.0.0.1&ports={ports}&timeout=30s&deadline=200ms"));
    scan.check_counts([0, 0, 0, 0, 4]).check_key("complete", false);
    assert!((200..2000).contains(&scan.elapsed_ms()), "{scan:?}");
}

#[test]
fn the_service_limits_the_requested_deadline() {
    let silent = SilentPort::new();
    let service = Service::start(&["--max-scan-time", "500ms"]);
    let query = format!("domain=127.0.0.1&ports={}&timeout=30s&deadline=1m", silent.port);
    let scan = service.scan(&query);
    scan.check_counts([0, 0, 0, 0, 1]);
    assert!((500..5000).contains(&scan.elapsed_ms()), "{scan:?}");
}

#[test]
fn addresses_that_the_routing_table_rejects_are_unreachable() {
    isolated(|| {
        let service = Service::start(&[]);
        // The second address has no route at all.
        for target in [UNREACHABLE, "192.0.2.1"] {
            let scan = service
                .scan(&format!("domain={target}&toPort=500&include=unreachable&timeout=10s"));
            scan.check_open(&[]).check_counts([0, 0, 0, 500, 0]);
            scan.check_key("unreachable_ports", "1-500");
            assert!(scan.elapsed_ms() < 5000, "{scan:?}");
        }
    });
}

#[test]
fn an_address_without_a_route_is_skipped() {
    isolated(|| {
        let folder = Folder::new("route");
        let hosts = folder.write("hosts", "192.0.2.1 half\n2001:db8::1 half\n127.0.0.1 half\n");
        let service = Service::start(&["--hosts", &hosts]);
        let port = service.address.port();
        let scan = service.scan(&format!("domain=half&ports={port}"));
        scan.check_key("address", "127.0.0.1").check_open(&[port]);
    });
}

/// Starts a scan of silent ports with 1,000 connects in flight, disconnects its client, and checks
/// that every descriptor is closed immediately.
fn check_cancelled_by(disconnect: impl FnOnce(Client)) {
    let service = Service::start(&["--max-in-flight", "1000"]);
    let idle = service.descriptors();
    let client = service.begin_scan(&format!("domain={SILENT}&toPort=65535&timeout=60s"), "");
    until("1000 connects are in flight", || (service.descriptors() > idle + 1000).then_some(()));
    let began = Instant::now();
    disconnect(client);
    until("the service has closed the descriptors", || {
        (service.descriptors() <= idle).then_some(())
    });
    assert!(began.elapsed() < Duration::from_secs(2), "took {:?}", began.elapsed());
    service.log_line(&["msg=cancelled"]);
    assert_eq!(service.scans_ended("cancelled"), 1);
    assert_eq!(service.metric("openports_scans_running"), 0);
    assert_eq!(service.metric("openports_connects_in_flight"), 0);
}

#[test]
fn a_closed_connection_frees_every_descriptor_of_its_scan() {
    isolated(|| check_cancelled_by(drop));
}

#[test]
fn a_reset_connection_frees_every_descriptor_of_its_scan() {
    isolated(|| check_cancelled_by(Client::reset));
}

#[test]
fn a_connection_closed_with_unread_requests_cancels_its_scan() {
    let disconnect = |mut client: Client| {
        client.send("GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(1000));
    };
    isolated(|| check_cancelled_by(disconnect));
}

#[test]
fn a_small_scan_is_not_delayed_by_a_large_silent_one() {
    isolated(|| {
        let service = Service::start(&["--max-in-flight", "100"]);
        let _large = service.begin_scan(&format!("domain={SILENT}&toPort=65535&timeout=30s"), "");
        until("the large scan uses all connects", || {
            (service.metric("openports_connects_in_flight") == 100).then_some(())
        });
        let port = service.address.port();
        let began = Instant::now();
        let scan = service.scan(&format!("domain=127.0.0.1&ports=1-40,{port}"));
        scan.check_open(&[port]).check_counts([1, 40, 0, 0, 0]);
        assert!(began.elapsed() < Duration::from_secs(3), "took {:?}", began.elapsed());
    });
}

#[test]
fn a_flood_of_requests_and_a_scan_do_not_starve_each_other() {
    isolated(|| {
        let service = Service::start(&[]);
        let mut scanning = service.begin_scan("domain=127.0.0.1&toPort=65535", "");
        let mut flood = Client::connect(&service);
        let request = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(100);
        let mut answered = 0;
        while service.scans_ended("complete") == 0 {
            flood.send(&request);
            (0..100).for_each(|_| drop(flood.receive("GET")));
            answered += 100;
        }
        let scan = Scan::of(scanning.receive("GET"));
        scan.check_open(&[service.address.port()]).check_counts([1, 65_534, 0, 0, 0]);
        assert!(answered >= 300, "only {answered} requests were answered during the scan");
    });
}

#[test]
fn two_scans_share_the_connects_fairly() {
    isolated(|| {
        let service = Service::start(&["--max-in-flight", "50"]);
        let query = format!("domain={SILENT}&toPort=100&timeout=300ms");
        let began = Instant::now();
        let mut clients = [&query, &query].map(|query| service.begin_scan(query, ""));
        let port = service.address.port();
        service.scan(&format!("domain=127.0.0.1&ports={port}")).check_open(&[port]);
        let scans = clients.each_mut().map(|client| Scan::of(client.receive("GET")));
        for scan in &scans {
            scan.check_open(&[]).check_counts([0, 0, 100, 0, 0]);
        }
        // There are 200 ports, 50 of them at a time, with 300 ms each.
        assert!((Duration::from_millis(1200)..EVENT_TIMEOUT).contains(&began.elapsed()));
        let [first, second] = scans.map(|scan| scan.elapsed_ms());
        assert!(first.abs_diff(second) < 700, "{first} and {second} ms are not fair shares");
    });
}

#[test]
fn the_limits_of_scans_per_client_and_of_all_scans_hold() {
    isolated(|| {
        let service = Service::start(&["--max-scans", "2", "--max-scans-per-client", "1"]);
        let query = format!("domain={SILENT}&toPort=10&timeout=60s");
        let running = service.begin_scan(&query, "");
        until("one scan runs", || (service.metric("openports_scans_running") == 1).then_some(()));
        let refused = service.get(&format!("/open-ports?{query}"));
        refused.check_problem(429, "TOO_MANY_SCANS");
        refused.check("Retry-After", refused.field("Retry-After"), Some("1"));
        service.get("/readyz").check_status(200);
        drop(running);
        until("no scan runs", || (service.metric("openports_scans_running") == 0).then_some(()));

        let service = Service::start(&["--max-scans", "1"]);
        let _running = service.begin_scan(&query, "");
        until("one scan runs", || (service.metric("openports_scans_running") == 1).then_some(()));
        let refused = service.get(&format!("/open-ports?{query}"));
        refused.check_problem(503, "OVERLOADED");
        refused.check("Retry-After", refused.field("Retry-After"), Some("1"));
        service.get("/readyz").check_problem(503, "OVERLOADED");
        service.get("/healthz").check_status(200);
    });
}

#[test]
fn the_policy_applies_to_addresses_in_every_notation() {
    let folder = Folder::new("policy");
    let hosts = folder.write("hosts", "169.254.169.254 innocent\n127.0.0.9 denied\n");
    let service = Service::start(&["--hosts", &hosts, "--deny", "127.0.0.9/32"]);
    for target in [
        "169.254.169.254",
        "::ffff:169.254.169.254",
        "[::ffff:169.254.169.254]",
        "64:ff9b::a9fe:a9fe",
        "2002:a9fe:a9fe::",
        "innocent",
        "0.0.0.0",
        "224.0.0.1",
        "255.255.255.255",
        "::",
        "127.0.0.9",
        "denied",
    ] {
        let answer = service.get(&format!("/open-ports?domain={target}&toPort=1"));
        answer.check_problem(403, "TARGET_DENIED");
    }
    assert_eq!(service.metric("openports_connects_total"), 0);
}

#[test]
fn a_service_that_others_can_reach_does_not_scan_its_own_machine() {
    let address: IpAddr = "127.0.0.1".parse().unwrap();
    for (args, status) in [
        (&["--listen", "127.0.0.1:0", "--listen", "0.0.0.0:0"][..], 403),
        (&["--listen", "127.0.0.1:0", "--listen", "0.0.0.0:0", "--allow", "127.0.0.0/8"], 200),
        (&["--listen", "127.0.0.1:0"], 200),
    ] {
        let service = Service::start_exactly(args);
        let answer = service.get(&format!("/open-ports?domain={address}&toPort=1"));
        answer.check_status(status);
    }
}
