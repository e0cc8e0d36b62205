//! What clients ask for beside scans: every other route, and what is refused before it is scanned.

use std::iter;

use crate::client::{Ask, Wanted};
use crate::rng::Rng;

/// One request line, its further fields with their CR LF, a body, and what may be answered.
type Errand = (&'static str, &'static str, &'static str, &'static [u16]);

const SCAN: &str = "/open-ports?domain=203.0.113.1&toPort=9";

/// Requests that say nothing of any target. Those that a scan would follow need the token.
const ERRANDS: &[Errand] = &[
    ("GET /healthz HTTP/1.1", "", "", &[200]),
    ("HEAD /healthz HTTP/1.1", "", "", &[200]),
    ("GET /readyz HTTP/1.1", "", "", &[200, 503]),
    ("GET /metrics HTTP/1.1", "", "", &[200]),
    ("GET /openapi.json HTTP/1.1", "", "", &[200]),
    ("GET /nowhere HTTP/1.1", "", "", &[404]),
    ("GET / HTTP/1.1", "", "", &[200]),
    ("GET /?any=%zz HTTP/1.1", "Accept: text/html\r\n", "", &[200]),
    ("GET / HTTP/1.1", "Accept: text/html\r\n", "", &[200]),
    ("GET / HTTP/1.1", "Accept: text/html\r\nIf-None-Match: *\r\n", "", &[304]),
    ("GET / HTTP/1.1", "Accept: text/html\r\nIf-None-Match: \"no\"\r\n", "", &[200]),
    ("OPTIONS /open-ports HTTP/1.1", "", "", &[200]),
    ("OPTIONS * HTTP/1.1", "", "", &[200]),
    ("POST /open-ports HTTP/1.1", "Content-Length: 5\r\n", "hello", &[405]),
    ("DELETE /healthz HTTP/1.1", "", "", &[405]),
    ("GET /healthz HTTP/1.1", "Content-Length: 5\r\n", "hello", &[200]),
    (
        "GET /healthz HTTP/1.1",
        "Transfer-Encoding: chunked\r\n",
        "3;a=b\r\nabc\r\n0\r\n\r\n",
        &[200],
    ),
    ("GET /healthz HTTP/1.1", "Transfer-Encoding: chunked\r\n", "x\r\n", &[400]),
    ("GET /healthz HTTP/1.1", "Content-Length: 100000\r\n", "", &[413]),
    ("GET /healthz HTTP/1.1", "Expect: nonsense\r\n", "", &[417]),
    ("GET /healthz HTTP/1.1", "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n", "", &[400]),
    ("GET /healthz HTTP/1.0", "", "", &[200]),
    ("GET /healthz HTTP/1.1", "Connection: close\r\n", "", &[200]),
];

/// Requests for a scan that must not be made: with the token, if one is needed, so many come to
/// this status.
const REFUSALS: &[Errand] = &[
    ("GET /open-ports?domain=&toPort=0 HTTP/1.1", "", "", &[400]),
    ("GET /open-ports?domain=a&ports=9-3 HTTP/1.1", "", "", &[400]),
    ("GET /open-ports?domain=a&ports=1-9&exclude=1- HTTP/1.1", "", "", &[400]),
    ("GET /probe?target=a HTTP/1.1", "", "", &[400]),
    ("GET /open-ports?domain=a&toPort=9 HTTP/1.1", "Accept: image/png\r\n", "", &[406]),
    ("GET /open-ports?domain=169.254.169.254&toPort=9 HTTP/1.1", "", "", &[403, 429, 503]),
];

/// A request that is answered at once, and the statuses that it may come to. `guarded`: the Host is
/// looked at; `token`: what has to be borne.
pub(crate) fn errand(rng: &mut Rng, is_guarded: bool, token: Option<&str>) -> Ask {
    let bearer = token.map(|token| format!("Authorization: Bearer {token}\r\n"));
    let bearer = bearer.unwrap_or_default();
    match rng.below(10) {
        0..6 => plain(&rng.pick(ERRANDS), ""),
        6 => plain(&rng.pick(REFUSALS), &bearer),
        7 => {
            let foreign = ["Sec-Fetch-Site: cross-site\r\n", "Origin: http://evil.test\r\n"];
            plain(&("GET", rng.pick(&foreign), "", &[403]), &bearer)
        }
        8 if is_guarded => {
            let text = format!("HEAD {SCAN} HTTP/1.1\r\nHost: evil.test\r\n{bearer}\r\n");
            Ask { bytes: text.into_bytes(), wanted: Wanted::Status(vec![421]) }
        }
        8 => plain(&("HEAD", "", "", &[200]), &bearer),
        _ => too_long(rng),
    }
}

fn plain((line, fields, body, statuses): &Errand, bearer: &str) -> Ask {
    let line = match *line {
        method @ ("GET" | "HEAD") => format!("{method} {SCAN} HTTP/1.1"),
        line => line.to_owned(),
    };
    let text = format!("{line}\r\nHost: sim\r\n{bearer}{fields}\r\n{body}");
    Ask { bytes: text.into_bytes(), wanted: Wanted::Status(statuses.to_vec()) }
}

/// A head that no server need read to its end.
fn too_long(rng: &mut Rng) -> Ask {
    let (text, status) = match rng.below(3) {
        0 => (format!("GET /{} HTTP/1.1\r\nHost: sim\r\n\r\n", "x".repeat(9_000)), 414),
        1 => {
            let fields: String = iter::repeat_n("X: y\r\n", 120).collect();
            (format!("GET / HTTP/1.1\r\nHost: sim\r\n{fields}\r\n"), 431)
        }
        _ => {
            let long = "y".repeat(17_000);
            (format!("GET / HTTP/1.1\r\nHost: sim\r\nX: {long}\r\n\r\n"), 431)
        }
    };
    // In small pieces it may take too long, too.
    Ask { bytes: text.into_bytes(), wanted: Wanted::Status(vec![status, 408]) }
}

/// A request for a scan that bears no token, or another's.
pub(crate) fn intruder(rng: &mut Rng) -> Ask {
    let field =
        rng.pick(&["", "Authorization: Bearer guessed\r\n", "Authorization: Basic eA==\r\n"]);
    let method = rng.pick(&["GET", "HEAD"]);
    plain(&(method, field, "", &[401]), "")
}
