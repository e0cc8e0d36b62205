//! Parses what answers a SYN: a SYN-ACK, or a RST that acknowledges it.
//!
//! RFC 9293 section 3.10.7.3 decides what is acceptable in the state SYN-SENT: a segment without
//! an acknowledgement proves nothing of its sender. Options and data are not looked at.

use std::net::{IpAddr, SocketAddr};

use super::checksum::{self, ChecksumVerdict};
use super::header::{self, PacketExtent};
use super::sequence::Numbers;
use super::{FourTuple, Reject, be16, be32};

/// What answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// SYN and ACK: the port is open.
    SynAck,
    /// RST and ACK: the port is closed.
    Reset,
}

/// An answer to a SYN, if it acknowledges the right sequence number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Ours is `local`.
    pub tuple: FourTuple,
    /// What it says.
    pub answer: Answer,
    /// The sequence number that it expects next.
    pub acknowledged: u32,
}

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;
/// Bytes of a TCP header without options.
const HEADER_BYTES: usize = 20;

impl Segment {
    /// Checks that it acknowledges a SYN with these numbers.
    ///
    /// # Errors
    /// [`Reject::Acknowledgement`]: it is forged, or answers something else.
    pub fn check(&self, numbers: Numbers) -> Result<(), Reject> {
        match self.acknowledged == numbers.sequence.wrapping_add(1) {
            true => Ok(()),
            false => Err(Reject::Acknowledgement),
        }
    }
}

/// Parses an IPv4 packet, as a raw socket delivers it (raw(7)).
///
/// # Errors
/// It is no answer.
pub fn parse_ipv4(packet: &[u8]) -> Result<Segment, Reject> {
    let packet = header::ipv4(packet, PacketExtent::Whole)?;
    parse_segment(packet.destination.into(), packet.source.into(), packet.segment)
}

/// Parses a TCP segment that came to `local` from `remote`. A raw socket of IPv6 delivers it
/// without its headers (RFC 3542 section 3).
///
/// # Errors
/// It is no answer.
pub fn parse_segment(local: IpAddr, remote: IpAddr, segment: &[u8]) -> Result<Segment, Reject> {
    if segment.len() < HEADER_BYTES {
        return Err(Reject::Truncated);
    }
    let header_len = usize::from(segment[12] >> 4) * 4;
    if header_len < HEADER_BYTES {
        return Err(Reject::HeaderLength);
    }
    if header_len > segment.len() {
        return Err(Reject::Truncated);
    }
    let flags = segment[13];
    let answer = match flags & (FIN | SYN | RST | ACK) {
        SYN_ACK => Answer::SynAck,
        RESET => Answer::Reset,
        _ => return Err(Reject::Flags),
    };
    let (remote_port, local_port) = (be16(segment, 0)?, be16(segment, 2)?);
    if remote_port == 0 || local_port == 0 {
        return Err(Reject::Port);
    }
    if checksum::judge([local, remote], segment) == ChecksumVerdict::Wrong {
        return Err(Reject::Checksum);
    }
    let tuple = FourTuple {
        local: SocketAddr::new(local, local_port),
        remote: SocketAddr::new(remote, remote_port),
    };
    Ok(Segment { tuple, answer, acknowledged: be32(segment, 8)? })
}

const SYN_ACK: u8 = SYN | ACK;
const RESET: u8 = RST | ACK;

#[cfg(test)]
mod tests {
    use super::*;

    const LOCAL: [u8; 4] = [192, 0, 2, 1];
    const REMOTE: [u8; 4] = [198, 51, 100, 7];

    /// A segment from port 443 to 40000 that acknowledges 0x01020305, changed, with its checksum.
    fn segment(ends: [IpAddr; 2], change: impl Fn(&mut Vec<u8>)) -> Vec<u8> {
        let mut bytes = vec![1, 187, 156, 64, 9, 9, 9, 9, 1, 2, 3, 5, 0x50, SYN_ACK, 0, 1, 0, 0];
        bytes.extend([0, 0]);
        change(&mut bytes);
        let sum = checksum::of_segment(ends, &bytes);
        bytes[16..18].copy_from_slice(&sum.to_be_bytes());
        bytes
    }

    fn parse(change: impl Fn(&mut Vec<u8>)) -> Result<Segment, Reject> {
        let [local, remote] = [LOCAL.into(), REMOTE.into()];
        parse_segment(local, remote, &segment([local, remote], change))
    }

