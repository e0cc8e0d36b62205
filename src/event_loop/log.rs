//! The queue of log lines and progress lines that are to be written to stderr.
//!
//! stderr may be a pipe that no process reads, or a file on a full disk, and must not block the
//! loop. Therefore lines wait in a queue of [`limits::LOG_BYTES_MAX`] bytes. A log line that does
//! not fit is dropped, and the core counts it.

use std::collections::VecDeque;

use crate::kernel::{IoStep, Kernel};
use crate::limits;

/// The bytes of the lines that were not written yet.
#[derive(Debug, Default)]
pub(super) struct LogQueue(VecDeque<u8>);

impl LogQueue {
    /// Adds a log line, given without its line end. Returns false if the queue has no space for it.
    pub(super) fn push(&mut self, line: &str) -> bool {
        debug_assert!(!line.contains('\n'), "a log record must be a single line: {line}");
        let has_room = self.0.len() + line.len() < limits::LOG_BYTES_MAX;
        if has_room {
            self.0.extend(line.as_bytes());
            self.0.push_back(b'\n');
        }
        has_room
    }

    /// Adds a progress line, which replaces the previous one on the terminal (CR before the text,
    /// and the ECMA-48 sequence EL after it). If the queue has no space, the line is dropped,
    /// because the next one follows soon.
    pub(super) fn push_progress(&mut self, line: &str) {
        let text = format!("\r{line}\x1b[K");
        if self.0.len() + text.len() < limits::LOG_BYTES_MAX {
            self.0.extend(text.as_bytes());
        }
    }

    /// Writes as much as stderr accepts. If stderr is broken, the queue is emptied. Returns the
    /// number of lines that were dropped for this reason.
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

    /// Whether no line waits.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
