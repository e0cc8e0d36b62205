//! Parses the command line of the lab.

use std::error::Error;
use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::{NonZeroU16, NonZeroU32};
use std::time::Duration;

use lexopt::{Arg, ValueExt};

use crate::lab::{
    self, Ban, Bursts, DownAfter, HOST_ADDRESS, HalfOpenTable, Host, Link, Medium, Outages, Port,
    Reorder, RttChange, Unreachable,
};

pub(crate) const HELP: &str = "\
Runs a command in its own network namespace with simulated hosts.

    cargo bench --bench lab -- [OPTION…] -- COMMAND [ARGUMENT…]
    cargo bench --bench lab -- [OPTION…] --capacity

In an argument, {target} is replaced by the first address, {last} by the last one, and {targets} by
the path of a file with one address per line. No packet leaves this machine.

The hosts, which are all equal:
    --hosts N           number of consecutive addresses to scan [1]
    --alive N           number of these addresses that have a host, evenly spread [all]
    --on-link           the addresses are neighbours on an Ethernet device, with ARP or neighbour
                        discovery, which only addresses with a host answer
    --address A         the first address, of 10.99.0.0/16 or fd99::/64; this machine has 10.99.0.1
                        and fd99::1, which no host can have [10.99.1.1]
    --rtt D             round trip, as 50ms or 1.5s [0]
    --rtt-change T:D    the round trip changes to D at T after the first packet
    --loss S            share of packets lost in each direction, as 5% or 0.05 [0]
    --loss-to S         the same, only in the direction to the host
    --loss-from S       the same, only in the direction back
    --open PORTS        open ports [none]
    --ports PORTS=KIND  kind of these ports; may be repeated. A named port takes precedence over
                        every: and share:, and an earlier one of these over a later one
    --rest KIND         kind of all other ports [closed]
    --rst-limit N       maximum RSTs per second
    --syn-limit N       maximum SYNs per second that reach the host
    --down-after D|N    silent from D after the first packet, or after N packets
    --up-after D        silent until D after the first packet
    --outages D:D       answers for the first time, is silent for the second, and repeats this

The link, which all hosts share:
    --rate N            a bottleneck of N packets per second in each direction [none]
    --rate-to N         the same, only in the direction to the host
    --rate-from N       the same, only in the direction back
    --queue N           maximum packets that wait in each direction; more are dropped [100]
    --burst-loss T:S:D  for a share T of the time, in bursts with a mean of D, a share S of the
                        packets is lost in each direction: 1%:80%:200ms
    --burst-loss-to, --burst-loss-from  the same, only in one direction
    --jitter D          random delay of each answer, at most D, which can reorder answers
    --reorder S:D       a share S of the answers takes D longer
    --duplicate S       a share S of the answers arrives twice
    --half-open N:D     a middlebox with N entries for half-open connections, each for D
    --ban N:D           a firewall that drops all packets for D after more than N SYNs in a second

    --seed N            seed of the random numbers [1]
    --capacity          measures how many SYNs per second the lab can handle; needs no command

KIND is closed, silent, open, network-unreachable, host-unreachable, port-unreachable or
prohibited. PORTS is 10 (ten ports spread over all), a list with ranges (22,80,8000-8100),
every:N (each N-th port) or share:S (that share of them, at random).

The lab's statistics go to stderr. The exit code is that of the command, or 69 if the lab is not
available.";

pub(crate) struct Options {
    /// The first host.
    pub(crate) host: Host,
    /// The number of addresses to scan, beginning with that of the first host.
    addresses: u32,
    /// The number of addresses that have a host, evenly spread. `None` means all.
    alive: Option<u32>,
    pub(crate) medium: Medium,
    pub(crate) link: Link,
    pub(crate) action: Action,
}

pub(crate) enum Action {
    Help,
    Capacity,
    /// The program and its arguments, in which `{target}` is not replaced yet.
    Command(OsString, Vec<OsString>),
}

impl Options {
    pub(crate) fn parse(words: Vec<OsString>) -> Result<Self, Box<dyn Error>> {
        let mut parser = lexopt::Parser::from_args(words);
        let mut options = Self {
            host: Host::new(HOST_ADDRESS),
            addresses: 1,
            alive: None,
            medium: Medium::PointToPoint,
            link: Link::default(),
            action: Action::Help,
        };
        while let Some(argument) = parser.next()? {
            let name = match argument {
                Arg::Long("help") | Arg::Short('h') => break,
                Arg::Long("capacity") => return Ok(Self { action: Action::Capacity, ..options }),
                Arg::Long("on-link") => {
                    options.medium = Medium::Ethernet;
                    continue;
                }
                Arg::Long(name) => name.to_owned(),
                Arg::Short(_) => return Err(argument.unexpected().into()),
                Arg::Value(program) => {
                    let action = Action::Command(program, parser.raw_args()?.collect());
                    return Ok(Self { action, ..options });
                }
            };
            let value = parser.value()?.string()?;
            let applied = options.apply(&name, &value);
            applied.map_err(|error| format!("--{name} {value}: {error}"))?;
        }
        Ok(options)
    }

