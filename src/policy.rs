//! Which addresses may be scanned.
//!
//! The verdict applies to a resolved address, never to a name or a spelling, and the scan connects
//! to that very address: there is no second lookup that could give another answer. An IPv6 address
//! that embeds an IPv4 address for a translator or a tunnel is judged as both addresses. The
//! network-specific NAT64 prefix of a site (RFC 6052 section 2.2) is not known here, and must be
//! given to `--deny`. `core` drives this module, which touches no descriptor, no clock and no name.
//!
//! Invariants: an address in `deny` is denied, regardless of `allow`; if one of the readings of an
//! address is denied by default, the address is permitted only if `allow` contains that reading, or
//! the address itself.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::cidr::Cidr;

/// Which machines can reach this service's listeners.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exposure {
    /// None: a run from the command line has no listeners, and its user has chosen the policy.
    NoListener,
    /// Only this machine: every listener is bound to a loopback address or a Unix socket.
    LoopbackOnly,
    /// Other machines too. A scan of a loopback target would disclose private services to them.
    Outside,
}

/// Which addresses may be scanned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Networks that are permitted although the default denies them.
    pub allow: Vec<Cidr>,
    /// Networks that are always denied. An IPv4 network here and in `allow` also covers every IPv6
    /// address that embeds one of its addresses.
    pub deny: Vec<Cidr>,
    /// The exposure of the listeners, which decides about loopback targets.
    pub exposure: Exposure,
}

/// The reason why an address is denied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denial {
    /// A network of `--deny` contains it.
    Listed,
    /// As [`Denial::Listed`], in a run from the command line.
    Excluded,
    /// 169.254.0.0/16 (RFC 3927), fe80::/10 (RFC 4291 section 2.5.6).
    LinkLocal,
    /// 224.0.0.0/4 (RFC 5771), ff00::/8 (RFC 4291 section 2.7).
    Multicast,
    /// 255.255.255.255 (RFC 919 section 7).
    Broadcast,
    /// 0.0.0.0/8 (RFC 1122 section 3.2.1.3) and its IPv6 forms, of which `::` connects to this
    /// machine too.
    Unspecified,
    /// The metadata service of a cloud, which provides credentials.
    Metadata,
    /// 127.0.0.0/8 (RFC 1122 section 3.2.1.3) and `::1`, if other machines can reach the service.
    Loopback,
}

impl Denial {
    /// Every reason, in the order of its discriminant.
    pub const ALL: [Self; 8] = [
        Self::Listed,
        Self::Excluded,
        Self::LinkLocal,
        Self::Multicast,
        Self::Broadcast,
        Self::Unspecified,
        Self::Metadata,
        Self::Loopback,
    ];

    /// The metric label and the log word.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Listed => "listed",
            Self::Excluded => "excluded",
            Self::LinkLocal => "link_local",
            Self::Multicast => "multicast",
            Self::Broadcast => "broadcast",
            Self::Unspecified => "unspecified",
            Self::Metadata => "metadata",
            Self::Loopback => "loopback",
        }
    }
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Listed => "this service is configured not to scan that address",
            Self::Excluded => "that address is excluded from this run",
            Self::LinkLocal => "link-local addresses are not scanned",
            Self::Multicast => "multicast addresses are not scanned",
            Self::Broadcast => "the broadcast address is not scanned",
            Self::Unspecified => {
                "unspecified addresses (0.0.0.0/8, in IPv6 ::/104) are not scanned"
            }
            Self::Metadata => "the address of a cloud's metadata service is not scanned",
            Self::Loopback => {
                "loopback addresses are this service's own machine and are not scanned"
            }
        })
    }
}

