//! Name resolution, against a name server that belongs to the test.
//!
//! resolv.conf cannot name a port, so the server needs port 53, and each test needs its own
//! network.

use std::net::{Ipv4Addr, Ipv6Addr, TcpListener};
use std::time::{Duration, Instant};

use crate::client::Scan;
use crate::nameserver::{A, AAAA, NameServer, Query, Record, Reply};
use crate::network::{isolated, skip};
use crate::process::{Folder, Service, until};

const LOOPBACK: Ipv4Addr = Ipv4Addr::LOCALHOST;

/// A service with this resolv.conf and this hosts file.
struct Setup {
    service: Service,
    folder: Folder,
}

impl Setup {
    fn new(resolv_conf: &str, hosts: &str) -> Self {
        let folder = Folder::new("names");
        let resolv_conf = folder.write("resolv.conf", resolv_conf);
        let hosts = folder.write("hosts", hosts);
        let service = Service::start(&["--resolv-conf", &resolv_conf, "--hosts", &hosts]);
        Self { service, folder }
    }

    /// Scans the port of the service under a name.
    fn scan(&self, name: &str) -> Scan {
        let port = self.service.address.port();
        self.service.scan(&format!("domain={name}&ports={port}"))
    }

    /// Scans a name that must resolve to 127.0.0.1.
    fn check_loopback(&self, name: &str) {
        let port = self.service.address.port();
        self.scan(name).check_key("address", "127.0.0.1").check_open(&[port]);
    }

    fn check_problem(&self, name: &str, status: u16, cause: &str) -> Duration {
        let began = Instant::now();
        let answer = self.service.get(&format!("/open-ports?domain={name}&toPort=1"));
        answer.check_problem(status, cause);
        began.elapsed()
    }
}

