//! The quota of scans of each client. `core` takes and returns the shares.
//!
//! Invariant: a [`Quota`] has an entry exactly for the clients that hold a [`Share`].

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};

/// The number of running scans by client. Its size is bounded by the number of running scans
/// (`limits::Settings::scans_max`), because a client without a running scan has no entry.
#[derive(Debug, Default)]
pub struct Quota {
    running: BTreeMap<IpAddr, usize>,
}

/// One scan of one client. It is returned by [`Quota::release`] and must not be dropped before.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a share that is dropped is never free again"]
pub struct Share {
    client: IpAddr,
}

impl Quota {
    /// Takes a share for a scan of `client`; `None` if the client already has `max` shares.
    pub fn try_take(&mut self, client: IpAddr, max: usize) -> Option<Share> {
        assert!(max > 0, "at least one scan is allowed");
        let client = quota_key(client);
        let running = self.running.get(&client).copied().unwrap_or(0);
        if running >= max {
            return None;
        }
        self.running.insert(client, running + 1);
        debug_assert!(self.running.values().all(|count| *count > 0));
        Some(Share { client })
    }

    /// Returns a share.
    pub fn release(&mut self, share: Share) {
        let running = self.running.remove(&share.client).unwrap_or(0);
        assert!(running > 0, "a share is released where it was taken, and once");
        if running > 1 {
            self.running.insert(share.client, running - 1);
        }
        debug_assert!(self.running.values().all(|count| *count > 0));
    }

    /// The number of clients with running scans.
    pub fn clients(&self) -> usize {
        self.running.len()
    }
}

/// The address under which a client is counted: an IPv6 client has a whole /64 (RFC 4291 section
/// 2.5.1) and could otherwise use any number of quotas.
fn quota_key(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(v4),
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!(quota.clients(), 0, "a client without running scans has no entry");
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
}
