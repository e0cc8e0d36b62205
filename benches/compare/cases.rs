//! The networks that the tools are compared over. Each has the same ten open ports of 65,535.

use std::io;
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::time::Duration;

use crate::lab::{HOST_ADDRESS, Host, Lab, Network, Port, TEN_PORTS};

/// One network to scan.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case {
    /// One word, for the command line and for file names.
    pub(crate) name: &'static str,
    /// What it is, for a reader.
    pub(crate) about: &'static str,
    /// `None`: loopback, with real listeners.
    far: Option<Far>,
}

/// A host of the lab.
#[derive(Clone, Copy, Debug)]
struct Far {
    rtt_ms: u64,
    /// Share of the packets lost, each way.
    loss: f64,
    rest: Port,
    rst_per_second: Option<u32>,
}

const NEAR: Far = Far { rtt_ms: 0, loss: 0.0, rest: Port::Closed, rst_per_second: None };

/// Every case, in the order of the report.
pub(crate) const CASES: [Case; 7] = [
    Case { name: "loopback", about: "loopback, rest closed", far: None },
    Case {
        name: "near-closed",
        about: "another host at no distance, rest closed",
        far: Some(NEAR),
    },
    Case {
        name: "far-closed",
        about: "50 ms away, rest closed",
        far: Some(Far { rtt_ms: 50, ..NEAR }),
    },
    Case {
        name: "far-silent",
        about: "50 ms away, rest silent",
        far: Some(Far { rtt_ms: 50, rest: Port::Silent, ..NEAR }),
    },
    Case {
        name: "lossy-closed",
        about: "50 ms away, 5 % loss each way, rest closed",
        far: Some(Far { rtt_ms: 50, loss: 0.05, ..NEAR }),
    },
    Case {
        name: "lossy-silent",
        about: "50 ms away, 20 % loss each way, rest silent",
        far: Some(Far { rtt_ms: 50, loss: 0.2, rest: Port::Silent, ..NEAR }),
    },
    Case {
        name: "limited",
        about: "20 ms away, 1,000 RST a second at most, rest closed",
        far: Some(Far { rtt_ms: 20, rst_per_second: Some(1000), ..NEAR }),
    },
];

impl Case {
    /// The case of this name.
    pub(crate) fn find(name: &str) -> Option<Self> {
        CASES.into_iter().find(|case| case.name == name)
    }

    /// The address to scan.
    pub(crate) fn target(&self) -> IpAddr {
        self.far.map_or(Ipv4Addr::LOCALHOST, |_| HOST_ADDRESS).into()
    }

    /// True exactly when every port answers at once, so that a tool that waits for one port after
    /// the other ends at all.
    pub(crate) fn is_prompt(&self) -> bool {
        self.far.is_none_or(|far| far.rtt_ms == 0 && far.rest == Port::Closed)
    }

    /// Brings the network to life. `round` seeds its losses: the same for every tool of a round.
    pub(crate) fn start(&self, network: Network, round: u64) -> io::Result<Scene> {
        let listeners = match self.far {
            Some(_) => Vec::new(),
            None => TEN_PORTS
                .into_iter()
                .map(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)))
                .collect::<io::Result<_>>()?,
        };
        let hosts = self.far.map(|far| {
            let rtt = Duration::from_millis(far.rtt_ms);
            let host = Host::new(HOST_ADDRESS).rtt(rtt).loss(far.loss).rest(far.rest);
            let host = host.ports(&TEN_PORTS, Port::Open);
            Host { rst_per_second: far.rst_per_second, seed: round, ..host }
        });
        let lab = network.start(hosts.into_iter().collect())?;
        Ok(Scene { lab, _listeners: listeners })
    }
}

/// A network at work, until it is dropped.
#[derive(Debug)]
pub(crate) struct Scene {
    /// The lab; on loopback it has no host.
    pub(crate) lab: Lab,
    _listeners: Vec<TcpListener>,
}
