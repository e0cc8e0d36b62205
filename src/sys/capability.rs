//! CAP_NET_RAW: effective while a raw socket is created, and otherwise only permitted
//! (capabilities(7)).
//!
//! capset(2) and prctl(2) apply to the calling thread, and this process has only one thread.

use std::io;

/// The bit of CAP_NET_RAW in the first of two words.
const NET_RAW: u32 = 1 << 13;
/// _LINUX_CAPABILITY_VERSION_3.
const VERSION: u32 = 0x2008_0522;

/// `struct __user_cap_header_struct`.
#[repr(C)]
struct Header {
    version: u32,
    pid: libc::c_int,
}

/// `struct __user_cap_data_struct`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sets {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Keeps CAP_NET_RAW permitted, but neither effective nor inheritable by a child, so that it must
/// be raised for each use. If a call is refused, nothing changes.
pub fn restrict_net_raw() {
    // SAFETY: the call takes no pointer; a kernel without ambient capabilities refuses it.
    unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) };
    let Ok(mut sets) = read() else { return };
    sets[0].effective &= !NET_RAW;
    sets[0].inheritable &= !NET_RAW;
    // In a sandbox that forbids the call, the capabilities stay as they are.
    let _: io::Result<()> = write(sets);
}

/// Raises CAP_NET_RAW for one call, if it is permitted.
///
/// # Errors
/// The errors of `call`. Without the capability, `call` itself fails.
pub fn with_net_raw<T>(call: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let Some(before) = read().ok().filter(|sets| sets[0].permitted & NET_RAW != 0) else {
        return call();
    };
    let mut raised = before;
    raised[0].effective |= NET_RAW;
    let _: io::Result<()> = write(raised);
    let result = call();
    let _: io::Result<()> = write(before);
    result
}

/// Reads the capabilities of this thread (capget(2)).
fn read() -> io::Result<[Sets; 2]> {
    let mut header = Header { version: VERSION, pid: 0 };
    let mut sets = [Sets::default(); 2];
    let into = (&raw mut sets).cast::<Sets>();
    // SAFETY: version 3 writes two structures, and both arguments outlive the call.
    let result = unsafe { libc::syscall(libc::SYS_capget, &raw mut header, into) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(sets) }
}

/// Sets the capabilities of this thread (capset(2)).
fn write(sets: [Sets; 2]) -> io::Result<()> {
    let mut header = Header { version: VERSION, pid: 0 };
    let wanted = (&raw const sets).cast::<Sets>();
    // SAFETY: version 3 reads two structures, and both arguments outlive the call.
    let result = unsafe { libc::syscall(libc::SYS_capset, &raw mut header, wanted) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_capability_is_effective_only_during_a_call() {
        // Capabilities belong to a thread, so the other tests keep theirs.
        let sets = std::thread::spawn(|| {
            let permitted = read().unwrap()[0].permitted & NET_RAW;
            restrict_net_raw();
            let during = with_net_raw(|| Ok(read().unwrap()[0])).unwrap();
            (permitted, during, read().unwrap()[0])
        });
        let (permitted, during, after) = sets.join().unwrap();
        assert_eq!(
            during.effective & NET_RAW,
            permitted,
            "the capability is raised if it is permitted"
        );
        assert_eq!(after.effective & NET_RAW, 0);
        assert_eq!(after.inheritable & NET_RAW, 0);
        assert_eq!(after.permitted & NET_RAW, permitted, "the capability can be raised again");
    }
}
