//! `vm`: the tests of confinement on another kernel, in a virtual machine.
//!
//! What a host's own kernel decides for all its tests is here chosen: Debian's 6.1 with Landlock's second ABI, and
//! cgroup v2 with all its controllers, so that limits are seen to hold and not only to be asked for. The machine is
//! emulated (QEMU's TCG), needs neither rights nor `/dev/kvm`, and has a `BusyBox` to get up with.

mod cpio;
mod kernel;
mod programs;

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use self::cpio::Archive;
use crate::{Outcome, dist, place};

/// Which tests run where nothing else is said.
///
/// Not those of the private executor: they race the scheduler, which an emulated machine on a busy host may lose.
const TESTS: [&str; 8] = [
    "executor::tests::confined",
    "executor::tests::limits",
    "executor::tests::persons",
    "sys::mount",
    "sys::capability",
    "sys::landlock",
    "sys::seccomp",
    "sys::cgroup",
];
/// How long the machine may run. It takes seconds to boot, and emulation costs a test up to thirty times its time.
const PATIENCE: Duration = Duration::from_mins(15);
/// What the first program says last.
const VERDICT: &str = "ctrl-exec-vm: tests ended with ";
/// The first program: mounts what a host has mounted, runs the tests, and turns the machine off.
const INIT: &str = include_str!("init.sh");

/// Builds the tests, boots them, and says how they ended.
pub(crate) fn task(words: &[String]) -> Outcome {
    let (kernel, busybox) = (kernel::find()?, busybox()?);
    let tests = dist::quick_tests()?;
    let filters: Vec<&str> = if words.is_empty() { TESTS.to_vec() } else { words.iter().map(String::as_str).collect() };
    let image = place::repository().join("target/vm/initramfs.cpio");
    write_image(&image, &busybox, &tests, &filters)?;
    println!("booting {} with {}", kernel.display(), image.display());
    let status = watch(boot(&kernel, &image)?)?;
    if status == "0" { Ok(()) } else { Err(format!("the tests in the virtual machine ended with {status}: see above")) }
}

fn busybox() -> Outcome<PathBuf> {
    let places = ["/bin/busybox", "/usr/bin/busybox"].map(PathBuf::from);
    let found = places.into_iter().find(|path| path.is_file());
    let found = found.ok_or("there is no busybox: apt-get install busybox-static")?;
    dist::is_static(&found)
        .map_err(|why| format!("{why}\nthe machine has no libraries: apt-get install busybox-static"))?;
    Ok(found)
}

fn write_image(image: &Path, busybox: &Path, tests: &Path, filters: &[&str]) -> Outcome {
    let read = |path: &Path| fs::read(path).map_err(|why| format!("cannot read {}: {why}", path.display()));
    let mut archive = Archive::default();
    for folder in ["dev", "proc", "etc", "tests", "usr", "usr/bin", "usr/sbin", "usr/share"] {
        archive.folder(folder);
    }
    // As on a host of today.
    archive.link("bin", "usr/bin");
    archive.link("sbin", "usr/sbin");
    archive.file("busybox", 0o755, &read(busybox)?);
    programs::pack(&mut archive)?;
    archive.file("init", 0o755, INIT.as_bytes());
    archive.file("tests/run", 0o755, &read(tests)?);
    archive.file("tests/filters", 0o644, filters.join("\n").as_bytes());
    archive.file("etc/passwd", 0o644, PASSWD.as_bytes());
    archive.file("etc/group", 0o644, GROUP.as_bytes());
    archive.file("etc/hostname", 0o644, b"machine\n");
    archive.file("etc/hosts", 0o644, HOSTS.as_bytes());
    let folder = image.parent().unwrap_or(image);
    fs::create_dir_all(folder).map_err(|why| format!("cannot make {}: {why}", folder.display()))?;
    fs::write(image, archive.finish()).map_err(|why| format!("cannot write {}: {why}", image.display()))
}

const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1::/:/bin/false\nbin:x:2:2::/:/bin/false\n\
    games:x:5:60:games:/usr/games:/bin/false\n\
    nobody:x:65534:65534:nobody:/nonexistent:/bin/false\n";
const HOSTS: &str = "127.0.0.1 localhost\n";
const GROUP: &str = "root:x:0:\ndaemon:x:1:games\nbin:x:2:\ngames:x:60:\nnogroup:x:65534:\n";

fn boot(kernel: &Path, image: &Path) -> Outcome<Child> {
    let program = format!("qemu-system-{}", std::env::consts::ARCH);
    Command::new(&program)
        .args(["-accel", "tcg", "-cpu", "max", "-smp", "2", "-m", "1024", "-display", "none", "-no-reboot"])
        .args(["-serial", "stdio", "-append", "console=ttyS0 quiet panic=-1 cgroup_no_v1=all", "-kernel"])
        .arg(kernel)
        .arg("-initrd")
        .arg(image)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|why| format!("cannot start {program}: {why}; apt-get install qemu-system-x86"))
}

/// Passes the console on and returns what the machine said last.
fn watch(mut machine: Child) -> Outcome<String> {
    let console = machine.stdout.take().ok_or("the virtual machine has no console")?;
    let (sender, lines) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(console).split(b'\n').map_while(Result::ok) {
            let _ = sender.send(String::from_utf8_lossy(&line).trim_end().to_owned());
        }
    });
    let deadline = Instant::now() + PATIENCE;
    let mut verdict = Err("the virtual machine ended without a word about the tests".to_owned());
    loop {
        match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => {
                println!("{line}");
                if let Some(status) = line.strip_prefix(VERDICT) {
                    verdict = Ok(status.to_owned());
                }
            }
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                verdict = Err(format!("the virtual machine ran for more than {} s", PATIENCE.as_secs()));
                break;
            }
        }
    }
    // It has ended by itself, or has to.
    let _ = machine.kill();
    machine.wait().map_err(|why| format!("cannot wait for the virtual machine: {why}"))?;
    verdict
}
