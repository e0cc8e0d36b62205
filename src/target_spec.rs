//! The grammar of a target on the command line and in a list of targets.
//!
//! | form | examples |
//! |---|---|
//! | a name or an address | `example.com`, `192.0.2.7`, `2001:db8::1`, `[fe80::1%eth0]` |
//! | one of these with a port | `example.com:443`, `192.0.2.7:22`, `[::1]:80` |
//! | a network | `10.0.0.0/24`, `2001:db8::/120`, `10.0.0.0/24:22` |
//! | a range | `10.0.0.1-254`, `10.0.0.1-10.0.1.9`, `2001:db8::1-2001:db8::ff` |
//!
//! This is a pure parser. It never resolves a name, and never accepts as a name a text that looks
//! like an address, a range, a network or a list of ports: with a wildcard in the search domain, a
//! lookup of `10.0.0.1-254` would find a host that was not meant.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::decimal::{DecimalError, parse_decimal};
use crate::host::{AddressLike, Host, HostError, address_like};
use crate::interfaces::Interfaces;
use crate::port_set::list::after_top;
use crate::port_set::{PortSet, parse_port};
use crate::service_names;
use crate::spelling::quote;

/// A well-formed target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// The hosts that it names.
    pub hosts: TargetHosts,
    /// The port of the target; no other port is then scanned.
    pub port: Option<u16>,
    /// The network that an address with host bits was read as, `10.0.0.0/24` for `10.0.0.1/24`.
    pub masked: Option<String>,
}

/// The hosts that a target names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetHosts {
    /// A DNS name as written; [`Host::parse`] accepts it.
    Name(Box<str>),
    /// One or more addresses.
    Addresses(AddressRange),
}

/// Consecutive addresses of one family, at least one. v4-mapped addresses are stored as IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressRange {
    /// The lowest address.
    pub first: IpAddr,
    /// The highest address.
    pub last: IpAddr,
    /// The scope id of link-local IPv6 addresses, 0 if there is none.
    pub scope: u32,
}

/// The maximum number of addresses in one IPv6 network or range: as many as IPv4 has. At 10,000
/// probes per second this takes five days for each port.
pub const V6_ADDRESSES_MAX: u128 = 1 << 32;

impl AddressRange {
    /// One address. The scope is kept only with a link-local or multicast address: it does not
    /// select another host with any other one, so that `::1%1` is `::1`.
    pub fn one(address: IpAddr, scope: u32) -> Self {
        let address = address.to_canonical();
        let is_scoped = match address {
            IpAddr::V4(_) => false,
            IpAddr::V6(v6) => v6.is_unicast_link_local() || v6.is_multicast(),
        };
        let scope = if is_scoped { scope } else { 0 };
        Self { first: address, last: address, scope }
    }

    /// The range from one address to another of its family. `None` if they are of two families, or
    /// if the first is above the last.
    pub fn new(first: IpAddr, last: IpAddr) -> Option<Self> {
        let (first, last) = (first.to_canonical(), last.to_canonical());
        let is_range = first.is_ipv4() == last.is_ipv4() && first <= last;
        is_range.then_some(Self { first, last, scope: 0 })
    }

    /// The number of addresses; of all IPv6 addresses one less, which no number here can exceed.
    pub const fn len(&self) -> u128 {
        (bits(self.last) - bits(self.first)).saturating_add(1)
    }

    /// Always false: a range has at least one address.
    pub const fn is_empty(&self) -> bool {
        false
    }

    /// The logarithm of the number of addresses to base 2, rounded down.
    fn shift(&self) -> u32 {
        match (bits(self.last) - bits(self.first)).checked_add(1) {
            Some(len) => len.ilog2(),
            None => 128,
        }
    }
}

/// An address as a number.
const fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_bits() as u128,
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

impl Spec {
    /// Parses a target without a list of interfaces, like [`Spec::parse_among`]: a zone can only be
    /// a number.
    pub fn parse(text: &str) -> Result<Self, SpecError> {
        Self::parse_among(text, &Interfaces::default())
    }

