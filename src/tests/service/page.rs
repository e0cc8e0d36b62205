//! The answers of `/` to browsers and to programs, and the permission of the page to request scans.

use crate::access::write_secret;
use crate::client::{Client, Scan};
use crate::network::has_ipv6;
use crate::process::{Folder, Service};

const BROWSER: &str = "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n";
const ENCODINGS: &str = "Accept-Encoding: gzip, deflate, br, zstd\r\n";

#[test]
fn a_browser_receives_the_page_and_curl_the_help() {
    let service = Service::start(&[]);
    let check = |target: &str, fields: &str, kind: &str| {
        for method in ["GET", "HEAD"] {
            let answer = service.request(method, target, fields);
            answer.check_status(200).check("the type", answer.field("Content-Type"), Some(kind));
            answer.check("Vary", answer.field("Vary"), Some("Accept"));
            answer.check("the body", answer.body.is_empty(), method == "HEAD");
        }
    };
    let (html, text) = ("text/html; charset=utf-8", "text/plain; charset=utf-8");
    check("/", BROWSER, html);
    check("/?domain=localhost&ports=1-1024&include=closed", BROWSER, html);
    check("/?nonsense=%zz&&=", BROWSER, html);
    check("/", "Accept: */*\r\n", text);
    check("/", "", text);
    check("/?domain=localhost", "Accept: text/plain\r\n", text);
    let page = service.request("GET", "/", BROWSER);
    assert!(page.body.to_ascii_lowercase().starts_with("<!doctype html>"), "{}", page.context);
    for (name, value) in [
        ("Cache-Control", "no-cache"),
        ("X-Content-Type-Options", "nosniff"),
        ("Referrer-Policy", "no-referrer"),
        ("Cross-Origin-Opener-Policy", "same-origin"),
        ("Cross-Origin-Resource-Policy", "same-origin"),
    ] {
        page.check(name, page.field(name), Some(value));
    }
    let policy = page.field("Content-Security-Policy").expect("the page has a policy");
    for part in ["default-src 'none'; ", "script-src 'sha256-", "frame-ancestors 'none'"] {
        assert!(policy.contains(part) && !policy.contains("unsafe"), "{policy}");
    }
}

#[test]
fn a_page_in_the_cache_of_the_client_is_not_sent_again() {
    let service = Service::start(&[]);
    let mut client = Client::connect(&service);
    let mut tags = Vec::new();
    for encoding in ["", ENCODINGS, "Accept-Encoding: gzip;q=0\r\n"] {
        let fields = format!("{BROWSER}{encoding}");
        client.send_request("GET", "/", &fields);
        let page = client.receive("GET");
        page.check_status(200).check("the coding", page.field("Content-Encoding"), None);
        let tag = page.field("ETag").expect("the page has an entity tag").to_owned();
        for method in ["GET", "HEAD"] {
            client.send_request(method, "/", &format!("{fields}If-None-Match: W/{tag}\r\n"));
            let known = client.receive(method);
            known.check_status(304).check("the tag", known.field("ETag"), Some(&*tag));
            known.check("the length", known.field("Content-Length"), None);
        }
        tags.push(tag);
    }
    assert!(tags[0] == tags[1] && tags[0] == tags[2], "{tags:?}");
    // The connection can be used again after an answer without a body.
    client.send_request("GET", "/healthz", "");
    let after = client.receive("GET");
    after.check_status(200).check("the body", &*after.body, "ok");
}

/// Browsers treat the page as same-origin under every name of the host from which it was loaded.
#[test]
fn the_page_may_request_scans_under_every_name_of_the_service() {
    let check = |service: &Service, name: &str| {
        let port = service.address.port();
        let host = format!("{name}:{port}");
        let request = |fields: &str| {
            let mut client = Client::connect(service);
            client.send(format!(
                "GET /open-ports?domain=127.0.0.1&ports={port} HTTP/1.1\r\nHost: {host}\r\n\
                 Accept: application/x-ndjson\r\n{fields}\r\n"
            ));
            client.receive("GET")
        };
        let same =
            "Sec-Fetch-Site: same-origin\r\nSec-Fetch-Mode: cors\r\nSec-Fetch-Dest: empty\r\n";
        request(same).check_status(200);
        request(&format!("{same}Origin: http://{host}\r\n")).check_status(200);
        request(&format!("Origin: http://{host}1\r\n")).check_problem(403, "TARGET_DENIED");
        request("Sec-Fetch-Site: cross-site\r\n").check_problem(403, "TARGET_DENIED");
    };
    let service = Service::start(&[]);
    check(&service, "127.0.0.1");
    check(&service, "localhost");
    if has_ipv6() {
        check(&Service::start_exactly(&["--listen", "[::1]:0"]), "[::1]");
    }
}

#[test]
fn the_page_needs_no_token_but_its_scans_do() {
    let folder = Folder::new("page-token");
    let file = write_secret(&folder, "secret");
    let service = Service::start(&["--token-file", &file]);
    service.request("GET", "/", BROWSER).check_status(200);
    let target = format!("/open-ports?domain=127.0.0.1&ports={}", service.address.port());
    let same = "Sec-Fetch-Site: same-origin\r\n";
    service.request("GET", &target, same).check_problem(401, "UNAUTHORIZED");
    Scan::of(service.request("GET", &target, &format!("{same}Authorization: Bearer secret\r\n")));
}
