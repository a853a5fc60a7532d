//! The programs that tests drive, out of this machine: `BusyBox` has most of their names and not all of their options.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::cpio::Archive;
use crate::Outcome;
use crate::run::Run;

const NAMES: [&str; 46] = [
    "cat", "chmod", "chown", "chroot", "cmp", "cp", "cut", "dash", "echo", "env", "false", "find", "grep", "head",
    "hostname", "id", "install", "ipcs", "kill", "ln", "ls", "mkdir", "mknod", "mount", "mv", "nsenter", "perl",
    "prlimit", "readlink", "renice", "rm", "rmdir", "sed", "setpriv", "setsid", "sleep", "sort", "stat", "tail",
    "timeout", "touch", "tr", "true", "umount", "unshare", "wc",
];

/// Has Perl say which files the modules are that tests use, those of others that these need among them.
const MODULES: [&str; 5] =
    ["-MPOSIX", "-MFcntl", "-MErrno", "-e", r#"print "$_\n" for values %INC, @DynaLoader::dl_shared_objects"#];

/// Puts each of them into `/usr/bin`, and the libraries that they need where they expect them.
pub(super) fn pack(archive: &mut Archive) -> Outcome {
    let mut libraries = BTreeSet::new();
    for name in NAMES {
        let Some(path) = find(name) else { return Err(format!("there is no program '{name}' here, which tests use")) };
        archive.file(&format!("usr/bin/{name}"), 0o755, &read(&path)?);
        // A static program has none, which is an exit status.
        let needs = Run::new("ldd").arg(&path).text().unwrap_or_default();
        libraries.extend(needs.lines().filter_map(library));
    }
    archive.link("usr/bin/sh", "dash");
    let modules = Run::new("perl").args(MODULES).text()?;
    let files: BTreeSet<PathBuf> = modules.lines().map(PathBuf::from).chain(libraries).collect();
    let mut folders = BTreeSet::new();
    for file in &files {
        let place = file.strip_prefix("/").map_err(|why| format!("{}: {why}", file.display()))?;
        for folder in place.ancestors().skip(1).filter(|folder| folder.parent().is_some()) {
            folders.insert(folder.to_owned());
        }
    }
    for folder in &folders {
        archive.folder(&folder.display().to_string());
    }
    for file in &files {
        archive.file(file.display().to_string().trim_start_matches('/'), 0o755, &read(file)?);
    }
    Ok(())
}

/// `name => /path (address)`, or the loader: `/path (address)`.
fn library(line: &str) -> Option<PathBuf> {
    let path = line.split_once("=>").map_or(line, |(_, path)| path).trim();
    let path = path.split_once(" (").map_or(path, |(path, _)| path);
    path.starts_with('/').then(|| PathBuf::from(path))
}

fn find(name: &str) -> Option<PathBuf> {
    ["/usr/bin", "/bin", "/usr/sbin", "/sbin"]
        .iter()
        .map(|folder| Path::new(folder).join(name))
        .find(|path| path.is_file())
}

fn read(path: &Path) -> Outcome<Vec<u8>> {
    fs::read(path).map_err(|why| format!("cannot read {}: {why}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_told_from_what_ldd_says_besides() {
        let line = |text| library(text).map(|path| path.display().to_string());
        assert_eq!(line("\tlibc.so.6 => /lib/x/libc.so.6 (0x00007f)").as_deref(), Some("/lib/x/libc.so.6"));
        assert_eq!(line("\t/lib64/ld-linux-x86-64.so.2 (0x00007f)").as_deref(), Some("/lib64/ld-linux-x86-64.so.2"));
        assert_eq!(line("\tlinux-vdso.so.1 (0x00007ffc)"), None);
        assert_eq!(line("\tnot a dynamic executable"), None);
    }
}
