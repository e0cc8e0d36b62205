//! Parses the answers to a SYN: a SYN-ACK, or a RST that acknowledges the SYN.
//!
//! RFC 9293 section 3.10.7.3 says which segments are acceptable in the state SYN-SENT: a RST is
//! processed before a SYN, and a FIN is ignored, so that the state of a port is the same as with
//! connect(2). A segment without an acknowledgement is rejected, because any host could have sent
//! it. Options and data are ignored.

use std::net::{IpAddr, SocketAddr};

use super::checksum::{self, ChecksumVerdict};
use super::header::{self, PacketExtent};
use super::sequence::Numbers;
use super::{FourTuple, Reject, be16, be32};

/// The kind of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A segment with SYN and ACK, without RST: the port is open.
    SynAck,
    /// A segment with RST and ACK: the port is closed.
    Reset,
}

/// A segment that may be an answer to a SYN. [`Segment::check`] decides whether it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// The four-tuple of the SYN: `local` is the destination of this segment.
    pub tuple: FourTuple,
    /// The kind of the answer, from the flags.
    pub answer: Answer,
    /// The acknowledgement number: the sequence number that the sender expects next.
    pub acknowledged: u32,
}

const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;
/// The length of a TCP header without options, in bytes.
const HEADER_BYTES: usize = 20;

impl Segment {
    /// Checks that the segment acknowledges a SYN with these numbers.
    ///
    /// # Errors
    /// [`Reject::Acknowledgement`] if the segment is forged, or answers another segment.
    pub fn check(&self, numbers: Numbers) -> Result<(), Reject> {
        match self.acknowledged == numbers.sequence.wrapping_add(1) {
            true => Ok(()),
            false => Err(Reject::Acknowledgement),
        }
    }
}

/// Parses an IPv4 packet with its header, as a raw socket delivers it (raw(7)).
///
/// # Errors
/// The reason why the packet is not an answer.
pub fn parse_ipv4(packet: &[u8]) -> Result<Segment, Reject> {
    let packet = header::ipv4(packet, PacketExtent::Whole)?;
    parse_segment(packet.destination.into(), packet.source.into(), packet.segment)
}

/// Parses a TCP segment that was sent from `remote` to `local`. A raw socket of IPv6 delivers
/// segments without the IP header (RFC 3542 section 3).
///
/// # Errors
/// The reason why the segment is not an answer.
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
    let answer = match flags & (SYN | RST | ACK) {
        SYN_ACK => Answer::SynAck,
        RESET | RESET_WITH_SYN => Answer::Reset,
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
const RESET_WITH_SYN: u8 = RST | SYN | ACK;

#[cfg(test)]
mod tests {
    use super::*;

    const LOCAL: [u8; 4] = [192, 0, 2, 1];
    const REMOTE: [u8; 4] = [198, 51, 100, 7];

    /// A SYN-ACK from port 443 to port 40000 with the acknowledgement number 0x01020305, to which
    /// `change` is applied before the checksum is set.
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
    fn a_rst_precedes_a_syn_and_other_flags_than_these_are_ignored() {
        for flags in 0..=u8::MAX {
            let answer = parse(|bytes| bytes[13] = flags).map(|segment| segment.answer);
            let has = |flag: u8| flags & flag != 0;
            let expected = match (has(ACK), has(RST), has(SYN)) {
                (true, true, _) => Ok(Answer::Reset),
                (true, false, true) => Ok(Answer::SynAck),
                (true, false, false) | (false, ..) => Err(Reject::Flags),
            };
            assert_eq!(answer, expected, "{flags:#010b}");
        }
    }

    #[test]
    fn only_a_segment_that_acknowledges_the_sequence_number_answers_a_syn() {
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
        assert_eq!(wrapped.check(numbers), Ok(()), "the acknowledgement number wraps");
    }

    #[test]
    fn an_invalid_segment_is_rejected_with_its_fault() {
        let check = |expected: Reject, change: &dyn Fn(&mut Vec<u8>)| {
            assert_eq!(parse(change), Err(expected));
        };
        check(Reject::HeaderLength, &|bytes| bytes[12] = 0x40);
        check(Reject::Truncated, &|bytes| bytes[12] = 0x60);
        check(Reject::Port, &|bytes| bytes[0..2].fill(0));
        check(Reject::Port, &|bytes| bytes[2..4].fill(0));
        let ends = [LOCAL.into(), REMOTE.into()];
        let valid = segment(ends, |_| {});
        for len in 0..valid.len() {
            let truncated = parse_segment(ends[0], ends[1], &valid[..len]);
            assert_eq!(truncated, Err(Reject::Truncated), "{len} bytes");
        }
        let other = parse_segment([192, 0, 2, 2].into(), ends[1], &valid);
        assert_eq!(other, Err(Reject::Checksum), "the checksum covers the destination address");
    }

    #[test]
    fn options_and_data_are_ignored() {
        for len in 0..=10_u8 {
            let segment = parse(|bytes| {
                bytes[12] = (5 + len) << 4;
                // The options are invalid: the first one has the length 0.
                bytes.extend(std::iter::repeat_n([5, 0, 255, 1], len.into()).flatten());
            });
            assert_eq!(segment.map(|it| it.answer), Ok(Answer::SynAck), "{len} words of options");
        }
        let with_data = parse(|bytes| bytes.extend(b"go away"));
        assert_eq!(with_data.map(|it| it.answer), Ok(Answer::SynAck), "data after the header");
    }

    #[test]
    fn a_segment_from_this_machine_may_have_a_partial_checksum() {
        let ends = [LOCAL.into(), REMOTE.into()];
        let mut bytes = segment(ends, |_| {});
        // The checksum of a segment of zeros is the complement of the sum of the pseudo header.
        let partial = !checksum::of_segment(ends, &[0; 20]);
        bytes[16..18].copy_from_slice(&partial.to_be_bytes());
        assert!(parse_segment(ends[0], ends[1], &bytes).is_ok());
        bytes[17] ^= 1;
        assert_eq!(parse_segment(ends[0], ends[1], &bytes), Err(Reject::Checksum));
    }

    #[test]
    fn a_segment_over_ipv6_is_parsed() {
        let ends: [IpAddr; 2] = ["2001:db8::1", "2001:db8::2"].map(|text| text.parse().unwrap());
        let bytes = segment(ends, |bytes| bytes[13] = RESET);
        let parsed = parse_segment(ends[0], ends[1], &bytes).unwrap();
        assert_eq!(parsed.answer, Answer::Reset);
        assert_eq!(parsed.tuple.remote, SocketAddr::new(ends[1], 443));
    }
}