    /// Parses a target. A zone is a number, or the name of one of these interfaces.
    ///
    /// # Errors
    /// A [`SpecError`].
    pub fn parse_among(text: &str, interfaces: &Interfaces) -> Result<Self, SpecError> {
        let spec = Self::parse_of_any_size(text, interfaces)?;
        match &spec.hosts {
            TargetHosts::Addresses(range) if range.len() > V6_ADDRESSES_MAX => {
                Err(SpecError::TooLarge { shift: range.shift() })
            }
            TargetHosts::Addresses(_) | TargetHosts::Name(_) => Ok(spec),
        }
    }

    /// Parses an excluded target, like [`Spec::parse_among`]. It has no port, because an exclusion
    /// applies to a host, and may have any number of addresses, because none of them is scanned.
    ///
    /// # Errors
    /// A [`SpecError`].
    pub fn parse_excluded(text: &str, interfaces: &Interfaces) -> Result<Self, SpecError> {
        let spec = Self::parse_of_any_size(text, interfaces)?;
        if spec.port.is_some() { Err(SpecError::ExcludedPort) } else { Ok(spec) }
    }

    fn parse_of_any_size(text: &str, interfaces: &Interfaces) -> Result<Self, SpecError> {
        if text.trim().is_empty() {
            return Err(SpecError::Host(HostError::Empty));
        }
        if text.trim_ascii() != text {
            return Err(SpecError::Host(HostError::OuterBlank));
        }
        if let Some((_, rest)) = text.split_once("://") {
            let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
            // A user may stand before the host (RFC 3986 section 3.2.1).
            let host = authority.rsplit('@').next().unwrap_or_default();
            return Err(SpecError::Url { meant: host.to_owned() });
        }
        if is_target_list(text, interfaces) {
            return Err(SpecError::Commas);
        }
        if let Some(rest) = text.strip_prefix('[') {
            return parse_bracketed(rest, interfaces);
        }
        if let Some((address, prefix)) = text.split_once('/') {
            return parse_network(text, address, prefix);
        }
        if text == "-" {
            return Err(SpecError::Stdin);
        }
        if is_port_list(text) {
            return Err(SpecError::PortList);
        }
        let colons = text.bytes().filter(|byte| *byte == b':').count();
        let (host, port) = match text.split_once(':') {
            Some((host, port)) if colons == 1 => (host, Some(port)),
            Some(_) | None => (text, None),
        };
        if let Some((first, last)) = host.split_once('-')
            && let Ok(first) = first.parse::<IpAddr>()
            && address_like(host) == Some(AddressLike::Range)
        {
            return parse_range(first, last, port);
        }
        if is_numeric(host) && host.parse::<Ipv4Addr>().is_err() {
            return Err(SpecError::Octets);
        }
        if host.is_empty() {
            return Err(SpecError::Host(HostError::Empty));
        }
        Self::of_host(host, port.map(read_port).transpose()?, interfaces)
    }

    fn of_host(text: &str, port: Option<u16>, interfaces: &Interfaces) -> Result<Self, SpecError> {
        let host = Host::parse_among(text, interfaces);
        let host = host.map_err(|error| SpecError::of_host(text, error))?;
        let hosts = match host {
            Host::Name(_) => TargetHosts::Name(text.into()),
            Host::Address(address, scope) => {
                TargetHosts::Addresses(AddressRange::one(address, scope))
            }
        };
        Ok(Self { hosts, port, masked: None })
    }
}

