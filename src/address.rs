//! The order of a name's addresses: RFC 6724 section 6, as getaddrinfo implements it.
//!
//! This is a pure sort over addresses and the source address that the kernel would use towards each
//! of them (determined with `Action::FindRoute`). Rules 3 (deprecated sources), 4 (home addresses)
//! and 7 (native transport) are deliberately absent, because they need the state of interfaces.
//! Rule 9 is applied to IPv6 only, which section 6 permits: among IPv4 addresses it would undo the
//! rotation of a server. The policy table is the default of section 2.1; gai.conf is not read.
//! `core` calls this module.

use std::cmp::{Ordering, Reverse};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A candidate address, and the source address of packets to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoutedAddress {
    /// The destination.
    pub address: IpAddr,
    /// The source address that the kernel would choose; `None` if there is no route.
    pub source: Option<IpAddr>,
}

/// The address to which Linux connects instead of `address`: the IPv4 address of a v4-mapped one
/// (RFC 4291 section 2.5.5.2), and loopback instead of the unspecified address.
///
/// Probes are sent to this address. A raw socket of IPv6 has no route to a v4-mapped address, and a
/// TCP socket of IPv6 that was connected to one can never again send an IPv6 packet, although the
/// kernel permits another connect (`tcp_v6_connect`).
pub fn contacted(address: IpAddr) -> IpAddr {
    let canonical = address.to_canonical();
    match canonical {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
        IpAddr::V4(_) | IpAddr::V6(_) => canonical,
    }
}

/// Sorts the candidates, the best one first. Equal candidates keep their order (rule 10).
pub fn sort(candidates: &mut [RoutedAddress]) {
    // An insertion sort is stable, and a name has few addresses.
    for end in 1..candidates.len() {
        let is_before = |at: &usize| compare(&candidates[end], &candidates[*at]).is_lt();
        let place = (0..end).find(is_before).unwrap_or(end);
        candidates[place..=end].rotate_right(1);
    }
    debug_assert!(
        candidates.is_sorted_by_key(|candidate| candidate.source.is_none()),
        "candidates without a route come last"
    );
}

/// `Less` means that the first candidate is preferred. `false` is less than `true`, so each boolean
/// key is true for a disadvantage.
fn compare(left: &RoutedAddress, right: &RoutedAddress) -> Ordering {
    let key = |candidate: &RoutedAddress| {
        let address = mapped(candidate.address);
        // Rule 1: avoid unusable destinations.
        let Some(source) = candidate.source.map(mapped) else {
            return (true, false, false, Reverse(0), 0);
        };
        let (policy, source_policy) = (PolicyRow::of(address), PolicyRow::of(source));
        (
            false,
            // Rule 2: prefer matching scope.
            scope(address) != scope(source),
            // Rule 5: prefer matching label.
            policy.label != source_policy.label,
            // Rule 6: prefer higher precedence.
            Reverse(policy.precedence),
            // Rule 8: prefer smaller scope.
            scope(address),
        )
    };
    key(left).cmp(&key(right)).then_with(|| prefix(right).cmp(&prefix(left)))
}

/// Rule 9: the length of the common prefix of destination and source, 0 to 64 bits. The remaining
/// bits identify the interface (section 2.2) and say nothing about the route. All IPv4 addresses
/// are equal here.
fn prefix(candidate: &RoutedAddress) -> u32 {
    match (candidate.address, candidate.source) {
        (IpAddr::V6(address), Some(IpAddr::V6(source))) => {
            (address.to_bits() ^ source.to_bits()).leading_zeros().min(64)
        }
        (IpAddr::V4(_), Some(_)) | (IpAddr::V6(_), Some(IpAddr::V4(_))) | (_, None) => 0,
    }
}

/// An IPv4 address is represented in the table by its v4-mapped form (section 3.2).
fn mapped(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    }
}

