//! A set of TCP ports. It never holds port 0.

use std::fmt;
use std::ops::RangeInclusive;

use crate::decimal::{DecimalError, parse_decimal};

pub mod list;

/// A set of TCP ports. It takes 32 bytes, and up to 8 KB of heap memory if it ever had more than
/// eight ports.
#[derive(Clone)]
pub struct PortSet {
    ports: Storage,
    len: u32,
}

/// The number of ports that a set holds without heap memory. A sweep has tens of thousands of
/// targets with a few ports each in flight.
const FEW_MAX: usize = 8;
/// The maximum number of ports in a list. An insertion moves the higher ports.
const LIST_MAX: usize = 256;

#[derive(Clone)]
enum Storage {
    /// The ports in ascending order. The length of the set says how many entries are used.
    Few([u16; FEW_MAX]),
    /// The same for up to [`LIST_MAX`] ports, if this takes less memory than the bits.
    List(Box<[u16]>),
    /// One bit for each port from 0 up to the highest that was ever in the set, or higher.
    Bits(Vec<u64>),
}

const _: () = assert!(size_of::<PortSet>() == 32, "a set takes 32 bytes");

impl Default for PortSet {
    fn default() -> Self {
        Self::new()
    }
}

impl PartialEq for PortSet {
    fn eq(&self, other: &Self) -> bool {
        let is_equal = match (&self.ports, &other.ports) {
            // Both have the same number of ports, and the same bits as far as both vectors reach,
            // so there are no ports beyond that.
            (Storage::Bits(mine), Storage::Bits(theirs)) => {
                mine.iter().zip(theirs).all(|(a, b)| a == b)
            }
            _ => self.iter().eq(other.iter()),
        };
        self.len == other.len && is_equal
    }
}

impl Eq for PortSet {}

impl PortSet {
    /// The empty set.
    pub const fn new() -> Self {
        Self { ports: Storage::Few([0; FEW_MAX]), len: 0 }
    }

    /// Every port of `first..=last`; empty if `first > last`.
    pub fn from_range(first: u16, last: u16) -> Self {
        let mut set = Self::new();
        if first <= last {
            set.insert_range(first..=last);
        }
        set
    }

    /// Adds a port. Returns false if it was already in the set.
    pub fn insert(&mut self, port: u16) -> bool {
        assert!(port != 0, "port 0 cannot be connected to");
        let (word, bit) = (usize::from(port >> 6), 1 << (port & 63));
        if let Storage::Bits(words) = &mut self.ports
            && let Some(ports) = words.get_mut(word)
        {
            let is_new = *ports & bit == 0;
            *ports |= bit;
            self.len += u32::from(is_new);
            return is_new;
        }
        self.insert_in_list(port)
    }

    /// Adds a port to a list, or to bits that are too short for it.
    #[inline(never)]
    fn insert_in_list(&mut self, port: u16) -> bool {
        let len = self.len();
        if let Some(ports) = self.list_mut() {
            let Err(place) = ports[..len].binary_search(&port) else { return false };
            if len < ports.len() {
                ports.copy_within(place..len, place + 1);
                ports[place] = port;
                self.len += 1;
                return true;
            }
        }
        self.make_room(port);
        self.insert(port)
    }

    /// Adds every port of a range, a word at a time. The range must not be empty or contain port 0.
    #[inline(never)]
    pub fn insert_range(&mut self, range: RangeInclusive<u16>) {
        let (first, last) = range.into_inner();
        assert!(first != 0, "port 0 cannot be connected to");
        assert!(first <= last, "the range is not empty");
        let words = match &self.ports {
            Storage::Bits(words) => words.len(),
            Storage::Few(_) | Storage::List(_) => 0,
        };
        if words <= usize::from(last >> 6) && self.len() + usize::from(last - first) < LIST_MAX {
            for port in first..=last {
                self.insert(port);
            }
            return;
        }
        let (low, high) = (usize::from(first >> 6), usize::from(last >> 6));
        let mut added = 0;
        // A slice is used, so that its bounds are checked once.
        for (word, ports) in (low..).zip(&mut self.reach(high)[low..=high]) {
            let from = if word == low { first & 63 } else { 0 };
            let to = if word == high { last & 63 } else { 63 };
            let mask = u64::MAX << from & u64::MAX >> (63 - to);
            added += (mask & !*ports).count_ones();
            *ports |= mask;
        }
        self.len += added;
        assert!(self.contains(first) && self.contains(last), "both ends are in the set");
    }

