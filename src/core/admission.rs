//! Admits or refuses requests: checks the token, the site that sent the request and the quotas, and
//! determines the client behind a trusted proxy.
//!
//! This module owns the shares of the clients with running scans. It knows neither clients nor
//! jobs: their number is passed with each call ([`Load`]). `responder` drives it.
//!
//! Invariant: the number of taken shares equals the number of scans that run for clients (`core`
//! compares them).

use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::options::Options;
use crate::access::browser::{BrowserHeaders, HostGuard};
use crate::access::forwarded::{Hops, Proxies};
use crate::access::quota::{Quota, Share};
use crate::access::token::{BearerToken, TokenError};
use crate::api::Route;
use crate::api::problem::{Cause, Problem, sentence};
use crate::http::{Field, Method, Request};

/// The time after which a refused client may retry.
pub(super) const RETRY_AFTER: Duration = Duration::from_secs(1);
/// The time after which a client may find another replica, if this one shuts down.
pub(super) const RETRY_AFTER_SHUTDOWN: Duration = Duration::from_secs(5);
/// The age of the token file's contents from which on a request causes the file to be read again.
const TOKEN_AGE_MAX: Duration = Duration::from_secs(1);

/// The load of the service at the time of a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    /// The number of running jobs.
    pub(super) scans: usize,
    /// The number of connected clients.
    pub(super) connections: usize,
    pub(super) stage: ServiceStage,
}

/// The stages from normal service to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ServiceStage {
    Serving,
    /// A signal has arrived. The service still serves requests.
    NotReady,
    /// The listeners are closed, and no new scan begins.
    Closed,
}

/// The reason why the token file gives no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TokenFileError {
    /// The file cannot be read, or everybody can read it.
    Unreadable,
    /// The text of the file is not a token.
    NoToken(TokenError),
}

impl fmt::Display for TokenFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable => f.write_str("the file cannot be read, or everybody can read it"),
            Self::NoToken(error) => error.fmt(f),
        }
    }
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Admission {
    /// The names under which browsers may address the service.
    host_guard: HostGuard,
    /// The token that clients must present; `None` if none is required.
    token: Option<BearerToken>,
    /// Peers that may name the clients on whose behalf they send requests.
    proxies: Proxies,
    /// The maximum number of connections.
    connections_max: usize,
    /// The maximum number of scans at once.
    scans_max: usize,
    /// The maximum number of scans at once for one client.
    scans_per_client_max: usize,
    quota: Quota,
    shares_len: usize,
    /// The time at which the token file was last read.
    token_read_at: Option<Instant>,
}

impl Admission {
    /// Applies the given options.
    pub(super) fn new(options: &Options) -> Self {
        Self {
            host_guard: options.host_guard.clone(),
            token: options.token.clone(),
            proxies: options.proxies.clone(),
            connections_max: options.shares.connections,
            scans_max: options.shares.scans(options.settings.scans_max),
            scans_per_client_max: options.settings.scans_per_client_max,
            quota: Quota::default(),
            shares_len: 0,
            token_read_at: None,
        }
    }

    /// Sets the token from its file. If the file contains no token, the previous one remains valid
    /// and the reason is returned.
    pub(super) fn handle_token_file(
        &mut self,
        now: Instant,
        text: Option<&[u8]>,
    ) -> Result<(), TokenFileError> {
        self.token_read_at = Some(now);
        match text.map(BearerToken::parse) {
            Some(Ok(token)) => {
                self.token = Some(token);
                Ok(())
            }
            Some(Err(error)) => Err(TokenFileError::NoToken(error)),
            None => Err(TokenFileError::Unreadable),
        }
    }

    /// Admits another scan of this client, or refuses it. [`Admission::release`] returns the share.
    pub(super) fn admit(
        &mut self,
        client_ip: IpAddr,
        request: &Request,
        load: Load,
    ) -> Result<Share, Problem> {
        self.check_site(request)?;
        if load.stage == ServiceStage::Closed {
            return Err(Problem::draining(RETRY_AFTER_SHUTDOWN));
        }
        if load.scans >= self.scans_max {
            return Err(Problem::overloaded(RETRY_AFTER));
        }
        let share = self.quota.try_take(client_ip, self.scans_per_client_max);
        let share = share.ok_or_else(|| Problem::too_many_scans(RETRY_AFTER))?;
        self.shares_len += 1;
        Ok(share)
    }

    /// A scan has ended. Its share is returned.
    pub(super) fn release(&mut self, share: Share) {
        self.quota.release(share);
        self.shares_len -= 1;
    }

    /// Whether a request needs the token and the file may have changed since it was read.
    pub(super) fn wants_token_file(&self, now: Instant, request: &Request) -> bool {
        let is_known = self.token_read_at.is_some_and(|at| now < at + TOKEN_AGE_MAX);
        self.has_token() && !is_known && needs_token(request)
    }

