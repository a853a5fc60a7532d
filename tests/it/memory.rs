//! A run that uses up the memory of its profile, as callers hear of it. Where the host lends no control groups, they hear
//! that instead; `cargo xtask vm` boots a host that does.

use std::path::PathBuf;
use std::process::Stdio;

use serde_json::Value;

use crate::harness::Site;
use crate::harness::executor::Mode;
use crate::jobs::Caller;

/// The shell survives its child everywhere but where the limit ends the run as a whole.
const GREEDY: &str = "head -c 100000000 /dev/zero | tail -n 1 >/dev/null; echo on";

/// A control group for an agent alone, which it may divide. Removed when dropped.
struct Group(PathBuf);

impl Group {
    /// Nothing where the host has no controllers to lend.
    fn new() -> Option<Self> {
        let top = PathBuf::from("/sys/fs/cgroup");
        let lent = std::fs::read_to_string(top.join("cgroup.subtree_control")).unwrap_or_default();
        let all = ["memory", "pids", "cpu"].iter().all(|name| lent.split_whitespace().any(|word| word == *name));
        assert!(all || std::env::var_os("CTRL_EXEC_ALL_CONTROLLERS").is_none(), "{lent}");
        let group = top.join(format!("ctrl-exec-it-{}", std::process::id()));
        (all && std::fs::create_dir(&group).is_ok()).then_some(Self(group))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let below = std::fs::read_dir(&self.0).into_iter().flatten().flatten().map(|entry| entry.path());
        below.filter(|path| path.is_dir()).for_each(|path| drop(std::fs::remove_dir(path)));
        drop(std::fs::remove_dir(&self.0));
    }
}

fn is_told(answer: &Value, group: Option<&Group>) {
    let reason = answer["reason"].as_str().unwrap_or_default();
    assert_eq!(answer["exit"], 126, "{answer}");
    if group.is_some() {
        assert_eq!((reason, &answer["stdout"]), ("out of memory: the limit is 33554432 bytes", &"".into()), "{answer}");
    } else {
        assert!(reason.starts_with("could not confine: memory_max: ") && reason.contains("Delegate=yes"), "{answer}");
    }
}

#[test]
fn a_run_and_a_job_that_are_out_of_memory_say_so_to_their_callers() {
    let group = Group::new();
    let builder =
        Site::builder().executor(Mode::Own).section("memory_max = 32M").sh("greedy", GREEDY).sh("modest", "echo on");
    let mut site = builder.prepare();
    let enter = group.as_ref().map(|group| format!("echo $$ > {}/cgroup.procs", group.0.display()));
    site.agent_mut().start_with(&enter.clone().unwrap_or_default(), [Stdio::null(), Stdio::null()]);
    site.register("agent1", site.agent().address().port(), &site.agent().credentials);
    is_told(&site.result("greedy", &[]), group.as_ref());
    let caller = Caller::of(&site);
    caller.accepted("greedy", "r1");
    is_told(&caller.ended("r1"), group.as_ref());
    // And the twin.
    if group.is_some() {
        assert_eq!(site.result("modest", &[])["stdout"], "on\n");
    }
    assert_eq!(site.agent_mut().stop(), Some(0));
}
