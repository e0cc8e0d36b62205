//! Requests that start no scan: those for every other route, and scans that are refused.

use std::iter;

use crate::client::{Expected, Request};
use crate::rng::Rng;

/// A request line, its further fields with their CR LF, a body, and the permitted statuses.
type RequestCase = (&'static str, &'static str, &'static str, &'static [u16]);

const SCAN: &str = "/open-ports?domain=203.0.113.1&toPort=9";

/// Requests without a target, which need no token.
const PLAIN: &[RequestCase] = &[
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

/// Requests for a scan that must be refused with one of these statuses. They need the token.
const REFUSED: &[RequestCase] = &[
    ("GET /open-ports?domain=&toPort=0 HTTP/1.1", "", "", &[400]),
    ("GET /open-ports?domain=a&ports=9-3 HTTP/1.1", "", "", &[400]),
    ("GET /open-ports?domain=a&ports=1-9&exclude=1- HTTP/1.1", "", "", &[400]),
    ("GET /probe?target=a HTTP/1.1", "", "", &[400]),
    ("GET /open-ports?domain=a&toPort=9 HTTP/1.1", "Accept: image/png\r\n", "", &[406]),
    ("GET /open-ports?domain=169.254.169.254&toPort=9 HTTP/1.1", "", "", &[403, 429, 503]),
];

/// Returns a request that is answered without a scan. `is_guarded` says that the service checks the
/// Host field, and `token` is the token that it requires.
pub(crate) fn plain_request(rng: &mut Rng, is_guarded: bool, token: Option<&str>) -> Request {
    let bearer = token.map(|token| format!("Authorization: Bearer {token}\r\n"));
    let bearer = bearer.unwrap_or_default();
    match rng.below(10) {
        0..6 => plain(&rng.pick(PLAIN), ""),
        6 => plain(&rng.pick(REFUSED), &bearer),
        7 => {
            let foreign = ["Sec-Fetch-Site: cross-site\r\n", "Origin: http://evil.test\r\n"];
            plain(&("GET", rng.pick(&foreign), "", &[403]), &bearer)
        }
        8 if is_guarded => {
            let text = format!("HEAD {SCAN} HTTP/1.1\r\nHost: evil.test\r\n{bearer}\r\n");
            Request { bytes: text.into_bytes(), expected: Expected::Status(vec![421]) }
        }
        8 => plain(&("HEAD", "", "", &[200]), &bearer),
        _ => too_long(rng),
    }
}

fn plain((line, fields, body, statuses): &RequestCase, bearer: &str) -> Request {
    let line = match *line {
        method @ ("GET" | "HEAD") => format!("{method} {SCAN} HTTP/1.1"),
        line => line.to_owned(),
    };
    let text = format!("{line}\r\nHost: sim\r\n{bearer}{fields}\r\n{body}");
    Request { bytes: text.into_bytes(), expected: Expected::Status(statuses.to_vec()) }
}

/// Returns a request whose head exceeds the limits of the service.
fn too_long(rng: &mut Rng) -> Request {
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
    // A client that sends small pieces may also exceed the time limit of the head.
    Request { bytes: text.into_bytes(), expected: Expected::Status(vec![status, 408]) }
}

/// Returns a request for a scan without the token, or with a wrong one.
pub(crate) fn unauthorized_scan(rng: &mut Rng) -> Request {
    let field =
        rng.pick(&["", "Authorization: Bearer guessed\r\n", "Authorization: Basic eA==\r\n"]);
    let method = rng.pick(&["GET", "HEAD"]);
    plain(&(method, field, "", &[401]), "")
}
