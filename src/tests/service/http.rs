//! HTTP/1.x from clients that follow the rules and from clients that do not.

use std::time::{Duration, Instant, SystemTime};

use crate::client::{Client, Scan};
use crate::process::{Service, until};

#[test]
fn a_connection_stays_open_until_connection_close() {
    let service = Service::start(&[]);
    let mut client = Client::connect(&service);
    for _ in 0..50 {
        client.send_request("GET", "/healthz", "");
        let answer = client.receive("GET");
        answer.check_status(200).check("Connection", answer.field("Connection"), None);
    }
    client.send_request("GET", "/healthz", "Connection: close\r\n");
    let answer = client.receive("GET");
    answer.check_status(200).check("Connection", answer.field("Connection"), Some("close"));
    client.check_closed();
    assert_eq!(service.metric("openports_connections_accepted_total"), 2);
}

#[test]
fn an_answer_after_an_idle_time_has_the_date_of_its_request() {
    let service = Service::start(&[]);
    let mut client = Client::connect(&service);
    client.send_request("GET", "/healthz", "");
    client.receive("GET").check_status(200);
    std::thread::sleep(Duration::from_millis(2100));
    let seconds = |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let sent = seconds(SystemTime::now());
    client.send_request("GET", "/healthz", "");
    let answer = client.receive("GET");
    let date = answer.field("Date").expect("a service with a clock sends Date");
    let date = seconds(httpdate::parse_http_date(date).expect("a date of RFC 9110"));
    assert!(date >= sent, "Date is {} s before the request", sent - date);
}

#[test]
fn pipelined_requests_are_answered_in_their_order() {
    let service = Service::start(&[]);
    let mut client = Client::connect(&service);
    let port = service.address.port();
    let targets = [
        "/healthz",
        "/nowhere",
        "/readyz",
        &format!("/open-ports?domain=127.0.0.1&ports={port}"),
        "/healthz",
    ];
    let request = |target: &&str| format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    client.send(targets.iter().map(request).collect::<String>());
    client.receive("GET").check_status(200);
    client.receive("GET").check_problem(404, "NOT_FOUND");
    client.receive("GET").check_status(200);
    Scan::of(client.receive("GET")).check_open(&[port]);
    client.receive("GET").check_status(200);
}

#[test]
fn more_requests_may_be_pipelined_than_the_service_buffers() {
    let service = Service::start(&[]);
    let mut client = Client::connect(&service);
    let request = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
    client.send(request.repeat(2000));
    for _ in 0..2000 {
        client.receive("GET").check_status(200);
    }
}

#[test]
fn a_request_may_come_byte_by_byte() {
    let service = Service::start(&[]);
    let mut client = Client::connect(&service);
    for byte in b"\r\nGET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n" {
        client.send([*byte]);
    }
    client.receive("GET").check_status(200);
}

