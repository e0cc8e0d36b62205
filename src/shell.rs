//! The file operations of a command-line run, called by `main`.
//!
//! This module reads lists of targets and the output of an earlier run, opens the file for the
//! results, and finds the addresses of `--source`. It decides nothing about the scan.

use std::io::{self, IsTerminal, Read, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use openports::batch::list::{Labels, TargetList};
use openports::batch::options::{self, Destination, Format, ProgressLine};
use openports::batch::printer::RunInfo;
use openports::batch::table::Colour;
use openports::batch::targets::Targets;
use openports::batch::{EXIT_UNPRINTED, resume, xml};
use openports::cidr::Cidr;
use openports::config::Config;
use openports::config::origins::Origins;
use openports::config::scan::{ListSource, ScanArguments, ScanFlags, SourceFlag};
use openports::interfaces::Interfaces;
use openports::limits::{self, Sources};
use openports::spelling::quote;
use openports::sys;
use openports::sys::lists::{open_list, read_lines};
use openports::sys::output::OutputFile;
use openports::target_spec::Spec;

/// The targets of the command line and of the lists, and the networks to which no name may resolve.
pub(crate) fn targets(
    flags: &ScanFlags,
    arguments: &ScanArguments,
    interfaces: &Interfaces,
    origins: &Origins,
) -> Result<(Targets, Vec<Cidr>), String> {
    let mut list = TargetList::new(arguments.ports.clone(), flags.exclude.clone())
        .with_interfaces(interfaces.clone())
        .with_labels(labels(flags, origins));
    for (text, spec) in &arguments.targets {
        list.add(text, spec);
    }
    let label = origins.label("targets");
    match &arguments.list {
        Some(ListSource::File(path)) => {
            let failed = |error| format!("{label} {path:?}: {error}");
            let file = open(path, &label).map_err(failed)?;
            read_lines(file, |line| list.add_line(line)).map_err(failed)?;
        }
        Some(ListSource::Stdin) => {
            read_lines(io::stdin(), |line| list.add_line(line))
                .map_err(|error| format!("{label} -: {error}"))?;
        }
        None => {}
    }
    flags.exclude_targets.iter().for_each(|spec| list.exclude(spec));
    if let Some(path) = &flags.exclude_targets_from {
        exclude_from(&mut list, path, interfaces, &origins.label("exclude-targets-from"))?;
    }
    let mut earlier_total = None;
    if let Some(path) = &flags.resume {
        let label = origins.label("resume");
        let failed = |error: &dyn std::fmt::Display| format!("{label} {path:?}: {error}");
        let mut text = Vec::new();
        let file = open(path, &label).map_err(|error| failed(&error))?;
        let most = limits::RESUME_BYTES_MAX;
        file.take(most + 1).read_to_end(&mut text).map_err(|error| failed(&error))?;
        if text.len() as u64 > most {
            return Err(failed(&format_args!("is longer than {most} bytes")));
        }
        earlier_total = resume::mark_finished(&mut list, flags.shard, &flags.options, &text)
            .map_err(|error| failed(&error))?;
    }
    let excluded = list.excluded_ranges().flat_map(|range| Cidr::covering(range.first, range.last));
    let excluded = excluded.collect();
    let (targets, label) = (list.finish()?, origins.label("resume"));
    match earlier_total.filter(|total| *total != targets.ports_len()) {
        None => Ok((targets, excluded)),
        Some(total) => Err(format!(
            "{label}: the shards of the earlier run had {total} ports in all, and these have {}: \
             give the same targets, ports and exclusions",
            targets.ports_len()
        )),
    }
}

/// Refuses an output file that is also an input: it would be replaced, and its contents be lost.
/// The paths may differ, so the files are compared.
///
/// # Errors
/// A sentence that names both flags.
pub(crate) fn check_output(config: &Config, origins: &Origins) -> Result<(), String> {
    let flags = &config.scan;
    let Some(output) = &flags.output else { return Ok(()) };
    let inputs = [
        ("resume", flags.resume.as_ref()),
        ("targets", flags.targets.as_ref()),
        ("exclude-targets-from", flags.exclude_targets_from.as_ref()),
        ("resolv-conf", Some(&config.resolv_conf)),
        ("hosts", Some(&config.hosts)),
    ];
    for (flag, path) in inputs {
        let Some(input) = path else { continue };
        let is_stdin = flag == "targets" && input.as_os_str() == "-";
        let file = if is_stdin { Path::new("/dev/stdin") } else { input };
        if sys::output::is_same_file(file, output) {
            let (label, output) = (origins.label(flag), origins.label_or("output", "-o"));
            return Err(format!(
                "{label} {input:?}: is the file of {output} too, which would replace it; name \
                 another for {output}"
            ));
        }
    }
    Ok(())
}

/// How messages name the flags of the list: by the flag, or by the variable that the value is from.
fn labels(flags: &ScanFlags, origins: &Origins) -> Labels {
    let excluding =
        if flags.exclude_targets.is_empty() { "exclude-targets-from" } else { "exclude-targets" };
    Labels {
        targets: origins.label("targets"),
        exclude: origins.label("exclude"),
        exclude_targets: origins.label(excluding),
    }
}

fn open(path: &Path, flag: &str) -> io::Result<Box<dyn Read>> {
    if path.as_os_str() == "-" {
        let message = "only --targets reads standard input by this name; write /dev/stdin";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
    }
    open_list(path, || report_wait(path, flag, "writer"))
}

/// Reports on stderr that opening a FIFO waits for another process.
fn report_wait(path: &Path, flag: &str, other: &str) {
    let _ = writeln!(io::stderr(), "openports: {flag} {path:?}: is a FIFO, waiting for a {other}");
}

/// Reads a list of targets that must not be scanned. Unlike an invalid target, an invalid exclusion
/// stops the scan, because the excluded target would be scanned.
fn exclude_from(
    list: &mut TargetList,
    path: &Path,
    interfaces: &Interfaces,
    label: &str,
) -> Result<(), String> {
    let failed = |reason: &dyn std::fmt::Display| format!("{label} {path:?}: {reason}");
    let file = open(path, label).map_err(|error| failed(&error))?;
    let (mut number, mut fault) = (0, None);
    read_lines(file, |line| {
        number += 1;
        let line =
            if number == 1 { line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line) } else { line };
        let entry = line.split(|byte| *byte == b'#').next().unwrap_or_default();
        let text = String::from_utf8_lossy(entry);
        for word in text.split_ascii_whitespace() {
            match Spec::parse_excluded(word, interfaces) {
                Ok(spec) => list.exclude(&spec),
                Err(reason) => {
                    fault
                        .get_or_insert_with(|| format!("line {number}: {}: {reason}", quote(word)));
                }
            }
        }
    })
    .map_err(|error| failed(&error))?;
    fault.map_or(Ok(()), |fault| Err(failed(&fault)))
}

