//! The options of a scan: deadlines, passes, limits, and the contents of the answer.
//!
//! A query or a command line determines the [`ScanOptions`] of its scans. Both have the same syntax
//! for the values, which this module parses. `api` and `config` call it.

use std::fmt;
use std::num::{NonZeroU16, NonZeroU32};
use std::time::Duration;

use crate::decimal::{DecimalError, parse_decimal};
use crate::duration;
use crate::host::Family;
use crate::limits;
use crate::spelling::quote;
use crate::technique::Technique;

/// The options of a scan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScanOptions {
    /// The technique of the probes.
    pub technique: Technique,
    /// The timeout of each probe.
    pub timeout: Timeout,
    /// The maximum duration of the scan of a whole target, including the lookup of its name.
    pub deadline: Duration,
    /// The bound of the lookup of the name.
    pub lookup_bound: LookupBound,
    /// The number of further passes over silent ports.
    pub retries: Retries,
    /// The maximum number of probes in flight; `None` means as many as there are ports.
    pub concurrency: Option<NonZeroU16>,
    /// The maximum number of new probes per second, from 1 to [`limits::RATE_MAX`]; `None` means no
    /// limit.
    pub rate: Option<NonZeroU32>,
    /// The address family of the target.
    pub family: Family,
    /// The addresses of a name that are scanned.
    pub addresses: Addresses,
    /// The contents of the answer in addition to the open ports.
    pub include: Include,
}

impl Default for ScanOptions {
    fn default() -> Self {
        Self {
            technique: Technique::default(),
            timeout: Timeout::Fixed(limits::TIMEOUT_DEFAULT),
            deadline: limits::SCAN_TIME_MAX,
            lookup_bound: LookupBound::Deadline,
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
    /// The maximum duration of the lookup of the name.
    pub fn lookup_time(&self) -> Duration {
        match (self.lookup_bound, self.timeout) {
            (LookupBound::Timeout, Timeout::Fixed(timeout)) => timeout.min(self.deadline),
            (LookupBound::Timeout, Timeout::Auto) | (LookupBound::Deadline, _) => self.deadline,
        }
    }

    /// The options of each of `scans` scans, which divide the concurrency equally. Each of them may
    /// have at least one probe in flight.
    #[must_use]
    pub fn divided(self, scans: u8) -> Self {
        assert!(scans > 0, "there is at least one scan");
        let part = |limit: NonZeroU16| {
            NonZeroU16::new(limit.get() / u16::from(scans)).unwrap_or(NonZeroU16::MIN)
        };
        Self { concurrency: self.concurrency.map(part), ..self }
    }
}

/// The time that bounds the lookup of a name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LookupBound {
    /// The deadline of the scan.
    #[default]
    Deadline,
    /// The timeout of a probe too, if it is fixed.
    Timeout,
}

/// The timeout of each probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timeout {
    /// The same timeout for all probes, from [`limits::TIMEOUT_MIN`] to [`limits::TIMEOUT_MAX`].
    Fixed(Duration),
    /// The timeout is computed from the measured round-trip time of the target.
    Auto,
}

impl Timeout {
    /// Parses a duration from [`limits::TIMEOUT_MIN`] to [`limits::TIMEOUT_MAX`], or `auto`.
    ///
    /// # Errors
    /// A message with the permitted values.
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

