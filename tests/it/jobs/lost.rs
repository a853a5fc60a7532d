//! Who may die while a job runs, and what is known of it afterwards.

use nix::sys::signal::Signal;
use serde_json::json;

use super::{Caller, dead, file, files, go, site, waiting};
use crate::harness::impostor::Impostor;
use crate::harness::{Site, eventually, host};

/// Kills agent and executor, as a power cut would that spares the jobs.
fn kill_both(site: &mut Site) {
    let executor = site.agent().executor();
    host::kill(executor, Signal::SIGKILL);
    site.agent_mut().kill();
    dead(executor);
}

#[test]
fn a_job_survives_the_death_of_agent_and_executor() {
    let mut site = site().start();
    Caller::of(&site).accepted("wait", "r1");
    let (script, _) = waiting(&site);
    kill_both(&mut site);
    assert!(host::alive(script));
    site.start(0);
    let caller = Caller::of(&site);
    assert_eq!(caller.result("r1")["status"], "running");
    assert_eq!(caller.submit("wait", "r2").status, 409, "the script's lock is held");
    go(&site);
    let done = caller.ended("r1");
    assert_eq!((&done["status"], &done["exit"]), (&json!("done"), &json!(3)), "{done}");
    assert_eq!(done["stdout"], "begun\nover\n");
    caller.accepted("wait", "r2");
    assert_eq!(caller.ended("r2")["exit"], 3);
}

#[test]
fn a_job_that_ends_while_nobody_is_there_leaves_its_result() {
    let mut site = site().start();
    Caller::of(&site).accepted("wait", "r1");
    let (_, monitor) = waiting(&site);
    kill_both(&mut site);
    go(&site);
    dead(monitor);
    let ended = std::fs::metadata(file(&site, "r1", "status")).unwrap().modified().unwrap();
    site.start(0);
    // The agent finds it at its start, without being asked.
    eventually("the final record", || (!file(&site, "r1", "status").exists()).then_some(()));
    let done = Caller::of(&site).result("r1");
    assert_eq!((&done["status"], &done["exit"]), (&json!("done"), &json!(3)), "{done}");
    let seconds = ended.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    assert_eq!(done["finished"], ctrl_exec::wire::stamp::utc(seconds), "the time of the end, not of the look");
}

#[test]
fn a_job_survives_a_stopped_agent_and_a_reload() {
    let mut site = site().start();
    Caller::of(&site).accepted("wait", "r1");
    waiting(&site);
    site.agent().reload().is(&["ACTION=reload", "RESULT=ok"]);
    assert_eq!(site.agent_mut().stop(), Some(0));
    site.start(0);
    go(&site);
    assert_eq!(Caller::of(&site).ended("r1")["exit"], 3);
}

#[test]
fn a_job_whose_monitor_was_killed_is_lost_and_its_script_is_gone() {
    let site = site().start();
    let caller = Caller::of(&site);
    caller.accepted("wait", "r1");
    let (script, monitor) = waiting(&site);
    host::kill(monitor, Signal::SIGKILL);
    [script, monitor].into_iter().for_each(dead);
    // Its executor may hold its locks for the last of the run's processes.
    let lost = caller.ended("r1");
    assert_eq!((&lost["status"], &lost["exit"]), (&json!("lost"), &json!(-1)), "{lost}");
    assert!(lost["error"].as_str().unwrap().contains("supervisor was killed"), "{lost}");
    assert_eq!((&lost["stdout"], &lost["finished"].is_string()), (&json!("begun\n"), &true));
    assert_eq!(caller.result("r1"), lost);
    // Its script may run again.
    go(&site);
    caller.accepted("wait", "r2");
    assert_eq!(caller.ended("r2")["exit"], 3);
}

