//! Tests of a command-line run without a service.

use super::*;
use std::sync::LazyLock;

use crate::api::problem::Cause;
use crate::scan::ledger::Counts;
use crate::scan::options::{Addresses, ScanOptions, Timeout};
use crate::scan::summary::{Details, Services};
use crate::service_names::Names;
use options::{Format, ProgressLine, Shown};
use printer::RunInfo;

use list::TargetList;
use table::Colour;

fn batch(list: &str, options: impl FnOnce(&mut BatchOptions)) -> Batch {
    let mut targets = TargetList::new(PortSet::from_range(1, 10), PortSet::new());
    targets.add_lines(list.as_bytes());
    let targets = targets.finish().expect("a list");
    let mut chosen = BatchOptions {
        targets,
        scan: ScanOptions {
            timeout: Timeout::Auto,
            deadline: Duration::from_secs(60),
            ..ScanOptions::default()
        },
        shard: Shard::WHOLE,
        format: Format::Json,
        colour: Colour::Plain,
        progress: ProgressLine::Hidden,
        shown: Shown::All,
        output: Destination::Stdout,
        run: RunInfo::default(),
    };
    options(&mut chosen);
    Batch::new(chosen)
}

/// A list of `count` names.
fn names(count: usize) -> String {
    names_with(count, "")
}

fn names_with(count: usize, ports: &str) -> String {
    (0..count).map(|place| format!("name-{place}{ports}\n")).collect()
}

/// The target that is the name in this place of the list.
const fn name(place: u32) -> TargetId {
    TargetId::Name(place)
}

fn address(target: TargetId) -> IpAddr {
    match target {
        TargetId::Name(place) => [127, 0, 0, place as u8].into(),
        TargetId::Address(address) | TargetId::Member(address) => address,
    }
}

/// Ends a target with port 1 open and the other ports in the states that `counts` gives.
fn end(batch: &mut Batch, target: TargetId, counts: Counts) {
    let open = PortSet::from_range(1, counts.open as u16);
    let summary = Summary { address: address(target), ..summary("", &open, counts) };
    let now = Instant::now();
    batch.handle_ended(now, target, summary);
    batch.conclude(now);
}

/// The summary of a target with these open ports.
fn summary<'a>(domain: &'a str, open: &'a PortSet, counts: Counts) -> Summary<'a> {
    Summary {
        from_port: 1,
        to_port: 10,
        domain,
        open,
        address: address(name(0)),
        counts,
        complete: counts.untested == 0,
        retried: 0,
        loss_suspected: false,
        loss: None,
        elapsed: Duration::ZERO,
        closed: None,
        filtered: None,
        unreachable: None,
        services: None,
        results: None,
        details: Details::default(),
    }
}

const WHOLE: Counts = Counts { open: 1, closed: 9, filtered: 0, unreachable: 0, untested: 0 };
const CUT: Counts = Counts { open: 1, closed: 4, filtered: 0, unreachable: 0, untested: 5 };

fn begin(batch: &mut Batch) -> TargetId {
    let (target, request) = batch.poll_target(Instant::now()).expect("a target is wanted");
    let total = request.ports.len() as u32;
    let address = address(target);
    batch.handle_began(target, Beginning { address, total, ports: &request.ports });
    target
}

/// The parameters of a target whose ports do not matter.
fn beginning(total: u32) -> Beginning<'static> {
    static PORTS: LazyLock<PortSet> = LazyLock::new(|| PortSet::from_range(1, 10));
    Beginning { address: address(name(0)), total, ports: &PORTS }
}

fn printed(batch: &mut Batch) -> String {
    let text = String::from_utf8(batch.stdout().to_vec()).expect("text is printed");
    batch.handle_printed(text.len());
    text
}

fn messages(batch: &mut Batch) -> Vec<String> {
    let text = |action| {
        if let Action::ShowProgress(line) = action {
            return format!("progress {line:?}");
        }
        let Action::Log(line) = action else { panic!("{action:?} is not an action of a batch") };
        line
    };
    std::iter::from_fn(|| batch.poll_action()).map(text).collect()
}

