//! The raw socket of one IP version, with the SYNs that are to be sent through it.
//!
//! If the send buffer is full, the SYNs wait until the poller reports space. They wait for at most
//! [`BLOCKED_MAX`], because the silence of a port must not be concluded from a SYN that never left.
//! This module does not know the probes in flight. `syn_engine` drives it.
//!
//! Invariant: `batch` and `probes` have the same length, at most `RAW_BATCH`.

use std::time::Duration;

use super::super::probe::ProbeOutcome;
use crate::event::{Outcome, SynCounts};
use crate::kernel::{Kernel, RAW_BATCH, RawPacket, RawSendStep, Readiness};
use crate::packet::syn::{SYN_BYTES_MAX, Syn};
use crate::slots::Key;

/// The maximum time for which SYNs wait because the send buffer is full. It is shorter than the
/// time after which a SYN is repeated. A buffer of the default size drains in this time at 600
/// packets per second.
pub(super) const BLOCKED_MAX: Duration = Duration::from_millis(500);

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Channel<S> {
    pub(super) socket: S,
    batch: Vec<RawPacket>,
    /// The probes of the packets in `batch`, in the same order.
    probes: Vec<Key>,
    /// Whether segments may wait: the poller reported some, and no call has found none since.
    pub(super) may_receive: bool,
    /// The same for ICMP errors in the error queue of the socket.
    pub(super) may_receive_errors: bool,
    /// The time in milliseconds since which the send buffer is full; `None` while it is not.
    blocked_at: Option<u32>,
}

impl<S> Channel<S> {
    pub(super) fn new(socket: S) -> Self {
        Self {
            socket,
            batch: Vec::with_capacity(RAW_BATCH),
            probes: Vec::with_capacity(RAW_BATCH),
            may_receive: false,
            may_receive_errors: false,
            blocked_at: None,
        }
    }

    /// Stores the readiness that the poller has reported.
    pub(super) const fn handle_readiness(&mut self, ready: &Readiness) {
        self.may_receive |= ready.is_readable;
        self.may_receive_errors |= ready.is_error;
        if ready.is_writable {
            self.blocked_at = None;
        }
    }

    /// Adds a SYN to the batch, which must not be full.
    pub(super) fn push(&mut self, probe: Key, syn: Syn) {
        let mut outgoing = RawPacket { bytes: [0; SYN_BYTES_MAX], len: 0, to: syn.tuple.remote };
        outgoing.len = syn.write(&mut outgoing.bytes);
        self.batch.push(outgoing);
        self.probes.push(probe);
    }

    /// Sends the batch, as far as the send buffer has space. Returns the outcomes of the probes
    /// whose SYNs cannot be sent.
    pub(super) fn send<K: Kernel<RawSocket = S>>(
        &mut self,
        kernel: &mut K,
        counts: &mut SynCounts,
        now: u32,
    ) -> Vec<ProbeOutcome> {
        let (mut done, mut failed) = (0, Vec::new());
        while self.blocked_at.is_none() && done < self.batch.len() {
            match kernel.send_raw(&self.socket, &self.batch[done..]) {
                RawSendStep::Sent(count) => {
                    counts.sent += count as u64;
                    done += count;
                }
                RawSendStep::WouldBlock => self.blocked_at = Some(now),
                RawSendStep::Dropped => {
                    counts.denied += 1;
                    done += 1;
                }
                RawSendStep::Failed(outcome @ Outcome::Shortage(_)) => {
                    // The packets that follow would fail for the same shortage.
                    let probes = self.probes[done..].iter();
                    failed.extend(probes.map(|probe| ProbeOutcome { probe: *probe, outcome }));
                    done = self.batch.len();
                }
                RawSendStep::Failed(outcome) => {
                    failed.push(ProbeOutcome { probe: self.probes[done], outcome });
                    done += 1;
                }
            }
        }
        self.batch.drain(..done);
        self.probes.drain(..done);
        failed
    }

    /// Discards the batch, and returns the probes of its SYNs. From then on SYNs are sent again, in
    /// case that the poller does not report the space.
    pub(super) fn give_up(&mut self) -> impl Iterator<Item = Key> {
        self.blocked_at = None;
        self.batch.clear();
        self.probes.drain(..)
    }

    /// Whether the batch has no space for another SYN.
    pub(super) const fn is_full(&self) -> bool {
        self.batch.len() >= RAW_BATCH
    }

    /// Whether there is work that does not need a new event of the poller.
    pub(super) const fn has_work(&self) -> bool {
        let may_send = self.blocked_at.is_none() && !self.batch.is_empty();
        self.may_receive || self.may_receive_errors || may_send
    }

    /// The number of milliseconds from `now` until the SYNs in the batch have waited for
    /// [`BLOCKED_MAX`]; `None` while none waits for space.
    pub(super) fn blocked_wait(&self, now: u32) -> Option<u32> {
        let blocked = now.wrapping_sub(self.blocked_at?);
        Some((BLOCKED_MAX.as_millis() as u32).saturating_sub(blocked))
    }
}
