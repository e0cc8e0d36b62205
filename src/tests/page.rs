//! The content security policy, which is derived from the page, and the answers of `/` to browsers.
//!
//! This file is part of the module `api` and is compiled for tests only. The policy is stored in
//! `src/api/page/policy.txt`. A test fails if it does not match `index.html`;
//! `OPENPORTS_PAGES=write cargo test pages` writes it.

use super::*;
use crate::http::{Method, Version};

/// The policy of a page with these elements.
fn policy(page: &str) -> String {
    let digests = |element: &str| -> String {
        let texts = elements(page, element);
        assert!(!texts.is_empty(), "the page has a <{element}>");
        texts.iter().map(|text| format!(" 'sha256-{}'", base64(&sha256(text.as_bytes())))).collect()
    };
    format!(
        "default-src 'none'; script-src{}; style-src{}; connect-src 'self'; img-src data:; \
         form-action 'self'; base-uri 'none'; frame-ancestors 'none'\n",
        digests("script"),
        digests("style")
    )
}

/// The exact content of each element with this name.
fn elements<'a>(page: &'a str, name: &str) -> Vec<&'a str> {
    let (mut rest, mut found) = (page, Vec::new());
    let (start, end) = (format!("<{name}"), format!("</{name}>"));
    while let Some((_, after)) = rest.split_once(&start) {
        let (attributes, text) = after.split_once('>').expect("a start tag has an end");
        assert!(!attributes.contains("src"), "the page must not load other files: {attributes}");
        let (text, after) = text.split_once(&end).expect("an element has an end");
        found.push(text);
        rest = after;
    }
    found
}

#[test]
fn the_stored_policy_matches_the_page() {
    let path = format!("{}/src/api/page/policy.txt", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("OPENPORTS_PAGES").is_some_and(|value| value == "write") {
        std::fs::write(&path, policy(PAGE)).unwrap();
    }
    let hint = "regenerate it with OPENPORTS_PAGES=write cargo test pages";
    let found = std::fs::read_to_string(&path).unwrap();
    assert_eq!(found, policy(PAGE), "src/api/page/policy.txt is out of date; {hint}");
}

/// SHA-256 by FIPS 180-4. Its constants are the first bits of the roots of primes, which are
/// computed here.
fn sha256(message: &[u8]) -> [u8; 32] {
    let primes: Vec<u128> =
        (2..312).filter(|n| (2..*n).all(|divisor| n % divisor != 0)).take(64).collect();
    let root = |prime: u128, power: u32| {
        // This is the largest integer whose power is at most prime × 2^(32 × power).
        let bound = prime << (32 * power);
        let bits = (0..36).rev();
        let floor = bits.fold(0_u128, |root, bit| {
            let larger = root | 1 << bit;
            if larger.pow(power) <= bound { larger } else { root }
        });
        floor as u32
    };
    let mut state: Vec<u32> = primes[..8].iter().map(|prime| root(*prime, 2)).collect();
    let keys: Vec<u32> = primes.iter().map(|prime| root(*prime, 3)).collect();
    let mut padded = message.to_vec();
    padded.push(0x80);
    padded.resize(padded.len().next_multiple_of(64), 0);
    if padded.len() - message.len() < 9 {
        padded.resize(padded.len() + 64, 0);
    }
    let length_at = padded.len() - 8;
    padded[length_at..].copy_from_slice(&(message.len() as u64 * 8).to_be_bytes());
    for block in padded.chunks_exact(64) {
        let word =
            |bytes: &[u8]| u32::from_be_bytes(bytes.try_into().expect("the chunk has four bytes"));
        let mut words: Vec<u32> = block.chunks_exact(4).map(word).collect();
        for at in 16..64 {
            let (early, late) = (words[at - 15], words[at - 2]);
            let early = early.rotate_right(7) ^ early.rotate_right(18) ^ early >> 3;
            let late = late.rotate_right(17) ^ late.rotate_right(19) ^ late >> 10;
            let sum = words[at - 16].wrapping_add(early).wrapping_add(words[at - 7]);
            words.push(sum.wrapping_add(late));
        }
        let mut v = state.clone();
        for (key, word) in keys.iter().zip(&words) {
            let (a, e) = (v[0], v[4]);
            let big_e = e.rotate_right(6) ^ e.rotate_right(11) ^ e.rotate_right(25);
            let choice = e & v[5] ^ !e & v[6];
            let first = [v[7], big_e, choice, *key, *word];
            let first = first.into_iter().fold(0, u32::wrapping_add);
            let big_a = a.rotate_right(2) ^ a.rotate_right(13) ^ a.rotate_right(22);
            let majority = a & v[1] ^ a & v[2] ^ v[1] & v[2];
            v.rotate_right(1);
            v[4] = v[4].wrapping_add(first);
            v[0] = first.wrapping_add(big_a).wrapping_add(majority);
        }
        for (sum, value) in state.iter_mut().zip(v) {
            *sum = sum.wrapping_add(value);
        }
    }
    let bytes: Vec<u8> = state.iter().flat_map(|word| word.to_be_bytes()).collect();
    bytes.try_into().expect("the digest has 32 bytes")
}

/// Base64 by RFC 4648 section 4.
fn base64(bytes: &[u8]) -> String {
    let alphabet: Vec<u8> =
        (b'A'..=b'Z').chain(b'a'..=b'z').chain(b'0'..=b'9').chain(*b"+/").collect();
    let quantum = |three: &[u8]| -> String {
        let bits = (0..3)
            .fold(0, |bits, at| bits << 8 | three.get(at).map_or(0, |byte| usize::from(*byte)));
        let sextet = |at: usize| match at <= three.len() {
            true => char::from(alphabet[bits >> (18 - 6 * at) & 63]),
            false => '=',
        };
        (0..4).map(sextet).collect()
    };
    bytes.chunks(3).map(quantum).collect()
}

#[test]
fn the_digests_match_the_examples_of_the_standards() {
    let check = |message: &[u8], expected: &str| assert_eq!(base64(&sha256(message)), expected);
    check(b"", "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=");
    check(b"abc", "ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=");
    let two_blocks = b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";
    check(two_blocks, "JI1qYdIGOLjlwCaTDD5gOaM85Flk/yFn9uzt1BnbBsE=");
    for (text, expected) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v")] {
        assert_eq!(base64(text.as_bytes()), expected);
    }
}

