//! Reading the values of flags: one function for each kind, whose error says what was expected.

use std::fmt::Display;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use crate::batch::options::Format;
use crate::duration;
use crate::limits::COUNT_MAX;

pub(super) fn duration_within(
    text: &str,
    min: Duration,
    max: Duration,
) -> Result<Duration, String> {
    let value = duration::parse(text).map_err(|error| error.to_string())?;
    if (min..=max).contains(&value) {
        return Ok(value);
    }
    Err(format!("expected {} to {}", duration::display(min), duration::display(max)))
}

pub(super) fn told<T>(read: Result<T, impl Display>) -> Result<T, String> {
    read.map_err(|error| error.to_string())
}

pub(super) fn switch(text: &str) -> Result<bool, String> {
    word(text).map_err(|_: String| "expected true or false".to_owned())
}

/// `--json` and `--ndjson` are two ways out, and only one can be taken.
pub(super) fn format_of(before: Format, text: &str, wanted: Format) -> Result<Format, String> {
    match (switch(text)?, before) {
        (false, before) => Ok(before),
        (true, Format::Table) => Ok(wanted),
        (true, Format::Json | Format::Ndjson) => {
            Err("--json and --ndjson exclude each other".to_owned())
        }
    }
}

pub(super) fn count(text: &str) -> Result<usize, String> {
    // `usize::from_str` would take a sign.
    let is_decimal = text.bytes().all(|byte| byte.is_ascii_digit());
    let value = if is_decimal { text.parse().unwrap_or(0) } else { 0 };
    if (1..=COUNT_MAX).contains(&value) {
        return Ok(value);
    }
    Err(format!("expected a whole number from 1 to {COUNT_MAX}"))
}

pub(super) fn word<T: FromStr<Err: ToString>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|error: T::Err| error.to_string())
}

pub(super) fn host_name(text: &str) -> Result<String, String> {
    let is_name_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    if !text.is_empty() && text.bytes().all(is_name_byte) {
        return Ok(text.to_owned());
    }
    Err("expected a DNS name, without scheme and port".to_owned())
}

pub(super) fn path(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() {
        return Err("expected the path of a file".to_owned());
    }
    Ok(PathBuf::from(text))
}
