//! The addresses of this machine and its interfaces (getifaddrs(3)).

use std::ffi::CStr;
use std::io;
use std::net::{IpAddr, UdpSocket};

use socket2::SockAddr;

use super::check;

/// Checks that an address belongs to this machine.
///
/// # Errors
/// Errors of bind(2), for example EADDRNOTAVAIL if the address does not belong to this machine.
pub fn check_local(address: IpAddr) -> io::Result<()> {
    UdpSocket::bind((address, 0)).map(|_| ())
}

/// The addresses of an interface that can be the source of packets. Link-local IPv6 addresses are
/// left out, because few targets can answer them. `None` if there is no such interface.
///
/// # Errors
/// Errors of getifaddrs(3).
pub fn addresses(interface: &str) -> io::Result<Option<Vec<IpAddr>>> {
    let mut list = std::ptr::null_mut();
    // SAFETY: the call writes a pointer, and the list is freed below.
    check(unsafe { libc::getifaddrs(&raw mut list) })?;
    let (mut found, mut at) = (None, list);
    // SAFETY: each entry is valid until the list is freed, and the `ifa_next` of the last entry is
    // null.
    while let Some(entry) = unsafe { at.as_ref() } {
        at = entry.ifa_next;
        // SAFETY: the name is a string that lives as long as the entry.
        if unsafe { CStr::from_ptr(entry.ifa_name) }.to_bytes() != interface.as_bytes() {
            continue;
        }
        let addresses: &mut Vec<IpAddr> = found.get_or_insert_default();
        // SAFETY: the pointer is null or points to a socket address that lives as long as the
        // entry.
        if let Some(address) = unsafe { entry.ifa_addr.as_ref() } {
            addresses.extend(ip_of(address));
        }
    }
    // SAFETY: the list came from getifaddrs, and no reference to it is kept.
    unsafe { libc::freeifaddrs(list) };
    Ok(found)
}

/// The IP address of a socket address, unless it is link-local or of another family.
fn ip_of(address: &libc::sockaddr) -> Option<IpAddr> {
    let len = match i32::from(address.sa_family) {
        libc::AF_INET => size_of::<libc::sockaddr_in>(),
        libc::AF_INET6 => size_of::<libc::sockaddr_in6>(),
        _ => return None,
    };
    let fill = |storage: *mut socket2::SockAddrStorage, written: *mut libc::socklen_t| {
        let from = std::ptr::from_ref(address).cast::<u8>();
        // SAFETY: an address of this family has `len` bytes, and the storage has space for every
        // family.
        unsafe {
            std::ptr::copy_nonoverlapping(from, storage.cast::<u8>(), len);
            *written = len as libc::socklen_t;
        }
        Ok(())
    };
    // SAFETY: the storage is filled with an address of this length.
    let ((), address) = unsafe { SockAddr::try_init(fill) }.ok()?;
    let ip = address.as_socket()?.ip();
    let is_link_local = matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local());
    (!is_link_local).then_some(ip)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_interface_has_the_loopback_address() {
        let loopback = addresses("lo").unwrap().unwrap();
        assert!(loopback.contains(&[127, 0, 0, 1].into()), "{loopback:?}");
        assert_eq!(addresses("nosuchinterface").unwrap(), None);
    }

    #[test]
    fn a_foreign_address_does_not_belong_to_this_machine() {
        assert!(check_local([127, 0, 0, 1].into()).is_ok());
        assert!(check_local([192, 0, 2, 1].into()).is_err());
    }
}
