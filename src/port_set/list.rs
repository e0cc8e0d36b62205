//! Parses a list of ports: `22,80,8000-8100,60000-,top:100`.

use std::fmt;
use std::ops::RangeInclusive;

use super::{PortSet, Storage, parse_port};
use crate::decimal::{DecimalError, parse_decimal};
use crate::limits;
use crate::service_names;
use crate::spelling::{Confusable, quote};
use crate::top_ports::{TOP_PORTS_MAX, top};

impl PortSet {
    /// Parses a list such as `22,80,8000-8100,60000-,top:100`: ports, ranges and the most
    /// frequently open ports, in any order, overlapping or not. A range may lack one end (`-100`,
    /// `60000-`) but not both: a lone dash is more often a typing error than a request for every
    /// port.
    ///
    /// The set is never empty. The time is linear in the length of the text, and there are at most
    /// [`limits::PORT_ITEMS_MAX`] items.
    pub fn parse(text: &str) -> Result<Self, PortsError> {
        // The bits are allocated at full length, and the set is shortened at the end.
        let mut set = Self { ports: Storage::Bits(vec![0; 1024]), len: 0 };
        let mut offset = 1;
        for (index, item) in text.split(',').enumerate() {
            let read = if index == limits::PORT_ITEMS_MAX {
                Err(PortsReason::TooMany)
            } else {
                set.insert_item(item)
            };
            if let Err(reason) = read {
                return Err(PortsError { reason, item: quote(item), offset });
            }
            offset += item.len() + 1;
        }
        set.shrink_to_fit();
        assert!(!set.is_empty(), "every list has an item, every range has a port");
        assert_eq!(set.len, set.count(), "no port was counted twice");
        Ok(set)
    }

    /// Every port of these ranges, given by their first and last ports.
    pub fn from_ranges<'a>(ranges: impl IntoIterator<Item = &'a (u16, u16)>) -> Self {
        let mut set = Self::new();
        for (first, last) in ranges {
            set.insert_range(*first..=*last);
        }
        set
    }

    /// Adds the ports of one item of the list.
    fn insert_item(&mut self, item: &str) -> Result<(), PortsReason> {
        if let [letter, b':', ..] = item.as_bytes()
            && letter.is_ascii_alphabetic()
        {
            return Err(PortsReason::Protocol);
        }
        let Some(rest) = after_top(item) else {
            self.insert_range(parse_range(item)?);
            return Ok(());
        };
        let count = rest.strip_prefix(':').ok_or(PortsReason::Top)?;
        let count = parse_decimal(count, 1..=TOP_PORTS_MAX as u64).map_err(|_| PortsReason::Top)?;
        for port in top(count as usize) {
            self.insert(*port);
        }
        Ok(())
    }
}

/// The text after `top`, if the item is `top:10` or a wrong form of it, such as `top-10`.
pub fn after_top(item: &str) -> Option<&str> {
    let (word, rest) = item.split_at_checked(3)?;
    let count = rest.strip_prefix('-').unwrap_or(rest);
    let is_count = !count.is_empty() && count.bytes().all(|byte| byte.is_ascii_digit());
    let is_top = word.eq_ignore_ascii_case("top") && (is_count || rest.starts_with(':'));
    is_top.then_some(rest)
}

/// The ports of one item of a list: `80`, `8000-8100`, `-100` or `60000-`.
fn parse_range(item: &str) -> Result<RangeInclusive<u16>, PortsReason> {
    let port = |digits| {
        parse_port(digits).map_err(|error| match error {
            DecimalError::NotDecimal => PortsReason::of_form(item),
            DecimalError::TooLong | DecimalError::OutOfRange { .. } => PortsReason::Port(error),
        })
    };
    let (first, last) = match item.split_once('-') {
        None if item.is_empty() => return Err(PortsReason::Empty),
        None => return port(item).map(|port| port..=port),
        Some(("", "")) => return Err(PortsReason::NoEnds),
        Some(("", last)) => (1, port(last)?),
        Some((first, "")) => (port(first)?, u16::MAX),
        Some((first, last)) => (port(first)?, port(last)?),
    };
    if first > last {
        return Err(PortsReason::Backwards);
    }
    assert!(first > 0, "`parse_port` accepts no number below 1");
    Ok(first..=last)
}

/// The reason why a text is not a list of ports. It is displayed as `"9-3" at offset 4: the range
/// runs backwards`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortsError {
    /// The reason why the item is refused.
    pub reason: PortsReason,
    /// The item, as [`quote`] writes it.
    pub item: String,
    /// The position of the item in the list; 1 is the first byte.
    pub offset: usize,
}

/// The reason why an item of a list of ports is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortsReason {
    /// An end of the range is a number and not a port.
    Port(DecimalError),
    /// The item is neither a port nor a range.
    Form,
    /// The item is the name of a service, which has this port.
    Service(u16),
    /// The item has a character that only looks like a digit or a hyphen.
    Confusable(Confusable),
    /// The item begins with the letter of a protocol, as in nmap's `T:22` and `U:53`.
    Protocol,
    /// There is no text before, between or after commas.
    Empty,
    /// The item is not `top:` and a number from 1 to [`TOP_PORTS_MAX`].
    Top,
    /// The item is a dash alone.
    NoEnds,
    /// The first port is above the last.
    Backwards,
    /// The list has more than [`limits::PORT_ITEMS_MAX`] items.
    TooMany,
}

impl PortsReason {
    /// The reason why an item is neither a port nor a range.
    fn of_form(item: &str) -> Self {
        let confusable = || Confusable::find(item).map(Self::Confusable);
        service_names::built_in_port(item)
            .map(Self::Service)
            .or_else(confusable)
            .unwrap_or(Self::Form)
    }
}

impl fmt::Display for PortsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at offset {}: ", self.item, self.offset)?;
        match self.reason {
            PortsReason::Empty | PortsReason::Form => {
                let what = if self.reason == PortsReason::Empty {
                    "a port is missing"
                } else {
                    "no port or range"
                };
                write!(f, "{what}; write 22,80,8000-8100 without blanks, or 1-65535 for all")
            }
            PortsReason::Service(port) => write!(f, "the name of a service; write {port}"),
            PortsReason::Confusable(confusable) => confusable.fmt(f),
            PortsReason::Top => write!(f, "write top:N, with N from 1 to {TOP_PORTS_MAX}"),
            PortsReason::Port(error) => error.fmt(f),
            PortsReason::Protocol => {
                f.write_str("only TCP ports are scanned, and written without a letter")
            }
            PortsReason::NoEnds => f.write_str("the range needs a first or a last port"),
            PortsReason::Backwards => f.write_str("the range runs backwards"),
            PortsReason::TooMany => {
                write!(f, "a list has at most {} items", limits::PORT_ITEMS_MAX)
            }
        }
    }
}

impl std::error::Error for PortsError {}
