//! The reasons why a lookup found no address, with their labels and messages.

use std::fmt;
use std::net::IpAddr;

/// The reason why a lookup found no address. Of several reasons, the most severe one is reported,
/// which is the last in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LookupFailure {
    /// The name does not exist.
    UnknownHost,
    /// The name exists, but has no address of the requested family.
    NoAddress,
    /// As [`LookupFailure::NoAddress`], where the source address of this run determines the family.
    NoAddressFor {
        /// The source address.
        source: IpAddr,
    },
    /// This machine had no resources left: too many lookups, or no free descriptor until the
    /// deadline.
    Overloaded,
    /// No server could be reached: every server refused, or there was no route to it.
    Unreachable,
    /// No server answered in time.
    TimedOut,
    /// A server reported a failure, or sent an answer that makes no sense.
    ServerFailure,
}

impl LookupFailure {
    /// The metric label of a lookup with this result.
    pub const fn result_label<T>(result: &Result<T, Self>) -> &'static str {
        match result {
            Ok(_) => "found",
            Err(failure) => failure.label(),
        }
    }

    /// The metric label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::UnknownHost => "unknown_host",
            Self::NoAddress | Self::NoAddressFor { .. } => "no_address",
            Self::Overloaded => "overloaded",
            Self::Unreachable => "unreachable",
            Self::TimedOut => "timed_out",
            Self::ServerFailure => "server_failure",
        }
    }
}

impl fmt::Display for LookupFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::UnknownHost => "the name does not exist; check its spelling",
            Self::NoAddress => "the host has no address, or none of the family asked for",
            Self::NoAddressFor { source } => {
                let family = if source.is_ipv4() { "IPv4" } else { "IPv6" };
                return write!(
                    f,
                    "the host has no {family} address, and --source gives only the {family} \
                     address {source}"
                );
            }
            Self::Overloaded => "too many names are being looked up; try again in a moment",
            Self::Unreachable => "no name server could be reached; check resolv.conf",
            Self::TimedOut => "no name server answered in time; try again, or check resolv.conf",
            Self::ServerFailure => "the name servers failed to answer for this name; try again",
        })
    }
}

impl std::error::Error for LookupFailure {}
