//! The networks of the comparison. Most have one host with ten open ports of 65,535.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::time::Duration;

use crate::lab::{Bursts, Direction, HOST_ADDRESS, Host, Lab, Link, Network, Port, TEN_PORTS};
use crate::veth::Veth;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Case {
    /// The name on the command line and in file names.
    pub(crate) name: &'static str,
    /// The description in the report.
    pub(crate) about: &'static str,
    place: Place,
}

#[derive(Clone, Copy, Debug)]
enum Place {
    Loopback,
    /// Real listeners in another network namespace, connected by a veth pair.
    Veth,
    Far(Far),
}

/// Equal hosts of the lab, and the link to them.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Far {
    /// The number of scanned addresses, from [`HOST_ADDRESS`] on. Each has a host.
    hosts: u32,
    /// The first and the last scanned port.
    ports: (u16, u16),
    /// The open ports of every `open_step`-th host.
    open: &'static [u16],
    open_step: u32,
    rtt_ms: u64,
    /// The share of packets lost in each direction.
    loss: f64,
    rest: Port,
    is_half_silent: bool,
    rst_per_second: Option<u32>,
    /// The bottleneck of each direction: packets per second, and the length of its queue.
    bottleneck: Option<(u32, u32)>,
    bursts: Option<Bursts>,
}

const NEAR: Far = Far {
    hosts: 1,
    ports: (1, u16::MAX),
    open: &TEN_PORTS,
    open_step: 1,
    rtt_ms: 0,
    loss: 0.0,
    rest: Port::Closed,
    is_half_silent: false,
    rst_per_second: None,
    bottleneck: None,
    bursts: None,
};
const NARROW: Far = Far { rtt_ms: 20, bottleneck: Some((10_000, 200)), ..NEAR };
const MIXED: Far = Far { is_half_silent: true, ..NEAR };
/// 20,000 hosts with one silent port each.
const HOSTS: Far =
    Far { hosts: 20_000, ports: (80, 80), open: &[], rtt_ms: 20, rest: Port::Silent, ..NEAR };
const BURSTS: Bursts = Bursts { time: 0.01, loss: 0.8, duration: Duration::from_millis(200) };

/// All cases in the order of the report.
pub(crate) const CASES: [Case; 20] = [
    Case { name: "loopback", about: "loopback, rest closed", place: Place::Loopback },
    Case {
        name: "veth",
        about: "another network namespace over a veth pair, rest closed",
        place: Place::Veth,
    },
    Case {
        name: "near-closed",
        about: "another host without delay, rest closed",
        place: Place::Far(NEAR),
    },
    Case {
        name: "far-closed",
        about: "50 ms away, rest closed",
        place: Place::Far(Far { rtt_ms: 50, ..NEAR }),
    },
    Case {
        name: "far-silent",
        about: "50 ms away, rest silent",
        place: Place::Far(Far { rtt_ms: 50, rest: Port::Silent, ..NEAR }),
    },
    Case {
        name: "lossy-closed",
        about: "50 ms away, 5 % loss each way, rest closed",
        place: Place::Far(Far { rtt_ms: 50, loss: 0.05, ..NEAR }),
    },
    Case {
        name: "lossy-silent",
        about: "50 ms away, 20 % loss each way, rest silent",
        place: Place::Far(Far { rtt_ms: 50, loss: 0.2, rest: Port::Silent, ..NEAR }),
    },
    Case {
        name: "limited",
        about: "20 ms away, 1,000 RST a second at most, rest closed",
        place: Place::Far(Far { rtt_ms: 20, rst_per_second: Some(1000), ..NEAR }),
    },
    Case {
        name: "narrow-closed",
        about: "20 ms away, 10,000 packets/s with a queue of 200, rest closed",
        place: Place::Far(NARROW),
    },
    Case {
        name: "narrow-silent",
        about: "20 ms away, 10,000 packets/s with a queue of 200, rest silent",
        place: Place::Far(Far { rest: Port::Silent, ..NARROW }),
    },
    Case {
        name: "narrow-small",
        about: "1–1024, three open, 30 ms away, 2,000 packets/s with a queue of 100, rest silent",
        place: Place::Far(Far {
            ports: (1, 1024),
            open: &[22, 80, 443],
            rtt_ms: 30,
            rest: Port::Silent,
            bottleneck: Some((2000, 100)),
            ..NEAR
        }),
    },
    Case {
        name: "mixed",
        about: "20 ms away, 1 % loss each way, every second port silent, rest closed",
        place: Place::Far(Far { rtt_ms: 20, loss: 0.01, ..MIXED }),
    },
    Case {
        name: "mixed-far",
        about: "50 ms away, 0.2 % loss each way, every second port silent, rest closed",
        place: Place::Far(Far { rtt_ms: 50, loss: 0.002, ..MIXED }),
    },
    Case {
        name: "mixed-limited",
        about: "20 ms away, 1,000 RST a second at most, every second port silent, rest closed",
        place: Place::Far(Far { rtt_ms: 20, rst_per_second: Some(1000), ..MIXED }),
    },
    Case {
        name: "mixed-limited-small",
        about: "1–5000, five open, 20 ms away, 1,000 RST a second, every second port silent",
        place: Place::Far(Far {
            ports: (1, 5000),
            open: TEN_PORTS.split_at(5).0,
            rtt_ms: 20,
            rst_per_second: Some(1000),
            ..MIXED
        }),
    },
    Case {
        name: "bursts-silent",
        about: "50 ms away, 80 % loss in bursts of 200 ms, 1 % of the time, rest silent",
        place: Place::Far(Far { rtt_ms: 50, rest: Port::Silent, bursts: Some(BURSTS), ..NEAR }),
    },
    Case {
        name: "bursts-mixed",
        about: "50 ms away, the same bursts, every second port silent, rest closed",
        place: Place::Far(Far { rtt_ms: 50, bursts: Some(BURSTS), ..MIXED }),
    },
    Case {
        name: "hosts-silent",
        about: "20,000 hosts 20 ms away, one port each, all silent",
        place: Place::Far(HOSTS),
    },
    Case {
        name: "hosts",
        about: "20,000 hosts 20 ms away, one port each, open on every hundredth, rest silent",
        place: Place::Far(Far { open: &[80], open_step: 100, ..HOSTS }),
    },
    Case {
        name: "network-silent",
        about: "4,096 hosts without delay, 256 ports each, all silent",
        place: Place::Far(Far { hosts: 4096, ports: (1, 256), rtt_ms: 0, ..HOSTS }),
    },
];

