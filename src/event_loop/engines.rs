//! The probe engines, behind one interface for the event loop.
//!
//! An engine starts probes and gives probes up, each identified by its key, and reports exactly one
//! [`ProbeOutcome`] for each probe that was not forgotten. The other modules do not know how it
//! probes, or which descriptors it has. A further engine is a module, a variant of `Technique` with
//! its properties, and a field in [`Engines`] that the methods below use. There is no trait for
//! engines, because this struct is their only user. `event_loop` drives it.
//!
//! Invariant: each started probe gets exactly one outcome, unless it is given up.

use std::collections::VecDeque;
use std::time::Instant;

use super::connect_engine::ConnectEngine;
use super::probe::{ProbeOutcome, ProbeRequest};
use super::syn_engine::SynEngine;
use crate::core::Core;
use crate::event::SynCounts;
use crate::kernel::{Kernel, Readiness, Token};
use crate::slots::Key;
use crate::technique::Technique;

/// See the module's documentation.
pub(super) struct Engines<K: Kernel> {
    connect: ConnectEngine<K>,
    syn: SynEngine<K>,
    outcomes: VecDeque<ProbeOutcome>,
}

impl<K: Kernel> Engines<K> {
    pub(super) fn new(core: &Core, now: Instant) -> Self {
        let sources = core.sources();
        Self {
            connect: ConnectEngine::new(core.probes_max(Technique::Connect), sources),
            syn: SynEngine::new(sources, now),
            outcomes: VecDeque::new(),
        }
    }

    /// Whether a token belongs to a socket of an engine.
    pub(super) const fn owns(token: Token) -> bool {
        SynEngine::<K>::owns(token) || ConnectEngine::<K>::owns(token)
    }

    /// Starts a probe. The engine may send it only at the next [`Engines::flush`].
    pub(super) fn start(&mut self, kernel: &mut K, now: Instant, request: ProbeRequest) {
        let outcome = match request.technique {
            Technique::Connect => self.connect.start(kernel, request),
            Technique::Syn => self.syn.start(kernel, now, request).err(),
        };
        if let Some(outcome) = outcome {
            self.outcomes.push_back(ProbeOutcome { probe: request.probe, outcome });
        }
    }

    /// Gives up a probe, so that its outcome is not reported. Unknown keys are ignored.
    pub(super) fn forget(&mut self, kernel: &mut K, probe: Key) {
        if !self.syn.forget(probe) {
            self.connect.forget(kernel, probe);
        }
    }

    /// Sends the packets that were collected while the actions of this tick were performed. Only
    /// the SYN engine collects packets; the connect engine connects in [`Engines::start`].
    pub(super) fn flush(&mut self, kernel: &mut K) {
        self.syn.flush(kernel);
        self.collect_syn_outcomes();
    }

    /// Handles the readiness of a socket of an engine.
    pub(super) fn handle_readiness(&mut self, kernel: &mut K, ready: &Readiness) {
        if SynEngine::<K>::owns(ready.token) {
            return self.syn.handle_readiness(ready);
        }
        self.outcomes.extend(self.connect.handle_readiness(kernel, ready));
    }

    /// Checks the sockets again whose outcome could not be read in the previous tick.
    pub(super) fn recheck(&mut self, kernel: &mut K) {
        for _ in 0..self.connect.rechecks_len() {
            self.outcomes.extend(self.connect.poll_recheck(kernel));
        }
    }

    /// Receives the answers to SYNs, and repeats the SYNs that are due.
    pub(super) fn receive(&mut self, kernel: &mut K, now: Instant) {
        self.syn.receive(kernel, now);
        self.collect_syn_outcomes();
    }

    /// Whether [`Engines::recheck`] or [`Engines::receive`] has work. The loop must then not wait
    /// for an event.
    pub(super) fn has_work(&self) -> bool {
        self.connect.rechecks_len() > 0 || self.syn.has_work()
    }

    /// The packets that the SYN engine has counted since the last call; `None` if there were none.
    pub(super) fn take_syn_counts(&mut self) -> Option<SynCounts> {
        self.syn.take_counts()
    }

    /// The time at which an engine next has work without an event.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.syn.deadline()
    }

    /// The next outcome, which must be reported to the core.
    #[inline]
    pub(super) fn poll_outcome(&mut self) -> Option<ProbeOutcome> {
        self.outcomes.pop_front()
    }

    /// Returns true once after the kernel has refused to connect a socket a second time.
    pub(super) fn take_reuse_refusal(&mut self) -> bool {
        self.connect.take_reuse_refusal()
    }

    /// Closes some idle sockets while more are open than the scans could use. Returns true if more
    /// remain to be closed.
    pub(super) fn trim(&mut self, kernel: &mut K, core: &Core) -> bool {
        self.connect.trim(kernel, core.probes_wanted(Technique::Connect))
    }

    /// Closes some idle sockets, to free descriptors and memory. Returns false if there are none.
    pub(super) fn close_some_idle(&mut self, kernel: &mut K) -> bool {
        self.connect.close_some_idle(kernel)
    }

    fn collect_syn_outcomes(&mut self) {
        while let Some(outcome) = self.syn.poll_outcome() {
            self.outcomes.push_back(outcome);
        }
    }
}
