//! One connection of the tests, and the barrier that keeps what was sent apart.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use crate::process::PATIENCE;

/// So many connections, and one for [`Line::barrier`]. The service has accepted all of them.
pub(crate) fn connect(address: SocketAddr, count: usize) -> (Line, Vec<Line>) {
    let mut control = Line::connect(address);
    let lines = (0..count).map(|_| Line::connect(address)).collect();
    // Each turn of the service accepts some of them, and answers us.
    (0..=count / 32).for_each(|_| control.barrier());
    (control, lines)
}

/// A connection under way.
pub(crate) struct Line {
    stream: TcpStream,
    received: Vec<u8>,
}

impl Line {
    fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("the service listens");
        stream.set_nodelay(true).expect("TCP_NODELAY");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout that is not zero");
        Self { stream, received: Vec::new() }
    }

    /// A service that has ended the connection by now is no fault of the sender.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    /// Ends our side: no more is sent.
    pub(crate) fn half_close(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// What has come so far.
    pub(crate) fn read_ready(&mut self) -> &[u8] {
        self.stream.set_nonblocking(true).expect("a socket");
        let _ = self.stream.read_to_end(&mut self.received);
        self.stream.set_nonblocking(false).expect("a socket");
        &self.received
    }

    /// All that comes up to the end. Behind it the connection is reset, or the kernel would
    /// remember each of thousands for a minute.
    pub(crate) fn read_to_end(mut self) -> Result<Vec<u8>, String> {
        loop {
            match self.stream.read_to_end(&mut self.received) {
                Ok(_) => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::ConnectionReset => break,
                Err(error) => return Err(format!("no end: {error}")),
            }
        }
        let _ = socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
        Ok(self.received)
    }

    /// Waits until the service has taken all that was sent before, by whomever.
    pub(crate) fn barrier(&mut self) {
        self.send(b"GET /healthz HTTP/1.1\r\nHost: barrier\r\n\r\n");
        self.received.clear();
        let mut bytes = [0; 1024];
        while !self.received.ends_with(b"\r\n\r\nok") {
            match self.stream.read(&mut bytes) {
                Ok(count @ 1..) => self.received.extend_from_slice(&bytes[..count]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                ended => panic!("the service is gone: {ended:?}"),
            }
        }
    }
}
