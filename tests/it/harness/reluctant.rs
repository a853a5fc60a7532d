//! A process that is killed and not gone yet, for as long as a test likes: a stand-in for one that has much to give back.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

/// Seizes a process and asks to be told of its end, which then waits for the holder (`PTRACE_SEIZE`, `PTRACE_O_TRACEEXIT`,
/// ptrace(2)). Until it goes on, it has everything that it had: memory, descriptors, locks.
const HOLD: &str = r#"
$| = 1; syscall($ARGV[0] + 0, 0x4206, $ARGV[1] + 0, 0, 0x40) == 0 or die "$!\n"; print "held\n"; <STDIN>;
"#;

/// The number of ptrace(2).
const PTRACE: &str = if cfg!(target_arch = "aarch64") { "117" } else { "101" };

/// A process that lives, and does not end before this is dropped, whoever kills it.
#[derive(Debug)]
pub(crate) struct Reluctant {
    holder: Child,
}

impl Reluctant {
    pub(crate) fn of(pid: u32) -> Self {
        let mut command = Command::new("perl");
        command.args(["-e", HOLD, PTRACE, &pid.to_string()]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut holder = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(holder.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "held\n", "process {pid} is not held");
        Self { holder }
    }
}

impl Drop for Reluctant {
    fn drop(&mut self) {
        drop(self.holder.kill());
        drop(self.holder.wait());
    }
}
