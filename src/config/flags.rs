//! The table of flags: each one's name, variable, default, help and parser side by side.

use std::fmt::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use crate::config::{Config, Listen};
use crate::duration;
use crate::limits::{COUNT_MAX, DRAIN_TIME_MAX, SCAN_TIME_MAX, TIMEOUT_MAX, TIMEOUT_MIN};

/// One flag that takes a value.
pub(super) struct Flag {
    /// Without its dashes; the variable's name follows from it.
    pub(super) name: &'static str,
    /// The value's stand-in in the help.
    pub(super) metavar: &'static str,
    /// What holds where neither flag nor variable is given.
    pub(super) preset: Preset,
    /// How often it may be given.
    pub(super) arity: Arity,
    /// One line of the help.
    help: &'static str,
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
}

/// Every flag but `--help` and `--version`, in the order of the help.
pub(super) const FLAGS: [Flag; 16] = [
    Flag {
        name: "listen",
        metavar: "ADDRESS:PORT",
        preset: Preset::Value("127.0.0.1:8080"),
        arity: Arity::List,
        help: "serve here; port 0 takes a free one; repeatable",
        apply: |config, text| {
            config.listen.push(listener(text)?);
            Ok(())
        },
    },
    Flag {
        name: "timeout",
        metavar: "DURATION",
        preset: Preset::Value("2s"),
        arity: Arity::Once,
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
        help: "client connections at once",
        apply: |config, text| {
            config.settings.connections_max = count(text)?;
            Ok(())
        },
    },
    Flag {
        name: "max-in-flight",
        metavar: "N",
        preset: Preset::Unset("from RLIMIT_NOFILE"),
        arity: Arity::Once,
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
        help: "a name this service is known by; repeatable",
        apply: |config, text| {
            config.host_names.push(host_name(text)?);
            Ok(())
        },
    },
    Flag {
        name: "log-level",
        metavar: "LEVEL",
        preset: Preset::Value("info"),
        arity: Arity::Once,
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

/// What `--help` prints, in 80 columns.
pub(super) fn help() -> String {
    let mut text = String::from(HELP_HEAD);
    for flag in &FLAGS {
        let usage = format!("--{} {}", flag.name, flag.metavar);
        let (Preset::Value(preset) | Preset::Unset(preset)) = flag.preset;
        let variable = flag.variable();
        let lines = writeln!(text, "  {usage:25} {}", flag.help)
            .and_then(|()| writeln!(text, "{:28}{variable}, default {preset}", ""));
        assert!(lines.is_ok(), "a string takes whatever is written");
    }
    text.push_str(HELP_TAIL);
    text
}

const HELP_HEAD: &str = "\
openports finds a host's open TCP ports and answers over HTTP.

Usage: openports [serve] [FLAG]...

  curl 'http://127.0.0.1:8080/open-ports?domain=localhost&toPort=65535'

Flags, and the variables that hold where a flag is not given:
";

const HELP_TAIL: &str = "  \
  -h, --help                print this
  -V, --version             print the version

A DURATION is a number and its unit: 250ms, 2s, 1.5s, 5m. A variable holds
several values where the flag is repeatable: 10.0.0.0/8,192.0.2.7
";

fn listener(text: &str) -> Result<Listen, String> {
    let address: Result<SocketAddr, _> = text.parse();
    address.map(Listen::Tcp).map_err(|_| {
        "expected an address and a port such as 127.0.0.1:8080 or [::]:8080".to_owned()
    })
}

fn duration_within(text: &str, min: Duration, max: Duration) -> Result<Duration, String> {
    let value = duration::parse(text).map_err(|error| error.to_string())?;
    if (min..=max).contains(&value) {
        return Ok(value);
    }
    Err(format!("expected {} to {}", duration::display(min), duration::display(max)))
}

fn count(text: &str) -> Result<usize, String> {
    // `usize::from_str` would take a sign.
    let is_decimal = text.bytes().all(|byte| byte.is_ascii_digit());
    let value = if is_decimal { text.parse().unwrap_or(0) } else { 0 };
    if (1..=COUNT_MAX).contains(&value) {
        return Ok(value);
    }
    Err(format!("expected a whole number from 1 to {COUNT_MAX}"))
}

fn word<T: FromStr<Err: ToString>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|error: T::Err| error.to_string())
}

fn host_name(text: &str) -> Result<String, String> {
    let is_name_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    if !text.is_empty() && text.bytes().all(is_name_byte) {
        return Ok(text.to_owned());
    }
    Err("expected a DNS name, without scheme and port".to_owned())
}

fn path(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() {
        return Err("expected the path of a file".to_owned());
    }
    Ok(PathBuf::from(text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_help_fits_80_columns_and_names_every_flag_with_its_variable() {
        let help = help();
        for line in help.lines() {
            assert!(line.len() <= 80, "{} columns: {line}", line.len());
            assert!(line.is_ascii() && !line.ends_with(' '), "{line}");
        }
        for flag in &FLAGS {
            let has = |text: &str| help.contains(text);
            assert!(has(&format!("  --{} {}", flag.name, flag.metavar)), "{}", flag.name);
            assert!(has(&format!(" {}, default ", flag.variable())), "{}", flag.name);
        }
        assert!(help.ends_with('\n'));
    }

    #[test]
    fn no_variable_is_one_that_kubernetes_sets_for_a_service_of_our_name() {
        let mut names = BTreeSet::new();
        for flag in &FLAGS {
            let variable = flag.variable();
            for clash in ["_PORT", "_HOST", "_PROTO", "_ADDR"] {
                let is_service = variable.starts_with("OPENPORTS_SERVICE");
                assert!(!(is_service && variable.ends_with(clash)), "{variable}");
            }
            assert!(!variable.starts_with("OPENPORTS_PORT"), "{variable}");
            assert!(names.insert(variable), "{} comes twice", flag.name);
        }
    }
}
