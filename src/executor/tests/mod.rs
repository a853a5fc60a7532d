//! Real executors, monitors and scripts.
//!
//! An executor forks, so it needs a process of its own: the test binary starts itself again, and the one test that
//! [`executor_role`] is then serves. Run by root, that process is nobody's.

mod ends;
mod harness;
mod orders;
mod runs;
mod service;

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::wait::{WaitStatus, waitpid};
use serde_json::Value;

use super::{ExecEvent, Pins, Policy, ProfileLimits, Script, serve_private};
use crate::sys::process::{self, Fork};
use crate::wire::name::ScriptName;

/// Names the directory of a test, and makes [`executor_role`] serve.
const DIRECTORY: &str = "CTRL_EXEC_TEST_EXECUTOR";

/// Not a test but a role, when [`DIRECTORY`] is set. The harness has threads, so the executor is a fork with one, whose
/// status this process ends with.
#[test]
fn executor_role() {
    let Some(directory) = std::env::var_os(DIRECTORY).map(PathBuf::from) else { return };
    let control = process::control_from_stdin().unwrap();
    match process::fork().unwrap() {
        Fork::Child => executor(control, &directory),
        Fork::Parent(pid) => {
            drop(control);
            let status = waitpid(pid, None).unwrap();
            process::end(if let WaitStatus::Exited(_, code) = status { code } else { 128 });
        }
    }
}

fn executor(control: OwnedFd, directory: &Path) {
    let mut file = OpenOptions::new().write(true).open(directory.join("pid")).unwrap();
    write!(file, "{}", std::process::id()).unwrap();
    let log = OpenOptions::new().append(true).open(directory.join("log")).unwrap();
    let audit = |event: &ExecEvent<'_>| writeln!(&log, "{}", event.line().line()).unwrap();
    let result = serve_private(control, || load(&directory.join("policy")), audit);
    process::end(result.map_or_else(
        |error| {
            audit(&ExecEvent::Ignored { reason: &error.to_string() });
            1
        },
        |()| 0,
    ));
}

/// Stands in for the configuration files.
fn load(path: &Path) -> Result<Policy, String> {
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    let value: Value = serde_json::from_str(&text).map_err(|error| format!("policy: {error}"))?;
    let scripts = value["scripts"].as_object().ok_or("no scripts")?.iter().map(|(name, path)| {
        let script =
            Script { path: path.as_str().unwrap().into(), profile: "default".to_owned(), pins: Pins::default() };
        (ScriptName::parse(name).unwrap(), script)
    });
    let millis = |key: &str| value[key].as_u64().map(Duration::from_millis);
    let limits = ProfileLimits { timeout: millis("timeout"), kill_grace: millis("kill_grace").unwrap_or_default() };
    let dirs = value["script_dirs"].as_array();
    Ok(Policy {
        scripts: scripts.collect(),
        script_dirs: dirs.map(|dirs| dirs.iter().map(|dir| dir.as_str().unwrap().into()).collect()),
        profiles: BTreeMap::from([("default".to_owned(), limits)]),
        max_children: value["max_children"].as_u64().map_or(64, |most| usize::try_from(most).unwrap()),
    })
}