/// The scope of a unicast or multicast address (sections 3.1 and 3.2), with the numbers of RFC 4291
/// section 2.7: 0x2 link-local, 0x5 site-local, 0xe global. IPv4 private addresses and unique local
/// addresses are global; loopback is link-local.
fn scope(address: Ipv6Addr) -> u8 {
    const LINK_LOCAL: u8 = 0x2;
    const SITE_LOCAL: u8 = 0x5;
    const GLOBAL: u8 = 0xe;
    if let Some(v4) = address.to_ipv4_mapped() {
        let is_near = v4.is_loopback() || v4.is_link_local();
        return if is_near { LINK_LOCAL } else { GLOBAL };
    }
    let [first, second, ..] = address.octets();
    match (first, second & 0xc0) {
        (0xff, _) => second & 0xf,
        (0xfe, 0x80) => LINK_LOCAL,
        (0xfe, 0xc0) => SITE_LOCAL,
        _ if address.is_loopback() => LINK_LOCAL,
        _ => GLOBAL,
    }
}

/// A row of the policy table.
#[derive(Clone, Copy, Debug)]
struct PolicyRow {
    prefix: Ipv6Addr,
    prefix_bits: u32,
    precedence: u8,
    label: u8,
}

impl PolicyRow {
    const fn new(prefix: Ipv6Addr, prefix_bits: u32, (precedence, label): (u8, u8)) -> Self {
        Self { prefix, prefix_bits, precedence, label }
    }

    /// The row with the longest prefix that matches.
    fn of(address: Ipv6Addr) -> Self {
        let matches = |row: &&Self| {
            let differing = address.to_bits() ^ row.prefix.to_bits();
            differing.leading_zeros() >= row.prefix_bits
        };
        TABLE.iter().find(matches).copied().unwrap_or(ANY)
    }
}

/// The last row, `::/0`.
const ANY: PolicyRow = PolicyRow::new(Ipv6Addr::UNSPECIFIED, 0, (40, 1));

/// The default policy table (section 2.1) without [`ANY`]; longer prefixes first.
const TABLE: [PolicyRow; 8] = [
    PolicyRow::new(Ipv6Addr::LOCALHOST, 128, (50, 0)),
    PolicyRow::new(Ipv4Addr::UNSPECIFIED.to_ipv6_mapped(), 96, (35, 4)),
    PolicyRow::new(Ipv6Addr::UNSPECIFIED, 96, (1, 3)),
    PolicyRow::new(Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 32, (5, 5)),
    PolicyRow::new(Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16, (30, 2)),
    PolicyRow::new(Ipv6Addr::new(0x3ffe, 0, 0, 0, 0, 0, 0, 0), 16, (1, 12)),
    PolicyRow::new(Ipv6Addr::new(0xfec0, 0, 0, 0, 0, 0, 0, 0), 10, (1, 11)),
    PolicyRow::new(Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0), 7, (3, 13)),
];

#[cfg(test)]
mod tests {
    use super::*;

