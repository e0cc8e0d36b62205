//! How the service comes to its end: notice, drain, exit.
//!
//! Begun by a signal, done when the last client is gone. Meanwhile whatever was accepted is
//! answered: the listeners' queues are emptied before they close, running scans finish, and those
//! that run too long are answered as they stand. Who takes his time to read that is given up. A use
//! from the shell has nobody to warn: it takes the last steps at once, and is done when everything
//! is printed.

use std::time::Instant;

use super::admission::RETRY_AFTER_DRAIN;
use super::{Door, Service};
use crate::api::problem::Problem;
use crate::conn::reason::CloseReason;
use crate::event::{Action, Signal};
use crate::limits::WRITE_STALL_TIMEOUT;
use crate::report::log::{Level, Record};
use crate::slots::Key;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Requests are welcome. A signal leaves it.
    Serving,
    /// A signal came: `/readyz` says 503, all else goes on. Armed: `listeners_close_at`.
    Notice { listeners_close_at: Instant, ends_at: Instant },
    /// The shell empties the listeners' queues and closes them. The next tick leaves it; so does
    /// an accept that ran short, back to `Notice`.
    Closing { ends_at: Instant },
    /// The listeners are closed, idle connections too; running scans finish. Armed: `ends_at`,
    /// when they are answered as they stand. Left then, or when the last client is gone.
    Draining { ends_at: Instant },
    /// Every scan is answered, and slow readers still read. Armed: `gives_up_at`, when those left
    /// are dropped: a byte now and then must not keep the service. Left when the last is gone, or
    /// all is printed.
    Flushing { gives_up_at: Instant },
    /// Nothing is left to do, or a second signal came.
    Ended,
}

impl Service {
    pub(super) fn on_signal(&mut self, now: Instant, signal: Signal) {
        let settings = &self.options.settings;
        let (delay, timeout) = (settings.drain_delay, settings.drain_timeout);
        self.phase = match self.phase {
            // Nobody listens, and what is known is wanted now.
            Phase::Serving if self.batch.is_some() => Phase::Draining { ends_at: now },
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
            | Phase::Flushing { .. }
            | Phase::Ended => Phase::Ended,
        };
    }

    /// Takes the drain's next step when its time has come.
    pub(super) fn on_drain(&mut self, now: Instant) {
        match self.phase {
            Phase::Notice { listeners_close_at, ends_at } if listeners_close_at <= now => {
                self.phase = Phase::Closing { ends_at };
                match self.door {
                    Door::Parked { until } => self.delay_closing(until),
                    Door::Open => {}
                }
                if !self.keeps_listeners() {
                    self.actions.push_back(Action::CloseListeners);
                }
            }
            Phase::Closing { ends_at } => {
                self.phase = Phase::Draining { ends_at };
                for key in self.client_keys() {
                    self.drain_client(now, key);
                }
            }
            Phase::Flushing { gives_up_at } if gives_up_at <= now => {
                for key in self.client_keys() {
                    self.drop_client(now, key, CloseReason::Stalled.label());
                }
                if self.batch.is_some() {
                    self.phase = Phase::Ended;
                }
            }
            Phase::Serving
            | Phase::Notice { .. }
            | Phase::Draining { .. }
            | Phase::Flushing { .. }
            | Phase::Ended => {}
        }
        if let Phase::Draining { ends_at } = self.phase
            && ends_at <= now
        {
            self.phase = Phase::Flushing { gives_up_at: now + WRITE_STALL_TIMEOUT };
            self.interrupt_batch(now);
            self.end_jobs(now);
        }
        self.on_batch_done();
        let is_served = self.clients_len == 0 && self.batch.is_none();
        if !self.is_open() && self.phase != Phase::Ended && is_served {
            self.phase = Phase::Ended;
            self.log(&Record::new(Level::Info, "drained"));
        }
    }

    /// Somebody stands in a listener's queue whom we were too short to take in: the listeners stay
    /// for another try, as long as the drain may last.
    pub(super) fn delay_closing(&mut self, until: Instant) {
        if let Phase::Closing { ends_at } = self.phase
            && until < ends_at
        {
            self.phase = Phase::Notice { listeners_close_at: until, ends_at };
        }
    }

