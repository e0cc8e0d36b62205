//! Whether the value of a flag comes from the command line or from its variable, so that a message
//! names what the user wrote.

use crate::config::flags::FLAGS;

/// The flags whose values come from the command line and from variables. All others have their
/// defaults.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origins {
    /// The names of the flags on the command line, without dashes.
    given: Vec<&'static str>,
    /// The names of the flags whose variables apply.
    variables: Vec<&'static str>,
}

impl Origins {
    /// Records that a flag is on the command line.
    pub(super) fn add_given(&mut self, flag: &'static str) {
        self.given.push(flag);
    }

    /// Records that the variable of a flag applies.
    pub(super) fn add_variable(&mut self, flag: &'static str) {
        self.variables.push(flag);
    }

    /// Whether the flag of this name, which has no dashes, is on the command line.
    pub fn is_given(&self, flag: &str) -> bool {
        self.given.contains(&flag)
    }

    /// The name of a flag in a message: `OPENPORTS_PORTS` if the variable applies, otherwise
    /// `--ports`.
    pub fn label(&self, flag: &str) -> String {
        self.label_or(flag, &format!("--{flag}"))
    }

    /// The name of the variable if it applies, otherwise `short`, such as `-o`.
    pub fn label_or(&self, flag: &str, short: &str) -> String {
        let variable = self.variables.iter().find(|name| **name == flag);
        let row = variable.and_then(|name| FLAGS.iter().find(|row| row.name == *name));
        row.map_or_else(|| short.to_owned(), |row| row.variable())
    }
}
