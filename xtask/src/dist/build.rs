//! Builds the product for musl, with rustup's standard library for it or with our own.

use std::path::PathBuf;

use super::sysroot::{self, Std};
use crate::run::Run;
use crate::{Outcome, place};

/// Builds `ctrl-exec` under `profile` and says where it is.
///
/// **Invariant:** one target directory for each set of flags. Sharing one mixes crates built against two standard
/// libraries (rustc's E0464).
pub(super) fn static_binary(profile: &str) -> Outcome<PathBuf> {
    let target = place::musl_target();
    let std = sysroot::find_or_build(&target)?;
    let folder = place::repository().join("target").join(std.folder());
    let compiler = format!("CC_{}", target.replace('-', "_"));
    let mut cargo = Run::cargo()
        .args(["build", "--locked", "--package", "ctrl-exec", "--bin", "ctrl-exec"])
        .args(["--profile", profile, "--target", &target, "--target-dir"])
        .arg(&folder)
        .env("CARGO_ENCODED_RUSTFLAGS", flags(&std).join("\u{1f}"))
        .without(&["RUSTFLAGS", "CARGO_BUILD_TARGET"])
        .dir(&place::repository());
    if std::env::var_os(&compiler).is_none() {
        cargo = cargo.env(&compiler, musl_gcc(&compiler)?);
    }
    cargo.go()?;
    // Cargo's one exception to "the folder bears the profile's name".
    let kind = if profile == "dev" { "debug" } else { profile };
    Ok(folder.join(target).join(kind).join("ctrl-exec"))
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
