//! The width of the terminal.

/// The number of columns of the terminal at stderr; 80 if it is unknown (ioctl_tty(2), TIOCGWINSZ).
pub fn columns() -> usize {
    const USUAL: usize = 80;
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the request fills a `winsize`; for a descriptor that is not a terminal it fails with
    // ENOTTY.
    let result = unsafe { libc::ioctl(libc::STDERR_FILENO, libc::TIOCGWINSZ, &raw mut size) };
    if result == 0 && size.ws_col > 0 { usize::from(size.ws_col) } else { USUAL }
}
