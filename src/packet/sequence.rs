//! The sequence numbers of SYNs: a keyed hash of the four-tuple, which other hosts cannot predict.
//!
//! The hash is the sequence number of a SYN, so only a host that has seen the SYN can acknowledge
//! it. An answer is checked by computing the hash of its own four-tuple again. A forger that does
//! not see the SYNs guesses the number with a probability of 1 in 2³². A repeated SYN has the same
//! number, as a retransmission must. The hash is SipHash-2-4 (Aumasson and Bernstein, 2012).
//! RFC 9293 section 3.4.1 recommends a keyed hash of the four-tuple.

use std::net::{IpAddr, SocketAddr, SocketAddrV4};

use super::FourTuple;

/// The secret key of this process.
#[derive(Clone, Copy)]
pub struct SequenceKey([u64; 2]);

/// The numbers in a SYN that depend on its four-tuple.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Numbers {
    /// The sequence number.
    pub sequence: u32,
    /// The offset that is added to the clock for the TCP timestamp (RFC 7323 section 5.4).
    pub timestamp_offset: u32,
}

impl SequenceKey {
    /// Creates a key from 128 random bits.
    pub const fn new(secret: [u64; 2]) -> Self {
        Self(secret)
    }

    /// The numbers for a SYN with this four-tuple.
    pub fn numbers(&self, tuple: &FourTuple) -> Numbers {
        let hash = match (tuple.local, tuple.remote) {
            (SocketAddr::V4(local), SocketAddr::V4(remote)) => {
                let mut bytes = [0; 2 * 6];
                for (bytes, end) in bytes.as_chunks_mut().0.iter_mut().zip([local, remote]) {
                    *bytes = ipv4_end(end);
                }
                siphash(self.0, &bytes)
            }
            (local, remote) => {
                let mut bytes = [0; 2 * 18];
                for (bytes, end) in bytes.as_chunks_mut().0.iter_mut().zip([local, remote]) {
                    *bytes = ipv6_end(end);
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

/// The bytes of an address and port of IPv4 that are hashed.
fn ipv4_end(end: SocketAddrV4) -> [u8; 6] {
    let ([a, b, c, d], [high, low]) = (end.ip().octets(), end.port().to_be_bytes());
    [a, b, c, d, high, low]
}

/// The bytes of an address and port of IPv6 that are hashed. Both ends of a four-tuple have the
/// same family, so the mapping of an IPv4 address is never used.
fn ipv6_end(end: SocketAddr) -> [u8; 18] {
    let address = match end.ip() {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    };
    let mut bytes = [0; 18];
    bytes[..16].copy_from_slice(&address.octets());
    bytes[16..].copy_from_slice(&end.port().to_be_bytes());
    bytes
}

/// SipHash-2-4. It is inlined because the number of bytes is a constant for each caller.
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

/// One SipRound of SipHash.
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
    fn the_hash_matches_the_vectors_of_the_reference_implementation() {
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
    fn the_number_depends_on_the_key_and_on_each_part_of_the_four_tuple() {
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
        assert_eq!(
            key.numbers(&tuples[0]),
            key.numbers(&tuples[0]),
            "a repeated SYN has the same numbers"
        );
        let other = SequenceKey::new([1, 3]);
        assert_ne!(
            key.numbers(&tuples[0]),
            other.numbers(&tuples[0]),
            "the numbers depend on the key"
        );
        assert_eq!(
            format!("{key:?}"),
            "SequenceKey",
            "the debug format does not contain the secret"
        );
    }

    #[test]
    fn the_timestamps_of_two_connections_have_different_offsets() {
        let key = SequenceKey::new([1, 2]);
        let offset = |port: u16| {
            let [local, remote] = [([192, 0, 2, 1], port), ([198, 51, 100, 7], 80)];
            let tuple = FourTuple { local: local.into(), remote: remote.into() };
            key.numbers(&tuple).timestamp_offset
        };
        let offsets: BTreeSet<u32> = (40_000..40_010).map(offset).collect();
        assert_eq!(offsets.len(), 10, "the offsets hide the clock and the number of connections");
    }
}
