//! How a script ended, as the caller sees it.

use serde_json::{Value, json};

use crate::harness::Site;
use crate::harness::executor::Mode;

#[test]
fn a_script_runs_and_its_exit_status_comes_back() {
    let site = Site::builder().sh("ok", "echo hello").sh("seven", "echo bad >&2; exit 7").start();
    let ok = site.control(&["run", "agent1", "ok"]).exits(0);
    assert!(ok.stdout.starts_with("==> agent1"), "{}", ok.stdout);
    assert!(ok.stdout.contains("[OK  exit:0  ") && ok.stdout.ends_with("\nhello\n"), "{}", ok.stdout);
    let seven = site.control(&["run", "agent1", "seven"]).exits(1);
    assert!(seven.stdout.contains("[FAIL  exit:7  "), "{}", seven.stdout);
    assert!(seven.stdout.contains("    STDERR: bad\n"), "{}", seven.stdout);
    for status in [0, 1, 7, 125, 126, 127, 128, 255] {
        site.agent().write_script("seven", &format!("#!/bin/sh\nexit {status}\n"));
        let result = site.result("seven", &[]);
        assert_eq!((&result["exit"], &result["reason"]), (&json!(status), &Value::Null), "{result}");
    }
}

#[test]
fn json_results_have_the_documented_keys() {
    let site = Site::builder().sh("ok", "echo out; echo err >&2").start();
    let ran = site.control(&["--json", "run", "agent1", "ok"]).exits(0);
    assert_eq!(ran.json()["ok"], 1);
    let result = ran.result();
    let mut keys: Vec<&str> = result.as_object().unwrap().keys().map(String::as_str).collect();
    keys.retain(|key| *key != "reported_hostname");
    keys.sort_unstable();
    assert_eq!(keys, ["exit", "host", "reqid", "rtt", "script", "stderr", "stdout"]);
    assert_eq!((&result["host"], &result["script"]), (&json!("agent1"), &json!("ok")));
    assert_eq!((&result["stdout"], &result["stderr"]), (&json!("out\n"), &json!("err\n")));
    assert!(result["rtt"].as_str().unwrap().ends_with("ms"), "{result}");
    assert_eq!(result["reqid"].as_str().unwrap().len(), 16, "{result}");
}

#[test]
fn a_script_that_a_signal_killed_says_so() {
    let site = Site::builder().sh("die", "echo before; kill -KILL $$").start();
    let result = site.result("die", &[]);
    assert_eq!((&result["exit"], &result["reason"]), (&json!(126), &json!("killed by signal 9")), "{result}");
    assert_eq!(result["stdout"], "before\n");
    let ran = site.control(&["run", "agent1", "die"]).exits(1);
    assert!(ran.stdout.contains("    REASON: killed by signal 9\n"), "{}", ran.stdout);
}

#[test]
fn what_cannot_be_executed_ends_with_127_and_the_reason() {
    let site = Site::builder()
        .script("interpreter", "#!/no/such/interpreter\n")
        .script("plain", "no line for the kernel\n")
        .sh("mode", "true")
        .allow("missing = {scripts}/missing")
        .allow("directory = {scripts}")
        .start();
    let path = site.agent().root.join("scripts/mode");
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let cases = [
        ("interpreter", "the program that its '#!' line names is not"),
        ("plain", "a script needs a '#!' line"),
        ("mode", "may not execute the file"),
        ("missing", "No such file or directory"),
        ("directory", "ermission denied"),
    ];
    // Before a root executor has anything executed, it judges what it is.
    let judged = usize::from(site.agent().mode != Mode::Private);
    for (script, text) in cases.into_iter().rev().skip(judged) {
        let result = site.result(script, &[]);
        let reason = result["reason"].as_str().unwrap_or_default();
        assert_eq!(result["exit"], 127, "{result}");
        assert!(reason.starts_with("could not start: exec: ") && reason.contains(text), "{script}: {result}");
        assert!(site.control(&["run", "agent1", script]).exits(1).stdout.contains("    REASON: could not start"));
    }
}

#[test]
fn a_run_needs_a_host_and_a_script() {
    let site = Site::builder().agents(0).start();
    for words in [&["run"][..], &["run", "agent1"], &["run", "agent1", "--", "x"]] {
        let ran = site.control(words).exits(64);
        assert!(ran.stdout.is_empty() && !ran.stderr.is_empty(), "{ran:?}");
    }
}
