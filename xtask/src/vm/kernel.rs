//! A kernel to boot: what an environment variable names, else Debian's cloud kernel in the cache.

use std::fs;
use std::path::{Path, PathBuf};

use crate::run::Run;
use crate::{Outcome, place};

/// Names a kernel image of one's own.
const OWN: &str = "CTRL_EXEC_VM_KERNEL";
/// Debian's package that always depends on the current one: a kernel with everything that it needs here built in.
const PACKAGE: &str = "linux-image-cloud-amd64";

/// What the tests demand of Debian's: its release, and the version of Landlock.
const DEBIANS: [&str; 2] = ["6.1.", "2"];

/// A kernel to boot.
pub(super) struct Kernel {
    pub(super) image: PathBuf,
    /// Whether it is Debian's, of which more is known than that it boots.
    debians: bool,
}

impl Kernel {
    /// What the tests are told of the machine, as words of an environment: they fail where they find another.
    pub(super) fn machine(&self, landlock: bool) -> String {
        let [release, version] = DEBIANS;
        let release = if self.debians { format!("CTRL_EXEC_VM_RELEASE={release}\n") } else { String::new() };
        let landlock = match (landlock, self.debians) {
            (true, true) => format!("CTRL_EXEC_VM_LANDLOCK={version}\n"),
            // Of another's it is only said that it is there.
            (true, false) => "CTRL_EXEC_VM_LANDLOCK=some\n".to_owned(),
            (false, _) => "CTRL_EXEC_VM_LANDLOCK=none\n".to_owned(),
        };
        release + &landlock
    }
}

/// Debian's is downloaded, not installed, where it is not in the cache yet.
pub(super) fn find() -> Outcome<Kernel> {
    if let Some(image) = std::env::var_os(OWN).map(PathBuf::from) {
        let found = image.is_file();
        let none = format!("{OWN} names {}, which is no file", image.display());
        return if found { Ok(Kernel { image, debians: false }) } else { Err(none) };
    }
    let folder = place::cache()?.join("vm");
    let debians = |image| Kernel { image, debians: true };
    if let Some(image) = image_in(&folder.join("boot")) {
        return Ok(debians(image));
    }
    download(&folder).map_err(|why| format!("{why}\nno kernel to boot: name an image of 6.1 or later in {OWN}"))?;
    let none = || format!("{PACKAGE} brought no kernel image to {}", folder.display());
    image_in(&folder.join("boot")).map(debians).ok_or_else(none)
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
