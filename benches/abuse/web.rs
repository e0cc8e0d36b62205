//! The little HTTP that a well-behaved client speaks: one request, one whole answer, a deadline.
#![allow(dead_code, reason = "each program that includes it uses a part of it")]

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

/// An answer, complete.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// The lines of the head, from the status line on.
    pub(crate) head: String,
    /// Chunks put together.
    pub(crate) body: String,
}

/// A connection with a deadline on every step.
#[derive(Debug)]
pub(crate) struct Link {
    stream: TcpStream,
    /// Read, but of a later answer.
    kept: Vec<u8>,
}

impl Link {
    /// Connects from `source`, or from where the kernel likes.
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

    /// Sends bytes as they are.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Asks with GET, and reads the whole answer.
    pub(crate) fn get(&mut self, target: &str, fields: &str) -> io::Result<Answer> {
        let head = format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n");
        self.send(head.as_bytes())?;
        self.answer()
    }

    /// Reads one whole answer to a GET.
    pub(crate) fn answer(&mut self) -> io::Result<Answer> {
        let mut bytes = std::mem::take(&mut self.kept);
        let end = loop {
            if let Some(at) = bytes.windows(4).position(|it| it == b"\r\n\r\n") {
                break at + 4;
            }
            self.more(&mut bytes)?;
        };
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        bytes.drain(..end);
        let status = head.get(9..12).and_then(|it| it.parse().ok()).ok_or_else(nonsense)?;
        let body = if status == 100 {
            self.kept = bytes;
            Vec::new()
        } else if let Some(length) = field(&head, "content-length") {
            let length: usize = length.parse().map_err(|_| nonsense())?;
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
        Ok(Answer { status, head, body: String::from_utf8_lossy(&body).into_owned() })
    }

    /// Has the kernel send a RST in the place of a FIN.
    pub(crate) fn reset_when_dropped(&self) -> io::Result<()> {
        socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO))
    }

    /// Reads one whole answer, with another limit for each step.
    pub(crate) fn answer_within(&mut self, limit: Duration) -> io::Result<Answer> {
        self.stream.set_read_timeout(Some(limit))?;
        self.answer()
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
            let size = std::str::from_utf8(&bytes[..line]).map_err(|_| nonsense())?;
            let size = usize::from_str_radix(size, 16).map_err(|_| nonsense())?;
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

/// One request on a connection of its own: the answer, and how long it took from SYN to FIN.
pub(crate) fn ask(
    to: SocketAddr,
    source: Option<IpAddr>,
    target: &str,
    (fields, limit): (&str, Duration),
) -> io::Result<(Answer, Duration)> {
    let begun = Instant::now();
    let mut link = Link::open(to, source, limit)?;
    let answer = link.get(target, &format!("{fields}Connection: close\r\n"))?;
    Ok((answer, begun.elapsed()))
}

/// A field of a head, by its name in lower case.
pub(crate) fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| {
        let (found, value) = line.split_once(':')?;
        found.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

fn nonsense() -> io::Error {
    io::Error::new(ErrorKind::InvalidData, "the answer makes no sense")
}

/// What so many percent of the numbers stay within; 50 is the median, 100 the most. 0 of none.
pub(crate) fn share(numbers: &[f64], percent: usize) -> f64 {
    let mut numbers = numbers.to_vec();
    numbers.sort_by(f64::total_cmp);
    let last = numbers.len().saturating_sub(1);
    numbers.get(last * percent / 100).copied().unwrap_or_default()
}
