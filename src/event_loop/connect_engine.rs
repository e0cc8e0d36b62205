//! The connect engine: a probe is a non-blocking connect. Sockets are reused for further probes.
//!
//! A socket can be connected again after its connect was refused or timed out, and after a connect
//! to AF_UNSPEC has reset it (`sys::probe`). Therefore a closed port costs two system calls, and
//! each socket is registered with the poller at most once. An event that belongs to an earlier
//! connect of the socket is harmless, because the outcome is always read from the socket itself. If
//! the kernel refuses to connect a socket a second time, the engine stops the reuse, and each
//! further probe gets a new socket. `engines` drives it.
//!
//! Invariants: a socket is idle or has exactly one probe; at most `sockets_max` sockets are open.

use std::net::SocketAddr;

use super::probe::{ProbeOutcome, ProbeRequest};
use crate::event::{CompletionCheck, Outcome, Shortage};
use crate::kernel::{EventSource, Kernel, Past, ProbeStep, Readiness, Token};
use crate::limits::{self, Sources};
use crate::slots::Key;

/// The bit that is set in the tokens of the engine's sockets. No index of a key has it.
const TOKEN: usize = 1 << 31;

#[derive(Debug)]
struct ProbeSocket<S> {
    socket: S,
    /// The probe in flight; `None` while the socket is idle.
    probe: Option<Key>,
    to: SocketAddr,
    /// Whether the socket is registered with the poller.
    is_registered: bool,
    /// Whether a connect has been in progress since the errors of the socket were cleared last. It
    /// may have left one, which must not be taken for that of a later probe.
    may_hold_error: bool,
    past: Past,
}

/// See the module's documentation.
pub(super) struct ConnectEngine<K: Kernel> {
    slots: Vec<Option<ProbeSocket<K::Socket>>>,
    /// The indices of slots without a socket.
    vacant: Vec<u32>,
    /// The slots of idle sockets. The first index is the family (IPv4, IPv6), the second one says
    /// whether the socket is registered with the poller.
    idle: [[Vec<u32>; 2]; 2],
    /// The slot of each probe plus one, or 0, by the index of the probe's key.
    by_probe: Vec<u32>,
    /// The number of open sockets.
    open_len: usize,
    sockets_max: usize,
    sources: Sources,
    /// Whether a socket may be used for further probes.
    may_reuse: bool,
    /// The slots of sockets for which the poller has reported an error before the socket returned
    /// it. They are checked again in the next tick.
    rechecks: Vec<u32>,
    /// Whether the kernel has refused a reuse that was not reported yet.
    was_reuse_refused: bool,
}

impl<K: Kernel> ConnectEngine<K> {
    pub(super) fn new(sockets_max: usize, sources: Sources) -> Self {
        Self {
            slots: Vec::new(),
            vacant: Vec::new(),
            idle: Default::default(),
            by_probe: Vec::new(),
            open_len: 0,
            sockets_max,
            sources,
            may_reuse: true,
            rechecks: Vec::new(),
            was_reuse_refused: false,
        }
    }

    /// Whether a token belongs to a socket of the engine.
    pub(super) const fn owns(token: Token) -> bool {
        token.0 & TOKEN != 0
    }

    /// Starts a probe. Returns the outcome if the kernel already knows it.
    pub(super) fn start(&mut self, kernel: &mut K, request: ProbeRequest) -> Option<Outcome> {
        let ProbeRequest { probe, to, check, .. } = request;
        let mut index = match self.select(kernel, &to, check) {
            Ok(index) => index,
            Err(outcome) => return Some(outcome),
        };
        let slot = self.slot_mut(index);
        if check != CompletionCheck::Later && std::mem::take(&mut slot.may_hold_error) {
            kernel.clear_error(&slot.socket);
        }
        let mut step = self.connect(kernel, index, &to);
        if step == ProbeStep::ReuseRefused {
            // The kernel refuses the reuse or this target; a new socket shows which.
            self.close(kernel, index);
            index = match self.open(kernel, &to) {
                Ok(index) => index,
                Err(outcome) => return Some(outcome),
            };
            step = self.connect(kernel, index, &to);
            if step != ProbeStep::Over(Outcome::Unreachable) {
                self.stop_reuse(kernel);
            }
        }
        self.assign(index, probe, to);
        let socket = &self.slot(index).socket;
        if step == ProbeStep::Pending && check == CompletionCheck::AtOnce {
            step = kernel.check_probe(socket, &to);
        }
        if step == ProbeStep::Pending && check != CompletionCheck::Later {
            step = kernel.check_rejected(socket);
        }
        if let Some(outcome) = self.finish(kernel, index, step) {
            return Some(outcome);
        }
        let slot = self.slot_mut(index);
        slot.may_hold_error = true;
        if !slot.is_registered {
            let token = Token(TOKEN | index as usize);
            if kernel.register(EventSource::Socket(&slot.socket), token).is_err() {
                self.release(index);
                self.close(kernel, index);
                return Some(Outcome::Shortage(Shortage::Memory));
            }
            slot.is_registered = true;
        }
        None
    }

