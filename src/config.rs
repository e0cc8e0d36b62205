//! The command line and the `OPENPORTS_*` variables, parsed once into what the service obeys.
//!
//! Flags, variables, defaults, help and parsers stand in one table (`flags`), so that neither the
//! help nor the manual nor a completion can drift from what is accepted. A flag beats its
//! variable, a variable the default. Everything is parsed before anything is bound, and the first
//! fault ends it with one line that names it. Reads no environment, no file and no clock; `main`
//! hands in arguments and variables.
//!
//! Variables of no flag are ignored, unlike flags: beside a Service called "openports" Kubernetes
//! sets `OPENPORTS_SERVICE_HOST`, `OPENPORTS_PORT` and more in every container.

mod flags;
mod help;
pub mod scan;
mod values;

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

use lexopt::Arg;

use crate::config::flags::{Arity, FLAGS, Flag, Preset};
use crate::config::help::Command;
use crate::config::scan::{Asked, ScanFlags};
use crate::event::listen::Listen;
use crate::limits::Settings;
use crate::policy::Reach;
use crate::policy::cidr::Cidr;
use crate::report::log::{Format, Level};
use crate::spelling;

/// What the command line asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Invocation {
    /// `openports` or `openports serve`: run the service.
    Serve(Box<Config>, ListenFlag),
    /// `openports scan`: scan from the shell. Of the configuration `listen` is empty.
    Scan(Box<Config>, Asked),
    /// `openports healthcheck`: ask the service that listens here.
    Healthcheck(Listen),
    /// `--help`: print this text to stdout.
    Help(String),
    /// `--version`: print this text to stdout.
    Version(String),
}

/// Everything that the operator decides, within the bounds of `limits`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where to serve; empty only for a scan.
    pub listen: Vec<Listen>,
    /// What the core obeys.
    pub settings: Settings,
    /// Which records are logged.
    pub log_level: Level,
    /// How records are written.
    pub log_format: Format,
    /// The resolver's configuration.
    pub resolv_conf: PathBuf,
    /// The table of names that need no server.
    pub hosts: PathBuf,
    /// Networks opened to scans, see `policy::Policy`.
    pub allow: Vec<Cidr>,
    /// Networks closed to scans, see `policy::Policy`.
    pub deny: Vec<Cidr>,
    /// Names this service is known by, see `policy::clients::HostGuard`.
    pub host_names: Vec<String>,
    /// Where the bearer token is, if one is needed.
    pub token_file: Option<PathBuf>,
    /// Peers that tell for whom they ask, see `policy::forwarded::Proxies`.
    pub proxies: Vec<Cidr>,
    /// What a scan from the shell is told.
    pub scan: ScanFlags,
}

/// Whether `--listen` stands on the command line. Listeners that a service manager passes take the
/// place of its variable and its default, but not of what the very command line asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListenFlag {
    /// It does.
    Given,
    /// The variable told, or the default.
    NotGiven,
}

