//! The log records at the start of the service, and an example request. `responder` drives it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use crate::budget::Shares;
use crate::limits::Settings;
use crate::listen_address::Listen;
use crate::policy::{Exposure, Policy};
use crate::report::log::{Level, Record};
use crate::technique::Technique;

/// The values for the example request in the log and in the help.
#[derive(Clone, Debug, Default)]
pub struct Example {
    /// An address of this machine that is not loopback.
    pub own_address: Option<IpAddr>,
    /// The file with the token, if one is required.
    pub token_file: Option<PathBuf>,
}

/// A condition at the start that may surprise the operator.
#[derive(Clone, Copy, Debug)]
pub enum StartWarning<'a> {
    /// A variable that has the prefix of this program and is unknown. A misspelt variable might
    /// leave the service open.
    UnknownVariable {
        /// The name of the variable.
        name: &'a str,
        /// The variable that was probably meant.
        nearest: Option<&'a str>,
    },
    /// A file of which only the beginning is read.
    LongFile(&'a Path),
}

impl StartWarning<'_> {
    pub(super) fn record(self) -> Record {
        match self {
            Self::UnknownVariable { name, nearest } => {
                let record = Record::new(Level::Warn, "unknown variable").field("name", name);
                match nearest {
                    Some(nearest) => record.field("did_you_mean", nearest),
                    None => record,
                }
            }
            Self::LongFile(file) => Record::new(Level::Warn, "a file is too long")
                .field("file", file.display().to_string())
                .field("effect", "the lines that end after the first MiB are ignored"),
        }
    }
}

/// Whether clients must present a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TokenUse {
    Required,
    NotRequired,
}

/// The listeners and the resources of the process.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bound<'a> {
    pub(super) listeners: &'a [Listen],
    pub(super) descriptors: usize,
    pub(super) token: TokenUse,
}

/// The contents of the log records at the start and of the help. It has no state that changes.
#[derive(Debug)]
pub(super) struct Announcement {
    policy: Policy,
    shares: Shares,
    example: Example,
    /// `curl` for clients of the first Unix socket.
    curl_for_unix: Option<String>,
}

impl Announcement {
    /// An announcement without an example.
    pub(super) fn new(policy: Policy, shares: Shares) -> Self {
        Self { policy, shares, example: Example::default(), curl_for_unix: None }
    }

    /// Sets the values for the example request.
    pub(super) fn set_example(&mut self, example: Example) {
        self.example = example;
    }

    /// The log records of the start: the listeners, every limit in force, and an example request.
    pub(super) fn records(&mut self, bound: Bound, settings: &Settings) -> Vec<Record> {
        let mut unix = bound.listeners.iter().filter(|it| matches!(it, Listen::Unix(_)));
        self.curl_for_unix = unix.next().map(Listen::curl);
        let shares = &self.shares;
        let listening = |listen: &Listen| {
            Record::new(Level::Info, "listening").field("address", listen.to_string())
        };
        let mut records: Vec<Record> = bound.listeners.iter().map(listening).collect();
        let record = Record::new(Level::Info, "limits")
            .field("descriptors", bound.descriptors)
            .field("in_flight", shares.probes[Technique::Connect])
            .field("connections", shares.connections)
            .field("lookup_sockets", shares.lookups)
            .field("scans", shares.scans(settings.scans_max))
            .field("scans_per_client", settings.scans_per_client_max)
            .field("timeout", settings.timeout)
            .field("scan_time", settings.scan_time_max)
            .field("drain_delay", settings.drain_delay)
            .field("drain_timeout", settings.drain_timeout);
        records.push(record);
        let is_open =
            self.policy.exposure == Exposure::Outside && bound.token == TokenUse::NotRequired;
        if let Some(first) = bound.listeners.first() {
            if is_open {
                let advice =
                    "others can reach this service, and it asks for no token: --token-file";
                records.push(Record::new(Level::Warn, "open to all").field("advice", advice));
            }
            let line = self.example_line(first);
            records.push(Record::new(Level::Info, "try").field("command", line));
        }
        records
    }

