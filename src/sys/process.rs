//! This process as seen by other programs: the figures in /proc, and the notifications to the
//! service manager.
//!
//! This module decides nothing. `sys::linux` and `main` call it.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;

use crate::event::ProcessFiles;

/// Reads the files in /proc about this process. A file that cannot be read counts as empty.
pub fn with_process_files(take: impl FnOnce(ProcessFiles)) {
    let read = |name: &str| std::fs::read_to_string(format!("/proc/self/{name}"));
    let [stat, status, limits] =
        ["stat", "status", "limits"].map(|name| read(name).unwrap_or_default());
    let descriptors = Path::new("/proc/self/fd");
    // Since Linux 6.2 the size of the directory is the number of descriptors, so its entries need
    // not be counted.
    let count = match std::fs::metadata(descriptors) {
        Ok(about) if about.size() > 0 => usize::try_from(about.size()).ok(),
        Ok(_) | Err(_) => descriptors.read_dir().map(|found| found.count().saturating_sub(1)).ok(),
    };
    let (stat, status, limits) = (stat.as_str(), status.as_str(), limits.as_str());
    take(ProcessFiles { stat, status, limits, descriptors_open: count });
}

/// Notifies the service manager of a change of state (sd_notify(3)), if there is one. The call
/// never blocks. If the manager does not accept the message, the message is lost, which is no
/// reason to stop.
pub fn notify_manager(state: &str) {
    let Some(at) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let address = match at.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(&at),
    };
    let sent = address.and_then(|address| {
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        socket.send_to_addr(state.as_bytes(), &address)
    });
    drop(sent);
}