    /// The ports in ascending order, unless they are stored as bits.
    fn list(&self) -> Option<&[u16]> {
        match &self.ports {
            Storage::Few(ports) => Some(&ports[..self.len()]),
            Storage::List(ports) => Some(&ports[..self.len()]),
            Storage::Bits(_) => None,
        }
    }

    /// All entries of a list, including those that are not used.
    const fn list_mut(&mut self) -> Option<&mut [u16]> {
        match &mut self.ports {
            Storage::Few(ports) => Some(ports),
            Storage::List(ports) => Some(ports),
            Storage::Bits(_) => None,
        }
    }

    /// Makes room for another port, in a list or in bits, whichever is smaller.
    #[inline(never)]
    fn make_room(&mut self, port: u16) {
        let highest = self.last().unwrap_or(0).max(port);
        if let Some(entries) = list_entries(self.len() + 1, highest) {
            self.become_list(entries);
        } else {
            self.reach(usize::from(highest >> 6));
        }
    }

    /// Stores the ports in a list of this number of entries.
    #[inline(never)]
    fn become_list(&mut self, entries: usize) {
        let mut few = [0; FEW_MAX];
        let mut many =
            if entries > FEW_MAX { vec![0; entries].into_boxed_slice() } else { [].into() };
        let list = if entries > FEW_MAX { &mut many[..] } else { &mut few };
        list.iter_mut().zip(self.iter()).for_each(|(entry, port)| *entry = port);
        self.ports = if entries > FEW_MAX { Storage::List(many) } else { Storage::Few(few) };
    }

    /// The set as bits, which include the word of a port. The length grows to powers of two, so
    /// that this is rare, and the new vector is allocated as zeroed memory: `Vec::resize` would
    /// write every word.
    #[inline(never)]
    fn reach(&mut self, word: usize) -> &mut Vec<u64> {
        debug_assert!(word < 1024, "1,024 words hold every port");
        if let Some(ports) = self.list() {
            let highest = ports.last().map_or(word, |port| word.max(usize::from(port >> 6)));
            let mut words = vec![0; (highest + 1).next_power_of_two()];
            ports.iter().for_each(|port| words[usize::from(port >> 6)] |= 1 << (port & 63));
            self.ports = Storage::Bits(words);
        }
        let Storage::Bits(words) = &mut self.ports else { unreachable!("the ports are bits now") };
        if word >= words.len() {
            let mut longer = vec![0; (word + 1).next_power_of_two()];
            longer[..words.len()].copy_from_slice(words);
            *words = longer;
        }
        words
    }

    /// Returns the heap memory that the set does not need.
    #[inline(never)]
    fn shrink_to_fit(&mut self) {
        let highest = self.last().unwrap_or(0);
        let entries = list_entries(self.len(), highest);
        let Storage::Bits(words) = &mut self.ports else { return };
        if let Some(entries) = entries {
            return self.become_list(entries);
        }
        words.truncate(usize::from(highest >> 6) + 1);
        words.shrink_to_fit();
    }

    /// Adds every port of `other`.
    #[inline(never)]
    pub fn union_with(&mut self, other: &Self) {
        if let Storage::Bits(theirs) = &other.ports {
            let highest = theirs.len().saturating_sub(1);
            for (mine, theirs) in self.reach(highest).iter_mut().zip(theirs) {
                *mine |= theirs;
            }
            self.len = self.count();
        } else {
            for port in other.iter() {
                self.insert(port);
            }
        }
        assert!(self.len >= other.len, "a union contains both sets");
        assert!(!self.contains(0), "neither set contained port 0");
    }

    /// Removes every port of `other`.
    #[inline(never)]
    pub fn subtract(&mut self, other: &Self) {
        let len_before = self.len;
        match (&mut self.ports, &other.ports) {
            (Storage::Bits(mine), Storage::Bits(theirs)) => {
                for (mine, theirs) in mine.iter_mut().zip(theirs) {
                    *mine &= !theirs;
                }
                self.len = self.count();
            }
            (Storage::Bits(_), _) => {
                for port in other.iter() {
                    self.remove(port);
                }
            }
            (Storage::Few(_) | Storage::List(_), _) => {
                *self = self.iter().filter(|port| !other.contains(*port)).collect();
            }
        }
        assert!(self.len <= len_before, "no port was added");
        assert!(len_before - self.len <= other.len, "only ports of `other` were removed");
    }

