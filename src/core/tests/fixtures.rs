//! Fixtures of the tests of the core's modules: a core without descriptors, and its actions.

use std::time::{Duration, Instant, SystemTime};

use super::Core;
use super::options::Options;
use super::sockets::StreamOwner;
use crate::access::browser::HostGuard;
use crate::budget::Shares;
use crate::event::{Action, Backlog, Event};
use crate::limits::Settings;
use crate::policy::{Exposure, Policy};
use crate::port_set::PortSet;
use crate::report::log::{Level, LogFormat};
use crate::scan::Scan;
use crate::scan::options::ScanOptions;
use crate::scan::plan::{Plan, RateShare};
use crate::service_names::Names;
use crate::slots::Key;
use crate::technique::PerTechnique;

/// A core that scans loopback only, with a cap of `connections` connections.
pub(in crate::core) fn core(connections: usize) -> Core {
    core_with(connections, |_| ())
}

/// The same with other options.
pub(in crate::core) fn core_with(connections: usize, change: impl FnOnce(&mut Options)) -> Core {
    let mut options = Options {
        settings: Settings::default(),
        shares: Shares { connections, lookups: 2, probes: PerTechnique::new(|_| 10) },
        policy: Policy { allow: Vec::new(), deny: Vec::new(), exposure: Exposure::LoopbackOnly },
        host_guard: HostGuard { exposure: Exposure::LoopbackOnly, names: Vec::new() },
        token: None,
        proxies: Default::default(),
        names: Names::default(),
        log_level: Level::Warn,
        log_format: LogFormat::Logfmt,
        seed: 1,
    };
    change(&mut options);
    Core::new(options, SystemTime::UNIX_EPOCH)
}

/// The answer to a new client that sends this request and reads nothing.
pub(in crate::core) fn ask(core: &mut Core, now: Instant, request: &str) -> String {
    let client = core.handle_accepted(None, now);
    core.handle(Event::Received { socket: client, bytes: request.as_bytes() }, now);
    String::from_utf8_lossy(core.output(client)).into_owned()
}

/// All actions that are due now.
pub(in crate::core) fn acts(core: &mut Core, now: Instant) -> Vec<Action> {
    let mut actions = vec![core.poll_action(now)];
    while !matches!(actions[..], [.., Action::Yield | Action::Wait(_) | Action::Exit(_)]) {
        actions.push(core.poll_action(now));
    }
    actions
}

/// The log records that are due now. Other actions are dropped.
pub(in crate::core) fn records(core: &mut Core, now: Instant) -> Vec<String> {
    let record = |action| if let Action::Log(record) = action { Some(record) } else { None };
    acts(core, now).into_iter().filter_map(record).collect()
}

/// A tick of the loop begins.
pub(in crate::core) fn tick(core: &mut Core, now: Instant) {
    core.handle(Event::Tick { worked: Duration::ZERO, backlog: Backlog::None }, now);
}

/// The client of a socket; `None` once it was closed.
pub(in crate::core) fn client_key(core: &Core, socket: Key) -> Option<Key> {
    match core.sockets.stream_owner(socket) {
        Some(StreamOwner::Client(client)) => Some(client),
        Some(StreamOwner::Lookup(_)) | None => None,
    }
}

/// Whether the client of a socket is connected.
pub(in crate::core) fn is_connected(core: &Core, socket: Key) -> bool {
    client_key(core, socket).is_some_and(|client| core.responder.clients().client(client).is_some())
}

/// Whether a scan runs for the client of a socket.
pub(in crate::core) fn is_scanning(core: &Core, socket: Key) -> bool {
    let client =
        client_key(core, socket).and_then(|client| core.responder.clients().client(client));
    client.is_some_and(|client| client.scan().is_some())
}

/// The number of bytes that are kept for the client of a socket.
pub(in crate::core) fn pending_bytes(core: &Core, socket: Key) -> usize {
    let client =
        client_key(core, socket).and_then(|client| core.responder.clients().client(client));
    client.map_or(0, |client| client.pending_bytes())
}

/// A scan of one port of loopback that has sent nothing.
pub(in crate::core) fn scan_of_one_port() -> Scan {
    let now = Instant::now();
    let plan = Plan {
        target: ([127, 0, 0, 1], 22).into(),
        is_routed: true,
        share: RateShare::WHOLE,
        ports: PortSet::from_range(22, 22),
        options: ScanOptions::default(),
        ends_at: now + Duration::from_secs(300),
    };
    let mut scan = Scan::new(now, plan);
    scan.set_allowance(1);
    scan
}
