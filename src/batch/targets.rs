//! The targets of one use from the shell: a list of them, read as a whole and counted.
//!
//! One target a line: a name or an address, and, after blanks, the ports that it alone is scanned
//! for (`example.com 22,80`). Empty lines, and what follows a `#`, are for people. A line that
//! cannot be read is told by its number; the others are as good as without it.
//!
//! Invariants: every target has a port; `first` ascends by the ports of the targets before.

use crate::limits;
use crate::target::{Host, PortSet, quote};

/// A target, and where its ports stand in the space of all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// As it was written.
    pub domain: Box<str>,
    /// What that means.
    pub host: Host,
    /// Its own ports as ranges, before the exclusions; empty: those that all have in common.
    own: Box<[(u16, u16)]>,
    /// The index of its lowest port, see [`crate::batch::shard`].
    pub first: u64,
}

/// A line that names no target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadLine {
    /// Counted from 1.
    pub number: usize,
    /// Why not.
    pub reason: String,
}

/// A list of targets and the ports that they have in common.
#[derive(Clone, Debug)]
pub struct Targets {
    ports: PortSet,
    exclude: PortSet,
    list: Vec<Target>,
    ports_len: u64,
    bad_lines: Vec<BadLine>,
    /// Bad lines beyond those kept.
    bad_lines_more: usize,
}

/// What one target is scanned for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The lowest port asked for, excluded or not.
    pub from_port: u16,
    /// The highest port asked for, excluded or not.
    pub to_port: u16,
    /// What is left of them.
    pub ports: PortSet,
}

impl Targets {
    /// No targets yet; they will have `ports` in common. Nothing in `exclude` is ever scanned.
    pub const fn new(ports: PortSet, exclude: PortSet) -> Self {
        Self {
            ports,
            exclude,
            list: Vec::new(),
            ports_len: 0,
            bad_lines: Vec::new(),
            bad_lines_more: 0,
        }
    }

    /// Adds a target with the common ports.
    ///
    /// # Errors
    /// One sentence, where nothing is left to scan.
    pub fn add(&mut self, domain: &str, host: Host) -> Result<(), String> {
        self.push(domain, host, Box::default())
    }

    /// Adds the targets of a list, each of its lines a target.
    pub fn add_lines(&mut self, text: &[u8]) {
        for (index, line) in text.split(|byte| *byte == b'\n').enumerate() {
            if let Err(reason) = self.add_line(line) {
                if self.bad_lines.len() < limits::BAD_LINES_MAX {
                    self.bad_lines.push(BadLine { number: index + 1, reason });
                } else {
                    self.bad_lines_more += 1;
                }
            }
        }
    }

    fn add_line(&mut self, line: &[u8]) -> Result<(), String> {
        let Ok(line) = std::str::from_utf8(line) else {
            return Err("the line is not UTF-8".to_owned());
        };
        let entry = line.split('#').next().unwrap_or_default();
        let mut words = entry.split_ascii_whitespace();
        let Some(domain) = words.next() else { return Ok(()) };
        let host =
            Host::parse(domain).map_err(|error| format!("target {}: {error}", quote(domain)))?;
        let own = match words.next() {
            Some(list) => {
                let ports = PortSet::parse(list).map_err(|error| format!("ports {error}"))?;
                ports.ranges().collect()
            }
            None => Box::default(),
        };
        if let Some(word) = words.next() {
            return Err(format!("{} follows target and ports", quote(word)));
        }
        self.push(domain, host, own)
    }

    fn push(&mut self, domain: &str, host: Host, own: Box<[(u16, u16)]>) -> Result<(), String> {
        if self.list.len() == limits::TARGETS_MAX {
            return Err(format!("there are {} targets already", limits::TARGETS_MAX));
        }
        let target = Target { domain: domain.into(), host, own, first: self.ports_len };
        let ports_len = self.asked(&target).map_or(0, |asked| asked.ports.len());
        if ports_len == 0 {
            return Err("--exclude leaves no port to scan".to_owned());
        }
        self.ports_len += ports_len as u64;
        self.list.push(target);
        assert!(self.list.len() as u64 <= self.ports_len, "every target has a port");
        Ok(())
    }

