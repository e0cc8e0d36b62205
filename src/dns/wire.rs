//! DNS messages (RFC 1035 section 4): writes a query and parses a reply, with the codec crate
//! `domain`.
//!
//! A reply is accepted only if it belongs to this query: QR set, same id, opcode QUERY, the same
//! single question. An accepted reply becomes a [`Finding`]; a reply that belongs to the query and
//! cannot be used (SERVFAIL, a loop of aliases, an incomplete message) becomes [`Reply::Failure`].
//!
//! This module keeps no state and never panics on any input. `dns` drives it. EDNS is
//! deliberately absent: an answer that is longer than 512 bytes arrives truncated and is asked for
//! again over TCP. Every server supports TCP (RFC 7766 section 5), while some firewalls drop large
//! datagrams. DNSSEC is absent too: a stub resolver trusts its server.

use std::net::IpAddr;
use std::time::Duration;

use domain::base::iana::{Class, Opcode, Rcode, Rtype};
use domain::base::message::RecordSection;
use domain::base::name::ParsedName;
use domain::base::wire::ParseError;
use domain::base::{Message, Name, ParsedRecord, Ttl};
use domain::rdata::{A, Aaaa, Cname, Soa};

use crate::limits;

/// An absolute name in the encoding of a message: labels with their lengths, the empty label of the
/// root last. Comparison ignores case.
pub type WireName = Name<Vec<u8>>;

/// The kind of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RecordKind {
    /// An IPv4 address.
    A,
    /// An IPv6 address.
    Aaaa,
}

impl RecordKind {
    const fn rtype(self) -> Rtype {
        match self {
            Self::A => Rtype::A,
            Self::Aaaa => Rtype::AAAA,
        }
    }
}

/// The question of a query: records of one kind of one absolute name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Question {
    /// The name.
    pub name: WireName,
    /// The kind of record.
    pub kind: RecordKind,
}

/// The answer of a server to a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// The addresses of the name: at least one, at most `limits::ADDRESSES_PER_NAME_MAX`, without
    /// duplicates.
    Addresses(Vec<IpAddr>),
    /// The name exists, but has no record of this kind.
    NoData,
    /// The name does not exist.
    NoName,
}

/// A reply to the query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// The server answered the question.
    Answer {
        /// The answer.
        finding: Finding,
        /// The time for which the answer is valid: the lowest TTL on the path from the name to the
        /// addresses, or the negative TTL of RFC 2308 section 5. `None` if it must not be cached.
        ttl: Option<Duration>,
    },
    /// The TC bit is set: the answer is too long for a datagram.
    Truncated,
    /// SERVFAIL, REFUSED or any other error, a referral, or an answer that makes no sense.
    Failure,
}

/// The bytes are not a reply to the query. They are ignored, because any machine may have sent
/// them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ForeignReply;

/// `text` as an absolute name, with or without its final dot. `None` if it cannot be one (a label
/// of 0 or more than 63 bytes, more than 253 bytes in all). The text is taken literally: a
/// backslash escapes nothing.
pub fn wire_name(text: &str) -> Option<WireName> {
    let text = text.strip_suffix('.').unwrap_or(text);
    let mut octets = Vec::with_capacity(text.len() + 2);
    for label in text.split('.').filter(|_| !text.is_empty()) {
        if label.is_empty() || label.len() > 63 {
            return None;
        }
        octets.push(label.len() as u8);
        octets.extend_from_slice(label.as_bytes());
    }
    octets.push(0);
    Name::from_octets(octets).ok()
}

