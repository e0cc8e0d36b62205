//! Random mutations of valid requests, for cases that are missing from the tables.
//!
//! A seed determines each byte stream. The following must hold for every stream: the answers are
//! well formed, none of them is an internal error, there are at most as many answers as a strict
//! parser finds requests, and the split of the bytes does not change the answers.
//! `CONFORMANCE_SEED=n` replays one stream, and `CONFORMANCE_SEEDS=n` sends that many streams.

use crate::client::{self, Client};
use crate::process::{Service, until};
use crate::reader::{self, Answer};
use crate::reference::{self, Element};
use crate::rng::Rng;

/// The number of streams in a normal run.
const SEEDS: u64 = 3000;
/// The number of streams in parallel. Each is sent in one piece and in three pieces.
const BATCH: usize = 64;

/// Valid requests. None of them names a host that must be resolved.
const REQUESTS: [&str; 12] = [
    "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "HEAD /healthz HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: localhost:80\r\nUser-Agent: curl/8.5.0\r\nAccept: a/b\r\n\r\n",
    "GET /nowhere?a=%41&b HTTP/1.1\r\nHost: [::1]:80\r\nConnection: keep-alive\r\n\r\n",
    "OPTIONS * HTTP/1.1\r\nHost: a.example\r\nMax-Forwards: 1\r\n\r\n",
    "GET http://localhost/healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "POST /healthz HTTP/1.1\r\nHost: h\r\nContent-Length: 11\r\n\r\nhello world",
    "PUT / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "GET /readyz HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n\
     1;a=b;c=\"d e\"\r\nx\r\nA\r\n0123456789\r\n0\r\nX-Trailer: y\r\n\r\n",
    "GET /healthz HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    "HEAD /open-ports?domain=127.0.0.1&ports=1-9 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "GET /healthz HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nok",
];

/// Inserted pieces: the bytes of the framing, and words that change it.
const PIECES: [&[u8]; 28] = [
    b"\r\n",
    b"\n",
    b"\r",
    b"\r\n\r\n",
    b"\0",
    b" ",
    b"\t",
    b":",
    b";",
    b",",
    b"\"",
    b"\\",
    b"%",
    b"#",
    b"?",
    b"/",
    b"0",
    b"5",
    b"\xFF",
    b"\x0B",
    b"chunked",
    b"HTTP/1.1",
    b"0\r\n\r\n",
    b"Host: h\r\n",
    b"Content-Length: 5\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Connection: close\r\n",
    b"GET /nowhere HTTP/1.1\r\nHost: h\r\n\r\n",
];

#[test]
fn mutated_requests_get_well_formed_answers_and_not_too_many() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse().expect(name));
    let seeds = match number("CONFORMANCE_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("CONFORMANCE_SEEDS").unwrap_or(SEEDS),
    };
    let mut service = Service::start(&["--max-connections", "4096"]);
    let began = service.descriptors();
    let (mut answered, mut refused) = (0, 0);
    for batch in seeds.clone().collect::<Vec<_>>().chunks(BATCH) {
        for (seed, result) in send_streams(&service, batch) {
            let answers = result.unwrap_or_else(|fault| {
                let bytes = stream(&mut Rng::new(seed));
                panic!("CONFORMANCE_SEED={seed}: {fault}\nsent {}", bytes.escape_ascii())
            });
            answered += answers.iter().filter(|answer| answer.status < 400).count();
            refused += answers.iter().filter(|answer| answer.status == 400).count();
        }
    }
    println!("seeds {seeds:?}: {answered} requests answered without an error, {refused} refused");
    assert!(service.is_running(), "the service has ended: {}", service.command);
    until("the service has closed the descriptors", || {
        (service.descriptors() <= began).then_some(())
    });
    if seeds.end - seeds.start == SEEDS {
        assert!(answered > 1000 && refused > 1000, "the mutations are too weak or too strong");
    }
}

