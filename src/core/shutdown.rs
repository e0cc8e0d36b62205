//! The shutdown of the service: notice, closing of the listeners, end of the scans, exit.
//!
//! A signal begins the shutdown, and it is complete when the last client is gone. Until then, every
//! accepted connection is answered: the queues of the listeners are emptied before they are closed,
//! running scans finish, and those that run too long are answered with their results so far. A
//! client that reads too slowly is closed. A command-line run has no clients to notify: it takes
//! the last steps at once, and is complete when everything is printed. This module performs nothing
//! itself: `core` drives it and performs each [`ShutdownStep`].

use std::time::{Duration, Instant};

use super::admission::ServiceStage;
use crate::limits::WRITE_STALL_TIMEOUT;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Requests are accepted. A signal ends this phase.
    Serving,
    /// A signal has arrived: `/readyz` answers 503, and everything else continues. The deadline
    /// `listeners_close_at` is armed.
    Notice { listeners_close_at: Instant, ends_at: Instant },
    /// The event loop empties the queues of the listeners and closes them. The next tick ends this
    /// phase; an `accept` that failed because of a shortage leads back to `Notice`.
    Closing { ends_at: Instant },
    /// The listeners and the idle connections are closed, and running scans finish. The deadline
    /// `ends_at` is armed, at which they are answered with their results so far. The deadline ends
    /// this phase, and so does the end of the last client.
    Finishing { ends_at: Instant },
    /// Every scan is answered, and slow readers still read. The deadline `gives_up_at` is armed, at
    /// which the remaining clients are closed: a client that reads a single byte now and then must
    /// not keep the service running. The end of the last client ends this phase, and so does the
    /// end of the output.
    Flushing { gives_up_at: Instant },
    /// Nothing is left to do, or a second signal has arrived.
    Ended,
}

/// The kind of process that ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    /// A service, which has clients.
    Service,
    /// A batch of targets from the command line.
    Batch,
}

/// The next step of the shutdown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ShutdownStep {
    /// Empty the queues of the listeners, then close them.
    CloseListeners,
    /// Close idle connections, and the others after their next answer.
    ShutDownClients,
    /// Close every connection.
    CloseClients,
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Shutdown {
    phase: Phase,
    /// How long the listeners stay open after a signal.
    delay: Duration,
    /// How long scans may run after a signal before they are answered with their results so far.
    timeout: Duration,
}

impl Shutdown {
    /// The service runs.
    pub(super) const fn new(delay: Duration, timeout: Duration) -> Self {
        Self { phase: Phase::Serving, delay, timeout }
    }

    /// The longest time from the signal to the exit. The last second is for the work of the ticks.
    pub(super) fn time_max(&self) -> Duration {
        self.delay.max(self.timeout) + WRITE_STALL_TIMEOUT + Duration::from_secs(1)
    }

    /// A signal has arrived. The first one begins the shutdown, and the second one ends it.
    pub(super) fn handle_signal(&mut self, now: Instant, usage: Use) {
        self.phase = match (self.phase, usage) {
            // There is no listener, and the user wants the results so far now.
            (Phase::Serving, Use::Batch) => Phase::Finishing { ends_at: now },
            // The listeners close at a later tick, so that the events of this tick's sockets are
            // handled first.
            (Phase::Serving, Use::Service) => {
                Phase::Notice { listeners_close_at: now + self.delay, ends_at: now + self.timeout }
            }
            (
                Phase::Notice { .. }
                | Phase::Closing { .. }
                | Phase::Finishing { .. }
                | Phase::Flushing { .. }
                | Phase::Ended,
                _,
            ) => Phase::Ended,
        };
    }

    /// A connection that could not be accepted because of a shortage is left in the queue of a
    /// listener. The listeners stay open for another try, as long as the shutdown may last.
    pub(super) fn delay_closing(&mut self, until: Instant) {
        if let Phase::Closing { ends_at } = self.phase
            && until < ends_at
        {
            self.phase = Phase::Notice { listeners_close_at: until, ends_at };
        }
    }

