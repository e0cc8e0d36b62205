//! Log lines and the progress line on their way to a stderr that may take none just now.
//!
//! stderr may be a pipe that is not read, or a file on a full disk: neither may hold the loop.
//! Lines wait, as many as [`limits::LOG_BYTES_MAX`] holds; what finds no room is counted, not kept.

use std::collections::VecDeque;

use crate::kernel::{IoStep, Kernel};
use crate::limits;

/// Lines that wait.
#[derive(Debug, Default)]
pub(super) struct LogQueue(VecDeque<u8>);

impl LogQueue {
    /// Adds a line, which has no end yet; false if there is no room for it.
    pub(super) fn push(&mut self, line: &str) -> bool {
        debug_assert!(!line.contains('\n'), "a record is one line: {line}");
        let has_room = self.0.len() + line.len() < limits::LOG_BYTES_MAX;
        if has_room {
            self.0.extend(line.as_bytes());
            self.0.push_back(b'\n');
        }
        has_room
    }

    /// Puts a progress line in the place of the one before (ECMA-48: CR, then EL to the end). Where
    /// there is no room it is left out: the next one comes soon.
    pub(super) fn push_progress(&mut self, line: &str) {
        let text = format!("\r{line}\x1b[K");
        if self.0.len() + text.len() < limits::LOG_BYTES_MAX {
            self.0.extend(text.as_bytes());
        }
    }

    /// Writes as much as stderr takes. Returns how many lines were given up since it is broken.
    pub(super) fn flush<K: Kernel>(&mut self, kernel: &mut K) -> u64 {
        while !self.0.is_empty() {
            let (first, _) = self.0.as_slices();
            match kernel.write_log(first) {
                IoStep::Done(count) => drop(self.0.drain(..count)),
                IoStep::WouldBlock | IoStep::Retry => return 0,
                IoStep::Eof | IoStep::Broken => {
                    let lines = self.0.iter().filter(|byte| **byte == b'\n').count();
                    self.0.clear();
                    return lines as u64;
                }
            }
        }
        0
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
