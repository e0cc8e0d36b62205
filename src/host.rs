//! Parses a [`Host`]: an address literal or a DNS name. Every error says why a text is refused.
//!
//! The parser is strict where leniency would let a name mean an address, because the address that
//! the policy checked must be the one that is connected to. It never asks a resolver, and has no
//! state.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::interfaces::Interfaces;
use crate::punycode;
use crate::spelling::Confusable;

/// A well-formed target, as the request spells it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Host {
    /// An IPv4 or IPv6 literal, with the scope id of `fe80::1%3` (0 if there is none).
    Address(IpAddr, u32),
    /// A DNS name in lower case: labels of 1 to 63 bytes, at most 253 bytes in all. A final dot
    /// means "absolute" (no search list) and is kept.
    Name(Box<str>),
}

/// The address family that a scan may use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Family {
    /// The family of the target's address.
    #[default]
    Any,
    /// IPv4 only.
    V4,
    /// IPv6 only.
    V6,
}

impl Family {
    /// Reads `4` or `6`.
    ///
    /// # Errors
    /// One sentence that says which values are expected.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        match text {
            "4" => Ok(Self::V4),
            "6" => Ok(Self::V6),
            _ => Err("must be 4 or 6"),
        }
    }

    /// Whether an address of this family may be used.
    pub const fn admits(self, address: IpAddr) -> bool {
        match self {
            Self::Any => true,
            Self::V4 => address.is_ipv4(),
            Self::V6 => address.is_ipv6(),
        }
    }
}

impl Host {
    /// Parses a host without a list of interfaces, like [`Host::parse_among`]: a zone can only be a
    /// number.
    pub fn parse(text: &str) -> Result<Self, HostError> {
        Self::parse_among(text, &Interfaces::default())
    }

    /// Parses an IPv4 literal (a strict dotted quad), an IPv6 literal or a DNS name. An IPv6
    /// literal may have brackets, and a zone, which is a number or the name of one of these
    /// interfaces; v4-mapped addresses stay IPv6.
    ///
    /// A name whose last label is a number (`127.1`, `0x7f.1`, `2130706433`) is an error:
    /// `inet_aton` reads it as an address, a resolver reads it as a name, and no top-level domain
    /// is a number (RFC 3696 section 2; WHATWG URL, "ends in a number").
    pub fn parse_among(text: &str, interfaces: &Interfaces) -> Result<Self, HostError> {
        if text.is_empty() {
            return Err(HostError::Empty);
        }
        if text.trim_ascii() != text {
            return Err(HostError::OuterBlank);
        }
        if let Some(confusable) = Confusable::find(text) {
            return Err(HostError::Confusable(confusable));
        }
        if !text.is_ascii() {
            return Err(HostError::NotAscii { ascii: ascii_form(text) });
        }
        match address_like(text) {
            // `a.example/24` is no network, and its end looks like the path of a URL.
            Some(AddressLike::Network)
                if text.starts_with(|c: char| c.is_ascii_alphabetic()) && !text.contains(':') =>
            {
                return Err(HostError::Url);
            }
            Some(AddressLike::Network) => return Err(HostError::Network),
            Some(AddressLike::Range) => return Err(HostError::Range),
            Some(AddressLike::Malformed) => return Err(HostError::Number),
            None => {}
        }
        if has_port(text) {
            return Err(HostError::Port);
        }
        match text.strip_prefix('[') {
            Some(inner) => {
                let inner = inner.strip_suffix(']').ok_or(HostError::Bracket)?;
                return parse_v6(inner, interfaces);
            }
            None if text.contains('/') => return Err(HostError::Url),
            None if text.contains(':') => return parse_v6(text, interfaces),
            None => {}
        }
        match text.parse::<Ipv4Addr>() {
            Ok(address) => Ok(Self::Address(IpAddr::V4(address), 0)),
            Err(_) => parse_name(text),
        }
    }
}

/// The kind of a text that looks like an address or like several ones, and is no single address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressLike {
    /// `192.0.2.0/24`, `2001:db8::/120`, `10.0.0.0/33`.
    Network,
    /// `192.0.2.1-254`, `192.0.2.1-192.0.3.9`, `192.0.1-2.1`, `2001:db8::1-9`.
    Range,
    /// `10.0.0.x`, `10.x`, `10.0.0.1a`, `10.0.0.0_24`, `10.0.0.1-10.0.0.x`: no name of a host on
    /// the Internet.
    Malformed,
}

