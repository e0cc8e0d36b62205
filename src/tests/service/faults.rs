//! Invalid parameters: each is reported by its name, and all of them in one answer.

use serde_json::{Value, json};

use crate::process::Service;

/// Checks the invalid fields of the answer, including all their messages.
fn check(service: &Service, query: &str, expected: Value) {
    let answer = service.get(&format!("/open-ports{query}"));
    let document = answer.check_problem(400, "INVALID_REQUEST");
    answer.check("invalid_fields", &document["invalid_fields"], &expected);
}

/// Checks that exactly these fields are invalid, whatever their messages are.
fn check_names(service: &Service, query: &str, expected: &[&str]) {
    let answer = service.get(&format!("/open-ports{query}"));
    let document = answer.check_problem(400, "INVALID_REQUEST");
    let fields = document["invalid_fields"].as_object().expect(&answer.context);
    let mut names: Vec<&str> = fields.keys().map(String::as_str).collect();
    let mut expected = expected.to_vec();
    names.sort_unstable();
    expected.sort_unstable();
    answer.check("the faulty fields", names, expected);
    for messages in fields.values() {
        assert!(messages.as_array().is_some_and(|all| !all.is_empty()), "{}", answer.context);
    }
}

#[test]
fn missing_parameters_have_the_messages_of_the_original_service() {
    let service = Service::start(&[]);
    let blank = "can't be blank";
    let decimal = "invalid decimal string";
    let both = json!({"domain": [blank], "toPort": [blank, decimal]});
    for query in ["", "?", "?domain=&toPort=", "?domain&toPort"] {
        check(&service, query, both.clone());
    }
    check(&service, "?domain=localhost", json!({"toPort": [blank, decimal]}));
    check(&service, "?toPort=1", json!({"domain": [blank]}));
    check(&service, "?domain=localhost&toPort=x", json!({"toPort": [decimal]}));
}

#[test]
fn a_blank_beside_the_domain_is_named() {
    let service = Service::start(&[]);
    for domain in ["127.0.0.1+", "+localhost", "127.0.0.1%0a", "[::1]%20"] {
        let expected = json!({"domain": ["remove the blank at its beginning or end"]});
        check(&service, &format!("?domain={domain}&toPort=1"), expected);
    }
}

#[test]
fn a_character_beyond_ascii_is_named() {
    let service = Service::start(&[]);
    for (domain, expected) in [
        ("127.0.0.%D9%A1", "the character U+0661 is not ASCII; write its ASCII form"),
        ("127.0.0.1%E2%80%8B", "the character U+200B is blank or invisible; remove it"),
        ("127.0.0.1%E2%80%935", "the character U+2013 is no hyphen; write '-'"),
        ("%FF", "the text is not UTF-8"),
    ] {
        let query = format!("?domain={domain}&toPort=1");
        check(&service, &query, json!({ "domain": [expected] }));
    }
}

#[test]
fn repeated_and_unknown_parameters_are_named() {
    let service = Service::start(&[]);
    let twice = json!(["given more than once"]);
    check(&service, "?domain=a&domain=a&toPort=1", json!({ "domain": twice }));
    check(&service, "?domain=a&toPort=1&toPort=2", json!({ "toPort": twice }));
    let unknown = |nearest: &str| json!([format!("unknown parameter, did you mean {nearest}?")]);
    check(&service, "?domain=a&toPort=1&toport=2", json!({"toport": unknown("toPort")}));
    check(&service, "?domain=a&toPort=1&timeuot=2s", json!({"timeuot": unknown("timeout")}));
    check_names(&service, "?Domain=a&toPort=1", &["domain", "Domain"]);
    // Of many unknown names only the first are reported.
    let flood: String = (0..300).map(|number| format!("&x{number}=1")).collect();
    let answer = service.get(&format!("/open-ports?domain=a&toPort=1{flood}"));
    let document = answer.check_problem(400, "INVALID_REQUEST");
    answer.check(
        "the number of reported names",
        document["invalid_fields"].as_object().map(serde_json::Map::len),
        Some(32),
    );
}

#[test]
fn a_number_consists_of_decimal_digits_only() {
    let service = Service::start(&[]);
    for value in [
        "%2B1",
        "-1",
        "+1",
        "1+",
        "%201",
        "1%20",
        "1_0",
        "0x10",
        "1e3",
        "1.0",
        "%D9%A1",
        "%EF%BC%91",
        "%00",
        "1%00",
        "one",
        "NaN",
        "1;2",
        "1,2",
        "%FF",
    ] {
        check_names(&service, &format!("?domain=localhost&toPort={value}"), &["toPort"]);
        let query = format!("?domain=localhost&toPort=9&fromPort={value}&rate={value}");
        check_names(&service, &query, &["fromPort", "rate"]);
    }
    for value in ["0", "00000", "65536", "99999999999999999999999999", &"9".repeat(5000)] {
        check_names(&service, &format!("?domain=localhost&toPort={value}"), &["toPort"]);
        let query = format!("?domain=localhost&toPort=9&concurrency={value}");
        check_names(&service, &query, &["concurrency"]);
    }
}

