//! The filter of a raw socket: a classic BPF program that selects the answers to our SYNs.
//!
//! A raw socket receives a copy of every TCP segment that this machine receives. The kernel runs
//! the program for each segment (SO_ATTACH_FILTER, socket(7)), and does not copy those that it
//! rejects. The instructions are those of McCanne and Jacobson (1993), with the numbers of
//! `linux/filter.h`. The program examines only ports and flags, so the segments that pass are
//! checked again.

use std::ops::RangeInclusive;

/// One instruction, with the layout of the kernel's `struct sock_filter`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Instruction {
    /// The operation.
    pub code: u16,
    /// The number of instructions to skip if the comparison is true.
    pub jump_true: u8,
    /// The number of instructions to skip if the comparison is false.
    pub jump_false: u8,
    /// The operand: a constant, or an offset in the packet.
    pub constant: u32,
}

/// The header at which the data of the program begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layer {
    /// The IP header, for a raw socket of IPv4.
    Ipv4,
    /// The TCP header, for a raw socket of IPv6.
    Tcp,
}

/// The source ports whose answers the filter lets pass: a block that begins at a multiple of its
/// length, so that the filter compares only the upper bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortBlock {
    first: u16,
}

/// The number of ports of one block, a power of two. It must be at least the number of source ports
/// that the SYN engine may reserve.
pub const BLOCK_PORTS: u16 = 128;

impl PortBlock {
    /// The block that contains a port.
    pub const fn around(port: u16) -> Self {
        Self { first: port & !(BLOCK_PORTS - 1) }
    }

    /// All ports of the block.
    pub const fn ports(self) -> RangeInclusive<u16> {
        self.first..=self.first | (BLOCK_PORTS - 1)
    }

    /// The offset of a port in the block; `None` if the port is in another block.
    pub const fn offset(self, port: u16) -> Option<u8> {
        match Self::around(port).first == self.first {
            true => Some((port - self.first) as u8),
            false => None,
        }
    }

    /// The port at an offset in the block.
    pub const fn port(self, offset: u8) -> u16 {
        assert!((offset as u16) < BLOCK_PORTS, "an offset is smaller than the block");
        self.first | offset as u16
    }
}

/// Instructions that load a byte or a half word at an offset. The indexed ones add the index
/// register to the offset.
const LOAD_BYTE: u16 = 0x30;
const LOAD_HALF: u16 = 0x28;
const LOAD_BYTE_INDEXED: u16 = 0x50;
const LOAD_HALF_INDEXED: u16 = 0x48;
/// Loads the length of the IPv4 header that begins at this offset into the index register.
const LOAD_HEADER_LENGTH: u16 = 0xb1;
const AND: u16 = 0x54;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_ANY_SET: u16 = 0x45;
const RETURN: u16 = 0x06;

/// The mask of the flag "more fragments" and of the fragment offset (RFC 791 section 3.1).
const FRAGMENT_MASK: u32 = 0x3fff;
const ACK: u32 = 0x10;
const SYN_OR_RST: u32 = 0x06;
/// The return value that lets the whole packet pass: at least as many bytes as any packet has.
const WHOLE: u32 = 0xffff;

/// The program that lets segments to a block of ports pass if they have the flag ACK, and SYN or
/// RST.
pub fn program(layer: Layer, block: PortBlock) -> Vec<Instruction> {
    let (mut code, load_half, load_byte) = match layer {
        Layer::Ipv4 => {
            let header = vec![
                statement(LOAD_HALF, 6),
                // This jumps to the last instruction: it skips eight of the nine that follow.
                jump(JUMP_ANY_SET, FRAGMENT_MASK, [8, 0]),
                statement(LOAD_HEADER_LENGTH, 0),
            ];
            (header, LOAD_HALF_INDEXED, LOAD_BYTE_INDEXED)
        }
        Layer::Tcp => (Vec::new(), LOAD_HALF, LOAD_BYTE),
    };
    code.extend([
        statement(load_half, 2),
        statement(AND, (!(BLOCK_PORTS - 1)).into()),
        jump(JUMP_EQUAL, block.first.into(), [0, 4]),
        statement(load_byte, 13),
        jump(JUMP_ANY_SET, ACK, [0, 2]),
        jump(JUMP_ANY_SET, SYN_OR_RST, [0, 1]),
        statement(RETURN, WHOLE),
        statement(RETURN, 0),
    ]);
    code
}

const fn statement(code: u16, constant: u32) -> Instruction {
    Instruction { code, jump_true: 0, jump_false: 0, constant }
}