    /// Handles the readiness of a socket. Returns the outcome if its probe has ended.
    pub(super) fn handle_readiness(
        &mut self,
        kernel: &mut K,
        ready: &Readiness,
    ) -> Option<ProbeOutcome> {
        let index = (ready.token.0 & !TOKEN) as u32;
        let ended = self.check(kernel, index);
        if ended.is_none() && ready.is_error && self.has_probe(index) {
            self.rechecks.push(index);
        }
        ended
    }

    /// Checks one of the sockets that must be checked again. Returns the outcome if its probe has
    /// ended. The caller makes [`Self::rechecks_len`] such calls in each tick.
    pub(super) fn poll_recheck(&mut self, kernel: &mut K) -> Option<ProbeOutcome> {
        let index = self.rechecks.pop()?;
        self.check(kernel, index)
    }

    /// The number of sockets that must be checked again.
    pub(super) const fn rechecks_len(&self) -> usize {
        self.rechecks.len()
    }

    /// Gives up a probe, so that its outcome is not reported. Unknown keys are ignored.
    pub(super) fn forget(&mut self, kernel: &mut K, probe: Key) {
        let Some(index) = self.slot_of(probe) else { return };
        self.give_up(kernel, index);
    }

    /// Returns true once after the kernel has refused to connect a socket a second time.
    pub(super) fn take_reuse_refusal(&mut self) -> bool {
        std::mem::take(&mut self.was_reuse_refused)
    }

    /// Closes idle sockets while more than `wanted` sockets are open, at most
    /// `IDLE_CLOSES_PER_TICK`. Returns true if more remain to be closed.
    pub(super) fn trim(&mut self, kernel: &mut K, wanted: usize) -> bool {
        for _ in 0..limits::IDLE_CLOSES_PER_TICK {
            if self.open_len <= wanted || !self.close_idle(kernel) {
                return false;
            }
        }
        self.open_len > wanted
    }

    /// Closes up to `DESCRIPTORS_SPARE` idle sockets, to free descriptors and memory. Returns false
    /// if there are none.
    pub(super) fn close_some_idle(&mut self, kernel: &mut K) -> bool {
        (0..limits::DESCRIPTORS_SPARE).filter(|_| self.close_idle(kernel)).count() > 0
    }

    /// Reads the outcome of the probe of a socket, if it has one.
    fn check(&mut self, kernel: &mut K, index: u32) -> Option<ProbeOutcome> {
        let slot = self.slots.get(index as usize)?.as_ref()?;
        let probe = slot.probe?;
        let step = kernel.check_probe(&slot.socket, &slot.to);
        self.finish(kernel, index, step).map(|outcome| ProbeOutcome { probe, outcome })
    }

    fn has_probe(&self, index: u32) -> bool {
        let slot = self.slots.get(index as usize).and_then(Option::as_ref);
        slot.is_some_and(|slot| slot.probe.is_some())
    }

    /// Handles the result of a check. If the probe has ended, the socket becomes idle or is closed,
    /// and the outcome is returned.
    fn finish(&mut self, kernel: &mut K, index: u32, step: ProbeStep) -> Option<Outcome> {
        match step {
            ProbeStep::Pending => None,
            ProbeStep::ReuseRefused => {
                self.stop_reuse(kernel);
                self.release(index);
                self.close(kernel, index);
                Some(Outcome::Shortage(Shortage::Unknown))
            }
            // The socket is connected, or its state is unknown: an unreachable target and a failure
            // of the call itself may have the same errno. It must be reset before it is used again.
            ProbeStep::Over(
                outcome @ (Outcome::Connected | Outcome::SelfConnect | Outcome::Unreachable),
            ) => {
                self.give_up(kernel, index);
                Some(outcome)
            }
            // The call itself failed, so the outcome of this connect may still be pending in the
            // socket, and would be mistaken for the outcome of the next probe.
            ProbeStep::Over(outcome @ Outcome::Shortage(_)) => {
                self.release(index);
                self.close(kernel, index);
                Some(outcome)
            }
            ProbeStep::Over(outcome @ (Outcome::Refused | Outcome::TimedOut)) => {
                self.release(index);
                self.make_idle(kernel, index);
                Some(outcome)
            }
        }
    }

    /// Removes the probe from a socket, and resets the socket so that it can be used again. If that
    /// is not possible, the socket is closed.
    fn give_up(&mut self, kernel: &mut K, index: u32) {
        self.release(index);
        if self.may_reuse && kernel.give_up_probe(&self.slot(index).socket) {
            return self.make_idle(kernel, index);
        }
        let slot = self.vacate(index);
        kernel.reset(slot.socket);
    }

