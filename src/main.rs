//! Composition root: reads the configuration, builds the server, runs it. No logic.

use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::SystemTime;

use openports::batch::Batch;
use openports::batch::options::{self, ProgressLine};
use openports::batch::table::Colour;
use openports::batch::targets::Targets;
use openports::budget::{self, Shares};
use openports::config::scan::{Asked, ScanFlags, Source};
use openports::config::{self, Config, Invocation, ListenFlag};
use openports::event::listen::Listen;
use openports::limits;
use openports::names::Names;
use openports::policy::Policy;
use openports::policy::clients::HostGuard;
use openports::policy::forwarded::Proxies;
use openports::policy::token::Token;
use openports::server::{Files, Server};
use openports::service::{Options, Service};
use openports::sys::listeners::Listener;
use openports::{healthcheck, sys};

/// What was asked for could not be done.
const EX_FAILED: u8 = 1;
/// sysexits.h: the command was used incorrectly.
const EX_USAGE: u8 = 64;
/// sysexits.h: the operating system would not have it.
const EX_OSERR: u8 = 71;

fn main() -> ExitCode {
    sys::stand_as_process_1();
    let invocation = config::parse(std::env::args_os(), |name| std::env::var_os(name));
    match invocation {
        Ok(Invocation::Serve(config, flag)) => end(serve(*config, flag), EX_OSERR),
        Ok(Invocation::Scan(config, asked)) => end(scan(*config, &asked), EX_FAILED),
        Ok(Invocation::Healthcheck(service)) => end(check(&service), EX_FAILED),
        Ok(Invocation::Help(text) | Invocation::Version(text)) => {
            // A reader that has gone has read enough.
            let _ = io::stdout().write_all(text.as_bytes());
            ExitCode::SUCCESS
        }
        Err(error) => end(Err(error.to_string()), EX_USAGE),
    }
}

/// The code of what was done; for a failure this one, after one line on stderr. Nobody is left to
/// tell if even that fails.
fn end(done: Result<u8, String>, failed: u8) -> ExitCode {
    let code = done.unwrap_or_else(|message| {
        let _ = writeln!(io::stderr(), "openports: {message}");
        failed
    });
    ExitCode::from(code)
}

fn check(service: &Listen) -> Result<u8, String> {
    healthcheck::ask(service).map(|()| 0).map_err(|unwell| format!("{service}: {unwell}"))
}

/// Binds everything, then runs until drained.
fn serve(mut config: Config, flag: ListenFlag) -> Result<u8, String> {
    // First of all, so that a signal that comes early is kept, not fatal.
    let signals = sys::Signals::new().map_err(|error| format!("signals: {error}"))?;
    let limit = prepare(&config)?;
    let listeners = listeners(&config, flag)?;
    // Who can reach the service is a matter of what there is, not of what was asked for.
    config.listen = listeners.iter().map(|listener| listener.at().clone()).collect();
    let bound = config.listen.clone();
    let files = files(&config);
    let mut service = service(config, limit)?;
    service.announce(&bound, limit);
    Server::new(listeners, signals, service, files)
        .and_then(Server::run)
        .map_err(|error| format!("poller: {error}"))
}

/// What was passed; and what `--listen` says, unless that was passed instead.
fn listeners(config: &Config, flag: ListenFlag) -> Result<Vec<Listener>, String> {
    let passed = sys::passed_listeners(|name| std::env::var_os(name));
    let mut listeners = passed.map_err(|error| error.to_string())?;
    if listeners.is_empty() || flag == ListenFlag::Given {
        for at in &config.listen {
            let bound = Listener::bind(at).map_err(|error| format!("--listen {at}: {error}"))?;
            listeners.push(bound);
        }
    }
    Ok(listeners)
}