impl Case {
    pub(crate) fn find(name: &str) -> Option<Self> {
        CASES.into_iter().find(|case| case.name == name)
    }

    pub(crate) fn target(&self) -> IpAddr {
        match self.place {
            Place::Loopback => Ipv4Addr::LOCALHOST.into(),
            Place::Veth | Place::Far(_) => HOST_ADDRESS.into(),
        }
    }

    pub(crate) fn targets(&self) -> Vec<IpAddr> {
        match self.place {
            Place::Loopback | Place::Veth => vec![self.target()],
            Place::Far(far) => (0..far.hosts).map(address).collect(),
        }
    }

    pub(crate) fn ports(&self) -> (u16, u16) {
        match self.place {
            Place::Loopback | Place::Veth => NEAR.ports,
            Place::Far(far) => far.ports,
        }
    }

    /// Returns the open ports.
    pub(crate) fn truth(&self) -> BTreeSet<SocketAddr> {
        let (open, step) = match self.place {
            Place::Loopback | Place::Veth => (NEAR.open, NEAR.open_step),
            Place::Far(far) => (far.open, far.open_step),
        };
        let hosts = self.targets().into_iter().step_by(step as usize);
        hosts.flat_map(|host| open.iter().map(move |port| SocketAddr::new(host, *port))).collect()
    }

    /// Returns whether every port answers at once. Only then does a tool that scans one port after
    /// the other end in time.
    pub(crate) fn is_prompt(&self) -> bool {
        match self.place {
            Place::Loopback | Place::Veth => true,
            Place::Far(far) => far == NEAR,
        }
    }

    /// Starts the network. `round` is the seed of its losses, which are the same for all tools of a
    /// round.
    pub(crate) fn start(&self, network: Network, round: u64) -> Result<RunningNetwork, String> {
        let to_text = |error: io::Error| error.to_string();
        match self.place {
            Place::Loopback => {
                let listeners = listen().map_err(to_text)?;
                let lab = network.start(Vec::new()).map_err(to_text)?;
                Ok(RunningNetwork { lab: Some(lab), _veth: None, _listeners: listeners })
            }
            Place::Veth => {
                // The device of the lab has the same address as the veth device.
                drop(network);
                Ok(RunningNetwork {
                    lab: None,
                    _veth: Some(Veth::start()?),
                    _listeners: Vec::new(),
                })
            }
            Place::Far(far) => {
                let hosts = (0..far.hosts).map(|number| far.host(number, round)).collect();
                let lab = network.link(far.link(round)).start(hosts).map_err(to_text)?;
                Ok(RunningNetwork { lab: Some(lab), _veth: None, _listeners: Vec::new() })
            }
        }
    }
}

fn address(number: u32) -> IpAddr {
    Ipv4Addr::from(u32::from(HOST_ADDRESS) + number).into()
}

/// Listens on ten ports of every address of this namespace.
pub(crate) fn listen() -> io::Result<Vec<TcpListener>> {
    let listen = |port| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port));
    TEN_PORTS.into_iter().map(listen).collect()
}

impl Far {
    fn host(&self, number: u32, round: u64) -> Host {
        let seed = round.wrapping_add(u64::from(number));
        let rtt = Duration::from_millis(self.rtt_ms);
        let host = Host::new(address(number)).rtt(rtt).loss(self.loss).rest(self.rest);
        let is_open = number.is_multiple_of(self.open_step);
        let host = if is_open { host.ports(self.open, Port::Open) } else { host };
        let host = if self.is_half_silent { host.every(2, Port::Silent) } else { host };
        Host { rst_per_second: self.rst_per_second, seed, ..host }
    }

    fn link(&self, seed: u64) -> Link {
        let (rate, queue_packets) = self.bottleneck.unzip();
        let unlimited = Direction { bursts: self.bursts, ..Direction::default() };
        let queue_packets = queue_packets.unwrap_or(unlimited.queue_packets);
        let direction = Direction { packets_per_second: rate, queue_packets, ..unlimited };
        Link { to: direction, from: direction, seed, ..Link::default() }
    }
}

#[derive(Debug)]
pub(crate) struct RunningNetwork {
    /// The lab, which has no hosts for the case of loopback.
    pub(crate) lab: Option<Lab>,
    _veth: Option<Veth>,
    _listeners: Vec<TcpListener>,
}
