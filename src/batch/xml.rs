//! The result of a scan as XML, in the form that nmap writes with `-oX`.
//!
//! The document is valid against the DTD of nmap (docs/nmap.dtd of nmap 7), which fixes some words:
//! the scanner is called `nmap` there. The command line in `args` names this program. Ports that
//! are not listed are counted in `extraports`. A port that nmap would call filtered because of an
//! ICMP message is `unreachable` in the other formats of this program. This module has no state;
//! `printer` calls it.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use super::printer::{Outcomes, RunInfo, ScannedHost};
use crate::host::unbracketed;
use crate::port_set::PortSet;
use crate::scan::ledger::Counts;
use crate::scan::summary::Summary;

/// Everything before the first host. `ports` are those that are scanned for at least one target.
pub fn write_head(out: &mut Vec<u8>, run: &RunInfo, ports: &PortSet) {
    let started = run.started.as_secs();
    let startstr = date(run.started);
    let (version, args) = (env!("CARGO_PKG_VERSION"), escape(&run.args));
    let kind = run.technique.label();
    let (count, services) = (ports.len(), ports.display_ranges());
    let text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<!DOCTYPE nmaprun>\n\
         <nmaprun scanner=\"nmap\" args=\"{args}\" start=\"{started}\" startstr=\"{startstr}\" \
         version=\"openports {version}\" xmloutputversion=\"1.05\">\n\
         <scaninfo type=\"{kind}\" protocol=\"tcp\" numservices=\"{count}\" \
         services=\"{services}\"/>\n\
         <verbose level=\"0\"/>\n<debugging level=\"0\"/>\n"
    );
    out.extend_from_slice(text.as_bytes());
}

/// A target, written as one host for each of its addresses. `ended` is the end of its scan, as the
/// time since 1970.
pub fn write_hosts(out: &mut Vec<u8>, ended: Duration, summary: &Summary) {
    for host in ScannedHost::all(summary) {
        let lists = [
            ("closed", "conn-refused", host.closed),
            ("filtered", "no-response", host.filtered),
            ("filtered", "host-unreach", host.unreachable),
        ];
        let element = HostElement { address: host.address, open: host.open, lists };
        write_host(out, ended, summary, &element, host.counts);
    }
}

