//! Results of `run` as people read and grep them.

use crate::dispatcher::answer::HostResult;

/// `==> host (reported)  [OK  exit:0  31ms  req:...]`, the error, the output. What a host printed is shown as it is.
#[must_use]
pub fn block(result: &HostResult) -> String {
    let reported = match result.text("reported_hostname") {
        "" => String::new(),
        name => format!(" ({name})"),
    };
    let (exit, rtt, reqid) = (result.exit(), result.text("rtt"), result.text("reqid"));
    let status = if exit == 0 { "OK" } else { "FAIL" };
    let mut text = format!("==> {}{reported}  [{status}  exit:{exit}  {rtt}  req:{reqid}]\n", result.host);
    for (label, key) in [("ERROR", "error"), ("REASON", "reason"), ("HINT", "hint")] {
        if !result.text(key).is_empty() {
            text.push_str(&labelled(label, result.text(key)));
        }
    }
    text + &printed(result)
}

/// What a host printed, as it is.
#[must_use]
pub fn printed(result: &HostResult) -> String {
    let mut text = String::new();
    let stdout = result.text("stdout");
    if !stdout.trim().is_empty() {
        text += stdout;
        if !stdout.ends_with('\n') {
            text.push('\n');
        }
    }
    let stderr = result.text("stderr");
    // Agents say there why nothing ran, for dispatchers of the original, which know no `reason`.
    let said = !result.text("reason").is_empty() && stderr.trim_end() == format!("executor: {}", result.text("reason"));
    if !stderr.trim().is_empty() && !said {
        text.push_str(&labelled("STDERR", stderr));
    }
    if result.fields.get("truncated").is_some_and(|cut| cut == true) {
        text += "    TRUNCATED: the output is larger than max_output\n";
    }
    text
}

/// `==> host  [accepted  31ms]`, or why the host has not taken its job.
#[must_use]
pub fn submitted(result: &HostResult) -> String {
    let state = match (result.text("status"), result.text("error")) {
        ("accepted", _) => format!("accepted  {}", result.text("rtt")),
        ("busy", error) => format!("BUSY: {error}"),
        (_, error) => format!("ERROR: {error}"),
    };
    let mut text = format!("==> {}  [{state}]\n", result.host);
    if !result.text("hint").is_empty() {
        text.push_str(&labelled("HINT", result.text("hint")));
    }
    text
}

/// The state of a job that is on record, with what it printed.
#[must_use]
pub fn state(result: &HostResult) -> String {
    let (host, note) =
        (&result.host, |text: &str| if text.is_empty() { String::new() } else { format!("    {text}\n") });
    match result.text("status") {
        "done" => {
            let hint = match result.text("hint") {
                "" => String::new(),
                hint => labelled("HINT", hint),
            };
            let reason = note(result.text("reason"));
            format!("==> {host}  [done  exit:{}]\n{reason}{hint}{}", result.exit(), printed(result))
        }
        status @ ("accepted" | "running") => {
            let error = result.text("fetch_error");
            let pending = if error.is_empty() { String::new() } else { note(&format!("(fetch pending: {error})")) };
            let ending = result.fields.get("ending").is_some_and(|ending| ending == true);
            let ending =
                note(if ending { "(being ended: it is killed when its profile's kill_grace has passed)" } else { "" });
            format!("==> {host}  [{status}]\n{pending}{ending}")
        }
        other => {
            let notes = note(result.text("error")) + &note(result.text("reason"));
            format!("==> {host}  [{}]\n{notes}{}", other.to_uppercase(), printed(result))
        }
    }
}

fn labelled(label: &str, text: &str) -> String {
    format!("    {label}: {text}\n")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::wire::name::AgentName;

    fn result(fields: serde_json::Value) -> HostResult {
        let serde_json::Value::Object(fields) = fields else { panic!() };
        HostResult::answered(&AgentName::parse("web").unwrap(), fields)
    }

    #[test]
    fn a_result_has_the_lines_people_grep() {
        let fields = json!({"exit": 0, "rtt": "31ms", "reqid": "ab", "stdout": "hi", "stderr": "", "host": "web.lan"});
        assert_eq!(block(&result(fields)), "==> web (web.lan)  [OK  exit:0  31ms  req:ab]\nhi\n");
    }

    #[test]
    fn why_nothing_ran_is_told_once() {
        let fields = json!({"exit": 126, "rtt": "1ms", "reqid": "ab", "reason": "no", "stderr": "executor: no\n"});
        assert_eq!(block(&result(fields.clone())), "==> web  [FAIL  exit:126  1ms  req:ab]\n    REASON: no\n");
        let said = fields.as_object().unwrap().clone().into_iter().chain([("stderr".to_owned(), "no\n".into())]);
        assert!(block(&result(said.collect())).ends_with("    REASON: no\n    STDERR: no\n\n"));
    }

    #[test]
    fn a_failure_shows_its_error_before_its_output() {
        let fields = json!({"exit": 3, "rtt": "1ms", "reqid": "ab", "error": "no", "stdout": " \n", "stderr": "bad\n"});
        let want = "==> web  [FAIL  exit:3  1ms  req:ab]\n    ERROR: no\n    STDERR: bad\n\n";
        assert_eq!(block(&result(fields)), want);
    }
}
