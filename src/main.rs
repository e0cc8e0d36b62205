//! Composition root: reads the configuration, builds the server, runs it. No logic.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::SystemTime;

use openports::budget::{self, Shares};
use openports::config::{self, Config, Invocation, Listen};
use openports::policy::Policy;
use openports::policy::clients::HostGuard;
use openports::server::{NameFiles, Server};
use openports::service::{Options, Service};
use openports::sys;

/// sysexits.h: the command was used incorrectly.
const EX_USAGE: u8 = 64;
/// sysexits.h: the operating system would not have it.
const EX_OSERR: u8 = 71;

fn main() -> ExitCode {
    let invocation = config::parse(std::env::args_os(), |name| std::env::var_os(name));
    match invocation {
        Ok(Invocation::Serve(config)) => match serve(*config) {
            Ok(()) => ExitCode::SUCCESS,
            Err(failure) => fail(EX_OSERR, &failure),
        },
        Ok(Invocation::Help(text) | Invocation::Version(text)) => {
            // A reader that has gone has read enough.
            let _ = io::stdout().write_all(text.as_bytes());
            ExitCode::SUCCESS
        }
        Err(error) => fail(EX_USAGE, &error.to_string()),
    }
}

/// One line on stderr; nobody is left to tell if even that fails.
fn fail(code: u8, message: &str) -> ExitCode {
    let _ = writeln!(io::stderr(), "openports: {message}");
    ExitCode::from(code)
}

/// Binds everything, then runs until drained.
fn serve(mut config: Config) -> Result<(), String> {
    let failed = |what: &str, error: &dyn std::fmt::Display| format!("{what}: {error}");
    // First of all, so that a signal that comes early is kept, not fatal.
    let signals = sys::Signals::new().map_err(|error| failed("signals", &error))?;
    let limit = sys::raise_descriptor_limit().map_err(|error| failed("limits", &error))?;
    for (flag, file) in [("--resolv-conf", &config.resolv_conf), ("--hosts", &config.hosts)] {
        sys::check_readable(file)
            .map_err(|error| failed(&format!("{flag} {}", file.display()), &error))?;
    }
    let mut listeners = Vec::new();
    for listen in &config.listen {
        let Listen::Tcp(at) = listen;
        let listener =
            sys::listen(*at).map_err(|error| failed(&format!("--listen {at}"), &error))?;
        listeners.push(listener);
    }
    let bound = listeners.iter().filter_map(sys::local_address).collect::<Vec<_>>();
    let seed = sys::random_seed().map_err(|error| failed("random seed", &error))?;
    let fitting = sys::memory_limit().map(budget::in_flight_bearable);
    config.settings.in_flight_max = config.settings.in_flight_max.or(fitting);
    // The poller is one more.
    let open = sys::open_descriptors() + 1;
    let shares = Shares::split(limit, open, &config.settings).map_err(|error| error.to_string())?;
    let reach = config.reach();
    let options = Options {
        settings: config.settings,
        shares,
        policy: Policy { allow: config.allow, deny: config.deny, reach },
        host_guard: HostGuard { reach, names: config.host_names },
        log_level: config.log_level,
        log_format: config.log_format,
        seed,
    };
    let mut service = Service::new(options, SystemTime::now());
    service.announce(&bound, limit);
    let name_files = NameFiles { resolv_conf: config.resolv_conf, hosts: config.hosts };
    Server::new(listeners, signals, service, name_files)
        .and_then(Server::run)
        .map_err(|error| failed("poller", &error))
}
