//! Where clients come to: one notation for the flags, the log and the health check.
//!
//! A part of the room `event`: `config` reads it, `sys` binds it, `service` tells it. Pure.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use crate::limits;

/// Where to serve, or where a service is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// On this address; port 0 stands for any free one.
    Tcp(SocketAddr),
    /// On a Unix socket at this path, absolute or from the working directory (unix(7)).
    Unix(PathBuf),
}

impl Listen {
    /// True exactly when only this machine reaches it.
    pub fn is_inside(&self) -> bool {
        match self {
            Self::Tcp(address) => address.ip().to_canonical().is_loopback(),
            Self::Unix(_) => true,
        }
    }

    /// A line for a shell of this machine that asks for this path and query, which hold no quote.
    pub fn curl_line(&self, target: &str) -> String {
        assert!(target.starts_with('/') && !target.contains('\''), "{target} needs no escape");
        match self {
            Self::Tcp(at) if at.ip().is_unspecified() => {
                format!("curl 'http://{}:{}{target}'", Ipv4Addr::LOCALHOST, at.port())
            }
            Self::Tcp(at) => format!("curl 'http://{at}{target}'"),
            Self::Unix(path) => {
                // A quote ends the quoted word, stands escaped, and begins the next one.
                let path = path.to_string_lossy().replace('\'', r"'\''");
                format!("curl --unix-socket '{path}' 'http://localhost{target}'")
            }
        }
    }
}

/// As `--listen` takes it: `127.0.0.1:8080`, `[::]:8080`, `unix:/run/openports.sock`.
impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Why a text is no [`Listen`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListenError {
    /// Neither an address with its port nor `unix:`.
    Form,
    /// Nothing stands behind `unix:`.
    NoPath,
    /// The path has so many bytes, more than [`limits::UNIX_PATH_BYTES_MAX`].
    LongPath(usize),
    /// The path holds a control character; the kernel ends it at a NUL, a log at a line end.
    ControlCharacter,
}

impl fmt::Display for ListenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Form => f.write_str(
                "expected an address and a port such as 127.0.0.1:8080 or [::]:8080, or unix:PATH",
            ),
            Self::NoPath => f.write_str("expected a path such as unix:/run/openports.sock"),
            Self::LongPath(len) => {
                let max = limits::UNIX_PATH_BYTES_MAX;
                write!(f, "the path has {len} bytes, and a socket's has {max} at most")
            }
            Self::ControlCharacter => f.write_str("the path holds a control character"),
        }
    }
}

impl std::error::Error for ListenError {}

impl FromStr for Listen {
    type Err = ListenError;

    fn from_str(text: &str) -> Result<Self, ListenError> {
        let Some(path) = text.strip_prefix("unix:") else {
            return text.parse().map(Self::Tcp).map_err(|_| ListenError::Form);
        };
        if path.is_empty() {
            return Err(ListenError::NoPath);
        }
        if path.len() > limits::UNIX_PATH_BYTES_MAX {
            return Err(ListenError::LongPath(path.len()));
        }
        if path.contains(char::is_control) {
            return Err(ListenError::ControlCharacter);
        }
        Ok(Self::Unix(path.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_is_told_in_the_same_words() {
        for text in ["127.0.0.1:0", "[::]:8080", "unix:/run/openports.sock", "unix:a", "unix:@b"] {
            let listen: Listen = text.parse().unwrap();
            assert_eq!(listen.to_string(), text);
            assert_eq!(matches!(listen, Listen::Unix(_)), text.starts_with("unix:"), "{text}");
        }
    }

    #[test]
    fn a_path_has_one_byte_to_107_and_no_control_characters() {
        let check = |path: &str, expected: Result<(), ListenError>| {
            let read = format!("unix:{path}").parse::<Listen>();
            assert_eq!(read.map(drop), expected, "{path:?}");
        };
        check("", Err(ListenError::NoPath));
        check("x", Ok(()));
        check(&"x".repeat(107), Ok(()));
        check(&"x".repeat(108), Err(ListenError::LongPath(108)));
        check("a\0b", Err(ListenError::ControlCharacter));
        check("a\nb", Err(ListenError::ControlCharacter));
        for text in ["/run/x", "UNIX:/run/x", "unix", "localhost:80", "8080"] {
            assert_eq!(text.parse::<Listen>(), Err(ListenError::Form), "{text}");
        }
    }

    #[test]
    fn the_line_to_try_is_one_that_a_shell_takes_as_it_was_meant() {
        for (text, expected) in [
            ("127.0.0.1:80", "curl 'http://127.0.0.1:80/?a&b'"),
            ("[::]:80", "curl 'http://127.0.0.1:80/?a&b'"),
            ("0.0.0.0:80", "curl 'http://127.0.0.1:80/?a&b'"),
            ("unix:/run/x", "curl --unix-socket '/run/x' 'http://localhost/?a&b'"),
            ("unix:it's", r"curl --unix-socket 'it'\''s' 'http://localhost/?a&b'"),
        ] {
            assert_eq!(text.parse::<Listen>().unwrap().curl_line("/?a&b"), expected);
        }
    }

    #[test]
    fn a_unix_socket_and_loopback_are_reached_from_this_machine_alone() {
        for (text, is_inside) in [
            ("unix:/run/x", true),
            ("127.9.9.9:1", true),
            ("[::ffff:127.0.0.1]:1", true),
            ("[::]:1", false),
            ("192.0.2.7:1", false),
        ] {
            assert_eq!(text.parse::<Listen>().unwrap().is_inside(), is_inside, "{text}");
        }
    }
}
