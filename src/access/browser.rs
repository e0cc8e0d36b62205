//! Checks requests that a browser has sent on behalf of a web page.
//!
//! A page may let the browser of its reader send a request to this service, which would then scan a
//! network that the page cannot reach. [`BrowserHeaders`] refuses pages of other sites;
//! [`HostGuard`] refuses pages whose own name resolves to this machine (DNS rebinding). Neither is
//! authentication: a program can send any header, and can scan without this service.

use std::fmt;
use std::net::IpAddr;

use crate::policy::Exposure;

/// The header fields in which a browser describes the page that sent the request. Each is the value
/// of one field, trimmed.
#[derive(Clone, Copy, Debug, Default)]
pub struct BrowserHeaders<'a> {
    /// Sec-Fetch-Site (W3C Fetch Metadata section 2.4). A page cannot set it.
    pub sec_fetch_site: Option<&'a str>,
    /// Origin (RFC 6454 section 7). A page cannot set it either.
    pub origin: Option<&'a str>,
    /// Host: the host to which the browser believes to have sent the request.
    pub host: Option<&'a str>,
}

/// The reason why the request of a page is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SiteDenial {
    /// The browser reports that a page of another site sent the request.
    CrossSite,
    /// The origin of the page is not the host and port to which the request was sent.
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
    /// Whether the request may start a scan. Unknown values of Sec-Fetch-Site are ignored, as
    /// section 2.4 requires; with `same-site` the Origin decides.
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

/// Whether `origin` is http or https at `host`. If the port is missing on one side, it is the
/// default port of the scheme. The scheme itself is not compared, because a proxy may terminate TLS
/// for this service. `null` and the schemes of browser extensions match no host.
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

/// The name and the port of `name`, `name:port`, `[v6]` or `[v6]:port`. An empty port counts as
/// absent.
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

/// Refuses a browser for which a foreign name resolves to this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostGuard {
    /// The exposure of the listeners. A service that other machines can reach may have names that
    /// it does not know, so its names are not checked.
    pub exposure: Exposure,
    /// The names of this service, in addition to `localhost` and every address.
    pub names: Vec<String>,
}

/// The Host of a request is not a name of this service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ForeignHost;

impl fmt::Display for ForeignHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("this service is not known by that Host; name it with --host")
    }
}

impl HostGuard {
    /// Whether a request with this Host may start a scan. An address cannot be rebound. A request
    /// without Host (HTTP/1.0) does not come from a browser.
    pub fn check(&self, host: Option<&str>) -> Result<(), ForeignHost> {
        let host = match (self.exposure, host) {
            (Exposure::NoListener | Exposure::Outside, _) | (Exposure::LoopbackOnly, None) => {
                return Ok(());
            }
            (Exposure::LoopbackOnly, Some(host)) => host,
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
    fn each_denial_has_a_reason() {
        assert!(SiteDenial::CrossSite.to_string().starts_with("pages of other sites may not"));
        assert!(
            SiteDenial::ForeignOrigin.to_string().starts_with("pages of other origins may not")
        );
        assert!(ForeignHost.to_string().ends_with("name it with --host"));
    }

    #[test]
    fn a_page_of_another_site_is_refused_with_any_origin() {
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
    fn an_origin_is_permitted_exactly_if_its_host_and_port_are_those_of_the_request() {
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
    fn a_service_on_loopback_accepts_only_addresses_localhost_and_its_names() {
        let names = vec!["scan.example".to_owned()];
        let inside = HostGuard { exposure: Exposure::LoopbackOnly, names };
        let outside = HostGuard { exposure: Exposure::Outside, ..inside.clone() };
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
