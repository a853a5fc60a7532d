//! The standard library for musl: rustup's where it is installed, else one built here from Rust's own source,
//! once, into a cache outside `target/`.
//!
//! What the C side contributes is what rustup's own target carries: musl's start files and `libc.a`, gcc's
//! `crtbegin` and `crtend`, and LLVM's unwinder. gcc's unwinder is no substitute: it crashes at the first panic.

use std::fs;
use std::path::{Path, PathBuf};

use super::compiler::Compiler;
use super::source;
use crate::run::Run;
use crate::{Outcome, place};

/// Counts changes of the recipe below, so that a cache made by an older one is not used.
const RECIPE: u32 = 1;

/// Written last. A folder without it was never finished.
const MARK: &str = ".complete";

/// From musl: start files and the C library.
const FROM_MUSL: &[&str] = &["crt1.o", "rcrt1.o", "Scrt1.o", "crti.o", "crtn.o", "libc.a"];

/// From gcc: the ends of the lists of constructors and frames.
const FROM_GCC: &[&str] = &["crtbegin.o", "crtbeginS.o", "crtend.o", "crtendS.o"];

/// Debian's unwinder is compiled against glibc with fortify, and wants this one function that musl lacks.
const FORTIFIED: &str = "#include <stdarg.h>\n#include <stdio.h>\n\
    int __fprintf_chk(FILE *f, int flag, const char *format, ...) {\n\
    va_list list; int n; (void)flag; va_start(list, format); n = vfprintf(f, format, list); va_end(list); return n; }\n";

/// Where the standard library for musl comes from.
pub(super) enum Std {
    /// The compiler's own sysroot has it.
    Rustup,
    /// Built here.
    Own {
        /// Names compiler, target and recipe.
        key: String,
        /// What `--sysroot` takes.
        path: PathBuf,
    },
}

impl Std {
    /// The folder below `target/` for crates built against it.
    pub(super) fn folder(&self) -> String {
        match self {
            Self::Rustup => "musl".to_owned(),
            Self::Own { key, .. } => format!("musl-{key}"),
        }
    }
}

/// The standard library for `target`, built now if there is none.
pub(super) fn find_or_build(target: &str) -> Outcome<Std> {
    let compiler = Compiler::active(target)?;
    if has_std(&libraries(&compiler.sysroot, target)) {
        return Ok(Std::Rustup);
    }
    let key = key(&compiler);
    let path = place::cache()?.join(format!("sysroot-{key}"));
    if !path.join(MARK).is_file() {
        build(&compiler, &key, &path)?;
    }
    Ok(Std::Own { key, path })
}

fn build(compiler: &Compiler, key: &str, path: &Path) -> Outcome {
    let source = source::find(compiler)?;
    eprintln!("building Rust's standard library for {} from {}, once", compiler.target, source.display());
    let work = Work::begin(path)?;
    let library = work.path.join("library");
    source::copy(&source, &library)?;
    let built = compile(compiler, key, &library, &work.path.join("build"))?;
    let sysroot = work.path.join("sysroot");
    lay_out(compiler, &built, &sysroot)?;
    write(&sysroot.join(MARK), key.as_bytes())?;
    match fs::rename(&sysroot, path) {
        // Another build finished first; its result is as good.
        Err(_) if path.join(MARK).is_file() => Ok(()),
        Err(why) => Err(format!("cannot move {} to {}: {why}", sysroot.display(), path.display())),
        Ok(()) => {
            eprintln!("kept in {}", path.display());
            Ok(())
        }
    }
}

