//! `/` for browsers: one page that asks this service for scans and shows them.
//!
//! The page is `src/page/index.html`, style and script within; nothing else is fetched. The binary
//! holds it packed, a third of its size. Every browser takes it so; for the rare client that does
//! not it is unpacked as it is asked for. The policy that comes with it permits exactly that style
//! and that script, by their digests. Both files beside the page are made from it by
//! `src/tests/page.rs`, which says how. It keeps no state, and knows of no scan.
//!
//! Invariant: an entity tag names bytes: the packed page has another than the page.

mod inflate;

use super::accept;
use crate::http::{Field, Request, Response};

/// What the answers of `/` depend on.
pub(super) const VARY: &str = "Accept, Accept-Encoding";

/// The page as gzip has it (RFC 1952), without any of the fields that its header may have.
const PACKED: &[u8] = include_bytes!("../page/index.html.gz");
/// Bytes of the header that an optionless gzip file has, and of its trailer.
const GZIP_HEADER: usize = 10;
/// See [`GZIP_HEADER`].
const GZIP_TRAILER: usize = 8;
/// Bytes of the page at most: it is to be there at once, on any line.
const PAGE_BYTES_MAX: usize = 24 * 1024;
/// What a browser lets the page do.
const POLICY: &str = include_str!("../page/policy.txt");

const TAG: u64 = fingerprint(PACKED);

const _: () = assert!(PACKED.len() > GZIP_HEADER + GZIP_TRAILER && PACKED[3] == 0, "no options");

/// FNV-1a: no attacker makes the page.
const fn fingerprint(bytes: &[u8]) -> u64 {
    let (mut hash, mut at) = (0xcbf2_9ce4_8422_2325_u64, 0);
    while at < bytes.len() {
        hash = (hash ^ bytes[at] as u64).wrapping_mul(0x0100_0000_01b3);
        at += 1;
    }
    hash
}

/// 200 with the page, packed where that is taken; 304 where the client has that very one.
pub fn page_response(request: &Request) -> Response {
    let is_packed = accept::takes_gzip(request.values(Field::AcceptEncoding));
    let tag = if is_packed { format!("\"{TAG:x}-gzip\"") } else { format!("\"{TAG:x}\"") };
    let is_known = request.values(Field::IfNoneMatch).any(|list| names_tag(list, &tag));
    let mut fields = vec![
        ("ETag", tag),
        // A cache may keep it, and asks each time whether it still is the page.
        ("Cache-Control", "no-cache".to_string()),
        ("Vary", VARY.to_string()),
        ("Content-Security-Policy", POLICY.trim_end().to_string()),
        ("X-Content-Type-Options", "nosniff".to_string()),
        ("Referrer-Policy", "no-referrer".to_string()),
        ("Cross-Origin-Opener-Policy", "same-origin".to_string()),
        ("Cross-Origin-Resource-Policy", "same-origin".to_string()),
    ];
    if is_known {
        return Response { status: 304, content_type: "", fields, body: Vec::new() };
    }
    let body = if is_packed {
        fields.push(("Content-Encoding", "gzip".to_string()));
        PACKED.to_vec()
    } else {
        unpacked(PACKED)
    };
    Response { status: 200, content_type: "text/html; charset=utf-8", fields, body }
}

/// What a gzip file without options holds. Panics if it is none, or holds more than a page may.
fn unpacked(packed: &[u8]) -> Vec<u8> {
    let deflated = &packed[GZIP_HEADER..packed.len() - GZIP_TRAILER];
    #[expect(
        clippy::expect_used,
        reason = "it is a constant of this binary, and a test unpacks it to the page"
    )]
    inflate::inflate(deflated, PAGE_BYTES_MAX).expect("the page unpacks")
}

/// True exactly when a value of `If-None-Match` names the tag, or any (RFC 9110 section 13.1.2).
/// The comparison is the weak one. What follows a member without sense is not read.
fn names_tag(list: &str, tag: &str) -> bool {
    let mut rest = list.trim_matches([' ', '\t']);
    if rest == "*" {
        return true;
    }
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let opaque = rest.strip_prefix("W/").unwrap_or(rest);
        let Some(end) = opaque.strip_prefix('"').and_then(|inner| inner.find('"')) else {
            return false;
        };
        // Both quotes, and what is between them.
        let (member, after) = opaque.split_at(end + 2);
        if member == tag {
            return true;
        }
        rest = after;
    }
}

#[cfg(test)]
#[path = "../tests/page.rs"]
mod pages;
