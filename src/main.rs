//! The composition root: reads the configuration, builds the event loop and runs it. It contains no
//! logic.

mod shell;

use std::fs::File;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::ExitCode;
use std::time::SystemTime;

use openports::access::browser::HostGuard;
use openports::access::forwarded::Proxies;
use openports::access::token::BearerToken;
use openports::batch::options::Destination;
use openports::batch::{Batch, EXIT_UNPRINTED};
use openports::budget::{self, Shares};
use openports::config::origins::Origins;
use openports::config::scan::ScanArguments;
use openports::config::{self, Config, Invocation};
use openports::core::Core;
use openports::core::announcement::{Example, StartWarning};
use openports::core::options::Options;
use openports::event::RouteResult;
use openports::event_loop::EventLoop;
use openports::host::Family;
use openports::limits;
use openports::listen_address::Listen;
use openports::policy::{Exposure, Policy};
use openports::service_names::Names;
use openports::sys::linux::{FilePaths, Linux};
use openports::sys::listeners::Listener;
use openports::technique::{RAW_ADVICE, RawAccess, Technique};
use openports::{healthcheck, sys};

/// The command failed.
const EX_FAILED: u8 = 1;
/// sysexits.h: the command was used incorrectly.
const EX_USAGE: u8 = 64;
/// sysexits.h: the operating system refused a request.
const EX_OSERR: u8 = 71;

fn main() -> ExitCode {
    sys::set_process_1_signals();
    sys::capability::restrict_net_raw();
    let invocation =
        config::parse(std::env::args_os(), |name| std::env::var_os(name), sys::interfaces);
    match invocation {
        Ok(Invocation::Serve(config, origins)) => end(serve(*config, &origins), EX_OSERR),
        Ok(Invocation::Scan(mut config, arguments, origins)) => {
            if let Err(message) = shell::check_output(&config, &origins) {
                return end(Err(message), EX_USAGE);
            }
            match check_technique(config.scan.options.technique, &origins) {
                Ok(raw) => {
                    config.settings.raw = raw;
                    end(scan(*config, &arguments, &origins), EX_FAILED)
                }
                Err(message) => end(Err(message), EX_OSERR),
            }
        }
        Ok(Invocation::Healthcheck(service)) => end(check(&service), EX_FAILED),
        Ok(Invocation::Help(text) | Invocation::Version(text)) => end(print(&text), EXIT_UNPRINTED),
        Err(error) => end(Err(error.to_string()), EX_USAGE),
    }
}

/// The exit code of a command. On failure, one line is written to stderr and `failed` is returned.
/// A failure to write that line cannot be reported.
fn end(done: Result<u8, String>, failed: u8) -> ExitCode {
    let code = done.unwrap_or_else(|message| {
        let _ = writeln!(io::stderr(), "openports: {message}");
        failed
    });
    ExitCode::from(code)
}

/// Prints a text. `io::stdout` would report success if stdout is not open for writing.
fn print(text: &str) -> Result<u8, String> {
    let stdout = io::stdout().as_fd().try_clone_to_owned().map(File::from);
    match stdout.and_then(|mut stdout| stdout.write_all(text.as_bytes())) {
        // If the reader has closed the pipe, it needs no more output.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(format!("stdout: {error}")),
        _ => Ok(0),
    }
}

fn check(service: &Listen) -> Result<u8, String> {
    healthcheck::check(service).map(|()| 0).map_err(|reason| format!("{service}: {reason}"))
}

/// Checks whether this process may send raw packets, which some techniques require.
fn check_technique(technique: Technique, origins: &Origins) -> Result<RawAccess, String> {
    let option = format!("{} {}", origins.label("technique"), technique.label());
    match sys::raw::check_permitted() {
        Ok(()) => Ok(RawAccess::Permitted),
        Err(_) if !technique.properties().needs_raw_access => Ok(RawAccess::Denied),
        Err(error) if sys::raw::is_denied(&error) => {
            Err(format!("{option}: this process may not send raw packets ({error}): {RAW_ADVICE}"))
        }
        Err(error) => Err(format!("{option}: no raw socket can be opened ({error})")),
    }
}

