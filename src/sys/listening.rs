//! Who listens on a TCP port of this host, as the kernel tells it (`/proc/net/tcp`, `proc_net_tcp(5)`).

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The state `TCP_LISTEN` in these tables.
const LISTEN: &str = "0A";

/// A socket that listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listening {
    /// Where; unspecified is everywhere.
    pub address: IpAddr,
    /// Whose the socket is.
    pub uid: u32,
    inode: u64,
}

impl Listening {
    /// Whether it keeps another socket from listening at this address of the same port.
    #[must_use]
    pub fn stands_in_the_way_of(&self, address: IpAddr) -> bool {
        self.address == address || self.address.is_unspecified() || address.is_unspecified()
    }

    /// Whether a process has it open; `None` where that is none of this user's business, or the process is gone.
    #[must_use]
    pub fn is_held_by(&self, process: u32) -> Option<bool> {
        let wanted = format!("socket:[{}]", self.inode);
        let open = fs::read_dir(format!("/proc/{process}/fd")).ok()?;
        let is_it = |entry: fs::DirEntry| fs::read_link(entry.path()).is_ok_and(|leads| leads.as_os_str() == &*wanted);
        Some(open.flatten().any(is_it))
    }

    /// The first process that has it open, as far as this user may see.
    #[must_use]
    pub fn holder(&self) -> Option<u32> {
        let entries = fs::read_dir("/proc").ok()?;
        let mut numbers = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        numbers.find(|process| self.is_held_by(*process) == Some(true))
    }
}

/// Every socket of this network namespace that listens on the port.
///
/// # Errors
/// There is no `/proc`.
pub fn on(port: u16) -> io::Result<Vec<Listening>> {
    let mut found = table(&fs::read_to_string("/proc/net/tcp")?, port);
    // A kernel without IPv6 has no such table.
    found.extend(fs::read_to_string("/proc/net/tcp6").map(|text| table(&text, port)).unwrap_or_default());
    Ok(found)
}

fn table(text: &str, port: u16) -> Vec<Listening> {
    text.lines().filter_map(|line| row(line, port)).collect()
}

/// `sl local remote state queues timer retransmits uid timeout inode ...`.
fn row(line: &str, port: u16) -> Option<Listening> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let (local, state) = (fields.next()?, fields.nth(1)?);
    let (address, number) = local.split_once(':')?;
    if state != LISTEN || u16::from_str_radix(number, 16).ok()? != port {
        return None;
    }
    let (uid, inode) = (fields.nth(3)?.parse().ok()?, fields.nth(1)?.parse().ok()?);
    Some(Listening { address: parse(address)?.to_canonical(), uid, inode })
}

/// Words of four bytes, each as the machine orders them.
fn parse(hex: &str) -> Option<IpAddr> {
    let word = |at: usize| u32::from_str_radix(hex.get(at * 8..at * 8 + 8)?, 16).ok().map(u32::to_ne_bytes);
    if hex.len() == 8 {
        return Some(Ipv4Addr::from(word(0)?).into());
    }
    let words = [word(0)?, word(1)?, word(2)?, word(3)?];
    let octets: [u8; 16] = words.concat().try_into().ok()?;
    Some(Ipv6Addr::from(octets).into())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_socket_is_found_where_it_listens_and_with_whom() {
        for address in ["127.0.0.1", "::1", "0.0.0.0", "::"] {
            let address: IpAddr = address.parse().unwrap();
            let socket = TcpListener::bind((address, 0)).unwrap();
            let port = socket.local_addr().unwrap().port();
            let found = on(port).unwrap().into_iter().find(|found| found.address == address).unwrap();
            assert_eq!((found.uid, found.is_held_by(std::process::id())), (0, Some(true)), "{address}");
            // A process that another test has just started may have it for a moment too, and come first.
            let deadline = std::time::Instant::now() + std::time::Duration::from_mins(1);
            while found.holder() != Some(std::process::id()) {
                assert!(std::time::Instant::now() < deadline, "{address}: {:?}", found.holder());
            }
            assert!(found.stands_in_the_way_of(address) && found.stands_in_the_way_of(Ipv6Addr::UNSPECIFIED.into()));
            assert_eq!(found.stands_in_the_way_of("127.9.9.9".parse().unwrap()), address.is_unspecified());
            assert_eq!(found.is_held_by(1), Some(false));
            drop(socket);
            // It may have it a moment longer, too.
            while on(port).unwrap().iter().any(|other| other.inode == found.inode) {
                assert!(std::time::Instant::now() < deadline, "{address}");
                std::thread::yield_now();
            }
        }
    }
}