/// Parses `::1]` and `::1]:80`.
fn parse_bracketed(rest: &str, interfaces: &Interfaces) -> Result<Spec, SpecError> {
    let Some((inner, rest)) = rest.split_once(']') else {
        return Err(SpecError::Host(HostError::Bracket));
    };
    let port = match rest.strip_prefix(':') {
        Some(port) => Some(read_port(port)?),
        None if rest.is_empty() => None,
        None => return Err(SpecError::Trailing { text: quote(rest) }),
    };
    if address_like(inner).is_some() {
        return Err(SpecError::Bracketed);
    }
    // The text in brackets must be an IPv6 address (RFC 3986 section 3.2.2).
    if !inner.contains(':') {
        return Err(SpecError::Host(HostError::NotV6));
    }
    Spec::of_host(inner, port, interfaces)
}

/// Parses `10.0.0.0/24` and `10.0.0.0/24:80`.
fn parse_network(text: &str, address: &str, prefix: &str) -> Result<Spec, SpecError> {
    let Ok(address) = address.parse::<IpAddr>() else {
        if text.starts_with(['/', '.', '~']) {
            return Err(SpecError::File);
        }
        let is_prefix = prefix.starts_with(|c: char| c.is_ascii_digit())
            && prefix.bytes().all(|byte| byte.is_ascii_digit() || byte == b':');
        let (host, has_port) = match address.split_once(':') {
            Some((host, port)) if !port.contains(':') => (host, true),
            Some(_) | None => (address, false),
        };
        return Err(match is_numeric(host) || host.contains(':') {
            // A URL without its scheme.
            _ if has_port && !is_prefix => SpecError::Url { meant: address.to_owned() },
            true => SpecError::Network,
            false if is_prefix => SpecError::NetworkOfName,
            false => SpecError::Url { meant: address.to_owned() },
        });
    };
    let (prefix, port) = match prefix.split_once(':') {
        Some((prefix, port)) => (prefix, Some(read_port(port)?)),
        None => (prefix, None),
    };
    let width = if address.is_ipv4() { 32 } else { 128 };
    let prefix =
        parse_decimal(prefix, 0..=width).map_err(|_| SpecError::Prefix { family: address })? as u32;
    let host_bits = u128::MAX.checked_shr(128 - width as u32 + prefix).unwrap_or(0);
    let host_bits = if address.is_ipv4() { host_bits & u128::from(u32::MAX) } else { host_bits };
    let at = |bits: u128| match address {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::from_bits(bits as u32)),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::from_bits(bits)),
    };
    let (first, last) = (at(bits(address) & !host_bits), at(bits(address) | host_bits));
    let masked = (first != address).then(|| format!("{first}/{prefix}"));
    let range = AddressRange::new(first, last).ok_or_else(|| SpecError::Trailing {
        // The first and the last address are of two families only in a v4-mapped network that is
        // larger than the IPv4 address space.
        text: quote(text),
    })?;
    Ok(Spec { hosts: TargetHosts::Addresses(range), port, masked })
}

/// Parses `254` and `10.0.1.9` after `10.0.0.1-`.
fn parse_range(first: IpAddr, last: &str, port: Option<&str>) -> Result<Spec, SpecError> {
    let port = port.map(read_port).transpose()?;
    let last = match (first, last.parse::<IpAddr>()) {
        (_, Ok(last)) => last,
        (IpAddr::V4(v4), Err(_)) => {
            let octet = parse_decimal(last, 0..=255).map_err(|_| SpecError::Range)?;
            let [a, b, c, _] = v4.octets();
            IpAddr::V4(Ipv4Addr::new(a, b, c, octet as u8))
        }
        (IpAddr::V6(_), Err(_)) => return Err(SpecError::Range),
    };
    if first.is_ipv4() != last.is_ipv4() {
        return Err(SpecError::Range);
    }
    let Some(range) = AddressRange::new(first, last) else {
        return Err(SpecError::Backwards { first, last });
    };
    Ok(Spec { hosts: TargetHosts::Addresses(range), port, masked: None })
}

