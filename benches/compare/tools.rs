//! The tools compared, and how each is run.

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::cases::Case;
use crate::lab::Medium;
use crate::output::{
    Read, read_host_ports, read_json, read_masscan, read_nmap, read_rustscan, read_zmap,
};
use crate::run::{Outcome, Usage, ask_once, run_command};
use crate::service::{self, Service};

/// A tool and its flags. `{target}` stands for the address, `{targets}` for a file with all
/// addresses, `{ports}` for the range of ports, `{first}` and `{last}` for its ends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tool {
    /// One word, for the command line and the report.
    pub(crate) name: &'static str,
    /// How it is run.
    pub(crate) way: Way,
    /// Its arguments, as the reader shall see them.
    pub(crate) arguments: &'static str,
    /// The only cases that it is for; empty: all with one host that suit its way.
    only: &'static [&'static str],
}

/// How a tool is run.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Way {
    /// This project's service: started first, then asked; the time is the request's. The
    /// arguments are the request's target.
    Service,
    /// This project's command line.
    CommandLine,
    /// A loop of `benches/floor`, by way of this program.
    Floor {
        /// True exactly when it waits for one port after the other.
        is_sequential: bool,
    },
    /// A program of the PATH; the time is the whole process's.
    Command { program: &'static str, read: Read },
    /// The same, of a program that writes Ethernet frames: the lab's device is TAP for it, and it
    /// cannot scan loopback.
    Ethernet { program: &'static str, read: Read },
    /// The Go original's design (benches/peers), asked as this project's service is.
    Go,
}

/// The cases with many hosts.
const HOSTS: &[&str] = &["hosts-silent", "hosts"];
/// See [`HOSTS`]; of the peers' connect scans, none ends within minutes where there are more.
const NETWORKS: &[&str] = &["hosts-silent", "hosts", "network-silent"];
const NMAP: Way = Way::Command { program: "nmap", read: read_nmap };
const MASSCAN: Way = Way::Ethernet { program: "masscan", read: read_masscan };

/// Every tool, in the order of the report. Peers have the flags that their documentation or the
/// project's own trials show to be the fastest that still find something.
pub(crate) const TOOLS: [Tool; 22] = [
    Tool {
        name: "openports",
        way: Way::Service,
        arguments: "/open-ports?domain={target}&ports={ports}",
        only: &[],
    },
    Tool {
        name: "openports-auto",
        way: Way::Service,
        arguments: "/open-ports?domain={target}&ports={ports}&timeout=auto",
        only: &["far-silent", "lossy-silent"],
    },
    Tool {
        name: "openports-retries",
        way: Way::Service,
        arguments: "/open-ports?domain={target}&ports={ports}&retries=3",
        only: &["lossy-silent"],
    },
    Tool {
        name: "openports-syn",
        way: Way::Service,
        arguments: "/open-ports?domain={target}&ports={ports}&technique=syn",
        only: &[],
    },
    Tool {
        name: "openports-syn-auto",
        way: Way::Service,
        arguments: "/open-ports?domain={target}&ports={ports}&technique=syn\
                    &timeout=auto",
        only: &["far-silent", "lossy-silent"],
    },
    Tool {
        name: "openports-hosts",
        way: Way::CommandLine,
        arguments: "scan --format host-port --targets {targets} {ports}",
        only: HOSTS,
    },
    Tool {
        name: "openports-hosts-syn",
        way: Way::CommandLine,
        arguments: "scan --format host-port --technique syn --targets {targets} {ports}",
        only: NETWORKS,
    },
    Tool {
        name: "floor-blocking",
        way: Way::Floor { is_sequential: true },
        arguments: "floor blocking {target} {first} {last}",
        only: &[],
    },
    Tool {
        name: "floor-epoll",
        way: Way::Floor { is_sequential: false },
        arguments: "floor epoll {target} {first} {last}",
        only: &[],
    },
    Tool {
        name: "floor-reused",
        way: Way::Floor { is_sequential: false },
        arguments: "floor reused {target} {first} {last}",
        only: &[],
    },
    Tool {
        name: "nmap",
        way: NMAP,
        arguments: "-sT -Pn -n -T5 --min-rate 30000 --max-retries 1 -p {ports} -oG - {target}",
        only: &[],
    },
    Tool {
        name: "nmap-defaults",
        way: NMAP,
        arguments: "-sT -Pn -n -T4 -p {ports} -oG - {target}",
        only: &[],
    },
    Tool {
        name: "nmap-syn",
        way: NMAP,
        arguments: "-sS -Pn -n -T5 --min-rate 30000 --max-retries 1 -p {ports} -oG - {target}",
        only: &[],
    },
    Tool {
        name: "nmap-hosts",
        way: NMAP,
        arguments: "-sS -Pn -n -T5 --min-rate 30000 --max-retries 1 -p {ports} -oG - \
                    -iL {targets}",
        only: HOSTS,
    },
    Tool {
        name: "rustscan",
        way: Way::Command { program: "rustscan", read: read_rustscan },
        arguments: "-a {target} -r {ports} -b 10000 -t 2000 -g --no-config --no-banner",
        only: &[],
    },
    Tool {
        name: "masscan",
        way: MASSCAN,
        arguments: "{target} -p{ports} --rate 20000 --wait 2 --interface lab0 \
                    --router-mac 02:04:0a:63:01:01 -oL -",
        only: &[],
    },
    Tool {
        name: "masscan-fast",
        way: MASSCAN,
        arguments: "{target} -p{ports} --rate 1000000 --wait 2 --interface lab0 \
                    --router-mac 02:04:0a:63:01:01 -oL -",
        only: &["veth", "near-closed"],
    },
    Tool {
        name: "masscan-hosts",
        way: MASSCAN,
        arguments: "-iL {targets} -p{ports} --rate 20000 --wait 2 --interface lab0 \
                    --router-mac 02:04:0a:63:01:01 -oL -",
        only: HOSTS,
    },
    Tool {
        name: "masscan-hosts-fast",
        way: MASSCAN,
        arguments: "-iL {targets} -p{ports} --rate 1000000 --wait 2 --interface lab0 \
                    --router-mac 02:04:0a:63:01:01 -oL -",
        only: &["network-silent"],
    },
    Tool {
        name: "zmap",
        way: Way::Ethernet { program: "zmap", read: read_zmap },
        arguments: "-w {targets} -p {first} -r 20000 -c 2 -i lab0 -G 02:04:0a:63:01:01 \
                    -C /dev/null -b /dev/null -q -v 1 -o -",
        only: HOSTS,
    },
    Tool {
        name: "naabu",
        way: Way::Command { program: "naabu", read: read_host_ports },
        arguments: "-host {target} -p {ports} -s c -c 1000 -rate 30000 -silent -duc",
        only: &[],
    },
    Tool {
        name: "go-original",
        way: Way::Go,
        arguments: "/open-ports?domain={target}&fromPort={first}&toPort={last}",
        only: &[],
    },
];

/// What one run of a tool came to.
#[derive(Clone, Debug)]
pub(crate) struct Measured {
    pub(crate) outcome: Outcome,
    /// Of the tool alone; the packets are those of its network.
    pub(crate) used: Usage,
    /// By how much the lab's latest answer was late; zero until the cell sets it. Where it is
    /// not small against the round trip, the machine was too busy to measure on.
    pub(crate) lab_late_ms: f64,
}

impl Tool {
    /// The tool of this name.
    pub(crate) fn find(name: &str) -> Option<Self> {
        TOOLS.into_iter().find(|tool| tool.name == name)
    }

    /// Why it cannot be run here, if so.
    pub(crate) fn absence(&self) -> Option<String> {
        match self.way {
            Way::Service | Way::CommandLine if service::own_path().is_none() => {
                Some("its binary is not there".into())
            }
            Way::Command { program, .. } | Way::Ethernet { program, .. }
                if find_program(program).is_none() =>
            {
                Some(format!("{program} is not installed"))
            }
            Way::Go => service::build_go().err(),
            Way::Service
            | Way::CommandLine
            | Way::Command { .. }
            | Way::Ethernet { .. }
            | Way::Floor { .. } => None,
        }
    }

    /// True exactly when it can be expected to end and to find something.
    pub(crate) fn suits(&self, case: &Case) -> bool {
        let is_meant = match self.only {
            [] => !NETWORKS.contains(&case.name),
            only => only.contains(&case.name),
        };
        is_meant
            && match self.way {
                Way::Floor { is_sequential } => !is_sequential || case.is_prompt(),
                Way::Ethernet { .. } => !case.target().is_loopback(),
                Way::Service | Way::CommandLine | Way::Command { .. } | Way::Go => true,
            }
    }

    /// What the lab has to be connected by.
    pub(crate) fn medium(&self) -> Medium {
        match self.way {
            Way::Ethernet { .. } => Medium::Ethernet,
            Way::Service | Way::CommandLine | Way::Floor { .. } | Way::Command { .. } | Way::Go => {
                Medium::PointToPoint
            }
        }
    }

    /// The first line with a digit of what it says of its version.
    pub(crate) fn version(&self) -> Option<String> {
        let (Way::Command { program, .. } | Way::Ethernet { program, .. }) = self.way else {
            return None;
        };
        let output = Command::new(find_program(program)?).arg("--version").output().ok()?;
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        text.lines().find(|line| line.contains(|c: char| c.is_ascii_digit())).map(str::to_owned)
    }

    /// Scans what the case has, for `limit` at most; an error is a sentence for the report.
    pub(crate) fn run(&self, case: &Case, limit: Duration) -> Result<Measured, String> {
        let list = std::env::temp_dir().join(format!("openports-targets-{}", std::process::id()));
        let lines = case.targets().iter().map(|target| format!("{target}\n")).collect::<String>();
        std::fs::write(&list, lines).map_err(|error| error.to_string())?;
        let before = Usage::now()?;
        let (first, last) = case.ports();
        let arguments = self
            .arguments
            .replace("{target}", &case.target().to_string())
            .replace("{targets}", &list.to_string_lossy())
            .replace("{ports}", &format!("{first}-{last}"))
            .replace("{first}", &first.to_string())
            .replace("{last}", &last.to_string());
        let outcome = self.scan(case.target(), &arguments, limit);
        // It may be gone already, if the machine is cleaned up beside us.
        drop(std::fs::remove_file(list));
        let (mut outcome, after) = (outcome?, Usage::now()?);
        outcome.open.sort_unstable();
        outcome.open.dedup();
        let cpu_seconds = after.cpu_seconds - before.cpu_seconds;
        // A scan of loopback leaves the device alone; the kernel's own packets do not count.
        let is_sent = !case.target().is_loopback();
        let packets = if is_sent { after.packets - before.packets } else { 0 };
        let used = Usage { cpu_seconds, packets };
        Ok(Measured { outcome, used, lab_late_ms: 0.0 })
    }

    fn scan(&self, target: IpAddr, arguments: &str, limit: Duration) -> Result<Outcome, String> {
        let words = arguments.split(' ');
        let command = |program: PathBuf, read: Read| {
            run_command(Command::new(program).args(words), |text| read(text, target), limit)
        };
        let ask = |service| ask_once(service, arguments, |text| read_json(text, target), limit);
        match self.way {
            Way::Service => ask(Service::start(&[])?),
            Way::Go => ask(Service::watch(&mut Command::new(service::go_path()))?),
            Way::CommandLine => {
                command(service::own_path().ok_or("its binary is not there")?, read_host_ports)
            }
            Way::Floor { .. } => {
                let program = std::env::current_exe().map_err(|error| error.to_string())?;
                command(program, read_json)
            }
            Way::Command { program, read } | Way::Ethernet { program, read } => {
                command(find_program(program).ok_or("it is not installed")?, read)
            }
        }
    }
}

/// Where a program is: in the PATH, or where Debian has those of the administrator.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
    folders.map(|folder| folder.join(name)).find(|file| file.is_file())
}