/// Scans every target, prints, and ends.
fn scan(mut config: Config, asked: &Asked) -> Result<u8, String> {
    let limit = prepare(&config)?;
    let targets = targets(&config.scan, asked)?;
    // Not before stdin was read: until there is something to print, a signal just ends it.
    let signals = sys::Signals::new().map_err(|error| format!("signals: {error}"))?;
    let (stdout, stderr) = (io::stdout().is_terminal(), io::stderr().is_terminal());
    // https://no-color.org: set and not empty.
    let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let batch = Batch::new(options::Options {
        targets,
        manner: config.scan.manner.clone(),
        shard: config.scan.shard,
        format: config.scan.format,
        colour: if stdout && !no_colour { Colour::Ansi } else { Colour::Plain },
        progress: if stderr { ProgressLine::Shown } else { ProgressLine::Hidden },
    });
    // No clients: the descriptors are for probes and lookups.
    config.settings.connections_max = 1;
    config.settings.scans_max = batch.targets_at_once();
    let files = files(&config);
    let mut service = service(config, limit)?;
    service.begin_batch(batch);
    Server::new(Vec::new(), signals, service, files)
        .and_then(Server::run)
        .map_err(|error| format!("poller: {error}"))
}

fn targets(flags: &ScanFlags, asked: &Asked) -> Result<Targets, String> {
    let mut targets = Targets::new(asked.ports.clone(), flags.exclude.clone());
    match &asked.source {
        Source::One { domain, host } => {
            targets.add(domain, host.clone())?;
        }
        Source::List(path) => {
            let failed = |error: io::Error| format!("--targets {}: {error}", path.display());
            let list = std::fs::File::open(path).and_then(sys::read_list).map_err(failed)?;
            targets.add_lines(&list);
        }
        Source::Stdin => {
            let list = sys::read_list(io::stdin());
            targets.add_lines(&list.map_err(|error| format!("--targets -: {error}"))?);
        }
    }
    Ok(targets)
}

/// Looks at what the configuration names, before anything is bound; returns how many descriptors
/// there may be.
fn prepare(config: &Config) -> Result<usize, String> {
    for (flag, file) in [("--resolv-conf", &config.resolv_conf), ("--hosts", &config.hosts)] {
        sys::check_readable(file).map_err(|error| format!("{flag} {}: {error}", file.display()))?;
    }
    if let Some(file) = &config.token_file {
        token(file)?;
    }
    sys::raise_descriptor_limit().map_err(|error| format!("limits: {error}"))
}

fn files(config: &Config) -> Files {
    let Config { resolv_conf, hosts, token_file, .. } = config.clone();
    Files { resolv_conf, hosts, token: token_file }
}

fn token(file: &Path) -> Result<Token, String> {
    let failed =
        |error: &dyn std::fmt::Display| format!("--token-file {}: {error}", file.display());
    let text = sys::read_secret(file).map_err(|error| failed(&error))?;
    Token::parse(&text).map_err(|error| failed(&error))
}

/// The core, with its share of so many descriptors.
fn service(mut config: Config, limit: usize) -> Result<Service, String> {
    let seed = sys::random_seed().map_err(|error| format!("random seed: {error}"))?;
    let fitting = sys::memory_limit().map(budget::in_flight_bearable);
    config.settings.in_flight_max = config.settings.in_flight_max.or(fitting);
    // The poller is one more.
    let open = sys::open_descriptors() + 1;
    let shares = Shares::split(limit, open, &config.settings).map_err(|error| error.to_string())?;
    let services = sys::read_file(Path::new("/etc/services"), limits::NAME_FILE_BYTES_MAX);
    let reach = config.reach();
    let options = Options {
        settings: config.settings,
        shares,
        policy: Policy { allow: config.allow, deny: config.deny, reach },
        host_guard: HostGuard { reach, names: config.host_names },
        token: config.token_file.as_deref().map(token).transpose()?,
        proxies: Proxies(config.proxies),
        names: Names::parse(&services.unwrap_or_default()),
        log_level: config.log_level,
        log_format: config.log_format,
        seed,
    };
    Ok(Service::new(options, SystemTime::now()))
}
