//! Determines the client behind a proxy: the last hop that no trusted proxy has reported.
//!
//! Each proxy appends the address of its client to X-Forwarded-For or Forwarded (RFC 7239). The
//! client may have invented everything to the left of the first untrusted hop. This module has no
//! state; `core` calls it.

use std::net::{IpAddr, SocketAddr};

use crate::cidr::Cidr;

/// The peers that are trusted proxies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proxies(pub Vec<Cidr>);

/// The hops that a request names. Each list has one value per line, in the order of the lines.
#[derive(Clone, Debug, Default)]
pub struct Hops<'a> {
    /// X-Forwarded-For.
    pub x_forwarded_for: Vec<&'a str>,
    /// Forwarded.
    pub forwarded: Vec<&'a str>,
}

impl Proxies {
    /// The client behind `peer`. If a list cannot be read, or if both lists differ, the last
    /// trustworthy address is returned: a client may have sent the field that its proxy does not
    /// know.
    pub fn client(&self, peer: IpAddr, hops: &Hops) -> IpAddr {
        if !self.trusts(peer) {
            return peer;
        }
        // Empty elements of a list are ignored (RFC 9110 section 5.6.1.2).
        let by_list = hops.x_forwarded_for.iter().flat_map(|line| line.split(','));
        let by_list = by_list.map(str::trim).filter(|hop| !hop.is_empty());
        let by_list: Vec<Option<IpAddr>> = by_list.map(address).collect();
        let by_pairs = hops.forwarded.iter().flat_map(|line| split_unquoted(line, ','));
        let by_pairs = by_pairs.filter(|element| !element.trim().is_empty());
        let by_pairs: Vec<Option<IpAddr>> = by_pairs.map(for_address).collect();
        match (by_list.as_slice(), by_pairs.as_slice()) {
            ([], []) => peer,
            (hops, []) | ([], hops) => self.walk(peer, hops),
            (list, pairs) => {
                let (one, other) = (self.walk(peer, list), self.walk(peer, pairs));
                if one == other { one } else { peer }
            }
        }
    }

    fn trusts(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(address))
    }

    /// Follows the hops from the last to the first, as long as a trusted proxy has reported each.
    fn walk(&self, peer: IpAddr, hops: &[Option<IpAddr>]) -> IpAddr {
        let mut client = peer;
        for hop in hops.iter().rev() {
            match hop {
                Some(hop) if self.trusts(client) => client = *hop,
                Some(_) | None => break,
            }
        }
        client
    }
}

/// Parses `192.0.2.7`, `192.0.2.7:1234`, `2001:db8::7`, `[2001:db8::7]` or `[2001:db8::7]:1234`.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let with_port = || text.parse::<SocketAddr>().ok().map(|address| address.ip());
    let address = bare.parse::<IpAddr>().ok().or_else(with_port)?;
    Some(address.to_canonical())
}

/// The `for` parameter of one element of Forwarded (RFC 7239 section 4). Escapes are not supported,
/// because no address needs one. An element with a malformed pair is unreadable: behind a quote
/// that a client left open, the element that its proxy appended would be a part of the client's.
fn for_address(element: &str) -> Option<IpAddr> {
    let mut client = None;
    for pair in split_unquoted(element, ';').map(str::trim).filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=')?;
        let quoted = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
        let bare = quoted.unwrap_or(value);
        if name.contains('"') || bare.contains('"') {
            return None;
        }
        if name.eq_ignore_ascii_case("for") {
            client.get_or_insert(bare);
        }
    }
    address(client?)
}

