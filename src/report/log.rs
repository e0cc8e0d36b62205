//! Log records: one line each, in logfmt or JSON. No value can break a line or forge a field.
//!
//! A [`Record`] is built where an event happens and rendered where the wall clock is known. It is
//! ASCII in both formats, because a terminal interprets control characters beyond those of ASCII.
//! This module writes nothing and reads no clock.

use std::fmt::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The severity of a record, the most urgent first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// The service cannot work.
    Error,
    /// Something is wrong, and the service continues.
    Warn,
    /// Normal events of a healthy service.
    #[default]
    Info,
    /// Details for developers.
    Debug,
}

impl Level {
    /// Every level, the most urgent first.
    pub const ALL: [Self; 4] = [Self::Error, Self::Warn, Self::Info, Self::Debug];

    /// The word in a record and on the command line.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
        }
    }

    /// Whether a log with this level contains a record with level `record`.
    pub fn admits(self, record: Self) -> bool {
        record <= self
    }
}

/// A word that is not one of the known ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownWord {
    expected: &'static str,
}

impl fmt::Display for UnknownWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected {}", self.expected)
    }
}

impl std::error::Error for UnknownWord {}

impl FromStr for Level {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<Self, UnknownWord> {
        let unknown = UnknownWord { expected: "error, warn, info or debug" };
        Self::ALL.into_iter().find(|level| level.label() == text).ok_or(unknown)
    }
}

/// The form of a log line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// `key=value key="quoted value"`.
    #[default]
    Logfmt,
    /// One JSON object (RFC 8259).
    Json,
}

impl FromStr for LogFormat {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<Self, UnknownWord> {
        match text {
            "logfmt" => Ok(Self::Logfmt),
            "json" => Ok(Self::Json),
            _ => Err(UnknownWord { expected: "logfmt or json" }),
        }
    }
}

/// The value of a field.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Any text, from any source.
    Text(String),
    /// A whole number.
    Integer(u64),
    /// A number. Infinities and NaN are `null` in JSON, which cannot represent them.
    Float(f64),
    /// A duration, written in milliseconds with microsecond precision under its key with the suffix
    /// `_ms`.
    Elapsed(Duration),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<IpAddr> for Value {
    fn from(address: IpAddr) -> Self {
        Self::Text(address.to_string())
    }
}

impl From<SocketAddr> for Value {
    fn from(address: SocketAddr) -> Self {
        Self::Text(address.to_string())
    }
}

impl From<u16> for Value {
    fn from(number: u16) -> Self {
        Self::Integer(u64::from(number))
    }
}

impl From<u32> for Value {
    fn from(number: u32) -> Self {
        Self::Integer(u64::from(number))
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self::Integer(number)
    }
}

impl From<usize> for Value {
    fn from(number: usize) -> Self {
        Self::Integer(number as u64)
    }
}

impl From<f64> for Value {
    fn from(number: f64) -> Self {
        Self::Float(number)
    }
}

impl From<Duration> for Value {
    fn from(elapsed: Duration) -> Self {
        Self::Elapsed(elapsed)
    }
}

/// One logged event.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    level: Level,
    event: &'static str,
    fields: Vec<(&'static str, Value)>,
}

impl Record {
    /// A record without fields. `event` describes the event in a few constant words, so that equal
    /// events can be counted.
    pub fn new(level: Level, event: &'static str) -> Self {
        assert!(!event.is_empty(), "a record names its event");
        Self { level, event, fields: Vec::new() }
    }

    /// Adds a field. `key` consists of `a-z`, digits and `_`, is used once per record, and is none
    /// of `ts`, `level`, `msg`.
    #[must_use]
    pub fn field(mut self, key: &'static str, value: impl Into<Value>) -> Self {
        debug_assert!(!key.is_empty() && key.bytes().all(is_key_byte), "{key:?} is no key");
        debug_assert!(!["ts", "level", "msg"].contains(&key), "{key} is a key of every record");
        debug_assert!(self.fields.iter().all(|(other, _)| *other != key), "{key} is used once");
        self.fields.push((key, value.into()));
        self
    }

    /// The level of the record.
    pub const fn level(&self) -> Level {
        self.level
    }

    /// The line without its line end. `wall` is the time of the event.
    pub fn render(&self, format: LogFormat, wall: SystemTime) -> String {
        let (mut line, ts) = (String::with_capacity(128), Timestamp(wall));
        let written = match format {
            LogFormat::Logfmt => self.write_logfmt(&mut line, ts),
            LogFormat::Json => self.write_json(&mut line, ts),
        };
        assert!(written.is_ok(), "writing to a string never fails");
        debug_assert!(line.bytes().all(|byte| matches!(byte, b' '..=b'~')), "one line of ASCII");
        line
    }

