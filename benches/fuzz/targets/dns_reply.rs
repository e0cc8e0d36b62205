//! DNS replies: whatever the bytes, nothing is believed that they do not say.
#![no_main]

use std::net::IpAddr;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use openports::dns::wire::{self, Finding, ForeignReply, RecordKind, Reply, Subject};
use openports::limits::{ADDRESSES_PER_NAME_MAX, TTL_MAX};

const ID: u16 = 0xbeef;

fuzz_target!(|bytes: &[u8]| {
    for kind in [RecordKind::A, RecordKind::Aaaa] {
        let Some(name) = wire::wire_name("www.example.com") else { return };
        let subject = Subject { name, kind };
        check(&subject, bytes);
        check(&subject, &as_answer(&subject, bytes));
    }
});

/// `bytes` as flags, three counts and records behind the question that was asked, so that the
/// fuzzer need not find out the question by itself.
fn as_answer(subject: &Subject, bytes: &[u8]) -> Vec<u8> {
    let mut message = wire::query(ID, subject);
    let (head, records) = bytes.split_at(bytes.len().min(5));
    for (place, byte) in [2, 3, 7, 9, 11].into_iter().zip(head) {
        message[place] = *byte;
    }
    message[2] |= 0x80;
    message.extend_from_slice(records);
    message
}

fn check(subject: &Subject, message: &[u8]) {
    let Ok(reply) = wire::reply(ID, subject, message) else { return };
    assert_eq!(wire::reply(ID ^ 1, subject, message), Err(ForeignReply), "another id");
    let Reply::Told { finding, ttl } = reply else { return };
    match finding {
        Finding::Addresses(addresses) => {
            assert!((1..=ADDRESSES_PER_NAME_MAX).contains(&addresses.len()));
            assert!(ttl.is_some_and(|ttl| (Duration::ZERO..=TTL_MAX).contains(&ttl)));
            for (place, address) in addresses.iter().enumerate() {
                assert!(!addresses[..place].contains(address), "no address comes twice");
                assert_eq!(address.is_ipv4(), subject.kind == RecordKind::A);
                let octets = octets(*address);
                assert!(message.windows(octets.len()).any(|bytes| bytes == octets), "it was sent");
            }
        }
        Finding::NoData | Finding::NoName => {}
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}