#[test]
fn both_families_are_queried_and_the_one_with_a_route_is_used() {
    isolated(|| {
        let server = NameServer::start("127.0.0.53", |query| match (&*query.name, query.kind) {
            ("four.example", A) | ("both.example", A) => query.answer(LOOPBACK),
            ("six.example", AAAA) => query.answer(Ipv6Addr::LOCALHOST),
            ("both.example", AAAA) => query.answer("2001:db8::1".parse::<Ipv6Addr>().unwrap()),
            _ => Reply::Records(Vec::new()),
        });
        let setup = Setup::new("nameserver 127.0.0.53\n", "");
        let listener = TcpListener::bind("[::1]:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        setup.check_loopback("four.example");
        setup.check_loopback("both.example");
        setup.check_loopback("FOUR.example.");
        let scan = setup.service.scan(&format!("domain=six.example&ports={port}"));
        scan.check_key("address", "::1").check_open(&[port]).check_key("domain", "six.example");
        let neither = setup.service.get("/open-ports?domain=neither.example&toPort=1");
        let problem = neither.check_problem(422, "UNKNOWN_HOST");
        // No family was asked for.
        let expected = "The host has no address, or none of the family asked for.";
        assert_eq!(problem["detail"], expected);
        // The variant with capitals and a final dot was answered from the cache, so each name is
        // queried once per family.
        for name in ["four.example", "both.example", "six.example", "neither.example"] {
            let mut kinds: Vec<u16> =
                server.seen().iter().filter(|it| it.name == name).map(|query| query.kind).collect();
            kinds.sort_unstable();
            assert_eq!(kinds, [A, AAAA], "{name}");
        }
        let query = "domain=four.example&family=6&toPort=1";
        setup.service.get(&format!("/open-ports?{query}")).check_problem(422, "UNKNOWN_HOST");
    });
}

#[test]
fn the_search_list_and_ndots_determine_the_queried_names() {
    isolated(|| {
        let found = ["db.prod.svc.test", "web.svc.test", "a.b.c", "plain"];
        let server = NameServer::start("127.0.0.53", move |query| {
            if found.contains(&&*query.name) { query.answer(LOOPBACK) } else { Reply::Code(3) }
        });
        let setup = Setup::new(
            "nameserver 127.0.0.53\nsearch prod.svc.test svc.test\noptions ndots:2\n",
            "",
        );
        let mut checked_len = 0;
        let mut check = |name: &str, expected: &[&str]| {
            setup.check_loopback(name);
            let names = server.names();
            assert_eq!(&names[checked_len..], expected, "for {name}");
            checked_len = names.len();
        };
        check("db", &["db.prod.svc.test"]);
        check("web", &["web.prod.svc.test", "web.svc.test"]);
        check("a.b.c", &["a.b.c"]);
        check("plain.", &["plain"]);
        setup.check_problem("x.y.z", 422, "UNKNOWN_HOST");
        let names = server.names();
        assert_eq!(names[checked_len..], ["x.y.z", "x.y.z.prod.svc.test", "x.y.z.svc.test"]);
    });
}

#[test]
fn denied_addresses_of_a_name_are_skipped() {
    isolated(|| {
        let _server = NameServer::start("127.0.0.53", |query| {
            let addresses: &[[u8; 4]] = match &*query.name {
                "mixed.example" => &[[169, 254, 169, 254], [127, 0, 0, 1], [0, 0, 0, 0]],
                _ => &[[169, 254, 169, 254], [224, 0, 0, 1]],
            };
            let records = addresses.iter().map(|address| Record::address(&query.name, *address));
            Reply::Records(if query.kind == A { records.collect() } else { Vec::new() })
        });
        let setup = Setup::new("nameserver 127.0.0.53\n", "");
        setup.check_loopback("mixed.example");
        let port = setup.service.address.port();
        let all = format!("domain=mixed.example&ports={port}&addresses=all");
        let scan = setup.service.scan(&all);
        scan.check_counts([1, 0, 0, 0, 0]);
        let results = scan.json["results"].as_array().expect("`results` is a list");
        assert_eq!(results.len(), 1, "{}", scan.answer.context);
        scan.answer.check("the address", &results[0]["address"], &"127.0.0.1".into());
        let others = scan.json.get("other_addresses");
        scan.answer.check("denied addresses are left out", others, None);
        assert_eq!(
            setup.service.metric("openports_connects_total"),
            2,
            "there are no connects to the other addresses"
        );
        setup.check_problem("denied.example", 403, "TARGET_DENIED");
        assert_eq!(setup.service.metric("openports_connects_total"), 2);
    });
}

#[test]
fn each_failure_of_a_lookup_has_its_own_status() {
    isolated(|| {
        let _server = NameServer::start("127.0.0.53", |query| match &*query.name {
            "fails.example" => Reply::Code(2),
            "refused.example" => Reply::Code(5),
            "silent.example" => Reply::Silence,
            _ => Reply::Code(3),
        });
        let setup = Setup::new("nameserver 127.0.0.53\noptions timeout:1 attempts:1\n", "");
        setup.check_problem("none.example", 422, "UNKNOWN_HOST");
        setup.check_problem("fails.example", 502, "DNS_FAILURE");
        setup.check_problem("refused.example", 502, "DNS_FAILURE");
        let took = setup.check_problem("silent.example", 504, "DNS_TIMEOUT");
        assert!((1000..5000).contains(&took.as_millis()), "took {took:?}");
        let short_deadline =
            "/open-ports?domain=silent.example&toPort=1&timeout=100ms&deadline=200ms";
        let began = Instant::now();
        setup.service.get(short_deadline).check_problem(504, "DNS_TIMEOUT");
        assert!(began.elapsed() < Duration::from_millis(900), "took {:?}", began.elapsed());
        for (result, count) in [("unknown_host", 1), ("server_failure", 2), ("timed_out", 2)] {
            let name = format!("openports_lookups_total{{result=\"{result}\"}}");
            assert_eq!(setup.service.metric(&name), count, "{name}");
        }
        // No server listens on port 53 of this address.
        let setup = Setup::new("nameserver 127.0.0.99\noptions timeout:5\n", "");
        let took = setup.check_problem("any.example", 502, "DNS_FAILURE");
        assert!(
            took < Duration::from_secs(4),
            "a refused query should fail immediately, but took {took:?}"
        );
    });
}

#[test]
fn the_timeout_of_a_probe_bounds_its_lookup() {
    isolated(|| {
        let _server = NameServer::start("127.0.0.53", |_| Reply::Silence);
        let setup = Setup::new("nameserver 127.0.0.53\n", "");
        for times in ["timeout=300ms", "timeout=300ms&deadline=9s", "timeout=9s&deadline=300ms"] {
            let began = Instant::now();
            let query = format!("/probe?target=silent.example&ports=1&{times}");
            let answer = setup.service.get(&query);
            let took = began.elapsed().as_millis();
            assert!((300..2000).contains(&took), "{times}: took {took} ms");
            let failure = "probe_failure_info{reason=\"dns_timeout\"} 1";
            assert!(answer.body.contains(failure), "{times}: {}", answer.body);
        }
    });
}

#[test]
fn a_dead_name_server_is_skipped() {
    isolated(|| {
        let dead = NameServer::start("127.0.0.52", |_| Reply::Silence);
        let failing = NameServer::start("127.0.0.54", |_| Reply::Code(2));
        let server = NameServer::start("127.0.0.53", |query| query.answer(LOOPBACK));
        let conf = |first: &str| {
            format!("nameserver {first}\nnameserver 127.0.0.53\noptions timeout:1 attempts:1\n")
        };
        for (first, at_least) in [("127.0.0.52", 1000), ("127.0.0.54", 0), ("127.0.0.99", 0)] {
            let setup = Setup::new(&conf(first), "");
            let began = Instant::now();
            setup.check_loopback("name.example");
            let took = began.elapsed().as_millis();
            assert!((at_least..at_least + 3000).contains(&took), "{first}: took {took} ms");
        }
        assert_eq!((dead.names().len(), failing.names().len(), server.names().len()), (1, 1, 3));
    });
}

#[test]
fn a_truncated_reply_is_requested_again_over_tcp() {
    isolated(|| {
        let server = NameServer::start("127.0.0.53", |query| {
            if query.is_tcp { query.answer(LOOPBACK) } else { Reply::Truncated }
        });
        let setup = Setup::new("nameserver 127.0.0.53\n", "");
        setup.check_loopback("long.example");
        let queries = |is_tcp| server.seen().iter().filter(|query| query.is_tcp == is_tcp).count();
        assert_eq!((queries(false), queries(true)), (2, 2));
        let setup = Setup::new("nameserver 127.0.0.53\noptions use-vc\n", "");
        setup.check_loopback("long.example");
        assert_eq!((queries(false), queries(true)), (2, 4));
    });
}

#[test]
fn forged_replies_are_ignored_and_the_genuine_one_is_used() {
    isolated(|| {
        let _server = NameServer::start("127.0.0.53", |query| match query.kind {
            A => Reply::Forged(vec![Record::address(&query.name, LOOPBACK)]),
            _ => Reply::Forged(Vec::new()),
        });
        let setup = Setup::new("nameserver 127.0.0.53\noptions timeout:5\n", "");
        setup.check_loopback("true.example");
    });
}

#[test]
fn a_server_without_a_source_address_is_passed_over_at_once() {
    isolated(|| {
        // Every connect to an IPv6 address then fails with EADDRNOTAVAIL.
        let disabled = std::fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1");
        if disabled.is_err() {
            return skip("IPv6 cannot be turned off here");
        }
        for options in ["", "options use-vc\n"] {
            let address = if options.is_empty() { "127.0.0.53" } else { "127.0.0.54" };
            let server = NameServer::start(address, |query| query.answer(LOOPBACK));
            let servers = format!("nameserver 2001:db8::53\nnameserver {address}\n{options}");
            let setup = Setup::new(&servers, "");
            let began = Instant::now();
            setup.check_loopback("host.example");
            let took = began.elapsed();
            assert!(took < Duration::from_secs(2), "{took:?} with {options:?}");
            assert!(server.seen().iter().all(|query| query.is_tcp != options.is_empty()));
        }
    });
}

#[test]
fn aliases_are_followed_but_loops_fail() {
    isolated(|| {
        let _server = NameServer::start("127.0.0.53", |query| {
            let alias = |from, to| Record::alias(from, to);
            let mut records = match &*query.name {
                "www.example" => {
                    vec![
                        alias("www.example", "edge.example"),
                        alias("edge.example", "host.example"),
                    ]
                }
                "loop.example" => {
                    vec![
                        alias("loop.example", "back.example"),
                        alias("back.example", "loop.example"),
                    ]
                }
                "self.example" => vec![alias("self.example", "self.example")],
                _ => Vec::new(),
            };
            if query.kind == A {
                // No alias of the loop leads to this record.
                records.push(Record::address("host.example", LOOPBACK));
            }
            Reply::Records(records)
        });
        let setup = Setup::new("nameserver 127.0.0.53\noptions timeout:1 attempts:1\n", "");
        setup.check_loopback("www.example");
        setup.check_problem("loop.example", 502, "DNS_FAILURE");
        setup.check_problem("self.example", 502, "DNS_FAILURE");
    });
}

#[test]
fn names_in_the_hosts_file_and_localhost_need_no_query() {
    isolated(|| {
        let server = NameServer::start("127.0.0.53", |_| Reply::Code(3));
        let setup = Setup::new(
            "nameserver 127.0.0.53\nsearch example\n",
            "# comment\n127.0.0.1 box box.lan\n\n127.0.0.1\tother\n",
        );
        for name in ["box", "BOX.lan", "box.lan.", "other"] {
            setup.check_loopback(name);
        }
        let port = setup.service.address.port();
        for name in ["localhost", "x.localhost", "localhost."] {
            let query = format!("domain={name}&ports={port}&family=4");
            setup.service.scan(&query).check_open(&[port]);
        }
        assert_eq!(server.seen(), [] as [Query; 0]);
    });
}

#[test]
fn changed_files_are_read_again_while_the_service_runs() {
    isolated(|| {
        let before = NameServer::start("127.0.0.53", |query| query.answer(LOOPBACK));
        let after =
            NameServer::start("127.0.0.54", |query| query.answer(Ipv4Addr::new(127, 0, 0, 4)));
        let setup = Setup::new("nameserver 127.0.0.53\n", "127.0.0.1 known\n");
        setup.check_loopback("first.example");
        setup.check_loopback("known");
        assert_eq!(before.names(), ["first.example"]);
        setup.folder.write("resolv.conf", "nameserver 127.0.0.54\n");
        setup.folder.write("hosts", "127.0.0.2 known\n");
        // The change must also empty the cache, because another server may answer differently.
        until("the new server is queried", || {
            let scan = setup.scan("first.example");
            (scan.json["address"] == "127.0.0.4").then_some(())
        });
        setup.scan("known").check_key("address", "127.0.0.2");
        assert_eq!(after.names(), ["first.example"]);
    });
}

#[test]
fn equal_lookups_are_shared_and_cached() {
    isolated(|| {
        let server = NameServer::start("127.0.0.53", |query| {
            std::thread::sleep(Duration::from_millis(300));
            query.answer(LOOPBACK)
        });
        let setup = Setup::new("nameserver 127.0.0.53\n", "");
        let port = setup.service.address.port();
        let query = format!("domain=shared.example&ports={port}");
        let mut clients: Vec<_> = (0..12).map(|_| setup.service.begin_scan(&query, "")).collect();
        for client in &mut clients {
            Scan::of(client.receive("GET")).check_open(&[port]);
        }
        // Afterwards the cache knows the name.
        setup.check_loopback("shared.example");
        assert_eq!(server.seen().len(), 2, "{:?}", server.seen());
    });
}

#[test]
fn a_lookup_is_cancelled_when_its_client_disconnects() {
    isolated(|| {
        let server = NameServer::start("127.0.0.53", |_| Reply::Silence);
        let setup = Setup::new("nameserver 127.0.0.53\noptions timeout:10\n", "");
        let service = &setup.service;
        let idle = service.descriptors();
        let client = service.begin_scan("domain=never.example&toPort=1", "");
        until("the server is queried", || (server.seen().len() == 2).then_some(()));
        assert_eq!(service.metric("openports_lookups_running"), 1);
        until("the service has three more descriptors", || {
            (service.descriptors() == idle + 3).then_some(())
        });
        drop(client);
        let began = Instant::now();
        until("the service has closed the descriptors", || {
            (service.descriptors() == idle).then_some(())
        });
        assert!(began.elapsed() < Duration::from_secs(2), "took {:?}", began.elapsed());
        assert_eq!(service.metric("openports_lookups_running"), 0);
        assert_eq!(service.metric("openports_scans_running"), 0);
        let cancelled = "openports_scans_total{technique=\"connect\",result=\"cancelled\"}";
        assert_eq!(service.metric(cancelled), 1);
        assert_eq!(service.metric("openports_scan_duration_seconds_count"), 0, "it never probed");
    });
}

#[test]
fn a_name_that_is_cut_off_at_the_bound_of_the_hosts_file_is_not_known() {
    isolated(|| {
        let _server = NameServer::start("127.0.0.53", |_| Reply::Code(3));
        let first = "127.0.0.1 first.example\n";
        let cut = "127.0.0.1 cut.example";
        let comment = "#".repeat(1024 * 1024 - first.len() - cut.len() - 1);
        let hosts = format!("{first}{comment}\n{cut}.com\n127.0.0.1 last.example\n");
        let setup = Setup::new("nameserver 127.0.0.53\n", &hosts);
        setup.check_loopback("first.example");
        setup.check_problem("cut.example", 422, "UNKNOWN_HOST");
        setup.service.log_line(&["level=warn", "msg=\"a file is too long\"", "/hosts", "ignored"]);
    });
}

#[test]
fn addresses_of_a_name_that_are_not_scanned_are_listed() {
    isolated(|| {
        let hosts = "\u{feff}127.0.0.1 one.example\n127.0.0.1 two.example\n127.0.0.2 two.example\n";
        let setup = Setup::new("nameserver 127.0.0.53\n", hosts);
        let one = setup.scan("one.example").json;
        assert_eq!(one.get("other_addresses"), None, "there is no other address: {one}");
        let two = setup.scan("two.example").json;
        assert_eq!(two["address"], "127.0.0.1", "{two}");
        assert_eq!(two["other_addresses"], serde_json::json!(["127.0.0.2"]), "{two}");
        let all = setup.scan("two.example&addresses=all").json;
        assert_eq!(all.get("other_addresses"), None, "all addresses are scanned: {all}");
        let many: Vec<String> = (1..=70).map(|last| format!("127.0.1.{last}")).collect();
        let lines: Vec<String> = many.iter().map(|it| format!("{it} many.example\n")).collect();
        let setup = Setup::new("nameserver 127.0.0.53\n", &lines.concat());
        let all = setup.scan("many.example&addresses=all").json;
        assert_eq!(all["results"].as_array().map(Vec::len), Some(64), "{all}");
        assert_eq!(all["other_addresses"], serde_json::json!(many[64..]), "{all}");
        let first = setup.scan("many.example").json;
        assert_eq!(first["other_addresses"], serde_json::json!(many[1..]), "{first}");
        let target = "/open-ports?domain=many.example&ports=1&addresses=all";
        for form in ["text/plain", "text/csv"] {
            let answer = setup.service.request("GET", target, &format!("Accept: {form}\r\n"));
            answer.check_status(200);
            answer.check("complete", answer.field("Openports-Complete"), Some("true"));
            answer.check("others", answer.field("Openports-Other-Addresses"), Some("6"));
        }
    });
}

#[test]
fn a_zone_may_be_the_name_of_an_interface() {
    isolated(|| {
        let server = NameServer::start("127.0.0.53", |_| Reply::Records(Vec::new()));
        let setup = Setup::new("nameserver ::1%lo\nnameserver 127.0.0.53\n", "");
        let listener = TcpListener::bind("[::1]:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        for zone in ["lo", "1"] {
            let scan = setup.service.scan(&format!("domain=::1%25{zone}&ports={port}"));
            scan.check_key("address", "::1").check_open(&[port]);
        }
        let none = setup.service.get("/open-ports?domain=fe80::1%25none&toPort=1");
        none.check_problem(400, "INVALID_REQUEST");
        drop(server);
    });
}

#[test]
fn a_network_or_a_range_is_never_resolved_as_a_name() {
    isolated(|| {
        let server = NameServer::start("127.0.0.53", |query| query.answer(LOOPBACK));
        let setup = Setup::new("nameserver 127.0.0.53\nsearch wild.example\n", "");
        for domain in [
            "127.0.0.1-3",
            "10.0.0.0/24",
            "10.0.0.1-10.0.1.9",
            "10.0.0/8",
            "::/0",
            "10.9.0.1-10.9.0.x",
            "10.9.0.1-10.9.0.l0",
            "10.9.0.0-10.9.255.255x",
            "10.9.0.x-5",
            "10.9.x.y",
            "192.168.x",
        ] {
            setup.check_problem(domain, 400, "INVALID_REQUEST");
        }
        setup.check_loopback("a-");
        drop(server);
    });
}
