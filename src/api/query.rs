//! The query of `/open-ports`: turns parameters into a typed [`ScanRequest`], or reports all their
//! faults.
//!
//! One table, `PARAMETERS`, has a row for each parameter: its name, whether it is required, and the
//! function that reads it. All code that handles parameters iterates over the table, so that a new
//! parameter cannot be known to the parser and unknown to the other code. This module never
//! resolves, admits or starts anything. `api` drives it.
//!
//! Invariant: a [`ScanRequest`] has at least one port, `from_port <= to_port`, and satisfies every
//! bound of the contract. All faulty parameters are reported together, in the order of the table.

use std::borrow::Cow;
use std::fmt::Display;
use std::time::Duration;

use super::problem::{BLANK, InvalidFields};
use crate::host::{Family, Host, HostError};
use crate::interfaces::Interfaces;
use crate::limits::{self, Settings};
use crate::port_set::{PortSet, parse_port};
use crate::scan::options::{
    Addresses, Include, LookupBound, Retries, ScanOptions, Timeout, parse_concurrency,
    parse_deadline, parse_rate,
};
use crate::scan::request::ScanRequest;
use crate::spelling;
use crate::target_spec::{SpecError, read_port};
use crate::technique::{RAW_ADVICE, RawAccess, Technique};

/// A request to `/probe`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeRouteRequest {
    /// The scan to run.
    pub scan: ScanRequest,
    /// The ports that are expected to be open, and no others; the set is empty for `none`. `None`
    /// expects at least one of the scanned ports to be open.
    pub expect: Option<PortSet>,
}

/// One row of the table of parameters.
struct Parameter {
    name: &'static str,
    required: Required,
    /// Stores the value in the draft, or returns one sentence that says what is wrong.
    read: fn(&mut Draft, &str) -> Result<(), String>,
}

/// The condition under which a parameter is required.
#[derive(Clone, Copy)]
enum Required {
    Always,
    /// Required unless `ports` is given.
    WithoutPorts,
    /// Required unless the target has a port, valid or not.
    WithoutTargetPort,
    Never,
}

const PORTS: Parameter =
    row("ports", Required::Never, |draft, text| put(&mut draft.ports, PortSet::parse(text)));
const TIMEOUT: Parameter =
    row("timeout", Required::Never, |draft, text| put(&mut draft.timeout, Timeout::parse(text)));
const DEADLINE: Parameter =
    row("deadline", Required::Never, |draft, text| put(&mut draft.deadline, parse_deadline(text)));
const RETRIES: Parameter = row("retries", Required::Never, |draft, text| {
    put(&mut draft.options.retries, Retries::parse(text))
});
const CONCURRENCY: Parameter = row("concurrency", Required::Never, |draft, text| {
    put(&mut draft.options.concurrency, parse_concurrency(text))
});
const TECHNIQUE: Parameter = row("technique", Required::Never, |draft, text| {
    put(&mut draft.technique, Technique::parse(text))
});
const RATE: Parameter =
    row("rate", Required::Never, |draft, text| put(&mut draft.options.rate, parse_rate(text)));
const FAMILY: Parameter = row("family", Required::Never, |draft, text| {
    put(&mut draft.options.family, Family::parse(text))
});

/// The parameters of `/open-ports`, in the order of the contract.
const PARAMETERS: [Parameter; 14] = [
    row("domain", Required::Always, read_host),
    row("toPort", Required::WithoutPorts, |draft, text| put(&mut draft.to_port, parse_port(text))),
    row("fromPort", Required::Never, |draft, text| put(&mut draft.from_port, parse_port(text))),
    PORTS,
    row("exclude", Required::Never, |draft, text| put(&mut draft.exclude, PortSet::parse(text))),
    TIMEOUT,
    DEADLINE,
    RETRIES,
    CONCURRENCY,
    RATE,
    FAMILY,
    row("addresses", Required::Never, |draft, text| {
        put(&mut draft.options.addresses, Addresses::parse(text))
    }),
    row("include", Required::Never, |draft, text| {
        put(&mut draft.options.include, Include::parse(text))
    }),
    TECHNIQUE,
];

/// The parameters of `/probe`. `target` and `ports` have the names that users of blackbox_exporter
/// expect.
const PROBE_PARAMETERS: [Parameter; 10] = [
    row("target", Required::Always, read_probe_target),
    Parameter { required: Required::WithoutTargetPort, ..PORTS },
    row("expect", Required::Never, |draft, text| put(&mut draft.expect, parse_expect(text))),
    TIMEOUT,
    DEADLINE,
    RETRIES,
    CONCURRENCY,
    RATE,
    FAMILY,
    TECHNIQUE,
];

const fn row(
    name: &'static str,
    required: Required,
    read: fn(&mut Draft, &str) -> Result<(), String>,
) -> Parameter {
    Parameter { name, required, read }
}

/// The values read so far. `None` or the default means that the parameter is missing or faulty.
#[derive(Default)]
struct Draft {
    interfaces: Interfaces,
    domain: Option<(Host, Box<str>)>,
    to_port: Option<u16>,
    from_port: Option<u16>,
    ports: Option<PortSet>,
    /// The port of a `host:port` target.
    target_port: TargetPort,
    exclude: Option<PortSet>,
    timeout: Option<Timeout>,
    technique: Option<Technique>,
    deadline: Option<Duration>,
    /// The values of all other parameters, which start with the defaults of the service.
    options: ScanOptions,
    expect: Option<PortSet>,
}

/// The port in the target of a probe.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum TargetPort {
    /// The target is missing, or has no port.
    #[default]
    Missing,
    /// The target has a port that could not be read.
    Faulty,
    /// The port.
    Port(u16),
}

fn read_host(draft: &mut Draft, text: &str) -> Result<(), String> {
    let host = Host::parse_among(text, &draft.interfaces);
    put(&mut draft.domain, host.map(|host| (host, text.into())))
}

