//! The sockets to which clients connect: bound here, or passed by the service manager.
//!
//! This file belongs to the module `sys`. The file of a Unix socket belongs to this process as long
//! as its [`Listener`] lives, and is removed with it: at the end of a shutdown, after a second
//! signal, and after a failed start.
//!
//! Invariant: no client can connect to a Unix socket before its file has its mode, because only
//! listen(2) permits connections.

use std::ffi::OsString;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::{fmt, fs, io};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::limits;
use crate::listen_address::Listen;

/// The owner and the group may connect. The write permission decides (unix(7)).
const MODE: u32 = 0o660;

/// A socket that listens.
#[derive(Debug)]
pub struct Listener {
    // This is the first field, so that the file is removed before the socket closes. In the other
    // order, the file of another service could be removed.
    _file: Option<SocketFile>,
    pub(super) socket: Socket,
    at: Listen,
}

impl Listener {
    /// Binds and listens. With `[::]`, IPv4 clients can connect too. The file of a Unix socket on
    /// which no process listens is replaced.
    ///
    /// # Errors
    /// Errors of socket(2), bind(2), listen(2) and chmod(2): the address is in use, belongs to
    /// another machine, or is not permitted.
    pub fn bind(at: &Listen) -> io::Result<Self> {
        let kind = Type::STREAM.nonblocking().cloexec();
        let (socket, file) = match at {
            Listen::Tcp(at) => {
                let socket = Socket::new_raw(Domain::for_address(*at), kind, Some(Protocol::TCP))?;
                socket.set_reuse_address(true)?;
                if at.is_ipv6() {
                    socket.set_only_v6(false)?;
                }
                socket.bind(&(*at).into())?;
                (socket, None)
            }
            Listen::Unix(path) => {
                let socket = Socket::new_raw(Domain::UNIX, kind, None)?;
                let file = bind_file(&socket, path)?;
                (socket, Some(file))
            }
        };
        // The kernel limits the queue to net.core.somaxconn.
        socket.listen(limits::ACCEPT_QUEUE_MAX as i32)?;
        let at = bound_address(&socket)?;
        Ok(Self { _file: file, socket, at })
    }

    /// Takes over a socket that listens already. Its file, if it has one, belongs to the process
    /// that created it.
    pub(super) fn adopt(socket: Socket) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        let at = bound_address(&socket)?;
        Ok(Self { _file: None, socket, at })
    }

    /// The bound address, including the assigned port.
    pub const fn at(&self) -> &Listen {
        &self.at
    }
}

impl AsRawFd for Listener {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

/// The address to which a socket is bound. For a Unix socket in the abstract namespace, it is the
/// name after an `@`.
fn bound_address(socket: &Socket) -> io::Result<Listen> {
    let address = socket.local_addr()?;
    if let Some(at) = address.as_socket() {
        return Ok(Listen::Tcp(at));
    }
    if !address.is_unix() {
        return Err(io::Error::other("is neither a TCP nor a Unix socket"));
    }
    let name = address.as_abstract_namespace().unwrap_or_default();
    let at = format!("@{}", String::from_utf8_lossy(name));
    Ok(Listen::Unix(address.as_pathname().map_or_else(|| at.into(), Path::to_path_buf)))
}

/// The file of a Unix socket, which is removed when this value is dropped.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    /// The device and the inode, which no other file has while the socket is bound to this one.
    identity: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // If another process has replaced the file, the new file stays. If the removal fails, a
        // stale file is left, which does no harm.
        if identity(&self.path).is_ok_and(|found| found == self.identity) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|found| (found.dev(), found.ino()))
}

