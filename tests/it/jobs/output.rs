//! What a job prints: bytes that are no text, very much of it, and pieces.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::{Caller, file, go, site, waiting};
use crate::harness::Site;
use crate::harness::audit::Line;
use crate::harness::executor::Mode;
use crate::harness::host::peak;

#[test]
fn bytes_that_are_no_text_are_kept_exactly() {
    let site = site().sh("bytes", r"printf 'a\377\000b'; printf 'é' >&2").start();
    let caller = Caller::of(&site);
    caller.accepted("bytes", "r1");
    let done = caller.ended("r1");
    assert_eq!((&done["stdout"], &done["stderr"]), (&json!("a\u{FFFD}\0b"), &json!("é")), "{done}");
    assert_eq!(STANDARD.decode(done["stdout_base64"].as_str().unwrap()).unwrap(), b"a\xff\0b");
    assert!(done.get("stderr_base64").is_none() && done.get("truncated").is_none());
    let piece = caller.result("r1?from=1");
    assert_eq!(STANDARD.decode(piece["stdout_base64"].as_str().unwrap()).unwrap(), b"\xff\0b");
}

#[test]
fn a_hundred_megabytes_are_cut_in_the_record_whole_on_file_and_grow_nobody() {
    let site = site().sh("flood", "head -c 104857600 /dev/zero; echo end >&2").agent("max_output = 64KiB").start();
    let caller = Caller::of(&site);
    let before = peak(site.agent().pid());
    caller.accepted("flood", "r1");
    let done = caller.ended("r1");
    assert_eq!((&done["truncated"], &done["exit"], &done["stderr"]), (&json!(true), &json!(0), &json!("end\n")));
    assert_eq!(done["stdout"].as_str().unwrap().len(), 64 * 1024);
    assert_eq!(file(&site, "r1", "stdout").metadata().unwrap().len(), 104_857_600);
    let piece = caller.result("r1?from=104857599");
    assert_eq!((&piece["stdout"], &piece["next"]), (&json!("\0"), &json!(104_857_600)));
    let piece = caller.result("r1?from=0");
    assert_eq!((&piece["more"], &piece["next"]), (&json!(true), &json!(1 << 20)));
    let grown = peak(site.agent().pid()).saturating_sub(before);
    assert!(grown < 24 * 1024, "the agent grew by {grown} KiB");
}

#[test]
fn a_job_that_prints_without_end_is_ended_and_cut_to_the_limit() {
    const LIMIT: u64 = 1 << 20;
    for mode in Mode::ALL {
        let site = Site::builder().sh("yes", "yes").sh("err", "yes >&2").section("kill_grace = 3600").executor(mode);
        let site = site.agent("async_max_bytes = 1MiB\nmax_output = 1KiB").start();
        let caller = Caller::of(&site);
        for (script, full, empty) in [("yes", "stdout", "stderr"), ("err", "stderr", "stdout")] {
            caller.accepted(script, script);
            let done = caller.ended(script);
            assert_eq!((&done["exit"], &done["truncated"]), (&json!(126), &json!(true)), "{mode:?} {done}");
            assert_eq!(done["reason"], "output limit of 1048576 bytes passed", "{mode:?}");
            assert_eq!((done[full].as_str().unwrap().len(), &done[empty]), (1024, &json!("")), "{mode:?}");
            // Gone is what it printed if a sweep was faster: with its record it is more than may be kept.
            let kept = file(&site, script, full).metadata().map_or(LIMIT, |found| found.len());
            assert_eq!(kept, LIMIT, "{mode:?}");
            let ended = |line: &Line| line.get("OUTCOME") == Some("output-limit") && line.get("REQID") == Some(script);
            site.agent().line_where("exec", ended);
        }
    }
}

#[test]
fn a_job_that_has_printed_too_much_may_end_in_order() {
    let text =
        "trap 'echo bye; touch {work}/bye; exit 7' TERM; head -c 1048577 /dev/zero; while :; do sleep 0.01; done";
    let site = Site::builder().sh("long", text).agent("async_max_bytes = 1MiB").start();
    let caller = Caller::of(&site);
    caller.accepted("long", "r1");
    let done = caller.ended("r1");
    assert_eq!(
        (&done["exit"], &done["reason"]),
        (&json!(126), &json!("output limit of 1048576 bytes passed")),
        "{done}"
    );
    assert!(site.agent().work("bye").exists());
}

#[test]
fn output_is_read_in_pieces_while_the_job_runs() {
    let text =
        "printf 'one\\303'; printf 'bad' >&2; echo $$ > {work}/pid; while [ ! -e {work}/go ]; do sleep 0.01; done
                printf '\\251two'";
    let site = site().sh("slow", text).start();
    let caller = Caller::of(&site);
    caller.accepted("slow", "r1");
    waiting(&site);
    let piece = |query: &str| -> Value { caller.result(&format!("r1?{query}")) };
    let first = piece("from=0");
    assert_eq!((&first["status"], &first["stream"], &first["from"]), (&json!("running"), &json!("stdout"), &json!(0)));
    // The second half of a character has not been printed yet.
    assert_eq!((&first["stdout"], &first["next"], &first["more"]), (&json!("one"), &json!(3), &json!(false)));
    assert!(first.get("stderr").is_none());
    assert_eq!(piece("stream=stderr&from=1")["stderr"], "ad");
    assert_eq!((&piece("from=3")["stdout"], &piece("from=999")["next"]), (&json!(""), &json!(999)));
    go(&site);
    caller.ended("r1");
    let last = piece("from=3");
    assert_eq!((&last["stdout"], &last["status"], &last["exit"]), (&json!("étwo"), &json!("done"), &json!(0)));
    for query in ["from=-1", "from=x", "stream=both", "offset=3", ""] {
        assert_eq!(caller.get(&format!("/result/r1?{query}")).status, 400, "{query}");
    }
}