/// Reads a host, or `host:port` as in blackbox_exporter, where an IPv6 address is in brackets.
fn read_probe_target(draft: &mut Draft, text: &str) -> Result<(), String> {
    let (host, port) = match text.rsplit_once(':') {
        // A URL, for which `Host` has a message.
        Some(_) if text.contains("://") => {
            draft.target_port = TargetPort::Faulty;
            (text, None)
        }
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => (host, Some(port)),
        Some(_) | None => (text, None),
    };
    if let Some(port) = port {
        draft.target_port = TargetPort::Faulty;
        let port = read_port(port).map_err(|error| {
            if let SpecError::SeveralPorts { list } = error {
                return format!("one port may follow the colon; give several as ports={list}");
            }
            error.to_string()
        })?;
        draft.target_port = TargetPort::Port(port);
    }
    let host = Host::parse_among(host, &draft.interfaces);
    if host == Err(HostError::NotV6) {
        draft.target_port = TargetPort::Faulty;
        return Err("no IPv6 address; a target is HOST, HOST:PORT or [2001:db8::1]:PORT".to_owned());
    }
    put(&mut draft.domain, host.map(|host| (host, text.into())))
}

/// A list of ports, or `none`.
fn parse_expect(text: &str) -> Result<PortSet, String> {
    if text == "none" {
        return Ok(PortSet::new());
    }
    PortSet::parse(text).map_err(|error| {
        let has_none = text.split(',').any(|item| item.eq_ignore_ascii_case("none"));
        if has_none { "none stands alone, in small letters".to_owned() } else { error.to_string() }
    })
}

/// Stores a value that was read, or returns the reason why it could not be read.
fn put<T, U: Into<T>, E: Display>(slot: &mut T, read: Result<U, E>) -> Result<(), String> {
    *slot = read.map_err(|error| error.to_string())?.into();
    Ok(())
}

/// Reads the query of `/open-ports`, which is encoded as an HTML form.
pub fn parse(query: &str, defaults: &Settings) -> Result<ScanRequest, InvalidFields> {
    let (draft, faults) = read(&PARAMETERS, query, defaults);
    finish(draft, defaults, faults)
}

/// Reads the query of `/probe`. `scrape_timeout` is the time that Prometheus waits, as its header
/// field declares. The scan ends a little earlier, so that its result arrives in time.
pub fn parse_probe(
    query: &str,
    defaults: &Settings,
    scrape_timeout: Option<&str>,
) -> Result<ProbeRouteRequest, InvalidFields> {
    let (mut draft, mut faults) = read(&PROBE_PARAMETERS, query, defaults);
    if let Some(text) = scrape_timeout {
        match parse_scrape_timeout(text) {
            Some(most) => {
                draft.deadline = Some(draft.deadline.map_or(most, |deadline| deadline.min(most)));
            }
            None => faults.push_header(SCRAPE_TIMEOUT, "must be a number of seconds above 0"),
        }
    }
    match (draft.target_port, &draft.ports) {
        (TargetPort::Port(port), None) => draft.ports = Some(PortSet::from_range(port, port)),
        (TargetPort::Port(_), Some(_)) => {
            faults.push("ports", "give ports, or a port in target, but not both");
        }
        // The address may have been written with a port, such as `::1:80`.
        (TargetPort::Missing, None)
            if draft.domain.as_ref().is_some_and(|(_, text)| text.contains(':')) =>
        {
            faults.push("ports", "an IPv6 target with a port is written [2001:db8::1]:80");
        }
        (TargetPort::Missing | TargetPort::Faulty, _) => {}
    }
    // The shortest time applies, because each can be set without knowledge of the others. The
    // deadline leaves time for the end of the connects, so that silent ports are filtered.
    let given = draft.timeout;
    let timeout = given.unwrap_or(Timeout::Fixed(defaults.timeout));
    if let (Some(deadline), Timeout::Fixed(timeout)) = (draft.deadline, timeout) {
        let most = (deadline / 4 * 3).max(limits::TIMEOUT_MIN);
        draft.timeout = Some(Timeout::Fixed(timeout.min(most)));
    }
    // A lookup must not exceed a timeout in the request. The scan after it may, because a silent
    // port is filtered only after a timeout of its own.
    if given.is_some() && given == draft.timeout {
        draft.options.lookup_bound = LookupBound::Timeout;
    }
    let expect = draft.expect.take();
    if let (Some(expect), Some(ports)) = (&expect, &draft.ports)
        && let Some(port) = expect.iter().find(|port| !ports.contains(*port))
    {
        faults.push("expect", &format!("names port {port}, which ports leaves out"));
    }
    let scan = finish(draft, defaults, faults)?;
    Ok(ProbeRouteRequest { scan, expect })
}

/// The header field in which Prometheus sends its timeout.
const SCRAPE_TIMEOUT: &str = "X-Prometheus-Scrape-Timeout-Seconds";
/// How much earlier than the scrape timeout a probe ends. This is the default of blackbox_exporter.
const SCRAPE_MARGIN: Duration = Duration::from_millis(500);

/// The time for the probe, computed from the seconds of the scrape timeout.
fn parse_scrape_timeout(text: &str) -> Option<Duration> {
    let seconds: f64 = text.parse().ok().filter(|seconds| *seconds > 0.0)?;
    // A number that is too large bounds nothing.
    let whole = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
    Some(whole.saturating_sub(SCRAPE_MARGIN).max(whole / 2).max(limits::TIMEOUT_MIN))
}