/// Concatenates one to four valid requests and changes them up to five times.
fn stream(rng: &mut Rng) -> Vec<u8> {
    let count = 1 + rng.below(4);
    let mut bytes: Vec<u8> = (0..count).flat_map(|_| rng.pick(&REQUESTS).bytes()).collect();
    for _ in 0..rng.below(6) {
        // Bytes at the start or the end of a line have the most effect.
        let starts: Vec<usize> =
            (2..=bytes.len()).filter(|at| bytes[..*at].ends_with(b"\r\n")).collect();
        let is_line = rng.chance(50) && !starts.is_empty();
        let at = if is_line { rng.pick(&starts) } else { rng.below(bytes.len() + 1) };
        let most = if rng.chance(80) { 3 } else { 40 };
        let end = bytes.len().min(at + 1 + rng.below(most));
        match rng.below(7) {
            6 if is_line => drop(bytes.splice(at - 2..at, rng.pick(&PIECES).to_vec())),
            0 => drop(bytes.drain(at..end)),
            1 => drop(bytes.splice(at..at, rng.pick(&PIECES).to_vec())),
            2 => drop(bytes.splice(at..end, rng.pick(&PIECES).to_vec())),
            3 => drop(bytes.splice(at..at, bytes[at..end].to_vec())),
            4 => bytes[at..end].iter_mut().take(1).for_each(|byte| *byte ^= 1 << rng.below(8)),
            _ => bytes[at..end].iter_mut().take(1).for_each(|byte| *byte = rng.below(256) as u8),
        }
        if bytes.is_empty() {
            bytes.push(b'G');
        }
    }
    bytes
}

/// Sends the stream of each seed twice, and judges the answers.
fn send_streams(service: &Service, seeds: &[u64]) -> Vec<(u64, Result<Vec<Answer>, String>)> {
    let streams: Vec<(Vec<u8>, [usize; 2])> = seeds
        .iter()
        .map(|seed| {
            let mut rng = Rng::new(*seed);
            let bytes = stream(&mut rng);
            let mut cuts = [rng.below(bytes.len() + 1), rng.below(bytes.len() + 1)];
            cuts.sort_unstable();
            (bytes, cuts)
        })
        .collect();
    let (mut control, mut clients) = client::connect(service.address, 2 * streams.len());
    for step in 0..3 {
        for ((bytes, cuts), pair) in streams.iter().zip(clients.chunks_mut(2)) {
            let ends = [0, cuts[0], cuts[1], bytes.len()];
            pair[1].send(&bytes[ends[step]..ends[step + 1]]);
            if step == 0 {
                pair[0].send(bytes);
            }
        }
        control.barrier();
    }
    clients.iter_mut().for_each(Client::half_close);
    let mut received = clients.into_iter().map(Client::read_to_end);
    let mut judged = Vec::new();
    for (seed, (bytes, _)) in seeds.iter().zip(&streams) {
        let whole = received
            .next()
            .expect("two results for each stream")
            .and_then(|got| judge(bytes, &got));
        let split = received
            .next()
            .expect("two results for each stream")
            .and_then(|got| judge(bytes, &got));
        let is_same = whole.is_err() || whole == split;
        let fault = || format!("in one piece {whole:?}\nin three pieces {split:?}");
        judged.push((*seed, if is_same { whole } else { Err(fault()) }));
    }
    judged
}

/// Returns the final answers, or an error if these bytes must not have such answers.
fn judge(bytes: &[u8], received: &[u8]) -> Result<Vec<Answer>, String> {
    let elements = reference::read(bytes);
    // A refused head may or may not be a HEAD, depending on how far it was parsed, so both are
    // tried.
    let read = |is_rest_head: bool| {
        let is_head = |index: usize| match elements.get(index) {
            Some(Element::Request { is_head }) => *is_head,
            Some(Element::Rest) | None => is_rest_head,
        };
        reader::read(received, is_head, true)
    };
    let mut answers = read(false).or_else(|_| read(true))?;
    answers.retain(|answer| !answer.is_interim());
    if let Some(own) = answers.iter().find(|answer| answer.status >= 500) {
        return Err(format!("{own:?}"));
    }
    let is_refused = answers.last().is_some_and(|last| last.status >= 400 && last.has_close());
    let statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
    if answers.len() > elements.len() {
        return Err(format!("{statuses:?} are more answers than {elements:?}"));
    }
    let is_cut = answers.len() + 1 == elements.len() && elements.last() == Some(&Element::Rest);
    if answers.len() < elements.len() && !is_cut && !is_refused {
        return Err(format!("{statuses:?} are fewer answers than {elements:?}"));
    }
    Ok(answers.into_iter().map(Answer::comparable).collect())
}
