//! The link, the many hosts and the neighbours of the lab, tested with the TCP implementation of
//! the kernel.
//!
//! src/tests/lab_link.rs checks the arithmetic of the link; these cases apply it to real packets.
//! Times are only compared with a lower limit, because a busy machine may delay everything.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use crate::lab::{
    Ban, Bursts, Direction, Dropped, HOST_ADDRESS, HalfOpenTable, Host, Lab, Link, Medium, Port,
    Reorder, RttChange, Unreachable,
};
use crate::{Case, Outcome, connect, connect_all, count_within_half_a_second};

pub(crate) const CASES: &[Case] = &[
    ("a_bottleneck_delays_answers_and_drops_packets_above_its_queue", bottleneck),
    ("a_burst_loses_the_packets_that_are_sent_during_it", bursts),
    ("jitter_reordering_and_duplicates_lose_no_answer", jitter_and_reordering),
    ("rules_for_every_nth_port_and_for_shares_of_ports_apply", rules),
    ("a_rst_limit_counts_closed_ports_but_not_silent_ones", rst_limit),
    ("a_middlebox_drops_syns_when_its_table_is_full", half_open),
    ("a_firewall_bans_a_source_above_its_rate_for_some_time", ban),
    ("a_host_comes_up_and_its_round_trip_time_grows", host_that_comes_up),
    ("each_of_twenty_thousand_hosts_answers", many_hosts),
    ("a_neighbour_is_resolved_and_an_absent_one_is_unreachable", neighbours),
];

const SECOND: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);

fn bottleneck() -> Outcome {
    let to =
        Direction { packets_per_second: Some(500), queue_packets: 100, ..Direction::default() };
    let network = Lab::enter()?.link(Link { to, ..Link::default() });
    let lab = network.start(vec![Host::new(HOST_ADDRESS)])?;
    let begun = Instant::now();
    let answered = connect_all(300, |times| {
        for (number, time) in times.iter().enumerate() {
            assert!(*time >= 2 * MS * number as u32, "answer {number} arrived after {time:?}");
        }
        times.len()
    })?;
    let (stats, elapsed) = (lab.stop()?, begun.elapsed());
    assert!(
        stats.link.dropped_by(Dropped::QueueFull) > 0,
        "the queue cannot hold 300 packets: {stats}"
    );
    assert!(answered >= 101, "the packets that fit are answered: {answered}, {stats}");
    let most = 101.0 + elapsed.as_secs_f64() * 500.0;
    assert!(stats.answered as f64 <= most, "there are more answers than the rate allows: {stats}");
    assert!(stats.link.to.queue_delay_max >= 200 * MS, "a full queue delays packets: {stats}");
    assert!(stats.link.to.queue_delay_max <= 202 * MS, "the queue limits the delay: {stats}");
    Ok(())
}

fn bursts() -> Outcome {
    let bursts = Bursts { time: 0.5, loss: 1.0, duration: 20 * MS };
    let from = Direction { bursts: Some(bursts), ..Direction::default() };
    let network = Lab::enter()?.link(Link { from, ..Link::default() });
    let lab = network.start(vec![Host::new(HOST_ADDRESS)])?;
    let mut refused = 0;
    for port in 1..=200 {
        refused += u32::from(connect(HOST_ADDRESS, port, 10).0.is_err_and(is_refused));
    }
    let stats = lab.stop()?;
    let lost = stats.link.dropped_by(Dropped::LostInBurst);
    assert!(lost > 0 && refused > 0, "{refused} connects were refused: {stats}");
    assert_eq!(stats.delivered() + lost, stats.syns, "{stats}");
    Ok(())
}

fn jitter_and_reordering() -> Outcome {
    let reorder = Some(Reorder { share: 0.2, delay: 30 * MS });
    let link = Link { jitter: 20 * MS, reorder, duplicates: 0.5, ..Link::default() };
    let host = Host::new(HOST_ADDRESS).rtt(20 * MS).every(3, Port::Open);
    let lab = Lab::enter()?.link(link).start(vec![host])?;
    let answered = connect_all(300, |times| {
        assert!(times.iter().all(|time| *time >= 20 * MS), "{times:?}");
        times.len()
    })?;
    let stats = lab.stop()?;
    assert_eq!((answered, stats.own_losses()), (300, 0), "{stats}");
    assert!(stats.link.reordered > 0 && stats.link.duplicated > 0, "{stats}");
    Ok(())
}

fn rules() -> Outcome {
    let host = Host::new(HOST_ADDRESS)
        .rtt(2 * MS)
        .ports(&[2, 22], Port::Open)
        .every(2, Port::Silent)
        .share(0.3, Port::Unreachable(Unreachable::Prohibited));
    let _lab = Lab::enter()?.start(vec![host])?;
    let error = |port| connect(HOST_ADDRESS, port, 300).0.err();
    let kind = |port| error(port).map(|error| error.kind());
    assert_eq!([2, 22].map(kind), [None, None], "a named port takes precedence over the rules");
    assert_eq!([4, 6, 8, 10].map(kind), [Some(ErrorKind::TimedOut); 4]);
    let mut counts = [0; 2];
    for port in (1001..2001).step_by(2) {
        let error = error(port);
        match error.as_ref().map(io::Error::kind) {
            Some(ErrorKind::ConnectionRefused) => counts[0] += 1,
            Some(ErrorKind::HostUnreachable) => counts[1] += 1,
            _ => return Err(format!("port {port}: {error:?}").into()),
        }
    }
    assert!((110..190).contains(&counts[1]), "the share should be 0.3 of 500: {counts:?}");
    Ok(())
}