    /// Takes the next step if it is due, once a tick. While `accept` is in backoff (`accept_at`),
    /// the listeners are not closed.
    pub(super) fn handle_tick(
        &mut self,
        now: Instant,
        accept_at: Option<Instant>,
    ) -> Option<ShutdownStep> {
        match self.phase {
            Phase::Notice { listeners_close_at, ends_at } if listeners_close_at <= now => {
                self.phase = Phase::Closing { ends_at };
                if let Some(until) = accept_at {
                    self.delay_closing(until);
                }
                (!self.keeps_listeners()).then_some(ShutdownStep::CloseListeners)
            }
            Phase::Closing { ends_at } => {
                self.phase = Phase::Finishing { ends_at };
                Some(ShutdownStep::ShutDownClients)
            }
            Phase::Flushing { gives_up_at } if gives_up_at <= now => {
                Some(ShutdownStep::CloseClients)
            }
            Phase::Serving
            | Phase::Notice { .. }
            | Phase::Finishing { .. }
            | Phase::Flushing { .. }
            | Phase::Ended => None,
        }
    }

    /// Returns true once, when the scans that still run must be answered with their results so far.
    pub(super) fn poll_scans_end(&mut self, now: Instant) -> bool {
        match self.phase {
            Phase::Finishing { ends_at } if ends_at <= now => {
                self.phase = Phase::Flushing { gives_up_at: now + WRITE_STALL_TIMEOUT };
                true
            }
            Phase::Serving
            | Phase::Notice { .. }
            | Phase::Closing { .. }
            | Phase::Finishing { .. }
            | Phase::Flushing { .. }
            | Phase::Ended => false,
        }
    }

    /// Nothing is left to do.
    pub(super) const fn end(&mut self) {
        self.phase = Phase::Ended;
    }

    /// Whether the listeners must stay open although `Action::CloseListeners` had their queues
    /// emptied, because a connection could not be accepted.
    pub(super) const fn keeps_listeners(&self) -> bool {
        matches!(self.phase, Phase::Serving | Phase::Notice { .. })
    }

    /// The time at which the next step is due.
    pub(super) const fn deadline(&self) -> Option<Instant> {
        match self.phase {
            Phase::Serving | Phase::Closing { .. } | Phase::Ended => None,
            Phase::Notice { listeners_close_at, .. } => Some(listeners_close_at),
            Phase::Finishing { ends_at } => Some(ends_at),
            Phase::Flushing { gives_up_at } => Some(gives_up_at),
        }
    }

    pub(super) const fn stage(&self) -> ServiceStage {
        match self.phase {
            Phase::Serving => ServiceStage::Serving,
            Phase::Notice { .. } | Phase::Closing { .. } => ServiceStage::NotReady,
            Phase::Finishing { .. } | Phase::Flushing { .. } | Phase::Ended => ServiceStage::Closed,
        }
    }

    /// True until the listeners are closed.
    pub(super) fn is_open(&self) -> bool {
        self.stage() != ServiceStage::Closed
    }

    /// Whether a termination signal has arrived.
    pub(super) fn is_shutting_down(&self) -> bool {
        self.phase != Phase::Serving
    }

    /// Whether the next step is due at once.
    pub(super) const fn has_work(&self) -> bool {
        matches!(self.phase, Phase::Closing { .. })
    }

