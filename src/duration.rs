//! The text form of durations: `250ms`, `2s`, `1.5s`, `5m`.
//!
//! One grammar is used for query parameters, flags and variables: `digits[.digits](ms|s|m)`,
//! without sign, blank, exponent or sum of units. This module sets no bounds; its callers do. Both
//! directions agree: [`parse`] reads a text of [`display`] as the same value.

use std::fmt;
use std::time::Duration;

/// The maximum number of digits on either side of the point. Every value is then far below the
/// maximum of `Duration`.
const DIGITS_MAX: usize = 9;

const NANOS_PER_MILLI: u128 = 1_000_000;
const NANOS_PER_SECOND: u128 = 1_000_000_000;
const NANOS_PER_MINUTE: u128 = 60 * NANOS_PER_SECOND;

/// The reason why a text is not a duration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DurationError {
    /// The text is not of the form `digits[.digits](ms|s|m)`.
    Malformed,
    /// The text is a number without a unit, which could mean seconds or milliseconds.
    NoUnit,
    /// There are more than nine digits before or after the point.
    TooLong,
}

impl fmt::Display for DurationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "not a duration such as 250ms, 2s, 1.5s or 5m",
            Self::NoUnit => "a duration needs a unit: ms, s or m",
            Self::TooLong => "a duration has at most 9 digits on either side of the point",
        })
    }
}

impl std::error::Error for DurationError {}

/// Parses `digits[.digits](ms|s|m)`. Fractions of a nanosecond are dropped.
pub fn parse(text: &str) -> Result<Duration, DurationError> {
    let is_numeric = |byte: u8| byte.is_ascii_digit() || byte == b'.';
    let unit_at = text.bytes().position(|byte| !is_numeric(byte)).unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    // "2." and ".5" are refused, because a part without digits is not a number.
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    if whole.is_empty() || fraction.is_empty() || fraction.contains('.') {
        return Err(DurationError::Malformed);
    }
    let nanos_per_unit = match unit {
        "ms" => NANOS_PER_MILLI,
        "s" => NANOS_PER_SECOND,
        "m" => NANOS_PER_MINUTE,
        "" => return Err(DurationError::NoUnit),
        _ => return Err(DurationError::Malformed),
    };
    if whole.len() > DIGITS_MAX || fraction.len() > DIGITS_MAX {
        return Err(DurationError::TooLong);
    }
    let scale = fraction.bytes().fold(1, |scale: u128, _| scale * 10);
    let nanos = value_of(whole) * nanos_per_unit + value_of(fraction) * nanos_per_unit / scale;
    let seconds = nanos / NANOS_PER_SECOND;
    assert!(seconds < u128::from(u64::MAX), "nine digits of minutes fit");
    Ok(Duration::new(seconds as u64, (nanos % NANOS_PER_SECOND) as u32))
}

/// Writes a duration in the grammar of [`parse`], in the largest unit that is usual for it:
/// `250ms`, `1.5s`, `60s`, `5m`.
pub fn display(duration: Duration) -> impl fmt::Display {
    Written(duration)
}

struct Written(Duration);

impl fmt::Display for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = self.0.as_nanos();
        // One minute is written as 60s, as in the tables of the contract.
        let (nanos_per_unit, unit) =
            if nanos.is_multiple_of(NANOS_PER_MINUTE) && nanos > NANOS_PER_MINUTE {
                (NANOS_PER_MINUTE, "m")
            } else if nanos >= NANOS_PER_SECOND || nanos == 0 {
                (NANOS_PER_SECOND, "s")
            } else {
                (NANOS_PER_MILLI, "ms")
            };
        write!(f, "{}", nanos / nanos_per_unit)?;
        let (mut rest, mut place) = (nanos % nanos_per_unit, nanos_per_unit / 10);
        if rest > 0 {
            f.write_str(".")?;
        }
        while rest > 0 {
            assert!(place > 0, "the remainder is 0 after the last digit");
            write!(f, "{}", rest / place)?;
            (rest, place) = (rest % place, place / 10);
        }
        f.write_str(unit)
    }
}

/// The value of at most [`DIGITS_MAX`] decimal digits.
fn value_of(digits: &str) -> u128 {
    assert!(digits.len() <= DIGITS_MAX, "the caller has checked the length");
    debug_assert!(digits.bytes().all(|byte| byte.is_ascii_digit()), "the caller cut the unit off");
    digits.bytes().fold(0, |value, digit| value * 10 + u128::from(digit - b'0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_parsed_by_its_unit() {
        let check =
            |text: &str, expected: Duration| assert_eq!(parse(text), Ok(expected), "{text}");
        check("250ms", Duration::from_millis(250));
        check("2s", Duration::from_secs(2));
        check("1.5s", Duration::from_millis(1500));
        check("5m", Duration::from_secs(300));
        check("0s", Duration::ZERO);
        check("0.5m", Duration::from_secs(30));
        check("007s", Duration::from_secs(7));
        check("0.001ms", Duration::from_micros(1));
        check("0.000000001s", Duration::from_nanos(1));
        check("0.000000001ms", Duration::ZERO);
        check("999999999m", Duration::from_secs(999_999_999 * 60));
        check("0.999999999m", Duration::from_nanos(59_999_999_940));
    }

    #[test]
    fn the_error_says_why_a_text_is_not_a_duration() {
        let check = |text: &str, expected| assert_eq!(parse(text), Err(expected), "{text:?}");
        use DurationError::{Malformed, NoUnit, TooLong};
        for text in ["", "s", "ms", ".", ".5s", "2.s", "1.2.3s", "-1s", "+1s", " 1s", "1s ", "1 s"]
        {
            check(text, Malformed);
        }
        for text in ["1e3s", "1_0s", "0x1s", "1h", "1S", "1MS", "1us", "1m30s", "auto", "２s"] {
            check(text, Malformed);
        }
        check("2", NoUnit);
        check("0", NoUnit);
        check("1.5", NoUnit);
        check("1000000000s", TooLong);
        check("0.0000000001s", TooLong);
        check(&format!("{}s", "9".repeat(10_000)), TooLong);
    }

    #[test]
    fn a_displayed_duration_has_a_usual_unit_and_parses_to_the_same_value() {
        let check = |nanos: u64, expected: &str| {
            let duration = Duration::from_nanos(nanos);
            assert_eq!(display(duration).to_string(), expected);
            assert_eq!(parse(expected), Ok(duration), "{expected}");
        };
        check(0, "0s");
        check(1, "0.000001ms");
        check(10_000_000, "10ms");
        check(250_000_000, "250ms");
        check(1_000_000_000, "1s");
        check(1_500_000_000, "1.5s");
        check(1_000_000_001, "1.000000001s");
        check(60_000_000_000, "60s");
        check(90_000_000_000, "90s");
        check(120_000_000_000, "2m");
        check(300_000_000_000, "5m");
        check(3_600_000_000_000, "60m");
    }
}
