//! Runs a command against one simulated host, from a shell.
#![expect(clippy::print_stdout, reason = "a command line program reports on stdout")]
#![expect(clippy::print_stderr, reason = "what the lab counted must not mix with the command's")]

#[path = "mod.rs"]
mod lab;

use std::error::Error;
use std::ffi::OsString;
use std::net::IpAddr;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use lab::{Death, HOST_ADDRESS, Host, Lab, Port, Unreachable};
use lexopt::{Arg, ValueExt};

const HELP: &str = "\
Runs a command in a network of its own, where one simulated host is.

    cargo bench --bench lab -- [OPTION…] -- COMMAND [ARGUMENT…]
    cargo bench --bench lab -- [OPTION…] --capacity

{target} in an argument is replaced by the host's address. Nothing leaves this machine.

    --address A       the host's address, of 10.99.0.0/16 or fd99::/64 [10.99.1.1]
    --rtt D           round trip, as 50ms or 1.5s [0]
    --loss S          share of the packets lost each way, as 5% or 0.05 [0]
    --loss-to S       only on the way to the host
    --loss-from S     only on the way back
    --open 10|LIST    ten open ports spread over all, or those named: 22,80,443 [none]
    --rest KIND       all other ports: closed, silent, open, network-unreachable,
                      host-unreachable, port-unreachable, prohibited [closed]
    --rst-limit N     RSTs a second at most
    --syn-limit N     SYNs a second let through
    --dies-after D|N  falls silent so long after the first packet, or after N packets
    --seed N          of the losses [1]
    --capacity        no command: measures how many SYNs a second the lab itself plays

What the lab saw goes to stderr. The exit code is the command's; 69: no lab here.";

fn main() -> ExitCode {
    // `cargo bench` adds the flag `--bench`, behind whatever was given.
    let mut words: Vec<OsString> = std::env::args_os().skip(1).collect();
    if words.last().is_some_and(|word| word == "--bench") {
        words.pop();
    }
    match parse(words).and_then(run) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("lab: {error}");
            ExitCode::from(if error.is::<lab::Unavailable>() { 69 } else { 64 })
        }
    }
}

/// What was asked for.
struct Request {
    host: Host,
    errand: Errand,
}

enum Errand {
    Help,
    Capacity,
    /// The program and its arguments, `{target}` not yet replaced.
    Command(OsString, Vec<OsString>),
}

fn parse(words: Vec<OsString>) -> Result<Request, Box<dyn Error>> {
    let mut parser = lexopt::Parser::from_args(words);
    let mut host = Host::new(HOST_ADDRESS);
    while let Some(argument) = parser.next()? {
        let name = match argument {
            Arg::Long("help") | Arg::Short('h') => break,
            Arg::Long("capacity") => return Ok(Request { host, errand: Errand::Capacity }),
            Arg::Long(name) => name.to_owned(),
            Arg::Short(_) => return Err(argument.unexpected().into()),
            Arg::Value(program) => {
                let errand = Errand::Command(program, parser.raw_args()?.collect());
                return Ok(Request { host, errand });
            }
        };
        let value = parser.value()?.string()?;
        host = apply(host, &name, &value).map_err(|error| format!("--{name} {value}: {error}"))?;
    }
    Ok(Request { host, errand: Errand::Help })
}

fn apply(mut host: Host, name: &str, value: &str) -> Result<Host, Box<dyn Error>> {
    match name {
        "address" => host.address = value.parse::<IpAddr>()?,
        "rtt" => host.rtt = duration(value)?,
        "loss" => host = host.loss(share(value)?),
        "loss-to" => host.loss_to = share(value)?,
        "loss-from" => host.loss_from = share(value)?,
        "open" => host = host.ports(&open_ports(value)?, Port::Open),
        "rest" => host.rest = port_kind(value)?,
        "rst-limit" => host.rst_per_second = Some(value.parse()?),
        "syn-limit" => host.syn_per_second = Some(value.parse()?),
        "dies-after" => {
            host.dies = Some(match value.parse() {
                Ok(packets) => Death::Packets(packets),
                Err(_) => Death::After(duration(value)?),
            });
        }
        "seed" => host.seed = value.parse()?,
        _ => return Err("there is no such option".into()),
    }
    Ok(host)
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

fn open_ports(text: &str) -> Result<Vec<u16>, Box<dyn Error>> {
    if text == "10" {
        return Ok(lab::TEN_PORTS.to_vec());
    }
    Ok(text.split(',').map(str::parse).collect::<Result<_, _>>()?)
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

fn run(request: Request) -> Result<ExitCode, Box<dyn Error>> {
    match request.errand {
        Errand::Help => println!("{HELP}"),
        Errand::Capacity => measure_capacity(request.host)?,
        Errand::Command(program, arguments) => {
            return run_command(request.host, Command::new(program), arguments);
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn run_command(
    host: Host,
    mut command: Command,
    arguments: Vec<OsString>,
) -> Result<ExitCode, Box<dyn Error>> {
    let address = host.address.to_string();
    command.args(arguments.into_iter().map(|word| match word.into_string() {
        Ok(text) => text.replace("{target}", &address).into(),
        Err(word) => word,
    }));
    let lab = Lab::enter()?.start(vec![host])?;
    let start = Instant::now();
    let status = command.status()?;
    let elapsed = start.elapsed();
    eprintln!("lab: elapsed={elapsed:?} {}", lab.stop()?);
    // A signal's death is told as the shell tells it, less the number: that it failed is enough.
    Ok(status.code().map_or(ExitCode::from(128), |code| ExitCode::from(code as u8)))
}

/// Sends one SYN to each port as fast as one thread can, past the kernel's TCP, and says how long
/// the lab took to deal with them all.
fn measure_capacity(host: Host) -> Result<(), Box<dyn Error>> {
    use socket2::{Domain, Protocol, SockAddr, Socket, Type};
    const SYNS: u64 = 65_535;
    let IpAddr::V4(target) = host.address else { return Err("over IPv4 only".into()) };
    let lab = Lab::enter()?.start(vec![host])?;
    let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(libc::IPPROTO_RAW)))?;
    let to = SockAddr::from(std::net::SocketAddrV4::new(target, 0));
    // An IPv4 and a TCP header; the kernel fills in the former's source, id and checksum
    // (raw(7)), and the lab checks no checksum of ours.
    let mut packet = [0; 40];
    (packet[0], packet[8], packet[9]) = (0x45, 64, 6);
    packet[16..20].copy_from_slice(&target.octets());
    packet[20..22].copy_from_slice(&40_000u16.to_be_bytes());
    (packet[32], packet[33]) = (5 << 4, 2);
    let start = Instant::now();
    for port in 1..=u16::MAX {
        packet[22..24].copy_from_slice(&port.to_be_bytes());
        socket.send_to(&packet, &to)?;
    }
    let sent = start.elapsed();
    let deadline = start + Duration::from_secs(10);
    while lab.stats().syns < SYNS && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(1));
    }
    let played = start.elapsed();
    let stats = lab.stop()?;
    println!(
        "{} SYNs sent in {sent:.3?}, played in {played:.3?}: {:.0} a second; {stats}",
        stats.syns,
        stats.syns as f64 / played.as_secs_f64()
    );
    Ok(())
}