/// Reads the port behind the colon of a target.
///
/// # Errors
/// [`SpecError::SeveralPorts`], [`SpecError::ServiceName`] or [`SpecError::Port`].
pub fn read_port(text: &str) -> Result<u16, SpecError> {
    parse_port(text).map_err(|reason| match PortSet::parse(text) {
        Ok(_) => SpecError::SeveralPorts { list: text.to_owned() },
        Err(_) => match service_names::built_in_port(text) {
            Some(port) => SpecError::ServiceName { name: text.to_owned(), port },
            None => SpecError::Port { text: quote(text), reason },
        },
    })
}

/// Whether the text can only be meant as a list of ports: numbers and ranges, `top:100`, and the
/// blanks and semicolons that other programs accept. A host called `top10` must be written
/// `top10.`, and `10-0-0-1` is no list of ports.
pub fn is_port_list(text: &str) -> bool {
    let is_range = |range: &str| {
        range.bytes().all(|it| it.is_ascii_digit() || it == b'-') && range.matches('-').count() <= 1
    };
    let is_item = |item: &str| after_top(item).is_some() || item.split([' ', ';']).all(is_range);
    !text.is_empty() && text.split(',').all(is_item)
}

/// Whether the text is a list of targets with commas, as other tools have it.
fn is_target_list(text: &str, interfaces: &Interfaces) -> bool {
    let is_target = |item: &str| Spec::parse_of_any_size(item, interfaces).is_ok();
    text.contains(',') && text.split(',').filter(|item| !item.is_empty()).all(is_target)
}

/// Whether the text consists of digits and the separators of addresses and ranges, such as
/// `10.0.0-3.1`, `10.0.0.*` or `127.1`. Some tools read these as addresses.
pub(super) fn is_numeric(text: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_digit() || b".-*,".contains(&byte);
    text.bytes().all(is_allowed) && text.bytes().any(|byte| byte.is_ascii_digit())
}

/// The reason why a text is not a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SpecError {
    /// The text is not a host.
    Host(HostError),
    /// The text after the colon is not a port.
    Port {
        /// The text, as [`quote`] writes it.
        text: String,
        /// The reason.
        reason: DecimalError,
    },
    /// The text is a URL or a path.
    Url {
        /// The host in it, with its port if there is one.
        meant: String,
    },
    /// The text is the path of a file.
    File,
    /// The text after the colon is a list of ports.
    SeveralPorts {
        /// The list as written.
        list: String,
    },
    /// The text after the colon is the name of a service.
    ServiceName {
        /// The name.
        name: String,
        /// Its port.
        port: u16,
    },
    /// The text is a list of ports.
    PortList,
    /// The text is a list of targets with commas.
    Commas,
    /// The text is `-`, which means stdin only as the value of a flag.
    Stdin,
    /// A network or a range with blanks.
    Blanks,
    /// A network or a range in brackets.
    Bracketed,
    /// A name with the length of a prefix.
    NetworkOfName,
    /// The text before the slash looks like an address and is not one.
    Network,
    /// The text after the slash is not the length of a prefix.
    Prefix {
        /// The address of the network.
        family: IpAddr,
    },
    /// The text after the dash is not the end of a range.
    Range,
    /// The first address of a range is above the last one.
    Backwards {
        /// The first address.
        first: IpAddr,
        /// The last address.
        last: IpAddr,
    },
    /// Numbers, dots and dashes in an unsupported form.
    Octets,
    /// The number of addresses is two to this power, more than [`V6_ADDRESSES_MAX`].
    TooLarge {
        /// The exponent.
        shift: u32,
    },
    /// An excluded target has a port.
    ExcludedPort,
    /// There is further text after a complete target.
    Trailing {
        /// The text, as [`quote`] writes it.
        text: String,
    },
}

impl SpecError {
    /// The error for a text that is neither a single host nor a well-formed target of another form.
    fn of_host(text: &str, error: HostError) -> Self {
        let is_several = [HostError::Network, HostError::Range].contains(&error);
        if is_several && text.contains(char::is_whitespace) {
            Self::Blanks
        } else if error == HostError::Network {
            Self::Network
        } else if error == HostError::Range {
            Self::Range
        } else if error == HostError::Number {
            Self::Octets
        } else {
            Self::Host(error)
        }
    }
}

