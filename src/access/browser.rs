//! Which clients are let in: a share of the scans for each, and nobody through a browser's back.
//!
//! A web page may have its reader's browser ask this service, which then scans a network that the
//! page cannot see. [`BrowserHeaders`] refuses pages of other sites; [`HostGuard`] refuses pages
//! that made their own name point here (DNS rebinding). Neither is authentication: a program may
//! send what it likes, and may scan without our help.
//!
//! Invariant: a [`Quota`] holds an entry exactly for the clients that hold a [`Share`].

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use crate::policy::Reach;

/// Scans running, by client. Its size is bounded by the scans that run at all
/// (`limits::Settings::scans_max`): who has none running has no entry.
#[derive(Debug, Default)]
pub struct Quota {
    running: BTreeMap<IpAddr, usize>,
}

/// One scan of one client; given back by [`Quota::release`], never dropped before.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a share that is dropped is never free again"]
pub struct Share {
    client: IpAddr,
}

impl Quota {
    /// Takes a share for a scan of `client`; `None` if it has `max` of them.
    pub fn try_take(&mut self, client: IpAddr, max: usize) -> Option<Share> {
        assert!(max > 0, "a share of nothing lets nobody in");
        let client = payer(client);
        let running = self.running.get(&client).copied().unwrap_or(0);
        if running >= max {
            return None;
        }
        self.running.insert(client, running + 1);
        debug_assert!(self.running.values().all(|count| *count > 0));
        Some(Share { client })
    }

    /// Gives a share back.
    pub fn release(&mut self, share: Share) {
        let running = self.running.remove(&share.client).unwrap_or(0);
        assert!(running > 0, "a share is released where it was taken, and once");
        if running > 1 {
            self.running.insert(share.client, running - 1);
        }
        debug_assert!(self.running.values().all(|count| *count > 0));
    }

    /// How many clients have scans running.
    pub fn clients(&self) -> usize {
        self.running.len()
    }
}

/// The address whose quota a client uses: an IPv6 client owns its whole /64 (RFC 4291
/// section 2.5.1) and would otherwise have as many quotas as it likes.
fn payer(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(v4),
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64)),
    }
}

/// What a browser says about the page that asks. Every field is one header's value, trimmed.
#[derive(Clone, Copy, Debug, Default)]
pub struct BrowserHeaders<'a> {
    /// Sec-Fetch-Site (W3C Fetch Metadata section 2.4); no page can set it.
    pub sec_fetch_site: Option<&'a str>,
    /// Origin (RFC 6454 section 7); no page can set it either.
    pub origin: Option<&'a str>,
    /// Host: where the browser believes to have sent the request.
    pub host: Option<&'a str>,
}

/// Why a page's request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SiteDenial {
    /// The browser says that a page of another site asks.
    CrossSite,
    /// The page's origin is not the host and port that it asks.
    ForeignOrigin,
}

impl SiteDenial {
    /// The metric label and the log word.
    pub const fn label(self) -> &'static str {
        match self {
            Self::CrossSite => "cross_site",
            Self::ForeignOrigin => "foreign_origin",
        }
    }
}

impl fmt::Display for SiteDenial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CrossSite => "pages of other sites may not scan through this service",
            Self::ForeignOrigin => "pages of other origins may not scan through this service",
        })
    }
}

impl BrowserHeaders<'_> {
    /// Whether the request may have a scan made. Values of Sec-Fetch-Site that are not known are
    /// ignored, as its section 2.4 asks; `same-site` says nothing ill, and the Origin decides.
    pub fn verdict(&self) -> Result<(), SiteDenial> {
        if self.sec_fetch_site == Some("cross-site") {
            return Err(SiteDenial::CrossSite);
        }
        match (self.origin, self.host) {
            (None, _) => Ok(()),
            (Some(origin), Some(host)) if is_origin_of(origin, host) => Ok(()),
            (Some(_), Some(_) | None) => Err(SiteDenial::ForeignOrigin),
        }
    }
}

