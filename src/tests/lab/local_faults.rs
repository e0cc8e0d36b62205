//! Faults of the local machine during a scan, with both techniques: a local firewall, an interface
//! that goes down, and a route that changes the source address. Also targets whose connects leave a
//! trace in the socket, which the next target must not notice.
//!
//! ip(8) and nft(8) cause the faults. If one of them is missing, the case cannot run.

use std::io::ErrorKind;
use std::net::{Ipv6Addr, TcpListener};
use std::process::Command;
use std::time::Duration;

use crate::client::Scan;
use crate::lab::{HOST_ADDRESS, Host, Lab, Port, TEN_PORTS};
use crate::process::{Service, until};
use crate::scans::host;
use crate::{Case, Outcome};

pub(crate) const CASES: &[Case] = &[
    ("a_local_firewall_delays_the_scan_but_hides_no_open_port", firewall),
    ("an_interface_that_goes_down_is_reported_and_opens_no_port", link_down),
    ("a_changed_source_address_hides_no_open_port", source_address),
    ("a_target_with_a_zone_has_no_effect_on_the_next_target", zone),
    ("a_v4_mapped_target_has_no_effect_on_other_targets", mapped),
    ("an_unspecified_target_is_this_machine_with_both_techniques", unspecified),
    ("a_multicast_target_is_unreachable_with_both_techniques", multicast),
    ("a_source_address_that_the_route_refuses_makes_a_target_unreachable", loopback_source),
    ("a_rejection_during_the_call_of_connect_is_the_state_of_its_port_alone", rejected),
    ("a_target_that_the_kernel_refuses_does_not_end_the_reuse_of_sockets", blackhole),
];

/// A scan of this number of ports takes two seconds at 20,000 probes per second, so the fault
/// happens during the scan.
const PORTS: u64 = 40_000;
const QUERY: &str = "ports=1-39998,50000,65535&rate=20000";

/// The error if a required tool is not installed.
#[derive(Debug)]
pub(crate) struct MissingTool(&'static str);

impl std::fmt::Display for MissingTool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} is not installed", self.0)
    }
}

impl std::error::Error for MissingTool {}

/// Runs a tool, which must succeed.
fn tool(program: &'static str, args: &str) -> Outcome {
    let args = args.split_ascii_whitespace().collect::<Vec<_>>();
    match Command::new(program).args(&args).output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => {
            let reason = String::from_utf8_lossy(&output.stderr).into_owned();
            Err(format!("{program} {args:?}: {reason}").into())
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Err(MissingTool(program).into()),
        Err(error) => Err(error.into()),
    }
}

/// Scans with each technique. `event` changes the local machine after a fourth of the ports has
/// been probed.
fn scan_during(event: impl Fn() -> Outcome, check: impl Fn(&Scan)) -> Outcome {
    let lab = Lab::enter()?.start(vec![host().rtt(Duration::from_millis(50))])?;
    for technique in ["connect", "syn"] {
        let service = Service::start(&[]);
        let query = format!("domain={HOST_ADDRESS}&{QUERY}&technique={technique}");
        let mut client = service.begin_scan(&query, "");
        until("a fourth of the ports has been probed", || {
            let sent = ["openports_connects_total", "openports_syns_sent_total"];
            (sent.map(|name| service.metric(name)).iter().sum::<u64>() > PORTS / 4).then_some(())
        });
        event()?;
        let scan = Scan::of(client.receive("GET"));
        scan.check_key("complete", true);
        check(&scan);
    }
    lab.stop()?;
    Ok(())
}

fn firewall() -> Outcome {
    scan_during(
        || {
            tool("nft", "add table inet t")?;
            tool("nft", "add chain inet t c { type filter hook output priority 0; }")?;
            tool("nft", "add rule inet t c tcp flags syn oifname lab0 drop")?;
            std::thread::sleep(Duration::from_millis(300));
            tool("nft", "delete table inet t")
        },
        |scan| {
            scan.check_open(&TEN_PORTS).check_counts([10, PORTS - 10, 0, 0, 0]);
        },
    )
}

