//! The probe engines: the one place where they are owned, polled, flushed and asked for capacity.
//!
//! An engine is given "probe this address under this key" and "forget this key", and answers each
//! probe that it was not asked to forget with one [`ProbeOutcome`]. Nothing above knows how it does
//! that, or about its descriptors. Another engine needs its own module, a field here with its share
//! of each method below, a range of tokens, and an entry in `technique`, `budget`, `limits`,
//! `core::schedulers` and `main`; there is no trait for them, since the loop needs no more than
//! this struct. Driven by `event_loop`.
//!
//! Invariant: a probe that is started ends with one outcome, or is forgotten.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Instant;

use super::connect_engine::ConnectEngine;
use super::syn_engine::SynEngine;
use crate::core::Core;
use crate::event::{CompletionCheck, Outcome, SynCounts};
use crate::kernel::{Kernel, Readiness, Token};
use crate::slots::Key;
use crate::technique::Technique;

/// One question to one port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ProbeRequest {
    pub(super) probe: Key,
    pub(super) to: SocketAddr,
    pub(super) check: CompletionCheck,
    pub(super) technique: Technique,
}

/// The end of a probe, whose key the engine has forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ProbeOutcome {
    pub(super) probe: Key,
    pub(super) outcome: Outcome,
}

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
            syn: SynEngine::new(core.probes_max(Technique::Syn), sources, now),
            outcomes: VecDeque::new(),
        }
    }

    /// Whether a token is one of the engines'.
    pub(super) const fn owns(token: Token) -> bool {
        SynEngine::<K>::owns(token) || ConnectEngine::<K>::owns(token)
    }

    /// How many probes may be in flight at once.
    pub(super) const fn capacity(&self, technique: Technique) -> usize {
        match technique {
            Technique::Connect => self.connect.capacity(),
            Technique::Syn => self.syn.capacity(),
        }
    }

    /// Starts a probe. An engine may keep it until [`Engines::flush`].
    pub(super) fn start(&mut self, kernel: &mut K, now: Instant, request: ProbeRequest) {
        let outcome = match request.technique {
            Technique::Connect => self.connect.start(kernel, request),
            Technique::Syn => self.syn.start(kernel, now, request),
        };
        if let Some(outcome) = outcome {
            self.outcomes.push_back(ProbeOutcome { probe: request.probe, outcome });
        }
    }

    /// Gives a probe up; unknown keys are ignored.
    pub(super) fn forget(&mut self, kernel: &mut K, probe: Key) {
        if !self.syn.forget(probe) {
            self.connect.forget(kernel, probe);
        }
    }

    /// The actions of this tick have been performed: what an engine has collected of them is sent.
    /// The connect engine makes each call at once, so that it has nothing left.
    pub(super) fn flush(&mut self, kernel: &mut K) {
        self.syn.flush(kernel);
        self.take_syn_outcomes();
    }

    /// The poller reports one of the engines' sockets.
    pub(super) fn handle_readiness(&mut self, kernel: &mut K, ready: &Readiness) {
        if SynEngine::<K>::owns(ready.token) {
            return self.syn.handle_readiness(ready);
        }
        if let Some((probe, outcome)) = self.connect.handle_readiness(kernel, ready) {
            self.outcomes.push_back(ProbeOutcome { probe, outcome });
        }
    }

    /// Goes on with what the ticks before have left over.
    pub(super) fn resume(&mut self, kernel: &mut K) {
        for _ in 0..self.connect.again_len() {
            if let Some((probe, outcome)) = self.connect.check_again(kernel) {
                self.outcomes.push_back(ProbeOutcome { probe, outcome });
            }
        }
    }

    /// Receives what the poller has reported, and repeats SYNs that are due.
    pub(super) fn receive(&mut self, kernel: &mut K, now: Instant) {
        self.syn.receive(kernel, now);
        self.take_syn_outcomes();
    }

    /// Whether [`Engines::resume`] or [`Engines::receive`] has something to do: the loop does not
    /// sleep then.
    pub(super) fn has_work(&self) -> bool {
        self.connect.again_len() > 0 || self.syn.has_work()
    }

    /// What the SYN engine has counted since the last call, if anything.
    pub(super) fn take_syn_counts(&mut self) -> Option<SynCounts> {
        self.syn.take_counts()
    }

    /// When an engine has something to do by time alone.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.syn.deadline()
    }

    /// The next probe that is over, to be reported to the core.
    #[inline]
    pub(super) fn poll_outcome(&mut self) -> Option<ProbeOutcome> {
        self.outcomes.pop_front()
    }

    /// True once after the kernel refused to connect a socket again.
    pub(super) fn take_reuse_refusal(&mut self) -> bool {
        self.connect.take_refusal()
    }

    /// Closes idle sockets beyond the `wanted` that scans could use; true if more are left.
    pub(super) fn trim(&mut self, kernel: &mut K, wanted: usize) -> bool {
        self.connect.trim(kernel, wanted)
    }

    /// Closes some idle sockets, since descriptors or memory are short; false if there are none.
    pub(super) fn give_back(&mut self, kernel: &mut K) -> bool {
        self.connect.give_back(kernel)
    }

    fn take_syn_outcomes(&mut self) {
        while let Some((probe, outcome)) = self.syn.poll_outcome() {
            self.outcomes.push_back(ProbeOutcome { probe, outcome });
        }
    }
}