    fn write_logfmt(&self, line: &mut String, ts: Timestamp) -> fmt::Result {
        write!(line, "ts={ts} level={} msg=", self.level.label())?;
        write_logfmt_text(line, self.event)?;
        for (key, value) in &self.fields {
            write!(line, " {key}")?;
            match value {
                Value::Text(text) => {
                    line.push('=');
                    write_logfmt_text(line, text)?;
                }
                Value::Integer(number) => write!(line, "={number}")?,
                Value::Float(number) => write!(line, "={number}")?,
                Value::Elapsed(elapsed) => write!(line, "_ms={}", Milliseconds(*elapsed))?,
            }
        }
        Ok(())
    }

    fn write_json(&self, line: &mut String, ts: Timestamp) -> fmt::Result {
        write!(line, r#"{{"ts":"{ts}","level":"{}","msg":"#, self.level.label())?;
        write_quoted(line, self.event)?;
        for (key, value) in &self.fields {
            write!(line, r#","{key}"#)?;
            match value {
                Value::Text(text) => {
                    line.push_str("\":");
                    write_quoted(line, text)?;
                }
                Value::Integer(number) => write!(line, "\":{number}")?,
                Value::Float(number) if number.is_finite() => write!(line, "\":{number}")?,
                Value::Float(_) => line.push_str("\":null"),
                Value::Elapsed(elapsed) => write!(line, "_ms\":{}", Milliseconds(*elapsed))?,
            }
        }
        line.push('}');
        Ok(())
    }
}

const fn is_key_byte(byte: u8) -> bool {
    matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_')
}

/// Writes a bare word if no character in it is ambiguous, otherwise a quoted string.
fn write_logfmt_text(line: &mut String, text: &str) -> fmt::Result {
    let is_plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'=' | b'\\');
    if !text.is_empty() && text.bytes().all(is_plain) {
        return line.write_str(text);
    }
    write_quoted(line, text)
}

/// Writes a JSON string (RFC 8259 section 7) in ASCII. Other characters and all control characters
/// are written as `\uXXXX`, and those beyond the basic plane as a surrogate pair.
fn write_quoted(line: &mut String, text: &str) -> fmt::Result {
    line.push('"');
    for character in text.chars() {
        match character {
            '"' => line.push_str("\\\""),
            '\\' => line.push_str("\\\\"),
            '\n' => line.push_str("\\n"),
            '\r' => line.push_str("\\r"),
            '\t' => line.push_str("\\t"),
            ' '..='~' => line.push(character),
            _ => {
                for unit in character.encode_utf16(&mut [0; 2]) {
                    write!(line, "\\u{unit:04x}")?;
                }
            }
        }
    }
    line.push('"');
    Ok(())
}

/// Milliseconds with three decimals, for example `2013.250`.
struct Milliseconds(Duration);

impl fmt::Display for Milliseconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03}", self.0.as_millis(), self.0.subsec_micros() % 1000)
    }
}

/// RFC 3339 in UTC with milliseconds: `2026-11-23T13:54:00.123Z`. A time before 1970 is written as
/// 1970.
#[derive(Clone, Copy)]
struct Timestamp(SystemTime);

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let since = self.0.duration_since(UNIX_EPOCH).unwrap_or_default();
        let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
        let (year, month, day) = date_from_days(days);
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        let millis = since.subsec_millis();
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
    }
}

