//! `/` for browsers: one page that requests scans from this service and shows their results.
//!
//! The page is `src/api/page/index.html` with its style and script; the browser fetches nothing
//! else. It is sent uncompressed. This costs some 18 KB more per first visit than gzip would, but
//! the binary needs no inflater for clients that do not accept gzip, and no second representation
//! with a tag of its own. The Content-Security-Policy permits exactly that style and that script,
//! by their digests; `src/tests/page.rs` computes it from the page. This module has no state and
//! does not know scans. `api` calls it.

use crate::http::{Field, Request, Response};

/// The request field that selects between the answers of `/`.
pub(super) const VARY: &str = "Accept";

const PAGE: &str = include_str!("page/index.html");
/// The Content-Security-Policy of the page.
const POLICY: &str = include_str!("page/policy.txt");
/// The bound on the size of the page, chosen so that it appears at once on a slow link too.
const PAGE_BYTES_MAX: usize = 28 * 1024;

const TAG: u64 = fingerprint(PAGE.as_bytes());

const _: () = assert!(PAGE.len() <= PAGE_BYTES_MAX, "the page is too large");

/// FNV-1a. A cryptographic hash is not needed, because an attacker does not choose the page.
const fn fingerprint(bytes: &[u8]) -> u64 {
    let (mut hash, mut at) = (0xcbf2_9ce4_8422_2325_u64, 0);
    while at < bytes.len() {
        hash = (hash ^ bytes[at] as u64).wrapping_mul(0x0100_0000_01b3);
        at += 1;
    }
    hash
}

/// 200 with the page, or 304 if the client has this version of the page.
pub fn page_response(request: &Request) -> Response {
    let tag = format!("\"{TAG:x}\"");
    let is_known = request.values(Field::IfNoneMatch).any(|list| names_tag(list, &tag));
    let fields = vec![
        ("ETag", tag),
        // A cache may store the page, and must revalidate it before each use.
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
    let body = PAGE.as_bytes().to_vec();
    Response { status: 200, content_type: "text/html; charset=utf-8", fields, body }
}

/// Whether a value of `If-None-Match` lists the tag or `*` (RFC 9110 section 13.1.2). The
/// comparison is the weak one. The list is read up to the first malformed member.
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
        // `member` includes both quotes.
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
