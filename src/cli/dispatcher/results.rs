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
    let stdout = result.text("stdout");
    if !stdout.trim().is_empty() {
        text += stdout;
        if !stdout.ends_with('\n') {
            text.push('\n');
        }
    }
    let stderr = result.text("stderr");
    if !stderr.trim().is_empty() {
        text.push_str(&labelled("STDERR", stderr));
    }
    if result.fields.get("truncated").is_some_and(|cut| cut == true) {
        text += "    TRUNCATED: the output is larger than max_output\n";
    }
    text
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
    fn a_failure_shows_its_error_before_its_output() {
        let fields = json!({"exit": 3, "rtt": "1ms", "reqid": "ab", "error": "no", "stdout": " \n", "stderr": "bad\n"});
        let want = "==> web  [FAIL  exit:3  1ms  req:ab]\n    ERROR: no\n    STDERR: bad\n\n";
        assert_eq!(block(&result(fields)), want);
    }
}
