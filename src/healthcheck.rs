//! `openports healthcheck`: checks the health of a running service, for containers without curl.
//!
//! This is the only module of the library that blocks. It does not run in the service, but in a
//! process of its own that sends one request and exits. Two waits of
//! [`limits::HEALTHCHECK_STEP_TIMEOUT`] bound it. `main` calls it.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::TcpStream;

use socket2::{Domain, SockAddr, Socket, Type};

use crate::limits;
use crate::listen_address::Listen;

/// The reason why a service is not healthy.
#[derive(Debug)]
pub enum Unwell {
    /// The request could not be sent.
    Unreachable(io::Error),
    /// The service did not accept the connection, or did not answer, in time.
    Silent,
    /// The service gave this answer instead of 200.
    Answered(String),
}

impl fmt::Display for Unwell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(error) => error.fmt(f),
            Self::Silent => write!(f, "no answer in {:?}", limits::HEALTHCHECK_STEP_TIMEOUT),
            Self::Answered(line) => write!(f, "answered {line:?}"),
        }
    }
}

impl std::error::Error for Unwell {}

/// Sends `GET /healthz` to the service at this address.
///
/// # Errors
/// [`Unwell`]: there was no connection or no answer in time, or the answer was not 200.
pub fn ask(service: &Listen) -> Result<(), Unwell> {
    let start = ask_for_start(service).map_err(|error| {
        // A read that times out returns one of these kinds (`set_read_timeout` of std).
        let silent = [io::ErrorKind::TimedOut, io::ErrorKind::WouldBlock];
        if silent.contains(&error.kind()) { Unwell::Silent } else { Unwell::Unreachable(error) }
    })?;
    // RFC 9112 section 4: the version, a space, three digits.
    let is_well = start.starts_with(b"HTTP/1.1 200 ") || start.starts_with(b"HTTP/1.0 200 ");
    if is_well {
        return Ok(());
    }
    let line = start.split(|byte| *byte == b'\r').next().unwrap_or_default();
    Err(Unwell::Answered(String::from_utf8_lossy(line).into_owned()))
}

/// The first bytes of the answer, which contain the status line.
fn ask_for_start(service: &Listen) -> io::Result<Vec<u8>> {
    let timeout = limits::HEALTHCHECK_STEP_TIMEOUT;
    let (mut stream, host) = match service {
        Listen::Tcp(at) => (TcpStream::connect_timeout(at, timeout)?.into(), at.to_string()),
        Listen::Unix(path) => {
            let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
            // This bounds a connect to a full queue as well (unix(7), SO_SNDTIMEO).
            socket.set_write_timeout(Some(timeout))?;
            socket.connect(&SockAddr::unix(path)?)?;
            (socket, "localhost".to_owned())
        }
    };
    stream.set_read_timeout(Some(timeout))?;
    let request = format!("GET /healthz HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    // The request fits into the empty send buffer, so this does not block.
    stream.write_all(request.as_bytes())?;
    let mut start = [0; 128];
    let count = stream.read(&mut start)?;
    Ok(start[..count].to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    /// Checks the verdict about a service on loopback that gives this answer to one client.
    fn check(answer: &'static str, expected: &str) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let at = listener.local_addr().expect("bound");
        let service = std::thread::spawn(move || {
            let (mut client, _) = listener.accept().expect("a client");
            let mut request = [0; 256];
            let count = client.read(&mut request).expect("a request");
            client.write_all(answer.as_bytes()).expect("the answer fits into the send buffer");
            String::from_utf8_lossy(&request[..count]).into_owned()
        });
        let error = match ask(&Listen::Tcp(at)) {
            Ok(()) => "well".to_owned(),
            Err(unwell) => unwell.to_string(),
        };
        assert!(error.contains(expected), "{answer:?} gave {error:?}");
        let request = service.join().expect("the service thread ends without a panic");
        let asked = format!("GET /healthz HTTP/1.1\r\nHost: {at}\r\nConnection: close\r\n\r\n");
        assert_eq!(request, asked);
    }

    #[test]
    fn a_service_is_healthy_only_if_it_answers_200() {
        check("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "well");
        check("HTTP/1.1 503 Service Unavailable\r\n\r\n", "answered \"HTTP/1.1 503 Service");
        check("SSH-2.0-x\r\n", "answered \"SSH-2.0-x\"");
        check("", "answered \"\"");
    }

    #[test]
    fn a_silent_service_is_given_up_after_the_timeout() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let error = ask(&Listen::Tcp(listener.local_addr().expect("bound")))
            .expect_err("silence")
            .to_string();
        assert_eq!(error, "no answer in 1s");
    }

    #[test]
    fn without_a_listener_the_check_fails() {
        let gone = TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr());
        let error =
            ask(&Listen::Tcp(gone.expect("bound"))).expect_err("there is no listener").to_string();
        assert!(error.contains("refused"), "{error}");
    }
}
