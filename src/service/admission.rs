//! Who gets a scan, and whether there is room for one.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::Service;
use super::clients::Client;
use crate::api::problem::{Cause, Problem, sentence};
use crate::api::{self, Route};
use crate::http::{Field, Method, Request, Response};
use crate::policy::clients::{BrowserHeaders, Share};
use crate::policy::forwarded::Hops;
use crate::policy::token::Token;
use crate::report::log::{Level, Record};
use crate::slots::Key;

/// When a refused client may come back.
pub(super) const RETRY_AFTER: Duration = Duration::from_secs(1);
/// When a client may find another replica in the place of one that shuts down.
pub(super) const RETRY_AFTER_DRAIN: Duration = Duration::from_secs(5);
/// How old what we know of the token file may be before a request has it read again.
const TOKEN_AGE_MAX: Duration = Duration::from_secs(1);

impl Service {
    /// True exactly when a request needs the token, and the file may have changed.
    pub(super) fn wants_token_file(&self, now: Instant, request: &Request) -> bool {
        let is_known = self.token_read_at.is_some_and(|at| now < at + TOKEN_AGE_MAX);
        self.options.token.is_some() && !is_known && needs_token(request)
    }

    /// Takes in the token file. One that holds no token leaves the former one in force.
    pub(super) fn on_token_file(&mut self, now: Instant, text: Option<&[u8]>) {
        self.token_read_at = Some(now);
        match text.map(Token::parse) {
            Some(Ok(token)) => self.options.token = Some(token),
            Some(Err(error)) => self.warn_of_token(&error.to_string()),
            None => self.warn_of_token("the file cannot be read, or everybody can read it"),
        }
        for key in self.client_keys() {
            if let Some(request) = self.client(key).and_then(Client::take_authorizing) {
                self.on_request(now, key, &request);
                self.serve(now, key);
            }
        }
    }

    fn warn_of_token(&mut self, why: &str) {
        self.log(&Record::new(Level::Warn, "token kept").field("why", why));
    }

