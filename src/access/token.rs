//! The bearer token that a client must present (RFC 6750).

use std::fmt;

/// A secret that clients share with this service. `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct BearerToken(Box<[u8]>);

/// The reason why the text of a file is not a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenError {
    /// The file is empty.
    Empty,
    /// The text is longer than a header field may be.
    TooLong,
    /// The text contains a blank, a control character or a second line.
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

impl fmt::Debug for BearerToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BearerToken")
    }
}

/// The maximum length of a token in characters, which is far less than a head may have.
const TOKEN_BYTES_MAX: usize = 1024;

impl BearerToken {
    /// Parses the text of the file: one line, whose line end does not count.
    ///
    /// # Errors
    /// A [`TokenError`], if no client could present the text.
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

    /// Whether an Authorization field contains this token. The duration of the comparison reveals
    /// at most the length of the token, and not how many characters were correct.
    pub fn matches(&self, authorization: Option<&str>) -> bool {
        let Some((scheme, shown)) = authorization.and_then(|field| field.split_once(' ')) else {
            return false;
        };
        let shown = shown.trim_start_matches(' ').as_bytes();
        if !scheme.eq_ignore_ascii_case("Bearer") || shown.len() != self.0.len() {
            return false;
        }
        let differences = self.0.iter().zip(shown).fold(0, |sum, (ours, theirs)| {
            // The value is opaque to the optimiser, which could otherwise stop at the first
            // difference.
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
            let expected = expected.map(|token| BearerToken(token.as_bytes().into()));
            assert_eq!(BearerToken::parse(text.as_bytes()), expected, "{text:?}");
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
    fn only_the_exact_token_matches() {
        let token = BearerToken::parse(b"secret").unwrap();
        let check = |field: Option<&str>, expected: bool| {
            assert_eq!(token.matches(field), expected, "{field:?}");
        };
        check(Some("Bearer secret"), true);
        check(Some("bearer  secret"), true);
        for field in ["Bearer", "Bearer ", "Bearer secre", "Bearer secret2", "Bearer Secret"] {
            check(Some(field), false);
        }
        check(Some("Basic secret"), false);
        check(Some("secret"), false);
        check(None, false);
        assert_eq!(format!("{token:?}"), "BearerToken", "a secret is not logged");
    }
}