/// Whether a text looks like a network, a range or a mistyped address. Such a text is never a name
/// and never looked up, because a search list with a wildcard would resolve it to another host. The
/// text has no port.
///
/// A text with dots is numeric if every label but the last consists of digits, hyphens, underscores
/// and wildcards (`x`, `*`), and the first begins with a digit. Its last label then decides:
///
/// - digits and hyphens end a range, if there is a hyphen anywhere (`10.0-3.0.1`);
/// - one character is a wildcard (`10.x`, `10.0.0.y`), because no top-level domain is that short;
/// - a digit or a wildcard, followed by no letter that occurs in names alone, ends a mistyped
///   address or range (`10.0.0.1-10.0.0.2a`, `10.0.0.x-5`), because only the `xn--` form of a
///   top-level domain has digits;
/// - any label ends a range that has an address on its left and three numbers on its right
///   (`10.0.0.1-10.0.0.foo`);
/// - behind three labels or more, it is a mistyped octet if it begins with a digit (`10.0.0.1st`),
///   unless a word follows a hyphen, and if it has a digit and is as short as an octet
///   (`10.0.0.l0`).
///
/// An address, a hyphen and a text without dots, or with a last label of one character, are a
/// mistyped range: `10.0.0.1-2O`, `10.0.0.1-last`, `10.0.0.1-a.b.c.d`.
///
/// All other texts are names: `10.example`, `10.0.0.1-2.example`, `10.0.0.1-static.example`,
/// `10-0-0-1.local`, `10.0.0.web1`.
pub fn address_like(text: &str) -> Option<AddressLike> {
    if let Some((_, prefix)) = text.split_once('/') {
        // The prefix is a number, or a mask in dotted form.
        return prefix.split('.').all(is_number).then_some(AddressLike::Network);
    }
    let hyphen = text.split_once('-');
    if text.contains(':') {
        // A zone may contain a hyphen: `fe80::1%br-lan`.
        let bare = hyphen?.0.trim_start_matches('[').trim_end_matches(']');
        return bare.parse::<Ipv6Addr>().is_ok().then_some(AddressLike::Range);
    }
    let bare = text.strip_suffix('.').unwrap_or(text);
    let (front, last) = bare.rsplit_once('.')?;
    let is_digit = |c: char| c.is_ascii_digit();
    if hyphen.is_some() && last.contains(is_digit) && last.chars().all(|c| is_digit(c) || c == '-')
    {
        return Some(AddressLike::Range);
    }
    let is_numeric = front.starts_with(is_digit)
        && front.chars().all(|c| is_digit(c) || ".-_xX*".contains(c))
        // `parse` reads a number, and refuses one that is no octet.
        && !is_number(last);
    let has_word = |text: &str| text.contains(is_letter_of_names);
    let has_start = last.starts_with(|c| is_digit(c) || "xX*".contains(c));
    let is_range = || {
        let ends = front.split_once('-');
        ends.is_some_and(|(first, rest)| {
            first.parse::<Ipv4Addr>().is_ok() && rest.split('.').count() == 3
        })
    };
    let is_octet = || {
        let tail = last.split_once('-').map_or("", |(_, tail)| tail);
        (last.starts_with(is_digit) && !has_word(tail))
            || (last.contains(is_digit) && last.len() <= 3)
    };
    let has_broken_end = hyphen.is_some_and(|(first, rest)| {
        let rest = rest.strip_suffix('.').unwrap_or(rest);
        first.parse::<Ipv4Addr>().is_ok() && (!rest.contains('.') || last.len() == 1)
    });
    if has_broken_end {
        return Some(AddressLike::Malformed);
    }
    let is_malformed = is_numeric
        && (last.len() == 1
            // `xxx` is a top-level domain.
            || (has_start && !has_word(last) && last.contains(|c: char| !c.is_ascii_alphabetic()))
            || is_range()
            || (front.split('.').count() >= 3 && is_octet()));
    is_malformed.then_some(AddressLike::Malformed)
}

/// A host without the brackets that an IPv6 address may have.
pub fn unbracketed(host: &str) -> &str {
    host.trim_matches(['[', ']'])
}

