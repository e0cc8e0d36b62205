//! Reads the targets of one command-line run, before they are counted.
//!
//! Each line has one target: a name, an address, a network or a range ([`crate::target_spec`]) and,
//! after blanks, ports for this target alone (`example.com 22,80`). Empty lines are skipped, and so
//! are comments, which begin with `#` and may contain any bytes. A line that cannot be read is
//! reported by its number, and the other lines are used. `shell` drives this module, which opens no
//! file.
//!
//! Names are kept in one text and addresses as numbers, so that ten million lines take some hundred
//! megabytes. Duplicates take no memory, because the lists are compacted as they grow.

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;

use super::port_lists::{COMMON, PortLists};
use super::segments::{AddressSegment, disjoint, subtract};
use super::targets::{Finished, Targets};
use crate::host::{Host, is_localhost, plain_name};
use crate::interfaces::Interfaces;
use crate::limits;
use crate::port_set::PortSet;
use crate::port_set::list::PortsReason;
use crate::spelling::quote;
use crate::target_spec::{AddressRange, Spec, SpecError, TargetHosts};

/// How messages name the flags of a list: by the flag, or by the variable that the value is from.
#[derive(Clone, Debug)]
pub struct Labels {
    /// The flag with the list of targets.
    pub targets: String,
    /// The flag with the excluded ports.
    pub exclude: String,
    /// The flag with the excluded targets.
    pub exclude_targets: String,
}

impl Default for Labels {
    fn default() -> Self {
        Self {
            targets: "--targets".to_owned(),
            exclude: "--exclude".to_owned(),
            exclude_targets: "--exclude-targets".to_owned(),
        }
    }
}

/// The targets read so far, and the ports that they have in common.
#[derive(Clone, Debug)]
pub struct TargetList {
    names: NameList,
    addresses: AddressSegments,
    ports: PortLists,
    excluded_names: Vec<Box<str>>,
    excluded: AddressSegments,
    finished_names: Vec<Box<str>>,
    finished: AddressSegments,
    lines: usize,
    /// Whether a line was UTF-16, which is reported once.
    has_utf16: bool,
    /// The messages about the first faulty targets, each with the target or the line number.
    faults: Vec<String>,
    faults_more: usize,
    /// The first network that was written with host bits, and the network that it means.
    masked: Option<(String, String)>,
    masked_more: usize,
    /// The addresses that were written in another form than the usual one, and this form.
    spellings: BTreeMap<Box<str>, Box<str>>,
    interfaces: Interfaces,
    labels: Labels,
}

impl TargetList {
    /// An empty list. Targets without ports of their own get `ports`. Ports in `exclude` are never
    /// scanned.
    pub fn new(ports: PortSet, exclude: PortSet) -> Self {
        Self {
            names: NameList::default(),
            addresses: AddressSegments::default(),
            ports: PortLists::new(&ports, exclude),
            excluded_names: Vec::new(),
            excluded: AddressSegments::default(),
            finished_names: Vec::new(),
            finished: AddressSegments::default(),
            lines: 0,
            has_utf16: false,
            faults: Vec::new(),
            faults_more: 0,
            masked: None,
            masked_more: 0,
            spellings: BTreeMap::new(),
            interfaces: Interfaces::default(),
            labels: Labels::default(),
        }
    }

    /// Sets the interfaces of this machine, which the zones of link-local targets name.
    #[must_use]
    pub fn with_interfaces(self, interfaces: Interfaces) -> Self {
        Self { interfaces, ..self }
    }

    /// Sets the names of the flags in messages.
    #[must_use]
    pub fn with_labels(self, labels: Labels) -> Self {
        Self { labels, ..self }
    }

    /// Adds a target of the command line.
    pub fn add(&mut self, text: &str, spec: &Spec) {
        if let Err(reason) = self.push_one(text, spec) {
            self.add_fault(format!("TARGET {}: {reason}", quote(text)));
        }
    }

    /// Adds a target with the common ports, unless it names a port itself.
    fn push_one(&mut self, text: &str, spec: &Spec) -> Result<(), String> {
        let ports = match spec.port {
            Some(port) => self.ports.intern(&PortSet::from_range(port, port)),
            None => Some(COMMON),
        };
        self.push(text, spec, ports)
    }

    /// Adds the next line of a list.
    pub fn add_line(&mut self, line: &[u8]) {
        self.lines += 1;
        if let Err(reason) = self.read_line(line) {
            self.add_fault(format!("{}, line {}: {reason}", self.labels.targets, self.lines));
        }
    }

    fn add_fault(&mut self, message: String) {
        if self.faults.len() < limits::TARGET_FAULTS_MAX {
            self.faults.push(message);
        } else {
            self.faults_more += 1;
        }
    }

