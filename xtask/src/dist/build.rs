//! Builds the product for musl, with rustup's standard library for it or with our own.

use std::path::{Path, PathBuf};

use super::linker;
use super::sysroot::{self, Std};
use crate::run::Run;
use crate::{Outcome, place};

/// For mimalloc: what it reserves at once, in KiB, in the place of 1 GiB. It keeps records of what it reserves and writes to
/// all of them when a process starts: for 1 GiB to 42 pages of memory, each of them a fault, for 64 MiB to 8. What a process
/// needs beyond, it reserves when it does.
const ALLOCATOR: &str = "-DMI_DEFAULT_ARENA_RESERVE=65536L";

/// Builds `ctrl-exec` under `profile` and says where it is.
pub(super) fn static_binary(profile: &str) -> Outcome<PathBuf> {
    binary(profile, |folder| if profile == "dist" { linker::shipped(folder) } else { Ok(Vec::new()) })
}

/// Builds what ships but for where its functions lie, which the linker tells in `map`, and says where it is.
pub(super) fn mapped_binary(map: &Path) -> Outcome<PathBuf> {
    binary("dist", |folder| linker::mapped(folder, map))
}

fn binary(profile: &str, linking: impl FnOnce(&Path) -> Outcome<Vec<String>>) -> Outcome<PathBuf> {
    let (cargo, folder) = for_musl("rustc", profile)?;
    cargo.args(["--bin", "ctrl-exec", "--"]).args(linking(&folder)?).go()?;
    // Cargo's one exception to "the folder bears the profile's name".
    let kind = if profile == "dev" { "debug" } else { profile };
    Ok(folder.join(place::musl_target()).join(kind).join("ctrl-exec"))
}

/// Builds the tests that cargo calls `target` under `profile` and says where their program is.
pub(super) fn static_tests(profile: &str, target: &[&str]) -> Outcome<PathBuf> {
    let (cargo, _) = for_musl("test", profile)?;
    let said = cargo.args(target).args(["--no-run", "--message-format", "json-render-diagnostics"]).text()?;
    let executable =
        said.lines().filter_map(|line| line.split_once("\"executable\":\"")?.1.split('"').next()).next_back();
    executable.map(PathBuf::from).ok_or_else(|| format!("cargo built no test program of {}", target.join(" ")))
}

/// A cargo that builds the product for musl, and its target directory.
///
/// **Invariant:** one target directory for each set of flags. Sharing one mixes crates built against two standard
/// libraries (rustc's E0464).
fn for_musl(command: &str, profile: &str) -> Outcome<(Run, PathBuf)> {
    let target = place::musl_target();
    let std = sysroot::find_or_build(&target)?;
    let folder = place::repository().join("target").join(std.folder());
    let [compiler, options] = ["CC", "CFLAGS"].map(|name| format!("{name}_{}", target.replace('-', "_")));
    let given = std::env::var(&options).unwrap_or_default();
    let mut cargo = Run::cargo()
        .args([command, "--locked", "--package", "ctrl-exec"])
        .args(["--profile", profile, "--target", &target, "--target-dir"])
        .arg(&folder)
        .env("CARGO_ENCODED_RUSTFLAGS", flags(&std).join("\u{1f}"))
        .env(&options, format!("{ALLOCATOR} {given}").trim_end())
        .without(&["RUSTFLAGS", "CARGO_BUILD_TARGET"])
        .dir(&place::repository());
    if std::env::var_os(&compiler).is_none() {
        cargo = cargo.env(&compiler, musl_gcc(&compiler)?);
    }
    Ok((cargo, folder))
}

/// The C compiler for the crates that have C in them, asked for here: what the build says of a missing one fills pages.
fn musl_gcc(variable: &str) -> Outcome<&'static str> {
    let asked = Run::new("musl-gcc").arg("--version").text();
    asked.map(|_| "musl-gcc").map_err(|_| {
        format!("musl-gcc is missing: apt-get install musl-tools, or name another C compiler for musl in {variable}")
    })
}

/// With `--target`, these do not reach build scripts and procedural macros, which run here on glibc.
fn flags(std: &Std) -> Vec<String> {
    // mimalloc calls `__popcountdi2`, which our own compiler-builtins, built without its C half, lacks.
    let mut flags = vec!["-Clink-arg=-lgcc".to_owned()];
    if let Std::Own { path, .. } = std {
        flags.push(format!("--sysroot={}", path.display()));
    }
    flags
}
