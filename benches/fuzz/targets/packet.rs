//! Fuzzes packets from the network: only a valid answer to a SYN may be accepted.
//!
//! The first byte decides how the others are used: as a packet, as a segment over IPv4 or IPv6, as
//! the quotation of an ICMP error, or as changes to a valid answer. The checksums of a changed
//! answer are corrected, so that the fuzzer does not have to compute them. The results must equal
//! those of a naive parser, and the filter of the raw socket must pass every answer.
#![no_main]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use libfuzzer_sys::fuzz_target;
use openports::packet::answer::{self, Answer, Segment};
use openports::packet::filter::{self, Instruction, Layer, PortBlock};
use openports::packet::header::{self, PacketExtent};
use openports::packet::quote::{IcmpError, Quote};
use openports::packet::sequence::SequenceKey;
use openports::packet::syn::{SYN_BYTES_MAX, Syn};
use openports::packet::{FourTuple, Reject, checksum};
use openports_fuzz::Feed;

const LOCAL: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
];
const REMOTE: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(198, 51, 100, 7)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2)),
];
const PORT: u16 = 40_000;

fuzz_target!(|bytes: &[u8]| {
    let Some((how, bytes)) = bytes.split_first() else { return };
    let family = usize::from(how >> 7);
    match how % 5 {
        0 => check_packet(bytes),
        1 => check_segment(LOCAL[family], REMOTE[family], bytes),
        2 => check_quote(family, bytes),
        3 => check_changed(family, bytes),
        _ => check_syn(family, bytes),
    }
});

fn check_packet(bytes: &[u8]) {
    let parsed = answer::parse_ipv4(bytes);
    assert_eq!(parsed.ok(), naive_packet(bytes), "{bytes:02x?}");
    if let Ok(segment) = parsed {
        check_filter(Layer::Ipv4, segment, bytes);
    }
    if let Ok(packet) = header::ipv6(bytes, PacketExtent::Whole) {
        assert!(packet.segment.len() + header::IPV6_BYTES <= bytes.len());
        assert_eq!(bytes[0] >> 4, 6);
    }
}

fn check_segment(local: IpAddr, remote: IpAddr, bytes: &[u8]) {
    let parsed = answer::parse_segment(local, remote, bytes);
    assert_eq!(parsed.ok(), naive_segment(local, remote, bytes), "{bytes:02x?}");
    if let Ok(segment) = parsed {
        check_filter(Layer::Tcp, segment, bytes);
    }
}

/// Checks a valid answer that is changed in some bytes, with correct checksums unless the first
/// byte is odd.
fn check_changed(family: usize, bytes: &[u8]) {
    let mut feed = Feed::new(bytes);
    let has_wrong_checksums = feed.byte() % 2 == 1;
    let mut segment = vec![0; 20 + usize::from(feed.byte() % 64)];
    segment[..2].copy_from_slice(&443_u16.to_be_bytes());
    segment[2..4].copy_from_slice(&PORT.to_be_bytes());
    (segment[12], segment[13]) = (0x50, 0x12);
    let mut head = vec![0x45, 0, 0, (20 + segment.len()) as u8, 0, 0, 0x40, 0, 64, 6, 0, 0];
    head.extend([198, 51, 100, 7, 192, 0, 2, 1]);
    while !feed.is_empty() {
        let (place, byte) = (usize::from(feed.byte()), feed.byte());
        match place % 2 {
            0 => segment[place / 2 % 56 % 20] = byte,
            _ => head[place / 2 % 20] = byte,
        }
    }
    if !has_wrong_checksums {
        segment[16..18].fill(0);
        let sum = checksum::of_segment([LOCAL[family], REMOTE[family]], &segment);
        segment[16..18].copy_from_slice(&sum.to_be_bytes());
        head[10..12].fill(0);
        let sum = checksum::of(&head);
        head[10..12].copy_from_slice(&sum.to_be_bytes());
    }
    check_segment(LOCAL[family], REMOTE[family], &segment);
    check_packet(&[head, segment].concat());
}

fn check_quote(family: usize, bytes: &[u8]) {
    let error = match family {
        0 => IcmpError::V4 { kind: 3, code: 1 },
        _ => IcmpError::V6 { kind: 1, code: 0 },
    };
    let Ok(quote) = Quote::parse(error, bytes) else { return };
    let FourTuple { local, remote } = quote.tuple;
    assert!(local.is_ipv4() == (family == 0) && remote.is_ipv4() == (family == 0));
    assert!(local.port() > 0 && remote.port() > 0);
    let sequence = quote.sequence.to_be_bytes();
    assert!(bytes.windows(4).any(|window| window == sequence), "not in the quotation");
}