    #[test]
    fn every_combination_of_flags_is_an_answer_or_none() {
        for flags in 0..=u8::MAX {
            let answer = parse(|bytes| bytes[13] = flags).map(|segment| segment.answer);
            let has = |flag: u8| flags & flag != 0;
            let expected = match (has(ACK), has(RST), has(SYN), has(FIN)) {
                (true, true, false, false) => Ok(Answer::Reset),
                (true, false, true, false) => Ok(Answer::SynAck),
                _ => Err(Reject::Flags),
            };
            assert_eq!(answer, expected, "{flags:#010b}");
        }
    }

    #[test]
    fn only_the_right_acknowledgement_belongs_to_a_syn() {
        let segment = parse(|_| {}).unwrap();
        assert_eq!(segment.tuple.local, SocketAddr::from((LOCAL, 40_000)));
        assert_eq!(segment.tuple.remote, SocketAddr::from((REMOTE, 443)));
        let check = |sequence: u32, expected: Result<(), Reject>| {
            let numbers = Numbers { sequence, timestamp_offset: 0 };
            assert_eq!(segment.check(numbers), expected, "{sequence:#x}");
        };
        check(0x0102_0304, Ok(()));
        for sequence in [0x0102_0305, 0x0102_0303, 0, u32::MAX, 0x0909_0909] {
            check(sequence, Err(Reject::Acknowledgement));
        }
        let wrapped = parse(|bytes| bytes[8..12].fill(0)).unwrap();
        let numbers = Numbers { sequence: u32::MAX, timestamp_offset: 0 };
        assert_eq!(wrapped.check(numbers), Ok(()), "sequence numbers wrap");
    }

    #[test]
    fn broken_segments_are_rejected_by_what_is_wrong() {
        let check = |expected: Reject, change: &dyn Fn(&mut Vec<u8>)| {
            assert_eq!(parse(change), Err(expected));
        };
        check(Reject::HeaderLength, &|bytes| bytes[12] = 0x40);
        check(Reject::Truncated, &|bytes| bytes[12] = 0x60);
        check(Reject::Port, &|bytes| bytes[0..2].fill(0));
        check(Reject::Port, &|bytes| bytes[2..4].fill(0));
        let ends = [LOCAL.into(), REMOTE.into()];
        let whole = segment(ends, |_| {});
        for len in 0..whole.len() {
            let cut = parse_segment(ends[0], ends[1], &whole[..len]);
            assert_eq!(cut, Err(Reject::Truncated), "{len} bytes");
        }
        let other = parse_segment([192, 0, 2, 2].into(), ends[1], &whole);
        assert_eq!(other, Err(Reject::Checksum), "it came to another address");
    }

    #[test]
    fn options_and_data_change_nothing() {
        for len in 0..=10_u8 {
            let segment = parse(|bytes| {
                bytes[12] = (5 + len) << 4;
                // A length of 0, which no option may have.
                bytes.extend(std::iter::repeat_n([5, 0, 255, 1], len.into()).flatten());
            });
            assert_eq!(segment.map(|it| it.answer), Ok(Answer::SynAck), "{len} words of options");
        }
        let text = parse(|bytes| bytes.extend(b"go away"));
        assert_eq!(text.map(|it| it.answer), Ok(Answer::SynAck), "data behind the header");
    }

    #[test]
    fn a_segment_of_this_machine_has_half_a_checksum() {
        let ends = [LOCAL.into(), REMOTE.into()];
        let mut bytes = segment(ends, |_| {});
        // The checksum of a segment of zeros is the complement of the pseudo header's sum.
        let partial = !checksum::of_segment(ends, &[0; 20]);
        bytes[16..18].copy_from_slice(&partial.to_be_bytes());
        assert!(parse_segment(ends[0], ends[1], &bytes).is_ok());
        bytes[17] ^= 1;
        assert_eq!(parse_segment(ends[0], ends[1], &bytes), Err(Reject::Checksum));
    }

    #[test]
    fn an_answer_over_ipv6() {
        let ends: [IpAddr; 2] = ["2001:db8::1", "2001:db8::2"].map(|text| text.parse().unwrap());
        let bytes = segment(ends, |bytes| bytes[13] = RESET);
        let parsed = parse_segment(ends[0], ends[1], &bytes).unwrap();
        assert_eq!(parsed.answer, Answer::Reset);
        assert_eq!(parsed.tuple.remote, SocketAddr::new(ends[1], 443));
    }
}