impl fmt::Display for SpecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(HostError::NotV6) => {
                f.write_str("no IPv6 address; write a port behind brackets, [2001:db8::1]:80")
            }
            Self::Host(error) => error.fmt(f),
            Self::Port { text, reason } => write!(f, "the port {text}: {reason}"),
            Self::SeveralPorts { list } => {
                write!(f, "one port may follow the colon; give several as -p {list}")
            }
            Self::Url { meant } if meant.is_empty() => {
                f.write_str("give the host alone, without scheme or path")
            }
            Self::Url { meant } => {
                write!(f, "give the host alone, without scheme or path: {}", quote(meant))
            }
            Self::File => f.write_str(
                "a file of targets is read with --targets FILE or --exclude-targets-from FILE",
            ),
            Self::PortList => f.write_str(
                "a list of ports, not a target; ports stand once, behind the targets or in -p",
            ),
            Self::ServiceName { name, port } => {
                write!(f, "{name} is the name of a service; write {port}")
            }
            Self::Commas => {
                f.write_str("write a blank between targets, and a new line in a list, not a comma")
            }
            Self::Stdin => f.write_str("targets on stdin are read with --targets -"),
            Self::Blanks => f.write_str("a network or a range is written without blanks"),
            Self::Bracketed => f.write_str(
                "brackets enclose one address; write a network as 2001:db8::/120 or \
                 2001:db8::/120:80, and a range as 2001:db8::1-2001:db8::ff with -p 80",
            ),
            Self::NetworkOfName => {
                f.write_str("a network is written with an address, 10.0.0.0/24, not with a name")
            }
            Self::Network => {
                f.write_str("expected a network such as 10.0.0.0/24 or 2001:db8::/120")
            }
            Self::Prefix { family } => {
                let most = if family.is_ipv4() { 32 } else { 128 };
                write!(f, "the prefix of a network is a number from 0 to {most}")
            }
            Self::Range => f.write_str(
                "expected a range such as 10.0.0.1-254, 10.0.0.1-10.0.1.9 or \
                 2001:db8::1-2001:db8::ff",
            ),
            Self::Backwards { first, last } => {
                write!(f, "the range runs backwards, from {first} to {last}")
            }
            Self::Octets => f.write_str(
                "no address, network or range; these are written 10.0.0.1, 10.0.0.0/24, \
                 10.0.0.1-254 and 10.0.0.1-10.0.1.9",
            ),
            Self::TooLarge { shift } => write!(
                f,
                "has 2^{shift} addresses, of which 2^32 can be scanned: give a prefix from /96 \
                 to /128, or a range of as many addresses"
            ),
            Self::ExcludedPort => {
                f.write_str("targets are excluded here; for ports write --exclude")
            }
            Self::Trailing { text } if text.starts_with("\"/") => {
                write!(f, "{text} follows the brackets: write a network without them")
            }
            Self::Trailing { text } => write!(f, "{text} follows the address"),
        }
    }
}

impl std::error::Error for SpecError {}

#[cfg(test)]
mod tests {
    use super::*;

    /// A target as `first..last%scope:port (network meant)`.
    fn show(spec: &Spec) -> String {
        let mut text = match &spec.hosts {
            TargetHosts::Name(name) => format!("name {name}"),
            TargetHosts::Addresses(range) if range.len() == 1 => range.first.to_string(),
            TargetHosts::Addresses(range) => format!("{}..{}", range.first, range.last),
        };
        if let TargetHosts::Addresses(AddressRange { scope: 1.., .. }) = &spec.hosts {
            text.push_str(" with a scope");
        }
        if let Some(port) = spec.port {
            text.push_str(&format!(" port {port}"));
        }
        if let Some(network) = &spec.masked {
            text.push_str(&format!(" meaning {network}"));
        }
        text
    }

