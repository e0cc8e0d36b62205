//! The bearer token that a client has to show (RFC 6750).

use std::fmt;

/// A secret that clients share with this service. Not shown by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(Box<[u8]>);

/// Why a file holds no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenError {
    /// It holds nothing.
    Empty,
    /// It holds more than a header field may.
    TooLong,
    /// It holds a blank, a control character or a line more.
    Character,
}

impl fmt::Display for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "the file holds no token",
            Self::TooLong => "a token has at most 1024 characters",
            Self::Character => "a token is one line of visible ASCII characters",
        })
    }
}

impl std::error::Error for TokenError {}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

/// Characters of a token; far fewer than a head holds.
const TOKEN_BYTES_MAX: usize = 1024;

impl Token {
    /// Reads a file's text: one line, whose end does not count.
    ///
    /// # Errors
    /// [`TokenError`] where no client could show it.
    pub fn parse(text: &[u8]) -> Result<Self, TokenError> {
        let line = text.strip_suffix(b"\n").unwrap_or(text);
        let token = line.strip_suffix(b"\r").unwrap_or(line);
        match token {
            [] => Err(TokenError::Empty),
            long if long.len() > TOKEN_BYTES_MAX => Err(TokenError::TooLong),
            token if token.iter().all(u8::is_ascii_graphic) => Ok(Self(token.into())),
            _ => Err(TokenError::Character),
        }
    }

    /// True exactly when an Authorization field bears this token. How long the comparison takes
    /// tells the token's length at most, not how much of it was right.
    pub fn is_borne_by(&self, authorization: Option<&str>) -> bool {
        let Some((scheme, shown)) = authorization.and_then(|field| field.split_once(' ')) else {
            return false;
        };
        let shown = shown.trim_start_matches(' ').as_bytes();
        if !scheme.eq_ignore_ascii_case("Bearer") || shown.len() != self.0.len() {
            return false;
        }
        let differences = self.0.iter().zip(shown).fold(0, |sum, (ours, theirs)| {
            // Opaque to the optimiser, which would else stop at the first difference.
            std::hint::black_box(sum | (ours ^ theirs))
        });
        differences == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_holds_one_line_of_visible_characters() {
        let check = |text: &str, expected: Result<&str, TokenError>| {
            let expected = expected.map(|token| Token(token.as_bytes().into()));
            assert_eq!(Token::parse(text.as_bytes()), expected, "{text:?}");
        };
        check("secret", Ok("secret"));
        check("secret\n", Ok("secret"));
        check("secret\r\n", Ok("secret"));
        check("", Err(TokenError::Empty));
        check("\n", Err(TokenError::Empty));
        check("two words\n", Err(TokenError::Character));
        check("two\nlines\n", Err(TokenError::Character));
        check("ge\u{e4}ndert", Err(TokenError::Character));
        check(&"a".repeat(1024), Ok(&"a".repeat(1024)));
        check(&"a".repeat(1025), Err(TokenError::TooLong));
    }

    #[test]
    fn only_the_very_token_is_borne() {
        let token = Token::parse(b"secret").unwrap();
        let check = |field: Option<&str>, expected: bool| {
            assert_eq!(token.is_borne_by(field), expected, "{field:?}");
        };
        check(Some("Bearer secret"), true);
        check(Some("bearer  secret"), true);
        for field in ["Bearer", "Bearer ", "Bearer secre", "Bearer secret2", "Bearer Secret"] {
            check(Some(field), false);
        }
        check(Some("Basic secret"), false);
        check(Some("secret"), false);
        check(None, false);
        assert_eq!(format!("{token:?}"), "Token", "a secret is not logged");
    }
}