/// The query for `question` with recursion desired: 17 to 271 bytes, without the length that
/// precedes it over TCP.
pub fn query(id: u16, question: &Question) -> Vec<u8> {
    let name = question.name.as_slice();
    assert!(!name.is_empty() && name.len() <= 255, "a wire name holds its root label");
    let mut bytes = Vec::with_capacity(12 + name.len() + 4);
    bytes.extend_from_slice(&id.to_be_bytes());
    // Flags: only RD. Counts: one question, no answer, authority or additional record.
    bytes.extend_from_slice(&[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    bytes.extend_from_slice(name);
    bytes.extend_from_slice(&question.kind.rtype().to_int().to_be_bytes());
    bytes.extend_from_slice(&Class::IN.to_int().to_be_bytes());
    bytes
}

/// Parses `bytes`, one whole message, as the reply to [`query`]`(id, expected)`.
pub fn reply(id: u16, expected: &Question, bytes: &[u8]) -> Result<Reply, ForeignReply> {
    let message = Message::from_slice(bytes).map_err(|_| ForeignReply)?;
    let header = message.header();
    let question = message.sole_question().map_err(|_| ForeignReply)?;
    let is_ours = header.qr()
        && header.id() == id
        && header.opcode() == Opcode::QUERY
        && question.qclass() == Class::IN
        && question.qtype() == expected.kind.rtype()
        && *question.qname() == expected.name;
    if !is_ours {
        return Err(ForeignReply);
    }
    if header.rcode() == Rcode::NXDOMAIN {
        let ttl = negative_ttl(message);
        return Ok(Reply::Answer { finding: Finding::NoName, ttl });
    }
    if header.rcode() != Rcode::NOERROR {
        return Ok(Reply::Failure);
    }
    if header.tc() {
        return Ok(Reply::Truncated);
    }
    Ok(follow(message, question.into_qname(), expected.kind).unwrap_or(Reply::Failure))
}

/// The result of one scan of the answer section for one name.
enum RecordStep<'a> {
    Addresses(Vec<IpAddr>, Duration),
    Alias(ParsedName<&'a [u8]>, Duration),
    Nothing,
}

/// Follows the aliases (RFC 1034 section 3.6.2) until it finds addresses.
fn follow<'a>(
    message: &'a Message<[u8]>,
    mut name: ParsedName<&'a [u8]>,
    kind: RecordKind,
) -> Result<Reply, ParseError> {
    let mut ttl_least = limits::TTL_MAX;
    // One scan for the requested name, and one for each alias.
    for passed in 0..=limits::CNAME_CHAIN_MAX {
        match step(message.answer()?, &name, kind)? {
            RecordStep::Addresses(addresses, ttl) => {
                assert!(!addresses.is_empty(), "`step` returns at least one address");
                let ttl = Some(ttl.min(ttl_least));
                return Ok(Reply::Answer { finding: Finding::Addresses(addresses), ttl });
            }
            RecordStep::Alias(target, ttl) => {
                name = target;
                ttl_least = ttl_least.min(ttl);
            }
            RecordStep::Nothing => {
                let ttl = negative_ttl(message);
                let header = message.header();
                // Without an answer, authority and recursion, the reply is a referral to other
                // servers, which a stub resolver cannot follow (RFC 2308 section 2.2).
                if passed == 0 && ttl.is_none() && !header.aa() && !header.ra() {
                    return Ok(Reply::Failure);
                }
                return Ok(Reply::Answer { finding: Finding::NoData, ttl });
            }
        }
    }
    Ok(Reply::Failure)
}

fn step<'a>(
    answer: RecordSection<'a, [u8]>,
    name: &ParsedName<&'a [u8]>,
    kind: RecordKind,
) -> Result<RecordStep<'a>, ParseError> {
    let mut addresses = Vec::new();
    let mut ttl_least = limits::TTL_MAX;
    let mut alias = None;
    for record in answer.take(limits::ANSWER_RECORDS_MAX) {
        let record = record?;
        if record.class() != Class::IN || record.owner() != *name {
            continue;
        }
        if let Some(address) = address_of(&record, kind)? {
            if !addresses.contains(&address) && addresses.len() < limits::ADDRESSES_PER_NAME_MAX {
                addresses.push(address);
            }
            ttl_least = ttl_least.min(duration(record.ttl()));
        } else if let Some(cname) = record.to_record::<Cname<_>>()? {
            alias = Some(RecordStep::Alias(cname.into_data().into_cname(), duration(record.ttl())));
        }
    }
    if addresses.is_empty() {
        return Ok(alias.unwrap_or(RecordStep::Nothing));
    }
    Ok(RecordStep::Addresses(addresses, ttl_least))
}

fn address_of(
    record: &ParsedRecord<'_, [u8]>,
    kind: RecordKind,
) -> Result<Option<IpAddr>, ParseError> {
    Ok(match kind {
        RecordKind::A => record.to_record::<A>()?.map(|record| record.data().addr().into()),
        RecordKind::Aaaa => record.to_record::<Aaaa>()?.map(|record| record.data().addr().into()),
    })
}

