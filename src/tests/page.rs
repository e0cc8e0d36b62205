//! The page's packed form and its policy, made from the page.
//!
//! A part of the room `api`, for tests alone: they stand under `src/page/`, and a test fails where
//! they are not those of `index.html`; `OPENPORTS_PAGES=write cargo test pages` writes them anew.

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

/// What stands within each element of this name, to the byte.
fn elements<'a>(page: &'a str, name: &str) -> Vec<&'a str> {
    let (mut rest, mut found) = (page, Vec::new());
    let (start, end) = (format!("<{name}"), format!("</{name}>"));
    while let Some((_, after)) = rest.split_once(&start) {
        let (attributes, text) = after.split_once('>').expect("a start tag has an end");
        assert!(!attributes.contains("src"), "everything stands in the page: {attributes}");
        let (text, after) = text.split_once(&end).expect("an element has an end");
        found.push(text);
        rest = after;
    }
    found
}

fn packed(page: &str) -> Vec<u8> {
    let mut file = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 2, 255];
    file.extend(miniz_oxide::deflate::compress_to_vec(page.as_bytes(), 10));
    file.extend(crc32(page.as_bytes()).to_le_bytes());
    file.extend((page.len() as u32).to_le_bytes());
    file
}

#[test]
fn what_stands_beside_the_page_is_made_from_it() {
    let path = |name: &str| format!("{}/src/page/{name}", env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(path("index.html")).unwrap();
    assert!(page.len() <= PAGE_BYTES_MAX, "the page has {} bytes", page.len());
    if std::env::var_os("OPENPORTS_PAGES").is_some_and(|value| value == "write") {
        std::fs::write(path("index.html.gz"), packed(&page)).unwrap();
        std::fs::write(path("policy.txt"), policy(&page)).unwrap();
    }
    let hint = "write it anew: OPENPORTS_PAGES=write cargo test pages";
    let found = std::fs::read(path("index.html.gz")).unwrap();
    assert!(unpacked(&found) == page.as_bytes(), "src/page/index.html.gz is out of date; {hint}");
    let (_, trailer) = found.split_at(found.len() - GZIP_TRAILER);
    let expected = [crc32(page.as_bytes()).to_le_bytes(), (page.len() as u32).to_le_bytes()];
    assert_eq!(trailer, expected.concat(), "a strict reader of gzip looks at this too");
    let found = std::fs::read_to_string(path("policy.txt")).unwrap();
    assert_eq!(found, policy(&page), "src/page/policy.txt is out of date; {hint}");
}

/// RFC 1952 section 8.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 }
        })
    })
}

/// FIPS 180-4. The constants are the first bits of the roots of primes, which are computed here.
fn sha256(message: &[u8]) -> [u8; 32] {
    let primes: Vec<u128> =
        (2..312).filter(|n| (2..*n).all(|divisor| n % divisor != 0)).take(64).collect();
    let root = |prime: u128, power: u32| {
        // The largest whole number whose power is not above prime × 2^(32 × power).
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
        let word = |bytes: &[u8]| u32::from_be_bytes(bytes.try_into().expect("four bytes"));
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
    bytes.try_into().expect("eight words")
}

/// RFC 4648 section 4.
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
fn digests_are_those_of_the_standards_examples() {
    let check = |message: &[u8], expected: &str| assert_eq!(base64(&sha256(message)), expected);
    check(b"", "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=");
    check(b"abc", "ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=");
    let two_blocks = b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";
    check(two_blocks, "JI1qYdIGOLjlwCaTDD5gOaM85Flk/yFn9uzt1BnbBsE=");
    for (text, expected) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v")] {
        assert_eq!(base64(text.as_bytes()), expected);
    }
    assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
}

fn ask(fields: &[(Field, &str)]) -> Response {
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

/// The vectors that its authors give.
#[test]
fn the_tag_is_fnv_1a() {
    assert_eq!(fingerprint(b""), 0xcbf2_9ce4_8422_2325);
    assert_eq!(fingerprint(b"a"), 0xaf63_dc4c_8601_ec8c);
    assert_eq!(fingerprint(b"foobar"), 0x8594_4171_f739_67e8);
}

#[test]
fn the_page_is_packed_for_who_takes_it_and_each_form_has_its_tag() {
    let (whole, packed) = (ask(&[]), ask(&[(Field::AcceptEncoding, "gzip, br")]));
    assert_eq!((whole.status, packed.status), (200, 200));
    assert_eq!(unpacked(&packed.body), whole.body);
    assert!(
        whole.body.starts_with(b"<!DOCTYPE html>") || whole.body.starts_with(b"<!doctype html>")
    );
    assert_eq!(field(&whole, "Content-Encoding"), None);
    assert_eq!(field(&packed, "Content-Encoding"), Some("gzip"));
    assert_ne!(field(&whole, "ETag"), field(&packed, "ETag"));
    for response in [&whole, &packed] {
        assert_eq!(response.content_type, "text/html; charset=utf-8");
        let policy = field(response, "Content-Security-Policy").unwrap();
        assert!(policy.starts_with("default-src 'none'; ") && !policy.contains("unsafe"));
        assert!(!policy.contains('\n'), "{policy}");
        assert_eq!(field(response, "Vary"), Some("Accept, Accept-Encoding"));
    }
}

#[test]
fn who_has_the_page_is_told_so_and_given_nothing() {
    let gzip = (Field::AcceptEncoding, "gzip");
    let (whole, packed) = (ask(&[]), ask(&[gzip]));
    let [whole, packed] = [&whole, &packed].map(|it| field(it, "ETag").unwrap().to_owned());
    let check = |encoding: &[(Field, &str)], list: &str, expected: u16| {
        let response = ask(&[encoding, &[(Field::IfNoneMatch, list)]].concat());
        assert_eq!(response.status, expected, "{list}");
        assert_eq!(response.body.is_empty(), expected == 304);
        if expected == 304 {
            let tag = if encoding.is_empty() { &whole } else { &packed };
            assert_eq!(field(&response, "ETag"), Some(&**tag));
            assert_eq!(field(&response, "Cache-Control"), Some("no-cache"));
            assert_eq!(field(&response, "Vary"), Some("Accept, Accept-Encoding"));
            assert_eq!((response.content_type, field(&response, "Content-Encoding")), ("", None));
        }
    };
    for known in [
        whole.clone(),
        format!("W/{whole}"),
        format!("\"a,b\" , W/\"\",{whole}"),
        format!(",, \t{whole}, \"x"),
        "*".to_owned(),
        " * ".to_owned(),
    ] {
        check(&[], &known, 304);
    }
    let bare = whole.trim_matches('"');
    for other in ["", "\"\"", "\"*\"", "*, \"a\"", "W/", "\"", bare, &format!("w/{whole}"), &packed]
    {
        check(&[], other, 200);
    }
    check(&[gzip], &packed, 304);
    check(&[gzip], &whole, 200);
    check(&[gzip], &format!("{whole}, {packed}"), 304);
}
