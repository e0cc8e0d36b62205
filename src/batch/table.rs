//! The result of one target as a table for people.
//!
//! The table has a heading with the counts and then a line for each open port. It is ASCII. Colours
//! are escape sequences (ECMA-48 section 8.3.117) that are written only to a terminal. This module
//! has no state; `printer` calls it.

use std::fmt::Write;
use std::net::IpAddr;
use std::time::Duration;

use super::printer::ScannedHost;
use crate::host::unbracketed;
use crate::scan::summary::Summary;

/// Whether the table has colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colour {
    /// No colours.
    Plain,
    /// Bold headings and green ports.
    Ansi,
}

impl Colour {
    const fn bold(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Ansi => "\x1b[1m",
        }
    }

    const fn green(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Ansi => "\x1b[32m",
        }
    }

    const fn reset(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Ansi => "\x1b[0m",
        }
    }
}

/// The table of one target, or of each of its addresses if several were requested. The names of
/// services are beside the ports if the summary has them.
pub fn table(summary: &Summary, colour: Colour) -> String {
    let mut text = String::new();
    let mut hosts = ScannedHost::all(summary).into_iter();
    let lines = hosts.try_for_each(|host| write_block(&mut text, summary, &host, colour));
    assert!(lines.is_ok(), "writing to a string never fails");
    let others = summary.details.other_addresses;
    if !others.is_empty() {
        let others: Vec<String> = others.iter().map(IpAddr::to_string).collect();
        text += &format!("  not scanned, of the same name: {}\n", others.join(", "));
    }
    debug_assert!(text.is_ascii() && text.ends_with('\n'), "a table is whole lines of ASCII");
    text
}

fn write_block(
    text: &mut String,
    summary: &Summary,
    host: &ScannedHost,
    colour: Colour,
) -> std::fmt::Result {
    let counts = &host.counts;
    let (domain, address) = (summary.domain, host.address.to_string());
    write!(text, "{}{domain}{}", colour.bold(), colour.reset())?;
    if unbracketed(domain) != address {
        write!(text, " ({address})")?;
    }
    let total = counts.total();
    let plural = if total == 1 { "" } else { "s" };
    write!(text, ": {} open of {total} port{plural}", counts.open)?;
    for (count, state) in [
        (counts.closed, "closed"),
        (counts.filtered, "filtered"),
        (counts.unreachable, "unreachable"),
        (counts.untested, "untested"),
    ] {
        if count > 0 {
            write!(text, ", {count} {state}")?;
        }
    }
    write!(text, ", {}", Elapsed(summary.elapsed))?;
    if let Some(loss) = summary.loss.filter(|loss| *loss > 0.0) {
        write!(text, " ({:.1} % of the packets were lost)", loss * 100.0)?;
    } else if summary.loss_suspected {
        write!(text, " (packets were lost)")?;
    }
    // Of several addresses, one whose ports have all answered is complete.
    let is_answered = summary.results.is_some() && counts.untested + counts.filtered == 0;
    if !summary.complete && !is_answered {
        write!(text, " (incomplete)")?;
    }
    writeln!(text)?;
    for port in host.open.iter() {
        let name = summary.services.map_or("", |services| services.names.of(port));
        let line = format!("  {}{port:>5}{}  {name}", colour.green(), colour.reset());
        writeln!(text, "{}", line.trim_end())?;
    }
    for (state, ports) in
        [("closed", host.closed), ("filtered", host.filtered), ("unreachable", host.unreachable)]
    {
        if let Some(ports) = ports.filter(|ports| !ports.is_empty()) {
            writeln!(text, "  {state}: {}", ports.display_ranges())?;
        }
    }
    Ok(())
}

/// A duration: `in 250 ms`, `in 2.5 s`.
pub(super) struct Elapsed(pub(super) Duration);

