//! Runs a command against simulated hosts.
#![expect(clippy::print_stdout, reason = "a command line program reports on stdout")]
#![expect(clippy::print_stderr, reason = "stdout belongs to the command")]

#[path = "mod.rs"]
mod lab;
mod options;

use std::error::Error;
use std::ffi::OsString;
use std::net::IpAddr;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use lab::Lab;
use options::{Action, Options};

fn main() -> ExitCode {
    // `cargo bench` appends the flag `--bench`.
    let mut words: Vec<OsString> = std::env::args_os().skip(1).collect();
    if words.last().is_some_and(|word| word == "--bench") {
        words.pop();
    }
    match Options::parse(words).and_then(run) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("lab: {error}");
            ExitCode::from(if error.is::<lab::Unavailable>() { 69 } else { 64 })
        }
    }
}

fn run(options: Options) -> Result<ExitCode, Box<dyn Error>> {
    match &options.action {
        Action::Help => println!("{}", options::HELP),
        Action::Capacity => measure_capacity(options)?,
        Action::Command(program, arguments) => return run_command(&options, program, arguments),
    }
    Ok(ExitCode::SUCCESS)
}

fn run_command(
    options: &Options,
    program: &OsString,
    arguments: &[OsString],
) -> Result<ExitCode, Box<dyn Error>> {
    let (hosts, addresses) = (options.hosts()?, options.addresses()?);
    let lines: Vec<String> = addresses.iter().map(IpAddr::to_string).collect();
    let list = std::env::temp_dir().join(format!("openports-lab-{}", std::process::id()));
    let replacements = [
        ("{target}", lines[0].clone()),
        ("{last}", lines[lines.len() - 1].clone()),
        ("{targets}", list.to_string_lossy().into_owned()),
    ];
    let fill = |text: &str| {
        let replace = |text: String, (from, to): &(&str, String)| text.replace(from, to);
        OsString::from(replacements.iter().fold(text.to_owned(), replace))
    };
    let mut command = Command::new(program);
    command.args(arguments.iter().map(|word| word.to_str().map_or(word.clone(), fill)));
    let lab = Lab::enter_by(options.medium)?.link(options.link.clone()).start(hosts)?;
    std::fs::write(&list, lines.join("\n") + "\n")?;
    let start = Instant::now();
    let status = command.status();
    let elapsed = start.elapsed();
    std::fs::remove_file(&list)?;
    eprintln!("lab: elapsed={elapsed:?} {}", lab.stop()?);
    // A command that a signal ended gets 128, the base of a shell's code, without the number.
    Ok(status?.code().map_or(ExitCode::from(128), |code| ExitCode::from(code as u8)))
}

/// Sends one SYN to each port as fast as one thread can, without the kernel's TCP, and prints how
/// long the lab took to handle all of them.
fn measure_capacity(options: Options) -> Result<(), Box<dyn Error>> {
    use socket2::{Domain, Protocol, SockAddr, Socket, Type};
    const SYNS: u64 = 65_535;
    let IpAddr::V4(target) = options.host.address else {
        return Err("the capacity is measured over IPv4 only".into());
    };
    let lab = Lab::enter()?.link(options.link).start(vec![options.host])?;
    let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(libc::IPPROTO_RAW)))?;
    let to = SockAddr::from(std::net::SocketAddrV4::new(target, 0));
    // An IPv4 and a TCP header. The kernel fills in the source, the id and the checksum of IPv4
    // (raw(7)), and the lab does not verify the checksum of TCP.
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
    let handled = start.elapsed();
    let stats = lab.stop()?;
    println!(
        "{} SYNs sent in {sent:.3?}, handled in {handled:.3?}: {:.0} a second; {stats}",
        stats.syns,
        stats.syns as f64 / handled.as_secs_f64()
    );
    Ok(())
}
