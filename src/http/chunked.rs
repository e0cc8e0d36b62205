//! Reads, checks and drops a chunked body (RFC 9112 section 7.1).
//!
//! The decoder has one state per place in the grammar and takes one byte at a time, except in the
//! data, which it skips. Blanks are accepted where the grammar has "bad whitespace", around `;` and
//! `=` (RFC 9110 section 5.6.3), and nowhere else: neither before a size nor before the end of its
//! line. Trailer fields are checked and dropped, because no route reads one.
//!
//! This module never allocates. `conn` drives it. After an error or the end of the body the decoder
//! accepts no more bytes.
//!
//! Invariants: the data received so far and the current chunk together never exceed
//! [`BODY_BYTES_MAX`]; the line of a size never exceeds [`CHUNK_LINE_BYTES_MAX`], and all trailers
//! together never exceed [`TRAILER_BYTES_MAX`].

use crate::http::Refusal;
use crate::http::head::is_token_byte;
use crate::limits::{BODY_BYTES_MAX, CHUNK_LINE_BYTES_MAX, TRAILER_BYTES_MAX};

/// The position in the grammar. Each variant lists the bytes that may come next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// The first digit of a size.
    SizeStart,
    /// A digit, a blank, `;` or CR.
    Size,
    /// After a blank: `;` or another blank.
    ExtensionAwaited,
    /// A blank, or the first byte of an extension's name.
    ExtensionStart,
    /// The next byte of the name, or a blank, `=`, `;`, CR.
    ExtensionName,
    /// After a blank that followed a name: `=`, `;` or another blank.
    ExtensionNameEnd,
    /// A blank, or the first byte of an extension's value: a token byte or a quote.
    ValueStart,
    /// The next byte of the value, or a blank, `;`, CR.
    Value,
    /// A byte within quotes.
    Quoted,
    /// A byte within quotes, after a backslash.
    Escaped,
    /// After the closing quote: a blank, `;` or CR.
    QuotedEnd,
    /// The LF of a size line.
    SizeLf,
    /// Data, of which `chunk` bytes are left.
    Data,
    /// The CR after the data.
    DataCr,
    /// The LF after the data.
    DataLf,
    /// The first byte of a trailer's name, or the CR of the line that ends the body.
    TrailerStart,
    /// The next byte of the name, or `:`.
    TrailerName,
    /// A byte of a trailer's value, or CR.
    TrailerValue,
    /// The LF of a trailer.
    TrailerLf,
    /// The LF that ends the body.
    EndLf,
    /// The body is complete.
    End,
}

/// The decoder of one body.
#[derive(Clone, Copy, Debug)]
pub struct Chunked {
    place: Place,
    /// The size of the current chunk as read so far; later the number of data bytes that are left.
    chunk: u64,
    /// The number of data bytes in the previous chunks.
    total: u64,
    /// The length of the current line in bytes.
    line_bytes: usize,
    /// The number of bytes in all trailers.
    trailer_bytes: usize,
}

impl Default for Chunked {
    fn default() -> Self {
        Self { place: Place::SizeStart, chunk: 0, total: 0, line_bytes: 0, trailer_bytes: 0 }
    }
}

impl Chunked {
    /// Consumes the bytes of the body from the front of `bytes` and returns their number. That is
    /// all of `bytes`, unless the body ends earlier.
    pub fn handle_received(&mut self, bytes: &[u8]) -> Result<usize, Refusal> {
        let mut taken = 0;
        while taken < bytes.len() && self.place != Place::End {
            if self.place == Place::Data {
                taken += self.skip_data(bytes.len() - taken);
                continue;
            }
            self.place = self.step(bytes[taken])?;
            taken += 1;
        }
        assert!(taken <= bytes.len(), "at most the given bytes are consumed");
        debug_assert!(self.total + self.chunk <= BODY_BYTES_MAX);
        Ok(taken)
    }

    /// Whether the body is complete.
    pub fn is_complete(&self) -> bool {
        self.place == Place::End
    }

    fn skip_data(&mut self, available: usize) -> usize {
        assert!(self.chunk > 0, "a chunk in the state `Data` has data left");
        let skipped = self.chunk.min(available as u64);
        self.chunk -= skipped;
        self.total += skipped;
        if self.chunk == 0 {
            self.place = Place::DataCr;
        }
        skipped as usize
    }