#[test]
fn http_1_0_closes_without_keep_alive_and_is_never_chunked() {
    let service = Service::start(&[]);
    let mut client = Client::connect(&service);
    client.send("GET /healthz HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    let answer = client.receive("GET");
    answer.check_status(200).check("Connection", answer.field("Connection"), Some("keep-alive"));
    client.send("GET /healthz HTTP/1.0\r\n\r\n");
    client.receive("GET").check_status(200);
    client.check_closed();

    let mut client = Client::connect(&service);
    let target = "/open-ports?domain=127.0.0.1&toPort=1";
    client.send(format!("GET {target} HTTP/1.0\r\nAccept: application/x-ndjson\r\n\r\n"));
    let answer = client.receive("GET");
    answer.check_status(200).check("framing", answer.field("Transfer-Encoding"), None);
    assert!(answer.body.lines().last().is_some_and(|line| line.contains("\"event\":\"end\"")));
}

#[test]
fn a_request_body_is_read_and_discarded() {
    let service = Service::start(&[]);
    let mut client = Client::connect(&service);
    client.send_request("GET", "/healthz", "Content-Length: 5\r\n");
    client.send("GET /");
    client.receive("GET").check_status(200);
    client.send_request("GET", "/healthz", "Transfer-Encoding: chunked\r\n");
    client.send("3\r\nabc\r\nA;x=y\r\n0123456789\r\n0\r\nTrailer: t\r\n\r\n");
    client.receive("GET").check_status(200);
    client.send_request("GET", "/healthz", "Content-Length: 65536\r\n");
    client.send("x".repeat(65_536));
    client.receive("GET").check_status(200);
}

#[test]
fn a_client_that_expects_100_continue_receives_it() {
    let service = Service::start(&[]);
    let mut client = Client::connect(&service);
    client.send_request("GET", "/healthz", "Content-Length: 5\r\nExpect: 100-continue\r\n");
    client.receive("GET").check_status(100);
    client.send("hello");
    client.receive("GET").check_status(200);
    client.send_request("GET", "/healthz", "Content-Length: 5\r\nExpect: a miracle\r\n");
    client.receive("GET").check_problem(417, "EXPECTATION_FAILED");
}

#[test]
fn a_request_before_a_half_close_is_answered() {
    let service = Service::start(&[]);
    for target in ["/healthz", "/metrics", "/"] {
        let mut client = Client::connect(&service);
        client.send_request("GET", target, "");
        client.finish();
        client.receive("GET").check_status(200);
        client.check_closed();
    }
    // The same holds for several pipelined requests.
    let mut client = Client::connect(&service);
    client.send_request("GET", "/healthz", "");
    client.send_request("GET", "/healthz", "");
    client.finish();
    client.receive("GET").check_status(200);
    client.receive("GET").check_status(200);
    client.check_closed();
}

#[test]
fn unknown_methods_and_paths_are_refused() {
    let service = Service::start(&[]);
    for target in ["/nowhere", "/open-ports/", "/Open-Ports", "//", "/healthz/x"] {
        service.get(target).check_problem(404, "NOT_FOUND");
    }
    for method in ["POST", "PUT", "DELETE", "PATCH", "TRACE", "get", "BREW"] {
        let answer = service.request(method, "/open-ports?domain=127.0.0.1&toPort=1", "");
        answer.check_problem(405, "METHOD_NOT_ALLOWED");
        answer.check("Allow", answer.field("Allow"), Some("GET, HEAD, OPTIONS"));
    }
    for target in ["/open-ports", "/healthz", "/", "*"] {
        let answer = service.request("OPTIONS", target, "");
        answer.check_status(200).check("Allow", answer.field("Allow"), Some("GET, HEAD, OPTIONS"));
        answer.check("the body", &*answer.body, "");
    }
}

/// Sends bytes that are not a valid request, and expects one answer and the end of the connection.
fn check_refused(service: &Service, bytes: &[u8], expected: (u16, &str)) {
    let mut client = Client::connect(service);
    client.send(bytes);
    let answer = client.receive("GET");
    answer.check_problem(expected.0, expected.1);
    answer.check("Connection", answer.field("Connection"), Some("close"));
    client.finish();
    client.check_closed();
}

#[test]
fn bad_framing_is_refused_and_closes_the_connection() {
    let service = Service::start(&[]);
    let bad = (400, "INVALID_REQUEST");
    let check = |bytes: &str, expected| check_refused(&service, bytes.as_bytes(), expected);
    check("GET / HTTP/1.1\r\n\r\n", bad);
    check("GET / HTTP/1.1\nHost: localhost\n\n", bad);
    check("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", bad);
    check("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", bad);
    check("GET  / HTTP/1.1\r\nHost: a\r\n\r\n", bad);
    check("GET /\r\n\r\n", bad);
    check("GET / HTTP/1.1\r\nHost : a\r\n\r\n", bad);
    check("GET / HTTP/1.1\r\nHost: a\r\n folded: b\r\n\r\n", bad);
    check("GET /#x HTTP/1.1\r\nHost: a\r\n\r\n", bad);
    check("GET * HTTP/1.1\r\nHost: a\r\n\r\n", bad);
    check("GET /\u{e9} HTTP/1.1\r\nHost: a\r\n\r\n", bad);
    check("CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", (405, "METHOD_NOT_ALLOWED"));
    check("GET / HTTP/2.0\r\nHost: a\r\n\r\n", bad);
    check("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", bad);
    let head = |fields: &str| format!("GET /healthz HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n");
    for fields in [
        "Content-Length: +5\r\n",
        "Content-Length: 0x5\r\n",
        "Content-Length: 5\r\nContent-Length: 5\r\n",
        "Content-Length: 5, 5\r\n",
        "Content-Length: 99999999999999999999\r\n",
        "Content_Length: 5\r\n",
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: gzip\r\n",
        "Transfer-Encoding: chunked, chunked\r\n",
        "Transfer-Encoding: xchunked\r\n",
    ] {
        check(&head(fields), bad);
    }
}

#[test]
fn malformed_and_oversized_chunks_are_refused() {
    let service = Service::start(&[]);
    let head = "GET /healthz HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n";
    for body in
        ["3\r\nabcd\r\n0\r\n\r\n", "-1\r\n", "0x3\r\nabc\r\n", "3\nabc\r\n", "\r\n", "zebra\r\n"]
    {
        check_refused(&service, format!("{head}{body}").as_bytes(), (400, "INVALID_REQUEST"));
    }
    for size in ["10001", "FFFFFF", "FFFFFFFFFFFFFFFFF"] {
        let too_big = format!("{head}{size}\r\n");
        check_refused(&service, too_big.as_bytes(), (413, "CONTENT_TOO_LARGE"));
    }
}

#[test]
fn each_kind_of_excessive_size_has_its_own_status() {
    let service = Service::start(&[]);
    let check = |bytes: String, expected| check_refused(&service, bytes.as_bytes(), expected);
    let head = |fields: &str| format!("GET /healthz HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n");
    let target = |length: usize| format!("/{}", "x".repeat(length - 1));
    service.get(&target(8192)).check_problem(404, "NOT_FOUND");
    let too_long = (414, "URI_TOO_LONG");
    check(format!("GET {} HTTP/1.1\r\nHost: localhost\r\n\r\n", target(8193)), too_long);
    check(format!("GET {}", target(9000)), too_long);
    check(head("Content-Length: 65537\r\n"), (413, "CONTENT_TOO_LARGE"));
    check(head(&"A: b\r\n".repeat(100)), (431, "HEADERS_TOO_LARGE"));
    check(head(&format!("A: {}\r\n", "x".repeat(16_384))), (431, "HEADERS_TOO_LARGE"));
    // An endless head is refused as soon as it is too long, before its timeout.
    let mut client = Client::connect(&service);
    let began = Instant::now();
    client.send("GET / HTTP/1.1\r\nHost: localhost\r\n");
    (0..2000).for_each(|number| client.send(format!("X-{number}: and so on\r\n")));
    client.receive("GET").check_problem(431, "HEADERS_TOO_LARGE");
    assert!(began.elapsed() < Duration::from_secs(5), "took {:?}", began.elapsed());
}

#[test]
fn garbage_is_answered_or_closed_and_the_service_continues() {
    let service = Service::start(&[]);
    let bad = (400, "INVALID_REQUEST");
    let tls_hello = [&[0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xfc, 0x03][..], &[7; 500]];
    check_refused(&service, &tls_hello.concat(), bad);
    check_refused(&service, &[0; 64], bad);
    check_refused(&service, b"SSH-2.0-OpenSSH_9.6\r\n", bad);
    check_refused(&service, b"\xff\xfe\xfd\xfc\r\n\r\n", bad);
    // Pseudorandom bytes from a fixed seed (xorshift).
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    for _ in 0..200 {
        let mut bytes = Vec::new();
        for _ in 0..64 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            bytes.extend_from_slice(&state.to_ne_bytes());
        }
        let mut client = Client::connect(&service);
        client.send(&bytes);
        client.finish();
        client.discard_rest();
    }
    let mut client = Client::connect(&service);
    client.finish();
    client.check_closed();
    service.get("/healthz").check_status(200);
}

