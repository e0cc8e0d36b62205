//! Reads lists of targets line by line, because they may be larger than memory. This file belongs
//! to the module `sys`; `shell` calls it.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use crate::limits;

/// Opens a list. Opening a FIFO without a writer blocks until there is one, as in every program.
/// `wait` is called before that, so that it can print a message.
///
/// # Errors
/// Errors of open(2) and read(2), and an error if the path is a directory.
pub fn open_list(path: &Path, wait: impl FnOnce()) -> io::Result<Box<dyn Read>> {
    let metadata = std::fs::metadata(path)?;
    if metadata.is_dir() {
        return Err(io::Error::from(io::ErrorKind::IsADirectory));
    }
    if !metadata.file_type().is_fifo() {
        return Ok(Box::new(File::open(path)?));
    }
    let mut options = File::options();
    let mut early = options.read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let mut first = [0];
    // Without a writer a FIFO is at its end at once (fifo(7)). With a writer, read(2) returns a
    // byte or EAGAIN.
    let count = match early.read(&mut first) {
        Ok(0) => {
            drop(early);
            wait();
            return Ok(Box::new(File::open(path)?));
        }
        Ok(count) => count,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
        Err(error) => return Err(error),
    };
    // The first descriptor stays open until the second one is open, so that the writer never gets
    // EPIPE.
    let rest = File::open(path)?;
    drop(early);
    Ok(Box::new(io::Cursor::new(first).take(count as u64).chain(rest)))
}

/// Passes each line of a list to `take`, without its line end.
///
/// # Errors
/// Errors of read(2), and an error with the line number for a line of more than
/// [`limits::TARGET_LINE_BYTES_MAX`] bytes.
pub fn read_lines(source: impl Read, mut take: impl FnMut(&[u8])) -> io::Result<()> {
    let mut reader = BufReader::with_capacity(1 << 16, source);
    let mut line = Vec::new();
    for number in 1_u64.. {
        line.clear();
        let most = limits::TARGET_LINE_BYTES_MAX as u64 + 1;
        let count = (&mut reader).take(most).read_until(b'\n', &mut line)?;
        if count == 0 {
            break;
        }
        if count as u64 == most {
            let most = limits::TARGET_LINE_BYTES_MAX;
            let text = format!("line {number} is longer than {most} bytes: is this a list?");
            return Err(io::Error::other(text));
        }
        if line.last() == Some(&b'\n') {
            line.pop();
        }
        take(&line);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_read_line_by_line_with_or_without_a_final_line_end() {
        for (text, expected) in [
            (&b""[..], &[][..]),
            (b"a", &["a"]),
            (b"a\n", &["a"]),
            (b"\n\na\r\nb", &["", "", "a\r", "b"]),
        ] {
            let mut lines = Vec::new();
            read_lines(text, |line| lines.push(String::from_utf8_lossy(line).into_owned()))
                .unwrap();
            assert_eq!(lines, expected);
        }
    }

    #[test]
    fn a_line_without_end_is_refused_by_its_number() {
        let endless = b"a\n".chain(io::repeat(b'x'));
        let error = read_lines(endless, |_| {}).unwrap_err().to_string();
        assert!(error.starts_with("line 2 is longer than"), "{error}");
    }
}
