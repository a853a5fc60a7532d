//! A file that does not open: a stand-in for a file system that does not answer, from which nobody but the kernel can tell it.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

/// Holds a lease on the file (`F_SETLEASE`, fcntl(2)): whoever opens it, exec included, waits until that is given back, or until
/// the kernel takes it away after `/proc/sys/fs/lease-break-time` seconds, 45 where nobody has said otherwise. The file's facts
/// can be looked at, and it can be replaced.
///
/// `F_WRLCK`, since others read it; the number of the command is the same on every machine.
const HOLD: &str = r#"
use Fcntl; $| = 1; $SIG{IO} = sub { print "asked\n" };
open(my $file, "<", $ARGV[0]) or die "$!\n"; fcntl($file, 1024, F_WRLCK) or die "$!\n"; print "held\n";
my $ends = ""; vec($ends, 0, 1) = 1; 1 until select(my $end = $ends, undef, undef, undef) > 0;
"#;

/// A file under a lease, until this is dropped.
#[derive(Debug)]
pub(crate) struct Lease {
    holder: Child,
    said: BufReader<ChildStdout>,
}

impl Lease {
    /// Takes one. Nobody may have the file open.
    pub(crate) fn on(file: &Path) -> Self {
        let mut command = Command::new("perl");
        command.args(["-e", HOLD]).arg(file).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut holder = command.spawn().unwrap();
        let said = BufReader::new(holder.stdout.take().unwrap());
        let mut lease = Self { holder, said };
        assert_eq!(lease.line(), "held\n", "no lease on {}", file.display());
        lease
    }

    /// Waits until somebody wants to open the file, and waits for it.
    pub(crate) fn asked(&mut self) {
        assert_eq!(self.line(), "asked\n");
    }

    /// Whether the kernel has not taken it away, which leaves one that only keeps writers off: nobody has opened the file.
    pub(crate) fn is_held(&self) -> bool {
        let holder = self.holder.id().to_string();
        let is_own = |words: &Vec<&str>| words.contains(&"LEASE") && words.contains(&holder.as_str());
        let look = || {
            let locks = std::fs::read_to_string("/proc/locks").unwrap();
            let own = locks.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()).find(is_own)?;
            Some(own.contains(&"BREAKING") || own.contains(&"WRITE"))
        };
        // The kernel may leave a line out while others lock and unlock.
        (0..1000).find_map(|_| look()).unwrap_or_default()
    }

    /// Gives it back.
    pub(crate) fn give_back(mut self) {
        drop(self.holder.stdin.take().map(|mut stdin| stdin.write_all(b"\n")));
        self.holder.wait().unwrap();
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.said.read_line(&mut line).unwrap();
        line
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        drop(self.holder.kill());
        drop(self.holder.wait());
    }
}
