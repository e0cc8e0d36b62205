//! The errors of a command line or a variable.

use std::fmt;

/// The reason why a command line is refused. Its text is one line, and the process exits with 64.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UsageError {
    /// No flag has this name.
    UnknownFlag {
        /// The flag as given, with its dashes.
        given: String,
        /// The flag that was probably meant, without dashes.
        nearest: Option<&'static str>,
        /// The command whose help lists the valid flags; empty if no command was given.
        command: &'static str,
    },
    /// A flag of another scanner.
    OtherTool {
        /// The flag as given, with its dashes.
        given: String,
        /// The text that says what to write instead.
        advice: &'static str,
    },
    /// No command has this name.
    UnknownCommand {
        /// The word as given.
        given: String,
        /// The command that was probably meant.
        nearest: Option<&'static str>,
    },
    /// A target was given where a command was expected.
    TargetAlone {
        /// The word as given.
        given: String,
    },
    /// A flag of another command.
    ForeignFlag {
        /// The flag, without dashes.
        flag: &'static str,
        /// The command that does not have the flag.
        command: &'static str,
        /// The command that has it.
        owner: &'static str,
    },
    /// A scan has no target.
    NoTarget,
    /// There are more arguments than the command accepts.
    UnexpectedArgument {
        /// The argument as given.
        given: String,
        /// The command.
        command: &'static str,
    },
    /// The command line ends before the value of a flag.
    MissingValue {
        /// The flag, without dashes.
        flag: &'static str,
        /// The placeholder of the value in the help.
        metavar: &'static str,
    },
    /// A flag that may be given once was given again.
    Repeated {
        /// The flag, without dashes.
        flag: &'static str,
        /// The value that was given last; none if the flag is a switch.
        value: Option<String>,
    },
    /// A value is malformed or out of its bounds.
    Value {
        /// The flag with its dashes, or the name of the variable.
        source: String,
        /// The value; none if the flag is a switch.
        value: Option<String>,
        /// The values that are expected.
        reason: String,
    },
}

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // `{:?}` escapes a line end in a value, so that the message is one line.
        match self {
            Self::UnknownFlag { given, nearest: Some(nearest), .. } => {
                write!(f, "unknown flag {given:?}, did you mean --{nearest}?")
            }
            Self::UnknownFlag { given, nearest: None, command } => {
                let space = if command.is_empty() { "" } else { " " };
                write!(f, "unknown flag {given:?}, see openports{space}{command} --help")
            }
            Self::OtherTool { given, advice } => write!(f, "{given}: {advice}"),
            Self::UnknownCommand { given, nearest: Some(nearest) } => {
                write!(f, "unknown command {given:?}, did you mean {nearest}?")
            }
            Self::UnknownCommand { given, nearest: None } => {
                write!(f, "unknown command {given:?}, see openports --help")
            }
            Self::TargetAlone { given } => {
                write!(f, "unknown command {given:?}; to scan it, write openports scan {given}")
            }
            Self::UnexpectedArgument { given, command } => {
                write!(f, "unexpected argument {given:?}, see openports {command} --help")
            }
            Self::ForeignFlag { flag, command, owner } => {
                write!(f, "--{flag} is a flag of {owner} and not of {command}, ")?;
                write!(f, "see openports {owner} --help")
            }
            Self::NoTarget => {
                f.write_str("scan needs a TARGET, or --targets FILE, see openports scan --help")
            }
            Self::MissingValue { flag, metavar } => write!(f, "--{flag} needs a value: {metavar}"),
            // `-4` and `-6` are this flag too.
            Self::Repeated { flag: "family", .. } => {
                f.write_str("-4, -6 and --family exclude each other")
            }
            Self::Repeated { flag, value: Some(value) } => {
                write!(f, "--{flag} {value:?}: expected once, is given several times")
            }
            Self::Repeated { flag, value: None } => {
                write!(f, "--{flag}: expected once, is given several times")
            }
            Self::Value { source, value: Some(value), reason } => {
                write!(f, "{source} {value:?}: {reason}")
            }
            Self::Value { source, value: None, reason } => write!(f, "{source}: {reason}"),
        }
    }
}

impl std::error::Error for UsageError {}
