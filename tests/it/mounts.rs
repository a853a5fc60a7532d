//! File systems that the host has mounted below places of which a profile says something. The original's protection
//! ended where another file system began.

use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::harness::Site;
use crate::harness::executor::Mode;

/// A small file system in memory, until it is dropped.
struct Mounted(PathBuf);

impl Mounted {
    fn new(place: PathBuf, flags: MsFlags) -> Self {
        std::fs::create_dir_all(&place).unwrap();
        mount(Some("none"), &place, Some("tmpfs"), flags, Some("size=1m,mode=0777")).unwrap();
        std::fs::write(place.join("held"), "what it holds\n").unwrap();
        Self(place)
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

/// Says of each place whether it can be written and read.
const TRY: &str = "for place; do\n( : > $place/new ) 2> /dev/null && echo written || echo not\n\
    cat $place/held 2> /dev/null || echo hidden\ndone";

/// An agent whose scripts run as root, without a capability, and may write to its `work`.
fn site(mode: Mode) -> Site {
    let builder = Site::builder().executor(mode).sh("try", TRY).allow("boxed = {scripts}/try profile=box");
    let site = builder.allow("mounts = /bin/cat profile=box").prepare();
    let agent = site.agent();
    let profile = format!("[profile box]\nrun_as = root\nwritable = {}\n", agent.root.join("work").display());
    let config = std::fs::read_to_string(agent.config()).unwrap();
    std::fs::write(agent.config(), config + &profile).unwrap();
    site
}

#[test]
fn a_file_system_below_a_directory_is_never_left_out_of_its_protection() {
    for mode in Mode::ROOT {
        let mut site = site(mode);
        let below = |place: &Path| Mounted::new(place.join("below"), MsFlags::empty());
        let root = &site.agent().root;
        let (writable, elsewhere) = (below(&root.join("work")), below(&root.join("other")));
        let (control, own) = (below(&root.join("var/lib/ctrl-exec-agent")), below(&root.join("etc/ctrl-exec-agent")));
        site.start(0);
        let places = [&writable, &elsewhere, &control, &own].map(Mounted::path);
        let said = site.result("boxed", &places);
        let read = "what it holds";
        let expected = ["written", read, "not", read, "not", "hidden", "not", "hidden", ""].join("\n");
        assert_eq!(said["stdout"], expected, "{mode:?}: {said}");
    }
}

#[test]
fn a_writable_file_system_never_loses_what_its_mount_forbids() {
    for mode in Mode::ROOT {
        let mut site = site(mode);
        let forbidden = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        let below = Mounted::new(site.agent().work("below"), forbidden);
        site.start(0);
        let said = site.result("mounts", &["/proc/self/mountinfo"]);
        let lines: Vec<&str> = said["stdout"].as_str().unwrap().lines().collect();
        let line = lines.iter().find(|line| line.contains(&format!(" {} ", below.path()))).unwrap();
        for word in ["rw", "nosuid", "nodev", "noexec"] {
            assert!(line.split([' ', ',']).any(|found| found == word), "{mode:?}: no {word} in {line}");
        }
    }
}
