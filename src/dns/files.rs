//! The name resolution files of this machine: resolv.conf(5) and hosts(5).
//!
//! Both are read leniently, as the C library reads them: a line that cannot be parsed is skipped
//! and does not affect the others. This module never opens a file; `dns` receives the bytes and
//! passes them in.
//!
//! Deliberately absent: `sortlist` (RFC 6724 replaces it), `edns0`, `inet6`, `trust-ad` and
//! `single-request` (each query has a socket of its own anyway), and the search list that the C
//! library derives from the name of the machine if resolv.conf has none (musl does not derive one
//! either). The zone of a link-local server must be a number here: `sys::linux` replaces the name
//! of an interface with its number. Like glibc, this module skips a line of the hosts file whose
//! address has a zone.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::time::{Duration, Instant};

use resolv_conf::{Config, ScopedIp};

use crate::dns::wire::{self, WireName};
use crate::event::Transport;
use crate::host::{Family, is_localhost, plain_name};
use crate::limits;

/// The contents of the two files, as in [`crate::event::Event::NameFiles`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NameFiles<'a> {
    /// The contents of resolv.conf. They are empty if there is no such file, which means its
    /// defaults. `None` if the file could not be read: the previous contents remain valid.
    pub resolv_conf: Option<&'a [u8]>,
    /// The contents of the hosts file, in the same form.
    pub hosts: Option<&'a [u8]>,
}

/// The parsed files and their age.
#[derive(Debug)]
pub(super) struct Files {
    pub(super) resolv_conf: ResolvConf,
    pub(super) hosts: Hosts,
    /// The bytes from which both were parsed, in this order.
    texts: [Box<[u8]>; 2],
    /// The number of changes of either text.
    version: u64,
    state: FilesState,
}

#[derive(Debug)]
enum FilesState {
    /// The files were neither read nor requested.
    Unread,
    /// The files were requested. `on_read` ends this state.
    Awaited,
    /// The files were read, and are fresh until this instant.
    Known { until: Instant },
}

/// Whether a lookup can use the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Freshness {
    /// The lookup can begin.
    Fresh,
    /// The lookup waits, and the files must be requested.
    Expired,
    /// The lookup waits, and the files were already requested.
    Awaited,
}

impl Files {
    pub(super) fn new() -> Self {
        Self {
            resolv_conf: ResolvConf::parse(&[]),
            hosts: Hosts::default(),
            texts: [Box::default(), Box::default()],
            version: 0,
            state: FilesState::Unread,
        }
    }

    pub(super) fn on_awaited(&mut self) {
        self.state = FilesState::Awaited;
    }

    /// Parses the files if they have changed. Returns true if they have.
    pub(super) fn on_read(&mut self, now: Instant, files: NameFiles<'_>) -> bool {
        let is_whole = files.resolv_conf.is_some() && files.hosts.is_some();
        let age = if is_whole { limits::NAME_FILES_AGE_MAX } else { limits::NAME_FILES_RETRY };
        self.state = FilesState::Known { until: now + age };
        let [resolv_conf, hosts] = &self.texts;
        let resolv_conf: Box<[u8]> = files.resolv_conf.unwrap_or(resolv_conf).into();
        let hosts: Box<[u8]> = files.hosts.unwrap_or(hosts).into();
        let texts = [resolv_conf, hosts];
        if self.texts == texts {
            return false;
        }
        self.resolv_conf = ResolvConf::parse(&texts[0]);
        self.hosts = Hosts::parse(&texts[1]);
        self.texts = texts;
        self.version += 1;
        true
    }

    pub(super) fn freshness(&self, now: Instant) -> Freshness {
        match self.state {
            FilesState::Unread => Freshness::Expired,
            FilesState::Awaited => Freshness::Awaited,
            FilesState::Known { until } if now < until => Freshness::Fresh,
            FilesState::Known { .. } => Freshness::Expired,
        }
    }

    /// The number of changes of either text.
    pub(super) const fn version(&self) -> u64 {
        self.version
    }
}

/// The settings of resolv.conf, with the caps and defaults of resolv.conf(5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvConf {
    /// The servers in order; 1 to `limits::NAME_SERVERS_MAX`.
    pub servers: Vec<SocketAddr>,
    /// The search list, without final dots. No suffix is empty or below `localhost`, which is never
    /// asked for (see [`find_localhost`]).
    pub suffixes: Vec<Box<str>>,
    /// A name with at least this number of dots is tried without a suffix before the search list.
    pub ndots: usize,
    /// The time that one server has for one answer; at least a second.
    pub timeout: Duration,
    /// The number of rounds through the servers; at least one.
    pub rounds: u32,
    /// The server with which a lookup begins.
    pub order: ServerOrder,
    /// UDP, or TCP with the option `use-vc`.
    pub transport: Transport,
    /// Any family, or IPv4 only with the option `no-aaaa`.
    pub family: Family,
}

