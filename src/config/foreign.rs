//! Flags of nmap, naabu, RustScan and masscan that have another name in this program, or no
//! equivalent.
//!
//! Users of these tools type such flags from habit. Each flag gets one line that says what to write
//! instead of it, which helps more than "unknown flag". Flags that mean the same in this program
//! under the same name are not listed.

/// Some flags and the advice for them.
struct Row {
    /// The flags as they are typed, without a value.
    flags: &'static [&'static str],
    /// The text that follows the flag and a colon.
    advice: &'static str,
}

const fn row(flags: &'static [&'static str], advice: &'static str) -> Row {
    Row { flags, advice }
}

/// The rows, grouped by topic.
const ROWS: &[Row] = &[
    // Targets.
    row(&["-iL", "-list", "-l", "--includefile", "--input-filename"], "write --targets FILE"),
    row(
        &["-host", "-a", "--addresses", "--range", "--target"],
        "targets need no flag: openports scan HOST 22,80; a file of them: --targets FILE",
    ),
    row(&["-iR"], "targets are never made up; write them, or --targets FILE"),
    row(
        &["--excludefile", "--exclude-file", "-exclude-file", "-ef"],
        "write --exclude-targets-from FILE",
    ),
    row(
        &["-exclude-hosts", "-eh", "-x", "--exclude-addresses"],
        "write --exclude-targets HOST,NETWORK",
    ),
    row(&["-iv", "-ip-version"], "write -4 or -6"),
    row(&["-scan-all-ips", "-sa", "--resolve-all"], "write --all-addresses"),
    row(&["--shards"], "write --shard I/N"),
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
            "-PS",
            "-PA",
            "-PU",
            "-PY",
            "-PE",
            "-PP",
            "-PM",
            "-PO",
            "-ping",
            "--ping",
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
    row(&["-n", "-R"], "leave it out: addresses are never looked up in reverse"),
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
    row(&["-sU", "-sY", "-sZ", "-sO", "--udp"], "does not exist here: only TCP ports are scanned"),
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
            "--osscan-guess",
            "--osscan-limit",
            "--traceroute",
            "--banners",
            "-nmap-cli",
            "-nmap",
            "--nmap",
        ],
        "does not exist here; --include services names the usual services, and --format host-port \
         feeds a tool that asks them",
    ),
    row(
        &["--script", "--script-args", "--scripts", "--script-updatedb"],
        "does not exist here: nothing runs after a scan; --format host-port feeds another tool",
    ),
    row(
        &[
            "-f",
            "-D",
            "--mtu",
            "--data-length",
            "--data",
            "--ttl",
            "--spoof-mac",
            "--badsum",
            "--ip-options",
            "--proxies",
            "-proxy",
            "-g",
            "--source-port",
            "--adapter-port",
        ],
        "does not exist here: packets are those of the kernel's TCP",
    ),
    row(
        &[
            "-S",
            "-e",
            "-i",
            "-interface",
            "-source-ip",
            "--source-ip",
            "--adapter",
            "--adapter-ip",
            "--interface",
        ],
        "write --source ADDRESS or --source INTERFACE; ports that are left out: --exclude PORTS",
    ),
    row(&["--router-mac", "--router-ip", "--adapter-mac"], "not needed: the kernel routes"),
    // Ports.
    row(&["-F", "--fast"], "write -p top:100"),
    row(
        &["--top-ports", "-top-ports", "-tp", "--top", "--port-ratio"],
        "write -p top:N, such as -p top:1000",
    ),
    row(&["--port", "-port"], "write -p PORTS"),
    row(&["-ports-file", "-pf"], "write -p \"$(paste -sd, FILE)\""),
    row(
        &["-r"],
        "a range of ports is -p FIRST-LAST, name servers are --resolv-conf FILE; ports need no \
         order",
    ),
    row(&["--exclude-ports", "-exclude-ports", "-ep"], "write --exclude PORTS"),
    // Speed.
    row(
        &["-T", "-T0", "-T1", "-T2", "-T3", "-T4", "-T5"],
        "leave it out: speed follows the measured path; --rate, --concurrency and --timeout bound \
         it",
    ),
    row(
        &["--min-rate", "--min-parallelism", "--defeat-rst-ratelimit"],
        "leave it out: a scan is as fast as the path allows; --rate N is an upper bound",
    ),
    row(&["--max-rate", "-rate"], "write --rate N"),
    row(&["--scan-delay", "--max-scan-delay", "--delay"], "write --rate N, connects a second"),
    row(&["--max-parallelism", "-c", "-b", "--batch-size"], "write --concurrency N"),
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
    // Output.
    row(&["-oX"], "write --format xml -o FILE"),
    row(&["-oG", "-oM"], "write --format greppable -o FILE"),
    row(&["-oN"], "write -o FILE"),
    row(&["-oA"], "there is one format a scan; write --format ndjson -o FILE, or xml, greppable"),
    row(&["-oJ", "-oD"], "write --format json -o FILE, or --format ndjson"),
    row(&["-oL", "-oU"], "write --format host-port -o FILE"),
    row(&["-oS", "-oH", "-oB", "--readscan"], "does not exist here; see --format"),
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
    row(&["--stats-every", "-stats", "-si"], "leave it out: a terminal shows the progress"),
    row(
        &["-v", "-vv", "-vvv", "-d", "-dd", "-debug", "--debug", "--verbose", "--packet-trace"],
        "write --log-level info or --log-level debug",
    ),
    row(&["--append-output"], "write to stdout and append: >>FILE"),
    row(
        &["--stylesheet", "--webxml", "--no-stylesheet"],
        "does not exist here: --format xml names no stylesheet",
    ),
    row(&["--iflist", "-il", "-interface-list"], "does not exist here: ip address lists them"),
    row(
        &["--no-config", "--config", "--config-path", "-config", "--conf", "--echo"],
        "there is no configuration file: every flag has a variable OPENPORTS_…",
    ),
];

/// The advice for a flag of another tool; `None` if the flag is unknown.
pub(super) fn advice(given: &str) -> Option<&'static str> {
    let name = given.split('=').next().unwrap_or(given);
    let found = ROWS.iter().find(|row| row.flags.contains(&name));
    // The value of `-PS22,80` and of `-b4500` is attached to the flag.
    let is_probe = |row: &&Row| {
        row.flags.iter().any(|flag| {
            let rest = name.strip_prefix(flag).unwrap_or_default();
            flag.starts_with("-P") && rest.starts_with(|c: char| c.is_ascii_digit())
        })
    };
    found.or_else(|| ROWS.iter().find(is_probe)).map(|row| row.advice)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    use crate::config::flags::FLAGS;

    #[test]
    fn a_flag_of_another_tool_is_listed_once_and_does_not_exist_here() {
        let mut known = BTreeSet::new();
        for flag in ROWS.iter().flat_map(|row| row.flags) {
            assert!(known.insert(flag), "{flag} is listed twice");
            let is_ours = FLAGS.iter().any(|ours| *flag == format!("--{}", ours.name));
            assert!(!is_ours, "{flag} is a flag of this program");
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
                let is_known = FLAGS.iter().any(|flag| flag.name == name);
                assert!(is_known, "{flags:?}: --{name}");
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
        ] {
            let advice = advice(given).unwrap();
            assert!(advice.starts_with(expected), "{given}: {advice}");
        }
        for given in ["-p", "--timeout", "-ofile", "--no-such-thing", "-Q"] {
            assert_eq!(advice(given), None, "{given}");
        }
    }
}