/// These cases share one test, because each waits ten seconds for a timeout.
#[test]
fn slow_heads_bodies_and_readers_time_out_without_delaying_other_clients() {
    let service = Service::start(&[]);
    let began = Instant::now();
    let mut head = Client::connect(&service);
    head.send("GET /healthz HTTP/1.1\r\nHost: ");
    let mut body = Client::connect(&service);
    body.send_request("GET", "/healthz", "Content-Length: 10\r\n");
    body.send("only");
    let mut reader = Client::connect(&service);
    reader.send("GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(2000));
    service.get("/healthz").check_status(200);
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "other requests waited {:?}",
        began.elapsed()
    );
    head.receive("GET").check_problem(408, "REQUEST_TIMEOUT");
    body.receive("GET").check_problem(408, "REQUEST_TIMEOUT");
    let stalled = "openports_connections_closed_total{reason=\"stalled\"}";
    until("the connection of the reader is closed", || {
        (service.metric(stalled) == 1).then_some(())
    });
    let took = began.elapsed();
    assert!(took >= Duration::from_secs(10), "took {took:?}");
    for mut client in [head, body] {
        client.finish();
        client.check_closed();
    }
    drop(reader);
}

#[test]
fn the_error_of_a_bad_target_names_the_mistake() {
    let service = Service::start(&[]);
    for (target, words) in [
        ("/caf\u{e9}", "percent-encode"),
        ("/?domain=b\u{fc}cher.example", "percent-encode"),
        ("/a%09b", "% in the path"),
        ("/a%zz", "% in the path"),
        ("/a#b", "without #"),
    ] {
        let mut client = Client::connect(&service);
        client.send(format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        let problem = client.receive("GET").check_problem(400, "INVALID_REQUEST");
        let detail = problem["detail"].as_str().unwrap_or_default().to_lowercase();
        assert!(detail.contains(words), "{target}: {detail}");
    }
    for (path, near) in [("/openports", "/open-ports"), ("/open-ports/", "/open-ports")] {
        let problem = service.get(path).check_problem(404, "NOT_FOUND");
        let detail = problem["detail"].as_str().unwrap_or_default();
        assert!(detail.contains(&format!("did you mean {near}?")), "{path}: {detail}");
    }
}
