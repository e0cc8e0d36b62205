//! Decimal numbers in a query or on a command line: ASCII digits and nothing else.

use std::fmt;
use std::ops::RangeInclusive;

/// The maximum number of digits of a decimal string: a `u64` can hold this many nines. Leading
/// zeros count.
const DECIMAL_DIGITS_MAX: usize = 19;

/// Parses a decimal string (ASCII digits and nothing else: no sign, blank, underscore or prefix)
/// whose value is in `range`.
pub fn parse_decimal(text: &str, range: RangeInclusive<u64>) -> Result<u64, DecimalError> {
    assert!(!range.is_empty(), "some value is allowed");
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(DecimalError::NotDecimal);
    }
    if text.len() > DECIMAL_DIGITS_MAX {
        return Err(DecimalError::TooLong);
    }
    let value = text.bytes().fold(0, |value, digit| value * 10 + u64::from(digit - b'0'));
    if !range.contains(&value) {
        return Err(DecimalError::OutOfRange { min: *range.start(), max: *range.end() });
    }
    Ok(value)
}

/// The reason why a text is not a valid number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecimalError {
    /// The text is empty, or contains other characters than ASCII digits.
    NotDecimal,
    /// The text has more digits than a `u64` can hold, including leading zeros.
    TooLong,
    /// The number is outside the range.
    OutOfRange {
        /// The lowest valid value.
        min: u64,
        /// The highest valid value.
        max: u64,
    },
}

impl fmt::Display for DecimalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotDecimal => f.write_str("invalid decimal string"),
            Self::TooLong => write!(f, "a number has at most {DECIMAL_DIGITS_MAX} digits"),
            Self::OutOfRange { min, max } => write!(f, "must be from {min} to {max}"),
        }
    }
}

impl std::error::Error for DecimalError {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::port_set::parse_port;

    #[test]
    fn a_decimal_string_has_nothing_but_ascii_digits() {
        let check = |text: &str, expected| assert_eq!(parse_port(text), expected, "{text:?}");
        let out_of_range = Err(DecimalError::OutOfRange { min: 1, max: 65_535 });
        check("1", Ok(1));
        check("65535", Ok(65_535));
        check("0000000000000000080", Ok(80));
        check("0", out_of_range);
        check("65536", out_of_range);
        check(&"9".repeat(19), out_of_range);
        check(&"0".repeat(20), Err(DecimalError::TooLong));
        for text in ["", "+1", "-1", " 1", "1 ", "1_0", "0x10", "1e3", "1.0", "８０", "80\0"] {
            check(text, Err(DecimalError::NotDecimal));
        }
    }
}