    /// Selects a socket for a probe: an idle one, or else a new one. If the outcome is expected
    /// immediately, a socket that is not registered with the poller is preferred, because it causes
    /// no event.
    fn select(
        &mut self,
        kernel: &mut K,
        to: &SocketAddr,
        check: CompletionCheck,
    ) -> Result<u32, Outcome> {
        let idle = &mut self.idle[usize::from(to.is_ipv6())];
        let first = usize::from(check != CompletionCheck::AtOnce);
        match idle[first].pop().or_else(|| idle[1 - first].pop()) {
            Some(index) => Ok(index),
            None => self.open(kernel, to),
        }
    }

    /// Opens a socket for a probe.
    fn open(&mut self, kernel: &mut K, to: &SocketAddr) -> Result<u32, Outcome> {
        let source = match to {
            SocketAddr::V4(_) => self.sources.v4,
            SocketAddr::V6(_) => self.sources.v6,
        };
        if self.open_len >= self.sockets_max {
            self.close_idle(kernel);
        }
        let socket = match kernel.open_probe(to, source) {
            Err(Outcome::Shortage(_)) if self.close_idle(kernel) => kernel.open_probe(to, source),
            opened => opened,
        }?;
        let to = SocketAddr::from(([0; 4], 0));
        let slot = ProbeSocket {
            socket,
            probe: None,
            to,
            is_registered: false,
            may_hold_error: false,
            past: Past::New,
        };
        self.open_len += 1;
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

    /// Begins to connect a socket.
    fn connect(&mut self, kernel: &mut K, index: u32, to: &SocketAddr) -> ProbeStep {
        let slot = self.slot_mut(index);
        let step = kernel.start_probe(&slot.socket, to, slot.past);
        slot.past = Past::Used;
        step
    }

    fn assign(&mut self, index: u32, probe: Key, to: SocketAddr) {
        let slot = self.slot_mut(index);
        assert!(slot.probe.is_none(), "a socket gets a probe only while it is idle");
        assert!(probe.index() < TOKEN, "the index of a key has no bit of the engine's tokens");
        slot.probe = Some(probe);
        slot.to = to;
        if self.by_probe.len() <= probe.index() {
            self.by_probe.resize(probe.index() + 1, 0);
        }
        self.by_probe[probe.index()] = index + 1;
    }

    /// Removes the probe from a socket.
    fn release(&mut self, index: u32) {
        if let Some(probe) = self.slot_mut(index).probe.take() {
            self.by_probe[probe.index()] = 0;
        }
    }

    /// Makes a socket idle that can be connected again. Without reuse it is closed.
    ///
    /// A connect to an address with a zone binds the socket to the interface for ever, as with
    /// SO_BINDTODEVICE (`tcp_v6_connect` in the kernel), so such a socket reaches no other target.
    fn make_idle(&mut self, kernel: &mut K, index: u32) {
        let slot = self.slot(index);
        let is_bound = matches!(slot.to, SocketAddr::V6(to) if to.scope_id() != 0);
        if self.may_reuse && !is_bound {
            let is_v6 = usize::from(slot.to.is_ipv6());
            self.idle[is_v6][usize::from(slot.is_registered)].push(index);
        } else {
            self.close(kernel, index);
        }
    }

    fn slot_of(&self, probe: Key) -> Option<u32> {
        let index = self.by_probe.get(probe.index())?.checked_sub(1)?;
        (self.slot(index).probe == Some(probe)).then_some(index)
    }

    fn close(&mut self, kernel: &mut K, index: u32) {
        let slot = self.vacate(index);
        kernel.close(slot.socket);
    }

    /// Removes a socket from its slot.
    fn vacate(&mut self, index: u32) -> ProbeSocket<K::Socket> {
        let Some(slot) = self.slots[index as usize].take() else {
            unreachable!("a socket is closed once");
        };
        self.vacant.push(index);
        self.open_len -= 1;
        slot
    }

    fn slot(&self, index: u32) -> &ProbeSocket<K::Socket> {
        match &self.slots[index as usize] {
            Some(slot) => slot,
            None => unreachable!("an idle socket, and one with a probe, is open"),
        }
    }

    fn slot_mut(&mut self, index: u32) -> &mut ProbeSocket<K::Socket> {
        match &mut self.slots[index as usize] {
            Some(slot) => slot,
            None => unreachable!("an idle socket, and one with a probe, is open"),
        }
    }

    /// Closes one idle socket. Returns false if there is none.
    fn close_idle(&mut self, kernel: &mut K) -> bool {
        let index = self.idle.iter_mut().flatten().find_map(Vec::pop);
        if let Some(index) = index {
            self.close(kernel, index);
        }
        index.is_some()
    }

    /// Stops the reuse of sockets after the kernel has refused it, and closes all idle ones.
    fn stop_reuse(&mut self, kernel: &mut K) {
        self.was_reuse_refused |= self.may_reuse;
        self.may_reuse = false;
        while self.close_idle(kernel) {}
    }
}
