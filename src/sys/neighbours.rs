//! Reads the numbers of packets that this machine drops without an error: neighbour tables and
//! queueing disciplines with rtnetlink, connection tracking from its statistics in /proc. No
//! privilege is needed.
//!
//! This file belongs to the module `sys`. The kernel generates a netlink dump within the calls that
//! read it, so the socket is never waited for, and it is closed after each reading. The parsers are
//! pure functions: incomplete and unknown data is skipped. See rtnetlink(7), `struct ndtmsg` and
//! `struct ndmsg`.
//!
//! How the kernel frees entries (`neigh_forced_gc`): an entry is discarded if nothing refers to it,
//! including timers, and if it is FAILED, needs no resolution, or was not updated for five seconds.

use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use socket2::{Domain, Protocol, Socket, Type};

use crate::event::local_drops::{LocalDrops, NeighbourTable};
use crate::limits;

const CONNTRACK: &str = "/proc/net/stat/nf_conntrack";
/// The maximum number of bytes that are read of a dump.
const DUMP_BYTES_MAX: usize = 16 << 20;
const BUFFER_BYTES: usize = 32 << 10;
/// The length of `struct nlmsghdr`.
const HEADER_LEN: usize = 16;
/// The length of a request. Every request has space for the fixed part of the longest requested
/// message.
const REQUEST_LEN: usize = HEADER_LEN + QUEUE_LEN;
/// The length of `struct ndtmsg`, and the numbers of its attributes.
const TABLE_LEN: usize = 4;
const TABLE_NAME: u16 = 1;
const TABLE_THRESHOLD_3: u16 = 4;
const TABLE_CONFIG: u16 = 5;
const TABLE_STATS: u16 = 7;
/// The offsets of `ndtc_entries` in `struct ndt_config` and of `ndts_table_fulls` in `struct
/// ndt_stats`.
const ENTRIES_AT: usize = 4;
const TABLE_FULLS_AT: usize = 80;
/// The length of `struct ndmsg`, and the number of its attribute with `struct nda_cacheinfo`.
const ENTRY_LEN: usize = 12;
const ENTRY_CACHE_INFO: u16 = 3;
/// The number of ticks (USER_HZ, 100 per second) without an update after which the kernel discards
/// an entry.
const UPDATED_TICKS: u32 = 500;
/// The flag of an entry that a routing daemon added. The threshold does not apply to such entries.
const EXTERNALLY_LEARNED: u8 = 0x10;
/// The length of `struct ifaddrmsg`, and the number of its attribute with the address of the
/// network.
const ADDRESS_LEN: usize = 8;
const ADDRESS_PREFIX: u16 = 1;
/// The length of `struct tcmsg`, the number of its attribute with statistics, and the number of the
/// attribute `struct gnet_stats_queue` within it.
const QUEUE_LEN: usize = 20;
const QUEUE_STATS: u16 = 7;
const QUEUE_STATS_QUEUE: u16 = 3;
/// The mask of an attribute's type, without the flags NLA_F_NESTED and NLA_F_NET_BYTEORDER.
const NESTED_MASK: u16 = 0x3fff;
/// The offset of `drops` in `struct gnet_stats_queue`.
const QUEUE_DROPS_AT: usize = 8;

/// One reading of the counters; `None` if the kernel does not report them.
pub fn read_local_drops() -> Option<LocalDrops> {
    let socket_kind = Type::DGRAM.nonblocking().cloexec();
    let protocol = Protocol::from(libc::NETLINK_ROUTE);
    let socket =
        Socket::new_raw(Domain::from(libc::AF_NETLINK), socket_kind, Some(protocol)).ok()?;
    let mut reading = LocalDrops::default();
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut dump = |kind: u16, family: libc::c_int, each: &mut dyn FnMut(&[u8])| {
        socket.send(&request(kind, family)).and_then(|_| read_dump(&socket, &mut buffer, each))
    };
    let each = &mut |body: &[u8]| take_table(body, &mut reading.tables);
    dump(libc::RTM_GETNEIGHTBL, libc::AF_UNSPEC, each).ok()?;
    let mut is_half_full = false;
    for (table, family) in reading.tables.iter_mut().zip([libc::AF_INET, libc::AF_INET6]) {
        let Some(table) = table.as_mut().filter(|table| table.used >= table.entries_max / 2) else {
            continue;
        };
        is_half_full = true;
        let mut discardable = 0;
        let each = &mut |body: &[u8]| discardable += u32::from(is_discardable(body));
        dump(libc::RTM_GETNEIGH, family, each).ok()?;
        table.used = table.used.saturating_sub(discardable);
    }
    if is_half_full {
        let each = &mut |body: &[u8]| reading.networks.extend(network_of(body));
        dump(libc::RTM_GETADDR, libc::AF_UNSPEC, each).ok()?;
    }
    let each = &mut |body: &[u8]| reading.queues += u64::from(queue_drops(body));
    dump(libc::RTM_GETQDISC, libc::AF_UNSPEC, each).ok()?;
    let statistics = super::files::read_file(Path::new(CONNTRACK), limits::NAME_FILE_BYTES_MAX);
    reading.conntrack =
        statistics.map(|statistics| conntrack_drops(&String::from_utf8_lossy(&statistics)));
    Some(reading)
}

