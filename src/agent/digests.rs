//! The digests of the scripts' files, for `GET /capabilities`: a script that was changed shows in every discovery.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::orders::Orders;
use crate::conf::scripts::Allowlist;
use crate::sys::file::{self, Version};
use crate::wire::control::{Contents, Control};
use crate::wire::hex;

/// Largest file whose digest is shown, in bytes: reading it takes a second or so.
const SIZE: u64 = 256 << 20;

/// Digests that were taken, each of one state of a file, so that what has not changed is not read again.
#[derive(Clone, Debug, Default)]
pub struct Digests {
    own: Arc<Mutex<HashMap<PathBuf, (Version, String)>>>,
    /// What the executor has said, and of which states.
    told: Arc<Mutex<(Contents, Contents)>>,
}

impl Digests {
    /// The digests of all scripts now, by path, in hex. A file that the agent may not read, or
    /// that is larger than 256 MiB, has none. It reads files:
    /// not for a thread that serves others.
    #[must_use]
    pub fn of(&self, allowlist: &Allowlist) -> HashMap<PathBuf, String> {
        let before = self.own.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let paths = allowlist.iter().map(|entry| entry.path().to_owned());
        let now: HashMap<_, _> = paths.filter_map(|path| taken(&path, &before).map(|taken| (path, taken))).collect();
        let digests = now.iter().map(|(path, (_, digest))| (path.clone(), digest.clone())).collect();
        // Only what the allowlist names is kept.
        *self.own.lock().unwrap_or_else(PoisonError::into_inner) = now;
        digests
    }

    /// The digests that a root executor knows, by name, in hex; of files that this agent may not read too. None where it does
    /// not answer.
    pub async fn told(&self, orders: &Orders) -> Contents {
        let Ok(states) = orders.contents(Control::Versions).await else { return Contents::default() };
        let (of, known) = self.told.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if of == states {
            return known;
        }
        // What changes between the two questions shows in the states at the next.
        let Ok(digests) = orders.contents(Control::Digests).await else { return Contents::default() };
        *self.told.lock().unwrap_or_else(PoisonError::into_inner) = (states, digests.clone());
        digests
    }
}

/// Whether [`Digests::of`] has one of the file at `path`, with the rights that this process has.
#[must_use]
pub fn is_taken_of(path: &Path) -> bool {
    Version::of(path).is_ok_and(|version| version.size() <= SIZE) && std::fs::File::open(path).is_ok()
}

fn taken(path: &Path, before: &HashMap<PathBuf, (Version, String)>) -> Option<(Version, String)> {
    let version = Version::of(path).ok().filter(|version| version.size() <= SIZE)?;
    let known = before.get(path).filter(|(of, _)| *of == version);
    known.cloned().or_else(|| file::digest(path).ok().map(|(version, digest)| (version, hex::encode(&digest))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conf::Source;
    use crate::sys::file::Access;

    #[test]
    fn a_changed_file_has_a_new_digest_and_a_missing_one_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        let text = format!("a = {}\nb = /no/such/file\n", path.display());
        let (allowlist, _) = Allowlist::parse(&Source::new("s.conf", text)).unwrap();
        let digests = Digests::default();
        let write = |text: &str| file::write_atomic(&path, text.as_bytes(), Access::private()).unwrap();
        assert!(digests.of(&allowlist).is_empty());
        write("abc");
        let first = digests.of(&allowlist);
        assert_eq!(first[&path], "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(digests.of(&allowlist), first);
        write("abcd");
        assert_ne!(digests.of(&allowlist)[&path], first[&path]);
        let (none, _) = Allowlist::parse(&Source::new("s.conf", "")).unwrap();
        assert!(digests.of(&none).is_empty() && digests.own.lock().unwrap().is_empty());
    }
}
