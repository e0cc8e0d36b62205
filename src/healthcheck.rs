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
pub enum Unhealthy {
    /// The request could not be sent.
    Unreachable(io::Error),
    /// The service did not accept the connection, or did not answer, in time.
    Silent,
    /// The service gave this answer instead of 200.
    Answered(String),
}

impl fmt::Display for Unhealthy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(error) => error.fmt(f),
            Self::Silent => write!(f, "no answer in {:?}", limits::HEALTHCHECK_STEP_TIMEOUT),
            Self::Answered(line) => write!(f, "answered {line:?}"),
        }
    }
}

impl std::error::Error for Unhealthy {}

/// Sends `GET /healthz` to the service at this address.
///
/// # Errors
/// [`Unhealthy`]: there was no connection or no answer in time, or the answer was not 200.
pub fn check(service: &Listen) -> Result<(), Unhealthy> {
    let start = request_start(service).map_err(|error| {
        // A read that times out returns one of these kinds (`set_read_timeout` of std).
        let silent = [io::ErrorKind::TimedOut, io::ErrorKind::WouldBlock];
        if silent.contains(&error.kind()) {
            Unhealthy::Silent
        } else {
            Unhealthy::Unreachable(error)
        }
    })?;
    // RFC 9112 section 4: the version, a space, three digits.
    let is_healthy = start.starts_with(b"HTTP/1.1 200 ") || start.starts_with(b"HTTP/1.0 200 ");
    if is_healthy {
        return Ok(());
    }
    let line = start.split(|byte| *byte == b'\r').next().unwrap_or_default();
    Err(Unhealthy::Answered(String::from_utf8_lossy(line).into_owned()))
}

/// Sends the request, and returns the first bytes of the answer, which contain the status line.
fn request_start(service: &Listen) -> io::Result<Vec<u8>> {
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
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener binds to loopback");
        let at = listener.local_addr().expect("a bound listener has an address");
        let service = std::thread::spawn(move || {
            let (mut client, _) = listener.accept().expect("a client connects");
            let mut request = [0; 256];
            let count = client.read(&mut request).expect("the client sends a request");
            client.write_all(answer.as_bytes()).expect("the answer fits into the send buffer");
            String::from_utf8_lossy(&request[..count]).into_owned()
        });
        let verdict = match super::check(&Listen::Tcp(at)) {
            Ok(()) => "healthy".to_owned(),
            Err(reason) => reason.to_string(),
        };
        assert!(verdict.contains(expected), "{answer:?} gave {verdict:?}");
        let request = service.join().expect("the service thread ends without a panic");
        let expected = format!("GET /healthz HTTP/1.1\r\nHost: {at}\r\nConnection: close\r\n\r\n");
        assert_eq!(request, expected);
    }

    #[test]
    fn a_service_is_healthy_only_if_it_answers_200() {
        check("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "healthy");
        check("HTTP/1.1 503 Service Unavailable\r\n\r\n", "answered \"HTTP/1.1 503 Service");
        check("SSH-2.0-x\r\n", "answered \"SSH-2.0-x\"");
        check("", "answered \"\"");
    }

    #[test]
    fn a_silent_service_is_given_up_after_the_timeout() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener binds to loopback");
        let error = super::check(&Listen::Tcp(
            listener.local_addr().expect("a bound listener has an address"),
        ))
        .expect_err("the service does not answer")
        .to_string();
        assert_eq!(error, "no answer in 1s");
    }

    #[test]
    fn a_service_without_a_listener_is_unhealthy() {
        let gone = TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr());
        let error = super::check(&Listen::Tcp(gone.expect("a bound listener has an address")))
            .expect_err("there is no listener")
            .to_string();
        assert!(error.contains("refused"), "{error}");
    }
}
