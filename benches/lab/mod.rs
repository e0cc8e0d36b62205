//! The lab: a network of simulated hosts, with the real kernel's TCP on our side.
//!
//! [`Lab::enter`] moves this process into its own user and network namespaces, which needs only the
//! permission to create a user namespace. There, a TUN device at 10.99.0.1/16 and fd99::1/64 is the
//! only network. [`Network::start`] spawns one thread that reads the packets of the kernel from the
//! device and simulates every [`Host`] behind it: round trip, loss, silence, limits, ICMP errors.
//! Child processes inherit the namespace, so any program can be measured in it. No packet can leave
//! the namespace or enter it.
//!
//! Include it with `#[path = "…/benches/lab/mod.rs"] mod lab;`.
//!
//! Invariants: every segment read is counted under exactly one fate. The lab itself loses no
//! packet, or [`Stats::own_losses`] shows it.
#![allow(dead_code, reason = "each program that includes the lab uses a part of it")]

mod ethernet;
mod host;
mod link;
mod ports;
mod simulator;
mod stats;
mod sys;
mod wire;

use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

#[allow(unused_imports, reason = "each program that includes the lab uses a part of it")]
pub(crate) use host::{DownAfter, Host, Outages, RttChange};
#[allow(unused_imports, reason = "each program that includes the lab uses a part of it")]
pub(crate) use link::{Ban, Bursts, Direction, Dropped, HalfOpenTable, Link, Reorder};
#[allow(unused_imports, reason = "each program that includes the lab uses a part of it")]
pub(crate) use ports::Port;
pub(crate) use stats::Stats;
#[allow(unused_imports, reason = "each program that includes the lab uses a part of it")]
pub(crate) use wire::Unreachable;

use simulator::{SLEEP_MAX, Simulator};

/// Our own address in the lab; the hosts are in the rest of 10.99.0.0/16.
pub(crate) const OWN_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);
/// Our own address in fd99::/64.
pub(crate) const OWN_ADDRESS_6: Ipv6Addr = Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, 0, 1);
/// The address for a single host.
pub(crate) const HOST_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 99, 1, 1);
/// Ten ports that a host may have open: the first and the last, well-known ones, and some of the
/// kernel's ephemeral range.
pub(crate) const TEN_PORTS: [u16; 10] =
    [1, 22, 80, 443, 3306, 8080, 20_000, 33_333, 50_000, 65_535];

const DEVICE: &str = "lab0";
/// The device's queue. It holds more than three SYNs for each port, so that it never drops one.
const QUEUE_PACKETS: u32 = 200_000;
/// The kernel's default for loopback, which does not use its queue.
const LOOPBACK_QUEUE_PACKETS: u32 = 1000;
/// The maximum time until the kernel has created a route, which usually takes milliseconds.
const ROUTE_TIMEOUT: Duration = Duration::from_secs(5);

/// The reason why the lab cannot start on this system.
#[derive(Debug)]
pub(crate) struct Unavailable {
    step: &'static str,
    error: io::Error,
}

impl std::fmt::Display for Unavailable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the lab is not available here: {}: {}", self.step, self.error)
    }
}

impl std::error::Error for Unavailable {}

