//! Flags of nmap, naabu, RustScan and masscan that have another name in this program, or no
//! equivalent.
//!
//! Users of these tools type such flags from habit. Each flag gets one line that says what to write
//! instead of it, which helps more than "unknown flag". Flags that mean the same in this program
//! under the same name are not listed.

use crate::config::flags::FLAGS;

/// Some flags and the advice for them.
struct Row {
    /// The flags as they are typed, without a value. Two dashes may be one and the reverse; a `*`
    /// at the end stands for any text.
    flags: &'static [&'static str],
    /// The text that follows the flag and a colon.
    advice: &'static str,
}

/// A flag of another tool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ForeignFlag<'a> {
    /// The flag as it was typed, without a value.
    pub(super) given: &'a str,
    /// The text that says what to write instead.
    pub(super) advice: &'static str,
}

const fn row(flags: &'static [&'static str], advice: &'static str) -> Row {
    Row { flags, advice }
}

/// The rows, grouped by topic.
const ROWS: &[Row] = &[
    // Targets.
    row(
        &["-iL", "-list", "-l", "--includefile", "--include-file", "--input-filename"],
        "write --targets FILE",
    ),
    row(&["-host", "-a", "--target"], TARGETS_ADVICE),
    row(
        &["--addresses"],
        "targets need no flag: openports scan HOST 22,80; every address of a name is \
         --all-addresses",
    ),
    row(
        &["--range"],
        "a range of ports is -p FIRST-LAST; a range of targets needs no flag: openports scan \
         10.0.0.1-254",
    ),
    row(&["-no-stdin"], "leave it out: stdin is read only with --targets -"),
    row(
        &["-irt", "-input-read-timeout"],
        "does not exist here: --targets FILE is read to its end before the first connect",
    ),
    row(&["--unique"], "leave it out: each target and port is scanned once"),
    row(&["-iR"], "targets are never made up; write them, or --targets FILE"),
    row(&["--excludefile", "--exclude-file", "-ef"], "write --exclude-targets-from FILE"),
    row(
        &["-exclude-hosts", "-eh", "-x", "--exclude-addresses"],
        "write --exclude-targets HOST,NETWORK",
    ),
    row(&["-iv", "-ip-version"], "write -4 or -6"),
    row(&["-scan-all-ips", "-sa", "--resolve-all"], "write --all-addresses"),
    row(&["--shards"], "write --shard I/N"),
    row(
        &["--resume-index", "--resume-count"],
        "write --shard I/N for a part of a scan, or --resume FILE for the rest of one",
    ),
    row(
        &["--randomize-hosts", "--scan-order", "--seed", "--min-hostgroup", "--max-hostgroup"],
        "not needed: the order and the number of hosts at once follow from what can be in flight",
    ),
    row(&["-ec", "-exclude-cdn", "-cdn", "-display-cdn"], "does not exist here: no CDN is known"),
    // Host discovery and names.
    row(
        &[
            "-Pn",
            "-PN",
            "-P0",
            "-P",
            "-PS",
            "-PA",
            "-PB",
            "-PD",
            "-PE",
            "-PI",
            "-PM",
            "-PO",
            "-PP",
            "-PR",
            "-PT",
            "-PU",
            "-PY",
            "-ps",
            "-pa",
            "-pe",
            "-pp",
            "-pm",
            "-probe-tcp-syn",
            "-probe-tcp-ack",
            "-probe-icmp-echo",
            "-probe-icmp-timestamp",
            "-probe-icmp-address-mask",
            "-arp",
            "-arp-ping",
            "--arpscan",
            "-nd",
            "-nd-ping",
            "-ping",
            "--discovery-ignore-rst",
            "-wn",
            "-with-host-discovery",
            "-skip-host-discovery",
            "--disable-arp-ping",
        ],
        "leave it out: every target is scanned, whether it answers a ping or not",
    ),
    row(
        &["-sn", "-sP", "-host-discovery"],
        "there is no ping scan; ask a few ports: openports scan NETWORK 22,80,443 --open",
    ),
    row(&["-sL"], "there is no list scan; targets are counted when the scan begins"),
    row(
        &["-n"],
        "leave it out: addresses are never looked up in reverse, and no configuration file is read",
    ),
    row(&["-R", "-rev-ptr"], "leave it out: addresses are never looked up in reverse"),
    row(
        &["--dns-servers", "--system-dns", "--resolver", "-resolvers"],
        "write --resolv-conf FILE, with a line nameserver ADDRESS",
    ),
    // Techniques.
    row(&["-sT"], "leave it out, or write --technique connect"),
    row(&["-sS", "--syn"], "write --technique syn"),
    row(
        &["-s", "-scan-type", "--privileged", "--unprivileged"],
        "write --technique connect or --technique syn",
    ),
    row(
        &["-sU", "-sY", "-sZ", "-sO", "--udp", "--udp-ports", "--sctp", "--nmap-payloads"],
        "does not exist here: only TCP ports are scanned",
    ),
    row(
        &["-sA", "-sW", "-sM", "-sN", "-sF", "-sX", "-sI", "--scanflags"],
        "does not exist here: write --technique connect or --technique syn",
    ),
    row(
        &[
            "-sV",
            "-A",
            "-O",
            "-sC",
            "--version-intensity",
            "--version-light",
            "--version-all",
            "--version-trace",
            "--allports",
            "--osscan-guess",
            "--osscan-limit",
            "--fuzzy",
            "--max-os-tries",
            "-sD",
            "-service-discovery",
            "-service-version",
            "-nmap-cli",
            "-nmap",
        ],
        "does not exist here; --include services names the usual services, and --format host-port \
         feeds a tool that asks them",
    ),
    row(
        &[
            "--banners",
            "--nobanners",
            "--hello*",
            "--http-*",
            "--heartbleed",
            "--ticketbleed",
            "--vuln",
            "-connect-payload",
            "-cp",
        ],
        "does not exist here: nothing is sent to an open port; --format host-port feeds a tool",
    ),
    row(
        &["--connection-timeout", "--tcp-timeout"],
        "leave it out: an open port is closed at once; the deadline of a connect is --timeout \
         DURATION",
    ),
    row(
        &["--datadir", "--servicedb", "--versiondb"],
        "does not exist here: the names of services are those of /etc/services",
    ),
    row(&["--traceroute"], "does not exist here: routes are not traced"),
    row(&["-passive"], "does not exist here: every port is probed, and no database is asked"),
    row(
        &["--script*"],
        "does not exist here: nothing runs after a scan; --format host-port feeds another tool",
    ),
    row(
        &[
            "-f",
            "-D",
            "--mtu",
            "--data-length",
            "--data-string",
            "--data",
            "--ttl",
            "--spoof-mac",
            "--badsum",
            "--adler32",
            "--ip-options",
            "--send-eth",
            "--send-ip",
            "--min-packet",
            "--source-port",
            "--adapter-port",
            "--adapter-vlan",
            "--vlan",
        ],
        "does not exist here: packets are those of the kernel's TCP",
    ),
    row(&["-g"], "RustScan's -g is --format host-port; nmap's, a source port, does not exist here"),
    row(
        &["--proxies", "-proxy", "-proxy-auth"],
        "does not exist here: targets are connected to directly",
    ),
    row(
        &["-S", "-i", "-interface", "-source-ip", "--adapter", "--adapter-ip"],
        "write --source ADDRESS or --source INTERFACE",
    ),
    row(&["-e"], "an interface is --source INTERFACE; ports that are left out are --exclude PORTS"),
    row(&["--router-mac", "--router-ip", "--adapter-mac"], "not needed: the kernel routes"),
    row(
        &["--offline", "--nocapture", "--capture"],
        "does not exist here: there is no dry run, and answers are not kept",
    ),
    row(&["--pcap*"], "does not exist here: tcpdump -w FILE keeps the packets"),
    // Ports.
    row(&["-F", "--fast"], "write -p top:100"),
    row(&["--top-ports", "-tp", "--top", "--port-ratio"], "write -p top:N, such as -p top:1000"),
    row(&["--port"], "write -p PORTS"),
    row(&["-ports-file", "-pf"], "write -p \"$(paste -sd, FILE)\""),
    row(
        &["-r"],
        "a range of ports is -p FIRST-LAST, name servers are --resolv-conf FILE; ports need no \
         order",
    ),
    row(&["--exclude-ports", "--exclude-port", "-ep"], "write --exclude PORTS"),
    row(
        &["-pts", "-port-threshold"],
        "does not exist here: a target with many open ports is scanned to the end",
    ),
    // Speed.
    row(
        &["-T", "-T0", "-T1", "-T2", "-T3", "-T4", "-T5", "--timing"],
        "leave it out: speed follows the measured path; --rate, --concurrency and --timeout bound \
         it",
    ),
    row(
        &[
            "--min-rate",
            "--min-parallelism",
            "--defeat-rst-ratelimit",
            "--defeat-icmp-ratelimit",
            "--nsock-engine",
        ],
        "leave it out: a scan is as fast as the path allows; --rate N is an upper bound",
    ),
    row(&["--max-rate", "-rate"], "write --rate N"),
    row(&["--scan-delay", "--max-scan-delay", "--delay"], "write --rate N, connects a second"),
    row(&["--max-parallelism", "-b", "--batch-size"], "write --concurrency N"),
    row(
        &["-c"],
        "connects at once are --concurrency N; a configuration file does not exist here: every \
         flag has a variable OPENPORTS_…",
    ),
    row(&["--max-retries", "-retries", "--tries"], "write --retries N"),
    row(&["--host-timeout"], "write --deadline DURATION, such as --deadline 5m"),
    row(
        &["-t", "-timeout", "--min-rtt-timeout", "--max-rtt-timeout", "--initial-rtt-timeout"],
        "write --timeout DURATION, such as --timeout 500ms, or --timeout auto",
    ),
    row(
        &["-u", "--ulimit"],
        "leave it out: the limit of open files is raised as far as it goes by itself",
    ),
    row(&["--wait", "-warm-up-time"], "not needed: a scan ends when every port has its state"),
    row(&["-verify"], "not needed: an open port has completed a handshake"),
    row(&["--infinite"], "does not exist here: a loop of the shell repeats a scan"),
    // Output.
    row(&["-oX"], "write --format xml -o FILE"),
    row(&["-oG", "-oM"], "write --format greppable -o FILE"),
    row(&["-oN"], "write -o FILE"),
    row(&["-oA"], "there is one format a scan; write --format ndjson -o FILE, or xml, greppable"),
    row(&["-oJ", "-oD"], "write --format json -o FILE, or --format ndjson"),
    row(&["-oL", "-oU"], "write --format host-port -o FILE"),
    row(&["-oS", "-oH", "-oB", "-oR", "--readscan"], "does not exist here; see --format"),
    row(
        &["--rotate*"],
        "does not exist here: each run writes one file, -o FILE, which is replaced at its end",
    ),
    row(
        &["--open-only"],
        "leave it out: only open ports are printed; --open leaves out targets without one",
    ),
    row(&["--show", "--noshow"], "write --include closed,filtered,unreachable"),
    row(
        &["-lof", "-list-output-fields", "-eof", "-exclude-output-fields"],
        "does not exist here: the fields are fixed; the first line of --format csv names them",
    ),
    row(&["-stream"], "write --ndjson for events as they happen"),
    row(&["--interactive"], "leave it out: a terminal shows open ports as they are found"),
    row(
        &["-mp", "-metrics-port"],
        "a scan has no metrics; a service has them at /metrics of --listen ADDRESS:PORT",
    ),
    row(
        &[
            "-pd",
            "-dashboard",
            "-pdu",
            "-dashboard-upload",
            "-auth",
            "-auth-config",
            "-ac",
            "-team-id",
            "-tid",
            "-asset-id",
            "-aid",
            "-asset-name",
            "-aname",
        ],
        "does not exist here: results go to stdout or to -o FILE and nowhere else",
    ),
    row(&["--output-format"], "write --format NAME"),
    row(&["--output-file", "--output-filename", "-output"], "write -o FILE"),
    row(&["-json", "-j"], "write --json, or --ndjson for events as they happen"),
    row(&["-csv"], "write --format csv"),
    row(&["--greppable"], "write --format host-port"),
    row(
        &["-silent", "-q", "--quiet", "--no-banner", "--noninteractive", "--non-interactive"],
        "leave it out: only results go to stdout; 2>/dev/null silences the rest",
    ),
    row(&["-nc", "-no-color", "--accessible", "--no-colour"], "set the variable NO_COLOR=1"),
    row(&["--reason"], "write --include closed,filtered,unreachable, or --format xml"),
    row(
        &["--stats-every", "-stats", "-stats-interval", "-si", "--nostatus", "--ndjson-status"],
        "leave it out: a terminal shows the progress",
    ),
    row(
        &["-v", "-d", "--debug", "--verbose", "--packet-trace", "--log-errors"],
        "leave it out of a scan: a terminal shows the progress; the log of a service is \
         --log-level debug",
    ),
    row(&["--append-output", "--output-append"], "write to stdout and append: >>FILE"),
    row(
        &["--stylesheet", "--webxml", "--no-stylesheet"],
        "does not exist here: --format xml names no stylesheet",
    ),
    row(
        &["--iflist", "-il", "-interface-list", "-W", "--list-adapters", "--debug-if"],
        "does not exist here: ip address lists them",
    ),
    // The program itself.
    row(
        &["--no-config", "--config", "--config-path", "--conf", "--echo*"],
        "there is no configuration file: every flag has a variable OPENPORTS_…",
    ),
    row(
        &["-health-check", "-hc", "--selftest", "--regress"],
        "there is nothing to check before a scan; openports healthcheck asks a running service",
    ),
    row(&["-version"], "write --version"),
    row(
        &["-up", "-update", "-duc", "-disable-update-check"],
        "does not exist here: the program neither updates itself nor looks for updates",
    ),
];

