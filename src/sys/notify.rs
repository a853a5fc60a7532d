//! Telling the service manager how we are (`sd_notify(3)`): one datagram of `KEY=value` lines to `NOTIFY_SOCKET`.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use nix::time::{ClockId, clock_gettime};

/// Where notifications go; nowhere if no service manager asked for them.
#[derive(Debug, Default)]
pub struct Notifier {
    target: Option<(UnixDatagram, SocketAddr)>,
}

impl Notifier {
    /// From `NOTIFY_SOCKET`.
    ///
    /// # Errors
    /// The variable is set and names no address that could be a socket's.
    pub fn from_env() -> io::Result<Self> {
        Self::new(std::env::var_os("NOTIFY_SOCKET").as_deref())
    }

    /// From an address: an absolute path, or `@` and an abstract name. `None` and the empty one go nowhere.
    ///
    /// # Errors
    /// Any other address, or one that is too long.
    pub fn new(address: Option<&OsStr>) -> io::Result<Self> {
        let Some(address) = address.filter(|address| !address.is_empty()) else { return Ok(Self::default()) };
        let address = match address.as_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
            [b'/', ..] => SocketAddr::from_pathname(address)?,
            _ => {
                let text = "NOTIFY_SOCKET is neither an absolute path nor an abstract name";
                return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
            }
        };
        Ok(Self { target: Some((UnixDatagram::unbound()?, address)) })
    }

    /// Started, or finished reloading. `extra` adds lines of our own, which others ignore.
    ///
    /// # Errors
    /// The manager's socket is gone.
    pub fn ready(&self, status: &str, extra: &[(&str, &str)]) -> io::Result<()> {
        let mut lines = vec![("READY", "1"), ("STATUS", status)];
        lines.extend_from_slice(extra);
        self.send(&lines)
    }

    /// Reloading begins; [`Notifier::ready`] ends it (`Type=notify-reload` compares the time stamp with its own).
    ///
    /// # Errors
    /// As [`Notifier::ready`].
    pub fn reloading(&self) -> io::Result<()> {
        self.send(&[("RELOADING", "1"), ("MONOTONIC_USEC", &monotonic_micros()?.to_string())])
    }

    /// Stopping begins.
    ///
    /// # Errors
    /// As [`Notifier::ready`].
    pub fn stopping(&self) -> io::Result<()> {
        self.send(&[("STOPPING", "1")])
    }

    /// Line ends within a value become blanks, so that a value stays one line.
    fn send(&self, lines: &[(&str, &str)]) -> io::Result<()> {
        let Some((socket, address)) = &self.target else { return Ok(()) };
        let mut text = String::new();
        for (key, value) in lines {
            text.extend([key, "=", &value.replace(['\n', '\r'], " "), "\n"]);
        }
        socket.send_to_addr(text.as_bytes(), address).map(drop)
    }
}

/// `CLOCK_MONOTONIC` in microseconds: the clock that systemd asks for, which the standard library keeps to itself.
fn monotonic_micros() -> io::Result<u64> {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC)?;
    let (seconds, nanos) = (u64::try_from(now.tv_sec()).unwrap_or(0), u64::try_from(now.tv_nsec()).unwrap_or(0));
    Ok(seconds.saturating_mul(1_000_000).saturating_add(nanos / 1000))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn heard(listener: &UnixDatagram) -> String {
        let mut buffer = [0; 500];
        listener.set_read_timeout(Some(Duration::from_mins(1))).unwrap();
        let size = listener.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..size].to_vec()).unwrap()
    }

    #[test]
    fn a_path_hears_each_state() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let listener = UnixDatagram::bind(&path).unwrap();
        let notifier = Notifier::new(Some(path.as_os_str())).unwrap();
        notifier.ready("up\nREADY=0", &[("X_CTRL_EXEC_ADDRESS", "127.0.0.1:7443")]).unwrap();
        assert_eq!(heard(&listener), "READY=1\nSTATUS=up READY=0\nX_CTRL_EXEC_ADDRESS=127.0.0.1:7443\n");
        notifier.stopping().unwrap();
        assert_eq!(heard(&listener), "STOPPING=1\n");
        notifier.reloading().unwrap();
        let text = heard(&listener);
        let time = text.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap().trim_end().parse::<u64>().unwrap();
        assert!(time > 0 && time <= monotonic_micros().unwrap());
    }

    #[test]
    fn an_abstract_name_hears_too() {
        let name = format!("ctrl-exec-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let listener = UnixDatagram::bind_addr(&address).unwrap();
        let notifier = Notifier::new(Some(OsStr::new(&format!("@{name}")))).unwrap();
        notifier.ready("up", &[]).unwrap();
        assert_eq!(heard(&listener), "READY=1\nSTATUS=up\n");
    }

    #[test]
    fn nobody_listening_is_no_error_and_nonsense_is_one() {
        let silent = Notifier::new(None).unwrap();
        assert!(silent.target.is_none());
        silent.ready("up", &[]).unwrap();
        assert!(Notifier::new(Some(OsStr::new("relative"))).is_err());
        assert!(Notifier::new(Some(OsStr::new(""))).is_ok_and(|notifier| notifier.target.is_none()));
    }
}