fn link_down() -> Outcome {
    scan_during(
        || {
            tool("ip", "link set lab0 down")?;
            std::thread::sleep(Duration::from_millis(300));
            tool("ip", "link set lab0 up")
        },
        |scan| {
            let open = scan.open();
            assert!(open.iter().all(|port| TEN_PORTS.contains(port)), "{scan:?}");
            // Ports that are often open are probed first, so their probes precede the event.
            assert!([22, 80, 443].iter().all(|port| open.contains(port)), "{scan:?}");
            let states = ["open", "closed", "unreachable"].map(|state| scan.count(state));
            assert_eq!(states.iter().sum::<u64>(), PORTS, "{scan:?}");
            assert_eq!(scan.count("filtered"), 0, "lost probes are repeated: {scan:?}");
            assert!(scan.count("unreachable") > 0, "without a route some ports are unreachable");
            scan.check_key("loss_suspected", true);
        },
    )
}

fn source_address() -> Outcome {
    scan_during(
        || {
            tool("ip", "address add 10.99.0.77/32 dev lab0")?;
            tool("ip", &format!("route add {HOST_ADDRESS}/32 dev lab0 src 10.99.0.77"))?;
            std::thread::sleep(Duration::from_millis(300));
            tool("ip", &format!("route del {HOST_ADDRESS}/32 dev lab0"))?;
            tool("ip", "address del 10.99.0.77/32 dev lab0")
        },
        |scan| {
            scan.check_open(&TEN_PORTS).check_counts([10, PORTS - 10, 0, 0, 0]);
        },
    )
}

/// A connect to an address with a zone binds its socket to the interface, and a connect to
/// AF_UNSPEC does not undo this.
fn zone() -> Outcome {
    let lab = Lab::enter()?.start(vec![host()])?;
    tool("ip", "link add va type veth peer name vb")?;
    tool("ip", "address add fe80::5/64 dev va nodad")?;
    tool("ip", "link set va up")?;
    let listener = TcpListener::bind("[::1]:0")?;
    let port = listener.local_addr()?.port();
    let service = Service::start(&["--allow", "fe80::/10"]);
    // Both scans run at the same time, because sockets without a scan are closed.
    let mut client = service.begin_scan("domain=fe80::5%25va&toPort=200&rate=200", "");
    for _ in 0..5 {
        let scan = service.scan(&format!("domain=::1&ports=1-200,{port}"));
        scan.check_open(&[port]).check_counts([1, 200, 0, 0, 0]);
        std::thread::sleep(Duration::from_millis(100));
    }
    Scan::of(client.receive("GET")).check_counts([0, 200, 0, 0, 0]);
    lab.stop()?;
    Ok(())
}

/// A TCP socket of IPv6 that was connected to a v4-mapped address can never again send an IPv6
/// packet, and a raw socket of IPv6 cannot send to such an address.
fn mapped() -> Outcome {
    let rtt = Duration::from_millis(20);
    let other = Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, 1, 1);
    let other_host = Host::new(other).rtt(rtt).ports(&[22], Port::Open).rest(Port::Silent);
    let lab = Lab::enter()?.start(vec![host().rtt(rtt), other_host.ports(&[23], Port::Closed)])?;
    for technique in ["connect", "syn"] {
        let service = Service::start(&[]);
        let query =
            |domain: &str, rest: &str| format!("domain={domain}&technique={technique}&{rest}");
        let mapped = format!("::ffff:{HOST_ADDRESS}");
        // Both scans run at the same time, because sockets without a scan are closed.
        let mut client = service.begin_scan(&query(&mapped, "toPort=600&rate=300"), "");
        std::thread::sleep(Duration::from_millis(200));
        let scan = service.scan(&query(&other.to_string(), "toPort=200&timeout=500ms"));
        scan.check_open(&[22]).check_counts([1, 1, 198, 0, 0]);
        scan.check_key("loss_suspected", false).check_key("complete", true);
        let open = TEN_PORTS.into_iter().filter(|port| *port <= 600).collect::<Vec<_>>();
        let expected = [open.len() as u64, 600 - open.len() as u64, 0, 0, 0];
        let scan = Scan::of(client.receive("GET"));
        scan.check_open(&open)
            .check_counts(expected)
            .check_key("address", HOST_ADDRESS.to_string());
    }
    lab.stop()?;
    Ok(())
}

