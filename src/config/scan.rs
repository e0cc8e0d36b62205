//! The flags of `openports scan`, and the arguments of `scan` and `healthcheck`.

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use crate::batch::options::{Format, Shown};
use crate::batch::shard::Shard;
use crate::config::origins::Origins;
use crate::config::usage_error::UsageError;
use crate::host::unbracketed;
use crate::interfaces::Interfaces;
use crate::listen_address::{Listen, ListenError};
use crate::port_set::PortSet;
use crate::scan::options::ScanOptions;
use crate::service_names;
use crate::target_spec::{Spec, is_port_list};

/// The flags of a scan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScanFlags {
    /// The file with the list of targets; `-` means stdin.
    pub targets: Option<PathBuf>,
    /// The ports of each target for which no others are given.
    pub ports: Option<PortSet>,
    /// Targets that are never scanned.
    pub exclude_targets: Vec<Spec>,
    /// A file with a list of such targets.
    pub exclude_targets_from: Option<PathBuf>,
    /// The NDJSON output of an earlier run, which this run continues.
    pub resume: Option<PathBuf>,
    /// The part of the targets and ports that this run scans.
    pub shard: Shard,
    /// Ports that are never scanned.
    pub exclude: PortSet,
    /// The options for the scan of each target.
    pub options: ScanOptions,
    /// The format of the output; `None` if no flag selects one.
    pub format: Option<Format>,
    /// The targets whose results are printed.
    pub shown: Shown,
    /// The file for the output; `None` means stdout.
    pub output: Option<PathBuf>,
    /// The source of outgoing connections.
    pub source: Option<SourceFlag>,
}

/// The source of outgoing connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceFlag {
    /// An address of this machine.
    Address(IpAddr),
    /// The addresses of an interface.
    Interface(String),
}

/// The maximum length in bytes of an interface's name (`IFNAMSIZ` of netdevice(7), without the
/// final NUL).
const INTERFACE_BYTES_MAX: usize = 15;

impl SourceFlag {
    /// Reads an address or the name of an interface. A v4-mapped address is its IPv4 address,
    /// because targets of this form are scanned at theirs.
    ///
    /// # Errors
    /// One sentence that says which values are expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        let bare = unbracketed(text);
        if let Ok(address) = bare.parse::<IpAddr>() {
            return Ok(Self::Address(address.to_canonical()));
        }
        if bare.split_once('%').is_some_and(|(address, _)| address.parse::<Ipv6Addr>().is_ok()) {
            return Err("expected an address without a zone, and not a link-local one".to_owned());
        }
        let is_name = !text.is_empty()
            && text.len() <= INTERFACE_BYTES_MAX
            && text.bytes().all(|byte| byte.is_ascii_graphic() && !b"/:".contains(&byte));
        if !is_name {
            return Err("expected an address of this machine or an interface".to_owned());
        }
        Ok(Self::Interface(text.to_owned()))
    }
}

impl Default for ScanFlags {
    fn default() -> Self {
        Self {
            targets: None,
            ports: None,
            exclude_targets: Vec::new(),
            exclude_targets_from: None,
            resume: None,
            shard: Shard::WHOLE,
            exclude: PortSet::new(),
            options: ScanOptions::default(),
            format: None,
            shown: Shown::All,
            output: None,
            source: None,
        }
    }
}

/// The targets and ports of a command-line scan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScanArguments {
    /// The targets of the command line, each as written and as parsed.
    pub targets: Vec<(String, Spec)>,
    /// A list of further targets.
    pub list: Option<ListSource>,
    /// The ports of each target that has none of its own.
    pub ports: PortSet,
}

/// The place of a list of targets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListSource {
    /// In a file.
    File(PathBuf),
    /// On stdin.
    Stdin,
}

