//! A reader that goes away, and a place that takes no more. The work comes to an orderly end.

use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader};
use std::os::fd::OwnedFd;
use std::process::Command;

use super::{ENDLESS, ended, is_ended, spawn};
use crate::harness::process::Ran;
use crate::harness::{Site, host};

/// Reads two lines, then waits for something, goes away, and waits for the end.
fn two_lines_of(command: Command, then: impl FnOnce()) -> Ran {
    let mut child = spawn(command);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let stdout = format!("{}\n{}\n", lines.next().unwrap().unwrap(), lines.next().unwrap().unwrap());
    then();
    drop(lines);
    Ran { stdout, ..ended(child) }
}

/// A command whose output has no reader from the beginning.
fn unread(mut command: Command) -> Ran {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    command.stdout(writer).stderr(std::process::Stdio::piped());
    ended(command.spawn().unwrap())
}

/// A command whose output goes where there is no room.
fn without_room(mut command: Command) -> Ran {
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    command.stdout(full).stderr(std::process::Stdio::piped());
    ended(command.spawn().unwrap())
}

#[test]
fn a_reader_that_went_away_ends_the_script() {
    for (words, hosts) in [
        (&["run", "--stream", "agent1", "endless"][..], 1),
        (&["run", "--stream", "agent1", "agent2", "endless"], 2),
        (&["run", "--json-lines", "agent1", "agent2", "endless"], 2),
    ] {
        let site = Site::builder().agents(2).sh("endless", ENDLESS).start();
        let agents = &site.agents[..hosts];
        // One that prints nothing never meets the reader that is gone.
        std::fs::write(site.agents[1].work("quiet"), "").unwrap();
        let begun = || agents.iter().for_each(|agent| drop(agent.worked("pid")));
        let ran = two_lines_of(site.control_command(words), begun).exits(141);
        assert_eq!(ran.messages(), "", "{words:?}");
        for agent in agents {
            is_ended(agent, agent.worked("pid").parse().unwrap(), "caller-gone");
        }
        let lines = ran.lines("run");
        assert_eq!(lines.len(), hosts, "{ran:?}");
        for line in &lines {
            assert_eq!(line.get("ERROR"), Some("ended: nobody reads the output any more"));
        }
        let record = site.control(&["status", lines[0].get("REQID").unwrap()]).exits(0);
        assert_eq!(
            record.stdout.matches("ERROR: ended: nobody reads the output any more\n").count(),
            hosts,
            "{record:?}"
        );
    }
}

#[test]
fn a_reader_that_went_away_spares_the_hosts_that_were_not_asked_yet() {
    let site = Site::builder().agents(2).dispatcher("max_parallel = 1").sh("endless", ENDLESS).start();
    let ran = two_lines_of(site.control_command(&["run", "--stream", "agent1", "agent2", "endless"]), || {}).exits(141);
    let errors: Vec<_> = ran.lines("run").iter().map(|line| line.get("ERROR").unwrap().to_owned()).collect();
    assert_eq!(errors, ["ended: nobody reads the output any more", "not asked: nobody reads the output any more"]);
    assert!(!site.agents[1].work("pid").exists());
}

#[test]
fn a_reader_of_standard_error_that_went_away_ends_the_script_too() {
    let site = Site::builder().sh("endless", "echo $$ > {work}/pid; exec yes >&2").start();
    let mut child = spawn(site.control_command(&["run", "--stream", "agent1", "endless"]));
    let pid = site.agent().worked_pid("pid");
    drop(child.stderr.replace(OwnedFd::from(File::open("/dev/null").unwrap()).into()));
    assert_eq!(ended(child).code, 141);
    is_ended(site.agent(), pid, "caller-gone");
}

#[test]
fn a_job_goes_on_without_the_reader_of_its_output() {
    let site = Site::builder().sh("endless", ENDLESS).start();
    let words = ["run", "--keep-running", "agent1", "endless"];
    let ran = two_lines_of(site.control_command(&words), || {}).exits(141);
    let pid = site.agent().worked_pid("pid");
    let id = ran.lines("dispatch")[0].get("REQID").unwrap().to_owned();
    for words in [&["result", &id, "--follow"]; 2] {
        let ran = two_lines_of(site.control_command(words), || {}).exits(141);
        assert_eq!((ran.stdout.as_str(), ran.messages().as_str()), ("y\ny\n", ""));
        assert!(host::alive(pid));
    }
    assert!(site.control(&["status", &id]).exits(0).stdout.contains("==> agent1  [running]\n"));
    site.control(&["cancel", &id]).exits(0);
}

#[test]
fn other_commands_end_quietly_without_a_reader() {
    let site = Site::builder().sh("ok", "echo ran >> {work}/ran").start();
    for words in COMMANDS {
        let ran = unread(site.control_command(words)).exits(141);
        assert_eq!(ran.messages(), "", "{words:?}");
    }
    // One that is short of it shows its output at the end, and is not ended before.
    assert_eq!(site.agent().worked("ran"), "ran\nran");
}

#[test]
fn output_for_which_there_is_no_room_is_an_error() {
    let site = Site::builder().sh("ok", "echo ran >> {work}/ran").sh("endless", ENDLESS).start();
    for words in COMMANDS {
        let ran = without_room(site.control_command(words)).exits(74);
        let told = "Error: the output could not be written\n  because: No space left on device (os error 28)\nhint: ";
        assert!(ran.messages().starts_with(told), "{words:?}: {ran:?}");
    }
    let ran = without_room(site.control_command(&["run", "--stream", "agent1", "endless"])).exits(74);
    assert!(ran.messages().contains("No space left on device"), "{ran:?}");
    let gone = |line: &crate::harness::audit::Line| line.get("SCRIPT") == Some("endless");
    assert_eq!(site.agent().line_where("run", gone).get("REASON"), Some("caller-gone"));
}

/// Commands that print what they have to say and end.
const COMMANDS: [&[&str]; 7] = [
    &["list-agents"],
    &["--json", "list-agents"],
    &["run", "agent1", "ok"],
    &["--json", "run", "agent1", "ok"],
    &["ping", "agent1"],
    &["check-config"],
    &["--help"],
];
