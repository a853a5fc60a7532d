//! A run that uses up the memory of its profile, as callers hear of it. Where the host lends no control groups, they hear
//! that instead; `cargo xtask vm` boots a host that does.

use std::process::Stdio;

use serde_json::Value;

use crate::harness::Site;
use crate::harness::executor::Mode;
use crate::harness::groups::Group;
use crate::jobs::Caller;

/// The shell survives its child everywhere but where the limit ends the run as a whole.
const GREEDY: &str = "head -c 100000000 /dev/zero | tail -n 1 >/dev/null; echo on";

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
    // Which the agent may divide.
    let enter = group.as_ref().map(|group| Group::entering(group.place())).unwrap_or_default();
    site.agent_mut().start_with(&enter, [Stdio::null(), Stdio::null()]);
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