    fn check(text: &str, expected: &str) {
        let shown = match Spec::parse(text) {
            Ok(spec) => show(&spec),
            Err(error) => format!("error: {error}"),
        };
        assert!(shown.starts_with(expected), "{text:?} gave {shown:?}, expected {expected:?}");
        assert!(!shown.contains("scope") || text.contains("fe80"), "{text:?} gave {shown:?}");
        assert!(!expected.is_empty());
    }

    #[test]
    fn a_target_is_a_name_or_an_address_with_or_without_a_port() {
        for (text, expected) in [
            ("example.com", "name example.com"),
            ("Example.COM.", "name Example.COM."),
            ("a-1", "name a-1"),
            ("1-2.example", "name 1-2.example"),
            ("1.2.3.4-dsl.example", "name 1.2.3.4-dsl.example"),
            ("192.0.2.1-static.isp.net:443", "name 192.0.2.1-static.isp.net port 443"),
            ("10.0.0.1-2.example", "name 10.0.0.1-2.example"),
            ("10.0.0.1-a.example", "name 10.0.0.1-a.example"),
            ("localhost:80", "name localhost port 80"),
            ("192.0.2.7", "192.0.2.7"),
            ("192.0.2.7:65535", "192.0.2.7 port 65535"),
            ("::1", "::1"),
            ("[::1]", "::1"),
            ("[::1]:80", "::1 port 80"),
            ("::ffff:10.0.0.1", "10.0.0.1"),
            ("fe80::1%3", "fe80::1 with a scope"),
            ("[fe80::1%3]:22", "fe80::1 with a scope port 22"),
            ("::1%1", "::1"),
            ("[2001:db8::1%3]:22", "2001:db8::1 port 22"),
        ] {
            check(text, expected);
        }
    }

    #[test]
    fn a_network_is_its_first_to_its_last_address() {
        for (text, expected) in [
            ("10.0.0.0/24", "10.0.0.0..10.0.0.255"),
            ("10.0.0.1/24", "10.0.0.0..10.0.0.255 meaning 10.0.0.0/24"),
            ("10.0.0.0/8", "10.0.0.0..10.255.255.255"),
            ("0.0.0.0/0", "0.0.0.0..255.255.255.255"),
            ("192.0.2.7/32", "192.0.2.7"),
            ("192.0.2.7/31", "192.0.2.6..192.0.2.7 meaning 192.0.2.6/31"),
            ("10.0.0.0/30:22", "10.0.0.0..10.0.0.3 port 22"),
            ("2001:db8::/120", "2001:db8::..2001:db8::ff"),
            ("2001:db8::/96", "2001:db8::..2001:db8::ffff:ffff"),
            ("2001:db8::/120:22", "2001:db8::..2001:db8::ff port 22"),
            ("::1/128", "::1"),
            ("::ffff:10.0.0.0/120", "10.0.0.0..10.0.0.255"),
            ("2001:db8::/95", "error: has 2^33 addresses, of which 2^32 can be scanned"),
            ("::/0", "error: has 2^128 addresses"),
            ("10.0.0.0/33", "error: the prefix of a network is a number from 0 to 32"),
            ("::/129", "error: the prefix of a network is a number from 0 to 128"),
            ("10.0.0.0/", "error: the prefix"),
            ("10.0.0.0/+8", "error: the prefix"),
            ("10.0.0.0/255.0.0.0", "error: the prefix"),
            ("10.0.0/8", "error: expected a network"),
            ("10.0.0.0/8/8", "error: the prefix"),
            ("10.0.0.0/8:0", "error: the port \"0\""),
            ("example.com/24", "error: a network is written with an address"),
            ("localhost/24:80", "error: a network is written with an address"),
        ] {
            check(text, expected);
        }
    }

