//! How the service comes to its end: notice, drain, exit.
//!
//! Begun by a signal, done when the last client is gone. Meanwhile whatever was accepted is
//! answered: the listeners' queues are emptied before they close, running scans finish, and those
//! that run too long are answered as they stand. A use from the shell has nobody to warn: it takes
//! the last step at once, and is done when everything is printed.

use std::time::Instant;

use super::Service;
use super::admission::RETRY_AFTER_DRAIN;
use crate::api::problem::Problem;
use crate::event::{Action, Signal};
use crate::report::log::{Level, Record};
use crate::slots::Key;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Requests are welcome. A signal leaves it.
    Serving,
    /// A signal came: `/readyz` says 503, all else goes on. Armed: `listeners_close_at`.
    Notice { listeners_close_at: Instant, ends_at: Instant },
    /// The shell empties the listeners' queues and closes them. The next tick leaves it.
    Closing { ends_at: Instant },
    /// The listeners are closed, idle connections too; running scans finish. Armed: `ends_at`,
    /// when they are answered as they stand. Left when the last client is gone.
    Draining { ends_at: Option<Instant> },
    /// Nothing is left to do, or a second signal came.
    Ended,
}

impl Service {
    pub(super) fn on_signal(&mut self, now: Instant, signal: Signal) {
        let settings = &self.options.settings;
        let (delay, timeout) = (settings.drain_delay, settings.drain_timeout);
        self.phase = match self.phase {
            // Nobody listens, and what is known is wanted now.
            Phase::Serving if self.batch.is_some() => Phase::Draining { ends_at: Some(now) },
            Phase::Serving => {
                let scans = self.jobs.len();
                let record = Record::new(Level::Info, "draining")
                    .field("signal", signal.name())
                    .field("scans", scans)
                    .field("connections", self.clients_len);
                self.log(&record);
                // The listeners close at the tick that follows: what the sockets of this turn
                // still bring is heard first.
                Phase::Notice { listeners_close_at: now + delay, ends_at: now + timeout }
            }
            Phase::Notice { .. }
            | Phase::Closing { .. }
            | Phase::Draining { .. }
            | Phase::Ended => Phase::Ended,
        };
    }

    /// Takes the drain's next step when its time has come.
    pub(super) fn on_drain(&mut self, now: Instant) {
        match self.phase {
            Phase::Notice { listeners_close_at, ends_at } if listeners_close_at <= now => {
                self.phase = Phase::Closing { ends_at };
                self.actions.push_back(Action::CloseListeners);
            }
            Phase::Closing { ends_at } => {
                self.phase = Phase::Draining { ends_at: Some(ends_at) };
                for key in self.client_keys() {
                    self.drain_client(now, key);
                }
            }
            Phase::Serving | Phase::Notice { .. } | Phase::Draining { .. } | Phase::Ended => {}
        }
        if let Phase::Draining { ends_at: Some(ends_at) } = self.phase
            && ends_at <= now
        {
            self.phase = Phase::Draining { ends_at: None };
            self.interrupt_batch(now);
            self.end_jobs(now);
        }
        self.on_batch_done();
        let is_served = self.clients_len == 0 && self.batch.is_none();
        if matches!(self.phase, Phase::Draining { .. }) && is_served {
            self.phase = Phase::Ended;
            self.log(&Record::new(Level::Info, "drained"));
        }
    }

    /// The drain has come to this client: idle it is closed, busy it is told with its answer.
    fn drain_client(&mut self, now: Instant, key: Key) {
        if let Some(client) = self.client(key) {
            client.conn.handle_drain(now);
            self.serve(now, key);
        }
    }

    /// The drain's time is up: every job is answered as it stands.
    fn end_jobs(&mut self, now: Instant) {
        for job in self.jobs.keys().collect::<Vec<Key>>() {
            if self.jobs.scans(job).next().is_some() {
                self.jobs.end(job);
            } else {
                self.fail(now, job, &Problem::draining(RETRY_AFTER_DRAIN));
            }
        }
        self.pump(now);
    }

    /// True exactly when a termination signal came.
    pub(super) fn is_draining(&self) -> bool {
        self.phase != Phase::Serving
    }
}