/// The server with which a lookup begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerOrder {
    /// Each lookup begins with the first server.
    Fixed,
    /// Each lookup begins with the next server (`rotate`).
    Rotating,
}

impl ResolvConf {
    /// Parses the file. An empty file gives the defaults (one server: 127.0.0.1).
    pub fn parse(bytes: &[u8]) -> Self {
        // The parser discards a line that is not UTF-8, even if only its comment is not.
        let text = String::from_utf8_lossy(without_mark(bytes));
        let (config, _passed_over) = Config::parse_with_errors(text.as_bytes());
        let mut servers: Vec<SocketAddr> = config.nameservers.iter().map(server).collect();
        servers.truncate(limits::NAME_SERVERS_MAX);
        if servers.is_empty() {
            servers.push((Ipv4Addr::LOCALHOST, DNS_PORT).into());
        }
        let suffixes = config
            .get_last_search_or_domain()
            .map(|suffix| suffix.trim_end_matches('.').to_ascii_lowercase().into_boxed_str())
            .filter(|suffix| !suffix.is_empty() && !is_localhost(suffix))
            .take(limits::SEARCH_SUFFIXES_MAX)
            .collect();
        let timeout_secs = config.timeout.clamp(1, limits::SERVER_TIMEOUT_SECS_MAX);
        Self {
            servers,
            suffixes,
            ndots: config.ndots.min(limits::NDOTS_MAX) as usize,
            timeout: Duration::from_secs(timeout_secs.into()),
            rounds: config.attempts.clamp(1, limits::SERVER_ATTEMPTS_MAX),
            order: if config.rotate { ServerOrder::Rotating } else { ServerOrder::Fixed },
            transport: if config.use_vc { Transport::Tcp } else { Transport::Udp },
            family: if config.no_aaaa { Family::V4 } else { Family::Any },
        }
    }

    /// The absolute names that `name` may mean, in the order in which they are tried
    /// (resolv.conf(5), `search` and `ndots`). There are no duplicates, and the list is empty if
    /// `name` cannot be a name. With a final dot the name is already absolute.
    pub fn candidates(&self, name: &str) -> Vec<WireName> {
        if name.ends_with('.') {
            return wire::wire_name(name).into_iter().collect();
        }
        let as_it_stands = wire::wire_name(name);
        let searched =
            self.suffixes.iter().filter_map(|suffix| wire::wire_name(&format!("{name}.{suffix}")));
        let dots = name.bytes().filter(|byte| *byte == b'.').count();
        let in_order: Vec<WireName> = if dots >= self.ndots {
            as_it_stands.into_iter().chain(searched).collect()
        } else {
            searched.chain(as_it_stands).collect()
        };
        let mut candidates = Vec::with_capacity(in_order.len());
        for candidate in in_order {
            if !candidates.contains(&candidate) {
                candidates.push(candidate);
            }
        }
        assert!(candidates.len() <= limits::SEARCH_SUFFIXES_MAX + 1, "the suffixes are capped");
        candidates
    }
}

const DNS_PORT: u16 = 53;

/// The file without the byte order mark that some editors write before the first line.
fn without_mark(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes)
}

fn server(address: &ScopedIp) -> SocketAddr {
    match address {
        ScopedIp::V4(ip) => (*ip, DNS_PORT).into(),
        ScopedIp::V6(ip, scope) => {
            let scope_id = scope.as_deref().and_then(|id| id.parse().ok()).unwrap_or(0);
            SocketAddrV6::new(*ip, DNS_PORT, 0, scope_id).into()
        }
    }
}

/// The contents of the hosts file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hosts {
    /// Addresses by name, in lower case and without a final dot. No list is empty.
    addresses: BTreeMap<Box<str>, Vec<IpAddr>>,
}

