//! The maximum memory of the service, computed from its limits.
//!
//! Each row is a number of objects times the maximum size of one, both from `limits`. A buffer
//! counts twice, because it grows by doubling. The kernel's memory is not included, because the
//! kernel charges sockets to the control group and not to the process.

use openports::budget::Shares;
use openports::limits::{self, Settings};
use openports::technique::Technique;

use crate::attacks::Attack;

/// The memory of an idle process: its pages of code and data, and the empty tables.
const BASE_BYTES: usize = 4 * 1024 * 1024;
/// A connection's state, key, timer and entry in the event loop's table; 600 bytes were measured.
const CONNECTION_BYTES: usize = 1024;
/// The copy of a request's head while its body arrives, and an entry for each field.
const REQUEST_BYTES: usize = limits::HEAD_BYTES_MAX + limits::HEADERS_MAX * 64;
/// The longest response without a scan: the OpenAPI document has 24 KB, and `/metrics` 16 KB.
const PAGE_BYTES: usize = 32 * 1024;
/// The maximum of one request: while its head arrives, while its body arrives, or while a page
/// and the next requests wait.
const PENDING_REQUEST_BYTES: usize = most([
    2 * limits::INPUT_BYTES_MAX,
    REQUEST_BYTES + 2 * limits::READ_BYTES_MAX,
    PAGE_BYTES + limits::PIPELINED_BYTES_MAX + 2 * limits::READ_BYTES_MAX,
]);
/// Ten sets of ports of 8 KB: the plan, five states, the ports that a stream defers, and the ports
/// that it has delivered in three states.
const SCAN_BYTES: usize = 10 * 8 * 1024 + 2048;
/// The maximum response to one scan: a page of the `/probe` route with a line for every port. All
/// other responses are written in pieces.
const RESPONSE_BYTES: usize = 32 * 65_536 + 4096;
/// A probe's entries in its scan, in the core's table and in the event loop's table, which grow by
/// doubling, and its port in a queue.
const PROBE_BYTES: usize = 2 * (24 + 24 + 16 + 2);
/// The names, the questions, both messages and the addresses of one lookup.
const LOOKUP_BYTES: usize = 8 * 1024 + 2 * limits::ADDRESSES_PER_NAME_MAX * 17;
/// A name with its addresses.
const CACHE_ENTRY_BYTES: usize = 256 + 2 * limits::ADDRESSES_PER_NAME_MAX * 17;

const fn most(numbers: [usize; 3]) -> usize {
    let [a, b, c] = numbers;
    let larger = if a > b { a } else { b };
    if larger > c { larger } else { c }
}

struct Row {
    what: &'static str,
    count: usize,
    each: usize,
}

/// Returns the rows for a service with this number of descriptors and this maximum of scans.
fn rows(descriptors: usize, scans_max: usize) -> Vec<Row> {
    let settings = Settings { scans_max, ..Settings::default() };
    // Nine descriptors are open at the start. The limit of every attack is enough for the service.
    let shares = Shares::split(descriptors, 9, &settings);
    let Ok(Shares { connections, probes, .. }) = shares else { return Vec::new() };
    let row = |what, count, each| Row { what, count, each };
    let syn_bytes = Technique::Syn.properties().probe_bytes as usize;
    vec![
        row("idle process", 1, BASE_BYTES),
        row("connections: state", connections, CONNECTION_BYTES),
        row("connections: input and output", connections, PENDING_REQUEST_BYTES),
        row("waiting responses to scans", 1, limits::ANSWER_BYTES_WAITING_MAX),
        row("response to a scan that is being written", 3, RESPONSE_BYTES),
        row("streams", scans_max.min(connections), 2 * limits::STREAM_BYTES_MAX),
        row("scans of single addresses", limits::ADDRESS_SCANS_MAX + scans_max, SCAN_BYTES),
        row("probes in flight", probes[Technique::Connect], PROBE_BYTES),
        row("SYN probes in flight", probes[Technique::Syn], syn_bytes),
        row("lookups", limits::LOOKUPS_MAX, LOOKUP_BYTES),
        row("names in the cache", limits::CACHE_ENTRIES_MAX, CACHE_ENTRY_BYTES),
        row("resolv.conf and hosts while they are read", 4, limits::NAME_FILE_BYTES_MAX),
        row("waiting log lines", 2, limits::LOG_BYTES_MAX),
    ]
}

/// The descriptors of a service without a limit by the attack.
const DESCRIPTORS: usize = 20_000;
/// The default of `--max-scans`.
const SCANS: usize = 64;

/// Returns the sum for a service with the default flags, as a table.
pub(crate) fn table() -> String {
    let rows = rows(DESCRIPTORS, SCANS);
    let kb = |bytes: usize| bytes as f64 / 1024.0;
    let mut text = String::from("| maximum of | number | each | sum |\n|---|---|---|---|\n");
    for Row { what, count, each } in &rows {
        let (one, all) = (kb(*each), kb(count * each) / 1024.0);
        text += &format!("| {what} | {count} | {one:.1} KB | {all:.1} MB |\n");
    }
    let sum: usize = rows.iter().map(|row| row.count * row.each).sum();
    text + &format!("| the sum | | | {:.1} MB |\n", kb(sum) / 1024.0)
}

/// Returns the sum for the service of an attack.
pub(crate) fn sum_kb(attack: &Attack) -> u64 {
    let descriptors = attack.descriptors.map_or(DESCRIPTORS, |limit| limit as usize);
    let flags = attack.flags.windows(2).find(|pair| pair[0] == "--max-scans");
    let scans = flags.and_then(|pair| pair[1].parse().ok()).unwrap_or(SCANS);
    let sum: usize = rows(descriptors, scans).iter().map(|row| row.count * row.each).sum();
    sum as u64 / 1024
}