    /// Removes a port. Returns false if it was not in the set.
    pub fn remove(&mut self, port: u16) -> bool {
        let Storage::Bits(words) = &mut self.ports else { return self.remove_from_list(port) };
        let (word, bit) = (usize::from(port >> 6), 1 << (port & 63));
        let Some(ports) = words.get_mut(word) else { return false };
        let was_there = *ports & bit != 0;
        *ports &= !bit;
        self.len -= u32::from(was_there);
        was_there
    }

    #[inline(never)]
    fn remove_from_list(&mut self, port: u16) -> bool {
        let len = self.len();
        let used = &mut self.list_mut().unwrap_or_default()[..len];
        let Ok(place) = used.binary_search(&port) else { return false };
        used.copy_within(place + 1.., place);
        self.len -= 1;
        true
    }

    /// Whether the set contains `port`.
    pub fn contains(&self, port: u16) -> bool {
        let Storage::Bits(words) = &self.ports else { return self.find_in_list(port).is_ok() };
        words.get(usize::from(port >> 6)).is_some_and(|ports| ports >> (port & 63) & 1 == 1)
    }

    /// The lowest port of the set that is not below `from`; `from` may be 65,536, for which the
    /// result is `None`.
    pub fn next_from(&self, from: u32) -> Option<u16> {
        let Storage::Bits(words) = &self.ports else { return self.next_in_list(from) };
        let mut word = (from >> 6) as usize;
        let mut bits = *words.get(word)? >> (from & 63) << (from & 63);
        while bits == 0 {
            word += 1;
            bits = *words.get(word)?;
        }
        Some((word as u16) << 6 | bits.trailing_zeros() as u16)
    }

    #[inline(never)]
    fn next_in_list(&self, from: u32) -> Option<u16> {
        let place = self.find_in_list(u16::try_from(from).ok()?).unwrap_or_else(|place| place);
        self.list()?.get(place).copied()
    }

    /// The place of a port in the list, or the place at which it would be inserted.
    #[inline(never)]
    fn find_in_list(&self, port: u16) -> Result<usize, usize> {
        self.list().unwrap_or_default().binary_search(&port)
    }