    /// A target that the policy permits: this machine, as a name or an address, or the only address
    /// of `--allow`; `None` if no permitted one is known.
    pub(super) fn example_target(&self) -> Option<String> {
        let is_allowed = |address: IpAddr| self.policy.verdict(address).is_ok();
        // The name may stand for one of these addresses or for both.
        match (is_allowed(Ipv4Addr::LOCALHOST.into()), is_allowed(Ipv6Addr::LOCALHOST.into())) {
            (true, true) => return Some("localhost".to_owned()),
            (true, false) => return Some(Ipv4Addr::LOCALHOST.to_string()),
            (false, _) => {}
        }
        let only_allowed = match &self.policy.allow[..] {
            [only] => only.only_address(),
            _ => None,
        };
        let candidates = self.example.own_address.into_iter().chain(only_allowed);
        candidates.into_iter().find(|it| is_allowed(*it)).map(|it| it.to_string())
    }

    /// `curl` for a client with this address, which is unspecified at a Unix socket.
    pub(super) fn curl_for(&self, peer: IpAddr) -> &str {
        let for_unix = self.curl_for_unix.as_deref().filter(|_| peer.is_unspecified());
        for_unix.unwrap_or("curl")
    }

    /// The file with the token, if all clients are on this machine: the path is of no use on
    /// another one.
    pub(super) fn local_token_file(&self) -> Option<&Path> {
        match self.policy.exposure {
            Exposure::NoListener | Exposure::LoopbackOnly => self.example.token_file.as_deref(),
            Exposure::Outside => None,
        }
    }

