//! Who reads the output of a command: somebody who goes away, who reads nothing, who has no room, and a terminal.

mod gone;
mod silent;
mod slow;
mod terminal;

use std::io::Read as _;
use std::process::{Child, Command, Stdio};

use crate::harness::process::Ran;
use crate::harness::{Agent, eventually, host};

/// Prints for ever, unless it is to be quiet.
const ENDLESS: &str = "echo $$ > {work}/pid; [ -e {work}/quiet ] && exec sleep 300; exec yes";

fn spawn(mut command: Command) -> Child {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Waits for the end of a command, whose output is what is left of it.
fn ended(mut child: Child) -> Ran {
    let (mut stdout, mut stderr) = (Vec::new(), String::new());
    if let Some(mut rest) = child.stdout.take() {
        rest.read_to_end(&mut stdout).unwrap();
    }
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    let status = eventually("the end of the command", || child.try_wait().unwrap());
    Ran { code: status.code().unwrap_or(-1), stdout: String::from_utf8(stdout).unwrap(), stderr }
}

/// The script of a run has ended, and the agent says for which reason.
#[track_caller]
fn is_ended(agent: &Agent, pid: u32, reason: &str) {
    eventually("the script's end", || (!host::alive(pid)).then_some(()));
    let line = agent.line("run");
    assert_eq!((line.get("EXIT"), line.get("REASON")), (Some("126"), Some(reason)), "{line:?}");
}
