//! By which names this program's file is known (hard links, link(2)).
//!
//! Whoever may write to one of them changes the program, wherever that name lies; and where it lies, nobody can tell without looking
//! through the whole file system. So no run is refused for one: that would be every run, too, where a package manager keeps all of
//! its files under a second name. What there is to know is said to the operator (`self-check`).

use std::path::Path;

use super::host::HostFacts;

/// Where the program usually lies.
const DIRECTORIES: [&str; 6] = ["/usr/local/bin", "/usr/local/sbin", "/usr/bin", "/usr/sbin", "/bin", "/sbin"];
/// What it is called there.
const NAMES: [&str; 8] = [
    "ctrl-exec",
    "ctrl-exec-dispatcher",
    "ced",
    "ctrl-exec-api",
    "ctrl-exec-agent",
    "cea",
    "ctrl-exec-exec",
    "ctrl-exec-mcp",
];

/// How many names the program at this place has that nobody expects: neither beside it, nor one of its own in a usual directory
/// that no script reaches. One that cannot be looked at has none.
pub(super) fn unexpected(program: &Path, reached: &dyn Fn(&Path) -> bool, facts: &dyn HostFacts) -> u64 {
    let beside = program.parent();
    let others = facts.other_names(program, beside).unwrap_or_default();
    let Ok(own) = facts.resolve(program) else { return 0 };
    if others == 0 {
        return 0;
    }
    // A symbolic link is no such name, and what is reached through one is counted where it lies.
    let is_own =
        |path: &Path| facts.resolve(path).is_ok_and(|found| found.path == path && found.identity == own.identity);
    let usual = DIRECTORIES.iter().map(Path::new).filter(|directory| Some(*directory) != beside && !reached(directory));
    let known =
        usual.flat_map(|directory| NAMES.iter().map(move |name| directory.join(name))).filter(|path| is_own(path));
    others.saturating_sub(u64::try_from(known.count()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::executor::OnDisk;

    #[test]
    fn names_beside_a_program_are_expected_and_others_are_counted() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().canonicalize().unwrap();
        for directory in ["bin", "srv"] {
            std::fs::create_dir(place.join(directory)).unwrap();
        }
        let program = place.join("bin/ctrl-exec");
        crate::sys::file::write_atomic(&program, b"x", crate::sys::file::Access::public()).unwrap();
        assert_eq!(unexpected(&program, &|_| false, &OnDisk), 0);
        std::fs::hard_link(&program, place.join("bin/ctrl-exec-agent")).unwrap();
        std::os::unix::fs::symlink(&program, place.join("srv/link")).unwrap();
        assert_eq!(unexpected(&program, &|_| false, &OnDisk), 0);
        for (number, name) in [(1, "srv/one"), (2, "two")] {
            std::fs::hard_link(&program, place.join(name)).unwrap();
            assert_eq!(unexpected(&program, &|_| false, &OnDisk), number);
        }
        assert_eq!(unexpected(&place.join("none"), &|_| false, &OnDisk), 0);
    }
}
