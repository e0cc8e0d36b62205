//! Fuzzes chunked bodies: the decoder must accept the same bodies as a naive line-by-line parser.
#![no_main]

use libfuzzer_sys::fuzz_target;
use openports::http::Refusal;
use openports::http::chunked::Chunked;
use openports::limits::{BODY_BYTES_MAX, CHUNK_LINE_BYTES_MAX, TRAILER_BYTES_MAX};
use openports_fuzz::pieces;

fuzz_target!(|bytes: &[u8]| {
    let whole = decode(&[bytes]);
    assert_eq!(decode(&bytes.chunks(1).collect::<Vec<_>>()), whole);
    assert_eq!(decode(&pieces(bytes)), whole);
    // The decoder refuses a malformed line before its end, so errors and incomplete bodies count as
    // equal.
    assert_eq!(whole.ok().flatten(), read_by_lines(bytes), "{}", bytes.escape_ascii());
});

/// Returns the length of the body, or `None` if it is incomplete.
fn decode(pieces: &[&[u8]]) -> Result<Option<usize>, Refusal> {
    let (mut decoder, mut taken) = (Chunked::default(), 0);
    for piece in pieces {
        taken += decoder.handle_received(piece)?;
        if decoder.is_complete() {
            return Ok(Some(taken));
        }
    }
    Ok(None)
}

/// Returns the length of the body if it is well formed and complete (RFC 9112 section 7.1).
fn read_by_lines(bytes: &[u8]) -> Option<usize> {
    let (mut at, mut total) = (0, 0);
    loop {
        let line = line_at(bytes, at).filter(|line| line.len() < CHUNK_LINE_BYTES_MAX)?;
        at += line.len() + 2;
        let (digits, extensions) = split_size(line)?;
        // The size may have more leading zeros than an integer type can parse, so it is computed
        // digit by digit.
        let size = digits.iter().try_fold(0_u64, |size, digit| {
            let digit = (*digit as char).to_digit(16)?;
            Some(size * 16 + u64::from(digit)).filter(|size| *size <= BODY_BYTES_MAX)
        })?;
        total += size;
        if total > BODY_BYTES_MAX || !are_extensions(extensions) {
            return None;
        }
        if size == 0 {
            return read_trailers(bytes, at);
        }
        at += size as usize;
        if bytes.get(at..at + 2)? != b"\r\n" {
            return None;
        }
        at += 2;
    }
}

fn read_trailers(bytes: &[u8], mut at: usize) -> Option<usize> {
    let mut trailer_bytes = 0;
    loop {
        let line = line_at(bytes, at)?;
        at += line.len() + 2;
        // The decoder counts the CR of each line, including the last one, but not the LF.
        trailer_bytes += line.len() + 1;
        if trailer_bytes > TRAILER_BYTES_MAX {
            return None;
        }
        if line.is_empty() {
            return Some(at);
        }
        let colon = line.iter().position(|byte| *byte == b':')?;
        let is_text = |byte: &u8| *byte == b'\t' || !byte.is_ascii_control();
        if !is_token(&line[..colon]) || !line[colon + 1..].iter().all(is_text) {
            return None;
        }
    }
}

/// Returns the line that begins at `at`, without its CR LF.
fn line_at(bytes: &[u8], at: usize) -> Option<&[u8]> {
    let rest = bytes.get(at..)?;
    Some(&rest[..rest.windows(2).position(|pair| pair == b"\r\n")?])
}

/// Splits a line after the digits of its size, of which there must be at least one.
fn split_size(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    (digits > 0).then(|| line.split_at(digits))
}

/// Returns whether the text is any number of `;name`, `;name=token` and `;name="quoted"`, with
/// blanks around `;` and `=`.
fn are_extensions(mut text: &[u8]) -> bool {
    while let [b';', rest @ ..] = skip_blanks(text) {
        let rest = skip_blanks(rest);
        let name = rest.iter().take_while(|byte| is_token(&[**byte])).count();
        if name == 0 {
            return false;
        }
        text = &rest[name..];
        let [b'=', rest @ ..] = skip_blanks(text) else { continue };
        let rest = skip_blanks(rest);
        if let [b'"', rest @ ..] = rest {
            let Some(end) = quoted_len(rest) else { return false };
            text = &rest[end..];
        } else {
            let value = rest.iter().take_while(|byte| is_token(&[**byte])).count();
            if value == 0 {
                return false;
            }
            text = &rest[value..];
        }
    }
    text.is_empty()
}

fn skip_blanks(text: &[u8]) -> &[u8] {
    &text[text.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count()..]
}

/// Returns the length of the text after an opening quote, including the closing one.
fn quoted_len(text: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        match text.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at += 1,
            _ => {}
        }
        let byte = *text.get(at)?;
        if byte.is_ascii_control() && byte != b'\t' {
            return None;
        }
        at += 1;
    }
}

/// Returns whether the text is a token (RFC 9110 section 5.6.2).
fn is_token(text: &[u8]) -> bool {
    let is_byte = |b: &u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b);
    !text.is_empty() && text.iter().all(is_byte)
}
