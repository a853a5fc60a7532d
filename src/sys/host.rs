//! What this host calls itself.
#![expect(unsafe_code, reason = "getaddrinfo and getnameinfo have no safe binding here")]

use std::ffi::{CStr, CString};
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::ptr;
use std::sync::mpsc;
use std::time::Duration;

use nix::sys::socket::{SockaddrLike, SockaddrStorage};

/// The kernel's host name; `localhost` if it is unset or not text.
#[must_use]
pub fn hostname() -> String {
    let name = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    name.filter(|name| !name.is_empty()).unwrap_or_else(|| "localhost".to_owned())
}

/// The fully qualified name that the resolver (files and DNS) gives for [`hostname`], or the bare name where it gives
/// none within `limit`. A resolver that hangs costs one thread, which ends when the resolver does.
#[must_use]
pub fn fqdn(limit: Duration) -> String {
    let short = hostname();
    let (sender, receiver) = mpsc::channel();
    let name = short.clone();
    let resolving = std::thread::Builder::new().name("fqdn".to_owned()).spawn(move || {
        // Nobody listens any more when the limit has passed.
        drop(sender.send(canonical(&name)));
    });
    let found = resolving.ok().and_then(|_| receiver.recv_timeout(limit).ok()).flatten();
    found.filter(|name| is_more(name, &short)).unwrap_or(short)
}

/// What the resolver says about an address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reverse {
    /// The name that the address has; empty where it has none.
    pub name: String,
    /// Whether that name leads back to the address.
    pub confirmed: bool,
}

/// Looks an address up, and the name that is found. Never takes longer than `limit`; without an answer by then there is
/// no name. A resolver that hangs costs one thread, which ends when the resolver does.
#[must_use]
pub fn reverse(address: IpAddr, limit: Duration) -> Reverse {
    let (sender, receiver) = mpsc::channel();
    let asking = std::thread::Builder::new().name("reverse-dns".to_owned()).spawn(move || {
        // Nobody listens any more when the limit has passed.
        drop(sender.send(look_back(address)));
    });
    asking.ok().and_then(|_| receiver.recv_timeout(limit).ok()).unwrap_or_default()
}

fn look_back(address: IpAddr) -> Reverse {
    let Some(name) = name_of(address) else { return Reverse::default() };
    let found = (name.as_str(), 0).to_socket_addrs();
    let confirmed = found.is_ok_and(|mut found| found.any(|one| one.ip().to_canonical() == address.to_canonical()));
    Reverse { name, confirmed }
}

/// The name of an address (getnameinfo(3), `NI_NAMEREQD`); only one that is fit to be shown.
fn name_of(address: IpAddr) -> Option<String> {
    let address = SockaddrStorage::from(SocketAddr::new(address.to_canonical(), 0));
    // `NI_MAXHOST`.
    let mut name = [0_u8; 1025];
    let size = libc::socklen_t::try_from(name.len()).unwrap_or(0);
    // SAFETY: the address and its length come from one live value; the buffer is live, writable and of the given size;
    // no service name is asked for, and the call keeps none of the pointers.
    let failed = unsafe {
        libc::getnameinfo(
            address.as_ptr(),
            address.len(),
            name.as_mut_ptr().cast(),
            size,
            ptr::null_mut(),
            0,
            libc::NI_NAMEREQD,
        )
    };
    if failed != 0 {
        return None;
    }
    let text = CStr::from_bytes_until_nul(&name).ok()?.to_str().ok()?;
    // Whoever runs the zone chose these bytes, and an operator's terminal will show them.
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    (!text.is_empty() && text.bytes().all(plain)).then(|| text.to_owned())
}

/// Whether the resolver's answer is a better name than the short one: qualified, and not the loopback's.
fn is_more(name: &str, short: &str) -> bool {
    name.contains('.') && !name.starts_with("localhost") && name != short
}

/// The resolver's canonical name (getaddrinfo(3), `AI_CANONNAME`).
fn canonical(name: &str) -> Option<String> {
    let name = CString::new(name).ok()?;
    // SAFETY: an all-zero `addrinfo` is what getaddrinfo wants for "no hint". `found` is written on success only,
    // read while it is valid and freed once. The canonical name, where there is one, ends in NUL and lives as long.
    unsafe {
        let mut hints: libc::addrinfo = std::mem::zeroed();
        hints.ai_flags = libc::AI_CANONNAME;
        hints.ai_socktype = libc::SOCK_STREAM;
        let mut found: *mut libc::addrinfo = ptr::null_mut();
        if libc::getaddrinfo(name.as_ptr(), ptr::null(), &raw const hints, &raw mut found) != 0 {
            return None;
        }
        let text = found.as_ref().map(|first| first.ai_canonname).filter(|name| !name.is_null());
        let text = text.and_then(|name| CStr::from_ptr(name).to_str().ok()).map(str::to_owned);
        libc::freeaddrinfo(found);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_has_a_name_and_no_time_still_gives_one() {
        assert!(!hostname().is_empty());
        assert!(!fqdn(Duration::ZERO).is_empty());
    }

    #[test]
    fn a_name_from_the_hosts_file_is_resolved_and_nonsense_is_not() {
        assert!(canonical("localhost").is_some_and(|name| name.starts_with("localhost")));
        assert_eq!(canonical("a b"), None);
        assert_eq!(canonical("a\0b"), None);
    }

    #[test]
    fn the_loopback_name_is_nobodys_name() {
        assert!(is_more("web.example.org", "web"));
        assert!(!is_more("localhost.localdomain", "web"));
        assert!(!is_more("web", "web"));
    }

    #[test]
    fn the_loopback_address_has_a_name_that_leads_back_or_none_within_the_limit() {
        let started = std::time::Instant::now();
        let found = reverse(IpAddr::from([127, 0, 0, 1]), Duration::from_secs(2));
        // A resolver that is not given up takes as long as it likes; a busy machine takes its time too.
        assert!(started.elapsed() < Duration::from_secs(32));
        assert!(!found.confirmed || !found.name.is_empty());
    }
}