    /// Refuses a request that needs the token and does not bear it.
    pub(super) fn check_token(&self, request: &Request) -> Result<(), Problem> {
        match &self.options.token {
            Some(token) if needs_token(request) => {
                let is_borne = token.is_borne_by(request.field(Field::Authorization));
                if is_borne { Ok(()) } else { Err(Problem::unauthorized()) }
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Who asks: the peer, or whom a proxy of ours asks for.
    pub(super) fn asker(&mut self, key: Key, request: &Request) -> IpAddr {
        let peer = self.client_address(key);
        let values = |field| request.values(field).collect();
        let (x_forwarded_for, forwarded) = (values(Field::XForwardedFor), values(Field::Forwarded));
        self.options.proxies.client(peer, &Hops { x_forwarded_for, forwarded })
    }

    /// Refuses pages of other sites and foreign names, before anything is scanned for them.
    pub(super) fn check_site(&self, request: &Request) -> Result<(), Problem> {
        let browser = BrowserHeaders {
            sec_fetch_site: request.field(Field::SecFetchSite),
            origin: request.field(Field::Origin),
            host: request.field(Field::Host),
        };
        browser.verdict().map_err(|denial| Problem::new(Cause::TargetDenied, sentence(&denial)))?;
        self.options
            .host_guard
            .check(request.field(Field::Host))
            .map_err(|foreign| Problem::new(Cause::ForeignHost, sentence(&foreign)))
    }

    /// Scans at once. Whoever has one holds its connection until the end, so a part of the
    /// connections stays with those who have none, or nobody would hear from us meanwhile.
    fn scans_max(&self) -> usize {
        let connections = self.options.shares.connections;
        let kept_free = (connections / 4).max(1);
        self.options.settings.scans_max.min(connections.saturating_sub(kept_free).max(1))
    }

    /// Whether there is room for another scan of this client.
    pub(super) fn admit(&mut self, asker: IpAddr, request: &Request) -> Result<Share, Problem> {
        self.check_site(request)?;
        let settings = &self.options.settings;
        let (scans_max, share_max) = (self.scans_max(), settings.scans_per_client_max);
        if !self.is_open() {
            return Err(Problem::draining(RETRY_AFTER_DRAIN));
        }
        if self.jobs.len() >= scans_max {
            return Err(Problem::overloaded(RETRY_AFTER));
        }
        self.quota.try_take(asker, share_max).ok_or_else(|| Problem::too_many_scans(RETRY_AFTER))
    }

    /// Whether another scan would be taken in.
    pub(super) fn readiness(&self) -> Result<Response, Problem> {
        let is_saturated = self.jobs.len() >= self.scans_max()
            || self.clients_len >= self.options.shares.connections;
        if self.is_draining() {
            Err(Problem::draining(RETRY_AFTER_DRAIN))
        } else if is_saturated {
            Err(Problem::overloaded(RETRY_AFTER))
        } else {
            Ok(api::ready())
        }
    }
}

/// True exactly for a request that has something scanned, or asks whether it would. Health,
/// figures and help tell nothing of anybody's network.
fn needs_token(request: &Request) -> bool {
    let is_scan = matches!(Route::of(request.path()), Route::OpenPorts | Route::Probe);
    is_scan && matches!(request.method, Method::Get | Method::Head)
}

#[cfg(test)]
mod tests {
    use super::super::crowd::tests::{acts, ask, records, service};
    use super::*;
    use crate::event::{Action, Event};

    /// Wants to know whether a scan would be permitted: it is answered at once.
    fn scan_head(token: &str) -> String {
        let target = "/open-ports?domain=127.0.0.1&toPort=1";
        format!(
            "HEAD {target} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n"
        )
    }

    #[test]
    fn the_token_is_asked_for_by_what_scans_and_by_nothing_else() {
        let (mut service, now) = (service(8), Instant::now());
        service.options.token = Token::parse(b"old").ok();
        for (method, target) in [
            ("OPTIONS", "/open-ports"),
            ("POST", "/open-ports"),
            ("GET", "/healthz"),
            ("GET", "/metrics"),
            ("HEAD", "/"),
        ] {
            let request = format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\n\r\n");
            let answer = ask(&mut service, now, &request);
            assert!(answer.starts_with("HTTP/1.1 "), "{method} {target} is answered at once");
            assert!(!answer.starts_with("HTTP/1.1 401"), "{method} {target}: {answer}");
        }
        assert!(!acts(&mut service, now).contains(&Action::ReadTokenFile));
        for target in ["/open-ports?domain=a&toPort=1", "/probe?target=a&ports=1"] {
            service.token_read_at = None;
            let request = format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n");
            assert_eq!(ask(&mut service, now, &request), "", "{target} waits for the file");
            assert!(acts(&mut service, now).contains(&Action::ReadTokenFile));
        }
    }

    #[test]
    fn the_token_file_is_read_anew_once_a_second_and_a_bad_one_changes_nothing() {
        let (mut service, mut now) = (service(8), Instant::now());
        service.options.token = Token::parse(b"old").ok();
        let client = service.handle_accepted(None, now);
        let head = scan_head("new");
        service.handle(Event::Received { socket: client, bytes: head.as_bytes() }, now);
        assert!(acts(&mut service, now).contains(&Action::ReadTokenFile));
        assert!(service.output(client).is_empty(), "it waits for the file");
        service.handle(Event::TokenFile(Some(b"new\n")), now);
        assert!(service.output(client).starts_with(b"HTTP/1.1 200"), "the file was heard first");

        now += TOKEN_AGE_MAX / 2;
        assert!(ask(&mut service, now, &scan_head("old")).starts_with("HTTP/1.1 401"));
        assert!(ask(&mut service, now, &scan_head("new")).starts_with("HTTP/1.1 200"));
        assert!(!acts(&mut service, now).contains(&Action::ReadTokenFile), "it is known yet");

        for text in [None, Some(&b"two words"[..])] {
            now += TOKEN_AGE_MAX;
            let client = service.handle_accepted(None, now);
            service.handle(Event::Received { socket: client, bytes: head.as_bytes() }, now);
            assert!(acts(&mut service, now).contains(&Action::ReadTokenFile));
            service.handle(Event::TokenFile(text), now);
            assert!(service.output(client).starts_with(b"HTTP/1.1 200"), "{text:?}");
            let records = records(&mut service, now);
            assert!(records.iter().any(|it| it.contains("token kept")), "{text:?}: {records:?}");
        }
    }
}
