//! The definition of a flag: its name, its value, its variable, and its one-letter form.

use crate::config::Config;
use crate::config::help::Subcommand;

/// One flag.
pub(super) struct Flag {
    /// The name without its dashes. The name of the variable is derived from it.
    pub(super) name: &'static str,
    /// The placeholder of the value in the help; empty for a switch.
    pub(super) metavar: &'static str,
    /// The value that applies if neither the flag nor the variable is given.
    pub(super) default: FlagDefault,
    /// How often the flag may be given.
    pub(super) arity: Arity,
    /// The commands that accept the flag. Two commands may have different flags of one name, and
    /// each command accepts only its own.
    pub(super) commands: &'static [Subcommand],
    /// The text of the help, one line.
    pub(super) help: &'static str,
    /// Parses and stores one value.
    pub(super) read: ReadFlag,
}

/// Parses one value of a flag and stores it. The error says which values are expected.
pub(super) type ReadFlag = fn(&mut Config, &str) -> Result<(), String>;

/// The value that applies if neither the flag nor the variable is given.
#[derive(Clone, Copy)]
pub(super) enum FlagDefault {
    /// This value, as if it had been given.
    Value(&'static str),
    /// The initial value of the configuration, which this function writes as text.
    Held(fn(&Config) -> String),
    /// No value. The help contains this text instead.
    Unset(&'static str),
}

impl FlagDefault {
    /// The default as the help shows it.
    pub(super) fn text(self) -> String {
        match self {
            Self::Value(text) | Self::Unset(text) => text.to_owned(),
            Self::Held(text) => text(&Config::default()),
        }
    }
}

/// How often a flag may be given.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Arity {
    /// Once.
    Once,
    /// Any number of times. One value may hold several items, separated by commas.
    List,
    /// Once, and without a value. Its variable is `true` or `false`.
    Switch,
}

/// A one-letter flag: the long flag that it stands for, and the value that it implies if it takes
/// no value.
pub(super) struct Short {
    pub(super) letter: char,
    pub(super) name: &'static str,
    pub(super) value: Option<&'static str>,
}

/// Every one-letter flag except `-h` and `-V`.
pub(super) const SHORTS: [Short; 4] = [
    Short { letter: 'p', name: "ports", value: None },
    Short { letter: 'o', name: "output", value: None },
    Short { letter: '4', name: "family", value: Some("4") },
    Short { letter: '6', name: "family", value: Some("6") },
];

impl Flag {
    /// A row of the table. `usage` is the name and, if the flag takes a value, its placeholder.
    pub(super) const fn row(
        commands: &'static [Subcommand],
        usage: &'static str,
        default: FlagDefault,
        help: &'static str,
        read: ReadFlag,
    ) -> Self {
        let (bytes, mut name_len) = (usage.as_bytes(), 0);
        while name_len < bytes.len() && bytes[name_len] != b' ' {
            name_len += 1;
        }
        let (name, metavar) = usage.split_at(name_len);
        let arity = if metavar.is_empty() { Arity::Switch } else { Arity::Once };
        let metavar = if metavar.is_empty() { metavar } else { metavar.split_at(1).1 };
        Self { name, metavar, default, arity, commands, help, read }
    }

    /// The same flag, accepting any number of values.
    pub(super) const fn list(self) -> Self {
        Self { arity: Arity::List, ..self }
    }

    /// `OPENPORTS_MAX_SCANS` for `--max-scans`. No variable may have a suffix that Kubernetes uses
    /// for a Service called "openports" (`OPENPORTS_SERVICE_HOST`, `OPENPORTS_PORT`,
    /// `OPENPORTS_PORT_8080_TCP`, …), because Kubernetes sets those variables in every container.
    pub(super) fn variable(&self) -> String {
        format!("OPENPORTS_{}", self.name.to_ascii_uppercase().replace('-', "_"))
    }
}