/// A name in the form in which names are compared: in lower case, without a final dot.
pub fn plain_name(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

/// Whether a name without a final dot is `localhost` or a name below it, in any case (RFC 6761
/// section 6.3).
pub fn is_localhost(name: &str) -> bool {
    name.rsplit('.').next().is_some_and(|last| last.eq_ignore_ascii_case("localhost"))
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Whether the letter occurs in names, and neither in an address (`a` to `f`) nor in place of a
/// number (`x`).
const fn is_letter_of_names(c: char) -> bool {
    c.is_ascii_alphabetic() && !c.is_ascii_hexdigit() && !matches!(c, 'x' | 'X')
}

/// Whether the text is a host with a port: `a.example:80`, `192.0.2.7:80`, `[::1]:80`.
fn has_port(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let is_host = host.ends_with(']') || (!host.is_empty() && !host.contains([':', '[', '/']));
    is_host && is_number(port)
}

/// The form of an international name that can be looked up, if it is a name and its form is known.
fn ascii_form(text: &str) -> Option<Box<str>> {
    let ascii = punycode::ascii_form(text)?;
    match Host::parse(&ascii) {
        Ok(Host::Name(name)) => Some(name),
        Ok(Host::Address(..)) | Err(_) => None,
    }
}

/// Parses `fe80::1%3` or `fe80::1%eth0`, without brackets.
fn parse_v6(text: &str, interfaces: &Interfaces) -> Result<Host, HostError> {
    let (literal, scope) = match text.split_once('%') {
        None => (text, 0),
        Some((literal, zone)) => (literal, interfaces.scope(zone).ok_or(HostError::Zone)?),
    };
    match literal.parse::<Ipv6Addr>() {
        Ok(address) => Ok(Host::Address(IpAddr::V6(address), scope)),
        Err(_) => Err(HostError::NotV6),
    }
}

/// The length of a name in dotted form in bytes, without its final dot (RFC 1035 section 2.3.4: 255
/// bytes in a message).
const NAME_BYTES_MAX: usize = 253;

/// The length of a label in bytes (RFC 1035 section 2.3.4).
const LABEL_BYTES_MAX: usize = 63;

/// Parses a DNS name: letters, digits and hyphens (RFC 1123 section 2.1), and the underscores of
/// service names (RFC 8552).
fn parse_name(text: &str) -> Result<Host, HostError> {
    assert!(!text.is_empty() && text.is_ascii(), "the caller has checked both");
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
    assert!(text.len() <= NAME_BYTES_MAX + 1, "only a final dot may exceed the maximum");
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
    // RFC 952 forbids a hyphen at the end too, but such names exist and resolve.
    if label.starts_with('-') {
        return Err(HostError::Hyphen);
    }
    Ok(())
}

/// Whether the label, as the last one, makes the whole name a number: it consists of digits, or of
/// `0x` and any number of hexadecimal digits.
fn ends_in_a_number(label: &str) -> bool {
    let hex = label.strip_prefix("0x").or_else(|| label.strip_prefix("0X"));
    match hex {
        Some(digits) => digits.bytes().all(|byte| byte.is_ascii_hexdigit()),
        None => label.bytes().all(|byte| byte.is_ascii_digit()),
    }
}

/// The reason why a text is not a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostError {
    /// The text is empty.
    Empty,
    /// There is a blank or a line end before or behind the host.
    OuterBlank,
    /// A character beyond ASCII is part of no name.
    Confusable(Confusable),
    /// A letter is beyond ASCII.
    NotAscii {
        /// The `xn--` form of the name, if it is known.
        ascii: Option<Box<str>>,
    },
    /// An opening bracket has no closing bracket at the end.
    Bracket,
    /// A port follows the host.
    Port,
    /// The text is a URL or a path.
    Url,
    /// The text is a network, where one address is expected.
    Network,
    /// The text is a range of addresses, where one address is expected.
    Range,
    /// The text has colons, as only an IPv6 address may have, and is not an IPv6 address.
    NotV6,
    /// The text after the `%` is not a scope id.
    Zone,
    /// The name has more than 253 bytes.
    NameTooLong,
    /// There are two dots in a row, or a dot at the beginning.
    LabelEmpty,
    /// A label has more than 63 bytes.
    LabelTooLong,
    /// A host name may not contain this character.
    Character(char),
    /// A label begins with a hyphen.
    Hyphen,
    /// The name looks like a number, and is not an address.
    Number,
}

impl fmt::Display for HostError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "can't be blank",
            Self::NotAscii { ascii } => {
                f.write_str("write an international name in its xn-- form (punycode)")?;
                return match ascii {
                    Some(ascii) => write!(f, ": {ascii}"),
                    None => Ok(()),
                };
            }
            Self::Confusable(confusable) => return confusable.fmt(f),
            Self::OuterBlank => "remove the blank at its beginning or end",
            Self::Port => "give the host alone, and its port in `ports`",
            Self::Bracket => "an opening bracket needs its closing one at the end",
            Self::Url => "give the host alone, without scheme or path",
            Self::Network => "one address is scanned here: give a network to `openports scan`",
            Self::Range => "one address is scanned here: give a range to `openports scan`",
            Self::NotV6 => "no IPv6 address; give the host alone, without scheme or port",
            Self::Zone => "an IPv6 zone is the number or the name of an interface of this machine",
            Self::NameTooLong => "a name has at most 253 bytes",
            Self::LabelEmpty => "a name has no empty label",
            Self::LabelTooLong => "a label of a name has at most 63 bytes",
            Self::Character(stranger) => return write!(f, "a name has no {stranger:?}"),
            Self::Hyphen => "a label of a name does not begin with a hyphen",
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
    fn a_zone_may_be_the_name_of_an_interface() {
        let table = b"fe80000000000000001122fffe334455 02 40 20 80 br-lan\n";
        let interfaces = Interfaces::parse(table);
        for text in ["fe80::1%br-lan", "[fe80::1%br-lan]", "fe80::1%2"] {
            let expected = Host::Address("fe80::1".parse().unwrap(), 2);
            assert_eq!(Host::parse_among(text, &interfaces), Ok(expected), "{text}");
        }
        assert_eq!(Host::parse_among("fe80::1%eth0", &interfaces), Err(HostError::Zone));
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
        check("a-", "a-");
        check("a-.b", "a-.b");
        check("10-0-0-1.default.pod", "10-0-0-1.default.pod");
        check("10.0.0.1-static.example", "10.0.0.1-static.example");
        check("1-3", "1-3");
        check(&"a".repeat(63), &"a".repeat(63));
        check(&long_name(253), &long_name(253));
        check(&format!("{}.", long_name(253)), &format!("{}.", long_name(253)));
    }

    /// A name of `len` bytes in labels of at most 63 bytes.
    fn long_name(len: usize) -> String {
        let mut name = format!("{}.", "a".repeat(63)).repeat(len / 64);
        name.push_str(&"a".repeat(len % 64));
        assert_eq!(name.len(), len);
        name
    }

    #[test]
    fn the_error_says_why_a_text_is_not_a_host() {
        let check = |text: &str, expected| assert_eq!(Host::parse(text), Err(expected), "{text}");
        use HostError::{Bracket, Character, Empty, Hyphen, LabelEmpty, LabelTooLong, NameTooLong};
        use HostError::{Network, NotV6, OuterBlank, Port, Range, Url, Zone};
        check("", Empty);
        for text in ["127.0.0.1 ", " a", "127.0.0.1\n", "[::1]\t", "10.0.0.0/24 ", "10.0.0.1-9 "] {
            check(text, OuterBlank);
        }
        check("[::1", Bracket);
        check("[::1]x", Bracket);
        for text in ["[::1]:80", "example.com:80", "127.0.0.1:80", "a:99999"] {
            check(text, Port);
        }
        check("http://example.com", Url);
        check("example.com/path", Url);
        check("example.com/", Url);
        check("localhost/24", Url);
        check("127.0.0.1/", Url);
        check("127.0.0.1/path", Url);
        check("//192.0.2.1/24", Url);
        check("http://192.0.2.0/24", Url);
        for text in [
            "192.0.2.0/24",
            "10.0.0.0/33",
            "10.0.0/8",
            "10/8",
            "10.0.0.0/255.0.0.0",
            "[2001:db8::]/64",
            "::/0",
            "2001:db8::/120",
        ] {
            check(text, Network);
        }
        for text in [
            "127.0.0.1-3",
            "10.0.0.9-1",
            "1.2.3.4-1.2.3.4",
            "10.0.0.1-10.0.1.9",
            "10.0.0-5.1-3",
            "10.0.0.1-",
            "10.0.0.1-3.",
            "2001:db8::1-9",
            "2001:db8::1-2001:db8::9",
        ] {
            check(text, Range);
        }
        check("example.com:", NotV6);
        check("127.0.0.1:22:33", NotV6);
        check(":80", NotV6);
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
        for text in ["-a", "-", "a.-b", "--"] {
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
    fn an_international_name_is_refused_with_the_form_to_write_if_it_is_known() {
        for (text, form) in [
            ("bücher.example", Some("xn--bcher-kva.example")),
            ("Bücher.Example.", Some("xn--bcher-kva.example.")),
            ("bücher", Some("xn--bcher-kva")),
            ("bücher.1", None),
            ("bücher .example", None),
            ("http://bücher.example", None),
            ("bücher.example:80", None),
        ] {
            let ascii = form.map(Into::into);
            assert_eq!(Host::parse(text), Err(HostError::NotAscii { ascii }), "{text}");
        }
        let error = Host::parse("bücher.example").unwrap_err().to_string();
        assert!(error.ends_with("xn-- form (punycode): xn--bcher-kva.example"), "{error}");
    }

    #[test]
    fn a_character_that_only_looks_like_ascii_is_refused_by_its_code_point() {
        for text in
            ["１２７.0.0.1", "127。0。0。1", "127.0.0.١", "10.0.0.1–5", "a\u{200b}", "\u{fffd}"]
        {
            let expected = HostError::Confusable(Confusable::find(text).unwrap());
            assert_eq!(Host::parse(text), Err(expected), "{text}");
        }
    }

    #[test]
    fn a_name_that_begins_like_an_address_is_a_name_and_a_mistyped_address_is_none() {
        for name in [
            "192.0.2.1-static.isp.net",
            "10.0.0.1-2.example",
            "10.0.0.1-5.pool.example",
            "1.2.3.4x.example",
            "10.0.0.host",
            "10.0.0.web1",
            "x.x.x.x",
            "3com.com",
            "1password.com",
            "10.example.com",
            "69.xxx",
            "1e100.net",
            "10-0-0-1.example.com",
            "ip-10-0-0-1",
            "ip-10-0-0-1.ec2.internal",
            "192-168-1-1.local",
            "10.in-addr.arpa",
            "4.3.2.1.e164.arpa",
            "4.a.b.c.example",
            "0x7f.example",
            "2.pool.ntp.org",
            "99-bottles",
            "10.1st",
            "10.0.0.1.nip.io",
            "10-0-0-1.nip.io",
            "1.2.3.xn--90ae",
            "1.xn--90ae.",
        ] {
            assert_eq!(address_like(name), None, "{name}");
            assert_eq!(Host::parse(name), Ok(Host::Name(name.into())), "{name}");
        }
        for text in [
            "10.0.0.x",
            "10.0.0.X",
            "10.x.x.x",
            "10.0.0.*",
            "10.0.*.*",
            "10.0.0.1a",
            "10.0.0.1_254",
            "10.0.0.0_24",
            "10.0.0.1a.",
            "10.0.0.1-x",
            "10.0.0.1-2a",
            "10.0.0.1a-2",
            "10.0.0.1-2_5",
            "10.0.0.1-254.x",
            "10.0.0.1st",
            "10.9.0.1-10.9.0.x",
            "10.9.0.1-10.9.0.2a",
            "10.9.0.1-10.9.0.5x",
            "10.9.0.1-10.9.0.l0",
            "10.0.0.1-host",
            "10.0.0.1-2O",
            "10.0.0.1-last.",
            "10.0.0.1-a.b.c.d",
            "10.9.0.1-10.9.0.end",
            "10.9.0.1-10.9.0.254-x",
            "10.9.0.0-10.9.255.255x",
            "10.9.0.1_10.9.0.5x",
            "10.9.0.x-5",
            "10.9.0.x-x",
            "10.9.0.1o",
            "10.9.0.l",
            "10.9.0-1.x",
            "10-12.9.0.x",
            "10.9.x.y",
            "192.168.x",
            "192.168.5x",
            "192.168.x.",
            "10.x",
            "10.2a",
        ] {
            assert_eq!(address_like(text), Some(AddressLike::Malformed), "{text}");
            assert_eq!(Host::parse(text), Err(HostError::Number), "{text}");
        }
        for text in ["1.2.3.1-4-5", "10.0.0.1-254", "10.0.0.1-", "10.0.0.1-10.0.1.9"] {
            assert_eq!(address_like(text), Some(AddressLike::Range), "{text}");
        }
        for text in ["10.0.0.1", "10.0.0.256", "::1", "fe80::1%br-lan", "localhost", "a-1", ""] {
            assert_eq!(address_like(text), None, "{text}");
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
