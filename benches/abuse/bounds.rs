//! What the limits add up to: the most that the service's own memory may come to.
//!
//! Each row is a number of things times what one of them takes at most, both from `limits`. A
//! buffer counts twice, since it grows by doubling. The kernel's part is not in it: it charges its
//! sockets to the control group, not to the process.

use openports::budget::Shares;
use openports::limits::{self, Settings};

use crate::attacks::Attack;

/// What the process takes with nothing to do: its pages of code and data, and the empty tables.
const BASE_BYTES: usize = 4 * 1024 * 1024;
/// A connection's state, its key, its timer and its entry in the shell's table; measured 600.
const CONNECTION_BYTES: usize = 1024;
/// What a request is kept in while its body comes: its head again, and a place for each field.
const REQUEST_BYTES: usize = limits::HEAD_BYTES_MAX + limits::HEADERS_MAX * 64;
/// The longest answer that is none to a scan: the OpenAPI document has 21 KB, `/metrics` 16.
const PAGE_BYTES: usize = 32 * 1024;
/// What one exchange takes at its widest: while its head comes, or its body, or while a page waits
/// to be sent and the next requests behind it.
const EXCHANGE_BYTES: usize = most([
    2 * limits::INPUT_BYTES_MAX,
    REQUEST_BYTES + 2 * limits::READ_BYTES_MAX,
    PAGE_BYTES + limits::PIPELINED_BYTES_MAX + 2 * limits::READ_BYTES_MAX,
]);
/// Ten sets of ports of 8 KB: the plan, five states, what a stream withholds, and what it has told
/// of three states.
const SCAN_BYTES: usize = 10 * 8 * 1024 + 2048;
/// Beyond which the answer to one scan cannot grow: the line of every port on a probe's page, and
/// the others. All other answers are told piece by piece.
const ANSWER_BYTES: usize = 32 * 65_536 + 4096;
/// A probe's place in its scan, in the core's table and in the shell's, each grown by doubling,
/// and its port where it waits.
const PROBE_BYTES: usize = 2 * (24 + 24 + 16 + 2);
/// Names, questions and both messages of one lookup.
const LOOKUP_BYTES: usize = 8 * 1024;
/// A name with its addresses.
const CACHE_ENTRY_BYTES: usize = 256 + 2 * limits::ADDRESSES_PER_NAME_MAX * 17;

const fn most(numbers: [usize; 3]) -> usize {
    let [a, b, c] = numbers;
    let larger = if a > b { a } else { b };
    if larger > c { larger } else { c }
}

/// One row of the sum.
struct Row {
    what: &'static str,
    count: usize,
    each: usize,
}

/// The rows for a service with so many descriptors and these scans at most.
fn rows(descriptors: usize, scans_max: usize) -> Vec<Row> {
    let settings = Settings { scans_max, ..Settings::default() };
    // Nine are open at the start. Too low a limit is not attacked.
    let shares = Shares::split(descriptors, 9, &settings);
    let Ok(Shares { connections, probes, .. }) = shares else { return Vec::new() };
    let row = |what, count, each| Row { what, count, each };
    vec![
        row("the process at rest", 1, BASE_BYTES),
        row("connections: state", connections, CONNECTION_BYTES),
        row("connections: what is read and written", connections, EXCHANGE_BYTES),
        row("answers to scans that wait to be sent", 1, limits::ANSWER_BYTES_WAITING_MAX),
        row("the answer to a scan that is being written", 3, ANSWER_BYTES),
        row("streams", scans_max.min(connections), 2 * limits::STREAM_BYTES_MAX),
        row("scans of single addresses", limits::ADDRESS_SCANS_MAX + scans_max, SCAN_BYTES),
        row("probes in flight", probes, PROBE_BYTES),
        row("lookups", limits::LOOKUPS_MAX, LOOKUP_BYTES),
        row("names in the cache", limits::CACHE_ENTRIES_MAX, CACHE_ENTRY_BYTES),
        row("resolv.conf and hosts, as they are read", 4, limits::NAME_FILE_BYTES_MAX),
        row("log lines that wait", 2, limits::LOG_BYTES_MAX),
    ]
}

/// The descriptors that a service has for itself where an attack names no limit.
const DESCRIPTORS: usize = 20_000;
/// The default of `--max-scans`.
const SCANS: usize = 64;

/// The sum for a service with the default flags, as a table.
pub(crate) fn table() -> String {
    let rows = rows(DESCRIPTORS, SCANS);
    let kb = |bytes: usize| bytes as f64 / 1024.0;
    let mut text = String::from("| at most | number | each | together |\n|---|---|---|---|\n");
    for Row { what, count, each } in &rows {
        let (one, all) = (kb(*each), kb(count * each) / 1024.0);
        text += &format!("| {what} | {count} | {one:.1} KB | {all:.1} MB |\n");
    }
    let sum: usize = rows.iter().map(|row| row.count * row.each).sum();
    text + &format!("| the sum | | | {:.1} MB |\n", kb(sum) / 1024.0)
}

/// The sum for the service that an attack meets.
pub(crate) fn sum_kb(attack: &Attack) -> u64 {
    let descriptors = attack.descriptors.map_or(DESCRIPTORS, |limit| limit as usize);
    let flags = attack.flags.windows(2).find(|pair| pair[0] == "--max-scans");
    let scans = flags.and_then(|pair| pair[1].parse().ok()).unwrap_or(SCANS);
    let sum: usize = rows(descriptors, scans).iter().map(|row| row.count * row.each).sum();
    sum as u64 / 1024
}
