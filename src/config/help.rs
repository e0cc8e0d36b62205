//! The commands, and the output of `--help` for each, generated from the table of flags in 80
//! columns.

use std::ffi::OsString;
use std::fmt::Write;

use crate::batch::options::Format;
use crate::config::flags::FLAGS;
use crate::config::usage_error::UsageError;

/// The task of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Subcommand {
    /// Run the service.
    Serve,
    /// Scan, print the results, and exit.
    Scan,
    /// Check the health of a running service.
    Healthcheck,
}

impl Subcommand {
    /// Every command with its name and a description of one line.
    pub(super) const ALL: [(&'static str, Self, &'static str); 3] = [
        ("serve", Self::Serve, "answer scans over HTTP; the default command"),
        ("scan", Self::Scan, "scan from the shell: TARGET... [PORTS], or --targets FILE"),
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

    /// The usage of the command, the text before the flags, and the text after the flags.
    const fn text(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::Serve => ("[serve] [FLAG]...", SERVE_HEAD, LISTS),
            Self::Scan => ("scan [FLAG]... TARGET... [PORTS]", SCAN_HEAD, SCAN_TAIL),
            Self::Healthcheck => ("healthcheck [FLAG]... [ADDRESS:PORT]", HEALTHCHECK_HEAD, ""),
        }
    }
}

/// A command that only prints a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReferencePage {
    /// The help of a command.
    Help,
    /// The completions of a shell.
    Completions,
    /// The manual page.
    Man,
    /// The notices of all linked crates.
    Licenses,
}

impl ReferencePage {
    /// Every such command with its name and a description of one line.
    pub(super) const ALL: [(&'static str, Self, &'static str); 4] = [
        ("help", Self::Help, "print this, or the help of a COMMAND"),
        ("completions", Self::Completions, "print the completions for bash, zsh or fish"),
        ("man", Self::Man, "print the manual: openports man | man -l -"),
        ("licenses", Self::Licenses, "print the licenses of the crates in this binary"),
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::Help => "help",
            Self::Completions => "completions",
            Self::Man => "man",
            Self::Licenses => "licenses",
        }
    }

    /// The arguments of the command.
    const fn usage(self) -> &'static str {
        match self {
            Self::Help => " [COMMAND]",
            Self::Completions => " bash|zsh|fish",
            Self::Man | Self::Licenses => "",
        }
    }

    /// The output of `--help` after the command.
    pub(super) fn help(self) -> String {
        let row = Self::ALL.iter().find(|(_, page, _)| *page == self);
        let about = row.map_or("", |(_, _, about)| about);
        format!("Usage: openports {}{}\n\n{about}\n", self.name(), self.usage())
    }

    /// The text that the command prints for these arguments.
    ///
    /// # Errors
    /// A [`UsageError`] that names the argument and the possible ones.
    pub(super) fn text(self, words: &[OsString]) -> Result<String, UsageError> {
        let words: Vec<String> =
            words.iter().map(|word| word.to_string_lossy().into_owned()).collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let fault = |given: &str, reason: String| UsageError::Value {
            source: self.name().to_owned(),
            value: Some(given.to_owned()),
            reason,
        };
        match (self, words.as_slice()) {
            (Self::Help, []) => Ok(help(Subcommand::Serve)),
            (Self::Help, [word]) => {
                let command = Subcommand::ALL.iter().find(|(name, ..)| name == word);
                let page = ReferencePage::ALL.iter().find(|(name, ..)| name == word);
                match (command, page) {
                    (Some((_, command, _)), _) => Ok(help(*command)),
                    (None, Some((_, page, _))) => Ok(page.help()),
                    (None, None) => {
                        let commands = Subcommand::ALL.map(|(name, ..)| name).join(", ");
                        let pages = ReferencePage::ALL.map(|(name, ..)| name).join(", ");
                        Err(fault(word, format!("expected one of {commands}, {pages}")))
                    }
                }
            }
            (Self::Completions, ["bash"]) => Ok(BASH.to_owned()),
            (Self::Completions, ["zsh"]) => Ok(ZSH.to_owned()),
            (Self::Completions, ["fish"]) => Ok(FISH.to_owned()),
            (Self::Completions, []) => Err(fault("", "expected bash, zsh or fish".to_owned())),
            (Self::Completions, [word]) => {
                Err(fault(word, "expected bash, zsh or fish".to_owned()))
            }
            (Self::Man, []) => Ok(MANUAL.to_owned()),
            (Self::Licenses, []) => Ok(LICENSES.to_owned()),
            (Self::Man | Self::Licenses, [word, ..])
            | (Self::Help | Self::Completions, [_, word, ..]) => {
                Err(fault(word, "unexpected argument".to_owned()))
            }
        }
    }
}

/// This file is generated from the table of flags; the test `pages` checks that it is current.
const BASH: &str = include_str!("../../docs/completions/openports.bash");
const ZSH: &str = include_str!("../../docs/completions/_openports");
const FISH: &str = include_str!("../../docs/completions/openports.fish");
const MANUAL: &str = include_str!("../../docs/openports.1");
/// This file is generated from the sources of the crates; the test `licenses` checks that it is
/// current.
const LICENSES: &str = include_str!("../../docs/licenses.txt");

