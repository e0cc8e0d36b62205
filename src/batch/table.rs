//! The outcome of one target as a table, for people.
//!
//! A heading with the counts, then a line for each open port. It is ASCII, and colours are
//! escape sequences (ECMA-48 section 8.3.117) that only a terminal gets.

use std::fmt::Write;
use std::net::IpAddr;

use crate::api::summary::Summary;
use crate::scan::ledger::Counts;
use crate::target::PortSet;

/// Whether the table has colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colour {
    /// Text alone.
    Plain,
    /// Headings bold, ports green.
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

/// The table of one target; of each of its addresses, where several were asked for. A port has its
/// name beside it where the summary has services.
pub fn table(summary: &Summary, colour: Colour) -> String {
    let mut text = String::new();
    let lines = match summary.results {
        None => {
            let block = Block { address: summary.address, open: summary.open };
            write_block(&mut text, summary, block, (&summary.counts, colour))
        }
        Some(results) => results.iter().try_for_each(|result| {
            let block = Block { address: result.address, open: result.open };
            write_block(&mut text, summary, block, (&result.counts, colour))
        }),
    };
    assert!(lines.is_ok(), "a string takes whatever is written");
    debug_assert!(text.is_ascii() && text.ends_with('\n'), "a table is whole lines of ASCII");
    text
}

struct Block<'a> {
    address: IpAddr,
    open: &'a PortSet,
}

fn write_block(
    text: &mut String,
    summary: &Summary,
    block: Block,
    (counts, colour): (&Counts, Colour),
) -> std::fmt::Result {
    let (domain, address) = (summary.domain, block.address.to_string());
    write!(text, "{}{domain}{}", colour.bold(), colour.reset())?;
    if domain != address {
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
    match summary.elapsed.as_millis() {
        millis @ ..1000 => write!(text, ", in {millis} ms")?,
        millis => write!(text, ", in {:.1} s", millis as f64 / 1000.0)?,
    }
    if summary.loss_suspected {
        write!(text, " (packets were lost)")?;
    }
    if !summary.complete {
        write!(text, " (incomplete)")?;
    }
    writeln!(text)?;
    for port in block.open.iter() {
        let name = summary.services.map_or("", |services| services.names.of(port));
        let line = format!("  {}{port:>5}{}  {name}", colour.green(), colour.reset());
        writeln!(text, "{}", line.trim_end())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::summary::{AddressResult, Services};
    use crate::names::Names;
    use std::time::Duration;

    fn summary<'a>(domain: &'a str, (open, names): (&'a PortSet, &'a Names)) -> Summary<'a> {
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
            elapsed: Duration::from_millis(2013),
            closed: None,
            filtered: None,
            unreachable: None,
            services: Some(Services { open, names }),
            results: None,
        }
    }

    #[test]
    fn a_table_has_a_heading_and_a_line_for_each_open_port() {
        let (open, names) = (PortSet::parse("22,80,1023").unwrap(), Names::default());
        let named = summary("example.com", (&open, &names));
        assert_eq!(
            table(&named, Colour::Plain),
            "example.com (192.0.2.7): 3 open of 1024 ports, 1000 closed, 21 filtered, in 2.0 s\n\
            \x20    22  ssh\n\
            \x20    80  http\n\
            \x20  1023\n",
        );
        let coloured = table(&summary("192.0.2.7", (&open, &names)), Colour::Ansi);
        let mut lines = coloured.lines();
        assert!(lines.next().unwrap().starts_with("\x1b[1m192.0.2.7\x1b[0m: 3 open"), "{coloured}");
        assert_eq!(lines.next(), Some("  \x1b[32m   22\x1b[0m  ssh"));
    }

    #[test]
    fn what_is_wrong_with_a_scan_stands_in_its_heading() {
        let (none, names) = (PortSet::new(), Names::default());
        let counts = Counts { untested: 1, ..Counts::default() };
        let cut = Summary {
            counts,
            complete: false,
            loss_suspected: true,
            ..summary("192.0.2.7", (&none, &names))
        };
        assert_eq!(
            table(&cut, Colour::Plain),
            "192.0.2.7: 0 open of 1 port, 1 untested, in 2.0 s (packets were lost) (incomplete)\n",
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
        let all = Summary { results: Some(&results), ..summary("example.com", (&open, &names)) };
        assert_eq!(
            table(&all, Colour::Plain),
            "example.com (192.0.2.7): 1 open of 1 port, in 2.0 s\n\
            \x20    22  ssh\n\
            example.com (192.0.2.8): 0 open of 1 port, 1 closed, in 2.0 s\n",
        );
    }
}
