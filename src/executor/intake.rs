//! Reading an order: one frame and its descriptors, within a time and a size.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use super::streams;
use crate::sys::fdpass;
use crate::sys::pipe::{self, Kind, Thing};
use crate::sys::poll;
use crate::sys::user::Uid;
use crate::wire::control::Control;
use crate::wire::frame::{self, FrameError};
use crate::wire::limits;
use crate::wire::order::{DETACHED_DESCRIPTORS, Order};
use crate::wire::refusal::Refusal;

/// An order with what came along, checked against each other.
#[derive(Debug)]
pub struct Intake {
    /// Decoded; its own limits are checked by the decision.
    pub order: Order,
    /// The script's standard input, output and error.
    pub stdio: [OwnedFd; 3],
    /// What a detached order brings besides; `None` for an attached one.
    pub job: Option<Job>,
}

/// The descriptors of a detached order.
#[derive(Debug)]
pub struct Job {
    /// Where the outcome is written.
    pub status: OwnedFd,
    /// Held until the outcome is written.
    pub lock: OwnedFd,
    /// A byte in it cancels.
    pub cancel: OwnedFd,
}

/// What a connection asks for.
#[derive(Debug)]
pub enum Asked {
    /// A script.
    Order(Intake),
    /// Something of the executor itself.
    Control(Control),
}

/// Reads what a connection asks for. `front_end` is the account that it comes from, if that is known without the connection's
/// own word.
///
/// # Errors
/// The refusal that tells the front-end what is wrong with what it sent.
pub fn take(connection: &OwnedFd, front_end: Option<Uid>, deadline: Instant) -> Result<Asked, Refusal> {
    let mut reader = Reader { connection, deadline, descriptors: None };
    let prefix = reader.exactly(frame::PREFIX)?.try_into().map_err(|_| malformed("there is no length"))?;
    let size = frame::announced(prefix, limits::ORDER).map_err(|error| refusal(&error))?;
    let body = reader.exactly(size)?;
    let descriptors = reader.descriptors.unwrap_or_default();
    match frame::decode::<Control>(&body) {
        Ok(control) if descriptors.is_empty() => return Ok(Asked::Control(control)),
        Ok(_) => {
            return Err(Refusal::new("order-descriptors", "a word of control brings no descriptors"));
        }
        Err(_) => {}
    }
    let order: Order = frame::decode(&body).map_err(|error| refusal(&error))?;
    let intake = sort(order, descriptors)?;
    // Noted by the kernel when the connection was made.
    let noted = || fdpass::peer(connection).map(|peer| peer.uid);
    let front_end = front_end.map_or_else(noted, Ok);
    streams::judge(&intake.stdio, front_end.map_err(|error| malformed(&format!("nobody has sent it: {error}")))?)?;
    Ok(Asked::Order(intake))
}

/// Gives each descriptor its role, after a look at its kind.
fn sort(order: Order, descriptors: Vec<OwnedFd>) -> Result<Intake, Refusal> {
    let (found, wanted) = (descriptors.len(), order.descriptors());
    let wrong = |text: String| Refusal::new("order-descriptors", text);
    let mut each = descriptors.into_iter();
    let (Some(input), Some(output), Some(error), true) = (each.next(), each.next(), each.next(), found == wanted)
    else {
        return Err(wrong(format!("the order brings {found} descriptors instead of {wanted}")));
    };
    let stream = |kind: Kind| kind.thing != Thing::Other;
    let fits = |fd: &OwnedFd, test: fn(Kind) -> bool| pipe::kind(fd).is_ok_and(|kind| stream(kind) && test(kind));
    if !fits(&input, |kind| kind.reads) {
        return Err(wrong("standard input is not a pipe, file or device open for reading".to_owned()));
    }
    if !fits(&output, |kind| kind.writes) || !fits(&error, |kind| kind.writes) {
        return Err(wrong("standard output or error is not a pipe, file or device open for writing".to_owned()));
    }
    let job = match (each.next(), each.next(), each.next()) {
        (Some(status), Some(lock), Some(cancel)) => Some(Job { status, lock, cancel }),
        _ => None,
    };
    if let Some(Job { status, lock, cancel }) = &job {
        if !fits(status, |kind| kind.writes && kind.thing == Thing::File) {
            return Err(wrong("the status descriptor is not a file open for writing".to_owned()));
        }
        if !fits(lock, |kind| kind.thing == Thing::File) {
            return Err(wrong("the lock is not a file".to_owned()));
        }
        if !fits(cancel, |kind| kind.reads && kind.thing == Thing::Pipe) {
            return Err(wrong("the descriptor for cancelling is not a pipe open for reading".to_owned()));
        }
    }
    Ok(Intake { order, stdio: [input, output, error], job })
}

