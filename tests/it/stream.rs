//! Output while it is printed.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Stdio};

use crate::harness::host::peak;
use crate::harness::impostor::Impostor;
use crate::harness::{Site, eventually, host, tls};

fn spawn(site: &Site, words: &[&str]) -> Child {
    let mut command = site.control_command(words);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

#[test]
fn a_line_is_seen_before_the_script_has_ended() {
    let site =
        Site::builder().sh("slow", "echo one; echo two >&2; while [ ! -e {work}/go ]; do :; done; echo three").start();
    let mut caller = spawn(&site, &["run", "--stream", "agent1", "slow"]);
    let mut lines = BufReader::new(caller.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "one");
    std::fs::write(site.agent().work("go"), "").unwrap();
    assert_eq!(lines.next().unwrap().unwrap(), "three");
    let result = lines.next().unwrap().unwrap();
    assert!(result.starts_with("==> agent1  [OK  exit:0  "), "{result}");
    let mut stderr = String::new();
    caller.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert!(stderr.lines().any(|line| line == "two"), "{stderr}");
    assert!(caller.wait().unwrap().success());
}

#[test]
fn one_hosts_bytes_arrive_as_they_are() {
    let site = Site::builder().sh("bytes", r"printf 'a\377\000\nb'; exit 3").start();
    let mut caller = spawn(&site, &["run", "--stream", "agent1", "bytes"]);
    let mut stdout = Vec::new();
    caller.stdout.take().unwrap().read_to_end(&mut stdout).unwrap();
    assert!(stdout.starts_with(b"a\xff\0\nb\n==> agent1  [FAIL  exit:3  "), "{}", String::from_utf8_lossy(&stdout));
    assert_eq!(caller.wait().unwrap().code(), Some(1));
}

#[test]
fn lines_of_several_hosts_are_never_torn() {
    let text =
        "i=0; while [ $i -lt 300 ]; do printf 'half '; printf 'line %s\\n' $i; i=$((i + 1)); done; printf 'open end'";
    let site = Site::builder().agents(3).sh("many", text).start();
    let ran = site.control(&["run", "--stream", "agent1", "agent2", "agent3", "many"]).exits(0);
    for name in ["agent1", "agent2", "agent3"] {
        let prefix = format!("{name}: ");
        let lines: Vec<&str> = ran.stdout.lines().filter_map(|line| line.strip_prefix(&prefix)).collect();
        let mut want: Vec<String> = (0..300).map(|number| format!("half line {number}")).collect();
        want.push("open end".to_owned());
        assert_eq!(lines, want, "{name}");
    }
    assert_eq!(ran.stdout.lines().filter(|line| line.starts_with("==> ")).count(), 3);
}

#[test]
fn json_lines_tell_output_and_result_as_events() {
    let site = Site::builder().sh("both", r"printf 'out é'; printf '\377' >&2; exit 4").start();
    let ran = site.control(&["run", "--json-lines", "agent1", "both"]).exits(1);
    let events: Vec<serde_json::Value> = ran.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |stream: &str| events.iter().filter(|event| event["stream"] == stream).collect::<Vec<_>>();
    let text: String = of("stdout").iter().map(|event| event["text"].as_str().unwrap()).collect();
    assert_eq!(text, "out é");
    assert_eq!(of("stderr")[0]["base64"], "/w==");
    let last = events.last().unwrap();
    assert_eq!((&last["event"], &last["host"], &last["exit"]), (&"result".into(), &"agent1".into(), &4.into()));
    assert!(last.get("stdout").is_none(), "the output was told before: {last}");
}

#[test]
fn a_hundred_megabytes_pass_whole_and_grow_nobody() {
    let site = Site::builder().sh("flood", "head -c 104857600 /dev/zero").agent("max_output = 1KiB").start();
    let before = peak(site.agent().pid());
    let mut caller = spawn(&site, &["run", "--stream", "agent1", "flood"]);
    let (mut zeros, mut rest, mut peaks) = (0, Vec::new(), 0);
    let mut stdout = caller.stdout.take().unwrap();
    let mut chunk = vec![0; 1 << 20];
    loop {
        let count = stdout.read(&mut chunk).unwrap();
        if count == 0 {
            break;
        }
        peaks = peaks.max(peak(caller.id()));
        let known = rest.len();
        rest.extend(chunk[..count].iter().filter(|byte| **byte != 0));
        zeros += count - (rest.len() - known);
    }
    assert!(caller.wait().unwrap().success(), "{}", String::from_utf8_lossy(&rest));
    assert_eq!(zeros, 104_857_600);
    let grown = peak(site.agent().pid()) - before;
    assert!(grown < 16 * 1024, "the agent grew by {grown} KiB");
    assert!((1..64 * 1024).contains(&peaks), "the dispatcher took {peaks} KiB");
}

#[test]
fn what_is_refused_is_told_as_ever() {
    let site = Site::builder().sh("ok", "true").start();
    let ran = site.control(&["run", "--stream", "agent1", "nope"]).exits(1);
    assert!(ran.stdout.contains("    ERROR: script not permitted\n"), "{ran:?}");
    site.agent().line("deny").is(&["ACTION=deny", "PEER=127.0.0.1", "REQID=*", "SCRIPT=nope"]);
}

#[test]
fn a_program_that_cannot_be_started_is_told_as_ever() {
    let site = Site::builder().script("broken", "#!/nonexistent/interpreter\n").start();
    let ran = site.control(&["run", "--stream", "agent1", "broken"]).exits(1);
    assert!(ran.stdout.contains("exit:127") && ran.stdout.contains("REASON: could not start: exec"), "{ran:?}");
}

#[test]
fn a_caller_that_goes_away_in_the_middle_ends_the_script_and_leaves_a_line() {
    let site = Site::builder().sh("endless", "echo $$ > {work}/pid; while :; do echo x; done").start();
    // Where it is hit depends on the moment.
    for times in 1..=20 {
        let how = if times % 2 == 0 { "--stream" } else { "--no-stream" };
        let words = ["run", how, "agent1", "endless"];
        let mut caller = spawn(&site, &words);
        let pid: u32 = site.agent().worked_pid("pid");
        caller.kill().unwrap();
        caller.wait().unwrap();
        eventually("the script's end", || (!host::alive(pid)).then_some(()));
        let gone = || Some(site.agent().lines("run")).filter(|lines| lines.len() == times);
        let lines = eventually("the run's line", gone);
        let fields = ["ACTION=run", "DISPATCHER=control-1", "EXIT=126", "PEER=127.0.0.1"];
        lines[times - 1].is(&[&fields[..], &["REASON=caller-gone", "REQID=*", "SCRIPT=endless"]].concat());
        std::fs::remove_file(site.agent().work("pid")).unwrap();
    }
}

#[test]
fn a_caller_that_reads_nothing_for_too_long_loses_its_script_and_its_place() {
    let site = Site::builder()
        .agent("stall_timeout = 1\nmax_children = 1")
        .sh("endless", "echo $$ > {work}/pid; exec cat /dev/zero")
        .sh("ok", "true")
        .start();
    let mut http = tls::connect(site.agent().address(), &site.authority(), &site.dispatcher());
    let body = r#"{"script":"endless","reqid":"r1"}"#;
    let accept = format!("Accept: {}", ctrl_exec::wire::stream::MEDIA_TYPE);
    http.send(format!("POST /run HTTP/1.1\r\nHost: x\r\n{accept}\r\nContent-Length: {}\r\n\r\n{body}", body.len()));
    let pid = site.agent().worked_pid("pid");
    eventually("the script's end", || (!host::alive(pid)).then_some(()));
    let fields = ["ACTION=run", "DISPATCHER=control-1", "EXIT=126", "PEER=127.0.0.1"];
    site.agent().line("run").is(&[&fields[..], &["REASON=caller-stalled", "REQID=r1", "SCRIPT=endless"]].concat());
    assert!(!http.rest().ends_with(b"0\r\n\r\n"), "an answer that was cut has no end");
    // The executor hears of its script's end a moment later than everybody who looks.
    eventually("room for another run", || (site.result("ok", &[])["exit"] == 0).then_some(()));
}

#[test]
fn an_agent_that_dies_in_the_middle_is_neither_success_nor_not_run() {
    let mut site = Site::builder().sh("wait", "echo started; sleep 300").start();
    let mut caller = spawn(&site, &["run", "--stream", "agent1", "wait"]);
    let mut lines = BufReader::new(caller.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert_eq!(lines.next().unwrap(), "started");
    site.agent_mut().kill();
    let rest: Vec<String> = lines.collect();
    assert!(rest.iter().any(|line| line.contains("lost after the script started; outcome unknown")), "{rest:?}");
    assert_eq!(caller.wait().unwrap().code(), Some(1));
}

#[test]
fn an_agent_that_does_not_stream_is_understood() {
    let site = Site::builder().prepare();
    let credentials = crate::harness::pki::issue(&site.authority(), "old");
    let body = r#"{"exit":0,"stdout":"plain\n","stderr":"","script":"x","reqid":"r"}"#;
    let head = "HTTP/1.0 200 OK\r\nContent-Type: application/json";
    let answer = format!("{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let impostor = Impostor::start(&site.authority(), &credentials, &answer);
    site.register("old", impostor.address.port(), &credentials);
    let ran = site.control(&["run", "--stream", "old", "x"]).exits(0);
    assert!(ran.stdout.contains("==> old  [OK  exit:0  ") && ran.stdout.contains("\nplain\n"), "{ran:?}");
}

#[test]
fn a_stream_out_of_sequence_is_no_result() {
    let site = Site::builder().prepare();
    let credentials = crate::harness::pki::issue(&site.authority(), "odd");
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/vnd.ctrl-exec.run-stream\r\nConnection: close";
    // A last frame that claims to be the second.
    let frame = "\u{3}\0\0\0\0\0\0\0\u{1}\0\0\0\u{2}{}";
    let answer = format!("{head}\r\nContent-Length: {}\r\n\r\n{frame}", frame.len());
    let impostor = Impostor::start(&site.authority(), &credentials, &answer);
    site.register("odd", impostor.address.port(), &credentials);
    let ran = site.control(&["run", "--stream", "odd", "x"]).exits(1);
    assert!(ran.stdout.contains("outcome unknown: the agent sent frames out of sequence"), "{ran:?}");
}

#[test]
fn a_dispatcher_that_asks_plainly_gets_plain_json() {
    let site = Site::builder().sh("ok", "echo hi").start();
    let mut http = tls::connect(site.agent().address(), &site.authority(), &site.dispatcher());
    let body = r#"{"script":"ok"}"#;
    let post =
        |accept: &str| format!("POST /run HTTP/1.1\r\nHost: x\r\n{accept}Content-Length: {}\r\n\r\n{body}", body.len());
    http.send(post(""));
    let answer = http.answer().unwrap();
    assert_eq!(answer.json()["stdout"], "hi\n");
    http.send(post("Accept: */*\r\n"));
    assert_eq!(http.answer().unwrap().json()["stdout"], "hi\n");
}

#[test]
fn ways_to_print_exclude_each_other() {
    let site = Site::builder().prepare();
    for words in [["--stream", "--json"], ["--stream", "--no-stream"], ["--json-lines", "--json"]] {
        site.control(&["run", words[0], words[1], "a", "b"]).exits(64);
    }
}
