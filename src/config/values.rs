//! Parsers of flag values: one function for each kind of value. The errors say which values are
//! expected.

use std::fmt::Display;
use std::path::PathBuf;
use std::time::Duration;

use crate::batch::options::Format;
use crate::config::Config;
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

/// A duration as the help shows it.
pub(super) fn display(duration: Duration) -> String {
    duration::display(duration).to_string()
}

/// Stores a parsed value, or returns the reason of the error.
pub(super) fn set<T, E: Display>(place: &mut T, read: Result<T, E>) -> Result<(), String> {
    *place = read.map_err(|error| error.to_string())?;
    Ok(())
}

/// Appends a parsed value, or returns the reason of the error.
pub(super) fn push<T, E: Display>(list: &mut Vec<T>, read: Result<T, E>) -> Result<(), String> {
    list.push(read.map_err(|error| error.to_string())?);
    Ok(())
}

pub(super) fn switch(text: &str) -> Result<bool, &'static str> {
    text.parse().map_err(|_| "expected true or false")
}

/// The flags that select the format of the output.
pub(super) const FORMAT_FLAGS: [&str; 3] = ["format", "json", "ndjson"];

/// Only one of `--format`, `--json` and `--ndjson` can be given.
pub(super) fn choose_format(config: &mut Config, format: Format) -> Result<(), String> {
    match config.scan.format.replace(format) {
        None => Ok(()),
        Some(_) => Err("--format, --json and --ndjson exclude each other".to_owned()),
    }
}

pub(super) fn count(text: &str) -> Result<usize, String> {
    // `usize::from_str` would accept a sign.
    let is_decimal = text.bytes().all(|byte| byte.is_ascii_digit());
    let value = if is_decimal { text.parse().unwrap_or(0) } else { 0 };
    if (1..=COUNT_MAX).contains(&value) {
        return Ok(value);
    }
    Err(format!("expected a whole number from 1 to {COUNT_MAX}"))
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