    /// Adds the lines of a list that is available as a whole.
    pub fn add_lines(&mut self, text: &[u8]) {
        for line in text.split(|byte| *byte == b'\n') {
            self.add_line(line);
        }
    }

    fn read_line(&mut self, line: &[u8]) -> Result<(), String> {
        let Some(entry) = self.entry(line)? else { return Ok(()) };
        let mut words = entry.split_ascii_whitespace();
        let Some(text) = words.next() else { return Ok(()) };
        let spec = Spec::parse_among(text, &self.interfaces).map_err(|error| {
            if let SpecError::SeveralPorts { list } = error {
                return format!("target {}: write its ports behind a blank: {list}", quote(text));
            }
            format!("target {}: {error}", quote(text))
        })?;
        let Some(list) = words.next() else { return self.push_one(text, &spec) };
        let ports = PortSet::parse(list).map_err(|error| {
            match Spec::parse_among(list, &self.interfaces) {
                // The name of a service could be the one of a host, and stands in place of ports.
                Ok(_) if !matches!(error.reason, PortsReason::Service(_)) => {
                    format!("{} is no list of ports; each target needs its own line", quote(list))
                }
                Ok(_) | Err(_) => format!("ports {error}"),
            }
        })?;
        if let Some(word) = words.next() {
            return Err(format!("{} follows target and ports", quote(word)));
        }
        if spec.port.is_some() {
            return Err(format!("{} has a port already", quote(text)));
        }
        let ports = self.ports.intern(&ports);
        self.push(text, &spec, ports)
    }

