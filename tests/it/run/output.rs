//! What a script prints.

use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::harness::{DEADLINE, Site, host};

#[test]
fn five_megabytes_on_both_streams_at_once_arrive_whole() {
    let text = "i=0; while [ $i -lt 50 ]; do head -c 100000 /dev/zero | tr '\\0' o; \
                head -c 100000 /dev/zero | tr '\\0' e >&2; i=$((i+1)); done";
    let site = Site::builder().sh("both", text).start();
    let result = site.result("both", &[]);
    let (out, err) = (result["stdout"].as_str().unwrap(), result["stderr"].as_str().unwrap());
    assert_eq!((out.len(), err.len()), (5_000_000, 5_000_000));
    assert!(out.bytes().all(|byte| byte == b'o') && err.bytes().all(|byte| byte == b'e'));
    assert_eq!(result["truncated"], Value::Null);
}

#[test]
fn more_than_a_pipe_on_standard_error_never_hangs_script_or_caller() {
    let site = Site::builder().sh("noise", "head -c 300000 /dev/zero | tr '\\0' e >&2; echo end").start();
    let result = site.result("noise", &[]);
    assert_eq!(result["stderr"].as_str().unwrap().len(), 300_000);
    assert_eq!(result["stdout"], "end\n");
}

#[test]
fn output_that_is_no_utf_8_never_loses_the_answer() {
    let site = Site::builder().sh("bytes", r"printf 'a\377\000b'; printf 'gr\303\274n' >&2").start();
    let result = site.result("bytes", &[]);
    assert_eq!(result["stdout"], "a\u{FFFD}\0b");
    assert_eq!(STANDARD.decode(result["stdout_base64"].as_str().unwrap()).unwrap(), b"a\xff\0b");
    assert_eq!((&result["stderr"], &result["stderr_base64"]), (&Value::from("grün"), &Value::Null));
}

#[test]
fn output_beyond_max_output_is_cut_and_marked() {
    let text = "head -c 1000000 /dev/zero | tr '\\0' o; printf end >&2";
    let site = Site::builder().agent("max_output = 2048").sh("much", text).sh("fits", "printf %2048s x").start();
    let result = site.result("much", &[]);
    assert_eq!((result["stdout"].as_str().unwrap().len(), &result["truncated"]), (2048, &Value::Bool(true)));
    assert_eq!((&result["exit"], &result["stderr"]), (&Value::from(0), &Value::from("end")));
    assert_eq!(site.result("fits", &[])["truncated"], Value::Null);
    let shown = site.control(&["run", "agent1", "much"]).exits(0).stdout;
    assert!(shown.contains("    TRUNCATED: "), "{}", &shown[shown.len() - 200..]);
}

#[test]
fn a_grandchild_that_holds_the_output_open_never_delays_the_reply() {
    let site = Site::builder().sh("daemon", "sleep 1000 & echo $! > {work}/pid; echo started").start();
    let before = Instant::now();
    assert_eq!(site.result("daemon", &[])["stdout"], "started\n");
    assert!(before.elapsed() < DEADLINE, "{:?}", before.elapsed());
    let pid = site.agent().worked("pid").parse().unwrap();
    assert!(host::alive(pid), "what a script leaves behind is left alone");
    host::kill(pid, Signal::SIGKILL);
}

#[test]
fn output_that_an_answer_escapes_sixfold_still_fits() {
    let site = Site::builder().sh("controls", "head -c 1000000 /dev/zero | tr '\\0' '\\001'").start();
    assert_eq!(site.result("controls", &[])["stdout"].as_str().unwrap().len(), 1_000_000);
}
