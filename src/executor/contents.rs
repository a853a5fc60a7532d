//! What is in the listed scripts' files, for a front-end that may not read them: digests alone, and nothing of a file itself.
//!
//! It is told by a monitor, so that the service goes on meanwhile, and one who asks takes the place of a script.
//!
//! **Invariant:** only of files that nobody but root can have put there: through another's link, the digest of any file of root's
//! could be had.

use std::io;
use std::path::Path;

use super::policy::{Paths, Policy};
use crate::sys::file::{self, Version};
use crate::wire::control::{Contents, Control};
use crate::wire::hex;

/// Largest file that is read, in bytes; as front-ends hold it.
const SIZE: u64 = 256 << 20;

/// The answer to a word that is about the scripts' files, if this is one and a root executor is asked. Of a file that is not
/// there, or not to be trusted, nothing is said.
pub(super) fn asked(word: Control, policy: &Policy) -> Option<Contents> {
    let tell = match word {
        Control::Versions => state,
        Control::Digests => digest,
        _ => return None,
    };
    policy.confinements.as_ref()?;
    let listed = policy.scripts.iter().filter(|_| policy.paths == Paths::Trusted);
    let told = listed.filter_map(|(name, script)| {
        let found = file::resolve_trusted(&script.path).ok()?;
        let version = Version::of(&found.path).ok().filter(|version| version.size() <= SIZE)?;
        Some((name.clone(), hex::encode(&tell(&found.path, version).ok()?)))
    });
    Some(Contents(told.collect()))
}

/// A word of fixed length for a file's state.
#[expect(clippy::unnecessary_wraps, reason = "it stands in the place of one that can fail")]
fn state(_: &Path, version: Version) -> io::Result<[u8; 32]> {
    Ok(file::digest_of(format!("{version:?}").as_bytes()))
}

fn digest(path: &Path, _: Version) -> io::Result<[u8; 32]> {
    file::digest(path).map(|(_, digest)| digest)
}
