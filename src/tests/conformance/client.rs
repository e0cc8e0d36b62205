//! A connection of the tests, and the barrier that separates the pieces that are sent.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use crate::process::EVENT_TIMEOUT;

/// Opens this number of connections, and one more for [`Client::barrier`]. The service has accepted
/// all of them.
pub(crate) fn connect(address: SocketAddr, count: usize) -> (Client, Vec<Client>) {
    let mut control = Client::connect(address);
    let clients = (0..count).map(|_| Client::connect(address)).collect();
    // Each tick of the service accepts some connections and answers this one.
    (0..=count / 32).for_each(|_| control.barrier());
    (control, clients)
}

/// A connection to the service.
pub(crate) struct Client {
    stream: TcpStream,
    received: Vec<u8>,
}

impl Client {
    fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("the service listens");
        stream.set_nodelay(true).expect("TCP_NODELAY can be set");
        stream.set_read_timeout(Some(EVENT_TIMEOUT)).expect("the timeout is not zero");
        Self { stream, received: Vec::new() }
    }

    /// Sends bytes. An error is ignored, because the service may have closed the connection.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    /// Shuts down the sending side of the connection.
    pub(crate) fn half_close(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// All bytes that have been received so far.
    pub(crate) fn read_ready(&mut self) -> &[u8] {
        self.stream.set_nonblocking(true).expect("the socket is open");
        let _ = self.stream.read_to_end(&mut self.received);
        self.stream.set_nonblocking(false).expect("the socket is open");
        &self.received
    }

    /// Reads until the service closes the connection. Then the connection is reset, or the kernel
    /// would keep thousands of connections in TIME-WAIT for a minute.
    pub(crate) fn read_to_end(mut self) -> Result<Vec<u8>, String> {
        loop {
            match self.stream.read_to_end(&mut self.received) {
                Ok(_) => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::ConnectionReset => break,
                Err(error) => return Err(format!("the connection is not closed: {error}")),
            }
        }
        let _ = socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
        Ok(self.received)
    }

    /// Waits until the service has read everything that any connection sent before.
    pub(crate) fn barrier(&mut self) {
        self.send(b"GET /healthz HTTP/1.1\r\nHost: barrier\r\n\r\n");
        self.received.clear();
        let mut bytes = [0; 1024];
        while !self.received.ends_with(b"\r\n\r\nok") {
            match self.stream.read(&mut bytes) {
                Ok(count @ 1..) => self.received.extend_from_slice(&bytes[..count]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                ended => panic!("the barrier is not answered: {ended:?}"),
            }
        }
    }
}
