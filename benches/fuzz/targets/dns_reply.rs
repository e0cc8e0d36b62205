//! Fuzzes DNS replies: every address must be in the message, and two codecs must agree.
//!
//! The other codec is `simple-dns`. It accepts records whose data is too long, so exact agreement
//! is checked on messages that it has written itself: the records of the input with correct
//! lengths, with and without compression. On the input itself the codecs must agree if ours parses
//! it to the end.
#![no_main]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use openports::dns::wire::{self, Finding, ForeignReply, Question, RecordKind, Reply};
use openports::limits::{ADDRESSES_PER_NAME_MAX, ANSWER_RECORDS_MAX, CNAME_CHAIN_MAX, TTL_MAX};
use simple_dns::ResourceRecord;
use simple_dns::rdata::{A, AAAA, CNAME, RData, SOA};
use simple_dns::{CLASS, Name, OPCODE, Packet, PacketFlag, QCLASS, QTYPE, RCODE, TYPE};

use openports_fuzz::Feed;

const ID: u16 = 0xbeef;
const NAME: &str = "www.example.com";
/// The owner names of records: the name in the question in two spellings, and other names.
const NAMES: [&str; 6] = [NAME, "WWW.example.COM", "a.example.com", "b.test", "example.com", "."];

fuzz_target!(|bytes: &[u8]| {
    for kind in [RecordKind::A, RecordKind::Aaaa] {
        let Some(name) = wire::wire_name(NAME) else { return };
        let subject = Question { name, kind };
        check(&subject, bytes);
        check(&subject, &as_answer(&subject, bytes));
        check_encodings(&subject, &as_records(&subject, bytes));
    }
});

/// Returns a message with the right question, whose flags, three counts and records are `bytes`, so
/// that the fuzzer does not have to find the question.
fn as_answer(subject: &Question, bytes: &[u8]) -> Vec<u8> {
    let mut message = wire::query(ID, subject);
    let (head, records) = bytes.split_at(bytes.len().min(5));
    for (place, byte) in [2, 3, 7, 9, 11].into_iter().zip(head) {
        message[place] = *byte;
    }
    message[2] |= 0x80;
    message.extend_from_slice(records);
    message
}

/// Returns a reply with records that the bytes choose.
fn as_records(subject: &Question, bytes: &[u8]) -> Packet<'static> {
    let mut feed = Feed::new(bytes);
    let mut packet = Packet::new_reply(ID);
    packet.set_flags(PacketFlag::from_bits_truncate(u16::from(feed.byte()) << 3));
    let codes = [RCODE::NoError, RCODE::NoError, RCODE::NameError, RCODE::ServerFailure];
    *packet.rcode_mut() = feed.pick(&codes);
    let class = QCLASS::CLASS(CLASS::IN);
    let question = simple_dns::Question::new(named(NAME), qtype(subject.kind), class, false);
    packet.questions.push(question);
    while !feed.is_empty() {
        let owner = named(feed.pick(&NAMES));
        let ttl = feed.pick(&[0, 1, 60, 299, 300, 301, 86_400, i32::MAX as u32, 1 << 31, u32::MAX]);
        let class = feed.pick(&[CLASS::IN, CLASS::IN, CLASS::IN, CLASS::CH]);
        let (what, last) = (feed.byte(), feed.byte());
        let data = match what % 8 {
            0 | 1 => RData::A(Ipv4Addr::new(192, 0, 2, last).into()),
            2 | 3 => RData::AAAA(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last.into()).into()),
            4 | 5 => RData::CNAME(CNAME(named(NAMES[usize::from(last) % NAMES.len()]))),
            6 => RData::SOA(soa(ttl.rotate_left(last.into()))),
            _ => RData::Empty([TYPE::A, TYPE::AAAA, TYPE::CNAME, TYPE::SOA][usize::from(last) % 4]),
        };
        let is_soa = data.type_code() == TYPE::SOA;
        let record = ResourceRecord::new(owner, class, ttl, data);
        if is_soa { packet.name_servers.push(record) } else { packet.answers.push(record) }
    }
    packet
}