/// Builds the library and says where its `.rlib`s are.
fn compile(compiler: &Compiler, key: &str, library: &Path, into: &Path) -> Outcome<PathBuf> {
    let flags = [
        "-Zforce-unstable-if-unmarked".to_owned(),
        format!("--remap-path-prefix={}=/rustc/{}/library", library.display(), compiler.commit),
    ];
    Run::cargo()
        .args(["build", "--locked", "--profile", "dist", "--target", &compiler.target, "--manifest-path"])
        .arg(library.join("sysroot/Cargo.toml"))
        .args(["--features", "panic-unwind backtrace llvm-libunwind", "--target-dir"])
        .arg(into)
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"))
        .env("__CARGO_DEFAULT_LIB_METADATA", key)
        .without(&["RUSTFLAGS", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER", "CARGO_BUILD_TARGET"])
        .dir(library)
        .go()?;
    Ok(into.join(&compiler.target).join("dist/deps"))
}

fn lay_out(compiler: &Compiler, built: &Path, sysroot: &Path) -> Outcome {
    let libraries = libraries(sysroot, &compiler.target);
    let own = libraries.join("self-contained");
    fs::create_dir_all(&own).map_err(|why| format!("cannot make {}: {why}", own.display()))?;
    for file in files(built)?.into_iter().filter(|file| file.extension().is_some_and(|end| end == "rlib")) {
        copy_into(&file, &libraries)?;
    }
    let musl = PathBuf::from(format!("/usr/lib/{}-linux-musl", std::env::consts::ARCH));
    for name in FROM_MUSL {
        copy_into(&existing(musl.join(name), "apt-get install musl-tools")?, &own)?;
    }
    for name in FROM_GCC {
        let path = Run::new("gcc").arg(format!("-print-file-name={name}")).text()?;
        copy_into(&existing(PathBuf::from(path), "apt-get install gcc")?, &own)?;
    }
    add_unwinder(&own)
}

fn add_unwinder(own: &Path) -> Outcome {
    let archive = own.join("libunwind.a");
    let from = newest_unwinder()?;
    fs::copy(&from, &archive).map_err(|why| format!("cannot copy {}: {why}", from.display()))?;
    let (code, object) = (own.join("fortified.c"), own.join("fortified.o"));
    write(&code, FORTIFIED.as_bytes())?;
    Run::new("musl-gcc").args(["-O2", "-fPIC", "-c", "-o"]).arg(&object).arg(&code).go()?;
    // D: no times and owners in the archive, so that two builds are identical.
    Run::new("ar").arg("rcsD").arg(&archive).arg(&object).go()?;
    for file in [code, object] {
        fs::remove_file(&file).map_err(|why| format!("cannot remove {}: {why}", file.display()))?;
    }
    Ok(())
}

/// LLVM's unwinder of the highest installed version, as Debian lays it out: `/usr/lib/llvm-19/lib/libunwind.a`.
fn newest_unwinder() -> Outcome<PathBuf> {
    let version = |path: &PathBuf| path.file_name()?.to_str()?.strip_prefix("llvm-")?.parse::<u32>().ok();
    let mut found: Vec<(u32, PathBuf)> = files(Path::new("/usr/lib"))?
        .into_iter()
        .filter_map(|path| Some((version(&path)?, path.join("lib/libunwind.a"))))
        .filter(|(_, archive)| archive.is_file())
        .collect();
    found.sort();
    found.pop().map(|(_, archive)| archive).ok_or_else(|| {
        "LLVM's static unwinder is missing (/usr/lib/llvm-*/lib/libunwind.a): apt-get install libunwind-19-dev"
            .to_owned()
    })
}

fn key(compiler: &Compiler) -> String {
    let commit: String = compiler.commit.chars().take(9).collect();
    format!("{}-{commit}-{}-r{RECIPE}", compiler.release, compiler.target)
}

fn libraries(sysroot: &Path, target: &str) -> PathBuf {
    sysroot.join("lib/rustlib").join(target).join("lib")
}

fn has_std(libraries: &Path) -> bool {
    let is_std = |path: &PathBuf| {
        path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with("libstd-"))
    };
    files(libraries).is_ok_and(|files| files.iter().any(is_std))
}

fn files(folder: &Path) -> Outcome<Vec<PathBuf>> {
    let cannot = |why: std::io::Error| format!("cannot list {}: {why}", folder.display());
    fs::read_dir(folder).map_err(cannot)?.map(|entry| entry.map(|entry| entry.path()).map_err(cannot)).collect()
}

fn existing(path: PathBuf, remedy: &str) -> Outcome<PathBuf> {
    if path.is_file() { Ok(path) } else { Err(format!("{} is missing: {remedy}", path.display())) }
}

fn copy_into(file: &Path, folder: &Path) -> Outcome {
    let name = file.file_name().ok_or_else(|| format!("{} has no name", file.display()))?;
    let to = folder.join(name);
    fs::copy(file, &to).map(drop).map_err(|why| format!("cannot copy {} to {}: {why}", file.display(), to.display()))
}

fn write(path: &Path, bytes: &[u8]) -> Outcome {
    fs::write(path, bytes).map_err(|why| format!("cannot write {}: {why}", path.display()))
}

/// A temporary folder beside the result, so that the last step is a rename; gone when the build ends, however.
struct Work {
    path: PathBuf,
}

impl Work {
    fn begin(beside: &Path) -> Outcome<Self> {
        let mut name = beside.as_os_str().to_owned();
        name.push(format!(".{}.tmp", std::process::id()));
        let path = PathBuf::from(name);
        fs::create_dir_all(&path).map_err(|why| format!("cannot make {}: {why}", path.display()))?;
        Ok(Self { path })
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        // Left-over megabytes in a cache are no reason to fail a build that worked.
        drop(fs::remove_dir_all(&self.path));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_tells_compilers_targets_and_recipes_apart() {
        let compiler = Compiler {
            release: "1.95.0".into(),
            commit: "59807616e1fa2540724bfbac14d7976d7e4a3860".into(),
            sysroot: "/nowhere".into(),
            target: "x86_64-unknown-linux-musl".into(),
        };
        assert_eq!(key(&compiler), format!("1.95.0-59807616e-x86_64-unknown-linux-musl-r{RECIPE}"));
    }

    #[test]
    fn a_folder_that_does_not_exist_has_no_standard_library() {
        assert!(!has_std(Path::new("/nowhere/at/all")));
    }
}
