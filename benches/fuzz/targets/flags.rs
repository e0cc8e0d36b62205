//! Fuzzes command lines and environment variables: an error must be one line, and a valid
//! configuration must be within all bounds. The dictionary must have every flag.
#![no_main]

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use libfuzzer_sys::fuzz_target;
use openports::budget::Shares;
use openports::config::{self, Config, Invocation};
use openports::interfaces::Interfaces;
use openports::limits;
use openports::listen_address::Listen;

const DICTIONARY: &str = include_str!("../dict/flags");

fuzz_target!(|bytes: &[u8]| {
    // Each line is an argument, or a variable if it begins with `OPENPORTS_` and contains a `=`.
    let lines: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').collect();
    let (mut args, mut env) = (vec![OsString::from("openports")], BTreeMap::new());
    for line in lines {
        let equals = line.iter().position(|byte| *byte == b'=');
        match equals {
            Some(at) if line.starts_with(b"OPENPORTS_") => {
                env.insert(line[..at].to_vec(), OsStr::from_bytes(&line[at + 1..]).to_owned());
            }
            Some(_) | None => args.push(OsStr::from_bytes(line).to_owned()),
        }
    }
    match config::parse(args, |name| env.get(name.as_bytes()).cloned(), Interfaces::default) {
        Ok(Invocation::Serve(config, _)) => {
            assert!(!config.listen.is_empty());
            check_config(&config);
        }
        Ok(Invocation::Scan(config, request, _)) => {
            assert!(config.listen.is_empty() && !request.ports.is_empty());
            assert!(config.scan.shard.items(1_000) <= 1_000);
            assert!(config.scan.options.deadline <= limits::SCAN_TIME_MAX);
            check_config(&config);
        }
        Ok(Invocation::Healthcheck(Listen::Tcp(at))) => assert!(!at.ip().is_unspecified()),
        Ok(Invocation::Healthcheck(Listen::Unix(path))) => {
            assert!((1..=limits::UNIX_PATH_BYTES_MAX).contains(&path.as_os_str().len()));
        }
        Ok(Invocation::Help(text) | Invocation::Version(text)) => {
            assert!(text.ends_with('\n'));
            // `--help` lists one flag per line.
            for line in text.lines().filter_map(|line| line.strip_prefix("  --")) {
                let flag = line.split(|c: char| !c.is_ascii_lowercase() && c != '-').next();
                let word = format!("\"--{}=\"", flag.unwrap_or_default());
                assert!(DICTIONARY.contains(&word), "dict/flags does not have {word}");
            }
        }
        Err(error) => {
            let text = error.to_string();
            assert!(!text.is_empty() && !text.contains(['\n', '\r', '\x1b']), "{text:?}");
        }
    }
});

fn check_config(config: &Config) {
    let settings = &config.settings;
    assert!((limits::TIMEOUT_MIN..=limits::TIMEOUT_MAX).contains(&settings.timeout));
    assert!((limits::TIMEOUT_MIN..=limits::SCAN_TIME_MAX).contains(&settings.scan_time_max));
    assert!(settings.drain_delay <= limits::DRAIN_TIME_MAX);
    assert!(settings.drain_timeout <= limits::DRAIN_TIME_MAX);
    let counts = [settings.scans_max, settings.scans_per_client_max, settings.connections_max];
    for count in counts.into_iter().chain(settings.in_flight_max) {
        assert!((1..=limits::COUNT_MAX).contains(&count));
    }
    assert!(!config.resolv_conf.as_os_str().is_empty() && !config.hosts.as_os_str().is_empty());
    for limit in [0, 16, 64, 1024, 20_000, 1 << 20] {
        if let Ok(shares) = Shares::split(limit, 8, settings) {
            assert!(shares.total() + 8 <= limit && shares.connections > 0);
            assert!(shares.probes.iter().all(|it| *it > 0));
        }
    }
    let _ = config.exposure();
}