/// The lower of the TTL of the SOA record and its MINIMUM (RFC 2308 section 5). Without a readable
/// SOA record the absence must not be cached.
fn negative_ttl(message: &Message<[u8]>) -> Option<Duration> {
    let soa = message.authority().ok()?.limit_to_in::<Soa<_>>().next()?.ok()?;
    Some(duration(soa.ttl()).min(duration(soa.data().minimum())))
}

/// RFC 2181 section 8: a TTL with its highest bit set is 0.
fn duration(ttl: Ttl) -> Duration {
    let secs = ttl.as_secs();
    Duration::from_secs(if secs > i32::MAX as u32 { 0 } else { u64::from(secs) })
}

/// The tests of `dns` use the replies built here as well.
#[cfg(test)]
pub mod tests {
    use super::*;
    use domain::base::MessageBuilder;
    use domain::base::Serial;
    use domain::base::iana::Rcode;
    use domain::dep::octseq::array::Array;

    /// A reply to `query` with records written as `owner ttl TYPE value`. An SOA record, whose
    /// value is MINIMUM, is written into the authority section.
    pub fn reply_to(query: &[u8], rcode: Rcode, records: &[&str]) -> Vec<u8> {
        let query = Message::from_slice(query).unwrap();
        let bytes = MessageBuilder::from_target(Array::<16384>::new()).unwrap();
        let mut answer = bytes.start_answer(query, rcode).unwrap();
        answer.header_mut().set_ra(true);
        let words = |record: &str| -> (WireName, u32, String, String) {
            let words: Vec<&str> = record.split_whitespace().collect();
            let [owner, ttl, rtype, value] = words[..] else { panic!("{record}") };
            (wire_name(owner).unwrap(), ttl.parse().unwrap(), rtype.into(), value.into())
        };
        for record in records {
            let (owner, ttl, rtype, value) = words(record);
            match rtype.as_str() {
                "A" => answer.push((owner, ttl, A::new(value.parse().unwrap()))).unwrap(),
                "AAAA" => answer.push((owner, ttl, Aaaa::new(value.parse().unwrap()))).unwrap(),
                "CNAME" => {
                    answer.push((owner, ttl, Cname::new(wire_name(&value).unwrap()))).unwrap();
                }
                _ => assert_eq!(rtype, "SOA"),
            }
        }
        let mut authority = answer.authority();
        for record in records {
            let (owner, ttl, rtype, value) = words(record);
            if rtype == "SOA" {
                let (hour, minimum) = (Ttl::HOUR, Ttl::from_secs(value.parse().unwrap()));
                let (mname, serial) = (owner.clone(), Serial(1));
                let soa = Soa::new(mname.clone(), mname, serial, hour, hour, hour, minimum);
                authority.push((owner, ttl, soa)).unwrap();
            }
        }
        authority.finish().as_ref().to_vec()
    }

    const ID: u16 = 0xbeef;

    fn question(kind: RecordKind) -> Question {
        Question { name: wire_name("www.example.com").unwrap(), kind }
    }

    fn read(kind: RecordKind, rcode: Rcode, records: &[&str]) -> Reply {
        let question = question(kind);
        let bytes = reply_to(&query(ID, &question), rcode, records);
        reply(ID, &question, &bytes).unwrap()
    }

    fn answer(finding: Finding, ttl_secs: Option<u64>) -> Reply {
        Reply::Answer { finding, ttl: ttl_secs.map(Duration::from_secs) }
    }

    fn found(addresses: &[&str], ttl_secs: u64) -> Reply {
        let addresses = addresses.iter().map(|text| text.parse().unwrap()).collect();
        answer(Finding::Addresses(addresses), Some(ttl_secs))
    }

    #[test]
    fn the_codec_reads_back_every_query() {
        for (kind, rtype) in [(RecordKind::A, Rtype::A), (RecordKind::Aaaa, Rtype::AAAA)] {
            let bytes = query(ID, &question(kind));
            let message = Message::from_slice(&bytes).unwrap();
            let (header, question) = (message.header(), message.sole_question().unwrap());
            assert_eq!((header.id(), header.qr(), header.rd()), (ID, false, true));
            assert_eq!(header.opcode(), Opcode::QUERY);
            assert_eq!(question.qname().to_string(), "www.example.com");
            assert_eq!((question.qtype(), question.qclass()), (rtype, Class::IN));
            assert_eq!(message.header_counts().arcount(), 0, "no EDNS");
            assert_eq!(bytes.len(), 12 + 17 + 4);
        }
    }