const fn jump(code: u16, constant: u32, skip: [u8; 2]) -> Instruction {
    Instruction { code, jump_true: skip[0], jump_false: skip[1], constant }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a program as the kernel does: a load beyond the end of the packet rejects the packet.
    fn run(program: &[Instruction], packet: &[u8]) -> u32 {
        let (mut accumulator, mut index, mut next) = (0_u32, 0_usize, 0);
        loop {
            let Instruction { code, jump_true, jump_false, constant } = program[next];
            next += 1;
            let at = constant as usize;
            let load = |at: usize, len: usize| {
                let bytes = packet.get(at..at + len)?;
                Some(bytes.iter().fold(0, |value, byte| value << 8 | u32::from(*byte)))
            };
            let loaded = match code {
                LOAD_BYTE => load(at, 1),
                LOAD_HALF => load(at, 2),
                LOAD_BYTE_INDEXED => load(at + index, 1),
                LOAD_HALF_INDEXED => load(at + index, 2),
                LOAD_HEADER_LENGTH => match load(at, 1) {
                    Some(byte) => {
                        index = 4 * (byte as usize & 0xf);
                        continue;
                    }
                    None => None,
                },
                AND => Some(accumulator & constant),
                JUMP_EQUAL | JUMP_ANY_SET => {
                    let holds = match code {
                        JUMP_EQUAL => accumulator == constant,
                        _ => accumulator & constant != 0,
                    };
                    next += usize::from(if holds { jump_true } else { jump_false });
                    continue;
                }
                RETURN => return constant,
                _ => panic!("unknown instruction {code:#x}"),
            };
            match loaded {
                Some(value) => accumulator = value,
                None => return 0,
            }
        }
    }

    fn segment(port: u16, flags: u8) -> [u8; 20] {
        let mut bytes = [0; 20];
        bytes[2..4].copy_from_slice(&port.to_be_bytes());
        bytes[13] = flags;
        bytes
    }

    fn packet(header_words: u8, fragment: u16, segment: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; usize::from(header_words) * 4];
        bytes[0] = 0x40 | header_words;
        bytes[6..8].copy_from_slice(&fragment.to_be_bytes());
        bytes.extend(segment);
        bytes
    }

    #[test]
    fn only_answers_to_the_ports_of_the_block_pass() {
        let block = PortBlock::around(40_000);
        let programs = [Layer::Ipv4, Layer::Tcp].map(|layer| program(layer, block));
        let passes = |port: u16, flags: u8| {
            let segment = segment(port, flags);
            let v4 = run(&programs[0], &packet(5, 0x4000, &segment)) > 0;
            assert_eq!(v4, run(&programs[1], &segment) > 0, "the programs for IPv4 and IPv6 agree");
            v4
        };
        for port in 0..=u16::MAX {
            assert_eq!(passes(port, 0x12), block.ports().contains(&port), "port {port}");
        }
        for flags in 0..=u8::MAX {
            let expected = flags & 0x10 != 0 && flags & 0x06 != 0;
            assert_eq!(passes(40_000, flags), expected, "flags {flags:#010b}");
        }
    }

    #[test]
    fn options_are_skipped_and_fragments_and_truncated_packets_are_rejected() {
        let program = program(Layer::Ipv4, PortBlock::around(40_000));
        let answer = segment(40_000, 0x14);
        for words in 5..=15 {
            assert!(run(&program, &packet(words, 0, &answer)) > 0, "{words} words of header");
        }
        for fragment in [0x2000, 1, 0x1fff] {
            assert_eq!(run(&program, &packet(5, fragment, &answer)), 0, "{fragment:#x}");
        }
        let whole = packet(5, 0, &answer);
        for len in 0..34 {
            assert_eq!(run(&program, &whole[..len]), 0, "{len} bytes");
        }
    }

    #[test]
    fn each_port_has_an_offset_in_its_own_block_only() {
        for port in 0..=u16::MAX {
            let block = PortBlock::around(port);
            let offset = block.offset(port).unwrap();
            assert_eq!(block.port(offset), port);
            assert_eq!(block.ports().count(), usize::from(BLOCK_PORTS));
            assert_eq!(block.offset(port ^ BLOCK_PORTS), None);
        }
    }

    #[test]
    fn every_jump_stays_within_the_program() {
        for layer in [Layer::Ipv4, Layer::Tcp] {
            let program = program(layer, PortBlock::around(0));
            for (index, it) in program.iter().enumerate() {
                let farthest = usize::from(it.jump_true.max(it.jump_false));
                assert!(index + 1 + farthest < program.len() || it.code == RETURN, "{index}");
            }
        }
    }
}
