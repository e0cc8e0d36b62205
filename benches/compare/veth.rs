//! Another network namespace, connected by a veth pair. A real kernel answers over Ethernet.

use std::io::Read;
use std::process::{Child, Command, Stdio};

use crate::cases;

/// The process of the far end with its ten open ports. Dropping it ends the process.
#[derive(Debug)]
pub(crate) struct Veth {
    child: Child,
}

/// Connects this namespace (`lab0`, 10.99.0.1) with that of process `$1` (10.99.1.1). The far end
/// has the same hardware address as the lab's host at 10.99.1.1.
const CONNECT: &str = "
set -e
ip link add lab0 type veth peer name far0 address 02:04:0a:63:01:01 netns $1
ip address add 10.99.0.1/16 dev lab0
ip link set lab0 up
nsenter --net --target $1 ip address add 10.99.1.1/16 dev far0
nsenter --net --target $1 ip link set far0 up
";

impl Veth {
    /// Must be called in a namespace without a device `lab0`.
    pub(crate) fn start() -> Result<Self, String> {
        let program = std::env::current_exe().map_err(|error| error.to_string())?;
        let mut unshare = Command::new("unshare");
        let unshare = unshare.arg("--net").arg(program).args(["cell", "far-end"]);
        let unshare = unshare.stdin(Stdio::piped()).stdout(Stdio::piped());
        let child = unshare.spawn().map_err(|error| format!("unshare: {error}"))?;
        // From here on, `Drop` ends the process.
        let mut veth = Self { child };
        let mut ready = [0];
        let stdout = veth.child.stdout.as_mut().ok_or("the far end has no output")?;
        stdout.read_exact(&mut ready).map_err(|_| "the far end does not listen")?;
        let mut shell = Command::new("sh");
        let shell = shell.args(["-c", CONNECT, "sh", &veth.child.id().to_string()]);
        let output = shell.output().map_err(|error| format!("sh: {error}"))?;
        if output.status.success() {
            return Ok(veth);
        }
        let message = String::from_utf8_lossy(&output.stderr).trim().replace('\n', " ");
        Err(format!("the veth pair cannot be created: {message}"))
    }
}

impl Drop for Veth {
    fn drop(&mut self) {
        // Both calls fail only if the process has already exited.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The process of the far end, which listens until its input ends.
pub(crate) fn run_far_end() -> std::io::Result<()> {
    let _listeners = cases::listen()?;
    std::io::Write::write_all(&mut std::io::stdout(), b"r")?;
    std::io::Write::flush(&mut std::io::stdout())?;
    std::io::stdin().read_to_end(&mut Vec::new()).map(drop)
}
