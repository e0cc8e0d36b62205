//! The result of a scan with one line for each host, in the form that nmap writes with `-oG`.
//!
//! The manual of nmap calls this format deprecated, but many scripts read it. Fields are separated
//! by tabs. A port has seven fields, separated by slashes: number, state, protocol, owner, service,
//! RPC information and version. This scanner knows the first three and the usual name of the
//! service. This module has no state; `printer` calls it.

use std::fmt::Write;
use std::net::IpAddr;
use std::time::Duration;

use super::printer::{RunInfo, ScannedHost};
use super::xml::date;
use crate::host::unbracketed;
use crate::port_set::PortSet;
use crate::scan::ledger::Counts;
use crate::scan::summary::Summary;

/// The line before the first host.
pub fn write_head(out: &mut Vec<u8>, run: &RunInfo) {
    let (version, when) = (env!("CARGO_PKG_VERSION"), date(run.started));
    let args: String =
        run.args.chars().map(|it| if it.is_control() { '\u{fffd}' } else { it }).collect();
    let text = format!("# openports {version} scan initiated {when} as: {args}\n");
    out.extend_from_slice(text.as_bytes());
}

/// The lines of a target: for each of its addresses the status, and then the ports.
pub fn write_hosts(out: &mut Vec<u8>, summary: &Summary) {
    for ScannedHost { address, counts, open, closed, filtered, unreachable } in
        ScannedHost::all(summary)
    {
        let lists = [("closed", closed), ("filtered", filtered), ("filtered", unreachable)];
        write_host(out, summary, &HostLines { address, counts, open, lists: &lists });
    }
}

/// One address and its ports.
struct HostLines<'a> {
    address: IpAddr,
    counts: Counts,
    open: &'a PortSet,
    /// The other states with their ports: closed, filtered, unreachable. A state has no set if its
    /// ports are not listed.
    lists: &'a [(&'static str, Option<&'a PortSet>)],
}

fn write_host(out: &mut Vec<u8>, summary: &Summary, host: &HostLines) {
    let HostLines { address, counts, open, lists } = *host;
    let is_address = unbracketed(summary.domain).parse::<IpAddr>().is_ok();
    let name = if is_address { "" } else { summary.domain };
    let mut text = format!("Host: {address} ({name})\tStatus: Up\nHost: {address} ({name})");
    let mut ports = open.clone();
    lists.iter().filter_map(|(_, listed)| *listed).for_each(|listed| ports.union_with(listed));
    let mut separator = "\tPorts: ";
    for port in ports.iter() {
        let has_port = |ports: &&PortSet| ports.contains(port);
        let listed = lists.iter().find(|(_, listed)| listed.as_ref().is_some_and(has_port));
        let state = listed.map_or("open", |(state, _)| *state);
        let service = summary.services.map_or("", |services| services.names.of(port));
        // nmap does the same, because a slash ends the field.
        let service = service.replace('/', "|");
        let written = write!(text, "{separator}{port}/{state}/tcp//{service}///");
        assert!(written.is_ok(), "writing to a string never fails");
        separator = ", ";
    }
    let ignored = |place: usize, count| match lists.get(place) {
        Some((_, Some(_))) => 0,
        Some((_, None)) | None => count,
    };
    let states = [
        ("closed", ignored(0, counts.closed)),
        ("filtered", ignored(1, counts.filtered) + ignored(2, counts.unreachable)),
        ("untested", counts.untested),
    ];
    let mut states = states.iter().filter(|(_, count)| *count > 0);
    // nmap writes no state if it would be one of several (output.cc: "Grepable output supports only
    // one ignored state").
    if let (Some((state, count)), None) = (states.next(), states.next()) {
        let written = write!(text, "\tIgnored State: {state} ({count})");
        assert!(written.is_ok(), "writing to a string never fails");
    }
    text.push('\n');
    out.extend_from_slice(text.as_bytes());
}

/// The line after the last host.
pub fn write_tail(out: &mut Vec<u8>, run: &RunInfo, elapsed: Duration, hosts: u64) {
    let (when, took) = (date(run.started + elapsed), elapsed.as_secs_f64());
    let plural = if hosts == 1 { "" } else { "es" };
    let text = format!(
        "# openports done at {when} -- {hosts} IP address{plural} ({hosts} up) scanned in \
         {took:.2} seconds\n"
    );
    out.extend_from_slice(text.as_bytes());
}