    /// The part of the current line before its comment; `None` if it is empty.
    fn entry<'a>(&mut self, line: &'a [u8]) -> Result<Option<&'a str>, String> {
        let line = match line.strip_prefix(b"\xef\xbb\xbf") {
            // A byte order mark (Unicode 16.0 section 23.8) precedes a text and does not belong to
            // it.
            Some(rest) if self.lines == 1 => rest,
            Some(_) | None => line,
        };
        let entry = line.split(|byte| *byte == b'#').next().unwrap_or_default();
        // ASCII text in UTF-16 has a NUL at every second byte.
        let is_wide =
            |at| entry.len() > at && entry.iter().skip(at).step_by(2).all(|byte| *byte == 0);
        let has_mark = entry.starts_with(b"\xff\xfe") || entry.starts_with(b"\xfe\xff");
        if has_mark || is_wide(0) || is_wide(1) {
            return match std::mem::replace(&mut self.has_utf16, true) {
                true => Ok(None),
                false => Err("NUL bytes, as in UTF-16: write the list as UTF-8".to_owned()),
            };
        }
        match std::str::from_utf8(entry) {
            Ok(text) => Ok((!text.trim_ascii().is_empty()).then_some(text)),
            Err(_) => Err("the line is not UTF-8".to_owned()),
        }
    }

    /// Adds a target with the set of ports numbered `ports`; `None` if the exclusion left no port.
    fn push(&mut self, text: &str, spec: &Spec, ports: Option<u32>) -> Result<(), String> {
        let Some(ports) = ports.filter(|ports| self.ports.len(*ports) > 0) else {
            return Err(format!("{} leaves no port to scan", self.labels.exclude));
        };
        if self.names.len() + self.addresses.len() >= limits::TARGETS_MAX {
            return Err(format!("there are {} targets already", limits::TARGETS_MAX));
        }
        if let Some(network) = &spec.masked {
            match self.masked {
                None => self.masked = Some((text.to_owned(), network.clone())),
                Some(_) => self.masked_more += 1,
            }
        }
        match &spec.hosts {
            TargetHosts::Name(name) => self.names.push(name, ports)?,
            TargetHosts::Addresses(range) => {
                self.keep_spelling(text, spec.port, range);
                match scoped(range) {
                    Some(text) => self.names.push(&text, ports)?,
                    None => self.addresses.push(range, ports, &mut self.ports),
                }
            }
        }
        Ok(())
    }

    /// Keeps the first form of an address that is not the usual one, for the output. Only an IPv6
    /// address has several forms, and the usual one needs no memory.
    fn keep_spelling(&mut self, text: &str, port: Option<u16>, range: &AddressRange) {
        let host = port.and_then(|_| text.rsplit_once(':')).map_or(text, |(host, _)| host);
        if !host.contains(':') {
            return;
        }
        let usual = scoped(range).unwrap_or_else(|| range.first.to_string());
        // Neither a network nor a range is a host.
        if usual != host && Host::parse_among(host, &self.interfaces).is_ok() {
            self.spellings.entry(usual.into()).or_insert_with(|| host.into());
        }
    }

    /// Removes a target, wherever it is listed. A name is removed with and without its final dot,
    /// because both forms may lead to the same host.
    pub fn exclude(&mut self, spec: &Spec) {
        assert!(spec.port.is_none(), "`Spec::parse_excluded` accepts no port");
        match &spec.hosts {
            TargetHosts::Name(name) => self.excluded_names.push(plain_name(name).into()),
            TargetHosts::Addresses(range) => match scoped(range) {
                Some(text) => self.excluded_names.push(text.into()),
                None => self.excluded.push(range, COMMON, &mut self.ports),
            },
        }
    }

    /// Records that an earlier run has finished a target.
    pub fn finish_target(&mut self, domain: &str) {
        match Spec::parse_among(domain, &self.interfaces) {
            Ok(Spec { hosts: TargetHosts::Addresses(range), .. }) => match scoped(&range) {
                Some(text) => self.finished_names.push(text.into()),
                None => self.finished.push(&range, COMMON, &mut self.ports),
            },
            Ok(_) | Err(_) => self.finished_names.push(domain.to_ascii_lowercase().into()),
        }
    }

    /// Whether all ports of some target are among these.
    pub fn has_ports_within(&self, ports: &PortSet) -> bool {
        self.ports.has_within(ports)
    }

    /// The excluded addresses. A name that resolves to one of them must not be scanned either.
    pub fn excluded_ranges(&self) -> impl Iterator<Item = AddressRange> + '_ {
        self.excluded.ranges()
    }

    /// The targets without duplicates and exclusions.
    ///
    /// # Errors
    /// One sentence: no target is left, or there are more than can be counted.
    pub fn finish(mut self) -> Result<Targets, String> {
        let had_targets = self.names.len() + self.addresses.len() > 0;
        let excluded_names: HashSet<&str> =
            self.excluded_names.iter().map(|name| &**name).collect();
        let names = self.names.distinct(&excluded_names, &mut self.ports);
        self.addresses.compact(&mut self.ports);
        self.excluded.compact(&mut self.ports);
        self.finished.compact(&mut self.ports);
        let v4 = subtract(&self.addresses.v4, &self.excluded.v4);
        let v6 = subtract(&self.addresses.v6, &self.excluded.v6);
        let len = names.len() as u128
            + v4.iter().map(AddressSegment::len).sum::<u128>()
            + v6.iter().map(AddressSegment::len).sum::<u128>();
        let ports_of = |ports: u32| u128::from(self.ports.len(ports));
        let ports_len = names.kinds().map(ports_of).sum::<u128>()
            + v4.iter().map(|it| it.len() * ports_of(it.ports)).sum::<u128>()
            + v6.iter().map(|it| it.len() * ports_of(it.ports)).sum::<u128>();
        if ports_len >= 1 << 62 {
            return Err("these are more targets and ports than can be counted".to_owned());
        }
        if len == 0 && had_targets {
            return Err(format!("{} leaves no target", self.labels.exclude_targets));
        }
        if self.faults_more > 0 {
            self.faults.push(format!("{} more targets are faulty", self.faults_more));
        }
        if len == 0 && self.faults.is_empty() {
            self.faults.push(format!("{}: there is no target", self.labels.targets));
        }
        let note = self.note();
        Ok(Targets {
            names,
            v4,
            v6,
            ports: self.ports,
            finished: Finished {
                names: self.finished_names.into_iter().collect(),
                v4: self.finished.v4,
                v6: self.finished.v6,
            },
            excluded_v4: self.excluded.v4,
            excluded_v6: self.excluded.v6,
            len: len as u64,
            ports_len: ports_len as u64,
            faults: self.faults,
            note,
            spellings: self.spellings,
        })
    }

    fn note(&self) -> Option<String> {
        let (text, network) = self.masked.as_ref()?;
        let note = format!("{text} has host bits, the network {network} is scanned");
        Some(match self.masked_more {
            0 => note,
            more => format!("{note}; and {more} more like it"),
        })
    }
}

/// A link-local address with its zone, which only a text can represent; `None` for all others.
fn scoped(range: &AddressRange) -> Option<String> {
    (range.scope != 0).then(|| format!("{}%{}", range.first, range.scope))
}

/// Names, each with the number of its set of ports.
#[derive(Clone, Debug, Default)]
pub struct NameList {
    text: String,
    /// For each name the position where it ends in the text, and the number of its set of ports.
    items: Vec<(u32, u32)>,
}

