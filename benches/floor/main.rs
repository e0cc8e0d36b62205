//! Runs one loop of the floor, and prints one JSON object.
#![expect(clippy::print_stdout, reason = "a command line program reports on stdout")]

#[path = "mod.rs"]
mod floor;

use std::error::Error;
use std::net::IpAddr;
use std::process::ExitCode;
use std::time::{Duration, Instant};

const HELP: &str = "\
The minimum cost of a connect scan, measured with loops over the system calls.

    cargo bench --bench floor -- blocking ADDRESS [FIRST LAST]
    cargo bench --bench floor -- epoll ADDRESS [FIRST LAST]
    cargo bench --bench floor -- reused ADDRESS [FIRST LAST]

blocking: socket, connect and close, one port after the other
epoll:    non-blocking connects, as many at once as descriptors permit, 2 s each
reused:   the same, but an idle socket is connected to the next port
Without FIRST and LAST, all ports are scanned. The output is one JSON object.";

fn main() -> ExitCode {
    // `cargo bench` appends the flag `--bench`.
    let arguments: Vec<String> =
        std::env::args().skip(1).filter(|word| word != "--bench").collect();
    match run(&arguments) {
        Ok(answer) => {
            println!("{answer}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("{error}\n\n{HELP}");
            ExitCode::from(64)
        }
    }
}

fn run(arguments: &[String]) -> Result<String, Box<dyn Error>> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (kind, address, first, last) = match words.as_slice() {
        [] | ["--help" | "-h", ..] => return Ok(HELP.into()),
        [kind, address] => (*kind, *address, "1", "65535"),
        [kind, address, first, last] => (*kind, *address, *first, *last),
        [_] | [_, _, _] | [_, _, _, _, _, ..] => {
            return Err("two or four arguments are needed".into());
        }
    };
    let address: IpAddr = address.parse()?;
    let ports = first.parse()?..=last.parse()?;
    let start = Instant::now();
    let found = match kind {
        "blocking" => floor::blocking(address, ports),
        "epoll" => floor::epoll(address, ports, Duration::from_secs(2))?,
        "reused" => floor::reused::reused(address, ports, Duration::from_secs(2))?,
        unknown => return Err(format!("there is no loop {unknown}").into()),
    };
    let answer = serde_json::json!({
        "elapsed_ms": start.elapsed().as_secs_f64() * 1e3,
        "open_ports": found.open,
        "closed": found.closed,
        "silent": found.silent,
        "failed": found.failed,
        "unexplained": found.unexplained,
    });
    Ok(answer.to_string())
}