impl Hosts {
    /// Parses the file: each line is `address name alias...`, and `#` begins a comment. A name that
    /// is on several lines has the addresses of all of them, at most
    /// `limits::ADDRESSES_PER_NAME_MAX`.
    pub fn parse(bytes: &[u8]) -> Self {
        let mut hosts = Self::default();
        // Comments may be in any encoding, so they are removed before the rest is decoded.
        for line in without_mark(bytes).split(|byte| *byte == b'\n') {
            let text = line.split(|byte| *byte == b'#').next().unwrap_or_default();
            let words = text.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
            // A word that is not UTF-8 does not affect the others.
            let mut words = words.map(|word| std::str::from_utf8(word).unwrap_or_default());
            let Some(Ok(address)) = words.next().map(str::parse::<IpAddr>) else { continue };
            for name in words.filter(|name| !name.is_empty()) {
                hosts.insert(name, address);
            }
        }
        hosts
    }

    fn insert(&mut self, name: &str, address: IpAddr) {
        let addresses = self.addresses.entry(plain_name(name).into()).or_default();
        if addresses.len() < limits::ADDRESSES_PER_NAME_MAX && !addresses.contains(&address) {
            addresses.push(address);
        }
        assert!(!addresses.is_empty(), "a name without addresses has no entry");
    }

    /// The addresses of `name` in the given family, in the order of the file. If the result is
    /// empty, the servers are asked.
    pub fn find(&self, name: &str, family: Family) -> Vec<IpAddr> {
        let addresses =
            self.addresses.get(plain_name(name).as_str()).map_or(&[][..], Vec::as_slice);
        addresses.iter().copied().filter(|address| family.admits(*address)).collect()
    }
}

