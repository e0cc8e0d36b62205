//! SYN scans in the lab. They need CAP_NET_RAW, which a process has in its own user namespace.

use std::net::Ipv6Addr;
use std::process::Command;
use std::time::Duration;

use crate::client::Scan;
use crate::lab::{HOST_ADDRESS, Host, Lab, Port, Stats, TEN_PORTS, Unreachable};
use crate::process::Service;
use crate::scans::{self, FEW_PORTS, FEW_PORTS_LEN, host};
use crate::{Case, Outcome};

pub(crate) const CASES: &[Case] = &[
    ("a_syn_scan_classifies_every_port_of_a_near_host", near),
    ("a_syn_scan_classifies_every_port_of_a_host_50_ms_away", far),
    ("a_syn_scan_repeats_an_unanswered_syn_once", silent),
    ("a_syn_scan_with_timeout_auto_finds_the_open_ports", silent_auto),
    ("icmp_errors_have_the_same_result_as_with_connect", unreachable),
    ("a_syn_scan_works_over_ipv6", ipv6),
    ("a_syn_scan_detects_and_compensates_loss", lossy),
    ("a_syn_scan_of_silent_ports_uses_two_more_descriptors", descriptors),
    ("both_techniques_can_scan_one_host_at_the_same_time", simultaneous),
    ("without_cap_net_raw_no_syn_is_sent_and_the_error_names_the_remedy", without_capability),
];

fn scan(host: Host, query: &str) -> Result<(Scan, Stats), Box<dyn std::error::Error>> {
    scans::scan(host, &format!("technique=syn&{query}"))
}

fn near() -> Outcome {
    check_closed(host())
}

fn far() -> Outcome {
    check_closed(host().rtt(Duration::from_millis(50)))
}

fn check_closed(host: Host) -> Outcome {
    let (scan, _) = scan(host, "toPort=65535")?;
    scan.check_open(&TEN_PORTS).check_counts([10, 65_525, 0, 0, 0]).check_key("complete", true);
    Ok(())
}

fn silent() -> Outcome {
    let host = host().rtt(Duration::from_millis(50)).rest(Port::Silent);
    let (scan, stats) = scan(host, FEW_PORTS)?;
    scan.check_open(&TEN_PORTS)
        .check_counts([10, 0, FEW_PORTS_LEN - 10, 0, 0])
        .check_key("loss_suspected", false);
    assert!(scan.elapsed_ms() >= 2000, "a silent port should have the full timeout: {scan:?}");
    let syns = 10 + 2 * (FEW_PORTS_LEN - 10);
    assert!(stats.syns >= syns, "each silent port should be probed twice: {stats}");
    assert!(stats.syns <= syns + scan.elapsed_ms() / 4 + 1, "there are too many SYNs: {stats}");
    Ok(())
}

fn silent_auto() -> Outcome {
    let host = host().rtt(Duration::from_millis(50)).rest(Port::Silent);
    let (scan, _) = scan(host, "toPort=65535&timeout=auto")?;
    scan.check_open(&TEN_PORTS).check_counts([10, 0, 65_525, 0, 0]);
    Ok(())
}

fn unreachable() -> Outcome {
    let kinds =
        [Unreachable::Network, Unreachable::Host, Unreachable::Prohibited, Unreachable::Port];
    let host = kinds.into_iter().zip(1..).fold(Host::new(HOST_ADDRESS), |host, (kind, port)| {
        host.ports(&[port], Port::Unreachable(kind))
    });
    // A port with a "port unreachable" error is closed, as with ECONNREFUSED.
    let (by_syn, _) = scan(host.ports(&[5], Port::Open), "toPort=5&include=closed,unreachable")?;
    by_syn.check_open(&[5]).check_counts([1, 1, 0, 3, 0]);
    Ok(())
}

fn ipv6() -> Outcome {
    let address = Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, 1, 1);
    let host = Host::new(address)
        .ports(&TEN_PORTS, Port::Open)
        .ports(&[2], Port::Silent)
        .ports(&[3], Port::Unreachable(Unreachable::Host));
    let (scan, _) = scan(host, FEW_PORTS)?;
    scan.check_open(&TEN_PORTS).check_counts([10, FEW_PORTS_LEN - 12, 1, 1, 0]);
    Ok(())
}

fn lossy() -> Outcome {
    let (scan, _) = scan(host().rtt(Duration::from_millis(50)).loss(0.05), "toPort=65535")?;
    scan.check_open(&TEN_PORTS).check_key("loss_suspected", true).check_key("complete", true);
    assert_eq!(scan.count("open") + scan.count("closed") + scan.count("filtered"), 65_535);
    Ok(())
}

fn descriptors() -> Outcome {
    let lab = Lab::enter()?.start(vec![Host::new(HOST_ADDRESS).rest(Port::Silent)])?;
    let service = Service::start(&[]);
    let before = service.metric("process_open_fds");
    let query = format!("domain={HOST_ADDRESS}&technique=syn&toPort=20000&timeout=20s");
    let running = service.begin_scan(&query, "");
    crate::process::until("every port has been probed", || {
        (service.metric("openports_syns_sent_total") >= 20_000).then_some(())
    });
    // The scan and the requests for metrics have one connection each. The connection of the last
    // request may still be open for a moment.
    crate::process::until("the scan has two descriptors more than its connection", || {
        (service.metric("process_open_fds") == before + 1 + 2).then_some(())
    });
    drop(running);
    drop(service);
    assert_eq!(lab.stop()?.own_losses(), 0);
    Ok(())
}

fn simultaneous() -> Outcome {
    let lab = Lab::enter()?.start(vec![host().rtt(Duration::from_millis(20))])?;
    let service = Service::start(&[]);
    let scans: Vec<_> = ["connect", "syn", "syn", "connect"]
        .map(|technique| format!("domain={HOST_ADDRESS}&{FEW_PORTS}&technique={technique}"))
        .map(|query| service.begin_scan(&query, ""))
        .into();
    for mut client in scans {
        let scan = Scan::of(client.receive("GET"));
        scan.check_open(&TEN_PORTS).check_counts([10, FEW_PORTS_LEN - 10, 0, 0, 0]);
    }
    drop(service);
    assert_eq!(lab.stop()?.own_losses(), 0);
    Ok(())
}

fn without_capability() -> Outcome {
    let lab = Lab::enter()?.start(vec![host()])?;
    let binary = env!("CARGO_BIN_EXE_openports");
    // setpriv(1) is part of util-linux, like unshare(1).
    let output = Command::new("setpriv")
        .args(["--bounding-set", "-net_raw", "--inh-caps", "-net_raw", "--"])
        .args([binary, "scan", "--technique", "syn", &HOST_ADDRESS.to_string(), "22"])
        .output()?;
    let message = String::from_utf8(output.stderr)?;
    assert_eq!(output.status.code(), Some(71), "{message}");
    for word in ["--technique syn", "CAP_NET_RAW", "setcap", "podman", "Kubernetes"] {
        assert!(message.contains(word), "{word} is missing: {message}");
    }
    assert_eq!(message.lines().count(), 1, "{message}");
    assert_eq!(lab.stop()?.syns, 0);
    Ok(())
}
