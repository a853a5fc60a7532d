//! Arguments and environment reach the script as they are, and nothing else does.

use serde_json::json;

use crate::harness::process::finish;
use crate::harness::{Site, tls};

#[test]
fn arguments_reach_the_script_unchanged() {
    let site = Site::builder().sh("args", r#"printf '%s\0' "$#" "$@""#).start();
    let given = [
        "",
        "a b",
        "grüße 漢字 🦀",
        "two\nlines\n",
        "--",
        "-n",
        "--json",
        "$(touch x); `id` | * ? ~ \\ \" '",
        "\t\x01",
    ];
    let result = site.result("args", &given);
    let printed: Vec<&str> = result["stdout"].as_str().unwrap().split('\0').collect();
    assert_eq!(printed[0], given.len().to_string());
    assert_eq!(printed[1..=given.len()], given);
    assert!(!site.agent().work("x").exists());
}

#[test]
fn numbers_reach_the_script_as_they_were_spelt() {
    let site = Site::builder().sh("args", r#"printf '%s\n' "$@""#).start();
    let numbers = ["1e3", "-0", "100000000000000000000", "2.50", "7"];
    let body = format!(r#"{{"script": "args", "args": [{}]}}"#, numbers.join(", "));
    let mut http = tls::connect(site.agent().address(), &site.authority(), &site.dispatcher());
    let printed = http.post("/run", &body).json()["stdout"].as_str().unwrap().to_owned();
    assert_eq!(printed.lines().collect::<Vec<_>>(), numbers);
}

#[test]
fn two_hundred_and_fifty_six_arguments_pass_and_one_more_is_refused() {
    let site = Site::builder().sh("count", "echo $#").start();
    let many: Vec<String> = (0..257).map(|number| number.to_string()).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert_eq!(site.result("count", &many[..256])["stdout"], "256\n");
    let refused = site.result("count", &many);
    assert_eq!((&refused["exit"], &refused["reason"]), (&json!(-1), &json!("arguments-too-large")), "{refused}");
    assert!(refused["error"].as_str().unwrap().contains("257"), "{refused}");
}

#[test]
fn long_arguments_pass_up_to_the_documented_limit() {
    let site = Site::builder().sh("length", "echo ${#1}").start();
    let longest = "x".repeat(128 * 1024 - 1);
    // What a command line can carry in one word is a little less than what a request can.
    let result = site.result("length", &[&longest[..130_000]]);
    assert_eq!(result["stdout"], "130000\n");
    let refused = site.result("length", &[&longest[..120_000]; 9]);
    assert!(!refused["error"].as_str().unwrap().is_empty() && refused["exit"] == -1, "{refused}");
}

#[test]
fn the_environment_holds_the_documented_variables_and_no_others() {
    let site = Site::builder().allow("env = /usr/bin/env").start();
    let result = site.result("env", &[]);
    let lines: Vec<&str> = result["stdout"].as_str().unwrap().lines().collect();
    assert_eq!(lines[0], "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    let known = ["HOME", "LANG", "LC_ALL", "TZ", "TERM", "USER", "LOGNAME"];
    for line in &lines[1..] {
        assert!(known.contains(&line.split('=').next().unwrap()), "{line}");
    }
}

#[test]
fn token_and_user_reach_the_script_and_no_log() {
    let site = Site::builder().allow("cat = /bin/cat").start();
    let ran = site.control(&["--json", "--username", "ann", "--token", "s3cr3t", "run", "agent1", "cat"]).exits(0);
    let context: serde_json::Value = serde_json::from_str(ran.result()["stdout"].as_str().unwrap()).unwrap();
    assert_eq!((&context["username"], &context["token"]), (&json!("ann"), &json!("s3cr3t")));
    let mut command = site.control_command(&["--json", "run", "agent1", "cat"]);
    command.env("ENVEXEC_TOKEN", "s3cr3t").env("USER", "eve");
    let by_environment = finish(command, "").exits(0);
    let context: serde_json::Value = serde_json::from_str(by_environment.result()["stdout"].as_str().unwrap()).unwrap();
    assert_eq!((&context["username"], &context["token"]), (&json!("eve"), &json!("s3cr3t")));
    for log in [ran.stderr, by_environment.stderr, site.agent().stderr()] {
        assert!(!log.contains("s3cr3t"), "{log}");
    }
}