const SERVE_HEAD: &str = "
  curl 'http://127.0.0.1:8080/open-ports?domain=localhost&toPort=65535'
";

const SCAN_HEAD: &str = "
TARGET is a name, an address, HOST:PORT, a network (10.0.0.0/24) or a range
(10.0.0.1-254, 10.0.0.1-10.0.1.9). PORTS, or -p PORTS, is a list such as
22,80,8000-8100,60000- or top:100 (default, and -p-: every port).

  openports scan localhost
  openports scan 192.0.2.7 10.0.0.0/24 22,80,443 --open
  openports scan --targets hosts.txt -p top:100 --format xml -o scan.xml

A list of targets has one on each line, then, if it has ports of its own, a
blank and these. What follows a # is skipped. Each target and port is scanned
once, however often it is listed.

  -p PORTS                  short for --ports PORTS; -p- is every port
  -o FILE                   short for --output FILE
  -4, -6                    short for --family 4, --family 6
";

const SCAN_TAIL: &str = "
Exit status: 0 all was scanned, 1 something was not, 64 wrong usage,
71 --technique syn without CAP_NET_RAW.
NO_COLOR turns colours off.
";

const HEALTHCHECK_HEAD: &str = "
Requests GET /healthz from an address or unix:PATH, or from the
first of --listen if none is given.
";

const LISTS: &str = "
A variable holds several values where the flag is repeatable:
10.0.0.0/8,192.0.2.7
";

/// The output of `--help`.
pub(super) fn help(command: Subcommand) -> String {
    let mut text = String::new();
    let lines = write_help(&mut text, command);
    assert!(lines.is_ok(), "writing to a string never fails");
    text
}

fn write_help(text: &mut String, command: Subcommand) -> std::fmt::Result {
    let (usage, head, tail) = command.text();
    writeln!(text, "openports finds a host's open TCP ports.\n\nUsage: openports {usage}")?;
    text.push_str(head);
    if command == Subcommand::Serve {
        writeln!(text, "\nCommands, each with a --help of its own:")?;
        for (name, _, about) in Subcommand::ALL {
            writeln!(text, "  {name:12} {about}")?;
        }
        for (name, _, about) in ReferencePage::ALL {
            writeln!(text, "  {name:12} {about}")?;
        }
    }
    writeln!(text, "\nFlags, and the variables with the same effect:")?;
    let flags = || FLAGS.iter().filter(|flag| flag.commands.contains(&command));
    for flag in flags() {
        let usage = format!("--{} {}", flag.name, flag.metavar);
        writeln!(text, "  {usage:25} {}", flag.help)?;
        writeln!(text, "{:28}{}, default {}", "", flag.variable(), flag.default.text())?;
    }
    writeln!(text, "  {:25} print this", "-h, --help")?;
    writeln!(text, "  {:25} print the version", "-V, --version")?;
    if command == Subcommand::Scan {
        writeln!(text, "\nFORMAT is one of:")?;
        for (name, _, about) in Format::ALL {
            writeln!(text, "  {name:12} {about}")?;
        }
    }
    if flags().any(|flag| flag.metavar == "DURATION") {
        writeln!(text, "\nA DURATION is a number and its unit: 250ms, 2s, 1.5s, 5m.")?;
    }
    text.push_str(tail);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_help_fits_80_columns_and_names_its_flags_with_their_variables_and_no_others() {
        for (name, command, _) in Subcommand::ALL {
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
    fn only_the_help_of_a_command_with_durations_explains_them() {
        for (name, command, _) in Subcommand::ALL {
            let help = help(command);
            let is_used =
                help.lines().any(|line| line.starts_with("  --") && line.contains(" DURATION "));
            assert_eq!(help.contains("\nA DURATION is "), is_used, "{name}");
        }
    }

    #[test]
    fn the_help_of_a_scan_names_every_exit_status() {
        let help = help(Subcommand::Scan);
        let (_, status) = help.split_once("\nExit status: ").expect("a list");
        for code in ["0 ", " 1 ", " 64 ", "\n71 "] {
            assert!(status.contains(code), "{code:?} {status}");
        }
    }

    #[test]
    fn the_help_of_the_service_names_every_command() {
        for (name, _, about) in Subcommand::ALL {
            assert!(help(Subcommand::Serve).contains(&format!("  {name:12} {about}\n")), "{name}");
        }
    }

    #[test]
    fn the_help_of_a_reference_page_has_its_usage_and_its_description() {
        for (name, page, about) in ReferencePage::ALL {
            let help = page.help();
            assert!(help.starts_with(&format!("Usage: openports {name}")), "{help}");
            assert!(help.ends_with(&format!("\n\n{about}\n")), "{help}");
            assert_eq!(Ok(help), ReferencePage::Help.text(&[name.into()]), "help {name}");
        }
    }
}