    /// What a target of this list is scanned for; `None` only if its ports are empty.
    pub fn asked(&self, target: &Target) -> Option<Asked> {
        let mut ports = PortSet::new();
        for (first, last) in &target.own {
            ports.insert_range(*first..=*last);
        }
        if target.own.is_empty() {
            ports.union_with(&self.ports);
        }
        let (from_port, to_port) = (ports.first()?, ports.last()?);
        ports.subtract(&self.exclude);
        Some(Asked { from_port, to_port, ports })
    }

    /// The target in one place of the list.
    pub fn get(&self, place: usize) -> Option<&Target> {
        self.list.get(place)
    }

    /// How many there are.
    pub const fn len(&self) -> usize {
        self.list.len()
    }

    /// True exactly when there is none.
    pub const fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The ports of all targets together.
    pub const fn ports_len(&self) -> u64 {
        self.ports_len
    }

    /// The lines that name no target, and how many more there were than are kept.
    pub const fn bad_lines(&self) -> (&Vec<BadLine>, usize) {
        (&self.bad_lines, self.bad_lines_more)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(text: &str, ports: &str, exclude: &str) -> Targets {
        let set = |text: &str| match text {
            "" => PortSet::new(),
            _ => PortSet::parse(text).unwrap(),
        };
        let mut targets = Targets::new(set(ports), set(exclude));
        targets.add_lines(text.as_bytes());
        targets
    }

    #[test]
    fn a_line_is_a_target_with_the_common_ports_or_its_own() {
        let text = "# machines\n\nexample.com\n  192.0.2.7\t22,80 # door\r\n[::1] 1-3\n\n";
        let targets = list(text, "1-1024", "80");
        assert_eq!(targets.bad_lines(), (&Vec::new(), 0));
        let shown: Vec<String> = (0..targets.len())
            .filter_map(|place| targets.get(place))
            .map(|target| {
                let Asked { from_port, to_port, ports } = targets.asked(target).unwrap();
                let (domain, ports) = (&target.domain, ports.display_ranges());
                format!("{domain} {from_port}..{to_port} {ports} at {}", target.first)
            })
            .collect();
        let expected = [
            "example.com 1..1024 1-79,81-1024 at 0",
            "192.0.2.7 22..80 22 at 1023",
            "[::1] 1..3 1-3 at 1024",
        ];
        assert_eq!(shown, expected);
        assert_eq!(targets.ports_len(), 1027);
    }

    #[test]
    fn a_target_beside_the_list_has_the_common_ports() {
        let mut targets = list("", "1-10", "5-");
        targets.add("a", Host::parse("a").unwrap()).unwrap();
        assert_eq!((targets.len(), targets.ports_len()), (1, 4));
        let mut targets = list("", "80", "80");
        let error = targets.add("a", Host::parse("a").unwrap()).unwrap_err();
        assert_eq!(error, "--exclude leaves no port to scan");
        assert_eq!(targets.len(), 0);
    }

    #[test]
    fn a_bad_line_is_told_by_number_and_the_others_count() {
        let text = "a\nexa~mple\nb 0\nc 80 x\nd 443\ne";
        let targets = list(text, "80", "443");
        let lines: Vec<String> = targets.bad_lines().0.iter().map(show).collect();
        let expected = [
            "2: target \"exa~mple\": a name has no '~'",
            "3: ports \"0\" at offset 1: must be from 1 to 65535",
            "4: \"x\" follows target and ports",
            "5: --exclude leaves no port to scan",
        ];
        assert_eq!(lines, expected);
        assert_eq!((targets.len(), targets.ports_len()), (2, 2));
    }

    fn show(line: &BadLine) -> String {
        format!("{}: {}", line.number, line.reason)
    }

    #[test]
    fn of_very_many_bad_lines_the_first_are_kept_and_the_rest_counted() {
        let targets = list(&"/\n".repeat(limits::BAD_LINES_MAX + 5), "80", "");
        let (kept, more) = targets.bad_lines();
        assert_eq!((kept.len(), more), (limits::BAD_LINES_MAX, 5));
        assert!(targets.is_empty());
    }

    #[test]
    fn a_line_that_is_not_utf_8_is_bad() {
        let mut targets = Targets::new(PortSet::from_range(1, 1), PortSet::new());
        targets.add_lines(b"a\n\xff\nb");
        let lines: Vec<String> = targets.bad_lines().0.iter().map(show).collect();
        assert_eq!(
            (targets.len(), lines.as_slice()),
            (2, &["2: the line is not UTF-8".to_owned()][..])
        );
    }
}
