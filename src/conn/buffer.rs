//! A queue of bytes: appended at the back, taken from the front.
//!
//! Taking bytes moves an offset, so a short write or a pipelined request copies nothing. The taken
//! bytes are removed when something is appended and at least half of the bytes were taken, so each
//! byte is moved once on average. An empty buffer frees all memory except [`BUFFER_KEPT_BYTES`],
//! because most connections are idle most of the time. `conn` drives it, for input and output.
//!
//! Invariant: `start` is less than the number of bytes, or both are 0.

use crate::limits::{BUFFER_KEPT_BYTES, READ_BYTES_MAX};

/// A queue of bytes.
#[derive(Debug, Default)]
pub(super) struct Buffer {
    bytes: Vec<u8>,
    /// The number of `bytes` that were taken.
    start: usize,
}

impl Buffer {
    /// The end of the queue, for appending.
    pub(super) fn tail(&mut self) -> &mut Vec<u8> {
        if self.start > self.bytes.len() / 2 {
            self.bytes.drain(..self.start);
            self.start = 0;
            // The buffer held a long head. If further bytes keep arriving, it may never be empty,
            // so it is shrunk here.
            if self.bytes.len() <= READ_BYTES_MAX && self.bytes.capacity() > 4 * READ_BYTES_MAX {
                self.bytes.shrink_to(READ_BYTES_MAX);
            }
        }
        &mut self.bytes
    }

    /// Takes `count` bytes from the front.
    pub(super) fn consume(&mut self, count: usize) {
        assert!(count <= self.len(), "at most the pending bytes are taken");
        self.start += count;
        if self.start == self.bytes.len() {
            self.clear();
        }
        debug_assert!(self.start < self.bytes.len() || self.start == 0);
    }

    /// Drops all bytes.
    pub(super) fn clear(&mut self) {
        self.start = 0;
        if self.bytes.capacity() > BUFFER_KEPT_BYTES {
            self.bytes = Vec::new();
        } else {
            self.bytes.clear();
        }
    }

    /// The waiting bytes, oldest first.
    pub(super) fn pending(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_taken_in_their_order_with_any_step() {
        for step in 1..7 {
            let mut buffer = Buffer::default();
            let mut taken = Vec::new();
            for byte in 0..200_u8 {
                buffer.tail().extend_from_slice(&[byte, byte]);
                if buffer.len() >= step {
                    taken.extend_from_slice(&buffer.pending()[..step]);
                    buffer.consume(step);
                }
            }
            taken.extend_from_slice(buffer.pending());
            buffer.consume(buffer.len());
            let expected: Vec<u8> = (0..200).flat_map(|byte| [byte, byte]).collect();
            assert_eq!(taken, expected, "in steps of {step}");
            assert!(buffer.is_empty());
        }
    }

    #[test]
    fn a_large_buffer_shrinks_even_if_it_is_never_empty() {
        let mut buffer = Buffer::default();
        buffer.tail().extend_from_slice(&[0; 16 * READ_BYTES_MAX]);
        buffer.consume(16 * READ_BYTES_MAX - 1);
        buffer.tail().push(1);
        assert_eq!(buffer.pending(), [0, 1]);
        assert!(buffer.bytes.capacity() <= READ_BYTES_MAX, "{}", buffer.bytes.capacity());
    }

    #[test]
    fn an_empty_buffer_keeps_little_memory_and_taken_bytes_are_removed() {
        let mut buffer = Buffer::default();
        for _ in 0..100 {
            buffer.tail().extend_from_slice(&[0; 1000]);
            buffer.tail().extend_from_slice(&[0; 1000]);
            buffer.consume(1999);
            buffer.consume(1);
            assert!(buffer.bytes.capacity() <= BUFFER_KEPT_BYTES);
        }
        buffer.tail().push(0);
        for _ in 0..100_000 {
            buffer.tail().push(0);
            buffer.consume(1);
        }
        assert!(buffer.bytes.capacity() <= 16, "{}", buffer.bytes.capacity());
    }
}