/// One address, its open ports, and the other ports that are listed individually.
struct HostElement<'a> {
    address: IpAddr,
    open: &'a PortSet,
    /// For each of the states closed, filtered and unreachable: its name, its reason and its ports.
    lists: [(&'static str, &'static str, Option<&'a PortSet>); 3],
}

fn write_host(
    out: &mut Vec<u8>,
    ended: Duration,
    summary: &Summary,
    host: &HostElement,
    counts: Counts,
) {
    let started = ended.saturating_sub(summary.elapsed).as_secs();
    let reason = match counts {
        Counts { open: 1.., .. } => "syn-ack",
        Counts { closed: 1.., .. } => "conn-refused",
        // Nothing answered: the host is assumed to be up because the user requested it, as with
        // -Pn.
        Counts { .. } => "user-set",
    };
    let family = if host.address.is_ipv4() { "ipv4" } else { "ipv6" };
    let mut text = format!(
        "<host starttime=\"{started}\" endtime=\"{}\"><status state=\"up\" reason=\"{reason}\" \
         reason_ttl=\"0\"/>\n\
         <address addr=\"{}\" addrtype=\"{family}\"/>\n<hostnames>\n",
        ended.as_secs(),
        host.address,
    );
    if unbracketed(summary.domain).parse::<IpAddr>().is_err() {
        let name = escape(summary.domain);
        text.push_str(&format!("<hostname name=\"{name}\" type=\"user\"/>\n"));
    }
    text.push_str("</hostnames>\n<ports>");
    push_extraports(&mut text, host, counts);
    let name_of = |port| summary.services.map_or("", |services| services.names.of(port));
    let mut push_ports = |state: &str, reason: &str, ports: &PortSet| {
        for port in ports.iter() {
            text.push_str(&format!(
                "<port protocol=\"tcp\" portid=\"{port}\"><state state=\"{state}\" \
                 reason=\"{reason}\" reason_ttl=\"0\"/>"
            ));
            let name = name_of(port);
            if !name.is_empty() {
                let name = escape(name);
                text.push_str(&format!("<service name=\"{name}\" method=\"table\" conf=\"3\"/>"));
            }
            text.push_str("</port>\n");
        }
    };
    push_ports("open", "syn-ack", host.open);
    for (state, reason, ports) in host.lists {
        if let Some(ports) = ports {
            push_ports(state, reason, ports);
        }
    }
    text.push_str("</ports>\n</host>\n");
    out.extend_from_slice(text.as_bytes());
}

/// Counts the ports of each state that are not listed.
fn push_extraports(text: &mut String, host: &HostElement, counts: Counts) {
    let [closed, filtered, unreachable] = host.lists.map(|(_, _, ports)| ports.is_some());
    let hidden = |count: u32, is_listed: bool| if is_listed { 0 } else { count };
    let closed = hidden(counts.closed, closed);
    let filtered = hidden(counts.filtered, filtered);
    let unreachable = hidden(counts.unreachable, unreachable);
    for (state, reasons) in [
        ("closed", [("conn-refused", closed), ("", 0)]),
        ("filtered", [("no-response", filtered), ("host-unreach", unreachable)]),
        ("untested", [("user-set", counts.untested), ("", 0)]),
    ] {
        let count: u32 = reasons.iter().map(|(_, count)| count).sum();
        if count == 0 {
            continue;
        }
        text.push_str(&format!("<extraports state=\"{state}\" count=\"{count}\">\n"));
        for (reason, count) in reasons.iter().filter(|(_, count)| *count > 0) {
            text.push_str(&format!("<extrareasons reason=\"{reason}\" count=\"{count}\"/>\n"));
        }
        text.push_str("</extraports>\n");
    }
}

/// Everything after the last host.
pub fn write_tail(out: &mut Vec<u8>, run: &RunInfo, elapsed: Duration, outcomes: &Outcomes) {
    let (targets, hosts) = (outcomes.scanned(), outcomes.hosts);
    let ended = run.started + elapsed;
    let (at, when, took) = (ended.as_secs(), date(ended), elapsed.as_secs_f64());
    let exit = match outcomes.is_incomplete {
        false => "exit=\"success\"",
        true => "exit=\"error\" errormsg=\"something was not scanned, or not whole\"",
    };
    let plural = if targets == 1 { "" } else { "s" };
    let text = format!(
        "<runstats><finished time=\"{at}\" timestr=\"{when}\" elapsed=\"{took:.2}\" \
         summary=\"openports done at {when}; {targets} target{plural} scanned in {took:.2} \
         seconds\" {exit}/><hosts up=\"{hosts}\" down=\"0\" total=\"{hosts}\"/>\n\
         </runstats>\n{TAIL}",
    );
    out.extend_from_slice(text.as_bytes());
}

/// The last line of a complete document.
pub const TAIL: &str = "</nmaprun>\n";

/// The date of a time since 1970.
pub(super) fn date(since_1970: Duration) -> String {
    httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + since_1970)
}

/// Escapes a text for an attribute (XML 1.0 sections 2.2 and 2.3). Control characters cannot be
/// represented and are replaced.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\0'..' ' | '\u{fffe}' | '\u{ffff}' => escaped.push('\u{fffd}'),
            _ => escaped.push(character),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_with_a_meaning_in_xml_are_escaped() {
        for (text, expected) in [
            ("scan a -o x.xml", "scan a -o x.xml"),
            ("<&\">'", "&lt;&amp;&quot;&gt;'"),
            ("a\nb\0\u{ffff}", "a\u{fffd}b\u{fffd}\u{fffd}"),
            ("bücher", "bücher"),
        ] {
            assert_eq!(escape(text), expected, "{text:?}");
        }
    }
}
