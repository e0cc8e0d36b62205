//! The table of flags: each one's name, variable, default, help and parser side by side.

use std::time::Duration;

use crate::api::query::Addresses;
use crate::batch::options::Format;
use crate::batch::shard::Shard;
use crate::config::Config;
use crate::config::help::Command;
use crate::config::values::{
    count, duration_within, format_of, host_name, path, switch, told, word,
};
use crate::limits::{DRAIN_TIME_MAX, SCAN_TIME_MAX, TIMEOUT_MAX, TIMEOUT_MIN};
use crate::target::manner::{parse_concurrency, parse_rate};
use crate::target::{Family, PortSet, Retries, Timeout};

/// One flag.
pub(super) struct Flag {
    /// Without its dashes; the variable's name follows from it.
    pub(super) name: &'static str,
    /// The value's stand-in in the help; empty for a switch.
    pub(super) metavar: &'static str,
    /// What holds where neither flag nor variable is given.
    pub(super) preset: Preset,
    /// How often it may be given.
    pub(super) arity: Arity,
    /// Whose it is. Two commands may have flags of one name; each is known to its own alone.
    pub(super) commands: &'static [Command],
    /// One line of the help.
    pub(super) help: &'static str,
    /// Parses one value into its place; the error says what was expected.
    pub(super) apply: fn(&mut Config, &str) -> Result<(), String>,
}