    /// The ports in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = u16> + '_ {
        let mut from = 0;
        std::iter::from_fn(move || {
            let port = self.next_from(from)?;
            from = u32::from(port) + 1;
            Some(port)
        })
    }

    /// The lowest range `(first, last)` of the set's ports that are not below `from`, which may be
    /// 65,536.
    pub fn next_range_from(&self, from: u32) -> Option<(u16, u16)> {
        let first = self.next_from(from)?;
        let last = self.run_end(first);
        assert!(last >= first, "a run contains its first port");
        Some((first, last))
    }

    /// The ports as ranges `(first, last)`, ascending and not adjacent.
    pub fn ranges(&self) -> impl Iterator<Item = (u16, u16)> + '_ {
        let mut from = 0;
        std::iter::from_fn(move || {
            let range = self.next_range_from(from)?;
            from = u32::from(range.1) + 1;
            Some(range)
        })
    }

    /// The ports as ranges, `1-21,23,79-80`; nothing for the empty set. [`PortSet::parse`] reads
    /// the text as the same set.
    pub fn display_ranges(&self) -> impl fmt::Display + '_ {
        Ranges(self)
    }

    /// Keeps the lowest ranges that [`PortSet::display_ranges`] can write into `room` bytes, and at
    /// least one. Returns the number of bytes that they take.
    pub fn truncate_ranges(&mut self, room: usize) -> usize {
        let (mut taken, mut cut) = (0, None);
        for (first, last) in self.ranges() {
            let comma = usize::from(taken > 0);
            let dash_and_last = if last > first { 1 + decimal_len(last) } else { 0 };
            let len = comma + decimal_len(first) + dash_and_last;
            if taken > 0 && taken + len > room {
                cut = Some(first);
                break;
            }
            taken += len;
        }
        if let Some(cut) = cut {
            if let Storage::Bits(words) = &mut self.ports {
                let word = usize::from(cut >> 6);
                words[word] &= !(u64::MAX << (cut & 63));
                words.truncate(word + 1);
                self.len = self.count();
            } else {
                self.len = self.iter().take_while(|port| *port < cut).count() as u32;
            }
            assert!(!self.is_empty(), "one range is kept");
        }
        taken
    }

    /// The number of bytes that [`PortSet::display_ranges`] writes.
    pub fn ranges_len(&self) -> usize {
        let len = |(first, last)| {
            let end = if last > first { 1 + decimal_len(last) } else { 0 };
            1 + decimal_len(first) + end
        };
        self.ranges().map(len).sum::<usize>().saturating_sub(1)
    }

    /// The total number of digits of all ports.
    pub fn digits_len(&self) -> usize {
        self.iter().map(decimal_len).sum()
    }

    /// The lowest port.
    pub fn first(&self) -> Option<u16> {
        self.next_from(0)
    }

    /// The highest port.
    pub fn last(&self) -> Option<u16> {
        let Storage::Bits(words) = &self.ports else { return self.list()?.last().copied() };
        let word = words.iter().rposition(|bits| *bits != 0)?;
        Some((word as u16) << 6 | words[word].ilog2() as u16)
    }

    /// The last port of the contiguous run that contains `first`.
    fn run_end(&self, first: u16) -> u16 {
        debug_assert!(self.contains(first), "a run begins at a port of the set");
        let Storage::Bits(words) = &self.ports else { return self.run_end_in_list(first) };
        let mut word = usize::from(first >> 6);
        let mut gaps = !words[word] >> (first & 63) << (first & 63);
        while gaps == 0 {
            word += 1;
            gaps = !words.get(word).copied().unwrap_or_default();
        }
        // The result is not below `first`, whose own bit is not a gap, so the subtraction cannot
        // wrap.
        (((word as u32) << 6 | gaps.trailing_zeros()) - 1) as u16
    }

    #[inline(never)]
    fn run_end_in_list(&self, first: u16) -> u16 {
        let run = self.list().unwrap_or_default().iter().skip_while(|port| **port < first);
        let run = run.zip(first..=u16::MAX).take_while(|(port, expected)| *port == expected);
        run.last().map_or(first, |(port, _)| *port)
    }

    /// The number of bits that are set, which is the correct value of `len`.
    fn count(&self) -> u32 {
        match &self.ports {
            Storage::Few(_) | Storage::List(_) => self.len,
            Storage::Bits(words) => words.iter().map(|ports| ports.count_ones()).sum(),
        }
    }

    /// The number of bytes of heap memory that the set takes.
    pub const fn heap_bytes(&self) -> usize {
        match &self.ports {
            Storage::Few(_) => 0,
            Storage::List(ports) => ports.len() * size_of::<u16>(),
            Storage::Bits(words) => words.capacity() * size_of::<u64>(),
        }
    }

    /// The number of ports in the set, 0 to 65,535.
    pub const fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether the set is empty.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl FromIterator<u16> for PortSet {
    fn from_iter<I: IntoIterator<Item = u16>>(ports: I) -> Self {
        let mut set = Self::new();
        for port in ports {
            set.insert(port);
        }
        set
    }
}

impl fmt::Debug for PortSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PortSet({} ports)", self.len)
    }
}

/// The number of entries of a list for `len` ports up to `highest`; `None` if bits take less memory
/// or the list would be too long.
const fn list_entries(len: usize, highest: u16) -> Option<usize> {
    let entries = len.next_power_of_two();
    let words = (highest as usize / 64 + 1).next_power_of_two();
    let is_smaller = entries * size_of::<u16>() < words * size_of::<u64>();
    let is_list = entries <= FEW_MAX || entries <= LIST_MAX && is_smaller;
    if is_list { Some(entries) } else { None }
}

/// The number of digits of a port, which is not 0.
const fn decimal_len(port: u16) -> usize {
    port.ilog10() as usize + 1
}

struct Ranges<'a>(&'a PortSet);

impl fmt::Display for Ranges<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (first, last)) in self.0.ranges().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            if first == last {
                write!(f, "{comma}{first}")?;
            } else {
                write!(f, "{comma}{first}-{last}")?;
            }
        }
        Ok(())
    }
}