    /// True exactly when the listeners, whose queues [`Action::CloseListeners`] had emptied, are
    /// not to be closed yet: someone is left there.
    pub const fn keeps_listeners(&self) -> bool {
        matches!(self.phase, Phase::Serving | Phase::Notice { .. })
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

    /// True exactly until the listeners are closed.
    pub(super) const fn is_open(&self) -> bool {
        match self.phase {
            Phase::Serving | Phase::Notice { .. } | Phase::Closing { .. } => true,
            Phase::Draining { .. } | Phase::Flushing { .. } | Phase::Ended => false,
        }
    }

    /// True exactly when a termination signal came.
    pub(super) fn is_draining(&self) -> bool {
        self.phase != Phase::Serving
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::crowd::tests::{acts, ask, records, service, tick};
    use super::*;
    use crate::event::{Action, Event};

    #[test]
    fn a_service_that_was_told_to_leave_is_not_ready_and_says_so() {
        let (mut service, now) = (service(8), Instant::now());
        let readyz = "GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n";
        assert!(ask(&mut service, now, readyz).starts_with("HTTP/1.1 200"));
        assert!(!service.is_draining());
        service.options.settings.drain_delay = Duration::from_secs(5);
        service.handle(Event::Signal(Signal::Terminate), now);
        tick(&mut service, now);
        let answer = ask(&mut service, now, readyz);
        assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
        assert!(answer.contains("DRAINING"), "{answer}");
        assert!(service.gauges().is_draining);
    }

    #[test]
    fn who_is_idle_is_sent_away_when_the_listeners_are_closed_and_who_scans_is_not() {
        let (mut service, now) = (service(8), Instant::now());
        service.options.policy.reach = crate::policy::Reach::LoopbackOnly;
        let idle = service.handle_accepted(None, now);
        let busy = service.handle_accepted(None, now);
        let bytes =
            b"GET /open-ports?domain=127.0.0.1&toPort=9 HTTP/1.1\r\nHost: localhost\r\n\r\n";
        service.handle(Event::Received { socket: busy, bytes }, now);
        service.handle(Event::Signal(Signal::Terminate), now);
        // One tick empties the listeners' queues, the next sends away whoever is idle.
        tick(&mut service, now);
        assert!(acts(&mut service, now).contains(&Action::CloseListeners));
        tick(&mut service, now);
        assert!(service.client(idle).is_none(), "it is gone");
        assert!(service.client(busy).is_some(), "its scan goes on");
    }

    #[test]
    fn the_record_of_a_drain_has_the_signals_name() {
        for (signal, name) in [(Signal::Terminate, "SIGTERM"), (Signal::Interrupt, "SIGINT")] {
            let (mut service, now) = (service(8), Instant::now());
            service.options.log_level = Level::Info;
            service.handle(Event::Signal(signal), now);
            tick(&mut service, now);
            let expected = format!("signal={name} scans=0");
            assert!(records(&mut service, now).iter().any(|it| it.contains(&expected)), "{name}");
        }
    }

    #[test]
    fn who_still_reads_has_so_long_after_the_drains_end_and_no_longer() {
        let (mut service, mut now) = (service(8), Instant::now());
        let client = service.handle_accepted(None, now);
        let bytes = b"GET /openapi.json HTTP/1.1\r\nHost: a\r\n\r\n";
        service.handle(Event::Received { socket: client, bytes }, now);
        service.handle(Event::Signal(Signal::Terminate), now);
        let signalled_at = now;
        let drain = service.options.settings.drain_timeout;
        // A byte a second: never stalled, never done.
        while now < signalled_at + drain + WRITE_STALL_TIMEOUT {
            assert!(service.client(client).is_some(), "{:?}", now - signalled_at);
            tick(&mut service, now);
            service.handle(Event::Sent { socket: client, count: 1 }, now);
            let is_over = acts(&mut service, now).contains(&Action::Exit(0));
            assert!(!is_over, "{:?}", now - signalled_at);
            now += Duration::from_secs(1);
        }
        tick(&mut service, now);
        assert!(acts(&mut service, now).contains(&Action::Exit(0)), "its time is up");
    }
}
