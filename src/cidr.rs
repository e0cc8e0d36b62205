//! Networks in CIDR notation (RFC 4632 section 3.1, RFC 4291 section 2.3).
//!
//! A [`Cidr`] that exists has no host bits and is in canonical form: a v4-mapped network
//! (`::ffff:10.0.0.0/104`) is the IPv4 network that it spells.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// Bits that a v4-mapped address has before the IPv4 address (RFC 4291 section 2.5.5.2).
const MAPPED_BITS: u8 = 96;

/// A network: every address that shares its first `prefix` bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cidr {
    network: IpAddr,
    prefix: u8,
}

/// Why a text is no network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CidrError {
    /// What stands before the `/`, or the whole, is no IP address.
    Address,
    /// What stands behind the `/` is no decimal number, or greater than the address is long.
    Prefix,
    /// The address has bits behind its prefix; the network that was probably meant.
    HostBits(Cidr),
}

impl fmt::Display for CidrError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address => f.write_str("expected a network such as 10.0.0.0/8 or fd00::/8"),
            Self::Prefix => f.write_str("expected a prefix of at most 32 bits, for IPv6 128"),
            Self::HostBits(meant) => write!(f, "host bits are set, the network is {meant}"),
        }
    }
}

impl std::error::Error for CidrError {}

impl Cidr {
    /// The network of these IPv4 octets, for tables. Panics where host bits are set.
    pub(super) const fn v4(octets: [u8; 4], prefix: u8) -> Self {
        let network = Ipv4Addr::from_bits(u32::from_be_bytes(octets));
        let cidr = Self { network: IpAddr::V4(network), prefix };
        assert!(prefix <= 32, "an IPv4 prefix has at most 32 bits");
        assert!(cidr.host_bits() == 0, "a network has no host bits");
        cidr
    }

    /// The network of these IPv6 groups, for tables. Panics where host bits are set.
    pub(super) const fn v6(groups: [u16; 8], prefix: u8) -> Self {
        let [a, b, c, d, e, f, g, h] = groups;
        let network = Ipv6Addr::new(a, b, c, d, e, f, g, h);
        let cidr = Self { network: IpAddr::V6(network), prefix };
        assert!(prefix <= 128, "an IPv6 prefix has at most 128 bits");
        assert!(cidr.host_bits() == 0, "a network has no host bits");
        cidr
    }

    /// True exactly when `address` lies in the network. A v4-mapped address counts as the IPv4
    /// address that it spells; no other address of one family lies in a network of the other.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        if address.is_ipv4() != self.network.is_ipv4() {
            return false;
        }
        let twin = Self { network: address, prefix: self.prefix };
        twin.masked().network == self.network
    }

    /// The bits behind the prefix.
    const fn host_bits(&self) -> u128 {
        let (bits, width) = match self.network {
            IpAddr::V4(v4) => (v4.to_bits() as u128, 32),
            IpAddr::V6(v6) => (v6.to_bits(), 128),
        };
        let host_width = width - self.prefix as u32;
        // A shift by the whole width would overflow: the prefix is 0, and every bit a host bit.
        if host_width == 128 { bits } else { bits & ((1 << host_width) - 1) }
    }

    /// The same network without its host bits.
    fn masked(self) -> Self {
        let host_bits = self.host_bits();
        let network = match self.network {
            IpAddr::V4(v4) => IpAddr::V4(Ipv4Addr::from_bits(v4.to_bits() ^ host_bits as u32)),
            IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() ^ host_bits)),
        };
        let masked = Self { network, prefix: self.prefix };
        assert!(masked.host_bits() == 0, "a mask leaves no host bits");
        masked
    }
}

impl FromStr for Cidr {
    type Err = CidrError;