/// True exactly when `origin` is http or https at `host`. A port that is missing on one side is
/// the scheme's own; the scheme itself is not compared, since a proxy may speak TLS for us.
/// `null` and the schemes of browser extensions are nobody's origin.
fn is_origin_of(origin: &str, host: &str) -> bool {
    let (authority, default_port) = if let Some(authority) = origin.strip_prefix("http://") {
        (authority, "80")
    } else if let Some(authority) = origin.strip_prefix("https://") {
        (authority, "443")
    } else {
        return false;
    };
    let (origin_name, origin_port) = split_port(authority);
    let (host_name, host_port) = split_port(host);
    !origin_name.is_empty()
        && origin_name.eq_ignore_ascii_case(host_name)
        && origin_port.unwrap_or(default_port) == host_port.unwrap_or(default_port)
}

/// The name and the port of `name`, `name:port`, `[v6]` or `[v6]:port`; an empty port is none.
fn split_port(authority: &str) -> (&str, Option<&str>) {
    let Some((name, port)) = authority.rsplit_once(':') else { return (authority, None) };
    let is_port = port.bytes().all(|byte| byte.is_ascii_digit());
    let is_name = !name.contains(':') || name.ends_with(']');
    match (is_port && is_name, port) {
        (false, _) => (authority, None),
        (true, "") => (name, None),
        (true, port) => (name, Some(port)),
    }
}

/// Refuses a browser that was made to believe that a foreign name is this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostGuard {
    /// A service that others can reach is reached under names nobody told us: no check.
    pub reach: Reach,
    /// The names this service is known by, besides `localhost` and every address.
    pub names: Vec<String>,
}

/// The Host of a request is none of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ForeignHost;

impl fmt::Display for ForeignHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("this service is not known by that Host; name it with --host")
    }
}