fn request_page(fields: &[(Field, &str)]) -> Response {
    let fields = fields.iter().map(|(name, value)| (*name, (*value).into())).collect();
    page_response(&Request {
        method: Method::Get,
        version: Version::Http11,
        target: "/".into(),
        fields,
    })
}

fn field<'a>(response: &'a Response, wanted: &str) -> Option<&'a str> {
    let (_, value) = response.fields.iter().find(|(name, _)| *name == wanted)?;
    Some(value)
}

/// The test vectors come from the authors of the hash function.
#[test]
fn the_fingerprint_is_fnv_1a() {
    assert_eq!(fingerprint(b""), 0xcbf2_9ce4_8422_2325);
    assert_eq!(fingerprint(b"a"), 0xaf63_dc4c_8601_ec8c);
    assert_eq!(fingerprint(b"foobar"), 0x8594_4171_f739_67e8);
}

#[test]
fn the_page_is_sent_unchanged_with_its_policy() {
    let response = request_page(&[(Field::Accept, "text/html")]);
    assert_eq!((response.status, response.content_type), (200, "text/html; charset=utf-8"));
    assert_eq!(response.body, PAGE.as_bytes());
    assert!(PAGE.starts_with("<!doctype html>"));
    assert_eq!(field(&response, "Content-Encoding"), None);
    assert_eq!(field(&response, "Vary"), Some("Accept"));
    let policy = field(&response, "Content-Security-Policy").unwrap();
    assert!(policy.starts_with("default-src 'none'; ") && !policy.contains("unsafe"));
    assert!(!policy.contains('\n'), "{policy}");
}

#[test]
fn a_client_that_has_the_page_receives_304_without_a_body() {
    let tag = field(&request_page(&[]), "ETag").unwrap().to_owned();
    let check = |list: &str, expected: u16| {
        let response = request_page(&[(Field::IfNoneMatch, list)]);
        assert_eq!(response.status, expected, "{list}");
        assert_eq!(response.body.is_empty(), expected == 304);
        assert_eq!(field(&response, "ETag"), Some(&*tag));
        assert_eq!(field(&response, "Cache-Control"), Some("no-cache"));
        assert_eq!(field(&response, "Vary"), Some("Accept"));
        assert_eq!(response.content_type.is_empty(), expected == 304);
    };
    for known in [
        tag.clone(),
        format!("W/{tag}"),
        format!("\"a,b\" , W/\"\",{tag}"),
        format!(",, \t{tag}, \"x"),
        "*".to_owned(),
        " * ".to_owned(),
    ] {
        check(&known, 304);
    }
    let bare = tag.trim_matches('"');
    let former = format!("\"{bare}-gzip\"");
    let lower = format!("w/{tag}");
    for other in ["", "\"\"", "\"*\"", "*, \"a\"", "W/", "\"", bare, &lower, &former] {
        check(other, 200);
    }
    check(&format!("{former}, {tag}"), 304);
}
