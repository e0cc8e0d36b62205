//! The table of flags: the name, variable, default, help text and parser of each flag.

use std::time::Duration;

use crate::batch::options::{Format, Shown};
use crate::batch::shard::Shard;
use crate::config::flag::Flag;
use crate::config::flag::FlagDefault::{Held, Unset, Value};
use crate::config::help::Subcommand;
use crate::config::scan::{SourceFlag, excluded_ports, ports};
use crate::config::values::{
    choose_format, count, display, duration_within, host_name, path, push, set, switch,
};
use crate::host::Family;
use crate::limits::{DRAIN_TIME_MAX, SCAN_TIME_MAX, TIMEOUT_MAX, TIMEOUT_MIN};
use crate::scan::options::{Addresses, Include, Retries, Timeout, parse_concurrency, parse_rate};
use crate::target_spec::Spec;
use crate::technique::{self, Technique};

/// Where the service listens, and where a health check looks for it.
const LISTEN_DEFAULT: &str = "127.0.0.1:8080";

const SERVE: &[Subcommand] = &[Subcommand::Serve];
const SCAN: &[Subcommand] = &[Subcommand::Scan];
const BOTH: &[Subcommand] = &[Subcommand::Serve, Subcommand::Scan];
const HEALTHCHECK: &[Subcommand] = &[Subcommand::Healthcheck];