/// The addresses of `localhost` and of every name below it. Queries for them never leave this
/// machine (RFC 6761 section 6.3). Empty for all other names.
pub fn find_localhost(name: &str, family: Family) -> Vec<IpAddr> {
    if !is_localhost(&plain_name(name)) {
        return Vec::new();
    }
    let both = [IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST)];
    both.into_iter().filter(|address| family.admits(*address)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidates(conf: &str, name: &str) -> Vec<String> {
        let candidates = ResolvConf::parse(conf.as_bytes()).candidates(name);
        candidates.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn without_a_file_the_server_is_this_machine_and_the_defaults_apply() {
        let expected = ResolvConf {
            servers: vec!["127.0.0.1:53".parse().unwrap()],
            suffixes: Vec::new(),
            ndots: 1,
            timeout: Duration::from_secs(5),
            rounds: 2,
            order: ServerOrder::Fixed,
            transport: Transport::Udp,
            family: Family::Any,
        };
        assert_eq!(ResolvConf::parse(b""), expected);
        assert_eq!(ResolvConf::parse(b"\xff\xfe\nnameserver\nnameserver nobody\n\0"), expected);
    }

    #[test]
    fn a_malformed_line_does_not_affect_the_others() {
        let text =
            b"; comment \xff\r\n\xff\nfrobnicate\noptions ndots:x use-vc timeout:3 wat:1\r\n\
            nameserver 192.0.2.1\r\nnameserver 1.2.3\n\tnameserver fe80::1%7 # caf\xe9\n\
            options attempts:4 rotate no-aaaa\nsearch a.test. . B.test";
        let conf = ResolvConf::parse(text);
        let servers: Vec<String> = conf.servers.iter().map(ToString::to_string).collect();
        assert_eq!(servers, ["192.0.2.1:53", "[fe80::1%7]:53"]);
        assert_eq!(conf.suffixes, ["a.test".into(), "b.test".into()]);
        assert_eq!((conf.ndots, conf.timeout.as_secs(), conf.rounds), (1, 3, 4));
        assert_eq!((conf.order, conf.transport), (ServerOrder::Rotating, Transport::Tcp));
        assert_eq!(conf.family, Family::V4);
    }

    #[test]
    fn no_input_causes_a_panic() {
        let good = b"nameserver fe80::1%7\nsearch a.test\noptions ndots:5\n10.0.0.1 a b#c\n";
        for place in 0..good.len() {
            for byte in 0..=255 {
                let mut bytes = good.to_vec();
                bytes[place] = byte;
                let conf = ResolvConf::parse(&bytes);
                assert!(!conf.servers.is_empty() && conf.rounds > 0 && !conf.timeout.is_zero());
                assert!((1..=conf.suffixes.len() + 1).contains(&conf.candidates("www").len()));
                assert!(Hosts::parse(&bytes).addresses.values().all(|found| !found.is_empty()));
            }
        }
    }

    #[test]
    fn options_are_capped_and_servers_beyond_the_third_are_ignored() {
        let mut text = "options ndots:99 timeout:99 attempts:99\n".to_owned();
        text.extend((1..=9).map(|n| format!("nameserver 192.0.2.{n}\n")));
        text += "search ";
        text.extend((1..=99).map(|n| format!("s{n} ")));
        let conf = ResolvConf::parse(text.as_bytes());
        assert_eq!((conf.ndots, conf.timeout.as_secs(), conf.rounds), (15, 30, 5));
        assert_eq!((conf.servers.len(), conf.suffixes.len()), (3, 32));
        let conf = ResolvConf::parse(b"options timeout:0 attempts:0 ndots:0");
        assert_eq!((conf.ndots, conf.timeout.as_secs(), conf.rounds), (0, 1, 1));
    }

    #[test]
    fn the_order_of_candidates_depends_on_the_number_of_dots() {
        let check = |conf: &str, name: &str, expected: &[&str]| {
            assert_eq!(candidates(conf, name), expected, "{name} with {conf}");
        };
        let two = "search a.test b.test";
        check("", "www", &["www"]);
        check(two, "www", &["www.a.test", "www.b.test", "www"]);
        check(two, "www.x", &["www.x", "www.x.a.test", "www.x.b.test"]);
        check(two, "www.", &["www"]);
        check(two, "www.x.", &["www.x"]);
        check("search a.test\noptions ndots:0", "www", &["www", "www.a.test"]);
        check("search a.test\ndomain b.test", "www", &["www.b.test", "www"]);
        check("domain b.test\nsearch a.test", "www", &["www.a.test", "www"]);
        check("search a.test A.test. .", "www", &["www.a.test", "www"]);
        check("search localhost. x.LOCALHOST a.test", "www", &["www.a.test", "www"]);
        check(two, "a..b", &[]);
        let kubernetes = "search ns.svc.cluster.local svc.cluster.local cluster.local\n\
            nameserver 10.96.0.10\noptions ndots:5\n";
        let suffixed = |name: &str| {
            ["ns.svc.cluster.local", "svc.cluster.local", "cluster.local"]
                .map(|suffix| format!("{name}.{suffix}"))
        };
        let [first, second, third] = suffixed("db.prod");
        check(kubernetes, "db.prod", &[&first, &second, &third, "db.prod"]);
        let [first, second, third] = suffixed("a.b.c.d.e.f");
        check(kubernetes, "a.b.c.d.e.f", &["a.b.c.d.e.f", &first, &second, &third]);
        // A suffix that makes the name too long is skipped.
        let long = format!("search {} b.test", ["a"; 125].join("."));
        check(&long, "host", &["host.b.test", "host"]);
    }

    #[test]
    fn a_hosts_file_is_read_line_by_line() {
        let hosts = Hosts::parse(
            b"127.0.0.1\tlocalhost\n192.0.2.1 Web.Example web # comment\n\
            2001:db8::1 web\n192.0.2.2  web\r\n192.0.2.2 web\n\
            # 192.0.2.9 web\n192.0.2.3#web\nfe80::1%eth0 web\n300.1.1.1 web\nweb\n\n\
            192.0.2.4 caf\xe9\n192.0.2.5 ok # caf\xe9\n192.0.2.6 dotted.",
        );
        let check = |name: &str, family, expected: &[&str]| {
            let found: Vec<String> =
                hosts.find(name, family).iter().map(ToString::to_string).collect();
            assert_eq!(found, expected, "{name}");
        };
        check("web", Family::Any, &["192.0.2.1", "2001:db8::1", "192.0.2.2"]);
        check("WEB.", Family::V4, &["192.0.2.1", "192.0.2.2"]);
        check("web.example", Family::V6, &[]);
        check("web.example", Family::V4, &["192.0.2.1"]);
        check("ok", Family::Any, &["192.0.2.5"]);
        check("dotted", Family::Any, &["192.0.2.6"]);
        check("comment", Family::Any, &[]);
    }

    #[test]
    fn localhost_and_all_names_below_it_are_this_machine() {
        let check = |name: &str, family, expected: &[&str]| {
            let found: Vec<String> =
                find_localhost(name, family).iter().map(ToString::to_string).collect();
            assert_eq!(found, expected, "{name}");
        };
        check("localhost", Family::Any, &["127.0.0.1", "::1"]);
        check("LocalHost.", Family::V4, &["127.0.0.1"]);
        check("a.b.localhost", Family::V6, &["::1"]);
        check("notlocalhost", Family::Any, &[]);
        check("localhost.example", Family::Any, &[]);
    }
}