/// Binds all listeners, then runs until the end of the shutdown.
fn serve(mut config: Config, origins: &Origins) -> Result<u8, String> {
    // This is the first step, so that an early signal is queued and does not kill the process.
    let signals = sys::Signals::new().map_err(|error| format!("signals: {error}"))?;
    config.settings.raw = check_technique(config.settings.technique, origins)?;
    let limit = prepare(&config, origins)?;
    let listeners = listeners(&config, origins)?;
    // The exposure of the service depends on the listeners that exist, not on those that were
    // requested.
    config.listen = listeners.iter().map(|listener| listener.at().clone()).collect();
    let bound = config.listen.clone();
    let files = files(&config);
    let exposure = config.exposure();
    let mut service = service(config, limit, exposure, origins)?;
    let example = Example { own_address: own_address(), token_file: files.token.clone() };
    service.announce(&bound, limit, example);
    warn(&mut service, &files);
    let event_loop = Linux::new(signals, files)
        .and_then(|kernel| EventLoop::new(kernel, listeners, service))
        .map_err(|error| format!("poller: {error}"))?;
    sys::process::notify_manager("READY=1");
    event_loop.run().map_err(|error| format!("poller: {error}"))
}

/// The address of this machine towards other machines (TEST-NET-1, and its counterpart in IPv6). No
/// packet is sent.
fn own_address() -> Option<IpAddr> {
    let others = [
        IpAddr::from(Ipv4Addr::new(192, 0, 2, 1)),
        IpAddr::from(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
    ];
    others.into_iter().find_map(|other| match sys::route((other, 9).into()) {
        RouteResult::From(own) => Some(own),
        RouteResult::Nowhere | RouteResult::Unknown => None,
    })
}

/// Warns of unknown variables, and of files that are not read as a whole.
fn warn(core: &mut Core, files: &FilePaths) {
    for unknown in config::unknown_variables(std::env::vars_os().map(|(name, _)| name)) {
        let (name, nearest) = (&*unknown.name, unknown.nearest.as_deref());
        core.warn(StartWarning::UnknownVariable { name, nearest });
    }
    for file in [&files.resolv_conf, &files.hosts] {
        let len = std::fs::metadata(file).map_or(0, |metadata| metadata.len());
        if len > limits::NAME_FILE_BYTES_MAX as u64 {
            core.warn(StartWarning::LongFile(file));
        }
    }
}

/// The listeners that the service manager passed, and those of `--listen`. The passed ones replace
/// those of the variable and of the default, but not those of the command line.
fn listeners(config: &Config, origins: &Origins) -> Result<Vec<Listener>, String> {
    let passed = sys::passed_listeners(|name| std::env::var_os(name));
    let mut listeners = passed.map_err(|error| error.to_string())?;
    if listeners.is_empty() || origins.is_given("listen") {
        let label = origins.label("listen");
        for at in &config.listen {
            let bound = Listener::bind(at).map_err(|error| format!("{label} {at}: {error}"))?;
            listeners.push(bound);
        }
    }
    Ok(listeners)
}

/// Scans every target, prints the results, and ends.
fn scan(mut config: Config, arguments: &ScanArguments, origins: &Origins) -> Result<u8, String> {
    let limit = prepare(&config, origins)?;
    apply_source(&mut config, &origins.label("source"))?;
    let interfaces = &config.settings.interfaces;
    let (targets, excluded) = shell::targets(&config.scan, arguments, interfaces, origins)?;
    let format = config.scan.format.unwrap_or_default();
    let output = config.scan.output.as_deref().filter(|path| path.as_os_str() != "-");
    let output = output.map(|path| shell::ResultFile::open(path, format, origins)).transpose()?;
    // The signals are taken over after stdin was read: until there is a result to print, a signal
    // simply ends the process.
    let signals = sys::Signals::new().map_err(|error| format!("signals: {error}"))?;
    let to = output.as_ref().map_or(Destination::Stdout, |_| Destination::File);
    let batch = Batch::new(shell::options(&config.scan, targets, to, SystemTime::now()));
    // A name that resolves to an excluded address must not be scanned either.
    config.deny.extend(excluded);
    // There are no clients, so the descriptors are available for probes and lookups.
    config.settings.connections_max = 1;
    config.settings.scans_max = batch.lookups_at_once();
    let files = files(&config);
    let mut service = service(config, limit, Exposure::NoListener, origins)?;
    warn(&mut service, &files);
    service.begin_batch(batch);
    let code = Linux::new(signals, files)
        .and_then(|kernel| EventLoop::new(kernel, Vec::new(), service))
        .and_then(EventLoop::run)
        .map_err(|error| format!("poller: {error}"));
    match output {
        Some(output) => output.close(code?),
        None => code.map(|code| if code == EXIT_UNPRINTED { EX_FAILED } else { code }),
    }
}

/// Determines the source addresses of connects. `label` names the flag or its variable.
fn apply_source(config: &mut Config, label: &str) -> Result<(), String> {
    let Some(source) = &config.scan.source else { return Ok(()) };
    let sources = shell::sources(source, label)?;
    let family = &mut config.scan.options.family;
    *family = match (sources.v4, sources.v6, *family) {
        (Some(_), None, Family::Any | Family::V4) => Family::V4,
        (None, Some(_), Family::Any | Family::V6) => Family::V6,
        (Some(_), Some(_), family) => family,
        (Some(_), None, Family::V6) => return Err(format!("{label} has no IPv6 address")),
        (None, Some(_), Family::V4) => return Err(format!("{label} has no IPv4 address")),
        (None, None, _) => return Err(format!("{label} has no address that a target can answer")),
    };
    config.settings.sources = sources;
    Ok(())
}

/// Checks the files that the configuration names before any listener is bound, and returns the
/// limit of descriptors.
fn prepare(config: &Config, origins: &Origins) -> Result<usize, String> {
    for (flag, file) in [("resolv-conf", &config.resolv_conf), ("hosts", &config.hosts)] {
        let failed = |error| format!("{} {file:?}: {error}", origins.label(flag));
        sys::files::check_readable(file).map_err(failed)?;
    }
    if let Some(file) = &config.token_file {
        token(file, origins)?;
    }
    sys::raise_descriptor_limit().map_err(|error| format!("limits: {error}"))
}

fn files(config: &Config) -> FilePaths {
    let Config { resolv_conf, hosts, token_file, .. } = config.clone();
    FilePaths { resolv_conf, hosts, token: token_file }
}

fn token(file: &Path, origins: &Origins) -> Result<BearerToken, String> {
    let label = origins.label("token-file");
    let failed = |error: &dyn std::fmt::Display| format!("{label} {file:?}: {error}");
    let text = sys::files::read_secret(file).map_err(|error| failed(&error))?;
    BearerToken::parse(&text).map_err(|error| failed(&error))
}

/// The core, with its share of `limit` descriptors.
fn service(
    mut config: Config,
    limit: usize,
    exposure: Exposure,
    origins: &Origins,
) -> Result<Box<Core>, String> {
    let seed = sys::random_seed().map_err(|error| format!("random seed: {error}"))?;
    let memory = sys::memory_limit();
    config.settings.memory_bytes = memory;
    config.settings.targets_max =
        memory.map_or(limits::TARGETS_AT_ONCE_MAX, budget::target_capacity);
    // The poller is one additional descriptor.
    let open = sys::open_descriptors() + 1;
    let shares = Shares::split(limit, open, &config.settings).map_err(|error| error.to_string())?;
    config.settings.interfaces = sys::interfaces();
    let services = sys::files::read_file(Path::new("/etc/services"), limits::NAME_FILE_BYTES_MAX);
    let options = Options {
        settings: config.settings,
        shares,
        policy: Policy { allow: config.allow, deny: config.deny, exposure },
        host_guard: HostGuard { exposure, names: config.host_names },
        token: config.token_file.map(|file| token(&file, origins)).transpose()?,
        proxies: Proxies(config.proxies),
        names: Names::parse(&services.unwrap_or_default()),
        log_level: config.log_level,
        log_format: config.log_format,
        seed,
    };
    Ok(Box::new(Core::new(options, SystemTime::now())))
}
