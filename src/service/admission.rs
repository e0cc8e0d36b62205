//! Who gets a scan, and whether there is room for one.

use std::time::Duration;

use super::Service;
use crate::api;
use crate::api::problem::{Cause, Problem, sentence};
use crate::http::{Field, Request, Response};
use crate::policy::clients::{BrowserHeaders, Share};
use crate::slots::Key;

/// When a refused client may come back.
pub(super) const RETRY_AFTER: Duration = Duration::from_secs(1);
/// When a client may find another replica in the place of one that shuts down.
pub(super) const RETRY_AFTER_DRAIN: Duration = Duration::from_secs(5);
impl Service {
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

    /// Whether there is room for another scan of this client.
    pub(super) fn admit(&mut self, key: Key, request: &Request) -> Result<Share, Problem> {
        self.check_site(request)?;
        let settings = &self.options.settings;
        let (scans_max, share_max) = (settings.scans_max, settings.scans_per_client_max);
        if !self.is_open() {
            return Err(Problem::draining(RETRY_AFTER_DRAIN));
        }
        if self.jobs.len() >= scans_max {
            return Err(Problem::overloaded(RETRY_AFTER));
        }
        let client = self.client_address(key);
        self.quota.try_take(client, share_max).ok_or_else(|| Problem::too_many_scans(RETRY_AFTER))
    }

    /// Whether another scan would be taken in.
    pub(super) fn readiness(&self) -> Result<Response, Problem> {
        let is_saturated = self.jobs.len() >= self.options.settings.scans_max
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
