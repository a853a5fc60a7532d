//! `dist`: one static musl binary, stripped, proven static, with its checksum and its bill of materials.

mod build;
mod compiler;
mod linker;
mod proof;
mod sbom;
mod source;
mod sysroot;
pub(crate) mod usual;

use std::fs;
use std::path::{Path, PathBuf};

use crate::run::Run;
use crate::{Outcome, place};

/// The most that the binary may weigh, in bytes: it is copied to routers.
const HEAVIEST: u64 = 12 * 1024 * 1024;

/// Makes everything in `dist/`.
pub(crate) fn task(words: &[String]) -> Outcome {
    let profile = profile(words, "dist")?;
    let shipped = ship(&profile)?;
    let folder = place::repository().join("dist");
    let bill = sbom::of_the_binary()?;
    write(&folder.join("sbom.json"), bill.as_bytes())?;
    let sums = Run::new("sha256sum").args(["ctrl-exec", "sbom.json"]).dir(&folder).text()?;
    write(&folder.join("SHA256SUMS"), format!("{sums}\n").as_bytes())?;
    println!("{sums}");
    println!("{}", shipped.display());
    Ok(())
}

/// Makes the static binary of the quick profile and prints its path alone on standard output's last line.
pub(crate) fn quick_task(words: &[String]) -> Outcome {
    let binary = build::static_binary(&profile(words, "quick")?)?;
    proof::is_static(&binary)?;
    println!("{}", binary.display());
    Ok(())
}

/// The static binary that tests drive: built without the link-time optimisation that `dist` pays for.
pub(crate) fn quick() -> Outcome<PathBuf> {
    let binary = build::static_binary("quick")?;
    proof::is_static(&binary)?;
    Ok(binary)
}

/// Tests as one static program, for a machine that has nothing else: those that cargo calls `target`.
pub(crate) fn quick_tests(target: &[&str]) -> Outcome<PathBuf> {
    let program = build::static_tests("quick", target)?;
    proof::is_static(&program)?;
    Ok(program)
}

/// Whether a program needs nothing but a kernel.
pub(crate) fn is_static(program: &Path) -> Outcome {
    proof::is_static(program)
}

/// The binary that ships, built now if anything changed.
pub(crate) fn shipped() -> Outcome<PathBuf> {
    ship("dist")
}

fn ship(profile: &str) -> Outcome<PathBuf> {
    let built = build::static_binary(profile)?;
    proof::is_static(&built)?;
    proof::is_stripped(&built)?;
    runs(&built)?;
    let size = fs::metadata(&built).map_err(|why| format!("{}: {why}", built.display()))?.len();
    weigh(size)?;
    let folder = place::repository().join("dist");
    fs::create_dir_all(&folder).map_err(|why| format!("cannot make {}: {why}", folder.display()))?;
    let shipped = folder.join("ctrl-exec");
    // Renamed into place: a copy over a running binary fails with "text file busy".
    let fresh = folder.join(".ctrl-exec.new");
    fs::copy(&built, &fresh).map_err(|why| format!("cannot copy {} to dist/: {why}", built.display()))?;
    fs::rename(&fresh, &shipped).map_err(|why| format!("cannot put {} in place: {why}", shipped.display()))?;
    Ok(shipped)
}

/// Runs it, in an empty environment: a static program needs nothing from this machine to say who it is.
fn runs(binary: &Path) -> Outcome {
    let said = Run::new("env").arg("-i").arg(binary).arg("--version").text()?;
    println!("{said}");
    // The workspace has one version.
    let version = env!("CARGO_PKG_VERSION");
    if said.contains(version) {
        return Ok(());
    }
    Err(format!("{} --version does not say {version}, but `{said}`", binary.display()))
}

fn weigh(size: u64) -> Outcome {
    let tenths = size * 10 / (1024 * 1024);
    println!("size: {size} bytes ({}.{} MiB)", tenths / 10, tenths % 10);
    if size <= HEAVIEST {
        return Ok(());
    }
    Err(format!("the binary weighs {size} bytes, more than {HEAVIEST}: find what grew (`cargo tree --edges normal`)"))
}

fn profile(words: &[String], usual: &str) -> Outcome<String> {
    match words {
        [] => Ok(usual.to_owned()),
        [flag, name] if flag == "--profile" => Ok(name.clone()),
        _ => Err(format!("expected nothing or `--profile NAME`, not `{}`", words.join(" "))),
    }
}

fn write(path: &Path, bytes: &[u8]) -> Outcome {
    fs::write(path, bytes).map_err(|why| format!("cannot write {}: {why}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_is_taken_by_flag_and_anything_else_is_refused() {
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(profile(&words(""), "dist").unwrap(), "dist");
        assert_eq!(profile(&words("--profile quick"), "dist").unwrap(), "quick");
        assert!(profile(&words("--profile"), "dist").is_err());
        assert!(profile(&words("fast"), "dist").is_err());
    }

    #[test]
    fn a_binary_over_the_limit_is_refused() {
        assert!(weigh(HEAVIEST).is_ok());
        assert!(weigh(HEAVIEST + 1).is_err());
    }
}