    /// `10.0.0.0/8`, `fd00::/8`, or an address alone for itself only.
    fn from_str(text: &str) -> Result<Self, CidrError> {
        let (address, prefix) =
            text.split_once('/').map_or((text, None), |(address, prefix)| (address, Some(prefix)));
        let address: IpAddr = address.parse().map_err(|_| CidrError::Address)?;
        let width = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            None => width,
            // `u8::from_str` would take a sign.
            Some(digits) if !digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                return Err(CidrError::Prefix);
            }
            Some(digits) => digits.parse().map_err(|_| CidrError::Prefix)?,
        };
        if prefix > width {
            return Err(CidrError::Prefix);
        }
        let cidr = match address.to_canonical() {
            IpAddr::V4(v4) if address.is_ipv6() && prefix >= MAPPED_BITS => {
                Self { network: IpAddr::V4(v4), prefix: prefix - MAPPED_BITS }
            }
            IpAddr::V4(_) | IpAddr::V6(_) => Self { network: address, prefix },
        };
        if cidr.host_bits() != 0 {
            return Err(CidrError::HostBits(cidr.masked()));
        }
        Ok(cidr)
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Result<&str, &str>) {
        let shown = text.parse::<Cidr>().map(|cidr| cidr.to_string()).map_err(|e| e.to_string());
        assert_eq!(shown.as_deref().map_err(|e| e.as_str()), expected, "for {text:?}");
    }

    #[test]
    fn a_network_is_shown_as_it_was_parsed() {
        for text in ["10.0.0.0/8", "0.0.0.0/0", "192.0.2.7/32", "::/0", "fd00::/8", "::1/128"] {
            check(text, Ok(text));
        }
        check("192.0.2.7", Ok("192.0.2.7/32"));
        check("fe80::1", Ok("fe80::1/128"));
    }

    #[test]
    fn a_v4_mapped_network_is_the_ipv4_network_it_spells() {
        check("::ffff:10.0.0.0/104", Ok("10.0.0.0/8"));
        check("::ffff:0:0/96", Ok("0.0.0.0/0"));
        check("::ffff:192.0.2.7", Ok("192.0.2.7/32"));
        check("::ffff:0:0/95", Err("host bits are set, the network is ::fffe:0:0/95"));
        let cidr = "10.0.0.0/8".parse::<Cidr>().unwrap();
        assert!(cidr.contains("::ffff:10.1.2.3".parse().unwrap()));
    }

    #[test]
    fn host_bits_are_refused_and_the_network_is_named() {
        check("10.1.2.3/8", Err("host bits are set, the network is 10.0.0.0/8"));
        check("1.0.0.0/0", Err("host bits are set, the network is 0.0.0.0/0"));
        check("fd00::1/8", Err("host bits are set, the network is fd00::/8"));
        check("::1/0", Err("host bits are set, the network is ::/0"));
        check("::ffff:10.1.2.3/104", Err("host bits are set, the network is 10.0.0.0/8"));
    }

    #[test]
    fn what_is_no_network_is_refused() {
        let address = Err("expected a network such as 10.0.0.0/8 or fd00::/8");
        for text in ["", "/8", "10.0.0/8", "010.0.0.0/8", "fe80::1%1", "localhost", "[::1]"] {
            check(text, address);
        }
        let prefix = Err("expected a prefix of at most 32 bits, for IPv6 128");
        for text in ["10.0.0.0/", "10.0.0.0/+8", "10.0.0.0/33", "::/129", "::/999", "::/8/8"] {
            check(text, prefix);
        }
    }

    #[test]
    fn every_prefix_holds_its_first_and_last_address_and_neither_neighbour() {
        for prefix in 1..=32 {
            let size = 1_u64 << (32 - prefix);
            let base = if prefix == 32 { 7 << 24 } else { size };
            let base = base & !(size - 1) & u64::from(u32::MAX);
            let at = |offset: u64| IpAddr::V4(Ipv4Addr::from_bits((base + offset) as u32));
            let cidr: Cidr = format!("{}/{prefix}", at(0)).parse().unwrap();
            assert!(cidr.contains(at(0)) && cidr.contains(at(size - 1)), "{cidr}");
            assert!(!cidr.contains(at(size)), "{cidr}");
            assert!(!cidr.contains(IpAddr::V4(Ipv4Addr::from_bits((base as u32).wrapping_sub(1)))));
        }
        for prefix in 1..=128 {
            let first = 1_u128 << 127;
            let last = first | (u128::MAX >> 1 >> (prefix - 1));
            let at = |bits| IpAddr::V6(Ipv6Addr::from_bits(bits));
            let cidr: Cidr = format!("{}/{prefix}", at(first)).parse().unwrap();
            assert!(cidr.contains(at(first)) && cidr.contains(at(last)), "{cidr}");
            assert!(!cidr.contains(at(last.wrapping_add(1))), "{cidr}");
            assert!(!cidr.contains(at(first - 1)), "{cidr}");
        }
    }

    #[test]
    fn a_network_of_one_family_holds_no_address_of_the_other() {
        let all_v4: Cidr = "0.0.0.0/0".parse().unwrap();
        let all_v6: Cidr = "::/0".parse().unwrap();
        let (v4, v6) = ("192.0.2.7".parse().unwrap(), "2001:db8::1".parse().unwrap());
        assert!(all_v4.contains(v4) && !all_v4.contains(v6));
        assert!(all_v6.contains(v6) && !all_v6.contains(v4));
    }
}
