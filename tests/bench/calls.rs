//! The usual calls of the command line under a program that watches them, for the list of what they execute
//! (`cargo xtask usual`).

use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::site::Site;

/// A full connection, one that resumes its session, and the shortest call.
const CALLS: [&[&str]; 3] = [&["run", "--no-resume", "web", "true"], &["run", "web", "true"], &["ping", "web"]];

/// The words are the watching program and its own; the binary and the call's words are put behind them.
pub(crate) fn help(words: &[&str]) {
    let binary = PathBuf::from(std::env::var_os("CTRL_EXEC_BIN").unwrap());
    let (program, words) = words.split_first().unwrap();
    let site = Site::start(&binary);
    // The first call leaves the session that the later ones resume.
    for call in [CALLS[1]].into_iter().chain(CALLS) {
        let mut command = Command::new(program);
        command.args(words).arg(&binary).arg("--root").arg(site.root()).args(call);
        let status = command.stdin(Stdio::null()).stdout(Stdio::null()).status().unwrap();
        assert!(status.success(), "{command:?}: {status}");
    }
}
