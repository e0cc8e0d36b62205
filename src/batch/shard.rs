//! Selects the part of the target × port space that one of N machines probes.
//!
//! The space is a list: the ports of the first target in ascending order, then those of the second,
//! and so on. An item is identified by its index. A [`Permutation`] of the indices, the same on
//! every machine, gives them an order without a pattern, and shard I of N takes every N-th item of
//! that order, beginning with the I-th. Each item is therefore in exactly one shard, and the sizes
//! of the shards differ by at most one item. Each shard has some ports of every target instead of
//! all ports of some targets: a target receives its probes from all machines, and slow targets are
//! shared equally.
//!
//! The machines agree if they get the same targets, ports and exclusions in the same order. They
//! share no seed, and no machine needs to know the others. The functions are pure; `batch` calls
//! them.

use std::fmt;

use crate::decimal::parse_decimal;
use crate::limits;
use crate::port_set::PortSet;
use crate::spelling::quote;

/// One of `of` parts. [`Shard::parse`] returns only parts that exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    /// The number of the part, counted from 0, below `of`.
    place: u64,
    of: u64,
}

/// The reason why a text is not a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ShardError {
    /// The text is not of the form `I/N`, or N is out of its bounds.
    Malformed,
    /// There are N shards, and the requested one is not among them.
    NoSuch {
        /// The first and the last valid text.
        known: [String; 2],
        /// The text as [`quote`] writes it.
        given: String,
    },
}

impl fmt::Display for ShardError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed => {
                write!(f, "expected I/N, such as 2/3, with N up to {}", limits::SHARDS_MAX)
            }
            Self::NoSuch { known: [first, last], given } if first == last => {
                write!(f, "{given} is none: the only shard is {first}")
            }
            Self::NoSuch { known: [first, last], given } => {
                write!(f, "{given} is none: the shards are {first} to {last}")
            }
        }
    }
}

impl std::error::Error for ShardError {}

impl fmt::Display for Shard {
    /// Writes `I/N`, with I counted from 1.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.place + 1, self.of)
    }
}

impl Shard {
    /// The whole space.
    pub const WHOLE: Self = Self { place: 0, of: 1 };

    /// Parses `I/N`, the I-th of N parts, counted from 1; or `I:N`, counted from 0, which is how
    /// the pods of an Indexed Job are numbered: an image without a shell could not add 1. N is 1 to
    /// [`limits::SHARDS_MAX`].
    ///
    /// # Errors
    /// A [`ShardError`].
    pub fn parse(text: &str) -> Result<Self, ShardError> {
        let read =
            |sign, first| text.split_once(sign).map(|(number, of)| (number, sign, of, first));
        let (number, sign, of, first) =
            read('/', 1).or_else(|| read(':', 0)).ok_or(ShardError::Malformed)?;
        let of = parse_decimal(of, 1..=limits::SHARDS_MAX).map_err(|_| ShardError::Malformed)?;
        if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(ShardError::Malformed);
        }
        let known = [first, first + of - 1];
        let number = parse_decimal(number, known[0]..=known[1]).map_err(|_| {
            let known = known.map(|number| format!("{number}{sign}{of}"));
            ShardError::NoSuch { known, given: quote(number) }
        })?;
        assert!((first..first + of).contains(&number), "`parse_decimal` keeps to its range");
        Ok(Self { place: number - first, of })
    }

    /// The number of items of a space of `size` items that are in this shard.
    pub const fn items(self, size: u64) -> u64 {
        assert!(self.place < self.of, "the place is below the number of shards");
        // These are the numbers in 0..size with the remainder `place`.
        (size + self.of - 1 - self.place) / self.of
    }

    /// The ports of one target that are in this shard. The target has the ports of `ranges`, and
    /// `first` is the index of the lowest one.
    pub fn select(self, space: Permutation, first: u64, ranges: &[(u16, u16)]) -> PortSet {
        if self == Self::WHOLE {
            return PortSet::from_ranges(ranges);
        }
        let mut selected = PortSet::new();
        let ports = ranges.iter().flat_map(|(first, last)| *first..=*last);
        for (index, port) in (first..).zip(ports) {
            if space.at(index) % self.of == self.place {
                selected.insert(port);
            }
        }
        selected
    }
}

/// A keyed bijection of `0..size`: a Feistel network over the next power of four, which is applied
/// repeatedly until the result is within the space (Black and Rogaway, "Ciphers with Arbitrary
/// Finite Domains", 2002, the cycle-walking method). The keys are fixed, because the permutation
/// spreads load and hides nothing.
#[derive(Clone, Copy, Debug)]
pub struct Permutation {
    size: u64,
    /// The number of bits in each half of an index.
    half_bits: u32,
}

/// After four rounds every bit depends on every other bit.
const ROUNDS: u64 = 4;

impl Permutation {
    /// The permutation of `0..size`.
    pub const fn new(size: u64) -> Self {
        assert!(size < 1 << 62, "an index and its walk fit 64 bits");
        let bits = u64::BITS - size.saturating_sub(1).leading_zeros();
        let half_bits = bits.div_ceil(2);
        Self { size, half_bits: if half_bits == 0 { 1 } else { half_bits } }
    }

    /// The number of items.
    pub const fn size(self) -> u64 {
        self.size
    }