/// Reads a query with the given table.
fn read(table: &[Parameter], query: &str, defaults: &Settings) -> (Draft, InvalidFields) {
    let pairs: Vec<Pair> = form_urlencoded::parse(query.as_bytes()).collect();
    let mut faults = InvalidFields::default();
    let mut draft = Draft { interfaces: defaults.interfaces.clone(), ..Draft::default() };
    read_known(table, &pairs, &mut draft, &mut faults);
    report_unknown(table, &pairs, &mut faults);
    (draft, faults)
}

type Pair<'a> = (Cow<'a, str>, Cow<'a, str>);

fn is_given(pairs: &[Pair], wanted: &str) -> bool {
    pairs.iter().any(|(name, _)| name == wanted)
}

/// Reads every row of the table. A parameter that is given twice is a fault, and its first value is
/// read.
fn read_known(table: &[Parameter], pairs: &[Pair], draft: &mut Draft, faults: &mut InvalidFields) {
    for Parameter { name, required, read } in table {
        let mut values = pairs.iter().filter(|(given, _)| given == name).map(|(_, value)| value);
        let is_required = match required {
            Required::Always => true,
            Required::WithoutPorts => !is_given(pairs, "ports"),
            Required::WithoutTargetPort => draft.target_port == TargetPort::Missing,
            Required::Never => false,
        };
        let value: &str = match values.next() {
            Some(value) => value,
            // A missing parameter gets every message that a blank one gets.
            None if is_required => "",
            None => continue,
        };
        let is_blank = value.trim().is_empty();
        if is_blank {
            faults.push(name, BLANK);
        }
        // As in the original service, a blank number is reported as a malformed decimal string too.
        if (!is_blank || *name == "toPort")
            && let Err(message) = read(draft, value)
        {
            faults.push(name, &message);
        }
        if values.next().is_some() {
            faults.push(name, "given more than once");
        }
    }
    let is_range = is_given(pairs, "toPort") || is_given(pairs, "fromPort");
    if is_given(pairs, "ports") && is_range {
        faults.push("ports", "give either ports, or toPort and fromPort, but not both");
    }
}

/// Reports each parameter that has no row in the table, together with the nearest name of the
/// table.
fn report_unknown(table: &[Parameter], pairs: &[Pair], faults: &mut InvalidFields) {
    for (given, _) in pairs {
        if faults.is_full() {
            return;
        }
        let name: String = given.chars().take(UNKNOWN_CHARS_MAX).collect();
        let is_known = table.iter().any(|parameter| parameter.name == *given);
        if !is_known && !faults.contains(&name) {
            let message = match nearest(table, &name) {
                Some(nearest) => format!("unknown parameter, did you mean {nearest}?"),
                None if ["module", "debug"].contains(&&*name) => {
                    "blackbox_exporter's parameter has no counterpart here; remove it".to_owned()
                }
                None => "unknown parameter, see /openapi.json".to_owned(),
            };
            faults.push(&name, &message);
        }
    }
}

/// The number of characters of an unknown name that are compared and repeated.
const UNKNOWN_CHARS_MAX: usize = 32;

/// Parameter names of other routes and other scanners, each with the name that this service uses.
const SYNONYMS: [(&str, &str); 12] = [
    ("domain", "target"),
    ("target", "domain"),
    ("host", "domain"),
    ("host", "target"),
    ("hostname", "domain"),
    ("hostname", "target"),
    ("ip", "domain"),
    ("ip", "target"),
    ("port", "ports"),
    ("toPort", "ports"),
    ("fromPort", "ports"),
    ("retry", "retries"),
];

/// The name of the table that is nearest to the given one.
fn nearest(table: &[Parameter], name: &str) -> Option<&'static str> {
    let known = || table.iter().map(|parameter| parameter.name);
    let mut synonyms = SYNONYMS.iter().filter(|(other, _)| other.eq_ignore_ascii_case(name));
    let synonym = synonyms.find_map(|(_, ours)| known().find(|known| known == ours));
    spelling::nearest(name, known())
        .filter(|(_, edits)| *edits == 0)
        .map(|(name, _)| name)
        .or(synonym)
        .or_else(|| spelling::nearest(name, known()).map(|(name, _)| name))
}

/// Checks the parameters that depend on each other, and fills in the defaults.
fn finish(
    mut draft: Draft,
    defaults: &Settings,
    mut faults: InvalidFields,
) -> Result<ScanRequest, InvalidFields> {
    let requested = finish_ports(&mut draft, &mut faults);
    // The timeout may be above the deadline: what is left at the deadline is then untested.
    let timeout = draft.timeout.unwrap_or(Timeout::Fixed(defaults.timeout));
    let technique = draft.technique.unwrap_or(defaults.technique);
    if technique.properties().needs_raw_access && defaults.raw == RawAccess::Denied {
        faults.push("technique", &format!("this service may not send raw packets: {RAW_ADVICE}"));
    }
    let (Some((host, domain)), Some(requested), true) =
        (draft.domain, requested, faults.is_empty())
    else {
        assert!(!faults.is_empty(), "a missing value is a fault");
        return Err(faults);
    };
    assert!(
        !requested.ports.is_empty() && requested.from_port <= requested.to_port,
        "a scan has a port"
    );
    // A deadline above the bound of the server is shortened and not refused.
    let deadline = draft.deadline.unwrap_or(defaults.scan_time_max).min(defaults.scan_time_max);
    Ok(ScanRequest {
        host,
        domain,
        ports: requested.ports,
        from_port: requested.from_port,
        to_port: requested.to_port,
        options: ScanOptions { technique, timeout, deadline, ..draft.options },
    })
}

/// The ports to scan, and the first and last port to report.
struct RequestedPorts {
    ports: PortSet,
    from_port: u16,
    to_port: u16,
}

