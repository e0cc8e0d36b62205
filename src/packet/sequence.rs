//! Sequence numbers that only we can know: a keyed hash of the four-tuple.
//!
//! A SYN carries the hash as its sequence number, and only its receiver can acknowledge it. So an
//! answer is checked against its own addresses and ports, and a forger who does not see our packets
//! guesses one in 2³². The same probe sent again bears the same number, as a retransmission must.
//! The hash is SipHash-2-4 (Aumasson and Bernstein, 2012), as RFC 9293 section 3.4.1 asks for.

use std::net::{IpAddr, SocketAddr, SocketAddrV4};

use super::FourTuple;

/// The secret of one process.
#[derive(Clone, Copy)]
pub struct SequenceKey([u64; 2]);

/// What a SYN of one four-tuple carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Numbers {
    /// The sequence number.
    pub sequence: u32,
    /// Where the clock of its timestamps begins (RFC 7323 section 5.4).
    pub timestamp_offset: u32,
}

impl SequenceKey {
    /// A key from 128 random bits.
    pub const fn new(secret: [u64; 2]) -> Self {
        Self(secret)
    }

    /// The numbers of a four-tuple.
    pub fn numbers(&self, tuple: &FourTuple) -> Numbers {
        let hash = match (tuple.local, tuple.remote) {
            (SocketAddr::V4(local), SocketAddr::V4(remote)) => {
                let mut bytes = [0; 2 * 6];
                for (place, end) in bytes.as_chunks_mut().0.iter_mut().zip([local, remote]) {
                    *place = end4(end);
                }
                siphash(self.0, &bytes)
            }
            (local, remote) => {
                let mut bytes = [0; 2 * 18];
                for (place, end) in bytes.as_chunks_mut().0.iter_mut().zip([local, remote]) {
                    *place = end6(end);
                }
                siphash(self.0, &bytes)
            }
        };
        Numbers { sequence: hash as u32, timestamp_offset: (hash >> 32) as u32 }
    }
}

impl std::fmt::Debug for SequenceKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SequenceKey")
    }
}

fn end4(end: SocketAddrV4) -> [u8; 6] {
    let ([a, b, c, d], [high, low]) = (end.ip().octets(), end.port().to_be_bytes());
    [a, b, c, d, high, low]
}

/// Both ends of a four-tuple are of one version, so that none is mapped here.
fn end6(end: SocketAddr) -> [u8; 18] {
    let address = match end.ip() {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    };
    let mut bytes = [0; 18];
    bytes[..16].copy_from_slice(&address.octets());
    bytes[16..].copy_from_slice(&end.port().to_be_bytes());
    bytes
}

/// SipHash-2-4. Inline, since callers know how many bytes they have.
#[inline]
fn siphash(key: [u64; 2], bytes: &[u8]) -> u64 {
    let [k0, k1] = key;
    let mut state = [
        k0 ^ 0x736f_6d65_7073_6575,
        k1 ^ 0x646f_7261_6e64_6f6d,
        k0 ^ 0x6c79_6765_6e65_7261,
        k1 ^ 0x7465_6462_7974_6573,
    ];
    let (words, rest) = bytes.as_chunks::<8>();
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    last[7] = bytes.len() as u8;
    for word in words.iter().chain([&last]) {
        let word = u64::from_le_bytes(*word);
        state[3] ^= word;
        state = round(round(state));
        state[0] ^= word;
    }
    state[2] ^= 0xff;
    let state = round(round(round(round(state))));
    state[0] ^ state[1] ^ state[2] ^ state[3]
}

const fn round([mut a, mut b, mut c, mut d]: [u64; 4]) -> [u64; 4] {
    a = a.wrapping_add(b);
    b = b.rotate_left(13) ^ a;
    a = a.rotate_left(32);
    c = c.wrapping_add(d);
    d = d.rotate_left(16) ^ c;
    a = a.wrapping_add(d);
    d = d.rotate_left(21) ^ a;
    c = c.wrapping_add(b);
    b = b.rotate_left(17) ^ c;
    c = c.rotate_left(32);
    [a, b, c, d]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_vectors_of_the_reference_implementation() {
        let key = [0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908];
        let bytes: Vec<u8> = (0..64).collect();
        for (len, expected) in [
            (0, 0x726f_db47_dd0e_0e31),
            (1, 0x74f8_39c5_93dc_67fd),
            (7, 0xab02_00f5_8b01_d137),
            (8, 0x93f5_f579_9a93_2462),
            (15, 0xa129_ca61_49be_45e5),
            (63, 0x958a_324c_eb06_4572),
        ] {
            assert_eq!(siphash(key, &bytes[..len]), expected, "{len} bytes");
        }
    }

    #[test]
    fn each_part_of_the_four_tuple_changes_the_number() {
        let key = SequenceKey::new([1, 2]);
        let tuple = |local: &str, remote: &str| FourTuple {
            local: local.parse().unwrap(),
            remote: remote.parse().unwrap(),
        };
        let tuples = [
            tuple("192.0.2.1:40000", "198.51.100.7:80"),
            tuple("192.0.2.2:40000", "198.51.100.7:80"),
            tuple("192.0.2.1:40001", "198.51.100.7:80"),
            tuple("192.0.2.1:40000", "198.51.100.8:80"),
            tuple("192.0.2.1:40000", "198.51.100.7:81"),
            tuple("198.51.100.7:80", "192.0.2.1:40000"),
            tuple("[2001:db8::1]:40000", "[2001:db8::2]:80"),
            tuple("[2001:db8::1]:40000", "[2001:db8::3]:80"),
            tuple("[2001:db8::4]:40000", "[2001:db8::2]:80"),
        ];
        let all: BTreeSet<u32> = tuples.iter().map(|it| key.numbers(it).sequence).collect();
        assert_eq!(all.len(), tuples.len());
        assert_eq!(key.numbers(&tuples[0]), key.numbers(&tuples[0]), "a repeat is the same SYN");
        let other = SequenceKey::new([1, 3]);
        assert_ne!(key.numbers(&tuples[0]), other.numbers(&tuples[0]), "the key matters");
        assert_eq!(format!("{key:?}"), "SequenceKey", "a log never shows the secret");
    }
}
