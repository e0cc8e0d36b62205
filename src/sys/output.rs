//! A file that receives the results instead of stdout, and that replaces an existing file only at
//! the end.
//!
//! Results are written to a temporary file in the same directory, which is renamed (rename(2) is
//! atomic) after all results are written. Until then, and if an error occurs, an existing file of
//! that name stays unchanged. A file that can be written but not replaced, such as a mount point,
//! gets the contents of the temporary file at the end. A path that is not a regular file, such as a
//! FIFO or `/dev/full`, is written directly. So is `/dev/stdout`, even if stdout is a regular file:
//! its earlier contents, and what other programs write to it, would be lost with a replacement.
//! This file belongs to the module `sys`; `shell` calls it.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::{STDOUT, check};

/// A file that receives the output for stdout.
#[derive(Debug)]
pub struct OutputFile {
    file: File,
    /// The file to be replaced, and its replacement; `None` if the file is written directly.
    rename: Option<Rename>,
}

#[derive(Debug)]
struct Rename {
    from: PathBuf,
    to: PathBuf,
}

impl OutputFile {
    /// Checks that the file can be written, and leaves its contents unchanged. Opening a FIFO
    /// without a reader blocks until there is one; `wait` is called before that.
    ///
    /// # Errors
    /// Errors of open(2), with a text that says how to correct them.
    pub fn create(path: &Path, wait: impl FnOnce()) -> io::Result<Self> {
        let (path, descriptor) = follow(path);
        if let Some(descriptor) = descriptor {
            // SAFETY: a number without an open descriptor is an error of dup(2), and the new
            // descriptor has no other owner.
            let file = unsafe { File::from_raw_fd(check(libc::dup(descriptor))?) };
            return Ok(Self { file, rename: None });
        }
        let path = path.as_path();
        let to = match fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => {
                return Err(io::Error::from(io::ErrorKind::IsADirectory));
            }
            Ok(metadata) if !metadata.is_file() => {
                let mut early = File::options();
                early.write(true).custom_flags(libc::O_NONBLOCK);
                let early = metadata.file_type().is_fifo().then(|| early.open(path));
                // The FIFO has no reader (fifo(7)).
                if let Some(Err(error)) = &early
                    && error.raw_os_error() == Some(libc::ENXIO)
                {
                    wait();
                }
                let file = File::options().write(true).open(path)?;
                return Ok(Self { file, rename: None });
            }
            Ok(_) => {
                File::options().append(true).open(path)?;
                fs::canonicalize(path)?
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => path.to_owned(),
            Err(error) => return Err(error),
        };
        // `file_name` ignores "/" and "/." at the end, with which a path is that of a directory.
        let is_at_end = |name: &&OsStr| to.as_os_str().as_bytes().ends_with(name.as_bytes());
        let Some(name) = to.file_name().filter(is_at_end) else {
            return Err(io::Error::other("this is no name of a file"));
        };
        let (from, file) =
            create_temporary(&to, name).map_err(|error| match error.raw_os_error() {
                Some(libc::ENOENT) => io::Error::other("there is no such directory"),
                _ => io::Error::other(format!("no file can be created beside it: {error}")),
            })?;
        let metadata = fs::metadata(&to);
        let created = Self { file, rename: Some(Rename { from, to }) };
        if let Ok(metadata) = metadata {
            created.file.set_permissions(metadata.permissions())?;
        }
        Ok(created)
    }

    /// Whether the file is replaced at the end. Otherwise results may be in it after an error.
    pub const fn is_replaced(&self) -> bool {
        self.rename.is_some()
    }

    /// Makes stdout refer to the file.
    ///
    /// # Errors
    /// Errors of dup2(2).
    pub fn redirect_stdout(&self) -> io::Result<()> {
        // SAFETY: both are open descriptors. The previous file of stdout is closed, and it has no
        // other owner.
        check(unsafe { libc::dup2(self.file.as_raw_fd(), STDOUT) }).map(|_| ())
    }

    /// Replaces the file with the new contents, if these are complete: they must end with `tail`.
    ///
    /// # Errors
    /// Errors of write(2), fsync(2) and rename(2), and an error if the contents are incomplete. The
    /// contents then stay in the temporary file, which the error names.
    pub fn commit(mut self, tail: &str) -> io::Result<()> {
        let Some(rename) = self.rename.take() else { return Ok(()) };
        self.finish(tail).and_then(|()| self.replace(&rename)).map_err(|error| {
            io::Error::other(format!("{error}; the output is kept in {:?}", rename.from))
        })
    }