/// Checks that a SYN of ours can be parsed, is recognised in a quotation, and is not an answer.
fn check_syn(family: usize, bytes: &[u8]) {
    let mut feed = Feed::new(bytes);
    let mut port = || u16::from_be_bytes([feed.byte(), feed.byte()]).max(1);
    let local = SocketAddr::new(LOCAL[family], port());
    let remote = SocketAddr::new(REMOTE[family], port());
    let tuple = FourTuple { local, remote };
    let numbers = SequenceKey::new([u64::from(port()), 7]).numbers(&tuple);
    let mut packet = [0; SYN_BYTES_MAX];
    let len = Syn { tuple, numbers, clock_ms: port().into() }.write(&mut packet);
    let packet = &packet[..len];
    let (error, segment) = match family {
        0 => (
            IcmpError::V4 { kind: 3, code: 13 },
            header::ipv4(packet, PacketExtent::Whole).expect("our SYN is valid").segment,
        ),
        _ => (
            IcmpError::V6 { kind: 1, code: 1 },
            header::ipv6(packet, PacketExtent::Whole).expect("our SYN is valid").segment,
        ),
    };
    let quote = Quote::parse(error, packet).expect("the quotation is complete");
    assert_eq!((quote.tuple, quote.check(numbers)), (tuple, Ok(())));
    let ends = [local.ip(), remote.ip()];
    assert_eq!(checksum::judge(ends, segment), checksum::ChecksumVerdict::Complete);
    assert_eq!(answer::parse_segment(ends[1], ends[0], segment), Err(Reject::Flags));
}

fn naive_packet(bytes: &[u8]) -> Option<Segment> {
    let head = 4 * usize::from(bytes.first()? & 15);
    let total = usize::from(*bytes.get(2)?) * 256 + usize::from(*bytes.get(3)?);
    let is_right = bytes[0] >> 4 == 4
        && head >= 20
        && total >= head
        && total <= bytes.len()
        && naive_sum(&bytes[..head]) == 0xffff
        && u16::from_be_bytes([bytes[6], bytes[7]]) & 0x3fff == 0
        && bytes[9] == 6;
    let octets = |at: usize| [bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]];
    let address = |at: usize| IpAddr::from(octets(at));
    is_right.then(|| naive_segment(address(16), address(12), &bytes[head..total]))?
}

fn naive_segment(local: IpAddr, remote: IpAddr, bytes: &[u8]) -> Option<Segment> {
    let head = 4 * usize::from(*bytes.get(12)? >> 4);
    if bytes.len() < 20 || head < 20 || head > bytes.len() {
        return None;
    }
    let answer = match bytes[13] & 0b0001_0110 {
        0b0001_0010 => Answer::SynAck,
        0b0001_0100 | 0b0001_0110 => Answer::Reset,
        _ => return None,
    };
    let mut pseudo = Vec::new();
    for address in [remote, local] {
        match address {
            IpAddr::V4(address) => pseudo.extend(address.octets()),
            IpAddr::V6(address) => pseudo.extend(address.octets()),
        }
    }
    pseudo.extend([0, 6]);
    pseudo.extend((bytes.len() as u32).to_be_bytes());
    let partial = naive_sum(&pseudo);
    pseudo.extend(bytes);
    let field = u16::from_be_bytes([bytes[16], bytes[17]]);
    if naive_sum(&pseudo) != 0xffff && field != partial {
        return None;
    }
    let ports = [0, 2].map(|at| u16::from_be_bytes([bytes[at], bytes[at + 1]]));
    if ports.contains(&0) {
        return None;
    }
    let tuple = FourTuple {
        local: SocketAddr::new(local, ports[1]),
        remote: SocketAddr::new(remote, ports[0]),
    };
    let acknowledged = u32::from_be_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]);
    Some(Segment { tuple, answer, acknowledged })
}

/// Returns the ones' complement sum, computed word by word.
fn naive_sum(bytes: &[u8]) -> u16 {
    bytes.chunks(2).fold(0, |sum: u16, word| {
        let word = u16::from_be_bytes([word[0], word.get(1).copied().unwrap_or(0)]);
        let (sum, carry) = sum.overflowing_add(word);
        sum + u16::from(carry)
    })
}

fn check_filter(layer: Layer, segment: Segment, bytes: &[u8]) {
    let block = PortBlock::around(segment.tuple.local.port());
    assert!(passes(&filter::program(layer, block), bytes), "the filter drops an answer");
    let other = PortBlock::around(segment.tuple.local.port() ^ filter::BLOCK_PORTS);
    assert!(!passes(&filter::program(layer, other), bytes), "the filter ignores the port");
}

/// Runs a classic BPF program.
fn passes(program: &[Instruction], packet: &[u8]) -> bool {
    let (mut accumulator, mut index, mut next) = (0, 0, 0);
    loop {
        let it = program[next];
        next += 1;
        let base = if it.code & 0xe0 == 0x40 { index } else { 0 };
        let at = base + it.constant as usize;
        let byte = |at: usize| packet.get(at).copied().map(u32::from);
        let value = match it.code {
            0x30 | 0x50 => byte(at),
            0x28 | 0x48 => byte(at).zip(byte(at + 1)).map(|(high, low)| high << 8 | low),
            0xb1 => byte(at).map(|byte| {
                index = 4 * (byte as usize & 15);
                accumulator
            }),
            0x54 => Some(accumulator & it.constant),
            0x15 | 0x45 => {
                let holds = match it.code {
                    0x15 => accumulator == it.constant,
                    _ => accumulator & it.constant != 0,
                };
                next += usize::from(if holds { it.jump_true } else { it.jump_false });
                Some(accumulator)
            }
            0x06 => return it.constant > 0,
            _ => panic!("unknown instruction {:#x}", it.code),
        };
        match value {
            Some(value) => accumulator = value,
            None => return false,
        }
    }
}
