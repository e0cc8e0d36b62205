//! Names of well-known services, by port.
//!
//! The names of the system's services(5) file take precedence; a port without a name in it has that
//! of the built-in list. A name is the usual service of a port, not the actual one: no service is
//! contacted. This module reads no file: the caller reads the file once, at the start.

use std::collections::BTreeMap;

/// Service names by TCP port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names(BTreeMap<u16, Box<str>>);

impl Names {
    /// The names that a services(5) file gives to TCP ports. Malformed lines are skipped.
    pub fn parse(text: &[u8]) -> Self {
        let mut names = BTreeMap::new();
        for line in text.split(|byte| *byte == b'\n') {
            let Ok(line) = std::str::from_utf8(line) else { continue };
            let entry = line.split('#').next().unwrap_or_default();
            let mut words = entry.split_ascii_whitespace();
            let (Some(name), Some(at)) = (words.next(), words.next()) else { continue };
            let Some(port) = at.strip_suffix("/tcp").and_then(|port| port.parse().ok()) else {
                continue;
            };
            // A terminal interprets other characters, so a name may not contain them.
            let is_plain = name.bytes().all(|byte| byte.is_ascii_graphic());
            if is_plain && name.len() <= NAME_BYTES_MAX {
                names.entry(port).or_insert_with(|| name.into());
            }
        }
        Self(names)
    }

    /// The usual service of a port; empty if it is unknown.
    pub fn of(&self, port: u16) -> &str {
        if let Some(name) = self.0.get(&port) {
            return name;
        }
        let place = KNOWN.binary_search_by_key(&port, |(known, _)| *known);
        place.map_or("", |place| KNOWN[place].1)
    }
}

/// The port of a service of the built-in list, whose name is written in any case.
pub fn built_in_port(name: &str) -> Option<u16> {
    KNOWN.iter().find(|(_, known)| known.eq_ignore_ascii_case(name)).map(|(port, _)| *port)
}

/// The maximum length of a name in bytes. Names of services are shorter (RFC 6335 section 5.1
/// permits 15), and longer ones would break the table.
const NAME_BYTES_MAX: usize = 32;

/// Names by port, ascending. They are IANA's names, except where another name is in general use.
const KNOWN: [(u16, &str); 67] = [
    (7, "echo"),
    (9, "discard"),
    (13, "daytime"),
    (20, "ftp-data"),
    (21, "ftp"),
    (22, "ssh"),
    (23, "telnet"),
    (25, "smtp"),
    (37, "time"),
    (43, "whois"),
    (49, "tacacs"),
    (53, "domain"),
    (70, "gopher"),
    (79, "finger"),
    (80, "http"),
    (88, "kerberos"),
    (110, "pop3"),
    (111, "sunrpc"),
    (113, "auth"),
    (119, "nntp"),
    (135, "epmap"),
    (139, "netbios-ssn"),
    (143, "imap"),
    (179, "bgp"),
    (389, "ldap"),
    (443, "https"),
    (445, "microsoft-ds"),
    (465, "submissions"),
    (514, "shell"),
    (515, "printer"),
    (548, "afpovertcp"),
    (554, "rtsp"),
    (587, "submission"),
    (631, "ipp"),
    (636, "ldaps"),
    (853, "domain-s"),
    (873, "rsync"),
    (989, "ftps-data"),
    (990, "ftps"),
    (993, "imaps"),
    (995, "pop3s"),
    (1080, "socks"),
    (1433, "ms-sql-s"),
    (1521, "oracle"),
    (1723, "pptp"),
    (1883, "mqtt"),
    (2049, "nfs"),
    (2181, "zookeeper"),
    (2375, "docker"),
    (2379, "etcd-client"),
    (3128, "squid"),
    (3306, "mysql"),
    (3389, "ms-wbt-server"),
    (4369, "epmd"),
    (5060, "sip"),
    (5222, "xmpp-client"),
    (5432, "postgresql"),
    (5672, "amqp"),
    (5900, "rfb"),
    (6379, "redis"),
    (6443, "kubernetes"),
    (8080, "http-alt"),
    (8443, "https-alt"),
    (9092, "kafka"),
    (9200, "elasticsearch"),
    (11211, "memcached"),
    (27017, "mongodb"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_ports_ascend_and_have_short_plain_names() {
        assert!(KNOWN.is_sorted_by(|(one, _), (other, _)| one < other));
        for (port, name) in KNOWN {
            assert!(name.len() <= 15 && name.bytes().all(|byte| byte.is_ascii_graphic()));
            assert_eq!(Names::default().of(port), name);
        }
        assert_eq!(Names::default().of(1), "");
    }

    #[test]
    fn a_name_of_the_list_has_one_port() {
        for (port, name) in KNOWN {
            assert_eq!(built_in_port(name), Some(port), "{name}");
            assert_eq!(built_in_port(&name.to_ascii_uppercase()), Some(port), "{name}");
        }
        for name in ["", "80", "htt", "https:", "localhost"] {
            assert_eq!(built_in_port(name), None, "{name}");
        }
    }

    #[test]
    fn the_names_of_the_system_take_precedence_over_the_built_in_ones() {
        let names = Names::parse(
            b"# Network services\n\
            tcpmux\t\t1/tcp\t\t# multiplexer\n\
            ssh 22/udp\n\
            www 80/tcp http\n\
            again 80/tcp\n\
            bell\x07 81/tcp\n\
            \xff\xfe 82/tcp\n\
            big 65536/tcp\n\
            lonely\n\
            #off 83/tcp\n",
        );
        let check = |port, expected: &str| assert_eq!(names.of(port), expected, "{port}");
        check(1, "tcpmux");
        check(22, "ssh");
        check(80, "www");
        check(443, "https");
        for port in [81, 82, 83] {
            check(port, "");
        }
    }
}
