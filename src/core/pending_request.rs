//! One request that is being answered, with the facts for the access record and the counters.
//!
//! The owner is the responder for a request that is answered at once, and the client's
//! [`super::client::ActiveScan`] for one with a scan. This module decides nothing.

use std::net::IpAddr;
use std::time::Instant;

use crate::api::Route;
use crate::api::accept::Form;
use crate::api::probe::ProbeFailure;
use crate::http::{Method, Refusal, Request};
use crate::port_set::PortSet;
use crate::report::log::{Level, Record};
use crate::technique::Technique;

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct PendingRequest {
    /// The address of the client, or of the one that a trusted proxy named.
    pub(super) client_ip: IpAddr,
    method: Method,
    /// The label of the metric: the route, or the reason of a refusal.
    pub(super) route: &'static str,
    pub(super) began_at: Instant,
    pub(super) kind: AnswerKind,
    /// The target of its scan as written; `None` if the request starts no scan.
    pub(super) domain: Option<Box<str>>,
    /// The technique of its scan.
    pub(super) technique: Technique,
    /// The reason why a probe of the `/probe` route did not succeed.
    pub(super) failure: Option<ProbeFailure>,
}

/// The kind of answer at the end of a request's scan.
#[derive(Debug)]
pub(super) enum AnswerKind {
    /// An answer in this form. It is not used if the request starts no scan.
    Scan { form: Form },
    /// Metrics of the `/probe` route, with the ports that should be open, if the request names
    /// them.
    Probe { expect: Option<PortSet> },
}

impl AnswerKind {
    /// The form of the answer to a scan. Metrics count as plain text.
    pub(super) const fn form(&self) -> Form {
        match self {
            Self::Scan { form } => *form,
            Self::Probe { .. } => Form::Text,
        }
    }
}

impl PendingRequest {
    pub(super) fn new(now: Instant, client_ip: IpAddr, request: &Request) -> Self {
        Self {
            method: request.method,
            ..Self::begun(now, client_ip, Route::of(request.path()).label())
        }
    }

    /// A pending request for bytes that are not a request.
    pub(super) const fn refused(now: Instant, client_ip: IpAddr, refusal: Refusal) -> Self {
        Self::begun(now, client_ip, refusal.label())
    }

    const fn begun(now: Instant, client_ip: IpAddr, route: &'static str) -> Self {
        Self {
            client_ip,
            method: Method::Other,
            route,
            began_at: now,
            kind: AnswerKind::Scan { form: Form::Json },
            domain: None,
            technique: Technique::Connect,
            failure: None,
        }
    }

    /// Whether the request reached a route. Only then is its duration measured.
    pub(super) fn is_routed(&self) -> bool {
        Route::ALL.iter().any(|route| route.label() == self.route)
    }

    /// The access record. A request for the state of the service itself has the level `debug`.
    pub(super) fn access_record(&self, now: Instant, status: u16) -> Record {
        let is_check = [Route::Healthz, Route::Readyz, Route::Metrics]
            .iter()
            .any(|route| route.label() == self.route);
        let level = if is_check { Level::Debug } else { Level::Info };
        let record = Record::new(level, "request")
            .field("client", self.client_ip)
            .field("method", self.method.label())
            .field("route", self.route)
            .field("status", status)
            .field("elapsed", now - self.began_at);
        let record = match self.failure {
            Some(failure) => record.field("probe_failure", failure.label()),
            None => record,
        };
        match &self.domain {
            Some(domain) => record.field("domain", &**domain),
            None => record,
        }
    }
}
