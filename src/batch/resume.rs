//! Reads the events of an earlier run and finds the targets that it has finished.
//!
//! The file is the output of `--format ndjson`. A target is finished if its `end` event reports it
//! as complete; a target that failed or was cut short is scanned again. The last line may be
//! incomplete, because a run that is killed leaves such a line, and so may be the last line of each
//! run to which another run was appended. The first event of that run follows it, in the same line
//! or the next, and is never an `end`. Every other line must be an event. A target is not finished
//! if no address of the requested family was scanned, and with `--all-addresses` a name is not
//! finished if the earlier run scanned only one of its addresses: the lookup of that run may have
//! been of one family. A file of a scan of another shard, or whose ports do not contain those of
//! any target, is refused. `shell` calls this module, which opens no file.

use std::collections::HashSet;
use std::net::IpAddr;

use super::list::TargetList;
use super::shard::Shard;
use crate::api::batch_events::{PastEvent, read_past_event};
use crate::host::unbracketed;
use crate::port_set::PortSet;
use crate::scan::options::{Addresses, ScanOptions};

/// Marks the finished targets of a list. Returns the number of ports of all targets in all shards
/// of the earlier run, which must be that of the finished list, because a shard of another list has
/// other ports; `None` if the run scanned everything or began no target.
///
/// # Errors
/// One sentence that names the line with the error.
pub fn mark_finished(
    list: &mut TargetList,
    shard: Shard,
    options: &ScanOptions,
    text: &[u8],
) -> Result<Option<u64>, String> {
    let mut shards_total_seen = None;
    let this_shard = (shard != Shard::WHOLE).then(|| shard.to_string());
    let mut known_ports = HashSet::new();
    // The number of a line that is cut off, until an event follows.
    let mut cut_off = None;
    for (index, line) in text.split(|byte| *byte == b'\n').enumerate() {
        let number = index + 1;
        // Each of several files in one may begin with a byte order mark.
        let line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
        let event = match read_past_event(line) {
            None if line.is_empty() => continue,
            None => {
                // The key cannot be within an event, because JSON escapes quotes in strings.
                let at = line.windows(EVENT_KEY.len()).rposition(|key| key == EVENT_KEY);
                let (cut, appended) = line.split_at(at.unwrap_or(line.len()));
                if !cut.starts_with(EVENT_KEY) && !EVENT_KEY.starts_with(cut) {
                    return Err(no_event(number));
                }
                cut_off = Some(number);
                read_past_event(appended)
            }
            event => event,
        };
        let Some(event) = event else { continue };
        if let (PastEvent::Finished { .. }, Some(number)) = (&event, cut_off.take()) {
            return Err(no_event(number));
        }
        match event {
            PastEvent::Finished { domain, addresses, is_all } => {
                let is_whole = match options.addresses {
                    Addresses::First => true,
                    Addresses::All => is_all || unbracketed(&domain).parse::<IpAddr>().is_ok(),
                };
                if is_whole && addresses.iter().any(|it| options.family.admits(*it)) {
                    list.finish_target(&domain);
                }
            }
            PastEvent::Started { shard, .. } if shard != this_shard => {
                let scanned =
                    shard.map_or("everything".to_owned(), |shard| format!("shard {shard}"));
                return Err(format!("line {number}: the earlier run scanned {scanned}"));
            }
            PastEvent::Started { ports: Some(ports), .. } if !known_ports.contains(&ports) => {
                if PortSet::parse(&ports).is_ok_and(|ports| !list.has_ports_within(&ports)) {
                    return Err(format!(
                        "line {number}: the earlier scan was of other ports, {ports}"
                    ));
                }
                known_ports.insert(ports);
            }
            PastEvent::Started { shards_total: Some(total), .. } => {
                if *shards_total_seen.get_or_insert(total) != total {
                    return Err(format!(
                        "line {number}: this run scanned another list than the first"
                    ));
                }
            }
            PastEvent::Started { .. } | PastEvent::Other => {}
        }
    }
    Ok(shards_total_seen)
}

fn no_event(number: usize) -> String {
    format!("line {number} is no event of an earlier scan; give what --format ndjson printed")
}

