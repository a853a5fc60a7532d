//! What the machine has: a first program, the tests, and the programs that they drive.

use std::fs;
use std::path::{Path, PathBuf};

use super::cpio::Archive;
use super::programs;
use crate::{Outcome, place};

/// The first program: mounts what a host has mounted, runs the tests, and turns the machine off.
const INIT: &str = include_str!("init.sh");
const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1::/:/bin/false\nbin:x:2:2::/:/bin/false\n\
    games:x:5:60:games:/usr/games:/bin/false\n\
    nobody:x:65534:65534:nobody:/nonexistent:/bin/false\n";
const HOSTS: &str = "127.0.0.1 localhost\n";
const GROUP: &str = "root:x:0:\ndaemon:x:1:games\nbin:x:2:\ngames:x:60:\nnogroup:x:65534:\n";

/// A program in `/tests`. Those named `unit` and `it` are run, with these filters.
pub(super) struct Program<'a> {
    pub(super) name: &'static str,
    pub(super) file: &'a Path,
    pub(super) filters: &'a [&'a str],
}

/// Writes it. `modules` are loaded in their order; `machine` is what the tests are told of it, as words of an environment.
pub(super) fn write(busybox: &Path, modules: &[PathBuf], all: &[Program<'_>], machine: &str) -> Outcome<PathBuf> {
    let read = |path: &Path| fs::read(path).map_err(|why| format!("cannot read {}: {why}", path.display()));
    let mut archive = Archive::default();
    for folder in ["dev", "proc", "etc", "modules", "tests", "usr", "usr/bin", "usr/sbin", "usr/share"] {
        archive.folder(folder);
    }
    // As on a host of today.
    archive.link("bin", "usr/bin");
    archive.link("sbin", "usr/sbin");
    archive.file("busybox", 0o755, &read(busybox)?);
    programs::pack(&mut archive)?;
    archive.file("init", 0o755, INIT.as_bytes());
    for (number, module) in modules.iter().enumerate() {
        archive.file(&format!("modules/{number:03}.ko"), 0o644, &read(module)?);
    }
    for Program { name, file, filters } in all {
        archive.file(&format!("tests/{name}"), 0o755, &read(file)?);
        archive.file(&format!("tests/{name}.filters"), 0o644, filters.join("\n").as_bytes());
    }
    archive.file("tests/machine", 0o644, machine.as_bytes());
    archive.file("etc/passwd", 0o644, PASSWD.as_bytes());
    archive.file("etc/group", 0o644, GROUP.as_bytes());
    archive.file("etc/hostname", 0o644, b"machine\n");
    archive.file("etc/hosts", 0o644, HOSTS.as_bytes());
    let image = place::repository().join("target/vm/initramfs.cpio");
    let folder = image.parent().unwrap_or(&image);
    fs::create_dir_all(folder).map_err(|why| format!("cannot make {}: {why}", folder.display()))?;
    fs::write(&image, archive.finish()).map_err(|why| format!("cannot write {}: {why}", image.display()))?;
    Ok(image)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_test_may_leave_anything_out_in_the_machine() {
        for word in
            ["CTRL_EXEC_ALL_CONTROLLERS=1", "CI=true", "$(cat machine)", "insmod", "1 >/proc/sys/fs/suid_dumpable"]
        {
            assert!(INIT.contains(word), "{word}");
        }
    }
}