/// A request for a dump of one family, or of all families.
fn request(kind: u16, family: libc::c_int) -> [u8; REQUEST_LEN] {
    let mut request = [0; REQUEST_LEN];
    let flags = (libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16;
    request[..4].copy_from_slice(&(REQUEST_LEN as u32).to_ne_bytes());
    request[4..6].copy_from_slice(&kind.to_ne_bytes());
    request[6..8].copy_from_slice(&flags.to_ne_bytes());
    request[HEADER_LEN] = family as u8;
    request
}

/// Passes the body of each message of a dump to `each`.
fn read_dump(socket: &Socket, buffer: &mut [u8], each: &mut dyn FnMut(&[u8])) -> io::Result<()> {
    let mut left = DUMP_BYTES_MAX;
    loop {
        let len = (&*socket).read(buffer)?;
        left = left.checked_sub(len.max(1)).ok_or(io::ErrorKind::InvalidData)?;
        for (kind, body) in Messages(&buffer[..len]) {
            match i32::from(kind) {
                libc::NLMSG_DONE => return Ok(()),
                libc::NLMSG_ERROR => return Err(io::ErrorKind::InvalidData.into()),
                _ => each(body),
            }
        }
    }
}

/// The messages of a datagram, as type and body. The iteration ends at an invalid length.
struct Messages<'a>(&'a [u8]);

impl<'a> Iterator for Messages<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let len = u32_at(self.0, 0)? as usize;
        let kind = u16_at(self.0, 4)?;
        let body = self.0.get(HEADER_LEN..len)?;
        self.0 = self.0.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, body))
    }
}

/// The attributes after the fixed part of a message, as type and value. The iteration ends at an
/// invalid length.
struct Attributes<'a>(&'a [u8]);

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let len = usize::from(u16_at(self.0, 0)?);
        let kind = u16_at(self.0, 2)?;
        let value = self.0.get(4..len)?;
        self.0 = self.0.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    }
}

/// The attributes of a message after its fixed part.
fn attributes(body: &[u8], fixed_len: usize) -> Attributes<'_> {
    Attributes(body.get(fixed_len..).unwrap_or_default())
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_ne_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..at + 8)?.try_into().ok().map(u64::from_ne_bytes)
}

/// Reads one table. Messages about the parameters of a single interface have no threshold and are
/// skipped.
fn take_table(body: &[u8], tables: &mut [Option<NeighbourTable>; 2]) {
    let mut index = None;
    let (mut entries_max, mut used, mut refused) = (None, None, 0);
    for (kind, value) in attributes(body, TABLE_LEN) {
        match kind {
            TABLE_NAME => {
                index = match value {
                    b"arp_cache\0" => Some(0),
                    b"ndisc_cache\0" => Some(1),
                    _ => None,
                };
            }
            TABLE_THRESHOLD_3 => entries_max = u32_at(value, 0),
            TABLE_CONFIG => used = u32_at(value, ENTRIES_AT),
            TABLE_STATS => refused = u64_at(value, TABLE_FULLS_AT).unwrap_or(0),
            _ => {}
        }
    }
    if let (Some(index), Some(entries_max), Some(used)) = (index, entries_max, used) {
        tables[index] = Some(NeighbourTable { entries_max, used, refused });
    }
}

/// Whether the kernel can discard an entry to free space for another one.
fn is_discardable(body: &[u8]) -> bool {
    let (Some(state), Some(flags)) = (u16_at(body, 8), body.get(10)) else { return false };
    if state & libc::NUD_PERMANENT != 0 || flags & EXTERNALLY_LEARNED != 0 {
        return true;
    }
    let info = attributes(body, ENTRY_LEN).find(|(kind, _)| *kind == ENTRY_CACHE_INFO);
    let Some((_, info)) = info else { return false };
    let (Some(updated), Some(references)) = (u32_at(info, 8), u32_at(info, 12)) else {
        return false;
    };
    let is_idle = state & (libc::NUD_FAILED | libc::NUD_NOARP) != 0 || updated > UPDATED_TICKS;
    references == 0 && is_idle
}