struct Reader<'a> {
    connection: &'a OwnedFd,
    deadline: Instant,
    /// What came with the first bytes.
    descriptors: Option<Vec<OwnedFd>>,
}

impl Reader<'_> {
    /// Reads `size` bytes and not one more.
    fn exactly(&mut self, size: usize) -> Result<Vec<u8>, Refusal> {
        let mut bytes = vec![0; size];
        let mut filled = 0;
        while let Some(room) = bytes.get_mut(filled..).filter(|room| !room.is_empty()) {
            filled += self.some(room)?;
        }
        Ok(bytes)
    }

    /// Reads what is there, waiting for it until the deadline; 0 bytes is a reason to come again.
    fn some(&mut self, room: &mut [u8]) -> Result<usize, Refusal> {
        // Descriptors travel with the first byte; later ones are nobody's.
        let most = if self.descriptors.is_none() { DETACHED_DESCRIPTORS } else { 0 };
        match fdpass::receive_at_once(self.connection, room, most) {
            Ok(message) if message.size == 0 => Err(malformed("the connection ended before the order did")),
            Ok(message) => {
                self.descriptors.get_or_insert(message.descriptors);
                Ok(message.size)
            }
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                Err(Refusal::new("order-descriptors", error.to_string()))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.wait().map(|()| 0),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(0),
            Err(error) => Err(malformed(&format!("the connection failed: {error}"))),
        }
    }

    /// Waits until something is there, and no longer than until the deadline.
    fn wait(&self) -> Result<(), Refusal> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        let [ready] = poll::readable([Some(self.connection.as_fd())], Some(left)).unwrap_or_default();
        if left.is_zero() && !ready.readable {
            return Err(Refusal::new("order-late", "the order did not arrive in time"));
        }
        Ok(())
    }
}

fn refusal(error: &FrameError) -> Refusal {
    match error {
        FrameError::TooLarge { .. } => Refusal::new("order-too-large", error.to_string()),
        FrameError::Malformed(cause) => malformed(&cause.to_string()),
    }
}