/// The original's dispatcher asks without naming any media type of ours, and knows `running` and `done`.
#[test]
fn a_caller_that_does_not_know_the_word_is_told_that_a_lost_job_has_ended() {
    let site = site().start();
    let caller = Caller::of(&site);
    caller.accepted("wait", "r1");
    let (script, monitor) = waiting(&site);
    // Of a job that runs both are told the same.
    let original = |path: &str| {
        let mut http = caller.connect();
        http.send(format!(
            "GET {path} HTTP/1.1\r\nTE: deflate,gzip;q=0.3\r\nConnection: TE, close\r\nHost: agent1\r\n\
             User-Agent: libwww-perl/6.68\r\n\r\n"
        ));
        let answer = http.answer().unwrap();
        assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")), "{answer:?}");
        answer.json()
    };
    assert_eq!(original("/result/r1"), caller.result("r1"));
    host::kill(monitor, Signal::SIGKILL);
    [script, monitor].into_iter().for_each(dead);
    caller.ended("r1");
    let told = original("/result/r1");
    assert_eq!((&told["status"], &told["exit"], &told["stdout"]), (&json!("done"), &json!(-1), &json!("begun\n")));
    let words =
        "the job's end is unknown: its supervisor was killed, or could not write it down, or the host went down";
    assert_eq!((&told["reason"], &told["error"]), (&json!("outcome-unknown"), &json!(words)), "{told}");
    assert_eq!(told["stderr"], format!("ctrl-exec-agent: {words}\n"), "all that its dispatcher shows");
    for field in ["reqid", "script", "owner", "started", "finished"] {
        assert!(told[field].is_string(), "{field}: {told}");
    }
    let piece = original("/result/r1?from=2");
    assert_eq!((&piece["status"], &piece["exit"], &piece["stdout"]), (&json!("done"), &json!(-1), &json!("gun\n")));
    let cancelled = caller.post("/cancel/r1", &json!({}));
    assert_eq!((cancelled.status, &cancelled.json()["status"]), (200, &json!("done")));
    assert_eq!(cancelled.header("content-type"), Some("application/json"));
    // And an agent of the original that takes the place of ours would hand out the same as it stands in the file.
    let on_file: serde_json::Value =
        serde_json::from_slice(&std::fs::read(file(&site, "r1", "json")).unwrap()).unwrap();
    assert_eq!(on_file, original("/result/r1"));
    assert_eq!(on_file["status"], "done");
    // Who knows the word hears it, and nothing of what was added.
    for request in ["GET /result/r1", "GET /result/r1?from=2", "POST /cancel/r1"] {
        let answer = caller.knowing(request);
        assert_eq!((answer.status, &answer.json()["status"]), (200, &json!("lost")), "{request}");
        assert_eq!(answer.header("content-type"), Some("application/vnd.ctrl-exec.job+json"), "{request}");
    }
    let known = caller.result("r1");
    assert_eq!(
        (&known["stderr"], &known["error"], known.get("lost")),
        (&json!(""), &on_file["error"], None),
        "{known}"
    );
    site.agent().line_where("result", |line| line.get("STATUS") == Some("lost"));
    assert!(site.agent().lines("result").iter().all(|line| line.get("STATUS") != Some("done")));
}

/// An original's agent in the place of ours, whose store it has taken over.
#[test]
fn our_dispatcher_says_lost_of_a_record_that_an_agent_of_the_original_hands_out() {
    let site = site().start();
    let caller = Caller::of(&site);
    let submitted = site.control(&["--json", "run", "--async", "agent1", "wait"]).exits(0).json();
    let id = submitted["reqid"].as_str().unwrap().to_owned();
    let (script, monitor) = waiting(&site);
    host::kill(monitor, Signal::SIGKILL);
    [script, monitor].into_iter().for_each(dead);
    assert_eq!(caller.ended(&id)["status"], "lost");
    let body = std::fs::read_to_string(file(&site, &id, "json")).unwrap();
    let answer =
        format!("HTTP/1.0 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let credentials = site.agent().credentials.clone();
    let original = Impostor::start(&site.authority(), &credentials, &answer);
    site.register("agent1", original.address.port(), &credentials);
    let known = site.control(&["--json", "status", &id]).exits(0).json();
    let host = &known["hosts"]["agent1"];
    assert_eq!((&host["status"], &host["exit"]), (&json!("lost"), &json!(-1)), "{known}");
    assert_eq!((&host["stdout"], &host["stderr"]), (&json!("begun\n"), &json!("")), "{known}");
    assert_eq!(known["complete"], true);
}

#[test]
fn a_host_that_went_down_has_lost_its_jobs_and_nothing_runs_for_ever() {
    let mut site = site().start();
    Caller::of(&site).accepted("wait", "r1");
    let (script, monitor) = waiting(&site);
    site.agent_mut().kill();
    host::kill(monitor, Signal::SIGKILL);
    [script, monitor].into_iter().for_each(dead);
    // As a power cut leaves it: half a line.
    std::fs::write(file(&site, "r1", "status"), "{\"kind\":\"exi").unwrap();
    site.start(0);
    eventually("the final record", || (files(&site) == ["r1.json", "r1.lost", "r1.stderr", "r1.stdout"]).then_some(()));
    assert_eq!(Caller::of(&site).result("r1")["status"], "lost");
}

#[test]
fn what_a_killed_submission_left_is_swept_or_lost() {
    let mut site = site().start();
    Caller::of(&site).accepted("ok", "r1");
    Caller::of(&site).ended("r1");
    site.agent_mut().kill();
    // Before the record, there is no job; after it and before the order, there is one that never ran.
    let touch = |id, suffix| std::fs::write(file(&site, id, suffix), "").unwrap();
    for suffix in ["stdout", "stderr", "status"] {
        touch("before", suffix);
        touch("after", suffix);
    }
    let record =
        r#"{"reqid":"after","status":"running","script":"ok","owner":"control-1","started":"2026-11-22T00:00:00Z"}"#;
    std::fs::write(file(&site, "after", "json"), record).unwrap();
    for name in files(&site) {
        host::give_to_agent(&file(&site, "x", "json").with_file_name(name));
    }
    site.start(0);
    let want = ["after.json", "after.lost", "after.stderr", "after.stdout", "r1.json", "r1.stderr", "r1.stdout"];
    eventually("the sweep", || (files(&site) == want).then_some(()));
    let caller = Caller::of(&site);
    assert_eq!(caller.get("/result/before").status, 404);
    assert_eq!(caller.result("after")["status"], "lost");
    assert_eq!(std::fs::read_to_string(site.agent().work("ran")).unwrap(), "ran\n");
}