    #[test]
    fn a_range_ends_at_an_octet_or_an_address() {
        for (text, expected) in [
            ("10.0.0.1-254", "10.0.0.1..10.0.0.254"),
            ("10.0.0.1-10.0.1.9", "10.0.0.1..10.0.1.9"),
            ("10.0.0.1-1", "10.0.0.1"),
            ("1.2.3.4-1.2.3.4", "1.2.3.4"),
            ("10.0.0.1-9:80", "10.0.0.1..10.0.0.9 port 80"),
            ("10.0.0.1-10.0.0.9:80", "10.0.0.1..10.0.0.9 port 80"),
            ("2001:db8::1-2001:db8::ff", "2001:db8::1..2001:db8::ff"),
            ("0.0.0.0-255.255.255.255", "0.0.0.0..255.255.255.255"),
            ("10.0.0.9-1", "error: the range runs backwards, from 10.0.0.9 to 10.0.0.1"),
            ("10.0.0.9-10.0.0.8", "error: the range runs backwards"),
            ("10.0.0.1-256", "error: expected a range"),
            ("10.0.0.1-", "error: expected a range"),
            ("10.0.0.1--2", "error: expected a range"),
            ("10.0.0.1-254-3", "error: expected a range"),
            ("10.0.0.1-2001:db8::1", "error: "),
            ("::1-ff", "error: expected a range"),
            ("::-ffff::", "error: has 2^127 addresses"),
        ] {
            check(text, expected);
        }
    }

    #[test]
    fn a_text_that_looks_like_an_address_or_a_list_of_ports_is_not_a_name() {
        for text in
            ["127.1", "10.0.0", "10.0.0-3.1", "10.0.*.1", "10.0.0.1,2", "1.2.3.4.5", "010.0.0.1"]
        {
            check(text, "error: no address, network or range");
        }
        for text in ["80", "22,80", "1-1024", "60000-", "top:100", "22,top:10", "top:9,80-"] {
            check(text, "error: a list of ports");
        }
        check("0x7f.1", "error: ");
        check("0x7f000001", "error: ");
        check("10.0.0.256", "error: no address");
        for text in
            ["10.0.0.x", "10.0.0.*", "10.0.0.1a", "10.0.0.1_254", "10.0.0.0_24", "1.2.3.4x:80"]
        {
            check(text, "error: no address, network or range");
        }
        check("1.2.3.1-4-5", "error: expected a range");
        check("-", "error: targets on stdin are read with --targets -");
    }

