//! What the linker is told of the binary that ships.

use std::ffi::OsStr;
use std::fs;
use std::hash::{DefaultHasher, Hasher as _};
use std::path::{Path, PathBuf};

use crate::{Outcome, place};

/// Leaves out the tables that nothing reads.
const LIGHTER: &str = "no-unwinding.ld";
/// Puts together what a call of the command line executes.
pub(super) const USUAL: &str = "usual.ld";

/// Where this repository has its scripts.
pub(super) fn scripts() -> PathBuf {
    place::repository().join("xtask/src/dist")
}

/// What ships has no unwinding tables, and together what a call of the command line executes.
/// `-Cforce-unwind-tables=no` does not do the first: with debug information in the standard library, LLVM writes a table
/// for every function. `folder` is the target directory.
pub(super) fn shipped(folder: &Path) -> Outcome<Vec<String>> {
    with(&[LIGHTER, USUAL], folder)
}

/// The same without the second; the linker tells in `map` what it put where.
pub(super) fn mapped(folder: &Path, map: &Path) -> Outcome<Vec<String>> {
    let mut arguments = with(&[LIGHTER], folder)?;
    arguments.push(format!("-Clink-arg=-Wl,-Map,{}", map.display()));
    Ok(arguments)
}

fn with(names: &[&str], folder: &Path) -> Outcome<Vec<String>> {
    let own = folder.join("linker");
    fs::create_dir_all(&own).map_err(|why| format!("cannot make {}: {why}", own.display()))?;
    let mut arguments = vec!["-Clink-arg=-Wl,--no-eh-frame-hdr".to_owned()];
    for name in names {
        let script = named_after_content(&scripts().join(name), &own)?;
        arguments.push(format!("-Clink-arg=-Wl,-T,{}", script.display()));
    }
    Ok(arguments)
}

/// A copy of a script in `folder` whose name tells its content: cargo links again where an argument has changed, but knows
/// nothing of files that arguments name.
fn named_after_content(script: &Path, folder: &Path) -> Outcome<PathBuf> {
    let content = fs::read(script).map_err(|why| format!("cannot read {}: {why}", script.display()))?;
    let mut hasher = DefaultHasher::new();
    hasher.write(&content);
    let name = script.file_stem().and_then(OsStr::to_str).unwrap_or_default();
    let copy = folder.join(format!("{name}-{:016x}.ld", hasher.finish()));
    fs::write(&copy, content).map_err(|why| format!("cannot write {}: {why}", copy.display()))?;
    Ok(copy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_script_has_another_name_and_the_same_one_the_same() {
        let folder = place::repository().join(format!("target/tmp/linker-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let script = folder.join("a.ld");
        let copy = |content: &str| {
            fs::write(&script, content).unwrap();
            let copy = named_after_content(&script, &folder).unwrap();
            assert_eq!(fs::read_to_string(&copy).unwrap(), content);
            copy
        };
        let [first, changed, again] = ["SECTIONS {}", "SECTIONS { }", "SECTIONS {}"].map(copy);
        assert_ne!(first, changed);
        assert_eq!(first, again);
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn every_script_of_the_repository_is_given_to_the_linker() {
        let folder = place::repository().join(format!("target/tmp/linker-all-{}", std::process::id()));
        let given = shipped(&folder).unwrap();
        let ends = fs::read_dir(scripts()).unwrap().map(|entry| entry.unwrap().path());
        let scripts: Vec<PathBuf> = ends.filter(|path| path.extension() == Some(OsStr::new("ld"))).collect();
        assert_eq!(scripts.len(), 2);
        for script in scripts {
            let name = script.file_stem().and_then(OsStr::to_str).unwrap();
            assert!(
                given
                    .iter()
                    .any(|argument| argument.contains(&format!("-T,{}", folder.display())) && argument.contains(name)),
                "{name}"
            );
        }
        fs::remove_dir_all(folder).unwrap();
    }
}