/// A refusal of what makes no sense here.
pub(super) fn malformed(text: &str) -> Refusal {
    Refusal::new("order-malformed", format!("the order cannot be understood: {text}"))
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::BorrowedFd;
    use std::time::Duration;

    use super::*;
    use crate::wire::control;
    use crate::wire::name::{RequestId, ScriptName};
    use crate::wire::order::Mode;

    fn bytes(mode: Mode) -> Vec<u8> {
        let name = ScriptName::parse("x").unwrap();
        let order = Order::new(name, vec![], RequestId::from_random([0; 8]), mode).unwrap();
        frame::encode(&order, limits::ORDER).unwrap()
    }

    /// Sends `bytes` with `descriptors` and, unless it is to stall, hangs up.
    fn taken(bytes: &[u8], descriptors: &[BorrowedFd<'_>], stall: bool) -> Result<Intake, String> {
        let (ours, theirs) = fdpass::pair(fdpass::Kind::Stream).unwrap();
        fdpass::send(&ours, bytes, descriptors).unwrap();
        let ours = stall.then_some(ours);
        let patience = if stall { Duration::from_millis(30) } else { Duration::from_mins(1) };
        let result = take(&theirs, None, Instant::now() + patience).map_err(|refusal| refusal.code().to_owned());
        drop(ours);
        result.map(|asked| match asked {
            Asked::Order(intake) => intake,
            Asked::Control(word) => panic!("{word:?} is no order"),
        })
    }

    fn null() -> File {
        File::options().read(true).write(true).open("/dev/null").unwrap()
    }

    #[test]
    fn an_order_needs_exactly_its_descriptors() {
        let (null, file, (fifo, _writer)) = (null(), tempfile::tempfile().unwrap(), pipe::pipe().unwrap());
        let (fd, file, fifo) = (null.as_fd(), file.as_fd(), fifo.as_fd());
        assert!(taken(&bytes(Mode::Attached), &[fd; 3], false).unwrap().job.is_none());
        let all = [fd, fd, fd, file, file, fifo];
        assert!(taken(&bytes(Mode::Detached), &all, false).unwrap().job.is_some());
        let wrong: [(Mode, Vec<BorrowedFd<'_>>); 11] = [
            (Mode::Attached, vec![]),
            (Mode::Attached, vec![fd; 2]),
            (Mode::Attached, vec![fd, fd, fd, file]),
            (Mode::Attached, all.to_vec()),
            (Mode::Attached, vec![fd; 7]),
            (Mode::Detached, vec![fd; 3]),
            (Mode::Detached, all[..5].to_vec()),
            (Mode::Detached, [&all[..], &[fd]].concat()),
            (Mode::Detached, vec![fd, fd, fd, fd, file, fifo]),
            (Mode::Detached, vec![fd, fd, fd, file, fifo, fifo]),
            (Mode::Detached, vec![fd, fd, fd, file, file, file]),
        ];
        for (mode, descriptors) in wrong {
            let result = taken(&bytes(mode), &descriptors, false);
            assert_eq!(result.unwrap_err(), "order-descriptors", "{mode:?} {}", descriptors.len());
        }
    }

    #[test]
    fn a_descriptor_of_the_wrong_kind_is_refused() {
        let (null, directory, socket) =
            (null(), File::open("/").unwrap(), std::os::unix::net::UnixStream::pair().unwrap());
        let reads_only = File::open("/dev/null").unwrap();
        let (fd, order) = (null.as_fd(), bytes(Mode::Attached));
        for wrong in [[directory.as_fd(), fd, fd], [fd, socket.0.as_fd(), fd], [fd, fd, reads_only.as_fd()]] {
            assert_eq!(taken(&order, &wrong, false).unwrap_err(), "order-descriptors");
        }
    }

    #[test]
    fn a_stream_that_is_somebody_elses_is_refused_and_the_front_ends_own_is_not() {
        assert!(crate::sys::user::is_root(), "to give files away takes root");
        let place = tempfile::tempdir().unwrap();
        let made = |name: &str, owner| {
            let path = place.path().join(name);
            if name == "fifo" {
                nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
            } else {
                File::create_new(&path).unwrap();
            }
            std::os::unix::fs::chown(&path, owner, None).unwrap();
            File::options().read(true).write(true).open(path).unwrap()
        };
        let (null, order) = (null(), bytes(Mode::Attached));
        let (own, null) = (made("own", Some(0)), null.as_fd());
        for foreign in [made("file", Some(1)), made("fifo", Some(1)), File::open("/dev/zero").unwrap()] {
            for place in 0..3 {
                let mut all = [null; 3];
                all[place] = foreign.as_fd();
                let refused = taken(&order, &all, false).unwrap_err();
                // What is open for reading alone is no output in any case.
                assert!(refused == "order-foreign-file" || refused == "order-descriptors" && place > 0, "{refused}");
            }
        }
        // The same file twice, as for a shell's `2>&1`.
        assert!(taken(&order, &[own.as_fd(), own.as_fd(), own.as_fd()], false).is_ok());
        let job = [null, own.as_fd(), own.as_fd(), own.as_fd(), own.as_fd()];
        let (reader, _writer) = pipe::pipe().unwrap();
        assert!(taken(&bytes(Mode::Detached), &[&job[..], &[reader.as_fd()]].concat(), false).unwrap().job.is_some());
    }

    #[test]
    fn a_front_end_that_is_known_gives_away_what_is_its_own_whoever_is_at_the_other_end() {
        let (file, null, order) = (tempfile::tempfile().unwrap(), null(), bytes(Mode::Attached));
        let given = |front_end: u32| {
            let (ours, theirs) = fdpass::pair(fdpass::Kind::Stream).unwrap();
            fdpass::send(&ours, &order, &[file.as_fd(), null.as_fd(), null.as_fd()]).unwrap();
            let taken = take(&theirs, Some(Uid::from_raw(front_end)), Instant::now() + Duration::from_mins(1));
            taken.map(drop).map_err(|refusal| refusal.code().to_owned())
        };
        // The file is root's, and root has made both ends.
        assert_eq!(given(1).unwrap_err(), "order-foreign-file");
        assert_eq!(given(0), Ok(()));
    }

    #[test]
    fn what_is_not_an_order_is_refused() {
        assert_eq!(taken(b"GET / HTTP/1.1\r\n\r\n", &[], false).unwrap_err(), "order-too-large");
        assert_eq!(taken(&[0, 0, 0, 2, b'{', b'}'], &[], false).unwrap_err(), "order-malformed");
        assert_eq!(taken(&[0, 0, 0, 0], &[], false).unwrap_err(), "order-malformed");
        assert_eq!(taken(&[0xff; 4], &[], false).unwrap_err(), "order-too-large");
        let order = bytes(Mode::Attached);
        assert_eq!(taken(&order[..order.len() - 1], &[], false).unwrap_err(), "order-malformed");
    }

    #[test]
    fn a_word_of_control_is_one_and_brings_nothing() {
        let (null, word) = (null(), frame::encode(&Control::Hello, control::LIMIT).unwrap());
        assert_eq!(taken(&word, &[null.as_fd()], false).unwrap_err(), "order-descriptors");
        let (ours, theirs) = fdpass::pair(fdpass::Kind::Stream).unwrap();
        fdpass::send(&ours, &word, &[]).unwrap();
        let asked = take(&theirs, None, Instant::now() + Duration::from_mins(1)).unwrap();
        assert!(matches!(asked, Asked::Control(Control::Hello)), "{asked:?}");
    }

    #[test]
    fn an_order_that_stalls_is_given_up() {
        let order = bytes(Mode::Attached);
        assert_eq!(taken(&order[..2], &[], true).unwrap_err(), "order-late");
        assert_eq!(taken(&order[..order.len() - 1], &[], true).unwrap_err(), "order-late");
    }

    #[test]
    fn descriptors_behind_the_first_byte_are_refused() {
        let (ours, theirs) = fdpass::pair(fdpass::Kind::Stream).unwrap();
        let (order, null) = (bytes(Mode::Attached), null());
        fdpass::send(&ours, &order[..9], &[null.as_fd(); 3]).unwrap();
        fdpass::send(&ours, &order[9..], &[null.as_fd()]).unwrap();
        let refusal = take(&theirs, None, Instant::now() + Duration::from_mins(1)).unwrap_err();
        assert_eq!(refusal.code(), "order-descriptors");
    }

    #[test]
    fn what_follows_an_order_stays_in_the_connection() {
        let (ours, theirs) = fdpass::pair(fdpass::Kind::Stream).unwrap();
        let null = null();
        let mut two = bytes(Mode::Attached);
        two.extend_from_slice(b"more");
        fdpass::send(&ours, &two, &[null.as_fd(); 3]).unwrap();
        take(&theirs, None, Instant::now() + Duration::from_mins(1)).unwrap();
        let mut rest = [0; 9];
        assert_eq!(fdpass::receive(&theirs, &mut rest, 0).unwrap().size, 4);
    }
}
