//! A minimal HTTP client: one request, one complete response, and a deadline.
#![allow(dead_code, reason = "each program that includes it uses a part of it")]

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

#[derive(Clone, Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    /// The lines of the head, from the status line on.
    pub(crate) head: String,
    /// The body without its chunked coding.
    pub(crate) body: String,
}

/// A connection with a deadline for every read and write.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    /// Bytes that were read, but belong to the next response.
    kept: Vec<u8>,
}

impl Connection {
    /// Connects from `source`, or from an address that the kernel chooses.
    pub(crate) fn open(
        to: SocketAddr,
        source: Option<IpAddr>,
        limit: Duration,
    ) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
        if let Some(source) = source {
            socket.bind(&SocketAddr::new(source, 0).into())?;
        }
        socket.connect_timeout(&to.into(), limit)?;
        let stream = TcpStream::from(socket);
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(limit))?;
        stream.set_write_timeout(Some(limit))?;
        Ok(Self { stream, kept: Vec::new() })
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Sends a GET, and reads the complete response.
    pub(crate) fn get(&mut self, target: &str, fields: &str) -> io::Result<Response> {
        let head = format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n");
        self.send(head.as_bytes())?;
        self.read_response()
    }

    /// Reads a complete response to a GET.
    pub(crate) fn read_response(&mut self) -> io::Result<Response> {
        let mut bytes = std::mem::take(&mut self.kept);
        let end = loop {
            if let Some(at) = bytes.windows(4).position(|it| it == b"\r\n\r\n") {
                break at + 4;
            }
            self.more(&mut bytes)?;
        };
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        bytes.drain(..end);
        let status = head.get(9..12).and_then(|it| it.parse().ok()).ok_or_else(invalid_response)?;
        let body = if status == 100 {
            self.kept = bytes;
            Vec::new()
        } else if let Some(length) = field(&head, "content-length") {
            let length: usize = length.parse().map_err(|_| invalid_response())?;
            while bytes.len() < length {
                self.more(&mut bytes)?;
            }
            self.kept = bytes.split_off(length);
            bytes
        } else if field(&head, "transfer-encoding").is_some_and(|it| it == "chunked") {
            self.chunks(bytes)?
        } else {
            while self.read(&mut bytes)? > 0 {}
            bytes
        };
        Ok(Response { status, head, body: String::from_utf8_lossy(&body).into_owned() })
    }

    /// Makes the kernel send a RST instead of a FIN.
    pub(crate) fn reset_when_dropped(&self) -> io::Result<()> {
        socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO))
    }

    /// Reads a complete response, with another limit for each read.
    pub(crate) fn read_response_within(&mut self, limit: Duration) -> io::Result<Response> {
        self.stream.set_read_timeout(Some(limit))?;
        self.read_response()
    }

    fn chunks(&mut self, mut bytes: Vec<u8>) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let line = loop {
                if let Some(at) = bytes.windows(2).position(|it| it == b"\r\n") {
                    break at;
                }
                self.more(&mut bytes)?;
            };
            let size = std::str::from_utf8(&bytes[..line]).map_err(|_| invalid_response())?;
            let size = usize::from_str_radix(size, 16).map_err(|_| invalid_response())?;
            while bytes.len() < line + 2 + size + 2 {
                self.more(&mut bytes)?;
            }
            body.extend_from_slice(&bytes[line + 2..line + 2 + size]);
            bytes.drain(..line + 2 + size + 2);
            if size == 0 {
                self.kept = bytes;
                return Ok(body);
            }
        }
    }

    fn more(&mut self, bytes: &mut Vec<u8>) -> io::Result<()> {
        if self.read(bytes)? == 0 { Err(ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
    }

    fn read(&mut self, bytes: &mut Vec<u8>) -> io::Result<usize> {
        let mut piece = [0; 16 * 1024];
        loop {
            match self.stream.read(&mut piece) {
                Ok(count) => {
                    bytes.extend_from_slice(&piece[..count]);
                    return Ok(count);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// Sends one request on a new connection, and returns the response and the time from the connect to
/// the end of the response.
pub(crate) fn request_once(
    to: SocketAddr,
    source: Option<IpAddr>,
    target: &str,
    limit: Duration,
    fields: &str,
) -> io::Result<(Response, Duration)> {
    let begun = Instant::now();
    let mut connection = Connection::open(to, source, limit)?;
    let response = connection.get(target, &format!("{fields}Connection: close\r\n"))?;
    Ok((response, begun.elapsed()))
}

pub(crate) fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| {
        let (found, value) = line.split_once(':')?;
        found.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

fn invalid_response() -> io::Error {
    io::Error::new(ErrorKind::InvalidData, "the response is invalid")
}

/// Returns a percentile of the numbers: 50 is the median, 100 the maximum. Returns 0 without
/// numbers.
pub(crate) fn percentile(numbers: &[f64], percent: usize) -> f64 {
    let mut numbers = numbers.to_vec();
    numbers.sort_by(f64::total_cmp);
    let last = numbers.len().saturating_sub(1);
    numbers.get(last * percent / 100).copied().unwrap_or_default()
}
