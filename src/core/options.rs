//! The options of a core.

use crate::access::browser::HostGuard;
use crate::access::forwarded::Proxies;
use crate::access::token::BearerToken;
use crate::budget::Shares;
use crate::limits::Settings;
use crate::policy::Policy;
use crate::report::log::{Level, LogFormat};
use crate::service_names::Names;

/// The options of a core.
#[derive(Debug)]
pub struct Options {
    /// The settings that the command line changes.
    pub settings: Settings,
    /// The division of the descriptors.
    pub shares: Shares,
    /// The policy that decides which targets may be scanned.
    pub policy: Policy,
    /// The names under which browsers may address the service.
    pub host_guard: HostGuard,
    /// The token that clients must present before they may scan; `None` if none is required.
    pub token: Option<BearerToken>,
    /// Peers that may name the clients on whose behalf they send requests.
    pub proxies: Proxies,
    /// The names of services, for answers.
    pub names: Names,
    /// The least urgent level that is logged.
    pub log_level: Level,
    /// The format of log records.
    pub log_format: LogFormat,
    /// 64 unpredictable bits, from which the resolver derives message ids.
    pub seed: u64,
}