/// The networks that are denied unless `allow` contains the address, the more specific reason
/// first.
const DENIED: [(Cidr, Denial); 19] = [
    // AWS "Instance metadata", Google Cloud, Azure and most others; this address is link-local as
    // well.
    (Cidr::v4([169, 254, 169, 254], 32), Denial::Metadata),
    // Alibaba Cloud "Instance metadata"; its IPv6 form is below.
    (Cidr::v4([100, 100, 100, 200], 32), Denial::Metadata),
    (Cidr::v6([0xfd00, 0x100, 0, 0, 0, 0, 0x100, 0x200], 128), Denial::Metadata),
    // Azure "What is IP address 168.63.129.16": the wire server, a public address.
    (Cidr::v4([168, 63, 129, 16], 32), Denial::Metadata),
    // Oracle Cloud Infrastructure Classic "Retrieving instance metadata"; its successor uses IPv6.
    (Cidr::v4([192, 0, 0, 192], 32), Denial::Metadata),
    (Cidr::v6([0xfd00, 0xc1, 0, 0, 0, 0, 0xa9fe, 0xa9fe], 128), Denial::Metadata),
    // AWS: instance metadata (::254), EKS Pod Identity credentials (::23) and other services.
    (Cidr::v6([0xfd00, 0xec2, 0, 0, 0, 0, 0, 0], 32), Denial::Metadata),
    // Google Cloud "About VM metadata", for instances without IPv4.
    (Cidr::v6([0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254], 128), Denial::Metadata),
    // Scaleway, as documented by the data source of cloud-init.
    (Cidr::v6([0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42], 128), Denial::Metadata),
    // Akamai (Linode) "Metadata service".
    (Cidr::v6([0xfd00, 0xa9fe, 0xa9fe, 0, 0, 0, 0, 1], 128), Denial::Metadata),
    (Cidr::v4([0, 0, 0, 0], 8), Denial::Unspecified),
    (Cidr::v6([0; 8], 128), Denial::Unspecified),
    (Cidr::v4([169, 254, 0, 0], 16), Denial::LinkLocal),
    (Cidr::v6([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10), Denial::LinkLocal),
    (Cidr::v4([224, 0, 0, 0], 4), Denial::Multicast),
    (Cidr::v6([0xff00, 0, 0, 0, 0, 0, 0, 0], 8), Denial::Multicast),
    (Cidr::v4([255, 255, 255, 255], 32), Denial::Broadcast),
    (Cidr::v4([127, 0, 0, 0], 8), Denial::Loopback),
    (Cidr::v6([0, 0, 0, 0, 0, 0, 0, 1], 128), Denial::Loopback),
];

impl Policy {
    /// Whether the resolved `address` may be scanned.
    pub fn verdict(&self, address: IpAddr) -> Result<(), Denial> {
        let readings = readings(address);
        let names = |list: &[Cidr], reading| list.iter().any(|cidr| cidr.contains(reading));
        if readings.iter().any(|reading| names(&self.deny, *reading)) {
            return Err(match self.exposure {
                Exposure::NoListener => Denial::Excluded,
                Exposure::LoopbackOnly | Exposure::Outside => Denial::Listed,
            });
        }
        if names(&self.allow, address) {
            return Ok(());
        }
        for reading in readings {
            if let Some(denial) = self.default_denial(reading)
                && !names(&self.allow, reading)
            {
                return Err(denial);
            }
        }
        Ok(())
    }

    fn default_denial(&self, reading: IpAddr) -> Option<Denial> {
        let (_, denial) = DENIED.iter().find(|(cidr, _)| cidr.contains(reading))?;
        match (denial, self.exposure) {
            (Denial::Loopback, Exposure::NoListener | Exposure::LoopbackOnly) => None,
            (denial, _) => Some(*denial),
        }
    }
}

/// The address in canonical form (v4-mapped as IPv4), then every IPv4 address to which it may lead.
pub(crate) fn readings(address: IpAddr) -> Vec<IpAddr> {
    let canonical = address.to_canonical();
    let mut readings = vec![canonical];
    match canonical {
        IpAddr::V4(_) => {}
        IpAddr::V6(v6) => readings.extend(embedded(v6).into_iter().map(IpAddr::V4)),
    }
    assert!(!readings.is_empty(), "an address is a reading of itself");
    debug_assert!(readings[1..].iter().all(IpAddr::is_ipv4), "only IPv4 is embedded");
    readings
}

/// The IPv4 addresses that are embedded in an IPv6 address which is not v4-mapped.
fn embedded(address: Ipv6Addr) -> Vec<Ipv4Addr> {
    assert!(address.to_ipv4_mapped().is_none(), "the address is in canonical form");
    let groups = address.segments();
    let at_bit = |first: u32| Ipv4Addr::from_bits((address.to_bits() >> (96 - first)) as u32);
    let mut found = match groups {
        // The unspecified address and the loopback address embed no other.
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => vec![],
        // v4-compatible, RFC 4291 section 2.5.5.1.
        [0, 0, 0, 0, 0, 0, _, _] => vec![at_bit(96)],
        // IPv4-translated, RFC 2765 section 2.1; obsolete, but still supported by some translators.
        [0, 0, 0, 0, 0xffff, 0, _, _] => vec![at_bit(96)],
        // NAT64, the well-known prefix, RFC 6052 section 2.1.
        [0x64, 0xff9b, 0, 0, 0, 0, _, _] => vec![at_bit(96)],
        // NAT64, the local-use prefix, RFC 8215.
        [0x64, 0xff9b, 1, ..] => embedded_local_nat64(address),
        // 6to4, RFC 3056 section 2.
        [0x2002, ..] => vec![at_bit(16)],
        // Teredo, RFC 4380 section 4: the server, and the client with every bit inverted.
        [0x2001, 0, ..] => vec![at_bit(32), Ipv4Addr::from_bits(!at_bit(96).to_bits())],
        _ => vec![],
    };
    // ISATAP, RFC 5214 section 6.1: in any network, with or without the "universal" bit.
    if groups[4] & !0x0200 == 0 && groups[5] == 0x5efe {
        found.push(at_bit(96));
    }
    found
}

/// The position of the IPv4 address in 64:ff9b:1::/48 depends on the length of the site's prefix,
/// which cannot be determined (RFC 6052 section 2.2), so each of the four layouts gives a reading.
/// The wrong ones mostly have the form 0.x.y.z and are left out unless there is no other reading.
/// Another wrong one may deny a harmless address, which `--allow` can then permit.
fn embedded_local_nat64(address: Ipv6Addr) -> Vec<Ipv4Addr> {
    let bits = address.to_bits();
    // Bits 64 to 71 do not belong to the address in any of the three shorter layouts.
    let gapless = (bits >> 64 & 0xffff) << 56 | bits & ((1 << 56) - 1);
    let layouts = [gapless >> 40, gapless >> 32, gapless >> 24, bits];
    let all = layouts.map(|layout| Ipv4Addr::from_bits(layout as u32));
    let likely: Vec<Ipv4Addr> = all.into_iter().filter(|v4| v4.octets()[0] != 0).collect();
    if likely.is_empty() { all.to_vec() } else { likely }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(allow: &[&str], deny: &[&str], exposure: Exposure) -> Policy {
        let parse = |list: &[&str]| list.iter().map(|text| text.parse().unwrap()).collect();
        Policy { allow: parse(allow), deny: parse(deny), exposure }
    }

    fn check(policy: &Policy, address: &str, expected: Result<(), Denial>) {
        assert_eq!(policy.verdict(address.parse().unwrap()), expected, "for {address}");
    }

    /// Every IPv6 address through which an IPv4 address may be reached.
    fn embeddings(v4: Ipv4Addr) -> Vec<Ipv6Addr> {
        let bits = u128::from(v4.to_bits());
        let [a, b, c, d] = v4.octets().map(u128::from);
        let local = 0x64_ff9b_0001_u128 << 80;
        let mut all = vec![
            0xffff << 32 | bits,
            0xffff << 48 | bits,
            0x64_ff9b << 96 | bits,
            local | a << 72 | b << 64 | c << 48 | d << 40,
            local | a << 64 | b << 48 | c << 40 | d << 32,
            local | a << 48 | b << 40 | c << 32 | d << 24,
            local | bits,
            0x2002 << 112 | bits << 80 | 1,
            0x2001 << 112 | bits << 64 | u128::from(!0x0808_0808_u32),
            0x2001 << 112 | 0x0808_0808 << 64 | u128::from(!v4.to_bits()),
            0x2001_0db8 << 96 | 0x5efe << 32 | bits,
            0x2001_0db8 << 96 | 0x0200_5efe << 32 | bits,
        ];
        // `::` and `::1` are addresses of their own and do not embed 0.0.0.0 and 0.0.0.1.
        if bits > 1 {
            all.push(bits);
        }
        all.into_iter().map(Ipv6Addr::from_bits).collect()
    }

    #[test]
    fn the_default_policy_denies_addresses_that_no_scan_should_reach() {
        let policy = policy(&[], &[], Exposure::Outside);
        for (address, denial) in [
            ("0.0.0.0", Denial::Unspecified),
            ("0.255.255.255", Denial::Unspecified),
            ("::", Denial::Unspecified),
            ("127.0.0.1", Denial::Loopback),
            ("127.255.255.255", Denial::Loopback),
            ("::1", Denial::Loopback),
            ("169.254.0.1", Denial::LinkLocal),
            ("169.254.170.2", Denial::LinkLocal),
            ("fe80::1", Denial::LinkLocal),
            ("febf:ffff::1", Denial::LinkLocal),
            ("224.0.0.1", Denial::Multicast),
            ("239.255.255.255", Denial::Multicast),
            ("ff02::1", Denial::Multicast),
            ("255.255.255.255", Denial::Broadcast),
            ("169.254.169.254", Denial::Metadata),
            ("100.100.100.200", Denial::Metadata),
            ("fd00:100::100:200", Denial::Metadata),
            ("168.63.129.16", Denial::Metadata),
            ("192.0.0.192", Denial::Metadata),
            ("fd00:c1::a9fe:a9fe", Denial::Metadata),
            ("fd00:ec2::254", Denial::Metadata),
            ("fd00:ec2::23", Denial::Metadata),
            ("fd20:ce::254", Denial::Metadata),
            ("fd00:42::42", Denial::Metadata),
            ("fd00:a9fe:a9fe::1", Denial::Metadata),
        ] {
            check(&policy, address, Err(denial));
        }
    }

    #[test]
    fn the_default_policy_allows_everything_else() {
        let policy = policy(&[], &[], Exposure::Outside);
        for address in [
            "1.0.0.0",
            "10.0.0.1",
            "100.64.0.1",
            "126.255.255.255",
            "128.0.0.1",
            "169.253.255.255",
            "169.255.0.0",
            "192.0.2.7",
            "192.168.1.1",
            "223.255.255.255",
            "240.0.0.1",
            "255.255.255.254",
            "2001:db8::1",
            "2001:1::7f00:1",
            "fd00::1",
            "fec0::1",
            "::2:0:0:1",
            "64:ff9b:2::7f00:1",
            "2003:7f00:1::1",
        ] {
            check(&policy, address, Ok(()));
        }
    }

    #[test]
    fn every_embedding_of_a_denied_address_is_denied() {
        let policy = policy(&[], &[], Exposure::Outside);
        for text in ["127.0.0.1", "169.254.169.254", "224.0.0.251", "0.0.0.0", "168.63.129.16"] {
            let v4: Ipv4Addr = text.parse().unwrap();
            let plain = policy.verdict(IpAddr::V4(v4));
            assert!(plain.is_err(), "{text}");
            for v6 in embeddings(v4) {
                assert_eq!(policy.verdict(IpAddr::V6(v6)), plain, "{text} as {v6}");
            }
        }
    }

    #[test]
    fn every_embedding_of_an_allowed_address_is_allowed() {
        let policy = policy(&[], &[], Exposure::Outside);
        for text in ["8.8.8.8", "10.20.30.40", "192.0.2.7", "203.0.113.200"] {
            for v6 in embeddings(text.parse().unwrap()) {
                assert_eq!(policy.verdict(IpAddr::V6(v6)), Ok(()), "{text} as {v6}");
            }
        }
    }

    #[test]
    fn loopback_is_scanned_only_if_only_this_machine_can_reach_the_service() {
        let policy = policy(&[], &[], Exposure::LoopbackOnly);
        for address in ["127.0.0.1", "::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1"] {
            check(&policy, address, Ok(()));
        }
        for address in ["0.0.0.0", "::", "::ffff:0.0.0.0"] {
            check(&policy, address, Err(Denial::Unspecified));
        }
    }

    #[test]
    fn deny_wins_over_allow_and_allow_over_the_default() {
        let policy = policy(
            &["127.0.0.0/8", "169.254.0.0/16", "fd00:ec2::254"],
            &["127.0.0.2/32", "10.0.0.0/8", "2001:db8::/32"],
            Exposure::Outside,
        );
        for v6 in embeddings(Ipv4Addr::new(127, 0, 0, 1)) {
            let is_listed = v6.segments()[..2] == [0x2001, 0xdb8];
            let expected = if is_listed { Err(Denial::Listed) } else { Ok(()) };
            check(&policy, &v6.to_string(), expected);
        }
        for v6 in embeddings(Ipv4Addr::new(127, 0, 0, 2)) {
            check(&policy, &v6.to_string(), Err(Denial::Listed));
        }
        for v6 in embeddings(Ipv4Addr::new(10, 1, 2, 3)) {
            check(&policy, &v6.to_string(), Err(Denial::Listed));
        }
        check(&policy, "169.254.169.254", Ok(()));
        check(&policy, "fd00:ec2::254", Ok(()));
        check(&policy, "fd00:ec2::253", Err(Denial::Metadata));
        check(&policy, "2001:db8::1", Err(Denial::Listed));
    }

    #[test]
    fn a_run_from_the_command_line_names_its_flags_and_may_scan_this_machine() {
        let policy = policy(&[], &["192.0.2.0/24"], Exposure::NoListener);
        check(&policy, "192.0.2.7", Err(Denial::Excluded));
        check(&policy, "::ffff:192.0.2.7", Err(Denial::Excluded));
        check(&policy, "127.0.0.1", Ok(()));
        check(&policy, "0.0.3.81", Err(Denial::Unspecified));
        check(&policy, "::2", Err(Denial::Unspecified));
    }

    #[test]
    fn an_allowed_teredo_server_does_not_permit_a_denied_client() {
        let policy = policy(&["8.8.8.8/32"], &[], Exposure::Outside);
        let bits = 0x2001 << 112 | 0x0808_0808 << 64 | u128::from(!0x7f00_0001_u32);
        check(&policy, &Ipv6Addr::from_bits(bits).to_string(), Err(Denial::Loopback));
    }

    #[test]
    fn an_allowed_ipv6_network_permits_all_its_addresses() {
        let policy = policy(&["64:ff9b::/96"], &[], Exposure::Outside);
        check(&policy, "64:ff9b::7f00:1", Ok(()));
        check(&policy, "64:ff9b:1::7f00:1", Err(Denial::Loopback));
    }

    #[test]
    fn each_denial_has_its_own_label_and_text() {
        for (index, denial) in Denial::ALL.iter().enumerate() {
            assert_eq!(*denial as usize, index);
            for other in &Denial::ALL[..index] {
                assert_ne!(denial.label(), other.label());
                assert_ne!(denial.to_string(), other.to_string());
            }
        }
    }
}