/// What holds where neither flag nor variable is given.
pub(super) enum Preset {
    /// As if this had been given.
    Value(&'static str),
    /// Nothing; the help says this instead.
    Unset(&'static str),
}

/// How often a flag may be given.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Arity {
    /// Once.
    Once,
    /// Any number of times, and several values in one, separated by commas.
    List,
    /// Once, and without a value; its variable holds `true` or `false`.
    Switch,
}

/// Every flag but `--help` and `--version`, in the order of the help.
pub(super) const FLAGS: [Flag; 32] = [
    Flag {
        name: "listen",
        metavar: "ADDRESS:PORT",
        preset: Preset::Value("127.0.0.1:8080"),
        arity: Arity::List,
        commands: &[Command::Serve],
        help: "serve here or at unix:PATH; port 0: any; repeatable",
        apply: |config, text| {
            config.listen.push(told(text.parse())?);
            Ok(())
        },
    },
    Flag {
        name: "listen",
        metavar: "ADDRESS:PORT",
        preset: Preset::Value("127.0.0.1:8080"),
        arity: Arity::List,
        commands: &[Command::Healthcheck],
        help: "ask the service that listens here; the first counts",
        apply: |config, text| {
            config.listen.push(told(text.parse())?);
            Ok(())
        },
    },
    Flag {
        name: "timeout",
        metavar: "DURATION",
        preset: Preset::Value("2s"),
        arity: Arity::Once,
        commands: &[Command::Serve],
        help: "deadline of each connect, unless the request says",
        apply: |config, text| {
            config.settings.timeout = duration_within(text, TIMEOUT_MIN, TIMEOUT_MAX)?;
            Ok(())
        },
    },
    Flag {
        name: "max-scan-time",
        metavar: "DURATION",
        preset: Preset::Value("5m"),
        arity: Arity::Once,
        commands: &[Command::Serve],
        help: "the longest a scan may take",
        apply: |config, text| {
            config.settings.scan_time_max = duration_within(text, TIMEOUT_MIN, SCAN_TIME_MAX)?;
            Ok(())
        },
    },
    Flag {
        name: "max-scans",
        metavar: "N",
        preset: Preset::Value("64"),
        arity: Arity::Once,
        commands: &[Command::Serve],
        help: "scans at once",
        apply: |config, text| {
            config.settings.scans_max = count(text)?;
            Ok(())
        },
    },
    Flag {
        name: "max-scans-per-client",
        metavar: "N",
        preset: Preset::Value("16"),
        arity: Arity::Once,
        commands: &[Command::Serve],
        help: "scans at once for one address (IPv6: one /64)",
        apply: |config, text| {
            config.settings.scans_per_client_max = count(text)?;
            Ok(())
        },
    },
    Flag {
        name: "max-connections",
        metavar: "N",
        preset: Preset::Value("1024"),
        arity: Arity::Once,
        commands: &[Command::Serve],
        help: "client connections at once",
        apply: |config, text| {
            config.settings.connections_max = count(text)?;
            Ok(())
        },
    },
    Flag {
        name: "targets",
        metavar: "FILE",
        preset: Preset::Unset("none"),
        arity: Arity::Once,
        commands: &[Command::Scan],
        help: "scan each target of this list; - is stdin",
        apply: |config, text| {
            config.scan.targets = Some(path(text)?);
            Ok(())
        },
    },
    Flag {
        name: "shard",
        metavar: "I/N",
        preset: Preset::Value("1/1"),
        arity: Arity::Once,
        commands: &[Command::Scan],
        help: "scan the I-th of N parts, each on its own machine",
        apply: |config, text| {
            config.scan.shard = told(Shard::parse(text))?;
            Ok(())
        },
    },
    Flag {
        name: "exclude",
        metavar: "PORTS",
        preset: Preset::Unset("none"),
        arity: Arity::Once,
        commands: &[Command::Scan],
        help: "never connect to these ports",
        apply: |config, text| {
            config.scan.exclude = told(PortSet::parse(text))?;
            Ok(())
        },
    },
    Flag {
        name: "timeout",
        metavar: "DURATION",
        preset: Preset::Value("2s"),
        arity: Arity::Once,
        commands: &[Command::Scan],
        help: "deadline of each connect, or auto",
        apply: |config, text| {
            config.scan.manner.timeout = Timeout::parse(text)?;
            Ok(())
        },
    },
    Flag {
        name: "retries",
        metavar: "N",
        preset: Preset::Value("auto"),
        arity: Arity::Once,
        commands: &[Command::Scan],
        help: "further passes over silent ports, or auto",
        apply: |config, text| {
            config.scan.manner.retries = Retries::parse(text)?;
            Ok(())
        },
    },
    Flag {
        name: "deadline",
        metavar: "DURATION",
        preset: Preset::Value("60m"),
        arity: Arity::Once,
        commands: &[Command::Scan],
        help: "the longest one target may take",
        apply: |config, text| {
            config.scan.manner.deadline = duration_within(text, TIMEOUT_MIN, SCAN_TIME_MAX)?;
            Ok(())
        },
    },
    Flag {
        name: "rate",
        metavar: "N",
        preset: Preset::Unset("none"),
        arity: Arity::Once,
        commands: &[Command::Scan],
        help: "new connects per second, of all targets together",
        apply: |config, text| {
            config.scan.manner.rate = Some(told(parse_rate(text))?);
            Ok(())
        },
    },
    Flag {
        name: "concurrency",
        metavar: "N",
        preset: Preset::Unset("as many as ports"),
        arity: Arity::Once,
        commands: &[Command::Scan],
        help: "connects at once to one target",
        apply: |config, text| {
            config.scan.manner.concurrency = Some(told(parse_concurrency(text))?);
            Ok(())
        },
    },
    Flag {
        name: "family",
        metavar: "4|6",
        preset: Preset::Unset("either"),
        arity: Arity::Once,
        commands: &[Command::Scan],
        help: "use addresses of this family",
        apply: |config, text| {
            config.scan.manner.family = Family::parse(text)?;
            Ok(())
        },
    },
    Flag {
        name: "all-addresses",
        metavar: "",
        preset: Preset::Unset("the first"),
        arity: Arity::Switch,
        commands: &[Command::Scan],
        help: "scan every address of a name",
        apply: |config, text| {
            config.scan.manner.addresses =
                if switch(text)? { Addresses::All } else { Addresses::First };
            Ok(())
        },
    },
    Flag {
        name: "json",
        metavar: "",
        preset: Preset::Unset("a table"),
        arity: Arity::Switch,
        commands: &[Command::Scan],
        help: "print what the service would answer",
        apply: |config, text| {
            config.scan.format = format_of(config.scan.format, text, Format::Json)?;
            Ok(())
        },
    },
    Flag {
        name: "ndjson",
        metavar: "",
        preset: Preset::Unset("a table"),
        arity: Arity::Switch,
        commands: &[Command::Scan],
        help: "print events as they happen",
        apply: |config, text| {
            config.scan.format = format_of(config.scan.format, text, Format::Ndjson)?;
            Ok(())
        },
    },
    Flag {
        name: "max-in-flight",
        metavar: "N",
        preset: Preset::Unset("from RLIMIT_NOFILE"),
        arity: Arity::Once,
        commands: &[Command::Serve, Command::Scan],
        help: "connects at once, of all scans together",
        apply: |config, text| {
            config.settings.in_flight_max = Some(count(text)?);
            Ok(())
        },
    },
    Flag {
        name: "drain-delay",
        metavar: "DURATION",
        preset: Preset::Value("0s"),
        arity: Arity::Once,
        commands: &[Command::Serve],
        help: "go on listening this long after SIGTERM",
        apply: |config, text| {
            config.settings.drain_delay = duration_within(text, Duration::ZERO, DRAIN_TIME_MAX)?;
            Ok(())
        },
    },
    Flag {
        name: "drain-timeout",
        metavar: "DURATION",
        preset: Preset::Value("20s"),
        arity: Arity::Once,
        commands: &[Command::Serve],
        help: "cut scans short this long after SIGTERM",
        apply: |config, text| {
            config.settings.drain_timeout = duration_within(text, Duration::ZERO, DRAIN_TIME_MAX)?;
            Ok(())
        },
    },
    Flag {
        name: "allow",
        metavar: "NETWORK",
        preset: Preset::Unset("none"),
        arity: Arity::List,
        commands: &[Command::Serve, Command::Scan],
        help: "scan these too, which the default denies; repeatable",
        apply: |config, text| {
            config.allow.push(word(text)?);
            Ok(())
        },
    },
    Flag {
        name: "deny",
        metavar: "NETWORK",
        preset: Preset::Unset("none"),
        arity: Arity::List,
        commands: &[Command::Serve, Command::Scan],
        help: "never scan these; repeatable",
        apply: |config, text| {
            config.deny.push(word(text)?);
            Ok(())
        },
    },
    Flag {
        name: "host",
        metavar: "NAME",
        preset: Preset::Unset("none"),
        arity: Arity::List,
        commands: &[Command::Serve],
        help: "a name this service is known by; repeatable",
        apply: |config, text| {
            config.host_names.push(host_name(text)?);
            Ok(())
        },
    },
    Flag {
        name: "token-file",
        metavar: "FILE",
        preset: Preset::Unset("none"),
        arity: Arity::Once,
        commands: &[Command::Serve],
        help: "the bearer token that scans need; re-read",
        apply: |config, text| {
            config.token_file = Some(path(text)?);
            Ok(())
        },
    },
    Flag {
        name: "trust-proxy",
        metavar: "NETWORK",
        preset: Preset::Unset("none"),
        arity: Arity::List,
        commands: &[Command::Serve],
        help: "believe these peers who asks; repeatable",
        apply: |config, text| {
            config.proxies.push(word(text)?);
            Ok(())
        },
    },
    Flag {
        name: "log-level",
        metavar: "LEVEL",
        preset: Preset::Value("info"),
        arity: Arity::Once,
        commands: &[Command::Serve],
        help: "error, warn, info or debug",
        apply: |config, text| {
            config.log_level = word(text)?;
            Ok(())
        },
    },
    Flag {
        name: "log-level",
        metavar: "LEVEL",
        preset: Preset::Value("warn"),
        arity: Arity::Once,
        commands: &[Command::Scan],
        help: "error, warn, info or debug",
        apply: |config, text| {
            config.log_level = word(text)?;
            Ok(())
        },
    },
    Flag {
        name: "log-format",
        metavar: "FORMAT",
        preset: Preset::Value("logfmt"),
        arity: Arity::Once,
        commands: &[Command::Serve, Command::Scan],
        help: "logfmt or json",
        apply: |config, text| {
            config.log_format = word(text)?;
            Ok(())
        },
    },
    Flag {
        name: "resolv-conf",
        metavar: "FILE",
        preset: Preset::Value("/etc/resolv.conf"),
        arity: Arity::Once,
        commands: &[Command::Serve, Command::Scan],
        help: "the name servers and the search list",
        apply: |config, text| {
            config.resolv_conf = path(text)?;
            Ok(())
        },
    },
    Flag {
        name: "hosts",
        metavar: "FILE",
        preset: Preset::Value("/etc/hosts"),
        arity: Arity::Once,
        commands: &[Command::Serve, Command::Scan],
        help: "names known without a server",
        apply: |config, text| {
            config.hosts = path(text)?;
            Ok(())
        },
    },
];

impl Flag {
    /// `OPENPORTS_MAX_SCANS` for `--max-scans`. No name may end as those do that Kubernetes sets
    /// in every container beside a Service called "openports" (`OPENPORTS_SERVICE_HOST`,
    /// `OPENPORTS_PORT`, `OPENPORTS_PORT_8080_TCP`, …).
    pub(super) fn variable(&self) -> String {
        format!("OPENPORTS_{}", self.name.to_ascii_uppercase().replace('-', "_"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_command_has_each_name_once_and_switches_have_no_metavar() {
        for command in [Command::Serve, Command::Scan, Command::Healthcheck] {
            let mut names = BTreeSet::new();
            for flag in FLAGS.iter().filter(|flag| flag.commands.contains(&command)) {
                assert!(names.insert(flag.name), "{command:?} has --{} twice", flag.name);
            }
        }
        for flag in &FLAGS {
            assert!(!flag.commands.is_empty(), "--{} is somebody's", flag.name);
            assert_eq!(flag.metavar.is_empty(), flag.arity == Arity::Switch, "--{}", flag.name);
            // The parser takes a value before it knows the command.
            let namesakes = FLAGS.iter().filter(|other| other.name == flag.name);
            assert!(
                namesakes.into_iter().all(|other| other.arity == flag.arity),
                "--{}",
                flag.name
            );
        }
    }

    #[test]
    fn no_variable_is_one_that_kubernetes_sets_for_a_service_of_our_name() {
        for flag in &FLAGS {
            let variable = flag.variable();
            for clash in ["_PORT", "_HOST", "_PROTO", "_ADDR"] {
                let is_service = variable.starts_with("OPENPORTS_SERVICE");
                assert!(!(is_service && variable.ends_with(clash)), "{variable}");
            }
            assert!(!variable.starts_with("OPENPORTS_PORT"), "{variable}");
        }
    }
}