/// The network of the address of an interface.
fn network_of(body: &[u8]) -> Option<(IpAddr, u8)> {
    let prefix = *body.get(1)?;
    let (_, value) = attributes(body, ADDRESS_LEN).find(|(kind, _)| *kind == ADDRESS_PREFIX)?;
    let address = match i32::from(*body.first()?) {
        libc::AF_INET if prefix <= 32 => Ipv4Addr::from(<[u8; 4]>::try_from(value).ok()?).into(),
        libc::AF_INET6 if prefix <= 128 => Ipv6Addr::from(<[u8; 16]>::try_from(value).ok()?).into(),
        _ => return None,
    };
    Some((address, prefix))
}

/// The number of packets that one queueing discipline dropped.
fn queue_drops(body: &[u8]) -> u32 {
    let find = |mut attributes: Attributes, wanted: u16| {
        attributes.find(|(kind, _)| *kind & NESTED_MASK == wanted).map(|(_, value)| value.to_vec())
    };
    let stats = find(attributes(body, QUEUE_LEN), QUEUE_STATS).unwrap_or_default();
    let queue = find(Attributes(&stats), QUEUE_STATS_QUEUE).unwrap_or_default();
    u32_at(&queue, QUEUE_DROPS_AT).unwrap_or(0)
}

