//! The filter of a raw socket: a program of classic BPF that selects answers to our SYNs.
//!
//! A raw socket receives a copy of every TCP segment of the machine. The kernel runs the program
//! over each (SO_ATTACH_FILTER, socket(7)) and drops what it rejects before it is copied. The
//! instructions are those of McCanne and Jacobson (1993), as `linux/filter.h` numbers them. What
//! passes is checked again, since the program looks at ports and flags only.

use std::ops::RangeInclusive;

/// One instruction, laid out as the kernel's `struct sock_filter`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Instruction {
    /// What to do.
    pub code: u16,
    /// Instructions to skip if the comparison holds.
    pub jump_true: u8,
    /// Instructions to skip if it does not.
    pub jump_false: u8,
    /// A constant, or an offset.
    pub constant: u32,
}

/// Where the bytes begin that the kernel shows to the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layer {
    /// At the IP header: a raw socket of IPv4.
    Ipv4,
    /// At the TCP header: a raw socket of IPv6.
    Tcp,
}

/// Source ports that the filter lets pass: a block that begins at a multiple of its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortBlock {
    first: u16,
}

/// Ports of one block.
pub const BLOCK_PORTS: u16 = 128;

impl PortBlock {
    /// The block that holds a port.
    pub const fn around(port: u16) -> Self {
        Self { first: port & !(BLOCK_PORTS - 1) }
    }

    /// All ports of the block.
    pub const fn ports(self) -> RangeInclusive<u16> {
        self.first..=self.first | (BLOCK_PORTS - 1)
    }

    /// The place of a port in the block; `None` if it is in another.
    pub const fn place(self, port: u16) -> Option<u8> {
        match Self::around(port).first == self.first {
            true => Some((port - self.first) as u8),
            false => None,
        }
    }

    /// The port at a place.
    pub const fn port(self, place: u8) -> u16 {
        assert!((place as u16) < BLOCK_PORTS, "a place is within the block");
        self.first | place as u16
    }
}

/// Loads a byte or a half word, at a fixed offset or behind the index register.
const LOAD_BYTE: u16 = 0x30;
const LOAD_HALF: u16 = 0x28;
const LOAD_BYTE_INDEXED: u16 = 0x50;
const LOAD_HALF_INDEXED: u16 = 0x48;
/// Loads the length of the IPv4 header at this offset into the index register.
const LOAD_HEADER_LENGTH: u16 = 0xb1;
const AND: u16 = 0x54;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_ANY_SET: u16 = 0x45;
const RETURN: u16 = 0x06;

/// More fragments, and where the fragment begins.
const FRAGMENT: u32 = 0x3fff;
const ACK: u32 = 0x10;
const SYN_OR_RST: u32 = 0x06;
/// A return value of more bytes than any packet has: all of it passes.
const WHOLE: u32 = 0xffff;

/// The program that lets SYN-ACKs and RSTs with an acknowledgement to a block of ports pass.
pub fn program(layer: Layer, block: PortBlock) -> Vec<Instruction> {
    let (mut code, load_half, load_byte) = match layer {
        Layer::Ipv4 => {
            let header = vec![
                statement(LOAD_HALF, 6),
                // To the last instruction, behind the nine that follow.
                jump(JUMP_ANY_SET, FRAGMENT, [8, 0]),
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

    /// Runs a program as the kernel does: a load beyond the packet rejects it.
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
    fn every_port_and_every_flag() {
        let block = PortBlock::around(40_000);
        let programs = [Layer::Ipv4, Layer::Tcp].map(|layer| program(layer, block));
        let passes = |port: u16, flags: u8| {
            let segment = segment(port, flags);
            let v4 = run(&programs[0], &packet(5, 0x4000, &segment)) > 0;
            assert_eq!(v4, run(&programs[1], &segment) > 0, "both programs agree");
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
    fn options_are_skipped_fragments_and_cut_packets_are_dropped() {
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
    fn a_block_numbers_its_ports() {
        for port in 0..=u16::MAX {
            let block = PortBlock::around(port);
            let place = block.place(port).unwrap();
            assert_eq!(block.port(place), port);
            assert_eq!(block.ports().count(), usize::from(BLOCK_PORTS));
            assert_eq!(block.place(port ^ BLOCK_PORTS), None);
        }
    }

    #[test]
    fn every_jump_stays_within_the_program() {
        for layer in [Layer::Ipv4, Layer::Tcp] {
            let program = program(layer, PortBlock::around(0));
            for (place, it) in program.iter().enumerate() {
                let farthest = usize::from(it.jump_true.max(it.jump_false));
                assert!(place + 1 + farthest < program.len() || it.code == RETURN, "{place}");
            }
        }
    }
}