impl HostGuard {
    /// Whether a request under this Host may have a scan made. An address cannot be rebound. A
    /// request without Host (HTTP/1.0) is no browser's.
    pub fn check(&self, host: Option<&str>) -> Result<(), ForeignHost> {
        let host = match (self.reach, host) {
            (Reach::Outside, _) | (Reach::LoopbackOnly, None) => return Ok(()),
            (Reach::LoopbackOnly, Some(host)) => host,
        };
        let (name, _) = split_port(host);
        let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
        let relative = |name| str::strip_suffix(name, '.').unwrap_or(name);
        let mut names = self.names.iter().map(String::as_str).chain(["localhost"]);
        let is_ours = bare.parse::<IpAddr>().is_ok()
            || names.any(|ours| relative(ours).eq_ignore_ascii_case(relative(name)));
        if is_ours { Ok(()) } else { Err(ForeignHost) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_is_turned_away_is_told_why() {
        assert!(SiteDenial::CrossSite.to_string().starts_with("pages of other sites may not"));
        assert!(
            SiteDenial::ForeignOrigin.to_string().starts_with("pages of other origins may not")
        );
        assert!(ForeignHost.to_string().ends_with("name it with --host"));
    }

    #[test]
    fn a_client_gets_its_share_and_no_more_until_one_is_released() {
        let mut quota = Quota::default();
        let client: IpAddr = "192.0.2.7".parse().unwrap();
        let first = quota.try_take(client, 2).unwrap();
        let second = quota.try_take(client, 2).unwrap();
        assert_eq!(quota.try_take(client, 2), None);
        let other = quota.try_take("192.0.2.8".parse().unwrap(), 2).unwrap();
        quota.release(first);
        let third = quota.try_take(client, 2).unwrap();
        assert_eq!(quota.clients(), 2);
        for share in [second, third, other] {
            quota.release(share);
        }
        assert_eq!(quota.clients(), 0, "who has nothing running is forgotten");
    }

    #[test]
    fn clients_share_a_quota_by_64_bits_of_ipv6_and_by_whole_ipv4_addresses() {
        for (one, other, is_same) in [
            ("2001:db8::1", "2001:db8::ffff:0:0:2", true),
            ("2001:db8::1", "2001:db8:0:1::1", false),
            ("192.0.2.7", "::ffff:192.0.2.7", true),
            ("192.0.2.7", "192.0.2.8", false),
            ("192.0.2.7", "::192.0.2.7", false),
        ] {
            let mut quota = Quota::default();
            let share = quota.try_take(one.parse().unwrap(), 1);
            assert!(share.is_some());
            let is_refused = quota.try_take(other.parse().unwrap(), 1).is_none();
            assert_eq!(is_refused, is_same, "{one} and {other}");
        }
    }

    #[test]
    fn a_page_of_another_site_is_refused_whatever_its_origin() {
        for (site, expected) in [
            (None, Ok(())),
            (Some("cross-site"), Err(SiteDenial::CrossSite)),
            (Some("same-site"), Ok(())),
            (Some("same-origin"), Ok(())),
            (Some("none"), Ok(())),
            (Some("something-new"), Ok(())),
        ] {
            for origin in [None, Some("http://scan.example")] {
                let host = Some("scan.example");
                let headers = BrowserHeaders { sec_fetch_site: site, origin, host };
                assert_eq!(headers.verdict(), expected, "for {headers:?}");
            }
        }
    }

    #[test]
    fn an_origin_is_ours_exactly_when_its_host_and_port_are_the_ones_asked() {
        for (origin, host, is_ours) in [
            ("http://scan.example", "scan.example", true),
            ("http://scan.example", "scan.example:80", true),
            ("http://scan.example:80", "scan.example", true),
            ("http://Scan.Example", "scan.example:", true),
            ("https://scan.example", "scan.example", true),
            ("https://scan.example", "scan.example:443", true),
            ("https://scan.example", "scan.example:80", false),
            ("http://127.0.0.1:8080", "127.0.0.1:8080", true),
            ("http://[::1]:8080", "[::1]:8080", true),
            ("http://[::1]", "[::1]:80", true),
            ("http://[::1]", "[::2]", false),
            ("http://localhost:3000", "localhost:8080", false),
            ("http://scan.example.evil.example", "scan.example", false),
            ("http://evil.example", "scan.example", false),
            ("null", "null", false),
            ("", "", false),
            ("http://", "", false),
            ("file://", "scan.example", false),
            ("chrome-extension://scan.example", "scan.example", false),
            ("http://scan.example http://evil.example", "scan.example", false),
        ] {
            let headers =
                BrowserHeaders { sec_fetch_site: None, origin: Some(origin), host: Some(host) };
            let expected = if is_ours { Ok(()) } else { Err(SiteDenial::ForeignOrigin) };
            assert_eq!(headers.verdict(), expected, "for {headers:?}");
        }
        let headers = BrowserHeaders { origin: Some("http://a.example"), ..Default::default() };
        assert_eq!(headers.verdict(), Err(SiteDenial::ForeignOrigin), "no host to be equal to");
    }

    #[test]
    fn a_service_on_loopback_answers_to_addresses_localhost_and_its_names_only() {
        let names = vec!["scan.example".to_owned()];
        let inside = HostGuard { reach: Reach::LoopbackOnly, names };
        let outside = HostGuard { reach: Reach::Outside, ..inside.clone() };
        for (host, is_ours) in [
            (None, true),
            (Some("127.0.0.1"), true),
            (Some("127.0.0.1:8080"), true),
            (Some("192.0.2.7:8080"), true),
            (Some("[::1]"), true),
            (Some("[::1]:8080"), true),
            (Some("localhost"), true),
            (Some("LOCALHOST.:8080"), true),
            (Some("scan.example:8080"), true),
            (Some("Scan.Example."), true),
            (Some("evil.example"), false),
            (Some("evil.example:8080"), false),
            (Some("localhost.evil.example"), false),
            (Some("a.localhost"), false),
            (Some("scan.example.evil.example"), false),
            (Some("127.0.0.1.evil.example"), false),
            (Some("127.1"), false),
            (Some("[localhost]"), false),
            (Some(""), false),
            (Some(":8080"), false),
        ] {
            let expected = if is_ours { Ok(()) } else { Err(ForeignHost) };
            assert_eq!(inside.check(host), expected, "for {host:?}");
            assert_eq!(outside.check(host), Ok(()), "for {host:?}");
        }
    }
}
