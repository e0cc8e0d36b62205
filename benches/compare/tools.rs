//! The tools of the comparison, and how each is run.

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::cases::Case;
use crate::lab::Medium;
use crate::output::{
    Read, read_host_ports, read_json, read_masscan, read_nmap, read_rustscan, read_zmap,
};
use crate::run::{Outcome, Usage, request_once, run_command};
use crate::service::{self, Service};

#[derive(Clone, Copy, Debug)]
pub(crate) struct Tool {
    /// The name on the command line and in the report.
    pub(crate) name: &'static str,
    pub(crate) method: Method,
    /// The arguments, in which `{target}` is replaced by the address, `{targets}` by a file with
    /// all addresses, `{ports}` by the range of ports, and `{first}` and `{last}` by its ends.
    pub(crate) arguments: &'static str,
    /// The cases for this tool. Empty means all cases with one host that its method can scan.
    only: &'static [&'static str],
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Method {
    /// This project's service, which is started before the time is measured. The arguments are the
    /// target of the request.
    Service,
    CommandLine,
    /// A loop of `benches/floor`, run by this program.
    Floor {
        /// The loop scans one port after the other.
        is_sequential: bool,
    },
    /// A program in the PATH. The time is that of the whole process.
    Command {
        program: &'static str,
        read: Read,
    },
    /// A program that writes Ethernet frames. It needs a TAP device, and cannot scan loopback.
    Ethernet {
        program: &'static str,
        read: Read,
    },
    /// The design of the Go original (benches/peers), used like this project's service.
    Go,
}

/// The cases with many hosts.
const HOSTS: &[&str] = &["hosts-silent", "hosts"];
/// The same, with a case that is too large for connect scans by other tools.
const NETWORKS: &[&str] = &["hosts-silent", "hosts", "network-silent"];
const NMAP: Method = Method::Command { program: "nmap", read: read_nmap };
const MASSCAN: Method = Method::Ethernet { program: "masscan", read: read_masscan };

/// All tools in the order of the report. Other tools have the fastest flags that still find ports,
/// from their documentation or from our own trials.
pub(crate) const TOOLS: [Tool; 22] = [
    Tool {
        name: "openports",
        method: Method::Service,
        arguments: "/open-ports?domain={target}&ports={ports}",
        only: &[],
    },
    Tool {
        name: "openports-auto",
        method: Method::Service,
        arguments: "/open-ports?domain={target}&ports={ports}&timeout=auto",
        only: &["far-silent", "lossy-silent"],
    },
    Tool {
        name: "openports-retries",
        method: Method::Service,
        arguments: "/open-ports?domain={target}&ports={ports}&retries=3",
        only: &["lossy-silent"],
    },
    Tool {
        name: "openports-syn",
        method: Method::Service,
        arguments: "/open-ports?domain={target}&ports={ports}&technique=syn",
        only: &[],
    },
    Tool {
        name: "openports-syn-auto",
        method: Method::Service,
        arguments: "/open-ports?domain={target}&ports={ports}&technique=syn\
                    &timeout=auto",
        only: &["far-silent", "lossy-silent"],
    },
    Tool {
        name: "openports-hosts",
        method: Method::CommandLine,
        arguments: "scan --format host-port --targets {targets} {ports}",
        only: HOSTS,
    },
    Tool {
        name: "openports-hosts-syn",
        method: Method::CommandLine,
        arguments: "scan --format host-port --technique syn --targets {targets} {ports}",
        only: NETWORKS,
    },
    Tool {
        name: "floor-blocking",
        method: Method::Floor { is_sequential: true },
        arguments: "floor blocking {target} {first} {last}",
        only: &[],
    },
    Tool {
        name: "floor-epoll",
        method: Method::Floor { is_sequential: false },
        arguments: "floor epoll {target} {first} {last}",
        only: &[],
    },
    Tool {
        name: "floor-reused",
        method: Method::Floor { is_sequential: false },
        arguments: "floor reused {target} {first} {last}",
        only: &[],
    },
    Tool {
        name: "nmap",
        method: NMAP,
        arguments: "-sT -Pn -n -T5 --min-rate 30000 --max-retries 1 -p {ports} -oG - {target}",
        only: &[],
    },
    Tool {
        name: "nmap-defaults",
        method: NMAP,
        arguments: "-sT -Pn -n -T4 -p {ports} -oG - {target}",
        only: &[],
    },
    Tool {
        name: "nmap-syn",
        method: NMAP,
        arguments: "-sS -Pn -n -T5 --min-rate 30000 --max-retries 1 -p {ports} -oG - {target}",
        only: &[],
    },
    Tool {
        name: "nmap-hosts",
        method: NMAP,
        arguments: "-sS -Pn -n -T5 --min-rate 30000 --max-retries 1 -p {ports} -oG - \
                    -iL {targets}",
        only: HOSTS,
    },
    Tool {
        name: "rustscan",
        method: Method::Command { program: "rustscan", read: read_rustscan },
        arguments: "-a {target} -r {ports} -b 10000 -t 2000 -g --no-config --no-banner",
        only: &[],
    },
    Tool {
        name: "masscan",
        method: MASSCAN,
        arguments: "{target} -p{ports} --rate 20000 --wait 2 --interface lab0 \
                    --router-mac 02:04:0a:63:01:01 -oL -",
        only: &[],
    },
    Tool {
        name: "masscan-fast",
        method: MASSCAN,
        arguments: "{target} -p{ports} --rate 1000000 --wait 2 --interface lab0 \
                    --router-mac 02:04:0a:63:01:01 -oL -",
        only: &["veth", "near-closed"],
    },
    Tool {
        name: "masscan-hosts",
        method: MASSCAN,
        arguments: "-iL {targets} -p{ports} --rate 20000 --wait 2 --interface lab0 \
                    --router-mac 02:04:0a:63:01:01 -oL -",
        only: HOSTS,
    },
    Tool {
        name: "masscan-hosts-fast",
        method: MASSCAN,
        arguments: "-iL {targets} -p{ports} --rate 1000000 --wait 2 --interface lab0 \
                    --router-mac 02:04:0a:63:01:01 -oL -",
        only: &["network-silent"],
    },
    Tool {
        name: "zmap",
        method: Method::Ethernet { program: "zmap", read: read_zmap },
        arguments: "-w {targets} -p {first} -r 20000 -c 2 -i lab0 -G 02:04:0a:63:01:01 \
                    -C /dev/null -b /dev/null -q -v 1 -o -",
        only: HOSTS,
    },
    Tool {
        name: "naabu",
        method: Method::Command { program: "naabu", read: read_host_ports },
        arguments: "-host {target} -p {ports} -s c -c 1000 -rate 30000 -silent -duc",
        only: &[],
    },
    Tool {
        name: "go-original",
        method: Method::Go,
        arguments: "/open-ports?domain={target}&fromPort={first}&toPort={last}",
        only: &[],
    },
];

