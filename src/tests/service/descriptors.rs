//! Tests with a low limit of descriptors: scans become slower but stay correct, and the service
//! keeps accepting.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::client::Scan;
use crate::network::{SILENT, isolated, kernel_listeners, listeners};
use crate::process::{Service, run};

/// Checks that a scan of all ports finds the same ports under every limit.
fn check_whole_range(limit: usize) {
    let (_listeners, _) = listeners(10);
    let service = Service::start_limited(limit, &[]);
    let expected = kernel_listeners();
    assert_eq!(expected.len(), 11);
    let mut scanning = service.begin_scan("domain=127.0.0.1&toPort=65535", "");
    let (mut checks, mut slowest) = (0, Duration::ZERO);
    while service.scans_ended("complete") == 0 {
        let began = Instant::now();
        service.get("/healthz").check_status(200);
        slowest = slowest.max(began.elapsed());
        checks += 1;
    }
    let scan = Scan::of(scanning.receive("GET"));
    scan.check_open(&expected).check_counts([11, 65_524, 0, 0, 0]);
    assert!(checks >= 3, "only {checks} health checks were answered during the scan");
    assert!(slowest < Duration::from_secs(2), "a health check took {slowest:?}");
}

#[test]
fn a_scan_of_all_ports_is_correct_with_32_descriptors() {
    isolated(|| check_whole_range(32));
}

#[test]
fn a_scan_of_all_ports_is_correct_with_40_descriptors() {
    isolated(|| check_whole_range(40));
}

#[test]
fn a_scan_of_all_ports_is_correct_with_64_descriptors() {
    isolated(|| check_whole_range(64));
}

#[test]
fn a_scan_of_all_ports_is_correct_with_128_descriptors() {
    isolated(|| check_whole_range(128));
}

#[test]
fn silent_ports_wait_until_descriptors_are_free() {
    isolated(|| {
        let service = Service::start_limited(64, &[]);
        let scan = service.scan(&format!("domain={SILENT}&toPort=200&timeout=100ms"));
        scan.check_open(&[]).check_counts([0, 0, 200, 0, 0]);
        assert!(scan.elapsed_ms() >= 300, "more than 64 connects were in flight: {scan:?}");
    });
}

#[test]
fn many_scans_at_64_descriptors_are_all_answered() {
    isolated(|| {
        let service = Service::start_limited(64, &[]);
        let expected = kernel_listeners();
        let query = "domain=127.0.0.1&fromPort=30000&toPort=61000";
        let mut clients: Vec<_> = (0..6).map(|_| service.begin_scan(query, "")).collect();
        for client in &mut clients {
            Scan::of(client.receive("GET"))
                .check_open(&expected)
                .check_counts([1, 31_000, 0, 0, 0]);
        }
    });
}

#[test]
fn idle_connections_are_evicted_for_new_requests() {
    let service = Service::start_limited(64, &[]);
    let idle: Vec<TcpStream> =
        (0..200).map(|_| TcpStream::connect(service.address).unwrap()).collect();
    let began = Instant::now();
    service.get("/healthz").check_status(200);
    assert!(began.elapsed() < Duration::from_secs(5), "took {:?}", began.elapsed());
    assert!(service.metric("openports_connections_closed_total{reason=\"evicted\"}") > 0);
    drop(idle);
    service.get("/healthz").check_status(200);
}

#[test]
fn a_limit_that_is_too_low_is_reported_in_one_line() {
    for limit in [6, 8, 10] {
        let ended = run(Some(limit), &["--listen", "127.0.0.1:0"]);
        let actual = (ended.code, ended.stderr.lines().count(), &*ended.stdout);
        assert_eq!(actual, (Some(71), 1, ""), "{}: {}", ended.command, ended.stderr);
    }
    let ended = run(Some(10), &["--listen", "127.0.0.1:0"]);
    assert!(
        ended.stderr.contains("the limit of 10 open descriptors is too low"),
        "{}",
        ended.stderr
    );
}