    fn apply(&mut self, name: &str, value: &str) -> Result<(), Box<dyn Error>> {
        match name {
            "hosts" => self.addresses = value.parse::<NonZeroU32>()?.get(),
            "alive" => self.alive = Some(value.parse::<NonZeroU32>()?.get()),
            "seed" => {
                self.host.seed = value.parse()?;
                self.link.seed = self.host.seed;
            }
            _ if name.starts_with("rate") || name == "queue" => {
                apply_to_bottleneck(&mut self.link, name, value)?;
            }
            _ if apply_to_link(&mut self.link, name, value)? => {}
            _ => apply_to_host(&mut self.host, name, value)?,
        }
        Ok(())
    }

    /// Returns the addresses to scan, in order.
    pub(crate) fn addresses(&self) -> Result<Vec<IpAddr>, Box<dyn Error>> {
        let first = self.host.address;
        let addresses: Vec<IpAddr> = (0..self.addresses)
            .map(|number| match first {
                IpAddr::V4(first) => Ipv4Addr::from(u32::from(first) + number).into(),
                IpAddr::V6(first) => Ipv6Addr::from(u128::from(first) + u128::from(number)).into(),
            })
            .collect();
        let own: [IpAddr; 2] = [lab::OWN_ADDRESS.into(), lab::OWN_ADDRESS_6.into()];
        match addresses.iter().find(|address| !is_in_lab(**address) || own.contains(address)) {
            Some(address) if own.contains(address) => {
                Err(format!("the address {address} is that of this machine in the lab").into())
            }
            Some(address) => {
                Err(format!("the address {address} is not in 10.99.0.0/16 or fd99::/64").into())
            }
            None => Ok(addresses),
        }
    }

    /// Returns the hosts at those addresses, which differ only in the seed of their losses.
    pub(crate) fn hosts(&self) -> Result<Vec<Host>, Box<dyn Error>> {
        let addresses = self.addresses()?;
        let count = self.alive.map_or(addresses.len(), |alive| alive as usize);
        if count > addresses.len() {
            return Err(format!("--alive {count}: there are --hosts {}", addresses.len()).into());
        }
        let host = |number: usize| {
            let seed = self.host.seed.wrapping_add(number as u64);
            Host { address: addresses[number * addresses.len() / count], seed, ..self.host.clone() }
        };
        Ok((0..count).map(host).collect())
    }
}

fn is_in_lab(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.octets()[..2] == lab::OWN_ADDRESS.octets()[..2],
        IpAddr::V6(address) => address.segments()[..4] == lab::OWN_ADDRESS_6.segments()[..4],
    }
}

fn apply_to_host(host: &mut Host, name: &str, value: &str) -> Result<(), Box<dyn Error>> {
    match name {
        "address" => host.address = value.parse::<IpAddr>()?,
        "rtt" => host.rtt = duration(value)?,
        "rtt-change" => {
            let (after, rtt) = halves(value, "T:D")?;
            host.rtt_change = Some(RttChange { after: duration(after)?, rtt: duration(rtt)? });
        }
        "loss" => *host = host.clone().loss(share(value)?),
        "loss-to" => host.loss_to = share(value)?,
        "loss-from" => host.loss_from = share(value)?,
        "open" => set_ports(host, value, Port::Open)?,
        "ports" => {
            let (ports, kind) = value.split_once('=').ok_or("it is not PORTS=KIND")?;
            set_ports(host, ports, port_kind(kind)?)?;
        }
        "rest" => *host = host.clone().rest(port_kind(value)?),
        "rst-limit" => host.rst_per_second = Some(value.parse()?),
        "syn-limit" => host.syn_per_second = Some(value.parse()?),
        "down-after" => {
            host.down_after = Some(match value.parse() {
                Ok(packets) => DownAfter::Packets(packets),
                Err(_) => DownAfter::Time(duration(value)?),
            });
        }
        "up-after" => host.up_after = Some(duration(value)?),
        "outages" => {
            let (up, down) = halves(value, "D:D")?;
            host.outages = Some(Outages { up: duration(up)?, down: duration(down)? });
        }
        _ => return Err("there is no such option".into()),
    }
    Ok(())
}