#[test]
fn parameters_that_contradict_each_other_are_refused() {
    let service = Service::start(&[]);
    check_names(&service, "?domain=a&fromPort=2&toPort=1", &["fromPort"]);
    check_names(&service, "?domain=a&ports=1&toPort=1", &["ports"]);
    check_names(&service, "?domain=a&ports=1&fromPort=1", &["ports"]);
    check_names(&service, "?domain=a&toPort=5&exclude=1-5", &["exclude"]);
    check_names(&service, "?domain=a&toPort=5&timeout=1ms&family=5", &["timeout", "family"]);
}

#[test]
fn lists_durations_and_words_are_parsed_strictly() {
    let service = Service::start(&[]);
    let each = |name: &str, values: &[&str]| {
        for value in values {
            let rest = if name == "ports" { "" } else { "&toPort=9" };
            check_names(&service, &format!("?domain=localhost{rest}&{name}={value}"), &[name]);
        }
    };
    let lists = ["", ",", "1,", "1-2-3", "0", "65536", "5-4", "a", "1,%202", "-", "1--2", "1;2"];
    each("ports", &lists);
    each("exclude", &lists);
    each("timeout", &["", "2", "2sec", "-2s", "9ms", "61s", "2%20s", "1e3ms", "inf", "Auto"]);
    each("deadline", &["", "5", "1ms", "forever", "2s2s"]);
    each("retries", &["", "-1", "11", "many"]);
    each("concurrency", &["", "0", "65536"]);
    each("rate", &["", "0", "10000001", "1/s"]);
    each("family", &["", "5", "ipv4", "4,6"]);
    each("addresses", &["", "one", "ALL"]);
    each("include", &["", "open", "closed,", "Closed", "closed,open"]);
}

#[test]
fn a_list_of_a_hundred_thousand_ports_makes_the_target_too_long() {
    let service = Service::start(&[]);
    let items = vec!["1"; 100_000].join(",");
    let answer = service.get(&format!("/open-ports?domain=localhost&ports={items}"));
    answer.check_problem(414, "URI_TOO_LONG");
    service.get("/healthz").check_status(200);
    // A list with as many ports as a target can hold is valid.
    let items = vec!["1"; 4000].join(",");
    service.scan(&format!("domain=127.0.0.1&ports={items}")).check_counts([0, 1, 0, 0, 0]);
}

#[test]
fn malformed_names_are_refused_without_a_lookup() {
    let service = Service::start(&[]);
    let label = "x".repeat(63);
    let long = [&*label, &label, &label, &"x".repeat(62)].join(".");
    assert_eq!(long.len(), 254);
    for name in [
        &*long,
        &"x".repeat(64),
        &"x".repeat(5000),
        "a..b",
        ".a",
        "..",
        "a..",
        "-a.example",
        "a%20b",
        "a%00b",
        "a%0d%0ab",
        "b%C3%BCcher.example",
        "%FF%FE",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0x7f.0.0.1",
        "0x7f.1",
        "0177.0.0.1",
        "127.0.0.01",
        "1.2.3.4.5",
        "999.1.1.1",
        "a.1",
        "1:2",
        "[::1",
        "::1]",
        "[127.0.0.1]",
        "fe80::1%25nowhere",
        "http://example.com",
        "example.com:80",
        "example.com/x",
        "user@example.com",
    ] {
        check_names(&service, &format!("?domain={name}&toPort=1"), &["domain"]);
    }
    assert_eq!(service.scans_ended("complete"), 0);
    assert_eq!(service.metric("openports_connects_total"), 0);
}

#[test]
fn a_query_may_be_percent_encoded_in_any_way() {
    let service = Service::start(&[]);
    let port = service.address.port();
    for query in [
        format!("domain=127.0.0.1&ports={port}&"),
        format!("&&ports={port}&domain=127%2E0%2e0.1"),
        format!("%64omain=127.0.0.1&ports={port}%2C{port}"),
        format!("domain=127.0.0.1&fromPort=00{port}&toPort={port}"),
    ] {
        service.scan(&query).check_open(&[port]);
    }
}
