//! The link model of the lab (`benches/lab/link.rs`), with a time that the test passes in.
//!
//! The tests use no descriptor, no thread and no clock, so their results are exact.
//! src/tests/lab/links.rs checks that the lab applies the model to the packets of the kernel.

#[path = "../../benches/lab/link.rs"]
mod link;

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use link::{
    Ban, Bursts, Direction, Dropped, HalfOpenTable, Header, Link, LinkModel, Random, Reorder,
};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// A SYN from a local port to port 80 of the host.
fn syn(source_port: u16) -> Header {
    let at = |last, port| SocketAddr::from((Ipv4Addr::new(10, 99, 0, last), port));
    Header { source: at(1, source_port), target: at(2, 80), is_syn: true }
}

fn bottleneck(packets_per_second: u32, queue_packets: u32) -> Direction {
    let packets_per_second = Some(packets_per_second);
    Direction { packets_per_second, queue_packets, ..Direction::default() }
}

#[test]
fn a_link_without_limits_delivers_at_once() {
    let (now, mut model) = (Instant::now(), LinkModel::new(&Link::default()));
    for port in 1..1000 {
        assert_eq!(model.forward(now, &syn(port)), Ok(now));
        let arrival = model.back(now, &syn(port)).map(|arrival| (arrival.at, arrival.copy_at));
        assert_eq!(arrival, Ok((now, None)));
    }
}

#[test]
fn a_bottleneck_sends_one_packet_at_a_time() {
    let start = Instant::now();
    let mut model = LinkModel::new(&Link { to: bottleneck(1000, 100), ..Link::default() });
    // Each pair is the arrival and the departure of a packet in milliseconds.
    for (arrives, departs) in [(0, 1), (0, 2), (0, 3), (2, 4), (10, 11), (11, 12), (11, 13)] {
        let at = model.forward(start + MS * arrives, &syn(1));
        assert_eq!(at, Ok(start + MS * departs), "the packet that arrived at {arrives} ms");
    }
    assert_eq!(model.counts().to.queue_delay_max, 3 * MS);
}

#[test]
fn a_full_queue_drops_packets_until_one_has_left() {
    let start = Instant::now();
    let mut model = LinkModel::new(&Link { to: bottleneck(1000, 3), ..Link::default() });
    let mut send = |micros| model.forward(start + Duration::from_micros(micros), &syn(1)).is_ok();
    // One packet is being sent, and three wait.
    assert_eq!([0; 6].map(&mut send), [true, true, true, true, false, false]);
    assert_eq!([999, 1000, 1000].map(&mut send), [false, true, false]);
    assert_eq!(model.counts().to.dropped_by(Dropped::QueueFull), 4);
}

#[test]
fn an_overloaded_bottleneck_delivers_at_its_own_rate() {
    let start = Instant::now();
    let mut model = LinkModel::new(&Link { to: bottleneck(2000, 100), ..Link::default() });
    // Ten thousand packets arrive in one second.
    let sent = (0..10_000).map(|n| model.forward(start + SECOND / 10_000 * n, &syn(1)));
    let arrived = sent.filter_map(Result::ok).count();
    assert!(
        (2100..=2102).contains(&arrived),
        "the packets of a second and of the queue should arrive: {arrived}"
    );
}

#[test]
fn each_direction_has_its_own_bottleneck() {
    let start = Instant::now();
    let (to, from) = (bottleneck(1000, 10), bottleneck(100, 10));
    let mut model = LinkModel::new(&Link { to, from, ..Link::default() });
    assert_eq!(model.forward(start, &syn(1)), Ok(start + MS));
    assert_eq!(model.back(start, &syn(1)).map(|arrival| arrival.at), Ok(start + 10 * MS));
    assert_eq!(model.forward(start, &syn(2)), Ok(start + 2 * MS));
    assert_eq!(model.back(start, &syn(2)).map(|arrival| arrival.at), Ok(start + 20 * MS));
}

#[test]
fn random_loss_has_the_configured_share() {
    let to = Direction { loss: 0.2, ..Direction::default() };
    let (now, mut model) = (Instant::now(), LinkModel::new(&Link { to, ..Link::default() }));
    let lost = (0..100_000).filter(|_| model.forward(now, &syn(1)).is_err()).count();
    assert!((19_400..20_600).contains(&lost), "{lost} of 100,000 packets were lost");
    assert_eq!(model.counts().to.dropped_by(Dropped::Lost), lost as u64);
}

#[test]
fn bursts_have_the_configured_share_of_time_loss_and_duration() {
    let bursts = Bursts { time: 0.01, loss: 0.8, duration: 200 * MS };
    let to = Direction { bursts: Some(bursts), ..Direction::default() };
    let (start, mut model) = (Instant::now(), LinkModel::new(&Link { to, ..Link::default() }));
    // A packet is sent every 10 ms for 20,000 s. The expected number of bursts is 1,000.
    let losses: Vec<u32> =
        (0..2_000_000).filter(|n| model.forward(start + 10 * MS * *n, &syn(1)).is_err()).collect();
    let share = losses.len() as f64 / 2e6;
    assert!((0.007..0.009).contains(&share), "0.8 % should be lost: {share}");
    // Consecutive losses of one burst are nearly always less than half a second apart.
    let bursts = 1 + losses.windows(2).filter(|pair| pair[1] - pair[0] > 50).count();
    assert!((850..1100).contains(&bursts), "there were {bursts} bursts");
}

