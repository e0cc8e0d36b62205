//! Fuzzes resolv.conf and the hosts file: the result must be within all bounds, and a lookup that
//! uses it must end.
#![no_main]

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use libfuzzer_sys::fuzz_target;
use openports::dns::files::{Hosts, NameFiles, ResolvConf};
use openports::dns::{LookupRequest, Output, Resolver};
use openports::host::Family;
use openports::limits;
use openports::slots::Key;

fuzz_target!(|bytes: &[u8]| {
    // The bytes are parsed as both files, because `nameserver` is not an address, and an address is
    // not a keyword.
    check_resolv_conf(bytes);
    check_hosts(bytes);
    let words = String::from_utf8_lossy(bytes);
    let name = words.split_ascii_whitespace().last().unwrap_or("www.example.com");
    for family in [Family::Any, Family::V4, Family::V6] {
        resolve(bytes, LookupRequest { name: name.to_ascii_lowercase().into(), family });
    }
});

fn check_resolv_conf(bytes: &[u8]) {
    let conf = ResolvConf::parse(bytes);
    assert!((1..=limits::NAME_SERVERS_MAX).contains(&conf.servers.len()));
    assert!(conf.suffixes.len() <= limits::SEARCH_SUFFIXES_MAX);
    for suffix in &conf.suffixes {
        assert!(!suffix.is_empty() && !suffix.ends_with('.'));
        assert!(&**suffix != "localhost" && !suffix.ends_with(".localhost"));
    }
    assert!(conf.ndots <= limits::NDOTS_MAX as usize);
    assert!((1..=limits::SERVER_TIMEOUT_SECS_MAX.into()).contains(&conf.timeout.as_secs()));
    assert!((1..=limits::SERVER_ATTEMPTS_MAX).contains(&conf.rounds));
    for name in ["a", "a.b", "a.b.", ""] {
        let candidates = conf.candidates(name);
        assert!(candidates.len() <= conf.suffixes.len() + 1);
        assert_eq!(candidates.iter().collect::<BTreeSet<_>>().len(), candidates.len());
    }
}

fn check_hosts(bytes: &[u8]) {
    let hosts = Hosts::parse(bytes);
    for word in String::from_utf8_lossy(bytes).split_ascii_whitespace() {
        let all = hosts.find(word, Family::Any);
        assert!(all.len() <= limits::ADDRESSES_PER_NAME_MAX);
        let (v4, v6) = (hosts.find(word, Family::V4), hosts.find(word, Family::V6));
        assert_eq!(all.len(), v4.len() + v6.len());
        assert!(v4.iter().all(|it| it.is_ipv4()) && v6.iter().all(|it| it.is_ipv6()));
        assert_eq!(hosts.find(&word.to_ascii_uppercase(), Family::Any), all);
    }
    let from_windows: Vec<u8> = bytes
        .iter()
        .flat_map(|byte| if *byte == b'\n' { &b"\r\n"[..] } else { std::slice::from_ref(byte) })
        .copied()
        .collect();
    assert_eq!(Hosts::parse(&from_windows), hosts, "a CR before a LF changes the result");
}

/// Runs a lookup with both files, in which every second query is refused, and no query is answered.
fn resolve(bytes: &[u8], question: LookupRequest) {
    let mut now = Instant::now();
    let ends_by = now + limits::LOOKUP_TIMEOUT;
    let mut resolver = Resolver::new(1, limits::SOCKETS_PER_LOOKUP);
    resolver.handle_lookup(now, question, Key::from_parts(0, 0));
    let mut opened = 0;
    loop {
        match resolver.poll_output(now) {
            Some(Output::Answer { result, .. }) => {
                assert!(result.is_err() || result.is_ok_and(|found| !found.is_empty()));
                assert!(now <= ends_by, "the lookup exceeds its deadline");
                return;
            }
            Some(Output::ReadNameFiles) => {
                let files = NameFiles { resolv_conf: Some(bytes), hosts: Some(bytes) };
                resolver.handle_name_files(now, files);
            }
            Some(Output::Open { attempt, .. }) => {
                opened += 1;
                resolver.handle_opened(attempt, Key::from_parts(opened, 0));
                if opened % 2 == 0 {
                    resolver.handle_broken(now, attempt);
                }
            }
            Some(Output::Attend { .. } | Output::Close { .. }) => {}
            None => {
                let Some(at) = resolver.deadline() else { panic!("no deadline") };
                assert!(at > now + Duration::ZERO, "the deadline is not in the future");
                now = at;
                resolver.handle_timeout(now);
            }
        }
    }
}