fn named(text: &str) -> Name<'_> {
    Name::new_unchecked(text)
}

fn soa(minimum: u32) -> SOA<'static> {
    let (mname, rname) = (named(NAME), named("b.test"));
    SOA { mname, rname, serial: 1, refresh: 1, retry: 1, expire: 1, minimum }
}

const fn qtype(kind: RecordKind) -> QTYPE {
    match kind {
        RecordKind::A => QTYPE::TYPE(TYPE::A),
        RecordKind::Aaaa => QTYPE::TYPE(TYPE::AAAA),
    }
}

fn check(subject: &Question, message: &[u8]) {
    let ours = wire::reply(ID, subject, message);
    if let Ok(packet) = Packet::parse(message) {
        let theirs = walk(subject, &packet);
        // Our codec reads the RCODE of the header only, not an extended one.
        let is_extended = packet.opt().is_some();
        assert!(is_extended || is_no_more(&ours, &theirs), "{ours:?}, {theirs:?}: {packet:?}");
        check_encodings(subject, &packet);
    }
    let Ok(reply) = ours else { return };
    assert_eq!(
        wire::reply(ID ^ 1, subject, message),
        Err(ForeignReply),
        "a reply with another id was accepted"
    );
    let Reply::Answer { finding, ttl } = reply else { return };
    match finding {
        Finding::Addresses(addresses) => {
            assert!((1..=ADDRESSES_PER_NAME_MAX).contains(&addresses.len()));
            assert!(ttl.is_some_and(|ttl| (Duration::ZERO..=TTL_MAX).contains(&ttl)));
            for (place, address) in addresses.iter().enumerate() {
                assert!(!addresses[..place].contains(address), "a duplicate address");
                assert_eq!(address.is_ipv4(), subject.kind == RecordKind::A);
                let octets = octets(*address);
                assert!(
                    message.windows(octets.len()).any(|bytes| bytes == octets),
                    "not in the message"
                );
            }
        }
        Finding::NoData | Finding::NoName => {}
    }
}

/// Returns whether both results are equal, or ours rejected more, such as a record whose data is
/// too long.
fn is_no_more(ours: &Result<Reply, ForeignReply>, theirs: &Result<Reply, ForeignReply>) -> bool {
    match (ours, theirs) {
        (Ok(Reply::Failure), _) => true,
        (Ok(Reply::Answer { finding: a, ttl: None }), Ok(Reply::Answer { finding: b, .. })) => {
            a == b
        }
        _ => ours == theirs,
    }
}

/// Checks that our codec parses the messages that the other one writes. They contain only record
/// types that a lookup uses, because the other codec writes wrong lengths for some (IPSECKEY).
fn check_encodings(subject: &Question, packet: &Packet<'_>) {
    let types = [TYPE::A, TYPE::AAAA, TYPE::CNAME, TYPE::SOA];
    let mut records = packet.answers.iter().chain(&packet.name_servers);
    let is_plain = records.all(|record| types.contains(&record.rdata.type_code()));
    if packet.opt().is_some() || !packet.additional_records.is_empty() || !is_plain {
        return;
    }
    let encodings = [packet.build_bytes_vec(), packet.build_bytes_vec_compressed()];
    for message in encodings.into_iter().flatten() {
        let ours = wire::reply(ID, subject, &message);
        assert_eq!(ours, walk(subject, packet), "{packet:?} as {}", message.escape_ascii());
    }
}

