//! Real executors, monitors and scripts.
//!
//! An executor forks, so it needs a process of its own: the test binary starts itself again, and the one test that
//! [`executor_role`] is then serves. Run by root, that process is nobody's.

mod attempts;
mod confined;
mod ends;
mod harness;
mod kept;
mod keys;
mod limits;
mod machine;
mod orders;
mod persons;
mod runs;
mod service;

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::wait::{WaitStatus, waitpid};
use serde_json::Value;

use super::confine;
use super::monitor::{self, Means};
use super::{Confinements, ExecEvent, Paths, Pins, Policy, ProfileLimits, Script, serve_private};
use crate::conf::{Root, Source, agent};
use crate::sys::attempt;
use crate::sys::fdpass;
use crate::sys::process::{self, Fork, Reaped};
use crate::sys::user;
use crate::wire::control::Reloaded;
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
        Fork::Child if directory.join("conf").exists() => root_executor(&control, &directory),
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
    let audit = |event: &ExecEvent<'_>| note(&log, event);
    let result = serve_private(control, || load(&directory.join("policy")), &audit);
    process::end(result.map_or_else(
        |error| {
            audit(&ExecEvent::Ignored { reason: &error.to_string() });
            1
        },
        |()| 0,
    ));
}

/// Reads real configuration files, and has nothing of a service but its orders.
fn root_executor(control: &OwnedFd, directory: &Path) {
    // Of which no script finds anything, and where keys are not allowed, there is none to find.
    process::own_keyring().unwrap();
    drop(attempt::hold_key(&format!("executor-{}", std::process::id())));
    write!(OpenOptions::new().write(true).open(directory.join("pid")).unwrap(), "{}", std::process::id()).unwrap();
    let log = OpenOptions::new().append(true).open(directory.join("log")).unwrap();
    let audit = |event: &ExecEvent<'_>| note(&log, event);
    let conf = directory.join("conf");
    let policy = load_confined(&conf.join("agent.conf"), &conf.join("scripts.conf"));
    let answer = match &policy {
        Ok(_) => Reloaded::Done,
        Err(text) => Reloaded::Failed { text: text.clone() },
    };
    fdpass::send(control, &serde_json::to_vec(&answer).unwrap(), &[]).unwrap();
    let Ok(policy) = policy else { process::end(1) };
    drop(confine::prepare());
    let mut buffer = [0; 64];
    loop {
        let mut message = fdpass::receive(control, &mut buffer, 1).unwrap();
        while let Ok(Reaped::Child(..)) = process::reap() {}
        let Some(connection) = message.descriptors.pop() else { process::end(0) };
        if let Fork::Child = process::fork().unwrap() {
            nix::unistd::close(std::os::fd::AsRawFd::as_raw_fd(control)).unwrap();
            let means = Means { policy: &policy, audit: &audit, network: None, control: None, full: None, place: None };
            monitor::run(connection, &means, None);
            process::end(0);
        }
    }
}

/// Reads files that anybody may have written, as a root executor never does.
fn load_confined(config: &Path, allowlist: &Path) -> Result<Policy, String> {
    let source = |path: &Path| Source::new(path, std::fs::read(path).unwrap());
    let loaded = agent::load(&source(config), &source(allowlist), &Root::new(None));
    let loaded = loaded.map_err(|errors| errors.to_string())?;
    let confinements = Some(Confinements::new(&loaded, allowlist, &super::OnDisk)?);
    Ok(Policy { paths: Paths::AnyAsRoot, confinements, ..Policy::of(&loaded.settings, &loaded.allowlist) })
}

/// Writes an event's line, and whether the process that tells it, which is a monitor for most, adopts orphans.
fn note(mut log: &File, event: &ExecEvent<'_>) {
    let adopts = nix::sys::prctl::get_child_subreaper().unwrap();
    log.write_all(format!("adopts={adopts} {}\n", event.line().line()).as_bytes()).unwrap();
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
        paths: Paths::Any { own: user::current().0 },
        confinements: None,
        output_max: value["output_max"].as_u64().unwrap_or(u64::MAX),
        max_children: value["max_children"].as_u64().map_or(64, |most| usize::try_from(most).unwrap()),
    })
}