impl std::fmt::Display for Elapsed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0.as_millis() {
            millis @ ..1000 => write!(f, "in {millis} ms"),
            millis => write!(f, "in {:.1} s", millis as f64 / 1000.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::port_set::PortSet;
    use crate::scan::ledger::Counts;
    use crate::scan::summary::{AddressResult, Details, Services};
    use crate::service_names::Names;

    fn summary<'a>(domain: &'a str, open: &'a PortSet, names: &'a Names) -> Summary<'a> {
        let counts = Counts { open: 3, closed: 1000, filtered: 21, ..Counts::default() };
        Summary {
            from_port: 1,
            to_port: 1024,
            domain,
            open,
            address: [192, 0, 2, 7].into(),
            counts,
            complete: true,
            retried: 0,
            loss_suspected: false,
            loss: None,
            elapsed: Duration::from_millis(2013),
            closed: None,
            filtered: None,
            unreachable: None,
            services: Some(Services { open, names }),
            results: None,
            details: Details::default(),
        }
    }

    #[test]
    fn a_table_has_a_heading_and_a_line_for_each_open_port() {
        let (open, names) = (PortSet::parse("22,80,1023").unwrap(), Names::default());
        let named = summary("example.com", &open, &names);
        assert_eq!(
            table(&named, Colour::Plain),
            "example.com (192.0.2.7): 3 open of 1024 ports, 1000 closed, 21 filtered, in 2.0 s\n\
            \x20    22  ssh\n\
            \x20    80  http\n\
            \x20  1023\n",
        );
        let coloured = table(&summary("192.0.2.7", &open, &names), Colour::Ansi);
        let mut lines = coloured.lines();
        assert!(lines.next().unwrap().starts_with("\x1b[1m192.0.2.7\x1b[0m: 3 open"), "{coloured}");
        assert_eq!(lines.next(), Some("  \x1b[32m   22\x1b[0m  ssh"));
    }

    #[test]
    fn problems_of_a_scan_are_in_its_heading() {
        let (none, names) = (PortSet::new(), Names::default());
        let counts = Counts { untested: 1, ..Counts::default() };
        let cut = Summary {
            counts,
            complete: false,
            loss_suspected: true,
            loss: Some(0.036),
            ..summary("192.0.2.7", &none, &names)
        };
        assert_eq!(
            table(&cut, Colour::Plain),
            "192.0.2.7: 0 open of 1 port, 1 untested, in 2.0 s (3.6 % of the packets were lost) \
            (incomplete)\n",
        );
    }

    #[test]
    fn further_addresses_of_a_name_are_mentioned() {
        let (open, names) = (PortSet::parse("22").unwrap(), Names::default());
        let others = [[192, 0, 2, 8].into(), [192, 0, 2, 9].into()];
        let mut named = summary("example.com", &open, &names);
        named.details.other_addresses = &others;
        let text = table(&named, Colour::Plain);
        assert!(
            text.ends_with("\n  not scanned, of the same name: 192.0.2.8, 192.0.2.9\n"),
            "{text}"
        );
    }

    #[test]
    fn each_of_several_addresses_has_a_table_of_its_own() {
        let (open, first, none) =
            (PortSet::parse("22").unwrap(), PortSet::parse("22").unwrap(), PortSet::new());
        let names = Names::default();
        let one = Counts { open: 1, ..Counts::default() };
        let other = Counts { closed: 1, ..Counts::default() };
        let results = [
            AddressResult { address: [192, 0, 2, 7].into(), open: &first, counts: one },
            AddressResult { address: [192, 0, 2, 8].into(), open: &none, counts: other },
        ];
        let all = Summary { results: Some(&results), ..summary("example.com", &open, &names) };
        assert_eq!(
            table(&all, Colour::Plain),
            "example.com (192.0.2.7): 1 open of 1 port, in 2.0 s\n\
            \x20    22  ssh\n\
            example.com (192.0.2.8): 0 open of 1 port, 1 closed, in 2.0 s\n",
        );
        // A scan that was cut short may have finished one of the addresses.
        let untested = Counts { untested: 1, ..Counts::default() };
        let address = [192, 0, 2, 8].into();
        let cut = AddressResult { address, open: &none, counts: untested };
        let done = AddressResult { address: [192, 0, 2, 7].into(), open: &first, counts: one };
        let results = [done, cut];
        let cut = summary("example.com", &open, &names);
        let all = Summary { complete: false, results: Some(&results), ..cut };
        assert_eq!(
            table(&all, Colour::Plain),
            "example.com (192.0.2.7): 1 open of 1 port, in 2.0 s\n\
            \x20    22  ssh\n\
            example.com (192.0.2.8): 0 open of 1 port, 1 untested, in 2.0 s (incomplete)\n",
        );
    }
}
