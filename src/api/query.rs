//! The query of `/open-ports`: parameters in, a typed [`ScanRequest`] or all their faults out.
//!
//! One table, `PARAMETERS`, has a row for each parameter: its name, whether it is needed, how it
//! is read. Whatever looks at parameters walks the table, so that a new one cannot be known to the
//! parser and unknown to the rest. It never resolves, admits or starts anything.
//!
//! Invariant: a [`ScanRequest`] has a port, `from_port <= to_port`, and every bound of the
//! contract holds for it. All faulty parameters are reported together, in the order of the table.

use std::borrow::Cow;
use std::fmt::Display;
use std::num::{NonZeroU16, NonZeroU32};
use std::time::Duration;

use super::accept::Form;
use super::problem::InvalidFields;
use crate::duration;
use crate::limits::{self, Settings};
use crate::spelling;
use crate::target::manner::{parse_concurrency, parse_deadline, parse_rate};
use crate::target::{Family, Host, PortSet, Retries, Timeout, parse_port, quote};

/// A scan as it was asked for: every value valid, every default filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScanRequest {
    /// The target.
    pub host: Host,
    /// The target as the client wrote it, for the answer.
    pub domain: Box<str>,
    /// The ports to scan, `exclude` taken out; at least one.
    pub ports: PortSet,
    /// `fromPort`, or the lowest port of `ports`.
    pub from_port: u16,
    /// `toPort`, or the highest port of `ports`.
    pub to_port: u16,
    /// Each connect's deadline.
    pub timeout: Timeout,
    /// The whole scan's, at most the server's `scan_time_max`.
    pub deadline: Duration,
    /// Further passes over silent ports.
    pub retries: Retries,
    /// Connects in flight at most; `None`: as many as ports.
    pub concurrency: Option<NonZeroU16>,
    /// New connects per second at most, 1 to [`limits::RATE_MAX`]; `None`: no bound.
    pub rate: Option<NonZeroU32>,
    /// The family the address must have.
    pub family: Family,
    /// Which of the name's addresses are scanned.
    pub addresses: Addresses,
    /// What the answer has beside the open ports.
    pub include: Include,
    /// The form of the answer.
    pub form: Form,
}

/// A probe for Prometheus as it was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeRequest {
    /// What is scanned; its form is of no meaning.
    pub scan: ScanRequest,
    /// The ports that should be open, and no others; `None`: any may be.
    pub expect: Option<PortSet>,
}

/// Which of a name's addresses are scanned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Addresses {
    /// The one to prefer.
    #[default]
    First,
    /// Every one, each reported.
    All,
}

/// What an answer may have beside the open ports; each flag is true exactly when `include` names
/// it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Include {
    /// `closed_ports`.
    pub closed: bool,
    /// `filtered_ports`.
    pub filtered: bool,
    /// `unreachable_ports`.
    pub unreachable: bool,
    /// `services`.
    pub services: bool,
}

/// One row of the contract's table.
struct Parameter {
    name: &'static str,
    needed: Needed,
    /// Puts the value into the draft, or says in one sentence why not.
    read: fn(&mut Draft, &str) -> Result<(), String>,
}

/// When a parameter must be there.
#[derive(Clone, Copy)]
enum Needed {
    Always,
    /// Unless `ports` says what to scan.
    WithoutPorts,
    Never,
}

const PORTS: Parameter =
    row("ports", Needed::Never, |draft, text| put(&mut draft.ports, PortSet::parse(text)));
const TIMEOUT: Parameter =
    row("timeout", Needed::Never, |draft, text| put(&mut draft.timeout, Timeout::parse(text)));
const DEADLINE: Parameter =
    row("deadline", Needed::Never, |draft, text| put(&mut draft.deadline, parse_deadline(text)));
const RETRIES: Parameter =
    row("retries", Needed::Never, |draft, text| put(&mut draft.retries, Retries::parse(text)));
const CONCURRENCY: Parameter = row("concurrency", Needed::Never, |draft, text| {
    put(&mut draft.concurrency, parse_concurrency(text))
});
const RATE: Parameter =
    row("rate", Needed::Never, |draft, text| put(&mut draft.rate, parse_rate(text)));
const FAMILY: Parameter =
    row("family", Needed::Never, |draft, text| put(&mut draft.family, Family::parse(text)));