    /// An example request that works as printed. It scans a permitted target, with the token if
    /// there is one, and requests the help if no permitted target is known.
    fn example_line(&self, listen: &Listen) -> String {
        let Some(target) = self.example_target() else { return listen.curl_line("/") };
        let line = listen.curl_line(&format!("/open-ports?domain={target}&toPort=65535"));
        match &self.example.token_file {
            Some(file) => {
                let file = file.to_string_lossy().replace('\'', r"'\''");
                line.replacen("curl ", &format!("curl --oauth2-bearer $(cat '{file}') "), 1)
            }
            None => line,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::Example;
    use crate::access::token::BearerToken;
    use crate::core::fixtures::{acts, core, core_with, records};
    use crate::event::{Action, Event, ProcessFiles};
    use crate::listen_address::Listen;
    use crate::policy::{Exposure, Policy};
    use crate::report::log::Level;
    use crate::technique::Technique;

    #[test]
    fn only_a_service_that_others_can_reach_without_a_token_warns() {
        let bound: Listen = "0.0.0.0:8080".parse().expect("a listener");
        for (exposure, token, bound, warns) in [
            (Exposure::Outside, None, vec![bound.clone()], true),
            (Exposure::Outside, Some(&b"sesame"[..]), vec![bound.clone()], false),
            (Exposure::LoopbackOnly, None, vec![bound.clone()], false),
            (Exposure::Outside, None, vec![], false),
        ] {
            let mut core = core_with(8, |options| {
                options.log_level = Level::Info;
                options.policy.exposure = exposure;
                options.token = token.and_then(|text| BearerToken::parse(text).ok());
            });
            core.announce(&bound, 1024, Example::default());
            let records = records(&mut core, Instant::now());
            let is_logged = |words: &str| records.iter().any(|record| record.contains(words));
            assert_eq!(is_logged("open to all"), warns, "{exposure:?} {token:?} {records:?}");
            assert_eq!(is_logged("msg=try "), !bound.is_empty());
            assert!(is_logged("msg=limits descriptors=1024 "), "{records:?}");
        }
    }

    #[test]
    fn the_logged_number_of_scans_is_at_most_three_quarters_of_the_connections() {
        for (connections, scans_max, expected) in [(1024, 64, 64), (1024, 900, 768), (8, 64, 6)] {
            let mut core = core_with(8, |options| {
                options.log_level = Level::Info;
                options.shares.connections = connections;
                options.settings.scans_max = scans_max;
            });
            core.announce(&[], 20_000, Example::default());
            let records = records(&mut core, Instant::now());
            let words = format!(" connections={connections} ");
            let limits = records.iter().find(|record| record.contains(&words)).expect("limits");
            assert!(limits.contains(&format!(" scans={expected} ")), "{limits}");
        }
    }

    #[test]
    fn the_page_waits_for_proc_which_is_read_at_most_once_a_second() {
        let (mut core, start) = (core(8), Instant::now());
        let key = core.handle_accepted(None, start);
        let request = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n";
        for (after_ms, is_read) in [(0, true), (999, false), (1_000, true), (1_001, false)] {
            let now = start + Duration::from_millis(after_ms);
            core.handle(Event::Received { socket: key, bytes: request }, now);
            assert_eq!(acts(&mut core, now).contains(&Action::ReadProcessFiles), is_read);
            if is_read {
                assert!(
                    core.output(key).is_empty(),
                    "the request is answered after the file was read"
                );
                let status = "VmRSS:\t    1188 kB\n";
                let files = ProcessFiles { status, ..ProcessFiles::default() };
                core.handle(Event::ProcessFiles(files), now);
            }
            let page = String::from_utf8_lossy(core.output(key)).into_owned();
            assert!(page.contains("process_resident_memory_bytes 1216512\n"), "{page}");
            assert!(!page.contains("process_cpu_seconds_total"), "an unknown figure is left out");
            let count = page.len();
            core.handle(Event::Sent { socket: key, count }, now);
        }
    }

    #[test]
    fn the_example_request_works_as_printed() {
        type Text<'a> = Option<&'a str>;
        let check_with = |lists: [&str; 2], exposure, own: Text, file: Text, expected: &str| {
            let mut core = core_with(8, |options| {
                options.log_level = Level::Info;
                let [allow, deny] = lists.map(|list| {
                    list.split_whitespace().map(|it| it.parse().expect("a network")).collect()
                });
                options.policy = Policy { allow, deny, exposure };
            });
            let own_address = own.map(|own| own.parse().expect("an address"));
            let example = Example { own_address, token_file: file.map(Into::into) };
            core.announce(&["0.0.0.0:80".parse().expect("a listener")], 1024, example);
            let records = records(&mut core, Instant::now());
            let line = records.iter().find(|it| it.contains("msg=try ")).expect("a line");
            assert!(line.ends_with(&format!("command=\"curl {expected}\"")), "{line}");
        };
        let check = |exposure, own: Option<&str>, file: Option<&str>, expected: &str| {
            check_with(["", ""], exposure, own, file, expected);
        };
        let scan = "'http://127.0.0.1:80/open-ports?domain=";
        let (inside, outside) = (Exposure::LoopbackOnly, Exposure::Outside);
        check(inside, None, None, &format!("{scan}localhost&toPort=65535'"));
        check(inside, Some("192.0.2.7"), None, &format!("{scan}localhost&toPort=65535'"));
        check(outside, Some("192.0.2.7"), None, &format!("{scan}192.0.2.7&toPort=65535'"));
        check(outside, Some("169.254.0.7"), None, "'http://127.0.0.1:80/'");
        check(outside, None, Some("/t"), "'http://127.0.0.1:80/'");
        let bearer = "--oauth2-bearer $(cat '/run/a b')";
        let expected = format!("{bearer} {scan}192.0.2.7&toPort=65535'");
        check(outside, Some("192.0.2.7"), Some("/run/a b"), &expected);
        let help = "'http://127.0.0.1:80/'";
        for (allow, deny, own, target) in [
            ("", "127.0.0.0/8", None, None),
            ("", "127.0.0.0/8", Some("192.0.2.7"), Some("192.0.2.7")),
            ("", "127.0.0.0/8 192.0.2.7", Some("192.0.2.7"), None),
            ("", "::1", None, Some("127.0.0.1")),
            ("198.51.100.9", "0.0.0.0/0", None, None),
            ("198.51.100.9", "127.0.0.1", None, Some("198.51.100.9")),
            ("198.51.100.8/31", "127.0.0.1", None, None),
            ("198.51.100.9 198.51.100.8", "127.0.0.1", None, None),
        ] {
            let expected = target.map(|target| format!("{scan}{target}&toPort=65535'"));
            check_with([allow, deny], inside, own, None, expected.as_deref().unwrap_or(help));
        }
    }

    #[test]
    fn the_gauges_show_the_current_values() {
        let mut core = core(8);
        let shares = core.shares;
        core.handle_accepted(None, Instant::now());
        let gauges = core.gauges();
        assert_eq!(gauges.descriptors_max, shares.total());
        assert_eq!((gauges.connections_open, gauges.descriptors_used), (1, 1));
        assert_eq!((gauges.scans_running, gauges.lookups_running), (0, 0));
        assert_eq!(gauges.connects_in_flight_max, shares.probes[Technique::Connect]);
        assert!(!gauges.is_draining);
    }
}
