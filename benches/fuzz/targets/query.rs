//! Fuzzes queries of `/open-ports` and lists of ports, whose result must equal that of a naive
//! parser.
#![no_main]

use libfuzzer_sys::fuzz_target;
use openports::api::problem::{Problem, problem_response};
use openports::api::query;
use openports::limits::{PORT_ITEMS_MAX, Settings};
use openports::port_set::PortSet;
use openports::scan::options::Timeout;
use openports::scan::request::ScanRequest;
use openports::top_ports::{TOP_PORTS_MAX, top};

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    check_ports(text);
    let defaults = Settings::default();
    match query::parse(text, &defaults) {
        Ok(request) => check_request(text, &request, &defaults),
        Err(faults) => {
            let response = problem_response(&Problem::invalid(faults));
            let body: serde_json::Value = serde_json::from_slice(&response.body).unwrap();
            let fields = body["invalid_fields"].as_object().unwrap();
            assert!(!fields.is_empty(), "a refusal without a field");
            for (name, messages) in fields {
                assert!(name.chars().count() <= 32, "a name is too long");
                assert!(!messages.as_array().unwrap().is_empty(), "a field without a message");
            }
        }
    }
});

/// Checks that the request equals the result of a naive parser for the same parameters.
fn check_request(text: &str, request: &ScanRequest, defaults: &Settings) {
    let value = |parameter: &str| {
        let mut pairs = form_urlencoded::parse(text.as_bytes());
        pairs.find(|(name, _)| name == parameter).map(|(_, value)| value.into_owned())
    };
    assert_eq!(value("domain").as_deref(), Some(&*request.domain));
    let named = match value("ports") {
        Some(list) => naive(&list).unwrap(),
        None => {
            let from = value("fromPort").unwrap_or_else(|| "1".to_owned());
            naive(&format!("{from}-{}", value("toPort").unwrap())).unwrap()
        }
    };
    let excluded = value("exclude").map(|list| naive(&list).unwrap()).unwrap_or_default();
    let lowest = named.iter().position(|is_in| *is_in);
    let highest = named.iter().rposition(|is_in| *is_in);
    assert_eq!((lowest, highest), (Some(request.from_port.into()), Some(request.to_port.into())));
    for port in 0..=u16::MAX {
        let at = usize::from(port);
        let is_excluded = excluded.get(at).is_some_and(|is_in| *is_in);
        assert_eq!(request.ports.contains(port), named[at] && !is_excluded, "{port}");
    }
    assert!(!request.ports.is_empty());
    assert!(request.options.deadline <= defaults.scan_time_max);
    if let Timeout::Fixed(timeout) = request.options.timeout {
        assert!(!timeout.is_zero());
    }
}

fn check_ports(text: &str) {
    let (set, expected) = (PortSet::parse(text), naive(text));
    assert_eq!(set.is_ok(), expected.is_some(), "{text:?}: {set:?}");
    let (Ok(set), Some(expected)) = (set, expected) else { return };
    let ports: Vec<u16> = (1..=u16::MAX).filter(|port| expected[usize::from(*port)]).collect();
    assert!(set.iter().eq(ports.iter().copied()), "{text:?}");
    assert_eq!(set.len(), ports.len());
    assert_eq!((set.first(), set.last()), (ports.first().copied(), ports.last().copied()));
    let shown = set.display_ranges().to_string();
    assert!(PortSet::parse(&shown).is_ok_and(|again| again == set), "{text:?} as {shown:?}");
    assert!(set.ranges().flat_map(|(first, last)| first..=last).eq(ports), "{text:?}");
}

/// Returns for each number of 0 to 65,535 whether the list contains it, or `None` if the list is
/// invalid.
fn naive(text: &str) -> Option<Vec<bool>> {
    let mut named = vec![false; 65_536];
    let items: Vec<&str> = text.split(',').collect();
    if items.len() > PORT_ITEMS_MAX {
        return None;
    }
    for item in items {
        if let Some((word, count)) = item.split_at_checked(4)
            && word.eq_ignore_ascii_case("top:")
        {
            let count = naive_port(count).filter(|count| *count <= TOP_PORTS_MAX)?;
            top(count).iter().for_each(|port| named[usize::from(*port)] = true);
            continue;
        }
        let ends: Vec<&str> = item.split('-').collect();
        let (first, last) = match ends.as_slice() {
            [port] => (naive_port(port)?, naive_port(port)?),
            ["", ""] => return None,
            ["", last] => (1, naive_port(last)?),
            [first, ""] => (naive_port(first)?, 65_535),
            [first, last] => (naive_port(first)?, naive_port(last)?),
            _ => return None,
        };
        if first > last {
            return None;
        }
        named[first..=last].fill(true);
    }
    Some(named)
}

fn naive_port(text: &str) -> Option<usize> {
    let is_plain = text.len() <= 19 && text.chars().all(|c| c.is_ascii_digit());
    let port = text.parse::<usize>().ok()?;
    (is_plain && (1..=65_535).contains(&port)).then_some(port)
}
