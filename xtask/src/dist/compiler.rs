//! The compiler that builds the product, as far as its standard library depends on it.

use std::path::PathBuf;

use crate::Outcome;
use crate::run::Run;

/// What `rustc` tells of itself, and the target that is built for.
pub(super) struct Compiler {
    pub(super) release: String,
    pub(super) commit: String,
    pub(super) sysroot: PathBuf,
    pub(super) target: String,
}

impl Compiler {
    /// The active compiler.
    pub(super) fn active(target: &str) -> Outcome<Self> {
        let about = Run::new("rustc").arg("-vV").text()?;
        let sysroot = Run::new("rustc").args(["--print", "sysroot"]).text()?;
        Ok(Self {
            release: field(&about, "release")?,
            commit: field(&about, "commit-hash")?,
            sysroot: PathBuf::from(sysroot),
            target: target.to_owned(),
        })
    }
}

fn field(about: &str, name: &str) -> Outcome<String> {
    about
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
        .map(str::to_owned)
        .ok_or_else(|| format!("`rustc -vV` does not tell its {name}:\n{about}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_active_compiler_tells_its_release_and_sysroot() {
        let compiler = Compiler::active("x86_64-unknown-linux-musl").unwrap();
        assert!(compiler.release.starts_with("1."), "{}", compiler.release);
        assert!(compiler.sysroot.is_dir(), "{}", compiler.sysroot.display());
    }
}
