//! A scan of more on-link addresses than the neighbour table of the kernel has entries.

use std::collections::BTreeSet;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::network::{isolated, skip};
use crate::process::{Folder, command};

/// This exceeds the default of gc_thresh3, which all namespaces share and cannot change.
const ADDRESSES: u16 = 1500;
/// One address of this many is alive.
const ALIVE_EVERY: u16 = 50;

/// A network namespace at the other end of a veth pair. Its kernel answers ARP requests for the
/// alive addresses and refuses every connection to them.
struct Peer(Child);

impl Peer {
    fn start(alive: &BTreeSet<String>) -> Option<Self> {
        let mut holder = Command::new("unshare");
        holder.args(["-n", "sh", "-c", "echo; exec sleep 600"]);
        let mut peer = Self(holder.stdout(Stdio::piped()).spawn().ok()?);
        // The output shows that the namespace exists.
        std::io::Read::read(peer.0.stdout.as_mut()?, &mut [0]).ok()?;
        let pid = peer.0.id();
        let add = |address: &String| format!("addr add {address}/32 dev v1\n");
        let addresses: String = alive.iter().map(add).collect();
        let script = format!(
            "ip link add v0 type veth peer name v1 netns {pid} \
             && ip addr add 10.77.255.254/16 dev v0 && ip link set v0 up \
             && nsenter -t {pid} -n sh -c 'ip link set lo up && ip link set v1 up \
             && ip route add 10.77.255.254 dev v1 && printf \"$1\" | ip -b -' sh \"$1\""
        );
        let done = Command::new("sh").args(["-c", &script, "sh", &addresses]).status();
        done.is_ok_and(|status| status.success()).then_some(peer)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn unresolved_on_link_addresses_do_not_disturb_the_scan_of_others() {
    isolated(|| {
        let address = |n: u16| format!("10.77.{}.{}", n / 250, n % 250 + 1);
        let alive: BTreeSet<String> =
            (0..ADDRESSES).step_by(ALIVE_EVERY.into()).map(|n| address(n + 7)).collect();
        let Some(_peer) = Peer::start(&alive) else {
            return skip("veth pairs and nsenter are not available here");
        };
        let folder = Folder::new("neighbours");
        let list: String = (0..ADDRESSES).map(|n| address(n) + "\n").collect();
        let list = folder.write("targets", &list);
        let args = ["scan", "--targets", &list, "22", "--json", "--timeout", "2s"];
        let ended = command(None, &args).output().expect("the scan starts");
        let stdout = String::from_utf8(ended.stdout).expect("the output is UTF-8");
        assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
        let answers: Vec<Value> = stdout
            .lines()
            .map(|line| serde_json::from_str(line).expect("each line is JSON"))
            .collect();
        assert_eq!(answers.len(), usize::from(ADDRESSES));
        for answer in &answers {
            let name = answer["domain"].as_str().expect("`domain` is a string");
            let is_closed = answer["counts"]["closed"] == 1;
            assert_eq!(is_closed, alive.contains(name), "{answer}");
            assert_eq!(answer["complete"], true, "{answer}");
        }
    });
}
