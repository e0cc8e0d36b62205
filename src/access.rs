//! Which clients may request a scan, and by which address each client is identified.
//!
//! [`token`] compares the bearer token, [`browser`] refuses pages of other sites, [`forwarded`]
//! determines the client behind a proxy, and [`quota`] counts the scans of each client. `policy`
//! decides which targets may be scanned. This module has no state except the quota, and touches
//! neither a descriptor nor a clock. `core` drives it.

pub mod browser;
pub mod forwarded;
pub mod quota;
pub mod token;