    /// Whether nothing is left to do.
    pub(super) const fn is_ended(&self) -> bool {
        matches!(self.phase, Phase::Ended)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::fixtures::{acts, ask, core, core_with, is_connected, records, tick};
    use crate::event::{Action, Event, Signal};
    use crate::limits::Settings;
    use crate::report::log::Level;

    #[test]
    fn a_service_that_received_a_signal_is_not_ready_and_reports_it() {
        let delay = Duration::from_secs(5);
        let (mut core, now) =
            (core_with(8, |options| options.settings.drain_delay = delay), Instant::now());
        let readyz = "GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n";
        assert!(ask(&mut core, now, readyz).starts_with("HTTP/1.1 200"));
        assert!(!core.shutdown.is_shutting_down());
        core.handle(Event::Signal(Signal::Terminate), now);
        tick(&mut core, now);
        let answer = ask(&mut core, now, readyz);
        assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
        assert!(answer.contains("DRAINING"), "{answer}");
        assert!(core.gauges().is_draining);
    }

    #[test]
    fn closing_the_listeners_closes_idle_clients_and_no_scanning_ones() {
        let (mut core, now) = (core(8), Instant::now());
        let idle = core.handle_accepted(None, now);
        let busy = core.handle_accepted(None, now);
        let bytes =
            b"GET /open-ports?domain=127.0.0.1&toPort=9 HTTP/1.1\r\nHost: localhost\r\n\r\n";
        core.handle(Event::Received { socket: busy, bytes }, now);
        core.handle(Event::Signal(Signal::Terminate), now);
        // One tick empties the queues of the listeners, and the next one closes the idle
        // connections.
        tick(&mut core, now);
        assert!(acts(&mut core, now).contains(&Action::CloseListeners));
        tick(&mut core, now);
        assert!(!is_connected(&core, idle), "the idle client is closed");
        assert!(is_connected(&core, busy), "the scan continues");
    }

    #[test]
    fn the_record_of_a_shutdown_has_the_name_of_the_signal() {
        for (signal, name) in [
            (Signal::Terminate, "SIGTERM"),
            (Signal::Interrupt, "SIGINT"),
            (Signal::HangUp, "SIGHUP"),
        ] {
            let (mut core, now) =
                (core_with(8, |options| options.log_level = Level::Info), Instant::now());
            core.handle(Event::Signal(signal), now);
            tick(&mut core, now);
            let expected = format!("signal={name} scans=0");
            assert!(records(&mut core, now).iter().any(|it| it.contains(&expected)), "{name}");
        }
    }

    #[test]
    fn a_client_that_still_reads_has_a_bounded_time_after_the_end_of_the_scans() {
        let (mut core, mut now) = (core(8), Instant::now());
        let client = core.handle_accepted(None, now);
        let bytes = b"GET /openapi.json HTTP/1.1\r\nHost: a\r\n\r\n";
        core.handle(Event::Received { socket: client, bytes }, now);
        core.handle(Event::Signal(Signal::Terminate), now);
        let signalled_at = now;
        let drain = Settings::default().drain_timeout;
        // The client reads one byte per second, so it never stalls and never finishes.
        while now < signalled_at + drain + WRITE_STALL_TIMEOUT {
            assert!(is_connected(&core, client), "{:?}", now - signalled_at);
            tick(&mut core, now);
            core.handle(Event::Sent { socket: client, count: 1 }, now);
            let is_over = acts(&mut core, now).contains(&Action::Exit(0));
            assert!(!is_over, "{:?}", now - signalled_at);
            now += Duration::from_secs(1);
        }
        tick(&mut core, now);
        assert!(acts(&mut core, now).contains(&Action::Exit(0)), "the time of the client is up");
    }

    #[test]
    fn the_listeners_stay_open_for_the_drain_delay() {
        let delay = Duration::from_secs(5);
        let (mut core, now) =
            (core_with(8, |options| options.settings.drain_delay = delay), Instant::now());
        core.handle(Event::Signal(Signal::Terminate), now);
        let closes = |core: &mut _, after| {
            tick(core, now + after);
            acts(core, now + after).contains(&Action::CloseListeners)
        };
        assert!(!closes(&mut core, Duration::ZERO));
        assert!(!closes(&mut core, delay - Duration::from_nanos(1)));
        assert!(closes(&mut core, delay));
    }

    #[test]
    fn the_announced_time_of_a_shutdown_includes_the_delay_and_slow_clients() {
        let seconds = Duration::from_secs;
        let rest = WRITE_STALL_TIMEOUT + seconds(1);
        assert_eq!(Shutdown::new(seconds(3), seconds(7)).time_max(), seconds(7) + rest);
        assert_eq!(Shutdown::new(seconds(9), seconds(7)).time_max(), seconds(9) + rest);
    }
}