    /// Refuses a request that needs the token and does not carry it.
    pub(super) fn check_token(&self, request: &Request) -> Result<(), Problem> {
        match &self.token {
            Some(token) if needs_token(request) => {
                let is_right = token.matches(request.field(Field::Authorization));
                if is_right { Ok(()) } else { Err(Problem::unauthorized()) }
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Refuses requests from pages of other sites and for foreign names, before anything is
    /// scanned.
    pub(super) fn check_site(&self, request: &Request) -> Result<(), Problem> {
        let browser = BrowserHeaders {
            sec_fetch_site: request.field(Field::SecFetchSite),
            origin: request.field(Field::Origin),
            host: request.field(Field::Host),
        };
        browser.verdict().map_err(|denial| Problem::new(Cause::TargetDenied, sentence(&denial)))?;
        self.host_guard
            .check(request.field(Field::Host))
            .map_err(|foreign| Problem::new(Cause::ForeignHost, sentence(&foreign)))
    }

    /// Whether the service would admit another scan.
    pub(super) fn readiness(&self, load: Load) -> Result<(), Problem> {
        let is_saturated = load.scans >= self.scans_max || load.connections >= self.connections_max;
        if load.stage != ServiceStage::Serving {
            Err(Problem::draining(RETRY_AFTER_SHUTDOWN))
        } else if is_saturated {
            Err(Problem::overloaded(RETRY_AFTER))
        } else {
            Ok(())
        }
    }

    /// The address of the client: the peer, or the client that a trusted proxy names.
    pub(super) fn client_ip(&self, peer: IpAddr, request: &Request) -> IpAddr {
        let values = |field| request.values(field).collect();
        let (x_forwarded_for, forwarded) = (values(Field::XForwardedFor), values(Field::Forwarded));
        self.proxies.client(peer, &Hops { x_forwarded_for, forwarded })
    }

    /// Whether clients must present a token.
    pub(super) const fn has_token(&self) -> bool {
        self.token.is_some()
    }

    /// The number of taken shares.
    pub(super) const fn shares_len(&self) -> usize {
        self.shares_len
    }
}

/// Whether a request needs the token: it starts a scan, or checks whether a scan would be admitted.
/// Health, metrics and help disclose nothing about any network.
fn needs_token(request: &Request) -> bool {
    let is_scan = matches!(Route::of(request.path()), Route::OpenPorts | Route::Probe);
    is_scan && matches!(request.method, Method::Get | Method::Head)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::fixtures::{acts, ask, core_with, records};
    use crate::event::{Action, Event, ProcessFiles};

    impl Admission {
        /// Forgets the time of the last reading, so that the next request with a token causes the
        /// file to be read.
        pub(in crate::core) fn forget_reading(&mut self) {
            self.token_read_at = None;
        }
    }

    /// A HEAD request, which checks whether a scan would be permitted and is answered at once.
    fn scan_head(token: &str) -> String {
        let target = "/open-ports?domain=127.0.0.1&toPort=1";
        format!(
            "HEAD {target} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n"
        )
    }

    #[test]
    fn only_requests_for_scans_need_the_token() {
        let (mut core, now) = (
            core_with(8, |options| options.token = BearerToken::parse(b"old").ok()),
            Instant::now(),
        );
        // /proc is known here, so the request for metrics waits for no file.
        core.handle(Event::ProcessFiles(ProcessFiles::default()), now);
        for (method, target) in [
            ("OPTIONS", "/open-ports"),
            ("POST", "/open-ports"),
            ("GET", "/healthz"),
            ("GET", "/metrics"),
            ("HEAD", "/"),
        ] {
            let request = format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\n\r\n");
            let answer = ask(&mut core, now, &request);
            assert!(answer.starts_with("HTTP/1.1 "), "{method} {target} is answered at once");
            assert!(!answer.starts_with("HTTP/1.1 401"), "{method} {target}: {answer}");
        }
        assert!(!acts(&mut core, now).contains(&Action::ReadTokenFile));
        for target in ["/open-ports?domain=a&toPort=1", "/probe?target=a&ports=1"] {
            core.responder.forget_token_reading();
            let request = format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n");
            assert_eq!(ask(&mut core, now, &request), "", "{target} waits for the file");
            assert!(acts(&mut core, now).contains(&Action::ReadTokenFile));
        }
    }

    #[test]
    fn the_token_file_is_read_again_once_a_second_and_an_invalid_one_changes_nothing() {
        let (mut core, mut now) = (
            core_with(8, |options| options.token = BearerToken::parse(b"old").ok()),
            Instant::now(),
        );
        let client = core.handle_accepted(None, now);
        let head = scan_head("new");
        core.handle(Event::Received { socket: client, bytes: head.as_bytes() }, now);
        assert!(acts(&mut core, now).contains(&Action::ReadTokenFile));
        assert!(core.output(client).is_empty(), "the request waits for the file");
        core.handle(Event::TokenFile(Some(b"new\n")), now);
        assert!(core.output(client).starts_with(b"HTTP/1.1 200"), "the file was handled first");

        now += TOKEN_AGE_MAX / 2;
        assert!(ask(&mut core, now, &scan_head("old")).starts_with("HTTP/1.1 401"));
        assert!(ask(&mut core, now, &scan_head("new")).starts_with("HTTP/1.1 200"));
        assert!(
            !acts(&mut core, now).contains(&Action::ReadTokenFile),
            "the file was read recently"
        );

        for text in [None, Some(&b"two words"[..])] {
            now += TOKEN_AGE_MAX;
            let client = core.handle_accepted(None, now);
            core.handle(Event::Received { socket: client, bytes: head.as_bytes() }, now);
            assert!(acts(&mut core, now).contains(&Action::ReadTokenFile));
            core.handle(Event::TokenFile(text), now);
            assert!(core.output(client).starts_with(b"HTTP/1.1 200"), "{text:?}");
            let records = records(&mut core, now);
            assert!(records.iter().any(|it| it.contains("token kept")), "{text:?}: {records:?}");
        }
    }

    #[test]
    fn a_service_is_not_ready_while_its_scans_or_its_connections_are_used_up() {
        let (mut core, now) = (core_with(8, |_| {}), Instant::now());
        let readyz = "GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n";
        assert!(ask(&mut core, now, readyz).starts_with("HTTP/1.1 200"));
        for _ in 0..6 {
            core.handle_accepted(None, now);
        }
        let client = core.handle_accepted(None, now);
        core.handle(Event::Received { socket: client, bytes: readyz.as_bytes() }, now);
        assert!(core.output(client).starts_with(b"HTTP/1.1 503"), "all connections are in use");
    }
}