/// Splits a text at each separator that is in no quoted string (RFC 9110 section 5.6.4).
fn split_unquoted(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let mut is_quoted = false;
    text.split(move |letter| {
        is_quoted ^= letter == '"';
        letter == separator && !is_quoted
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(peer: &str, lists: [&[&str]; 2], expected: &str) {
        let proxies =
            Proxies(vec!["10.0.0.0/8".parse().unwrap(), "2001:db8::/32".parse().unwrap()]);
        let [x_forwarded_for, forwarded] = lists.map(<[&str]>::to_vec);
        let hops = Hops { x_forwarded_for, forwarded };
        let client = proxies.client(peer.parse().unwrap(), &hops);
        assert_eq!(client, expected.parse::<IpAddr>().unwrap(), "{peer} {hops:?}");
    }

    #[test]
    fn a_peer_that_is_not_a_proxy_is_the_client_with_any_headers() {
        check("192.0.2.1", [&["198.51.100.9"], &["for=198.51.100.9"]], "192.0.2.1");
        check("192.0.2.1", [&[], &[]], "192.0.2.1");
    }

    #[test]
    fn the_last_hop_that_no_trusted_proxy_reported_is_the_client() {
        check("10.0.0.1", [&["198.51.100.9"], &[]], "198.51.100.9");
        check("10.0.0.1", [&["203.0.113.5, 198.51.100.9"], &[]], "198.51.100.9");
        check("10.0.0.1", [&["203.0.113.5, 198.51.100.9, 10.0.0.2"], &[]], "198.51.100.9");
        check("10.0.0.1", [&["203.0.113.5", "198.51.100.9"], &[]], "198.51.100.9");
        check("10.0.0.1", [&["10.0.0.3, 10.0.0.2"], &[]], "10.0.0.3");
        check("10.0.0.1", [&["[2001:db8:ffff::9]:443"], &[]], "2001:db8:ffff::9");
        check("10.0.0.1", [&[], &["for=198.51.100.9;proto=https"]], "198.51.100.9");
        check("10.0.0.1", [&[], &["For=\"[2a00::9]:4711\", for=10.0.0.2"]], "2a00::9");
        check("10.0.0.1", [&[], &[]], "10.0.0.1");
    }

    #[test]
    fn empty_elements_of_a_list_are_ignored() {
        check("10.0.0.1", [&[",198.51.100.9,"], &[]], "198.51.100.9");
        check("10.0.0.1", [&["203.0.113.5, ,198.51.100.9, , 10.0.0.2", ""], &[]], "198.51.100.9");
        check("10.0.0.1", [&[], &[",for=198.51.100.9, ,for=10.0.0.2,"]], "198.51.100.9");
        check("10.0.0.1", [&[","], &["for=198.51.100.9"]], "198.51.100.9");
        check("10.0.0.1", [&[" , "], &[","]], "10.0.0.1");
    }

    #[test]
    fn a_quoted_string_may_contain_separators() {
        let check = |line: &str, expected: &str| check("10.0.0.1", [&[], &[line]], expected);
        check(r#"proto="a,b;for=203.0.113.5";for="198.51.100.9""#, "198.51.100.9");
        check(r#"for=198.51.100.9;host="a,b;for=203.0.113.5;c""#, "198.51.100.9");
        check(r#"for=198.51.100.9;host="\",for=203.0.113.5;x=\"""#, "10.0.0.1");
        check(r#"for="\198.51.100.9""#, "10.0.0.1");
    }

    #[test]
    fn a_quote_that_a_client_leaves_open_does_not_make_it_another_client() {
        for start in ["for=203.0.113.5;x=\"", "for=203.0.113.5;\"", "for=203.0.113.5;x=\"\\"] {
            for end in ["for=198.51.100.9", "for=\"[2a00::9]\"", "for=\"[2a00::9]\", for=10.0.0.2"]
            {
                check("10.0.0.1", [&[], &[&format!("{start}, {end}")]], "10.0.0.1");
            }
        }
    }

    #[test]
    fn an_unreadable_hop_or_contradicting_lists_end_at_the_last_trusted_one() {
        for text in ["unknown", "", "_hidden", "198.51.100.9.1", "198.51.100.9, x"] {
            check("10.0.0.1", [&[text], &[]], "10.0.0.1");
        }
        check("10.0.0.1", [&["x, 10.0.0.2"], &[]], "10.0.0.2");
        check("10.0.0.1", [&["198.51.100.9"], &["for=203.0.113.5"]], "10.0.0.1");
        check("10.0.0.1", [&["198.51.100.9"], &["for=198.51.100.9"]], "198.51.100.9");
    }
}
