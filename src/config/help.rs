//! The commands, and what `--help` prints for each from the table of flags; in 80 columns.

use std::fmt::Write;

use crate::config::flags::{FLAGS, Preset};

/// What the process is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Command {
    /// Run the service.
    Serve,
    /// Scan, print, and exit.
    Scan,
    /// Ask a running service whether it is well.
    Healthcheck,
}

impl Command {
    /// Every command by its name, with one line about it.
    pub(super) const ALL: [(&'static str, Self, &'static str); 3] = [
        ("serve", Self::Serve, "answer scans over HTTP; this is what no command means"),
        ("scan", Self::Scan, "scan from the shell: DOMAIN [PORTS], or --targets FILE [PORTS]"),
        ("healthcheck", Self::Healthcheck, "exit 0 if the service at ADDRESS:PORT is well, else 1"),
    ];

    /// The command's name.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Serve => "serve",
            Self::Scan => "scan",
            Self::Healthcheck => "healthcheck",
        }
    }

    /// The command's usage, the lines between it and the flags, and what follows the flags.
    const fn text(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::Serve => ("[serve] [FLAG]...", SERVE_HEAD, LISTS),
            Self::Scan => ("scan [FLAG]... DOMAIN [PORTS]", SCAN_HEAD, SCAN_TAIL),
            Self::Healthcheck => ("healthcheck [FLAG]... [ADDRESS:PORT]", HEALTHCHECK_HEAD, ""),
        }
    }
}

const SERVE_HEAD: &str = "
  curl 'http://127.0.0.1:8080/open-ports?domain=localhost&toPort=65535'
";

const SCAN_HEAD: &str = "
PORTS is a list such as 22,80,8000-8100,60000- (default: every port).

  openports scan localhost
  openports scan --json example.com 1-1024
  openports scan --targets hosts.txt --shard 2/3 22,80,443

A list of targets has one on each line: a name or an address, then, if it has
ports of its own, a blank and these. What follows a # is skipped.
";

const SCAN_TAIL: &str = "
Exit status: 0 all was scanned, 1 something was not, 64 wrong usage.
NO_COLOR turns colours off.
";

const HEALTHCHECK_HEAD: &str = "
Asks GET /healthz; without an address (or unix:PATH), of the
first that --listen names.
";

const LISTS: &str = "
A variable holds several values where the flag is repeatable:
10.0.0.0/8,192.0.2.7
";

/// What `--help` prints.
pub(super) fn help(command: Command) -> String {
    let mut text = String::new();
    let lines = write_help(&mut text, command);
    assert!(lines.is_ok(), "a string takes whatever is written");
    text
}

fn write_help(text: &mut String, command: Command) -> std::fmt::Result {
    let (usage, head, tail) = command.text();
    writeln!(text, "openports finds a host's open TCP ports.\n\nUsage: openports {usage}")?;
    text.push_str(head);
    if command == Command::Serve {
        writeln!(text, "\nCommands, each with a --help of its own:")?;
        for (name, _, about) in Command::ALL {
            writeln!(text, "  {name:12} {about}")?;
        }
    }
    writeln!(text, "\nFlags, and the variables that hold where a flag is not given:")?;
    for flag in FLAGS.iter().filter(|flag| flag.commands.contains(&command)) {
        let usage = format!("--{} {}", flag.name, flag.metavar);
        let (Preset::Value(preset) | Preset::Unset(preset)) = flag.preset;
        writeln!(text, "  {usage:25} {}", flag.help)?;
        writeln!(text, "{:28}{}, default {preset}", "", flag.variable())?;
    }
    writeln!(text, "  {:25} print this", "-h, --help")?;
    writeln!(text, "  {:25} print the version", "-V, --version")?;
    writeln!(text, "\nA DURATION is a number and its unit: 250ms, 2s, 1.5s, 5m.")?;
    text.push_str(tail);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_help_fits_80_columns_and_names_its_flags_with_their_variables_and_no_others() {
        for (name, command, _) in Command::ALL {
            let help = help(command);
            let mut usages = help.lines().filter(|line| line.starts_with("Usage: openports "));
            assert!(usages.next().is_some_and(|usage| usage.contains(name)), "{help}");
            for line in help.lines() {
                assert!(line.len() <= 80, "{} columns: {line}", line.len());
                assert!(line.is_ascii() && !line.ends_with(' '), "{line}");
            }
            for flag in &FLAGS {
                let is_ours = flag.commands.contains(&command);
                let usage = format!("  --{} {}", flag.name, flag.metavar);
                if is_ours {
                    assert!(help.contains(&usage), "{name} --{}", flag.name);
                    assert!(help.contains(&format!(" {}, default ", flag.variable())), "{usage}");
                }
                let others = FLAGS.iter().filter(|other| other.name == flag.name);
                let is_shared = others.flat_map(|other| other.commands).any(|it| *it == command);
                assert_eq!(help.contains(&format!("  --{} ", flag.name)), is_shared, "{usage}");
            }
            assert!(help.ends_with('\n'));
        }
    }

    #[test]
    fn the_help_of_the_service_names_every_command() {
        for (name, _, about) in Command::ALL {
            assert!(help(Command::Serve).contains(&format!("  {name:12} {about}\n")), "{name}");
        }
    }
}