/// The sum of the column `drop`, which has a hexadecimal number in the line of each processor.
fn conntrack_drops(statistics: &str) -> u64 {
    let mut lines = statistics.lines();
    let names = lines.next().unwrap_or_default();
    let Some(column) = names.split_whitespace().position(|name| name == "drop") else { return 0 };
    let count = |line: &str| u64::from_str_radix(line.split_whitespace().nth(column)?, 16).ok();
    lines.filter_map(count).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = ((value.len() + 4) as u16).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn message(kind: u16, body: &[u8]) -> Vec<u8> {
        let mut bytes = ((HEADER_LEN + body.len()) as u32).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.resize(HEADER_LEN, 0);
        bytes.extend(body);
        bytes
    }

    fn table(name: &[u8], entries: u32, fulls: u64) -> Vec<u8> {
        let mut body = vec![0; TABLE_LEN];
        body.extend(attribute(TABLE_NAME, name));
        body.extend(attribute(TABLE_THRESHOLD_3, &1024_u32.to_ne_bytes()));
        let mut config = [0; 32];
        config[ENTRIES_AT..ENTRIES_AT + 4].copy_from_slice(&entries.to_ne_bytes());
        body.extend(attribute(TABLE_CONFIG, &config));
        let mut stats = [0; 88];
        stats[TABLE_FULLS_AT..].copy_from_slice(&fulls.to_ne_bytes());
        body.extend(attribute(TABLE_STATS, &stats));
        body
    }

    fn entry(state: u16, flags: u8, updated: u32, references: u32) -> Vec<u8> {
        let mut body = vec![0; ENTRY_LEN];
        body[8..10].copy_from_slice(&state.to_ne_bytes());
        body[10] = flags;
        let info = [0, 0, updated, references].map(u32::to_ne_bytes).concat();
        body.extend(attribute(1, &[192, 0, 2, 1]));
        body.extend(attribute(ENTRY_CACHE_INFO, &info));
        body
    }

    fn tables(body: &[u8]) -> [Option<NeighbourTable>; 2] {
        let mut tables = [None; 2];
        take_table(body, &mut tables);
        tables
    }

    #[test]
    fn each_family_has_its_table_and_other_families_are_skipped() {
        let read = |entries, fulls| {
            Some(NeighbourTable { entries_max: 1024, used: entries, refused: fulls })
        };
        assert_eq!(tables(&table(b"arp_cache\0", 7, 9)), [read(7, 9), None]);
        assert_eq!(tables(&table(b"ndisc_cache\0", 1, 1 << 40)), [None, read(1, 1 << 40)]);
        assert_eq!(tables(&table(b"dn_neigh_cache\0", 1, 0)), [None, None]);
        let mut parameters = vec![0; TABLE_LEN];
        parameters.extend(attribute(TABLE_NAME, b"arp_cache\0"));
        assert_eq!(
            tables(&parameters),
            [None, None],
            "a message about the parameters of one interface is skipped"
        );
    }

    #[test]
    fn a_truncated_message_gives_fewer_values_and_never_a_panic() {
        let body = table(b"arp_cache\0", 7, 9);
        for len in 0..body.len() {
            let [v4, v6] = tables(&body[..len]);
            assert!(v6.is_none());
            assert!(v4.is_none_or(|it| it.entries_max == 1024 && it.used == 7), "{len}");
        }
        let body = entry(libc::NUD_FAILED, 0, 0, 0);
        assert!((0..body.len()).all(|len| !is_discardable(&body[..len])));
        let datagram = [message(64, &[1; 8]), message(64, &[2; 4])].concat();
        for len in 0..datagram.len() {
            assert_eq!(Messages(&datagram[..len]).count(), usize::from(len >= 24), "{len}");
        }
    }

    #[test]
    fn impossible_lengths_end_the_parsing() {
        for len in [0, 1, 3, 15, 41, u32::MAX] {
            let mut datagram = message(64, &[1; 24]);
            datagram[..4].copy_from_slice(&len.to_ne_bytes());
            assert_eq!(Messages(&datagram).count(), 0, "{len}");
        }
        for len in [0, 1, 3, 9, u16::MAX] {
            let mut one = attribute(1, &[1; 4]);
            one[..2].copy_from_slice(&len.to_ne_bytes());
            assert_eq!(Attributes(&one).count(), 0, "{len}");
        }
    }

    #[test]
    fn an_entry_is_discardable_by_the_rules_of_the_kernel() {
        let check = |state, flags, updated, references, expected| {
            let body = entry(state, flags, updated, references);
            assert_eq!(is_discardable(&body), expected, "{state} {flags} {updated} {references}");
        };
        check(libc::NUD_INCOMPLETE, 0, 10, 1, false);
        check(libc::NUD_REACHABLE, 0, 1000, 1, false);
        check(libc::NUD_FAILED, 0, 10, 0, true);
        check(libc::NUD_FAILED, 0, 10, 1, false);
        check(libc::NUD_STALE, 0, UPDATED_TICKS, 0, false);
        check(libc::NUD_STALE, 0, UPDATED_TICKS + 1, 0, true);
        check(libc::NUD_PERMANENT, 0, 10, 5, true);
        check(libc::NUD_REACHABLE, EXTERNALLY_LEARNED, 10, 5, true);
    }

    #[test]
    fn an_interface_address_has_its_network() {
        let body = |family: i32, prefix: u8, value: &[u8]| {
            let mut body = vec![family as u8, prefix, 0, 0, 0, 0, 0, 0];
            body.extend(attribute(ADDRESS_PREFIX, value));
            body
        };
        let v4 = body(libc::AF_INET, 20, &[10, 77, 0, 1]);
        assert_eq!(network_of(&v4), Some((Ipv4Addr::new(10, 77, 0, 1).into(), 20)));
        let v6 = body(libc::AF_INET6, 64, &[0xfd; 16]);
        assert_eq!(network_of(&v6), Some((Ipv6Addr::from([0xfd; 16]).into(), 64)));
        assert_eq!(network_of(&body(libc::AF_INET, 33, &[0; 4])), None);
        assert_eq!(network_of(&body(libc::AF_INET, 20, &[0; 5])), None);
        assert_eq!(network_of(&body(libc::AF_PACKET, 20, &[0; 4])), None);
        assert!((0..v4.len()).all(|len| network_of(&v4[..len]).is_none()));
    }

    #[test]
    fn a_queueing_discipline_counts_its_drops() {
        let stats = [1, 2, 77, 3, 4].map(u32::to_ne_bytes).concat();
        for flag in [0, 0x8000] {
            let mut body = vec![0; QUEUE_LEN];
            body.extend(attribute(1, b"tbf\0"));
            let nested = [attribute(1, &[0; 16]), attribute(QUEUE_STATS_QUEUE, &stats)].concat();
            body.extend(attribute(QUEUE_STATS | flag, &nested));
            assert_eq!(queue_drops(&body), 77);
            assert!(
                (0..body.len()).all(|len| queue_drops(&body[..len]) == 0),
                "a truncated message has no drops"
            );
        }
    }

    #[test]
    fn conntrack_has_a_column_of_drops_in_hexadecimal() {
        let statistics = "entries  found drop early_drop\n00000001 00 0000000a 00\n1 0 ff 7\n";
        assert_eq!(conntrack_drops(statistics), 10 + 255);
        for statistics in
            ["", "\n", "entries found\n1 2\n", "entries drop\n1\n", "entries drop\n1 x\n"]
        {
            assert_eq!(conntrack_drops(statistics), 0, "{statistics:?}");
        }
    }

    #[test]
    fn this_machine_has_a_table_for_ipv4() {
        // In a sandbox netlink may not be available.
        if let Some(LocalDrops { tables: [Some(table), _], .. }) = read_local_drops() {
            assert!(table.entries_max > 0, "{table:?}");
        }
    }
}
