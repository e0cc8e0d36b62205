//! The ports of a simulated host: which of them are open, closed, silent or rejected.
//!
//! Pure. A named port beats every rule, an earlier rule beats a later one, and what is left
//! behaves like the rest.

use std::collections::BTreeMap;

use super::link::Random;
use super::wire::Unreachable;

/// What stands behind a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Port {
    /// Completes the handshake, and answers a FIN.
    Open,
    /// Answers with a RST.
    Closed,
    /// Answers nothing: a firewall that drops.
    Silent,
    /// Answers with an ICMP error: a firewall that rejects, or a router.
    Unreachable(Unreachable),
}

/// What stands behind each of a host's ports.
#[derive(Clone, Debug)]
pub(crate) struct Ports {
    named: BTreeMap<u16, Port>,
    rules: Vec<(Rule, Port)>,
    rest: Port,
}

/// Which ports a rule is about.
#[derive(Clone, Copy, Debug)]
enum Rule {
    /// Those whose number this divides.
    Every(u16),
    /// Those whose place is in here; the places of all ports are spread evenly over 0 to 1.
    Places { from: f64, to: f64 },
}

impl Ports {
    /// Every port behaves so.
    pub(crate) fn new(rest: Port) -> Self {
        Self { named: BTreeMap::new(), rules: Vec::new(), rest }
    }

    pub(crate) fn name(&mut self, numbers: &[u16], port: Port) {
        self.named.extend(numbers.iter().map(|number| (*number, port)));
    }

    /// Every `step`-th port behaves so.
    pub(crate) fn every(&mut self, step: u16, port: Port) {
        assert_ne!(step, 0, "every port is a step of one");
        self.rules.push((Rule::Every(step), port));
    }

    /// This share of the ports, spread at random, behaves so. Shares add up: a second one takes
    /// other ports, as long as there are some.
    pub(crate) fn share(&mut self, share: f64, port: Port) {
        let ends = self.rules.iter().map(|(rule, _)| match rule {
            Rule::Every(_) => 0.0,
            Rule::Places { to, .. } => *to,
        });
        let from = ends.fold(0.0, f64::max);
        self.rules.push((Rule::Places { from, to: from + share }, port));
    }

    pub(crate) fn rest(&mut self, rest: Port) {
        self.rest = rest;
    }

    /// What stands behind the port of this number.
    pub(super) fn find(&self, number: u16) -> Port {
        if let Some(port) = self.named.get(&number) {
            return *port;
        }
        let is_meant = |rule: &Rule| match *rule {
            Rule::Every(step) => number.is_multiple_of(step),
            Rule::Places { from, to } => (from..to).contains(&Random::new(number.into()).share()),
        };
        let rule = self.rules.iter().find(|(rule, _)| is_meant(rule));
        rule.map_or(self.rest, |(_, port)| *port)
    }
}
