//! What is scanned: a host and a set of ports. Parsed once, valid for ever.
//!
//! `parse, don't validate`: a [`Host`] that exists is well formed, a [`PortSet`] holds no port 0.
//! It never resolves a name and never connects.

use std::net::IpAddr;
use std::time::Duration;

/// A set of TCP ports: one bit each, 8 KB, whatever was asked for.
#[derive(Clone, PartialEq, Eq)]
pub struct PortSet {
    words: Box<[u64; 1024]>,
    len: u32,
}

impl Default for PortSet {
    fn default() -> Self {
        Self::new()
    }
}

impl PortSet {
    /// The empty set.
    pub fn new() -> Self {
        Self { words: Box::new([0; 1024]), len: 0 }
    }

    /// Every port of `first..=last`; empty if `first > last`.
    pub fn from_range(first: u16, last: u16) -> Self {
        let mut set = Self::new();
        for port in first..=last {
            set.insert(port);
        }
        set
    }

    /// Adds a port; false if it was there.
    pub fn insert(&mut self, port: u16) -> bool {
        assert!(port != 0, "port 0 cannot be connected to");
        let (word, bit) = (usize::from(port >> 6), 1 << (port & 63));
        let is_new = self.words[word] & bit == 0;
        self.words[word] |= bit;
        self.len += u32::from(is_new);
        is_new
    }

    /// Takes a port out; false if it was not there.
    pub fn remove(&mut self, port: u16) -> bool {
        let (word, bit) = (usize::from(port >> 6), 1 << (port & 63));
        let was_there = self.words[word] & bit != 0;
        self.words[word] &= !bit;
        self.len -= u32::from(was_there);
        was_there
    }

    /// True exactly when the set holds `port`.
    pub fn contains(&self, port: u16) -> bool {
        self.words[usize::from(port >> 6)] >> (port & 63) & 1 == 1
    }

    /// The lowest port of the set that is not below `from`; `from` may be 65,536 (nothing is left).
    pub fn next_from(&self, from: u32) -> Option<u16> {
        let mut word = (from >> 6) as usize;
        let mut bits = *self.words.get(word)? >> (from & 63) << (from & 63);
        while bits == 0 {
            word += 1;
            bits = *self.words.get(word)?;
        }
        Some((word as u16) << 6 | bits.trailing_zeros() as u16)
    }

    /// The ports in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = u16> + '_ {
        let mut from = 0;
        std::iter::from_fn(move || {
            let port = self.next_from(from)?;
            from = u32::from(port) + 1;
            Some(port)
        })
    }

    /// How many ports the set holds, 0 to 65,535.
    pub const fn len(&self) -> usize {
        self.len as usize
    }

    /// True exactly when the set holds no port.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl std::fmt::Debug for PortSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PortSet({} ports)", self.len)
    }
}

/// Which address family a scan may use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Family {
    /// Whichever the target has.
    #[default]
    Any,
    /// IPv4 only.
    V4,
    /// IPv6 only.
    V6,
}

impl Family {
    /// True exactly when an address of this kind may be used.
    pub const fn admits(self, address: IpAddr) -> bool {
        match self {
            Self::Any => true,
            Self::V4 => address.is_ipv4(),
            Self::V6 => address.is_ipv6(),
        }
    }
}

/// A target as it was asked for, well formed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Host {
    /// An IPv4 or IPv6 literal, with the scope id of `fe80::1%3` (0 if none).
    Address(IpAddr, u32),
    /// A DNS name: labels of 1 to 63 bytes, 253 in all, lower case; a final dot means "absolute"
    /// (no search list) and is kept.
    Name(Box<str>),
}

/// Each connect's deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timeout {
    /// The same for every connect.
    Fixed(Duration),
    /// Follows the measured round trip of the target.
    Auto,
}

/// Further passes over ports that stayed silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retries {
    /// So many, always.
    Exactly(u8),
    /// Only when the network is seen to lose packets.
    Auto,
}
