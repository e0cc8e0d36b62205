//! The command line and the `OPENPORTS_*` variables, parsed once into a [`Config`].
//!
//! One table (`flags`) holds flags, variables, defaults, help texts and parsers, so that neither
//! the help nor the manual nor a completion can differ from what the parser accepts. A flag
//! overrides its variable, and a variable overrides the default. Everything is parsed before any
//! listener is bound; the first error ends the process with one line that names the flag or
//! variable. This module reads no environment, no file and no clock: `main` drives it and passes in
//! the arguments and variables.
//!
//! An empty variable counts as unset. A variable that belongs to no flag causes a warning
//! ([`unknown_variables`]) and not an error. For a Service called "openports", Kubernetes sets
//! `OPENPORTS_SERVICE_HOST` and `OPENPORTS_PORT` in every container; these variables cause no
//! warning.

mod flag;
mod flags;
mod foreign;
mod help;
pub mod origins;
pub mod scan;
pub mod usage_error;
mod values;

use std::ffi::OsString;
use std::path::PathBuf;

use lexopt::Arg;

use crate::cidr::Cidr;
use crate::config::flag::{Arity, Flag, FlagDefault, SHORTS};
use crate::config::flags::FLAGS;
use crate::config::help::{ReferencePage, Subcommand};
use crate::config::origins::Origins;
use crate::config::scan::{ScanArguments, ScanFlags};
use crate::config::usage_error::UsageError;
use crate::config::values::FORMAT_FLAGS;
use crate::interfaces::Interfaces;
use crate::limits::Settings;
use crate::listen_address::Listen;
use crate::policy::Exposure;
use crate::report::log::{Level, LogFormat};
use crate::service_names;
use crate::spelling::{self, Confusable};
use crate::target_spec::Spec;

/// The command that a command line requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Invocation {
    /// `openports` or `openports serve`: run the service.
    Serve(Box<Config>, Origins),
    /// `openports scan`: scan from the command line. The configuration's `listen` is empty.
    Scan(Box<Config>, ScanArguments, Origins),
    /// `openports healthcheck`: check the service that listens at this address.
    Healthcheck(Listen),
    /// `--help`, `help`, `man` and the like: print this text to stdout.
    Help(String),
    /// `--version`: print this text to stdout.
    Version(String),
}

/// All settings that the operator can choose, within the bounds of `limits`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// The listeners of the service. The list is empty only for a scan.
    pub listen: Vec<Listen>,
    /// The settings of the core.
    pub settings: Settings,
    /// The least urgent level that is logged.
    pub log_level: Level,
    /// The format of log records.
    pub log_format: LogFormat,
    /// The configuration file of the resolver.
    pub resolv_conf: PathBuf,
    /// The hosts file, with names that are resolved without a server.
    pub hosts: PathBuf,
    /// Networks whose addresses may be scanned, see `policy::Policy`.
    pub allow: Vec<Cidr>,
    /// Networks whose addresses may not be scanned, see `policy::Policy`.
    pub deny: Vec<Cidr>,
    /// The names under which browsers may address this service, see `access::browser::HostGuard`.
    pub host_names: Vec<String>,
    /// The file with the bearer token, if one is required.
    pub token_file: Option<PathBuf>,
    /// The networks of trusted proxies, see `access::forwarded::Proxies`.
    pub proxies: Vec<Cidr>,
    /// The flags of a command-line scan.
    pub scan: ScanFlags,
}

/// Parses a command line, whose first item is the program's name, and the variables that `env`
/// looks up. The zone of a target of `scan` is a number or the name of one of `interfaces`, which
/// no other command reads. Text that is not UTF-8 is refused.
pub fn parse(
    args: impl IntoIterator<Item = OsString>,
    env: impl Fn(&str) -> Option<OsString>,
    interfaces: impl FnOnce() -> Interfaces,
) -> Result<Invocation, UsageError> {
    let mut parser = lexopt::Parser::from_iter(args);
    let (mut given, mut verb, mut words) = (Vec::new(), None, Vec::new());
    let mut may_be_flag = true;
    // All values of a flag are taken at once, so that `next` finds none of them.
    loop {
        let command = match verb {
            Some(Verb::Run(command)) => Some(command),
            Some(Verb::Print(_)) | None => None,
        };
        if let Some(raw) = parser.try_raw_args().and_then(|raw| raw.peek().map(OsString::from)) {
            may_be_flag &= raw != "--";
            if may_be_flag {
                check_other_tools(&raw.to_string_lossy(), command)?;
            }
        }
        let next = parser.next().map_err(|error| unexpected(error.to_string(), command))?;
        let Some(arg) = next else { break };
        match arg {
            Arg::Short('h') | Arg::Long("help") => {
                return Ok(Invocation::Help(help_of(verb)));
            }
            Arg::Short('V') | Arg::Long("version") => {
                let version = concat!("openports ", env!("CARGO_PKG_VERSION"), "\n");
                return Ok(Invocation::Version(version.to_owned()));
            }
            Arg::Long(name) => {
                let known = FLAGS.iter().find(|flag| flag.name == name);
                let Some(flag) = known else { return Err(unknown_flag("--", name, command)) };
                given.push((flag.name, take_value(&mut parser, flag)?));
            }
            Arg::Short(letter) => {
                given.push(take_short(&mut parser, letter, command)?);
            }
            Arg::Value(word) if verb.is_none() => verb = Some(parse_verb(&word)?),
            Arg::Value(word) => words.push(word),
        }
    }
    let command = match verb {
        None => Subcommand::Serve,
        Some(Verb::Run(command)) => command,
        Some(Verb::Print(page)) => {
            if let Some((flag, _)) = given.first() {
                return Err(unexpected(format!("--{flag}"), None));
            }
            return page.text(&words).map(Invocation::Help);
        }
    };
    let interfaces = if command == Subcommand::Scan { interfaces() } else { Interfaces::default() };
    let (config, origins) = configure(command, &given, env, interfaces)?;
    match (command, words.as_slice()) {
        (Subcommand::Serve, []) => Ok(Invocation::Serve(Box::new(config), origins)),
        (Subcommand::Serve, [word, ..]) => {
            Err(unexpected(word.to_string_lossy().into_owned(), Some(command)))
        }
        (Subcommand::Scan, words) => {
            scan::parse(&config.scan, words, &config.settings.interfaces, &origins)
                .map(|arguments| Invocation::Scan(Box::new(config), arguments, origins))
        }
        (Subcommand::Healthcheck, words) => {
            scan::healthcheck_address(&config.listen, words).map(Invocation::Healthcheck)
        }
    }
}