    /// Pairs of destination and source (`-` for none), in any order of the destinations.
    fn check(pairs: &[(&str, &str)], expected: &[&str]) {
        let parse = |text: &str| text.parse::<IpAddr>().ok();
        let candidates: Vec<RoutedAddress> = pairs
            .iter()
            .map(|(address, source)| RoutedAddress {
                address: parse(address).unwrap(),
                source: parse(source),
            })
            .collect();
        let sorted = |mut candidates: Vec<RoutedAddress>| {
            sort(&mut candidates);
            candidates.iter().map(|candidate| candidate.address.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(sorted(candidates.clone()), expected, "{pairs:?}");
        let reversed = candidates.into_iter().rev().collect();
        assert_eq!(sorted(reversed), expected, "{pairs:?}, reversed");
    }

    #[test]
    fn the_examples_of_rfc_6724_section_10_2_have_the_order_given_there() {
        let (v6, v4) = ("2001:db8:1::1", "198.51.100.121");
        check(&[(v6, "2001:db8:1::2"), (v4, "169.254.13.78")], &[v6, v4]);
        check(&[(v6, "fe80::1"), (v4, "198.51.100.117")], &[v4, v6]);
        check(&[(v6, "2001:db8:1::2"), ("10.1.2.3", "10.1.2.4")], &[v6, "10.1.2.3"]);
        check(&[(v6, "2001:db8:1::2"), ("fe80::1", "fe80::2")], &["fe80::1", v6]);
        let far = "2001:db8:3ffe::1";
        check(&[(v6, "2001:db8:1::2"), (far, "2001:db8:3f44::2")], &[v6, far]);
        let (six_to_four, ours) = ("2002:c633:6401::1", "2002:c633:6401::2");
        check(&[(six_to_four, ours), (v6, ours)], &[six_to_four, v6]);
        check(&[(six_to_four, ours), (v6, "2001:db8:1::2")], &[v6, six_to_four]);
    }

    #[test]
    fn an_address_without_a_route_comes_after_those_with_one() {
        check(&[("2001:db8::1", "-"), ("192.0.2.1", "192.0.2.9")], &["192.0.2.1", "2001:db8::1"]);
        check(&[("192.0.2.1", "-"), ("2001:db8::1", "2001:db8::9")], &["2001:db8::1", "192.0.2.1"]);
    }

    #[test]
    fn the_longest_prefix_of_the_table_decides() {
        for (address, precedence, label) in [
            ("::1", 50, 0),
            ("::ffff:1.2.3.4", 35, 4),
            ("::1.2.3.4", 1, 3),
            ("2001::1", 5, 5),
            ("2001:1::1", 40, 1),
            ("2002::1", 30, 2),
            ("3ffe::1", 1, 12),
            ("fec0::1", 1, 11),
            ("fd00::1", 3, 13),
            ("fe80::1", 40, 1),
            ("2a00::1", 40, 1),
        ] {
            let policy = PolicyRow::of(address.parse().unwrap());
            assert_eq!((policy.precedence, policy.label), (precedence, label), "{address}");
        }
    }

    #[test]
    fn a_mapped_address_leads_to_ipv4_and_an_unspecified_one_to_loopback() {
        for (address, expected) in [
            ("192.0.2.1", "192.0.2.1"),
            ("2001:db8::1", "2001:db8::1"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("::192.0.2.1", "::192.0.2.1"),
            ("64:ff9b::192.0.2.1", "64:ff9b::192.0.2.1"),
            ("0.0.0.0", "127.0.0.1"),
            ("::ffff:0.0.0.0", "127.0.0.1"),
            ("::", "::1"),
        ] {
            let led_to = contacted(address.parse().unwrap());
            assert_eq!(led_to, expected.parse::<IpAddr>().unwrap(), "{address}");
        }
    }

    #[test]
    fn scopes_are_those_of_sections_3_1_and_3_2() {
        for (address, expected) in [
            ("127.0.0.1", 0x2),
            ("169.254.1.1", 0x2),
            ("10.0.0.1", 0xe),
            ("224.0.0.1", 0xe),
            ("::1", 0x2),
            ("fe80::1", 0x2),
            ("febf::1", 0x2),
            ("fec0::1", 0x5),
            ("fd00::1", 0xe),
            ("ff05::1", 0x5),
            ("ff0e::1", 0xe),
            ("2a00::1", 0xe),
        ] {
            assert_eq!(scope(mapped(address.parse().unwrap())), expected, "{address}");
        }
    }

    #[test]
    fn addresses_of_one_kind_keep_the_order_of_the_server_unless_their_prefixes_differ() {
        let pair = |address: &str, source: &str| RoutedAddress {
            address: address.parse().unwrap(),
            source: source.parse().ok(),
        };
        for pairs in [
            [pair("192.0.2.200", "192.0.2.1"), pair("192.0.2.2", "192.0.2.1")],
            [pair("192.0.2.2", "192.0.2.1"), pair("192.0.2.200", "192.0.2.1")],
            [pair("2001:db8::f1", "2001:db8::1"), pair("2001:db8::2", "2001:db8::1")],
            [pair("192.0.2.200", "-"), pair("2001:db8::1", "-")],
        ] {
            let mut sorted = pairs;
            sort(&mut sorted);
            assert_eq!(sorted, pairs);
        }
    }
}
