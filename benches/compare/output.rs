//! Parsers for the output of the tools. They return the open ports, or `None` for invalid output.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use serde_json::Value;

/// Parses the output of a tool that scanned `target`, or consecutive addresses beginning with it.
pub(crate) type Read = fn(&str, IpAddr) -> Option<Vec<SocketAddr>>;

/// Parses `{"open_ports":[22,80],…}`, as this project's programs print it.
pub(crate) fn read_json(text: &str, target: IpAddr) -> Option<Vec<SocketAddr>> {
    let value: Value = serde_json::from_str(text).ok()?;
    let ports = value.get("open_ports")?.as_array()?.iter();
    let ports = ports.map(|port| port.as_u64().and_then(|port| port.try_into().ok()));
    ports.map(|port| Some(SocketAddr::new(target, port?))).collect()
}

/// Parses `Host: 10.99.1.1 () Ports: 22/open/tcp//ssh///, 80/open/tcp//http///, Ignored State: …`
/// for each host, with tabs between the parts, and a last line `# Nmap done`. Without an open port
/// there is no `Ports`.
pub(crate) fn read_nmap(text: &str, _: IpAddr) -> Option<Vec<SocketAddr>> {
    if !text.contains("# Nmap done") {
        return None;
    }
    let mut open = Vec::new();
    for line in text.lines() {
        let Some((host, list)) = line.split_once("Ports: ") else { continue };
        let host: IpAddr = host.strip_prefix("Host: ")?.split(' ').next()?.parse().ok()?;
        let list = list.split('\t').next()?.split(", ").filter(|port| port.contains("/open/"));
        for port in list {
            open.push(SocketAddr::new(host, port.split('/').next()?.parse().ok()?));
        }
    }
    Some(open)
}

/// Parses `10.99.1.1 -> [22,80]`, or empty output.
pub(crate) fn read_rustscan(text: &str, target: IpAddr) -> Option<Vec<SocketAddr>> {
    let Some((_, list)) = text.split_once("-> [") else {
        return text.trim().is_empty().then(Vec::new);
    };
    let ports = list.split(']').next()?.split(',').map(|port| port.trim().parse().ok());
    ports.map(|port| Some(SocketAddr::new(target, port?))).collect()
}

/// Parses `open tcp 22 10.99.1.1 1700000000`, between lines that begin with `#`.
pub(crate) fn read_masscan(text: &str, _: IpAddr) -> Option<Vec<SocketAddr>> {
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    lines
        .map(|line| {
            let (port, rest) = line.strip_prefix("open tcp ")?.split_once(' ')?;
            Some(SocketAddr::new(rest.split(' ').next()?.parse().ok()?, port.parse().ok()?))
        })
        .collect()
}

/// Parses `10.99.1.1:22`, as naabu and this project's command line print it.
pub(crate) fn read_host_ports(text: &str, _: IpAddr) -> Option<Vec<SocketAddr>> {
    text.lines().map(|line| line.trim().parse().ok()).collect()
}

/// Parses `10.99.1.1` of a scan of port 80.
pub(crate) fn read_zmap(text: &str, _: IpAddr) -> Option<Vec<SocketAddr>> {
    let address = |line: &str| line.parse::<Ipv4Addr>().ok();
    text.lines().map(|line| Some(SocketAddr::from((address(line)?, 80)))).collect()
}
