//! The request's context on the script's standard input.

use serde_json::{Value, json};

use crate::harness::Site;
use crate::harness::late::READS_LATE;

#[test]
fn the_context_is_one_json_object_with_the_documented_keys() {
    let site = Site::builder().allow("cat = /bin/cat").sh("context", "cat").start();
    let result = site.result("context", &["a", "b c"]);
    let text = result["stdout"].as_str().unwrap();
    assert!(!text.contains('\n'), "{text}");
    let context: Value = serde_json::from_str(text).unwrap();
    let keys: Vec<&String> = context.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["script", "args", "reqid", "peer_ip", "username", "token", "dispatcher", "timestamp"]);
    assert_eq!((&context["script"], &context["args"]), (&json!("context"), &json!(["a", "b c"])));
    assert_eq!((&context["peer_ip"], &context["dispatcher"]), (&json!("127.0.0.1"), &json!("control-1")));
    assert_eq!((&context["username"], &context["token"]), (&json!(""), &json!("")));
    assert_eq!(context["reqid"], result["reqid"]);
    assert_eq!(context["timestamp"].as_str().unwrap().len(), "2026-01-01T00:00:00Z".len());
}

#[test]
fn a_script_that_ignores_its_input_never_loses_its_answer() {
    let site = Site::builder().sh("quick", "exit 0").start();
    for _ in 0..25 {
        assert_eq!(site.result("quick", &[])["exit"], 0);
    }
    assert_eq!(site.agent().lines("run").len(), 25);
}

#[test]
fn a_script_may_close_its_input_early() {
    let site = Site::builder().sh("close", "exec <&-; echo closed").start();
    let large = "x".repeat(100_000);
    for args in [&[][..], &[large.as_str(); 3]] {
        assert_eq!(site.result("close", args)["stdout"], "closed\n");
    }
}

#[test]
fn a_script_that_reads_too_slowly_loses_the_rest_and_the_log_says_how_much() {
    let site = Site::builder().agent("stdin_timeout = 1").sh("slow", READS_LATE).start();
    let large = "x".repeat(100_000);
    let result = std::thread::scope(|scope| {
        scope.spawn(|| site.agent().let_read_late());
        site.result("slow", &[&large, &large, &large])
    });
    assert_eq!(result["exit"], 0, "{result}");
    let read: usize = result["stdout"].as_str().unwrap().trim().parse().unwrap();
    let line = site.agent().line("stdin-timeout");
    line.is(&["ACTION=stdin-timeout", "BYTES=*"]);
    let lost: usize = line.get("BYTES").unwrap().parse().unwrap();
    assert!(read > 0 && lost > 100_000 && read + lost > 300_000, "{read} {lost}");
}

#[test]
fn a_script_that_prints_before_it_reads_never_hangs() {
    let site = Site::builder().sh("both", "head -c 300000 /dev/zero | tr '\\0' o; wc -c").start();
    let large = "x".repeat(100_000);
    let result = site.result("both", &[&large, &large, &large]);
    let (printed, counted) = result["stdout"].as_str().unwrap().split_at(300_000);
    assert!(printed.bytes().all(|byte| byte == b'o'));
    assert!(counted.trim().parse::<usize>().unwrap() > 300_000, "{counted}");
}
