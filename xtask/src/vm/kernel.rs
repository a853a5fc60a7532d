//! A kernel to boot: what an environment variable names, else Debian's cloud kernel in the cache.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::run::Run;
use crate::{Outcome, place};

/// Names a kernel image of one's own.
const OWN: &str = "CTRL_EXEC_VM_KERNEL";
/// Names what that needs besides: files of modules, in the order in which they are loaded, with `:` between.
const MODULES: &str = "CTRL_EXEC_VM_MODULES";
/// Debian's package that always depends on the current one: a kernel with everything that it needs here built in but for
/// [`OVERLAY`].
const PACKAGE: &str = "linux-image-cloud-amd64";
/// The one module of it that is loaded, which needs no other.
const OVERLAY: &str = "overlay.ko";

/// What the tests demand of Debian's: its release, and the version of Landlock.
const DEBIANS: [&str; 2] = ["6.1.", "2"];

/// A kernel to boot.
pub(super) struct Kernel {
    pub(super) image: PathBuf,
    /// What is loaded into it before anything else is done, in this order.
    pub(super) modules: Vec<PathBuf>,
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
        let modules = std::env::var_os(MODULES).unwrap_or_default();
        let modules: Vec<PathBuf> =
            std::env::split_paths(&modules).filter(|path| !path.as_os_str().is_empty()).collect();
        if let Some(none) = [&image].into_iter().chain(&modules).find(|path| !path.is_file()) {
            return Err(format!("{OWN} or {MODULES} names {}, which is no file", none.display()));
        }
        return Ok(Kernel { image, modules, debians: false });
    }
    let folder = place::cache()?.join("vm");
    if let Some(kernel) = debians(&folder.join("boot")) {
        return Ok(kernel);
    }
    download(&folder).map_err(|why| format!("{why}\nno kernel to boot: name an image of 6.1 or later in {OWN}"))?;
    let none = || format!("{PACKAGE} brought no kernel image with {OVERLAY} to {}", folder.display());
    debians(&folder.join("boot")).ok_or_else(none)
}

/// The image in this folder, with its module.
fn debians(boot: &Path) -> Option<Kernel> {
    let names = fs::read_dir(boot).ok()?.filter_map(|entry| Some(entry.ok()?.path()));
    let images =
        names.filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz")));
    let modules = vec![boot.join(OVERLAY)];
    // One that an earlier xtask has left has none.
    let image = images.max().filter(|_| modules.iter().all(|module| module.is_file()))?;
    Some(Kernel { image, modules, debians: true })
}

/// Unpacks the image and the module, which may be compressed, into `boot`; and refuses a module that needs another.
const UNPACK: &str = r"
dpkg-deb --fsys-tarfile ./*.deb | tar -x -C . --wildcards './boot/vmlinuz*' './lib/modules/*/overlay.ko*'
find lib -name 'overlay.ko*' -exec mv {} boot/ ';'
if [ -e boot/overlay.ko.xz ]; then xz -d boot/overlay.ko.xz; fi
if ! tr '\0' '\n' <boot/overlay.ko | grep -qx depends=; then echo 'overlay.ko needs another module' >&2; exit 1; fi
";

fn download(folder: &Path) -> Outcome {
    let parts = folder.join("download");
    let clear = |path: &Path| match fs::remove_dir_all(path) {
        Err(why) if why.kind() != io::ErrorKind::NotFound => Err(format!("cannot remove {}: {why}", path.display())),
        _ => Ok(()),
    };
    clear(&parts)?;
    fs::create_dir_all(&parts).map_err(|why| format!("cannot make {}: {why}", parts.display()))?;
    let depends = Run::new("apt-cache").args(["depends", "--important", PACKAGE]).text()?;
    let current = depends.lines().find_map(|line| line.trim().strip_prefix("Depends: linux-image-"));
    let current = current.ok_or_else(|| format!("{PACKAGE} depends on no kernel:\n{depends}"))?;
    // apt reads as another user, to whom this folder may be closed.
    let get = Run::new("apt-get").args(["-qq", "-o", "APT::Sandbox::User=root", "download"]);
    get.arg(format!("linux-image-{current}")).dir(&parts).go()?;
    Run::new("sh").args(["-ec", UNPACK]).dir(&parts).go()?;
    clear(&folder.join("boot"))?;
    fs::rename(parts.join("boot"), folder.join("boot")).map_err(|why| format!("cannot keep the kernel: {why}"))?;
    clear(&parts)
}
