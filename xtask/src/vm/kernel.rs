//! A kernel to boot: what an environment variable names, else Debian's cloud kernel in the cache.

use std::fs;
use std::path::{Path, PathBuf};

use crate::run::Run;
use crate::{Outcome, place};

/// Names a kernel image of one's own.
const OWN: &str = "CTRL_EXEC_VM_KERNEL";
/// Debian's package that always depends on the current one: a kernel with everything that it needs here built in.
const PACKAGE: &str = "linux-image-cloud-amd64";

/// The image. Debian's is downloaded, not installed, where it is not in the cache yet.
pub(super) fn find() -> Outcome<PathBuf> {
    if let Some(own) = std::env::var_os(OWN).map(PathBuf::from) {
        return if own.is_file() { Ok(own) } else { Err(format!("{OWN} names {}, which is no file", own.display())) };
    }
    let folder = place::cache()?.join("vm");
    if let Some(image) = image_in(&folder.join("boot")) {
        return Ok(image);
    }
    download(&folder).map_err(|why| format!("{why}\nno kernel to boot: name an image of 6.1 or later in {OWN}"))?;
    image_in(&folder.join("boot")).ok_or_else(|| format!("{PACKAGE} brought no kernel image to {}", folder.display()))
}

fn image_in(boot: &Path) -> Option<PathBuf> {
    let names = fs::read_dir(boot).ok()?.filter_map(|entry| Some(entry.ok()?.path()));
    names.filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz"))).max()
}

fn download(folder: &Path) -> Outcome {
    let parts = folder.join("download");
    let fresh = |path: &Path| {
        let _ = fs::remove_dir_all(path);
        fs::create_dir_all(path).map_err(|why| format!("cannot make {}: {why}", path.display()))
    };
    fresh(&parts)?;
    let depends = Run::new("apt-cache").args(["depends", "--important", PACKAGE]).text()?;
    let current = depends.lines().find_map(|line| line.trim().strip_prefix("Depends: linux-image-"));
    let current = current.ok_or_else(|| format!("{PACKAGE} depends on no kernel:\n{depends}"))?;
    // apt reads as another user, to whom this folder may be closed.
    let get = Run::new("apt-get").args(["-qq", "-o", "APT::Sandbox::User=root", "download"]);
    get.arg(format!("linux-image-{current}")).dir(&parts).go()?;
    let unpack =
        Run::new("sh").args(["-c", "dpkg-deb --fsys-tarfile ./*.deb | tar -x -C . --wildcards './boot/vmlinuz*'"]);
    unpack.dir(&parts).go()?;
    fs::rename(parts.join("boot"), folder.join("boot")).map_err(|why| format!("cannot keep the kernel: {why}"))?;
    fs::remove_dir_all(&parts).map_err(|why| format!("cannot remove {}: {why}", parts.display()))
}
