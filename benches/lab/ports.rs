//! The states of a simulated host's ports: open, closed, silent or rejected.
//!
//! Pure. A named port takes precedence over every rule, and an earlier rule over a later one. All
//! other ports have the state `rest`.

use std::collections::BTreeMap;

use super::link::Random;
use super::wire::Unreachable;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Port {
    /// The port completes the handshake, and answers a FIN.
    Open,
    /// The port answers with a RST.
    Closed,
    /// The port does not answer, like behind a firewall that drops packets.
    Silent,
    /// A router or a firewall answers with an ICMP error.
    Unreachable(Unreachable),
}

#[derive(Clone, Debug)]
pub(crate) struct Ports {
    named: BTreeMap<u16, Port>,
    rules: Vec<(Rule, Port)>,
    rest: Port,
}

#[derive(Clone, Copy, Debug)]
enum Rule {
    /// Ports whose number is a multiple of this one.
    Every(u16),
    /// Ports whose hash is in this range; the hashes are uniformly distributed from 0 to 1.
    Hashes { from: f64, to: f64 },
}

impl Ports {
    /// Returns ports that all have this state.
    pub(crate) fn new(rest: Port) -> Self {
        Self { named: BTreeMap::new(), rules: Vec::new(), rest }
    }

    pub(crate) fn name(&mut self, numbers: &[u16], port: Port) {
        self.named.extend(numbers.iter().map(|number| (*number, port)));
    }

    /// Adds a rule for every `step`-th port.
    pub(crate) fn every(&mut self, step: u16, port: Port) {
        assert_ne!(step, 0, "the step must not be zero");
        self.rules.push((Rule::Every(step), port));
    }

    /// Adds a rule for this share of the ports, chosen at random. Shares add up: a second one
    /// applies to other ports, as long as some are left.
    pub(crate) fn share(&mut self, share: f64, port: Port) {
        let ends = self.rules.iter().map(|(rule, _)| match rule {
            Rule::Every(_) => 0.0,
            Rule::Hashes { to, .. } => *to,
        });
        let from = ends.fold(0.0, f64::max);
        self.rules.push((Rule::Hashes { from, to: from + share }, port));
    }

    pub(crate) fn rest(&mut self, rest: Port) {
        self.rest = rest;
    }

    pub(super) fn find(&self, number: u16) -> Port {
        if let Some(port) = self.named.get(&number) {
            return *port;
        }
        let applies = |rule: &Rule| match *rule {
            Rule::Every(step) => number.is_multiple_of(step),
            Rule::Hashes { from, to } => (from..to).contains(&Random::new(number.into()).share()),
        };
        let rule = self.rules.iter().find(|(rule, _)| applies(rule));
        rule.map_or(self.rest, |(_, port)| *port)
    }
}