/// The advice for a target that is the value of a flag. naabu accepts `--host` too, which is a flag
/// of the service here.
pub(super) const TARGETS_ADVICE: &str =
    "targets need no flag: openports scan HOST 22,80; a file of them: --targets FILE";

/// The advice for a port of the service. Many servers take it as `--port` or `-p`.
pub(super) const LISTEN_ADVICE: &str =
    "the port of the service is --listen 127.0.0.1:8080; ports to scan follow openports scan -p";

/// The advice for the address or the port of the service to check.
pub(super) const CHECK_ADVICE: &str =
    "the service to check needs no flag: openports healthcheck 127.0.0.1:8080";

/// Flags that are not of the service, but that set its port in other servers.
const LISTEN_FLAGS: [&str; 6] = ["--port", "-port", "-l", "-b", "--bind", "--address"];

/// Whether an argument of the service is meant to set its port.
pub(super) fn is_listen_flag(argument: &str) -> bool {
    LISTEN_FLAGS.contains(&argument.split('=').next().unwrap_or(argument))
}

/// The flag of another tool that an argument is; `None` if the flag is unknown. The value may be
/// attached: `--top-ports=100`, `-PS22,80`, `-b4500`.
pub(super) fn find(argument: &str) -> Option<ForeignFlag<'_>> {
    let name = argument.split('=').next().unwrap_or(argument);
    let letters = name.split(|c: char| c.is_ascii_digit()).next().unwrap_or(name);
    let found = |given, row: &Row| ForeignFlag { given, advice: row.advice };
    find_row(name)
        .map(|row| found(name, row))
        .or_else(|| find_row(letters).map(|row| found(letters, row)))
        .or_else(|| find_cluster(name).map(|row| found(name, row)))
}

