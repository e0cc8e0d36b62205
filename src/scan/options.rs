//! How a target is scanned: deadlines, passes, bounds, and what is reported.
//!
//! One [`ScanOptions`] goes from a query or a command line to the scan. Both have the same words
//! for the values, which are read here.

use std::fmt;
use std::num::{NonZeroU16, NonZeroU32};
use std::time::Duration;

use crate::decimal::{DecimalError, parse_decimal};
use crate::duration;
use crate::host::Family;
use crate::limits;
use crate::spelling::quote;
use crate::technique::Technique;

/// How a target is scanned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScanOptions {
    /// How ports are probed.
    pub technique: Technique,
    /// Each connect's deadline.
    pub timeout: Timeout,
    /// The deadline of the whole target, from the moment it is begun.
    pub deadline: Duration,
    /// Further passes over silent ports.
    pub retries: Retries,
    /// Connects in flight at most; `None`: as many as ports.
    pub concurrency: Option<NonZeroU16>,
    /// New connects per second at most, 1 to [`limits::RATE_MAX`]; `None`: no bound.
    pub rate: Option<NonZeroU32>,
    /// The family an address must have.
    pub family: Family,
    /// Which of a name's addresses are scanned.
    pub addresses: Addresses,
    /// What the answer has besides the open ports.
    pub include: Include,
}

impl Default for ScanOptions {
    fn default() -> Self {
        Self {
            technique: Technique::default(),
            timeout: Timeout::Fixed(limits::TIMEOUT_DEFAULT),
            deadline: limits::SCAN_TIME_MAX,
            retries: Retries::default(),
            concurrency: None,
            rate: None,
            family: Family::default(),
            addresses: Addresses::default(),
            include: Include::default(),
        }
    }
}

impl ScanOptions {
    /// The options of one of `scans` scans of `ports` ports each, which divide concurrency and
    /// rate.
    #[must_use]
    pub fn divided(self, ports: usize, scans: usize) -> Self {
        assert!(scans > 0 && ports > 0, "there is something to scan");
        let concurrency = self.concurrency.map_or(ports, |most| most.get().into()) / scans;
        let concurrency = u16::try_from(concurrency).unwrap_or(u16::MAX);
        let scans = u32::try_from(scans).unwrap_or(u32::MAX);
        let rate_of = |rate: NonZeroU32| NonZeroU32::new(rate.get() / scans);
        Self {
            concurrency: Some(NonZeroU16::new(concurrency).unwrap_or(NonZeroU16::MIN)),
            rate: self.rate.map(|rate| rate_of(rate).unwrap_or(NonZeroU32::MIN)),
            ..self
        }
    }
}

/// Each connect's deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timeout {
    /// The same for every connect, [`crate::limits::TIMEOUT_MIN`] to
    /// [`crate::limits::TIMEOUT_MAX`].
    Fixed(Duration),
    /// Follows the measured round trip of the target.
    Auto,
}

impl Timeout {
    /// Reads a duration from [`limits::TIMEOUT_MIN`] to [`limits::TIMEOUT_MAX`], or `auto`.
    ///
    /// # Errors
    /// One sentence that says what was expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text == "auto" {
            return Ok(Self::Auto);
        }
        let timeout = duration::parse(text).map_err(|error| error.to_string())?;
        if !(limits::TIMEOUT_MIN..=limits::TIMEOUT_MAX).contains(&timeout) {
            let min = duration::display(limits::TIMEOUT_MIN);
            let max = duration::display(limits::TIMEOUT_MAX);
            return Err(format!("must be from {min} to {max}, or auto"));
        }
        Ok(Self::Fixed(timeout))
    }
}

impl fmt::Display for Timeout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(timeout) => write!(f, "{}", duration::display(*timeout)),
            Self::Auto => f.write_str("auto"),
        }
    }
}

/// Further passes over ports that stayed silent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Retries {
    /// So many, always; 0 to [`crate::limits::RETRIES_MAX`].
    Exactly(u8),
    /// Only when the network is seen to lose packets.
    #[default]
    Auto,
}

impl Retries {
    /// Reads a number of passes up to [`limits::RETRIES_MAX`], or `auto`.
    ///
    /// # Errors
    /// One sentence that says what was expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        let passes = match text {
            "auto" => return Ok(Self::Auto),
            _ => parse_decimal(text, 0..=u64::from(limits::RETRIES_MAX)),
        };
        let passes = passes.map_err(|error| format!("{error}, or auto"))?;
        assert!(passes <= u64::from(limits::RETRIES_MAX), "`parse_decimal` keeps to its range");
        Ok(Self::Exactly(passes as u8))
    }
}

impl fmt::Display for Retries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exactly(passes) => write!(f, "{passes}"),
            Self::Auto => f.write_str("auto"),
        }
    }
}

/// Which of a name's addresses are scanned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Addresses {
    /// The one to prefer.
    #[default]
    First,
    /// Every one, each reported.
    All,
}

impl Addresses {
    /// Reads `first` or `all`.
    ///
    /// # Errors
    /// One sentence that says what was expected.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        match text {
            "first" => Ok(Self::First),
            "all" => Ok(Self::All),
            _ => Err("must be first or all"),
        }
    }
}

/// What an answer has besides the open ports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Include {
    /// `closed_ports`.
    pub closed: bool,
    /// `filtered_ports`.
    pub filtered: bool,
    /// `unreachable_ports`.
    pub unreachable: bool,
    /// `services`.
    pub services: bool,
}

impl Include {
    /// Reads a list of [`Include`]'s fields. An item may be repeated, as a port may.
    ///
    /// # Errors
    /// One sentence that names the items there are.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut include = Self::default();
        for item in text.split(',') {
            match item {
                "closed" => include.closed = true,
                "filtered" => include.filtered = true,
                "unreachable" => include.unreachable = true,
                "services" => include.services = true,
                _ => {
                    let item = quote(item);
                    return Err(format!(
                        "{item} is none of closed, filtered, unreachable and services"
                    ));
                }
            }
        }
        assert!(include != Self::default(), "a list has an item");
        Ok(include)
    }
}

/// Reads a whole scan's deadline, of [`limits::TIMEOUT_MIN`] at least.
///
/// # Errors
/// One sentence that says what was expected.
pub fn parse_deadline(text: &str) -> Result<Duration, String> {
    let deadline = duration::parse(text).map_err(|error| error.to_string())?;
    if deadline < limits::TIMEOUT_MIN {
        return Err(format!("must be at least {}", duration::display(limits::TIMEOUT_MIN)));
    }
    Ok(deadline)
}

/// Reads connects in flight, 1 to 65,535.
///
/// # Errors
/// No such number.
pub fn parse_concurrency(text: &str) -> Result<NonZeroU16, DecimalError> {
    let max = u64::from(u16::MAX);
    let most = parse_decimal(text, 1..=max)?;
    NonZeroU16::new(most as u16).ok_or(DecimalError::OutOfRange { min: 1, max })
}

/// Reads new connects per second, 1 to [`limits::RATE_MAX`].
///
/// # Errors
/// No such number.
pub fn parse_rate(text: &str) -> Result<NonZeroU32, DecimalError> {
    let max = u64::from(limits::RATE_MAX);
    let most = parse_decimal(text, 1..=max)?;
    NonZeroU32::new(most as u32).ok_or(DecimalError::OutOfRange { min: 1, max })
}