/// The ports of `ports`, or `fromPort` to `toPort`, without those of `exclude`. Returns `None` if a
/// fault was reported, here or when the parameters were read.
fn finish_ports(draft: &mut Draft, faults: &mut InvalidFields) -> Option<RequestedPorts> {
    let mut ports = match (draft.ports.take(), draft.to_port) {
        (Some(ports), _) => ports,
        (None, Some(to_port)) => {
            let from_port = draft.from_port.unwrap_or(1);
            if from_port > to_port {
                faults.push("fromPort", &format!("must not be above toPort, which is {to_port}"));
                return None;
            }
            PortSet::from_range(from_port, to_port)
        }
        (None, None) => return None,
    };
    let (from_port, to_port) = (ports.first()?, ports.last()?);
    if let Some(exclude) = &draft.exclude {
        ports.subtract(exclude);
    }
    if ports.is_empty() {
        faults.push("exclude", "leaves no port to scan");
        return None;
    }
    Some(RequestedPorts { ports, from_port, to_port })
}

#[cfg(test)]
mod tests {
    use std::num::{NonZeroU16, NonZeroU32};

    use super::*;
    use crate::api::problem::Problem;

    fn read(query: &str) -> Result<ScanRequest, serde_json::Value> {
        parse(query, &Settings::default()).map_err(|faults| serde_json::to_value(faults).unwrap())
    }

    /// Checks that the query is refused for exactly these faults, given as JSON.
    fn check_faults(query: &str, expected: &str) {
        let expected: serde_json::Value = serde_json::from_str(expected).unwrap();
        assert_eq!(read(query), Err(expected), "{query:?}");
    }

    /// Checks that a parameter beside a valid domain and toPort is refused for exactly this fault.
    fn check_fault(parameter: &str, expected: &str) {
        let (name, _) = parameter.split_once('=').unwrap();
        let expected = serde_json::json!({ name: [expected] });
        assert_eq!(read(&format!("domain=a&toPort=80&{parameter}")), Err(expected), "{parameter}");
    }

    #[test]
    fn the_shortest_query_gets_every_default() {
        let request = read("domain=Example.com&toPort=1024").unwrap();
        let expected = ScanRequest {
            host: Host::Name("example.com".into()),
            domain: "Example.com".into(),
            ports: PortSet::from_range(1, 1024),
            from_port: 1,
            to_port: 1024,
            options: ScanOptions {
                technique: Technique::Connect,
                timeout: Timeout::Fixed(Duration::from_secs(2)),
                deadline: Duration::from_secs(300),
                lookup_bound: LookupBound::Deadline,
                retries: Retries::Auto,
                concurrency: None,
                rate: None,
                family: Family::Any,
                addresses: Addresses::First,
                include: Include::default(),
            },
        };
        assert_eq!(request, expected);
    }

    #[test]
    fn every_parameter_is_read_as_the_table_says() {
        let request = read(concat!(
            "include=closed,unreachable,services&addresses=all&family=6&rate=10000000&",
            "concurrency=65535&retries=10&deadline=60s&timeout=1.5s&exclude=80-90&",
            "ports=22%2C80-100,8443&",
            "domain=%5Bfe80::1%253%5D",
        ));
        let expected = ScanRequest {
            host: Host::Address("fe80::1".parse().unwrap(), 3),
            domain: "[fe80::1%3]".into(),
            ports: PortSet::parse("22,91-100,8443").unwrap(),
            from_port: 22,
            to_port: 8443,
            options: ScanOptions {
                technique: Technique::Connect,
                timeout: Timeout::Fixed(Duration::from_millis(1500)),
                deadline: Duration::from_secs(60),
                lookup_bound: LookupBound::Deadline,
                retries: Retries::Exactly(10),
                concurrency: Some(NonZeroU16::MAX),
                rate: NonZeroU32::new(10_000_000),
                family: Family::V6,
                addresses: Addresses::All,
                include: Include {
                    closed: true,
                    filtered: false,
                    unreachable: true,
                    services: true,
                },
            },
        };
        assert_eq!(request, Ok(expected));
    }

    #[test]
    fn further_values_of_each_parameter_are_read() {
        let read = |parameter: &str| read(&format!("domain=a&toPort=80&{parameter}")).unwrap();
        assert_eq!(read("timeout=auto").options.timeout, Timeout::Auto);
        assert_eq!(read("timeout=10ms").options.timeout, Timeout::Fixed(limits::TIMEOUT_MIN));
        assert_eq!(read("timeout=60s").options.timeout, Timeout::Fixed(limits::TIMEOUT_MAX));
        assert_eq!(read("timeout=auto&deadline=10ms").options.deadline, Duration::from_millis(10));
        assert_eq!(read("deadline=2s").options.deadline, Duration::from_secs(2));
        assert_eq!(
            read("deadline=6m").options.deadline,
            Duration::from_secs(300),
            "the server's bound"
        );
        assert_eq!(read("retries=auto").options.retries, Retries::Auto);
        assert_eq!(read("retries=0").options.retries, Retries::Exactly(0));
        assert_eq!(read("concurrency=1").options.concurrency, NonZeroU16::new(1));
        assert_eq!(read("family=4").options.family, Family::V4);
        assert_eq!(read("addresses=first").options.addresses, Addresses::First);
        let filtered = Include { filtered: true, ..Include::default() };
        assert_eq!(read("include=filtered,filtered").options.include, filtered);
        assert_eq!((read("fromPort=80").from_port, read("fromPort=80").ports.len()), (80, 1));
        let rest = read("exclude=-79");
        assert_eq!((rest.from_port, rest.to_port, rest.ports.len()), (1, 80, 1));
        assert_eq!(read("&&").ports.len(), 80, "empty pieces of a form are ignored");
    }

