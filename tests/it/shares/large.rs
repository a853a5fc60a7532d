//! Answers as large as scripts may print: who reads has all of his, however many there are, and they take disk and no memory.

use super::*;
use crate::harness::host;

/// Bytes of each stream, and bytes of JSON for each of them.
const PRINTED: usize = 3 << 20;
const ESCAPED: usize = 6;

/// A script that prints what JSON has to escape.
fn escaped() -> String {
    format!("head -c {PRINTED} /dev/zero | tr '\\0' '\\1'; echo end >&2")
}

/// So many readers at once, each on a connection of its own. All of them have been asked before the first is read.
fn read_at_once(readers: usize, connect: impl Fn() -> Http<Tls>, request: &str) -> Vec<Value> {
    let mut asked: Vec<Http<Tls>> = (0..readers).map(|_| connect()).collect();
    for http in &mut asked {
        http.send(request);
    }
    std::thread::scope(|scope| {
        let reading = asked.iter_mut().map(|http| scope.spawn(|| http.answer().unwrap()));
        let reading: Vec<_> = reading.collect();
        let answers = reading.into_iter().map(|reader| reader.join().unwrap());
        answers.map(|answer| answer.json()).collect()
    })
}

#[test]
fn callers_who_read_large_answers_at_once_have_them_whole() {
    // Together more than one dispatcher's answers may be if nobody reads them.
    const READERS: usize = (128 << 20) / (PRINTED * ESCAPED) + 2;
    let site = site("").sh("much", &escaped()).start();
    let (own, other) = (site.dispatcher(), another(&site));
    is_served(&site, &own);
    let before = host::peak(site.agent().pid());
    let job = r#"{"script":"much","reqid":"p1","async":true}"#;
    assert_eq!(connect(&site, &own).post("/run", job).json()["status"], "accepted");
    eventually("the end of the job", || {
        (connect(&site, &own).get("/result/p1?from=99999999").json()["status"] == "done").then_some(())
    });
    let body = r#"{"script":"much"}"#;
    let run = format!("POST /run HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let result = "GET /result/p1 HTTP/1.1\r\nHost: x\r\n\r\n";
    for request in [result, &run] {
        let answers = read_at_once(READERS, || connect(&site, &own), request);
        for answer in answers {
            let text = answer["stdout"].as_str().unwrap();
            assert!(text.len() == PRINTED && text.bytes().all(|byte| byte == 1), "{}", text.len());
            assert_eq!((&answer["stderr"], &answer["exit"]), (&"end\n".into(), &0.into()));
        }
        is_served(&site, &other);
    }
    assert!(site.agent().lines("unread").is_empty());
    // One of these answers alone is 18 MiB.
    let grown = host::peak(site.agent().pid()).saturating_sub(before);
    assert!(grown < 64 * 1024, "{grown} KiB");
}

#[test]
fn what_many_runs_have_printed_takes_bounded_memory_while_they_go_on() {
    const RUNS: usize = 10;
    const EACH: usize = 6 << 20;
    let print = "head -c $1 /dev/zero | tr '\\0' x";
    let hold = "echo printed >$2; until [ -e $3 ]; do sleep 0.1; done";
    let site = site("").sh("hold", &format!("{print}; {print} >&2\n{hold}")).start();
    let own = site.dispatcher();
    let go = site.agent().work("go");
    is_served(&site, &own);
    let before = host::peak(site.agent().pid());
    let mut asked: Vec<Http<Tls>> = (0..RUNS).map(|_| connect(&site, &own)).collect();
    for (number, http) in asked.iter_mut().enumerate() {
        let place = site.agent().work(&format!("printed-{number}"));
        let words = json!([EACH.to_string(), place, go]);
        let body = json!({ "script": "hold", "args": words }).to_string();
        http.send(format!("POST /run HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}", body.len()));
    }
    for number in 0..RUNS {
        site.agent().worked(&format!("printed-{number}"));
    }
    is_served(&site, &own);
    // A hundred and twenty MiB, of which none has left.
    let grown = host::peak(site.agent().pid()).saturating_sub(before);
    assert!(grown < 48 * 1024, "{grown} KiB while they run");
    std::fs::write(go, "").unwrap();
    for mut http in asked {
        let answer = http.answer().unwrap().json();
        assert!(answer.get("truncated").is_none());
        for stream in ["stdout", "stderr"] {
            assert_eq!(answer[stream].as_str().map(str::len), Some(EACH), "{stream}");
        }
    }
    let grown = host::peak(site.agent().pid()).saturating_sub(before);
    assert!(grown < 64 * 1024, "{grown} KiB");
    assert!(site.agent().lines("output-cut").is_empty());
}

#[test]
fn where_nothing_can_be_kept_on_disk_large_output_is_kept_in_memory() {
    let site = site("").sh("much", &escaped()).start();
    let runs = site.agent().work("runs");
    std::fs::write(&runs, "no directory").unwrap();
    let config = std::fs::read_to_string(site.agent().config()).unwrap();
    std::fs::write(site.agent().config(), format!("async_runs_dir = {}\n{config}", runs.display())).unwrap();
    assert_eq!(site.agent().reload().get("RESULT"), Some("ok"));
    let answer = connect(&site, &site.dispatcher()).post("/run", r#"{"script":"much"}"#).json();
    assert_eq!((answer["stdout"].as_str().map(str::len), answer.get("truncated")), (Some(PRINTED), None));
}
