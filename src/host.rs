//! Reading a [`Host`]: what of an address literal or a DNS name is let in, and why the rest is not.
//!
//! Strict where leniency would let a name mean an address: what the policy checked must be what
//! is connected to. It never asks a resolver.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Host, parse_decimal};

impl Host {
    /// Reads an IPv4 literal (a strict dotted quad), an IPv6 literal (with or without brackets
    /// and a numeric scope id; v4-mapped ones stay IPv6) or a DNS name.
    ///
    /// A name whose last label is a number (`127.1`, `0x7f.1`, `2130706433`) is an error: to
    /// `inet_aton` it is an address, to a resolver a name, and no top-level domain is a number
    /// (RFC 3696 section 2; WHATWG URL, "ends in a number").
    pub fn parse(text: &str) -> Result<Self, HostError> {
        if text.is_empty() {
            return Err(HostError::Empty);
        }
        if !text.is_ascii() {
            return Err(HostError::NotAscii);
        }
        if let Some(inner) = text.strip_prefix('[') {
            return parse_v6(inner.strip_suffix(']').ok_or(HostError::Bracket)?);
        }
        if text.contains('/') {
            return Err(HostError::Url);
        }
        if text.contains(':') {
            return parse_v6(text);
        }
        match text.parse::<Ipv4Addr>() {
            Ok(address) => Ok(Self::Address(IpAddr::V4(address), 0)),
            Err(_) => parse_name(text),
        }
    }
}

/// Reads `fe80::1%3`, without brackets.
fn parse_v6(text: &str) -> Result<Host, HostError> {
    let (literal, scope) = match text.split_once('%') {
        None => (text, 0),
        Some((literal, zone)) => {
            let scope = parse_decimal(zone, 0..=u64::from(u32::MAX));
            (literal, scope.map_err(|_| HostError::Zone)?)
        }
    };
    assert!(scope <= u64::from(u32::MAX), "`parse_decimal` keeps to its range");
    match literal.parse::<Ipv6Addr>() {
        Ok(address) => Ok(Host::Address(IpAddr::V6(address), scope as u32)),
        Err(_) => Err(HostError::NotV6),
    }
}

/// Bytes of a name in dotted form, its final dot aside (RFC 1035 section 2.3.4: 255 on the wire).
const NAME_BYTES_MAX: usize = 253;

/// Bytes of a label (RFC 1035 section 2.3.4).
const LABEL_BYTES_MAX: usize = 63;

/// Reads a DNS name: letters, digits and hyphens (RFC 1123 section 2.1), and the underscores of
/// service names (RFC 8552).
fn parse_name(text: &str) -> Result<Host, HostError> {
    assert!(!text.is_empty() && text.is_ascii(), "the caller looked");
    let labels = text.strip_suffix('.').unwrap_or(text);
    if labels.len() > NAME_BYTES_MAX {
        return Err(HostError::NameTooLong);
    }
    let mut is_number = false;
    for label in labels.split('.') {
        check_label(label)?;
        is_number = ends_in_a_number(label);
    }
    if is_number {
        return Err(HostError::Number);
    }
    assert!(text.len() <= NAME_BYTES_MAX + 1, "one final dot at most was set aside");
    Ok(Host::Name(text.to_ascii_lowercase().into()))
}

fn check_label(label: &str) -> Result<(), HostError> {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if label.is_empty() {
        return Err(HostError::LabelEmpty);
    }
    if let Some(stranger) = label.chars().find(|c| !is_allowed(*c)) {
        return Err(HostError::Character(stranger));
    }
    if label.len() > LABEL_BYTES_MAX {
        return Err(HostError::LabelTooLong);
    }
    if label.starts_with('-') || label.ends_with('-') {
        return Err(HostError::Hyphen);
    }
    Ok(())
}

/// True exactly when the label, standing last, makes the whole a number: all digits, or hex
/// digits (even none) after `0x`.
fn ends_in_a_number(label: &str) -> bool {
    let hex = label.strip_prefix("0x").or_else(|| label.strip_prefix("0X"));
    match hex {
        Some(digits) => digits.bytes().all(|byte| byte.is_ascii_hexdigit()),
        None => label.bytes().all(|byte| byte.is_ascii_digit()),
    }
}

/// Why a text is no host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostError {
    /// Nothing at all.
    Empty,
    /// A character beyond ASCII.
    NotAscii,
    /// An opening bracket without its closing one at the end.
    Bracket,
    /// A URL, or a path.
    Url,
    /// Colons, as only an IPv6 address has them, but no IPv6 address.
    NotV6,
    /// What follows the `%` is no scope id.
    Zone,
    /// A name of more than 253 bytes.
    NameTooLong,
    /// Two dots in a row, or one in front.
    LabelEmpty,
    /// A label of more than 63 bytes.
    LabelTooLong,
    /// A character that no host name has.
    Character(char),
    /// A hyphen at the beginning or the end of a label.
    Hyphen,
    /// A name that looks like a number, and is no address either.
    Number,
}

