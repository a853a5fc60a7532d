//! The system's log, as a socket below an agent's root.

use std::cell::RefCell;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use super::DEADLINE;
use super::audit::Line;

/// A listening log daemon.
#[derive(Debug)]
pub(crate) struct Log {
    socket: UnixDatagram,
    seen: RefCell<Vec<String>>,
}

impl Log {
    /// Listens at `place` below `root`.
    pub(crate) fn listen(root: &Path, place: &str) -> Self {
        let path = root.join(place);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let socket = UnixDatagram::bind(&path).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o777)).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        Self { socket, seen: RefCell::default() }
    }

    /// Waits for a datagram that holds this text; one that came before counts as well.
    pub(crate) fn with(&self, text: &str) -> String {
        self.find(|line| line.contains(text)).expect("a line in the log")
    }

    /// Waits for a line of syslog with this severity of the facility `daemon` and exactly these fields in this order;
    /// `*` stands for any value. Each line is found once.
    #[track_caller]
    pub(crate) fn line(&self, severity: u8, want: &[&str]) -> Line {
        let priority = format!("<{}>", 24 + severity);
        let of = |text: &str| {
            let (head, message) = text.split_once("]: ")?;
            let line = Line::of_message(head.rsplit(' ').next()?.split('[').next()?, message);
            (head.starts_with(&priority) && line.matches(want)).then_some(line)
        };
        let Some(found) = self.find(|text| of(text).is_some()) else {
            let action = format!("{} ", want[0]);
            let seen = self.seen.borrow();
            let alike: Vec<&String> = seen.iter().filter(|text| text.contains(&action)).collect();
            panic!("no line {priority} {want:?}, but {alike:#?}");
        };
        self.seen.borrow_mut().retain(|text| *text != found);
        of(&found).unwrap()
    }

    fn find(&self, wanted: impl Fn(&str) -> bool) -> Option<String> {
        let mut buffer = vec![0; 256 * 1024];
        let mut searched = 0;
        loop {
            let mut seen = self.seen.borrow_mut();
            if let Some(line) = seen[searched..].iter().find(|line| wanted(line)) {
                return Some(line.clone());
            }
            searched = seen.len();
            let size = self.socket.recv(&mut buffer).ok()?;
            seen.push(String::from_utf8_lossy(&buffer[..size]).into_owned());
        }
    }
}