/// Every flag except `--help` and `--version`, in the order of the help.
pub(super) const FLAGS: [Flag; 43] = [
    Flag::row(
        SERVE,
        "listen ADDRESS:PORT",
        Value(LISTEN_DEFAULT),
        "serve here or at unix:PATH; port 0: any; repeatable",
        |it, text| push(&mut it.listen, text.parse()),
    )
    .list(),
    Flag::row(
        HEALTHCHECK,
        "listen ADDRESS:PORT",
        Value(LISTEN_DEFAULT),
        "ask the service that listens here; the first counts",
        |it, text| push(&mut it.listen, text.parse()),
    )
    .list(),
    Flag::row(
        SERVE,
        "timeout DURATION",
        Held(|it| display(it.settings.timeout)),
        "default deadline of each connect",
        |it, text| set(&mut it.settings.timeout, duration_within(text, TIMEOUT_MIN, TIMEOUT_MAX)),
    ),
    Flag::row(
        SERVE,
        "technique NAME",
        Held(|it| it.settings.technique.label().to_owned()),
        technique::EXPLANATION,
        |it, text| set(&mut it.settings.technique, Technique::parse(text)),
    ),
    Flag::row(
        SERVE,
        "max-scan-time DURATION",
        Held(|it| display(it.settings.scan_time_max)),
        "the longest a scan may take",
        |it, text| {
            set(&mut it.settings.scan_time_max, duration_within(text, TIMEOUT_MIN, SCAN_TIME_MAX))
        },
    ),
    Flag::row(
        SERVE,
        "max-scans N",
        Held(|it| it.settings.scans_max.to_string()),
        "scans at once",
        |it, text| set(&mut it.settings.scans_max, count(text)),
    ),
    Flag::row(
        SERVE,
        "max-scans-per-client N",
        Held(|it| it.settings.scans_per_client_max.to_string()),
        "scans at once for one address (IPv6: one /64)",
        |it, text| set(&mut it.settings.scans_per_client_max, count(text)),
    ),
    Flag::row(
        SERVE,
        "max-connections N",
        Held(|it| it.settings.connections_max.to_string()),
        "client connections at once",
        |it, text| set(&mut it.settings.connections_max, count(text)),
    ),
    Flag::row(
        SCAN,
        "targets FILE",
        Unset("none"),
        "scan each target of this list too; - is stdin",
        |it, text| set(&mut it.scan.targets, path(text).map(Some)),
    ),
    Flag::row(
        SCAN,
        "ports PORTS",
        Unset("every port"),
        "scan these ports; - is every port",
        |it, text| set(&mut it.scan.ports, ports(text).map(Some)),
    ),
    Flag::row(
        SCAN,
        "exclude-targets TARGETS",
        Unset("none"),
        "never connect to these; repeatable",
        |it, text| {
            let spec = Spec::parse_excluded(text, &it.settings.interfaces);
            push(&mut it.scan.exclude_targets, spec)
        },
    )
    .list(),
    Flag::row(
        SCAN,
        "exclude-targets-from FILE",
        Unset("none"),
        "the same, from a list of targets",
        |it, text| set(&mut it.scan.exclude_targets_from, path(text).map(Some)),
    ),
    Flag::row(
        SCAN,
        "resume FILE",
        Unset("none"),
        "skip the targets that this NDJSON has finished",
        |it, text| set(&mut it.scan.resume, path(text).map(Some)),
    ),
    Flag::row(
        SCAN,
        "shard I/N",
        Unset("1/1"),
        "scan the I-th of N parts, each on its own machine",
        |it, text| set(&mut it.scan.shard, Shard::parse(text)),
    ),
    Flag::row(SCAN, "exclude PORTS", Unset("none"), "never connect to these ports", |it, text| {
        set(&mut it.scan.exclude, excluded_ports(text))
    }),
    Flag::row(
        SCAN,
        "timeout DURATION",
        Held(|it| it.scan.options.timeout.to_string()),
        "deadline of each connect, or auto",
        |it, text| set(&mut it.scan.options.timeout, Timeout::parse(text)),
    ),
    Flag::row(
        SCAN,
        "technique NAME",
        Held(|it| it.scan.options.technique.label().to_owned()),
        technique::EXPLANATION,
        |it, text| set(&mut it.scan.options.technique, Technique::parse(text)),
    ),
    Flag::row(
        SCAN,
        "retries N",
        Held(|it| it.scan.options.retries.to_string()),
        "further passes over silent ports, or auto",
        |it, text| set(&mut it.scan.options.retries, Retries::parse(text)),
    ),
    Flag::row(
        SCAN,
        "deadline DURATION",
        Held(|it| display(it.scan.options.deadline)),
        "the longest one target may take",
        |it, text| {
            set(&mut it.scan.options.deadline, duration_within(text, TIMEOUT_MIN, SCAN_TIME_MAX))
        },
    ),
    Flag::row(
        SCAN,
        "rate N",
        Unset("none"),
        "new connects per second, of all targets together",
        |it, text| set(&mut it.scan.options.rate, parse_rate(text).map(Some)),
    ),
    Flag::row(
        SCAN,
        "concurrency N",
        Unset("as many as ports"),
        "connects at once to one target",
        |it, text| set(&mut it.scan.options.concurrency, parse_concurrency(text).map(Some)),
    ),
    Flag::row(SCAN, "family 4|6", Unset("either"), "use addresses of this family", |it, text| {
        set(&mut it.scan.options.family, Family::parse(text))
    }),
    Flag::row(
        SCAN,
        "all-addresses",
        Unset("the first"),
        "scan every address of a name",
        |it, text| {
            let addresses = |is_on| if is_on { Addresses::All } else { Addresses::First };
            set(&mut it.scan.options.addresses, switch(text).map(addresses))
        },
    ),
    Flag::row(
        SCAN,
        "source ADDRESS|INTERFACE",
        Unset("the kernel's choice"),
        "connect from here",
        |it, text| set(&mut it.scan.source, SourceFlag::parse(text).map(Some)),
    ),
    Flag::row(SCAN, "format FORMAT", Unset("table"), "what to print, see below", |it, text| {
        choose_format(it, Format::parse(text)?)
    }),
    Flag::row(SCAN, "json", Unset("a table"), "print what the service would answer", |it, text| {
        if switch(text)? { choose_format(it, Format::Json) } else { Ok(()) }
    }),
    Flag::row(SCAN, "ndjson", Unset("a table"), "print events as they happen", |it, text| {
        if switch(text)? { choose_format(it, Format::Ndjson) } else { Ok(()) }
    }),
    Flag::row(
        SCAN,
        "include LIST",
        Unset("open ports alone"),
        "closed, filtered, unreachable, services",
        |it, text| set(&mut it.scan.options.include, Include::parse(text)),
    ),
    Flag::row(
        SCAN,
        "open",
        Unset("every target"),
        "print only targets with an open port",
        |it, text| {
            let shown = |is_on| if is_on { Shown::Open } else { Shown::All };
            set(&mut it.scan.shown, switch(text).map(shown))
        },
    ),
    Flag::row(
        SCAN,
        "output FILE",
        Unset("stdout"),
        "print into this file, which is replaced at the end",
        |it, text| set(&mut it.scan.output, path(text).map(Some)),
    ),
    Flag::row(
        BOTH,
        "max-in-flight N",
        Unset("from RLIMIT_NOFILE"),
        "connects at once, of all scans together",
        |it, text| set(&mut it.settings.in_flight_max, count(text).map(Some)),
    ),
    Flag::row(
        SERVE,
        "drain-delay DURATION",
        Held(|it| display(it.settings.drain_delay)),
        "go on listening this long after SIGTERM",
        |it, text| {
            set(&mut it.settings.drain_delay, duration_within(text, Duration::ZERO, DRAIN_TIME_MAX))
        },
    ),
    Flag::row(
        SERVE,
        "drain-timeout DURATION",
        Held(|it| display(it.settings.drain_timeout)),
        "cut scans short this long after SIGTERM",
        |it, text| {
            set(
                &mut it.settings.drain_timeout,
                duration_within(text, Duration::ZERO, DRAIN_TIME_MAX),
            )
        },
    ),
    Flag::row(
        BOTH,
        "allow NETWORK",
        Unset("none"),
        "scan these too, which the default denies; repeatable",
        |it, text| push(&mut it.allow, text.parse()),
    )
    .list(),
    Flag::row(BOTH, "deny NETWORK", Unset("none"), "never scan these; repeatable", |it, text| {
        push(&mut it.deny, text.parse())
    })
    .list(),
    Flag::row(
        SERVE,
        "host NAME",
        Unset("none"),
        "a name this service is known by; repeatable",
        |it, text| push(&mut it.host_names, host_name(text)),
    )
    .list(),
    Flag::row(
        SERVE,
        "token-file FILE",
        Unset("none"),
        "the bearer token that scans need; re-read",
        |it, text| set(&mut it.token_file, path(text).map(Some)),
    ),
    Flag::row(
        SERVE,
        "trust-proxy NETWORK",
        Unset("none"),
        "proxies that name the client; repeatable",
        |it, text| push(&mut it.proxies, text.parse()),
    )
    .list(),
    Flag::row(SERVE, "log-level LEVEL", Value("info"), "error, warn, info or debug", |it, text| {
        set(&mut it.log_level, text.parse())
    }),
    Flag::row(SCAN, "log-level LEVEL", Value("warn"), "error, warn, info or debug", |it, text| {
        set(&mut it.log_level, text.parse())
    }),
    Flag::row(BOTH, "log-format FORMAT", Value("logfmt"), "logfmt or json", |it, text| {
        set(&mut it.log_format, text.parse())
    }),
    Flag::row(
        BOTH,
        "resolv-conf FILE",
        Value("/etc/resolv.conf"),
        "the name servers and the search list",
        |it, text| set(&mut it.resolv_conf, path(text)),
    ),
    Flag::row(
        BOTH,
        "hosts FILE",
        Value("/etc/hosts"),
        "names known without a server",
        |it, text| set(&mut it.hosts, path(text)),
    ),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::flag::Arity;
    use std::collections::BTreeSet;

    #[test]
    fn a_command_has_each_name_once_and_switches_have_no_metavar() {
        for command in [Subcommand::Serve, Subcommand::Scan, Subcommand::Healthcheck] {
            let mut names = BTreeSet::new();
            for flag in FLAGS.iter().filter(|flag| flag.commands.contains(&command)) {
                assert!(names.insert(flag.name), "{command:?} has --{} twice", flag.name);
            }
        }
        for flag in &FLAGS {
            assert!(!flag.commands.is_empty(), "--{} belongs to a command", flag.name);
            assert_eq!(flag.metavar.is_empty(), flag.arity == Arity::Switch, "--{}", flag.name);
            // The parser takes a value before it has read the command.
            let namesakes = FLAGS.iter().filter(|other| other.name == flag.name);
            assert!(
                namesakes.into_iter().all(|other| other.arity == flag.arity),
                "--{}",
                flag.name
            );
        }
    }

    #[test]
    fn no_variable_is_one_that_kubernetes_sets_for_a_service_named_openports() {
        for flag in &FLAGS {
            let variable = flag.variable();
            for clash in ["_PORT", "_HOST", "_PROTO", "_ADDR"] {
                let is_service = variable.starts_with("OPENPORTS_SERVICE");
                assert!(!(is_service && variable.ends_with(clash)), "{variable}");
            }
            let is_port = variable == "OPENPORTS_PORT" || variable.starts_with("OPENPORTS_PORT_");
            assert!(!is_port, "{variable}");
        }
    }
}
