//! Readers that read slowly or nothing, and ends that stand still.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::Stdio;

use nix::sys::signal::Signal;

use super::{ended, is_ended, spawn};
use crate::harness::host::peak;
use crate::harness::{Site, eventually, host};

#[test]
fn output_that_nobody_reads_holds_the_script_back_and_grows_nobody() {
    let zeros = "echo $$ > {work}/pid; exec cat /dev/zero";
    let site = Site::builder().agent("stall_timeout = 1").sh("zeros", zeros).start();
    let before = peak(site.agent().pid());
    let mut child = spawn(site.control_command(&["run", "--stream", "agent1", "zeros"]));
    let pid = site.agent().worked_pid("pid");
    is_ended(site.agent(), pid, "caller-stalled");
    let (agent, dispatcher) = (peak(site.agent().pid()).saturating_sub(before), peak(child.id()));
    assert!(agent < 16 * 1024, "the agent grew by {agent} KiB");
    assert!(dispatcher < 64 * 1024, "the dispatcher took {dispatcher} KiB");
    let mut rest = Vec::new();
    child.stdout.take().unwrap().read_to_end(&mut rest).unwrap();
    assert!(rest.len() < 16 << 20, "{} bytes were under way", rest.len());
    let told = String::from_utf8(rest.into_iter().filter(|byte| *byte != 0).collect()).unwrap();
    assert!(told.contains("lost after the script started; outcome unknown"), "{told}");
    assert_eq!(ended(child).code, 1);
}

#[test]
fn an_agent_that_stands_still_leaves_the_outcome_unknown() {
    let text = "echo $$ > {work}/pid; while :; do echo x; sleep 0.01; done";
    let site = Site::builder().dispatcher("read_timeout = 5").sh("ticks", text).start();
    let mut child = spawn(site.control_command(&["run", "--stream", "agent1", "ticks"]));
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert_eq!(lines.next().unwrap(), "x");
    let pid = site.agent().worked_pid("pid");
    host::kill(site.agent().pid(), Signal::SIGSTOP);
    let told: Vec<String> = lines.filter(|line| line != "x").collect();
    host::kill(site.agent().pid(), Signal::SIGCONT);
    let unknown = "lost after the script started; outcome unknown: nothing was heard for 5s";
    assert!(told.iter().any(|line| line.ends_with(unknown)), "{told:?}");
    assert_eq!(ended(child).code, 1);
    is_ended(site.agent(), pid, "caller-gone");
}

#[test]
fn a_dispatcher_that_stands_still_loses_its_script() {
    let site = Site::builder().agent("stall_timeout = 1").sh("endless", super::ENDLESS).start();
    // Somebody takes all that it prints, so that it is the dispatcher alone who takes nothing.
    let mut command = site.control_command(&["run", "--stream", "agent1", "endless"]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    let pid = site.agent().worked_pid("pid");
    host::kill(child.id(), Signal::SIGSTOP);
    is_ended(site.agent(), pid, "caller-stalled");
    host::kill(child.id(), Signal::SIGCONT);
    let ran = ended(child).exits(1);
    let told = ran.lines("run")[0].get("ERROR").unwrap().to_owned();
    assert!(told.contains("lost after the script started; outcome unknown"), "{told}");
}

#[test]
fn short_lines_stay_whole_beside_lines_of_any_length() {
    const HOSTS: usize = 3;
    let text = "long() { head -c $1 /dev/zero | tr '\\0' x; echo; }; i=0; while [ $i -lt 40 ]; do echo short $i; \
                long 5000; [ $((i % 10)) = 0 ] && long 200000; echo short again $i; i=$((i + 1)); done";
    let site = Site::builder().agents(HOSTS).sh("mixed", text).start();
    let ran = site.control(&["run", "--stream", "agent1", "agent2", "agent3", "mixed"]).exits(0);
    let lines: Vec<&str> = ran.stdout.lines().filter(|line| !line.starts_with("==> ")).collect();
    for agent in &site.agents {
        let prefix = format!("{}: ", agent.name);
        let own: Vec<&str> = lines.iter().filter_map(|line| line.strip_prefix(&prefix)).collect();
        let want = (0..40).flat_map(|number| [format!("short {number}"), format!("short again {number}")]);
        let short: Vec<&str> = own.iter().filter(|line| line.starts_with('s')).copied().collect();
        assert_eq!(short, want.collect::<Vec<_>>(), "{}", agent.name);
        // Lines up to 64 KiB are whole, longer ones in pieces of so much.
        let long: Vec<usize> = own.iter().filter(|line| !line.starts_with('s')).map(|line| line.len()).collect();
        let pieces = [&[5000, 65_536, 65_536, 65_536, 3392][..], &[5000; 9]].concat();
        assert_eq!(long, pieces.repeat(4), "{}", agent.name);
    }
    assert_eq!(lines.iter().filter(|line| line.starts_with("agent")).count(), lines.len());
    eventually("the end of the scripts", || {
        site.agents.iter().all(|agent| agent.lines("run").len() == 1).then_some(())
    });
}