fn rst_limit() -> Outcome {
    let host = Host { rst_per_second: Some(100), ..Host::new(HOST_ADDRESS) };
    let lab = Lab::enter()?.start(vec![host.every(2, Port::Silent)])?;
    assert_eq!(connect_all(600, count_within_half_a_second)?, 100);
    let stats = lab.stop()?;
    assert!(stats.limited >= 200 && stats.ignored >= 600, "{stats}");
    Ok(())
}

fn half_open() -> Outcome {
    let half_open = Some(HalfOpenTable { entries: 100, lifetime: 60 * SECOND });
    let network = Lab::enter()?.link(Link { half_open, ..Link::default() });
    let host = Host::new(HOST_ADDRESS).ports(&[301], Port::Open).rest(Port::Silent);
    let lab = network.start(vec![host])?;
    assert_eq!(connect_all(300, <[Duration]>::len)?, 0);
    let kind = connect(HOST_ADDRESS, 301, 500).0.map_err(|error| error.kind()).err();
    assert_eq!(kind, Some(ErrorKind::TimedOut), "the table is full of other connections");
    let stats = lab.stop()?;
    assert!(stats.link.dropped_by(Dropped::TableFull) > 200, "{stats}");
    assert_eq!(stats.answered, 0, "{stats}");
    Ok(())
}

fn ban() -> Outcome {
    let ban = Some(Ban { syns_per_second: 50, duration: 3 * SECOND });
    let network = Lab::enter()?.link(Link { ban, ..Link::default() });
    let lab = network.start(vec![Host::new(HOST_ADDRESS)])?;
    assert_eq!(connect_all(200, count_within_half_a_second)?, 50);
    let deadline = Instant::now() + 20 * SECOND;
    while !connect(HOST_ADDRESS, 1000, 100).0.is_err_and(is_refused) {
        assert!(Instant::now() < deadline, "the ban does not end");
    }
    assert!(lab.stop()?.link.dropped_by(Dropped::Banned) >= 150);
    Ok(())
}

fn host_that_comes_up() -> Outcome {
    let change = RttChange { after: SECOND, rtt: 300 * MS };
    let host =
        Host { up_after: Some(500 * MS), rtt_change: Some(change), ..Host::new(HOST_ADDRESS) };
    let _lab = Lab::enter()?.start(vec![host])?;
    let kind = connect(HOST_ADDRESS, 1, 100).0.map_err(|error| error.kind()).err();
    assert_eq!(kind, Some(ErrorKind::TimedOut), "the host is down");
    let deadline = Instant::now() + 20 * SECOND;
    while !connect(HOST_ADDRESS, 1, 100).0.is_err_and(is_refused) {
        assert!(Instant::now() < deadline, "the host does not come up");
    }
    while Instant::now() < deadline {
        let (result, elapsed) = connect(HOST_ADDRESS, 1, 5000);
        assert!(result.is_err_and(is_refused));
        if elapsed >= 300 * MS {
            return Ok(());
        }
    }
    Err("the round-trip time does not grow".into())
}

fn many_hosts() -> Outcome {
    let address = |number: u32| Ipv4Addr::from(u32::from(HOST_ADDRESS) + number);
    let lab = Lab::enter()?.start((0..20_000).map(|n| Host::new(address(n))).collect())?;
    for number in (0..20_000).step_by(20) {
        assert!(connect(address(number), 1, 900).0.is_err_and(is_refused), "{}", address(number));
    }
    let stats = lab.stop()?;
    assert_eq!((stats.syns, stats.answered, stats.own_losses()), (1000, 1000, 0), "{stats}");
    Ok(())
}

fn neighbours() -> Outcome {
    let present =
        [IpAddr::V4(HOST_ADDRESS), IpAddr::V6(Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, 1, 1))];
    let absent = [
        IpAddr::V4(Ipv4Addr::new(10, 99, 1, 2)),
        IpAddr::V6(Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, 1, 2)),
    ];
    let hosts = present.map(|address| Host::new(address).ports(&[22], Port::Open));
    let lab = Lab::enter_by(Medium::Ethernet)?.start(hosts.to_vec())?;
    for (present, absent) in present.into_iter().zip(absent) {
        connect(present, 22, 1000).0?;
        assert!(connect(present, 23, 1000).0.is_err_and(is_refused), "{present}");
        // The kernel sends three ARP requests, one second apart (arp(7)).
        let kind = connect(absent, 22, 10_000).0.map_err(|error| error.kind()).err();
        assert_eq!(kind, Some(ErrorKind::HostUnreachable), "{absent}");
    }
    let stats = lab.stop()?;
    assert_eq!(stats.own_losses(), 0, "{stats}");
    assert!(stats.neighbours_answered >= 2, "{stats}");
    assert!(stats.neighbours_asked >= stats.neighbours_answered + 6, "{stats}");
    Ok(())
}

fn is_refused(error: std::io::Error) -> bool {
    error.kind() == ErrorKind::ConnectionRefused
}