fn unspecified() -> Outcome {
    let lab = Lab::enter()?.start(vec![host()])?;
    let listeners = [TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("[::1]:0")?];
    let service = Service::start(&["--allow", "0.0.0.0/32", "--allow", "::/128"]);
    for (listener, domain) in listeners.iter().zip(["0.0.0.0", "::"]) {
        let port = listener.local_addr()?.port();
        for technique in ["connect", "syn"] {
            let query = format!("domain={domain}&ports=1-20,{port}&technique={technique}");
            service.scan(&query).check_open(&[port]).check_counts([1, 20, 0, 0, 0]);
        }
    }
    lab.stop()?;
    Ok(())
}

fn multicast() -> Outcome {
    let lab = Lab::enter()?.start(vec![host()])?;
    let service = Service::start(&["--allow", "ff00::/8", "--allow", "224.0.0.0/4"]);
    for domain in ["239.1.1.1", "ff05::1"] {
        for technique in ["connect", "syn"] {
            let query = format!("domain={domain}&toPort=20&technique={technique}");
            service.scan(&query).check_counts([0, 0, 0, 20, 0]);
        }
    }
    lab.stop()?;
    Ok(())
}

/// The SYN scan took EINVAL for a shortage, and probed again until its deadline.
fn loopback_source() -> Outcome {
    let lab = Lab::enter()?.start(vec![host()])?;
    let host = HOST_ADDRESS.to_string();
    for technique in ["connect", "syn"] {
        let options = ["scan", "--json", "--source", "127.0.0.1", "--deadline", "10s"];
        let output = Command::new(env!("CARGO_BIN_EXE_openports"))
            .args(options)
            .args(["--technique", technique, &host, "1-20"])
            .output()?;
        let printed = String::from_utf8(output.stdout)?;
        let is_unreachable = printed.contains(r#""unreachable":20,"untested":0}"#);
        assert!(is_unreachable && output.status.success(), "{technique}: {printed}");
    }
    lab.stop()?;
    Ok(())
}

/// On loopback, an ICMP error arrives during the call of connect(2), which does not return it.
fn rejected() -> Outcome {
    let lab = Lab::enter()?.start(vec![host().rest(Port::Silent)])?;
    tool("nft", "add table inet t")?;
    tool("nft", "add chain inet t c { type filter hook input priority 0; }")?;
    tool("nft", "add rule inet t c tcp dport 100-149 reject with icmpx port-unreachable")?;
    tool("nft", "add rule inet t c tcp dport 200-249 reject with icmpx host-unreachable")?;
    tool("nft", "add rule inet t c tcp dport 300-349 drop")?;
    tool("nft", "add rule inet t c tcp dport 1000-1399 drop")?;
    tool("nft", "add rule inet t c tcp dport 1400-1409 reject with icmpx host-unreachable")?;
    // The kernel gives up silent connects after three seconds.
    std::fs::write("/proc/sys/net/ipv4/tcp_syn_retries", "1")?;
    let service = Service::start(&[]);
    let scan = service.scan("domain=127.0.0.1&ports=100-149,200-249,300-349&timeout=500ms");
    scan.check_counts([0, 50, 50, 50, 0]);
    // After so many silent ports the error is noticed when the kernel repeats the SYN.
    for timeout in ["500ms", "1500ms", "auto"] {
        let query = format!("domain=127.0.0.1&ports=1000-1409&retries=0&timeout={timeout}");
        service.scan(&query).check_counts([0, 0, 400, 10, 0]);
        let query = format!("domain=127.0.0.1&ports=300-349&retries=0&timeout={timeout}");
        service.scan(&query).check_counts([0, 0, 50, 0, 0]);
    }
    let query = format!("domain={HOST_ADDRESS}&ports=100-149&rate=50&timeout=5s&retries=0");
    let mut client = service.begin_scan(&query, "");
    service.scan("domain=127.0.0.1&ports=100-149,200-249&timeout=500ms");
    let scan = Scan::of(client.receive("GET"));
    assert_eq!(scan.count("filtered"), 50 - scan.count("open"), "{scan:?}");
    lab.stop()?;
    Ok(())
}

fn blackhole() -> Outcome {
    let lab = Lab::enter()?.start(vec![host()])?;
    tool("ip", "route add blackhole 10.97.0.0/16")?;
    let service = Service::start(&[]);
    service.scan("domain=127.0.0.1&toPort=100");
    let scan = service.scan("domain=10.97.0.1&toPort=100");
    scan.check_counts([0, 0, 0, 100, 0]);
    assert_eq!(service.metric("openports_socket_reuse_refused_total"), 0);
    lab.stop()?;
    Ok(())
}
