//! One outcome to the caller, in every form of an answer: what is known of a run, what is not, and why it did not happen.

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::harness::background::Background;
use crate::harness::executor::Mode;
use crate::harness::http::Answer;
use crate::harness::process::Ran;
use crate::harness::site::Builder;
use crate::harness::{Site, eventually, host, tls};

/// Prints to both outputs and waits for good.
const WAIT: &str = "echo begun; echo bad >&2; echo up > {work}/up; sleep 300";

fn builder(mode: Mode) -> Builder {
    Site::builder().executor(mode).sh("wait", WAIT).sh("ok", "echo ran")
}

fn post(site: &Site, body: &str) -> Answer {
    tls::connect(site.agent().address(), &site.authority(), &site.dispatcher()).post("/run", body)
}

/// The events of `--json-lines`.
fn events(ran: &Ran) -> Vec<Value> {
    ran.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The monitor of the only run under way.
fn monitor(site: &Site) -> u32 {
    eventually("one monitor", || {
        let monitors = host::children(site.agent().executor());
        if let [monitor] = monitors[..] { host::leads_session(monitor).then_some(monitor) } else { None }
    })
}

#[track_caller]
fn is_unknown(result: &Value) {
    let marks = (&result["exit"], &result["unknown"], &result["reason"]);
    assert_eq!(marks, (&json!(-1), &json!(true), &json!("outcome-unknown")), "{result}");
}

#[test]
fn a_run_whose_monitor_was_killed_is_never_one_of_which_nothing_ran() {
    for mode in Mode::ALL {
        let site = builder(mode).start();
        for (number, form) in ["--no-stream", "--json-lines", "--stream"].into_iter().enumerate() {
            let words: &[&str] = if number == 0 { &["--json", "run"] } else { &["run"] };
            let words = [words, &[form, "agent1", "wait"]].concat();
            let run = Background::start(site.control_command(&words));
            site.agent().worked("up");
            host::kill(monitor(&site), Signal::SIGKILL);
            let ran = run.end().exits(1);
            let lost = "executor lost after the script started; outcome unknown: ";
            match number {
                0 => {
                    let result = ran.result();
                    is_unknown(&result);
                    assert!(result["error"].as_str().unwrap().starts_with(lost), "{result}");
                    assert_eq!(
                        (&result["stdout"], &result["stderr"]),
                        (&json!("begun\n"), &json!("bad\n")),
                        "{result}"
                    );
                }
                1 => {
                    let events = events(&ran);
                    is_unknown(events.last().unwrap());
                    let printed = |event: &&Value| event["event"] == "output" && event["text"] == "begun\n";
                    assert!(events.iter().any(|event| printed(&event)), "{events:?}");
                }
                _ => {
                    assert!(ran.stdout.starts_with("begun\n==> agent1  [FAIL  exit:-1  "), "{ran:?}");
                    assert!(ran.stdout.contains(&format!("    ERROR: {lost}")), "{ran:?}");
                    assert!(ran.stdout.contains("    REASON: outcome-unknown\n"), "{ran:?}");
                }
            }
            std::fs::remove_file(site.agent().work("up")).unwrap();
            let both = || Some(site.agent().lines("run")).filter(|lines| lines.len() == number + 1);
            let line = eventually("the agent's line", both).pop().unwrap();
            let fields = ["ACTION=run", "DISPATCHER=control-1", "EXIT=-1", "PEER=127.0.0.1"];
            line.is(&[&fields[..], &["REASON=outcome-unknown", "REQID=*", "SCRIPT=wait"]].concat());
            let request = line.get("REQID").unwrap();
            let line = site.agent().line_where("exec", |line| line.get("REQID") == Some(request));
            let reason = "REASON=outcome-unknown: the monitor was killed by signal 9";
            let fields = ["ACTION=exec", "EXIT=-1", "MONITOR=*", "OUTCOME=lost"];
            line.is(&[&fields[..], &[reason, &format!("REQID={request}"), "SCRIPT=wait"]].concat());
        }
        assert_eq!(site.result("ok", &[])["stdout"], "ran\n", "{mode:?}");
    }
}

#[test]
fn a_monitor_that_has_outlived_its_executor_is_not_killed_without_a_line() {
    let site = builder(Mode::Own).start();
    let run = Background::start(site.control_command(&["--json", "run", "agent1", "wait"]));
    site.agent().worked("up");
    let (monitor, executor) = (monitor(&site), site.agent().executor());
    host::kill(executor, Signal::SIGKILL);
    site.agent().line("exec-restart");
    // The one that has taken its place notes its own orders elsewhere.
    assert_eq!(site.result("ok", &[])["stdout"], "ran\n");
    host::kill(monitor, Signal::SIGKILL);
    is_unknown(&run.end().exits(1).result());
    let line = site.agent().line_where("exec", |line| line.get("OUTCOME") == Some("lost"));
    assert_eq!((line.get("SCRIPT"), line.get("MONITOR")), (Some("wait"), Some(&*monitor.to_string())), "{line:?}");
}

#[test]
fn a_job_whose_monitor_was_killed_has_its_lines_on_both_sides() {
    for mode in Mode::ALL {
        let site = builder(mode).start();
        assert_eq!(post(&site, r#"{"script":"wait","reqid":"r1","async":true}"#).status, 202);
        site.agent().worked("up");
        host::kill(monitor(&site), Signal::SIGKILL);
        let line = site.agent().line_where("exec", |line| line.get("REQID") == Some("r1"));
        assert_eq!((line.get("OUTCOME"), line.get("SCRIPT")), (Some("lost"), Some("wait")), "{line:?}");
        let mut http = tls::connect(site.agent().address(), &site.authority(), &site.dispatcher());
        // One who does not say that he knows the word is told that it is over.
        eventually("its end", || (http.get("/result/r1").json()["status"] == "done").then_some(()));
        let fields = ["ACTION=run-async-lost", "DISPATCHER=control-1", "REASON=outcome-unknown"];
        site.agent().line("run-async-lost").is(&[&fields[..], &["REQID=r1", "SCRIPT=wait"]].concat());
        assert_eq!(site.agent().lines("run-async-lost").len(), 1);
    }
}

/// Of a job of which nobody knows, a program must not learn less than of an ordinary run.
#[test]
fn a_job_whose_monitor_was_killed_is_unknown_in_every_form() {
    for mode in Mode::ALL {
        let site = builder(mode).start();
        let submitted = site.control(&["--json", "run", "--async", "agent1", "wait"]).exits(0).json();
        let id = submitted["reqid"].as_str().unwrap();
        site.agent().worked("up");
        host::kill(monitor(&site), Signal::SIGKILL);
        let is_lost = |fields: &Value| {
            is_unknown(fields);
            assert!(fields["error"].as_str().unwrap().starts_with("the job's end is unknown: "), "{mode:?}: {fields}");
        };
        for verb in ["wait", "status", "result"] {
            let told = site.control(&["--json", verb, id]);
            let host = &told.json()["hosts"]["agent1"];
            assert_eq!((&host["status"], &host["stdout"]), (&json!("lost"), &json!("begun\n")), "{verb}: {host}");
            is_lost(host);
        }
        let shown = site.control(&["result", id]).stdout;
        assert!(shown.contains("==> agent1  [LOST]\n    the job's end is unknown: "), "{shown}");
        assert!(shown.contains("\n    outcome-unknown\nbegun\n"), "{shown}");
        // The dispatcher above knows the word for its state, and others do not.
        for (accept, status) in [("application/vnd.ctrl-exec.job+json", "lost"), ("*/*", "done")] {
            for request in
                [format!("GET /result/{id}"), format!("GET /result/{id}?from=3"), format!("POST /cancel/{id}")]
            {
                let mut http = tls::connect(site.agent().address(), &site.authority(), &site.dispatcher());
                http.send(format!("{request} HTTP/1.1\r\nHost: x\r\nAccept: {accept}\r\nContent-Length: 0\r\n\r\n"));
                let told = http.answer().unwrap().json();
                assert_eq!(told["status"], status, "{request}: {told}");
                is_lost(&told);
            }
        }
        std::fs::remove_file(site.agent().work("up")).unwrap();
        let words = ["run", "--json-lines", "--keep-running", "agent1", "wait"];
        let run = Background::start(site.control_command(&words));
        site.agent().worked("up");
        // Before that, the answer would be that of one of which nothing was heard.
        eventually("its acceptance", || (site.agent().lines("run-async").len() == 2).then_some(()));
        host::kill(monitor(&site), Signal::SIGKILL);
        is_lost(events(&run.end().exits(1)).last().unwrap());
    }
}

#[test]
fn a_lost_agent_is_marked_for_programs_in_every_form_and_one_that_never_heard_is_not() {
    for form in ["--json", "--json-lines"] {
        let mut site = builder(Mode::Private).start();
        let run = Background::start(site.control_command(&["run", form, "agent1", "wait"]));
        site.agent().worked("up");
        site.agent_mut().kill();
        let marked = |ran: Ran| if form == "--json" { ran.result() } else { events(&ran).pop().unwrap() };
        is_unknown(&marked(run.end().exits(1)));
        let refused = marked(site.control(&["run", form, "agent1", "wait"]).exits(1));
        assert!(refused["error"].as_str().unwrap().contains("connection refused"), "{refused}");
        assert_eq!((&refused["exit"], refused.get("unknown"), refused.get("reason")), (&json!(-1), None, None));
    }
}

#[test]
fn no_refusal_is_without_its_stable_code_and_none_has_lost_what_the_original_says() {
    let site = builder(Mode::Private).agent_hook("[ \"$ENVEXEC_TOKEN\" != bad ] || exit 3; exit 0").start();
    for (body, code, reply) in [
        ("{", "invalid-json", json!({"exit": -1, "error": "invalid JSON"})),
        ("[]", "invalid-request", json!({"exit": -1, "error": "request body must be a JSON object"})),
        (
            r#"{"args":"x","reqid":"r"}"#,
            "invalid-args",
            json!({"exit": -1, "error": "args must be an array", "reqid": "r"}),
        ),
        (
            r#"{"script":"nope","reqid":7}"#,
            "script-not-permitted",
            json!({"script": "nope", "exit": -1, "error": "script not permitted", "reqid": 7}),
        ),
        (
            r#"{"script":"ok","reqid":"r","token":"bad"}"#,
            "not-authorised",
            json!({"script": "ok", "exit": -1, "error": "not authorised: insufficient privilege", "reqid": "r"}),
        ),
        (
            r#"{"script":"ok","reqid":"a/b","async":true}"#,
            "invalid-reqid",
            json!({"script": "ok", "exit": -1, "error": "async run requires a valid reqid", "reqid": "a/b"}),
        ),
    ] {
        let answer = post(&site, body);
        let mut want = reply;
        want["reason"] = code.into();
        assert_eq!((answer.status, answer.json()), (200, want), "{body}");
    }
    let submit =
        |script: &str, id: &str| post(&site, &json!({"script": script, "reqid": id, "async": true}).to_string());
    assert_eq!(submit("wait", "r1").status, 202);
    for (script, id, code, text) in [
        ("wait", "r2", "script-already-running", "script already running"),
        ("ok", "r1", "reqid-in-use", "a job of this request id is running"),
    ] {
        let busy = submit(script, id);
        let want = json!({"script": script, "status": "busy", "reqid": id, "error": text, "reason": code});
        assert_eq!((busy.status, busy.json()), (409, want));
    }
    let ran = site.control(&["--json", "run", "--async", "agent1", "wait"]).exits(1).result();
    assert_eq!((&ran["status"], &ran["reason"]), (&json!("busy"), &json!("script-already-running")), "{ran}");
}

#[test]
fn a_read_only_file_system_is_pointed_out_in_every_form_and_only_where_it_is_the_profiles() {
    let writable = tempfile::tempdir_in("/var/tmp").unwrap();
    for mode in Mode::ALL {
        let site = Site::builder()
            .executor(mode)
            .section(&format!("[profile closed]\nwritable = {}\n", writable.path().display()))
            .sh("open", "echo '[Errno 30] nur lesbar' >&2; exit 1")
            .sh("touch", "touch /etc/ctrl-exec-is-read-only")
            .sh("fine", "echo 'Read-only file system' >&2")
            .allow("closed = {scripts}/open profile=closed")
            .allow("fine-closed = {scripts}/fine profile=closed")
            .allow("touch-closed = {scripts}/touch profile=closed")
            .start();
        // Where profiles are not applied, there is nothing to add to one.
        let mut scripts = vec![("closed", mode != Mode::Private), ("open", false), ("fine-closed", false)];
        scripts.extend((mode != Mode::Private).then_some(("touch-closed", true)));
        for (script, wanted) in scripts {
            let is_right = |fields: &Value| {
                let hint = fields["hint"].as_str().is_some_and(|hint| hint.contains("'writable' in its profile"));
                assert_eq!(hint, wanted, "{mode:?} {script}: {fields}");
            };
            let run = |words: &[&str]| site.control(&[&["run"], words, &["agent1", script]].concat());
            is_right(&run(&["--json"]).result());
            is_right(events(&run(&["--json-lines"])).last().unwrap());
            is_right(events(&run(&["--json-lines", "--keep-running"])).last().unwrap());
            for words in [&["--no-stream"][..], &["--stream"], &["--keep-running"]] {
                let ran = run(words);
                assert_eq!(ran.stdout.contains("    HINT: the script met a read-only file system"), wanted, "{ran:?}");
            }
            let submitted = run(&["--json", "--async"]).json();
            let id = submitted["reqid"].as_str().unwrap();
            let waited = site.control(&["wait", id]);
            assert_eq!(
                waited.stdout.contains("    HINT: the script met a read-only file system"),
                wanted,
                "{waited:?}"
            );
            is_right(&site.control(&["--json", "result", id]).json()["hosts"]["agent1"]);
        }
    }
}

#[test]
fn a_directory_that_cannot_be_entered_is_not_blamed_on_the_program() {
    for mode in Mode::ROOT {
        let site = Site::builder()
            .executor(mode)
            .section("[profile nowhere]\nworking_directory = /no/such/place\n")
            .section("[profile shut]\nworking_directory = /root\n")
            .sh("ok", "true")
            .allow("nowhere = {scripts}/ok profile=nowhere\nshut = {scripts}/ok profile=shut")
            .start();
        for (script, why) in [
            ("nowhere", "/no/such/place: No such file or directory: it is the working_directory of profile 'nowhere'"),
            (
                "shut",
                "/root: Permission denied: it is the working_directory of profile 'shut', which its account may not enter",
            ),
        ] {
            let result = site.result(script, &[]);
            let want = format!("could not start: directory: {why}");
            assert_eq!((&result["exit"], &result["reason"]), (&json!(127), &json!(want)), "{result}");
        }
    }
}

#[test]
fn a_character_that_max_output_cuts_in_two_makes_no_text_invalid() {
    let site = Site::builder()
        .agent("max_output = 2049")
        .sh("much", "i=0; while [ $i -lt 200 ]; do printf 'grün grün grün '; i=$((i + 1)); done")
        .sh("odd", "printf %2048s x; printf '\\303'")
        .start();
    let printed = "grün grün grün ".repeat(200);
    let is_cut = |fields: &Value| {
        let stdout = fields["stdout"].as_str().unwrap();
        assert!(printed.starts_with(stdout) && (2046..=2049).contains(&stdout.len()), "{fields}");
        assert_eq!((&fields["truncated"], fields.get("stdout_base64")), (&json!(true), None), "{fields}");
    };
    let cut = (0..=3).any(|missing| !printed.is_char_boundary(2049 - missing));
    assert!(cut, "the limit falls near a character of two bytes");
    is_cut(&site.result("much", &[]));
    let submitted = site.control(&["--json", "run", "--async", "agent1", "much"]).exits(0).json();
    let id = submitted["reqid"].as_str().unwrap();
    site.control(&["wait", id]).exits(0);
    is_cut(&site.control(&["--json", "result", id]).exits(0).json()["hosts"]["agent1"]);
    // What the script itself has cut is told exactly.
    let odd = site.result("odd", &[]);
    assert_eq!((odd["stdout_base64"].is_string(), odd.get("truncated")), (true, None), "{odd}");
}