    /// Checks that the contents end with `tail`, and writes them to the disk.
    fn finish(&mut self, tail: &str) -> io::Result<()> {
        let len = self.file.seek(SeekFrom::End(0))?;
        let mut end = String::new();
        self.file.seek(SeekFrom::Start(len.saturating_sub(tail.len() as u64)))?;
        self.file.read_to_string(&mut end)?;
        if end != tail {
            return Err(io::Error::other("the scan was cut short before all was written"));
        }
        self.file.sync_all()
    }

    /// Renames the temporary file. A mount point cannot be replaced (EBUSY), nor can another user's
    /// file in a directory with the sticky bit (EPERM); it is written to instead.
    fn replace(&mut self, rename: &Rename) -> io::Result<()> {
        let Err(error) = fs::rename(&rename.from, &rename.to) else { return Ok(()) };
        let Some(libc::EBUSY | libc::EXDEV | libc::EPERM | libc::EACCES) = error.raw_os_error()
        else {
            return Err(error);
        };
        let mut options = File::options();
        let Ok(mut to) = options.write(true).truncate(true).open(&rename.to) else {
            return Err(error);
        };
        self.file.rewind()?;
        let mut buffer = [0; 1 << 13];
        loop {
            let count = self.file.read(&mut buffer)?;
            if count == 0 {
                break;
            }
            to.write_all(&buffer[..count])?;
        }
        to.sync_all()?;
        let _ = fs::remove_file(&rename.from);
        Ok(())
    }

    /// Leaves a file that would have been replaced unchanged. Returns the error that prevents
    /// further writing, if it still occurs.
    pub fn discard(mut self) -> Option<io::Error> {
        let failure = self.file.write_all(&[b'\n'; 4096]).and_then(|()| self.file.sync_all());
        if let Some(rename) = self.rename.take() {
            let _ = fs::remove_file(&rename.from);
        }
        failure.err()
    }
}

impl Drop for OutputFile {
    /// Removes the temporary file of a run that ended before its first result.
    fn drop(&mut self) {
        if let Some(rename) = &self.rename
            && self.file.metadata().is_ok_and(|metadata| metadata.len() == 0)
        {
            let _ = fs::remove_file(&rename.from);
        }
    }
}

/// The maximum number of temporary files that killed runs have left.
const LEFTOVERS_MAX: u32 = 1000;
/// A longer name is not part of the name of the temporary file, because a name has at most 255
/// bytes (NAME_MAX), and fewer in some file systems.
const NAME_BYTES_MAX: usize = 100;

/// Creates a temporary file beside the file `to`, which has this name. A run that was killed has
/// left its file, and the process id may be the same again, as in a container.
fn create_temporary(to: &Path, name: &OsStr) -> io::Result<(PathBuf, File)> {
    let name = if name.len() > NAME_BYTES_MAX { OsStr::new("openports") } else { name };
    let mut number = 0;
    loop {
        let id = std::process::id();
        let suffix = if number == 0 { format!(".{id}.tmp") } else { format!(".{id}.{number}.tmp") };
        let mut temporary = OsString::from(".");
        temporary.push(name);
        temporary.push(suffix);
        let from = to.with_file_name(temporary);
        match File::options().read(true).write(true).create_new(true).open(&from) {
            Err(error)
                if error.kind() == io::ErrorKind::AlreadyExists && number < LEFTOVERS_MAX =>
            {
                number += 1;
            }
            opened => return opened.map(|file| (from, file)),
        }
    }
}

/// Whether both paths lead to the same regular file.
pub fn is_same_file(one: &Path, other: &Path) -> bool {
    let identity = |path| {
        let metadata = fs::metadata(path).ok().filter(fs::Metadata::is_file)?;
        Some((metadata.dev(), metadata.ino()))
    };
    identity(one).is_some_and(|one| identity(other) == Some(one))
}

/// The maximum number of symbolic links, as in path_resolution(7).
const LINKS_MAX: usize = 40;

/// The file to which a path points, which is replaced instead of a symbolic link to it, and which
/// need not exist. If it is an open descriptor of this process, such as `/dev/stdout`, also its
/// number (proc_pid_fd(5)).
fn follow(path: &Path) -> (PathBuf, Option<RawFd>) {
    let descriptors = fs::canonicalize("/proc/self/fd").ok();
    let mut at = path.to_owned();
    for _ in 0..LINKS_MAX {
        let parent = at.parent().filter(|parent| !parent.as_os_str().is_empty());
        let folder = fs::canonicalize(parent.unwrap_or_else(|| Path::new("."))).ok();
        if folder.is_some() && folder == descriptors {
            let number = at.file_name().and_then(|name| name.to_str()?.parse().ok());
            return (at, number);
        }
        let Ok(target) = fs::read_link(&at) else { break };
        // A relative target is relative to the folder of the link.
        at = folder.unwrap_or_default().join(target);
    }
    (at, None)
}