    #[test]
    fn missing_and_blank_have_the_messages_of_the_original() {
        let both = concat!(
            r#"{"domain":["can't be blank"],"#,
            r#""toPort":["can't be blank","invalid decimal string"]}"#
        );
        check_faults("", both);
        check_faults("domain=&toPort=", both);
        check_faults("domain&toPort", both);
        check_faults("toPort=80", r#"{"domain":["can't be blank"]}"#);
        check_faults("domain=a", r#"{"toPort":["can't be blank","invalid decimal string"]}"#);
        check_faults("domain=a&toPort=x", r#"{"toPort":["invalid decimal string"]}"#);
        check_faults("ports=80", r#"{"domain":["can't be blank"]}"#);
        check_faults("domain=%20&toPort=%20+", both);
        check_faults("domain=%20%09&toPort=80", r#"{"domain":["can't be blank"]}"#);
        for name in ["ports", "exclude", "timeout", "retries", "family", "include"] {
            let blank = format!(r#"{{"{name}":["can't be blank"]}}"#);
            let rest = if name == "ports" { "domain=a" } else { "domain=a&toPort=80" };
            check_faults(&format!("{rest}&{name}="), &blank);
            check_faults(&format!("{rest}&{name}=%20"), &blank);
        }
    }

    #[test]
    fn a_decimal_is_digits_and_in_range() {
        for text in [
            "%2B80",
            "+80",
            "-80",
            "0x50",
            "80+",
            "8_0",
            "8e1",
            "80.0",
            "80%00",
            "８０",
            "٨٠",
            "%ff",
            "%EF%BC%98%EF%BC%90",
            "eighty",
            "%",
        ] {
            check_faults(
                &format!("domain=a&toPort={text}"),
                r#"{"toPort":["invalid decimal string"]}"#,
            );
        }
        for text in ["0", "65536", "00000", "9999999999999999999"] {
            check_faults(
                &format!("domain=a&toPort={text}"),
                r#"{"toPort":["must be from 1 to 65535"]}"#,
            );
        }
        check_faults(
            &format!("domain=a&toPort={}", "8".repeat(5000)),
            r#"{"toPort":["a number has at most 19 digits"]}"#,
        );
    }

    #[test]
    fn the_message_of_each_parameter_describes_its_fault() {
        check_fault("fromPort=0", "must be from 1 to 65535");
        check_fault("fromPort=a", "invalid decimal string");
        check_fault("fromPort=81", "must not be above toPort, which is 80");
        check_fault("exclude=1-", "leaves no port to scan");
        check_fault("exclude=9-3", "\"9-3\" at offset 1: the range runs backwards");
        for text in ["0s", "0ms", "9ms", "9.999ms", "61s", "60.001s", "2m"] {
            check_fault(&format!("timeout={text}"), "must be from 10ms to 60s, or auto");
        }
        check_fault("timeout=0", "a duration needs a unit: ms, s or m");
        check_fault("timeout=2", "a duration needs a unit: ms, s or m");
        for text in ["-1s", "1e3s", "Auto", "2h", "%202s", "２s"] {
            let malformed = "not a duration such as 250ms, 2s, 1.5s or 5m";
            check_fault(&format!("timeout={text}"), malformed);
            check_fault(&format!("deadline={text}"), malformed);
        }
        check_fault("deadline=9ms", "must be at least 10ms");
        check_fault("retries=11", "must be from 0 to 10, or auto");
        check_fault("retries=-1", "must be from 0 to 10, or auto");
        check_fault("rate=1e3", "must be from 1 to 10000000");
        check_fault("concurrency=all", "must be from 1 to 65535");
        check_fault("concurrency=0", "must be from 1 to 65535");
        check_fault("concurrency=65536", "must be from 1 to 65535");
        check_fault("rate=0", "must be from 1 to 10000000");
        check_fault("rate=10000001", "must be from 1 to 10000000");
        check_fault("family=5", "must be 4 or 6");
        check_fault("family=04", "must be 4 or 6");
        check_fault("addresses=ALL", "must be first or all");
        check_fault(
            "include=open",
            "\"open\" is none of closed, filtered, unreachable and services",
        );
        check_fault(
            "include=closed,",
            "\"\" is none of closed, filtered, unreachable and services",
        );
    }

    #[test]
    fn the_timeout_of_a_connect_may_be_above_the_deadline_of_the_scan() {
        let check = |query: &str, timeout: u64, deadline: u64| {
            let request = read(&format!("domain=a&toPort=80&{query}")).unwrap();
            let expected = Timeout::Fixed(Duration::from_secs(timeout));
            assert_eq!(request.options.timeout, expected, "{query}");
            assert_eq!(request.options.deadline, Duration::from_secs(deadline), "{query}");
        };
        check("deadline=1s", 2, 1);
        check("deadline=3s", 2, 3);
        check("deadline=1s&timeout=2s", 2, 1);
        check("deadline=1s&timeout=1s", 1, 1);
    }

    #[test]
    fn a_probe_ends_before_the_scrape_timeout() {
        let deadline = |query: &str, header: Option<&str>| {
            let query = format!("target=a&ports=80&{query}");
            parse_probe(&query, &Settings::default(), header)
                .map(|probe| probe.scan.options.deadline)
        };
        let check = |query: &str, header: Option<&str>, millis: u64| {
            assert_eq!(deadline(query, header), Ok(Duration::from_millis(millis)), "{header:?}");
        };
        check("", None, 300_000);
        check("", Some("10"), 9_500);
        check("", Some("10.000000"), 9_500);
        check("", Some("0.6"), 300);
        for large in ["1e300", "1e400", "inf"] {
            check("", Some(large), 300_000);
        }
        check("deadline=2s", Some("10"), 2_000);
        check("deadline=20s", Some("10"), 9_500);
        for header in ["", "0", "-1", "x", "NaN"] {
            let faults = deadline("", Some(header)).unwrap_err();
            assert_eq!(
                Problem::invalid(faults).detail(),
                "Correct the header field X-Prometheus-Scrape-Timeout-Seconds, see invalid_fields."
            );
        }
        let faults = deadline("rate=0&x=1", Some("0")).unwrap_err();
        assert_eq!(
            Problem::invalid(faults).detail(),
            "Correct the query parameters rate and x and the header field \
             X-Prometheus-Scrape-Timeout-Seconds, see invalid_fields."
        );
    }

    #[test]
    fn the_probe_route_has_its_own_parameters() {
        let check = |query: &str, name: &str, message: &str| {
            let faults = parse_probe(query, &Settings::default(), None).unwrap_err();
            let faults = serde_json::to_value(faults).unwrap();
            assert_eq!(faults[name][0], message, "{query}: {faults}");
        };
        check("ports=80", "target", "can't be blank");
        check("target=a", "ports", "can't be blank");
        check("target=a&ports=80&domain=b", "domain", "unknown parameter, did you mean target?");
        check("target=a&toPort=80", "toPort", "unknown parameter, did you mean ports?");
        for name in ["module", "debug"] {
            let message = "blackbox_exporter's parameter has no counterpart here; remove it";
            check(&format!("target=a&ports=80&{name}=x"), name, message);
        }
        check("target=a&ports=80&expect=80,81", "expect", "names port 81, which ports leaves out");
        for list in ["none,80", "80,none", "NONE"] {
            let query = format!("target=a&ports=80&expect={list}");
            check(&query, "expect", "none stands alone, in small letters");
        }
        // The URL may have a port, so ports is not called blank.
        let faults = parse_probe("target=http://a:80", &Settings::default(), None).unwrap_err();
        let expected =
            serde_json::json!({ "target": ["give the host alone, without scheme or path"] });
        assert_eq!(serde_json::to_value(faults).unwrap(), expected);
        let probe = parse_probe("target=a&ports=80-90&expect=80", &Settings::default(), None);
        assert_eq!(probe.unwrap().expect, Some(PortSet::parse("80").unwrap()));
        let probe = parse_probe("target=a&ports=80-90&expect=none", &Settings::default(), None);
        assert_eq!(probe.unwrap().expect, Some(PortSet::new()));
    }

    #[test]
    fn a_target_of_a_probe_may_name_one_port() {
        let read = |query: &str| parse_probe(query, &Settings::default(), None);
        for (target, host) in [
            ("example.com:80", Host::Name("example.com".into())),
            ("192.0.2.7:80", Host::Address([192, 0, 2, 7].into(), 0)),
            ("[::1]:80", Host::Address("::1".parse().unwrap(), 0)),
        ] {
            let scan = read(&format!("target={target}")).unwrap().scan;
            assert_eq!((scan.host, &*scan.domain), (host, target));
            assert_eq!(scan.ports, PortSet::parse("80").unwrap(), "{target}");
        }
        let scan = read("target=2001:db8::1:80&ports=9").unwrap().scan;
        assert_eq!(scan.host, Host::Address("2001:db8::1:80".parse().unwrap(), 0));
        let check = |query: &str, name: &str, message: &str| {
            let faults = serde_json::to_value(read(query).unwrap_err()).unwrap();
            assert_eq!(faults[name][0], message, "{query}: {faults}");
        };
        let faults = serde_json::to_value(read("target=::1:80").unwrap_err()).unwrap();
        let hint = "an IPv6 target with a port is written [2001:db8::1]:80";
        assert_eq!(faults, serde_json::json!({ "ports": ["can't be blank", hint] }));
        check("target=a:80&ports=80", "ports", "give ports, or a port in target, but not both");
        check("target=a:0", "target", "the port \"0\": must be from 1 to 65535");
        check("target=a:", "target", "the port \"\": invalid decimal string");
        check("target=a:ssh", "target", "ssh is the name of a service; write 22");
        let several = "one port may follow the colon; give several as ports=22,80";
        check("target=a:22,80", "target", several);
        check("target=a:x&ports=80", "target", "the port \"x\": invalid decimal string");
        check("target=:80", "target", "can't be blank");
        check("target=http://a:80/", "target", "give the host alone, without scheme or path");
        let check_all = |target: &str, expected: serde_json::Value| {
            let faults = read(&format!("target={target}")).unwrap_err();
            assert_eq!(serde_json::to_value(faults).unwrap(), expected, "{target}");
        };
        let port = "the port \"0\": must be from 1 to 65535";
        check_all("127.0.0.1:0", serde_json::json!({ "target": [port] }));
        let form = "no IPv6 address; a target is HOST, HOST:PORT or [2001:db8::1]:PORT";
        check_all("127.0.0.1:22:33", serde_json::json!({ "target": [form] }));
        let character = "a name has no '~'";
        let both = serde_json::json!({ "target": [character], "ports": ["can't be blank"] });
        check_all("a~b", both);
    }

    #[test]
    fn the_shortest_time_of_a_probe_applies() {
        let check = |query: &str, header: Option<&str>, timeout: u64, deadline: u64| {
            let query = format!("target=a&ports=80&{query}");
            let scan = parse_probe(&query, &Settings::default(), header).unwrap().scan.options;
            let expected = (Timeout::Fixed(Duration::from_millis(timeout)), deadline);
            assert_eq!((scan.timeout, scan.deadline.as_millis() as u64), expected, "{query}");
        };
        check("timeout=5s", Some("5"), 3_375, 4_500);
        check("timeout=5s", Some("10"), 5_000, 9_500);
        check("timeout=5s&deadline=1s", Some("10"), 750, 1_000);
        check("timeout=5s&deadline=1s", None, 750, 1_000);
        check("", Some("2"), 1_125, 1_500);
        check("", Some("0.02"), 10, 10);
        check("deadline=9s", Some("1e300"), 2_000, 9_000);
        let check_lookup = |query: &str, secs: u64| {
            let probe = format!("target=a&ports=80&{query}");
            let probe = parse_probe(&probe, &Settings::default(), None).unwrap();
            assert_eq!(probe.scan.options.lookup_time(), Duration::from_secs(secs), "{query}");
        };
        check_lookup("timeout=5s", 5);
        check_lookup("timeout=5s&deadline=4s", 4);
        check_lookup("timeout=auto&deadline=9s", 9);
        check_lookup("deadline=9s", 9);
    }

    #[test]
    fn a_bad_host_or_list_has_the_message_of_its_parser() {
        let domain = |text: &str, expected: &str| {
            let faults = serde_json::json!({ "domain": [expected] });
            assert_eq!(read(&format!("toPort=80&domain={text}")), Err(faults), "{text}");
        };
        domain(&"a".repeat(254), "a name has at most 253 bytes");
        domain("a..b", "a name has no empty label");
        domain("+a", "remove the blank at its beginning or end");
        domain("a+b", "a name has no ' '");
        domain("a%0d%0ab", "a name has no '\\r'");
        domain("2130706433", &crate::host::HostError::Number.to_string());
        domain(
            "b%C3%BCcher.de",
            "write an international name in its xn-- form (punycode): xn--bcher-kva.de",
        );
        let ports = |text: &str, expected: &str| {
            let faults = serde_json::json!({ "ports": [expected] });
            assert_eq!(read(&format!("domain=a&ports={text}")), Err(faults), "{text}");
        };
        ports("0", "\"0\" at offset 1: must be from 1 to 65535");
        ports("22,65536", "\"65536\" at offset 4: must be from 1 to 65535");
        let form = "no port or range; write 22,80,8000-8100 without blanks, or 1-65535 for all";
        ports("1-2-3", &format!("\"1-2-3\" at offset 1: {form}"));
        let empty = form.replace("no port or range", "a port is missing");
        ports(",", &format!("\"\" at offset 1: {empty}"));
        ports("22,,80", &format!("\"\" at offset 4: {empty}"));
        ports("http", "\"http\" at offset 1: the name of a service; write 80");
        ports("22,+80", &format!("\" 80\" at offset 4: {form}"));
        ports("top:0", "\"top:0\" at offset 1: write top:N, with N from 1 to 1000");
        ports("22,top:70000", "\"top:70000\" at offset 4: write top:N, with N from 1 to 1000");
        ports("top:", "\"top:\" at offset 1: write top:N, with N from 1 to 1000");
        for network in ["10.0.0.0/24", "2001:db8::/120", "127.0.0.1/33"] {
            domain(network, &crate::host::HostError::Network.to_string());
        }
        for range in ["127.0.0.1-3", "10.0.0.1-10.0.1.9"] {
            domain(range, &crate::host::HostError::Range.to_string());
        }
        ports(
            &vec!["1"; 100_000].join(","),
            "\"1\" at offset 131071: a list has at most 65535 items",
        );
    }

    #[test]
    fn ports_and_a_range_exclude_each_other() {
        let both = r#"{"ports":["give either ports, or toPort and fromPort, but not both"]}"#;
        check_faults("domain=a&ports=80&toPort=80", both);
        check_faults("domain=a&ports=80&fromPort=80", both);
        check_faults("domain=a&ports=80&fromPort=80&toPort=90", both);
    }

    #[test]
    fn every_parameter_given_twice_is_named() {
        for Parameter { name, .. } in &PARAMETERS {
            let faults = read(&format!("domain=a&toPort=80&{name}=4&{name}=4")).unwrap_err();
            let messages = faults[name].as_array().unwrap();
            assert!(messages.contains(&"given more than once".into()), "{name}: {faults}");
        }
    }

    #[test]
    fn an_unknown_parameter_is_named_with_the_nearest_known_one() {
        let check = |name: &str, nearest: &str| {
            check_fault(
                &format!("{name}=1"),
                &format!("unknown parameter, did you mean {nearest}?"),
            );
        };
        check("toport", "toPort");
        check("TOPORT", "toPort");
        check("to_port", "toPort");
        check("from", "fromPort");
        check("port", "ports");
        check("host", "domain");
        check("target", "domain");
        check("domian", "domain");
        check("time_out", "timeout");
        check("retry", "retries");
        check("excludes", "exclude");
        for far in ["format", "x", "", "callback", "_", "top"] {
            check_fault(&format!("{far}=1"), "unknown parameter, see /openapi.json");
        }
    }

    #[test]
    fn all_faults_are_reported_together_in_the_order_of_the_table() {
        let faults = parse("x=1&rate=0&toPort=0&", &Settings::default()).unwrap_err();
        assert_eq!(
            serde_json::to_string(&faults).unwrap(),
            concat!(
                r#"{"domain":["can't be blank"],"toPort":["must be from 1 to 65535"],"#,
                r#""rate":["must be from 1 to 10000000"],"#,
                r#""x":["unknown parameter, see /openapi.json"]}"#,
            )
        );
    }

    #[test]
    fn a_flood_of_unknown_parameters_makes_a_small_answer() {
        let flood: String = (0..3000).map(|n| format!("{n:x}&")).collect();
        let faults = serde_json::to_string(&read(&flood).unwrap_err()).unwrap();
        assert!(faults.len() < 100 * limits::INVALID_FIELDS_MAX, "{} bytes", faults.len());
        let long = serde_json::to_string(&read(&"x".repeat(8000)).unwrap_err()).unwrap();
        assert!(long.len() < 300, "{long}");
    }

    #[test]
    fn a_fault_is_reported_for_its_own_parameter_only() {
        check_fault("timeout=x&deadline=1s", "not a duration such as 250ms, 2s, 1.5s or 5m");
        check_faults(
            "domain=a&toPort=x&fromPort=81&exclude=1-",
            r#"{"toPort":["invalid decimal string"]}"#,
        );
        check_faults(
            "domain=a&toPort=80&fromPort=x&exclude=10-",
            r#"{"fromPort":["invalid decimal string"]}"#,
        );
    }

    #[test]
    fn raw_syns_are_sent_by_a_service_with_the_permission_and_refused_by_one_without() {
        let technique = |query: &str, settings: &Settings| {
            let request = parse(&format!("domain=a&toPort=9{query}"), settings);
            request.map(|request| request.options.technique)
        };
        let denied = Settings::default();
        let permitted = Settings { raw: RawAccess::Permitted, ..Settings::default() };
        let by_default = Settings { technique: Technique::Syn, ..permitted.clone() };
        assert_eq!(technique("", &permitted), Ok(Technique::Connect));
        assert_eq!(technique("&technique=syn", &permitted), Ok(Technique::Syn));
        assert_eq!(technique("", &by_default), Ok(Technique::Syn));
        assert_eq!(technique("&technique=connect", &by_default), Ok(Technique::Connect));
        assert_eq!(technique("&technique=connect", &denied), Ok(Technique::Connect));
        let faults = technique("&technique=syn", &denied).unwrap_err();
        assert!(faults.contains("technique"), "the message says what to grant: {faults:?}");
        check_faults(
            "domain=a&toPort=9&technique=SYN",
            r#"{"technique":["must be connect or syn"]}"#,
        );
    }

    #[test]
    fn the_openapi_document_lists_every_parameter_and_no_other() {
        let document: serde_json::Value = serde_json::from_str(super::super::OPENAPI).unwrap();
        let parameters = &document["components"]["parameters"];
        assert_eq!(parameters.as_object().unwrap().len(), PARAMETERS.len());
        let listed = document["paths"]["/open-ports"]["parameters"].as_array().unwrap();
        assert_eq!(listed.len(), PARAMETERS.len());
        for (Parameter { name, required, .. }, listed) in PARAMETERS.iter().zip(listed) {
            assert_eq!(listed["$ref"], format!("#/components/parameters/{name}"));
            assert_eq!(parameters[name]["name"], *name);
            let is_required = matches!(required, Required::Always);
            assert_eq!(parameters[name]["required"], is_required, "{name}");
        }
        assert_eq!(parameters["rate"]["schema"]["maximum"], limits::RATE_MAX);
        assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
    }

    #[test]
    fn the_openapi_document_permits_every_spelling_of_the_most_frequent_ports() {
        let document: serde_json::Value = serde_json::from_str(super::super::OPENAPI).unwrap();
        let item = "([Tt][Oo][Pp]:[0-9]+|[0-9]+(-[0-9]*)?|-[0-9]+)";
        for name in ["ports", "exclude"] {
            let pattern = &document["components"]["parameters"][name]["schema"]["pattern"];
            assert_eq!(*pattern, format!("^{item}(,{item})*$"), "{name}");
        }
        for word in ["top", "Top", "tOp", "TOP"] {
            assert!(read(&format!("domain=a&ports={word}:2,1&exclude={word}:1")).is_ok(), "{word}");
        }
    }

    #[test]
    fn the_openapi_document_lists_every_parameter_of_a_probe_and_no_other() {
        let document: serde_json::Value = serde_json::from_str(super::super::OPENAPI).unwrap();
        let listed = document["paths"]["/probe"]["get"]["parameters"].as_array().unwrap();
        let in_query = listed.iter().filter(|listed| listed["in"] != "header");
        let names: Vec<&str> = in_query
            .map(|listed| listed["name"].as_str().or(listed["$ref"].as_str()).unwrap())
            .map(|name| name.trim_start_matches("#/components/parameters/"))
            .collect();
        assert_eq!(names, PROBE_PARAMETERS.map(|Parameter { name, .. }| name));
        for Parameter { name, required, .. } in &PROBE_PARAMETERS {
            if let Some(own) = listed.iter().find(|listed| listed["name"] == *name) {
                assert_eq!(own["required"], matches!(required, Required::Always), "{name}");
            }
        }
        let header = listed.iter().find(|listed| listed["in"] == "header").unwrap();
        assert_eq!(header["name"], SCRAPE_TIMEOUT);
    }

    #[test]
    fn examples_and_bounds_of_the_openapi_document_are_accepted_and_values_beyond_them_are_not() {
        let document: serde_json::Value = serde_json::from_str(super::super::OPENAPI).unwrap();
        let text = |value: &serde_json::Value| value.to_string().trim_matches('"').to_string();
        let mut accepted = 0;
        for Parameter { name, .. } in &PARAMETERS {
            let schema = &document["components"]["parameters"][name]["schema"];
            let is_accepted = |value: &str| {
                let rest = match *name {
                    "domain" => "toPort=9",
                    "toPort" | "ports" => "domain=a",
                    _ => "domain=a&toPort=65535",
                };
                let settings = Settings { raw: RawAccess::Permitted, ..Settings::default() };
                parse(&format!("{rest}&{name}={value}"), &settings).is_ok()
            };
            let words = ["examples", "enum"].map(|key| schema[key].as_array());
            let bounds = ["minimum", "maximum", "default"].map(|key| schema.get(key));
            for value in words.into_iter().flatten().flatten().chain(bounds.into_iter().flatten()) {
                assert!(is_accepted(&text(value)), "{name}={value}");
                accepted += 1;
            }
            for (bound, step) in [("minimum", -1), ("maximum", 1)] {
                if let Some(bound) = schema[bound].as_i64() {
                    assert!(!is_accepted(&(bound + step).to_string()), "{name} beyond {bound}");
                }
            }
            let is_enum = schema.get("enum").is_some();
            assert!(!is_enum || !is_accepted("other"), "{name} accepts an unlisted value");
        }
        assert!(accepted > 15, "{accepted} values");
    }
}
