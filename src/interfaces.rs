//! The zones of link-local addresses: maps names of interfaces to the numbers that the kernel uses.
//!
//! The source is /proc/net/if_inet6, which has a line for each IPv6 address of this machine, with
//! the number and the name of its interface. This module reads no file: `sys` does.

use std::borrow::Cow;

/// The names and numbers of the interfaces that have an IPv6 address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interfaces(Vec<(Box<str>, u32)>);

impl Interfaces {
    /// Parses /proc/net/if_inet6: address, number, prefix length, scope and flags in hexadecimal,
    /// then the name. A line that cannot be parsed is skipped.
    pub fn parse(text: &[u8]) -> Self {
        let mut interfaces = Vec::new();
        for line in String::from_utf8_lossy(text).lines() {
            let words: Vec<&str> = line.split_ascii_whitespace().collect();
            let &[_, number, _, _, _, name] = &words[..] else { continue };
            let Ok(number) = u32::from_str_radix(number, 16) else { continue };
            if interfaces.iter().all(|(known, _): &(Box<str>, u32)| **known != *name) {
                interfaces.push((name.into(), number));
            }
        }
        Self(interfaces)
    }

    /// The scope id of a zone: a decimal number is taken as it is, and a name gives the number of
    /// the interface with this name.
    pub fn scope(&self, zone: &str) -> Option<u32> {
        // `u32::from_str` would accept a sign.
        let is_number = !zone.is_empty() && zone.bytes().all(|byte| byte.is_ascii_digit());
        if is_number {
            return zone.parse().ok();
        }
        self.0.iter().find(|(name, _)| **name == *zone).map(|(_, number)| *number)
    }

    /// A copy of resolv.conf with numbers for the zones of link-local servers. If the interface of
    /// a server is unknown, its name is kept.
    pub fn number_zones<'a>(&self, resolv_conf: &'a [u8]) -> Cow<'a, [u8]> {
        let mut numbered = Cow::Borrowed(resolv_conf);
        // The zones are replaced from the last to the first, so that the positions of the others
        // stay valid.
        for at in (0..resolv_conf.len()).rev().filter(|at| resolv_conf[*at] == b'%') {
            let line_start = resolv_conf[..at].iter().rposition(|byte| *byte == b'\n');
            let line = resolv_conf[line_start.map_or(0, |at| at + 1)..at].trim_ascii_start();
            if !line.starts_with(b"nameserver") {
                continue;
            }
            let rest = &resolv_conf[at + 1..];
            let zone_len = rest.iter().take_while(|byte| !b" \t\r\n#;".contains(byte)).count();
            let zone = std::str::from_utf8(&rest[..zone_len]).unwrap_or_default();
            if let Some(number) = self.scope(zone) {
                let digits = number.to_string().into_bytes();
                numbered.to_mut().splice(at + 1..at + 1 + zone_len, digits);
            }
        }
        numbered
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[u8] = b"00000000000000000000000000000001 01 80 10 80       lo\n\
        fe80000000000000001122fffe334455 02 40 20 80     eth0\n\
        20010db8000000000000000000000007 02 40 00 80     eth0\n\
        nonsense\n\
        fe80000000000000001122fffe334466 1f 40 20 80   br-lan\n";

    #[test]
    fn a_zone_is_a_number_or_the_name_of_an_interface() {
        let interfaces = Interfaces::parse(TABLE);
        for (zone, expected) in [
            ("lo", Some(1)),
            ("eth0", Some(2)),
            ("br-lan", Some(31)),
            ("7", Some(7)),
            ("4294967295", Some(u32::MAX)),
            ("4294967296", None),
            ("eth1", None),
            ("ETH0", None),
            ("", None),
            ("-1", None),
        ] {
            assert_eq!(interfaces.scope(zone), expected, "{zone}");
        }
        assert_eq!(Interfaces::parse(b"\xff\n\n"), Interfaces::default());
    }

    #[test]
    fn the_servers_of_resolv_conf_get_numbers_for_names() {
        let check = |text: &str, expected: &str| {
            let numbered = Interfaces::parse(TABLE).number_zones(text.as_bytes()).into_owned();
            assert_eq!(String::from_utf8(numbered).unwrap(), expected);
        };
        check("", "");
        check("nameserver fe80::1%eth0", "nameserver fe80::1%2");
        check("\tnameserver fe80::1%br-lan # x\r\n", "\tnameserver fe80::1%31 # x\r\n");
        check("nameserver fe80::1%3\nsearch a%eth0\n", "nameserver fe80::1%3\nsearch a%eth0\n");
        check("# %eth0\nnameserver fe80::1%eth9\n", "# %eth0\nnameserver fe80::1%eth9\n");
        check(
            "nameserver fe80::1%eth0\nnameserver fe80::2%lo",
            "nameserver fe80::1%2\nnameserver fe80::2%1",
        );
        check("nameserver %", "nameserver %");
    }
}