fn apply_to_bottleneck(link: &mut Link, name: &str, value: &str) -> Result<(), Box<dyn Error>> {
    let rate = || Ok::<_, Box<dyn Error>>(value.parse::<NonZeroU32>()?.get());
    match name {
        "rate" => {
            link.to.packets_per_second = Some(rate()?);
            link.from.packets_per_second = Some(rate()?);
        }
        "rate-to" => link.to.packets_per_second = Some(rate()?),
        "rate-from" => link.from.packets_per_second = Some(rate()?),
        "queue" => {
            link.to.queue_packets = value.parse()?;
            link.from.queue_packets = link.to.queue_packets;
        }
        _ => return Err("there is no such option".into()),
    }
    Ok(())
}

/// Applies another option of the link. Returns false if the link has no option of this name.
fn apply_to_link(link: &mut Link, name: &str, value: &str) -> Result<bool, Box<dyn Error>> {
    match name {
        "burst-loss" => {
            link.to.bursts = Some(bursts(value)?);
            link.from.bursts = link.to.bursts;
        }
        "burst-loss-to" => link.to.bursts = Some(bursts(value)?),
        "burst-loss-from" => link.from.bursts = Some(bursts(value)?),
        "jitter" => link.jitter = duration(value)?,
        "reorder" => {
            let (part, delay) = halves(value, "S:D")?;
            link.reorder = Some(Reorder { share: share(part)?, delay: duration(delay)? });
        }
        "duplicate" => link.duplicates = share(value)?,
        "half-open" => {
            let (entries, lifetime) = halves(value, "N:D")?;
            let (entries, lifetime) = (entries.parse()?, duration(lifetime)?);
            link.half_open = Some(HalfOpenTable { entries, lifetime });
        }
        "ban" => {
            let (syns, time) = halves(value, "N:D")?;
            let (syns_per_second, duration) = (syns.parse()?, duration(time)?);
            link.ban = Some(Ban { syns_per_second, duration });
        }
        _ => return Ok(false),
    }
    Ok(true)
}

fn halves<'a>(text: &'a str, form: &str) -> Result<(&'a str, &'a str), Box<dyn Error>> {
    text.split_once(':').ok_or_else(|| format!("it is not {form}").into())
}

/// Parses `1%:80%:200ms`: the share of time, the share of packets lost, and the mean duration.
fn bursts(text: &str) -> Result<Bursts, Box<dyn Error>> {
    let form = "TIME:LOSS:D";
    let (time, rest) = halves(text, form)?;
    let (loss, mean) = halves(rest, form)?;
    let bursts = Bursts { time: share(time)?, loss: share(loss)?, duration: duration(mean)? };
    if bursts.time == 0.0 || bursts.time == 1.0 || bursts.duration.is_zero() {
        return Err("the time must be above 0 and below 100%, and D above 0".into());
    }
    Ok(bursts)
}

fn duration(text: &str) -> Result<Duration, Box<dyn Error>> {
    let (number, unit) = match text.strip_suffix("ms") {
        Some(number) => (number, 1e-3),
        None => (text.strip_suffix('s').unwrap_or(text), 1.0),
    };
    Ok(Duration::try_from_secs_f64(number.parse::<f64>()? * unit)?)
}

fn share(text: &str) -> Result<f64, Box<dyn Error>> {
    let share = match text.strip_suffix('%') {
        Some(percent) => percent.parse::<f64>()? / 100.0,
        None => text.parse()?,
    };
    if (0.0..=1.0).contains(&share) { Ok(share) } else { Err("not between 0 and 100%".into()) }
}

fn set_ports(host: &mut Host, text: &str, port: Port) -> Result<(), Box<dyn Error>> {
    let old = host.clone();
    *host = if let Some(step) = text.strip_prefix("every:") {
        old.every(step.parse::<NonZeroU16>()?.get(), port)
    } else if let Some(part) = text.strip_prefix("share:") {
        old.share(share(part)?, port)
    } else {
        old.ports(&port_list(text)?, port)
    };
    Ok(())
}

fn port_list(text: &str) -> Result<Vec<u16>, Box<dyn Error>> {
    if text == "10" {
        return Ok(lab::TEN_PORTS.to_vec());
    }
    let mut ports = Vec::new();
    for part in text.split(',') {
        match part.split_once('-') {
            Some((first, last)) => ports.extend(first.parse::<u16>()?..=last.parse()?),
            None => ports.push(part.parse()?),
        }
    }
    Ok(ports)
}

fn port_kind(text: &str) -> Result<Port, Box<dyn Error>> {
    Ok(match text {
        "open" => Port::Open,
        "closed" => Port::Closed,
        "silent" => Port::Silent,
        "network-unreachable" => Port::Unreachable(Unreachable::Network),
        "host-unreachable" => Port::Unreachable(Unreachable::Host),
        "port-unreachable" => Port::Unreachable(Unreachable::Port),
        "prohibited" => Port::Unreachable(Unreachable::Prohibited),
        _ => return Err("there is no such kind of port".into()),
    })
}