#[test]
fn each_target_is_begun_once_and_printed_when_it_ends() {
    let mut batch = batch("a\nb\n192.0.2.7 22", |_| {});
    let targets = [0, 1, 2].map(|_| begin(&mut batch));
    let third = TargetId::Address([192, 0, 2, 7].into());
    assert_eq!(targets, [name(0), name(1), third]);
    assert!(!batch.wants_target() && batch.poll_target(Instant::now()).is_none());
    end(&mut batch, name(1), WHOLE);
    assert!(printed(&mut batch).starts_with(r#"{"from_port":1,"to_port":10,"domain":"b""#));
    end(&mut batch, third, Counts { open: 1, ..Counts::default() });
    end(&mut batch, name(0), WHOLE);
    assert!(!batch.is_done(), "there is output left to print");
    assert_eq!(printed(&mut batch).lines().count(), 2);
    assert_eq!((batch.is_done(), batch.exit_code()), (true, 0));
    assert!(messages(&mut batch).is_empty());
}

#[test]
fn the_exit_code_reports_whether_everything_was_scanned() {
    let check_with = |what: fn(&mut Batch), first: Counts, expected: u8| {
        let mut batch = batch("a\nb", |_| {});
        let targets = [begin(&mut batch), begin(&mut batch)];
        what(&mut batch);
        end(&mut batch, targets[0], first);
        end(&mut batch, targets[1], WHOLE);
        printed(&mut batch);
        assert_eq!((batch.is_done(), batch.exit_code()), (true, expected));
    };
    let check = |what: fn(&mut Batch), expected: u8| check_with(what, WHOLE, expected);
    let problem = || Problem::new(Cause::UnknownHost, "No.");
    check(|_| {}, 0);
    check_with(|_| {}, CUT, 1);
    check(Batch::handle_interrupt, 1);
    check(|batch| batch.handle_print_failed(PrintFailure::ReaderGone), 0);
    check(|batch| batch.handle_print_failed(PrintFailure::Broken), EXIT_UNPRINTED);
    let mut failed = batch("a", |_| {});
    failed.poll_target(Instant::now());
    failed.handle_failed(name(0), 10, &problem(), None);
    failed.conclude(Instant::now());
    printed(&mut failed);
    assert_eq!((failed.is_done(), failed.exit_code()), (true, 1));
    let mut bad = batch("a\n~", |_| {});
    begin(&mut bad);
    assert_eq!(bad.exit_code(), 1, "the run is not over");
    end(&mut bad, name(0), WHOLE);
    printed(&mut bad);
    assert_eq!((bad.is_done(), bad.exit_code()), (true, 1));
    let mut empty = batch("# empty", |_| {});
    empty.conclude(Instant::now());
    assert_eq!((empty.is_done(), empty.exit_code()), (true, 1));
}

#[test]
fn a_failed_target_is_reported_in_every_form() {
    let check = |format: Format, expected: &str| {
        let mut batch = batch("nope.example", |options| options.format = format);
        batch.poll_target(Instant::now());
        batch.handle_failed(name(0), 10, &Problem::new(Cause::UnknownHost, "No such name."), None);
        assert_eq!(messages(&mut batch), ["openports: nope.example: No such name."]);
        let text = printed(&mut batch);
        assert!(text.starts_with(expected) && text.is_empty() == expected.is_empty(), "{text}");
    };
    check(Format::Table, "");
    check(Format::Json, r#"{"type":"about:blank","title":"Unprocessable Content","status":422"#);
    check(Format::Ndjson, r#"{"event":"failed","type":"about:blank""#);
}

#[test]
fn targets_with_unreachable_ports_are_counted_where_the_format_does_not_show_them() {
    let filtered = Counts { filtered: 10, ..Counts::default() };
    let unreachable = Counts { unreachable: 10, ..Counts::default() };
    let partly = Counts { closed: 8, unreachable: 1, untested: 1, ..Counts::default() };
    let check = |format: Format, all: &[Counts], expected: &[&str]| {
        let mut batch = batch(&names(all.len()), |options| options.format = format);
        for counts in all {
            let target = begin(&mut batch);
            end(&mut batch, target, *counts);
        }
        assert_eq!(messages(&mut batch), expected, "{format:?} {all:?}");
        printed(&mut batch)
    };
    let all = [WHOLE, filtered, unreachable, partly];
    let expected = [
        "openports: 1 of 4 targets were not scanned whole",
        "openports: 2 of 4 targets have unreachable ports",
    ];
    for format in [Format::Text, Format::HostPort, Format::Csv, Format::Greppable] {
        check(format, &all, &expected);
        check(format, &[WHOLE, filtered], &[]);
        check(format, &[unreachable], &["openports: name-0: unreachable: 10 of 10 ports"]);
    }
    let table = check(Format::Table, &all, &[]);
    let total = ": 1 with open ports, 3 without; 2 with unreachable ports; 1 not scanned whole\n";
    assert!(table.ends_with(total), "{table}");
    let table = check(Format::Table, &[WHOLE, filtered], &[]);
    assert!(table.ends_with(": 1 with open ports, 1 without\n"), "{table}");
}

#[test]
fn one_target_streams_the_events_of_the_service_and_several_name_the_target() {
    let check_of = |addresses: Addresses, list: &str, expected: &str| {
        let mut batch = batch(list, |options| {
            options.format = Format::Ndjson;
            options.scan.addresses = addresses;
        });
        begin(&mut batch);
        let (address, rtt) = (address(name(0)), Duration::from_micros(410));
        batch.handle_open(name(0), OpenPort { address, port: 1, rtt, service: "" });
        end(&mut batch, name(0), WHOLE);
        let text = printed(&mut batch);
        let lines: Vec<&str> = text.lines().collect();
        let start =
            r#"{"event":"start","domain":"a","address":"127.0.0.0","total":10,"ports":"1-10"}"#;
        assert_eq!(lines[..2], [start, expected]);
        assert!(lines[2].starts_with(r#"{"event":"end","from_port":1,"#), "{text}");
        assert_eq!(lines.len(), 3);
    };
    let check = |list, expected| check_of(Addresses::First, list, expected);
    check("a", r#"{"event":"open","port":1,"rtt_ms":0.41}"#);
    check("a\nb", r#"{"event":"open","port":1,"rtt_ms":0.41,"domain":"a"}"#);
    let check = |list, expected| check_of(Addresses::All, list, expected);
    check("a", r#"{"event":"open","port":1,"rtt_ms":0.41,"address":"127.0.0.0"}"#);
    check("a\nb", r#"{"event":"open","port":1,"rtt_ms":0.41,"domain":"a","address":"127.0.0.0"}"#);
}

#[test]
fn the_start_event_of_a_shard_has_no_ports() {
    let mut batch = batch("a", |options| {
        options.format = Format::Ndjson;
        options.shard = Shard::parse("1/3").expect("a shard");
    });
    begin(&mut batch);
    let text = printed(&mut batch);
    assert!(text.starts_with(r#"{"event":"start","#) && !text.contains("ports"), "{text}");
}

#[test]
fn names_of_services_are_requested_by_the_formats_that_print_them() {
    for (_, format, _) in Format::ALL {
        let mut batch = batch("a", |options| options.format = format);
        let (_, request) = batch.poll_target(Instant::now()).expect("a target");
        let has_names =
            matches!(format, Format::Table | Format::Csv | Format::Xml | Format::Greppable);
        assert_eq!(request.options.include.services, has_names, "{format:?}");
    }
}

#[test]
fn a_slow_reader_keeps_further_targets_from_beginning() {
    let mut batch = batch(&names(5000), |_| {});
    let mut most = 0;
    for _ in 0..5000 {
        if batch.wants_target() {
            let target = begin(&mut batch);
            end(&mut batch, target, WHOLE);
        } else {
            let waits = batch.stdout().len();
            assert!(waits >= limits::PRINTOUT_BYTES_MAX);
            most = most.max(waits);
            batch.handle_printed(waits / 2 + 1);
        }
    }
    assert!((1..2 * limits::PRINTOUT_BYTES_MAX).contains(&most), "{most} bytes waited");
}

#[test]
fn targets_at_once_and_lookups_at_once_are_bounded() {
    let mut batch = batch(&names(2000), |_| {});
    let now = Instant::now();
    let looked_up = std::iter::from_fn(|| batch.poll_target(now)).count();
    assert_eq!(looked_up, limits::LOOKUPS_MAX);
    for place in 0..looked_up {
        batch.handle_began(name(place as u32), beginning(10));
    }
    while batch.wants_target() {
        begin(&mut batch);
    }
    assert_eq!(batch.running, 2000, "resolved targets do not count");
    // A target that is an address needs no lookup.
    let mut batch = self::batch("10.0.0.0/8", |_| {});
    let begun = std::iter::from_fn(|| batch.poll_target(now)).count();
    assert_eq!(begun, limits::BATCH_JOBS_MAX);
}

#[test]
fn an_interrupt_reports_how_many_targets_were_not_begun() {
    let mut batch = batch("a\nb\nc", |_| {});
    begin(&mut batch);
    batch.poll_target(Instant::now());
    batch.handle_dropped(name(1), 10);
    batch.handle_interrupt();
    batch.handle_interrupt();
    end(&mut batch, name(0), CUT);
    assert_eq!(messages(&mut batch), ["openports: interrupted: 2 of 3 targets were not begun"]);
    assert!(printed(&mut batch).contains(r#""complete":false"#));
    assert!(batch.is_done());
}

#[test]
fn progress_is_shown_at_most_five_times_a_second_and_cleared_before_anything_else() {
    let mut batch = batch("a\nb", |options| options.progress = ProgressLine::Shown { columns: 80 });
    let start = Instant::now();
    assert_eq!(batch.deadline(), None);
    let (target, _) = batch.poll_target(start).expect("a target");
    batch.handle_began(target, beginning(10));
    let due = batch.deadline().expect("progress is due");
    assert_eq!(due - start, PROGRESS_EVERY);
    batch.handle_timeout(start, UnderWay::default());
    assert!(messages(&mut batch).is_empty(), "progress is not due yet");
    batch.handle_timeout(due, UnderWay { done: 5, open: 1, in_flight: 0 });
    // The line does not wrap on a terminal that has become narrower.
    let line = "\x1b[?7l[#####---------------]  25%  25/s  1 s left  1 open  0/2 targets\x1b[?7h";
    assert_eq!(messages(&mut batch), [format!("progress {line:?}")]);
    assert!(batch.deadline() > Some(due), "a deadline that was handled is not due");
    end(&mut batch, name(0), WHOLE);
    batch.clear_progress();
    assert_eq!(messages(&mut batch), ["progress \"\""], "the line is cleared once");
    begin(&mut batch);
    batch.handle_timeout(due + PROGRESS_EVERY, UnderWay { done: 5, open: 1, in_flight: 0 });
    let text = messages(&mut batch).concat();
    assert!(text.contains("75%") && text.contains("2 open  1/2 targets"), "{text}");
}

#[test]
fn a_terminal_shows_the_open_ports_of_a_target_that_has_ended_once() {
    for (output, expected) in [(Destination::Terminal, 0), (Destination::Stdout, 17)] {
        let mut batch = batch("a\nb", |options| {
            options.format = Format::Table;
            options.progress = ProgressLine::Shown { columns: 80 };
            options.output = output;
        });
        let start = Instant::now();
        let targets = [begin(&mut batch), begin(&mut batch)];
        for (target, ports) in [(targets[0], 1..=20), (targets[1], 30..=30)] {
            for port in ports {
                let open =
                    OpenPort { address: address(name(1)), port, rtt: Duration::ZERO, service: "" };
                batch.handle_open(target, open);
            }
        }
        end(&mut batch, targets[0], WHOLE);
        batch.handle_timeout(start + 2 * PROGRESS_EVERY, UnderWay::default());
        let lines = messages(&mut batch);
        let of_first = lines.iter().filter(|line| line.contains("open  ") && line.contains("  a"));
        let is_more = lines.iter().any(|line| line.contains("and 5 more open ports"));
        assert_eq!(of_first.count() + usize::from(is_more), expected, "{lines:?}");
        let last = lines.iter().any(|line| line.contains("and one more open port"));
        assert_eq!(last, output == Destination::Terminal, "{lines:?}");
    }
}

#[test]
fn the_round_trip_in_csv_has_three_decimals_as_in_the_answer_of_the_service() {
    for (nanos, expected) in [(0, "0.000"), (410_499, "0.410"), (20_000_500, "20.001")] {
        let mut batch = batch("a", |options| options.format = Format::Csv);
        let target = begin(&mut batch);
        let rtt = Duration::from_nanos(nanos);
        batch.handle_open(
            target,
            OpenPort { address: address(name(1)), port: 1, rtt, service: "x" },
        );
        let csv = printed(&mut batch);
        assert_eq!(csv.lines().last(), Some(&*format!("127.0.0.1,1,open,x,{expected}")), "{csv}");
    }
}

#[test]
fn a_long_output_is_taken_in_small_pieces_and_its_rest_is_not_moved_for_each() {
    let mut batch = batch("a 1-65535", |options| options.format = Format::Xml);
    let target = begin(&mut batch);
    let open = PortSet::from_range(1, u16::MAX);
    let counts = Counts { open: 65_535, ..Counts::default() };
    batch.handle_ended(Instant::now(), target, summary("a", &open, counts));
    let (whole, mut taken) = (batch.stdout().to_vec(), Vec::new());
    let mut moves = 0;
    while !batch.stdout().is_empty() {
        let piece = &batch.stdout()[..batch.stdout().len().min(16)];
        taken.extend_from_slice(piece);
        let (count, rest_at) = (piece.len(), piece.as_ptr_range().end);
        batch.handle_printed(count);
        moves += u32::from(batch.stdout().as_ptr() != rest_at);
    }
    assert!(taken == whole, "the pieces are the output");
    assert!(moves <= whole.len().ilog2() + 1, "the rest was moved {moves} times");
}

#[test]
fn the_name_of_a_service_keeps_to_its_field() {
    let names = Names::parse(b"a/b,\"c 1/tcp");
    let check = |format: Format, expected: &str| {
        let mut batch = batch("a 1-2", |options| options.format = format);
        let target = begin(&mut batch);
        let (address, rtt, service) = (address(name(1)), Duration::ZERO, names.of(1));
        batch.handle_open(target, OpenPort { address, port: 1, rtt, service });
        let ports = PortSet::from_range(1, 1);
        let summary = Summary {
            services: Some(Services { open: &ports, names: &names }),
            closed: (format == Format::Csv).then_some(&ports),
            ..summary("a", &ports, Counts { open: 1, closed: 1, ..Counts::default() })
        };
        batch.handle_ended(Instant::now(), target, summary);
        let text = printed(&mut batch);
        assert!(text.contains(expected), "{text}");
    };
    check(Format::Csv, "\n127.0.0.1,1,open,\"a/b,\"\"c\",0.000\n");
    check(Format::Csv, "\n127.0.0.0,1,closed,\"a/b,\"\"c\",\n");
    check(Format::Greppable, "\tPorts: 1/open/tcp//a|b,\"c///\t");
}

#[test]
fn greppable_lists_ports_in_ascending_order_and_at_most_one_ignored_state() {
    let (open, closed) = (PortSet::from_range(2, 3), PortSet::parse("1,9").unwrap());
    let check = |closed: Option<&PortSet>, counts: Counts, expected: &str| {
        let counts = Counts { open: 2, ..counts };
        let list = format!("a 1-{}", counts.total());
        let mut batch = batch(&list, |options| options.format = Format::Greppable);
        let target = begin(&mut batch);
        let summary = Summary { closed, ..summary("a", &open, counts) };
        batch.handle_ended(Instant::now(), target, summary);
        let text = printed(&mut batch);
        let ports = text.split("\tPorts: ").nth(1).expect("ports are printed");
        assert_eq!(ports.lines().next(), Some(expected));
    };
    let (both, opened) = (
        "1/closed/tcp/////, 2/open/tcp/////, 3/open/tcp/////, 9/closed/tcp/////",
        "2/open/tcp/////, 3/open/tcp/////",
    );
    let counts = Counts { closed: 2, filtered: 3, unreachable: 4, ..Counts::default() };
    check(Some(&closed), counts, &format!("{both}\tIgnored State: filtered (7)"));
    check(Some(&closed), Counts { untested: 1, ..counts }, both);
    check(None, counts, opened);
    let counts = Counts { closed: 2, ..Counts::default() };
    check(None, counts, &format!("{opened}\tIgnored State: closed (2)"));
    check(Some(&closed), counts, both);
}

#[test]
fn a_reader_that_lags_by_half_of_the_bound_gets_no_progress() {
    let mut batch = batch("a", |options| options.format = Format::Ndjson);
    let target = begin(&mut batch);
    let mut now = Instant::now();
    let mut tell_progress = |batch: &mut Batch| {
        let before = batch.stdout().len();
        now += PROGRESS_EVERY;
        batch.handle_timeout(now, UnderWay::default());
        batch.stdout().len() > before
    };
    assert!(tell_progress(&mut batch));
    while batch.stdout().len() < limits::PRINTOUT_BYTES_MAX / 2 {
        let open =
            OpenPort { address: address(name(1)), port: 1, rtt: Duration::ZERO, service: "" };
        batch.handle_open(target, open);
    }
    assert!(!tell_progress(&mut batch));
    batch.handle_printed(1000);
    assert!(tell_progress(&mut batch));
}

#[test]
fn only_names_are_looked_up_and_their_number_at_once_is_bounded() {
    for (list, expected) in [
        (String::new(), 1),
        (names(1), 1),
        (names(3), 3),
        ("10.0.0.0/16".to_owned(), 1),
        (names(5000), limits::LOOKUPS_MAX),
    ] {
        assert_eq!(batch(&list, |_| {}).lookups_at_once(), expected);
    }
}

#[test]
fn every_address_of_a_name_counts_in_the_progress() {
    let mut batch = batch("a", |options| options.format = Format::Ndjson);
    let start = Instant::now();
    batch.poll_target(start);
    batch.handle_began(name(0), beginning(30));
    batch.handle_timeout(start + PROGRESS_EVERY, UnderWay { done: 25, open: 2, in_flight: 0 });
    let progress = r#"{"event":"progress","done":25,"total":30,"open":2}"#;
    assert_eq!(printed(&mut batch).lines().last(), Some(progress));
}

#[test]
fn targets_without_a_port_in_the_shard_are_skipped() {
    let mut times_polled = vec![0; 600];
    for shard in ["1/7", "2/7", "3/7", "4/7", "5/7", "6/7", "7/7"] {
        let list = names_with(600, " 22");
        let mut batch =
            batch(&list, |options| options.shard = Shard::parse(shard).expect("a shard"));
        let now = Instant::now();
        for _ in 0..600 {
            if let Some((target, request)) = batch.poll_target(now) {
                assert_eq!((request.from_port, request.ports.len()), (22, 1));
                let TargetId::Name(place) = target else { panic!("{target:?} is no name") };
                times_polled[place as usize] += 1;
                batch.handle_dropped(target, 1);
            }
        }
        batch.conclude(now);
        assert!(batch.is_done());
        assert_eq!(batch.progress.targets_done, 600);
        assert_eq!(batch.progress.done, batch.progress.total);
    }
    assert!(times_polled.iter().all(|times| *times == 1), "each target is in one shard");
}

#[test]
fn a_run_that_scans_nothing_says_why() {
    let conclude = |mut batch: Batch| {
        assert!(batch.poll_target(Instant::now()).is_none());
        batch.conclude(Instant::now());
        assert_eq!((batch.is_done(), batch.exit_code()), (true, 0));
        messages(&mut batch)
    };
    let shard = batch("a 80", |options| options.shard = Shard::parse("2/3").expect("a shard"));
    let empty = "openports: this shard has no port to scan: there are more shards than targets and \
                 ports";
    assert_eq!(conclude(shard), [empty]);
    let mut list = TargetList::new(PortSet::from_range(80, 80), PortSet::new());
    list.add_lines(b"a");
    list.finish_target("a");
    let resumed = batch("b", |options| options.targets = list.finish().expect("a list"));
    let finished = "openports: nothing is left to scan: the earlier run has finished every target";
    assert_eq!(conclude(resumed), [finished]);
}
