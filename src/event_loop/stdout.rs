//! Writes the results of a command-line scan to stdout.
//!
//! Stdout is shared with other processes and may be a file, so it cannot be made non-blocking.
//! Instead, poll(2) checks it before each write. The loop never blocks on a slow reader, because
//! the outcomes of probes in flight would be read too late. The poller reports when a full pipe has
//! space again.

use std::time::{Duration, Instant};

use super::EventLoop;
use crate::event::{Event, PrintFailure};
use crate::kernel::{EventSource, IoStep, Kernel, Token};

/// The poller's token for stdout.
pub(super) const STDOUT: Token = Token(usize::MAX - 1);

/// The state of stdout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stdout {
    /// Stdout has accepted all output so far, and is not registered with the poller.
    Unregistered,
    /// Stdout was full before, and has space again. It is registered with the poller.
    Registered,
    /// Stdout is full. The poller reports when it has space, or when the reader closes the pipe.
    Full,
}

impl<K: Kernel> EventLoop<K> {
    /// Writes as much of the core's output as stdout accepts. Returns true if the core got an event
    /// and may therefore have new actions.
    pub(super) fn print(&mut self, now: Instant) -> bool {
        let mut has_reported = false;
        loop {
            let output = self.core.stdout();
            if output.is_empty() {
                return has_reported;
            }
            match self.kernel.write_stdout(output) {
                IoStep::Done(count) => {
                    if self.stdout == Stdout::Full {
                        self.stdout = Stdout::Registered;
                    }
                    self.core.handle(Event::Printed { count }, now);
                }
                IoStep::WouldBlock | IoStep::Retry => {
                    self.register_stdout();
                    return has_reported;
                }
                IoStep::Eof => {
                    self.core.handle(Event::PrintFailed(PrintFailure::ReaderGone), now);
                    return true;
                }
                IoStep::Broken => {
                    self.core.handle(Event::PrintFailed(PrintFailure::Broken), now);
                    return true;
                }
            }
            has_reported = true;
        }
    }

    /// The maximum time to wait for events while output waits for stdout or stderr; `None` if none
    /// waits. stderr is never registered with the poller, and stdout cannot be if it is a file, so
    /// both are tried at intervals.
    pub(super) fn output_wait_max(&self) -> Option<Duration> {
        /// The interval between two attempts to write to a full stdout or stderr.
        const RETRY: Duration = Duration::from_millis(100);
        let prints = !self.core.stdout().is_empty();
        if prints && self.stdout != Stdout::Full {
            return Some(Duration::ZERO);
        }
        (prints || !self.log.is_empty()).then_some(RETRY)
    }

    /// Registers stdout with the poller when it is full for the first time.
    fn register_stdout(&mut self) {
        if self.stdout == Stdout::Unregistered {
            // A file cannot be registered (epoll_ctl(2): EPERM). It is never full for long, and the
            // loop tries again at intervals while output waits.
            let _ = self.kernel.register(EventSource::Stdout, STDOUT);
        }
        self.stdout = Stdout::Full;
    }
}