    #[test]
    fn the_error_says_what_to_write_instead() {
        for (text, expected) in [
            ("", "error: can't be blank"),
            ("[::1", "error: an opening bracket needs its closing one"),
            ("[::1]:0", "error: the port \"0\": must be from 1 to 65535"),
            ("[::1]x", "error: \"x\" follows the address"),
            ("10-0-0-1", "error: no address, network or range"),
            ("[::1]/128", "error: \"/128\" follows the brackets: write a network without them"),
            ("[::1]:", "error: the port \"\": invalid decimal string"),
            ("[10.0.0.1]", "error: no IPv6 address"),
            ("a:b", "error: the port \"b\": invalid decimal string"),
            ("host:99999", "error: the port \"99999\": must be from 1 to 65535"),
            ("host:", "error: the port \"\""),
            (":80", "error: can't be blank"),
            ("a:b:c", "error: no IPv6 address; write a port behind brackets"),
            ("http://a.example/x", "error: give the host alone, without scheme or path: \"a.ex"),
            ("https://[::1]:80/", "error: give the host alone, without scheme or path: \"[::1]:80"),
            ("a.example/x", "error: give the host alone"),
            ("a.example:80/", "error: give the host alone, without scheme or path: \"a.example:80"),
            ("10.0.0.1:80/x", "error: give the host alone, without scheme or path: \"10.0.0.1:80"),
            ("10.0.0.1:80/24", "error: expected a network"),
            ("a.example:80/24", "error: a network is written with an address"),
            ("2001:db8::g/64", "error: expected a network"),
            ("::1-2", "error: expected a range such as 10.0.0.1-254, 10.0.0.1-10.0.1.9 or 2001:"),
            ("127.0.0.1:http", "error: http is the name of a service; write 80"),
            ("[::1]:ssh", "error: ssh is the name of a service; write 22"),
            ("127.0.0.1,127.0.0.2", "error: write a blank between targets"),
            ("localhost,a.example:80,::1", "error: write a blank between targets"),
            ("localhost,", "error: write a blank between targets"),
            ("127.0.0.1-3,a.example", "error: write a blank between targets"),
            ("10.0.0.0/24,10.0.1.0/24", "error: write a blank between targets"),
            ("exa~mple,a", "error: a name has no"),
            (" ", "error: can't be blank"),
            ("localhost:22,80", "error: one port may follow the colon; give several as -p 22,80"),
            ("127.0.0.1:80-90", "error: one port may follow the colon; give several as -p 80-90"),
            ("10.0.0.1-9:80,81", "error: one port may follow the colon"),
            ("10.0.0.0/24:80,81", "error: one port may follow the colon"),
            ("[::1]:1-9", "error: one port may follow the colon"),
            ("[::1/128]:80", "error: brackets enclose one address"),
            ("[::1-::2]:80", "error: brackets enclose one address"),
            ("[::1-::2]", "error: brackets enclose one address"),
            ("127.0.0.1 - 127.0.0.3", "error: a network or a range is written without blanks"),
            (
                "bücher.example",
                "error: write an international name in its xn-- form (punycode): \
                 xn--bcher-kva.example",
            ),
            ("bücher.example:80", "error: write an international name"),
            ("ssh://root@127.0.0.1", "error: give the host alone, without scheme or path: \"127."),
            (
                "ftp://a:b@c.example:21/x",
                "error: give the host alone, without scheme or path: \"c.ex",
            ),
            ("http:///x", "error: give the host alone, without scheme or path"),
            ("./hosts", "error: a file of targets is read with --targets FILE"),
            ("../hosts", "error: a file of targets is read with --targets FILE"),
            ("/etc/hosts", "error: a file of targets is read with --targets FILE"),
            ("~/hosts", "error: a file of targets is read with --targets FILE"),
            ("exa~mple", "error: a name has no '~'"),
            ("127.0.0.1 ", "error: remove the blank at its beginning or end"),
            (" 10.0.0.0/24", "error: remove the blank at its beginning or end"),
            ("10.0.0.1-9\n", "error: remove the blank at its beginning or end"),
            ("http://a.example ", "error: remove the blank at its beginning or end"),
        ] {
            check(text, expected);
        }
    }

    #[test]
    fn an_exclusion_may_have_more_addresses_than_can_be_scanned() {
        for (text, len) in [
            ("2001:db8::/64", 1 << 64),
            ("::/0", u128::MAX),
            ("::1-2001:db8::", 0x2001_0db8 << 96),
            ("10.0.0.0/8", 1 << 24),
        ] {
            let spec = Spec::parse_excluded(text, &Interfaces::default()).unwrap();
            let TargetHosts::Addresses(range) = spec.hosts else { panic!("a network") };
            assert_eq!(range.len(), len, "{text}");
        }
        let fault = Spec::parse_excluded("::/0:80", &Interfaces::default());
        assert_eq!(fault, Err(SpecError::ExcludedPort));
    }

    #[test]
    fn the_number_of_addresses_follows_from_the_prefix() {
        for prefix in 0..=32_u32 {
            let spec = Spec::parse(&format!("10.20.30.40/{prefix}")).unwrap();
            let TargetHosts::Addresses(range) = spec.hosts else { panic!("a network") };
            assert_eq!(range.len(), 1 << (32 - prefix), "/{prefix}");
        }
        for prefix in 96..=128_u32 {
            let spec = Spec::parse(&format!("2001:db8::1234/{prefix}")).unwrap();
            let TargetHosts::Addresses(range) = spec.hosts else { panic!("a network") };
            assert_eq!(range.len(), 1 << (128 - prefix), "/{prefix}");
        }
    }
}