/// Returns the expected result, computed by a naive walk over all records for each name.
fn walk(subject: &Question, packet: &Packet<'_>) -> Result<Reply, ForeignReply> {
    let [question] = &packet.questions[..] else { return Err(ForeignReply) };
    let is_ours = packet.id() == ID
        && packet.has_flags(PacketFlag::RESPONSE)
        && packet.opcode() == OPCODE::StandardQuery
        && question.qname == named(NAME)
        && question.qtype == qtype(subject.kind)
        && question.qclass == QCLASS::CLASS(CLASS::IN)
        && !question.unicast_response;
    if !is_ours {
        return Err(ForeignReply);
    }
    let absent = absence_ttl(packet);
    match packet.rcode() {
        RCODE::NoError if packet.has_flags(PacketFlag::TRUNCATION) => return Ok(Reply::Truncated),
        RCODE::NoError => {}
        RCODE::NameError => return Ok(Reply::Answer { finding: Finding::NoName, ttl: absent }),
        _ => return Ok(Reply::Failure),
    }
    let records = &packet.answers[..packet.answers.len().min(ANSWER_RECORDS_MAX)];
    let (mut name, mut ttl) = (&question.qname, TTL_MAX);
    for aliases in 0..=CNAME_CHAIN_MAX {
        let own: Vec<_> = records.iter().filter(|it| it.name == *name && is_in(it)).collect();
        let is_cut = |it: &&&ResourceRecord<'_>| match it.rdata {
            RData::Empty(TYPE::CNAME) => true,
            RData::Empty(kind) => QTYPE::TYPE(kind) == qtype(subject.kind),
            _ => false,
        };
        if own.iter().any(|it| is_cut(&it)) {
            return Ok(Reply::Failure);
        }
        let found = own.iter().filter_map(|it| Some((address(subject.kind, &it.rdata)?, it.ttl)));
        let mut addresses = Vec::new();
        for (address, secs) in found {
            ttl = ttl.min(duration(secs));
            if !addresses.contains(&address) && addresses.len() < ADDRESSES_PER_NAME_MAX {
                addresses.push(address);
            }
        }
        if !addresses.is_empty() {
            let finding = Finding::Addresses(addresses);
            return Ok(Reply::Answer { finding, ttl: Some(ttl) });
        }
        let mut targets = own.iter().filter_map(|it| match &it.rdata {
            RData::CNAME(CNAME(target)) => Some((target, it.ttl)),
            _ => None,
        });
        match targets.next_back() {
            Some((target, secs)) => (name, ttl) = (target, ttl.min(duration(secs))),
            None => {
                let is_referral = !packet.has_flags(PacketFlag::AUTHORITATIVE_ANSWER)
                    && !packet.has_flags(PacketFlag::RECURSION_AVAILABLE);
                if aliases == 0 && absent.is_none() && is_referral {
                    return Ok(Reply::Failure);
                }
                return Ok(Reply::Answer { finding: Finding::NoData, ttl: absent });
            }
        }
    }
    Ok(Reply::Failure)
}

/// Returns the negative TTL, which is that of the first SOA in the authority section.
fn absence_ttl(packet: &Packet<'_>) -> Option<Duration> {
    let mut soas = packet.name_servers.iter().filter(|it| it.rdata.type_code() == TYPE::SOA);
    let first = soas.find(|it| is_in(it))?;
    let RData::SOA(soa) = &first.rdata else { return None };
    Some(duration(first.ttl).min(duration(soa.minimum)))
}

fn is_in(record: &ResourceRecord<'_>) -> bool {
    record.class == CLASS::IN && !record.cache_flush
}

fn address(kind: RecordKind, data: &RData<'_>) -> Option<IpAddr> {
    match (kind, data) {
        (RecordKind::A, RData::A(A { address })) => Some(Ipv4Addr::from(*address).into()),
        (RecordKind::Aaaa, RData::AAAA(AAAA { address })) => Some(Ipv6Addr::from(*address).into()),
        _ => None,
    }
}

/// Converts a TTL. If its highest bit is set, it is 0 (RFC 2181 section 8).
fn duration(secs: u32) -> Duration {
    Duration::from_secs(if secs >> 31 == 1 { 0 } else { secs.into() })
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}