/// Parses a port: decimal digits, 1 to 65,535.
pub fn parse_port(text: &str) -> Result<u16, DecimalError> {
    let port = parse_decimal(text, 1..=u64::from(u16::MAX))?;
    assert!(port != 0 && port <= u64::from(u16::MAX), "`parse_decimal` keeps to its range");
    Ok(port as u16)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::port_set::list::PortsReason;
    use crate::spelling::quote;

    fn ports(text: &str) -> PortSet {
        PortSet::parse(text).unwrap()
    }

    #[test]
    fn a_list_of_ports_is_read_in_any_order_with_overlaps_and_open_ends() {
        let check = |text: &str, expected: &str, len: usize| {
            let set = ports(text);
            assert_eq!(set.display_ranges().to_string(), expected, "{text}");
            assert_eq!(set.len(), len, "{text}");
            assert_eq!(set.iter().count(), len, "{text}");
            assert_eq!(ports(expected), set, "the displayed text is parsed to the same set");
        };
        check("22", "22", 1);
        check("007", "7", 1);
        check("22,80,8000-8100,60000-", "22,80,8000-8100,60000-65535", 5639);
        check("-100", "1-100", 100);
        check("1-", "1-65535", 65_535);
        check("65535", "65535", 1);
        check("65535-", "65535", 1);
        check("-1", "1", 1);
        check("80,22,80,22", "22,80", 2);
        check("10-20,15-25,26", "10-26", 17);
        check("63,64,65", "63-65", 3);
        check("1-63,65-127,128-", "1-63,65-65535", 65_534);
        check("64-127", "64-127", 64);
        check("9-9", "9", 1);
        check("TOP:1,Top:2", "23,80", 2);
    }

    #[test]
    fn the_error_of_a_list_quotes_the_item_and_gives_its_position() {
        let check = |text: &str, expected: &str| {
            assert_eq!(PortSet::parse(text).unwrap_err().to_string(), expected);
        };
        check("", &format!("\"\" at offset 1: {EMPTY}"));
        check("0", "\"0\" at offset 1: must be from 1 to 65535");
        check("65536", "\"65536\" at offset 1: must be from 1 to 65535");
        check("22,0-5", "\"0-5\" at offset 4: must be from 1 to 65535");
        check("9-3", "\"9-3\" at offset 1: the range runs backwards");
        check("1-2-3", &format!("\"1-2-3\" at offset 1: {FORM}"));
        check("1--3", &format!("\"1--3\" at offset 1: {FORM}"));
        check(",", &format!("\"\" at offset 1: {EMPTY}"));
        check("22,", &format!("\"\" at offset 4: {EMPTY}"));
        check("22,,80", &format!("\"\" at offset 4: {EMPTY}"));
        check("a", &format!("\"a\" at offset 1: {FORM}"));
        check(
            "80,T:22",
            "\"T:22\" at offset 4: only TCP ports are scanned, and written without a l\
            etter",
        );
        check("22, 80", &format!("\" 80\" at offset 4: {FORM}"));
        check("+22", &format!("\"+22\" at offset 1: {FORM}"));
        check("0x16", &format!("\"0x16\" at offset 1: {FORM}"));
        check("1_000", &format!("\"1_000\" at offset 1: {FORM}"));
        for item in ["22/tcp", "*", "all", "22;80", "22:80", "22 80", "udp", "tcp:80", "80 "] {
            check(item, &format!("\"{item}\" at offset 1: {FORM}"));
        }
        check("22,HTTP", "\"HTTP\" at offset 4: the name of a service; write 80");
        check(
            "8000–8100",
            "\"8000–8100\" at offset 1: the character U+2013 is no hyphen; write '-'",
        );
        let digit = "the character U+FF12 is not ASCII; write its ASCII form";
        check("22,２２", &format!("\"２２\" at offset 4: {digit}"));
        check("-", "\"-\" at offset 1: the range needs a first or a last port");
        check("1\n2", &format!("\"1\\n2\" at offset 1: {FORM}"));
        check(&"9".repeat(20), &format!("\"{}\" at offset 1: {}", "9".repeat(20), TOO_LONG));
        check(&"9".repeat(40), &format!("\"{}…\" at offset 1: {}", "9".repeat(32), TOO_LONG));
    }

    const EMPTY: &str =
        "a port is missing; write 22,80,8000-8100 without blanks, or 1-65535 for all";
    const FORM: &str = "no port or range; write 22,80,8000-8100 without blanks, or 1-65535 for all";
    const TOO_LONG: &str = "a number has at most 19 digits";

    #[test]
    fn every_short_list_is_read_back_or_has_an_error_position_within_it() {
        let mut texts = vec![String::new()];
        for _ in 0..5 {
            let longer = |text: &String| "019-,".chars().map(|c| format!("{text}{c}")).collect();
            texts = texts.iter().flat_map(|text| -> Vec<String> { longer(text) }).collect();
            for text in &texts {
                match PortSet::parse(text) {
                    Ok(set) => assert!(ports(&set.display_ranges().to_string()) == set, "{text}"),
                    Err(error) => {
                        let rest = &text[error.offset - 1..];
                        let item = rest.split(',').next().unwrap();
                        assert_eq!(error.item, quote(item), "{text}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_list_of_a_hundred_thousand_items_is_refused() {
        let error = PortSet::parse(&vec!["1"; 100_000].join(",")).unwrap_err();
        assert_eq!((error.reason, error.offset), (PortsReason::TooMany, 2 * 65_535 + 1));
        assert_eq!(PortSet::parse(&vec!["65000-"; 65_535].join(",")).unwrap().len(), 536);
    }

    #[test]
    fn ranges_and_single_ports_make_the_same_set_at_every_word_boundary() {
        let edges = [1u16, 2, 62, 63, 64, 65, 127, 128, 129, 65_471, 65_472, 65_534, 65_535];
        for first in edges {
            for last in edges {
                let mut slow = PortSet::new();
                (first..=last).for_each(|port| assert!(slow.insert(port)));
                let fast = PortSet::from_range(first, last);
                assert_eq!((fast.len(), fast.first(), fast.last()), expected_ends(first, last));
                assert!(fast == slow, "{first}-{last}");
                assert_eq!(fast.ranges().count(), usize::from(first <= last));
            }
        }
    }

    fn expected_ends(first: u16, last: u16) -> (usize, Option<u16>, Option<u16>) {
        match last.checked_sub(first) {
            Some(more) => (usize::from(more) + 1, Some(first), Some(last)),
            None => (0, None, None),
        }
    }

    #[test]
    fn unions_and_differences_have_the_right_ports() {
        let check = |left: &str, right: &str, union: &str, difference: &str| {
            let (mut joined, mut rest) = (ports(left), ports(left));
            joined.union_with(&ports(right));
            rest.subtract(&ports(right));
            assert_eq!(joined.display_ranges().to_string(), union);
            assert_eq!(rest.display_ranges().to_string(), difference);
            assert_eq!((joined.iter().count(), rest.iter().count()), (joined.len(), rest.len()));
        };
        check("1-100", "22,80", "1-100", "1-21,23-79,81-100");
        check("22", "80", "22,80", "22");
        check("22", "22", "22", "");
        check("1-", "-65534", "1-65535", "65535");
        check("60-70", "64-", "60-65535", "60-63");
    }

    #[test]
    fn the_computed_lengths_are_those_of_the_texts() {
        for list in ["1", "9,10,99,100,999,1000,9999,10000,65535", "1-65535", "1-3,5,7-9,60000-"] {
            let ports = PortSet::parse(list).unwrap();
            assert_eq!(ports.ranges_len(), ports.display_ranges().to_string().len(), "{list}");
            let digits: String = ports.iter().map(|port| port.to_string()).collect();
            assert_eq!(ports.digits_len(), digits.len(), "{list}");
        }
        assert_eq!((PortSet::new().ranges_len(), PortSet::new().digits_len()), (0, 0));
    }

    #[test]
    fn as_many_ranges_are_kept_as_fit_into_the_space() {
        let odd: String = (1..=65_535).step_by(2).map(|port| format!("{port},")).collect();
        for list in ["1-9,11,100-65535", "5", "-", "7-8,10-12,1000-1001", &odd] {
            let set = if list == "-" {
                PortSet::from_range(1, 65_535)
            } else {
                ports(list.trim_end_matches(','))
            };
            let text = set.display_ranges().to_string();
            for room in (0..=text.len().min(40)).chain([1000, text.len() - 1, text.len(), 1 << 20])
            {
                let mut kept = set.clone();
                let taken = kept.truncate_ranges(room);
                let shown = kept.display_ranges().to_string();
                assert_eq!(taken, shown.len(), "{room}");
                assert!(taken <= room || kept.ranges().count() == 1, "{shown} into {room}");
                // As many ranges as fit must be present.
                let rest = text.strip_prefix(&*shown).expect("the lowest ranges");
                let next = rest.split(',').nth(1).map_or(0, |range| range.len() + 1);
                assert!(rest.is_empty() || taken + next > room, "{shown} into {room}");
                assert_eq!(kept.iter().count(), kept.len());
            }
        }
        assert_eq!(PortSet::new().truncate_ranges(9), 0);
    }

    #[test]
    fn a_set_with_few_or_many_ports_behaves_like_a_sorted_set() {
        // A linear congruential generator with the constants of Knuth's MMIX.
        let mut state = 7_u64;
        let mut number = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005);
            state = state.wrapping_add(1_442_695_040_888_963_407);
            ((state >> 33) % below) as u16
        };
        for round in 0..300 {
            let (mut set, mut model) = (PortSet::new(), BTreeSet::new());
            for _ in 0..[40, 400][usize::from(round % 10 == 0)] {
                // Ports near each other meet often; scattered ones are stored as a list.
                let base = [0, 60, 65_500, number(60_000)][usize::from(number(3 + round % 2))];
                let port = base + 1 + number(35);
                let other: PortSet = (0..number(12)).map(|_| base + 1 + number(35)).collect();
                match number(6) {
                    0 | 1 => assert_eq!(set.insert(port), model.insert(port)),
                    2 => assert_eq!(set.remove(port), model.remove(&port)),
                    3 => {
                        let last = port.saturating_add(number(12));
                        set.insert_range(port..=last);
                        model.extend(port..=last);
                    }
                    4 => {
                        set.union_with(&other);
                        model.extend(other.iter());
                    }
                    _ => {
                        set.subtract(&other);
                        model.retain(|port| !other.contains(*port));
                    }
                }
                assert_eq!(set.len(), model.len());
                assert!(set.iter().eq(model.iter().copied()), "{set:?}");
                assert_eq!(
                    (set.first(), set.last()),
                    (model.first().copied(), model.last().copied())
                );
                assert_eq!(set.contains(port), model.contains(&port));
                assert_eq!(set, model.iter().copied().collect::<PortSet>());
                let ranges: Vec<u16> =
                    set.ranges().flat_map(|(first, last)| first..=last).collect();
                assert!(ranges.iter().eq(model.iter()), "{set:?}");
            }
        }
    }

    #[test]
    fn a_few_ports_take_no_heap_memory() {
        for list in ["1", "65535", "22,80,443,8080,8443,50000,60000,65535", "65528-"] {
            assert_eq!(ports(list).heap_bytes(), 0, "{list}");
        }
        assert_eq!(ports("1-9").heap_bytes(), 8, "bits take less memory than a list");
        assert_eq!(ports("top:100").heap_bytes(), 256, "a list takes less memory than bits");
        assert_eq!(ports("1-100,60000").heap_bytes(), 256);
        let mut scattered = ports("1-100");
        scattered.insert_range(60_000..=60_001);
        assert_eq!(scattered.heap_bytes(), 256, "bits become a list");
        assert_eq!(ports("1-").heap_bytes(), 8192);
    }

    #[test]
    fn higher_ports_that_were_removed_do_not_affect_equality() {
        let once_high = |text: &str| {
            let mut set = PortSet::parse(text).unwrap();
            set.insert(65_535);
            set.remove(65_535);
            set
        };
        for text in ["1-63", "1-64", "63-64,127", "1-65534"] {
            let (set, other) = (PortSet::parse(text).unwrap(), once_high(text));
            assert_eq!(set, other, "{text}");
            assert_eq!(other, set, "{text}");
            assert_eq!(set.display_ranges().to_string(), text);
            assert_eq!((set.last(), set.len()), (other.last(), other.len()), "{text}");
            assert!(!set.contains(65_535) && !set.clone().remove(65_535), "{text}");
            let mut all = PortSet::parse("65535").unwrap();
            all.union_with(&set);
            assert_eq!(all.len(), set.len() + 1, "{text}");
            all.subtract(&set);
            assert_eq!(all, PortSet::parse("65535").unwrap(), "{text}");
        }
        let different = once_high("1-63");
        assert!(different != once_high("1-62,64"), "the lengths are equal, the ports differ");
    }
}
