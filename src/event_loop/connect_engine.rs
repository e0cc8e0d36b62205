//! The connect engine: probes are non-blocking connects of sockets that are used again.
//!
//! A socket whose connect was refused is fresh again, and one that is given up becomes so
//! (`sys::probe`): a closed port costs two system calls, and each socket is registered with the
//! poller once at most. A late edge of an earlier connect is harmless, since epoll asks the socket
//! anew when it reports it. Where the kernel refuses to connect a socket again, that is noticed
//! once, and each probe then gets a socket of its own. It decides nothing else. Driven by
//! `event_loop`.
//!
//! Invariants: a socket is idle or has one probe; no more sockets are open than `sockets_max`.

use std::net::SocketAddr;

use super::engines::ProbeRequest;
use crate::event::{CompletionCheck, Outcome, Shortage};
use crate::kernel::{Kernel, Past, ProbeStep, Readiness, Source, Token};
use crate::limits::{self, Sources};
use crate::slots::Key;

/// Set in the tokens of the engine's sockets, and never in the index of a key.
const TOKEN: usize = 1 << 31;

#[derive(Debug)]
struct ProbeSocket<S> {
    socket: S,
    /// The probe on its way; `None` while the socket is idle.
    probe: Option<Key>,
    to: SocketAddr,
    is_watched: bool,
    past: Past,
}

/// See the module's documentation.
pub(super) struct ConnectEngine<K: Kernel> {
    slots: Vec<Option<ProbeSocket<K::Socket>>>,
    /// Indices of `slots` without a socket.
    vacant: Vec<u32>,
    /// Idle sockets: IPv4 and IPv6, each those that the poller does not know and those it does.
    idle: [[Vec<u32>; 2]; 2],
    /// By the index of a probe's key, one more than its slot; 0 for none.
    by_probe: Vec<u32>,
    open: usize,
    busy: usize,
    sockets_max: usize,
    sources: Sources,
    reuses: bool,
    /// Sockets whose error was reported before it could be read: to be looked at again.
    again: Vec<u32>,
    was_refused: bool,
}

impl<K: Kernel> ConnectEngine<K> {
    pub(super) fn new(sockets_max: usize, sources: Sources) -> Self {
        Self {
            slots: Vec::new(),
            vacant: Vec::new(),
            idle: Default::default(),
            by_probe: Vec::new(),
            open: 0,
            busy: 0,
            sockets_max,
            sources,
            reuses: true,
            again: Vec::new(),
            was_refused: false,
        }
    }

    /// How many probes may be in flight at once: each has a socket.
    pub(super) const fn capacity(&self) -> usize {
        self.sockets_max
    }

    /// Whether a token is one of the engine's.
    pub(super) const fn owns(token: Token) -> bool {
        token.0 & TOKEN != 0
    }

    /// Starts a probe; its outcome, if the kernel has it at once.
    pub(super) fn start(&mut self, kernel: &mut K, request: ProbeRequest) -> Option<Outcome> {
        let ProbeRequest { probe, to, check, .. } = request;
        let (index, step) = loop {
            let index = match self.take(kernel, &to, check) {
                Ok(index) => index,
                Err(outcome) => return Some(outcome),
            };
            let slot = self.slots[index as usize].as_mut()?;
            let step = kernel.start_probe(&slot.socket, &to, slot.past);
            if step != ProbeStep::ReuseRefused {
                slot.past = Past::Used;
                break (index, step);
            }
            self.stop_reuse(kernel);
            self.close(kernel, index);
        };
        self.assign(index, probe, to);
        let step = match (step, check, &self.slots[index as usize]) {
            (ProbeStep::Pending, CompletionCheck::AtOnce, Some(slot)) => {
                kernel.check_probe(&slot.socket, &to)
            }
            (step, ..) => step,
        };
        if let Some(outcome) = self.finish(kernel, index, step) {
            return Some(outcome);
        }
        let slot = self.slots[index as usize].as_mut()?;
        if !slot.is_watched {
            let token = Token(TOKEN | index as usize);
            if kernel.register(Source::Socket(&slot.socket), token).is_err() {
                self.release(index);
                self.close(kernel, index);
                return Some(Outcome::Shortage(Shortage::Memory));
            }
            slot.is_watched = true;
        }
        None
    }

