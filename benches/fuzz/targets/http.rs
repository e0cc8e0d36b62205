//! Fuzzes requests, also pipelined: the result must not depend on how the bytes are split.
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
    let whole = handle_pieces(bytes.chunks(usize::MAX));
    assert_eq!(handle_pieces(bytes.chunks(1)), whole);
    assert_eq!(handle_pieces(pieces(bytes).into_iter()), whole);
});

/// Parses the first piece, the first two and so on, and returns the first complete result.
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
    assert_eq!(
        http::parse(own),
        Parse::Complete(head.clone()),
        "bytes after the head change the result"
    );
    assert_eq!(http::parse(&own[..own.len() - 1]), Parse::Partial, "a truncated head is complete");
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

/// Returns all steps of a connection whose client sends these pieces, reads every response at once,
/// and then sends a FIN.
fn handle_pieces<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Vec<Step> {
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
    assert!(matches!(steps.last(), Some(Step::Close(_))), "no close after a FIN: {steps:?}");
    steps
}

/// Takes all steps and all output, and responds to each request in the same way.
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