/// A variable that has the prefix of this program and belongs to no flag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownVariable {
    /// The name of the variable.
    pub name: String,
    /// The variable that was probably meant.
    pub nearest: Option<String>,
}

/// The variables that have the prefix of this program and belong to no flag of any command. Those
/// that Kubernetes sets for a Service are left out.
pub fn unknown_variables(names: impl IntoIterator<Item = OsString>) -> Vec<UnknownVariable> {
    let mut unknown: Vec<UnknownVariable> = names
        .into_iter()
        .map(|name| name.to_string_lossy().into_owned())
        .filter(|name| name.starts_with(PREFIX) && !is_of_kubernetes(name))
        .filter(|name| FLAGS.iter().all(|flag| flag.variable() != *name))
        .map(|name| UnknownVariable { nearest: nearest_variable(&name), name })
        .collect();
    unknown.sort_unstable_by(|one, other| one.name.cmp(&other.name));
    unknown
}

/// The prefix of every variable of this program.
const PREFIX: &str = "OPENPORTS_";

/// Whether Kubernetes sets a variable of this name for a Service: `OPENPORTS_SERVICE_HOST`,
/// `OPENPORTS_PORT_8080_TCP_ADDR`, `OPENPORTS_CANARY_PORT` and the like.
fn is_of_kubernetes(name: &str) -> bool {
    name.contains("_SERVICE_") || name.contains("_PORT")
}

fn nearest_variable(name: &str) -> Option<String> {
    let dashed = name.strip_prefix(PREFIX)?.replace('_', "-");
    let nearest = nearest(&dashed, FLAGS.iter().map(|flag| flag.name))?;
    FLAGS.iter().find(|flag| flag.name == nearest).map(Flag::variable)
}

/// The first word of a command line.
#[derive(Clone, Copy)]
enum Verb {
    Run(Subcommand),
    Print(ReferencePage),
}

fn help_of(verb: Option<Verb>) -> String {
    match verb {
        None => help::help(Subcommand::Serve),
        Some(Verb::Run(command)) => help::help(command),
        Some(Verb::Print(page)) => page.help(),
    }
}

/// Refuses a flag of another tool, an unknown flag with one dash and several letters, and a dash
/// beyond ASCII in place of the one of a flag.
fn check_other_tools(raw: &str, command: Option<Subcommand>) -> Result<(), UsageError> {
    if let Some(dash) = Confusable::leading_dash(raw) {
        let (source, value) = ("argument".to_owned(), Some(raw.to_owned()));
        return Err(UsageError::Value { source, value, reason: dash.to_string() });
    }
    let listen_advice = match command {
        Some(Subcommand::Serve) => Some(foreign::LISTEN_ADVICE),
        // The default command is the service. `-l` and `-b` are flags of scanners too.
        None if raw.starts_with("--") => Some(foreign::LISTEN_ADVICE),
        Some(Subcommand::Healthcheck) => Some(foreign::CHECK_ADVICE),
        Some(_) | None => None,
    };
    if let Some(advice) = listen_advice.filter(|_| foreign::is_listen_flag(raw)) {
        let given = raw.split('=').next().unwrap_or(raw).to_owned();
        return Err(UsageError::OtherTool { given, advice });
    }
    if let Some(found) = foreign::find(raw) {
        let given = found.given.chars().filter(|c| !c.is_control()).take(40).collect();
        return Err(UsageError::OtherTool { given, advice: found.advice });
    }
    match raw.strip_prefix('-') {
        None | Some("") => Ok(()),
        Some(rest) if rest.starts_with('-') || is_short_form(rest) => Ok(()),
        Some(rest) => Err(unknown_flag("-", rest.split('=').next().unwrap_or(rest), command)),
    }
}

/// Whether an argument, without its dash, consists of flags of one letter and of the value of the
/// last one. Everything else is one name: lexopt would read `-timeout` as `-t`, and `-help` as
/// `-h`.
fn is_short_form(letters: &str) -> bool {
    let is_one = letters.split('=').next().is_some_and(|name| name.chars().count() == 1);
    if is_one || letters.chars().all(|letter| "46hV".contains(letter)) {
        return true;
    }
    let last = letters.trim_start_matches(['4', '6']);
    if let Some(ports) = last.strip_prefix('p') {
        // The parser of ports has an answer for `-pssh`, `-pT:22` and `-pall`; `-prots=1` is a
        // misspelt name.
        let name = ports.split('=').next().unwrap_or(ports);
        let is_list = name.contains(|c: char| c.is_ascii_digit() || ":,*".contains(c));
        let is_word = name == "all" || service_names::built_in_port(name).is_some();
        return name.is_empty() || name.starts_with('-') || is_list || is_word;
    }
    let file = last.strip_prefix('o');
    file.is_some_and(|file| file.is_empty() || file == "-" || file.contains(['.', '/', '=']))
}