    /// The maximum time after which an unanswered probe of the first pass expires.
    pub const fn longest(self) -> Duration {
        match self {
            Self::Fixed(timeout) => timeout,
            Self::Auto => limits::TIMEOUT_AUTO_MAX,
        }
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

/// The number of further passes over silent ports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Retries {
    /// This number of passes, from 0 to [`limits::RETRIES_MAX`].
    Exactly(u8),
    /// As many passes as the measured loss requires.
    #[default]
    Auto,
}

impl Retries {
    /// Parses a number of passes up to [`limits::RETRIES_MAX`], or `auto`.
    ///
    /// # Errors
    /// A message with the permitted values.
    pub fn parse(text: &str) -> Result<Self, String> {
        let max = u64::from(limits::RETRIES_MAX);
        let passes = match text {
            "auto" => return Ok(Self::Auto),
            _ => parse_within(text, 0, max),
        };
        let passes = passes.map_err(|error| format!("{error}, or auto"))?;
        assert!(
            passes <= u64::from(limits::RETRIES_MAX),
            "`parse_decimal` returns a number in its range"
        );
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

/// The addresses of a name that are scanned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Addresses {
    /// Only the preferred address.
    #[default]
    First,
    /// All addresses, each with its own result.
    All,
}

impl Addresses {
    /// Parses `first` or `all`.
    ///
    /// # Errors
    /// A message with the permitted values.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        match text {
            "first" => Ok(Self::First),
            "all" => Ok(Self::All),
            _ => Err("must be first or all"),
        }
    }
}

/// The contents of an answer in addition to the open ports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Include {
    /// Whether the answer contains `closed_ports`.
    pub closed: bool,
    /// Whether the answer contains `filtered_ports`.
    pub filtered: bool,
    /// Whether the answer contains `unreachable_ports`.
    pub unreachable: bool,
    /// Whether the answer contains `services`.
    pub services: bool,
}

impl Include {
    /// Parses a list of the fields of [`Include`]. An item may occur several times, like a port in
    /// a list of ports.
    ///
    /// # Errors
    /// A message with the permitted items.
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
        assert!(include != Self::default(), "a list has at least one item");
        Ok(include)
    }
}

/// Parses the maximum duration of a scan, which is at least [`limits::TIMEOUT_MIN`].
///
/// # Errors
/// A message with the minimum.
pub fn parse_deadline(text: &str) -> Result<Duration, String> {
    let deadline = duration::parse(text).map_err(|error| error.to_string())?;
    if deadline < limits::TIMEOUT_MIN {
        return Err(format!("must be at least {}", duration::display(limits::TIMEOUT_MIN)));
    }
    Ok(deadline)
}

/// Parses the maximum number of probes in flight, from 1 to 65,535.
///
/// # Errors
/// The text is not a decimal number in this range.
pub fn parse_concurrency(text: &str) -> Result<NonZeroU16, DecimalError> {
    let max = u64::from(u16::MAX);
    let number = parse_within(text, 1, max)?;
    NonZeroU16::new(number as u16).ok_or(DecimalError::OutOfRange { min: 1, max })
}

/// Parses the maximum number of new probes per second, from 1 to [`limits::RATE_MAX`].
///
/// # Errors
/// The text is not a decimal number in this range.
pub fn parse_rate(text: &str) -> Result<NonZeroU32, DecimalError> {
    let max = u64::from(limits::RATE_MAX);
    let number = parse_within(text, 1, max)?;
    NonZeroU32::new(number as u32).ok_or(DecimalError::OutOfRange { min: 1, max })
}

/// Parses a number from `min` to `max`. The error has these bounds also if the text is no number.
fn parse_within(text: &str, min: u64, max: u64) -> Result<u64, DecimalError> {
    parse_decimal(text, min..=max).map_err(|_| DecimalError::OutOfRange { min, max })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scans_of_one_job_divide_its_concurrency() {
        let check = |limit: Option<u16>, scans: u8, expected: Option<u16>| {
            let concurrency = limit.and_then(NonZeroU16::new);
            let options = ScanOptions { concurrency, ..ScanOptions::default() };
            let divided = options.divided(scans).concurrency;
            assert_eq!(divided.map(NonZeroU16::get), expected, "{limit:?} of {scans} scans");
        };
        check(Some(100), 4, Some(25));
        check(Some(3), 4, Some(1));
        check(Some(3), 1, Some(3));
        check(None, 4, None);
    }
}
