//! The address of a listener: one notation for the flags, the log and the health check.
//!
//! `config` parses it, `sys` binds it and `core` logs it. This module has no state.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use crate::limits;

/// The address at which a service listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// This address; port 0 means any free port.
    Tcp(SocketAddr),
    /// A Unix socket at this path, which is absolute or relative to the working directory
    /// (unix(7)).
    Unix(PathBuf),
}

impl Listen {
    /// Whether only this machine can reach it.
    pub fn is_inside(&self) -> bool {
        match self {
            Self::Tcp(address) => address.ip().to_canonical().is_loopback(),
            Self::Unix(_) => true,
        }
    }

    /// A command line for a shell on this machine that requests this path and query, which contain
    /// no quotes.
    pub fn curl_line(&self, target: &str) -> String {
        assert!(target.starts_with('/') && !target.contains('\''), "{target} needs no escape");
        let curl = self.curl();
        match self {
            Self::Tcp(at) if at.ip().is_unspecified() => {
                format!("{curl} 'http://{}:{}{target}'", Ipv4Addr::LOCALHOST, at.port())
            }
            Self::Tcp(at) => format!("{curl} 'http://{at}{target}'"),
            Self::Unix(_) => format!("{curl} 'http://localhost{target}'"),
        }
    }

    /// `curl`, with the flag for a Unix socket.
    pub fn curl(&self) -> String {
        match self {
            Self::Tcp(_) => "curl".to_owned(),
            Self::Unix(path) => {
                // A quote is written by ending the quoted word, an escaped quote, and a new quoted
                // word.
                let path = path.to_string_lossy().replace('\'', r"'\''");
                format!("curl --unix-socket '{path}'")
            }
        }
    }
}

/// The form that `--listen` accepts: `127.0.0.1:8080`, `[::]:8080`, `unix:/run/openports.sock`.
impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// The reason why a text is not a [`Listen`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListenError {
    /// The text is neither an address with a port nor `unix:` with a path.
    Form,
    /// The path after `unix:` is missing.
    NoPath,
    /// The path has this number of bytes, more than [`limits::UNIX_PATH_BYTES_MAX`].
    LongPath(usize),
    /// The path contains a control character. The kernel ends a path at a NUL, and a log record
    /// ends at a line end.
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
    fn a_listen_address_is_displayed_as_it_was_parsed() {
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
    fn a_shell_splits_the_curl_line_as_intended() {
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
    fn only_this_machine_can_reach_a_unix_socket_or_loopback() {
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