/// Why there is no [`Config`]. Its text is one line, for a process that exits with 64.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UsageError {
    /// No flag has this name.
    UnknownFlag {
        /// As it was given, with its dashes.
        given: String,
        /// The flag that was probably meant, without dashes.
        nearest: Option<&'static str>,
    },
    /// No command has this name.
    UnknownCommand {
        /// As it was given.
        given: String,
        /// The command that was probably meant.
        nearest: Option<&'static str>,
    },
    /// A flag of another command.
    ForeignFlag {
        /// The flag, without dashes.
        flag: &'static str,
        /// The command that does not know it.
        command: &'static str,
    },
    /// A scan without a target.
    NoTarget,
    /// More arguments than the command takes.
    UnexpectedArgument {
        /// As it was given.
        given: String,
    },
    /// The command line ends where a value should be.
    MissingValue {
        /// The flag, without dashes.
        flag: &'static str,
        /// The value's stand-in in the help.
        metavar: &'static str,
    },
    /// A flag that may be given once comes again.
    Repeated {
        /// The flag, without dashes.
        flag: &'static str,
        /// The value that came last.
        value: String,
    },
    /// A value is malformed or out of its bounds.
    Value {
        /// The flag with its dashes, or the variable.
        source: String,
        /// The value.
        value: String,
        /// What was expected.
        reason: String,
    },
}

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // `{:?}` keeps a value with a line end on one line.
        match self {
            Self::UnknownFlag { given, nearest: Some(nearest) } => {
                write!(f, "unknown flag {given:?}, did you mean --{nearest}?")
            }
            Self::UnknownFlag { given, nearest: None } => {
                write!(f, "unknown flag {given:?}, see --help")
            }
            Self::UnknownCommand { given, nearest: Some(nearest) } => {
                write!(f, "unknown command {given:?}, did you mean {nearest}?")
            }
            Self::UnknownCommand { given, nearest: None } => {
                write!(f, "unknown command {given:?}, see --help")
            }
            Self::UnexpectedArgument { given } => {
                write!(f, "unexpected argument {given:?}, see --help")
            }
            Self::ForeignFlag { flag, command } => {
                write!(f, "--{flag} is no flag of {command}, see openports {command} --help")
            }
            Self::NoTarget => {
                f.write_str("scan needs a DOMAIN, or --targets FILE, see openports scan --help")
            }
            Self::MissingValue { flag, metavar } => write!(f, "--{flag} needs a value: {metavar}"),
            Self::Repeated { flag, value } => {
                write!(f, "--{flag} {value:?}: expected once, is given several times")
            }
            Self::Value { source, value, reason } => write!(f, "{source} {value:?}: {reason}"),
        }
    }
}

impl std::error::Error for UsageError {}

/// Parses a command line, whose first item is the program's name, and the variables that `env`
/// looks up. Text that is not UTF-8 is refused.
pub fn parse(
    args: impl IntoIterator<Item = OsString>,
    env: impl Fn(&str) -> Option<OsString>,
) -> Result<Invocation, UsageError> {
    let mut parser = lexopt::Parser::from_iter(args);
    let (mut given, mut command, mut words) = (Vec::new(), None, Vec::new());
    // Every value of a flag is taken at once, so that `next` finds none left over.
    while let Some(arg) = parser.next().map_err(|error| unexpected(error.to_string()))? {
        match arg {
            Arg::Short('h') | Arg::Long("help") => {
                return Ok(Invocation::Help(help::help(command.unwrap_or(Command::Serve))));
            }
            Arg::Short('V') | Arg::Long("version") => {
                let version = concat!("openports ", env!("CARGO_PKG_VERSION"), "\n");
                return Ok(Invocation::Version(version.to_owned()));
            }
            Arg::Long(name) => {
                let known = FLAGS.iter().find(|flag| flag.name == name);
                let Some(flag) = known else { return Err(unknown_flag(name)) };
                given.push((flag.name, take_value(&mut parser, flag)?));
            }
            Arg::Short(letter) => {
                let given = format!("-{letter}");
                return Err(UsageError::UnknownFlag { given, nearest: None });
            }
            Arg::Value(word) if command.is_none() => command = Some(parse_command(&word)?),
            Arg::Value(word) => words.push(word),
        }
    }
    let command = command.unwrap_or(Command::Serve);
    let config = settle(command, &given, env)?;
    match (command, words.as_slice()) {
        (Command::Serve, []) => {
            let is_given = given.iter().any(|(name, _)| *name == "listen");
            let flag = if is_given { ListenFlag::Given } else { ListenFlag::NotGiven };
            Ok(Invocation::Serve(Box::new(config), flag))
        }
        (Command::Serve, [word, ..]) => Err(unexpected(word.to_string_lossy().into_owned())),
        (Command::Scan, words) => {
            let asked = scan::asked(&config.scan, words)?;
            Ok(Invocation::Scan(Box::new(config), asked))
        }
        (Command::Healthcheck, words) => {
            scan::asked_service(&config.listen, words).map(Invocation::Healthcheck)
        }
    }
}