/// Binds to a file with the mode [`MODE`].
fn bind_file(socket: &Socket, path: &Path) -> io::Result<SocketFile> {
    let address = SockAddr::unix(path)?;
    match socket.bind(&address) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            remove_stale(path, &address)?;
            socket.bind(&address)?;
        }
        bound => bound?,
    }
    let identity = identity(path).inspect_err(|_| {
        // The file was created by the bind above, so it belongs to this process even if that cannot
        // be checked.
        let _ = fs::remove_file(path);
    })?;
    let file = SocketFile { path: path.to_owned(), identity };
    // umask(2) is not used, because it applies to the whole process. Until listen(2) no client can
    // connect.
    fs::set_permissions(path, fs::Permissions::from_mode(MODE))?;
    Ok(file)
}

/// Removes the file of a socket on which no process listens: a connect to it is refused (unix(7)).
fn remove_stale(path: &Path, address: &SockAddr) -> io::Result<()> {
    if !fs::symlink_metadata(path)?.file_type().is_socket() {
        return Err(io::Error::other("a file is there that is no socket"));
    }
    let probe = Socket::new_raw(Domain::UNIX, Type::STREAM.nonblocking().cloexec(), None)?;
    match probe.connect(address) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        // A full queue (EAGAIN) has a listener too.
        Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
        Ok(()) | Err(_) => Err(io::Error::other("another process listens there")),
    }
}

/// The reason why passed descriptors are refused.
#[derive(Debug)]
pub enum PassedError {
    /// The value of this variable is not a number, or is too large.
    Variable(&'static str, OsString),
    /// This descriptor is not a listener.
    Descriptor(RawFd, io::Error),
}

impl fmt::Display for PassedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Variable(name, value) => {
                let max = limits::PASSED_LISTENERS_MAX;
                write!(f, "{name} {value:?}: expected a number (of listeners, {max} at most)")
            }
            Self::Descriptor(descriptor, error) => {
                write!(f, "LISTEN_FDS: descriptor {descriptor}: {error}")
            }
        }
    }
}

impl std::error::Error for PassedError {}

/// The number of descriptors that were passed to the process with the id `own`. It is 0 if they
/// were passed to another process (sd_listen_fds(3)).
pub(super) fn passed_count(
    own: u32,
    env: impl Fn(&str) -> Option<OsString>,
) -> Result<usize, PassedError> {
    let number = |name: &'static str| -> Result<Option<u32>, PassedError> {
        let Some(value) = env(name) else { return Ok(None) };
        let read = value.to_str().and_then(|text| text.parse().ok());
        read.map(Some).ok_or(PassedError::Variable(name, value))
    };
    if number("LISTEN_PID")? != Some(own) {
        return Ok(0);
    }
    let count = number("LISTEN_FDS")?.unwrap_or(0) as usize;
    if count > limits::PASSED_LISTENERS_MAX {
        return Err(PassedError::Variable("LISTEN_FDS", count.to_string().into()));
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_are_counted_only_if_the_variables_name_this_process() {
        let check = |pid: Option<&str>, fds: Option<&str>, expected: Result<usize, &str>| {
            let env = |name: &str| if name == "LISTEN_PID" { pid } else { fds }.map(Into::into);
            let count = passed_count(7, env).map_err(|error| match error {
                PassedError::Variable(name, _) => name,
                PassedError::Descriptor(..) => "a descriptor",
            });
            assert_eq!(count, expected, "LISTEN_PID={pid:?} LISTEN_FDS={fds:?}");
        };
        check(None, None, Ok(0));
        check(None, Some("1"), Ok(0));
        check(Some("8"), Some("1"), Ok(0));
        check(Some("8"), Some("x"), Ok(0));
        check(Some("7"), None, Ok(0));
        check(Some("7"), Some("0"), Ok(0));
        check(Some("7"), Some("2"), Ok(2));
        check(Some("7"), Some("64"), Ok(64));
        for fds in ["65", "-1", "", " 1", "4294967296"] {
            check(Some("7"), Some(fds), Err("LISTEN_FDS"));
        }
        for pid in ["", "x", "-7"] {
            check(Some(pid), Some("1"), Err("LISTEN_PID"));
        }
    }
}