    /// The place after one byte.
    fn step(&mut self, byte: u8) -> Result<Place, Refusal> {
        self.count_line_byte(byte)?;
        let is_token = is_token_byte(byte);
        match (self.place, byte) {
            (Place::SizeStart | Place::Size, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                self.grow_chunk(byte)
            }
            (Place::Size | Place::ExtensionName | Place::Value | Place::QuotedEnd, b'\r') => {
                Ok(Place::SizeLf)
            }
            (
                Place::Size
                | Place::ExtensionAwaited
                | Place::ExtensionName
                | Place::ExtensionNameEnd
                | Place::Value
                | Place::QuotedEnd,
                b';',
            ) => Ok(Place::ExtensionStart),
            (Place::ExtensionName | Place::ExtensionNameEnd, b'=') => Ok(Place::ValueStart),
            (
                Place::Size | Place::ExtensionAwaited | Place::Value | Place::QuotedEnd,
                b' ' | b'\t',
            ) => Ok(Place::ExtensionAwaited),
            (Place::ExtensionName | Place::ExtensionNameEnd, b' ' | b'\t') => {
                Ok(Place::ExtensionNameEnd)
            }
            (Place::ExtensionStart | Place::ValueStart, b' ' | b'\t') => Ok(self.place),
            (Place::ValueStart, b'"') => Ok(Place::Quoted),
            (Place::Quoted, b'"') => Ok(Place::QuotedEnd),
            (Place::Quoted, b'\\') => Ok(Place::Escaped),
            (Place::Quoted | Place::Escaped, _) if is_text_byte(byte) => Ok(Place::Quoted),
            (Place::SizeLf, b'\n') if self.chunk > 0 => Ok(Place::Data),
            (Place::SizeLf, b'\n') => Ok(Place::TrailerStart),
            (Place::DataCr, b'\r') => Ok(Place::DataLf),
            (Place::DataLf, b'\n') => Ok(Place::SizeStart),
            (Place::TrailerStart, b'\r') => Ok(Place::EndLf),
            (Place::TrailerName, b':') => Ok(Place::TrailerValue),
            (Place::TrailerValue, b'\r') => Ok(Place::TrailerLf),
            (Place::TrailerValue, _) if is_text_byte(byte) => Ok(Place::TrailerValue),
            (Place::TrailerLf, b'\n') => Ok(Place::TrailerStart),
            (Place::EndLf, b'\n') => Ok(Place::End),
            (Place::ExtensionStart | Place::ExtensionName, _) if is_token => {
                Ok(Place::ExtensionName)
            }
            (Place::ValueStart | Place::Value, _) if is_token => Ok(Place::Value),
            (Place::TrailerStart | Place::TrailerName, _) if is_token => Ok(Place::TrailerName),
            (_, _) => Err(Refusal::Chunk),
        }
    }

    /// Appends a digit to the size. The bound is checked after every digit, so the size cannot
    /// overflow.
    fn grow_chunk(&mut self, digit: u8) -> Result<Place, Refusal> {
        let value = (digit as char).to_digit(16).ok_or(Refusal::Chunk)?;
        self.chunk = self.chunk * 16 + u64::from(value);
        if self.total + self.chunk > BODY_BYTES_MAX {
            return Err(Refusal::BodyTooLarge);
        }
        Ok(Place::Size)
    }

    fn count_line_byte(&mut self, byte: u8) -> Result<(), Refusal> {
        if matches!(self.place, Place::TrailerStart | Place::TrailerName | Place::TrailerValue) {
            self.trailer_bytes += 1;
            let is_bounded = self.trailer_bytes <= TRAILER_BYTES_MAX;
            return if is_bounded { Ok(()) } else { Err(Refusal::TooManyFields) };
        }
        self.line_bytes = if byte == b'\n' { 0 } else { self.line_bytes + 1 };
        if self.line_bytes > CHUNK_LINE_BYTES_MAX { Err(Refusal::Chunk) } else { Ok(()) }
    }
}