    #[test]
    fn a_name_is_taken_literally_or_refused() {
        let (label, long) = ("a".repeat(63), "a".repeat(64));
        let longest = format!("{label}.{label}.{label}.{}", "a".repeat(61));
        assert_eq!(longest.len(), 253);
        for (text, expected) in [
            ("a.b", Some(&b"\x01a\x01b\0"[..])),
            ("a.b.", Some(b"\x01a\x01b\0")),
            ("", Some(b"\0")),
            (".", Some(b"\0")),
            ("a\\.b", Some(b"\x02a\\\x01b\0")),
            ("..", None),
            ("a..b", None),
            (".a", None),
            (&long, None),
            (&format!("{longest}a"), None),
        ] {
            let name = wire_name(text);
            assert_eq!(name.as_ref().map(|name| name.as_slice()), expected, "{text}");
        }
        assert_eq!(wire_name(&longest).unwrap().len(), 255);
    }

    #[test]
    fn a_reply_is_accepted_only_if_it_belongs_to_the_query() {
        let question = question(RecordKind::A);
        let query = query(ID, &question);
        let good = reply_to(&query, Rcode::NOERROR, &["www.example.com 60 A 192.0.2.1"]);
        let changed = |place: usize, bits: u8| {
            let mut bytes = good.clone();
            bytes[place] ^= bits;
            reply(ID, &question, &bytes)
        };
        let believed = Ok(found(&["192.0.2.1"], 60));
        assert_eq!(reply(ID, &question, &good), believed);
        for place in (13..28).filter(|place| good[*place].is_ascii_alphabetic()) {
            assert_eq!(changed(place, 0x20), believed, "case is ignored");
            assert_eq!(changed(place, 0x01), Err(ForeignReply), "another name");
        }
        let foreign = [(0, 1), (1, 1), (2, 0x80), (2, 0x08), (4, 1), (5, 1), (5, 3)];
        let another_type_or_class = [(29, 1), (30, 1), (30, 29), (31, 1), (32, 2)];
        for (place, bits) in foreign.into_iter().chain(another_type_or_class) {
            assert_eq!(changed(place, bits), Err(ForeignReply), "{place} {bits}");
        }
        assert_eq!(reply(ID, &question, &query), Err(ForeignReply), "the query itself");
    }

    #[test]
    fn addresses_are_found_at_the_end_of_the_aliases_with_the_least_ttl() {
        let check = |records: &[&str], expected| {
            assert_eq!(read(RecordKind::A, Rcode::NOERROR, records), expected, "{records:?}");
        };
        let name = "www.example.com";
        let line = |rest: &str| format!("{name} {rest}");
        let (a, b) = (line("60 A 192.0.2.1"), line("30 A 192.0.2.2"));
        check(&[&a, &b, &a], found(&["192.0.2.1", "192.0.2.2"], 30));
        let alias = line("20 CNAME x.example.net");
        let target = "X.example.NET 60 A 192.0.2.3";
        check(&[&alias, target], found(&["192.0.2.3"], 20));
        check(&[target, &alias], found(&["192.0.2.3"], 20));
        check(&[&alias, target, "y.example.net 9 A 192.0.2.4"], found(&["192.0.2.3"], 20));
        check(&[&line("999999 A 192.0.2.1")], found(&["192.0.2.1"], limits::TTL_MAX.as_secs()));
        check(&[&line("4294967295 A 192.0.2.1")], found(&["192.0.2.1"], 0));
        check(&[&line("60 AAAA 2001:db8::1")], answer(Finding::NoData, None));
        check(&[&alias], answer(Finding::NoData, None));
        check(&[target], answer(Finding::NoData, None));
        let v6 = [&*alias, "x.example.net 60 AAAA 2001:db8::1"];
        assert_eq!(read(RecordKind::Aaaa, Rcode::NOERROR, &v6), found(&["2001:db8::1"], 20));
        let address = |n: u16| line(&format!("60 A 10.0.{}.{}", n >> 8, n & 0xff));
        let many: Vec<String> = (0..300).map(address).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let Reply::Answer { finding: Finding::Addresses(addresses), .. } =
            read(RecordKind::A, Rcode::NOERROR, &many)
        else {
            panic!("the reply must contain addresses");
        };
        assert_eq!(addresses.len(), limits::ADDRESSES_PER_NAME_MAX);
    }

