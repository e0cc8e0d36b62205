//! What the service tells of itself: at its start in the log, and at any time as gauges.

use super::Service;
use crate::event::listen::Listen;
use crate::policy::Reach;
use crate::report::Gauges;
use crate::report::log::{Level, Record};

impl Service {
    /// Logs what was bound, every limit in force, and a line to try.
    pub fn announce(&mut self, bound: &[Listen], descriptors: usize) {
        for listen in bound {
            self.log(&Record::new(Level::Info, "listening").field("address", listen.to_string()));
        }
        let (settings, shares) = (&self.options.settings, &self.options.shares);
        let record = Record::new(Level::Info, "limits")
            .field("descriptors", descriptors)
            .field("in_flight", shares.probes)
            .field("connections", shares.connections)
            .field("lookup_sockets", shares.lookups)
            .field("scans", settings.scans_max)
            .field("scans_per_client", settings.scans_per_client_max)
            .field("timeout", settings.timeout)
            .field("scan_time", settings.scan_time_max)
            .field("drain_delay", settings.drain_delay)
            .field("drain_timeout", settings.drain_timeout);
        self.log(&record);
        let is_reachable = self.options.policy.reach == Reach::Outside;
        if is_reachable && self.options.token.is_none() && !bound.is_empty() {
            let advice = "others can reach this service, and it asks for no token: --token-file";
            self.log(&Record::new(Level::Warn, "open to all").field("advice", advice));
        }
        if let Some(first) = bound.first() {
            let line = first.curl_line("/open-ports?domain=localhost&toPort=65535");
            self.log(&Record::new(Level::Info, "try").field("command", line));
        }
    }

    /// What `/metrics` shows of this moment.
    pub(super) fn gauges(&self) -> Gauges {
        let shares = &self.options.shares;
        Gauges {
            started: self.started,
            scans_running: self.jobs.len(),
            lookups_running: self.resolver.lookups_len(),
            connections_open: self.clients_len,
            connects_in_flight: self.jobs.in_flight(),
            connects_in_flight_max: self.jobs.capacity(),
            descriptors_used: self.sockets.len(),
            descriptors_max: shares.connections + shares.lookups + shares.probes,
            is_draining: self.is_draining(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::super::crowd::tests::{records, service};
    use crate::event::listen::Listen;
    use crate::policy::Reach;
    use crate::policy::token::Token;
    use crate::report::log::Level;

    #[test]
    fn a_service_that_others_reach_without_a_token_warns_and_no_other_does() {
        let bound: Listen = "0.0.0.0:8080".parse().expect("a listener");
        for (reach, token, bound, warns) in [
            (Reach::Outside, None, vec![bound.clone()], true),
            (Reach::Outside, Some(&b"sesame"[..]), vec![bound.clone()], false),
            (Reach::LoopbackOnly, None, vec![bound.clone()], false),
            (Reach::Outside, None, vec![], false),
        ] {
            let mut service = service(8);
            service.options.log_level = Level::Info;
            service.options.policy.reach = reach;
            service.options.token = token.and_then(|text| Token::parse(text).ok());
            service.announce(&bound, 1024);
            let records = records(&mut service, Instant::now());
            let is_told = |words: &str| records.iter().any(|record| record.contains(words));
            assert_eq!(is_told("open to all"), warns, "{reach:?} {token:?} {records:?}");
            assert_eq!(is_told("msg=try "), !bound.is_empty());
            assert!(is_told("msg=limits descriptors=1024 "), "{records:?}");
        }
    }

    #[test]
    fn the_gauges_tell_of_this_moment() {
        let mut service = service(8);
        let shares = service.options.shares;
        service.handle_accepted(None, Instant::now());
        let gauges = service.gauges();
        assert_eq!(gauges.descriptors_max, shares.connections + shares.lookups + shares.probes);
        assert_eq!((gauges.connections_open, gauges.descriptors_used), (1, 1));
        assert_eq!((gauges.scans_running, gauges.lookups_running), (0, 0));
        assert_eq!(gauges.connects_in_flight_max, shares.probes);
        assert!(!gauges.is_draining);
    }
}