/// The year, month and day of the Gregorian calendar, `days` after 1970-01-01. The arithmetic is
/// civil_from_days of Howard Hinnant's "chrono-Compatible Low-Level Date Algorithms": years begin
/// in March, so that the leap day is the last day, and are grouped into eras of 400 years (146,097
/// days).
fn date_from_days(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let months_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * months_from_march + 2) / 5 + 1;
    let month = if months_from_march < 10 { months_from_march + 3 } else { months_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    assert!((1..=12).contains(&month) && (1..=31).contains(&day), "a date of the calendar");
    assert!(year >= 1970, "a day after the epoch");
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(millis)
    }

    #[test]
    fn a_record_is_a_line_of_logfmt_or_of_json() {
        let record = Record::new(Level::Info, "scan finished")
            .field("domain", "example.com")
            .field("address", "2001:db8::1".parse::<IpAddr>().unwrap())
            .field("open", 2_usize)
            .field("loss", 0.25)
            .field("elapsed", Duration::from_micros(2_013_250));
        assert_eq!(record.level(), Level::Info);
        assert_eq!(
            record.render(LogFormat::Logfmt, at(1_795_442_040_123)),
            "ts=2026-11-23T13:54:00.123Z level=info msg=\"scan finished\" domain=example.com \
             address=2001:db8::1 open=2 loss=0.25 elapsed_ms=2013.250"
        );
        assert_eq!(
            record.render(LogFormat::Json, at(1_795_442_040_123)),
            "{\"ts\":\"2026-11-23T13:54:00.123Z\",\"level\":\"info\",\"msg\":\"scan finished\",\
             \"domain\":\"example.com\",\"address\":\"2001:db8::1\",\"open\":2,\"loss\":0.25,\
             \"elapsed_ms\":2013.250}"
        );
    }

    #[test]
    fn no_value_forges_a_field_or_a_line_in_logfmt() {
        for (text, expected) in [
            ("plain", "plain"),
            ("", r#""""#),
            ("a b", r#""a b""#),
            ("a=b", r#""a=b""#),
            ("x level=error", r#""x level=error""#),
            ("\"", r#""\"""#),
            ("\\", r#""\\""#),
            ("\n\r\t", r#""\n\r\t""#),
            ("\0\u{1b}[2J\u{7f}", r#""\u0000\u001b[2J\u007f""#),
            ("\u{85}\u{2028}\u{202e}", r#""\u0085\u2028\u202e""#),
            ("bücher", r#""b\u00fccher""#),
            ("\u{1f980}", r#""\ud83e\udd80""#),
        ] {
            let line =
                Record::new(Level::Warn, "x").field("k", text).render(LogFormat::Logfmt, at(0));
            let expected = format!("ts=1970-01-01T00:00:00.000Z level=warn msg=x k={expected}");
            assert_eq!(line, expected, "for {text:?}");
        }
    }

    #[test]
    fn every_character_comes_back_from_json_and_leaves_the_line_whole() {
        let characters: Vec<char> = ('\0'..=char::MAX).collect();
        for some in characters.chunks(4096) {
            let text: String = some.iter().collect();
            let line =
                Record::new(Level::Debug, "x").field("k", &*text).render(LogFormat::Json, at(0));
            let parsed: serde_json::Value = serde_json::from_str(&line).unwrap();
            assert_eq!(parsed["k"], text.as_str(), "{line}");
            assert_eq!(parsed["level"], "debug");
            assert!(line.bytes().all(|byte| matches!(byte, b' '..=b'~')), "{line}");
        }
    }

    #[test]
    fn every_number_is_valid_json() {
        for number in [0.0, -0.0, 0.1, 1e300, f64::MIN_POSITIVE, f64::NAN, f64::INFINITY] {
            let record = Record::new(Level::Error, "x")
                .field("float", number)
                .field("whole", u64::MAX)
                .field("port", u16::MAX)
                .field("elapsed", Duration::MAX);
            let line = record.render(LogFormat::Json, at(0));
            let parsed: serde_json::Value = serde_json::from_str(&line).unwrap();
            assert_eq!(parsed["float"].is_null(), !number.is_finite(), "{line}");
            assert_eq!(parsed["whole"], u64::MAX);
        }
    }

    #[test]
    fn every_day_of_four_centuries_has_its_date() {
        let is_leap = |year: u64| {
            year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
        };
        let (mut year, mut month, mut day) = (1970, 1, 1);
        for days in 0..146_097 {
            assert_eq!(date_from_days(days), (year, month, day), "day {days}");
            let length = match month {
                2 => 28 + u64::from(is_leap(year)),
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            };
            day += 1;
            if day > length {
                (day, month) = (1, month + 1);
            }
            if month > 12 {
                (month, year) = (1, year + 1);
            }
        }
        assert_eq!((year, month, day), (2370, 1, 1));
    }

    #[test]
    fn a_timestamp_is_rfc_3339_to_the_millisecond_and_never_before_1970() {
        let check = |wall, expected: &str| assert_eq!(Timestamp(wall).to_string(), expected);
        check(at(0), "1970-01-01T00:00:00.000Z");
        check(at(951_782_399_999), "2000-02-28T23:59:59.999Z");
        check(at(951_868_799_001), "2000-02-29T23:59:59.001Z");
        check(at(4_102_444_800_000), "2100-01-01T00:00:00.000Z");
        check(UNIX_EPOCH - Duration::from_secs(1), "1970-01-01T00:00:00.000Z");
    }

    #[test]
    fn a_level_admits_itself_and_more_urgent_levels() {
        for (index, log) in Level::ALL.into_iter().enumerate() {
            for (other, record) in Level::ALL.into_iter().enumerate() {
                assert_eq!(log.admits(record), other <= index, "{log:?} {record:?}");
            }
            assert_eq!(log.label().parse(), Ok(log));
        }
    }

    #[test]
    fn an_unknown_word_is_refused_with_a_list_of_the_known_ones() {
        let level = |text: &str| text.parse::<Level>().map_err(|e| e.to_string());
        let format = |text: &str| text.parse::<LogFormat>().map_err(|e| e.to_string());
        for text in ["", "INFO", "trace", "info "] {
            assert_eq!(level(text), Err("expected error, warn, info or debug".to_owned()));
        }
        assert_eq!(format("logfmt"), Ok(LogFormat::Logfmt));
        assert_eq!(format("json"), Ok(LogFormat::Json));
        assert_eq!(format("text"), Err("expected logfmt or json".to_owned()));
    }
}
