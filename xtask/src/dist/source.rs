//! Finds the source of Rust's own library, of exactly the active compiler's release.

use std::fs;
use std::path::{Path, PathBuf};

use super::compiler::Compiler;
use crate::Outcome;
use crate::run::Run;

/// Names the `library` folder of Rust's source.
const VARIABLE: &str = "CTRL_EXEC_RUST_SRC";

/// The `library` folder: the component `rust-src`, else the folder that the environment names.
pub(super) fn find(compiler: &Compiler) -> Outcome<PathBuf> {
    let component = compiler.sysroot.join("lib/rustlib/src/rust/library");
    if is_library(&component) {
        return Ok(component);
    }
    let Some(named) = std::env::var_os(VARIABLE).map(PathBuf::from) else {
        return Err(absent(compiler));
    };
    if !is_library(&named) {
        return Err(format!("{VARIABLE}={}: not the `library` folder of Rust's source", named.display()));
    }
    same_release(&named, compiler)?;
    Ok(named)
}

/// Copies the source: cargo writes beside its lock file, and the original may be read-only.
pub(super) fn copy(from: &Path, to: &Path) -> Outcome {
    Run::new("cp").args(["--recursive", "--dereference", "--no-preserve=mode,ownership"]).arg(from).arg(to).go()
}

fn is_library(path: &Path) -> bool {
    path.join("sysroot/Cargo.toml").is_file()
}

/// A source of another release does not compile. Where the folder above tells its release, hold it to that.
fn same_release(library: &Path, compiler: &Compiler) -> Outcome {
    let above = library.parent().unwrap_or(library);
    let told = fs::read_to_string(above.join("version")).ok().or_else(|| {
        let name = above.file_name()?.to_str()?;
        Some(name.strip_prefix("rustc-")?.to_owned())
    });
    match told.as_deref().and_then(|text| text.split_whitespace().next()) {
        Some(other) if !other.starts_with(&compiler.release) => Err(format!(
            "{VARIABLE}={} is the source of Rust {other}, but the compiler is {}: give the source of that release",
            library.display(),
            compiler.release
        )),
        _ => Ok(()),
    }
}

fn absent(compiler: &Compiler) -> String {
    let target = &compiler.target;
    let release = &compiler.release;
    format!(
        "there is no standard library for {target}, and no source to build one from. One of these helps:\n  \
         rustup target add {target}\n  \
         rustup component add rust-src\n  \
         export {VARIABLE}=<the folder `library` of Rust {release}'s source>, for instance from Debian's package \
         `rust-src` {release} (`.ci/run` shows how it is unpacked without being installed)"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compiler() -> Compiler {
        Compiler {
            release: "1.95.0".into(),
            commit: "0123456789".into(),
            sysroot: "/nowhere".into(),
            target: "x86_64-unknown-linux-musl".into(),
        }
    }

    #[test]
    fn a_source_of_another_release_is_refused() {
        assert!(same_release(Path::new("/s/rustc-1.95.0/library"), &compiler()).is_ok());
        assert!(same_release(Path::new("/s/somewhere/library"), &compiler()).is_ok());
        let why = same_release(Path::new("/s/rustc-1.96.1/library"), &compiler()).unwrap_err();
        assert!(why.contains("1.96.1") && why.contains("1.95.0"), "{why}");
    }

    #[test]
    fn the_error_says_every_way_out() {
        let why = absent(&compiler());
        for way in ["rustup target add x86_64-unknown-linux-musl", "rustup component add rust-src", VARIABLE] {
            assert!(why.contains(way), "{why}");
        }
    }
}
