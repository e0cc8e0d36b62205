//! `openports healthcheck`: asks a running service whether it is well, for containers without curl.
//!
//! The one place that blocks: it is not the service, but a process of its own that makes one
//! request and exits. Two waits of [`limits::HEALTHCHECK_STEP_TIMEOUT`] bound it.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::TcpStream;

use socket2::{Domain, SockAddr, Socket, Type};

use crate::event::listen::Listen;
use crate::limits;

/// Why a service is not well.
#[derive(Debug)]
pub enum Unwell {
    /// It could not be asked.
    Unreachable(io::Error),
    /// It did not take the connection, or did not answer, in time.
    Silent,
    /// It answered this instead of 200.
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

/// Asks `GET /healthz` of the service that listens there.
///
/// # Errors
/// [`Unwell`]: no connection or no answer in time, or another answer than 200.
pub fn ask(service: &Listen) -> Result<(), Unwell> {
    let start = ask_for_start(service).map_err(|error| {
        // A read that times out is told as the one or the other (std's `set_read_timeout`).
        let silent = [io::ErrorKind::TimedOut, io::ErrorKind::WouldBlock];
        if silent.contains(&error.kind()) { Unwell::Silent } else { Unwell::Unreachable(error) }
    })?;
    // RFC 9112 section 4: the version, a blank, three digits.
    let is_well = start.starts_with(b"HTTP/1.1 200 ") || start.starts_with(b"HTTP/1.0 200 ");
    if is_well {
        return Ok(());
    }
    let line = start.split(|byte| *byte == b'\r').next().unwrap_or_default();
    Err(Unwell::Answered(String::from_utf8_lossy(line).into_owned()))
}

/// The start of the answer: what comes first, which holds the status line.
fn ask_for_start(service: &Listen) -> io::Result<Vec<u8>> {
    let timeout = limits::HEALTHCHECK_STEP_TIMEOUT;
    let (mut stream, host) = match service {
        Listen::Tcp(at) => (TcpStream::connect_timeout(at, timeout)?.into(), at.to_string()),
        Listen::Unix(path) => {
            let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
            // It bounds a connect to a full queue as well (unix(7), SO_SNDTIMEO).
            socket.set_write_timeout(Some(timeout))?;
            socket.connect(&SockAddr::unix(path)?)?;
            (socket, "localhost".to_owned())
        }
    };
    stream.set_read_timeout(Some(timeout))?;
    let request = format!("GET /healthz HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    // An empty send buffer takes it whole: this does not wait.
    stream.write_all(request.as_bytes())?;
    let mut start = [0; 128];
    let count = stream.read(&mut start)?;
    Ok(start[..count].to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    /// What a service on loopback that gives this answer to one client is found to be.
    fn check(answer: &'static str, expected: &str) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let at = listener.local_addr().expect("bound");
        let service = std::thread::spawn(move || {
            let (mut client, _) = listener.accept().expect("a client");
            let mut request = [0; 256];
            let count = client.read(&mut request).expect("a request");
            client.write_all(answer.as_bytes()).expect("room for an answer");
            String::from_utf8_lossy(&request[..count]).into_owned()
        });
        let told = match ask(&Listen::Tcp(at)) {
            Ok(()) => "well".to_owned(),
            Err(unwell) => unwell.to_string(),
        };
        assert!(told.contains(expected), "{answer:?} gave {told:?}");
        let request = service.join().expect("the service lives");
        let asked = format!("GET /healthz HTTP/1.1\r\nHost: {at}\r\nConnection: close\r\n\r\n");
        assert_eq!(request, asked);
    }

    #[test]
    fn a_service_is_well_if_it_says_200_and_nothing_else() {
        check("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "well");
        check("HTTP/1.1 503 Service Unavailable\r\n\r\n", "answered \"HTTP/1.1 503 Service");
        check("SSH-2.0-x\r\n", "answered \"SSH-2.0-x\"");
        check("", "answered \"\"");
    }

    #[test]
    fn a_service_that_says_nothing_is_not_waited_for() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let told = ask(&Listen::Tcp(listener.local_addr().expect("bound")))
            .expect_err("silence")
            .to_string();
        assert_eq!(told, "no answer in 1s");
    }

    #[test]
    fn where_nobody_listens_no_service_is_well() {
        let gone = TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr());
        let told = ask(&Listen::Tcp(gone.expect("bound"))).expect_err("nobody listens").to_string();
        assert!(told.contains("refused"), "{told}");
    }
}