/// Reads `TARGET... [PORTS]`. PORTS overrides the variable of `--ports`, and contradicts the flag.
///
/// # Errors
/// A [`UsageError`] that names the word. The name of a service in the place of PORTS is an error,
/// because it would be scanned as a host, and every port of the other targets too.
pub(super) fn parse(
    flags: &ScanFlags,
    words: &[OsString],
    interfaces: &Interfaces,
    origins: &Origins,
) -> Result<ScanArguments, UsageError> {
    let mut words = words.iter().map(utf8).collect::<Result<Vec<&str>, UsageError>>()?;
    // Before `--`, this word was a flag. Neither a name nor an address begins with a hyphen.
    let is_flag = |word: &&&str| word.len() > 1 && word.starts_with('-') && !is_port_list(word);
    if let Some(flag) = words.iter().find(is_flag) {
        return Err(fault(
            "TARGET",
            flag,
            &"a target does not begin with a hyphen, and flags stand before --",
        ));
    }
    // The last word is read as a list of ports if it can be nothing else and there is another
    // target.
    let has_targets = words.len() > 1 || flags.targets.is_some();
    let ports = words.pop_if(|word| has_targets && is_port_list(word));
    if ports.is_none() && has_targets && !origins.is_given("ports") {
        words.last().map_or(Ok(()), |word| check_service_name(word))?;
    }
    let ports = match (ports, &flags.ports) {
        (Some(text), Some(_)) if origins.is_given("ports") => {
            return Err(fault("PORTS", text, &"-p says which ports"));
        }
        (Some(text), _) => PortSet::parse(text).map_err(|error| fault("PORTS", text, &error))?,
        (None, Some(ports)) => ports.clone(),
        (None, None) => PortSet::from_range(1, u16::MAX),
    };
    if words.is_empty() && flags.targets.is_none() {
        return Err(UsageError::NoTarget);
    }
    let mut left = ports.clone();
    left.subtract(&flags.exclude);
    if left.is_empty() {
        let excluded = flags.exclude.display_ranges().to_string();
        return Err(fault(&origins.label("exclude"), &excluded, &"leaves no port to scan"));
    }
    let targets = words
        .into_iter()
        .map(|word| match Spec::parse_among(word, interfaces) {
            Ok(spec) => Ok((word.to_owned(), spec)),
            Err(error) => Err(fault("TARGET", word, &error)),
        })
        .collect::<Result<Vec<_>, UsageError>>()?;
    let list = flags.targets.as_ref().map(|path| match path.as_os_str() == "-" {
        true => ListSource::Stdin,
        false => ListSource::File(path.clone()),
    });
    Ok(ScanArguments { targets, list, ports })
}

/// Refuses the name of a service where ports are expected.
fn check_service_name(word: &str) -> Result<(), UsageError> {
    let is_port = |item| is_port_list(item) || service_names::built_in_port(item).is_some();
    if word.contains(',') && word.split(',').all(is_port) {
        return PortSet::parse(word).map(drop).map_err(|error| fault("PORTS", word, &error));
    }
    let Some(port) = service_names::built_in_port(word) else { return Ok(()) };
    let reason = format!(
        "the name of a service; to scan its port write {port}, to scan a host of this name write \
         it first"
    );
    Err(fault("PORTS", word, &reason))
}

/// The message for an empty list of ports.
const NO_PORTS: &str = "expected ports such as 22,80,8000-8100";

/// Reads the value of `-p`: a list of ports, or `-` for all ports.
pub(super) fn ports(text: &str) -> Result<PortSet, String> {
    match text {
        "" => Err(NO_PORTS.to_owned()),
        "-" => Ok(PortSet::from_range(1, u16::MAX)),
        _ => PortSet::parse(text).map_err(|error| error.to_string()),
    }
}

/// Reads the value of `--exclude`, which is a list of ports. In nmap, `--exclude` takes targets.
pub(super) fn excluded_ports(text: &str) -> Result<PortSet, String> {
    if text.is_empty() {
        return Err(NO_PORTS.to_owned());
    }
    PortSet::parse(text).map_err(|error| match Spec::parse(text) {
        Ok(_) => "ports are excluded here; for targets write --exclude-targets".to_owned(),
        Err(_) => error.to_string(),
    })
}

/// Reads `[ADDRESS:PORT]` or `[unix:PATH]`. The default is the first listener, addressed through
/// loopback.
pub(super) fn healthcheck_address(
    listen: &[Listen],
    words: &[OsString],
) -> Result<Listen, UsageError> {
    let address = match words {
        [] => listen.first().cloned(),
        [word] => {
            let text = utf8(word)?;
            Some(text.parse().map_err(|reason: ListenError| fault("ADDRESS:PORT", text, &reason))?)
        }
        [_, more, ..] => {
            let given = more.to_string_lossy().into_owned();
            return Err(UsageError::UnexpectedArgument { given, command: "healthcheck" });
        }
    };
    let mut address = address.ok_or(UsageError::NoTarget)?;
    match &mut address {
        Listen::Tcp(SocketAddr::V4(at)) if at.ip().is_unspecified() => {
            at.set_ip(Ipv4Addr::LOCALHOST);
        }
        Listen::Tcp(SocketAddr::V6(at)) if at.ip().is_unspecified() => {
            at.set_ip(Ipv6Addr::LOCALHOST);
        }
        Listen::Tcp(_) | Listen::Unix(_) => {}
    }
    Ok(address)
}

fn utf8(word: &OsString) -> Result<&str, UsageError> {
    let lossy = || fault("argument", &word.to_string_lossy(), &"expected UTF-8");
    word.to_str().ok_or_else(lossy)
}

fn fault(source: &str, value: &str, reason: &dyn std::fmt::Display) -> UsageError {
    let (source, value) = (source.to_owned(), Some(value.to_owned()));
    UsageError::Value { source, value, reason: reason.to_string() }
}
