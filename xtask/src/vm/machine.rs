//! The machine: started, watched, and ended.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use crate::Outcome;

/// How long the machine may run. It takes seconds to boot, and emulation costs a test up to thirty times its time.
const PATIENCE: Duration = Duration::from_mins(30);
/// How long until its first program runs, and how often it is tried: now and then an emulated kernel waits for ever for a tick
/// of its clock that does not come, before there is any program.
const BOOT: Duration = Duration::from_mins(3);
const BOOTS: usize = 3;
/// What the first program says first.
const UP: &str = "ctrl-exec-vm: up";
/// What the first program says last.
const VERDICT: &str = "ctrl-exec-vm: tests ended with ";
/// What the kernel is told in any case.
const PARAMETERS: &str = "console=ttyS0 quiet panic=-1 cgroup_no_v1=all";

/// Boots `kernel` with `image` and further parameters, and returns how the tests ended.
pub(super) fn run(kernel: &Path, image: &Path, parameters: &str) -> Outcome<String> {
    for _ in 0..BOOTS {
        match watch(boot(kernel, image, &format!("{PARAMETERS}{parameters}"))?)? {
            Some(status) => return Ok(status),
            None => println!("the virtual machine has not come up within {} s", BOOT.as_secs()),
        }
    }
    Err(format!("the virtual machine does not come up: it was tried {BOOTS} times"))
}

fn boot(kernel: &Path, image: &Path, parameters: &str) -> Outcome<Child> {
    let program = format!("qemu-system-{}", std::env::consts::ARCH);
    Command::new(&program)
        .args(["-accel", "tcg", "-cpu", "max", "-smp", "2", "-m", "1536", "-display", "none", "-no-reboot"])
        .args(["-serial", "stdio", "-append", parameters, "-kernel"])
        .arg(kernel)
        .arg("-initrd")
        .arg(image)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|why| format!("cannot start {program}: {why}; apt-get install qemu-system-x86"))
}

/// Passes the console on and returns what the machine said last; nothing if it did not come up in time.
fn watch(mut machine: Child) -> Outcome<Option<String>> {
    let console = machine.stdout.take().ok_or("the virtual machine has no console")?;
    let (sender, lines) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(console).split(b'\n').map_while(Result::ok) {
            let _ = sender.send(String::from_utf8_lossy(&line).trim_end().to_owned());
        }
    });
    let (start, mut patience) = (Instant::now(), BOOT);
    let mut verdict = Err("the virtual machine ended without a word about the tests".to_owned());
    loop {
        match lines.recv_timeout(patience.saturating_sub(start.elapsed())) {
            Ok(line) => {
                println!("{line}");
                // The console may have more in front of it.
                if line.ends_with(UP) {
                    patience = PATIENCE;
                }
                if let Some(status) = line.strip_prefix(VERDICT) {
                    verdict = Ok(Some(status.to_owned()));
                }
            }
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) if patience == BOOT => {
                verdict = Ok(None);
                break;
            }
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
