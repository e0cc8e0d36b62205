//! Stdout: what a use from the shell prints.
//!
//! Stdout is shared with other processes and may be a file, so it cannot be made non-blocking: it
//! is asked before each write. The poller wakes the loop when a full pipe has room again; nothing
//! here waits for a reader, since probes in flight would miss their answers meanwhile.

use std::time::{Duration, Instant};

use super::EventLoop;
use crate::event::{Event, PrintFailure};
use crate::kernel::{IoStep, Kernel, Source, Token};

/// The poller's token for stdout.
pub(super) const STDOUT: Token = Token(usize::MAX - 1);

/// What stdout did last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stdout {
    /// It took all it was given, and is not on the poller.
    Willing,
    /// It was full before, and has room again. The poller reports changes.
    Watched,
    /// It is full. The poller reports when it has room, or when the reader is gone.
    Full,
}

impl<K: Kernel> EventLoop<K> {
    /// Writes the core's output as far as stdout takes it; true if the core was informed of what
    /// became of some of it, and may want something.
    pub(super) fn print(&mut self, now: Instant) -> bool {
        let mut is_told = false;
        loop {
            let output = self.core.stdout();
            if output.is_empty() {
                return is_told;
            }
            match self.kernel.write_stdout(output) {
                IoStep::Done(count) => {
                    if self.stdout == Stdout::Full {
                        self.stdout = Stdout::Watched;
                    }
                    self.core.handle(Event::Printed { count }, now);
                }
                IoStep::WouldBlock | IoStep::Retry => {
                    self.watch_stdout();
                    return is_told;
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
            is_told = true;
        }
    }

    /// How long to sleep at most for what waits to be written: stderr is not on the poller, nor is
    /// a stdout that cannot be (a file, some terminals).
    pub(super) fn output_limit(&self) -> Option<Duration> {
        const RETRY: Duration = Duration::from_millis(100);
        let prints = !self.core.stdout().is_empty();
        if prints && self.stdout != Stdout::Full {
            return Some(Duration::ZERO);
        }
        (prints || !self.log.is_empty()).then_some(RETRY)
    }

    fn watch_stdout(&mut self) {
        if self.stdout == Stdout::Willing {
            // What cannot be on a poller (epoll_ctl(2): EPERM) is never full for long: the loop
            // looks again while something waits.
            let _ = self.kernel.register(Source::Stdout, STDOUT);
        }
        self.stdout = Stdout::Full;
    }
}
