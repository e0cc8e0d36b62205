//! Reads the files of the configuration: resolv.conf, the hosts file and the file of the token.
//!
//! Opening them never blocks, because the event loop reads them again. This file belongs to the
//! module `sys`; `sys::linux` and `main` call it.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// Opens a file that is read several times: what was read from a pipe cannot be read again, and
/// without O_NONBLOCK, open(2) would wait for the writer of a FIFO. `/dev/null` is an empty file.
fn open_regular(path: &Path) -> io::Result<File> {
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let metadata = file.metadata()?;
    if metadata.is_file() || metadata.rdev() == NULL_DEVICE {
        return Ok(file);
    }
    Err(io::Error::other("must be a regular file, because it is read several times"))
}

/// The device number of `/dev/null` (null(4)).
const NULL_DEVICE: libc::dev_t = libc::makedev(1, 3);

/// The first lines of a file, at most `bytes_max` bytes. A missing file counts as empty. `None` if
/// the file cannot be read, so that nothing is known about its contents.
pub fn read_file(path: &Path, bytes_max: usize) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    match open_regular(path) {
        Ok(file) => drop(file.take(bytes_max as u64 + 1).read_to_end(&mut bytes).ok()?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(_) => return None,
    }
    if bytes.len() > bytes_max {
        // The part of a line could mean something else, such as the beginning of a longer name.
        let last_end = bytes[..bytes_max].iter().rposition(|byte| *byte == b'\n');
        bytes.truncate(last_end.map_or(0, |at| at + 1));
    }
    Some(bytes)
}

/// The text of a file that must be secret.
///
/// # Errors
/// Errors of open(2) and read(2), and an error if the file is not a regular one, or if all users of
/// the machine can read it.
pub fn read_secret(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = open_regular(path)?;
    let metadata = file.metadata()?;
    // Everybody can read `/dev/null`, and must be able to.
    if metadata.is_file() && metadata.permissions().mode() & 0o004 != 0 {
        return Err(io::Error::other("everybody can read it: chmod o-r"));
    }
    file.take(SECRET_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The number of bytes of a secret that are read. A token is shorter.
const SECRET_BYTES_MAX: u64 = 4096;

/// Checks that a file can be read. A default file, which may be missing in a container, need not
/// exist; a file that the user named must exist.
///
/// # Errors
/// Errors of open(2) and read(2), and an error if the file is not a regular one.
pub fn check_readable(path: &Path) -> io::Result<()> {
    let is_systems = [RESOLV_CONF, HOSTS].iter().any(|known| path == Path::new(known));
    match open_regular(path).and_then(|mut file| file.read(&mut [0])) {
        Err(error) if is_systems && error.kind() == io::ErrorKind::NotFound => Ok(()),
        opened => opened.map(drop),
    }
}

/// The path of resolv.conf(5).
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// The path of hosts(5).
const HOSTS: &str = "/etc/hosts";