impl fmt::Display for HostError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "can't be blank",
            Self::NotAscii => "write an international name in its xn-- form (punycode)",
            Self::Bracket => "an opening bracket needs its closing one at the end",
            Self::Url => "give the host alone, without scheme or path",
            Self::NotV6 => "no IPv6 address; give the host alone, without scheme or port",
            Self::Zone => "an IPv6 zone is the number of an interface",
            Self::NameTooLong => "a name has at most 253 bytes",
            Self::LabelEmpty => "a name has no empty label",
            Self::LabelTooLong => "a label of a name has at most 63 bytes",
            Self::Character(stranger) => return write!(f, "a name has no {stranger:?}"),
            Self::Hyphen => "a label of a name neither begins nor ends with a hyphen",
            Self::Number => "no IPv4 address, which has four decimal parts without leading zeros",
        })
    }
}

impl std::error::Error for HostError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_are_addresses_in_strict_spellings_only() {
        let check = |text: &str, address: &str, scope: u32| {
            let expected = Host::Address(address.parse().unwrap(), scope);
            assert_eq!(Host::parse(text), Ok(expected), "{text}");
        };
        check("192.0.2.7", "192.0.2.7", 0);
        check("0.0.0.0", "0.0.0.0", 0);
        check("255.255.255.255", "255.255.255.255", 0);
        check("::1", "::1", 0);
        check("[::1]", "::1", 0);
        check("2001:DB8::7", "2001:db8::7", 0);
        check("::ffff:127.0.0.1", "::ffff:127.0.0.1", 0);
        check("fe80::1%3", "fe80::1", 3);
        check("[fe80::1%4294967295]", "fe80::1", u32::MAX);
    }

    #[test]
    fn names_are_lower_cased_and_keep_their_final_dot() {
        let check = |text: &str, expected: &str| {
            assert_eq!(Host::parse(text), Ok(Host::Name(expected.into())), "{text}");
        };
        check("localhost", "localhost");
        check("Example.COM", "example.com");
        check("example.com.", "example.com.");
        check("_ldap._tcp.example.com", "_ldap._tcp.example.com");
        check("a_b", "a_b");
        check("3com.com", "3com.com");
        check("1.2.3.4.example", "1.2.3.4.example");
        check("0x.example", "0x.example");
        check("0xg", "0xg");
        check("xn--bcher-kva.example", "xn--bcher-kva.example");
        check(&"a".repeat(63), &"a".repeat(63));
        check(&long_name(253), &long_name(253));
        check(&format!("{}.", long_name(253)), &format!("{}.", long_name(253)));
    }

    /// A name of so many bytes in labels of 63 at most.
    fn long_name(len: usize) -> String {
        let mut name = format!("{}.", "a".repeat(63)).repeat(len / 64);
        name.push_str(&"a".repeat(len % 64));
        assert_eq!(name.len(), len);
        name
    }

    #[test]
    fn what_is_no_host_says_why() {
        let check = |text: &str, expected| assert_eq!(Host::parse(text), Err(expected), "{text}");
        use HostError::{Bracket, Character, Empty, Hyphen, LabelEmpty, LabelTooLong, NameTooLong};
        use HostError::{NotAscii, NotV6, Url, Zone};
        check("", Empty);
        check("bücher.example", NotAscii);
        check("１２７.0.0.1", NotAscii);
        check("127。0。0。1", NotAscii);
        check("\u{fffd}", NotAscii);
        check("[::1", Bracket);
        check("[::1]:80", Bracket);
        check("http://example.com", Url);
        check("example.com/path", Url);
        check("192.0.2.0/24", Url);
        check("example.com:80", NotV6);
        check("127.0.0.1:80", NotV6);
        check(":::1", NotV6);
        check("[]", NotV6);
        check("[127.0.0.1]", NotV6);
        check("1:2:3:4:5:6:7:8:9", NotV6);
        for text in ["fe80::1%", "fe80::1%eth0", "fe80::1%4294967296", "fe80::1%-1", "fe80::1%1%1"]
        {
            check(text, Zone);
        }
        check(&long_name(254), NameTooLong);
        check(&format!("{}.", long_name(254)), NameTooLong);
        check(&"a.".repeat(4000), NameTooLong);
        for text in [".", "..", ".example", "a..b", "example..", "127.0.0.1.."] {
            check(text, LabelEmpty);
        }
        check(&"a".repeat(64), LabelTooLong);
        check("exa mple", Character(' '));
        check("example\0", Character('\0'));
        check("user@example", Character('@'));
        check("a,b", Character(','));
        check("fe80%3", Character('%'));
        for text in ["-a", "a-", "-", "a.-b", "a-.b"] {
            check(text, Hyphen);
        }
    }

    #[test]
    fn a_name_that_looks_like_a_number_is_neither_name_nor_address() {
        for text in [
            "127.1",
            "0x7f.1",
            "2130706433",
            "0x7f000001",
            "0X7F000001",
            "017700000001",
            "127.0.0.01",
            "127.0.0.1.",
            "127.0.0.0x1",
            "1.2.3.4.5",
            "256.0.0.1",
            "1.2.3",
            "0",
            "0x",
            "example.42",
            "example.0x2a.",
        ] {
            assert_eq!(Host::parse(text), Err(HostError::Number), "{text}");
        }
    }

    #[test]
    fn every_ascii_character_is_either_part_of_a_name_or_an_error() {
        for c in '\0'..='\x7f' {
            let is_name = matches!(Host::parse(&format!("a{c}b")), Ok(Host::Name(_)));
            assert_eq!(is_name, c.is_ascii_alphanumeric() || "-_.".contains(c), "{c:?}");
        }
    }
}