/// The value that follows a flag; `true` for a switch, which is given by its name alone.
fn take_value(parser: &mut lexopt::Parser, flag: &Flag) -> Result<OsString, UsageError> {
    match flag.arity {
        Arity::Once | Arity::List => {
            let missing = UsageError::MissingValue { flag: flag.name, metavar: flag.metavar };
            parser.value().map_err(|_| missing)
        }
        Arity::Switch => match parser.optional_value() {
            None => Ok("true".into()),
            Some(value) => Err(UsageError::Value {
                source: format!("--{}", flag.name),
                value: value.to_string_lossy().into_owned(),
                reason: "the flag takes no value".to_owned(),
            }),
        },
    }
}

impl Config {
    /// Who can reach the listeners; a scan from the shell has none.
    pub fn reach(&self) -> Reach {
        if self.listen.iter().all(Listen::is_inside) { Reach::LoopbackOnly } else { Reach::Outside }
    }
}

fn parse_command(word: &OsString) -> Result<Command, UsageError> {
    let given = word.to_string_lossy();
    if let Some((_, command, _)) = Command::ALL.iter().find(|(name, ..)| *name == given) {
        return Ok(*command);
    }
    let nearest = nearest(&given, Command::ALL.iter().map(|(name, ..)| *name));
    Err(UsageError::UnknownCommand { given: given.into_owned(), nearest })
}

fn unknown_flag(name: &str) -> UsageError {
    let names = FLAGS.iter().map(|flag| flag.name).chain(["help", "version"]);
    UsageError::UnknownFlag { given: format!("--{name}"), nearest: nearest(name, names) }
}

fn unexpected(given: String) -> UsageError {
    UsageError::UnexpectedArgument { given }
}