impl NameList {
    fn push(&mut self, name: &str, ports: u32) -> Result<(), String> {
        let Ok(end) = u32::try_from(self.text.len() + name.len()) else {
            return Err("the names are longer than 4 GB: cut the list in two".to_owned());
        };
        self.text.push_str(name);
        self.items.push((end, ports));
        Ok(())
    }

    /// The name in the given place.
    pub fn text(&self, place: usize) -> &str {
        let from = place.checked_sub(1).map_or(0, |before| self.items[before].0);
        &self.text[from as usize..self.items[place].0 as usize]
    }

    /// The number of the set of ports of the name in the given place; `None` after the last name.
    pub fn ports(&self, place: usize) -> Option<u32> {
        self.items.get(place).map(|(_, ports)| *ports)
    }

    /// The number of names.
    pub const fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there are no names.
    pub const fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    pub(super) fn kinds(&self) -> impl Iterator<Item = u32> + '_ {
        self.items.iter().map(|(_, ports)| *ports)
    }

    /// Each name once, in the place of its first occurrence, without the excluded names, which have
    /// no final dot. With a final dot a name is another one, because the search list does not apply
    /// to it; `localhost` and the names below it are the same with and without.
    fn distinct(&self, excluded: &HashSet<&str>, lists: &mut PortLists) -> Self {
        let lower = |place: u32| {
            let text = self.text(place as usize);
            let text = match text.strip_suffix('.') {
                Some(plain) if is_localhost(plain) => plain,
                Some(_) | None => text,
            };
            text.bytes().map(|byte| byte.to_ascii_lowercase())
        };
        let mut places: Vec<u32> = (0..self.len() as u32).collect();
        places.sort_unstable_by(|a, b| lower(*a).cmp(lower(*b)).then(a.cmp(b)));
        let mut ports: Vec<Option<u32>> = vec![None; self.len()];
        for same in places.chunk_by(|a, b| lower(*a).eq(lower(*b))) {
            if !excluded.contains(&*plain_name(self.text(same[0] as usize))) {
                let kinds = same.iter().map(|place| self.items[*place as usize].1);
                ports[same[0] as usize] = Some(lists.union(&kinds.collect::<Vec<u32>>()));
            }
        }
        let mut names = Self::default();
        for (place, ports) in ports.iter().enumerate() {
            if let Some(ports) = ports {
                let pushed = names.push(self.text(place), *ports);
                assert!(pushed.is_ok(), "no text has grown");
            }
        }
        names
    }
}

/// Addresses as segments, which may overlap until they are compacted.
#[derive(Clone, Debug, Default)]
struct AddressSegments {
    v4: Vec<AddressSegment<u32>>,
    v6: Vec<AddressSegment<u128>>,
    /// The number of segments at which they are next compacted.
    compact_at: usize,
}

/// The smallest number of segments that is worth a compaction.
const COMPACT_MIN: usize = 1 << 16;

impl AddressSegments {
    fn push(&mut self, range: &AddressRange, ports: u32, lists: &mut PortLists) {
        match (range.first, range.last) {
            (IpAddr::V4(first), IpAddr::V4(last)) => {
                self.v4.push(AddressSegment {
                    first: first.to_bits(),
                    last: last.to_bits(),
                    ports,
                });
            }
            (IpAddr::V6(first), IpAddr::V6(last)) => {
                self.v6.push(AddressSegment {
                    first: first.to_bits(),
                    last: last.to_bits(),
                    ports,
                });
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => {
                unreachable!("a range is of one family")
            }
        }
        if self.len() >= self.compact_at.max(COMPACT_MIN) {
            self.compact(lists);
            self.compact_at = 2 * self.len();
        }
    }

    fn compact(&mut self, lists: &mut PortLists) {
        self.v4 = disjoint(std::mem::take(&mut self.v4), |ports| lists.union(ports));
        self.v6 = disjoint(std::mem::take(&mut self.v6), |ports| lists.union(ports));
    }

    const fn len(&self) -> usize {
        self.v4.len() + self.v6.len()
    }

    fn ranges(&self) -> impl Iterator<Item = AddressRange> + '_ {
        let v4 = self.v4.iter().map(|it| (IpAddr::from(it.first.to_be_bytes()), it.last));
        let v4 = v4.map(|(first, last)| (first, IpAddr::from(last.to_be_bytes())));
        let v6 = self.v6.iter().map(|it| (IpAddr::from(it.first.to_be_bytes()), it.last));
        let v6 = v6.map(|(first, last)| (first, IpAddr::from(last.to_be_bytes())));
        v4.chain(v6).map(|(first, last)| AddressRange { first, last, scope: 0 })
    }
}

#[cfg(test)]
#[path = "list/tests.rs"]
mod tests;