/// The parameters of `/open-ports`, in the contract's order.
const PARAMETERS: [Parameter; 13] = [
    row("domain", Needed::Always, read_host),
    row("toPort", Needed::WithoutPorts, |draft, text| put(&mut draft.to_port, parse_port(text))),
    row("fromPort", Needed::Never, |draft, text| put(&mut draft.from_port, parse_port(text))),
    PORTS,
    row("exclude", Needed::Never, |draft, text| put(&mut draft.exclude, PortSet::parse(text))),
    TIMEOUT,
    DEADLINE,
    RETRIES,
    CONCURRENCY,
    RATE,
    FAMILY,
    row("addresses", Needed::Never, |draft, text| put(&mut draft.addresses, parse_addresses(text))),
    row("include", Needed::Never, |draft, text| put(&mut draft.include, parse_include(text))),
];

/// The parameters of `/probe`: `target` and `ports` as blackbox_exporter's users expect them.
const PROBE_PARAMETERS: [Parameter; 9] = [
    row("target", Needed::Always, read_host),
    Parameter { needed: Needed::Always, ..PORTS },
    row("expect", Needed::Never, |draft, text| put(&mut draft.expect, PortSet::parse(text))),
    TIMEOUT,
    DEADLINE,
    RETRIES,
    CONCURRENCY,
    RATE,
    FAMILY,
];

const fn row(
    name: &'static str,
    needed: Needed,
    read: fn(&mut Draft, &str) -> Result<(), String>,
) -> Parameter {
    Parameter { name, needed, read }
}

/// What the table has read so far. `None`, or the default: the parameter did not come, or is
/// faulty.
#[derive(Default)]
struct Draft {
    domain: Option<(Host, Box<str>)>,
    to_port: Option<u16>,
    from_port: Option<u16>,
    ports: Option<PortSet>,
    exclude: Option<PortSet>,
    timeout: Option<Timeout>,
    deadline: Option<Duration>,
    retries: Retries,
    concurrency: Option<NonZeroU16>,
    rate: Option<NonZeroU32>,
    family: Family,
    addresses: Addresses,
    include: Include,
    expect: Option<PortSet>,
}

fn read_host(draft: &mut Draft, text: &str) -> Result<(), String> {
    put(&mut draft.domain, Host::parse(text).map(|host| (host, text.into())))
}

/// Stores what was read, or tells why it was not.
fn put<T, U: Into<T>, E: Display>(slot: &mut T, read: Result<U, E>) -> Result<(), String> {
    *slot = read.map_err(|error| error.to_string())?.into();
    Ok(())
}

/// Reads the query of `/open-ports`, decoded as a form is.
pub fn parse(query: &str, defaults: &Settings, form: Form) -> Result<ScanRequest, InvalidFields> {
    let (draft, faults) = read(&PARAMETERS, query);
    finish(draft, defaults, form, faults)
}

/// Reads the query of `/probe`. `scrape_timeout` is how long Prometheus waits, as its header
/// says: the scan ends a little earlier, so that what it has found is told.
pub fn parse_probe(
    query: &str,
    defaults: &Settings,
    scrape_timeout: Option<&str>,
) -> Result<ProbeRequest, InvalidFields> {
    let (mut draft, mut faults) = read(&PROBE_PARAMETERS, query);
    if let Some(text) = scrape_timeout {
        match parse_scrape_timeout(text) {
            Some(most) => {
                draft.deadline = Some(draft.deadline.map_or(most, |asked| asked.min(most)));
            }
            None => faults.push(SCRAPE_TIMEOUT, "must be a number of seconds above 0"),
        }
    }
    let expect = draft.expect.take();
    if let (Some(expect), Some(ports)) = (&expect, &draft.ports)
        && let Some(port) = expect.iter().find(|port| !ports.contains(*port))
    {
        faults.push("expect", &format!("names port {port}, which ports leaves out"));
    }
    let scan = finish(draft, defaults, Form::Text, faults)?;
    Ok(ProbeRequest { scan, expect })
}

/// The header field of Prometheus that bounds a probe.
const SCRAPE_TIMEOUT: &str = "X-Prometheus-Scrape-Timeout-Seconds";
/// How much earlier than Prometheus a probe ends; blackbox_exporter's default margin.
const SCRAPE_MARGIN: Duration = Duration::from_millis(500);