/// The row of a flag. Go and getopt_long_only(3) accept one dash and two before a long name, so
/// both are accepted here, unless the name with two dashes is a flag of this program.
fn find_row(name: &str) -> Option<&'static Row> {
    let matches = |name: &str, flag: &str| match flag.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => name == flag,
    };
    let find =
        |name: &str| ROWS.iter().find(|row| row.flags.iter().any(|flag| matches(name, flag)));
    let swapped = match (name.strip_prefix("--"), name.strip_prefix('-')) {
        (Some(long), _) if !is_ours(long) => Some(format!("-{long}")),
        (None, Some(long)) => Some(format!("--{long}")),
        _ => None,
    };
    // A short flag has one dash.
    let swapped = swapped.filter(|_| name.trim_start_matches('-').chars().nth(1).is_some());
    find(name).or_else(|| find(&swapped?))
}

/// Whether `--name` is a flag of this program.
pub(super) fn is_ours(name: &str) -> bool {
    let names = FLAGS.iter().map(|flag| flag.name).chain(["help", "version"]);
    names.into_iter().any(|ours| ours == name)
}

/// The row of nmap's clusters: a letter that is repeated, as in `-vvvv`, several kinds of scan in
/// one flag, as in `-sCV`, of which the last one counts, or several flags without a value, as in
/// `-nvv` and `-4v`, of which the first counts that is not one of ours.
fn find_cluster(name: &str) -> Option<&'static Row> {
    let letters = name.strip_prefix('-')?;
    let first = letters.chars().next()?;
    if letters.chars().all(|letter| letter == first) {
        return find_row(&format!("-{first}"));
    }
    if letters.chars().all(|letter| "46AFORdfnv".contains(letter)) {
        return letters.chars().find_map(|letter| find_row(&format!("-{letter}")));
    }
    let kinds = letters.strip_prefix('s')?;
    let rows = kinds.chars().map(|kind| find_row(&format!("-s{kind}")));
    rows.collect::<Option<Vec<_>>>()?.pop()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn advice(argument: &str) -> Option<&'static str> {
        find(argument).map(|flag| flag.advice)
    }

    #[test]
    fn a_flag_of_another_tool_is_listed_once_and_does_not_exist_here() {
        let mut known = BTreeSet::new();
        for flag in ROWS.iter().flat_map(|row| row.flags) {
            assert!(known.insert(flag), "{flag} is listed twice");
            let is_ours = flag.strip_prefix("--").is_some_and(is_ours);
            assert!(!is_ours, "{flag} is a flag of this program");
            if let Some(start) = flag.strip_suffix('*') {
                let hides = |ours: &str| format!("--{ours}").starts_with(start);
                assert!(!FLAGS.iter().any(|ours| hides(ours.name)), "{flag} hides a flag of ours");
            }
            let long = flag.trim_start_matches('-');
            let swapped = [format!("-{long}"), format!("--{long}")];
            let forms = ROWS
                .iter()
                .flat_map(|row| row.flags)
                .filter(|it| long.len() > 1 && swapped.contains(&it.to_string()));
            assert!(forms.count() <= 1, "{flag} is listed with one dash and with two");
            assert!(!["-p", "-o", "-4", "-6", "-h", "-V"].contains(flag), "{flag} is ours");
        }
        assert!(known.len() > 150);
    }

    #[test]
    fn an_advice_is_one_line_and_names_flags_that_exist() {
        for Row { flags, advice } in ROWS {
            assert!(!advice.contains('\n') && !advice.ends_with('.'), "{flags:?}");
            assert!(advice.len() < 150, "{flags:?}: {}", advice.len());
            for word in advice.split([' ', ',', ':', ';', ')', '(']) {
                let Some(name) = word.strip_prefix("--") else { continue };
                assert!(is_ours(name), "{flags:?}: --{name}");
            }
        }
    }

    #[test]
    fn values_may_be_attached() {
        for (given, expected) in [
            ("--top-ports=100", "write -p top:N"),
            ("-PS22,80", "leave it out"),
            ("-T4", "leave it out"),
            ("-oX", "write --format xml -o FILE"),
            ("-rate", "write --rate N"),
            ("--PS22", "leave it out"),
            ("-b4500", "write --concurrency N"),
            ("-g53", "RustScan's"),
            ("-e22,80", "an interface is"),
        ] {
            let advice = advice(given).unwrap();
            assert!(advice.starts_with(expected), "{given}: {advice}");
        }
        let unknown =
            ["-p", "-p22", "--timeout", "-ofile", "--no-such-thing", "-Q", "--l", "-", "-1"];
        for given in unknown {
            assert_eq!(advice(given), None, "{given}");
        }
    }

    #[test]
    fn a_long_flag_has_one_dash_or_two_unless_it_is_ours_with_two() {
        for (given, expected) in [
            ("-health-check", "there is nothing to check"),
            ("--health-check", "there is nothing to check"),
            ("-top-ports", "write -p top:N"),
            ("-oX", "write --format xml"),
            ("--oX", "write --format xml"),
            ("-verbose", "leave it out of a scan: a terminal"),
            ("--addresses", "targets need no flag: openports scan HOST 22,80; every address"),
            ("-timeout", "write --timeout"),
            ("-version", "write --version"),
            ("--rotate-dir", "does not exist here"),
            ("--http-user-agent", "does not exist here"),
            ("-script-args", "does not exist here"),
        ] {
            let advice = advice(given).unwrap();
            assert!(advice.starts_with(expected), "{given}: {advice}");
        }
        for given in ["--timeout", "--version", "--host", "--rate", "--json"] {
            assert_eq!(advice(given), None, "{given}");
        }
    }

    #[test]
    fn a_cluster_of_nmap_is_read_as_a_whole() {
        for (given, same) in [
            ("-vvvv", "-v"),
            ("-ddd", "-d"),
            ("-ff", "-f"),
            ("-sCV", "-sV"),
            ("-sVC", "-sC"),
            ("-sSU", "-sU"),
            ("-nvv", "-n"),
            ("-Fn", "-F"),
            ("-4v", "-v"),
            ("-v6", "-v"),
        ] {
            assert!(given.starts_with(find(given).unwrap().given), "{given}");
            assert_eq!(advice(given), advice(same), "{given}");
        }
        for given in ["-sSq", "-pq", "-44", "-vq"] {
            assert_eq!(advice(given), None, "{given}");
        }
    }
}
