//! Networks in CIDR notation (RFC 4632 section 3.1, RFC 4291 section 2.3).
//!
//! A [`Cidr`] never has host bits and is always in canonical form: a v4-mapped network
//! (`::ffff:10.0.0.0/104`) becomes the IPv4 network that it contains.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// The number of bits before the IPv4 address in a v4-mapped address (RFC 4291 section 2.5.5.2).
const MAPPED_BITS: u8 = 96;

/// A network: all addresses that share its first `prefix` bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cidr {
    network: IpAddr,
    prefix: u8,
}

/// The reason why a text is not a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CidrError {
    /// The text before the `/`, or the whole text, is not an IP address.
    Address,
    /// The text after the `/` is not a decimal number, or exceeds the length of the address.
    Prefix,
    /// The address has bits after its prefix; this is the network that was probably meant.
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
    /// The network of these IPv4 octets, for constant tables. Panics if host bits are set.
    pub(super) const fn v4(octets: [u8; 4], prefix: u8) -> Self {
        let network = Ipv4Addr::from_bits(u32::from_be_bytes(octets));
        let cidr = Self { network: IpAddr::V4(network), prefix };
        assert!(prefix <= 32, "an IPv4 prefix has at most 32 bits");
        assert!(cidr.host_bits() == 0, "a network has no host bits");
        cidr
    }

    /// The network of these IPv6 groups, for constant tables. Panics if host bits are set.
    pub(super) const fn v6(groups: [u16; 8], prefix: u8) -> Self {
        let [a, b, c, d, e, f, g, h] = groups;
        let network = Ipv6Addr::new(a, b, c, d, e, f, g, h);
        let cidr = Self { network: IpAddr::V6(network), prefix };
        assert!(prefix <= 128, "an IPv6 prefix has at most 128 bits");
        assert!(cidr.host_bits() == 0, "a network has no host bits");
        cidr
    }

    /// The network of `prefix` bits that contains an address. Panics if the prefix is too long.
    pub fn around(address: IpAddr, prefix: u8) -> Self {
        let bits = if address.is_ipv4() { 32 } else { 128 };
        assert!(prefix <= bits, "a prefix is at most as long as the address");
        Self { network: address, prefix }.masked()
    }

    /// The only address of the network; `None` if it has several.
    pub const fn only_address(&self) -> Option<IpAddr> {
        let width = if self.network.is_ipv4() { 32 } else { 128 };
        if self.prefix == width { Some(self.network) } else { None }
    }

    /// Whether `address` is in the network. A v4-mapped address counts as the IPv4 address that it
    /// contains; otherwise an address of one family is in no network of the other.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        if address.is_ipv4() != self.network.is_ipv4() {
            return false;
        }
        let twin = Self { network: address, prefix: self.prefix };
        twin.masked().network == self.network
    }

    /// The smallest list of networks that together contain exactly the addresses from `first` to
    /// `last`, which are of the same family. There are at most 254.
    pub fn covering(first: IpAddr, last: IpAddr) -> Vec<Self> {
        assert_eq!(first.is_ipv4(), last.is_ipv4(), "a range is of one family");
        let width: u8 = if first.is_ipv4() { 32 } else { 128 };
        let bits = |address: IpAddr| match address {
            IpAddr::V4(v4) => u128::from(v4.to_bits()),
            IpAddr::V6(v6) => v6.to_bits(),
        };
        let (mut at, last) = (Some(bits(first)), bits(last));
        let mut networks = Vec::new();
        while let Some(from) = at
            && from <= last
        {
            // The largest network that begins here and does not extend beyond the range.
            let mut host_bits = (from.trailing_zeros() as u8).min(width);
            let size =
                |host_bits: u8| u128::MAX.checked_shr(128 - u32::from(host_bits)).unwrap_or(0);
            while size(host_bits) > last - from {
                host_bits -= 1;
            }
            let network = match first {
                IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::from_bits(from as u32)),
                IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::from_bits(from)),
            };
            networks.push(Self { network, prefix: width - host_bits });
            at = from.checked_add(size(host_bits)).and_then(|end| end.checked_add(1));
        }
        networks
    }

    /// The bits after the prefix.
    const fn host_bits(&self) -> u128 {
        let (bits, width) = match self.network {
            IpAddr::V4(v4) => (v4.to_bits() as u128, 32),
            IpAddr::V6(v6) => (v6.to_bits(), 128),
        };
        let host_width = width - self.prefix as u32;
        // A shift by the whole width would overflow. Here the prefix is 0, and every bit is a host
        // bit.
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

    /// Parses `10.0.0.0/8` or `fd00::/8`. An address without a prefix is a network of one address.
    fn from_str(text: &str) -> Result<Self, CidrError> {
        let (address, prefix) =
            text.split_once('/').map_or((text, None), |(address, prefix)| (address, Some(prefix)));
        let address: IpAddr = address.parse().map_err(|_| CidrError::Address)?;
        let width = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            None => width,
            // `u8::from_str` would accept a sign.
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
    fn a_network_is_displayed_as_it_was_parsed() {
        for text in ["10.0.0.0/8", "0.0.0.0/0", "192.0.2.7/32", "::/0", "fd00::/8", "::1/128"] {
            check(text, Ok(text));
        }
        check("192.0.2.7", Ok("192.0.2.7/32"));
        check("fe80::1", Ok("fe80::1/128"));
    }

    #[test]
    fn a_v4_mapped_network_is_the_ipv4_network_that_it_contains() {
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
    fn a_text_that_is_not_a_network_is_refused() {
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
    fn every_network_contains_its_first_and_last_address_and_neither_neighbour() {
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
    fn a_range_is_covered_by_the_fewest_networks() {
        let check = |first: &str, last: &str, expected: &[&str]| {
            let networks = Cidr::covering(first.parse().unwrap(), last.parse().unwrap());
            let shown: Vec<String> = networks.iter().map(Cidr::to_string).collect();
            assert_eq!(shown, expected, "{first}-{last}");
        };
        check("10.0.0.0", "10.0.0.255", &["10.0.0.0/24"]);
        check(
            "10.0.0.1",
            "10.0.0.6",
            &["10.0.0.1/32", "10.0.0.2/31", "10.0.0.4/31", "10.0.0.6/32"],
        );
        check("0.0.0.0", "255.255.255.255", &["0.0.0.0/0"]);
        check("255.255.255.255", "255.255.255.255", &["255.255.255.255/32"]);
        check("2001:db8::", "2001:db8::ff", &["2001:db8::/120"]);
        check("::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", &["::/0"]);
    }

    #[test]
    fn only_a_network_without_host_bits_has_one_address() {
        for (text, expected) in [
            ("192.0.2.7", Some("192.0.2.7")),
            ("::1/128", Some("::1")),
            ("::ffff:192.0.2.7", Some("192.0.2.7")),
            ("192.0.2.6/31", None),
            ("::/0", None),
        ] {
            let only = text.parse::<Cidr>().unwrap().only_address();
            assert_eq!(only, expected.map(|it| it.parse().unwrap()), "{text}");
        }
    }

    #[test]
    fn a_network_of_one_family_contains_no_address_of_the_other() {
        let all_v4: Cidr = "0.0.0.0/0".parse().unwrap();
        let all_v6: Cidr = "::/0".parse().unwrap();
        let (v4, v6) = ("192.0.2.7".parse().unwrap(), "2001:db8::1".parse().unwrap());
        assert!(all_v4.contains(v4) && !all_v4.contains(v6));
        assert!(all_v6.contains(v6) && !all_v6.contains(v4));
    }
}
