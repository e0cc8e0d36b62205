//! Bytes that wait: appended at the back, taken from the front.
//!
//! Taking moves an offset, so a short write or a pipelined request copies nothing; what was taken
//! is cut off when something is appended and at least half of the bytes are gone, so each byte is
//! moved once on average. Emptied, it gives back all but [`BUFFER_KEPT_BYTES`]: most connections
//! idle most of the time. Driven by `conn`, for input and output alike.
//!
//! Invariant: `start` stays below the number of bytes, or both are 0.

use crate::limits::{BUFFER_KEPT_BYTES, READ_BYTES_MAX};

/// A queue of bytes.
#[derive(Debug, Default)]
pub(super) struct Buffer {
    bytes: Vec<u8>,
    /// How many of `bytes` were taken.
    start: usize,
}

impl Buffer {
    /// The back, to append to.
    pub(super) fn tail(&mut self) -> &mut Vec<u8> {
        if self.start > self.bytes.len() / 2 {
            self.bytes.drain(..self.start);
            self.start = 0;
            // A long head was here, and what follows it may never let the buffer be empty.
            if self.bytes.len() <= READ_BYTES_MAX && self.bytes.capacity() > 4 * READ_BYTES_MAX {
                self.bytes.shrink_to(READ_BYTES_MAX);
            }
        }
        &mut self.bytes
    }

    /// Takes `count` bytes from the front.
    pub(super) fn consume(&mut self, count: usize) {
        assert!(count <= self.len(), "only what is there can be taken");
        self.start += count;
        if self.start == self.bytes.len() {
            self.clear();
        }
        debug_assert!(self.start < self.bytes.len() || self.start == 0);
    }

    /// Drops everything.
    pub(super) fn clear(&mut self) {
        self.start = 0;
        if self.bytes.capacity() > BUFFER_KEPT_BYTES {
            self.bytes = Vec::new();
        } else {
            self.bytes.clear();
        }
    }

    /// What waits, oldest first.
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
    fn bytes_come_out_in_the_order_they_went_in_however_they_are_taken() {
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
    fn a_buffer_that_is_never_empty_forgets_that_it_was_large() {
        let mut buffer = Buffer::default();
        buffer.tail().extend_from_slice(&[0; 16 * READ_BYTES_MAX]);
        buffer.consume(16 * READ_BYTES_MAX - 1);
        buffer.tail().push(1);
        assert_eq!(buffer.pending(), [0, 1]);
        assert!(buffer.bytes.capacity() <= READ_BYTES_MAX, "{}", buffer.bytes.capacity());
    }

    #[test]
    fn an_emptied_buffer_keeps_little_and_a_taken_front_is_cut_off() {
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