/// The beginning of each event.
const EVENT_KEY: &[u8] = br#"{"event":"#;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::targets::Cursor;
    use crate::host::Family;

    fn finished(text: &str) -> Result<Vec<String>, String> {
        finished_of(&ScanOptions::default(), text)
    }

    fn finished_of(options: &ScanOptions, text: &str) -> Result<Vec<String>, String> {
        let mut list = TargetList::new(PortSet::from_range(80, 80), PortSet::new());
        list.add_lines(b"a\nb\n10.0.0.0/30");
        mark_finished(&mut list, Shard::WHOLE, options, text.as_bytes())?;
        let targets = list.finish()?;
        let mut cursor = Cursor::default();
        let all = std::iter::from_fn(|| targets.next(&mut cursor));
        let finished = all.filter(|target| target.is_finished);
        Ok(finished.map(|target| targets.domain(target.id).into_owned()).collect())
    }

    const A: &str = r#"{"event":"end","domain":"a","address":"192.0.2.7","complete":true}"#;
    const MEMBER: &str =
        r#"{"event":"end","domain":"10.0.0.2","address":"10.0.0.2","complete":true}"#;
    const CUT: &str = r#"{"event":"end","domain":"b","complete":false}"#;
    const FAILED: &str = r#"{"event":"failed","domain":"b"}"#;

    #[test]
    fn each_target_may_have_ports_of_its_own() {
        const TARGETS: u16 = 1_000;
        let mut list = TargetList::new(PortSet::from_range(1, u16::MAX), PortSet::new());
        let mut text = String::new();
        for port in 1..=TARGETS {
            list.add_line(format!("name-{port} {port}").as_bytes());
            text += &format!(
                "{{\"event\":\"start\",\"domain\":\"name-{port}\",\"ports\":\"{port}\"}}\n\
                 {{\"event\":\"end\",\"domain\":\"name-{port}\",\"complete\":true}}\n"
            );
        }
        let marked =
            mark_finished(&mut list, Shard::WHOLE, &ScanOptions::default(), text.as_bytes());
        assert_eq!(marked, Ok(None));
    }

    #[test]
    fn a_target_without_a_port_that_is_left_justifies_no_other_ports() {
        let mut list = TargetList::new(PortSet::from_range(80, 80), PortSet::from_range(22, 22));
        list.add_lines(b"a 22\nb");
        let text = r#"{"event":"start","domain":"b","ports":"443"}"#;
        let marked =
            mark_finished(&mut list, Shard::WHOLE, &ScanOptions::default(), text.as_bytes());
        assert_eq!(marked, Err("line 1: the earlier scan was of other ports, 443".to_owned()));
    }

    #[test]
    fn complete_targets_are_finished_and_no_others() {
        let check = |text: &str, expected: &[&str]| {
            assert_eq!(finished(text).unwrap(), expected, "{text}");
        };
        check("", &[]);
        check(&format!("{A}\n{CUT}\n{FAILED}\n{MEMBER}\n"), &["a", "10.0.0.2"]);
        check(&format!("{A}\n{}", &MEMBER[..20]), &["a"]);
        check(&format!("{A}\n{MEMBER}"), &["a", "10.0.0.2"]);
        check(&A[..12], &[]);
        check(&format!("\u{feff}{A}\n\u{feff}{MEMBER}\r\n"), &["a", "10.0.0.2"]);
        check(&format!("\u{feff}{}", &A[..12]), &[]);
        check("\u{feff}", &[]);
        let start = r#"{"event":"start","domain":"b","ports":"80"}"#;
        for len in 1..=A.len() {
            let cut = &A[..len];
            check(&format!("{MEMBER}\n{cut}{start}\n{CUT}\n"), &["10.0.0.2"]);
            check(&format!("{cut}{start}\n{MEMBER}\n"), &["10.0.0.2"]);
            if len >= EVENT_KEY.len() {
                check(&format!("{cut}{cut}{start}\n{MEMBER}\n{cut}{start}"), &["10.0.0.2"]);
            }
            let is_whole = len == A.len();
            let finished = if is_whole { &["a", "10.0.0.2"][..] } else { &["10.0.0.2"] };
            check(&format!("{cut}\n{FAILED}\n{MEMBER}\n"), finished);
        }
        check(&A[..4], &[]);
    }

    #[test]
    fn a_name_is_finished_only_if_the_earlier_run_scanned_what_this_one_requests() {
        let check = |addresses: Addresses, family: Family, text: &str, expected: &[&str]| {
            let options = ScanOptions { addresses, family, ..ScanOptions::default() };
            assert_eq!(finished_of(&options, text).unwrap(), expected, "{options:?} {text}");
        };
        // The other addresses of the name are not known if the lookup was of one family.
        let first = format!("{A}\n{MEMBER}\n");
        let all = r#"{"event":"end","domain":"b","address":"192.0.2.8","complete":true,"results":[
            {"address":"192.0.2.8"},{"address":"2001:db8::8"}],"other_addresses":["192.0.2.9"]}"#;
        let all = all.replace("\n            ", "");
        for family in [Family::Any, Family::V4] {
            check(Addresses::First, family, &first, &["a", "10.0.0.2"]);
            check(Addresses::All, family, &first, &["10.0.0.2"]);
        }
        check(Addresses::First, Family::V6, &first, &[]);
        // A name with more addresses than can be scanned is not scanned again.
        for family in [Family::Any, Family::V4, Family::V6] {
            check(Addresses::First, family, &all, &["b"]);
            check(Addresses::All, family, &all, &["b"]);
        }
        check(Addresses::All, Family::V6, &all.replace("2001:db8::8", "192.0.2.7"), &[]);
    }

    #[test]
    fn an_earlier_scan_of_another_shard_is_refused() {
        let check = |shard: &str, text: &str, is_fit: bool| {
            let mut list = TargetList::new(PortSet::from_range(80, 80), PortSet::new());
            list.add_lines(b"a\nb");
            let shard = Shard::parse(shard).unwrap();
            let result = mark_finished(&mut list, shard, &ScanOptions::default(), text.as_bytes());
            assert_eq!(result.is_ok(), is_fit, "{shard} {text}: {result:?}");
        };
        let first = r#"{"event":"start","domain":"a","shard":"1/2","shards_total":4}"#;
        let other = first.replace("4}", "5}");
        let whole = r#"{"event":"start","domain":"a","ports":"80"}"#;
        for (shard, text, is_fit) in [
            ("1/2", first, true),
            ("1/2", &format!("{first}\n{first}"), true),
            ("1/2", &format!("{first}\n{other}"), false),
            ("0:2", first, true),
            ("2/2", first, false),
            ("1/3", first, false),
            ("1/1", first, false),
            ("1/2", whole, false),
            ("1/1", whole, true),
        ] {
            check(shard, text, is_fit);
        }
    }

    #[test]
    fn an_earlier_scan_of_other_ports_is_refused() {
        let start = |ports: &str| format!(r#"{{"event":"start","domain":"a","ports":"{ports}"}}"#);
        // The list scans port 80.
        for (ports, is_fit) in [("80", true), ("22,79-81", true), ("22", false), ("81-", false)] {
            let result = finished(&format!("{}\n{A}\n", start(ports)));
            assert_eq!(result.is_ok(), is_fit, "{ports}: {result:?}");
            let appended = finished(&format!("{}{}\n", &A[..20], start(ports)));
            assert_eq!(appended.is_ok(), is_fit, "{ports}: {appended:?}");
        }
    }

    #[test]
    fn a_file_that_is_not_a_stream_of_events_is_refused() {
        let check = |text: &str, line: usize| {
            let error = finished(text).unwrap_err();
            assert!(error.starts_with(&format!("line {line} is no event")), "{text}: {error}");
        };
        check("10.0.0.1\n", 1);
        check("10.0.0.1", 1);
        check("[1]\n", 1);
        check(r#"{"from_port":1,"domain":"a","complete":true}"#, 1);
        check(&format!("{A}\n{}\n{A}\n", &A[..9]), 2);
        check("\u{0}\u{1}", 1);
        check(&format!("{A}\n{}{A}\n", &CUT[..20]), 2);
        check(&format!("{A}\nx{FAILED}\n"), 2);
    }
}