/// HTAB, SP, VCHAR or obs-text: every byte except control bytes (RFC 9110 section 5.5).
const fn is_text_byte(byte: u8) -> bool {
    matches!(byte, b'\t' | b' '..=b'~' | 0x80..=0xFF)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Decodes `bytes` as a whole and byte by byte. Both results must be equal.
    fn decode(bytes: &[u8]) -> Result<Option<usize>, Refusal> {
        let mut whole = Chunked::default();
        let at_once = whole.handle_received(bytes).map(|n| whole.is_complete().then_some(n));
        let mut piecewise = Chunked::default();
        let mut taken = 0;
        for byte in bytes {
            match piecewise.handle_received(&[*byte]) {
                Ok(n) => taken += n,
                Err(refusal) => {
                    assert_eq!(at_once, Err(refusal), "{}", bytes.escape_ascii());
                    return at_once;
                }
            }
        }
        let in_pieces = Ok(piecewise.is_complete().then_some(taken));
        assert_eq!(at_once, in_pieces, "{}", bytes.escape_ascii());
        at_once
    }

    #[test]
    fn the_end_of_a_well_formed_body_is_found() {
        let check = |body: &str| {
            let with_more = format!("{body}GET / HTTP/1.1");
            assert_eq!(decode(with_more.as_bytes()), Ok(Some(body.len())), "{body:?}");
            for cut in 0..body.len() {
                assert_eq!(decode(&body.as_bytes()[..cut]), Ok(None), "{body:?} cut at {cut}");
            }
        };
        check("0\r\n\r\n");
        check("000\r\n\r\n");
        check("5\r\nhello\r\n0\r\n\r\n");
        check("5\r\n\r\n\0\x7F1\r\n1\r\nX\r\n0\r\n\r\n");
        check("a\r\n0123456789\r\nB\r\n0123456789A\r\n0\r\n\r\n");
        check("00000000000000000001\r\nx\r\n0\r\n\r\n");
        check("1;a\r\nx\r\n0;b=c;d=\"e; \\\" f\";g\r\n\r\n");
        check("0\r\nX-Sum: 1\r\nEmpty:\r\nY:a:b\r\n\r\n");
        let long = "y".repeat(CHUNK_LINE_BYTES_MAX * 2);
        check(&format!("0\r\nX: {long}\r\n\r\n"));
    }

    #[test]
    fn bad_whitespace_is_accepted_where_the_grammar_permits_it() {
        for line in [
            "1 ;a",
            "1\t;a",
            "1; a",
            "1 \t ;\t a",
            "1;a =b",
            "1;a= b",
            "1;a\t=\tb",
            "1;a ;b",
            "1;a=b ;c",
            "1;a=\"b\" ; c",
            "1 ; a = \"b\" ; c",
        ] {
            let body = format!("{line}\r\nx\r\n0\r\n\r\n");
            assert_eq!(decode(body.as_bytes()), Ok(Some(body.len())), "{body:?}");
        }
        for line in
            ["1 ", "1\t", "1; ", "1;a ", "1;a= ", "1;a=b ", "1;a=\"b\" ", "1 a", "1 1", "1;a b"]
        {
            let body = format!("{line}\r\nx\r\n0\r\n\r\n");
            assert_eq!(decode(body.as_bytes()), Err(Refusal::Chunk), "{body:?}");
        }
    }

    #[test]
    fn malformed_bodies_are_refused() {
        let check = |body: &str, refusal| {
            assert_eq!(decode(body.as_bytes()), Err(refusal), "{body:?}");
        };
        for body in [
            "\r\n",
            ";a\r\n",
            "5;\r\n",
            "5;;a\r\n",
            "5;a;\r\n",
            "5;a=\r\n",
            "5;=a\r\n",
            "5 \r\n",
            "5\t\r\n",
            " 5\r\n",
            "5;a\0\r\n",
            "5;a\x7F\r\n",
            "5;a=\"\0\"\r\n",
            "5;a=\"\n\"\r\n",
            "5;a=\"b\"c\r\n",
            "5\n",
            "5;a\n",
            "5\rx",
            "5;a\rx",
            "+5\r\n",
            "-5\r\n",
            "0x5\r\n",
            "5_0\r\n",
            "5h\r\n",
            "g\r\n",
            "5,5\r\n",
            "5\r\nhello0\r\n\r\n",
            "5\r\nhello\n0\r\n",
            "5\r\nhello\r0\r\n",
            "5\r\nhello!\r\n",
            "0\r\n\n",
            "0\r\n\rx",
            "0\n\r\n",
            "0\r\nX\r\n\r\n",
            "0\r\n: x\r\n",
            "0\r\n x: y\r\n",
            "0\r\nX : y\r\n",
            "0\r\nX: \0\r\n",
            "0\r\nX: y\n",
            "0\r\nX: y\rz",
        ] {
            check(body, Refusal::Chunk);
        }
        check("10001\r\n", Refusal::BodyTooLarge);
        check("FFFFFFFFFFFFFFFF\r\n", Refusal::BodyTooLarge);
        check("10000000000000005\r\n", Refusal::BodyTooLarge);
    }

    #[test]
    fn a_body_is_bounded_over_all_its_chunks() {
        let half = format!("8000\r\n{}\r\n", "x".repeat(0x8000));
        let full = format!("{half}{half}0\r\n\r\n");
        assert_eq!(decode(full.as_bytes()), Ok(Some(full.len())));
        let over = format!("{half}{half}1\r\n");
        assert_eq!(decode(over.as_bytes()), Err(Refusal::BodyTooLarge));
    }

    #[test]
    fn lines_and_trailers_are_bounded() {
        let check = |body: String, expected| assert_eq!(decode(body.as_bytes()), expected);
        let name = "a".repeat(CHUNK_LINE_BYTES_MAX - "0;\r".len());
        check(format!("0;{name}\r\n"), Ok(None));
        check(format!("0;{name}a\r\n"), Err(Refusal::Chunk));
        check(format!("{}5\r\n", "0".repeat(CHUNK_LINE_BYTES_MAX)), Err(Refusal::Chunk));
        let value = "b".repeat(TRAILER_BYTES_MAX - "X:\r".len());
        check(format!("0\r\nX:{value}\r\n"), Ok(None));
        check(format!("0\r\nX:{value}b\r\n"), Err(Refusal::TooManyFields));
        let line = "X: y\r\n";
        let most = TRAILER_BYTES_MAX / (line.len() - 1);
        check(format!("0\r\n{}", line.repeat(most)), Ok(None));
        check(format!("0\r\n{}", line.repeat(most + 1)), Err(Refusal::TooManyFields));
    }
}
