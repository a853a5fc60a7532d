//! `run`: from the command line through dispatcher, agent and executor to a script and back.

use serde_json::{Value, json};

use crate::harness::Site;

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