    /// The poller reports a socket: the probe and its outcome, if there is one.
    pub(super) fn handle_readiness(
        &mut self,
        kernel: &mut K,
        ready: &Readiness,
    ) -> Option<(Key, Outcome)> {
        let index = (ready.token.0 & !TOKEN) as u32;
        let over = self.check(kernel, index);
        if over.is_none() && ready.is_error && self.has_probe(index) {
            self.again.push(index);
        }
        over
    }

    /// A socket whose error could not be read yet: its probe and outcome, if it is over now.
    /// To be called for each of those that stood there at the beginning of the tick.
    pub(super) fn check_again(&mut self, kernel: &mut K) -> Option<(Key, Outcome)> {
        let index = self.again.pop()?;
        self.check(kernel, index)
    }

    /// Sockets to be looked at again.
    pub(super) const fn again_len(&self) -> usize {
        self.again.len()
    }

    /// Gives a probe up.
    pub(super) fn forget(&mut self, kernel: &mut K, probe: Key) {
        let Some(index) = self.slot_of(probe) else { return };
        self.give_up(kernel, index);
    }

    /// True once after the kernel refused to connect a socket again.
    pub(super) fn take_refusal(&mut self) -> bool {
        std::mem::take(&mut self.was_refused)
    }

    /// Closes idle sockets beyond the `wanted` that scans could use; true if more are left.
    pub(super) fn trim(&mut self, kernel: &mut K, wanted: usize) -> bool {
        for _ in 0..limits::IDLE_CLOSES_PER_TICK {
            if self.open <= wanted || !self.close_idle(kernel) {
                return false;
            }
        }
        self.open > wanted
    }

    /// Closes some idle sockets, since descriptors or memory are short; false if there are none.
    pub(super) fn give_back(&mut self, kernel: &mut K) -> bool {
        (0..limits::DESCRIPTORS_SPARE).filter(|_| self.close_idle(kernel)).count() > 0
    }

    fn check(&mut self, kernel: &mut K, index: u32) -> Option<(Key, Outcome)> {
        let slot = self.slots.get(index as usize)?.as_ref()?;
        let probe = slot.probe?;
        let step = kernel.check_probe(&slot.socket, &slot.to);
        self.finish(kernel, index, step).map(|outcome| (probe, outcome))
    }

    fn has_probe(&self, index: u32) -> bool {
        let slot = self.slots.get(index as usize).and_then(Option::as_ref);
        slot.is_some_and(|slot| slot.probe.is_some())
    }

    /// Takes the probe off a socket that a look found over; the outcome.
    fn finish(&mut self, kernel: &mut K, index: u32, step: ProbeStep) -> Option<Outcome> {
        match step {
            ProbeStep::Pending => None,
            ProbeStep::ReuseRefused => {
                self.stop_reuse(kernel);
                self.release(index);
                self.close(kernel, index);
                Some(Outcome::Shortage(Shortage::Unknown))
            }
            // An error of the network and one of the call itself may have the same errno: the
            // socket is made fresh by force.
            ProbeStep::Over(
                outcome @ (Outcome::Connected | Outcome::SelfConnect | Outcome::Unreachable),
            ) => {
                self.give_up(kernel, index);
                Some(outcome)
            }
            // The call itself failed: what the socket still has to report would be taken for the
            // outcome of the next probe.
            ProbeStep::Over(outcome @ Outcome::Shortage(_)) => {
                self.release(index);
                self.close(kernel, index);
                Some(outcome)
            }
            ProbeStep::Over(outcome @ (Outcome::Refused | Outcome::TimedOut)) => {
                self.release(index);
                self.keep(kernel, index);
                Some(outcome)
            }
        }
    }

