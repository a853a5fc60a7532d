//! Storing a pairing: all of it or nothing.
//!
//! Certificate, key, CA and trust are four files, and no rename replaces four files at once. So a journal comes first:
//!
//! 1. everything is written to one file beside the key, `<key>.pairing`, mode 0600, in one atomic step. Before that step
//!    the old pairing is whole, and nothing of the new one exists;
//! 2. CA, key, certificate and trust map are written from the journal, each atomically;
//! 3. the journal is removed, for good: one that came back after a power failure would undo what came after it.
//!
//! Killed between 1 and 3, the host has a journal and perhaps a mixture of old and new files. [`recover`] then does step 2
//! again from its beginning, which gives the same files however far it had come. It is called at the start of every
//! pairing, and the agent calls it before it loads its files.
//!
//! No secret is readable by others for an instant: files are made with the owner's bits alone, and get group and mode
//! before they get a name.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::judge::Sound;
use super::places::Places;
use super::trust_file::{self, TrustFileError};
use crate::conf::agent::pairing_journal;
use crate::pki::key::PrivateKey;
use crate::sys::file::{self, Access, FileError, LockGuard};
use crate::sys::user::Uid;
use crate::wire::name::DispatcherId;
use crate::wire::serial::Serial;

/// Largest journal, in bytes.
const JOURNAL: usize = 1024 * 1024;

