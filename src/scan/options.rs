//! Reading how a target is to be scanned: deadlines, passes, families, bounds.
//!
//! A query and a command line have the same words for it, and both come here for their meaning.

use std::num::{NonZeroU16, NonZeroU32};
use std::time::Duration;

use super::{DecimalError, Family, Retries, Timeout, parse_decimal};
use crate::duration;
use crate::limits;

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

impl Family {
    /// Reads `4` or `6`.
    ///
    /// # Errors
    /// One sentence that says what was expected.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        match text {
            "4" => Ok(Self::V4),
            "6" => Ok(Self::V6),
            _ => Err("must be 4 or 6"),
        }
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