    fn give_up(&mut self, kernel: &mut K, index: u32) {
        self.release(index);
        let Some(slot) = &self.slots[index as usize] else { return };
        if self.reuses && kernel.give_up_probe(&slot.socket) {
            return self.keep(kernel, index);
        }
        if let Some(slot) = self.vacate(index) {
            kernel.reset(slot.socket);
        }
    }

    /// A socket for a probe: an idle one, or a new one. One that the poller does not know yet is
    /// preferred where the outcome is expected at once, since it then never reports an edge.
    fn take(
        &mut self,
        kernel: &mut K,
        to: &SocketAddr,
        check: CompletionCheck,
    ) -> Result<u32, Outcome> {
        let (family, source) = match to {
            SocketAddr::V4(_) => (0, self.sources.v4),
            SocketAddr::V6(_) => (1, self.sources.v6),
        };
        let idle = &mut self.idle[family];
        let first = usize::from(check == CompletionCheck::Later);
        if let Some(index) = idle[first].pop().or_else(|| idle[1 - first].pop()) {
            return Ok(index);
        }
        if self.open >= self.sockets_max {
            self.close_idle(kernel);
        }
        let socket = match kernel.open_probe(to, source) {
            Err(Outcome::Shortage(_)) if self.close_idle(kernel) => kernel.open_probe(to, source),
            opened => opened,
        }?;
        let to = SocketAddr::from(([0; 4], 0));
        let slot = ProbeSocket { socket, probe: None, to, is_watched: false, past: Past::New };
        self.open += 1;
        Ok(match self.vacant.pop() {
            Some(index) => {
                self.slots[index as usize] = Some(slot);
                index
            }
            None => {
                self.slots.push(Some(slot));
                self.slots.len() as u32 - 1
            }
        })
    }

    fn assign(&mut self, index: u32, probe: Key, to: SocketAddr) {
        let Some(slot) = &mut self.slots[index as usize] else { return };
        assert!(slot.probe.is_none(), "a socket has one probe");
        assert!(probe.index() < TOKEN, "no key reaches the engine's tokens");
        slot.probe = Some(probe);
        slot.to = to;
        if self.by_probe.len() <= probe.index() {
            self.by_probe.resize(probe.index() + 1, 0);
        }
        self.by_probe[probe.index()] = index + 1;
        self.busy += 1;
    }

    /// Takes the probe off a socket.
    fn release(&mut self, index: u32) {
        let Some(slot) = &mut self.slots[index as usize] else { return };
        if let Some(probe) = slot.probe.take() {
            self.by_probe[probe.index()] = 0;
            self.busy -= 1;
        }
    }

    /// Puts a fresh socket among the idle ones.
    fn keep(&mut self, kernel: &mut K, index: u32) {
        let Some(slot) = &self.slots[index as usize] else { return };
        if self.reuses {
            let is_v6 = usize::from(slot.to.is_ipv6());
            self.idle[is_v6][usize::from(slot.is_watched)].push(index);
        } else {
            self.close(kernel, index);
        }
    }

    fn slot_of(&self, probe: Key) -> Option<u32> {
        let index = self.by_probe.get(probe.index())?.checked_sub(1)?;
        let slot = self.slots[index as usize].as_ref()?;
        (slot.probe == Some(probe)).then_some(index)
    }

    fn close(&mut self, kernel: &mut K, index: u32) {
        if let Some(slot) = self.vacate(index) {
            kernel.close(slot.socket);
        }
    }

    fn vacate(&mut self, index: u32) -> Option<ProbeSocket<K::Socket>> {
        let slot = self.slots[index as usize].take()?;
        self.vacant.push(index);
        self.open -= 1;
        Some(slot)
    }

    fn close_idle(&mut self, kernel: &mut K) -> bool {
        let index = self.idle.iter_mut().flatten().find_map(Vec::pop);
        if let Some(index) = index {
            self.close(kernel, index);
        }
        index.is_some()
    }

    fn stop_reuse(&mut self, kernel: &mut K) {
        self.was_refused |= self.reuses;
        self.reuses = false;
        while self.close_idle(kernel) {}
    }
}
