//! Requests, pipelined or not: however they are cut on their way, the same comes of them.
#![no_main]

use std::time::Instant;

use libfuzzer_sys::fuzz_target;
use openports::conn::{Conn, Step};
use openports::http::head::HeadScan;
use openports::http::{self, Field, Head, Parse, Response, Version};
use openports_fuzz::pieces;

fuzz_target!(|bytes: &[u8]| {
    let whole = http::parse(bytes);
    for cut in [bytes.chunks(1).collect(), pieces(bytes)] {
        assert_eq!(parse_in_pieces(bytes, &cut), whole);
    }
    if let Parse::Complete(head) = &whole {
        check_head(bytes, head);
    }
    let whole = converse(bytes.chunks(usize::MAX));
    assert_eq!(converse(bytes.chunks(1)), whole);
    assert_eq!(converse(pieces(bytes).into_iter()), whole);
});

/// What a scan says of the first piece, of the first two, and so on: its first decision.
fn parse_in_pieces(bytes: &[u8], cut: &[&[u8]]) -> Parse {
    let (mut scan, mut seen) = (HeadScan::default(), 0);
    for piece in cut {
        seen += piece.len();
        let parse = scan.parse(&bytes[..seen]);
        if parse != Parse::Partial {
            return parse;
        }
    }
    Parse::Partial
}

fn check_head(bytes: &[u8], head: &Head) {
    let (own, _) = bytes.split_at(head.head_len);
    assert!(own.ends_with(b"\r\n\r\n"));
    assert_eq!(http::parse(own), Parse::Complete(head.clone()), "what follows changes nothing");
    assert_eq!(http::parse(&own[..own.len() - 1]), Parse::Partial, "nothing less is a head");
    let request = &head.request;
    assert!(request.target.starts_with('/') || &*request.target == "*");
    assert!(request.target.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#'));
    let hosts = request.fields.iter().filter(|(field, _)| *field == Field::Host).count();
    match request.version {
        Version::Http10 => assert!(hosts <= 1),
        Version::Http11 => assert_eq!(hosts, 1),
    }
    for (_, value) in &request.fields {
        assert!(!value.contains(['\r', '\n', '\0']));
        assert_eq!(value.trim_matches([' ', '\t']), &**value);
    }
}

/// Everything that a connection has done for a client who sends these pieces, reads every answer
/// at once, and then closes its side.
fn converse<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Vec<Step> {
    let now = Instant::now();
    let mut conn = Conn::new(now);
    let mut steps = Vec::new();
    for mut piece in pieces {
        while !piece.is_empty() && conn.bytes_wanted() > 0 {
            let (bytes, rest) = piece.split_at(piece.len().min(conn.bytes_wanted()));
            conn.handle_received(now, bytes);
            serve(now, &mut conn, &mut steps);
            piece = rest;
        }
    }
    conn.handle_read_closed(now);
    serve(now, &mut conn, &mut steps);
    assert!(matches!(steps.last(), Some(Step::Close(_))), "who has closed is closed: {steps:?}");
    steps
}

/// Takes every step and every byte; an answer is the same for all.
fn serve(now: Instant, conn: &mut Conn, steps: &mut Vec<Step>) {
    loop {
        let step = conn.poll_step(now);
        if let Some(Step::Request(_) | Step::Refuse(_)) = step {
            let body = b"ok".to_vec();
            let fields = Vec::new();
            let response = Response { status: 200, content_type: "text/plain", fields, body };
            conn.respond(now, &response, "Mon, 23 Nov 2026 14:11:01 GMT");
        }
        let written = conn.output().len();
        if written > 0 {
            conn.handle_sent(now, written);
        }
        match step {
            Some(step) => steps.push(step),
            None if written == 0 => return,
            None => {}
        }
    }
}