/// The namespace with its device, before the hosts start. Packets wait in the device until then.
#[derive(Debug)]
pub(crate) struct Network {
    device: File,
    medium: Medium,
    link: Link,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Medium {
    /// A TUN device: IP packets without hardware addresses.
    PointToPoint,
    /// A TAP device: the kernel keeps a table of neighbours, and requests the hardware address of
    /// each. Only hosts of the lab reply; every other address stays unresolved.
    Ethernet,
}

/// A running network of hosts. Dropping it stops the hosts; the namespace remains.
#[derive(Debug)]
pub(crate) struct Lab {
    /// Keeps the device and its counter of drops after the end of the thread.
    _device: Arc<File>,
    stats: Arc<Mutex<Stats>>,
    must_stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Lab {
    /// Moves this process into its own namespaces, with a TUN device. The process must have only
    /// one thread.
    pub(crate) fn enter() -> Result<Network, Unavailable> {
        Self::enter_by(Medium::PointToPoint)
    }

    /// Like [`Lab::enter`], with this kind of device.
    pub(crate) fn enter_by(medium: Medium) -> Result<Network, Unavailable> {
        let failed = |step| move |error| Unavailable { step, error };
        let (user, group) = sys::ids();
        sys::unshare_user_and_network().map_err(failed(
            "unshare of user and network namespace (one thread, and permitted?)",
        ))?;
        // Without `deny`, an unprivileged process may not map its group (user_namespaces(7)).
        fs::write("/proc/self/setgroups", "deny").map_err(failed("denying setgroups"))?;
        fs::write("/proc/self/uid_map", format!("0 {user} 1"))
            .map_err(failed("mapping the user"))?;
        fs::write("/proc/self/gid_map", format!("0 {group} 1"))
            .map_err(failed("mapping the group"))?;
        let device = sys::open_tun(DEVICE, medium).map_err(failed("opening /dev/net/tun"))?;
        set_up().map_err(failed("setting up the interfaces"))?;
        Ok(Network { device, medium, link: Link::default() })
    }

    pub(crate) fn stats(&self) -> Stats {
        let mut stats = *self.stats.lock().unwrap_or_else(PoisonError::into_inner);
        stats.device_drops = device_drops().unwrap_or(u64::MAX);
        stats
    }

    /// Stops the hosts. Returns the error with which their thread ended, if it failed.
    pub(crate) fn stop(mut self) -> io::Result<Stats> {
        self.join()?;
        Ok(self.stats())
    }

    fn join(&mut self) -> io::Result<()> {
        self.must_stop.store(true, Ordering::Relaxed);
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(result)) => result,
            Some(Err(_)) => Err(io::Error::other("the thread that simulates the hosts panicked")),
            None => Ok(()),
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if let Err(error) = self.join() {
            assert!(std::thread::panicking(), "the lab failed: {error}");
        }
    }
}

impl Network {
    /// Puts all hosts behind this link.
    pub(crate) fn link(self, link: Link) -> Self {
        Self { link, ..self }
    }

    pub(crate) fn start(self, hosts: Vec<Host>) -> io::Result<Lab> {
        let stats = Arc::new(Mutex::new(Stats::default()));
        let must_stop = Arc::new(AtomicBool::new(false));
        let device = Arc::new(self.device);
        let read_from = Arc::clone(&device);
        let mut simulator = Simulator::new(Arc::clone(&device), self.medium, hosts, &self.link);
        let (shared, is_over) = (Arc::clone(&stats), Arc::clone(&must_stop));
        let thread = std::thread::Builder::new().name("lab".into()).spawn(move || {
            sys::sleep_precisely()?;
            while !is_over.load(Ordering::Relaxed) {
                let pause = simulator.run_once()?;
                *shared.lock().unwrap_or_else(PoisonError::into_inner) = simulator.stats();
                if !pause.is_zero() {
                    sys::wait_readable(read_from.as_fd(), pause.min(SLEEP_MAX))?;
                }
            }
            Ok(())
        })?;
        Ok(Lab { _device: device, stats, must_stop, thread: Some(thread) })
    }
}

/// Configures the device, and loopback, which is down in a new namespace.
fn set_up() -> io::Result<()> {
    sys::bring_up("lo", LOOPBACK_QUEUE_PACKETS)?;
    sys::bring_up(DEVICE, QUEUE_PACKETS)?;
    sys::add_address(DEVICE, OWN_ADDRESS.into(), 16)?;
    sys::add_address(DEVICE, OWN_ADDRESS_6.into(), 64)?;
    // The kernel creates the route for incoming IPv6 packets asynchronously.
    let route = format!("{:032x} 80 ", u128::from(OWN_ADDRESS_6));
    let deadline = Instant::now() + ROUTE_TIMEOUT;
    while !fs::read_to_string("/proc/thread-self/net/ipv6_route")?.contains(&route) {
        if Instant::now() > deadline {
            return Err(io::Error::other("the route to our own IPv6 address does not appear"));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// Returns the number of packets for the hosts that the device dropped: the fourth number of the
/// transmitting half of its line (proc_pid_net(5)).
fn device_drops() -> Option<u64> {
    let table = fs::read_to_string("/proc/thread-self/net/dev").ok()?;
    let line = table.lines().find_map(|line| line.trim_start().strip_prefix("lab0:"))?;
    line.split_whitespace().nth(11)?.parse().ok()
}