    #[test]
    fn a_chain_of_aliases_is_followed_up_to_a_bound_that_also_ends_a_loop() {
        for (length, is_found) in [(limits::CNAME_CHAIN_MAX, true), (17, false)] {
            let name = |n| if n == 0 { "www.example.com".into() } else { format!("a{n}.test") };
            let mut records: Vec<String> =
                (0..length).map(|n| format!("{} 60 CNAME {}", name(n), name(n + 1))).collect();
            records.push(format!("{} 60 A 192.0.2.1", name(length)));
            let records: Vec<&str> = records.iter().map(String::as_str).collect();
            let expected = if is_found { found(&["192.0.2.1"], 60) } else { Reply::Failure };
            assert_eq!(read(RecordKind::A, Rcode::NOERROR, &records), expected);
        }
        let of_two = ["www.example.com 60 CNAME b.test", "b.test 60 CNAME www.example.com"];
        let of_one = ["www.example.com 60 CNAME www.example.com"];
        assert_eq!(read(RecordKind::A, Rcode::NOERROR, &of_two), Reply::Failure);
        assert_eq!(read(RecordKind::A, Rcode::NOERROR, &of_one), Reply::Failure);
    }

    #[test]
    fn an_absence_is_valid_for_the_ttl_of_the_soa_and_other_codes_are_failures() {
        let check = |rcode, records: &[&str], expected| {
            assert_eq!(read(RecordKind::A, rcode, records), expected, "{rcode} {records:?}");
        };
        check(Rcode::NXDOMAIN, &["example.com 900 SOA 60"], answer(Finding::NoName, Some(60)));
        check(Rcode::NXDOMAIN, &["example.com 30 SOA 60"], answer(Finding::NoName, Some(30)));
        check(Rcode::NXDOMAIN, &[], answer(Finding::NoName, None));
        check(Rcode::NOERROR, &["example.com 900 SOA 60"], answer(Finding::NoData, Some(60)));
        for rcode in 0..16 {
            let rcode = Rcode::masked_from_int(rcode);
            if rcode != Rcode::NOERROR && rcode != Rcode::NXDOMAIN {
                check(rcode, &["www.example.com 60 A 192.0.2.1"], Reply::Failure);
            }
        }
    }

    #[test]
    fn a_referral_is_a_failure_and_a_truncated_reply_is_distinguished_from_it() {
        let question = question(RecordKind::A);
        let mut bytes = reply_to(&query(ID, &question), Rcode::NOERROR, &[]);
        bytes[3] &= !0x80;
        assert_eq!(reply(ID, &question, &bytes), Ok(Reply::Failure), "RA is clear");
        bytes[2] |= 0x04;
        assert_eq!(reply(ID, &question, &bytes), Ok(answer(Finding::NoData, None)), "AA is set");
        bytes[2] |= 0x02;
        assert_eq!(reply(ID, &question, &bytes), Ok(Reply::Truncated));
    }

    #[test]
    fn no_input_causes_a_panic() {
        let question = question(RecordKind::A);
        let records = ["www.example.com 60 CNAME x.test", "x.test 60 A 192.0.2.1", "t 60 SOA 9"];
        let good = reply_to(&query(ID, &question), Rcode::NOERROR, &records);
        let whole = reply(ID, &question, &good);
        let question_end = 12 + 17 + 4;
        for end in 0..good.len() {
            let cut = reply(ID, &question, &good[..end]);
            assert_eq!(cut.is_ok(), end >= question_end, "cut at {end}");
        }
        let mut differing = 0;
        for place in 0..good.len() {
            for byte in 0..=255 {
                let mut bytes = good.clone();
                bytes[place] = byte;
                differing += usize::from(reply(ID, &question, &bytes) != whole);
            }
        }
        assert!(differing > 0, "no change of a byte had an effect");
        // Every byte after the question is part of a compression pointer.
        for target in 0..64 {
            let mut bytes = good[..question_end].to_vec();
            bytes[6..8].copy_from_slice(&u16::MAX.to_be_bytes());
            bytes.extend([0xc0, target].repeat(30_000));
            assert!(reply(ID, &question, &bytes).is_ok());
        }
    }
}