/// The flag for which a letter is the short form, and its value.
fn take_short(
    parser: &mut lexopt::Parser,
    letter: char,
    command: Option<Subcommand>,
) -> Result<(&'static str, OsString), UsageError> {
    let Some(short) = SHORTS.iter().find(|short| short.letter == letter) else {
        let command = command.map_or("", Subcommand::name);
        return Err(UsageError::UnknownFlag {
            given: format!("-{letter}"),
            nearest: None,
            command,
        });
    };
    match (short.value, FLAGS.iter().find(|flag| flag.name == short.name)) {
        (Some(value), _) => Ok((short.name, value.into())),
        (None, Some(flag)) => Ok((short.name, take_value(parser, flag)?)),
        (None, None) => unreachable!("a short flag stands for a flag of the table"),
    }
}

/// The value that follows a flag, or `true` for a switch, which takes no value.
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
                value: Some(value.to_string_lossy().into_owned()),
                reason: "the flag takes no value".to_owned(),
            }),
        },
    }
}

impl Config {
    /// The machines that can reach the listeners. A command-line scan has no listeners.
    pub fn exposure(&self) -> Exposure {
        if self.listen.iter().all(Listen::is_inside) {
            Exposure::LoopbackOnly
        } else {
            Exposure::Outside
        }
    }
}

fn parse_verb(word: &OsString) -> Result<Verb, UsageError> {
    let given = word.to_string_lossy();
    if let Some((_, command, _)) = Subcommand::ALL.iter().find(|(name, ..)| *name == given) {
        return Ok(Verb::Run(*command));
    }
    if let Some((_, page, _)) = ReferencePage::ALL.iter().find(|(name, ..)| *name == given) {
        return Ok(Verb::Print(*page));
    }
    let commands = Subcommand::ALL.iter().map(|(name, ..)| *name);
    let pages = ReferencePage::ALL.iter().map(|(name, ..)| *name);
    let nearest = match nearest(&given, commands.chain(pages).chain(["version"])) {
        Some("version") => Some("openports --version"),
        nearest => nearest,
    };
    let given = given.into_owned();
    Err(match nearest {
        None if Spec::parse(&given).is_ok() => UsageError::TargetAlone { given },
        nearest => UsageError::UnknownCommand { given, nearest },
    })
}

fn unknown_flag(dashes: &str, name: &str, command: Option<Subcommand>) -> UsageError {
    let names = FLAGS.iter().map(|flag| flag.name).chain(["help", "version"]);
    let (nearest, command) = (nearest(name, names), command.map_or("", Subcommand::name));
    UsageError::UnknownFlag { given: format!("{dashes}{name}"), nearest, command }
}

fn unexpected(given: String, command: Option<Subcommand>) -> UsageError {
    let command = command.unwrap_or(Subcommand::Serve).name();
    UsageError::UnexpectedArgument { given, command }
}