/// The time that a probe has, of the seconds that a scrape has.
fn parse_scrape_timeout(text: &str) -> Option<Duration> {
    let seconds: f64 = text.parse().ok().filter(|seconds| *seconds > 0.0)?;
    let whole = Duration::try_from_secs_f64(seconds).ok()?;
    Some(whole.saturating_sub(SCRAPE_MARGIN).max(whole / 2).max(limits::TIMEOUT_MIN))
}

/// Reads a query by a table.
fn read(table: &[Parameter], query: &str) -> (Draft, InvalidFields) {
    let pairs: Vec<Pair> = form_urlencoded::parse(query.as_bytes()).collect();
    let mut faults = InvalidFields::default();
    let draft = read_known(table, &pairs, &mut faults);
    report_unknown(table, &pairs, &mut faults);
    (draft, faults)
}

type Pair<'a> = (Cow<'a, str>, Cow<'a, str>);

fn is_given(pairs: &[Pair], wanted: &str) -> bool {
    pairs.iter().any(|(name, _)| name == wanted)
}

/// Walks the table; of a parameter given twice the first counts, but it is a fault.
fn read_known(table: &[Parameter], pairs: &[Pair], faults: &mut InvalidFields) -> Draft {
    let mut draft = Draft::default();
    for Parameter { name, needed, read } in table {
        let mut values = pairs.iter().filter(|(given, _)| given == name).map(|(_, value)| value);
        let is_needed = match needed {
            Needed::Always => true,
            Needed::WithoutPorts => !is_given(pairs, "ports"),
            Needed::Never => false,
        };
        let value: &str = match values.next() {
            Some(value) => value,
            // Missing is as blank, and every message for a blank one holds for it.
            None if is_needed => "",
            None => continue,
        };
        if value.is_empty() {
            faults.push(name, "can't be blank");
        }
        if let Err(message) = read(&mut draft, value) {
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
    draft
}

/// Names what no row of the table has, with the row that was probably meant.
fn report_unknown(table: &[Parameter], pairs: &[Pair], faults: &mut InvalidFields) {
    for (given, _) in pairs {
        if faults.is_full() {
            return;
        }
        let name: String = given.chars().take(UNKNOWN_CHARS_MAX).collect();
        let is_known = table.iter().any(|parameter| parameter.name == *given);
        if !is_known && !faults.contains(&name) {
            faults.push(
                &name,
                &format!("unknown parameter, did you mean {}?", nearest(table, &name)),
            );
        }
    }
}

/// Characters of an unknown name that are looked at and told.
const UNKNOWN_CHARS_MAX: usize = 32;

/// The name of the table that takes the fewest edits to write.
fn nearest(table: &[Parameter], name: &str) -> &'static str {
    let known = table.iter().map(|parameter| parameter.name);
    spelling::nearest(name, known).map_or("", |(name, _)| name)
}

/// Looks at what parameters say together, and fills in the defaults.
fn finish(
    mut draft: Draft,
    defaults: &Settings,
    form: Form,
    mut faults: InvalidFields,
) -> Result<ScanRequest, InvalidFields> {
    let asked = finish_ports(&mut draft, &mut faults);
    // A default gives way to a deadline that is shorter; what was asked for does not.
    let usual = draft.deadline.map_or(defaults.timeout, |deadline| deadline.min(defaults.timeout));
    let timeout = draft.timeout.unwrap_or(Timeout::Fixed(usual));
    if let (Some(deadline), Timeout::Fixed(timeout)) = (draft.deadline, timeout)
        && deadline < timeout
        && !faults.contains("timeout")
    {
        let timeout = duration::display(timeout);
        faults.push("deadline", &format!("must not be below the timeout, which is {timeout}"));
    }
    let (Some((host, domain)), Some(asked), true) = (draft.domain, asked, faults.is_empty()) else {
        assert!(!faults.is_empty(), "what is missing is a fault");
        return Err(faults);
    };
    assert!(!asked.ports.is_empty() && asked.from_port <= asked.to_port, "a scan has a port");
    Ok(ScanRequest {
        host,
        domain,
        ports: asked.ports,
        from_port: asked.from_port,
        to_port: asked.to_port,
        timeout,
        // Beyond the server's own bound it is shortened, not refused.
        deadline: draft.deadline.unwrap_or(defaults.scan_time_max).min(defaults.scan_time_max),
        retries: draft.retries,
        concurrency: draft.concurrency,
        rate: draft.rate,
        family: draft.family,
        addresses: draft.addresses,
        include: draft.include,
        form,
    })
}

/// The ports to scan, and the ends to tell.
struct Asked {
    ports: PortSet,
    from_port: u16,
    to_port: u16,
}

/// `ports`, or `fromPort` to `toPort`, without `exclude`. `None` with a fault pushed, now or when
/// the parameters were read.
fn finish_ports(draft: &mut Draft, faults: &mut InvalidFields) -> Option<Asked> {
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
    Some(Asked { ports, from_port, to_port })
}

fn parse_addresses(text: &str) -> Result<Addresses, &'static str> {
    match text {
        "first" => Ok(Addresses::First),
        "all" => Ok(Addresses::All),
        _ => Err("must be first or all"),
    }
}