/// The options of the batch.
pub(crate) fn options(
    flags: &ScanFlags,
    targets: Targets,
    output: Destination,
    now: SystemTime,
) -> options::BatchOptions {
    let (stdout, stderr) = (io::stdout().is_terminal(), io::stderr().is_terminal());
    // https://no-color.org: the variable is set and not empty.
    let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let started = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let args: Vec<String> =
        std::env::args_os().skip(1).map(|arg| arg.to_string_lossy().into_owned()).collect();
    options::BatchOptions {
        targets,
        scan: flags.options,
        shard: flags.shard,
        format: flags.format.unwrap_or_default(),
        shown: flags.shown,
        colour: if stdout && !no_colour { Colour::Ansi } else { Colour::Plain },
        progress: match stderr {
            true => ProgressLine::Shown { columns: sys::terminal::columns() },
            false => ProgressLine::Hidden,
        },
        output: match stdout && output == Destination::Stdout {
            true => Destination::Terminal,
            false => output,
        },
        run: RunInfo {
            started,
            args: format!("openports {}", args.join(" ")),
            technique: flags.options.technique,
        },
    }
}

/// The file for the results.
pub(crate) struct ResultFile {
    path: PathBuf,
    /// `-o`, or the name of its variable.
    label: String,
    file: OutputFile,
    /// The text with which the file ends if it is complete.
    tail: &'static str,
}

impl ResultFile {
    /// Opens the file and lets it replace stdout.
    pub(crate) fn open(path: &Path, format: Format, origins: &Origins) -> Result<Self, String> {
        let label = origins.label_or("output", "-o");
        let failed = |error: io::Error| format!("{label} {path:?}: {error}");
        let file =
            OutputFile::create(path, || report_wait(path, &label, "reader")).map_err(failed)?;
        file.redirect_stdout().map_err(failed)?;
        let tail = if format == Format::Xml { xml::TAIL } else { "" };
        Ok(Self { path: path.to_owned(), label, file, tail })
    }

    /// Replaces the existing file with the results, or reports why not. Returns the exit code.
    pub(crate) fn close(self, code: u8) -> Result<u8, String> {
        let (label, path) = (self.label, self.path);
        if code == EXIT_UNPRINTED {
            let unchanged = if self.file.is_replaced() { "; nothing was changed" } else { "" };
            let reason = self.file.discard().map_or_else(String::new, |error| format!(": {error}"));
            return Err(format!("{label} {path:?}: could not be written{reason}{unchanged}"));
        }
        match self.file.commit(self.tail) {
            Ok(()) => Ok(code),
            Err(error) => Err(format!("{label} {path:?}: {error}")),
        }
    }
}

/// Refuses addresses that bind(2) accepts and that no packet can have as its source (RFC 1122
/// section 3.2.1.3, RFC 4291 section 2.7). Link-local IPv6 addresses are refused too, because few
/// targets can answer them.
fn check_unicast(address: IpAddr, label: &str) -> Result<(), String> {
    let kind = match address {
        _ if address.is_unspecified() => "the unspecified address",
        _ if address.is_multicast() => "a multicast address",
        IpAddr::V4(v4) if v4.is_broadcast() => "the broadcast address",
        IpAddr::V6(v6) if v6.is_unicast_link_local() => "a link-local address",
        IpAddr::V4(_) | IpAddr::V6(_) => return Ok(()),
    };
    Err(format!("{label} {address}: is {kind}, which cannot be a source"))
}

/// The addresses of `--source`, which messages name by `label`.
pub(crate) fn sources(flag: &SourceFlag, label: &str) -> Result<Sources, String> {
    let addresses = match flag {
        SourceFlag::Address(address) => {
            check_unicast(*address, label)?;
            sys::interfaces::check_local(*address).map_err(|error| {
                format!("{label} {address}: is no address of this machine ({error})")
            })?;
            vec![*address]
        }
        SourceFlag::Interface(name) => {
            let found = sys::interfaces::addresses(name);
            let found = found.map_err(|error| format!("{label} {name}: {error}"))?;
            found.ok_or_else(|| format!("{label} {name}: there is no such interface"))?
        }
    };
    Ok(Sources {
        v4: addresses.iter().copied().find(IpAddr::is_ipv4),
        v6: addresses.iter().copied().find(IpAddr::is_ipv6),
    })
}