#[test]
fn jitter_and_reordering_delay_answers_within_their_limits() {
    let reorder = Some(Reorder { share: 0.1, delay: 50 * MS });
    let link = Link { jitter: 10 * MS, reorder, duplicates: 0.3, ..Link::default() };
    let (now, mut model) = (Instant::now(), LinkModel::new(&link));
    let (mut reordered, mut copies, mut total) = (0, 0, Duration::ZERO);
    for port in 1..=10_000 {
        let arrival = model.back(now, &syn(port)).expect("no packet is lost");
        copies += arrival.copy_at.iter().count();
        let delay = arrival.at - now;
        assert!(delay <= 60 * MS && !(10 * MS..50 * MS).contains(&delay), "{delay:?}");
        reordered += usize::from(delay >= 50 * MS);
        total += delay;
    }
    assert!((900..1100).contains(&reordered), "{reordered} of 10,000 answers were reordered");
    assert!((2800..3200).contains(&copies), "{copies} of 10,000 answers were duplicated");
    let mean = total / 10_000;
    assert!(
        (9500..10_500).contains(&mean.as_micros()),
        "5 ms of jitter and 5 ms of reordering are expected: {mean:?}"
    );
}

#[test]
fn a_full_table_of_half_open_connections_drops_syns_until_an_entry_is_free() {
    let half_open = Some(HalfOpenTable { entries: 2, lifetime: SECOND });
    let (start, mut model) =
        (Instant::now(), LinkModel::new(&Link { half_open, ..Link::default() }));
    let mut send = |ms, port| model.forward(start + MS * ms, &syn(port)).is_ok();
    assert_eq!([send(0, 1), send(0, 2), send(0, 3)], [true, true, false]);
    assert!(send(500, 1), "a repeated SYN finds its entry and renews it");
    assert_eq!([send(999, 3), send(1000, 3), send(1000, 4)], [false, true, false]);
    assert!(send(1499, 1), "the entry was renewed at 500 ms");
    let back = |model: &mut LinkModel, ms, port| model.back(start + MS * ms, &syn(port)).is_ok();
    assert!(!back(&mut model, 1499, 2), "the answer came after its entry had expired");
    assert!(back(&mut model, 1499, 3), "the answer frees the entry");
    assert!(model.forward(start + MS * 1500, &syn(4)).is_ok());
    assert_eq!(model.counts().to.dropped_by(Dropped::TableFull), 3);
    assert_eq!(model.counts().from.dropped_by(Dropped::Expired), 1);
}

#[test]
fn a_source_above_the_rate_is_banned_until_the_ban_ends() {
    let ban = Some(Ban { syns_per_second: 3, duration: 10 * SECOND });
    let (start, mut model) = (Instant::now(), LinkModel::new(&Link { ban, ..Link::default() }));
    let mut send = |ms, is_syn| {
        let header = Header { is_syn, ..syn(1) };
        model.forward(start + MS * ms, &header).is_ok()
    };
    assert_eq!(
        [0, 400, 900].map(|ms| send(ms, true)),
        [true; 3],
        "three SYNs within a second are allowed"
    );
    assert_eq!(
        [1000, 1000, 1000].map(|ms| send(ms, true)),
        [true; 3],
        "three SYNs within the next second are allowed"
    );
    assert!(send(1000, false), "only SYNs are counted");
    assert!(!send(1001, true), "the fourth SYN causes the ban");
    assert_eq!([1002, 5000, 11_000].map(|ms| send(ms, false)), [false; 3], "the source is banned");
    assert!(send(11_001, true), "the ban is over");
}

#[test]
fn equal_seeds_lose_the_same_packets_and_different_seeds_others() {
    let lost = |seed| {
        let to = Direction { loss: 0.5, ..Direction::default() };
        let (now, mut model) =
            (Instant::now(), LinkModel::new(&Link { to, seed, ..Link::default() }));
        (0..64).map(|_| model.forward(now, &syn(1)).is_err()).collect::<Vec<bool>>()
    };
    assert_eq!(lost(1), lost(1));
    assert_ne!(lost(1), lost(2));
}

#[test]
fn a_direction_never_reorders_or_invents_packets() {
    for seed in 0..200 {
        let mut random = Random::new(seed);
        let mut up_to = |end| random.next() % end;
        let (rate, queue) = (1 + up_to(50_000) as u32, up_to(300) as u32);
        let bursts = Some(Bursts { time: 0.2, loss: 0.5, duration: 5 * MS });
        let to = Direction { bursts, loss: 0.1, ..bottleneck(rate, queue) };
        let mut model = LinkModel::new(&Link { to, seed, ..Link::default() });
        let (mut now, mut last, mut arrived) = (Instant::now(), None, 0);
        for _ in 0..2000 {
            now += Duration::from_nanos(up_to(200_000));
            let Ok(at) = model.forward(now, &syn(1)) else { continue };
            arrived += 1;
            let waited = at - now;
            let longest = SECOND / rate * (queue + 2);
            assert!(
                waited <= longest,
                "seed {seed}: {waited:?} exceeds the maximum delay {longest:?}"
            );
            assert!(
                last.is_none_or(|last| at >= last + SECOND / rate),
                "seed {seed}: the link exceeds its rate"
            );
            last = Some(at);
        }
        assert_eq!(arrived + model.counts().to.dropped(), 2000, "seed {seed}");
    }
}