/// Builds the configuration. For each flag of the command, the value comes from the command line,
/// otherwise from the variable, otherwise from the default. A variable that contradicts a flag on
/// the command line is not read.
fn configure(
    command: Subcommand,
    given: &[(&'static str, OsString)],
    env: impl Fn(&str) -> Option<OsString>,
    interfaces: Interfaces,
) -> Result<(Config, Origins), UsageError> {
    let own = || FLAGS.iter().filter(|flag| flag.commands.contains(&command));
    if let Some((flag, _)) = given.iter().find(|(name, _)| own().all(|flag| flag.name != *name)) {
        let advice = match (command, *flag) {
            (Subcommand::Scan, "host") => Some(foreign::TARGETS_ADVICE),
            (Subcommand::Serve, "ports") => Some(foreign::LISTEN_ADVICE),
            (Subcommand::Healthcheck, "ports" | "host") => Some(foreign::CHECK_ADVICE),
            _ => None,
        };
        if let Some(advice) = advice {
            return Err(UsageError::OtherTool { given: format!("--{flag}"), advice });
        }
        let owners = FLAGS.iter().find(|known| known.name == *flag).map(|known| known.commands);
        let owner = owners.and_then(|owners| owners.first()).map_or("", |owner| owner.name());
        return Err(UsageError::ForeignFlag { flag, command: command.name(), owner });
    }
    let has_format = given.iter().any(|(name, _)| FORMAT_FLAGS.contains(name));
    let is_contradicted = |flag: &Flag| has_format && FORMAT_FLAGS.contains(&flag.name);
    let variable = |flag: &Flag| {
        let value = env(&flag.variable()).filter(|value| !value.is_empty());
        value.filter(|_| !is_contradicted(flag))
    };
    let (mut config, mut origins) = (Config::default(), Origins::default());
    config.settings.interfaces = interfaces;
    for flag in own() {
        let dashed = format!("--{}", flag.name);
        let mine = given.iter().filter(|(name, _)| *name == flag.name);
        let values: Vec<&OsString> = mine.map(|(_, value)| value).collect();
        if let (Arity::Once | Arity::Switch, [_, .., last]) = (flag.arity, values.as_slice()) {
            let value = last.to_string_lossy().into_owned();
            let value = (flag.arity != Arity::Switch).then_some(value);
            return Err(UsageError::Repeated { flag: flag.name, value });
        }
        if !values.is_empty() {
            origins.add_given(flag.name);
            for value in values {
                apply(&mut config, flag, &dashed, value)?;
            }
        } else if let Some(value) = variable(flag) {
            origins.add_variable(flag.name);
            apply(&mut config, flag, &flag.variable(), &value)?;
        } else {
            match flag.default {
                FlagDefault::Value(value) => apply(&mut config, flag, &dashed, &value.into())?,
                FlagDefault::Held(_) | FlagDefault::Unset(_) => {}
            }
        }
    }
    assert!(config.listen.is_empty() == (command == Subcommand::Scan), "--listen has a default");
    Ok((config, origins))
}

/// Parses one value, or each value of a list, and stores it. `source` names the flag or the
/// variable in an error message.
fn apply(
    config: &mut Config,
    flag: &Flag,
    source: &str,
    value: &OsString,
) -> Result<(), UsageError> {
    let fault = |value: &str, reason| {
        let is_on = flag.arity == Arity::Switch && value == "true";
        let value = (!is_on).then(|| value.to_owned());
        Err(UsageError::Value { source: source.to_owned(), value, reason })
    };
    let Some(text) = value.to_str() else {
        return fault(&value.to_string_lossy(), "expected UTF-8".to_owned());
    };
    let items: Vec<&str> = match flag.arity {
        Arity::Once | Arity::Switch => vec![text],
        Arity::List => text.split(',').map(str::trim).collect(),
    };
    if items.len() > 1 && items.contains(&"") {
        return fault(text, "an item of the list is empty".to_owned());
    }
    for item in items {
        if let Err(reason) = (flag.read)(config, item) {
            return fault(item, reason);
        }
    }
    Ok(())
}

fn nearest(given: &str, names: impl Iterator<Item = &'static str>) -> Option<&'static str> {
    let (name, edits) = spelling::nearest(given, names)?;
    (edits * 3 <= name.len()).then_some(name)
}

#[cfg(test)]
#[path = "tests/pages.rs"]
mod pages_tests;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::options::Format;
    use crate::config::scan::ListSource;
    use crate::listen_address::ListenError;
    use crate::target_spec::{AddressRange, TargetHosts};
    use std::collections::BTreeMap;
    use std::os::unix::ffi::OsStringExt;

    fn parse_with(args: &[&str], env: &[(&str, &str)]) -> Result<Invocation, UsageError> {
        let args = ["openports"].iter().chain(args).map(OsString::from);
        let env: BTreeMap<&str, &str> = env.iter().copied().collect();
        parse(args, |name| env.get(name).map(OsString::from), Interfaces::default)
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
    fn the_defaults_of_the_table_are_those_of_the_settings() {
        let config = config(&[], &[]);
        assert_eq!(config.settings, Settings::default());
        assert_eq!(config.listen, [Listen::Tcp("127.0.0.1:8080".parse().unwrap())]);
        assert_eq!((config.log_level, config.log_format), (Level::Info, LogFormat::Logfmt));
        assert_eq!(config.resolv_conf, PathBuf::from("/etc/resolv.conf"));
        assert_eq!(config.hosts, PathBuf::from("/etc/hosts"));
        assert!(config.allow.is_empty() && config.deny.is_empty());
        assert!(config.host_names.is_empty());
        let expected = Invocation::Serve(Box::new(config), Origins::default());
        assert_eq!(parse_with(&["serve"], &[]), Ok(expected));
    }

    /// A value of each flag of the service that is neither its default nor its `other`.
    const SERVE_VALUES: [(&str, &str, &str); 19] = [
        ("listen", "[::]:80", "0.0.0.0:0"),
        ("timeout", "250ms", "60s"),
        ("technique", "syn", "connect"),
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

    /// The same for the flags of a scan. The value of a switch is the value of its variable.
    const SCAN_VALUES: [(&str, &str, &str); 29] = [
        ("targets", "-", "/a"),
        ("ports", "80", "-"),
        ("exclude-targets", "10.0.0.0/8", "a"),
        ("exclude-targets-from", "/a", "/b"),
        ("resume", "/a", "/b"),
        ("shard", "2/3", "1/3"),
        ("exclude", "22,80", "1-"),
        ("timeout", "auto", "60s"),
        ("technique", "syn", "connect"),
        ("retries", "10", "0"),
        ("deadline", "10s", "59m"),
        ("rate", "1", "10000000"),
        ("concurrency", "1", "65535"),
        ("family", "4", "6"),
        ("all-addresses", "true", "false"),
        ("source", "127.0.0.1", "eth0"),
        ("format", "xml", "csv"),
        ("json", "true", "false"),
        ("ndjson", "true", "false"),
        ("include", "closed", "filtered,services"),
        ("open", "true", "false"),
        ("output", "/a", "-"),
        ("max-in-flight", "1", "2"),
        ("allow", "127.0.0.0/8", "::1"),
        ("deny", "10.0.0.0/8", "fd00::/8"),
        ("log-level", "debug", "error"),
        ("log-format", "json", "logfmt"),
        ("resolv-conf", "/a", "/b"),
        ("hosts", "/a", "/b"),
    ];

    fn flags_of(command: Subcommand) -> impl Iterator<Item = &'static Flag> {
        FLAGS.iter().filter(move |flag| flag.commands.contains(&command))
    }

    /// The configuration that the given flags and variables of a command produce.
    fn configured(
        command: Subcommand,
        flags: &[(&'static str, &str)],
        env: &[(&str, &str)],
    ) -> Result<Config, UsageError> {
        let given: Vec<_> = flags.iter().map(|(name, value)| (*name, value.into())).collect();
        let env: BTreeMap<&str, &str> = env.iter().copied().collect();
        configure(command, &given, |name| env.get(name).map(OsString::from), Interfaces::default())
            .map(|(config, _)| config)
    }

    #[test]
    fn every_flag_has_the_effect_of_its_variable_and_overrides_it() {
        for (command, values) in
            [(Subcommand::Serve, &SERVE_VALUES[..]), (Subcommand::Scan, &SCAN_VALUES[..])]
        {
            assert_eq!(flags_of(command).count(), values.len());
            let default = configured(command, &[], &[]).unwrap();
            for (flag, (name, value, other)) in flags_of(command).zip(values) {
                assert_eq!(flag.name, *name);
                let variable = flag.variable();
                let config = |flags: &[(&'static str, &str)], env: &[(&str, &str)]| {
                    configured(command, flags, env).unwrap()
                };
                let by_flag = config(&[(name, value)], &[]);
                assert_ne!(by_flag, default, "--{name} {value}");
                assert_eq!(config(&[], &[(&variable, value)]), by_flag);
                assert_eq!(config(&[(name, value)], &[(&variable, other)]), by_flag);
                assert_ne!(config(&[], &[(&variable, other)]), by_flag);
                // The variable of a flag that is given is not parsed, so its value cannot be an
                // error.
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
        for (_, command, _) in Subcommand::ALL {
            for flag in flags_of(command) {
                let default = configured(command, &[], &[]);
                assert_eq!(configured(command, &[], &[(&flag.variable(), "")]), default);
                for value in ["", "\n"] {
                    let is_path = flag.metavar == "FILE";
                    if is_path && !value.is_empty() {
                        continue;
                    }
                    let variable = flag.variable();
                    // Blanks around an item of a list do not belong to the item.
                    let item = if flag.arity == Arity::List { value.trim() } else { value };
                    for (fault, source) in [
                        (configured(command, &[(flag.name, value)], &[]), "--"),
                        (configured(command, &[], &[(&variable, value)]), "OPENPORTS_"),
                    ] {
                        if value.is_empty() && source != "--" {
                            continue;
                        }
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
        let see = |flag: &str, owner: &str, command: &str| {
            let owner = format!("{owner} and not of {command}, see openports {owner} --help");
            format!("--{flag} is a flag of {owner}")
        };
        check_fault(&["--json"], &[], &see("json", "scan", "serve"));
        let listen = "the port of the service is --listen 127.0.0.1:8080; ports to scan follow \
                      openports scan -p";
        for (args, flag) in [
            (&["serve", "--port=80"][..], "--port"),
            (&["serve", "-port", "80"], "-port"),
            (&["serve", "-l", "80"], "-l"),
            (&["serve", "--bind", ":80"], "--bind"),
            (&["serve", "-p", "80"], "--ports"),
            (&["-p", "80"], "--ports"),
            (&["--port", "8081"], "--port"),
            (&["--bind=0.0.0.0", "serve"], "--bind"),
        ] {
            check_fault(args, &[], &format!("{flag}: {listen}"));
        }
        check_fault(&["scan", "--listen=x", "a"], &[], &see("listen", "serve", "scan"));
        let expected = see("timeout", "serve", "healthcheck");
        check_fault(&["healthcheck", "--timeout", "1s"], &[], &expected);
        let expected = "--host: targets need no flag: openports scan HOST 22,80; a file of them: \
                        --targets FILE";
        check_fault(&["scan", "--host", "a"], &[], expected);
        // The variables of another command are not read.
        let env = [("OPENPORTS_SHARD", "x"), ("OPENPORTS_TIMEOUT", "x")];
        assert!(matches!(parse_with(&["healthcheck"], &env), Ok(Invocation::Healthcheck(_))));
    }

    fn scan_of(args: &[&str]) -> (Config, ScanArguments) {
        let args: Vec<&str> = ["scan"].iter().chain(args).copied().collect();
        match parse_with(&args, &[]) {
            Ok(Invocation::Scan(config, arguments, _)) => (*config, arguments),
            other => panic!("{args:?} gave {other:?}"),
        }
    }

    #[test]
    fn a_scan_has_targets_and_a_list_and_every_port_unless_ports_are_given() {
        let check = |args: &[&str], source: &str, ports: &str| {
            let (config, arguments) = scan_of(args);
            let list = arguments.list.map(|list| match list {
                ListSource::File(path) => format!("list {}", path.display()),
                ListSource::Stdin => "stdin".to_owned(),
            });
            let shown: Vec<String> =
                arguments.targets.into_iter().map(|(text, _)| text).chain(list).collect();
            assert_eq!(shown.join(" "), source, "{args:?}");
            assert_eq!(arguments.ports.display_ranges().to_string(), ports, "{args:?}");
            assert_eq!(
                config.exposure(),
                Exposure::LoopbackOnly,
                "a command-line scan may scan this machine"
            );
            assert_eq!(config.log_level, Level::Warn);
        };
        check(&["Example.com"], "Example.com", "1-65535");
        check(&["::1", "22,80-90"], "::1", "22,80-90");
        check(&["--json", "a", "--rate", "9", "80"], "a", "80");
        check(&["--targets", "x/y"], "list x/y", "1-65535");
        check(&["--targets", "-", "22"], "stdin", "22");
        check(&["a", "10.0.0.0/8", "::1", "22"], "a 10.0.0.0/8 ::1", "22");
        check(&["a", "b", "--targets", "x", "-p", "22"], "a b list x", "22");
        check(&["a:80", "10.0.0.1-9"], "a:80 10.0.0.1-9", "1-65535");
        check(&["-p22,80", "a"], "a", "22,80");
        check(&["-p-", "a"], "a", "1-65535");
        check(&["-p", "-", "a"], "a", "1-65535");
        check(&["-p-100", "a"], "a", "1-100");
        check(&["-p=22", "a"], "a", "22");
        check(&["-4p22", "a"], "a", "22");
        check(&["-6p", "22", "a"], "a", "22");
        check(&["-ptop:1", "a"], "a", "80");
        check(&["-pTOP:1", "a"], "a", "80");
        check(&["-ox.txt", "-p9", "a"], "a", "9");
        check(&["-o/x", "-p9", "a"], "a", "9");
        check(&["--ports", "60000-", "--", "a"], "a", "60000-65535");
    }

    #[test]
    fn the_zone_of_a_target_is_the_name_or_the_number_of_an_interface() {
        let table = b"fe80000000000000001122fffe334455 02 40 20 80 eth0\n";
        for text in ["fe80::1%eth0", "[fe80::1%eth0]", "fe80::1%2", "[fe80::1%eth0]:80"] {
            let excluded = text.trim_end_matches(":80");
            let args = ["openports", "scan", "--exclude-targets", excluded, text, "80"];
            let args = args.into_iter().map(OsString::from);
            let read = parse(args, |_| None, || Interfaces::parse(table));
            let Ok(Invocation::Scan(config, arguments, _)) = read else { panic!("{read:?}") };
            let specs = [&arguments.targets[0].1, &config.scan.exclude_targets[0]];
            for spec in specs {
                let expected = AddressRange::one("fe80::1".parse().unwrap(), 2);
                assert_eq!(spec.hosts, TargetHosts::Addresses(expected), "{text}");
            }
        }
        check_fault(
            &["scan", "fe80::1%eth1", "80"],
            &[],
            "TARGET \"fe80::1%eth1\": an IPv6 zone is the number or the name of an interface of \
             this machine",
        );
    }

    #[test]
    fn contradictory_arguments_of_a_scan_are_refused() {
        let check = |args: &[&str], expected: &str| {
            let args: Vec<&str> = ["scan"].iter().chain(args).copied().collect();
            check_fault(&args, &[], expected);
        };
        check(&[], "scan needs a TARGET, or --targets FILE, see openports scan --help");
        let ports = "a list of ports, not a target; ports stand once, behind the targets or in -p";
        check(&["a", "22", "80"], &format!("TARGET \"22\": {ports}"));
        check(&["a", "80", "b"], &format!("TARGET \"80\": {ports}"));
        check(&["--targets", "f", "22", "80"], &format!("TARGET \"22\": {ports}"));
        check(&["80"], &format!("TARGET \"80\": {ports}"));
        check(&["exa mple"], "TARGET \"exa mple\": a name has no ' '");
        check(&["a", "0"], "PORTS \"0\": \"0\" at offset 1: must be from 1 to 65535");
        check(&["a", "80", "-p", "22"], "PORTS \"80\": -p says which ports");
        check(&["a", "80,top:3", "-p", "22"], "PORTS \"80,top:3\": -p says which ports");
        for (list, port) in [
            ("80,http", "\"http\" at offset 4: the name of a service; write 80"),
            ("SSH,http", "\"SSH\" at offset 1: the name of a service; write 22"),
        ] {
            check(&["a", list], &format!("PORTS {list:?}: {port}"));
        }
        check(
            &["a", "a,b"],
            "TARGET \"a,b\": write a blank between targets, and a new line in a list, not a comma",
        );
        check(&["a", "-p", ""], "--ports \"\": expected ports such as 22,80,8000-8100");
        check(&["a", "--exclude", ""], "--exclude \"\": expected ports such as 22,80,8000-8100");
        check(&["a", "-p"], "--ports needs a value: PORTS");
        check(&["a", "-4", "-6"], "-4, -6 and --family exclude each other");
        check(
            &["a", "80", "--", "-sV"],
            "TARGET \"-sV\": a target does not begin with a hyphen, and flags stand before --",
        );
        check(&["--", "-"], "TARGET \"-\": targets on stdin are read with --targets -");
        check(
            &["a", "--exclude", "10.0.0.1"],
            "--exclude \"10.0.0.1\": ports are excluded here; for targets write --exclude-targets",
        );
        check(
            &["a", "--format", "yaml"],
            "--format \"yaml\": expected one of table, json, ndjson, text, host-port, csv, xml, \
             greppable",
        );
        check(
            &["a", "--source", "a/b"],
            "--source \"a/b\": expected an address of this machine or \
             an interface",
        );
        check(&["a", "80", "--exclude=1-"], "--exclude \"1-65535\": leaves no port to scan");
        check(
            &["a", "--json", "--ndjson"],
            "--ndjson: --format, --json and --ndjson exclude each other",
        );
        check(&["a", "--json=yes"], "--json \"yes\": the flag takes no value");
        check(&["a", "--json", "--json"], "--json: expected once, is given several times");
        for (shard, which) in [("0/4", "\"0\""), ("5/4", "\"5\"")] {
            let expected = format!("--shard {shard:?}: {which} is none: the shards are 1/4 to 4/4");
            check(&["a", "--shard", shard], &expected);
        }
    }

    #[test]
    fn the_name_of_a_service_is_a_target_unless_it_stands_in_the_place_of_ports() {
        for (args, word, port) in [
            (&["localhost", "http"][..], "http", 80),
            (&["localhost", "10.0.0.1", "HTTPS"], "HTTPS", 443),
            (&["http", "ssh"], "ssh", 22),
            (&["--targets", "f", "redis"], "redis", 6379),
        ] {
            let args: Vec<&str> = ["scan"].iter().chain(args).copied().collect();
            let expected = format!(
                "PORTS {word:?}: the name of a service; to scan its port write {port}, to scan a \
                 host of this name write it first"
            );
            check_fault(&args, &[], &expected);
            check_fault(&args, &[("OPENPORTS_PORTS", "22")], &expected);
        }
        for (args, expected) in [
            (&["http"][..], &["http"][..]),
            (&["http", "localhost"], &["http", "localhost"]),
            (&["localhost", "http", "80"], &["localhost", "http"]),
            (&["localhost", "http", "-p", "80"], &["localhost", "http"]),
            (&["localhost", "http:80"], &["localhost", "http:80"]),
            (&["localhost", "http."], &["localhost", "http."]),
        ] {
            let targets = scan_of(args).1.targets.into_iter().map(|(text, _)| text);
            assert_eq!(targets.collect::<Vec<_>>(), expected, "{args:?}");
        }
    }

    #[test]
    fn a_health_check_checks_its_argument_or_the_first_listener_at_loopback() {
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
        let fault = "unexpected argument \"2\", see openports healthcheck --help";
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
    fn a_listen_flag_on_the_command_line_is_reported() {
        let check = |args: &[&str], env: &[(&str, &str)], is_given, label: &str| {
            let Ok(Invocation::Serve(_, origins)) = parse_with(args, env) else {
                panic!("{args:?} {env:?}");
            };
            assert_eq!(origins.is_given("listen"), is_given, "{args:?} {env:?}");
            assert_eq!(origins.label("listen"), label, "{args:?} {env:?}");
        };
        let variable = [("OPENPORTS_LISTEN", "unix:x")];
        check(&[], &[], false, "--listen");
        check(&[], &[("OPENPORTS_LISTEN", "")], false, "--listen");
        check(&["--timeout=1s"], &variable, false, "OPENPORTS_LISTEN");
        check(&["--listen", "unix:x"], &[], true, "--listen");
        check(&["--listen", "unix:x"], &variable, true, "--listen");
    }

    #[test]
    fn the_command_line_overrides_variables_that_contradict_it() {
        let check = |args: &[&str], env: &[(&str, &str)], ports: &str, format: Option<Format>| {
            let args: Vec<&str> = ["scan", "a"].iter().chain(args).copied().collect();
            let Ok(Invocation::Scan(config, arguments, _)) = parse_with(&args, env) else {
                panic!("{args:?} {env:?}");
            };
            assert_eq!(arguments.ports.display_ranges().to_string(), ports, "{args:?} {env:?}");
            assert_eq!(config.scan.format, format, "{args:?} {env:?}");
        };
        let ports = ("OPENPORTS_PORTS", "22");
        check(&[], &[ports], "22", None);
        check(&["80"], &[ports], "80", None);
        check(&["-p", "80"], &[ports], "80", None);
        for variable in [("OPENPORTS_FORMAT", "xml"), ("OPENPORTS_JSON", "true")] {
            check(&["80", "--ndjson"], &[variable], "80", Some(Format::Ndjson));
            check(&["80", "--format=csv"], &[variable, ports], "80", Some(Format::Csv));
        }
    }

    #[test]
    fn a_message_names_the_variable_that_the_value_comes_from() {
        let check = |args: &[&str], env: &[(&str, &str)], expected: &str| {
            let args: Vec<&str> = ["scan", "a"].iter().chain(args).copied().collect();
            check_fault(&args, env, expected);
        };
        let exclude = ("OPENPORTS_EXCLUDE", "80");
        check(&["80"], &[exclude], "OPENPORTS_EXCLUDE \"80\": leaves no port to scan");
        check(&["80", "--exclude=80"], &[exclude], "--exclude \"80\": leaves no port to scan");
        let both = [("OPENPORTS_JSON", "true"), ("OPENPORTS_NDJSON", "true")];
        check(&[], &both, "OPENPORTS_NDJSON: --format, --json and --ndjson exclude each other");
        let name = |offset| format!("\"http\" at offset {offset}: the name of a service; write 80");
        check(&["-p", "22,http"], &[], &format!("--ports \"22,http\": {}", name(4)));
        let expected = format!("OPENPORTS_PORTS \"http\": {}", name(1));
        check(&[], &[("OPENPORTS_PORTS", "http")], &expected);
        for list in ["10.0.0.0/8,", ",10.0.0.0/8", "10.0.0.0/8, ,::/0", ","] {
            let expected = format!("{list:?}: an item of the list is empty");
            check(&[], &[("OPENPORTS_DENY", list)], &format!("OPENPORTS_DENY {expected}"));
            check(&["--deny", list], &[], &format!("--deny {expected}"));
        }
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
    fn an_unknown_word_is_reported_with_the_nearest_known_one() {
        check_fault(&["--lisen=x"], &[], "unknown flag \"--lisen\", did you mean --listen?");
        check_fault(&["--max-scan"], &[], "unknown flag \"--max-scan\", did you mean --max-scans?");
        check_fault(&["--Timeout"], &[], "unknown flag \"--Timeout\", did you mean --timeout?");
        check_fault(&["--hepl"], &[], "unknown flag \"--hepl\", did you mean --help?");
        check_fault(&["--versio"], &[], "unknown flag \"--versio\", did you mean --version?");
        check_fault(&["--color"], &[], "unknown flag \"--color\", see openports --help");
        check_fault(&["-X"], &[], "unknown flag \"-X\", see openports --help");
        check_fault(&["scan", "-X"], &[], "unknown flag \"-X\", see openports scan --help");
        check_fault(&["scan", "--xyz"], &[], "unknown flag \"--xyz\", see openports scan --help");
        check_fault(&["-open"], &[], "unknown flag \"-open\", did you mean --open?");
        check_fault(&["-help"], &[], "unknown flag \"-help\", did you mean --help?");
        check_fault(&["-prots=1"], &[], "unknown flag \"-prots\", did you mean --ports?");
        check_fault(&["-foo"], &[], "unknown flag \"-foo\", see openports --help");
        for flag in
            ["-foo", "-progress", "-pace", "-hx", "-Vq", "-4q", "-4hp80", "-ofile", "-100", "-é1"]
        {
            let expected = format!("unknown flag {flag:?}, see openports scan --help");
            check_fault(&["scan", flag], &[], &expected);
        }
        let form = "no port or range; write 22,80,8000-8100 without blanks, or 1-65535 for all";
        for (flag, expected) in [
            ("-pssh", "\"ssh\" at offset 1: the name of a service; write 22"),
            ("-p22,http", "\"http\" at offset 4: the name of a service; write 80"),
            ("-4phttp", "\"http\" at offset 1: the name of a service; write 80"),
            ("-ptcp:80", &format!("\"tcp:80\" at offset 1: {form}")),
            ("-pall", &format!("\"all\" at offset 1: {form}")),
            ("-p*", &format!("\"*\" at offset 1: {form}")),
            (
                "-p,",
                &format!(
                    "\"\" at offset 1: {}",
                    form.replace("no port or range", "a port is missing")
                ),
            ),
        ] {
            let (_, ports) = flag.split_once('p').unwrap();
            check_fault(&["scan", flag, "a"], &[], &format!("--ports {ports:?}: {expected}"));
        }
        check_fault(&["scan", "-sS", "a"], &[], "-sS: write --technique syn");
        check_fault(
            &["scan", "--top-ports=9"],
            &[],
            "--top-ports: write -p top:N, such as -p top:1000",
        );
        for word in ["version", "versions", "Version"] {
            let expected = format!("unknown command {word:?}, did you mean openports --version?");
            check_fault(&[word], &[], &expected);
        }
        check_fault(&["--versions"], &[], "unknown flag \"--versions\", did you mean --version?");
        check_fault(&["-versions"], &[], "unknown flag \"-versions\", did you mean --version?");
        check_fault(&["srve"], &[], "unknown command \"srve\", did you mean serve?");
        check_fault(
            &["example.com"],
            &[],
            "unknown command \"example.com\"; to scan it, write openports scan example.com",
        );
        check_fault(&["a b"], &[], "unknown command \"a b\", see openports --help");
        check_fault(
            &["serve", "serve"],
            &[],
            "unexpected argument \"serve\", see openports serve --help",
        );
        check_fault(
            &["--", "--timeout"],
            &[],
            "unknown command \"--timeout\", see openports --help",
        );
    }

    #[test]
    fn a_dash_beyond_ascii_is_named() {
        for args in [&["scan", "–p", "80", "a"][..], &["scan", "a", "–p"], &["–p", "80"]] {
            let expected = "argument \"–p\": the character U+2013 is no hyphen; write '-'";
            check_fault(args, &[], expected);
        }
        let expected = "argument \"—open\": the character U+2014 is no hyphen; write '-'";
        check_fault(&["scan", "a", "—open"], &[], expected);
        let expected = "TARGET \"10.9.0.1–5\": the character U+2013 is no hyphen; write '-'";
        check_fault(&["scan", "10.9.0.1–5"], &[], expected);
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
        let fault = parse(args, |_| None, Interfaces::default).unwrap_err();
        assert_eq!(fault.to_string(), "--hosts \"/\u{fffd}\": expected UTF-8");
        let fault =
            parse([], |_| Some(OsString::from_vec(vec![0xff])), Interfaces::default).unwrap_err();
        assert_eq!(fault.to_string(), "OPENPORTS_LISTEN \"\u{fffd}\": expected UTF-8");
    }

    #[test]
    fn variables_of_no_flag_are_reported_unless_kubernetes_sets_them() {
        let check = |name: &str, expected: Option<Option<&str>>| {
            let unknown = unknown_variables([OsString::from(name)]);
            let nearest = unknown.first().map(|it| it.nearest.as_deref());
            assert_eq!(nearest, expected, "{name}");
            assert!(unknown.iter().all(|it| it.name == name));
        };
        check("OPENPORTS_DENNY", Some(Some("OPENPORTS_DENY")));
        check("OPENPORTS_TOKENFILE", Some(Some("OPENPORTS_TOKEN_FILE")));
        check("OPENPORTS_deny", Some(Some("OPENPORTS_DENY")));
        check("OPENPORTS_COLOUR", Some(None));
        check("OPENPORTS_", Some(None));
        for flag in &FLAGS {
            check(&flag.variable(), None);
        }
        for name in [
            "OPENPORTS",
            "PATH",
            "openports_deny",
            "OPENPORTS_SERVICE_HOST",
            "OPENPORTS_SERVICE_PORT_HTTP",
            "OPENPORTS_PORT",
            "OPENPORTS_PORT_8080_TCP_ADDR",
            "OPENPORTS_CANARY_SERVICE_HOST",
            "OPENPORTS_CANARY_PORT_80_TCP",
        ] {
            check(name, None);
        }
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
    fn help_and_version_may_be_anywhere_on_the_command_line() {
        for args in
            [&["--help"][..], &["-h"], &["serve", "--help"], &["--timeout=x", "-h"], &["-4h"]]
        {
            let expected = Ok(Invocation::Help(help::help(Subcommand::Serve)));
            assert_eq!(parse_with(args, &[]), expected, "{args:?}");
        }
        for (name, command, _) in Subcommand::ALL {
            assert_eq!(parse_with(&[name, "-h"], &[]), Ok(Invocation::Help(help::help(command))));
        }
        for (name, page, _) in ReferencePage::ALL {
            for args in [&[name, "-h"][..], &[name, "--help"], &[name, "x", "--help"]] {
                assert_eq!(parse_with(args, &[]), Ok(Invocation::Help(page.help())), "{args:?}");
            }
        }
        let version = format!("openports {}\n", env!("CARGO_PKG_VERSION"));
        for args in [&["--version"][..], &["-V"], &["serve", "--version"]] {
            assert_eq!(parse_with(args, &[]), Ok(Invocation::Version(version.clone())), "{args:?}");
        }
    }

    #[test]
    fn a_service_is_reachable_from_outside_as_soon_as_one_listener_is() {
        for (listen, exposure) in [
            ("127.0.0.1:1", Exposure::LoopbackOnly),
            ("127.9.9.9:1,[::1]:1,[::ffff:127.0.0.1]:1", Exposure::LoopbackOnly),
            ("127.0.0.1:1,[::]:1", Exposure::Outside),
            ("0.0.0.0:1", Exposure::Outside),
            ("unix:/run/x,127.0.0.1:1", Exposure::LoopbackOnly),
            ("unix:/run/x,0.0.0.0:1", Exposure::Outside),
            ("192.0.2.7:1", Exposure::Outside),
        ] {
            assert_eq!(config(&["--listen", listen], &[]).exposure(), exposure, "{listen}");
        }
    }
}