/// A list; naming a thing twice is as harmless as a port twice.
fn parse_include(text: &str) -> Result<Include, String> {
    let mut include = Include::default();
    for item in text.split(',') {
        match item {
            "closed" => include.closed = true,
            "filtered" => include.filtered = true,
            "unreachable" => include.unreachable = true,
            "services" => include.services = true,
            _ => {
                let item = quote(item);
                return Err(format!(
                    "{item} is none of closed, filtered, unreachable and services"
                ));
            }
        }
    }
    assert!(include != Include::default(), "a list has an item");
    Ok(include)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(query: &str) -> Result<ScanRequest, serde_json::Value> {
        parse(query, &Settings::default(), Form::Json)
            .map_err(|faults| serde_json::to_value(faults).unwrap())
    }

    /// The query is refused for these faults, in JSON, and for no other.
    fn check_faults(query: &str, expected: &str) {
        let expected: serde_json::Value = serde_json::from_str(expected).unwrap();
        assert_eq!(read(query), Err(expected), "{query:?}");
    }

    /// A parameter beside a good domain and toPort is refused for this one fault.
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
            timeout: Timeout::Fixed(Duration::from_secs(2)),
            deadline: Duration::from_secs(300),
            retries: Retries::Auto,
            concurrency: None,
            rate: None,
            family: Family::Any,
            addresses: Addresses::First,
            include: Include::default(),
            form: Form::Json,
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
            timeout: Timeout::Fixed(Duration::from_millis(1500)),
            deadline: Duration::from_secs(60),
            retries: Retries::Exactly(10),
            concurrency: Some(NonZeroU16::MAX),
            rate: NonZeroU32::new(10_000_000),
            family: Family::V6,
            addresses: Addresses::All,
            include: Include { closed: true, filtered: false, unreachable: true, services: true },
            form: Form::Json,
        };
        assert_eq!(request, Ok(expected));
    }

    #[test]
    fn the_lesser_values_of_each_parameter_are_read_too() {
        let read = |parameter: &str| read(&format!("domain=a&toPort=80&{parameter}")).unwrap();
        assert_eq!(read("timeout=auto").timeout, Timeout::Auto);
        assert_eq!(read("timeout=10ms").timeout, Timeout::Fixed(limits::TIMEOUT_MIN));
        assert_eq!(read("timeout=60s").timeout, Timeout::Fixed(limits::TIMEOUT_MAX));
        assert_eq!(read("timeout=auto&deadline=10ms").deadline, Duration::from_millis(10));
        assert_eq!(read("deadline=2s").deadline, Duration::from_secs(2));
        assert_eq!(read("deadline=6m").deadline, Duration::from_secs(300), "the server's bound");
        assert_eq!(read("retries=auto").retries, Retries::Auto);
        assert_eq!(read("retries=0").retries, Retries::Exactly(0));
        assert_eq!(read("concurrency=1").concurrency, NonZeroU16::new(1));
        assert_eq!(read("family=4").family, Family::V4);
        assert_eq!(read("addresses=first").addresses, Addresses::First);
        let filtered = Include { filtered: true, ..Include::default() };
        assert_eq!(read("include=filtered,filtered").include, filtered);
        assert_eq!((read("fromPort=80").from_port, read("fromPort=80").ports.len()), (80, 1));
        let rest = read("exclude=-79");
        assert_eq!((rest.from_port, rest.to_port, rest.ports.len()), (1, 80, 1));
        assert_eq!(read("&&").ports.len(), 80, "empty pieces of a form are nothing");
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
        let blank = r#""" at offset 1: invalid decimal string"#.replace('"', "\\\"");
        check_faults("domain=a&ports=", &format!(r#"{{"ports":["can't be blank","{blank}"]}}"#));
    }

    #[test]
    fn a_decimal_is_digits_and_in_range() {
        for text in [
            "%2B80",
            "+80",
            "-80",
            "0x50",
            "80+",
            "+",
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
    fn each_parameter_says_what_is_wrong_with_it() {
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
        check_fault("deadline=1s&timeout=2s", "must not be below the timeout, which is 2s");
        check_fault("retries=11", "must be from 0 to 10, or auto");
        check_fault("retries=-1", "invalid decimal string, or auto");
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
    fn a_deadline_shortens_a_timeout_that_was_not_asked_for() {
        let read = |query: &str| {
            let settings = Settings::default();
            parse(&format!("domain=a&toPort=80&{query}"), &settings, Form::Json).unwrap()
        };
        assert_eq!(read("deadline=1s").timeout, Timeout::Fixed(Duration::from_secs(1)));
        assert_eq!(read("deadline=3s").timeout, Timeout::Fixed(Duration::from_secs(2)));
    }

    #[test]
    fn a_probe_ends_before_prometheus_loses_patience() {
        let deadline = |query: &str, header: Option<&str>| {
            let query = format!("target=a&ports=80&{query}");
            parse_probe(&query, &Settings::default(), header).map(|probe| probe.scan.deadline)
        };
        let check = |query: &str, header: Option<&str>, millis: u64| {
            assert_eq!(deadline(query, header), Ok(Duration::from_millis(millis)), "{header:?}");
        };
        check("", None, 300_000);
        check("", Some("10"), 9_500);
        check("", Some("10.000000"), 9_500);
        check("", Some("0.6"), 300);
        check("deadline=2s", Some("10"), 2_000);
        check("deadline=20s", Some("10"), 9_500);
        for header in ["", "0", "-1", "x", "NaN", "inf", "1e400"] {
            assert!(deadline("", Some(header)).is_err(), "{header:?}");
        }
    }

    #[test]
    fn a_probe_has_a_table_of_its_own() {
        let check = |query: &str, name: &str, message: &str| {
            let faults = parse_probe(query, &Settings::default(), None).unwrap_err();
            let faults = serde_json::to_value(faults).unwrap();
            assert_eq!(faults[name][0], message, "{query}: {faults}");
        };
        check("ports=80", "target", "can't be blank");
        check("target=a", "ports", "can't be blank");
        check("target=a&ports=80&domain=b", "domain", "unknown parameter, did you mean ports?");
        check("target=a&ports=80&expect=80,81", "expect", "names port 81, which ports leaves out");
        let probe = parse_probe("target=a&ports=80-90&expect=80", &Settings::default(), None);
        assert_eq!(probe.unwrap().expect, Some(PortSet::parse("80").unwrap()));
    }

    #[test]
    fn a_bad_host_or_list_is_told_in_the_words_of_its_parser() {
        let domain = |text: &str, expected: &str| {
            let faults = serde_json::json!({ "domain": [expected] });
            assert_eq!(read(&format!("toPort=80&domain={text}")), Err(faults), "{text}");
        };
        domain(&"a".repeat(254), "a name has at most 253 bytes");
        domain("a..b", "a name has no empty label");
        domain("+a", "a name has no ' '");
        domain("a%0d%0ab", "a name has no '\\r'");
        domain("2130706433", &crate::target::host::HostError::Number.to_string());
        domain("b%C3%BCcher.de", "write an international name in its xn-- form (punycode)");
        let ports = |text: &str, expected: &str| {
            let faults = serde_json::json!({ "ports": [expected] });
            assert_eq!(read(&format!("domain=a&ports={text}")), Err(faults), "{text}");
        };
        ports("0", "\"0\" at offset 1: must be from 1 to 65535");
        ports("22,65536", "\"65536\" at offset 4: must be from 1 to 65535");
        ports("1-2-3", "\"1-2-3\" at offset 1: invalid decimal string");
        ports(",", "\"\" at offset 1: invalid decimal string");
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
        check("host", "ports");
        check("domian", "domain");
        check("time_out", "timeout");
        check("retry", "retries");
        check("excludes", "exclude");
        check("", "rate");
    }

    #[test]
    fn all_faults_are_told_together_in_the_order_of_the_table() {
        let faults = parse("x=1&rate=0&toPort=0&", &Settings::default(), Form::Json).unwrap_err();
        assert_eq!(
            serde_json::to_string(&faults).unwrap(),
            concat!(
                r#"{"domain":["can't be blank"],"toPort":["must be from 1 to 65535"],"#,
                r#""rate":["must be from 1 to 10000000"],"#,
                r#""x":["unknown parameter, did you mean rate?"]}"#,
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
    fn a_fault_is_not_blamed_on_its_neighbour() {
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
    fn the_openapi_document_knows_every_parameter_and_no_other() {
        let document: serde_json::Value = serde_json::from_str(super::super::OPENAPI).unwrap();
        let parameters = &document["components"]["parameters"];
        assert_eq!(parameters.as_object().unwrap().len(), PARAMETERS.len());
        let listed = document["paths"]["/open-ports"]["parameters"].as_array().unwrap();
        assert_eq!(listed.len(), PARAMETERS.len());
        for (Parameter { name, needed, .. }, listed) in PARAMETERS.iter().zip(listed) {
            assert_eq!(listed["$ref"], format!("#/components/parameters/{name}"));
            assert_eq!(parameters[name]["name"], *name);
            let is_needed = matches!(needed, Needed::Always);
            assert_eq!(parameters[name]["required"], is_needed, "{name}");
        }
        assert_eq!(parameters["rate"]["schema"]["maximum"], limits::RATE_MAX);
        assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
    }

    #[test]
    fn the_openapi_document_knows_every_parameter_of_a_probe_and_no_other() {
        let document: serde_json::Value = serde_json::from_str(super::super::OPENAPI).unwrap();
        let listed = document["paths"]["/probe"]["get"]["parameters"].as_array().unwrap();
        let in_query = listed.iter().filter(|listed| listed["in"] != "header");
        let names: Vec<&str> = in_query
            .map(|listed| listed["name"].as_str().or(listed["$ref"].as_str()).unwrap())
            .map(|name| name.trim_start_matches("#/components/parameters/"))
            .collect();
        assert_eq!(names, PROBE_PARAMETERS.map(|Parameter { name, .. }| name));
        for Parameter { name, needed, .. } in &PROBE_PARAMETERS {
            if let Some(own) = listed.iter().find(|listed| listed["name"] == *name) {
                assert_eq!(own["required"], matches!(needed, Needed::Always), "{name}");
            }
        }
        let header = listed.iter().find(|listed| listed["in"] == "header").unwrap();
        assert_eq!(header["name"], SCRAPE_TIMEOUT);
    }

    #[test]
    fn what_the_openapi_document_gives_as_example_or_bound_is_accepted_and_what_is_beyond_is_not() {
        let document: serde_json::Value = serde_json::from_str(super::super::OPENAPI).unwrap();
        let text = |value: &serde_json::Value| value.to_string().trim_matches('"').to_string();
        let mut asked = 0;
        for Parameter { name, .. } in &PARAMETERS {
            let schema = &document["components"]["parameters"][name]["schema"];
            let is_accepted = |value: &str| {
                let rest = match *name {
                    "domain" => "toPort=9",
                    "toPort" | "ports" => "domain=a",
                    _ => "domain=a&toPort=65535",
                };
                read(&format!("{rest}&{name}={value}")).is_ok()
            };
            let words = ["examples", "enum"].map(|key| schema[key].as_array());
            let bounds = ["minimum", "maximum", "default"].map(|key| schema.get(key));
            for value in words.into_iter().flatten().flatten().chain(bounds.into_iter().flatten()) {
                assert!(is_accepted(&text(value)), "{name}={value}");
                asked += 1;
            }
            for (bound, step) in [("minimum", -1), ("maximum", 1)] {
                if let Some(bound) = schema[bound].as_i64() {
                    assert!(!is_accepted(&(bound + step).to_string()), "{name} beyond {bound}");
                }
            }
            let is_enum = schema.get("enum").is_some();
            assert!(!is_enum || !is_accepted("other"), "{name} takes what is not listed");
        }
        assert!(asked > 15, "{asked} values");
    }
}
