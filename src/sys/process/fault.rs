//! Why a new process never became its program, told to its parent through a pipe.

use std::fmt;
use std::io::{self, Read};
use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::unistd;

/// Longest message, in bytes: it must fit a pipe's atomic write (`PIPE_BUF`, pipe(7)).
const LONGEST: usize = 4096;

/// A step that failed in a new process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    step: &'static str,
    errno: Errno,
    about: String,
    confinement: bool,
}

impl Fault {
    /// Gives an error the step that it belongs to, in kebab-case.
    pub fn at<E: Into<io::Error>>(step: &'static str) -> impl Fn(E) -> Self {
        move |error| {
            let errno = Errno::from_raw(error.into().raw_os_error().unwrap_or(libc::EIO));
            Self { step, errno, about: String::new(), confinement: false }
        }
    }

    /// As [`Fault::at`], for a step of the confinement.
    pub fn confining<E: Into<io::Error>>(step: &'static str) -> impl Fn(E) -> Self {
        move |error| Self { confinement: true, ..Self::at(step)(error) }
    }

    /// A confinement that was read back and is not the one that was ordered.
    #[must_use]
    pub fn unproven(step: &'static str, what: impl fmt::Display) -> Self {
        Self { step, errno: Errno::UnknownErrno, about: what.to_string(), confinement: true }
    }

    /// Names the thing that the step was busy with, or says what is wrong with it.
    #[must_use]
    pub fn about(self, thing: impl fmt::Display) -> Self {
        Self { about: thing.to_string(), ..self }
    }

    /// Whether the thing does not exist.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.errno == Errno::ENOENT
    }

    /// Tells the parent. If it is gone, nobody wants to know.
    pub fn report(&self, pipe: &OwnedFd) {
        let size = [u8::try_from(self.step.len()).unwrap_or(u8::MAX)];
        let errno = (self.errno as i32).to_ne_bytes();
        let kind = [u8::from(self.confinement)];
        let mut bytes = [&kind[..], &errno, &size, self.step.as_bytes(), self.about.as_bytes()].concat();
        bytes.truncate(LONGEST);
        let _ = unistd::write(pipe, &bytes);
    }
}

/// A [`Fault`] as the parent hears it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    step: String,
    errno: Errno,
    about: String,
    confinement: bool,
}

impl Failure {
    /// Reads the verdict: `None` if the program runs (or the process was killed on the way to it).
    ///
    /// # Errors
    /// The pipe cannot be read.
    pub fn read(verdict: OwnedFd) -> io::Result<Option<Self>> {
        let mut bytes = Vec::new();
        let most = u64::try_from(LONGEST).unwrap_or(u64::MAX);
        std::fs::File::from(verdict).take(most).read_to_end(&mut bytes)?;
        Ok(Self::from_bytes(&bytes))
    }

    /// What [`Fault::report`] wrote; `None` if that is not whole.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let [kind, a, b, c, d, size, rest @ ..] = bytes else { return None };
        let (step, about) = rest.split_at_checked(usize::from(*size)).unwrap_or((rest, &[]));
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        let errno = Errno::from_raw(i32::from_ne_bytes([*a, *b, *c, *d]));
        Some(Self { step: text(step), errno, about: text(about), confinement: *kind != 0 })
    }

    /// The step that failed, in kebab-case; `exec` for the program itself.
    #[must_use]
    pub fn step(&self) -> &str {
        &self.step
    }

    /// The system's reason.
    #[must_use]
    pub fn reason(&self) -> io::Error {
        self.errno.into()
    }

    /// Whether it was a step of the confinement.
    #[must_use]
    pub const fn is_confinement(&self) -> bool {
        self.confinement
    }
}

/// The thing, if there is one to name, and the system's reason, if there is one.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.about.as_str(), self.errno) {
            ("", errno) => errno.desc().fmt(f),
            (about, Errno::UnknownErrno) => about.fmt(f),
            (about, errno) => write!(f, "{about}: {}", errno.desc()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::pipe;

    fn heard(fault: &Fault) -> Failure {
        let (reader, writer) = pipe::pipe().unwrap();
        fault.report(&writer);
        drop(writer);
        Failure::read(reader).unwrap().unwrap()
    }

    #[test]
    fn step_thing_and_reason_cross_the_pipe() {
        let failure = heard(&Fault::confining("writable")(Errno::ENOENT).about("/srv/data"));
        assert_eq!((failure.step(), failure.is_confinement()), ("writable", true));
        assert_eq!(failure.to_string(), "/srv/data: No such file or directory");
        assert_eq!(failure.reason().kind(), io::ErrorKind::NotFound);
        assert_eq!(heard(&Fault::at("exec")(Errno::EACCES)).to_string(), "Permission denied");
        assert_eq!(heard(&Fault::unproven("user", "uid 1 instead of 2")).to_string(), "uid 1 instead of 2");
    }

    #[test]
    fn a_long_thing_is_cut_and_nothing_at_all_is_no_failure() {
        let failure = heard(&Fault::confining("x")(Errno::EPERM).about("é".repeat(9000)));
        assert_eq!(failure.step(), "x");
        let (reader, _) = pipe::pipe().unwrap();
        assert_eq!(Failure::read(reader).unwrap(), None);
    }
}