/// A pairing that was not stored, or not wholly.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    /// Before the journal was there: the old pairing stands.
    #[error("the new pairing cannot be written: nothing was changed")]
    Begin(#[source] FileError),
    /// Behind it: the new pairing is safe in the journal.
    #[error("the new pairing is complete in {}, but not in place: repeat 'ctrl-exec-agent request-pairing' as root, which finishes \
         it first", journal.display())]
    Finish {
        /// The journal.
        journal: PathBuf,
        /// What is in the way.
        #[source]
        source: FileError,
    },
    /// The same, for the trust map.
    #[error("the new pairing is complete in {}, but not in the trust map", journal.display())]
    Trust {
        /// The journal.
        journal: PathBuf,
        /// What is in the way.
        #[source]
        source: TrustFileError,
    },
    /// A journal that is none.
    #[error("{} is not the journal of a pairing: remove it and pair again", path.display())]
    Damaged {
        /// The journal.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

/// Everything that a pairing stores.
#[derive(Clone, Serialize, Deserialize)]
pub struct Bundle {
    cert: String,
    key: String,
    ca: String,
    trusted: Option<(Serial, DispatcherId)>,
}

impl Bundle {
    /// From an answer that was judged, and the key that it was judged against.
    #[must_use]
    pub fn new(sound: &Sound, key: &PrivateKey) -> Self {
        Self {
            cert: sound.certificate().to_pem(),
            key: key.to_pem(),
            ca: sound.ca().to_pem(),
            trusted: sound.trusted().cloned(),
        }
    }
}

/// Stores a pairing; returns what the operator should know.
///
/// **Invariant:** one at a time. Two that wrote at once could leave the certificate of one beside the key of the other.
pub fn store(places: &Places, bundle: &Bundle) -> Result<Vec<String>, KeepError> {
    let _lock = lock(places).map_err(KeepError::Begin)?;
    write_journal(places, bundle)?;
    apply(places, bundle)
}

/// Finishes a pairing that was interrupted; says whether there was one.
pub fn recover(places: &Places) -> Result<bool, KeepError> {
    let path = journal(places);
    for file in [&places.key, &places.trust] {
        file.parent().into_iter().for_each(file::sweep);
    }
    let unfinished = |source| KeepError::Finish { journal: journal(places), source };
    if read_journal(&path).map_err(unfinished)?.is_none() {
        return Ok(false);
    }
    // Whoever is storing it at this moment finishes it, and then it is no longer there.
    let _lock = lock(places).map_err(unfinished)?;
    let Some(bytes) = read_journal(&path).map_err(unfinished)? else { return Ok(false) };
    let bundle = serde_json::from_slice(&bytes).map_err(|source| KeepError::Damaged { path, source })?;
    apply(places, &bundle).map(|_| true)
}

fn read_journal(path: &Path) -> Result<Option<Vec<u8>>, FileError> {
    match file::read_bounded(path, JOURNAL) {
        // One that a root executor has made, lest a script should.
        Ok(bytes) if bytes.is_empty() => Ok(None),
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Waits until nobody else changes key and certificate, and keeps others from it.
///
/// A file of its own: the directory's lock is the trust map's where both lie in one directory.
pub fn lock(places: &Places) -> Result<LockGuard, FileError> {
    let mut name = journal(places).into_os_string();
    name.push(".lock");
    file::lock_exclusive(Path::new(&name), 0o600)
}

/// Where an unfinished pairing is.
#[must_use]
pub fn journal(places: &Places) -> PathBuf {
    pairing_journal(&places.key)
}

fn write_journal(places: &Places, bundle: &Bundle) -> Result<(), KeepError> {
    // A structure of texts always becomes JSON.
    let text = serde_json::to_vec(bundle).unwrap_or_default();
    file::write_atomic(&journal(places), &text, Access::private()).map_err(KeepError::Begin)
}

fn apply(places: &Places, bundle: &Bundle) -> Result<Vec<String>, KeepError> {
    let journal = journal(places);
    let (owner, warnings) = match places.owner() {
        Ok(owner) => (owner, Vec::new()),
        Err(warning) => (None, vec![warning]),
    };
    let access = |mode| match owner {
        Some((_, group)) => Access::mode(mode).owner(Uid::from_raw(0)).group(group),
        None => Access::mode(mode),
    };
    let write = |path: &Path, text: &str, mode| {
        file::write_atomic(path, text.as_bytes(), access(mode))
            .map_err(|source| KeepError::Finish { journal: journal.clone(), source })
    };
    write(&places.ca, &bundle.ca, 0o644)?;
    write(&places.key, &bundle.key, 0o640)?;
    write(&places.cert, &bundle.cert, 0o640)?;
    if let Some((serial, id)) = bundle.trusted.clone() {
        trust_file::update(&places.trust, |map| drop(map.insert(serial, id)))
            .map_err(|source| KeepError::Trust { journal: journal.clone(), source })?;
    }
    // A renewed certificate that still waits belongs to the key that was just replaced.
    for path in [&places.staged, &journal] {
        match file::remove_for_good(path) {
            Err(error) if !error.is_not_found() => {
                return Err(KeepError::Finish { journal: journal.clone(), source: error });
            }
            _ => {}
        }
    }
    Ok(warnings)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::conf::Root;

    fn bundle(name: &str, serial: &str) -> Bundle {
        Bundle {
            cert: format!("cert {name}"),
            key: format!("key {name}"),
            ca: format!("ca {name}"),
            trusted: Some((Serial::parse_hex(serial).unwrap(), DispatcherId::parse(name).unwrap())),
        }
    }

    fn places() -> (tempfile::TempDir, Places) {
        let dir = tempfile::tempdir().unwrap();
        let places = Places::defaults(&Root::new(Some(dir.path().to_owned())));
        file::create_dir(places.cert.parent().unwrap(), 0o755).unwrap();
        places.check().unwrap();
        (dir, places)
    }

    fn read(path: &Path) -> String {
        std::fs::read_to_string(path).unwrap()
    }

    fn is_paired_as(places: &Places, name: &str) -> bool {
        read(&places.cert) == format!("cert {name}")
            && read(&places.key) == format!("key {name}")
            && read(&places.ca) == format!("ca {name}")
            && read(&places.trust).contains(name)
            && !journal(places).exists()
    }

    #[test]
    fn a_second_pairing_replaces_the_files_and_adds_to_the_trust_map() {
        let (_dir, places) = places();
        store(&places, &bundle("one", "a1")).unwrap();
        std::os::unix::fs::symlink("/nowhere", &places.staged).unwrap();
        store(&places, &bundle("two", "a2")).unwrap();
        assert!(is_paired_as(&places, "two"));
        assert!(read(&places.trust).contains("a1 one\na2 two\n"));
        assert!(places.staged.symlink_metadata().is_err());
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        let modes = [&places.cert, &places.key, &places.ca, &places.trust].map(|path| mode(path));
        assert_eq!(modes, [0o640, 0o640, 0o644, 0o644]);
    }

    /// The states that a kill can leave: a journal, and the first n of the files already replaced.
    #[test]
    fn killed_at_any_step_the_old_pairing_or_the_new_one_comes_out() {
        for steps in 0..=4 {
            let (_dir, places) = places();
            store(&places, &bundle("old", "a1")).unwrap();
            assert!(!recover(&places).unwrap(), "nothing to do before the journal is there");
            assert!(is_paired_as(&places, "old"));
            let new = bundle("new", "a2");
            write_journal(&places, &new).unwrap();
            let files = [(&places.ca, &new.ca), (&places.key, &new.key), (&places.cert, &new.cert)];
            for (path, text) in files.into_iter().take(steps) {
                file::write_atomic(path, text.as_bytes(), Access::private()).unwrap();
            }
            if steps == 4 {
                trust_file::update(&places.trust, |map| {
                    let (serial, id) = new.trusted.clone().unwrap();
                    map.insert(serial, id);
                })
                .unwrap();
            }
            assert!(recover(&places).unwrap());
            assert!(is_paired_as(&places, "new"), "after {steps} steps");
            assert!(read(&places.trust).contains("a1 old"));
            assert!(!recover(&places).unwrap());
        }
    }

    #[test]
    fn two_pairings_that_are_stored_at_once_are_never_mixed() {
        let (_dir, places) = places();
        for round in 0..30 {
            std::thread::scope(|scope| {
                for (name, serial) in [("one", "a1"), ("two", "a2")] {
                    let places = &places;
                    scope.spawn(move || store(places, &bundle(name, serial)).unwrap());
                }
            });
            assert!(is_paired_as(&places, "one") || is_paired_as(&places, "two"), "round {round}");
        }
    }

    #[test]
    fn a_trust_map_that_cannot_be_read_is_not_replaced() {
        let (_dir, places) = places();
        let wide = b"\xff\xfea\x001\x00 \x00m\x00\n\x00";
        file::write_atomic(&places.trust, wide, Access::public()).unwrap();
        assert!(matches!(store(&places, &bundle("one", "a1")), Err(KeepError::Trust { .. })));
        assert_eq!(std::fs::read(&places.trust).unwrap(), wide);
        file::remove(&places.trust).unwrap();
        std::os::unix::fs::symlink("/nowhere", &places.trust).unwrap();
        assert!(matches!(store(&places, &bundle("one", "a1")), Err(KeepError::Trust { .. })));
    }

    #[test]
    fn a_pairing_does_not_take_away_the_dispatcher_behind_a_byte_order_mark() {
        let (_dir, places) = places();
        let before = b"\xef\xbb\xbfd15b01 disp-a\n# M\xfcller's\nd15b02 disp-b\n";
        file::write_atomic(&places.trust, before, Access::public()).unwrap();
        store(&places, &bundle("one", "a1")).unwrap();
        let after = std::fs::read(&places.trust).unwrap();
        assert_eq!(after, b"d15b01 disp-a\n# M\xfcller's\nd15b02 disp-b\na1 one\n");
    }

    #[test]
    fn a_journal_is_for_nobody_else() {
        let (_dir, places) = places();
        write_journal(&places, &bundle("one", "a1")).unwrap();
        let mode = std::fs::metadata(journal(&places)).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o600);
        // An empty one is none, and stays.
        file::write_atomic(&journal(&places), b"", Access::private()).unwrap();
        assert!(!recover(&places).unwrap() && journal(&places).exists());
        file::write_atomic(&journal(&places), b"junk", Access::private()).unwrap();
        assert!(matches!(recover(&places), Err(KeepError::Damaged { .. })));
    }
}