#[derive(Clone, Debug)]
pub(crate) struct Measured {
    pub(crate) outcome: Outcome,
    /// The CPU time of the tool alone, and the packets of its network.
    pub(crate) used: Usage,
    /// The longest delay of an answer by the lab; zero until the cell sets it. If it is not small
    /// compared with the round trip, the machine was too busy for a measurement.
    pub(crate) lab_late_ms: f64,
}

impl Tool {
    pub(crate) fn find(name: &str) -> Option<Self> {
        TOOLS.into_iter().find(|tool| tool.name == name)
    }

    /// Returns the reason why the tool is not available, if there is one.
    pub(crate) fn absence(&self) -> Option<String> {
        match self.method {
            Method::Service | Method::CommandLine if service::own_path().is_none() => {
                Some("the binary does not exist".into())
            }
            Method::Command { program, .. } | Method::Ethernet { program, .. }
                if find_program(program).is_none() =>
            {
                Some(format!("{program} is not installed"))
            }
            Method::Go => service::build_go().err(),
            Method::Service
            | Method::CommandLine
            | Method::Command { .. }
            | Method::Ethernet { .. }
            | Method::Floor { .. } => None,
        }
    }

    /// Returns whether the tool can scan this case in time.
    pub(crate) fn suits(&self, case: &Case) -> bool {
        let is_listed = match self.only {
            [] => !NETWORKS.contains(&case.name),
            only => only.contains(&case.name),
        };
        is_listed
            && match self.method {
                Method::Floor { is_sequential } => !is_sequential || case.is_prompt(),
                Method::Ethernet { .. } => !case.target().is_loopback(),
                Method::Service | Method::CommandLine | Method::Command { .. } | Method::Go => true,
            }
    }

    /// Returns the kind of device that the tool needs.
    pub(crate) fn medium(&self) -> Medium {
        match self.method {
            Method::Ethernet { .. } => Medium::Ethernet,
            Method::Service
            | Method::CommandLine
            | Method::Floor { .. }
            | Method::Command { .. }
            | Method::Go => Medium::PointToPoint,
        }
    }

    /// Returns the first line with a digit in the output of `--version`.
    pub(crate) fn version(&self) -> Option<String> {
        let (Method::Command { program, .. } | Method::Ethernet { program, .. }) = self.method
        else {
            return None;
        };
        let output = Command::new(find_program(program)?).arg("--version").output().ok()?;
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        text.lines().find(|line| line.contains(|c: char| c.is_ascii_digit())).map(str::to_owned)
    }

    /// Scans the case for at most `limit`. An error is text for the report.
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
        // The file may have been removed by a cleanup of the machine.
        drop(std::fs::remove_file(list));
        let (mut outcome, after) = (outcome?, Usage::now()?);
        outcome.open.sort_unstable();
        outcome.open.dedup();
        let cpu_seconds = after.cpu_seconds - before.cpu_seconds;
        // A scan of loopback does not use the device; other packets of the kernel do not count.
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
        let request =
            |service| request_once(service, arguments, |text| read_json(text, target), limit);
        match self.method {
            Method::Service => request(Service::start(&[])?),
            Method::Go => request(Service::watch(&mut Command::new(service::go_path()))?),
            Method::CommandLine => {
                command(service::own_path().ok_or("the binary does not exist")?, read_host_ports)
            }
            Method::Floor { .. } => {
                let program = std::env::current_exe().map_err(|error| error.to_string())?;
                command(program, read_json)
            }
            Method::Command { program, read } | Method::Ethernet { program, read } => {
                command(find_program(program).ok_or("the program is not installed")?, read)
            }
        }
    }
}

/// Returns the path of a program in the PATH or in /usr/sbin, where Debian has administrative ones.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
    folders.map(|folder| folder.join(name)).find(|file| file.is_file())
}