/// The configuration of what was given on the command line, by flag, and else of the variables
/// and the defaults; only the command's own flags are looked at.
fn settle(
    command: Command,
    given: &[(&'static str, OsString)],
    env: impl Fn(&str) -> Option<OsString>,
) -> Result<Config, UsageError> {
    let own = || FLAGS.iter().filter(|flag| flag.commands.contains(&command));
    if let Some((flag, _)) = given.iter().find(|(name, _)| own().all(|flag| flag.name != *name)) {
        return Err(UsageError::ForeignFlag { flag, command: command.name() });
    }
    let mut config = Config {
        listen: Vec::new(),
        settings: Settings::default(),
        log_level: Level::default(),
        log_format: Format::default(),
        resolv_conf: PathBuf::new(),
        hosts: PathBuf::new(),
        allow: Vec::new(),
        deny: Vec::new(),
        host_names: Vec::new(),
        token_file: None,
        proxies: Vec::new(),
        scan: ScanFlags::default(),
    };
    for flag in own() {
        let dashed = format!("--{}", flag.name);
        let mine = given.iter().filter(|(name, _)| *name == flag.name);
        let values: Vec<&OsString> = mine.map(|(_, value)| value).collect();
        if let (Arity::Once | Arity::Switch, [_, .., last]) = (flag.arity, values.as_slice()) {
            let value = last.to_string_lossy().into_owned();
            return Err(UsageError::Repeated { flag: flag.name, value });
        }
        if !values.is_empty() {
            for value in values {
                apply(&mut config, flag, &dashed, value)?;
            }
        } else if let Some(value) = env(&flag.variable()) {
            apply(&mut config, flag, &flag.variable(), &value)?;
        } else {
            match flag.preset {
                Preset::Value(value) => apply(&mut config, flag, &dashed, &value.into())?,
                Preset::Unset(_) => {}
            }
        }
    }
    assert!(config.listen.is_empty() == (command == Command::Scan), "--listen has a default");
    Ok(config)
}

/// Parses one value, or each of a list, into its place; `source` is where it stood.
fn apply(
    config: &mut Config,
    flag: &Flag,
    source: &str,
    value: &OsString,
) -> Result<(), UsageError> {
    let fault = |value: &str, reason| {
        let (source, value) = (source.to_owned(), value.to_owned());
        Err(UsageError::Value { source, value, reason })
    };
    let Some(text) = value.to_str() else {
        return fault(&value.to_string_lossy(), "expected UTF-8".to_owned());
    };
    let items: Vec<&str> = match flag.arity {
        Arity::Once | Arity::Switch => vec![text],
        Arity::List => text.split(',').map(str::trim).collect(),
    };
    for item in items {
        if let Err(reason) = (flag.apply)(config, item) {
            return fault(item, reason);
        }
    }
    Ok(())
}

/// The nearest known name, if it is near enough to be meant: a third of its letters wrong at most.
fn nearest(given: &str, names: impl Iterator<Item = &'static str>) -> Option<&'static str> {
    let (name, edits) = spelling::nearest(given, names)?;
    (edits * 3 <= name.len()).then_some(name)
}

#[cfg(test)]
#[path = "tests/pages.rs"]
mod pages;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::scan::Source;
    use crate::event::listen::ListenError;
    use std::collections::BTreeMap;
    use std::os::unix::ffi::OsStringExt;

    fn parse_with(args: &[&str], env: &[(&str, &str)]) -> Result<Invocation, UsageError> {
        let args = ["openports"].iter().chain(args).map(OsString::from);
        let env: BTreeMap<&str, &str> = env.iter().copied().collect();
        parse(args, |name| env.get(name).map(OsString::from))
    }

    fn config(args: &[&str], env: &[(&str, &str)]) -> Config {
        match parse_with(args, env) {
            Ok(Invocation::Serve(config, _)) => *config,
            other => panic!("{args:?} {env:?} gave {other:?}"),
        }
    }

    fn check_fault(args: &[&str], env: &[(&str, &str)], expected: &str) {
        let fault = parse_with(args, env).unwrap_err().to_string();
        assert_eq!(fault, expected, "for {args:?} {env:?}");
        assert_eq!(fault.lines().count(), 1);
    }

    #[test]
    fn the_defaults_of_the_table_are_those_of_the_rooms() {
        let config = config(&[], &[]);
        assert_eq!(config.settings, Settings::default());
        assert_eq!(config.listen, [Listen::Tcp("127.0.0.1:8080".parse().unwrap())]);
        assert_eq!((config.log_level, config.log_format), (Level::Info, Format::Logfmt));
        assert_eq!(config.resolv_conf, PathBuf::from("/etc/resolv.conf"));
        assert_eq!(config.hosts, PathBuf::from("/etc/hosts"));
        assert!(config.allow.is_empty() && config.deny.is_empty());
        assert!(config.host_names.is_empty());
        let expected = Invocation::Serve(Box::new(config), ListenFlag::NotGiven);
        assert_eq!(parse_with(&["serve"], &[]), Ok(expected));
    }

    /// A value of each flag of the service that is neither its default nor its `other`.
    const SERVE_VALUES: [(&str, &str, &str); 18] = [
        ("listen", "[::]:80", "0.0.0.0:0"),
        ("timeout", "250ms", "60s"),
        ("max-scan-time", "10s", "24m"),
        ("max-scans", "1", "1000000"),
        ("max-scans-per-client", "1", "2"),
        ("max-connections", "1", "2"),
        ("max-in-flight", "1", "2"),
        ("drain-delay", "5s", "60m"),
        ("drain-timeout", "0s", "1.5m"),
        ("allow", "127.0.0.0/8", "::1"),
        ("deny", "10.0.0.0/8", "fd00::/8"),
        ("host", "scan.example", "localhost"),
        ("token-file", "/a", "/b"),
        ("trust-proxy", "10.0.0.0/8", "fd00::/8"),
        ("log-level", "debug", "error"),
        ("log-format", "json", "logfmt"),
        ("resolv-conf", "/a", "/b"),
        ("hosts", "/a", "/b"),
    ];

    /// The same for the flags of a scan; the value of a switch is that of its variable.
    const SCAN_VALUES: [(&str, &str, &str); 19] = [
        ("targets", "-", "/a"),
        ("shard", "2/3", "1/3"),
        ("exclude", "22,80", "1-"),
        ("timeout", "auto", "60s"),
        ("retries", "10", "0"),
        ("deadline", "10s", "59m"),
        ("rate", "1", "10000000"),
        ("concurrency", "1", "65535"),
        ("family", "4", "6"),
        ("all-addresses", "true", "false"),
        ("json", "true", "false"),
        ("ndjson", "true", "false"),
        ("max-in-flight", "1", "2"),
        ("allow", "127.0.0.0/8", "::1"),
        ("deny", "10.0.0.0/8", "fd00::/8"),
        ("log-level", "debug", "error"),
        ("log-format", "json", "logfmt"),
        ("resolv-conf", "/a", "/b"),
        ("hosts", "/a", "/b"),
    ];

    fn flags_of(command: Command) -> impl Iterator<Item = &'static Flag> {
        FLAGS.iter().filter(move |flag| flag.commands.contains(&command))
    }

    /// What flags and variables of a command say, whatever else would be asked for.
    fn settled(
        command: Command,
        flags: &[(&'static str, &str)],
        env: &[(&str, &str)],
    ) -> Result<Config, UsageError> {
        let given: Vec<_> = flags.iter().map(|(name, value)| (*name, value.into())).collect();
        let env: BTreeMap<&str, &str> = env.iter().copied().collect();
        settle(command, &given, |name| env.get(name).map(OsString::from))
    }

    #[test]
    fn every_flag_says_the_same_as_its_variable_and_beats_it() {
        for (command, values) in
            [(Command::Serve, &SERVE_VALUES[..]), (Command::Scan, &SCAN_VALUES[..])]
        {
            assert_eq!(flags_of(command).count(), values.len());
            let default = settled(command, &[], &[]).unwrap();
            for (flag, (name, value, other)) in flags_of(command).zip(values) {
                assert_eq!(flag.name, *name);
                let variable = flag.variable();
                let config = |flags: &[(&'static str, &str)], env: &[(&str, &str)]| {
                    settled(command, flags, env).unwrap()
                };
                let by_flag = config(&[(name, value)], &[]);
                assert_ne!(by_flag, default, "--{name} {value}");
                assert_eq!(config(&[], &[(&variable, value)]), by_flag);
                assert_eq!(config(&[(name, value)], &[(&variable, other)]), by_flag);
                assert_ne!(config(&[], &[(&variable, other)]), by_flag);
                // What is not looked at cannot be wrong.
                assert_eq!(config(&[(name, value)], &[(&variable, "?")]), by_flag);
            }
        }
    }

    #[test]
    fn a_flag_is_given_before_or_after_its_command_with_or_without_an_equals_sign() {
        let expected = config(&["--timeout", "250ms"], &[]);
        for args in [&["--timeout=250ms"][..], &["serve", "--timeout=250ms"]] {
            assert_eq!(config(args, &[]), expected, "{args:?}");
        }
        assert_eq!(config(&["--timeout", "250ms", "serve"], &[]), expected);
    }

    #[test]
    fn every_flag_refuses_a_wrong_and_an_empty_value_by_name() {
        for (_, command, _) in Command::ALL {
            for flag in flags_of(command) {
                for value in ["", "\n"] {
                    let is_path = flag.metavar == "FILE";
                    if is_path && !value.is_empty() {
                        continue;
                    }
                    let variable = flag.variable();
                    // The blanks around an item of a list are not its own.
                    let item = if flag.arity == Arity::List { value.trim() } else { value };
                    for (fault, source) in [
                        (settled(command, &[(flag.name, value)], &[]), "--"),
                        (settled(command, &[], &[(&variable, value)]), "OPENPORTS_"),
                    ] {
                        let fault = fault.unwrap_err().to_string();
                        assert!(fault.starts_with(source), "{fault}");
                        assert!(fault.contains(&format!(" {item:?}: ")), "{fault}");
                        assert_eq!(fault.lines().count(), 1, "{fault}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_flag_of_another_command_is_refused() {
        let see =
            |command: &str| format!("is no flag of {command}, see openports {command} --help");
        check_fault(&["--json"], &[], &format!("--json {}", see("serve")));
        check_fault(&["scan", "--listen=x", "a"], &[], &format!("--listen {}", see("scan")));
        let expected = format!("--timeout {}", see("healthcheck"));
        check_fault(&["healthcheck", "--timeout", "1s"], &[], &expected);
        // A variable of another command is nobody's business.
        let env = [("OPENPORTS_SHARD", "x"), ("OPENPORTS_TIMEOUT", "x")];
        assert!(matches!(parse_with(&["healthcheck"], &env), Ok(Invocation::Healthcheck(_))));
    }

    fn scan_of(args: &[&str]) -> (Config, Asked) {
        let args: Vec<&str> = ["scan"].iter().chain(args).copied().collect();
        match parse_with(&args, &[]) {
            Ok(Invocation::Scan(config, asked)) => (*config, asked),
            other => panic!("{args:?} gave {other:?}"),
        }
    }

    #[test]
    fn a_scan_has_a_domain_or_a_list_and_every_port_unless_told() {
        let check = |args: &[&str], source: &str, ports: &str| {
            let (config, asked) = scan_of(args);
            let shown = match asked.source {
                Source::One { domain, .. } => domain,
                Source::List(path) => format!("list {}", path.display()),
                Source::Stdin => "stdin".to_owned(),
            };
            assert_eq!(shown, source, "{args:?}");
            assert_eq!(asked.ports.display_ranges().to_string(), ports, "{args:?}");
            assert_eq!(config.reach(), Reach::LoopbackOnly, "it may scan its own machine");
            assert_eq!(config.log_level, Level::Warn);
        };
        check(&["Example.com"], "Example.com", "1-65535");
        check(&["::1", "22,80-90"], "::1", "22,80-90");
        check(&["--json", "a", "--rate", "9", "80"], "a", "80");
        check(&["--targets", "x/y"], "list x/y", "1-65535");
        check(&["--targets", "-", "22"], "stdin", "22");
    }

    #[test]
    fn a_scan_that_makes_no_sense_is_refused() {
        let check = |args: &[&str], expected: &str| {
            let args: Vec<&str> = ["scan"].iter().chain(args).copied().collect();
            check_fault(&args, &[], expected);
        };
        check(&[], "scan needs a DOMAIN, or --targets FILE, see openports scan --help");
        check(&["a", "22", "80"], "unexpected argument \"80\", see --help");
        check(&["--targets", "f", "22", "80"], "unexpected argument \"80\", see --help");
        check(&["exa mple"], "DOMAIN \"exa mple\": a name has no ' '");
        check(&["a", "x"], "PORTS \"x\": \"x\" at offset 1: invalid decimal string");
        check(&["a", "80", "--exclude=1-"], "--exclude \"1-65535\": leaves no port to scan");
        check(
            &["a", "--timeout=3s", "--deadline=2s"],
            "--deadline \"2s\": must not be below the timeout, which is 3s",
        );
        check(
            &["a", "--json", "--ndjson"],
            "--ndjson \"true\": --json and --ndjson exclude each other",
        );
        check(&["a", "--json=yes"], "--json \"yes\": the flag takes no value");
        check(&["a", "--json", "--json"], "--json \"true\": expected once, is given several times");
        for (shard, which) in [("0/4", "\"0\""), ("5/4", "\"5\"")] {
            let expected = format!("--shard {shard:?}: {which} is none: the shards are 1/4 to 4/4");
            check(&["a", "--shard", shard], &expected);
        }
    }

    #[test]
    fn a_health_check_asks_whom_it_is_told_or_the_first_listener_at_home() {
        let check = |args: &[&str], env: &[(&str, &str)], expected: &str| {
            let args: Vec<&str> = ["healthcheck"].iter().chain(args).copied().collect();
            let expected = Ok(Invocation::Healthcheck(expected.parse().unwrap()));
            assert_eq!(parse_with(&args, env), expected, "{args:?} {env:?}");
        };
        let listen = |value| [("OPENPORTS_LISTEN", value)];
        check(&[], &[], "127.0.0.1:8080");
        check(&[], &listen("0.0.0.0:81,127.0.0.1:82"), "127.0.0.1:81");
        check(&[], &listen("[::]:81"), "[::1]:81");
        check(&["--listen", "192.0.2.7:80"], &listen("[::]:81"), "192.0.2.7:80");
        check(&["0.0.0.0:83"], &listen("[::]:81"), "127.0.0.1:83");
        check(&[], &listen("unix:/run/x,127.0.0.1:82"), "unix:/run/x");
        check(&["unix:x"], &listen("[::]:81"), "unix:x");
        let expected = "ADDRESS:PORT \"x\": expected an address and a port such as";
        let fault = parse_with(&["healthcheck", "x"], &[]).unwrap_err().to_string();
        assert!(fault.starts_with(expected), "{fault}");
        let fault = "unexpected argument \"2\", see --help";
        check_fault(&["healthcheck", "127.0.0.1:1", "2"], &[], fault);
    }

    #[test]
    fn a_list_is_repeated_or_separated_by_commas() {
        let flags = config(&["--deny", "10.0.0.0/8", "--deny", "::/0,192.0.2.7"], &[]);
        assert_eq!(flags.deny.len(), 3);
        let variable = config(&[], &[("OPENPORTS_DENY", "10.0.0.0/8, ::/0 ,192.0.2.7/32")]);
        assert_eq!(variable, flags);
        let listen = config(&["--listen", "[::1]:1", "--listen", "127.0.0.1:2"], &[]).listen;
        let [one, two] = ["[::1]:1", "127.0.0.1:2"].map(|text| Listen::Tcp(text.parse().unwrap()));
        assert_eq!(listen, [one, two], "the default is replaced, not added to");
    }

    #[test]
    fn the_service_learns_whether_the_command_line_says_where_to_listen() {
        let check = |args: &[&str], env: &[(&str, &str)], expected| match parse_with(args, env) {
            Ok(Invocation::Serve(_, flag)) => assert_eq!(flag, expected, "{args:?} {env:?}"),
            other => panic!("{args:?} {env:?} gave {other:?}"),
        };
        let variable = [("OPENPORTS_LISTEN", "unix:x")];
        check(&[], &[], ListenFlag::NotGiven);
        check(&["--timeout=1s"], &variable, ListenFlag::NotGiven);
        check(&["--listen", "unix:x"], &[], ListenFlag::Given);
        check(&["--listen", "unix:x"], &variable, ListenFlag::Given);
    }

    #[test]
    fn a_wrong_value_is_named_with_what_was_expected() {
        let count = "expected a whole number from 1 to 1000000";
        for value in ["0", "1000001", "-1", "+1", "1e3", " 1", "99999999999999999999", "\u{661}"] {
            let expected = format!("--max-scans {value:?}: {count}");
            check_fault(&["--max-scans", value], &[], &expected);
        }
        check_fault(&["--timeout", "9ms"], &[], "--timeout \"9ms\": expected 10ms to 60s");
        check_fault(&["--timeout", "61s"], &[], "--timeout \"61s\": expected 10ms to 60s");
        check_fault(&["--timeout=2"], &[], "--timeout \"2\": a duration needs a unit: ms, s or m");
        check_fault(
            &[],
            &[("OPENPORTS_MAX_SCAN_TIME", "61m")],
            "OPENPORTS_MAX_SCAN_TIME \"61m\": expected 10ms to 60m",
        );
        check_fault(
            &["--drain-delay=2h"],
            &[],
            "--drain-delay \"2h\": not a duration such as 250ms, 2s, 1.5s or 5m",
        );
        for value in ["8080", ":8080", "localhost:8080", "127.0.0.1", "::1:80", "/run/x"] {
            let expected = ListenError::Form;
            check_fault(&["--listen", value], &[], &format!("--listen {value:?}: {expected}"));
        }
        check_fault(
            &["--allow", "10.0.0.0/8,10.0.0.1/8"],
            &[],
            "--allow \"10.0.0.1/8\": host bits are set, the network is 10.0.0.0/8",
        );
        check_fault(
            &["--host", "http://scan.example"],
            &[],
            "--host \"http://scan.example\": expected a DNS name, without scheme and port",
        );
        check_fault(
            &["--log-level", "trace"],
            &[],
            "--log-level \"trace\": expected error, warn, info or debug",
        );
    }

    #[test]
    fn what_is_unknown_is_named_with_the_nearest_that_is_known() {
        check_fault(&["--lisen=x"], &[], "unknown flag \"--lisen\", did you mean --listen?");
        check_fault(&["--max-scan"], &[], "unknown flag \"--max-scan\", did you mean --max-scans?");
        check_fault(&["--Timeout"], &[], "unknown flag \"--Timeout\", did you mean --timeout?");
        check_fault(&["--hepl"], &[], "unknown flag \"--hepl\", see --help");
        check_fault(&["--versio"], &[], "unknown flag \"--versio\", did you mean --version?");
        check_fault(&["--color"], &[], "unknown flag \"--color\", see --help");
        check_fault(&["-x"], &[], "unknown flag \"-x\", see --help");
        check_fault(&["srve"], &[], "unknown command \"srve\", did you mean serve?");
        check_fault(&["example.com"], &[], "unknown command \"example.com\", see --help");
        check_fault(&["serve", "serve"], &[], "unexpected argument \"serve\", see --help");
        check_fault(&["--", "--timeout"], &[], "unknown command \"--timeout\", see --help");
    }

    #[test]
    fn a_flag_without_value_or_given_twice_is_refused() {
        check_fault(&["--timeout"], &[], "--timeout needs a value: DURATION");
        check_fault(
            &["--timeout=2s", "--timeout", "3s"],
            &[],
            "--timeout \"3s\": expected once, is given several times",
        );
        check_fault(
            &["--timeout", "--listen"],
            &[],
            "--timeout \"--listen\": not a duration such as 250ms, 2s, 1.5s or 5m",
        );
    }

    #[test]
    fn text_that_is_not_utf_8_is_refused() {
        let args = ["openports".into(), "--hosts".into(), OsString::from_vec(vec![b'/', 0xff])];
        let fault = parse(args, |_| None).unwrap_err();
        assert_eq!(fault.to_string(), "--hosts \"/\u{fffd}\": expected UTF-8");
        let fault = parse([], |_| Some(OsString::from_vec(vec![0xff]))).unwrap_err();
        assert_eq!(fault.to_string(), "OPENPORTS_LISTEN \"\u{fffd}\": expected UTF-8");
    }

    #[test]
    fn variables_of_no_flag_are_ignored() {
        let service = [
            ("OPENPORTS_SERVICE_HOST", "10.0.0.1"),
            ("OPENPORTS_PORT", "tcp://10.0.0.1:8080"),
            ("OPENPORTS_PORT_8080_TCP_ADDR", "10.0.0.1"),
        ];
        assert_eq!(config(&[], &service), config(&[], &[]));
    }

    #[test]
    fn help_and_version_are_asked_for_in_any_place() {
        for args in [&["--help"][..], &["-h"], &["serve", "--help"], &["--timeout=x", "-h"]] {
            let expected = Ok(Invocation::Help(help::help(Command::Serve)));
            assert_eq!(parse_with(args, &[]), expected, "{args:?}");
        }
        for (name, command, _) in Command::ALL {
            assert_eq!(parse_with(&[name, "-h"], &[]), Ok(Invocation::Help(help::help(command))));
        }
        let version = format!("openports {}\n", env!("CARGO_PKG_VERSION"));
        for args in [&["--version"][..], &["-V"], &["serve", "--version"]] {
            assert_eq!(parse_with(args, &[]), Ok(Invocation::Version(version.clone())), "{args:?}");
        }
    }

    #[test]
    fn a_service_is_reachable_from_outside_as_soon_as_one_listener_is() {
        for (listen, reach) in [
            ("127.0.0.1:1", Reach::LoopbackOnly),
            ("127.9.9.9:1,[::1]:1,[::ffff:127.0.0.1]:1", Reach::LoopbackOnly),
            ("127.0.0.1:1,[::]:1", Reach::Outside),
            ("0.0.0.0:1", Reach::Outside),
            ("unix:/run/x,127.0.0.1:1", Reach::LoopbackOnly),
            ("unix:/run/x,0.0.0.0:1", Reach::Outside),
            ("192.0.2.7:1", Reach::Outside),
        ] {
            assert_eq!(config(&["--listen", listen], &[]).reach(), reach, "{listen}");
        }
    }
}