    /// The place of an index in the permuted order.
    pub const fn at(self, index: u64) -> u64 {
        assert!(index < self.size, "the index is in the space");
        let mut place = self.scramble(index);
        // The power of four is less than four times the size, so the loop takes fewer than four
        // steps on average. It ends, because the walk follows a cycle that contains the start,
        // which is within the space.
        while place >= self.size {
            place = self.scramble(place);
        }
        place
    }

    /// A bijection of `0..4^half_bits`: each round combines one half with a function of the other.
    const fn scramble(self, value: u64) -> u64 {
        let mask = (1 << self.half_bits) - 1;
        let (mut left, mut right) = (value >> self.half_bits, value & mask);
        let mut round = 0;
        while round < ROUNDS {
            (left, right) = (right, left ^ mix(right, round) & mask);
            round += 1;
        }
        left << self.half_bits | right
    }
}

/// The output function of SplitMix64 (Steele, Lea and Flood, 2014), keyed by the round.
const fn mix(value: u64, round: u64) -> u64 {
    let mut mixed = value.wrapping_add((round + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ mixed >> 31
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shard_is_one_of_the_existing_parts() {
        let check = |text: &str, expected: &str| {
            let shown = match Shard::parse(text) {
                Ok(shard) => format!("{} of {}", shard.place, shard.of),
                Err(error) => error.to_string(),
            };
            assert_eq!(shown, expected, "{text}");
        };
        check("1/1", "0 of 1");
        check("1/4", "0 of 4");
        check("4/4", "3 of 4");
        check("65536/65536", "65535 of 65536");
        check("0/4", "\"0\" is none: the shards are 1/4 to 4/4");
        check("5/4", "\"5\" is none: the shards are 1/4 to 4/4");
        check(
            "99999999999999999999/4",
            "\"99999999999999999999\" is none: the shards are 1/4 to 4/4",
        );
        check("2/1", "\"2\" is none: the only shard is 1/1");
        check("4:4", "\"4\" is none: the shards are 0:4 to 3:4");
        check("1:1", "\"1\" is none: the only shard is 0:1");
        for text in ["", "/", "1", "1/", "/4", "1/0", "-1/4", "+1/4", "1/4/4", " 1/4", "a/b"] {
            check(text, "expected I/N, such as 2/3, with N up to 65536");
        }
        check("1/65537", "expected I/N, such as 2/3, with N up to 65536");
    }

    #[test]
    fn a_permutation_takes_each_place_once_at_every_small_size() {
        for size in (1..=300).chain([1023, 1024, 1025, 4096, 4097]) {
            let space = Permutation::new(size);
            let mut taken = vec![false; size as usize];
            for index in 0..size {
                let place = space.at(index) as usize;
                assert!(!taken[place], "the place of {index} of {size} is taken twice");
                taken[place] = true;
            }
        }
    }

    /// For every shard, its ports of targets with these ports.
    fn shards(of: u64, targets: &[PortSet]) -> Vec<Vec<PortSet>> {
        let space = Permutation::new(targets.iter().map(|ports| ports.len() as u64).sum());
        let part = |place| {
            let shard = Shard { place, of };
            let mut first = 0;
            let mut parts = Vec::new();
            for ports in targets {
                parts.push(shard.select(space, first, &ports.ranges().collect::<Vec<_>>()));
                first += ports.len() as u64;
            }
            let items: usize = parts.iter().map(PortSet::len).sum();
            assert_eq!(items as u64, shard.items(space.size()), "{place} of {of}");
            parts
        };
        (0..of).map(part).collect()
    }

    #[test]
    fn shards_together_have_each_target_and_port_exactly_once() {
        let targets = ["1-1024", "22,80,443", "7", "1-", "60000-"].map(|text| {
            let ports = PortSet::parse(text);
            ports.unwrap()
        });
        for of in [1, 2, 3, 7] {
            let shards = shards(of, &targets);
            for (place, ports) in targets.iter().enumerate() {
                let mut union = PortSet::new();
                for shard in &shards {
                    union.union_with(&shard[place]);
                }
                let sum: usize = shards.iter().map(|shard| shard[place].len()).sum();
                assert!(union == *ports && sum == ports.len(), "target {place} in {of} shards");
            }
        }
    }

    #[test]
    fn shards_counted_from_0_are_the_same_as_shards_counted_from_1() {
        for of in 1..=9 {
            for number in 0..of {
                let from_0 = Shard::parse(&format!("{number}:{of}"));
                assert_eq!(from_0, Shard::parse(&format!("{}/{of}", number + 1)));
                assert!(from_0.is_ok(), "{number}:{of}");
            }
            assert!(Shard::parse(&format!("{of}:{of}")).is_err());
        }
    }

    #[test]
    fn each_shard_has_its_share_of_every_target_without_a_pattern() {
        let targets: Vec<PortSet> = (0..16).map(|_| PortSet::from_range(1, 4096)).collect();
        for shard in shards(4, &targets) {
            for ports in shard {
                assert!((900..1150).contains(&ports.len()), "{} of 4096", ports.len());
                // A random quarter of the ports contains the next port for a quarter of its ports.
                let pairs = ports.iter().filter(|port| ports.contains(port + 1)).count();
                assert!((150..400).contains(&pairs), "{pairs} pairs of {}", ports.len());
            }
        }
    }
}
