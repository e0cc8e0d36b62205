//! What `openports scan` and `openports healthcheck` are told beside their flags.

use std::ffi::OsString;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use crate::api::query::Addresses;
use crate::batch::options::{Format, Manner};
use crate::batch::shard::Shard;
use crate::config::UsageError;
use crate::duration;
use crate::event::listen::{Listen, ListenError};
use crate::limits;
use crate::target::{Family, Host, PortSet, Retries, Timeout};

/// The flags of a scan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScanFlags {
    /// The list of targets; `-` is stdin.
    pub targets: Option<PathBuf>,
    /// Which part of them.
    pub shard: Shard,
    /// Ports that are never scanned.
    pub exclude: PortSet,
    /// How each target is scanned.
    pub manner: Manner,
    /// What is printed.
    pub format: Format,
}

impl Default for ScanFlags {
    fn default() -> Self {
        Self {
            targets: None,
            shard: Shard::WHOLE,
            exclude: PortSet::new(),
            manner: Manner {
                timeout: Timeout::Fixed(limits::Settings::default().timeout),
                deadline: limits::SCAN_TIME_MAX,
                retries: Retries::Auto,
                concurrency: None,
                rate: None,
                family: Family::Any,
                addresses: Addresses::First,
            },
            format: Format::Table,
        }
    }
}

/// What is to be scanned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The targets.
    pub source: Source,
    /// The ports of each that has none of its own.
    pub ports: PortSet,
}

/// Where the targets come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The command line names one.
    One {
        /// As it was written.
        domain: String,
        /// What that means.
        host: Host,
    },
    /// A list, a target a line.
    List(PathBuf),
    /// Such a list on stdin.
    Stdin,
}

/// Reads `DOMAIN [PORTS]`, or `[PORTS]` beside `--targets`.
pub(super) fn asked(flags: &ScanFlags, words: &[OsString]) -> Result<Asked, UsageError> {
    let texts = words.iter().map(utf8).collect::<Result<Vec<&str>, UsageError>>()?;
    let (domain, ports) = match (&flags.targets, texts.as_slice()) {
        (None, []) => return Err(UsageError::NoTarget),
        (None, [domain]) => (Some(*domain), None),
        (None, [domain, ports]) => (Some(*domain), Some(*ports)),
        (Some(_), []) => (None, None),
        (Some(_), [ports]) => (None, Some(*ports)),
        (None, [_, _, more, ..]) | (Some(_), [_, more, ..]) => {
            return Err(UsageError::UnexpectedArgument { given: (*more).to_owned() });
        }
    };
    let ports = match ports {
        Some(text) => PortSet::parse(text).map_err(|error| fault("PORTS", text, &error))?,
        None => PortSet::from_range(1, u16::MAX),
    };
    let mut left = ports.clone();
    left.subtract(&flags.exclude);
    if left.is_empty() {
        let excluded = flags.exclude.display_ranges().to_string();
        return Err(fault("--exclude", &excluded, &"leaves no port to scan"));
    }
    check_deadline(&flags.manner)?;
    let source = match (domain, &flags.targets) {
        (Some(domain), _) => Source::One {
            domain: domain.to_owned(),
            host: Host::parse(domain).map_err(|error| fault("DOMAIN", domain, &error))?,
        },
        (None, Some(path)) if path.as_os_str() != "-" => Source::List(path.clone()),
        (None, _) => Source::Stdin,
    };
    Ok(Asked { source, ports })
}

fn check_deadline(manner: &Manner) -> Result<(), UsageError> {
    match manner.timeout {
        Timeout::Fixed(timeout) if manner.deadline < timeout => {
            let deadline = duration::display(manner.deadline).to_string();
            let timeout = duration::display(timeout);
            let reason = format!("must not be below the timeout, which is {timeout}");
            Err(fault("--deadline", &deadline, &reason))
        }
        Timeout::Fixed(_) | Timeout::Auto => Ok(()),
    }
}

/// Reads `[ADDRESS:PORT]` or `[unix:PATH]`: whom to ask, and else the first listener, at home.
pub(super) fn asked_service(listen: &[Listen], words: &[OsString]) -> Result<Listen, UsageError> {
    let told = match words {
        [] => listen.first().cloned(),
        [word] => {
            let text = utf8(word)?;
            Some(text.parse().map_err(|reason: ListenError| fault("ADDRESS:PORT", text, &reason))?)
        }
        [_, more, ..] => {
            let given = more.to_string_lossy().into_owned();
            return Err(UsageError::UnexpectedArgument { given });
        }
    };
    let mut told = told.ok_or(UsageError::NoTarget)?;
    match &mut told {
        Listen::Tcp(SocketAddr::V4(at)) if at.ip().is_unspecified() => {
            at.set_ip(Ipv4Addr::LOCALHOST);
        }
        Listen::Tcp(SocketAddr::V6(at)) if at.ip().is_unspecified() => {
            at.set_ip(Ipv6Addr::LOCALHOST);
        }
        Listen::Tcp(_) | Listen::Unix(_) => {}
    }
    Ok(told)
}

fn utf8(word: &OsString) -> Result<&str, UsageError> {
    let lossy = || fault("argument", &word.to_string_lossy(), &"expected UTF-8");
    word.to_str().ok_or_else(lossy)
}

fn fault(source: &str, value: &str, reason: &dyn std::fmt::Display) -> UsageError {
    let (source, value) = (source.to_owned(), value.to_owned());
    UsageError::Value { source, value, reason: reason.to_string() }
}
